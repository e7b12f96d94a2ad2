"""Events and their values without the application's classes: as JSON for programs, and as a line of text for people.

A value that JSON has no form for is written as an object with one member whose name begins with a dollar sign, such as
``{"$datetime": "2026-01-02T03:04:05+00:00"}``; docs/operating.md lists these forms. Two different values always have
different forms in JSON. The text is short: it cuts long bytes and hashes.
"""

import datetime as dt
import json
import keyword
import math
import re
from base64 import b64encode
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from runic_redis.events import FactRef, UnknownEvent, default_registry
from runic_redis.events.event_types import fields_of

# A larger int is not written as a JSON number. Every Python reads and writes this size: its limit of digits is at
# least 640.
_JSON_INT_BITS = 2048
# A larger int is written in hexadecimal, because the time for decimal grows with the square of the length.
_DECIMAL_BITS = 32_768
# A plain dict has the type that one of these fields names, or else this one.
_TYPE_FIELDS = ("type", "kind", "event")
_PLAIN = "dict"
_LONGEST_TYPE = 200
# Longer bytes are cut in texts, and so are the hashes in which a hexadecimal digest follows a colon.
_SHOWN_BYTES = 32
_DIGEST = re.compile(r"(.*:[0-9a-f]{8})[0-9a-f]{24,}", re.DOTALL)


def event_type(event: Any) -> str:
    """Return the name of an event's type. That of a plain dict is in a field of `_TYPE_FIELDS`, or "dict"."""
    if type(event) is dict:
        named = (event.get(field) for field in _TYPE_FIELDS)
        return next((name for name in named if type(name) is str and 0 < len(name) <= _LONGEST_TYPE), _PLAIN)
    return _schema(event)[0]


def _schema(value: Any) -> tuple[str, int]:
    """Return the name and the version of an object's type."""
    if type(value) is UnknownEvent:
        return value.name, value.version
    registered = default_registry.of(type(value))
    return (_PLAIN, 0) if registered is None else registered.schema[:2]


def type_counts(events: Iterable[Any]) -> dict[str, int]:
    """Return how many events of each type there are, by the names of the types."""
    return dict(Counter(map(event_type, events)))


def types_text(events: Iterable[Any]) -> str:
    """Return the names of the types of events, each with its number if there are several."""
    return ", ".join(f"{name} {count}" if count > 1 else name for name, count in type_counts(events).items())


def event_fields(event: Any) -> Mapping[Any, Any]:
    """Return an event's fields by name; of a plain dict, its items."""
    if type(event) is dict:
        return event
    if type(event) is UnknownEvent:
        return event.fields
    registered = default_registry.of(type(event))
    if registered is None:
        return {}
    schema, values = fields_of(registered, event)
    return dict(zip(schema.fields, values, strict=True))


