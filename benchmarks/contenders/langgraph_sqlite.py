"""LangGraph's checkpointer on SQLite: it saves and loads a state as a whole, so it takes part in those cases.

Its file is on the same disk as the embedded server's file, and as durable as fsync everysec.
"""

import sqlite3
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver

from .base import Contender


class LangGraphSQLite(Contender):
    name = "LangGraph, SQLite"
    about = "SqliteSaver.put and get_tuple, the state in channel_values; a file, journal_mode=WAL, synchronous=NORMAL"

    def open(self) -> None:
        # The saver has a lock, so threads may share the connection. Its documentation opens it in the same way.
        self._connection = sqlite3.connect(self.place.directory / "langgraph.sqlite", check_same_thread=False)
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._saver = SqliteSaver(self._connection)
        self._saver.setup()

    def close(self) -> None:
        self._connection.close()

    def delete(self, key: str) -> None:
        self._saver.delete_thread(key)

    def save_snapshot(self, key: str, mark: Any, state: dict[str, Any]) -> object:
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = state
        return self._saver.put(_config(key), checkpoint, {"source": "loop", "step": mark, "parents": {}}, {})

    def load_snapshot(self, key: str) -> tuple[Any, dict[str, Any]]:
        found = self._saver.get_tuple(_config(key))
        assert found is not None
        return found.metadata["step"], found.checkpoint["channel_values"]


def _config(key: str) -> Any:
    return {"configurable": {"thread_id": key, "checkpoint_ns": ""}}


CONTENDERS = [LangGraphSQLite]
