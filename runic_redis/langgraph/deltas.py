"""The history of delta channels: a stored value, and the writes since then, over the ancestors of a checkpoint."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.base import SerializerProtocol

from runic_redis.codec import Codec
from runic_redis.errors import StoreError
from runic_redis.langgraph.records import (
    WHOLE,
    SavedCheckpoint,
    SavedHistory,
    checkpoint_tag,
    checkpoints_prefix,
    history_tag,
    writes_tag,
)
from runic_redis.langgraph.runs import SMALL_BYTES, Piece, load_value, packed_channels, unpacked_channels
from runic_redis.langgraph.threads import Place, Threads, all_of, checkpoint_in, ordered_writes, writes_in
from runic_redis.operations.facts import load_each
from runic_redis.operations.finding import find
from runic_redis.protocol.effects import Operation

if TYPE_CHECKING:  # older versions of LangGraph do not have it
    from langgraph.checkpoint.base import DeltaChannelHistory

# How many checkpoints, or the writes to how many, are read at once.
_PAGE = 128


class History:
    """What the ancestors of a checkpoint have contributed to some channels.

    Attributes:
        seeds: for each channel that has one, the last stored value.
        writes: for each channel, the writes since then, the oldest first: the task, the type, and the bytes or the
            hash of a fact.
    """

    def __init__(self, channels: Iterable[str]) -> None:
        self.seeds: dict[str, Sequence[Piece]] = {}
        self.writes: dict[str, list[tuple[str, str, bytes | str]]] = {name: [] for name in channels}

    def packed(self, saved: SavedCheckpoint, codec: Codec) -> tuple[SavedHistory, dict[str, bytes]]:
        """Return it as the event of a checkpoint, and the facts that may not be stored yet, by their hashes."""
        new: dict[str, bytes] = {}

        def as_piece(kind: str, data: bytes | str) -> Piece:
            # There may be very many writes, and an event has a limit.
            if isinstance(data, bytes) and len(data) > SMALL_BYTES:
                fact_hash, new[fact_hash] = codec.encode_own_fact(data)
                return Piece(WHOLE, kind, len(data), fact_hash)
            return Piece(WHOLE, kind, len(data), data)

        # Both kinds of parts share the facts of the event.
        parts = {f"s{name}": list(pieces) for name, pieces in self.seeds.items()}
        parts |= {
            f"w{name}": [as_piece(kind, data) for _, kind, data in writes] for name, writes in self.writes.items()
        }
        packed, facts = packed_channels(parts)
        writes = {
            name: [[task, kind, data] for (task, *_), (_, kind, _, data) in zip(its, packed[f"w{name}"], strict=True)]
            for name, its in self.writes.items()
        }
        seeds = {name: packed[f"s{name}"] for name in self.seeds}
        return SavedHistory(saved.id, saved.ns, seeds, writes, facts), new

    def take(self, saved: SavedHistory, channels: Iterable[str]) -> None:
        """Add the stored history of some channels."""
        seeds = unpacked_channels(saved.seeds, saved.facts)
        for name in channels:
            if name in seeds:
                self.seeds[name] = seeds[name]
            self.writes[name] += [
                (task, kind, data if type(data) is bytes else saved.facts[data].hash)
                for task, kind, data in saved.writes.get(name, ())
            ]

    def hashes(self) -> set[str]:
        """Return the hashes of its facts."""
        data = [piece.data for pieces in self.seeds.values() for piece in pieces]
        data += [data for writes in self.writes.values() for _, _, data in writes]
        return {one for one in data if isinstance(one, str)}


class _Chain:
    """Reads the ancestors of a checkpoint, many at once."""

    def __init__(self, threads: Threads, place: Place) -> None:
        self._threads = threads
        self._place = place
        self._read: dict[str, SavedCheckpoint] = {}
        # The lowest id that was read; None once all are.
        self._lowest: str | None = None

    def start(self, saved: SavedCheckpoint) -> None:
        """Start at a checkpoint."""
        self._lowest = saved.id

    def parent_of(self, saved: SavedCheckpoint) -> Operation[SavedCheckpoint | None]:
        """Return the parent of a checkpoint; None if it has none, or that was pruned."""
        context, place, wanted = self._threads.context, self._place, saved.parent
        if wanted is None:
            return None
        while wanted not in self._read and self._lowest is not None and wanted < self._lowest:
            below = checkpoint_tag(place.ns, self._lowest)
            prefix = checkpoints_prefix(place.ns)
            found = yield from find(context, place.thread, prefix=prefix, below=below, reverse=True, limit=_PAGE)
            for commit in found:
                one = checkpoint_in(commit)
                if one is not None:
                    self._read.setdefault(one.id, one)
                    self._lowest = one.id
            if len(found) < _PAGE:
                self._lowest = None
        if wanted not in self._read:
            # Ids of other makers may not rise from parent to child.
            found = yield from find(context, place.thread, tag=checkpoint_tag(place.ns, wanted))
            one = checkpoint_in(found[-1]) if found else None
            if one is None:
                return None
            self._read[wanted] = one
        return self._read[wanted]


def read_history(threads: Threads, place: Place, saved: SavedCheckpoint, channels: Sequence[str]) -> Operation[History]:
    """Return what the ancestors of a checkpoint have contributed to channels.

    The walk ends for each channel at the nearest ancestor that has stored its value. Writes to the checkpoint itself
    are left out: they are for the step after it.
    """
    history = History(channels)
    chain = _Chain(threads, place)
    chain.start(saved)
    remaining = list(history.writes)
    # The ancestors, each with the channels to which its writes count.
    path: list[tuple[SavedCheckpoint, frozenset[str]]] = []
    last = saved
    while remaining:
        parent = yield from chain.parent_of(last)
        if parent is None:
            break
        path.append((parent, frozenset(remaining)))
        found = [name for name in remaining if name in parent.channels]
        values = unpacked_channels({name: parent.channels[name] for name in found}, parent.facts)
        history.seeds.update(values)
        remaining = [name for name in remaining if name not in values]
        last = parent
    if remaining and last.parent is not None:
        # What came before was pruned.
        kept = yield from find(threads.context, place.thread, tag=history_tag(place.ns, last.id))
        for event in kept[-1].events if kept else ():
            if type(event) is SavedHistory and event.id == last.id and event.ns == last.ns:
                history.take(event, remaining)
    yield from _read_writes(threads, place, path, history)
    return history


def _read_writes(
    threads: Threads, place: Place, path: Sequence[tuple[SavedCheckpoint, frozenset[str]]], history: History
) -> Operation[None]:
    """Add the writes to ancestors, the oldest first."""
    path = path[::-1]
    for at in range(0, len(path), _PAGE):
        part = path[at : at + _PAGE]
        tags = [writes_tag(one.ns, one.id) for one, _ in part]
        commits = yield from all_of([find(threads.context, place.thread, tag=tag) for tag in tags])
        for (one, channels), found in zip(part, commits, strict=True):
            for task, channel, kind, data in ordered_writes(writes_in(found, one)):
                if channel in channels:
                    history.writes[channel].append((task, kind, data))


def delta_history(
    threads: Threads, serde: SerializerProtocol, config: RunnableConfig, channels: Sequence[str]
) -> "Operation[Mapping[str, DeltaChannelHistory]]":
    """Return the history of channels up to the checkpoint that a config names."""
    place = Place.of(config)
    if not channels:
        return {}
    saved = yield from threads.find(place)
    history = History(channels) if saved is None else (yield from read_history(threads, place, saved, channels))
    hashes = history.hashes()
    facts: dict[str, Any] = (yield from load_each(threads.context, hashes)) if hashes else {}
    for value in facts.values():
        if isinstance(value, StoreError):
            raise value
    result: dict[str, DeltaChannelHistory] = {}
    for name in channels:
        result[name] = {
            "writes": [
                (task, name, serde.loads_typed((kind, data if isinstance(data, bytes) else facts[data])))
                for task, kind, data in history.writes[name]
            ]
        }
        if name in history.seeds:
            result[name]["seed"] = load_value(history.seeds[name], serde.loads_typed, facts)
    return result
