"""The cases of queues: jobs from their enqueuing to their end, and the time until a waiting claim has a workflow."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

from .contenders.ours import Ours
from .figures import Turn, percentile, percentiles
from .lab import Lab
from .measure import Side
from .turns import taking_part
from .workers import Worker

_WAITER = Path(__file__).with_name("queue_waiter.py")


def running_jobs(lab: Lab, count: int, *, only: Sequence[str]) -> list[Side]:
    """Enqueue jobs, and have a process complete them. The cost is that of a job."""
    return [Side(one.name, lambda _, one=one: one.run_jobs(count)) for one in taking_part(lab, "run_jobs", only=only)]


def waiting(lab: Lab, count: int, *, rate: int, percent: int) -> list[Side]:
    """Append workflows to a queue, at which a process waits. The cost is a percentile of the latencies.

    A latency is the time from the moment before the call of `append` until the claim has returned. So the time of the
    append itself is part of it. Both processes read the system's monotonic clock. The pauses between two workflows are
    longer than a latency, so that the claim waits.
    """
    store = lab.stack.enter_context(lab.ours.namespace(f"awaited-{percent}"))
    store.append("first", [{}])  # the waiter takes the settings that the namespace has
    waiter = lab.stack.enter_context(Worker(_WAITER, lab.place.server.url, store.context.keys.namespace))
    waiter.receive()
    numbers = itertools.count()

    def turn(_: int) -> Turn:
        waiter.send(str(count))
        for number in itertools.islice(numbers, count):
            time.sleep(1 / rate)
            store.append(f"workflow-{number}", [{"sent_ns": time.monotonic_ns()}], queue="awaited")
        latencies = [taken / 1000 for taken in waiter.receive()]
        return Turn(percentile(latencies, percent), percentiles(latencies))

    return [Side(Ours.name, turn)]
