"""LangGraph's checkpointer on SQLite. It saves and loads a state as a whole, and a superstep of one task.

Its file is on the same disk as the embedded server's file.
"""

import dataclasses
import functools
import sqlite3
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver

from ..events import some_events
from ..figures import Turn
from ..measure import one_by_one
from .langgraph_saver import LangGraphSaver


class LangGraphSQLite(LangGraphSaver):
    name = "LangGraph, SQLite"
    about = "SqliteSaver; WAL, synchronous=NORMAL, with fsync FULL"
    usual = True

    def open(self) -> None:
        # The saver has a lock, so threads may share the connection. Its documentation opens it in the same way.
        self._path = self.place.directory / "langgraph.sqlite"
        self._connection = sqlite3.connect(self._path, check_same_thread=False)
        self._connection.execute(f"PRAGMA synchronous={self.place.sqlite_synchronous}")
        self.saver = SqliteSaver(self._connection)
        self.saver.setup()

    def close(self) -> None:
        self._connection.close()

    def stored_bytes(self) -> int:
        self._connection.execute("VACUUM")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return sum(path.stat().st_size for path in self._path.parent.glob(f"{self._path.name}*"))

    def run_steps(self, key: str, count: int) -> Turn:
        """Save a superstep for each step: the write of its one task, and the checkpoint after it."""

        def superstep(number: int, event: Any) -> None:
            values = dataclasses.asdict(event)
            self.saver.put_writes(self._at, [("event", values)], f"task-{number}")
            self._at = self._put(self._at, {"event": values}, number)

        self._at = self._put(_config(key), {}, 0)
        return one_by_one([functools.partial(superstep, *one) for one in enumerate(some_events(count), 1)], count)

    def save_snapshot(self, key: str, mark: Any, state: dict[str, Any]) -> object:
        return self._put(_config(key), state, mark)

    def _put(self, config: Any, state: dict[str, Any], step: int) -> Any:
        """Save a checkpoint in which every channel is new, and return its configuration."""
        checkpoint = empty_checkpoint()
        versions = dict.fromkeys(state, checkpoint["id"])
        checkpoint["channel_values"], checkpoint["channel_versions"] = state, versions
        return self.saver.put(config, checkpoint, {"source": "loop", "step": step, "parents": {}}, versions)

    def load_snapshot(self, key: str) -> tuple[Any, dict[str, Any]]:
        found = self.saver.get_tuple(_config(key))
        assert found is not None
        return found.metadata["step"], found.checkpoint["channel_values"]


def _config(key: str) -> Any:
    return {"configurable": {"thread_id": key, "checkpoint_ns": ""}}


CONTENDERS = [LangGraphSQLite]
