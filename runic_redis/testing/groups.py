"""Groups: commits to several workflows that are stored all or none."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from runic_redis import (
    Append,
    CommitsLost,
    CursorConflict,
    EncodeError,
    Fact,
    FactNotFound,
    FactRef,
    GroupRejected,
    InvalidArgument,
    InvalidType,
    LeaseLost,
    WorkflowCompleted,
)
from runic_redis.testing.base import Contract, Elsewhere, raised_error
from runic_redis.testing.examples import numbered

# In a cluster, too, workflows whose ids have the same part in braces can be written together.
ORDER, PAYMENT, PARCEL, CUSTOMER = "order-{42}", "payment-{42}", "parcel-{42}", "customer-{42}"


def lost_lease(store: Any) -> Any:
    """Return a lease of PAYMENT that another owner has taken over."""
    lease = store.acquire(PAYMENT, "me")
    store.release(lease)
    store.acquire(PAYMENT, "you")
    return lease


# Each way in which a commit of PAYMENT, at cursor 2, is rejected: the commit, and the error of it alone.
REJECTED: dict[str, tuple[Callable[[Any], Append], type[Exception]]] = {
    "another cursor": (lambda _: Append(PAYMENT, numbered(1), expected_cursor=1), CursorConflict),
    "a cursor above": (lambda _: Append(PAYMENT, numbered(1), expected_cursor=7), CommitsLost),
    "another cursor, and no events": (lambda _: Append(PAYMENT, [], expected_cursor=1), CursorConflict),
    "a lease that is lost": (lambda store: Append(PAYMENT, numbered(1), lease=lost_lease(store)), LeaseLost),
    "a fact that is missing": (lambda _: Append(PAYMENT, [{"fact": FactRef("missing")}]), FactNotFound),
    "a queue for a completed one": (
        lambda store: (store.complete(PAYMENT), Append(PAYMENT, numbered(1), queue="payments"))[1],
        WorkflowCompleted,
    ),
}


def _move(store: Any, seed: int, tries: int) -> int:
    """Append groups, each only at the cursors that were read before. Return how many were stored."""
    chance = random.Random(seed)
    stored = 0
    for _ in range(tries):
        ids = chance.sample([ORDER, PAYMENT, PARCEL, CUSTOMER], 2)
        cursors = [store.cursor(workflow_id) for workflow_id in ids]
        try:
            store.append_all(
                [
                    Append(workflow_id, [{"by": seed}], expected_cursor=cursor)
                    for workflow_id, cursor in zip(ids, cursors, strict=True)
                ]
            )
        except GroupRejected as rejected:
            assert isinstance(rejected.__cause__, CursorConflict)
        else:
            stored += 1
    return stored


def _append_pairs(store: Any, count: int) -> None:
    for _ in range(count):
        store.append_all([Append(ORDER, numbered(1)), Append(PAYMENT, numbered(1))])


def _look_for_parts(store: Any, count: int) -> None:
    """Read the workflows of `_append_pairs` until all pairs are there, and never see the first of a pair alone."""
    while (order := store.cursor(ORDER)) < count:
        assert store.cursor(PAYMENT) >= order
        payment = store.cursor(PAYMENT)
        assert store.cursor(ORDER) >= payment


class GroupContract(Contract):
    """`append_all`: all commits of a group are stored, or none."""

    def test_a_group_is_stored_whole(self, store: Any) -> None:
        store.append(ORDER, numbered(2))
        group = [
            Append(ORDER, numbered(1, 3), expected_cursor=2, metadata={"by": "us"}),
            Append(PAYMENT, numbered(3), expected_cursor=0),
            Append(PARCEL, iter(numbered(1)), commit_id="c", snapshot=b"state"),
        ]
        assert store.append_all(iter(group)) == [3, 3, 1]
        assert list(store.stream(ORDER)) == numbered(3)
        assert [record.metadata for record in store.stream_records(ORDER, after=2)] == [{"by": "us"}]
        assert list(store.stream(PAYMENT)) == numbered(3)
        assert store.load_snapshot(PARCEL) == (1, b"state")
        assert set(store.list()) == {ORDER, PAYMENT, PARCEL}
        assert store.append(PARCEL, numbered(5), commit_id="c") == 1

    def test_an_empty_group_is_fine(self, store: Any) -> None:
        assert store.append_all([]) == []
        assert list(store.list()) == []

    def test_a_commit_without_events_checks_a_cursor(self, store: Any) -> None:
        store.append(ORDER, numbered(2))
        guard = Append(ORDER, [], expected_cursor=2)
        assert store.append_all([guard, Append(PAYMENT, numbered(1))]) == [2, 1]
        assert store.append_all([guard, Append(PARCEL, [])]) == [2, 0]
        store.append(ORDER, numbered(1))
        error = raised_error(guard, lambda: store.append_all([Append(PAYMENT, numbered(1)), guard]), GroupRejected)
        assert (error.index, error.workflow_id) == (1, ORDER)
        assert store.cursor(PAYMENT) == 1
        assert not store.exists(PARCEL)

    @pytest.mark.parametrize("place", [0, 1, 2])
    @pytest.mark.parametrize("reason", REJECTED)
    def test_if_one_commit_is_rejected_nothing_is_stored(self, store: Any, reason: str, place: int) -> None:
        store.append(ORDER, numbered(1))
        store.append(PAYMENT, numbered(2))
        make, cause = REJECTED[reason]
        commit = make(store)
        others = [Append(ORDER, [{"fact": Fact("value")}], snapshot=b"s", queue="orders"), Append(PARCEL, numbered(1))]
        group = [*others[:place], commit, *others[place:]]
        error = raised_error(reason, lambda: store.append_all(group), GroupRejected)
        assert (error.index, error.workflow_id) == (place, PAYMENT)
        assert type(error.__cause__) is cause
        assert "othing of the group was stored" in str(error)
        assert store.cursor(ORDER) == 1
        assert list(store.stream(PAYMENT)) == numbered(2)
        assert not store.exists(PARCEL)
        assert store.claim("me", queues=["orders"]) == []
        assert store.append_all(others) == [2, 1]

    def test_each_commit_has_its_own_lease_and_queue(self, store: Any) -> None:
        order = store.acquire(ORDER, "me")
        store.append_all(
            [
                Append(ORDER, numbered(1), lease=order),
                Append(PAYMENT, numbered(1), queue="payments"),
                Append(PARCEL, numbered(1), queue="parcels", due=1000),
            ]
        )
        (payment,) = store.claim("you", 5, queues=["payments", "parcels"])
        assert payment.workflow_id == PAYMENT
        # It is in another queue than a caller without its lease expects.
        assert store.append_all([Append(PAYMENT, numbered(1), queue="parcels"), Append(ORDER, numbered(1))]) == [2, 2]
        store.release(order)
        store.release(payment)
        error = raised_error(
            order,
            lambda: store.append_all([Append(PAYMENT, numbered(1)), Append(ORDER, numbered(1), lease=order)]),
            GroupRejected,
        )
        assert isinstance(error.__cause__, LeaseLost)
        assert [store.cursor(one) for one in (ORDER, PAYMENT, PARCEL)] == [2, 2, 1]

    def test_facts_are_stored_with_the_group(self, store: Any) -> None:
        value, other = {"large": "x" * 1000}, "small"
        store.append_all(
            [Append(ORDER, [{"f": Fact(value)}, {"f": Fact(other)}]), Append(PAYMENT, [{"f": Fact(value)}])]
        )
        (first, second), (third,) = store.stream(ORDER), store.stream(PAYMENT)
        assert store.load_fact(first["f"].hash) == value
        assert store.load_fact(second["f"].hash) == other
        assert third == first

    def test_a_group_whose_commit_ids_are_all_stored_is_not_stored_again(self, store: Any) -> None:
        group = [Append(ORDER, numbered(2), commit_id="a"), Append(PAYMENT, numbered(1), commit_id="a")]
        assert store.append_all(group) == [2, 1]
        store.append(ORDER, numbered(1))
        assert store.append_all(group) == [2, 1]
        assert [store.cursor(one) for one in (ORDER, PAYMENT)] == [3, 1]
        for mixed in (
            [*group, Append(PARCEL, numbered(1))],
            [*group, Append(PARCEL, numbered(1), commit_id="a")],
            [group[0], Append(PAYMENT, numbered(1), commit_id="b")],
        ):
            error = raised_error(mixed, partial(store.append_all, mixed), GroupRejected)
            assert (error.index, error.workflow_id, error.__cause__) == (0, ORDER, None)
        assert [store.cursor(one) for one in (ORDER, PAYMENT, PARCEL)] == [3, 1, 0]

    def test_bad_groups_change_nothing(self, store: Any) -> None:
        good = Append(ORDER, numbered(1))
        for bad in (5, None, "ab", {"a": good}, [5], [(ORDER, numbered(1))], [good, Append(5, [])]):  # type: ignore[arg-type]
            raised_error(bad, partial(store.append_all, bad), InvalidType)
        for wrong in (
            Append(ORDER, numbered(1)),
            Append("", numbered(1)),
            Append(PAYMENT, numbered(1), expected_cursor=-1),
            Append(PAYMENT, numbered(1), metadata={"large": "x" * 70_000}),
            Append(PAYMENT, [], snapshot=b"s"),
            Append(PAYMENT, numbered(1), due=5),
            Append(PAYMENT, numbered(1), lease=store.acquire("leased", "me")),
        ):
            raised_error(wrong, partial(store.append_all, [good, wrong]), InvalidArgument)
        error = raised_error("events", lambda: store.append_all([good, Append(PAYMENT, [object()])]), EncodeError)
        assert f"items[1], for the workflow '{PAYMENT}'" in "".join(error.__notes__)
        assert list(store.list()) == ["leased"]

    def test_a_large_group_is_stored_whole(self, store: Any) -> None:
        group = [Append(f"w-{number}-{{42}}", [{"n": number, "pad": "x" * 9000}]) for number in range(200)]
        group.append(Append(ORDER, [{"n": number, "text": "x" * 100_000} for number in range(30)]))
        assert store.append_all(group) == [1] * 200 + [30]
        assert [list(store.stream(one.workflow_id)) for one in group] == [one.events for one in group]

    def test_of_groups_that_race_each_is_stored_whole(self, elsewhere: Elsewhere, store: Any) -> None:
        store.append("made", numbered(1))
        stored = elsewhere(_move, *((seed, 25) for seed in range(4)))
        cursors = [store.cursor(one) for one in (ORDER, PAYMENT, PARCEL, CUSTOMER)]
        assert sum(stored) > 0
        assert sum(cursors) == 2 * sum(stored)

    def test_a_reader_sees_no_part_of_a_group(self, elsewhere: Elsewhere, store: Any) -> None:
        store.append("made", numbered(1))
        elsewhere(_run_one, ("append", 100), ("look", 100), ("look", 100))


def _run_one(store: Any, what: str, count: int) -> None:
    {"append": _append_pairs, "look": _look_for_parts}[what](store, count)
