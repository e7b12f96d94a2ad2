"""The events that hold the checkpoints of a thread, their writes, and their tags.

A thread is a workflow. This module does not need LangGraph, so a tool can read a thread without it.

- A serialized value is a list of a type and bytes, as the serializer has returned them.
- A channel is a list of pieces. A piece is a list ``[items, type, size, data]``. `items` is the number of list items in
  it: the value of the channel is then a list, and its pieces follow each other. It is -1 if the piece is the whole
  value. `size` is the number of bytes. `data` is the bytes, or the index of a reference in the event's `facts`.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from runic_redis.events import EventRegistry, FactRef, event

# The number of items in a piece that is a whole value.
WHOLE = -1
# A namespace of checkpoints is part of tags, unless it is longer, or could be mistaken.
_LONGEST_NS = 80
_LONGEST_RUN_ID = 120
# The start of the hash that takes the place of such a text.
_HASHED = "#"

Data = list[Any]


@event("langgraph.checkpoint")
@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint, as `put` stores it.

    Attributes:
        id: its id.
        ns: its namespace, "" for the graph itself.
        parent: the id of the checkpoint before it, or None.
        step: the step of its metadata, if it is an int.
        source: the source of its metadata, if it is a text: "input", "loop", "update" or "fork".
        run_id: the run of its metadata, if there is one.
        versions: the version of each channel.
        changed: the channels that have a new version.
        channels: the value of each channel, as pieces.
        facts: the facts of the pieces.
        rest: the other parts of the checkpoint, and its metadata: a serialized list of the two.
    """

    id: str
    ns: str
    parent: str | None
    step: int | None
    source: str | None
    run_id: str | None
    versions: dict[str, Any]
    changed: list[str]
    channels: dict[str, list[Data]]
    facts: list[FactRef]
    rest: Data


@event("langgraph.writes")
@dataclass(frozen=True, slots=True)
class SavedWrites:
    """Writes of a task to a checkpoint, as `put_writes` stores them.

    Attributes:
        id: the id of the checkpoint.
        ns: the namespace of the checkpoint.
        task_id: the task.
        task_path: the path of the task.
        writes: lists ``[index, channel, type, data]``: `data` is the bytes, or the index of a reference in `facts`.
        facts: the facts of the writes that are large.
    """

    id: str
    ns: str
    task_id: str
    task_path: str
    writes: list[Data]
    facts: list[FactRef]


@event("langgraph.history")
@dataclass(frozen=True, slots=True)
class SavedHistory:
    """What pruned checkpoints have contributed to the delta channels of a checkpoint that was kept.

    Attributes:
        id: the id of the checkpoint that was kept.
        ns: its namespace.
        seeds: for each channel that has one, the last stored value, as pieces.
        writes: for each channel, the writes since then: lists ``[task id, type, data]``, as in `SavedWrites`.
        facts: the facts of the pieces and of the writes that are large.
    """

    id: str
    ns: str
    seeds: dict[str, list[Data]]
    writes: dict[str, list[Data]]
    facts: list[FactRef]


SavedEvent = SavedCheckpoint | SavedWrites | SavedHistory


def register_in(registry: EventRegistry) -> None:
    """Register the events in the registry of a store, if it does not know them."""
    for name, kind in (
        ("langgraph.checkpoint", SavedCheckpoint),
        ("langgraph.writes", SavedWrites),
        ("langgraph.history", SavedHistory),
    ):
        if registry.of(kind) is None:
            registry.event(name)(kind)


def checkpoints_prefix(ns: str | None) -> str:
    """Return the beginning of the tags of a namespace's checkpoints; of all checkpoints for None."""
    return "c/" if ns is None else f"c/{_ns_part(ns)}/"


def checkpoint_tag(ns: str, checkpoint_id: str) -> str:
    """Return the tag of a checkpoint."""
    return f"c/{_ns_part(ns)}/{checkpoint_id}"


def writes_tag(ns: str, checkpoint_id: str) -> str:
    """Return the tag of the writes to a checkpoint."""
    return f"w/{_ns_part(ns)}/{checkpoint_id}"


def history_tag(ns: str, checkpoint_id: str) -> str:
    """Return the tag of the history of a checkpoint's delta channels."""
    return f"h/{_ns_part(ns)}/{checkpoint_id}"


def run_tag(run_id: str) -> str:
    """Return the tag of a run's checkpoints."""
    fits = len(run_id.encode(errors="replace")) <= _LONGEST_RUN_ID and "\0" not in run_id
    return f"r/{run_id if fits and not run_id.startswith(_HASHED) else _hashed(run_id)}"


def tags_of(saved: SavedEvent) -> list[str]:
    """Return the tags of an event."""
    if isinstance(saved, SavedWrites):
        return [writes_tag(saved.ns, saved.id)]
    if isinstance(saved, SavedHistory):
        return [history_tag(saved.ns, saved.id)]
    tag = checkpoint_tag(saved.ns, saved.id)
    return [tag] if saved.run_id is None else [tag, run_tag(saved.run_id)]


def _ns_part(ns: str) -> str:
    """Return what stands for a namespace in tags. The slash after it ends it."""
    if not ns:
        return ns
    fits = len(ns.encode(errors="replace")) <= _LONGEST_NS and "/" not in ns and "\0" not in ns
    return ns if fits and not ns.startswith(_HASHED) else _hashed(ns)


def _hashed(text: str) -> str:
    return _HASHED + sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
