"""The ASGI application: its addresses and their answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ExceptionHandler

from runic_redis.aio import AsyncRedisStore
from runic_redis.errors import (
    DecodeError,
    FactNotFound,
    InvalidArgument,
    StoreError,
    StoreUnavailable,
    WorkflowNotFound,
)
from runic_redis.ui.guard import Guard
from runic_redis.ui.live import Live
from runic_redis.ui.metrics import Metrics
from runic_redis.ui.subscriptions import Subscriptions
from runic_redis.ui.views import Views, json_response

_STATIC = Path(__file__).with_name("static")
# The only files that are served. No name from a request becomes a path.
_FILES = {"/": "index.html", **{f"/{path.name}": path.name for path in sorted(_STATIC.iterdir())}}
_STATUS = (
    (FactNotFound, 404),
    (WorkflowNotFound, 404),
    (InvalidArgument, 400),
    (StoreUnavailable, 503),
    (DecodeError, 422),
)


def make_app(store: AsyncRedisStore, live: Live, token: str | None, *, allow_changes: bool) -> Starlette:
    """Return the application for a store.

    Args:
        store: an open store, to which every event is without its class.
        live: the watch over the store. It runs as long as the application does.
        token: the token that requests must carry; None to accept the loopback interface only.
        allow_changes: whether requests may replay and drop parked commits.
    """
    views = Views(store, live)
    subscriptions = Subscriptions(store, allow_changes=allow_changes)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(live.run())
        yield
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch

    reading: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "/api/summary": views.summary,
        "/api/workflows": views.workflows,
        "/api/workflow": views.workflow,
        "/api/memory": views.memory,
        "/api/overview": views.overview,
        "/api/events": views.events,
        "/api/event": views.event,
        "/api/graph": views.graph,
        "/api/checkpoints": views.checkpoints,
        "/api/fact": views.fact,
        "/api/subscriptions": subscriptions.list,
        "/api/parked": subscriptions.parked,
        "/api/live": views.live,
        "/metrics": Metrics(store, live).scrape,
    }
    changing = {"/api/parked/replay": subscriptions.replay, "/api/parked/drop": subscriptions.drop}
    routes = [Route(path, endpoint) for path, endpoint in reading.items()]
    routes += [Route(path, endpoint, methods=["POST"]) for path, endpoint in changing.items()]
    routes += [Route(path, _file(name)) for path, name in _FILES.items()]
    failed: dict[type[Exception], ExceptionHandler] = {StoreError: _failed}
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, token=token, allow_changes=allow_changes)],
        exception_handlers=failed,
        lifespan=lifespan,
    )


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        return FileResponse(_STATIC / name)

    return endpoint


async def _failed(_: Request, error: Exception) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return json_response({"error": str(error)}, status)
