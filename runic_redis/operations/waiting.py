"""Waiting until something is due in queues, without polling: many callers share their looks (protocol/hints.py)."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from runic_redis.context import Context
from runic_redis.protocol.effects import Await, Join, Operation

T = TypeVar("T")


def wait_for_due(
    context: Context, queues: Sequence[str], wait_s: float, look: Callable[[], Operation[tuple[list[T], float | None]]]
) -> Operation[list[T]]:
    """Look until something is found, and return it; an empty list if nothing is found in time.

    Args:
        context: the store's.
        queues: the names of the queues that a look is about.
        wait_s: how long to wait at most, in seconds; 0 to look once.
        look: looks once. It returns the things that it found; and in how many seconds the next is due, None if nothing
            is.
    """
    if wait_s <= 0:
        found, _ = yield from look()
        return found
    place = yield Join(context.keys.hints, queues, wait_s)
    while (yield Await(place)):
        found, place.due_s = yield from look()
        if found:
            place.cancel()
            return found
    return []
