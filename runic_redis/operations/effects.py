"""What passes between an operation and the driver that runs it."""

import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

from runic_redis.scripts import load_script

__all__ = ["Answers", "Batch", "Command", "Effect", "ErrorReply", "Lost", "Operation", "Pause", "call_script", "own_id"]

T = TypeVar("T")
_OWN_ID_BYTES = 8
Argument: TypeAlias = str | bytes | int


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        args: its name and arguments.
        key: the key that decides which node of a cluster it goes to.
        text: for a script called by its SHA, its text: what to send to a server that does not know it.
        again: for a command that may not simply be sent twice, what to send instead once an earlier try may have
            been carried out, given the milliseconds since the first try.
    """

    args: tuple[Argument, ...]
    key: str
    text: str | None = None
    again: "Callable[[int], Command] | None" = None

    def with_text(self) -> "Command":
        """The same script call, carrying the script."""
        return Command(("EVAL", self.text or "", *self.args[2:]), self.key, self.text, self.again)


@dataclass(frozen=True, slots=True)
class Batch:
    """Commands to be sent in one round trip (in a cluster, one to each node), in order. Answered by `Answers`."""

    commands: Sequence[Command]


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait. Answered by the time after it in seconds, a `float`, by a clock that only goes forward."""

    seconds: float


class Answers(NamedTuple):
    """What a batch is answered with.

    Attributes:
        replies: as many as there were commands.
        sent_s: the time just before they were sent, by the same clock as a pause's.
    """

    replies: Sequence[Any]
    sent_s: float


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """A reply in which the server refused the command: its error code, and the rest of the message."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Lost:
    """In place of a reply: the connection failed.

    Attributes:
        reason: how it failed.
        sent: whether the command may have reached the server.
    """

    reason: str
    sent: bool


Effect: TypeAlias = Batch | Pause
Operation: TypeAlias = Generator[Effect, Any, T]


def own_id() -> bytes:
    """A new id of the store's own, for a commit or another call that may have to be recognised."""
    return os.urandom(_OWN_ID_BYTES)


def call_script(
    name: str,
    keys: Sequence[str],
    args: Sequence[Argument],
    again: Callable[[int], Command] | None = None,
) -> Command:
    """A call of a script by its SHA."""
    script = load_script(name)
    return Command(("EVALSHA", script.sha, len(keys), *keys, *args), keys[0], script.text, again)
