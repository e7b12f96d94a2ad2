"""The verbs, as an application of typer."""

from importlib import import_module
from typing import Any, NoReturn

import typer

from runic_redis.cli.output import EXIT_NO, stop

# By panel of the help, the function of each verb, with its module.
_VERBS = {
    "Look": (
        *("looking.workflows", "looking.show", "reading.events", "reading.find", "following.tail", "feeds.feed"),
        *("subscriptions.subscriptions", "subscriptions.parked", "looking.facts", "looking.stats"),
    ),
    "Control": tuple(f"controlling.{verb}" for verb in ("send", "inbox", "cancel", "park", "unpark")),
    "Check": ("checking.verify", "checking.doctor"),
    "Move": ("moving.export", "moving.import_", "moving.copy", "threads.import_langgraph"),
    "Remove": ("changing.trim", "changing.collect", "changing.delete", "changing.expire", "changing.persist"),
    "Run": ("ui.ui", "running.serve", "running.work", "running.demo", "running.bench"),
}
# The base of typer's errors. It is click's, or that of a copy of click inside typer, depending on typer's version.
_WrongUse: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def make_group(only: str = "") -> Any:
    """Return the group of all verbs; of `only` that verb, if there is one of this name.

    A verb brings modules that the others do not need, so a group of one is made faster.
    """
    app = typer.Typer(
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Runic Redis: an event store for workflow engines.",
        epilog="Exit status: 0 done; 1 not found, or damaged; 2 wrong arguments or settings; 3 server or file not "
        "usable. For completion of verbs, options and IDs in your shell, run runic-redis --install-completion once.",
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    verbs = {
        place.partition(".")[2].rstrip("_").replace("_", "-"): (place, panel)
        for panel, places in _VERBS.items()
        for place in places
    }
    for verb in [only] if only in verbs else verbs:
        place, panel = verbs[verb]
        module, _, function = place.partition(".")
        app.command(verb, rich_help_panel=panel)(getattr(import_module(f"runic_redis.cli.{module}"), function))
    return typer.main.get_command(app)


def run_group(group: Any) -> Any:
    """Run the verb that the arguments name. Return its exit status. Report wrong arguments in one line."""
    try:
        return group(standalone_mode=False)
    except _WrongUse as error:
        _explain(error)
    except typer.Abort:
        stop("Aborted. Nothing was changed.", EXIT_NO)


def _options(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """Take the options before the verb. `--version` is only here for the help: `main` has replied to it before."""


def _explain(error: Any) -> NoReturn:
    """Report wrong arguments. Typer would print them as they are, with their control characters."""
    message, context = error.format_message().strip(), getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        raise SystemExit(error.exit_code)  # the help is printed
    if context is not None:
        message = f"{message}{'' if message.endswith(('.', '?')) else '.'} See {context.command_path} --help."
    stop(message, error.exit_code)
