"""Leases: the right to write a workflow for a time."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from urllib.parse import unquote

from runic_redis.arguments import DEFAULT_QUEUE, check_due, check_owner, check_seconds, check_workflow_id
from runic_redis.context import Context
from runic_redis.errors import InvalidArgument, InvalidType, LeaseHeld, LeaseLost, short_repr
from runic_redis.operations.settings import make_namespace
from runic_redis.operations.writing import write, write_all
from runic_redis.protocol.effects import ErrorReply, Operation, call_once, call_script
from runic_redis.protocol.refusals import answer


@dataclass(frozen=True, eq=False)
class Lease:
    """The right to write a workflow for a time. A lease is a value: a copy is equal to it.

    Attributes:
        workflow_id: the workflow.
        owner: the owner of the lease.
        token: the fencing token, higher than that of every earlier lease of the workflow.
        ttl: how many seconds it lasts, from the time when it is given and from each renewal.
        queue: the queue of the workflow.
        attempt: how often the workflow was claimed since its last commit under a lease.
    """

    workflow_id: str
    owner: str
    token: int
    ttl: float
    queue: str = DEFAULT_QUEUE
    attempt: int = 1

    def __eq__(self, other: object) -> bool:
        return self._value() == other._value() if isinstance(other, Lease) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value())

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: Any) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self._value(), self.queue, self.attempt)

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


def lease_keys(context: Context, workflow_id: str, lease: Lease | None) -> tuple[str, str, str]:
    """Return the keys that a write with a lease extends. The queue's is that of the lease, or else a guess."""
    keys = context.keys.workflow(workflow_id)
    if lease is not None:
        check_lease(lease)
    return keys.leases, keys.queues, keys.queue(DEFAULT_QUEUE if lease is None else lease.queue)


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
        now = f"{owner!r:.600} has it now"
        if owner is None:
            now = "it was released, or the workflow was deleted or has expired"
        outcome = "Nothing was written"
        if reply.unsure:
            outcome = "An earlier try had no answer, and may have been carried out before the lease was lost"
        raise LeaseLost(
            f"The lease of the workflow {workflow_id!r} is lost: {now}. {outcome}. What you hold of the workflow is "
            "outdated: acquire or claim it again, and read it again.",
            owner=owner,
        )
    return reply


def acquire(context: Context, workflow_id: str, owner: str, ttl: float) -> Operation[tuple[int, str]]:
    """Acquire a workflow's lease. Return its fencing token, and the workflow's queue."""
    check_workflow_id(workflow_id)
    check_owner(owner)
    check_seconds(ttl, "ttl")
    yield from make_namespace(context)
    keys = context.keys.workflow(workflow_id)
    touched = [keys.meta, keys.index, keys.leases, keys.partition, keys.feed, keys.queues, keys.queue(DEFAULT_QUEUE)]
    call = call_once("acquire", touched, workflow_id, owner, str(milliseconds(ttl)), context.now_us())
    calls = [call]
    (reply,) = yield from write_all(context, calls)
    if isinstance(answer(reply, call), ErrorReply):
        left_ms, _, spelled = reply.message.partition(" ")
        holder = unquote(spelled, errors="replace")
        raise LeaseHeld(
            f"{holder!r:.600} has the lease of the workflow {workflow_id!r}, for {int(left_ms) / 1000:.3f} s more "
            "unless it is renewed. Nothing was changed. Try again later, or claim other workflows.",
            owner=holder,
            left_s=int(left_ms) / 1000,
        )
    return int(reply), calls[0].keys[-1].removeprefix(keys.queue(""))


def renew(context: Context, lease: Lease) -> Operation[None]:
    """Renew a lease: it lasts for its full time from now on."""
    check_lease(lease)
    keys = context.keys.workflow(lease.workflow_id)
    arguments = [lease.workflow_id, lease_argument(lease, lease.workflow_id), context.now_us()]
    touched = [keys.meta, keys.leases, keys.queues, keys.queue(lease.queue)]
    reply = yield from write(context, call_script("renew", touched, arguments, workflow_id=lease.workflow_id))
    leased_reply(reply, lease.workflow_id)


def release(
    context: Context, lease: Lease, due: float | datetime | None = None, timer: str | None = None
) -> Operation[None]:
    """Release a lease, and set when the workflow is due. Nothing happens if the lease was lost.

    With the name of a timer, the workflow has this timer until then.
    """
    check_lease(lease)
    keys = context.keys.workflow(lease.workflow_id)
    arguments = [lease.workflow_id, str(lease.token), check_due(due), "" if timer is None else f" {timer}"]
    touched = [keys.meta, keys.leases, keys.queues, keys.queue(lease.queue)]
    yield from write(context, call_script("release", touched, arguments, workflow_id=lease.workflow_id))


def milliseconds(seconds: float) -> int:
    """Return a time to live in milliseconds, at least one."""
    return max(1, round(seconds * 1000))
