"""The queues of unfinished workflows: taking a workflow out of its queue, and putting it back."""

from datetime import datetime

from runic_redis.arguments import check_due, check_reason, check_workflow_id
from runic_redis.context import Context
from runic_redis.errors import WorkflowCompleted
from runic_redis.operations.leasing import Lease, check_lease, lease_argument, lease_keys, leased_reply
from runic_redis.operations.lost_meta import absence
from runic_redis.operations.writing import write
from runic_redis.protocol.effects import Command, ErrorReply, Operation, call_once


def complete(context: Context, workflow_id: str, lease: Lease | None) -> Operation[None]:
    """Mark a workflow as finished."""
    workflow_id = check_workflow_id(workflow_id)
    keys = context.keys.workflow(workflow_id)
    by_lease = lease_argument(lease, workflow_id)
    touched = [keys.meta, *lease_keys(context, workflow_id, lease), keys.parked, keys.completed, keys.partition]
    reply = yield from write(context, call_once("complete", touched, workflow_id, by_lease, context.now_us()))
    if leased_reply(reply, workflow_id) is None:
        raise (yield from absence(context, workflow_id, "complete"))


def park(context: Context, workflow: Lease | str, reason: str) -> Operation[None]:
    """Take a workflow out of its queue, with a reason. Its lease is lost."""
    lease = None if isinstance(workflow, str) else workflow
    if lease is not None:
        check_lease(lease)
    workflow_id = check_workflow_id(workflow if lease is None else lease.workflow_id)
    call = _park_call(context, workflow_id, lease, check_reason(reason), "")
    reply = leased_reply((yield from write(context, call)), workflow_id)
    if isinstance(reply, ErrorReply):
        raise completed_error(workflow_id, "park")
    if reply is None:
        raise (yield from absence(context, workflow_id, "park"))


def unpark(context: Context, workflow_id: str, due: float | datetime | None) -> Operation[None]:
    """Put a parked workflow back in its queue. Nothing happens if it is not parked."""
    workflow_id = check_workflow_id(workflow_id)
    reply = yield from write(context, _park_call(context, workflow_id, None, "", check_due(due)))
    if isinstance(reply, ErrorReply):
        raise completed_error(workflow_id, "unpark")
    if reply is None:
        raise (yield from absence(context, workflow_id, "unpark"))


def _park_call(context: Context, workflow_id: str, lease: Lease | None, reason: str, due: str) -> Command:
    keys = context.keys.workflow(workflow_id)
    touched = [keys.meta, *lease_keys(context, workflow_id, lease), keys.parked, keys.partition]
    arguments = (lease_argument(lease, workflow_id), context.now_us(), reason, due)
    return call_once("park", touched, workflow_id, *arguments)


def completed_error(workflow_id: str, purpose: str) -> WorkflowCompleted:
    """Return the error for a workflow that is completed, and so in no queue any more."""
    return WorkflowCompleted(
        f"The workflow {workflow_id!r} is completed, so there is nothing left to {purpose}. Nothing was changed. Start "
        "another workflow, or append events without a queue."
    )
