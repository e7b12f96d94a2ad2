"""The process of arq: python arq_worker.py URL. A line gives the number of jobs to run, and is answered then."""

import asyncio
import os
import sys
from typing import Any

from arq import Worker, func
from arq.connections import RedisSettings

# The default of the poll delay is half a second, and no worker keeps results that nobody reads.
_POLL_S = 0.005
_AT_ONCE = 64


async def work(url: str) -> None:
    done = asyncio.Semaphore(0)

    async def job(_: dict[str, Any], number: int) -> None:  # noqa: ARG001
        done.release()

    worker = Worker(
        [func(job, name="job")],
        redis_settings=settings(url),
        max_jobs=_AT_ONCE,
        poll_delay=_POLL_S,
        keep_result=0,
        handle_signals=False,
    )
    running = [asyncio.create_task(worker.async_run())]
    print("true", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        for _ in range(int(line)):
            await done.acquire()
        print("true", flush=True)
    running.clear()
    # It goes on when it is cancelled.
    os._exit(0)


def settings(url: str) -> RedisSettings:
    """Return what arq takes in place of a URL."""
    if url.startswith("unix://"):
        return RedisSettings(unix_socket_path=url.removeprefix("unix://").partition("?")[0])
    return RedisSettings.from_dsn(url)


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
