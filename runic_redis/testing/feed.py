"""The feed: the commits of all workflows, each once and whole, in the order of each partition."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from itertools import islice, product
from typing import Any

import pytest

from runic_redis import Append, GroupRejected
from runic_redis.errors import CursorConflict, EventsTrimmed, FeedTrimmed, InvalidArgument, LeaseLost, StoreError
from runic_redis.events import Fact
from runic_redis.positions import Place, Positions
from runic_redis.testing.base import Contract, Elsewhere, Opener, raised_error
from runic_redis.testing.examples import OrderPaid, OrderPlaced, append_each, numbered

ORDERS = [f"order-{number}" for number in range(5)]


def read_feed(store: Any, **options: Any) -> list[Any]:
    """Return the commits that a feed has now."""
    with closing(store.feed(**options)) as feed:
        return list(feed)


def without_place(commits: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return what each commit is, without its place in the order."""
    return [(one.workflow_id, one.cursor, one.events, one.metadata, one.deleted) for one in commits]


def by_workflow(commits: Iterable[Any]) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the commits of each workflow are, in the order of the feed."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for one in commits:
        found.setdefault(one.workflow_id, []).append((one.cursor, one.events, one.deleted))
    return found


def write_orders(store: Any, count: int = 40) -> list[tuple[Any, ...]]:
    """Append commits of one to three events to several workflows in turn. Return what each is, in order."""
    written = []
    for number in range(count):
        workflow_id = ORDERS[number % len(ORDERS)]
        events = numbered(number % 3 + 1, number)
        metadata = {"n": number} if number % 2 else None
        cursor = store.append(workflow_id, events, metadata=metadata)
        written.append((workflow_id, cursor, events, metadata, False))
    return written


def assert_no_gaps(commits: Iterable[Any]) -> None:
    """Check that the positions of each partition have no gaps, for a feed from the beginning on without a filter."""
    last: dict[int, int] = {}
    for one in commits:
        # A commit takes a position for each event; another change takes one.
        assert one.position == last.get(one.partition, 0) + (len(one.events) or 1)
        assert one.positions.places[one.partition].position == one.position
        last[one.partition] = one.position


