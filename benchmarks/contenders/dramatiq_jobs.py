"""dramatiq: jobs of threads on Redis. Its worker is a process, in `dramatiq_worker`."""

from pathlib import Path
from typing import Any

import dramatiq

from ..figures import Turn
from .base import Contender
from .dramatiq_worker import run, use_broker
from .jobs import Jobs


class Dramatiq(Contender):
    name = "dramatiq"
    about = "send from one thread, as it has no bulk; a worker of 8 threads"
    _jobs: Jobs | None = None
    _actor: Any = None

    def close(self) -> None:
        if self._jobs is not None:
            self._jobs.close()

    def run_jobs(self, count: int) -> Turn:
        if self._jobs is None:
            # Only cases with jobs pay for the start.
            use_broker(self.place.server.url)
            self._actor = dramatiq.actor(run, actor_name="job", queue_name="jobs")
            self._jobs = Jobs(Path(__file__).with_name("dramatiq_worker.py"), (self.place.server.url,), self._enqueue)
        return self._jobs.run(count)

    def _enqueue(self, count: int) -> None:
        for number in range(count):
            self._actor.send(number)


CONTENDERS = [Dramatiq]
