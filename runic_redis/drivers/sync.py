"""Runs operations on a redis-py client, for threads.

The calls of several threads travel together: one thread at a time sends, for all that wait, and reads the replies for
all; who is answered first hands over to one that waits. A call that is alone is a round trip of its own thread. A large
request is sent by its own thread, which leads no others meanwhile.

Commands go straight to a connection: redis-py's own command methods send a command again when its connection
breaks, up to ten times by default, and here nothing below an operation may do that. The user's client itself is left
as it is.

A signal's handler may raise at any point of the main thread, and a fork may copy any state of the other threads. So
nothing here waits on a `Condition` or an `Event`, whose locks an interrupt can break; and connections are kept in plain
lists, whose operations are atomic.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from threading import RLock, Thread
from typing import Any, NoReturn, TypeAlias, TypeVar
from weakref import WeakSet

from runic_redis.drivers.redis_py import (
    log,
    now_s,
    too_slow,
)
from runic_redis.drivers.sync_servers import Server
from runic_redis.errors import StoreError
from runic_redis.protocol.effects import Await, Batch, Operation
from runic_redis.protocol.following import Follow
from runic_redis.protocol.queue import Call, Group, Groups, Ticket, any_full

__all__ = ["Sender", "run", "run_within"]

T = TypeVar("T")
_Rounds: TypeAlias = list[tuple[Group, list[Call]]]


def run(operation: Operation[T], sender: "Sender") -> T:
    """Carry an operation out; its result."""
    ahead: _InFlight | None = None
    try:
        effect = next(operation)
        while True:
            if isinstance(effect, Batch):
                effect = operation.send(sender.ask(effect))
            elif isinstance(effect, Await):
                ahead = None
                effect = operation.send(effect.in_flight.wait())  # type: ignore[attr-defined]
            else:
                ahead = _InFlight(effect.batch, sender)
                effect = operation.send(ahead)
    except StopIteration as stop:
        if ahead is not None:
            # The caller may not come back for long, or ever: until then, others can use the connection.
            ahead.receive()
        result: T = stop.value
        return result


def run_within(operation: Operation[T], sender: "Sender", limit_s: float) -> T:
    """Carry an operation out, as `run` does, but give it up after a time; its result.

    redis-py has time limits for each step of making a connection, and none for the whole. So the operation runs in a
    thread, which ends when the sender's server is closed.

    Raises:
        StoreUnavailable: the time is over.
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


class _ThreadTicket(Ticket):
    """A call of one thread, and the groups that it sends for.

    Its methods are called with the sender's lock held, and what others than its thread change is looked at with it.
    """

    __slots__ = ("is_done", "is_queued", "large", "leads", "sends_large", "signal")

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch, now_s())
        self.leads: list[Group] = []
        # Rounds of its large requests, for its thread to send; and whether that is sending one, and cannot lead.
        self.large: _Rounds = []
        self.sends_large = False
        # Whether its commands are in the queues.
        self.is_queued = False
        # Whether it is answered, and others lead what it led.
        self.is_done = False
        self.signal: SimpleQueue[None] | None = None

    def wake(self) -> None:
        """Have the thread look, if it waits: it is answered, or has become a leader."""
        if self.signal is not None:
            self.signal.put(None)

    def prepare_to_wait(self) -> SimpleQueue[None]:
        """What the thread will wait on."""
        if self.signal is None:
            self.signal = SimpleQueue()
        return self.signal


# How many signals in a row may interrupt what copes with the first.
_MOST_INTERRUPTIONS = 100
# Those of this process: a child starts them anew. (Asking for the process's id at each call is a system call.)
_senders: WeakSet["Sender"] = WeakSet()


