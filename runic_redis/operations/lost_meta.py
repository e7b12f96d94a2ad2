"""Workflows with a missing meta hash: such a workflow is damaged, and not absent.

All keys of a workflow are created and deleted in one step with its meta hash. So entries, a snapshot, a log or an inbox
without a meta hash are the rest after an eviction or a DEL by hand. A reader that took the workflow for absent would
skip them silently.
"""

from collections.abc import Callable, Sequence
from typing import Any

from runic_redis.arguments import is_cursor
from runic_redis.context import Context
from runic_redis.errors import DecodeError, WorkflowNotFound
from runic_redis.operations.ending import is_over
from runic_redis.protocol.effects import Batch, Command, Operation, key_command
from runic_redis.protocol.refusals import ask_all, checked

# A workflow may be deleted between two reads. It is not deleted and created again this often.
_LOOKS = 3


def is_left_over(context: Context, workflow_id: str) -> Operation[bool]:
    """Return whether a workflow without a meta hash has other keys."""
    keys = context.keys.workflow(workflow_id)
    # A command for each key: those of several keys wait while a cluster moves their slot.
    commands = [key_command("EXISTS", key) for key in (keys.events, keys.snapshot, keys.log, keys.inbox)]
    commands.append(key_command("HMGET", keys.meta, "created"))
    for _ in range(_LOOKS):
        *there, (created,) = yield from ask_all(commands)
        if created is not None or not any(there):
            return False
    return True


def reject_leftovers(context: Context, workflow_id: str) -> Operation[None]:
    """Check that a workflow without a meta hash has no other keys.

    Raises:
        DecodeError: it has some.
    """
    if (yield from is_left_over(context, workflow_id)):
        raise DecodeError(
            f"The meta hash of the workflow {workflow_id!r}, at the key "
            f"{context.keys.workflow(workflow_id).meta!r}, is missing, and its events, snapshot, log or inbox are "
            "not: it was evicted by the server, or deleted by hand. Nothing was changed. Restore a backup, or run "
            "'runic-redis verify --repair', or delete the workflow, which removes what is left of it."
        )


def absence(context: Context, workflow_id: str, purpose: str) -> Operation[WorkflowNotFound]:
    """Return the error for a workflow that a script has not found.

    Raises:
        DecodeError: only its meta hash is missing.
    """
    yield from reject_leftovers(context, workflow_id)
    return WorkflowNotFound(
        f"There is no workflow {workflow_id!r} to {purpose}. Nothing was changed.", workflow_id=workflow_id
    )


def read_saved(
    context: Context, workflow_id: str, command: Command, field: str, fits: Callable[[bytes | None, Any], bool]
) -> Operation[tuple[Any, bytes | None] | None]:
    """Read a value of a workflow that its meta hash has a field for.

    Args:
        context: the store's.
        workflow_id: the workflow.
        command: reads the value.
        field: the field of the meta hash that is set with the value.
        fits: whether the reply to the command fits that field.

    Returns:
        The reply, and the field; None if the workflow is over.

    Raises:
        DecodeError: the value does not fit the field, or the meta hash is missing.
    """
    keys = context.keys.workflow(workflow_id)
    meta = key_command("HMGET", keys.meta, "created", field, "expires")
    commands = [meta, command]
    suspected: tuple[bytes | None, bytes | None] | None = None
    while True:
        (created, noted, expires), reply = checked((yield Batch(commands, all_or_none=True)), commands)
        if created is None:
            yield from reject_leftovers(context, workflow_id)
        if (yield from is_over(context, workflow_id, expires)):
            return None
        if fits(noted, reply):
            return reply, noted
        # A write or a delete may have come in between. If not, the next read finds the same.
        if suspected == (created, noted):
            raise _unfit(workflow_id, command.key, field, noted)
        suspected = created, noted


def _unfit(workflow_id: str, key: str, field: str, noted: bytes | None) -> DecodeError:
    if noted is None:
        return DecodeError(
            f"The {field} at the key {key!r} does not belong to the present workflow {workflow_id!r}: an earlier one "
            "has left it. Nothing was changed. Run 'runic-redis verify', or save another."
        )
    return DecodeError(
        f"The {field} of the workflow {workflow_id!r}, at the key {key!r}, is missing, or older than the last one that "
        "was saved: the server has lost it. Nothing was changed. Restore a backup, or save another."
    )


def is_behind(noted: bytes | None, snapshot: Sequence[bytes | None]) -> bool:
    """Return whether a snapshot is missing, or its cursor is below the one that the meta hash has noted."""
    cursor = snapshot[0]
    if noted is None or cursor is None:
        return noted is not None
    return is_cursor(noted) and is_cursor(cursor) and int(cursor) < int(noted)
