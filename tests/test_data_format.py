"""docs/data-format.md is enough to read what is in Redis, and its example is so to the byte."""

import ast
import datetime as dt
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256
from math import inf
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID
from zlib import crc32
from zoneinfo import ZoneInfo

import pytest
import redis

from runic_redis import EveryEvents, Fact, RedisStore, session
from tests.format_reader import Damaged, Object, Reader, Sent
from tests.servers import RunningServer, running, valkey_program
from tests.strategies import Colour, FrozenSlotted, Pair, Permission
from tests.test_docs import examples, run
from tests.test_verifying import verify

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "data-format.md"
COMMANDS = ROOT / "docs" / "fixture" / "commands.txt"
FOUND = ROOT / "docs" / "fixture" / "values.json"
FIXTURE = "fixture"


def test_the_reader_knows_nothing_of_runic_redis() -> None:
    tree = ast.parse((ROOT / "tests" / "format_reader.py").read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert {name.split(".")[0] for name in modules} - sys.stdlib_module_names == {"msgpack", "redis", "zstandard"}


def written_out(text: str) -> bytes:
    """The bytes of a block of hex: what stands before two spaces on each line."""
    return bytes.fromhex(" ".join(re.findall(r"(?m)^ *((?:[0-9a-f]{2} )*[0-9a-f]{2})(?=  |$)", text)))


def test_the_example_is_so_to_the_byte(valkey: RunningServer, tmp_path: Path) -> None:
    with RedisStore.from_url(valkey.url(), namespace="shop") as store:
        store.delete_namespace()
    (example,) = examples(PAGE)
    run(example.replace("redis://localhost:6379/0", valkey.url()), tmp_path)
    blocks = re.findall(r"(?ms)^```text\n(.*?)^```$", PAGE.read_text().partition("## An example")[2])
    header, payload, metadata, fact = map(written_out, blocks)
    with valkey.client() as client:
        ((entry_id, fields),) = client.xrange("{shop:47}:events:order-1")
        assert entry_id.startswith(b"2-")
        assert fields == {header: payload, b"i": fields[b"i"], b"m": metadata}
        assert len(fields[b"i"]) == 8
        assert client.hvals("{shop:fact:1877}") == [fact]
        ((fact_hash, score),) = client.zrange("{shop:47}:refs:order-1", 0, -1, withscores=True)
        assert score == 2
    assert crc32(b"order-1") % 64 == 47
    assert crc32(fact_hash) % 4096 == 1877
    assert fact_hash in payload


# One of each type, as it is, and as the reader, who has no classes, is to find it.
VALUES: dict[str, tuple[Any, Any]] = {
    "plain": (same := [None, True, -1, 2**63, 2.5, "ü", b"\x00", {1: "one", (2, "x"): {}}], same),
    "large": (same := [2**64, -(2**63) - 1, 2**300, -(2**71)], same),
    "sets": (same := (1, {1, (2,)}, frozenset("ab")), same),
    "moments": (
        same := [
            dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=2))),
            dt.datetime(2026, 10, 25, 2, 30, fold=1),
            dt.date(2026, 1, 2),
            dt.time(1, 2, 3, 4, tzinfo=dt.UTC),
            dt.timedelta(-1, 2, 3),
        ],
        same,
    ),
    "others": (same := [Decimal("1.50"), Decimal("1E+3"), UUID(int=5)], same),
    "objects": (
        [Pair(1, FrozenSlotted("in")), Colour.GREEN, Permission.READ | Permission.WRITE],
        [
            Object(
                "tests.pair",
                1,
                {"value": 1, "other": Object("tests.frozen_slotted", 1, {"value": "in", "other": None})},
            ),
            Object("tests.colour", 1, {"name": "GREEN"}),
            Object("tests.permission", 1, {"value": 3}),
        ],
    ),
}


@pytest.fixture(params=["valkey", "redis_6_2"])
def server(request: pytest.FixtureRequest) -> RunningServer:
    return request.getfixturevalue(request.param)


