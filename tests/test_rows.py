"""Rows name their schema only if the events of an entry have several, and each reader finds the events in them."""

from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import msgpack
import msgspec
import pydantic
from hypothesis import example, given
from hypothesis import strategies as st

from runic_redis.events import EventRegistry
from tests.codecs import BOTH
from tests.format_reader import Object, _rows, tagged

registry = EventRegistry()


@registry.event("rows.empty")
class Empty(msgspec.Struct):
    pass


@registry.event("rows.one")
class One(NamedTuple):
    value: Any


@registry.event("rows.open")
@dataclass
class Open:
    """Its instances can have more attributes, and then have another schema."""

    first: Any
    second: Any = None


@registry.event("rows.slotted")
@dataclass(frozen=True, slots=True)
class Slotted:
    first: Any
    second: Any = None


@registry.event("rows.noted")
class Noted(pydantic.BaseModel):
    """Its note is left out if it cannot be stored."""

    value: Any
    _note: Any = pydantic.PrivateAttr(default=None)


LOCK = type(Lock())
CODECS = [codec(registry, "raise") for codec in BOTH]
NAMES: dict[type, tuple[str, tuple[str, ...]]] = {
    Empty: ("rows.empty", ()),
    One: ("rows.one", ("value",)),
    Open: ("rows.open", ("first", "second")),
    Slotted: ("rows.slotted", ("first", "second")),
    Noted: ("rows.noted", ("value", "_note")),
}


def opened(first: Any, second: Any, more: dict[str, Any]) -> Open:
    event = Open(first, second)
    vars(event).update(more)
    return event


def noted(value: Any, note: Any) -> Noted:
    event = Noted(value=value)
    event._note = note
    return event


def as_stored(value: Any, *, locks: bool = False) -> Any:
    """Return what a reader without classes finds: no note that is a lock, or with `locks`, None in its place."""
    if type(value) in {list, tuple}:
        return type(value)(as_stored(part, locks=locks) for part in value)
    if type(value) is dict:
        return {key: as_stored(part, locks=locks) for key, part in value.items()}
    if type(value) not in NAMES:
        return None if type(value) is LOCK else value
    name, names = NAMES[type(value)]
    fields = {field: getattr(value, field) for field in names}
    fields = {field: part for field, part in fields.items() if locks or type(part) is not LOCK}
    if type(value) is Open and len(vars(value)) > len(names):
        fields["__dict__"] = {key: part for key, part in vars(value).items() if key not in names}
    return Object(name, 1, as_stored(fields, locks=locks))


scalars = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
)


def objects(parts: st.SearchStrategy[Any]) -> list[st.SearchStrategy[Any]]:
    more = st.dictionaries(st.sampled_from(["third", "fourth"]), parts, max_size=2)
    return [
        st.builds(Empty),
        st.builds(One, parts),
        st.builds(Open, parts, parts),
        st.builds(opened, parts, parts, more),
        st.builds(Slotted, parts, parts),
        st.builds(noted, parts, parts | st.builds(Lock)),
    ]


values = st.recursive(
    scalars,
    lambda parts: st.one_of(
        st.lists(parts, max_size=3),
        st.lists(parts, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), parts, max_size=3),
        *objects(parts),
    ),
    max_leaves=5,
)
dicts = st.dictionaries(st.text(max_size=3), values, max_size=3)
of_one_class = [dicts, *objects(values), *objects(scalars)]
commits = st.one_of(
    *(st.lists(one, min_size=1, max_size=6) for one in of_one_class),
    st.lists(st.one_of(of_one_class), min_size=1, max_size=8),
)


@given(commits)
@example([Empty(), Empty()])
@example([Empty(), {}, Empty()])
@example([Open(1), opened(1, 2, {"third": 3}), Open(2)])
@example([noted(1, "kept"), noted(2, Lock()), noted(3, "kept")])
@example([noted(2, Lock()), noted(3, Lock())])
@example([One(One(1)), One(Empty())])
@example([One(Slotted(1)), Slotted(One(2)), {"k": One(3)}])
@example([One(0), One(1), One(True), One(None)])
def test_each_reader_finds_the_events_and_indexes_are_there_only_if_needed(commit: list[Any]) -> None:
    expected = as_stored(commit)
    schemas = {(one.name, tuple(one.fields)) if type(one) is Object else None for one in expected}
    (entry,) = CODECS[1].encode_commit(commit)
    header = msgpack.unpackb(entry.header)
    assert (header[0] is None) == (len(schemas) > 1)
    log = CODECS[1].encode_log(commit)
    assert tagged(_rows(entry.header, entry.payload)) == tagged(expected)
    assert tagged(_rows(*msgpack.unpackb(log))) == tagged(expected)
    for codec in CODECS:
        assert codec.encode_commit(commit) == [entry]
        assert codec.encode_log(commit) == log
        for found in (codec.decode_entry(entry.header, entry.payload), codec.decode_log(log)):
            assert list(map(type, found)) == list(map(type, commit))
            assert tagged(as_stored(found, locks=True)) == tagged(as_stored(commit, locks=True))


def test_classes_that_share_a_schema_count_as_one() -> None:
    registry = EventRegistry()

    def defined() -> type:
        @registry.event("rows.defined_again")
        @dataclass(frozen=True, slots=True)
        class Again:
            value: Any

        return Again

    first, second = defined(), defined()
    for commit, values, schemas in (([first(1), second(2)], [1, 2], 1), ([first(1), {}, second(3)], [1, {}, 3], 2)):
        for codec in (kind(registry, "raise") for kind in BOTH):
            (entry,) = codec.encode_commit(commit)
            header = msgpack.unpackb(entry.header)
            assert (len(header), header[0] is None) == (schemas + (schemas > 1), schemas > 1)
            read = codec.decode_entry(entry.header, entry.payload)
            assert [event if type(event) is dict else event.value for event in read] == values
