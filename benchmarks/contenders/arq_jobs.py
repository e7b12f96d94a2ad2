"""arq: jobs of asyncio on Redis. Its worker is a process, in `arq_worker`."""

import asyncio
from pathlib import Path
from typing import Any

from arq import create_pool

from ..figures import Turn
from .arq_worker import settings
from .base import Contender
from .jobs import Jobs

# The tasks that enqueue at once.
_TASKS = 50


class Arq(Contender):
    name = "arq"
    about = "enqueue_job from tasks; a worker of 64 jobs at once, without results, that polls every 5 ms"
    _jobs: Jobs | None = None
    _pool: Any = None

    def close(self) -> None:
        if self._jobs is not None:
            self._jobs.close()
            self.place.runner.run(self._pool.aclose())

    def run_jobs(self, count: int) -> Turn:
        if self._jobs is None:
            # Only cases with jobs pay for the start.
            self._pool = self.place.runner.run(create_pool(settings(self.place.server.url)))
            self._jobs = Jobs(Path(__file__).with_name("arq_worker.py"), (self.place.server.url,), self._enqueue)
        return self._jobs.run(count)

    def _enqueue(self, count: int) -> None:
        async def all_of_them() -> None:
            # Each call has a connection, and the pool has no more of them.
            for at in range(0, count, _TASKS):
                numbers = range(at, min(count, at + _TASKS))
                await asyncio.gather(*(self._pool.enqueue_job("job", number) for number in numbers))

        self.place.runner.run(all_of_them())


CONTENDERS = [Arq]
