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
    """A median, and the lowest and the highest of its values."""

    median: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the percentile by nearest rank: a value that occurred, and `percent` % of the values do not exceed it."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}": percentile(values, percent) for percent in PERCENTILES}


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Return the spread of the ratios of pairs of turns: the first cost over the second.

    Pairs are compared because a slow moment of the machine slows both turns of a pair.
    """
    return spread([one / other for one, other in zip(over, under, strict=True)])
