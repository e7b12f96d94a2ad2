"""DBOS on SQLite and on PostgreSQL: one workflow of durable steps. Each database has a process, in `dbos_worker`."""

import contextlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from ..figures import Turn
from ..measure import turn_of
from . import postgres
from .base import Contender, Missing

if importlib.util.find_spec("dbos") is None:
    raise ImportError("No module named 'dbos'")

_WORKER = Path(__file__).with_name("dbos_worker.py")


class DBOSOnSQLite(Contender):
    name = "DBOS, SQLite"
    about = "a step that returns a small dict; synchronous=NORMAL, with fsync FULL"
    _worker: subprocess.Popen[str] | None = None

    def arguments(self) -> list[str]:
        """Return the arguments of the worker."""
        return [f"sqlite:///{self.place.directory / 'dbos.sqlite'}", self.place.sqlite_synchronous]

    def close(self) -> None:
        if self._worker is not None:
            self._worker.communicate()

    def run_steps(self, key: str, count: int) -> Turn:  # noqa: ARG002 - DBOS makes the ids of workflows
        if self._worker is None:
            # Only cases with steps pay for the start.
            command = [sys.executable, str(_WORKER), *self.arguments()]
            self._worker = subprocess.Popen(
                command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        sent, received = self._worker.stdin, self._worker.stdout
        assert sent is not None
        assert received is not None
        with contextlib.suppress(BrokenPipeError):
            sent.write(f"{count}\n")
            sent.flush()
        answer = received.readline()
        if not answer:
            raise Missing(f"its process ended with status {self._worker.wait()}")
        latencies = json.loads(answer)
        return turn_of(sum(latencies), latencies, count)


class DBOSOnPostgres(DBOSOnSQLite):
    name = "DBOS, PostgreSQL"
    about = "a step that returns a small dict; synchronous_commit=off, with fsync on"

    def open(self) -> None:
        self._database = postgres.create_database(self.place, "dbos")

    def close(self) -> None:
        super().close()
        postgres.drop_database(self._database)

    def arguments(self) -> list[str]:
        return [postgres.url(self._database)]


CONTENDERS = [DBOSOnSQLite, DBOSOnPostgres]
