"""Which commands a connection carries for which calls, and what the replies to them come to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis
from hiredis import pack_command
from redis.exceptions import AskError, MovedError, RedisClusterException, ResponseError

from runic_redis.drivers.redis_py import error_reply, said
from runic_redis.protocol.effects import ErrorReply, Lost, Unconfirmed
from runic_redis.protocol.queue import Call

__all__ = ["Shipment", "by_node", "plain_replies", "redirected"]

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

    def __init__(self, calls: Sequence[Call], places: Sequence[int], asking: Mapping[int, Any] | None = None) -> None:
        self.places = places
        commands: list[tuple[Any, ...]] = []
        self._answered_by: list[int] = []
        for place in places:
            if asking and place in asking:
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
        """Return what stands for the replies that a broken connection did not bring."""
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
        behind = [_refusal(answer) for answer in answers[self._answered_by[-1] + 1 :]]
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


def by_node(
    calls: Sequence[Call],
    places: Sequence[int],
    asking: Mapping[int, Any],
    find_node: Callable[[str], Any],
    replies: list[Any],
) -> list[tuple[Any, Shipment]]:
    """The nodes of a cluster that calls go to, with what each is sent; where there is none, the reply says so."""
    groups: dict[str, tuple[Any, list[int]]] = {}
    for place in places:
        try:
            node = asking.get(place) or find_node(calls[place].key)
        except RedisClusterException as error:
            replies[place] = Lost(str(error), sent=False)
            continue
        groups.setdefault(node.name, (node, []))[1].append(place)
    return [(node, Shipment(calls, some, asking)) for node, some in groups.values()]


def redirected(replies: Sequence[Any], places: Sequence[int]) -> list[int]:
    """The places whose calls the cluster has redirected."""
    return [place for place in places if isinstance(replies[place], MovedError | AskError)]


def plain_replies(replies: Sequence[Any]) -> list[Any]:
    """Replies without redis-py's exceptions; a redirection still among them leads nowhere, or not yet."""
    return [_refusal(reply) for reply in replies]


def _refusal(reply: Any) -> Any:
    if isinstance(reply, MovedError | AskError):
        return _moved_in_a_circle(reply)
    return error_reply(reply)


def _moved_in_a_circle(error: ResponseError) -> ErrorReply:
    return ErrorReply("TRYAGAIN", f"the cluster redirects in a circle: {error}")
