"""The messages of a workflow as records of an archive.

Only a commit removes messages, and moves the cursor. So they are read as they were at the cursor of the exported
events. Message ids are read before the inbox: so those of the messages that came since are in it, and are left out.
The calls without a message id are not exported: no retry of them comes to another server.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from runic_redis.admin.archive import Record
from runic_redis.codec import event_count
from runic_redis.context import Context
from runic_redis.errors import DecodeError
from runic_redis.keys import WorkflowKeys
from runic_redis.operations.records import cursor_or_zero
from runic_redis.protocol.effects import Argument, Command, Operation, key_command
from runic_redis.protocol.refusals import ask_all
from runic_redis.protocol.resp import pairs
from runic_redis.protocol.scans import Scans

# How many messages, and message ids, are read at once and in one record.
_MESSAGES = 256
_IDS = 1000
_ENTRY_ID = re.compile(rb"[0-9]{1,16}-[0-9]{1,16}")
# The first byte of the fields that are no message ids, see lua/send.lua.
_CALL = b"\xff"


def read_messages(context: Context, workflow_id: str, meta: Mapping[str, bytes]) -> Operation[list[Record] | None]:
    """Return the records of the messages and message ids of a workflow; None if it has changed since it was read.

    Args:
        context: the store's.
        workflow_id: the workflow.
        meta: its meta hash, as it was read.

    Raises:
        DecodeError: some are lost or damaged.
    """
    keys = context.keys.workflow(workflow_id)
    state = key_command("HMGET", keys.meta, "created", "cursor")
    commands = [key_command("HSCAN", keys.messages, "0", "COUNT", str(_IDS)), _page(keys, "-"), state]
    (place, found), entries, now = yield from ask_all(commands)
    ids = dict(pairs(found))
    scans = Scans([] if int(place) == 0 else [key_command("HSCAN", keys.messages, place, "COUNT", str(_IDS))])
    page = entries
    while scans.more or len(page) == _MESSAGES:
        ids.update(pairs((yield from scans.next_members())))
        page, now = yield from ask_all([_page(keys, f"({entries[-1][0].decode()}" if entries else "-"), state])
        entries = entries + page
    if now != [meta.get("created"), meta.get("cursor")]:
        return None
    counts = cursor_or_zero(meta.get("inbox")), cursor_or_zero(meta.get("messages"))
    if len(entries) < counts[0] or len(ids) < counts[1]:
        raise DecodeError(
            f"messages or message ids are lost, at the key {keys.inbox!r} or {keys.messages!r}. Run runic-redis verify "
            "--repair."
        )
    # Those that came since may have made the workflow due.
    entries, later = entries[: counts[0]], entries[counts[0] :]
    for _, (_, _, *others) in later:
        ids.pop(dict(zip(others[::2], others[1::2], strict=False)).get(b"i"), None)
    for entry in entries:
        if not is_message(entry):
            raise DecodeError(
                f"the message {entry[0]!r:.50} at the key {keys.inbox!r} is not of this store. Remove it by XDEL, and "
                "run runic-redis verify --repair."
            )
    given = [[name, entry_id] for name, entry_id in sorted(ids.items()) if not name.startswith(_CALL)]
    records: list[Record] = [["message_ids", given[at : at + _IDS]] for at in range(0, len(given), _IDS)]
    return records + [["inbox", entries[at : at + _MESSAGES]] for at in range(0, len(entries), _MESSAGES)]


def _page(keys: WorkflowKeys, start: str) -> Command:
    return key_command("XRANGE", keys.inbox, start, "+", "COUNT", str(_MESSAGES))


def is_message(entry: Any) -> bool:
    """Return whether an entry has the form of a message: header and payload of one event, message id, and cancel."""
    entry_id, (_, payload, *others) = entry
    try:
        return (
            _ENTRY_ID.fullmatch(entry_id) is not None
            and event_count(payload) == 1
            and [name for name in others[::2] if name not in {b"i", b"c"}] == []
            and len(others) in {0, 2, 4}
        )
    except (DecodeError, ValueError, TypeError):
        return False


def checked_ids(members: Sequence[Any]) -> list[Argument]:
    """Return message ids with the IDs of their entries, flat.

    Raises:
        ValueError: one of them is damaged.
    """
    for name, entry_id in members:
        if not name or name.startswith(_CALL) or not _ENTRY_ID.fullmatch(entry_id):
            raise ValueError("a message id")
    return [part for pair in members for part in pair]
