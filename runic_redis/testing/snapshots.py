"""Snapshots, and trimming to them."""

from itertools import islice
from typing import Any

import pytest

from runic_redis import EventsTrimmed, SnapshotConflict, SnapshotNotFound, WorkflowNotFound
from runic_redis.testing.base import Contract
from runic_redis.testing.examples import append_each, numbered


class SnapshotContract(Contract):
    """`save_snapshot`, `load_snapshot` and `trim`."""

    def test_a_snapshot_comes_back_with_its_cursor(self, store: Any) -> None:
        store.append("order-1", numbered(5))
        data = bytes(range(256)) * 10
        store.save_snapshot("order-1", 3, data)
        assert store.load_snapshot("order-1") == (3, data)

    def test_a_snapshot_may_be_empty(self, store: Any) -> None:
        store.append("order-1", numbered(1))
        store.save_snapshot("order-1", 1, b"")
        assert store.load_snapshot("order-1") == (1, b"")

    def test_saving_again_replaces_the_snapshot(self, store: Any) -> None:
        store.append("order-1", numbered(5))
        for cursor, data in ((2, b"two"), (2, b"two again"), (5, b"five")):
            store.save_snapshot("order-1", cursor, data)
            assert store.load_snapshot("order-1") == (cursor, data)

    def test_a_snapshot_that_is_not_there_is_a_lookup_error(self, store: Any) -> None:
        store.append("order-1", numbered(1))
        for workflow_id in ("order-1", "nobody"):
            with pytest.raises(SnapshotNotFound) as caught:
                store.load_snapshot(workflow_id)
            assert isinstance(caught.value, LookupError)

    def test_a_snapshot_is_never_above_the_stream(self, store: Any) -> None:
        store.append("order-1", numbered(2))
        with pytest.raises(SnapshotConflict) as caught:
            store.save_snapshot("order-1", 3, b"")
        assert (caught.value.cursor, caught.value.actual) == (3, 2)
        with pytest.raises(SnapshotConflict):
            store.save_snapshot("nobody", 1, b"")
        assert not store.exists("nobody")

    def test_a_snapshot_never_goes_back(self, store: Any) -> None:
        store.append("order-1", numbered(5))
        store.save_snapshot("order-1", 4, b"four")
        with pytest.raises(SnapshotConflict) as caught:
            store.save_snapshot("order-1", 3, b"three")
        assert (caught.value.cursor, caught.value.actual) == (3, 4)
        assert store.load_snapshot("order-1") == (4, b"four")

    def test_a_workflow_may_have_a_snapshot_alone(self, store: Any) -> None:
        store.save_snapshot("order-1", 0, b"start")
        assert store.load_snapshot("order-1") == (0, b"start")
        assert store.exists("order-1")
        assert list(store.list()) == ["order-1"]

    def test_trimming_removes_what_the_snapshot_covers(self, store: Any) -> None:
        append_each(store, "order-1", numbered(10))
        store.save_snapshot("order-1", 6, b"six")
        assert store.trim("order-1") == 6
        assert list(store.stream("order-1", after=6)) == numbered(4, 7)
        assert store.cursor("order-1") == 10

    def test_trimming_without_a_snapshot_removes_nothing(self, store: Any) -> None:
        store.append("order-1", numbered(3))
        assert store.trim("order-1") == 0
        assert list(store.stream("order-1")) == numbered(3)

    def test_trimming_a_workflow_that_is_not_there_is_a_lookup_error(self, store: Any) -> None:
        with pytest.raises(WorkflowNotFound):
            store.trim("nobody")

    def test_trimming_never_passes_the_snapshot(self, store: Any) -> None:
        store.append("order-1", numbered(2))
        store.append("order-1", numbered(4, 3))
        store.save_snapshot("order-1", 4, b"inside the second commit")
        assert store.trim("order-1") == 2
        assert list(store.stream("order-1", after=2)) == numbered(4, 3)
        assert list(store.stream("order-1", after=4)) == numbered(2, 5)

    def test_trimming_leaves_a_large_commit_whole(self, store: Any) -> None:
        store.append("order-1", numbered(1))
        store.append("order-1", numbered(1))
        large = [{"number": number, "text": f"{number:08}" * 40_000} for number in range(12)]
        store.append("order-1", large)
        store.append("order-1", numbered(1))
        for cursor in (3, 6, 9, 13):
            store.save_snapshot("order-1", cursor, b"inside the large commit")
            assert store.trim("order-1") == 2
            assert list(store.stream("order-1", after=2)) == [*large, *numbered(1)]
        store.save_snapshot("order-1", 14, b"after it")
        assert store.trim("order-1") == 14
        assert list(store.stream("order-1", after=14)) == numbered(1)

    def test_trimming_twice_is_trimming_once(self, store: Any) -> None:
        append_each(store, "order-1", numbered(5))
        store.save_snapshot("order-1", 3, b"")
        assert store.trim("order-1") == 3
        assert store.trim("order-1") == 3
        store.save_snapshot("order-1", 4, b"")
        assert store.trim("order-1") == 4

    def test_reading_from_before_the_trim_raises_at_the_call(self, store: Any) -> None:
        append_each(store, "order-1", numbered(5))
        store.save_snapshot("order-1", 3, b"")
        store.trim("order-1")
        for after in range(3):
            with pytest.raises(EventsTrimmed) as caught:
                store.stream("order-1", after=after)
            assert caught.value.first == 4
        with pytest.raises(EventsTrimmed):
            store.stream_records("order-1")
        with pytest.raises(EventsTrimmed):
            store.stream("order-1", until=2)

    def test_reading_backwards_raises_at_the_trim(self, store: Any) -> None:
        append_each(store, "order-1", numbered(40))
        store.save_snapshot("order-1", 20, b"")
        store.trim("order-1")
        assert list(islice(store.stream("order-1", reverse=True), 20)) == numbered(20, 21)[::-1]
        streamed = store.stream("order-1", reverse=True)
        for _ in range(20):
            next(streamed)
        with pytest.raises(EventsTrimmed) as caught:
            next(streamed)
        assert caught.value.first == 21
        assert list(store.stream("order-1", after=20, reverse=True)) == numbered(20, 21)[::-1]

    def test_a_workflow_may_be_trimmed_to_its_end_and_go_on(self, store: Any) -> None:
        store.append("order-1", numbered(5))
        store.save_snapshot("order-1", 5, b"all")
        assert store.trim("order-1") == 5
        assert list(store.stream("order-1", after=5)) == []
        assert store.cursor("order-1") == 5
        assert store.append("order-1", numbered(1, 6), expected_cursor=5) == 6
        assert list(store.stream("order-1", after=5)) == numbered(1, 6)

    def test_a_reader_that_is_overtaken_by_a_trim_gets_an_error(self, store: Any) -> None:
        append_each(store, "order-1", numbered(200))
        streamed = store.stream("order-1")
        next(streamed)
        store.save_snapshot("order-1", 200, b"")
        store.trim("order-1")
        with pytest.raises(EventsTrimmed):
            list(streamed)
