"""The partitions that a consumer of a subscription has: their leases, and what is to be stored of each."""

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from runic_redis.context import Context
from runic_redis.errors import LeaseLost
from runic_redis.operations.commits import Commit
from runic_redis.operations.parking import Parked
from runic_redis.operations.records import read_cursor
from runic_redis.positions import Place
from runic_redis.protocol.effects import Batch, Command, Operation, call_script, key_command
from runic_redis.protocol.refusals import checked

_GONE = "Its events were trimmed, so it cannot be delivered. Drop it."


@dataclass(slots=True, eq=False)
class Share:
    """A partition under one lease.

    Attributes:
        partition: its number.
        token: the fencing token of the lease.
        valid_until_s: until when nobody else can have the lease, by the consumer's clock.
        place: the place that is stored.
        attempts: how often the commit after it has failed.
        reason: why it failed last.
        changes: how often parked commits had been changed from outside, when they were read.
        parked: how many commits were put aside when the lease was given.
        next_place: the place to store.
        next_parked: the commits that are to be put aside, as text by their places; '' for those to remove.
        records: the commits that are put aside and not given out, by workflow, each in order.
        given: how many commits were given out and are not acknowledged.
        acked: how many acknowledgements are not stored.
        has_failed: whether a failure is not stored.
        answered: the number of the last call that was answered.
        is_leaving: whether it is to be released, and nothing more of it is given out.
        is_lost: whether the lease is no longer the consumer's.
    """

    partition: int
    token: int
    valid_until_s: float
    place: Place
    attempts: int
    reason: str
    changes: bytes
    parked: int
    next_place: Place = field(init=False)
    next_parked: dict[str, str] = field(default_factory=dict)
    records: dict[str, list[Parked]] = field(default_factory=dict)
    given: int = 0
    acked: int = 0
    has_failed: bool = False
    answered: int = 0
    is_leaving: bool = False
    is_lost: bool = False

    def __post_init__(self) -> None:
        self.next_place = self.place

    @property
    def is_unsaved(self) -> bool:
        """Whether something is to be stored."""
        return self.next_place != self.place or bool(self.next_parked) or self.has_failed

    @property
    def is_releasable(self) -> bool:
        """Whether it is to be released, and nothing of it is in the hands of a handler."""
        return self.is_leaving and not self.given

    def is_blocked(self, workflow_id: str) -> bool:
        """Whether a commit of a workflow is parked."""
        return any(record.state == "parked" for record in self.records.get(workflow_id, ()))

    def merge(self, place: Place | None, parked: dict[str, str]) -> None:
        """Have a place stored, and changes of what is parked."""
        if place is not None:
            self.next_place = place
        self.next_parked.update(parked)

    def take_ready(self, workflow_id: str, found: Sequence[Commit | None]) -> list[tuple[Parked, Commit]]:
        """Take the first commits of a workflow that waited, as they were read again.

        One without events is passed over if its workflow was deleted later, as in the feed. Otherwise it is parked.
        """
        records = self.records[workflow_id]
        some = records[: len(found)]
        is_deleted_later = any(record.deleted for record in records)
        del records[: len(found)]
        ready: list[tuple[Parked, Commit]] = []
        for record, commit in zip(some, found, strict=True):
            if commit is not None:
                ready.append((record, commit))
            elif is_deleted_later:
                self.merge(None, {str(record.place): ""})
            else:
                lacking = replace(record, state="parked", reason=_GONE)
                self.merge(None, {str(record.place): lacking.encode()})
                insort(records, lacking, key=lambda one: one.order)
        if not records:
            del self.records[workflow_id]
        return ready


class Step(NamedTuple):
    """A step of a consumer through a partition that is not acknowledged.

    Attributes:
        share: the partition.
        commit: the commit that was given out; None for one that was put aside.
        place: the place after it; None for a commit that was parked before.
        parked: what is to be changed of the parked commits with it, as for `Share.next_parked`.
    """

    share: Share
    commit: Commit | None
    place: Place | None
    parked: dict[str, str]


