"""Counting workflows, from the sizes of sorted sets where these suffice, and else by walking a listing."""

from typing import NamedTuple, get_args

from runic_redis.context import Context
from runic_redis.errors import DecodeError
from runic_redis.operations.ending import sweep_ended
from runic_redis.operations.filters import ALL, Filters, queue_names
from runic_redis.operations.listing import Listing
from runic_redis.operations.settings import PartitionCounts, count_call
from runic_redis.operations.states import STATE_FIELDS, State, state_of
from runic_redis.protocol.effects import Command, Operation, key_command
from runic_redis.protocol.refusals import ask_all, server_us


class QueueCounts(NamedTuple):
    """The numbers of a queue.

    Attributes:
        waiting: how many workflows wait in it, due or not.
        leased: how many of its workflows are leased.
        overdue_s: for how many seconds its first workflow has been due; 0 if none is due.
    """

    waiting: int
    leased: int
    overdue_s: float


def count_matching(context: Context, filters: Filters) -> Operation[int]:
    """Return how many workflows pass the filters."""
    left = yield from _sweep(context)
    counts = yield from _count_partitions(context, filters.queue)
    # With a lease that lasts too long, or a workflow that is over and cannot be deleted, the sizes do not tell.
    if not left and not any(one.was_set_back for one in counts):
        number = _by_state(filters, counts)
        if number is not None:
            return number
        if commands := _sizes(context, filters):
            return sum((yield from ask_all(commands)))
    listing = Listing(context, filters)
    total = 0
    while page := (yield from listing.next_page()):
        total += len(page)
    return total


def _by_state(filters: Filters, counts: list[PartitionCounts]) -> int | None:
    """Return how many workflows pass filters by state and queue; None if there are others."""
    if filters._replace(state=None, queue=None) != ALL:
        return None
    state = filters.state
    if filters.queue is None:
        return sum(one.indexed for one in counts) if state is None else _states(counts)[state]
    if state not in {None, "waiting", "leased"}:
        return None
    size, leased = sum(one.by_queue[0][0] for one in counts), sum(one.by_queue[0][1] for one in counts)
    return size if state is None else leased if state == "leased" else size - leased


def _sizes(context: Context, filters: Filters) -> list[Command]:
    """Return commands that count the workflows that pass filters by the last write, or an attribute; or none."""
    keys = context.keys
    if filters._replace(since_us=None, until_us=None) == ALL:
        lowest = "-inf" if filters.since_us is None else str(filters.since_us)
        highest = "+inf" if filters.until_us is None else str(filters.until_us)
        return [key_command("ZCOUNT", key, lowest, highest) for key in keys.indexes()]
    if filters._replace(attributes={}) == ALL and len(filters.attributes) == 1:
        ((name, value),) = filters.attributes.items()
        return [key_command("ZCARD", keys.attribute(number, name, value)) for number in keys.partition_numbers()]
    return []


def count_queues(context: Context) -> Operation[dict[str, QueueCounts]]:
    """Return the numbers of all queues that have workflows, by name."""
    named = yield from queue_names(context)
    calls = [count_call(context, number, "states", names) for number, names in enumerate(named)]
    found: dict[str, QueueCounts] = {}
    for names, reply in zip(named, (yield from ask_all(calls)), strict=True):
        counts = PartitionCounts(*reply)
        for name, (size, leased, due) in zip(names, counts.by_queue, strict=True):
            before = found.get(name, QueueCounts(0, 0, 0.0))
            overdue_s = max(0.0, (counts.time_ms - float(due)) / 1000) if due else 0.0
            found[name] = QueueCounts(
                before.waiting + size - leased, before.leased + leased, max(before.overdue_s, overdue_s)
            )
    return dict(sorted(found.items()))


def count_states(context: Context) -> Operation[dict[State, int]]:
    """Return how many workflows are in each state, without reading them.

    Each partition is counted in one step. Workflows that have reached their end are deleted first, or not counted.

    Raises:
        DecodeError: a partition has lost a sorted set, or its counts.
    """
    left = yield from _sweep(context)
    counts = yield from _count_partitions(context)
    totals = _states(counts)
    metas = [context.keys.workflow(workflow_id).meta for workflow_id in left]
    for values in (yield from ask_all([key_command("HMGET", meta, *STATE_FIELDS) for meta in metas])):
        totals[state_of(values, counts[0].time_ms)] -= 1
    return totals


def _sweep(context: Context) -> Operation[list[str]]:
    """Delete the workflows that are over. Return those that cannot be deleted."""
    now_ms = (yield from server_us(context.keys.config)) // 1000
    return (yield from sweep_ended(context, min(context.now_ms(), now_ms)))


def _count_partitions(context: Context, queue: str | None = None) -> Operation[list[PartitionCounts]]:
    queues = [] if queue is None else [queue]
    calls = [count_call(context, number, "states", queues) for number in context.keys.partition_numbers()]
    counts = [PartitionCounts(*reply) for reply in (yield from ask_all(calls))]
    for call, one in zip(calls, counts, strict=True):
        if not one.agree:
            raise DecodeError(
                f"The workflows of a partition cannot be counted: its counts, at the key {call.key!r}, differ from its "
                "sorted sets, and one of them is lost or altered. Nothing was changed. runic-redis verify --repair "
                "restores it."
            )
    return counts


def _states(counts: list[PartitionCounts]) -> dict[State, int]:
    totals: dict[State, int] = dict.fromkeys(get_args(State), 0)
    for one in counts:
        totals["open"] += one.open
        totals["leased"] += one.running
        totals["waiting"] += one.queued - one.running
        totals["parked"] += one.away
        totals["completed"] += one.done
    return totals
