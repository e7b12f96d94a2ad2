"""The errors that a store raises. Each says what happened, what was and was not changed, and what to do.

    StoreError
    ├── WorkflowNotFound (LookupError)
    ├── SnapshotNotFound (LookupError)
    ├── FactNotFound (LookupError)
    ├── EventsTrimmed
    ├── FeedTrimmed
    ├── CursorConflict
    │   └── CommitsLost
    ├── GroupRejected
    ├── ConditionFailed
    ├── TrackingConflict
    ├── SnapshotConflict
    ├── WorkflowCompleted
    ├── WorkflowCancelled
    ├── MessageGone
    ├── LeaseHeld
    ├── LeaseLost
    ├── StoreUnavailable (ConnectionError)
    ├── DurabilityError
    ├── WriteRefused
    ├── SnapshotNotSaved
    ├── EncodeError (TypeError)
    ├── DecodeError
    ├── UnknownEventType
    │   └── IncompatibleEvent
    ├── InvalidArgument (ValueError)
    │   └── InvalidType (TypeError)
    └── ConfigurationError

The built-in class in brackets is a base, too. Each error carries the names and numbers of its message as
attributes. Errors can be pickled, so they cross process boundaries whole.
"""

from collections.abc import Sequence
from typing import Any

_LONGEST_REASON = 1000


def short_repr(value: Any, length: int = 80) -> str:
    """Return the beginning of a value's repr, for a message; or its type, if its repr fails."""
    try:
        return repr(value)[:length]
    except Exception:  # of an int of very many digits, say, or of a class whose repr fails
        return f"a value of the type {type(value).__qualname__} that cannot be printed"


def reason(error: BaseException) -> str:
    """Return an error's text, shortened and printable: it may repeat a value of any size."""
    try:
        text = str(error)
    except Exception:  # of an int of very many digits, say
        text = ""
    return "\n".join(map(printable, text[:_LONGEST_REASON].split("\n"))) or type(error).__name__


