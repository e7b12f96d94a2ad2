"""Between Python values and the bytes kept in Redis; the format is specified in docs/data-format.md.

`values` holds the value types, `commits` the entries of a stream, `facts` and `documents` whatever is kept whole
(facts, metadata, logs), `compression` the envelope around the large ones. Nothing here knows of keys or servers.
"""

from collections.abc import Mapping, Sequence
from threading import local
from typing import Any

from runic_redis.codec.compression import payload_size
from runic_redis.codec.documents import (
    MAX_METADATA_BYTES,
    decode_document,
    decode_fact,
    decode_log,
    decode_metadata,
    fact_matches,
)
from runic_redis.codec.encoded import EncodedEvents
from runic_redis.codec.entry_decoder import EntryDecoder, Multiplied, count_events, expanded, stand_in_event
from runic_redis.codec.entry_encoder import Entry, EntryEncoder
from runic_redis.codec.facts import DIGEST_BYTES, HEAD_BYTES, FactEncoder, StateEncoder
from runic_redis.codec.limits import MAX_COMMIT_BYTES
from runic_redis.codec.native import INSTALLED
from runic_redis.codec.value_encoder import ValueEncoder
from runic_redis.events import EventRegistry, UnknownEvents

__all__ = [
    "DIGEST_BYTES",
    "HEAD_BYTES",
    "MAX_COMMIT_BYTES",
    "MAX_METADATA_BYTES",
    "Codec",
    "EncodedEvents",
    "Entry",
    "Multiplied",
    "count_events",
    "expanded",
    "fact_matches",
    "payload_size",
]


class _Encoders(local):
    """One set of encoders for each thread: they keep their buffers from call to call."""

    def __init__(self, registry: EventRegistry, *, native: bool) -> None:
        self.entries = EntryEncoder(registry, native=native)
        self.facts = FactEncoder(registry)
        self.values = ValueEncoder(registry)
        self.states = StateEncoder(registry)


class Codec:
    """Everything that a store encodes and decodes, by one registry of event types.

    Args:
        registry: the event types.
        unknown_events: what becomes of events of other types.
        native: whether to use msgspec; None for where it is installed.
    """

    def __init__(self, registry: EventRegistry, unknown_events: UnknownEvents, *, native: bool | None = None) -> None:
        native = native if native is not None else INSTALLED
        self.registry = registry
        self._encoders = _Encoders(registry, native=native)
        self._decoder = EntryDecoder(registry, unknown_events, native=native)
        self._strict_decoder = EntryDecoder(registry, "raise", native=native)

    def encode_commit(self, events: Sequence[Any], facts: dict[str, bytes] | None = None) -> list[Entry]:
        """The entries of a commit: one, or several where it is large; its facts are put in `facts`."""
        return self._encoders.entries.encode_commit(events, {} if facts is None else facts)

    def encode_events(self, events: Sequence[Any]) -> EncodedEvents:
        """The events of a commit, encoded ahead of their `append`."""
        facts: dict[str, bytes] = {}
        return EncodedEvents(events, self.encode_commit(events, facts) if events else [], facts)

    def encode_metadata(self, metadata: Mapping[str, Any]) -> bytes:
        """A commit's metadata."""
        return self._encoders.values.encode(metadata, "metadata")

    def encode_state(self, state: Any) -> bytes:
        """A session's state, for a snapshot."""
        return self._encoders.states.encode(state, "state")

    def decode_state(self, data: bytes) -> Any:
        """A session's state, from a snapshot."""
        return decode_document(data, self._decoder)

    def decode_state_strictly(self, data: bytes) -> Any:
        """A session's state to go on with: one with an object of an unknown type is not the state that was saved."""
        return decode_document(data, self._strict_decoder)

    def encode_log(self, log: Sequence[Any], facts: dict[str, bytes] | None = None) -> bytes:
        """A whole list of events; the facts in it are put in `facts`."""
        return self._encoders.entries.encode_log(log, {} if facts is None else facts)

    def encode_fact(self, fact_hash: bytes, value: Any) -> bytes:
        """A fact to be kept under the caller's hash."""
        return self._encoders.facts.encode(fact_hash, value)

    def encode_own_fact(self, value: Any) -> tuple[str, bytes]:
        """A fact's content hash, and the fact to be kept under it."""
        return self._encoders.facts.encode_own(value)

    def decode_entry(self, header: bytes, payload: bytes) -> list[Any]:
        """The events of one entry, one for each that is stored; `Multiplied` where some are read as several."""
        return self._decoder.decode(header, payload)

    def stand_in_event(self, header: bytes) -> Any:
        """An event of the first type that an entry's header names, without fields."""
        return stand_in_event(header)

    def decode_metadata(self, data: bytes) -> dict[str, Any]:
        """A commit's metadata."""
        return decode_metadata(data, self._decoder)

    def decode_log(self, data: bytes) -> list[Any]:
        """A whole list of events."""
        return decode_log(data, self._decoder)

    def decode_fact(self, fact_hash: bytes, data: bytes) -> Any:
        """A fact's value, checked against its hash."""
        return decode_fact(fact_hash, data, self._decoder)
