"""What comes, told to everybody who looks: one watch over the namespace, however many pages are open."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from runic_redis.admin.watching import Meter
from runic_redis.aio import AsyncRedisStore
from runic_redis.errors import StoreError

__all__ = ["Live"]

# How often the namespace is looked at.
LOOK_S = 0.25
# A page gets a message at least this often, so it notices when this process stops.
_BEAT_S = 1.0
# A store that answers nothing for longer than this counts as unreachable. Requests themselves are retried for longer.
_SILENT_S = 1.5
# The last two minutes, in seconds.
_KEPT_S = 120
# More changed workflows than this are counted for a page, not named.
_NAMED = 200


class Live:
    """Watches a namespace, from `run` on.

    Args:
        store: the store.

    Attributes:
        events: how many events have come since the watch began.
        writes: how many times a workflow was found written to since then.
    """

    def __init__(self, store: AsyncRedisStore) -> None:
        self._store = store
        self._meter = Meter(store.context)
        self._seconds: deque[int] = deque([0] * _KEPT_S, maxlen=_KEPT_S)
        self._second = 0
        self._watchers: set[_Watcher] = set()
        self._ended = False
        self.events = 0
        self.writes = 0
        self._answered_s = time.monotonic()
        self._error: str | None = None

    @property
    def problem(self) -> str | None:
        """Why nothing can be seen now; None if the store answers."""
        silent_s = time.monotonic() - self._answered_s
        if self._error is None and silent_s > _SILENT_S:
            return f"The store has not answered for {silent_s:.0f} s. The page keeps trying."
        return self._error

    async def run(self) -> None:
        """Watch, until cancelled; what fails is tried again."""
        open_ = False
        while True:
            began_s = time.monotonic()
            try:
                if not open_:
                    await self._store.run(self._meter.open(), "watch")
                open_ = True
                reading = await self._store.run(self._meter.look(), "watch")
            except StoreError as error:
                # What came meanwhile is not counted: it begins anew.
                open_, self._error = False, str(error)
                self._tell([], 0)
            else:
                self._error, self._answered_s = None, time.monotonic()
                self._tell([change.workflow_id for change in reading.changes], reading.events)
            await asyncio.sleep(max(0.0, began_s + LOOK_S - time.monotonic()))

    def history(self) -> list[int]:
        """How many events came in each of the last seconds, the present one last."""
        self._advance()
        return list(self._seconds)

    async def follow(self, workflow_id: str | None) -> AsyncIterator[dict[str, Any]]:
        """What comes, until the page goes away or `end`; what a slow page misses is added up for it.

        Args:
            workflow_id: a workflow that is named whenever it has changed.
        """
        watcher = _Watcher(workflow_id)
        self._watchers.add(watcher)
        try:
            while not self._ended:
                yield {"history": self.history(), "problem": self.problem, **watcher.take()}
                try:
                    async with asyncio.timeout(_BEAT_S):
                        await watcher.news.wait()
                except TimeoutError:
                    pass
        finally:
            self._watchers.discard(watcher)

    def end(self) -> None:
        """Have those who follow come to their end."""
        self._ended = True
        for watcher in self._watchers:
            watcher.news.set()

    def _tell(self, workflow_ids: list[str], events: int) -> None:
        self._advance()
        self._seconds[-1] += events
        self.events += events
        self.writes += len(workflow_ids)
        for watcher in self._watchers:
            watcher.add(workflow_ids)

    def _advance(self) -> None:
        """Begin the seconds that have begun."""
        now = int(time.monotonic())
        self._seconds.extend([0] * min(now - self._second, _KEPT_S))
        self._second = now


class _Watcher:
    """What one page has not been told yet."""

    def __init__(self, workflow_id: str | None) -> None:
        self.news = asyncio.Event()
        self._workflow_id = workflow_id
        self._changed: dict[str, None] = {}
        self._more = False

    def add(self, workflow_ids: list[str]) -> None:
        for workflow_id in workflow_ids:
            if len(self._changed) < _NAMED or workflow_id == self._workflow_id:
                self._changed[workflow_id] = None
            else:
                self._more = True
        if workflow_ids:
            self.news.set()

    def take(self) -> dict[str, Any]:
        self.news.clear()
        told = {"changed": list(self._changed), "more": self._more}
        self._changed, self._more = {}, False
        return told
