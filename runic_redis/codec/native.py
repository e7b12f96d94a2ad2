"""Read and write rows of MessagePack's own types with msgspec: the same result as with msgpack, in less time.

These functions return a result only if msgpack would return the same result. They leave everything else to msgpack,
including damaged bytes and extensions. No value is converted to the type that annotates its field.
"""

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from runic_redis.codec.value_encoder import kinds_within

NATIVE = frozenset({type(None), bool, int, float, str, bytes, list, dict})
_encode = msgspec.msgpack.Encoder().encode
# The libraries have different limits of depth. Neither reaches its limit at this depth.
_DEEPEST = 100

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
        extended: the places in a row that may hold extensions, which stay as they are.
    """

    forms: tuple[int, ...]
    many: Callable[[bytes], list[Any]]
    one: Callable[[bytes], Any]
    extended: tuple[int, ...]


def write_rows(rows: Sequence[Sequence[Any]], values: Sequence[Collection[Any]]) -> bytes | None:
    """Return the bytes of an entry's rows, or None to leave them to msgpack.

    Args:
        rows: the rows.
        values: all values of the rows, in any order.
    """
    try:
        packed = _encode(rows)
    except Exception:  # such as too large an int, or a lone surrogate
        return None
    # msgspec writes other types in its own way. Walk the values now: only values that it has written are finite.
    kinds, depth = kinds_within(values)
    return packed if kinds <= NATIVE and depth < _DEEPEST else None


@lru_cache(maxsize=1024)
def row_reader(index: int, forms: tuple[int, ...]) -> RowReader | None:
    """Return a reader of rows with one schema; None if there are too many fields.

    Args:
        index: the index of the schema, with which each row begins.
        forms: for each field, the values that it holds: `VALUES` or `BYTES`, and `EXTENSIONS` if it also holds these.
    """
    if len(forms) > _MOST_FIELDS:
        return None
    row: Any = tuple[(Literal[index], *map(_TYPES.__getitem__, forms))]  # type: ignore[misc, valid-type]
    extended = tuple([place for place, form in enumerate(forms, 1) if form & EXTENSIONS])
    many, one = msgspec.msgpack.Decoder(list[row]).decode, msgspec.msgpack.Decoder(row).decode
    return RowReader(forms, many, one, extended)
