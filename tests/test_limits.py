"""The writer rejects what its reader would reject, and nothing else.

Most tests here make the limits small, so values of a few bytes lie on both sides of each limit.
"""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runic_redis import Fact, FactRef, RedisStore, event, session
from runic_redis.codec import (
    Codec,
    encode_errors,
    entry_decoder,
    entry_encoder,
    limits,
    native,
    value_decoder,
    value_encoder,
)
from runic_redis.errors import DecodeError, EncodeError, StoreError
from runic_redis.events import UnknownEvent, bare_registry, default_registry
from tests.codecs import BOTH
from tests.servers import RunningServer
from tests.strategies import FrozenSlotted, Plain, events, same

MODULUS = 2**61 - 1  # Python hashes an integer to its remainder by this number.


@event("tests.alike")
@dataclass(frozen=True)
class Alike:
    number: int

    def __hash__(self) -> int:
        return 7


SMALL = {
    "MAX_DEPTH": 6,
    "MOST_PAIRS": 16 * 16,
    "FEW_ALIKE": 4,
    "SHORT_BYTES": 16,
    "_NESTED_BYTES": 256,
    "_NESTED_TIMES": 1,
    "_ON_THE_STACK": 3,
    "SPLIT_BYTES": 512,
    "MAX_HEADER_BYTES": 100,
}


@contextmanager
def small_limits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (limits, native, value_encoder, value_decoder, encode_errors, entry_encoder, entry_decoder):
            for name, value in SMALL.items():
                if hasattr(module, name):
                    patch.setattr(module, name, value)
        yield


_keys = st.one_of(
    st.integers(0, 40).map(lambda number: (number + 10) * MODULUS),
    st.integers(0, 40).map(Alike),
    st.integers(0, 3),
    st.text(max_size=2),
    st.tuples(st.integers(0, 40)),
)
_crowds = st.one_of(st.frozensets(_keys, max_size=24), st.dictionaries(_keys, st.integers(0, 1), max_size=24))


def _nested(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = (value,)
    return value


def _deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        inner.map(lambda value: (value,)),
        inner.map(lambda value: [value]),
        inner.map(lambda value: {"in": value}),
        inner.map(Plain),
        st.tuples(_keys, inner).map(lambda pair: {pair[0]: pair[1]}),
    )


# Values around each limit: of keys with one hash, of levels, and of bytes at each level.
limited: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.integers(0, 3), st.binary(max_size=200), st.just(dt.date(2026, 1, 1)), _crowds),
    lambda inner: st.one_of(_deeper(inner), _deeper(_deeper(inner)), st.lists(inner, max_size=3)),
    max_leaves=6,
)
_many_fields = st.integers(1, 25).map(lambda count: UnknownEvent("many", 1, {f"f{n}": n for n in range(count)}))
limited_events = st.one_of(
    st.builds(lambda value: {"v": value}, limited),
    st.builds(Plain, limited),
    st.builds(lambda value: {"fact": Fact(value)}, limited),
    _many_fields,
)


def accepts(run: Callable[[], Any], path: str) -> tuple[bool, Any]:
    """Return whether a writer accepts a value, and its result."""
    try:
        return True, run()
    except EncodeError as error:
        problem = error
    assert problem.path.startswith(path) or f" of {path}" in problem.path, problem
    assert "nothing was sent" in str(problem)
    return False, None


def reads(run: Callable[[], Any]) -> bool:
    try:
        run()
    except DecodeError:
        return False
    return True


@settings(max_examples=100)
@given(
    commit=st.lists(limited_events, min_size=1, max_size=3)
    | st.lists(st.builds(Plain, limited), min_size=4, max_size=6)
)
def test_a_commit_is_taken_exactly_if_it_can_be_read(commit: list[Any]) -> None:
    for make in BOTH:
        is_taken_exactly_if_it_can_be_read(make, commit)


def is_taken_exactly_if_it_can_be_read(make: Callable[..., Codec], commit: list[Any]) -> None:
    free_facts: dict[str, bytes] = {}
    free = make(default_registry, "wrap").encode_commit(commit, free_facts)
    with small_limits():
        codec = make(default_registry, "wrap")
        taken, entries = accepts(lambda: codec.encode_commit(commit), "events")
        if taken:
            assert [event for entry in entries for event in codec.decode_entry(*entry[1:])]
        elif (
            sum(len(entry.payload) for entry in free) < SMALL["SPLIT_BYTES"]
        ):  # larger ones may be split in another way
            ((_, header, payload),) = free
            assert not (
                reads(lambda: codec.decode_entry(header, payload))
                and all(reads(lambda f=f, d=d: codec.decode_fact(f.encode(), d)) for f, d in free_facts.items())
            )


