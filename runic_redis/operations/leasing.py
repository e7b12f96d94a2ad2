"""Leases: who may write a workflow, for a time; what is left unfinished, and who goes on with it."""

import random
from dataclasses import dataclass
from typing import Any

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
    WorkflowNotFound,
)
from runic_redis.operations.asking import answer, ask, time_us
from runic_redis.operations.effects import Batch, Command, ErrorReply, Operation, call_script, own_id
from runic_redis.operations.opening import make_namespace
from runic_redis.operations.scored import scored_ids

__all__ = [
    "Lease",
    "acquire",
    "check_lease",
    "claim",
    "complete",
    "expire",
    "lease_argument",
    "release",
    "renew",
    "unless_lost",
]

# How many candidates of each partition are looked at in one round trip, and at most how many leases asked for.
_LOOKED_AT = 16
_AT_ONCE = 128


@dataclass(frozen=True)
class Lease:
    """The right to write a workflow, for a time.

    Attributes:
        workflow_id: the workflow.
        owner: whose it is.
        token: the fencing token: higher than that of every earlier lease of the workflow.
        ttl: for how many seconds it lasts from when it is given, and from each renewal.
    """

    workflow_id: str
    owner: str
    token: int
    ttl: float


def lease_argument(lease: Lease | None, workflow_id: str) -> str:
    """How a script is told of a lease: empty for none.

    Raises:
        InvalidArgument: it is a lease of another workflow, or none at all.
    """
    if lease is None:
        return ""
    check_lease(lease)
    if lease.workflow_id != workflow_id:
        raise InvalidArgument(
            f"The lease is one of the workflow {lease.workflow_id!r}, not of {workflow_id!r}; nothing was sent."
        )
    return f"{lease.token} {_milliseconds(lease.ttl)}"


def check_lease(lease: Any) -> None:
    """Refuse what is no lease."""
    if not isinstance(lease, Lease):
        raise InvalidType(f"lease is what acquire or claim gave, not {lease!r:.80}; nothing was sent.")


def unless_lost(reply: Any, workflow_id: str) -> Any:
    """A reply, unless it says that the lease is outdated.

    Raises:
        LeaseLost: it does.
    """
    if isinstance(reply, ErrorReply) and reply.code == "LEASE_LOST":
        owner = reply.message or None
        now = "nobody has it now" if owner is None else f"{owner!r:.600} has it now"
        raise LeaseLost(
            f"The lease of the workflow {workflow_id!r} is lost: {now}. Nothing was written; what you hold of the "
            "workflow is outdated.",
            owner=owner,
        )
    return reply


def acquire(context: Context, workflow_id: str, owner: str, ttl: float) -> Operation[int]:
    """Get a workflow's lease; its fencing token."""
    call = _acquire(context, check_workflow_id(workflow_id), check_owner(owner), check_seconds(ttl, "ttl"), "")
    yield from make_namespace(context)
    reply = yield from ask(call)
    if isinstance(reply, ErrorReply):
        left_ms, _, holder = reply.message.partition(" ")
        raise LeaseHeld(
            f"{holder!r:.600} has the lease of the workflow {workflow_id!r}, for {int(left_ms) / 1000:.3f} s more "
            "unless it is renewed. Nothing was changed; try again later, or claim what is left unfinished.",
            owner=holder,
            left_s=int(left_ms) / 1000,
        )
    return int(reply)


def claim(context: Context, owner: str, limit: int, ttl: float) -> Operation[list[tuple[str, int]]]:
    """Get the leases of unfinished workflows that nobody holds; the workflows, each with its token."""
    check_owner(owner)
    check_count(limit, "limit")
    check_seconds(ttl, "ttl")
    claimed: list[tuple[str, int]] = []
    tried: set[str] = set()
    # What is damaged, or a cluster's node that is gone, keeps nobody from the rest.
    problems: list[StoreError] = []
    while len(claimed) < limit and not any(isinstance(problem, StoreUnavailable) for problem in problems):
        left = [workflow_id for workflow_id in (yield from _left_behind(context, problems)) if workflow_id not in tried]
        if not left:
            break
        # Whoever else looks now sees the same ones.
        random.shuffle(left)
        while left and len(claimed) < limit:
            count = min(limit - len(claimed), _AT_ONCE)
            some, left = left[:count], left[count:]
            tried.update(some)
            calls = [_acquire(context, workflow_id, owner, ttl, "claim") for workflow_id in some]
            for workflow_id, call, reply in zip(some, calls, (yield Batch(calls)), strict=True):
                try:
                    token = answer(reply, call)
                except (DecodeError, StoreUnavailable) as error:
                    problems.append(error)
                    continue
                if token is not None:
                    claimed.append((workflow_id, int(token)))
    if problems and limit and not claimed:
        raise problems[0]
    return claimed


