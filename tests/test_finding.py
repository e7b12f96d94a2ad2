"""Listings and counts find exactly the workflows that pass their filters, after any history."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, product
from math import inf
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from runic_redis import RedisStore, StoreError
from runic_redis.admin.describing import Description, describe
from runic_redis.operations.leasing import Lease
from tests.clocks import Clock, shifted
from tests.servers import RunningServer

IDS = [f"w-{number}" for number in range(5)]
NUMBERS = count()


@pytest.fixture
def client(valkey: RunningServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


@pytest.fixture(scope="module")
def clock(valkey: RunningServer) -> Iterator[Clock]:
    with shifted(valkey) as clock:
        yield clock


class Worker:
    """A store, and the leases that it was given."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self.leases: dict[str, Lease] = {}

    def append(self, name: str, **options: Any) -> None:
        self.store.append(name, [{"n": 1}], **options)

    def claim(self, queue: str, ttl: float) -> None:
        for lease in self.store.claim("me", 2, queues=[queue], ttl=ttl):
            self.leases[lease.workflow_id] = lease

    def release(self, name: str, due: float | None) -> None:
        self.store.release(self.leases.pop(name), due=due)


CALLS: dict[str, Callable[[Worker, str], Any]] = {
    "append": lambda worker, name: worker.append(name),
    "start as a child": lambda worker, name: worker.append(name, expected_cursor=0, parent="p"),
    "append to a queue": lambda worker, name: worker.append(name, queue="one"),
    "append to another": lambda worker, name: worker.append(name, queue="two", due=60),
    "append until woken": lambda worker, name: worker.append(name, queue="two", due=inf),
    "set attributes": lambda worker, name: worker.append(name, attributes={"a": "1", "b": "1"}),
    "change attributes": lambda worker, name: worker.append(name, attributes={"a": "2"}),
    "remove attributes": lambda worker, name: worker.append(name, attributes={"a": None}),
    "all at once": lambda worker, name: worker.append(name, attributes={"a": "1"}, queue="one", due=1),
    "claim": lambda worker, _: worker.claim("one", 600),
    "claim another for a moment": lambda worker, _: worker.claim("two", 0.002),
    "acquire": lambda worker, name: worker.leases.update({name: worker.store.acquire(name, "me", 600)}),
    "release": lambda worker, name: worker.release(name, None),
    "release for later": lambda worker, name: worker.release(name, 90),
    "park": lambda worker, name: worker.store.park(name, "not now"),
    "unpark": lambda worker, name: worker.store.unpark(name),
    "complete": lambda worker, name: worker.store.complete(name),
    "expire at once": lambda worker, name: worker.store.expire(name, 0.001),
    "expire later": lambda worker, name: worker.store.expire(name, 3600),
    "delete": lambda worker, name: worker.store.delete(name),
}


def later(clock: Callable[[], float], seconds: float) -> float:
    return clock() + seconds


def passes(one: Description, **filters: Any) -> bool:
    """Return whether a described workflow passes filters."""
    state, queue, due = filters.get("state"), filters.get("queue"), filters.get("due")
    in_queue = one.state in {"waiting", "leased"}
    return (
        one.workflow_id.startswith(filters.get("prefix", ""))
        and (state is None or one.state == state)
        and (queue is None or (one.queue == queue and (state is not None or in_queue)))
        and (due is None or (in_queue and one.due is not None and one.due <= due))
        and (filters.get("since") is None or (one.written is not None and one.written >= filters["since"]))
        and (filters.get("until") is None or (one.written is not None and one.written <= filters["until"]))
        and filters.get("attributes", {}).items() <= one.attributes.items()
    )


