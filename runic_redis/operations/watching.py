"""Watching a whole namespace: which workflows are written to, as they are.

Each partition's index says which workflows were written to last, so whoever watches asks for what has come on top of
each. That is a question to every partition each time, with no memory of the server's and no permission but to read.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from runic_redis.arguments import MAX_CURSOR
from runic_redis.context import Context
from runic_redis.operations.asking import ask, ask_all, time_us
from runic_redis.operations.effects import Command, Operation
from runic_redis.operations.scored import scored_ids

__all__ = ["Change", "Watcher"]

# Of a partition in which more was written to since the last look, the rest comes with the next one.
_AT_ONCE = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Change(NamedTuple):
    """A workflow that was written to.

    Attributes:
        workflow_id: the workflow.
        time_us: when, in microseconds since 1970, by the server's clock.
        since_us: what was written to it from then on is new.
    """

    workflow_id: str
    time_us: int
    since_us: int


def server_time(context: Context) -> Operation[datetime]:
    """Return the time by the server's clock."""
    time = yield from ask(Command(("TIME",), context.keys.config))
    return _EPOCH + timedelta(microseconds=time_us(time))


class Watcher:
    """Tells which workflows of a namespace are written to, from when it is opened.

    A workflow that is written to several times between two looks is told once. No clock matters: the scores of a
    partition's index only grow.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._since: list[int] = []
        # From when on what was written is new.
        self._new_from: list[int] = []
        # Those that were written to in just that microsecond: others may have been, too.
        self._told: list[set[str]] = []

    def open(self) -> Operation[None]:
        """Begin now."""
        keys = [self._context.keys.index(number) for number in range(self._context.keys.partitions)]
        commands = [Command(("ZREVRANGE", key, "0", "0", "WITHSCORES"), key) for key in keys]
        tops = [scored_ids(page, key) for key, page in zip(keys, (yield from ask_all(commands)), strict=True)]
        self._since = [int(min(max(top[0][1], 0), MAX_CURSOR)) if top else 0 for top in tops]
        self._told = [{workflow_id for workflow_id, _ in top} for top in tops]
        # Entries have their times in milliseconds: what was written in that of the last write is not new.
        self._new_from = [since + 1000 for since in self._since]

    def look(self) -> Operation[list[Change]]:
        """What has been written to since the last look, in the order of their times; nothing, if nothing has."""
        keys = [self._context.keys.index(number) for number in range(self._context.keys.partitions)]
        commands = [
            Command(
                ("ZRANGEBYSCORE", key, str(since), "+inf", "WITHSCORES", "LIMIT", "0", str(_AT_ONCE + len(told))), key
            )
            for key, since, told in zip(keys, self._since, self._told, strict=True)
        ]
        changes: list[Change] = []
        for number, reply in enumerate((yield from ask_all(commands))):
            since, told, new_from = self._since[number], self._told[number], self._new_from[number]
            for workflow_id, score in scored_ids(reply, keys[number]):
                if not 0 <= score <= MAX_CURSOR:
                    continue  # no time of a server's
                time_us = int(score)
                if time_us == since and workflow_id in told:
                    continue
                changes.append(Change(workflow_id, time_us, new_from))
                if time_us > self._since[number]:
                    self._since[number], self._told[number] = time_us, set()
                    self._new_from[number] = time_us
                self._told[number].add(workflow_id)
        return sorted(changes, key=lambda change: change.time_us)
