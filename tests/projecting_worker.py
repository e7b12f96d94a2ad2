"""A process that runs a projection until it is killed."""

import logging
import sys
from typing import Any

from runic_redis import Commit, EveryEvents, LeaseLost, RedisStore, StoreUnavailable, projection

NAME = "sums"
TTL_S = 0.3


def apply(state: dict[str, Any], commit: Commit) -> dict[str, Any]:
    """Sum up the numbers of all events, and check that those of each workflow come in order and once."""
    for number, event in enumerate(commit.events, commit.cursor - len(commit.events) + 1):
        assert state["cursors"].get(commit.workflow_id, 0) == number - 1, commit
        state["cursors"][commit.workflow_id] = number
        state["sum"] += event["n"]
    return state


def initial() -> dict[str, Any]:
    return {"sum": 0, "cursors": {}}


if __name__ == "__main__":
    # Standard error is for errors.
    logging.disable(logging.WARNING)
    url, namespace = sys.argv[1:]
    with RedisStore.from_url(url, namespace=namespace, partitions=4, feed=True) as store:
        while True:
            try:
                with projection(store, NAME, apply, initial, policy=EveryEvents(5), ttl=TTL_S) as sums:
                    print("entered", sums.state["sum"], flush=True)
                    sums.run()
            except (LeaseLost, StoreUnavailable):
                print("lost", flush=True)
