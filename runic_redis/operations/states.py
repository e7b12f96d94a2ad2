"""The state of a workflow, from its meta hash."""

from collections.abc import Sequence
from typing import Literal

from runic_redis.arguments import is_cursor

State = Literal["open", "waiting", "leased", "parked", "completed"]
# The fields of the meta hash that determine it.
STATE_FIELDS = ("completed", "parked", "queue", "lease_until", "lease_ms")


def state_of(values: Sequence[bytes | None], now_ms: int) -> State:
    """Return the state of a workflow.

    A lease with more time left than it lasts is over: the clock was set back since it was given.

    Args:
        values: those of `STATE_FIELDS`.
        now_ms: the time by the server's clock, in milliseconds since 1970.
    """
    completed, parked, queue, until, lasts = values
    if completed is not None:
        return "completed"
    if parked is not None:
        return "parked"
    if queue is None:
        return "open"
    left_ms = int(until) - now_ms if until is not None and is_cursor(until) else 0
    longest_ms = int(lasts) if lasts is not None and is_cursor(lasts) else 0
    return "leased" if 0 < left_ms <= longest_ms else "waiting"
