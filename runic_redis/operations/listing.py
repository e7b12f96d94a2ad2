"""Listing workflows from the sorted sets of all partitions at once.

Each partition has sorted sets of its workflows: its index by the time of the last write, its queues by when workflows
are due, and others. The listing reads a page of each set, and merges them by their order. When the page of a set runs
out, it reads the next one.
"""

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from math import inf
from typing import Any, NamedTuple

from runic_redis.arguments import check_count
from runic_redis.context import Context
from runic_redis.operations.ending import delete_ended
from runic_redis.operations.filters import ALL, Filters, Source, check_workflows, find_source
from runic_redis.operations.filters import SortedSet as SourceSet
from runic_redis.operations.settings import PartitionCounts, count_call
from runic_redis.protocol.effects import Command, Operation, call_script
from runic_redis.protocol.refusals import ask_all
from runic_redis.protocol.resp import scored_ids

_FIRST_PAGE = 32
_LAST_PAGE = 1024
# How many workflows are checked in one round trip.
_CHECKED = 512


class Place(NamedTuple):
    """The place of a workflow in the order of a listing.

    Attributes:
        score: its score: of the index, the time of its last write in microseconds since 1970.
        partition: the number of its partition. At the same score, the lower number comes first.
        workflow_id: its id. At the same score in one partition, ids come in the order of Redis.
    """

    score: float
    partition: int
    workflow_id: str

    def is_before(self, other: "Place", *, rising: bool) -> bool:
        """Return whether this comes before another place."""
        if rising:
            return self < other
        return (other.score, -other.partition, other.workflow_id) < (self.score, -self.partition, self.workflow_id)


class _Set:
    """One sorted set, and the place up to which it was read."""

    def __init__(self, one: SourceSet, source: Source, expiring: str, first_page: int, below: Place | None) -> None:
        self.partition = one.partition
        self._of = one
        self._touched = [one.key, expiring, one.counts]
        self._rising = source.rising
        self._last_score = source.highest if source.rising else source.lowest
        self.read: deque[Place] = deque()
        self.more = True
        self.queued = False
        self._count = first_page
        self._below = below
        first_score = source.lowest if source.rising else source.highest
        self._score = first_score if below is None else below.score
        self._last = ""
        # Members with the last score so far. If the last member has moved, the next page starts at that score, to
        # include all that share it.
        self._at_score: set[str] = set()

    @property
    def runs_low(self) -> bool:
        """Whether the next round trip should read more of it."""
        return self.more and len(self.read) <= self._count // 8

    def command(self, time_ms: int) -> Command:
        order = "rising" if self._rising else "falling"
        # With all digits: rounded, the page would begin with members that were read already.
        begin = f"{self._score:.17g}"
        counts = (str(self._count), str(len(self._at_score)))
        return call_script("list", self._touched, [order, begin, self._last, *counts, self._of.field, str(time_ms)])

    def receive(self, asked: int, page: Sequence[Any], over: set[str]) -> None:
        pairs = scored_ids(page, self._of.key)
        self.more = len(pairs) == asked and not self._is_beyond(pairs[-1][1])
        self._count = min(self._count * 2, _LAST_PAGE)
        for workflow_id, score in pairs:
            if score != self._score:
                self._score, self._at_score = score, set()
            elif workflow_id in self._at_score:
                continue
            self._at_score.add(workflow_id)
            self._last = workflow_id
            place = Place(score, self.partition, workflow_id)
            is_wanted = self._below is None or self._below.is_before(place, rising=self._rising)
            if is_wanted and not self._is_beyond(score) and workflow_id not in over:
                self.read.append(place)

    def _is_beyond(self, score: float) -> bool:
        return score > self._last_score if self._rising else score < self._last_score


