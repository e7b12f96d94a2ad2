"""Code that reads Redis returns or raises a `StoreError`, whatever Redis holds, and other workflows stay usable."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain, islice
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from runic_redis import EveryEvents, Fact, FactResolver, Lease, RedisStore, StoreError, session
from runic_redis.operations import tailing
from runic_redis.protocol.effects import Argument, Batch, Command
from runic_redis.runic_events import pending
from tests import fuzzing
from tests.servers import RunningServer
from tests.strategies import Pair, Plain, events

# Starts of MessagePack values that claim much, nest, or that no writer uses. The last ones start compressed data.
HEADS = [
    *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc1"),
    *(b"\xdc\xff\xff", b"\xde\xff\xff", b"\xc9\xff\xff\xff\xff\x02", b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7)),
    *(
        b"\x91" * 2000,
        b"\x81" * 2000,
        b"\x81\x00" * 2000,
        b"\xd4\x0b\x90",
        b"\xc7\x02\x0b\x91\x00",
        b"\xcb\x7f\xf8" + bytes(6),
    ),
    *(bytes([0xD4, code, inner]) for code in (*range(13), 127, 128, 255) for inner in (0x00, 0x31, 0x90, 0x80)),
    *(b"\xd6\xff" + b"\xff" * 4, b"\xd7\xff" + b"\xff" * 8, b"\xc7\x0c\xff" + b"\xff" * 12),
    *(b"\x01\x28\xb5\x2f\xfd", b"\x01\x50\x2a\x4d\x18\xff\xff\xff\xff", b"\x00"),
]
indexes = st.integers(0, 2**16)


def flipped(data: bytes, at: int, bit: int) -> bytes:
    at %= max(1, len(data))
    return data[:at] + bytes(byte ^ 1 << bit for byte in data[at : at + 1]) + data[at + 1 :]


def cut(data: bytes, at: int, length: int) -> bytes:
    at %= max(1, len(data))
    return data[:at] + data[at + length :]


def put_in(data: bytes, at: int, more: bytes) -> bytes:
    at %= len(data) + 1
    return data[:at] + more + data[at:]


def put_over(data: bytes, at: int, more: bytes) -> bytes:
    at %= len(data) + 1
    return data[:at] + more + data[at + len(more) :]


def recompressed(data: bytes, size: bool, dictionary: bool) -> bytes:
    """Return a payload whose rows are in another kind of frame."""
    trained = zstandard.ZstdCompressionDict(b"runic " * 100) if dictionary else None
    return b"\x01" + zstandard.ZstdCompressor(write_content_size=size, dict_data=trained).compress(data[1:])


Change = Callable[[bytes, bytes], bytes]
# Each changes valid bytes, and can copy from other valid bytes.
one_change: st.SearchStrategy[Change] = st.one_of(
    st.builds(lambda at, bit: lambda data, _: flipped(data, at, bit), indexes, st.integers(0, 7)),
    st.builds(lambda at, length: lambda data, _: cut(data, at, length), indexes, st.integers(1, 9)),
    st.builds(lambda at: lambda data, _: data[: at % (len(data) + 1)], indexes),
    st.builds(lambda at, more: lambda data, _: put_in(data, at, more), indexes, st.binary(max_size=4)),
    st.builds(lambda at, head: lambda data, _: put_in(data, at, head), indexes, st.sampled_from(HEADS)),
    st.builds(lambda at, head: lambda data, _: put_over(data, at, head), indexes, st.sampled_from(HEADS)),
    st.builds(lambda at: lambda data, other: data[: at % (len(data) + 1)] + other, indexes),
    st.builds(lambda a, b: lambda data, _: data + data[a % (len(data) + 1) :][: b % 64], indexes, indexes),
    st.builds(lambda *how: lambda data, _: recompressed(data, *how), st.booleans(), st.booleans()),
    st.just(lambda data, _: fuzzing.join(fuzzing.HEADERS[0], data)),
)
changes = st.lists(one_change, max_size=4)


def changed(data: bytes, other: bytes, changes: list[Change]) -> bytes:
    for one in changes:
        data = one(data, other)
    return data


def mutated(valid: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Generate valid bytes with up to four changes."""
    return st.builds(changed, valid, valid, changes)


