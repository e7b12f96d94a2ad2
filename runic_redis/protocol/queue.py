"""Group commit: the commands of concurrent calls share round trips. Retries are decided here and nowhere else.

The states of a request, and the methods of `Queue` that move it between them::

    add, add_lost
          |
          v     next_round, take_large
       waiting -------------------------> in flight
        |   ^                               |   |
        |   |  take: transient failure,     |   |
        |   |        connection lost        |   |
        |   +-------------------------------+   |
        |                                       |  take: a reply, or an error that lasts
        |  enforce_deadlines: no time left      |  fail: an error of the whole round
        |  fail_all, abandon                    |
        +-----------------> settled <-----------+

- **Waiting.** Requests that arrive during a round trip go in the next round. There are no timers. A queue has one round
  in flight, and beside it a few large requests, each on its own connection. A request that meets no others does not
  wait (`start_alone`).
- **In flight.** The commands of a workflow keep their order, whatever fails. Two of them share a round only as parts of
  one call. Otherwise the second waits until the first is settled.
- **Retried.** A request whose reply was lost may have been carried out. `_judge` marks it `unsure`. From then on it is
  sent with the arguments of a retry (`Command.as_retry`): by these its script finds an earlier try that was carried
  out. Such a request stays undecided until it has a reply or its deadline has passed.
- **Paused.** A failure is taken as one of the server, so all requests wait until `resume_s`. The pause doubles with
  each failure in a row, up to a limit, and has jitter.
- **Settled.** The ticket has the reply. A request without one at its deadline gets `Unanswered`, or `Unconfirmed` if it
  was carried out and not confirmed.

A driver calls `enforce_deadlines`, asks for the `next_round`, sends it, and gives the answers to `take`. A queue knows
no sockets, no threads and no clock.
"""

import math
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from runic_redis.errors import StoreError
from runic_redis.protocol.confirmation import Confirming
from runic_redis.protocol.effects import (
    TRANSIENT,
    Command,
    Confirmation,
    ConnectionLost,
    ErrorReply,
    Unanswered,
    Unconfirmed,
)
from runic_redis.protocol.rounds import LARGE_BYTES, NO_REPLY, NO_TICKET, Call, Plan, Request, Ticket
from runic_redis.protocol.size_limits import limit_questions, size_verdict

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0
# The most calls of a round: enough to share its cost, too few to delay others.
_MOST_CALLS = 512
# The shortest time that a server waits for a confirmation, also when the deadline is near.
_SHORTEST_WAIT_S = 0.05
# From how many requests on a round may be halved. Callers that seem slower than this were not at work in between.
_FEW = 16
_SLOWEST_CALLER_S = 0.0001
# When this much waits for a node, new calls wait until there is room.
_FULL_COMMANDS = 4096
_FULL_BYTES = 64 * 1024 * 1024
# The most large requests in flight.
_MOST_LARGE = 4


_EARLIER_TRY = "An earlier try had no reply: whether it was carried out is not known."
_TROUBLE = frozenset({ErrorReply, ConnectionLost, Unconfirmed})


def back_off_s(failures: int) -> float:
    """Return the longest pause after so many failures in a row."""
    # (A float has no room for 2 to the power of some thousand failures.)
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(failures, 60))


