"""What consumers of subscriptions got and acknowledged, and its judge."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from runic_redis.operations.feed_entries import COMMIT, CREATED, DELETED, VOID, FeedEntry
from tests.chaos.history import Verdict

__all__ = ["Appended", "Delivery", "judge_deliveries", "judge_feed"]


class Appended(NamedTuple):
    """A commit whose append was acknowledged to its writer."""

    workflow_id: str
    cursor: int
    size: int
    name: str
    number: int


@dataclass(slots=True)
class Delivery:
    """A commit that a consumer got.

    Attributes:
        consumer: the consumer, another one after each start of its process.
        place: the partition, and the place in its feed.
        began_ns: when it was recorded, before the call that acknowledged it.
        ended_ns: when that call had returned; None if it did not, or raised an error.
    """

    consumer: int
    place: tuple[int, str]
    workflow_id: str
    cursor: int
    size: int
    of: int
    name: str
    began_ns: int
    ended_ns: int | None = None


def judge_feed(feeds: Mapping[int, Sequence[FeedEntry]], appended: Sequence[Appended]) -> Verdict:
    """Compare the stored feed with what writers were told."""
    verdict = Verdict(appends=len(appended), acknowledged=len(appended))
    there: Counter[tuple[str, int, int]] = Counter()
    for partition, entries in feeds.items():
        position = 0
        cursors: dict[str, int] = {}
        for entry in entries:
            if entry.start != position:
                verdict.wrong.append(f"the feed of partition {partition} goes from {position} to {entry.start}")
            position = entry.position
            if entry.kind == DELETED:
                cursors.pop(entry.workflow_id, None)
                continue
            if entry.kind == COMMIT:
                there[entry.workflow_id, entry.cursor, entry.span] += 1
            if entry.kind != CREATED and entry.cursor != cursors.get(entry.workflow_id, 0) + entry.span:
                verdict.wrong.append(f"the feed has {entry} after the cursor {cursors.get(entry.workflow_id, 0)}")
            cursors[entry.workflow_id] = entry.cursor
    told = Counter((one.workflow_id, one.cursor, one.size) for one in appended)
    lacking = sum((told - there).values())
    verdict.lost += lacking
    if lacking:
        verdict.seen.append(f"the feed lacks {lacking} acknowledged commits: {list(told - there)[:3]}")
    return verdict


def judge_deliveries(
    feeds: Mapping[int, Sequence[FeedEntry]],
    appended: Iterable[Appended],
    deliveries: Sequence[Delivery],
    *,
    batch: int,
    may_go_back: bool,
) -> Verdict:
    """Check that each commit was acknowledged exactly once, and in order.

    A commit whose workflow was deleted later may be missing. One that is delivered and was not acknowledged may come
    again.

    Args:
        feeds: the final feed of each partition.
        appended: the commits that were acknowledged to their writers.
        deliveries: what the consumers of one subscription got.
        batch: so many acknowledgements are stored at once: all but one of them may be taken back by a kill.
        may_go_back: unacknowledged commits may be delivered, and then be dropped by a failover.
    """
    verdict = Verdict()
    by_place: dict[tuple[int, str], list[Delivery]] = defaultdict(list)
    for one in sorted(deliveries, key=lambda one: one.began_ns):
        by_place[one.place].append(one)
    for partition, entries in feeds.items():
        _judge_partition(partition, entries, by_place, verdict)
    known = {(partition, str(entry.place)) for partition, entries in feeds.items() for entry in entries}
    for place, some in by_place.items():
        # Several acknowledgements at once are stored later, and rejected then.
        is_acknowledged = batch == 1 and any(one.ended_ns is not None for one in some)
        if place not in known and (is_acknowledged or not may_go_back):
            verdict.wrong.append(f"{place} was delivered, acknowledged: {is_acknowledged}, and is not in the feed")
    _judge_again(by_place.values(), batch, verdict)
    places = Counter(some[0].name for place, some in by_place.items() if place in known and some[0].of)
    for commit in appended:
        # A deletion between two tries of an append lets both succeed.
        if commit.workflow_id.startswith("plain") and places[commit.name] != 1:
            verdict.wrong.append(f"{commit} was delivered at {places[commit.name]} places")
    return verdict


def _judge_partition(
    partition: int,
    entries: Sequence[FeedEntry],
    by_place: Mapping[tuple[int, str], Sequence[Delivery]],
    verdict: Verdict,
) -> None:
    """Check that all commits of a partition were delivered, whole and in order."""
    last_deleted = {entry.workflow_id: entry.position for entry in entries if entry.kind == DELETED}
    latest_ns = 0
    for entry in entries:
        some = by_place.get((partition, str(entry.place)), ())
        if not some:
            if entry.kind != VOID and last_deleted.get(entry.workflow_id, 0) <= entry.position:
                verdict.lost += 1
                verdict.seen.append(f"missed in partition {partition}: {entry}")
            continue
        size = entry.span if entry.kind == COMMIT else 0
        for one in some:
            if (one.workflow_id, one.cursor, one.size, one.of) != (entry.workflow_id, entry.cursor, size, size):
                verdict.torn += 1
                verdict.seen.append(f"{one} stands for {entry}")
        if some[0].began_ns < latest_ns:
            verdict.wrong.append(f"out of order in partition {partition}: {some[0]}")
        latest_ns = max(latest_ns, some[0].began_ns)


def _judge_again(all_deliveries: Iterable[Sequence[Delivery]], batch: int, verdict: Verdict) -> None:
    """Find commits that came again after they had been acknowledged."""
    again: Counter[tuple[int, int, int]] = Counter()
    for some in all_deliveries:
        for first, second in pairwise(some):
            acknowledged = next((one for one in some if one.ended_ns is not None), None)
            if acknowledged is not None and acknowledged.ended_ns < second.began_ns:  # type: ignore[operator]
                again[first.consumer, first.place[0], second.consumer] += 1
                if again[first.consumer, first.place[0], second.consumer] >= batch:
                    verdict.seen.append(f"acknowledged, and delivered again: {acknowledged}, {second}")
    verdict.doubled += sum(max(0, count - (batch - 1)) for count in again.values())