@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_any_bytes_are_read_or_refused(target: str) -> None:
    valid = st.sampled_from(list(fuzzing.seeds(target)))

    @given(st.binary(max_size=300) | mutated(valid))
    @settings(deadline=None)
    def run(data: bytes) -> None:
        fuzzing.TARGETS[target](data)

    run()


@given(st.lists(events, min_size=1, max_size=3), changes, changes)
@settings(deadline=None)
def test_any_events_damaged_are_read_or_refused(
    commit: list[Any], of_header: list[Change], of_payload: list[Change]
) -> None:
    codec = fuzzing.CODECS[0]
    (entry,) = codec.encode_commit(commit)
    header = changed(entry.header, entry.header, of_header)
    payload = changed(entry.payload, entry.payload, of_payload)
    fuzzing.entry(fuzzing.join(header, entry.payload))
    fuzzing.entry(fuzzing.join(entry.header, payload))
    fuzzing.log(msgpack.packb([header, payload]))


@pytest.mark.parametrize("name", fuzzing.OPERATIONS)
@pytest.mark.usefixtures("few_buckets")
def test_any_replies_are_understood_or_refused(name: str) -> None:
    @given(st.binary(max_size=400))
    @settings(max_examples=50, deadline=None)
    def run(data: bytes) -> None:
        fuzzing.attempt(fuzzing.OPERATIONS[name], fuzzing.new_context(), fuzzing.Source(data))

    run()


# The strategies below generate values that replace a real workflow's values.
numbers = itertools.count()
OLD = Lease("damaged", "me", 5, 30.0)
META = [
    ["cursor", "largest", "expires"],
    ["created", "trimmed", "trimmed_ms", "retried", "completed"],
    ["fence", "lease_owner", "lease_until", "lease_id", "lease_ms"],
    ["snapshot", "log", "refs", "ids"],
]
likely = st.sampled_from(
    [b"", b"0", b"1", b"2", b"3", b"5", b"-1", b"1.5", b"1e3", b"nan", b"inf", b"0x10", b" 1", b"\xff\xfe", b"x" * 5000]
    + [b"9" * digits for digits in (13, 16, 17, 400, 5000)]
)
texts = likely | st.binary(max_size=20)
payloads = mutated(st.sampled_from(list(fuzzing.seeds("rows")))).map(lambda data: b"\x00" + data[1:])
headers = st.sampled_from(fuzzing.HEADERS) | mutated(st.sampled_from(fuzzing.HEADERS))
metadata = mutated(st.sampled_from(list(fuzzing.seeds("metadata"))))
states = mutated(st.sampled_from(list(fuzzing.seeds("state"))))
logs = mutated(st.sampled_from(list(fuzzing.seeds("log"))))
kept_facts = mutated(st.sampled_from([fuzzing.CODECS[0].encode_own_fact(value)[1] for value in fuzzing.EVENTS[:3]]))
fields = st.tuples(st.sampled_from([b"i", b"m", b"\xff"]), metadata | texts).map(list)
entries = st.builds(
    lambda cursor, ms, header, payload, more: ("XADD", "events", f"{cursor}-{ms}", header, payload, *chain(*more)),
    st.sampled_from([1, 2, 3, 4, 5, 6, 7, 100, 2**53, 2**64 - 1]),
    st.sampled_from([0, 1, 2**40, 2**62, 2**64 - 2]),
    headers,
    payloads,
    st.lists(fields, max_size=2),
)
FOREIGN = [("SET", b"x"), ("RPUSH", b"x"), ("HSET", b"x", b"y"), ("ZADD", "1", b"x"), ("SADD", b"x")]
KEYS = ["events", "meta", "snapshot", "log", "commits", "refs"]
damages: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    *(st.tuples(st.just("HSET"), st.just("meta"), st.sampled_from(names), texts) for names in META),
    st.tuples(st.just("HDEL"), st.just("meta"), st.sampled_from([*chain(*META)])),
    entries,
    st.tuples(st.just("XDEL"), st.just("events"), st.just("FIRST")),
    st.tuples(st.just("HSET"), st.just("snapshot"), st.just("cursor"), texts),
    st.tuples(st.just("HSET"), st.just("snapshot"), st.just("data"), states | texts),
    st.tuples(st.just("HDEL"), st.just("snapshot"), st.sampled_from(["cursor", "data", "time"])),
    st.tuples(st.just("SET"), st.just("log"), logs | texts),
    st.tuples(st.just("HSET"), st.just("commits"), st.just("known"), texts),
    st.tuples(st.just("ZADD"), st.just("refs"), st.sampled_from(["0", "-inf", "inf", "1.5"]), texts),
    st.tuples(st.just("FACT"), st.just("fact"), kept_facts | texts),
    st.tuples(
        st.just("ZADD"),
        st.sampled_from(["index", "leases", "expiring", "completed"]),
        st.sampled_from(["0", "-inf", "1.5"]),
        texts,
    ),
    st.tuples(st.just("DEL"), st.sampled_from(KEYS)),
)
foreign = st.builds(lambda key, command: ("FOREIGN", key, *command), st.sampled_from(KEYS), st.sampled_from(FOREIGN))


