"""The verb `tail`: events as they are appended."""

import time
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated

import typer

from runic_redis.admin.describing import describe_one
from runic_redis.admin.watching import Change, Watcher, server_time
from runic_redis.cli.filters import Kind, Since, Where, make_filter, parse_moment, resolve_moment
from runic_redis.cli.options import PATIENT_S, AsJson, Namespace, Url, WorkflowIds, at_most, opened
from runic_redis.cli.output import EXIT_NO, EXIT_USAGE, note, stop
from runic_redis.cli.reading import print_records
from runic_redis.errors import CommitsLost, EventsTrimmed, FeedTrimmed, WorkflowNotFound
from runic_redis.operations.commits import Commit
from runic_redis.operations.records import Record
from runic_redis.store import RedisStore

# How often the indexes of a whole namespace are read: an event is shown well within 50 ms.
_LOOK_S = 0.015
# Remember the last shown cursor of at most this many workflows. For others, the time of the last look is used.
_REMEMBERED = 100_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def tail(
    workflow_ids: WorkflowIds = None,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    last: Annotated[
        int, typer.Option("--last", help="First print this many of the stored events of each ID.", min=0)
    ] = 0,
    since: Since = None,
    kind: Kind = None,
    where: Where = None,
    limit: Annotated[int, typer.Option(help="Stop after printing this many events; 0 for never.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Print events as they are appended, until Ctrl-C: of some workflows, or of the whole namespace.

    Named workflows need not exist yet. With --since, the stored events from that time on come first.
    """
    if last and not workflow_ids:
        stop("--last takes IDs: events of different workflows have no common order.", EXIT_USAGE)
    is_wanted = make_filter(kind, where)
    begin = None if since is None else parse_moment(since, "--since")
    with opened(url, namespace, may_be_new=True, deadline_s=PATIENT_S) as store:
        earliest = None if begin is None else resolve_moment(store, begin)
        if workflow_ids:
            found = _named(store, list(dict.fromkeys(workflow_ids)), last, earliest)
        elif store.context.keys.has_feed:
            found = _fed(store, earliest, kind)
        elif earliest is None:
            found = _all(store)
        else:
            stop("--since takes IDs, or a namespace with a feed: this one has none.", EXIT_USAGE)
        wanted = ((workflow_id, record) for workflow_id, record in found if is_wanted(record))
        for one in islice(wanted, at_most(limit)):
            print_records(store, [one], as_json=as_json, named=len(workflow_ids or ()) != 1)
            # The reader of a pipe wants each event as it comes.
            print(end="", flush=True)


def _named(
    store: RedisStore, workflow_ids: list[str], last: int, since: datetime | None
) -> Iterator[tuple[str, Record]]:
    after = {}
    for workflow_id in workflow_ids:
        after[workflow_id] = store.cursor(workflow_id)
        if not after[workflow_id]:
            continue
        for record in _stored(store, workflow_id, after[workflow_id], last, since):
            yield workflow_id, record
    yield from store.tail_many(after)


def _stored(store: RedisStore, workflow_id: str, until: int, last: int, since: datetime | None) -> Iterator[Record]:
    """Return the stored events to print first: the last few, those since a time, or the last few of these."""
    if last:
        records = store.stream_records(workflow_id, until=until, since=since, reverse=True)
        yield from reversed(list(_there(records, last)))
    elif since is not None:
        trimmed = store.run(describe_one(store.context, workflow_id), "tail").trimmed
        yield from store.stream_records(workflow_id, after=trimmed, until=until, since=since)


def _fed(store: RedisStore, since: datetime | None, kind: str | None) -> Iterator[tuple[str, Record]]:
    """Yield the events of all workflows, from the feed."""
    types = None if kind is None else [kind]
    try:
        feed = store.feed(since=since, start="beginning" if since else "now", types=types, wait_s=None)
    except FeedTrimmed:
        stop("The feed is trimmed past --since. Pass a later time, or run 'runic-redis feed --start rebuild'.", EXIT_NO)
    while True:
        try:
            for commit in feed:
                for record in _records(commit):
                    yield commit.workflow_id, record
        except (CommitsLost, EventsTrimmed, FeedTrimmed):
            note("Events were trimmed, or lost by the server, before they were printed. Continuing with new events.")
            feed = store.feed(start="now", types=types, wait_s=None)


def _records(commit: Commit) -> list[Record]:
    start = commit.cursor - len(commit.events)
    return [
        Record(cursor, commit.time, event, commit.metadata)
        for cursor, event in enumerate(commit.events, start=start + 1)
    ]


def _there(records: Iterator[Record], limit: int) -> Iterator[Record]:
    """Return at most so many records, up to the first that is trimmed; 0 for no limit."""
    try:
        yield from islice(records, at_most(limit))
    except EventsTrimmed:
        return


def _all(store: RedisStore) -> Iterator[tuple[str, Record]]:
    watcher = Watcher(store.context)
    store.run(watcher.open(), "tail")
    shown: OrderedDict[str, int] = OrderedDict()
    looked_s = time.monotonic()
    while True:
        before_s, looked_s = looked_s, time.monotonic()
        for change in store.run(watcher.look(), "tail"):
            try:
                for record in _new(store, change, shown, before_s):
                    yield change.workflow_id, record
            except (WorkflowNotFound, EventsTrimmed):
                shown.pop(change.workflow_id, None)  # it has no events, or was deleted
        time.sleep(max(0.0, looked_s + _LOOK_S - time.monotonic()))


def _new(store: RedisStore, change: Change, shown: OrderedDict[str, int], before_s: float) -> list[Record]:
    """Return the events of a workflow since its last shown event, and remember the last of them.

    Of a workflow that was not shown yet, return the events since the look before, which was at `before_s`.
    """
    known = shown.pop(change.workflow_id, None)
    since = _EPOCH + timedelta(milliseconds=change.since_us // 1000)
    new: list[Record] = []
    for record in _there_backwards(store, change.workflow_id):
        if not new and record.time < since:
            # Or, since the look before, the server's clock was set back or another server has taken over.
            now = store.run(server_time(store.context), "tail")
            since = now - timedelta(seconds=time.monotonic() - before_s)
        if record.cursor <= known if known is not None else record.time < since:
            break
        new.append(record)
    if known is not None and not new and store.cursor(change.workflow_id) < known:
        return _new(store, change, shown, before_s)  # it was deleted and made again
    if new or known is not None:
        shown[change.workflow_id] = new[0].cursor if new else known or 0
    if len(shown) > _REMEMBERED:
        shown.popitem(last=False)
    return new[::-1]


def _there_backwards(store: RedisStore, workflow_id: str) -> Iterator[Record]:
    return _there(store.stream_records(workflow_id, reverse=True), 0)
