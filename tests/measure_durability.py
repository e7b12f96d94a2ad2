"""The cost of each durability against "memory", on a primary with a replica: ``python -m tests.measure_durability``."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.events import some_events
from benchmarks.figures import Turn, ratios, spread
from benchmarks.measure import Budget, Side, Taken, bound, from_tasks, one_by_one, take_turns
from runic_redis import AsyncRedisStore, Durability, RedisStore, replicated
from tests.servers import following, follows, free_ports, running, valkey_program, wait_until

DURABILITIES: dict[str, Durability] = {
    "memory": "memory",
    "fsync": "fsync",
    "replicated(1)": replicated(1),
    "replicated(1, fsync=True)": replicated(1, fsync=True),
}
BUDGET = Budget(warm_up=1, rounds=15, least=5, seconds=30.0)
TASKS = 64
# Commits of each caller in a turn. They are few if the server syncs only once a second.
CALLS = {"always": 40, "everysec": 3}


@contextmanager
def primary(directory: Path, fsync: str) -> Iterator[str]:
    """Run a primary with a replica, and yield its URL."""
    ports = free_ports(2)
    options = ("--appendonly", "yes", "--appendfsync", fsync, "--repl-diskless-sync-delay", "0")
    with (
        running(valkey_program(), directory / "primary", *options, port=ports[0]) as server,
        running(valkey_program(), directory / "replica", *options, *following(server), port=ports[1]) as replica,
    ):
        wait_until(lambda: follows(replica), "the replica to follow")
        yield server.url()


def one_caller(url: str, calls: int) -> Taken:
    """Measure commits of one event, one after the other."""
    with RedisStore.from_url(url, namespace="alone") as store:

        def turn(durability: Durability) -> Turn:
            def append(event: Any) -> int:
                return store.append("w", [event], durability=durability)

            return one_by_one(bound(append, [(event,) for event in some_events(calls)]), calls)

        return take_turns([Side(name, lambda _, how=how: turn(how)) for name, how in DURABILITIES.items()], BUDGET)


def many_tasks(url: str, calls: int) -> Taken:
    """Measure commits of one event by tasks, each with its workflow."""

    async def turn(durability: Durability) -> Turn:
        async with AsyncRedisStore.from_url(url, namespace="tasks") as store:

            def of_task(task: int) -> list[Callable[[], Awaitable[int]]]:
                return [
                    lambda event=event: store.append(f"w-{task}", [event], durability=durability)
                    for event in some_events(calls)
                ]

            return await from_tasks([of_task(task) for task in range(TASKS)], TASKS * calls)

    return take_turns(
        [Side(name, lambda _, how=how: asyncio.run(turn(how))) for name, how in DURABILITIES.items()], BUDGET
    )


def report(title: str, taken: Taken) -> Table:
    """Show µs a commit, and the ratio to "memory" in the same round: medians, lowest and highest."""
    table = Table("durability", "µs a commit", "times memory", title=title)
    costs = {name: [turn.cost for turn in turns] for name, turns in taken.turns.items()}
    for name, of_one in costs.items():
        cost, ratio = spread(of_one), ratios(of_one, costs["memory"])
        table.add_row(
            name,
            f"{cost.median:,.0f} ({cost.lowest:,.0f} to {cost.highest:,.0f})",
            f"{ratio.median:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f})",
        )
    return table


def main() -> None:
    console = Console(width=100)
    for fsync, calls in CALLS.items():
        with tempfile.TemporaryDirectory() as directory, primary(Path(directory), fsync) as url:
            console.print(report(f"appendfsync {fsync}, one caller", one_caller(url, calls)))
            console.print(report(f"appendfsync {fsync}, {TASKS} tasks", many_tasks(url, calls)))


if __name__ == "__main__":
    main()
