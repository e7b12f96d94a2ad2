"""Bad input: each its own clear error of the one family, and nothing changed."""

import datetime as dt
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from runic_redis import EncodeError, InvalidArgument, StoreError
from runic_redis.testing.base import Contract
from runic_redis.testing.examples import OrderPlaced, numbered

__all__ = ["BadInputContract"]

Call = Callable[[], Any]


@dataclass
class Unregistered:
    """A dataclass that nobody registered."""

    value: int = 0


class Colour(Enum):
    """An Enum that nobody registered."""

    RED = 1


class Number(IntEnum):
    """An int, nearly."""

    ONE = 1


class Text(str):
    """A str, nearly."""

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


_BAD_IDS: list[Any] = ["", "x" * 513, "é" * 257, "\ud800", None, 5, b"order-1", ["order-1"]]
_BAD_CURSORS: list[Any] = [-1, 2**53, 1.0, "1", True]
_BAD_HASHES: list[Any] = ["", b"", "\ud800", "x" * 513, None, 5, bytearray(b"x")]

# A value that cannot be kept, and the path of the bad part below the value.
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
    (OrderedDict(a=1), ""),
    (bytearray(b"x"), ""),
    (memoryview(b"x"), ""),
    (1 + 2j, ""),
    (range(3), ""),
    (print, ""),
    (int, ""),
    (OrderPlaced(customer=["deep", {1, 2}, Unregistered()]), ".customer[2]"),  # type: ignore[arg-type]
    (dt.time(12, tzinfo=ZoneInfo("Europe/Paris")), ""),
    (_cyclic_list(), ""),
    (_cyclic_dict(), ""),
    (_nested(lambda value: [value], 5000), ""),
    (_nested(lambda value: {"k": value}, 5000), ""),
    (_nested(lambda value: (value,), 100), ""),
]


def _name(value: Any) -> str:
    return repr(value)[:12]


