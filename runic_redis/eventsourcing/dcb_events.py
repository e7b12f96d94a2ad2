"""Events of the library's DCB recorders as events of the store.

The type of an event is the name of its type in the store; its data and its tags are the fields. In the index, types and
tags are tags, which the first letter tells apart. A text that is too long for a tag is replaced by its hash.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgpack
from eventsourcing.dcb.api import DCBEvent, DCBQuery

from runic_redis.arguments import MAX_TAG_BYTES
from runic_redis.codec import EncodedEvents, Entry
from runic_redis.codec.compression import compress
from runic_redis.codec.limits import MAX_HEADER_BYTES, SPLIT_BYTES
from runic_redis.codec.native import pack
from runic_redis.context import Context
from runic_redis.errors import DecodeError, EncodeError
from runic_redis.events import EventRegistry, UnknownEvent, UnknownEvents
from runic_redis.events.attributes import Build
from runic_redis.events.event_types import Schema
from runic_redis.operations.tagging import joined_tags

_FIELDS = ("data", "tags")


class DCBEventRegistry(EventRegistry):
    """A registry that reads every event as a `DCBEvent`."""

    def builder(self, schema: Schema, unknown_events: UnknownEvents) -> Build:  # noqa: ARG002
        """Return a function that makes events from rows."""
        name = schema.name
        if schema.fields == _FIELDS:
            return lambda rows: [DCBEvent(name, row[0], row[1]) for row in rows]
        raise DecodeError(
            f"An event of the type {name!r:.600} has the fields {', '.join(schema.fields)!r:.600}, and was not stored "
            "by a DCB recorder of eventsourcing. Another application uses the same namespace. Nothing was changed. "
            "Give each application its own namespace."
        )

    def multiplies(self, schema: Schema) -> bool:  # noqa: ARG002
        """Return that each event is read as one."""
        return False


def encode_dcb(context: Context, events: Sequence[DCBEvent]) -> tuple[EncodedEvents, Any]:
    """Return events, encoded for a commit, and their tags.

    Raises:
        EncodeError: an event is not of the library's types, or the events are too large.
    """
    for place, event in enumerate(events):
        _check(event, place)
    types = list(dict.fromkeys([event.type for event in events]))
    rows: list[Any] = [(event.data, event.tags) for event in events]
    if len(types) > 1:
        numbers = {name: number for number, name in enumerate(types)}
        rows = [(numbers[event.type], *row) for event, row in zip(events, rows, strict=True)]
    tags = joined_tags([[_typed(event.type), *map(_tagged, event.tags)] for event in events], ())
    header, packed = _header(tuple(types)), pack(rows)
    if len(packed) <= SPLIT_BYTES and len(header) <= MAX_HEADER_BYTES:
        return EncodedEvents(events, [Entry(len(events), header, compress(packed))], {}), tags
    # The general way splits a large commit.
    unknown = [UnknownEvent(event.type, 1, {"data": event.data, "tags": list(event.tags)}) for event in events]
    return context.codec.encode_events(unknown), tags


def encode_query(query: DCBQuery | None) -> list[list[str]]:
    """Return a query of the library as one of the store."""
    if query is None or not query.items:
        return [[]]
    items = []
    for item in query.items:
        tags = [_tagged(tag) for tag in item.tags]
        # The tags come first: fewer events have them, and an item is searched by its tags in turn.
        items += [[*tags, _typed(name)] for name in item.types] or [tags]
    return items


def matches(event: DCBEvent, query: DCBQuery | None) -> bool:
    """Return whether an event matches a query."""
    if query is None or not query.items:
        return True
    tags = set(event.tags)
    return any((not item.types or event.type in item.types) and tags.issuperset(item.tags) for item in query.items)


def _check(event: Any, place: int) -> None:
    if type(event.data) is not bytes:
        path = f"events[{place}].data"
        raise EncodeError(f"{path} is of the type {type(event.data).__name__}, not bytes; nothing was sent.", path=path)
    if type(event.type) is not str or not event.type:
        path = f"events[{place}].type"
        raise EncodeError(f"{path} is no text, or empty; nothing was sent.", path=path)
    if not isinstance(event.tags, list | tuple) or any(type(tag) is not str for tag in event.tags):
        path = f"events[{place}].tags"
        raise EncodeError(f"{path} is not a list of texts; nothing was sent.", path=path)


def _typed(name: str) -> str:
    return _term("y", "Y", name)


def _tagged(tag: str) -> str:
    return _term("t", "T", tag)


@lru_cache(maxsize=4096)
def _term(plain: str, hashed: str, text: str) -> str:
    """Return the tag that stands for a type or a tag."""
    raw = text.encode()
    if len(raw) < MAX_TAG_BYTES and b"\0" not in raw:
        return plain + text
    return hashed + hashlib.sha256(raw).hexdigest()


@lru_cache(maxsize=1024)
def _header(types: tuple[str, ...]) -> bytes:
    schemas: list[Any] = [[name, 1, _FIELDS] for name in types]
    header: bytes = msgpack.packb(schemas if len(schemas) == 1 else [None, *schemas])
    return header
