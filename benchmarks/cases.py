"""The cases of the benchmark, by name, with their goals. Keep this table beside a report.

A case is a thing that a user does. A lower cost is always better. The module `turns` measures the cases.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from . import turns
from .contenders.base import Missing
from .lab import Lab
from .measure import Side
from .scale import Scale

OURS = "runic_redis"
BY_HAND = "redis-py by hand"
BY_HAND_MSGSPEC = "redis-py and msgspec by hand"
REDIS_BENCHMARK = "redis-benchmark"
EVENT_SOURCING = "eventsourcing, SQLite"

BATCHES = (1, 10, 100, 1000)
THE_TWO = (OURS, BY_HAND)


@dataclass(frozen=True, slots=True)
class Goal:
    """The goal of a ratio: at least `bound` times as good, or, with `at_most`, at most `bound` times the cost."""

    bound: float
    at_most: bool = False

    def reached(self, ratio: float) -> bool:
        return ratio <= self.bound if self.at_most else ratio >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}"


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: its name in the JSON, which never changes.
        title: its name for people.
        unit: the unit of the cost.
        sides: prepares everything and returns the sides that take turns. The first is compared with the others.
        goals: the goal against each other side, by the name of that side.
        group: its plot, and its place along the plot: a batch or a size.
        once: whether one round is enough, because further rounds would measure the same.
    """

    name: str
    title: str
    unit: str
    sides: Callable[[Lab], list[Side]]
    goals: Mapping[str, Goal] = field(default_factory=dict)
    group: tuple[str, int] | None = None
    once: bool = False


def all_cases(scale: Scale) -> list[Case]:
    return [
        *_appending(),
        *_concurrently(scale),
        *_reading(scale),
        *_recovering(scale),
        *_facts(),
        Case("list", f"list {scale.listed:,} workflows", "µs a workflow", partial(turns.listing, count=scale.listed)),
        *_memory(scale),
        *_growing(scale),
    ]


def _appending() -> list[Case]:
    goals = {100: {BY_HAND: Goal(6), EVENT_SOURCING: Goal(4)}, 1000: {BY_HAND: Goal(10)}}
    return [
        Case(
            "append/1/p50",
            "append 1 event, one caller: the median call",
            "µs a call",
            partial(turns.appending, batch=1, cost="p50"),
            {REDIS_BENCHMARK: Goal(1.25, at_most=True)},
        ),
        *(
            Case(
                f"append/{batch}",
                f"append, {batch} at a time, one caller",
                "µs an event",
                partial(turns.appending, batch=batch),
                goals.get(batch, {}),
                group=("append", batch),
            )
            for batch in BATCHES
        ),
    ]


def _concurrently(scale: Scale) -> list[Case]:
    goals = {(1, 64): {BY_HAND: Goal(5)}, (1, 256): {BY_HAND: Goal(7)}}
    return [
        *(
            Case(
                f"append/{batch}/tasks/{callers}",
                f"append, {batch} at a time, {callers} tasks",
                "µs an event",
                partial(turns.appending, batch=batch, callers=callers, way="tasks"),
                goals.get((batch, callers), {}),
                group=(f"tasks-{callers}", batch),
            )
            for batch in BATCHES
            for callers in (*scale.tasks, *((scale.most_tasks,) if batch == 1 else ()))
        ),
        Case(
            "append/1/threads/16",
            "append 1 event, 16 threads, one store or client",
            "µs an event",
            partial(turns.appending, batch=1, callers=16, way="threads", only=THE_TWO),
            {BY_HAND: Goal(3)},
        ),
        Case(
            "append/1/fsync-always/tasks",
            f"append 1 event, fsync always, {scale.tasks[-1]} tasks against one",
            "µs an event",
            partial(turns.synced_appends, callers=(scale.tasks[-1], 1)),
            {f"{OURS}, 1 task": Goal(20)},
        ),
    ]


def _reading(scale: Scale) -> list[Case]:
    large, small = scale.read
    return [
        Case(
            "read/large/100",
            f"read {large:,} events whole, appended 100 at a time",
            "µs an event",
            partial(turns.reading, count=large, batch=100, only=THE_TWO),
            {BY_HAND: Goal(2.5)},
        ),
        Case(
            "read/large/100/structs",
            f"read {large:,} msgspec Structs whole, appended 100 at a time",
            "µs an event",
            partial(_reading_structs, count=large, batch=100),
            {BY_HAND: Goal(6)},
        ),
        *(
            Case(
                f"read/small/{batch}",
                f"read {small:,} events whole, appended {batch} at a time",
                "µs an event",
                partial(turns.reading, count=small, batch=batch),
                {EVENT_SOURCING: Goal(3)} if batch == 100 else {},
                group=("read", batch),
            )
            for batch in (1, 100)
        ),
        Case(
            "read/after",
            f"read the last 100 of {small:,} events, after a cursor",
            "µs a read",
            partial(turns.reading_after, count=small, last=100),
        ),
    ]


