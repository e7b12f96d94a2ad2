"""What the feed does when its server has lost data, or another application has written to its keys.

These cases write to the server beside the store, through `RedisStore.run`.
"""

from contextlib import closing
from typing import Any

import pytest

from runic_redis import CommitsLost, DecodeError, StoreError
from runic_redis.positions import Place, Positions
from runic_redis.protocol.effects import Operation, key_command
from runic_redis.protocol.refusals import ask_all
from runic_redis.testing.base import Contract
from runic_redis.testing.examples import append_each, numbered
from runic_redis.testing.feed import assert_no_gaps, by_workflow, read_feed


def run(store: Any, *commands: tuple[str, ...]) -> list[Any]:
    """Send commands, each with its key in the second place. Return their replies."""

    def operation() -> Operation[list[Any]]:
        return (yield from ask_all([key_command(name, key, *args) for name, key, *args in commands]))

    replies: list[Any] = store.run(operation(), "test")
    return replies


def feed_of(store: Any, workflow_id: str) -> str:
    return str(store.context.keys.workflow(workflow_id).feed)


def positions_in(store: Any, workflow_id: str) -> tuple[int, list[bytes]]:
    """Return the position that the partition of a workflow counts, and the IDs of the entries of its feed."""
    keys = store.context.keys.workflow(workflow_id)
    position, entries = run(store, ("HGET", keys.partition, "position"), ("XRANGE", keys.feed, "-", "+"))
    return int(position or 0), [entry_id for entry_id, _ in entries]


def read_until_lost(store: Any, **options: Any) -> list[Any]:
    """Return the commits that a feed has before it raises `CommitsLost`."""
    found: list[Any] = []
    with pytest.raises(CommitsLost), closing(store.feed(**options)) as feed:
        for one in feed:
            found.append(one)  # noqa: PERF402 - the error ends it
    return found


