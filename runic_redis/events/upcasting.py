"""Read events that an older version of their class wrote, and events with other fields than the class has now."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runic_redis.errors import IncompatibleEvent, StoreError, reason, short_repr
from runic_redis.events.attributes import ATTRIBUTES, Build
from runic_redis.events.event_types import EventType, Schema, Several, UnknownEvent, Upcaster
from runic_redis.events.kinds import EXTRA_FIELDS, FIELDS_SET, all_values

# The names in a row that are not names of fields.
_BESIDE = frozenset({ATTRIBUTES, EXTRA_FIELDS, FIELDS_SET})
# Returns the registered type of a class.
TypeOf = Callable[[type], EventType | None]


def older_build(registered: EventType, schema: Schema, type_of: TypeOf) -> Build:
    """Return a function that rebuilds events of another schema as the class is now.

    Args:
        registered: the class.
        schema: the schema that the events were written with.
        type_of: returns the registered type of a class.
    """
    steps = [registered.upcasters[version] for version in range(schema.version, registered.schema.version)]
    return lambda rows: [_current(registered, schema, steps, type_of, row) for row in rows]


def _current(registered: EventType, schema: Schema, steps: list[Upcaster], type_of: TypeOf, row: Sequence[Any]) -> Any:
    """Return an instance of the class as it is now, or `Several`."""
    stored = dict(zip(schema.fields, row, strict=True))
    beside = {name: stored.pop(name) for name in _BESIDE if name in stored}
    # Upcasters also get attributes and extra fields, because the next version may make fields of them.
    made: list[Any] = [_attributes_in(beside) | stored if steps else stored]
    several = False
    for step in steps:
        before, made = made, []
        for item in before:
            if type(item) is not dict:
                made.append(item)
                continue
            result = _upcast(step, item, schema)
            several = several or type(result) is list
            made += result if type(result) is list else [result]
    events = [
        _fitted(registered, schema, item, beside) if type(item) is dict else _checked_event(item, schema, type_of)
        for item in made
    ]
    return Several(events) if several else events[0]


def _upcast(step: Upcaster, stored: dict[str, Any], schema: Schema) -> dict[str, Any] | list[Any]:
    try:
        result = step(stored)
    except StoreError:
        raise
    except Exception as error:
        raise incompatible_error(
            schema, f"an upcaster failed: {type(error).__name__}: {reason(error)}", remedy="Correct the upcaster."
        ) from error
    if type(result) is not dict and type(result) is not list:
        raise incompatible_error(
            schema,
            f"an upcaster returned {short_repr(result)}",
            remedy="Return a dict of fields, or a list of such dicts and of events, [] for none.",
        )
    return result


def _checked_event(event: Any, schema: Schema, type_of: TypeOf) -> Any:
    """Return an event that an upcaster returned; reject a value that is not an event."""
    registered = type_of(type(event))
    if type(event) is not UnknownEvent and (registered is None or registered.is_value):
        raise incompatible_error(
            schema,
            f"an upcaster returned a list with {short_repr(event)}, which is neither a dict of fields nor an event",
            remedy="Return a list of dicts of fields, and of instances of registered classes.",
        )
    return event


def _fitted(registered: EventType, schema: Schema, stored: dict[str, Any], beside: Mapping[str, Any]) -> Any:
    """Return an instance of the class as it is now, from fields that another schema named."""
    kind = registered.kind
    # The class may have made a field of a stored attribute.
    found = _attributes_in(beside)
    stored = {field: found[field] for field in kind.fields if field in found} | stored
    names = [name for name in kind.fields if name in stored]
    if FIELDS_SET in beside:
        new = [name for name in names if name not in schema.fields]
        beside = {**beside, FIELDS_SET: [*beside[FIELDS_SET], *new]}
    known = {name: stored[name] for name in names}
    for name in kind.fields:
        if name not in known and name not in kind.defaults and name not in kind.optional:
            raise incompatible_error(
                schema,
                f"it has no field {name!r}, and the class gives it no default",
                registered,
                "Give the field a default, or register the class with the next version and an upcaster from this one.",
            )
    instance = kind.build([all_values(kind, known)])[0]
    if kind.restore is not None:
        kind.restore(instance, beside, names)
    return instance


def _attributes_in(beside: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stored attributes and extra fields of an instance."""
    maps = [beside[name] for name in (ATTRIBUTES, EXTRA_FIELDS) if type(beside.get(name)) is dict]
    return {name: value for found in maps for name, value in found.items()}


def incompatible_error(
    schema: Schema, problem: str, registered: EventType | None = None, remedy: str | None = None
) -> IncompatibleEvent:
    """Return the error for an event that the registered class cannot read."""
    cls = "its class" if registered is None else f"the class {registered.cls.__qualname__}"
    remedy = remedy or (
        "Change the class so that it accepts the stored fields, or register it with the next version and an upcaster "
        "from this one."
    )
    return IncompatibleEvent(
        f"An event of type {schema.name!r}, version {schema.version}, is not readable by this version of {cls}: "
        f"{problem}. The data is unchanged. {remedy} To read it as it was written, open the store with "
        'registry=EventRegistry() and unknown_events="wrap".',
        name=schema.name,
        version=schema.version,
    )
