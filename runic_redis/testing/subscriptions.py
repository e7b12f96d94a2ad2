"""Subscriptions: named readers of the feed, whose consumers share it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import Any

import pytest

from runic_redis.errors import FeedTrimmed, InvalidArgument, LeaseHeld
from runic_redis.testing.base import Contract, Elsewhere, Opener
from runic_redis.testing.examples import OrderPaid, OrderPlaced, numbered

# Long enough that no lease ends by itself in a case.
_LONG = 600.0


def append_numbers(store: Any, ids: list[str], first: int, count: int) -> None:
    """Append so many commits of one event to each workflow."""
    for number in range(first, first + count):
        for workflow_id in ids:
            store.append(workflow_id, [{"n": number}])


def handled(commit: Any) -> tuple[str, int]:
    """Return what a case compares of a commit."""
    return commit.workflow_id, commit.events[0]["n"]


def consume(store: Any) -> list[tuple[str, int]]:
    """Handle commits of the subscription "shared" until all consumers together have acknowledged all."""
    done: list[tuple[str, int]] = []
    with store.subscribe("shared", ttl=3.0, wait_s=0.1) as subscription:
        while store.subscriptions()[0].lag_events:
            for commit in subscription:
                done.append(handled(commit))
                subscription.ack(commit)
    return done


class Failing:
    """A handler that fails for some commits, so often."""

    def __init__(self, times: dict[tuple[str, int], int]) -> None:
        self.left = times
        self.seen: list[tuple[str, int]] = []
        self.done: list[tuple[str, int]] = []

    def __call__(self, commit: Any) -> None:
        one = handled(commit)
        self.seen.append(one)
        if self.left.get(one, 0) > 0:
            self.left[one] -= 1
            raise ValueError(f"no {one[1]}")
        self.done.append(one)

    def of(self, workflow_id: str) -> list[int]:
        """Return the numbers that were handled of a workflow."""
        return [number for one, number in self.done if one == workflow_id]


class SubscriptionContract(Contract):
    """`subscribe`, `subscriptions`, `parked`, and what belongs to them. The namespace has a feed."""

    @pytest.fixture
    def subscribe(self, store: Any) -> Callable[..., Any]:
        """Return a function that subscribes under the name "mailer", without waiting for commits."""

        def call(**options: Any) -> Any:
            return store.subscribe("mailer", **{"wait_s": 0, "ttl": _LONG, **options})

        return call

    def test_a_trimmed_subscription_begins_again_with_a_rebuild(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["order-1", "order-2"], 0, 5)
        with subscribe() as subscription:
            for commit in islice(subscription, 2):
                subscription.ack(commit)
        assert store.trim_feed(keep=1) <= 2, "what the subscription has not read stays"
        assert store.trim_feed(keep=1, force=True) > 0
        with pytest.raises(FeedTrimmed, match="start='rebuild'"), subscribe() as subscription:
            list(subscription)
        append_numbers(store, ["order-3"], 0, 1)
        for expected in (11, 0):
            with subscribe(start="rebuild") as subscription:
                commits = list(subscription)
                assert len(commits) == len({handled(one) for one in commits}) == expected
                for commit in commits:
                    subscription.ack(commit)

    def test_each_commit_is_delivered_until_it_is_acknowledged(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["a", "b"], 1, 3)
        with subscribe() as subscription:
            first = [handled(commit) for commit in subscription]
            assert sorted(first) == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("b", 3)]
            assert [n for one, n in first if one == "a"] == [1, 2, 3]
            assert list(subscription) == []
        with subscribe() as subscription:
            for commit in subscription:
                subscription.ack(commit)
                if handled(commit) == ("a", 2):
                    break
        with subscribe() as subscription:
            left = [handled(commit) for commit in subscription]
        assert [n for one, n in left if one == "a"] == [3]
        assert sorted(set(first) - set(left)) == sorted(set(first[: first.index(("a", 2)) + 1]))

    def test_an_acknowledgement_covers_all_that_came_before_it(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["a", "b", "c"], 1, 4)
        with subscribe() as subscription:
            commits = list(islice(subscription, 7))
            subscription.ack(commits[-1])
            subscription.ack(commits[0])  # it is acknowledged already
        with subscribe() as subscription:
            assert len(list(subscription)) == 5

    def test_new_commits_are_waited_for(self, opener: Opener, subscribe: Any) -> None:
        with closing(opener()) as writer, subscribe(wait_s=None) as subscription, ThreadPoolExecutor(1) as pool:
            for number in range(3):
                coming = pool.submit(next, subscription)
                writer.append("a", [{"n": number}])
                commit = coming.result()
                assert handled(commit) == ("a", number)
                subscription.ack(commit)

    def test_closing_a_subscription_ends_the_step_that_waits(self, subscribe: Any) -> None:
        with ThreadPoolExecutor(1) as pool, subscribe(wait_s=None) as subscription:
            rest = pool.submit(list, subscription)
            subscription.close()
            assert rest.result() == []

    def test_the_start_counts_for_the_first_call(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["a", "b"], 1, 1)
        with subscribe(start="now") as subscription:
            assert list(subscription) == []
        append_numbers(store, ["a", "b"], 2, 1)
        with subscribe(start="beginning") as subscription:
            assert sorted(map(handled, subscription)) == [("a", 2), ("b", 2)]
        positions = next(iter(store.feed())).positions
        with store.subscribe("other", start=positions, wait_s=0) as subscription:
            assert len(list(subscription)) == 3

    def test_only_wanted_commits_are_delivered(self, store: Any, subscribe: Any) -> None:
        store.append("order-1", numbered(2))
        store.append("order-1", [{"type": "noted"}])
        store.append("other-1", numbered(1))
        store.append("order-2", [OrderPaid(1.0)])
        with subscribe(prefix="order-", types=[OrderPlaced, "noted"]) as subscription:
            assert [(commit.workflow_id, commit.cursor) for commit in subscription] == [("order-1", 2), ("order-1", 3)]
        with subscribe(prefix="order-", types=["noted", OrderPlaced]) as subscription:
            for commit in subscription:
                subscription.ack(commit)
            # The positions have moved past the others, too.
            (status,) = store.subscriptions()
            assert (status.prefix, status.types, status.lag_events) == (
                *("order-", ("noted", "runic_redis.testing.order_placed")),
                0,
            )
        for other in ({}, {"prefix": "order"}, {"prefix": "order-", "types": ["noted"]}):
            with pytest.raises(InvalidArgument, match="fixed by the first subscribe"):
                subscribe(**other)

    def test_a_batch_is_stored_once_it_is_full_and_before_a_wait(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["a"], 1, 5)

        def stored() -> int:
            return int(store.subscriptions()[0].lag_events)

        with subscribe(batch=2) as subscription:
            lags = []
            for commit in islice(subscription, 5):
                subscription.ack(commit)
                lags.append(stored())
            assert lags == [5, 3, 3, 1, 1]
            assert list(subscription) == []
            assert stored() == 0
            append_numbers(store, ["a"], 6, 1)
            subscription.ack(next(subscription))
            assert stored() == 1
        assert stored() == 0

    def test_deletions_are_delivered(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["a"], 1, 2)
        store.delete("a")
        with subscribe() as subscription:
            (commit,) = subscription
            assert (commit.workflow_id, commit.deleted, commit.events) == ("a", True, [])
            subscription.ack(commit)
            assert list(subscription) == []

    def test_consumers_share_the_partitions_and_each_commit_goes_to_one(self, store: Any, opener: Opener) -> None:
        count = store.context.keys.partitions
        with closing(opener()) as other, store.subscribe("mailer", ttl=3.0, wait_s=0.2) as one:
            assert len(one.partitions) == count
            with other.subscribe("mailer", ttl=3.0, wait_s=0.2) as two:
                ids = [f"w-{number}" for number in range(40)]
                done: list[tuple[str, int]] = []
                number = 0
                # Until each has its half, and some more.
                rounds = 0
                while rounds < 3:
                    rounds += len(one.partitions) == len(two.partitions) == count // 2
                    append_numbers(store, ids, number, 1)
                    number += 1
                    for subscription in (one, two):
                        for commit in subscription:
                            done.append(handled(commit))
                            subscription.ack(commit)
                assert not set(one.partitions) & set(two.partitions)
                consumers = {one.consumer_id: count // 2, two.consumer_id: count // 2}
                assert store.subscriptions()[0].consumers == consumers
            # What is left when the second one is closed comes to the first.
            while len(one.partitions) < count:
                for commit in one:
                    done.append(handled(commit))
                    one.ack(commit)
        with store.subscribe("mailer", wait_s=0) as one:
            done += map(handled, one)
        assert sorted(done) == sorted((workflow_id, n) for workflow_id in ids for n in range(number))
        for workflow_id in ids:
            assert [n for one, n in done if one == workflow_id] == list(range(number))

    def test_processes_share_a_subscription(self, store: Any, elsewhere: Elsewhere) -> None:
        ids = [f"w-{number}" for number in range(30)]
        append_numbers(store, ids, 0, 10)
        done = elsewhere(consume, (), ())
        assert sorted(one for some in done for one in some) == sorted((one, n) for one in ids for n in range(10))

    def test_a_partition_moves_once_its_commits_are_acknowledged(self, store: Any, opener: Opener) -> None:
        append_numbers(store, ["a"], 1, 2)
        with closing(opener()) as other, store.subscribe("mailer", ttl=1.0, wait_s=0.1) as one:
            first = next(one)
            with other.subscribe("mailer", ttl=1.0, wait_s=0.1) as two:
                half = store.context.keys.partitions // 2
                while len(two.partitions) < half:
                    list(two)
                while len(one.partitions) > half:
                    assert first.partition in one.partitions
                    one.ack(first)
                    list(islice(one, 1))
                left = [commit for subscription in (one, two) for commit in subscription]
                assert len(left) <= 1

    def test_a_handler_is_called_again_until_it_succeeds(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["a"], 1, 3)
        handler = Failing({("a", 2): 3})
        with subscribe() as subscription:
            subscription.run(handler, first_delay=0.001)
            assert handler.seen == [("a", 1)] + [("a", 2)] * 4 + [("a", 3)]
            assert store.subscriptions()[0].lag_events == 0
            assert store.subscriptions()[0].failing == {}

    def test_after_the_last_attempt_the_error_is_raised_and_nothing_is_acknowledged(
        self, store: Any, subscribe: Any
    ) -> None:
        append_numbers(store, ["a"], 1, 2)
        handler = Failing({("a", 1): 4})
        with subscribe() as subscription, pytest.raises(ValueError, match="no 1"):
            subscription.run(handler, attempts=2, first_delay=0.001)
        (failing,) = store.subscriptions()[0].failing.values()
        assert failing == (2, "ValueError: no 1")
        # The attempts are counted across restarts.
        with subscribe() as subscription, pytest.raises(ValueError, match="no 1"):
            subscription.run(handler, attempts=4, first_delay=0.001)
        assert handler.seen == [("a", 1)] * 4
        with subscribe() as subscription:
            subscription.run(handler, attempts=4, first_delay=0.001)
        assert handler.done == [("a", 1), ("a", 2)]

    def test_a_parked_commit_holds_back_its_workflow_and_no_other(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["a", "b"], 1, 3)
        handler = Failing({("a", 2): 2})
        with subscribe() as subscription:
            subscription.run(handler, attempts=2, on_failure="park", first_delay=0.001)
            assert (handler.of("a"), handler.of("b")) == ([1], [1, 2, 3])
            parked, waiting = store.parked("mailer")
            assert (parked.workflow_id, parked.cursor, parked.state) == ("a", 2, "parked")
            assert (parked.reason, parked.attempts) == ("ValueError: no 2", 2)
            assert (waiting.workflow_id, waiting.cursor, waiting.state, waiting.reason) == ("a", 3, "waiting", "")
            assert store.subscriptions()[0].parked == 2
            assert store.subscriptions()[0].lag_events == 0
            # Also those that come later, and after a restart.
            append_numbers(store, ["a"], 4, 1)
        with subscribe() as subscription:
            subscription.run(handler)
            assert handler.of("a") == [1]
            append_numbers(store, ["a", "b"], 5, 1)
            assert store.replay_parked("mailer", "a") == 1
            subscription.run(handler)
            assert (handler.of("a"), handler.of("b")) == ([1, 2, 3, 4, 5], [1, 2, 3, 5])
            assert store.parked("mailer") == []
            append_numbers(store, ["a"], 6, 1)
            subscription.run(handler)
        assert handler.of("a") == [1, 2, 3, 4, 5, 6]
        assert store.subscriptions()[0].parked == 0

    def test_a_dropped_commit_is_not_delivered_and_those_behind_it_are(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["a"], 1, 4)
        handler = Failing({("a", 2): 1})
        with subscribe() as subscription:
            subscription.run(handler, attempts=1, on_failure="park")
            assert store.drop_parked("mailer", "b") == 0
            assert store.drop_parked("mailer", "a") == 1
            subscription.run(handler)
        assert handler.of("a") == [1, 3, 4]
        assert store.parked("mailer") == []

    def test_a_replayed_commit_may_be_parked_again(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["a"], 1, 3)
        handler = Failing({("a", 1): 2, ("a", 2): 1})
        with subscribe() as subscription:
            for _ in range(3):
                subscription.run(handler, attempts=1, on_failure="park")
                (parked, *_) = store.parked("mailer")
                assert store.replay_parked("mailer", "a") == 1
            assert parked.cursor == 2
            subscription.run(handler, attempts=1, on_failure="park")
        assert handler.seen == [("a", 1), ("a", 1), ("a", 1), ("a", 2), ("a", 2), ("a", 3)]
        assert handler.of("a") == [1, 2, 3]

    def test_later_commits_may_be_parked_too(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["a"], 1, 4)
        handler = Failing({("a", 2): 1})
        with subscribe(later="park") as subscription:
            subscription.run(handler, attempts=1, on_failure="park")
            assert [(one.cursor, one.state, one.attempts) for one in store.parked("mailer")] == [
                (2, "parked", 1),
                (3, "parked", 0),
                (4, "parked", 0),
            ]
            assert store.replay_parked("mailer", "a") == 3
            subscription.run(handler)
            assert handler.of("a") == [1, 2, 3, 4]
            subscription.run(handler)
            append_numbers(store, ["a"], 5, 2)
            handler.left = {("a", 5): 1}
            subscription.run(handler, attempts=1, on_failure="park")
            assert store.drop_parked("mailer", "a") == 2
            append_numbers(store, ["a"], 7, 1)
            subscription.run(handler)
        assert handler.of("a") == [1, 2, 3, 4, 7]

    def test_an_iterator_can_park(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["a", "b"], 1, 2)
        with subscribe() as subscription:
            commit = next(subscription)
            subscription.park(commit, "not now")
            rest = list(subscription)
            assert {one.workflow_id for one in rest} == {"a", "b"} - {commit.workflow_id}
            assert [one.reason for one in store.parked("mailer")] == ["not now", ""]

    def test_many_commits_wait_in_order_behind_a_parked_one(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["a"], 0, 1)
        handler = Failing({("a", 0): 1})
        with subscribe() as subscription:
            subscription.run(handler, attempts=1, on_failure="park")
            store.append_many([("a", [{"n": number}]) for number in range(1, 400)])
            subscription.run(handler)
            assert len(store.parked("mailer")) == 400
            store.replay_parked("mailer", "a")
            store.append("a", [{"n": 400}])
            subscription.run(handler)
        assert handler.of("a") == list(range(401))
        assert store.parked("mailer") == []

    def test_commits_behind_one_that_is_not_acknowledged_are_put_aside_with_it(
        self, store: Any, subscribe: Any
    ) -> None:
        ids = ["{same}a", "{same}b"]  # of one partition
        append_numbers(store, ids, 1, 2)
        with subscribe() as subscription:
            subscription.park(next(subscription), "no")
            append_numbers(store, ids, 3, 1)
            held, *others = subscription
            assert [handled(commit) for commit in (held, *others)] == [("{same}b", n) for n in (1, 2, 3)]
            # What was put aside before a commit is stored with it.
            for count, commit in enumerate((held, *others), 1):
                subscription.ack(commit)
                assert len(store.parked("mailer")) == count
        assert store.subscriptions()[0].lag_events == 0

    def test_a_deleted_workflow_is_passed_over_when_it_is_replayed(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["a"], 1, 2)
        with subscribe() as subscription:
            subscription.park(next(subscription), "no")
            store.delete("a")
            append_numbers(store, ["a"], 3, 1)
            list(subscription)
            store.replay_parked("mailer", "a")
            assert [(commit.deleted, commit.events) for commit in subscription] == [(True, []), (False, [{"n": 3}])]

    def test_a_subscription_is_deleted_once_it_has_no_consumers(self, store: Any, subscribe: Any) -> None:
        append_numbers(store, ["a"], 1, 1)
        with subscribe() as subscription:
            subscription.park(next(subscription), "no")
            with pytest.raises(LeaseHeld, match="live consumers"):
                store.delete_subscription("mailer")
        assert [status.name for status in store.subscriptions()] == ["mailer"]
        store.delete_subscription("mailer")
        store.delete_subscription("mailer")
        assert (store.subscriptions(), store.parked("mailer")) == ([], [])
        with subscribe(prefix="a") as subscription:
            assert len(list(subscription)) == 1

    def test_the_lag_counts_what_is_not_acknowledged(self, store: Any, subscribe: Any) -> None:
        assert store.subscriptions() == []
        with subscribe() as subscription:
            assert [(one.lag_events, one.lag_s) for one in store.subscriptions()] == [(0, 0.0)]
            store.append("a", [{"n": 1}, {"n": 2}])
            (status,) = store.subscriptions()
            assert status.lag_events == 2
            assert status.lag_s >= 0
            assert status.name == subscription.name == "mailer"
            commit = next(subscription)
            subscription.ack(commit)
            (status,) = store.subscriptions()
            assert (status.lag_events, status.lag_s) == (0, 0.0)
            assert status.positions.places[commit.partition].position == commit.position == 2

    @pytest.mark.parametrize("name", ["", "a b", "a:b", "ä", "x" * 101, 5, None], ids=repr)
    def test_a_name_that_is_none_is_refused(self, store: Any, name: Any) -> None:
        for call in (store.subscribe, store.parked, store.delete_subscription):
            with pytest.raises(InvalidArgument):
                call(name)

    @pytest.mark.parametrize(
        "options",
        [
            *({"ttl": 0}, {"ttl": -1}, {"ttl": "1"}, {"batch": 0}, {"batch": 1.5}, {"start": "then"}, {"later": "no"}),
            *({"prefix": 5}, {"types": []}, {"types": "a"}, {"wait_s": -1}, {"start": 5.0}),
        ],
        ids=repr,
    )
    def test_bad_options_are_refused(self, subscribe: Any, options: Any) -> None:
        with pytest.raises(InvalidArgument, match=next(iter(options))):
            subscribe(**options)

    @pytest.mark.parametrize(
        "options",
        [{"attempts": 0}, {"attempts": -1}, {"on_failure": "x"}, {"on_failure": "park"}, {"first_delay": -1}],
        ids=repr,
    )
    def test_bad_options_of_run_are_refused(self, store: Any, subscribe: Any, options: Any) -> None:
        append_numbers(store, ["a"], 1, 1)
        with subscribe() as subscription:
            with pytest.raises(InvalidArgument, match=next(iter(options))):
                subscription.run(print, **options)
            assert len(list(subscription)) == 1
