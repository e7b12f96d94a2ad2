"""The filters of listings: which workflows are wanted, from which sorted sets they are read, and what else is checked.

One kind of sorted set drives a listing. It holds every wanted workflow, and as few others as possible. The other
filters are then applied to pages of ids.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import inf
from typing import Any, NamedTuple, get_args

from runic_redis.arguments import check_attributes, check_prefix, check_queue, check_time
from runic_redis.context import Context
from runic_redis.errors import InvalidArgument, short_repr
from runic_redis.operations.states import STATE_FIELDS, State, state_of
from runic_redis.protocol.effects import Command, Operation, key_command
from runic_redis.protocol.refusals import ask_all, time_us

_IN_QUEUE = (None, "waiting", "leased")
# The fields of the meta hash that are checked.
_META = ("created", *STATE_FIELDS)


class Filters(NamedTuple):
    """The filters of a listing. Each that is given must be met.

    Attributes:
        prefix: what the ids begin with.
        state: the state.
        queue: the queue.
        due_ms: the time up to which workflows of a queue are due, in milliseconds since 1970.
        since_us: the time of the last write at least, in microseconds since 1970.
        until_us: the time of the last write at most.
        attributes: the attributes.
        parent: the parent.
    """

    prefix: str = ""
    state: State | None = None
    queue: str | None = None
    due_ms: int | None = None
    since_us: int | None = None
    until_us: int | None = None
    attributes: Mapping[str, str] = {}
    parent: str | None = None


ALL = Filters()


def check_filters(
    *,
    prefix: str = "",
    state: State | None = None,
    queue: str | None = None,
    due: datetime | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    attributes: Mapping[str, str] | None = None,
) -> Filters:
    """Return the filters of a caller."""
    if state is not None and state not in get_args(State):
        raise InvalidArgument(
            f"state is one of {', '.join(get_args(State))}, not {short_repr(state)}; nothing was sent."
        )
    if due is not None and state not in _IN_QUEUE:
        raise InvalidArgument(f"due is about workflows in a queue, and none of these is {state}; nothing was sent.")
    if queue is not None and state == "open":
        raise InvalidArgument("An open workflow is in no queue: leave out queue or state; nothing was sent.")
    return Filters(
        prefix=check_prefix(prefix),
        state=state,
        queue=None if queue is None else check_queue(queue),
        due_ms=None if due is None else check_time(due, "due") // 1000,
        since_us=None if since is None else check_time(since, "since"),
        until_us=None if until is None else check_time(until, "until"),
        attributes={name: value for name, value in check_attributes(attributes or {}).items() if value is not None},
    )


class SortedSet(NamedTuple):
    """A sorted set of a partition's workflows.

    Attributes:
        partition: the partition.
        key: its key.
        counts: the key of the hash that counts its members.
        field: the field there; "" if they are not counted.
    """

    partition: int
    key: str
    counts: str
    field: str = ""


class Source(NamedTuple):
    """The sorted sets from which a listing is read.

    Attributes:
        sets: the sets.
        rising: whether the lowest score comes first, and not the highest.
        lowest: the lowest score that is wanted.
        highest: the highest score that is wanted.
        checks: what remains to be checked of the workflows in the sets.
    """

    sets: Sequence[SortedSet]
    rising: bool
    lowest: float
    highest: float
    checks: "Checks"


class Checks(NamedTuple):
    """The checks of workflows that are read from sorted sets.

    Attributes:
        states: whether their state and their queue.
        written: whether the time of their last write.
        due: whether when they are due.
        attributes: the attributes.
    """

    states: bool = False
    written: bool = False
    due: bool = False
    attributes: tuple[tuple[str, str], ...] = ()


def find_source(context: Context, filters: Filters) -> Operation[Source]:
    """Return the sorted sets that drive a listing."""
    keys = context.keys
    numbers = keys.partition_numbers()
    state = filters.state
    by_time = filters.since_us is not None or filters.until_us is not None
    by_state = state is not None or filters.queue is not None or filters.due_ms is not None
    checks = Checks(by_state, by_time, filters.due_ms is not None, tuple(filters.attributes.items()))
    if filters.parent is not None:
        sets = [SortedSet(number, keys.children(number, filters.parent), keys.queues(number)) for number in numbers]
        return Source(sets, True, -inf, inf, checks)
    if filters.attributes:
        name, value = yield from _rarest(context, filters.attributes)
        sets = [SortedSet(number, keys.attribute(number, name, value), keys.queues(number)) for number in numbers]
        others = tuple(item for item in filters.attributes.items() if item != (name, value))
        return Source(sets, False, -inf, inf, checks._replace(attributes=others))
    if state == "leased":
        sets = [SortedSet(number, keys.leases(number), keys.queues(number)) for number in numbers]
        return Source(sets, True, -inf, inf, checks)
    if state in {"parked", "completed"}:
        key_of = keys.parked_workflows if state == "parked" else keys.completed
        sets = [SortedSet(number, key_of(number), keys.partition(number), state) for number in numbers]
        return Source(sets, False, -inf, inf, checks._replace(states=filters.queue is not None))
    if by_state and state != "open":
        sets = yield from _queues(context, filters.queue)
        highest = inf if filters.due_ms is None else filters.due_ms
        return Source(sets, True, -inf, highest, checks._replace(states=state is not None, due=False))
    sets = [SortedSet(number, keys.index(number), keys.partition(number), "workflows") for number in numbers]
    lowest = -inf if filters.since_us is None else filters.since_us
    highest = inf if filters.until_us is None else filters.until_us
    return Source(sets, False, lowest, highest, checks._replace(written=False))


def _rarest(context: Context, attributes: Mapping[str, str]) -> Operation[tuple[str, str]]:
    """Return the attribute that the fewest workflows have."""
    items = list(attributes.items())
    if len(items) == 1:
        return items[0]
    keys = context.keys
    sizes = yield from ask_all(
        [key_command("ZCARD", keys.attribute(number, *item)) for item in items for number in keys.partition_numbers()]
    )
    totals = [sum(sizes[place * keys.partitions : (place + 1) * keys.partitions]) for place in range(len(items))]
    return items[totals.index(min(totals))]


def _queues(context: Context, queue: str | None) -> Operation[list[SortedSet]]:
    """Return the sets of a queue, or of all queues."""
    keys = context.keys
    names = [[queue] for _ in keys.partition_numbers()] if queue else (yield from queue_names(context))
    return [
        SortedSet(number, keys.queue(number, name), keys.queues(number), name)
        for number, its_names in zip(keys.partition_numbers(), names, strict=True)
        for name in its_names
    ]


def queue_names(context: Context) -> Operation[list[list[str]]]:
    """Return the names of the queues of each partition."""
    keys = context.keys
    found = yield from ask_all([key_command("HKEYS", keys.queues(number)) for number in keys.partition_numbers()])
    # A field with a space is no name.
    return [sorted(name.decode(errors="replace") for name in names if b" " not in name) for names in found]


class Passed(NamedTuple):
    """The result of checking workflows.

    Attributes:
        wanted: for each of them, whether it is wanted.
        created_us: when it was created, in microseconds since 1970; 0 if that was not read.
    """

    wanted: bool
    created_us: int = 0


def check_workflows(
    context: Context, filters: Filters, checks: Checks, candidates: Sequence[tuple[int, str]]
) -> Operation[list[Passed]]:
    """Return for each workflow, given by its partition and its id, whether it is wanted."""
    if not any(checks) or not candidates:
        return [Passed(wanted=True)] * len(candidates)
    groups: dict[int, list[str]] = {}
    for partition, workflow_id in candidates:
        groups.setdefault(partition, []).append(workflow_id)
    commands = [Command(("TIME",), context.keys.config)]
    for partition, ids in groups.items():
        commands += _checking_commands(context, checks, partition, ids)
    replies = iter((yield from ask_all(commands)))
    now_ms = time_us(next(replies)) // 1000
    found: dict[str, Passed] = {}
    queued: dict[str, Command] = {}
    for partition, ids in groups.items():
        count = len(ids)
        written = next(replies) if checks.written else [b"0"] * count
        labelled = [next(replies) for _ in checks.attributes]
        metas = [next(replies) for _ in ids] if checks.states else [None] * count
        for workflow_id, score, meta, *labels in zip(ids, written, metas, *labelled, strict=True):
            is_wanted = None not in labels and (not checks.written or _is_written(filters, score))
            is_wanted = is_wanted and (meta is None or _has_state(filters, meta, now_ms))
            found[workflow_id] = Passed(is_wanted, int(meta[0] or 0) if meta else 0)
            if is_wanted and checks.due and meta:
                queue = meta[1 + STATE_FIELDS.index("queue")].decode(errors="replace")
                queued[workflow_id] = key_command("ZSCORE", context.keys.queue(partition, queue), workflow_id)
    scores = yield from ask_all(list(queued.values()))
    for workflow_id, score in zip(queued, scores, strict=True):
        is_due = score is not None and float(score) <= (filters.due_ms or 0)
        found[workflow_id] = found[workflow_id]._replace(wanted=is_due)
    return [found[workflow_id] for _, workflow_id in candidates]


def _checking_commands(context: Context, checks: Checks, partition: int, ids: Sequence[str]) -> list[Command]:
    keys = context.keys
    sets = [keys.index(partition)] if checks.written else []
    sets += [keys.attribute(partition, *item) for item in checks.attributes]
    metas = [keys.workflow(workflow_id).meta for workflow_id in ids] if checks.states else []
    return [
        *(key_command("ZMSCORE", key, *ids) for key in sets),
        *(key_command("HMGET", meta, *_META) for meta in metas),
    ]


def _is_written(filters: Filters, score: Any) -> bool:
    if score is None:
        return False
    lowest = -inf if filters.since_us is None else filters.since_us
    return lowest <= float(score) <= (inf if filters.until_us is None else filters.until_us)


def _has_state(filters: Filters, meta: Sequence[bytes | None], now_ms: int) -> bool:
    created, *values = meta
    if created is None:
        return False
    state = state_of(values, now_ms)
    queue = values[STATE_FIELDS.index("queue")]
    if filters.queue is not None and queue != filters.queue.encode():
        return False
    # Without a state, a queue means its members.
    is_in_queue = state in _IN_QUEUE
    if filters.state is None:
        return is_in_queue
    return state == filters.state
