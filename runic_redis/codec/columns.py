"""Write rows with values that MessagePack has no types for, such as dates and objects of registered classes.

It converts these values to extensions field by field for all rows, and msgspec writes the rows: the same result as with
msgpack, in less time. It leaves other values to msgpack, such as facts, tuples, sets, and dates in lists and dicts.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgpack
from msgspec.msgpack import Ext

from runic_redis.codec.extensions import OBJECT, SCALAR_ENCODERS, encode_scalars
from runic_redis.codec.limits import OBJECT_LEVELS, nested_allowed
from runic_redis.codec.native import NATIVE, SCALARS, kinds_of, pack, write_rows
from runic_redis.events.attributes import Read

# With fewer rows, converting the values one by one takes less time.
_MANY = 4


class Reader:
    """Reads the instances of a class that consist of their fields.

    Attributes:
        schema: the schema of the instances.
        header: the header of an entry that holds no other events.
    """

    __slots__ = ("_held", "_read", "header", "schema")

    def __init__(self, schema: Any, read: Read, held: tuple[str, ...] | None) -> None:
        self._read = read
        self._held = held
        self.schema = schema
        self.header: bytes = msgpack.packb((schema,))

    def rows(self, instances: Sequence[Any]) -> list[Any]:
        """Return the field values of each instance.

        Raises:
            ValueError: an instance does not consist of its fields.
        """
        if self._held is not None and set(map(tuple, map(vars, instances))) != {self._held}:
            raise ValueError("an instance does not consist of its fields")
        return list(map(self._read, instances))


FindReader = Callable[[type], Reader]


def write_columns(
    rows: Sequence[Sequence[Any]], schema: Any, find_reader: FindReader
) -> tuple[bytes, list[Any]] | None:
    """Return the bytes of an entry's rows, and the schemas used in it; None to leave them to msgpack.

    Args:
        rows: the rows of the events.
        schema: the schema of all events.
        find_reader: returns the reader of a class. It raises ValueError for a class without one.

    Raises:
        ValueError: a value is left to msgpack.
    """
    convert = _Converter(schema, find_reader)
    if len(rows) < _MANY:
        converted = convert.each(rows, 0)
    else:
        converted = convert.together(rows, 0)
        # The indexes follow the order in which the rows use the schemas, row by row.
        if len(convert.indexes) > 2 and list(convert.indexes) != _used(rows[0], schema, find_reader):
            convert = _Converter(schema, find_reader)
            converted = convert.each(rows, 0)
    packed = write_rows(converted, convert.walked, narrow=True)
    # Extensions count as much as they may hold at most.
    if packed is None or nested_allowed(packed, OBJECT_LEVELS + 1) < 0:
        return None
    return packed, list(convert.indexes)


def _used(row: Sequence[Any], schema: Any, find_reader: FindReader) -> list[Any]:
    """Return the schemas used in a row, in order."""
    convert = _Converter(schema, find_reader)
    convert.each([row], 0)
    return list(convert.indexes)


class _Converter:
    """Converts the values of rows to values that msgspec writes. It raises ValueError for those left to msgpack.

    Attributes:
        indexes: the index of each schema that it has used.
        walked: the native values that may hold others.
    """

    def __init__(self, schema: Any, find_reader: FindReader) -> None:
        self._find_reader = find_reader
        self.indexes = {schema: 0}
        self.walked: list[Collection[Any]] = []

    def each(self, rows: Sequence[Sequence[Any]], depth: int, *head: int) -> list[Sequence[Any]]:
        """Return rows converted value by value, with a head before the values of each."""
        return [[*head, *self._values(row, depth)] for row in rows]

    def together(self, rows: Sequence[Sequence[Any]], depth: int, *head: int) -> list[Sequence[Any]]:
        """Return rows converted field by field."""
        columns = [self._column(column, depth) for column in zip(*rows, strict=True)]
        return list(zip(*[[one] * len(rows) for one in head], *columns, strict=True))

    def _values(self, values: Sequence[Any], depth: int) -> list[Any]:
        return [value if type(value) in SCALARS else self._value(value, depth) for value in values]

    def _value(self, value: Any, depth: int) -> Any:
        kind = type(value)
        encode = SCALAR_ENCODERS.get(kind)
        if encode is not None:
            return Ext(*encode(value))
        if kind in NATIVE:
            self.walked.append((value,))
            return value
        return self._objects(kind, (value,), depth)[0]

    def _column(self, column: Sequence[Any], depth: int) -> Sequence[Any]:
        kinds = kinds_of(column)
        if kinds <= SCALARS:
            return column
        if kinds <= NATIVE:
            self.walked.append(column)
            return column
        if len(kinds) > 1:
            return self._values(column, depth)
        (kind,) = kinds
        return encode_scalars(kind, column) if kind in SCALAR_ENCODERS else self._objects(kind, column, depth)

    def _objects(self, kind: type, objects: Sequence[Any], depth: int) -> Sequence[Ext]:
        if depth == OBJECT_LEVELS:
            raise ValueError("it is too deep in other objects")
        reader = self._find_reader(kind)
        rows = reader.rows(objects)
        index = self.indexes.setdefault(reader.schema, len(self.indexes))
        convert = self.each if len(rows) < _MANY else self.together
        return [Ext(OBJECT, pack(row)) for row in convert(rows, depth + 1, index)]
