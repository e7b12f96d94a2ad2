"""Subscriptions: iterators over the feed whose positions are kept in the store, and handlers that are run for them.

Both faces are one module because a change of one is a change of the other.
"""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, Self
from weakref import ref

from runic_redis.arguments import check_seconds
from runic_redis.drivers.redis_py import now_s
from runic_redis.errors import InvalidType, LeaseLost, StoreError
from runic_redis.operations.commits import Commit
from runic_redis.operations.consuming import Consumer
from runic_redis.retries import OnFailure, Retries, death_text, failure_text, log_failure
from runic_redis.tails import PageReader

_log = logging.getLogger("runic_redis")
# Renew the leases this many times per `ttl`, so that one renewal may fail.
_BEATS = 3


class _Named:
    """What both kinds of subscription say of themselves."""

    def __init__(self, consumer: Consumer, wait_s: float | None) -> None:
        self._consumer = consumer
        self._wait_s = None if wait_s is None else check_seconds(wait_s, "wait_s")

    @property
    def name(self) -> str:
        """The subscription's name."""
        return self._consumer.name

    @property
    def consumer_id(self) -> str:
        """The id of this consumer, which `RedisStore.subscriptions` shows."""
        return self._consumer.consumer_id

    @property
    def partitions(self) -> list[int]:
        """The numbers of the partitions that this consumer has now."""
        return self._consumer.partitions

    def __reduce__(self) -> NoReturn:
        raise self._elsewhere_error("cannot be pickled or copied")

    def _elsewhere_error(self, what: str) -> InvalidType:
        return InvalidType(
            f"This {type(self).__name__} {what}: its leases and its connection belong to the process that opened it. "
            "Nothing was changed. Subscribe again under the same name there."
        )

    def _wait_limit_s(self, until_s: float | None) -> float:
        """Return how long a read may wait: no longer than until the next beat, which may bring partitions."""
        pause_s = self._consumer.ttl / _BEATS
        return pause_s if until_s is None else min(pause_s, max(0.0, until_s - now_s()))


