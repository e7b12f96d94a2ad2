"""Iterators over pages that a store reads: tails, and for asyncio also streams and listings.

In asyncio, a task reads each page. If the caller is cancelled or stops waiting, the next step gets the page. No event
is lost and none comes twice.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from threading import Lock
from typing import Any, NoReturn, Self, TypeVar

from runic_redis.arguments import check_seconds
from runic_redis.drivers.redis_py import now_s
from runic_redis.errors import InvalidType, StoreError
from runic_redis.operations.feed import FeedReader
from runic_redis.operations.listing import Listing
from runic_redis.operations.reading import Reader
from runic_redis.operations.tailing import Tailer

T = TypeVar("T")
# Runs an operation on the store.
_Run = Callable[[Any], Any]
_RunAsync = Callable[[Any], Coroutine[Any, Any, Any]]
# Reads pages, and follows what it has read.
_Source = Tailer | FeedReader


def _left_s(until_s: float | None) -> float | None:
    return None if until_s is None else max(0.0, until_s - now_s())


class Tail(Iterator[T]):
    """An iterator over the events of workflows: first the stored events, then new events as they are appended.

    `RedisStore.tail` and `RedisStore.tail_many` make it. Iteration waits for the next event. It ends when no event
    comes for `wait_s` seconds. A later step continues from there, and so does a step after an error.

    Use it as a context manager, or call `close`, to end it: then it yields nothing more. Threads may share a tail: each
    event goes to one of them.
    """

    def __init__(self, run: _Run, tailer: _Source, form: Callable[[Any], T], wait_s: float | None) -> None:
        self._wait_s = None if wait_s is None else check_seconds(wait_s, "wait_s")
        self._run = run
        self._tailer = tailer
        self._form = form
        self._items: deque[Any] = deque()
        self._lock = Lock()
        run(tailer.open())

    def __next__(self) -> T:
        until_s = None if self._wait_s is None else now_s() + self._wait_s
        with self._lock:
            while not self._tailer.stop.is_set:
                if self._items:
                    return self._form(self._items.popleft())
                try:
                    self._items.extend(self._run(self._tailer.next_page(_left_s(until_s))))
                except StoreError:
                    if not self._tailer.stop.is_set:
                        raise
                is_late = until_s is not None and now_s() >= until_s
                if not self._items and (is_late or self._tailer.is_done):
                    break
            raise StopIteration

    def close(self) -> None:
        """End the tail, from any thread. A thread that waits in it stops at once, and the connection is closed."""
        self._tailer.stop.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise _not_copyable_error(self)


class PageReader:
    """A reader of pages in a task, so that steps can be cancelled.

    Args:
        run: runs an operation on the store.
        check_loop: raises an error in an event loop other than the store's.
    """

    def __init__(self, run: _RunAsync, check_loop: Callable[[], None]) -> None:
        self._run = run
        self._check_loop = check_loop
        self._items: deque[Any] = deque()
        self._opened = False
        self._closed = False
        # The task that reads a page, and the time when it began.
        self._reading: tuple[asyncio.Task[None], float] | None = None

    async def _await_page(self, read: Callable[[], Coroutine[Any, Any, None]]) -> float:
        """Wait for a page, which an earlier step may have begun to read, and return when its reading began."""
        if self._reading is not None and self._reading[0].done():
            self._reading = None  # it ended while no step waited
        if self._reading is None:
            task = asyncio.create_task(read())
            task.add_done_callback(_retrieve)
            self._reading = task, now_s()
        task, began_s = self._reading
        await asyncio.wait([task])
        if self._reading is not None and self._reading[0] is task:
            self._reading = None
        if not self._closed:
            task.result()
        return began_s

    async def aclose(self) -> None:
        """End iteration: it yields nothing more. A task that waits stops at once, and the connection is closed."""
        self._check_loop()
        self._closed = True
        self._items.clear()
        if self._reading is not None:
            (task, _), self._reading = self._reading, None
            task.cancel()
            await asyncio.wait([task])


def _retrieve(task: asyncio.Task[None]) -> None:
    """Prevent asyncio's warning about a failure that no step waits for."""
    if not task.cancelled():
        task.exception()


