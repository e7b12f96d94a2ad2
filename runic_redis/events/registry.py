"""The registry: the class of each event name, and its version. `upcasting` reads older versions."""

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, Literal, TypeVar

from runic_redis.errors import InvalidArgument, InvalidType, StoreError, UnknownEventType, reason, short_repr
from runic_redis.events.attributes import Build
from runic_redis.events.event_types import MAX_VERSION, EventType, Schema, UnknownEvent, Upcaster, is_utf8, value_type
from runic_redis.events.kinds import kind_of
from runic_redis.events.upcasting import incompatible_error, older_build

T = TypeVar("T")
UnknownEvents = Literal["raise", "wrap"]
MAX_NAME_BYTES = 512
# Part of the qualified name of a class that is defined in a function.
_LOCAL = "<locals>"


class EventRegistry:
    """The event types and value types that a program knows, by class and by name.

    `event` and `register_type` of the package belong to the default registry, which every store uses. You can open a
    store with another registry, ``registry=EventRegistry()``. The store then knows only the types of that registry, so
    a test, or an application that shares a process, can use any names. Every registry also knows the types of the
    standard library that can be stored.

    Register types before their stores read or write. Only one thread may register types at a time.
    """

    def __init__(self) -> None:
        self._by_class: dict[type, EventType] = {}
        self._by_name: dict[str, EventType] = {}
        # The number of registrations. A decoder drops what it remembers of schemas when the number changes.
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

        The class may be a dataclass, an attrs class, a msgspec Struct, a pydantic model, a NamedTuple or an Enum. The
        decorator returns it unchanged. Instances may be events, and values in events and facts. A generic pydantic
        model also registers its parametrisations: their events come back as instances of the generic model.

        Events are read by field name. You can add fields with a default, drop fields and reorder fields without a new
        version. Other changes, such as a renamed field, need the next version and an upcaster from the last version.

        A class that is defined again replaces the previous one, as after a reload, in a notebook, or if a file is
        imported under two names. Instances of both are written. A class in a function replaces a class of that name in
        another function, as in tests. Any other class with a taken name is rejected. A class that is registered under a
        second name is read under both names, and written under the first.

        Args:
            name: the permanent name of the type in the data. You can rename and move the class.
            version: the version that this class writes, from 1 up.
            upcasters: for each older version, a function that takes the fields of that version, by name, and returns
                the fields of the next. The versions must lead to `version` without a gap. A function may also return a
                list of such dicts and of other events (instances of registered classes). The event is then read as
                these events, which share its cursor. An event that is part of another event must stay one.
            aliases: other names under which the type was written. A version means the same under each name.
            transient: the names of fields and other attributes that are not stored. A field comes back with its
                default, which it must have. Another attribute is missing after reading, unless the class has it.
            renamed_members: for an Enum, the current name of each renamed member by its old name.

        Raises:
            InvalidArgument: another class has the name, or the versions do not fit together.
            InvalidType: a class of this kind cannot be registered.
        """
        for one in (name, *_checked_names(aliases, "aliases")):
            _require_name(one)
        _checked_names(transient, "transient")
        steps = _checked_upcasters(name, version, upcasters)
        if renamed_members is not None and not isinstance(renamed_members, Mapping):
            raise InvalidType(f"renamed_members is a mapping of old names to new, not {short_repr(renamed_members)}.")

        def register(cls: type[T]) -> type[T]:
            kind = kind_of(cls, transient=transient, members=renamed_members)
            for one in (name, *aliases):
                self._require_free(one, cls)
            for one in (name, *aliases):
                self._by_name[one] = EventType(cls, Schema(one, version, kind.fields), kind, steps)
            written = self._by_class.get(cls)
            if written is None or written.schema.name in {name, *aliases} or written.cls is not cls:
                self._by_class[cls] = self._by_name[name]
            self.generation += 1
            return cls

        return register

    def register_type(self, cls: type[T], name: str, encode: Callable[[T], Any], decode: Callable[[Any], T]) -> None:
        """Register a type whose instances can be values in events, facts, logs and snapshots.

        If the registry already knows the type, such as a type of the standard library, this replaces how it is written.

        Args:
            cls: the type. It covers instances of exactly this type, not of a subclass.
            name: the permanent name of the type in the data.
            encode: returns a value that can be stored, such as a str, a list or a dict, for an instance. It is called
                at each write.
            decode: returns the instance for such a value. The value may be damaged, or come from an older program; for
                a value that it cannot read, it raises ValueError or TypeError.

        Raises:
            InvalidArgument: another type has the name.
            InvalidType: an argument is of the wrong type.
        """
        _require_name(name)
        if not isinstance(cls, type):
            raise InvalidType(f"register_type registers classes, not {short_repr(cls)}.")
        for what, function in (("encode", encode), ("decode", decode)):
            if not callable(function):
                raise InvalidType(f"{what} is a function, not {short_repr(function)}.")
        self._require_free(name, cls)
        self._by_class[cls] = self._by_name[name] = value_type(cls, name, encode, decode)
        self.generation += 1

    def of(self, cls: type) -> EventType | None:
        """Return the registered type of exactly this class, or of the generic model of a parametrisation."""
        found = self._by_class.get(cls) or _built_in_by_class.get(cls)
        if found is None:
            _load_library(cls.__module__.partition(".")[0])
            origin = cls.__dict__.get("__pydantic_generic_metadata__", {}).get("origin")
            found = _built_in_by_class.get(cls) or self._by_class.get(origin)
        return found

    def builder(self, schema: Schema, unknown_events: UnknownEvents) -> Build:
        """Return a function that rebuilds events of a schema from rows of field values.

        An event that is read as several events or none is a `Several`.

        Raises:
            UnknownEventType: the name or the version is not registered, and `unknown_events` is "raise".
        """
        registered = self._named(schema.name)
        if registered is None or not _can_read(registered, schema.version):
            if unknown_events == "wrap":
                return lambda rows: [
                    UnknownEvent(schema.name, schema.version, dict(zip(schema.fields, row, strict=True)))
                    for row in rows
                ]
            raise _unknown_type_error(schema, registered)
        if registered.schema == schema:
            return partial(_rebuilt, registered, registered.kind.build)
        return partial(_rebuilt, registered, older_build(registered, schema, self.of))

    def multiplies(self, schema: Schema) -> bool:
        """Return whether an event of a schema may be read as several events or none."""
        registered = self._named(schema.name)
        return registered is not None and schema.version in registered.upcasters

    def current_name(self, name: str) -> str:
        """Return the name under which events of a name are written now: another one for an alias."""
        registered = self._named(name)
        current = None if registered is None else self.of(registered.cls)
        return name if current is None else current.schema.name

    def has_upcasters(self, name: str) -> bool:
        """Return whether events of a name may be read as events of other types."""
        registered = self._named(name)
        return registered is not None and bool(registered.upcasters)

    def _named(self, name: str) -> EventType | None:
        found = self._by_name.get(name) or _built_in_by_name.get(name)
        if found is None:
            _load_library(name.partition(".")[0])
            found = _built_in_by_name.get(name)
        return found

    def _require_free(self, name: str, cls: type) -> None:
        holder = self._named(name)
        if holder is None or holder.cls is cls or _same_definition(holder.cls, cls):
            return
        if _LOCAL in holder.cls.__qualname__ and _LOCAL in cls.__qualname__:
            return
        raise InvalidArgument(
            f"The event name {name!r} is taken by {holder.cls.__module__}.{holder.cls.__qualname__}. Nothing was "
            f"registered. Give {cls.__module__}.{cls.__qualname__} another name, or register it in another "
            "EventRegistry."
        )


def _rebuilt(registered: EventType, build: Build, rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Return rebuilt events; if the class rejects the fields, its current version cannot read the event."""
    try:
        return build(rows)
    except StoreError:
        raise
    except Exception as error:  # a class may raise anything
        if registered.cls in _built_in_by_class:
            raise  # built-in types do not change, so the data is damaged
        problem = f"{type(error).__name__}: {reason(error)}"
        remedy = "Change the registered decode function so that it reads the value." if registered.is_value else None
        raise incompatible_error(registered.schema, problem, registered, remedy) from error


