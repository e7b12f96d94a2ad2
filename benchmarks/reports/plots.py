"""The plots of the HTML report, each as an SVG without background, in colours for light and dark screens.

A plot without measurements is left out.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from ..results import Figure, Report, Result

_INK = "#808080"
_COLOURS = ("#3b82c4", "#d9822b", "#3f9e5f", "#b3559b", "#b8981f", "#c9504a", "#7a6fd0")
_STYLE = {
    "svg.fonttype": "none",  # text stays text, so that it can be searched and read aloud
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.color": _INK,
    "grid.alpha": 0.25,
    "legend.labelcolor": _INK,
    "legend.frameon": False,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def plots(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the title and the SVG of each plot."""
    groups: dict[str, list[Result]] = {}
    for result in report.results:
        if result.group is not None:
            groups.setdefault(result.group, []).append(result)
    names = {result.name: result for result in report.results}
    colours: dict[str, str] = {}

    def colour(name: str) -> str:
        return colours.setdefault(name, _COLOURS[len(colours) % len(_COLOURS)])

    def plot(title: str, draw: Callable[[Axes], object]) -> Iterator[tuple[str, str]]:
        with mpl.rc_context(_STYLE):
            canvas = Canvas(figsize=(7.5, 4.2), layout="constrained")
            draw(canvas.add_subplot())
            yield title, _svg(canvas, title)

    for group in (group for group in groups if group.startswith("append-")):
        title = f"Throughput by batch size, one caller, {_kind(group)} events"
        yield from plot(title, lambda axes, at=group: _throughput(axes, groups[at], colour))
    for name in ("append/mixed/1", "append/mixed/1/tasks/64"):
        if name in names:
            yield from plot(
                f"Latency: {names[name].title}", lambda axes, at=name: _percentiles(axes, names[at].figures, colour)
            )
    for group, what in (("growth/append", "events"), ("growth/namespace", "workflows"), ("growth/recover", "events")):
        if group in groups:
            (result,) = groups[group]
            yield from plot(_upper(result.title), lambda axes, at=result, by=what: _growth(axes, at, by))
    for group in (group for group in groups if group.startswith("memory-")):
        title = f"Redis memory an event, {_kind(group)} events"
        yield from plot(title, lambda axes, at=group: _memory(axes, groups[at], colour))


def _kind(group: str) -> str:
    return group.rpartition("-")[2]


Colour = Callable[[str], str]


def _throughput(axes: Axes, results: Sequence[Result], colour: Colour) -> None:
    for name in _names(results):
        points = [(result.at, one.cost) for result in results for one in result.figures if one.name == name]
        known = [(at, cost) for at, cost in points if at is not None and cost is not None]
        if known:
            low = [1e6 / cost.median - 1e6 / cost.highest for _, cost in known]
            high = [1e6 / cost.lowest - 1e6 / cost.median for _, cost in known]
            axes.errorbar(
                [at for at, _ in known],
                [1e6 / cost.median for _, cost in known],
                yerr=(low, high),
                label=name,
                color=colour(name),
                marker="o",
                capsize=3,
            )
    axes.set(xscale="log", yscale="log", xlabel="events in a commit", ylabel="events a second")
    _plain_ticks(axes, [result.at for result in results if result.at is not None])
    axes.legend()


def _percentiles(axes: Axes, figures: Sequence[Figure], colour: Colour) -> None:
    known = [one for one in figures if one.latencies_us]
    width = 0.8 / max(1, len(known))
    for index, one in enumerate(known):
        places = [at + index * width for at in range(len(one.latencies_us))]
        axes.bar(places, list(one.latencies_us.values()), width, label=one.name, color=colour(one.name))
    labels = list(known[0].latencies_us) if known else []
    axes.set_xticks([at + 0.4 - width / 2 for at in range(len(labels))], labels)
    axes.set(yscale="log", ylabel="µs a call")
    axes.legend()


def _growth(axes: Axes, result: Result, by: str) -> None:
    points = [(int(re.sub(r"\D", "", one.name)), one.cost) for one in result.figures if one.cost is not None]
    known = sorted(points)
    axes.errorbar(
        # A logarithmic scale has no zero, so the empty workflow is at the left.
        [max(size, 0.5) for size, _ in known],
        [cost.median for _, cost in known],
        yerr=(
            [cost.median - cost.lowest for _, cost in known],
            [cost.highest - cost.median for _, cost in known],
        ),
        color=_COLOURS[0],
        marker="o",
        capsize=3,
    )
    axes.set(xscale="log", xlabel=by, ylabel=result.unit)
    axes.set_ylim(bottom=0)
    axes.set_xticks([max(size, 0.5) for size, _ in known], [_short(size) for size, _ in known])
    axes.minorticks_off()


def _memory(axes: Axes, results: Sequence[Result], colour: Colour) -> None:
    names = _names(results)
    width = 0.8 / max(1, len(names))
    for index, name in enumerate(names):
        costs = [next((one.cost for one in result.figures if one.name == name), None) for result in results]
        bars = axes.bar(
            [at + index * width for at in range(len(results))],
            [cost.median if cost else 0 for cost in costs],
            width,
            label=name,
            color=colour(name),
        )
        axes.bar_label(bars, fmt="%.0f", padding=2)
    axes.set_xticks([at + 0.4 - width / 2 for at in range(len(results))], [str(result.at) for result in results])
    axes.set(xlabel="events in a commit", ylabel="bytes an event")
    axes.legend()


def _names(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(one.name for result in results for one in result.figures))


def _plain_ticks(axes: Axes, places: Sequence[int]) -> None:
    axes.set_xticks(places, [_short(place) for place in places])
    axes.minorticks_off()


def _short(size: int) -> str:
    if size >= 1_000_000:
        return f"{size // 1_000_000} M"
    return f"{size // 1000} k" if size >= 1000 else str(size)


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _svg(canvas: Canvas, title: str) -> str:
    # The ids of an SVG's parts must be unique in the page. They depend on the salt.
    with mpl.rc_context({"svg.hashsalt": title}):
        written = io.StringIO()
        canvas.savefig(
            written,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    # The XML prolog and the RDF description name other sites.
    svg = re.sub(r"<metadata>.*?</metadata>", "", written.getvalue(), flags=re.DOTALL)
    return svg[svg.index("<svg") :]
