"""Decode stream entries, and rebuild the objects in them; `entry_encoder` describes the format."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import msgpack

from runic_redis.codec.compression import decompress, payload_start
from runic_redis.codec.limits import MAX_EVENT_BYTES, MAX_HEADER_BYTES
from runic_redis.codec.native import row_reader
from runic_redis.codec.value_decoder import Builder, decode_value, parse_schema
from runic_redis.errors import DecodeError, IncompatibleEvent, StoreError, reason
from runic_redis.events import FACT_REF, EventRegistry, FactRef, UnknownEvent, UnknownEvents
from runic_redis.events.attributes import Build
from runic_redis.events.event_types import Schema, Several
from runic_redis.events.references import checked_ref

# How many headers, and how many bytes of them, the decoder remembers before it clears them. A program has far fewer.
_REMEMBERED = 1024
_REMEMBERED_BYTES = 1024 * 1024
# The largest head of a MessagePack array.
_ARRAY_HEAD_BYTES = 5
# Stop reading typed rows after this many failures in a row. A type with dates usually has them in each event.
_TRIES = 100
# A row's schema index, where rows have one.
_INDEX = itemgetter(0)


class Multiplied(list[Any]):
    """Events, some of which are `Several`."""


def expanded(events: Sequence[Any]) -> list[Any]:
    """Return events as a flat list, with the events of each `Several` one by one."""
    flat: list[Any] = []
    for event in events:
        flat += event if type(event) is Several else (event,)
    return flat


class _Restorer(NamedTuple):
    """The function that rebuilds objects of one schema."""

    name: str
    field_count: int
    build: Build
    multiplies: bool = False

    def many(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Return an object for each row of field values."""
        if set(map(len, rows)) != {self.field_count}:
            raise ValueError(f"a row does not have the {self.field_count} values that its schema names")
        return self.build(rows)

    def one(self, values: Sequence[Any]) -> Any:
        """Return an object from its field values."""
        (event,) = self.many((values,))
        if type(event) is not Several:
            return event
        if len(event) != 1:
            raise IncompatibleEvent(
                f"The upcasters of the event type {self.name!r} made {len(event)} events of an event that is part of "
                "another. Such an event must stay one. The data is unchanged. Return a dict, or a list of one, for it.",
                name=self.name,
                version=1,
            )
        return event[0]


class _Schemas:
    """A decoded header: what rebuilds its events, and reads their rows if all are of the first schema."""

    def __init__(self, restorers: dict[int, _Restorer], *, indexed: bool) -> None:
        self.restorers = restorers
        self.multiplies = any(restorer.multiplies for restorer in restorers.values())
        self._indexed = indexed
        self._holds_bytes = () if indexed else (False,) * restorers[0].field_count
        self._read_rows = None if indexed else row_reader(self._holds_bytes)
        self._failures = 0

    def typed_rows(self, packed: bytes) -> list[Any] | None:
        """Return the rows if all are of one schema and complete; None if they must be read one by one."""
        if self._read_rows is None or self._failures > _TRIES:
            return None
        rows = self._read_rows(packed)
        self._failures = 0 if rows is not None else self._failures + 1
        return rows

    def rebuild(self, rows: Any) -> list[Any]:
        """Return the events of rows, in order."""
        if type(rows) is not list or not set(map(type, rows)) <= {list}:
            raise DecodeError("an entry does not hold rows")
        if not rows:
            return []
        if self._indexed:
            return _rebuild_indexed(rows, self.restorers)
        events = self.restorers[0].many(rows)
        self._learn(rows[0])
        return events

    def _learn(self, row: Sequence[Any]) -> None:
        """Prepare to read rows whose fields hold bytes where this row's do. The row must have all its values."""
        holds_bytes = tuple([type(value) is bytes for value in row])
        if self._read_rows is not None and holds_bytes != self._holds_bytes and self._failures <= _TRIES:
            self._holds_bytes = holds_bytes
            self._read_rows = row_reader(holds_bytes)


