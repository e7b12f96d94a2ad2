"""Messages: what is sent to a workflow from outside, and the commits that consume it."""

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from runic_redis.errors import (
    CursorConflict,
    EncodeError,
    InvalidArgument,
    InvalidType,
    LeaseLost,
    MessageGone,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowNotFound,
)
from runic_redis.events import CancelRequested, Fact, FactRef
from runic_redis.testing.base import Contract, Elsewhere, Opener, raised_error
from runic_redis.testing.examples import OrderPaid, OrderPlaced, numbered


def _bodies(store: Any, workflow_id: str = "w") -> list[Any]:
    return [message.body for message in store.inbox(workflow_id)]


def _is_due(store: Any) -> bool:
    """Return whether "w" can be claimed from the queue "orders"; if so, it is claimed and released as it was."""
    claimed = store.claim("someone", queues=["orders"])
    for lease in claimed:
        store.release(lease, due=math.inf)
    return bool(claimed)


def _consume(store: Any, message: Any) -> bool:
    """Try to consume a message; return whether this process has done it."""
    try:
        store.append("w", [{"n": 1}], consumes=message)
    except MessageGone:
        return False
    return True


def _consume_all(store: Any, number: int) -> list[Any]:
    """Consume messages of "w" until there is none left. Return those that this process has consumed."""
    consumed = []
    while waiting := store.inbox("w"):
        try:
            store.append("w", [{"by": number}], consumes=waiting[0])
        except MessageGone:
            continue
        consumed.append(waiting[0].body["n"])
    return consumed


