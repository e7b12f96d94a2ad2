"""The verbs that run something: `serve`, `work`, `demo` and `bench`."""

import asyncio
import importlib
import logging
import signal
import sys
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from runic_redis.aio import AsyncRedisStore
from runic_redis.arguments import DEFAULT_QUEUE
from runic_redis.cli.options import PATIENT_S, AsJson, Namespace, Url, utf_8
from runic_redis.cli.output import EXIT_USAGE, print_json, stop
from runic_redis.context import find_url
from runic_redis.errors import printable
from runic_redis.recovery import Handler, async_work
from runic_redis.recovery import work as run_work
from runic_redis.recovery.handlers import handler_of
from runic_redis.store import RedisStore


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


def work(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:HANDLER", help="The handler: a module, and the name of the handler in it.")
    ],
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    queue: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A queue to claim from; may be repeated.", callback=utf_8)
    ] = None,
    concurrency: Annotated[int, typer.Option(help="How many workflows to handle at the same time.", min=1)] = 1,
    owner: Annotated[
        str | None, typer.Option(help="The name of this worker in leases; by default host, process and a number.")
    ] = None,
    ttl: Annotated[
        float, typer.Option(help="How many seconds after the death of this worker another may take over.", min=0.1)
    ] = 30.0,
    max_attempts: Annotated[
        int, typer.Option(help="Park a workflow after this many attempts without progress; 0 for no limit.", min=0)
    ] = 5,
    first_delay: Annotated[
        float, typer.Option(help="How many seconds to wait after the first failure. It doubles with each.", min=0)
    ] = 1.0,
    longest_delay: Annotated[float, typer.Option(help="How many seconds to wait at most.", min=0)] = 300.0,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="Exit when no workflow is due.")] = False,
) -> None:
    """Claim workflows that are due, and call a handler of your program for each, until SIGTERM or Ctrl-C.

    Modules in the current directory can be named. The handler is a function of a session, or an async one. Handlers
    that run are not interrupted, unless by a second signal. Standard error has a line for each call of the handler.
    """
    handler = handler_of(_imported(target))
    options: dict[str, Any] = {
        "queues": queue or [DEFAULT_QUEUE],
        "concurrency": concurrency,
        "owner": owner,
        "ttl": ttl,
        "max_attempts": max_attempts or None,
        "first_delay": first_delay,
        "longest_delay": longest_delay,
        "until_idle": until_idle,
    }
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("runic_redis.work").setLevel(logging.INFO)
    if handler.is_async:
        asyncio.run(_work_async(find_url(url), namespace, handler, options))
        return
    with RedisStore.from_url(find_url(url), namespace=namespace, partitions=None, deadline_s=PATIENT_S) as store:
        run_work(store, handler, **options)


async def _work_async(url: str, namespace: str, handler: Handler[Any], options: dict[str, Any]) -> None:
    async with AsyncRedisStore.from_url(url, namespace=namespace, partitions=None, deadline_s=PATIENT_S) as store:
        await async_work(store, handler, **options)


def _imported(target: str) -> Any:
    """Import the object that the user names."""
    module, _, name = target.partition(":")
    if not module or not name:
        stop(f"Name a module and a handler in it, such as orders:handle, not {target!r}.", EXIT_USAGE)
    sys.path.insert(0, str(Path.cwd()))
    try:
        return attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        stop(f"The handler {target!r} cannot be imported: {error}.", EXIT_USAGE)


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
