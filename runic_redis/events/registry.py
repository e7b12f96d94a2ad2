"""The registry: which class an event name stands for, at which version, and how to read older ones."""

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, Literal, NamedTuple, TypeVar

from runic_redis.errors import (
    IncompatibleEvent,
    InvalidArgument,
    InvalidType,
    StoreError,
    UnknownEventType,
    reason,
    short_repr,
)
from runic_redis.events.kinds import ATTRIBUTES, EXTRA_FIELDS, FIELDS_SET, Build, Kind, complete, kind_of

__all__ = [
    "EventRegistry",
    "EventType",
    "Schema",
    "Several",
    "UnknownEvent",
    "UnknownEvents",
    "Upcaster",
    "default_registry",
    "event",
    "register_built_in",
    "register_library",
    "register_type",
    "taken_apart",
    "value_type",
]

T = TypeVar("T")
Upcaster = Callable[[dict[str, Any]], dict[str, Any] | list[Any]]
UnknownEvents = Literal["raise", "wrap"]

MAX_NAME_BYTES = 512
MAX_VERSION = 2**31 - 1
# The names of what stands in a row beside the fields.
_BESIDE = frozenset({ATTRIBUTES, EXTRA_FIELDS, FIELDS_SET})
# Where the classes of a function are.
_LOCAL = "<locals>"


class Schema(NamedTuple):
    """How an event was written: its type's name and version, and the names of its fields in order."""

    name: str
    version: int
    fields: tuple[str, ...]