def test_a_reader_by_the_specification_finds_what_the_store_has_written(server: RunningServer, namespace: str) -> None:
    kept = {name: value for name, (value, _) in VALUES.items()}
    found = {name: value for name, (_, value) in VALUES.items()}
    with (
        RedisStore.from_url(server.url(), namespace=namespace, partitions=7, feed=True) as store,
        server.client() as client,
    ):
        store.append("w", [Pair(1, "a"), kept], metadata={"by": Pair("us")})
        store.append("w", [{"text": "runic " * 1000}, Pair(3, Fact(kept))], commit_id="mine", snapshot=b"state")
        # A commit of several entries, and more of them than the reader takes at once.
        source = Random(0)  # noise, which compression makes no smaller
        many = [{"n": number, "data": source.randbytes(150_000)} for number in range(30)]
        assert store.append("w", many, tags=["ü/2", "ü"]) == 34
        store.append("tagged", [{"n": 1}], tags=["ü"], metadata={"by": "me"})
        store.save("logged", [Pair(1, Fact("in a log")), kept])
        fact_hash = store.put_fact(kept)
        store.save_fact(b"\xff mine", "under a hash of its own")
        for number in range(20):
            store.append(f"other {number} ü", [{"n": number}])
        store.append("queued", [{"n": 1}], queue="orders", due=inf)
        store.acquire("held", "me", ttl=30)
        first = store.send("held", Pair(1, kept), message_id="mine")
        second = store.request_cancel("held", "too late")
        store.send("held", {"n": 3})
        store.append("held", [{"n": 1}], consumes=store.inbox("held")[2:])
        store.park("other 1 ü", "why not")

        reader = Reader(client, namespace)
        events = list(reader.events("w"))
        values = [one.value for one in events]
        assert [one.cursor for one in events] == list(range(1, 35))
        assert values[:3] == [Object("tests.pair", 1, {"value": 1, "other": "a"}), found, {"text": "runic " * 1000}]
        assert values[3] == Object(
            "tests.pair", 1, {"value": 3, "other": Object("runic_redis.fact_ref", 1, {"hash": fact_hash})}
        )
        assert values[4:] == many
        assert events[0].metadata == {"by": Object("tests.pair", 1, {"value": "us", "other": None})}
        assert events[2].metadata is None
        assert len({one.commit for one in events[4:]}) == 1, "one commit"
        assert client.xlen(reader._key("events", "w")) > 6, "of several entries"
        records = list(store.stream_records("w"))
        assert [one.ms for one in events] == [record.time.timestamp() * 1000 for record in records]
        assert list(reader.events("w", after=33)) == events[33:]

        assert reader.snapshot("w") == (4, b"state")
        assert reader.commit_ids("w") == {b"mine": 4}
        assert reader.refs("w") == {fact_hash.encode(): 4}
        assert set(reader.refs("logged").values()) == {inf}
        assert reader.fact(fact_hash.encode()) == found
        assert reader.fact(b"\xff mine") == "under a hash of its own"
        assert reader.log("logged")[1] == found
        assert reader.log("logged")[1]["moments"][1].fold == 1
        assert reader.tags("w") == [("ü", 34), ("ü/2", 34)]
        assert reader.tags("tagged") == [("ü", 1)]
        assert reader.tags("held") == []
        assert int(reader.meta("w")["cursor"]) == store.cursor("w")
        assert int(reader.meta("w")["largest"]) > 8192
        assert (reader.state("queued"), reader.due("queued")) == ("waiting", inf)
        assert (reader.state("held"), reader.state("other 1 ü"), reader.state("w")) == ("leased", "parked", "open")
        assert reader.due("held") == int(reader.meta("held")["lease_until"])
        assert reader.meta("other 1 ü")["parked_reason"] == b"why not"
        assert reader.inbox("held") == [
            Sent(first, "mine", Object("tests.pair", 1, {"value": 1, "other": found}), cancels=False),
            Sent(second, "", Object("runic_redis.CancelRequested", 1, {"reason": "too late"}), cancels=True),
        ]
        assert reader.message_ids("held") == {"mine": first}
        store.append("labelled", [{"n": 1}], attributes={"name": "7", "other": "8"}, parent="w")
        store.append("labelled", [{"n": 2}], attributes={"name": "a=ü", "other": None})
        assert reader.labels("labelled") == {"a:name": "a=ü", "parent": "w"}
        store.unpark("other 1 ü")
        assert reader.state("other 1 ü") == "waiting"
        assert reader.workflows() == set(store.list())
        store.delete("logged")
        changes = [change for number in range(7) for change in reader.feed(number)]
        assert [change.change.partition(" ")[0] for change in changes if change.workflow == "w"] == ["2", "2", "30"]
        assert [change.change for change in changes if change.workflow == "logged"] == ["0", "deleted"]
        (large,) = [change for change in changes if change.span == 30]
        assert int(large.change.partition(" ")[2]) > 30 * 150_000
        assert f"{large.cursor}-{large.ms}" == client.xrevrange(reader._key("events", "w"), count=1)[0][0].decode()
        assert sum(change.span for change in changes) == 34 + 2 + 20 + 1 + 2 + 2 + 1


