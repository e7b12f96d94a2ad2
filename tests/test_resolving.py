"""The values behind references: they are loaded on demand, cached, and named if they are missing."""

import asyncio
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runic_redis import (
    AsyncFactResolver,
    AsyncRedisStore,
    DecodeError,
    Fact,
    FactNotFound,
    FactRef,
    FactResolver,
    InvalidType,
    RedisStore,
    event,
)
from runic_redis.protocol.effects import Batch, Command
from runic_redis.runic_events import FactProduced


@event("tests.step_done")
@dataclass(frozen=True)
class StepDone:
    step: int
    result: Any


class Counting:
    """A store of facts that counts its calls."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.asked: list[list[str]] = []

    def load_facts(self, hashes: list[str]) -> dict[str, Any]:
        self.asked.append(sorted(hashes))
        return {one: self.values[one] for one in hashes}


def forget(store: RedisStore, fact_hash: str, damaged: bytes | None = None) -> None:
    key, _ = store.context.keys.fact(fact_hash.encode())
    args = ("HDEL", key, fact_hash) if damaged is None else ("HSET", key, fact_hash, damaged)
    store._sender.ask(Batch([Command(args, key)]))


def test_a_reference_is_resolved_once() -> None:
    store = Counting({"a": 1, "b": 2})
    resolver = FactResolver(store)
    assert resolver.resolve(FactRef("a")) == 1
    assert resolver.resolve(FactRef("a")) == 1
    assert resolver.resolve(Fact("as it is")) == "as it is"
    assert store.asked == [["a"]]


def test_many_references_are_one_round_trip_of_those_that_are_missing() -> None:
    store = Counting({str(number): number for number in range(9)})
    resolver = FactResolver(store)
    refs = [FactRef(str(number)) for number in (3, 1, 3, 2)]
    assert resolver.resolve_many(refs) == [3, 1, 3, 2]
    assert resolver.resolve_many([*refs, FactRef("8"), Fact(0)]) == [3, 1, 3, 2, 8, 0]
    assert store.asked == [["1", "2", "3"], ["8"]]
    assert resolver.resolve_many([]) == []


def test_a_store_that_loads_facts_one_by_one_will_do() -> None:
    class OneByOne:
        def load_fact(self, fact_hash: str) -> str:
            return fact_hash.upper()

    assert FactResolver(OneByOne()).resolve_many([FactRef("a"), FactRef("b")]) == ["A", "B"]


def test_the_cache_is_bounded_in_bytes_and_keeps_what_was_used_last() -> None:
    store = Counting({str(number): "x" * 10_000 for number in range(10)})
    resolver = FactResolver(store, max_bytes=35_000)
    for number in range(10):
        resolver.resolve(FactRef(str(number)))
        resolver.resolve(FactRef("0"))
        assert resolver.cached_bytes <= 35_000
    assert resolver.cached_bytes > 30_000
    assert store.asked.count(["0"]) == 1
    resolver.resolve(FactRef("1"))
    assert store.asked.count(["1"]) == 2


def test_what_is_larger_than_the_cache_is_not_cached() -> None:
    store = Counting({"large": ["x" * 1000] * 3, "small": 1})
    resolver = FactResolver(store, max_bytes=2000)
    for _ in range(2):
        resolver.resolve_many([FactRef("large"), FactRef("small")])
    assert store.asked == [["large", "small"], ["large"]]
    nothing = FactResolver(store, max_bytes=0)
    nothing.resolve(FactRef("small"))
    assert nothing.cached_bytes == 0


def test_only_what_is_hot_is_rehydrated(store: RedisStore) -> None:
    appended = [StepDone(step, Fact({"step": step})) for step in range(6)]
    store.append("w", appended)
    lean = list(store.stream("w"))
    resolver = FactResolver(store)
    events = resolver.rehydrate(lean, hot=lambda one, _: one.step >= 4)
    assert events == [*lean[:4], *appended[4:]]
    assert resolver.rehydrate(lean) == appended
    assert resolver.rehydrate(lean, hot=lambda *_: False) == lean


def test_rehydrating_goes_into_whatever_holds_a_reference(store: RedisStore) -> None:
    appended = [
        {"list": [Fact(1), (Fact(2), {"key": Fact(3)})], "plain": {1, 2}},
        StepDone(1, [StepDone(2, Fact(4))]),
        {"set": {Fact(5)}, "frozen": frozenset({Fact(6)}), Fact(7): 0},
        FactProduced(1, {"a": 1}, "produced"),
    ]
    store.append("w", appended)
    assert FactResolver(store).rehydrate(store.stream("w")) == appended


values = st.recursive(
    st.integers() | st.text(max_size=3) | st.builds(Fact, st.integers(0, 5)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.builds(StepDone, st.integers(), inner)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.builds(StepDone, st.integers(), values), min_size=1, max_size=4))
def test_rehydrated_is_what_was_appended(appended: list[StepDone]) -> None:
    with RedisStore.from_url("memory://rehydrated", namespace="r", partitions=1) as store:
        store.delete("w")
        store.append("w", appended)
        assert FactResolver(store).rehydrate(store.stream("w")) == appended


def test_a_missing_fact_is_named_with_its_event(store: RedisStore) -> None:
    store.append("w", [StepDone(step, Fact(step)) for step in range(3)])
    lean = list(store.stream("w"))
    forget(store, lean[1].result.hash)
    resolver = FactResolver(store)
    with pytest.raises(FactNotFound, match=r"events\[1\], a 'tests.step_done'") as caught:
        resolver.rehydrate(lean)
    assert caught.value.hashes == [lean[1].result.hash]
    assert lean[1].result.hash in str(caught.value)
    assert resolver.rehydrate(lean, hot=lambda one, _: one.step != 1)[2] == StepDone(2, Fact(2))
    with pytest.raises(FactNotFound):
        resolver.resolve(lean[1].result)


def test_a_damaged_fact_is_named_with_its_event(store: RedisStore) -> None:
    store.append("w", [*(StepDone(step, Fact(step)) for step in range(3)), {"plain": Fact("p")}])
    lean = list(store.stream("w"))
    for ref, place in ((lean[2].result, r"events\[2\], a 'tests.step_done'"), (lean[3]["plain"], r"events\[2\]")):
        forget(store, ref.hash, b"damaged")
        with pytest.raises(DecodeError, match=place) as caught:
            FactResolver(store).rehydrate(lean)
        assert lean[2].result.hash in str(caught.value)


@pytest.mark.parametrize("ref", ["sha256:1", b"h", None])
def test_only_references_are_resolved(ref: Any) -> None:
    with pytest.raises(InvalidType):
        FactResolver(Counting({})).resolve(ref)


def test_the_resolver_for_asyncio_does_the_same(namespace: str) -> None:
    async def main() -> None:
        async with AsyncRedisStore.from_url(f"memory://{namespace}", namespace=namespace) as store:
            appended = [StepDone(step, Fact("x" * 100 + str(step))) for step in range(3)]
            await store.append("w", appended)
            lean = [one async for one in store.stream("w")]
            resolver = AsyncFactResolver(store, max_bytes=10_000)
            assert await resolver.resolve(lean[0].result) == "x" * 100 + "0"
            assert 0 < resolver.cached_bytes < 1000
            assert len(await resolver.resolve_many([one.result for one in lean])) == 3
            assert await resolver.rehydrate(lean, hot=lambda one, _: one.step == 1) == [lean[0], appended[1], lean[2]]

    asyncio.run(main())


@pytest.mark.parametrize("damaged", [[1], {}, 5, None, b"a", 2**70])
def test_a_reference_without_a_hash_is_noticed(damaged: Any) -> None:
    resolver = FactResolver(Counting({"a": 1}))
    ref = FactRef(damaged)
    for read in (lambda: resolver.resolve(ref), lambda: resolver.rehydrate([{"b": [ref]}, FactRef("a")])):
        with pytest.raises(DecodeError, match="reference to a fact is damaged"):
            read()


def test_references_are_filled_as_deep_as_values_nest() -> None:
    def nested(inner: Any) -> Any:
        for level in range(5000):
            inner = [inner] if level % 2 else {"k": inner}
        return inner

    resolver = FactResolver(Counting({"a": 1}))
    (event,) = resolver.rehydrate([{"b": nested(FactRef("a")), "c": nested(0)}])
    inner = event["b"]
    while type(inner) is not Fact:
        (inner,) = inner if type(inner) is list else inner.values()
    assert inner == Fact(1)


def test_threads_may_share_a_resolver(store: RedisStore) -> None:
    """One thread is about to read a cached value while another evicts it."""
    found, evicted = threading.Event(), threading.Event()

    class Cache(OrderedDict[str, Any]):
        def __contains__(self, key: object) -> bool:
            is_there = super().__contains__(key)
            if is_there:
                found.set()
                evicted.wait(0.1)
            return is_there

    refs = [FactRef(store.put_fact(letter * 1000)) for letter in "ab"]
    resolver = FactResolver(store, max_bytes=1500)
    resolver._cached = Cache()
    assert resolver.resolve(refs[0]) == "a" * 1000

    def evict() -> None:
        found.wait()
        resolver.resolve(refs[1])
        evicted.set()

    with ThreadPoolExecutor(1) as thread:
        evicting = thread.submit(evict)
        assert resolver.resolve(refs[0]) == "a" * 1000
        evicting.result()
    assert resolver.cached_bytes == resolver._cached[refs[1].hash][1]