class Listing:
    """The ids of a namespace's workflows, in an order that depends on the filters.

    The last written comes first, unless a filter asks for other sorted sets: of queues, the one that is due first comes
    first; of parked and completed workflows, the last parked or completed; of workflows with an attribute, the last
    created; of children, the first created.

    A workflow that changes during the listing may move in that order. The listing may skip it.

    Args:
        context: the store's.
        filters: which workflows to list.
        containing: list only ids that contain this, in upper or lower case.
        limit: list at most this many; None for all.
        below: list only workflows after this place.
        most_read: stop after reading this many ids, wanted or not; None to read all.

    Attributes:
        last: the place of the last id that was read; None before the first.
    """

    def __init__(
        self,
        context: Context,
        filters: Filters = ALL,
        *,
        containing: str = "",
        limit: int | None = None,
        below: Place | None = None,
        most_read: int | None = None,
    ) -> None:
        self._context = context
        self._filters = filters
        self._part = containing.casefold()
        self._limit = None if limit is None else check_count(limit, "limit")
        self._below = below
        self._source: Source | None = None
        self._sets: list[_Set] = []
        # For each set, its next workflow that is not listed yet: its place in the order, the number of the set, and
        # the place.
        self._heap: list[tuple[tuple[float, int, str], int, Place]] = []
        self._starved = True
        self._unread = inf if most_read is None else most_read
        self._left_over = False
        # Ids of a rising listing: a workflow that is claimed meanwhile moves to the end of its queue.
        self._listed: set[str] = set()
        self._open: _OpenWorkflows | None = None
        self.last: Place | None = None

    @property
    def is_over(self) -> bool:
        """Whether all ids have been read."""
        return not self._starved and not self._heap and not self._left_over

    def next_page(self) -> Operation[list[str]]:
        """Return the next ids: at least one, or none when all are listed."""
        ids: list[str] = []
        while not ids and self._limit != 0 and self._unread > 0 and not self.is_over:
            if self._source is None:
                yield from self._begin()
            if self._starved:
                yield from self._refill()
            ids = yield from self._wanted(self._merge())
        return ids

    def open(self) -> Operation[None]:
        """Do nothing: the first page needs no preparation."""
        yield from ()

    def close(self) -> None:
        """Do nothing: no page is in flight."""

    def _begin(self) -> Operation[None]:
        """Find the sorted sets to read."""
        context = self._context
        source = self._source = yield from find_source(context, self._filters)
        if self._filters.state == "open" and not self._filters.attributes:
            self._open = yield from _count_open(context)
        limit, count = self._limit, len(source.sets) or 1
        first_page = _FIRST_PAGE if limit is None else min(_FIRST_PAGE, 4 + 2 * limit // count)
        self._sets = [
            _Set(one, source, context.keys.expiring(one.partition), first_page, self._below) for one in source.sets
        ]

    def _refill(self) -> Operation[None]:
        """Read the next page of every set that runs low."""
        low = [(number, one) for number, one in enumerate(self._sets) if one.runs_low]
        replies = yield from ask_all([one.command(self._context.now_ms()) for _, one in low])
        self._starved = False
        ended = {one.decode(errors="replace") for _, _, ids in replies for one in ids}
        over = (yield from delete_ended(self._context, sorted(ended))).over if ended else set()
        for (number, one), (asked, page, _) in zip(low, replies, strict=True):
            one.receive(asked, page, over)
            if not one.queued:
                self._queue(number)

    def _queue(self, number: int) -> None:
        """Queue the next workflow of a set. Without one, read more of the set before the order is known."""
        one = self._sets[number]
        one.queued = bool(one.read)
        if one.read:
            place = one.read.popleft()
            rising = self._source is not None and self._source.rising
            order = (place.score, place.partition, place.workflow_id) if rising else (-place.score, place.partition, "")
            heappush(self._heap, (order, number, place))
        elif one.more:
            self._starved = True

    def _merge(self) -> list[Place]:
        """Return workflows in their order, until more of a set must be read."""
        source = self._source
        most: float = inf if self._limit is None else self._limit
        if source is not None and any(source.checks):
            most = min(_CHECKED, max(64, 2 * most))
        places: list[Place] = []
        while self._heap and not self._starved and len(places) < most and self._unread > 0:
            _, number, place = heappop(self._heap)
            self._queue(number)
            self._unread -= 1
            self.last = place
            workflow_id = place.workflow_id
            if not workflow_id.startswith(self._filters.prefix) or self._part not in workflow_id.casefold():
                continue
            if source is not None and source.rising:
                if workflow_id in self._listed:
                    continue
                self._listed.add(workflow_id)
            places.append(place)
        return places

    def _wanted(self, places: list[Place]) -> Operation[list[str]]:
        """Return those workflows that pass the filters, within the limit."""
        source = self._source
        if source is None or not any(source.checks):
            wanted = places
        else:
            candidates = [(place.partition, place.workflow_id) for place in places]
            passed = yield from check_workflows(self._context, self._filters, source.checks, candidates)
            wanted = [place for place, one in zip(places, passed, strict=True) if one.wanted]
            if self._open is not None and self._open.are_found([one.created_us for one in passed if one.wanted]):
                self._unread = 0
        if self._limit is None:
            return [place.workflow_id for place in wanted]
        taken = wanted[: self._limit]
        self._limit -= len(taken)
        if self._limit == 0 and taken and taken[-1] is not places[-1]:
            # The others are read again by the listing that goes on from here.
            self.last, self._left_over = taken[-1], True
        return [place.workflow_id for place in taken]


class _OpenWorkflows:
    """The number of open workflows at one time. No sorted set has them, so a listing stops when it has found all."""

    def __init__(self, count: int, time_ms: int) -> None:
        self._left = count
        self._time_ms = time_ms

    def are_found(self, created_us: Sequence[int]) -> bool:
        """Count workflows that a listing has found, by when they were created. Return whether it has found all."""
        # Those that were created since were not counted.
        self._left -= sum(one // 1000 < self._time_ms for one in created_us)
        return self._left <= 0


def _count_open(context: Context) -> Operation[_OpenWorkflows]:
    calls = [count_call(context, number, "states") for number in context.keys.partition_numbers()]
    counts = [PartitionCounts(*reply) for reply in (yield from ask_all(calls))]
    return _OpenWorkflows(sum(one.open for one in counts), min(one.time_ms for one in counts))
