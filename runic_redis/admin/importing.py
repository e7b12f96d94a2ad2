"""Import workflows and facts from the records of an archive, which docs/data-format.md specifies.

An import gathers a workflow in temporary keys, and makes it in one step once it is complete. So no reader sees a part
of a workflow. The temporary keys of an interrupted import are deleted when another import begins with the workflow, or
a day later. Of several imports at a time, the last that began with a workflow makes it. An existing workflow is not
changed.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from typing import Any

from runic_redis.admin.archive import FORMAT, Digest, Record
from runic_redis.admin.exporting import is_entry, is_kept, is_queued
from runic_redis.admin.message_records import checked_ids, is_message
from runic_redis.arguments import DEFAULT_QUEUE, MAX_HASH_BYTES, check_days, check_workflow_id, is_cursor
from runic_redis.codec import fact_matches, unpack_refs
from runic_redis.context import Context
from runic_redis.errors import ConfigurationError, DecodeError, InvalidArgument, StoreError, TrackingConflict
from runic_redis.operations.entry_fields import tag_member, tags_field, without_position
from runic_redis.operations.facts import save_encoded
from runic_redis.operations.groups import append_all
from runic_redis.operations.labels import label_sets
from runic_redis.operations.records import read_cursor
from runic_redis.operations.settings import make_namespace
from runic_redis.operations.tag_index import index_workflow
from runic_redis.operations.tracking import Tracking
from runic_redis.operations.writing import write
from runic_redis.protocol.effects import Argument, Command, ErrorReply, Operation, call_script, key_command, own_id
from runic_redis.protocol.refusals import ask, ask_all

_KEPT_FOR_MS = str(24 * 3600 * 1000)
_SEND_BYTES = 4 * 1024 * 1024
_SEND_FACTS = 500
# How many members of the set of tags, and scores, are sent in one command.
_MEMBERS = 2000
# A queued command takes this much memory beside its data.
_COMMAND_BYTES = 1024
# With more problems than this, the import ends: it keeps them all in memory.
_MOST_PROBLEMS = 100_000
# The exceptions that reading a damaged record raises.
_DAMAGE = (TypeError, ValueError, AttributeError, IndexError)


class _Workflow:
    """A workflow that is being gathered."""

    def __init__(self, context: Context, name: Any) -> None:
        try:
            self.workflow_id = check_workflow_id(name)
        except InvalidArgument:
            raise ValueError(f"{name!r:.80} is not a workflow id") from None
        self.keys = context.keys.workflow(self.workflow_id)
        self.gathered = context.keys.imported(self.workflow_id)
        # Marks the temporary keys as this import's, until another import begins with the workflow.
        self.beginning = own_id()
        # Whether it is not made: it exists already, or another import has it, or it is damaged.
        self.stays = False
        # The digest of its records so far.
        self.digest = Digest()
        # Whether it seems to exist already; then, the last entry that the archive has of it.
        self.there = False
        self.last: Any = None

    @property
    def is_wanted(self) -> bool:
        """Return whether its records are still to be read."""
        return self.there or not self.stays

    def keep(self, kept: dict[str, bytes], written: Any, due: Any) -> None:
        """Take the values of its first record."""
        if "created" not in kept or not all(is_kept(field, _bytes(value)) for field, value in kept.items()):
            raise ValueError("the fields of the workflow")
        if is_queued(kept) is (due is None) or not (due in {None, b"inf"} or is_cursor(due)):
            raise ValueError("when it is due")
        self.kept = kept
        score = float(kept["created"] if written is None else written)
        if isnan(score):
            raise ValueError("the time of its last write")
        self.written = f"{score:.0f}"
        self.queue = self.keys.queue(kept.get("queue", DEFAULT_QUEUE.encode()).decode())
        self.due: bytes = due or b""

    def with_cursors(self, kind: str, members: list[Any]) -> list[bytes]:
        """Return references or commit ids with their cursors, flat."""
        most = int(self.kept.get("cursor", 0))
        for _, cursor in members:
            if not (is_cursor(cursor) and int(cursor) <= most) and (kind, cursor) != ("refs", b"inf"):
                raise ValueError("a cursor")
        return [_bytes(part) for member in members for part in member]


class Importer:
    """An import of an archive, record by record.

    Args:
        context: the store's.

    Attributes:
        workflows: how many workflows have been imported.
        there: how many workflows existed already.
        events: how many events the imported workflows hold.
        facts: how many facts have been saved.
        problems: the failures, with their reasons.
        complete: whether the end of the archive was read, and its counts agree with the records before it.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.workflows = self.there = self.events = self.facts = 0
        self.problems: list[str] = []
        self.complete = False
        # Whether the first record was read, which names the version of the others.
        self._begun = False
        self._workflow: _Workflow | None = None
        # Facts, and commands for the temporary keys, that are not sent yet; and their size in bytes.
        self._facts: list[tuple[bytes, bytes]] = []
        self._commands: list[Command] = []
        self._size = 0
        # How many workflows, events and facts have been read.
        self._read = [0, 0, 0]

    def take(self, record: Record) -> Operation[None]:
        """Import a record.

        Raises:
            DecodeError: it is damaged.
            ConfigurationError: the archive is of a later version.
        """
        try:
            yield from self._take(record)
        except StoreError:
            raise
        except _DAMAGE as error:
            raise DecodeError(
                f"The archive holds a damaged record, {record[0]!r:.40}: {error}. The records before it are imported. "
                "Export again."
            ) from error
        if len(self.problems) > _MOST_PROBLEMS:
            raise DecodeError(
                f"The archive has more than {_MOST_PROBLEMS} problems, the last one: {self.problems[-1]} The undamaged "
                "workflows and facts before it are imported."
            )

    def _take(self, record: Record) -> Operation[None]:
        match record:
            case ["archive", version, *settings]:
                if version != FORMAT:
                    raise ConfigurationError(
                        f"The archive is of version {version!r:.20}, and this version of runic_redis reads {FORMAT}. "
                        "Nothing was changed. Import it with the version that exported it."
                    )
                self._begun = True
                self._take_settings(*settings[3:])
                yield from make_namespace(self._context)
            case _ if not self._begun:
                raise ValueError("the record 'archive' must come first")
            case ["fact", bytes(fact), bytes(data)]:
                yield from self._take_fact(fact, data)
            case ["workflow", name, *state]:
                workflow = _Workflow(self._context, name)
                workflow.digest.add(record)
                yield from self._begin(workflow, state)
            case ["done", name, int(events), int(entries), bytes(last), bytes(digest)]:
                yield from self._finish(name, events, entries, last, digest)
            case ["tracking", str(name), int(position)]:
                yield from self._take_tracking(name, position)
            case ["end", int(workflows), int(events), int(facts)]:
                yield from self._discard()
                yield from self._send_facts()
                self.complete = self._read == [workflows, events, facts]
            case [kind, *parts] if self._workflow is not None:
                if self._workflow.is_wanted:
                    self._workflow.digest.add(record)
                    try:
                        yield from self._gather(self._workflow, kind, parts)
                    except _DAMAGE as error:
                        yield from self._leave_out(self._workflow, _damaged(kind, error))
            case _:
                raise ValueError("it is in the wrong place")

    def _take_tracking(self, name: str, position: int) -> Operation[None]:
        """Store a tracking record, unless the namespace is as far."""
        try:
            yield from append_all(self._context, [], Tracking(name, position))
        except InvalidArgument:
            raise ValueError("a tracking record") from None
        except TrackingConflict:
            pass

    def _take_settings(self, feed: bool = False, days: bytes | None = None) -> None:
        """If the namespace does not exist yet, give it a feed if the exported one has one, unless the caller chose."""
        context = self._context
        if context.any_feed and not context.made:
            context.keys = replace(context.keys, has_feed=bool(feed))
        if feed:
            context.feed_days = check_days(float(days), "feed_days") if days else None

    def _take_fact(self, fact: bytes, data: bytes) -> Operation[None]:
        self._read[2] += 1
        if not 0 < len(fact) <= MAX_HASH_BYTES or not fact_matches(fact, data):
            self.problems.append(f"The fact {fact[:80].decode(errors='backslashreplace')!r} in the archive is damaged.")
            return
        self._facts.append((fact, data))
        self._size += len(data)
        if self._size >= _SEND_BYTES or len(self._facts) >= _SEND_FACTS:
            yield from self._send_facts()

    def _send_facts(self) -> Operation[None]:
        facts, self._facts = self._facts, []
        self._size = 0
        try:
            yield from save_encoded(self._context, facts)
            self.facts += len(facts)
        except InvalidArgument as error:
            if len(facts) == 1:
                self.problems.append(str(error))
                return
            for one in facts:  # to tell which
                self._facts = [one]
                yield from self._send_facts()

    def _begin(self, workflow: _Workflow, state: list[Any]) -> Operation[None]:
        """Begin with a workflow, unless it exists already."""
        yield from self._discard()
        self._workflow = workflow
        try:
            workflow.keep(*state)
        except _DAMAGE as error:
            yield from self._leave_out(workflow, _damaged("workflow", error))
            return
        keys = [*workflow.gathered, workflow.keys.meta]
        created, cursor = yield from ask(call_script("import_begin", keys, [workflow.beginning, _KEPT_FOR_MS]))
        if created is not None or cursor is not None:
            workflow.stays = True
            reached = read_cursor(cursor, workflow.keys.meta)
            if created != workflow.kept["created"] or reached < int(workflow.kept.get("cursor", 0)):
                self._report_difference(workflow)
            else:
                workflow.there = True  # its last entry is compared later

    def _report_difference(self, workflow: _Workflow) -> None:
        self.problems.append(
            f"The workflow {workflow.workflow_id!r} exists with other events, or in an earlier state, and was not "
            "changed. Delete it to import the one in the archive."
        )

    def _compare(self, workflow: _Workflow) -> Operation[None]:
        """Compare an existing workflow with the archive: it should continue from the last entry in the archive.

        A workflow with other events has another last entry, since an entry has a time and a random id. If that entry is
        trimmed, the two cannot be compared, and count as equal.
        """
        if workflow.last is not None:
            last, keys = workflow.last[0], workflow.keys
            found, trimmed = yield from ask_all(
                [key_command("XRANGE", keys.events, last, last), key_command("HGET", keys.meta, "trimmed")]
            )
            gone = read_cursor(trimmed, keys.meta) >= int(workflow.kept.get("cursor", 0))
            same = [(one, without_position(fields)) for one, fields in found]
            if same != [(last, without_position(workflow.last[1]))] and not gone:
                self._report_difference(workflow)
                return
        self.there += 1

    def _leave_out(self, workflow: _Workflow, why: str) -> Operation[None]:
        """Skip a workflow that is damaged in the archive."""
        yield from self._discard()
        self._workflow = workflow
        workflow.stays, workflow.there = True, False
        self.problems.append(f"The workflow {workflow.workflow_id!r} was not imported: {why}")

    def _discard(self) -> Operation[None]:
        """Delete the temporary keys of an unfinished workflow: the record after it voids it."""
        workflow, self._workflow = self._workflow, None
        self._commands = []
        if workflow is not None and not workflow.stays:
            yield from ask(Command(("UNLINK", *workflow.gathered), workflow.gathered.meta))

    def _gather(self, workflow: _Workflow, kind: Any, parts: list[Any]) -> Operation[None]:
        """Queue the data of a record for the temporary keys."""
        keys = workflow.gathered
        match kind, parts:
            case "entries", [[*_, last]] if workflow.there:
                if not is_entry(last):
                    raise ValueError("an entry")
                workflow.last = last
            case _ if workflow.there:
                pass
            case "snapshot", [bytes(cursor), bytes() | None as time, bytes(data), *packed] if is_cursor(cursor):
                snapshot: list[Argument] = ["cursor", cursor, "time", time or b"0", "data", data, *_named(packed)]
                self._send_later(workflow, keys.snapshot, kind, snapshot)
            case "log", [bytes(data)]:
                self._send_later(workflow, keys.log, kind, [data])
            case "refs" | "commits", [[*members]]:
                key = keys.refs if kind == "refs" else keys.commits
                self._send_later(workflow, key, kind, workflow.with_cursors(kind, members))
            case "message_ids", [[*members]]:
                self._send_later(workflow, keys.messages, kind, checked_ids(members))
            case "entries" | "inbox", [[*entries]]:
                self._send_entries(workflow, kind, entries)
                # Later entries must not overtake these.
                yield from self._send_gathered(workflow)
            case _:
                raise ValueError("its kind is unknown")
        if self._size >= _SEND_BYTES:
            yield from self._send_gathered(workflow)

    def _send_entries(self, workflow: _Workflow, kind: str, entries: Sequence[Any]) -> None:
        """Queue entries or messages for the temporary keys, and the tags of the entries."""
        keys = workflow.gathered
        key, fits = (keys.events, is_entry) if kind == "entries" else (keys.inbox, is_message)
        arguments: list[Argument] = []
        members: list[Argument] = []
        for entry_id, fields in entries:
            if not fits((entry_id, fields)):
                raise ValueError("an entry")
            kept = without_position(fields) if kind == "entries" else fields
            arguments += (_bytes(entry_id), str(len(kept)), *map(_bytes, kept))
            if kind == "entries":
                cursor = int(entry_id.partition(b"-")[0])
                members += (part for tag in tags_field(fields) for part in (tag_member(tag, cursor), "0"))
        self._send_later(workflow, key, "entries", arguments)
        for first in range(0, len(members), _MEMBERS):
            self._send_later(workflow, keys.tags, "tags", members[first : first + _MEMBERS])

    def _send_later(self, workflow: _Workflow, key: str, kind: str, parts: Sequence[Argument]) -> None:
        arguments = [workflow.beginning, _KEPT_FOR_MS, kind, *parts]
        size = sum(map(len, parts))
        self._commands.append(call_script("import_part", [key, workflow.gathered.meta], arguments, size=size))
        self._size += _COMMAND_BYTES + size

    def _send_gathered(self, workflow: _Workflow) -> Operation[None]:
        commands, self._commands = self._commands, []
        self._size = sum(len(data) for _, data in self._facts)
        if any(isinstance(reply, ErrorReply) for reply in (yield from ask_all(commands))):
            self._lose(workflow)

    def _lose(self, workflow: _Workflow) -> None:
        """Leave a workflow to another import, which began with it later."""
        workflow.stays = True
        self.problems.append(
            f"The workflow {workflow.workflow_id!r} was not imported: another import began with it meanwhile, or this "
            "one paused for a day. To make sure that it exists, import again, with one import at a time."
        )

    def _finish(self, name: Any, events: int, entries: int, last: bytes, digest: bytes) -> Operation[None]:
        """Make the workflow from its temporary keys."""
        workflow = self._workflow
        if workflow is None or workflow.workflow_id != name:
            raise ValueError("another workflow was begun")
        self._read[0] += 1
        self._read[1] += events
        if workflow.is_wanted and digest != workflow.digest.add(["done", name, events, entries, last]):
            yield from self._leave_out(
                workflow, "its records in the archive differ from those that were exported. Export it again."
            )
        self._workflow = None
        if not workflow.stays:
            yield from self._send_gathered(workflow)
        if workflow.there:
            yield from self._compare(workflow)
        if workflow.stays:
            return
        yield from self._send_facts()
        keys = workflow.keys
        kept = dict(workflow.kept)
        created, expires = kept.pop("created"), kept.get("expires", b"")
        if "fence" in kept:
            kept["fence"] = b"%d" % (int(kept["fence"]) + 1)  # leases of the other server are outdated
        made = [
            *(keys.events, keys.snapshot, keys.log, keys.commits, keys.refs, keys.inbox, keys.messages, keys.tags),
            keys.meta,
        ]
        sets = (keys.index, workflow.queue, keys.expiring, keys.completed)
        touched = [*workflow.gathered, *made, *sets, keys.partition, keys.feed, keys.queues, keys.parked]
        touched += label_sets(keys, {name.encode(): value for name, value in kept.items()})
        arguments: list[Argument] = [
            *(workflow.workflow_id, workflow.beginning, str(entries), last, workflow.written),
            *(workflow.due, expires, created),
            *(part for field in kept.items() for part in field),
        ]
        call = call_script("import_workflow", touched, arguments, workflow_id=workflow.workflow_id)
        reply = yield from write(self._context, call)
        if not isinstance(reply, ErrorReply):
            # The positions of its events are known only now.
            if self._context.keys.tagged is not None:
                yield from index_workflow(self._context, workflow.workflow_id, adds=True)
            self.workflows += 1
            self.events += events
        elif reply.code == "IMPORT_LOST":
            self._lose(workflow)
        elif reply.code == "WORKFLOW_EXISTS":
            self.problems.append(
                f"The workflow {name!r} was made by another writer during the import, and was not changed. Delete it "
                "to import the one in the archive."
            )
        else:
            self.problems.append(
                f"The workflow {name!r} was not imported: of its {entries} entries, {reply.message} arrived. Import it "
                "again."
            )


def _damaged(kind: Any, error: Exception) -> str:
    return f"the archive holds a damaged record of it, {kind!r:.40}: {error}. Export it again."


def _named(packed: list[Any]) -> list[Argument]:
    """Return the field of a snapshot that tells to which facts it refers, if there is one."""
    match packed:
        case []:
            return []
        case [bytes(refs)]:
            try:
                unpack_refs(refs)
            except DecodeError as error:
                raise ValueError(str(error)) from error
            return ["refs", refs]
    raise ValueError("its references to facts")


def _bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise TypeError("a value is not bytes")
    return value
