"""Queues: what can be claimed, in which order, and how often."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from runic_redis.errors import InvalidArgument, LeaseLost, WorkflowCompleted, WorkflowNotFound
from runic_redis.testing.base import Contract, Elsewhere, raised_error
from runic_redis.testing.examples import numbered

ORDERS = ["orders"]


def _ids(leases: list[Any]) -> list[str]:
    return [lease.workflow_id for lease in leases]


def _claim_all(store: Any, owner: str) -> list[str]:
    """Claim one workflow after the other, and complete each."""
    claimed = []
    while leases := store.claim(owner, 3, queues=ORDERS, ttl=1000):
        for lease in leases:
            store.append(lease.workflow_id, numbered(1), lease=lease)
            store.complete(lease.workflow_id, lease=lease)
            claimed.append(lease.workflow_id)
    return claimed


class QueueContract(Contract):
    """Workflows in queues, which are due and claimed, released, parked and completed."""

    def test_the_commit_that_creates_a_workflow_queues_it(self, store: Any) -> None:
        assert store.append("w", numbered(1), expected_cursor=0, queue="orders") == 1
        (lease,) = store.claim("me", queues=ORDERS)
        assert (lease.workflow_id, lease.owner, lease.queue, lease.attempt) == ("w", "me", "orders", 1)
        assert store.claim("you", 10, queues=ORDERS) == []

    def test_a_claim_gets_workflows_of_its_queues_only(self, store: Any) -> None:
        for queue in ("orders", "mails", "invoices"):
            store.append(queue, numbered(1), queue=queue)
        store.append("no queue", numbered(1))
        assert store.claim("me", 10) == [], "of the queue default"
        assert _ids(store.claim("me", 10, queues=["mails"])) == ["mails"]
        assert set(_ids(store.claim("me", 10, queues=["orders", "invoices", "mails"]))) == {"orders", "invoices"}

    def test_those_that_are_due_for_longest_come_first(self, store: Any) -> None:
        now = datetime.now(UTC)
        names = [f"w-{number}" for number in range(40)]
        for number, name in enumerate(names):
            late = timedelta(hours=1 + (number * 17) % 40)
            store.append(name, numbered(1), queue="orders" if number % 2 else "others", due=now - late)
        expected = sorted(names, key=lambda name: -((int(name[2:]) * 17) % 40))
        claimed = [
            name for limit in (1, 2, 7, 30) for name in _ids(store.claim("me", limit, queues=["orders", "others"]))
        ]
        assert claimed == expected

    @pytest.mark.parametrize("due", [1000, timedelta(hours=1), math.inf], ids=str)
    def test_a_workflow_is_not_claimed_before_it_is_due(self, store: Any, due: Any) -> None:
        due = datetime.now(UTC) + due if isinstance(due, timedelta) else due
        store.append("w", numbered(1), queue="orders", due=due)
        assert store.claim("me", queues=ORDERS) == []
        store.append("w", numbered(1), queue="orders")
        (lease,) = store.claim("me", queues=ORDERS)
        store.release(lease, due=due)
        assert store.claim("me", queues=ORDERS) == []

    def test_a_waiting_claim_gets_what_becomes_due(self, store: Any) -> None:
        store.append("w", numbered(1), queue="orders", due=0.05)
        assert _ids(store.claim("me", queues=ORDERS, wait_s=60)) == ["w"]
        assert store.claim("me", queues=ORDERS, wait_s=0.01) == []

    def test_a_workflow_moves_to_another_queue(self, store: Any) -> None:
        store.append("w", numbered(1), queue="orders")
        store.append("w", numbered(1), queue="mails")
        assert store.claim("me", queues=ORDERS) == []
        (lease,) = store.claim("me", queues=["mails"])
        store.append("w", numbered(1), lease=lease, queue="orders")
        store.append("w", numbered(1), lease=lease)
        store.renew(lease)
        assert store.claim("you", queues=["orders", "mails"]) == [], "it is leased in its new queue"
        store.release(lease)
        (lease,) = store.claim("you", queues=["orders", "mails"])
        assert lease.queue == "orders"

    def test_attempts_are_counted_since_the_last_progress(self, store: Any) -> None:
        store.append("w", numbered(1), queue="orders")
        for attempt in (1, 2, 3):
            (lease,) = store.claim("me", queues=ORDERS, max_attempts=4)
            assert lease.attempt == attempt
            store.release(lease)
        (lease,) = store.claim("me", queues=ORDERS, max_attempts=4)
        store.append("w", numbered(1), lease=lease)
        store.release(lease)
        (lease,) = store.claim("me", queues=ORDERS, max_attempts=4)
        assert lease.attempt == 1

    def test_a_workflow_with_too_many_attempts_is_parked(self, store: Any) -> None:
        store.append("poison", numbered(1), queue="orders")
        store.append("other", numbered(1), queue="orders", due=0.0)
        for _ in range(2):
            (lease,) = [one for one in store.claim("me", 2, queues=ORDERS) if one.workflow_id == "poison"]
            store.release(lease)
            for one in store.claim("me", 2, queues=ORDERS):
                store.release(one)
        assert "poison" not in _ids(store.claim("me", 2, queues=ORDERS, max_attempts=2))
        assert store.count(state="parked") == 1
        with pytest.raises(LeaseLost):
            store.append("poison", numbered(1), lease=lease)
        store.unpark("poison")
        (lease,) = store.claim("me", queues=ORDERS, max_attempts=2)
        assert (lease.workflow_id, lease.attempt) == ("poison", 1)

    @pytest.mark.parametrize("by_lease", [True, False])
    def test_a_parked_workflow_waits_until_it_is_put_back(self, store: Any, by_lease: bool) -> None:
        store.append("w", numbered(1), queue="orders")
        (lease,) = store.claim("me", queues=ORDERS)
        store.park(lease if by_lease else "w", "the card was declined")
        with pytest.raises(LeaseLost):
            store.append("w", numbered(1), lease=lease)
        store.release(lease)
        assert store.claim("me", queues=ORDERS) == []
        store.append("w", numbered(1), queue="mails")
        assert store.claim("me", queues=["orders", "mails"]) == [], "only the queue for unpark changes"
        store.unpark("w", due=1000)
        assert store.claim("me", queues=["mails"]) == []
        store.unpark("w")
        assert store.claim("me", queues=["mails"]) == [], "it is parked no more, so nothing happens"
        store.park("w", "again")
        store.unpark("w")
        assert _ids(store.claim("me", queues=["mails"])) == ["w"]

    def test_a_completed_workflow_is_in_no_queue(self, store: Any) -> None:
        store.append("w", numbered(1), queue="orders")
        store.complete("w")
        assert store.claim("me", queues=ORDERS) == []
        calls: dict[str, Callable[[], Any]] = {
            "a queue": lambda: store.append("w", numbered(1), queue="orders"),
            "a reason": lambda: store.park("w", "why"),
            "a time": lambda: store.unpark("w", due=5),
        }
        for given, call in calls.items():
            raised_error(given, call, WorkflowCompleted)
        assert store.cursor("w") == 1

    def test_a_deleted_workflow_is_in_no_queue(self, store: Any) -> None:
        store.append("w", numbered(1), queue="orders")
        store.append("parked", numbered(1), queue="orders")
        store.park("parked", "why")
        store.delete("w")
        store.delete("parked")
        assert store.claim("me", queues=ORDERS) == []
        assert (store.count(), store.count(state="parked")) == (0, 0)
        for call in (lambda: store.park("w", "why"), lambda: store.unpark("w")):
            raised_error("no workflow", call, WorkflowNotFound)

    def test_each_is_done_once_however_many_work(self, store: Any, elsewhere: Elsewhere) -> None:
        names = [f"w-{number}" for number in range(30)]
        for name in names:
            store.append(name, numbered(1), queue="orders")
        done = elsewhere(_claim_all, *((f"worker-{number}",) for number in range(3)))
        assert sorted(name for some in done for name in some) == sorted(names)
        assert [store.cursor(name) for name in names] == [2] * 30

    def test_bad_queues_and_times_are_rejected(self, store: Any) -> None:
        store.append("w", numbered(1), queue="orders")
        (lease,) = store.claim("me", queues=ORDERS)
        times = (-1, math.nan, -math.inf, "5", True, datetime(2030, 1, 1), timedelta(1))
        append = partial(store.append, "w", numbered(1))
        calls: dict[str, Callable[[], Any]] = {
            **{f"queue {name!r}": partial(append, queue=name) for name in ("", "a b", "x" * 129, 5, b"q")},
            **{f"due {due!r}": partial(append, queue="q", due=due) for due in times},
            **{f"released {due!r}": partial(store.release, lease, due=due) for due in times},
            **{f"unparked {due!r}": partial(store.unpark, "w", due=due) for due in times},
            **{f"reason {one!r}": partial(store.park, "w", one) for one in ("", "x" * 5000, None, 5)},
            "a time and no queue": lambda: store.append("w", numbered(1), due=5),
            "a queue and no events": lambda: store.append("w", [], queue="q"),
            "queues in text": lambda: store.claim("me", queues="orders"),
            "no queues": lambda: store.claim("me", queues=[]),
            "a negative wait": lambda: store.claim("me", queues=ORDERS, wait_s=-1),
            "no attempts": lambda: store.claim("me", queues=ORDERS, max_attempts=0),
        }
        for given, call in calls.items():
            raised_error(given, call, InvalidArgument)
        assert store.cursor("w") == 1
        store.append("w", numbered(1), lease=lease)
