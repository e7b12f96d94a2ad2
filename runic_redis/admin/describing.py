"""Describe workflows without their contents, and count workflows and events."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain, pairwise
from math import inf
from typing import Any, NamedTuple

from runic_redis.arguments import MAX_CURSOR, check_hash, check_workflow_id, is_cursor
from runic_redis.context import Context
from runic_redis.errors import DecodeError, StoreError, WorkflowNotFound
from runic_redis.events import UnknownEvent
from runic_redis.events.plain import event_type
from runic_redis.operations.ending import last_end
from runic_redis.operations.labels import labels_of
from runic_redis.operations.lost_meta import is_behind, is_left_over
from runic_redis.operations.records import EPOCH, DecodedEntry, cursor_or_zero, decode_commit, entry_cursor
from runic_redis.operations.states import STATE_FIELDS, State, state_of
from runic_redis.protocol.effects import Batch, Command, ErrorReply, Operation, key_command
from runic_redis.protocol.refusals import answer, answer_or_foreign, ask_all, checked, time_us
from runic_redis.protocol.resp import pairs

# The numbers in a meta hash that a description checks.
_NUMBERS = (
    *("created", "cursor", "trimmed", "snapshot", "log", "completed", "expires", "fence", "lease_until", "lease_ms"),
    *("parked", "attempts", "inbox", "sliding", "touched"),
)
# The type of a larger fact is not read.
_MOST_LABELLED = 64 * 1024


class Description(NamedTuple):
    """A workflow without its contents.

    Attributes:
        workflow_id: its id.
        state: "completed"; "parked", out of its queue; "leased", a worker has its lease; "waiting", in its queue; or
            "open", in no queue.
        cursor: how many events it has had.
        trimmed: the cursor of the last trimmed event; 0 if none is trimmed.
        entries: how many entries its stream has: one for each commit, or several for a large commit.
        created: the time of its first write.
        written: the time of its last write; None if it is not in the index.
        queue: its queue; None if it never was in one. It stays when the workflow is parked or completed.
        due: when it can be claimed from its queue. None if it is in none, or once it is woken.
        attempts: how often it was claimed since its last commit under a lease.
        parked: when it was parked, or None.
        parked_reason: why it was parked.
        timer: the name of the timer for which it waits; None if it waits for none.
        timer_until: when that timer is over; None if the timer has no such time.
        inbox: how many messages are in its inbox.
        attributes: its attributes.
        parent: its parent, or None.
        completed: when it was completed, or None.
        expires: when it will be deleted, or None.
        sliding_s: for how many seconds it is kept from its last write on; None if writes do not extend its lifetime.
        snapshot_cursor: the cursor of its snapshot; None if there is none.
        snapshot_time: when the snapshot was saved.
        snapshot_bytes: the size of the snapshot.
        log_bytes: the size of the log; 0 if there is none.
        lease_owner: the last owner of the lease; None if the lease was released, or there was none.
        lease_until: when the lease ends.
        facts: how many facts it refers to.
        commit_ids: how many commit ids are stored apart from the commits.
        damaged: the parts that cannot be read, and why.
    """

    workflow_id: str
    state: State
    cursor: int
    trimmed: int
    entries: int
    created: datetime | None
    written: datetime | None
    queue: str | None
    due: datetime | None
    attempts: int
    parked: datetime | None
    parked_reason: str | None
    timer: str | None
    timer_until: datetime | None
    inbox: int
    attributes: dict[str, str]
    parent: str | None
    completed: datetime | None
    expires: datetime | None
    sliding_s: float | None
    snapshot_cursor: int | None
    snapshot_time: datetime | None
    snapshot_bytes: int
    log_bytes: int
    lease_owner: str | None
    lease_until: datetime | None
    facts: int
    commit_ids: int
    damaged: tuple[str, ...]


def describe(context: Context, workflow_ids: Sequence[str]) -> Operation[list[Description]]:
    """Return descriptions of workflows, read in one round trip, or two; none of a workflow that does not exist."""
    clock = Command(("TIME",), context.keys.config)
    asked = [_describing_commands(context, check_workflow_id(workflow_id)) for workflow_id in workflow_ids]
    replies = iter((yield Batch([clock, *chain.from_iterable(asked)])))
    now_ms = time_us(answer(next(replies), clock)) // 1000
    found = []
    queued: dict[str, Command] = {}
    for workflow_id, commands in zip(workflow_ids, asked, strict=True):
        some = [answer_or_foreign(next(replies), command) for command in commands]
        if not isinstance(some[0], ErrorReply):
            some[0] = dict(pairs(some[0]))
        left_over = some[0] == {} and (yield from is_left_over(context, workflow_id))
        description = _describe(workflow_id, some, now_ms, left_over=left_over)
        if description is not None:
            found.append(description)
            if description.queue is not None and description.state in {"waiting", "leased"}:
                key = context.keys.workflow(workflow_id).queue(description.queue)
                queued[workflow_id] = key_command("ZSCORE", key, workflow_id)
    commands = list(queued.values())
    replies = (yield Batch(commands)) if commands else []
    due = {one: answer_or_foreign(reply, queued[one]) for one, reply in zip(queued, replies, strict=True)}
    return [_with_due(one, due[one.workflow_id]) if one.workflow_id in due else one for one in found]


def _with_due(one: Description, score: Any) -> Description:
    if isinstance(score, ErrorReply):
        return one._replace(damaged=(*one.damaged, f"queue: {score.message}"))
    if score is None:
        # Another call may have taken it out since. Verify tells.
        return one
    return one._replace(due=None if float(score) == inf else read_time(b"%d" % max(0.0, float(score))))


def describe_one(context: Context, workflow_id: str) -> Operation[Description]:
    """Return the description of a workflow.

    Raises:
        WorkflowNotFound: there is no such workflow.
    """
    found = yield from describe(context, [workflow_id])
    if not found:
        raise WorkflowNotFound(f"There is no workflow {workflow_id!r}. Check the id.", workflow_id=workflow_id)
    return found[0]


def count_workflows(context: Context) -> Operation[list[int]]:
    """Return how many workflows each partition has. An expired workflow counts until the next listing deletes it."""
    keys = context.keys.indexes()
    counts: list[int] = yield from ask_all([key_command("ZCARD", key) for key in keys])
    return counts


class FeedSize(NamedTuple):
    """The feed of a namespace.

    Attributes:
        entries: how many entries it has, in all partitions.
        days: for how many days it keeps them; None for ever.
    """

    entries: int
    days: float | None

    def __str__(self) -> str:
        kept = "for ever" if self.days is None else f"for {self.days:g} day{'' if self.days == 1 else 's'}"
        return f"{self.entries:,} entr{'y' if self.entries == 1 else 'ies'}, kept {kept}"


def measure_feed(context: Context) -> Operation[FeedSize | None]:
    """Return the size of the feed; None if the namespace has none.

    Raises:
        DecodeError: a feed, or for how long it keeps its entries, cannot be read.
    """
    keys = context.keys
    if not keys.has_feed:
        return None
    commands = [key_command("HGET", keys.config, "feed_days"), *(key_command("XLEN", key) for key in keys.feeds())]
    days, *sizes = yield from ask_all(commands)
    try:
        return FeedSize(sum(sizes), float(days) if days else None)
    except ValueError:
        raise DecodeError(
            f"feed_days at the key {keys.config!r} is damaged: {days!r:.40}. Nothing was changed. Set it by HSET to a "
            "number of days, or to an empty text to keep the feed for ever."
        ) from None


def count_events(context: Context, workflow_ids: Sequence[str]) -> Operation[tuple[int, int]]:
    """Return how many events workflows have had, and how many of them are not trimmed."""
    keys = [context.keys.workflow(workflow_id).meta for workflow_id in workflow_ids]
    replies = yield from ask_all([key_command("HMGET", key, "cursor", "trimmed") for key in keys])
    cursors = [(cursor_or_zero(cursor), cursor_or_zero(trimmed)) for cursor, trimmed in replies]
    return sum(cursor for cursor, _ in cursors), sum(cursor - trimmed for cursor, trimmed in cursors)


def recent_commits(context: Context, workflow_id: str, count: int) -> Operation[tuple[list[DecodedEntry], list[str]]]:
    """Return the last entries of a workflow, the newest first, and their problems.

    Each entry is a commit, or a part of a large commit.
    """
    keys = context.keys.workflow(check_workflow_id(workflow_id))
    commands = [
        key_command("HMGET", keys.meta, "created", "cursor"),
        key_command("XREVRANGE", keys.events, "+", "-", "COUNT", str(count)),
        key_command("HMGET", keys.meta, "created", "trimmed"),
    ]
    commits: list[DecodedEntry] = []
    damaged: list[str] = []
    try:
        (before, cursor), entries, (after, trimmed) = checked((yield Batch(commands, all_or_none=True)), commands)
        newest = max(entry_cursor(entries[0], keys.events) if entries else 0, cursor_or_zero(trimmed))
    except DecodeError:
        return [], []  # the description names the problem
    if before == after and newest < cursor_or_zero(cursor):
        damaged.append(f"events: those from {newest + 1} to {cursor_or_zero(cursor)} are missing")
    for entry in entries:
        try:
            commits.append(decode_commit(context, workflow_id, entry, with_records=True))
        except DecodeError as error:
            damaged.append(str(error))
    if len(commits) == len(entries):
        for newer, older in pairwise(commits):
            if older.end < newer.start:
                damaged.append(f"events: those from {older.end + 1} to {newer.start} are missing")
    return commits, damaged


def fact_labels(context: Context, hashes: Sequence[str]) -> Operation[dict[str, str]]:
    """Return for each fact its type and size, such as "dict, 24 B"; of a large one only the size, by its hash."""
    labels: dict[str, str] = {}
    found = yield from read_small_facts(context, hashes, _MOST_LABELLED)
    for fact_hash, (raw, size, data) in zip(hashes, found, strict=True):
        labels[fact_hash] = f"{size:,} B" if size else "missing"
        if data is not None:
            labels[fact_hash] = f"{_fact_type(context, raw, data)}, {labels[fact_hash]}"
    return labels


def read_small_facts(
    context: Context, hashes: Sequence[str], most: int
) -> Operation[list[tuple[bytes, int, bytes | None]]]:
    """Return for each fact its hash, its size and its data.

    A missing fact has the size 0. A fact of more bytes than `most` has no data.
    """
    places = [(context.keys.fact(raw)[0], raw) for raw in map(check_hash, hashes)]
    sizes = yield from ask_all([key_command("HSTRLEN", *place) for place in places])
    small = [place for place, size in zip(places, sizes, strict=True) if 0 < size <= most]
    data = yield from ask_all([key_command("HGET", *place) for place in small])
    found = dict(zip(small, data, strict=True))
    return [(place[1], size, found.get(place)) for place, size in zip(places, sizes, strict=True)]


def _fact_type(context: Context, raw: bytes, data: bytes) -> str:
    try:
        value = context.codec.decode_fact(raw, data)
    except StoreError:
        return "damaged"
    return event_type(value) if type(value) in {dict, UnknownEvent} else type(value).__name__


def read_time(value: Any, per_second: int = 1000) -> datetime | None:
    """Return the time of a stored Unix time; None if there is none."""
    if value is None or not is_cursor(value):
        return None
    try:
        return EPOCH + timedelta(microseconds=int(value) * 1_000_000 // per_second)
    except OverflowError:
        return None


def read_score(score: bytes | float) -> datetime | None:
    """Return the time of an index's score, a Unix time in microseconds; None if it is no such time."""
    number = float(score)
    return read_time(b"%d" % number, 1_000_000) if 0 <= number <= MAX_CURSOR else None


