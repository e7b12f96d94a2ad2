"""Sending writes to workflows, and the steps that may have to come first.

- A script does not create a workflow in a partition that was never made. The namespace may have been deleted, or
  flushed and created with other settings. Then the namespace is created again, and the write is sent again.
- A script does not write to a workflow that has reached its end. Then that end is settled first.
- A script names the key that it needs in place of one that was passed, such as that of the workflow's queue. Then the
  write is sent again with that key.

In all cases the script changes nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from runic_redis.context import Context
from runic_redis.errors import ConfigurationError, StoreError
from runic_redis.operations.ending import settle_end
from runic_redis.operations.settings import remake_namespace
from runic_redis.protocol.effects import Batch, Command, ErrorReply, Operation
from runic_redis.protocol.refusals import answer

# Each round settles the rejections of the one before. Only repeated changes by others cause more rounds.
ROUNDS = 5


def write(context: Context, command: Command) -> Operation[Any]:
    """Return the reply to a command that writes to a workflow.

    Raises:
        StoreError: as `ask` does.
    """
    (reply,) = yield from write_all(context, [command])
    return answer(reply, command)


def write_all(context: Context, commands: list[Command]) -> Operation[list[Any]]:
    """Return the raw replies to commands that write to workflows; or errors, for `answer` to raise.

    A command that was sent with another key is replaced in the list.
    """
    replies: list[Any] = yield Batch(commands)
    if ErrorReply not in set(map(type, replies)):
        return replies
    replies = list(replies)
    rounds = 0
    while places := [place for place, reply in enumerate(replies) if is_premature(reply)]:
        if rounds == ROUNDS:
            for place in places:
                replies[place] = too_often(context, commands[place], replies[place])
            break
        rounds += 1
        yield from settle_premature(context, commands, replies, places)
        places = [place for place in places if is_premature(replies[place])]
        again = [
            # An earlier try without a reply may still arrive.
            replace(commands[place], args=commands[place].as_retry()) if replies[place].unsure else commands[place]
            for place in places
        ]
        for place, reply in zip(places, (yield Batch(again)) if again else (), strict=True):
            replies[place] = reply
    return replies


def settle_premature(
    context: Context, commands: list[Command], replies: list[Any], places: Sequence[int]
) -> Operation[None]:
    """Settle the cause of some premature rejections, so that the commands can be sent again.

    A command that needs another key is replaced in the list. If a step fails, its error is the command's reply.
    """
    early = [place for place in places if replies[place].code == "NEW_PARTITION"]
    ended: dict[str, list[int]] = {}
    for place in places:
        if replies[place].code == "END_REACHED":
            ended.setdefault(commands[place].workflow_id, []).append(place)
    if early:
        yield from _settle(_remake(context, [commands[place] for place in early]), replies, early)
    for workflow_id, its_places in ended.items():
        yield from _settle(settle_end(context, workflow_id), replies, its_places)
    for place in places:
        if isinstance(reply := replies[place], ErrorReply) and reply.code == "OTHER_KEY":
            commands[place] = _with_key(commands[place], reply)


def _with_key(command: Command, reply: ErrorReply) -> Command:
    """Return a command with the key that its script has asked for in place of another."""
    number, _, key = reply.message.partition(" ")
    keys = list(command.keys)
    # A place behind the last one adds a key.
    keys[int(number) - 1 : int(number)] = [unquote(key)]
    return replace(command, keys=keys)


def too_often(context: Context, command: Command, reply: ErrorReply) -> StoreError:
    """Return the error for a command that was still premature after the last round."""
    if reply.code == "OTHER_KEY":
        return StoreError(
            f"The workflow {command.workflow_id!r} was changed {ROUNDS} times during this write, and each time it "
            "needed another key. Nothing was changed. Try again."
        )
    return StoreError(
        f"The namespace {context.keys.namespace!r} was deleted or flushed {ROUNDS} times during this write. Nothing "
        "was changed. Stop the program that deletes it, and try again."
    )


def _settle(operation: Operation[None], replies: list[Any], places: Sequence[int]) -> Operation[None]:
    """Run an operation that some commands wait for. If it fails, its error is their reply, and no other's."""
    try:
        yield from operation
    except StoreError as error:
        for place in places:
            replies[place] = error


def _remake(context: Context, commands: Sequence[Command]) -> Operation[None]:
    """Create the namespace again for commands.

    Raises:
        ConfigurationError: some have keys of a namespace with other settings.
    """
    yield from remake_namespace(context)
    keys = context.keys
    # Another call of this store may have noticed first that the namespace was made again.
    if any(keys.workflow(command.workflow_id).partition not in command.keys for command in commands):
        now = f"partitions={keys.partitions} and feed={keys.has_feed}"
        raise ConfigurationError(
            f"The namespace {keys.namespace!r} was deleted or flushed, and created again with {now}. This call was for "
            "other settings. Nothing was written. This store uses the new ones from now on: read again and decide."
        )


def is_premature(reply: Any) -> bool:
    """Return whether a reply rejects a command until its cause is settled."""
    return isinstance(reply, ErrorReply) and reply.code in {"NEW_PARTITION", "END_REACHED", "OTHER_KEY"}