class AsyncTail(PageReader, AsyncIterator[T]):
    """An async iterator over the events of workflows: first the stored events, then new events as they are appended.

    `AsyncRedisStore.tail` and `AsyncRedisStore.tail_many` make it. Iteration waits for the next event. It ends when no
    event comes for `wait_s` seconds. A later step continues from there. So does a step after an error, or after a step
    that was cancelled, as by `asyncio.wait_for`: no event is lost, and none comes twice.

    Use it as an async context manager, or call `aclose`, to end it: then it yields nothing more. Tasks may share a
    tail: each event goes to one of them.
    """

    def __init__(
        self,
        run: _RunAsync,
        check_loop: Callable[[], None],
        tailer: _Source,
        form: Callable[[Any], T],
        wait_s: float | None,
    ) -> None:
        super().__init__(run, check_loop)
        self._wait_s = None if wait_s is None else check_seconds(wait_s, "wait_s")
        self._tailer = tailer
        self._form = form

    async def __anext__(self) -> T:
        self._check_loop()
        began_s = now_s()
        until_s = None if self._wait_s is None else began_s + self._wait_s
        while not self._closed:
            if self._items:
                return self._form(self._items.popleft())
            read_s = await self._await_page(partial(self._read_page, _left_s(until_s)))
            # A page whose reading began before this step may lack newer events.
            is_late = until_s is not None and read_s >= began_s and now_s() >= until_s
            if not self._items and (is_late or self._tailer.is_done):
                break
        raise StopAsyncIteration

    async def _read_page(self, wait_s: float | None) -> None:
        if not self._opened:
            await self._run(self._tailer.open())
            self._opened = True
        self._items.extend(await self._run(self._tailer.next_page(wait_s)))

    async def __aenter__(self) -> Self:
        self._check_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __reduce__(self) -> NoReturn:
        raise _not_copyable_error(self)


class AsyncPages(PageReader, AsyncIterator[T]):
    """An async iterator over a stream or a listing. After a cancelled step, it continues from there.

    Args:
        run: runs an operation on the store.
        check_loop: raises an error in an event loop other than the store's.
        source: reads the pages.
    """

    def __init__(self, run: _RunAsync, check_loop: Callable[[], None], source: Reader | Listing) -> None:
        super().__init__(run, check_loop)
        self._source = source

    def __aiter__(self) -> AsyncGenerator[T, None]:
        # A step of an async generator takes a quarter of the time of an `async def __anext__`.
        return self._walk()

    async def _walk(self) -> AsyncGenerator[T, None]:
        items = self._items
        try:
            while await self._has_more():
                while items:
                    yield items.popleft()
        finally:
            self._source.close()

    async def __anext__(self) -> T:
        if not await self._has_more():
            raise StopAsyncIteration
        item: T = self._items.popleft()
        return item

    async def _has_more(self) -> bool:
        self._check_loop()
        while not self._items and not self._closed:
            await self._await_page(self._read_page)
        return bool(self._items)

    async def _read_page(self) -> None:
        if not self._opened:
            await self._run(self._source.open())
            self._opened = True
        page = await self._run(self._source.next_page())
        self._items.extend(page)
        self._closed = self._closed or not page

    async def aclose(self) -> None:
        """End iteration, and cancel the reading of a page."""
        await super().aclose()
        self._source.close()


def _not_copyable_error(tail: object) -> InvalidType:
    return InvalidType(
        f"This {type(tail).__name__} cannot be pickled or copied: it reads over a connection of this process. Nothing "
        "was changed. Open another tail, with after= the cursor of the last record that you processed."
    )
