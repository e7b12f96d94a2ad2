"""Reading everything that the workflows of a partition hold, up to a place in its feed.

A reader that begins with a rebuild first takes its place: the last entry of the feed. Then it reads the workflows in
the order of their ids, and goes on with the feed after that place. A commit belongs to the rebuild if the feed does not
have it after the place. So the reader looks into the feed after each read of events: for each workflow, the first
entry after the place tells at which cursor the feed takes over. No commit is missing, and none comes twice, whatever is
written, deleted or created meanwhile.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from runic_redis.codec import event_count
from runic_redis.context import Context
from runic_redis.operations.feed_entries import (
    COMMIT,
    IMPORTED,
    VOID,
    FeedEntry,
    entry_parts,
    read_entry,
    whole_commits,
)
from runic_redis.operations.indexes import indexed_workflows
from runic_redis.operations.records import entry_cursor, events_missing, read_cursor
from runic_redis.positions import Place
from runic_redis.protocol.effects import Batch, Command, Operation, key_command
from runic_redis.protocol.refusals import ask, checked

# How many workflows are read at once, and of each how many entries of its stream.
_WORKFLOWS = 64
_ENTRIES = 64
# The most bytes that are read at once, by the sizes of the workflows' largest entries.
_MOST_BYTES = 8 * 1024 * 1024
# How many entries of the feed are read at once.
_AT_ONCE = 1000


class RebuiltCommit(NamedTuple):
    """A commit that a rebuild has read.

    Attributes:
        entry: what an entry of the feed would say of it, with the place of the rebuild after it.
        parts: the entries of its stream: of each its ID, header, payload and metadata.
    """

    entry: FeedEntry
    parts: list[tuple[bytes, bytes, bytes, bytes]]


class _Held(NamedTuple):
    """Entries that a workflow's stream holds.

    Attributes:
        entries: the entries.
        is_whole: whether they are all up to the end of the stream.
        trimmed: the cursor up to which the stream was trimmed when they were read, or later.
    """

    entries: Sequence[Any]
    is_whole: bool
    trimmed: int


class Rebuilder:
    """Reads what the workflows of a partition hold.

    Args:
        context: the store's.
        partition: the partition.
        place: how far the rebuild is.
        prefix: read only workflows whose ids begin with this.
    """

    def __init__(self, context: Context, partition: int, place: Place, prefix: str) -> None:
        self._context = context
        self._key = context.keys.feed(partition)
        self._index = context.keys.index(partition)
        self._place = place
        self._prefix = prefix
        # The workflows that are still to be read, the last one first, and the cursor after which to read the next.
        self._left: list[str] | None = None
        self._after = 0
        # For each workflow in the feed after the place, the cursor at which the feed takes over; and the position up to
        # which the feed was searched.
        self._taken_over: dict[str, int] = {}
        self._searched = place.position
        self._factor = 1

    def next_commits(self) -> Operation[list[RebuiltCommit]]:
        """Return the next commits; none after the last one.

        Raises:
            DecodeError: the stored data is damaged.
        """
        if self._left is None:
            self._left = yield from self._find_workflows()
        while self._left:
            some = self._left[: -_WORKFLOWS - 1 : -1]
            pages = yield from self._read(some)
            yield from self._search()
            found: list[RebuiltCommit] = []
            has_ended = False
            for workflow_id, page in zip(some, pages, strict=False):
                taken_over = self._taken_over.get(workflow_id)
                found += self._commits(workflow_id, page, taken_over)
                if not page.is_whole and (taken_over is None or self._after < taken_over):
                    break  # it has more
                self._left.pop()
                self._after = 0
                has_ended = True
            # A commit of many entries may not have fit.
            self._factor = 1 if found or has_ended else 4 * self._factor
            if found:
                return found
        return []

    def _find_workflows(self) -> Operation[list[str]]:
        """Return the workflows that are still to be read, the last one first."""
        done, last = self._place.rebuilding or (0, "")
        found = yield from indexed_workflows([self._index])
        # The last workflow may not have been read to its end.
        self._after = done if last in found else 0
        return sorted((one for one in found if one >= last and one.startswith(self._prefix)), reverse=True)

    def _read(self, some: Sequence[str]) -> Operation[list[_Held]]:
        """Return the next entries of the first of some workflows, and the first ones of as many others as fit."""
        keys = [self._context.keys.workflow(workflow_id) for workflow_id in some]
        sizes = [key_command("HGET", one.meta, "largest") for one in keys]
        found = checked((yield Batch(sizes, own_connection=True)), sizes)
        largest = [max(1, read_cursor(size, one.meta)) for one, size in zip(keys, found, strict=True)]
        # One entry more than it takes is read of each, to know whether there are more.
        fitting = sum(2 * total <= _MOST_BYTES for total in accumulate(largest))
        keys = keys[: max(1, fitting) if self._factor == 1 else 1]
        commands: list[Command] = []
        counts: list[int] = []
        for one, size in zip(keys, largest, strict=False):
            fitting = _MOST_BYTES // (len(keys) * size)
            counts.append(max(1, min(_ENTRIES, fitting)) * self._factor)
            after = 0 if commands else self._after
            commands.append(key_command("XRANGE", one.events, f"{after + 1}-0", "+", "COUNT", str(counts[-1] + 1)))
            # After the entries: those before them may be trimmed, if they are not returned.
            commands.append(key_command("HGET", one.meta, "trimmed"))
        replies = checked((yield Batch(commands, own_connection=True)), commands)
        return [
            _Held(entries, len(entries) <= count, read_cursor(trimmed, one.meta))
            for one, count, entries, trimmed in zip(keys, counts, replies[::2], replies[1::2], strict=True)
        ]

    def _search(self) -> Operation[None]:
        """Search the new entries of the feed for the workflows that it takes over."""
        while True:
            page = yield from ask(
                key_command("XRANGE", self._key, f"{self._searched + 1}-0", "+", "COUNT", str(_AT_ONCE))
            )
            for raw in page:
                entry = read_entry(raw, self._key)
                self._searched = entry.position
                if entry.kind is not VOID:
                    has_events = entry.kind in {COMMIT, IMPORTED}
                    self._taken_over.setdefault(entry.workflow_id, entry.cursor - entry.span if has_events else 0)
            if len(page) < _AT_ONCE:
                return

    def _commits(self, workflow_id: str, held: _Held, taken_over: int | None) -> Iterator[RebuiltCommit]:
        """Yield the commits of a workflow that the feed does not have after the place."""
        key = self._context.keys.workflow(workflow_id).events
        for some in whole_commits(held.entries, is_last=held.is_whole):
            cursor = entry_cursor(some[-1], key)
            if taken_over is not None and cursor > taken_over:
                return
            parts = [entry_parts(one) for one in some]
            span = sum(event_count(payload) for _, _, payload, _ in parts)
            start = cursor - span
            if start != self._after and not (self._after < start <= held.trimmed):
                raise events_missing(self._context, workflow_id, self._after, start)
            self._after = cursor
            place = self._place
            yield RebuiltCommit(
                FeedEntry(place.position, place.ms, COMMIT, span, cursor, workflow_id, 0, (cursor, workflow_id)), parts
            )
