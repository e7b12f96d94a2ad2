"""The process that waits for workflows to be due, for the cases of waiting: python queue_waiter.py URL NAMESPACE.

Each line from stdin gives a number of workflows. Each line to stdout has the times from the call of `append` until the
claim returned, in nanoseconds, by the system's monotonic clock.
"""

import json
import sys
import time

from runic_redis import RedisStore

with RedisStore.from_url(sys.argv[1], namespace=sys.argv[2], partitions=None) as store:
    print("true", flush=True)
    for line in sys.stdin:
        taken_ns = []
        while len(taken_ns) < int(line):
            leases = store.claim("waiter", queues=["awaited"], wait_s=30.0)
            now_ns = time.monotonic_ns()
            for lease in leases:
                (sent,) = store.stream(lease.workflow_id)
                taken_ns.append(now_ns - sent["sent_ns"])
                store.complete(lease.workflow_id, lease=lease)
        print(json.dumps(taken_ns), flush=True)
