"""Group commit: the commands of concurrent calls travel together, and here alone anything is ever sent twice.

What arrives while a round trip is under way goes in the next one: there are no timers. A driver has a group give up
what has passed its deadline, asks it for the next round, sends that, and tells the group how it was answered; a group
knows no sockets, no threads and no clock.

A command whose reply was lost may have been carried out. It is sent again, told so (`Command.retry_at`), until it is
answered or its deadline has passed; and nothing of its line is sent before that is decided, so that order holds
whatever fails. A failure is taken for the server's, so everything for it waits out the pause.

A large request is a round of its own, on its own connection, beside the rounds of the others. A server that rejects it
for its size closes the connection, often without a word. So when that happens the group asks the server for its limits,
and answers the request with the error TOO_LARGE if it exceeds one. Any other lost connection leads to a retry.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from runic_redis.errors import StoreError
from runic_redis.protocol.confirmation import Confirming
from runic_redis.protocol.effects import (
    PASSING,
    Argument,
    Batch,
    Command,
    Confirmation,
    ErrorReply,
    Lost,
    Unanswered,
    Unconfirmed,
)

__all__ = ["Call", "Group", "Groups", "Ticket", "is_full"]

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0
# What goes in one round trip, and in one call of a script: enough to share their cost, too little to hold up others.
_MOST_CALLS = 512
_MOST_BYTES = 4 * 1024 * 1024
_MOST_JOINED = 128
# How long a server is let wait for a confirmation at least, also when the deadline is near.
_SHORTEST_WAIT_S = 0.05
# From how many on a round is halved, and how fast a server must answer each for that.
_FEW = 16
_QUICK_S = 0.00005
# When this much waits for a node, who comes is made to wait until some of it has left.
_FULL_COMMANDS = 4096
_FULL_BYTES = 64 * 1024 * 1024
# A request from this size on is large: half of the least that a server can be set to accept. So many are under way.
_LARGE_BYTES = 512 * 1024
_MOST_LARGE = 4
# The limits that a value may exceed, each with the bytes around the value that count towards it.
_LIMITS = {"proto-max-bulk-len": 0, "client-query-buffer-limit": 2}
# How often a server that does not tell its limits may close the connection of a large request.
_MOST_CLOSED = 3


_EARLIER_TRY = "An earlier try had no answer: whether it was carried out is not known."
_TROUBLE = frozenset({ErrorReply, Lost, Unconfirmed})
# In place of a reply that is not there yet.
_WAITING: Any = object()


class Ticket:
    """A batch that waits to be answered; a driver's own kind of it knows whom to tell.

    Args:
        batch: what is asked.
        asked_s: the time when it was asked.

    Attributes:
        replies: as many as the batch has commands.
        missing: how many of them are not there yet.
        abandoned: whether nobody waits for it any more.
        error: what it failed with as a whole, in place of the replies.
    """

    __slots__ = ("abandoned", "asked_s", "batch", "error", "missing", "replies")

    def __init__(self, batch: Batch, asked_s: float) -> None:
        self.batch = batch
        self.asked_s = asked_s
        self.abandoned = False
        self.error: StoreError | None = None
        self.missing = len(batch.commands)
        self.replies: list[Any] = [_WAITING] * self.missing

    def wake(self) -> None:
        """The last reply is there."""

    def unanswered(self) -> list[int]:
        """The places of its commands that have no reply."""
        return [place for place, reply in enumerate(self.replies) if reply is _WAITING]


class _Request:
    """One command of a ticket, until it is answered."""

    __slots__ = (
        "alone",
        "closed",
        "command",
        "first_s",
        "place",
        "suspicion",
        "ticket",
        "unconfirmed",
        "unsure",
        "with_text",
    )

    def __init__(self, command: Command, ticket: Ticket, place: int, *, with_text: bool) -> None:
        self.command = command
        self.ticket = ticket
        self.place = place
        # When it was first sent, and whether it may have been carried out since.
        self.first_s: float | None = None
        self.unsure = False
        # What the last try came to, if it was carried out, but not confirmed.
        self.unconfirmed: Unconfirmed | None = None
        # Whether to send its script's text: the server does not know the script, or has no EVALSHA.
        self.with_text = with_text
        # Whether it is sent as a call that no other joins: one of those that it was joined with crosses slots.
        self.alone = False
        # Why the server may have rejected it for its size; and how often it has closed the connection.
        self.suspicion: ErrorReply | Lost | None = None
        self.closed = 0

    @property
    def large(self) -> bool:
        """Whether it has a connection of its own."""
        return self.command.size >= _LARGE_BYTES

    @property
    def in_doubt(self) -> bool:
        """Whether it may have been carried out, and may not simply be sent twice."""
        return self.unsure and self.command.retry_at is not None and self.command.writes


class Call:
    """What is sent as one command, and answers one request or several.

    Attributes:
        key: its first key.
        requests: what it answers.
        confirming: what is to be sent behind the calls of its round.
        own_connection: whether its round has a connection of its own.
    """

    __slots__ = ("_args", "_keys", "_script", "_size", "_with_text", "confirming", "key", "own_connection", "requests")

    def __init__(self, request: _Request, args: Sequence[Argument]) -> None:
        command = request.command
        self.key = command.key
        self.requests = [request]
        self.confirming: Confirming | None = None
        self.own_connection = request.large
        self._script = command.script
        self._with_text = request.with_text
        self._keys = list(command.keys)
        self._args = list(args)
        self._size = command.size

    @property
    def args(self) -> tuple[Argument, ...]:
        """What to send."""
        script = self._script
        if script is None:
            return tuple(self._args)
        name, what = ("EVAL", script.text) if self._with_text else ("EVALSHA", script.sha)
        return (name, what, str(len(self._keys)), *self._keys, *self._args)

    def takes(self, request: _Request) -> bool:
        """Whether a request may be sent as a part of this call: it calls the same script."""
        command = request.command
        return (
            self._script is command.script
            and self._with_text == request.with_text
            and len(self.requests) < _MOST_JOINED
            and self._size + command.size <= _MOST_BYTES
        )

    def join(self, request: _Request, args: Sequence[Argument]) -> None:
        """Send it as a part of this one."""
        self._keys += request.command.keys
        self._args += args
        self._size += request.command.size
        self.requests.append(request)


class _Question(Call):
    """Asks for a limit that a large request may exceed."""

    __slots__ = ("_limit",)

    def __init__(self, request: _Request, limit: str) -> None:
        super().__init__(request, ())
        self._limit = limit

    @property
    def args(self) -> tuple[Argument, ...]:
        return ("CONFIG", "GET", self._limit)


class _Plan:
    """A round as it is put together."""

    __slots__ = ("_by_slot", "_open", "calls", "held", "lines", "size")

    def __init__(self, *, by_slot: bool) -> None:
        self._by_slot = by_slot
        self.calls: list[Call] = []
        self.size = 0
        # The call of each line; None once something of it must wait. And for each slot the call that others may join.
        self.lines: dict[str, Call | None] = {}
        # Lines in which a large request waits or is in flight.
        self.held: set[str] = set()
        self._open: dict[str, Call] = {}

    def is_full(self, request: _Request) -> bool:
        """Whether a request is too much for this round; a large one has a round of its own."""
        return bool(self.calls) and not request.large and self.size + request.command.size > _MOST_BYTES

    def hold(self, line: str) -> None:
        """Have nothing else of a line sent in this round."""
        if line:
            self.held.add(line)

    def place(self, request: _Request, args: Sequence[Argument]) -> bool:
        """Have a request sent in this round; False if it must wait, so as not to go beside what is before it."""
        command = request.command
        line = command.line
        if line in self.held:
            return False
        call = slot = None
        if command.joins and not request.alone:
            slot = _tag(command.key) if self._by_slot else ""
            call = self._open.get(slot)
            if call is not None and not call.takes(request):
                call = None
        if line in self.lines and (call is None or self.lines[line] is not call):
            self.lines[line] = None
            return False
        if call is not None:
            call.join(request, args)
        else:
            call = Call(request, args)
            self.calls.append(call)
            if slot is not None:
                self._open[slot] = call
        if line:
            self.lines[line] = call
        self.size += command.size
        return True


class Group:
    """What waits to be sent to one node. Not for two threads at once.

    Args:
        deadline_s: for how long a command is tried, from its first try; or waits for one, while the server fails.
        by_slot: whether what is sent as one must be of one slot.
        confirmation: what has to confirm what is sent.
        wait_s: how long a server may be let wait for that, in one round.
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
        self._waiting: deque[_Request] = deque()
        self._waiting_bytes = 0
        # A group has one round in flight, and beside it the rounds of large requests, each of one request. Nothing
        # else of their lines is sent meanwhile.
        self._round_in_flight = False
        self._large_in_flight: list[_Request] = []
        # Rounds of large requests that no driver has taken to send yet.
        self._large_rounds: list[list[Call]] = []
        # Whether the server rejects EVALSHA.
        self._only_text = False
        # The last round: when it was sent, for how many it was and how many waited besides, and how long it took for
        # each of its own.
        self._sent_s = 0.0
        self._about = 0
        self._each_s = math.inf
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
    def full(self) -> bool:
        """Whether who comes should be made to wait."""
        return len(self._waiting) >= _FULL_COMMANDS or self._waiting_bytes >= _FULL_BYTES

    def waiting_tickets(self) -> Iterator[Ticket]:
        """Whose commands wait, the next to be sent first."""
        while self._waiting and not self._waiting[0].ticket.missing:
            # It was taken for lost, and has been answered since.
            self._waiting_bytes -= self._waiting.popleft().command.size
        return (request.ticket for request in self._waiting if request.ticket.missing)

    def add(self, ticket: Ticket, places: Iterable[int]) -> None:
        """Have some of a ticket's commands sent, after those that wait already."""
        commands = ticket.batch.commands
        for place in places:
            self._waiting.append(_Request(commands[place], ticket, place, with_text=self._only_text))
            self._waiting_bytes += commands[place].size

    def add_lost(self, ticket: Ticket, places: Iterable[int]) -> None:
        """Have commands sent of which nobody knows any more whether they were: as retries."""
        before = len(self._waiting)
        self.add(ticket, places)
        for request in list(self._waiting)[before:]:
            request.first_s = ticket.asked_s
            request.unsure = True

    def abandon(self, ticket: Ticket) -> None:
        """Send no more of a ticket that nobody waits for any more. What is under way goes on, answered or not."""
        ticket.abandoned = True
        self._queue([request for request in self._waiting if request.ticket is not ticket])

    def _queue(self, requests: Sequence[_Request]) -> None:
        self._waiting = deque(requests)
        self._waiting_bytes = sum(request.command.size for request in requests)

    def give_up(self, now_s: float) -> None:
        """Answer what has been tried in vain for as long as it may be, or has waited so long for others that were."""
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
            self._settle(request, request.unconfirmed or unanswered)
        self._queue(left)

    def next_round(self, now_s: float) -> list[Call]:
        """What to send now; empty if nothing waits, or none of it may go yet (see `resume_s`).

        Large requests that may go now are not in it: see `take_large`.
        """
        waiting = self._waiting
        if not waiting or self._round_in_flight or now_s < self.resume_s:
            return []
        plan = _Plan(by_slot=self._by_slot)
        for request in self._large_in_flight:
            plan.hold(request.command.line)
        left: list[_Request] = []
        room = self._share()
        ticket = waiting[0].ticket
        while waiting and len(plan.calls) < _MOST_CALLS:
            request = waiting.popleft()
            room -= 1
            if (room < 0 and request.ticket is not ticket) or plan.is_full(request):
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
            self._sent_s = now_s
            if self._confirmation is not None:
                self._have_confirmed(plan.calls, self._confirmation, now_s)
        return plan.calls

    def _place(self, request: _Request, plan: _Plan, now_s: float) -> bool:
        """Have a request sent now; False if it must wait."""
        if request.large:
            line = request.command.line
            held = line in plan.lines or line in plan.held or len(self._large_in_flight) == _MOST_LARGE
            plan.hold(line)
            if held:
                return False
            self._begin_large(request, now_s)
        elif not plan.place(request, _args(request)):
            return False
        elif request.first_s is None:
            request.first_s = now_s
        return True

    def _begin_large(self, request: _Request, now_s: float) -> None:
        """Have a large request sent on its own connection, or the question why the last one was closed."""
        calls: list[Call]
        if request.suspicion is not None:
            calls = [_Question(request, limit) for limit in _LIMITS]
        else:
            calls = [Call(request, _args(request))]
            if request.first_s is None:
                request.first_s = now_s
            if self._confirmation is not None:
                self._have_confirmed(calls, self._confirmation, now_s)
        self._waiting_bytes -= request.command.size
        self._large_in_flight.append(request)
        self._sent_s = now_s
        self._large_rounds.append(calls)

    def take_large(self) -> list[list[Call]]:
        """The rounds of large requests that may go now, each on its own connection."""
        rounds, self._large_rounds = self._large_rounds, []
        return rounds

    def _have_confirmed(self, calls: Sequence[Call], confirmation: Confirmation, now_s: float) -> None:
        requests = [request for call in calls for request in call.requests]
        oldest_s = min(request.first_s or now_s for request in requests)
        left_s = max(_SHORTEST_WAIT_S, oldest_s + self._deadline_s - now_s)
        touch = any(request.unsure or not request.command.writes for request in requests)
        confirming = Confirming(confirmation, int(min(self._wait_s, left_s) * 1000), touch)
        for call in calls:
            call.confirming = confirming

    def _share(self) -> int:
        """How many commands the next round is to take.

        Of many, half: while the server is at one half, those who were just answered make up the other. Only where it
        answers about as fast as they do: what takes longer, the way or the disk, is better shared by all.
        """
        about = max(len(self._waiting), self._about)
        return about if about < _FEW or self._each_s > _QUICK_S else (about + 1) // 2

    def take(self, sent: Sequence[Call], answers: Sequence[Any], now_s: float) -> str:
        """Give the answers of a round to those who wait for them; what failed will be sent again.

        Returns:
            What an operator may want to know: that retries begin, or that they have come to an end; mostly ''.
        """
        self.end_round(sent)
        reason = news = ""
        again: list[_Request] = []
        if not sent[0].own_connection:
            answered = sum([len(call.requests) for call in sent])
            self._about = answered + len(self._waiting)
            self._each_s = (now_s - self._sent_s) / answered
        (request, *_) = sent[0].requests
        if request.suspicion is not None:
            settled, reason = _judge_size(request, request.suspicion, answers)
            request.suspicion = None
            if settled is not None:
                self._settle(request, settled)
            else:
                again.append(request)
            sent = answers = ()
        for call, answer in zip(sent, answers, strict=True):
            for request, reply in zip(call.requests, _replies(call, answer), strict=True):
                settled = reply
                if type(reply) in _TROUBLE:
                    settled, failure = self._judge(request, call, reply, now_s)
                    if failure is not None:
                        reason = failure or reason
                        again.append(request)
                        continue
                self._settle(request, settled)
        if reason:
            if not self._failures:
                self._failing_s = self._sent_s
                news = f"Redis fails ({reason}): what was asked of it is tried again, each for {self._deadline_s:g} s."
            self._reason = reason
            self._failures += 1
            longest = min(_LONGEST_PAUSE_S, self._deadline_s / 8, _FIRST_PAUSE_S * 2**self._failures)
            # A pause does not outlast a deadline; nor does a crowd with many deadlines shorten it to nothing.
            due_s = min(request.first_s for request in again if request.first_s is not None) + self._deadline_s
            self.resume_s = now_s + min(longest * random.uniform(0.5, 1), max(_FIRST_PAUSE_S, due_s - now_s))
        elif self._failures:
            news = "Redis answers again."
            self._failures = 0
        if again:
            again = [request for request in _with_companions(sent, again) if not request.ticket.abandoned]
            self._queue([*again, *self._waiting])
        return news

    def end_round(self, sent: Sequence[Call]) -> None:
        """Have a round over that nobody waits for any more; of any other, `take` is told the answers."""
        if sent[0].own_connection:
            self._large_in_flight.remove(sent[0].requests[0])
        else:
            self._round_in_flight = False

    def _judge(self, request: _Request, call: Call, reply: Any, now_s: float) -> tuple[Any, str | None]:
        """What trouble comes to: an answer, and None; or how the server fails for now, '' if it does not."""
        failure = None
        if type(reply) is Unconfirmed:
            request.unsure = True
            request.unconfirmed = reply
            reply.elapsed_s = now_s - (request.first_s or now_s)
            failure = reply.reason if reply.passing else None
        elif type(reply) is Lost:
            request.unsure = request.unsure or reply.sent
            failure = reply.reason
            if request.large and reply.closed:
                request.suspicion = reply
                failure = ""
        elif request.large and reply.code == "Protocol":
            # The code that redis-py leaves of "ERR Protocol error: invalid bulk length".
            request.suspicion = reply
            failure = ""
        elif reply.code == "NOSCRIPT":
            request.with_text = True
            failure = ""
        elif request.command.script is not None and not request.with_text and _rejects_evalsha(reply):
            request.with_text = self._only_text = True
            failure = ""
        elif reply.code == "LOOK_AGAIN":
            # The others of its call have used up what a script may look through.
            failure = ""
        elif reply.code == "CROSSSLOT" and len(call.requests) > 1:
            # A node of a cluster that has all the slots. (One of the requests may cross slots by itself.)
            self._by_slot = request.alone = True
            failure = ""
        elif reply.code in PASSING:
            failure = f"{reply.code} {reply.message}"
        else:
            return ErrorReply(reply.code, reply.message, request.unsure), None
        return reply, failure

    def fail(self, sent: Sequence[Call], error: StoreError) -> None:
        """Have a round fail for good, with all that it is a part of."""
        self.end_round(sent)
        for call in sent:
            for request in call.requests:
                ticket = request.ticket
                if ticket.missing:
                    ticket.error = type(error)(f"{error} {_EARLIER_TRY}") if request.in_doubt else error
                    ticket.missing = 0
                    self.abandon(ticket)
                    ticket.wake()

    def end(self, error: StoreError) -> None:
        """Have whatever waits fail."""
        while ticket := next(self.waiting_tickets(), None):
            ticket.error = error
            ticket.missing = 0
            self.abandon(ticket)
            ticket.wake()

    def _settle(self, request: _Request, reply: Any) -> None:
        ticket = request.ticket
        if ticket.error is not None or ticket.replies[request.place] is not _WAITING:
            return
        ticket.replies[request.place] = reply
        ticket.missing -= 1
        if ticket.missing == 0:
            ticket.wake()


