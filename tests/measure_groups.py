"""Groups under cuts and kills, and their cost: ``python -m tests.measure_groups``.

Cuts: clients append groups through proxies that cut each connection inside a request or a reply. Kills: clients append
groups to a server that is killed at random moments, while they do. Afterwards each group must be in all of its
workflows or in none, and once; each acknowledged one must be there. Cost: a group of ten commits against ten concurrent
appends, in turns.
"""

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.events import some_events
from benchmarks.figures import Turn, ratios, spread
from benchmarks.measure import Budget, Side, Taken, bound, from_tasks, from_threads, one_by_one, take_turns
from runic_redis import Append, AsyncRedisStore, GroupRejected, RedisStore
from tests.proxy import Fault, proxied
from tests.servers import RunningServer, running, valkey_program

IDS = [f"w-{number}" for number in range(12)]
OPTIONS: dict[str, Any] = {"namespace": "groups", "partitions": 4, "feed": True, "deadline_s": 120.0}
CLIENTS = 8
BUDGET = Budget(warm_up=2, rounds=25, least=5, seconds=30.0)
TEN = 10
CALLS = 40


class Record:
    """The groups of one client: their names, with the workflows of each.

    Attributes:
        stored: those that were acknowledged.
        rejected: those that were rejected.
    """

    def __init__(self, client: int) -> None:
        self._client = client
        self._source = random.Random(client)
        self._number = 0
        self.stored: dict[str, list[str]] = {}
        self.rejected: dict[str, list[str]] = {}

    def append(self, store: RedisStore) -> None:
        """Append a group of two to four commits; some expect cursors, some have commit ids."""
        source = self._source
        self._number += 1
        name, ids = f"{self._client}/{self._number}", source.sample(IDS, source.randint(2, 4))
        expects, has_ids = source.random() < 0.3, source.random() < 0.3
        group = [
            Append(
                one,
                [{"group": name, "pad": "x" * source.choice([1, 100, 2000])}] * source.choice([1, 1, 2]),
                expected_cursor=store.cursor(one) if expects else None,
                commit_id=name if has_ids else None,
            )
            for one in ids
        ]
        try:
            store.append_all(group)
        except GroupRejected:
            self.rejected[name] = ids
        else:
            self.stored[name] = ids


def judge(store: RedisStore, records: list[Record]) -> Counter[str]:
    """Count the groups by what became of them."""
    found: dict[str, set[str]] = {}
    for workflow_id in IDS:
        for number, record in enumerate(store.stream_records(workflow_id), 1):
            assert record.cursor == number
            found.setdefault(record.event["group"], set()).add(workflow_id)
    commits = Counter(
        (one.events[0]["group"], one.workflow_id) for one in store.feed(wait_s=0) if one.workflow_id in IDS
    )
    verdict: Counter[str] = Counter()
    verdict["doubled"] = sum(count > 1 for count in commits.values())
    verdict["parts"] = len(set(commits) ^ {(name, one) for name, ids in found.items() for one in ids})
    for client in records:
        verdict["stored"] += len(client.stored)
        verdict["rejected"] += len(client.rejected)
        for name, ids in client.stored.items():
            there = found.pop(name, set())
            verdict["lost"] += not there
            verdict["parts"] += bool(there) and there != set(ids)
    # Of groups that were rejected.
    verdict["unexpected"] += len(found)
    return verdict


def cut(server: RunningServer, count: int) -> tuple[Counter[str], int]:
    """Append groups while connections are cut, each cut at a random byte."""

    def work(client: int) -> tuple[Record, int]:
        record, source = Record(client), random.Random(-client)
        with (
            proxied(server) as proxy,
            RedisStore.from_url(f"redis://127.0.0.1:{proxy.port}", **OPTIONS) as store,
        ):
            store.append("warm", [{"n": 1}])
            while proxy.done < count // CLIENTS:
                side = source.choice(["request", "reply"])
                proxy.arm(Fault(side, source.randrange(3000 if side == "request" else 40)))  # type: ignore[arg-type]
                record.append(store)
            proxy.arm(None)
            return record, proxy.done

    with ThreadPoolExecutor(CLIENTS) as pool:
        results = list(pool.map(work, range(1, CLIENTS + 1)))
    with RedisStore.from_url(server.url(), **OPTIONS) as store:
        return judge(store, [record for record, _ in results]), sum(done for _, done in results)


def kill(server: RunningServer, count: int) -> tuple[Counter[str], int]:
    """Append groups while the server is killed and started again."""
    over = Event()

    def work(client: int) -> Record:
        record = Record(100 + client)
        with RedisStore.from_url(server.url(), **OPTIONS) as store:
            while not over.is_set():
                record.append(store)
        return record

    source = random.Random(1)
    with ThreadPoolExecutor(CLIENTS) as pool:
        running_clients = [pool.submit(work, client) for client in range(CLIENTS)]
        try:
            for _ in range(count):
                time.sleep(source.uniform(0.02, 0.2))
                server.kill()
                server.restart()
        finally:
            over.set()
        records = [one.result() for one in running_clients]
    with RedisStore.from_url(server.url(), **OPTIONS) as store:
        return judge(store, records), count


