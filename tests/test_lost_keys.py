"""A key is lost, evicted or deleted by hand: operations notice before they do harm, and repair restores what it can.

Also namespaces that were flushed and made again while stores have them open.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from runic_redis import (
    AsyncRedisStore,
    ConfigurationError,
    CursorConflict,
    DecodeError,
    Fact,
    FactRef,
    RedisStore,
    SnapshotNotFound,
    StoreError,
    WorkflowNotFound,
)
from runic_redis.context import Context
from runic_redis.operations import settings
from runic_redis.operations.namespace import delete_namespace
from runic_redis.protocol.effects import Command, key_command
from tests.servers import RunningServer
from tests.test_verifying import verify

# `collect` and `verify` ask each bucket.
pytestmark = pytest.mark.usefixtures("few_buckets")

# The events of a workflow that has data of every kind.
EVENTS = [{"n": 1}, {"n": 2, "f": Fact("fact")}, {"n": 3}, {"n": 4}]
FIRST = EVENTS[:2]


@pytest.fixture
def client(valkey: RunningServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


@pytest.fixture
def store(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        fill(store)
        yield store


def fill(store: RedisStore) -> None:
    store.append("w", FIRST, commit_id="first")
    store.append("w", EVENTS[2:3], snapshot=b"state")
    store.append("w", EVENTS[3:], commit_id="last")
    store.save("w", [{"n": 1}, {"f": Fact("fact in a log")}])
    for number in range(20):
        store.release(store.acquire(f"unfinished-{number}", "me"))
    store.acquire("held", "me")
    store.append("put aside", [{"n": 1}], queue="orders")
    store.park("put aside", "card declined")
    store.append("ends", [{"n": 1}])
    store.complete("ends")
    store.expire("ends", 3600)


def key(store: RedisStore, kind: str) -> str:
    keys = store.context.keys
    bucket, times = keys.fact(fact_of(store).encode())
    of_namespace = {"config": keys.config, "config_copy": keys.config_copy, "bucket": bucket, "times": times}
    of_namespace["queue"] = keys.workflow("w").queue("default")
    return of_namespace.get(kind) or getattr(keys.workflow("w"), kind)


def fact_of(store: RedisStore) -> str:
    fact_hash, _ = store.context.codec.encode_own_fact("fact")
    return fact_hash


def everything(client: redis.Redis, namespace: str) -> dict[bytes, Any]:
    return {key: client.dump(key) for key in client.keys(f"{{{namespace}*")}


def first_error(results: list[int | StoreError]) -> None:
    for result in results:
        if isinstance(result, StoreError):
            raise result


Call = Callable[[RedisStore], Any]
APPENDS: dict[str, Call] = {
    "append": lambda store: store.append("w", [{"n": 5}]),
    "append expecting nothing": lambda store: store.append("w", [{"n": 5}], expected_cursor=0),
    "append with an id": lambda store: store.append("w", [{"n": 5}], commit_id="new"),
    "append with a fact": lambda store: store.append("w", [{"f": Fact("another")}]),
    "append with a snapshot": lambda store: store.append("w", [{"n": 5}], snapshot=b""),
}
READS: dict[str, Call] = {
    "stream": lambda store: list(store.stream("w")),
    "reverse": lambda store: list(store.stream("w", reverse=True)),
    "records": lambda store: list(store.stream_records("w")),
}
# For each key, the operations that notice its loss at once and change nothing.
NOTICED: dict[str, dict[str, Call]] = {
    "events": READS,
    "meta": {
        **READS,
        **APPENDS,
        "cursor": lambda store: store.cursor("w"),
        "load": lambda store: store.load("w"),
        "load_snapshot": lambda store: store.load_snapshot("w"),
    },
    "snapshot": {"load_snapshot": lambda store: store.load_snapshot("w")},
    "log": {"load": lambda store: store.load("w")},
    "refs": {
        "append with a fact": APPENDS["append with a fact"],
        "save with a fact": lambda store: store.save("w", [{"f": Fact("another")}]),
    },
    "index": {"list": lambda store: list(store.list()), "collect": lambda store: (orphan(store), store.collect(0))},
    "queue": {"claim": lambda store: store.claim("heir", 5)},
    "partition": {
        "list": lambda store: list(store.list()),
        "make by append": lambda store: store.append("new", [{"n": 1}]),
        "make by append_many": lambda store: first_error(store.append_many([("new", [{"n": 1}])])),
        "make by save": lambda store: store.save("new", []),
        "make by save_snapshot": lambda store: store.save_snapshot("new", 0, b""),
        "make by acquire": lambda store: store.acquire("new", "me"),
    },
}


def orphan(store: RedisStore) -> None:
    """Save a fact without references, so that collecting looks at all references."""
    store.save_fact("orphan", 1)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, calls in NOTICED.items() for name in calls])
def test_a_key_that_is_gone_is_noticed_and_nothing_changes(
    store: RedisStore, client: redis.Redis, namespace: str, kind: str, name: str
) -> None:
    orphan(store)
    client.delete(key(store, kind))
    before = everything(client, namespace)
    for _ in range(2):
        with pytest.raises(DecodeError, match=r"verify|backup") as caught:
            NOTICED[kind][name](store)
        assert "othing was" in str(caught.value) or "no fact was removed" in str(caught.value)
        if name != "collect":
            # (The operation may make the partition's hash again, without counts.)
            after = everything(client, namespace)
            assert {one: after.get(one) for one in before} == before
            assert all(client.type(one) == b"hash" for one in after.keys() - before.keys())
    if name == "collect":
        assert store.load_fact(fact_of(store)) == "fact", "collect removed a fact with a lost reference"


def test_a_workflow_whose_meta_hash_alone_is_gone_exists(store: RedisStore, client: redis.Redis) -> None:
    client.delete(key(store, "meta"))
    assert store.exists("w")
    store.delete("w")
    assert not store.exists("w")
    assert store.append("w", [{"n": 1}], expected_cursor=0) == 1


# The finding of `verify` for each lost key, and whether a repair restores the key.
FOUND = {
    "events": ("the events 1 to 4 are missing", False),
    "meta": ("the time of its creation is missing", True),
    "snapshot": ("its snapshot, of the cursor 3, is lost", True),
    "log": ("its log is lost", True),
    "commits": ("2 of the commit ids", True),
    "refs": ("2 of its references", True),
    "index": ("not in the index", True),
    "leases": ("among the leased", True),
    "queue": ("not in its queue", True),
    "queues": ("counts 0", True),
    "parked": ("among the parked", True),
    "expiring": ("among the expiring", True),
    "completed": ("among the completed", True),
    "partition": ("it counts 0 workflows", True),
    "config": ("settings are missing", True),
    "config_copy": ("settings are missing", True),
    "bucket": ("is missing", False),
    "times": ("its age is not known", True),
}


@pytest.mark.parametrize("kind", FOUND)
def test_verify_notices_each_key_that_is_gone_and_restores_what_it_can(
    store: RedisStore, client: redis.Redis, kind: str
) -> None:
    said, repairable = FOUND[kind]
    client.delete(key(store, kind))
    found = verify(store).findings
    assert any(said in finding.problem for finding in found)
    repaired = verify(store, repair=True).findings
    assert [finding.problem for finding in repaired] == [finding.problem for finding in found]
    assert all(finding.repaired for finding in repaired) == repairable
    if not repairable:
        return
    assert verify(store).findings == []
    assert [event["n"] for event in store.stream("w")] == [1, 2, 3, 4]
    assert store.append("w", FIRST, commit_id="first") == 2, "a commit that was already stored was stored again"
    assert store.append("w", EVENTS[3:], commit_id="last") == 4
    assert len(set(store.list())) == 24
    assert len(store.claim("heir", 100)) == 20
    assert store.append("new", [{"n": 1}], expected_cursor=0) == 1
    if kind == "snapshot":
        with pytest.raises(SnapshotNotFound):
            store.load_snapshot("w")
    else:
        assert store.load_snapshot("w") == (3, b"state")
    if kind == "log":
        with pytest.raises(WorkflowNotFound):
            store.load("w")
    else:
        assert len(store.load("w")) == 2
    store.collect(0)
    assert store.load_fact(fact_of(store)) == "fact"


def test_a_commit_id_is_known_though_the_key_of_the_ids_is_gone(store: RedisStore, client: redis.Redis) -> None:
    client.delete(key(store, "commits"))
    assert store.append("w", FIRST, commit_id="first") == 2
    assert store.append("w", EVENTS[3:], commit_id="last") == 4
    assert store.append("w", [{"n": 5}], commit_id="new") == 5
    assert store.append("w", [{"n": 5}], commit_id="new") == 5
    assert store.append("w", FIRST, commit_id="first") == 2, "the new commit id hid the loss of the others"


def test_a_commit_id_that_may_be_among_the_trimmed_is_damage(store: RedisStore, client: redis.Redis) -> None:
    store.trim("w")
    client.delete(key(store, "commits"))
    for commit_id in ("first", "never used"):
        with pytest.raises(DecodeError, match="commits"):
            store.append("w", FIRST, commit_id=commit_id)
    assert store.append("w", EVENTS[3:], commit_id="last") == 4
    verify(store, repair=True)
    assert store.append("w", [{"n": 5}], commit_id="never used") == 5


def test_collect_restores_references_that_are_gone(store: RedisStore, client: redis.Redis) -> None:
    for _ in range(2):
        client.delete(key(store, "refs"))
        orphan(store)
        assert store.collect(0) == 1, "collect did not remove exactly the orphan"
        assert store.load_fact(fact_of(store)) == "fact"
        assert verify(store).findings == []
    client.zrem(key(store, "refs"), fact_of(store))
    orphan(store)
    assert store.collect(0) == 1
    assert store.load_fact(fact_of(store)) == "fact"


def test_collect_removes_nothing_while_references_cannot_be_restored(store: RedisStore, client: redis.Redis) -> None:
    store.trim("w")
    client.delete(key(store, "refs"))
    orphan(store)
    for _ in range(2):
        with pytest.raises(DecodeError, match="No fact was removed"):
            store.collect(0)
    assert store.load_fact("orphan") == 1
    store.delete("w")
    store.collect(0)
    with pytest.raises(StoreError):
        store.load_fact("orphan")


def test_some_unfinished_workflows_that_are_lost_are_noticed_once_no_other_is_left(
    store: RedisStore, client: redis.Redis
) -> None:
    lost = [f"unfinished-{number}" for number in range(5)]
    client.zrem(key(store, "queue"), *lost)
    assert len(store.claim("heir", 100)) == 15
    with pytest.raises(DecodeError, match="16 of 21"):
        store.claim("heir", 100)
    verify(store, repair=True)
    assert sorted(lease.workflow_id for lease in store.claim("heir", 100)) == lost


@pytest.mark.parametrize("gone", ["config", "config_copy"])
def test_settings_that_are_lost_are_those_of_the_copy(
    store: RedisStore,
    client: redis.Redis,
    valkey: RunningServer,
    namespace: str,
    gone: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = client.hmget(key(store, gone), "format", "partitions")
    client.delete(key(store, gone))
    with (
        caplog.at_level(logging.WARNING),
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=None) as late,
    ):
        assert ("are lost" in caplog.text) == (gone == "config")
        assert late.context.keys.partitions == 1
        assert len(list(late.list())) == 24
        with pytest.raises(CursorConflict):
            late.append("w", [{"n": 5}], expected_cursor=0)
        late.append("w", [{"n": 5}])
    if gone == "config_copy":
        return  # the settings are intact, as only their copy was lost
    assert client.hmget(key(store, gone), "format", "partitions") == kept
    client.delete(key(store, gone))
    for partitions in (256, 2):
        with pytest.raises(ConfigurationError, match="partitions=1"):
            RedisStore.from_url(valkey.url(), namespace=namespace, partitions=partitions)


def test_settings_that_are_created_between_two_reads_are_not_lost(
    store: RedisStore,
    valkey: RunningServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    read = settings._read_settings
    times: list[Command] = []

    def read_too_early(context: Context) -> list[Command]:
        first, copy = read(context)
        times.append(first)
        return [first if len(times) > 1 else key_command("HMGET", "absent", *settings.SETTINGS), copy]

    monkeypatch.setattr(settings, "_read_settings", read_too_early)
    with caplog.at_level(logging.WARNING), RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as late:
        late.append("w", [{"n": 5}])
    assert len(times) == 2
    assert "are lost" not in caplog.text


# Namespaces that were flushed, or deleted, and made again


WRITES: dict[str, Call] = {
    "append": lambda store: store.append("w", [{"n": 1}], expected_cursor=0),
    "append with an id": lambda store: store.append("w", [{"n": 1}], commit_id="c"),
    "append_many": lambda store: first_error(store.append_many([("w", [{"n": 1}])])),
    "append with a fact": lambda store: store.append("w", [{"n": 1, "f": Fact("v")}]),
    "save": lambda store: store.save("w", [{"n": 1}]),
    "save_snapshot": lambda store: store.save_snapshot("w", 0, b""),
    "acquire": lambda store: store.acquire("w", "me"),
}


def flush(client: redis.Redis, namespace: str) -> None:
    """Delete a namespace's keys, as FLUSHALL does. (The server is shared.)"""
    for one in client.scan_iter(match=f"{{{namespace}*", count=10_000):
        client.delete(one)


