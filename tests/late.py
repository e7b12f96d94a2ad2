"""A network that delivers the first try of a script call after its retry.

`late` puts a proxy in front of a server. On request, the proxy keeps the next script calls back and cuts their
connections, so clients retry. Later it delivers the calls. Use it like this::

    with late(server) as proxy, RedisStore.from_url(proxy.url) as store:
        store.append("order-1", [{"placed": True}])
        proxy.keep()
        store.append("order-1", [{"paid": True}])  # returns when its retry succeeds
        before = proxy.dump()
        proxy.deliver()  # the first try of the second append reaches the server now
        assert proxy.dump() == before
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hiredis

from tests.proxy import CommandProxy
from tests.servers import RunningServer

__all__ = ["LateProxy", "late"]

_CALLS = frozenset({b"EVAL", b"EVALSHA"})


class LateProxy(CommandProxy):
    """Keeps script calls back, and delivers them later.

    The proxy keeps a call together with everything that its client sent at the same moment, like a network that keeps
    the order.

    Attributes:
        kept: how many times it kept calls back.
    """

    def __init__(self, server: RunningServer) -> None:
        self.kept = 0
        self._wanted = 0
        self._matches: Callable[[Sequence[bytes]], bool] = lambda _: True
        self._meanwhile: Callable[[], object] = lambda: None
        self._late: list[list[list[bytes]]] = []
        self._keeping = threading.RLock()
        super().__init__(server)

    @property
    def url(self) -> str:
        """Return the URL for stores."""
        return f"redis://127.0.0.1:{self.port}"

    def keep(
        self,
        count: int = 1,
        matches: Callable[[Sequence[bytes]], bool] = lambda _: True,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """Keep the next script calls back. This replaces earlier requests that are still open.

        Args:
            count: how many tries to keep back. 2 keeps back the first try of a call and its first retry.
            matches: selects calls by their commands and arguments.
            meanwhile: called once a call was kept back, before its client retries. It may call `deliver`, but must not
                use this proxy as a server.
        """
        with self._keeping:
            self._wanted = count
            self._matches = matches
            self._meanwhile = meanwhile

    @property
    def waits(self) -> bool:
        """Is the proxy still waiting for a call to keep back?"""
        return self._wanted > 0

    def admit(self, commands: list[list[bytes]], login: list[list[bytes]]) -> list[list[bytes]] | None:
        with self._keeping:
            if self._wanted and any(command[0].upper() in _CALLS and self._matches(command) for command in commands):
                self._wanted -= 1
                self.kept += 1
                self._late.append([*login, *commands])
                self._meanwhile()
                return None
        return commands

    def deliver(self, count: int | None = None) -> list[Any]:
        """Deliver the calls that were kept back, or the first `count` of them.

        Returns:
            The replies, including errors. No client sees them.
        """
        with self._keeping:
            late, self._late = self._late[:count], [] if count is None else self._late[count:]
        return [reply for commands in late for reply in self._exchange(commands)]

    def _exchange(self, commands: list[list[bytes]]) -> list[Any]:
        reader = hiredis.Reader(notEnoughData=...)
        replies: list[Any] = []
        with self._server.connect() as connection:
            connection.sendall(b"".join(hiredis.pack_command(tuple(command)) for command in commands))
            while len(replies) < len(commands):
                data = connection.recv(65536)
                assert data, "the server closed the connection"
                reader.feed(data)
                while (reply := reader.gets()) is not ...:
                    replies.append(reply)
        return replies

    def dump(self, pattern: str = "*") -> dict[bytes, bytes | None]:
        """Return all keys of the server that match, with their values in DUMP format."""
        with self._server.client() as client:
            return {key: client.dump(key) for key in client.scan_iter(match=pattern, count=1000)}


@contextmanager
def late(server: RunningServer) -> Iterator[LateProxy]:
    """Put a network that can deliver late in front of a server."""
    proxy = LateProxy(server)
    try:
        yield proxy
    finally:
        proxy.close()
