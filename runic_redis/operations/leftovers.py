"""What is left of a workflow whose meta hash is missing: it is damaged, and not absent.

All keys of a workflow come and go in one step with its meta hash. So entries, a snapshot or a log without a meta hash
are what an eviction or a DEL by hand has left. A reader that took the workflow for absent would skip them silently.
"""

from collections.abc import Callable
from typing import Any

from runic_redis.context import Context
from runic_redis.errors import DecodeError
from runic_redis.keys import WorkflowKeys
from runic_redis.operations.asking import ask, checked
from runic_redis.operations.effects import Batch, Command, Operation

__all__ = ["check_leftovers", "count_keys", "read_saved", "unless_left_over"]

# The keys that hold what a caller has written.
_WRITTEN = 3


def count_keys(keys: WorkflowKeys) -> Command:
    """Return the command that counts a workflow's keys, for `check_leftovers`.

    It looks at all of them at one moment, so that no write comes in between. EXISTS counts a key as often as it is
    named: the meta hash alone counts more than all the others.
    """
    written = (keys.events, keys.snapshot, keys.log)
    return Command(("EXISTS", *written, *[keys.meta] * (_WRITTEN + 1)), keys.meta)


def check_leftovers(context: Context, workflow_id: str, count: int) -> None:
    """Check the reply to `count_keys`.

    Raises:
        DecodeError: the meta hash is missing, and something of the workflow is there.
    """
    if 0 < count <= _WRITTEN:
        raise DecodeError(
            f"The meta hash of the workflow {workflow_id!r}, at the key "
            f"{context.keys.workflow(workflow_id).meta!r}, is missing, and its events, snapshot or log are not: the "
            "server has evicted it, or somebody has deleted it. Nothing was changed. Restore a backup, or run "
            "'runic-redis verify --repair', or delete the workflow, which removes what is left of it."
        )


def unless_left_over(context: Context, workflow_id: str) -> Operation[None]:
    """Check a workflow that has no meta hash.

    Raises:
        DecodeError: something of it is there.
    """
    keys = context.keys.workflow(workflow_id)
    check_leftovers(context, workflow_id, (yield from ask(count_keys(keys))))


def read_saved(
    context: Context, workflow_id: str, command: Command, field: str, is_lost: Callable[[bytes, Any], bool]
) -> Operation[tuple[Any, bytes | None]]:
    """Read a value of a workflow that its meta hash has a note of.

    Args:
        context: the store's.
        workflow_id: the workflow.
        command: reads the value.
        field: the field of the meta hash that is set with the value.
        is_lost: whether the reply to the command is not what that field says.

    Returns:
        The reply; and if the value is lost, the field.

    Raises:
        DecodeError: the value is there without a meta hash.
    """
    keys = context.keys.workflow(workflow_id)
    commands = [Command(("HMGET", keys.meta, "created", field), keys.meta), command, count_keys(keys)]
    suspected = None
    while True:
        (created, noted), reply, count = checked((yield Batch(commands, at_once=True)), commands)
        check_leftovers(context, workflow_id, count)
        if noted is None or not is_lost(noted, reply):
            return reply, None
        # Deleted in between, perhaps. If not, the next look finds the same life of the workflow.
        if suspected == created:
            return reply, noted
        suspected = created
