"""An asyncio store with a blocking face, so both faces pass the same contract suite.

Calls come from any thread and run in an event loop in a thread. An iterator takes its first step at the call, as `async
for` does.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

from runic_redis import AsyncRedisStore, AsyncSubscription, AsyncTail, RedisStore

_END = object()


class BlockingStore:
    """An asyncio store for synchronous tests."""

    def __init__(self, store: AsyncRedisStore) -> None:
        self._store = store
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        try:
            self._wait(store.open())
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> "BlockingStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if not self._loop.is_closed():
            self._wait(self._store.close())
            self._end()

    # Defined explicitly, because `supports_stream` and others look for methods on the class.
    def append(self, *args: Any, **options: Any) -> Any:
        return self.__getattr__("append")(*args, **options)

    def stream(self, *args: Any, **options: Any) -> Any:
        return self.__getattr__("stream")(*args, **options)

    def run(self, operation: Any, name: str) -> Any:
        async def wait() -> Any:
            return await self._store.run(operation, name)

        return self._wait(wait())

    def encode_events(self, events: Any) -> Any:
        return self._store.encode_events(events)

    def fact_hash(self, value: Any) -> str:
        return self._store.fact_hash(value)

    def encode_state(self, state: Any) -> bytes:
        return self._store.encode_state(state)

    def decode_state(self, data: bytes) -> Any:
        return self._store.decode_state(data)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._store, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **options: Any) -> Any:
            if self._loop.is_closed():
                # The store itself reports that it is closed.
                return asyncio.run(attribute(*args, **options))
            result = attribute(*args, **options)
            if inspect.isawaitable(result):
                return self._wait(result)
            if isinstance(result, AsyncTail):
                return BlockingTail(result, self._wait)
            if isinstance(result, AsyncSubscription):
                return BlockingSubscription(result, self._wait)
            return self._iterate(result)

        return call

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _iterate(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        async def step() -> Any:
            return await anext(items, _END)

        async def close() -> None:
            await items.aclose()  # type: ignore[attr-defined]

        def rest(first: Any) -> Iterator[Any]:
            try:
                item = first
                while item is not _END:
                    yield item
                    item = self._wait(step())
            finally:
                self._wait(close())

        return rest(self._wait(step()))

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class BlockingTail:
    """A tail of an asyncio store for synchronous tests. It takes no step at the call."""

    def __init__(self, tail: Any, wait: Callable[[Any], Any]) -> None:
        self._tail = tail
        self._wait = wait

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        async def step() -> Any:
            return await anext(self._tail, _END)

        item = self._wait(step())
        if item is _END:
            raise StopIteration
        return item

    @property
    def positions(self) -> Any:
        return self._tail.positions  # type: ignore[attr-defined]

    def close(self) -> None:
        self._wait(self._tail.aclose())

    def __enter__(self) -> Self:
        self._wait(self._tail.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self._wait(self._tail.__aexit__(*error))


class BlockingSubscription(BlockingTail):
    """A subscription of an asyncio store for synchronous tests. It is open after the call, as a synchronous one is."""

    def __init__(self, subscription: AsyncSubscription, wait: Callable[[Any], Any]) -> None:
        super().__init__(subscription, wait)
        self._wait(subscription.__aenter__())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tail, name)

    def ack(self, commit: Any) -> None:
        self._wait(self._tail.ack(commit))

    def park(self, commit: Any, reason: str) -> None:
        self._wait(self._tail.park(commit, reason))

    def run(self, handler: Callable[[Any], Any], **options: Any) -> None:
        async def handle(commit: Any) -> None:
            # In a thread, because it may call the store.
            await asyncio.to_thread(handler, commit)

        self._wait(self._tail.run(handle, **options))


def open_store(face: str, url: str, namespace: str, **options: Any) -> Any:
    """Open a store of either face, for the contract suite."""
    if face == "sync":
        return RedisStore.from_url(url, namespace=namespace, **options)
    return BlockingStore(AsyncRedisStore.from_url(url, namespace=namespace, **options))
