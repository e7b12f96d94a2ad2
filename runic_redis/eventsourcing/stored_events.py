"""Stored events of `eventsourcing` as events of the store.

The topic is the name of the type, and the state is the one field. The version of an event is its cursor. Where it is
not, as in an aggregate whose versions begin with 0, there is a field for it, too. Nothing is resolved or imported: the
topic is text here.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgpack

from runic_redis.codec import EncodedEvents, Entry
from runic_redis.codec.compression import compress
from runic_redis.codec.limits import MAX_HEADER_BYTES, SPLIT_BYTES
from runic_redis.codec.native import pack
from runic_redis.context import Context
from runic_redis.errors import DecodeError, EncodeError, WorkflowNotFound
from runic_redis.events import EventRegistry, UnknownEvent, UnknownEvents
from runic_redis.events.attributes import Build
from runic_redis.events.event_types import Schema
from runic_redis.operations.reading import Reader
from runic_redis.protocol.effects import Operation

_STATE = ("state",)
_VERSIONED = ("version", "state")
# How many headers are remembered before they are forgotten. A program has far fewer.
_REMEMBERED = 1024
_headers: dict[tuple[bool, tuple[str, ...]], bytes] = {}


# A stored event as it is read: its topic, its state, and its version if that is not its cursor. (A plain tuple takes a
# tenth of the time of a named one.)
Stored: TypeAlias = tuple[str, bytes, int | None]


class StoredEventRegistry(EventRegistry):
    """A registry that reads every event as `Stored`."""

    def builder(self, schema: Schema, unknown_events: UnknownEvents) -> Build:  # noqa: ARG002
        """Return a function that makes stored events from rows."""
        topic = schema.name
        if schema.fields == _STATE:
            return lambda rows: [(topic, row[0], None) for row in rows]
        if schema.fields == _VERSIONED:
            return lambda rows: [(topic, row[1], row[0]) for row in rows]
        raise DecodeError(
            f"An event of the type {topic!r:.600} has the fields {', '.join(schema.fields)!r:.600}, and is no stored "
            "event of eventsourcing. Another application uses the same namespace. Nothing was changed. Give each "
            "application its own namespace."
        )

    def multiplies(self, schema: Schema) -> bool:  # noqa: ARG002
        """Return that each event is read as one."""
        return False


def encode_stored(context: Context, events: Sequence[Any], *, versioned: bool) -> EncodedEvents:
    """Return stored events of one aggregate, encoded for `append`.

    Args:
        context: the store's.
        events: the events, with ``topic``, ``state`` and ``originator_version``.
        versioned: whether their versions are not their cursors.

    Raises:
        EncodeError: a state is not `bytes`, or the events are too large.
    """
    topics = list(dict.fromkeys([one.topic for one in events]))
    states = [one.state for one in events]
    for place, state in enumerate(states):
        if type(state) is not bytes:
            path = f"events[{place}].state"
            raise EncodeError(f"{path} is of the type {type(state).__name__}, not bytes; nothing was sent.", path=path)
    rows: list[Any] = [(one.originator_version, one.state) for one in events] if versioned else list(zip(states))
    if len(topics) > 1:
        numbers = {topic: number for number, topic in enumerate(topics)}
        rows = [(numbers[one.topic], *row) for one, row in zip(events, rows, strict=True)]
    header = _header(topics, versioned=versioned)
    packed = pack(rows)
    if len(packed) <= SPLIT_BYTES and len(header) <= MAX_HEADER_BYTES:
        return EncodedEvents(events, [Entry(len(events), header, compress(packed))], {})
    # The general way splits a large commit.
    return context.codec.encode_events([_unknown(one, versioned=versioned) for one in events])


def _unknown(event: Any, *, versioned: bool) -> UnknownEvent:
    fields = {"state": event.state}
    return UnknownEvent(event.topic, 1, {"version": event.originator_version, **fields} if versioned else fields)


def _header(topics: Sequence[str], *, versioned: bool) -> bytes:
    key = versioned, tuple(topics)
    header = _headers.get(key)
    if header is None:
        schemas: list[Any] = [[topic, 1, _VERSIONED if versioned else _STATE] for topic in topics]
        header = msgpack.packb(schemas if len(schemas) == 1 else [None, *schemas])
        if len(_headers) >= _REMEMBERED:
            _headers.clear()
        _headers[key] = header
    return header


def with_versions(events: Iterable[Stored], cursor: int) -> list[tuple[int, str, bytes]]:
    """Return the version, the topic and the state of events; `cursor` is the one before them."""
    return [
        (place if version is None else version, topic, state)
        for place, (topic, state, version) in enumerate(events, cursor + 1)
    ]


def select_stored(
    context: Context, workflow_id: str, *, gt: int | None, lte: int | None, desc: bool, limit: int | None
) -> Operation[list[tuple[int, str, bytes]]]:
    """Return the version, the topic and the state of the events of an aggregate, above `gt` and up to `lte`."""
    # A version is its cursor, or one less.
    after = 0 if gt is None else max(gt, 0)
    until = None if lte is None else lte + 1
    if (until is not None and until <= after) or limit == 0:
        return []
    reader = Reader(context, workflow_id, after=after, until=until, reverse=desc, records=desc, whole=limit is None)
    try:
        yield from reader.open()
    except WorkflowNotFound:
        return []
    found: list[tuple[int, str, bytes]] = []
    cursor = after
    while limit is None or len(found) < limit:
        page = yield from reader.next_page()
        if not page:
            break
        if desc:
            versions = [one for record in page for one in with_versions([record.event], record.cursor - 1)]
        else:
            versions = with_versions(page, cursor)
            cursor += len(page)
        if gt is not None or lte is not None:
            versions = [one for one in versions if (gt is None or one[0] > gt) and (lte is None or one[0] <= lte)]
        found += versions
    reader.close()
    return found if limit is None else found[:limit]
