"""Verify the feed of one partition, a page at a time, and repair it.

Writers may be active, and the feed may be trimmed meanwhile. A script writes a commit and its entry in one step. So an
entry that is read before the stream must have its events, and a commit that is read before the feed must have its
entry. An entry that is missing is not missed if the feed is trimmed past it when that is read again.

No repair writes an entry: the order of commits that have lost theirs is not known. A repair trims the feed up to the
damage, or begins it again. Readers that were not past it get `FeedTrimmed`, and its remedy reads what the workflows
hold.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from runic_redis.admin.workflow_check import Finding
from runic_redis.arguments import is_cursor
from runic_redis.context import Context
from runic_redis.errors import CommitsLost, DecodeError, EventsTrimmed, InvalidArgument
from runic_redis.operations.feed_entries import COMMIT, DELETED, IMPORTED, FeedEntry, read_entry
from runic_redis.operations.feed_losses import Missing, read_horizon
from runic_redis.operations.records import cursor_or_zero
from runic_redis.operations.settings import count_call
from runic_redis.positions import Place, Positions
from runic_redis.protocol.effects import Batch, Command, ErrorReply, Operation, call_script, key_command
from runic_redis.protocol.refusals import answer_or_foreign, ask, ask_all
from runic_redis.protocol.resp import pairs
from runic_redis.protocol.scans import Scans

# How many entries, and workflows, are read in one round trip, and about how many bytes of events.
_ENTRIES = 1000
_WORKFLOWS = 32
_BYTES = 8 * 1024 * 1024
# In a trimmed feed, a commit is missed only if it is that much later than the last trimmed entry. An earlier one may be
# trimmed: the clock may have been set back by as much.
_CLOCK_STEP_MS = 24 * 3600 * 1000
# The repair that `_finish` makes.
_FEED = (("feed", ""),)


class FeedCheck:
    """The check of one partition's feed.

    Args:
        context: the store's.
        number: the partition.
        repair: whether to repair it.

    Attributes:
        findings: the damage.
        is_done: whether all is read, and repaired as far as that is wanted.
    """

    def __init__(self, context: Context, number: int, *, repair: bool) -> None:
        keys = context.keys
        self._context = context
        self._number = number
        self._repair = repair
        self._key, self._hash, self._index = keys.feed(number), keys.partition(number), keys.index(number)
        self.findings: list[Finding] = []
        self.is_done = False
        self._missing = Missing(context)
        # The field feed_trimmed as it was read first, and the place that it stands for.
        self._trimmed: bytes | None = None
        self._horizon = Place()
        # The position up to which entries were read, and the one up to which they are to be read.
        self._read_to = self._upto = 0
        # The place from which on the entries follow each other without damage. The feed can be trimmed up to there.
        self._sound_from = Place()
        self._is_readable = self._must_restart = False
        # Each workflow's last commit in the feed; and those last commits in the streams that are not there: cursor,
        # time, and the position of the workflow's import.
        self._last: dict[str, FeedEntry] = {}
        self._unseen: dict[str, tuple[int, int, int]] = {}

    def steps(self) -> Iterator[Operation[None]]:
        """Yield the steps of the check."""
        yield self._open()
        yield from self._pages()
        scan = Scans([key_command("ZSCAN", self._index, "0", "COUNT", str(_WORKFLOWS))] if self._is_readable else [])
        while scan.more:
            yield self._read_workflows(scan)
        if self._unseen:
            yield self._find_end()
            yield from self._pages()
            yield self._judge_unseen()
        yield self._finish()

    def _pages(self) -> Iterator[Operation[None]]:
        while self._read_to < self._upto:
            yield self._read_page()

    def _found(self, problem: str, *, restart: bool = False) -> None:
        """Note damage that a repair of the feed settles."""
        self._must_restart |= restart
        self.findings.append(Finding("key", self._key, problem, _FEED))

    def _open(self) -> Operation[None]:
        """Compare the counter with the last entry. Both grow; each is read before the one that it is to reach."""
        state = key_command("HMGET", self._hash, "position", "feed_trimmed")
        commands = [state, key_command("XREVRANGE", self._key, "+", "-", "COUNT", "1"), state]
        replies = yield Batch(commands, own_connection=True, all_or_none=True)
        found = [answer_or_foreign(reply, command) for reply, command in zip(replies, commands, strict=True)]
        for reply, command in zip(found[:2], commands, strict=False):
            if isinstance(reply, ErrorReply):
                self.findings.append(Finding("key", command.key, f"it cannot be read: {reply.text}"))
        if self.findings:
            return
        (before, _), entries, (position, self._trimmed) = found
        if before is not None and (position is None or cursor_or_zero(position) < cursor_or_zero(before)):
            return  # the namespace was deleted meanwhile
        self._is_readable = True
        try:
            self._horizon = self._sound_from = read_horizon(self._trimmed, self._hash)
        except DecodeError:
            self._found(f"feed_trimmed is {self._trimmed!r:.40} in {self._hash}, and no place")
        self._read_to = self._horizon.position
        self._upto = _position_of(entries[0]) if entries else 0
        end = max(self._upto, self._horizon.position)
        if cursor_or_zero(before) > end:
            problem = f"the positions {end + 1} to {cursor_or_zero(before)} are missing at its end"
            self._found(problem, restart=True)
        elif cursor_or_zero(position) < end or (before is not None and not is_cursor(before)):
            yield from self._restore_position(before, entries)

    def _restore_position(self, value: bytes | None, entries: Sequence[Any]) -> Operation[None]:
        """Report a counter that is behind the feed, and restore it from the last entry, if that can be read."""
        try:
            last = read_entry(entries[0], self._key).position if entries else 0
        except DecodeError:
            return  # it is reported where it is read
        if last < self._horizon.position:
            self._found(f"position is {value!r:.40} in {self._hash}, below feed_trimmed", restart=True)
            return
        if self._repair:
            yield from ask(count_call(self._context, self._number, "repair"))
        problem = f"position is {value!r:.40}, and the feed ends at {last}"
        self.findings.append(Finding("key", self._hash, problem, (("position", ""),), self._repair))

    def _read_page(self) -> Operation[None]:
        """Read entries, and check that they follow each other, and that the streams have their events."""
        commands = [
            key_command("XRANGE", self._key, f"{self._read_to + 1}-0", "+", "COUNT", str(_ENTRIES)),
            key_command("HGET", self._hash, "feed_trimmed"),
        ]
        page, trimmed = yield from ask_all(commands)
        self._move_horizon(trimmed)
        if not page:
            self._read_to = self._upto  # all are trimmed by now
        entries: list[FeedEntry] = []
        for raw in page:
            if (position := _position_of(raw)) <= self._horizon.position:
                continue
            try:
                entry = read_entry(raw, self._key)
            except DecodeError:
                self._found(f"the entry {raw[0]!r:.50} is damaged", restart=position >= self._upto)
                self._read_to = position
                self._sound_from = Place(position, self._sound_from.ms)
                continue
            self._follow(entry)
            self._note(entry)
            if entry.kind in {COMMIT, IMPORTED}:
                entries.append(entry)
        at = 0
        while at < len(entries):
            end, size = at, 0
            while end < len(entries) and (end == at or size + entries[end].size <= _BYTES):
                size += entries[end].size
                end += 1
            yield from self._check_events(entries[at:end])
            at = end

    def _move_horizon(self, trimmed: bytes | None) -> None:
        """Note that the feed is trimmed further."""
        with suppress(DecodeError):
            horizon = read_horizon(trimmed, self._hash)
            if horizon.position > self._horizon.position:
                self._horizon = horizon
                self._sound_from = max(self._sound_from, horizon)
                self._read_to = max(self._read_to, horizon.position)

    def _follow(self, entry: FeedEntry) -> None:
        """Check that an entry begins where the one before it ends, and move past it."""
        expected, self._read_to = self._read_to, entry.position
        if entry.start > expected:
            self._sound_from = Place(entry.start, entry.ms)
            self._found(f"the positions {expected + 1} to {entry.start} are missing")
        elif entry.start < expected:
            self._sound_from = Place(entry.position, entry.ms)
            self._found(f"the entry at position {entry.position} begins at {entry.start + 1}, before the last one ends")

    def _note(self, entry: FeedEntry) -> None:
        """Note the last commit of a workflow."""
        if entry.kind in {COMMIT, IMPORTED}:
            self._last[entry.workflow_id] = entry
            if (wanted := self._unseen.get(entry.workflow_id)) is not None and _is_of(entry, *wanted):
                del self._unseen[entry.workflow_id]
        elif entry.kind == DELETED:
            self._last.pop(entry.workflow_id, None)
            self._unseen.pop(entry.workflow_id, None)

    def _check_events(self, entries: Sequence[FeedEntry]) -> Operation[None]:
        """Check that the events of commits are in the streams, unless they were trimmed or deleted."""
        replies = yield from _readable([self._reading(entry) for entry in entries])
        absent = [
            entry
            for entry, reply in zip(entries, replies, strict=True)
            # Another part of the verification reports a value that cannot be read.
            if not (isinstance(reply, ErrorReply) or _has_events(entry, reply))
        ]
        metas = [self._context.keys.workflow(entry.workflow_id).meta for entry in absent]
        trimmed = yield from _readable([key_command("HGET", meta, "trimmed") for meta in metas])
        for entry, cursor in zip(absent, trimmed, strict=True):
            if entry.kind == COMMIT and entry.cursor <= cursor_or_zero(cursor):
                continue
            try:
                yield from self._missing.settle(self._number, entry)
            except CommitsLost:
                problem = (
                    f"it has a commit of the workflow {entry.workflow_id!r:.80}, up to cursor {entry.cursor}, at "
                    f"position {entry.position}, and its events are missing"
                )
                self.findings.append(Finding("key", self._key, problem))
            except (EventsTrimmed, DecodeError):
                pass  # a damaged entry of the feed is reported where it is read

    def _reading(self, entry: FeedEntry) -> Command:
        """Return the command that shows whether the events of a commit are there."""
        keys = self._context.keys.workflow(entry.workflow_id)
        if entry.kind == IMPORTED:
            return key_command("HGET", keys.meta, "imported")
        entry_id = f"{entry.cursor}-{entry.ms}"
        return key_command("XRANGE", keys.events, entry_id, entry_id)

    def _read_workflows(self, scan: Scans) -> Operation[None]:
        """Find the workflows whose last commit is not among the entries that were read."""
        for _, page in (yield from scan.next_pages()):
            if isinstance(page, ErrorReply):
                return
            ids = [member.decode(errors="replace") for member, _ in pairs(page)]
            ids = [one for one in ids if one and self._context.keys.partition_of(one) == self._number]
            for at in range(0, len(ids), _WORKFLOWS):
                yield from self._compare(ids[at : at + _WORKFLOWS])

    def _compare(self, ids: Sequence[str]) -> Operation[None]:
        keys = [self._context.keys.workflow(workflow_id) for workflow_id in ids]
        commands = [key_command("XREVRANGE", its.events, "+", "-", "COUNT", "1") for its in keys]
        commands += [key_command("HMGET", its.meta, "cursor", "imported") for its in keys]
        replies = yield from _readable(commands)
        for workflow_id, entries, meta in zip(ids, replies[: len(ids)], replies[len(ids) :], strict=True):
            if not entries or isinstance(entries, ErrorReply) or isinstance(meta, ErrorReply):
                continue
            cursor, _, ms = entries[0][0].partition(b"-")
            wanted = cursor_or_zero(cursor), cursor_or_zero(ms), cursor_or_zero(meta[1])
            if wanted[0] > cursor_or_zero(meta[0]):
                continue  # an entry that no commit of a store has added
            last = self._last.get(workflow_id)
            # A stream that ends before the feed's last commit has lost events, which is reported for that commit.
            if last is None or not (last.cursor > wanted[0] or _is_of(last, *wanted)):
                self._unseen[workflow_id] = wanted

    def _find_end(self) -> Operation[None]:
        """Find the end of what was written meanwhile."""
        entries = yield from ask(key_command("XREVRANGE", self._key, "+", "-", "COUNT", "1"))
        self._upto = _position_of(entries[0]) if entries else 0

    def _judge_unseen(self) -> Operation[None]:
        """Report the commits that are still in the streams, and not in the feed, unless they are trimmed there."""
        self._move_horizon((yield from ask(key_command("HGET", self._hash, "feed_trimmed"))))
        horizon = self._horizon
        missed = {
            workflow_id: (cursor, ms)
            for workflow_id, (cursor, ms, imported) in self._unseen.items()
            if not horizon.position or (ms > horizon.ms + _CLOCK_STEP_MS and not 0 < imported <= horizon.position)
        }
        commands = [
            key_command("XRANGE", self._context.keys.workflow(workflow_id).events, f"{cursor}-{ms}", f"{cursor}-{ms}")
            for workflow_id, (cursor, ms) in missed.items()
        ]
        still: list[str] = []
        for at in range(0, len(commands), _WORKFLOWS):
            replies = yield from _readable(commands[at : at + _WORKFLOWS])
            still += [one for one, reply in zip(list(missed)[at : at + _WORKFLOWS], replies, strict=True) if reply]
        if still:
            problem = f"the last commits of {len(still)} workflows are not in it, such as that of {still[0]!r:.80}"
            self._found(problem, restart=True)

    def _finish(self) -> Operation[None]:
        """When repairing, trim the feed up to the damage, or begin it again."""
        self.is_done = True
        if not (self._repair and any(finding.repairs == _FEED for finding in self.findings)):
            return
        trimmed = "" if self._must_restart else self._sound_from.entry_id
        stored = (yield from self._highest_stored()) if self._must_restart else 0
        call = call_script("repair_feed", [self._hash, self._key], [self._trimmed or b"", trimmed, str(stored)])
        if (yield from ask(call)):
            self.findings = [replace(one, repaired=bool(one.repairs)) for one in self.findings]

    def _highest_stored(self) -> Operation[int]:
        """Return the highest position of a subscription or a projection in the partition."""
        keys = self._context.keys
        (found,) = yield from _readable([key_command("HKEYS", keys.subscriptions)])
        names = [] if isinstance(found, ErrorReply) else [name.decode(errors="replace") for name in found]
        commands = [key_command("HGET", keys.subscription(name, self._number), "position") for name in names]
        commands += [
            key_command("HGET", key, "positions")
            for name in names
            for key in (keys.projection(name), keys.next_projection(name))
        ]
        places: list[Place] = []
        for text, command in zip((yield from _readable(commands)), commands, strict=True):
            # A position that is lost or damaged raises an error where it is read.
            with suppress(InvalidArgument, AttributeError, IndexError):
                read = text.decode(errors="replace")
                is_of_all = command.args[-1] == "positions"
                places.append(Positions.parse(read).places[self._number] if is_of_all else Place.parse(read))
        return max((place.position for place in places), default=0)


def _has_events(entry: FeedEntry, reply: Any) -> bool:
    return reply == b"%d" % entry.position if entry.kind == IMPORTED else bool(reply)


def _is_of(entry: FeedEntry, cursor: int, ms: int, imported: int) -> bool:
    """Return whether an entry of the feed is the one of a commit."""
    if entry.kind == IMPORTED:
        return entry.cursor == cursor and entry.position == imported
    return (entry.cursor, entry.ms) == (cursor, ms)


def _position_of(raw: Any) -> int:
    """Return the position in the ID of an entry."""
    return int(raw[0].partition(b"-")[0])


def _readable(commands: Sequence[Command]) -> Operation[list[Any]]:
    """Return the replies to commands; an `ErrorReply` for a value that is not the store's."""
    replies = (yield Batch(commands)) if commands else []
    return [answer_or_foreign(reply, command) for reply, command in zip(replies, commands, strict=True)]
