"""The addresses that the page asks for its data. Answers are JSON; times are ISO 8601.

docs/operating.md describes the forms of values.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import partial
from math import isnan
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from runic_redis import __version__
from runic_redis.admin.browsing import cursor_at, fact, fact_previews, has_events, page, samples
from runic_redis.admin.describing import count_workflows, describe, describe_one
from runic_redis.aio import AsyncRedisStore
from runic_redis.errors import InvalidArgument
from runic_redis.langgraph.records import checkpoints_prefix
from runic_redis.operations.counting import count_states
from runic_redis.operations.filters import ALL, check_filters, queue_names
from runic_redis.operations.listing import Listing, Place
from runic_redis.operations.namespace import memory_of
from runic_redis.ui.checkpoints import CHECKPOINT, THREAD_EVENTS, Thread
from runic_redis.ui.forms import (
    GRAPH_EVENTS,
    Filter,
    add_previews,
    event_form,
    fact_form,
    graph_form,
    sample_form,
    time_line_form,
)
from runic_redis.ui.live import Live

_MOST_WORKFLOWS = 200
_MOST_EVENTS = 500
_SAMPLES = 160
# One request compares at most this many ids with a text, workflows with other filters, and events with a filter. The
# page shows how far that reached, and the next request goes on from there.
_MOST_IDS = 100_000
_MOST_CHECKED = 10_000
_MOST_FILTERED = 5000
# Decode for this many requests at the same time. Python runs one thread at a time: more would hold up the event loop.
_DECODING = 2
T = TypeVar("T")


class Views:
    """The answer of each address.

    Args:
        store: the store. It must know no event classes.
        live: the watch over the store.
    """

    def __init__(self, store: AsyncRedisStore, live: Live) -> None:
        self._store = store
        self._context = store.context
        self._live = live
        self._turns = asyncio.Semaphore(_DECODING)

    async def _in_thread(self, make: Callable[[], T]) -> T:
        """Return the result of a function that decodes. It may take a second, so it runs off the event loop."""
        async with self._turns:
            return await asyncio.to_thread(make)

    async def _answer(self, make: Callable[[], Any]) -> Response:
        """Answer with the result of a function that decodes."""
        return await self._in_thread(lambda: json_response(make()))

    async def summary(self, _: Request) -> Response:
        """Answer with the store's name and the numbers of its workflows."""
        counts = await self._store.run(count_workflows(self._context), "count_workflows")
        states = await self._store.run(count_states(self._context), "count_states")
        queues = await self._store.run(queue_names(self._context), "queue_names")
        return json_response(
            {
                "version": __version__,
                "server": self._store.url,
                "namespace": self._context.keys.namespace,
                "partitions": len(counts),
                "feed": self._context.keys.has_feed,
                "workflows": sum(counts),
                "states": states,
                "queues": sorted({name for names in queues for name in names}),
            }
        )

    async def workflows(self, request: Request) -> Response:
        """Answer with a page of the workflows that pass the filters, in the order of `RedisStore.list`.

        A page may be short although `next` names more: one request reads a limited number of workflows.
        """
        query = request.query_params
        filters = check_filters(
            state=query.get("state") or None,  # type: ignore[arg-type]
            queue=query.get("queue") or None,
            since=_time(request, "since"),
        )
        limit = _number(request, "limit", 50, _MOST_WORKFLOWS) or 50
        most_read = _MOST_IDS if filters == ALL else _MOST_CHECKED
        listing = partial(Listing, self._context, filters, containing=query.get("containing", ""))
        ids, below, is_over = await self._listed(
            listing(limit=limit, below=(place := _place(query.get("before"))), most_read=most_read), place
        )
        found = await self._store.run(describe(self._context, ids), "describe") if ids else []
        if not is_over and len(ids) == limit:
            more, _, is_over = await self._listed(listing(limit=1, below=below, most_read=most_read), below)
            is_over = is_over and not more
        following = None if is_over or below is None else ":".join(map(str, below))
        return json_response({"workflows": [one._asdict() for one in found], "next": following})

    async def _listed(self, listing: Listing, below: Place | None) -> tuple[list[str], Place | None, bool]:
        """Return the ids of a listing, the place where it ended, and whether nothing comes after that."""
        ids: list[str] = []
        while page_ := await self._store.run(listing.next_page(), "list"):
            ids += page_
        return ids, listing.last or below, listing.is_over

    async def workflow(self, request: Request) -> Response:
        """Answer with a description of a workflow, and whether it is a thread of LangGraph."""
        workflow_id = _id(request)
        described = await self._store.run(describe_one(self._context, workflow_id), "describe")
        is_thread = has_events(self._context, workflow_id, checkpoints_prefix(None), CHECKPOINT)
        return json_response({**described._asdict(), "is_thread": await self._store.run(is_thread, "browse")})

    async def memory(self, request: Request) -> Response:
        """Answer with the bytes of the server's memory that a workflow takes, by kind of key."""
        return json_response(await self._store.run(memory_of(self._context, _id(request)), "memory_usage"))

    async def overview(self, request: Request) -> Response:
        """Answer with samples of a workflow's commits, at even distances."""
        decode = await self._store.run(samples(self._context, _id(request), _SAMPLES), "browse")
        return await self._answer(lambda: {"samples": [sample_form(one) for one in decode()]})

    async def events(self, request: Request) -> Response:
        """Answer with a page of a workflow's commits that pass the filters, the newest first, an event a line."""
        workflow_id, query = _id(request), request.query_params
        limit = _number(request, "limit", 100, _MOST_EVENTS) or 100
        upto, after, until = _number(request, "upto"), _number(request, "after"), _time(request, "until")
        if until is not None:
            upto = await self._store.run(cursor_at(self._context, workflow_id, until), "browse")
        wanted = Filter(query.get("type", ""), query.get("containing", ""))
        count = limit if wanted.is_open else _MOST_FILTERED
        decode = await self._store.run(page(self._context, workflow_id, upto=upto, after=after, count=count), "browse")
        return await self._answer(lambda: time_line_form(decode(), upto, after, limit, wanted))

    async def event(self, request: Request) -> Response:
        """Answer with a whole event."""
        workflow_id, cursor = _id(request), _number(request, "cursor") or 0
        decode = await self._store.run(page(self._context, workflow_id, upto=cursor, count=1), "browse")
        return await self._answer(lambda: event_form(decode(), workflow_id, cursor))

    async def graph(self, request: Request) -> Response:
        """Answer with the graph of the facts of the events up to a cursor."""
        workflow_id, upto = _id(request), _number(request, "upto")
        decode = await self._store.run(page(self._context, workflow_id, upto=upto, count=GRAPH_EVENTS), "browse")
        graph = await self._in_thread(lambda: graph_form(decode(), upto))
        hashes = [node["hash"] for node in graph["nodes"] if "hash" in node]
        decode_facts = await self._store.run(fact_previews(self._context, hashes), "browse")
        return await self._answer(lambda: add_previews(graph, decode_facts()))

    async def checkpoints(self, request: Request) -> Response:
        """Answer with the checkpoints of a thread of LangGraph, up to a cursor, as a tree for each namespace."""
        workflow_id, upto = _id(request), _number(request, "upto")
        decode = await self._store.run(page(self._context, workflow_id, upto=upto, count=THREAD_EVENTS), "browse")
        thread = await self._in_thread(lambda: Thread(decode(), upto))
        await self._store.run(thread.look_elsewhere(self._context, workflow_id), "browse")
        return await self._answer(thread.form)

    async def fact(self, request: Request) -> Response:
        """Answer with the value of a fact, checked against its hash."""
        fact_hash = request.query_params.get("hash", "")
        decode = await self._store.run(fact(self._context, fact_hash), "browse")
        return await self._answer(lambda: fact_form(fact_hash, decode))

    async def live(self, request: Request) -> Response:
        """Answer with news, as server-sent events."""
        # Without this header, a proxy may hold messages back.
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(request), media_type="text/event-stream", headers=headers)

    async def _stream(self, request: Request) -> AsyncIterator[str]:
        async for word in self._live.follow(request.query_params.get("id")):
            yield f"data: {json.dumps(word)}\n\n"


def json_response(value: Any, status: int = 200) -> Response:
    """Return a JSON answer."""
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


def _time(request: Request, name: str) -> datetime | None:
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise InvalidArgument(f"{name} is a time with its zone, such as 2026-01-31T14:05:00Z, not {text!r:.80}.")
    return found


def _place(text: str | None) -> Place | None:
    """Return the place where a page of workflows ended, as its `next` names it."""
    if text is None:
        return None
    score, _, rest = text.partition(":")
    partition, _, workflow_id = rest.partition(":")
    try:
        place = Place(float(score), int(partition), workflow_id)
    except ValueError:
        place = None
    if place is None or isnan(place.score):
        raise InvalidArgument(f"before is the 'next' of another page, not {text!r:.80}.")
    return place
