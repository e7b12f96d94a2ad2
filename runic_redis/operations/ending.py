"""The ends of workflows: when one is reached, and how the workflow is deleted then.

The expiry of Redis uses one clock: after a failover to a server whose clock is ahead, keys are gone at once. So the
store deletes a workflow itself, and only once two clocks have reached its end, the server's and the caller's.

If only one clock has reached the end, a write goes to the workflow that exists. The workflow must then outlast this
write, or the write would be deleted with it. So if the server's clock has reached the end, the end is postponed by the
time that is left by the caller's. If the caller's clock has reached it, the end is removed.

A lifetime that slides is extended by writes, which do not change `expires`. So once `expires` is reached, the end is
computed from the last write. If it is later, `expires` moves there. The script that deletes a workflow computes it
again, so no write is lost. If only one clock has reached the end, `expires` moves on by the lifetime, as it would by
the write.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

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
from runic_redis.protocol.refusals import answer, ask, ask_all, checked, not_allowed, time_us
from runic_redis.protocol.resp import pairs

# How many workflows of a partition are deleted in one round trip.
_AT_ONCE = 256
# The reply of lua/delete.lua for a workflow that has lived on.
_MOVED = 2
# Its reply for a workflow of whose tags more are left: it is called again.
HAS_TAGS = 3


class Ended(NamedTuple):
    """The outcome of `delete_ended`.

    Attributes:
        over: the workflows that are over. They are deleted, or cannot be.
        left: those of them that are not deleted.
        moved: the workflows that are not over, because a write has extended their lifetime: `expires` has moved.
    """

    over: set[str]
    left: list[str]
    moved: set[str]


class _End(NamedTuple):
    """The meta hash of a workflow, and the fields there that determine its end."""

    meta: dict[bytes, bytes]

    @property
    def expires(self) -> bytes | None:
        return self.meta.get(b"expires")

    @property
    def sliding(self) -> bytes | None:
        return self.meta.get(b"sliding")

    @property
    def expires_ms(self) -> int | None:
        return int(self.expires) if self.expires is not None and is_cursor(self.expires) else None


def last_end(expires: bytes | None, sliding: bytes | None, touched: bytes | None, score: bytes | None) -> int | None:
    """Return the end of a workflow, in milliseconds since 1970. None if it has none, or one that is damaged.

    Args:
        expires: the fields of its meta hash.
        sliding: as above.
        touched: as above.
        score: its score in the index.
    """
    if expires is None or not all(is_cursor(value or b"0") for value in (expires, sliding, touched)):
        return None
    if sliding is None:
        return int(expires)
    return max(int(expires), max(ceil(float(score or 0) / 1000), int(touched or 0)) + int(sliding))


def is_over(context: Context, workflow_id: str, expires: bytes | None) -> Operation[bool]:
    """Return whether both clocks have reached the end of a workflow; then delete it.

    Once deleted, it stays over, whatever the clocks do next. `expires` is from its meta hash. It tells most workflows
    without another round trip.
    """
    if expires is None or not is_cursor(expires) or int(expires) > context.now_ms():
        return False
    return workflow_id in (yield from delete_ended(context, [workflow_id])).over


def settle_end(context: Context, workflow_id: str) -> Operation[None]:
    """Delete a workflow that is over. Otherwise, move its end, so that a write gets through."""
    ((end, reached),) = yield from _read_ends(context, [workflow_id])
    if end.expires is None or end.expires_ms is None or end.expires_ms > max(reached):
        return  # another writer has moved it
    server_ms, own_ms = reached
    if end.expires_ms <= min(reached):
        call = _delete_over(context, workflow_id, end, min(reached))
    elif end.sliding is not None and is_cursor(end.sliding):
        call = expire_call(context, workflow_id, int(end.sliding), sliding=True, in_place_of=end.expires)
    elif end.expires_ms > server_ms:
        call = expire_call(context, workflow_id, None, in_place_of=end.expires)
    else:
        call = expire_call(context, workflow_id, end.expires_ms - own_ms, in_place_of=end.expires)
    if (yield from ask(call)) == HAS_TAGS:
        yield from settle_end(context, workflow_id)


def delete_ended(context: Context, workflow_ids: Sequence[str]) -> Operation[Ended]:
    """Delete the workflows whose end both clocks have reached, unless they were changed since.

    A workflow stays over even if it cannot be deleted: at a replica, without the permission, or because of a foreign
    value.
    """
    found = [
        (workflow_id, end, min(reached))
        for workflow_id, (end, reached) in zip(
            workflow_ids, (yield from _read_ends(context, workflow_ids)), strict=True
        )
        if end.expires_ms is not None and end.expires_ms <= min(reached)
    ]
    scores = yield from _read_scores(context, [workflow_id for workflow_id, end, _ in found if end.sliding is not None])
    ended = Ended(set(), [], set())
    calls: dict[str, Command] = {}
    for workflow_id, end, reached_ms in found:
        ends = last_end(end.expires, end.sliding, end.meta.get(b"touched"), scores.get(workflow_id))
        if ends is None:
            continue
        calls[workflow_id] = _delete_over(context, workflow_id, end, reached_ms)
        if ends <= reached_ms:
            ended.over.add(workflow_id)
    if not calls or context.at_replica:
        ended.left.extend(ended.over)
        return ended
    has_tags = []
    for (workflow_id, call), reply in zip(calls.items(), (yield Batch(list(calls.values()))), strict=True):
        if reply == HAS_TAGS:
            has_tags.append(workflow_id)
        elif reply == _MOVED:
            ended.moved.add(workflow_id)
            ended.over.discard(workflow_id)
        elif not (isinstance(reply, ErrorReply) and _is_undeletable(reply)):
            answer(reply, call)
        elif workflow_id in ended.over:
            ended.left.append(workflow_id)
    if has_tags:
        further = yield from delete_ended(context, has_tags)
        ended.left.extend(further.left)
        ended.moved.update(further.moved)
        ended.over.difference_update(further.moved)
    return ended


def _is_undeletable(reply: ErrorReply) -> bool:
    return bool(not_allowed(reply)) or reply.code in {"WRONGTYPE", "DAMAGED", "OTHER_KEY"}


def _read_ends(context: Context, workflow_ids: Sequence[str]) -> Operation[list[tuple[_End, tuple[int, int]]]]:
    """Return the ends of workflows, each with the times by the server's clock and the caller's, in milliseconds."""
    metas = [context.keys.workflow(workflow_id).meta for workflow_id in workflow_ids]
    commands = [command for meta in metas for command in (key_command("HGETALL", meta), Command(("TIME",), meta))]
    replies: list[Any] = checked((yield Batch(commands)), commands) if commands else []
    own_ms = context.now_ms()
    return [
        (_End(dict(pairs(meta))), (time_us(time) // 1000, own_ms))
        for meta, time in zip(replies[::2], replies[1::2], strict=True)
    ]


def _read_scores(context: Context, workflow_ids: Sequence[str]) -> Operation[dict[str, bytes | None]]:
    """Return the scores of workflows in the index."""
    if not workflow_ids:
        return {}
    commands = [
        key_command("ZSCORE", context.keys.workflow(workflow_id).index, workflow_id) for workflow_id in workflow_ids
    ]
    return dict(zip(workflow_ids, (yield from ask_all(commands)), strict=True))


def sweep_ended(context: Context, ended_ms: int) -> Operation[list[str]]:
    """Delete all workflows of the namespace with an end up to a time, in milliseconds since 1970.

    Returns:
        Those that are over and cannot be deleted.
    """
    left: list[str] = []
    # How many members of each set stay there.
    skipped = dict.fromkeys(context.keys.all_expiring(), 0)
    while skipped:
        commands = [
            key_command("ZRANGEBYSCORE", key, "-inf", str(ended_ms), "LIMIT", str(skip), str(_AT_ONCE))
            for key, skip in skipped.items()
        ]
        pages = [[one.decode(errors="replace") for one in page] for page in (yield from ask_all(commands))]
        ended = yield from delete_ended(context, [one for page in pages for one in page])
        left += ended.left
        gone = (ended.over - set(ended.left)) | ended.moved
        for key, page in zip(list(skipped), pages, strict=True):
            skipped[key] += sum(one not in gone for one in page)
            if len(page) < _AT_ONCE:
                del skipped[key]
    return left


def _delete_over(context: Context, workflow_id: str, end: _End, reached_ms: int) -> Command:
    """Return the call that deletes a workflow if both clocks have reached its end, or moves `expires` to that end."""
    return delete_call(context, workflow_id, end.meta, expires=end.expires or b"", reached_ms=reached_ms)


def read_metas(context: Context, workflow_ids: Sequence[str]) -> Operation[list[dict[bytes, bytes]]]:
    """Return the meta hashes of workflows, for `delete_call`."""
    commands = [key_command("HGETALL", context.keys.workflow(workflow_id).meta) for workflow_id in workflow_ids]
    return [dict(pairs(reply)) for reply in (yield from ask_all(commands))]


def delete_call(
    context: Context,
    workflow_id: str,
    meta: Mapping[bytes, bytes],
    *,
    lease: str = "",
    expires: bytes = b"",
    reached_ms: int = 0,
) -> Command:
    """Return the call that deletes a workflow, unless another was created under its id since its meta hash was read.

    With `expires`, it deletes the workflow only while that is in its meta hash, and its end is at most `reached_ms`.
    """
    keys = context.keys.workflow(workflow_id)
    queue = meta.get(b"queue", DEFAULT_QUEUE.encode()).decode(errors="replace")
    touched = [
        *(keys.events, keys.meta, keys.snapshot, keys.log, keys.commits, keys.refs, keys.inbox, keys.messages),
        *(keys.tags, keys.index, keys.leases, keys.queues, keys.queue(queue), keys.parked),
        *(keys.expiring, keys.completed, keys.partition, keys.feed, keys.tagged, keys.touch),
        *label_sets(keys, meta),
    ]
    args = (workflow_id, meta.get(b"created", b""), lease, expires, str(reached_ms), own_id(), "")
    return call_script("delete", touched, args, retry_at=6, workflow_id=workflow_id)


def expire_call(
    context: Context, workflow_id: str, after_ms: int | None, *, sliding: bool = False, in_place_of: bytes = b""
) -> Command:
    """Return the call that sets or removes the end of a workflow; with `in_place_of`, only that end."""
    keys = context.keys.workflow(workflow_id)
    after = "" if after_ms is None else str(after_ms)
    touched = [keys.meta, keys.expiring, keys.partition]
    slides = "1" if sliding else ""
    return call_once("expire", touched, workflow_id, after, slides, context.now_us(), in_place_of)
