"""The fields of an entry behind its header, its payload and its commit id: `m`, `t`, `n`, `e` and `p`, in this order.

Each is optional. `m` is the metadata, `t` the tags of the commit, `n` the number of its entries if there are several,
`e` which of its events have each tag if not all do, and `p` its feed position.
"""

from collections.abc import Sequence
from typing import Any

from runic_redis.arguments import MAX_TAGS, check_tag, is_cursor
from runic_redis.errors import InvalidArgument

_FIRST = 4
_NAMES = (b"m", b"t", b"n", b"e", b"p")
# Between two tags of an entry. UTF-8 has no such byte.
_BETWEEN = b"\xff"
# A tag ends with a NUL in the sorted set; then follows the cursor after its commit, in so many digits.
DIGITS = 16


def metadata_field(fields: Sequence[Any]) -> bytes | None:
    """Return the encoded metadata of an entry, or None."""
    return fields[_FIRST + 1] if len(fields) > _FIRST and fields[_FIRST] == b"m" else None


def tags_field(fields: Sequence[Any]) -> list[bytes]:
    """Return the tags in an entry, which the last entry of their commit has.

    Raises:
        ValueError: they are damaged.
    """
    found = _field(fields, b"t")
    tags = [] if found is None else found.split(_BETWEEN)
    if len(tags) > MAX_TAGS or len({*tags}) < len(tags) or not all(map(_is_tag, tags)):
        raise ValueError(f"its tags are {found!r:.80}")
    return tags


def entries_field(fields: Sequence[Any]) -> int:
    """Return how many entries a commit has, by its last entry, if it has tags.

    Raises:
        ValueError: the number is damaged.
    """
    found = _field(fields, b"n")
    if found is None:
        return 1
    if not is_cursor(found) or int(found) < 2:
        raise ValueError(f"the number of its entries is {found!r:.40}")
    return int(found)


def are_fields(fields: Sequence[Any]) -> bool:
    """Return whether an entry has the fields that a store writes, in their order."""
    names = list(fields[_FIRST::2])
    try:
        return (
            len(fields) >= _FIRST
            and len(fields) % 2 == 0
            and names == [name for name in _NAMES if name in names]
            and (b"p" not in names or is_cursor(_field(fields, b"p") or b""))
            and (bool(tags_field(fields)) or entries_field(fields) == 1)
            and _are_backs(_field(fields, b"e"), len(tags_field(fields)))
        )
    except ValueError:
        return False


def without_position(fields: Sequence[Any]) -> Sequence[Any]:
    """Return the fields of an entry without its position, which counts in its own namespace only."""
    return fields[:-2] if len(fields) > _FIRST and fields[-2] == b"p" else fields


def tag_member(tag: bytes, cursor: int) -> bytes:
    """Return the member of the sorted set of tags for a tag of the commit that ends at a cursor."""
    return b"%b\0%0*d" % (tag, DIGITS, cursor)


def _field(fields: Sequence[Any], name: bytes) -> bytes | None:
    for at in range(_FIRST, len(fields) - 1, 2):
        if fields[at] == name:
            value: bytes = fields[at + 1]
            return value
    return None


def _are_backs(text: bytes | None, count: int) -> bool:
    """Return whether a text tells for so many tags which events have them."""
    parts = (text or b"").split(_BETWEEN)
    return text is None or (
        len(parts) == count and all(map(is_cursor, (back for part in parts if part for back in part.split(b","))))
    )


def _is_tag(tag: bytes) -> bool:
    try:
        return check_tag(tag.decode()) != b""
    except (InvalidArgument, UnicodeDecodeError):
        return False
