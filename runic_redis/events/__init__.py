"""Event types: how a class is registered under a name and a version, and how its older versions are read.

`registry` holds the decorator and what is known, `kinds` how each kind of class is taken apart and rebuilt,
`references` what stands in an event for a fact.
"""

from runic_redis.events.kinds import Build, Read
from runic_redis.events.references import FACT_REF, Fact, FactRef, bare_registry, checked_ref, parts_of, refs_in
from runic_redis.events.registry import (
    EventType,
    Registry,
    Schema,
    UnknownEvent,
    UnknownEvents,
    default_registry,
    event,
)

__all__ = [
    "FACT_REF",
    "Build",
    "EventType",
    "Fact",
    "FactRef",
    "Read",
    "Registry",
    "Schema",
    "UnknownEvent",
    "UnknownEvents",
    "bare_registry",
    "checked_ref",
    "default_registry",
    "event",
    "parts_of",
    "refs_in",
]
