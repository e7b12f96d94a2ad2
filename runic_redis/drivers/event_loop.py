"""The event loop that a store for asyncio belongs to."""

import asyncio
import threading

from runic_redis.errors import StoreError


class Home:
    """The running event loop, which alone may use the connections made in it.

    Attributes:
        loop: the event loop.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._thread = threading.current_thread().name

    def check_loop(self) -> None:
        """Raise an error unless this event loop is the running one.

        Raises:
            StoreError: another one is running here, or none.
        """
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self.loop:
            return
        if self.loop.is_closed():
            raise StoreError(
                "The AsyncRedisStore belongs to the event loop that opened it, and that loop is closed: each "
                "asyncio.run makes a loop and closes it. Nothing was sent. Open a store in each event loop, and close "
                "it there: 'async with' does both."
            )
        if not self.loop.is_running():
            raise StoreError(
                f"The AsyncRedisStore belongs to the event loop that opened it, {self.loop!r}, which is not running "
                "now. Nothing was sent. Call the store from tasks of that loop, such as by loop.run_until_complete(…); "
                "or open a store in each event loop."
            )
        place = "no asyncio event loop is running" if here is None else "another event loop is running"
        raise StoreError(
            f"The AsyncRedisStore belongs to the event loop that opened it, {self.loop!r} in the thread "
            f"{self._thread!r}, and was called where {place}. Nothing was sent. Open a store in each event loop. To "
            "call this one from another thread, use asyncio.run_coroutine_threadsafe(…, loop) with the loop that "
            "opened it; or use a RedisStore, which threads may share."
        )
