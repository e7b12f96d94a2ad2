"""The types that pass between an operation and the driver that runs it."""

import os
import re
from collections.abc import Generator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from runic_redis.protocol.scripts import Script, load_script

T = TypeVar("T")
_OWN_ID_BYTES = 8
# Error codes of a server that has not carried the command out, and may do so soon.
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
    """One command. It is never changed.

    Attributes:
        args: its name and arguments; for a call of a script, only the arguments behind the keys.
        key: the key that decides which node of a cluster it goes to.
        script: the script that it calls.
        keys: all the keys of such a call.
        retry_at: for a command that must not simply be sent twice, the place of the argument that marks a retry. It is
            empty on the first try, and `tried` once an earlier try may have been carried out.
        tried: the value of that argument on a retry.
        workflow_id: the workflow that it writes to or renews. The commands of one workflow are carried out in the
            order in which they were asked for, whatever fails in between; those without one, in any order.
        joins: whether calls of the same script may be sent as one: first the keys of all, then the further arguments
            of all. The reply to such a command is an array, with an element for each call in it: an integer, a string
            that begins with a digit, or an error as a string.
        size: roughly its size in bytes; 0 for a small one.
        writes: whether a first try that the server accepts always writes something.
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
    tried: Argument = "1"

    def as_retry(self) -> Sequence[Argument]:
        """Return its arguments for a retry, after a try that may have been carried out."""
        if self.retry_at is None:
            return self.args
        return (*self.args[: self.retry_at], self.tried, *self.args[self.retry_at + 1 :])


class Confirmation(NamedTuple):
    """What has to confirm writes before they are acknowledged.

    Attributes:
        replicas: the least number of replicas that must have them.
        fsync: whether they must be on disk, on the server and on the replicas.
        by_settings: whether that is known by the settings of the server, one without WAITAOF.
    """

    replicas: int
    fsync: bool
    by_settings: bool = False


@dataclass(slots=True)
class Batch:
    """Commands to send. The driver sends back a list: for each a value, `ErrorReply`, `Unanswered` or `Unconfirmed`.

    They share a round trip with those of other calls. In a cluster that is one round trip to each node.

    Attributes:
        commands: the commands.
        own_connection: whether they have their own connection: their replies may be large and delay others.
        all_or_none: whether the replies are valid only together: when one is lost, all commands are retried.
        confirmation: what has to confirm the writes; None if the server's reply is enough.
    """

    commands: Sequence[Command]
    own_connection: bool = False
    all_or_none: bool = False
    confirmation: Confirmation | None = None


class InFlight(Protocol):
    """A batch in flight, sent by `Begin`."""

    def cancel(self) -> None:
        """Drop its replies."""


@dataclass(slots=True)
class Begin:
    """Send a batch without waiting for its replies. The driver sends back its `InFlight`."""

    batch: Batch


@dataclass(slots=True)
class Await:
    """Wait for the replies to a batch that is in flight. The driver sends them back as it does for a `Batch`."""

    in_flight: InFlight


@dataclass(slots=True)
class Join:
    """Join those that wait for queues. The driver sends back a place in a line (hints.py); an `Await` of it waits.

    The reply to that is whether to look now; otherwise the time is over.

    Attributes:
        channel: the channel of the hints.
        queues: the names of the queues.
        wait_s: the longest time to wait.
    """

    channel: str
    queues: Sequence[str]
    wait_s: float


@dataclass(slots=True)
class ErrorReply:
    """A reply by which the server rejects a command.

    Attributes:
        code: its error code.
        message: the rest of its text.
        unsure: whether the reply to an earlier try was lost, so that it may have been carried out.
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
        """Return the error in a text; of a script of Redis 6.2, the error of the command in it."""
        inner = _IN_SCRIPT.match(text)
        code, _, message = (inner[1] if inner else text).strip().partition(" ")
        return cls(code, message)


@dataclass(slots=True)
class Unanswered:
    """In place of a reply: there was none before the deadline.

    Attributes:
        reason: how the last try failed.
        elapsed_s: the time from the first try to the deadline.
        unsure: whether the command may have been carried out, and must not simply be sent twice.
        refused: whether the command was certainly not carried out: no reply to a try was lost.
    """

    reason: str
    elapsed_s: float
    unsure: bool
    refused: bool = False

    @property
    def code(self) -> str:
        """The server's error code, if it rejected the last try; empty if that had no reply."""
        code = self.reason.partition(" ")[0]
        return code if code in TRANSIENT else ""


@dataclass(slots=True)
class Unconfirmed:
    """In place of a reply: the server has carried the command out, and it was not confirmed.

    Attributes:
        reply: the server's reply.
        reason: what was missing.
        transient: whether a retry may help.
        elapsed_s: the time since the first try.
    """

    reply: Any
    reason: str
    transient: bool
    elapsed_s: float = 0.0


@dataclass(slots=True)
class ConnectionLost:
    """In place of a reply: the connection failed. The queue then decides about a retry.

    Attributes:
        reason: how it failed.
        sent: whether the command may have reached the server.
        closed: whether the connection was closed while in use. A server does that to reject a large request.
    """

    reason: str
    _: KW_ONLY
    sent: bool
    closed: bool = False


Effect: TypeAlias = Batch | Begin | Await | Join
Operation: TypeAlias = Generator[Effect, Any, T]


def own_id() -> bytes:
    """Return a new id, by which the server recognises a retry of a commit or another call."""
    return os.urandom(_OWN_ID_BYTES)


def key_command(name: str, key: str, *args: Argument) -> Command:
    """Return a command on a key."""
    return Command((name, key, *args), key)


def call_script(
    name: str,
    keys: Sequence[str],
    args: Sequence[Argument],
    *,
    retry_at: int | None = None,
    workflow_id: str = "",
    size: int = 0,
    writes: bool = False,
) -> Command:
    """Return a command that calls a script. For the arguments see `Command`."""
    return Command(args, keys[0], load_script(name), keys, retry_at, workflow_id, size=size, writes=writes)


def call_once(
    name: str, keys: Sequence[str], workflow_id: str, *args: Argument, size: int = 0, writes: bool = False
) -> Command:
    """Return a call of a script of a workflow, with an id by which the server recognises a retry."""
    args = (workflow_id, own_id(), "", *args)
    return call_script(name, keys, args, retry_at=2, workflow_id=workflow_id, size=size, writes=writes)
