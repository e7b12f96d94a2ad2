"""Faults at chosen points: a server that loses what is sent or answered, and a proxy that cuts connections."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from runic_redis import RedisStore
from runic_redis.drivers.sync import Pending, Sender, Server
from runic_redis.operations.effects import Lost
from runic_redis.operations.grouping import Call
from tests.servers import RunningServer

LOST = Lost("the test lost it", sent=True)


class FaultyServer:
    """Between a store and its server; what happens to each round trip is decided by `faults`, one after the other.

    "reply": carried out, the reply is lost. "request": never carried out. "late": not carried out now, but when
    `deliver_late` is called. "first": only the first call is carried out and answered. None: all is well.

    Attributes:
        faults: what is still to happen.
        after_loss: called after each loss, before the operation knows of it.
        late: what the network holds back.
        rounds: what was sent.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.faults: list[str | None] = []
        self.late: list[Sequence[Call]] = []
        self.after_loss: Callable[[], None] = lambda: None
        self.rounds: list[Sequence[Call]] = []
        self.many_nodes = server.many_nodes
        self.find_node = server.find_node
        self.forget = server.forget

    def begin(self, calls: Sequence[Call], *, apart: bool = False) -> Pending:
        self.rounds.append(calls)
        fault = self.faults.pop(0) if self.faults else None
        if fault is None:
            return self._server.begin(calls, apart=apart)
        if fault == "first":
            return Answered([*self._send(calls[:1]), *[LOST] * (len(calls) - 1)])
        if fault == "reply":
            self._send(calls)
        elif fault == "late":
            self.late.append(calls)
        self.after_loss()
        return Answered([LOST] * len(calls))

    def _send(self, calls: Sequence[Call]) -> list[Any]:
        return self._server.begin(calls).finish()

    def deliver_late(self) -> list[Any]:
        """What the network held back reaches the server now; nobody reads the replies but the test."""
        replies = [reply for calls in self.late for reply in self._send(calls)]
        self.late.clear()
        return replies

    def close(self) -> None:
        self._server.close()


class Answered:
    """What was answered at once."""

    def __init__(self, replies: list[Any]) -> None:
        self._replies = replies

    def finish(self) -> list[Any]:
        return self._replies

    def cancel(self) -> None:
        """Nothing is under way."""


def make_faulty(store: RedisStore, deadline_s: float = 30.0) -> FaultyServer:
    """Put a faulty server behind a store."""
    faulty = FaultyServer(store._sender.server)
    store._sender = Sender(faulty, deadline_s, wait_s=1.0)
    return faulty


class CuttingProxy:
    """A proxy on loopback that cuts each connection by its plan.

    Attributes:
        cut_request: cut once so many bytes of requests have passed, or None.
        cut_reply: cut once so many bytes of replies have passed, or None.
        seen: the bytes of requests that reached the server.
    """

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut_request: int | None = None
        self.cut_reply: int | None = None
        self.seen = bytearray()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = self._server.connect()
            self._sockets += [client, upstream]
            for source, target, is_request in ((client, upstream, True), (upstream, client, False)):
                thread = threading.Thread(target=self._pump, args=(source, target, is_request))
                thread.start()
                self._threads.append(thread)

    def _pump(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        try:
            while data := source.recv(65536):
                left = self.cut_request if is_request else self.cut_reply
                passed = data if left is None else data[:left]
                if is_request:
                    self.seen += passed
                target.sendall(passed)
                if left is None:
                    continue
                if len(data) > left:
                    self.cut_request = self.cut_reply = None
                    break
                if is_request:
                    self.cut_request = left - len(data)
                else:
                    self.cut_reply = left - len(data)
        except OSError:
            pass
        finally:
            # Both ends see an end, as when a connection breaks.
            for one in (source, target):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()


@contextmanager
def cutting_proxy(server: RunningServer) -> Iterator[CuttingProxy]:
    """A proxy in front of a server."""
    proxy = CuttingProxy(server)
    try:
        yield proxy
    finally:
        proxy.close()
