"""What passes between an operation and the driver that runs it."""

import os
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from runic_redis.protocol.scripts import Script, load_script

__all__ = [
    "TRANSIENT",
    "Argument",
    "Await",
    "Batch",
    "Begin",
    "Command",
    "Confirmation",
    "ConnectionLost",
    "Effect",
    "ErrorReply",
    "InFlight",
    "Operation",
    "Unanswered",
    "Unconfirmed",
    "call_script",
    "own_id",
]

T = TypeVar("T")
_OWN_ID_BYTES = 8
# Replies of a server that has not carried the command out, and may well do so soon.
TRANSIENT = frozenset(
    {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "NOREPLICAS", "READONLY", "TRYAGAIN", "UNBLOCKED"}
)
_IN_SCRIPT = re.compile(
    r"(?:(?:ERR )?Error running script [^:]*: @user_script: ?\d+: )?@user_script: ?\d+: -([A-Z]+ .*)", re.S
)
# No int: packing one lets a signal handler run in the middle of hiredis, which then crashes if that raises.
Argument: TypeAlias = str | bytes
# How Redis, and proxies before it, reject a command that they do not have; then, how some providers do.
_UNKNOWN = re.compile(r"(?:err )?(?:unknown|unsupported) command")
_WITHHELD = re.compile(r"\bnot (?:support|available|allowed|enabled)|\bdisabled|\bforbidden")


@dataclass(slots=True)
class Command:
    """One command; not changed once it is made.

    Attributes:
        args: its name and arguments; of a call of a script, only what comes behind the keys.
        key: the key that decides which node of a cluster it goes to.
        script: the script that it calls.
        keys: all the keys of such a call.
        retry_at: for a command that may not simply be sent twice, the place of the argument that says so: empty at
            first, and once an earlier try may have been carried out, `tried`.
        tried: what that argument says then.
        workflow_id: the workflow that it writes to or renews. The commands of one workflow are carried out in the
            order in which they were asked for, whatever fails in between; those without one, in any order.
        joins: whether calls of the same script may be sent as one, the keys and then the further arguments of all
            behind each other. The reply to such a command is an array, with an element for each call in it: an integer,
            a string that begins with a digit, or an error as a string.
        size: about how many bytes it has, where they are many.
        writes: whether it is sure to write something, on a first try that is not refused.
    """

    args: Sequence[Argument]
    key: str
    script: Script | None = None
    keys: Sequence[str] = ()
    retry_at: int | None = None
    workflow_id: str = ""
    joins: bool = False
    size: int = 0
    writes: bool = False
    tried: str = "1"

    def as_retry(self) -> Sequence[Argument]:
        """Its arguments, once an earlier try may have been carried out."""
        if self.retry_at is None:
            return self.args
        return (*self.args[: self.retry_at], self.tried, *self.args[self.retry_at + 1 :])


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What has to confirm writes before they count as done.

    Attributes:
        replicas: how many replicas, at least.
        fsync: that it is on disk, of the server and of the replicas.
        by_settings: that is known by the settings of the server, one without WAITAOF.
    """

    replicas: int
    fsync: bool
    by_settings: bool = False


@dataclass(slots=True)
class Batch:
    """Commands to be answered, in a list: each by a value, an `ErrorReply`, `Unanswered` or `Unconfirmed`.

    They travel in one round trip (in a cluster, one to each node), together with those of other calls.

    Attributes:
        commands: the commands.
        own_connection: on a connection of their own: for replies that may be large, which others should not wait for.
        all_or_none: the replies mean something together only: when one is lost, all are asked for again.
        confirmation: what has to confirm that it is durable; None if the server's answer is enough.
    """

    commands: Sequence[Command]
    own_connection: bool = False
    all_or_none: bool = False
    confirmation: Confirmation | None = None


class InFlight(Protocol):
    """A batch under way, begun by `Begin`."""

    def cancel(self) -> None:
        """Give up on it."""


@dataclass(slots=True)
class Begin:
    """Begin a batch, and do not wait for it. Answered by its `InFlight`."""

    batch: Batch


@dataclass(slots=True)
class Await:
    """Wait for what was begun. Answered as its batch is."""

    in_flight: InFlight


@dataclass(slots=True)
class ErrorReply:
    """A reply in which the server refused the command.

    Attributes:
        code: its error code.
        message: the rest of what it said.
        unsure: whether an earlier try had no answer, and may have been carried out.
    """

    code: str
    message: str
    unsure: bool = False

    @property
    def text(self) -> str:
        """Its text as the server sent it, the code first."""
        return f"{self.code} {self.message}".strip()

    def says_unknown(self, command: str) -> bool:
        """Whether the server does not have a command, for any user."""
        text = self.text.lower()
        withheld = command.lower() in text and _WITHHELD.search(text) is not None
        return self.code != "NOPERM" and (withheld or _UNKNOWN.match(text) is not None)

    @classmethod
    def parse(cls, text: str) -> "ErrorReply":
        """What a server has said, where a script of Redis 6.2 stands around what a command in it has said."""
        inner = _IN_SCRIPT.match(text)
        code, _, message = (inner[1] if inner else text).strip().partition(" ")
        return cls(code, message)


@dataclass(slots=True)
class Unanswered:
    """In place of a reply: there was none within the deadline.

    Attributes:
        reason: how the last try failed.
        elapsed_s: for how long it was tried.
        unsure: whether the command may have been carried out, and was one that may not simply be sent twice.
        refused: whether the command was certainly not carried out: no try was sent and lost.
    """

    reason: str
    elapsed_s: float
    unsure: bool
    refused: bool = False

    @property
    def code(self) -> str:
        """The server's error code, if the last try ended with a refusal; empty if it ended without a reply."""
        code = self.reason.partition(" ")[0]
        return code if code in TRANSIENT else ""


@dataclass(slots=True)
class Unconfirmed:
    """In place of a reply: the server has carried the command out, and what has to confirm it did not.

    Attributes:
        reply: what the server replied.
        reason: what was missing.
        transient: whether asking again may help.
        elapsed_s: for how long it was tried.
    """

    reply: Any
    reason: str
    transient: bool
    elapsed_s: float = 0.0


class ConnectionLost:
    """In place of a reply, to those who send: the connection failed.

    Args:
        reason: how it failed.
        sent: whether the command may have reached the server.
        closed: whether the connection was closed while it was in use, as a server does that rejects a large request.
    """

    __slots__ = ("closed", "reason", "sent")

    def __init__(self, reason: str, *, sent: bool, closed: bool = False) -> None:
        self.reason = reason
        self.sent = sent
        self.closed = closed


Effect: TypeAlias = Batch | Begin | Await
Operation: TypeAlias = Generator[Effect, Any, T]


def own_id() -> bytes:
    """A new id of the store's own, for a commit or another call that may have to be recognised."""
    return os.urandom(_OWN_ID_BYTES)


def call_script(
    name: str,
    keys: Sequence[str],
    args: Sequence[Argument],
    *,
    retry_at: int | None = None,
    workflow_id: str = "",
    joins: bool = False,
    size: int = 0,
    writes: bool = False,
    tried: str = "1",
) -> Command:
    """A call of a script; its arguments as for `Command`."""
    return Command(args, keys[0], load_script(name), keys, retry_at, workflow_id, joins, size, writes, tried)
