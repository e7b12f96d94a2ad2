"""The schemas of an entry's header: they rebuild its objects, and read its rows with msgspec.

msgspec reads the rows of an entry whose events have one schema. Extensions, such as dates and objects in the events,
are then restored field by field for all rows. Other rows are left to msgpack, and so are rows that cannot be read.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import msgpack
from msgspec.msgpack import Ext

from runic_redis.codec.extensions import OBJECT, SCALAR_DECODERS, decode_scalars
from runic_redis.codec.limits import OBJECT_LEVELS, nested_allowed
from runic_redis.codec.native import BYTES, EXTENSIONS, NATIVE, VALUES, RowReader, kinds_of, row_reader
from runic_redis.codec.value_decoder import Decoding, FindBuilder, extended
from runic_redis.errors import DecodeError, IncompatibleEvent
from runic_redis.events.attributes import Build
from runic_redis.events.event_types import Several

# Stop reading typed rows after this many failures in a row. A type that msgspec cannot read usually fails each time.
_TRIES = 100
# With fewer rows, restoring the values one by one takes less time.
_MANY = 4
_SHORT_ARRAY, _SHORT_ARRAYS = 0x90, 0xF0
_INDEX = itemgetter(0)
_CODE = attrgetter("code")
_DATA = attrgetter("data")


class Restorer(NamedTuple):
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


class _TypedRows:
    """How to read the rows of one schema. It learns from rows that msgpack had to read.

    Attributes:
        restorer: rebuilds the objects of the schema.
        reader: reads rows; None if it fails too often, or the schema has too many fields.
        failures: how many failures in a row there were.
    """

    __slots__ = ("_index", "failures", "reader", "restorer")

    def __init__(self, index: int | None, restorer: Restorer) -> None:
        self._index = index
        self.restorer = restorer
        self.reader = row_reader(index, (VALUES,) * restorer.field_count)
        self.failures = 0

    def note_failure(self) -> None:
        self.failures += 1
        if self.failures > _TRIES:
            self.reader = None

    def learn(self, rows: Sequence[Sequence[Any]]) -> None:
        """Prepare to read rows whose fields hold bytes and extensions where these rows do."""
        reader = self.reader
        if reader is None:
            return
        fields = zip(reader.forms, list(zip(*rows, strict=True))[reader.first :], strict=True)
        # A field that is None in these rows may hold extensions in others.
        forms = tuple([known & EXTENSIONS | _form(values) for known, values in fields])
        if forms != reader.forms:
            self.reader = row_reader(self._index, forms)


class Schemas:
    """A decoded header: what rebuilds its events, and reads their rows if all are of the first schema.

    Args:
        restorers: by the index of each schema.
        find_builder: returns the function that rebuilds an object in an event.
        indexed: whether each row begins with the index of its schema.
    """

    def __init__(self, restorers: Mapping[int, Restorer], find_builder: FindBuilder, *, indexed: bool) -> None:
        self.restorers = restorers
        self.find_builder = find_builder
        self.multiplies = any(restorer.multiplies for restorer in restorers.values())
        self._rows = None if indexed else _TypedRows(None, restorers[0])
        # Of the objects in events, by the index of their schema.
        self._objects: dict[int, _TypedRows] = {}

    def typed_rows(self, packed: bytes) -> tuple[Restorer, Iterable[Sequence[Any]]] | None:
        """Return the restorer and the values of the rows; None if they must be read one by one."""
        typed = self._rows
        reader = None if typed is None else typed.reader
        if typed is None or reader is None:
            return None
        try:
            rows = reader.many(packed)
            values: Iterable[Sequence[Any]] = rows
            if reader.extended:
                # Extensions that msgspec reads count as much as they may hold at most.
                left = nested_allowed(packed, OBJECT_LEVELS + 1)
                decoding = Decoding(self.find_builder, left, text_keys=True)
                values = self._restored(rows, reader, decoding, 0)
        except Exception:  # another type, or damage: msgpack finds out which
            typed.note_failure()
            return None
        typed.failures = 0
        return (typed.restorer, values) if rows else None

    def rebuild(self, rows: Any) -> list[Any]:
        """Return the events of rows that msgpack has read, in order. Prepare to read rows like these."""
        if type(rows) is not list or not set(map(type, rows)) <= {list}:
            raise DecodeError("an entry does not hold rows")
        if not rows:
            return []
        if self._rows is None:
            return _rebuild_indexed(rows, self.restorers)
        events = self.restorers[0].many(rows)
        self._rows.learn(rows)
        return events

    def _typed_of(self, index: int) -> _TypedRows | None:
        typed = self._objects.get(index)
        if typed is None and index in self.restorers:
            typed = self._objects[index] = _TypedRows(index, self.restorers[index])
        return typed

    def _restored(
        self, rows: Sequence[Sequence[Any]], reader: RowReader, decoding: Decoding, depth: int
    ) -> Iterable[Sequence[Any]]:
        """Return the field values of rows, with values in place of extensions."""
        first = reader.first
        if not reader.extended:
            return map(itemgetter(slice(first, None)), rows)
        if len(rows) < _MANY:
            return [_one_by_one(row[first:], decoding, depth) for row in rows]
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for place in reader.extended:
            columns[place] = self._column(columns[place], decoding, depth)
        return zip(*columns[first:], strict=True)

    def _column(self, column: Sequence[Any], decoding: Decoding, depth: int) -> Sequence[Any]:
        if list(map(type, column)).count(Ext) == len(column):
            return self._values(column, decoding, depth)
        extensions = [value for value in column if type(value) is Ext]
        restored = iter(self._values(extensions, decoding, depth) if extensions else ())
        return [next(restored) if type(value) is Ext else value for value in column]

    def _values(self, extensions: Sequence[Ext], decoding: Decoding, depth: int) -> Sequence[Any]:
        codes = list(map(_CODE, extensions))
        code = codes[0]
        if codes.count(code) == len(codes):
            parts: list[bytes] = list(map(_DATA, extensions))
            if code in SCALAR_DECODERS:
                return decode_scalars(code, parts)
            objects = self._objects_of(parts, decoding, depth) if code == OBJECT else None
            if objects is not None:
                return objects
        return _one_by_one(extensions, decoding, depth)

    def _objects_of(self, parts: Sequence[bytes], decoding: Decoding, depth: int) -> list[Any] | None:
        """Return the objects of extensions; None if they must be read one by one."""
        first = parts[0]
        # An object is an array that begins with the index of its schema.
        index = first[1] if len(first) > 1 and first[0] & _SHORT_ARRAYS == _SHORT_ARRAY else -1
        typed = self._typed_of(index)
        reader = None if typed is None else typed.reader
        if typed is None or reader is None or typed.restorer.multiplies or depth == OBJECT_LEVELS:
            return None
        try:
            rows = list(map(reader.one, parts))
        except Exception:  # such as objects of several classes
            typed.note_failure()
            typed.learn([msgpack.unpackb(first)])
            return None
        typed.failures = 0
        return typed.restorer.build(self._restored(rows, reader, decoding, depth + 1))


def _rebuild_indexed(rows: Sequence[Any], restorers: Mapping[int, Restorer]) -> list[Any]:
    """Return the events of rows in order; all rows of one schema are rebuilt together."""
    indexes = list(map(_INDEX, rows))
    if set(map(type, indexes)) != {int}:  # True and 1.0 would find the schema 1
        raise ValueError("a row does not begin with the index of its schema")
    by_schema: dict[int, list[Any]] = {index: [] for index in indexes}
    for row in rows:
        by_schema[row[0]].append(row[1:])
    in_turn = {index: iter(restorers[index].many(values)) for index, values in by_schema.items()}
    return [next(in_turn[row[0]]) for row in rows]


def _one_by_one(values: Iterable[Any], decoding: Decoding, depth: int) -> list[Any]:
    return [extended(decoding, depth, one.code, bytes(one.data)) if type(one) is Ext else one for one in values]


def _form(values: Sequence[Any]) -> int:
    kinds = kinds_of(values)
    return (BYTES if bytes in kinds else VALUES) | (VALUES if kinds <= NATIVE else EXTENSIONS)
