"""Export workflows and facts as the records of an archive, which docs/data-format.md specifies.

Writers may be active. Each workflow is exported as it was at one moment: all events up to the cursor that it had then.
A workflow that is trimmed or deleted while it is read is started again: its second beginning in the archive voids the
records since the first. Data is exported as it is stored, so that no classes are needed.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from math import inf
from typing import Any

from runic_redis.admin.archive import FORMAT, Digest, Record
from runic_redis.admin.describing import count_workflows
from runic_redis.admin.message_records import read_messages
from runic_redis.arguments import DEFAULT_QUEUE, check_queue, check_source, check_workflow_id, is_cursor
from runic_redis.codec import event_count, fact_matches, unpack_refs
from runic_redis.context import Context
from runic_redis.errors import ConfigurationError, DecodeError, InvalidArgument
from runic_redis.keys import WorkflowKeys
from runic_redis.operations.entry_fields import are_fields
from runic_redis.operations.indexes import indexed_workflows
from runic_redis.operations.labels import check_label, is_label
from runic_redis.operations.lost_meta import is_behind, reject_leftovers
from runic_redis.operations.records import cursor_or_zero, entry_cursor, events_missing, read_cursor
from runic_redis.operations.tracking import read_tracking
from runic_redis.protocol.effects import Command, Operation, key_command
from runic_redis.protocol.refusals import ask, ask_all
from runic_redis.protocol.resp import pairs
from runic_redis.protocol.scans import Scans

# The exported fields of a meta hash: those that are numbers, and those that are text. A lease is not exported: it is
# valid on its server only.
_NUMBERS = (
    *("attempts", "completed", "created", "cursor", "expires", "fence", "largest", "parked", "retried", "sliding"),
    *("touched", "trimmed", "trimmed_ms"),
)
_TEXTS = ("parked_reason", "queue", "timer")
KEPT = (*_NUMBERS, *_TEXTS)
_PAGE_BYTES = 4 * 1024 * 1024
# The scripts note the size of the largest entry only from this size on.
_LARGE = 8192
_FIRST_ENTRIES = 8
_MOST_ENTRIES = 1000
_MEMBERS = 1000
# How often a workflow that changes while it is read is started again.
_TRIES = 20


class Exporter:
    """An export of workflows and facts.

    Args:
        context: the store's.
        workflow_ids: the workflows; None for all workflows and all facts.

    Attributes:
        workflows: how many workflows have been exported.
        events: how many events they have had, without trimmed ones.
        facts: how many facts have been exported.
        problems: the failures, with their reasons.
    """

    def __init__(self, context: Context, workflow_ids: Iterable[str] | None = None) -> None:
        self._context = context
        self._ids = None if workflow_ids is None else list(dict.fromkeys(map(check_workflow_id, workflow_ids)))
        self.workflows = self.events = self.facts = 0
        self.problems: list[str] = []
        # The first record of the archive.
        self._begun: Record | None = None
        self._workflows: set[str] = set()
        # While it runs: writes a record.
        self._write: Callable[[Record], None]
        # The digest of the present workflow's records.
        self._digest = Digest()
        self._facts: set[bytes] = set()
        # The queue of the workflow before, which is likely that of the next one.
        self._queue = DEFAULT_QUEUE

    def count(self) -> Operation[int]:
        """Return about how many workflows are to be exported."""
        return len(self._ids) if self._ids is not None else sum((yield from count_workflows(self._context)))

    def note(self, record: Record) -> None:
        """Note a record that the archive contains already, from an interrupted run."""
        self._begun = self._begun or record
        if record[0] == "fact":
            self.facts += 1
            self._facts.add(record[1])
        elif record[0] == "done":
            self.workflows += 1
            self.events += record[2]
            self._workflows.add(record[1])

    def run(self, write: Callable[[Record], None]) -> Operation[None]:
        """Write the records that the archive does not contain yet.

        Raises:
            ConfigurationError: the archive was begun for another namespace, or for other workflows.
        """
        self._write = write
        config = self._context.keys.config
        created, feed, days = yield from ask(key_command("HMGET", config, "created", "feed", "feed_days"))
        chosen = None if self._ids is None else Digest().add(sorted(self._ids))
        first = ["archive", FORMAT, self._context.keys.namespace, created, chosen, feed == b"1", days]
        if self._begun is None:
            self._give(first)
        elif self._begun != first:
            raise ConfigurationError(
                "The .partial file beside the archive was begun by a run for other workflows, another server, another "
                f"namespace, or a namespace that was made again since: it begins with {self._begun!r:.200}, and this "
                f"run with {first!r:.200}. Nothing was changed. Remove the .partial file, or name another archive."
            )
        if self._ids is not None:
            yield from self._export_workflows(self._ids)
        else:
            yield from self._export_workflows((yield from indexed_workflows(self._context.keys.indexes())))
            yield from self._export_other_facts()
            yield from self._export_tracking()
        self._give(["end", self.workflows, self.events, self.facts])

    def _give(self, record: Record) -> None:
        self._write(record)
        self.note(record)

    def _add(self, record: Record) -> None:
        """Write a record of the present workflow."""
        self._digest.add(record)
        self._give(record)

    def _export_tracking(self) -> Operation[None]:
        key = self._context.keys.tracking
        for name, value in pairs((yield from ask(key_command("HGETALL", key)))):
            try:
                self._give(["tracking", check_source(name.decode()), read_tracking(value, key)])
            except (UnicodeDecodeError, InvalidArgument, DecodeError) as error:
                self.problems.append(f"The tracking record {name!r:.600} was not exported: {error}")

    def _export_workflows(self, ids: Iterable[str]) -> Operation[None]:
        for workflow_id in ids:
            if workflow_id not in self._workflows:
                yield from self._export_workflow(workflow_id)

    def _export_workflow(self, workflow_id: str) -> Operation[None]:
        try:
            for _ in range(_TRIES):
                if (yield from self._try_workflow(workflow_id)):
                    return
            self.problems.append(f"The workflow {workflow_id!r} changed too often while it was read. Export it again.")
        except (DecodeError, InvalidArgument) as error:
            self.problems.append(f"The workflow {workflow_id!r:.600} was not exported: {error}")

    def _try_workflow(self, workflow_id: str) -> Operation[bool]:
        """Export a workflow. Return False if it was trimmed or deleted meanwhile."""
        keys = self._context.keys.workflow(check_workflow_id(workflow_id))
        commands = _reading_commands(keys, workflow_id, self._queue)
        replies = yield from ask_all(commands)
        (*before, saved, logged), snapshot, head, log, written, due, refs, commits, entries, after = replies
        meta = {name.decode(errors="replace"): value for name, value in pairs(head)}
        if not meta:
            yield from reject_leftovers(self._context, workflow_id)
            if self._ids is not None:
                self.problems.append(f"There is no workflow {workflow_id!r}. Check the id.")
            return True  # if it was not named, it was deleted since it was listed
        _check_exportable(keys, meta, snapshot)
        cursor, trimmed = (read_cursor(meta.get(name), keys.meta) for name in ("cursor", "trimmed"))
        life = [meta.get("created"), meta.get("trimmed")]
        if not before == life == after or (entries and not cursor):
            return False
        queue = meta.get("queue", self._queue.encode()).decode()
        if queue != self._queue:
            self._queue = queue
            return False
        _check_saved(keys, (saved, snapshot), (logged, log))
        self._digest = Digest()
        score = None if written is None else b"%.0f" % float(written)  # in RESP3 it comes as a float
        kept = {name: meta[name] for name in (*KEPT, *sorted(filter(is_label, meta))) if name in meta}
        self._add(["workflow", workflow_id, kept, score, _due(meta, due)])
        if not (yield from self._export_saved(workflow_id, meta, snapshot, log)):
            return False
        yield from self._export_members("commits", commands[7], commits, cursor)
        yield from self._export_members("refs", commands[6], refs, cursor)
        position, count, last = trimmed, 0, b""
        largest = max(read_cursor(meta.get("largest"), keys.meta), _LARGE)
        page_entries = max(1, min(_MOST_ENTRIES, _PAGE_BYTES // largest))
        while True:
            some = [entry for entry in entries if position < entry_cursor(entry, keys.events) <= cursor]
            self._check_entries(workflow_id, position, some)
            if some:
                last = some[-1][0]
                position, count = entry_cursor(some[-1], keys.events), count + len(some)
                self._add(["entries", some])
            if position == cursor:
                break
            if not some:
                raise events_missing(self._context, workflow_id, position, cursor)
            entries, (created, gone) = yield from ask_all(_page(keys, b"(" + last, page_entries))
            if created != life[0] or read_cursor(gone, keys.meta) > position:
                return False
        done = ["done", workflow_id, cursor - trimmed, count, last]
        self._give([*done, self._digest.add(done)])
        return True

    def _export_saved(
        self, workflow_id: str, meta: Mapping[str, bytes], snapshot: Sequence[Any], log: bytes | None
    ) -> Operation[bool]:
        """Export the snapshot, the log and the messages of a workflow. Return False if it has changed meanwhile."""
        if snapshot[2] is not None:
            *state, packed = snapshot
            self._add(["snapshot", *state, *([] if packed is None else [packed])])
            # They may be released before the references are read.
            yield from self._export_named([] if packed is None else unpack_refs(packed))
        if log is not None:
            self._add(["log", log])
        if "inbox" in meta or "messages" in meta:
            messages = yield from read_messages(self._context, workflow_id, meta)
            if messages is None:
                return False
            for record in messages:
                self._add(record)
        return True

    def _check_entries(self, workflow_id: str, position: int, entries: Iterable[Any]) -> None:
        """Check that entries are of this store, and follow each other without a gap from a cursor on."""
        keys = self._context.keys.workflow(workflow_id)
        for entry in entries:
            if not is_entry(entry):
                raise DecodeError(
                    f"the entry {entry[0]!r:.50} at the key {keys.events!r} is not of this store. Remove it by XDEL."
                )
            end = entry_cursor(entry, keys.events)
            start = end - event_count(entry[1][1])
            if start > position:
                raise events_missing(self._context, workflow_id, position, start)
            if start < position:
                raise DecodeError(
                    f"the entry {entry[0]!r:.50} at the key {keys.events!r} holds too many events. Restore a backup."
                )
            position = end

    def _export_members(self, kind: str, command: Command, reply: Any, cursor: int) -> Operation[None]:
        """Export the references or the commit ids up to a cursor page by page, the facts before the references."""
        scans = Scans([])
        page = reply[1]
        if int(reply[0]):
            name, key, _, *options = command.args
            scans = Scans([Command((name, key, reply[0], *options), command.key)])
        while page or scans.more:
            if page:
                if kind == "refs":
                    members = [[fact, _reference_score(score, cursor)] for fact, score in pairs(page)]
                    yield from self._export_facts(fact for fact, _ in members)
                else:
                    # A later commit id would stand for events that the archive does not have.
                    members = [list(pair) for pair in pairs(page) if read_cursor(pair[1], command.key) <= cursor]
                # A server may send all members at once, if its settings call their number small.
                for first in range(0, len(members), _MEMBERS):
                    self._add([kind, members[first : first + _MEMBERS]])
            page = (yield from scans.next_members()) if scans.more else []

    def _export_named(self, hashes: Sequence[bytes]) -> Operation[None]:
        """Export the facts that a snapshot refers to."""
        yield from self._export_facts(hashes)
        for first in range(0, len(hashes), _MEMBERS):
            self._add(["refs", [[fact, b"0"] for fact in hashes[first : first + _MEMBERS]]])

    def _export_facts(self, hashes: Iterable[bytes]) -> Operation[None]:
        """Export the facts that were not exported before."""
        new = [fact for fact in hashes if fact not in self._facts]
        buckets = [self._context.keys.fact(fact)[0] for fact in new]
        sizes = yield from ask_all(
            [key_command("HSTRLEN", bucket, fact) for fact, bucket in zip(new, buckets, strict=True)]
        )
        at = 0
        while at < len(new):
            end, total = at, 0
            while end < len(new) and (end == at or total + sizes[end] <= _PAGE_BYTES):
                total += sizes[end]
                end += 1
            commands = [key_command("HGET", buckets[n], new[n]) for n in range(at, end)]
            for fact, data in zip(new[at:end], (yield from ask_all(commands)), strict=True):
                self._export_fact(fact, data)
            at = end

    def _export_fact(self, fact: bytes, data: bytes | None) -> None:
        if data is None or not fact_matches(fact, data):
            name, what = fact.decode(errors="backslashreplace"), "missing" if data is None else "damaged"
            self.problems.append(f"The fact {name!r} is {what}, and was not exported. Restore it from a backup.")
        elif fact not in self._facts:
            self._give(["fact", fact, data])

    def _export_other_facts(self) -> Operation[None]:
        """Export the facts that no workflow refers to."""
        keys = self._context.keys.buckets()
        counts = yield from ask_all([key_command("HLEN", key) for key in keys])
        for key, count in zip(keys, counts, strict=True):
            if count:
                yield from self._export_facts((yield from ask(key_command("HKEYS", key))))


def is_entry(entry: Any) -> bool:
    """Return whether an entry has the form of a store's: header, payload and commit id, and the optional fields."""
    entry_id, fields = entry
    return are_fields(fields) and all(map(is_cursor, entry_id.split(b"-", 1)))


