"""Finds out whether a server has rejected a request for its size.

A server closes the connection on a request that is too large, often without a reply. The queue then asks the server for
its limits, and rejects the request with the error TOO_LARGE if it exceeds one. Otherwise the connection was lost for
another reason, and the request is retried.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from runic_redis.protocol.effects import Argument, ConnectionLost, ErrorReply
from runic_redis.protocol.rounds import Call, Request

# The limits that a value may exceed, each with the bytes around the value that count towards it.
_LIMITS = {"proto-max-bulk-len": 0, "client-query-buffer-limit": 2}
# How often a server that does not tell its limits may close the connection of a large request.
MOST_CLOSED = 3


class _Question(Call):
    """Asks for a limit that a large request may exceed."""

    __slots__ = ("_limit",)

    def __init__(self, request: Request, limit: str) -> None:
        super().__init__(request)
        self._limit = limit

    @property
    def args(self) -> tuple[Argument, ...]:
        return ("CONFIG", "GET", self._limit)


def limit_questions(request: Request) -> list[Call]:
    """Return the calls that ask for the limits that a request may exceed."""
    return [_Question(request, limit) for limit in _LIMITS]


def size_verdict(
    request: Request, suspicion: ErrorReply | ConnectionLost, answers: Sequence[Any]
) -> tuple[ErrorReply | None, str]:
    """Decide by a server's limits whether it rejected a request for its size.

    Returns:
        The error TOO_LARGE if it did; otherwise None, and the reason of the failure.
    """
    for answer in answers:
        if type(answer) is ConnectionLost:
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
        rejection = f"the server rejected it: {suspicion.text}."
        return ErrorReply("TOO_LARGE", f"{size}, and {rejection}{advice}"), ""
    request.closed += 1
    if unknown and request.closed >= MOST_CLOSED:
        closed = f"the server closed {request.closed} connections on which it was sent, and answers other requests."
        return ErrorReply("TOO_LARGE", f"{size}, and {closed}{advice}", request.in_doubt), ""
    return None, suspicion.reason


def _limit(answer: Any) -> int | None:
    """Return a limit from the reply to CONFIG GET; None if the server does not tell it."""
    values = answer.values() if isinstance(answer, Mapping) else answer[1::2] if isinstance(answer, list) else ()
    return next(map(int, values), None)
