"""What is kept whole: facts, metadata and logs."""

from hashlib import sha256
from typing import Any

import msgpack

from runic_redis.arguments import check_size
from runic_redis.codec.commits import EntryDecoder
from runic_redis.codec.compression import MAX_PAYLOAD_BYTES, compress, decompress
from runic_redis.codec.values import ValueEncoder, decode_value
from runic_redis.errors import DecodeError, InvalidArgument
from runic_redis.events import Registry

__all__ = ["DIGEST_BYTES", "OWN_HASH_PREFIX", "FactEncoder", "decode_fact", "decode_log", "decode_metadata"]

# A fact is kept behind this much of a SHA-256 of its hash and its canonical bytes: enough to notice damage, a
# fact under another's hash, or two values under one hash.
DIGEST_BYTES = 16
# What put_fact's hashes start with. The rest is the hex SHA-256 of the value's canonical bytes.
OWN_HASH_PREFIX = "sha256:"


class FactEncoder:
    """Encodes facts in canonical form; not for two threads at once."""

    def __init__(self, registry: Registry) -> None:
        self._values = ValueEncoder(registry, canonical=True)

    def encode(self, fact_hash: bytes, value: Any) -> bytes:
        """A fact to be kept under the caller's hash.

        Raises:
            EncodeError: some part of the value cannot be kept.
            InvalidArgument: the hash is of put_fact's form and not that of the value.
        """
        canonical = self._canonical(value)
        if fact_hash.startswith(OWN_HASH_PREFIX.encode()) and fact_hash != _own_hash(canonical).encode():
            raise InvalidArgument(
                f"The fact hash {fact_hash.decode(errors='replace')!r} is not that of the value, which is "
                f"{_own_hash(canonical)!r}: use put_fact, or a hash of another form; nothing was sent."
            )
        return _digest(fact_hash, canonical) + compress(canonical)

    def encode_own(self, value: Any) -> tuple[str, bytes]:
        """A fact's content hash, and the fact to be kept under it.

        Raises:
            EncodeError: some part of the value cannot be kept.
        """
        canonical = self._canonical(value)
        fact_hash = _own_hash(canonical)
        return fact_hash, _digest(fact_hash.encode(), canonical) + compress(canonical)

    def _canonical(self, value: Any) -> bytes:
        canonical = self._values.encode(value, "value")
        check_size(len(canonical), "A fact")
        return canonical


def _own_hash(canonical: bytes) -> str:
    return OWN_HASH_PREFIX + sha256(canonical).hexdigest()


def _digest(fact_hash: bytes, canonical: bytes) -> bytes:
    return sha256(sha256(fact_hash).digest() + canonical).digest()[:DIGEST_BYTES]


def decode_fact(fact_hash: bytes, data: bytes, decoder: EntryDecoder) -> Any:
    """A fact's value, checked against its hash.

    Raises:
        DecodeError: it is damaged, or not what the hash stands for.
        UnknownEventType: it holds an object of an unregistered type.
    """
    canonical = decompress(data[DIGEST_BYTES:])
    if _digest(fact_hash, canonical) != data[:DIGEST_BYTES]:
        raise DecodeError("a fact does not match its hash")
    return decode_value(canonical, lambda reference: decoder.find_builder({}, reference))


def decode_metadata(data: bytes, decoder: EntryDecoder) -> dict[str, Any]:
    """A commit's metadata.

    Raises:
        DecodeError: it is damaged.
    """
    metadata = decode_value(data, lambda reference: decoder.find_builder({}, reference))
    if type(metadata) is not dict:
        raise DecodeError("a commit's metadata is not a map")
    return metadata


def decode_log(data: bytes, decoder: EntryDecoder) -> list[Any]:
    """A whole list of events, out of MessagePack ``[header, payload]``.

    Raises:
        DecodeError: it is damaged.
        UnknownEventType: it holds an event of an unregistered type.
    """
    try:
        header, payload = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise DecodeError(f"a log is damaged: {error or type(error).__name__}") from error
    if type(header) is not bytes or type(payload) is not bytes:
        raise DecodeError("a log does not hold a header and a payload")
    return decoder.decode(header, payload, MAX_PAYLOAD_BYTES)
