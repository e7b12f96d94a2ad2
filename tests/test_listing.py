"""Listing any number of workflows, newest first."""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import pytest
import redis

from runic_redis import RedisStore
from runic_redis.operations.listing import Listing, Place
from tests.servers import RunningServer


@pytest.fixture
def client(valkey: RunningServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


def fill(store: RedisStore, client: redis.Redis, scores: Mapping[str, float]) -> None:
    """Put workflows into the indexes with the times of their last writes, as the scripts do."""
    by_partition: dict[tuple[str, str], dict[str, float]] = {}
    for workflow_id, score in scores.items():
        keys = store.context.keys.workflow(workflow_id)
        by_partition.setdefault((keys.index, keys.partition), {})[workflow_id] = score
    pipeline = client.pipeline(transaction=False)
    for (index, partition), members in by_partition.items():
        pipeline.zadd(index, members)
        pipeline.hset(partition, "workflows", len(members))
    pipeline.execute()


@pytest.mark.parametrize("partitions", [1, 3, 64])
def test_workflows_written_at_the_same_time_are_all_listed(
    valkey: RunningServer, client: redis.Redis, namespace: str, partitions: int
) -> None:
    scores = {f"w-{number}": 1_800_000_000_000_000 + number // 500 for number in range(3000)}
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=partitions) as store:
        fill(store, client, scores)
        for protocol in (2, 3):
            url = valkey.url(protocol)
            with RedisStore.from_url(url, namespace=namespace, partitions=partitions) as reader:
                listed = list(reader.list())
                assert len(listed) == len(scores)
                assert set(listed) == set(scores)
                assert [scores[workflow_id] for workflow_id in listed] == sorted(scores.values(), reverse=True)
                for limit in (1, 31, 32, 33, 500, 2999, 3001):
                    assert list(reader.list(limit=limit)) == listed[:limit]


@pytest.mark.parametrize(
    "score", [lambda n: 1 + n / 1000, lambda n: 1.6 + n / 1000, lambda n: -1e308 * n, lambda n: 1e400]
)
def test_scores_that_are_no_times_are_listed_once_each(
    valkey: RunningServer, client: redis.Redis, namespace: str, score: Callable[[int], float]
) -> None:
    scores = {f"w-{number}": score(number) for number in range(100)}
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        fill(store, client, scores)
        listed = list(islice(store.list(), 200))
        assert len(listed) == 100
        assert set(listed) == set(scores)
        assert [scores[workflow_id] for workflow_id in listed] == sorted(scores.values(), reverse=True)


def test_a_hundred_thousand_workflows_are_listed_in_order(
    valkey: RunningServer, client: redis.Redis, namespace: str
) -> None:
    # The newest 1000 share a partition. A listing must read enough of it, and little of the others.
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        keys = store.context.keys
        candidates = (f"hot-{number}" for number in range(1_000_000))
        hot = list(islice((name for name in candidates if keys.workflow(name).index == keys.index(7)), 1000))
        ids = [*hot, *(f"w-{number}" for number in range(99_000))]
        scores = {workflow_id: 1_900_000_000_000_000 - place for place, workflow_id in enumerate(ids)}
        fill(store, client, scores)
        assert list(store.list()) == ids
        assert list(store.list(limit=1500)) == ids[:1500]
        assert list(store.list(prefix="w-98", limit=5)) == [name for name in ids if name.startswith("w-98")][:5]


def test_a_short_listing_asks_each_node_once(valkey: RunningServer, client: redis.Redis, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        fill(store, client, {f"w-{number}": 1_800_000_000_000_000 + number for number in range(20_000)})
        client.config_resetstat()
        assert len(list(store.list(limit=10))) == 10
        statistics = client.info("commandstats")
        assert statistics["cmdstat_zrevrangebyscore"]["calls"] == 64
        assert "cmdstat_keys" not in statistics
        assert "cmdstat_scan" not in statistics


@pytest.mark.parametrize("partitions", [1, 3, 64])
def test_a_listing_goes_on_below_any_place(
    valkey: RunningServer, client: redis.Redis, namespace: str, partitions: int
) -> None:
    scores = {f"{'abc'[number % 3]}-{number}": 1_800_000_000_000_000 + number // 60 for number in range(120)}
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=partitions) as store:
        fill(store, client, scores)
        for part, listed in (("", list(store.list())), ("B-", list(store.list(prefix="b-")))):
            for size in (1, 2, 59, 60, 61, 119):
                paged: list[str] = []
                place = None
                # The last page is empty.
                while page := _page(store, containing=part, limit=size, below=place):
                    paged += page[0]
                    place = page[1]
                    assert len(page[0]) <= size
                assert paged == listed


def _page(store: RedisStore, **options: Any) -> tuple[list[str], Place | None] | None:
    listing = Listing(store.context, **options)
    ids: list[str] = []
    while more := store.run(listing.next_page(), "list"):
        ids += more
    return (ids, listing.last) if ids else None


def test_a_caller_whose_clock_is_ahead_sets_no_order(
    valkey: RunningServer, client: redis.Redis, namespace: str
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        store.context.clock = lambda: time.time() + 3600
        # By the server's clock, they have one time of writing.
        store.append_many([(f"w-{number}", [{"n": 1}]) for number in range(100)])
        scores = [score for _, score in client.zrange(store.context.keys.index(0), 0, -1, withscores=True)]
    assert len(set(scores)) == 100
    assert max(scores) - min(scores) < 60_000_000