@settings(max_examples=100)
@given(value=limited)
@example(value=_nested(frozenset(), SMALL["MAX_DEPTH"]))
def test_what_stands_alone_is_taken_exactly_if_it_can_be_read(value: Any) -> None:
    free = Codec(default_registry, "raise")
    state, metadata, fact, log = (
        free.encode_state(value),
        free.encode_metadata({"m": value}),
        free.encode_fact(b"h", value),
        free.encode_log([{"v": value}]),
    )
    with small_limits():
        codec = Codec(default_registry, "raise")
        for path, encode, decode, data in (
            ("state", lambda: codec.encode_state(value), codec.decode_state, state),
            ("metadata", lambda: codec.encode_metadata({"m": value}), codec.decode_metadata, metadata),
            ("value", lambda: codec.encode_fact(b"h", value), lambda data: codec.decode_fact(b"h", data), fact),
            ("log", lambda: codec.encode_log([{"v": value}]), codec.decode_log, log),
        ):
            taken, encoded = accepts(encode, path)
            assert taken == reads(lambda decode=decode, data=data: decode(data)), path
            assert not taken or encoded == data


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(commit=st.lists(limited_events | events, min_size=1, max_size=3), value=limited)
def test_a_store_returns_whatever_it_has_accepted(
    valkey: RunningServer, namespace: str, commit: list[Any], value: Any
) -> None:
    with small_limits(), RedisStore.from_url(valkey.url(), namespace=namespace, unknown_events="wrap") as store:
        store.delete("w")
        try:
            store.append("w", commit, metadata={"m": value})
        except EncodeError:
            assert not store.exists("w")
        else:
            loaded = list(store.stream("w"))
            assert len(loaded) == len(commit)
            assert all(_same(store, *pair) for pair in zip(loaded, commit, strict=True))
            assert all(same(record.metadata["m"], value) for record in store.stream_records("w"))
        try:
            store.save("w", [{"v": value}])
        except EncodeError:
            pass
        else:
            assert same(store.load("w"), [{"v": value}])


def _same(store: RedisStore, loaded: Any, event: Any) -> bool:
    if type(event) is dict and type(event.get("fact")) is Fact:
        return bool(
            store.load_fact(loaded["fact"].hash) == event["fact"].value
        )  # a fact's hash ignores the order of keys
    return same(loaded, event)


@cache
def crowd(count: int) -> dict[int, int]:
    """Return a dict of keys with one hash. Making it compares each key with each other."""
    return {number * MODULUS: 1 for number in range(count)}


def test_the_limits_as_they_are_say_where_they_were_passed() -> None:
    codec = Codec(default_registry, "raise")
    most = 4096
    entries = codec.encode_commit([{"v": crowd(most)}])
    assert len(codec.decode_entry(*entries[0][1:])[0]["v"]) == most
    deep = _nested(1, limits.MAX_DEPTH)
    (entry,) = codec.encode_commit([Plain(deep)])
    assert codec.decode_entry(*entry[1:]) == [Plain(deep)]
    for path, commit in {
        "events[1]['v'][0]": [{}, {"v": [crowd(most + 1)]}],
        "events[1].value": [{}, Plain(set(crowd(most + 1)))],
        "events[0]['f'].value['v']": [{"f": Fact({"v": crowd(most + 1)})}],
        "events[1].value" + "[0]" * limits.MAX_DEPTH: [{}, Plain((deep,))],
        "events": [{"v": crowd(3500)}, {"v": crowd(3500)}],
    }.items():
        with pytest.raises(EncodeError, match=r"hash|nested in") as caught:
            codec.encode_commit(commit)
        assert caught.value.path == path


