"""Leases: the right to write, unfinished workflows, and the end of a workflow."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pytest

from runic_redis import (
    Append,
    CursorConflict,
    EventsTrimmed,
    GroupRejected,
    InvalidArgument,
    InvalidType,
    Lease,
    LeaseHeld,
    LeaseLost,
    WorkflowCompleted,
    WorkflowNotFound,
)
from runic_redis.testing.base import Contract, Elsewhere, raised_error
from runic_redis.testing.examples import append_each, numbered

# So short that the lease has ended by the next call.
MOMENT_S = 0.001


def _first_of_group(store: Any, lease: Any) -> Any:
    try:
        return store.append_all([Append("w", numbered(1), lease=lease)])[0]
    except GroupRejected as error:
        raise error.__cause__ or error from None


WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "append": lambda store, lease: store.append("w", numbered(1), lease=lease),
    "append at a cursor": lambda store, lease: store.append("w", numbered(1), lease=lease, expected_cursor=3),
    "append nothing": lambda store, lease: store.append("w", [], lease=lease),
    "append_many": lambda store, lease: _first(store.append_many([("w", numbered(1))], leases=[lease])),
    "append_all": _first_of_group,
    "save_snapshot": lambda store, lease: store.save_snapshot("w", 3, b"three", lease=lease),
    "trim": lambda store, lease: store.trim("w", lease=lease),
    "save": lambda store, lease: store.save("w", numbered(1), lease=lease),
    "checkpoint": lambda store, lease: store.checkpoint("w", numbered(1), lease=lease),
    "complete": lambda store, lease: store.complete("w", lease=lease),
    "renew": lambda store, lease: store.renew(lease),
    "delete": lambda store, lease: store.delete("w", lease=lease),
}

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "replace": replace,
    "pickle": lambda lease: pickle.loads(pickle.dumps(lease)),  # noqa: S301 - its own
    "fields": lambda lease: Lease(**asdict(lease)),
}


def _first(results: list[Any]) -> Any:
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


def _events(store: Any, workflow_id: str) -> list[Any]:
    return list(store.stream(workflow_id))


def _first_kept(store: Any, workflow_id: str) -> int:
    try:
        next(store.stream(workflow_id))
    except EventsTrimmed as trimmed:
        return trimmed.first
    return 1


def _is_held(store: Any, workflow_id: str) -> bool:
    """Return whether another owner cannot acquire the lease; if it can, it has acquired it."""
    try:
        store.acquire(workflow_id, "you")
    except LeaseHeld:
        return True
    return False


def _is_complete(store: Any, workflow_id: str) -> bool:
    """Return whether the workflow cannot be put in a queue."""
    try:
        store.append(workflow_id, numbered(1), queue="default")
    except WorkflowCompleted:
        return True
    return False


# The result of each write, how to observe its effect, and the observed effect, for a workflow of three events, with a
# snapshot of two and an empty log.
DONE: dict[str, tuple[Any, Callable[[Any, str], Any], Any]] = {
    "append": (4, _events, [*numbered(3), *numbered(1)]),
    "append at a cursor": (4, _events, [*numbered(3), *numbered(1)]),
    "append nothing": (3, _is_held, True),
    "append_many": (4, _events, [*numbered(3), *numbered(1)]),
    "append_all": (4, _events, [*numbered(3), *numbered(1)]),
    "save_snapshot": (None, lambda store, workflow_id: store.load_snapshot(workflow_id), (3, b"three")),
    "trim": (2, _first_kept, 3),
    "save": (None, lambda store, workflow_id: store.load(workflow_id), numbered(1)),
    "checkpoint": (None, lambda store, workflow_id: store.load(workflow_id), numbered(1)),
    "complete": (None, _is_complete, True),
    "renew": (None, _is_held, True),
    "delete": (None, lambda store, workflow_id: store.exists(workflow_id), False),
}


def until(ask: Callable[[], Any]) -> Any:
    """Call a function until it returns a true value, and return that value."""
    while not (answer := ask()):
        pass
    return answer


def _everything(store: Any) -> tuple[Any, ...]:
    return list(store.stream_records("w")), store.load_snapshot("w"), store.load("w"), store.cursor("w")


def _claim_one(store: Any, owner: str) -> list[str]:
    return [lease.workflow_id for lease in store.claim(owner, 3)]


class LeaseContract(Contract):
    """`acquire`, `claim`, `renew`, `release` and `complete`, and the leases that writes carry."""

    def test_a_later_lease_has_a_higher_token(self, store: Any) -> None:
        tokens = [store.acquire("w", "me").token for _ in range(5)]
        assert tokens == sorted(set(tokens))

    @pytest.mark.parametrize("way", COPIES)
    def test_a_lease_is_a_value_and_a_copy_is_as_good(self, store: Any, way: str) -> None:
        lease = store.acquire("w", "me", 1000)
        copied = COPIES[way](lease)
        assert copied == lease == Lease("w", "me", lease.token, 1000.0)
        assert {copied: 1}[lease] == 1
        assert copied != replace(copied, token=copied.token + 1)
        assert asdict(copied) == asdict(lease) == asdict(Lease("w", "me", lease.token, 1000.0))
        for one in (lease, copied):
            assert f"(workflow_id='w', owner='me', token={lease.token}, ttl=1000.0, queue='default'" in repr(one)
        assert store.append("w", numbered(1), lease=copied) == 1
        store.renew(copied)
        store.release(copied)
        assert len(store.claim("you")) == 1

    def test_a_lease_makes_the_workflow(self, store: Any) -> None:
        store.acquire("w", "me")
        assert store.exists("w")
        assert list(store.list()) == ["w"]
        assert store.cursor("w") == 0

    def test_somebody_else_s_lease_is_refused_while_it_lasts(self, store: Any) -> None:
        lease = store.acquire("w", "me", 1000)
        with pytest.raises(LeaseHeld, match="'me' has the lease") as caught:
            store.acquire("w", "you")
        assert caught.value.owner == "me"
        assert 900 < caught.value.left_s <= 1000
        store.append("w", numbered(1), lease=lease)

    @pytest.mark.parametrize("write", WRITES)
    def test_a_write_with_a_lease_is_stored(self, store: Any, write: str) -> None:
        for workflow_id in ("w", "as before"):
            append_each(store, workflow_id, numbered(3))
            store.save_snapshot(workflow_id, 2, b"two")
            store.save(workflow_id, [])
        brief = store.acquire("w", "me", MOMENT_S)
        store.acquire("as before", "me", MOMENT_S)
        until(lambda: not _is_held(store, "as before"))  # then the other lease has ended too
        result, look, seen = DONE[write]
        assert look(store, "as before") != seen
        assert WRITES[write](store, replace(brief, ttl=1000.0)) == result
        assert look(store, "w") == seen
        if write not in {"complete", "delete"}:
            assert _is_held(store, "w"), "each other write extends the lease"

    def test_a_write_by_a_lease_that_was_taken_over_is_refused(self, store: Any) -> None:
        store.append("w", numbered(3))
        store.save_snapshot("w", 2, b"two")
        store.save("w", numbered(2))
        stale = store.acquire("w", "me", MOMENT_S)
        until(lambda: store.claim("you"))
        before = _everything(store)
        for name, write in WRITES.items():
            error = raised_error(name, partial(write, store, stale), LeaseLost)
            assert "Nothing was written" in str(error), name
            assert error.owner == "you", name
            assert _everything(store) == before, name
        assert list(store.list()) == ["w"]

    def test_a_write_by_a_lease_that_was_given_back_is_refused(self, store: Any) -> None:
        store.append("w", numbered(3))
        store.save("w", [])
        lease = store.acquire("w", "me")
        store.release(lease)
        store.release(lease)
        for name, write in WRITES.items():
            assert raised_error(name, partial(write, store, lease), LeaseLost).owner is None

    def test_a_lease_that_has_run_out_is_good_until_somebody_takes_over(self, store: Any) -> None:
        lease = store.acquire("w", "me", MOMENT_S)
        assert store.append("w", numbered(1), lease=lease) == 1

    def test_a_lease_ends_with_its_workflow(self, store: Any) -> None:
        stale = [store.acquire("w", "me") for _ in range(3)]
        store.append("w", numbered(1))
        store.delete("w")
        with pytest.raises(LeaseLost):
            store.append("w", numbered(1), lease=stale[0])
        for _ in range(4):
            store.acquire("w", "me")
            for lease in stale:
                with pytest.raises(LeaseLost):
                    store.append("w", numbered(1), lease=lease)

    def test_the_lease_is_checked_before_the_cursor(self, store: Any) -> None:
        stale = store.acquire("w", "me")
        lease = store.acquire("w", "me")
        with pytest.raises(LeaseLost):
            store.append("w", numbered(1), lease=stale, expected_cursor=7)
        with pytest.raises(CursorConflict):
            store.append("w", numbered(1), lease=lease, expected_cursor=7)

    def test_a_commit_that_was_stored_is_found_also_without_the_lease(self, store: Any) -> None:
        stale = store.acquire("w", "me")
        assert store.append("w", numbered(2), lease=stale, commit_id="c") == 2
        store.acquire("w", "me")
        assert store.append("w", numbered(2), lease=stale, commit_id="c") == 2

    def test_each_of_many_appends_has_its_own_lease(self, store: Any) -> None:
        stale, good = store.acquire("a", "me"), store.acquire("b", "me")
        store.acquire("a", "me")
        first, second, third = store.append_many(
            [("a", numbered(1)), ("b", numbered(1)), ("c", numbered(1))], leases=[stale, good]
        )
        assert isinstance(first, LeaseLost)
        assert (second, third) == (1, 1)

    def test_a_write_without_a_lease_is_not_refused(self, store: Any) -> None:
        store.acquire("w", "me")
        assert store.append("w", numbered(1)) == 1

    def test_what_is_left_unfinished_can_be_claimed(self, store: Any) -> None:
        for number in range(3):
            store.acquire(f"w-{number}", "me", MOMENT_S)
        store.acquire("held", "me")
        store.append("never leased", numbered(1))
        claimed: set[str] = set()
        while len(claimed) < 3:
            claimed |= set(_claim_one(store, "you"))
        assert claimed == {"w-0", "w-1", "w-2"}
        assert store.claim("you", 10) == []

    def test_what_is_given_back_can_be_claimed_at_once(self, store: Any) -> None:
        store.release(store.acquire("w", "me", 1000))
        (lease,) = store.claim("you")
        assert (lease.workflow_id, lease.owner) == ("w", "you")
        store.append("w", numbered(1), lease=lease)

    def test_no_more_are_claimed_than_asked_for(self, store: Any) -> None:
        for number in range(40):
            store.release(store.acquire(f"w-{number}", "me"))
        counts = [len(store.claim("you", limit)) for limit in (0, 1, 30, 20, 1)]
        assert counts == [0, 1, 30, 9, 0]

    def test_each_is_claimed_by_one_however_many_ask(self, store: Any, elsewhere: Elsewhere) -> None:
        for number in range(5):
            store.release(store.acquire(f"w-{number}", "me"))
        claims = elsewhere(_claim_one, *((f"claimer-{number}",) for number in range(2)))
        claimed = [workflow_id for claim in claims for workflow_id in claim]
        assert sorted(claimed) == [f"w-{number}" for number in range(5)]

    def test_renewing_extends_a_lease(self, store: Any) -> None:
        lease = store.acquire("w", "me", 1000)
        store.renew(lease)
        assert store.claim("you") == []

    def test_a_write_extends_its_lease(self, store: Any) -> None:
        lease = store.acquire("w", "me", MOMENT_S)
        longer = replace(lease, ttl=1000.0)
        store.append("w", numbered(1), lease=longer)
        with pytest.raises(LeaseHeld):
            store.acquire("w", "you")
        assert store.claim("you") == []

    def test_what_is_complete_is_not_claimed(self, store: Any) -> None:
        lease = store.acquire("w", "me")
        store.append("w", numbered(1), lease=lease)
        store.complete("w", lease=lease)
        store.complete("w", lease=lease)
        store.append("w", numbered(1), lease=lease)
        store.renew(lease)
        store.release(lease)
        assert store.claim("you") == []
        store.release(store.acquire("w", "me"))
        assert store.claim("you") == []

    def test_what_is_not_there_is_not_completed(self, store: Any) -> None:
        with pytest.raises(WorkflowNotFound):
            store.complete("w")
        assert list(store.list()) == []

    def test_bad_arguments_are_refused(self, store: Any) -> None:
        calls: dict[str, Callable[[], Any]] = {
            "no owner": lambda: store.acquire("w", ""),
            "a long owner": lambda: store.acquire("w", "x" * 513),
            "a negative ttl": lambda: store.acquire("w", "me", -1),
            "a ttl that is no number": lambda: store.acquire("w", "me", float("nan")),
            "a negative limit": lambda: store.claim("me", -1),
            "another's lease": lambda: store.append("w", numbered(1), lease=store.acquire("other", "me")),
            "a negative grace": lambda: store.collect(-1),
            "a snapshot of nothing": lambda: store.append("w", [], snapshot=b"none"),
        }
        for given, call in calls.items():
            raised_error(given, call, InvalidArgument)
            assert not store.exists("w"), given

    def test_arguments_of_wrong_types_are_refused(self, store: Any) -> None:
        calls: dict[str, Callable[[], Any]] = {
            "an owner in bytes": lambda: store.acquire("w", b"me"),
            "a ttl in text": lambda: store.acquire("w", "me", "1"),
            "a lease in text": lambda: store.append("w", numbered(1), lease="me"),
            "text to renew": lambda: store.renew("me"),
            "None to release": lambda: store.release(None),
            "many, and a lease in text": lambda: store.append_many([("w", numbered(1))], leases=["me"]),
            "a snapshot in text": lambda: store.append("w", numbered(1), snapshot="text"),
        }
        for given, call in calls.items():
            raised_error(given, call, InvalidType)
            assert not store.exists("w"), given