def is_kept(name: str, value: bytes) -> bool:
    """Return whether a value can be that of a field of a meta hash that is exported."""
    if name in _NUMBERS:
        return is_cursor(value)
    try:
        text = value.decode()
        if is_label(name):
            check_label(name, text)
        elif name == "queue":
            check_queue(text)
    except (InvalidArgument, UnicodeDecodeError):
        return False
    return name in _TEXTS or is_label(name)


def is_queued(fields: Container[str]) -> bool:
    """Return whether a workflow with these fields in its meta hash is in its queue."""
    return "queue" in fields and "completed" not in fields and "parked" not in fields


def _due(meta: dict[str, bytes], score: bytes | float | None) -> bytes | None:
    """Return when a workflow is due in its queue, by its score there; None if it is in none.

    A leased workflow is due since its lease was given or extended. One that its queue has lost is due, too.
    """
    if not is_queued(meta):
        return None
    if "lease_until" in meta:
        until, lasts = (cursor_or_zero(meta.get(name)) for name in ("lease_until", "lease_ms"))
        return b"%d" % max(0, until - lasts)
    return b"%.0f" % max(0, float(score or 0))


def _reference_score(score: bytes | float, cursor: int) -> bytes:
    """Return the score of a reference as it is exported: a commit after the cursor may have raised it."""
    number = float(score)
    return b"inf" if number == inf else b"%.0f" % max(0, min(number, cursor))


