"""The index of all tags of a namespace, compared with the entries of its workflows.

Each step is one script, so writers may go on.
"""

from typing import NamedTuple

from runic_redis.arguments import check_workflow_id
from runic_redis.context import Context
from runic_redis.errors import InvalidArgument
from runic_redis.protocol.effects import Argument, Operation, call_script, key_command
from runic_redis.protocol.refusals import ask

# How many members of the index are read at once.
_MEMBERS = 256


class Lacking(NamedTuple):
    """What the index lacks of a workflow.

    Attributes:
        tags: how many tags.
        unplaced: how many tags of entries that have no position, and so cannot be in it.
    """

    tags: int
    unplaced: int


def index_workflow(context: Context, workflow_id: str, *, adds: bool) -> Operation[Lacking]:
    """Compare a workflow's entries with the index. Add what it lacks, if wanted."""
    keys = context.keys.workflow(workflow_id)
    first, tags, unplaced = b"-", 0, 0
    while first:
        args: list[Argument] = [workflow_id, first, "1" if adds else ""]
        call = call_script("index_tags", [keys.events, keys.meta, keys.tagged], args, workflow_id=workflow_id)
        first, lacking, without = yield from ask(call)
        tags += lacking
        unplaced += without
    return Lacking(tags, unplaced)


def next_surplus(context: Context, after: bytes, *, removes: bool) -> Operation[tuple[bytes, list[bytes]]]:
    """Compare the next members of the index with the entries.

    Args:
        context: the store's.
        after: the last member that was compared; empty for none.
        removes: whether to remove those that no entry has.

    Returns:
        The last member that is compared now, empty after the last of all; and those that no entry has.
    """
    index = context.keys.tagged or ""
    start = b"(" + after if after else b"-"
    members: list[bytes] = yield from ask(key_command("ZRANGEBYLEX", index, start, "+", "LIMIT", "0", str(_MEMBERS)))
    if not members:
        return b"", []
    keys = [index]
    args: list[Argument] = ["1" if removes else ""]
    for member in members:
        workflow_id = _workflow_of(member)
        its = context.keys.workflow(workflow_id)
        keys += (its.events, its.meta)
        args += (workflow_id, member)
    count, *places = yield from ask(call_script("review_tags", keys, args))
    return members[count - 1], [members[place] for place in places]


def _workflow_of(member: bytes) -> str:
    """Return the workflow that a member names; for one that names none, an id that is none of the store's entries."""
    try:
        return check_workflow_id(member.split(b"\0", 4)[4].decode())
    except (IndexError, UnicodeDecodeError, InvalidArgument):
        return "-"