def _reading_structs(lab: Lab, count: int, batch: int) -> list[Side]:
    try:
        from .structs import OrderPlacedStruct  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Missing(str(error)) from error
    only = (*THE_TWO, BY_HAND_MSGSPEC)
    return turns.reading(lab, count, batch, kind=OrderPlacedStruct, only=only)


def _recovering(scale: Scale) -> list[Case]:
    return [
        Case(
            "snapshot/save",
            "save a snapshot of 10 KB",
            "µs a call",
            partial(turns.saving_snapshots, size=10_000),
        ),
        Case(
            "snapshot/load",
            "load a snapshot of 10 KB",
            "µs a call",
            partial(turns.loading_snapshots, size=10_000),
        ),
        Case(
            "recover",
            "recover: a snapshot of 10 KB and the 100 events after it",
            "µs a recovery",
            partial(turns.recovering, size=10_000, count=5_000, last=100),
        ),
        Case(
            "recover/session",
            f"enter a session of {scale.session_size:,} events, with a snapshot before the last 1,000",
            "µs a recovery",
            partial(turns.entering_sessions, count=scale.session_size, last=1_000),
        ),
        Case(
            "recover/lean",
            f"replay {scale.kept_facts:,} events with facts of 100 KB: the most memory that Python uses",
            "KiB",
            partial(turns.replaying_facts, count=scale.kept_facts, size=100_000),
            goals={"full replay": Goal(0.02, at_most=True)},
            once=True,
        ),
    ]


def _facts() -> list[Case]:
    def facts(size: int, label: str) -> list[Case]:
        loading = partial(turns.loading_facts, size=size)
        return [
            Case(f"facts/{size}/save", f"save a fact of {label}", "µs a fact", partial(turns.saving_facts, size=size)),
            Case(f"facts/{size}/load", f"load a fact of {label}", "µs a fact", partial(loading, bulk=False)),
            Case(f"facts/{size}/bulk", f"load facts of {label} in bulk", "µs a fact", partial(loading, bulk=True)),
        ]

    return [*facts(1_000, "1 KB"), *facts(100_000, "100 KB")]


def _memory(scale: Scale) -> list[Case]:
    goals = {1: {BY_HAND: Goal(1.05, at_most=True)}, 100: {BY_HAND: Goal(0.25, at_most=True)}}

    def weighed(name: str, title: str, batch: int, events: int, workflows: int = 1, **more: Any) -> Case:
        sides = partial(turns.weighing, batch=batch, events=events, workflows=workflows)
        return Case(f"memory/{name}", title, "bytes an event", sides, once=True, **more)

    return [
        *(
            weighed(
                str(batch),
                f"Redis memory, {scale.weighed:,} events appended {batch} at a time",
                batch,
                scale.weighed,
                goals=goals.get(batch, {}),
                group=("memory", batch),
            )
            for batch in BATCHES
        ),
        weighed(
            "many",
            f"Redis memory, {scale.weighed // 20:,} workflows of 10 events, appended 1 at a time",
            1,
            10,
            scale.weighed // 20,
        ),
    ]


def _growing(scale: Scale) -> list[Case]:
    """Return the cases of this store against itself: the first side is the largest, and the others are smaller."""

    def sized(
        name: str,
        title: str,
        unit: str,
        measure: Callable[..., list[Side]],
        sizes: tuple[int, ...],
        goals: dict[str, Goal],
        *,
        once: bool = False,
    ) -> Case:
        largest_first = sizes[::-1]
        return Case(name, title, unit, partial(measure, sizes=largest_first), goals, (name, 0), once)

    # A recovery of less than a million events reads a few pages, too few for a goal.
    recovered, traced = (
        {turns.sized(sizes[-2], "event"): Goal(1.05, at_most=True)} if sizes[-2] >= 1_000_000 else {}
        for sizes in (scale.recovered_sizes, scale.traced_sizes)
    )
    events = turns.sized(scale.workflow_sizes[-1], "event")
    workflows = turns.sized(scale.namespace_sizes[-1], "workflow")
    return [
        sized(
            "growth/append",
            f"append 1 event as the workflow grows to {events}: the median call",
            "µs a call",
            turns.appending_to_grown,
            (0, *scale.workflow_sizes),
            {turns.sized(0, "event"): Goal(1.05, at_most=True)},
        ),
        sized(
            "growth/namespace",
            f"append 1 event as the namespace grows to {workflows}: the median call",
            "µs a call",
            turns.appending_in_grown,
            scale.namespace_sizes,
            {turns.sized(scale.namespace_sizes[0], "workflow"): Goal(1.1, at_most=True)},
        ),
        sized(
            "growth/recover",
            "recover a workflow without a snapshot as it grows",
            "µs an event",
            turns.recovering_grown,
            scale.recovered_sizes,
            recovered,
        ),
        sized(
            "growth/client-memory",
            "the most memory that Python uses while recovering",
            "KiB",
            turns.tracing_grown,
            scale.traced_sizes,
            traced,
            once=True,
        ),
    ]
