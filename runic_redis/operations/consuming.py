"""A consumer of a subscription: what it gives out of its partitions, and what is acknowledged.

Each commit that is given out, or put aside behind a parked one, is a step. `settle` merges the steps up to a commit
into what is to be stored of each partition, and `flush` stores that.
"""

import logging
from bisect import insort
from collections import deque
from collections.abc import Callable, Collection
from typing import Literal

from runic_redis.arguments import check_count, check_name, check_seconds
from runic_redis.context import Context
from runic_redis.errors import (
    CommitsLost,
    EventsTrimmed,
    FeedTrimmed,
    InvalidArgument,
    LeaseLost,
    StoreError,
    short_repr,
)
from runic_redis.operations.commits import Commit
from runic_redis.operations.feed import FeedReader
from runic_redis.operations.feed_starts import Start, check_start
from runic_redis.operations.parking import Parked, State, load_parked, put_aside, read_again
from runic_redis.operations.shares import Save, Share, Step, check_shares, find_changed, find_lost, lease_lost
from runic_redis.operations.sharing import Leases
from runic_redis.operations.subscriptions import cannot_go_on, make_settings
from runic_redis.positions import Place
from runic_redis.protocol.effects import Batch, ErrorReply, Operation, key_command
from runic_redis.protocol.refusals import answer, checked

_log = logging.getLogger("runic_redis")
# How many commits may be put aside before that is stored.
_MOST_ASIDE = 256
_BEHIND = "An earlier commit of this workflow is parked."


