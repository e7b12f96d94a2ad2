"""DBOS on SQLite and on PostgreSQL: one workflow of durable steps. Each database has a process, in `dbos_worker`."""

import importlib.util
from pathlib import Path

from ..figures import Turn
from ..measure import turn_of
from ..workers import Worker
from . import postgres
from .base import Contender

if importlib.util.find_spec("dbos") is None:
    raise ImportError("No module named 'dbos'")

_WORKER = Path(__file__).with_name("dbos_worker.py")


class DBOSOnSQLite(Contender):
    name = "DBOS, SQLite"
    about = "a step that returns a small dict; synchronous=NORMAL, with fsync FULL"
    _worker: Worker | None = None

    def arguments(self) -> list[str]:
        """Return the arguments of the worker."""
        return [f"sqlite:///{self.place.directory / 'dbos.sqlite'}", self.place.sqlite_synchronous]

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()

    def run_steps(self, key: str, count: int) -> Turn:  # noqa: ARG002 - DBOS makes the ids of workflows
        latencies = self._ask(count, 1)
        return turn_of(sum(latencies), latencies, count)

    def run_many_steps(self, key: str, count: int, workflows: int) -> Turn:  # noqa: ARG002
        return Turn(sum(self._ask(count, workflows)) / count / workflows * 1e6)

    def _ask(self, count: int, workflows: int) -> list[float]:
        if self._worker is None:
            # Only cases with steps pay for the start.
            self._worker = Worker(_WORKER, *self.arguments())
        self._worker.send(f"{count} {workflows}")
        seconds: list[float] = self._worker.receive()
        return seconds


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
