"""redis-py by hand, in two versions: one XADD for each event, and all events of a commit packed into one XADD.

An event is MessagePack of its fields as a row. A read is XRANGE, unpack, and the same objects. A value is SET and GET,
a snapshot is a hash, and SCAN lists the workflows. Neither version has cursors, commit ids, leases or an index.
"""

from collections.abc import Sequence
from typing import Any

import msgpack
import redis

from ..events import MIXED, Kind
from .base import Contender, Missing

_PAGE = 10_000


class ByHand(Contender):
    """The part that both versions share. A subclass says what an entry is."""

    def open(self) -> None:
        if self.place.server.plain_url is None:
            raise Missing(f"measured on one server, not on {self.place.server.scheme}://")
        self.client = self.place.server.client()
        self.from_tasks = self.place.server.async_client()

    def close(self) -> None:
        keys = list(self.client.scan_iter(f"{self.place.server.token}:*", count=10_000))
        for at in range(0, len(keys), 1000):
            self.client.unlink(*keys[at : at + 1000])
        self.client.close()
        self.place.runner.run(self.from_tasks.aclose())

    def forget(self) -> None:
        for at in range(0, len(self._keys), 1000):
            keys = self._keys[at : at + 1000]
            self.client.unlink(*keys, *(f"{key}:snapshot" for key in keys))
        self._keys.clear()

    def prepare(self, key: str, at: int, events: Sequence[Any], kind: Kind) -> Any:  # noqa: ARG002
        return events, kind.row

    def events_of(self, data: bytes, kind: Kind) -> list[Any]:
        """Return the events of an entry."""
        raise NotImplementedError

    def read(self, key: str, kind: Kind) -> list[Any]:
        return self._read(key, "-", kind)

    def mark(self, key: str, cursor: int) -> Any:
        """Return the ID of the entry that holds the event with number `cursor` of its workflow."""
        seen = 0
        for entry, fields in self.client.xrange(key, count=cursor):
            seen += len(self.events_of(fields[b"e"], MIXED))
            if seen >= cursor:
                return entry
        raise LookupError(key)

    def read_after(self, key: str, mark: Any, kind: Kind) -> list[Any]:
        return self._read(key, b"(" + mark, kind)

    def _read(self, key: str, first: str | bytes, kind: Kind) -> list[Any]:
        events: list[Any] = []
        while page := self.client.xrange(key, min=first, max="+", count=_PAGE):
            for _, fields in page:
                events += self.events_of(fields[b"e"], kind)
            first = b"(" + page[-1][0]
        return events

    def save_snapshot(self, key: str, mark: Any, state: dict[str, Any]) -> object:
        return self.client.hset(f"{key}:snapshot", mapping={"at": mark, "state": msgpack.packb(state)})

    def load_snapshot(self, key: str) -> tuple[Any, dict[str, Any]]:
        mark, state = self.client.hmget(f"{key}:snapshot", "at", "state")
        return mark, msgpack.unpackb(state)

    def weigh(self, workflows: int, batches: Sequence[Sequence[Any]], kind: Kind) -> int:
        weight = 0
        for _ in range(workflows):
            key = self.new_key("weigh")
            for events in batches:
                self.append(key, self.prepare(key, 0, events, kind))
            try:
                weight += self.client.memory_usage(key, samples=0) or 0
            except redis.ResponseError as error:
                raise Missing(f"the server does not tell: {error}") from error
        return weight


class Packed(ByHand):
    name = "packed by hand"
    about = "one XADD a commit: MessagePack of a list of rows"

    def pack(self, prepared: Any) -> bytes:
        events, row = prepared
        return msgpack.packb([row(event) for event in events])

    def append(self, key: str, prepared: Any) -> object:
        return self.client.xadd(key, {"e": self.pack(prepared)})

    async def append_from_task(self, key: str, prepared: Any) -> object:
        return await self.from_tasks.xadd(key, {"e": self.pack(prepared)})

    def events_of(self, data: bytes, kind: Kind) -> list[Any]:
        build = kind.build
        return [build(row) for row in msgpack.unpackb(data)]

    def save_fact(self, fact_hash: str, value: Any) -> object:
        return self.client.set(self._fact(fact_hash), msgpack.packb(value))

    def load_fact(self, fact_hash: str) -> Any:
        return msgpack.unpackb(self.client.get(self._fact(fact_hash)))

    def load_facts(self, hashes: Sequence[str]) -> list[Any]:
        return [msgpack.unpackb(data) for data in self.client.mget(map(self._fact, hashes))]

    def _fact(self, fact_hash: str) -> str:
        return f"{self.place.server.token}:fact:{fact_hash}"

    def list_workflows(self, prefix: str) -> list[str]:
        return [key.decode() for key in self.client.scan_iter(f"{prefix}*", count=1000)]


class OneByOne(ByHand):
    name = "one XADD per event"
    about = "an XADD an event, MessagePack of its row, in a pipeline"
    usual = False

    def append(self, key: str, prepared: Any) -> object:
        events, row = prepared
        pipeline = self.client.pipeline(transaction=False)
        for event in events:
            pipeline.xadd(key, {"e": msgpack.packb(row(event))})
        return pipeline.execute()

    async def append_from_task(self, key: str, prepared: Any) -> object:
        events, row = prepared
        pipeline = self.from_tasks.pipeline(transaction=False)
        for event in events:
            pipeline.xadd(key, {"e": msgpack.packb(row(event))})
        return await pipeline.execute()

    def events_of(self, data: bytes, kind: Kind) -> list[Any]:
        return [kind.build(msgpack.unpackb(data))]


CONTENDERS = [Packed, OneByOne]
