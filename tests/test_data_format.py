"""docs/data-format.md is enough to read what is in Redis, and its example is so to the byte."""

import ast
import datetime as dt
import re
import sys
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID
from zlib import crc32

import pytest

from runic_redis import EveryEvents, Fact, RedisStore, session
from tests.format_reader import Damaged, Object, Reader
from tests.servers import RunningServer
from tests.strategies import Colour, FrozenSlotted, Pair, Permission
from tests.test_docs import examples, run

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "data-format.md"


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
        ((entry_id, fields),) = client.xrange("{shop:239}:events:order-1")
        assert entry_id.startswith(b"2-")
        assert fields == {header: payload, b"i": fields[b"i"], b"m": metadata}
        assert len(fields[b"i"]) == 8
        assert client.hvals("{shop:fact:1877}") == [fact]
        (fact_hash,) = client.smembers("{shop:239}:refs:order-1")
    assert crc32(b"order-1") % 256 == 239
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
    with RedisStore.from_url(server.url(), namespace=namespace, partitions=7) as store, server.client() as client:
        store.append("w", [Pair(1, "a"), kept], metadata={"by": Pair("us")})
        store.append("w", [{"text": "runic " * 1000}, Pair(3, Fact(kept))], commit_id="mine", snapshot=b"state")
        # A commit of several entries, and more of them than the reader takes at once.
        source = Random(0)  # noise, which compression makes no smaller
        many = [{"n": number, "data": source.randbytes(150_000)} for number in range(30)]
        assert store.append("w", many) == 34
        store.save("logged", [Pair(1, Fact("in a log")), kept])
        fact_hash = store.put_fact(kept)
        store.save_fact(b"\xff mine", "under a hash of its own")
        for number in range(20):
            store.append(f"other {number} ü", [{"n": number}])

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
        assert reader.refs("w") == {fact_hash.encode()}
        assert reader.fact(fact_hash.encode()) == found
        assert reader.fact(b"\xff mine") == "under a hash of its own"
        assert reader.log("logged")[1] == found
        assert reader.log("logged")[1]["moments"][1].fold == 1
        assert int(reader.meta("w")["cursor"]) == store.cursor("w")
        assert int(reader.meta("w")["largest"]) > 8192
        assert reader.workflows() == set(store.list())


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
