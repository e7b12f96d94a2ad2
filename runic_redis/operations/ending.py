"""The ends of workflows: whether one is reached, and what happens then.

Redis' own expiry goes by one clock: after a failover to a server whose clock is ahead, keys are gone at once. So the
store deletes a workflow itself, and only once two clocks have reached its end, the server's and the caller's.

A write while only one of them has may be of a caller for whom the workflow is over, or of one for whom it is not. It
goes to the workflow that is there, and must not be deleted with it at once. So if the server's clock alone has reached
the end, the end is postponed by what is left by the caller's; if the caller's alone has, it is taken away.
"""

from collections.abc import Sequence

from runic_redis.arguments import is_cursor
from runic_redis.context import Context
from runic_redis.protocol.effects import Batch, Command, ErrorReply, Operation, call_script, own_id
from runic_redis.protocol.refusals import answer, ask, ask_all, not_allowed, time_us

__all__ = ["delete_call", "delete_ended", "expire_call", "is_over", "settle_end", "sweep_ended"]

# How many workflows of a partition are deleted in one round trip.
_AT_ONCE = 256


def is_over(context: Context, workflow_id: str, expires: bytes | None) -> Operation[bool]:
    """Return whether the end of a workflow, as its meta hash has it, is reached by both clocks; then delete it.

    It is deleted so that it stays over, whatever the clocks say next.
    """
    if expires is None or not is_cursor(expires) or int(expires) > context.now_ms():
        return False
    if int(expires) > (yield from _server_ms(context, workflow_id)):
        return False
    yield from delete_ended(context, [workflow_id])
    return True


def settle_end(context: Context, workflow_id: str) -> Operation[None]:
    """Delete a workflow that is over; or have what is written to it outlast an end that only one clock has reached."""
    keys = context.keys.workflow(workflow_id)
    created, expires = yield from ask(Command(("HMGET", keys.meta, "created", "expires"), keys.meta))
    if expires is None or not is_cursor(expires):
        return
    left_ms = int(expires) - context.now_ms()
    if int(expires) > (yield from _server_ms(context, workflow_id)):
        call = expire_call(context, workflow_id, None, in_place_of=expires)
    elif left_ms > 0:
        call = expire_call(context, workflow_id, left_ms, in_place_of=expires)
    else:
        call = delete_call(context, workflow_id, created or b"", expires=expires)
    yield from ask(call)


def _server_ms(context: Context, workflow_id: str) -> Operation[int]:
    """The time in milliseconds since 1970 by the clock of the server that holds a workflow."""
    return time_us((yield from ask(Command(("TIME",), context.keys.workflow(workflow_id).meta)))) // 1000


def delete_ended(context: Context, workflow_ids: Sequence[str]) -> Operation[None]:
    """Delete workflows whose end is reached by both clocks, unless they were changed since that was found.

    Where they cannot be deleted, at a replica, without the permission, or beside a foreign value, they are over all the
    same.
    """
    if context.at_replica:
        return
    keys = [context.keys.workflow(workflow_id) for workflow_id in workflow_ids]
    found = yield from ask_all([Command(("HMGET", one.meta, "created", "expires"), one.meta) for one in keys])
    calls = [
        delete_call(context, workflow_id, created or b"", expires=expires)
        for workflow_id, (created, expires) in zip(workflow_ids, found, strict=True)
        if expires is not None and is_cursor(expires) and int(expires) <= context.now_ms()
    ]
    for call, reply in zip(calls, (yield Batch(calls)), strict=True):
        if not (isinstance(reply, ErrorReply) and (not_allowed(reply) or reply.code in {"WRONGTYPE", "DAMAGED"})):
            answer(reply, call)


def sweep_ended(context: Context, ended_ms: int) -> Operation[None]:
    """Delete all workflows of the namespace whose end was reached by a time, in milliseconds since 1970."""
    keys = context.keys.all_expiring()
    while keys:
        pages = yield from ask_all(
            [Command(("ZRANGEBYSCORE", key, "-inf", str(ended_ms), "LIMIT", "0", str(_AT_ONCE)), key) for key in keys]
        )
        yield from delete_ended(context, [one.decode(errors="replace") for page in pages for one in page])
        keys = [key for key, page in zip(keys, pages, strict=True) if len(page) == _AT_ONCE]


def delete_call(
    context: Context, workflow_id: str, created: bytes, *, lease: str = "", expires: bytes = b""
) -> Command:
    """Return the call that deletes one life of a workflow; with `expires`, only while that is still its end."""
    keys = context.keys.workflow(workflow_id)
    return call_script(
        "delete",
        [
            *(keys.events, keys.meta, keys.snapshot, keys.log, keys.commits, keys.refs),
            *(keys.index, keys.leases, keys.expiring, keys.partition),
        ],
        [workflow_id, created, lease, expires, own_id(), ""],
        retry_at=5,
        workflow_id=workflow_id,
    )


def expire_call(context: Context, workflow_id: str, after_ms: int | None, *, in_place_of: bytes = b"") -> Command:
    """Return the call that gives a finished workflow an end, None for none; perhaps only in place of a certain one."""
    keys = context.keys.workflow(workflow_id)
    return call_script(
        "expire",
        [keys.meta, keys.expiring, keys.partition],
        [workflow_id, own_id(), "", "" if after_ms is None else str(after_ms), context.now_us(), in_place_of],
        retry_at=2,
        workflow_id=workflow_id,
    )
