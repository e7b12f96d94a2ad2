"""The runners of projections: leases, versions, and rebuilds."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runic_redis.errors import FeedTrimmed, InvalidArgument, LeaseHeld, LeaseLost, StoreError
from runic_redis.operations.projections import Runner, Saved, acquire_projection, save_projection
from runic_redis.operations.subscriptions import Settings
from runic_redis.positions import Positions
from runic_redis.recovery import EveryEvents, projection
from runic_redis.testing.base import Contract, Opener
from runic_redis.testing.examples import numbered
from runic_redis.testing.projections import append_counts, count, stopping, total

SETTINGS = Settings("projection", "beginning", "", None, 0)


class ProjectionRunnerContract(Contract):
    """Which runner may save a projection, in a namespace that has a feed: the opener makes it so."""

    def test_any_process_reads_the_saved_state(self, store: Any, opener: Opener) -> None:
        assert store.load_projection("totals") is None
        sums = append_counts(store)
        with projection(store, "totals", total, {}, version=3) as totals:
            assert store.load_projection("totals") is None
            totals.catch_up()
            with opener() as other:
                saved = other.load_projection("totals")
            assert (saved.state, saved.version, saved.positions) == (sums, 3, totals.positions)
            assert abs(saved.time - datetime.now(UTC)) < timedelta(hours=1)

    def test_a_newer_version_takes_over_once_it_has_caught_up(self, store: Any) -> None:
        sums = append_counts(store)
        with projection(store, "p", count, 0) as old:
            old.catch_up()
        with (
            projection(store, "p", total, {}, version=2, policy=EveryEvents(1)) as new,
            projection(store, "p", count, 0) as old,
        ):
            assert store.load_projection("p").version == 1
            store.append("order-1", numbered(1))
            old.catch_up()
            assert store.load_projection("p").state == old.state
            new.catch_up()
            saved = store.load_projection("p")
            assert (saved.version, saved.state) == (2, {**sums, "order-1": sums["order-1"] + 1})
            store.append("order-1", numbered(1))
            with pytest.raises(LeaseLost):
                old.catch_up()
            new.catch_up()
            assert store.load_projection("p").state == new.state
        with pytest.raises(InvalidArgument, match="has the version 2"), projection(store, "p", count, 0):
            pass

    def test_a_version_that_is_interrupted_goes_on_beside_the_current_one(self, store: Any) -> None:
        for _ in range(10):
            store.append("order-1", numbered(1))
        with projection(store, "p", count, 100) as old:
            old.catch_up()
        with stopping(store, "p", version=2) as half:
            half.catch_up()
        assert store.load_projection("p").state == 110
        with projection(store, "p", count, 0, version=2) as new:
            assert new.state == 1
            new.catch_up()
        assert store.load_projection("p").state == 10

    def test_a_third_version_replaces_one_that_is_built(self, store: Any) -> None:
        append_counts(store)
        with projection(store, "p", count, 0) as first:
            first.catch_up()
        with projection(store, "p", count, 1000, version=2) as second:
            with projection(store, "p", count, 2000, version=3) as third:
                with pytest.raises(LeaseLost):
                    second.catch_up()
                assert store.load_projection("p").version == 1
                third.catch_up()
            assert store.load_projection("p").state == 2000 + first.state
            with pytest.raises(StoreError, match="enter it again"):
                second.catch_up()

    def test_one_process_runs_a_projection_at_a_time(self, store: Any, opener: Opener) -> None:
        with opener() as other:
            with projection(store, "count", count, 0):
                with (
                    pytest.raises(LeaseHeld, match="runs the projection 'count'") as caught,
                    projection(other, "count", count, 0, wait_s=0),
                ):
                    pass
                assert 0 < caught.value.left_s <= 30
            with projection(other, "count", count, 0, wait_s=0) as counted:
                counted.catch_up()

    def test_another_process_takes_over_when_the_first_one_leaves(self, store: Any, opener: Opener) -> None:
        store.append("order-1", numbered(3))

        def follow() -> int:
            with opener() as other, projection(other, "count", count, 0) as counted:
                store.append("order-1", numbered(1))
                counted.catch_up()
                return counted.state

        with ThreadPoolExecutor(1) as pool:
            with projection(store, "count", count, 0) as counted:
                running = pool.submit(follow)
                counted.catch_up()
                assert not running.done()
            assert running.result(60) == 4

    def test_another_process_takes_over_when_the_lease_of_the_first_one_has_ended(self, store: Any) -> None:
        store.append("order-1", numbered(3))
        dead, _ = store.run(acquire_projection(store.context, "count", 1, SETTINGS, "dead", 1), "projection")
        with projection(store, "count", count, 0, wait_s=60) as counted:
            counted.catch_up()
            save = Saved(1, Positions.start(store.context.keys.partitions), store.encode_state(99))
            with pytest.raises(LeaseLost) as caught:
                store.run(save_projection(store.context, dead, save, ""), "projection")
            assert caught.value.owner
        assert store.load_projection("count").state == 3

    def test_a_runner_that_was_replaced_saves_nothing(self, store: Any) -> None:
        append_counts(store)
        with projection(store, "count", count, 0) as counted:
            counted.catch_up()
            store.delete_projection("count")
            assert store.load_projection("count") is None
            with projection(store, "count", count, 1000) as another:
                another.catch_up()
                store.append("order-1", numbered(1))
                for _ in range(2):
                    with pytest.raises(StoreError, match="Nothing was saved"):
                        counted.catch_up()
                assert store.load_projection("count").state == another.state
                another.catch_up()
        assert store.load_projection("count").state == another.state

    def test_a_save_that_arrives_late_changes_nothing(self, store: Any) -> None:
        runner, _ = store.run(acquire_projection(store.context, "p", 1, SETTINGS, "me", 10_000), "projection")
        start = Positions.start(store.context.keys.partitions)
        saves = [Saved(number, start, store.encode_state(number)) for number in (1, 2, 3)]
        for save in (saves[0], saves[2], saves[1]):
            store.run(save_projection(store.context, runner, save, ""), "projection")
        assert store.load_projection("p").state == 3
        assert runner == Runner("p", 1, runner.token)
        stale = runner._replace(token=runner.token - 1)
        with pytest.raises(LeaseLost):
            store.run(save_projection(store.context, stale, saves[2]._replace(number=4), ""), "projection")

    def test_a_rebuild_computes_the_state_again_beside_the_saved_one(self, store: Any) -> None:
        sums = append_counts(store)
        with projection(store, "totals", total, {"before": 1}) as totals:
            totals.catch_up()
        seen = []

        def apply(state: dict[str, int], commit: Any) -> dict[str, int]:
            seen.append(store.load_projection("totals").state)
            return total(state, commit)

        with projection(store, "totals", apply, {}, policy=EveryEvents(5)) as totals:
            totals.rebuild()
            assert totals.state == sums
            store.append("order-1", numbered(1))
            totals.catch_up()
        assert seen == [{**sums, "before": 1}] * (len(seen) - 1) + [sums]
        assert store.load_projection("totals").state == {**sums, "order-1": sums["order-1"] + 1}

    def test_a_rebuild_that_was_interrupted_goes_on(self, store: Any) -> None:
        sums = append_counts(store)
        with projection(store, "count", count, 1000) as counted:
            counted.catch_up()
        with stopping(store, "count") as half:
            half.rebuild()
            assert half.state < 10
        assert store.load_projection("count").state > 1000
        store.append("order-1", numbered(1))
        with projection(store, "count", count, 2000) as counted:
            assert counted.state == half.state
            counted.catch_up()
        assert store.load_projection("count").state == counted.state == sum(store.cursor(one) for one in sums)

    def test_a_feed_that_was_trimmed_asks_for_a_rebuild(self, store: Any) -> None:
        sums = append_counts(store)
        store.trim_feed(keep=1)
        with projection(store, "totals", total, {}) as totals:
            with pytest.raises(FeedTrimmed, match=r"'totals' cannot go on .* Call its method rebuild"):
                totals.catch_up()
            totals.rebuild()
            assert totals.state == sums