def _args(request: _Request) -> Sequence[Argument]:
    """A request's arguments: those of a retry, if it may have been carried out."""
    return request.command.as_retry() if request.unsure else request.command.args


def _judge_size(request: _Request, suspicion: ErrorReply | Lost, answers: Sequence[Any]) -> tuple[Any, str]:
    """Decide by a server's limits whether it rejected a request for its size.

    Returns:
        The error if it did; otherwise None, and how the server failed.
    """
    for answer in answers:
        if type(answer) is Lost:
            return None, answer.reason
    sizes = [len(arg) for arg in request.command.args]
    size = f"It has {sum(sizes)} bytes, {max(sizes)} of them in one value"
    unknown = []
    for (name, around), answer in zip(_LIMITS.items(), answers, strict=True):
        limit = _limit(answer)
        if limit is None:
            unknown.append(name)
        elif max(sizes) + around > limit:
            return ErrorReply("TOO_LARGE", f"{size}, and the server's {name} is {limit} bytes."), ""
    advice = f" This user may not read the server's limits: see {' and '.join(unknown)} there." if unknown else ""
    if isinstance(suspicion, ErrorReply):
        said = f"the server rejected it: {suspicion.code} {suspicion.message}."
        return ErrorReply("TOO_LARGE", f"{size}, and {said}{advice}"), ""
    request.closed += 1
    if unknown and request.closed >= _MOST_CLOSED:
        closed = f"the server closed {request.closed} connections on which it was sent, and answers other requests."
        return ErrorReply("TOO_LARGE", f"{size}, and {closed}{advice}", request.in_doubt), ""
    return None, suspicion.reason


