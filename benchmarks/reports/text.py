"""The report for the terminal, in 80 columns: each case with its contenders side by side, then the headlines.

A ratio is the median of the ratios of pairs of turns, with the lowest and the highest.
"""

import textwrap
from collections.abc import Iterator

from ..cases import PACKED
from ..figures import Spread
from ..results import Figure, Report, Result

_NAME, _FIGURE = 30, 24
WIDTH = _NAME + 2 * _FIGURE
_READING = """\
Costs are medians over the turns, with the lowest and the highest; lower is
better. "As fast" compares runic_redis with the contender of the line: at 2 it
is twice as fast, at 0.5 half as fast. "As much" compares bytes and counts: at
0.5 runic_redis takes half. The contenders took turns with the same events."""


def number(value: float) -> str:
    """Return a number with at least three significant digits and no exponent, in at most five characters."""
    if value >= 999_500:
        return f"{value / 1_000_000:.3g}M"
    if value >= 9_999.5:
        return f"{value / 1_000:.3g}k"
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}" if value >= 1 else f"{value:.2f}"


def spread(value: Spread) -> str:
    return f"{number(value.median)} ({number(value.lowest)} to {number(value.highest)})"


def ratio_head(result: Result) -> str:
    return "times as much" if result.memory else "times as fast"


def ratios(result: Result) -> dict[str, str]:
    """Return the ratio to each contender, by its name."""
    return {one.against: spread(one.ratio) for one in result.comparisons}


def headlines(report: Report) -> list[tuple[Result, Spread]]:
    """Return the cases against a program that packs its commits by hand, with their ratios."""
    return [(result, one.ratio) for result in report.results for one in result.comparisons if one.against == PACKED]


def render(report: Report) -> str:
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield from _READING.splitlines()
    yield ""
    for result in report.results:
        yield _line(result.title, "", "")
        yield _line("", result.unit, ratio_head(result))
        compared = ratios(result)
        for figure in result.figures:
            yield from _figure(figure, compared.get(figure.name, ""))
        yield ""
    yield f"runic_redis against {PACKED}"
    for memory, head in ((False, "times as fast"), (True, "times as much")):
        found = [(result, ratio) for result, ratio in headlines(report) if result.memory == memory]
        if found:
            yield head.rjust(WIDTH)
        for result, ratio in found:
            yield f"{result.title:<{WIDTH - _FIGURE}}{spread(ratio):>{_FIGURE}}"
    yield ""
    for name, value in {**report.server, **report.machine, **report.versions}.items():
        yield f"{name:<{_NAME - 1}} {value}"
    for contender in report.contenders:
        yield from _wrapped(contender.name, contender.missing or contender.about)


def _figure(figure: Figure, ratio: str) -> Iterator[str]:
    if figure.cost is None:
        yield from _wrapped(f"  {figure.name}", figure.missing or "")
    else:
        yield _line(f"  {figure.name}", spread(figure.cost), ratio)


def _line(name: str, middle: str, last: str) -> str:
    return f"{name:<{_NAME}}{middle:>{_FIGURE}}{last:>{_FIGURE}}".rstrip()


def _wrapped(name: str, text: str) -> Iterator[str]:
    first, *others = textwrap.wrap(text, WIDTH - _NAME) or [""]
    yield f"{name:<{_NAME}}{first}"
    yield from (f"{'':<{_NAME}}{line}" for line in others)
