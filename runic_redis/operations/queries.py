"""Reading the events of a namespace that match a query on their tags, in the order of their positions.

The namespace has one partition and a feed. One script finds a page of commits and reads their events. It needs the
keys of their streams, and the store does not know them before. So the first call passes those of the workflows that the
last read found. If the page has commits of others, the script names these, and the call is made again with all keys.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from runic_redis.arguments import Query, check_count, check_cursor, check_query
from runic_redis.codec import Multiplied, expanded
from runic_redis.context import Context
from runic_redis.errors import DecodeError, InvalidArgument, StoreError
from runic_redis.operations.feed import FeedReader
from runic_redis.operations.records import EPOCH, decode_commit, read_cursor
from runic_redis.positions import Place
from runic_redis.protocol.effects import Argument, Batch, Operation, call_script, key_command
from runic_redis.protocol.refusals import answer, ask

# How many commits a page has at most, and about how many bytes of events.
_COMMITS = 256
_BYTES = 4 * 1024 * 1024
# How many of the workflows that the last read found are guessed by the next one.
_GUESSED = 16


class MatchedEvent(NamedTuple):
    """An event that a query has found.

    Attributes:
        position: its position in the namespace: positions count all events, and only grow.
        workflow_id: its workflow.
        cursor: the workflow's cursor after it.
        time: the time of its commit, by the server's clock, to the millisecond.
        event: the event.
        metadata: the metadata of its commit, or None.
    """

    position: int
    workflow_id: str
    cursor: int
    time: datetime
    event: Any
    metadata: dict[str, Any] | None


class Matches(NamedTuple):
    """The result of `read_where`.

    Attributes:
        events: the events, in the order of their positions.
        head: the position up to which these are all events that match: pass it as ``after=`` to the next `read_where`,
            or to `append_all` with ``unless=``. If the limit ended the read, it is the position of the last event;
            otherwise, it is the position of the namespace when the read began.
    """

    events: list[MatchedEvent]
    head: int


class _Found(NamedTuple):
    """A commit of a page: its place, the events that match, counted back from its last one, and its entries."""

    position: int
    cursor: int
    backs: bytes
    workflow_id: str
    entries: list[Any]


def read_where(context: Context, query: Query, after: int = 0, limit: int | None = None) -> Operation[Matches]:
    """Return the events after a position that match a query, at most `limit`, and the position up to which they are."""
    items = check_query(query)
    check_cursor(after, "after")
    most = None if limit is None else check_count(limit, "limit")
    check_indexed(context, "read_where")
    if most == 0:
        return Matches([], after)
    if items == EVERY:
        return (yield from _read_all(context, after, most))
    events: list[MatchedEvent] = []
    asked, start, upto = after, after + 1, ""
    while True:
        count = _COMMITS if most is None else min(_COMMITS, most - len(events))
        head, searched, commits = yield from _read_page(context, items, (asked, start, upto), count)
        for commit in commits:
            events += _decoded(context, commit, asked)
        if most is not None and len(events) >= most:
            del events[most:]
            return Matches(events, events[-1].position)
        if searched >= head:
            return Matches(events, max(head, after))
        if searched < start - 1:
            raise _damaged(context)
        start, upto = searched + 1, str(head)


# The query that matches every event.
EVERY: tuple[tuple[bytes, ...], ...] = ((),)


def check_indexed(context: Context, name: str) -> None:
    """Check that the namespace has an index of its tags.

    Raises:
        InvalidArgument: it has none.
    """
    if context.keys.tagged is None:
        keys = context.keys
        raise InvalidArgument(
            f"{name} with a query needs a namespace with one partition and a feed, and {keys.namespace!r} has "
            f"partitions={keys.partitions} and feed={keys.has_feed}. Nothing was sent. Open a new namespace with "
            "partitions=1 and feed=True, and copy your data there: both are fixed when a namespace is created."
        )


def query_arguments(items: Sequence[Sequence[bytes]]) -> list[Argument]:
    """Return the arguments by which a script takes a query."""
    args: list[Argument] = [str(len(items))]
    for tags in items:
        args += (str(len(tags)), *tags)
    return args


def _read_page(
    context: Context, items: Sequence[Sequence[bytes]], place: tuple[int, int, str], count: int
) -> Operation[tuple[int, int, list[_Found]]]:
    """Return the position up to which to read, that up to which this page has all commits, and the page."""
    keys = context.keys
    after, start, upto = place
    known = dict.fromkeys(context.matched)
    while True:
        streams = [keys.events(0, workflow_id) for workflow_id in known]
        args: list[Argument] = [str(after), str(start), upto, str(count), str(_BYTES), *query_arguments(items), *known]
        call = call_script("find_where", [keys.tagged or "", keys.partition(0), *streams], args)
        (raw,) = yield Batch([call], own_connection=True)
        reply = answer(raw, call)
        try:
            head, searched, unknown = reply[:3]
            names = [name.decode() for name in reply[3 : 3 + unknown]]
            if not unknown:
                commits = list(_commits(reply))
                break
        except (ValueError, TypeError, AttributeError) as error:
            raise _damaged(context) from error
        if set(names) <= known.keys():
            raise _damaged(context)
        upto = upto or str(head)
        known |= dict.fromkeys(names)
    context.matched = tuple(dict.fromkeys(commit.workflow_id for commit in commits))[:_GUESSED] or context.matched
    return head, searched, commits


def _commits(reply: Sequence[Any]) -> Iterator[_Found]:
    at = 3
    while at < len(reply):
        position, cursor, backs, workflow_id, count = reply[at : at + 5]
        at += 5
        entries = [reply[place : place + 4] for place in range(at, at + 4 * count, 4)]
        at += 4 * count
        yield _Found(position, int(cursor), backs, workflow_id.decode(), entries)


def _decoded(context: Context, commit: _Found, after: int) -> Iterator[MatchedEvent]:
    """Yield the events of a commit that match.

    Raises:
        UnknownEventType: the commit holds an event of a type that is not registered.
        DecodeError: the stored data is damaged.
    """
    wanted = None if not commit.backs else {int(back) for back in commit.backs.split(b",")}
    if not commit.entries:
        raise _damaged(context)
    if len(commit.entries) == 1 and (events := _plain_events(context, commit)) is not None:
        time = EPOCH + timedelta(milliseconds=int(commit.entries[0][0].partition(b"-")[2]))
        for back, event in zip(range(len(events) - 1, -1, -1), events, strict=True):
            if commit.position - back > after and (wanted is None or back in wanted):
                yield MatchedEvent(commit.position - back, commit.workflow_id, commit.cursor - back, time, event, None)
        return
    for entry_id, header, payload, about in commit.entries:
        raw = entry_id, (header, payload, b"i", b"", b"m", about) if about else (header, payload, b"i", b"")
        entry = decode_commit(context, commit.workflow_id, raw, with_records=True)
        for cursor, stored in enumerate(entry.events, entry.start + 1):
            back = commit.cursor - cursor
            position = commit.position - back
            if position > after and (wanted is None or back in wanted):
                for event in expanded([stored]) if entry.multiplied else (stored,):
                    yield MatchedEvent(position, commit.workflow_id, cursor, entry.time, event, entry.metadata)


def _plain_events(context: Context, commit: _Found) -> list[Any] | None:
    """Return the events of a commit that is one entry without metadata; None for another, and for a damaged one."""
    _, header, payload, about = commit.entries[0]
    if about or context.observer is not None:
        return None
    try:
        events = context.codec.decode_entry(header, payload)
    except StoreError:
        return None
    return None if type(events) is Multiplied else events


def _read_all(context: Context, after: int, most: int | None) -> Operation[Matches]:
    """Return all events after a position: the feed has them."""
    key = context.keys.partition(0)
    head = read_cursor((yield from ask(key_command("HGET", key, "position"))), key)
    if head <= after:
        return Matches([], after)
    reader = FeedReader(context, {0: Place(after)}, until=head)
    events: list[MatchedEvent] = []
    try:
        yield from reader.open()
        while not reader.is_done and (commits := (yield from reader.next_page())):
            for commit in commits:
                for back, event in zip(range(len(commit.events) - 1, -1, -1), commit.events, strict=True):
                    if commit.position - back > after:
                        events.append(
                            MatchedEvent(
                                *(commit.position - back, commit.workflow_id, commit.cursor - back),
                                *(commit.time, event, commit.metadata),
                            )
                        )
            if most is not None and len(events) >= most:
                return Matches(events[:most], events[most - 1].position)
    finally:
        reader.close()
    return Matches(events, head)


def _damaged(context: Context) -> DecodeError:
    return DecodeError(
        f"The index of tags at the key {context.keys.tagged!r} is damaged: it names a commit that is not stored, or "
        "something that is no commit. Nothing was changed. runic-redis verify --repair restores it from the events."
    )
