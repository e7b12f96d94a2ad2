"""The parts of a page of the feed: its sources, and the commits that one command reads."""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from runic_redis.context import Context
from runic_redis.operations.feed_entries import FeedEntry, read_entry
from runic_redis.positions import Place
from runic_redis.protocol.effects import Batch, Command


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
        import_entries: how many entries of an imported workflow to read at once.
        events_prefix: what the keys of its workflows' streams begin with.
    """

    __slots__ = ("at_end", "entries", "events_prefix", "import_entries", "is_done", "key", "number", "place", "read_to")

    def __init__(self, context: Context, number: int, place: Place) -> None:
        self.number = number
        self.key = context.keys.feed(number)
        self.events_prefix = context.keys.events(number, "")
        self.reset(place)

    def reset(self, place: Place) -> None:
        """Go back to a place."""
        self.place = place
        self.entries: deque[FeedEntry] = deque()
        self.read_to = place.position
        self.at_end = self.is_done = False
        self.import_entries = 1

    def take(self, reply: Sequence[Any], until: int | None) -> bool:
        """Add entries that were read. Return whether they follow those before them without a gap."""
        key, entries, read_to = self.key, self.entries, self.read_to
        for raw in reply:
            entry = read_entry(raw, key)
            position = entry.position
            if until is not None and position > until:
                self.is_done = True
                break
            start = position - entry.span
            # The reader's place may be inside an import, which has one entry.
            if start != read_to and not (start < read_to == self.place.position and not entries):
                return False
            entries.append(entry)
            self.read_to = read_to = position
        return True


class Run:
    """Commits of a workflow that follow each other in a page: one XRANGE reads them."""

    __slots__ = ("cursor", "source", "start", "steps")

    def __init__(self, source: Source, entry: FeedEntry, step: int) -> None:
        self.source = source
        self.start = entry.cursor - entry.span
        self.cursor = entry.cursor
        self.steps = [step]

    def command(self, last: FeedEntry) -> Command:
        """Return the command that reads their events, up to the last commit."""
        key = self.source.events_prefix + last.workflow_id
        return Command(("XRANGE", key, f"{self.start + 1}-0", f"{self.cursor}-{last.ms}"), key)


class Page(NamedTuple):
    """A page that is to be read.

    Attributes:
        steps: its entries, each with its source, in the order in which they are returned.
        runs: the commits to read.
        lasts: the last entry of each source in it.
        fills: the sources that are read ahead with it.
        fill_size: how many entries are read ahead of each of them.
        batch: the commands that read it: those of the runs, of the lasts, of the fills.
    """

    steps: list[tuple[Source, FeedEntry]]
    runs: list[Run]
    lasts: dict[Source, FeedEntry]
    fills: list[Source]
    fill_size: int
    batch: Batch

    def take(self, replies: Sequence[Any]) -> list[Sequence[Any]]:
        """Return for each step the entries of its commit's stream; none if the last one of the commit is missing."""
        found: list[Sequence[Any]] = [()] * len(self.steps)
        for run, reply in zip(self.runs, replies, strict=False):
            at = 0
            for step in run.steps:
                entry = self.steps[step][1]
                wanted = b"%d-%d" % (entry.cursor, entry.ms)
                for place in range(at, len(reply)):
                    if reply[place][0] == wanted:
                        found[step] = reply[at : place + 1]
                        at = place + 1
                        break
        return found
