"""Importing threads from another checkpoint saver: checked, and resumable.

A thread is compared with its source, checkpoint by checkpoint, and what is missing is stored, until one pass over the
thread finds nothing that is missing. So an interrupted import continues where it was, an import that is complete stores
nothing, and checkpoints that are added to the source meanwhile come too. A checkpoint that is stored is never replaced.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple

from runic_redis.events import Fact
from runic_redis.langgraph.opaque import OpaqueSerializer
from runic_redis.langgraph.records import SavedWrites, writes_tag
from runic_redis.langgraph.savers import RunicSaver
from runic_redis.langgraph.sources import Found, Place, Source, Write
from runic_redis.store import RedisStore

_serde = OpaqueSerializer()
# A source that changes all the time is given up after this many passes over a thread.
_PASSES = 5
# Larger values of writes are facts.
_LARGE_BYTES = 1024 * 1024
Typed = tuple[str, bytes]


class ThreadImporter:
    """Imports threads into a store.

    Args:
        store: the store. It must know the events of `runic_redis.langgraph.records`, or nothing of that name.
        source: the threads to import. They are not changed.

    Attributes:
        threads: how many threads had something to import.
        there: how many threads were there already, complete.
        checkpoints: how many checkpoints were imported.
        writes: how many writes were imported.
        problems: a line for each difference that is left, and for each checkpoint that cannot be read.
    """

    def __init__(self, store: RedisStore, source: Source) -> None:
        self._saver = RunicSaver(store, serde=_serde)
        self._source = source
        self.threads = 0
        self.there = 0
        self.checkpoints = 0
        self.writes = 0
        self.problems: list[str] = []

    def take(self, thread: str) -> None:
        """Import a thread, and compare it with its source.

        Raises:
            StoreError: the store rejects it. The same call continues the import.
        """
        stored: set[Any] = set()
        problems: list[str] = []
        for _ in range(_PASSES):
            before, problems = len(stored), []
            versions: dict[Place, Mapping[str, Any]] = {}
            for place in self._source.places(thread):
                try:
                    there = self._source.read(thread, place)
                    if there is not None:
                        versions[place] = there.checkpoint.get("channel_versions") or {}
                        differences = self._take_checkpoint(thread, place, there, versions, stored)
                        problems += [_difference_text(thread, place, differences)] if differences else []
                except ValueError as error:
                    problems.append(
                        f"The checkpoint {place.id} of {_named(thread, place.ns)} was not imported: {error}."
                    )
            if len(stored) == before:
                break
        else:
            problems.append(f"The source of {_named(thread)} changes all the time. Stop its writers, and import again.")
        self.problems += problems
        self.threads += bool(stored)
        self.there += not stored and not problems

    def _take_checkpoint(
        self,
        thread: str,
        place: Place,
        there: Found,
        versions: Mapping[Place, Mapping[str, Any]],
        stored: set[Any],
    ) -> list[str]:
        """Store what is missing of a checkpoint, unless this import has done that before. Return the differences."""
        here = self._saver.get_tuple(_config(thread, place.ns, place.id))
        if here is None:
            if place in stored:
                return ["it is not there"]
            before = versions.get(Place(place.ns, there.parent or ""), {})
            changed = {name: one for name, one in versions[place].items() if before.get(name) != one}
            checkpoint, metadata = cast("Checkpoint", there.checkpoint), cast("CheckpointMetadata", there.metadata)
            self._saver.put(_config(thread, place.ns, there.parent), checkpoint, metadata, changed)
            stored.add(place)
            self.checkpoints += 1
        elif differences := _differences(thread, place, there, here):
            return differences
        missing = _missing(there.writes, here)
        known = {(task_id, channel) for task_id, channel, _ in here.pending_writes or ()} if here else set()
        if any((write.task_id, write.channel) in known or (place, write[:3]) in stored for write in missing):
            return ["its writes"]
        self._store_writes(thread, place, missing)
        stored.update((place, write[:3]) for write in missing)
        return []

    def _store_writes(self, thread: str, place: Place, writes: Iterable[Write]) -> None:
        """Store writes with the indexes that they had, as `put_writes` does, in one commit."""
        tasks: dict[tuple[str, str], list[Write]] = {}
        for write in writes:
            tasks.setdefault((write.task_id, write.task_path), []).append(write)
            self.writes += 1
        events = []
        for (task_id, task_path), rows in tasks.items():
            large: list[Any] = []
            data = []
            for row in rows:
                kind, raw = _serde.dumps_typed(row.value)
                if len(raw) > _LARGE_BYTES:
                    large.append(Fact(raw))
                data.append([row.idx, row.channel, kind, raw if len(raw) <= _LARGE_BYTES else len(large) - 1])
            events.append(SavedWrites(place.id, place.ns, task_id, task_path, data, large))
        if events:
            self._saver.store.append(thread, events, tags=[writes_tag(place.ns, place.id)])


def _config(thread: str, ns: str, checkpoint_id: str | None) -> RunnableConfig:
    configurable = {"thread_id": thread, "checkpoint_ns": ns}
    return {"configurable": configurable if checkpoint_id is None else {**configurable, "checkpoint_id": checkpoint_id}}


def _difference_text(thread: str, place: Place, differences: list[str]) -> str:
    return (
        f"The checkpoint {place.id} of {_named(thread, place.ns)} differs from its source: {', '.join(differences)}. "
        f"It was left as it is. To import the thread again, delete it first: runic-redis delete {thread}"
    )


def _named(thread: str, ns: str = "") -> str:
    return f"the thread {thread!r}, namespace {ns!r}" if ns else f"the thread {thread!r}"


def _differences(thread: str, place: Place, there: Found, here: CheckpointTuple) -> list[str]:
    """Return in which parts a checkpoint differs from its source, its writes apart."""
    parent = None if there.parent is None else _config(thread, place.ns, there.parent)
    checkpoint = cast("Mapping[str, Any]", here.checkpoint)
    compared = {
        "its config": (_config(thread, place.ns, place.id), here.config),
        "its parent": (parent, here.parent_config),
        "its metadata": (_typed(there.metadata), _typed(here.metadata)),
        "its values": (_typed(there.checkpoint["channel_values"]), _typed(checkpoint["channel_values"])),
        "itself": (_typed(_rest(there.checkpoint)), _typed(_rest(checkpoint))),
    }
    return [name for name, (one, other) in compared.items() if one != other]


def _rest(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in checkpoint.items() if name != "channel_values"}


def _typed(parts: Mapping[str, Any]) -> dict[str, Typed]:
    """Return each part serialized, as two values may be equal and differ in their types."""
    return {name: _serde.dumps_typed(value) for name, value in parts.items()}


def _missing(writes: list[Write], here: CheckpointTuple | None) -> list[Write]:
    """Return the writes that a checkpoint lacks. It may have others: a graph may have gone on from it."""
    pending = () if here is None else here.pending_writes or ()
    left = [(task_id, channel, _serde.dumps_typed(value)) for task_id, channel, value in pending]
    missing = []
    for write in writes:
        wanted = write.task_id, write.channel, _serde.dumps_typed(write.value)
        if wanted in left:
            # Those before it are no longer expected: the order counts.
            del left[: left.index(wanted) + 1]
        else:
            missing.append(write)
    return missing
