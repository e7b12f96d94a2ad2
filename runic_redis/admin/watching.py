"""Watch a whole namespace: find the workflows that are written to, and count the events.

The index of each partition orders its workflows by the time of their last write. A watcher reads the top of each index
again and again. This takes one command for each partition, no memory of the server, and only permission to read. The
feed has each commit, but no write without events, such as a lease. So with a feed, a meter reads both.
"""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from runic_redis.arguments import MAX_CURSOR, is_cursor
from runic_redis.context import Context
from runic_redis.operations.feed_entries import COMMIT, DELETED, IMPORTED, FeedEntry, read_entry
from runic_redis.operations.records import EPOCH, cursor_or_zero
from runic_redis.positions import Place
from runic_redis.protocol.effects import Operation, key_command
from runic_redis.protocol.refusals import ask_all, server_us
from runic_redis.protocol.resp import scored_ids

# Remember the cursors of at most this many workflows.
_REMEMBERED = 100_000
# Sample at most this many unknown workflows per look and extrapolate the rest.
_MOST_SAMPLED = 200
# Read at most this many changes of a partition per look. The next look returns the rest.
_AT_ONCE = 1000
# The same for entries of a feed, which are small.
_MOST_ENTRIES = 4096


class Change(NamedTuple):
    """A workflow that was written to.

    Attributes:
        workflow_id: the workflow.
        time_us: the time of the write, in microseconds since 1970, by the server's clock.
        since_us: the entries from this time on are new.
    """

    workflow_id: str
    time_us: int
    since_us: int


def server_time(context: Context) -> Operation[datetime]:
    """Return the time by the server's clock."""
    return EPOCH + timedelta(microseconds=(yield from server_us(context.keys.config)))


class Watcher:
    """A watcher that finds the workflows that are written to, from when it is opened.

    It returns a workflow once, however often it was written to between two looks. Clocks do not matter: the scores of
    a partition's index only grow.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._since: list[int] = []
        # For each partition, the time from which entries are new.
        self._new_from: list[int] = []
        # The workflows that were written to in exactly that microsecond. More of them may follow.
        self._told: list[set[str]] = []

    def open(self) -> Operation[None]:
        """Start now."""
        keys = self._context.keys.indexes()
        commands = [key_command("ZREVRANGE", key, "0", "0", "WITHSCORES") for key in keys]
        tops = [scored_ids(page, key) for key, page in zip(keys, (yield from ask_all(commands)), strict=True)]
        self._since = [int(min(max(top[0][1], 0), MAX_CURSOR)) if top else 0 for top in tops]
        self._told = [{workflow_id for workflow_id, _ in top} for top in tops]
        # Entries have their times in milliseconds: those in the millisecond of the last write are not new.
        self._new_from = [since + 1000 for since in self._since]

    def look(self) -> Operation[list[Change]]:
        """Return the changes since the last look, in the order of their times."""
        keys = self._context.keys.indexes()
        commands = [
            key_command("ZRANGEBYSCORE", key, str(since), "+inf", "WITHSCORES", "LIMIT", "0", str(_AT_ONCE + len(told)))
            for key, since, told in zip(keys, self._since, self._told, strict=True)
        ]
        changes: list[Change] = []
        for number, reply in enumerate((yield from ask_all(commands))):
            since, told, new_from = self._since[number], self._told[number], self._new_from[number]
            for workflow_id, score in scored_ids(reply, keys[number]):
                if not 0 <= score <= MAX_CURSOR:
                    continue  # it is not a time
                time_us = int(score)
                if time_us == since and workflow_id in told:
                    continue
                changes.append(Change(workflow_id, time_us, new_from))
                if time_us > self._since[number]:
                    self._since[number], self._told[number] = time_us, set()
                    self._new_from[number] = time_us
                self._told[number].add(workflow_id)
        return sorted(changes, key=lambda change: change.time_us)


class FeedWatcher:
    """A watcher that reads the new entries of the feeds, from when it is opened.

    It reads no events. It returns each entry once. If entries were trimmed or lost before it read them, it goes on with
    the newest ones.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        # The place of the last entry in each partition. It is without a time if the feed has no entry.
        self._places: dict[int, Place] = {}

    def open(self) -> Operation[None]:
        """Start now."""
        yield from self._restart(self._context.keys.partition_numbers())

    def look(self) -> Operation[list[FeedEntry]]:
        """Return the entries since the last look, in the order of their times.

        Raises:
            DecodeError: an entry is damaged.
        """
        keys = self._context.keys
        # The last known entry comes first, if the server still has it.
        firsts = [place.entry_id if place.ms else f"{place.position + 1}-0" for place in self._places.values()]
        commands = [
            key_command("XRANGE", keys.feed(number), first, "+", "COUNT", str(_MOST_ENTRIES))
            for number, first in zip(self._places, firsts, strict=True)
        ]
        found: list[FeedEntry] = []
        elsewhere: list[int] = []
        replies = yield from ask_all(commands)
        for (number, place), reply in zip(list(self._places.items()), replies, strict=True):
            entries = [read_entry(raw, keys.feed(number)) for raw in reply]
            if place.ms and (not entries or entries.pop(0).place != place):
                elsewhere.append(number)
            elif entries:
                self._places[number] = entries[-1].place
                found += entries
        if elsewhere:
            yield from self._restart(elsewhere)
        return sorted(found, key=lambda entry: entry.ms)

    def _restart(self, numbers: Sequence[int]) -> Operation[None]:
        """Go on with the newest entries of some partitions."""
        keys = self._context.keys
        commands = [key_command("XREVRANGE", keys.feed(number), "+", "-", "COUNT", "1") for number in numbers]
        commands += [key_command("HGET", keys.partition(number), "position") for number in numbers]
        replies = yield from ask_all(commands)
        for number, last, position in zip(numbers, replies[: len(numbers)], replies[len(numbers) :], strict=True):
            if last:
                self._places[number] = read_entry(last[0], keys.feed(number)).place
            else:
                self._places[number] = Place(cursor_or_zero(position))


