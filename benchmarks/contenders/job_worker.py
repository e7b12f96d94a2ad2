"""The process that works on this store's jobs: python job_worker.py URL NAMESPACE.

A line from stdin gives the number of jobs to complete, and is answered once they are.
"""

import asyncio
import sys

from runic_redis import AsyncRedisStore

_AT_ONCE = 64


async def work(url: str, namespace: str) -> None:
    async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
        print("true", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            left = int(line)
            while left:
                leases = await store.claim("worker", _AT_ONCE, queues=["jobs"], wait_s=1.0)
                await asyncio.gather(*(store.complete(lease.workflow_id, lease=lease) for lease in leases))
                left -= len(leases)
            print("true", flush=True)


asyncio.run(work(*sys.argv[1:]))
