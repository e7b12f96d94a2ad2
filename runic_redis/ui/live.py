"""The news of a namespace. One watch serves all open pages."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from runic_redis.admin.watching import Meter
from runic_redis.aio import AsyncRedisStore
from runic_redis.errors import StoreError

# Look at the namespace this often.
LOOK_S = 0.25
# A page gets a message at least this often, so it notices when this process stops.
_BEAT_S = 1.0
# A store that answers nothing for this long counts as unreachable, although its requests are still retried.
_SILENT_S = 1.5
# The last two minutes, in seconds.
_KEPT_S = 120
# Name at most this many changed workflows in a message.
_NAMED = 200


class Live:
    """The watch over a namespace. It begins with `run`.

    Args:
        store: the store.

    Attributes:
        events: how many events were appended since the watch began.
        writes: how many writes to workflows the watch has seen since then.
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
        """The reason why there is no news now; None if the store answers."""
        silent_s = time.monotonic() - self._answered_s
        if self._error is None and silent_s > _SILENT_S:
            return f"The store has not answered for {silent_s:.0f} s. The page keeps trying."
        return self._error

    async def run(self) -> None:
        """Watch until cancelled. After a failure, the watch tries again."""
        open_ = False
        while True:
            began_s = time.monotonic()
            try:
                if not open_:
                    await self._store.run(self._meter.open(), "watch")
                open_ = True
                reading = await self._store.run(self._meter.look(), "watch")
            except StoreError as error:
                # Start over: events that are appended meanwhile are not counted.
                open_, self._error = False, str(error)
                self._report([], 0)
            else:
                self._error, self._answered_s = None, time.monotonic()
                self._report([change.workflow_id for change in reading.changes], reading.events)
            await asyncio.sleep(max(0.0, began_s + LOOK_S - time.monotonic()))

    def history(self) -> list[int]:
        """Return how many events were appended in each of the last 120 seconds, the present one last."""
        self._advance()
        return list(self._seconds)

    async def follow(self, workflow_id: str | None) -> AsyncIterator[dict[str, Any]]:
        """Yield messages for a page, until the page closes or `end` is called.

        A message has the history, the problem, and the workflows that changed since the page's last message.

        Args:
            workflow_id: a workflow to name whenever it has changed, however many others have.
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
        """End all streams of `follow`."""
        self._ended = True
        for watcher in self._watchers:
            watcher.news.set()

    def _report(self, workflow_ids: list[str], events: int) -> None:
        self._advance()
        self._seconds[-1] += events
        self.events += events
        self.writes += len(workflow_ids)
        for watcher in self._watchers:
            watcher.add(workflow_ids)

    def _advance(self) -> None:
        """Add the seconds that have begun since the last call."""
        now = int(time.monotonic())
        self._seconds.extend([0] * min(now - self._second, _KEPT_S))
        self._second = now


class _Watcher:
    """The changes that one page does not know yet."""

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
        changes = {"changed": list(self._changed), "more": self._more}
        self._changed, self._more = {}, False
        return changes
