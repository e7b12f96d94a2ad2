"""The bytes of a round trip on one connection, and the assignment of its replies to calls."""

from collections.abc import Container, Sequence
from typing import Any

import redis
from hiredis import pack_command
from redis.exceptions import AskError, AuthenticationError

from runic_redis.drivers.redis_py import exception_text, plain_reply, rejected_login
from runic_redis.protocol.effects import ConnectionLost, ErrorReply, Unconfirmed
from runic_redis.protocol.rounds import Call

# The size of a piece: the timeout of a connection is for each piece, and not for a whole large request.
_PIECE_BYTES = 256 * 1024


class Shipment:
    """The calls of a round that go on one connection, as commands.

    Args:
        calls: the calls of the round.
        places: the places of those that go here.
        asking: the places of those to put behind an ASKING.

    Attributes:
        places: the places of its calls.
        count: the number of its commands.
        unsent: the bytes to send, in pieces. A driver removes each piece that it has sent.
    """

    __slots__ = ("_answered_by", "_confirming", "_large", "count", "places", "unsent")

    def __init__(self, calls: Sequence[Call], places: Sequence[int], asking: Container[int] = ()) -> None:
        self.places = places
        first = calls[places[0]]
        self._large = first.own_connection
        self._confirming = first.confirming
        commands: list[tuple[Any, ...]] = [calls[place].args for place in places]
        # For each call, the place of its reply among the answers.
        self._answered_by: Sequence[int] = range(len(commands))
        if asking:
            commands, self._answered_by = _with_asking(commands, [place in asking for place in places])
        if self._confirming is not None:
            commands += self._confirming.commands(first.key)
        self.count = len(commands)
        data = b"".join(map(pack_command, commands))
        self.unsent = [data]
        if len(data) > _PIECE_BYTES:
            self.unsent = [data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES)]

    def connection_lost(self, error: Exception) -> ConnectionLost:
        """Return the reply to each call without one, after the connection broke.

        Raises:
            ConfigurationError: the server rejected the login.
        """
        if isinstance(error, AuthenticationError):
            raise rejected_login(error) from error
        # The server carries out a large request only when it has all of it. The commands that confirm it come behind
        # its end, and are smaller than a piece.
        sent = not (self._large and len(self.unsent) > 2)
        closed = isinstance(error, redis.ConnectionError | OSError) and not isinstance(error, TimeoutError)
        return ConnectionLost(
            exception_text(error) if str(error) else "Timeout reading from socket", sent=sent, closed=closed
        )

    def replies(self, answers: list[Any]) -> list[Any]:
        """Return the replies to the calls from those to the commands, errors still as redis-py's exceptions."""
        if len(answers) == len(self._answered_by):
            return answers
        replies = [answers[at] for at in self._answered_by]
        if self._confirming is None:
            return replies
        behind = [cluster_reply(answer) for answer in answers[self._answered_by[-1] + 1 :]]
        lost = [answer for answer in behind if isinstance(answer, ConnectionLost)]
        if lost:
            # Whether they are durable is decided by the retry.
            return [reply if isinstance(reply, Exception | ConnectionLost) else lost[0] for reply in replies]
        reason, transient = self._confirming.shortfall(behind)
        if not reason:
            return replies
        return [
            reply if isinstance(reply, Exception | ConnectionLost) else Unconfirmed(reply, reason, transient)
            for reply in replies
        ]


def _with_asking(
    commands: Sequence[tuple[Any, ...]], asking: Sequence[bool]
) -> tuple[list[tuple[Any, ...]], list[int]]:
    """Return commands, those that are `asking` behind an ASKING; and the place of each of them."""
    sent: list[tuple[Any, ...]] = []
    places = []
    for command, asks in zip(commands, asking, strict=True):
        if asks:
            sent.append(("ASKING",))
        places.append(len(sent))
        sent.append(command)
    return sent, places


def cluster_reply(reply: Any) -> Any:
    """Return a cluster's reply, an error as an `ErrorReply`; a redirection that is not followed as TRYAGAIN."""
    if isinstance(reply, AskError):  # or its subclass MovedError
        return ErrorReply("TRYAGAIN", f"the cluster redirects in a circle: {reply}")
    return plain_reply(reply)
