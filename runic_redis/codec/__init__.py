"""Encode Python values as the bytes stored in Redis, and decode them; docs/data-format.md specifies the format.

`value_encoder` and `value_decoder` convert values, with the types in `extensions`. `entry_encoder` and `entry_decoder`
convert the entries of a stream. `facts` encodes and verifies facts. `compression` has the envelope of a payload,
`limits` the limits of sizes and depths. `encode_errors` explains why a value cannot be encoded. `native` reads and
writes rows with msgspec. `columns` converts the dates and objects in them for it, and `schemas` restores them. Nothing
here knows keys or servers.
"""

from collections.abc import Mapping, Sequence
from threading import local
from typing import Any

import msgpack

from runic_redis.codec.compression import MAX_PAYLOAD_BYTES, payload_size
from runic_redis.codec.entry_decoder import EntryDecoder, Multiplied, event_count, expanded, stand_in_event, type_names
from runic_redis.codec.entry_encoder import EncodedEvents, Entry, EntryEncoder
from runic_redis.codec.facts import (
    DIGEST_BYTES,
    HEAD_BYTES,
    EncodedState,
    FactEncoder,
    StateEncoder,
    fact_matches,
    pack_refs,
    unpack_refs,
    verified_bytes,
)
from runic_redis.codec.limits import MAX_COMMIT_BYTES, MAX_METADATA_BYTES
from runic_redis.codec.value_encoder import ValueEncoder
from runic_redis.errors import DecodeError, reason
from runic_redis.events import EventRegistry, UnknownEvents

__all__ = [
    "DIGEST_BYTES",
    "HEAD_BYTES",
    "MAX_COMMIT_BYTES",
    "MAX_METADATA_BYTES",
    "Codec",
    "EncodedEvents",
    "EncodedState",
    "Entry",
    "Multiplied",
    "event_count",
    "expanded",
    "fact_matches",
    "pack_refs",
    "payload_size",
    "unpack_refs",
]


class _Encoders(local):
    """A set of encoders for each thread, because encoders reuse their buffers."""

    def __init__(self, registry: EventRegistry) -> None:
        self.entries = EntryEncoder(registry)
        self.facts = FactEncoder(registry)
        self.values = ValueEncoder(registry)
        self.states = StateEncoder(registry)


class Codec:
    """The encoders and decoders of a store, for one registry of event types.

    Args:
        registry: the event types.
        unknown_events: how to read events of other types: "raise" or "wrap".
    """

    def __init__(self, registry: EventRegistry, unknown_events: UnknownEvents) -> None:
        self.registry = registry
        self._encoders = _Encoders(registry)
        self._decoder = EntryDecoder(registry, unknown_events)
        self._strict_decoder = EntryDecoder(registry, "raise")

    def encode_commit(self, events: Sequence[Any], facts: dict[str, bytes] | None = None) -> list[Entry]:
        """Return the entries of a commit, one or several if it is large, and add its facts to `facts`."""
        return self._encoders.entries.encode_commit(events, {} if facts is None else facts)

    def encode_events(self, events: Sequence[Any]) -> EncodedEvents:
        """Return the events of a commit, encoded ahead of their `append`."""
        facts: dict[str, bytes] = {}
        return EncodedEvents(events, self.encode_commit(events, facts) if events else [], facts)

    def encode_metadata(self, metadata: Mapping[str, Any]) -> bytes:
        """Return a commit's metadata, encoded."""
        return self._encoders.values.encode(metadata, "metadata")

    def encode_state(self, state: Any) -> EncodedState:
        """Return a session's state as the data of a snapshot."""
        return self._encoders.states.encode_state(state)

    def decode_state(self, data: bytes) -> Any:
        """Return a session's state from the data of a snapshot."""
        return self._decoder.decode_document(data)

    def decode_state_strictly(self, data: bytes) -> Any:
        """Return a session's state, and raise `UnknownEventType` if it holds an object of an unknown type."""
        return self._strict_decoder.decode_document(data)

    def encode_log(self, log: Sequence[Any], facts: dict[str, bytes] | None = None) -> bytes:
        """Return a whole list of events, encoded, and add its facts to `facts`."""
        return self._encoders.entries.encode_log(log, {} if facts is None else facts)

    def encode_fact(self, fact_hash: bytes, value: Any) -> bytes:
        """Return a fact to store under the caller's hash."""
        return self._encoders.facts.encode(fact_hash, value)

    def encode_own_fact(self, value: Any) -> tuple[str, bytes]:
        """Return a value's content hash, and the fact to store under it."""
        return self._encoders.facts.encode_own(value)

    def own_hash(self, value: Any) -> str:
        """Return a value's content hash."""
        return self._encoders.facts.own_hash(value)

    def decode_entry(self, header: bytes, payload: bytes) -> list[Any]:
        """Return the events of one entry, an item for each stored event; `Multiplied` if some are read as several."""
        return self._decoder.decode(header, payload)

    def type_names(self, header: bytes) -> frozenset[str]:
        """Return the names of the types that an entry's header has schemas for; "dict" for plain dicts."""
        return type_names(header)

    def stand_in_event(self, header: bytes) -> Any:
        """Return an event without fields, of the first type that an entry's header names."""
        return stand_in_event(header)

    def decode_metadata(self, data: bytes) -> dict[str, Any]:
        """Return a commit's metadata, decoded.

        Raises:
            DecodeError: the metadata is damaged.
        """
        if len(data) > MAX_METADATA_BYTES:
            raise DecodeError(
                f"a commit's metadata takes {len(data)} bytes, more than the {MAX_METADATA_BYTES} allowed"
            )
        metadata = self._decoder.decode_document(data)
        if type(metadata) is not dict:
            raise DecodeError("a commit's metadata is not a map")
        return metadata

    def decode_log(self, data: bytes) -> list[Any]:
        """Return the events of a log, stored as MessagePack ``[header, payload]``.

        Raises:
            DecodeError: the log is damaged.
            UnknownEventType: the log holds an event of an unregistered type.
        """
        try:
            header, payload = msgpack.unpackb(data)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise DecodeError(f"a log is damaged: {reason(error)}") from error
        if type(header) is not bytes or type(payload) is not bytes:
            raise DecodeError("a log does not hold a header and a payload")
        return expanded(self._decoder.decode(header, payload, MAX_PAYLOAD_BYTES))

    def decode_fact(self, fact_hash: bytes, data: bytes) -> Any:
        """Return a fact's value, verified against its hash.

        Raises:
            DecodeError: the fact is damaged, or belongs to another hash.
            UnknownEventType: the value holds an object of an unregistered type.
        """
        return self._decoder.decode_document(verified_bytes(fact_hash, data))