def _check_exportable(keys: WorkflowKeys, meta: dict[str, bytes], snapshot: list[bytes | None]) -> None:
    """Reject a workflow that an import would reject.

    Raises:
        DecodeError: it is damaged.
    """
    if "created" not in meta:
        raise DecodeError(
            f"the time of its creation is missing at the key {keys.meta!r}. Run runic-redis verify --repair."
        )
    for name in (*KEPT, *filter(is_label, meta)):
        if name in meta and not is_kept(name, meta[name]):
            raise DecodeError(
                f"{name!r} at the key {keys.meta!r} is damaged: {meta[name]!r:.40}. Run runic-redis verify."
            )
    if snapshot[2] is not None and not is_cursor(snapshot[0] or b""):
        problem = f"the cursor of the snapshot at the key {keys.snapshot!r} is damaged: {snapshot[0]!r:.40}."
        raise DecodeError(f"{problem} Restore a backup, or save another.")


def _check_saved(
    keys: WorkflowKeys, snapshot: tuple[bytes | None, list[bytes | None]], log: tuple[bytes | None, bytes | None]
) -> None:
    """Check that a snapshot and a log exist if the meta hash, the first of each pair, has a note of them.

    Raises:
        DecodeError: one is missing.
    """
    if is_behind(*snapshot):
        problem = f"its snapshot at cursor {snapshot[0]!r:.40} is missing at the key {keys.snapshot!r}."
        raise DecodeError(f"{problem} Restore a backup, or save another.")
    if log[0] is not None and log[1] is None:
        raise DecodeError(f"its log is missing at the key {keys.log!r}. Restore a backup, or save another.")


