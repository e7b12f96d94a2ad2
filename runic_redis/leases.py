"""Leases that are kept up by a heartbeat and given back at the end, for threads and for asyncio."""

import asyncio
import contextlib
import threading
from _thread import start_new_thread
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import MethodType
from typing import Any, Self
from weakref import ref

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


@dataclass(frozen=True)
class HeldLease(Lease):
    """A lease from `RedisStore.acquire` or `RedisStore.claim`.

    As a context manager it is renewed by a thread of its own, and given back at the end. Without, it lasts until its
    time is over, or a write that carries it has it last on.
    """

    _store: Any = field(repr=False, compare=False)
    _beats: list[tuple[threading.Thread, SimpleQueue[Any]]] = field(default_factory=list, repr=False, compare=False)
    # The bound `__exit__` that was looked up last.
    _exits: list[ref[Any]] = field(default_factory=list, repr=False, compare=False)

    def __enter__(self) -> Self:
        over: SimpleQueue[Any] = SimpleQueue()
        begun: SimpleQueue[None] = SimpleQueue()
        # An ExitStack looks `__exit__` up on the class: then the heartbeat lasts as long as the lease itself.
        end = ref((self._exits and self._exits.pop()()) or self, over.put)
        lease = Lease(self.workflow_id, self.owner, self.token, self.ttl)
        thread = threading.Thread(
            target=_beat, args=(self._store, lease, begun, over, end), name=f"lease {self.workflow_id}", daemon=True
        )
        self._beats.append((thread, over))
        # `Thread.start` waits on an Event, whose lock an interrupt of this thread could leave locked.
        start_new_thread(thread.start, ())
        begun.get()
        return self

    @_Exit
    def __exit__(self, kind: object, *_: object) -> None:
        thread, over = self._beats.pop()
        over.put(None)
        thread.join()
        # An error that is on its way says more than one of giving back what runs out by itself.
        with contextlib.suppress(*([StoreError] if kind else [])):
            self._store.release(self)


def _beat(store: Any, lease: Lease, begun: SimpleQueue[None], over: SimpleQueue[Any], _: ref[Any]) -> None:
    """Renew a lease until it is over, while holding the reference that says so, but not what it refers to."""
    begun.put(None)
    while True:
        try:
            over.get(timeout=lease.ttl / _BEATS)
        except Empty:
            pass
        else:
            return
        try:
            store.renew(lease)
        except LeaseLost:
            return  # the next write says so
        except StoreError:
            continue


@dataclass(frozen=True)
class AsyncHeldLease(Lease):
    """A lease from `AsyncRedisStore.acquire` or `AsyncRedisStore.claim`; see `HeldLease`."""

    _store: Any = field(repr=False, compare=False)
    _beats: list[asyncio.Task[None]] = field(default_factory=list, repr=False, compare=False)

    async def __aenter__(self) -> Self:
        self._beats.append(asyncio.create_task(self._beat()))
        return self

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.ttl / _BEATS)
            try:
                await self._store.renew(self)
            except LeaseLost:
                return
            except StoreError:
                continue

    async def __aexit__(self, kind: object, *_: object) -> None:
        beat = self._beats.pop()
        beat.cancel()
        await asyncio.gather(beat, return_exceptions=True)
        with contextlib.suppress(*([StoreError] if kind else [])):
            await self._store.release(self)