def _checked_names(names: Any, what: str) -> Collection[str]:
    if isinstance(names, str) or not isinstance(names, Collection) or not all(type(name) is str for name in names):
        raise InvalidType(f"{what} is a list of names, not {short_repr(names)}.")
    return names


def _require_name(name: Any) -> None:
    if not isinstance(name, str):
        raise InvalidType(f'An event\'s name is a str, not {short_repr(name)}: write @event("order_placed").')
    if not name or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES or not is_utf8(name):
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
            f"The upcasters of {name!r} must lead from each version to the next, up to {version}; "
            f"there are upcasters from {sorted(steps)}."
        )
    return steps


def _same_definition(one: type, other: type) -> bool:
    """Return whether a class is defined again: in a notebook cell, by a reload, or by an import under another name."""
    if one.__qualname__ != other.__qualname__:
        return False
    return one.__module__ == other.__module__ or _source_file(one) == _source_file(other) is not None


def _source_file(cls: type) -> Path | None:
    """Return the source file of a class."""
    path = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return None if path is None else Path(path).resolve()


def _can_read(registered: EventType, version: int) -> bool:
    return version == registered.schema.version or version in registered.upcasters


def _unknown_type_error(schema: Schema, registered: EventType | None) -> UnknownEventType:
    if registered is None:
        problem = f"No class is registered for the event type {schema.name!r:.600} (version {schema.version})"
        remedy = "Import the module whose @event names it"
    else:
        problem = (
            f"The event type {schema.name!r} was written with version {schema.version}; this program has "
            f"{registered.cls.__qualname__} at version {registered.schema.version} and no upcaster from that one"
        )
        is_newer = schema.version > registered.schema.version
        remedy = (
            "Update this program" if is_newer else f"Register the class with an upcaster from version {schema.version}"
        )
    return UnknownEventType(
        f'{problem}. The data is unchanged. {remedy}, or open the store with unknown_events="wrap".',
        name=schema.name,
        version=schema.version,
    )


# The types that every registry knows: the standard library's, and those of optional libraries once they are needed.
_built_in_by_class: dict[type, EventType] = {}
_built_in_by_name: dict[str, EventType] = {}
_loaders: dict[str, Callable[[], None]] = {}
_loading = RLock()


def register_built_in(registered: EventType) -> None:
    """Add a type to every registry."""
    _built_in_by_class[registered.cls] = _built_in_by_name[registered.schema.name] = registered


def register_library(name: str, load: Callable[[], None]) -> None:
    """Add the types of an optional library to every registry; `load` registers them when the first is needed."""
    _loaders[name] = load


def _load_library(name: str) -> None:
    if name not in _loaders:
        return
    with _loading:  # so that a second thread also finds the types
        load = _loaders.get(name)
        if load is not None:
            with suppress(ImportError):
                load()
            _loaders.pop(name, None)


default_registry = EventRegistry()
event = default_registry.event
register_type = default_registry.register_type
