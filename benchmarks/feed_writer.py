"""The process that appends at a steady pace, for the cases of following.

Each line from stdin gives a number of commits and the commits a second; each line to stdout, the seconds that these
took. A commit holds the time before its append, by the system's monotonic clock.
"""

import asyncio
import json
import sys
import time

from runic_redis import AsyncRedisStore


async def write(store: AsyncRedisStore, count: int, rate: int) -> float:
    """Append at the pace, whatever the time that an append takes, and return the seconds until all are stored."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            await asyncio.sleep(began + number / rate - time.monotonic())
            tasks.create_task(store.append(f"workflow-{number % 100}", [{"sent_ns": time.monotonic_ns()}]))
    return time.monotonic() - began


async def main(url: str, namespace: str) -> None:
    async with AsyncRedisStore.from_url(url, namespace=namespace, partitions=None) as store:
        # The loop has nothing else to do while it waits for a line.
        for line in sys.stdin:
            count, rate = map(int, line.split())
            print(json.dumps(await write(store, count, rate)), flush=True)


asyncio.run(main(*sys.argv[1:]))
