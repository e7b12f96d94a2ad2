"""A workflow's references to facts: whether as many are kept as were counted, and restoring those that were lost."""

from collections.abc import Sequence

from runic_redis.context import Context, without_classes
from runic_redis.errors import DecodeError, EventsTrimmed, WorkflowNotFound
from runic_redis.events import refs_in
from runic_redis.operations.reading import Reader
from runic_redis.operations.records import read_cursor
from runic_redis.protocol.effects import Argument, Command, Operation, call_script
from runic_redis.protocol.refusals import ask, ask_all

__all__ = ["keep_all_references"]

# How often a workflow's references are compared with their count before a difference counts as a loss.
_LOOKS = 3
# How often restoring is tried while the workflow changes.
_TRIES = 5


def keep_all_references(context: Context, workflow_ids: Sequence[str]) -> Operation[None]:
    """Restore references that workflows have lost, from their events and logs.

    Raises:
        DecodeError: some cannot be restored, since events are trimmed or damaged, or the workflow changes all the time.
    """
    for workflow_id in (yield from _with_losses(context, workflow_ids)):
        for _ in range(_TRIES):
            if (yield from _restore(context, workflow_id)):
                break
        else:
            raise DecodeError(
                f"References of the workflow {workflow_id!r} to facts are lost, at the key "
                f"{context.keys.workflow(workflow_id).refs!r}, and it changed each time they were to be restored. No "
                "fact was removed. Collect again while it rests."
            )


def _with_losses(context: Context, workflow_ids: Sequence[str]) -> Operation[list[str]]:
    """Those that have fewer references than they have counted."""
    left = list(workflow_ids)
    # A workflow may be deleted between the two questions; nobody deletes one and makes it again that often.
    for _ in range(_LOOKS):
        keys = [context.keys.workflow(workflow_id) for workflow_id in left]
        # In this order: references that are added in between are counted, and are there.
        counts = yield from ask_all([Command(("HGET", one.meta, "refs"), one.meta) for one in keys])
        there = yield from ask_all([Command(("SCARD", one.refs), one.refs) for one in keys])
        left = [
            workflow_id
            for workflow_id, one, counted, size in zip(left, keys, counts, there, strict=True)
            if read_cursor(counted, one.meta) > size
        ]
    return left


def _restore(context: Context, workflow_id: str) -> Operation[bool]:
    """Restore the references of a workflow; return whether it has them all, and was not changed meanwhile."""
    keys = context.keys.workflow(workflow_id)
    plain = without_classes(context)
    commands = [
        Command(("HMGET", keys.meta, "cursor", "fence"), keys.meta),
        Command(("XREVRANGE", keys.events, "+", "-", "COUNT", "1"), keys.events),
        Command(("GET", keys.log), keys.log),
    ]
    (cursor, fence), last, log = yield from ask_all(commands)
    found: set[str] = set()
    try:
        if log is not None:
            found.update(
                ref.hash for event in plain.codec.decode_log(log) for ref in refs_in(event, plain.codec.registry)
            )
        if cursor is not None:
            reader = Reader(plain, workflow_id)
            yield from reader.open()
            while page := (yield from reader.next_page()):
                found.update(ref.hash for event in page for ref in refs_in(event, plain.codec.registry))
    except WorkflowNotFound:
        return True  # it is deleted by now
    except (EventsTrimmed, DecodeError) as error:
        raise DecodeError(
            f"References of the workflow {workflow_id!r} to facts are lost, at the key {keys.refs!r}, and not all of "
            f"its events can be read ({error}). No fact was removed. Delete the workflow, or restore it from a backup; "
            "runic-redis verify --repair keeps what references can be found, and gives up the others."
        ) from error
    arguments: list[Argument] = [workflow_id, cursor or b"", last[0][0] if last else b"", fence or b""]
    for fact_hash in found:
        arguments += ("refs", fact_hash)
    touched = [
        *(keys.meta, keys.refs, keys.index, keys.leases, keys.expiring, keys.events, keys.commits, keys.partition),
    ]
    repaired = yield from ask(call_script("repair", touched, [*arguments, "count.refs", ""], workflow_id=workflow_id))
    return bool(repaired == 1)
