"""Tails: iterators that follow workflows."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import pytest

from runic_redis.errors import EventsTrimmed, InvalidArgument, InvalidType, WorkflowNotFound
from runic_redis.testing.base import Contract, Opener, raised_error
from runic_redis.testing.examples import append_each, numbered


class TailContract(Contract):
    """`tail` and `tail_many`."""

    def test_stored_events_come_first_and_then_new_events(self, store: Any, opener: Opener) -> None:
        store.append("order-1", numbered(3))
        with closing(opener()) as writer, closing(store.tail("order-1")) as records:
            first = list(islice(records, 3))
            assert [record.event for record in first] == numbered(3)
            for number in range(3, 10):
                # The tail waits for the next event before it is written.
                with ThreadPoolExecutor(1) as pool:
                    coming = pool.submit(next, records)
                    writer.append("order-1", numbered(1, number), metadata={"n": number})
                    record = coming.result()
                assert (record.cursor, record.event) == (number + 1, numbered(1, number)[0])
                assert record.metadata == {"n": number}

    def test_a_tail_waits_for_a_workflow_that_does_not_exist_yet(self, store: Any, opener: Opener) -> None:
        with closing(opener()) as writer, closing(store.tail("order-1")) as records, ThreadPoolExecutor(1) as pool:
            coming = pool.submit(next, records)
            writer.append("order-1", numbered(2))
            assert coming.result().event == numbered(2)[0]
            assert next(records).event == numbered(2)[1]

    def test_a_tail_starts_after_any_cursor_also_within_a_commit(self, store: Any) -> None:
        store.append("order-1", numbered(4))
        store.append("order-1", numbered(4, 4))
        for after in range(8):
            with closing(store.tail("order-1", after=after)) as records:
                assert [record.cursor for record in islice(records, 8 - after)] == list(range(after + 1, 9))

    def test_large_commits_come_whole(self, store: Any) -> None:
        large = [{"n": n, "text": "x" * 100_000} for n in range(40)]
        for _ in range(3):
            store.append("order-1", large)
        with closing(store.tail("order-1")) as records:
            assert [record.event for record in islice(records, 120)] == large * 3

    def test_many_workflows_are_followed_at_once_each_in_order(self, store: Any, opener: Opener) -> None:
        ids = [f"order-{number}" for number in range(20)]
        with closing(opener()) as writer, ThreadPoolExecutor(1) as pool:

            def write() -> None:
                for number in range(5):
                    for workflow_id in ids:
                        writer.append(workflow_id, numbered(1, number))

            with closing(store.tail_many(dict.fromkeys(ids, 0))) as pairs:
                writing = pool.submit(write)
                seen: dict[str, list[Any]] = {}
                for workflow_id, record in islice(pairs, 100):
                    seen.setdefault(workflow_id, []).append(record.event)
                writing.result()
        expected = [numbered(1, number)[0] for number in range(5)]
        assert seen == dict.fromkeys(ids, expected)

    def test_a_workflow_that_is_deleted_is_not_followed_into_its_next_life(self, store: Any) -> None:
        store.append("order-1", numbered(3))
        with closing(store.tail("order-1")) as records:
            assert len(list(islice(records, 3))) == 3
            store.delete("order-1")
            store.append("order-1", numbered(7))
            with pytest.raises(WorkflowNotFound):
                next(records)

    def test_trimmed_events_raise_and_are_not_skipped(self, store: Any) -> None:
        store.append("order-1", numbered(3))
        with closing(store.tail("order-1")) as records:
            assert next(records).cursor == 1
            append_each(store, "order-1", numbered(97, 3))
            store.save_snapshot("order-1", 90, b"")
            store.trim("order-1")
            with pytest.raises(EventsTrimmed) as caught:
                list(islice(records, 100))
            assert caught.value.first == 91
        with pytest.raises(EventsTrimmed):
            next(store.tail("order-1", after=5))
        with closing(store.tail("order-1", after=90)) as records:
            assert [record.cursor for record in islice(records, 10)] == list(range(91, 101))

    def test_without_waiting_it_gives_the_events_that_are_there_and_goes_on_later(self, store: Any) -> None:
        with store.tail("order-1", wait_s=0) as records:
            assert list(records) == []
            for number in range(5):
                store.append("order-1", numbered(3, 3 * number))
                assert [record.event for record in records] == numbered(3, 3 * number)
                assert list(records) == []
        with store.tail_many({"order-1": 14, "order-2": 0}, wait_s=0) as pairs:
            assert [(workflow_id, record.cursor) for workflow_id, record in pairs] == [("order-1", 15)]
            store.append("order-2", numbered(1))
            assert [(workflow_id, record.cursor) for workflow_id, record in pairs] == [("order-2", 1)]

    def test_a_wait_that_is_over_ends_iteration_and_a_later_step_goes_on(self, store: Any, opener: Opener) -> None:
        store.append("order-1", numbered(1))
        with closing(opener()) as writer, store.tail("order-1", wait_s=0.05) as records:
            assert [record.cursor for record in records] == [1]
            writer.append("order-1", numbered(2))
            assert [record.cursor for record in records] == [2, 3]
            assert list(records) == []

    def test_a_closed_tail_gives_nothing_more(self, store: Any) -> None:
        store.append("order-1", numbered(3))
        with store.tail("order-1") as records:
            assert next(records).cursor == 1
        assert list(records) == []
        records.close()

    def test_closing_ends_the_step_that_waits(self, store: Any) -> None:
        store.append("order-1", numbered(1))
        with ThreadPoolExecutor(1) as pool, store.tail("order-1") as records:
            assert next(records).cursor == 1
            rest = pool.submit(list, records)
            records.close()
            assert rest.result() == []

    def test_threads_that_share_a_tail_are_given_each_event_once(self, store: Any, opener: Opener) -> None:
        with closing(opener()) as writer, ThreadPoolExecutor(4) as pool, store.tail("order-1") as records:

            def take() -> list[int]:
                return [record.cursor for record in islice(records, 10)]

            taking = [pool.submit(take) for _ in range(4)]
            for number in range(20):
                writer.append("order-1", numbered(2, number))
            taken = [one.result() for one in taking]
        assert sorted(cursor for cursors in taken for cursor in cursors) == list(range(1, 41))
        assert all(cursors == sorted(cursors) for cursors in taken)

    @pytest.mark.parametrize("wait_s", [-1, float("nan"), 1e12, "1", True], ids=repr)
    def test_a_wait_that_is_no_time_is_refused_at_the_call(self, store: Any, wait_s: Any) -> None:
        with pytest.raises(InvalidArgument, match="wait_s"):
            store.tail("order-1", wait_s=wait_s)
        with pytest.raises(InvalidArgument, match="wait_s"):
            store.tail_many({"order-1": 0}, wait_s=wait_s)

    def test_bad_input_is_refused_at_the_call(self, store: Any) -> None:
        for after in ({}, {"": 0}, {"order-1": -1}, {"order-1": "0"}, {5: 0}, ["order-1"], None):
            raised_error(after, partial(store.tail_many, after), (InvalidArgument, InvalidType))
        with pytest.raises((InvalidArgument, InvalidType)):
            store.tail("order-1", after=-1)