def event_text(event: Any, facts: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return an event's fields as a line of text; a name that is not an identifier is quoted.

    Args:
        event: the event, or a mapping of fields.
        facts: texts about facts, by their hashes.
    """
    texts = _Texts(facts)
    return ", ".join(f"{_name_text(name)}={texts.whole(value)}" for name, value in event_fields(event).items())


def _name_text(name: Any) -> str:
    is_plain = type(name) is str and name.isidentifier() and not keyword.iskeyword(name)
    return name if is_plain else value_text(name)


def json_text(value: Any) -> str:
    """Return a value as indented JSON that is safe to show: invisible characters are escaped."""
    lines = json.dumps(value, ensure_ascii=False, indent=2).split("\n")
    return "\n".join(line if line.isprintable() else "".join(map(_json_form, line)) for line in lines)


def _json_form(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


def int_text(value: int) -> str:
    """Return an int in decimal, or in hexadecimal if it is very long; Python's limit for `str` does not matter."""
    # Python's limit of digits does not apply to a Decimal.
    return str(Decimal(value)) if value.bit_length() <= _DECIMAL_BITS else hex(value)


def to_json(value: Any) -> Any:
    """Return a value of an event in the form that `json.dumps` takes.

    A value that nests deeper than Python recurses is replaced by ``{"$deep": true}``.
    """
    try:
        return _to_json(value)
    except RecursionError:
        return {"$deep": True}


def _to_json(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in {bool, str}:
        return value
    if kind is int:
        return value if value.bit_length() <= _JSON_INT_BITS else {"$int": int_text(value)}
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    write = _FORMS.get(kind)
    if write is not None:
        return write(value)
    fields = {name: _to_json(part) for name, part in event_fields(value).items()}
    name, version = _schema(value)
    return {"$object": name, "version": version, "fields": fields}


def _object(value: dict[Any, Any]) -> Any:
    if all(type(key) is str for key in value) and not any(key.startswith("$") for key in value):
        return {key: _to_json(item) for key, item in value.items()}
    return {"$map": [[_to_json(key), _to_json(item)] for key, item in value.items()]}


def _iso_text(value: dt.datetime | dt.time) -> str:
    zone = f"[{value.tzinfo.key}]" if isinstance(value.tzinfo, ZoneInfo) else ""  # the form of RFC 9557
    return value.isoformat() + "~" * value.fold + zone


_FORMS: Mapping[type, Callable[[Any], Any]] = {
    list: lambda value: [_to_json(item) for item in value],
    dict: _object,
    FactRef: lambda value: {"$fact": value.hash},
    bytes: lambda value: {"$bytes": b64encode(value).decode()},
    tuple: lambda value: {"$tuple": [_to_json(item) for item in value]},
    set: lambda value: {"$set": sorted((_to_json(item) for item in value), key=repr)},
    frozenset: lambda value: {"$frozenset": sorted((_to_json(item) for item in value), key=repr)},
    dt.datetime: lambda value: {"$datetime": _iso_text(value)},
    dt.date: lambda value: {"$date": value.isoformat()},
    dt.time: lambda value: {"$time": _iso_text(value)},
    dt.timedelta: lambda value: {"$duration": [value.days, value.seconds, value.microseconds]},
    Decimal: lambda value: {"$decimal": str(value)},
    UUID: lambda value: {"$uuid": str(value)},
}


def value_text(value: Any, facts: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return a value as a line of text; a value that nests deeper than Python recurses is "…".

    Args:
        value: the value.
        facts: texts about facts, by their hashes. They follow the short hash of a reference.
    """
    return _Texts(facts).whole(value)


# Types whose repr does not show the value.
_WITHOUT_REPR = frozenset({"msgspec.Raw", "pydantic.ByteSize"})


class _Texts:
    """The texts of values. Python's form is used where it is readable: for numbers, text and containers."""

    def __init__(self, facts: Mapping[str, str]) -> None:
        self._facts = facts
        self._forms: Mapping[type, Callable[[Any], str]] = {
            int: int_text,
            bytes: _bytes_text,
            list: lambda value: f"[{self._list(value)}]",
            tuple: lambda value: f"({self._list(value)}{',' * (len(value) == 1)})",
            set: lambda value: f"{{{self._set(value)}}}" if value else "set()",
            frozenset: lambda value: f"frozenset({{{self._set(value)}}})" if value else "frozenset()",
            dict: self._dict,
            OrderedDict: lambda value: f"OrderedDict({self._dict(value)})",
            Counter: lambda value: f"Counter({self._dict(value)})",
            defaultdict: lambda value: (
                f"defaultdict({getattr(value.default_factory, '__name__', None)}, {self._dict(value)})"
            ),
            deque: lambda value: (
                f"deque([{self._list(value)}]{'' if value.maxlen is None else f', maxlen={value.maxlen}'})"
            ),
            dt.datetime: _iso_text,
            dt.date: str,
            dt.time: _iso_text,
            dt.timedelta: str,
            Decimal: str,
            UUID: str,
            FactRef: self._reference,
            UnknownEvent: self._object,
        }

    def whole(self, value: Any) -> str:
        try:
            return self.text(value)
        except RecursionError:
            return "…"

    def text(self, value: Any) -> str:
        kind = type(value)
        write = self._forms.get(kind)
        if write is not None:
            return write(value)
        if kind not in _FORMS and _schema(value)[0] in _WITHOUT_REPR:
            return self._object(value)
        try:
            return repr(value)
        except ValueError:  # a Fraction, say, of ints that are longer than Python's limit
            return self._object(value)

    def _list(self, value: Iterable[Any]) -> str:
        return ", ".join(map(self.text, value))

    def _set(self, value: Iterable[Any]) -> str:
        return ", ".join(sorted(map(self.text, value)))

    def _dict(self, value: Mapping[Any, Any]) -> str:
        return "{" + ", ".join(f"{self.text(key)}: {self.text(item)}" for key, item in value.items()) + "}"

    def _object(self, value: Any) -> str:
        fields = ", ".join(f"{name}={self.text(part)}" for name, part in event_fields(value).items())
        return f"{_schema(value)[0]}({fields})"

    def _reference(self, value: FactRef) -> str:
        if type(value.hash) is not str:  # it is damaged
            return self._object(value)
        about = self._facts.get(value.hash)
        return f"fact {short_hash(value.hash)}" + (f" ({about})" if about else "")


def short_hash(fact_hash: str) -> str:
    """Return a fact's hash with the end of a long digest cut."""
    match = _DIGEST.fullmatch(fact_hash)
    return f"{match[1]}…" if match else fact_hash


def _bytes_text(value: bytes) -> str:
    if len(value) <= _SHOWN_BYTES:
        return repr(value)
    return f"{value[:_SHOWN_BYTES]!r}… ({len(value):,} bytes)"
