"""The figures of turns, and their statistics: medians with their spread, percentiles, ratios. Nothing here measures."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Turn:
    """The figures of one turn: its cost, in the unit of the case, and the percentiles of its calls in µs."""

    cost: float
    latencies_us: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the lowest and highest of what it is the median of."""

    median: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: a value that did occur, which so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}": percentile(values, percent) for percent in PERCENTILES}


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Of each pair of turns, the first's cost over the second's.

    Pair by pair, because what slows the machine for a while slows both.
    """
    return spread([one / other for one, other in zip(over, under, strict=True)])
