"""The partitions that a consumer of a subscription has: their leases, and what is to be stored of each."""

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from runic_redis.context import Context
from runic_redis.errors import CommitsLost, FeedTrimmed, LeaseLost
from runic_redis.operations.commits import Commit
from runic_redis.operations.feed_losses import check_places
from runic_redis.operations.feed_starts import find_places
from runic_redis.operations.parking import Parked, read_parked
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
        died: "suspect" if a consumer has died since the place was reached; "trying" once this one tries the commit
            after it, and that is to be known if it dies; else empty.
        changes: how often parked commits had been changed from outside, when they were read.
        parked: how many commits were put aside when the lease was given.
        next_place: the place to store.
        next_parked: the commits that are to be put aside, as text by their places; '' for those to remove.
        records: the commits that are put aside and not given out, by workflow, each in order.
        given: how many commits were given out and are not acknowledged.
        acked: how many acknowledgements are not stored.
        has_tried: whether a failure, or an attempt, is not stored.
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
    died: str
    changes: bytes
    parked: int
    next_place: Place = field(init=False)
    next_parked: dict[str, str] = field(default_factory=dict)
    records: dict[str, list[Parked]] = field(default_factory=dict)
    given: int = 0
    acked: int = 0
    has_tried: bool = False
    answered: int = 0
    is_leaving: bool = False
    is_lost: bool = False

    def __post_init__(self) -> None:
        self.next_place = self.place

    @property
    def is_due(self) -> bool:
        """Whether something is to be stored of it, or it is to be released."""
        return self.next_place != self.place or bool(self.next_parked) or self.has_tried or self.is_releasable

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

    def take_records(self, records: Sequence[Parked], changes: Iterable[dict[str, str]], key: str) -> None:
        """Note what is put aside: the stored records, with later changes, as for `next_parked`, in their order."""
        found = {str(record.place): record for record in records}
        for change in changes:
            for place, text in change.items():
                if text:
                    found[place] = read_parked(self.partition, key, place.encode(), text.encode())
                else:
                    found.pop(place, None)
        self.records = {}
        for record in sorted(found.values(), key=lambda one: one.order):
            self.records.setdefault(record.workflow_id, []).append(record)

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
    died: str
    is_release: bool

    def command(self, context: Context, name: str) -> Command:
        """Return the call."""
        share = self.share
        place = "" if self.place == share.place else str(self.place)
        head = [str(share.token), str(self.number), str(share.answered), place]
        head += [str(self.attempts), self.reason, self.died, str(int(self.is_release))]
        keys = context.keys
        touched = [
            *(keys.subscription(name, share.partition), keys.parked(name, share.partition)),
            *(keys.feed(share.partition), keys.partition(share.partition)),
        ]
        changes = [text for pair in self.parked.items() for text in pair]
        return call_script("ack_subscription", touched, [*head, *changes])

    def settle(self) -> None:
        """Note that it is stored."""
        share = self.share
        share.answered = self.number
        share.place = self.place
        share.acked -= self.acked
        is_stored = (share.attempts, share.reason, share.died) == (self.attempts, self.reason, self.died)
        share.has_tried = share.has_tried and not is_stored
        for place, text in self.parked.items():
            if share.next_parked.get(place) == text:
                del share.next_parked[place]


def find_changed(context: Context, name: str, shares: Sequence[Share]) -> Operation[list[Share]]:
    """Return the partitions whose parked commits were replayed or dropped since they were read."""
    keys = [context.keys.subscription(name, share.partition) for share in shares]
    commands = [key_command("HGET", key, "changes") for key in keys]
    changes = checked((yield Batch(commands)), commands)
    return [share for share, count in zip(shares, changes, strict=True) if (count or b"0") != share.changes]


def check_shares(context: Context, name: str, shares: Sequence[Share], *, can_rebuild: bool) -> Operation[list[Share]]:
    """Check that partitions can be read from their places on. With `can_rebuild`, a trimmed one begins again.

    Return those whose stored places a failover has taken back since their leases were given.

    Raises:
        FeedTrimmed: commits after a place were trimmed from the feed.
        CommitsLost: the server has lost commits before a place.
    """
    try:
        yield from check_places(context, {share.partition: share.place for share in shares})
    except FeedTrimmed:
        if not can_rebuild:
            raise
        starts = yield from find_places(context, "rebuild")
        for share in shares:
            try:
                yield from check_places(context, {share.partition: share.place})
            except FeedTrimmed:
                share.place = share.next_place = starts[share.partition]
    except CommitsLost:
        if outdated := (yield from _find_outdated(context, name, shares)):
            return outdated
        raise
    return []


def find_lost(context: Context, places: Mapping[int, Place]) -> Operation[list[int]]:
    """Return the partitions in which the server has lost commits before a reader's place."""
    lost: list[int] = []
    for number, place in places.items():
        try:
            yield from check_places(context, {number: place})
        except CommitsLost:
            lost.append(number)
    return lost


def _find_outdated(context: Context, name: str, shares: Sequence[Share]) -> Operation[list[Share]]:
    keys = [context.keys.subscription(name, share.partition) for share in shares]
    commands = [key_command("HGET", key, "position") for key in keys]
    places = checked((yield Batch(commands)), commands)
    return [
        share for share, place in zip(shares, places, strict=True) if place not in (None, str(share.place).encode())
    ]


def lease_lost(name: str, partitions: Sequence[int], owner: str | None, *, feed_has_changed: bool = False) -> LeaseLost:
    """Return the error for acknowledgements in partitions that the consumer has lost."""
    numbers = ", ".join(map(str, sorted(set(partitions))))
    now = "nobody has it now" if owner is None else f"the consumer {owner} has it now"
    if feed_has_changed:
        now = "the server has lost commits there that were read, by a failover"
    return LeaseLost(
        f"This consumer of the subscription {name!r} has lost partition {numbers}: {now}. Its acknowledgements there "
        "that were not stored are lost, those of this call included: these commits are delivered again. Nothing was "
        "changed in that partition. Go on with the next commit. Choose a longer ttl if the process may pause.",
        owner=owner,
    )


def read_lease(partition: int, reply: Sequence[Any], valid_until_s: float) -> Share:
    """Return the partition that a lease was given for."""
    token, position, attempts, reason, died, changes, parked = reply
    place = Place.parse(position.decode())
    return Share(
        *(
            partition,
            token,
            valid_until_s,
            place,
            attempts,
            reason.decode(errors="replace"),
            died.decode(errors="replace"),
            changes,
            parked,
        )
    )


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
