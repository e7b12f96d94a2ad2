"""Reading the notifications of an application: the events of its feed."""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING
from uuid import UUID

from eventsourcing.persistence import Notification

from runic_redis.context import Context
from runic_redis.eventsourcing.stored_events import numbered
from runic_redis.operations.commits import Commit
from runic_redis.operations.feed import FeedReader
from runic_redis.operations.records import read_cursor
from runic_redis.positions import Place
from runic_redis.protocol.effects import Operation, key_command
from runic_redis.protocol.refusals import ask

if TYPE_CHECKING:
    from runic_redis.eventsourcing.recorders import IdType


def max_position(context: Context) -> Operation[int]:
    """Return the position of the last event of the feed; 0 if there is none."""
    key = context.keys.partition(0)
    return read_cursor((yield from ask(key_command("HGET", key, "position"))), key)


def select_notifications(
    context: Context, after: int, limit: int, stop: int | None, topics: Collection[str], id_type: "IdType"
) -> Operation[list[Notification]]:
    """Return notifications with ids above `after` and at most `stop`, of these topics; all if there are none."""
    last = yield from max_position(context)
    until = last if stop is None else min(stop, last)
    found: list[Notification] = []
    if after >= until:
        return found
    reader = FeedReader(context, {0: Place(after)})
    yield from reader.open()
    while len(found) < limit:
        page = yield from reader.next_page()
        if not page:
            break
        for commit in page:
            found += notifications_of(commit, after, topics, id_type)
        if page[-1].position >= until:
            break
    reader.close()
    found = [one for one in found if one.id <= until]
    return found[:limit]


def notifications_of(commit: Commit, after: int, topics: Collection[str], id_type: "IdType") -> Iterator[Notification]:
    """Return the notifications of a commit with ids above `after`, of these topics; all if there are none."""
    events = commit.events
    originator_id = UUID(commit.workflow_id) if id_type == "uuid" else commit.workflow_id
    first = commit.position - len(events) + 1
    for position, (version, one) in enumerate(numbered(events, commit.cursor - len(events)), first):
        if position > after and (not topics or one.topic in topics):
            yield Notification(originator_id, version, one.topic, one.state, position)
