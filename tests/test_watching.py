"""A namespace is watched, and taken as it was made."""

import pytest

from runic_redis import AsyncRedisStore, ConfigurationError, RedisStore
from runic_redis.admin.watching import Watcher
from tests.portal import BlockingStore
from tests.servers import RunningServer


def test_each_write_is_told_once_in_order(valkey: RunningServer, namespace: str) -> None:
    for protocol in (2, 3):
        with RedisStore.from_url(valkey.url(protocol), namespace=namespace, partitions=4) as store:
            store.append("before", [{"n": 1}])
            watcher = Watcher(store.context)
            store.run(watcher.open(), "watch")
            assert store.run(watcher.look(), "watch") == []
            # Of one script, and so of one microsecond.
            store.append_many([(f"w-{n}", [{"n": 1}]) for n in range(50)])
            first = store.run(watcher.look(), "watch")
            assert sorted(change.workflow_id for change in first) == sorted(f"w-{n}" for n in range(50))
            assert store.run(watcher.look(), "watch") == []
            for workflow_id in ("w-1", "new", "before", "w-1"):
                store.append(workflow_id, [{"n": 2}])
            told = store.run(watcher.look(), "watch")
            assert [change.workflow_id for change in told] == ["new", "before", "w-1"], "by its last write"
            assert all(change.since_us <= change.time_us + 1000 for change in told)
            with valkey.client() as client:
                client.zadd(store.context.keys.index(0), {"no time": 1e300, "odd": -5})
            assert store.run(watcher.look(), "watch") == []
            with valkey.client() as client:
                client.zrem(store.context.keys.index(0), "no time", "odd")
            assert store.run(watcher.look(), "watch") == []
            store.delete_namespace()


def test_what_a_workflow_had_when_watching_began_is_not_new(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        store.append_many([("v", [{"n": 1}]), ("w", [{"n": 1}])])
        (first,) = store.stream_records("v")
        watcher = Watcher(store.context)
        store.run(watcher.open(), "watch")
        store.append("v", [{"n": 2}])
        store.append("w", [{"n": 2}])
        changes = store.run(watcher.look(), "watch")
        assert all(change.since_us // 1000 > round(first.time.timestamp() * 1000) for change in changes)
        store.append("v", [{"n": 3}])
        (change,) = store.run(watcher.look(), "watch")
        assert change.since_us == changes[-1].time_us


def test_more_than_one_look_takes_is_told_by_the_next(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        watcher = Watcher(store.context)
        store.run(watcher.open(), "watch")
        with valkey.client() as client:
            seconds, micros = client.time()
            at = seconds * 1_000_000 + micros + 10**9
            client.zadd(store.context.keys.index(0), {f"w-{n}": at + n // 1500 for n in range(3000)})
        seen: list[str] = []
        while changes := store.run(watcher.look(), "watch"):
            seen += [change.workflow_id for change in changes]
        assert sorted(seen) == sorted(f"w-{n}" for n in range(3000))


def test_a_namespace_is_opened_in_as_many_partitions_as_it_was_made_with(valkey: RunningServer, namespace: str) -> None:
    url = valkey.url()
    early = RedisStore.from_url(url, namespace=namespace, partitions=None)
    with RedisStore.from_url(url, namespace=namespace, partitions=3) as store:
        store.append("w", [{"n": 1}])
    with early, pytest.raises(ConfigurationError, match="partitions=3"):
        early.stream("w")  # it was not there when this was opened: 64
    for opened in (RedisStore.from_url, lambda *a, **o: BlockingStore(AsyncRedisStore.from_url(*a, **o))):
        with opened(url, namespace=namespace, partitions=None) as store:
            assert list(store.stream("w")) == [{"n": 1}]
    with valkey.client() as client:
        client.hset(f"{{{namespace}}}:config", "partitions", 10**9)
    with pytest.raises(ConfigurationError, match="partitions=1000000000"):
        RedisStore.from_url(url, namespace=namespace, partitions=None)
