"""The guides' projections into other databases: processes that run them are killed, and each event is there once."""

import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from runic_redis import RedisStore
from tests.forking import Forked
from tests.servers import RunningServer, wait_until
from tests.test_docs import examples

HOW_TO = Path(__file__).parent.parent / "docs" / "how-to"
KILLS = int(os.environ.get("PROJECTION_KILLS", "8"))
WORKER = """
import sys, time
url, namespace, target = sys.argv[1:]
with RedisStore.from_url(url, namespace=namespace, partitions=4, feed=True) as store:
    database = CONNECT
    print("ready", flush=True)
    while True:
        if not project(store, database, batch=7):
            time.sleep(0.002)
"""


class Writer(Thread):
    """Appends events of orders until it is ended, and deletes some orders."""

    def __init__(self, store: RedisStore) -> None:
        super().__init__()
        self._store = store
        self._over = Event()
        self.totals: Counter[str] = Counter()

    def run(self) -> None:
        source = random.Random(3)
        # The workers must keep up.
        while not self._over.wait(0.004):
            order = f"order-{source.randrange(20)}"
            if source.randrange(50) == 0:
                self._store.delete(order)
                self.totals.pop(order, None)
            amounts = [float(source.randrange(1, 9)) for _ in range(source.randrange(1, 4))]
            self._store.append(order, [{"amount": amount} for amount in amounts])
            self.totals[order] += sum(amounts)

    def end(self) -> None:
        self._over.set()
        self.join()


def project_under_kills(
    url: str, namespace: str, page: str, connect: str, target: str, read: Callable[[str], Any]
) -> tuple[Any, Counter[str]]:
    """Run the code of a guide in two processes that are killed in turn. Return the rows, and what they must be."""
    source = random.Random(int(os.environ.get("PROJECTION_SEED", "1")))
    definitions = examples(HOW_TO / page)[0]
    program = definitions + WORKER.replace("CONNECT", connect)

    def start() -> Forked:
        worker = Forked(program, url, namespace, target)
        assert worker.stdout.readline() == "ready\n", worker.stderr.read()
        return worker

    def positions() -> Any:
        return read("SELECT positions FROM positions")

    with RedisStore.from_url(url, namespace=namespace, partitions=4, feed=True) as store:
        writer = Writer(store)
        writer.start()
        workers = [start(), start()]
        try:
            for _ in range(KILLS):
                before = positions()
                wait_until(lambda before=before: positions() != before, "a transaction")
                time.sleep(source.random() * 0.02)
                worker = workers.pop(0)
                worker.kill()
                worker.close()
                workers.append(start())
        finally:
            writer.end()
            for worker in workers:
                worker.kill()
                worker.close()
        names: dict[str, Any] = {"__name__": "guide"}
        exec(definitions + f"\ntarget = {target!r}\ndatabase = {connect}\n", names)
        while names["project"](store, names["database"]):
            pass
        names["database"].close()
        return read("SELECT id, total FROM orders"), writer.totals


def test_rows_in_sqlite_are_right_although_processes_are_killed(
    valkey: RunningServer, namespace: str, tmp_path: Path
) -> None:
    target = str(tmp_path / "orders.db")
    sqlite3.connect(target).close()

    def read(query: str) -> Any:
        database = sqlite3.connect(target, timeout=30)
        try:
            return database.execute(query).fetchall()
        except sqlite3.OperationalError:
            return None  # the first process has not made the tables yet
        finally:
            database.close()

    rows, expected = project_under_kills(
        valkey.url(), namespace, "project-into-sqlite.md", "connect(target)", target, read
    )
    assert dict(rows) == expected


def test_rows_in_postgresql_are_right_although_processes_are_killed(
    valkey: RunningServer, namespace: str, postgres: str
) -> None:
    psycopg = pytest.importorskip("psycopg")
    schema: dict[str, Any] = {}
    exec(examples(HOW_TO / "project-into-postgresql.md")[0], schema)
    with psycopg.connect(postgres, autocommit=True) as database:
        database.execute(schema["SCHEMA"])
        rows, expected = project_under_kills(
            valkey.url(),
            namespace,
            "project-into-postgresql.md",
            "psycopg.connect(target, autocommit=True)",
            postgres,
            lambda query: database.execute(query).fetchall(),
        )
        database.execute("DROP TABLE orders, positions")
    assert dict(rows) == expected
