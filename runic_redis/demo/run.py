"""The demonstration from outside: start the workers, kill one, take stock, and compare with a plain pass."""

import difflib
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from runic_redis import RedisStore
from runic_redis.demo.census import Module, Totals, measure, report, standard_library
from runic_redis.demo.events import (
    PREFIX,
    WORKERS,
    FileMeasured,
    ModuleClaimed,
    ModuleFinished,
    WorkerLost,
    workflow_of,
)

__all__ = ["run_demo"]

_WORKERS = 3
# The worker is killed once this share of the files is done, and so many files into and before the end of a module.
_KILL_FROM = 0.2
_KILL_MARGIN = 3
# How many facts are loaded in one round trip.
_FACTS_AT_ONCE = 500


class DemoError(Exception):
    """The demonstration could not be carried out as it should."""


@dataclass(slots=True)
class Stock:
    """What the store holds at the end."""

    counted: list[tuple[str, Totals]] = field(default_factory=list)
    events: int = 0
    commits: set[tuple[str, int]] = field(default_factory=set)
    references: int = 0
    records: set[str] = field(default_factory=set)
    takeovers: list[str] = field(default_factory=list)
    streaming_s: float = 0.0


def run_demo(url: str | None, console: Console) -> int:
    """Run the demonstration on a Redis, or without a URL on an embedded server of its own.

    Returns:
        The exit status: 0 if what the store holds equals the plain pass.
    """
    namespace = f"census-{os.getpid()}-{int(time.time())}"
    with tempfile.TemporaryDirectory(prefix="runic-redis-demo-") as directory:
        found = url or f"embedded://{directory}"
        with RedisStore.from_url(found, namespace=namespace) as store:
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
        f"{_WORKERS} workers.",
        markup=False,
        highlight=False,
    )
    began_s = time.monotonic()
    with Crew(url, namespace, store) as crew, Bar(console, "measured by the workers", files) as bar:
        crew.work(bar)
    took_s = time.monotonic() - began_s

    stock = take_stock(store, modules)
    memory = sum(store.memory_usage().values())
    expected = plain_pass(modules, console, files)
    from_store = report(stock.counted)
    differences = list(difflib.unified_diff(expected, from_store, "plain pass", "store", lineterm="", n=0))

    table = Table(title="What the store holds", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    shared = stock.references - len(stock.records)
    for name, value in (
        ("workflows", f"{len(modules):,}"),
        ("events", f"{stock.events:,}"),
        ("commits", f"{len(stock.commits):,}"),
        ("facts", f"{len(stock.records):,} ({shared:,} more references share one)"),
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
    if len(stock.takeovers) != 1:
        raise DemoError(f"one module should have been taken over, not {len(stock.takeovers)}")
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


def take_stock(store: RedisStore, modules: Sequence[Module]) -> Stock:
    """Read the whole census back: every workflow's events, and every record they refer to."""
    stock = Stock()
    listed = {workflow_id.removeprefix(PREFIX) for workflow_id in store.list(prefix=PREFIX)}
    if listed != {module.name for module in modules}:
        raise DemoError(f"the store lists {len(listed)} workflows, and there are {len(modules)} modules")
    for module in modules:
        totals, measured, finished = Totals(), [], 0
        claims = []
        began_s = time.monotonic()
        records = list(store.stream_records(workflow_of(module.name)))
        stock.streaming_s += time.monotonic() - began_s
        stock.events += len(records)
        for record in records:
            about = record.metadata or {}
            stock.commits.add((about["worker"], about["commit"]))
            match record.event:
                case ModuleClaimed() as claim:
                    claims.append((claim.worker, record.cursor))
                case FileMeasured() as event:
                    measured.append(event)
                case ModuleFinished():
                    finished += 1
        for (former, _), (worker, cursor) in pairwise(claims):
            before = sum(
                isinstance(event, FileMeasured) for event in store.stream(workflow_of(module.name), until=cursor)
            )
            stock.takeovers.append(
                f"{worker} went on with {module.name} from cursor {cursor - 1}, where {former} had stopped after "
                f"{before} of {len(module.paths)} files"
            )
        if finished != 1 or [event.path for event in measured] != list(module.paths):
            raise DemoError(f"the workflow of {module.name} does not have each file once, and one end")
        for event, kept in zip(measured, _load(store, [event.record for event in measured]), strict=True):
            counts = (kept["lines"], len(kept["functions"]), len(kept["classes"]), len(kept["imports"]))
            if counts != (event.lines, event.functions, event.classes, event.imports):
                raise DemoError(f"the event of {event.path} disagrees with its record")
            totals.add(kept)
            stock.references += 1
            stock.records.add(event.record)
        stock.counted.append((module.name, totals))
    return stock


def _load(store: RedisStore, hashes: Sequence[str]) -> list[Any]:
    facts: dict[str, Any] = {}
    for at in range(0, len(hashes), _FACTS_AT_ONCE):
        facts.update(store.load_facts(hashes[at : at + _FACTS_AT_ONCE]))
    return [facts[fact_hash] for fact_hash in hashes]


class Crew:
    """The worker processes; none outlives the context."""

    def __init__(self, url: str, namespace: str, store: RedisStore) -> None:
        self._store = store
        self._lines: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        self._url = url
        self._namespace = namespace
        self.killed = ""

    def __enter__(self) -> Self:
        for number in range(1, _WORKERS + 1):
            name = f"worker-{number}"
            process = subprocess.Popen(
                [sys.executable, "-m", "runic_redis.demo.worker", self._url, self._namespace, name],
                stdout=subprocess.PIPE,
                text=True,
            )
            self._processes[name] = process
            self._readers.append(threading.Thread(target=self._read, args=(name, process), daemon=True))
            self._readers[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        for reader in self._readers:
            reader.join()
        for process in self._processes.values():
            if process.stdout is not None:
                process.stdout.close()

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            self._lines.put((name, line))
        self._lines.put((name, None))

    def work(self, bar: "Bar") -> None:
        """Let them work to the end, and kill one on the way."""
        at_work = set(self._processes)
        while at_work:
            name, line = self._lines.get()
            if line is None:
                at_work.remove(name)
                self._ended(name)
                continue
            bar.advance()
            module, number, files = line.split()
            middle = _KILL_MARGIN <= int(number) <= int(files) - _KILL_MARGIN
            if not self.killed and middle and bar.done >= bar.total * _KILL_FROM:
                self._processes[name].kill()
                self.killed = f"{name} with SIGKILL, in {module}, when it had reported {number} of {files} files"

    def _ended(self, name: str) -> None:
        """A worker has ended: by itself, or it is lost and the others are told."""
        status = self._processes[name].wait()
        if status == 0:
            return
        if not self.killed.startswith(f"{name} "):
            raise DemoError(f"{name} ended with status {status}")
        self._store.append(WORKERS, [WorkerLost(name)])


class Bar:
    """A progress bar on a terminal; elsewhere, a line for each tenth."""

    def __init__(self, console: Console, what: str, total: int) -> None:
        self._console = console
        self._what = what
        self._progress: Progress | None = None
        self.total = total
        self.done = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._progress = Progress(*columns, TimeElapsedColumn(), console=self._console)
            self._task = self._progress.add_task(f"files {self._what}", total=self.total)
            self._progress.start()
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if self._progress is not None:
            if error is None:
                # The killed worker may have measured a file that it could not report any more.
                self._progress.update(self._task, completed=self.total)
            self._progress.stop()

    def advance(self) -> None:
        """One file more."""
        tenths_before = self.done * 10 // self.total
        self.done += 1
        if self._progress is not None:
            self._progress.update(self._task, completed=self.done)
        elif self.done * 10 // self.total > tenths_before:
            self._console.print(f"{self.done} of {self.total} files {self._what}", highlight=False)
