"""The one family of errors: each says what happened, what was or was not changed, and what to do.

Every error is a `StoreError`, and also the built-in that a Python user would expect to catch. They carry
what the message names as attributes, and survive pickling, so that they cross process boundaries whole.
"""

from collections.abc import Sequence
from typing import Any

__all__ = [
    "CommitsLost",
    "ConfigurationError",
    "CursorConflict",
    "DecodeError",
    "DurabilityError",
    "EncodeError",
    "EventsTrimmed",
    "FactNotFound",
    "IncompatibleEvent",
    "InvalidArgument",
    "InvalidType",
    "LeaseHeld",
    "LeaseLost",
    "SnapshotConflict",
    "SnapshotNotFound",
    "SnapshotNotSaved",
    "StoreError",
    "StoreUnavailable",
    "UnknownEventType",
    "WorkflowNotFound",
    "WriteRefused",
    "printable",
    "reason",
    "short_repr",
]


_LONGEST_REASON = 1000


def short_repr(value: Any, length: int = 80) -> str:
    """Return the beginning of a value's repr, for a message; of a value that has none, its type."""
    try:
        return repr(value)[:length]
    except Exception:  # of an int of very many digits, say, or of a class whose repr fails
        return f"a value of the type {type(value).__qualname__} that cannot be printed"


def reason(error: BaseException) -> str:
    """What an error says, in short: it may repeat a value of any size, or one that cannot be printed."""
    try:
        text = str(error)
    except Exception:  # of an int of very many digits, say
        text = ""
    return "\n".join(map(printable, text[:_LONGEST_REASON].split("\n"))) or type(error).__name__


def printable(text: str) -> str:
    """Return a text with what is no visible character written as Python escapes it.

    These are control characters, which a terminal would obey, those that change the direction of what follows, those
    without width, line and paragraph separators, odd spaces, lone surrogates, and code points that stand for nothing.
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
        """Pickle by state: the subclasses' constructors take keywords, which `Exception` would lose."""
        return _restore, (type(self), self.args, self.__dict__)


class WorkflowNotFound(StoreError, LookupError):
    """Nothing of the kind that was asked for is kept under this workflow id.

    Attributes:
        workflow_id: the id that was asked for.
    """

    def __init__(self, message: str, *, workflow_id: str) -> None:
        super().__init__(message)
        self.workflow_id = workflow_id


class SnapshotNotFound(StoreError, LookupError):
    """The workflow has no snapshot.

    Attributes:
        workflow_id: the id that was asked for.
    """

    def __init__(self, message: str, *, workflow_id: str) -> None:
        super().__init__(message)
        self.workflow_id = workflow_id


class SnapshotNotSaved(StoreError):
    """A session stored its events, and could not save the snapshot that was due with them.

    Do not record the events again. The session goes on, and tries again at its next checkpoint. The cause is the
    exception's ``__cause__``.

    Attributes:
        cursor: the workflow's cursor after the events.
    """

    def __init__(self, message: str, *, cursor: int) -> None:
        super().__init__(message)
        self.cursor = cursor


class FactNotFound(StoreError, LookupError):
    """No fact is kept under one or more of the hashes asked for.

    Attributes:
        hashes: every hash that is missing, as the caller gave them, in the order asked.
    """

    def __init__(self, message: str, *, hashes: Sequence[str | bytes]) -> None:
        super().__init__(message)
        self.hashes = list(hashes)


class CursorConflict(StoreError):
    """The workflow's cursor was not the expected one; nothing was stored.

    Attributes:
        expected: the cursor the caller expected.
        actual: the cursor the workflow had.
    """

    def __init__(self, message: str, *, expected: int, actual: int) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class CommitsLost(CursorConflict):
    """The workflow's cursor is below the expected one, or below where it has been, and cursors never go back.

    Nothing was changed. Unless the workflow was deleted meanwhile, or the expected cursor was made up, the server has
    lost commits: it failed before a replica or its disk had them. Read the workflow anew to go on from what is left; a
    stronger durability prevents it.
    """


class DurabilityError(StoreError):
    """What was written is stored on the server, and was not confirmed in time to be as durable as was asked for.

    It can be read, and survives what a weaker durability names; the message says what is missing. To have it confirmed,
    ask again with the same commit id, or append nothing: ``append(workflow_id, [], expected_cursor=error.cursor)``.

    Attributes:
        cursor: the workflow's cursor after the commit; None where it was no commit.
    """

    def __init__(self, message: str, *, cursor: int | None) -> None:
        super().__init__(message)
        self.cursor = cursor


class SnapshotConflict(StoreError):
    """The snapshot's cursor is above the workflow's, or below that of a snapshot already there; nothing was stored.

    Attributes:
        cursor: the cursor of the snapshot that was refused.
        actual: the cursor that it conflicts with.
    """

    def __init__(self, message: str, *, cursor: int, actual: int) -> None:
        super().__init__(message)
        self.cursor = cursor
        self.actual = actual


class LeaseHeld(StoreError):
    """Somebody else has the workflow's lease; nothing was changed.

    Attributes:
        owner: who has it.
        left_s: for how many seconds more, unless it is renewed.
    """

    def __init__(self, message: str, *, owner: str, left_s: float) -> None:
        super().__init__(message)
        self.owner = owner
        self.left_s = left_s


class LeaseLost(StoreError):
    """The lease that a write carried is outdated: it was taken over, or given back. Nothing was written.

    Attributes:
        owner: who has the workflow's lease now; None if nobody does.
    """

    def __init__(self, message: str, *, owner: str | None) -> None:
        super().__init__(message)
        self.owner = owner


class EventsTrimmed(StoreError):
    """Events that were asked for have been trimmed away: recover from the snapshot and read after its cursor.

    Attributes:
        first: the cursor of the first event that is still kept.
    """

    def __init__(self, message: str, *, first: int) -> None:
        super().__init__(message)
        self.first = first


class EncodeError(StoreError, TypeError):
    """A value cannot be kept; nothing was sent.

    Attributes:
        path: where in the argument the value stands, such as ``events[3].items['a']``.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class DecodeError(StoreError):
    """What is kept in Redis is not what this library writes: damaged, or a foreign value at one of its keys."""


class UnknownEventType(StoreError):
    """An event of a type or version that this program has not registered.

    Attributes:
        name: the event type's name.
        version: the version that it was written with.
    """

    def __init__(self, message: str, *, name: str, version: int) -> None:
        super().__init__(message)
        self.name = name
        self.version = version


class IncompatibleEvent(UnknownEventType):
    """An event does not fit the class that is registered for its type: the class has changed since it was written.

    The data is whole. Change the class, or register its next version with an upcaster.
    """


class InvalidArgument(StoreError, ValueError):
    """An argument that no store could take; nothing was sent, or where said, nothing was changed."""


class InvalidType(InvalidArgument, TypeError):
    """An argument of the wrong type; nothing was sent."""


class ConfigurationError(StoreError):
    """The store cannot be used as configured; the message says what to change."""


class StoreUnavailable(StoreError, ConnectionError):
    """Redis could not be reached, or did not answer, within the deadline.

    Where a write was under way the message says whether it may have been stored.
    """


class WriteRefused(StoreError):
    """The server rejects a write: its memory is full, it cannot write its disk, or the request is too large for it.

    Where an earlier try had no answer, the message says that it may have been stored; else nothing was.

    Attributes:
        code: the server's error code, "OOM" or "MISCONF"; or "TOO_LARGE", of a request that exceeds a limit of the
            server's. Others go on after that; the first two fail every write, while reading goes on.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code