@pytest.mark.parametrize("name", WRITES)
def test_one_store_makes_a_namespace_again_that_was_flushed(
    store: RedisStore, client: redis.Redis, valkey: RunningServer, namespace: str, name: str
) -> None:
    flush(client, namespace)
    WRITES[name](store)
    assert set(client.keys(f"{{{namespace}*:config")) == {
        key(store, "config").encode(),
        key(store, "config_copy").encode(),
    }
    assert list(store.list()) == ["w"]
    assert verify(store).findings == []
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=None) as other:
        assert other.exists("w")


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("name", WRITES)
def test_a_store_follows_a_namespace_that_was_made_again_with_other_partitions(
    store: RedisStore, client: redis.Redis, valkey: RunningServer, namespace: str, name: str, *, deleted: bool
) -> None:
    if deleted:
        store.run(delete_namespace(store.context), "delete_namespace")
        store.context.made = True  # as if another process had deleted the namespace
    else:
        flush(client, namespace)
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=5) as other:
        other.append("w", [{"by": "other"}], expected_cursor=0)
        before = everything(client, namespace)
        with pytest.raises(ConfigurationError, match=r"created again with partitions=5.*Nothing was written"):
            WRITES[name](store)
        after = everything(client, namespace)
        assert {one: value for one, value in after.items() if b":fact:" not in one} == before
        # From then on it is a store like any other.
        assert list(store.stream("w")) == [{"by": "other"}]
        with pytest.raises(CursorConflict):
            store.append("w", [{"n": 1}], expected_cursor=0)
        store.append("w", [{"n": 2}])
        assert list(store.list()) == ["w"] == list(other.list())
        assert [finding for finding in verify(other).findings if finding.kind != "fact"] == []


