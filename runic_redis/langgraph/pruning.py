"""Deleting checkpoints, and copying threads.

A stream is trimmed from its beginning. So what is kept of the part to trim is first appended again: the same events
with the same tags. Then a snapshot without data marks the part, and trimming it releases its facts. A crash in between
leaves events that are there twice. Readers take the later one, and the next prune removes the other.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from langgraph.checkpoint.serde.base import SerializerProtocol

from runic_redis.errors import CommitsLost, CursorConflict, SnapshotConflict, StoreError, WorkflowNotFound
from runic_redis.langgraph.deltas import read_history
from runic_redis.langgraph.records import (
    SavedCheckpoint,
    SavedEvent,
    SavedHistory,
    SavedWrites,
    checkpoint_tag,
    run_tag,
    tags_of,
)
from runic_redis.langgraph.threads import Place, Threads, all_of
from runic_redis.operations.finding import find, list_tags
from runic_redis.operations.listing import Listing
from runic_redis.operations.reading import cursor as read_cursor_of
from runic_redis.operations.snapshots import save_snapshot, trim
from runic_redis.protocol.effects import Operation, key_command
from runic_redis.protocol.refusals import ask

# How many commits are found at once, by their tags.
_AT_ONCE = 128
# Events that are appended again share a commit, up to so many bytes. A reader of one of them reads them all.
_SHARED_BYTES = 16 * 1024
_MOST_SHARED = 64
# How often a prune begins again because the thread was written to.
_TRIES = 20


class Name(NamedTuple):
    """What the tags of a checkpoint hold: the part that stands for its namespace, and its id."""

    ns: str
    id: str


class Tags:
    """The tags of a thread.

    Attributes:
        cursors: for each kind of tag, "c", "w" or "h", the cursors of the commits for each checkpoint, in order.
        newest: for each namespace, its checkpoints, the newest first.
    """

    def __init__(self, tags: Iterable[tuple[str, int]]) -> None:
        self.cursors: dict[str, dict[Name, list[int]]] = {"c": {}, "w": {}, "h": {}}
        for tag, cursor in tags:
            kind, _, rest = tag.partition("/")
            if kind in self.cursors:
                ns, _, checkpoint_id = rest.partition("/")
                self.cursors[kind].setdefault(Name(ns, checkpoint_id), []).append(cursor)
        self.newest: dict[str, list[Name]] = {}
        for name in sorted(self.cursors["c"], reverse=True):
            self.newest.setdefault(name.ns, []).append(name)

    def is_early(self, name: Name) -> bool:
        """Return whether a checkpoint that is not stored may still come: its writes came first."""
        newest = self.newest.get(name.ns)
        return name not in self.cursors["c"] and (newest is None or name.id > newest[0].id)


# Returns the checkpoints to delete.
Choose = Callable[[Tags], Operation[Collection[Name]]]


def newest_kept(threads: Threads, serde: SerializerProtocol, thread: str, count: int) -> Choose:
    """Return the choice that keeps the newest checkpoints of each namespace.

    A subgraph that is called has a namespace for each call. It goes with the checkpoint from which it was called.
    """

    def choose(tags: Tags) -> Operation[Collection[Name]]:
        dropped = {name for names in tags.newest.values() for name in names[count:]}
        roots = tags.newest.get("", [])
        calls = [ns for ns in tags.newest if ":" in ns or ns.startswith("#")]
        for at in range(0, len(calls) if roots else 0, _AT_ONCE):
            names = [tags.newest[ns][0] for ns in calls[at : at + _AT_ONCE]]
            for name, saved in zip(names, (yield from _checkpoints(threads, thread, names)), strict=True):
                if saved is None or ":" not in saved.ns:
                    continue
                kind, data = saved.rest
                _, metadata = serde.loads_typed((kind, data))
                root = Name("", (metadata.get("parents") or {}).get("") or roots[0].id)
                is_kept = root in tags.cursors["c"] and root not in dropped
                if root.id < roots[0].id and not is_kept:
                    dropped.update(tags.newest[name.ns])
        return dropped

    return choose


def all_dropped(names: Collection[Name]) -> Choose:
    """Return the choice of these checkpoints."""

    def choose(tags: Tags) -> Operation[Collection[Name]]:
        yield from ()
        return [name for name in names if name in tags.cursors["c"]]

    return choose


def prune(threads: Threads, serde: SerializerProtocol, thread: str, choose: Choose) -> Operation[None]:
    """Delete checkpoints of a thread, and their writes.

    Raises:
        StoreError: the thread was written to all the time. Nothing was deleted.
    """
    for _ in range(_TRIES):
        cursor = yield from read_cursor_of(threads.context, thread)
        if not cursor:
            return
        try:
            yield from _prune_at(threads, serde, thread, cursor, choose)
        except CursorConflict:
            continue
        except (CommitsLost, WorkflowNotFound):
            pass  # it was deleted meanwhile
        return
    raise StoreError(
        f"The thread {thread!r} was written to {_TRIES} times while it was pruned. Nothing was deleted. Prune it when "
        "it is not in use."
    )


def _prune_at(threads: Threads, serde: SerializerProtocol, thread: str, cursor: int, choose: Choose) -> Operation[None]:
    """Prune a thread that is at a cursor.

    Raises:
        CursorConflict: it was written to.
    """
    context = threads.context
    tags = Tags((yield from list_tags(context, thread)))
    dropped = set((yield from choose(tags)))
    last = _last_to_trim(tags, dropped)
    if not last:
        return
    kept = [name for names in tags.newest.values() for name in names if name not in dropped]
    # Their namespaces, parents and delta channels are in the events only.
    again = yield from _events_before(threads, thread, tags, dropped, last)
    new_facts: dict[str, bytes] = {}
    for history, its_facts in (yield from _histories(threads, serde, thread, kept, dropped)):
        again.append(history)
        new_facts.update(its_facts)
    yield from append_shared(threads, thread, again, new_facts, cursor)
    with suppress(SnapshotConflict):  # another prune is further
        yield from save_snapshot(context, thread, last, b"", None, refs=())
    keys = context.keys.workflow(thread)
    while True:
        yield from trim(context, thread, 0, None)
        # One call releases the facts of some of the references only.
        if not (yield from ask(key_command("ZCOUNT", keys.refs, "-inf", str(last)))):
            return


def _last_to_trim(tags: Tags, dropped: Collection[Name]) -> int:
    """Return the cursor of the last commit that has something to delete; 0 if none has."""
    last = 0
    for kind, cursors in tags.cursors.items():
        for name, its_cursors in cursors.items():
            if name in dropped or (name not in tags.cursors["c"] and not tags.is_early(name)):
                last = max(last, its_cursors[-1])
            elif kind != "w" and len(its_cursors) > 1:
                last = max(last, its_cursors[-2])
    # The writes to a checkpoint keep their order: all of them stay where they are, or all are appended again.
    while last:
        reach = max(cursors[-1] if cursors[0] <= last else 0 for cursors in [[last], *tags.cursors["w"].values()])
        if reach == last:
            break
        last = reach
    return last


def _events_before(
    threads: Threads, thread: str, tags: Tags, dropped: Collection[Name], last: int
) -> Operation[list[SavedEvent]]:
    """Return the events up to a cursor that are to be kept, for each checkpoint in their order."""
    wanted: list[tuple[str, list[int]]] = []
    for kind, cursors in tags.cursors.items():
        for name, its_cursors in cursors.items():
            is_kept = name not in dropped and (name in tags.cursors["c"] or tags.is_early(name))
            counting = its_cursors if kind == "w" else its_cursors[-1:]
            if is_kept and counting[0] <= last:
                wanted.append((f"{kind}/{name.ns}/{name.id}", [one for one in counting if one <= last]))
    events: list[SavedEvent] = []
    for at in range(0, len(wanted), _AT_ONCE):
        part = wanted[at : at + _AT_ONCE]
        found = yield from all_of([find(threads.context, thread, tag=tag) for tag, _ in part])
        for (tag, at_cursors), commits in zip(part, found, strict=True):
            events += [
                event
                for commit in commits
                if commit.cursor in at_cursors
                for event in commit.events
                if tag in tags_of(event)
            ]
    return events


def _histories(
    threads: Threads, serde: SerializerProtocol, thread: str, kept: Sequence[Name], dropped: Collection[Name]
) -> Operation[list[tuple[SavedHistory, dict[str, bytes]]]]:
    """Return the histories of delta channels for those kept checkpoints whose parents are deleted, with new facts."""
    histories: list[tuple[SavedHistory, dict[str, bytes]]] = []
    for at in range(0, len(kept), _AT_ONCE):
        part = kept[at : at + _AT_ONCE]
        for name, saved in zip(part, (yield from _checkpoints(threads, thread, part)), strict=True):
            if saved is None or saved.parent is None or Name(name.ns, saved.parent) not in dropped:
                continue
            kind, data = saved.rest
            _, metadata = serde.loads_typed((kind, data))
            channels = [one for one in metadata.get("counters_since_delta_snapshot") or () if one not in saved.channels]
            if channels:
                place = Place(thread, thread, saved.ns, saved.id)
                history = yield from read_history(threads, place, saved, channels)
                histories.append(history.packed(saved, threads.context.codec))
    return histories


def _checkpoints(threads: Threads, thread: str, names: Sequence[Name]) -> Operation[list[SavedCheckpoint | None]]:
    """Return checkpoints by what their tags hold."""
    tags = [f"c/{name.ns}/{name.id}" for name in names]
    found = yield from all_of([find(threads.context, thread, tag=tag) for tag in tags])
    return [
        next((one for one in reversed(commits[-1].events) if tag in tags_of(one)), None) if commits else None
        for tag, commits in zip(tags, found, strict=True)
    ]


def append_shared(
    threads: Threads,
    thread: str,
    events: Sequence[SavedEvent],
    new_facts: Mapping[str, bytes],
    cursor: int | None = None,
) -> Operation[None]:
    """Append events, several in a commit if they are small.

    Args:
        threads: the store's.
        thread: the thread.
        events: the events.
        new_facts: their encoded facts that may not be stored yet, by their hashes.
        cursor: the cursor at which the thread must be. Its lifetime then stays as it is. None for any.

    Raises:
        CursorConflict: it is at another one.
    """
    is_in_place = cursor is not None
    shared: list[SavedEvent] = []
    size = 0
    for number, event in enumerate(events, 1):
        shared.append(event)
        size += _size_of(event)
        if size >= _SHARED_BYTES or len(shared) == _MOST_SHARED or number == len(events):
            after = yield from threads.append(thread, shared, new_facts, cursor, extends_life=not is_in_place)
            cursor = after if is_in_place else None
            shared, size = [], 0


def _size_of(event: SavedEvent) -> int:
    """Return roughly how many bytes an event has."""
    size = 256 + 80 * len(event.facts)
    if isinstance(event, SavedWrites):
        return size + sum(len(data) for *_, data in event.writes if type(data) is bytes)
    if isinstance(event, SavedCheckpoint):
        size += len(event.rest[1])
    channels = event.channels if isinstance(event, SavedCheckpoint) else {**event.seeds, **event.writes}
    return size + sum(len(data) for pieces in channels.values() for *_, data in pieces if type(data) is bytes)


def copy_thread(threads: Threads, source: str, target: str) -> Operation[None]:
    """Copy the checkpoints and writes of a thread to another one."""
    if source == target:
        return
    tags = Tags((yield from list_tags(threads.context, source)))
    wanted = [f"{kind}/{name.ns}/{name.id}" for kind, cursors in tags.cursors.items() for name in cursors]
    for at in range(0, len(wanted), _AT_ONCE):
        part = wanted[at : at + _AT_ONCE]
        found = yield from all_of([find(threads.context, source, tag=tag) for tag in part])
        events = [
            event
            for tag, commits in zip(part, found, strict=True)
            # Of several commits with one checkpoint, the last one counts.
            for commit in (commits if tag.startswith("w/") else commits[-1:])
            for event in commit.events
            if tag in tags_of(event)
        ]
        yield from append_shared(threads, target, events, {})


def delete_runs(threads: Threads, serde: SerializerProtocol, run_ids: Sequence[str]) -> Operation[None]:
    """Delete the checkpoints of runs, and their writes, in all threads."""
    runs = set(run_ids)
    listing = Listing(threads.context)
    while runs and (page := (yield from listing.next_page())):
        pairs = [(thread, run_tag(run)) for thread in page for run in runs]
        names: dict[str, set[Name]] = {}
        for at in range(0, len(pairs), _AT_ONCE):
            part = pairs[at : at + _AT_ONCE]
            found = yield from all_of([find(threads.context, thread, tag=tag) for thread, tag in part])
            for (thread, _), commits in zip(part, found, strict=True):
                for event in (event for commit in commits for event in commit.events):
                    if type(event) is SavedCheckpoint and event.run_id in runs:
                        _, ns, checkpoint_id = checkpoint_tag(event.ns, event.id).split("/", 2)
                        names.setdefault(thread, set()).add(Name(ns, checkpoint_id))
        for thread, its_names in names.items():
            yield from prune(threads, serde, thread, all_dropped(its_names))