def tell(store: RedisStore, *args: Argument) -> Any:
    """Send a command, and return its reply."""
    return store._sender.ask(Batch([Command(args, str(args[1]))]))[0]


def inflict(store: RedisStore, damage: tuple[Any, ...]) -> None:
    name, key, *args = damage
    keys = asdict(store.context.keys.workflow("damaged"))
    if name == "FACT":
        fact_hash = fuzzing.CODECS[0].encode_own_fact("large")[0]
        tell(store, "HSET", store.context.keys.fact(fact_hash.encode())[0], fact_hash, *args)
    elif name == "FOREIGN":
        tell(store, "DEL", keys[key])
        tell(store, args[0], keys[key], *args[1:])
    elif name == "XDEL":
        found = tell(store, "XRANGE", keys[key], "-", "+", "COUNT", "1")
        if isinstance(found, list) and found:
            tell(store, "XDEL", keys[key], found[0][0])
    else:
        if name == "XADD":  # a stream accepts only IDs above its last one
            tell(store, "DEL", keys[key])
        tell(store, name, keys[key], *args)


def page(store: RedisStore) -> None:
    tailer = tailing.Tailer(store.context, {"damaged": 0, "sound": 0})
    store.run(tailer.open(), "watch")
    store.run(tailer.next_page(), "list")


def resume(store: RedisStore) -> None:
    with session(store, "damaged", lambda state, _: state, 0, snapshots=EveryEvents(1), keep=1) as kept:
        kept.record({"n": 1})
        kept.complete()


