"""The parts of a page of the feed: its sources, and the commits that one command reads."""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from runic_redis.context import Context
from runic_redis.operations.feed_entries import COMMIT, DELETED, IMPORTED, FeedEntry, read_entry
from runic_redis.operations.rebuilding import Rebuilder
from runic_redis.positions import Place
from runic_redis.protocol.effects import Batch, Command, call_script


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


class Run:
    """Commits of a workflow that follow each other in a page. They are read together.

    Attributes:
        start: the workflow's cursor before them.
        cursor: the cursor after them.
        steps: their places in the page.
    """

    __slots__ = ("cursor", "start", "steps")

    def __init__(self, entry: FeedEntry, step: int) -> None:
        self.start = entry.cursor - entry.span
        self.cursor = entry.cursor
        self.steps = [step]


class Part:
    """The part of a page that comes from one source: one call of lua/read_commits.lua reads it.

    Attributes:
        source: the source.
        before: the place before its first entry in the page.
        last: its last entry in the page.
        runs: the commits to read.
        fill_size: how many entries are read ahead, if any.
    """

    __slots__ = ("_open", "before", "fill_size", "last", "runs", "source")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.before = source.paged
        self.last: FeedEntry | None = None
        self.runs: list[Run] = []
        self._open: dict[str, Run] = {}
        self.fill_size = 0

    def add(self, entry: FeedEntry, step: int, prefix: str) -> None:
        """Add an entry. Its commit is read if its workflow's id begins with the prefix."""
        self.last = entry
        workflow_id = entry.workflow_id
        if entry.kind is COMMIT and workflow_id.startswith(prefix):
            run = self._open.get(workflow_id)
            if run is not None and run.cursor == entry.cursor - entry.span:
                run.cursor = entry.cursor
                run.steps.append(step)
                return
            self._open[workflow_id] = run = Run(entry, step)
            self.runs.append(run)
        elif entry.kind is DELETED and workflow_id in self._open:
            # The events before it in the page are gone. If the workflow was created again in the same millisecond, its
            # entries may have the IDs of theirs.
            self._open.pop(workflow_id).steps.clear()

    def command(self, steps: Sequence[tuple[Source, FeedEntry]]) -> Command:
        """Return the call that reads it."""
        source = self.source
        keys = [source.key]
        if self.last is not None:
            source.paged = self.last.place
        before_id = self.before.entry_id if self.before.ms else ""
        args = [before_id, source.paged.entry_id if self.last else "", f"{source.read_to + 1}-0", str(self.fill_size)]
        self.runs = [run for run in self.runs if run.steps]
        for run in self.runs:
            keys.append(source.events_prefix + steps[run.steps[0]][1].workflow_id)
            args += (f"{run.start + 1}-0", str(len(run.steps)))
            for step in run.steps:
                entry = steps[step][1]
                args.append(f"{entry.cursor}-{entry.ms}")
        return call_script("read_commits", keys, args)

    def take(self, reply: Sequence[Any], found: list[Any]) -> list[Any]:
        """Note what was found of each step's commit. Return the entries that were read ahead."""
        at = 2 + 3 * reply[1]
        ahead = [(reply[place], reply[place + 1 : place + 3]) for place in range(2, at, 3)]
        for run in self.runs:
            for step in run.steps:
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
