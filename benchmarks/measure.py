"""Time calls one by one, from one caller, threads or tasks; and let the sides of a case take turns.

A turn is some tens of milliseconds of one contender's work. In a round, each side has one turn. Rounds end when there
are enough of them, or when the time for the case is used up.
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
    """One side of a case; `turn` takes the number of the round."""

    name: str
    turn: Callable[[int], Turn]


@dataclass(frozen=True, slots=True)
class Budget:
    """The repetitions of a case: `rounds`, or fewer if the seconds are used up, but at least `least`."""

    warm_up: int
    rounds: int
    least: int
    seconds: float

    def spent(self, done: int, seconds: float) -> bool:
        return done >= self.rounds or (done >= self.least and seconds >= self.seconds)


@dataclass(frozen=True, slots=True)
class Taken:
    """The result of a case's rounds: the sides in order, the turns of each, and the reasons of sides without turns."""

    order: list[str]
    turns: dict[str, list[Turn]]
    missing: dict[str, str]


def take_turns(sides: Sequence[Side], budget: Budget) -> Taken:
    """Run the rounds of a case: ours, theirs, ours, theirs."""
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
    """Time calls one after the other. The cost is in µs an item."""
    latencies: list[float] = []
    seconds = timed(lambda: latencies.extend(map(timed, calls)))
    return turn_of(seconds, latencies, items)


def from_threads(callers: Sequence[Calls], items: int) -> Turn:
    """Time calls from threads, one for each caller, from the moment all are ready until the last has finished."""
    ready = threading.Barrier(len(callers) + 1)

    def work(calls: Calls) -> list[float]:
        ready.wait()
        return list(map(timed, calls))

    with ThreadPoolExecutor(len(callers)) as pool:
        futures = [pool.submit(work, calls) for calls in callers]
        ready.wait()
        began = time.perf_counter()
        latencies = [latency for future in futures for latency in future.result()]
        return turn_of(time.perf_counter() - began, latencies, items)


async def from_tasks(callers: Sequence[AsyncCalls], items: int) -> Turn:
    """Time calls from tasks of one event loop, one for each caller."""
    latencies: list[float] = []

    async def work(calls: AsyncCalls) -> None:
        for call in calls:
            began = time.perf_counter()
            await call()
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(work, callers))
    return turn_of(time.perf_counter() - began, latencies, items)


def turn_of(seconds: float, latencies: Sequence[float], items: int) -> Turn:
    """Return a turn of some seconds. The cost is in µs an item."""
    return Turn(seconds / items * 1e6, percentiles([latency * 1e6 for latency in latencies]))


def bound(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Callable[[], Any]]:
    """Return calls of a function with their arguments bound, so that a turn does nothing but call."""
    return [lambda given=given: function(*given) for given in arguments]
