"""Read and write rows of MessagePack's own types with msgspec: the same result as with msgpack, in less time.

These functions return a result only if msgpack would return the same result. They leave everything else to msgpack,
including damaged bytes. No value is converted to the type that annotates its field.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from runic_redis.codec.value_encoder import contents

# Returns the rows of an entry from their bytes, or None to leave them to msgpack.
RowReader = Callable[[bytes], list[Any] | None]
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_NATIVE = _SCALARS | {list, dict}
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


def write_rows(rows: Sequence[Sequence[Any]], groups: Iterable[Sequence[Sequence[Any]]]) -> bytes | None:
    """Return the bytes of an entry's rows, or None to leave them to msgpack.

    Args:
        rows: the rows.
        groups: the rows of each schema, without the schema's index.
    """
    try:
        packed = _encode(rows)
    except Exception:  # such as too large an int, or a lone surrogate
        return None
    # msgspec writes other types in its own way. Walk the values now: only values that it has written are finite.
    for group in groups:
        if not (_is_native(group[0]) if len(group) == 1 else all(map(_is_native, zip(*group, strict=True)))):
            return None
    return packed


def _is_native(values: Collection[Any], depth: int = _DEEPEST) -> bool:
    """Return whether values, and all values within them, are of the types that msgspec reads as it writes them.

    Almost all of it runs in C, because it takes what the lists and dicts of a collection hold together.
    """
    kinds = set(map(type, values))
    if kinds <= _SCALARS:
        return True
    return depth > 0 and kinds <= _NATIVE and _is_native(contents(values), depth - 1)


def row_reader(holds_bytes: tuple[bool, ...]) -> RowReader | None:
    """Return a function that reads the rows of an entry with one schema.

    Args:
        holds_bytes: for each field, whether it holds bytes. The other fields hold text and all other native types.
    """
    # Check this before the cache, which would keep the long tuple.
    return _row_reader(holds_bytes) if len(holds_bytes) <= _MOST_FIELDS else None


@lru_cache(maxsize=1024)
def _row_reader(holds_bytes: tuple[bool, ...]) -> RowReader:
    row: Any = tuple[tuple(_Bytes if one else _Value for one in holds_bytes)]  # type: ignore[misc]
    decode = msgspec.msgpack.Decoder(list[row]).decode

    def read(packed: bytes) -> list[Any] | None:
        try:
            return decode(packed)
        except Exception:  # another type, or damage: msgpack finds out which
            return None

    return read
