"""Events that are encoded before they are appended."""

from collections.abc import Iterable
from typing import Any, Self

from runic_redis.codec.compression import payload_size
from runic_redis.codec.entry_encoder import Entry

__all__ = ["EncodedEvents"]


class EncodedEvents(tuple[Any, ...]):  # noqa: SLOT001 - a tuple of any length has no slots
    """The events of a commit with their encoding, so that `append` does not encode them again.

    Attributes:
        entries: the commit's entries.
        facts: the facts in the events, as `EntryEncoder.encode_commit` collects them.
    """

    entries: list[Entry]
    facts: dict[str, bytes]

    def __new__(cls, events: Iterable[Any], entries: list[Entry], facts: dict[str, bytes]) -> Self:
        """Make the tuple of the events, with the two attributes."""
        encoded = super().__new__(cls, events)
        encoded.entries = entries
        encoded.facts = facts
        return encoded

    @property
    def encoded_bytes(self) -> int:
        """The encoded size of the events in bytes. The limit of a commit counts this size."""
        return sum(payload_size(entry.payload) for entry in self.entries)

    @property
    def stored_bytes(self) -> int:
        """The stored size of the events' payload in bytes, after compression."""
        return sum(len(entry.payload) for entry in self.entries)
