"""The process of DBOS: python dbos_worker.py URL [SYNCHRONOUS].

It reads a number of steps and of workflows that run at the same time. It writes the seconds of each step of a single
workflow, or else the seconds of all. SYNCHRONOUS is the value of SQLite's PRAGMA synchronous.
"""

import json
import sys
import time
from typing import Any

import sqlalchemy
from dbos import DBOS

url, *pragma = sys.argv[1:]


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "connect")
def synchronize(connection: Any, _: object) -> None:
    for value in pragma:
        connection.execute(f"PRAGMA synchronous={value}")


@DBOS.step()
def step(event: dict[str, Any]) -> dict[str, Any]:
    return event


@DBOS.workflow()
def work(count: int) -> list[float]:
    seconds = []
    for number in range(count):
        began = time.perf_counter()
        step({"step": f"step-{number}", "attempt": 1, "hash": "0" * 64, "labels": {"tenant": "t1", "region": "eu"}})
        seconds.append(time.perf_counter() - began)
    return seconds


DBOS(config={"name": "bench", "system_database_url": url, "run_admin_server": False, "log_level": "ERROR"})
DBOS.launch()
for line in sys.stdin:
    count, workflows = map(int, line.split())
    if workflows == 1:
        print(json.dumps(work(count)), flush=True)
        continue
    began = time.perf_counter()
    for handle in [DBOS.start_workflow(work, count) for _ in range(workflows)]:
        handle.get_result()
    print(json.dumps([time.perf_counter() - began]), flush=True)
DBOS.destroy()
