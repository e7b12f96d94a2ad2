"""The worker processes: start them, tell what they do, and kill one."""

import json
import os
import queue
import subprocess
import sys
import threading
from typing import Self

from runic_redis.context import URL_VARIABLE
from runic_redis.demo.errors import DemoError
from runic_redis.demo.events import ModuleClaimed, takeover_text
from runic_redis.demo.progress import Bar
from runic_redis.demo.worker import TTL_S

WORKERS = 3


class Crew:
    """The worker processes; none outlives the context.

    Args:
        url: the URL of the store.
        namespace: its namespace.
        largest: the module whose worker is killed.

    Attributes:
        killed: the name of the worker that was killed; empty before.
        appended: the number of events that the workers have reported.
        append_s: the seconds that the workers took to append these events.
    """

    def __init__(self, url: str, namespace: str, largest: str) -> None:
        self._lines: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        # The worker that last claimed each module.
        self._claimed_by: dict[str, str] = {}
        self._url = url
        self._namespace = namespace
        self._largest = largest
        self.killed = ""
        self.appended = 0
        self.append_s = 0.0

    def __enter__(self) -> Self:
        for number in range(1, WORKERS + 1):
            name = f"worker-{number}"
            # Every user of the machine can read a command line, and the URL may contain a password.
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
        for reader in self._readers:
            reader.join()
        for process in self._processes.values():
            process.communicate()  # waits for its end, and closes the pipe

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            self._lines.put((name, line))
        self._lines.put((name, None))

    def work(self, bar: Bar) -> None:
        """Wait until the workers have finished, and kill the one that has stored half of the largest module."""
        working = set(self._processes)
        while working:
            name, line = self._lines.get()
            if line is None:
                working.remove(name)
                status = self._processes[name].wait()
                if status != 0 and name != self.killed:
                    raise DemoError(f"{name} ended with status {status}")
                continue
            match json.loads(line):
                case ["claimed", *claim]:
                    self._tell_claim(ModuleClaimed(*claim), bar)
                case ["appended", module, number, files, events, seconds]:
                    self.appended += events
                    self.append_s += seconds
                    bar.advance()
                    if not self.killed and module == self._largest and number >= files // 2:
                        self._kill(name, module, number, files, bar)

    def _tell_claim(self, claim: ModuleClaimed, bar: Bar) -> None:
        name, module = claim.worker, claim.module
        if former := self._claimed_by.get(module):
            bar.tell(takeover_text(claim, former), "green")
        elif module == self._largest or name not in self._claimed_by.values():
            bar.tell(f"{name} (process {self._processes[name].pid}) claimed {module}, files: {claim.files}")
        self._claimed_by[module] = name

    def _kill(self, name: str, module: str, number: int, files: int, bar: Bar) -> None:
        self._processes[name].kill()
        self.killed = name
        bar.tell(
            f"{name} (process {self._processes[name].pid}) was killed with SIGKILL: it had stored {number} of {files} "
            f"files of {module}; its lease lasts {TTL_S:g} s at most",
            "red",
        )
