"""A network that delivers the first try of a script call after its retry.

`late` stands in front of a server. On request it keeps the next script calls back and cuts their connections, so that
clients retry; later it delivers them. Use it like this::

    with late(server) as proxy, RedisStore.from_url(proxy.url) as store:
        store.append("order-1", [{"placed": True}])
        proxy.keep()
        store.append("order-1", [{"paid": True}])  # returns when its retry is answered
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

    A call is kept with all that its client sent in the same moment, as in a network that keeps order.

    Attributes:
        kept: how many times something was kept back, in all.
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
        """How stores reach the server."""
        return f"redis://127.0.0.1:{self.port}"

    def keep(
        self,
        count: int = 1,
        matches: Callable[[Sequence[bytes]], bool] = lambda _: True,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """Keep the next script calls back, in place of earlier requests that have not been met yet.

        Args:
            count: how many tries to keep back: with 2, the first try of a call and its first retry.
            matches: which calls to keep back, by their commands and arguments.
            meanwhile: what happens when a call was kept back, before its client retries. It may deliver, but must
                not go through this proxy.
        """
        with self._keeping:
            self._wanted = count
            self._matches = matches
            self._meanwhile = meanwhile

    @property
    def waits(self) -> bool:
        """Whether a call is still to be kept back."""
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
        """Deliver what was kept back, or so many of it from the first on.

        Returns:
            The replies, which no client sees. Errors are among them.
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
                assert data, "the server has closed the connection"
                reader.feed(data)
                while (reply := reader.gets()) is not ...:
                    replies.append(reply)
        return replies

    def dump(self, pattern: str = "*") -> dict[bytes, bytes | None]:
        """All keys of the server that match, with their values as DUMP gives them."""
        with self._server.client() as client:
            return {key: client.dump(key) for key in client.scan_iter(match=pattern, count=1000)}


@contextmanager
def late(server: RunningServer) -> Iterator[LateProxy]:
    """Put a network that may deliver late in front of a server."""
    proxy = LateProxy(server)
    try:
        yield proxy
    finally:
        proxy.close()
