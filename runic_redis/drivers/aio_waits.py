"""Tasks that wait for their turn to look, and the task that listens for hints for all of them."""

import asyncio
from contextlib import suppress
from typing import Any

from runic_redis.drivers.aio_servers import Server
from runic_redis.drivers.redis_py import check_open, log, now_s
from runic_redis.errors import StoreError
from runic_redis.protocol.effects import ConnectionLost, Join
from runic_redis.protocol.hints import SILENCE_S, Place, Turns, listen


class TaskPlace(Place):
    """The place of a task."""

    def __init__(self, join: Join, waits: "Waits") -> None:
        super().__init__(join)
        self._waits = waits
        self._signal = asyncio.Event()

    def wake(self) -> None:
        """Make the task ask for its next step."""
        self._signal.set()

    async def wait(self) -> bool:
        """Return whether to look, once that is known.

        Raises:
            StoreError: the store is closed.
        """
        while (pause_s := self._waits.next_pause_s(self)) is not None:
            if not pause_s:
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._signal.wait()
            self._signal.clear()
        return False

    def cancel(self) -> None:
        """Leave the line. If it was this task's turn, the next one looks at once."""
        self._waits.turns.leave(self, now_s())


class Waits:
    """The waiting tasks of a store.

    Attributes:
        turns: their turns.
    """

    def __init__(self, server: Server) -> None:
        self.turns = Turns()
        self._server = server
        self._listener: asyncio.Task[None] | None = None
        self._is_denied = False
        self._is_closed = False

    def next_pause_s(self, place: Place) -> float | None:
        """Return how long a task waits before it asks again; 0.0 if it looks now; None if its time is over.

        Raises:
            StoreError: the store is closed.
        """
        check_open(self._is_closed)
        if not self._is_denied and (self._listener is None or self._listener.done()):
            self._listener = asyncio.create_task(self._listen(place.channel))
        return self.turns.next_pause_s(place, now_s())

    async def _listen(self, channel: str) -> None:
        """Listen for hints until no task has waited for a while."""
        steps = listen(self.turns)
        reply: Any = None
        subscription: Any = None
        try:
            while not self.turns.are_idle(now_s()):
                step = steps.send(reply)
                try:
                    if step.pause_s is not None:
                        closing, subscription = subscription, None
                        if closing is not None:
                            await closing.close()
                        await asyncio.sleep(step.pause_s)
                        subscription = await self._server.subscribe(channel)
                    elif step.pings:
                        await subscription.send("PING")
                    reply = await subscription.read(SILENCE_S)
                except StoreError as error:
                    reply = ConnectionLost(str(error), sent=False)
        except StopIteration as denied:
            self._is_denied = True
            log.warning("%s", denied.value)
        finally:
            if subscription is not None:
                await subscription.close()

    async def close(self) -> None:
        """End each wait with an error, and the listener."""
        self._is_closed = True
        self.turns.wake_all()
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
