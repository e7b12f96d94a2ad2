"""Sessions of the OpenAI Agents SDK. Needs the extra ``openai-agents``.

A session is a workflow. Each item is an event. To remove items, a session appends an event that continues an earlier
state: ``{"continues": cursor}``. Its items are those of the session as of that cursor. Such a cursor is 0 or that of an
item.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

try:
    from agents.items import TResponseInputItem
    from agents.memory import SessionSettings
    from agents.memory.session_settings import coerce_session_settings, resolve_session_limit
except ImportError as error:
    raise ImportError(f"OpenAI Agents need an extra: pip install 'runic-redis[openai-agents]' ({error}).") from error

from runic_redis.aio import AsyncRedisStore
from runic_redis.errors import CursorConflict, EventsTrimmed, WorkflowNotFound
from runic_redis.operations.records import Record

__all__ = ["RunicSession"]

# Over fewer removed events, a reader reads on. Over more, it begins a new read.
_FAR = 16


class RunicSession:
    """A `Session` of the OpenAI Agents SDK, over an `AsyncRedisStore`.

    `add_items` stores all of its items or none. Of `pop_item` calls that race, in whatever processes, each returns
    another item. A call whose reply was lost takes effect once. Errors of the store are raised as they are.

    Removed items stay in the store until `clear_session`, which removes all items physically, or until the session
    expires. A session that was cleared takes a few hundred bytes; the store's `delete` removes it entirely.

    Args:
        session_id: the session, at most 512 bytes. No workflow of the store but the session has this id.
        store: the store. It belongs to one event loop, so use `Runner.run` and not `Runner.run_sync`.
        session_settings: the limit for `get_items` calls that pass none, as for the SDK's own sessions.
        expires_in: delete the session so many seconds after its last change; None to keep it.

    Attributes:
        session_id: the session.
        session_settings: the settings.
    """

    def __init__(
        self,
        session_id: str,
        store: AsyncRedisStore,
        *,
        session_settings: SessionSettings | dict[str, Any] | None = None,
        expires_in: float | None = None,
    ) -> None:
        self.session_id = session_id
        self.session_settings: SessionSettings | None = coerce_session_settings(session_settings or {})
        self._store = store
        self._expires_in = expires_in

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the items, the oldest first.

        Args:
            limit: return only so many of the newest items; None for the limit of the session's settings, and for all
                items if that has none.
        """
        _, newest = await self._newest(resolve_session_limit(limit, self.session_settings))
        return [_item(record) for record in reversed(newest)]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items, in one step.

        Raises:
            EncodeError: an item has no encoding; nothing was stored.
        """
        if items:
            await self._store.append(self.session_id, [{"item": item} for item in items], expires_in=self._expires_in)

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the newest item, and return it; None if there is none."""
        while True:
            cursor, newest = await self._newest(2)
            if not newest:
                return None
            event = {"continues": newest[1].cursor if len(newest) == 2 else 0}
            try:
                await self._store.append(self.session_id, [event], expected_cursor=cursor, expires_in=self._expires_in)
            except CursorConflict:
                continue  # someone else has changed the session
            return _item(newest[0])

    async def clear_session(self) -> None:
        """Remove all items."""
        if await self._store.exists(self.session_id):
            event = {"continues": 0}
            await self._store.append(self.session_id, [event], snapshot=b"", expires_in=self._expires_in)
            await self._store.trim(self.session_id, keep=1)

    async def _newest(self, limit: int | None) -> tuple[int, list[Record]]:
        """Return the cursor, and the records of the newest items, the newest first."""
        first = 0
        while True:
            try:
                return await self._read(limit)
            except WorkflowNotFound:
                return 0, []
            except EventsTrimmed as error:
                # The session was cleared meanwhile.
                if error.first == first:
                    raise
                first = error.first

    async def _read(self, limit: int | None) -> tuple[int, list[Record]]:
        found: list[Record] = []
        cursor = 0
        until: int | None = None
        while until != 0 and (limit is None or len(found) < limit):
            records = self._store.stream_records(self.session_id, until=until, reverse=True)
            # A context, so that the store reads no further than the loop.
            async with aclosing(cast("AsyncGenerator[Record, None]", aiter(records))) as steps:
                async for record in steps:
                    cursor = cursor or record.cursor
                    if until is not None and record.cursor > until:
                        continue
                    if "item" in record.event:
                        found.append(record)
                        if len(found) == limit:
                            break
                    else:
                        until = record.event["continues"]
                        if until == 0 or record.cursor - until > _FAR:
                            break
                else:
                    break
        return cursor, found


def _item(record: Record) -> TResponseInputItem:
    return cast("TResponseInputItem", record.event["item"])
