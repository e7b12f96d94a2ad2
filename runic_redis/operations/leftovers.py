"""What is left of a workflow whose meta hash is missing: it is damaged, and not absent.

All keys of a workflow come and go in one step with its meta hash. So entries, a snapshot or a log without a meta hash
are what an eviction or a DEL by hand has left. A reader that took the workflow for absent would skip them silently.
"""

from collections.abc import Callable, Sequence
from typing import Any

from runic_redis.arguments import is_cursor
from runic_redis.context import Context
from runic_redis.errors import DecodeError
from runic_redis.keys import WorkflowKeys
from runic_redis.operations.asking import ask, checked
from runic_redis.operations.effects import Batch, Command, Operation
from runic_redis.operations.ending import is_over

__all__ = ["check_leftovers", "count_keys", "is_behind", "is_left_over", "read_saved", "unless_left_over"]

# The keys that hold what a caller has written.
_WRITTEN = 3


def count_keys(keys: WorkflowKeys) -> Command:
    """Return the command that counts a workflow's keys, for `check_leftovers`.

    It looks at all of them at one moment, so that no write comes in between. EXISTS counts a key as often as it is
    named: the meta hash alone counts more than all the others.
    """
    written = (keys.events, keys.snapshot, keys.log)
    return Command(("EXISTS", *written, *[keys.meta] * (_WRITTEN + 1)), keys.meta)


def is_left_over(count: int) -> bool:
    """Return whether the meta hash is missing and something of the workflow is there, by the reply to `count_keys`."""
    return 0 < count <= _WRITTEN


def check_leftovers(context: Context, workflow_id: str, count: int) -> None:
    """Check the reply to `count_keys`.

    Raises:
        DecodeError: the meta hash is missing, and something of the workflow is there.
    """
    if is_left_over(count):
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
    context: Context, workflow_id: str, command: Command, field: str, fits: Callable[[bytes | None, Any], bool]
) -> Operation[tuple[Any, bytes | None] | None]:
    """Read a value of a workflow that its meta hash has a note of.

    Args:
        context: the store's.
        workflow_id: the workflow.
        command: reads the value.
        field: the field of the meta hash that is set with the value.
        fits: whether the reply to the command is what that field says.

    Returns:
        The reply, and the field; None if the workflow is over.

    Raises:
        DecodeError: the value does not fit what the meta hash says of it, or there is no meta hash.
    """
    keys = context.keys.workflow(workflow_id)
    meta = Command(("HMGET", keys.meta, "created", field, "expires"), keys.meta)
    commands = [meta, command, count_keys(keys)]
    suspected: tuple[bytes | None, bytes | None] | None = None
    while True:
        (created, noted, expires), reply, count = checked((yield Batch(commands, at_once=True)), commands)
        check_leftovers(context, workflow_id, count)
        if (yield from is_over(context, workflow_id, expires)):
            return None
        if fits(noted, reply):
            return reply, noted
        # It was written or deleted in between, perhaps. If not, the next look finds the same.
        if suspected == (created, noted):
            raise _unfit(workflow_id, command.key, field, noted)
        suspected = created, noted


def _unfit(workflow_id: str, key: str, field: str, noted: bytes | None) -> DecodeError:
    if noted is None:
        return DecodeError(
            f"The {field} at the key {key!r} is not one of the workflow {workflow_id!r} as it is now: it is left from "
            "an earlier one. Nothing was changed. Run 'runic-redis verify', or save another."
        )
    return DecodeError(
        f"The {field} of the workflow {workflow_id!r}, at the key {key!r}, is missing, or older than the last one that "
        "was saved: the server has lost it. Nothing was changed. Restore a backup, or save another."
    )


def is_behind(noted: bytes | None, snapshot: Sequence[bytes | None]) -> bool:
    """Return whether a snapshot, by the first field of its hash, is missing or older than the meta hash has noted."""
    cursor = snapshot[0]
    if noted is None or cursor is None:
        return noted is not None
    return is_cursor(noted) and is_cursor(cursor) and int(cursor) < int(noted)
