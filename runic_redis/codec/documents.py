"""Decode values that are stored whole: facts, metadata and logs."""

from typing import Any

import msgpack

from runic_redis.codec.compression import MAX_PAYLOAD_BYTES, decompress
from runic_redis.codec.entry_decoder import EntryDecoder, expanded
from runic_redis.codec.facts import DIGEST_BYTES, HEAD_BYTES, checksum
from runic_redis.codec.value_decoder import decode_value
from runic_redis.errors import DecodeError, reason

MAX_METADATA_BYTES = 64 * 1024


def decode_fact(fact_hash: bytes, data: bytes, decoder: EntryDecoder) -> Any:
    """Return a fact's value, verified against its hash.

    Raises:
        DecodeError: the fact is damaged, or belongs to another hash.
        UnknownEventType: the value holds an object of an unregistered type.
    """
    return decode_document(_verified_bytes(fact_hash, data), decoder)


def fact_matches(fact_hash: bytes, data: bytes) -> bool:
    """Return whether stored data belongs to a fact's hash; the classes in it need not be registered."""
    try:
        _verified_bytes(fact_hash, data)
    except DecodeError:
        return False
    return True


def _verified_bytes(fact_hash: bytes, data: bytes) -> bytes:
    ordered = decompress(data[HEAD_BYTES:])
    if checksum(fact_hash, data[:DIGEST_BYTES], ordered) != data[DIGEST_BYTES:HEAD_BYTES]:
        raise DecodeError("a fact does not match its hash")
    return ordered


def decode_document(data: bytes, decoder: EntryDecoder) -> Any:
    """Return the value of a document, which stands alone.

    Raises:
        DecodeError: the document is damaged.
        UnknownEventType: the value holds an object of an unregistered type.
    """
    return decode_value(data, lambda reference: decoder.find_builder({}, reference))


def decode_metadata(data: bytes, decoder: EntryDecoder) -> dict[str, Any]:
    """Return a commit's metadata.

    Raises:
        DecodeError: the metadata is damaged.
    """
    if len(data) > MAX_METADATA_BYTES:
        raise DecodeError(f"a commit's metadata takes {len(data)} bytes, more than the {MAX_METADATA_BYTES} allowed")
    metadata = decode_document(data, decoder)
    if type(metadata) is not dict:
        raise DecodeError("a commit's metadata is not a map")
    return metadata


def decode_log(data: bytes, decoder: EntryDecoder) -> list[Any]:
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
    return expanded(decoder.decode(header, payload, MAX_PAYLOAD_BYTES))