class Queue:
    """The requests that wait to be sent to one node. Not for two threads at once.

    Args:
        deadline_s: the deadline of a command, from its first try or from when it began to wait for a failing server.
        by_slot: whether the requests of a call must be of one slot.
        confirmation: what has to confirm the writes.
        wait_s: the longest time that a server may wait for a confirmation, in one round.

    Attributes:
        resume_s: the time from which a round may be sent.
    """

    def __init__(
        self,
        deadline_s: float,
        *,
        by_slot: bool = False,
        confirmation: Confirmation | None = None,
        wait_s: float = math.inf,
    ) -> None:
        self._deadline_s = deadline_s
        self._by_slot = by_slot
        self._confirmation = confirmation
        self._wait_s = wait_s
        self._waiting: deque[Request] = deque()
        self._waiting_bytes = 0
        # Both drivers send large requests beside the round, so both have to be counted.
        self._round_in_flight = False
        self._large_in_flight: list[Request] = []
        # Rounds of large requests that no driver has taken yet.
        self._large_rounds: list[list[Call]] = []
        # Whether the server rejects EVALSHA.
        self._only_text = False
        # The last round: when it was sent and answered, how many requests were in it or waited then, whether it took
        # all of them, and the time for each in it.
        self._sent_s = 0.0
        self._answered_s = 0.0
        self._about = 0
        self._was_whole = False
        self._each_s = math.inf
        # The time that the callers take for each request.
        self._caller_s = 0.0
        # Since when the server has failed, how many rounds in a row, and how.
        self._failing_s = 0.0
        self._failures = 0
        self._reason = ""
        self.resume_s = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing waits, and nothing is in flight."""
        return not self._waiting and not self._round_in_flight and not self._large_in_flight

    @property
    def is_full(self) -> bool:
        """Whether new calls must wait for room."""
        return len(self._waiting) >= _FULL_COMMANDS or self._waiting_bytes >= _FULL_BYTES

    def waiting_tickets(self) -> Iterator[Ticket]:
        """Return the tickets of the requests that wait, in their order."""
        while self._waiting and not self._waiting[0].ticket.missing:
            # Added again by `add_lost`, and settled since by the round that was thought lost.
            self._waiting_bytes -= self._waiting.popleft().command.size
        return (request.ticket for request in self._waiting if request.ticket.missing)

    def add(self, ticket: Ticket, places: Iterable[int]) -> None:
        """Add some of a ticket's commands, behind those that wait already."""
        commands = ticket.batch.commands
        for place in places:
            self._waiting.append(Request(commands[place], ticket, place, with_text=self._only_text))
            self._waiting_bytes += commands[place].size

    def add_lost(self, ticket: Ticket, places: Iterable[int]) -> None:
        """Add commands that may have been sent before: as retries."""
        before = len(self._waiting)
        self.add(ticket, places)
        for request in list(self._waiting)[before:]:
            request.first_s = ticket.asked_s
            request.unsure = True

    def abandon(self, ticket: Ticket) -> None:
        """Drop the waiting requests of a ticket whose caller is gone. Those in flight go on, and are not retried."""
        ticket.abandoned = True
        self._replace_waiting([request for request in self._waiting if request.ticket is not ticket])

    def _replace_waiting(self, requests: Sequence[Request]) -> None:
        self._waiting = deque(requests)
        self._waiting_bytes = sum(request.command.size for request in requests)

    def enforce_deadlines(self, now_s: float) -> None:
        """Settle the requests whose deadline has passed: tried in vain for so long, or waiting for others that were."""
        if not self._failures:
            return
        left = []
        for request in self._waiting:
            asked_s = request.ticket.asked_s
            since_s = max(asked_s, self._failing_s)
            if request.first_s is not None:
                since_s = min(since_s, request.first_s)
            elif asked_s >= self._sent_s:
                since_s = math.inf  # nothing has been tried since it came
            if now_s - since_s < self._deadline_s:
                left.append(request)
                continue
            unanswered = Unanswered(self._reason, now_s - since_s, request.in_doubt, refused=not request.unsure)
            request.ticket.settle(request.place, request.unconfirmed or unanswered)
        self._replace_waiting(left)

    def start_alone(self, command: Command, now_s: float) -> list[Call]:
        """Put a command in flight, as `add` and `next_round` would; return nothing if others come first.

        Most calls of a program meet no others. The driver creates the ticket while the server works, and sets it as
        that of the request.
        """
        if (
            self._waiting
            or self._round_in_flight
            or self._large_in_flight
            or now_s < self.resume_s
            or command.size >= LARGE_BYTES
        ):
            return []
        calls = [Call(Request(command, NO_TICKET, 0, self._only_text, now_s))]
        self._round_in_flight = True
        self._sent_s = now_s
        if self._confirmation is not None:
            self._add_confirmation(calls, self._confirmation, now_s)
        return calls

    def next_round(self, now_s: float) -> list[Call]:
        """Return the calls to send now; empty if nothing waits, or none of it may go yet (see `resume_s`).

        Large requests that may go now are not in it: see `take_large`.
        """
        waiting = self._waiting
        if not waiting or self._round_in_flight or now_s < self.resume_s:
            return []
        plan = Plan(by_slot=self._by_slot)
        for request in self._large_in_flight:
            plan.hold(request.command.workflow_id)
        left: list[Request] = []
        most = room = self._round_size(now_s)
        ticket = waiting[0].ticket
        while waiting and len(plan.calls) < _MOST_CALLS:
            request = waiting.popleft()
            if not request.ticket.missing:
                # It has failed at another node; or was added again by `add_lost`, and settled since.
                self._waiting_bytes -= request.command.size
                continue
            room -= 1
            if (room < 0 and request.ticket is not ticket) or not plan.has_room(request):
                left.append(request)
                break
            ticket = request.ticket
            if not self._place(request, plan, now_s):
                left.append(request)
        self._waiting_bytes -= plan.size
        if left:
            waiting.extendleft(reversed(left))
        if plan.calls:
            self._round_in_flight = True
            self._was_whole = not waiting and most - room >= self._about
            self._sent_s = now_s
            if self._confirmation is not None:
                self._add_confirmation(plan.calls, self._confirmation, now_s)
        return plan.calls

    def _place(self, request: Request, plan: Plan, now_s: float) -> bool:
        """Put a request in flight; False if it must wait."""
        if request.is_large:
            workflow_id = request.command.workflow_id
            is_behind = workflow_id in plan.workflows or workflow_id in plan.held
            plan.hold(workflow_id)
            if is_behind or len(self._large_in_flight) == _MOST_LARGE:
                return False
            self._begin_large(request, now_s)
        elif not plan.place(request):
            return False
        elif request.first_s is None:
            request.first_s = now_s
        return True

    def _begin_large(self, request: Request, now_s: float) -> None:
        """Put a large request in flight, or the questions whether the server has rejected it for its size."""
        if request.suspicion is not None:
            calls = limit_questions(request)
        else:
            calls = [Call(request)]
            if request.first_s is None:
                request.first_s = now_s
            if self._confirmation is not None:
                self._add_confirmation(calls, self._confirmation, now_s)
        self._waiting_bytes -= request.command.size
        self._large_in_flight.append(request)
        self._sent_s = now_s
        self._large_rounds.append(calls)

    def take_large(self) -> list[list[Call]]:
        """Return the rounds of large requests to send now, each on its own connection."""
        rounds, self._large_rounds = self._large_rounds, []
        return rounds

    def _add_confirmation(self, calls: Sequence[Call], confirmation: Confirmation, now_s: float) -> None:
        requests = [request for call in calls for request in call.requests]
        oldest_s = min(request.first_s or now_s for request in requests)
        left_s = max(_SHORTEST_WAIT_S, oldest_s + self._deadline_s - now_s)
        touch = any(request.unsure or not request.command.writes for request in requests)
        confirming = Confirming(confirmation, int(min(self._wait_s, left_s) * 1000), touch)
        for call in calls:
            call.confirming = confirming

    def _round_size(self, now_s: float) -> int:
        """Return the number of requests that the next round takes.

        It is half of them if they are many: while the server works on one half, the callers that just had their
        replies make up the other. This pays unless a round trip takes longer than the callers, since one of all takes
        its time only once. After a round of all, the next one begins when all callers are done, which shows their time.
        """
        about = max(len(self._waiting), self._about)
        if about < _FEW:
            return about
        caller_s = (now_s - self._answered_s) / about
        if self._was_whole and caller_s < _SLOWEST_CALLER_S:
            self._caller_s = caller_s
        return about if self._each_s > 2 * self._caller_s else (about + 1) // 2

    def take(self, sent: Sequence[Call], answers: Sequence[Any], now_s: float) -> str:
        """Settle the requests of a round by the answers to it; those that failed for now wait to be retried.

        Returns:
            A line for the log, when retries begin or end; mostly ''.
        """
        self.end_round(sent)
        reason = ""
        again: list[Request] = []
        (first, *_) = sent[0].requests
        if not sent[0].own_connection:
            answered = sum(map(len, [call.requests for call in sent]))
            self._about = answered + len(self._waiting)
            self._each_s = (now_s - self._sent_s) / answered
            self._answered_s = now_s
        if first.suspicion is not None:
            error, reason = size_verdict(first, first.suspicion, answers)
            first.suspicion = None
            if error is not None:
                first.ticket.settle(first.place, error)
            else:
                again.append(first)
            sent = answers = ()
        for call, answer in zip(sent, answers, strict=True):
            for request, reply in zip(call.requests, call.replies(answer), strict=True):
                settled = reply
                if type(reply) in _TROUBLE:
                    settled, failure = self._judge(request, call, reply, now_s)
                    if failure is not None:
                        reason = failure or reason
                        again.append(request)
                        continue
                request.ticket.settle(request.place, settled)
        if not (again or self._failures):
            return ""
        news = self._note_health(reason, again, now_s)
        if again:
            again = [request for request in _with_rest_of_batch(sent, again) if not request.ticket.abandoned]
            self._replace_waiting([*again, *self._waiting])
        return news

    def _note_health(self, reason: str, again: Sequence[Request], now_s: float) -> str:
        """Begin, lengthen or end the pause before the next round; return a line for the log, mostly ''."""
        news = ""
        if reason:
            if not self._failures:
                self._failing_s = self._sent_s
                news = f"Redis fails ({reason}). Commands are retried, each for {self._deadline_s:g} s."
            self._reason = reason
            self._failures += 1
            longest = min(self._deadline_s / 8, back_off_s(self._failures))
            # A pause does not outlast a deadline; nor does a crowd with many deadlines shorten it to nothing.
            due_s = min(request.first_s for request in again if request.first_s is not None) + self._deadline_s
            self.resume_s = now_s + min(longest * random.uniform(0.5, 1), max(_FIRST_PAUSE_S, due_s - now_s))
        elif self._failures:
            news = "Redis answers again."
            self._failures = 0
        return news

    def end_round(self, sent: Sequence[Call]) -> None:
        """End a round without answers, as its callers are gone. For any other round, call `take` or `fail`."""
        if sent[0].own_connection:
            self._large_in_flight.remove(sent[0].requests[0])
        else:
            self._round_in_flight = False

    def _judge(self, request: Request, call: Call, reply: Any, now_s: float) -> tuple[Any, str | None]:
        """Decide whether a request in trouble is settled or retried.

        Returns:
            The reply that settles it, and None; or anything, and how the server failed, '' if it did not.
        """
        failure: str | None = ""
        if type(reply) is Unconfirmed:
            request.unsure = True
            request.unconfirmed = reply
            reply.elapsed_s = now_s - (request.first_s or now_s)
            failure = reply.reason if reply.transient else None
        elif type(reply) is ConnectionLost:
            request.unsure = request.unsure or reply.sent
            if request.is_large and reply.closed:
                request.suspicion = reply
            else:
                failure = reply.reason
        elif request.is_large and reply.code == "Protocol":
            # The code that redis-py leaves of "ERR Protocol error: invalid bulk length".
            request.suspicion = reply
        elif reply.code == "NOSCRIPT":
            request.with_text = True
        elif request.command.script is not None and not request.with_text and _rejects_evalsha(reply):
            request.with_text = self._only_text = True
        elif reply.code == "CROSSSLOT" and len(call.requests) > 1:
            # A node of a cluster that has all the slots. (One of the requests may cross slots by itself.)
            self._by_slot = request.alone = True
        elif reply.code in TRANSIENT:
            failure = reply.text
        elif reply.code != "LOOK_AGAIN":  # by which the others of its call have used up what a script may look through
            return ErrorReply(reply.code, reply.message, request.unsure), None
        return reply, failure

    def fail(self, sent: Sequence[Call], error: StoreError) -> None:
        """Fail a round for good, with each ticket that has a request in it."""
        self.end_round(sent)
        for call in sent:
            for request in call.requests:
                ticket = request.ticket
                if ticket.missing:
                    self._fail(ticket, type(error)(f"{error} {_EARLIER_TRY}") if request.in_doubt else error)

    def fail_all(self, error: StoreError) -> None:
        """Fail each ticket that waits."""
        while ticket := next(self.waiting_tickets(), None):
            self._fail(ticket, error)

    def _fail(self, ticket: Ticket, error: StoreError) -> None:
        # In this order: an interrupt may come between any two, and a call that was abandoned is not retried.
        ticket.error = error
        ticket.missing = 0
        self.abandon(ticket)
        ticket.wake()


def _with_rest_of_batch(sent: Sequence[Call], again: list[Request]) -> list[Request]:
    """Return the requests to retry, with the others of their batch if its replies are valid only together."""
    tickets = [request.ticket for request in again if request.ticket.batch.all_or_none]
    if not tickets:
        return again
    wanted = []
    for call in sent:
        for request in call.requests:
            if request in again:
                wanted.append(request)
            elif request.ticket in tickets:
                request.ticket.missing += 1
                request.ticket.replies[request.place] = NO_REPLY
                wanted.append(request)
    return wanted


def _rejects_evalsha(reply: ErrorReply) -> bool:
    """Whether the server does not have EVALSHA, or does not allow it to this user."""
    return reply.says_unknown("EVALSHA") or (reply.code == "NOPERM" and "evalsha" in reply.message.lower())
