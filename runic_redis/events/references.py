"""Values in events that are stored as facts: `Fact` in an event to append, `FactRef` in a stored event."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import is_
from typing import Any

from runic_redis.arguments import MAX_HASH_BYTES
from runic_redis.errors import DecodeError
from runic_redis.events.event_types import EventType, Schema, UnknownEvent, fields_of
from runic_redis.events.kinds import kind_of
from runic_redis.events.registry import EventRegistry, register_built_in

# The name of a reference in the data.
FACT_REF = "runic_redis.fact_ref"


@dataclass(frozen=True, slots=True)
class Fact:
    """A value in an event that is stored once, under its content hash. The stored event holds a `FactRef`.

    Attributes:
        value: the value.
    """

    value: Any


@dataclass(frozen=True, slots=True)
class FactRef:
    """A reference to a fact, in place of the `Fact` that was appended.

    The fact is not collected while a stored event holds a reference to it.

    Attributes:
        hash: the fact's hash, as `put_fact` returns it.
    """

    hash: str


register_built_in(EventType(FactRef, Schema(FACT_REF, 1, ("hash",)), kind_of(FactRef), {}))
# For tools that read events without the application's classes.
bare_registry = EventRegistry()


def parts_of(value: Any, registry: EventRegistry) -> Iterable[Any]:
    """Return the values that a value contains, one level deep."""
    kind = type(value)
    if kind is dict:
        return [*value, *value.values()]
    if kind in {list, tuple, set, frozenset}:
        return list(value)
    if kind is UnknownEvent:
        return list(value.fields.values())
    registered = None if kind is FactRef else registry.of(kind)
    return fields_of(registered, value)[1] if registered is not None else ()


def refs_in(value: Any, registry: EventRegistry) -> Iterator[FactRef]:
    """Yield the references that a value holds at any depth.

    Raises:
        DecodeError: a reference is damaged.
    """
    stack = [value]
    while stack:
        part = stack.pop()
        if type(part) is FactRef:
            yield checked_ref(part)
        else:
            stack.extend(parts_of(part, registry))


def checked_ref(ref: FactRef) -> FactRef:
    """Return a reference if its hash is valid.

    Raises:
        DecodeError: the hash is not text, or too long, or empty.
    """
    if type(ref.hash) is not str:
        raise DecodeError(f"A reference to a fact is damaged: it holds a {type(ref.hash).__name__} instead of a hash.")
    size = len(ref.hash.encode(errors="surrogatepass"))
    if not 0 < size <= MAX_HASH_BYTES:
        raise DecodeError(
            f"A reference to a fact is damaged: its hash takes {size} bytes; a hash takes 1 to {MAX_HASH_BYTES}."
        )
    return ref


def with_facts(value: Any, values: Mapping[str, Any], registry: EventRegistry) -> Any:
    """Return a value with facts in place of references; the same object if it holds none of these references."""
    # A stack, from the inside out, because a value may nest deeper than Python can recurse. `filled` finds each result
    # by the identity of the old part, and holds the old part too, so that no new object gets the same identity.
    filled: dict[int, tuple[Any, Any]] = {}
    stack: list[tuple[Any, list[Any] | None]] = [(value, None)]
    while stack:
        part, parts = stack.pop()
        if parts is None:
            parts = list(parts_of(part, registry))
            stack.append((part, parts))
            stack.extend((inner, None) for inner in parts if id(inner) not in filled)
        else:
            filled[id(part)] = part, _rebuilt(part, parts, [filled[id(inner)][1] for inner in parts], values, registry)
    return filled[id(value)][1]


def _rebuilt(value: Any, parts: list[Any], new: list[Any], values: Mapping[str, Any], registry: EventRegistry) -> Any:
    """Return a value with new parts; the same object if the parts are the same."""
    kind = type(value)
    if kind is FactRef:
        return Fact(values[value.hash]) if value.hash in values else value
    if all(map(is_, parts, new)):
        return value
    if kind is dict:
        return dict(zip(new[: len(value)], new[len(value) :], strict=True))
    if kind is UnknownEvent:
        return UnknownEvent(value.name, value.version, dict(zip(value.fields, new, strict=True)))
    registered = registry.of(kind)
    if registered is None:
        return kind(new)
    schema, _ = fields_of(registered, value)
    return registry.builder(schema, "raise")([new])[0]
