"""A process that writes until its standard input ends, and records what was acknowledged: see `tests.chaos.staff`.

Each event has the name of its commit, and the number of events in it; and a number, for sums.
"""

import itertools
import json
import logging
import os
import random
import sys
import threading
from typing import Any

from runic_redis import CursorConflict, DurabilityError, RedisStore, StoreUnavailable, replicated

# How many workflows of each kind all writers share.
WORKFLOWS = 12
# How many commits go in one call when the aim is many commits, and in how many workflows of each writer.
AT_ONCE = 100
OWN_WORKFLOWS = 600


class Writer:
    """Appends, and now and then deletes.

    Args:
        store: the store.
        record: the descriptor of the file for what is acknowledged.
        seed: the seed of the random choices.
    """

    def __init__(self, store: Any, record: int, seed: str) -> None:
        self._store = store
        self._record = record
        self._random = random.Random(seed)
        self._seed = seed.replace("/", ".")
        self._numbers = itertools.count(1)

    def step(self, *, deletes: bool) -> None:
        """Append a commit to a workflow, or delete it. Retry until the outcome is certain."""
        kind = self._random.choice(["plain", "deleted"] if deletes else ["plain"])
        workflow_id = f"{kind}-{self._random.randrange(WORKFLOWS)}"
        if kind == "deleted" and self._random.random() < 0.1:
            self._insist(lambda: self._store.delete(workflow_id))
            return
        name, events = self._commit(self._random.choice([1, 1, 1, 2, 3]))
        commit_id = self._random.randbytes(6).hex()
        try:
            cursor = self._insist(lambda: self._store.append(workflow_id, events, commit_id=commit_id))
        except CursorConflict:
            return  # the retry found the workflow deleted, and perhaps created again
        self._note([(workflow_id, cursor, len(events), name, events[0]["n"])])

    def many(self) -> None:
        """Append many commits in one call."""
        commits = [(self._own_workflow(), *self._commit(1)) for _ in range(AT_ONCE)]
        results = self._store.append_many([(workflow_id, events) for workflow_id, _, events in commits])
        self._note(
            (workflow_id, result, 1, name, events[0]["n"])
            for (workflow_id, name, events), result in zip(commits, results, strict=True)
        )

    def _own_workflow(self) -> str:
        return f"plain-{self._seed}-{self._random.randrange(OWN_WORKFLOWS)}"

    def _commit(self, size: int) -> tuple[str, list[dict[str, Any]]]:
        number = next(self._numbers)
        name = f"{self._seed}.{number}"
        return name, [{"op": name, "of": size, "n": number}] * size

    def _insist(self, call: Any) -> Any:
        while True:
            try:
                return call()
            except (DurabilityError, StoreUnavailable):
                continue

    def _note(self, commits: Any) -> None:
        os.write(self._record, "".join(" ".join(map(str, commit)) + "\n" for commit in commits).encode())


def end_of_input() -> threading.Event:
    """Return an event that is set when the standard input ends."""
    over = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    return over


def main(task: dict[str, Any]) -> None:
    """Write as the task says until the standard input ends."""
    over = end_of_input()
    # Standard error is for errors.
    logging.disable(logging.WARNING)
    record = os.open(task["record"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    durability = replicated(task["replicas"]) if task["replicas"] else "memory"
    options = {"namespace": task["namespace"], "partitions": task["partitions"], "feed": True}
    with RedisStore.from_url(task["url"], durability=durability, **options) as store:
        writer = Writer(store, record, task["seed"])
        while not over.wait(task["rest_s"]):
            if task["many"]:
                writer.many()
            else:
                writer.step(deletes=task["deletes"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