def _after_fork() -> None:
    for sender in list(_senders):
        sender.restart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Sender:
    """Answers batches, those of concurrent calls together.

    Args:
        server: what to send to.
        deadline_s: for how long a command is tried, from its first try; or waits for one, while the server fails.
        wait_s: how long a server may be let wait for a confirmation, in one round.
    """

    def __init__(self, server: Server, deadline_s: float, wait_s: float) -> None:
        self.server = server
        self.deadline_s = deadline_s
        self._wait_s = wait_s
        self._start()
        _senders.add(self)

    def restart(self) -> None:
        """In a child process: other threads, what they were sending, and the connections stayed in the parent."""
        self.server.forget()
        self._start()

    def _start(self) -> None:
        # (An RLock can tell whether this thread has it, see `_recover`.)
        self._lock = RLock()
        self._groups = self._new_groups()
        self._led: set[Group] = set()
        self._tickets: set[_ThreadTicket] = set()
        # Calls that wait to be let into a queue that is full, in order.
        self._waiting_for_room: dict[_ThreadTicket, None] = {}

    def _new_groups(self) -> Groups:
        return Groups(self.deadline_s, self.server.find_node if self.server.many_nodes else None, self._wait_s)

    def ask(self, batch: Batch) -> list[Any]:
        """The replies to a batch.

        Raises:
            StoreError: the store is closed, or the connection cannot be used.
        """
        if not batch.commands:
            return []
        if batch.own_connection:
            return self._ask_apart(batch)
        ticket = _ThreadTicket(batch)
        try:
            with self._lock:
                self._tickets.add(ticket)
                rounds, pause_s = self._compose(ticket)
            while not ticket.is_done:
                if rounds:
                    outcome = self._send_rounds(rounds)
                elif ticket.leads:
                    time.sleep(pause_s)
                else:
                    ticket.prepare_to_wait().get()
                news = ""
                with self._lock:
                    if rounds:
                        news = self._settle(rounds, outcome)
                    rounds, pause_s = self._compose(ticket)
                if news:
                    log.info("%s", news)
        except BaseException:
            # A signal's handler has raised, and may have done so in the middle of anything.
            # Another may interrupt even that. (Handlers run where functions are called: none is before the try.)
            tries = _MOST_INTERRUPTIONS
            while tries:
                tries -= 1
                try:
                    self._recover(ticket)
                except BaseException:  # noqa: S112 - the first is raised below
                    continue
                break
            raise
        if ticket.error is not None:
            raise ticket.error
        return ticket.replies

    def _ask_apart(self, batch: Batch) -> list[Any]:
        in_flight = _InFlight(batch, self)
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

    def _enqueue(self, ticket: _ThreadTicket) -> bool:
        """Put a call in the queues, and have it lead those that nobody leads; whether there was room."""
        found = self._groups.find(ticket)
        if any_full(found):
            self._waiting_for_room[ticket] = None
            return False
        ticket.is_queued = True
        for group, places in found.items():
            group.add(ticket, places)
            if group not in self._led:
                self._led.add(group)
                ticket.leads.append(group)
        return True

    def _compose(self, ticket: _ThreadTicket) -> tuple[_Rounds, float]:
        """What a call is to send now; if nothing, how long it should wait."""
        if not ticket.is_queued and not self._enqueue(ticket):
            ticket.prepare_to_wait()
            return [], 0.0
        self._wake_waiting_for_room()
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
        elif not rounds and not ticket.leads:
            ticket.prepare_to_wait()
        return rounds, pause_s

    def _lead(self, ticket: _ThreadTicket) -> tuple[_Rounds, float]:
        """What a call is to send now for the groups that it leads; if nothing, how long it should wait."""
        started_s = now_s()
        for group in ticket.leads:
            group.enforce_deadlines(started_s)
        if not ticket.missing:
            return [], 0.0
        rounds = [(group, calls) for group in ticket.leads if (calls := group.next_round(started_s))]
        for group in ticket.leads:
            self._hand_out_large(group)
        if rounds or not ticket.leads:
            return rounds, 0.0
        # (What waits behind a large request is led again when that is answered.)
        for group in [group for group in ticket.leads if group.idle or group.resume_s <= started_s]:
            ticket.leads.remove(group)
            self._led.discard(group)
        return [], max(0.0, min((group.resume_s for group in ticket.leads), default=0.0) - started_s)

    def _take_large_round(self, ticket: _ThreadTicket) -> tuple[Group, list[Call]]:
        """The round of a large request, for its thread to send; others lead meanwhile."""
        ticket.sends_large = True
        leads, ticket.leads = ticket.leads, []
        for group in leads:
            self._choose_leader(group)
        return ticket.large.pop(0)

    def _finish(self, ticket: _ThreadTicket) -> None:
        """A call is answered: others go on."""
        ticket.is_done = True
        self._tickets.discard(ticket)
        for group in ticket.leads:
            self._choose_leader(group)
        if ticket.large:
            for group, calls in ticket.large:
                group.end_round(calls)
            self._choose_leaders()

    def _hand_out_large(self, group: Group) -> None:
        """Have the threads that wait for large requests send them."""
        for calls in group.take_large():
            owner = calls[0].requests[0].ticket
            if isinstance(owner, _ThreadTicket):
                owner.large.append((group, calls))
                owner.wake()

    def _send_rounds(self, rounds: _Rounds) -> list[Any] | StoreError:
        """Send rounds and read the replies."""
        calls = rounds[0][1] if len(rounds) == 1 else [call for _, some in rounds for call in some]
        try:
            return self.server.begin(calls).finish()
        except StoreError as error:
            return error

    def _settle(self, rounds: _Rounds, outcome: list[Any] | StoreError) -> str:
        """Give everybody the replies to rounds; what is to be logged about them, outside of the lock."""
        ended_s = now_s()
        at = 0
        news = ""
        for group, calls in rounds:
            answers = [outcome] * len(calls) if isinstance(outcome, StoreError) else outcome[at : at + len(calls)]
            at += len(calls)
            # A node that refuses the login does so for its own calls alone.
            if refusal := _first_error(answers):
                group.fail(calls, refusal)
            else:
                news = group.take(calls, answers, ended_s) or news
        return news

    def _choose_leader(self, group: Group) -> None:
        tickets = group.waiting_tickets()
        successor = next((one for one in tickets if isinstance(one, _ThreadTicket) and not one.sends_large), None)
        if successor is not None:
            self._led.add(group)
            successor.leads.append(group)
            successor.wake()
        else:
            self._led.discard(group)

    def _choose_leaders(self) -> None:
        """Have every group led in which something waits."""
        for group in self._groups:
            if group not in self._led:
                self._choose_leader(group)

    def _wake_waiting_for_room(self) -> None:
        """Have those who wait for room look again, once the lock is free."""
        kept_out, self._waiting_for_room = self._waiting_for_room, {}
        for ticket in kept_out:
            ticket.wake()

    def _recover(self, interrupted: _ThreadTicket) -> None:
        """Start anew with all calls but one, as if all that they wait for had been sent and lost."""
        with suppress(RuntimeError):
            # Raised if this thread does not have it: it was interrupted elsewhere.
            self._lock.release()
        with self._lock:
            interrupted.abandoned = True
            self._tickets.discard(interrupted)
            self._groups = self._new_groups()
            self._led = set()
            for ticket in self._tickets:
                ticket.leads = []
                ticket.large = []
                if ticket.error is None and ticket.is_queued:
                    waiting = ticket.unanswered()
                    ticket.missing = len(waiting)
                    for group, places in self._groups.find(ticket).items():
                        group.add_lost(ticket, [place for place in places if place in waiting])
            for group in self._groups:
                self._choose_leader(group)
            for ticket in self._tickets:
                ticket.wake()


