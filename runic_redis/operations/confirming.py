"""Confirming that writes are as durable as requested, in the round trip that carries them."""

from typing import TypeVar

from runic_redis.context import Context
from runic_redis.durability import Durability, Replicated, check_durability
from runic_redis.errors import ConfigurationError
from runic_redis.protocol.confirmation import Confirming, unlike_settings
from runic_redis.protocol.effects import Batch, Command, Confirmation, ErrorReply, Operation, Unanswered
from runic_redis.protocol.refusals import unavailable

T = TypeVar("T")
_FSYNC_NEEDS = (
    'It takes Redis or Valkey 7.2 or later with appendonly yes; or, for "fsync" before 7.2, a user who may use CONFIG '
    "GET, and appendonly yes, appendfsync always and no-appendfsync-on-rewrite no."
)


def durably(context: Context, operation: Operation[T], durability: Durability | None) -> Operation[T]:
    """Return an operation that confirms its writes; None for the store's durability.

    Raises:
        InvalidArgument: it is not a durability.
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
    """Return whether a batch is to be confirmed: it calls scripts that write.

    On one server, the write that makes the namespace needs no confirmation, because a later write confirms it too.
    """
    names = {command.script.name for command in batch.commands if command.script is not None} - {"count"}
    return bool(names) and (context.many_nodes or names != {"make_namespace"})


def prepare_durability(context: Context, durability: Durability) -> Operation[Confirmation]:
    """Check that the server can confirm a durability, before anything is written.

    Raises:
        ConfigurationError: it cannot.
        StoreUnavailable: it did not reply within the deadline.
    """
    fsync = durability == "fsync" or (isinstance(durability, Replicated) and durability.fsync)
    confirmation = Confirmation(durability.replicas if isinstance(durability, Replicated) else 0, fsync)
    (reply,) = yield Batch([_probe(context, confirmation)])
    if isinstance(reply, ErrorReply) and durability == "fsync" and "unknown command" in reply.text:
        confirmation = Confirmation(0, fsync=True, by_settings=True)
        (reply,) = yield Batch([_probe(context, confirmation)])
        if not isinstance(reply, ErrorReply) and (unlike := unlike_settings(reply)):
            reply = ErrorReply("ERR", f"the server has no WAITAOF, and {unlike}")
    if isinstance(reply, Unanswered):
        raise unavailable(reply)
    if isinstance(reply, ErrorReply):
        raise ConfigurationError(
            f"This server cannot confirm the durability {durability!r} ({reply.text}). Nothing was written. "
            f"{_FSYNC_NEEDS if fsync else 'It takes a Redis or Valkey server, and a user who may use WAIT.'}"
        )
    context.confirmations[durability] = confirmation
    return confirmation


def _probe(context: Context, confirmation: Confirmation) -> Command:
    (args,) = Confirming(confirmation, 1, touch=False).commands(context.keys.config)
    return Command(args, context.keys.config)
