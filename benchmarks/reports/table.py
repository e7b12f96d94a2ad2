"""The report for the terminal: every case, side by side, and the goals once more in a table.

A ratio is the median of the ratios of pairs of turns, with the lowest and the highest.
"""

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from ..figures import Spread
from ..results import Comparison, Report


def tables(report: Report) -> Iterator[Table]:
    yield _setting(report)
    yield _cases(report)
    yield _goals(report)


def number(value: float) -> str:
    """Return a number with three significant digits and no exponent."""
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}" if value >= 1 else f"{value:.2f}"


def spread(value: Spread | None) -> str:
    if value is None:
        return "—"
    return f"{number(value.median)} ({number(value.lowest)} to {number(value.highest)})"


def ratio(comparison: Comparison) -> str:
    """Return a ratio in words, because a ratio of costs looks like a ratio of speeds."""
    if comparison.ratio is None:
        return comparison.missing or "—"
    kind = "times the cost" if comparison.at_most else "times as good"
    low, high = number(comparison.ratio.lowest), number(comparison.ratio.highest)
    return f"{number(comparison.ratio.median)} {kind} ({low} to {high})"


def verdict(comparison: Comparison) -> str:
    return {True: "reached", False: "not reached", None: "not measured"}[comparison.reached]


def _setting(report: Report) -> Table:
    grid = Table("", "", title=f"{report.scale} run, {report.date}", show_header=False)
    for name, value in {**report.server, **report.machine, **report.versions}.items():
        grid.add_row(name, escape(value))
    for contender in report.contenders:
        grid.add_row(escape(contender.name), escape(contender.missing or contender.about))
    return grid


def _cases(report: Report) -> Table:
    grid = Table(
        "case", "contender", "cost: median (lowest to highest)", "p50 / p95 / p99, µs", "turns", "ours against it"
    )
    for result in report.results:
        comparisons = {one.against: one for one in result.comparisons}
        grid.add_section()
        for index, figure in enumerate(result.figures):
            compared = comparisons.get(figure.name)
            grid.add_row(
                f"{escape(result.title)}, {result.unit}" if index == 0 else "",
                escape(figure.name),
                escape(figure.missing) if figure.missing else spread(figure.cost),
                " / ".join(map(number, figure.latencies_us.values())),
                str(figure.turns or ""),
                escape(ratio(compared)) if compared and compared.ratio else "",
            )
    return grid


def _goals(report: Report) -> Table:
    grid = Table("goal", "against", "wanted", "measured: median (lowest to highest)", "", title="Goals")
    for result in report.results:
        for one in result.comparisons:
            if one.goal is not None:
                colour = {True: "green", False: "red", None: "yellow"}[one.reached]
                told = f"[{colour}]{verdict(one)}[/]"
                grid.add_row(escape(result.title), escape(one.against), one.goal, escape(ratio(one)), told)
    return grid
