"""The types of events and values: how instances are written, by name, version and fields."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from runic_redis.errors import reason, short_repr
from runic_redis.events.kinds import Kind

Upcaster = Callable[[dict[str, Any]], dict[str, Any] | list[Any]]
MAX_VERSION = 2**31 - 1


class Schema(NamedTuple):
    """The form of a written event: the name and version of its type, and the names of its fields in order."""

    name: str
    version: int
    fields: tuple[str, ...]


class Several(list[Any]):
    """The events that an upcaster made of one stored event: any number of them."""


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event, as it was written, of a type or version that is not registered in this program.

    If you append it again, it is written as the type that it names.

    Attributes:
        name: the event type's name.
        version: the version that wrote it.
        fields: the fields by name.
    """

    name: str
    version: int
    fields: Mapping[str, Any]

    def __hash__(self) -> int:
        """Hash the names, and the field values that are hashable."""
        values = []
        for item in self.fields.items():
            with suppress(TypeError):
                values.append(hash(item))
        return hash((self.name, self.version, frozenset(self.fields), frozenset(values)))

    @property
    def schema(self) -> Schema:
        """The form in which it was written.

        Raises:
            ValueError: no event can have this form.
        """
        if type(self.name) is not str or not is_utf8(self.name):
            raise ValueError(f"its name is {short_repr(self.name, 40)}, not a str of UTF-8")
        if type(self.version) is not int or not 1 <= self.version <= MAX_VERSION:
            raise ValueError(f"its version is {short_repr(self.version, 40)}, not an int from 1 to {MAX_VERSION}")
        if not isinstance(self.fields, Mapping):
            raise ValueError(f"its fields are {short_repr(self.fields, 40)}, not a mapping")
        for name in self.fields:
            if type(name) is not str or not is_utf8(name):
                raise ValueError(f"one of its fields is called {short_repr(name, 40)}, not by a str of UTF-8")
        return Schema(self.name, self.version, tuple(self.fields))


class EventType(NamedTuple):
    """A registered class under one of its names.

    Attributes:
        cls: the class.
        schema: the form in which instances are written.
        kind: how to read and rebuild instances.
        upcasters: for each older version, the function that makes the fields of the next version.
        is_value: whether instances can only be values in events, not events.
    """

    cls: type
    schema: Schema
    kind: Kind
    upcasters: Mapping[int, Upcaster]
    is_value: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether an instance consists of the values of its fields."""
        return self.kind.beside is None and not self.kind.optional and not self.kind.inexact


def value_type(cls: type, name: str, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> EventType:
    """Return a type whose instances are each stored as one value."""

    def build(rows: Iterable[Sequence[Any]]) -> list[Any]:
        return [decode(value) for (value,) in rows]

    kind = Kind(("value",), lambda value: (encode(value),), build, {})
    return EventType(cls, Schema(name, 1, kind.fields), kind, {}, is_value=True)


def fields_of(registered: EventType, instance: Any) -> tuple[Schema, list[Any]]:
    """Return the schema and the values to store for an instance, including the data beside its fields.

    Raises:
        ValueError: the instance would come back different.
    """
    kind = registered.kind
    values = list(kind.read(instance))
    beside = kind.beside(instance) if kind.beside is not None else {}
    if kind.inexact:
        _require_restorable(registered, values, beside)
    if not beside:
        return registered.schema, values
    schema = registered.schema
    return schema._replace(fields=(*schema.fields, *beside)), [*values, *beside.values()]


def _require_restorable(registered: EventType, values: list[Any], beside: Mapping[str, Any]) -> None:
    """Verify that an instance comes back unchanged, although code of its class runs when fields are set.

    Raises:
        ValueError: the instance would come back different.
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
        # Compare by identity first, because NaN does not equal itself.
        if before is not after and (type(before) is not type(after) or before != after):
            raise ValueError(
                f"its field {name!r} is {short_repr(before, 60)} and would come back as {short_repr(after, 60)}"
            )


def is_utf8(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8: it has no surrogates."""
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)
