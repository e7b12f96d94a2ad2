"""The results of a run as plain data. Every report shows these and nothing else.

They are computed from the turns by the statistics in `figures`.
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
    """The first side against another: their cost over ours, or, with `at_most`, our cost over theirs."""

    against: str
    ratio: Spread | None
    at_most: bool
    goal: str | None
    reached: bool | None
    missing: str | None = None


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
    seconds: float


@dataclass(frozen=True, slots=True)
class Competitor:
    """A contender, and the reason if it does not take part."""

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
    """Return the statistics of a case's turns. `absent` has the reasons of contenders that do not take part at all."""
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
