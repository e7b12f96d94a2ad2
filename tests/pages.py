"""The web page of a store, served as users serve it, with requests as browsers send them."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from tests.forking import Forked

__all__ = ["Answer", "Page", "serving"]

COMMAND = ("ui", "--json", "--port", "0")


@dataclass
class Answer:
    """A response of the page."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


@dataclass
class Page:
    """A page that is served.

    Attributes:
        url: the URL that the command printed.
        process: the process that serves it.
    """

    url: str
    process: Forked

    def ask(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
        """Request a path, without following redirects."""
        request = urllib.request.Request(self.url.partition("?")[0] + path, headers=headers or {}, method=method)
        try:
            with _OPENER.open(request, timeout=60) as reply:
                return Answer(reply.status, dict(reply.headers), reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())

    def get(self, path: str, **query: object) -> Any:
        """Return the JSON at one of the page's own addresses."""
        answer = self.ask(f"api/{path}?{urlencode(query)}")
        assert answer.status == 200, answer
        return answer.json

    def at(self, *parts: str, **query: object) -> str:
        """Return the address of a view in a browser."""
        address = f"{self.url}#/{'/'.join(quote(part, safe='') for part in parts)}"
        return f"{address}?{urlencode(query)}" if query else address


@contextmanager
def serving(url: str, namespace: str, *options: str) -> Iterator[Page]:
    """Serve a store's page at a free port until the block ends."""
    with Forked(None, *COMMAND, "--url", url, "--namespace", namespace, *options) as process:
        try:
            line = process.stdout.readline()
            assert line, process.communicate()
            yield Page(json.loads(line)["url"], process)
        finally:
            process.kill()
