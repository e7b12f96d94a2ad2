"""Following workflows: their stored events, then new events as they are appended.

A page comes from one blocking read over all the streams (following.py). The meta hashes of its workflows are read after
it: if a workflow was not deleted and created again, its entries belong to it. Cursors must follow each other without a
gap, as in reading.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runic_redis.arguments import check_cursor, check_workflow_id
from runic_redis.context import Context
from runic_redis.errors import InvalidArgument, InvalidType, StoreError, WorkflowNotFound
from runic_redis.operations.ending import is_over
from runic_redis.operations.lost_meta import reject_leftovers
from runic_redis.operations.records import (
    Record,
    commits_lost,
    decode_commit,
    events_missing,
    events_trimmed,
    read_cursor,
)
from runic_redis.protocol.effects import ErrorReply, Operation, key_command
from runic_redis.protocol.following import Stop, by_slot, entries_of, follow
from runic_redis.protocol.refusals import ask_all, checked

_LAST_MS = 2**64 - 1
# How many meta hashes are read at once.
_AT_ONCE = 1000
# How long a read waits for new entries before the meta hashes are read.
_LOOK_S = 1.0
# A first read may only show that a node rejects several slots, and the next one that a workflow was created.
_MOST_READS = 3


class _Followed:
    """A followed workflow, and the cursor up to which it was read."""

    def __init__(self, context: Context, workflow_id: str, cursor: int) -> None:
        self.workflow_id = workflow_id
        keys = context.keys.workflow(workflow_id)
        self.events, self.meta = keys.events, keys.meta
        self.cursor = cursor
        # When it was created, once it exists; its cursor then; and whether an event was read since.
        self.created: bytes | None = None
        self.seen_at = 0
        self.begun = False
        self.trimmed_to = 0


class Tailer:
    """A reader of workflows that follows them without end.

    Args:
        context: the store's.
        after: for each workflow, the cursor after which to read it. The workflow need not exist yet.

    Attributes:
        stop: ends a read that waits.
        is_done: whether nothing more can come: never.
    """

    is_done = False

    def __init__(self, context: Context, after: Mapping[str, int]) -> None:
        if not isinstance(after, Mapping):
            raise InvalidType(
                f"after is a mapping of workflow ids to cursors, not a {type(after).__qualname__}; nothing was sent."
            )
        if not after:
            raise InvalidArgument("after names no workflow to follow; nothing was sent.")
        self._context = context
        followed = [
            _Followed(context, check_workflow_id(workflow_id), check_cursor(cursor, "after"))
            for workflow_id, cursor in after.items()
        ]
        self._by_key = {one.events.encode(): one for one in followed}
        self._slots = self._split()
        self.stop = Stop()

    def open(self) -> Operation[None]:
        """Find the workflows that exist.

        Raises:
            EventsTrimmed: some of the requested events are trimmed.
        """
        yield from self._refresh(list(self._by_key.values()))

    def next_page(self, wait_s: float | None = None) -> Operation[list[tuple[str, Record]]]:
        """Return new records, each with its workflow's id; none if nothing was appended for a while.

        Args:
            wait_s: how long to wait at most; None for as long as a read waits.

        Raises:
            WorkflowNotFound: one of the workflows was deleted.
            CommitsLost: the server has lost events of one.
            EventsTrimmed: events were trimmed before they were read.
            DecodeError: the stored data is damaged.
        """
        wait_s = min(self._context.wait_s, _LOOK_S, _LOOK_S if wait_s is None else wait_s)
        for _ in range(_MOST_READS):
            page = yield from self._read_page(wait_s)
            if page is not None:
                return page
        return []

    def _read_page(self, wait_s: float) -> Operation[list[tuple[str, Record]] | None]:
        """Return new records; None if the page must be read again."""
        self._slots.append(self._slots.pop(0))
        slots = [{one.events: f"{one.cursor}-{_LAST_MS}" for one in slot} for slot in self._slots]
        batch = follow(slots, wait_s, self.stop)
        answers = yield batch
        if any(isinstance(reply, ErrorReply) and reply.code == "CROSSSLOT" for reply in answers):
            # The server is a cluster's node that has all the slots.
            self._context.slots_matter = True
            self._slots = self._split()
            return None
        replies = checked(answers, batch.commands)
        found = [(self._by_key[key], entries) for reply in replies for key, entries in entries_of(reply)]
        brought = {one.events for one, _ in found}
        # These had events before this read, and the read has not returned them.
        behind = [one for one in self._by_key.values() if one.cursor < one.seen_at and one.events not in brought]
        if behind:
            yield from self._refresh(behind)
        elif not found:
            yield from self._refresh(list(self._by_key.values()))
            return []
        unseen = [one for one, _ in found if one.created is None]
        yield from self._refresh([one for one, _ in found])
        taken: list[tuple[str, Record]] = []
        problem: StoreError | None = None
        if behind:
            problem = events_missing(self._context, behind[0].workflow_id, behind[0].cursor, behind[0].seen_at)
        for one, entries in found:
            if one in unseen:
                continue  # the entries may belong to an earlier workflow of this id: they are read again
            try:
                for records in self._take(one, entries):
                    taken += records
            except StoreError as error:
                problem = error
        # Records that were decoded come first, so that none is lost. The next page begins where this one failed.
        if problem is not None and not taken:
            raise problem
        return taken or None

    def _split(self) -> list[list[_Followed]]:
        """Return the workflows in groups that one read can wait for."""
        followed = list(self._by_key.values())
        if not self._context.slots_matter:
            return [followed]
        return [[self._by_key[key.encode()] for key in keys] for keys in by_slot(one.events for one in followed)]

    def _refresh(self, followed: Sequence[_Followed]) -> Operation[None]:
        """Check that workflows were not deleted, trimmed or lost, and note their state."""
        for at in range(0, len(followed), _AT_ONCE):
            some = followed[at : at + _AT_ONCE]
            fields = ("created", "trimmed", "cursor", "expires")
            commands = [key_command("HMGET", one.meta, *fields) for one in some]
            for one, meta in zip(some, (yield from ask_all(commands)), strict=True):
                is_gone = yield from is_over(self._context, one.workflow_id, meta[3])
                created, trimmed_to, cursor, _ = [None] * 4 if is_gone else meta
                if created is None and not is_gone:
                    yield from reject_leftovers(self._context, one.workflow_id)
                if created != one.created and one.created is not None:
                    raise WorkflowNotFound(
                        f"The workflow {one.workflow_id!r} was deleted while it was being followed. Open another tail "
                        "to follow a new workflow of this id.",
                        workflow_id=one.workflow_id,
                    )
                found = read_cursor(cursor, one.meta)
                if found < one.seen_at:
                    raise commits_lost(one.workflow_id, one.seen_at, found, "Nothing was changed.")
                one.created, one.seen_at = created, found
                one.trimmed_to = read_cursor(trimmed_to, one.meta)
                if one.cursor < one.trimmed_to:
                    raise events_trimmed(one.workflow_id, one.trimmed_to)

    def _take(self, one: _Followed, entries: Sequence[Any]) -> Iterator[list[tuple[str, Record]]]:
        """Decode the new entries of a workflow one by one, and move past each."""
        for entry in entries:
            commit = decode_commit(self._context, one.workflow_id, entry, with_records=True)
            if commit.start > one.cursor:
                raise events_missing(self._context, one.workflow_id, one.cursor, commit.start)
            if commit.start < one.cursor and one.begun:
                raise commits_lost(one.workflow_id, one.cursor, commit.start, "Nothing was changed.")
            one.begun = True
            events = commit.events[one.cursor - commit.start :]
            records = [(one.workflow_id, record) for record in commit.records(events, one.cursor)]
            one.cursor = commit.end
            yield records
