"""The ends of workflows: when one is reached, and how the workflow is deleted then.

The expiry of Redis uses one clock: after a failover to a server whose clock is ahead, keys are gone at once. So the
store deletes a workflow itself, and only once two clocks have reached its end, the server's and the caller's.

If only one clock has reached the end, a write goes to the workflow that exists. The workflow must then outlast this
write, or the write would be deleted with it. So if the server's clock has reached the end, the end is postponed by the
time that is left by the caller's. If the caller's clock has reached it, the end is removed.
"""

from collections.abc import Mapping, Sequence

from runic_redis.arguments import DEFAULT_QUEUE, is_cursor
from runic_redis.context import Context
from runic_redis.operations.labels import label_sets
from runic_redis.protocol.effects import (
    Batch,
    Command,
    ErrorReply,
    Operation,
    call_once,
    call_script,
    key_command,
    own_id,
)
from runic_redis.protocol.refusals import answer, ask, ask_all, not_allowed, server_us
from runic_redis.protocol.resp import pairs

# How many workflows of a partition are deleted in one round trip.
_AT_ONCE = 256


def is_over(context: Context, workflow_id: str, expires: bytes | None) -> Operation[bool]:
    """Return whether both clocks have reached the end of a workflow, `expires` in its meta hash; then delete it.

    Once deleted, it stays over, whatever the clocks do next.
    """
    if expires is None or not is_cursor(expires) or int(expires) > context.now_ms():
        return False
    if int(expires) > (yield from server_us(context.keys.workflow(workflow_id).meta)) // 1000:
        return False
    yield from delete_ended(context, [workflow_id])
    return True


def settle_end(context: Context, workflow_id: str) -> Operation[None]:
    """Delete a workflow that is over. If only one clock has reached its end, move that end."""
    keys = context.keys.workflow(workflow_id)
    (meta,) = yield from read_metas(context, [workflow_id])
    expires = meta.get(b"expires")
    if expires is None or not is_cursor(expires):
        return
    left_ms = int(expires) - context.now_ms()
    if int(expires) > (yield from server_us(keys.meta)) // 1000:
        call = expire_call(context, workflow_id, None, in_place_of=expires)
    elif left_ms > 0:
        call = expire_call(context, workflow_id, left_ms, in_place_of=expires)
    else:
        call = delete_call(context, workflow_id, meta, expires=expires)
    yield from ask(call)


def delete_ended(context: Context, workflow_ids: Sequence[str]) -> Operation[None]:
    """Delete workflows whose end both clocks have reached, unless they were changed since.

    A workflow stays over even if it cannot be deleted: at a replica, without the permission, or because of a foreign
    value.
    """
    if context.at_replica:
        return
    found = yield from read_metas(context, workflow_ids)
    calls = [
        delete_call(context, workflow_id, meta, expires=expires)
        for workflow_id, meta in zip(workflow_ids, found, strict=True)
        if (expires := meta.get(b"expires")) is not None and is_cursor(expires) and int(expires) <= context.now_ms()
    ]
    for call, reply in zip(calls, (yield Batch(calls)), strict=True):
        if not (isinstance(reply, ErrorReply) and (not_allowed(reply) or reply.code in {"WRONGTYPE", "DAMAGED"})):
            answer(reply, call)


def sweep_ended(context: Context, ended_ms: int) -> Operation[None]:
    """Delete all workflows of the namespace with an end up to a time, in milliseconds since 1970."""
    keys = context.keys.all_expiring()
    while keys:
        pages = yield from ask_all(
            [key_command("ZRANGEBYSCORE", key, "-inf", str(ended_ms), "LIMIT", "0", str(_AT_ONCE)) for key in keys]
        )
        yield from delete_ended(context, [one.decode(errors="replace") for page in pages for one in page])
        keys = [key for key, page in zip(keys, pages, strict=True) if len(page) == _AT_ONCE]


def read_metas(context: Context, workflow_ids: Sequence[str]) -> Operation[list[dict[bytes, bytes]]]:
    """Return the meta hashes of workflows, for `delete_call`."""
    commands = [key_command("HGETALL", context.keys.workflow(workflow_id).meta) for workflow_id in workflow_ids]
    return [dict(pairs(reply)) for reply in (yield from ask_all(commands))]


def delete_call(
    context: Context, workflow_id: str, meta: Mapping[bytes, bytes], *, lease: str = "", expires: bytes = b""
) -> Command:
    """Return the call that deletes a workflow, unless another was created under its id since its meta hash was read.

    With `expires`, it deletes the workflow only while that is its end.
    """
    keys = context.keys.workflow(workflow_id)
    queue = meta.get(b"queue", DEFAULT_QUEUE.encode()).decode(errors="replace")
    touched = [
        *(keys.events, keys.meta, keys.snapshot, keys.log, keys.commits, keys.refs, keys.inbox, keys.messages),
        *(keys.index, keys.leases, keys.queues, keys.queue(queue), keys.parked),
        *(keys.expiring, keys.completed, keys.partition, keys.feed),
        *label_sets(keys, meta),
    ]
    args = (workflow_id, meta.get(b"created", b""), lease, expires, own_id(), "")
    return call_script("delete", touched, args, retry_at=5, workflow_id=workflow_id)


def expire_call(context: Context, workflow_id: str, after_ms: int | None, *, in_place_of: bytes = b"") -> Command:
    """Return the call that sets or removes the end of a finished workflow; with `in_place_of`, only that end."""
    keys = context.keys.workflow(workflow_id)
    after = "" if after_ms is None else str(after_ms)
    touched = [keys.meta, keys.expiring, keys.partition]
    return call_once("expire", touched, workflow_id, after, context.now_us(), in_place_of)
