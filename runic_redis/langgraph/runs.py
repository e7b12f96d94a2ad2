"""Cutting the values of channels into pieces.

A list is cut into runs of items, which are serialized separately. A list that grows at its end keeps its first runs, so
each step stores only the last one again. All other values are one piece.

Large pieces are facts, stored once. A piece of medium size is in the event of the checkpoint, which costs less. If the
next checkpoint has it too, it becomes a fact. So a value that changes at each step is no fact, and one that stays is
stored twice at most.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from runic_redis.codec import Codec
from runic_redis.events import FactRef
from runic_redis.langgraph.records import WHOLE, Data

# A smaller piece is never a fact.
SMALL_BYTES = 512
# A larger piece is always a fact. A run of so many bytes is closed: later items go to the next one.
_CLOSED_BYTES = 8 * 1024
# Closed runs that follow each other become one, once they have so many bytes together.
_MERGED_BYTES = 64 * 1024
# A larger run is cut, or not kept together, unless it is one item.
_MOST_BYTES = 256 * 1024


class Piece(NamedTuple):
    """A piece of a channel's value.

    Attributes:
        items: how many items of a list it holds; `WHOLE` for a value that is not cut.
        type: its type, from the serializer.
        size: its bytes.
        data: the bytes, or the hash of the fact that holds them.
        digest: for an encrypted piece of this process, a digest of what was encrypted.
    """

    items: int
    type: str
    size: int
    data: bytes | str
    digest: bytes | None = None


class Cutter:
    """Cuts the values of one checkpoint into pieces.

    Args:
        serde: the serializer.
        codec: the store's.
        known: pieces of the last checkpoint, whose facts are stored.
    """

    def __init__(self, serde: SerializerProtocol, codec: Codec, known: Sequence[Sequence[Piece]]) -> None:
        self._codec = codec
        self._dump: Callable[[Any], tuple[str, bytes]] = serde.dumps_typed
        self._encrypt: Callable[[bytes], tuple[str, bytes]] | None = None
        # The known pieces that are not small: the facts, the bytes, and what was encrypted.
        not_small = [piece for pieces in known for piece in pieces if piece.size > SMALL_BYTES]
        self._known = {piece.data for piece in not_small}
        self._encrypted: dict[bytes, Piece] = {}
        if type(serde) is EncryptedSerializer:
            # Each encryption gives other bytes. So compare what is encrypted, to store it once.
            self._dump, self._encrypt = serde.serde.dumps_typed, serde.cipher.encrypt
            self._encrypted = {piece.digest: piece for piece in not_small if piece.digest is not None}
        self._new: dict[str, bytes] = {}

    def cut(self, value: Any, before: Sequence[Piece]) -> list[Piece]:
        """Return the pieces of a value.

        Args:
            value: the value.
            before: the pieces of the channel's value before.
        """
        if type(value) is list and value:
            return self._runs(value, before)
        return [self._piece(value, WHOLE)]

    def keep(self, pieces: Iterable[Piece]) -> list[Piece]:
        """Return the pieces of a value that has not changed."""
        return [self._as_fact(piece) if self._is_medium(piece) else piece for piece in pieces]

    def new_facts(self, pieces: Iterable[Piece]) -> dict[str, bytes]:
        """Return the encoded facts of pieces, by their hashes, without those that are stored."""
        hashes = [piece.data for piece in pieces if isinstance(piece.data, str)]
        return {
            fact_hash: self._codec.encode_own_fact(self._new[fact_hash])[1]
            for fact_hash in hashes
            if fact_hash in self._new
        }

    def _runs(self, items: list[Any], before: Sequence[Piece]) -> list[Piece]:
        pieces: list[Piece] = []
        at = 0
        for count in _counts_to_keep(before):
            if at + count > len(items):
                break
            piece = self._piece(items[at : at + count], count)
            if not _CLOSED_BYTES // 2 <= piece.size <= 2 * _MOST_BYTES:
                break  # it is another list now
            pieces.append(piece)
            at += count
        if at < len(items):
            pieces += self._last_runs(items[at:] if at else items)
        return pieces

    def _last_runs(self, items: list[Any]) -> list[Piece]:
        piece = self._piece(items, len(items))
        if piece.size <= _MOST_BYTES or len(items) == 1:
            return [piece]
        share = max(1, len(items) * _MERGED_BYTES // piece.size)
        parts = [items[at : at + share] for at in range(0, len(items), share)]
        return [self._piece(part, len(part)) for part in parts]

    def _piece(self, value: Any, items: int) -> Piece:
        kind, raw = self._dump(value)
        if type(raw) is not bytes:
            raw = bytes(raw)
        digest = None
        if self._encrypt is not None:
            digest = sha256(kind.encode() + b"\0" + raw).digest()
            same = self._encrypted.get(digest)
            if same is not None:
                return (self._as_fact(same) if self._is_medium(same) else same)._replace(items=items)
            cipher, raw = self._encrypt(raw)
            kind = f"{kind}+{cipher}"
        piece = Piece(items, kind, len(raw), raw, digest)
        is_fact = piece.size >= _CLOSED_BYTES or (piece.size > SMALL_BYTES and raw in self._known)
        return self._as_fact(piece) if is_fact else piece

    @staticmethod
    def _is_medium(piece: Piece) -> bool:
        return piece.size > SMALL_BYTES and isinstance(piece.data, bytes)

    def _as_fact(self, piece: Piece) -> Piece:
        """Return a piece with its bytes as a fact."""
        raw = piece.data
        if isinstance(raw, str):
            return piece
        fact_hash = self._codec.own_hash(raw)
        if fact_hash not in self._known:
            self._new[fact_hash] = raw
        return piece._replace(data=fact_hash)


def _counts_to_keep(before: Sequence[Piece]) -> Iterator[int]:
    """Yield the numbers of items in the runs to keep: those that are closed. Small ones become one, if there are many.

    So a long list has few pieces.
    """
    small: list[int] = []
    size = 0
    for piece in before:
        if piece.items == WHOLE or piece.size < _CLOSED_BYTES:
            break
        if piece.size >= _MERGED_BYTES // 2:
            yield from small
            small, size = [], 0
            yield piece.items
            continue
        small.append(piece.items)
        size += piece.size
        if size >= _MERGED_BYTES:
            yield sum(small)
            small, size = [], 0
    yield from small


def packed_channels(channels: dict[str, list[Piece]]) -> tuple[dict[str, list[Data]], list[FactRef]]:
    """Return the channels as an event holds them, and the event's facts."""
    places: dict[str, int] = {}
    packed = {
        name: [
            [
                items,
                kind,
                size,
                data if type(data) is bytes else places.setdefault(data, len(places)),  # type: ignore[arg-type]
            ]
            for items, kind, size, data, _ in pieces
        ]
        for name, pieces in channels.items()
    }
    return packed, [FactRef(fact_hash) for fact_hash in places]


def unpacked_channels(channels: dict[str, list[Data]], facts: Sequence[FactRef]) -> dict[str, list[Piece]]:
    """Return the channels of an event."""
    return {
        name: [
            Piece(items, kind, size, data if type(data) is bytes else facts[data].hash)
            for items, kind, size, data in pieces
        ]
        for name, pieces in channels.items()
    }


def load_value(pieces: Sequence[Piece], loads: Callable[[tuple[str, bytes]], Any], facts: Mapping[str, Any]) -> Any:
    """Return the value that pieces hold.

    Args:
        pieces: the pieces.
        loads: the serializer's.
        facts: the bytes of each fact by its hash.
    """
    value: list[Any] = []
    for items, kind, _, data, _ in pieces:
        part = loads((kind, data if type(data) is bytes else facts[data]))  # type: ignore[index]
        if items == WHOLE:
            return part
        if len(pieces) == 1:
            return part
        value.extend(part)
    return value
