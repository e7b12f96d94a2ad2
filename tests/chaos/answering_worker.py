"""A process that answers the messages of workflows by `work` or `async_work`, until its standard input ends.

The commit that answers a message has its name, and its id in the inbox. The process records how many it has answered.
"""

import asyncio
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from runic_redis import (
    AsyncRedisStore,
    DurabilityError,
    EveryEvents,
    LeaseLost,
    RedisStore,
    StoreUnavailable,
    async_work,
    handler,
    work,
)
from tests.chaos.claiming_worker import options_of
from tests.chaos.writing_worker import end_of_input

# Errors of a handler after which another worker, or the next run, goes on.
_PASSING = (DurabilityError, LeaseLost, StoreUnavailable)
# Of a process: how many workflows it answers at the same time.
_AT_ONCE = 3


def _count(state: int, _: Any) -> int:
    return state + 1


_STATE: dict[str, Any] = {"apply": _count, "initial": 0, "snapshots": EveryEvents(20)}


def _answer(message: Any) -> dict[str, str]:
    return {"op": message.body["op"], "id": message.id}


@contextmanager
def _reporting() -> Iterator[None]:
    """Report the errors that a handler should not get."""
    try:
        yield
    except _PASSING:
        raise
    except Exception:
        traceback.print_exc()
        raise


def main(task: dict[str, Any]) -> None:
    """Answer as the task says until the standard input ends."""
    over = end_of_input()
    # Standard error is for errors.
    logging.disable(logging.WARNING)
    record = os.open(task["record"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    options: dict[str, Any] = {
        "concurrency": _AT_ONCE,
        "ttl": task["ttl"],
        "max_attempts": None,
        "first_delay": 0.05,
        "longest_delay": 0.2,
    }

    @handler(**_STATE)
    def answer(session: Any) -> None:
        with _reporting():
            while True:
                for message in session.inbox():
                    session.record(_answer(message), consumes=message)
                    os.write(record, b"1\n")
                session.sleep(None)

    @handler(**_STATE)
    async def answer_async(session: Any) -> None:
        with _reporting():
            while True:
                for message in await session.inbox():
                    await session.record(_answer(message), consumes=message)
                    os.write(record, b"1\n")
                await session.sleep(None)

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        threading.Thread(target=lambda: over.wait() and loop.call_soon_threadsafe(stop.set), daemon=True).start()
        async with AsyncRedisStore.from_url(task["url"], **options_of(task)) as store:
            await async_work(store, answer_async, stop=stop, **options)

    if task["face"] == "asyncio":
        asyncio.run(run())
    else:
        with RedisStore.from_url(task["url"], **options_of(task)) as store:
            work(store, answer, stop=over, **options)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
