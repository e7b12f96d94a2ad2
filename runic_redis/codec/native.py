"""Rows of MessagePack's own types by msgspec, where it is installed: the same bytes and values, sooner.

It only ever does what msgpack would do just so, and leaves all else to msgpack, damaged bytes too: so the two codecs
cannot differ in what they take, refuse or bring back. Nothing is converted to the type that a field is annotated with.
"""

from collections.abc import Callable
from functools import cache
from itertools import chain
from typing import Any, Literal

from runic_redis.codec.values import kinds_within

try:
    import msgspec
except ImportError:  # it is optional
    INSTALLED = False
else:
    INSTALLED = True

__all__ = ["INSTALLED", "RowReader", "row_reader", "row_writer"]

# The rows of an entry, out of their bytes; None for what is left to msgpack.
RowReader = Callable[[bytes], list[Any] | None]
# The bytes of the rows of an entry; None likewise.
RowWriter = Callable[[list[list[Any]]], bytes | None]

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_NATIVE = _SCALARS | {list, dict}
# How deep each library goes is its own affair: here neither comes to its end.
_DEEPEST = 100

# For more, which take their time anyway, making the reader takes longer than it saves; and a header may be damaged.
_MOST_FIELDS = 100
# What both libraries bring back alike. Not deeper, not `bytes`, and no other keys: msgspec has no type for these but
# `Any`, where it takes more than msgpack does, such as an array for a key, and rounds timestamps otherwise.
_Scalar = None | bool | int | float | str
_Part = _Scalar | list[_Scalar] | dict[str, _Scalar]
_Value = _Scalar | list[_Part] | dict[str, _Part]


def row_writer() -> RowWriter:
    """What writes the rows of an entry; not for two threads at once."""
    encode = msgspec.msgpack.Encoder().encode

    def write(rows: list[list[Any]]) -> bytes | None:
        try:
            packed = encode(rows)
        except Exception:  # too large an int, a lone surrogate and the like
            return None
        if _SCALARS.issuperset(map(type, chain.from_iterable(rows))):
            return packed
        # msgspec writes much else too, but in its own way. Only what it has written is finite, and can be walked.
        kinds, depth, _ = kinds_within(rows)
        return packed if kinds <= _NATIVE and depth <= _DEEPEST else None

    return write


@cache
def row_reader(field_count: int) -> RowReader | None:
    """What reads the rows of an entry whose events are all of its first schema, and that one of so many fields."""
    if field_count > _MOST_FIELDS:
        return None
    row: Any = tuple[(Literal[0], *[_Value] * field_count)]  # type: ignore[misc]
    decode = msgspec.msgpack.Decoder(list[row]).decode

    def read(packed: bytes) -> list[Any] | None:
        try:
            return decode(packed)
        except Exception:  # another type, or damage: msgpack tells which
            return None

    return read
