"""What the answer to a command means, whatever the command was."""

from collections.abc import Sequence
from typing import Any

from runic_redis.errors import (
    ConfigurationError,
    DecodeError,
    DurabilityError,
    StoreError,
    StoreUnavailable,
    WriteRefused,
)
from runic_redis.protocol.effects import Batch, Command, ErrorReply, Operation, Unanswered, Unconfirmed

__all__ = [
    "answer",
    "answer_or_foreign",
    "ask",
    "ask_all",
    "checked",
    "not_allowed",
    "not_durable",
    "time_us",
    "unavailable",
    "unreachable",
]

# The errors that our scripts reply by name; each caller turns its own into an exception.
_NAMED = frozenset(
    {
        "COMMIT_UNSURE",
        "CURSOR_CONFLICT",
        "END_REACHED",
        "FACT_DIFFERS",
        "FACT_MISSING",
        "IMPORT_INCOMPLETE",
        "IMPORT_LOST",
        "LEASE_HELD",
        "LEASE_LOST",
        "LOOK_AGAIN",
        "NEW_PARTITION",
        "NOT_COMPLETE",
        "SNAPSHOT_AHEAD",
        "SNAPSHOT_BEHIND",
        "WORKFLOW_EXISTS",
    }
)


def ask(command: Command) -> Operation[Any]:
    """The reply to one command.

    Raises:
        StoreUnavailable: it was not answered within the deadline.
        WriteRefused: the server takes no writes.
        DurabilityError: it was carried out, and not confirmed within the deadline.
        DecodeError: there is a foreign value at one of its keys.
    """
    (reply,) = yield Batch((command,))
    return answer(reply, command)


def ask_all(commands: Sequence[Command]) -> Operation[list[Any]]:
    """The replies to commands that do not depend on each other.

    Error replies that a script gives by name are returned, as `ErrorReply`; every other one is raised.

    Raises:
        StoreUnavailable: some were not answered within the deadline.
        WriteRefused: the server takes no writes.
        DurabilityError: some were carried out, and not confirmed within the deadline.
        DecodeError: there is a foreign value at one of their keys.
    """
    return checked((yield Batch(commands)), commands)


def checked(replies: Sequence[Any], commands: Sequence[Command]) -> list[Any]:
    """Replies, unless one is an error that means the same to every caller."""
    return [answer(reply, command) for reply, command in zip(replies, commands, strict=True)]


def answer(reply: Any, command: Command) -> Any:
    """A reply, unless it is an error that means the same to every caller."""
    if isinstance(reply, StoreError):
        raise reply
    if isinstance(reply, ErrorReply):
        return _named_error(reply, command)
    if isinstance(reply, Unanswered):
        raise unavailable(reply)
    if isinstance(reply, Unconfirmed):
        raise not_durable(reply, f"What was written for {command.workflow_id or command.key!r}", "Ask again", None)
    return reply


def unavailable(reply: Unanswered) -> StoreUnavailable:
    """Return the error for a command that was not carried out, or not answered, by its deadline."""
    reason = reply.reason.rstrip(".")
    consequence = _UNKNOWN if reply.unsure else "It is safe to ask again."
    if not reply.code:
        return StoreUnavailable(f"Redis did not answer for {reply.elapsed_s:.1f} s: {reason}. {consequence}")
    condition, remedy = _CONDITIONS[reply.code]
    if reply.refused:
        consequence = "Nothing was changed." if remedy is _USE_PRIMARY else f"Nothing was changed. {consequence}"
    return StoreUnavailable(
        f"{condition}: Redis answered {reason}, and the deadline passed after {reply.elapsed_s:.1f} s. "
        f"{consequence} {remedy}"
    )


def unreachable(reply: Unanswered) -> StoreUnavailable:
    """Return the error for a store that cannot be opened."""
    if reply.code:
        return unavailable(reply)
    return StoreUnavailable(
        f"Redis cannot be reached: {reply.reason.rstrip('.')}. The store tried for {reply.elapsed_s:.1f} s and changed "
        "nothing. Start the server, or correct the URL."
    )


def answer_or_foreign(reply: Any, command: Command) -> Any:
    """As `answer`, but where there is a value that is not of this store, the `ErrorReply` that says so."""
    return reply if isinstance(reply, ErrorReply) and reply.code == "WRONGTYPE" else answer(reply, command)


