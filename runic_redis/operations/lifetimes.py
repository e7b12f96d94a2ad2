"""The lifetimes of workflows: when they expire."""

from runic_redis.arguments import check_seconds, check_workflow_id
from runic_redis.context import Context
from runic_redis.operations.ending import expire_call
from runic_redis.operations.leasing import milliseconds
from runic_redis.operations.lost_meta import absence
from runic_redis.operations.writing import write
from runic_redis.protocol.effects import Operation


def expire(context: Context, workflow_id: str, after: float, *, sliding: bool) -> Operation[None]:
    """Let a workflow expire some time from now, or from its last write on."""
    after_ms = milliseconds(check_seconds(after, "after"))
    yield from _set_end(context, check_workflow_id(workflow_id), after_ms, "expire", sliding=bool(sliding))


def persist(context: Context, workflow_id: str) -> Operation[None]:
    """Remove the end of a workflow. Nothing happens if it has none."""
    yield from _set_end(context, check_workflow_id(workflow_id), None, "persist")


def _set_end(
    context: Context, workflow_id: str, after_ms: int | None, purpose: str, *, sliding: bool = False
) -> Operation[None]:
    reply = yield from write(context, expire_call(context, workflow_id, after_ms, sliding=sliding))
    if reply is None:
        raise (yield from absence(context, workflow_id, purpose))
