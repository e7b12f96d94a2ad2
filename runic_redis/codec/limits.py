"""The limits of values, entries and commits, for writers and readers alike; docs/data-format.md lists them."""

from collections import Counter
from collections.abc import Collection
from typing import Any

# How many bytes of extensions a value may hold. Nested extensions count once per level, since each level is a copy.
_NESTED_BYTES = 64 * 1024 * 1024
_NESTED_TIMES = 4
# How deep extensions may nest. It bounds the recursion of the writer and of a reader of damaged bytes.
MAX_DEPTH = 64
# How deep msgspec writes and reads objects in objects.
OBJECT_LEVELS = 3
# How many pairs of keys with the same hash a value may have: a dict or a set compares each pair. Python hashes text
# with a secret. But anyone can choose a million numbers with the same hash, and comparing those takes hours.
MOST_PAIRS = 4096 * 4096
# Collections of so few keys, values of so few bytes, and so few bytes of extensions are not counted: only some dozens
# of MessagePack's own numbers have the same hash.
FEW_ALIKE = 64
SHORT_BYTES = 4096
# A larger commit becomes several entries, so that readers can page in steps of about this size.
SPLIT_BYTES = 1024 * 1024
# Larger data belongs in a fact. The limit is far below that of Redis, so that a request always fits.
MAX_EVENT_BYTES = 16 * 1024 * 1024
MAX_COMMIT_BYTES = 256 * 1024 * 1024
MAX_METADATA_BYTES = 64 * 1024
# The names of an entry's types and fields. A thousand types fit.
MAX_HEADER_BYTES = 1024 * 1024


class TooDeepError(ValueError):
    """A value nests deeper than `MAX_DEPTH`, or nests too much data."""


def nested_allowed(packed: bytes, levels: int = 0) -> int:
    """Return how many bytes of extensions a value of these bytes may hold.

    Args:
        packed: the value.
        levels: count the extensions at so many levels ahead. At each, they hold no more bytes than the whole value.
    """
    return max(_NESTED_BYTES, _NESTED_TIMES * len(packed)) - levels * len(packed)


class AlikeKeys:
    """A count of the keys with the same hash, over all dicts and sets of one value."""

    __slots__ = ("_pairs_left",)

    def __init__(self) -> None:
        self._pairs_left = MOST_PAIRS

    def count(self, keys: Collection[Any]) -> None:
        """Count the keys of a dict or a set.

        Raises:
            ValueError: too many keys have the same hash.
        """
        if len(keys) > FEW_ALIKE and len(set(map(hash, keys))) < len(keys):
            counts = Counter(map(hash, keys))
            self._pairs_left -= sum([count * count for count in counts.values() if count > 1])
            if self._pairs_left < 0:
                raise ValueError("too many keys have the same hash")


def reject_alike(collections: Collection[Collection[Any]]) -> None:
    """Reject the dicts and sets of one value if too many of their keys have the same hash.

    Raises:
        ValueError: too many keys have the same hash.
    """
    # Counting takes longer than this bound, and few values have as many keys.
    if sum(len(keys) ** 2 for keys in collections) > MOST_PAIRS:
        alike = AlikeKeys()
        for keys in collections:
            alike.count(keys)
