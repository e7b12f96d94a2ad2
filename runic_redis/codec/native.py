"""Read and write rows of MessagePack's own types with msgspec, if it is installed: the same result in less time.

These functions return a result only if msgpack would return the same result. They leave everything else to msgpack,
including damaged bytes. So the two codecs accept, reject and return the same. No value is converted to the type that
annotates its field.
"""

from collections.abc import Callable
from functools import cache
from itertools import chain
from typing import Any, Literal

from runic_redis.codec.value_encoder import kinds_within

try:
    import msgspec
except ImportError:  # it is optional
    INSTALLED = False
else:
    INSTALLED = True

# Returns the rows of an entry from their bytes, or None to leave them to msgpack.
RowReader = Callable[[bytes], list[Any] | None]
# Returns the bytes of an entry's rows, or None to leave them to msgpack.
RowWriter = Callable[[list[list[Any]]], bytes | None]

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_NATIVE = _SCALARS | {list, dict}
# The libraries have different limits of depth. Neither reaches its limit at this depth.
_DEEPEST = 100

# With more fields, making the reader takes longer than it saves. And a damaged header may name very many.
_MOST_FIELDS = 100
# Types that both libraries return alike. No deeper nesting, no `bytes` and no other keys: msgspec has only `Any` for
# these. With `Any` it accepts more than msgpack, such as an array as a key, and rounds timestamps differently.
_Scalar = None | bool | int | float | str
_Part = _Scalar | list[_Scalar] | dict[str, _Scalar]
_Value = _Scalar | list[_Part] | dict[str, _Part]


def row_writer() -> RowWriter:
    """Return a function that writes the rows of an entry; only one thread may use it at a time."""
    encode = msgspec.msgpack.Encoder().encode

    def write(rows: list[list[Any]]) -> bytes | None:
        try:
            packed = encode(rows)
        except Exception:  # such as too large an int, or a lone surrogate
            return None
        if _SCALARS.issuperset(map(type, chain.from_iterable(rows))):
            return packed
        # msgspec writes other types in its own way. Walk the rows now: only rows that it has written are finite.
        kinds, depth, _ = kinds_within(rows)
        return packed if kinds <= _NATIVE and depth <= _DEEPEST else None

    return write


@cache
def row_reader(field_count: int) -> RowReader | None:
    """Return a function that reads the rows of an entry whose only schema has this many fields."""
    if field_count > _MOST_FIELDS:
        return None
    row: Any = tuple[(Literal[0], *[_Value] * field_count)]  # type: ignore[misc]
    decode = msgspec.msgpack.Decoder(list[row]).decode

    def read(packed: bytes) -> list[Any] | None:
        try:
            return decode(packed)
        except Exception:  # another type, or damage: msgpack finds out which
            return None

    return read
