"""Batches on their own connection, for threads: pages of events that are read ahead, and reads that block.

They do not wait in a queue with other calls. The thread that begins one reads its replies, perhaps much later.
"""

import time
from collections.abc import Sequence
from typing import Any

from runic_redis.drivers.redis_py import log, now_s
from runic_redis.drivers.sync_servers import Server
from runic_redis.errors import StoreError
from runic_redis.protocol.effects import Batch
from runic_redis.protocol.following import Follow
from runic_redis.protocol.queue import Queue
from runic_redis.protocol.rounds import Ticket


def read(batch: Batch, server: Server, deadline_s: float) -> list[Any]:
    """Return the replies to a batch, sent on its own connection."""
    in_flight = BatchInFlight(batch, server, deadline_s)
    if not isinstance(batch, Follow):
        return in_flight.wait()
    # Another thread may end it.
    batch.stop.interrupt = in_flight.interrupt
    try:
        if batch.stop.is_set:
            in_flight.cancel()
            raise _stopped()
        return in_flight.wait()
    finally:
        batch.stop.interrupt = None


def first_error(answers: Sequence[Any]) -> StoreError | None:
    """Return the first error that stands for an answer, if there is one."""
    for answer in answers:
        if isinstance(answer, StoreError):
            return answer
    return None


def _stopped() -> StoreError:
    return StoreError("The tail was closed. Nothing was changed.")


class BatchInFlight:
    """A batch that was sent on its own connection, and whose replies may be read later."""

    def __init__(self, batch: Batch, server: Server, deadline_s: float) -> None:
        self._server = server
        self._ticket = Ticket(batch, now_s())
        self._queue = Queue(deadline_s)
        self._queue.add(self._ticket, range(len(batch.commands)))
        # The answers that were read and not used yet.
        self._answers: list[Any] | StoreError | None = None
        self._interrupted = False
        self._send()

    def _send(self) -> None:
        started_s = now_s()
        self._queue.enforce_deadlines(started_s)
        self._calls = self._queue.next_round(started_s)
        if self._calls:
            self._pending = self._server.begin(self._calls)

    def receive(self) -> list[Any] | StoreError:
        """Read the answers into memory, unless they are there already; that gives the connection back."""
        if self._answers is None:
            try:
                self._answers = self._pending.finish()
            except StoreError as error:
                self._answers = error
        return self._answers

    def wait(self) -> list[Any]:
        """Return the replies. Its deadline counts from this call, not from when it was sent ahead."""
        self._ticket.asked_s = now_s()
        for call in self._calls:
            for request in call.requests:
                request.first_s = self._ticket.asked_s
        while True:
            if self._calls:
                answers = self.receive()
                self._answers = None
                if self._interrupted:
                    raise _stopped()
                if isinstance(answers, StoreError):
                    raise answers
                if error := first_error(answers):
                    raise error
                if news := self._queue.take(self._calls, answers, now_s()):
                    log.info("%s", news)
            if not self._ticket.missing:
                return self._ticket.replies
            time.sleep(max(0.0, self._queue.resume_s - now_s()))
            self._send()

    def cancel(self) -> None:
        """Drop the replies."""
        self._pending.cancel()

    def interrupt(self) -> None:
        """From another thread: make a `wait` fail that is in progress."""
        self._interrupted = True
        self._pending.interrupt()
