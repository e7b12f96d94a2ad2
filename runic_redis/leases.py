"""Leases that are kept up by a heartbeat and given back at the end, for threads and for asyncio."""

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from typing import Any, Self

from runic_redis.errors import LeaseLost, StoreError
from runic_redis.operations.leasing import Lease

__all__ = ["AsyncHeldLease", "HeldLease"]

# A lease is renewed this often in its time, so that one renewal may fail.
_BEATS = 3


@dataclass(frozen=True)
class HeldLease(Lease):
    """A lease from `RedisStore.acquire` or `RedisStore.claim`.

    As a context manager it is renewed by a thread of its own, and given back at the end. Without, it lasts until its
    time is over, or a write that carries it has it last on.
    """

    _store: Any = field(repr=False, compare=False)
    _beats: list[tuple[threading.Thread, threading.Event]] = field(default_factory=list, repr=False, compare=False)

    def __enter__(self) -> Self:
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(over,), name=f"lease {self.workflow_id}", daemon=True)
        self._beats.append((thread, over))
        thread.start()
        return self

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(self.ttl / _BEATS):
            try:
                self._store.renew(self)
            except LeaseLost:
                return  # the next write says so
            except StoreError:
                continue

    def __exit__(self, kind: object, *_: object) -> None:
        thread, over = self._beats.pop()
        over.set()
        thread.join()
        # An error that is on its way says more than one of giving back what runs out by itself.
        with contextlib.suppress(*([StoreError] if kind else [])):
            self._store.release(self)


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
