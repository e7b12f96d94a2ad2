"""A commit as stream entries, each of which describes itself.

An entry's header is the schemas used in it, MessagePack ``[[type name, version, [field names]], …]``; its payload
is a compression byte and the rows, MessagePack ``[[schema index, value, …], …]``. A plain dict has the schema
``[nil, 0, []]`` and the row ``[schema index, map]``. Headers repeat from entry to entry, so a reader keeps what it
made of one by its bytes, and Redis stores them once for many entries.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, cast

import msgpack

from runic_redis.codec.compression import MAX_PAYLOAD_BYTES, compress, decompress, payload_start
from runic_redis.codec.explain import explain
from runic_redis.codec.facts import FactEncoder
from runic_redis.codec.native import row_reader, row_writer
from runic_redis.codec.values import Builder, ValueEncoder, decode_value, parse_schema
from runic_redis.errors import DecodeError, EncodeError, IncompatibleEvent, StoreError, reason
from runic_redis.events import (
    FACT_REF,
    Build,
    EventRegistry,
    EventType,
    Fact,
    FactRef,
    Read,
    Schema,
    Several,
    UnknownEvent,
    UnknownEvents,
    checked_ref,
)

__all__ = [
    "MAX_COMMIT_BYTES",
    "MAX_EVENT_BYTES",
    "MAX_HEADER_BYTES",
    "SPLIT_BYTES",
    "Entry",
    "EntryDecoder",
    "EntryEncoder",
    "Multiplied",
    "count_events",
    "expanded",
    "first_type",
]

# A larger commit becomes several entries, so that a reader can page by about this much.
SPLIT_BYTES = 1024 * 1024
# What is larger belongs in a fact. Far below what Redis allows, so that a request always fits.
MAX_EVENT_BYTES = 16 * 1024 * 1024
MAX_COMMIT_BYTES = 256 * 1024 * 1024
# What an entry's events are called and made of; a thousand types fit.
MAX_HEADER_BYTES = 1024 * 1024
# How many headers, and how many bytes of them, are remembered before that starts again; a program has far fewer.
_REMEMBERED = 1024
_REMEMBERED_BYTES = 1024 * 1024

# What the head of a MessagePack array takes at most.
_ARRAY_HEAD_BYTES = 5
_PLAIN_DICT = (None, 0, ())
# How often in a row to try and read typed rows. A type that holds dates and the like mostly does so in each event.
_TRIES = 100
# A row's schema index, and the rest of it.
_INDEX = itemgetter(0)
_VALUES = itemgetter(slice(1, None))


# How the events of a class are read: their schema's index, what reads their values, and what their `__dict__` then has
# to hold, if it matters; or their type, where each is read by what it holds.
_Way = tuple[int, Read, tuple[str, ...] | None] | EventType


class Entry(NamedTuple):
    """One entry of a stream, encoded.

    Attributes:
        event_count: how many events it holds.
        header: the schemas used in it.
        payload: the events.
    """

    event_count: int
    header: bytes
    payload: bytes


class _SchemaTable(ValueEncoder):
    """Encodes rows, numbers the schemas that come up in them, and puts the facts aside.

    Attributes:
        indexes: the schemas.
        facts: the facts' hashes, each with the encoded fact, empty for one that is only referred to.
        divisible: whether the rows become several entries if they take more than `SPLIT_BYTES`.
    """

    holds_facts = True
    divisible = False

    def __init__(self, registry: EventRegistry) -> None:
        super().__init__(registry)
        self.indexes: dict[Any, int] = {}
        self.facts: dict[str, bytes] = {}
        self._encoder = FactEncoder(registry)

    def refer(self, value: Fact | FactRef) -> FactRef:
        if isinstance(value, FactRef):
            self.facts.setdefault(checked_ref(value).hash, b"")
            return value
        fact_hash, encoded = self._encoder.encode_own(value.value)
        self.facts[fact_hash] = encoded
        return FactRef(fact_hash)

    def check(self, packed: bytes) -> None:
        # Of rows that become several entries, each entry is checked.
        if len(packed) <= SPLIT_BYTES or not self.divisible:
            super().check(packed)

    def schema_reference(self, schema: Any) -> int:
        return self.indexes.setdefault(schema, len(self.indexes))


class EntryEncoder:
    """Encodes commits and logs; not for two threads at once."""

    def __init__(self, registry: EventRegistry, *, native: bool) -> None:
        self._registry = registry
        self._table = _SchemaTable(registry)
        self._write_rows = row_writer() if native else None
        self._headers: dict[tuple[Any, ...], bytes] = {}

    def encode_commit(self, events: Sequence[Any], facts: dict[str, bytes]) -> list[Entry]:
        """The entries of a commit: one, or several where it is large.

        Args:
            events: the commit.
            facts: is given the facts that they hold: each one's hash, and the encoded fact, empty for one that is only
                referred to.

        Raises:
            EncodeError: an event, or a value in one, cannot be kept; or an event or the commit is too large.
        """
        self._table.facts = facts
        header, rows = self._encode(events, "events", 0)
        if len(rows) > MAX_COMMIT_BYTES:
            raise EncodeError(
                f"events take {len(rows)} bytes encoded, and a commit at most {MAX_COMMIT_BYTES}: append them in "
                "several commits; nothing was sent.",
                path="events",
            )
        return self._entries(events, header, rows, 0)

    def encode_log(self, log: Sequence[Any], facts: dict[str, bytes]) -> bytes:
        """A whole list of events as one string: MessagePack ``[header, payload]``.

        Args:
            log: the events.
            facts: is given the facts that they hold, as by `encode_commit`.

        Raises:
            EncodeError: an event, or a value in one, cannot be kept.
        """
        self._table.facts = facts
        header, rows = self._encode(log, "log", 0)
        if len(rows) > MAX_PAYLOAD_BYTES:
            raise EncodeError(
                f"log takes {len(rows)} bytes encoded, and a log at most {MAX_PAYLOAD_BYTES}; nothing was sent.",
                path="log",
            )
        if len(header) > MAX_HEADER_BYTES:
            raise _header_too_large(header, "log")
        packed: bytes = msgpack.packb([header, compress(rows)])
        return packed

    def _entries(self, events: Sequence[Any], header: bytes, rows: bytes, first: int) -> list[Entry]:
        if len(rows) <= SPLIT_BYTES or len(events) == 1:
            if len(rows) > MAX_EVENT_BYTES:
                raise EncodeError(
                    f"events[{first}] takes {len(rows)} bytes encoded, and an event at most {MAX_EVENT_BYTES}: keep "
                    "the large part as a fact and its hash in the event; nothing was sent.",
                    path=f"events[{first}]",
                )
            if len(header) > MAX_HEADER_BYTES:
                raise _header_too_large(header, f"events[{first}]" if len(events) == 1 else "events")
            return [Entry(len(events), header, compress(rows))]
        share = max(1, len(events) * SPLIT_BYTES // len(rows))
        entries = []
        for start in range(0, len(events), share):
            part = events[start : start + share]
            entries += self._entries(part, *self._encode(part, "events", first + start), first + start)
        return entries

    def _encode(self, events: Sequence[Any], path: str, first: int) -> tuple[bytes, bytes]:
        """The header and the packed rows of some events, as of one entry; the first is at this place of the path."""
        table = self._table
        table.indexes = {}
        known: dict[type, _Way] = {}
        rows: list[list[Any]] = []
        for event in events:
            kind = type(event)
            try:
                found = known.get(kind)
                if found is None:
                    if kind is UnknownEvent:
                        rows.append([table.schema_reference(event.schema), *event.fields.values()])
                        continue
                    found = known[kind] = self._reader(event, path, first + len(rows))
                if isinstance(found, tuple):
                    index, read, held = found
                    if held is None or tuple(event.__dict__) == held:
                        rows.append([index, *read(event)])
                        continue
                    found = cast("EventType", self._registry.of(kind))
                schema, values = table.apart(found, event)
                index = table.schema_reference(schema)
                rows.append([index, *values])
                known[kind] = _way(found, schema, index)
            except StoreError:
                raise
            except Exception as error:  # what a class raises when its fields are read is its own affair
                where = f"{path}[{first + len(rows)}]"
                raise EncodeError(
                    f"{where}, a {kind.__qualname__}, cannot be read: {error}; nothing was sent.", path=where
                ) from error
        packed = (self._write_rows and self._write_rows(rows)) or self._pack(rows, events, path, first)
        schemas = tuple(table.indexes)
        header = self._headers.get(schemas)
        if header is None:
            header = msgpack.packb(schemas)
            if len(header) <= MAX_HEADER_BYTES:
                if len(self._headers) >= _REMEMBERED:
                    self._headers.clear()
                self._headers[schemas] = header
        return header, packed

    def _reader(self, event: Any, path: str, number: int) -> tuple[int, Read, None] | EventType:
        """The index of an event's schema, and what reads the values of such events; or its type."""
        kind = type(event)
        registered = None if kind is FactRef else self._registry.of(kind)
        if registered is not None and not registered.is_value:
            if registered.is_plain:
                return self._table.schema_reference(registered.schema), registered.kind.read, None
            return registered
        if kind is dict:
            return self._table.schema_reference(_PLAIN_DICT), _itself, None
        where = f"{path}[{number}]"
        raise EncodeError(
            f"{where} is a {kind.__module__}.{kind.__qualname__}, which is neither a plain dict nor of a class "
            "registered with @event; nothing was sent.",
            path=where,
        )

    def _pack(self, rows: list[list[Any]], events: Sequence[Any], path: str, first: int) -> bytes:
        self._table.divisible = path == "events" and len(events) > 1
        try:
            return self._table.encode(rows, path)
        except EncodeError as error:
            # The rows are ours; the caller knows the events.
            self._table.divisible = False
            for number, (row, event) in enumerate(zip(rows, events, strict=True), first):
                where = f"{path}[{number}]"
                try:
                    self._table.encode([row], where)
                except EncodeError as alone:
                    raise explain(event, where, self._registry, facts=True, is_event=True) or alone from alone.__cause__
            raise EncodeError(
                f"{path} together cannot be encoded: {reason(error.__cause__ or error)}; nothing was sent.", path=path
            ) from error.__cause__