def renew(context: Context, lease: Lease) -> Operation[None]:
    """Have a lease last from now on."""
    check_lease(lease)
    keys = context.keys.workflow(lease.workflow_id)
    arguments = [lease.workflow_id, lease_argument(lease, lease.workflow_id)]
    reply = yield from ask(call_script("renew", [keys.meta, keys.leases], arguments, line=lease.workflow_id))
    unless_lost(reply, lease.workflow_id)


def release(context: Context, lease: Lease) -> Operation[None]:
    """Give a lease back; nothing happens if it was lost."""
    check_lease(lease)
    keys = context.keys.workflow(lease.workflow_id)
    arguments = [lease.workflow_id, str(lease.token)]
    yield from ask(call_script("release", [keys.meta, keys.leases], arguments, line=lease.workflow_id))


def complete(context: Context, workflow_id: str, lease: Lease | None) -> Operation[None]:
    """Mark a workflow as finished."""
    workflow_id = check_workflow_id(workflow_id)
    keys = context.keys.workflow(workflow_id)
    arguments = [workflow_id, lease_argument(lease, workflow_id)]
    reply = yield from ask(call_script("complete", [keys.meta, keys.leases], arguments, line=workflow_id))
    if unless_lost(reply, workflow_id) is None:
        raise WorkflowNotFound(f"There is no workflow {workflow_id!r} to complete.", workflow_id=workflow_id)


def expire(context: Context, workflow_id: str, after: float) -> Operation[None]:
    """Have a finished workflow deleted some time from now."""
    workflow_id = check_workflow_id(workflow_id)
    after_ms = _milliseconds(check_seconds(after, "after"))
    keys = context.keys.workflow(workflow_id)
    reply = yield from ask(
        call_script(
            "expire",
            [keys.events, keys.meta, keys.snapshot, keys.log, keys.commits, keys.refs, keys.expiring],
            [workflow_id, str(after_ms)],
            line=workflow_id,
        )
    )
    if reply is None:
        raise WorkflowNotFound(f"There is no workflow {workflow_id!r} to expire.", workflow_id=workflow_id)
    if isinstance(reply, ErrorReply):
        raise InvalidArgument(f"The workflow {workflow_id!r} is not finished: complete it first. Nothing was changed.")


def _acquire(context: Context, workflow_id: str, owner: str, ttl: float, mode: str) -> Command:
    keys = context.keys.workflow(workflow_id)
    return call_script(
        "acquire",
        [keys.meta, keys.index, keys.leases],
        [workflow_id, own_id(), owner, str(_milliseconds(ttl)), mode],
        line=workflow_id,
    )


def _left_behind(context: Context, problems: list[StoreError]) -> Operation[list[str]]:
    """Unfinished workflows whose leases have run out, some of each partition; adds to the problems."""
    leases = [context.keys.leases(number) for number in range(context.keys.partitions)]
    commands = [Command(("TIME",), context.keys.config)]
    commands += [
        Command(("ZRANGEBYSCORE", key, "-inf", "+inf", "WITHSCORES", "LIMIT", "0", str(_LOOKED_AT)), key)
        for key in leases
    ]
    replies = yield Batch(commands)
    now_ms = time_us(answer(replies[0], commands[0])) // 1000
    found: list[str] = []
    for key, reply, command in zip(leases, replies[1:], commands[1:], strict=True):
        try:
            page = scored_ids(answer(reply, command), key)
        except (DecodeError, StoreUnavailable) as error:
            problems.append(error)
            continue
        found += [workflow_id for workflow_id, ends_ms in page if ends_ms <= now_ms]
    return found


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
