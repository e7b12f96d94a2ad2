"""Event types: register a class under a name and a version, and read its older versions.

`registry` has the decorator and the registered types, and `event_types` their description. `kinds` and `attributes`
read and rebuild instances, and `upcasting` reads older versions. `standard` has the value types of the standard
library, `messages` those of the store's own messages, `references` the references to facts, `plain` events as text and
JSON. The bytes of events are in
runic_redis/codec.
"""

from runic_redis.events import standard  # noqa: F401 - registers the types of the standard library
from runic_redis.events.event_types import UnknownEvent
from runic_redis.events.messages import CancelRequested
from runic_redis.events.references import FACT_REF, Fact, FactRef, bare_registry, parts_of, refs_in
from runic_redis.events.registry import EventRegistry, UnknownEvents, default_registry, event, register_type

__all__ = [
    "FACT_REF",
    "CancelRequested",
    "EventRegistry",
    "Fact",
    "FactRef",
    "UnknownEvent",
    "UnknownEvents",
    "bare_registry",
    "default_registry",
    "event",
    "parts_of",
    "refs_in",
    "register_type",
]
