"""Reading the notifications of an application: the events of its feed."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventsourcing.persistence import Notification

from runic_redis.arguments import MAX_CURSOR
from runic_redis.context import Context
from runic_redis.errors import DecodeError
from runic_redis.eventsourcing.stored_events import Stored, with_versions
from runic_redis.operations.commits import Commit
from runic_redis.operations.feed import FeedReader
from runic_redis.operations.feed_entries import COMMIT, IMPORTED, FeedEntry
from runic_redis.operations.feed_losses import Missing, check_places
from runic_redis.operations.feed_pages import PAGE_BYTES, Part, Source
from runic_redis.operations.records import decode_commit, read_cursor
from runic_redis.positions import Place, Positions
from runic_redis.protocol.effects import Batch, Command, Operation, key_command
from runic_redis.protocol.refusals import ask, checked

if TYPE_CHECKING:
    from runic_redis.eventsourcing.recorders import IdType

# How many commits are read at once.
_MOST_COMMITS = 1000
# Notifications that follow each other are often of few aggregates.
_uuid = lru_cache(maxsize=4096)(UUID)


def max_position(context: Context) -> Operation[int]:
    """Return the position of the last event of the feed; 0 if there is none."""
    key = context.keys.partition(0)
    return read_cursor((yield from ask(key_command("HGET", key, "position"))), key)


class NotificationForm:
    """Makes notifications of events.

    Args:
        after: only those with higher ids.
        topics: only those of these topics; all if there are none.
        id_type: the type of the ids of aggregates.

    Attributes:
        topics: the topics.
    """

    def __init__(self, after: int, topics: Collection[str], id_type: "IdType") -> None:
        self._after = after
        self.topics = frozenset(topics)
        self._id_type = id_type

    def of_commit(self, commit: Commit) -> list[Notification]:
        """Return the notifications of a commit."""
        return self.of_events(commit.workflow_id, commit.cursor, commit.position, commit.events)

    def may_fit(self, context: Context, header: bytes) -> bool:
        """Return whether an entry with this header may have events of the topics."""
        return not (self.topics and self.topics.isdisjoint(context.codec.type_names(header)))

    def of_events(self, workflow_id: str, cursor: int, position: int, events: Sequence[Stored]) -> list[Notification]:
        """Return the notifications of the events of a commit; `cursor` and `position` are those after it."""
        try:
            originator_id = _uuid(workflow_id) if self._id_type == "uuid" else workflow_id
            first = position - len(events) + 1
            after, topics = self._after, self.topics
            return [
                Notification(originator_id, version, topic, state, place)
                for place, (version, topic, state) in enumerate(with_versions(events, cursor - len(events)), first)
                if place > after and (not topics or topic in topics)
            ]
        except (ValueError, TypeError):
            raise DecodeError(
                f"The workflow {workflow_id!r:.600} is no aggregate of eventsourcing, or its id is of the other type. "
                "Nothing was changed. Give each application its own namespace, and set ORIGINATOR_ID_TYPE."
            ) from None


class _NotificationReader:
    """Reads notifications, from the feed and from the streams of the aggregates.

    A page takes two round trips: one for the entries of the feed, and one for their events. The second one reads the
    entries of the next page, too.
    """

    def __init__(self, context: Context, after: int, limit: int, stop: int, form: NotificationForm) -> None:
        self._context = context
        self._limit = limit
        self._stop = stop
        self._form = form
        self._source = Source(context, 0, Place(after), None)
        self._missing = Missing(context)
        self._found: list[Notification] = []
        # How many entries the last read asked for.
        self._wanted = 0

    def read(self) -> Operation[list[Notification]]:
        """Return the notifications."""
        source, found = self._source, self._found
        while len(found) < self._limit:
            if not source.entries and not source.at_end:
                yield from self._read_entries()
            steps = self._next_steps()
            if not steps:
                break
            if steps[0].kind is IMPORTED:
                yield from self._read_import(steps[0])
            else:
                yield from self._read_events(steps)
        while found and found[-1].id > self._stop:
            found.pop()
        return found[: self._limit]

    def _read_entries(self) -> Operation[None]:
        count = min(self._limit - len(self._found), _MOST_COMMITS)
        command = key_command("XRANGE", self._source.key, f"{self._source.read_to + 1}-0", "+", "COUNT", str(count))
        yield from self._take((yield from _ask_alone(command)), count)

    def _take(self, entries: Sequence[Any], wanted: int) -> Operation[None]:
        """Take entries of the feed, of so many that were wanted."""
        source = self._source
        source.at_end = len(entries) < wanted
        # Of entries with many events, the first ones have enough.
        most = self._stop if self._form.topics else source.read_to + self._limit - len(self._found)
        for entry in entries:
            if source.read_to >= most or not source.take((entry,)):
                source.at_end = False
                break
        if entries and not source.entries:
            yield from check_places(self._context, {0: Place(source.read_to)})

    def _next_steps(self) -> list[FeedEntry]:
        """Return the entries of the next page. One of an import is a page by itself."""
        entries, size = self._source.entries, 0
        steps: list[FeedEntry] = []
        while entries and entries[0].start < self._stop and size < PAGE_BYTES:
            if entries[0].kind is IMPORTED and steps:
                break
            steps.append(entries.popleft())
            size += steps[-1].size
            if steps[-1].kind is IMPORTED:
                break
        return steps

    def _read_events(self, steps: Sequence[FeedEntry]) -> Operation[None]:
        """Read the events of a page, and the entries of the next page."""
        source, part = self._source, Part(self._source)
        for step, entry in enumerate(steps):
            part.add(entry, step, "")
        wanted = self._limit - len(self._found)
        if not self._form.topics:
            wanted -= sum(entry.span for entry in steps)
        if not (source.entries or source.at_end) and wanted > 0:
            part.fill_size = min(wanted, _MOST_COMMITS)
        reply = yield from _ask_alone(part.command())
        if not reply[0]:
            # The feed has another history, or was trimmed: begin again at the last notification.
            source.reset(Place(source.place.position))
            yield from check_places(self._context, {0: source.place})
            return
        pages: list[Any] = [()] * len(steps)
        ahead = part.take(reply, pages)
        for entry, page in zip(steps, pages, strict=True):
            if page:
                self._found += self._decode(entry, page)
            elif entry.kind is COMMIT:
                yield from self._missing.settle(0, entry)
        source.move(steps[-1].place)
        if part.fill_size:
            yield from self._take(ahead, part.fill_size)

    def _decode(self, entry: FeedEntry, page: Any) -> list[Notification]:
        context, workflow_id = self._context, entry.workflow_id
        events: list[Any] = []
        for entry_id, header, payload, _ in [(entry.end_id, *page)] if type(page) is tuple else page:
            if type(page) is tuple and not self._form.may_fit(context, header):
                return []
            try:
                events += context.codec.decode_entry(header, payload)
            except DecodeError:
                # This one names the entry in its error.
                decode_commit(context, workflow_id, (entry_id, (header, payload)), with_records=False)
        return self._form.of_events(workflow_id, entry.cursor, entry.position, events)

    def _read_import(self, entry: FeedEntry) -> Operation[None]:
        """Read the commits of an imported aggregate, which have one entry."""
        until = Positions((Place(entry.position),))
        reader = FeedReader(self._context, {0: Place(self._source.place.position)}, until=until)
        yield from reader.open()
        while page := (yield from reader.next_page()):
            for commit in page:
                self._found += self._form.of_commit(commit)
        self._source.move(entry.place)


def _ask_alone(command: Command) -> Operation[Any]:
    """Return the reply to a command on its own connection, so that a large one does not delay other calls."""
    commands = (command,)
    return checked((yield Batch(commands, own_connection=True)), commands)[0]


def read_notifications(
    context: Context, after: int, limit: int, *, stop: int | None, form: NotificationForm
) -> Operation[list[Notification]]:
    """Return at most `limit` notifications with ids above `after` and at most `stop`."""
    if limit <= 0 or (stop is not None and stop <= after):
        return []
    return (yield from _NotificationReader(context, after, limit, MAX_CURSOR if stop is None else stop, form).read())
