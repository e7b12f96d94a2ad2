"""The lifetimes of workflows: when they expire."""

from runic_redis.arguments import check_seconds, check_workflow_id
from runic_redis.context import Context
from runic_redis.errors import InvalidArgument
from runic_redis.operations.ending import expire_call
from runic_redis.operations.leasing import milliseconds
from runic_redis.operations.lost_meta import absence
from runic_redis.operations.writing import write
from runic_redis.protocol.effects import ErrorReply, Operation


def expire(context: Context, workflow_id: str, after: float) -> Operation[None]:
    """Let a finished workflow expire some time from now."""
    workflow_id = check_workflow_id(workflow_id)
    after_ms = milliseconds(check_seconds(after, "after"))
    reply = yield from write(context, expire_call(context, workflow_id, after_ms))
    if reply is None:
        raise (yield from absence(context, workflow_id, "expire"))
    if isinstance(reply, ErrorReply):
        raise InvalidArgument(f"The workflow {workflow_id!r} is not finished. Nothing was changed. Complete it first.")
