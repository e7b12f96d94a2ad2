"""The checkpoints of threads: how they are stored and read. A thread is a workflow.

These are operations, which both savers run.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from runic_redis.codec import EncodedEvents
from runic_redis.context import Context
from runic_redis.errors import FactNotFound, StoreError
from runic_redis.events import FactRef
from runic_redis.langgraph.records import (
    Data,
    SavedCheckpoint,
    SavedEvent,
    SavedWrites,
    checkpoint_tag,
    checkpoints_prefix,
    tags_of,
    writes_tag,
)
from runic_redis.langgraph.runs import SMALL_BYTES, Cutter, Piece, load_value, packed_channels, unpacked_channels
from runic_redis.operations.appending import append
from runic_redis.operations.facts import load_each
from runic_redis.operations.finding import TaggedCommit, find
from runic_redis.operations.life import Life
from runic_redis.operations.reading_many import run_together
from runic_redis.operations.workflows import delete
from runic_redis.protocol.effects import Operation

# Larger values of writes are facts, and so are all after so many bytes. An event has a limit of 16 MiB.
_LARGE_WRITE_BYTES = 1024 * 1024
_MOST_WRITE_BYTES = 8 * 1024 * 1024
# How many namespaces of threads have their last pieces remembered.
_MOST_KNOWN = 512
# How often a checkpoint is read again whose facts are gone: it was pruned in between.
_READS = 3


class Place(NamedTuple):
    """A place that a config names.

    Attributes:
        given_id: the thread's id, as it was given.
        thread: the same as a text: the id of the workflow.
        ns: the namespace of checkpoints.
        checkpoint_id: the checkpoint, or None.
    """

    given_id: Any
    thread: str
    ns: str
    checkpoint_id: str | None

    @classmethod
    def of(cls, config: RunnableConfig) -> "Place":
        """Return the place of a config."""
        configurable = config["configurable"]
        given_id = configurable["thread_id"]
        return cls(
            given_id, str(given_id), configurable.get("checkpoint_ns") or "", configurable.get("checkpoint_id") or None
        )

    def config(self, checkpoint_id: str, ns: str | None = None) -> RunnableConfig:
        """Return the config of a checkpoint of this thread."""
        return {
            "configurable": {
                "thread_id": self.given_id,
                "checkpoint_ns": self.ns if ns is None else ns,
                "checkpoint_id": checkpoint_id,
            }
        }


class _Known(NamedTuple):
    """The last checkpoint of a namespace that this process has stored or read."""

    checkpoint_id: str
    versions: Mapping[str, Any]
    channels: Mapping[str, Sequence[Piece]]


class Threads:
    """The threads in a store.

    Args:
        context: the store's.
        ttl: for how many seconds a thread is kept after its last write; None for ever.
    """

    def __init__(self, context: Context, ttl: float | None = None) -> None:
        self.context = context
        self._ttl = ttl
        self._known: dict[tuple[str, str], _Known] = {}

    def put(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Operation[int]:
        """Store a checkpoint. Return the thread's cursor after it."""
        place = Place.of(config)
        about = get_checkpoint_metadata(config, metadata)
        known = self._known.get((place.thread, place.ns))
        while True:
            channels, new_facts = self._cut(serde, place, checkpoint, new_versions, known)
            saved = _saved_checkpoint(serde, place, checkpoint, metadata=about, changed=new_versions, channels=channels)
            try:
                cursor = yield from self.append(place.thread, [saved], new_facts)
            except FactNotFound:
                # Facts that this process knew have been collected since.
                if known is None:
                    raise
                known = None
            else:
                self._remember(place, saved, channels)
                return cursor

    def put_writes(
        self,
        serde: SerializerProtocol,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> Operation[int]:
        """Store the writes of a task to a checkpoint. Return the thread's cursor after them."""
        place = Place.of(config)
        rows: list[Data] = []
        facts: dict[str, bytes] = {}
        size = 0
        for number, (channel, value) in enumerate(writes):
            kind, data = serde.dumps_typed(value)
            data = bytes(data)
            size += len(data)
            if len(data) > _LARGE_WRITE_BYTES or (size > _MOST_WRITE_BYTES and len(data) > SMALL_BYTES):
                size -= len(data)
                fact_hash, encoded = self.context.codec.encode_own_fact(data)
                facts.setdefault(fact_hash, encoded)
                data = list(facts).index(fact_hash)  # type: ignore[assignment]
            rows.append([WRITES_IDX_MAP.get(channel, number), channel, kind, data])
        saved = SavedWrites(
            config["configurable"]["checkpoint_id"], place.ns, task_id, task_path, rows, list(map(FactRef, facts))
        )
        return (yield from self.append(place.thread, [saved], facts))

    def get_tuple(self, serde: SerializerProtocol, config: RunnableConfig) -> Operation[CheckpointTuple | None]:
        """Return a checkpoint with its writes; the latest, if the config names none; None if there is none."""
        place = Place.of(config)
        for attempt in range(_READS):
            saved, written = yield from self._find(place)
            if saved is None:
                return None
            try:
                (found,) = yield from self.load(serde, place, [saved], None if written is None else [written])
            except FactNotFound:
                if attempt == _READS - 1:
                    raise
            else:
                # LangGraph's savers return the config of a checkpoint that it names as it is.
                return found if place.checkpoint_id is None else found._replace(config=config)
        raise AssertionError

    def delete_thread(self, thread_id: Any) -> Operation[None]:
        """Delete a thread."""
        yield from delete(self.context, [str(thread_id)])

    def append(
        self,
        thread: str,
        events: Sequence[SavedEvent],
        new_facts: Mapping[str, bytes],
        expected_cursor: int | None = None,
        *,
        extends_life: bool = True,
    ) -> Operation[int]:
        """Append events to a thread. Return the cursor.

        Args:
            thread: the thread.
            events: the events.
            new_facts: the encoded facts that may not be stored yet, by their hashes; those of other events too.
            expected_cursor: the cursor at which the thread must be; None for any.
            extends_life: whether the lifetime of the thread starts again.
        """
        facts: dict[str, bytes] = {}
        entries = self.context.codec.encode_commit(events, facts)
        facts.update({fact_hash: new_facts[fact_hash] for fact_hash in facts if fact_hash in new_facts})
        tags = [tag for saved in events for tag in tags_of(saved)]
        cursor = yield from append(
            self.context,
            thread,
            EncodedEvents(events, entries, facts),
            expected_cursor=expected_cursor,
            life=Life(expires_in=self._ttl if extends_life else None, tags=tags),
        )
        return cast("int", cursor)

    def load(
        self,
        serde: SerializerProtocol,
        place: Place,
        saved: Sequence[SavedCheckpoint],
        written: Sequence[Sequence[SavedWrites]] | None = None,
    ) -> Operation[list[CheckpointTuple]]:
        """Return checkpoints with their values and writes; the writes are read if they are not given."""
        channels = [unpacked_channels(one.channels, one.facts) for one in saved]
        hashes = {ref.hash for one in saved for ref in one.facts}
        loading: list[Operation[Any]] = [load_each(self.context, hashes)] if hashes else []
        finding: list[Operation[Any]] = []
        if written is None:
            finding = [find(self.context, place.thread, tag=writes_tag(one.ns, one.id)) for one in saved]
        results = yield from all_of([*loading, *finding])
        facts: dict[str, Any] = results[0] if hashes else {}
        if written is None:
            commits = results[len(loading) :]
            written = [writes_in(found, one) for found, one in zip(commits, saved, strict=True)]
        large = {ref.hash for writes in written for one in writes for ref in one.facts}
        if large:
            facts.update((yield from load_each(self.context, large)))
        for value in facts.values():
            if isinstance(value, StoreError):
                raise value
        tuples = [
            _tuple(serde, place, one, channels=its_channels, written=writes, facts=facts)
            for one, its_channels, writes in zip(saved, channels, written, strict=True)
        ]
        if len(saved) == 1:
            self._remember(place._replace(ns=saved[0].ns), saved[0], channels[0])
        return tuples

    def find(self, place: Place) -> Operation[SavedCheckpoint | None]:
        """Return the checkpoint at a place, without its writes; the latest, if it names none; None if there is none."""
        return (yield from self._find(place))[0]

    def _find(self, place: Place) -> Operation[tuple[SavedCheckpoint | None, list[SavedWrites] | None]]:
        """Return the checkpoint at a place, and its writes if they were read with it."""
        context = self.context
        if place.checkpoint_id is None:
            prefix = checkpoints_prefix(place.ns)
            found = yield from find(context, place.thread, prefix=prefix, reverse=True, limit=1)
            return (checkpoint_in(found[0]) if found else None), None
        tags = checkpoint_tag(place.ns, place.checkpoint_id), writes_tag(place.ns, place.checkpoint_id)
        found, written = yield from all_of([find(context, place.thread, tag=tag) for tag in tags])
        if not found:
            return None, None
        saved = checkpoint_in(found[-1])
        return saved, None if saved is None else writes_in(written, saved)

    def _cut(
        self,
        serde: SerializerProtocol,
        place: Place,
        checkpoint: Checkpoint,
        new_versions: ChannelVersions,
        known: _Known | None,
    ) -> tuple[dict[str, list[Piece]], dict[str, bytes]]:
        """Return the pieces of each channel's value, and the facts among them that may not be stored yet.

        A channel that has not changed since the parent keeps its pieces, without being serialized.
        """
        before: Mapping[str, Sequence[Piece]] = {} if known is None else known.channels
        versions = checkpoint.get("channel_versions", {})
        same: Mapping[str, Any] = {}
        if known is not None and known.checkpoint_id == place.checkpoint_id:
            same = known.versions
        cutter = Cutter(serde, self.context.codec, list(before.values()))
        channels: dict[str, list[Piece]] = {}
        for name, value in checkpoint.get("channel_values", {}).items():
            pieces = before.get(name, ())
            if pieces and name in same and name not in new_versions and same[name] == versions.get(name):
                channels[name] = cutter.keep(pieces)
            else:
                channels[name] = cutter.cut(value, pieces)
        return channels, cutter.new_facts(piece for pieces in channels.values() for piece in pieces)

    def _remember(self, place: Place, saved: SavedCheckpoint, channels: Mapping[str, Sequence[Piece]]) -> None:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[place.thread, place.ns] = _Known(saved.id, saved.versions, channels)


def all_of(readings: Sequence[Operation[Any]]) -> Operation[list[Any]]:
    """Return the results of readings that share their round trips."""
    results = yield from run_together(readings)
    for result in results:
        if isinstance(result, StoreError):
            raise result
    return results


def checkpoint_in(commit: TaggedCommit) -> SavedCheckpoint | None:
    """Return the checkpoint whose tag has found a commit."""
    for one in reversed(commit.events):
        if type(one) is SavedCheckpoint and checkpoint_tag(one.ns, one.id) == commit.tag:
            return one
    return None


def writes_in(commits: Iterable[TaggedCommit], saved: SavedCheckpoint) -> list[SavedWrites]:
    """Return the writes to a checkpoint in the commits that its tag of writes has found."""
    return [
        one
        for commit in commits
        for one in commit.events
        if type(one) is SavedWrites and one.id == saved.id and one.ns == saved.ns
    ]


def ordered_writes(written: Iterable[SavedWrites]) -> list[tuple[str, str, str, bytes | str]]:
    """Return the writes to a checkpoint, in the order in which a step applies them.

    Of a task's writes with the same index the first one counts; of special ones, such as errors, the last one.

    Returns:
        For each, the task, the channel, the type, and the bytes or the hash of a fact.
    """
    chosen: dict[tuple[str, int], tuple[str, str, str, bytes | str]] = {}
    for one in written:
        for index, channel, kind, data in one.writes:
            key = one.task_id, index
            if index < 0 or key not in chosen:
                chosen[key] = one.task_path, channel, kind, data if type(data) is bytes else one.facts[data].hash
    # The order of LangGraph's `writes_sort_key`, which its older versions do not have: path, task, index.
    in_order = sorted(chosen.items(), key=lambda item: (item[1][0], *item[0]))
    return [(task_id, *write[1:]) for (task_id, _), write in in_order]


def _saved_checkpoint(
    serde: SerializerProtocol,
    place: Place,
    checkpoint: Checkpoint,
    *,
    metadata: CheckpointMetadata,
    changed: Iterable[str],
    channels: dict[str, list[Piece]],
) -> SavedCheckpoint:
    apart = ("channel_values", "channel_versions")
    rest = {name: value for name, value in checkpoint.items() if name not in apart}
    kind, data = serde.dumps_typed([rest, metadata])
    step, source, run_id = metadata.get("step"), metadata.get("source"), metadata.get("run_id")
    packed, facts = packed_channels(channels)
    return SavedCheckpoint(
        checkpoint["id"],
        place.ns,
        place.checkpoint_id,
        step if type(step) is int else None,
        source if type(source) is str else None,
        None if run_id is None else str(run_id),
        dict(checkpoint.get("channel_versions", {})),
        list(changed),
        packed,
        facts,
        [kind, bytes(data)],
    )


def _tuple(
    serde: SerializerProtocol,
    place: Place,
    saved: SavedCheckpoint,
    *,
    channels: Mapping[str, Sequence[Piece]],
    written: Iterable[SavedWrites],
    facts: Mapping[str, Any],
) -> CheckpointTuple:
    kind, data = saved.rest
    rest, metadata = serde.loads_typed((kind, data))
    values = {name: load_value(pieces, serde.loads_typed, facts) for name, pieces in channels.items()}
    return CheckpointTuple(
        place.config(saved.id, saved.ns),
        cast("Checkpoint", {**rest, "channel_versions": saved.versions, "channel_values": values}),
        metadata,
        None if saved.parent is None else place.config(saved.parent, saved.ns),
        [
            (task_id, channel, serde.loads_typed((kind, data if isinstance(data, bytes) else facts[data])))
            for task_id, channel, kind, data in ordered_writes(written)
        ],
    )
