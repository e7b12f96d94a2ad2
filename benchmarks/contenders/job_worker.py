"""The process that works on this store's jobs: python job_worker.py URL NAMESPACE [work].

A line from stdin gives the number of jobs to complete, and is answered once they are. With "work", `async_work` calls a
handler for each.
"""

import asyncio
import sys

from runic_redis import AsyncRedisStore, AsyncSession, async_work

_AT_ONCE = 64


async def answer_lines(store: AsyncRedisStore) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        left = int(line)
        while left:
            leases = await store.claim("worker", _AT_ONCE, queues=["jobs"], wait_s=1.0)
            await asyncio.gather(*(store.complete(lease.workflow_id, lease=lease) for lease in leases))
            left -= len(leases)
        print("true", flush=True)


async def answer_lines_with_work(store: AsyncRedisStore) -> None:
    done = asyncio.Semaphore(0)
    stop = asyncio.Event()

    async def job(_: AsyncSession) -> None:
        done.release()

    working = asyncio.create_task(async_work(store, job, queues=["jobs"], concurrency=_AT_ONCE, stop=stop))
    while line := await asyncio.to_thread(sys.stdin.readline):
        for _ in range(int(line)):
            await done.acquire()
        print("true", flush=True)
    stop.set()
    await working


async def main(url: str, namespace: str, *how: str) -> None:
    async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
        print("true", flush=True)
        await (answer_lines_with_work if how else answer_lines)(store)


asyncio.run(main(*sys.argv[1:]))
