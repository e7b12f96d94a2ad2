"""Appending commits."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runic_redis.arguments import check_commit_id, check_cursor, check_workflow_id
from runic_redis.context import Context
from runic_redis.errors import CursorConflict, InvalidArgument, InvalidType, StoreError, StoreUnavailable
from runic_redis.operations.asking import ask, together
from runic_redis.operations.effects import Command, ErrorReply, Operation, call_script, own_id
from runic_redis.operations.opening import make_namespace

__all__ = ["append", "append_many"]

MAX_METADATA_BYTES = 64 * 1024


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
    workflow_id = check_workflow_id(workflow_id)
    keys = context.keys.workflow(workflow_id)
    expected = "" if expected_cursor is None else check_cursor(expected_cursor, "expected_cursor")
    known_as = own_id() if commit_id is None else check_commit_id(commit_id)
    about = b"" if metadata is None else _encode_metadata(context, metadata)
    parts: list[str | bytes | int] = []
    commit = _event_list(events)
    if commit:
        for entry in context.codec.encode_commit(commit):
            parts += entry

    def attempt(since_first_ms: int | None) -> Command:
        return call_script(
            "append",
            [keys.events, keys.meta, keys.commits, keys.index],
            [
                workflow_id,
                known_as,
                0 if commit_id is None else 1,
                expected,
                "" if since_first_ms is None else since_first_ms,
                about,
                *parts,
            ],
            again=attempt,
        )

    if parts:
        yield from make_namespace(context)
    reply = yield from ask(context, attempt(None))
    if isinstance(reply, ErrorReply) and reply.code == "COMMIT_UNSURE":
        raise StoreUnavailable(
            f"A reply for the workflow {workflow_id!r} was lost, and events since then have been trimmed: whether the "
            "commit was stored is not known, and it was not stored again. Read the workflow to see; with a commit_id "
            "of your own it would be known."
        )
    if isinstance(reply, ErrorReply):
        actual = int(reply.message)
        raise CursorConflict(
            f"The workflow {workflow_id!r} is at cursor {actual}, not at {expected}: somebody else has appended. "
            "Nothing was stored; read what is new and decide again.",
            expected=int(expected),
            actual=actual,
        )
    return int(reply)


def append_many(context: Context, items: Iterable[tuple[str, Iterable[Any]]]) -> Operation[list[int | StoreError]]:
    """Append a commit to each of many workflows, in one round trip; each one's cursor, or its own error."""
    pairs = _pairs(items)
    results: list[int | StoreError] = [0] * len(pairs)
    # One round trip carries one commit of each workflow, so that the order within a workflow holds whatever is retried.
    rounds: list[list[int]] = []
    appended: dict[Any, int] = {}
    for place, (workflow_id, _) in enumerate(pairs):
        turn = appended[workflow_id] = appended.get(workflow_id, -1) + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(place)
    if pairs:
        yield from make_namespace(context)
    for places in rounds:
        outcomes = yield from together([append(context, *pairs[place]) for place in places])
        for place, outcome in zip(places, outcomes, strict=True):
            results[place] = outcome
    return results


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
