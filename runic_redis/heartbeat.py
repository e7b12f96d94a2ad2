"""Leases that a heartbeat renews and that are released at the end, for threads and for asyncio."""

import asyncio
import contextlib
import threading
from _thread import start_new_thread
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import InitVar, dataclass
from queue import Empty, SimpleQueue
from types import MethodType
from typing import Any, Self
from weakref import ref

from runic_redis.drivers.event_loop import Home
from runic_redis.errors import LeaseLost, StoreError
from runic_redis.operations.leasing import Lease

# Renew a lease this many times per `ttl`, so that one renewal may fail.
_BEATS = 3


class _Exit:
    """A method `__exit__` that records its last bound method.

    A `with` statement looks up `__exit__` before it calls `__enter__`, and drops the bound method when the block ends.
    An interrupt may keep `__enter__` from returning or `__exit__` from running. The bound method is dropped even then.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __get__(self, lease: "HeldLease | None", kind: type | None = None) -> Callable[..., None]:
        if lease is None:
            return self._function
        bound = MethodType(self._function, lease)
        lease._exits[:] = [ref(bound)]
        return bound


class _Held:
    """The attributes of a lease beside its value: not fields, which `dataclasses.replace` would copy."""

    # The heartbeats, one for each `with` statement, and the last bound `__exit__`.
    _beats: list[Any]
    _exits: list[ref[Any]]


@dataclass(frozen=True, eq=False)
class HeldLease(Lease, _Held):
    """A lease from `RedisStore.acquire` or `RedisStore.claim`.

    As a context manager, it is renewed by a thread and released at the end. Otherwise it lasts for `ttl` seconds, and
    each write that carries it extends it. Leaving the context takes at most `ttl` seconds, even if the server does not
    answer: by then the lease has ended.

    It is a value: you can compare, hash, copy and pickle it. After unpickling, you can pass it to writes, and to
    `renew` and `release` of any store. But you cannot use it as a context manager.
    """

    _store: InitVar[Any] = None

    def __post_init__(self, _store: Any) -> None:
        # Attributes of a frozen instance that are not part of its value.
        vars(self).update(_store=_store, _beats=[], _exits=[])

    def __enter__(self) -> Self:
        store = _store_of(self)
        over: SimpleQueue[Any] = SimpleQueue()
        begun: SimpleQueue[None] = SimpleQueue()
        outcome: SimpleQueue[Exception | None] = SimpleQueue()
        # An ExitStack looks up `__exit__` on the class. Then the heartbeat lasts as long as the lease object.
        end = ref((self._exits and self._exits.pop()()) or self, over.put)
        lease = Lease(self.workflow_id, self.owner, self.token, self.ttl, self.queue, self.attempt)
        thread = threading.Thread(target=_beat, args=(store, lease, begun, over, outcome, end), daemon=True)
        thread.name = f"lease {self.workflow_id}"
        self._beats.append((thread, (over, outcome)))
        # `Thread.start` waits on an Event, and an interrupt of this thread could leave its lock locked.
        start_new_thread(thread.start, ())
        begun.get()
        return self

    @_Exit
    def __exit__(self, kind: object, *_: object) -> None:
        thread, (over, outcome) = self._beats.pop()
        if not thread.is_alive() and outcome.empty():
            return  # the process forked within the block: the lease and its thread belong to the parent
        over.put(copy_context())
        try:
            failure = outcome.get(timeout=min(self.ttl, threading.TIMEOUT_MAX))
        except Empty:
            return  # the lease has ended; the thread releases it if it can
        thread.join()
        # An error from the block matters more than a failed release, since the lease ends anyway.
        if failure is not None and not kind:
            raise failure


def _beat(
    store: Any,
    lease: Lease,
    begun: SimpleQueue[None],
    over: SimpleQueue[Any],
    outcome: SimpleQueue[Exception | None],
    _: ref[Any],
) -> None:
    """Renew a lease until its context ends, then release it.

    The thread holds a weak reference whose callback reports that the lease was dropped. A dropped lease is not
    released. The release runs here, so that the caller can stop waiting for it.
    """
    begun.put(None)
    failure = None
    try:
        end = _keep_renewed(store, lease, over)
        if isinstance(end, Context):
            end.run(store.release, lease)
    except Exception as error:
        failure = error
    outcome.put(failure)


def _keep_renewed(store: Any, lease: Lease, over: SimpleQueue[Any]) -> Any:
    """Renew a lease until it ends or is lost, and return the message that ended it, if any."""
    while True:
        with contextlib.suppress(Empty):
            return over.get(timeout=min(lease.ttl / _BEATS, threading.TIMEOUT_MAX))
        try:
            store.renew(lease)
        except LeaseLost:
            return None  # the next write raises the error
        except StoreError:
            continue


@dataclass(frozen=True, eq=False)
class AsyncHeldLease(Lease, _Held):
    """A lease from `AsyncRedisStore.acquire` or `AsyncRedisStore.claim`; see `HeldLease`.

    It belongs to the event loop of its store. A task that is cancelled while it leaves the context stops at once, and
    another task releases the lease.
    """

    _store: InitVar[Any] = None
    _home: InitVar[Home | None] = None

    def __post_init__(self, _store: Any, _home: Home | None) -> None:
        vars(self).update(_store=_store, _home=_home, _beats=[])

    async def __aenter__(self) -> Self:
        store = _store_of(self)
        if (home := vars(self)["_home"]) is not None:
            home.check_loop()
        self._beats.append(asyncio.create_task(self._beat(store)))
        return self

    async def _beat(self, store: Any) -> None:
        while True:
            await asyncio.sleep(self.ttl / _BEATS)
            try:
                await store.renew(self)
            except LeaseLost:
                return
            except StoreError:
                continue

    async def __aexit__(self, kind: object, *_: object) -> None:
        beat = self._beats.pop()
        beat.cancel()
        # Another task, so that the release continues if this task is cancelled again.
        releasing = asyncio.create_task(_store_of(self).release(self))
        _releasing.add(releasing)
        releasing.add_done_callback(_forget_release)
        await asyncio.wait([beat, releasing], timeout=self.ttl)
        if not releasing.done():
            return  # the lease has ended
        failure = None if releasing.cancelled() else releasing.exception()
        if failure is not None and not kind:
            raise failure


# The releases in flight. asyncio keeps weak references only, so they could be garbage-collected.
_releasing: set[asyncio.Task[None]] = set()


def _forget_release(task: asyncio.Task[None]) -> None:
    _releasing.discard(task)
    if not task.cancelled():
        task.exception()  # prevents asyncio's warning about an exception that was never retrieved


def _store_of(lease: Any) -> Any:
    if lease._store is None:
        raise StoreError(
            f"This lease of the workflow {lease.workflow_id!r} comes from a pickle and has no store to renew it, so it "
            "cannot be a context manager. Nothing was sent. Pass it as lease= to writes, and call store.renew(lease) "
            "and store.release(lease)."
        )
    return lease._store
