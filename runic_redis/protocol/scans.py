"""Reading sets and hashes that are too large for one reply, in pages.

The cursor of a scan fits one server only: after a failover, the other server may pass over members. So `Scans` are for
what can be done again, such as a report. Where a missed member loses data, use `ByScore`.
"""

from collections.abc import Iterable
from typing import Any

from runic_redis.protocol.effects import Batch, Command, ErrorReply, Operation, key_command
from runic_redis.protocol.refusals import answer, answer_or_foreign, ask_all
from runic_redis.protocol.resp import pairs

# Of how many keys the next page is read in one round trip.
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


class ByScore:
    """The members of sorted sets by rising score, a page of each set in a round trip.

    A score that a write raises moves its member ahead, where it is read again. A failover in between changes nothing
    in that.

    Args:
        keys: the keys of the sorted sets.
        count: how many members a page has. It has more where that many have the same score.
    """

    def __init__(self, keys: Iterable[str], count: int) -> None:
        self._count = count
        # Of each set that has more: its key, the score from which to read on, and how many members to read.
        self.more = [(key, "-inf", count) for key in keys]

    def next_pages(self) -> Operation[list[tuple[str, list[tuple[Any, Any]]]]]:
        """Return the key and the next page of each set: members with their scores. A member may come again."""
        some, self.more = self.more[:AT_ONCE], self.more[AT_ONCE:]
        commands = [
            key_command("ZRANGEBYSCORE", key, lowest, "+inf", "WITHSCORES", "LIMIT", "0", str(count))
            for key, lowest, count in some
        ]
        pages = []
        for (key, lowest, count), reply in zip(some, (yield from ask_all(commands)), strict=True):
            page = pairs(reply)
            pages.append((key, page))
            if len(page) == count:
                # The next page begins with this score again, because more members may have it.
                score = repr(float(page[-1][1]))
                self.more.append((key, score, 2 * count if score == lowest else self._count))
        return pages
