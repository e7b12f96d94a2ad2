"""Bad input: each raises a clear error of the one family, and changes nothing."""

import datetime as dt
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import partial
from itertools import product
from typing import Any

import pytest

from runic_redis import EncodeError, InvalidArgument, StoreError
from runic_redis.testing.base import Contract, raised_error
from runic_redis.testing.examples import OrderPlaced, numbered

Call = Callable[[Any], Any]


@dataclass
class Unregistered:
    """A dataclass that is not registered."""

    value: int = 0


class Colour(Enum):
    """An Enum that is not registered."""

    RED = 1


class Number(IntEnum):
    """A subclass of int."""

    ONE = 1


class Text(str):
    """A subclass of str."""

    __slots__ = ()


Point = namedtuple("Point", "x y")


def _nested(wrap: Any, depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = wrap(value)
    return value


def _cyclic_list() -> Any:
    value: list[Any] = [1]
    value.append({"again": value})
    return value


def _cyclic_dict() -> Any:
    value: dict[str, Any] = {}
    value["again"] = [value]
    return value


class _Unsure(dt.tzinfo):
    """A time zone without an offset unless there is a date."""

    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta | None:
        return None if when is None else dt.timedelta(hours=1)

    def dst(self, when: dt.datetime | None) -> None:  # noqa: ARG002
        return None

    def tzname(self, when: dt.datetime | None) -> str:  # noqa: ARG002
        return "unsure"


class _Nowhere(_Unsure):
    """A time zone without an offset."""

    def utcoffset(self, when: dt.datetime | None) -> None:  # noqa: ARG002
        return None


_BAD_IDS: list[Any] = ["", "x" * 513, "é" * 257, "\ud800", None, 5, b"order-1", ["order-1"]]
_BAD_CURSORS: list[Any] = [-1, 2**53, 1.0, "1", True]
_BAD_TIMES: list[Any] = [
    *(dt.datetime(2026, 1, 31), dt.datetime.max, dt.date(2026, 1, 31), dt.timedelta(hours=1)),
    *(0, 1.5, True, "2026-01-31T12:00:00+00:00", b"now"),
]
_BAD_HASHES: list[Any] = ["", b"", "\ud800", "x" * 513, None, 5, bytearray(b"x")]

# Values that cannot be stored, each with the path of the bad part within the value.
_BAD_VALUES: list[tuple[Any, str]] = [
    (object(), ""),
    (Unregistered(), ""),
    ([1, {"a": (1, Unregistered())}], "[1]['a'][1]"),
    ({"a": {1: {"b": "\ud800"}}}, "['a'][1]['b']"),
    ({("k", Colour.RED): 1}, ""),
    (Colour.RED, ""),
    (Number.ONE, ""),
    (Text("x"), ""),
    (Point(1, 2), ""),
    (memoryview(b"x"), ""),
    (print, ""),
    (int, ""),
    (OrderPlaced(customer=["deep", {1, 2}, Unregistered()]), ".customer[2]"),  # type: ignore[arg-type]
    (dt.time(12, tzinfo=_Unsure()), ""),
    (_cyclic_list(), ""),
    (_cyclic_dict(), ""),
    (_nested(lambda value: [value], 5000), ""),
    (_nested(lambda value: {"k": value}, 5000), ""),
    (_nested(lambda value: (value,), 100), ""),
]


class BadInputContract(Contract):
    """Arguments that every store must reject."""

    @pytest.fixture
    def guarded(self, store: Any) -> Any:
        """A store with one workflow that has events, a log, a snapshot and a fact; all must be unchanged at the end."""
        store.append("order-1", numbered(2))
        store.save("order-1", numbered(1))
        store.save_snapshot("order-1", 1, b"one")
        store.save_fact("h", "value")
        yield store
        assert list(store.list()) == ["order-1"]
        assert list(store.stream("order-1")) == numbered(2)
        assert store.load("order-1") == numbered(1)
        assert store.load_snapshot("order-1") == (1, b"one")
        assert store.load_fact("h") == "value"

    def test_a_bad_workflow_id_is_refused_everywhere(self, guarded: Any) -> None:
        calls: list[Call] = [
            lambda workflow_id: guarded.append(workflow_id, numbered(1)),
            lambda workflow_id: guarded.append_many([(workflow_id, numbered(1))]),
            guarded.stream,
            guarded.stream_records,
            guarded.cursor,
            lambda workflow_id: guarded.save_snapshot(workflow_id, 0, b""),
            guarded.load_snapshot,
            guarded.trim,
            lambda workflow_id: guarded.save(workflow_id, []),
            guarded.load,
            guarded.exists,
            guarded.delete,
        ]
        for workflow_id, call in product(_BAD_IDS, calls):
            error = raised_error(workflow_id, partial(call, workflow_id), InvalidArgument)
            assert isinstance(error, ValueError)
            assert isinstance(error, TypeError) == (not isinstance(workflow_id, str))

    def test_a_bad_cursor_is_refused_everywhere(self, guarded: Any) -> None:
        calls: list[Call] = [
            lambda cursor: guarded.append("order-1", numbered(1), expected_cursor=cursor),
            lambda cursor: guarded.stream("order-1", after=cursor),
            lambda cursor: guarded.stream("order-1", until=cursor),
            lambda cursor: guarded.stream_records("order-1", after=cursor, reverse=True),
            lambda cursor: guarded.save_snapshot("order-1", cursor, b""),
            lambda cursor: guarded.list(limit=cursor),
        ]
        for cursor, call in product(_BAD_CURSORS, calls):
            raised_error(cursor, partial(call, cursor), InvalidArgument)

    def test_a_bad_time_is_refused_everywhere(self, guarded: Any) -> None:
        calls: list[Call] = [
            lambda since: guarded.stream("order-1", since=since),
            lambda since: guarded.stream_records("order-1", since=since, reverse=True),
        ]
        for since, call in product(_BAD_TIMES, calls):
            error = raised_error(since, partial(call, since), InvalidArgument)
            assert isinstance(error, TypeError) == (not isinstance(since, dt.datetime))
        for due in (dt.datetime(2026, 1, 31), dt.datetime(2026, 1, 31, tzinfo=_Nowhere()), -1, True, "1"):
            call = partial(guarded.append, "order-1", numbered(1), queue="q", due=due)
            raised_error(due, call, InvalidArgument)

    def test_a_snapshot_that_is_not_bytes_is_refused(self, guarded: Any) -> None:
        for data in (None, "text", bytearray(b"x"), memoryview(b"x"), 5, [b"x"]):
            error = raised_error(data, partial(guarded.save_snapshot, "order-1", 2, data), InvalidArgument)
            assert isinstance(error, TypeError)

    def test_a_bad_hash_is_refused_everywhere(self, guarded: Any) -> None:
        calls: list[Call] = [
            lambda fact_hash: guarded.save_fact(fact_hash, 1),
            guarded.load_fact,
            lambda fact_hash: guarded.load_facts([fact_hash]),
        ]
        for fact_hash, call in product(_BAD_HASHES, calls):
            raised_error(fact_hash, partial(call, fact_hash), InvalidArgument)

    def test_a_value_that_cannot_be_kept_is_named_by_its_path(self, guarded: Any) -> None:
        calls: list[tuple[str, str, Call]] = [
            ("events", "[1]['bad']", lambda value: guarded.append("order-1", [{"fine": 1}, {"bad": value}])),
            ("metadata", "['bad']", lambda value: guarded.append("order-1", numbered(1), metadata={"bad": value})),
            ("log", "[0]['bad']", lambda value: guarded.save("order-1", [{"bad": value}])),
            ("value", "", lambda value: guarded.save_fact("other", value)),
            ("value", "", guarded.put_fact),
        ]
        for (value, path), (root, place, call) in product(_BAD_VALUES, calls):
            error = raised_error(value, partial(call, value), EncodeError)
            assert root in error.path
            if path:
                assert error.path == root + place + path
            assert isinstance(error, TypeError)

    def test_an_event_is_a_registered_instance_or_a_plain_dict(self, guarded: Any) -> None:
        for event in (None, 5, "text", b"x", [1], (1, 2), {1}, Unregistered(), OrderedDict(a=1)):
            error = raised_error(event, partial(guarded.append, "order-1", [*numbered(1), event]), EncodeError)
            assert error.path == "events[1]"

    def test_events_are_a_list(self, guarded: Any) -> None:
        calls: list[Call] = [
            lambda events: guarded.append("order-1", events),
            lambda events: guarded.append_many([("order-1", events)]),
            lambda events: guarded.save("order-1", events),
        ]
        for events, call in product([None, 5, "text", b"x", {"one": "event"}, Point(1, 2), OrderPlaced("Ada")], calls):
            error = raised_error(events, partial(call, events), InvalidArgument)
            assert isinstance(error, TypeError)

    def test_items_are_pairs(self, guarded: Any) -> None:
        items: Any
        for items in (5, None, "ab", [5], ["ab"], [("order-1",)], [("order-1", [], 3)]):
            raised_error(items, partial(guarded.append_many, items), InvalidArgument)

    def test_an_event_over_the_limit_is_named(self, guarded: Any) -> None:
        large = {"data": b"x" * (17 * 1024 * 1024)}
        with pytest.raises(EncodeError) as caught:
            guarded.append("order-1", [*numbered(3), large, *numbered(3)])
        assert caught.value.path == "events[3]"

    def test_a_bad_commit_id_is_refused(self, guarded: Any) -> None:
        for given in ("", b"", "\ud800", 5, "x" * 513, bytearray(b"x")):
            raised_error(given, partial(guarded.append, "order-1", numbered(1), commit_id=given), InvalidArgument)

    def test_bad_metadata_is_refused(self, guarded: Any) -> None:
        for metadata in (5, "text", [1], {"large": "x" * 70_000}):
            raised_error(metadata, partial(guarded.append, "order-1", numbered(1), metadata=metadata), InvalidArgument)

    def test_a_bad_prefix_is_refused(self, guarded: Any) -> None:
        for prefix in (None, 5, b"x", "\ud800"):
            raised_error(prefix, partial(guarded.list, prefix=prefix), InvalidArgument)

    def test_a_closed_store_raises_a_store_error(self, opener: Any) -> None:
        store = opener()
        store.close()
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.append("order-1", numbered(1))
