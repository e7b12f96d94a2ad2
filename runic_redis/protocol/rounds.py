"""Rounds: which commands of which callers travel in one round trip, and which reply belongs to whom.

A caller asks for a `Batch` and waits for its `Ticket`. Each command of it becomes a `Request`. A `Plan` puts requests
together into a round: a list of `Call`s, each of which the server sees as one command. Calls of the same script are
joined into one call, if the script takes several.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runic_redis.errors import StoreError
from runic_redis.protocol.confirmation import Confirming
from runic_redis.protocol.effects import Argument, Batch, Command, ConnectionLost, ErrorReply, Unconfirmed

# The most bytes of a round, and the most requests of one call: enough to share their cost, too few to delay others.
MOST_BYTES = 4 * 1024 * 1024
MOST_JOINED = 128
# The size from which a request is large: half of the lowest limit that a server can be set to.
LARGE_BYTES = 512 * 1024
# In place of a reply that has not arrived.
NO_REPLY: Any = object()


class Ticket:
    """A batch that waits for its replies. Each driver has a subclass that wakes its caller.

    Args:
        batch: the batch.
        asked_s: the time when it was asked.

    Attributes:
        replies: one for each command of the batch.
        missing: the number of replies that have not arrived.
        abandoned: whether its caller has stopped waiting.
        error: the error of the whole batch, in place of the replies.
    """

    __slots__ = ("abandoned", "asked_s", "batch", "error", "missing", "replies")

    def __init__(self, batch: Batch, asked_s: float) -> None:
        self.batch = batch
        self.asked_s = asked_s
        self.abandoned = False
        self.error: StoreError | None = None
        self.missing = len(batch.commands)
        self.replies: list[Any] = [NO_REPLY] * self.missing

    def wake(self) -> None:
        """Tell the caller that the last reply, or the error, has arrived."""

    def unanswered(self) -> list[int]:
        """Return the places of its commands that have no reply."""
        return [place for place, reply in enumerate(self.replies) if reply is NO_REPLY]

    def settle(self, place: int, reply: Any) -> None:
        """Store the reply to a command, unless there is one."""
        if self.error is not None or self.replies[place] is not NO_REPLY:
            return
        self.replies[place] = reply
        self.missing -= 1
        if self.missing == 0:
            self.wake()


# The ticket of a request until its driver has created one.
NO_TICKET = Ticket(Batch(()), 0.0)


@dataclass(slots=True, eq=False)
class Request:
    """One command of a ticket, until it has a reply.

    Attributes:
        first_s: when it was first sent.
        unsure: whether an earlier try may have been carried out.
        unconfirmed: the result of the last try, if it was carried out but not confirmed.
        with_text: whether to send the text of its script: the server does not know the script, or has no EVALSHA.
        alone: whether no other may be joined with it, since one of those that were crosses slots.
        suspicion: why the server may have rejected it for its size.
        closed: how often the server has closed the connection on which it was sent.
    """

    command: Command
    ticket: Ticket
    place: int
    with_text: bool
    first_s: float | None = None
    unsure: bool = False
    unconfirmed: Unconfirmed | None = None
    alone: bool = False
    suspicion: ErrorReply | ConnectionLost | None = None
    closed: int = 0

    @property
    def is_large(self) -> bool:
        """Whether it has its own connection."""
        return self.command.size >= LARGE_BYTES

    @property
    def in_doubt(self) -> bool:
        """Whether it may have been carried out, and must not simply be sent twice."""
        return self.unsure and self.command.retry_at is not None and self.command.writes

    @property
    def args(self) -> Sequence[Argument]:
        """Its arguments; those of a retry, if an earlier try may have been carried out."""
        return self.command.as_retry() if self.unsure else self.command.args


class Call:
    """One command as the server sees it, with the requests that its reply answers.

    Attributes:
        key: its first key.
        requests: the requests.
        confirming: the commands to send behind its round, which confirm it.
        own_connection: whether its round has its own connection.
    """

    __slots__ = ("_script", "_size", "_with_text", "confirming", "key", "own_connection", "requests")

    def __init__(self, request: Request) -> None:
        command = request.command
        self.key = command.key
        self.requests = [request]
        self.confirming: Confirming | None = None
        self._size = command.size
        self.own_connection = self._size >= LARGE_BYTES
        self._script = command.script
        self._with_text = request.with_text

    @property
    def args(self) -> tuple[Argument, ...]:
        """The command to send."""
        script = self._script
        if script is None:
            return tuple(self.requests[0].args)
        name, what = ("EVAL", script.text) if self._with_text else ("EVALSHA", script.sha)
        keys: list[str] = []
        args: list[Argument] = []
        for request in self.requests:
            keys += request.command.keys
            args += request.args
        return (name, what, str(len(keys)), *keys, *args)

    def can_join(self, request: Request) -> bool:
        """Whether a request may become a part of this call: it calls the same script, and there is room."""
        command = request.command
        return (
            self._script is command.script
            and self._with_text == request.with_text
            and len(self.requests) < MOST_JOINED
            and self._size + command.size <= MOST_BYTES
        )

    def join(self, request: Request) -> None:
        """Make a request a part of this call."""
        self._size += request.command.size
        self.requests.append(request)

    def replies(self, answer: Any) -> Sequence[Any]:
        """Return the reply to each of its requests, from the server's answer to the call."""
        if type(answer) is list and self.requests[0].command.joins:
            return [_joined_reply(reply) for reply in answer]
        if type(answer) is Unconfirmed:
            return [
                reply if type(reply) is ErrorReply else Unconfirmed(reply, answer.reason, answer.transient)
                for reply in self.replies(answer.reply)
            ]
        return [answer] * len(self.requests)


