"""The feed and its subscriptions have no silent gaps: readers that stall, servers that lose data, sizes, threads."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

import pytest
import redis

from runic_redis import CommitsLost, InvalidType, LeaseLost, RedisStore
from runic_redis.operations import feed
from runic_redis.operations.commits import Track
from runic_redis.operations.consuming import Consumer
from runic_redis.operations.feed import FeedReader
from runic_redis.positions import Place
from runic_redis.protocol.effects import Operation
from tests.faults import failover
from tests.servers import RunningServer
from tests.test_archives import export, load

_LONG = 600.0
T = TypeVar("T")


@pytest.fixture
def store(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1, feed=True) as store:
        yield store
        store.delete_namespace()


@pytest.fixture
def client(valkey: RunningServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey.url()) as client:
        yield client


class Loss:
    """What a server has at some moment. `happen` takes it back there, as a failover does that loses writes."""

    def __init__(self, client: redis.Redis, namespace: str, *parts: str) -> None:
        self._client = client
        self._pattern = [f"{{{namespace}*{part}*" for part in parts or ("",)]
        self._kept = {key: client.dump(key) for key in self._keys()}

    def _keys(self) -> set[bytes]:
        return {key for pattern in self._pattern for key in self._client.keys(pattern)}

    def happen(self) -> None:
        for key in self._keys() - self._kept.keys():
            self._client.delete(key)
        for key, value in self._kept.items():
            self._client.restore(key, 0, value, replace=True)


class Clock:
    """A process' monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def consumer(store: RedisStore, clock: Callable[[], float] = monotonic, **options: Any) -> Consumer:
    given = {"start": "beginning", "prefix": "", "types": None, "batch": 1, "ttl": _LONG, "later": "wait", **options}
    one = Consumer(store.context, "mailer", clock=clock, **given)
    run(store, one.open())
    return one


def run(store: RedisStore, operation: Operation[T]) -> T:
    return store.run(operation, "test")


def append_numbers(store: RedisStore, workflow_id: str, *numbers: int) -> None:
    for number in numbers:
        store.append(workflow_id, [{"n": number}])


def bring(store: RedisStore, namespace: str, directory: Path, *numbers: int) -> None:
    """Import a workflow with these commits."""
    with RedisStore.from_url(store.url, namespace=f"{namespace}-from", partitions=1) as other:
        append_numbers(other, "imported", *numbers)
        export(other, directory / "archive")
        other.delete_namespace()
    load(store, directory / "archive")


def number_of(commit: Any) -> int:
    return commit.events[0]["n"]


def test_a_consumer_that_stalls_past_its_lease_and_renews_it_skips_nothing(store: RedisStore) -> None:
    append_numbers(store, "a", 1, 2, 3)
    clock = Clock()
    one = consumer(store, clock)
    run(store, one.next_page(0.0))
    clock.now += 2 * _LONG
    assert one.take() is None  # another consumer may have the lease
    run(store, one.beat())  # but none had
    append_numbers(store, "a", 4)
    found = []
    while len(found) < 4 and run(store, one.next_page(0.0)):
        while (commit := one.take()) is not None:
            found.append(number_of(commit))
    assert found == [1, 2, 3, 4]


def test_an_import_at_a_lost_position_is_no_continuation(
    store: RedisStore, client: redis.Redis, namespace: str, tmp_path: Path
) -> None:
    append_numbers(store, "a", 1)
    loss = Loss(client, namespace)
    append_numbers(store, "a", 2)
    reader = store.feed(wait_s=0)
    assert list(map(number_of, reader)) == [1, 2]
    loss.happen()
    append_numbers(store, "b", 2)
    bring(store, namespace, tmp_path, 3, 4)
    with pytest.raises(CommitsLost):
        list(reader)


def test_a_subscription_reports_events_that_the_server_has_lost(store: RedisStore, client: redis.Redis) -> None:
    append_numbers(store, "a", 1, 2)
    client.xtrim(store.context.keys.workflow("a").events, maxlen=1, approximate=False)
    one = consumer(store)
    with pytest.raises(CommitsLost):
        for _ in range(3):
            run(store, one.next_page(0.0))


