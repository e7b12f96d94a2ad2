"""The workers, seen from outside: they are started, listened to, and one of them is killed."""

import queue
import subprocess
import sys
import threading
from typing import Self

from runic_redis import RedisStore
from runic_redis.demo.errors import DemoError
from runic_redis.demo.events import WORKERS, WorkerLost
from runic_redis.demo.progress import Bar

__all__ = ["WORKERS_STARTED", "Crew"]

WORKERS_STARTED = 3
# The worker is killed once this share of the files is done, and so many files into and before the end of a module.
_KILL_FROM = 0.2
_KILL_MARGIN = 3


class Crew:
    """The worker processes; none outlives the context."""

    def __init__(self, url: str, namespace: str, store: RedisStore) -> None:
        self._store = store
        self._lines: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        self._url = url
        self._namespace = namespace
        self.killed = ""

    def __enter__(self) -> Self:
        for number in range(1, WORKERS_STARTED + 1):
            name = f"worker-{number}"
            process = subprocess.Popen(
                [sys.executable, "-m", "runic_redis.demo.worker", self._url, self._namespace, name],
                stdout=subprocess.PIPE,
                text=True,
            )
            self._processes[name] = process
            self._readers.append(threading.Thread(target=self._read, args=(name, process), daemon=True))
            self._readers[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        for reader in self._readers:
            reader.join()
        for process in self._processes.values():
            if process.stdout is not None:
                process.stdout.close()

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            self._lines.put((name, line))
        self._lines.put((name, None))

    def work(self, bar: Bar) -> None:
        """Let them work to the end, and kill one on the way."""
        at_work = set(self._processes)
        while at_work:
            name, line = self._lines.get()
            if line is None:
                at_work.remove(name)
                self._ended(name)
                continue
            bar.advance()
            module, number, files = line.split()
            middle = _KILL_MARGIN <= int(number) <= int(files) - _KILL_MARGIN
            if not self.killed and middle and bar.done >= bar.total * _KILL_FROM:
                self._processes[name].kill()
                self.killed = f"{name} with SIGKILL, in {module}, when it had reported {number} of {files} files"

    def _ended(self, name: str) -> None:
        """A worker has ended: by itself, or it is lost and the others are told."""
        status = self._processes[name].wait()
        if status == 0:
            return
        if not self.killed.startswith(f"{name} "):
            raise DemoError(f"{name} ended with status {status}")
        self._store.append(WORKERS, [WorkerLost(name)])