def _reading_commands(keys: WorkflowKeys, workflow_id: str, queue: str) -> list[Command]:
    """Return the commands that read a workflow of a queue, with the first page of its entries."""
    return [
        # Read before the rest and after it: if both are the same, it was not deleted or trimmed in between.
        key_command("HMGET", keys.meta, "created", "trimmed", "snapshot", "log"),
        # The snapshot may not be ahead of the meta hash, and so is read before it.
        key_command("HMGET", keys.snapshot, "cursor", "time", "data", "refs"),
        key_command("HGETALL", keys.meta),
        key_command("GET", keys.log),
        key_command("ZSCORE", keys.index, workflow_id),
        key_command("ZSCORE", keys.queue(queue), workflow_id),
        key_command("ZSCAN", keys.refs, "0", "COUNT", str(_MEMBERS)),
        key_command("HSCAN", keys.commits, "0", "COUNT", str(_MEMBERS)),
        *_page(keys, b"-", _FIRST_ENTRIES),
    ]


def _page(keys: WorkflowKeys, bound: bytes, count: int) -> list[Command]:
    """Return commands for a page of entries, and for the fields that tell whether entries were trimmed or deleted."""
    return [
        key_command("XRANGE", keys.events, bound, "+", "COUNT", str(count)),
        key_command("HMGET", keys.meta, "created", "trimmed"),
    ]
