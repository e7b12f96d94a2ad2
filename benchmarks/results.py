"""What came out, as plain data: the JSON is this, and the other reports show nothing else.

Built from the turns by the statistics in figures.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .cases import Case, Goal
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
    """The first side against another: times as good (their cost over ours), or, with `at_most`, ours over theirs."""

    against: str
    ratio: Spread | None
    at_most: bool
    goal: str | None
    reached: bool | None
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A case and what it came to."""

    name: str
    title: str
    unit: str
    group: str | None
    at: int | None
    figures: Sequence[Figure]
    comparisons: Sequence[Comparison]
    seconds: float


@dataclass(frozen=True, slots=True)
class Competitor:
    """A contender, and why it is not here if it is not."""

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


def result_of(case: Case, taken: Taken, absent: Mapping[str, str], seconds: float) -> Result:
    """The statistics of a case's turns; `absent` says why a contender is not here at all."""
    missing = {**taken.missing, **{name: absent[name] for name in case.goals if name in absent}}
    figures = [
        Figure(
            name, spread([turn.cost for turn in turns]), _latencies([turn.latencies_us for turn in turns]), len(turns)
        )
        for name, turns in taken.turns.items()
    ]
    names = list(dict.fromkeys([*taken.order, *case.goals]))
    first = taken.order[0] if taken.order else ""
    comparisons = [_compare(taken, first, name, case.goals.get(name), missing) for name in names if name != first]
    return Result(
        case.name,
        case.title,
        case.unit,
        case.group[0] if case.group else None,
        case.group[1] if case.group else None,
        [*figures, *(Figure(name, None, {}, 0, reason) for name, reason in missing.items())],
        comparisons,
        seconds,
    )


def _compare(taken: Taken, first: str, name: str, goal: Goal | None, missing: Mapping[str, str]) -> Comparison:
    at_most = goal is not None and goal.at_most
    told = None if goal is None else str(goal)
    for one in filter(None, (first, name)):
        if one not in taken.turns:
            return Comparison(name, None, at_most, told, None, f"{one}: {missing.get(one, 'not here')}")
    ours, theirs = ([turn.cost for turn in taken.turns[one]] for one in (first, name))
    ratio = ratios(ours, theirs) if at_most else ratios(theirs, ours)
    return Comparison(name, ratio, at_most, told, None if goal is None else goal.reached(ratio.median))


def _latencies(turns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: spread([turn[name] for turn in turns]).median for name in turns[0]}
