"""Losses in the feed, and in the streams behind it: entries and events that were trimmed, deleted or lost.

The partition's hash has the position of the last entry, and the ID of the last entry that was trimmed. A failover or a
flush takes both back with the entries. Then a reader's place is above the position, or another entry is at its place.
"""

from collections.abc import Mapping
from typing import Any

from runic_redis.arguments import is_cursor
from runic_redis.context import Context
from runic_redis.errors import CommitsLost, DecodeError, FeedTrimmed
from runic_redis.operations.feed_entries import DELETED, FeedEntry, read_entry
from runic_redis.operations.records import events_trimmed, read_cursor
from runic_redis.positions import Place
from runic_redis.protocol.effects import Batch, Operation, key_command
from runic_redis.protocol.refusals import ask, checked

# How many entries are searched at once for a deletion.
_AT_ONCE = 1000


def check_places(context: Context, places: Mapping[int, Place]) -> Operation[None]:
    """Check that a reader can go on from its place in each partition.

    Raises:
        FeedTrimmed: commits after it were trimmed from the feed.
        CommitsLost: the server has lost commits before it.
    """
    keys = context.keys
    commands = []
    for number, place in places.items():
        # The counters come first: an entry that they count must then be there.
        commands.append(key_command("HMGET", keys.partition(number), "position", "feed_trimmed"))
        own = place.entry_id if place.ms else "+"
        commands.append(key_command("XRANGE", keys.feed(number), own, own, "COUNT", "1"))
        commands.append(key_command("XRANGE", keys.feed(number), f"{place.position + 1}-0", "+", "COUNT", "1"))
    replies = iter(checked((yield Batch(commands, own_connection=True, all_or_none=True)), commands))
    for number, place in places.items():
        (position, trimmed), own_entry, following = next(replies), next(replies), next(replies)
        last = read_cursor(position, keys.partition(number))
        horizon = read_horizon(trimmed, keys.partition(number))
        if place.position < horizon.position:
            raise feed_trimmed(number, horizon, f"The commits after position {place.position}")
        # All entries up to the reader's may be trimmed. A rebuild of the partition may not be complete.
        is_there = not place.ms or place.entry_id == horizon.entry_id or bool(own_entry)
        expected = read_entry(following[0], keys.feed(number)).start if following else last
        if last < place.position or not is_there or expected > place.position:
            raise positions_lost(number, place.position, last if last < place.position else expected)


def read_horizon(trimmed: bytes | None, key: str) -> Place:
    """Return the place of the last entry that was trimmed from a feed.

    Raises:
        DecodeError: it is damaged.
    """
    position, _, ms = (trimmed or b"0-0").partition(b"-")
    if not is_cursor(position) or not is_cursor(ms):
        raise DecodeError(
            f"The place up to which the feed was trimmed, in the field feed_trimmed of the key {key!r}, is damaged: "
            f"{trimmed!r:.40}. Nothing was changed. runic-redis verify reports the damage; with --repair it begins the "
            "feed again."
        )
    return Place(int(position), int(ms))


def positions_lost(partition: int, expected: int, actual: int) -> CommitsLost:
    """Return the error for a feed that does not have the commits up to, or after, a reader's position any more."""
    return CommitsLost(
        f"The feed of partition {partition} was read up to position {expected}, and the server now has another "
        f"history there (position {actual}): it has lost commits. It failed before its disk or a replica had them, or "
        "was flushed. Nothing was changed. Begin again with start='rebuild', which reads everything that the workflows "
        "hold now. A stronger durability prevents the loss.",
        expected=expected,
        actual=actual,
    )


def events_lost(partition: int, entry: FeedEntry, actual: int) -> CommitsLost:
    """Return the error for a commit in the feed without all of its events; `actual` is the cursor before them."""
    return CommitsLost(
        f"Events of the workflow {entry.workflow_id!r} up to cursor {entry.cursor} are missing, and the feed has their "
        f"commit at position {entry.position} of partition {partition}. They were neither trimmed nor deleted: the "
        "server has lost them. Nothing was changed. runic-redis verify reports what is lost.",
        expected=entry.cursor,
        actual=actual,
    )


def feed_trimmed(partition: int, horizon: Place, wanted: str) -> FeedTrimmed:
    """Return the error for commits that were trimmed from a feed."""
    return FeedTrimmed(
        f"{wanted} were requested from the feed of partition {partition}, which is trimmed up to position "
        f"{horizon.position}. Nothing was changed. Begin again with start='rebuild', which reads everything that the "
        "workflows hold now and then goes on with the feed.",
        partition=partition,
        first=horizon.position + 1,
    )


class Missing:
    """Finds out why the events of a commit in the feed are missing."""

    def __init__(self, context: Context) -> None:
        self._context = context
        # For each partition, the positions between which the feed was searched, and the last deletion there of each
        # workflow.
        self._searched: dict[int, tuple[int, int, dict[str, int]]] = {}

    def settle(self, partition: int, entry: FeedEntry) -> Operation[None]:
        """Return if the workflow was deleted after the commit: then its events are gone.

        Raises:
            EventsTrimmed: the events were trimmed.
            CommitsLost: the server has lost them.
        """
        if (yield from self.is_deleted(partition, entry)):
            return
        keys = self._context.keys.workflow(entry.workflow_id)
        trimmed = read_cursor((yield from ask(key_command("HGET", keys.meta, "trimmed"))), keys.meta)
        if entry.cursor <= trimmed:
            raise events_trimmed(entry.workflow_id, trimmed, remedy="Begin again with start='rebuild'.")
        if (yield from self.is_deleted(partition, entry)):
            return
        raise events_lost(partition, entry, trimmed)

    def is_deleted(self, partition: int, entry: FeedEntry) -> Operation[bool]:
        """Return whether the feed has a deletion of the workflow after an entry."""
        first, upto, deletions = self._searched.get(partition, (entry.position, entry.position, {}))
        if entry.position < first:
            first, upto, deletions = entry.position, entry.position, {}
        upto = max(upto, entry.position)
        key = self._context.keys.feed(partition)
        while deletions.get(entry.workflow_id, 0) <= entry.position:
            page: list[Any] = yield from ask(key_command("XRANGE", key, f"{upto + 1}-0", "+", "COUNT", str(_AT_ONCE)))
            if not page:
                return False
            for raw in page:
                found = read_entry(raw, key)
                upto = found.position
                if found.kind == DELETED:
                    deletions[found.workflow_id] = found.position
            self._searched[partition] = first, upto, deletions
        return True