class Save(NamedTuple):
    """What one call stores of a partition: the `number`th call of its consumer."""

    number: int
    share: Share
    place: Place
    parked: dict[str, str]
    acked: int
    attempts: int
    reason: str
    is_release: bool

    def command(self, context: Context, name: str) -> Command:
        """Return the call."""
        share = self.share
        place = "" if self.place == share.place else str(self.place)
        head = [str(share.token), str(self.number), str(share.answered), place]
        head += [str(self.attempts), self.reason, str(int(self.is_release))]
        keys = [context.keys.subscription(name, share.partition), context.keys.parked(name, share.partition)]
        return call_script("ack_subscription", keys, [*head, *(text for pair in self.parked.items() for text in pair)])

    def settle(self) -> None:
        """Note that it is stored."""
        share = self.share
        share.answered = self.number
        share.place = self.place
        share.acked -= self.acked
        share.has_failed = share.has_failed and (share.attempts, share.reason) != (self.attempts, self.reason)
        for place, text in self.parked.items():
            if share.next_parked.get(place) == text:
                del share.next_parked[place]


def find_changed(context: Context, name: str, shares: Sequence[Share]) -> Operation[list[Share]]:
    """Return the partitions whose parked commits were replayed or dropped since they were read."""
    keys = [context.keys.subscription(name, share.partition) for share in shares]
    commands = [key_command("HGET", key, "changes") for key in keys]
    changes = checked((yield Batch(commands)), commands)
    return [share for share, count in zip(shares, changes, strict=True) if (count or b"0") != share.changes]


def lease_lost(name: str, partitions: Sequence[int], owner: str | None) -> LeaseLost:
    """Return the error for acknowledgements in partitions that another consumer has."""
    numbers = ", ".join(map(str, sorted(set(partitions))))
    now = "nobody has it now" if owner is None else f"the consumer {owner} has it now"
    return LeaseLost(
        f"This consumer of the subscription {name!r} has lost partition {numbers}: {now}. Its acknowledgements there "
        "that were not stored are lost, those of this call included: these commits are delivered again. Nothing was "
        "changed in that partition. Go on with the next commit. Choose a longer ttl if the process may pause.",
        owner=owner,
    )


def read_lease(partition: int, reply: Sequence[Any], valid_until_s: float) -> Share:
    """Return the partition that a lease was given for."""
    token, position, attempts, reason, changes, parked = reply
    place = Place.parse(position.decode())
    return Share(*(partition, token, valid_until_s, place, attempts, reason.decode(errors="replace"), changes, parked))


def look_call(context: Context, name: str, partition: int) -> Command:
    """Return the command that reads who has a partition."""
    return key_command("HMGET", context.keys.subscription(name, partition), "owner", "fence", "until", "lease_ms")


def free_fence(reply: Sequence[Any], consumer: str, now_ms: int, key: str) -> int | None:
    """Return the last fencing token of a partition that can be leased; None for one that another consumer has."""
    owner, *numbers = reply
    fence, ends_ms, lasts_ms = (read_cursor(value, key) for value in numbers)
    left_ms = ends_ms - now_ms
    is_free = owner is None or owner == consumer.encode() or not 0 < left_ms <= lasts_ms
    return fence if is_free else None


def overlaid(records: Iterable[Parked], changes: Iterable[dict[str, str]], read: Any) -> dict[str, list[Parked]]:
    """Return stored records with later changes, by workflow, each in order.

    Args:
        records: the stored ones.
        changes: as for `Share.next_parked`, in their order.
        read: returns the record that a place and a text stand for.
    """
    found = {str(record.place): record for record in records}
    for change in changes:
        for place, text in change.items():
            if text:
                found[place] = read(place, text)
            else:
                found.pop(place, None)
    by_workflow: dict[str, list[Parked]] = {}
    for record in sorted(found.values(), key=lambda one: one.order):
        by_workflow.setdefault(record.workflow_id, []).append(record)
    return by_workflow
