"""The schemas of an entry's header: they rebuild its objects, and read its rows with msgspec.

msgspec reads the rows of an entry whose events have one type. Extensions, such as dates and objects in the events, are
then restored field by field for all rows. Other rows are left to msgpack, and so are rows that cannot be read.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import msgpack
from msgspec.msgpack import Ext

from runic_redis.codec.extensions import OBJECT, SCALAR_DECODERS, decode_scalars
from runic_redis.codec.limits import nested_allowed
from runic_redis.codec.native import BYTES, EXTENSIONS, NATIVE, VALUES, RowReader, row_reader
from runic_redis.codec.value_decoder import Decoding, FindBuilder, extended
from runic_redis.errors import IncompatibleEvent
from runic_redis.events.attributes import Build
from runic_redis.events.event_types import Several

# Stop reading typed rows after this many failures in a row. A type that msgspec cannot read usually fails each time.
_TRIES = 100
# How deep in objects msgspec reads objects. At each level, the extensions hold no more bytes than the whole entry.
_DEEPEST = 3
_SHORT_ARRAY, _SHORT_ARRAYS = 0x90, 0xF0
_INDEX = itemgetter(0)
_FIELDS = itemgetter(slice(1, None))
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
    """A reader of the rows of one schema. It learns from rows that it could not read."""

    def __init__(self, index: int, field_count: int) -> None:
        self._index = index
        self._reader = row_reader(index, (VALUES,) * field_count)
        self._failures = 0

    def reader(self) -> RowReader | None:
        """Return the reader, or None if it fails too often."""
        return None if self._failures > _TRIES else self._reader

    def note(self, *, failed: bool) -> None:
        self._failures = self._failures + 1 if failed else 0

    def learn(self, rows: Sequence[Sequence[Any]]) -> None:
        """Prepare to read rows whose fields hold bytes and extensions where these rows do."""
        if self._reader is None or self._failures > _TRIES:
            return
        fields = zip(self._reader.forms, list(zip(*rows, strict=True))[1:], strict=True)
        # A field that is None in these rows may hold extensions in others.
        forms = tuple([known & EXTENSIONS | _form(values) for known, values in fields])
        if forms != self._reader.forms:
            self._reader = row_reader(self._index, forms)


class Schemas:
    """A decoded header: what rebuilds its events, and reads their rows if they have one schema.

    Args:
        restorers: by the index of each schema.
    """

    def __init__(self, restorers: dict[int, Restorer]) -> None:
        self.restorers = restorers
        self.multiplies = any(restorer.multiplies for restorer in restorers.values())
        self._typed: dict[int, _TypedRows] = {}
        # The schema that the rows of an entry probably have.
        self._index = 0

    def typed_rows(self, packed: bytes, find_builder: FindBuilder) -> tuple[Restorer, Iterable[Sequence[Any]]] | None:
        """Return the restorer and the values of the rows; None if they must be read one by one."""
        index = self._index
        typed = self._typed_of(index)
        reader = None if typed is None else typed.reader()
        if typed is None or reader is None:
            return None
        try:
            rows = reader.many(packed)
            # Extensions that msgspec reads count as much as they may hold at most.
            left = nested_allowed(packed) - (_DEEPEST + 1) * len(packed)
            decoding = Decoding(find_builder, left, text_keys=True)
            values = self._restored(rows, reader, decoding, 0)
        except Exception:  # another type, or damage: msgpack finds out which
            rows = []
        typed.note(failed=not rows)
        return (self.restorers[index], values) if rows else None

    def learn(self, rows: Sequence[Sequence[Any]]) -> None:
        """Prepare to read rows like these, which msgpack has read."""
        indexes = set(map(_INDEX, rows))
        index = indexes.pop()
        if indexes or type(index) is not int:
            return
        self._index = index
        typed = self._typed_of(index)
        if typed is not None:
            typed.learn(rows)

    def _typed_of(self, index: int) -> _TypedRows | None:
        typed = self._typed.get(index)
        if typed is None and index in self.restorers:
            typed = self._typed[index] = _TypedRows(index, self.restorers[index].field_count)
        return typed

    def _restored(
        self, rows: Sequence[Sequence[Any]], reader: RowReader, decoding: Decoding, depth: int
    ) -> Iterable[Sequence[Any]]:
        """Return the field values of rows, with values in place of extensions."""
        if not reader.extended:
            return map(_FIELDS, rows)
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for place in reader.extended:
            columns[place] = self._column(columns[place], decoding, depth)
        return zip(*columns[1:], strict=True)

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
            objects = self._objects(parts, decoding, depth) if code == OBJECT else None
            if objects is not None:
                return objects
        return [extended(decoding, depth, one.code, bytes(one.data)) for one in extensions]

    def _objects(self, parts: Sequence[bytes], decoding: Decoding, depth: int) -> list[Any] | None:
        """Return the objects of extensions; None if they must be read one by one."""
        first = parts[0]
        # An object is an array that begins with the index of its schema.
        index = first[1] if len(first) > 1 and first[0] & _SHORT_ARRAYS == _SHORT_ARRAY else -1
        typed = self._typed_of(index)
        reader = None if typed is None else typed.reader()
        if typed is None or reader is None or self.restorers[index].multiplies or depth == _DEEPEST:
            return None
        try:
            rows = list(map(reader.one, parts))
        except Exception:  # such as objects of several classes
            typed.note(failed=True)
            typed.learn([msgpack.unpackb(first)])
            return None
        typed.note(failed=False)
        return self.restorers[index].build(self._restored(rows, reader, decoding, depth + 1))


def _form(values: Iterable[Any]) -> int:
    kinds = set(map(type, values))
    return (BYTES if bytes in kinds else VALUES) | (VALUES if kinds <= NATIVE else EXTENSIONS)