class FeedDamage(Contract):
    """Losses and foreign values."""

    def test_lost_events_are_not_passed_over(self, store: Any) -> None:
        append_each(store, "order-1", numbered(6))
        commits = read_feed(store)
        events = store.context.keys.workflow("order-1").events
        (entries,) = run(store, ("XRANGE", events, "-", "+"))
        run(store, ("XDEL", events, entries[3][0]))
        with closing(store.feed()) as feed:
            for _ in range(2):
                with pytest.raises(CommitsLost, match="order-1") as caught:
                    list(feed)
                assert caught.value.expected == 4
            assert read_feed(store, until=feed.positions) == commits[:3]
        assert read_feed(store, after=commits[3].positions) == commits[4:]

    @pytest.mark.parametrize("place", [0, 1, -1], ids=["first", "middle", "last"])
    def test_a_part_of_a_large_commit_is_not_returned(self, store: Any, place: int) -> None:
        store.append("order-1", numbered(1))
        store.append("order-1", [{"n": n, "text": "x" * 400_000} for n in range(10)])
        store.append("order-1", numbered(1))
        commits = read_feed(store)
        events = store.context.keys.workflow("order-1").events
        (entries,) = run(store, ("XRANGE", events, "2-0", "11-9999999999999"))
        assert len(entries) > 2
        run(store, ("XDEL", events, entries[place][0]))
        with closing(store.feed()) as feed:
            assert next(feed) == commits[0]
            with pytest.raises((CommitsLost, DecodeError)):
                next(feed)
        assert read_feed(store, after=commits[1].positions) == commits[2:]

    @pytest.mark.parametrize("lost", range(4))
    def test_lost_entries_of_the_feed_are_not_passed_over(self, store: Any, lost: int) -> None:
        append_each(store, "order-1", numbered(4))
        commits = read_feed(store)
        _, entries = positions_in(store, "order-1")
        run(store, ("XDEL", feed_of(store, "order-1"), entries[lost].decode()))
        assert read_until_lost(store) == commits[:lost]
        for number, one in enumerate(commits[:-1]):
            if number < lost:
                assert read_until_lost(store, after=one.positions) == commits[number + 1 : lost]
            elif number > lost:
                assert read_feed(store, after=one.positions) == commits[number + 1 :]
        if lost < 3:
            # It cannot be told whether the reader's commit is the same.
            assert len(read_until_lost(store, after=commits[lost].positions)) == 0

    def test_a_lost_feed_is_noticed_at_every_position(self, store: Any) -> None:
        append_each(store, "order-1", numbered(4))
        commits = read_feed(store)
        with closing(store.feed()) as feed:
            assert list(feed) == commits
            run(store, ("DEL", feed_of(store, "order-1")))
            with pytest.raises(CommitsLost):
                append_each(store, "order-1", numbered(1))
                list(feed)
        for one in commits:
            with pytest.raises(CommitsLost):
                read_feed(store, after=one.positions)
        with pytest.raises(CommitsLost):
            read_feed(store)

    def test_a_flushed_server_is_noticed(self, store: Any) -> None:
        append_each(store, "order-1", numbered(4))
        with closing(store.feed()) as feed, closing(store.feed(wait_s=None)) as follower:
            commits = list(feed)
            assert [next(follower) for _ in commits] == commits
            store.delete_namespace()
            for reader in (feed, follower):
                with pytest.raises(CommitsLost) as caught:
                    next(reader)
                assert (caught.value.expected, caught.value.actual) == (4, 0)
            # Another history of the same length, or longer.
            for events in (numbered(4, 10), numbered(4, 20)):
                append_each(store, "order-1", events)
                for reader in (feed, follower):
                    with pytest.raises(CommitsLost):
                        next(reader)
        assert [one.events for one in read_feed(store)] == [[event] for event in numbered(4, 10) + numbered(4, 20)]

    def test_positions_above_the_server_s_are_lost(self, store: Any) -> None:
        store.append("order-1", numbered(2))
        (commit,) = read_feed(store)
        places = list(commit.positions.places)
        for place in (Place(3), Place(3, commit.positions.places[commit.partition].ms), Place(2, 1)):
            places[commit.partition] = place
            with pytest.raises(CommitsLost):
                read_feed(store, after=Positions(tuple(places)))
        places[commit.partition] = Place(2)
        assert read_feed(store, after=Positions(tuple(places))) == []

    @pytest.mark.parametrize("key", ["feed", "events", "partition", "meta", "index"])
    def test_a_foreign_value_changes_nothing_and_leaves_no_gap(self, store: Any, key: str) -> None:
        store.append("order-1", numbered(2))
        store.append("order-2", numbered(1))
        before = read_feed(store)
        keys = store.context.keys.workflow("order-1")
        name = getattr(keys, key)
        run(store, ("RENAME", name, f"{name}:aside"), ("SET", name, "foreign"))
        for write in (
            lambda: store.append("order-1", numbered(1)),
            lambda: store.append("order-1", [{"n": n, "text": "x" * 400_000} for n in range(6)]),
            lambda: store.append("order-1", numbered(1), expected_cursor=2, snapshot=b"state"),
            lambda: store.delete("order-1"),
        ):
            with pytest.raises(StoreError):
                write()
        run(store, ("DEL", name), ("RENAME", f"{name}:aside", name))
        assert list(store.stream("order-1")) == numbered(2)
        assert read_feed(store) == before
        store.append("order-1", numbered(1, 3))
        found = read_feed(store)
        assert by_workflow(found)["order-1"] == [(2, numbered(2), False), (3, numbered(1, 3), False)]
        with closing(store.feed(after=before[-1].positions)) as feed:
            assert [one.events for one in feed] == [numbered(1, 3)]
        position, _ = positions_in(store, "order-1")
        assert position == found[-1].positions.places[found[-1].partition].position

    @pytest.mark.parametrize("key", ["feed", "partition"])
    def test_a_workflow_is_not_created_at_a_foreign_value(self, store: Any, key: str) -> None:
        # All are of one partition.
        store.append("order-{1}", numbered(2))
        before = read_feed(store)
        name = getattr(store.context.keys.workflow("order-{1}"), key)
        run(store, ("RENAME", name, f"{name}:aside"), ("SET", name, "foreign"))
        for number, write in enumerate(
            (
                lambda one: store.append(one, numbered(1)),
                lambda one: store.acquire(one, "worker"),
                lambda one: store.save(one, numbered(1)),
                lambda one: store.save_snapshot(one, 0, b"state"),
            )
        ):
            with pytest.raises(StoreError):
                write(f"new-{number}-{{1}}")
        run(store, ("DEL", name), ("RENAME", f"{name}:aside", name))
        assert list(store.list()) == ["order-{1}"]
        assert read_feed(store) == before
        assert positions_in(store, "order-{1}")[0] == 2
        store.append("new-{1}", numbered(1))
        assert_no_gaps(read_feed(store))

    def test_a_lost_partition_hash_stops_writes_and_readers(self, store: Any) -> None:
        store.append("order-1", numbered(2))
        commits = read_feed(store)
        keys = store.context.keys.workflow("order-1")
        run(store, ("RENAME", keys.partition, f"{keys.partition}:aside"))
        with pytest.raises(StoreError):
            store.append("order-1", numbered(1))
        with pytest.raises(CommitsLost):
            read_feed(store, after=commits[0].positions)
        run(store, ("DEL", keys.partition), ("RENAME", f"{keys.partition}:aside", keys.partition))
        assert read_feed(store) == commits
        store.append("order-1", numbered(1, 3))
        assert_no_gaps(read_feed(store))

    @pytest.mark.parametrize(
        "fields",
        [("9", "x y"), ("-1", "1 order-1"), ("1", "order-1"), ("1", "x order-1"), ("void", "0 "), ("1 x", "1 a")],
    )
    def test_a_damaged_entry_is_no_commit(self, store: Any, fields: tuple[str, str]) -> None:
        store.append("order-1", numbered(2))
        run(store, ("XADD", feed_of(store, "order-1"), "3-9999999999999", *fields))
        with pytest.raises(DecodeError, match=r"9999999999999.*damaged"):
            read_feed(store)
