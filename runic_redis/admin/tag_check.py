"""Verify the sorted set of a workflow's tags against its entries, and against the count in its meta hash.

The entries are read before the set. A commit adds its tags in the same step as its entries, and a trim removes them in
the same step as the commit. So a tag of an entry that was read is in the set, unless its commit was trimmed since. A
tag in the set was in an entry that was read, unless its commit is later than those.
"""

from collections.abc import Sequence
from typing import Any

from runic_redis.context import Context
from runic_redis.operations.entry_fields import DIGITS, entries_field, tag_member, tags_field
from runic_redis.operations.records import cursor_or_zero
from runic_redis.protocol.effects import Argument, Command, key_command
from runic_redis.protocol.resp import pairs

# About the most bytes of a member and its score, and how many are read at once.
_MEMBER_BYTES = 200
_AT_ONCE = 1000
# How often the count is read again because a commit or a trim came meanwhile. After that, it is not judged.
_TRIES = 5
_COUNT: tuple[str, Argument] = ("count.tags", "")


class TagCheck:
    """The check of one workflow's tags.

    Args:
        context: the store's.
        workflow_id: the workflow.

    Attributes:
        done: whether all is read.
        findings: the damage, with the repairs as lua/repair.lua takes them.
    """

    def __init__(self, context: Context, workflow_id: str) -> None:
        self._keys = context.keys.workflow(workflow_id)
        self.done = False
        self.findings: list[tuple[str, list[tuple[str, Argument]]]] = []
        # The members that the entries require: whether each was found. Then those that no entry requires.
        self._wanted: dict[bytes, bool] = {}
        self._surplus: set[bytes] = set()
        # The cursors of entries that are damaged, or in a wrong place.
        self._unclear: set[int] = set()
        # The last commit id, and how many entries in a row had it.
        self._commit: tuple[Any, int] = (None, 0)
        self._next = b"0"
        self._is_read = False
        self._tries = 0
        # The number of tags, and the count; None if they cannot be compared.
        self._sizes: tuple[int, int] | None = None

    def take(self, entry: Any, *, is_sound: bool) -> None:
        """Note the tags of an entry. The entries come in their order.

        An entry that is damaged, or in a wrong place, neither requires nor excludes tags.
        """
        entry_id, fields = entry
        end = cursor_or_zero(entry_id.partition(b"-")[0])
        before, count = self._commit
        if not is_sound:
            self._unclear.add(end)
            self._commit = None, 0
            return
        commit = fields[3] if len(fields) > 3 else None
        self._commit = commit, count + 1 if commit == before else 1
        try:
            tags = tags_field(fields)
            if tags and entries_field(fields) != self._commit[1]:
                raise ValueError(f"it notes {entries_field(fields)} entries of its commit, which has {self._commit[1]}")
        except ValueError as error:
            self.findings.append((f"the entry {entry_id.decode()} is damaged: {error}", []))
            self._unclear.add(end)
            return
        self._wanted.update((tag_member(tag, end), False) for tag in tags)

    @property
    def has_wanted(self) -> bool:
        """Whether an entry has tags."""
        return bool(self._wanted)

    def commands(self, most_bytes: int) -> list[Command]:
        """Return the next commands, for about so many bytes of replies."""
        keys = self._keys
        if not self._is_read:
            count = max(1, min(_AT_ONCE, most_bytes // _MEMBER_BYTES))
            return [key_command("ZSCAN", keys.tags, self._next, "COUNT", str(count))]
        meta = key_command("HMGET", keys.meta, "cursor", "trimmed", "tags")
        return [meta, key_command("ZCARD", keys.tags), meta]

    def receive(self, replies: Sequence[Any]) -> None:
        """Take the replies to the last commands; None for one that cannot be read."""
        if self._is_read:
            self._take_count(*replies)
            return
        if replies[0] is None:
            self.done = True  # that it cannot be read is reported already
            self._wanted = {}
            return
        self._next, page = replies[0]
        for member, score in pairs(page):
            if member not in self._wanted:
                self._surplus.add(member)
            elif float(score) == 0:
                self._wanted[member] = True
        self._is_read = int(self._next) == 0

    def _take_count(self, before: Any, size: int | None, later: Any) -> None:
        self._tries += 1
        self.done = before == later or self._tries == _TRIES
        if before is not None and before == later and size is not None:
            self._sizes = size, cursor_or_zero(later[2])

    def judge(self, reached: int, cursor: int, trimmed: int) -> None:
        """Judge what was read.

        Args:
            reached: the cursor after the last entry that was read.
            cursor: the workflow's cursor after that.
            trimmed: the cursor of the last trimmed event, after that.
        """
        missing = sorted(one for one, found in self._wanted.items() if not found and _cursor_of(one) > trimmed)
        if missing:
            problem = f"{len(missing)} of its tags are lost, such as {_name(missing[0])}"
            self.findings.append((problem, [*(("tag.add", member) for member in missing), _COUNT]))
        surplus = sorted(
            one
            for one in self._surplus
            if not reached < _cursor_of(one) <= cursor and _cursor_of(one) not in self._unclear
        )
        if surplus:
            problem = f"{len(surplus)} of its tags are of no commit, such as {_name(surplus[0])}"
            self.findings.append((problem, [*(("tag.remove", member) for member in surplus), _COUNT]))
        if self._sizes and self._sizes[0] != self._sizes[1] and not missing and not surplus:
            problem = f"it has {self._sizes[0]} tags, and {self._sizes[1]} are counted"
            self.findings.append((problem, [_COUNT]))


def _cursor_of(member: bytes) -> int:
    """Return the cursor of a member; 0 if it has none."""
    return cursor_or_zero(member[-DIGITS:]) if member[-DIGITS - 1 : -DIGITS] == b"\0" else 0


def _name(member: bytes) -> str:
    """Return a member for a message."""
    return f"{member[: -DIGITS - 1]!r:.80} at the cursor {member[-DIGITS:].lstrip(b'0').decode(errors='replace')!r:.40}"
