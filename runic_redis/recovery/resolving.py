"""The values of references to facts: loaded on demand, many in one round trip, and cached.

`_Resolver` has the logic; `FactResolver` and `AsyncFactResolver` run it on their kinds of store.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Any

from runic_redis.arguments import check_count
from runic_redis.errors import DecodeError, FactNotFound, InvalidType, short_repr
from runic_redis.events import EventRegistry, Fact, FactRef, default_registry, parts_of, refs_in
from runic_redis.events.references import checked_ref, with_facts
from runic_redis.recovery.steps import Steps, StoreCall, run_steps, run_steps_async

Hot = Callable[[Any, FactRef], bool]

DEFAULT_BYTES = 64 * 1024 * 1024


class _Resolver:
    """The logic of a resolver on any store; the parameters are those of `FactResolver`."""

    def __init__(self, store: Any, max_bytes: int = DEFAULT_BYTES) -> None:
        self._store = store
        # Whether the store can load many facts in one call.
        self._many = hasattr(store, "load_facts")
        self._registry = getattr(store, "registry", default_registry)
        self._max_bytes = check_count(max_bytes, "max_bytes")
        self._cached: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._cached_bytes = 0
        self._cache_lock = Lock()

    @property
    def cached_bytes(self) -> int:
        """The approximate memory of the cache, in bytes."""
        return self._cached_bytes

    def _resolve_steps(self, refs: Sequence[FactRef | Fact]) -> Steps[list[Any]]:
        """Return the values of references, in order."""
        for ref in refs:
            if not isinstance(ref, FactRef | Fact):
                raise InvalidType(f"A resolver resolves FactRefs, not {short_repr(ref)}; nothing was sent.")
        values = yield from self._load({checked_ref(ref).hash for ref in refs if isinstance(ref, FactRef)})
        return [values[ref.hash] if isinstance(ref, FactRef) else ref.value for ref in refs]

    def _rehydrate_steps(self, events: Iterable[Any], hot: Hot | None) -> Steps[list[Any]]:
        """Return the events with a `Fact` in place of each hot reference."""
        events = list(events)
        hot_hashes = [
            [ref.hash for ref in refs_in(event, self._registry) if hot is None or hot(event, ref)] for event in events
        ]
        wanted: dict[str, int] = {}
        for place, hashes in enumerate(hot_hashes):
            for fact_hash in hashes:
                wanted.setdefault(fact_hash, place)
        try:
            values = yield from self._load(wanted)
        except FactNotFound as error:
            first = str(error.hashes[0])
            raise FactNotFound(
                f"The fact {first!r} is not stored, to which {self._named(events[wanted[first]], wanted[first])} refers"
                + (f"; nor are {len(error.hashes) - 1} more." if len(error.hashes) > 1 else "."),
                hashes=error.hashes,
            ) from error
        except DecodeError:
            # The error does not name the damaged fact in a readable form, so load them one by one.
            for fact_hash, place in wanted.items():
                try:
                    yield from self._load([fact_hash])
                except DecodeError as error:
                    referrer = self._named(events[place], place)
                    raise DecodeError(
                        f"The fact {fact_hash!r}, which {referrer} refers to, is damaged: {error}"
                    ) from error
            raise
        return [
            with_facts(event, {fact_hash: values[fact_hash] for fact_hash in hashes}, self._registry)
            for event, hashes in zip(events, hot_hashes, strict=True)
        ]

    def _named(self, event: Any, place: int) -> str:
        registered = self._registry.of(type(event))
        return f"events[{place}], " + (f"a {registered.schema.name!r}," if registered is not None else "a plain dict,")

    def _load(self, hashes: Iterable[str]) -> Steps[dict[str, Any]]:
        found: dict[str, Any] = {}
        missing = []
        with self._cache_lock:
            for fact_hash in hashes:
                if fact_hash in self._cached:
                    self._cached.move_to_end(fact_hash)
                    found[fact_hash] = self._cached[fact_hash][0]
                else:
                    missing.append(fact_hash)
        if missing and self._many:
            loaded = yield StoreCall("load_facts", (missing,))
        else:
            loaded = {}
            for fact_hash in missing:
                loaded[fact_hash] = yield StoreCall("load_fact", (fact_hash,))
        for fact_hash, value in loaded.items():
            found[fact_hash] = value
            self._remember(fact_hash, value)
        return found

    def _remember(self, fact_hash: str, value: Any) -> None:
        size = _size(value, self._registry)
        if size > self._max_bytes:
            return
        with self._cache_lock:
            if fact_hash in self._cached:
                return
            self._cached[fact_hash] = value, size
            self._cached_bytes += size
            while self._cached_bytes > self._max_bytes:
                self._cached_bytes -= self._cached.popitem(last=False)[1][1]


class FactResolver(_Resolver):
    """A loader of the values of references in events, with a cache of the values used last.

    Callers share the returned values: do not change them. The content of a fact never changes, so a cached value is
    never outdated. Threads may share a resolver.

    Args:
        store: the store.
        max_bytes: the approximate limit of the cache's memory, in bytes.
    """

    def resolve(self, ref: FactRef | Fact) -> Any:
        """Return the value of a reference.

        Raises:
            FactNotFound: the fact is not stored.
            DecodeError: the stored fact is damaged.
        """
        return self.resolve_many([ref])[0]

    def resolve_many(self, refs: Iterable[FactRef | Fact]) -> list[Any]:
        """Return the values of references, in order, in one round trip. Raises as `resolve` does."""
        return run_steps(self._resolve_steps(list(refs)), self._store)

    def rehydrate(self, events: Iterable[Any], hot: Hot | None = None) -> list[Any]:
        """Return events as they were appended, with a `Fact` in place of each hot reference, in one round trip.

        Args:
            events: events as a stream returns them.
            hot: returns whether the value of a reference in an event is needed now, such as the value of a pending
                input; None for all references.

        Raises:
            FactNotFound: a fact is not stored. The error names the fact and the event that refers to it.
            DecodeError: a fact is damaged. The error names the fact and the event that refers to it.
        """
        return run_steps(self._rehydrate_steps(events, hot), self._store)


class AsyncFactResolver(_Resolver):
    """A `FactResolver` for a store for asyncio, with methods to await."""

    async def resolve(self, ref: FactRef | Fact) -> Any:
        """Return the value of a reference; see `FactResolver.resolve`."""
        return (await self.resolve_many([ref]))[0]

    async def resolve_many(self, refs: Iterable[FactRef | Fact]) -> list[Any]:
        """Return the values of references, in order, in one round trip; see `FactResolver.resolve_many`."""
        return await run_steps_async(self._resolve_steps(list(refs)), self._store)

    async def rehydrate(self, events: Iterable[Any], hot: Hot | None = None) -> list[Any]:
        """Return events with a `Fact` in place of each hot reference; see `FactResolver.rehydrate`."""
        return await run_steps_async(self._rehydrate_steps(events, hot), self._store)


def _size(value: Any, registry: EventRegistry) -> int:
    """Return the approximate memory of a value in bytes; a shared part counts at each place."""
    total = 0
    stack = [value]
    while stack:
        part = stack.pop()
        total += sys.getsizeof(part)
        stack.extend(parts_of(part, registry))
    return total
