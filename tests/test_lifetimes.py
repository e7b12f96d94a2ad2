"""The lifetimes of workflows: `expire`, `persist` and `append(expires_in=)`, in every state; and those that slide.

The tests set both clocks, so none waits.
"""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runic_redis import (
    CursorConflict,
    Fact,
    FactNotFound,
    FactRef,
    InvalidArgument,
    InvalidType,
    LeaseLost,
    RedisStore,
    SnapshotNotFound,
    WorkflowNotFound,
)
from runic_redis.admin.describing import describe_one
from runic_redis.operations import ending
from runic_redis.operations.counting import count_states
from runic_redis.protocol.effects import Batch, Command, key_command
from runic_redis.protocol.refusals import ask
from tests.clocks import shifted
from tests.servers import RunningServer
from tests.test_archives import export, load
from tests.test_clock_steps import HOUR_S, Clocks
from tests.test_verifying import verify

pytestmark = pytest.mark.usefixtures("few_buckets")

DAY_S = 24 * HOUR_S


@pytest.fixture(params=["memory", "valkey", "redis_6_2"])
def clocks(request: pytest.FixtureRequest, namespace: str) -> Iterator[Clocks]:
    server: Any = f"memory://{namespace}" if request.param == "memory" else request.getfixturevalue(request.param)
    with (
        shifted(server) as clock,
        RedisStore.from_url(clock.url, namespace=namespace, partitions=1) as store,
    ):
        yield Clocks(store, clock)


def raw(store: RedisStore, *words: str) -> Any:
    """Return the reply to a command about the key that is its second word."""
    return store.run(ask(key_command(*words)), "look")


def names_of(store: RedisStore) -> list[str]:
    """Return the keys that are about a workflow, and those with it as a member."""
    keys = store.context.keys.workflow("w")
    own = (keys.events, keys.meta, keys.snapshot, keys.log, keys.commits, keys.refs, keys.inbox, keys.messages)
    there = [key for key in own if raw(store, "EXISTS", key)]
    sets = (keys.index, keys.leases, keys.parked, keys.expiring, keys.completed, keys.queue("default"))
    return there + [key for key in sets if raw(store, "ZSCORE", key, "w") is not None]


def leave_open(store: RedisStore) -> None:
    store.append("w", [{"n": 1}])


def have_queued(store: RedisStore) -> None:
    store.append("w", [{"n": 1}], queue="default")


def have_leased(store: RedisStore) -> None:
    store.append("w", [{"n": 1}])
    store.acquire("w", "me", ttl=DAY_S)


def have_parked(store: RedisStore) -> None:
    store.append("w", [{"n": 1}], queue="default")
    store.park("w", "declined")


def have_completed(store: RedisStore) -> None:
    store.append("w", [{"n": 1}])
    store.complete("w")


def have_everything(store: RedisStore) -> None:
    store.append("w", [{"n": 1}, {"f": Fact(1)}], commit_id="c", snapshot=b"state", queue="default", due=1000)
    store.save("w", [{"f": Fact(2)}])


STATES = pytest.mark.parametrize(
    "make", [leave_open, have_queued, have_leased, have_parked, have_completed, have_everything]
)


# Every state


@STATES
def test_a_workflow_in_any_state_ends_with_everything_that_belongs_to_it(
    clocks: Clocks, make: Callable[[RedisStore], None]
) -> None:
    store = clocks.store
    make(store)
    store.expire("w", 60)
    clocks.step_both(59)
    assert store.exists("w")
    clocks.step_both(2)
    assert not store.exists("w")
    assert names_of(store) == []
    assert list(store.list()) == []
    assert store.claim("other") == []
    assert sum(store.run(count_states(store.context), "count").values()) == 0


@STATES
@pytest.mark.parametrize("met_by", ["list", "collect", "claim", "count", "append"])
def test_whoever_meets_the_end_first_settles_it(
    clocks: Clocks, make: Callable[[RedisStore], None], met_by: str
) -> None:
    store = clocks.store
    make(store)
    store.expire("w", 60)
    clocks.step_both(DAY_S + HOUR_S)
    {
        "list": lambda: list(store.list()),
        "collect": lambda: store.collect(grace=0),
        "claim": lambda: store.claim("other", 10),
        "count": lambda: store.run(count_states(store.context), "count"),
        "append": lambda: store.append("w", [{"n": 7}], expected_cursor=0),
    }[met_by]()
    assert store.cursor("w") == (1 if met_by == "append" else 0)
    if met_by != "append":
        assert names_of(store) == []


