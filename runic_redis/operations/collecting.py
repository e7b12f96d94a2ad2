"""Collecting facts that no workflow refers to, in bounded steps, while writers are active.

1. A fact is a candidate if it was not written or referred to for the grace period.
2. The references of every workflow are read, and a fact among them is no longer a candidate.
3. Each remaining candidate is deleted by a script that checks its age again. A reference since then has given the fact
   a new time. So no lock is needed.

Two clocks measure the grace period. A fact's time is the later one of the server's and its writer's; now is the earlier
one of the server's and the caller's. So neither a clock that is set nor a failover to a server with another clock makes
a fact old.
"""

from runic_redis.arguments import check_seconds
from runic_redis.context import Context
from runic_redis.errors import DecodeError
from runic_redis.keys import Keys
from runic_redis.operations.ending import sweep_ended
from runic_redis.operations.feed_trimming import expire_feed
from runic_redis.operations.indexes import indexed_workflows
from runic_redis.operations.records import read_cursor
from runic_redis.operations.references import restore_references
from runic_redis.operations.settings import PartitionCounts, count_call
from runic_redis.protocol.effects import Command, Operation, call_script, key_command
from runic_redis.protocol.refusals import ask_all, server_us
from runic_redis.protocol.scans import ByScore

# How many candidates one pass over the workflows checks, and how many keys or members are in one round trip.
_CANDIDATES = 100_000
_AT_ONCE = 512
# Of how many partitions all ids are in memory at once.
_PARTITIONS = 8


def collect(context: Context, grace: float) -> Operation[int]:
    """Delete the facts that no workflow refers to and that are older than the grace period. Return how many."""
    grace_s = check_seconds(grace, "grace")
    now_us = min((yield from server_us(context.keys.config)), int(context.clock() * 1_000_000))
    yield from sweep_ended(context, now_us // 1000)
    yield from expire_feed(context)
    before_us = now_us - round(grace_s * 1_000_000)
    removed = 0
    candidates: dict[bytes, int] = {}
    numbers = context.keys.bucket_numbers()
    for at in range(0, len(numbers), _AT_ONCE):
        # How many old facts of each bucket were read and are still there.
        passed = dict.fromkeys(numbers[at : at + _AT_ONCE], 0)
        while passed:
            commands = [_old_facts(context.keys, bucket, skip, before_us) for bucket, skip in passed.items()]
            pages = yield from ask_all(commands)
            for bucket, page in zip(list(passed), pages, strict=True):
                candidates.update(dict.fromkeys(page, bucket))
                passed[bucket] += len(page)
                if len(page) < _AT_ONCE:
                    del passed[bucket]
            if len(candidates) >= _CANDIDATES:
                gone = yield from _remove_unreferenced(context, candidates, before_us)
                removed += sum(gone.values())
                for bucket in passed:
                    passed[bucket] -= gone.get(bucket, 0)
                candidates = {}
    gone = yield from _remove_unreferenced(context, candidates, before_us)
    return removed + sum(gone.values())


def _old_facts(keys: Keys, bucket: int, skip: int, before_us: int) -> Command:
    key = keys.fact_times(bucket)
    return key_command("ZRANGEBYSCORE", key, "-inf", f"({before_us}", "LIMIT", str(skip), str(_AT_ONCE))


def _remove_unreferenced(context: Context, candidates: dict[bytes, int], before_us: int) -> Operation[dict[int, int]]:
    """Delete the candidates that no workflow refers to. Return how many of each bucket."""
    gone: dict[int, int] = {}
    if candidates:
        yield from _drop_referenced(context, candidates)
    left = list(candidates)
    for at in range(0, len(left), _AT_ONCE):
        some = left[at : at + _AT_ONCE]
        calls = [call_script("collect_fact", context.keys.fact(fact), [fact, str(before_us)]) for fact in some]
        for fact, count in zip(some, (yield from ask_all(calls)), strict=True):
            gone[candidates[fact]] = gone.get(candidates[fact], 0) + count
    return gone


def _drop_referenced(context: Context, candidates: dict[bytes, int]) -> Operation[None]:
    """Remove the facts that any workflow refers to from the candidates."""
    indexes = context.keys.indexes()
    for first in range(0, len(indexes), _PARTITIONS):
        ids = yield from indexed_workflows(indexes[first : first + _PARTITIONS])
        for at in range(0, len(ids), _AT_ONCE):
            some = ids[at : at + _AT_ONCE]
            yield from restore_references(context, some)
            refs = ByScore((context.keys.workflow(workflow_id).refs for workflow_id in some), _AT_ONCE)
            while refs.more:
                for _, page in (yield from refs.next_pages()):
                    for fact, _ in page:
                        candidates.pop(fact, None)
        if not candidates:
            return
    yield from _check_indexes(context)


def _check_indexes(context: Context) -> Operation[None]:
    """Check that no partition has lost its index: the references of its workflows would not have been read."""
    numbers = context.keys.partition_numbers()
    counts = yield from ask_all([count_call(context, number) for number in numbers])
    for number, reply in zip(numbers, counts, strict=True):
        counts_of_it = PartitionCounts(*reply)
        counted, there = counts_of_it.workflows, counts_of_it.indexed
        if read_cursor(counted, context.keys.partition(number)) != there:
            raise DecodeError(
                f"The index at the key {context.keys.index(number)!r} is lost or altered: {there} of {int(counted)} "
                "workflows are in it. Their references cannot be found, so no fact was removed. runic-redis verify "
                "--repair restores the index."
            )
