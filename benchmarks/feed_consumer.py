"""The process that is a consumer of a subscription, for the cases of sharing work.

A line from stdin gives the name of the subscription and the number of partitions that are this consumer's share. It is
answered when the consumer has them. The next line begins the work. It is answered with the number of commits that were
handled, and the time after the last one by the system's monotonic clock.
"""

import hashlib
import json
import sys
import time
from typing import Any

from runic_redis import RedisStore

# A handler takes about a millisecond of the processor.
_ROUNDS = 2_000
# The work is over when no commit comes for this time, which is not measured.
_IDLE_S = 0.5
# By then each consumer has its share, unless another one has failed.
_SHARING_S = 30.0


def answer(value: Any) -> None:
    print(json.dumps(value), flush=True)


url, namespace = sys.argv[1:]
with RedisStore.from_url(url, namespace=namespace, partitions=None) as store:
    for line in sys.stdin:
        name, share = line.split()
        with store.subscribe(name, batch=100, ttl=1.0, wait_s=_IDLE_S) as subscription:
            late = time.monotonic() + _SHARING_S
            while len(subscription.partitions) != int(share):
                if time.monotonic() > late:
                    sys.exit("the consumers did not share the partitions")
                time.sleep(0.01)
            answer("ready")
            sys.stdin.readline()
            handled, last = 0, time.monotonic()
            for commit in subscription:
                hashlib.pbkdf2_hmac("sha256", commit.workflow_id.encode(), b"", _ROUNDS)
                subscription.ack(commit)
                handled, last = handled + 1, time.monotonic()
        answer([handled, last])
