"""Leases that are kept up by a heartbeat and given back at the end, for threads and for asyncio."""

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

from runic_redis.drivers.loops import Home
from runic_redis.errors import LeaseLost, StoreError
from runic_redis.operations.leasing import Lease

__all__ = ["AsyncHeldLease", "HeldLease"]

# A lease is renewed this often in its time, so that one renewal may fail.
_BEATS = 3


class _Exit:
    """A method `__exit__` that notes its bound methods.

    A `with` statement looks `__exit__` up before it calls `__enter__`, and drops the bound method when the block ends.
    An interrupt may keep `__enter__` from returning or `__exit__` from running, but the bound method goes even then.
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
    """What a lease has besides its value: no fields, since the functions of `dataclasses` would copy them."""

    # Heartbeats, of which each `with` statement adds one; and the bound `__exit__` that was looked up last.
    _beats: list[Any]
    _exits: list[ref[Any]]


@dataclass(frozen=True, eq=False)
class HeldLease(Lease, _Held):
    """A lease from `RedisStore.acquire` or `RedisStore.claim`.

    As a context manager it is renewed by a thread of its own, and given back at the end. Without, it lasts until its
    time is over, or a write that carries it has it last on. Leaving takes at most `ttl` seconds, also when the server
    does not answer: by then the lease has ended by itself.

    It is a value, which can be compared, hashed, copied and pickled. One that comes from a pickle is good for writes
    that carry it, and for `renew` and `release` of any store; only as a context manager it cannot be used.
    """

    _store: InitVar[Any] = None

    def __post_init__(self, _store: Any) -> None:
        _set_attributes(self, _store=_store, _beats=[], _exits=[])

    def __enter__(self) -> Self:
        store = _store_of(self)
        over: SimpleQueue[Any] = SimpleQueue()
        begun: SimpleQueue[None] = SimpleQueue()
        outcome: SimpleQueue[Exception | None] = SimpleQueue()
        # An ExitStack looks `__exit__` up on the class: then the heartbeat lasts as long as the lease itself.
        end = ref((self._exits and self._exits.pop()()) or self, over.put)
        thread = threading.Thread(
            target=_beat, args=(store, _plain_lease(self), begun, over, outcome, end), name=f"lease {self.workflow_id}"
        )
        thread.daemon = True
        self._beats.append((thread, (over, outcome)))
        # `Thread.start` waits on an Event, whose lock an interrupt of this thread could leave locked.
        start_new_thread(thread.start, ())
        begun.get()
        return self

    @_Exit
    def __exit__(self, kind: object, *_: object) -> None:
        thread, (over, outcome) = self._beats.pop()
        if not thread.is_alive() and outcome.empty():
            return  # this process was forked within the block: the lease and its thread are the parent's
        over.put(copy_context())
        try:
            failure = outcome.get(timeout=_bounded_s(self.ttl))
        except Empty:
            return  # its time is over; the thread gives it back if it can
        thread.join()
        # An error that is on its way says more than one of giving back what runs out by itself.
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
    """Renew a lease until it is over, while holding the reference that says so, but not what it refers to.

    At the end it is given back here, where nobody waits for longer than they want. Not if it was only dropped.
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
    """Renew a lease until it is over, or lost; what was said of its end, if anything."""
    while True:
        with contextlib.suppress(Empty):
            return over.get(timeout=_bounded_s(lease.ttl / _BEATS))
        try:
            store.renew(lease)
        except LeaseLost:
            return None  # the next write says so
        except StoreError:
            continue


@dataclass(frozen=True, eq=False)
class AsyncHeldLease(Lease, _Held):
    """A lease from `AsyncRedisStore.acquire` or `AsyncRedisStore.claim`; see `HeldLease`.

    It belongs to the event loop of its store. A task that is cancelled while it leaves the lease stops at once, and the
    lease is given back meanwhile.
    """

    _store: InitVar[Any] = None
    _home: InitVar[Home | None] = None

    def __post_init__(self, _store: Any, _home: Home | None) -> None:
        _set_attributes(self, _store=_store, _home=_home, _beats=[])

    async def __aenter__(self) -> Self:
        store = _store_of(self)
        if (home := vars(self)["_home"]) is not None:
            home.check()
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
        # A task of its own, so that it goes on if this one is cancelled again.
        releasing = asyncio.create_task(_store_of(self).release(self))
        _releasing.add(releasing)
        releasing.add_done_callback(_forget_release)
        await asyncio.wait([beat, releasing], timeout=self.ttl)
        if not releasing.done():
            return  # its time is over
        failure = None if releasing.cancelled() else releasing.exception()
        if failure is not None and not kind:
            raise failure


# Those that are being given back, which asyncio itself would let go as garbage.
_releasing: set[asyncio.Task[None]] = set()


def _forget_release(task: asyncio.Task[None]) -> None:
    _releasing.discard(task)
    if not task.cancelled():
        task.exception()  # or asyncio would complain that nobody has looked at it


def _set_attributes(lease: Lease, **attributes: Any) -> None:
    """Set attributes of a frozen instance that are no part of its value."""
    vars(lease).update(attributes)


def _plain_lease(lease: Lease) -> Lease:
    return Lease(lease.workflow_id, lease.owner, lease.token, lease.ttl)


def _bounded_s(seconds: float) -> float:
    """A time that a queue can wait."""
    return min(seconds, threading.TIMEOUT_MAX)


def _store_of(lease: Any) -> Any:
    if lease._store is None:
        raise StoreError(
            f"This lease of the workflow {lease.workflow_id!r} comes from a pickle and has no store to be renewed "
            "through, so it is no context manager. Nothing was sent. Pass it as lease= to writes, and call "
            "store.renew(lease) and store.release(lease)."
        )
    return lease._store
