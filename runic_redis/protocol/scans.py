"""Scans of sets and hashes that are too large for one reply."""

from collections.abc import Iterable
from typing import Any

from runic_redis.protocol.effects import Batch, Command, ErrorReply, Operation
from runic_redis.protocol.refusals import answer, answer_or_foreign

# The most scans that take a step in one round trip.
AT_ONCE = 512


class Scans:
    """Scans of many keys, a page of each in a round trip.

    Args:
        commands: the first command of each scan.
    """

    def __init__(self, commands: Iterable[Command]) -> None:
        self.more = list(commands)

    def next_members(self) -> Operation[list[Any]]:
        """Return the members in the next page of each scan."""
        members: list[Any] = []
        for command, page in (yield from self.next_pages()):
            members += answer(page, command)
        return members

    def next_pages(self) -> Operation[list[tuple[Command, Any]]]:
        """Return the next page of each scan, with its command; an `ErrorReply` for a value that is not the store's."""
        some, self.more = self.more[:AT_ONCE], self.more[AT_ONCE:]
        pages = []
        for command, reply in zip(some, (yield Batch(some)), strict=True):
            found = answer_or_foreign(reply, command)
            if isinstance(found, ErrorReply):
                pages.append((command, found))
                continue
            cursor, page = found
            pages.append((command, page))
            if int(cursor) != 0:
                name, key, _, *options = command.args
                self.more.append(Command((name, key, cursor, *options), command.key))
        return pages
