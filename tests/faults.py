"""Faults at chosen points inside a store: a server that loses requests or replies."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from runic_redis import RedisStore
from runic_redis.drivers.sync import Sender
from runic_redis.drivers.sync_servers import Pending, Server
from runic_redis.protocol.effects import Batch, Command, ConnectionLost, Operation
from runic_redis.protocol.rounds import Call
from tests.servers import RunningServer, running, valkey_program

T = TypeVar("T")
LOST = ConnectionLost("the test lost it", sent=True)


class FaultyServer:
    """A server between a store and its real server. Each item of `faults` decides about one round trip, in order.

    - "reply": the server carries the request out, and its reply is lost.
    - "request": the request is lost.
    - "late": the network keeps the request back until `deliver_late`.
    - "first": only the first call of the batch is carried out and answered.
    - None: no fault.

    Attributes:
        faults: the faults still to come.
        after_loss: called after each loss, before the operation knows of it.
        late: the requests that the network keeps back.
        rounds: the calls of each round trip.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.faults: list[str | None] = []
        self.late: list[Sequence[Call]] = []
        self.after_loss: Callable[[], None] = lambda: None
        self.rounds: list[Sequence[Call]] = []
        self.find_node = server.find_node
        self.forget = server.forget
        self.subscribe = server.subscribe

    def begin(self, calls: Sequence[Call]) -> Pending:
        self.rounds.append(calls)
        fault = self.faults.pop(0) if self.faults else None
        if fault is None:
            return self._server.begin(calls)
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
        """Deliver the requests that the network kept back, and return their replies to the test alone."""
        replies = [reply for calls in self.late for reply in self._send(calls)]
        self.late.clear()
        return replies

    def close(self) -> None:
        self._server.close()


class Answered:
    """A round trip whose replies are known at once."""

    def __init__(self, replies: list[Any]) -> None:
        self._replies = replies

    def finish(self) -> list[Any]:
        return self._replies

    def cancel(self) -> None:
        """Do nothing, as nothing is in flight."""


def make_faulty(store: RedisStore, deadline_s: float = 30.0) -> FaultyServer:
    """Put a faulty server behind a store."""
    faulty = FaultyServer(store._sender.server)
    store._sender = Sender(faulty, deadline_s, wait_s=1.0)
    return faulty


class Failover:
    """A failover from a store's server to another one, which has the same data and another hash seed.

    Args:
        one: the store on the first server.
        two: the store on the other server.
    """

    def __init__(self, one: RedisStore, two: RedisStore) -> None:
        self._store = one
        self._two = two

    def run(self, operation: Operation[T], after: Callable[[Command], bool] = lambda _: True) -> T:
        """Run an operation. The failover comes after the first round trip with a command that `after` selects."""
        reply: Any = None
        while True:
            try:
                effect = operation.send(reply)
            except StopIteration as end:
                assert self._store is self._two
                return end.value

            def once(effect: Any = effect) -> Operation[Any]:
                return (yield effect)

            reply = self._store.run(once(), "test")
            if isinstance(effect, Batch) and any(map(after, effect.commands)):
                self._store = self._two


@contextmanager
def failover(store: RedisStore, server: RunningServer, directory: Path) -> Iterator[Failover]:
    """Copy all keys of a store's namespace to another server, to which a failover can lead."""
    namespace, partitions = store.context.keys.namespace, store.context.keys.partitions
    with running(valkey_program(), directory) as other, server.client() as source, other.client() as target:
        keys = source.keys(f"{{{namespace}[:}}]*")
        reading, writing = source.pipeline(transaction=False), target.pipeline(transaction=False)
        for key in keys:
            reading.dump(key)
        for key, value in zip(keys, reading.execute(), strict=True):
            writing.restore(key, 0, value)
        writing.execute()
        with RedisStore.from_url(other.url(), namespace=namespace, partitions=partitions) as two:
            yield Failover(store, two)
