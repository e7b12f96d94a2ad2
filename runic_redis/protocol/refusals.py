"""The meaning of replies that is the same for all commands: which errors are raised, and with which advice."""

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

# The errors that our scripts name. The operation that calls a script handles them.
_NAMED = frozenset(
    {
        "ALREADY_STARTED",
        "CANCEL_REQUESTED",
        "COMMIT_STORED",
        "COMMIT_UNSURE",
        "CONDITION_FAILED",
        "CURSOR_CONFLICT",
        "END_REACHED",
        "FACT_DIFFERS",
        "FACT_MISSING",
        "FEED_CHANGED",
        "GROUP_REJECTED",
        "IMPORT_INCOMPLETE",
        "IMPORT_LOST",
        "LEASE_HELD",
        "LEASE_LOST",
        "LOOK_AGAIN",
        "MESSAGE_GONE",
        "NEW_PARTITION",
        "OTHER_KEY",
        "REFS_UNKNOWN",
        "SEARCH_ON",
        "SNAPSHOT_AHEAD",
        "SNAPSHOT_BEHIND",
        "TOO_MANY_ATTRIBUTES",
        "TRACKING_CONFLICT",
        "VERSION_OUTDATED",
        "WORKFLOW_COMPLETED",
        "WORKFLOW_EXISTS",
    }
)


def ask(command: Command) -> Operation[Any]:
    """Return the reply to one command.

    Raises:
        StoreUnavailable: there was no reply before the deadline.
        WriteRefused: the server rejects writes.
        DurabilityError: it was carried out, and not confirmed before the deadline.
        DecodeError: a value at one of its keys is not of this store.
    """
    (reply,) = yield Batch((command,))
    return answer(reply, command)


def ask_all(commands: Sequence[Command]) -> Operation[list[Any]]:
    """Return the replies to commands that do not depend on each other.

    An error that a script names is returned as an `ErrorReply`. Any other error is raised.

    Raises:
        StoreUnavailable: some had no reply before the deadline.
        WriteRefused: the server rejects writes.
        DurabilityError: some were carried out, and not confirmed before the deadline.
        DecodeError: a value at one of their keys is not of this store.
    """
    return checked((yield Batch(commands)), commands)


def checked(replies: Sequence[Any], commands: Sequence[Command]) -> list[Any]:
    """Return replies; raise the first error that means the same for all commands."""
    return [answer(reply, command) for reply, command in zip(replies, commands, strict=True)]


def answer(reply: Any, command: Command) -> Any:
    """Return a reply; raise it if it is an error that means the same for all commands."""
    if isinstance(reply, StoreError):
        raise reply
    if isinstance(reply, ErrorReply):
        return _named_error(reply, command)
    if isinstance(reply, Unanswered):
        raise unavailable(reply)
    if isinstance(reply, Unconfirmed):
        raise not_durable(reply, f"The write for {command.workflow_id or command.key!r}", "Retry it", None)
    return reply


def unavailable(reply: Unanswered) -> StoreUnavailable:
    """Return the error for a command that was not carried out, or had no reply, before its deadline."""
    reason = reply.reason.rstrip(".")
    consequence = _UNKNOWN if reply.unsure else "It is safe to retry."
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
    """Return a reply as `answer` does; for a value that is not of this store, the `ErrorReply` WRONGTYPE."""
    return reply if isinstance(reply, ErrorReply) and reply.code == "WRONGTYPE" else answer(reply, command)


def time_us(reply: Sequence[Any]) -> int:
    """Return the server's time in microseconds since 1970, from its reply to TIME."""
    seconds, micros = reply
    return int(seconds) * 1_000_000 + int(micros)


def server_us(key: str) -> Operation[int]:
    """Return the time by the clock of a key's server, in microseconds since 1970."""
    return time_us((yield from ask(Command(("TIME",), key))))


def not_durable(reply: Unconfirmed, what: str, remedy: str, cursor: int | None) -> DurabilityError:
    """Return the error for a write that was stored and not confirmed."""
    return DurabilityError(
        f"{what} is stored on the server, but its durability was not confirmed within {reply.elapsed_s:.1f} s: "
        f"{reply.reason}. {remedy} to have it confirmed.",
        cursor=cursor,
    )


def _named_error(reply: ErrorReply, command: Command) -> ErrorReply:
    if reply.code in _NAMED:
        return reply
    keys = ", ".join(command.keys or (command.key,))
    consequence = "Nothing was changed." if not reply.unsure else f"An earlier try had no reply. {_UNKNOWN}"
    if reply.code == "WRONGTYPE" or "WRONGTYPE" in reply.message:
        raise DecodeError(
            f"There is a value that is not of this store at one of these keys: {keys}. {consequence} Another "
            "application uses the same names: choose another namespace for one of the two."
        )
    if reply.code == "DAMAGED":
        raise DecodeError(
            f"Damaged or lost: the {reply.message} of a workflow or its partition, at one of these keys: {keys}. "
            f"{consequence} runic-redis verify reports the damage; with --repair it restores what other data allows."
        )
    if advice := not_allowed(reply):
        if reply.code != "NOPERM" and not reply.unsure:
            consequence = "The writes of the script before that stay."
        raise ConfigurationError(f"The Redis user lacks a permission, for {keys}: {reply.text}. {consequence} {advice}")
    if reply.code == "TOO_LARGE":
        raise WriteRefused(
            f"The request for {keys} is too large for the server. {reply.message} {consequence} Write smaller values, "
            "or raise the limit.",
            code=reply.code,
        )
    if reply.code in _FULL:
        raise WriteRefused(f"Redis rejects writes: {reply.text}. {consequence} {_FULL[reply.code]}", code=reply.code)
    raise StoreError(f"Redis rejected the command for {keys}: {reply.text}. {consequence}")


def not_allowed(reply: ErrorReply) -> str:
    """Return advice if the user lacks a permission for a command, or for one in a script; otherwise ''."""
    if reply.code != "NOPERM" and not any(words in reply.text for words in _NOT_ALLOWED_IN_SCRIPT):
        return ""
    return "On the server, ACL LOG shows the missing permission, and ACL SETUSER grants it."


_USE_PRIMARY = "Use the address of the primary, or redis+sentinel:// or redis+cluster://, which find it."
# For each error code of `TRANSIENT`: the condition, and what to do if it lasts.
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
    "MASTERDOWN": ("The server is a replica that has lost the link to its primary", _USE_PRIMARY),
    "NOREPLICAS": (
        "The server has fewer replicas than min-replicas-to-write requires, and rejects writes",
        "Bring the replicas back, or lower min-replicas-to-write.",
    ),
    "READONLY": ("The server is a replica, and rejects writes", _USE_PRIMARY),
    "TRYAGAIN": ("The cluster is moving the keys to another node", "Wait until the slot has moved."),
    "UNBLOCKED": ("The server became a replica", _USE_PRIMARY),
}
# The texts of Valkey and Redis 7.2, and of older versions.
_NOT_ALLOWED_IN_SCRIPT = ("ACL failure in script", "The user executing the script can't")
_FULL = {
    "OOM": "Its memory is used up: delete or trim workflows, collect facts, or raise maxmemory.",
    "MISCONF": "It cannot write its disk: free space there, or repair it. The server's log shows the reason.",
}
_UNKNOWN = (
    "Whether it was stored is not known. Read the workflow to find out, or append with your own commit_id: you can "
    "retry such an append, and it is stored once."
)
