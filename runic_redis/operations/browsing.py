"""Looking into a workflow anywhere: a page of its commits around a cursor, or samples of them all along it.

For people who look, not for programs that rebuild a state by it: what is damaged is told where it stands, and does not
keep the rest from being seen; what is gone is not there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from runic_redis.arguments import MAX_CURSOR, check_count, check_cursor, check_workflow_id
from runic_redis.context import Context
from runic_redis.errors import DecodeError
from runic_redis.operations.asking import ask, ask_all
from runic_redis.operations.effects import Command, Operation
from runic_redis.operations.records import Commit, decode_commit, entry_cursor, read_cursor

__all__ = ["Page", "Shown", "page", "samples"]

_LAST_MS = 2**64 - 1
# How much of a workflow is read at once, if all its entries are as large as the largest.
_MOST_BYTES = 8 * 1024 * 1024
# How many events are looked into for samples of all.
_MOST_SAMPLED = 20_000


class Shown(NamedTuple):
    """An entry of a workflow's stream: a commit, or a part of a large one.

    Attributes:
        end: the cursor after it.
        commit_id: the id of its commit; b"" if that cannot be read.
        commit: what it says; None if it is damaged.
        problem: how it is damaged; "" if it is not.
    """

    end: int
    commit_id: bytes
    commit: Commit | None
    problem: str


class Page(NamedTuple):
    """A part of a workflow.

    Attributes:
        entries: the newest first; the first and the last may have more events than were asked for.
        older: whether there are older ones.
        newer: whether there are newer ones.
    """

    entries: list[Shown]
    older: bool
    newer: bool


def page(
    context: Context, workflow_id: str, *, upto: int | None = None, after: int | None = None, count: int = 100
) -> Operation[Page]:
    """Some of a workflow's entries, the newest first.

    Args:
        context: the store's.
        workflow_id: the workflow.
        upto: those down from the event with this cursor.
        after: or else those up from the event behind this cursor. Without either, the newest.
        count: with this many events, as far as they are there and not large; the last entry may have more.
    """
    keys = context.keys.workflow(check_workflow_id(workflow_id))
    count = check_count(count, "count")
    low, high = check_cursor(after or 0, "after"), MAX_CURSOR if upto is None else check_cursor(upto, "upto")
    largest = yield from ask(Command(("HGET", keys.meta, "largest"), keys.meta))
    # One more, to know whether there is more.
    wanted = max(1, min(count, _MOST_BYTES // max(1, read_cursor(largest, keys.meta)))) + 1
    if after is not None:
        found, behind = yield from ask_all(
            [
                Command(("XRANGE", keys.events, f"{low + 1}-0", "+", "COUNT", str(wanted)), keys.events),
                Command(("XREVRANGE", keys.events, f"{low}-{_LAST_MS}", "-", "COUNT", "1"), keys.events),
            ]
        )
    else:
        # The commit that holds the event may end after it.
        above, below = yield from ask_all(
            [
                Command(("XRANGE", keys.events, f"{high}-0", "+", "COUNT", "2"), keys.events),
                Command(
                    ("XREVRANGE", keys.events, f"{max(high, 1) - 1}-{_LAST_MS}", "-", "COUNT", str(wanted)), keys.events
                ),
            ]
        )
        found, behind = [*above[:1], *below], above[1:]
    shown: list[Shown] = []
    left = count
    for entry in found[: wanted - 1]:
        if left <= 0:
            break
        one = _shown(context, workflow_id, entry)
        shown.append(one)
        left -= max(1, min(one.end, high) - max(one.commit.start, low)) if one.commit else 1
    beyond = len(shown) < len(found)
    if after is not None:
        return Page(shown[::-1], bool(behind), beyond)
    return Page(shown, beyond, bool(behind))


def samples(context: Context, workflow_id: str, count: int) -> Operation[list[Commit]]:
    """Commits at even distances, from the oldest that is there to the newest; all of them, if they are few.

    Args:
        context: the store's.
        workflow_id: the workflow.
        count: at most this many, and fewer if they hold much. What is damaged is left out.
    """
    keys = context.keys.workflow(check_workflow_id(workflow_id))
    found = yield from ask(Command(("HMGET", keys.meta, "cursor", "trimmed", "largest"), keys.meta))
    last, trimmed, largest = (read_cursor(value, keys.meta) for value in found)
    count = max(1, min(check_count(count, "count"), _MOST_BYTES // max(1, largest), last - trimmed))
    places = sorted({trimmed + 1 + (last - trimmed - 1) * number // max(1, count - 1) for number in range(count)})
    commands = [Command(("XRANGE", keys.events, f"{place}-0", "+", "COUNT", "1"), keys.events) for place in places]
    replies = yield from ask_all(commands)
    entries = list({entry[0]: entry for reply in replies for entry in reply}.values())
    # Both ends, then every other of them, then every other of the rest: wherever it stops, all of it is covered.
    newest = len(entries) - 1
    coarse_to_fine = sorted(
        range(len(entries)), key=lambda place: (place == newest, place & -place or len(entries)), reverse=True
    )
    taken: dict[int, Commit] = {}
    events = 0
    for place in coarse_to_fine:
        commit = _shown(context, workflow_id, entries[place]).commit
        if commit is not None:
            taken[place] = commit
            events += len(commit.events)
        if events >= _MOST_SAMPLED:
            break
    return [commit for _, commit in sorted(taken.items())]


def _shown(context: Context, workflow_id: str, entry: Sequence[Any]) -> Shown:
    end = entry_cursor(entry, context.keys.workflow(workflow_id).events)
    fields: Sequence[Any] = entry[1] or ()
    commit_id = bytes(fields[3]) if len(fields) > 3 else b""
    try:
        return Shown(end, commit_id, decode_commit(context, workflow_id, entry, with_records=True), "")
    except DecodeError as error:
        return Shown(end, commit_id, None, str(error))
