"""Sessions: a state that is stored as it changes, and recovered."""

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runic_redis import (
    AsyncRedisStore,
    ByRecoveryTime,
    CursorConflict,
    DecodeError,
    EveryBytes,
    EveryEvents,
    Fact,
    FactRef,
    InvalidArgument,
    Lease,
    LeaseLost,
    RedisStore,
    SnapshotNotFound,
    StoreError,
    StoreUnavailable,
    WorkflowNotFound,
    async_session,
    capabilities,
    event,
    session,
)
from runic_redis.contract import Capabilities
from runic_redis.protocol.effects import Batch, Command
from runic_redis.recovery import Since


@event("tests.added")
@dataclass(frozen=True)
class Added:
    number: int


@event("tests.kept")
@dataclass(frozen=True)
class Kept:
    value: Any


def total(state: int, event: Added) -> int:
    return state + event.number


def history(state: list[Any], event: Any) -> list[Any]:
    return [*state, event]


class LogStore:
    """A store with only the required methods."""

    def __init__(self) -> None:
        self.logs: dict[str, list[Any]] = {}
        self.saves = 0

    def save(self, workflow_id: str, log: list[Any]) -> None:
        self.logs[workflow_id] = list(log)
        self.saves += 1

    def load(self, workflow_id: str) -> list[Any]:
        try:
            return list(self.logs[workflow_id])
        except KeyError:
            raise WorkflowNotFound("nothing is saved", workflow_id=workflow_id) from None


class StreamOnlyStore(LogStore):
    """A store that appends and streams, without cursors."""

    def append(self, workflow_id: str, events: Any) -> int:
        self.logs.setdefault(workflow_id, []).extend(events)
        self.saves += 1
        return len(self.logs[workflow_id])

    def stream(self, workflow_id: str) -> Iterator[Any]:
        return iter(self.load(workflow_id))


@pytest.fixture(params=["log", "stream", "redis"])
def any_store(request: pytest.FixtureRequest, namespace: str) -> Iterator[Any]:
    if request.param == "redis":
        with RedisStore.from_url(f"memory://{namespace}", namespace=namespace) as store:
            yield store
    else:
        yield LogStore() if request.param == "log" else StreamOnlyStore()


def test_the_least_store_has_no_capabilities() -> None:
    assert capabilities(LogStore()) == Capabilities(
        stream=False,
        cursors=False,
        snapshots=False,
        facts=False,
        encoding=False,
        messages=False,
        timers=False,
        tags=False,
    )
    assert capabilities(StreamOnlyStore()).stream
    for store in (RedisStore, AsyncRedisStore):
        can = capabilities(store)
        assert can.stream
        assert can.cursors
        assert can.snapshots
        assert can.facts
        assert can.encoding
        assert can.messages
        assert can.timers


@pytest.mark.parametrize("kind", [LogStore, StreamOnlyStore])
def test_a_store_without_inboxes_and_timers_says_so(kind: type) -> None:
    with session(kind(), "w", total, 0) as one:
        for call in (one.inbox, lambda: one.sleep(1), lambda: one.record(Added(1), consumes="a message")):
            with pytest.raises(InvalidArgument, match="the store has no"):
                call()
        assert (one.state, one.workflow_id, one.lease) == (0, "w", None)
        one.record(Added(1))
    assert one.store.load("w") == [Added(1)]


def test_a_session_goes_on_where_the_last_one_was(any_store: Any) -> None:
    with session(any_store, "w", total, 0) as first:
        assert (first.state, first.cursor) == (0, 0)
        first.record(Added(1), Added(2))
        first.record(Added(3))
        assert (first.state, first.cursor, first.pending) == (6, 3, ())
    with session(any_store, "w", total, 0) as second:
        assert (second.state, second.cursor) == (6, 3)
        recovery = second.recovery
        assert (recovery.cursor, recovery.replayed, recovery.snapshot_cursor) == (3, 3, None)
        assert recovery.seconds > 0
        assert recovery.snapshot_problem is None
        second.record(Added(4))
    with session(any_store, "w", total, 0) as third:
        assert third.state == 10


@pytest.mark.parametrize(("checkpoint", "persisted"), [("cycle", 5), (2, 4), (3, 3), ("completion", 0), ("manual", 0)])
def test_an_exception_keeps_what_was_checkpointed_and_nothing_else(
    any_store: Any, checkpoint: Any, persisted: int
) -> None:
    with (
        pytest.raises(RuntimeError),
        session(any_store, "w", history, list, checkpoint=checkpoint) as one,
    ):
        for number in range(5):
            one.record(Added(number))
        assert (len(one.state), one.cursor, len(one.pending)) == (5, persisted, 5 - persisted)
        raise RuntimeError
    with session(any_store, "w", history, list) as again:
        assert again.state == [Added(number) for number in range(persisted)]


