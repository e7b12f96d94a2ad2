"""``runic-redis``: the verbs."""

import sys

from runic_redis import __version__
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
        metavar="URL",
        help="Any Redis to run it on; without, an embedded server in a temporary directory.",
    ),
) -> None:
    """Take a durable census of Python's standard library with three workers, one of which is killed on the way.

    Exits with 1 if what the store holds at the end differs from a plain pass over the same files.
    """
    from runic_redis.demo.run import run_demo  # noqa: PLC0415 - only this verb pays for it

    raise typer.Exit(run_demo(url, Console()))


def main() -> None:
    """Run the command line; errors of the store are one line, without a traceback."""
    try:
        app()
    except StoreError as error:
        sys.exit(f"runic-redis: {error}")


if __name__ == "__main__":
    main()
