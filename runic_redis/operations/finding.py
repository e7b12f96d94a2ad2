"""Finding commits of a workflow by their tags."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from runic_redis.arguments import check_count, check_tag, check_workflow_id
from runic_redis.codec import expanded
from runic_redis.context import Context
from runic_redis.errors import DecodeError, InvalidArgument
from runic_redis.operations.ending import is_over
from runic_redis.operations.entry_fields import DIGITS
from runic_redis.operations.lost_meta import reject_leftovers
from runic_redis.operations.records import DecodedEntry, cursor_or_zero, decode_commit
from runic_redis.protocol.effects import Operation, call_script, key_command
from runic_redis.protocol.refusals import ask

# How many tags one call lists.
_MOST_LISTED = 1000
# How many commits one call finds at most. The script also bounds their bytes.
_MOST_FOUND = 256


class TaggedCommit(NamedTuple):
    """A commit that `find` has found.

    Attributes:
        tag: the tag by which it was found.
        cursor: the workflow's cursor after the commit.
        time: the time of the commit, by the server's clock, to the millisecond.
        events: its events.
        metadata: its metadata, or None.
    """

    tag: str
    cursor: int
    time: datetime
    events: list[Any]
    metadata: dict[str, Any] | None


def find(
    context: Context,
    workflow_id: str,
    *,
    tag: str | None = None,
    prefix: str | None = None,
    below: str | None = None,
    reverse: bool = False,
    limit: int | None = None,
) -> Operation[list[TaggedCommit]]:
    """Return the commits of a workflow that carry a tag, or a tag with a prefix, by tag and then by cursor.

    With `below`, only those whose tags come before it.
    """
    workflow_id = check_workflow_id(workflow_id)
    first, last = _range(tag, prefix)
    if below is not None:
        last = min(last, b"(" + check_tag(below) + b"\0")
    left = None if limit is None else check_count(limit, "limit")
    created: bytes | None = None
    found: list[TaggedCommit] = []
    while left is None or left > 0:
        reply = yield from _page(context, workflow_id, (first, last), reverse=reverse, left=left)
        if reply[0] == b"":
            yield from reject_leftovers(context, workflow_id)
            return []
        if (yield from is_over(context, workflow_id, reply[1] or None)):
            return []
        if created not in {None, reply[0]}:
            # Another workflow has the id now.
            again = find(context, workflow_id, tag=tag, prefix=prefix, below=below, reverse=reverse, limit=limit)
            return (yield from again)
        created, member = reply[0], b""
        place = 3
        while place < len(reply):
            member, count = reply[place], reply[place + 1]
            place += 2 + 4 * count
            found.append(_decode(context, workflow_id, member, reply[place - 4 * count : place]))
        if not reply[2] or not member:
            break
        left = None if limit is None else limit - len(found)
        if reverse:
            last = b"(" + member
        else:
            first = b"(" + member
    return found


def list_tags(context: Context, workflow_id: str) -> Operation[list[tuple[str, int]]]:
    """Return all tags of a workflow, each with the cursor after a commit that carries it, in order."""
    key = context.keys.workflow(check_workflow_id(workflow_id)).tags
    first = b"-"
    tags: list[tuple[str, int]] = []
    while True:
        members: list[bytes] = yield from ask(
            key_command("ZRANGEBYLEX", key, first, "+", "LIMIT", "0", str(_MOST_LISTED))
        )
        tags += [(_tag(context, workflow_id, member), cursor_or_zero(member[-DIGITS:])) for member in members]
        if len(members) < _MOST_LISTED:
            return tags
        first = b"(" + members[-1]


def _range(tag: str | None, prefix: str | None) -> tuple[bytes, bytes]:
    """Return the first and the last member of the sorted set that can match."""
    if (tag is None) is (prefix is None):
        raise InvalidArgument("find takes a tag or a prefix: pass one of them. Nothing was sent.")
    start = check_tag(prefix, "A prefix of tags") if tag is None else check_tag(tag) + b"\0"
    # No UTF-8 text has the byte 0xff.
    return b"[" + start, b"(" + start + b"\xff"


def _page(
    context: Context, workflow_id: str, bounds: tuple[bytes, bytes], *, reverse: bool, left: int | None
) -> Operation[list[Any]]:
    keys = context.keys.workflow(workflow_id)
    most = _MOST_FOUND if left is None else min(left, _MOST_FOUND)
    args = (*bounds, "1" if reverse else "", str(most))
    page: list[Any] = yield from ask(call_script("find", [keys.tags, keys.events, keys.meta], args))
    return page


def _decode(context: Context, workflow_id: str, member: bytes, flat: Sequence[Any]) -> TaggedCommit:
    """Return a commit from its entries, of four values each."""
    entries: list[DecodedEntry] = []
    for place in range(0, len(flat), 4):
        entry_id, header, payload, metadata = flat[place : place + 4]
        fields = (header, payload, b"i", b"", b"m", metadata) if metadata else (header, payload, b"i", b"")
        entries.append(decode_commit(context, workflow_id, (entry_id, fields), with_records=True))
    events = [event for entry in entries for event in expanded(entry.events)]
    last = entries[-1]
    return TaggedCommit(_tag(context, workflow_id, member), last.end, last.time, events, last.metadata)


def _tag(context: Context, workflow_id: str, member: bytes) -> str:
    """Return the tag of a member of the sorted set of tags."""
    try:
        return member[: -DIGITS - 1].decode()
    except UnicodeDecodeError as error:
        raise DecodeError(
            f"The tags of the workflow {workflow_id!r}, at the key {context.keys.workflow(workflow_id).tags!r}, are "
            "damaged. Nothing was changed. runic-redis verify --repair restores them from the events."
        ) from error
