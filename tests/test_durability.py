"""Guarantee 5: an acknowledged write is as durable as requested, and an unconfirmed one raises `DurabilityError`."""

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
import redis

from runic_redis import (
    Append,
    AsyncRedisStore,
    CommitsLost,
    ConfigurationError,
    DurabilityError,
    InvalidArgument,
    RedisStore,
    StoreError,
    replicated,
)
from runic_redis.durability import Durability, Replicated
from runic_redis.testing.examples import numbered
from tests.faults import make_faulty
from tests.servers import (
    RunningServer,
    following,
    follows,
    free_ports,
    redis_6_2_program,
    running,
    valkey_program,
    wait_until,
)

SYNCED = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Run a Valkey that syncs every write."""
    with running(valkey_program(), tmp_path_factory.mktemp("synced"), *SYNCED) as server:
        yield server


@pytest.fixture(scope="module")
def old_synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Run a Redis without WAITAOF that syncs every write."""
    with running(redis_6_2_program(), tmp_path_factory.mktemp("old"), *SYNCED) as server:
        yield server


class Pair(NamedTuple):
    """A primary and its replica. A stopped replica is still connected, like one that is behind."""

    primary: RunningServer
    replica: RunningServer


@pytest.fixture(scope="module")
def _pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    ports = free_ports(2)
    directory = tmp_path_factory.mktemp("pair")
    options = (*SYNCED, "--repl-diskless-sync-delay", "0")
    with (
        running(valkey_program(), directory / "primary", *options, port=ports[0]) as primary,
        running(valkey_program(), directory / "replica", *options, *following(primary), port=ports[1]) as replica,
    ):
        wait_until(lambda: follows(replica), "the replica to follow")
        yield Pair(primary, replica)


@pytest.fixture
def pair(_pair: Pair) -> Iterator[Pair]:
    yield _pair
    _pair.replica.go_on()


WRITES: dict[str, Callable[[Any, Durability], Any]] = {
    "append": lambda store, how: store.append("w", numbered(2), durability=how),
    "append nothing": lambda store, how: store.append("w", [], durability=how),
    "append_many": lambda store, how: store.append_many([("w", numbered(1)), ("v", numbered(2))], durability=how),
    "append_all": lambda store, how: store.append_all([Append("w", numbered(1)), Append("v", [])], durability=how),
    "save_snapshot": lambda store, how: store.save_snapshot("w", 1, b"s", durability=how),
    "trim": lambda store, how: store.trim("w", durability=how),
    "save": lambda store, how: store.save("w", numbered(1), durability=how),
    "checkpoint": lambda store, how: store.checkpoint("w", numbered(1), durability=how),
    "save_fact": lambda store, how: store.save_fact("h", 1, durability=how),
    "save_facts": lambda store, how: store.save_facts({"h": 1, "i": 2}, durability=how),
    "put_fact": lambda store, how: store.put_fact("value", durability=how),
    "complete": lambda store, how: store.complete("w", durability=how),
    "expire": lambda store, how: store.expire("w", 1000.0, durability=how),
    "persist": lambda store, how: store.persist("w", durability=how),
    "delete": lambda store, how: store.delete("w", durability=how),
}


def count(server: RunningServer, command: str) -> int:
    with server.client() as client:
        return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_every_write_is_confirmed_by_the_disk(
    synced: RunningServer, namespace: str, write: str, asynchronous: bool
) -> None:
    async def through_asyncio() -> Any:
        async with AsyncRedisStore.from_url(synced.url(), namespace=namespace) as store:
            return await WRITES[write](store, "fsync")

    with RedisStore.from_url(synced.url(), namespace=namespace) as store:
        store.append("w", numbered(2))
        store.complete("w")
        WRITES[write](store, "memory")
        before = count(synced, "waitaof")
        if asynchronous:
            asyncio.run(through_asyncio())
        else:
            WRITES[write](store, "fsync")
    # One call checks that the server supports WAITAOF, the other confirms the write.
    assert count(synced, "waitaof") - before == 2


