"""Queries on tags and conditions: what a lost reply, a bounded search, a trim, a repair or a copy does to them."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from runic_redis import (
    Append,
    ConditionFailed,
    DecodeError,
    EventsTrimmed,
    InvalidArgument,
    RedisStore,
    Tagged,
)
from runic_redis.protocol.scripts import load_script
from runic_redis.testing.examples import numbered
from runic_redis.testing.queries import TAGS, append_tagged, matched, some_query
from tests import servers
from tests.faults import FaultyServer, make_faulty
from tests.proxy import Fault, proxied
from tests.servers import RunningServer, wait_until
from tests.test_archives import export, load
from tests.test_verifying import verify

LOSSES = [["reply"], ["request"], ["reply", "reply", "reply"], ["request", "reply", "request"], ["late", "reply"]]
on_both = pytest.mark.parametrize("opener", ["memory", "valkey"], indirect=True)
on_valkey = pytest.mark.parametrize("opener", ["valkey"], indirect=True)


@pytest.fixture
def opener(request: pytest.FixtureRequest, namespace: str, few_buckets: None) -> Callable[..., RedisStore]:
    url = servers.url_on(request, request.param, namespace)
    return partial(RedisStore.from_url, url, namespace=namespace, partitions=1, feed=True)


@pytest.fixture
def store(opener: Callable[..., RedisStore]) -> Iterator[RedisStore]:
    with opener() as store:
        # Also, the server then has the script, and a fault hits the first call.
        store.append_all([Append("other", [{"n": -1}], tags=["other"])])
        store.read_where([["other"]])
        yield store


@pytest.fixture
def client(valkey: RunningServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


def all_of(store: RedisStore) -> dict[str, list[tuple[int, Any]]]:
    """Return what each tag finds."""
    return {tag: matched(store, [[tag]]) for tag in [*TAGS, "other"]}


# Lost requests and replies


@on_both
@pytest.mark.parametrize("losses", LOSSES, ids=" ".join)
def test_a_retry_is_not_rejected_by_its_own_events(store: RedisStore, losses: list[str]) -> None:
    faulty = make_faulty(store)
    faulty.faults = [*losses]
    items = [Append("x", [Tagged({"n": 1}, ["a"])]), Append("y", numbered(1), tags=["a"])]
    assert store.append_all(items, unless=[["a"]], after=0) == [1, 1]
    faulty.deliver_late()
    assert [event for _, event in matched(store, [["a"]])] == [{"n": 1}, *numbered(1)]
    assert store.cursor("x") == store.cursor("y") == 1


@on_both
@pytest.mark.parametrize("loss", ["late", "request"])
def test_a_retry_that_another_writer_beats_is_rejected_for_good(
    store: RedisStore, opener: Callable[..., RedisStore], loss: str
) -> None:
    with opener() as other:
        faulty = make_faulty(store)
        faulty.faults = [loss]

        def meddle() -> None:
            other.append("y", [{"by": "other"}], tags=["a"])

        faulty.after_loss = meddle
        with pytest.raises(ConditionFailed):
            store.append_all([Append("x", numbered(1), tags=["a"])], unless=[["a"]])
        # Now the group could be stored. But its caller was told that it is not.
        other.delete("y")
        faulty.deliver_late()
        assert store.cursor("x") == 0
        assert matched(store, [["a"]]) == []


@on_valkey
def test_connections_that_are_cut_anywhere_leave_no_contradiction(
    valkey: RunningServer, store: RedisStore, opener: Callable[..., RedisStore]
) -> None:
    """Writers race for each number, through a network that loses requests and replies. One of them wins it."""

    def claim(name: str, url: str) -> list[int]:
        won = []
        with RedisStore.from_url(url, namespace=store.context.keys.namespace, partitions=1, feed=True) as mine:
            for number in range(25):
                claimed = Tagged({"by": name, "n": number}, [f"number/{number}"])
                try:
                    mine.append_all([Append(f"of-{name}", [claimed])], unless=[[f"number/{number}"]])
                except ConditionFailed:
                    continue
                won.append(number)
        return won

    with proxied(valkey) as proxy, ThreadPoolExecutor(3) as pool:
        url = f"redis://127.0.0.1:{proxy.port}"
        running = [pool.submit(claim, name, url) for name in "pqr"]
        chance = random.Random(3)
        while wait(running, timeout=0.02).not_done:
            if not proxy.armed:
                proxy.arm(Fault(chance.choice(["request", "reply"]), chance.randrange(3000)))
        proxy.arm(None)
        assert proxy.done > 0
        won = {name: one.result() for name, one in zip("pqr", running, strict=True)}
    assert sorted(number for numbers in won.values() for number in numbers) == list(range(25))
    for number in range(25):
        ((_, event),) = matched(store, [[f"number/{number}"]])
        assert number in won[event["by"]]


# The bounds of a search


def scatter(client: redis.Redis, store: RedisStore, count: int) -> None:
    """Put tags a and b at alternating positions into the index, so that a walk for both goes through all of them."""
    keys = store.context.keys
    assert keys.tagged is not None
    first = client.hincrby(keys.partition(0), "position", 2 * count) - 2 * count
    for at in range(0, count, 1000):
        members = {}
        for number in range(at, min(at + 1000, count)):
            members[f"a\0{first + 2 * number + 1:016}\x001\0\0nobody"] = 0
            members[f"b\0{first + 2 * number + 2:016}\x001\0\0nobody"] = 0
        client.zadd(keys.tagged, members)


def calls_of(faulty: FaultyServer, name: str) -> int:
    """Return how many calls of a script were sent."""
    return sum(call.args[1] == load_script(name).sha for calls in faulty.rounds for call in calls)


@on_valkey
def test_a_long_search_takes_several_calls(store: RedisStore, client: redis.Redis) -> None:
    scatter(client, store, 20_000)
    store.append_all([Append("x", [Tagged({"n": 1}, ["a"]), Tagged({"n": 2}, ["a", "b"]), Tagged({"n": 3}, ["b"])])])
    faulty = make_faulty(store)
    assert [event for _, event in matched(store, [["a", "b"]])] == [{"n": 2}]
    assert calls_of(faulty, "find_where") > 3
    position = store.read_where([["a", "b"]]).events[0].position
    for after in (0, position - 1):
        with pytest.raises(ConditionFailed):
            store.append_all([Append("y", numbered(1))], unless=[["a", "b"]], after=after)
    assert calls_of(faulty, "append_all") > 4
    # The commit is at a higher position than this event, and has others after it.
    assert store.append_all([Append("y", numbered(1))], unless=[["a", "b"]], after=position) == [1]
    assert store.append_all([Append("y", numbered(1))], unless=[["a", "b", "c"]]) == [2]


@on_valkey
def test_a_search_that_pauses_at_a_commit_misses_none_of_its_events(store: RedisStore, client: redis.Redis) -> None:
    scatter(client, store, 2020)
    faulty = make_faulty(store)
    paused = 0
    keys = store.context.keys
    assert keys.tagged is not None
    # A few more steps are needed each time. So one of the searches pauses exactly at the commit of three events.
    for number in range(200):
        position = client.hincrby(keys.partition(0), "position", 1)
        client.zadd(keys.tagged, {f"{'ab'[number % 7 > 4]}\0{position:016}\x001\0\0nobody": 0})
        store.append_all(
            [Append("x", [Tagged({"n": 1}, ["a"]), Tagged({"n": 2}, ["a", "b"]), Tagged({"n": 3}, ["b"])])]
        )
        faulty.rounds.clear()
        with pytest.raises(ConditionFailed):
            store.append_all([Append("y", [{"n": number}])], unless=[["a", "b"]])
        paused += calls_of(faulty, "append_all") > 1
        assert [event for _, event in matched(store, [["a", "b"]])] == [{"n": 2}]
        store.delete("x")
        if paused == 20:
            break
    assert paused == 20


@on_valkey
@pytest.mark.parametrize("losses", LOSSES, ids=" ".join)
def test_a_long_search_goes_on_after_lost_replies(store: RedisStore, client: redis.Redis, losses: list[str]) -> None:
    scatter(client, store, 10_000)
    faulty = make_faulty(store)
    faulty.faults = [*losses, None, "reply"]
    assert store.append_all([Append("x", numbered(1), tags=["a", "b"])], unless=[["a", "b"]]) == [1]
    faulty.deliver_late()
    assert store.cursor("x") == 1


@on_both
def test_a_read_takes_one_round_trip_if_the_last_one_was_in_the_same_workflows(store: RedisStore) -> None:
    store.append("x", numbered(1), tags=["a"])
    store.append("y", numbered(1), tags=["a"])
    faulty = make_faulty(store)
    store.read_where([["a"]])
    assert len(faulty.rounds) == 2
    store.read_where([["a"]])
    assert len(faulty.rounds) == 3


# Namespaces without an index


@pytest.mark.parametrize(("partitions", "feed"), [(2, True), (1, False), (None, None)])
def test_a_namespace_without_an_index_rejects_queries(
    namespace: str, partitions: int | None, feed: bool | None
) -> None:
    with RedisStore.from_url(f"memory://{namespace}", namespace=namespace, partitions=partitions, feed=feed) as store:
        store.append("x", [Tagged({"n": 1}, ["a"])])
        faulty = make_faulty(store)
        with pytest.raises(InvalidArgument, match="partitions=1 and feed=True"):
            store.read_where([["a"]])
        with pytest.raises(InvalidArgument, match="partitions=1 and feed=True"):
            store.append_all([Append("x", numbered(1))], unless=[["a"]])
        assert faulty.rounds == []
        assert [one.cursor for one in store.find("x", tag="a")] == [1]
        assert not any(key.endswith(b":tags") for key in store._connected.server._client.keys("*"))


@on_valkey
def test_commits_without_tags_write_nothing_into_the_index(store: RedisStore) -> None:
    before = store.memory_usage()["tagged"]
    store.append("x", numbered(100))
    assert store.memory_usage()["tagged"] == before > 0


# Trimming and deleting


@on_both
def test_deleting_removes_many_tags_in_several_calls(store: RedisStore) -> None:
    before = all_of(store)
    for number in range(12):
        store.append("x", numbered(1), tags=[f"{number}/{tag}" for tag in range(999)] + ["a"])
    faulty = make_faulty(store)
    store.delete("x")
    assert calls_of(faulty, "delete") == 3
    assert not store.exists("x")
    assert all_of(store) == before
    client = store._connected.server._client
    assert client.zcard(store.context.keys.tagged) == 1


@on_both
def test_a_workflow_that_expires_leaves_no_tags(store: RedisStore) -> None:
    for number in range(6):
        store.append("x", numbered(1), tags=[f"{number}/{tag}" for tag in range(999)] + ["a"])
    store.expire("x", 0)
    wait_until(lambda: not store.exists("x"), "both clocks to reach the end")
    assert matched(store, [["a"]]) == []
    assert store._connected.server._client.zcard(store.context.keys.tagged) == 1


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15)
def test_any_history_is_found_exactly(valkey: RunningServer, seed: int) -> None:
    """Random commits, trims, deletions, copies and repairs, against a search through all events that are left."""
    chance = random.Random(seed)
    with RedisStore.from_url(valkey.url(), namespace=f"test-any-{seed}", partitions=1, feed=True) as store:
        model: list[tuple[Any, set[str]]] = []
        for _ in range(25):
            workflow_id = chance.choice(["x", "y", "z"])
            action = chance.choice(["append"] * 6 + ["trim", "delete", "lose"])
            if action == "append":
                append_tagged(store, chance, model)
            elif action == "trim" and (cursor := store.cursor(workflow_id)):
                store.save_snapshot(workflow_id, cursor, b"s")
                store.trim(workflow_id, keep=chance.randrange(4))
            elif action == "delete":
                store.delete(workflow_id)
            elif action == "lose":
                with valkey.client() as client:
                    for member in client.zrange(store.context.keys.tagged, 0, chance.randrange(3)):
                        client.zrem(store.context.keys.tagged, member)
                verify(store, repair=True)
        left = {one.event["n"] for name in store.list() if store.cursor(name) for one in records(store, name)}
        for _ in range(10):
            query, after = some_query(chance), chance.randrange(len(model) + 1)
            expected = [
                event for event, tags in model if event["n"] in left and any(tags.issuperset(item) for item in query)
            ]
            assert [event for _, event in matched(store, query)] == expected
            found = store.read_where(query, after=after)
            if found.events:
                with pytest.raises(ConditionFailed):
                    store.append_all([Append("never", numbered(1))], unless=query, after=after)
            else:
                store.append_all([Append("never", [])], unless=query, after=after)
        assert verify(store).findings == []
        store.delete_namespace()


def records(store: RedisStore, workflow_id: str) -> list[Any]:
    """Return what is left of a workflow."""
    try:
        return list(store.stream_records(workflow_id))
    except EventsTrimmed as error:
        return list(store.stream_records(workflow_id, after=error.first - 1))


# Verify, repair, export and import


@on_valkey
def test_verify_restores_the_index(store: RedisStore, client: redis.Redis) -> None:
    chance, model = random.Random(1), list[tuple[Any, set[str]]]()
    for _ in range(20):
        append_tagged(store, chance, model)
    before, key = all_of(store), store.context.keys.tagged
    assert key is not None
    members: list[Any] = client.zrange(key, 0, -1)
    assert verify(store).findings == []
    damages: list[Callable[[], object]] = [
        lambda: client.delete(key),
        lambda: client.zrem(key, *members[3:9]),
        lambda: client.zadd(key, dict.fromkeys(members[2:4], 1)),
        lambda: client.zadd(key, {members[0][:-5] + b"nobody": 0, b"no member": 0, b"": 0, b"\xff\0\0\0\0\xff": 0}),
        lambda: client.zadd(key, {members[0].replace(b"\x001\0", b"\x002\0"): 0}),
    ]
    for damage in damages:
        damage()
        assert (found := verify(store).findings)
        assert {(one.name, one.repaired) for one in found} == {(key, False)}
        repaired = verify(store, repair=True).findings
        assert [(one.name, one.problem, one.repaired) for one in repaired] == [
            (key, one.problem, True) for one in found
        ]
        assert verify(store).findings == []
        assert client.zrange(key, 0, -1) == members
        assert all_of(store) == before


@on_valkey
def test_damage_of_the_index_is_one_clear_error(store: RedisStore, client: redis.Redis) -> None:
    store.append("x", numbered(1), tags=["a"])
    key = store.context.keys.tagged
    assert key is not None
    client.zadd(key, {"a\x000000000000000001\x0099\0\0nobody": 0})
    with pytest.raises(DecodeError, match="verify --repair"):
        store.read_where([["a"]])
    client.delete(key)
    client.set(key, "foreign")
    for call in (
        lambda: store.read_where([["a"]]),
        lambda: store.append_all([Append("x", numbered(1))], unless=[["a"]]),
        lambda: store.append("x", numbered(1), tags=["a"]),
    ):
        with pytest.raises(DecodeError):
            call()
    assert store.cursor("x") == 1
    assert [(one.name, one.repaired) for one in verify(store, repair=True).findings] == [(key, False)]


@on_both
def test_an_imported_workflow_is_found_by_its_tags(
    store: RedisStore, opener: Callable[..., RedisStore], tmp_path: Path
) -> None:
    chance, model = random.Random(2), list[tuple[Any, set[str]]]()
    for _ in range(30):
        append_tagged(store, chance, model)
    store.save_snapshot("y", store.cursor("y"), b"s")
    store.trim("y", keep=5)
    before = {tag: sorted(event["n"] for _, event in found) for tag, found in all_of(store).items()}
    export(store, tmp_path / "archive")
    with opener(namespace="test-imported-tags") as target:
        target.append("before", [{"n": 0}] * 3, tags=["a"])
        assert load(target, tmp_path / "archive").problems == []
        target.delete("before")
        assert {tag: sorted(event["n"] for _, event in found) for tag, found in all_of(target).items()} == before
        for query in ([["a"]], [["b", "c"]]):
            for one in target.read_where(query).events:
                assert (one.position, one.event) in matched(target, [[]], after=one.position - 1, limit=1)
        assert verify(target).findings == []
        # Positions of imported events follow from the import, also when they are removed.
        target.append("x", numbered(1), tags=["a"])
        target.save_snapshot("x", target.cursor("x"), b"s")
        target.trim("x")
        target.delete("z")
        assert verify(target).findings == []
        target.delete("y")
        target.delete("x")
        target.delete("other")
        assert target._connected.server._client.zcard(target.context.keys.tagged) == 0
        target.delete_namespace()
