"""`work` and `async_work`: the fate of a workflow whose handler returns, fails, sleeps, is cancelled or overtaken."""

import asyncio
import inspect
import itertools
import logging
import math
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runic_redis import (
    AsyncRedisStore,
    AsyncSession,
    ConfigurationError,
    CursorConflict,
    InvalidArgument,
    InvalidType,
    LeaseLost,
    RedisStore,
    StoreError,
    StoreUnavailable,
    WorkflowCancelled,
    async_work,
    handler,
    work,
)
from runic_redis.retries import retry_pause_s
from tests.faces import Face


def history(state: list[Any], event: Any) -> list[Any]:
    return [*state, event]


def numbers(store: RedisStore, workflow_id: str = "w") -> list[Any]:
    """Return the values of the events of a workflow."""
    return [value for event in store.stream(workflow_id) for value in event.values()]


def start(face: Face, workflow_id: str = "w", queue: str = "default", **options: Any) -> None:
    face.store.append(workflow_id, [{"n": 0}], expected_cursor=0, queue=queue, **options)


def outcomes(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log says of each run."""
    return [record.getMessage() for record in caplog.records if record.name == "runic_redis.work"]


def is_claimable(face: Face, workflow_id: str = "w") -> bool:
    leases = face.store.claim("another", 100)
    for lease in leases:
        face.store.release(lease)
    return workflow_id in [lease.workflow_id for lease in leases]


async def record(session: Any) -> None:
    await session.record({"n": 1})


async def fail(session: Any) -> None:
    raise ValueError("no")


def test_a_handler_that_returns_completes_the_workflow(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    start(face)
    seen = []

    async def handle(session: Any) -> None:
        seen.append((session.workflow_id, session.lease.attempt, session.state))
        await session.record({"n": 1}, {"n": 2})

    face.work(handle)
    assert seen == [("w", 1, [{"n": 0}])]
    assert numbers(face.store) == [0, 1, 2]
    assert not is_claimable(face)
    (line,) = outcomes(caplog)
    assert "'w'" in line
    assert "completed" in line


def test_a_failed_workflow_is_tried_again_with_the_events_that_it_recorded(face: Face) -> None:
    start(face)
    attempts = []

    async def handle(session: Any) -> None:
        attempts.append(session.lease.attempt)
        if len(attempts) < 3:
            raise ValueError("no")
        await session.record({"n": 1})

    face.work(handle)
    assert attempts == [1, 2, 3]
    assert numbers(face.store) == [0, 1]


def test_a_failed_workflow_is_due_after_a_pause(face: Face) -> None:
    start(face)
    calls = []

    async def handle(session: Any) -> None:
        calls.append(session.lease.attempt)
        raise ValueError("no")

    face.work(handle, first_delay=1000)
    assert calls == [1]
    assert not is_claimable(face)
    face.store.append("w", [{"n": 1}], queue="default")  # is due now
    face.work(handle, first_delay=1000, longest_delay=0)
    assert calls == [1, 2, 3, 4, 5], "and is parked then"


def test_pauses_double_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runic_redis.retries.random.uniform", lambda least, most: most)
    assert [retry_pause_s(count, 1.0, 5.0) for count in (1, 2, 3, 4, 9999)] == [1, 2, 4, 5, 5]
    monkeypatch.setattr("runic_redis.retries.random.uniform", lambda least, most: least)
    assert retry_pause_s(1, 1.0, 5.0) == 0.5


def test_the_last_attempt_parks_the_workflow_with_the_reason(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    start(face)
    face.work(fail, max_attempts=3)
    lines = outcomes(caplog)
    assert [line.partition(" s: ")[2].split(".")[0].split(",")[0] for line in lines] == ["failed", "failed", "parked"]
    assert "ValueError: no" in lines[-1]
    assert not is_claimable(face)
    face.store.unpark("w")
    assert is_claimable(face)


def test_a_commit_begins_a_new_count_of_attempts(face: Face) -> None:
    start(face)

    async def handle(session: Any) -> None:
        if len(session.state) < 6:
            await session.record({"n": len(session.state)})
            raise ValueError("no")

    face.work(handle, max_attempts=2)
    assert numbers(face.store) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(StoreError, match="completed"):
        face.store.park("w", "why")


def test_an_attempt_that_commits_is_no_last_attempt(face: Face) -> None:
    start(face)
    attempts = []

    async def handle(session: Any) -> None:
        attempts.append(session.lease.attempt)
        if len(attempts) == 2:
            await session.record({"n": 1})
        if len(attempts) < 4:
            raise ValueError("no")

    face.work(handle, max_attempts=2)
    assert attempts == [1, 2, 1, 2]


def test_some_exceptions_park_the_workflow_at_once(face: Face) -> None:
    start(face)
    calls = itertools.count(1)

    async def handle(session: Any) -> None:
        next(calls)
        raise KeyError("x" * 5000)  # the reason is cut

    face.work(handle, give_up_on=(LookupError,))
    assert next(calls) == 2
    assert not is_claimable(face)


def test_an_append_of_another_writer_begins_the_handler_again_at_once(face: Face) -> None:
    start(face)
    seen = []

    async def handle(session: Any) -> None:
        seen.append((session.lease.token, session.state))
        if len(seen) == 1:
            face.store.append("w", [{"n": "outside"}])
        await session.record({"n": 1})

    face.work(handle, max_attempts=1)
    (first, _), (second, state) = seen
    assert first == second, "under the same lease"
    assert state == [{"n": 0}, {"n": "outside"}]
    assert numbers(face.store) == [0, "outside", 1]


def test_a_handler_that_is_always_overtaken_has_failed(face: Face) -> None:
    start(face)
    calls = itertools.count()

    async def handle(session: Any) -> None:
        face.store.append("w", [{"n": next(calls)}])
        await session.record({"n": "never"})

    face.work(handle, max_attempts=1)
    assert 2 <= next(calls) <= 20
    assert not is_claimable(face)
    assert "never" not in numbers(face.store)


def test_a_conflict_at_another_workflow_is_a_failure(face: Face) -> None:
    start(face)
    attempts = []

    async def handle(session: Any) -> None:
        attempts.append(session.lease.attempt)
        face.store.append("other", [{"n": 1}], expected_cursor=7)

    face.work(handle, max_attempts=2)
    assert attempts == [1, 2]


def test_a_worker_that_loses_its_lease_stores_nothing_more(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    start(face)
    errors: list[Exception] = []

    async def handle(session: Any) -> None:
        if not errors:
            taken = face.store.acquire("w", session.lease.owner)
            try:
                await session.record({"n": "never"})
            except LeaseLost as error:
                errors.append(error)
                face.store.release(taken)
                raise
        await session.record({"n": 1})

    face.work(handle, max_attempts=2)
    assert numbers(face.store) == [0, 1]
    assert "lost" in outcomes(caplog)[0]


def test_a_request_to_cancel_is_raised_at_the_next_record_once(face: Face) -> None:
    start(face)
    states = []

    async def handle(session: Any) -> None:
        await session.record({"n": 1})
        face.store.request_cancel("w", "a typo")
        try:
            await session.record({"n": "never"})
        except WorkflowCancelled as cancelled:
            states.append((session.state, session.pending, cancelled.message.body.reason))
            await session.record({"n": "undone"}, consumes=cancelled.message)
            await session.record({"n": "for sure"})

    face.work(handle, apply=history)
    assert states == [([{"n": 0}, {"n": 1}], (), "a typo")]
    assert numbers(face.store) == [0, 1, "undone", "for sure"]
    assert face.store.inbox("w") == []
    assert not is_claimable(face)


def test_an_uncaught_request_to_cancel_completes_the_workflow(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    start(face)
    face.store.request_cancel("w")
    calls = []

    async def handle(session: Any) -> None:
        calls.append(session.cursor)
        await session.record({"n": "never"})

    face.work(handle)
    assert calls == [1]
    assert numbers(face.store) == [0]
    assert not is_claimable(face)
    assert "cancelled" in outcomes(caplog)[0]


def test_a_handler_that_dies_after_a_request_to_cancel_gets_it_again(face: Face) -> None:
    start(face)
    face.store.request_cancel("w")
    raised = []

    async def handle(session: Any) -> None:
        try:
            await session.record({"n": "never"})
        except WorkflowCancelled as cancelled:
            raised.append(session.lease.attempt)
            if len(raised) == 1:
                raise ValueError("no") from cancelled
            await session.record({"n": "undone"}, consumes=cancelled.message)

    face.work(handle)
    assert raised == [1, 2]
    assert numbers(face.store) == [0, "undone"]


def test_a_sleeping_workflow_is_woken_to_be_cancelled(face: Face) -> None:
    start(face)
    calls = itertools.count(1)

    async def handle(session: Any) -> None:
        next(calls)
        await session.sleep(1000)
        await session.record({"n": "never"})

    face.work(handle)
    assert not is_claimable(face)
    face.store.request_cancel("w")
    face.work(handle)
    assert next(calls) == 3
    assert face.store.timer("w") is None, "it is completed"
    assert numbers(face.store) == [0]


def test_an_inbox_raises_a_request_to_cancel_and_leaves_it_out(face: Face) -> None:
    start(face)
    face.store.send("w", {"pay": 1})
    face.store.request_cancel("w")
    found: list[Any] = []

    async def handle(session: Any) -> None:
        if found:
            return
        with pytest.raises(WorkflowCancelled) as raised:
            await session.inbox(wait_s=30)
        found.append(raised.value.message)
        found.extend(await session.inbox())
        await session.record({"n": 1}, consumes=found[1])
        await session.sleep(None)  # the request is no message to wake for

    face.work(handle)
    assert [type(message.body).__name__ for message in found] == ["CancelRequested", "dict"]
    assert not is_claimable(face)
    with face.session(history, list) as session:
        assert session.inbox() == found[:1], "a session that is not of `work` has it"


def test_a_message_goes_in_the_commit_that_answers_it(face: Face) -> None:
    start(face)
    face.store.send("w", {"pay": 1})
    face.store.send("w", {"pay": 2})
    face.store.send("w", {"pay": 3})

    async def handle(session: Any) -> None:
        first, *more = await session.inbox()
        with pytest.raises(InvalidArgument, match="event"):
            await session.record(consumes=first)
        await session.record({"n": first.body["pay"]}, consumes=first)
        assert await session.inbox() == more
        await session.record({"n": "more"}, consumes=more)
        assert await session.inbox(wait_s=0.01) == []

    face.work(handle)
    assert numbers(face.store) == [0, 1, "more"]
    assert face.store.inbox("w") == []


@pytest.mark.parametrize("bad", [5, "m", [5], {"n": 1}, object()])
def test_a_session_that_gets_no_message_to_consume_goes_on(face: Face, bad: Any) -> None:
    start(face)
    face.store.send("other", {"pay": 1}, missing="keep")

    async def handle(session: Any) -> None:
        with pytest.raises(InvalidType, match=r"consumes is .* Nothing was recorded"):
            await session.record({"n": "never"}, consumes=bad)
        with pytest.raises(InvalidArgument, match="for the workflow 'other'"):
            await session.record({"n": "never"}, consumes=face.store.inbox("other"))
        assert (session.state, session.pending) == ([{"n": 0}], ())
        await session.record({"n": 1})

    face.work(handle, max_attempts=1, apply=history)
    assert numbers(face.store) == [0, 1]


def test_a_sleep_without_end_ends_with_a_message(face: Face) -> None:
    start(face)

    async def handle(session: Any) -> None:
        await session.sleep(math.inf)
        await session.record({"n": "answer"}, consumes=await session.inbox())

    face.work(handle)
    assert not is_claimable(face)
    face.store.send("w", {"pay": 1})
    face.work(handle)
    assert numbers(face.store) == [0, "answer"]


def test_a_handler_that_awaits_a_cancelled_task_has_failed(namespace: str) -> None:
    async def handle(session: AsyncSession[Any]) -> None:
        if session.workflow_id == "bad":
            task = asyncio.create_task(asyncio.sleep(30))
            task.cancel()
            await task

    async def run() -> None:
        async with AsyncRedisStore.from_url(f"memory://{namespace}", namespace=namespace) as store:
            await store.append("bad", [{"n": 0}], queue="q")
            await store.append("good", [{"n": 0}], queue="q")
            await async_work(store, handle, queues=["q"], max_attempts=1, until_idle=True)
            assert [one async for one in store.list(state="parked")] == ["bad"]
            assert [one async for one in store.list(state="completed")] == ["good"]

    asyncio.run(run())


def test_a_session_can_sleep_in_a_group_of_tasks(namespace: str) -> None:
    async def handle(session: AsyncSession[Any]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(session.sleep(1000))

    async def run() -> None:
        async with AsyncRedisStore.from_url(f"memory://{namespace}", namespace=namespace) as store:
            await store.append("w", [{"n": 0}], queue="q")
            await async_work(store, handle, queues=["q"], until_idle=True)
            assert [one async for one in store.list(state="waiting")] == ["w"]
            assert await store.timer("w") is not None

    asyncio.run(run())


@pytest.mark.parametrize("bad", [5, None, "x" * 129, "two\nlines", "\ud800"])
def test_a_bad_name_of_a_timer_records_nothing(face: Face, bad: Any) -> None:
    start(face)
    (lease,) = face.store.claim("a")
    with face.session(history, list, lease=lease, checkpoint="manual") as session:
        session.record({"n": 1})
        with pytest.raises(InvalidArgument):
            session.sleep(1, bad)
        with pytest.raises(InvalidArgument, match="until is a number of seconds"):
            session.sleep(-1)
        assert session.pending == ({"n": 1},)
    assert numbers(face.store) == [0]


def test_a_message_that_another_has_consumed_begins_the_handler_again(face: Face) -> None:
    start(face)
    face.store.send("w", {"pay": 1})
    found = []

    async def handle(session: Any) -> None:
        messages = await session.inbox()
        found.append(len(messages))
        for message in messages:
            # Without a cursor, as a writer that does not care for others.
            face.store.append("w", [{"n": "outside"}], consumes=message)
            await session.record({"n": "twice"}, consumes=message)

    face.work(handle, max_attempts=1)
    assert found == [1, 0]
    assert numbers(face.store) == [0, "outside"]


def work_until_done(face: Face, function: Callable[[Any], Coroutine[Any, Any, object]]) -> None:
    """Work until the handler returns for the first time."""
    stop: Any = threading.Event() if isinstance(face.used, RedisStore) else asyncio.Event()

    async def handle(session: Any) -> None:
        await function(session)
        stop.set()

    face.work(handle, stop=stop, until_idle=False)


def test_a_workflow_sleeps_and_goes_on_after_it_and_does_not_sleep_again(face: Face) -> None:
    start(face)
    states: list[int] = []

    async def handle(session: Any) -> None:
        states.append(len(session.state))
        if len(session.state) == 1:
            await session.sleep(0.05)
            assert session.cursor == 1
            await session.record({"n": "awake"})
        if len(session.state) == 2:
            await session.sleep(0.05)  # without a name, it is another sleep after an event
            await session.record({"n": "awake again"})

    before = datetime.now(UTC)
    work_until_done(face, handle)
    assert states == [1, 1, 2]
    assert numbers(face.store) == [0, "awake", "awake again"]
    _, first, second = face.store.stream_records("w")
    assert first.time - before >= timedelta(seconds=0.049)
    assert second.time - first.time >= timedelta(seconds=0.05)


def test_a_crash_after_a_sleep_does_not_sleep_again(face: Face) -> None:
    start(face)
    timers = []

    async def handle(session: Any) -> None:
        await session.sleep(0.05, "remind")
        timers.append(face.store.timer("w"))
        if len(timers) < 3:
            raise ValueError("no")
        await session.record({"n": "awake"})
        assert face.store.timer("w") is None

    work_until_done(face, handle)
    one, other, third = timers
    assert one is not None
    assert one[:2] == other[:2] == third[:2], "the same timer each time"
    assert numbers(face.store) == [0, "awake"]


def test_a_workflow_that_is_woken_early_sleeps_for_the_rest(face: Face) -> None:
    start(face)

    async def handle(session: Any) -> None:
        for message in await session.inbox():
            await session.record({"n": message.body["hello"]}, consumes=message)
        await session.sleep(1000, "remind")
        await session.record({"n": "never"})

    face.work(handle)
    before = face.store.timer("w")
    assert before is not None
    assert 990 < before.left_s <= 1000
    for number in range(8):  # being woken is no attempt
        face.store.send("w", {"hello": number})
        face.work(handle)
        after = face.store.timer("w")
        assert after is not None
        assert (after.until, after.name) == (before.until, "remind")
        assert not is_claimable(face)
    assert numbers(face.store) == [0, *range(8)]


def test_a_timer_of_another_name_or_time_is_another(face: Face) -> None:
    start(face)
    day = datetime.now(UTC) + timedelta(days=1)
    sleeps = iter([(1000, "a"), (2000, "b"), (day, "b"), (day + timedelta(days=1), "b")])

    async def handle(session: Any) -> None:
        await session.sleep(*next(sleeps))

    left = []
    for _ in range(4):
        face.work(handle)
        timer = face.store.timer("w")
        assert timer is not None
        left.append(timer.left_s)
        face.store.send("w", {"wake": 1})
    assert [round(one, -3) for one in left] == [1000, 2000, 86_000, 173_000]


def test_a_workflow_waits_for_a_message(face: Face) -> None:
    start(face)
    calls = itertools.count(1)

    async def handle(session: Any) -> None:
        next(calls)
        await session.sleep(None)
        (message,) = await session.inbox()
        await session.record({"n": message.body["hello"]}, consumes=message)

    face.work(handle)
    timer = face.store.timer("w")
    assert timer is not None
    assert (timer.until, timer.left_s) == (None, math.inf)
    assert not is_claimable(face)
    face.store.send("w", {"hello": 1})
    face.work(handle)
    assert next(calls) == 3
    assert numbers(face.store) == [0, 1]


def test_a_message_between_the_look_and_the_sleep_wakes(face: Face) -> None:
    start(face)
    calls = itertools.count(1)
    store = face.used
    sleep = store.sleep

    def send_and_sleep(*args: Any) -> Any:
        face.store.send("w", {"hello": 1})
        return sleep(*args)

    async def handle(session: Any) -> None:
        next(calls)
        await session.sleep(None)
        for message in await session.inbox():
            await session.record({"n": "got"}, consumes=message)

    store.sleep = send_and_sleep
    try:
        face.work(handle)
    finally:
        del store.sleep
    assert next(calls) == 3
    assert numbers(face.store) == [0, "got"]


def test_two_sleeps_without_an_event_between_them_are_rejected(face: Face) -> None:
    start(face)
    errors = []

    async def handle(session: Any) -> None:
        await session.sleep(0.01)
        with pytest.raises(StoreError, match="Record an event in between") as raised:
            await session.sleep(0.01)
        errors.append(raised.value)

    work_until_done(face, handle)
    assert len(errors) == 1


def test_what_is_pending_is_persisted_before_a_sleep(face: Face) -> None:
    start(face)
    with face.store.acquire("w", "me") as lease:
        with face.session(history, list, lease=lease, checkpoint="manual") as session:
            session.record({"n": 1})
            asleep(session, 1000)
        with pytest.raises(StoreError, match="is over"):
            session.record({"n": 2})
    assert numbers(face.store) == [0, 1]
    assert not is_claimable(face)


def asleep(session: Any, *args: Any) -> None:
    session.sleep(*args)
    raise AssertionError("it sleeps, which leaves the block")


@pytest.mark.parametrize("until", [-1, "soon", datetime(2030, 1, 1), True])
def test_a_sleep_needs_a_lease_and_a_time(face: Face, until: Any) -> None:
    start(face)
    lease = face.store.acquire("w", "me")
    with face.session(history, list, lease=lease) as session:
        with pytest.raises(InvalidArgument):
            session.sleep(until)
        with pytest.raises(InvalidArgument):
            session.sleep(1, "x" * 200)
    with face.session(history, list) as session, pytest.raises(InvalidArgument, match="lease"):
        session.sleep(1)


def test_a_heartbeat_keeps_the_lease_of_a_long_handler(face: Face) -> None:
    start(face)
    others = []

    async def handle(session: Any) -> None:
        if isinstance(face.used, RedisStore):
            others.append(face.store.claim("another", wait_s=0.6))
        else:
            others.append(await face.used.claim("another", wait_s=0.6))
        await session.record({"n": 1})

    face.work(handle, ttl=0.2)
    assert others == [[]]
    assert numbers(face.store) == [0, 1]


def test_so_many_handlers_run_at_the_same_time(face: Face) -> None:
    for number in range(9):
        start(face, f"w{number}")
    running: set[str] = set()
    most: list[int] = []
    together = threading.Barrier(3)
    is_sync = isinstance(face.used, RedisStore)

    async def handle(session: Any) -> None:
        running.add(session.workflow_id)
        most.append(len(running))
        if is_sync:
            together.wait(30)  # three run at the same time, or it fails
        while not is_sync and len(most) % 3:
            await asyncio.sleep(0)
        running.discard(session.workflow_id)

    face.work(handle, concurrency=3)
    assert len(most) == 9
    assert max(most) == 3


def test_one_claim_is_made_for_all_that_are_free(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        start(face, f"w{number}")
    limits: list[int] = []
    claim = face.used.claim

    def counting(owner: str, limit: int, **options: Any) -> Any:
        limits.append(limit)
        return claim(owner, limit, **options)

    async def counting_later(owner: str, limit: int, **options: Any) -> Any:
        return await counting(owner, limit, **options)

    is_sync = isinstance(face.used, RedisStore)
    monkeypatch.setattr(face.used, "claim", counting if is_sync else counting_later, raising=False)
    face.work(record, concurrency=4)
    assert limits[0] == 4
    assert all(1 <= limit <= 4 for limit in limits)
    assert all(numbers(face.store, f"w{number}") == [0, 1] for number in range(7))


def test_a_worker_claims_from_its_queues_only(face: Face) -> None:
    start(face, "email-1", "emails")
    start(face, "invoice-1", "invoices")
    seen = []

    async def handle(session: Any) -> None:
        seen.append((session.workflow_id, session.lease.queue))

    face.work(handle, queues=["invoices"])
    assert seen == [("invoice-1", "invoices")]


def test_a_stopped_worker_claims_no_more(face: Face) -> None:
    for number in range(3):
        start(face, f"w{number}")
    asynchronous = not isinstance(face.used, RedisStore)
    stop: Any = asyncio.Event() if asynchronous else threading.Event()
    seen = []

    async def handle(session: Any) -> None:
        stop.set()
        seen.append(session.workflow_id)
        await session.record({"n": 1})

    face.work(handle, stop=stop, until_idle=False)
    assert len(seen) == 1
    assert numbers(face.store, seen[0]) == [0, 1]
    assert len(face.store.claim("another", 9)) == 2


def test_an_outage_while_claiming_is_waited_for(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    start(face)
    store, claims = face.used, itertools.count()
    claim = store.claim

    def failing() -> None:
        if next(claims) < 3:
            raise StoreUnavailable("down")

    async def claim_later(*args: Any, **options: Any) -> Any:
        failing()
        return await claim(*args, **options)

    def claim_now(*args: Any, **options: Any) -> Any:
        failing()
        return claim(*args, **options)

    store.claim = claim_now if isinstance(store, RedisStore) else claim_later
    try:
        face.work(record)
    finally:
        del store.claim
    assert numbers(face.store) == [0, 1]
    assert [line for line in outcomes(caplog) if "down" in line] != []


def test_a_claim_that_cannot_work_ends_the_worker(face: Face) -> None:
    start(face)
    store = face.used
    calls = itertools.count()

    async def claim_later(*args: Any, **options: Any) -> Any:
        next(calls)
        raise ConfigurationError("not allowed")

    def claim_now(*args: Any, **options: Any) -> Any:
        next(calls)
        raise ConfigurationError("not allowed")

    store.claim = claim_now if isinstance(store, RedisStore) else claim_later
    try:
        with pytest.raises(ConfigurationError, match="not allowed"):
            face.work(fail, concurrency=3, until_idle=False)
    finally:
        del store.claim
    assert next(calls) <= 4


def test_an_outage_within_a_handler_is_no_reason_to_park(face: Face) -> None:
    start(face)
    calls = itertools.count(1)

    async def handle(session: Any) -> None:
        if next(calls) == 1:
            raise StoreUnavailable("down")

    face.work(handle, max_attempts=1, give_up_on=ConnectionError)
    # The count of attempts is the server's, which parks it at the next claim.
    assert next(calls) == 2
    face.store.unpark("w")
    face.work(handle, max_attempts=1)
    assert next(calls) == 4


def test_a_handler_may_complete_or_park_or_delete_its_workflow_itself(face: Face) -> None:
    for name in ("complete", "park", "delete"):
        start(face, name)

    async def handle(session: Any) -> None:
        if session.workflow_id == "complete":
            await session.complete()
        elif session.workflow_id == "park":
            face.store.park(session.lease, "by hand")
        else:
            face.store.delete("delete")

    face.work(handle, max_attempts=1)
    assert face.store.claim("another", 9) == []
    assert face.store.exists("park")
    assert not face.store.exists("delete")


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"concurrency": -1},
        {"queues": []},
        {"queues": "orders"},
        {"max_attempts": 0},
        {"ttl": -1},
        {"first_delay": "soon"},
        {"longest_delay": -1},
        {"owner": 7},
        {"owner": ""},
        {"give_up_on": [ValueError]},
    ],
)
def test_bad_options_are_rejected(face: Face, options: dict[str, Any]) -> None:
    start(face)
    with pytest.raises(InvalidArgument):
        face.work(fail, **options)
    assert is_claimable(face)


def test_a_store_and_a_handler_of_the_other_kind_are_named(namespace: str) -> None:
    url = f"memory://{namespace}"
    with RedisStore.from_url(url, namespace=namespace) as store:
        with pytest.raises(InvalidType, match="async_work"):
            work(store, fail, until_idle=True)
        with pytest.raises(InvalidType, match="Use work"):
            asyncio.run(async_work(store, fail, until_idle=True))
        with pytest.raises(InvalidType, match="Use async_work"):
            work(AsyncRedisStore.from_url(f"memory://{namespace}", namespace=namespace), print, until_idle=True)
        with pytest.raises(InvalidType, match="queues"):
            work(object(), print)
        with pytest.raises(InvalidType, match="function"):
            work(store, 7)  # type: ignore[arg-type]


def test_both_take_the_same_options() -> None:
    one, other = (inspect.signature(function).parameters for function in (work, async_work))
    assert [(name, option.default) for name, option in one.items()] == [
        (name, option.default) for name, option in other.items()
    ]


def test_a_handler_is_called_like_its_function(namespace: str) -> None:
    @handler(apply=history, initial=list)
    def handle(session: Any) -> str:
        return f"got {session}"

    assert handle("a session") == "got a session"
    assert not handle.is_async


def test_a_task_that_is_cancelled_releases_its_workflow(namespace: str) -> None:
    async def play() -> list[Any]:
        async with AsyncRedisStore.from_url(f"memory://{namespace}", namespace=namespace) as store:
            await store.append("w", [{"n": 0}], queue="default")
            begun = asyncio.Event()

            async def handle(session: Any) -> None:
                begun.set()
                await asyncio.Event().wait()

            task = asyncio.create_task(async_work(store, handle))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await store.claim("another")

    assert [lease.workflow_id for lease in asyncio.run(play())] == ["w"]


def test_a_conflict_leaves_nothing_of_the_state_behind(face: Face) -> None:
    """A session that is not of `work` ends with the conflict."""
    start(face)
    with face.session(history, list) as session:
        face.store.append("w", [{"n": "outside"}])
        with pytest.raises(CursorConflict):
            session.record({"n": 1})
        with pytest.raises(StoreError, match="could not persist"):
            session.record({"n": 2})


def test_leases_that_nobody_has_taken_are_released(namespace: str) -> None:
    """The tasks are cancelled by their first handler, when the other leases are claimed and not yet taken."""

    async def play() -> list[Any]:
        async with AsyncRedisStore.from_url(f"memory://{namespace}", namespace=namespace) as store:
            for number in range(4):
                await store.append(f"w{number}", [{"n": 0}], queue="default")
            claim = store.claim

            async def claim_and_cancel(*args: Any, **options: Any) -> Any:
                leases = await claim(*args, **options)
                asyncio.get_running_loop().call_soon(task.cancel)
                return leases

            store.claim = claim_and_cancel  # type: ignore[method-assign]
            task = asyncio.create_task(async_work(store, record, concurrency=4))
            with pytest.raises(asyncio.CancelledError):
                await task
            return await claim("another", 9)

    assert len(asyncio.run(play())) >= 3
