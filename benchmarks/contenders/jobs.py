"""Running jobs in the process of a worker, for contenders with a queue."""

import time
from collections.abc import Callable
from pathlib import Path

from ..figures import Turn
from ..workers import Worker


class Jobs:
    """The jobs of one contender, and the process of its worker.

    Args:
        program: the file of the worker. It says when it is ready, takes numbers of jobs, and answers each number when
            so many jobs are completed.
        arguments: its arguments.
        enqueue: enqueues a number of jobs, as fast as one process can.
    """

    def __init__(self, program: Path, arguments: tuple[str, ...], enqueue: Callable[[int], None]) -> None:
        self._enqueue = enqueue
        self._worker = Worker(program, *arguments)
        self._worker.receive()

    def run(self, count: int) -> Turn:
        """Enqueue jobs and wait until they are completed. The cost is that of a job."""
        self._worker.send(str(count))
        began = time.perf_counter()
        self._enqueue(count)
        self._worker.receive()
        return Turn((time.perf_counter() - began) / count * 1e6)

    def close(self) -> None:
        """End the worker."""
        self._worker.close()