class FeedContract(Contract):
    """`feed`, in a namespace that has one: the opener makes it so."""

    def test_each_commit_comes_once_and_whole_and_those_of_a_workflow_in_order(self, store: Any) -> None:
        written = write_orders(store)
        commits = read_feed(store)
        assert sorted(without_place(commits), key=repr) == sorted(written, key=repr)
        for workflow_id in ORDERS:
            expected = [one for one in written if one[0] == workflow_id]
            assert [one for one in without_place(commits) if one[0] == workflow_id] == expected
        assert_no_gaps(commits)
        assert [one.time for one in commits] == sorted(one.time for one in commits), "partitions are merged by time"

    def test_a_commit_has_the_times_and_events_of_its_stream(self, store: Any) -> None:
        write_orders(store)
        found: dict[str, list[tuple[Any, ...]]] = {}
        for one in read_feed(store):
            found.setdefault(one.workflow_id, []).extend((one.time, event, one.metadata) for event in one.events)
        for workflow_id in ORDERS:
            records = [(one.time, one.event, one.metadata) for one in store.stream_records(workflow_id)]
            assert found[workflow_id] == records

    def test_reading_goes_on_after_every_commit(self, store: Any, opener: Opener) -> None:
        write_orders(store, 20)
        store.delete(ORDERS[0])
        store.save("log-1", numbered(1))
        commits = read_feed(store)
        with closing(opener()) as other:
            assert read_feed(other) == commits
            for number, one in enumerate(commits, 1):
                text = Positions.parse(str(one.positions))
                stored = Positions.from_json(json.loads(json.dumps(one.positions.to_json())))
                assert text == stored == one.positions
                assert read_feed(other, after=stored) == commits[number:]

    def test_a_feed_knows_its_positions_at_each_step(self, store: Any) -> None:
        write_orders(store, 20)
        commits = read_feed(store)
        with closing(store.feed()) as feed:
            for one in feed:
                assert feed.positions == one.positions
            assert read_feed(store, after=feed.positions) == []
        with closing(store.feed(prefix="nobody")) as feed:
            assert list(feed) == []
            assert feed.positions == commits[-1].positions, "it also passes over commits that do not fit"

    def test_reading_ends_after_every_commit(self, store: Any) -> None:
        write_orders(store, 20)
        commits = read_feed(store)
        for number, one in enumerate(commits, 1):
            # Without a limit of time: it ends because the positions are reached.
            assert read_feed(store, until=one.positions, wait_s=None) == commits[:number]
        middle = commits[9].positions
        append_each(store, ORDERS[0], numbered(3))
        assert read_feed(store, after=middle, until=commits[-1].positions, wait_s=None) == commits[10:]
        assert read_feed(store, until=0, wait_s=None) == []
        assert read_feed(store, after=commits[-1].positions, until=middle, wait_s=None) == []

    def test_reading_of_many_pages_ends_at_its_positions(self, store: Any) -> None:
        written = write_orders(store, 200)
        until = read_feed(store)[-1].positions
        store.append("order-1", numbered(1))
        assert len(read_feed(store, until=until)) == len(written)

    def test_reading_starts_from_a_time(self, store: Any) -> None:
        times: list[datetime] = []
        while len(times) < 3:
            write_orders(store, 5)
            commits = read_feed(store)
            times = sorted({one.time for one in commits})
        just_after = timedelta(microseconds=1)
        for time in (*times, times[0] - just_after, *(time + just_after for time in times)):
            assert read_feed(store, since=time) == [one for one in commits if one.time >= time]
        in_another_zone = times[1].astimezone(timezone(timedelta(hours=-5)))
        assert read_feed(store, since=in_another_zone) == read_feed(store, since=times[1])
        assert read_feed(store, since=datetime.min.replace(tzinfo=UTC)) == commits
        assert read_feed(store, since=datetime.max.replace(tzinfo=UTC)) == []

    def test_reading_starts_now(self, store: Any) -> None:
        with closing(store.feed(start="now")) as feed:
            # An asyncio store finds the place at the first step.
            assert list(feed) == []
            store.append("order-1", numbered(2))
            assert by_workflow(feed) == {"order-1": [(2, numbered(2), False)]}
        assert read_feed(store, start="now") == []

    def test_only_workflows_with_a_prefix_can_be_read(self, store: Any) -> None:
        write_orders(store)
        store.append("payment-1", numbered(2))
        store.save("payment-2", numbered(1))
        store.delete("payment-1")
        commits = read_feed(store)
        for prefix in ("order-", "order-3", "payment-", "nobody", ""):
            assert read_feed(store, prefix=prefix) == [one for one in commits if one.workflow_id.startswith(prefix)]

    def test_only_commits_with_events_of_some_types_can_be_read_and_come_whole(self, store: Any) -> None:
        placed, paid, note = OrderPlaced("Ada"), OrderPaid(1.5), {"type": "note", "n": 1}
        for workflow_id, events in product(
            ("order-1", "payment-1"), ([placed], [paid, placed], [paid], [note], [{"n": 2}], [note, paid])
        ):
            store.append(workflow_id, events)
        store.save("log-1", [paid])
        store.delete("log-1")
        commits = read_feed(store)
        paid_name = "runic_redis.testing.order_paid"

        def of(*wanted: Any) -> list[Any]:
            return [one for one in commits if any(event in wanted for event in one.events)]

        for types, wanted in (
            ([OrderPaid], [paid]),
            ([paid_name], [paid]),
            ({OrderPlaced, OrderPaid}, [placed, paid]),
            ([OrderPlaced, paid_name], [placed, paid]),
            (["note"], [note]),
            (["dict"], [{"n": 2}]),
            (("dict", OrderPaid), [{"n": 2}, paid]),
            (["of no event"], []),
        ):
            assert read_feed(store, types=types) == of(*wanted)
        fitting = [one for one in of(paid) if one.workflow_id.startswith("pay")]
        assert read_feed(store, types=[OrderPaid], prefix="pay") == fitting
        for number, one in enumerate(fitting, 1):
            assert read_feed(store, types=[OrderPaid], prefix="pay", after=one.positions) == fitting[number:]

    def test_the_feed_has_large_commits_whole(self, store: Any) -> None:
        large = [{"n": n, "text": f"{n:08}" * 12_500} for n in range(40)]
        for number in range(3):
            store.append("order-1", large, metadata={"n": number})
            store.append("order-2", numbered(2))
        commits = read_feed(store)
        assert_no_gaps(commits)
        assert by_workflow(commits)["order-1"] == [(40 * (number + 1), large, False) for number in range(3)]
        assert [one.metadata for one in commits if one.workflow_id == "order-1"] == [{"n": n} for n in range(3)]
        for number, one in enumerate(commits, 1):
            assert read_feed(store, after=one.positions) == commits[number:]

    def test_each_way_to_append_is_one_commit(self, store: Any) -> None:
        lease = store.acquire("order-1", "worker")
        store.append("order-1", numbered(1), lease=lease, snapshot=b"state")
        store.append("order-1", [{"fact": Fact("value")}], commit_id="a")
        assert store.append("order-1", [{"fact": Fact("value")}], commit_id="a") == 2
        store.append("order-1", numbered(2), expected_cursor=2)
        store.append_many([("order-1", numbered(1)), ("order-2", numbered(3)), ("order-1", numbered(2))])
        commits = read_feed(store)
        assert_no_gaps(commits)
        found = by_workflow(commits)
        assert [cursor for cursor, _, _ in found["order-1"]] == [0, 1, 2, 4, 5, 7], "and one for the lease before"
        assert [cursor for cursor, _, _ in found["order-2"]] == [3]
        streamed = [event for _, events, _ in found["order-1"] for event in events]
        assert streamed == list(store.stream("order-1"))

    def test_the_commits_of_a_group_have_positions_in_their_order(self, store: Any) -> None:
        for number in range(1, 6):
            ids = ["order-{42}", "payment-{42}", "parcel-{42}"][:: -1 if number % 2 else 1]
            store.append_all([Append(workflow_id, numbered(number)) for workflow_id in ids])
            with pytest.raises(GroupRejected):
                store.append_all([Append(ids[0], numbered(1)), Append(ids[1], numbered(1), expected_cursor=0)])
            commits = read_feed(store)
            assert [commit.workflow_id for commit in commits[-3:]] == ids
        assert_no_gaps(commits)

    def test_what_is_rejected_takes_no_position(self, store: Any) -> None:
        store.append("order-1", numbered(2))
        lease = store.acquire("order-1", "worker")
        store.release(lease)
        for rejected in (
            partial(store.append, "order-1", numbered(1), expected_cursor=7),
            partial(store.append, "order-2", numbered(1), expected_cursor=1),
            partial(store.append, "order-1", numbered(1), lease=lease),
            partial(store.delete, "order-1", lease=lease),
        ):
            with pytest.raises((CursorConflict, LeaseLost)):
                rejected()
        store.append("order-1", [])
        store.delete("nobody")
        store.append("order-1", numbered(1, 3))
        commits = read_feed(store)
        assert by_workflow(commits) == {"order-1": [(2, numbered(2), False), (3, numbered(1, 3), False)]}
        assert_no_gaps(commits)

    def test_a_workflow_that_no_append_created_comes_without_events(self, store: Any) -> None:
        store.acquire("leased", "worker")
        store.save("saved", numbered(2))
        store.save_snapshot("snapped", 0, b"state")
        created = read_feed(store)
        assert by_workflow(created) == {one: [(0, [], False)] for one in ("leased", "saved", "snapped")}
        assert all(abs(one.time - datetime.now(UTC)) < timedelta(minutes=5) for one in created)
        # Further such writes are none.
        store.acquire("leased", "worker")
        store.save("saved", numbered(1))
        store.save_snapshot("snapped", 0, b"other")
        store.complete("leased")
        store.claim("worker")
        store.put_fact("value")
        assert read_feed(store) == created
        store.append("saved", numbered(2))
        commits = read_feed(store)
        assert by_workflow(commits)["saved"] == [(0, [], False), (2, numbered(2), False)]
        assert_no_gaps(commits)

    def test_a_deletion_comes_and_the_events_before_it_are_passed_over(self, store: Any) -> None:
        append_each(store, "order-1", numbered(5))
        store.append("order-2", numbered(1))
        before = read_feed(store)
        store.delete("order-1")
        commits = read_feed(store)
        assert by_workflow(commits) == {"order-2": [(1, numbered(1), False)], "order-1": [(0, [], True)]}
        # Whatever was read before: the deletion comes.
        for one in before:
            assert by_workflow(read_feed(store, after=one.positions))["order-1"] == [(0, [], True)]
        deletion = next(one for one in commits if one.deleted)
        places = [one.positions.places[deletion.partition].position for one in before if one.workflow_id == "order-1"]
        assert deletion.position > max(places), "the events that are gone keep their positions"

    def test_a_workflow_that_was_created_again_is_not_confused_with_the_earlier_one(self, store: Any) -> None:
        for life in range(3):
            append_each(store, "order-1", numbered(3, 10 * life))
            store.append("order-2", numbered(1))
            if life < 2:
                store.delete("order-1")
        commits = read_feed(store)
        last = [(cursor, numbered(1, 19 + cursor), False) for cursor in (1, 2, 3)]
        assert by_workflow(commits)["order-1"] == [(0, [], True), (0, [], True), *last]

    def test_a_workflow_is_deleted_while_it_is_read(self, store: Any) -> None:
        append_each(store, "order-1", numbered(1000))
        with closing(store.feed()) as feed:
            first = list(islice(feed, 10))
            store.delete("order-1")
            store.append("order-1", numbered(7))
            rest = list(feed)
        assert [one.cursor for one in first] == list(range(1, 11))
        *earlier, deletion, created = rest
        assert [one.cursor for one in earlier] == list(range(11, 11 + len(earlier))), "what was read ahead"
        assert deletion.deleted
        assert without_place([created]) == [("order-1", 7, numbered(7), None, False)]

    def test_a_workflow_that_is_over_comes_as_a_deletion(self, store: Any) -> None:
        store.append("order-1", numbered(1))
        store.complete("order-1")
        store.expire("order-1", 0)
        store.collect(0)
        assert not store.exists("order-1")
        assert by_workflow(read_feed(store)) == {"order-1": [(0, [], True)]}

    def test_the_feed_does_not_skip_trimmed_events(self, store: Any) -> None:
        append_each(store, "order-1", numbered(6))
        commits = read_feed(store)
        store.save_snapshot("order-1", 4, b"state")
        assert store.trim("order-1") == 4
        for after in (0, *(one.positions for one in commits[:3])):
            with closing(store.feed(after=after)) as feed:
                for _ in range(2):
                    with pytest.raises(EventsTrimmed) as caught:
                        list(feed)
                    assert caught.value.first == 5
        assert read_feed(store, after=commits[3].positions) == commits[4:]
        assert read_feed(store, prefix="other") == []

    def test_commits_before_an_error_come_first(self, store: Any) -> None:
        append_each(store, "order-{1}", numbered(6))
        store.append("other-{1}", numbered(1))
        store.append("order-{1}", numbered(1))
        store.save_snapshot("other-{1}", 1, b"state")
        store.trim("other-{1}")
        with closing(store.feed()) as feed:
            found = list(islice(feed, 6))
            with pytest.raises(EventsTrimmed):
                next(feed)
            assert feed.positions == found[-1].positions
        assert by_workflow(found) == {"order-{1}": [(n, numbered(1, n), False) for n in range(1, 7)]}

    def test_without_waiting_it_gives_the_commits_that_are_there_and_goes_on_later(self, store: Any) -> None:
        with closing(store.feed()) as feed:
            assert list(feed) == []
            for number in range(5):
                workflow_id = f"order-{number}"
                store.append(workflow_id, numbered(3))
                assert by_workflow(feed) == {workflow_id: [(3, numbered(3), False)]}
                assert list(feed) == []

    def test_a_feed_ends_after_its_wait_and_a_later_step_goes_on(self, store: Any, opener: Opener) -> None:
        store.append("order-1", numbered(1))
        with closing(opener()) as writer, closing(store.feed(wait_s=0.05)) as feed:
            assert [one.cursor for one in feed] == [1]
            writer.append("order-1", numbered(2))
            assert [one.cursor for one in feed] == [3]
            assert list(feed) == []

    def test_new_workflows_are_followed(self, store: Any, opener: Opener) -> None:
        with closing(opener()) as writer, closing(store.feed(wait_s=None)) as feed, ThreadPoolExecutor(1) as pool:
            for number in range(10):
                # The feed waits for the next commit before it is written.
                coming = pool.submit(next, feed)
                writer.append(f"order-{number}", numbered(2), metadata={"n": number})
                assert without_place([coming.result()]) == [(f"order-{number}", 2, numbered(2), {"n": number}, False)]
            coming = pool.submit(next, feed)
            writer.delete("order-3")
            assert coming.result().deleted

    def test_following_passes_over_what_does_not_fit(self, store: Any, opener: Opener) -> None:
        options = {"prefix": "order-", "types": [OrderPaid], "wait_s": None}
        with closing(opener()) as writer, closing(store.feed(**options)) as feed, ThreadPoolExecutor(1) as pool:
            coming = pool.submit(next, feed)
            for number in range(20):
                writer.append("payment-1", [OrderPaid(1.0)])
                writer.append("order-1", numbered(1, number))
            writer.append("order-1", [OrderPaid(2.0)])
            assert without_place([coming.result()]) == [("order-1", 21, [OrderPaid(2.0)], None, False)]

    def test_closing_ends_the_step_of_a_feed_that_waits(self, store: Any) -> None:
        store.append("order-1", numbered(1))
        with ThreadPoolExecutor(1) as pool, closing(store.feed(wait_s=None)) as feed:
            assert next(feed).cursor == 1
            rest = pool.submit(list, feed)
            feed.close()
            assert rest.result() == []

    def test_threads_that_share_a_feed_are_given_each_commit_once(self, store: Any, opener: Opener) -> None:
        with closing(opener()) as writer, ThreadPoolExecutor(4) as pool, closing(store.feed(wait_s=None)) as feed:

            def take() -> list[int]:
                return [one.events[0].quantity for one in islice(feed, 10)]

            taking = [pool.submit(take) for _ in range(4)]
            for number in range(40):
                writer.append(f"order-{number % 7}", numbered(1, number))
            taken = [number for one in taking for number in one.result()]
        assert sorted(taken) == list(range(40))

    def test_a_follower_misses_nothing_of_many_writers(self, store: Any, elsewhere: Elsewhere) -> None:
        writers, commits = 4, 30
        with closing(store.feed(wait_s=None)) as feed, ThreadPoolExecutor(1) as pool:
            following = pool.submit(lambda: list(islice(feed, writers * (commits + 1))))
            elsewhere(_write, *((writer, commits) for writer in range(writers)))
            followed = following.result()
        assert_no_gaps(followed)
        found = by_workflow(followed)
        assert len(found["shared"]) == writers * commits
        assert [cursor for cursor, _, _ in found["shared"]] == list(range(1, writers * commits + 1))
        assert [event for _, events, _ in found["shared"] for event in events] == list(store.stream("shared"))
        assert sorted(found) == ["shared", *(f"writer-{writer}" for writer in range(writers))]
        assert sorted(without_place(read_feed(store)), key=repr) == sorted(without_place(followed), key=repr)

    def test_a_feed_that_is_trimmed_whole_can_be_rebuilt(self, store: Any) -> None:
        write_orders(store, 20)
        commits = read_feed(store)
        assert store.trim_feed(keep=0) == len(commits)
        with pytest.raises(FeedTrimmed):
            read_feed(store)
        assert read_feed(store, after=commits[-1].positions) == []
        held = sorted(without_place(read_feed(store, start="rebuild")), key=repr)
        assert held == sorted((one for one in without_place(commits) if one[2]), key=repr)

    @pytest.mark.parametrize(
        "options",
        [
            *({"after": after} for after in (-1, 2**53, 1.0, "1", True, int, [0])),
            *({"after": Positions(places)} for places in ((), (Place(),) * 5)),
            *({"until": until} for until in (-1, "1", 1.5, Positions((Place(),) * 5))),
            *({"since": since} for since in (datetime(2026, 1, 31), 0, "now")),
            *({"start": start} for start in ("end", "", 1.5, True)),
            *({"prefix": prefix} for prefix in (5, b"order", None)),
            *({"types": types} for types in ("OrderPaid", OrderPaid, 5, [], [5], [datetime])),
            *({"wait_s": wait_s} for wait_s in (-1, float("nan"), "1", True)),
            {"after": 0, "since": datetime(2026, 1, 31, tzinfo=UTC)},
            {"start": "now", "after": 0},
        ],
        ids=repr,
    )
    def test_a_bad_argument_of_a_feed_is_refused(self, store: Any, options: dict[str, Any]) -> None:
        store.append("order-1", numbered(1))
        error = raised_error(options, partial(read_feed, store, **options), InvalidArgument)
        assert isinstance(error, StoreError)


def _write(store: Any, writer: int, commits: int) -> None:
    """Append to a workflow that all writers share, and once to one that no other writes."""
    for number in range(commits):
        store.append("shared", [OrderPlaced(f"w{writer}", number)])
    store.append(f"writer-{writer}", numbered(2))