def _joined_reply(reply: Any) -> Any:
    """Return a reply in the array of a joined call: an error comes as a string, which does not begin with a digit."""
    return reply if type(reply) is int or reply[:1].isdigit() else ErrorReply.parse(reply.decode(errors="replace"))


class Plan:
    """A round that is being put together.

    Args:
        by_slot: whether the requests of a call must be of one slot.

    Attributes:
        calls: its calls.
        size: the bytes of its requests, where they are known.
        workflows: the workflows of its requests, each with the one call of it; None once one of its requests waits.
        held: workflows with a large request that waits or is in flight.
    """

    __slots__ = ("_by_slot", "_open", "calls", "held", "size", "workflows")

    def __init__(self, *, by_slot: bool) -> None:
        self._by_slot = by_slot
        self.calls: list[Call] = []
        self.size = 0
        self.workflows: dict[str, Call | None] = {}
        self.held: set[str] = set()
        # For each slot the call that others may join.
        self._open: dict[str, Call] = {}

    def has_room(self, request: Request) -> bool:
        """Whether a request fits into this round. A large one does, as it has its own round."""
        return not self.calls or request.is_large or self.size + request.command.size <= MOST_BYTES

    def hold(self, workflow_id: str) -> None:
        """Send nothing else of a workflow in this round."""
        if workflow_id:
            self.held.add(workflow_id)

    def place(self, request: Request) -> bool:
        """Add a request; False if it must wait for an earlier one of its workflow."""
        command = request.command
        workflow_id = command.workflow_id
        if workflow_id in self.held:
            return False
        call = slot = None
        if command.joins and not request.alone:
            slot = hash_tag(command.key) if self._by_slot else ""
            call = self._open.get(slot)
            if call is not None and not call.can_join(request):
                call = None
        if workflow_id in self.workflows and (call is None or self.workflows[workflow_id] is not call):
            self.workflows[workflow_id] = None
            return False
        if call is not None:
            call.join(request)
        else:
            call = Call(request)
            self.calls.append(call)
            if slot is not None:
                self._open[slot] = call
        if workflow_id:
            self.workflows[workflow_id] = call
        self.size += command.size
        return True


def hash_tag(key: str) -> str:
    """Return the part of a key that decides its slot."""
    return key.partition("}")[0]
