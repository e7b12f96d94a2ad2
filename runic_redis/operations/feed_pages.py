"""The parts of a page of the feed: its sources, and the commits that one command reads."""

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from runic_redis.context import Context
from runic_redis.operations.feed_entries import COMMIT, IMPORTED, VOID, FeedEntry, read_entry
from runic_redis.operations.rebuilding import Rebuilder
from runic_redis.positions import Place
from runic_redis.protocol.effects import Argument, Batch, Command, call_script

# A page ends once the sizes of its commits reach this many bytes.
PAGE_BYTES = 4 * 1024 * 1024


class Source:
    """The feed of one partition, as far as it was read.

    Attributes:
        number: the partition's number.
        key: the key of its feed.
        until: the position at which to end; None to go on.
        place: the place after the last commit that was returned.
        paged: the place after the last entry that is in a page.
        entries: entries that were read ahead.
        read_to: the position up to which entries were read.
        at_end: whether the last read of entries found no more.
        is_done: whether the reader's last position is reached.
        import_entries: how many entries of an imported workflow to read at once.
        rebuilder: reads what the workflows hold, during a rebuild.
        events_prefix: what the keys of its workflows' streams begin with.
    """

    __slots__ = (
        *("at_end", "entries", "events_prefix", "import_entries", "is_done", "key", "number"),
        *("paged", "place", "read_to", "rebuilder", "until"),
    )

    def __init__(self, context: Context, number: int, place: Place, until: int | None) -> None:
        self.number = number
        self.until = until
        self.key = context.keys.feed(number)
        self.events_prefix = context.keys.events(number, "")
        self.reset(place)

    def reset(self, place: Place) -> None:
        """Go back to a place."""
        self.place = self.paged = place
        self.entries: deque[FeedEntry] = deque()
        self.read_to = place.position
        self.at_end = False
        self.is_done = self.until is not None and place.position >= self.until and place.rebuilding is None
        self.import_entries = 1
        self.rebuilder: Rebuilder | None = None

    def move(self, place: Place) -> None:
        """Note that the commits up to a place were returned."""
        self.place = place
        if self.paged.position < place.position:
            self.paged = place

    def take(self, reply: Sequence[Any]) -> bool:
        """Add entries that were read. Return whether they follow those before them without a gap."""
        key, entries, read_to, until = self.key, self.entries, self.read_to, self.until
        for raw in reply:
            entry = read_entry(raw, key)
            position = entry.position
            start = position - entry.span
            # An import is one entry for many commits, and some of them may be wanted.
            if until is not None and position > until and not (entry.kind is IMPORTED and start < until):
                self.is_done = True
                break
            # The reader's place may be inside an import, which has one entry.
            if start != read_to and not (start < read_to == self.place.position and not entries):
                return False
            entries.append(entry)
            self.read_to = read_to = position
            if until is not None and position >= until:
                self.is_done = True
                break
        return True


class Part:
    """The part of a page that comes from one source: one call of lua/read_commits.lua reads it.

    Attributes:
        source: the source.
        fill_size: how many entries are read ahead, if any.
    """

    __slots__ = (
        "_args",
        "_before",
        "_count",
        "_cursor",
        "_keys",
        "_last",
        "_steps",
        "_workflow_id",
        "fill_size",
        "source",
    )

    def __init__(self, source: Source) -> None:
        self.source = source
        self.fill_size = 0
        self._before = source.paged
        self._last: FeedEntry | None = None
        # The streams to read; for each, from where, how many commits, and the last entry of each of them.
        self._keys = [source.key]
        self._args: list[Argument] = []
        # The places in the page of the commits to read.
        self._steps: list[int] = []
        # The last stream, the place of its number of commits in the arguments, and the cursor after them.
        self._workflow_id, self._count, self._cursor = "", 0, 0

    def add(self, entry: FeedEntry, step: int, prefix: str) -> None:
        """Add an entry. Its commit is read if its workflow's id begins with the prefix."""
        self._last = entry
        workflow_id = entry.workflow_id
        if entry.kind is not COMMIT or not workflow_id.startswith(prefix):
            return
        args = self._args
        start = entry.cursor - entry.span
        if workflow_id == self._workflow_id and start == self._cursor:
            args[self._count] = str(len(args) - self._count)
        else:
            self._workflow_id = workflow_id
            self._keys.append(self.source.events_prefix + workflow_id)
            self._count = len(args) + 1
            args += (str(start + 1), "1")
        self._cursor = entry.cursor
        args.append(entry.end_id)
        self._steps.append(step)

    def command(self) -> Command:
        """Return the call that reads it."""
        source = self.source
        if self._last is not None:
            source.paged = self._last.place
        before_id = self._before.entry_id if self._before.ms else ""
        last_id = source.paged.entry_id if self._last is not None else ""
        head = [before_id, last_id, f"{source.read_to + 1}-0", str(self.fill_size)]
        return call_script("read_commits", self._keys, [*head, *self._args])

    def take(self, reply: Sequence[Any], found: list[Any]) -> list[Any]:
        """Note what was found of each step's commit. Return the entries that were read ahead."""
        at = 2 + 3 * reply[1]
        ahead = [(reply[place], reply[place + 1 : place + 3]) for place in range(2, at, 3)]
        for step in self._steps:
            count = reply[at]
            if type(count) is not int:
                found[step] = count, reply[at + 1], reply[at + 2]
                at += 3
            else:
                found[step] = [reply[place : place + 4] for place in range(at + 1, at + 1 + 4 * count, 4)]
                at += 1 + 4 * count
        return ahead


class Page(NamedTuple):
    """A page that is to be read.

    Attributes:
        steps: its entries, each with its source, in the order in which they are returned.
        parts: what is read from each source.
        batch: the commands that read the parts.
    """

    steps: list[tuple[Source, FeedEntry]]
    parts: list[Part]
    batch: Batch


def take_steps(sources: Mapping[int, Source], limit: int, prefix: str) -> list[tuple[Source, FeedEntry]]:
    """Take the entries of the next page from the sources, in the order of their times, at most so many.

    None are taken while a source has to be read ahead. The entry of an import is a page by itself, and stays in its
    source until it is read to its end.
    """
    if any(not source.entries and not source.at_end and not source.is_done for source in sources.values()):
        return []
    heads = [(source.entries[0].ms, number) for number, source in sources.items() if source.entries]
    heapq.heapify(heads)
    steps: list[tuple[Source, FeedEntry]] = []
    bytes_left = PAGE_BYTES
    while heads and len(steps) < limit and bytes_left > 0:
        number = heads[0][1]
        source = sources[number]
        entries = source.entries
        entry = entries[0]
        if entry.kind is IMPORTED:
            if entry.workflow_id.startswith(prefix):
                return steps or [(source, entry)]
            # The reader passes over it, and a page may begin with it.
            entry = entry._replace(kind=VOID)
        entries.popleft()
        steps.append((source, entry))
        bytes_left -= entry.size
        if entries:
            heapq.heapreplace(heads, (entries[0].ms, number))
        elif source.at_end or source.is_done:
            heapq.heappop(heads)
        else:
            break
    return steps