def test_a_claim_does_not_return_a_workflow_that_is_over(clocks: Clocks) -> None:
    store = clocks.store
    for name in ("over", "alive"):
        store.append(name, [{}], queue="default")
    store.expire("over", 60)
    clocks.step_both(61)
    assert [lease.workflow_id for lease in store.claim("me", 10)] == ["alive"]
    assert not store.exists("over")


WRITES: dict[str, Callable[[RedisStore, Any], Any]] = {
    "append": lambda store, lease: store.append("w", [{}], lease=lease),
    "save": lambda store, lease: store.save("w", [{}], lease=lease),
    "save_snapshot": lambda store, lease: store.save_snapshot("w", 0, b"", lease=lease),
    "renew": lambda store, lease: store.renew(lease),
    "complete": lambda store, lease: store.complete("w", lease=lease),
    "trim": lambda store, lease: store.trim("w", lease=lease),
    "park": lambda store, lease: store.park(lease, "declined"),
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_write_under_the_lease_of_a_workflow_that_is_over_fails_and_changes_nothing(
    clocks: Clocks, name: str, is_deleted: bool
) -> None:
    store = clocks.store
    store.append("w", [{"n": 1}])
    lease = store.acquire("w", "me", ttl=DAY_S)
    store.expire("w", 60)
    clocks.step_both(61)
    if is_deleted:
        assert list(store.list()) == []
    with pytest.raises(LeaseLost, match="has expired"):
        WRITES[name](store, lease)
    assert not store.exists("w")
    store.release(lease)
    assert names_of(store) == []


def test_writes_to_a_workflow_in_a_queue_other_than_the_default_one_settle_its_end(clocks: Clocks) -> None:
    store = clocks.store
    store.append("w", [{"n": 1}], queue="orders")
    store.expire("w", 60)
    clocks.step_both(61)
    assert store.append("w", [{"n": 2}]) == 1
    assert raw(store, "ZCARD", store.context.keys.workflow("w").queue("orders")) == 0
    assert store.claim("me", queues=["orders"]) == []


# Setting an end, and removing it


def test_persist_undoes_expire(clocks: Clocks) -> None:
    store = clocks.store
    store.append("w", [{}])
    for sliding in (False, True):
        store.expire("w", 60, sliding=sliding)
        store.persist("w")
        store.persist("w")
        clocks.step_both(DAY_S)
        assert list(store.list()) == ["w"]
        about = store.run(describe_one(store.context, "w"), "show")
        assert (about.expires, about.sliding_s) == (None, None)
        assert raw(store, "HMGET", store.context.keys.workflow("w").meta, "expires", "sliding") == [None, None]
        assert raw(store, "ZCARD", store.context.keys.workflow("w").expiring) == 0


def test_there_must_be_a_workflow(clocks: Clocks) -> None:
    store = clocks.store
    for call in (store.persist, lambda name: store.expire(name, 60), lambda name: store.expire(name, 60, sliding=True)):
        with pytest.raises(WorkflowNotFound):
            call("w")
        store.append("over", [{}])
        store.expire("over", 60)
        clocks.step_both(61)
        with pytest.raises(WorkflowNotFound):
            call("over")
    assert list(store.list()) == []


def test_a_later_lifetime_replaces_an_earlier_one(clocks: Clocks) -> None:
    store = clocks.store
    store.append("w", [{}])
    store.expire("w", 60)
    store.expire("w", 600, sliding=True)
    clocks.step_both(300)
    assert store.exists("w")
    store.expire("w", 60)
    store.append("w", [{}])
    clocks.step_both(61)
    assert not store.exists("w"), "it still slides"


def test_the_end_is_shown(clocks: Clocks) -> None:
    store = clocks.store
    store.append("w", [{}])
    about = store.run(describe_one(store.context, "w"), "show")
    assert (about.expires, about.sliding_s) == (None, None)
    store.expire("w", 60)
    about = store.run(describe_one(store.context, "w"), "show")
    assert about.written is not None
    assert about.expires is not None
    assert timedelta(seconds=59) < about.expires - about.written < timedelta(seconds=90)
    assert about.sliding_s is None
    store.expire("w", 1000, sliding=True)
    clocks.step_both(500)
    store.append("w", [{}])
    about = store.run(describe_one(store.context, "w"), "show")
    assert about.written is not None
    assert about.expires is not None
    assert timedelta(0) <= about.expires - about.written - timedelta(seconds=1000) < timedelta(milliseconds=2)
    assert about.sliding_s == 1000


# In a commit


def test_a_commit_may_give_its_workflow_a_lifetime(clocks: Clocks) -> None:
    store = clocks.store
    assert store.append("w", [{"n": 1}], expires_in=60, expected_cursor=0) == 1
    clocks.step_both(40)
    assert store.append("w", [{"n": 2}]) == 2
    clocks.step_both(19)
    assert store.exists("w")
    clocks.step_both(2)
    assert not store.exists("w")
    assert names_of(store) == []


def test_a_commit_with_everything_may_give_a_lifetime(clocks: Clocks) -> None:
    store = clocks.store
    lease = store.acquire("w", "me")
    given = {"lease": lease, "snapshot": b"s", "queue": "default", "due": 5, "commit_id": "c", "metadata": {"k": 1}}
    events = [{"f": Fact(1)}, {"f": Fact(2)}]
    assert store.append("w", events, expires_in=60, **given) == 2
    assert store.append("w", events, expires_in=6000, **given) == 2, "it was stored before"
    assert store.load_snapshot("w") == (2, b"s")
    assert [store.load_fact(event["f"].hash) for event in store.stream("w")] == [1, 2]
    clocks.step_both(61)
    assert not store.exists("w")
    assert names_of(store) == []
    assert store.collect(0) == 2


def test_a_commit_replaces_a_lifetime(clocks: Clocks) -> None:
    store = clocks.store
    store.append("w", [{}], expires_in=60)
    store.append("w", [{}], expires_in=600)
    clocks.step_both(300)
    assert store.exists("w")
    store.expire("w", 60, sliding=True)
    store.append("w", [{}], expires_in=600)
    clocks.step_both(599)
    assert store.cursor("w") == 3
    store.append("w", [{}])
    clocks.step_both(2)
    assert not store.exists("w")


def test_a_commit_after_the_end_gives_a_lifetime_to_another_workflow(clocks: Clocks) -> None:
    store = clocks.store
    store.append("w", [{"n": 1}], expires_in=60)
    clocks.step_both(61)
    assert store.append("w", [{"n": 2}], expires_in=60) == 1
    clocks.step_both(59)
    assert list(store.stream("w")) == [{"n": 2}]
    clocks.step_both(2)
    assert not store.exists("w")


def test_a_rejected_commit_gives_no_lifetime(clocks: Clocks) -> None:
    store = clocks.store
    store.append("w", [{}])
    with pytest.raises(CursorConflict):
        store.append("w", [{}], expires_in=60, expected_cursor=0)
    with pytest.raises(FactNotFound):
        store.append("w", [{"f": Fact(1)}, {"f": FactRef("gone")}], expires_in=60)
    clocks.step_both(DAY_S)
    assert list(store.list()) == ["w"]


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan"), "60", True, 10**12, timedelta(seconds=1)])
def test_a_lifetime_is_a_number_of_seconds(clocks: Clocks, seconds: Any) -> None:
    store = clocks.store
    store.append("w", [{}])
    for call in (
        lambda: store.append("w", [{}], expires_in=seconds),
        lambda: store.expire("w", seconds),
        lambda: store.expire("w", seconds, sliding=True),
    ):
        with pytest.raises((InvalidArgument, InvalidType), match="nothing was sent"):
            call()
    with pytest.raises(InvalidArgument, match=r"[Nn]othing was sent"):
        store.append("w", [], expires_in=60)
    assert store.cursor("w") == 1
    assert raw(store, "HGET", store.context.keys.workflow("w").meta, "expires") is None


# Lifetimes that slide


TOUCHES: dict[str, Callable[[RedisStore], Any]] = {
    "append": lambda store: store.append("w", [{}]),
    "append_many": lambda store: store.append_many([("w", [{}]), ("other", [{}]), ("w", [{}])]),
    "append with a snapshot": lambda store: store.append("w", [{}], snapshot=b"later"),
    "save": lambda store: store.save("w", []),
    "save_snapshot": lambda store: store.save_snapshot("w", store.cursor("w"), b"later"),
}


@pytest.mark.parametrize("name", TOUCHES)
def test_each_write_extends_a_lifetime_that_slides(clocks: Clocks, name: str) -> None:
    store = clocks.store
    store.save_snapshot("w", 0, b"state")
    store.expire("w", 60, sliding=True)
    for _ in range(4):
        clocks.step_both(45)
        TOUCHES[name](store)
    clocks.step_both(59)
    assert store.exists("w")
    clocks.step_both(2)
    assert not store.exists("w")
    assert names_of(store) == []


def conflict(store: RedisStore) -> None:
    with pytest.raises(CursorConflict):
        store.append("w", [{}], expected_cursor=9)


NO_TOUCHES: dict[str, Callable[[RedisStore], Any]] = {
    "a read": lambda store: (list(store.stream("w")), store.load_snapshot("w"), store.cursor("w")),
    "an empty commit": lambda store: store.append("w", []),
    "a conflict": conflict,
    "a known commit": lambda store: store.append("w", [{}], commit_id="c"),
    "trim": lambda store: store.trim("w", keep=100),
    "a lease": lambda store: store.release(store.acquire("w", "me")),
    "list": lambda store: list(store.list()),
}


@pytest.mark.parametrize("name", NO_TOUCHES)
def test_nothing_else_extends_it(clocks: Clocks, name: str) -> None:
    store = clocks.store
    store.append("w", [{}], commit_id="c", snapshot=b"state")
    store.expire("w", 60, sliding=True)
    clocks.step_both(45)
    NO_TOUCHES[name](store)
    clocks.step_both(16)
    assert not store.exists("w")


READERS: dict[str, Callable[[RedisStore], Any]] = {
    "exists": lambda store: store.exists("w"),
    "cursor": lambda store: store.cursor("w"),
    "stream": lambda store: list(store.stream("w")),
    "stream since": lambda store: list(store.stream("w", reverse=True)),
    "load_snapshot": lambda store: store.load_snapshot("w"),
    "load": lambda store: store.load("w"),
    "list": lambda store: list(store.list()) == ["w"] or None,
    "read_many": lambda store: store.read_many([("w", 0, None)])[0][0],
    "claim": lambda store: store.claim("me")[0],
    "acquire": lambda store: store.acquire("w", "me"),
    "renew": lambda store: store.renew(store.acquire("w", "me")) or True,
    "complete": lambda store: store.complete("w") or True,
    "trim": lambda store: store.trim("w", keep=100) == 0,
    "park": lambda store: store.park("w", "declined") or True,
    "expire": lambda store: store.expire("w", 60, sliding=True) or True,
    "persist": lambda store: store.persist("w") or True,
    "collect": lambda store: store.collect(grace=0) == 0,
    "count": lambda store: sum(store.run(count_states(store.context), "count").values()) == 1,
    "append": lambda store: store.append("w", [{}], expected_cursor=2),
}


@pytest.mark.parametrize("name", READERS)
def test_everything_finds_a_workflow_that_a_write_has_kept(clocks: Clocks, name: str) -> None:
    store = clocks.store
    store.append("w", [{}], queue="default", snapshot=b"state")
    store.save("w", [{}])
    store.expire("w", 60, sliding=True)
    clocks.step_both(45)
    store.append("w", [{}])
    before = raw(store, "HGETALL", store.context.keys.workflow("w").meta)
    clocks.step_both(30)
    # `expires` of the meta hash is reached, and the end is not.
    assert READERS[name](store)
    assert store.cursor("w") >= 2
    assert raw(store, "HGETALL", store.context.keys.workflow("w").meta) != before
    clocks.step_both(HOUR_S)
    assert store.exists("w") == (name == "persist")


def test_writes_cost_nothing_more_until_the_end_was_reached(clocks: Clocks) -> None:
    store = clocks.store
    sizes: list[int] = []
    store.append("w", [{}])
    store.expire("w", 60, sliding=True)
    honest = store._sender.ask

    def counting(batch: Batch) -> list[Any]:
        sizes.append(len(batch.commands))
        return honest(batch)

    store._sender.ask = counting  # type: ignore[method-assign]
    for _ in range(10):
        clocks.step_both(5)
        store.append("w", [{}])
    assert sizes == [1] * 10
    clocks.step_both(15)
    store.append("w", [{}])
    assert len(sizes) > 11, "the end was not settled"
    del sizes[:]
    store.append("w", [{}])
    assert sizes == [1]


def test_facts_stay_as_long_as_a_workflow_that_slides(clocks: Clocks) -> None:
    store = clocks.store
    store.append("w", [{"f": Fact("kept")}])
    store.expire("w", 60, sliding=True)
    (event,) = store.stream("w")
    for _ in range(3):
        clocks.step_both(45)
        store.append("w", [{}])
        clocks.step_both(10)
        assert store.collect(grace=0) == 0
    assert store.load_fact(event["f"].hash) == "kept"
    clocks.step_both(61)
    assert store.collect(grace=0) == 1


# Two clocks


@pytest.mark.parametrize("which", ["server", "caller"])
@pytest.mark.parametrize("step_s", [HOUR_S, DAY_S])
def test_no_single_clock_ends_a_lifetime_that_slides(clocks: Clocks, which: str, step_s: float) -> None:
    store = clocks.store
    store.append("w", [{"n": 1}], snapshot=b"state", queue="default")
    store.expire("w", 60, sliding=True)
    (clocks.server.step if which == "server" else clocks.step_caller)(step_s)
    assert store.exists("w")
    assert list(store.list()) == ["w"]
    assert store.collect(0) == 0
    assert list(store.stream("w")) == [{"n": 1}]
    assert store.append("w", [{"n": 2}]) == 2
    assert len(store.claim("me")) == 1
    assert store.append_many([("w", [{"n": 3}]), ("v", [{}]), ("w", [{"n": 4}])]) == [3, 1, 4]
    assert store.load_snapshot("w") == (1, b"state")


@pytest.mark.parametrize("late_s", [HOUR_S, 30.0])
def test_a_server_that_is_behind_while_it_is_written_to_ends_nothing_early(clocks: Clocks, late_s: float) -> None:
    store = clocks.store
    clocks.server.step(-late_s)
    store.append("w", [{"n": 1}])
    store.expire("w", 60, sliding=True)
    clocks.step_both(59)
    store.append("w", [{"n": 2}])
    clocks.server.step(late_s)
    clocks.step_both(59)
    assert store.cursor("w") == 2
    assert list(store.list()) == ["w"]
    clocks.step_both(2)
    assert not store.exists("w")


def test_a_server_that_is_set_back_and_forward_ends_nothing_early(clocks: Clocks) -> None:
    store = clocks.store
    store.save("w", [])
    store.expire("w", 60, sliding=True)
    for write in TOUCHES.values():
        clocks.step_both(30)
        clocks.server.step(-HOUR_S)
        clocks.step_both(15)
        write(store)
        clocks.server.step(HOUR_S)
        clocks.step_both(10)
        assert store.exists("w")
        assert "w" in list(store.list())
    clocks.step_both(61)
    assert not store.exists("w")


def test_a_write_while_one_clock_alone_has_reached_the_end_extends_the_lifetime(clocks: Clocks) -> None:
    for which in (clocks.server.step, clocks.step_caller):
        store = clocks.store
        store.append("w", [{}])
        store.expire("w", 60, sliding=True)
        which(61)
        store.append("w", [{}])
        which(-61)
        clocks.step_both(61)
        assert store.exists("w")
        clocks.step_both(HOUR_S)
        assert not store.exists("w")


# Races


def test_a_sweep_that_read_the_end_before_a_write_deletes_nothing(clocks: Clocks) -> None:
    """The sweep has decided that the workflow is over; then a client whose clock is behind writes to it."""
    store = clocks.store
    store.append("w", [{"n": 1}])
    store.expire("w", 60, sliding=True)
    clocks.step_both(61)
    sweep = ending.delete_ended(store.context, ["w"])
    reply: Any = None
    while True:
        batch = sweep.send(reply)
        assert isinstance(batch, Batch)
        if batch.commands[0].script is not None:
            break
        reply = store._sender.ask(batch)
    # This client's clock has not reached the end.
    behind = store.context.clock
    store.context.clock = lambda: behind() - 50
    assert store.append("w", [{"n": 2}]) == 2
    store.context.clock = behind
    with pytest.raises(StopIteration) as end:
        sweep.send(store._sender.ask(batch))
    assert end.value.value.left == []
    assert list(store.stream("w")) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("sliding", [False, True])
def test_writers_and_sweeps_at_the_same_time_lose_no_write(clocks: Clocks, sliding: bool) -> None:
    """Each write is in the workflow that it reported its cursor in, or that workflow has ended since."""
    store = clocks.store
    store.append("w", [{"n": 0}])
    store.expire("w", 60, sliding=sliding)
    problems: list[BaseException] = []
    stop = threading.Event()

    def sweep() -> None:
        try:
            while not stop.is_set():
                list(store.list())
                store.collect(grace=DAY_S)
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=sweep)
    thread.start()
    last = store.cursor("w")
    restarted = 0
    try:
        for number in range(60):
            clocks.step_both(25)
            cursor = store.append("w", [{"n": number}])
            assert cursor in {last + 1, 1}
            restarted += cursor == 1
            last = cursor
            if cursor == 1:
                store.expire("w", 60, sliding=sliding)
    finally:
        stop.set()
        thread.join()
    assert problems == []
    assert store.cursor("w") == last
    if sliding:
        assert restarted == 0
    else:
        assert restarted > 5