class Consumer:
    """One consumer of a subscription.

    Args:
        context: the store's.
        name: the subscription's name.
        start: where to begin in partitions of which no position is stored.
        prefix: give out only commits of workflows whose ids start with this.
        types: give out only commits with an event of one of these types; None for all.
        batch: how many acknowledgements are stored at once.
        ttl: how many seconds a lease lasts.
        later: the state of commits that follow a parked one of their workflow.
        clock: the monotonic time of this process, in seconds.

    Attributes:
        name: the subscription's name.
        ttl: how many seconds a lease lasts.
        at_end: whether the last read found no commits.
        stop: ends a read that waits.
    """

    def __init__(
        self,
        context: Context,
        name: str,
        *,
        start: Start,
        prefix: str,
        types: Collection[str | type] | None,
        batch: int,
        ttl: float,
        later: Literal["wait", "park"],
        clock: Callable[[], float],
    ) -> None:
        self._context = context
        self.name = check_name(name, "The name of a subscription")
        self._start = check_start(start)
        settings = make_settings(context, "subscription", start, prefix, types)
        self._batch = check_count(batch, "batch")
        if not batch:
            raise InvalidArgument("batch is 0 acknowledgements, so none would be stored; nothing was sent.")
        self.ttl = check_seconds(ttl, "ttl")
        if later not in ("wait", "park"):
            raise InvalidArgument(f'later is "wait" or "park", not {short_repr(later)}; nothing was sent.')
        self._later: State = "parked" if later == "park" else "waiting"
        self._clock = clock
        self._reader = FeedReader(context, {}, prefix=prefix, types=types)
        self.stop = self._reader.stop
        self._leases = Leases(context, self.name, settings, self.ttl, clock)
        self._lock = self._leases.lock
        # The partitions that are read. They follow the leases at the next page.
        self._reading: dict[int, Share] = {}
        self._buffer: deque[tuple[Share, Commit, Parked | None]] = deque()
        self._steps: deque[Step] = deque()
        # How much is not stored: commits that were put aside, and acknowledgements; how many steps are of the former.
        self._aside = self._acked = self._behind = 0
        self._calls = 0
        self.at_end = True

    @property
    def consumer_id(self) -> str:
        """The id of this consumer."""
        return self._leases.consumer_id

    @property
    def partitions(self) -> list[int]:
        """The partitions that it has."""
        return sorted(self._leases.shares)

    @property
    def is_idle(self) -> bool:
        """Whether it has no partition to read."""
        with self._lock:
            return not self._reading and all(share.is_leaving for share in self._leases.shares.values())

    @property
    def is_unsaved(self) -> bool:
        """Whether something is to be stored, or a partition to be released."""
        with self._lock:
            return any(share.is_due for share in self._leases.shares.values())

    @property
    def is_batch_full(self) -> bool:
        """Whether so much is acknowledged, lost or put aside that `flush` is to be called now."""
        with self._lock:
            if self._acked >= self._batch or self._aside >= _MOST_ASIDE or self._leases.lost:
                return True
            return self._leases.has_leaving and any(share.is_releasable for share in self._leases.shares.values())

    def open(self) -> Operation[None]:
        """Register the subscription and this consumer, and lease its first partitions.

        Raises:
            ConfigurationError: the namespace has no feed.
            InvalidArgument: the subscription has another prefix or other types.
            FeedTrimmed: the commits from the start on were trimmed from the feed.
        """
        yield from self._leases.open(self._start)

    def beat(self) -> Operation[None]:
        """Renew the leases, and give up or lease partitions, so that each live consumer has its share."""
        yield from self._leases.beat()

    # Reading

    def take(self) -> Commit | None:
        """Return the next commit that was read; None if there is none."""
        with self._lock:
            now_s = self._clock()
            while self._buffer:
                share, commit, record = self._buffer.popleft()
                if now_s >= share.valid_until_s:
                    self._leases.lose(share)  # even if it is renewed: the reader is past what is dropped here
                if share.is_lost or share.is_leaving:
                    continue  # another consumer is to get it, or this one under another lease
                behind = share.records.get(commit.workflow_id)
                if record is not None and behind is not None and share.is_blocked(commit.workflow_id):
                    insort(behind, record, key=lambda one: one.order)
                    continue
                place = None if record is not None else commit.positions.places[share.partition]
                if place is not None and behind is not None:
                    self._put_behind(share, commit, place)
                    continue
                share.given += 1
                self._steps.append(Step(share, commit, place, {} if record is None else {str(record.place): ""}))
                return commit
            return None

    def _put_behind(self, share: Share, commit: Commit, place: Place) -> None:
        """Put a commit aside behind others of its workflow."""
        state = self._later if share.is_blocked(commit.workflow_id) else "waiting"
        why = _BEHIND if state == "parked" else ""
        record = put_aside(commit, place, self._context.now_ms(), state=state, why=why, attempts=0)
        share.records[commit.workflow_id].append(record)
        step = Step(share, None, place, {str(place): record.encode()})
        if share.given:
            self._steps.append(step)
            self._behind += 1
        else:
            share.merge(step.place, step.parked)
        self._aside += 1

    def next_page(self, wait_s: float | None) -> Operation[list[Commit]]:
        """Read the next commits, for `take` to give out, and return them.

        Args:
            wait_s: how long to wait at most for a commit; None for as long as a read waits.

        Raises:
            FeedTrimmed: commits were trimmed from the feed before they were read.
            EventsTrimmed: events of a commit were trimmed before they were read.
            CommitsLost: the server no longer has the commits at the stored position.
            UnknownEventType: a commit holds an event of a type that is not registered.
            DecodeError: the stored data is damaged.
        """
        self.at_end = False
        yield from self._take_up()
        yield from self._read_replayed()
        if self._buffer or not self._reading:
            self.at_end = not self._buffer
            return [commit for _, commit, _ in self._buffer]
        try:
            commits = yield from self._reader.next_page(wait_s)
        except CommitsLost as error:
            yield from self._recover(error)
            return []
        except (FeedTrimmed, EventsTrimmed) as error:
            raise cannot_go_on(self.name, error) from error
        with self._lock:
            self._buffer.extend((self._reading[commit.partition], commit, None) for commit in commits)
            if not commits:
                self._pass_over()
        self.at_end = not commits
        return commits

    def _take_up(self) -> Operation[None]:
        """Have the reader read what this consumer has now.

        Raises:
            FeedTrimmed: commits after a stored position were trimmed from the feed.
            CommitsLost: the server has lost commits before a stored position.
        """
        with self._lock:
            now_s = self._clock()
            for share in list(self._leases.shares.values()):
                if now_s >= share.valid_until_s:
                    self._leases.lose(share)
            shares = {number: share for number, share in self._leases.shares.items() if not share.is_leaving}
            gone = [number for number, share in self._reading.items() if shares.get(number) is not share]
            new = [share for number, share in shares.items() if self._reading.get(number) is not share]
        for number in gone:
            self._reader.remove(number)
            del self._reading[number]
        if not new:
            return
        try:
            outdated = yield from check_shares(self._context, self.name, new, can_rebuild=self._start == "rebuild")
        except (CommitsLost, FeedTrimmed) as error:
            raise cannot_go_on(self.name, error) from error
        if outdated:
            self._leases.lose_all(outdated)
            return
        yield from self._read_aside([share for share in new if share.parked])
        for share in new:
            self._reader.add(share.partition, share.place)
            self._reading[share.partition] = share

    def _pass_over(self) -> None:
        """Move past what the reader has passed over, in partitions of which everything is acknowledged."""
        places = self._reader.places
        for number, share in self._reading.items():
            if not share.given and not share.is_lost:
                share.merge(places[number], {})

    def _recover(self, error: CommitsLost) -> Operation[None]:
        """Go on from the stored positions where the server has lost commits that were read."""
        lost = yield from find_lost(self._context, self._reader.places)
        if not lost:
            # The feed is the one that was read. Events of a commit are missing.
            raise cannot_go_on(self.name, error) from error
        _log.warning("The subscription %r goes on from its stored positions: %s", self.name, error)
        self._leases.lose_all(self._reading[number] for number in lost)
        yield from self._leases.beat()

    def _read_aside(self, shares: list[Share]) -> Operation[None]:
        """Read the commits that are put aside in some partitions."""
        if not shares:
            return
        keys = self._context.keys
        with self._lock:
            before = {share: self._changes(share) for share in shares}
        numbers = [share.partition for share in shares]
        commands = [key_command("HGET", keys.subscription(self.name, number), "changes") for number in numbers]
        changes = checked((yield Batch(commands)), commands)
        found = yield from load_parked(self._context, self.name, numbers)
        with self._lock:
            for share, count in zip(shares, changes, strict=True):
                # Commits that are to be given out again are read again.
                self._buffer = deque(one for one in self._buffer if one[0] is not share or one[2] is None)
                later = [*before[share], *self._changes(share)]
                share.take_records(found[share.partition], later, keys.parked(self.name, share.partition))
                share.changes = count or b"0"

    def _changes(self, share: Share) -> list[dict[str, str]]:
        """Return what is to be changed of a partition's parked commits, in order."""
        return [dict(share.next_parked), *(step.parked for step in self._steps if step.share is share)]

    def _read_replayed(self) -> Operation[None]:
        """Read the commits that wait for no parked one any more, and put them before the others."""
        shares = [share for share in self._reading.values() if share.records]
        if not shares:
            return
        yield from self._read_aside((yield from find_changed(self._context, self.name, shares)))
        for share in shares:
            for workflow_id in [one for one in share.records if not share.is_blocked(one)]:
                found = yield from read_again(self._context, share.records[workflow_id], self._reader.positions.places)
                with self._lock:
                    ready = share.take_ready(workflow_id, found)
                    self._buffer.extendleft((share, commit, record) for record, commit in reversed(ready))

    # Acknowledging

    def settle(self, commit: Commit, why: str | None = None) -> None:
        """Acknowledge a commit, and all that were given out before it; or park it, with the reason why.

        Raises:
            LeaseLost: another consumer gets some of them.
        """
        with self._lock:
            count = next((count for count, step in enumerate(self._steps, 1) if step.commit is commit), 0)
            done = [self._steps.popleft() for _ in range(count)]
            lost = [step.share.partition for step in done if step.share.is_lost and step.commit is not None]
            for step in done:
                share, parked = step.share, step.parked
                self._behind -= step.commit is None
                if share.is_lost:
                    continue
                if step.commit is not None:
                    share.given -= 1
                    share.acked += 1
                    self._acked += 1
                    if step.commit is commit and why is not None:
                        parked = self._parked(step, commit, why)
                    share.attempts, share.reason, share.died = 0, "", ""
                share.merge(step.place, parked)
            # Commits that were put aside after the last one that is acknowledged.
            if self._behind:
                steps, self._steps = self._steps, deque()
                for step in steps:
                    if step.commit is not None or step.share.given:
                        self._steps.append(step)
                    else:
                        step.share.merge(step.place, step.parked)
                        self._behind -= 1
        if lost:
            raise lease_lost(self.name, lost, None)

    def _parked(self, step: Step, commit: Commit, why: str) -> dict[str, str]:
        """Return the change that parks a commit which was given out."""
        place = step.place if step.place is not None else Place.parse(next(iter(step.parked)))
        now_ms = self._context.now_ms()
        record = put_aside(commit, place, now_ms, state="parked", why=why, attempts=step.share.attempts)
        insort(step.share.records.setdefault(commit.workflow_id, []), record, key=lambda one: one.order)
        return {str(place): record.encode()}

    def has(self, commit: Commit) -> bool:
        """Whether it still has the partition of a commit that was given out."""
        with self._lock:
            share = self._share_of(commit)
            return share is not None and not share.is_lost

    def failures(self, commit: Commit) -> tuple[int, str]:
        """Return how often a commit that was given out has failed, and the last reason."""
        with self._lock:
            share = self._share_of(commit)
            return (0, "") if share is None else (share.attempts, share.reason)

    def begin(self, commit: Commit) -> bool:
        """Note that a commit is tried. Return whether that is to be stored first, as a consumer may have died of it."""
        with self._lock:
            share = self._share_of(commit)
            if share is None or share.died != "suspect":
                return False
            share.died = "trying"
            share.has_tried = True
            return True

    def fail(self, commit: Commit, why: str) -> int:
        """Count a failed attempt of a commit that was given out. Return how often it has failed."""
        with self._lock:
            share = self._share_of(commit)
            if share is None:
                return 0
            share.attempts += 1
            share.reason = why
            share.died = share.died and "suspect"
            share.has_tried = True
            return share.attempts

    def _share_of(self, commit: Commit) -> Share | None:
        return next((step.share for step in self._steps if step.commit is commit), None)

    def flush(self, *, is_last: bool = False, is_told: bool = True) -> Operation[None]:
        """Store what is acknowledged, put aside or failed; release partitions that are to be released.

        Args:
            is_last: release all partitions.
            is_told: whether the user gets the errors. `LeaseLost` is raised by the first call that has it told.

        Raises:
            LeaseLost: another consumer has a partition, and gets some of what was acknowledged.
        """
        with self._lock:
            shares = self._leases.shares.values()
            saves = [self._save(share, is_last=is_last) for share in shares if is_last or share.is_due]
            commands = [save.command(self._context, self.name) for save in saves]
            for save in saves:
                if save.is_release:
                    # Nothing more is given out, and it is not renewed. If this fails, the lease ends by itself.
                    self._leases.lose(save.share)
            self._aside = 0
            self._leases.saving = {save.share.partition for save in saves}
        try:
            replies = (yield Batch(commands)) if commands else []
        finally:
            self._leases.saving.clear()
        errors: list[StoreError] = []
        owner, feed_has_changed = None, False
        with self._lock:
            for save, command, reply in zip(saves, commands, replies, strict=True):
                try:
                    result = answer(reply, command)
                except StoreError as error:
                    errors.append(error)
                    if save.is_release and not is_last:
                        self._leases.keep(save.share)
                    continue
                if isinstance(result, ErrorReply):
                    self._leases.lose(save.share)
                    if save.acked:
                        owner = result.message or None
                        feed_has_changed = feed_has_changed or result.code == "FEED_CHANGED"
                else:
                    save.settle()
            self._acked = sum(share.acked for share in self._leases.shares.values())
            self._leases.has_leaving = any(share.is_leaving for share in self._leases.shares.values())
            if errors:
                raise errors[0]
            if is_told and (lost := self._leases.pop_lost()):
                raise lease_lost(self.name, lost, owner, feed_has_changed=feed_has_changed)

    def _save(self, share: Share, *, is_last: bool) -> Save:
        self._calls += 1
        what = share.next_place, dict(share.next_parked), share.acked, share.attempts, share.reason, share.died
        return Save(self._calls, share, *what, is_last or share.is_releasable)

    def close(self) -> Operation[None]:
        """Store what is acknowledged, and release all partitions."""
        self._leases.is_closed = True
        self._reader.close()
        with self._lock:
            self._buffer.clear()
        lost: LeaseLost | None = None
        try:
            yield from self.flush(is_last=True)
        except LeaseLost as error:
            lost = error
        yield from self._leases.leave()
        if lost is not None:
            raise lost