def time_us(reply: Sequence[Any]) -> int:
    """The server's time in microseconds since 1970, by its reply to TIME."""
    seconds, micros = reply
    return int(seconds) * 1_000_000 + int(micros)


def not_durable(reply: Unconfirmed, what: str, remedy: str, cursor: int | None) -> DurabilityError:
    """The error for what was written, and not confirmed."""
    return DurabilityError(
        f"{what} is stored on the server, but was not confirmed to be as durable as was asked for, for "
        f"{reply.elapsed_s:.1f} s: {reply.reason}. {remedy} to have it confirmed.",
        cursor=cursor,
    )


def _named_error(reply: ErrorReply, command: Command) -> ErrorReply:
    if reply.code in _NAMED:
        return reply
    keys = ", ".join(command.keys or (command.key,))
    consequence = "Nothing was changed." if not reply.unsure else f"An earlier try had no answer: {_UNKNOWN}"
    if reply.code == "WRONGTYPE" or "WRONGTYPE" in reply.message:
        raise DecodeError(
            f"There is a value that is not of this store at one of these keys: {keys}. {consequence} Another "
            "application uses the same names: give one of the two another namespace."
        )
    if reply.code == "DAMAGED":
        raise DecodeError(
            f"Damaged or lost: the {reply.message} of a workflow or its partition, at one of these keys: {keys}. "
            f"{consequence} runic-redis verify tells what is wrong, and with --repair restores what it can."
        )
    if advice := not_allowed(reply):
        if reply.code != "NOPERM" and not reply.unsure:
            consequence = "What the script had written by then stays."
        raise ConfigurationError(
            f"Redis does not let this user do it, for {keys}: {reply.text}. {consequence} {advice}"
        )
    if reply.code == "TOO_LARGE":
        raise WriteRefused(
            f"The request for {keys} is too large for the server. {reply.message} {consequence} Write smaller values, "
            "or raise the limit.",
            code=reply.code,
        )
    if reply.code in _FULL:
        raise WriteRefused(f"Redis takes no writes: {reply.text}. {consequence} {_FULL[reply.code]}", code=reply.code)
    raise StoreError(f"Redis refused the command for {keys}: {reply.text}. {consequence}")


def not_allowed(reply: ErrorReply) -> str:
    """What to do if a command, or one in a script, was refused because of who asked; empty if it was not that."""
    if reply.code != "NOPERM" and not any(words in reply.text for words in _NOT_ALLOWED_IN_SCRIPT):
        return ""
    return "On the server, ACL LOG names the permission that is missing, and ACL SETUSER gives it."


_USE_PRIMARY = "Use the address of the primary, or redis+sentinel:// or redis+cluster://, which find it."
# For each error code of `TRANSIENT`, the condition that it stands for, and what to do if that lasts.
_CONDITIONS = {
    "BUSY": ("A script keeps the server busy", "Wait until it ends, or end it with SCRIPT KILL."),
    "CLUSTERDOWN": (
        "The cluster does not serve all of its slots",
        "Bring back the nodes that failed; CLUSTER INFO and CLUSTER NODES show them.",
    ),
    "LOADING": (
        "The server is loading its data from disk",
        "Wait until it has finished, or open the store with a longer deadline_s.",
    ),
    "MASTERDOWN": (
        "The server is a replica that has lost the link to its primary",
        _USE_PRIMARY,
    ),
    "NOREPLICAS": (
        "The server has fewer replicas than min-replicas-to-write asks for, and takes no writes",
        "Bring the replicas back, or lower min-replicas-to-write.",
    ),
    "READONLY": (
        "The server is a replica, and takes no writes",
        _USE_PRIMARY,
    ),
    "TRYAGAIN": ("The cluster is moving the keys to another node", "Wait until the slot has moved."),
    "UNBLOCKED": (
        "The server became a replica",
        _USE_PRIMARY,
    ),
}
# As Valkey and Redis 7.2 say it, and those before.
_NOT_ALLOWED_IN_SCRIPT = ("ACL failure in script", "The user executing the script can't")
_FULL = {
    "OOM": "Its memory is used up: delete or trim workflows, collect facts, or raise maxmemory.",
    "MISCONF": "It cannot write its disk: make room there, or repair it; the server's log says what is wrong.",
}
_UNKNOWN = (
    "Whether it was stored is not known: read the workflow to see, or append with a commit_id of your own, which may "
    "be asked again and again and is stored once."
)