class Several(list[Any]):
    """The events that an upcaster made of one that is stored: any number of them."""


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
    """A registered class, under one of its names.

    Attributes:
        cls: the class.
        schema: how its instances are written.
        kind: how they are taken apart and rebuilt.
        upcasters: for each older version, what makes the fields of the next.
        is_value: whether its instances can stand in events only, and be none.
    """

    cls: type
    schema: Schema
    kind: Kind
    upcasters: Mapping[int, Upcaster]
    is_value: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the values of the fields are all there is to an instance."""
        return self.kind.beside is None and not self.kind.optional and not self.kind.inexact


class EventRegistry:
    """The event types and value types that a program knows, by class and by name.

    `event` and `register_type` of the package belong to the registry that every store uses by default. A store that is
    opened with another, ``registry=EventRegistry()``, knows the types of that one only: so a test, or one of several
    applications in a process, can have names for itself. The types of the standard library that can be stored are known
    to every registry.

    Register types before the stores that use them read or write; registering is not for two threads at once.
    """

    def __init__(self) -> None:
        self._by_class: dict[type, EventType] = {}
        self._by_name: dict[str, EventType] = {}
        # Counts registrations, so that what was worked out for a schema before one can be thrown away after it.
        self.generation = 0

    def event(
        self,
        name: str,
        version: int = 1,
        *,
        upcasters: Mapping[int, Upcaster] | None = None,
        aliases: Collection[str] = (),
        transient: Collection[str] = (),
        renamed_members: Mapping[str, str] | None = None,
    ) -> Callable[[type[T]], type[T]]:
        """Register a class as the event type `name` at `version`.

        The class may be a dataclass, an attrs class, a msgspec Struct, a pydantic model, a NamedTuple or an Enum;
        it is returned as it is. Instances may be events, and values inside events and facts. A generic pydantic model
        stands for its parametrisations too: an event of one comes back as an instance of the generic model.

        An event is read by field name. Fields added since it was written need a default, dropped ones are
        ignored, and order does not matter: none of these needs a new version. What does (a field renamed, a
        meaning changed) gets the next version and an upcaster from the last.

        A class defined again, as by a reload, in a notebook, or in a file that is imported under two names, replaces
        the one before; instances of both are written. A class in a function gives way to one in another function, so
        that tests may have classes of one name each; other classes of a name that is taken are rejected. A class that
        is registered under a second name is read under both, and written under the first.

        Args:
            name: what the type is called in the data, for good; the class may be renamed and moved freely.
            version: the version that this class writes, from 1 up.
            upcasters: for each older version, a function from the fields of that version, by name, to the fields
                of the next. They must lead to `version` without a gap. It may also return a list, of any number of such
                dicts and of other events (instances of registered classes), which the event is then read as: they
                have its cursor in common. An event that stands inside another stays one.
            aliases: other names under which the type was written; versions mean the same under all of them.
            transient: the names of fields, or of other attributes, that are not stored. A field comes back as its
                default, which it must have; another attribute is missing from what is read, unless the class has it.
            renamed_members: for an Enum, the present name of each renamed member by its old one.

        Returns:
            A class decorator.

        Raises:
            InvalidArgument: the name is taken by another class, or the versions do not fit together.
            InvalidType: the class is of no kind that can be registered.
        """
        for one in (name, *_names(aliases, "aliases")):
            _check_name(one)
        _names(transient, "transient")
        steps = _checked_upcasters(name, version, upcasters)
        if renamed_members is not None and not isinstance(renamed_members, Mapping):
            raise InvalidType(
                f"renamed_members is a mapping of old names to present ones, not {short_repr(renamed_members)}."
            )

        def register(cls: type[T]) -> type[T]:
            kind = kind_of(cls, transient=transient, members=renamed_members)
            for one in (name, *aliases):
                self._check_free(one, cls)
            for one in (name, *aliases):
                self._by_name[one] = EventType(cls, Schema(one, version, kind.fields), kind, steps)
            written = self._by_class.get(cls)
            if written is None or written.schema.name in {name, *aliases} or written.cls is not cls:
                self._by_class[cls] = self._by_name[name]
            self.generation += 1
            return cls

        return register

    def register_type(self, cls: type[T], name: str, encode: Callable[[T], Any], decode: Callable[[Any], T]) -> None:
        """Register a type whose instances are to be values in events, facts, logs and snapshots.

        A type that this registry knows already, such as one of the standard library, is written this way from now on.

        Args:
            cls: the type. Instances of exactly this type are stored so, and none of a subclass.
            name: what the type is called in the data, for good.
            encode: a value that can be stored, such as a str, a list or a dict, from an instance. It is called
                whenever one is written.
            decode: the instance from that value. It is given what may be damaged or of an older program, and raises
                ValueError or TypeError for what it does not take.

        Raises:
            InvalidArgument: the name is taken by another type.
            InvalidType: an argument is of the wrong type.
        """
        _check_name(name)
        if not isinstance(cls, type):
            raise InvalidType(f"register_type registers classes, not {short_repr(cls)}.")
        for what, function in (("encode", encode), ("decode", decode)):
            if not callable(function):
                raise InvalidType(f"{what} is a function, not {short_repr(function)}.")
        self._check_free(name, cls)
        self._by_class[cls] = self._by_name[name] = value_type(cls, name, encode, decode)
        self.generation += 1

    def of(self, cls: type) -> EventType | None:
        """The registered type of exactly this class, or of the generic model that it is a parametrisation of."""
        found = self._by_class.get(cls) or _built_in_by_class.get(cls)
        if found is None:
            _load_library(cls.__module__.partition(".")[0])
            found = _built_in_by_class.get(cls) or self._of_generic(cls)
        return found

    def builder(self, schema: Schema, unknown_events: UnknownEvents) -> Build:
        """What rebuilds events that were written by `schema` from rows of their field values.

        An event that is read as several, or as none, is a `Several`.

        Raises:
            UnknownEventType: the name or the version is not registered, and `unknown_events` is "raise".
        """
        registered = self._named(schema.name)
        if registered is None or not _reads(registered, schema.version):
            if unknown_events == "wrap":
                return lambda rows: [
                    UnknownEvent(schema.name, schema.version, dict(zip(schema.fields, row, strict=True)))
                    for row in rows
                ]
            raise _unknown(schema, registered)
        if registered.schema == schema:
            return partial(_built, registered, registered.kind.build)
        return partial(_built, registered, partial(self._build_older, registered, schema))

    def multiplies(self, schema: Schema) -> bool:
        """Whether events that were written by `schema` may be read as several or none."""
        registered = self._named(schema.name)
        return registered is not None and schema.version in registered.upcasters

    def _named(self, name: str) -> EventType | None:
        found = self._by_name.get(name) or _built_in_by_name.get(name)
        if found is None:
            _load_library(name.partition(".")[0])
            found = _built_in_by_name.get(name)
        return found

    def _of_generic(self, cls: type) -> EventType | None:
        origin = cls.__dict__.get("__pydantic_generic_metadata__", {}).get("origin")
        return None if origin is None else self._by_class.get(origin)

    def _check_free(self, name: str, cls: type) -> None:
        holder = self._named(name)
        if holder is None or holder.cls is cls or _same_definition(holder.cls, cls):
            return
        if _LOCAL in holder.cls.__qualname__ and _LOCAL in cls.__qualname__:
            return
        raise InvalidArgument(
            f"The event name {name!r} is taken by {holder.cls.__module__}.{holder.cls.__qualname__}; "
            f"give {cls.__module__}.{cls.__qualname__} another, or register it in an EventRegistry of its own."
        )

    def _build_older(self, registered: EventType, schema: Schema, rows: Iterable[Sequence[Any]]) -> list[Any]:
        steps = [registered.upcasters[version] for version in range(schema.version, registered.schema.version)]
        return [self._today(registered, schema, steps, row) for row in rows]

    def _today(self, registered: EventType, schema: Schema, steps: Sequence[Upcaster], row: Sequence[Any]) -> Any:
        """What an event is now that was written by another schema: an instance, or `Several`."""
        stored = dict(zip(schema.fields, row, strict=True))
        beside = {name: stored.pop(name) for name in _BESIDE if name in stored}
        # Upcasters are given attributes and extra fields, too: these may be what the next version is made of.
        made: list[Any] = [_found_beside(beside) | stored if steps else stored]
        several = False
        for step in steps:
            before, made = made, []
            for one in before:
                if type(one) is not dict:
                    made.append(one)
                    continue
                result = _upcast(step, one, schema)
                several = several or type(result) is list
                made += result if type(result) is list else [result]
        events = [
            _fitted(registered, schema, one, beside) if type(one) is dict else self._checked(one, schema)
            for one in made
        ]
        return Several(events) if several else events[0]

    def _checked(self, event: Any, schema: Schema) -> Any:
        """An event that an upcaster returned."""
        registered = self.of(type(event))
        if type(event) is not UnknownEvent and (registered is None or registered.is_value):
            raise _incompatible(
                schema,
                f"an upcaster returned a list with {short_repr(event)}, which is neither a dict of fields nor an event",
                remedy="Return a list of dicts of fields, and of instances of registered classes.",
            )
        return event


def taken_apart(registered: EventType, instance: Any) -> tuple[Schema, list[Any]]:
    """The schema and the values by which an instance is written, with what it holds beside its fields.

    Raises:
        ValueError: it would not come back as it is.
    """
    kind = registered.kind
    values = list(kind.read(instance))
    beside = kind.beside(instance) if kind.beside is not None else {}
    if kind.inexact:
        _check_restored(registered, values, beside)
    if not beside:
        return registered.schema, values
    schema = registered.schema
    return schema._replace(fields=(*schema.fields, *beside)), [*values, *beside.values()]


def _check_restored(registered: EventType, values: list[Any], beside: Mapping[str, Any]) -> None:
    """See that an instance of a class with code for setting its fields comes back as it is.

    Raises:
        ValueError: it would come back as another.
    """
    kind = registered.kind
    try:
        (again,) = kind.build([values])
        if kind.restore is not None:
            kind.restore(again, beside, kind.fields)
        now = list(kind.read(again))
    except Exception as error:
        raise ValueError(f"it cannot be restored from its fields: {type(error).__name__}: {reason(error)}") from error
    for name, before, after in zip(kind.fields, values, now, strict=True):
        # What is the same object need not equal itself: NaN does not.
        if before is not after and (type(before) is not type(after) or before != after):
            raise ValueError(
                f"its field {name!r} is {short_repr(before, 60)} and would come back as {short_repr(after, 60)}"
            )


def _built(registered: EventType, build: Build, rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Rebuild events; what the class does not take, it does not take at this version."""
    try:
        return build(rows)
    except StoreError:
        raise
    except Exception as error:  # how a class fails is its own affair
        if registered.cls in _built_in_by_class:
            raise  # these do not change: it is damaged
        problem = f"{type(error).__name__}: {reason(error)}"
        remedy = (
            "Have the decode function that is registered for it take what is stored." if registered.is_value else None
        )
        raise _incompatible(registered.schema, problem, registered, remedy) from error


