"""The counts of workflows by state are exact, whatever the scripts do to the workflows, and at whatever moment."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from runic_redis import DecodeError, RedisStore, StoreError
from runic_redis.admin.describing import describe
from runic_redis.operations.counting import count_states
from runic_redis.operations.leasing import Lease
from runic_redis.protocol.effects import Batch, call_once
from tests.clocks import Clock, shifted
from tests.servers import RunningServer
from tests.test_verifying import verify

IDS = [f"w-{number}" for number in range(4)]


@pytest.fixture
def client(valkey: RunningServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


def counted(store: RedisStore) -> dict[str, int]:
    return {state: count for state, count in store.run(count_states(store.context), "count").items() if count}


def described(store: RedisStore) -> dict[str, int]:
    """Return how many workflows are in each state, by reading all of them."""
    return dict(Counter(one.state for one in store.run(describe(store.context, list(store.list())), "describe")))


class Worker:
    """A store, the leases that it was given, and whether its calls are sent again."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self.leases: dict[str, Lease] = {}

    def acquire(self, workflow_id: str, ttl: float) -> None:
        self.leases[workflow_id] = self.store.acquire(workflow_id, "me", ttl)

    def by_lease(self, workflow_id: str, call: Callable[[Lease], Any]) -> None:
        if workflow_id in self.leases:
            call(self.leases[workflow_id])

    def twice(self, workflow_id: str) -> None:
        """Complete a workflow by a call that arrives twice, and again after all."""
        context = self.store.context
        keys = context.keys.workflow(workflow_id)
        touched = [keys.meta, keys.leases, keys.completed, keys.partition]
        call = call_once("complete", touched, workflow_id, "", context.now_us())
        for _ in range(3):
            self.store._sender.ask(Batch([call]))


CALLS: dict[str, Callable[[Worker, str], Any]] = {
    "append": lambda worker, name: worker.store.append(name, [{"n": 1}]),
    "append by a lease": lambda worker, name: worker.by_lease(
        name, lambda lease: worker.store.append(name, [{"n": 1}], lease=lease, snapshot=b"")
    ),
    "save": lambda worker, name: worker.store.save(name, [{"n": 1}]),
    "acquire": lambda worker, name: worker.acquire(name, 600),
    "acquire for a moment": lambda worker, name: worker.acquire(name, 0.001),
    "renew": lambda worker, name: worker.by_lease(name, worker.store.renew),
    "release": lambda worker, name: worker.by_lease(name, worker.store.release),
    "claim": lambda worker, name: worker.store.claim("heir", 2, ttl=600),
    "complete": lambda worker, name: worker.store.complete(name),
    "complete twice": lambda worker, name: worker.twice(name),
    "complete by a lease": lambda worker, name: worker.by_lease(
        name, lambda lease: worker.store.complete(name, lease=lease)
    ),
    "expire at once": lambda worker, name: worker.store.expire(name, 0.001),
    "expire later": lambda worker, name: worker.store.expire(name, 3600),
    "delete": lambda worker, name: worker.store.delete(name),
    "delete by a lease": lambda worker, name: worker.by_lease(
        name, lambda lease: worker.store.delete(name, lease=lease)
    ),
}


NUMBERS = count()


def _later(clock: Callable[[], float], seconds: float) -> float:
    return clock() + seconds


@pytest.fixture(scope="module")
def clock(valkey: RunningServer) -> Iterator[Clock]:
    with shifted(valkey) as clock:
        yield clock


@given(st.lists(st.tuples(st.sampled_from(sorted(CALLS)), st.sampled_from(IDS)), max_size=25))
def test_the_counts_are_those_of_the_described_workflows(clock: Clock, calls: list[tuple[str, str]]) -> None:
    with RedisStore.from_url(clock.url, namespace=f"counting-{next(NUMBERS)}", partitions=2) as store:
        worker = Worker(store)
        callers = store.context.clock
        for number, (name, workflow_id) in enumerate(calls, 1):
            with suppress(StoreError):
                CALLS[name](worker, workflow_id)
            # A workflow that expires after a millisecond has reached its end by both clocks.
            clock.step(1)
            store.context.clock = partial(_later, callers, number)
            # Counting comes first: the description deletes workflows that are over.
            assert counted(store) == described(store), name
        assert verify(store, list(store.list())).findings == []


@pytest.mark.parametrize("gone", ["index", "completed", "partition"])
def test_a_lost_key_is_an_error_and_never_a_wrong_count(
    valkey: RunningServer, client: redis.Redis, namespace: str, gone: str, few_buckets: None
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=2) as store:
        for number in range(20):
            store.append(f"open-{number}", [{"n": 1}])
            store.acquire(f"leased-{number}", "me", 600)
            store.complete(f"leased-{number // 2}")
        states = {"open": 20, "leased": 10, "completed": 10}
        assert counted(store) == described(store) == states
        client.delete(getattr(store.context.keys, gone)(1))
        with pytest.raises(DecodeError, match=r"verify --repair restores it"):
            counted(store)
        verify(store, repair=True)
        assert counted(store) == states


def test_counting_reads_no_workflow(valkey: RunningServer, client: redis.Redis, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=8) as store:
        store.append_many([(f"w-{number}", [{"n": 1}]) for number in range(2000)])
        client.config_resetstat()
        assert counted(store) == {"open": 2000}
        calls = {name: one["calls"] for name, one in client.info("commandstats").items()}
        assert calls["cmdstat_evalsha"] + calls.get("cmdstat_eval", 0) <= 16
        assert calls["cmdstat_hmget"] == 8
