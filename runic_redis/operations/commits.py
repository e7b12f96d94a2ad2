"""The commits that readers of the feed get."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runic_redis.operations.feed_entries import FeedEntry
from runic_redis.operations.feed_pages import Source
from runic_redis.positions import Place, Positions


class Track:
    """The way of a reader through the partitions, by which the positions after each commit are found.

    Args:
        places: the reader's place in each partition before the first step.
        steps: for each step, the source with its partition's number, and the entry with the place after it.
    """

    __slots__ = ("_known", "_places", "_steps")

    def __init__(self, places: Sequence[Place], steps: Sequence[tuple[Source, FeedEntry]]) -> None:
        self._places = places
        self._steps = steps
        # How many steps, and the places after them: a caller usually asks for one commit after the other. Threads may
        # ask at once, so both are replaced together and never changed.
        self._known = 0, tuple(places)

    def after(self, step: int) -> Positions:
        """Return the positions after a step."""
        at, known = self._known
        if at > step + 1:
            at, known = 0, tuple(self._places)
        places = list(known)
        for source, entry in self._steps[at : step + 1]:
            places[source.number] = entry.place
        known = tuple(places)
        self._known = step + 1, known
        return Positions(known)


@dataclass(slots=True)
class Commit:
    """A commit, as the feed has it: whole, with its place in the order of all commits.

    A commit without events stands for another change: the deletion of a workflow, or the creation of one by something
    other than an append.

    Attributes:
        workflow_id: the workflow.
        cursor: the workflow's cursor after it.
        events: its events, in order.
        time: the time of the commit by the server's clock, to the millisecond.
        metadata: its metadata, or None.
        partition: the number of its partition.
        position: the partition's position after it: positions count the events of a partition, and have no gaps.
        deleted: whether it is the deletion of the workflow.
        positions: the positions of a reader after this commit, to pass as ``after=``.
    """

    workflow_id: str
    cursor: int
    events: list[Any]
    time: datetime
    metadata: dict[str, Any] | None
    partition: int
    position: int
    deleted: bool
    _track: Track = field(repr=False, compare=False)
    _step: int = field(repr=False, compare=False)

    @property
    def positions(self) -> Positions:
        """The positions of a reader after this commit, to pass as ``after=``."""
        return self._track.after(self._step)
