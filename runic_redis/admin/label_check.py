"""Verify the sorted sets of workflows by their labels, which are their attributes and their parents.

The check of a workflow finds the sets that have lost it. This check finds the workflows in a set that do not have the
label.
"""

from collections.abc import Sequence

from runic_redis.admin.workflow_check import Finding
from runic_redis.context import Context
from runic_redis.operations.labels import ATTRIBUTE, PARENT
from runic_redis.operations.references import repair
from runic_redis.protocol.effects import Operation, key_command
from runic_redis.protocol.refusals import ask_all


def check_members(context: Context, members: Sequence[tuple[str, str]], *, repairing: bool) -> Operation[list[Finding]]:
    """Return findings for the workflows that are in a set of a label that they do not have.

    Args:
        context: the store's.
        members: keys of such sets, each with a workflow that is in it.
        repairing: whether to remove them from there, unless they have changed meanwhile.
    """
    findings = []
    commands = []
    for key, workflow_id in members:
        keys = context.keys.workflow(workflow_id)
        field, _ = _label(_name(key))
        # The cursor is read first: a commit that sets the label changes it.
        commands += [
            key_command("HMGET", keys.meta, "cursor", "fence", field),
            key_command("XREVRANGE", keys.events, "+", "-", "COUNT", "1"),
        ]
    replies = yield from ask_all(commands)
    for (key, workflow_id), meta, last in zip(members, replies[::2], replies[1::2], strict=True):
        cursor, fence, value = meta
        name = _name(key)
        if value == _label(name)[1].encode():
            continue
        repairs = ((name, ""),)
        state = (cursor, last[0][0] if last else b"", fence)
        repaired = repairing and (yield from repair(context, workflow_id, state, repairs, [key]))
        what = "child of that workflow" if name.startswith("children:") else "workflow with that attribute"
        findings.append(Finding("key", key, f"it holds {workflow_id!r:.80}, which is no {what}", repairs, repaired))
    return findings


def _name(key: str) -> str:
    """Return the name of a set among the partition's keys."""
    return key.partition("}:")[2]


def _label(name: str) -> tuple[str, str]:
    """Return the field of the meta hash, and the value there, that the workflows in a set have."""
    kind, _, rest = name.partition(":")
    if kind == "children":
        return PARENT, rest
    attribute, _, value = rest.partition("=")
    return f"{ATTRIBUTE}{attribute}", value