def _describing_commands(context: Context, workflow_id: str) -> list[Command]:
    keys = context.keys.workflow(workflow_id)
    return [
        key_command("HGETALL", keys.meta),
        key_command("HMGET", keys.snapshot, "cursor", "time"),
        key_command("HSTRLEN", keys.snapshot, "data"),
        key_command("XLEN", keys.events),
        key_command("STRLEN", keys.log),
        key_command("ZCARD", keys.refs),
        key_command("HLEN", keys.commits),
        key_command("ZSCORE", keys.index, workflow_id),
        # If it is as at first, the workflow was not deleted and made again in between.
        key_command("HGET", keys.meta, "created"),
    ]


def _describe(workflow_id: str, replies: list[Any], now_ms: int, *, left_over: bool) -> Description | None:
    *replies, created_after = replies
    kinds = ("meta hash", "snapshot", "snapshot", "events", "log", "refs", "commits", "index")
    damaged = [
        f"{kind}: {reply.message}" for kind, reply in zip(kinds, replies, strict=True) if isinstance(reply, ErrorReply)
    ]
    meta, snapshot, *counts = [None if isinstance(reply, ErrorReply) else reply for reply in replies]
    snapshot_bytes, entries, log_bytes, facts, commit_ids, written = counts
    meta = meta or {}
    if left_over:
        damaged.append("meta hash: it is missing, and the rest is not")
    elif not damaged and b"created" not in meta:
        return None
    damaged += [
        f"meta hash: {name} is {meta[name.encode()]!r:.40}"
        for name in _NUMBERS
        if not is_cursor(meta.get(name.encode(), b"0"))
    ]
    sliding = meta.get(b"sliding")
    ends = last_end(meta.get(b"expires"), sliding, meta.get(b"touched"), written)
    if meta.get(b"created") == created_after:
        if snapshot is not None and is_behind(meta.get(b"snapshot"), snapshot):
            damaged.append(f"snapshot: the one at cursor {cursor_or_zero(meta.get(b'snapshot'))} is missing")
        if b"log" in meta and log_bytes == 0:
            damaged.append("log: it is missing")
    snapshot_cursor, snapshot_time = snapshot or (None, None)
    if not is_cursor(snapshot_cursor or b"0"):
        damaged.append(f"snapshot: its cursor is {snapshot_cursor!r:.40}")
    timer_until, _, timer = meta.get(b"timer", b"").partition(b" ")
    return Description(
        workflow_id=workflow_id,
        state=state_of([meta.get(name.encode()) for name in STATE_FIELDS], now_ms),
        cursor=cursor_or_zero(meta.get(b"cursor")),
        trimmed=cursor_or_zero(meta.get(b"trimmed")),
        entries=entries or 0,
        created=read_time(meta.get(b"created"), 1_000_000),
        written=None if written is None else read_score(written),
        queue=_text(meta.get(b"queue")),
        due=None,
        attempts=cursor_or_zero(meta.get(b"attempts")),
        parked=read_time(meta.get(b"parked")),
        parked_reason=_text(meta.get(b"parked_reason")),
        timer=_text(timer) if b"timer" in meta else None,
        timer_until=read_time(timer_until),
        inbox=cursor_or_zero(meta.get(b"inbox")),
        **labels_of(meta)._asdict(),
        completed=read_time(meta.get(b"completed")),
        expires=read_time(None if ends is None else b"%d" % ends),
        sliding_s=int(sliding) / 1000 if ends is not None and sliding is not None else None,
        snapshot_cursor=None if snapshot_cursor is None else cursor_or_zero(snapshot_cursor),
        snapshot_time=read_time(snapshot_time),
        snapshot_bytes=snapshot_bytes or 0,
        log_bytes=log_bytes or 0,
        lease_owner=_text(meta.get(b"lease_owner")),
        lease_until=read_time(meta.get(b"lease_until")),
        facts=facts or 0,
        commit_ids=commit_ids or 0,
        damaged=tuple(damaged),
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
