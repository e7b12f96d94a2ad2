"""Leases: the right to write a workflow for a time, and claims of unfinished workflows."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote

from runic_redis.arguments import check_count, check_owner, check_seconds, check_workflow_id
from runic_redis.context import Context
from runic_redis.errors import (
    DecodeError,
    InvalidArgument,
    InvalidType,
    LeaseHeld,
    LeaseLost,
    StoreError,
    StoreUnavailable,
    short_repr,
)
from runic_redis.operations.ending import expire_call
from runic_redis.operations.lost_meta import absence
from runic_redis.operations.records import read_cursor
from runic_redis.operations.settings import PartitionCounts, count_call, make_namespace
from runic_redis.operations.writing import write, write_all
from runic_redis.protocol.effects import Batch, Command, ErrorReply, Operation, call_once, call_script, key_command
from runic_redis.protocol.refusals import answer, ask, ask_all, time_us
from runic_redis.protocol.resp import scored_ids

# How many candidates of each partition one round trip reads, and how many leases it requests at most.
_LOOKED_AT = 16
_AT_ONCE = 128
# A clock that is this far behind was set back. The clocks of a cluster's nodes may differ by less. Then a lease lasts
# longer by no more than that, and reading all leases would cost more.
_BEHIND_MS = 1000


@dataclass(frozen=True, eq=False)
class Lease:
    """The right to write a workflow for a time. A lease is a value: a copy is equal to it.

    Attributes:
        workflow_id: the workflow.
        owner: the owner of the lease.
        token: the fencing token, higher than that of every earlier lease of the workflow.
        ttl: how many seconds it lasts, from the time when it is given and from each renewal.
    """

    workflow_id: str
    owner: str
    token: int
    ttl: float

    def __eq__(self, other: object) -> bool:
        return self._value() == other._value() if isinstance(other, Lease) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value())

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: Any) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._value()

    def _value(self) -> tuple[str, str, int, float]:
        return self.workflow_id, self.owner, self.token, self.ttl


def lease_argument(lease: Lease | None, workflow_id: str) -> str:
    """Return a lease as an argument of a script; empty without a lease.

    Raises:
        InvalidArgument: it is not a lease, or one of another workflow.
    """
    if lease is None:
        return ""
    check_lease(lease)
    if lease.workflow_id != workflow_id:
        raise InvalidArgument(
            f"The lease is for the workflow {lease.workflow_id!r}, not for {workflow_id!r}; nothing was sent."
        )
    return f"{lease.token} {milliseconds(lease.ttl)}"


def check_lease(lease: Any) -> None:
    """Check that an argument is a lease."""
    if not isinstance(lease, Lease):
        raise InvalidType(f"lease is a Lease from acquire or claim, not {short_repr(lease)}; nothing was sent.")


def leased_reply(reply: Any, workflow_id: str) -> Any:
    """Return a reply, unless it says that the lease is outdated.

    Raises:
        LeaseLost: it does.
    """
    if isinstance(reply, ErrorReply) and reply.code == "LEASE_LOST":
        owner = unquote(reply.message, errors="replace") or None
        now = "it has no owner now" if owner is None else f"{owner!r:.600} has it now"
        outcome = "Nothing was written"
        if reply.unsure:
            outcome = "An earlier try had no answer, and may have been carried out before the lease was lost"
        raise LeaseLost(
            f"The lease of the workflow {workflow_id!r} is lost: {now}. {outcome}. What you hold of the workflow is "
            "outdated: acquire or claim it again, and read it again.",
            owner=owner,
        )
    return reply


def acquire(context: Context, workflow_id: str, owner: str, ttl: float) -> Operation[int]:
    """Acquire a workflow's lease. Return its fencing token."""
    check_workflow_id(workflow_id)
    check_owner(owner)
    check_seconds(ttl, "ttl")
    yield from make_namespace(context)
    reply = yield from write(context, _acquire(context, workflow_id, owner, ttl, ""))
    if isinstance(reply, ErrorReply):
        left_ms, _, spelled = reply.message.partition(" ")
        holder = unquote(spelled, errors="replace")
        raise LeaseHeld(
            f"{holder!r:.600} has the lease of the workflow {workflow_id!r}, for {int(left_ms) / 1000:.3f} s more "
            "unless it is renewed. Nothing was changed. Try again later, or claim other workflows.",
            owner=holder,
            left_s=int(left_ms) / 1000,
        )
    return int(reply)


