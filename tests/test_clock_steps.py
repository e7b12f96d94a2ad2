"""The clock of the server or of a client is set forward or back: no data is lost, and no call waits for a clock.

The end of a workflow and the age of a fact depend on two clocks, the server's and the caller's.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from runic_redis import (
    Fact,
    LeaseHeld,
    LeaseLost,
    RedisStore,
    SnapshotNotFound,
    WorkflowNotFound,
)
from runic_redis.admin.watching import Watcher
from tests.clocks import Clock, ClockProxy, shifted
from tests.faults import make_faulty
from tests.servers import RunningServer, following, follows, free_ports, running, valkey_program, wait_until
from tests.test_verifying import verify

# `collect` and `verify` ask each bucket.
pytestmark = pytest.mark.usefixtures("few_buckets")

HOUR_S = 3600.0
# Each step is far longer than a test takes.
STEPS = pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])


class Clocks(NamedTuple):
    """A store, and two clocks: the server's as the store sees it, and the caller's."""

    store: RedisStore
    server: Clock

    def step_caller(self, seconds: float) -> None:
        """Set the caller's clock forward, or back if negative."""
        before = self.store.context.clock
        self.store.context.clock = lambda: before() + seconds

    def step_both(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.server.step(seconds)
        self.step_caller(seconds)


@pytest.fixture
def clocks(valkey: RunningServer, namespace: str) -> Iterator[Clocks]:
    with (
        shifted(valkey) as clock,
        RedisStore.from_url(clock.url, namespace=namespace, partitions=1) as store,
    ):
        yield Clocks(store, clock)


def end(store: RedisStore, workflow_id: str, after_s: float) -> None:
    """Make a finished workflow that ends after so many seconds."""
    store.append(workflow_id, [{"n": 1}], snapshot=b"state")
    store.save(workflow_id, [{"n": 1}])
    store.complete(workflow_id)
    store.expire(workflow_id, after_s)


READS: dict[str, tuple[Any, type[Exception]]] = {
    "stream": (lambda store: list(store.stream("w")), WorkflowNotFound),
    "stream_records": (lambda store: list(store.stream_records("w", reverse=True)), WorkflowNotFound),
    "load": (lambda store: store.load("w"), WorkflowNotFound),
    "load_snapshot": (lambda store: store.load_snapshot("w"), SnapshotNotFound),
}


# Times


def test_a_time_over_which_the_clock_was_set_back_begins_at_one_of_its_places(clocks: Clocks) -> None:
    store = clocks.store
    for step_s in (0, HOUR_S, -HOUR_S / 2, HOUR_S):
        clocks.server.step(step_s)
        for n in range(3):
            store.append("w", [{"n": n}])
    records = list(store.stream_records("w"))
    # The groups are at 0 h, 1 h, 1/2 h and 1 1/2 h.
    start = records[0].time
    for hours, first in ((-1, 1), (0.25, 4), (1.25, 10), (2, 13)):
        found = list(store.stream_records("w", since=start + timedelta(hours=hours)))
        assert found == records[first - 1 :], hours
    found = list(store.stream_records("w", since=start + timedelta(hours=0.75)))
    assert found in (records[3:], records[9:])
    assert list(store.stream_records("w", since=start + timedelta(hours=0.75), reverse=True)) == found[::-1]


# Ends


@pytest.mark.parametrize("which", ["server", "caller"])
def test_no_single_clock_that_is_set_forward_ends_a_workflow(clocks: Clocks, which: str) -> None:
    store = clocks.store
    end(store, "w", 60)
    (clocks.server.step if which == "server" else clocks.step_caller)(HOUR_S)
    assert store.exists("w")
    assert list(store.list()) == ["w"]
    assert store.cursor("w") == 1
    for read, _ in READS.values():
        read(store)
    assert store.append("w", [{"n": 2}]) == 2
    assert store.append_many([("w", [{"n": 3}]), ("v", [{"n": 1}]), ("w", [{"n": 4}])]) == [3, 1, 4]
    store.save_snapshot("w", 3, b"later")
    store.save("w", [{"n": 2}])
    assert store.trim("w") == 3
    store.complete("w")
    store.release(store.acquire("w", "me"))
    store.expire("w", 60)
    assert verify(store).findings == []


@pytest.mark.parametrize("name", READS)
def test_a_workflow_is_over_once_both_clocks_have_reached_its_end(clocks: Clocks, name: str) -> None:
    end(clocks.store, "w", 60)
    clocks.step_both(61)
    read, error = READS[name]
    with pytest.raises(error):
        read(clocks.store)
    clocks.step_both(-61)
    with pytest.raises(error):
        read(clocks.store)
    assert not clocks.store.exists("w"), "a workflow that was over is back"


def test_each_write_to_a_workflow_that_is_over_begins_another_one(clocks: Clocks) -> None:
    store = clocks.store
    writes: dict[str, Any] = {
        "append": lambda: store.append("w", [{"n": 5}]),
        "append expecting nothing": lambda: store.append("w", [{"n": 5}], expected_cursor=0),
        "append with an id": lambda: store.append("w", [{"n": 5}], commit_id="c"),
        "append_many": lambda: store.append_many([("v", [{}]), ("w", [{"n": 5}])]),
        "save": lambda: store.save("w", [{"n": 5}]),
        "save_snapshot": lambda: store.save_snapshot("w", 0, b"new"),
        "acquire": lambda: store.acquire("w", "me"),
    }
    for name, write in writes.items():
        end(store, "w", 60)
        clocks.step_both(61)
        write()
        assert store.cursor("w") == (1 if "append" in name else 0), name
        assert store.exists("w"), name
        assert verify(store).findings == [], name
        store.delete("w")
        clocks.step_both(-61)


def test_what_changes_a_workflow_that_is_over_finds_none(clocks: Clocks) -> None:
    store = clocks.store
    for write in (lambda: store.complete("w"), lambda: store.expire("w", 5), lambda: store.trim("w")):
        end(store, "w", 60)
        clocks.step_both(61)
        with pytest.raises(WorkflowNotFound):
            write()
        assert list(store.list()) == []
        clocks.step_both(-61)


def test_what_is_written_while_the_servers_clock_alone_has_reached_the_end_outlasts_it(clocks: Clocks) -> None:
    end(clocks.store, "w", 60)
    clocks.server.step(HOUR_S)
    assert clocks.store.append("w", [{"n": 2}]) == 2
    clocks.step_both(59)
    assert clocks.store.exists("w")
    # The rest of its time counts from the later clock.
    clocks.step_both(HOUR_S + 2)
    assert list(clocks.store.list()) == []


def test_what_is_written_while_the_callers_clock_alone_has_reached_the_end_stays(clocks: Clocks) -> None:
    end(clocks.store, "w", 60)
    clocks.step_both(61)
    clocks.server.step(-4)
    assert clocks.store.append("w", [{"f": Fact("kept")}]) == 2
    clocks.step_both(HOUR_S)
    assert list(clocks.store.list()) == ["w"]
    assert clocks.store.collect(grace=1) == 0
    (event,) = clocks.store.stream("w", after=1)
    assert clocks.store.load_fact(event["f"].hash) == "kept"
    assert verify(clocks.store).findings == []
    clocks.store.expire("w", 60)
    clocks.step_both(66)
    assert not clocks.store.exists("w")


@STEPS
def test_an_end_counts_from_the_later_clock(clocks: Clocks, step_s: float) -> None:
    clocks.server.step(step_s)
    end(clocks.store, "w", 60)
    clocks.step_both(59)
    assert clocks.store.exists("w")
    clocks.server.step(-step_s)
    assert clocks.store.exists("w")
    clocks.step_both(abs(step_s) + 2)
    assert not clocks.store.exists("w")


def test_a_workflow_that_is_made_after_a_step_back_outlives_the_end_of_the_one_before(clocks: Clocks) -> None:
    store = clocks.store
    end(store, "w", 60)
    clocks.step_both(61)
    assert not store.exists("w")
    clocks.server.step(-HOUR_S)
    store.append("w", [{"f": Fact("kept")}])
    ((fact),) = (event["f"] for event in store.stream("w"))
    clocks.step_both(2 * HOUR_S)
    assert list(store.list()) == ["w"]
    assert store.collect(grace=1) == 0
    assert store.load_fact(fact.hash) == "kept"
    assert verify(store).findings == []


# Facts


def test_no_single_clock_makes_a_fact_old(clocks: Clocks) -> None:
    store = clocks.store
    store.save_fact("h", 1)
    clocks.server.step(HOUR_S)
    assert store.collect(grace=60) == 0
    clocks.server.step(-HOUR_S)
    clocks.step_caller(HOUR_S)
    assert store.collect(grace=60) == 0
    clocks.server.step(HOUR_S)
    assert store.collect(grace=60) == 1


@pytest.mark.parametrize("saved", ["save_fact", "append", "save"])
@STEPS
def test_a_fact_is_as_young_as_the_later_clock_says(clocks: Clocks, step_s: float, saved: str) -> None:
    store = clocks.store
    store.append("other", [{}])
    clocks.server.step(step_s)
    write = {
        "save_fact": lambda: store.put_fact("v"),
        "append": lambda: store.append("w", [{"f": Fact("v")}]),
        "save": lambda: store.save("w", [{"f": Fact("v")}]),
    }[saved]
    write()
    if saved != "save_fact":
        store.delete("w")
    clocks.server.step(-step_s)
    assert store.collect(grace=60) == 0
    clocks.step_both(abs(step_s) + 61)
    assert store.collect(grace=60) == 1


# Leases


def test_a_dead_lease_does_not_outlive_a_clock_that_is_set_back(clocks: Clocks) -> None:
    lease = clocks.store.acquire("w", "dead", ttl=30)
    clocks.server.step(-HOUR_S)
    heir = clocks.store.acquire("w", "heir", ttl=30)
    assert heir.token > lease.token
    with pytest.raises(LeaseLost):
        clocks.store.append("w", [{}], lease=lease)
    with pytest.raises(LeaseHeld) as caught:
        clocks.store.acquire("w", "another")
    assert 0 < caught.value.left_s <= 30


@pytest.mark.parametrize("kept_up", ["renew", "append", "save", "save_snapshot", "trim"])
def test_a_holder_that_goes_on_keeps_its_lease_when_the_clock_is_set_back(clocks: Clocks, kept_up: str) -> None:
    store = clocks.store
    store.append("w", [{"n": 1}], snapshot=b"state")
    lease = store.acquire("w", "me", ttl=30)
    clocks.server.step(-HOUR_S)
    {
        "renew": lambda: store.renew(lease),
        "append": lambda: store.append("w", [{}], lease=lease),
        "save": lambda: store.save("w", [{}], lease=lease),
        "save_snapshot": lambda: store.save_snapshot("w", 1, b"", lease=lease),
        "trim": lambda: store.trim("w", lease=lease),
    }[kept_up]()
    with pytest.raises(LeaseHeld) as caught:
        store.acquire("w", "another")
    assert 0 < caught.value.left_s <= 30
    assert store.claim("another") == []


@STEPS
def test_tokens_grow_whatever_the_clock_does(clocks: Clocks, step_s: float) -> None:
    tokens = []
    for _ in range(3):
        lease = clocks.store.acquire("w", "me", ttl=30)
        tokens.append(lease.token)
        clocks.server.step(step_s)
        clocks.store.delete("w")
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize(("below", "above"), [(40, 0), (0, 40), (40, 40), (140, 140)])
def test_a_dead_lease_is_claimed_from_among_many_live_ones_after_a_step_back(
    clocks: Clocks, below: int, above: int
) -> None:
    store = clocks.store
    store.acquire("dead", "dead", ttl=30)
    clocks.server.step(-HOUR_S)
    live = [store.acquire(f"short-{number}", "me", ttl=600) for number in range(below)]
    live += [store.acquire(f"long-{number}", "me", ttl=2 * HOUR_S) for number in range(above)]
    (claimed,) = store.claim("heir", 10, ttl=30)
    assert claimed.workflow_id == "dead"
    for lease in live:
        store.append(lease.workflow_id, [{}], lease=lease)
    clocks.step_both(2.5 * HOUR_S)
    assert len(store.claim("heir", 1000)) == below + above + 1


def test_no_live_lease_is_claimed_after_a_step_forward_before_its_time(clocks: Clocks) -> None:
    lease = clocks.store.acquire("w", "me", ttl=2 * HOUR_S)
    clocks.server.step(HOUR_S)
    assert clocks.store.claim("another") == []
    clocks.server.step(-HOUR_S)
    assert clocks.store.claim("another") == []
    clocks.store.renew(lease)


# Orders


@STEPS
def test_listings_go_by_the_order_of_writes(clocks: Clocks, step_s: float) -> None:
    for number in range(4):
        clocks.store.append(f"w-{number}", [{"n": 1}])
        clocks.server.step(step_s)
    assert list(clocks.store.list()) == ["w-3", "w-2", "w-1", "w-0"]
    clocks.store.save("w-1", [])
    assert next(clocks.store.list()) == "w-1"
    clocks.server.step(-step_s)
    clocks.store.append("w-0", [{"n": 2}])
    assert next(clocks.store.list()) == "w-0"


@STEPS
def test_a_watcher_sees_each_write(clocks: Clocks, step_s: float) -> None:
    store = clocks.store
    store.append("before", [{"n": 1}])
    watcher = Watcher(store.context)
    store.run(watcher.open(), "watch")
    for number in range(4):
        clocks.server.step(step_s)
        store.append("before", [{"n": number}])
        store.append(f"w-{number}", [{"n": 1}])
        told = [change.workflow_id for change in store.run(watcher.look(), "watch")]
        assert told == ["before", f"w-{number}"]
        assert store.run(watcher.look(), "watch") == []


@STEPS
def test_followers_see_each_event(clocks: Clocks, step_s: float) -> None:
    store = clocks.store
    store.append("w", [{"n": 1}])
    with closing(store.tail_many({"w": 0, "v": 0})) as items:
        for number in range(2, 5):
            assert next(items)[1].event == {"n": number - 1}
            clocks.server.step(step_s)
            store.append("w", [{"n": number}])


# Lost replies


@STEPS
@pytest.mark.parametrize("lost", ["reply", "request"])
@pytest.mark.parametrize("options", [{}, {"expected_cursor": 1}, {"commit_id": "c"}], ids=str)
def test_a_commit_is_stored_once_though_the_clock_is_set_before_its_retry(
    clocks: Clocks, step_s: float, lost: str, options: dict[str, Any]
) -> None:
    store = clocks.store
    store.append("w", [{"n": 1}])
    faulty = make_faulty(store)
    faulty.after_loss = lambda: clocks.step_both(step_s)
    faulty.faults = [lost, lost]
    assert store.append("w", [{"n": 2}], **options) == 2
    assert store.append("w", [{"n": 3}]) == 3
    assert list(store.stream("w")) == [{"n": 1}, {"n": 2}, {"n": 3}]


# Failovers


# The primary must not wait for further replicas before it serves the first.
AT_ONCE = ("--repl-diskless-sync-delay", "0")


@STEPS
def test_a_server_that_takes_over_with_another_clock(tmp_path: Path, namespace: str, step_s: float) -> None:
    ports = free_ports(2)
    with (
        running(valkey_program(), tmp_path / "primary", *AT_ONCE, port=ports[0]) as primary,
        running(valkey_program(), tmp_path / "replica", *following(primary), port=ports[1]) as replica,
        shifted(primary) as clock,
        RedisStore.from_url(clock.url, namespace=namespace, partitions=1) as store,
    ):
        assert isinstance(clock, ClockProxy)
        end(store, "ends", 60)
        for number in range(3):
            store.append(f"w-{number}", [{"n": 1}])
        lease = store.acquire("dead", "dead", ttl=30)
        store.save_fact("h", 1)
        watcher = Watcher(store.context)
        store.run(watcher.open(), "watch")
        with primary.client() as old, replica.client() as new:
            wait_until(lambda: follows(replica), "the replica to follow")
            old.wait(1, 0)
            new.replicaof("NO", "ONE")
        clock.switch_to(replica, step_s)
        assert store.append("w-0", [{"n": 2}], expected_cursor=1) == 2
        store.append("new", [{"n": 1}])
        assert [change.workflow_id for change in store.run(watcher.look(), "watch")] == ["w-0", "new"]
        assert list(store.list(limit=2)) == ["new", "w-0"]
        assert store.exists("ends")
        assert store.collect(grace=60) == 0
        assert store.acquire("dead", "heir", ttl=30).token > lease.token
        assert verify(store).findings == []


def test_the_end_of_a_workflow_counts_by_the_caller_s_clock(clocks: Clocks) -> None:
    assert abs(clocks.store.context.clock() - time.time()) < HOUR_S