def printable(text: str) -> str:
    """Return a text in which each character that is not visible is a Python escape.

    Such characters are: control characters, which a terminal would obey; characters that change the direction of the
    text; characters without width; line and paragraph separators; unusual spaces; lone surrogates; unassigned code
    points.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _restore(cls: type["StoreError"], args: tuple[Any, ...], state: dict[str, Any]) -> "StoreError":
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class StoreError(Exception):
    """The base of every error that a store raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by state: the constructors of subclasses take keywords, which `Exception` would lose."""
        return _restore, (type(self), self.args, self.__dict__)


class WorkflowNotFound(StoreError, LookupError):
    """Nothing of the requested kind is stored under this workflow id.

    The workflow was never written, or it was deleted or has expired. Nothing was changed. Check the id with `exists` or
    `list`; a workflow may have a log and no events, or the opposite.

    Attributes:
        workflow_id: the requested id.
    """

    def __init__(self, message: str, *, workflow_id: str) -> None:
        super().__init__(message)
        self.workflow_id = workflow_id


class SnapshotNotFound(StoreError, LookupError):
    """The workflow has no snapshot.

    No snapshot was saved since the workflow was created. Nothing was changed. Read the events from the beginning, or
    save a snapshot first.

    Attributes:
        workflow_id: the requested id.
    """

    def __init__(self, message: str, *, workflow_id: str) -> None:
        super().__init__(message)
        self.workflow_id = workflow_id


class FactNotFound(StoreError, LookupError):
    """No fact is stored under one or more of the requested hashes.

    The facts were never saved, or `collect` has removed them since no workflow referred to them. Nothing was changed.
    Save the facts again, then repeat the call.

    Attributes:
        hashes: every hash that is missing, as the caller gave them, in the requested order.
    """

    def __init__(self, message: str, *, hashes: Sequence[str | bytes]) -> None:
        super().__init__(message)
        self.hashes = list(hashes)


class EventsTrimmed(StoreError):
    """Requested events have been trimmed. Nothing was changed.

    Load the snapshot, and read the events after its cursor.

    Attributes:
        first: the cursor of the first event that is still stored.
    """

    def __init__(self, message: str, *, first: int) -> None:
        super().__init__(message)
        self.first = first


class FeedTrimmed(StoreError):
    """Requested commits have been trimmed from the feed. Nothing was changed.

    The feed keeps commits for `feed_days`; the workflows still hold their events. Begin again with
    ``start="rebuild"``: it reads everything that the workflows hold now, and then goes on with the feed.

    Attributes:
        partition: the partition.
        first: the first position that the feed of this partition still has.
    """

    def __init__(self, message: str, *, partition: int, first: int) -> None:
        super().__init__(message)
        self.partition = partition
        self.first = first


class CursorConflict(StoreError):
    """The workflow's cursor was not the expected one. Nothing was stored.

    Another writer has appended since you read the cursor. Read the new events, decide again, and append with the
    actual cursor.

    Attributes:
        expected: the cursor that the caller expected.
        actual: the cursor of the workflow.
    """

    def __init__(self, message: str, *, expected: int, actual: int) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class CommitsLost(CursorConflict):
    """The workflow's cursor is below the expected one, or below an earlier one, and cursors never go back.

    Nothing was changed. The server has lost commits: it failed before a replica or its disk had them. Only a deleted
    workflow, or an expected cursor that the workflow never reached, looks the same. Read the workflow again and go on
    from the events that are left. A stronger durability prevents the loss.
    """


class GroupRejected(StoreError):
    """One commit of `append_all` was rejected, and so the whole group. Nothing of the group was stored.

    The exception's ``__cause__`` is the error that `append` would have raised for that commit, such as
    `CursorConflict` or `LeaseLost`. It is None if the commit was stored before, by its commit id, and others of the
    group were not. Correct the commit as the cause says, and send the group again.

    Attributes:
        index: the place of the commit in the group, from 0.
        workflow_id: the workflow of the commit.
    """

    def __init__(self, message: str, *, index: int, workflow_id: str) -> None:
        super().__init__(message)
        self.index = index
        self.workflow_id = workflow_id


class ConditionFailed(StoreError):
    """An event matches the condition of `append_all`. Nothing of the group was stored.

    Another writer has stored the event after the position that you passed. Read with `read_where` again, and decide by
    the events that it returns.

    Attributes:
        position: the position of the commit that has the event.
    """

    def __init__(self, message: str, *, position: int) -> None:
        super().__init__(message)
        self.position = position


class TrackingConflict(StoreError):
    """The position of a tracking record is not above the stored one. Nothing was stored, of the group's commits either.

    Another process has processed the source up to the stored position. Where an earlier try had no answer, the message
    says that it may have been stored. Read the stored position, and go on after it.

    Attributes:
        name: the name of the source.
        stored: the position that is stored.
        given: the position of the call.
    """

    def __init__(self, message: str, *, name: str, stored: int, given: int) -> None:
        super().__init__(message)
        self.name = name
        self.stored = stored
        self.given = given


class SnapshotConflict(StoreError):
    """The snapshot's cursor is above the workflow's, or below that of the stored snapshot. Nothing was stored.

    Above the workflow's: append the events first. Below the stored snapshot's: another writer has saved a later one,
    so there is nothing to do. Where an earlier try had no answer, the message says that it may have been stored.

    Attributes:
        cursor: the cursor of the rejected snapshot.
        actual: the cursor that it conflicts with.
    """

    def __init__(self, message: str, *, cursor: int, actual: int) -> None:
        super().__init__(message)
        self.cursor = cursor
        self.actual = actual


class WorkflowCompleted(StoreError):
    """The workflow is completed, so it takes no part in queues any more, and reads no messages.

    Nothing was changed. Start another workflow, or append events without a queue.
    """


class WorkflowCancelled(StoreError):
    """Someone has requested to cancel the workflow, and the commit was to be stored only without that.

    Nothing was stored. Undo what the workflow has done so far, and record that in a commit that consumes the message.

    Attributes:
        message: the message that requests it, if the caller has read it.
    """

    def __init__(self, text: str, *, message: Any = None) -> None:
        super().__init__(text)
        self.message = message


class MessageGone(StoreError):
    """A message to consume is not in the workflow's inbox. Nothing was stored.

    Another commit has consumed it, or the workflow was deleted. Read the inbox and the new events, and decide again.

    Attributes:
        id: the id of the message in the inbox.
    """

    def __init__(self, text: str, *, id: str) -> None:  # noqa: A002 - the name that it has in Message
        super().__init__(text)
        self.id = id


class LeaseHeld(StoreError):
    """Another owner has the workflow's lease. Nothing was changed.

    Try again when the lease has ended, or claim unfinished workflows instead of one.

    Attributes:
        owner: the owner of the lease.
        left_s: how many seconds the lease has left, unless it is renewed.
    """

    def __init__(self, message: str, *, owner: str, left_s: float) -> None:
        super().__init__(message)
        self.owner = owner
        self.left_s = left_s


class LeaseLost(StoreError):
    """The lease of a write is outdated: it was taken over or released, or the workflow is gone. Nothing was written.

    Where an earlier try had no answer, the message says that it may have been carried out. What you hold of the
    workflow is outdated: acquire or claim it again, and read it again.

    Attributes:
        owner: the owner of the workflow's lease now; None if there is none.
    """

    def __init__(self, message: str, *, owner: str | None) -> None:
        super().__init__(message)
        self.owner = owner


class StoreUnavailable(StoreError, ConnectionError):
    """Redis was not reached, or did not reply, within the deadline.

    The server is down, unreachable, overloaded, or not a writable primary; the message says which. It also says
    whether a write may have been stored. A read is always safe to repeat. Repeat an append with the same
    ``commit_id``, or with the same ``expected_cursor``, and it is stored once.
    """


class DurabilityError(StoreError):
    """A write is stored on the server, and was not confirmed in time to be as durable as requested.

    Readers see the write, and it survives the failures that a weaker durability covers; the message says what is
    missing. To have it confirmed, repeat the call with the same commit id, or append nothing:
    ``append(workflow_id, [], expected_cursor=error.cursor)``.

    Attributes:
        cursor: the workflow's cursor after the commit; None for a write that is no commit.
    """

    def __init__(self, message: str, *, cursor: int | None) -> None:
        super().__init__(message)
        self.cursor = cursor


class WriteRefused(StoreError):
    """The server rejects a write: its memory is full, it cannot write its disk, or the request is too large for it.

    Nothing was stored, unless the message says that an earlier try may have been. Free memory or disk space on the
    server, or write smaller values.

    Attributes:
        code: the server's error code, "OOM" or "MISCONF": every write fails, while reads go on. Or "TOO_LARGE", for a
            request above a limit of the server: other writes go on.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class SnapshotNotSaved(StoreError):
    """A session stored its events, and could not save the snapshot that was due with them.

    Do not record the events again. The session goes on, and tries again at its next checkpoint. The exception's
    ``__cause__`` says why the snapshot was not saved.

    Attributes:
        cursor: the workflow's cursor after the events.
    """

    def __init__(self, message: str, *, cursor: int) -> None:
        super().__init__(message)
        self.cursor = cursor


