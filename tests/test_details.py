"""The details of a commit: what `append` returns of it, whatever is lost, and what that costs."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runic_redis import Append, Appended, DurabilityError, Fact, RedisStore, replicated
from runic_redis.testing.examples import numbered
from tests import servers
from tests.faults import make_faulty
from tests.servers import RunningServer, cluster_url
from tests.test_archives import export, load
from tests.test_verifying import verify


@pytest.fixture(params=["memory", "valkey"])
def store(request: pytest.FixtureRequest, namespace: str) -> Any:
    url = servers.url_on(request, request.param, namespace)
    with RedisStore.from_url(url, namespace=namespace, partitions=1, feed=True) as store:
        yield store


LOSSES = [["reply"], ["request"], ["reply", "reply"], ["request", "reply"], ["late"], ["late", "reply"]]
CALLS: dict[str, Callable[[RedisStore], Appended]] = {
    "plain": lambda store: store.append("w", numbered(3), details=True),
    "expecting": lambda store: store.append("w", numbered(3), expected_cursor=0, details=True),
    "with an id": lambda store: store.append("w", numbered(3), commit_id="c", details=True),
    "with more": lambda store: store.append(
        "w", [*numbered(2), {"f": Fact("f")}], metadata={"a": 1}, tags=["t"], snapshot=b"s", queue="q", details=True
    ),
    "split": lambda store: store.append("w", [{"n": n, "text": "x" * 900_000} for n in range(3)], details=True),
    "in a group": lambda store: store.append_all(
        [Append("w", numbered(3)), Append("v", [], expected_cursor=0)], details=True
    )[0],
}


@pytest.mark.parametrize("losses", LOSSES, ids=" ".join)
@pytest.mark.parametrize("name", CALLS)
def test_a_retry_finds_the_position(store: RedisStore, losses: list[str], name: str) -> None:
    store.append("other", numbered(4))
    faulty = make_faulty(store)
    faulty.faults = [*losses]
    found = CALLS[name](store)
    assert (found.cursor, found.position) == (3, 7)
    assert found.facts == ((store.fact_hash("f"),) if name == "with more" else ())
    faulty.deliver_late()
    assert [(one.workflow_id, one.position) for one in store.feed()] == [("other", 4), ("w", 7)]
    assert verify(store).findings == []


def test_a_retry_whose_entry_is_trimmed_has_no_position(store: RedisStore) -> None:
    found = store.append("w", numbered(2), commit_id="c", details=True)
    store.append("w", numbered(1), snapshot=b"s")
    store.trim("w")
    assert store.append("w", numbered(2), commit_id="c", details=True) == found._replace(position=None)


def test_without_a_feed_there_is_no_position_and_nothing_is_stored_for_it(
    valkey: RunningServer, namespace: str
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, feed=False) as store:
        assert store.append("w", numbered(2), details=True) == (2, (), None)
        assert store.append_all([Append("w", numbered(2))], details=True) == [(4, (), None)]
        faulty = make_faulty(store)
        faulty.faults = ["reply"]
        assert store.append("w", numbered(2), details=True) == (6, (), None)
        keys = store.context.keys.workflow("w")
        for _, fields in store._connected.server._client.xrange(keys.events):
            assert b"p" not in fields


def test_a_commit_without_details_stores_no_position(store: RedisStore) -> None:
    store.append("w", numbered(1))
    store.append("w", numbered(1), details=True)
    entries = store._connected.server._client.xrange(store.context.keys.workflow("w").events)
    assert [fields.get(b"p") for _, fields in entries] == [None, b"2"]


def test_threads_that_share_a_round_trip_each_get_their_own_position(store: RedisStore) -> None:
    def append(name: str) -> list[tuple[str, int, int | None]]:
        return [(name, *store.append(name, numbered(2), details=True)[::2]) for _ in range(30)]

    with ThreadPoolExecutor(8) as pool:
        found = [one for some in pool.map(append, "abcdefgh") for one in some]
    assert sorted(found) == sorted((one.workflow_id, one.cursor, one.position) for one in store.feed())


def test_a_commit_that_is_not_confirmed_says_so(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1, feed=True, deadline_s=0.2) as store:
        for call in (
            lambda: store.append("w", numbered(2), commit_id="c", details=True, durability=replicated(1)),
            lambda: store.append_all([Append("w", numbered(2), commit_id="c")], details=True, durability=replicated(1)),
        ):
            with pytest.raises(DurabilityError):
                call()
        assert store.append("w", numbered(2), commit_id="c", details=True) == (2, (), 2)


def test_in_a_cluster_a_position_is_of_the_partition(cluster_nodes: list[RunningServer], namespace: str) -> None:
    with RedisStore.from_url(cluster_url(cluster_nodes), namespace=namespace, partitions=4, feed=True) as store:
        found = {name: store.append(name, [{"f": Fact(name)}, {"n": 1}], details=True) for name in map(str, range(20))}
        for commit in store.feed():
            assert found[commit.workflow_id] == (2, (store.fact_hash(commit.workflow_id),), commit.position)
        store.delete_namespace()


def test_a_position_does_not_go_to_another_namespace(store: RedisStore, valkey: RunningServer, tmp_path: Path) -> None:
    found = store.append("w", numbered(2), commit_id="c", metadata={"a": 1}, tags=["t"], details=True)
    export(store, tmp_path / "archive")
    namespace = f"{store.context.keys.namespace}-copy"
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1, feed=True) as copy:
        copy.append("other", numbered(5))
        for _ in range(2):
            assert load(copy, tmp_path / "archive").problems == []
        assert copy.append("w", numbered(2), commit_id="c", details=True) == found._replace(position=None)
        assert [one.metadata for one in copy.find("w", tag="t")] == [{"a": 1}]
        assert verify(copy).findings == []
        copy.delete_namespace()
