"""Reading a workflow's events, page by page. The next page is in flight while the last one is decoded.

Each page is read together with the workflow's meta hash: the stream first, then the hash, on one connection. If the
hash has the same time of creation and no later trim, the page belongs to the workflow that was opened. The first page
has the hash before it, too: when the workflow was created, and the cursor that the page must reach. The hash after the
page may have a later cursor, from an append in between.

Nothing can be skipped silently: the cursors in a page must follow each other without a gap, and a page must hold the
events that existed when it was requested.
"""

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from runic_redis.arguments import check_cursor, check_since, check_workflow_id
from runic_redis.codec import expanded
from runic_redis.context import Context
from runic_redis.errors import DecodeError, EventsTrimmed, WorkflowNotFound
from runic_redis.operations.ending import is_over
from runic_redis.operations.lost_meta import reject_leftovers
from runic_redis.operations.records import (
    DecodedEntry,
    commits_lost,
    decode_commit,
    entry_cursor,
    events_missing,
    events_trimmed,
    read_cursor,
)
from runic_redis.operations.time_search import find_positions
from runic_redis.protocol.effects import Await, Batch, Begin, Command, InFlight, Operation, key_command
from runic_redis.protocol.refusals import ask, checked

_LAST_MS = 2**64 - 1
# The first page is small, for readers of a few events. Later pages aim at a size in bytes. Only the size of the page
# before is known, so the number of entries is bounded, too; and by the size of the largest entry, if any is large.
_FIRST_ENTRIES = 8
# The first page of a reader whose events are all wanted, and at once.
_FIRST_ENTRIES_OF_WHOLE = 64
_PAGE_BYTES = 1024 * 1024
_MOST_PAGE_BYTES = 8 * 1024 * 1024
_PAGE_GROWTH = 8
_MOST_ENTRIES = 1000
# Entries are decoded as their events are needed. More events at once would leave the processor's caches, and Python's
# garbage collector would visit them all.
_EVENTS_AT_ONCE = 256


def cursor(context: Context, workflow_id: str) -> Operation[int]:
    """Return the workflow's cursor; 0 if there is no workflow."""
    workflow_id = check_workflow_id(workflow_id)
    keys = context.keys.workflow(workflow_id)
    reply, created, expires = yield from ask(key_command("HMGET", keys.meta, "cursor", "created", "expires"))
    if created is None:
        yield from reject_leftovers(context, workflow_id)
    if (yield from is_over(context, workflow_id, expires)):
        return 0
    return read_cursor(reply, keys.meta)


