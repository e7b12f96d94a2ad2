"""A workflow as a whole: its log, its existence, its deletion."""

from collections.abc import Sequence
from typing import Any

from runic_redis.arguments import check_size, check_workflow_id
from runic_redis.context import Context
from runic_redis.errors import DecodeError, InvalidType, WorkflowNotFound
from runic_redis.operations import facts
from runic_redis.operations.ending import HAS_TAGS, delete_call, is_over, read_metas
from runic_redis.operations.leasing import Lease, lease_argument, lease_keys, leased_reply
from runic_redis.operations.lost_meta import is_left_over, read_saved
from runic_redis.operations.settings import make_namespace
from runic_redis.operations.writing import write_all
from runic_redis.protocol.effects import Command, ErrorReply, Operation, call_once, key_command
from runic_redis.protocol.refusals import answer, ask


def save(context: Context, workflow_id: str, log: Sequence[Any], lease: Lease | None) -> Operation[None]:
    """Save a whole list of events over the one before."""
    workflow_id = check_workflow_id(workflow_id)
    if not isinstance(log, list):
        raise InvalidType(f"A log is a list of events, not a {type(log).__qualname__}; nothing was sent.")
    by_lease = lease_argument(lease, workflow_id)
    found: dict[str, bytes] = {}
    encoded = context.codec.encode_log(log, found)
    check_size(len(encoded), "A log")
    yield from make_namespace(context)
    for problem in (yield from facts.store_ahead(context, found)).values():
        raise problem
    keys = context.keys.workflow(workflow_id)
    command = call_once(
        "save_log",
        [
            *(keys.log, keys.meta, keys.index, *lease_keys(context, workflow_id, lease)),
            *(keys.partition, keys.feed, keys.refs),
            *facts.fact_keys(context, found),
        ],
        workflow_id,
        *(by_lease, encoded, context.now_us()),
        *(str(len(found)), facts.ahead_argument(context), *facts.fact_arguments(context, found)),
        size=len(encoded) + sum(map(len, found.values())),
        writes=True,
    )
    (reply,) = yield from write_all(context, [command])
    if facts.crosses_slots(context, command, reply):
        yield from save(context, workflow_id, log, lease)
        return
    if isinstance(leased_reply(answer(reply, command), workflow_id), ErrorReply):
        raise facts.fact_not_found(reply.message)


def load(context: Context, workflow_id: str) -> Operation[list[Any]]:
    """Return the saved list of events."""
    workflow_id = check_workflow_id(workflow_id)
    keys = context.keys.workflow(workflow_id)
    get = key_command("GET", keys.log)
    saved = yield from read_saved(context, workflow_id, get, "log", lambda noted, data: bool(noted) == bool(data))
    data = saved and saved[0]
    if data is None:
        problem = f"No log is saved for the workflow {workflow_id!r}. Check the id, or read its events."
        raise WorkflowNotFound(problem, workflow_id=workflow_id)
    try:
        return context.codec.decode_log(data)
    except DecodeError as error:
        raise DecodeError(
            f"The log of the workflow {workflow_id!r}, at the key {keys.log!r}, is damaged: {error}. Nothing was "
            "changed. Restore a backup, or save another."
        ) from error


def exists(context: Context, workflow_id: str) -> Operation[bool]:
    """Return whether a workflow exists: a log, events or a snapshot of it are stored, whole or damaged."""
    workflow_id = check_workflow_id(workflow_id)
    keys = context.keys.workflow(workflow_id)
    meta = key_command("HMGET", keys.meta, "created", "expires")
    created, expires = yield from ask(meta)
    if created is None:
        return (yield from is_left_over(context, workflow_id))
    return not (yield from is_over(context, workflow_id, expires))


def delete(context: Context, workflow_ids: Sequence[str], lease: Lease | None = None) -> Operation[None]:
    """Delete workflows. An id without a workflow is no error."""
    by_lease = [lease_argument(lease, workflow_id) for workflow_id in workflow_ids]
    checked = [check_workflow_id(workflow_id) for workflow_id in workflow_ids]
    # The delete names the time of creation. So a retry cannot delete a workflow that was created since.
    metas = yield from read_metas(context, checked)
    # Also for a workflow that is deleted already: that may have to be confirmed, and keys of it may be left.
    left = list(zip(checked, metas, by_lease, strict=True))
    while left:
        calls: list[Command] = [delete_call(context, workflow_id, meta, lease=held) for workflow_id, meta, held in left]
        replies = yield from write_all(context, calls)
        for call, reply in zip(calls, replies, strict=True):
            leased_reply(answer(reply, call), call.workflow_id)
        left = [one for one, reply in zip(left, replies, strict=True) if reply == HAS_TAGS]
