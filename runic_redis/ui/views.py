"""The JSON that the page is made of. Times are ISO 8601; values of events are in the form of docs/operating.md."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from datetime import datetime
from math import isnan
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from runic_redis import __version__
from runic_redis.admin.browsing import KeptFact, Page, Shown, fact, fact_previews, page, samples
from runic_redis.admin.describing import count_unfinished, count_workflows, describe, describe_one
from runic_redis.aio import AsyncRedisStore
from runic_redis.errors import DecodeError, InvalidArgument, WorkflowNotFound
from runic_redis.events.plain import event_fields, int_text, json_text, to_json
from runic_redis.operations.listing import Listing, Place
from runic_redis.operations.namespace import memory_of
from runic_redis.operations.records import Commit
from runic_redis.ui.bounds import json_size, short_event, short_type, short_value
from runic_redis.ui.graph import PREVIEW, fact_graph
from runic_redis.ui.live import Live

__all__ = ["Views"]

_MOST_WORKFLOWS = 200
_MOST_EVENTS = 500
_SAMPLES = 160
# The graph is of so many events, and shows so many nodes.
_GRAPH_EVENTS = 1000
_GRAPH_NODES = 240
# A value that is longer than this, as JSON, is not sent to a browser.
_LONGEST = 2 * 1024 * 1024
# And metadata: with each commit of a page, and with a single event.
_LONGEST_IN_LIST = 8 * 1024
_LONGEST_METADATA = 256 * 1024
# So many answers are made at once. Python runs one thread at a time: with more, the event loop would wait for its turn.
_AT_ONCE = 2
# JavaScript's numbers are doubles: an int beyond this goes as text.
_EXACT = 2**53

T = TypeVar("T")


class Views:
    """What each address answers.

    Args:
        store: the store, to which every event is without its class.
        live: the watch over it.
    """

    def __init__(self, store: AsyncRedisStore, live: Live) -> None:
        self._store = store
        self._context = store.context
        self._live = live
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def _in_thread(self, make: Callable[[], T]) -> T:
        """Return the result of a function that decodes. It may take a second, so it runs off the event loop."""
        async with self._turns:
            return await asyncio.to_thread(make)

    async def _answer(self, make: Callable[[], Any]) -> Response:
        """Answer with the result of a function that decodes."""
        return await self._in_thread(lambda: answer(make()))

    async def summary(self, _: Request) -> Response:
        """The store, and how many workflows it has."""
        counts = await self._store.run(count_workflows(self._context), "count_workflows")
        label = self._store.url
        return answer(
            {
                "version": __version__,
                "server": label,
                "namespace": self._context.keys.namespace,
                "partitions": len(counts),
                "workflows": sum(counts),
                "unfinished": await self._store.run(count_unfinished(self._context), "count_unfinished"),
            }
        )

    async def workflows(self, request: Request) -> Response:
        """A page of the workflows, the one written to last first."""
        part = request.query_params.get("containing", "")
        limit = _number(request, "limit", 50, _MOST_WORKFLOWS) or 50
        below = _place(request.query_params.get("before"))
        listing = Listing(self._context, containing=part, limit=limit, below=below)
        ids = await self._listed(listing)
        found = await self._store.run(describe(self._context, ids), "describe") if ids else []
        more = len(ids) == limit and await self._listed(
            Listing(self._context, containing=part, limit=1, below=listing.last)
        )
        return answer(
            {
                "workflows": [asdict(one) for one in found],
                "next": ":".join(map(str, listing.last)) if more and listing.last else None,
            }
        )

    async def _listed(self, listing: Listing) -> list[str]:
        ids: list[str] = []
        while page_ := await self._store.run(listing.next_page(), "list"):
            ids += page_
        return ids

    async def workflow(self, request: Request) -> Response:
        """What is kept of a workflow."""
        return answer(asdict(await self._store.run(describe_one(self._context, _id(request)), "describe")))

    async def memory(self, request: Request) -> Response:
        """How many bytes of the server's memory a workflow takes, by kind of key."""
        return answer(await self._store.run(memory_of(self._context, _id(request)), "memory_usage"))

    async def overview(self, request: Request) -> Response:
        """Some of a workflow's commits, at even distances along it."""
        decode = await self._store.run(samples(self._context, _id(request), _SAMPLES), "browse")
        return await self._answer(lambda: {"samples": [_sample(one) for one in decode()]})

    async def events(self, request: Request) -> Response:
        """A page of a workflow's commits, the newest first, with their events in a line each."""
        limit = _number(request, "limit", 100, _MOST_EVENTS) or 100
        upto, after = _number(request, "upto"), _number(request, "after")
        decode = await self._store.run(page(self._context, _id(request), upto=upto, after=after, count=limit), "browse")
        return await self._answer(lambda: _time_line(decode(), upto, after, limit))

    async def event(self, request: Request) -> Response:
        """An event, whole."""
        workflow_id, cursor = _id(request), _number(request, "cursor") or 0
        decode = await self._store.run(page(self._context, workflow_id, upto=cursor, count=1), "browse")
        return await self._answer(lambda: _event(decode(), workflow_id, cursor))

    async def graph(self, request: Request) -> Response:
        """What made which fact, in the events up to a cursor."""
        workflow_id, upto = _id(request), _number(request, "upto")
        decode = await self._store.run(page(self._context, workflow_id, upto=upto, count=_GRAPH_EVENTS), "browse")
        graph = await self._in_thread(lambda: _graph(decode(), upto))
        hashes = [node["hash"] for node in graph["nodes"] if "hash" in node]
        decode_facts = await self._store.run(fact_previews(self._context, hashes), "browse")
        return await self._answer(lambda: _with_previews(graph, decode_facts()))

    async def fact(self, request: Request) -> Response:
        """The value of a fact, checked against its hash."""
        fact_hash = request.query_params.get("hash", "")
        decode = await self._store.run(fact(self._context, fact_hash), "browse")
        return await self._answer(lambda: _fact(fact_hash, decode))

    async def live(self, request: Request) -> Response:
        """What comes, as server-sent events."""
        # Keeps what stands between from holding words back.
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(request), media_type="text/event-stream", headers=headers)

    async def _stream(self, request: Request) -> AsyncIterator[str]:
        async for word in self._live.follow(request.query_params.get("id")):
            yield f"data: {json.dumps(word)}\n\n"