def _stopped() -> StoreError:
    return StoreError("The tail was closed. Nothing was changed.")


def _first_error(answers: Sequence[Any]) -> StoreError | None:
    """The error that stands for an answer, if there is one."""
    return next((answer for answer in answers if isinstance(answer, StoreError)), None)


class _InFlight:
    """A batch on a connection of its own, sent and not waited for."""

    def __init__(self, batch: Batch, sender: Sender) -> None:
        self._server = sender.server
        self._ticket = Ticket(batch, now_s())
        self._group = Group(sender.deadline_s)
        self._group.add(self._ticket, range(len(batch.commands)))
        # What was received and not collected yet.
        self._answers: list[Any] | StoreError | None = None
        self._interrupted = False
        self._send()

    def _send(self) -> None:
        started_s = now_s()
        self._group.enforce_deadlines(started_s)
        self._calls = self._group.next_round(started_s)
        if self._calls:
            self._pending = self._server.begin(self._calls)

    def receive(self) -> list[Any] | StoreError:
        """Read the replies into memory, unless they are there already; that gives the connection back."""
        if self._answers is None:
            try:
                self._answers = self._pending.finish()
            except StoreError as error:
                self._answers = error
        return self._answers

    def wait(self) -> list[Any]:
        """The replies."""
        # It was sent ahead: for how long it is tried counts from when it is wanted.
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
                if refusal := _first_error(answers):
                    raise refusal
                if news := self._group.take(self._calls, answers, now_s()):
                    log.info("%s", news)
            if not self._ticket.missing:
                return self._ticket.replies
            time.sleep(max(0.0, self._group.resume_s - now_s()))
            self._send()

    def cancel(self) -> None:
        """Give up on the replies."""
        self._pending.cancel()

    def interrupt(self) -> None:
        """From another thread: have a `wait` that waits fail."""
        self._interrupted = True
        self._pending.interrupt()
