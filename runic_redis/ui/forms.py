"""The JSON forms of what a store holds: commits, events, facts and the graph, cut to what a browser can show."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from runic_redis.admin.browsing import KeptFact, Page, Shown
from runic_redis.errors import DecodeError, WorkflowNotFound
from runic_redis.events.plain import event_fields, int_text, json_text, to_json
from runic_redis.operations.records import DecodedEntry
from runic_redis.ui.bounds import json_size, short, short_event, short_type, short_value
from runic_redis.ui.graph import PREVIEW, fact_graph

# The graph covers at most this many events, and shows at most this many nodes.
GRAPH_EVENTS = 1000
_GRAPH_NODES = 240
# A value whose JSON is longer than this is not sent to a browser.
_LONGEST = 2 * 1024 * 1024
# The same for metadata: of each commit of a page, and of a single event.
# How many tags of a commit a list shows.
_MOST_TAGS = 20
_LONGEST_IN_LIST = 8 * 1024
_LONGEST_METADATA = 256 * 1024
# A filter by text compares this many characters of an event.
_SEARCHED = 4096
# JavaScript's numbers are doubles, so a larger int is sent as text.
_LARGEST_DOUBLE_INT = 2**53


class Filter(NamedTuple):
    """The events that a time line shows.

    Attributes:
        type: the name of their type; "" for any.
        containing: a text that the first 4096 characters of their fields contain, in upper or lower case; "" for any.
    """

    type: str = ""
    containing: str = ""

    @property
    def is_open(self) -> bool:
        """Whether every event passes."""
        return not self.type and not self.containing

    def passes(self, event: Any) -> bool:
        """Whether an event is to be shown."""
        if self.type and short_type(event) != self.type:
            return False
        return self.containing.casefold() in short_event(event, _SEARCHED).casefold()


def sample_form(commit: DecodedEntry) -> dict[str, Any]:
    """Return the form of a commit that stands for its surroundings: how many events it has of which type."""
    return {
        "start": commit.start,
        "end": commit.end,
        "time": commit.time,
        "types": dict(Counter(map(short_type, commit.events))),
    }


def time_line_form(found: Page, upto: int | None, after: int | None, limit: int, wanted: Filter) -> dict[str, Any]:
    """Return the form of a page of a time line.

    Args:
        found: the page as it was read.
        upto: the highest cursor to show; None for all.
        after: the cursor below the lowest one to show; with it, the page fills up from there.
        limit: stop after this many events. With a filter, the last commit may add more.
        wanted: the filter.

    Returns:
        the commits with the events that pass; the cursors of the first and last event that were compared; and whether
        there are older and newer ones.
    """
    rising = after is not None
    low, high = (after, None) if after is not None else (0, upto)
    commits: list[dict[str, Any]] = []
    left = limit
    # Start at the end where the page begins, and stop where it is full.
    entries = found.entries[::-1] if rising else found.entries
    for entry in entries:
        if left <= 0:
            break
        most = left if wanted.is_open else GRAPH_EVENTS * limit
        commits.append(_commit(entry, low, high, most, wanted, newest=not rising))
        left -= len(commits[-1]["events"]) or int(wanted.is_open)
    if rising:
        commits.reverse()
    cut = len(commits) < len(entries)
    older, newer = found.older or (cut and not rising), found.newer or (cut and rising)
    if commits:
        older = older or commits[-1]["below"]
        newer = newer or commits[0]["above"]
    # Where the wanted events are trimmed, the next commit that exists holds none of them.
    cursors = [cursor for one in commits if one["first"] <= one["last"] for cursor in (one["first"], one["last"])]
    reach = {"first": min(cursors, default=0), "last": max(cursors, default=0)}
    shown = [commit for commit in commits if commit["events"] or commit["problem"]]
    return {"commits": shown, **reach, "older": older, "newer": newer}


def event_form(found: Page, workflow_id: str, cursor: int) -> dict[str, Any]:
    """Return the form of a single event, whole.

    Raises:
        WorkflowNotFound: there is no such event.
    """
    entry = found.entries[0] if found.entries else None
    if entry is not None and entry.problem:
        return {"workflow": workflow_id, "cursor": cursor, "problem": entry.problem}
    if entry is None or entry.commit is None or not entry.commit.start < cursor <= entry.commit.end:
        raise WorkflowNotFound(f"There is no event {cursor} of the workflow {workflow_id!r}.", workflow_id=workflow_id)
    commit = entry.commit
    event = commit.events[cursor - commit.start - 1]
    fields = _too_long(entry.size) if entry.is_too_large else _value(dict(event_fields(event)), _LONGEST)
    return {
        "workflow": workflow_id,
        "cursor": cursor,
        "problem": "",
        "time": commit.time,
        "type": short_type(event),
        "commit": {"id": entry.commit_id.hex(), "start": commit.start, "end": commit.end},
        "fields": fields,
        "metadata": _value(commit.metadata, _LONGEST_METADATA) if commit.metadata else None,
    }


def graph_form(found: Page, upto: int | None) -> dict[str, Any]:
    """Return the form of the graph of a page's facts, up to a cursor."""
    records = [
        record
        for entry in reversed(found.entries)
        if entry.commit is not None
        for record in entry.commit.records(entry.commit.events, entry.commit.start)
        if upto is None or record.cursor <= upto
    ]
    older = found.older or len(records) > GRAPH_EVENTS
    records = records[-GRAPH_EVENTS:]
    graph = fact_graph(records, _GRAPH_NODES)
    reach = {"first": records[0].cursor, "last": records[-1].cursor} if records else {"first": 0, "last": 0}
    return {**graph, **reach, "older": older}


