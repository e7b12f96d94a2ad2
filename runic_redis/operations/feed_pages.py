"""The parts of a page of the feed: its sources, and the commits that one command reads."""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from runic_redis.context import Context
from runic_redis.operations.feed_entries import FeedEntry, read_entry
from runic_redis.positions import Place
from runic_redis.protocol.effects import Batch, Command, key_command


class Source:
    """The feed of one partition, as far as it was read.

    Attributes:
        number: the partition's number.
        key: the key of its feed.
        place: the place after the last commit that was returned.
        entries: entries that were read ahead.
        read_to: the position up to which entries were read.
        at_end: whether the last read of entries found no more.
        is_done: whether the reader's last position is reached.
    """

    __slots__ = ("at_end", "entries", "import_entries", "is_done", "key", "number", "place", "read_to")

    def __init__(self, number: int, key: str, place: Place) -> None:
        self.number = number
        self.key = key
        self.reset(place)

    def reset(self, place: Place) -> None:
        """Go back to a place."""
        self.place = place
        self.entries: deque[FeedEntry] = deque()
        self.read_to = place.position
        self.at_end = self.is_done = False
        self.import_entries = 1

    def take(self, reply: Sequence[Any], until: int | None) -> bool:
        """Add entries that were read. Return whether they fit those before them without a gap."""
        for raw in reply:
            entry = read_entry(raw, self.key)
            if until is not None and entry.position > until:
                self.is_done = True
                break
            is_inside = not self.entries and self.read_to == self.place.position and entry.start < self.read_to
            if entry.start != self.read_to and not is_inside:
                return False
            self.entries.append(entry)
            self.read_to = entry.position
        return True


class Run:
    """Commits of a workflow that follow each other in a page: one XRANGE reads them."""

    __slots__ = ("end", "entries", "start", "workflow_id")

    def __init__(self, step: int, entry: FeedEntry) -> None:
        self.workflow_id = entry.workflow_id
        self.start = entry.cursor - entry.span
        self.end = entry.cursor
        # Each with the step of the page that it is.
        self.entries = [(step, entry)]

    def command(self, context: Context) -> Command:
        """Return the command that reads their events."""
        key = context.keys.workflow(self.workflow_id).events
        return key_command("XRANGE", key, f"{self.start + 1}-0", f"{self.end}-{self.entries[-1][1].ms}")

    def take(self, reply: Sequence[Any], found: list[Sequence[Any]]) -> None:
        """Set the found entries of each commit's step; none if the last one of the commit is not in the reply."""
        at = 0
        for step, entry in self.entries:
            wanted = b"%d-%d" % (entry.cursor, entry.ms)
            for place in range(at, len(reply)):
                if reply[place][0] == wanted:
                    found[step] = reply[at : place + 1]
                    at = place + 1
                    break


class Page(NamedTuple):
    """A page that is to be read.

    Attributes:
        steps: its entries, each with its source, in the order in which they are returned.
        runs: the commits to read.
        lasts: the last entry of each source in it.
        fills: the sources that are read ahead with it.
        batch: the commands that read it.
    """

    steps: list[tuple[Source, FeedEntry]]
    runs: list[Run]
    lasts: dict[Source, FeedEntry]
    fills: list[Source]
    batch: Batch
