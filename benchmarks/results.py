"""The results of a run as plain data. Every report shows these and nothing else.

They are computed from the turns by the statistics in `figures`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .cases import Case
from .figures import Spread, ratios, spread
from .measure import Taken


@dataclass(frozen=True, slots=True)
class Figure:
    """One side of a case: its cost over the turns, and the medians of the turns' percentiles."""

    name: str
    cost: Spread | None
    latencies_us: Mapping[str, float]
    turns: int
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The first side against another: how many times as fast it is, or for memory, how many times as large."""

    against: str
    ratio: Spread


@dataclass(frozen=True, slots=True)
class Result:
    """A case with its figures and comparisons."""

    name: str
    title: str
    unit: str
    group: str | None
    at: int | None
    figures: Sequence[Figure]
    comparisons: Sequence[Comparison]
    memory: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Competitor:
    """A contender, and the reason if it does not take part with this durability."""

    name: str
    about: str
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    scale: str
    date: str
    seconds: float
    machine: Mapping[str, str]
    server: Mapping[str, str]
    versions: Mapping[str, str]
    contenders: Sequence[Competitor]
    results: Sequence[Result]


def result_of(case: Case, taken: Taken, seconds: float) -> Result:
    """Return the statistics of a case's turns."""
    figures = [
        Figure(
            name, spread([turn.cost for turn in turns]), _latencies([turn.latencies_us for turn in turns]), len(turns)
        )
        for name, turns in taken.turns.items()
    ]
    first, *others = taken.order
    comparisons = [
        Comparison(name, _ratio(taken, first, name, memory=case.memory))
        for name in others
        if {first, name} <= taken.turns.keys()
    ]
    return Result(
        case.name,
        case.title,
        case.unit,
        case.group[0] if case.group else None,
        case.group[1] if case.group else None,
        [*figures, *(Figure(name, None, {}, 0, reason) for name, reason in taken.missing.items())],
        comparisons,
        case.memory,
        seconds,
    )


def _ratio(taken: Taken, first: str, name: str, *, memory: bool) -> Spread:
    ours, theirs = ([turn.cost for turn in taken.turns[one]] for one in (first, name))
    return ratios(ours, theirs) if memory else ratios(theirs, ours)


def _latencies(turns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: spread([turn[name] for turn in turns]).median for name in turns[0]}
