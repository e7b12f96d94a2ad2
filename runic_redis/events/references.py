"""Values in events that are kept as facts: `Fact` on the way in, `FactRef` on the way out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from runic_redis.arguments import MAX_HASH_BYTES
from runic_redis.errors import DecodeError
from runic_redis.events.kinds import kind_of
from runic_redis.events.registry import (
    EventRegistry,
    EventType,
    Schema,
    UnknownEvent,
    register_built_in,
    taken_apart,
)

__all__ = ["FACT_REF", "Fact", "FactRef", "bare_registry", "checked_ref", "parts_of", "refs_in"]

# What a reference is called in the data.
FACT_REF = "runic_redis.fact_ref"


@dataclass(frozen=True, slots=True)
class Fact:
    """A value in an event that is to be kept once, under its content hash; the event is kept with a `FactRef`.

    Attributes:
        value: the value.
    """

    value: Any


@dataclass(frozen=True, slots=True)
class FactRef:
    """Where an event holds a fact: what `Fact` is when the event is read back.

    An event that holds one refers to the fact, and keeps it from being collected.

    Attributes:
        hash: the fact's hash, as `put_fact` returns it.
    """

    hash: str


register_built_in(EventType(FactRef, Schema(FACT_REF, 1, ("hash",)), kind_of(FactRef), {}))
# For tools, which look at events without the application's classes.
bare_registry = EventRegistry()


def parts_of(value: Any, registry: EventRegistry) -> Iterable[Any]:
    """What a value holds, one level of it; nothing, if it holds no values."""
    kind = type(value)
    if kind is dict:
        return [*value, *value.values()]
    if kind in {list, tuple, set, frozenset}:
        return list(value)
    if kind is UnknownEvent:
        return list(value.fields.values())
    registered = None if kind is FactRef else registry.of(kind)
    return taken_apart(registered, value)[1] if registered is not None else ()


def refs_in(value: Any, registry: EventRegistry) -> Iterator[FactRef]:
    """The references that a value holds, however deep.

    Raises:
        DecodeError: one is damaged.
    """
    stack = [value]
    while stack:
        part = stack.pop()
        if type(part) is FactRef:
            yield checked_ref(part)
        else:
            stack.extend(parts_of(part, registry))


def checked_ref(ref: FactRef) -> FactRef:
    """Return a reference whose hash can be one.

    Raises:
        DecodeError: its hash is not text, or too long, or empty.
    """
    if type(ref.hash) is not str:
        raise DecodeError(f"A reference to a fact is damaged: it holds a {type(ref.hash).__name__} instead of a hash.")
    size = len(ref.hash.encode(errors="surrogatepass"))
    if not 0 < size <= MAX_HASH_BYTES:
        raise DecodeError(
            f"A reference to a fact is damaged: its hash takes {size} bytes, and one takes 1 to {MAX_HASH_BYTES}."
        )
    return ref
