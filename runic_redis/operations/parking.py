"""Parked commits of a subscription: put aside with a reason, until someone replays or drops them.

While a commit of a workflow is parked, the workflow's later commits are put aside behind it, so that they keep their
order. Those wait, or are parked as well. A commit that waits is delivered again as soon as none of its workflow is
parked.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from runic_redis.arguments import check_name, check_workflow_id
from runic_redis.codec import expanded
from runic_redis.context import Context
from runic_redis.errors import DecodeError, short_repr
from runic_redis.operations.commits import Commit, Track
from runic_redis.operations.records import EPOCH, decode_commit
from runic_redis.positions import Place
from runic_redis.protocol.effects import Batch, Operation, call_script, key_command
from runic_redis.protocol.refusals import ask, checked
from runic_redis.protocol.resp import pairs

# "parked": it failed, or is parked behind one that did. "waiting": it comes again once none of its workflow is parked.
State: TypeAlias = Literal["parked", "waiting"]
_AT_ONCE = 1000
# How many commits of a workflow are read again at once.
_REPLAYED = 64


@dataclass(frozen=True, slots=True)
class Parked:
    """A commit that a subscription has put aside.

    Attributes:
        workflow_id: its workflow.
        cursor: the workflow's cursor after it; 0 for a change without events.
        events: how many events it has.
        time: the time of the commit by the server's clock.
        partition: the number of its partition.
        position: the partition's position after it.
        reason: why it was parked; empty if it waits.
        attempts: how often it failed.
        parked: when it was put aside, by the clock of the consumer.
        state: "parked"; or "waiting", if it is delivered as soon as no commit of its workflow is parked.
        deleted: whether it is the deletion of the workflow.
        place: its place in the feed of its partition.
    """

    workflow_id: str
    cursor: int
    events: int
    time: datetime
    partition: int
    position: int
    reason: str
    attempts: int
    parked: datetime
    state: State
    deleted: bool
    place: Place

    @property
    def order(self) -> tuple[int, str, int]:
        """Its place in the order of its workflow's commits, for sorting."""
        cursor, workflow_id = self.place.rebuilding or (0, "")
        # What a rebuild reads comes before what the feed has after it, at the same position.
        return self.place.position, workflow_id, cursor

    def encode(self) -> str:
        """Return it as text; the state comes last, where a script finds it."""
        times = (_ms(self.time), _ms(self.parked))
        values = [self.workflow_id, self.cursor, self.events, *times, self.attempts, self.deleted, self.reason]
        return json.dumps([*values, self.state], separators=(",", ":"))


def put_aside(commit: Commit, place: Place, now_ms: int, *, state: State, why: str, attempts: int) -> Parked:
    """Return a commit of the feed as it is put aside."""
    return Parked(
        *(commit.workflow_id, commit.cursor, len(commit.events), commit.time, commit.partition, commit.position),
        *(why, attempts, _time(now_ms), state, commit.deleted, place),
    )


def read_parked(partition: int, key: str, place: bytes, text: bytes) -> Parked:
    """Return a stored commit that was put aside.

    Raises:
        DecodeError: it is damaged.
    """
    try:
        parsed = Place.parse(place.decode())
        workflow_id, cursor, events, ms, parked_ms, attempts, deleted, why, state = json.loads(text)
        return Parked(
            *(workflow_id, cursor, events, _time(ms), partition, parsed.position, why, attempts, _time(parked_ms)),
            *(state, deleted, parsed),
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise DecodeError(
            f"A parked commit at the key {key!r} is damaged: {short_repr(place)} with {short_repr(text)}. Nothing was "
            "changed. Restore it from a backup, or remove it with HDEL."
        ) from error


def load_parked(context: Context, name: str, partitions: Sequence[int]) -> Operation[dict[int, list[Parked]]]:
    """Return the commits that were put aside in some partitions, in their order."""
    keys = [context.keys.parked(name, number) for number in partitions]
    commands = [key_command("HGETALL", key) for key in keys]
    replies = checked((yield Batch(commands, own_connection=True)), commands)
    return {
        number: sorted((read_parked(number, key, *pair) for pair in pairs(reply)), key=lambda one: one.order)
        for number, key, reply in zip(partitions, keys, replies, strict=True)
    }


def list_parked(context: Context, name: str) -> Operation[list[Parked]]:
    """Return all commits that a subscription has put aside, by partition and position."""
    found = yield from load_parked(
        context, check_name(name, "The name of a subscription"), context.keys.partition_numbers()
    )
    return [one for some in found.values() for one in some]


def settle_parked(context: Context, name: str, workflow_id: str, what: Literal["replay", "drop"]) -> Operation[int]:
    """Replay or drop the parked commits of a workflow. Return how many there were."""
    workflow_id = check_workflow_id(workflow_id)
    number = context.keys.partition_of(workflow_id)
    found = (yield from load_parked(context, check_name(name, "The name of a subscription"), [number]))[number]
    places = [str(one.place) for one in found if one.workflow_id == workflow_id and one.state == "parked"]
    keys = [context.keys.subscription(name, number), context.keys.parked(name, number)]
    count = 0
    for at in range(0, len(places), _AT_ONCE):
        count += yield from ask(call_script("settle_parked", keys, [what, *places[at : at + _AT_ONCE]]))
    return count


def read_again(context: Context, records: Sequence[Parked], places: Sequence[Place]) -> Operation[list[Commit | None]]:
    """Return the first commits of a workflow that were put aside; None for one whose events are no longer stored.

    Args:
        context: the store's.
        records: the commits, in order.
        places: the positions of the reader, which the commits carry.

    Raises:
        UnknownEventType: a commit holds an event of a type that is not registered.
        DecodeError: the stored data is damaged.
    """
    commands = [
        key_command(
            "XRANGE",
            context.keys.workflow(one.workflow_id).events,
            f"{max(1, one.cursor - one.events + 1)}-0",
            f"{one.cursor}-{_ms(one.time)}",
        )
        for one in records[:_REPLAYED]
    ]
    replies = checked((yield Batch(commands, own_connection=True)), commands)
    return [_commit(context, one, entries, places) for one, entries in zip(records, replies, strict=False)]


def _commit(context: Context, one: Parked, entries: Sequence[Any], places: Sequence[Place]) -> Commit | None:
    events: list[Any] = []
    metadata = None
    if one.events:
        if not entries or entries[-1][0] != b"%d-%d" % (one.cursor, _ms(one.time)):
            return None
        # Upcasters may have made more events of it, so the range may begin with another commit.
        own = [entry for entry in entries if entry[1][3] == entries[-1][1][3]]
        for number, entry in enumerate(own):
            decoded = decode_commit(context, one.workflow_id, entry, with_records=True)
            events += expanded(decoded.events) if decoded.multiplied else decoded.events
            metadata = metadata if number else decoded.metadata
    return Commit(
        *(one.workflow_id, one.cursor, events, one.time, metadata, one.partition, one.position, one.deleted),
        *(Track(places, ()), -1),
    )


def _ms(time: datetime) -> int:
    return (time - EPOCH) // timedelta(milliseconds=1)


def _time(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)
