"""Access to the page: who may read it, and what a browser may do with it."""

import hmac
import re
from collections.abc import Iterator
from hashlib import sha256
from urllib.parse import urlencode

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}
# A host with or without a port. Everything else is rejected, as parsers disagree about it.
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?", re.IGNORECASE)
# A request that changes something carries this header. A browser sends it for another site only after asking this page
# whether it may, and the page never agrees.
CHANGING_HEADER = "X-Runic-Redis"
# The browser loads and runs only files of this page, whatever the stored data says.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware that lets only permitted requests through.

    Without a token, the guard accepts requests that name the loopback interface as their host. It rejects other names:
    a web site could have its own name resolve to this machine. With a token, the guard accepts requests that carry it:
    in the header ``Authorization: Bearer``, in a cookie, or in the URL as ``?token=``, in return for the cookie.

    Requests read, unless changes are allowed. Then a request with the method POST must carry the header
    ``X-Runic-Redis: 1``, so that no other web site can have a browser send it.

    Args:
        app: the guarded application.
        token: the token that requests must carry; None to accept the loopback interface only.
        allow_changes: whether requests may change something.
    """

    def __init__(self, app: ASGIApp, token: str | None, *, allow_changes: bool) -> None:
        self._app = app
        self._token = token
        self._methods = ("GET", "HEAD", "POST") if allow_changes else ("GET", "HEAD")
        # Browsers share cookies between the ports of a host: each token has its own name, so pages do not clash.
        self._cookie = f"runic_redis_{sha256((token or '').encode()).hexdigest()[:16]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refused = self._refusal(scope)
        await (refused or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that is rejected; None if the request may go on."""
        headers = Headers(scope=scope)
        if wrong := self._wrong_method(scope["method"], headers):
            return wrong
        if self._token is None:
            host = _HOST.fullmatch(",".join(headers.getlist("host")))
            if host is not None and host[1].lower() in {*_LOOPBACK, scope["server"][0]}:
                return None
            return PlainTextResponse(
                "Without a token, this page answers requests to localhost only. Start it with --token.\n", 421
            )
        query = QueryParams(scope["query_string"])
        given = query.get("token")
        if given is not None and self._fits(given):
            return self._enter(scope, query)
        if any(map(self._fits, self._carried(headers))):
            return None
        return PlainTextResponse(
            "A token is needed: open the URL that runic-redis ui printed, or send 'Authorization: Bearer TOKEN'.\n",
            401,
            {"WWW-Authenticate": "Bearer"},
        )

    def _wrong_method(self, method: str, headers: Headers) -> Response | None:
        """Return the answer to a request whose method is not allowed, or not with these headers."""
        if method not in self._methods:
            allowed = ", ".join(self._methods)
            return PlainTextResponse(f"This page answers {allowed} only.\n", 405, {"Allow": allowed})
        if method == "POST" and headers.get(CHANGING_HEADER) != "1":
            return PlainTextResponse(f"A request that changes something needs the header {CHANGING_HEADER}: 1.\n", 403)
        return None

    def _enter(self, scope: Scope, query: QueryParams) -> Response:
        """Return a redirect that moves the token from the address to a cookie."""
        rest = [(name, value) for name, value in query.multi_items() if name != "token"]
        # A path that begins with two slashes would name another host.
        path = "/" + scope["path"].lstrip("/")
        response = RedirectResponse(f"{path}?{urlencode(rest)}" if rest else path, 303)
        response.set_cookie(
            self._cookie, self._token or "", httponly=True, samesite="lax", secure=scope.get("scheme") == "https"
        )
        return response

    def _carried(self, headers: Headers) -> Iterator[str]:
        """Yield the tokens that a request carries."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            yield token.strip()
        # Other programs at this host also set cookies, in forms that a strict parser rejects.
        for cookie in ";".join(headers.getlist("cookie")).split(";"):
            name, _, value = cookie.strip().partition("=")
            if name == self._cookie:
                yield value

    def _fits(self, token: str) -> bool:
        return self._token is not None and hmac.compare_digest(token.encode(), self._token.encode())
