"""Having writes confirmed to be as durable as was asked for, in the round trip that carries them.

`WAIT` and `WAITAOF` tell whether replicas and disk have what their own connection wrote last. A write that turns out
to be there already, from an earlier try over another connection, has written nothing on this one, and they would
confirm it whatever the replicas have. So where that may be, something is written first: see lua/touch.lua.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from runic_redis.context import Context
from runic_redis.durability import Durability, Replicated, check_durability
from runic_redis.errors import ConfigurationError
from runic_redis.operations.asking import unavailable
from runic_redis.operations.effects import (
    PASSING,
    Argument,
    Batch,
    Command,
    Confirmation,
    ErrorReply,
    Operation,
    Unanswered,
)
from runic_redis.scripts import load_script

__all__ = ["Confirming", "durably", "prepare_durability"]

T = TypeVar("T")

_SETTINGS = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}


@dataclass(frozen=True, slots=True)
class Confirming:
    """What is sent behind the commands of a round, on the same connection, and what the replies to it mean.

    Attributes:
        by: what has to confirm them.
        wait_ms: how long the server is to wait for that.
        touch: whether some of them may have written nothing.
    """

    by: Confirmation
    wait_ms: int
    touch: bool

    def commands(self, key: str) -> list[tuple[Argument, ...]]:
        """What is sent; `key` is that of one of the commands, and decides about the slot."""
        if self.by.by_settings:
            return [("CONFIG", "GET", "*append*")]
        touches: list[tuple[Argument, ...]] = []
        if self.touch:
            touches.append(("EVAL", load_script("touch").text, "1", key.partition("}")[0] + "}:touch"))
        if self.by.fsync:
            return [*touches, ("WAITAOF", "1", str(self.by.replicas), str(self.wait_ms))]
        return [*touches, ("WAIT", str(self.by.replicas), str(self.wait_ms))]

    def shortfall(self, replies: Sequence[Any]) -> tuple[str, bool]:
        """What is missing, or '' if nothing is; and whether asking again may help.

        Args:
            replies: to what was sent: values, and `ErrorReply`s.
        """
        for reply in replies:
            if isinstance(reply, ErrorReply):
                return _said(reply), reply.code in PASSING
        if self.by.by_settings:
            return _unlike_settings(replies[-1]), False
        wanted = self.by.replicas
        synced, replicas = replies[-1] if self.by.fsync else (1, replies[-1])
        if not synced:
            return f"the server did not sync its append-only file within {self.wait_ms} ms", True
        if replicas < wanted:
            have = "had it on disk" if self.by.fsync else "had it"
            return f"after {self.wait_ms} ms {replicas} of {wanted} replicas {have}", True
        return "", True


def durably(context: Context, operation: Operation[T], durability: Durability | None) -> Operation[T]:
    """An operation whose writes are confirmed to be as durable as that; None for as the store has it.

    Raises:
        InvalidArgument: it is no durability.
    """
    asked = context.durability if durability is None else check_durability(durability)
    return operation if asked == "memory" else _confirmed(context, operation, asked)


def _confirmed(context: Context, operation: Operation[T], durability: Durability) -> Operation[T]:
    try:
        effect = next(operation)  # its own checks come first
        confirmation = context.confirmations.get(durability) or (yield from prepare_durability(context, durability))
        while True:
            if isinstance(effect, Batch) and _writes(context, effect):
                effect.confirmation = confirmation
            effect = operation.send((yield effect))
    except StopIteration as stop:
        result: T = stop.value
        return result


def _writes(context: Context, batch: Batch) -> bool:
    """Whether a batch is to be confirmed: it calls scripts. On one server, what comes after confirms the namespace."""
    names = [command.script.name for command in batch.commands if command.script is not None]
    return bool(names) and (context.many_nodes or names != ["make_namespace"])


def prepare_durability(context: Context, durability: Durability) -> Operation[Confirmation]:
    """See that the server can confirm a durability, before anything is written.

    Raises:
        ConfigurationError: it cannot.
        StoreUnavailable: it cannot be reached.
    """
    fsync = durability == "fsync" or (isinstance(durability, Replicated) and durability.fsync)
    confirmation = Confirmation(durability.replicas if isinstance(durability, Replicated) else 0, fsync)
    (reply,) = yield Batch([_probe(context, confirmation)])
    if isinstance(reply, ErrorReply) and durability == "fsync" and "unknown command" in _said(reply):
        confirmation = Confirmation(0, fsync=True, by_settings=True)
        (reply,) = yield Batch([_probe(context, confirmation)])
        if not isinstance(reply, ErrorReply) and (unlike := _unlike_settings(reply)):
            reply = ErrorReply("ERR", f"the server has no WAITAOF, and {unlike}")
    if isinstance(reply, Unanswered):
        raise unavailable(reply)
    if isinstance(reply, ErrorReply):
        raise ConfigurationError(
            f"The durability {durability!r} cannot be had of this server ({_said(reply)}). Nothing was written. "
            f"{_advice(fsync=fsync)}"
        )
    context.confirmations[durability] = confirmation
    return confirmation


def _probe(context: Context, confirmation: Confirmation) -> Command:
    (args,) = Confirming(confirmation, 1, touch=False).commands(context.keys.config)
    return Command(args, context.keys.config)


def _said(reply: ErrorReply) -> str:
    return f"{reply.code} {reply.message}".strip()


def _advice(*, fsync: bool) -> str:
    if fsync:
        return (
            'It takes Redis or Valkey 7.2 or later with appendonly yes; or, for "fsync" before 7.2, a user who may use '
            "CONFIG GET, and appendonly yes, appendfsync always and no-appendfsync-on-rewrite no."
        )
    return "It takes a Redis or Valkey server, and a user who may use WAIT."


def _unlike_settings(reply: Any) -> str:
    """Which settings are not those of a server that syncs every write to disk before it answers."""
    pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
    found = {_text(name): _text(value) for name, value in pairs}
    wrong = [f"{name} is {found.get(name)!r}" for name, value in _SETTINGS.items() if found.get(name) != value]
    return " and ".join(wrong)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")
