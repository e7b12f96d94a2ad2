"""Encode a commit as stream entries, each of which describes itself.

An entry's header lists the schemas used in it, as MessagePack ``[[type name, version, [field names]], …]``. Its payload
is a compression byte and the rows, as MessagePack ``[[value, …], …]``: all of the first schema. If the events have
several schemas, the header starts with nil, and each row starts with the index of its schema. (The header of an empty
log is ``[nil]``.) A plain dict has the schema ``[nil, 0, []]``, and its one value is the map. Headers repeat from entry
to entry. So a reader keeps the decoded header by its bytes, and Redis stores the bytes once for many entries.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import msgpack

from runic_redis.codec.columns import Reader, write_columns
from runic_redis.codec.compression import MAX_PAYLOAD_BYTES, compress, payload_size
from runic_redis.codec.encode_errors import encode_error
from runic_redis.codec.facts import FactEncoder
from runic_redis.codec.limits import MAX_COMMIT_BYTES, MAX_EVENT_BYTES, MAX_HEADER_BYTES, SPLIT_BYTES
from runic_redis.codec.native import containers, write_rows
from runic_redis.codec.value_encoder import ValueEncoder
from runic_redis.errors import EncodeError, StoreError, reason
from runic_redis.events import EventRegistry, Fact, FactRef, UnknownEvent
from runic_redis.events.event_types import EventType
from runic_redis.events.references import checked_ref

# How many headers the encoder remembers before it clears them. A program has far fewer.
_REMEMBERED = 1024
_PLAIN_DICT = (None, 0, ())


class _NotAnEventError(ValueError):
    """A class is not one of events."""


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


class EncodedEvents(tuple[Any, ...]):  # noqa: SLOT001 - a tuple of any length has no slots
    """The events of a commit with their encoding, so that `append` does not encode them again.

    Attributes:
        entries: the commit's entries.
        facts: the facts in the events, as `EntryEncoder.encode_commit` collects them.
    """

    entries: list[Entry]
    facts: dict[str, bytes]

    def __new__(cls, events: Iterable[Any], entries: list[Entry], facts: dict[str, bytes]) -> Self:
        """Make the tuple of the events, with the two attributes."""
        encoded = super().__new__(cls, events)
        encoded.entries = entries
        encoded.facts = facts
        return encoded

    @property
    def encoded_bytes(self) -> int:
        """The encoded size of the events in bytes. The limit of a commit counts this size."""
        return sum(payload_size(entry.payload) for entry in self.entries)

    @property
    def stored_bytes(self) -> int:
        """The stored size of the events' payload in bytes, after compression."""
        return sum(len(entry.payload) for entry in self.entries)


class _SchemaTable(ValueEncoder):
    """An encoder of rows that numbers their schemas and collects their facts.

    Attributes:
        indexes: the number of each schema.
        facts: the encoded fact by its hash; empty for a fact that the rows only refer to.
        divisible: whether rows of more than `SPLIT_BYTES` become several entries.
    """

    holds_facts = True
    divisible = False

    def __init__(self, registry: EventRegistry) -> None:
        super().__init__(registry)
        self.indexes: dict[Any, int] = {}
        self.facts: dict[str, bytes] = {}
        self._encoder = FactEncoder(registry)

    def fact_reference(self, value: Fact | FactRef) -> FactRef:
        if isinstance(value, FactRef):
            self.facts.setdefault(checked_ref(value).hash, b"")
            return value
        fact_hash, encoded = self._encoder.encode_own(value.value)
        self.facts[fact_hash] = encoded
        return FactRef(fact_hash)

    def reject_unreadable(self, packed: bytes) -> None:
        # If rows become several entries, each entry is checked separately.
        if len(packed) <= SPLIT_BYTES or not self.divisible:
            super().reject_unreadable(packed)

    def schema_reference(self, schema: Any) -> int:
        return self.indexes.setdefault(schema, len(self.indexes))