def test_deletions_of_a_lost_history_are_forgotten(store: RedisStore, client: redis.Redis, namespace: str) -> None:
    append_numbers(store, "a", 1)
    one = consumer(store)
    loss = Loss(client, namespace)
    append_numbers(store, "b", 2)
    store.delete("b")
    append_numbers(store, "a", 3, 4, 5)
    run(store, one.next_page(0.0))
    while one.take() is not None:
        pass
    loss.happen()
    append_numbers(store, "a", 6)
    append_numbers(store, "b", 7)
    store.delete("b")
    found = []
    while not found or not one.at_end:
        run(store, one.next_page(0.0))
        while (commit := one.take()) is not None:
            found.append(commit.deleted or number_of(commit))
    assert found == [1, 6, True]


def test_threads_may_ask_commits_of_one_page_for_their_positions() -> None:
    class Slow:
        """An entry at which another thread takes over, and asks for the positions after the second step."""

        is_first = True

        @property
        def place(self) -> Place:
            if self.is_first:
                self.is_first = False
                assert str(track.after(1)) == "1,7"
            return Place(1)

    steps = [
        (SimpleNamespace(number=0), Slow()),
        (SimpleNamespace(number=1), SimpleNamespace(place=Place(7))),
    ]
    track = Track([Place(), Place()], steps)  # type: ignore[arg-type]
    assert [str(track.after(0)), str(track.after(1)), str(track.after(0))] == ["1,0", "1,7", "1,0"]


def test_reading_ends_inside_an_import(store: RedisStore, namespace: str, tmp_path: Path) -> None:
    bring(store, namespace, tmp_path, 1, 2, 3)
    commits = list(store.feed(wait_s=0))
    assert list(map(number_of, commits)) == [1, 2, 3]
    for count, commit in enumerate(commits, 1):
        found = store.feed(wait_s=0, until=commit.positions)
        assert [number_of(one) for one in found] == list(range(1, count + 1))
        assert found.positions == commit.positions


def test_what_a_failover_lost_of_parked_commits_is_delivered_again(
    store: RedisStore, client: redis.Redis, namespace: str
) -> None:
    append_numbers(store, "a", 1)
    append_numbers(store, "b", 2)
    with store.subscribe("mailer", ttl=_LONG, wait_s=0) as subscription:
        first = next(subscription)
        loss = Loss(client, namespace, "subscription:", "parked:")
        subscription.park(first, "no")
        loss.happen()
        second = next(subscription)
        with pytest.raises(LeaseLost):
            subscription.ack(second)
        subscription._renew()
        assert list(map(number_of, subscription)) == [1, 2]


def test_a_commit_whose_handler_failed_is_handled_again_if_another_partition_is_lost(
    valkey: RunningServer, client: redis.Redis, namespace: str
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=2, feed=True) as store:
        first, second = "d", "a"  # in partitions 0 and 1
        append_numbers(store, first, 1)
        append_numbers(store, second, 2)
        handled: list[int] = []

        def handle(commit: Any) -> None:
            handled.append(number_of(commit))
            if handled == [1, 2]:
                # The first partition moves to another consumer.
                key = store.context.keys.subscription("mailer", store.context.keys.partition_of(first))
                client.hset(key, mapping={"owner": "other", "fence": 2**53 - 1})
                raise ValueError("no")

        with store.subscribe("mailer", ttl=_LONG, wait_s=0, batch=10) as subscription:
            subscription.run(handle, first_delay=0)
        assert handled == [1, 2, 2]


def test_an_acknowledgement_counts_in_the_partitions_that_are_left(
    valkey: RunningServer, client: redis.Redis, namespace: str
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=2, feed=True) as store:
        first, second = "d", "a"  # in partitions 0 and 1
        append_numbers(store, first, 1)
        append_numbers(store, second, 2)
        with store.subscribe("mailer", ttl=_LONG, wait_s=0) as subscription:
            commits = list(subscription)
            client.hset(store.context.keys.subscription("mailer", commits[0].partition), "owner", "other")
            client.hset(store.context.keys.subscription("mailer", commits[0].partition), "fence", 2**53 - 1)
            subscription._renew()
            with pytest.raises(LeaseLost):
                subscription.ack(commits[1])
        assert [one.position for one in store.subscriptions()[0].positions.places] == [0, 1]


