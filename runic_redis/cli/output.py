"""Printing results, as JSON for programs (one object a line) or as text for people, and ending with a status."""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from runic_redis.errors import printable

# Rich is slow to import, so only what prints with it does.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

# The thing asked for does not exist, or is damaged.
EXIT_NO = 1
# Wrong use: an argument, a URL, a setting.
EXIT_USAGE = 2
# The server cannot be reached, or rejects writes; or the system failed to read or write a file or the output.
EXIT_UNAVAILABLE = 3
# The reader of the output has closed it: the status of a program that the signal SIGPIPE ends.
EXIT_PIPE = 141

# A narrower table would lose columns. No line is as long as the second.
_NARROWEST = 40
_UNFOLDED = 100_000

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def prepare_streams() -> None:
    """Prepare the output: characters that its encoding lacks are escaped, and a closed output accepts everything."""
    sys.stdout, sys.stderr = _prepared(sys.stdout), _prepared(sys.stderr)
    if os.environ.get("COLUMNS", "").isdecimal() and int(os.environ["COLUMNS"]) < _NARROWEST:
        os.environ["COLUMNS"] = str(_NARROWEST)  # for the help, too


def _prepared(stream: TextIO | None) -> TextIO:
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


def stop(message: str, status: int) -> NoReturn:
    """Exit with a status, and a message on standard error."""
    print(f"runic-redis: {printable(message)}", file=sys.stderr)
    raise SystemExit(status)


def note(message: str) -> None:
    """Print a message that is not a result, on standard error."""
    print(printable(message), file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a value as a line of JSON. It is ASCII, and so independent of the output's encoding and safe to show."""
    print(json.dumps(value, default=_json_form))


def _json_form(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def console(*, stderr: bool = False) -> "Console":
    """Return a console that prints tables and styled texts. It is as wide as the terminal.

    Elsewhere than in a terminal, no line is folded, so that `grep` finds whole ids.
    """
    from rich.console import Console  # noqa: PLC0415

    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    made.width = max(shutil.get_terminal_size().columns, _NARROWEST) if made.is_terminal else _UNFOLDED
    return made


def styled(*parts: str | tuple[str, str]) -> "Text":
    """Return a text of parts, each plain or with its style."""
    from rich.text import Text  # noqa: PLC0415

    return Text.assemble(*parts)


def table(*columns: str, right: Sequence[str] = ()) -> "Table":
    """Return an empty table; the columns named in `right` are right-aligned."""
    from rich.box import Box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    # Rich takes a quarter longer for cells with a padding than for a box of spaces. The header is a row, because Rich
    # would draw a line below a header.
    made = Table(box=Box("    \n" * 8), padding=0, show_edge=False, show_header=False)
    for column in columns:
        made.add_column(justify="right" if column in right else "left", overflow="fold")
    if any(columns):
        made.add_row(*columns, style="bold")
    return made


def print_pairs(items: Sequence[tuple[str, Any]]) -> None:
    """Print names and values. Pairs without a value are left out."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in items:
        if value not in (None, ""):
            made.add_row(name, value if isinstance(value, Text) else printable(str(value)))
    console().print(made)


def time_text(time: datetime | None) -> str:
    """Return a time as ISO 8601 has it, in the local zone, to the second; "" for None."""
    return "" if time is None else time.astimezone().isoformat(timespec="seconds")


def counted(number: int, noun: str) -> str:
    """Return a number of things: "1 fact", "2,000 facts"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def bytes_text(size: float) -> str:
    """Return a number of bytes in a unit that fits."""
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"


class Step:
    """A progress bar, or none."""

    def __init__(self, bar: "Progress | None" = None, task: Any = None) -> None:
        self._bar = bar
        self._task = task

    def to(self, done: float, total: float | None = None) -> None:
        """Show how much is done, and of how much if that has changed."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total)


@contextmanager
def progress(what: str, total: float | None, *, quiet: bool) -> Iterator[Step]:
    """Show a progress bar on standard error, if that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield Step()
        return
    from rich import progress as bars  # noqa: PLC0415

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console(stderr=True), transient=True) as bar:
        yield Step(bar, bar.add_task(what, total=total))