def test_concurrent_writers_keep_a_workflow_that_slides(clocks: Clocks) -> None:
    store = clocks.store
    store.append("w", [{}])
    store.expire("w", 60, sliding=True)
    problems: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(20):
                clocks.step_both(7)
                store.append("w", [{}])
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert store.cursor("w") == 121
    clocks.step_both(61)
    assert not store.exists("w")


def test_two_writers_that_settle_one_end_do_not_remove_it(clocks: Clocks) -> None:
    store = clocks.store
    store.append("w", [{}])
    store.expire("w", 60)
    clocks.server.step(HOUR_S)
    first, second = (ending.settle_end(store.context, "w") for _ in range(2))
    play(store, first)
    play(store, second)
    assert raw(store, "ZCARD", store.context.keys.workflow("w").expiring) == 1
    clocks.step_both(HOUR_S + 61)
    assert not store.exists("w")


def play(store: RedisStore, operation: Any) -> Any:
    reply = None
    while True:
        try:
            batch = operation.send(reply)
        except StopIteration as stop:
            return stop.value
        reply = store._sender.ask(batch)


def test_a_sweep_ends_though_many_workflows_cannot_be_deleted(valkey: RunningServer, namespace: str) -> None:
    with shifted(valkey) as clock, RedisStore.from_url(clock.url, namespace=namespace, partitions=1) as store:
        clocks = Clocks(store, clock)
        names = [f"w-{number}" for number in range(600)]
        store.append_many([(name, [{}]) for name in names])
        with valkey.client() as client:
            for name in names:
                store.expire(name, 60)
                if name != "w-599":
                    client.rpush(store.context.keys.workflow(name).log, "foreign")
        clocks.step_both(61)
        left = store.run(ending.sweep_ended(store.context, store.context.now_ms()), "sweep")
        assert sorted(left) == sorted(names[:-1])
        assert raw(store, "ZCARD", store.context.keys.workflow("w").expiring) == 599


