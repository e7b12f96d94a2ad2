"""The report for people: one HTML file that loads nothing else, for light and dark screens.

The goals come first, then the plots, then every figure.
"""

from collections.abc import Iterable, Sequence
from html import escape

from ..results import Report
from .plots import plots
from .table import number, ratio, spread, verdict

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; }
td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
.reached { color: #2f9e5f; } .not { color: #d9534f; } .open { color: #b8860b; }
figure { display: inline-block; width: min(100%, 34rem); margin: 0 1rem 1.5rem 0; }
figure svg { width: 100%; height: auto; }
figcaption { font-weight: 600; }
"""


def render(report: Report) -> str:
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>runic_redis: benchmark</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        "<h1>runic_redis: benchmark</h1>",
        f"<p>{escape(report.scale)} run of {report.seconds:.0f} s, {escape(report.date)}. The contenders took turns, "
        "with the same events; a ratio is taken of each pair of turns. Figures are medians, with the lowest and the "
        "highest in parentheses.</p>",
        _table([], [*report.server.items(), *report.machine.items(), *report.versions.items()]),
        _table(["contender", "how"], [(one.name, one.missing or one.about) for one in report.contenders]),
        "<h2>Goals</h2>",
        _goals(report),
        "<h2>Plots</h2>",
        *(f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in plots(report)),
        "<h2>Every figure</h2>",
        _cases(report),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _goals(report: Report) -> str:
    colour = {True: "reached", False: "not", None: "open"}
    rows = [
        f"<tr><td>{escape(result.title)}<td>{escape(one.against)}<td class=number>{escape(one.goal)}"
        f"<td>{escape(ratio(one))}<td class={colour[one.reached]}>{verdict(one)}</tr>"
        for result in report.results
        for one in result.comparisons
        if one.goal is not None
    ]
    return _open_table(["case", "against", "wanted", "measured", ""]) + "".join(rows) + "</table>"


def _cases(report: Report) -> str:
    rows = []
    for result in report.results:
        comparisons = {one.against: one for one in result.comparisons}
        for index, figure in enumerate(result.figures):
            compared = comparisons.get(figure.name)
            rows.append(
                (
                    f"{result.title}, {result.unit}" if index == 0 else "",
                    figure.name,
                    figure.missing or spread(figure.cost),
                    " / ".join(map(number, figure.latencies_us.values())),
                    str(figure.turns or ""),
                    ratio(compared) if compared and compared.ratio else "",
                )
            )
    return _table(["case", "contender", "cost", "p50 / p95 / p99, µs", "turns", "ours against it"], rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) + "</tr>" for row in rows)
    return _open_table(heads) + body + "</table>"


def _open_table(heads: Sequence[str]) -> str:
    return "<table>" + ("<tr>" + "".join(f"<th>{escape(head)}" for head in heads) + "</tr>" if heads else "")
