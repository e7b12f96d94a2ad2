"""Messages to workflows: sending them, and reading the inbox.

A message stays in its workflow's inbox until a commit consumes it, see `Life` and lua/append.lua.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from runic_redis.arguments import (
    DEFAULT_QUEUE,
    check_message_id,
    check_reason,
    check_seconds,
    check_workflow_id,
)
from runic_redis.codec import expanded
from runic_redis.context import Context
from runic_redis.errors import (
    DecodeError,
    InvalidArgument,
    MessageGone,
    UnknownEventType,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowNotFound,
    reason,
    short_repr,
)
from runic_redis.events import CancelRequested
from runic_redis.operations.ending import is_over
from runic_redis.operations.lost_meta import absence, reject_leftovers
from runic_redis.operations.records import EPOCH, read_cursor
from runic_redis.operations.settings import make_namespace
from runic_redis.operations.writing import write_all
from runic_redis.protocol.effects import Batch, Command, ErrorReply, Operation, Unconfirmed, call_once, key_command
from runic_redis.protocol.following import follow
from runic_redis.protocol.refusals import answer, checked, not_durable

# How many messages are read at once.
_AT_ONCE = 256
# How long a wait for a message lasts before the meta hash is read: the workflow may be gone.
_LOOK_S = 1.0


class Message(NamedTuple):
    """A message in a workflow's inbox.

    Attributes:
        workflow_id: the workflow.
        id: its id in the inbox; later messages have higher ones.
        message_id: the id that its sender gave, or None.
        time: when it was stored, by the server's clock, to the millisecond.
        body: the message: an instance of a registered class, or a plain dict.
    """

    workflow_id: str
    id: str
    message_id: str | None
    time: datetime
    body: Any


def send(
    context: Context,
    workflow_id: str,
    message: Any,
    *,
    message_id: str | None = None,
    missing: Literal["raise", "keep"] = "raise",
) -> Operation[str]:
    """Store a message in a workflow's inbox, and wake the workflow. Return the message's id in the inbox."""
    workflow_id = check_workflow_id(workflow_id)
    given = "" if message_id is None else check_message_id(message_id)
    if missing not in ("raise", "keep"):
        raise InvalidArgument(f'missing is "raise" or "keep", not {short_repr(missing)}; nothing was sent.')
    encoded = _encode(context, message)
    if missing == "keep":
        yield from make_namespace(context)
    keys = context.keys.workflow(workflow_id)
    touched = [keys.meta, keys.inbox, keys.messages, keys.index, keys.queues, keys.queue(DEFAULT_QUEUE)]
    call = call_once(
        "send",
        [*touched, keys.partition, keys.feed],
        workflow_id,
        *(context.now_us(), given, "1" if missing == "keep" else ""),
        *("1" if isinstance(message, CancelRequested) else "", *encoded),
        size=sum(map(len, encoded)),
    )
    (reply,) = yield from write_all(context, [call])
    if isinstance(reply, Unconfirmed):
        remedy = "Send it again with the same id"
        if not given:
            remedy = "It is in the inbox, so do not send it again. Make any later write to the workflow"
        raise not_durable(reply, f"The message to the workflow {workflow_id!r}", remedy, None)
    found = answer(reply, call)
    if isinstance(found, ErrorReply):
        raise WorkflowCompleted(
            f"The workflow {workflow_id!r} is completed, so nothing would read the message. The message was not stored."
        )
    if found is None:
        raise (yield from absence(context, workflow_id, "send a message to"))
    entry_id: bytes = found[0]
    return entry_id.decode()


def request_cancel(context: Context, workflow_id: str, why: str) -> Operation[str]:
    """Send a workflow a request to cancel it. Return the message's id in the inbox."""
    return (yield from send(context, workflow_id, CancelRequested(check_reason(why, 0))))


def _encode(context: Context, message: Any) -> tuple[bytes, bytes]:
    """Return a message as the header and the payload of an entry."""
    facts: dict[str, bytes] = {}
    ((_, header, payload),) = context.codec.encode_commit([message], facts)
    if facts:
        raise InvalidArgument(
            "A message cannot hold a Fact or a FactRef, because nothing would keep the fact stored; nothing was sent. "
            "Send the fact's hash, or the value itself."
        )
    return header, payload


