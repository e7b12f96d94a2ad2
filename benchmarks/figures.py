"""The statistics: medians with their spread, percentiles, and ratios of turns that were taken together.

Nothing here measures; tests hold it to numbers that are known.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

PERCENTILES = (50, 95, 99)


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