@pytest.mark.parametrize(("checkpoint", "persisted"), [("cycle", 5), (2, 5), ("completion", 5), ("manual", 0)])
def test_leaving_persists_the_rest_unless_all_is_left_to_the_caller(
    any_store: Any, checkpoint: Any, persisted: int
) -> None:
    with session(any_store, "w", history, list, checkpoint=checkpoint) as one:
        for number in range(5):
            one.record(Added(number))
    with session(any_store, "w", history, list) as again:
        assert len(again.state) == persisted


def test_manual_checkpoints_are_whole_commits(any_store: Any) -> None:
    with session(any_store, "w", history, list, checkpoint="manual") as one:
        one.record(Added(1))
        one.record(Added(2))
        one.checkpoint()
        one.checkpoint()
        one.record(Added(3))
    with session(any_store, "w", history, list) as again:
        assert again.state == [Added(1), Added(2)]


def test_a_checkpoint_is_one_commit(store: RedisStore) -> None:
    with session(store, "w", total, 0, checkpoint=3) as one:
        for number in range(6):
            one.record(Added(number))
    key = store.context.keys.workflow("w").events
    assert store._sender.ask(Batch([Command(("XLEN", key), key)])) == [2]
    assert store.cursor("w") == 6


def test_completing_persists_and_marks_the_end(store: RedisStore) -> None:
    lease = store.acquire("w", "me")
    with session(store, "w", total, 0, checkpoint="completion", lease=lease) as one:
        one.record(Added(1))
        assert store.cursor("w") == 0
        one.complete()
        assert store.cursor("w") == 1
    store.release(lease)
    assert store.claim("you") == []


def test_an_event_that_cannot_be_applied_is_not_recorded(any_store: Any) -> None:
    with session(any_store, "w", total, 0) as one:
        one.record(Added(1))
        with pytest.raises(AttributeError):
            one.record(Added(2), {"no": "number"})
        assert (one.state, one.pending) == (1, ())
        one.record(Added(3))
    with session(any_store, "w", total, 0) as again:
        assert again.state == 4


def test_events_of_another_writer_end_the_session(store: RedisStore) -> None:
    with pytest.raises(CursorConflict), session(store, "w", total, 0) as one:
        store.append("w", [Added(1)])
        one.record(Added(2))
    with session(store, "w", total, 0) as again:
        assert again.state == 1


def test_a_session_that_failed_takes_nothing_more(store: RedisStore) -> None:
    with session(store, "w", total, 0) as one:
        store.append("w", [Added(1)])
        with pytest.raises(CursorConflict):
            one.record(Added(2))
        for call in (lambda: one.record(Added(3)), one.checkpoint, one.complete):
            with pytest.raises(StoreError, match="enter another"):
                call()
    assert list(store.stream("w")) == [Added(1)]


def test_a_session_is_used_while_it_is_entered(store: RedisStore) -> None:
    one = session(store, "w", total, 0)
    with pytest.raises(StoreError, match="not been entered"):
        one.record(Added(1))
    with pytest.raises(StoreError, match="not been entered"):
        _ = one.recovery
    with one:
        pass
    with pytest.raises(StoreError, match="is over"):
        one.record(Added(1))


def test_a_lease_that_is_lost_ends_the_session(store: RedisStore) -> None:
    stale = store.acquire("w", "me")
    with pytest.raises(LeaseLost), session(store, "w", total, 0, lease=stale, snapshots=EveryEvents(1)) as one:
        one.record(Added(1))
        store.acquire("w", "me")
        one.record(Added(2))
    assert store.cursor("w") == 1


def test_a_store_without_leases_is_refused_one() -> None:
    with pytest.raises(InvalidArgument, match="the store has no leases"):
        session(StreamOnlyStore(), "w", total, 0, lease=Lease("w", "me", 1, 1.0))


# Snapshots


def test_from_a_snapshot_only_what_came_after_is_replayed(store: RedisStore) -> None:
    with session(store, "w", history, list, snapshots=EveryEvents(4)) as one:
        for number in range(10):
            one.record(Added(number))
    assert store.load_snapshot("w")[0] == 8
    with session(store, "w", history, list) as again:
        assert again.state == [Added(number) for number in range(10)]
        assert (again.recovery.snapshot_cursor, again.recovery.replayed) == (8, 2)


def test_events_since_the_snapshot_count_across_sessions(store: RedisStore) -> None:
    for number in range(7):
        with session(store, "w", total, 0, snapshots=EveryEvents(3)) as one:
            one.record(Added(number))
    assert store.load_snapshot("w")[0] == 6


