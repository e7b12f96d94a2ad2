"""The server's cost of queues: ``python -m tests.measure_queues``.

It measures the scripts of queues by the server's clock and CPU, and counts their instructions with valgrind. Then it
measures the server while a thousand claims wait for work that does not come.
"""

import asyncio
import logging
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Annotated

import redis
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.figures import spread
from runic_redis import AsyncRedisStore, RedisStore
from tests.servers import RunningServer, running, valkey_program

NAMESPACE = "costs"
QUEUE = "jobs"
EVENT = [{"n": 1}]
# Workflows that wait in the queue meanwhile, and workflows that others have leased.
WAITING = 2_000
FEW = 500
ROUNDS = 7
CALLS = 200
# The calls under valgrind, where they are not thirty.
INSTRUCTED = {"claim(10)": 12, "claim(100)": 4}
# Claims that wait longer than they are measured.
WAITERS = 1000
WAIT_S = 600.0
SETTLE_S = 3.0
IDLE_S = 10.0


def cpu_s(client: redis.Redis) -> float:
    """Return the server's CPU time since its start, in seconds."""
    used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


class Works:
    """The calls that are measured, each repeated so many times. What it needs is prepared before."""

    def __init__(self, store: RedisStore, waiting: int) -> None:
        self._store = store
        self._waiting = waiting
        self._number = 0

    def _new(self, count: int, *, queue: str | None = None) -> list[str]:
        ids = [f"w-{self._number + one:08}" for one in range(count)]
        self._number += count
        if queue is not None:
            for workflow_id in ids:
                self._store.append(workflow_id, EVENT, queue=queue)
        return ids

    def _leave_none(self) -> None:
        while leases := self._store.claim("other", 128, queues=[QUEUE]):
            for lease in leases:
                self._store.complete(lease.workflow_id, lease=lease)

    def append(self, count: int) -> Iterator[object]:
        ids = self._new(count)
        yield
        for workflow_id in ids:
            yield self._store.append(workflow_id, EVENT)

    def append_with_queue(self, count: int) -> Iterator[object]:
        ids = self._new(count)
        yield
        for workflow_id in ids:
            yield self._store.append(workflow_id, EVENT, queue=QUEUE)

    def claim_nothing(self, count: int) -> Iterator[object]:
        self._leave_none()
        yield
        for _ in range(count):
            yield self._store.claim("worker", 1, queues=[QUEUE])

    def claim_nothing_of_leased(self, count: int) -> Iterator[object]:
        self._leave_none()
        self._new(200, queue="leased")
        while self._store.claim("other", 128, queues=["leased"], ttl=3600.0):
            pass
        yield
        for _ in range(count):
            yield self._store.claim("worker", 1, queues=["leased"])

    def claim_1(self, count: int) -> Iterator[object]:
        return self._claim(count, 1)

    def claim_10(self, count: int) -> Iterator[object]:
        return self._claim(count, 10)

    def claim_100(self, count: int) -> Iterator[object]:
        return self._claim(count, 100)

    def _claim(self, count: int, limit: int) -> Iterator[object]:
        self._new(count * limit + self._waiting, queue=QUEUE)
        yield
        for _ in range(count):
            yield self._store.claim("worker", limit, queues=[QUEUE], ttl=3600.0)

    def commit_under_lease(self, count: int) -> Iterator[object]:
        self._new(count, queue="committed")
        leases = self._store.claim("worker", count, queues=["committed"], ttl=3600.0)
        yield
        for lease in leases:
            yield self._store.append(lease.workflow_id, EVENT, lease=lease)

    def complete(self, count: int) -> Iterator[object]:
        self._new(count, queue="completed")
        leases = self._store.claim("worker", count, queues=["completed"], ttl=3600.0)
        yield
        for lease in leases:
            yield self._store.complete(lease.workflow_id, lease=lease)