def read_inbox(
    context: Context, workflow_id: str, wait_s: float, clock: Callable[[], float]
) -> Operation[list[Message]]:
    """Return the messages in a workflow's inbox, the oldest first. Wait for one if there is none."""
    workflow_id = check_workflow_id(workflow_id)
    until_s = clock() + check_seconds(wait_s, "wait_s")
    key = context.keys.workflow(workflow_id).inbox
    while True:
        messages = yield from _stored_messages(context, workflow_id)
        left_s = until_s - clock()
        if messages or left_s <= 0:
            return messages
        batch = follow([{key: "0-0"}], min(left_s, _LOOK_S, context.wait_s))
        checked((yield batch), batch.commands)


def _stored_messages(context: Context, workflow_id: str) -> Operation[list[Message]]:
    keys = context.keys.workflow(workflow_id)
    meta = key_command("HMGET", keys.meta, "created", "inbox", "expires")
    suspected: Any = None
    while True:
        commands = [meta, _range(keys.inbox, "-")]
        batch = Batch(commands, own_connection=True, all_or_none=True)
        (created, noted, expires), entries = checked((yield batch), commands)
        if created is None:
            yield from reject_leftovers(context, workflow_id)
        if created is None or (yield from is_over(context, workflow_id, expires)):
            raise WorkflowNotFound(f"There is no workflow {workflow_id!r}.", workflow_id=workflow_id)
        page = entries
        while len(page) == _AT_ONCE:
            commands = [_range(keys.inbox, f"({page[-1][0].decode()}")]
            (page,) = checked((yield Batch(commands, own_connection=True)), commands)
            entries += page
        count = read_cursor(noted, keys.meta)
        if len(entries) >= count:
            return [decode_message(context, workflow_id, entry) for entry in entries]
        # A commit may have consumed messages in between. If not, the next read finds the same.
        if suspected == (created, noted, entries):
            raise DecodeError(
                f"The inbox of the workflow {workflow_id!r}, at the key {keys.inbox!r}, has {len(entries)} of "
                f"{count} messages: it was evicted by the server, or altered. Nothing was changed. Restore a "
                "backup, or run 'runic-redis verify --repair', which lets the workflow go on without them."
            )
        suspected = created, noted, entries


def _range(key: str, start: str) -> Command:
    return key_command("XRANGE", key, start, "+", "COUNT", str(_AT_ONCE))


def decode_message(context: Context, workflow_id: str, entry: Sequence[Any]) -> Message:
    """Return an entry of an inbox, decoded.

    Raises:
        UnknownEventType: it is of a type that is not registered.
        DecodeError: it is damaged.
    """
    try:
        entry_id, (header, payload, *others) = entry
        about = dict(zip(others[::2], others[1::2], strict=True))
        given = about.get(b"i")
        time = EPOCH + timedelta(milliseconds=int(entry_id.partition(b"-")[0]))
        (body,) = expanded(context.codec.decode_entry(header, payload))
        return Message(workflow_id, entry_id.decode(), None if given is None else given.decode(), time, body)
    except UnknownEventType as error:
        raise type(error)(
            f"{error} It is the message {entry[0].decode()} in the inbox of the workflow {workflow_id!r}.",
            name=error.name,
            version=error.version,
        ) from error
    except (DecodeError, ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
        key = context.keys.workflow(workflow_id).inbox
        raise DecodeError(
            f"The message {entry[0]!r} in the inbox of the workflow {workflow_id!r} (key {key!r}) is damaged: "
            f"{reason(error)}. Nothing was changed. Restore it from a backup, or remove it with XDEL and run "
            "'runic-redis verify --repair'."
        ) from error


def message_gone(workflow_id: str, entry_id: str) -> MessageGone:
    """Return the error for a commit that was to consume a message that is not in the inbox."""
    return MessageGone(
        f"The message {entry_id} is not in the inbox of the workflow {workflow_id!r}: another commit has consumed it. "
        "Nothing was stored. Read the inbox and the new events, and decide again.",
        id=entry_id,
    )


def cancel_requested(workflow_id: str) -> WorkflowCancelled:
    """Return the error for a commit that was to be stored only while nobody had requested to cancel the workflow."""
    return WorkflowCancelled(
        f"Someone has requested to cancel the workflow {workflow_id!r}. Nothing was stored. The request is in its "
        "inbox: undo what the workflow has done so far, and record that in a commit that consumes the message."
    )
