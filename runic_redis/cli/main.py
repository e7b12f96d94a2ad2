"""``runic-redis``: the verbs and their exit statuses.

0: done. 1: the thing asked for does not exist, or is damaged. 2: wrong arguments or settings. 3: the server cannot be
reached or rejects writes, or a file or the output cannot be written. 130: interrupted. 141: the reader of the output
has closed it.
"""

import os
import sys
from typing import Any, NoReturn

from runic_redis import __version__
from runic_redis.errors import ConfigurationError, InvalidArgument, StoreError, StoreUnavailable, WriteRefused

try:
    import typer

    from runic_redis.cli import changing, checking, following, looking, moving, reading, running, ui
    from runic_redis.cli.output import EXIT_NO, EXIT_PIPE, EXIT_UNAVAILABLE, EXIT_USAGE, prepare_streams, stop
except ImportError:
    sys.exit("The command line needs an extra: pip install 'runic-redis[cli,embedded]'.")

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Runic Redis: an event store for workflow engines.",
    epilog="Exit status: 0 done; 1 not found, or damaged; 2 wrong arguments or settings; 3 server or file not usable. "
    "For completion of verbs, options and IDs in your shell, run runic-redis --install-completion once.",
    pretty_exceptions_enable=False,
)
for panel, verbs in {
    "Look": (looking.workflows, looking.show, reading.events, following.tail, looking.facts, looking.stats),
    "Check": (checking.verify, checking.doctor),
    "Move": (moving.export, moving.import_, moving.copy),
    "Remove": (changing.trim, changing.collect, changing.delete),
    "Run": (ui.ui, running.serve, running.demo, running.bench),
}.items():
    for verb in verbs:
        app.command(verb.__name__.rstrip("_"), rich_help_panel=panel)(verb)


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
    """Take the options before the verb."""


# The base of typer's errors. It is click's, or that of a copy of click inside typer, depending on typer's version.
_WrongUse: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main() -> None:
    """Run the command line. Report an error of the store or the system in one line, without a traceback."""
    prepare_streams()
    try:
        try:
            status = app(standalone_mode=False)
        finally:
            _flush()
        raise SystemExit(status or 0)
    except _WrongUse as error:
        _explain(error)
    except typer.Abort:
        stop("Aborted. Nothing was changed.", EXIT_NO)
    except SystemExit as ended:
        # Rich turns a closed output into an exit.
        if isinstance(ended.__context__, BrokenPipeError):
            raise SystemExit(EXIT_PIPE) from None
        raise
    except (ConfigurationError, InvalidArgument) as error:
        stop(str(error), EXIT_USAGE)
    except (StoreUnavailable, WriteRefused) as error:
        stop(str(error), EXIT_UNAVAILABLE)
    except StoreError as error:
        stop(str(error), EXIT_NO)
    except BrokenPipeError:
        raise SystemExit(EXIT_PIPE) from None
    except OSError as error:
        stop(f"The operating system reports: {error}", EXIT_UNAVAILABLE)


def _explain(error: Any) -> NoReturn:
    """Report wrong arguments. Typer would print them as they are, with their control characters."""
    message, context = error.format_message().strip(), getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        raise SystemExit(error.exit_code)  # the help is printed
    if context is not None:
        message = f"{message}{'' if message.endswith(('.', '?')) else '.'} See {context.command_path} --help."
    stop(message, error.exit_code)


def _flush() -> None:
    """Write the buffered output now, so that a failure is reported."""
    try:
        sys.stdout.flush()
    except OSError:
        # When it exits, Python would try again, and print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


if __name__ == "__main__":
    main()
