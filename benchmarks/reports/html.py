"""The report for people: one HTML file that loads nothing else, for light and dark screens.

The headlines come first, then the plots, then every figure.
"""

from collections.abc import Iterable, Sequence
from html import escape

from ..results import Report
from .plots import plots
from .text import headlines, number, ratio_head, ratios, spread

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; }
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
        "<h2>Against packed by hand</h2>",
        _table(
            ["case", "runic_redis: median (lowest to highest)", ""],
            [(result.title, spread(ratio), ratio_head(result)) for result, ratio in headlines(report)],
        ),
        "<h2>Plots</h2>",
        *(f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in plots(report)),
        "<h2>Every figure</h2>",
        _cases(report),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _cases(report: Report) -> str:
    rows = []
    for result in report.results:
        compared = ratios(result)
        for index, figure in enumerate(result.figures):
            rows.append(
                (
                    f"{result.title}, {result.unit}" if index == 0 else "",
                    figure.name,
                    spread(figure.cost) if figure.cost else figure.missing or "",
                    " / ".join(map(number, figure.latencies_us.values())),
                    str(figure.turns or ""),
                    f"{compared[figure.name]} {ratio_head(result)}" if figure.name in compared else "",
                )
            )
    return _table(["case", "contender", "cost", "p50 / p95 / p99, µs", "turns", "ours against it"], rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "<tr>" + "".join(f"<th>{escape(cell)}" for cell in heads) + "</tr>" if heads else ""
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) + "</tr>" for row in rows)
    return f"<table>{head}{body}</table>"