class BadInputContract(Contract):
    """Arguments that no store could take."""

    @pytest.fixture
    def guarded(self, store: Any) -> Any:
        """A store with one workflow of everything, and at the end a look whether anything has changed."""
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

    @pytest.mark.parametrize("workflow_id", _BAD_IDS, ids=_name)
    def test_a_bad_workflow_id_is_refused_everywhere(self, guarded: Any, workflow_id: Any) -> None:
        calls: list[Call] = [
            lambda: guarded.append(workflow_id, numbered(1)),
            lambda: guarded.append_many([(workflow_id, numbered(1))]),
            lambda: guarded.stream(workflow_id),
            lambda: guarded.stream_records(workflow_id),
            lambda: guarded.cursor(workflow_id),
            lambda: guarded.save_snapshot(workflow_id, 0, b""),
            lambda: guarded.load_snapshot(workflow_id),
            lambda: guarded.trim(workflow_id),
            lambda: guarded.save(workflow_id, []),
            lambda: guarded.load(workflow_id),
            lambda: guarded.exists(workflow_id),
            lambda: guarded.delete(workflow_id),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument) as caught:
                call()
            assert isinstance(caught.value, ValueError)
            assert isinstance(caught.value, TypeError) == (not isinstance(workflow_id, str))

    @pytest.mark.parametrize("cursor", _BAD_CURSORS)
    def test_a_bad_cursor_is_refused_everywhere(self, guarded: Any, cursor: Any) -> None:
        calls: list[Call] = [
            lambda: guarded.append("order-1", numbered(1), expected_cursor=cursor),
            lambda: guarded.stream("order-1", after=cursor),
            lambda: guarded.stream("order-1", until=cursor),
            lambda: guarded.stream_records("order-1", after=cursor, reverse=True),
            lambda: guarded.save_snapshot("order-1", cursor, b""),
            lambda: guarded.list(limit=cursor),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument):
                call()

    @pytest.mark.parametrize("data", [None, "text", bytearray(b"x"), memoryview(b"x"), 5, [b"x"]])
    def test_a_snapshot_that_is_not_bytes_is_refused(self, guarded: Any, data: Any) -> None:
        with pytest.raises(InvalidArgument) as caught:
            guarded.save_snapshot("order-1", 2, data)
        assert isinstance(caught.value, TypeError)

    @pytest.mark.parametrize("fact_hash", _BAD_HASHES, ids=_name)
    def test_a_bad_hash_is_refused_everywhere(self, guarded: Any, fact_hash: Any) -> None:
        calls: list[Call] = [
            lambda: guarded.save_fact(fact_hash, 1),
            lambda: guarded.load_fact(fact_hash),
            lambda: guarded.load_facts([fact_hash]),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument):
                call()

    @pytest.mark.parametrize(("value", "path"), _BAD_VALUES, ids=lambda value: type(value).__name__)
    def test_a_value_that_cannot_be_kept_is_named_by_its_path(self, guarded: Any, value: Any, path: str) -> None:
        def refused(call: Any, root: str) -> None:
            with pytest.raises(EncodeError) as caught:
                call()
            assert isinstance(caught.value, TypeError)
            assert root in caught.value.path
            if path:
                assert caught.value.path == root + path

        refused(
            lambda: guarded.append("order-1", [{"fine": 1}, {"bad": value}]), "events[1]['bad']" if path else "events"
        )
        refused(
            lambda: guarded.append("order-1", numbered(1), metadata={"bad": value}),
            "metadata['bad']" if path else "metadata",
        )
        refused(lambda: guarded.save("order-1", [{"bad": value}]), "log[0]['bad']" if path else "log")
        refused(lambda: guarded.save_fact("other", value), "value")
        refused(lambda: guarded.put_fact(value), "value")

    @pytest.mark.parametrize("event", [None, 5, "text", b"x", [1], (1, 2), {1}, Unregistered(), OrderedDict(a=1)])
    def test_an_event_is_a_registered_instance_or_a_plain_dict(self, guarded: Any, event: Any) -> None:
        with pytest.raises(EncodeError) as caught:
            guarded.append("order-1", [*numbered(1), event])
        assert caught.value.path == "events[1]"

    @pytest.mark.parametrize("events", [None, 5, "text", b"x", {"one": "event"}, Point(1, 2), OrderPlaced("Ada")])
    def test_events_are_a_list(self, guarded: Any, events: Any) -> None:
        calls: list[Call] = [
            lambda: guarded.append("order-1", events),
            lambda: guarded.append_many([("order-1", events)]),
            lambda: guarded.save("order-1", events),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument) as caught:
                call()
            assert isinstance(caught.value, TypeError)

    @pytest.mark.parametrize("items", [5, None, "ab", [5], ["ab"], [("order-1",)], [("order-1", [], 3)]])
    def test_items_are_pairs(self, guarded: Any, items: Any) -> None:
        with pytest.raises(InvalidArgument):
            guarded.append_many(items)

    def test_an_event_over_the_limit_is_named(self, guarded: Any) -> None:
        large = {"data": b"x" * (17 * 1024 * 1024)}
        with pytest.raises(EncodeError) as caught:
            guarded.append("order-1", [*numbered(3), large, *numbered(3)])
        assert caught.value.path == "events[3]"

    @pytest.mark.parametrize("commit_id", ["", b"", "\ud800", 5, "x" * 513, bytearray(b"x")])
    def test_a_bad_commit_id_is_refused(self, guarded: Any, commit_id: Any) -> None:
        with pytest.raises(InvalidArgument):
            guarded.append("order-1", numbered(1), commit_id=commit_id)

    @pytest.mark.parametrize("metadata", [5, "text", [1], {"large": "x" * 70_000}])
    def test_bad_metadata_is_refused(self, guarded: Any, metadata: Any) -> None:
        with pytest.raises(InvalidArgument):
            guarded.append("order-1", numbered(1), metadata=metadata)

    @pytest.mark.parametrize("prefix", [None, 5, b"x", "\ud800"])
    def test_a_bad_prefix_is_refused(self, guarded: Any, prefix: Any) -> None:
        with pytest.raises(InvalidArgument):
            guarded.list(prefix=prefix)

    def test_a_closed_store_says_so(self, opener: Any) -> None:
        store = opener()
        store.close()
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.append("order-1", numbered(1))