def claim(context: Context, owner: str, limit: int, ttl: float) -> Operation[list[tuple[str, int]]]:
    """Acquire the leases of unfinished workflows without an owner. Return the workflows, each with its token."""
    check_owner(owner)
    check_count(limit, "limit")
    check_seconds(ttl, "ttl")
    claimed: list[tuple[str, int]] = []
    tried: set[str] = set()
    problems: list[StoreError] = []
    while len(claimed) < limit and not any(isinstance(problem, StoreUnavailable) for problem in problems):
        left = [
            workflow_id for workflow_id in (yield from _find_unfinished(context, problems)) if workflow_id not in tried
        ]
        if not left:
            break
        # Other owners that claim now see the same candidates.
        random.shuffle(left)
        while left and len(claimed) < limit:
            count = min(limit - len(claimed), _AT_ONCE)
            some, left = left[:count], left[count:]
            tried.update(some)
            calls = [_acquire(context, workflow_id, owner, ttl, "claim") for workflow_id in some]
            for workflow_id, call, reply in zip(some, calls, (yield from write_all(context, calls)), strict=True):
                with _noting(problems):
                    token = answer(reply, call)
                    if token is not None:
                        claimed.append((workflow_id, int(token)))
    if problems and limit and not claimed:
        raise problems[0]
    return claimed


def renew(context: Context, lease: Lease) -> Operation[None]:
    """Renew a lease: it lasts for its full time from now on."""
    check_lease(lease)
    keys = context.keys.workflow(lease.workflow_id)
    arguments = [lease.workflow_id, lease_argument(lease, lease.workflow_id)]
    reply = yield from ask(
        call_script("renew", [keys.meta, keys.leases, keys.partition], arguments, workflow_id=lease.workflow_id)
    )
    leased_reply(reply, lease.workflow_id)


def release(context: Context, lease: Lease) -> Operation[None]:
    """Release a lease. Nothing happens if it was lost."""
    check_lease(lease)
    keys = context.keys.workflow(lease.workflow_id)
    arguments = [lease.workflow_id, str(lease.token)]
    yield from ask(call_script("release", [keys.meta, keys.leases], arguments, workflow_id=lease.workflow_id))


def complete(context: Context, workflow_id: str, lease: Lease | None) -> Operation[None]:
    """Mark a workflow as finished."""
    workflow_id = check_workflow_id(workflow_id)
    keys = context.keys.workflow(workflow_id)
    by_lease = lease_argument(lease, workflow_id)
    touched = [keys.meta, keys.leases, keys.completed, keys.partition]
    reply = yield from write(context, call_once("complete", touched, workflow_id, by_lease, context.now_us()))
    if leased_reply(reply, workflow_id) is None:
        raise (yield from absence(context, workflow_id, "complete"))


def expire(context: Context, workflow_id: str, after: float) -> Operation[None]:
    """Let a finished workflow expire some time from now."""
    workflow_id = check_workflow_id(workflow_id)
    after_ms = milliseconds(check_seconds(after, "after"))
    reply = yield from write(context, expire_call(context, workflow_id, after_ms))
    if reply is None:
        raise (yield from absence(context, workflow_id, "expire"))
    if isinstance(reply, ErrorReply):
        raise InvalidArgument(f"The workflow {workflow_id!r} is not finished. Nothing was changed. Complete it first.")


def _acquire(context: Context, workflow_id: str, owner: str, ttl: float, mode: str) -> Command:
    keys = context.keys.workflow(workflow_id)
    touched = [keys.meta, keys.index, keys.leases, keys.partition, keys.feed]
    return call_once("acquire", touched, workflow_id, owner, str(milliseconds(ttl)), context.now_us(), mode)


