"""The cases of the benchmark, by name. Keep this table beside a report.

A case is a thing that a user does. A lower cost is always better. The module `turns` measures the cases.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from . import feed_turns, library_cases, queue_turns, turns
from .case import Case
from .events import FLAT, KINDS, MIXED, MIXED_STRUCT, RICH
from .measure import Side
from .scale import Scale

OURS = "runic_redis"
WITH_FEED = "runic_redis, feed"
WITH_WORK = "runic_redis, work"
PACKED = "packed by hand"
ONE_BY_ONE = "one XADD per event"
PACKED_BY_MSGSPEC = "packed with msgspec"
TABLE = "bare SQLite"
EVENT_SOURCING = ("eventsourcing, SQLite", "eventsourcing, PostgreSQL")
JOB_LIBRARIES = ("arq", "dramatiq")

BATCHES = (1, 10, 100, 1000)
THE_TWO = (OURS, PACKED)
BY_HAND = (*THE_TWO, ONE_BY_ONE)
STORES = (OURS, TABLE, "UmaDB", "salamander-db", *EVENT_SOURCING)


def all_cases(scale: Scale) -> list[Case]:
    return [
        *_by_hand(scale),
        *_memory(scale),
        *_concurrently(scale),
        *_stores(scale),
        *_steps(),
        *_queues(scale),
        *_recovering(scale),
        *_facts(),
        Case("list", f"list {scale.listed:,} workflows", "µs a workflow", partial(turns.listing, count=scale.listed)),
        *_feed(scale),
        *_growing(scale),
        *library_cases.langgraph(scale),
        *library_cases.eventsourcing(scale),
    ]


def _by_hand(scale: Scale) -> list[Case]:
    """Return the cases of the headlines: one caller, against what a user would write."""
    large, small = scale.read

    def appends(title: str, name: str, batch: int, group: tuple[str, int] | None = None, **more: Any) -> Case:
        sides = partial(turns.appending, batch=batch, only=BY_HAND, **more)
        return Case(f"append/{name}/{batch}", f"append {batch:,}, {title}", "µs an event", sides, group)

    def reads(title: str, name: str, count: int, sides: Callable[..., list[Side]], **more: Any) -> Case:
        read = partial(sides, count=count, batch=100, **more)
        return Case(f"read/{name}", f"read {count:,}, {title}", "µs an event", read)

    return [
        *(
            appends(kind.title, kind.name, batch, (f"append-{kind.name}", batch), kind=kind)
            for kind in KINDS
            for batch in BATCHES
        ),
        *(
            appends(f"{kind.title} that compress", f"{kind.name}-alike", 100, kind=kind, alike=True)
            for kind in (FLAT, MIXED)
        ),
        *(reads(kind.title, kind.name, large, turns.reading, kind=kind, only=THE_TWO) for kind in (FLAT, MIXED)),
        reads(RICH.title, RICH.name, small, turns.reading, kind=RICH, only=THE_TWO),
        reads("mixed events that compress", "mixed-alike", small, turns.reading, alike=True, only=THE_TWO),
        reads(
            MIXED_STRUCT.title,
            MIXED_STRUCT.name,
            large,
            turns.reading,
            kind=MIXED_STRUCT,
            only=(*THE_TWO, PACKED_BY_MSGSPEC),
        ),
    ]


def _memory(scale: Scale) -> list[Case]:
    def weighed(
        name: str,
        title: str,
        batch: int,
        group: tuple[str, int] | None = None,
        measure: Callable[..., list[Side]] = turns.weighing,
        **more: Any,
    ) -> Case:
        sides = partial(measure, batch=batch, **{"events": scale.weighed, **more})
        return Case(f"memory/{name}", title, "bytes an event", sides, group, once=True, memory=True)

    def kinds(batch: int, *, alike: bool) -> list[Case]:
        ending, told = ("-alike", " that compress") if alike else ("", "")
        return [
            weighed(
                f"{kind.name}{ending}/{batch}",
                f"Redis memory, append {batch}, {kind.title}{told}",
                batch,
                None if alike else (f"memory-{kind.name}", batch),
                kind=kind,
                alike=alike,
                only=BY_HAND if batch > 1 else THE_TWO,
            )
            for kind in KINDS
        ]

    few = scale.weighed // 20
    return [
        *kinds(1, alike=False),
        *kinds(100, alike=False),
        *kinds(100, alike=True),
        weighed("many", f"Redis memory, {few:,} workflows of 10 mixed events", 1, events=10, workflows=few),
        weighed("small", f"Redis memory, {few:,} workflows of one mixed event", 1, events=1, workflows=few),
        weighed(
            "small-default",
            f"Redis memory, {few:,} workflows of one event, by default",
            1,
            measure=turns.weighing_by_default,
            events=1,
            workflows=few,
        ),
    ]


def _concurrently(scale: Scale) -> list[Case]:
    return [
        *(
            Case(
                f"append/mixed/{batch}/tasks/{callers}",
                f"append {batch:,}, mixed events, {callers} asyncio tasks",
                "µs an event",
                partial(turns.appending, batch=batch, callers=callers, way="tasks", only=THE_TWO),
                (f"tasks-{callers}", batch),
            )
            for batch, callers in ((1, scale.tasks[0]), (1, scale.tasks[1]), (100, scale.tasks[0]))
        ),
        Case(
            "append/mixed/1/threads/16",
            "append 1, mixed events, 16 threads",
            "µs an event",
            partial(turns.appending, batch=1, callers=16, way="threads", only=THE_TWO),
        ),
    ]


def _stores(scale: Scale) -> list[Case]:
    """Return the cases against other stores, with both durabilities."""
    callers, small = scale.tasks[0], scale.read[1]
    return [
        *(
            Case(
                f"stores/{label}/append/{batch}",
                f"append {batch:,}, mixed events, {told}",
                "µs an event",
                partial(measure, batch=batch, only=STORES),
            )
            for label, told, measure in (
                ("everysec", "fsync every second", turns.appending),
                ("fsync", "fsync each", turns.synced_appending),
            )
            for batch in (1, 100, 1000)
        ),
        Case(
            f"stores/fsync/append/1/callers/{callers}",
            f"append 1, mixed events, fsync each, {callers} callers",
            "µs an event",
            partial(turns.synced_appending, batch=1, callers=callers, way="callers", only=STORES[:3]),
        ),
        Case(
            "stores/read",
            f"read {small:,}, mixed events",
            "µs an event",
            partial(turns.reading, count=small, batch=100, only=STORES),
        ),
        Case(
            "stores/read/after",
            f"read the last 100 of {small:,}, after a cursor",
            "µs a read",
            partial(turns.reading_after, count=small, last=100, only=(OURS, PACKED, TABLE, *EVENT_SOURCING)),
        ),
    ]


def _steps() -> list[Case]:
    durabilities = (("everysec", "fsync every second", False), ("fsync", "fsync each", True))
    workflows = 16
    return [
        *(
            Case(f"step/{label}", f"one durable step, {told}", "µs a step", partial(turns.taking_steps, fsync=fsync))
            for label, told, fsync in durabilities
        ),
        *(
            Case(
                f"step/{label}/workflows/{workflows}",
                f"one durable step of {workflows} workflows at the same time, {told}",
                "µs a step",
                partial(turns.taking_many_steps, workflows=workflows, fsync=fsync),
            )
            for label, told, fsync in durabilities
        ),
    ]


def _queues(scale: Scale) -> list[Case]:
    rate = 100
    return [
        Case(
            "jobs",
            f"enqueue, claim and complete {scale.jobs:,} jobs, one worker",
            "µs a job",
            partial(queue_turns.running_jobs, count=scale.jobs, only=(OURS, *JOB_LIBRARIES)),
        ),
        Case(
            "jobs/work",
            f"the same, with a handler for each of {scale.jobs:,} jobs",
            "µs a job",
            partial(queue_turns.running_jobs, count=scale.jobs, only=(WITH_WORK, *JOB_LIBRARIES)),
        ),
        *(
            Case(
                f"queue/wait/p{percent}",
                f"from append to a waiting claim, {rate} a second: the latency at p{percent}",
                "µs",
                partial(queue_turns.waiting, count=scale.awaited, rate=rate, percent=percent),
            )
            for percent in (50, 99)
        ),
    ]


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
            "recover: a snapshot of 10 KB and 100 events",
            "µs a recovery",
            partial(turns.recovering, size=10_000, count=5_000, last=100),
        ),
        Case(
            "recover/session",
            f"enter a session of {scale.session_size:,} events, 1,000 after its snapshot",
            "µs a recovery",
            partial(turns.entering_sessions, count=scale.session_size, last=1_000),
        ),
        Case(
            "recover/lean",
            f"Python's memory, replay {scale.kept_facts:,} events with facts of 100 KB",
            "KiB",
            partial(turns.replaying_facts, count=scale.kept_facts, size=100_000),
            once=True,
            memory=True,
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


def _feed(scale: Scale) -> list[Case]:
    """Return the cases of the feed: what it costs, and what it is for."""
    callers = scale.tasks[0]
    commits, workflows = scale.followed
    rate = 1_000
    return [
        Case(
            "feed/append/1",
            "append 1 with a feed, mixed events",
            "µs an event",
            partial(turns.appending, batch=1, only=(WITH_FEED, OURS)),
        ),
        Case(
            f"feed/append/1/tasks/{callers}",
            f"append 1 with a feed, mixed events, {callers} asyncio tasks",
            "µs an event",
            partial(turns.appending, batch=1, callers=callers, way="tasks", only=(WITH_FEED, OURS)),
        ),
        *(
            Case(
                f"feed/catch-up/{kind.name}",
                f"read {commits:,} commits of {workflows:,} workflows, {kind.title}",
                "µs an event",
                partial(
                    feed_turns.catching_up,
                    commits=commits,
                    workflows=workflows,
                    kind=kind,
                    only=(WITH_FEED, EVENT_SOURCING[1]),
                ),
            )
            for kind in (FLAT, MIXED)
        ),
        *(
            Case(
                f"feed/follow/p{percent}",
                f"follow {rate:,} commits a second: the latency at p{percent}",
                "µs",
                partial(feed_turns.following, commits=scale.paced, rate=rate, percent=percent),
            )
            for percent in (50, 99)
        ),
        Case(
            "feed/consumers",
            f"handle {scale.consumed:,} commits in 1 ms of the processor each",
            "µs a commit",
            partial(feed_turns.consuming, commits=scale.consumed, consumers=(4, 1)),
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
        *,
        memory: bool = False,
    ) -> Case:
        return Case(name, title, unit, partial(measure, sizes=sizes[::-1]), (name, 0), once=memory, memory=memory)

    return [
        sized(
            "growth/append",
            "append 1 to a workflow that grows: the median call",
            "µs a call",
            turns.appending_to_grown,
            (0, *scale.workflow_sizes),
        ),
        sized(
            "growth/namespace",
            "append 1 in a namespace that grows: the median call",
            "µs a call",
            turns.appending_in_grown,
            scale.namespace_sizes,
        ),
        sized(
            "growth/recover",
            "read a workflow that grows",
            "µs an event",
            turns.recovering_grown,
            scale.recovered_sizes,
        ),
        sized(
            "growth/client-memory",
            "Python's memory, read a workflow that grows",
            "KiB",
            turns.tracing_grown,
            scale.traced_sizes,
            memory=True,
        ),
    ]
