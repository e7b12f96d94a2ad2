"""Conditions of `append_all`: no event after a position matches a query."""

from collections.abc import Sequence
from typing import NamedTuple

from runic_redis.arguments import Query, check_cursor, check_query
from runic_redis.errors import ConditionFailed, InvalidArgument
from runic_redis.operations.queries import query_arguments
from runic_redis.protocol.effects import Argument, ErrorReply


class Condition(NamedTuple):
    """A condition of a group of commits.

    Attributes:
        items: the query that no event may match.
        after: the position after which none may.
        start: the position from which to search for commits with such events: a search may take several calls.
    """

    items: Sequence[Sequence[bytes]]
    after: int
    start: int

    def arguments(self) -> list[Argument]:
        """Return the arguments by which lua/append_all.lua takes it."""
        return [str(self.after), str(self.start), *query_arguments(self.items)]

    def after_search(self, reply: ErrorReply) -> "Condition":
        """Return the condition without the commits that a call has searched."""
        return self._replace(start=max(self.start, int(reply.message)) + 1)


def check_condition(unless: Query | None, after: int | None) -> Condition:
    """Return a condition.

    Raises:
        InvalidArgument: it is none.
    """
    if unless is None:
        raise InvalidArgument("after is the position of a condition; nothing was sent. Pass unless, too.")
    items = check_query(unless, "unless")
    position = check_cursor(0 if after is None else after, "after")
    return Condition(items, position, position + 1)


def condition_failed(reply: ErrorReply) -> ConditionFailed:
    """Return the error for a condition that failed."""
    return ConditionFailed(
        f"An event matches the condition of append_all, in the commit at position {reply.message}. Nothing of the "
        "group was stored. Read with read_where, and decide again.",
        position=int(reply.message),
    )
