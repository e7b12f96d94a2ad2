"""The verbs that run something: `serve`, `demo` and `bench`."""

import importlib
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from runic_redis.cli.options import AsJson, Url
from runic_redis.cli.output import EXIT_USAGE, print_json, stop
from runic_redis.errors import printable


def serve(
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="The directory of the data. It is created if it does not exist.")
    ],
    *,
    fsync: Annotated[
        str, typer.Option(help="Sync the append-only file every second (everysec) or before each reply (always).")
    ] = "everysec",
    as_json: AsJson = False,
) -> None:
    """Run the embedded server in the foreground until Ctrl-C, and print its URLs.

    It listens on a unix socket that only this user can open. Every process that opens the directory by embedded://
    shares the server, and keeps it running as long as it uses it.
    """
    try:
        from runic_redis.embedded import EmbeddedServer  # noqa: PLC0415 - needs a system with file locks
    except ImportError as error:
        stop(f"The embedded server needs Linux or macOS: {error}.", EXIT_USAGE)
    ends = {signal.SIGINT, signal.SIGTERM}
    with EmbeddedServer(directory, fsync=fsync) as server:
        # The server would inherit the mask and ignore the signals that end it, so it starts first.
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        urls = {"url": f"embedded://{server.directory}", "socket": f"unix://{server.socket}"}
        if as_json:
            print_json(urls)
        else:
            print(f"{printable(urls['url'])}\n{printable(urls['socket'])}\nCtrl-C ends it.")
        sys.stdout.flush()
        signal.sigwait(ends)


def demo(*, url: Url = None, as_json: AsJson = False) -> None:
    """Take a durable census of Python's standard library with three workers, and kill one of them on the way.

    Without a URL it starts an embedded server in a new temporary directory. The data stays there, and the last line is
    the command that opens it as a page. With a URL it deletes its namespace at the end. Exits with 1 if the store's
    data differs from a plain pass over the same files.
    """
    from runic_redis.demo.run import run_demo  # noqa: PLC0415 - only this verb pays for it

    status = run_demo(url, Console(stderr=as_json))
    if as_json:
        print_json({"equal": status == 0})
    raise typer.Exit(status)


def bench(
    *,
    url: Url = None,
    full: Annotated[
        bool, typer.Option("--full", help="Go up to 10 M events and 1 M workflows, in about an hour.")
    ] = False,
    only: Annotated[
        str,
        typer.Option(
            "--only", metavar="CASE", help="Run only cases whose names begin with this, such as append/mixed/."
        ),
    ] = "",
    directory: Annotated[Path, typer.Option("--out", help="The directory for bench.json and bench.html.")] = Path(
        "bench-report"
    ),
    as_json: AsJson = False,
) -> None:
    """Measure this store and others in turns, and report the results as a table, JSON and HTML.

    Without a URL it runs on an embedded server in a temporary directory. At the end it deletes everything that it wrote
    to the server.
    """
    try:
        run = importlib.import_module(f"{_benchmarks()}.run")
    except ModuleNotFoundError as error:
        stop(f"The benchmark needs an extra: pip install 'runic-redis[bench]' ({error}).", EXIT_USAGE)
    run.run_bench(url, full=full, only=only, out=directory, console=Console(stderr=as_json))
    if as_json:
        sys.stdout.write((directory / "bench.json").read_text(encoding="utf-8").strip() + "\n")


def _benchmarks() -> str:
    """Return the name of the benchmarks' package: it is in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    if (package / "benchmarks").is_dir():
        return "runic_redis.benchmarks"
    sys.path.insert(0, str(package.parent))
    return "benchmarks"
