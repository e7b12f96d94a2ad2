"""Projections: states that are folded from the feed and saved with their positions."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from runic_redis.errors import EncodeError, InvalidArgument, InvalidType, StoreError
from runic_redis.recovery import ByRecoveryTime, EveryBytes, EveryEvents, SnapshotPolicy, projection
from runic_redis.testing.base import Contract, Elsewhere, raised_error
from runic_redis.testing.examples import OrderPaid, OrderPlaced, numbered


def total(state: dict[str, int], commit: Any) -> dict[str, int]:
    """Add up the numbers of all events, by workflow. It changes the state in place."""
    for event in commit.events:
        state[commit.workflow_id] = state.get(commit.workflow_id, 0) + event.quantity
    return state


def count(state: int, commit: Any) -> int:
    """Count events, and return another state."""
    return state + len(commit.events)


def stopping(store: Any, name: str, **options: Any) -> Any:
    """Return a projection that counts events, and stops itself at each commit."""
    made: list[Any] = []

    def apply(state: int, commit: Any) -> int:
        made[0].stop()
        return count(state, commit)

    made.append(projection(store, name, apply, 0, policy=None, **options))
    return made[0]


def append_counts(store: Any, commits: int = 30) -> dict[str, int]:
    """Append commits of one to three events to some workflows. Return the sum of the numbers in each."""
    sums: dict[str, int] = {}
    for number in range(commits):
        workflow_id = f"order-{number % 7}"
        events = numbered(number % 3 + 1, number)
        store.append(workflow_id, events)
        sums[workflow_id] = sums.get(workflow_id, 0) + sum(event.quantity for event in events)
    return sums


def _append_each(store: Any, writer: int, commits: int) -> None:
    for number in range(commits):
        store.append(f"order-{writer}-{number % 3}", numbered(number % 3 + 1))


class ProjectionContract(Contract):
    """`projection`, in a namespace that has a feed: the opener makes it so."""

    def test_each_event_is_in_the_state_once(self, store: Any) -> None:
        sums = append_counts(store)
        with projection(store, "totals", total, {}) as totals:
            totals.catch_up()
            assert totals.state == sums
            totals.catch_up()
            assert totals.state == sums
            store.append("order-1", numbered(2))
            totals.catch_up()
            assert totals.state == {**sums, "order-1": sums["order-1"] + 3}

    def test_the_next_entry_goes_on_from_what_is_saved(self, store: Any) -> None:
        sums = append_counts(store)
        with projection(store, "totals", total, {}) as totals:
            totals.catch_up()
        store.append("order-1", numbered(2))
        seen = []

        def apply(state: dict[str, int], commit: Any) -> dict[str, int]:
            seen.append((commit.workflow_id, len(commit.events)))
            return total(state, commit)

        with projection(store, "totals", apply, {}) as totals:
            assert totals.state == sums
            totals.catch_up()
            assert totals.state == {**sums, "order-1": sums["order-1"] + 3}
        assert seen == [("order-1", 2)]

    def test_the_positions_are_those_of_the_state(self, store: Any) -> None:
        append_counts(store)
        with projection(store, "count", count, 0) as counted:
            counted.catch_up()
            positions = counted.positions
        store.append("order-1", numbered(2))
        assert sum(place.position for place in positions.places) == counted.state
        assert [one.workflow_id for one in store.feed(after=positions)] == ["order-1"]

    def test_the_initial_state_is_not_changed(self, store: Any) -> None:
        append_counts(store)
        initial: dict[str, int] = {}
        with projection(store, "totals", total, initial) as totals:
            totals.catch_up()
        assert not initial
        with projection(store, "made", total, dict) as totals:
            assert totals.state == {}

    def test_a_projection_of_nothing_saves_its_initial_state(self, store: Any) -> None:
        with projection(store, "count", count, 7) as counted:
            counted.catch_up()
        assert store.load_projection("count").state == 7

    def test_a_normal_exit_saves_the_state_and_an_exception_does_not(self, store: Any) -> None:
        class LeftByTheUserError(Exception):
            pass

        store.append("order-1", numbered(1))
        for kind in (LeftByTheUserError, None):
            try:
                with stopping(store, "count") as stopped:
                    stopped.catch_up()
                    assert stopped.state == 1
                    if kind is not None:
                        raise kind
            except LeftByTheUserError:
                assert store.load_projection("count") is None
        assert store.load_projection("count").state == 1

    @pytest.mark.parametrize(
        ("policy", "saves"),
        [
            (EveryEvents(10), {0, 10, 20}),
            (EveryEvents(1), set(range(30))),
            (EveryBytes(1), set(range(30))),
            (ByRecoveryTime(1e-9), set(range(30))),
            (EveryEvents(1000), {0}),
            (None, {0}),
        ],
        ids=str,
    )
    def test_the_state_is_saved_when_the_policy_says_so(
        self, store: Any, policy: SnapshotPolicy | None, saves: set[int]
    ) -> None:
        for number in range(30):
            store.append(f"order-{number % 7}", numbered(1))
        seen = set()

        def apply(state: int, commit: Any) -> int:
            saved = store.load_projection("count")
            seen.add(0 if saved is None else saved.state)
            return count(state, commit)

        with projection(store, "count", apply, 0, policy=policy) as counted:
            counted.catch_up()
        assert seen == saves
        assert store.load_projection("count").state == 30

    def test_only_what_fits_the_filter_is_folded(self, store: Any) -> None:
        store.append("order-1", [OrderPlaced("Ada", 1), OrderPaid(1.0)])
        store.append("order-2", [OrderPlaced("Bob", 2)])
        store.append("other", [OrderPaid(2.0)])
        seen = []

        def apply(state: int, commit: Any) -> int:
            seen.append(commit.workflow_id)
            return count(state, commit)

        with projection(store, "paid", apply, 0, types=[OrderPaid]) as paid:
            paid.catch_up()
            assert sorted(seen) == ["order-1", "other"]
        with projection(store, "orders", apply, 0, prefix="order-") as orders:
            orders.catch_up()
            assert sorted(seen) == ["order-1", "order-1", "order-2", "other"]
        ends = sum(place.position for place in store.load_projection("paid").positions.places)
        assert ends == 4, "the positions pass what does not fit"

    def test_a_deletion_is_folded(self, store: Any) -> None:
        store.append("order-1", numbered(2))

        def apply(state: list[str], commit: Any) -> list[str]:
            return (
                [one for one in state if one != commit.workflow_id] if commit.deleted else [*state, commit.workflow_id]
            )

        with projection(store, "there", apply, []) as there:
            there.catch_up()
            assert there.state == ["order-1"]
            store.delete("order-1")
            there.catch_up()
            assert there.state == []

    def test_a_run_follows_new_commits_until_none_comes_or_it_is_stopped(self, store: Any) -> None:
        seen = Event()

        def apply(state: int, commit: Any) -> int:
            if commit.events[0].quantity == -1:
                seen.set()
            return count(state, commit)

        store.append("order-1", numbered(1))
        with projection(store, "count", apply, 0) as counted:
            counted.run(wait_s=0)
            assert counted.state == 1
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(counted.run)
                store.append("order-2", numbered(1))
                store.append("order-1", numbered(1, -1))
                assert seen.wait(60)
                counted.stop()
                running.result(60)
            assert counted.state == 3
        assert store.load_projection("count").state == 3

    def test_an_error_in_apply_is_raised_and_what_is_saved_stays(self, store: Any) -> None:
        store.append("order-1", numbered(2))
        fails = True

        def apply(state: dict[str, int], commit: Any) -> dict[str, int]:
            total(state, commit)
            if fails and state["order-1"] > 3:
                raise ZeroDivisionError
            return state

        with projection(store, "totals", apply, {}) as totals:
            totals.catch_up()
            store.append("order-1", numbered(1))
            with pytest.raises(ZeroDivisionError):
                totals.catch_up()
            with pytest.raises(StoreError, match="within apply"):
                totals.run(wait_s=0)
        assert store.load_projection("totals").state == {"order-1": 3}
        fails = False
        with totals:
            totals.catch_up()
            assert totals.state == {"order-1": 4}

    def test_an_apply_that_returns_nothing_is_rejected(self, store: Any) -> None:
        store.append("order-1", numbered(1))
        initial: Any = {}
        said = "returned None for the commit of the workflow 'order-1' at cursor 1"
        with pytest.raises(InvalidType, match=said), projection(store, "p", lambda *_: None, initial) as nothing:
            nothing.catch_up()
        assert store.load_projection("p") is None

    def test_a_state_that_cannot_be_stored_is_rejected(self, store: Any) -> None:
        store.append("order-1", numbered(1))
        with pytest.raises(EncodeError), projection(store, "p", lambda *_: object(), 0) as wrong:
            wrong.catch_up()
        assert store.load_projection("p") is None

    def test_a_projection_that_was_not_entered_or_was_left_does_nothing(self, store: Any) -> None:
        counted = projection(store, "count", count, 0)
        for _ in range(2):
            for call in (counted.catch_up, counted.run, counted.rebuild):
                assert "has not been entered" in str(raised_error("not entered", call, StoreError))
            with counted:
                counted.catch_up()

    def test_a_deleted_projection_begins_again(self, store: Any) -> None:
        store.append("order-1", numbered(2))
        for initial in (0, 10):
            with projection(store, "count", count, initial) as counted:
                counted.catch_up()
                assert counted.state == initial + 2
            store.delete_projection("count")
            assert store.load_projection("count") is None
        store.delete_projection("count")

    def test_a_feed_is_not_trimmed_past_a_projection(self, store: Any) -> None:
        with projection(store, "count", count, 0) as counted:
            append_counts(store)
            store.trim_feed(keep=1)
            counted.catch_up()
            saved = store.load_projection("count").state
            assert saved == sum(store.cursor(f"order-{number}") for number in range(7))
            store.trim_feed(keep=1)
            store.append("order-1", numbered(1))
            counted.catch_up()
            assert counted.state == saved + 1

    def test_a_projection_is_listed_with_its_lag(self, store: Any) -> None:
        with projection(store, "count", count, 0, prefix="order-") as counted:
            counted.catch_up()
            append_counts(store)
            (status,) = store.subscriptions()
            events = sum(store.cursor(f"order-{number}") for number in range(7))
            assert (status.name, status.kind, status.prefix) == ("count", "projection", "order-")
            assert status.lag_events == events
            counted.catch_up()
            (status,) = store.subscriptions()
            assert (status.lag_events, status.positions) == (0, counted.positions)
        store.delete_projection("count")
        assert store.subscriptions() == []

    def test_projections_do_not_know_each_other(self, store: Any) -> None:
        append_counts(store)
        with projection(store, "a", count, 0) as a, projection(store, "b", count, 5) as b:
            a.catch_up()
            b.catch_up()
        store.delete_projection("a")
        assert store.load_projection("b").state == 5 + a.state

    def test_each_event_is_in_the_state_once_while_others_write(self, store: Any, elsewhere: Elsewhere) -> None:
        writers, commits = 3, 40
        with projection(store, "count", count, 0, policy=EveryEvents(7)) as counted, ThreadPoolExecutor(1) as pool:
            running = pool.submit(counted.run)
            elsewhere(_append_each, *((writer, commits) for writer in range(writers)))
            counted.stop()
            running.result(60)
        expected = writers * sum(number % 3 + 1 for number in range(commits))
        with projection(store, "count", count, 0) as counted:
            counted.catch_up()
            assert counted.state == expected

    def test_bad_arguments_are_rejected(self, store: Any) -> None:
        async def later(*_: Any) -> int:
            return 1

        calls: dict[str, Callable[[], Any]] = {
            "an empty name": lambda: projection(store, "", count, 0),
            "a name with a colon": lambda: projection(store, "a:b", count, 0),
            "a name in bytes": lambda: projection(store, b"a", count, 0),  # type: ignore[arg-type]
            "version 0": lambda: projection(store, "p", count, 0, version=0),
            "a version in text": lambda: projection(store, "p", count, 0, version="1"),  # type: ignore[arg-type]
            "an async apply": lambda: projection(store, "p", later, 0),
            "a number as policy": lambda: projection(store, "p", count, 0, policy=100),  # type: ignore[arg-type]
            "a negative ttl": lambda: projection(store, "p", count, 0, ttl=-1),
            "a negative wait": lambda: projection(store, "p", count, 0, wait_s=-1),
            "a store without a feed": lambda: projection(object(), "p", count, 0),
            "a name to load": lambda: store.load_projection("a b"),
            "a name to delete": lambda: store.delete_projection(""),
        }
        for given, call in calls.items():
            raised_error(given, call, InvalidArgument)
