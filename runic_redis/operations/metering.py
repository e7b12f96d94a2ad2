"""Metering a namespace: how many events come, and to which workflows."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from runic_redis.arguments import is_cursor
from runic_redis.context import Context
from runic_redis.operations.asking import ask_all
from runic_redis.operations.effects import Command, Operation
from runic_redis.operations.watching import Change, Watcher

__all__ = ["Meter", "Reading"]

# Of how many workflows it is remembered where they were.
_REMEMBERED = 100_000
# How many of those that it is not remembered of are looked into at one look: the others count like them.
_LOOKED_INTO = 200


class Reading(NamedTuple):
    """What has come between two looks.

    Attributes:
        changes: the workflows that were written to, in the order of their times.
        events: how many events were appended to them: exact for those that were seen before or are new, and for others
            as many as their last entry holds.
    """

    changes: list[Change]
    events: int


class Meter:
    """Counts what is appended to a namespace, from when it is opened; asks each partition's index at every look."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._watcher = Watcher(context)
        self._cursors: OrderedDict[str, int] = OrderedDict()

    def open(self) -> Operation[None]:
        """Begin now."""
        self._cursors.clear()
        yield from self._watcher.open()

    def look(self) -> Operation[Reading]:
        """What has come since the last look."""
        changes = yield from self._watcher.look()
        if not changes:
            return Reading([], 0)
        keys = [self._context.keys.workflow(change.workflow_id) for change in changes]
        found = yield from ask_all([Command(("HMGET", one.meta, "cursor", "created"), one.meta) for one in keys])
        counted = 0
        unknown: list[tuple[Change, int]] = []
        for change, (cursor, created) in zip(changes, found, strict=True):
            now, born_us = (int(value) if value is not None and is_cursor(value) else 0 for value in (cursor, created))
            before = 0 if born_us > change.since_us else self._cursors.get(change.workflow_id)
            if before is None or before > now:
                unknown.append((change, now))
            else:
                counted += now - before
            self._cursors[change.workflow_id] = now
            self._cursors.move_to_end(change.workflow_id)
        counted += yield from self._last_entries(unknown)
        while len(self._cursors) > _REMEMBERED:
            self._cursors.popitem(last=False)
        return Reading(changes, counted)

    def _last_entries(self, changes: Sequence[tuple[Change, int]]) -> Operation[int]:
        """About how many events the new ones of the last entries hold: by where the entries before them end."""
        some = changes[:_LOOKED_INTO]
        if not some:
            return 0
        keys = [self._context.keys.workflow(change.workflow_id).events for change, _ in some]
        replies = yield from ask_all([Command(("XREVRANGE", key, "+", "-", "COUNT", "2"), key) for key in keys])
        held = 0
        for (change, now), entries in zip(some, replies, strict=True):
            (_, ms), (before, _) = [entry[0].split(b"-") for entry in (*entries, (b"0-0",), (b"0-0",))][:2]
            # (A snapshot or a lease changes a workflow, too.)
            if is_cursor(ms) and is_cursor(before) and int(ms) >= change.since_us // 1000:
                held += max(0, now - int(before))
        return held * len(changes) // len(some)
