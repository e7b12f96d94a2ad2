"""A process that is a consumer of a subscription, and records each commit before and after it acknowledges it.

It works until its standard input ends. A line before the acknowledgement has the time, the partition, the place in its
feed, the workflow, the cursor, how many events there are, how many there should be, and the commit's name. A line after
it has the time. The file is complete up to the moment at which the process is killed.
"""

import asyncio
import json
import logging
import os
import sys
import time
from typing import Any

from runic_redis import AsyncRedisStore, Commit, DurabilityError, LeaseLost, RedisStore, StoreUnavailable, replicated
from tests.chaos.writing_worker import end_of_input

# How long a step waits for a commit before it looks whether to end.
_STEP_S = 0.2
# A consumer tries again after these, or goes on with the next commit.
_PASSING = (DurabilityError, LeaseLost, StoreUnavailable)


class _Record:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def before(self, commit: Commit) -> None:
        place = commit.positions.places[commit.partition]
        event = commit.events[0] if commit.events else {"of": 0, "op": "-"}
        what = (commit.workflow_id, commit.cursor, len(commit.events), event["of"], event["op"])
        self._write("<", commit.partition, place, *what)

    def after(self) -> None:
        self._write(">")

    def _write(self, *parts: object) -> None:
        kind, *rest = parts
        os.write(self._file, (" ".join(map(str, (kind, time.monotonic_ns(), *rest))) + "\n").encode())


def consume(task: dict[str, Any], options: dict[str, Any]) -> None:
    """Consume in threads."""
    over, record = end_of_input(), _Record(task["record"])

    def work(store: RedisStore) -> None:
        with store.subscribe(task["name"], batch=task["batch"], ttl=task["ttl"], wait_s=_STEP_S) as commits:
            while not over.is_set():
                try:
                    commit = next(commits)
                except (StopIteration, *_PASSING):
                    continue
                record.before(commit)
                while True:
                    try:
                        commits.ack(commit)
                    except LeaseLost:
                        break
                    except _PASSING:
                        continue
                    record.after()
                    break

    with RedisStore.from_url(task["url"], **options) as store:
        while not over.is_set():
            try:
                work(store)
            except _PASSING:
                continue


async def consume_async(task: dict[str, Any], options: dict[str, Any]) -> None:
    """Consume in asyncio."""
    over, record = end_of_input(), _Record(task["record"])

    async def work(store: AsyncRedisStore) -> None:
        async with store.subscribe(task["name"], batch=task["batch"], ttl=task["ttl"], wait_s=_STEP_S) as commits:
            while not over.is_set():
                try:
                    commit = await anext(commits)
                except (StopAsyncIteration, *_PASSING):
                    continue
                record.before(commit)
                while True:
                    try:
                        await commits.ack(commit)
                    except LeaseLost:
                        break
                    except _PASSING:
                        continue
                    record.after()
                    break

    async with AsyncRedisStore.from_url(task["url"], **options) as store:
        while not over.is_set():
            try:
                await work(store)
            except _PASSING:
                continue


def main(task: dict[str, Any]) -> None:
    """Consume as the task says until the standard input ends."""
    # Standard error is for errors.
    logging.disable(logging.WARNING)
    options = {
        "namespace": task["namespace"],
        "partitions": task["partitions"],
        "durability": replicated(task["replicas"]) if task["replicas"] else "memory",
        "feed": True,
    }
    if task["face"] == "asyncio":
        asyncio.run(consume_async(task, options))
    else:
        consume(task, options)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
