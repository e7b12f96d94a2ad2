"""redis-py by hand, as a first version would be written.

An event is MessagePack in an XADD, a commit is a pipeline, and a read is XRANGE and unpack. A value is SET and GET, a
snapshot is a hash, and SCAN lists the workflows.
"""

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import msgpack
import redis

from ..events import OrderPlaced
from .base import Contender, Missing

_PAGE = 10_000


class ByHand(Contender):
    name = "redis-py by hand"
    about = "one XADD an event, msgpack of dataclasses.asdict inside, in a pipeline; XRANGE, unpack, the same objects"

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

    def pack(self, event: Any) -> bytes:
        return msgpack.packb(asdict(event) if is_dataclass(event) else _fields(event))

    def unpack(self, data: bytes, kind: type[Any]) -> Any:
        return kind(**msgpack.unpackb(data))

    def append(self, key: str, prepared: Any) -> object:
        pipeline = self.client.pipeline(transaction=False)
        for event in prepared:
            pipeline.xadd(key, {"t": "order_placed", "d": self.pack(event)})
        return pipeline.execute()

    async def append_from_task(self, key: str, prepared: Any) -> object:
        if len(prepared) == 1:
            return await self.from_tasks.xadd(key, {"t": "order_placed", "d": self.pack(prepared[0])})
        pipeline = self.from_tasks.pipeline(transaction=False)
        for event in prepared:
            pipeline.xadd(key, {"t": "order_placed", "d": self.pack(event)})
        return await pipeline.execute()

    def read(self, key: str, kind: type[Any] = OrderPlaced) -> list[Any]:
        return self._read(key, "-", kind)

    def mark(self, key: str, cursor: int) -> Any:
        """Return the entry id of the event that is number `cursor` of its workflow."""
        ((last, _),) = self.client.xrange(key, count=cursor)[cursor - 1 :]
        return last

    def read_after(self, key: str, mark: Any) -> list[Any]:
        return self._read(key, b"(" + mark, OrderPlaced)

    def _read(self, key: str, first: str | bytes, kind: type[Any]) -> list[Any]:
        events: list[Any] = []
        while page := self.client.xrange(key, min=first, max="+", count=_PAGE):
            events += [self.unpack(fields[b"d"], kind) for _, fields in page]
            first = b"(" + page[-1][0]
        return events

    def save_snapshot(self, key: str, mark: Any, state: dict[str, Any]) -> object:
        return self.client.hset(f"{key}:snapshot", mapping={"at": mark, "state": msgpack.packb(state)})

    def load_snapshot(self, key: str) -> tuple[Any, dict[str, Any]]:
        mark, state = self.client.hmget(f"{key}:snapshot", "at", "state")
        return mark, msgpack.unpackb(state)

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

    def weigh(self, workflows: int, batches: Sequence[Sequence[Any]]) -> int:
        weight = 0
        for _ in range(workflows):
            key = self.new_key("weigh")
            for events in batches:
                self.append(key, events)
            try:
                weight += self.client.memory_usage(key, samples=0) or 0
            except redis.ResponseError as error:
                raise Missing(f"the server does not tell: {error}") from error
        return weight


def _fields(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


CONTENDERS = [ByHand]