def _limit(answer: Any) -> int | None:
    """A limit from the reply to CONFIG GET; None if the server does not tell it."""
    values = answer.values() if isinstance(answer, Mapping) else answer[1::2] if isinstance(answer, list) else ()
    return next(map(int, values), None)


def _replies(call: Call, answer: Any) -> Sequence[Any]:
    """The replies to each of a call's requests, from the answer to it."""
    if type(answer) is Unconfirmed:
        return [
            reply if type(reply) is ErrorReply else Unconfirmed(reply, answer.reason, answer.passing)
            for reply in _replies(call, answer.reply)
        ]
    if type(answer) is not list or not call.requests[0].command.joins:
        return [answer] * len(call.requests)
    return [
        reply if type(reply) is int or reply[:1].isdigit() else ErrorReply.parse(reply.decode(errors="replace"))
        for reply in answer
    ]


def _with_companions(sent: Sequence[Call], again: list[_Request]) -> list[_Request]:
    """What is to be asked again, with what only means something together with it."""
    tickets = [request.ticket for request in again if request.ticket.batch.at_once]
    if not tickets:
        return again
    wanted = []
    for call in sent:
        for request in call.requests:
            if request in again:
                wanted.append(request)
            elif request.ticket in tickets:
                request.ticket.missing += 1
                request.ticket.replies[request.place] = _WAITING
                wanted.append(request)
    return wanted