def test_the_store_s_durability_is_that_of_every_write(synced: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(synced.url(), namespace=namespace, durability="fsync") as store:
        faulty = make_faulty(store)
        before = count(synced, "waitaof")
        store.append("w", numbered(1))
        store.append("w", numbered(1), durability="memory")
        store.cursor("w")
        list(store.stream("w"))
        assert count(synced, "waitaof") == before + 1
        rounds = len(faulty.rounds)
        store.append("w", numbered(1))
        assert len(faulty.rounds) == rounds + 1, "the confirmation took another round trip"


@pytest.mark.parametrize("durability", ["disk", "", "replicated(1)", None, 1, replicated])
def test_what_is_no_durability_is_refused_before_anything_is_sent(durability: Any, namespace: str) -> None:
    with pytest.raises(InvalidArgument, match="durability is"):
        RedisStore.from_url(f"memory://{namespace}", durability=durability)
    if durability is not None:
        with RedisStore.from_url(f"memory://{namespace}", namespace=namespace) as store:
            with pytest.raises(InvalidArgument, match="nothing was sent"):
                store.append("w", numbered(1), durability=durability)
            assert store.cursor("w") == 0


@pytest.mark.parametrize("replicas", [0, -1, 1001, 1.0, True, "1", None])
def test_what_is_no_number_of_replicas_is_refused(replicas: Any) -> None:
    with pytest.raises(InvalidArgument, match="from 1 to 1000"):
        replicated(replicas)


@pytest.mark.parametrize("durability", ["fsync", replicated(1), replicated(1, fsync=True)], ids=str)
def test_what_the_server_cannot_confirm_is_refused_before_anything_is_written(
    redis_6_2: RunningServer, valkey: RunningServer, durability: Durability, namespace: str
) -> None:
    of_server = {
        f"memory://{namespace}": "cannot confirm the durability",
        redis_6_2.url(): "appendonly is 'no'" if durability == "fsync" else "WAITAOF",
        valkey.url(): "appendonly is disabled",
    }
    for url, problem in of_server.items():
        if durability == replicated(1) and not url.startswith("memory"):
            continue  # every server here supports WAIT
        with pytest.raises(ConfigurationError, match="It takes") as caught:
            RedisStore.from_url(url, namespace=namespace, durability=durability)
        assert problem in str(caught.value)
        with RedisStore.from_url(url, namespace=namespace) as store:
            with pytest.raises(ConfigurationError, match="Nothing was written"):
                store.append("w", numbered(1), durability=durability)
            assert not store.exists("w")


def test_without_waitaof_the_settings_of_the_server_decide(old_synced: RunningServer, namespace: str) -> None:
    with (
        RedisStore.from_url(old_synced.url(), namespace=namespace, durability="fsync") as store,
        old_synced.client() as client,
    ):
        assert store.append("w", numbered(1)) == 1
        client.config_set("no-appendfsync-on-rewrite", "yes")
        try:
            with pytest.raises(DurabilityError, match="no-appendfsync-on-rewrite is 'yes'") as caught:
                store.append("w", numbered(1), commit_id="c")
        finally:
            client.config_set("no-appendfsync-on-rewrite", "no")
        assert caught.value.cursor == 2
        assert store.append("w", numbered(1), commit_id="c") == 2


def test_a_disk_that_is_not_synced_confirms_nothing(synced: RunningServer, namespace: str) -> None:
    options = {"namespace": namespace, "durability": "fsync"}
    with (
        RedisStore.from_url(synced.url(), **options) as store,
        RedisStore.from_url(synced.url(), **options, deadline_s=0.2) as hasty,
        synced.client() as client,
    ):
        store.append("w", numbered(1))
        client.config_set("appendfsync", "no")
        try:
            with pytest.raises(DurabilityError, match="did not sync its append-only file") as caught:
                hasty.append("w", numbered(2), commit_id="c")
            assert caught.value.cursor == 3
            with pytest.raises(DurabilityError):
                hasty.append("w", numbered(2), commit_id="c")
        finally:
            client.config_set("appendfsync", "always")
        assert store.append("w", numbered(2), commit_id="c") == 3
        assert store.cursor("w") == 3


@pytest.mark.parametrize("durability", [replicated(1), replicated(1, fsync=True)], ids=str)
def test_what_replicas_confirm_they_have(pair: Pair, namespace: str, durability: Replicated) -> None:
    with (
        RedisStore.from_url(pair.primary.url(), namespace=namespace, durability=durability) as store,
        pair.replica.client() as replica,
    ):
        meta = store.context.keys.workflow("w").meta
        # A replica reports only once a second what is on its disk.
        for number in range(1, 4 if durability.fsync else 20):
            store.append("w", numbered(1))
            assert replica.hget(meta, "cursor") == b"%d" % number


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_what_replicas_do_not_confirm_is_an_error_until_they_do(pair: Pair, namespace: str, asynchronous: bool) -> None:
    options: dict[str, Any] = {"namespace": namespace, "durability": replicated(1)}

    def append(*args: Any, **more: Any) -> int:
        async def through_asyncio() -> int:
            async with AsyncRedisStore.from_url(pair.primary.url(), **options) as store:
                return await store.append(*args, **more)

        if asynchronous:
            return asyncio.run(through_asyncio())
        # Another store uses a new connection, which has written nothing yet.
        with RedisStore.from_url(pair.primary.url(), **options) as store:
            return store.append(*args, **more)

    append("w", numbered(1))
    pair.replica.stop()
    options["deadline_s"] = 0.3
    with pytest.raises(DurabilityError, match="0 of 1 replicas had it") as caught:
        append("w", numbered(2), commit_id="c")
    assert caught.value.cursor == 3
    with pytest.raises(DurabilityError) as caught:
        append("w", numbered(2), commit_id="c")
    assert caught.value.cursor == 3
    with pytest.raises(DurabilityError):
        append("w", [], expected_cursor=3)
    pair.replica.go_on()
    del options["deadline_s"]
    assert append("w", numbered(2), commit_id="c") == 3
    assert append("w", [], expected_cursor=3) == 3
    with RedisStore.from_url(pair.primary.url(), namespace=namespace) as store:
        assert list(store.stream("w")) == [*numbered(1), *numbered(2)]


@pytest.mark.parametrize("write", WRITES)
def test_every_write_says_that_it_was_not_confirmed(pair: Pair, namespace: str, write: str) -> None:
    with (
        RedisStore.from_url(pair.primary.url(), namespace=namespace) as patient,
        RedisStore.from_url(pair.primary.url(), namespace=namespace, deadline_s=0.1) as store,
    ):
        patient.append("w", numbered(2), durability=replicated(1))
        patient.complete("w")
        pair.replica.stop()
        if write == "append_many":
            results = WRITES[write](store, replicated(1))
            assert all(isinstance(result, DurabilityError) for result in results)
            assert [result.cursor for result in results] == [3, 2]
        else:
            with pytest.raises(DurabilityError) as caught:
                WRITES[write](store, replicated(1))
            assert caught.value.cursor == {"append": 4, "append nothing": 2}.get(write)


def test_more_replicas_than_there_are_confirm_nothing(pair: Pair, namespace: str) -> None:
    with (
        RedisStore.from_url(pair.primary.url(), namespace=namespace, durability=replicated(1)) as patient,
        # The one replica has this time to report.
        RedisStore.from_url(pair.primary.url(), namespace=namespace, deadline_s=2.0) as store,
    ):
        patient.append("v", numbered(1))  # after this, the replica follows and has reported so
        with pytest.raises(DurabilityError, match="1 of 2 replicas"):
            store.append("w", numbered(1), durability=replicated(2))
        assert patient.append("w", numbered(1)) == 2


def test_others_do_not_wait_for_what_is_being_confirmed(pair: Pair, namespace: str) -> None:
    with (
        RedisStore.from_url(pair.primary.url(), namespace=namespace) as store,
        ThreadPoolExecutor(1) as pool,
        pair.primary.client() as client,
    ):
        store.append("w", numbered(1), durability=replicated(1))
        pair.replica.stop()
        waiting = pool.submit(store.append, "w", numbered(1), durability=replicated(1))
        wait_until(lambda: client.info("clients")["blocked_clients"] == 1, "the append to wait")
        assert store.append("v", numbered(3)) == 3
        assert store.cursor("w") == 2
        assert not waiting.done()
        pair.replica.go_on()
        assert waiting.result() == 2


@pytest.mark.parametrize("loss", ["reply", "request", "late"])
def test_what_was_lost_on_the_way_is_confirmed_when_it_is_found(pair: Pair, namespace: str, loss: str) -> None:
    with RedisStore.from_url(pair.primary.url(), namespace=namespace, durability=replicated(1)) as store:
        store.append("w", numbered(1))
        faulty = make_faulty(store)
        faulty.faults = [loss]
        assert store.append("w", numbered(2)) == 3
        faulty.deliver_late()
        faulty = make_faulty(store, deadline_s=0.3)
        faulty.faults = [loss]
        faulty.after_loss = pair.replica.stop
        with pytest.raises(DurabilityError) as caught:
            store.append("w", numbered(2))
        assert caught.value.cursor == 5


def test_a_cursor_below_the_expected_one_is_named_a_loss(store: RedisStore) -> None:
    store.append("w", numbered(3))
    with pytest.raises(CommitsLost, match="has lost up to 2 events") as caught:
        store.append("w", numbered(1), expected_cursor=5)
    assert (caught.value.expected, caught.value.actual) == (5, 3)
    assert store.cursor("w") == 3


def test_what_endangers_data_is_said_once_at_open(
    valkey: RunningServer, synced: RunningServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    def said(url: str, **options: Any) -> list[str]:
        caplog.clear()
        with RedisStore.from_url(url, namespace=namespace, **options) as store:
            store.append("w", numbered(1))
            store.append("w", numbered(1))
        assert {record.name for record in caplog.records} <= {"runic_redis"}
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    (message,) = said(valkey.url())
    assert re.search("no append-only file.*appendonly yes", message)
    assert said(synced.url()) == []
    assert said(synced.url(), durability="fsync") == []
    assert said("memory://") == []
    with synced.client() as client:
        try:
            client.config_set("maxmemory-policy", "allkeys-lru")
            assert said(synced.url()) == [], "warned of an eviction policy although no memory limit is set"
            client.config_set("maxmemory", "1gb")
            (message,) = said(synced.url())
            assert re.search("allkeys-lru: .*any key.*noeviction", message)
            client.config_set("maxmemory-policy", "volatile-ttl")
            (message,) = said(synced.url())
            assert re.search("volatile-ttl: .*workflows that expire", message)
        finally:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")


def test_a_replica_is_not_written_to(pair: Pair, namespace: str) -> None:
    with RedisStore.from_url(pair.replica.url(), namespace=namespace, deadline_s=0.05) as store:
        for write in (
            lambda: store.append("w", numbered(1)),
            lambda: store.append_many([("w", numbered(1))])[0],
            lambda: store.save("w", numbered(1)),
        ):
            try:
                result = write()
            except StoreError as error:
                result = error
            assert "READONLY" in str(result)
    with pair.primary.client() as client:
        assert not isinstance(client, redis.RedisCluster)
        assert client.exists(f"{{{namespace}}}:config") == 0


class Failover:
    """The effect on a workflow of a failover to a replica that is behind, made by changing its keys."""

    def __init__(self, server: RunningServer, store: RedisStore, workflow_id: str) -> None:
        keys = store.context.keys.workflow(workflow_id)
        self._client = server.client()
        self._kept = {key: self._client.dump(key) for key in (keys.events, keys.meta)}

    def happen(self) -> None:
        with self._client as client:
            for key, value in self._kept.items():
                client.restore(key, 0, value, replace=True)


LARGE = [{"text": "x" * 3000}] * 10


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("rewritten", [0, 1, 95], ids=["nothing", "some", "as much"])
def test_a_reader_notices_that_commits_were_lost(
    valkey: RunningServer, namespace: str, reverse: bool, rewritten: int
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        for _ in range(5):
            store.append("w", LARGE)
        failover = Failover(valkey, store, "w")
        for _ in range(90):
            store.append("w", LARGE)
        reading = store.stream("w", reverse=reverse)
        next(reading)
        failover.happen()
        if rewritten:
            store.append("w", LARGE[:3])
        for _ in range(rewritten):
            store.append("w", LARGE)
        with pytest.raises(CommitsLost) as caught:
            list(reading)
        assert caught.value.expected == 950


@pytest.mark.parametrize("rewritten", [0, 6], ids=["nothing", "more"])
def test_a_follower_notices_that_commits_were_lost(valkey: RunningServer, namespace: str, rewritten: int) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        store.append("w", numbered(3))
        failover = Failover(valkey, store, "w")
        store.append("w", numbered(4))
        following = store.tail("w")
        assert [next(following).cursor for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]
        failover.happen()
        store.append("w", numbered(rewritten))
        with pytest.raises(CommitsLost) as caught:
            next(following)
        assert (caught.value.expected, caught.value.actual) == (7, 3)


def test_a_follower_of_a_cursor_that_was_never_reached_waits(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store, ThreadPoolExecutor(1) as pool:
        store.append("w", numbered(3))
        tail = store.tail("w", after=5)
        assert store.run(tail._tailer.next_page(), "list") == [], "a page of a workflow that is behind is not empty"
        coming = pool.submit(next, tail)
        store.append("w", numbered(4))
        assert coming.result().cursor == 6
