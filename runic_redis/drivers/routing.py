"""Which commands a connection carries for which calls, and what the replies to them come to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis
from hiredis import pack_command
from redis.exceptions import AskError, MovedError, RedisClusterException, ResponseError

from runic_redis.drivers.replies import error_reply, said
from runic_redis.operations.effects import Argument, ErrorReply, Lost, Unconfirmed
from runic_redis.operations.grouping import Call

__all__ = ["Shipment", "broken", "by_node", "packed", "plain_replies", "redirected"]

# How much is sent at once: the time limit of a connection is for each piece, however large the request.
_PIECE_BYTES = 256 * 1024


def packed(commands: Sequence[tuple[Any, ...]]) -> list[bytes]:
    """Commands as they are sent, in pieces."""
    data = b"".join(map(pack_command, commands))
    if len(data) <= _PIECE_BYTES:
        return [data]
    return [data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES)]


def broken(error: Exception, unsent: Sequence[bytes], *, apart: bool) -> Lost:
    """Stand for the reply that a broken connection did not bring.

    Args:
        error: how it broke.
        unsent: the pieces that were not sent, or not whole.
        apart: whether they are of one request, or of requests that only read.
    """
    # Behind a large request goes what confirms it: it fits in a piece.
    sent = not (apart and len(unsent) > 2)
    closed = isinstance(error, redis.ConnectionError | OSError) and not isinstance(error, TimeoutError)
    return Lost(said(error) if str(error) else "Timeout reading from socket", sent=sent, closed=closed)


class Shipment:
    """Some of the calls of a round, as commands on one connection.

    Args:
        calls: the calls of the round.
        places: which of them.
        asking: which of these to put behind an ASKING.

    Attributes:
        places: which they are.
        commands: what to send.
    """

    __slots__ = ("_answered_by", "_confirming", "commands", "places")

    def __init__(self, calls: Sequence[Call], places: Sequence[int], asking: Mapping[int, Any] | None = None) -> None:
        self.places = places
        self.commands: list[tuple[Argument, ...]] = []
        self._answered_by: list[int] = []
        for place in places:
            if asking and place in asking:
                self.commands.append(("ASKING",))
            self._answered_by.append(len(self.commands))
            self.commands.append(calls[place].args)
        self._confirming = calls[places[0]].confirming
        if self._confirming is not None:
            self.commands += self._confirming.commands(calls[places[0]].key)

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
