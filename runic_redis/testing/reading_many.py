"""Reading ranges of many workflows at once."""

from itertools import product
from typing import Any

import pytest

from runic_redis import EventsTrimmed, Fact, FactRef, InvalidArgument, InvalidType, WorkflowNotFound
from runic_redis.testing.base import Contract
from runic_redis.testing.examples import append_each, numbered
from runic_redis.testing.references import Produced


class ReadManyContract(Contract):
    """`read_many`."""

    def test_many_ranges_come_back_in_order(self, store: Any) -> None:
        for number in range(20):
            store.append(f"w-{number}", numbered(number % 3 + 1), metadata={"n": number})
            store.append(f"w-{number}", numbered(2, number % 3 + 2))
        items = [(f"w-{number}", number % 4, None) for number in reversed(range(20))]
        assert store.read_many(items) == [
            list(store.stream_records(workflow_id, after=after)) for workflow_id, after, _ in items
        ]

    def test_every_range_of_a_workflow_can_be_read_at_once(self, store: Any) -> None:
        for size in (2, 1, 3, 1):
            store.append("w", numbered(size, store.cursor("w") + 1))
        items = [("w", after, until) for after, until in product(range(9), [None, *range(9)])]
        expected = [list(store.stream_records(name, after=after, until=until)) for name, after, until in items]
        assert store.read_many(items) == expected

    def test_long_ranges_come_back_whole(self, store: Any) -> None:
        for workflow_id, count in (("a", 700), ("b", 1), ("c", 150)):
            append_each(store, workflow_id, numbered(count))
        found = store.read_many([("a", 0, None), ("b", 0, None), ("c", 0, 149), ("a", 699, None)])
        assert [[record.event for record in records] for records in found] == [
            *(numbered(700), numbered(1), numbered(149), numbered(1, 700))
        ]

    def test_each_range_fails_by_itself(self, store: Any) -> None:
        store.append("a", numbered(3))
        store.append("trimmed", numbered(3), snapshot=b"state")
        store.append("trimmed", numbered(1, 4))
        store.trim("trimmed")
        first, absent, trimmed, rest, last = store.read_many(
            [("a", 1, None), ("nobody", 0, None), ("trimmed", 2, None), ("trimmed", 3, None), ("a", 0, 1)]
        )
        assert [record.cursor for record in first] == [2, 3]
        assert isinstance(absent, WorkflowNotFound)
        assert absent.workflow_id == "nobody"
        assert isinstance(trimmed, EventsTrimmed)
        assert trimmed.first == 4
        assert [record.cursor for record in rest] == [4]
        assert [record.cursor for record in last] == [1]

    def test_many_ranges_may_be_none(self, store: Any) -> None:
        assert store.read_many([]) == []
        assert store.read_many([], facts=True) == []

    def test_facts_take_the_place_of_references(self, store: Any) -> None:
        events = [Produced(Fact({"large": "x" * 5000})), {"plain": [Fact(1), {"deep": (Fact(2),)}]}, *numbered(1)]
        store.append("a", events)
        store.append("b", events[1:])
        found = store.read_many([("a", 0, None), ("b", 0, None), ("a", 2, None)], facts=True)
        assert [[record.event for record in records] for records in found] == [events, events[1:], events[2:]]
        assert [[record.cursor for record in records] for records in found] == [[1, 2, 3], [1, 2], [3]]
        (plain,) = store.read_many([("a", 0, 1)])
        assert isinstance(plain[0].event.value, FactRef)

    @pytest.mark.parametrize(
        ("items", "error"),
        [
            (5, InvalidType),
            ("w", InvalidType),
            (["w"], InvalidType),
            ([("w", 0)], InvalidType),
            ([("w", 0, None), ("w", 0, None, 1)], InvalidType),
            ([("", 0, None)], InvalidArgument),
            ([(1, 0, None)], InvalidType),
            ([("w", -1, None)], InvalidArgument),
            ([("w", None, None)], InvalidType),
            ([("w", 0, "1")], InvalidType),
        ],
    )
    def test_malformed_items_are_rejected(self, store: Any, items: Any, error: type) -> None:
        store.append("w", numbered(1))
        with pytest.raises(error, match="nothing was sent"):
            store.read_many(items)
