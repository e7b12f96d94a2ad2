"""Encode and verify facts, which are stored once under their hash; encode states, which refer to facts."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Self

from runic_redis.arguments import MAX_HASH_BYTES, check_size
from runic_redis.codec.compression import compress, decompress
from runic_redis.codec.value_encoder import ValueEncoder
from runic_redis.errors import DecodeError, InvalidArgument
from runic_redis.events import EventRegistry, Fact, FactRef
from runic_redis.events.references import checked_ref

# Two digests precede a stored fact, each the first bytes of a SHA-256. The first covers its hash and its canonical
# bytes, which equal values share: it detects another value under the same hash. The second covers its hash, the first
# digest and the stored bytes, in which dicts keep their order: it detects damage, and a fact under another hash.
DIGEST_BYTES = 16
HEAD_BYTES = 2 * DIGEST_BYTES
# The start of the hashes that put_fact returns. The rest is the hex SHA-256 of the value's canonical bytes.
OWN_HASH_PREFIX = "sha256:"


class FactEncoder:
    """An encoder of facts. Only one thread may use it at a time."""

    def __init__(self, registry: EventRegistry) -> None:
        self._values = ValueEncoder(registry)
        self._canonical_values = ValueEncoder(registry, canonical=True)

    def encode(self, fact_hash: bytes, value: Any) -> bytes:
        """Return a fact to store under the caller's hash.

        Raises:
            EncodeError: a part of the value cannot be stored.
            InvalidArgument: the hash has the form of put_fact's hashes and is not that of the value.
        """
        canonical = self._canonical(value)
        if fact_hash.startswith(OWN_HASH_PREFIX.encode()) and fact_hash != _own_hash(canonical).encode():
            raise InvalidArgument(
                f"The fact hash {fact_hash.decode(errors='replace')!r} is not that of the value, which is "
                f"{_own_hash(canonical)!r}: use put_fact, or a hash of another form; nothing was sent."
            )
        return self._stored(fact_hash, value, canonical)

    def encode_own(self, value: Any) -> tuple[str, bytes]:
        """Return a value's content hash, and the fact to store under it.

        Raises:
            EncodeError: a part of the value cannot be stored.
        """
        canonical = self._canonical(value)
        fact_hash = _own_hash(canonical)
        return fact_hash, self._stored(fact_hash.encode(), value, canonical)

    def own_hash(self, value: Any) -> str:
        """Return a value's content hash.

        Raises:
            EncodeError: a part of the value cannot be stored.
        """
        return _own_hash(self._canonical(value))

    def _canonical(self, value: Any) -> bytes:
        canonical = self._canonical_values.encode(value, "value")
        check_size(len(canonical), "A fact")
        return canonical

    def _stored(self, fact_hash: bytes, value: Any, canonical: bytes) -> bytes:
        ordered = canonical if type(value) in _WITHOUT_ORDER else self._values.encode(value, "value")
        identity = _digest(fact_hash, canonical)
        return identity + checksum(fact_hash, identity, ordered) + compress(ordered)


class EncodedState(bytes):
    """The data of a snapshot, which tells the facts that its state refers to: a store keeps them with the snapshot.

    `encode_state` returns one. Return `EncodedState(data, refs)` from your own `dumps` if it compresses or encrypts the
    state; `refs` are the hashes of the facts.

    Attributes:
        refs: the hashes of the facts.
    """

    refs: tuple[str, ...]

    def __new__(cls, data: bytes, refs: Iterable[str]) -> Self:
        """Return the data, with the hashes."""
        self = super().__new__(cls, data)
        self.refs = tuple(refs)
        return self


class StateEncoder(ValueEncoder):
    """An encoder of states. A fact that a state took from an event becomes a reference."""

    holds_facts = True

    def __init__(self, registry: EventRegistry) -> None:
        super().__init__(registry)
        self._facts = FactEncoder(registry)
        # The hashes of the facts in the present state, in their order.
        self._found: dict[str, None] = {}

    def encode_state(self, state: Any) -> EncodedState:
        """Return a state as the data of a snapshot.

        Raises:
            EncodeError: a part of it cannot be stored.
        """
        self._found = {}
        return EncodedState(self.encode(state, "state"), self._found)

    def fact_reference(self, value: Fact | FactRef) -> FactRef:
        """Return the reference only: the fact is stored with the event that brought it."""
        ref = checked_ref(value) if isinstance(value, FactRef) else FactRef(self._facts.encode_own(value.value)[0])
        self._found[ref.hash] = None
        return ref


def pack_refs(hashes: Iterable[bytes]) -> bytes:
    """Return the hashes of facts as a snapshot stores them: each after its length in two bytes."""
    return b"".join(len(fact_hash).to_bytes(2, "big") + fact_hash for fact_hash in hashes)


def unpack_refs(packed: bytes) -> list[bytes]:
    """Return the hashes of facts that a snapshot stores.

    Raises:
        DecodeError: they are damaged.
    """
    hashes = []
    at = 0
    while at < len(packed):
        size = int.from_bytes(packed[at : at + 2], "big")
        at += 2 + size
        if at > len(packed) or not 0 < size <= MAX_HASH_BYTES:
            raise DecodeError("a snapshot's references to facts are damaged")
        hashes.append(packed[at - size : at])
    return hashes


def _own_hash(canonical: bytes) -> str:
    return OWN_HASH_PREFIX + sha256(canonical).hexdigest()


def fact_matches(fact_hash: bytes, data: bytes) -> bool:
    """Return whether stored data belongs to a fact's hash; the classes in it need not be registered."""
    try:
        verified_bytes(fact_hash, data)
    except DecodeError:
        return False
    return True


def verified_bytes(fact_hash: bytes, data: bytes) -> bytes:
    """Return the encoded value of a stored fact.

    Raises:
        DecodeError: the fact is damaged, or belongs to another hash.
    """
    ordered = decompress(data[HEAD_BYTES:])
    if checksum(fact_hash, data[:DIGEST_BYTES], ordered) != data[DIGEST_BYTES:HEAD_BYTES]:
        raise DecodeError("a fact does not match its hash")
    return ordered


def checksum(fact_hash: bytes, identity: bytes, ordered: bytes) -> bytes:
    """Return the second digest of a fact, which readers compare."""
    return _digest(fact_hash, identity + ordered)


def _digest(fact_hash: bytes, data: bytes) -> bytes:
    return sha256(sha256(fact_hash).digest() + data).digest()[:DIGEST_BYTES]


# For these types, the stored bytes are the canonical bytes.
_WITHOUT_ORDER = frozenset({type(None), bool, int, float, str, bytes})
