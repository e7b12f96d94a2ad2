"""Encoding facts, which are kept once under their hash, and states, which refer to them."""

from hashlib import sha256
from typing import Any

from runic_redis.arguments import check_size
from runic_redis.codec.compression import compress
from runic_redis.codec.values import ValueEncoder
from runic_redis.errors import InvalidArgument
from runic_redis.events import Fact, FactRef, Registry, checked_ref

__all__ = ["DIGEST_BYTES", "OWN_HASH_PREFIX", "FactEncoder", "StateEncoder", "digest"]

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
        return digest(fact_hash, canonical) + compress(canonical)

    def encode_own(self, value: Any) -> tuple[str, bytes]:
        """A fact's content hash, and the fact to be kept under it.

        Raises:
            EncodeError: some part of the value cannot be kept.
        """
        canonical = self._canonical(value)
        fact_hash = _own_hash(canonical)
        return fact_hash, digest(fact_hash.encode(), canonical) + compress(canonical)

    def _canonical(self, value: Any) -> bytes:
        canonical = self._values.encode(value, "value")
        check_size(len(canonical), "A fact")
        return canonical


class StateEncoder(ValueEncoder):
    """Encodes states, which may hold the facts of the events that they were made from: each as a reference."""

    holds_facts = True

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self._facts = FactEncoder(registry)

    def refer(self, value: Fact | FactRef) -> FactRef:
        """The reference. The value is kept with the event that brought it."""
        return checked_ref(value) if isinstance(value, FactRef) else FactRef(self._facts.encode_own(value.value)[0])


def _own_hash(canonical: bytes) -> str:
    return OWN_HASH_PREFIX + sha256(canonical).hexdigest()


def digest(fact_hash: bytes, canonical: bytes) -> bytes:
    """What stands before a fact, to be compared when it is read."""
    return sha256(sha256(fact_hash).digest() + canonical).digest()[:DIGEST_BYTES]
