"""Random access to a workflow: a page of its commits around a cursor or a time, samples along it, and its facts.

This is for people who look, not for programs that rebuild a state. A damaged entry is reported in its place, and the
rest is still shown. Trimmed and deleted events are simply absent.

Decoding may take a second, so it is a step apart: an operation reads, and returns a function that decodes. Both steps
are bounded, however far a few bytes expand.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from runic_redis.admin.describing import read_small_facts
from runic_redis.arguments import (
    MAX_CURSOR,
    check_count,
    check_cursor,
    check_hash,
    check_tag,
    check_workflow_id,
    is_cursor,
)
from runic_redis.codec import HEAD_BYTES, payload_size
from runic_redis.context import Context
from runic_redis.errors import DecodeError, FactNotFound, StoreError
from runic_redis.operations.entry_fields import tags_field
from runic_redis.operations.records import DecodedEntry, cursor_or_zero, decode_commit, entry_cursor
from runic_redis.protocol.effects import Operation, key_command
from runic_redis.protocol.refusals import ask, ask_all

_LAST_MS = 2**64 - 1
# Read at most this much of a workflow in one operation, if all entries are as large as the largest.
_MOST_BYTES = 8 * 1024 * 1024
# Do not decode a larger entry or fact: its objects could take a gigabyte, and nobody reads them on a page. The store
# splits larger commits, so such an entry is a single event.
_LARGEST_DECODED = 2 * 1024 * 1024
# A page ends before it decodes more than this.
_MOST_DECODED = _LARGEST_DECODED
# The assumed size of entries where the workflow's record of its largest entry is damaged.
_LIKELY_BYTES = 1024 * 1024
# A preview of a fact decodes at most this much, both as stored and decompressed. A page has at most hundreds of them.
_LARGEST_PREVIEW = 4 * 1024
# Samples decode at most about this many events.
_MOST_SAMPLED = 20_000


class Shown(NamedTuple):
    """An entry of a workflow's stream: a commit, or a part of a large one.

    Attributes:
        end: the cursor after the entry.
        commit_id: the id of the commit; b"" if the id is damaged.
        commit: the decoded commit; None if it is damaged. In an entry that is too large, the event has a type and no
            fields.
        problem: a description of the damage; "" if there is none.
        size: the bytes that the entry holds, decompressed.
        is_too_large: whether the event is too large to be decoded.
        tags: the tags of the commit, in its last entry; none if they are damaged.
    """

    end: int
    commit_id: bytes
    commit: DecodedEntry | None
    problem: str
    size: int
    is_too_large: bool
    tags: tuple[str, ...] = ()


class Page(NamedTuple):
    """A part of a workflow.

    Attributes:
        entries: the newest first. The first and the last may have more events than requested.
        older: whether there are older entries.
        newer: whether there are newer entries.
    """

    entries: list[Shown]
    older: bool
    newer: bool


class KeptFact(NamedTuple):
    """A fact.

    Attributes:
        value: the value; None if it is too large.
        size: the bytes of the fact.
        is_too_large: whether the fact is too large to be decoded and checked against its hash.
    """

    value: Any
    size: int
    is_too_large: bool


def page(
    context: Context, workflow_id: str, *, upto: int | None = None, after: int | None = None, count: int = 100
) -> Operation[Callable[[], Page]]:
    """Read some of a workflow's entries, and return a function that decodes them, the newest first.

    Args:
        context: the store's.
        workflow_id: the workflow.
        upto: read down from the event with this cursor.
        after: or read up from the event after this cursor. Without either, read down from the newest event.
        count: read this many events, or fewer if they are large. The last entry may have more.
    """
    keys = context.keys.workflow(check_workflow_id(workflow_id))
    count = check_count(count, "count")
    low, high = check_cursor(after or 0, "after"), MAX_CURSOR if upto is None else check_cursor(upto, "upto")
    largest = yield from ask(key_command("HGET", keys.meta, "largest"))
    # One more entry tells whether there are more.
    wanted = max(1, min(count, _MOST_BYTES // _entry_bytes(largest))) + 1
    if after is not None:
        found, behind = yield from ask_all(
            [
                key_command("XRANGE", keys.events, f"{low + 1}-0", "+", "COUNT", str(wanted)),
                key_command("XREVRANGE", keys.events, f"{low}-{_LAST_MS}", "-", "COUNT", "1"),
            ]
        )
    else:
        # The commit that holds the event may end after it.
        above, below = yield from ask_all(
            [
                key_command("XRANGE", keys.events, f"{high}-0", "+", "COUNT", "2"),
                key_command("XREVRANGE", keys.events, f"{max(high, 1) - 1}-{_LAST_MS}", "-", "COUNT", str(wanted)),
            ]
        )
        found, behind = [*above[:1], *below], above[1:]

    def decode() -> Page:
        shown: list[Shown] = []
        left, room = count, _MOST_DECODED
        for entry in found[: wanted - 1]:
            room -= _decoded_bytes(entry)
            if left <= 0 or room < 0:
                break
            one = _shown(context, workflow_id, entry)
            shown.append(one)
            left -= max(1, min(one.end, high) - max(one.commit.start, low)) if one.commit else 1
        beyond = len(shown) < len(found)
        if after is not None:
            return Page(shown[::-1], bool(behind), beyond)
        return Page(shown, beyond, bool(behind))

    return decode


def samples(context: Context, workflow_id: str, count: int) -> Operation[Callable[[], list[DecodedEntry]]]:
    """Read commits at even distances, and return a function that decodes them, from the oldest to the newest.

    Damaged commits are left out. A workflow of few commits is read whole.

    Args:
        context: the store's.
        workflow_id: the workflow.
        count: read at most this many commits, and fewer if they are large.
    """
    keys = context.keys.workflow(check_workflow_id(workflow_id))
    found = yield from ask(key_command("HMGET", keys.meta, "cursor", "trimmed", "largest"))
    last, trimmed = map(cursor_or_zero, found[:2])
    count = max(1, min(check_count(count, "count"), _MOST_BYTES // _entry_bytes(found[2]), last - trimmed))
    places = sorted({trimmed + 1 + (last - trimmed - 1) * number // max(1, count - 1) for number in range(count)})
    commands = [key_command("XRANGE", keys.events, f"{place}-0", "+", "COUNT", "1") for place in places]
    replies = yield from ask_all(commands)
    entries = list({entry[0]: entry for reply in replies for entry in reply}.values())
    # Both ends first, then ever finer halves, so samples cover the whole workflow wherever decoding stops.
    newest = len(entries) - 1
    coarse_to_fine = sorted(
        range(len(entries)), key=lambda place: (place == newest, place & -place or len(entries)), reverse=True
    )

    def decode() -> list[DecodedEntry]:
        taken: dict[int, DecodedEntry] = {}
        events, room = 0, _MOST_DECODED
        for place in coarse_to_fine:
            room -= _decoded_bytes(entries[place])
            if events >= _MOST_SAMPLED or room < 0:
                break
            commit = _shown(context, workflow_id, entries[place]).commit
            if commit is not None:
                taken[place] = commit
                events += len(commit.events)
        return [commit for _, commit in sorted(taken.items())]

    return decode


def cursor_at(context: Context, workflow_id: str, time: datetime) -> Operation[int]:
    """Return the cursor of the last event that was stored by a time, or the cursor where the trimmed events end.

    A binary search: it reads one entry for each doubling of the number of events.
    """
    keys = context.keys.workflow(check_workflow_id(workflow_id))
    high, low = map(cursor_or_zero, (yield from ask(key_command("HMGET", keys.meta, "cursor", "trimmed"))))
    while low < high:
        middle = (low + high + 1) // 2
        found = yield from ask(key_command("XRANGE", keys.events, f"{middle}-0", "+", "COUNT", "1"))
        if found and int(found[0][0].partition(b"-")[2]) <= time.timestamp() * 1000:
            low = entry_cursor(found[0], keys.events)
        else:
            high = middle - 1
    return low


def tag_cursors(context: Context, workflow_id: str, tags: Sequence[str], most: int) -> Operation[list[list[int]]]:
    """Return, for each tag, the cursors after the commits that carry it: the newest first.

    Args:
        context: the store's.
        workflow_id: the workflow.
        tags: the tags.
        most: how many cursors to return of each tag.
    """
    key = context.keys.workflow(check_workflow_id(workflow_id)).tags
    # No UTF-8 text has the byte 0xff.
    ranges = [(b"(" + tag + b"\0\xff", b"[" + tag + b"\0") for tag in map(check_tag, tags)]
    replies = yield from ask_all(
        [key_command("ZREVRANGEBYLEX", key, *between, "LIMIT", "0", str(most)) for between in ranges]
    )
    return [[int(member.rpartition(b"\0")[2]) for member in members] for members in replies]


def has_events(context: Context, workflow_id: str, tag_prefix: str, type_name: str) -> Operation[bool]:
    """Return whether the last commit with a tag of this prefix has events of a type. It is not decoded."""
    keys = context.keys.workflow(check_workflow_id(workflow_id))
    prefix = check_tag(tag_prefix)
    found = yield from ask(
        key_command("ZREVRANGEBYLEX", keys.tags, b"(" + prefix + b"\xff", b"[" + prefix, "LIMIT", "0", "1")
    )
    if not found:
        return False
    cursor = int(found[0].rpartition(b"\0")[2])
    entries = yield from ask(key_command("XRANGE", keys.events, f"{cursor}-0", "+", "COUNT", "1"))
    # The header of an entry names the types of its events.
    return any(type_name.encode() in entry[1][0] for entry in entries)


def fact(context: Context, fact_hash: str) -> Operation[Callable[[], KeptFact]]:
    """Read a fact, and return a function that checks it against its hash and decodes it.

    Args:
        context: the store's.
        fact_hash: its hash.

    Raises:
        FactNotFound: the fact is not stored.
    """
    raw = check_hash(fact_hash)
    bucket = context.keys.fact(raw)[0]
    stored = yield from ask(key_command("HSTRLEN", bucket, raw))
    if stored > _MOST_BYTES:
        return partial(KeptFact, None, stored, is_too_large=True)
    data = yield from ask(key_command("HGET", bucket, raw))
    if data is None:
        raise FactNotFound(f"No fact is stored under {fact_hash!r:.100}. Check the hash.", hashes=[fact_hash])
    return partial(_fact, context, raw, data, _LARGEST_DECODED)


def fact_previews(context: Context, fact_hashes: Sequence[str]) -> Operation[Callable[[], dict[str, KeptFact]]]:
    """Read the small ones of some facts, and return a function that decodes them.

    Args:
        context: the store's.
        fact_hashes: their hashes.

    Returns:
        A function that returns the facts by hash. Those of more than 4 KiB have a size and no value. Facts that are
        missing or damaged are left out.
    """
    stored = yield from read_small_facts(context, fact_hashes, _LARGEST_PREVIEW)

    def decode() -> dict[str, KeptFact]:
        found: dict[str, KeptFact] = {}
        for raw, size, data in stored:
            if data is not None:
                with suppress(DecodeError):
                    found[raw.decode()] = _fact(context, raw, data, _LARGEST_PREVIEW)
            elif size > _LARGEST_PREVIEW:
                found[raw.decode()] = KeptFact(None, size, is_too_large=True)
        return found

    return decode


def _fact(context: Context, raw: bytes, data: bytes, most: int) -> KeptFact:
    size = _expanded(data[HEAD_BYTES:])
    if size > most:
        return KeptFact(None, size, is_too_large=True)
    try:
        return KeptFact(context.codec.decode_fact(raw, data), size, is_too_large=False)
    except DecodeError as error:
        raise DecodeError(f"The fact {raw!r} is damaged: {error}. Nothing was changed.") from error


def _expanded(payload: bytes) -> int:
    """Return the size of a payload, decompressed; 0 if it is damaged, as decoding then raises the error."""
    try:
        return payload_size(payload)
    except Exception:  # any error of the compression
        return 0


def _entry_bytes(largest: bytes | None) -> int:
    """Return the most bytes that an entry of a workflow takes, by its record of the largest; 1 if all are small."""
    if largest is None:
        return 1
    return max(1, int(largest)) if is_cursor(largest) else _LIKELY_BYTES


def _size(entry: Sequence[Any]) -> int:
    """Return the bytes that an entry holds, decompressed."""
    fields: Sequence[bytes] = entry[1] or ()
    return sum(map(len, fields)) + (_expanded(fields[1]) - len(fields[1]) if len(fields) > 1 else 0)


def _decoded_bytes(entry: Sequence[Any]) -> int:
    size = _size(entry)
    return size if size <= _LARGEST_DECODED else 0


def _shown(context: Context, workflow_id: str, entry: Sequence[Any]) -> Shown:
    end = entry_cursor(entry, context.keys.workflow(workflow_id).events)
    fields: Sequence[Any] = entry[1] or ()
    commit_id = bytes(fields[3]) if len(fields) > 3 else b""
    size = _size(entry)
    is_too_large = size > _LARGEST_DECODED
    try:
        if is_too_large:
            # An event of the same type without fields stands in, so the time and the metadata can be decoded.
            stand_in = context.codec.encode_commit([context.codec.stand_in_event(fields[0])])[0]
            entry = (entry[0], [stand_in.header, stand_in.payload, *fields[2:]])
        commit = decode_commit(context, workflow_id, entry, with_records=True)
    except StoreError as error:
        return Shown(end, commit_id, None, str(error), size, is_too_large)
    tags: tuple[str, ...] = ()
    with suppress(ValueError):
        tags = tuple(tag.decode() for tag in tags_field(fields))
    return Shown(end, commit_id, commit, "", size, is_too_large, tags)