def all_filters(times: list[datetime], now: datetime) -> Iterator[dict[str, Any]]:
    """Yield combinations of filters that `list` takes."""
    middle = sorted(times)[len(times) // 2] if times else now
    for state, queue, due, written, attributes, prefix in product(
        (None, "open", "waiting", "leased", "parked", "completed"),
        (None, "one", "two"),
        (None, now, now + timedelta(seconds=75)),
        ({}, {"since": middle}, {"until": middle}),
        ({}, {"a": "1"}, {"a": "1", "b": "1"}),
        ("", "w-1"),
    ):
        if (due and state not in {None, "waiting", "leased"}) or (queue and state == "open"):
            continue
        yield {
            name: value
            for name, value in {
                "state": state,
                "queue": queue,
                "due": due,
                **written,
                "attributes": attributes,
                "prefix": prefix,
            }.items()
            if value
        }


@given(st.lists(st.tuples(st.sampled_from(sorted(CALLS)), st.sampled_from(IDS)), max_size=25), st.data())
def test_a_listing_finds_what_a_description_of_all_finds(
    clock: Clock, calls: list[tuple[str, str]], data: st.DataObject
) -> None:
    with RedisStore.from_url(clock.url, namespace=f"finding-{next(NUMBERS)}", partitions=2) as store:
        worker = Worker(store)
        callers = store.context.clock
        number = 0
        for number, (name, workflow_id) in enumerate(calls, 1):
            with suppress(StoreError, KeyError):
                CALLS[name](worker, workflow_id)
            clock.step(1)
            store.context.clock = partial(later, callers, number)
        described = store.run(describe(store.context, [one for one in IDS if store.exists(one)]), "describe")
        now = datetime.now(UTC) + timedelta(seconds=number)
        filters = list(all_filters([one.written for one in described if one.written], now))
        for wanted in data.draw(st.lists(st.sampled_from(filters), min_size=10, max_size=10)):
            expected = {one.workflow_id for one in described if passes(one, **wanted)}
            found = list(store.list(**wanted))
            assert len(found) == len(expected), wanted
            assert set(found) == expected, wanted
            assert store.count(**wanted) == len(expected), wanted
        assert set(store.children("p")) == {one.workflow_id for one in described if one.parent == "p"}
        for workflow_id in IDS:
            store.delete(workflow_id)
        assert list(store.children("p")) == list(store.list(attributes={"a": "1"})) == []


def test_a_listing_by_state_reads_few_workflows(valkey: RunningServer, client: redis.Redis, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=8) as store:
        store.append_many([(f"w-{number}", [{"n": 1}]) for number in range(3000)])
        for number in range(20):
            store.append(f"w-{number}", [{"n": 1}], queue="orders", attributes={"rare": "1"})
        store.park("w-3", "not now")
        for filters, found in (
            ({"queue": "orders"}, 19),
            ({"state": "waiting"}, 19),
            ({"state": "parked"}, 1),
            ({"attributes": {"rare": "1"}}, 20),
            ({"attributes": {"rare": "1"}, "state": "open"}, 0),
        ):
            client.config_resetstat()
            assert len(list(store.list(**filters))) == found  # type: ignore[arg-type]
            calls = {name: one["calls"] for name, one in client.info("commandstats").items()}
            assert calls.get("cmdstat_hmget", 0) <= 20
            assert "cmdstat_scan" not in calls
            assert "cmdstat_keys" not in calls
        client.config_resetstat()
        assert store.count(queue="orders") == store.count(state="waiting") == 19
        assert store.count(state="open") == 2980
        assert store.count(since=datetime.now(UTC) - timedelta(hours=1)) == 3000
        assert store.count(attributes={"rare": "1"}) == 20
        assert client.info("commandstats")["cmdstat_hmget"]["calls"] == 5 * 8


def test_a_listing_of_open_workflows_stops_when_it_has_found_all(
    valkey: RunningServer, client: redis.Redis, namespace: str
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=2) as store:
        for number in range(2000):
            store.append(f"queued-{number}", [{"n": 1}], queue="orders")
        for number in range(3):
            store.append(f"open-{number}", [{"n": 1}])
        client.config_resetstat()
        assert list(store.list(state="open")) == ["open-2", "open-1", "open-0"]
        assert client.info("commandstats")["cmdstat_hmget"]["calls"] < 200
        store.append("queued-5", [{"n": 1}])
        for number in range(3):
            store.complete(f"open-{number}")
        client.config_resetstat()
        assert list(store.list(state="open")) == []
        assert client.info("commandstats")["cmdstat_hmget"]["calls"] < 600


def test_many_sleeping_workflows_are_listed_in_pages(
    valkey: RunningServer, client: redis.Redis, namespace: str
) -> None:
    # All of them share the due time "until woken".
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        for number in range(5000):
            store.append(f"w-{number}", [{"n": 1}], queue="orders", due=inf)
        client.config_resetstat()
        assert len(set(store.list(queue="orders"))) == 5000
        sent = client.info("stats")["total_net_output_bytes"]
        assert sent < 250_000, sent
        # The last workflow of a page may have left when the next page is read.
        listing = store.list(queue="orders")
        first = [next(listing) for _ in range(32)]
        for workflow_id in first:
            store.complete(workflow_id)
        assert len(set(first) | set(listing)) == 5000


def test_labels_that_changed_since_they_were_read_are_deleted_with_the_workflow(
    valkey: RunningServer, namespace: str
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        store.append("w", [{"n": 1}], attributes={"a": "1"}, parent="p")
        ask, late = store._sender.ask, [True]

        def ask_late(batch: Any) -> Any:
            replies = ask(batch)
            if late.pop() if late else False:
                # After the delete has read the attributes, another writer changes them.
                with RedisStore.from_url(valkey.url(), namespace=namespace) as other:
                    other.append("w", [{"n": 1}], attributes={"a": "2", "b": "1", "c": "1"})
            return replies

        store._sender.ask = ask_late  # type: ignore[method-assign]
        store.delete("w")
        assert not late
        assert not store.exists("w")
        for attributes in ({"a": "1"}, {"a": "2"}, {"b": "1"}, {"c": "1"}):
            assert list(store.list(attributes=attributes)) == []
        assert list(store.children("p")) == []
