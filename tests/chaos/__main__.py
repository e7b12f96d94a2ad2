"""``python -m tests.chaos``: cause faults of every kind for as long as asked, and print a table of the results."""

import time
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.run import KINDS, Row, run_kind

# By default, "cuts" runs instead of its variants, because it uses every face. "claims-backlog" takes minutes to begin.
_USUAL = [name for name in KINDS if not name.startswith("cuts-") and name != "claims-backlog"]
_ROUND_S = 30.0


def table(rows: list[Row], seconds: float) -> Table:
    """Return the results as a table, a line for each kind."""
    made = Table(title=f"{seconds:.0f} s of chaos")
    made.add_column("kind")
    for name in ("faults", "commits", "acknowledged", "lost", "unnoticed", "doubled", "torn", "wrong", "errors"):
        made.add_column(name, justify="right")
    made.add_column("longest outage, s", justify="right")
    for row in rows:
        verdict = row.verdict
        counts = (
            *(row.faults, verdict.appends, verdict.acknowledged, verdict.lost, verdict.unnamed),
            *(verdict.doubled, verdict.torn, len(verdict.wrong), len(row.errors)),
        )
        made.add_row(row.kind, *(f"{count:,}" for count in counts), f"{row.longest_outage_s:.2f}")
    return made


def main(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(help=f"Any of {', '.join(KINDS)}; by default all but the variants of cuts and claims-backlog."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="For how many seconds to run, over all kinds.")] = 120.0,
    faults: Annotated[int, typer.Option(help="How many faults of each kind to cause; replaces --seconds.")] = 0,
    seed: Annotated[str, typer.Option(help="The seed of the random choices.")] = "1",
) -> None:
    """Let clients work while faults happen, and judge what they were told. Exit with 1 if anything is wrong."""
    console = Console(width=max(Console().width, 132))
    rows = {name: Row(name) for name in kinds or _USUAL}
    began_s = time.monotonic()
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as progress:
        for number in range(10**9):
            for name, row in rows.items():
                task = progress.add_task(name)

                def tell(so_far: Row, task: object = task) -> None:
                    progress.update(task, description=f"{so_far.kind}: {so_far.faults} faults")  # type: ignore[arg-type]

                left_s = seconds - (time.monotonic() - began_s)
                limit = {"faults": faults} if faults else {"seconds": min(_ROUND_S, seconds / len(rows))}
                if faults or left_s > 0:
                    row.add(run_kind(name, seed=f"{seed}/{number}/{name}", tell=tell, **limit))  # type: ignore[arg-type]
                progress.remove_task(task)
            if faults or time.monotonic() - began_s >= seconds:
                break
    console.print(table(list(rows.values()), time.monotonic() - began_s))
    for row in rows.values():
        for what in (*row.verdict.wrong[:5], *row.verdict.seen[:5], *row.errors[:5], *row.verdict.notes):
            console.print(f"{row.kind}: {what}")
    raise typer.Exit(0 if all(row.flawless for row in rows.values()) else 1)


if __name__ == "__main__":
    typer.run(main)