class EncodeError(StoreError, TypeError):
    """A value cannot be stored. Nothing was sent.

    Its type is not supported, or the value is outside of the limits of the data format. Convert the value, or register
    its class as an event.

    Attributes:
        path: where the value is in the argument, such as ``events[3].items['a']``.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class DecodeError(StoreError):
    """Stored data is damaged or lost, or another application uses the same keys.

    Nothing was changed, unless the message says that an earlier try may have been carried out. The message names the
    key and the remedy: `runic-redis verify` shows the damage, its ``--repair`` restores what it can, and a backup
    restores the rest.
    """


class UnknownEventType(StoreError):
    """An event has a type or a version that this program has not registered.

    The stored event is whole, and nothing was changed. Register the type, or an upcaster for the version; or open the
    store with ``unknown_events="wrap"`` to read such events as `UnknownEvent`.

    Attributes:
        name: the event type's name.
        version: the version with which the event was written.
    """

    def __init__(self, message: str, *, name: str, version: int) -> None:
        super().__init__(message)
        self.name = name
        self.version = version


class IncompatibleEvent(UnknownEventType):
    """An event does not fit the class that is registered for its type: the class has changed since the write.

    The stored event is whole, and nothing was changed. Change the class, or register its next version with an
    upcaster.
    """


class InvalidArgument(StoreError, ValueError):
    """An argument has a value that the store does not accept.

    Nothing was sent; where the server has rejected the value, nothing was changed. Correct the argument as the message
    says.
    """


class InvalidType(InvalidArgument, TypeError):
    """An argument has the wrong type. Nothing was sent.

    Pass the type that the message names.
    """


class ConfigurationError(StoreError):
    """The store cannot be used as it is configured.

    The settings of the store, of the namespace or of the server do not fit, or the user lacks a permission. The
    message says what to change, and whether anything was written.
    """
