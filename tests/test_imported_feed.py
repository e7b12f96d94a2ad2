"""Archives and the feed: a namespace keeps its setting, and followers get imported commits once and in order."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from runic_redis import ConfigurationError, RedisStore
from runic_redis.errors import EventsTrimmed
from runic_redis.operations import feed as feed_module
from runic_redis.positions import Positions
from tests.servers import RunningServer, cluster_url
from tests.test_archives import export, load
from tests.test_verifying import verify

Read = list[tuple[str, int, list[Any]]]


@pytest.fixture(params=["one", "cluster"])
def target(request: pytest.FixtureRequest, valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    nodes = request.getfixturevalue("cluster_nodes") if request.param == "cluster" else None
    url = cluster_url(nodes) if nodes else valkey.url()
    with RedisStore.from_url(url, namespace=f"{namespace}-target", partitions=3, feed=True) as target:
        yield target
        target.delete_namespace()


@pytest.fixture
def store(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=5, feed=True, feed_days=30) as store:
        yield store


def read(store: RedisStore, after: Any = 0, **options: Any) -> Read:
    return [(one.workflow_id, one.cursor, one.events) for one in store.feed(after=after, wait_s=0, **options)]


def commits_of(store: RedisStore, workflow_id: str) -> Read:
    """Its commits, by its stream."""
    found: Read = []
    keys = store.context.keys.workflow(workflow_id)
    gone = int(store._connected.server._client.hget(keys.meta, "trimmed") or 0)
    records = list(store.stream_records(workflow_id, after=gone))
    trimmed = records[0].cursor - 1
    ends: dict[bytes, int] = {}
    for entry_id, fields in store._connected.server._client.xrange(keys.events):
        ends[fields[b"i"]] = int(entry_id.partition(b"-")[0])
    for end in ends.values():
        found.append((workflow_id, end, [record.event for record in records[: end - trimmed]]))
        del records[: end - trimmed]
        trimmed = end
    return found


def fill_varied(store: RedisStore) -> list[str]:
    """Workflows of all forms. Return those with events."""
    store.append_many([("small", [{"n": number}]) for number in range(40)])
    store.append_many([("pairs", [{"n": number}, {"n": -number}]) for number in range(9)])
    for number in range(3):
        store.append("large", [{"n": number, "data": os.urandom(150_000)} for _ in range(17)])
        store.append("large", [{"n": number}])
    for number in range(5):
        store.append("trimmed", [{"n": number}], snapshot=b"state" if number == 2 else None)
    store.trim("trimmed")
    store.save("log", [{"n": 1}])
    store.acquire("created", "me")
    return ["small", "pairs", "large", "trimmed"]


@pytest.fixture
def archive(store: RedisStore, tmp_path: Path) -> Path:
    fill_varied(store)
    export(store, tmp_path / "a")
    return tmp_path / "a"


def test_imported_workflows_are_read_once_and_in_order(store: RedisStore, target: RedisStore, archive: Path) -> None:
    assert load(target, archive).problems == []
    found = read(target)
    for workflow_id in ("small", "pairs", "large", "trimmed"):
        assert [one for one in found if one[0] == workflow_id] == commits_of(store, workflow_id)
    assert ("log", 0, []) in found
    assert ("created", 0, []) in found
    assert len(found) == 40 + 9 + 6 + 2 + 2
    # The second import changes nothing.
    assert load(target, archive).there == 6
    assert read(target) == found
    assert verify(target).findings == []
    meta = target.context.keys.workflow("small").meta
    assert int(target._connected.server._client.hget(meta, "imported")) > 0


@pytest.mark.parametrize("entries", [1, 2, 5])
def test_a_reader_resumes_inside_an_import_from_every_position(
    target: RedisStore, archive: Path, monkeypatch: pytest.MonkeyPatch, entries: int
) -> None:
    """Whatever is written meanwhile."""
    monkeypatch.setattr(feed_module, "_IMPORT_ENTRIES", entries)
    load(target, archive)
    target.append("small", [{"n": "after"}])
    whole = read(target)
    found: Read = []
    positions: Any = 0
    for number in itertools.count():
        commit = next(iter(target.feed(after=positions, wait_s=0)), None)
        if commit is None:
            break
        found.append((commit.workflow_id, commit.cursor, commit.events))
        positions = Positions.parse(str(commit.positions))
        assert number < 100
    in_partitions = [
        [[one for one in some if target.context.keys.partition_of(one[0]) == number] for number in range(3)]
        for some in (found, whole)
    ]
    assert in_partitions[0] == in_partitions[1]
    assert len(found) == len(whole)


def test_an_import_of_thousands_of_commits_is_read_in_parts(
    store: RedisStore, target: RedisStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = os.urandom(160_000)
    for number in range(3000):
        store.append("w", [{"n": number}])
        if number % 1000 == 500:
            store.append("w", [{"n": number, "data": noise[at:] + noise[:at]} for at in range(10)])
    export(store, tmp_path / "a")
    load(target, tmp_path / "a")
    pages: list[int] = []
    reading = feed_module.FeedReader._read_import

    def counting(self: Any, *args: Any) -> Any:
        commits = yield from reading(self, *args)
        pages.append(sum(len(event.get("data", b"")) for commit in commits for event in commit.events))
        return commits

    monkeypatch.setattr(feed_module.FeedReader, "_read_import", counting)
    found = read(target)
    assert found == commits_of(store, "w")
    assert len(found) == 3003
    assert len(pages) > 10
    assert max(pages) < 16 * 1024 * 1024


def test_what_follows_or_ends_an_import_is_read_after_it(target: RedisStore, archive: Path) -> None:
    load(target, archive)
    target.append("pairs", [{"n": "after"}])
    assert read(target, prefix="pairs")[-2:] == [("pairs", 18, [{"n": 8}, {"n": -8}]), ("pairs", 19, [{"n": "after"}])]
    target.delete("pairs")
    target.append("pairs", [{"n": "again"}])
    assert read(target, prefix="pairs") == [("pairs", 0, []), ("pairs", 1, [{"n": "again"}])]
    # A second import of what was deleted is another entry.
    target.delete("pairs")
    load(target, archive)
    assert [one[1] for one in read(target, prefix="pairs")] == [0, 0, *range(2, 20, 2)]
    assert verify(target).findings == []


def test_an_imported_workflow_that_is_trimmed_while_it_is_read_raises(
    target: RedisStore, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_IMPORT_ENTRIES", 2)
    load(target, archive)
    commits = iter(target.feed(wait_s=0, prefix="small"))
    first = next(commits)
    target.save_snapshot("small", 30, b"state")
    target.trim("small")
    with pytest.raises(EventsTrimmed, match="rebuild"):
        list(commits)
    with pytest.raises(EventsTrimmed, match="rebuild"):
        read(target, after=first.positions, prefix="small")


def test_an_export_of_an_import_has_no_trace_of_it(target: RedisStore, archive: Path, tmp_path: Path) -> None:
    load(target, archive)
    assert export(target, tmp_path / "b").problems == []
    target.delete("small")
    load(target, tmp_path / "b")
    number = target.context.keys.partition_of("small")
    client = target._connected.server._client
    (last, fields), *_ = client.xrevrange(target.context.keys.feed(number), count=1)
    assert fields == {b"+40": b"40 small"}
    assert client.hget(target.context.keys.workflow("small").meta, "imported") == last.partition(b"-")[0]


# The setting of a namespace


def settings(client: redis.Redis, namespace: str) -> tuple[bytes, bytes]:
    feed, days = client.hmget(f"{{{namespace}}}:config", "feed", "feed_days")
    return feed, days


@pytest.mark.parametrize("days", [30.0, 0.5, None])
@pytest.mark.parametrize("has_feed", [True, False])
def test_a_new_namespace_has_a_feed_if_the_exported_one_has(
    valkey: RunningServer, namespace: str, tmp_path: Path, has_feed: bool, days: float | None
) -> None:
    options: dict[str, Any] = {"partitions": 2, "feed": has_feed, "feed_days": days}
    other = f"{namespace}-other"
    with (
        RedisStore.from_url(valkey.url(), namespace=namespace, **options) as store,
        RedisStore.from_url(valkey.url(), namespace=other) as target,
        valkey.client() as client,
    ):
        store.append("w", [{"n": 1}])
        export(store, tmp_path / "a")
        assert load(target, tmp_path / "a").problems == []
        if has_feed:
            assert settings(client, other) == settings(client, namespace)
            assert read(target) == [("w", 1, [{"n": 1}])]
        else:
            assert settings(client, other)[0] == b"0"
        assert verify(target).findings == []
        target.append("w", [{"n": 2}])
        target.delete_namespace()


@pytest.mark.parametrize("has_feed", [True, False])
def test_a_namespace_that_exists_keeps_its_setting(
    valkey: RunningServer, namespace: str, tmp_path: Path, has_feed: bool
) -> None:
    other = f"{namespace}-other"
    with (
        RedisStore.from_url(valkey.url(), namespace=namespace, feed=not has_feed, feed_days=3) as store,
        RedisStore.from_url(valkey.url(), namespace=other, partitions=3, feed=has_feed, feed_days=5) as maker,
        RedisStore.from_url(valkey.url(), namespace=other, partitions=3) as target,
        valkey.client() as client,
    ):
        store.append("w", [{"n": 1}])
        export(store, tmp_path / "a")
        maker.append("there", [{"n": 1}])
        before = settings(client, other)
        assert load(target, tmp_path / "a").problems == []
        assert settings(client, other) == before
        assert target.context.keys.has_feed == has_feed
        assert verify(target).findings == []
        maker.delete_namespace()


def test_an_import_into_a_namespace_of_the_other_setting_is_rejected(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, feed=True) as store:
        store.append("w", [{"n": 1}])
        with pytest.raises(ConfigurationError, match="feed=True"):
            RedisStore.from_url(valkey.url(), namespace=namespace, feed=False)