WORKS: dict[str, tuple[Callable[[Works, int], Iterator[object]], int]] = {
    "append to a new workflow": (Works.append, CALLS),
    "the same, with queue=": (Works.append_with_queue, CALLS),
    "claim(1)": (Works.claim_1, CALLS),
    "claim(10)": (Works.claim_10, CALLS // 4),
    "claim(100)": (Works.claim_100, CALLS // 20),
    "a claim that finds nothing": (Works.claim_nothing, CALLS),
    "a claim that finds nothing, 200 leased": (Works.claim_nothing_of_leased, CALLS),
    "commit under a lease": (Works.commit_under_lease, CALLS),
    "complete": (Works.complete, CALLS),
}


def scripts(console: Console) -> None:
    """Print the server's time and CPU of each call."""
    table = Table("", "scripts, µs", "server's CPU, µs", title=f"one caller, {WAITING:,} workflows wait")
    for name, (work, calls) in WORKS.items():
        took_us, used_us = [], []
        with (
            tempfile.TemporaryDirectory() as directory,
            running(valkey_program(), Path(directory)) as server,
            server.client() as client,
            RedisStore.from_url(server.url(), namespace=NAMESPACE) as store,
        ):
            works = Works(store, WAITING)
            for _ in range(ROUNDS):
                turn = work(works, calls)
                next(turn)
                client.config_resetstat()
                before_s = cpu_s(client)
                assert sum(1 for _ in turn) == calls
                used_us.append((cpu_s(client) - before_s) / calls * 1e6)
                took_us.append(float(client.info("commandstats")["cmdstat_evalsha"]["usec"]) / calls)
        table.add_row(
            name, *(f"{s.median:,.0f} ({s.lowest:,.0f} to {s.highest:,.0f})" for s in map(spread, (took_us, used_us)))
        )
    console.print(table)


def instructions(directory: Path, work: Callable[[Works, int], Iterator[object]], prepared: int, calls: int) -> int:
    """Return how many instructions a server executes from its start to its end, with some calls in between."""
    directory.mkdir()
    counts = directory / "counts"
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={counts}"]
    command += [str(valkey_program()), "--port", "0", "--unixsocket", str(directory / "server.sock")]
    command += ["--dir", str(directory), "--save", "", "--hz", "1"]
    server = RunningServer(command, directory, directory / "server.sock", None)
    server.restart()
    try:
        with RedisStore.from_url(server.url(), namespace=NAMESPACE, deadline_s=120.0) as store:
            turn = work(Works(store, waiting=FEW), prepared)
            next(turn)
            assert sum(1 for _ in islice(turn, calls)) == calls
            with server.client() as client:
                client.shutdown(nosave=True)
        server.process.wait(60)
    finally:
        server.kill()
    found = re.search(r"^summary:\s*(\d+)", counts.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def count_instructions(console: Console) -> None:
    """Print the instructions of the server for each call."""

    def of_one(name: str) -> int:
        work, few = WORKS[name][0], INSTRUCTED.get(name, 30)
        with tempfile.TemporaryDirectory() as directory:
            counts = [instructions(Path(directory) / str(calls), work, few, calls) for calls in (1, few - 1)]
        return (counts[1] - counts[0]) // (few - 2)

    table = Table("", "instructions", title=f"{FEW} workflows wait")
    with ThreadPoolExecutor(2) as pool:
        for name, count in zip(WORKS, pool.map(of_one, WORKS), strict=True):
            table.add_row(name, f"{count:,}")
    console.print(table)


async def _wait(url: str, count: int) -> None:
    async with AsyncRedisStore.from_url(url, namespace=NAMESPACE) as store:
        print("waiting", flush=True)
        claims = (store.claim(f"waiter-{number}", queues=[QUEUE], wait_s=WAIT_S) for number in range(count))
        assert not any(await asyncio.gather(*claims))


def idle(console: Console, processes: int) -> None:
    """Print the server's CPU share while claims wait."""
    with (
        tempfile.TemporaryDirectory() as directory,
        running(valkey_program(), Path(directory)) as server,
        server.client() as client,
    ):
        with RedisStore.from_url(server.url(), namespace=NAMESPACE) as store:
            store.append("w", EVENT)
        command = [sys.executable, "-m", "tests.measure_queues", "--waiters", str(WAITERS // processes)]
        waiting = [
            subprocess.Popen([*command, "--url", server.url()], stdout=subprocess.PIPE) for _ in range(processes)
        ]
        for one in waiting:
            assert one.stdout is not None
            one.stdout.readline()
        time.sleep(SETTLE_S)
        shares = []
        for _ in range(3):
            client.config_resetstat()
            before_s, began_s = cpu_s(client), time.monotonic()
            time.sleep(IDLE_S)
            seconds = time.monotonic() - began_s
            shares.append((cpu_s(client) - before_s) / seconds * 100)
        calls = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"] / seconds
        connections = client.info("clients")["connected_clients"] - 1
        for one in waiting:
            one.kill()
            one.communicate()
    share = spread(shares)
    console.print(
        f"{WAITERS:,} claims wait in {processes} processes: {share.median:.2f} % of a core of the server "
        f"({share.lowest:.2f} to {share.highest:.2f}), {calls:.1f} scripts a second, {connections} connections"
    )


def main(
    parts: Annotated[list[str] | None, typer.Argument(help="scripts, instructions, idle; by default all.")] = None,
    waiters: Annotated[int, typer.Option(hidden=True)] = 0,
    url: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure what queues cost the server."""
    logging.disable(logging.WARNING)
    if waiters:
        asyncio.run(_wait(url, waiters))
        return
    console = Console(width=110)
    chosen = parts or ["scripts", "instructions", "idle"]
    if "scripts" in chosen:
        scripts(console)
    if "instructions" in chosen:
        count_instructions(console)
    if "idle" in chosen:
        for processes in (1, 8):
            idle(console, processes)


if __name__ == "__main__":
    typer.run(main)