def _find_unfinished(context: Context, problems: list[StoreError]) -> Operation[list[str]]:
    """Return unfinished workflows whose leases have ended, some of each partition. Add errors to the problems."""
    keys = context.keys
    counts = yield from _count_unfinished(context, problems)
    if not counts:
        return []
    commands = [Command(("TIME",), keys.config)]
    commands += [
        key_command("ZRANGE", keys.leases(number), "0", str(_LOOKED_AT - 1), "WITHSCORES") for number in counts
    ]
    clock, *replies = yield Batch(commands)
    now_ms = time_us(answer(clock, commands[0])) // 1000
    found: list[str] = []
    lacking: list[int] = []
    ahead: list[int] = []
    for (number, (unfinished, leased_ms)), command, reply in zip(counts.items(), commands[1:], replies, strict=True):
        with _noting(problems):
            page = scored_ids(answer(reply, command), command.key)
            if len(page) < min(_LOOKED_AT, unfinished):
                lacking.append(number)
            found += [workflow_id for workflow_id, ends_ms in page if ends_ms <= now_ms]
            # A lease was given later than now: the clock was set back, and a lease may be over before its end.
            if leased_ms > now_ms + _BEHIND_MS:
                ahead.append(number)
    yield from _check_lacking(context, lacking, problems)
    return found + (yield from _find_overlong(context, ahead, now_ms, problems))


def _count_unfinished(context: Context, problems: list[StoreError]) -> Operation[dict[int, tuple[int, int]]]:
    """Return the partitions that may have unfinished workflows. Add errors to the problems.

    Each comes with the number of these workflows, and the time when a lease was last given or extended. Most claims
    find nothing, so they send one command for each partition.
    """
    keys = context.keys
    commands = [
        key_command("HMGET", keys.partition(number), "made", "unfinished", "leased")
        for number in keys.partition_numbers()
    ]
    counts: dict[int, tuple[int, int]] = {}
    for number, command, reply in zip(keys.partition_numbers(), commands, (yield Batch(commands)), strict=True):
        with _noting(problems):
            made, *numbers = answer(reply, command)
            unfinished, leased_ms = (read_cursor(value, command.key) for value in numbers)
            # A partition whose hash was lost does not count all of its workflows.
            if unfinished or made is None:
                counts[number] = unfinished, leased_ms
    return counts


@contextmanager
def _noting(problems: list[StoreError]) -> Iterator[None]:
    """Add damage, or the loss of a cluster's node, to the problems: other workflows can still be claimed."""
    try:
        yield
    except (DecodeError, StoreUnavailable) as error:
        problems.append(error)


def _check_lacking(context: Context, partitions: Sequence[int], problems: list[StoreError]) -> Operation[None]:
    """Add an error for each partition that counts unfinished workflows and has lost the set of them."""
    counts = yield from ask_all([count_call(context, number) for number in partitions])
    for number, reply in zip(partitions, counts, strict=True):
        _, _, _, counted, there, *_ = PartitionCounts(*reply)
        if read_cursor(counted, context.keys.partition(number)) != there:
            problem = (
                f"The set of unfinished workflows at the key {context.keys.leases(number)!r} is lost or altered: "
                f"{there} of {int(counted)} are in it. Nothing was changed. runic-redis verify --repair restores it."
            )
            problems.append(DecodeError(problem))


def _find_overlong(
    context: Context, partitions: Sequence[int], now_ms: int, problems: list[StoreError]
) -> Operation[list[str]]:
    """Return unfinished workflows with leases that have more than their full time left. Add errors to the problems."""
    found: list[str] = []
    skip = 0
    keys = [context.keys.leases(number) for number in partitions]
    while keys:
        bounds = (f"({now_ms}", "+inf", "WITHSCORES", "LIMIT", str(skip), str(_AT_ONCE))
        commands = [key_command("ZRANGEBYSCORE", key, *bounds) for key in keys]
        held: list[str] = []
        left: list[str] = []
        for key, command, reply in zip(keys, commands, (yield Batch(commands)), strict=True):
            with _noting(problems):
                page = [workflow_id for workflow_id, _ in scored_ids(answer(reply, command), key)]
                held += page
                if len(page) == _AT_ONCE:
                    left.append(key)
        metas = [context.keys.workflow(workflow_id).meta for workflow_id in held]
        commands = [key_command("HMGET", meta, "lease_until", "lease_ms") for meta in metas]
        for workflow_id, command, reply in zip(held, commands, (yield Batch(commands)), strict=True):
            with _noting(problems):
                ends_ms, lasts_ms = (read_cursor(value, command.key) for value in answer(reply, command))
                if ends_ms - now_ms > lasts_ms:
                    found.append(workflow_id)
        keys, skip = left, skip + _AT_ONCE
    return found


def milliseconds(seconds: float) -> int:
    """Return a time to live in milliseconds, at least one."""
    return max(1, round(seconds * 1000))
