"""The registry: which class an event name stands for, at which version, and how to read older ones."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from runic_redis.errors import (
    DecodeError,
    InvalidArgument,
    InvalidType,
    StoreError,
    UnknownEventType,
    reason,
    short_repr,
)
from runic_redis.events.kinds import Build, Kind, kind_of

__all__ = [
    "EventType",
    "Registry",
    "Schema",
    "UnknownEvent",
    "UnknownEvents",
    "Upcaster",
    "default_registry",
    "event",
]

T = TypeVar("T")
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
UnknownEvents = Literal["raise", "wrap"]

MAX_NAME_BYTES = 512
MAX_VERSION = 2**31 - 1


class Schema(NamedTuple):
    """How an event was written: its type's name and version, and the names of its fields in order."""

    name: str
    version: int
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event of a type or version that this program has not registered, as it was written.

    Appended again, it is written as the type it stands for.

    Attributes:
        name: the event type's name.
        version: the version that it was written with.
        fields: its fields by name.
    """

    name: str
    version: int
    fields: Mapping[str, Any]

    def __hash__(self) -> int:
        """Hash the names, and the field values that have a hash: not all need to."""
        values = []
        for item in self.fields.items():
            with suppress(TypeError):
                values.append(hash(item))
        return hash((self.name, self.version, frozenset(self.fields), frozenset(values)))

    @property
    def schema(self) -> Schema:
        """How it was written.

        Raises:
            ValueError: nothing can have been written so.
        """
        if type(self.name) is not str or not _is_utf8(self.name):
            raise ValueError(f"its name is {short_repr(self.name, 40)}, not a str of UTF-8")
        if type(self.version) is not int or not 1 <= self.version <= MAX_VERSION:
            raise ValueError(f"its version is {short_repr(self.version, 40)}, not an int from 1 to {MAX_VERSION}")
        if not isinstance(self.fields, Mapping):
            raise ValueError(f"its fields are {short_repr(self.fields, 40)}, not a mapping")
        for name in self.fields:
            if type(name) is not str or not _is_utf8(name):
                raise ValueError(f"one of its fields is called {short_repr(name, 40)}, not by a str of UTF-8")
        return Schema(self.name, self.version, tuple(self.fields))


@dataclass(frozen=True, slots=True)
class EventType:
    """A registered class."""

    cls: type
    schema: Schema
    kind: Kind
    upcasters: Mapping[int, Upcaster]


class Registry:
    """The event types a program knows, by class and by name."""

    def __init__(self) -> None:
        self._by_class: dict[type, EventType] = {}
        self._by_name: dict[str, EventType] = {}
        # Counts registrations, so that what was worked out for a schema before one can be thrown away after it.
        self.generation = 0

    def event(
        self, name: str, version: int = 1, *, upcasters: Mapping[int, Upcaster] | None = None
    ) -> Callable[[type[T]], type[T]]:
        """Register a class as the event type `name` at `version`.

        The class may be a dataclass, an attrs class, a msgspec Struct, a pydantic model, a NamedTuple or an Enum;
        it is returned as it is. Instances may be events, and values inside events and facts.

        An event is read by field name. Fields added since it was written need a default, dropped ones are
        ignored, and order does not matter: none of these needs a new version. What does (a field renamed, a
        meaning changed) gets the next version and an upcaster from the last.

        Args:
            name: what the type is called in the data, for good; the class may be renamed and moved freely.
            version: the version that this class writes, from 1 up.
            upcasters: for each older version, a function from the fields of that version, by name, to the fields
                of the next. They must lead to `version` without a gap.

        Returns:
            A class decorator.

        Raises:
            InvalidArgument: the name is taken by another class, or the versions do not fit together.
            InvalidType: the class is of no kind that can be registered.
        """
        if not isinstance(name, str):
            raise InvalidType(f'An event\'s name is a str, not {short_repr(name)}: write @event("order_placed").')
        if not name or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES or not _is_utf8(name):
            raise InvalidArgument(f"An event's name is 1 to {MAX_NAME_BYTES} bytes of UTF-8, not {short_repr(name)}.")
        if type(version) is not int or not 1 <= version <= MAX_VERSION:
            raise InvalidArgument(f"An event's version is an int from 1 to {MAX_VERSION}, not {short_repr(version)}.")
        if upcasters is not None and not isinstance(upcasters, Mapping):
            raise InvalidType(f"upcasters is a mapping of versions to functions, not {short_repr(upcasters)}.")
        steps = dict(upcasters or {})
        for step in steps.items():
            if type(step[0]) is not int or not callable(step[1]):
                raise InvalidType(f"upcasters is a mapping of versions to functions, not of {short_repr(step)}.")
        if steps and sorted(steps) != list(range(min(steps), version)):
            raise InvalidArgument(
                f"The upcasters of {name!r} must lead from one version to the next up to {version}; "
                f"there are some from {sorted(steps)}."
            )

        def register(cls: type[T]) -> type[T]:
            kind = kind_of(cls)
            holder = self._by_name.get(name)
            if holder is not None and not _same_definition(holder.cls, cls):
                raise InvalidArgument(
                    f"The event name {name!r} is taken by {holder.cls.__module__}.{holder.cls.__qualname__}; "
                    f"give {cls.__module__}.{cls.__qualname__} another."
                )
            other = self._by_class.get(cls)
            if other is not None and other.schema.name != name:
                raise InvalidArgument(f"{cls.__qualname__} is registered already, as {other.schema.name!r}.")
            registered = EventType(cls, Schema(name, version, kind.fields), kind, steps)
            if holder is not None:
                self._by_class.pop(holder.cls, None)
            self._by_class[cls] = self._by_name[name] = registered
            self.generation += 1
            return cls

        return register

    def of(self, cls: type) -> EventType | None:
        """The registered type of exactly this class."""
        return self._by_class.get(cls)

    def builder(self, schema: Schema, unknown_events: UnknownEvents) -> Build:
        """What rebuilds events that were written by `schema` from rows of their field values.

        Raises:
            UnknownEventType: the name or the version is not registered, and `unknown_events` is "raise".
        """
        registered = self._by_name.get(schema.name)
        if registered is None or not _reads(registered, schema.version):
            if unknown_events == "wrap":
                return lambda rows: [
                    UnknownEvent(schema.name, schema.version, dict(zip(schema.fields, row, strict=True)))
                    for row in rows
                ]
            raise _unknown(schema, registered)
        build = registered.kind.build
        if registered.schema == schema:
            return build
        fields = registered.schema.fields
        defaults = registered.kind.defaults
        steps = [registered.upcasters[version] for version in range(schema.version, registered.schema.version)]

        def today(row: Sequence[Any]) -> list[Any]:
            stored = dict(zip(schema.fields, row, strict=True))
            for step in steps:
                stored = _upcast(step, stored, schema)
            return [_field(name, stored, defaults, schema) for name in fields]

        def build_older(rows: Iterable[Sequence[Any]]) -> list[Any]:
            return build([today(row) for row in rows])

        return build_older


def _is_utf8(text: str) -> bool:
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def _same_definition(one: type, other: type) -> bool:
    """Whether a class is the same one defined again, as in a notebook cell or by a reload."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _reads(registered: EventType, version: int) -> bool:
    return version == registered.schema.version or version in registered.upcasters