class MessageContract(Contract):
    """`send`, `inbox`, `request_cancel`, and `append` with `consumes`."""

    def test_messages_wait_in_the_inbox_in_the_order_in_which_they_were_sent(self, store: Any) -> None:
        store.append("w", numbered(1))
        sent = [OrderPaid(1.5), {"cancel": True, "at": datetime(2030, 1, 1, tzinfo=UTC)}, OrderPlaced("Ada")]
        ids = [store.send("w", body) for body in sent]
        waiting = store.inbox("w")
        assert [message.body for message in waiting] == sent
        assert [type(message.body) for message in waiting] == [OrderPaid, dict, OrderPlaced]
        assert [message.id for message in waiting] == ids
        assert len(set(ids)) == 3
        assert {(message.workflow_id, message.message_id) for message in waiting} == {("w", None)}
        assert all(abs(datetime.now(UTC) - message.time) < timedelta(minutes=5) for message in waiting)

    def test_a_message_is_no_event(self, store: Any) -> None:
        store.append("w", numbered(2))
        store.send("w", {"n": 1})
        assert store.cursor("w") == 2
        assert list(store.stream("w")) == numbered(2)

    def test_many_messages_and_large_ones_come_whole(self, store: Any) -> None:
        store.append("w", numbered(1))
        bodies = [{"n": number, "text": "x" * (300_000 if number % 100 == 0 else 10)} for number in range(600)]
        for body in bodies:
            store.send("w", body)
        assert _bodies(store) == bodies

    def test_the_inbox_of_a_workflow_without_messages_is_empty(self, store: Any) -> None:
        store.append("w", numbered(1))
        assert store.inbox("w") == []

    def test_an_unknown_workflow_gets_no_message(self, store: Any) -> None:
        with pytest.raises(WorkflowNotFound):
            store.send("w", {"n": 1})
        with pytest.raises(WorkflowNotFound):
            store.send("w", {"n": 1}, message_id="m")
        with pytest.raises(WorkflowNotFound):
            store.request_cancel("w")
        with pytest.raises(WorkflowNotFound):
            store.inbox("w")
        assert not store.exists("w")
        assert list(store.list()) == []

    def test_a_message_can_be_kept_for_a_workflow_that_starts_later(self, store: Any) -> None:
        kept = store.send("w", {"n": 1}, missing="keep")
        assert store.exists("w")
        assert store.cursor("w") == 0
        assert store.claim("someone") == []
        assert store.append("w", numbered(1), expected_cursor=0) == 1
        assert [message.id for message in store.inbox("w")] == [kept]
        store.send("w", {"n": 2}, missing="keep")
        assert _bodies(store) == [{"n": 1}, {"n": 2}]

    def test_a_message_whose_id_was_sent_before_is_not_stored(self, store: Any) -> None:
        store.append("w", numbered(1))
        first = store.send("w", {"n": 1}, message_id="m-1")
        assert store.send("w", {"n": 2}, message_id="m-1") == first
        other = store.send("w", {"n": 3}, message_id="m-2")
        assert [(one.id, one.message_id, one.body["n"]) for one in store.inbox("w")] == [
            (first, "m-1", 1),
            (other, "m-2", 3),
        ]

    def test_an_id_is_known_after_its_message_was_consumed_and_after_the_end(self, store: Any) -> None:
        store.append("w", numbered(1))
        first = store.send("w", {"n": 1}, message_id="m")
        store.append("w", numbered(1), consumes=store.inbox("w"))
        assert store.send("w", {"n": 1}, message_id="m") == first
        store.complete("w")
        assert store.send("w", {"n": 1}, message_id="m") == first
        assert store.inbox("w") == []

    def test_each_workflow_knows_its_own_ids(self, store: Any) -> None:
        for workflow_id in ("w", "v"):
            store.append(workflow_id, numbered(1))
            store.send(workflow_id, {"to": workflow_id}, message_id="m")
            assert _bodies(store, workflow_id) == [{"to": workflow_id}]

    def test_a_completed_workflow_gets_no_message(self, store: Any) -> None:
        store.append("w", numbered(1))
        store.complete("w")
        with pytest.raises(WorkflowCompleted):
            store.send("w", {"n": 1}, missing="keep")
        assert store.inbox("w") == []

    def test_a_commit_consumes_the_messages_that_it_answers(self, store: Any) -> None:
        store.append("w", numbered(1))
        for number in range(4):
            store.send("w", {"n": number})
        first, second, third, _ = store.inbox("w")
        assert store.append("w", numbered(1, 2), consumes=second, expected_cursor=1) == 2
        assert _bodies(store) == [{"n": 0}, {"n": 2}, {"n": 3}]
        assert store.append("w", numbered(1, 3), consumes=[third, first, third]) == 3
        assert _bodies(store) == [{"n": 3}]
        assert list(store.stream("w")) == numbered(3)

    def test_a_commit_with_everything_consumes_messages(self, store: Any) -> None:
        lease = store.acquire("w", "me")
        store.append("w", numbered(1), lease=lease)
        store.send("w", {"n": 1})
        store.append(
            "w",
            [{"fact": Fact("answer")}],
            consumes=store.inbox("w"),
            expected_cursor=1,
            commit_id="c",
            metadata={"by": "me"},
            lease=lease,
            snapshot=b"two",
            queue="orders",
            ends_timer=True,
            unless_cancelled=True,
        )
        assert (store.inbox("w"), store.cursor("w"), store.load_snapshot("w")) == ([], 2, (2, b"two"))

    def test_a_message_is_consumed_once(self, store: Any) -> None:
        store.append("w", numbered(1))
        for number in range(3):
            store.send("w", {"n": number})
        first, second, third = store.inbox("w")
        store.append("w", numbered(1, 2), consumes=second)
        with pytest.raises(MessageGone) as caught:
            store.append("w", numbered(1, 3), consumes=[first, second, third])
        assert caught.value.id == second.id
        assert list(store.stream("w")) == numbered(2)
        assert _bodies(store) == [{"n": 0}, {"n": 2}]

    def test_a_rejected_commit_consumes_nothing(self, store: Any) -> None:
        lease = store.acquire("w", "me")
        store.append("w", numbered(1))
        store.send("w", {"n": 1})
        message = store.inbox("w")[0]
        with pytest.raises(CursorConflict):
            store.append("w", numbered(1), consumes=message, expected_cursor=0)
        store.release(lease)
        with pytest.raises(LeaseLost):
            store.append("w", numbered(1), consumes=message, lease=lease)
        assert store.inbox("w") == [message]
        assert store.cursor("w") == 1

    def test_a_commit_whose_id_is_known_consumes_nothing_more(self, store: Any) -> None:
        store.append("w", numbered(1))
        store.send("w", {"n": 1})
        message = store.inbox("w")[0]
        assert store.append("w", numbered(1), consumes=message, commit_id="c") == 2
        assert store.append("w", numbered(1), consumes=message, commit_id="c") == 2

    def test_a_request_to_cancel_is_a_message(self, store: Any) -> None:
        store.append("w", numbered(1))
        sent = store.request_cancel("w", "changed my mind")
        (message,) = store.inbox("w")
        assert (message.id, message.body) == (sent, CancelRequested("changed my mind"))
        store.request_cancel("w")
        assert _bodies(store)[1] == CancelRequested("")

    def test_a_commit_can_be_rejected_while_a_request_to_cancel_waits(self, store: Any) -> None:
        store.append("w", numbered(1))
        store.send("w", {"n": 1})
        assert store.append("w", numbered(1, 2), unless_cancelled=True) == 2
        store.request_cancel("w")
        store.send("w", CancelRequested("sent as any other message"))
        other, first, second = store.inbox("w")
        for consumes in ([], [other], [first]):
            with pytest.raises(WorkflowCancelled):
                store.append("w", numbered(1), consumes=consumes, unless_cancelled=True)
        assert store.append("w", numbered(1, 3), consumes=[other, first]) == 3
        with pytest.raises(WorkflowCancelled):
            store.append("w", numbered(1), unless_cancelled=True)
        assert list(store.stream("w")) == numbered(3)
        assert store.append("w", numbered(1), consumes=second) == 4
        assert store.append("w", numbered(1), unless_cancelled=True) == 5

    def test_a_message_wakes_a_workflow_that_waits(self, store: Any) -> None:
        for due in (math.inf, 1000, datetime.now(UTC) + timedelta(hours=1)):
            store.append("w", numbered(1), queue="orders", due=due)
            assert not _is_due(store)
            store.send("w", {"n": 1})
            assert _is_due(store)
            assert not _is_due(store)

    def test_a_message_does_not_put_a_workflow_in_a_queue(self, store: Any) -> None:
        store.append("w", numbered(1))
        store.send("w", {"n": 1})
        assert store.claim("someone", queues=["default", "orders"]) == []

    def test_a_message_whose_id_is_known_wakes_nothing(self, store: Any) -> None:
        store.append("w", numbered(1))
        store.send("w", {"n": 1}, message_id="m")
        store.append("w", numbered(1), queue="orders", due=1000)
        store.send("w", {"n": 1}, message_id="m")
        assert not _is_due(store)

    def test_a_message_during_a_lease_makes_the_workflow_due_at_the_release(self, store: Any) -> None:
        store.append("w", numbered(1), queue="orders")
        (lease,) = store.claim("me", queues=["orders"])
        store.send("w", {"n": 1})
        assert store.claim("another", queues=["orders"]) == []
        store.release(lease, due=1000)
        assert _is_due(store)
        assert not _is_due(store)

    def test_a_message_that_was_consumed_during_its_lease_does_not_wake(self, store: Any) -> None:
        store.append("w", numbered(1), queue="orders")
        (lease,) = store.claim("me", queues=["orders"])
        store.send("w", {"n": 1})
        store.append("w", numbered(1), consumes=store.inbox("w"), lease=lease)
        store.release(lease, due=1000)
        assert not _is_due(store)

    def test_one_of_two_messages_consumed_leaves_the_workflow_awake(self, store: Any) -> None:
        store.append("w", numbered(1), queue="orders")
        (lease,) = store.claim("me", queues=["orders"])
        store.send("w", {"n": 1})
        first = store.inbox("w")
        store.send("w", {"n": 2})
        store.append("w", numbered(1), consumes=first, lease=lease)
        store.release(lease, due=1000)
        assert _is_due(store)

    def test_a_parked_workflow_gets_messages_and_stays_parked(self, store: Any) -> None:
        store.append("w", numbered(1), queue="orders")
        store.park("w", "needs a human")
        store.send("w", {"n": 1})
        assert not _is_due(store)
        store.unpark("w", due=1000)
        assert _bodies(store) == [{"n": 1}]
        assert not _is_due(store)

    def test_a_deleted_workflow_leaves_no_messages_to_the_next(self, store: Any) -> None:
        store.append("w", numbered(1))
        store.send("w", {"n": 1}, message_id="m")
        store.request_cancel("w")
        stale = store.inbox("w")[0]
        store.delete("w")
        with pytest.raises(WorkflowNotFound):
            store.inbox("w")
        with pytest.raises(WorkflowNotFound):
            store.send("w", {"n": 1}, message_id="m")
        store.append("w", numbered(1), unless_cancelled=True)
        assert store.inbox("w") == []
        with pytest.raises(MessageGone):
            store.append("w", numbered(1), consumes=stale)
        store.send("w", {"n": 2}, message_id="m")
        assert _bodies(store) == [{"n": 2}]

    def test_a_wait_ends_with_the_next_message(self, store: Any, opener: Opener) -> None:
        store.append("w", numbered(1))
        with closing(opener()) as sender, ThreadPoolExecutor(1) as pool:
            for number in range(3):
                waiting = pool.submit(store.inbox, "w", wait_s=60)
                sender.send("w", {"n": number})
                (message,) = waiting.result()
                assert message.body == {"n": number}
                store.append("w", numbered(1), consumes=message)

    def test_a_wait_is_over_after_its_time(self, store: Any) -> None:
        store.append("w", numbered(1))
        assert store.inbox("w", wait_s=0.05) == []

    def test_a_wait_ends_when_the_workflow_is_deleted(self, store: Any, opener: Opener) -> None:
        store.append("w", numbered(1))
        with closing(opener()) as other, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(store.inbox, "w", wait_s=60)
            other.delete("w")
            with pytest.raises(WorkflowNotFound):
                waiting.result()

    def test_a_message_holds_no_fact(self, store: Any) -> None:
        store.append("w", numbered(1))
        for body in ({"fact": Fact(1)}, {"in": [FactRef("sha256:0")]}, OrderPlaced(Fact("Ada"))):  # type: ignore[arg-type]
            raised_error(body, partial(store.send, "w", body), InvalidArgument)
        assert store.inbox("w") == []

    def test_a_message_is_what_an_event_can_be(self, store: Any) -> None:
        store.append("w", numbered(1))
        for body in ("text", 1, None, [{"n": 1}], object(), {"n": object()}, Fact(1), FactRef("sha256:0")):
            raised_error(body, partial(store.send, "w", body), EncodeError)
        assert store.inbox("w") == []

    def test_a_message_id_is_a_text(self, store: Any) -> None:
        store.append("w", numbered(1))
        for message_id in ("", "x" * 513, b"bytes", 1, "\ud800"):
            raised_error(message_id, partial(store.send, "w", {"n": 1}, message_id=message_id), InvalidArgument)
        assert store.inbox("w") == []
        for message_id in ("0", "é", "x" * 512, " \n", "1-0"):
            store.send("w", {"n": 1}, message_id=message_id)
            store.send("w", {"n": 2})
            store.send("w", {"n": 1}, message_id=message_id)
            (first, second) = store.inbox("w")
            assert (first.message_id, second.message_id) == (message_id, None)
            store.append("w", numbered(1), consumes=[first, second])

    def test_bad_arguments_are_rejected(self, store: Any) -> None:
        for missing in ("ignore", None, True):
            raised_error(missing, partial(store.send, "w", {"n": 1}, missing=missing), InvalidArgument)
        assert not store.exists("w")
        store.append("w", numbered(1))
        for reason in ("x" * 4097, None, "\ud800"):
            raised_error(reason, partial(store.request_cancel, "w", reason), InvalidArgument)
        for wait_s in (-1, math.nan, math.inf, "1", None):
            raised_error(wait_s, partial(store.inbox, "w", wait_s=wait_s), InvalidArgument)
        for consumes in ("1-0", 1, ["1-0"], {"id": "1-0"}, [None]):
            raised_error(consumes, partial(store.append, "w", numbered(1), consumes=consumes), InvalidType)
        assert (store.inbox("w"), store.cursor("w")) == ([], 1)

    def test_only_the_messages_of_the_workflow_are_consumed(self, store: Any) -> None:
        for workflow_id in ("w", "v"):
            store.append(workflow_id, numbered(1))
            store.send(workflow_id, {"n": 1})
        with pytest.raises(InvalidArgument):
            store.append("w", numbered(1), consumes=store.inbox("v"))
        with pytest.raises(InvalidArgument):
            store.append("w", [], consumes=store.inbox("w"))
        assert _bodies(store) == _bodies(store, "v") == [{"n": 1}]

    def test_of_many_who_consume_one_message_one_does(self, store: Any, elsewhere: Elsewhere) -> None:
        store.append("w", numbered(1))
        store.send("w", {"n": 1})
        (message,) = store.inbox("w")
        assert sum(elsewhere(_consume, *[(message,)] * 4)) == 1
        assert (store.inbox("w"), store.cursor("w")) == ([], 2)

    def test_many_consumers_consume_each_message_once(self, store: Any, elsewhere: Elsewhere) -> None:
        store.append("w", numbered(1))
        for number in range(40):
            store.send("w", {"n": number})
        consumed = elsewhere(_consume_all, *((number,) for number in range(3)))
        assert sorted(number for some in consumed for number in some) == list(range(40))
        assert store.cursor("w") == 41