def test_by_bytes_a_snapshot_comes_with_their_sum(store: RedisStore) -> None:
    data = random.Random(1).randbytes  # compressible data counts with its compressed size
    with session(store, "w", history, list, snapshots=EveryBytes(10_000)) as one:
        one.record({"data": data(4_500)})
        one.record({"data": data(4_500)})
        with pytest.raises(SnapshotNotFound):
            store.load_snapshot("w")
    with session(store, "w", history, list, snapshots=EveryBytes(10_000)) as one:
        one.record({"data": bytes(100_000)})
        with pytest.raises(SnapshotNotFound):
            store.load_snapshot("w")
        one.record({"data": data(1_100)})
        assert store.load_snapshot("w")[0] == 4
        one.record({"data": data(9_000)})
        assert store.load_snapshot("w")[0] == 4


def test_never_is_the_default(store: RedisStore) -> None:
    with session(store, "w", total, 0) as one:
        for number in range(100):
            one.record(Added(number))
    with pytest.raises(SnapshotNotFound):
        store.load_snapshot("w")


def test_by_recovery_time_the_time_of_applying_counts() -> None:
    policy = ByRecoveryTime(2.0)
    assert not policy.due(Since(events=10**6, event_bytes=10**9, recovery_s=1.9))
    assert policy.due(Since(recovery_s=2.0))


def test_a_session_measures_what_recovery_would_take(store: RedisStore) -> None:
    measured: list[Since] = []

    class Watching:
        def due(self, since: Since, /) -> bool:
            measured.append(replace(since))
            return len(measured) == 3

    with session(store, "w", total, 0, snapshots=Watching()) as one:
        for number in range(5):
            one.record(Added(number))
    assert [since.events for since in measured] == [1, 2, 3, 1, 2]
    assert 0 < measured[0].recovery_s < measured[1].recovery_s < measured[2].recovery_s
    assert measured[3].recovery_s < measured[2].recovery_s


@pytest.mark.parametrize("recovered", [0, 200])
def test_by_recovery_time_a_snapshot_is_due_at_the_event_that_reaches_it(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, recovered: int
) -> None:
    now_s = 0.0

    def slow(state: int, one: Any) -> int:
        nonlocal now_s
        now_s += 1.0  # only applying an event takes time
        return total(state, one)

    monkeypatch.setattr("runic_redis.recovery.session_core.time.perf_counter", lambda: now_s)
    if recovered:
        store.append("w", [Added(number) for number in range(recovered)])
    due = recovered + 3
    with session(store, "w", slow, 0, snapshots=ByRecoveryTime(float(due))) as one:
        for number in range(2 * due - recovered - 1):
            one.record(Added(number))
            snapshot = store.load_snapshot("w")[0] if one.cursor >= due else None
            assert snapshot == (due if one.cursor >= due else None)
        one.record(Added(0), Added(0))
        assert store.load_snapshot("w")[0] == one.cursor == 2 * due + 1


