"""The cases of the adapters: LangGraph's savers, and the recorders of the `eventsourcing` library."""

from functools import partial

from . import eventsourcing_turns, langgraph_turns
from .case import Case
from .scale import Scale

_SAVERS = (
    "runic_redis, LangGraph",
    "LangGraph, SQLite",
    "LangGraph, PostgreSQL",
    "LangGraph, plainredis",
    "LangGraph, Redis",
)
_DURABILITIES = (("everysec", "fsync every second", False), ("fsync", "fsync each", True))
_RECORDERS = ("runic_redis, eventsourcing", "eventsourcing, SQLite", "eventsourcing, PostgreSQL")


def langgraph(scale: Scale) -> list[Case]:
    """Return the cases of LangGraph's savers."""
    calls = scale.calls
    kinds = (
        langgraph_turns.Kind("1000", "1 kB", 1_000, 0, steps=calls(20), puts=calls(50), reads=calls(50)),
        langgraph_turns.Kind(
            "100000", "100 kB, replaced", 100_000, 0, steps=calls(20), puts=calls(20), reads=calls(20)
        ),
        langgraph_turns.Kind(
            "talk", "100 kB, appended to", 100_000, 500, steps=calls(20), puts=calls(20), reads=calls(20)
        ),
        langgraph_turns.Kind(
            "growing", "growing to 1 MB", 0, 5_000, steps=scale.supersteps, puts=scale.supersteps, reads=calls(5)
        ),
    )
    verbs = (
        ("put", "put a checkpoint", langgraph_turns.putting),
        ("put-writes", "put a task's writes", langgraph_turns.putting_writes),
        ("latest", "get the newest", langgraph_turns.getting_latest),
        ("by-id", "get by id, with writes", langgraph_turns.getting_by_id),
        ("list", "list 10", langgraph_turns.listing_newest),
    )
    counted = (
        ("put", "put"),
        ("put_writes", "put_writes"),
        ("latest", "get_tuple, newest"),
        ("by_id", "get_tuple, by id"),
        ("newest", "list 10"),
    )
    growing = kinds[-1]
    return [
        *(
            Case(
                f"langgraph/{verb}/{kind.name}",
                f"LangGraph: {title}; state: {kind.title}",
                "µs a call",
                partial(sides, kind=kind, only=_SAVERS),
            )
            for verb, title, sides in verbs
            for kind in kinds
        ),
        *(
            Case(
                f"langgraph/fsync/{verb}/{kind.name}",
                f"LangGraph: {title}; state: {kind.title}; fsync each",
                "µs a call",
                partial(langgraph_turns.synced, sides=sides, kind=kind, only=_SAVERS),
            )
            for verb, title, sides in verbs[:2]
            for kind in (kinds[0], kinds[-1])
        ),
        Case(
            f"langgraph/stored/{growing.name}",
            f"LangGraph: storage of {growing.steps} supersteps, {growing.title}",
            "bytes",
            partial(langgraph_turns.storing, kind=growing, only=_SAVERS),
            once=True,
            memory=True,
        ),
        *(
            Case(
                f"langgraph/round-trips/{verb.replace('_', '-')}",
                f"LangGraph: round trips of {title}",
                "round trips",
                partial(langgraph_turns.counting, verb=verb, only=_SAVERS),
                once=True,
                memory=True,
            )
            for verb, title in counted
        ),
    ]


def eventsourcing(scale: Scale) -> list[Case]:
    """Return the cases of the recorders of `eventsourcing`."""
    return [
        *(
            Case(
                f"eventsourcing/{label}/insert/{name}",
                f"eventsourcing: insert {title}, {told}",
                "µs an event",
                partial(eventsourcing_turns.inserting, batch=batch, tracked=tracked, fsync=fsync, only=_RECORDERS),
            )
            for label, told, fsync in _DURABILITIES
            for name, title, batch, tracked in (
                ("1", "1 event", 1, False),
                ("100", "100 events", 100, False),
                ("tracked", "1 event and a tracking record", 1, True),
            )
        ),
        Case(
            "eventsourcing/select",
            "eventsourcing: select an aggregate of 100 events",
            "µs an event",
            partial(eventsourcing_turns.selecting_events, count=100, only=_RECORDERS),
        ),
        Case(
            "eventsourcing/notifications",
            "eventsourcing: select a page of 500 notifications",
            "µs a notification",
            partial(eventsourcing_turns.selecting_notifications, count=1_000, only=_RECORDERS),
        ),
        *(
            Case(
                f"eventsourcing/{label}/dcb/{verb}",
                f"eventsourcing, DCB: {title}, among {scale.enrolments:,}, {told}",
                unit,
                partial(sides, fsync=fsync, only=(*_RECORDERS, "UmaDB")),
            )
            for verb, title, unit, sides in (
                ("append", "append 1 on a condition", "µs an event", eventsourcing_turns.appending_unless),
                ("read", "read by a query", "µs a read", eventsourcing_turns.reading_by_query),
            )
            for label, told, fsync in _DURABILITIES
        ),
    ]
