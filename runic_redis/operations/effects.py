"""What passes between an operation and the driver that runs it."""

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from runic_redis.scripts import Script, load_script

__all__ = [
    "Ahead",
    "Argument",
    "Batch",
    "Collect",
    "Command",
    "Effect",
    "ErrorReply",
    "Fetching",
    "Operation",
    "Unanswered",
    "call_script",
    "own_id",
]

T = TypeVar("T")
_OWN_ID_BYTES = 8
# No int: packing one lets a signal handler run in the middle of hiredis, which then crashes if that raises.
Argument: TypeAlias = str | bytes


@dataclass(slots=True)
class Command:
    """One command; not changed once it is made.

    Attributes:
        args: its name and arguments; of a call of a script, only what comes behind the keys.
        key: the key that decides which node of a cluster it goes to.
        script: the script that it calls.
        keys: all the keys of such a call.
        retry_at: for a command that may not simply be sent twice, the place of the argument that says so: empty at
            first, and once an earlier try may have been carried out, the milliseconds since the first try.
        line: commands of one line are carried out in the order in which they were asked for, whatever fails in
            between; without one, in any order.
        joins: whether calls of the same script may be sent as one, the keys and then the further arguments of all
            behind each other. The reply to such a command is an array, with an element for each call in it.
        size: about how many bytes it has, where they are many.
    """

    args: Sequence[Argument]
    key: str
    script: Script | None = None
    keys: Sequence[str] = ()
    retry_at: int | None = None
    line: str = ""
    joins: bool = False
    size: int = 0

    def as_retry(self, since_first_ms: int) -> Sequence[Argument]:
        """Its arguments, once an earlier try may have been carried out."""
        if self.retry_at is None:
            return self.args
        return (*self.args[: self.retry_at], str(since_first_ms), *self.args[self.retry_at + 1 :])


@dataclass(slots=True)
class Batch:
    """Commands to be answered, each by a value, an `ErrorReply` or `Unanswered`, in a list.

    They travel in one round trip (in a cluster, one to each node), together with those of other calls.

    Attributes:
        commands: the commands.
        apart: on a connection of their own: for replies that may be large, which others should not wait for.
        at_once: the replies mean something together only: when one is lost, all are asked for again.
        once: a connection that fails is not tried again.
    """

    commands: Sequence[Command]
    apart: bool = False
    at_once: bool = False
    once: bool = False


class Fetching(Protocol):
    """A batch under way, begun by `Ahead`."""

    def cancel(self) -> None:
        """Give up on it."""


@dataclass(slots=True)
class Ahead:
    """Begin a batch, and do not wait for it. Answered by its `Fetching`."""

    batch: Batch


@dataclass(slots=True)
class Collect:
    """Wait for what was begun. Answered as its batch is."""

    fetching: Fetching


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


@dataclass(slots=True)
class Unanswered:
    """In place of a reply: there was none within the deadline.

    Attributes:
        reason: how the last try failed.
        elapsed_s: for how long it was tried.
        unsure: whether the command may have been carried out, and was one that may not simply be sent twice.
    """

    reason: str
    elapsed_s: float
    unsure: bool


Effect: TypeAlias = Batch | Ahead | Collect
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
    line: str = "",
    joins: bool = False,
    size: int = 0,
) -> Command:
    """A call of a script; its arguments as for `Command`."""
    return Command(args, keys[0], load_script(name), keys, retry_at, line, joins, size)