def test_a_damaged_lifetime_ends_nothing(clocks: Clocks) -> None:
    store = clocks.store
    store.append("w", [{}])
    store.expire("w", 60, sliding=True)
    raw(store, "HSET", store.context.keys.workflow("w").meta, "sliding", "x")
    clocks.step_both(HOUR_S)
    assert store.exists("w")
    assert list(store.list()) == ["w"]
    assert store.collect(0) == 0


def test_a_snapshot_of_a_workflow_that_is_over_is_gone(clocks: Clocks) -> None:
    store = clocks.store
    store.append("w", [{}], snapshot=b"state", expires_in=60)
    clocks.step_both(61)
    with pytest.raises(SnapshotNotFound):
        store.load_snapshot("w")


def test_time_commands_go_to_the_node_of_the_workflow(clocks: Clocks) -> None:
    """In a cluster each node has its clock."""
    store = clocks.store
    store.append("w", [{}], expires_in=60)
    batch = next(ending.settle_end(store.context, "w"))
    assert isinstance(batch, Batch)
    assert [type(one) for one in batch.commands] == [Command, Command]
    assert {one.key for one in batch.commands} == {store.context.keys.workflow("w").meta}


def test_verify_repairs_a_lifetime_without_an_end(clocks: Clocks) -> None:
    store = clocks.store
    store.append("w", [{}])
    store.expire("w", 60, sliding=True)
    clocks.step_caller(5)
    store.append("w", [{}])
    assert verify(store).findings == []
    keys = store.context.keys.workflow("w")
    raw(store, "HDEL", keys.meta, "expires")
    raw(store, "ZREM", keys.expiring, "w")
    (finding,) = verify(store, repair=True).findings
    assert "no end" in finding.problem
    assert finding.repaired
    assert verify(store).findings == []


def test_an_archive_keeps_a_lifetime(clocks: Clocks, tmp_path: Path) -> None:
    store = clocks.store
    store.append("w", [{"n": 1}])
    store.expire("w", 60, sliding=True)
    clocks.step_both(45)
    store.append("w", [{"n": 2}])
    export(store, tmp_path / "archive")
    store.delete("w")
    assert load(store, tmp_path / "archive").problems == []
    clocks.step_both(30)
    assert list(store.list()) == ["w"]
    clocks.step_both(31)
    assert list(store.list()) == []
