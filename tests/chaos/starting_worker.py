"""A process that starts workflows in a queue, as many as each line of its standard input says, until that ends.

It records the id of each workflow whose start was acknowledged.
"""

import asyncio
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from runic_redis import AsyncRedisStore, DurabilityError, RedisStore, StoreUnavailable
from tests.chaos.claiming_worker import options_of

# So many threads start workflows at the same time. asyncio starts all of a line.
_THREADS = 16
_PASSING = (DurabilityError, StoreUnavailable)


def _start(workflow_id: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of the append. With the commit id, it can be repeated until its outcome is certain."""
    return (workflow_id, [{"op": "start"}]), {"expected_cursor": 0, "queue": "default", "commit_id": "start"}


def start(task: dict[str, Any], next_id: Callable[[], str], note: Callable[[str], None]) -> None:
    """Start workflows in threads."""

    def start_one(workflow_id: str) -> None:
        arguments, options = _start(workflow_id)
        while True:
            try:
                store.append(*arguments, **options)
            except _PASSING:
                continue
            return note(workflow_id)

    with RedisStore.from_url(task["url"], **options_of(task)) as store, ThreadPoolExecutor(_THREADS) as pool:
        for line in sys.stdin:
            list(pool.map(start_one, [next_id() for _ in range(int(line))]))


async def start_async(task: dict[str, Any], next_id: Callable[[], str], note: Callable[[str], None]) -> None:
    """Start workflows in asyncio."""

    async def start_one(workflow_id: str) -> None:
        arguments, options = _start(workflow_id)
        while True:
            try:
                await store.append(*arguments, **options)
            except _PASSING:
                continue
            return note(workflow_id)

    async with AsyncRedisStore.from_url(task["url"], **options_of(task)) as store:
        while line := await asyncio.to_thread(sys.stdin.readline):
            await asyncio.gather(*(start_one(next_id()) for _ in range(int(line))))


def main(task: dict[str, Any]) -> None:
    """Start workflows as the task says until the standard input ends."""
    # Standard error is for errors.
    logging.disable(logging.WARNING)
    record = os.open(task["record"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    numbers = itertools.count()

    def next_id() -> str:
        return f"{task['name']}-{next(numbers)}"

    def note(workflow_id: str) -> None:
        os.write(record, f"{workflow_id}\n".encode())

    if task["face"] == "asyncio":
        asyncio.run(start_async(task, next_id, note))
    else:
        start(task, next_id, note)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
