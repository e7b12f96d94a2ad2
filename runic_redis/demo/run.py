"""The demonstration: run the workers, read back what they stored, and compare it with a plain pass."""

import difflib
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from runic_redis import RedisStore
from runic_redis.demo.census import Module, Totals, measure, report, standard_library
from runic_redis.demo.crew import WORKERS, Crew
from runic_redis.demo.errors import DemoError
from runic_redis.demo.events import workflow_of
from runic_redis.demo.progress import Bar
from runic_redis.demo.stock import Stock, take_stock
from runic_redis.demo.worker import PARTITIONS, TTL_S

# A user who mistyped the URL waits this long.
_DEADLINE_S = 5.0


def run_demo(url: str | None, console: Console) -> int:
    """Run the demonstration on a Redis, or without a URL on an embedded server.

    The embedded server keeps its data in a new directory. The last line that is printed opens that data as a page. On a
    Redis, the demonstration deletes its namespace at the end.

    Returns:
        The exit status: 0 if the data in the store equals the plain pass.
    """
    if url is not None:
        namespace = f"census-{os.getpid()}-{int(time.time())}"
        with _open(url, namespace) as store:
            try:
                return _demonstrate(store, url, namespace, console)
            finally:
                store.delete_namespace()
    directory = tempfile.mkdtemp(prefix="runic-redis-demo-")
    url, namespace = f"embedded://{directory}", "census"
    try:
        with _open(url, namespace) as store:
            status = _demonstrate(store, url, namespace, console)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    command = shlex.join([*_this_program(), "ui", "--url", url, "--namespace", namespace])
    console.print(
        f"The data stays in {directory} until you delete that directory. To look at it in a browser, run:",
        markup=False,
        highlight=False,
    )
    console.print(command, style="bold", markup=False, highlight=False, soft_wrap=True)
    return status


def _open(url: str, namespace: str) -> RedisStore:
    return RedisStore.from_url(url, namespace=namespace, partitions=PARTITIONS, deadline_s=_DEADLINE_S)


def _this_program() -> list[str]:
    program = sys.argv[0]
    return [program] if Path(program).name == "runic-redis" else [sys.executable, "-m", "runic_redis.cli.main"]


def _demonstrate(store: RedisStore, url: str, namespace: str, console: Console) -> int:
    try:
        modules = standard_library()
        files = sum(len(module.paths) for module in modules)
        _print_plan(modules, files, console)
        for module in modules:
            # A lease creates the workflow. A released lease can be claimed.
            store.release(store.acquire(workflow_of(module.name), "demo"))
        with Crew(url, namespace, modules[0].name) as crew, Bar(console, "stored by the workers", files) as bar:
            crew.work(bar)
        return _prove(store, modules, files, crew, console)
    except DemoError as error:
        console.print(f"The demonstration failed: {error}.", style="red", markup=False)
        return 1


def _print_plan(modules: Sequence[Module], files: int, console: Console) -> None:
    for line in (
        f"A census of the standard library of Python {sys.version.split()[0]}: {len(modules)} modules, {files} files, "
        f"{WORKERS} workers.",
        "1. Each module is a workflow. A worker claims it and measures its files; each file is an event and a fact.",
        f"2. In the middle of the largest module, {modules[0].name}, its worker is killed with SIGKILL.",
        f"3. Its lease expires after {TTL_S:g} s. Another worker takes over: it loads the snapshot, replays the events "
        "after it, and goes on with the next file.",
        "4. Every event and fact is read back and compared with a plain pass over the same files.",
    ):
        console.print(line, markup=False, highlight=False)


def _prove(store: RedisStore, modules: Sequence[Module], files: int, crew: Crew, console: Console) -> int:
    stock = take_stock(store, modules)
    unused = store.collect(grace=0)
    expected = plain_pass(modules, console, files)
    from_store = report(stock.counted)
    differences = list(difflib.unified_diff(expected, from_store, "plain pass", "store", lineterm="", n=0))
    console.print(_table(store, stock, files, unused, crew))
    console.print("The events/s leave out the time that it takes to parse the files.")
    for takeover in stock.takeovers:
        console.print(f"The events tell of it, too: {takeover}.", markup=False, highlight=False)
    console.print(from_store[-1], markup=False, highlight=False)
    if differences:
        console.print("The store differs from a plain pass over the same files:", style="red")
        console.print("\n".join(differences), markup=False, highlight=False)
        return 1
    if not stock.takeovers:
        raise DemoError("no worker took over the module of the killed worker")
    console.print(f"All {len(from_store)} lines equal those of a plain pass over the same files.", style="green")
    return 0


def _table(store: RedisStore, stock: Stock, files: int, unused: int, crew: Crew) -> Table:
    table = Table(title="The store's data", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    shared = stock.references - len(stock.facts)
    for name, value in (
        ("workflows, each finished once", f"{len(stock.counted):,}"),
        ("files, each stored once and in order", f"{files:,}"),
        ("events", f"{stock.events:,}"),
        ("facts, each equal to its event", f"{len(stock.facts):,} ({shared:,} more references share one)"),
        ("facts that no event refers to", f"{unused:,}"),
        ("bytes in Redis", f"{sum(store.memory_usage().values()):,}"),
        ("events/s appended by a worker", f"{crew.appended / crew.append_s:,.0f}"),
        ("events/s streamed back", f"{stock.events / stock.streaming_s:,.0f}"),
    ):
        table.add_row(name, value)
    return table


def plain_pass(modules: Sequence[Module], console: Console, files: int) -> list[str]:
    """Return the report of a census that uses no store."""
    counted = []
    with Bar(console, "measured by a plain pass", files) as bar:
        for module in modules:
            totals = Totals()
            for path in module.paths:
                totals.add(measure(path))
                bar.advance()
            counted.append((module.name, totals))
    return report(counted)