def faults(console: Console, cuts: int, kills: int) -> bool:
    """Run both, and print what became of the groups. Return whether all is well."""
    fine = True
    ways: list[tuple[str, Callable[..., tuple[Counter[str], int]], int]] = [("cuts", cut, cuts), ("kills", kill, kills)]
    columns = ("stored", "rejected", "lost", "parts", "doubled", "unexpected")
    for name, way, count in ways:
        if not count:
            continue
        with (
            tempfile.TemporaryDirectory() as directory,
            # With everysec, a kill may lose acknowledged commits while the disk is slow.
            running(valkey_program(), Path(directory), "--appendonly", "yes", "--appendfsync", "always") as server,
        ):
            verdict, done = way(server, count)
        of_groups = ", ".join(f"{verdict[column]:,} {column}" for column in columns)
        console.print(f"{done:,} {name}; groups: {of_groups}")
        fine = fine and not any(verdict[column] for column in columns[2:])
    return fine


def with_threads(url: str, *, feed: bool) -> Taken:
    """Measure ten commits as a group from one thread, and as appends of ten threads."""
    ids = [f"w-{number}" for number in range(TEN)]
    with RedisStore.from_url(url, namespace=f"threads-{feed}", feed=feed) as store:

        def group(_: int) -> Turn:
            given = [([Append(one, [event]) for one in ids],) for event in some_events(CALLS)]
            return one_by_one(bound(store.append_all, given), CALLS * TEN)

        def appends(_: int) -> Turn:
            given = [bound(store.append, [(one, [event]) for event in some_events(CALLS)]) for one in ids]
            return from_threads(given, CALLS * TEN)

        def many(_: int) -> Turn:
            given = [([(one, [event]) for one in ids],) for event in some_events(CALLS)]
            return one_by_one(bound(store.append_many, given), CALLS * TEN)

        return take_turns([Side("append_all", group), Side("ten threads", appends), Side("append_many", many)], BUDGET)


def with_tasks(url: str, *, feed: bool) -> Taken:
    """Measure ten commits as a group from one task, and as ten appends that are gathered."""
    ids = [f"w-{number}" for number in range(TEN)]

    async def measure(*, as_group: bool) -> Turn:
        async with AsyncRedisStore.from_url(url, namespace=f"tasks-{feed}", feed=feed) as store:
            await store.append(ids[0], some_events(1))

            async def call(event: Any) -> None:
                if as_group:
                    await store.append_all([Append(one, [event]) for one in ids])
                else:
                    await asyncio.gather(*(store.append(one, [event]) for one in ids))

            return await from_tasks([bound(call, [(event,) for event in some_events(CALLS)])], CALLS * TEN)

    sides = [
        Side("append_all", lambda _: asyncio.run(measure(as_group=True))),
        Side("ten gathered", lambda _: asyncio.run(measure(as_group=False))),
    ]
    return take_turns(sides, BUDGET)


def cost(console: Console) -> None:
    """Print the cost of a group of ten, and its ratio to that of ten appends in the same round."""
    for feed in (False, True):
        table = Table("", "µs a commit", "times append_all", title=f"ten commits, feed={feed}")
        with tempfile.TemporaryDirectory() as directory, running(valkey_program(), Path(directory)) as server:
            for taken in (with_threads(server.url(), feed=feed), with_tasks(server.url(), feed=feed)):
                costs = {name: [turn.cost for turn in turns] for name, turns in taken.turns.items()}
                for name, of_one in costs.items():
                    own, ratio = spread(of_one), ratios(of_one, costs["append_all"])
                    table.add_row(
                        name,
                        f"{own.median:,.1f} ({own.lowest:,.1f} to {own.highest:,.1f})",
                        f"{ratio.median:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f})",
                    )
                table.add_section()
        console.print(table)


def main(
    cuts: Annotated[int, typer.Option(help="How many connections to cut.")] = 10_000,
    kills: Annotated[int, typer.Option(help="How often to kill the server.")] = 200,
    costs: Annotated[bool, typer.Option(help="Whether to measure the cost.")] = True,
) -> None:
    """Measure groups. Exit with 1 if a part of a group was stored, or one was lost or doubled."""
    console = Console(width=110)
    fine = not (cuts or kills) or faults(console, cuts, kills)
    if costs:
        cost(console)
    raise typer.Exit(0 if fine else 1)


if __name__ == "__main__":
    typer.run(main)