def _way(registered: EventType, schema: Schema, index: int) -> _Way:
    """How the next event of a class is read, after one that was written by this schema."""
    kind = registered.kind
    is_whole = kind.held is not None and schema is registered.schema
    return (index, kind.read, kind.held) if is_whole else registered


def _header_too_large(header: bytes, path: str) -> EncodeError:
    return EncodeError(
        f"The names and fields of the types in {path} take {len(header)} bytes encoded, and at most "
        f"{MAX_HEADER_BYTES} are kept: append fewer types of events at once; nothing was sent.",
        path=path,
    )


def _itself(event: dict[Any, Any]) -> tuple[dict[Any, Any]]:
    return (event,)


class Multiplied(list[Any]):
    """Events of which some are `Several`."""


def expanded(events: Sequence[Any]) -> list[Any]:
    """Events, those of each `Several` one by one."""
    flat: list[Any] = []
    for event in events:
        flat += event if type(event) is Several else (event,)
    return flat


class _Restorer(NamedTuple):
    """Rebuilds what was written by one schema."""

    name: str
    field_count: int
    build: Build
    multiplies: bool = False

    def many(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """An object from each row of field values."""
        if set(map(len, rows)) != {self.field_count}:
            raise ValueError(f"a row has not the {self.field_count} values that its schema names")
        return self.build(rows)

    def one(self, values: Sequence[Any]) -> Any:
        """An object from its field values."""
        (event,) = self.many((values,))
        if type(event) is not Several:
            return event
        if len(event) != 1:
            raise _not_one(self.name, len(event))
        return event[0]


class _Schemas:
    """What was made of a header: what rebuilds its events, and reads their rows where they are of one schema."""

    def __init__(self, restorers: dict[int, _Restorer], *, native: bool) -> None:
        self.restorers = restorers
        self.multiplies = any(restorer.multiplies for restorer in restorers.values())
        self._read_rows = row_reader(restorers[0].field_count) if native and len(restorers) == 1 else None
        self._in_vain = 0

    def typed(self, packed: bytes) -> list[Any] | None:
        """The rows, all of the one schema and as long as it says; None if they have to be read one by one."""
        if self._read_rows is None or self._in_vain > _TRIES:
            return None
        rows = self._read_rows(packed)
        self._in_vain = 0 if rows is not None else self._in_vain + 1
        return rows


class EntryDecoder:
    """Decodes entries and finds what rebuilds the objects in them. Safe for many threads."""

    def __init__(self, registry: EventRegistry, unknown_events: UnknownEvents, *, native: bool) -> None:
        self._registry = registry
        self._unknown_events = unknown_events
        self._native = native
        self._generation = registry.generation
        self._by_header: dict[bytes, _Schemas] = {}
        self._by_schema: dict[bytes, _Restorer] = {}
        self._remembered_bytes = 0

    def decode(self, header: bytes, payload: bytes, most: int = MAX_EVENT_BYTES) -> list[Any]:
        """The events of one entry, or another payload of at most so many bytes that is made like one.

        One for each that is stored; `Multiplied`, where some of them are read as several or none.

        Raises:
            DecodeError: the entry is damaged.
            UnknownEventType: it holds an event of an unregistered type.
        """
        schemas = self._schemas(header)
        packed = decompress(payload, most)
        typed = schemas.typed(packed)
        rows = None if typed else decode_value(packed, partial(self.find_builder, schemas.restorers))
        try:
            events = schemas.restorers[0].build(map(_VALUES, typed)) if typed else _rebuild(rows, schemas.restorers)
            return Multiplied(events) if schemas.multiplies and Several in set(map(type, events)) else events
        except StoreError:
            raise
        except Exception as error:  # a row that does not fit, or a class that does not take it
            raise DecodeError(f"a row does not fit its schema: {type(error).__name__}: {reason(error)}") from error

    def find_builder(self, restorers: Mapping[int, _Restorer], reference: Any) -> Builder:
        """What rebuilds the objects of a schema, named by its index or by itself."""
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
                restorers = {index: self._restorer(schema) for index, schema in enumerate(msgpack.unpackb(header))}
            except (ValueError, TypeError, msgpack.UnpackException) as error:
                raise DecodeError(f"an entry's header is damaged: {reason(error)}") from error
            known = _Schemas(restorers, native=self._native)
            self._remember(self._by_header, header, known)
        return known

    def _restorer(self, packed: Any) -> _Restorer:
        if packed == [None, 0, []]:
            return _Restorer("dict", 1, _plain_dicts)
        schema: Schema = parse_schema(packed)
        build = self._registry.builder(schema, self._unknown_events)
        return _Restorer(
            schema.name,
            len(schema.fields),
            partial(_checked_refs, build) if schema.name == FACT_REF else build,
            self._registry.multiplies(schema),
        )

    def _forget_if_outdated(self) -> None:
        if self._generation != self._registry.generation:
            self._generation = self._registry.generation
            self._forget()

    def _forget(self) -> None:
        self._by_header = {}
        self._by_schema = {}
        self._remembered_bytes = 0

    def _remember(self, known: dict[bytes, Any], key: bytes, value: Any) -> None:
        # A larger one would have all the others forgotten.
        if len(key) > _REMEMBERED_BYTES // 4:
            return
        self._remembered_bytes += len(key)
        if len(known) >= _REMEMBERED or self._remembered_bytes > _REMEMBERED_BYTES:
            self._forget()
            return
        known[key] = value


def _not_one(name: str, count: int) -> IncompatibleEvent:
    return IncompatibleEvent(
        f"The upcasters of the event type {name!r} made {count} events of one that stands inside another, where there "
        "can be one. The data is unchanged. Return a dict, or a list of one, for those.",
        name=name,
        version=1,
    )


def count_events(payload: bytes) -> int:
    """Return how many events an entry's payload says that it holds, without decoding them.

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


def first_type(header: bytes) -> Any:
    """Return an event of the first type that a header names, without fields.

    Raises:
        DecodeError: the header is damaged.
    """
    try:
        packed = msgpack.unpackb(header)[0]
        if packed == [None, 0, []]:
            return {}
        schema = parse_schema(packed)
    except (ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
        raise DecodeError(f"an entry's header is damaged: {reason(error)}") from error
    return UnknownEvent(schema.name, schema.version, {})


def _rebuild(rows: Any, restorers: Mapping[int, _Restorer]) -> list[Any]:
    """The events of rows: those of one schema all at once, then each in its place."""
    if type(rows) is not list or not set(map(type, rows)) <= {list}:
        raise DecodeError("an entry does not hold rows")
    if len(rows) == 1:  # as any other, but many commits are of one event
        return restorers[rows[0][0]].many([rows[0][1:]])
    indexes = set(map(_INDEX, rows))
    if len(indexes) == 1:
        return restorers[indexes.pop()].many(list(map(_VALUES, rows)))
    by_schema: dict[int, list[Any]] = {index: [] for index in indexes}
    for row in rows:
        by_schema[row[0]].append(row[1:])
    in_turn = {index: iter(restorers[index].many(values)) for index, values in by_schema.items()}
    return [next(in_turn[row[0]]) for row in rows]


def _checked_refs(build: Build, rows: Iterable[Sequence[Any]]) -> list[Any]:
    """References to facts, of which nothing but this checks the hash; or what stands for those of another version."""
    return [checked_ref(ref) if type(ref) is FactRef else ref for ref in build(rows)]


def _plain_dicts(rows: Iterable[Sequence[Any]]) -> list[Any]:
    events = [row[0] for row in rows]
    if not set(map(type, events)) <= {dict}:
        raise ValueError("a plain event is not a map")
    return events