@pytest.mark.parametrize("policy", [EveryEvents, EveryBytes, ByRecoveryTime])
@pytest.mark.parametrize("value", [0, -1, "1", True])
def test_a_policy_of_nothing_is_refused(policy: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(InvalidArgument):
        policy(value)


def test_the_state_is_encoded_as_the_user_likes(store: RedisStore) -> None:
    options: dict[str, Any] = {"dumps": lambda state: b"%d" % state, "loads": int, "snapshots": EveryEvents(1)}
    with session(store, "w", total, 0, **options) as one:
        one.record(Added(41))
    assert store.load_snapshot("w") == (1, b"41")
    with session(store, "w", total, 0, **options) as again:
        assert (again.state, again.recovery.replayed) == (41, 0)
        again.record(Added(1))
    with pytest.raises(InvalidArgument, match="go together"):
        session(store, "w", total, 0, dumps=lambda state: b"")


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x93\x01"])
def test_a_snapshot_that_cannot_be_read_is_reported_and_the_events_replayed(
    store: RedisStore, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with session(store, "w", total, 0) as one:
        one.record(Added(1), Added(2))
    store.save_snapshot("w", 2, damage)
    with caplog.at_level(logging.WARNING, "runic_redis"), session(store, "w", total, 0) as again:
        assert again.state == 3
        assert (again.recovery.snapshot_cursor, again.recovery.replayed) == (None, 2)
        assert again.recovery.snapshot_problem is not None
    assert "cannot be read" in caplog.text


def test_without_snapshot_and_events_there_is_no_state_to_go_on_from(store: RedisStore) -> None:
    with session(store, "w", total, 0, snapshots=EveryEvents(2), keep=0) as one:
        one.record(Added(1), Added(2))
    with (
        pytest.raises(DecodeError, match=r"cannot be read.*have been trimmed") as caught,
        session(store, "w", total, 0, dumps=lambda _: b"", loads=lambda _: 1 // 0),
    ):
        pass
    assert "ZeroDivisionError" in str(caught.value)


def test_an_unavailable_store_is_no_unreadable_snapshot(store: RedisStore) -> None:
    def unavailable(_: bytes) -> int:
        raise StoreUnavailable("gone")

    store.append("w", [Added(1)], snapshot=b"")
    with pytest.raises(StoreUnavailable), session(store, "w", total, 0, dumps=lambda _: b"", loads=unavailable):
        pass


def test_after_a_snapshot_all_but_the_last_events_are_trimmed(store: RedisStore) -> None:
    with session(store, "w", total, 0, snapshots=EveryEvents(10), keep=3) as one:
        for number in range(25):
            one.record(Added(number))
    assert store.load_snapshot("w")[0] == 20
    assert [record.cursor for record in store.stream_records("w", after=17)] == list(range(18, 26))
    with session(store, "w", total, 0) as again:
        assert again.state == sum(range(25))


def test_a_state_may_hold_references(store: RedisStore) -> None:
    with session(store, "w", history, list, snapshots=EveryEvents(1)) as one:
        one.record(Kept(Fact("large" * 100)))
    with session(store, "w", history, list) as again:
        (kept,) = again.state
        assert again.recovery.replayed == 0
        assert isinstance(kept.value, FactRef)
        assert store.load_fact(kept.value.hash) == "large" * 100


_numbers = itertools.count()


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.lists(st.lists(st.integers(-5, 5), max_size=3), max_size=12),
    checkpoint=st.sampled_from(["cycle", 1, 2, 5, "completion", "manual"]),
    every=st.none() | st.integers(1, 6),
    keep=st.none() | st.integers(0, 4),
    crash_after=st.none() | st.integers(0, 12),
)
def test_what_is_recovered_is_what_was_persisted(
    numbers: list[list[int]], checkpoint: Any, every: int | None, keep: int | None, crash_after: int | None
) -> None:
    """With each strategy, the state after a crash is the fold of the events up to its cursor."""
    namespace = f"sessions-{next(_numbers)}"
    snapshots = None if every is None else EveryEvents(every)
    recorded = []
    with RedisStore.from_url(f"memory://{namespace}", namespace=namespace, partitions=1) as store:
        try:
            with session(store, "w", total, 0, checkpoint=checkpoint, snapshots=snapshots, keep=keep) as one:
                for cycle, some in enumerate(numbers):
                    if cycle == crash_after:
                        raise RuntimeError
                    one.record(*map(Added, some))
                    recorded += some
                    assert one.state == sum(recorded)
                    assert one.cursor + len(one.pending) == len(recorded)
        except RuntimeError:
            pass
        with session(store, "w", total, 0) as again:
            assert again.cursor == one.cursor
            assert again.state == sum(recorded[: again.cursor])


@pytest.mark.parametrize("checkpoint", [0, -1, True, "often", 1.5])
def test_an_unknown_strategy_is_refused(store: RedisStore, checkpoint: Any) -> None:
    with pytest.raises(InvalidArgument, match="checkpoint is"):
        session(store, "w", total, 0, checkpoint=checkpoint)


# asyncio


class AsyncLogStore:
    """The smallest store for asyncio."""

    def __init__(self) -> None:
        self.store = LogStore()

    async def save(self, workflow_id: str, log: list[Any]) -> None:
        self.store.save(workflow_id, log)

    async def load(self, workflow_id: str) -> list[Any]:
        return self.store.load(workflow_id)


class AsyncStreamOnlyStore(AsyncLogStore):
    async def append(self, workflow_id: str, events: Any) -> int:
        self.store.logs.setdefault(workflow_id, []).extend(events)
        return len(self.store.logs[workflow_id])

    async def stream(self, workflow_id: str) -> AsyncIterator[Any]:
        for one in self.store.load(workflow_id):
            yield one


@pytest.mark.parametrize("kind", ["log", "stream", "redis"])
def test_a_session_for_asyncio_does_the_same(kind: str, namespace: str) -> None:
    async def check(store: Any) -> None:
        async with async_session(store, "w", total, 0, checkpoint=2, snapshots=EveryEvents(2), keep=1) as first:
            for number in range(1, 6):
                await first.record(Added(number))
            assert (first.state, first.cursor) == (15, 4)
        with pytest.raises(RuntimeError):
            async with async_session(store, "w", total, 0, checkpoint="manual") as second:
                assert second.state == 15
                await second.record(Added(100))
                await second.checkpoint()
                await second.record(Added(1000))
                raise RuntimeError
        async with async_session(store, "w", total, 0) as third:
            assert third.state == 115
            assert third.recovery.snapshot_cursor == (4 if kind == "redis" else None)
            await third.complete()

    async def main() -> None:
        if kind == "redis":
            async with AsyncRedisStore.from_url(f"memory://{namespace}", namespace=namespace) as store:
                await check(store)
        else:
            await check(AsyncLogStore() if kind == "log" else AsyncStreamOnlyStore())

    asyncio.run(main())
