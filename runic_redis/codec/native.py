"""Read and write rows of MessagePack's own types with msgspec: the same result as with msgpack, in less time.

These functions return a result only if msgpack would return the same result. They leave everything else to msgpack,
including damaged bytes. They take extensions as they are: `columns` and `schemas` convert them. No value is converted
to the type that annotates its field.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Literal, NamedTuple

import msgspec

from runic_redis.codec.limits import FEW_ALIKE
from runic_redis.codec.value_encoder import contents

SCALARS = frozenset({type(None), bool, int, float, str, bytes})
NATIVE = SCALARS | {list, dict}
pack = msgspec.msgpack.Encoder().encode
# The libraries have different limits of depth. Neither reaches its limit at this depth.
_DEEPEST = 99

# From how many rows, or values, on they are many.
MANY = 16

# With more fields, making the reader takes longer than it saves. And a damaged header may name very many.
_MOST_FIELDS = 100
# Types that both libraries return alike. No deeper nesting, no `bytes` beside `str`, and no keys but `str`: msgspec has
# only `Any` for these. With `Any` it accepts more, such as an array as a key, and rounds timestamps differently.
_Scalar = None | bool | int | float | str
_Part = _Scalar | list[_Scalar] | dict[str, _Scalar]
_Value = _Scalar | list[_Part] | dict[str, _Part]
_Bytes = None | bool | int | float | bytes
# The forms of a field: text and all other native types, or bytes in place of text; and extensions beside these.
VALUES, BYTES, EXTENSIONS = 0, 1, 2
_TYPES: tuple[Any, ...] = (_Value, _Bytes, _Value | msgspec.msgpack.Ext, _Bytes | msgspec.msgpack.Ext)


class RowReader(NamedTuple):
    """A reader of rows of one schema. It raises an error for rows that are left to msgpack.

    Attributes:
        forms: the form of each field.
        many: returns the rows of an entry from their bytes.
        one: returns one row.
        first: the place of the first field in a row.
        extended: the places in a row that may hold extensions, which stay as they are.
    """

    forms: tuple[int, ...]
    many: Callable[[bytes], list[Any]]
    one: Callable[[bytes], Any]
    first: int
    extended: tuple[int, ...]


def containers(rows: Sequence[Sequence[Any]]) -> list[Collection[Any]] | None:
    """Return the fields of rows that hold lists or dicts, to walk; None if a field holds a value of another type."""
    if len(rows) < MANY:
        values = rows[0] if len(rows) == 1 else list(chain.from_iterable(rows))
        kinds = set(map(type, values))
        if kinds <= SCALARS:
            return []
        return [values] if kinds <= NATIVE else None
    found: list[Collection[Any]] = []
    # The values of a field mostly have one type.
    for values in zip(*rows, strict=True):
        kinds = kinds_of(values)
        if not kinds <= SCALARS:
            if not kinds <= NATIVE:
                return None
            found.append(values)
    return found


def write_rows(rows: Sequence[Any], walked: Iterable[Collection[Any]], *, narrow: bool = False) -> bytes | None:
    """Return the bytes of an entry's rows, or None to leave them to msgpack.

    Args:
        rows: the rows.
        walked: native values that may hold others.
        narrow: leave dicts with more than `FEW_ALIKE` keys to msgpack.
    """
    try:
        packed = pack(rows)
    except Exception:  # such as too large an int, or a lone surrogate
        return None
    # msgspec writes other types in its own way. Walk the values now: only values that it has written are finite.
    for values in walked:
        if not _hold_native(values, narrow):
            return None
    return packed


def _hold_native(values: Collection[Any], narrow: bool, depth: int = _DEEPEST) -> bool:
    """Return whether all values within native values are of the types that msgspec reads as it writes them.

    Almost all of it runs in C, because it takes what the lists and dicts of a collection hold together.
    """
    if narrow and any(type(value) is dict and len(value) > FEW_ALIKE for value in values):
        return False
    held = contents(values)
    kinds = kinds_of(held)
    return kinds <= SCALARS or (depth > 0 and kinds <= NATIVE and _hold_native(held, narrow, depth - 1))


def kinds_of(values: Collection[Any]) -> set[type]:
    """Return the types of values."""
    if len(values) < MANY:
        return set(map(type, values))
    # Counting the first type is faster than a set if it is the only one, as in a field.
    types = list(map(type, values))
    return {types[0]} if types.count(types[0]) == len(types) else set(types)


def row_reader(index: int | None, forms: tuple[int, ...]) -> RowReader | None:
    """Return a reader of rows with one schema; None if there are too many fields.

    Args:
        index: the index of the schema, with which each row begins; None for rows without it.
        forms: for each field, the values that it holds: `VALUES` or `BYTES`, and `EXTENSIONS` if it also holds these.
    """
    # Check this before the cache, which would keep the long tuple.
    return _row_reader(index, forms) if len(forms) <= _MOST_FIELDS else None


@lru_cache(maxsize=1024)
def _row_reader(index: int | None, forms: tuple[int, ...]) -> RowReader:
    first = 0 if index is None else 1
    heads: tuple[Any, ...] = () if index is None else (Literal[index],)
    row: Any = tuple[(*heads, *map(_TYPES.__getitem__, forms))]  # type: ignore[misc, valid-type]
    extended = tuple([place for place, form in enumerate(forms, first) if form & EXTENSIONS])
    many, one = msgspec.msgpack.Decoder(list[row]).decode, msgspec.msgpack.Decoder(row).decode
    return RowReader(forms, many, one, first, extended)