READS: list[Callable[[RedisStore], Any]] = [
    lambda store: list(store.stream("damaged")),
    lambda store: list(store.stream("damaged", after=1, until=3)),
    lambda store: list(store.stream_records("damaged")),
    lambda store: list(store.stream_records("damaged", reverse=True)),
    lambda store: FactResolver(store).rehydrate(store.stream("damaged")),
    lambda store: pending(store.stream("damaged")),
    page,
    lambda store: store.cursor("damaged"),
    lambda store: store.exists("damaged"),
    lambda store: store.load_snapshot("damaged"),
    lambda store: store.load("damaged"),
    lambda store: store.load_fact(fuzzing.CODECS[0].encode_own_fact("large")[0]),
    lambda store: list(islice(store.list(), 100)),
]
WRITES: list[Callable[[RedisStore], Any]] = [
    lambda store: store.append("damaged", [{}], expected_cursor=4),
    lambda store: store.append("damaged", [Pair(Fact("large"), 1)], snapshot=b"", commit_id="known"),
    lambda store: store.append("damaged", [{}], lease=OLD),
    lambda store: store.save_snapshot("damaged", 3, b""),
    lambda store: store.save("damaged", [{}]),
    lambda store: store.put_fact("large"),
    lambda store: store.renew(OLD),
    lambda store: store.release(OLD),
    lambda store: store.trim("damaged"),
    lambda store: store.acquire("damaged", "me"),
    lambda store: store.claim("me", 5),
    resume,
    lambda store: store.complete("damaged"),
    lambda store: store.expire("damaged", 1000),
    lambda store: store.delete("damaged"),
    lambda store: store.append("damaged", [{}]),
]


@contextmanager
def two_workflows(url: str) -> Iterator[RedisStore]:
    """Open a store with a workflow to be damaged and a sound one, in one partition."""
    with RedisStore.from_url(url, namespace=f"fuzz-{next(numbers)}", partitions=1, deadline_s=5) as store:
        store.context.wait_s = 0.001
        store.append("damaged", [{"n": 1}, Plain(1)], commit_id="known")
        store.append("damaged", [{"n": Fact("large")}], metadata={"k": 1})
        store.append("damaged", [{"n": 4}])
        store.append("sound", [{"n": 1}])
        for workflow_id in ("damaged", "sound"):
            store.save_snapshot(workflow_id, 1, b"\x01")
            store.save(workflow_id, [{"n": 1}])
            store.release(store.acquire(workflow_id, "me"))
        yield store


def check_sound(store: RedisStore, count: int) -> None:
    """Check that the sound workflow is unchanged and can be written, also together with the damaged one."""
    assert list(store.stream("sound")) == [{"n": number} for number in range(1, count + 1)]
    assert store.cursor("sound") == count
    assert store.load_snapshot("sound") == (1, b"\x01")
    assert store.load("sound") == [{"n": 1}]
    more = [("sound", [{"n": count + 1}]), ("damaged", [{}]), ("sound", [{"n": count + 2}])]
    first, other, last = store.append_many(more)
    assert (first, last) == (count + 1, count + 2)
    assert isinstance(other, int | StoreError)
    with store.acquire("sound", "me") as lease:
        store.renew(lease)


def suffer(url: str, inflicted: list[tuple[Any, ...]]) -> None:
    with two_workflows(url) as store:
        for damage in inflicted:
            inflict(store, damage)
        for number, call in enumerate([*READS, *WRITES]):
            fuzzing.attempt(call, store)
            if number in {len(READS) - 1, len(READS) + 3}:
                check_sound(store, 1 if number < len(READS) else 3)
        check_sound(store, 5)


def test_a_damaged_workflow_harms_no_other(valkey: RunningServer) -> None:
    @given(st.lists(damages | foreign, min_size=1, max_size=4))
    @settings(deadline=None)
    def run(inflicted: list[tuple[Any, ...]]) -> None:
        suffer(valkey.url(protocol=3), inflicted)

    run()


# (No foreign values here: on a foreign value at a stream's key, XREAD of fakeredis raises AttributeError.)
@given(st.lists(damages, min_size=1, max_size=4))
@settings(max_examples=10, deadline=None)
def test_a_damaged_workflow_in_memory_harms_no_other(inflicted: list[tuple[Any, ...]]) -> None:
    suffer("memory://fuzzing", inflicted)


def test_an_entry_ahead_of_the_cursor_in_memory_harms_no_other() -> None:
    """The error that the entry causes in a script of fakeredis is an object of Python, and not a string."""
    suffer("memory://fuzzing", [("XADD", "events", "6-0", b"\x91\x93\xc0\x00\x90", b"\x00\x91\x91\x80")])
