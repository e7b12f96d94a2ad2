"""Event types: register a class under a name and a version, and read its older versions.

`registry` has the decorator and the registered types, and `event_types` their description. `kinds` and `attributes`
read and rebuild instances, and `upcasting` reads older versions. `standard` has the value types of the standard
library, `references` the references to facts, `plain` events as text and JSON. The bytes of events are in
runic_redis/codec.
"""

from runic_redis.events.attributes import ATTRIBUTES, Build, Read
from runic_redis.events.event_types import EventType, Schema, Several, UnknownEvent, fields_of
from runic_redis.events.kinds import UNSET, kind_of
from runic_redis.events.references import FACT_REF, Fact, FactRef, bare_registry, checked_ref, parts_of, refs_in
from runic_redis.events.registry import EventRegistry, UnknownEvents, default_registry, event, register_type
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
    "Read",
    "Schema",
    "Several",
    "UnknownEvent",
    "UnknownEvents",
    "bare_registry",
    "checked_ref",
    "default_registry",
    "event",
    "fields_of",
    "kind_of",
    "parts_of",
    "real_type",
    "refs_in",
    "register_type",
    "zone_by_key",
]