def test_commits_that_are_gone_cost_the_server_little(store: RedisStore, client: redis.Redis) -> None:
    def read_us() -> int:
        client.config_resetstat()
        assert len(list(store.feed(wait_s=0, prefix="a"))) in {2000, 2001}
        return client.info("commandstats")["cmdstat_evalsha"]["usec"]

    store.append_many([("a", [{"n": number}]) for number in range(2000)])
    plain_us = read_us()
    store.delete("a")
    store.append_many([("a", [{"n": number}]) for number in range(2000)])
    assert read_us() < 10 * plain_us


def test_a_workflow_created_again_within_a_millisecond_is_not_confused_with_the_earlier_one(namespace: str) -> None:
    now = SimpleNamespace(time=lambda: 1_800_000_000.0)
    with (
        RedisStore.from_url(f"memory://{namespace}", feed=True, partitions=1) as store,
        mock.patch("fakeredis.commands_mixins.server_mixin.time", now),
    ):
        append_numbers(store, "a", 1)
        store.delete("a")
        append_numbers(store, "a", 2)
        assert [one.deleted or number_of(one) for one in store.feed(wait_s=0)] == [True, 2]


def test_a_rebuild_reads_few_large_workflows_at_once(store: RedisStore) -> None:
    ids = [f"w{number}" for number in range(12)]
    for workflow_id in ids:
        store.append(workflow_id, [{"data": os.urandom(800_000)} for _ in range(3)])
    sizes: list[int] = []

    def recorded(operation: Operation[T]) -> Operation[T]:
        """Note the size of each reply."""
        reply: Any = None
        while True:
            try:
                effect = operation.send(reply)
            except StopIteration as end:
                return end.value
            reply = yield effect
            sizes.append(size_of(reply))

    reader = FeedReader(store.context, "rebuild")
    run(store, reader.open())
    found: list[str] = []
    while commits := run(store, recorded(reader.next_page())):
        found += [commit.workflow_id for commit in commits]
    assert sorted(found) == sorted(ids)
    assert max(sizes) < 12 * 1024 * 1024


def size_of(reply: Any) -> int:
    return sum(map(size_of, reply)) if isinstance(reply, list) else len(reply) if isinstance(reply, bytes) else 0


def test_a_rebuild_across_a_failover_misses_no_workflow(
    store: RedisStore, valkey: RunningServer, tmp_path: Path
) -> None:
    ids = {f"w{number}" for number in range(3000)}
    store.append_many([(workflow_id, [{"n": 1}]) for workflow_id in ids])
    reader = FeedReader(store.context, "rebuild")
    run(store, reader.open())
    with failover(store, valkey, tmp_path) as servers:
        found: set[str] = set()
        while commits := servers.run(reader.next_page()):
            found |= {commit.workflow_id for commit in commits}
    assert found == ids


def test_a_forked_process_leaves_a_subscription_to_its_parent(store: RedisStore) -> None:
    append_numbers(store, "a", 1, 2)
    with store.subscribe("mailer", ttl=_LONG, wait_s=0) as subscription:
        first = next(subscription)
        child = os.fork()
        if not child:
            code = 1
            try:
                with subscription:
                    for call in (partial(next, subscription), partial(subscription.ack, first)):
                        with pytest.raises(InvalidType, match="the process that opened it"):
                            call()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        subscription.ack(first)
        assert list(map(number_of, subscription)) == [2]


def test_a_page_of_commits_that_decompress_to_much_ends_early(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_FIRST_COMMITS", 4096)
    text = "x" * 1_000_000
    for number in range(3):
        store.append_many([(f"w{one}", [{"n": number, "text": text}]) for one in range(40)])
    reader = FeedReader(store.context, "beginning")
    run(store, reader.open())
    found: list[tuple[str, int]] = []
    while commits := run(store, reader.next_page()):
        assert len(commits) < 80
        found += [(commit.workflow_id, number_of(commit)) for commit in commits]
    assert found == [(f"w{one}", number) for number in range(3) for one in range(40)]
