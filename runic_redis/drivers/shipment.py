"""Which commands a connection carries for which calls, and what the replies to them come to."""

from collections.abc import Container, Sequence
from typing import Any

import redis
from hiredis import pack_command
from redis.exceptions import AskError, AuthenticationError

from runic_redis.drivers.redis_py import error_reply, refused_login, said
from runic_redis.protocol.effects import ErrorReply, Lost, Unconfirmed
from runic_redis.protocol.queue import Call

__all__ = ["Shipment", "plain_reply"]

# How much is sent at once: the time limit of a connection is for each piece, however large the request.
_PIECE_BYTES = 256 * 1024


class Shipment:
    """Some of the calls of a round, as commands on one connection.

    Args:
        calls: the calls of the round.
        places: which of them.
        asking: which of these to put behind an ASKING.

    Attributes:
        places: which they are.
        count: how many commands there are.
        unsent: what is still to be sent, in pieces. A driver takes each out once it is sent.
    """

    __slots__ = ("_answered_by", "_confirming", "_large", "count", "places", "unsent")

    def __init__(self, calls: Sequence[Call], places: Sequence[int], asking: Container[int] = ()) -> None:
        self.places = places
        commands: list[tuple[Any, ...]] = []
        self._answered_by: list[int] = []
        for place in places:
            if place in asking:
                commands.append(("ASKING",))
            self._answered_by.append(len(commands))
            commands.append(calls[place].args)
        self._large = calls[places[0]].own_connection
        self._confirming = calls[places[0]].confirming
        if self._confirming is not None:
            commands += self._confirming.commands(calls[places[0]].key)
        self.count = len(commands)
        data = b"".join(map(pack_command, commands))
        self.unsent = [data]
        if len(data) > _PIECE_BYTES:
            self.unsent = [data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES)]

    def broken(self, error: Exception) -> Lost:
        """Return what stands for the replies that a broken connection did not bring.

        Raises:
            ConfigurationError: the server refused the login.
        """
        if isinstance(error, AuthenticationError):
            raise refused_login(error) from error
        # The server carries out nothing of a large request before it has the end of it. The commands that confirm it
        # come behind that end, and are smaller than a piece.
        sent = not (self._large and len(self.unsent) > 2)
        closed = isinstance(error, redis.ConnectionError | OSError) and not isinstance(error, TimeoutError)
        return Lost(said(error) if str(error) else "Timeout reading from socket", sent=sent, closed=closed)

    def replies(self, answers: Sequence[Any]) -> list[Any]:
        """The replies to the calls, redirections and errors as redis-py's exceptions, from those to the commands."""
        replies = [answers[at] for at in self._answered_by]
        if self._confirming is None:
            return replies
        behind = [plain_reply(answer) for answer in answers[self._answered_by[-1] + 1 :]]
        lost = [answer for answer in behind if isinstance(answer, Lost)]
        if lost:
            # Whether it is durable will be known when they are asked for again.
            return [reply if isinstance(reply, Exception | Lost) else lost[0] for reply in replies]
        reason, passing = self._confirming.shortfall(behind)
        if not reason:
            return replies
        return [
            reply if isinstance(reply, Exception | Lost) else Unconfirmed(reply, reason, passing) for reply in replies
        ]


def plain_reply(reply: Any) -> Any:
    """Return a cluster's reply, an error as an `ErrorReply`; a redirection that is not followed as TRYAGAIN."""
    if isinstance(reply, AskError):  # or its subclass MovedError
        return ErrorReply("TRYAGAIN", f"the cluster redirects in a circle: {reply}")
    return error_reply(reply)
