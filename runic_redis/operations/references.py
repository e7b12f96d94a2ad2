"""A workflow's references to facts: comparing them with their count, and restoring lost ones."""

from collections.abc import Iterable, Sequence

from runic_redis.codec import unpack_refs
from runic_redis.context import Context, without_classes
from runic_redis.errors import DecodeError, EventsTrimmed, WorkflowNotFound
from runic_redis.events import refs_in
from runic_redis.keys import WorkflowKeys
from runic_redis.operations.facts import raw_hash
from runic_redis.operations.reading import Reader
from runic_redis.operations.records import read_cursor
from runic_redis.protocol.effects import Argument, Operation, call_script, key_command
from runic_redis.protocol.refusals import ask, ask_all

# How often a workflow's references must differ from their count to count as lost.
_LOOKS = 3
# How often a restore is tried while the workflow changes.
_TRIES = 5


def restore_references(context: Context, workflow_ids: Sequence[str]) -> Operation[None]:
    """Restore references that workflows have lost, from their events, logs and snapshots.

    Raises:
        DecodeError: some cannot be restored, because events are damaged, or are trimmed and the snapshot does not tell
            to which facts its state refers, or because the workflow keeps changing.
    """
    for workflow_id in (yield from _find_losses(context, workflow_ids)):
        for _ in range(_TRIES):
            if (yield from _restore(context, workflow_id)):
                break
        else:
            raise DecodeError(
                f"References of the workflow {workflow_id!r} to facts are lost, at the key "
                f"{context.keys.workflow(workflow_id).refs!r}, and each restore met a change of it. No fact was "
                "removed. Collect again while nothing writes to it."
            )


def _find_losses(context: Context, workflow_ids: Sequence[str]) -> Operation[list[str]]:
    """Return the workflows that have fewer references than their count."""
    left = list(workflow_ids)
    # A workflow may be deleted between the two reads. It is not deleted and created again this often.
    for _ in range(_LOOKS):
        keys = [context.keys.workflow(workflow_id) for workflow_id in left]
        counting = [key_command("HGET", one.meta, "refs") for one in keys]
        counts = yield from ask_all(counting)
        replies = yield from ask_all([*(key_command("ZCARD", one.refs) for one in keys), *counting])
        there, later = replies[: len(keys)], replies[len(keys) :]
        # References may have been added since the first count, or released before the second one.
        left = [
            workflow_id
            for workflow_id, one, size, *both in zip(left, keys, there, counts, later, strict=True)
            if min(read_cursor(counted, one.meta) for counted in both) > size
        ]
    return left


def _restore(context: Context, workflow_id: str) -> Operation[bool]:
    """Restore the references of a workflow. Return whether it has them all, and was not changed meanwhile."""
    keys = context.keys.workflow(workflow_id)
    plain = without_classes(context)
    commands = [
        key_command("HMGET", keys.meta, "cursor", "fence", "trimmed"),
        key_command("XREVRANGE", keys.events, "+", "-", "COUNT", "1"),
        key_command("GET", keys.log),
        key_command("HGET", keys.snapshot, "refs"),
    ]
    (cursor, fence, trimmed), last, log, packed = yield from ask_all(commands)
    # The facts by the last cursor that refers to them: "inf" for those of the log.
    found: dict[str, str] = {}
    read = read_cursor(trimmed, keys.meta)
    try:
        if read and packed is None:
            raise DecodeError("some are trimmed, and the snapshot does not tell its facts")
        found.update(dict.fromkeys([raw.decode(errors="surrogateescape") for raw in unpack_refs(packed or b"")], "0"))
        if cursor is not None:
            reader = Reader(plain, workflow_id, after=read)
            yield from reader.open()
            while page := (yield from reader.next_page()):
                for at, event in enumerate(page, read + 1):
                    found.update((ref.hash, str(at)) for ref in refs_in(event, plain.codec.registry))
                read += len(page)
        if log is not None:
            found.update(
                (ref.hash, "inf")
                for event in plain.codec.decode_log(log)
                for ref in refs_in(event, plain.codec.registry)
            )
    except WorkflowNotFound:
        return True  # it was deleted since
    except EventsTrimmed:
        return False
    except DecodeError as error:
        raise DecodeError(
            f"References of the workflow {workflow_id!r} to facts are lost, at the key {keys.refs!r}, and not all of "
            f"its events can be read ({error}). No fact was removed. Delete the workflow, or restore it from a backup. "
            "runic-redis verify --repair restores the references that it can find, and forgets the others."
        ) from error
    scores: list[tuple[str, Argument]] = [
        ("refs", f"{score} ".encode() + raw_hash(fact_hash)) for fact_hash, score in found.items()
    ]
    repairs = [*scores, ("count.refs", "")]
    return (yield from repair(context, workflow_id, (cursor, last[0][0] if last else b"", fence), repairs))


def repair(
    context: Context,
    workflow_id: str,
    state: Iterable[bytes | None],
    repairs: Iterable[tuple[str, Argument]],
    further: Iterable[str] = (),
) -> Operation[bool]:
    """Repair a workflow, unless it has changed meanwhile. Return whether that was done.

    Args:
        context: the store's.
        workflow_id: the workflow.
        state: its cursor, the ID of its last entry, and its fencing token.
        repairs: the repairs, as lua/repair.lua takes them.
        further: the keys of the queues, and of the sets of attributes and children, that they change.
    """
    arguments = (workflow_id, *(part or b"" for part in state), *(part for one in repairs for part in one))
    keys = repaired_keys(context.keys.workflow(workflow_id), further)
    reply: int = yield from ask(call_script("repair", keys, arguments, workflow_id=workflow_id))
    return reply == 1


def repaired_keys(keys: WorkflowKeys, further: Iterable[str] = ()) -> list[str]:
    """Return the keys of a workflow and its partition that a repair may change or read."""
    sets = (keys.index, keys.leases, keys.expiring, keys.completed)
    shared = (keys.partition, keys.parked, keys.queues, keys.inbox, keys.messages, keys.tags, *further)
    return [keys.meta, keys.refs, *sets, keys.events, keys.commits, *shared]
