"""The addresses of subscriptions: where they are, and what they have parked."""

from itertools import islice
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from runic_redis.aio import AsyncRedisStore
from runic_redis.operations.parking import Parked
from runic_redis.operations.subscriptions import SubscriptionStatus
from runic_redis.ui.bounds import short
from runic_redis.ui.views import json_response

# Send at most this many parked commits.
_MOST_PARKED = 500


class Subscriptions:
    """The answer of each address.

    Args:
        store: the store.
        allow_changes: whether parked commits may be replayed and dropped.
    """

    def __init__(self, store: AsyncRedisStore, *, allow_changes: bool) -> None:
        self._store = store
        self._allow_changes = allow_changes

    async def list(self, _: Request) -> Response:
        """Answer with where each subscription and each projection is."""
        found = await self._store.subscriptions()
        return json_response({"subscriptions": [_status_form(one) for one in found]})

    async def parked(self, request: Request) -> Response:
        """Answer with the commits that a subscription has parked, by partition and position."""
        found = await self._store.parked(request.query_params.get("name", ""))
        shown = [_parked_form(one) for one in islice(found, _MOST_PARKED)]
        return json_response({"parked": shown, "total": len(found), "changes": self._allow_changes})

    async def replay(self, request: Request) -> Response:
        """Have the parked commits of a workflow delivered again, and answer with their number."""
        name, workflow_id = _named(request)
        return json_response({"replayed": await self._store.replay_parked(name, workflow_id)})

    async def drop(self, request: Request) -> Response:
        """Drop the parked commits of a workflow, and answer with their number."""
        name, workflow_id = _named(request)
        return json_response({"dropped": await self._store.drop_parked(name, workflow_id)})


def _named(request: Request) -> tuple[str, str]:
    return request.query_params.get("name", ""), request.query_params.get("id", "")


def _status_form(one: SubscriptionStatus) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": one.kind,
        "prefix": one.prefix,
        "types": one.types,
        "lag_events": one.lag_events,
        "lag_s": one.lag_s,
        "consumers": dict(one.consumers),
        "parked": one.parked,
        "failing": [
            {"partition": number, "attempts": attempts, "reason": short(reason)}
            for number, (attempts, reason) in one.failing.items()
        ],
    }


def _parked_form(one: Parked) -> dict[str, Any]:
    return {
        "workflow_id": one.workflow_id,
        "cursor": one.cursor,
        "events": one.events,
        "time": one.time,
        "deleted": one.deleted,
        "state": one.state,
        "attempts": one.attempts,
        "reason": short(one.reason),
    }