class Reader:
    """A reader of a workflow, up to the cursor that it had when the reader was opened.

    Args:
        context: the store's.
        workflow_id: the workflow to read.
        after: read only events with a higher cursor.
        until: read only events with at most this cursor; None for all.
        since: read only commits from this time on; None for all.
        reverse: read the newest event first.
        records: return `Record`s instead of events.
        whole: all events are read at once, together with those of other readers. The first page is larger, and no page
            is read ahead.
    """

    def __init__(
        self,
        context: Context,
        workflow_id: str,
        *,
        after: int = 0,
        until: int | None = None,
        since: datetime | None = None,
        reverse: bool = False,
        records: bool = False,
        whole: bool = False,
    ) -> None:
        self._context = context
        self.workflow_id = check_workflow_id(workflow_id)
        self._keys = context.keys.workflow(self.workflow_id)
        self._after = check_cursor(after, "after")
        self._until = None if until is None else check_cursor(until, "until")
        self._since_ms = None if since is None else check_since(since)
        self._reverse = reverse
        self._records = records
        self._created: bytes | None = None
        self._whole = whole
        self._count = _FIRST_ENTRIES_OF_WHOLE if whole else _FIRST_ENTRIES
        # The events that are still to be read have cursors from _low + 1 to _high.
        self._low = self._high = 0
        # The cursor when the reader was opened, and whether an event was read since.
        self._opened_at = 0
        self._begun = False
        # Entries that are read and not decoded yet: a decoded page may be far larger.
        self._entries: deque[Any] = deque()
        # How many entries of the page are decoded, and their size.
        self._decoded = self._decoded_bytes = 0
        self._last_id: bytes | None = None
        # The page in flight.
        self._ahead: tuple[Batch, InFlight] | None = None
        self._trimmed_to = 0
        self._largest = 0

    def open(self) -> Operation[None]:
        """Find the workflow, and read the first page.

        Raises:
            WorkflowNotFound: no event was ever appended to it.
            EventsTrimmed: some of the requested events are trimmed.
            DecodeError: the stored data is damaged.
        """
        # Before and after the pages: if both agree, the pages belong to one workflow, not to one and its successor. The
        # same goes for a search.
        before = key_command("HMGET", self._keys.meta, "created", "cursor", "expires")
        while True:
            searched = yield from self._find_start()
            commands = [before, *self._first_pages(), self._meta()]
            (created, reached, expires), *pages, meta = checked((yield Batch(commands, all_or_none=True)), commands)
            found, self._created = self._note_meta(meta)
            if created == self._created and (self._since_ms is None or created == searched):
                break
        entries = [entry for page in pages for entry in page]
        if created is None:
            yield from reject_leftovers(self._context, self.workflow_id)
        if (yield from is_over(self._context, self.workflow_id, expires)):
            found, entries = 0, []
        if not found and entries and created is not None:
            raise DecodeError(
                f"The cursor of the workflow {self.workflow_id!r} is missing at the key {self._keys.meta!r}, and its "
                "events are not. Nothing was changed. Restore a backup, or run 'runic-redis verify --repair'."
            )
        if not found:
            problem = (
                f"No events are stored for the workflow {self.workflow_id!r}. Check the id, or append events first."
            )
            raise WorkflowNotFound(problem, workflow_id=self.workflow_id)
        self._opened_at = found
        self._high = found if self._until is None else min(found, self._until)
        if not self._reverse and self._low < min(self._trimmed_to, self._high):
            raise self._trimmed()
        self._receive(entries)
        if self._reverse and entries:
            # An event that was appended after the page was read is newer than this reader. The page must hold the
            # events from before.
            newest = entry_cursor(entries[0], self._keys.events)
            self._high = min(self._high, max(newest, read_cursor(reached, self._keys.meta)))

    def _find_start(self) -> Operation[bytes | None]:
        """Set the cursor after which to read. Return when the workflow was created whose entries were searched."""
        self._low = self._after
        if self._since_ms is None:
            return None
        key, meta = self._keys.events, self._keys.meta
        created: bytes | None
        fields = ("created", "cursor", "trimmed", "trimmed_ms")
        created, reached, trimmed, trimmed_ms = yield from ask(key_command("HMGET", meta, *fields))
        first, last = read_cursor(trimmed, meta), read_cursor(reached, meta)
        # If the last trimmed commit is from the time on, the reader must notice that it is missing.
        if self._after >= first or (trimmed_ms is not None and read_cursor(trimmed_ms, meta) < self._since_ms):
            bounds = max(self._after, first), last if self._until is None else min(last, self._until)
            self._low = (yield from find_positions({key: bounds}, self._since_ms))[key]
        return created

    def _first_pages(self) -> list[Command]:
        if self._reverse and self._until is not None:
            # The commit that holds the event may end after it; the page below starts at that commit.
            return [
                self._range(self._until, newest_first=False, count=1),
                self._range(self._until - 1, newest_first=True, count=self._count),
            ]
        bound = None if self._reverse else self._low + 1
        return [self._range(bound, newest_first=self._reverse, count=self._count)]

    def next_page(self) -> Operation[list[Any]]:
        """Return the next events: at least one, or none when all are read.

        Raises:
            EventsTrimmed: the events were trimmed.
            WorkflowNotFound: the workflow was deleted since the reader was opened.
            CommitsLost: the server has lost events since.
            DecodeError: the stored data is damaged.
        """
        while self._low < self._high:
            if not self._entries:
                yield from self._read_page()
            page = self._decode_some()
            if page:
                return page
        return []

    def close(self) -> None:
        """Cancel the page in flight, if there is one."""
        if self._ahead is not None:
            self._ahead[1].cancel()
            self._ahead = None

    def _read_page(self) -> Operation[None]:
        """Receive the next page, and begin the one after it, if there is one."""
        batch = self._page()
        if self._ahead is None:
            replies = yield batch
        else:
            (batch, in_flight), self._ahead = self._ahead, None
            replies = yield Await(in_flight)
        entries, meta = checked(replies, batch.commands)
        found, created = self._note_meta(meta)
        if created != self._created:
            yield from reject_leftovers(self._context, self.workflow_id)
            problem = (
                f"The workflow {self.workflow_id!r} was deleted while it was being read. Discard what you have read."
            )
            raise WorkflowNotFound(problem, workflow_id=self.workflow_id)
        if found < self._opened_at:
            raise commits_lost(self.workflow_id, self._opened_at, found, "Nothing was changed.")
        if not entries:
            # They existed when the page was requested.
            raise self._gap(self._low, self._high)
        self._receive(entries)
        if self._whole:
            return
        full = str(len(entries)) == batch.commands[0].args[-1]
        if full and (self._reverse or entry_cursor(entries[-1], self._keys.events) < self._high):
            batch = self._page()
            self._ahead = batch, (yield Begin(batch))

    def _receive(self, entries: Sequence[Any]) -> None:
        self._entries.extend(entries)
        if entries:
            self._last_id = entries[-1][0]
            newest = entries[0 if self._reverse else -1]
            # With an older one, the scan of a retry would be longer.
            if entry_cursor(newest, self._keys.events) >= self._opened_at:
                self._context.note_seen(self.workflow_id, newest[0])

    def _page(self) -> Batch:
        """Return the batch that reads the page after the last one."""
        count = min(self._count, max(1, _MOST_PAGE_BYTES // self._largest)) if self._largest else self._count
        if self._last_id is None:
            bound: bytes | int | None = self._high if self._reverse else self._low + 1
        else:
            bound = b"(" + self._last_id
        commands = (self._range(bound, newest_first=self._reverse, count=count), self._meta())
        return Batch(commands, own_connection=True, all_or_none=True)

    def _meta(self) -> Command:
        return key_command("HMGET", self._keys.meta, "cursor", "trimmed", "created", "largest")

    def _note_meta(self, meta: Sequence[bytes | None]) -> tuple[int, bytes | None]:
        """Note the fields of the meta hash. Return the workflow's cursor, and when it was created."""
        found, trimmed, created, largest = meta
        self._trimmed_to = read_cursor(trimmed, self._keys.meta)
        self._largest = read_cursor(largest, self._keys.meta)
        return read_cursor(found, self._keys.meta), created

    def _range(self, bound: bytes | int | None, *, newest_first: bool, count: int) -> Command:
        """Return the command that reads a page from a cursor on, or after an entry."""
        key = self._keys.events
        if newest_first:
            upper = "+" if bound is None else bound if isinstance(bound, bytes) else f"{max(bound, 0)}-{_LAST_MS}"
            return key_command("XREVRANGE", key, upper, "-", "COUNT", str(count))
        return key_command("XRANGE", key, bound if isinstance(bound, bytes) else f"{bound}-0", "+", "COUNT", str(count))

    def _decode_some(self) -> list[Any]:
        """Decode entries. Return their events that are still to be read."""
        taken: list[Any] = []
        size = 0
        while self._entries and self._low < self._high and size < _PAGE_BYTES and len(taken) < _EVENTS_AT_ONCE:
            commit = decode_commit(self._context, self.workflow_id, self._entries.popleft(), with_records=self._records)
            size += commit.size
            self._decoded += 1
            if self._reverse and commit.start >= self._high:
                continue  # it was appended after the reader was opened
            if self._reverse and commit.end < self._high:
                raise self._gap(commit.end, self._high)
            if not self._reverse and commit.start > self._low:
                raise self._gap(self._low, commit.start)
            if self._begun and (commit.end > self._high if self._reverse else commit.start < self._low):
                # Another history of the same length.
                raise commits_lost(self.workflow_id, self._opened_at, commit.start, "Nothing was changed.")
            self._begun = True
            taken += self._cut(commit)
        self._decoded_bytes += size
        if not self._entries:
            self._fit_next_page()
        return taken

    def _fit_next_page(self) -> None:
        """Set the number of entries of the next page, by the size of the decoded one."""
        fitting = max(1, _PAGE_BYTES * self._decoded // max(self._decoded_bytes, 1))
        self._count = min(fitting, self._count * _PAGE_GROWTH, _MOST_ENTRIES)
        self._decoded = self._decoded_bytes = 0

    def _cut(self, commit: DecodedEntry) -> list[Any]:
        """Return the part of a commit that is still to be read, and move past it."""
        first, last = max(commit.start, self._low), min(commit.end, self._high)
        events = commit.events
        if last - first != len(events):
            events = events[first - commit.start : last - commit.start]
        if self._reverse:
            self._high = first
        else:
            self._low = last
        if self._records:
            events = commit.records(events, first)
        elif commit.multiplied:
            events = expanded(events)
        return events[::-1] if self._reverse else events

    def _gap(self, after: int, upto: int) -> EventsTrimmed | DecodeError:
        """Return the error for missing events: they were trimmed, or else they were lost."""
        if self._trimmed_to > self._low and (not self._reverse or self._high <= self._trimmed_to):
            return self._trimmed()
        return events_missing(self._context, self.workflow_id, after, upto)

    def _trimmed(self) -> EventsTrimmed:
        return events_trimmed(self.workflow_id, self._trimmed_to)
