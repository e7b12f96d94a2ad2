"""Appending commits."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runic_redis.arguments import check_commit_id, check_cursor, check_workflow_id
from runic_redis.context import Context
from runic_redis.errors import CursorConflict, InvalidArgument, InvalidType, StoreError, StoreUnavailable
from runic_redis.operations.asking import answer
from runic_redis.operations.effects import Batch, Command, ErrorReply, Operation, call_script, own_id
from runic_redis.operations.opening import make_namespace

__all__ = ["append", "append_many"]

MAX_METADATA_BYTES = 64 * 1024
# Where the expected cursor stands among the arguments of a call.
_EXPECTED = 3


def append(
    context: Context,
    workflow_id: str,
    events: Iterable[Any],
    *,
    expected_cursor: int | None = None,
    commit_id: str | bytes | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Operation[int]:
    """Append events to a workflow as one commit; the cursor after it."""
    command = _command(
        context, workflow_id, events, expected_cursor=expected_cursor, commit_id=commit_id, metadata=metadata
    )
    if command.size:
        yield from make_namespace(context)
    (reply,) = yield Batch((command,))
    return _cursor(reply, command)


def append_many(context: Context, items: Iterable[tuple[str, Iterable[Any]]]) -> Operation[list[int | StoreError]]:
    """Append a commit to each of many workflows, in one round trip; each one's cursor, or its own error."""
    results: list[int | StoreError] = []
    commands: list[Command] = []
    places: list[int] = []
    for place, (workflow_id, events) in enumerate(_pairs(items)):
        results.append(0)
        try:
            commands.append(_command(context, workflow_id, events))
            places.append(place)
        except StoreError as error:
            results[place] = error
    if commands:
        yield from make_namespace(context)
        replies = yield Batch(commands)
        for place, reply, command in zip(places, replies, commands, strict=True):
            try:
                results[place] = _cursor(reply, command)
            except StoreError as error:
                results[place] = error
    return results


def _command(
    context: Context,
    workflow_id: str,
    events: Iterable[Any],
    *,
    expected_cursor: int | None = None,
    commit_id: str | bytes | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Command:
    """The call that appends a commit; its size is 0 if there is nothing to append."""
    workflow_id = check_workflow_id(workflow_id)
    expected = "" if expected_cursor is None else str(check_cursor(expected_cursor, "expected_cursor"))
    known_as = own_id() if commit_id is None else check_commit_id(commit_id)
    about = b"" if metadata is None else _encode_metadata(context, metadata)
    commit = _event_list(events)
    entries = context.codec.encode_commit(commit) if commit else ()
    args: list[str | bytes] = [
        workflow_id,
        known_as,
        "" if commit_id is None else "given",
        expected,
        about,
        str(len(entries)),
    ]
    size = 0
    for entry in entries:
        args += (str(entry.event_count), entry.header, entry.payload)
        size += len(entry.header) + len(entry.payload)
    keys = context.keys.workflow(workflow_id)
    return call_script(
        "append",
        (keys.events, keys.meta, keys.commits, keys.index),
        args,
        retry_at=2 if commit_id is None else None,
        line=workflow_id,
        joins=True,
        size=size,
    )


def _cursor(reply: Any, command: Command) -> int:
    """The cursor after a commit, from the reply to it.

    Raises:
        StoreError: it was not stored; or, a `StoreUnavailable`, nobody knows.
    """
    if type(reply) is int:
        return reply
    if isinstance(reply, bytes):
        code, _, message = reply.decode().partition(" ")
        reply = ErrorReply(code, message)
    refusal = answer(reply, command)
    workflow_id = command.line
    if refusal.code == "COMMIT_UNSURE":
        raise StoreUnavailable(
            f"A reply for the workflow {workflow_id!r} was lost, and events since then have been trimmed: whether the "
            "commit was stored is not known, and it was not stored again. Read the workflow to see; with a commit_id "
            "of your own it would be known."
        )
    actual, expected = int(refusal.message), int(command.args[_EXPECTED])
    raise CursorConflict(
        f"The workflow {workflow_id!r} is at cursor {actual}, not at {expected}: somebody else has appended. "
        "Nothing was stored; read what is new and decide again.",
        expected=expected,
        actual=actual,
    )


def _pairs(items: Iterable[tuple[str, Iterable[Any]]]) -> list[tuple[str, Sequence[Any]]]:
    """The items, checked for their form: a malformed list is the caller's mistake, not one item's."""
    if not isinstance(items, Iterable):
        raise InvalidType(f"items is a list of pairs, not a {type(items).__qualname__}; nothing was sent.")
    pairs: list[tuple[str, Sequence[Any]]] = []
    for place, item in enumerate(items):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InvalidType(
                f"items[{place}] is not a pair of a workflow id and its events: {item!r:.80}; nothing was sent."
            )
        workflow_id, events = item
        pairs.append((check_workflow_id(workflow_id), _event_list(events)))
    return pairs


def _event_list(events: Any) -> Sequence[Any]:
    if isinstance(events, list):
        return events
    # A dict or a tuple with names is one event, which people pass by mistake; iterating it would append its parts.
    if isinstance(events, str | bytes | Mapping) or hasattr(events, "_fields") or not isinstance(events, Iterable):
        raise InvalidType(
            f"events is a list of events, not a {type(events).__qualname__}: write [event] for a single one; nothing "
            "was sent."
        )
    return list(events)


def _encode_metadata(context: Context, metadata: Mapping[str, Any]) -> bytes:
    if type(metadata) is not dict:
        raise InvalidType(f"metadata is a dict, not a {type(metadata).__qualname__}; nothing was sent.")
    encoded = context.codec.encode_metadata(metadata)
    if len(encoded) > MAX_METADATA_BYTES:
        raise InvalidArgument(
            f"metadata takes {len(encoded)} bytes, and at most {MAX_METADATA_BYTES} are kept; nothing was sent."
        )
    return encoded
