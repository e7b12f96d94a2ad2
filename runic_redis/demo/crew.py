"""The workers, seen from outside: they are started, listened to, and one of them is killed."""

import os
import queue
import subprocess
import sys
import threading
from typing import Self

from runic_redis.context import URL_VARIABLE
from runic_redis.demo.errors import DemoError
from runic_redis.demo.progress import Bar

__all__ = ["WORKERS", "Crew"]

WORKERS = 3


class Crew:
    """The worker processes; none outlives the context."""

    def __init__(self, url: str, namespace: str) -> None:
        self._lines: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        self._url = url
        self._namespace = namespace
        self.killed = ""

    def __enter__(self) -> Self:
        for number in range(1, WORKERS + 1):
            name = f"worker-{number}"
            # Everybody can read a command line, and there may be a password in the URL.
            process = subprocess.Popen(
                [sys.executable, "-m", "runic_redis.demo.worker", self._namespace, name],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, URL_VARIABLE: self._url},
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

    def work(self, largest: str, bar: Bar) -> None:
        """Let them work to the end, and kill the one that has the largest module when half of it is measured."""
        at_work = set(self._processes)
        while at_work:
            name, line = self._lines.get()
            if line is None:
                at_work.remove(name)
                status = self._processes[name].wait()
                if status != 0 and not self.killed.startswith(f"{name} "):
                    raise DemoError(f"{name} ended with status {status}")
                continue
            bar.advance()
            module, number, files = line.split()
            if not self.killed and module == largest and int(number) >= int(files) // 2:
                self._processes[name].kill()
                self.killed = f"{name} with SIGKILL, in {module}, when it had reported {number} of {files} files"
