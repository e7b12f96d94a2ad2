"""Runs operations for asyncio.

Calls of concurrent tasks share round trips. For each queue the driver has a task that sends the waiting commands, reads
the replies and wakes the callers. A cancelled caller leaves no reply half-read, since it reads none.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar
from weakref import WeakSet

from runic_redis.drivers.aio_servers import Server
from runic_redis.drivers.aio_waits import TaskPlace, Waits
from runic_redis.drivers.event_loop import Home
from runic_redis.drivers.redis_py import check_open, closed, failed, log, now_s, too_slow
from runic_redis.errors import StoreError
from runic_redis.protocol.effects import Await, Batch, ConnectionLost, Join, Operation
from runic_redis.protocol.following import Follow, Follower
from runic_redis.protocol.node_queues import Queues, any_full
from runic_redis.protocol.queue import Queue
from runic_redis.protocol.rounds import Call, Ticket

T = TypeVar("T")
_Send: TypeAlias = Callable[[list[Call]], Coroutine[Any, Any, list[Any]]]


async def run(operation: Operation[T], sender: "Sender") -> T:
    """Run an operation and return its result."""
    place: TaskPlace | None = None
    try:
        effect = next(operation)
        while True:
            if isinstance(effect, Batch):
                effect = operation.send(await sender.ask(effect))
            elif isinstance(effect, Await):
                effect = operation.send(await effect.in_flight.wait())  # type: ignore[attr-defined]
            elif isinstance(effect, Join):
                place = TaskPlace(effect, sender.waits)
                effect = operation.send(place)
            else:
                effect = operation.send(_InFlight(effect.batch, sender))
    except StopIteration as stop:
        result: T = stop.value
        return result
    except BaseException:
        if place is not None:
            place.cancel()
        raise


async def run_within(operation: Operation[T], sender: "Sender", limit_s: float) -> T:
    """Run an operation and return its result, but cancel it after a time.

    Raises:
        StoreUnavailable: the time has passed.
    """
    try:
        async with asyncio.timeout(limit_s):
            return await run(operation, sender)
    except TimeoutError:
        raise too_slow(limit_s) from None


class _TaskTicket(Ticket):
    """A call of a task, and the future that the task awaits."""

    __slots__ = ("answered",)

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch, now_s())
        self.answered = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        if not self.answered.done():  # or cancelled
            self.answered.set_result(None)


# The most callers that follow workflows on their own connection; further ones share one. And the most pages of events
# that are read at the same time. (A caller with its own connection gets events a little sooner, as the shared read ends
# and restarts every moment.) Of a pool with a limit, each of the two takes at most this part.
_MOST_APART = 8
_PART = 4


# The senders of this process. An event loop and its tasks do not survive a fork, so a child's copies are closed.
_senders: WeakSet["Sender"] = WeakSet()


def _after_fork() -> None:
    for sender in list(_senders):
        sender.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Sender:
    """Sends batches, those of concurrent calls together.

    Args:
        server: the server to send to.
        deadline_s: the deadline of a command, from its first try or from when it began to wait for a failing server.
        wait_s: the longest time that a server may wait for a confirmation, in one round.
    """

    def __init__(self, server: Server, deadline_s: float, wait_s: float) -> None:
        self._server = server
        self._deadline_s = deadline_s
        self._queues = Queues(deadline_s, server.find_node, wait_s)
        self._drivers: dict[Queue, asyncio.Task[None]] = {}
        # Rounds of large requests; and an event for drivers that can send nothing before one of these ends.
        self._large: set[asyncio.Task[list[Any]]] = set()
        self._changed = asyncio.Event()
        # How many callers follow on their own connection. For the others, each node has a follower and its task, so
        # that a failing node does not delay the callers that follow streams of another.
        self._following_alone = 0
        self._followers: dict[str, Follower] = {}
        self._following: dict[str, asyncio.Task[None]] = {}
        self._most_apart = max(1, min(_MOST_APART, server.most_connections // _PART))
        self._pages = asyncio.Semaphore(self._most_apart)
        self._room = asyncio.Event()
        self.waits = Waits(server)
        self._closed = False
        # Whether this is a copy in a child process.
        self.disowned = False
        self.home = Home()
        _senders.add(self)

    def disown(self) -> None:
        """In a child process: send nothing, and leave the connections to the parent."""
        self._closed = self.disowned = True

    def check_usable(self) -> None:
        """Raise an error unless calls can be made here.

        Raises:
            StoreError: the store is closed, or belongs to the parent of this process, or to another event loop.
        """
        if self.disowned:
            raise StoreError(
                "The store was opened before this process was forked, and is closed here: its event loop and its "
                "connections are the parent's. Nothing was sent. Open another store in this process."
            )
        check_open(self._closed)
        self.home.check_loop()

    async def ask(self, batch: Batch) -> list[Any]:
        """Send a batch and return its replies.

        Raises:
            StoreError: the store is closed, or the connection cannot be used.
        """
        if not batch.commands:
            return []
        check_open(self._closed)
        ticket = _TaskTicket(batch)
        if isinstance(batch, Follow) and self._following_alone >= self._most_apart:
            await self._follow(ticket, batch)
        elif isinstance(batch, Follow):
            self._following_alone += 1
            try:
                await self._ask_apart(ticket, self._send_apart)
            finally:
                self._following_alone -= 1
        elif batch.own_connection:
            await self._ask_apart(ticket, self._send_page)
        else:
            await self._ask_together(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.replies

    async def _ask_together(self, ticket: "_TaskTicket") -> None:
        found = self._queues.find(ticket)
        while any_full(found):
            self._room.clear()
            await self._room.wait()
            check_open(self._closed)
        for queue, places in found.items():
            queue.add(ticket, places)
            if queue not in self._drivers:
                self._start_driver(queue)
        self._changed.set()
        try:
            await ticket.answered
        except asyncio.CancelledError:
            for queue in found:
                queue.abandon(ticket)
            raise

    async def _ask_apart(self, ticket: Ticket, send: _Send) -> None:
        queue = Queue(self._deadline_s)
        queue.add(ticket, range(len(ticket.batch.commands)))
        await self._drive(queue, send)

    async def _follow(self, ticket: "_TaskTicket", batch: Follow) -> None:
        """Wait for the task that reads for many callers."""
        find_node = self._server.find_node
        nodes = {find_node(key) for key in batch.after} if find_node is not None else {""}
        node = nodes.pop() if len(nodes) == 1 else ""
        follower = self._followers.setdefault(node, Follower())
        follower.add(ticket, batch)
        if node not in self._following:
            self._start_following(node)
        try:
            await ticket.answered
        finally:
            follower.remove(ticket)

    def _start_following(self, node: str) -> None:
        task = self._following[node] = asyncio.create_task(self._run_follower(self._followers[node]))
        task.add_done_callback(lambda task: self._following_ended(node, task))

    async def _run_follower(self, follower: Follower) -> None:
        """Read for many callers, until for a moment none waits."""
        while commands := follower.compose(now_s()):
            ticket = Ticket(Batch(commands, own_connection=True), now_s())
            await self._ask_apart(ticket, self._send_apart)
            if ticket.error is not None:
                follower.fail(ticket.error)
                return
            follower.take(ticket.replies, now_s())
            # Callers that just had entries may want more: the next read includes them.
            await asyncio.sleep(0)

    def _following_ended(self, node: str, task: asyncio.Task[None]) -> None:
        """Restart a follower's task that has ended too early, or was cancelled, perhaps before it began."""
        del self._following[node]
        follower = self._followers[node]
        if self._closed:
            follower.fail(closed())
        elif not task.cancelled() and (error := task.exception()) is not None:
            follower.fail(failed(error))
        elif follower.has_callers:
            self._start_following(node)

    def _start_driver(self, queue: Queue) -> None:
        """Start the task that sends the commands of a queue."""
        driver = self._drivers[queue] = asyncio.create_task(self._run_driver(queue))
        driver.add_done_callback(lambda _: self._driver_ended(queue))

    def _driver_ended(self, queue: Queue) -> None:
        """Restart a queue's task that has ended too early, or was cancelled, perhaps before it began."""
        del self._drivers[queue]
        self._room.set()
        if not self._closed and not queue.idle:
            self._start_driver(queue)

    async def _run_driver(self, queue: Queue) -> None:
        """Send the commands of a queue, until for a moment it is idle."""
        while not queue.idle:
            await self._drive(queue, self._server.send)
            # Callers that just had replies may have more to send: it goes in the next round.
            await asyncio.sleep(0)

    async def _drive(self, queue: Queue, send: _Send) -> None:
        """Send rounds of a queue until nothing waits in it."""
        while not queue.idle:
            started_s = now_s()
            queue.enforce_deadlines(started_s)
            calls = queue.next_round(started_s)
            self._room.set()
            for large in queue.take_large():
                self._send_large(queue, large)
            if calls:
                await self._send_round(queue, calls, send)
            elif not queue.idle and queue.resume_s > started_s:
                await asyncio.sleep(queue.resume_s - started_s)
            elif not queue.idle:
                # All that waits must wait for large requests.
                self._changed.clear()
                await self._changed.wait()

    def _send_large(self, queue: Queue, calls: list[Call]) -> None:
        """Start a task that sends a large request."""
        task = asyncio.create_task(self._send_apart(calls))
        self._large.add(task)
        task.add_done_callback(lambda task: self._large_ended(queue, calls, task))

    def _large_ended(self, queue: Queue, calls: list[Call], task: asyncio.Task[list[Any]]) -> None:
        """Settle a large request whose task has ended, or was cancelled, perhaps before it began."""
        self._large.discard(task)
        self._changed.set()
        if task.cancelled():
            queue.fail(calls, closed())
        elif (error := task.exception()) is None:
            self._take(queue, calls, task.result())
        else:
            queue.fail(calls, failed(error))

    async def _send_round(self, queue: Queue, calls: list[Call], send: _Send) -> None:
        try:
            answers = await send(calls)
        except asyncio.CancelledError:
            queue.fail(calls, closed())
            raise
        except Exception as error:  # an unexpected exception of redis-py must not leave callers without a reply
            queue.fail(calls, failed(error))
        else:
            self._take(queue, calls, answers)

    async def _send_apart(self, calls: list[Call]) -> list[Any]:
        return await self._server.send(calls, own_connection=True)

    async def _send_page(self, calls: list[Call]) -> list[Any]:
        """Send calls on their own connection, as soon as fewer than the most are in use."""
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._pages.acquire()
        except TimeoutError:
            return [ConnectionLost("all connections for pages of events are in use", sent=False)] * len(calls)
        try:
            return await self._send_apart(calls)
        finally:
            self._pages.release()

    def _take(self, queue: Queue, calls: list[Call], answers: list[Any]) -> None:
        if news := queue.take(calls, answers, now_s()):
            log.info("%s", news)

    async def close(self) -> None:
        """Send nothing more, and fail the callers that wait."""
        self._closed = True
        if self.home.loop.is_closed():
            # No caller waits. The connections can only be dropped.
            self._server.drop()
        else:
            self._room.set()
            await self.waits.close()
            tasks = [*self._drivers.values(), *self._large, *self._following.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for queue in self._queues:
                queue.fail_all(closed())
        await self._server.close()


class _InFlight:
    """A batch in flight, whose replies may be awaited later."""

    def __init__(self, batch: Batch, sender: Sender) -> None:
        self._task = asyncio.create_task(sender.ask(batch))
        self._task.add_done_callback(_retrieve)

    async def wait(self) -> list[Any]:
        """Return the replies."""
        return await self._task

    def cancel(self) -> None:
        """Drop the replies."""
        self._task.cancel()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Keep asyncio from reporting a failure whose caller is gone."""
    if not task.cancelled():
        task.exception()