def add_previews(graph: dict[str, Any], facts: dict[str, KeptFact]) -> dict[str, Any]:
    """Add to each fact's node the beginning of its value as `text`, or its size where it is too large to preview."""
    for node in graph["nodes"]:
        found = facts.get(node.get("hash", ""))
        if found is not None:
            node["text"] = f"{found.size} bytes" if found.is_too_large else short_value(found.value, PREVIEW)
    return graph


def fact_form(fact_hash: str, decode: Callable[[], KeptFact]) -> dict[str, Any]:
    """Return the form of a fact; of a damaged one, its problem."""
    try:
        found = decode()
    except DecodeError as error:
        return {"hash": fact_hash, "problem": str(error)}
    value = _too_long(found.size) if found.is_too_large else _value(found.value, _LONGEST)
    return {"hash": fact_hash, "problem": "", "checked": not found.is_too_large, "value": value}


def _commit(entry: Shown, low: int, high: int | None, most: int, wanted: Filter, *, newest: bool) -> dict[str, Any]:
    """Return a commit with the events of a range that pass, and whether others are below or above the range.

    At most `most` events of the range are compared: the newest ones, or else the oldest ones.
    """
    if entry.commit is None:
        bounds = {"start": entry.end, "end": entry.end, "first": entry.end, "last": entry.end}
        return {"id": "", **bounds, "problem": entry.problem, "events": [], "below": False, "above": False}
    commit = entry.commit
    first, last = max(commit.start, low) + 1, commit.end if high is None else min(commit.end, high)
    if newest:
        first = max(first, last - most + 1)
    else:
        last = min(last, first + most - 1)
    events = commit.events[first - commit.start - 1 : max(0, last - commit.start)]
    shown = commit.records(events, first - 1)
    return {
        "id": entry.commit_id.hex(),
        "start": commit.start,
        "end": commit.end,
        "first": first,
        "last": last,
        "time": commit.time,
        "metadata": _metadata_texts(commit),
        "tags": _tag_texts(entry.tags),
        "problem": "",
        "events": [
            {
                "cursor": record.cursor,
                "type": short_type(record.event),
                "text": f"{entry.size} bytes" if entry.is_too_large else short_event(record.event),
            }
            for record in reversed(shown)
            if wanted.is_open or wanted.passes(record.event)
        ],
        "below": first > commit.start + 1,
        "above": last < commit.end,
    }


def _metadata_texts(commit: DecodedEntry) -> dict[str, str]:
    """Return a text for each item of a commit's metadata, or its size if it is long."""
    size = json_size(commit.metadata, _LONGEST_IN_LIST)
    if size > _LONGEST_IN_LIST:
        return {"metadata": f"about {size} characters"}
    items = (commit.metadata or {}).items()
    return {name: short(value) if type(value) is str else short_value(value) for name, value in items}


def _tag_texts(tags: Sequence[str]) -> list[str]:
    """Return the tags of a commit, or the first of many and the number of the others."""
    more = len(tags) - _MOST_TAGS
    return [*tags[:_MOST_TAGS], *([f"and {more} more"] if more > 0 else [])]


def _value(value: Any, most: int) -> dict[str, Any]:
    """Return a value for the tree view, and its JSON to the last digit; neither, if its JSON is longer than `most`."""
    # The estimate spares making JSON that would not be sent.
    size = json_size(value, 2 * most)
    if size > 2 * most:
        return _too_long(size)
    form = to_json(value)
    text = json_text(form)
    if len(text) > most:
        return _too_long(len(text))
    return {"value": _exact(form), "json": text, "length": len(text)}


def _too_long(size: int) -> dict[str, Any]:
    return {"value": None, "json": "", "length": size}


def _exact(value: Any) -> Any:
    """Return JSON whose numbers JavaScript writes as Python does; other numbers become tagged texts.

    JavaScript has doubles only. It writes 2.0 as 2, -0.0 as 0, and other exponents than Python.
    """
    if type(value) is int and abs(value) > _LARGEST_DOUBLE_INT:
        return {"$int": int_text(value)}
    if type(value) is float and (value.is_integer() or "e" in repr(value)):
        return {"$float": repr(value)}
    if type(value) is list:
        return [_exact(part) for part in value]
    if type(value) is dict:
        return {name: _exact(part) for name, part in value.items()}
    return value