def _rejects_evalsha(reply: ErrorReply) -> bool:
    """Whether the server does not have EVALSHA, or does not allow it to this user."""
    return reply.says_unknown("EVALSHA") or (reply.code == "NOPERM" and "evalsha" in reply.message.lower())


def _tag(key: str) -> str:
    """The part of a key that decides its slot."""
    return key.partition("}")[0]


def is_full(groups: Iterable[Group]) -> bool:
    """Whether who comes should be made to wait for one of them."""
    for group in groups:  # noqa: SIM110 - on the way of every call, where a generator costs more than what it does
        if group.full:
            return True
    return False


class Groups:
    """The groups of a server's nodes. Not for two threads at once.

    Args:
        deadline_s: for how long a command is tried, from its first try; or waits for one, while the server fails.
        find_node: which node a key is kept on; None where there is but one.
        wait_s: how long a server may be let wait for a confirmation.
    """

    def __init__(
        self, deadline_s: float, find_node: Callable[[str], Hashable] | None, wait_s: float = math.inf
    ) -> None:
        self._deadline_s = deadline_s
        self._find_node = find_node
        self._wait_s = wait_s
        self._only = Group(deadline_s)
        self._by_node: dict[Hashable, Group] = {}
        self._by_tag: dict[Hashable, Group] = {}

    def find(self, ticket: Ticket) -> Mapping[Group, Sequence[int]]:
        """The groups that a ticket's commands belong to, with their places in it."""
        confirmation = ticket.batch.confirmation
        if self._find_node is None:
            group = self._only if confirmation is None else self._of_node("", confirmation)
            return {group: range(len(ticket.batch.commands))}
        found: dict[Group, list[int]] = {}
        for place, command in enumerate(ticket.batch.commands):
            found.setdefault(self._home(command.key, self._find_node, confirmation), []).append(place)
        return found

    def __iter__(self) -> Iterator[Group]:
        return iter([self._only, *self._by_node.values()])

    def _of_node(self, node: Hashable, confirmation: Confirmation | None) -> Group:
        """A node's group of what is confirmed in one way: nobody waits for what others have confirmed."""
        group = self._by_node.get((node, confirmation))
        if group is None:
            group = self._by_node[node, confirmation] = Group(
                self._deadline_s,
                by_slot=self._find_node is not None,
                confirmation=confirmation,
                wait_s=self._wait_s,
            )
        return group

    def _home(self, key: str, find_node: Callable[[str], Hashable], confirmation: Confirmation | None) -> Group:
        """The group of a key's node.

        When a slot has moved to another node, its commands stay in their old group for as long as any wait there, so
        as not to overtake them. (A group decides what is sent when; where to, the driver does.)
        """
        group = self._of_node(find_node(key), confirmation)
        tag = _tag(key), confirmation
        home = self._by_tag.get(tag)
        if home is not group and (home is None or home.idle):
            home = self._by_tag[tag] = group
        return home