class EntryDecoder:
    """A decoder of entries and of the objects in them. Threads may share it."""

    def __init__(self, registry: EventRegistry, unknown_events: UnknownEvents) -> None:
        self._registry = registry
        self._unknown_events = unknown_events
        self._generation = registry.generation
        self._by_header: dict[bytes, _Schemas] = {}
        self._by_schema: dict[bytes, _Restorer] = {}
        self._remembered_bytes = 0

    def decode(self, header: bytes, payload: bytes, most: int = MAX_EVENT_BYTES) -> list[Any]:
        """Return the events of one entry, or of another payload in the same form of at most `most` bytes.

        The list has one item for each stored event. It is `Multiplied` if some are read as several events or none.

        Raises:
            DecodeError: the entry is damaged.
            UnknownEventType: the entry holds an event of an unregistered type.
        """
        schemas = self._schemas(header)
        packed = decompress(payload, most)
        typed = schemas.typed_rows(packed)
        rows = None if typed else decode_value(packed, partial(self.find_builder, schemas.restorers))
        try:
            events = schemas.restorers[0].build(typed) if typed else schemas.rebuild(rows)
            return Multiplied(events) if schemas.multiplies and Several in set(map(type, events)) else events
        except StoreError:
            raise
        except Exception as error:  # the row does not fit, or the class rejects it
            raise DecodeError(f"a row does not fit its schema: {type(error).__name__}: {reason(error)}") from error

    def decode_document(self, data: bytes) -> Any:
        """Return the value of a document, which stands alone.

        Raises:
            DecodeError: the document is damaged.
            UnknownEventType: the value holds an object of an unregistered type.
        """
        return decode_value(data, partial(self.find_builder, {}))

    def find_builder(self, restorers: Mapping[int, _Restorer], reference: Any) -> Builder:
        """Return the function that rebuilds the objects of a schema, given by its index or as packed bytes."""
        if type(reference) is int and reference in restorers:
            return restorers[reference].one
        if type(reference) is not bytes:
            raise ValueError(f"{reference!r:.40} names no schema")
        self._forget_if_outdated()
        restorer = self._by_schema.get(reference)
        if restorer is None:
            restorer = self._restorer(msgpack.unpackb(reference))
            self._remember(self._by_schema, reference, restorer)
        return restorer.one

    def _schemas(self, header: bytes) -> _Schemas:
        self._forget_if_outdated()
        known = self._by_header.get(header)
        if known is None:
            if len(header) > MAX_HEADER_BYTES:
                raise DecodeError(f"an entry's header takes {len(header)} bytes, more than {MAX_HEADER_BYTES}")
            try:
                schemas, indexed = _unpacked(header)
                restorers = {index: self._restorer(schema) for index, schema in enumerate(schemas)}
                known = _Schemas(restorers, indexed=indexed)
            except (ValueError, TypeError, msgpack.UnpackException) as error:
                raise DecodeError(f"an entry's header is damaged: {reason(error)}") from error
            self._remember(self._by_header, header, known)
        return known

    def _restorer(self, packed: Any) -> _Restorer:
        if packed == [None, 0, []]:
            return _Restorer("dict", 1, _plain_dicts)
        schema: Schema = parse_schema(packed)
        build = self._registry.builder(schema, self._unknown_events)
        if schema.name == FACT_REF:
            build = partial(_checked_refs, build)
        return _Restorer(schema.name, len(schema.fields), build, self._registry.multiplies(schema))

    def _forget_if_outdated(self) -> None:
        if self._generation != self._registry.generation:
            self._generation = self._registry.generation
            self._forget()

    def _forget(self) -> None:
        self._by_header = {}
        self._by_schema = {}
        self._remembered_bytes = 0

    def _remember(self, known: dict[bytes, Any], key: bytes, value: Any) -> None:
        # A larger key would push out all the others.
        if len(key) > _REMEMBERED_BYTES // 4:
            return
        self._remembered_bytes += len(key)
        if len(known) >= _REMEMBERED or self._remembered_bytes > _REMEMBERED_BYTES:
            self._forget()
            return
        known[key] = value


def event_count(payload: bytes) -> int:
    """Return the number of events that an entry's payload states, without decoding the events.

    Raises:
        DecodeError: the payload is damaged.
    """
    unpacker = msgpack.Unpacker()
    unpacker.feed(payload_start(payload, _ARRAY_HEAD_BYTES))
    try:
        count: int = unpacker.read_array_header()
    except (ValueError, msgpack.UnpackException) as error:
        raise DecodeError("an entry does not hold rows") from error
    return count


def stand_in_event(header: bytes) -> Any:
    """Return an event without fields, of the first type that a header names.

    Raises:
        DecodeError: the header is damaged.
    """
    try:
        packed = _unpacked(header)[0][0]
        if packed == [None, 0, []]:
            return {}
        schema = parse_schema(packed)
    except (ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
        raise DecodeError(f"an entry's header is damaged: {reason(error)}") from error
    return UnknownEvent(schema.name, schema.version, {})


def _unpacked(header: bytes) -> tuple[list[Any], bool]:
    """Return the schemas in a header, and whether each row begins with the index of its schema."""
    schemas = msgpack.unpackb(header)
    if type(schemas) is not list or not schemas:
        raise ValueError("it is not an array of schemas")
    indexed = schemas[0] is None
    return schemas[indexed:], indexed


def _rebuild_indexed(rows: Sequence[Any], restorers: Mapping[int, _Restorer]) -> list[Any]:
    """Return the events of rows in order; all rows of one schema are rebuilt together."""
    indexes = list(map(_INDEX, rows))
    if set(map(type, indexes)) != {int}:  # True and 1.0 would find the schema 1
        raise ValueError("a row does not begin with the index of its schema")
    by_schema: dict[int, list[Any]] = {index: [] for index in indexes}
    for row in rows:
        by_schema[row[0]].append(row[1:])
    in_turn = {index: iter(restorers[index].many(values)) for index, values in by_schema.items()}
    return [next(in_turn[row[0]]) for row in rows]


def _checked_refs(build: Build, rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Build references to facts and check their hashes; another version's stand-ins pass unchecked."""
    return [checked_ref(ref) if type(ref) is FactRef else ref for ref in build(rows)]


def _plain_dicts(rows: Iterable[Sequence[Any]]) -> list[Any]:
    events = [row[0] for row in rows]
    if not set(map(type, events)) <= {dict}:
        raise ValueError("a plain event is not a map")
    return events
