"""Who may see the page, and what the browser may do with it."""

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlencode

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard"]

COOKIE = "runic_redis_token"
_LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}
# Everything comes from here: nothing that data could say makes the browser load or run anything.
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
    """Lets nothing through but reading, by those who may.

    Without a token that is whoever reaches this machine's loopback interface under its own name: pages of other sites,
    which could have their names resolve to it, do not. With one it is who shows it: in the header ``Authorization:
    Bearer``, or once in the URL as ``?token=``, for which the browser gets a cookie.

    Args:
        app: what is guarded.
        token: what must be shown; None for loopback only.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        refused = self._refusal(scope)
        await (refused or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """What is answered instead; None if the request may go on."""
        headers = Headers(scope=scope)
        if scope["method"] not in {"GET", "HEAD"}:
            return PlainTextResponse("This page only shows.\n", 405, {"Allow": "GET, HEAD"})
        if self._token is None:
            host = headers.get("host", "")
            name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
            if name.lower() in _LOOPBACK:
                return None
            return PlainTextResponse("Without a token, this page is at localhost only.\n", 421)
        query = QueryParams(scope["query_string"])
        given = query.get("token")
        if given is not None and self._fits(given):
            return self._enter(scope, query)
        if self._fits(_shown(headers)):
            return None
        return PlainTextResponse(
            "A token is needed: open the URL that runic-redis ui has printed, or send 'Authorization: Bearer TOKEN'.\n",
            401,
            {"WWW-Authenticate": "Bearer"},
        )

    def _enter(self, scope: Scope, query: QueryParams) -> Response:
        """Have the browser keep the token in a cookie, and out of the address."""
        rest = [(name, value) for name, value in query.multi_items() if name != "token"]
        # (A path that begins with two slashes would be another host.)
        path = "/" + scope["path"].lstrip("/")
        response = RedirectResponse(f"{path}?{urlencode(rest)}" if rest else path, 303)
        response.set_cookie(
            COOKIE, self._token or "", httponly=True, samesite="lax", secure=scope.get("scheme") == "https"
        )
        return response

    def _fits(self, token: str) -> bool:
        return self._token is not None and hmac.compare_digest(token.encode(), self._token.encode())


def _shown(headers: Headers) -> str:
    """The token that a request shows, if any."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value
