"""Values in events that are kept as facts: `Fact` on the way in, `FactRef` on the way out."""

from dataclasses import dataclass
from typing import Any

from runic_redis.events.registry import event

__all__ = ["Fact", "FactRef"]


@dataclass(frozen=True, slots=True)
class Fact:
    """A value in an event that is to be kept once, under its content hash; the event is kept with a `FactRef`.

    Attributes:
        value: the value.
    """

    value: Any


@event("runic_redis.fact_ref")
@dataclass(frozen=True, slots=True)
class FactRef:
    """Where an event holds a fact: what `Fact` is when the event is read back.

    An event that holds one refers to the fact, and keeps it from being collected.

    Attributes:
        hash: the fact's hash, as `put_fact` returns it.
    """

    hash: str
