"""A worker that claims workflows and works on them until it is killed. It can also be stopped at any moment."""

import sys
import time
from dataclasses import dataclass

from runic_redis import CursorConflict, LeaseLost, RedisStore, event, session

STEPS = 8
STEP_S = 0.04
TTL_S = 0.6


@event("tests.claimed.step")
@dataclass(frozen=True)
class Step:
    number: int
    owner: str
    token: int


@event("tests.claimed.finished")
@dataclass(frozen=True)
class Finished:
    owner: str
    token: int


def count(state: int, event: Step | Finished) -> int:
    return event.number if isinstance(event, Step) else -1


def work(store: RedisStore, owner: str) -> None:
    while True:
        for lease in store.claim(owner, 1, ttl=TTL_S, wait_s=1.0):
            print("took", lease.workflow_id, flush=True)
            try:
                with lease, session(store, lease.workflow_id, count, 0, lease=lease) as one:
                    while 0 <= one.state < STEPS:
                        time.sleep(STEP_S)  # this is the work
                        one.record(Step(one.state + 1, owner, lease.token))
                    if one.state == STEPS:
                        one.record(Finished(owner, lease.token))
                    one.complete()
                    print("did", lease.workflow_id, flush=True)
            except (LeaseLost, CursorConflict) as lost:
                print("lost", type(lost).__name__, flush=True)


if __name__ == "__main__":
    url, namespace, owner = sys.argv[1:]
    with RedisStore.from_url(url, namespace=namespace, partitions=16) as store:
        work(store, owner)
