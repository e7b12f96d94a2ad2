"""Events that have been encoded before they are appended."""

from collections.abc import Iterable
from typing import Any, Self

from runic_redis.codec.commits import Entry
from runic_redis.codec.compression import payload_size

__all__ = ["EncodedEvents"]


class EncodedEvents(tuple[Any, ...]):  # noqa: SLOT001 - a tuple of any length has no slots
    """The events of a commit together with their encoding, so that `append` need not encode them again.

    Attributes:
        entries: the commit's entries.
        facts: the facts in them, as `EntryEncoder.encode_commit` gives them.
    """

    entries: list[Entry]
    facts: dict[str, bytes]

    def __new__(cls, events: Iterable[Any], entries: list[Entry], facts: dict[str, bytes]) -> Self:
        """Make the tuple; the parameters are its items and the two attributes."""
        encoded = super().__new__(cls, events)
        encoded.entries = entries
        encoded.facts = facts
        return encoded

    @property
    def encoded_bytes(self) -> int:
        """How many bytes the events take encoded, which is what a commit's limit counts."""
        return sum(payload_size(entry.payload) for entry in self.entries)

    @property
    def stored_bytes(self) -> int:
        """How many bytes of payload are stored for the events, after compression."""
        return sum(len(entry.payload) for entry in self.entries)