class Subscription(_Named, Iterator[Commit]):
    """An iterator over the commits of a subscription, as one of its consumers. `RedisStore.subscribe` makes it.

    A thread renews its leases until it is closed. Use it as a context manager, or call `close`. It ends when no commit
    comes for `wait_s` seconds; a later step goes on from there, and so does a step after an error.

    Acknowledge commits in the order in which you get them: an acknowledgement covers all that came before. So take the
    commits of one subscription in one thread, and open another one for each further thread or process.
    """

    def __init__(
        self,
        run: Callable[[Any], Any],
        write: Callable[[Any], Any],
        consumer: Consumer,
        wait_s: float | None,
    ) -> None:
        super().__init__(consumer, wait_s)
        self._run = run
        self._write = write
        # Held by a step; while leases change; and while something is stored.
        self._lock, self._leasing, self._storing = threading.Lock(), threading.Lock(), threading.Lock()
        self._over, self._news = threading.Event(), threading.Event()
        self._is_closed = False
        self._process = os.getpid()
        run(consumer.open())
        beat = partial(_beat, ref(self), self._over, consumer.ttl / _BEATS)
        threading.Thread(target=beat, name=f"subscription {consumer.name}", daemon=True).start()

    def __next__(self) -> Commit:
        self._check_process()
        until_s = None if self._wait_s is None else now_s() + self._wait_s
        consumer = self._consumer
        has_read = False
        with self._lock:
            while not self._over.is_set():
                if (commit := consumer.take()) is not None:
                    return commit
                if has_read and consumer.at_end and until_s is not None and now_s() >= until_s:
                    break
                try:
                    self._read(self._wait_limit_s(until_s))
                except StoreError:
                    if not self._over.is_set():
                        raise
                has_read = True
            raise StopIteration

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise self._elsewhere_error("cannot be used in a process that was forked")

    def _read(self, wait_s: float) -> None:
        """Read more commits, or wait for some. What is to be stored is stored before a wait."""
        consumer = self._consumer
        if consumer.is_batch_full:
            self._flush()
        self._news.clear()
        if consumer.is_idle:
            self._news.wait(wait_s)
            return
        found = self._run(consumer.next_page(0.0 if consumer.is_unsaved else wait_s))
        if not found and consumer.is_unsaved:
            self._flush()

    def _flush(self, *, is_told: bool = True) -> None:
        with self._storing:
            self._write(self._consumer.flush(is_told=is_told))

    def _renew(self) -> None:
        with self._leasing:
            if self._over.is_set():
                return
            self._run(self._consumer.beat())
        self._news.set()
        if self._consumer.is_batch_full:
            self._flush(is_told=False)

    def ack(self, commit: Commit) -> None:
        """Acknowledge a commit, and all that this iterator returned before it: they are not delivered again.

        With `batch`, the store gets one call for so many acknowledgements, before the iterator waits, and when it is
        closed. It is confirmed by the durability of the store.

        Args:
            commit: a commit from this iterator. One that is acknowledged already changes nothing.

        Raises:
            LeaseLost: another consumer has the partition of one of these commits, and gets the commit again. Nothing
                was stored for that partition.
        """
        self._check_process()
        self._consumer.settle(commit)
        if self._consumer.is_batch_full:
            self._flush()

    def park(self, commit: Commit, reason: str) -> None:
        """Park a commit with a reason, and acknowledge all that this iterator returned before it.

        It is not delivered until it is replayed. The later commits of its workflow are put aside, see
        `RedisStore.subscribe`.

        Args:
            commit: a commit from this iterator that is not acknowledged.
            reason: why it is parked.

        Raises:
            LeaseLost: as for `ack`.
        """
        self._check_process()
        self._consumer.settle(commit, reason)
        self._flush()

    def run(
        self,
        handler: Callable[[Commit], object],
        *,
        attempts: int | None = None,
        on_failure: OnFailure = "stop",
        first_delay: float = 0.1,
    ) -> None:
        """Call a handler for each commit, and acknowledge the commit when it returns.

        If the handler raises an exception, it is called again for the same commit after a pause. The pauses double up
        to a minute, and have jitter. Failed attempts are counted in the store. If a consumer dies, nobody knows which
        commit it had in hand. From then on, each attempt in its partitions is stored before it begins, until a commit
        is acknowledged there, and counts if the consumer dies again. A commit that nobody acknowledged is handled
        again, so the handler must bear that.

        The call returns when the iterator ends, or when another thread closes it.

        Args:
            handler: it gets the commit.
            attempts: how often a commit is tried; None for no limit.
            on_failure: what happens after the last attempt. "stop" raises the handler's exception; the commit is not
                acknowledged, and comes first at the next run. "park" parks the commit with the exception as its
                reason, and goes on.
            first_delay: how many seconds to wait after the first failure, at most.

        Raises:
            Exception: the handler raised it in the last attempt.
        """
        retries = Retries(attempts, on_failure, first_delay)
        while True:
            try:
                commit = next(self)
            except StopIteration:
                return
            except LeaseLost as error:
                _log.warning("%s", error)
                continue
            self._handle(commit, handler, retries)

    def _handle(self, commit: Commit, handler: Callable[[Commit], object], retries: Retries) -> None:
        consumer = self._consumer
        count, why = consumer.failures(commit)
        while not self._over.is_set():
            if retries.parks(count):
                self._tolerate(self.park, commit, why or death_text(count))
                return
            if consumer.begin(commit):
                self._tolerate(self._flush)
                if not consumer.has(commit):
                    return
            try:
                handler(commit)
            except Exception as error:
                count, why = consumer.fail(commit, failure_text(error)), failure_text(error)
                log_failure(self.name, commit, count, error)
                self._tolerate(self._flush)
                if not consumer.has(commit):
                    return
                if retries.stops(count):
                    raise
                if not retries.parks(count):
                    self._over.wait(retries.delay_s(count))
                continue
            self._tolerate(self.ack, commit)
            return

    def _tolerate(self, call: Callable[..., None], *args: Any) -> None:
        """Store something in `run`, which goes on without partitions that are lost."""
        try:
            call(*args)
        except LeaseLost as error:
            _log.warning("%s", error)

    def close(self) -> None:
        """Store what is acknowledged, release the partitions, and end iteration.

        A thread that waits in the iterator stops at once. Other consumers get the partitions, and the commits that
        were not acknowledged.

        Raises:
            LeaseLost: as for `ack`, for acknowledgements that were not stored yet.
        """
        if os.getpid() != self._process:
            return  # the process was forked since: the leases belong to the parent
        self._over.set()
        self._consumer.stop.set()
        self._news.set()
        with self._leasing, self._storing:
            if not self._is_closed:
                self._is_closed = True
                self._write(self._consumer.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.close()
        except StoreError:
            # An error from the block matters more. The leases end by themselves.
            if not kind:
                raise


def _beat(subscription: "ref[Subscription]", over: threading.Event, pause_s: float) -> None:
    """Renew the leases of a subscription until it is closed or dropped."""
    while not over.wait(min(pause_s, threading.TIMEOUT_MAX)):
        one = subscription()
        if one is None:
            return
        try:
            one._renew()
        except StoreError as error:
            _log.info("The subscription %r could not renew its leases: %s", one.name, error)
        del one


class AsyncSubscription(_Named, PageReader, AsyncIterator[Commit]):
    """An async iterator over the commits of a subscription, as one of its consumers.

    `AsyncRedisStore.subscribe` makes it. A task renews its leases until it is closed. It opens at the first step, or as
    an async context manager. Otherwise it is as `Subscription`. A step that was cancelled loses no commit.
    """

    def __init__(
        self,
        run: Callable[[Any], Coroutine[Any, Any, Any]],
        write: Callable[[Any], Coroutine[Any, Any, Any]],
        check_loop: Callable[[], None],
        consumer: Consumer,
        wait_s: float | None,
    ) -> None:
        _Named.__init__(self, consumer, wait_s)
        PageReader.__init__(self, run, check_loop)
        self._write = write
        self._leasing, self._storing = asyncio.Lock(), asyncio.Lock()
        self._over, self._news = asyncio.Event(), asyncio.Event()
        self._beats: asyncio.Task[None] | None = None

    async def _open(self) -> None:
        if self._beats is None and not self._closed:
            await self._run(self._consumer.open())
            self._beats = asyncio.create_task(_beat_async(ref(self), self._consumer.ttl / _BEATS))

    async def __anext__(self) -> Commit:
        self._check_loop()
        began_s = now_s()
        until_s = None if self._wait_s is None else began_s + self._wait_s
        consumer = self._consumer
        # A page whose reading began before this step may lack newer commits.
        has_read = False
        while not self._closed:
            if (commit := consumer.take()) is not None:
                return commit
            if has_read and consumer.at_end and until_s is not None and now_s() >= until_s:
                break
            read_s = await self._await_page(partial(self._read, self._wait_limit_s(until_s)))
            has_read = has_read or read_s >= began_s
        raise StopAsyncIteration

    async def _read(self, wait_s: float) -> None:
        """Read more commits, or wait for some. What is to be stored is stored before a wait."""
        await self._open()
        consumer = self._consumer
        if consumer.is_batch_full:
            await self._flush()
        self._news.clear()
        if consumer.is_idle:
            await _wait(self._news, wait_s)
            return
        found = await self._run(consumer.next_page(0.0 if consumer.is_unsaved else wait_s))
        if not found and consumer.is_unsaved:
            await self._flush()

    async def _flush(self, *, is_told: bool = True) -> None:
        async with self._storing:
            await self._write(self._consumer.flush(is_told=is_told))

    async def _renew(self) -> None:
        async with self._leasing:
            if self._over.is_set():
                return
            await self._run(self._consumer.beat())
        self._news.set()
        if self._consumer.is_batch_full:
            await self._flush(is_told=False)

    async def ack(self, commit: Commit) -> None:
        """Acknowledge a commit, and all that this iterator returned before it: they are not delivered again.

        See `Subscription.ack`.
        """
        self._consumer.settle(commit)
        if self._consumer.is_batch_full:
            await self._flush()

    async def park(self, commit: Commit, reason: str) -> None:
        """Park a commit with a reason, and acknowledge all that this iterator returned before it.

        See `Subscription.park`.
        """
        self._consumer.settle(commit, reason)
        await self._flush()

    async def run(
        self,
        handler: Callable[[Commit], Coroutine[Any, Any, object]],
        *,
        attempts: int | None = None,
        on_failure: OnFailure = "stop",
        first_delay: float = 0.1,
    ) -> None:
        """Call a handler for each commit, and acknowledge the commit when it returns.

        The handler is a coroutine function. See `Subscription.run`.
        """
        retries = Retries(attempts, on_failure, first_delay)
        while True:
            try:
                commit = await anext(self)
            except StopAsyncIteration:
                return
            except LeaseLost as error:
                _log.warning("%s", error)
                continue
            await self._handle(commit, handler, retries)

    async def _handle(
        self, commit: Commit, handler: Callable[[Commit], Coroutine[Any, Any, object]], retries: Retries
    ) -> None:
        consumer = self._consumer
        count, why = consumer.failures(commit)
        while not self._closed:
            if retries.parks(count):
                await self._tolerate(self.park(commit, why or death_text(count)))
                return
            if consumer.begin(commit):
                await self._tolerate(self._flush())
                if not consumer.has(commit):
                    return
            try:
                await handler(commit)
            except Exception as error:
                count, why = consumer.fail(commit, failure_text(error)), failure_text(error)
                log_failure(self.name, commit, count, error)
                await self._tolerate(self._flush())
                if not consumer.has(commit):
                    return
                if retries.stops(count):
                    raise
                if not retries.parks(count):
                    await _wait(self._over, retries.delay_s(count))
                continue
            await self._tolerate(self.ack(commit))
            return

    async def _tolerate(self, storing: Coroutine[Any, Any, None]) -> None:
        """Store something in `run`, which goes on without partitions that are lost."""
        try:
            await storing
        except LeaseLost as error:
            _log.warning("%s", error)

    async def aclose(self) -> None:
        """Store what is acknowledged, release the partitions, and end iteration.

        A task that waits in the iterator stops at once. If this call is cancelled, the release goes on. Otherwise as
        `Subscription.close`.
        """
        await super().aclose()
        self._over.set()
        self._news.set()
        if self._beats is not None:
            beats, self._beats = self._beats, None
            beats.cancel()
            await asyncio.wait([beats])
            await asyncio.shield(self._close())

    async def _close(self) -> None:
        async with self._leasing, self._storing:
            await self._write(self._consumer.close())

    async def __aenter__(self) -> Self:
        self._check_loop()
        await self._open()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        try:
            await self.aclose()
        except StoreError:
            # An error from the block matters more. The leases end by themselves.
            if not kind:
                raise


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


async def _beat_async(subscription: "ref[AsyncSubscription]", pause_s: float) -> None:
    """Renew the leases of a subscription until it is closed or dropped."""
    while True:
        await asyncio.sleep(pause_s)
        one = subscription()
        if one is None:
            return
        try:
            await one._renew()
        except StoreError as error:
            _log.info("The subscription %r could not renew its leases: %s", one.name, error)
        del one
