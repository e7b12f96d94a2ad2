"""Threads that wait for their turn to look, and the thread that listens for hints for all of them.

As in sync.py, a signal handler may raise at any point of the main thread. So nothing here waits on a `Condition`, and
`cancel` may be called again after it was interrupted.
"""

import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import RLock, Thread
from typing import Any

from runic_redis.drivers.redis_py import check_open, log, now_s
from runic_redis.drivers.sync_servers import Server
from runic_redis.errors import StoreError
from runic_redis.protocol.effects import ConnectionLost, Join
from runic_redis.protocol.hints import SILENCE_S, Listen, Place, Turns, listen


class ThreadPlace(Place):
    """The place of a thread."""

    def __init__(self, join: Join, waits: "Waits") -> None:
        super().__init__(join)
        self._waits = waits
        self._signal: SimpleQueue[None] = SimpleQueue()

    def wake(self) -> None:
        """Make the thread ask for its next step."""
        if self._signal.empty():
            self._signal.put(None)

    def wait(self) -> bool:
        """Return whether to look, once that is known.

        Raises:
            StoreError: the store is closed.
        """
        while (pause_s := self._waits.next_pause_s(self)) is not None:
            if not pause_s:
                return True
            with suppress(Empty):
                self._signal.get(timeout=pause_s)
        return False

    def cancel(self) -> None:
        """Leave the line. If it was this thread's turn, the next one looks at once."""
        with suppress(RuntimeError):
            # Raised if this thread does not have it: it was interrupted elsewhere.
            self._waits.lock.release()
        with self._waits.lock:
            self._waits.turns.leave(self, now_s())


class _Listener(Thread):
    """A thread that listens for hints until its store has another, or none."""

    def __init__(self, waits: "Waits", server: Server, channel: str) -> None:
        super().__init__(name="runic-redis-hints", daemon=True)
        self._waits = waits
        self._server = server
        self._channel = channel
        self._subscription: Any = None

    def run(self) -> None:
        steps = listen(self._waits.turns)
        reply: Any = None
        try:
            while (step := self._waits.next_step(self, steps, reply)) is not None:
                reply = self._take(step)
        finally:
            self._close()

    def _take(self, step: Listen) -> Any:
        try:
            if step.pause_s is not None:
                self._close()
                time.sleep(step.pause_s)
                self._subscription = self._server.subscribe(self._channel)
                if self._waits.listener is not self:  # the store was closed meanwhile
                    return None
            elif step.pings:
                self._subscription.send("PING")
        except StoreError as error:
            return ConnectionLost(str(error), sent=False)
        return self._subscription.read(SILENCE_S)

    def interrupt(self) -> None:
        """From another thread: end a read that is in progress."""
        if (subscription := self._subscription) is not None:
            subscription.interrupt()

    def _close(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()


class Waits:
    """The waiting threads of a store.

    Attributes:
        lock: held while the turns are used.
        turns: their turns.
        listener: listens for hints; None while nobody waits, or after the server did not allow it.
    """

    def __init__(self, server: Server) -> None:
        # (An RLock can tell whether this thread has it, see `ThreadPlace.cancel`.)
        self.lock = RLock()
        self.turns = Turns()
        self.listener: _Listener | None = None
        self._server = server
        self._is_denied = False
        self._is_closed = False

    def next_pause_s(self, place: Place) -> float | None:
        """Return how long a thread waits before it asks again; 0.0 if it looks now; None if its time is over.

        Raises:
            StoreError: the store is closed.
        """
        with self.lock:
            check_open(self._is_closed)
            if not (self._is_denied or (self.listener is not None and self.listener.is_alive())):
                self.listener = _Listener(self, self._server, place.channel)
                with suppress(RuntimeError):  # the interpreter is ending, and starts no threads any more
                    self.listener.start()
            return self.turns.next_pause_s(place, now_s())

    def next_step(self, listener: _Listener, steps: Any, reply: Any) -> Listen | None:
        """Return the next step of a listener; None if it ends."""
        with self.lock:
            if self.listener is not listener:
                return None
            if not self.turns.are_idle(now_s()):
                try:
                    step: Listen = steps.send(reply)
                except StopIteration as denied:
                    self._is_denied = True
                    log.warning("%s", denied.value)
                else:
                    return step
            self.listener = None
            return None

    def close(self) -> None:
        """End each wait with an error, and the listener."""
        with self.lock:
            self._is_closed = True
            listener, self.listener = self.listener, None
            self.turns.wake_all()
        if listener is not None:
            listener.interrupt()
