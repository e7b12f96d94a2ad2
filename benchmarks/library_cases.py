"""The cases of the adapters: LangGraph's savers, and the recorders of the `eventsourcing` library."""

from functools import partial

from . import langgraph_turns
from .case import Case
from .scale import Scale

_SAVERS = (
    "runic_redis, LangGraph",
    "LangGraph, SQLite",
    "LangGraph, PostgreSQL",
    "LangGraph, plainredis",
    "LangGraph, Redis",
)


def langgraph(scale: Scale) -> list[Case]:
    """Return the cases of LangGraph's savers."""
    calls = scale.calls
    kinds = (
        langgraph_turns.Kind("1000", "1 kB", 1_000, 0, steps=20, puts=calls(50), reads=calls(50)),
        langgraph_turns.Kind("100000", "100 kB, replaced", 100_000, 0, steps=20, puts=calls(20), reads=calls(20)),
        langgraph_turns.Kind("talk", "100 kB, appended to", 100_000, 500, steps=20, puts=calls(20), reads=calls(20)),
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
    return []
