"""Timers: a workflow sleeps until a time. At most one timer of a workflow is stored, in its meta hash."""

from datetime import UTC, datetime, timedelta
from math import inf
from typing import NamedTuple

from runic_redis.arguments import check_timer, check_workflow_id
from runic_redis.context import Context
from runic_redis.errors import DecodeError, short_repr
from runic_redis.operations.leasing import Lease, release
from runic_redis.operations.records import EPOCH
from runic_redis.protocol.effects import Operation, key_command
from runic_redis.protocol.refusals import ask, server_us

# A timer that is over later is shown with the last time that a datetime can be.
_LAST_MS = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


class Timer(NamedTuple):
    """The timer of a workflow.

    Attributes:
        name: its name, which may be empty.
        until: when it is over; None if the workflow waits until a message wakes it.
        left_s: in how many seconds it is over, by the server's clock; 0 or less once it is over.
    """

    name: str
    until: datetime | None
    left_s: float


def sleep(context: Context, lease: Lease, until: float | datetime | None, name: str) -> Operation[None]:
    """Release a lease until a time, and store that as the timer of the workflow. None waits for a message."""
    return release(context, lease, inf if until is None else until, check_timer(name))


def load_timer(context: Context, workflow_id: str) -> Operation[Timer | None]:
    """Return the timer of a workflow; None if it has none."""
    key = context.keys.workflow(check_workflow_id(workflow_id)).meta
    stored = yield from ask(key_command("HGET", key, "timer"))
    if stored is None:
        return None
    until, _, name = stored.decode(errors="replace").partition(" ")
    if until == "inf":
        return Timer(name, None, inf)
    if not (until.isdigit() and len(until) <= 15):
        raise DecodeError(
            f"The timer of the workflow {workflow_id!r}, in the meta hash at the key {key!r}, is damaged: "
            f"{short_repr(stored)}. Nothing was changed. Restore the key from a backup, or delete the workflow."
        )
    left_s = int(until) / 1000 - (yield from server_us(key)) / 1_000_000
    return Timer(name, EPOCH + timedelta(milliseconds=min(int(until), _LAST_MS)), left_s)
