"""A bare SQLite table: a row for each commit, packed as by hand. The primary key rejects a second commit at a cursor.

One connection serves all threads, behind a lock, because SQLite has one writer at a time.
"""

import sqlite3
import threading
from collections.abc import Sequence
from typing import Any

import msgpack

from ..events import Kind
from .base import Contender


class SQLiteTable(Contender):
    name = "bare SQLite"
    about = "a table, a packed row a commit; WAL, synchronous=NORMAL, with fsync FULL"
    usual = False

    def open(self) -> None:
        self._connection = sqlite3.connect(
            self.place.directory / "table.sqlite", check_same_thread=False, isolation_level=None
        )
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute(f"PRAGMA synchronous={self.place.sqlite_synchronous}")
        self._connection.execute(
            "CREATE TABLE commits (workflow TEXT, cursor INTEGER, events BLOB, PRIMARY KEY (workflow, cursor))"
            " WITHOUT ROWID"
        )
        self._lock = threading.Lock()

    def close(self) -> None:
        self._connection.close()

    def delete(self, key: str) -> None:
        self._connection.execute("DELETE FROM commits WHERE workflow = ?", (key,))

    def prepare(self, key: str, at: int, events: Sequence[Any], kind: Kind) -> Any:  # noqa: ARG002
        return at + len(events), events, kind.row

    def append(self, key: str, prepared: Any) -> object:
        cursor, events, row = prepared
        data = msgpack.packb([row(event) for event in events])
        with self._lock:
            return self._connection.execute("INSERT INTO commits VALUES (?, ?, ?)", (key, cursor, data))

    def read(self, key: str, kind: Kind) -> list[Any]:
        return self.read_after(key, 0, kind)

    def mark(self, key: str, cursor: int) -> Any:  # noqa: ARG002
        return cursor

    def read_after(self, key: str, mark: Any, kind: Kind) -> list[Any]:
        found = self._connection.execute(
            "SELECT events FROM commits WHERE workflow = ? AND cursor > ? ORDER BY cursor", (key, mark)
        )
        build = kind.build
        return [build(row) for (data,) in found for row in msgpack.unpackb(data)]


CONTENDERS = [SQLiteTable]
