"""The stores of clients: shared by threads or not, for threads or for asyncio."""

import concurrent.futures
from collections.abc import Coroutine
from contextlib import ExitStack
from random import Random
from typing import Any

from runic_redis import AsyncRedisStore, RedisStore
from tests.chaos.clients import Interrupted
from tests.chaos.rig import NAMESPACE, PARTITIONS, Rig
from tests.portal import BlockingStore

__all__ = ["open_stores"]


class _Asyncio(BlockingStore):
    """An asyncio store that threads share. It gathers all records in its event loop before it returns them."""

    def stream_records(self, *args: Any, **options: Any) -> Any:
        async def gather() -> list[Any]:
            return [record async for record in self._store.stream_records(*args, **options)]

        return self._wait(gather())


class _Cancelled(_Asyncio):
    """The same store, with calls that are cancelled at random moments."""

    def __init__(self, other: _Asyncio, source: Random) -> None:
        self._store = other._store
        self._loop = other._loop
        self._random = source

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return super()._wait(self._cancel(work, self._random.choice([0.0, 0.001, 0.01]) * self._random.random()))
        except concurrent.futures.CancelledError:
            raise Interrupted from None

    async def _cancel(self, work: Coroutine[Any, Any, Any], delay_s: float) -> Any:
        task = self._loop.create_task(work)
        timer = self._loop.call_later(delay_s, task.cancel)
        try:
            return await task
        finally:
            timer.cancel()


def open_stores(rig: Rig, stack: ExitStack, source: Random) -> list[Any]:
    """Open a store for each client."""
    options: dict[str, Any] = {
        "namespace": NAMESPACE,
        "partitions": PARTITIONS,
        "durability": rig.durability,
        "deadline_s": rig.deadline_s,
    }

    def open_sync() -> Any:
        return stack.enter_context(RedisStore.from_url(rig.url, **options))

    shared: dict[str, Any] = {}
    stores = []
    for face in rig.faces:
        if face == "own":
            stores.append(open_sync())
        elif face == "shared":
            shared[face] = shared.get(face) or open_sync()
            stores.append(shared[face])
        else:
            shared["asyncio"] = shared.get("asyncio") or stack.enter_context(
                _Asyncio(AsyncRedisStore.from_url(rig.url, **options))
            )
            one = shared["asyncio"]
            stores.append(one if face == "asyncio" else _Cancelled(one, source))
    return stores