def _unknown(schema: Schema, registered: EventType | None) -> UnknownEventType:
    if registered is None:
        message = (
            f"No class is registered for the event type {schema.name!r:.600} (version {schema.version}): import the "
            'module whose @event names it, or open the store with unknown_events="wrap".'
        )
    else:
        message = (
            f"The event type {schema.name!r} was written with version {schema.version}; this program has "
            f"{registered.cls.__qualname__} at version {registered.schema.version} and no upcaster from that one."
        )
    return UnknownEventType(message, name=schema.name, version=schema.version)


def _upcast(step: Upcaster, stored: dict[str, Any], schema: Schema) -> dict[str, Any]:
    try:
        result = step(stored)
    except StoreError:
        raise
    except Exception as error:
        raise DecodeError(
            f"An upcaster of the event type {schema.name!r} failed on an event of version {schema.version}: "
            f"{type(error).__name__}: {reason(error)}."
        ) from error
    if not isinstance(result, dict):
        raise DecodeError(
            f"An upcaster of the event type {schema.name!r} returned {short_repr(result)} instead of a dict."
        )
    return result


def _field(name: str, stored: Mapping[str, Any], defaults: Mapping[str, Callable[[], Any]], schema: Schema) -> Any:
    if name in stored:
        return stored[name]
    if name in defaults:
        return defaults[name]()
    raise DecodeError(
        f"An event of type {schema.name!r}, version {schema.version}, has no field {name!r}, and the class gives it "
        "no default: give it one, or a new version with an upcaster."
    )


default_registry = Registry()
event = default_registry.event
