"""What a value may hold at most, for its writer and its reader alike; docs/data-format.md lists it."""

from collections import Counter
from collections.abc import Collection
from typing import Any

__all__ = ["FEW_ALIKE", "MAX_DEPTH", "MOST_PAIRS", "SHORT_BYTES", "AlikeKeys", "TooDeepError", "nested_allowed"]

# How many bytes of extensions a value may hold, one inside the other counted each time: each level is a copy.
_NESTED_BYTES = 64 * 1024 * 1024
_NESTED_TIMES = 4
# How deep extensions may nest in each other: bounds the recursion both ways, and so what damaged bytes can cost.
MAX_DEPTH = 64
# How many pairs of keys of the same hash a value may have: a dict or a set compares each with each. Text is hashed with
# a secret; of what is made of numbers, anybody can make a million with one hash, which would be compared for hours.
MOST_PAIRS = 4096 * 4096
# As few keys are not worth a look, and neither is a value of as few bytes, or with as few in extensions: of the numbers
# that MessagePack has itself, only some dozens have the same hash.
FEW_ALIKE = 64
SHORT_BYTES = 4096


class TooDeepError(ValueError):
    """A value nests deeper than `MAX_DEPTH`, or too much data."""


def nested_allowed(packed: bytes) -> int:
    """How many bytes of extensions a value of these bytes may hold."""
    return max(_NESTED_BYTES, _NESTED_TIMES * len(packed))


class AlikeKeys:
    """Counts the keys of the same hash over all dicts and sets of one value."""

    __slots__ = ("_pairs_left",)

    def __init__(self) -> None:
        self._pairs_left = MOST_PAIRS

    def count(self, keys: Collection[Any]) -> None:
        """Count the keys of a dict or a set.

        Raises:
            ValueError: there are too many of the same hash.
        """
        if len(keys) > FEW_ALIKE and len(set(map(hash, keys))) < len(keys):
            counts = Counter(map(hash, keys))
            self._pairs_left -= sum([count * count for count in counts.values() if count > 1])
            if self._pairs_left < 0:
                raise ValueError("too many keys have the same hash")
