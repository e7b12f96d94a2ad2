"""Encoding facts, which are kept once under their hash, and states, which refer to them."""

from hashlib import sha256
from typing import Any

from runic_redis.arguments import check_size
from runic_redis.codec.compression import compress
from runic_redis.codec.values import ValueEncoder
from runic_redis.errors import InvalidArgument
from runic_redis.events import EventRegistry, Fact, FactRef, checked_ref

__all__ = ["DIGEST_BYTES", "HEAD_BYTES", "OWN_HASH_PREFIX", "FactEncoder", "StateEncoder", "checksum"]

# A fact is stored behind two digests, each so much of a SHA-256. The first is of its hash and its canonical bytes,
# which equal values have in common: it shows another value under the same hash. The second is of its hash, the first
# digest and the stored bytes, in which dicts have their order: it shows damage, and a fact under another's hash.
DIGEST_BYTES = 16
HEAD_BYTES = 2 * DIGEST_BYTES
# What put_fact's hashes start with. The rest is the hex SHA-256 of the value's canonical bytes.
OWN_HASH_PREFIX = "sha256:"


class FactEncoder:
    """Encodes facts; not for two threads at once."""

    def __init__(self, registry: EventRegistry) -> None:
        self._values = ValueEncoder(registry)
        self._canonical_values = ValueEncoder(registry, canonical=True)

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
        return self._stored(fact_hash, value, canonical)

    def encode_own(self, value: Any) -> tuple[str, bytes]:
        """A fact's content hash, and the fact to be kept under it.

        Raises:
            EncodeError: some part of the value cannot be kept.
        """
        canonical = self._canonical(value)
        fact_hash = _own_hash(canonical)
        return fact_hash, self._stored(fact_hash.encode(), value, canonical)

    def _canonical(self, value: Any) -> bytes:
        canonical = self._canonical_values.encode(value, "value")
        check_size(len(canonical), "A fact")
        return canonical

    def _stored(self, fact_hash: bytes, value: Any, canonical: bytes) -> bytes:
        ordered = canonical if type(value) in _WITHOUT_ORDER else self._values.encode(value, "value")
        identity = _digest(fact_hash, canonical)
        return identity + checksum(fact_hash, identity, ordered) + compress(ordered)


class StateEncoder(ValueEncoder):
    """Encodes states, which may hold the facts of the events that they were made from: each as a reference."""

    holds_facts = True

    def __init__(self, registry: EventRegistry) -> None:
        super().__init__(registry)
        self._facts = FactEncoder(registry)

    def refer(self, value: Fact | FactRef) -> FactRef:
        """The reference. The value is kept with the event that brought it."""
        return checked_ref(value) if isinstance(value, FactRef) else FactRef(self._facts.encode_own(value.value)[0])


def _own_hash(canonical: bytes) -> str:
    return OWN_HASH_PREFIX + sha256(canonical).hexdigest()


def checksum(fact_hash: bytes, identity: bytes, ordered: bytes) -> bytes:
    """The second digest of a fact, to be compared when it is read."""
    return _digest(fact_hash, identity + ordered)


def _digest(fact_hash: bytes, data: bytes) -> bytes:
    return sha256(sha256(fact_hash).digest() + data).digest()[:DIGEST_BYTES]


# Of these the canonical bytes are the only ones.
_WITHOUT_ORDER = frozenset({type(None), bool, int, float, str, bytes})
