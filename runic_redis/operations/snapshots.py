"""Snapshots, and trimming to them."""

from collections.abc import Iterable, Mapping, Sequence

from runic_redis.arguments import check_count, check_cursor, check_data, check_workflow_id, is_cursor
from runic_redis.context import Context
from runic_redis.errors import DecodeError, SnapshotConflict, SnapshotNotFound, StoreError
from runic_redis.events import FactRef
from runic_redis.operations.facts import (
    ahead_argument,
    crosses_slots,
    fact_arguments,
    fact_keys,
    fact_not_found,
    packed_refs,
    snapshot_facts,
    store_ahead,
)
from runic_redis.operations.leasing import Lease, lease_argument, lease_keys, leased_reply
from runic_redis.operations.lost_meta import absence, read_saved
from runic_redis.operations.settings import make_namespace
from runic_redis.operations.writing import write, write_all
from runic_redis.protocol.effects import Argument, ErrorReply, Operation, call_once, key_command
from runic_redis.protocol.refusals import answer


def save_snapshot(
    context: Context,
    workflow_id: str,
    cursor: int,
    data: bytes,
    lease: Lease | None,
    *,
    refs: Iterable[str | bytes | FactRef] | None = None,
) -> Operation[None]:
    """Save a workflow's state as of a cursor."""
    workflow_id = check_workflow_id(workflow_id)
    check_cursor(cursor)
    check_data(data)
    named = snapshot_facts(data, refs)
    by_lease = lease_argument(lease, workflow_id)
    yield from make_namespace(context)
    told = ("", b"") if named is None else ("1", packed_refs(named))
    # The facts for the script to check. It needs them only if the workflow does not refer to them all.
    facts: Mapping[str, bytes] = {}
    while True:
        for problem in (yield from store_ahead(context, facts)).values():
            raise problem
        keys = context.keys.workflow(workflow_id)
        held = lease_keys(context, workflow_id, lease)
        touched = [keys.snapshot, keys.meta, keys.index, *held, keys.partition, keys.feed, keys.refs]
        args: list[Argument] = [by_lease, str(cursor), data, context.now_us(), *told, str(len(facts))]
        args += (ahead_argument(context), *fact_arguments(context, facts))
        touched += fact_keys(context, facts)
        size = len(data) + len(told[1])
        call = call_once("save_snapshot", touched, workflow_id, *args, size=size, writes=True)
        (reply,) = yield from write_all(context, [call])
        if crosses_slots(context, call, reply):
            continue
        reply = leased_reply(answer(reply, call), workflow_id)
        if not isinstance(reply, ErrorReply):
            return
        if reply.code != "REFS_UNKNOWN":
            raise _refusal(workflow_id, cursor, reply)
        facts = named or {}


def _refusal(workflow_id: str, cursor: int, reply: ErrorReply) -> StoreError:
    """Return the error for a snapshot that the script has rejected."""
    if reply.code == "FACT_MISSING":
        return fact_not_found(reply.message)
    actual = int(reply.message)
    problem = (
        f"above the workflow's, which is {actual}: append the events first"
        if reply.code == "SNAPSHOT_AHEAD"
        else f"below that of the stored snapshot, which is {actual}, so there is nothing left to save"
    )
    outcome = "Nothing was stored."
    if reply.code == "SNAPSHOT_BEHIND" and reply.unsure:
        outcome = "An earlier try had no answer: it may have been stored before that one."
    return SnapshotConflict(
        f"The snapshot's cursor {cursor} for the workflow {workflow_id!r} is {problem}. {outcome}",
        cursor=cursor,
        actual=actual,
    )


def load_snapshot(context: Context, workflow_id: str) -> Operation[tuple[int, bytes]]:
    """Return a workflow's snapshot: its cursor and its data."""
    workflow_id = check_workflow_id(workflow_id)
    keys = context.keys.workflow(workflow_id)
    get = key_command("HMGET", keys.snapshot, "cursor", "data")
    saved = yield from read_saved(context, workflow_id, get, "snapshot", _fits)
    cursor, data = saved[0] if saved else (None, None)
    if cursor is None and data is None:
        problem = (
            f"The workflow {workflow_id!r} has no snapshot. Read its events from the beginning, or save a snapshot."
        )
        raise SnapshotNotFound(problem, workflow_id=workflow_id)
    if data is None or cursor is None or not is_cursor(cursor):
        raise DecodeError(
            f"The snapshot of the workflow {workflow_id!r}, at the key {keys.snapshot!r}, is damaged. Nothing was "
            "changed. Read the events from the beginning, and save another."
        )
    return int(cursor), data


def _fits(noted: bytes | None, snapshot: Sequence[bytes | None]) -> bool:
    """Return whether a snapshot's cursor is the noted one. Damaged cursors fit: the caller reports them."""
    cursor = snapshot[0]
    if noted is None or cursor is None:
        return noted is cursor
    return not (is_cursor(noted) and is_cursor(cursor)) or int(cursor) == int(noted)


def trim(context: Context, workflow_id: str, keep: int, lease: Lease | None) -> Operation[int]:
    """Trim the commits that the snapshot covers, and release their facts. Return the cursor of the last one."""
    workflow_id = check_workflow_id(workflow_id)
    by_lease = lease_argument(lease, workflow_id)
    keep = check_count(keep, "keep")
    keys = context.keys.workflow(workflow_id)
    held = lease_keys(context, workflow_id, lease)
    touched = [keys.events, keys.meta, keys.snapshot, *held, keys.partition, keys.refs, keys.tags, keys.tagged]
    while True:
        call = call_once("trim", touched, workflow_id, by_lease, str(keep), context.now_us())
        reply = leased_reply((yield from write(context, call)), workflow_id)
        if reply is None:
            raise (yield from absence(context, workflow_id, "trim"))
        # A negative number: there is more to trim.
        if int(reply) >= 0:
            return int(reply)