def _found_beside(beside: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes and extra fields of an instance."""
    maps = [beside[name] for name in (ATTRIBUTES, EXTRA_FIELDS) if type(beside.get(name)) is dict]
    return {name: value for found in maps for name, value in found.items()}


def _fitted(registered: EventType, schema: Schema, stored: dict[str, Any], beside: Mapping[str, Any]) -> Any:
    """An instance of the class as it is now, out of fields that were stored by another schema."""
    kind = registered.kind
    # What was beside the fields may have become one.
    found = _found_beside(beside)
    stored = {field: found[field] for field in kind.fields if field in found} | stored
    names = [name for name in kind.fields if name in stored]
    if FIELDS_SET in beside:
        new = [name for name in names if name not in schema.fields]
        beside = {**beside, FIELDS_SET: [*beside[FIELDS_SET], *new]}
    known = {name: stored[name] for name in names}
    for name in kind.fields:
        if name not in known and name not in kind.defaults and name not in kind.optional:
            raise _incompatible(
                schema,
                f"it has no field {name!r}, and the class gives it no default",
                registered,
                "Give the field a default, or register the class with the next version and an upcaster from this one.",
            )
    instance = kind.build([complete(kind, known)])[0]
    if kind.restore is not None:
        kind.restore(instance, beside, names)
    return instance


def _names(names: Any, what: str) -> Collection[str]:
    if isinstance(names, str) or not isinstance(names, Collection) or not all(type(name) is str for name in names):
        raise InvalidType(f"{what} is a list of names, not {short_repr(names)}.")
    return names


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise InvalidType(f'An event\'s name is a str, not {short_repr(name)}: write @event("order_placed").')
    if not name or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES or not _is_utf8(name):
        raise InvalidArgument(f"An event's name is 1 to {MAX_NAME_BYTES} bytes of UTF-8, not {short_repr(name)}.")


def _checked_upcasters(name: str, version: int, upcasters: Mapping[int, Upcaster] | None) -> dict[int, Upcaster]:
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
    return steps


def _is_utf8(text: str) -> bool:
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def _same_definition(one: type, other: type) -> bool:
    """Whether a class is the same one defined again: in a notebook cell, by a reload, or by another import."""
    if one.__qualname__ != other.__qualname__:
        return False
    return one.__module__ == other.__module__ or _file(one) == _file(other) is not None


def _file(cls: type) -> Path | None:
    """The source file of a class."""
    path = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return None if path is None else Path(path).resolve()


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
            f"{registered.cls.__qualname__} at version {registered.schema.version} and no upcaster from that one. "
            + (
                "Update this program"
                if schema.version > registered.schema.version
                else f"Register the class with an upcaster from version {schema.version}"
            )
            + ', or open the store with unknown_events="wrap".'
        )
    return UnknownEventType(message, name=schema.name, version=schema.version)


def _incompatible(
    schema: Schema, problem: str, registered: EventType | None = None, remedy: str | None = None
) -> IncompatibleEvent:
    cls = "its class" if registered is None else f"the class {registered.cls.__qualname__}"
    remedy = remedy or (
        "Change the class so that it takes what is stored, or register it with the next version and an upcaster from "
        "this one."
    )
    return IncompatibleEvent(
        f"An event of type {schema.name!r}, version {schema.version}, is not readable by this version of {cls}: "
        f"{problem}. The data is unchanged. {remedy} To read it as it was written, open the store with "
        'registry=EventRegistry() and unknown_events="wrap".',
        name=schema.name,
        version=schema.version,
    )


def _upcast(step: Upcaster, stored: dict[str, Any], schema: Schema) -> dict[str, Any] | list[Any]:
    try:
        result = step(stored)
    except StoreError:
        raise
    except Exception as error:
        raise _incompatible(
            schema, f"an upcaster failed: {type(error).__name__}: {reason(error)}", remedy="Correct the upcaster."
        ) from error
    if type(result) is not dict and type(result) is not list:
        raise _incompatible(
            schema,
            f"an upcaster returned {short_repr(result)}",
            remedy="Return a dict of fields, or a list of such dicts and of events, [] for none.",
        )
    return result


# What every registry knows: the types of the standard library, and of optional libraries from when they are needed.
_built_in_by_class: dict[type, EventType] = {}
_built_in_by_name: dict[str, EventType] = {}
_loaders: dict[str, Callable[[], None]] = {}
_loading = RLock()


def register_built_in(registered: EventType) -> None:
    """Have every registry know a type."""
    _built_in_by_class[registered.cls] = _built_in_by_name[registered.schema.name] = registered


def register_library(name: str, load: Callable[[], None]) -> None:
    """Have every registry know the types of an optional library, which `load` registers, once one is met."""
    _loaders[name] = load


def _load_library(name: str) -> None:
    if name not in _loaders:
        return
    with _loading:  # a thread that comes second finds the types, too
        load = _loaders.get(name)
        if load is not None:
            with suppress(ImportError):
                load()
            _loaders.pop(name, None)


def value_type(cls: type, name: str, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> EventType:
    """A type whose instances are stored as one value each."""

    def build(rows: Iterable[Sequence[Any]]) -> list[Any]:
        return [decode(value) for (value,) in rows]

    kind = Kind(("value",), lambda value: (encode(value),), build, {})
    return EventType(cls, Schema(name, 1, kind.fields), kind, {}, is_value=True)


default_registry = EventRegistry()
event = default_registry.event
register_type = default_registry.register_type