class Reading(NamedTuple):
    """The changes between two looks.

    Attributes:
        changes: the workflows that were written to, in the order of their times. With a feed, also those that were
            deleted.
        events: how many events were appended to them. With a feed, this is exact. Without one, it is exact for
            workflows that are new or were seen before; for others it is the number of events in their last entry.
    """

    changes: list[Change]
    events: int


class Meter:
    """A counter of the events that are appended to a namespace, from when it is opened.

    Each look reads the index of each partition, and its feed if there is one.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._watcher = Watcher(context)
        self._feed = FeedWatcher(context)
        self._cursors: OrderedDict[str, int] = OrderedDict()

    def open(self) -> Operation[None]:
        """Start now."""
        self._cursors.clear()
        yield from self._watcher.open()
        if self._context.keys.has_feed:
            yield from self._feed.open()

    def look(self) -> Operation[Reading]:
        """Return the changes since the last look."""
        if self._context.keys.has_feed:
            return (yield from self._look_at_feed())
        changes = yield from self._watcher.look()
        if not changes:
            return Reading([], 0)
        keys = [self._context.keys.workflow(change.workflow_id) for change in changes]
        found = yield from ask_all([key_command("HMGET", one.meta, "cursor", "created") for one in keys])
        counted = 0
        unknown: list[tuple[Change, int]] = []
        for change, (cursor, created) in zip(changes, found, strict=True):
            now, born_us = cursor_or_zero(cursor), cursor_or_zero(created)
            before = 0 if born_us > change.since_us else self._cursors.get(change.workflow_id)
            if before is None or before > now:
                unknown.append((change, now))
            else:
                counted += now - before
            self._cursors[change.workflow_id] = now
            self._cursors.move_to_end(change.workflow_id)
        counted += yield from self._last_entries(unknown)
        while len(self._cursors) > _REMEMBERED:
            self._cursors.popitem(last=False)
        return Reading(changes, counted)

    def _look_at_feed(self) -> Operation[Reading]:
        changes = {change.workflow_id: change for change in (yield from self._watcher.look())}
        entries = yield from self._feed.look()
        for entry in entries:
            if entry.kind == DELETED and entry.workflow_id not in changes:
                time_us = entry.ms * 1000
                changes[entry.workflow_id] = Change(entry.workflow_id, time_us, time_us)
        events = sum(entry.span for entry in entries if entry.kind in {COMMIT, IMPORTED})
        return Reading(sorted(changes.values(), key=lambda change: change.time_us), events)

    def _last_entries(self, changes: Sequence[tuple[Change, int]]) -> Operation[int]:
        """Return about how many events the new last entries hold, by the cursors at which the entries before end."""
        some = changes[:_MOST_SAMPLED]
        if not some:
            return 0
        keys = [self._context.keys.workflow(change.workflow_id).events for change, _ in some]
        replies = yield from ask_all([key_command("XREVRANGE", key, "+", "-", "COUNT", "2") for key in keys])
        held = 0
        for (change, now), entries in zip(some, replies, strict=True):
            (_, ms), (before, _) = [entry[0].split(b"-") for entry in (*entries, (b"0-0",), (b"0-0",))][:2]
            # (A snapshot or a lease changes a workflow without an entry.)
            if is_cursor(ms) and is_cursor(before) and int(ms) >= change.since_us // 1000:
                held += max(0, now - int(before))
        return held * len(changes) // len(some)
