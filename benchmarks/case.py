"""A case of the benchmark: its names, its unit, and how its sides are prepared."""

from collections.abc import Callable
from dataclasses import dataclass

from .lab import Lab
from .measure import Side


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: its name in the JSON, which never changes.
        title: its name for people.
        unit: the unit of the cost.
        sides: prepares everything and returns the sides that take turns. The first is compared with the others.
        group: its plot, and its place along the plot: a batch or a size.
        once: whether one round is enough, because further rounds would measure the same.
        memory: whether the cost is memory or a count, and not time.
    """

    name: str
    title: str
    unit: str
    sides: Callable[[Lab], list[Side]]
    group: tuple[str, int] | None = None
    once: bool = False
    memory: bool = False
