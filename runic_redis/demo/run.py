"""The demonstration: start the workers, take stock of what they leave, and compare with a plain pass."""

import difflib
import os
import sys
import tempfile
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from runic_redis import RedisStore
from runic_redis.demo.census import Module, Totals, measure, report, standard_library
from runic_redis.demo.crew import WORKERS, Crew
from runic_redis.demo.errors import DemoError
from runic_redis.demo.events import workflow_of
from runic_redis.demo.progress import Bar
from runic_redis.demo.stock import take_stock

__all__ = ["run_demo"]

# For how long somebody who mistyped the URL waits.
_DEADLINE_S = 5.0


def run_demo(url: str | None, console: Console) -> int:
    """Run the demonstration on a Redis, or without a URL on an embedded server of its own.

    Returns:
        The exit status: 0 if what the store holds equals the plain pass.
    """
    namespace = f"census-{os.getpid()}-{int(time.time())}"
    with tempfile.TemporaryDirectory(prefix="runic-redis-demo-") as directory:
        found = url or f"embedded://{directory}"
        with RedisStore.from_url(found, namespace=namespace, deadline_s=_DEADLINE_S) as store:
            try:
                return _demonstrate(store, found, namespace, console)
            except DemoError as error:
                console.print(f"The demonstration failed: {error}", style="red", markup=False)
                return 1
            finally:
                store.delete_namespace()


def _demonstrate(store: RedisStore, url: str, namespace: str, console: Console) -> int:
    modules = standard_library()
    files = sum(len(module.paths) for module in modules)
    console.print(
        f"A census of the standard library of Python {sys.version.split()[0]}: {len(modules)} modules, {files} files, "
        f"{WORKERS} workers.",
        markup=False,
        highlight=False,
    )
    began_s = time.monotonic()
    for module in modules:
        # A lease makes the workflow; given back, it can be claimed.
        store.release(store.acquire(workflow_of(module.name), "demo"))
    with Crew(url, namespace) as crew, Bar(console, "measured by the workers", files) as bar:
        crew.work(modules[0].name, bar)
    took_s = time.monotonic() - began_s

    stock = take_stock(store, modules)
    memory = sum(store.memory_usage().values())
    unused = store.collect(grace=0)
    expected = plain_pass(modules, console, files)
    from_store = report(stock.counted)
    differences = list(difflib.unified_diff(expected, from_store, "plain pass", "store", lineterm="", n=0))

    table = Table(title="What the store holds", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    shared = stock.references - len(stock.facts)
    for name, value in (
        ("workflows", f"{len(modules):,}"),
        ("events", f"{stock.events:,}"),
        ("facts", f"{len(stock.facts):,} ({shared:,} more references share one)"),
        ("facts that no event refers to", f"{unused:,}"),
        ("bytes in Redis", f"{memory:,}"),
        ("events/s, measured and appended", f"{stock.events / took_s:,.0f} (in {took_s:.1f} s)"),
        ("events/s, streamed back", f"{stock.events / stock.streaming_s:,.0f}"),
    ):
        table.add_row(name, value)
    console.print(table)
    for line in (f"killed: {crew.killed}", *(f"taken over: {takeover}" for takeover in stock.takeovers)):
        console.print(line, markup=False, highlight=False)
    console.print(from_store[-1], markup=False, highlight=False)
    if differences:
        console.print("The store differs from a plain pass over the same files:", style="red")
        console.print("\n".join(differences), markup=False, highlight=False)
        return 1
    if not stock.takeovers:
        raise DemoError("the killed worker's module should have been taken over")
    console.print(f"All {len(from_store)} lines equal those of a plain pass over the same files.", style="green")
    return 0


def plain_pass(modules: Sequence[Module], console: Console, files: int) -> list[str]:
    """The census without a store."""
    counted = []
    with Bar(console, "measured by a plain pass", files) as bar:
        for module in modules:
            totals = Totals()
            for path in module.paths:
                totals.add(measure(path))
                bar.advance()
            counted.append((module.name, totals))
    return report(counted)
