"""Streams: commits that are appended and streamed back."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import islice, product
from typing import Any

import pytest

from runic_redis import CursorConflict, EncodeError, EventsTrimmed, Record, WorkflowNotFound, supports_stream
from runic_redis.testing.base import Contract, Opener
from runic_redis.testing.examples import OrderPaid, OrderPlaced, append_each, numbered


def _append_over_time(store: Any, workflow_id: str) -> list[Record]:
    """Append commits of one to three events until they have three times. Return all records."""
    while True:
        for _ in range(4):
            cursor = store.cursor(workflow_id)
            store.append(workflow_id, numbered(cursor % 3 + 1, cursor + 1))
        records = list(store.stream_records(workflow_id))
        if len({record.time for record in records}) >= 3:
            return records


class StreamContract(Contract):
    """`append`, `stream`, `stream_records`, `cursor` and `append_many`."""

    def test_it_supports_streams(self, store: Any) -> None:
        assert supports_stream(store)

    def test_append_returns_the_cursor(self, store: Any) -> None:
        assert store.append("order-1", numbered(2)) == 2
        assert store.append("order-1", numbered(1)) == 3
        assert store.cursor("order-1") == 3

    def test_the_cursor_of_a_workflow_that_is_not_there_is_0(self, store: Any) -> None:
        assert store.cursor("nobody") == 0

    def test_events_come_back_equal_and_in_order(self, store: Any) -> None:
        events = [OrderPlaced("Ada", 3), {"note": "plain", "n": [1, 2]}, OrderPaid(1.5)]
        store.append("order-1", events[:1])
        store.append("order-1", events[1:])
        streamed = list(store.stream("order-1"))
        assert streamed == events
        assert [type(event) for event in streamed] == [OrderPlaced, dict, OrderPaid]

    def test_workflows_have_separate_streams(self, store: Any) -> None:
        store.append("order-1", numbered(1))
        store.append("order-2", numbered(2))
        assert list(store.stream("order-1")) == numbered(1)
        assert list(store.stream("order-2")) == numbered(2)

    def test_any_iterable_of_events_is_one_commit(self, store: Any) -> None:
        assert store.append("order-1", iter(numbered(3))) == 3
        assert store.append("order-1", tuple(numbered(2))) == 5

    def test_streaming_a_workflow_that_is_not_there_fails_at_the_call(self, store: Any) -> None:
        with pytest.raises(WorkflowNotFound) as caught:
            store.stream("nobody")
        assert isinstance(caught.value, LookupError)
        assert caught.value.workflow_id == "nobody"

    def test_a_workflow_with_a_log_alone_has_no_stream(self, store: Any) -> None:
        store.save("order-1", numbered(1))
        with pytest.raises(WorkflowNotFound):
            store.stream("order-1")
        assert store.append("order-1", numbered(2)) == 2
        assert store.load("order-1") == numbered(1)

    @pytest.mark.parametrize("sizes", [[1] * 7, [7], [3, 1, 3], [2, 2, 3]])
    def test_every_range_of_cursors_can_be_read(self, store: Any, sizes: list[int]) -> None:
        for size in sizes:
            store.append("order-1", numbered(size, store.cursor("order-1") + 1))
        every = numbered(7)
        for after, until in product(range(9), [None, *range(9)]):
            expected = every[after:until] if until is None or until > after else []
            assert list(store.stream("order-1", after=after, until=until)) == expected, (after, until)
            backwards = list(store.stream("order-1", after=after, until=until, reverse=True))
            assert backwards == expected[::-1], (after, until)

    def test_many_pages_of_commits_come_back_whole(self, store: Any) -> None:
        cursor = 0
        while cursor < 600:
            cursor = store.append("order-1", numbered(cursor % 7 + 1, cursor + 1))
        assert list(store.stream("order-1")) == numbered(cursor)
        assert list(store.stream("order-1", reverse=True)) == numbered(cursor)[::-1]

    def test_a_commit_of_many_megabytes_comes_back_whole(self, store: Any) -> None:
        events = [{"number": number, "text": f"{number:016}" * 4096} for number in range(100)]
        assert store.append("order-1", numbered(1)) == 1
        assert store.append("order-1", events) == 101
        assert store.append("order-1", numbered(1)) == 102
        expected = [*numbered(1), *events, *numbered(1)]
        assert list(store.stream("order-1")) == expected
        assert list(store.stream("order-1", reverse=True)) == expected[::-1]
        assert list(store.stream("order-1", after=40, until=60)) == events[39:59]

    def test_an_event_of_some_megabytes_comes_back(self, store: Any) -> None:
        event = {"data": bytes(range(256)) * 20_000}
        store.append("order-1", [event, *numbered(1)])
        assert list(store.stream("order-1")) == [event, *numbered(1)]

    def test_a_stream_ends_at_the_cursor_of_the_call(self, store: Any) -> None:
        store.append("order-1", numbered(40))
        streamed = store.stream("order-1")
        backwards = store.stream("order-1", reverse=True)
        store.append("order-1", numbered(5))
        assert list(streamed) == numbered(40)
        assert list(backwards) == numbered(40)[::-1]

    def test_a_stream_goes_on_while_others_append(self, store: Any) -> None:
        append_each(store, "order-1", numbered(100))
        streamed = []
        for event in store.stream("order-1"):
            streamed.append(event)
            store.append("order-1", numbered(1))
        assert streamed == numbered(100)

    def test_a_workflow_deleted_under_a_reader_is_not_confused_with_its_successor(self, store: Any) -> None:
        append_each(store, "order-1", numbered(100))
        streamed = store.stream("order-1")
        assert next(streamed) == numbered(1)[0]
        store.delete("order-1")
        append_each(store, "order-1", numbered(200, 1001))
        with pytest.raises(WorkflowNotFound):
            list(streamed)

    def test_the_last_few_can_be_read_backwards(self, store: Any) -> None:
        append_each(store, "order-1", numbered(50))
        assert list(islice(store.stream("order-1", reverse=True), 3)) == numbered(50)[:-4:-1]

    def test_records_carry_cursor_time_and_metadata(self, store: Any) -> None:
        about = {"correlation": "c-1", "attempt": 2}
        before = datetime.now(UTC)
        store.append("order-1", numbered(2), metadata=about)
        store.append("order-1", [OrderPaid(1.0)])
        records = list(store.stream_records("order-1"))
        assert [record.cursor for record in records] == [1, 2, 3]
        assert [record.event for record in records] == [*numbered(2), OrderPaid(1.0)]
        assert [record.metadata for record in records] == [about, about, None]
        assert records[0].time == records[1].time <= records[2].time
        for record in records:
            assert record.time.utcoffset() == timedelta(0)
            assert abs(record.time - before) < timedelta(minutes=5)

    def test_records_can_be_read_by_range_and_backwards(self, store: Any) -> None:
        store.append("order-1", numbered(4))
        store.append("order-1", numbered(4, 5), metadata={"second": True})
        records = list(store.stream_records("order-1", after=2, until=6, reverse=True))
        assert [(record.cursor, record.event.quantity) for record in records] == [(6, 6), (5, 5), (4, 4), (3, 3)]
        assert [record.metadata for record in records] == [{"second": True}] * 2 + [None] * 2

    def test_a_stream_starts_from_a_time(self, store: Any) -> None:
        records = _append_over_time(store, "order-1")
        times = sorted({record.time for record in records})
        just_after = timedelta(microseconds=1)
        for since in (*times, *(time + just_after for time in times), *(time - just_after for time in times)):
            wanted = [record for record in records if record.time >= since]
            assert list(store.stream_records("order-1", since=since)) == wanted
            assert list(store.stream("order-1", since=since, reverse=True)) == [one.event for one in wanted][::-1]
        in_another_zone = times[1].astimezone(timezone(timedelta(hours=-5)))
        expected = [one.event for one in records if one.time >= times[1]]
        assert list(store.stream("order-1", since=in_another_zone)) == expected

    def test_a_time_before_all_commits_returns_all_and_a_later_one_none(self, store: Any) -> None:
        store.append("order-1", numbered(3))
        store.append("order-1", numbered(2, 4))
        for since in (datetime.min, datetime(1969, 7, 20, 20, 17)):
            assert list(store.stream("order-1", since=since.replace(tzinfo=UTC))) == numbered(5)
        for reverse in (False, True):
            latest = datetime.max.replace(tzinfo=UTC)
            assert list(store.stream("order-1", since=latest, reverse=reverse)) == []

    def test_a_time_and_cursors_narrow_a_stream_together(self, store: Any) -> None:
        records = _append_over_time(store, "order-1")
        since = sorted({record.time for record in records})[1]
        last = len(records)
        for after, until in product(
            (0, 1, last // 2, last - 1, last, last + 1), (None, 0, 2, last // 2, last - 1, last)
        ):
            wanted = [
                record
                for record in records
                if record.time >= since and after < record.cursor <= (last if until is None else until)
            ]
            for reverse in (False, True):
                found = list(store.stream_records("order-1", after=after, until=until, since=since, reverse=reverse))
                assert found == (wanted[::-1] if reverse else wanted), (after, until, reverse)

    def test_a_time_on_a_workflow_that_is_not_there_fails_at_the_call(self, store: Any) -> None:
        with pytest.raises(WorkflowNotFound):
            store.stream("nobody", since=datetime.now(UTC))

    def test_a_time_after_the_trimmed_commits_can_be_read_from(self, store: Any) -> None:
        records = _append_over_time(store, "order-1")
        earlier, last_trimmed, since = sorted({record.time for record in records})[:3]
        kept = [record for record in records if record.time >= since]
        trimmed_to = kept[0].cursor - 1
        store.save_snapshot("order-1", trimmed_to, b"state")
        assert store.trim("order-1") == trimmed_to
        for time in (since, last_trimmed + timedelta(microseconds=1)):
            assert list(store.stream_records("order-1", since=time)) == kept
            assert list(store.stream_records("order-1", since=time, reverse=True)) == kept[::-1]
        for time in (last_trimmed, earlier):
            with pytest.raises(EventsTrimmed) as caught:
                store.stream("order-1", since=time)
            assert caught.value.first == trimmed_to + 1
            backwards = store.stream_records("order-1", since=time, reverse=True)
            assert [next(backwards) for _ in kept] == kept[::-1]
            with pytest.raises(EventsTrimmed):
                next(backwards)
            assert list(store.stream_records("order-1", since=time, after=trimmed_to)) == kept

    def test_metadata_stays_with_every_event_of_a_large_commit(self, store: Any) -> None:
        store.append("order-1", [{"text": "x" * 100_000, "n": n} for n in range(30)], metadata={"k": 1})
        assert [record.metadata for record in store.stream_records("order-1")] == [{"k": 1}] * 30

    def test_a_commit_with_an_expected_cursor_is_stored_only_at_that_cursor(self, store: Any) -> None:
        assert store.append("order-1", numbered(2), expected_cursor=0) == 2
        for wrong in (0, 1, 3, 2**40):
            with pytest.raises(CursorConflict) as caught:
                store.append("order-1", [OrderPaid(1.0)], expected_cursor=wrong)
            assert (caught.value.expected, caught.value.actual) == (wrong, 2)
        assert list(store.stream("order-1")) == numbered(2)
        assert store.append("order-1", [OrderPaid(1.0)], expected_cursor=2) == 3

    def test_a_conflict_makes_no_workflow(self, store: Any) -> None:
        with pytest.raises(CursorConflict):
            store.append("order-1", numbered(1), expected_cursor=5)
        assert not store.exists("order-1")
        assert list(store.list()) == []

    def test_no_events_are_no_commit(self, store: Any) -> None:
        assert store.append("order-1", []) == 0
        assert not store.exists("order-1")
        store.append("order-1", numbered(2))
        assert store.append("order-1", [], expected_cursor=2) == 2
        with pytest.raises(CursorConflict):
            store.append("order-1", [], expected_cursor=1)

    def test_a_commit_id_is_stored_once(self, store: Any) -> None:
        assert store.append("order-1", numbered(2), commit_id="payment-7") == 2
        store.append("order-1", numbered(1))
        assert store.append("order-1", numbered(2), commit_id="payment-7") == 2
        assert store.append("order-1", numbered(2), commit_id=b"payment-7") == 2
        assert store.cursor("order-1") == 3

    def test_a_known_commit_id_comes_before_the_expected_cursor(self, store: Any) -> None:
        assert store.append("order-1", numbered(2), commit_id="a", expected_cursor=0) == 2
        assert store.append("order-1", numbered(2), commit_id="a", expected_cursor=0) == 2
        with pytest.raises(CursorConflict):
            store.append("order-1", numbered(2), commit_id="b", expected_cursor=0)

    def test_commit_ids_are_of_one_workflow(self, store: Any) -> None:
        store.append("order-1", numbered(1), commit_id="a")
        assert store.append("order-2", numbered(2), commit_id="a") == 2

    def test_a_commit_id_is_known_to_another_client(self, store: Any, opener: Opener) -> None:
        store.append("order-1", numbered(2), commit_id="a")
        other = opener()
        assert other.append("order-1", numbered(2), commit_id="a") == 2
        other.close()

    def test_many_workflows_are_appended_to_at_once(self, store: Any) -> None:
        items = [(f"order-{number}", numbered(number % 5 + 1)) for number in range(100)]
        assert store.append_many(items) == [len(events) for _, events in items]
        for workflow_id, events in items:
            assert list(store.stream(workflow_id)) == events

    def test_of_many_appends_one_fails_and_the_others_are_stored(self, store: Any) -> None:
        first, second, third = store.append_many(
            [("order-1", numbered(1)), ("order-2", [object()]), ("order-3", numbered(2))]
        )
        assert (first, third) == (1, 2)
        assert isinstance(second, EncodeError)
        assert not store.exists("order-2")

    def test_of_many_appends_to_one_workflow_the_order_is_kept(self, store: Any) -> None:
        items = [("order-1", numbered(1, 1)), ("order-2", numbered(1)), ("order-1", numbered(2, 2))]
        assert store.append_many(items) == [1, 1, 3]
        assert list(store.stream("order-1")) == numbered(3)

    def test_many_appends_may_be_none(self, store: Any) -> None:
        assert store.append_many([]) == []
