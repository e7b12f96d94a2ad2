"""Reading a workflow's events, a page at a time; the next page is on its way while the last one is decoded.

A page is read together with the workflow's meta hash, the hash after the stream on one connection: if the hash
still says the same life of the workflow and no later trim, the page is what it seems. (It may say a later cursor:
somebody may have appended in between.) The cursors in a page must follow each other without a gap, and a page that was
asked for when its events were there must hold them, so nothing can be skipped silently.
"""

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from runic_redis.arguments import check_cursor, check_workflow_id, is_cursor
from runic_redis.codec import payload_size
from runic_redis.context import Context
from runic_redis.errors import DecodeError, EventsTrimmed, UnknownEventType, WorkflowNotFound
from runic_redis.operations.asking import ask, checked
from runic_redis.operations.effects import Ahead, Batch, Collect, Command, Fetching, Operation

__all__ = ["Reader", "Record", "cursor"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 2**64 - 1
# The first page is small, for readers of a few events; later ones aim at a size in bytes. It is known only of the page
# before, so the number of entries is bounded too: also by the size of the largest, if any is large.
_FIRST_ENTRIES = 8
_PAGE_BYTES = 1024 * 1024
_MOST_PAGE_BYTES = 8 * 1024 * 1024
_PAGE_GROWTH = 8
_MOST_ENTRIES = 1000


class Record(NamedTuple):
    """An event and what is kept about it.

    Attributes:
        cursor: the workflow's cursor after this event.
        time: when its commit was made, by the server's clock, to the millisecond.
        event: the event.
        metadata: what was passed with its commit, or None.
    """

    cursor: int
    time: datetime
    event: Any
    metadata: dict[str, Any] | None


class _Commit(NamedTuple):
    """One decoded entry: its events have the cursors from `start` + 1 to `end`."""

    start: int
    end: int
    events: list[Any]
    time: datetime
    metadata: dict[str, Any] | None
    size: int


def cursor(context: Context, workflow_id: str) -> Operation[int]:
    """The workflow's cursor; 0 if there is none."""
    workflow_id = check_workflow_id(workflow_id)
    keys = context.keys.workflow(workflow_id)
    reply = yield from ask(Command(("HGET", keys.meta, "cursor"), keys.meta))
    return _integer(reply, keys.meta)


class Reader:
    """Reads a workflow from where it stands, up to the cursor that it had when the reader was opened.

    Args:
        context: the store's.
        workflow_id: the workflow to read.
        after: read the events with a higher cursor than this.
        until: and at most this; None for all there are.
        reverse: newest first.
        records: give `Record`s instead of events.
    """

    def __init__(
        self,
        context: Context,
        workflow_id: str,
        *,
        after: int = 0,
        until: int | None = None,
        reverse: bool = False,
        records: bool = False,
    ) -> None:
        self._context = context
        self._workflow_id = check_workflow_id(workflow_id)
        self._keys = context.keys.workflow(self._workflow_id)
        self._after = check_cursor(after, "after")
        self._until = None if until is None else check_cursor(until, "until")
        self._reverse = reverse
        self._records = records
        self._created: bytes | None = None
        self._count = _FIRST_ENTRIES
        # What is still to be read: the events with cursors from _low + 1 to _high.
        self._low = self._high = 0
        # Entries that have been read and not decoded yet: a page may be far larger decoded.
        self._entries: deque[Any] = deque()
        self._last_id: bytes | None = None
        # The page that is on its way.
        self._ahead: tuple[Batch, Fetching] | None = None
        self._trimmed_to = 0
        self._largest = 0

    def open(self) -> Operation[None]:
        """Find the workflow, and read the first page.

        Raises:
            WorkflowNotFound: no event was ever appended to it.
            EventsTrimmed: some of the events asked for are gone.
        """
        if self._reverse and self._until is not None:
            # The commit that holds the event may end after it; the page below starts at that commit.
            commands = [
                self._range(self._until, newest_first=False, count=1),
                self._range(self._until - 1, newest_first=True, count=self._count),
            ]
        else:
            bound = None if self._reverse else self._after + 1
            commands = [self._range(bound, newest_first=self._reverse, count=self._count)]
        commands.append(self._meta())
        *pages, meta = checked((yield Batch(commands, at_once=True)), commands)
        found, self._created = self._take_meta(meta)
        if not found:
            raise WorkflowNotFound(
                f"No events are kept for the workflow {self._workflow_id!r}.", workflow_id=self._workflow_id
            )
        self._low = self._after
        self._high = found if self._until is None else min(found, self._until)
        if not self._reverse and self._low < min(self._trimmed_to, self._high):
            raise self._trimmed()
        self._receive([entry for page in pages for entry in page])
        if self._reverse and self._entries:
            # What was appended after the page was read is not in it, and newer than this reader.
            self._high = min(self._high, _entry_cursor(self._entries[0], self._keys.events))

    def next_page(self) -> Operation[list[Any]]:
        """The next events, at least one; none when all have been read.

        Raises:
            EventsTrimmed: they have been trimmed.
            WorkflowNotFound: the workflow has been deleted since the reader was opened.
            DecodeError: what is there is damaged.
        """
        while self._low < self._high:
            if not self._entries:
                yield from self._read_page()
            page = self._decode_some()
            if page:
                return page
        return []

    def close(self) -> None:
        """Give up on a page that is on its way."""
        if self._ahead is not None:
            self._ahead[1].cancel()
            self._ahead = None

    def _read_page(self) -> Operation[None]:
        """Have the next page, and the one after it begun, if there is one."""
        batch = self._page()
        if self._ahead is None:
            replies = yield batch
        else:
            (batch, fetching), self._ahead = self._ahead, None
            replies = yield Collect(fetching)
        entries, meta = checked(replies, batch.commands)
        _, created = self._take_meta(meta)
        if created != self._created:
            raise WorkflowNotFound(
                f"The workflow {self._workflow_id!r} was deleted while it was being read.",
                workflow_id=self._workflow_id,
            )
        if not entries:
            # They were there when the page was asked for.
            raise self._gap()
        self._receive(entries)
        full = len(entries) == batch.commands[0].args[-1]
        if full and (self._reverse or _entry_cursor(entries[-1], self._keys.events) < self._high):
            batch = self._page()
            self._ahead = batch, (yield Ahead(batch))

    def _receive(self, entries: Sequence[Any]) -> None:
        self._entries.extend(entries)
        if entries:
            self._last_id = entries[-1][0]

    def _page(self) -> Batch:
        """What brings the page after the last one."""
        count = min(self._count, max(1, _MOST_PAGE_BYTES // self._largest)) if self._largest else self._count
        if self._last_id is None:
            bound: bytes | int | None = self._high if self._reverse else self._low + 1
        else:
            bound = b"(" + self._last_id
        commands = (self._range(bound, newest_first=self._reverse, count=count), self._meta())
        return Batch(commands, apart=True, at_once=True)

    def _meta(self) -> Command:
        return Command(("HMGET", self._keys.meta, "cursor", "trimmed", "created", "largest"), self._keys.meta)

    def _take_meta(self, meta: Sequence[bytes | None]) -> tuple[int, bytes | None]:
        """Keep what the meta hash says; the workflow's cursor, and when it was created."""
        found, trimmed, created, largest = meta
        self._trimmed_to = _integer(trimmed, self._keys.meta)
        self._largest = _integer(largest, self._keys.meta)
        return _integer(found, self._keys.meta), created

    def _range(self, bound: bytes | int | None, *, newest_first: bool, count: int) -> Command:
        """A page from a cursor on, or behind an entry."""
        key = self._keys.events
        if newest_first:
            upper = "+" if bound is None else bound if isinstance(bound, bytes) else f"{max(bound, 0)}-{_LAST_MS}"
            return Command(("XREVRANGE", key, upper, "-", "COUNT", count), key)
        return Command(("XRANGE", key, bound if isinstance(bound, bytes) else f"{bound}-0", "+", "COUNT", count), key)

    def _decode_some(self) -> list[Any]:
        """Decode entries, up to a page's size, and take from them what is still to be read."""
        taken: list[Any] = []
        size = count = 0
        while self._entries and self._low < self._high and size < _PAGE_BYTES:
            commit = self._decode(self._entries.popleft())
            size += commit.size
            count += 1
            if self._reverse and commit.start >= self._high:
                continue  # it came after the reader was opened
            if (commit.end < self._high) if self._reverse else (commit.start > self._low):
                raise self._gap()
            taken += self._cut(commit)
        if count:
            fitting = max(1, _PAGE_BYTES * count // max(size, 1))
            self._count = min(fitting, self._count * _PAGE_GROWTH, _MOST_ENTRIES)
        return taken

    def _cut(self, commit: _Commit) -> list[Any]:
        """The part of a commit that is still to be read; moves on past it."""
        first, last = max(commit.start, self._low), min(commit.end, self._high)
        events = commit.events
        if last - first != len(events):
            events = events[first - commit.start : last - commit.start]
        if self._reverse:
            self._high = first
        else:
            self._low = last
        if self._records:
            events = [
                Record(place, commit.time, event, commit.metadata) for place, event in enumerate(events, first + 1)
            ]
        return events[::-1] if self._reverse else events

    def _decode(self, entry: Any) -> _Commit:
        end = b"?"
        try:
            entry_id, fields = entry
            end, _, ms = entry_id.partition(b"-")
            header, payload = fields[0], fields[1]
            events = self._context.codec.decode_entry(header, payload)
            metadata, time = None, _EPOCH
            if self._records:
                time = _EPOCH + timedelta(milliseconds=int(ms))
                if len(fields) > 4:
                    metadata = self._context.codec.decode_metadata(fields[fields.index(b"m", 4) + 1])
            commit = _Commit(
                int(end) - len(events), int(end), events, time, metadata, len(header) + payload_size(payload)
            )
        except UnknownEventType as error:
            raise UnknownEventType(
                f"{error} It is in the workflow {self._workflow_id!r}, in the commit that ends at cursor "
                f"{end.decode()}.",
                name=error.name,
                version=error.version,
            ) from error
        except (DecodeError, ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
            raise DecodeError(
                f"The entry {entry[0] if entry else entry!r} of the workflow {self._workflow_id!r} (key "
                f"{self._keys.events!r}) is damaged: {error}. Nothing was changed; restore it from a backup, or read "
                "around it with after= and until=."
            ) from error
        if not events or commit.start < 0:
            raise DecodeError(
                f"The entry {entry_id!r} of the workflow {self._workflow_id!r} (key {self._keys.events!r}) holds "
                f"{len(events)} events, which its cursor does not fit. Nothing was changed."
            )
        return commit

    def _gap(self) -> EventsTrimmed | DecodeError:
        """What it means that the next event is not there: it was trimmed, or else it was lost."""
        if self._trimmed_to > self._low and (not self._reverse or self._high <= self._trimmed_to):
            return self._trimmed()
        return DecodeError(
            f"Events of the workflow {self._workflow_id!r} are missing between the cursors {self._low} and "
            f"{self._high}, and were not trimmed: the stream at the key {self._keys.events!r} has been altered. "
            "Nothing was changed."
        )

    def _trimmed(self) -> EventsTrimmed:
        return EventsTrimmed(
            f"The events of the workflow {self._workflow_id!r} up to cursor {self._trimmed_to} have been trimmed: load "
            f"the snapshot, and read after its cursor (or after={self._trimmed_to}).",
            first=self._trimmed_to + 1,
        )


def _integer(value: bytes | None, key: str) -> int:
    if value is None:
        return 0
    if not is_cursor(value):
        raise DecodeError(f"A cursor at the key {key!r} is damaged: {value!r:.40}. Nothing was changed.")
    return int(value)


def _entry_cursor(entry: Any, key: str) -> int:
    end: bytes = entry[0].partition(b"-")[0]
    return _integer(end, key)
