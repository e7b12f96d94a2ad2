"""Listing workflows newest first, from the indexes of all partitions at once.

Each partition has an index of its workflows by the time of their last write. The listing reads a page of each index,
and merges them. When the page of a partition runs out, it reads the next one.
"""

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from math import inf
from typing import Any, NamedTuple

from runic_redis.arguments import check_count, check_prefix
from runic_redis.context import Context
from runic_redis.keys import Keys
from runic_redis.operations.ending import delete_ended
from runic_redis.protocol.effects import Command, Operation, call_script, key_command
from runic_redis.protocol.refusals import ask_all
from runic_redis.protocol.resp import scored_ids

_FIRST_PAGE = 32
_LAST_PAGE = 1024


class Place(NamedTuple):
    """The place of a workflow in the order of a listing.

    Attributes:
        time_us: the time of its last write, in microseconds since 1970, by the server's clock.
        partition: the number of its partition. At the same time, the lower number comes first.
        workflow_id: its id. At the same time in one partition, the higher id comes first, as in Redis.
    """

    time_us: float
    partition: int
    workflow_id: str

    def is_before(self, time_us: float, partition: int, workflow_id: str) -> bool:
        """Return whether this comes before another place."""
        return (time_us, -partition, workflow_id) < (self.time_us, -self.partition, self.workflow_id)


class _Partition:
    """One partition's index, or its leases, and the place up to which they were read."""

    def __init__(
        self, keys: Keys, number: int, first_page: int, below: Place | None, lowest: float, *, by_lease: bool
    ) -> None:
        self._number = number
        self._key = keys.leases(number) if by_lease else keys.index(number)
        self._touched = [self._key, keys.expiring(number), keys.partition(number)]
        self.by_lease = by_lease
        self._lowest = lowest
        self.read: deque[tuple[float, str]] = deque()
        self.more = True
        self.queued = False
        self._count = first_page
        self._below = below
        self._score = float("inf") if below is None else below.time_us
        # Members with the lowest score so far. The next page starts at that score, to include all that share it.
        self._at_score: set[str] = set()

    @property
    def runs_low(self) -> bool:
        """Whether the next round trip should read more of it."""
        return self.more and len(self.read) <= self._count // 8

    def command(self, time_ms: int) -> Command:
        # With all digits: rounded up, the page would begin with members that were read already.
        upper = f"{self._score:.17g}"
        count = str(self._count + len(self._at_score))
        if self.by_lease:
            return key_command("ZREVRANGEBYSCORE", self._key, upper, "-inf", "WITHSCORES", "LIMIT", "0", count)
        return call_script("list", self._touched, [upper, count, str(time_ms)])

    def receive(self, page: Sequence[Any], ended: set[str]) -> None:
        pairs = scored_ids(page, self._key)
        self.more = len(pairs) == self._count + len(self._at_score) and pairs[-1][1] >= self._lowest
        self._count = min(self._count * 2, _LAST_PAGE)
        for workflow_id, score in pairs:
            if score != self._score:
                self._score, self._at_score = score, set()
            elif workflow_id in self._at_score:
                continue
            self._at_score.add(workflow_id)
            is_wanted = self._below is None or self._below.is_before(score, self._number, workflow_id)
            if is_wanted and score >= self._lowest and workflow_id not in ended:
                self.read.append((score, workflow_id))


class Listing:
    """The ids of a namespace's workflows, the last written first.

    A write during the listing moves its workflow to the front. The listing may skip that workflow.

    Args:
        context: the store's.
        prefix: list only ids that start with this.
        containing: list only ids that contain this, in upper or lower case.
        limit: list at most this many; None for all.
        below: list only workflows after this place.
        lowest: list only workflows that were last written at this time or later, in Unix microseconds.
        by_lease: list only workflows with a lease that was not released. They come by the end of the lease, the latest
            first; `below` and `lowest` are then such ends, in Unix milliseconds.
        most_read: stop after reading this many ids, wanted or not; None to read all.

    Attributes:
        last: the place of the last id that was read; None before the first.
    """

    def __init__(
        self,
        context: Context,
        *,
        prefix: str = "",
        containing: str = "",
        limit: int | None = None,
        below: Place | None = None,
        lowest: float = -inf,
        by_lease: bool = False,
        most_read: int | None = None,
    ) -> None:
        self._context = context
        self._prefix = check_prefix(prefix)
        self._part = containing.casefold()
        self._limit = None if limit is None else check_count(limit, "limit")
        count = context.keys.partitions
        first_page = _FIRST_PAGE if limit is None else min(_FIRST_PAGE, 4 + 2 * limit // count)
        self._partitions = [
            _Partition(context.keys, number, first_page, below, lowest, by_lease=by_lease)
            for number in context.keys.partition_numbers()
        ]
        # For each partition, its newest workflow that is not listed yet, as (-score, partition, id).
        self._heap: list[tuple[float, int, str]] = []
        self._starved = True
        self._unread = inf if most_read is None else most_read
        self.last: Place | None = None

    @property
    def is_over(self) -> bool:
        """Whether all ids have been read."""
        return not self._starved and not self._heap

    def next_page(self) -> Operation[list[str]]:
        """Return the next ids: at least one, or none when all are listed."""
        ids: list[str] = []
        while not ids and self._limit != 0 and self._unread > 0 and not self.is_over:
            if self._starved:
                yield from self._refill()
            ids = self._merge()
        return ids

    def open(self) -> Operation[None]:
        """Do nothing: the first page needs no preparation."""
        yield from ()

    def close(self) -> None:
        """Do nothing: no page is in flight."""

    def _refill(self) -> Operation[None]:
        """Read the next page of every partition that runs low."""
        low = [(number, partition) for number, partition in enumerate(self._partitions) if partition.runs_low]
        commands = [partition.command(self._context.now_ms()) for _, partition in low]
        replies = yield from ask_all(commands)
        self._starved = False
        pages = [
            (reply, ()) if partition.by_lease else reply for (_, partition), reply in zip(low, replies, strict=True)
        ]
        ended = [one.decode(errors="replace") for _, ids in pages for one in ids]
        over = (yield from delete_ended(self._context, ended)).over if ended else set()
        for (number, partition), (page, _) in zip(low, pages, strict=True):
            partition.receive(page, over)
            if not partition.queued:
                self._queue(number)

    def _queue(self, number: int) -> None:
        """Queue a partition's newest workflow. Without one, read more of the partition before the order is known."""
        partition = self._partitions[number]
        partition.queued = bool(partition.read)
        if partition.read:
            score, workflow_id = partition.read.popleft()
            heappush(self._heap, (-score, number, workflow_id))
        elif partition.more:
            self._starved = True

    def _merge(self) -> list[str]:
        """Return ids, newest first, until more of a partition must be read."""
        ids = []
        while self._heap and not self._starved and self._limit != 0 and self._unread > 0:
            score, number, workflow_id = heappop(self._heap)
            self._queue(number)
            self._unread -= 1
            self.last = Place(-score, number, workflow_id)
            if workflow_id.startswith(self._prefix) and self._part in workflow_id.casefold():
                ids.append(workflow_id)
                if self._limit is not None:
                    self._limit -= 1
        return ids
