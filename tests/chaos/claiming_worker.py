"""A process that claims workflows, does the work of each and completes it, until its standard input ends.

It records each claim: the workflow, the attempt, and when the lease began by the server's clock (Unix milliseconds);
and each workflow that it completed.
The work is one commit. It carries the cursor, so a workflow whose earlier worker died after the work is only completed.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from runic_redis import (
    AsyncRedisStore,
    CursorConflict,
    DurabilityError,
    LeaseLost,
    RedisStore,
    StoreUnavailable,
    replicated,
)
from runic_redis.context import Context
from runic_redis.protocol.effects import Batch, Operation, key_command
from runic_redis.protocol.refusals import answer
from tests.chaos.writing_worker import end_of_input

# How long a claim waits before the worker looks whether to end.
_STEP_S = 0.2
_THREADS = 8
# After these errors, the worker leaves the workflow. Another claims it once its lease has ended.
_PASSING = (DurabilityError, LeaseLost, StoreUnavailable)


def options_of(task: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the store of a task."""
    durability = replicated(task["replicas"]) if task["replicas"] else "memory"
    return {"namespace": task["namespace"], "partitions": task["partitions"], "durability": durability}


class _Record:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def claimed(self, times_ms: Iterable[tuple[Any, int]]) -> None:
        lines = (f"< {lease.workflow_id} {lease.attempt} {at_ms}\n" for lease, at_ms in times_ms)
        os.write(self._file, "".join(lines).encode())

    def completed(self, workflow_id: str) -> None:
        os.write(self._file, f"> {workflow_id}\n".encode())


def _times_ms(context: Context, leases: Sequence[Any]) -> Operation[list[tuple[Any, int]]]:
    """Return when leases began, without those that were lost since."""
    metas = [context.keys.workflow(lease.workflow_id).meta for lease in leases]
    commands = [key_command("HMGET", meta, "fence", "lease_until", "lease_ms") for meta in metas]
    replies = yield Batch(commands)
    found = [(lease, map(int, answer(*one))) for lease, *one in zip(leases, replies, commands, strict=True)]
    return [(lease, until - lasts) for lease, (fence, until, lasts) in found if fence == lease.token]


def _work(lease: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (lease.workflow_id, [{"op": "done"}]), {"expected_cursor": 1, "lease": lease}


def _require_done(conflict: CursorConflict) -> None:
    """Check that the workflow is just behind the work."""
    if conflict.actual != 2:
        raise conflict


def claim(task: dict[str, Any], record: _Record) -> None:
    """Claim and complete workflows in threads."""
    over = end_of_input()

    def finish(lease: Any) -> None:
        arguments, options = _work(lease)
        try:
            try:
                store.append(*arguments, **options)
            except CursorConflict as conflict:
                _require_done(conflict)
            store.complete(lease.workflow_id, lease=lease)
        except _PASSING:
            return
        record.completed(lease.workflow_id)

    with RedisStore.from_url(task["url"], **options_of(task)) as store, ThreadPoolExecutor(_THREADS) as pool:
        while not over.is_set():
            try:
                leases = store.claim(task["name"], task["limit"], ttl=task["ttl"], wait_s=_STEP_S)
                record.claimed(store.run(_times_ms(store.context, leases), "test"))
            except StoreUnavailable:
                continue
            list(pool.map(finish, leases))


async def claim_async(task: dict[str, Any], record: _Record) -> None:
    """Claim and complete workflows in asyncio."""
    over = end_of_input()

    async def finish(lease: Any) -> None:
        arguments, options = _work(lease)
        try:
            try:
                await store.append(*arguments, **options)
            except CursorConflict as conflict:
                _require_done(conflict)
            await store.complete(lease.workflow_id, lease=lease)
        except _PASSING:
            return
        record.completed(lease.workflow_id)

    async with AsyncRedisStore.from_url(task["url"], **options_of(task)) as store:
        while not over.is_set():
            try:
                leases = await store.claim(task["name"], task["limit"], ttl=task["ttl"], wait_s=_STEP_S)
                record.claimed(await store.run(_times_ms(store.context, leases), "test"))
            except StoreUnavailable:
                continue
            await asyncio.gather(*map(finish, leases))


def main(task: dict[str, Any]) -> None:
    """Work as the task says until the standard input ends."""
    # Standard error is for errors.
    logging.disable(logging.WARNING)
    record = _Record(task["record"])
    if task["face"] == "asyncio":
        asyncio.run(claim_async(task, record))
    else:
        claim(task, record)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
