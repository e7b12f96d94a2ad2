"""Events and their values as JSON and as a line of text, without the application's classes.

A value without a JSON form becomes an object with one member whose name begins with a dollar sign, such as
``{"$datetime": "2026-01-02T03:04:05+00:00"}``; docs/operating.md lists them. Different values never look the same.
"""

import datetime as dt
import json
import keyword
import math
from base64 import b64encode
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from runic_redis.events import FactRef, UnknownEvent, default_registry, fields_of

__all__ = ["event_fields", "event_text", "event_type", "int_text", "json_text", "to_json", "value_text"]

# A larger int is not written as a JSON number. Every Python reads and writes this size: its limit of digits is at
# least 640.
_JSON_INT_BITS = 2048
# A larger int is written in hexadecimal, because the time for decimal grows with the square of the length.
_DECIMAL_BITS = 32_768
# The name shown as the type of a plain dict.
PLAIN = "dict"


def event_type(event: Any) -> str:
    """Return the name of an event's type; "dict" for a plain dict."""
    return _schema(event)[0]


def _schema(value: Any) -> tuple[str, int]:
    """Return the name and the version of an object's type."""
    if type(value) is UnknownEvent:
        return value.name, value.version
    registered = default_registry.of(type(value))
    return (PLAIN, 0) if registered is None else registered.schema[:2]


def event_fields(event: Any) -> Mapping[Any, Any]:
    """Return an event's fields by name; the items of a plain dict."""
    if type(event) is dict:
        return event
    if type(event) is UnknownEvent:
        return event.fields
    registered = default_registry.of(type(event))
    if registered is None:
        return {}
    schema, values = fields_of(registered, event)
    return dict(zip(schema.fields, values, strict=True))


def event_text(event: Any) -> str:
    """Return an event's fields in a line, as Python writes them; a name that is not an identifier is quoted."""
    return ", ".join(f"{_name_text(name)}={value_text(value)}" for name, value in event_fields(event).items())


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
    """Return an int in decimal, or in hexadecimal if it is very long, whatever Python's limit for `str` is."""
    # Python's limit of digits does not apply to a Decimal.
    return str(Decimal(value)) if value.bit_length() <= _DECIMAL_BITS else hex(value)


def to_json(value: Any) -> Any:
    """Return a value of an event in a form for `json.dumps`.

    A value that nests deeper than Python can recurse becomes ``{"$deep": true}``.
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


def value_text(value: Any) -> str:
    """Return a value in a line, as Python writes it; an ellipsis if it nests deeper than Python can recurse."""
    try:
        return _written(value)
    except RecursionError:
        return "…"


# Types whose repr does not show the value.
_WITHOUT_REPR = frozenset({"msgspec.Raw", "pydantic.ByteSize"})


def _written(value: Any) -> str:
    kind = type(value)
    write = _TEXTS.get(kind)
    if write is not None:
        return write(value)
    if kind not in _FORMS and _schema(value)[0] in _WITHOUT_REPR:
        return _object_text(value)
    try:
        return repr(value)
    except ValueError:  # for example, a Fraction of ints that are longer than Python's limit
        return _object_text(value)


def _list_text(value: Iterable[Any]) -> str:
    return ", ".join(map(_written, value))


def _set_text(value: Iterable[Any]) -> str:
    return ", ".join(sorted(map(_written, value)))


def _dict_text(value: Mapping[Any, Any]) -> str:
    return "{" + ", ".join(f"{_written(key)}: {_written(item)}" for key, item in value.items()) + "}"


def _object_text(value: Any) -> str:
    return f"{_schema(value)[0]}({', '.join(f'{name}={_written(part)}' for name, part in event_fields(value).items())})"


_TEXTS: Mapping[type, Callable[[Any], str]] = {
    int: int_text,
    list: lambda value: f"[{_list_text(value)}]",
    tuple: lambda value: f"({_list_text(value)}{',' * (len(value) == 1)})",
    set: lambda value: f"{{{_set_text(value)}}}" if value else "set()",
    frozenset: lambda value: f"frozenset({{{_set_text(value)}}})" if value else "frozenset()",
    dict: _dict_text,
    OrderedDict: lambda value: f"OrderedDict({_dict_text(value)})",
    Counter: lambda value: f"Counter({_dict_text(value)})",
    defaultdict: lambda value: f"defaultdict({getattr(value.default_factory, '__name__', None)}, {_dict_text(value)})",
    deque: lambda value: f"deque([{_list_text(value)}]{'' if value.maxlen is None else f', maxlen={value.maxlen}'})",
    FactRef: lambda value: f"FactRef({value.hash!r})",
    UnknownEvent: _object_text,
}
