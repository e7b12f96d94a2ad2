"""Counting workflows, from the sizes of sorted sets where these suffice, and else by walking a listing."""

from typing import get_args

from runic_redis.context import Context
from runic_redis.errors import DecodeError
from runic_redis.operations.ending import sweep_ended
from runic_redis.operations.filters import Filters
from runic_redis.operations.listing import Listing
from runic_redis.operations.settings import PartitionCounts, count_call
from runic_redis.operations.states import State
from runic_redis.protocol.effects import Operation, key_command
from runic_redis.protocol.refusals import ask_all


def count(context: Context, filters: Filters) -> Operation[int]:
    """Return how many workflows pass the filters."""
    given = {name for name, value in filters._asdict().items() if value}
    counts = yield from _count_partitions(context, filters.queue)
    # With a lease that lasts too long, or a workflow that is over and cannot be deleted, the sizes do not tell.
    if any(one.over or one.was_set_back for one in counts):
        return (yield from _count_listed(context, filters))
    if not given:
        return sum(one.indexed for one in counts)
    if given == {"state"} and filters.state is not None:
        return _states(counts)[filters.state]
    if "queue" in given and given <= {"queue", "state"} and filters.state in {None, "waiting", "leased"}:
        running = sum(one.running for one in counts)
        if filters.state == "leased":
            return running
        return sum(one.queued for one in counts) - (running if filters.state else 0)
    keys = context.keys
    if given <= {"since_us", "until_us"}:
        lowest, highest = filters.since_us, filters.until_us
        bounds = ["-inf" if lowest is None else str(lowest), "+inf" if highest is None else str(highest)]
        return sum((yield from ask_all([key_command("ZCOUNT", key, *bounds) for key in keys.indexes()])))
    if given == {"attributes"} and len(filters.attributes) == 1:
        ((name, value),) = filters.attributes.items()
        sets = [keys.attribute(number, name, value) for number in keys.partition_numbers()]
        return sum((yield from ask_all([key_command("ZCARD", key) for key in sets])))
    return (yield from _count_listed(context, filters))


def count_states(context: Context) -> Operation[dict[State, int]]:
    """Return how many workflows are in each state, without reading them.

    Each partition is counted in one step. Workflows that have reached their end are deleted before.

    Raises:
        DecodeError: a partition has lost a sorted set, or its counts.
    """
    return _states((yield from _count_partitions(context)))


def _count_partitions(context: Context, queue: str | None = None) -> Operation[list[PartitionCounts]]:
    """Return the counts of all partitions, once the workflows that are over are deleted."""
    counts = yield from _ask_partitions(context, queue)
    if any(one.over for one in counts):
        yield from sweep_ended(context, context.now_ms())
        counts = yield from _ask_partitions(context, queue)
    return counts


def _ask_partitions(context: Context, queue: str | None) -> Operation[list[PartitionCounts]]:
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


def _count_listed(context: Context, filters: Filters) -> Operation[int]:
    listing = Listing(context, filters)
    total = 0
    while page := (yield from listing.next_page()):
        total += len(page)
    return total
