"""Appending commits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from runic_redis.arguments import (
    MAX_ATTRIBUTES,
    check_commit_id,
    check_cursor,
    check_data,
    check_seconds,
    check_workflow_id,
)
from runic_redis.codec import MAX_METADATA_BYTES, EncodedEvents, Entry
from runic_redis.context import Context
from runic_redis.errors import CursorConflict, InvalidArgument, InvalidType, StoreError, StoreUnavailable, short_repr
from runic_redis.events import FactRef
from runic_redis.operations.facts import (
    crosses_slots,
    fact_arguments,
    fact_keys,
    fact_not_found,
    packed_refs,
    snapshot_facts,
    store_ahead,
)
from runic_redis.operations.leasing import Lease, check_lease, lease_argument, lease_keys, leased_reply, milliseconds
from runic_redis.operations.life import Life, without_tags
from runic_redis.operations.messages import cancel_requested, message_gone
from runic_redis.operations.queueing import completed_error
from runic_redis.operations.records import commits_lost
from runic_redis.operations.settings import make_namespace
from runic_redis.operations.tagging import Tagged
from runic_redis.operations.writing import write_all
from runic_redis.protocol.effects import Argument, Command, ErrorReply, Operation, Unconfirmed, own_id
from runic_redis.protocol.refusals import answer, not_durable
from runic_redis.protocol.scripts import load_script

# In place of the ID of an entry that the workflow is known to have.
_NONE_SEEN = b"1"
# A commit's first arguments, in lua/append.lua.
_HEAD = ("workflow_id", "commit_id", "tried", "time_us", "options")
_RETRY_AT = _HEAD.index("tried")
_OPTIONS_AT = _HEAD.index("options")


class Appended(NamedTuple):
    """A stored commit, as `append` returns it with ``details=True``.

    Attributes:
        cursor: the workflow's cursor after the commit.
        facts: the content hashes of the values in its events that were wrapped as `Fact`, in their order.
        position: the position in the feed of its partition after the commit. None if it has no events, if the namespace
            has no feed, or if an earlier call without ``details`` has stored the commit.
    """

    cursor: int
    facts: tuple[str, ...]
    position: int | None


def append(
    context: Context,
    workflow_id: str,
    events: Iterable[Any],
    *,
    expected_cursor: int | None = None,
    commit_id: str | bytes | None = None,
    metadata: Mapping[str, Any] | None = None,
    lease: Lease | None = None,
    snapshot: bytes | None = None,
    refs: Iterable[str | bytes | FactRef] | None = None,
    life: Life | None = None,
    details: bool = False,
) -> Operation[int | Appended]:
    """Append events to a workflow as one commit. Return the cursor after it, or with `details` the stored commit."""
    commit = event_list(events)
    if refs is not None and snapshot is None:
        raise InvalidArgument("refs tells the facts of a snapshot; nothing was sent. Pass the snapshot, too.")
    named = None if snapshot is None else snapshot_facts(snapshot, refs)
    # Whether the commit refers to the facts of its snapshot: the workflow did not refer to them all.
    refers = False
    while True:
        facts: dict[str, bytes] = dict(named or {}) if refers else {}
        keys = context.keys
        command = append_call(
            context,
            workflow_id,
            commit,
            facts,
            expected_cursor=expected_cursor,
            commit_id=commit_id,
            metadata=metadata,
            lease=lease,
            snapshot=snapshot,
            refs=named,
            life=life,
            details=details,
        )
        if command.size:
            yield from make_namespace(context)
            if context.keys is not keys:
                continue  # another store has created the namespace, with other settings
        if facts:
            for problem in (yield from store_ahead(context, facts)).values():
                raise problem
        (reply,) = yield from write_all(context, [command])
        # The first rejection tells that the server minds slots, and so that the facts must be stored ahead.
        if type(reply) is ErrorReply and crosses_slots(context, command, reply):
            continue
        if type(reply) is not ErrorReply or reply.code != "REFS_UNKNOWN":
            return appended(context, reply, command, facts) if details else cursor_after(context, reply, command)
        refers = True


def append_many(
    context: Context, items: Iterable[tuple[str, Iterable[Any]]], leases: Iterable[Lease] = ()
) -> Operation[list[int | StoreError]]:
    """Append a commit to each of many workflows, in one round trip. Return the cursor of each, or its own error."""
    held = _leases_by_workflow(leases)
    results: list[int | StoreError] = []
    commands: dict[int, Command] = {}
    referred: dict[int, dict[str, bytes]] = {}
    pairs = _pairs(items)
    keys = context.keys
    for place, (workflow_id, events) in enumerate(pairs):
        results.append(0)
        facts: dict[str, bytes] = {}
        try:
            commands[place] = append_call(context, workflow_id, events, facts, lease=held.get(workflow_id))
            referred[place] = facts
        except StoreError as error:
            results[place] = error
    if not commands:
        return results
    yield from make_namespace(context)
    if context.keys is not keys:
        return (yield from append_many(context, pairs, held.values()))
    for place, problem in (yield from store_all_ahead(context, referred)).items():
        del commands[place]
        results[place] = problem
    replies = yield from write_all(context, list(commands.values()))
    again = []
    for (place, command), reply in zip(commands.items(), replies, strict=True):
        if crosses_slots(context, command, reply):
            again.append(place)
            continue
        try:
            results[place] = cursor_after(context, reply, command)
        except StoreError as error:
            results[place] = error
    redone = yield from append_many(context, [pairs[place] for place in again], held.values())
    for place, result in zip(again, redone, strict=True):
        results[place] = result
    return results


def store_all_ahead(context: Context, referred: dict[int, dict[str, bytes]]) -> Operation[dict[int, StoreError]]:
    """Store the facts of many commits ahead, if that is needed. Return the error of each commit that failed."""
    together: dict[str, bytes] = {}
    for facts in referred.values():
        for fact_hash, data in facts.items():
            # One commit may have the value of a fact that another only refers to.
            together[fact_hash] = data or together.get(fact_hash, b"")
    problems = yield from store_ahead(context, together)
    return {
        place: found[0]
        for place, facts in referred.items()
        if (found := [problems[fact_hash] for fact_hash in facts if fact_hash in problems])
    }


def encode_events(context: Context, events: Iterable[Any]) -> EncodedEvents:
    """Return the events as `append` would encode them. Nothing is sent."""
    return context.codec.encode_events(event_list(events))


def _leases_by_workflow(leases: Iterable[Lease]) -> dict[str, Lease]:
    held = {}
    for lease in leases:
        check_lease(lease)
        held[lease.workflow_id] = lease
    return held


def append_call(
    context: Context,
    workflow_id: str,
    commit: Sequence[Any],
    facts: dict[str, bytes],
    *,
    expected_cursor: int | None = None,
    commit_id: str | bytes | None = None,
    metadata: Mapping[str, Any] | None = None,
    lease: Lease | None = None,
    snapshot: bytes | None = None,
    refs: Mapping[str, bytes] | None = None,
    life: Life | None = None,
    details: bool = False,
) -> Command:
    """Return the call that appends a commit, and add its facts to `facts`. Its size is 0 if it has no events."""
    workflow_id = check_workflow_id(workflow_id)
    if Tagged in map(type, commit):
        commit, life = without_tags(commit, life)
    about = b"" if metadata is None else _encode_metadata(context, metadata)
    entries = _entries(context, commit, facts)
    if context.observer is not None and commit:
        about = _with_observed(context, metadata, about, context.observer.sending(len(commit)))
    keys = context.keys.workflow(workflow_id)
    touched = [keys.events, keys.meta, keys.index, keys.partition]
    # The arguments by their letters, see lua/append.lua.
    options: dict[str, Argument] = {}
    if context.keys.has_feed and entries:
        options["p"] = str(sum(entry[0] for entry in entries))
        touched.append(keys.feed)
        if details:
            options["P"] = ""
    if commit_id is not None:
        options["c"] = own_id()
        touched.append(keys.commits)
    if expected_cursor is not None:
        options["e"] = str(check_cursor(expected_cursor, "expected_cursor"))
    if about:
        options["m"] = about
    size = 0
    further: Sequence[Argument] = ()
    if lease is not None or snapshot is not None or facts or not (life is None or life.is_plain):
        data = None if snapshot is None else _check_snapshot(snapshot, commit)
        size, further = _add_extras(
            context, workflow_id, options, touched, lease=lease, snapshot=data, refs=refs, facts=facts, life=life
        )
    tags = () if life is None else life.add_tags(options, touched, keys, has_events=bool(commit))
    if len(entries) != 1:
        options["n"] = str(len(entries))
    own = own_id() if commit_id is None else check_commit_id(commit_id)
    args: list[Argument] = [workflow_id, own, "", context.now_us(), "".join(options), *options.values()]
    for event_count, header, payload in entries:
        args += (str(event_count), header, payload)
        size += len(header) + len(payload)
    if facts:
        args += fact_arguments(context, facts)
    args += (*further, *tags)
    writes = commit_id is None and size > 0
    tried = context.seen.get(workflow_id, _NONE_SEEN)
    return Command(args, keys.events, load_script("append"), touched, _RETRY_AT, workflow_id, True, size, writes, tried)


def _add_extras(
    context: Context,
    workflow_id: str,
    options: dict[str, Argument],
    touched: list[str],
    *,
    lease: Lease | None,
    snapshot: bytes | None,
    refs: Mapping[str, bytes] | None,
    facts: dict[str, bytes],
    life: Life | None,
) -> tuple[int, Sequence[Argument]]:
    """Add the extras of a commit to its options and keys. Return their size in bytes, and the further arguments."""
    keys = context.keys.workflow(workflow_id)
    touched += lease_keys(context, workflow_id, lease)
    size = 0
    if lease is not None:
        options["l"] = lease_argument(lease, workflow_id)
    if life is not None:
        life.add_queue(options, touched, keys, is_known=lease is not None)
    if snapshot is not None:
        options["s"] = snapshot
        touched.append(keys.snapshot)
        size = len(snapshot)
    if refs is not None:
        options["k"] = packed = packed_refs(refs)
        size += len(packed)
    if facts:
        options["a" if context.slots_matter else "f"] = str(len(facts))
        touched += (keys.refs, *fact_keys(context, facts))
        size += sum(map(len, facts.values()))
    elif refs is not None:
        touched.append(keys.refs)
    if life is None:
        return size, ()
    ids = life.add_messages(options, touched, keys, workflow_id)
    if life.expires_in is not None:
        options["x"] = str(milliseconds(check_seconds(life.expires_in, "expires_in")))
        touched.append(keys.expiring)
    return size, [*ids, *life.add_labels(options, touched, keys)]


def _entries(context: Context, commit: Sequence[Any], facts: dict[str, bytes]) -> Sequence[Entry]:
    """Return the entries of a commit, and add its facts to `facts`."""
    if isinstance(commit, EncodedEvents):
        facts.update(commit.facts)
        return commit.entries
    return context.codec.encode_commit(commit, facts) if commit else []


def _check_snapshot(snapshot: Any, commit: Sequence[Any]) -> bytes:
    if not commit:
        raise InvalidArgument(
            "append saves a snapshot with events only; nothing was sent. Use save_snapshot to save it alone."
        )
    return check_data(snapshot)


def appended(context: Context, reply: Any, command: Command, facts: Mapping[str, bytes]) -> Appended:
    """Return a stored commit, from the reply to its call.

    Args:
        context: the store's.
        reply: the reply.
        command: the call.
        facts: the encoded fact by its hash; empty for a fact that the commit only refers to.

    Raises:
        StoreError: as by `cursor_after`.
    """
    position = b""
    unconfirmed = reply if isinstance(reply, Unconfirmed) else None
    raw = reply if unconfirmed is None else unconfirmed.reply
    if type(raw) is bytes:
        # The ID of an entry, or a cursor; and with a space between them, the position.
        stored, _, position = raw.partition(b" ")
        raw = stored if b"-" in stored else int(stored)
        reply = raw if unconfirmed is None else replace(unconfirmed, reply=raw)
    cursor = cursor_after(context, reply, command)
    return Appended(cursor, tuple([one for one in facts if facts[one]]), int(position) if position else None)


def cursor_after(context: Context, reply: Any, command: Command) -> int:
    """Return the cursor after a commit, from its reply: the ID of its last entry, or the cursor itself.

    Raises:
        StoreUnavailable: it is not known whether the commit was stored.
        StoreError: it was not stored.
    """
    workflow_id = command.workflow_id
    if type(reply) is bytes:
        context.note_seen(workflow_id, reply)
        return int(reply.partition(b"-")[0])
    if type(reply) is int:
        return reply
    if isinstance(reply, Unconfirmed):
        cursor = cursor_after(context, reply.reply, command)
        raise not_durable(
            reply,
            f"The commit of the workflow {workflow_id!r} up to its cursor {cursor}",
            f"Repeat it with the same commit id, or append nothing with expected_cursor={cursor},",
            cursor,
        )
    refusal = leased_reply(answer(reply, command), workflow_id)
    if refusal.code == "FACT_MISSING":
        raise fact_not_found(refusal.message)
    if refusal.code == "WORKFLOW_COMPLETED":
        raise completed_error(workflow_id, "claim")
    if refusal.code == "MESSAGE_GONE":
        raise message_gone(workflow_id, refusal.message)
    if refusal.code == "CANCEL_REQUESTED":
        raise cancel_requested(workflow_id)
    if refusal.code == "ALREADY_STARTED":
        raise InvalidArgument(
            f"parent belongs to the first commit of a workflow, and {workflow_id!r} has events. Nothing was stored. "
            "Leave the parent out, or use another workflow id. With expected_cursor=0, append tells whether the "
            "workflow is new."
        )
    if refusal.code == "TOO_MANY_ATTRIBUTES":
        raise InvalidArgument(
            f"The workflow {workflow_id!r} would have more than {MAX_ATTRIBUTES} attributes. Nothing was stored. Set "
            "one that you do not need to None."
        )
    if refusal.code == "COMMIT_UNSURE":
        raise StoreUnavailable(
            f"A reply for the workflow {workflow_id!r} was lost, and the events since then are trimmed or too many to "
            "search. It is not known whether the commit was stored, and it was not stored again. Read the workflow to "
            "see. With a commit_id or an expected_cursor, the store can tell."
        )
    options = str(command.args[_OPTIONS_AT])
    actual, expected = int(refusal.message), int(command.args[len(_HEAD) + options.index("e")])
    if actual < expected:
        raise commits_lost(workflow_id, expected, actual, "Nothing was stored.")
    raise CursorConflict(
        f"The workflow {workflow_id!r} is at cursor {actual}, not at {expected}: another writer has appended. "
        "Nothing was stored. Read the new events and decide again.",
        expected=expected,
        actual=actual,
    )


def _pairs(items: Iterable[tuple[str, Iterable[Any]]]) -> list[tuple[str, Sequence[Any]]]:
    """Return the items as pairs. A malformed list is an error of the whole call, not of one item."""
    if not isinstance(items, Iterable):
        raise InvalidType(f"items is a list of pairs, not a {type(items).__qualname__}; nothing was sent.")
    pairs: list[tuple[str, Sequence[Any]]] = []
    for place, item in enumerate(items):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InvalidType(
                f"items[{place}] is not a pair of a workflow id and its events: {short_repr(item)}; nothing was sent."
            )
        workflow_id, events = item
        pairs.append((check_workflow_id(workflow_id), event_list(events)))
    return pairs


def event_list(events: Any) -> Sequence[Any]:
    """Return the events of a commit as a sequence, which can be encoded more than once."""
    if isinstance(events, list | EncodedEvents):
        return events
    # A dict or a named tuple is one event, passed by mistake. Iterating it would append its parts.
    if isinstance(events, str | bytes | Mapping) or hasattr(events, "_fields") or not isinstance(events, Iterable):
        raise InvalidType(
            f"events is a list of events, not a {type(events).__qualname__}: write [event] for a single one; nothing "
            "was sent."
        )
    return list(events)


def _with_observed(
    context: Context, metadata: Mapping[str, Any] | None, about: bytes, added: Mapping[str, str]
) -> bytes:
    """Return encoded metadata with an observer's additions: never over the caller's, and none if they do not fit."""
    if not added:
        return about
    encoded = context.codec.encode_metadata({**added, **(metadata or {})})
    return encoded if len(encoded) <= MAX_METADATA_BYTES else about


def _encode_metadata(context: Context, metadata: Mapping[str, Any]) -> bytes:
    if type(metadata) is not dict:
        raise InvalidType(f"metadata is a dict, not a {type(metadata).__qualname__}; nothing was sent.")
    encoded = context.codec.encode_metadata(metadata)
    if len(encoded) > MAX_METADATA_BYTES:
        raise InvalidArgument(
            f"metadata takes {len(encoded)} bytes, and at most {MAX_METADATA_BYTES} are stored; nothing was sent."
        )
    return encoded
