"""Reading the feed: the commits of all workflows, in the order of each partition, merged by their times.

A page is read in two steps. The entries of the feeds come first, ahead of their need. The events of a page's commits
come next, by one call of lua/read_commits.lua for each partition, which also reads entries ahead. The call checks that
the feed still has the entry before the page, and the last one of the page. If both are there, so is every entry between
them: the page continues the history that was read before, and is the server's present one. The batch for the next page
is in flight while the last one is decoded.

Positions have no gaps. So a gap, or an entry that is no longer there, means that entries were trimmed or lost.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from runic_redis.arguments import check_prefix
from runic_redis.codec import payload_size
from runic_redis.context import Context
from runic_redis.errors import StoreError
from runic_redis.operations.commit_decoding import CommitDecoder
from runic_redis.operations.commits import Commit, Track
from runic_redis.operations.feed_entries import COMMIT, DELETED, IMPORTED, FeedEntry, imported_commit, whole_commits
from runic_redis.operations.feed_losses import Missing, check_places
from runic_redis.operations.feed_pages import PAGE_BYTES, Page, Part, Source, take_steps
from runic_redis.operations.feed_starts import Start, check_start, find_places
from runic_redis.operations.rebuilding import Rebuilder
from runic_redis.operations.records import entry_cursor, read_cursor
from runic_redis.positions import Place, Positions, check_positions
from runic_redis.protocol.effects import Await, Batch, Begin, ErrorReply, InFlight, Operation, key_command
from runic_redis.protocol.following import Stop, by_slot, entries_of, follow
from runic_redis.protocol.refusals import checked

_LAST_MS = 2**64 - 1
# The first page is small, for readers of a few commits. Later ones hold more, up to a size in bytes.
_FIRST_COMMITS = 64
_MOST_COMMITS = 2048
_PAGE_GROWTH = 8
# How many commits are decoded at once.
_AT_ONCE = 256
# Fewer are, once they take so many bytes decompressed.
_MOST_DECODED = 64 * 1024 * 1024
# An import is one entry for many commits. It is read in parts of so many entries of the stream, and bytes.
_IMPORT_ENTRIES = 256
_IMPORT_BYTES = 8 * 1024 * 1024
# Every so many pages, the feeds that had no more entries are read again.
_POLL_PAGES = 8
# How long a read waits for new entries before the partitions are checked for losses.
_LOOK_S = 1.0


class _Received(NamedTuple):
    """A page that was read, and is decoded some steps at a time. More commits at once would be slower to collect.

    Attributes:
        steps: the steps of the page.
        found: what was found of each step's commit.
        track: the positions after each step.
        gone: the step of the last deletion of each workflow that is deleted in it: events before that are gone.
    """

    steps: list[tuple[Source, FeedEntry]]
    found: Sequence[Any]
    track: Track
    gone: dict[str, int]


class FeedReader:
    """A reader of the feed in some partitions, from a place in each on.

    Args:
        context: the store's.
        start: where to begin; or the place in each partition to read, by its number.
        until: where to end.
        prefix: return only commits of workflows whose ids start with this.
        types: return only commits with an event of one of these types: classes, or names of types. None for all.

    Attributes:
        stop: ends a read that waits.
    """

    def __init__(
        self,
        context: Context,
        start: Start | Mapping[int, Place],
        *,
        until: Positions | int | None = None,
        prefix: str = "",
        types: Collection[str | type] | None = None,
    ) -> None:
        self._context = context
        self._start = start if isinstance(start, Mapping) else check_start(start)
        self._sources: dict[int, Source] = {}
        self._wanted_until = until
        self._until: Positions | None = None
        self._prefix = check_prefix(prefix)
        self._decoder = CommitDecoder(context, self._prefix, types)
        self._limit = _FIRST_COMMITS
        self._ahead: tuple[Page, InFlight] | None = None
        # The page that is being decoded, how many of its steps are, and how many bytes.
        self._received: _Received | None = None
        self._decoded = self._decoded_bytes = 0
        self._missing = Missing(context)
        self._pages = 0
        # Whether a call of next_page has not returned.
        self._in_page = False
        # Whether all that was there is read, so that new entries come from reads that wait.
        self._follows = False
        # In a cluster, the feed that the last read waited for.
        self._turn = 0
        self.stop = Stop()

    @property
    def places(self) -> dict[int, Place]:
        """The place after the last commit that was returned, by partition."""
        return {source.number: source.place for source in self._sources.values()}

    @property
    def positions(self) -> Positions:
        """The positions after the last commit that was returned."""
        return Positions(tuple(self._all_places()))

    @property
    def is_done(self) -> bool:
        """Whether the reader's last positions are reached."""
        if self._ahead is not None or self._received is not None:
            return False
        return all(source.is_done and not source.entries for source in self._sources.values())

    def open(self) -> Operation[None]:
        """Find the first places, and check that the feed can be read from there on.

        Raises:
            ConfigurationError: the namespace has no feed.
            FeedTrimmed: commits after them were trimmed from the feed.
            CommitsLost: the server has lost commits before them.
        """
        partitions = self._context.keys.partitions
        if self._wanted_until is not None:
            self._until = check_positions(self._wanted_until, partitions, "until")
        if not isinstance(self._start, Mapping):
            self._start = yield from find_places(self._context, self._start)
        for number, place in self._start.items():
            self._add(number, place)
        yield from self._check()

    def _check(self) -> Operation[None]:
        yield from check_places(self._context, self.places)

    def add(self, partition: int, place: Place) -> None:
        """Read one more partition from now on."""
        self._restart()
        self._add(partition, place)

    def _add(self, number: int, place: Place) -> None:
        until = None if self._until is None else self._until.places[number].position
        self._sources[number] = Source(self._context, number, place, until)

    def remove(self, partition: int) -> None:
        """Read a partition no more."""
        self._restart()
        del self._sources[partition]

    def close(self) -> None:
        """Cancel the page in flight, if there is one."""
        if self._ahead is not None:
            self._ahead[1].cancel()
            self._ahead = None

    def next_page(self, wait_s: float | None = 0.0) -> Operation[list[Commit]]:
        """Return the next commits; none if there are none for some time.

        Args:
            wait_s: how long to wait at most for a commit; None for as long as a read waits.

        Raises:
            EventsTrimmed: events of a commit were trimmed before they were read.
            FeedTrimmed: commits were trimmed from the feed before they were read.
            CommitsLost: the server has lost commits.
            UnknownEventType: a commit holds an event of a type that is not registered.
            DecodeError: the stored data is damaged.
        """
        if self._in_page:
            # The last call failed or was interrupted: the next page begins after the last commit that was returned.
            self._restart()
        self._in_page = True
        commits = yield from self._next_commits(wait_s)
        self._in_page = False
        return commits

    def _next_commits(self, wait_s: float | None) -> Operation[list[Commit]]:
        has_waited = False
        while not self.is_done:
            commits = yield from self._read_some()
            if commits:
                return commits
            if commits is not None:
                continue
            if wait_s == 0:
                # The next call begins with what is there then.
                self._follows = False
                yield from self._check()
            if has_waited or wait_s == 0:
                break
            yield from self._wait(wait_s)
            has_waited = True
        return []

    def _read_some(self) -> Operation[list[Commit] | None]:
        """Return the next commits that are there; none if they are not wanted; None if there are no more."""
        if self._received is not None:
            return (yield from self._decode_some())
        if (source := self._rebuilt()) is not None:
            return (yield from self._rebuild(source))
        if self._ahead is not None:
            (page, in_flight), self._ahead = self._ahead, None
            answers = yield Await(in_flight)
        else:
            steps = yield from self._next_steps()
            if not steps:
                return None
            if steps[0][1].kind is IMPORTED:
                return (yield from self._read_import(*steps[0]))
            page = self._page(steps)
            answers = yield page.batch
        return (yield from self._finish(page, checked(answers, page.batch.commands)))

    def _restart(self) -> None:
        """Drop all that was read ahead."""
        self.close()
        self._received = None
        self._follows = False
        # The feed may have another history after the places.
        self._missing = Missing(self._context)
        for source in self._sources.values():
            source.reset(source.place)

    def _all_places(self) -> list[Place]:
        places = [Place()] * self._context.keys.partitions
        for number, source in self._sources.items():
            places[number] = source.place
        return places

    def _fill_size(self) -> int:
        """Return how many entries to read ahead of each source."""
        return max(16, 2 * self._limit // max(1, len(self._sources)))

    def _take_ahead(self, source: Source, entries: Sequence[Any], wanted: int) -> Operation[None]:
        """Take entries that were read ahead: so many, if there are as many."""
        source.at_end = len(entries) < wanted
        is_whole = source.take(entries)
        # A gap is explained once the commits before it are returned.
        if not is_whole and not source.entries and source.read_to == source.place.position:
            yield from check_places(self._context, {source.number: source.place})

    def _next_steps(self) -> Operation[list[tuple[Source, FeedEntry]]]:
        """Return the entries of the next page; none if there are no more, or a read that waits is to find them."""
        if (steps := take_steps(self._sources, self._limit, self._prefix)) or self._follows:
            return steps
        empty = [source for source in self._sources.values() if not source.entries and not source.is_done]
        count = self._fill_size()
        commands = [
            key_command("XRANGE", source.key, f"{source.read_to + 1}-0", "+", "COUNT", str(count)) for source in empty
        ]
        replies = yield Batch(commands, own_connection=True)
        for source, entries in zip(empty, checked(replies, commands), strict=True):
            yield from self._take_ahead(source, entries, count)
        steps = take_steps(self._sources, self._limit, self._prefix)
        self._follows = not steps
        return steps

    def _page(self, steps: list[tuple[Source, FeedEntry]]) -> Page:
        parts: dict[Source, Part] = {}
        for step, (source, entry) in enumerate(steps):
            part = parts.get(source)
            if part is None:
                part = parts[source] = Part(source)
            part.add(entry, step, self._prefix)
        # A feed that had no more entries may have some by now, and must not wait until all others have none.
        self._pages += 1
        is_poll = self._pages % _POLL_PAGES == 0
        count = self._fill_size()
        for source in self._sources.values():
            if len(source.entries) < count // 2 and (is_poll or not source.at_end) and not source.is_done:
                if source not in parts:
                    parts[source] = Part(source)
                parts[source].fill_size = count
        commands = [part.command() for part in parts.values()]
        return Page(steps, list(parts.values()), Batch(commands, own_connection=True, all_or_none=True))

    def _finish(self, page: Page, replies: Sequence[Any]) -> Operation[list[Commit]]:
        """Return the commits of a page that was read, and begin the next one."""
        if not all(reply[0] for reply in replies):
            yield from self._check_again(
                [part.source for part, reply in zip(page.parts, replies, strict=True) if not reply[0]]
            )
            return []
        found: list[Any] = [()] * len(page.steps)
        for part, reply in zip(page.parts, replies, strict=True):
            ahead = part.take(reply, found)
            if part.fill_size:
                yield from self._take_ahead(part.source, ahead, part.fill_size)
        steps = take_steps(self._sources, self._limit, self._prefix)
        if steps and steps[0][1].kind is not IMPORTED:
            following = self._page(steps)
            self._ahead = following, (yield Begin(following.batch))
        return (yield from self._commits(page.steps, found))

    def _check_again(self, sources: Sequence[Source]) -> Operation[None]:
        """Begin again at the places of the reader, after the feeds of some sources lacked an entry."""
        # Another history, or none: from where the reader is, it must be the same.
        self._restart()
        yield from self._check()
        for source in sources:
            # The entry at its place was trimmed, and cannot be asked for again.
            source.paged = source.paged._replace(ms=0)

    def _commits(self, steps: list[tuple[Source, FeedEntry]], found: Sequence[Any]) -> Operation[list[Commit]]:
        """Return the first commits of a page that was read."""
        gone = {entry.workflow_id: step for step, (_, entry) in enumerate(steps) if entry.kind is DELETED}
        self._received = _Received(steps, found, Track(self._all_places(), steps), gone)
        self._decoded = self._decoded_bytes = 0
        return (yield from self._decode_some())

    def _decode_some(self) -> Operation[list[Commit]]:
        """Return the next commits of the page that was read, and move past them."""
        if self._received is None:
            return []
        steps, found, track, gone = self._received
        commits: list[Commit] = []
        size = 0
        ends: dict[Source, FeedEntry] = {}
        for step in range(self._decoded, min(self._decoded + _AT_ONCE, len(steps))):
            source, entry = steps[step]
            try:
                commit = None
                if entry.kind is not COMMIT:
                    commit = self._decoder.change(source, entry, track, step)
                elif step < gone.get(entry.workflow_id, 0):
                    pass  # if the workflow was created again in the same millisecond, its entries may have these IDs
                elif parts := found[step]:
                    is_one = type(parts) is tuple
                    self._decoded_bytes += len(parts[1]) if is_one else entry.size
                    commit = self._decoder.commit(source, entry, parts, track, step)
                    size += payload_size(parts[1]) if is_one else sum(payload_size(part[2]) for part in parts)
                elif entry.workflow_id.startswith(self._prefix):
                    yield from self._missing.settle(source.number, entry)
                if commit is not None:
                    commits.append(commit)
            except StoreError:
                if not commits:
                    raise
                # The commits before it come first, so that none is lost. The next page begins here.
                _move(ends)
                self._restart()
                return commits
            ends[source] = entry
            self._decoded = step + 1
            if size > _MOST_DECODED and commits:
                break
        _move(ends)
        if self._decoded == len(steps):
            self._received = None
            fitting = max(_FIRST_COMMITS, PAGE_BYTES * len(steps) // max(self._decoded_bytes, 1))
            self._limit = min(self._limit * _PAGE_GROWTH, _MOST_COMMITS, fitting)
        return commits

    def _rebuilt(self) -> Source | None:
        """Return a source whose rebuild is not complete, if there is one."""
        return next((one for one in self._sources.values() if one.place.rebuilding is not None), None)

    def _rebuild(self, source: Source) -> Operation[list[Commit]]:
        """Return the next commits that the workflows of a source hold."""
        if source.rebuilder is None:
            source.rebuilder = Rebuilder(self._context, source.number, source.place, self._prefix)
        found = yield from source.rebuilder.next_commits()
        if not found:
            source.reset(source.place._replace(rebuilding=None))
            return []
        steps = [(source, one.entry) for one in found]
        return (yield from self._commits(steps, [one.parts for one in found]))

    def _read_import(self, source: Source, entry: FeedEntry) -> Operation[list[Commit]]:
        """Return the next commits of an imported workflow, which has one entry for all of them."""
        workflow_id = entry.workflow_id
        keys = self._context.keys.workflow(workflow_id)
        after = entry.cursor - entry.span + max(0, source.place.position - entry.start)
        count = source.import_entries
        before = source.paged.entry_id if source.paged.ms else "+"
        commands = [
            key_command("XRANGE", source.key, before, before),
            key_command("XRANGE", keys.events, f"{after + 1}-0", f"{entry.cursor}-{_LAST_MS}", "COUNT", str(count + 1)),
            key_command("HMGET", keys.meta, "imported", "largest", "trimmed"),
        ]
        replies = yield Batch(commands, own_connection=True, all_or_none=True)
        own_entry, found, (imported, largest, trimmed) = checked(replies, commands)
        if source.paged.ms and not own_entry:
            yield from self._check_again([source])
            return []
        is_same = imported is not None and imported == b"%d" % entry.position
        if not (is_same and found) or read_cursor(trimmed, keys.meta) > after:
            yield from self._missing.settle(source.number, entry._replace(cursor=after + 1))
            source.entries.popleft()
            source.move(entry.place)
            return []
        steps: list[tuple[Source, FeedEntry]] = []
        parts: list[list[Any]] = []
        end = entry.position if source.until is None else min(source.until, entry.position)
        for some in whole_commits(found, is_last=len(found) <= count):
            cursor = entry_cursor(some[-1], keys.events)
            position = entry.position - (entry.cursor - cursor)
            if position > end:
                source.entries.popleft()
                break
            commit, its_parts = imported_commit(entry, cursor, after, some, is_first=not steps)
            steps.append((source, commit))
            parts.append(its_parts)
            after = cursor
            if position == end:
                source.entries.popleft()
                break
        # A commit of many entries may not have fit.
        fitting = min(_IMPORT_ENTRIES, _IMPORT_BYTES // max(1, read_cursor(largest, keys.meta)))
        source.import_entries = max(1, fitting) if parts else 2 * count
        return (yield from self._commits(steps, parts))

    def _wait(self, wait_s: float | None) -> Operation[None]:
        """Wait for new entries."""
        wait_s = min(self._context.wait_s, _LOOK_S, _LOOK_S if wait_s is None else wait_s)
        waiting = {source.key: source for source in self._sources.values() if not source.is_done}
        slots = by_slot(waiting) if self._context.slots_matter else [list(waiting)]
        self._turn = (self._turn + 1) % len(slots)
        slots = slots[self._turn :] + slots[: self._turn]
        after = [{key: f"{waiting[key].read_to}-{_LAST_MS}" for key in slot} for slot in slots]
        batch = follow(after, wait_s, self.stop)
        answers = yield batch
        if any(isinstance(reply, ErrorReply) and reply.code == "CROSSSLOT" for reply in answers):
            # The server is a cluster's node that has all the slots.
            self._context.slots_matter = True
            return
        news = [(key.decode(), page) for reply in checked(answers, batch.commands) for key, page in entries_of(reply)]
        for key, page in news:
            if not waiting[key].take(page):
                self._restart()
        if not news:
            yield from self._check()


def _move(ends: Mapping[Source, FeedEntry]) -> None:
    """Note that the commits up to the last entry of each source were returned."""
    for source, entry in ends.items():
        source.move(entry.place)
