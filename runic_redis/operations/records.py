"""Decoding the entries of a stream: events, and the data that is stored about them."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from runic_redis.arguments import is_cursor
from runic_redis.codec import Multiplied, expanded, payload_size
from runic_redis.context import Context
from runic_redis.errors import CommitsLost, DecodeError, EventsTrimmed, UnknownEventType, reason

_log = logging.getLogger("runic_redis")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Record(NamedTuple):
    """An event and the data that is stored about it.

    Attributes:
        cursor: the workflow's cursor after this event.
        time: the time of its commit, by the server's clock, to the millisecond.
        event: the event.
        metadata: the metadata of its commit, or None.
    """

    cursor: int
    time: datetime
    event: Any
    metadata: dict[str, Any] | None


class DecodedEntry(NamedTuple):
    """One decoded entry: a commit or a part of one. Its events have the cursors from `start` + 1 to `end`.

    `events` has one element for each cursor. It is `multiplied` if upcasters have made `Several` events of one.
    """

    start: int
    end: int
    events: list[Any]
    multiplied: bool
    time: datetime
    metadata: dict[str, Any] | None
    size: int

    def records(self, events: Sequence[Any], after: int) -> list[Record]:
        """Return some of its events, those after a cursor, as records."""
        if self.multiplied:
            return [
                Record(place, self.time, event, self.metadata)
                for place, stored in enumerate(events, after + 1)
                for event in expanded([stored])
            ]
        return [Record(place, self.time, event, self.metadata) for place, event in enumerate(events, after + 1)]


def decode_commit(context: Context, workflow_id: str, entry: Any, *, with_records: bool) -> DecodedEntry:
    """Return an entry, decoded; with its time and metadata, if they are wanted.

    Raises:
        UnknownEventType: it holds an event of a type that is not registered.
        DecodeError: it is damaged.
    """
    end = b"?"
    try:
        entry_id, fields = entry
        end, _, ms = entry_id.partition(b"-")
        header, payload = fields[0], fields[1]
        events = context.codec.decode_entry(header, payload)
        metadata, time = None, EPOCH
        about = fields[5] if len(fields) > 4 and fields[4] == b"m" else None
        if with_records:
            time = EPOCH + timedelta(milliseconds=int(ms))
            if about is not None:
                metadata = context.codec.decode_metadata(about)
        if context.observer is not None and about is not None:
            # A reader of events alone has not asked for metadata, so damaged metadata must not stop it.
            with suppress(DecodeError):
                context.observer.received(metadata or context.codec.decode_metadata(about))
        last, size = int(end), len(header) + payload_size(payload)
        commit = DecodedEntry(last - len(events), last, events, type(events) is Multiplied, time, metadata, size)
    except UnknownEventType as error:
        raise type(error)(
            f"{error} It is in the workflow {workflow_id!r}, in the commit that ends at cursor {end.decode()}.",
            name=error.name,
            version=error.version,
        ) from error
    except (DecodeError, ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise DecodeError(
            f"The entry {entry[0] if entry else entry!r} of the workflow {workflow_id!r} (key "
            f"{context.keys.workflow(workflow_id).events!r}) is damaged: {reason(error)}. Nothing was changed. "
            "Restore it from a backup, or read around it with after= and until=."
        ) from error
    if not events or commit.start < 0:
        raise DecodeError(
            f"The entry {entry_id!r} of the workflow {workflow_id!r} (key "
            f"{context.keys.workflow(workflow_id).events!r}) holds {len(events)} events, which its cursor does not "
            "fit. Nothing was changed. Restore it from a backup, or read around it with after= and until=."
        )
    return commit


def read_cursor(value: bytes | None, key: str) -> int:
    """Return a stored cursor as a number; 0 if there is none.

    Raises:
        DecodeError: it is damaged.
    """
    if value is None:
        return 0
    if not is_cursor(value):
        raise DecodeError(
            f"A cursor at the key {key!r} is damaged: {value!r:.40}. Nothing was changed. runic-redis verify reports "
            "the damage; with --repair it restores what other data allows."
        )
    return int(value)


def cursor_or_zero(value: object) -> int:
    """Return a stored cursor as a number; 0 if there is none, or it is damaged."""
    return int(value) if isinstance(value, bytes) and is_cursor(value) else 0


def entry_cursor(entry: Any, key: str) -> int:
    """Return the cursor after an entry.

    Raises:
        DecodeError: its ID is not one of the store.
    """
    end: bytes = entry[0].partition(b"-")[0]
    return read_cursor(end, key)


def entry_ms(entry: Any, key: str) -> int:
    """Return the time of an entry, in Unix milliseconds.

    Raises:
        DecodeError: its ID is not one of the store.
    """
    ms: bytes = entry[0].partition(b"-")[2]
    if not is_cursor(ms):
        raise DecodeError(
            f"The ID of an entry at the key {key!r} has no time of the store: {entry[0]!r:.60}. Nothing was changed. "
            "Restore a backup; until then, read with after= instead of since=."
        )
    return int(ms)


def events_trimmed(workflow_id: str, upto: int, remedy: str = "") -> EventsTrimmed:
    """Return the error for events up to a cursor that are trimmed."""
    remedy = remedy or f"Load the snapshot, and read after its cursor (or after={upto})."
    return EventsTrimmed(
        f"The events of the workflow {workflow_id!r} up to cursor {upto} have been trimmed. {remedy}",
        first=upto + 1,
    )


def commits_lost(workflow_id: str, expected: int, actual: int, consequence: str) -> CommitsLost:
    """Log and return the error for a workflow whose cursor is below an earlier or an expected one."""
    _log.warning("The workflow %r is at cursor %d, and was expected to be at %d.", workflow_id, actual, expected)
    return CommitsLost(
        f"The workflow {workflow_id!r} is at cursor {actual}, and was expected to be at {expected}; cursors never go "
        f"back. Unless it never was there, or was deleted meanwhile, the server has lost up to {expected - actual} "
        f"events: it failed before its disk or a replica had them. {consequence} Read the workflow again, and go on "
        "from what is left. A stronger durability prevents the loss.",
        expected=expected,
        actual=actual,
    )


def events_missing(context: Context, workflow_id: str, after: int, upto: int) -> DecodeError:
    """Return the error for events that are missing, and were not trimmed."""
    return DecodeError(
        f"Events of the workflow {workflow_id!r} are missing between the cursors {after} and {upto}, and were not "
        f"trimmed: the stream at the key {context.keys.workflow(workflow_id).events!r} has been altered. Nothing was "
        f"changed. Restore a backup; the events on either side can be read, with until={after} and with after={upto}."
    )
