"""``runic-redis``: the verbs."""

import importlib
import sys
from pathlib import Path

from runic_redis import __version__
from runic_redis.context import URL_VARIABLE
from runic_redis.errors import StoreError

__all__ = ["main"]

try:
    import typer
    from rich.console import Console
except ImportError:
    sys.exit("The command line needs an extra: pip install 'runic-redis[cli,embedded]'.")

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Runic Redis: an event store for workflow engines.",
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Options that stand before the verb."""


@app.command()
def demo(
    url: str | None = typer.Option(
        None,
        "--url",
        envvar=URL_VARIABLE,
        metavar="URL",
        help="Any Redis to run it on; without, an embedded server in a temporary directory.",
    ),
) -> None:
    """Take a durable census of Python's standard library with three workers, one of which is killed on the way.

    Exits with 1 if what the store holds at the end differs from a plain pass over the same files.
    """
    from runic_redis.demo.run import run_demo  # noqa: PLC0415 - only this verb pays for it

    raise typer.Exit(run_demo(url, Console()))


@app.command()
def bench(
    url: str | None = typer.Option(
        None,
        "--url",
        envvar=URL_VARIABLE,
        metavar="URL",
        help="Any Redis to measure on; without, an embedded server in a temporary directory.",
    ),
    full: bool = typer.Option(
        False, "--full", help="Up to 10 M events and 1 M workflows: takes an hour or so, and some GB of memory."
    ),
    only: str = typer.Option("", "--only", metavar="CASE", help="Only the cases whose names begin so: append/1/."),
    out: str = typer.Option("bench-report", "--out", help="The directory for bench.json and bench.html."),
) -> None:
    """Measure this store and others, in turns, and write what came out as a table, JSON and HTML.

    Everything that is written to the server is deleted in the end.
    """
    try:
        run = importlib.import_module(f"{_benchmarks()}.run")
    except ModuleNotFoundError as error:
        sys.exit(f"The benchmark needs an extra: pip install 'runic-redis[bench]' ({error}).")
    run.run_bench(url, full=full, only=only, out=Path(out), console=Console())


def _benchmarks() -> str:
    """The package of the benchmarks: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).parent.parent
    if (package / "benchmarks").is_dir():
        return "runic_redis.benchmarks"
    sys.path.insert(0, str(package.parent))
    return "benchmarks"


def main() -> None:
    """Run the command line; errors of the store are one line, without a traceback."""
    try:
        app()
    except StoreError as error:
        sys.exit(f"runic-redis: {error}")


if __name__ == "__main__":
    main()