def test_a_reader_by_the_specification_can_tell_what_is_trimmed_from_what_is_lost(
    valkey: RunningServer, namespace: str
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store, valkey.client() as client:
        with session(store, "w", lambda state, _: state + 1, 0, snapshots=EveryEvents(3), keep=0) as counting:
            for number in range(5):
                counting.record({"n": number})
        reader = Reader(client, namespace)
        cursor, state = reader.snapshot("w")
        assert (cursor, state) == (3, b"\x03")
        assert [one.value["n"] for one in reader.events("w", after=cursor)] == [3, 4]
        with pytest.raises(Damaged, match="event 1 is not there"):
            next(reader.events("w"))
        assert int(reader.meta("w")["trimmed"]) == 3
        client.xdel(reader._key("events", "w"), client.xrange(reader._key("events", "w"))[0][0])
        with pytest.raises(Damaged, match="event 4 is not there"):  # and above what was trimmed: lost
            next(reader.events("w", after=3))


EVERY_TYPE: dict[str, Any] = {
    "plain": [None, True, False, "ü", b"\x00\xff", ""],
    "integers": [0, -1, 2**53, 2**53 + 1, 2**63 - 1, 2**64 - 1, -(2**63), 2**64, -(2**63) - 1, 2**70],
    "floats": [1.0, -0.0, 0.1, 2.0**60, float("inf"), float("-inf"), float("nan")],
    "one, three times": [1, 1.0, True],
    "in this order": {"b": 1, "a": 2, "10": 3, "9": 4},
    "other keys": {1: "int", 1.5: "float", b"1": "bytes", "1": "str", (1, "x"): "tuple", None: "nil"},
    "sequences": [(1, (2,)), {3, 1, 2}, frozenset("ab"), [], (), set()],
    "moments": [
        dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        dt.datetime(2026, 1, 2),
        dt.date(2026, 1, 2),
        dt.time(1, 2, 3, 4),
        dt.timedelta(-1, 2, 3),
    ],
    "others": [Decimal("1.50"), Decimal("1E+3"), Decimal("NaN"), UUID(int=5)],
    "objects": [Pair(1, FrozenSlotted("in")), Colour.GREEN, Permission.READ | Permission.WRITE],
}


def write_fixture(store: RedisStore) -> None:
    """Write a small namespace that has one of everything."""
    receipt = Fact({"sum": 12.5, "paid": True})
    store.append("order-1", [Pair("placed", 3), {"note": "plain"}], metadata={"by": "web", "try": 1})
    store.append("order-1", [FrozenSlotted(receipt), Pair("paid", (1, 2))], commit_id="payment-81")
    store.append("order-1", [{"text": "runic " * 400}])
    store.append("every type", [EVERY_TYPE])
    with session(
        store, "zürich", lambda state, event: [*state, event["n"]], [], snapshots=EveryEvents(2), keep=0
    ) as one:
        for number in range(3):
            one.record({"n": number})
    store.append("raw state", [{"n": 1}], snapshot=b"\x05\x00raw")
    store.append("told", [{"f": [Fact("kept"), Fact("released")]}], snapshot=b"state", refs=[store.put_fact("kept")])
    store.trim("told")
    store.append_many([(f"{kind}-{{42}}", [{"n": 1}]) for kind in ("order", "payment", "}{refund")])
    store.save("a log", [Pair(1, Fact("in a log")), {"n": 2}])
    store.complete("a log")
    store.append("waiting", [{"n": 1}], queue="orders", due=inf)
    store.append("put aside", [{"n": 1}], queue="orders")
    store.append("labelled", [{"n": 1}], attributes={"customer": "7", "note": "a=b ü"}, parent="order-1")
    store.append("tagged", [{"n": 1}], tags=["step/1"])
    store.append("tagged", [{"n": 2}, {"n": 3}], tags=["step/2", "zürich"], metadata={"by": "web"})
    store.append("tagged", [{"n": 4}], snapshot=b"state", tags=["step/2"])
    store.trim("tagged", keep=3)
    store.park("put aside", "card declined")
    store.acquire("leased", "worker-1", ttl=30)
    store.send("leased", Pair("cancel", None), message_id="message-1")
    store.append("deleted", [{"n": 1}, {"n": 2}])
    store.delete("deleted")


# The fixture's times: those of the server are replaced by this one.
_MS = 1_763_942_400_000
_LEASE_ENDS_MS = _MS + 30_000


def _fixed(key: str, name: bytes, value: bytes) -> bytes:
    """Return the value of a field of a hash, with a time that is the same in every run."""
    if name == b"created":
        return b"%d" % (_MS * 1000)
    fixed = {b"fence": b"%d" % (_MS * 1000), b"lease_id": bytes(8), b"lease_until": b"%d" % _LEASE_ENDS_MS}
    if name in fixed or ":messages:" in key:
        return fixed.get(name, b"%d-0" % _MS)
    if (
        name == b"leased at"
        or (name in {b"trimmed_ms", b"completed", b"parked"} and ":meta:" in key)
        or (":snapshot:" in key and name == b"time")
    ):
        return b"%d" % _MS
    if name == b"feed_trimmed":
        return b"%s-%d" % (value.partition(b"-")[0], _MS)
    return value


def _fixed_score(client: redis.Redis, key: str, place: int, member: bytes, score: float) -> str:
    """Return a member's score in a sorted set, with a time that is the same in every run."""
    if key.endswith((":index", ":times")):
        return str(_MS * 1000 + place)
    if score == inf:
        return "inf"
    is_leased = client.zscore(f"{key.partition('}')[0]}}}:leases", member) is not None
    return str(_LEASE_ENDS_MS if is_leased else _MS)


def _dumped(client: redis.Redis, key: str) -> Iterator[tuple[bytes | str, ...]]:
    match client.type(key):
        case b"hash":
            for name, value in sorted(client.hgetall(key).items()):
                yield "HSET", key, name, _fixed(key, name, value)
        case b"zset" if ":refs:" in key or ":tags:" in key:
            for member, score in client.zrange(key, 0, -1, withscores=True):
                yield "ZADD", key, f"{score:.0f}", member
        case b"zset":
            for place, (member, score) in enumerate(client.zrange(key, 0, -1, withscores=True)):
                yield "ZADD", key, _fixed_score(client, key, place, member, score), member
        case b"string":
            yield "SET", key, client.get(key)
        case b"stream":
            for entry_id, fields in client.xrange(key):
                cursor = entry_id.partition(b"-")[0]
                if len(fields.get(b"i", b"")) == 8:  # random
                    fields[b"i"] = sha256(key.encode() + cursor).digest()[:8]
                fixed = b"%d-0" % _MS if ":inbox:" in key else b"%s-%d" % (cursor, _MS)
                yield "XADD", key, fixed, *(part for pair in fields.items() for part in pair)


def _quoted(argument: bytes | str) -> str:
    data = argument.encode() if isinstance(argument, str) else argument
    return '"' + re.sub(r'[^ -~]|["\\]', lambda found: f"\\x{ord(found[0]):02x}", data.decode("latin-1")) + '"'


def dumped_fixture(client: redis.Redis) -> str:
    """Return the commands that make the namespace, one a line, as redis-cli reads them."""
    keys = sorted(key.decode() for key in client.scan_iter(f"{{{FIXTURE}*", count=10_000))
    lines = (" ".join(map(_quoted, command)) for key in keys for command in _dumped(client, key))
    return "".join(f"{line}\n" for line in lines)


def load_fixture(client: redis.Redis) -> None:
    for line in COMMANDS.read_text().splitlines():
        texts = re.findall(r'"([^"]*)"', line)
        client.execute_command(
            *(re.sub(r"\\x(..)", lambda found: chr(int(found[1], 16)), one).encode("latin-1") for one in texts)
        )


def json_text(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


# How a compressed payload begins. The rest depends on the version of zstd.
_COMPRESSED = r"\x01(\xb5/\xfd"


def test_the_fixture_is_what_the_store_writes(valkey: RunningServer) -> None:
    with (
        RedisStore.from_url(valkey.url(), namespace=FIXTURE, partitions=4, feed=True) as store,
        valkey.client() as client,
    ):
        store.delete_namespace()
        write_fixture(store)
        written, kept = dumped_fixture(client).splitlines(), COMMANDS.read_text().splitlines()
        store.delete_namespace()
    assert len(written) == len(kept)
    different = [one for one, other in zip(written, kept, strict=True) if one != other]
    assert [one for one in different if _COMPRESSED not in one] == []
    assert sum(_COMPRESSED in one for one in kept) == 1


def test_a_reader_by_the_specification_finds_in_the_fixture_what_is_published(server: RunningServer) -> None:
    with (
        RedisStore.from_url(server.url(), namespace=FIXTURE, partitions=4, feed=True) as store,
        server.client() as client,
    ):
        store.delete_namespace()
        load_fixture(client)
        assert json_text(Reader(client, FIXTURE).tagged()) == FOUND.read_text()
        assert verify(store).findings == []
        store.delete_namespace()


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory() as directory,
        running(valkey_program(), Path(directory)) as made,
        made.client() as there,
        RedisStore.from_url(made.url(), namespace=FIXTURE, partitions=4, feed=True) as writer,
    ):
        write_fixture(writer)
        COMMANDS.write_text(dumped_fixture(there))
        writer.delete_namespace()
        load_fixture(there)
        FOUND.write_text(json_text(Reader(there, FIXTURE).tagged()))