def test_a_commit_of_several_entries_is_held_to_the_limits_of_each() -> None:
    with small_limits():
        codec = Codec(default_registry, "raise")
        filler = bytes(entry_encoder.SPLIT_BYTES // 2)
        commit = [{"v": crowd(14), "filler": filler} for _ in range(3)]
        with pytest.raises(EncodeError):
            codec.encode_commit([{"v": crowd(14)}] * 3)
        entries = codec.encode_commit(commit)
        assert len(entries) == 3
        assert [one for entry in entries for one in codec.decode_entry(*entry[1:])] == commit
        with pytest.raises(EncodeError) as caught:
            codec.encode_commit([*commit, {"v": crowd(17), "filler": filler}])
        assert caught.value.path == "events[3]['v']", "the path counts from the entry, not from the commit"


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("count", [1, 5])
def test_extensions_in_fields_are_held_to_the_limits(make: Callable[..., Codec], count: int) -> None:
    day = dt.date(2026, 1, 1)
    # The only numbers of MessagePack with this hash that a dict can have.
    alike = {number * MODULUS: 1 for number in range(-4, 8)}
    with small_limits(), pytest.MonkeyPatch.context() as patch:
        codec = make(default_registry, "raise")
        assert codec.encode_commit([Plain(Plain(bytes(100)))])
        with pytest.raises(EncodeError, match=r"nests too much data|nested in"):
            codec.encode_commit([Plain(Plain(Plain(bytes(200))))] * count)
        patch.setattr(limits, "_NESTED_BYTES", 10**6)
        assert codec.encode_commit([Plain(Plain(day), alike)])
        for refused in (Plain(Plain(day, [alike, alike])), Plain(Plain(day), {1: alike, 2: dict(alike)})):
            with pytest.raises(EncodeError, match="same hash"):
                codec.encode_commit([refused] * count)


def test_a_set_of_objects_without_their_class_is_read() -> None:
    codec = Codec(default_registry, "raise")
    (entry,) = codec.encode_commit([{"v": {FrozenSlotted(number) for number in range(4200)}}])
    (found,) = Codec(bare_registry, "wrap").decode_entry(*entry[1:])
    assert len(found["v"]) == 4200
    assert hash(UnknownEvent("e", 1, {"a": [1], "b": 2})) == hash(UnknownEvent("e", 1, {"b": 2, "a": [1]}))


@pytest.mark.parametrize("hash_", [5, None, b"h", ["h"], pytest.param(10**5000, id="huge"), "", "h" * 513])
def test_a_reference_whose_hash_is_none_is_damaged_wherever_it_is_read(hash_: Any) -> None:
    writer = Codec(bare_registry, "raise")
    ref = UnknownEvent("runic_redis.fact_ref", 1, {"hash": hash_})
    (entry,) = writer.encode_commit([{"v": [ref]}])
    for registry in (default_registry, bare_registry):
        codec = Codec(registry, "wrap")
        for read in (
            lambda codec=codec: codec.decode_entry(*entry[1:]),
            lambda codec=codec: codec.decode_log(writer.encode_log([{"v": ref}])),
            lambda codec=codec: codec.decode_state(writer.encode_state((ref,))),
        ):
            with pytest.raises(DecodeError, match="reference to a fact is damaged"):
                read()
    codec = Codec(default_registry, "raise")
    for write in (
        lambda: codec.encode_commit([{}, {"v": [FactRef(hash_)]}]),
        lambda: codec.encode_log([{}, {"v": [FactRef(hash_)]}]),
        lambda: codec.encode_state([{}, {"v": [FactRef(hash_)]}]),
    ):
        with pytest.raises(EncodeError) as caught:
            write()
        assert caught.value.path.endswith("[1]['v'][0]")


def test_a_session_refuses_a_state_that_it_could_not_recover(valkey: RunningServer, namespace: str) -> None:
    with (
        RedisStore.from_url(valkey.url(), namespace=namespace) as store,
        session(
            store, "w", lambda _, event: crowd(event["count"]), {}, snapshots=_Always(), checkpoint="manual"
        ) as running,
    ):
        with pytest.raises(EncodeError, match="same hash"):
            running.record({"count": 4097})
        running.checkpoint()
        with closing(store.list()) as ids:
            assert list(ids) == []


class _Always:
    def due(self, _: Any, /) -> bool:
        return True


def test_an_error_about_a_value_is_short_whatever_its_keys_are() -> None:
    for commit in ([{10**5000: 1, "x": object()}], [{"x": {10**5000, ("y", object())}}]):
        with pytest.raises(EncodeError, match="not supported") as caught:
            Codec(default_registry, "raise").encode_commit(commit)
        assert len(str(caught.value)) < 500
    assert issubclass(EncodeError, StoreError)
