"""Rows of MessagePack's own types by msgspec, where it is installed: the same bytes and values, sooner.

It only ever does what msgpack would do just so, and leaves all else to msgpack, damaged bytes too: so the two codecs
cannot differ in what they take, refuse or bring back. Nothing is converted to the type that a field is annotated with.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

try:
    import msgspec
except ImportError:  # an optional extra
    INSTALLED = False
else:
    INSTALLED = True

__all__ = ["INSTALLED", "RowReader", "row_reader"]

# The rows of an entry, out of their bytes; None for what is left to msgpack.
RowReader = Callable[[bytes], list[Any] | None]

# For more, which take their time anyway, making the reader takes longer than it saves; and a header may be damaged.
_MOST_FIELDS = 100
_Scalar = None | bool | int | float | str
# What both libraries bring back alike. Not deeper, not `bytes`, and no other keys: msgspec has no type for these but
# `Any`, where it takes more than msgpack does, such as an array for a key, and rounds timestamps otherwise.
_Value = _Scalar | list[_Scalar] | dict[str, _Scalar]


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
