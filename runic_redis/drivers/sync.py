"""Runs operations for threads.

Calls of several threads share round trips. One thread leads a queue: it sends for all that wait and reads the replies
for all. When its own call has its replies, it hands the queue to a thread that waits. A single call is a round trip of
its own thread. A large request is sent by the thread that asked for it, which leads no queue meanwhile.

A signal handler may raise at any point of the main thread, and a fork may copy any state of the other threads. So
nothing here waits on a `Condition` or an `Event`, whose locks an interrupt can break. See `Sender._recover`.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from threading import RLock, Thread
from typing import Any, NoReturn, TypeAlias, TypeVar
from weakref import WeakSet

from runic_redis.drivers.redis_py import log, now_s, too_slow
from runic_redis.drivers.sync_reads import BatchInFlight, first_error, read
from runic_redis.drivers.sync_servers import Pending, Server
from runic_redis.drivers.sync_waits import ThreadPlace, Waits
from runic_redis.errors import StoreError
from runic_redis.protocol.effects import Await, Batch, Join, Operation
from runic_redis.protocol.node_queues import Queues, any_full
from runic_redis.protocol.queue import Queue
from runic_redis.protocol.rounds import Call, Ticket

T = TypeVar("T")
_Rounds: TypeAlias = list[tuple[Queue, list[Call]]]


def run(operation: Operation[T], sender: "Sender") -> T:
    """Run an operation and return its result."""
    ahead: BatchInFlight | None = None
    place: ThreadPlace | None = None
    try:
        effect = next(operation)
        while True:
            if isinstance(effect, Batch):
                effect = operation.send(sender.ask(effect))
            elif isinstance(effect, Await):
                ahead = None
                effect = operation.send(effect.in_flight.wait())  # type: ignore[attr-defined]
            elif isinstance(effect, Join):
                place = ThreadPlace(effect, sender.waits)
                effect = operation.send(place)
            else:
                ahead = BatchInFlight(effect.batch, sender.server, sender.deadline_s)
                effect = operation.send(ahead)
    except StopIteration as stop:
        if ahead is not None:
            # The caller may not come back for long, or ever: until then, others can use the connection.
            ahead.receive()
        result: T = stop.value
        return result
    except BaseException:
        # As in `Sender.ask`, another signal may interrupt this.
        tries = _MOST_INTERRUPTIONS
        while place is not None and tries:
            tries -= 1
            try:
                place.cancel()
            except BaseException:  # noqa: S112 - the first is raised below
                continue
            break
        raise


def run_within(operation: Operation[T], sender: "Sender", limit_s: float) -> T:
    """Run an operation and return its result, but stop waiting for it after a time.

    redis-py has a timeout for each step of making a connection, and none for the whole. So the operation runs in a
    thread, which ends when the sender's server is closed.

    Raises:
        StoreUnavailable: the time has passed.
    """
    outcome: SimpleQueue[Callable[[], T]] = SimpleQueue()

    def carry_out() -> None:
        try:
            result = run(operation, sender)
        except BaseException as error:
            outcome.put(partial(_raise, error))
        else:
            outcome.put(lambda: result)

    try:
        Thread(target=copy_context().run, args=(carry_out,), daemon=True).start()
    except RuntimeError:  # the interpreter is ending, and starts no threads any more
        return run(operation, sender)
    try:
        get = outcome.get(timeout=limit_s)
    except Empty:
        raise too_slow(limit_s) from None
    return get()


def _raise(error: BaseException) -> NoReturn:
    raise error


def _finish(pending: Pending | StoreError) -> list[Any] | StoreError:
    """Return the answers to the calls that were sent, or the error that stands for all of them."""
    if isinstance(pending, StoreError):
        return pending
    try:
        return pending.finish()
    except StoreError as error:
        return error


class _ThreadTicket(Ticket):
    """A call of one thread, and the queues that the thread leads: at first those of the rounds that it has sent.

    Call its methods, and read the fields that other threads write, only while holding the sender's lock.

    Attributes:
        leads: the queues that its thread sends for.
        large: rounds of its large requests, for its thread to send.
        sends_large: whether its thread is sending one, and cannot lead.
        is_queued: whether its commands are in the queues.
        is_done: whether it has its replies, and other threads lead the queues that it led.
        signal: the thread waits on it.
    """

    __slots__ = ("is_done", "is_queued", "large", "leads", "sends_large", "signal")

    def __init__(self, batch: Batch, sent: _Rounds) -> None:
        super().__init__(batch, now_s())
        self.leads = [queue for queue, _ in sent]
        self.large: _Rounds = []
        self.sends_large = False
        self.is_queued = bool(sent)
        self.is_done = False
        self.signal: SimpleQueue[None] = SimpleQueue()

    def wake(self) -> None:
        """Wake its thread, now or when it waits next: it has its replies, or leads a queue now."""
        self.signal.put(None)


# How many signals in a row may interrupt the recovery from the first.
_MOST_INTERRUPTIONS = 100
# The senders of this process: a child restarts them. (To ask for the process's id at each call is a system call.)
_senders: WeakSet["Sender"] = WeakSet()


def _after_fork() -> None:
    for sender in list(_senders):
        sender.restart()


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
        self.server = server
        self.deadline_s = deadline_s
        self._wait_s = wait_s
        self._start()
        _senders.add(self)

    def restart(self) -> None:
        """In a child process: forget other threads, their calls and the connections, which stayed in the parent."""
        self.server.forget()
        self._start()

    def _start(self) -> None:
        # (An RLock can tell whether this thread has it, see `_recover`.)
        self._lock = RLock()
        self._queues = self._new_queues()
        self._led: set[Queue] = set()
        self._tickets: set[_ThreadTicket] = set()
        # Calls that wait until a full queue has room, in order.
        self._waiting_for_room: dict[_ThreadTicket, None] = {}
        self.waits = Waits(self.server)

    def close(self) -> None:
        """End the waits for a turn. The server, which is closed next, ends the rest."""
        self.waits.close()

    def _new_queues(self) -> Queues:
        return Queues(self.deadline_s, self.server.find_node, self._wait_s)

    def ask(self, batch: Batch) -> list[Any]:
        """Send a batch and return its replies.

        Raises:
            StoreError: the store is closed, or the connection cannot be used.
        """
        if not batch.commands:
            return []
        if batch.own_connection:
            return read(batch, self.server, self.deadline_s)
        ticket: _ThreadTicket | None = None
        pending: Pending | StoreError | None = None
        try:
            rounds, pending = self._begin_alone(batch)
            # The server works on it while this thread prepares to wait.
            ticket = _ThreadTicket(batch, rounds)
            self._conduct(ticket, rounds, pending)
        except BaseException:
            # A signal handler has raised, perhaps in the middle of anything, and another may interrupt the recovery.
            # (Handlers run where functions are called: none is before the try.)
            tries = _MOST_INTERRUPTIONS
            while tries:
                tries -= 1
                try:
                    self._recover(ticket, pending)
                except BaseException:  # noqa: S112 - the first is raised below
                    continue
                break
            raise
        if ticket.error is not None:
            raise ticket.error
        return ticket.replies

    def _conduct(self, ticket: _ThreadTicket, rounds: _Rounds, pending: Pending | StoreError | None) -> None:
        """Send rounds and wait until a call has its replies. Its first round may have been sent."""
        pause_s = 0.0
        with self._lock:
            self._tickets.add(ticket)
            if rounds:
                ((queue, calls),) = rounds
                calls[0].requests[0].ticket = ticket
                if queue not in self._led:
                    # Another thread was interrupted meanwhile, and its recovery did not see this call.
                    self._add_lost(ticket)
                    self._choose_leaders()
            else:
                rounds, pause_s = self._next_step(ticket)
        while not ticket.is_done:
            if rounds:
                outcome = _finish(self._begin(rounds) if pending is None else pending)
                pending = None
            elif ticket.leads:
                time.sleep(pause_s)
            else:
                ticket.signal.get()
            news = ""
            with self._lock:
                if rounds:
                    news = self._settle(rounds, outcome)
                rounds, pause_s = self._next_step(ticket)
            if news:
                log.info("%s", news)

    def _begin_alone(self, batch: Batch) -> tuple[_Rounds, Pending | StoreError | None]:
        """Send the one command of a batch, and return its round, if nothing else uses its queue."""
        if len(batch.commands) != 1:
            return [], None
        (command,) = batch.commands
        with self._lock:
            queue = self._queues.find_one(command, batch.confirmation)
            if queue in self._led:
                return [], None
            calls = queue.start_alone(command, now_s())
            if not calls:
                return [], None
            self._led.add(queue)
        rounds = [(queue, calls)]
        return rounds, self._begin(rounds)

    def _enqueue(self, ticket: _ThreadTicket) -> bool:
        """Put a call in the queues, and let it lead those without a leader; whether there was room."""
        found = self._queues.find(ticket)
        if any_full(found):
            self._waiting_for_room[ticket] = None
            return False
        ticket.is_queued = True
        for queue, places in found.items():
            queue.add(ticket, places)
            if queue not in self._led:
                self._led.add(queue)
                ticket.leads.append(queue)
        return True

    def _next_step(self, ticket: _ThreadTicket) -> tuple[_Rounds, float]:
        """Return the rounds that a call's thread sends now; without any, how long it waits."""
        if not ticket.is_queued and not self._enqueue(ticket):
            return [], 0.0
        if self._waiting_for_room:
            self._wake_those_without_room()
        if ticket.sends_large:
            ticket.sends_large = False
            self._choose_leaders()
        rounds: _Rounds = []
        pause_s = 0.0
        if ticket.missing and not ticket.large:
            rounds, pause_s = self._lead(ticket)
        if ticket.missing and ticket.large and not rounds:
            rounds = [self._take_large_round(ticket)]
        if not ticket.missing:
            self._finish(ticket)
        return rounds, pause_s

    def _lead(self, ticket: _ThreadTicket) -> tuple[_Rounds, float]:
        """Return the rounds to send now of the queues that a call leads; without any, how long it waits."""
        started_s = now_s()
        for queue in ticket.leads:
            queue.enforce_deadlines(started_s)
        if not ticket.missing:
            return [], 0.0
        rounds = [(queue, calls) for queue in ticket.leads if (calls := queue.next_round(started_s))]
        for queue in ticket.leads:
            self._hand_out_large(queue)
        if rounds or not ticket.leads:
            return rounds, 0.0
        # (A queue whose requests wait for a large one gets a leader again when that is settled.)
        for queue in [queue for queue in ticket.leads if queue.idle or queue.resume_s <= started_s]:
            ticket.leads.remove(queue)
            self._led.discard(queue)
        return [], max(0.0, min((queue.resume_s for queue in ticket.leads), default=0.0) - started_s)

    def _take_large_round(self, ticket: _ThreadTicket) -> tuple[Queue, list[Call]]:
        """Return the round of a large request, for its thread to send; other threads lead meanwhile."""
        ticket.sends_large = True
        leads, ticket.leads = ticket.leads, []
        for queue in leads:
            self._choose_leader(queue)
        return ticket.large.pop(0)

    def _finish(self, ticket: _ThreadTicket) -> None:
        """Hand over what a settled call leads."""
        ticket.is_done = True
        self._tickets.discard(ticket)
        for queue in ticket.leads:
            if queue.idle:
                self._led.discard(queue)
            else:
                self._choose_leader(queue)
        if ticket.large:
            for queue, calls in ticket.large:
                queue.end_round(calls)
            self._choose_leaders()

    def _hand_out_large(self, queue: Queue) -> None:
        """Give large requests to the threads that asked for them."""
        for calls in queue.take_large():
            owner = calls[0].requests[0].ticket
            if isinstance(owner, _ThreadTicket):
                owner.large.append((queue, calls))
                owner.wake()

    def _begin(self, rounds: _Rounds) -> Pending | StoreError:
        """Send rounds. Return what waits for their answers, or the error that stands for all of these."""
        calls = rounds[0][1] if len(rounds) == 1 else [call for _, some in rounds for call in some]
        try:
            return self.server.begin(calls)
        except StoreError as error:
            return error

    def _settle(self, rounds: _Rounds, outcome: list[Any] | StoreError) -> str:
        """Settle the calls of rounds; return a line for the log, which is written without the lock."""
        ended_s = now_s()
        at = 0
        news = ""
        for queue, calls in rounds:
            if isinstance(outcome, StoreError):
                self._fail(queue, calls, outcome)
                continue
            answers = outcome[at : at + len(calls)]
            at += len(calls)
            # A node that rejects the login does so for its own calls alone.
            if error := first_error(answers):
                self._fail(queue, calls, error)
            else:
                news = queue.take(calls, answers, ended_s) or news
        return news

    def _fail(self, queue: Queue, calls: list[Call], error: StoreError) -> None:
        """Fail a round for good; but not one of before a recovery, whose calls are in the new queues."""
        if queue in self._queues:
            queue.fail(calls, error)

    def _choose_leader(self, queue: Queue) -> None:
        tickets = queue.waiting_tickets()
        successor = next((one for one in tickets if isinstance(one, _ThreadTicket) and not one.sends_large), None)
        if successor is not None:
            self._led.add(queue)
            successor.leads.append(queue)
            successor.wake()
        else:
            self._led.discard(queue)

    def _choose_leaders(self) -> None:
        """Choose a leader for each queue that has none and in which something waits."""
        for queue in self._queues:
            if queue not in self._led:
                self._choose_leader(queue)

    def _wake_those_without_room(self) -> None:
        """Wake the calls that wait for room: they look again once the lock is free."""
        woken, self._waiting_for_room = self._waiting_for_room, {}
        for ticket in woken:
            ticket.wake()

    def _recover(self, interrupted: _ThreadTicket | None, pending: Pending | StoreError | None) -> None:
        """Restart with all calls but the interrupted one, as if all their commands had been sent and lost."""
        with suppress(RuntimeError):
            # Raised if this thread does not have it: it was interrupted elsewhere.
            self._lock.release()
        if not (pending is None or isinstance(pending, StoreError)):
            pending.cancel()
        with self._lock:
            if interrupted is not None:
                interrupted.abandoned = True
                self._tickets.discard(interrupted)
            self._queues = self._new_queues()
            self._led = set()
            for ticket in self._tickets:
                self._add_lost(ticket)
            self._choose_leaders()
            for ticket in self._tickets:
                ticket.wake()

    def _add_lost(self, ticket: _ThreadTicket) -> None:
        """Put a call in the new queues, as if all its commands had been sent and lost. It leads none of the old."""
        ticket.leads = []
        ticket.large = []
        if ticket.error is None and ticket.is_queued:
            waiting = ticket.unanswered()
            ticket.missing = len(waiting)
            for queue, places in self._queues.find(ticket).items():
                queue.add_lost(ticket, [place for place in places if place in waiting])
