"""The progress of the demonstration, as its user sees it."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_BEGAN_S = time.monotonic()


class Bar:
    """A progress bar on a terminal; elsewhere, a line for each quarter."""

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
                # The killed worker may have stored a file that it did not report.
                self._progress.update(self._task, completed=self.total)
            self._progress.stop()

    def advance(self) -> None:
        """Count one more file."""
        quarters_before = self.done * 4 // self.total
        self.done += 1
        if self._progress is not None:
            self._progress.update(self._task, completed=self.done)
        elif self.done * 4 // self.total > quarters_before:
            self.tell(f"{self.done} of {self.total} files {self._what}")

    def tell(self, text: str, style: str = "") -> None:
        """Print a line, with the seconds since the demonstration began."""
        seconds = time.monotonic() - _BEGAN_S
        self._console.print(f"{seconds:5.1f} s  {text}", style=style, markup=False, highlight=False)
