"""Decode stream entries, and rebuild the objects in them; `entry_encoder` describes the format."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import msgpack

from runic_redis.codec.compression import decompress, payload_start
from runic_redis.codec.limits import MAX_EVENT_BYTES, MAX_HEADER_BYTES
from runic_redis.codec.schemas import Restorer, Schemas
from runic_redis.codec.value_decoder import Builder, decode_value, parse_schema
from runic_redis.errors import DecodeError, StoreError, reason
from runic_redis.events import FACT_REF, EventRegistry, FactRef, UnknownEvent, UnknownEvents
from runic_redis.events.attributes import Build
from runic_redis.events.event_types import Schema, Several
from runic_redis.events.references import checked_ref

# How many headers, and how many bytes of them, the decoder remembers before it clears them. A program has far fewer.
_REMEMBERED = 1024
_REMEMBERED_BYTES = 1024 * 1024
# The largest head of a MessagePack array.
_ARRAY_HEAD_BYTES = 5


class Multiplied(list[Any]):
    """Events, some of which are `Several`."""


def expanded(events: Sequence[Any]) -> list[Any]:
    """Return events as a flat list, with the events of each `Several` one by one."""
    flat: list[Any] = []
    for event in events:
        flat += event if type(event) is Several else (event,)
    return flat


class EntryDecoder:
    """A decoder of entries and of the objects in them. Threads may share it."""

    def __init__(self, registry: EventRegistry, unknown_events: UnknownEvents) -> None:
        self._registry = registry
        self._unknown_events = unknown_events
        self._generation = registry.generation
        self._by_header: dict[bytes, Schemas] = {}
        self._by_schema: dict[bytes, Restorer] = {}
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
        rows = None if typed else decode_value(packed, schemas.find_builder)
        try:
            events = typed[0].build(typed[1]) if typed else schemas.rebuild(rows)
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

    def find_builder(self, restorers: Mapping[int, Restorer], reference: Any) -> Builder:
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

    def _schemas(self, header: bytes) -> Schemas:
        self._forget_if_outdated()
        known = self._by_header.get(header)
        if known is None:
            if len(header) > MAX_HEADER_BYTES:
                raise DecodeError(f"an entry's header takes {len(header)} bytes, more than {MAX_HEADER_BYTES}")
            try:
                schemas, indexed = _unpacked(header)
                restorers = {index: self._restorer(schema) for index, schema in enumerate(schemas)}
                known = Schemas(restorers, partial(self.find_builder, restorers), indexed=indexed)
            except (ValueError, TypeError, msgpack.UnpackException) as error:
                raise DecodeError(f"an entry's header is damaged: {reason(error)}") from error
            self._remember(self._by_header, header, known)
        return known

    def _restorer(self, packed: Any) -> Restorer:
        if packed == [None, 0, []]:
            return Restorer("dict", 1, _plain_dicts)
        schema: Schema = parse_schema(packed)
        build = self._registry.builder(schema, self._unknown_events)
        if schema.name == FACT_REF:
            build = partial(_checked_refs, build)
        return Restorer(schema.name, len(schema.fields), build, self._registry.multiplies(schema))

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


@lru_cache(maxsize=1024)
def type_names(header: bytes) -> frozenset[str]:
    """Return the names of the types that a header has schemas for; "dict" for plain dicts.

    Raises:
        DecodeError: the header is damaged.
    """
    try:
        return frozenset("dict" if one == [None, 0, []] else parse_schema(one).name for one in _unpacked(header)[0])
    except (ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
        raise DecodeError(f"an entry's header is damaged: {reason(error)}") from error


def _unpacked(header: bytes) -> tuple[list[Any], bool]:
    """Return the schemas in a header, and whether each row begins with the index of its schema."""
    schemas = msgpack.unpackb(header)
    if type(schemas) is not list or not schemas:
        raise ValueError("it is not an array of schemas")
    indexed = schemas[0] is None
    return schemas[indexed:], indexed


def _checked_refs(build: Build, rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Build references to facts and check their hashes; another version's stand-ins pass unchecked."""
    return [checked_ref(ref) if type(ref) is FactRef else ref for ref in build(rows)]


def _plain_dicts(rows: Iterable[Sequence[Any]]) -> list[Any]:
    events = [row[0] for row in rows]
    if not set(map(type, events)) <= {dict}:
        raise ValueError("a plain event is not a map")
    return events