class EntryEncoder:
    """An encoder of commits and logs. Only one thread may use it at a time."""

    def __init__(self, registry: EventRegistry) -> None:
        self._registry = registry
        self._table = _SchemaTable(registry)
        # Of a class whose events consist of their fields, as of a number of registrations.
        self._readers: dict[type, Reader] = {}
        self._generation = registry.generation
        self._headers: dict[tuple[Any, ...], bytes] = {}

    def encode_commit(self, events: Sequence[Any], facts: dict[str, bytes]) -> list[Entry]:
        """Return the entries of a commit: one, or several if it is large.

        Args:
            events: the commit.
            facts: receives the facts that the events hold: the encoded fact by its hash, empty for a fact that the
                events only refer to.

        Raises:
            EncodeError: an event, or a value in an event, cannot be stored; or an event or the commit is too large.
        """
        self._table.facts = facts
        header, rows = self._encode(events, "events", 0)
        if len(rows) <= SPLIT_BYTES and len(header) <= MAX_HEADER_BYTES:
            return [Entry(len(events), header, compress(rows))]
        if len(rows) > MAX_COMMIT_BYTES:
            raise EncodeError(
                f"events take {len(rows)} bytes encoded, and a commit at most {MAX_COMMIT_BYTES}: append them in "
                "several commits; nothing was sent.",
                path="events",
            )
        return self._entries(events, header, rows, 0)

    def encode_log(self, log: Sequence[Any], facts: dict[str, bytes]) -> bytes:
        """Return a whole list of events as MessagePack ``[header, payload]``.

        Args:
            log: the events.
            facts: receives the facts that the events hold, as in `encode_commit`.

        Raises:
            EncodeError: an event, or a value in an event, cannot be stored; or the log is too large.
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
        """Return the entries of events; `first` is the place of the first event in the commit."""
        if len(rows) <= SPLIT_BYTES or len(events) == 1:
            if len(rows) > MAX_EVENT_BYTES:
                raise EncodeError(
                    f"events[{first}] takes {len(rows)} bytes encoded, and an event at most {MAX_EVENT_BYTES}: store "
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
        """Return the header and the packed rows of events; `first` is the place of the first event in the path."""
        return self._encode_native(events) or self._encode_each(events, path, first)

    def _encode_native(self, events: Sequence[Any]) -> tuple[bytes, bytes] | None:
        """Return the header and the packed rows of events that msgspec can write; None for other events.

        Almost all of it runs in C, because it reads the events of each class together.
        """
        try:
            classes = set(map(type, events))
            if len(classes) > 1:
                return self._encode_several(events)
            reader = self._reader(classes.pop())
            rows = reader.rows(events)
            walked = containers(rows)
            if walked is not None:
                packed = write_rows(rows, walked)
                return None if packed is None else (reader.header, packed)
            written = write_columns(rows, reader.schema, self._reader)
            return None if written is None else (self._header(written[1]), written[0])
        except Exception:  # reading one by one shows which event cannot be read
            return None

    def _encode_several(self, events: Sequence[Any]) -> tuple[bytes, bytes] | None:
        """Return the same for events of several classes."""
        readers = {cls: self._reader(cls) for cls in dict.fromkeys(map(type, events))}
        schemas = dict.fromkeys([reader.schema for reader in readers.values()])
        if len(schemas) < len(readers):
            return None  # a class was defined again, and instances of both are here
        groups = {cls: reader.rows([one for one in events if type(one) is cls]) for cls, reader in readers.items()}
        numbers = {cls: number for number, cls in enumerate(readers)}
        in_turn = {cls: iter(rows) for cls, rows in groups.items()}
        numbered = [(numbers[type(one)], *next(in_turn[type(one)])) for one in events]
        walked: list[Any] = []
        for group in groups.values():
            found = containers(group)
            if found is None:
                return None
            walked += found
        packed = write_rows(numbered, walked)
        return None if packed is None else (self._header([None, *schemas]), packed)

    def _reader(self, cls: type) -> Reader:
        """Return the reader of a class.

        Raises:
            ValueError: its events do not consist of their fields, or it is not a class of events.
        """
        if self._generation != self._registry.generation:
            self._generation = self._registry.generation
            self._readers = {}
        reader = self._readers.get(cls)
        if reader is None:
            if cls is dict:
                reader = Reader(_PLAIN_DICT, _alone, None)
            else:
                registered = self._event_type(cls)
                if not registered.is_plain and registered.kind.held is None:
                    raise ValueError("the events do not consist of their fields")
                reader = Reader(registered.schema, registered.kind.read, registered.kind.held)
            self._readers[cls] = reader
        return reader

    def _encode_each(self, events: Sequence[Any], path: str, first: int) -> tuple[bytes, bytes]:
        """Return the header and the packed rows of events of any kind."""
        table = self._table
        table.indexes = {}
        numbered = self._read_each(events, path, first)
        if len(table.indexes) == 1:
            packed = self._pack([values for _, values in numbered], events, path, first)
            return self._header(table.indexes), packed
        packed = self._pack([[number, *values] for number, values in numbered], events, path, first)
        return self._header([None, *table.indexes]), packed

    def _header(self, schemas: Iterable[Any]) -> bytes:
        """Return the header of these schemas. With None in front, each row begins with the number of its schema."""
        key = tuple(schemas)
        header = self._headers.get(key)
        if header is None:
            header = msgpack.packb(key)
            if len(header) <= MAX_HEADER_BYTES:
                if len(self._headers) >= _REMEMBERED:
                    self._headers.clear()
                self._headers[key] = header
        return header

    def _read_each(self, events: Sequence[Any], path: str, first: int) -> list[tuple[int, list[Any]]]:
        """Return the schema's number and the values of each event; `first` is the place of the first event."""
        numbered: list[tuple[int, list[Any]]] = []
        for place, event in enumerate(events, first):
            try:
                schema, values = self._fields_of(event)
                numbered.append((self._table.schema_reference(schema), list(values)))
            except StoreError:
                raise
            except _NotAnEventError:
                where = f"{path}[{place}]"
                raise EncodeError(
                    f"{where} is a {type(event).__module__}.{type(event).__qualname__}, which is neither a plain dict "
                    "nor of a class registered with @event; nothing was sent.",
                    path=where,
                ) from None
            except Exception as error:  # reading the fields of an event may raise anything
                where = f"{path}[{place}]"
                raise EncodeError(
                    f"{where}, a {type(event).__qualname__}, cannot be read: {error}; nothing was sent.", path=where
                ) from error
        return numbered

    def _fields_of(self, event: Any) -> tuple[Any, Iterable[Any]]:
        """Return the schema of an event, and its values."""
        kind = type(event)
        if kind is dict:
            return _PLAIN_DICT, (event,)
        if kind is UnknownEvent:
            return event.schema, event.fields.values()
        return self._table.fields_to_write(self._event_type(kind), event)

    def _event_type(self, cls: type) -> EventType:
        """Return the registered type of a class of events."""
        registered = None if cls is FactRef else self._registry.of(cls)
        if registered is None or registered.is_value:
            raise _NotAnEventError
        return registered

    def _pack(self, rows: list[list[Any]], events: Sequence[Any], path: str, first: int) -> bytes:
        self._table.divisible = path == "events" and len(events) > 1
        try:
            return self._table.encode(rows, path)
        except EncodeError as error:
            # The error must name the caller's event, not its row.
            self._table.divisible = False
            for number, (row, event) in enumerate(zip(rows, events, strict=True), first):
                where = f"{path}[{number}]"
                try:
                    self._table.encode([row], where)
                except EncodeError as alone:
                    raise (
                        encode_error(event, where, self._registry, facts=True, is_event=True) or alone
                    ) from alone.__cause__
            raise EncodeError(
                f"{path} together cannot be encoded: {reason(error.__cause__ or error)}; nothing was sent.", path=path
            ) from error.__cause__


def _alone(event: dict[Any, Any]) -> tuple[dict[Any, Any]]:
    """Return the row of a plain dict."""
    return (event,)


def _header_too_large(header: bytes, path: str) -> EncodeError:
    return EncodeError(
        f"The names and fields of the types in {path} take {len(header)} bytes encoded, and at most "
        f"{MAX_HEADER_BYTES} are stored: append fewer types of events at once; nothing was sent.",
        path=path,
    )