def answer(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(json.dumps(value, default=_json_form), status, media_type="application/json")


def _json_form(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def _id(request: Request) -> str:
    return request.query_params.get("id", "")


def _number(request: Request, name: str, default: int | None = None, most: int = 2**62) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise InvalidArgument(f"{name} is a number up to {most}, not {text!r:.80}.")
    return int(text)


def _place(text: str | None) -> Place | None:
    """Where a page of workflows ends, as it was given as the `next`."""
    if text is None:
        return None
    time_us, _, rest = text.partition(":")
    partition, _, workflow_id = rest.partition(":")
    try:
        place = Place(float(time_us), int(partition), workflow_id)
    except ValueError as error:
        raise InvalidArgument(f"before is the 'next' of another page, not {text!r:.80}.") from error
    if isnan(place.time_us):
        raise InvalidArgument("before has no time.")
    return place


def _sample(commit: Commit) -> dict[str, Any]:
    return {
        "start": commit.start,
        "end": commit.end,
        "time": commit.time,
        "types": dict(Counter(map(short_type, commit.events))),
    }


def _time_line(found: Page, upto: int | None, after: int | None, limit: int) -> dict[str, Any]:
    rising = after is not None
    low, high = (after, None) if after is not None else (0, upto)
    commits: list[dict[str, Any]] = []
    left = limit
    # From the end that the page begins at to where it is full.
    entries = found.entries[::-1] if rising else found.entries
    for entry in entries:
        if left <= 0:
            break
        commits.append(_commit(entry, low, high, left, newest=not rising))
        left -= max(1, len(commits[-1]["events"]))
    if rising:
        commits.reverse()
    cut = len(commits) < len(entries)
    older, newer = found.older or (cut and not rising), found.newer or (cut and rising)
    if commits:
        older = older or commits[-1]["below"]
        newer = newer or commits[0]["above"]
    # Where what is asked for is trimmed, the next that is there has nothing of it.
    commits = [commit for commit in commits if commit["events"] or commit["problem"]]
    cursors = [cursor for commit in commits for cursor in (commit["first"], commit["last"])]
    reach = {"first": min(cursors, default=0), "last": max(cursors, default=0)}
    return {"commits": commits, **reach, "older": older, "newer": newer}


def _event(found: Page, workflow_id: str, cursor: int) -> dict[str, Any]:
    entry = found.entries[0] if found.entries else None
    if entry is not None and entry.problem:
        return {"workflow": workflow_id, "cursor": cursor, "problem": entry.problem}
    if entry is None or entry.commit is None or not entry.commit.start < cursor <= entry.commit.end:
        raise WorkflowNotFound(f"There is no event {cursor} of the workflow {workflow_id!r}.", workflow_id=workflow_id)
    commit = entry.commit
    event = commit.events[cursor - commit.start - 1]
    fields = _too_long("fields", entry.size) if entry.is_too_large else _value("fields", dict(event_fields(event)))
    return {
        "workflow": workflow_id,
        "cursor": cursor,
        "problem": "",
        "time": commit.time,
        "type": short_type(event),
        "commit": {"id": entry.commit_id.hex(), "start": commit.start, "end": commit.end},
        **fields,
        "metadata": _metadata(commit, _LONGEST_METADATA),
    }


def _graph(found: Page, upto: int | None) -> dict[str, Any]:
    records = [
        record
        for entry in reversed(found.entries)
        if entry.commit is not None
        for record in entry.commit.records(entry.commit.events, entry.commit.start)
        if upto is None or record.cursor <= upto
    ]
    older = found.older or len(records) > _GRAPH_EVENTS
    records = records[-_GRAPH_EVENTS:]
    graph = fact_graph(records, _GRAPH_NODES)
    reach = {"first": records[0].cursor, "last": records[-1].cursor} if records else {"first": 0, "last": 0}
    return {**graph, **reach, "older": older}


def _with_previews(graph: dict[str, Any], facts: dict[str, KeptFact]) -> dict[str, Any]:
    """Add to each fact's node the beginning of its value as `text`, or its size where it is too large to preview."""
    for node in graph["nodes"]:
        found = facts.get(node.get("hash", ""))
        if found is not None:
            text = f"{found.size} bytes" if found.is_too_large else short_value(found.value, PREVIEW)
            node["text"] = text
    return graph


def _fact(fact_hash: str, decode: Callable[[], KeptFact]) -> dict[str, Any]:
    try:
        found = decode()
    except DecodeError as error:
        return {"hash": fact_hash, "problem": str(error)}
    value = _too_long("value", found.size) if found.is_too_large else _value("value", found.value)
    return {"hash": fact_hash, "problem": "", "checked": not found.is_too_large, **value}


def _commit(entry: Shown, low: int, high: int | None, most: int, *, newest: bool) -> dict[str, Any]:
    """A commit with those of its events that lie in a range, at most so many, and whether others are below or above."""
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
        "metadata": _metadata(commit, _LONGEST_IN_LIST),
        "problem": "",
        "events": [
            {
                "cursor": record.cursor,
                "type": short_type(record.event),
                "text": f"{entry.size} bytes" if entry.is_too_large else short_event(record.event),
            }
            for record in reversed(shown)
        ],
        "below": first > commit.start + 1,
        "above": last < commit.end,
    }


def _value(name: str, value: Any) -> dict[str, Any]:
    """A value to be shown, and its JSON to the last digit; neither, if it is too long."""
    # About so long, which spares making most of the JSON that would not be sent.
    size = json_size(value, 2 * _LONGEST)
    if size > 2 * _LONGEST:
        return _too_long(name, size)
    form = to_json(value)
    text = json_text(form)
    if len(text) > _LONGEST:
        return _too_long(name, len(text))
    return {name: _exact(form), "json": text, "length": len(text)}


def _too_long(name: str, size: int) -> dict[str, Any]:
    return {name: None, "json": "", "length": size}


def _metadata(commit: Commit, most: int) -> Any:
    size = json_size(commit.metadata, most)
    return {"$long": size} if size > most else _exact(to_json(commit.metadata))


def _exact(value: Any) -> Any:
    """JSON in which no int is beyond what JavaScript has."""
    if type(value) is int and abs(value) > _EXACT:
        return {"$int": int_text(value)}
    if type(value) is list:
        return [_exact(part) for part in value]
    if type(value) is dict:
        return {name: _exact(part) for name, part in value.items()}
    return value