def test_a_store_in_asyncio_follows_a_namespace_that_was_made_again(
    valkey: RunningServer, client: redis.Redis, namespace: str
) -> None:
    async def follow() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
            await store.append("w", [{"n": 1}])
            flush(client, namespace)
            with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=5) as other:
                other.append("w", [{"by": "other"}])
            with pytest.raises(ConfigurationError, match="created again with partitions=5"):
                await store.append("w", [{"n": 1}], expected_cursor=0)
            with pytest.raises(CursorConflict):
                await store.append("w", [{"n": 1}], expected_cursor=0)
            flush(client, namespace)
            assert await store.append("w", [{"n": 1}], expected_cursor=0) == 1

    asyncio.run(follow())


def test_of_two_stores_with_other_partitions_one_makes_the_namespace_again(
    valkey: RunningServer, client: redis.Redis, namespace: str
) -> None:
    with (
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=2) as one,
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=2) as other,
    ):
        one.append("w", [{"n": 1}])
        other.append("w", [{"n": 2}])
        flush(client, namespace)
        with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=5) as new:
            new.append("v", [{"n": 1}])
        wins = 0
        for store in (one, other, one, other):
            try:
                store.append("w", [{"n": 1}], expected_cursor=0)
                wins += 1
            except (ConfigurationError, CursorConflict):
                pass
        assert wins == 1
        assert list(one.stream("w")) == list(other.stream("w")) == [{"n": 1}]


def test_after_a_flush_a_store_does_not_assume_that_a_fact_is_stored(
    store: RedisStore, client: redis.Redis, namespace: str
) -> None:
    flush(client, namespace)
    with pytest.raises(StoreError, match="othing was"):
        store.append("w", [{"f": FactRef(fact_of(store))}])
    assert not store.exists("w")
