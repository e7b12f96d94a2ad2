"""Measuring: calls timed one by one, from one caller, from threads or from tasks; and turns taken one after the other.

A turn is some tens of milliseconds of one contender's work. Rounds of turns go on until there are enough, or until the
time for the case is used up.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from .contenders.base import Missing
from .figures import Turn, percentiles

Calls = Sequence[Callable[[], object]]
AsyncCalls = Sequence[Callable[[], Awaitable[object]]]


@dataclass(frozen=True, slots=True)
class Side:
    """One of those that take turns; `turn` is told the round's number."""

    name: str
    turn: Callable[[int], Turn]


@dataclass(frozen=True, slots=True)
class Budget:
    """How often a case is repeated: `rounds`, or fewer, but at least `least`, once the seconds are used up."""

    warm_up: int
    rounds: int
    least: int
    seconds: float

    def spent(self, done: int, seconds: float) -> bool:
        return done >= self.rounds or (done >= self.least and seconds >= self.seconds)


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a case's rounds: the sides in order, the turns of each, and why a side has none."""

    order: list[str]
    turns: dict[str, list[Turn]]
    missing: dict[str, str]


def take_turns(sides: Sequence[Side], budget: Budget) -> Taken:
    """Ours, theirs, ours, theirs: every side has one turn a round."""
    taken = Taken([side.name for side in sides], {side.name: [] for side in sides}, {})
    began = time.perf_counter()
    for number in itertools.count(-budget.warm_up):
        if number == 0:
            began = time.perf_counter()
        if not taken.turns or (number >= 0 and budget.spent(number, time.perf_counter() - began)):
            return taken
        for side in sides:
            if side.name in taken.missing:
                continue
            try:
                turn = side.turn(number)
            except Missing as missing:
                taken.missing[side.name] = str(missing)
                del taken.turns[side.name]
                continue
            if number >= 0:
                taken.turns[side.name].append(turn)
    raise AssertionError("counting has no end")


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def one_by_one(calls: Calls, items: int) -> Turn:
    """Call after call; the cost is µs an item."""
    latencies: list[float] = []
    seconds = timed(lambda: latencies.extend(map(timed, calls)))
    return _turn(seconds, latencies, items)


def from_threads(callers: Sequence[Calls], items: int) -> Turn:
    """Each caller a thread; the clock runs from when all are ready to when the last is done."""
    ready = threading.Barrier(len(callers) + 1)

    def work(calls: Calls) -> list[float]:
        ready.wait()
        return list(map(timed, calls))

    with ThreadPoolExecutor(len(callers)) as pool:
        futures = [pool.submit(work, calls) for calls in callers]
        ready.wait()
        began = time.perf_counter()
        latencies = [latency for future in futures for latency in future.result()]
        return _turn(time.perf_counter() - began, latencies, items)


async def from_tasks(callers: Sequence[AsyncCalls], items: int) -> Turn:
    """Each caller a task, of one event loop."""
    latencies: list[float] = []

    async def work(calls: AsyncCalls) -> None:
        for call in calls:
            began = time.perf_counter()
            await call()
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(work, callers))
    return _turn(time.perf_counter() - began, latencies, items)


def _turn(seconds: float, latencies: Sequence[float], items: int) -> Turn:
    return Turn(seconds / items * 1e6, percentiles([latency * 1e6 for latency in latencies]))


def bound(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Callable[[], Any]]:
    """Calls of one function that are ready to be made, so that a turn does nothing else."""
    return [lambda given=given: function(*given) for given in arguments]
