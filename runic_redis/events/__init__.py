"""Event types: how a class is registered under a name and a version, and how its older versions are read.

`registry` holds the decorator and what is known, `kinds` how each kind of class is taken apart and rebuilt, `standard`
the value types of the standard library, `references` what stands in an event for a fact.
"""

from runic_redis.events.kinds import ATTRIBUTES, UNSET, Build, Kind, Read, kind_of
from runic_redis.events.references import FACT_REF, Fact, FactRef, bare_registry, checked_ref, parts_of, refs_in
from runic_redis.events.registry import (
    EventRegistry,
    EventType,
    Schema,
    Several,
    UnknownEvent,
    UnknownEvents,
    default_registry,
    event,
    register_type,
    taken_apart,
)
from runic_redis.events.standard import real_type, zone_by_key

__all__ = [
    "ATTRIBUTES",
    "FACT_REF",
    "UNSET",
    "Build",
    "EventRegistry",
    "EventType",
    "Fact",
    "FactRef",
    "Kind",
    "Read",
    "Schema",
    "Several",
    "UnknownEvent",
    "UnknownEvents",
    "bare_registry",
    "checked_ref",
    "default_registry",
    "event",
    "kind_of",
    "parts_of",
    "real_type",
    "refs_in",
    "register_type",
    "taken_apart",
    "zone_by_key",
]
