"""Verify the inbox of a workflow, and the ids of its messages.

Only a commit removes messages, and moves the cursor. So if the cursor is the same before and after the reading, the
number of messages has only grown meanwhile: from the count of the first reading to that of the last one.
"""

from collections.abc import Sequence
from typing import Any

from runic_redis.arguments import is_cursor
from runic_redis.context import Context
from runic_redis.errors import DecodeError
from runic_redis.operations.messages import decode_message
from runic_redis.operations.records import cursor_or_zero
from runic_redis.protocol.effects import Argument, Command, key_command

_FIELDS = ("created", "cursor", "inbox", "cancel", "messages")
# About the size of a message; and how many are read at once.
_MESSAGE_BYTES = 4096
_AT_ONCE = 250
# How often an inbox is read again because a commit came meanwhile. After that, it is not judged.
_TRIES = 5


class InboxCheck:
    """The check of one inbox.

    Args:
        context: the store's, without the application's classes.
        workflow_id: the workflow.

    Attributes:
        done: whether all is read.
        findings: the damage, with the repairs as lua/repair.lua takes them.
        last_ms: the time of the last message, as text; empty without one.
    """

    def __init__(self, context: Context, workflow_id: str) -> None:
        self._context = context
        self._workflow_id = workflow_id
        self._keys = context.keys.workflow(workflow_id)
        self._tries = 0
        self._begin()

    def _begin(self) -> None:
        self.done = self._tries == _TRIES
        self.findings: list[tuple[str, list[tuple[str, Argument]]]] = []
        self.last_ms = ""
        self._before: Sequence[Any] = ()
        self._next = "-"
        self._count = self._cancels = 0
        self._ids: list[tuple[str, Argument]] = []

    def commands(self, most_bytes: int) -> list[Command]:
        """Return the next commands, for about so many bytes of replies."""
        keys = self._keys
        self._page = max(1, min(_AT_ONCE, most_bytes // _MESSAGE_BYTES))
        meta = key_command("HMGET", keys.meta, *_FIELDS)
        page = key_command("XRANGE", keys.inbox, self._next, "+", "COUNT", str(self._page))
        return [meta, page, key_command("HLEN", keys.messages), meta]

    def receive(self, replies: Sequence[Any]) -> None:
        """Take the replies to the last commands; None for one that cannot be read."""
        before, entries, known, later = replies
        self._before = self._before or before or [None] * len(_FIELDS)
        for entry in entries or ():
            self._take(entry)
        if entries is not None and len(entries) == self._page:
            self._next = f"({entries[-1][0].decode()}"
            return
        if later is None or self._before[:2] != later[:2]:
            self._tries += 1
            self._begin()
            return
        self.done = True
        if entries is not None:
            self._judge("messages of its inbox", 2, self._count, later, [("count.inbox", "")])
            self._judge("requests to cancel in its inbox", 3, self._cancels, later, [("count.inbox", "")])
        if known is not None:
            self._judge("message ids of senders", 4, known, later, [*self._ids, ("count.messages", "")])

    def _take(self, entry: Any) -> None:
        entry_id, fields = entry
        self._count += 1
        about = dict(zip(fields[2::2], fields[3::2], strict=False))
        self._cancels += about.get(b"c") is not None
        if b"i" in about:
            self._ids.append(("messages", b"%b %b" % (entry_id, about[b"i"])))
        ms = entry_id.partition(b"-")[0]
        if is_cursor(ms):
            self.last_ms = ms.decode()
        try:
            decode_message(self._context, self._workflow_id, entry)
        except DecodeError as error:
            self.findings.append((str(error).partition(" Nothing was changed")[0], []))

    def _judge(
        self, what: str, place: int, found: int, later: Sequence[Any], repairs: list[tuple[str, Argument]]
    ) -> None:
        """Compare a number with the count before and after the reading."""
        least, most = cursor_or_zero(self._before[place]), cursor_or_zero(later[place])
        if found < least:
            self.findings.append((f"{least - found} of the {what} are lost", repairs))
        elif found > most:
            self.findings.append((f"it has {found} {what}, and {most} are counted", repairs))
