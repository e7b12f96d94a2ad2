"""Find the part of a value that cannot be encoded, and explain it.

Encoding runs in C and knows no paths. Only if it fails does this module walk the value in Python, to find the first
part that cannot be stored.
"""

import builtins
import datetime as dt
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from operator import attrgetter, methodcaller
from threading import Lock
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from runic_redis.codec.limits import MAX_DEPTH, AlikeKeys
from runic_redis.errors import EncodeError, StoreError, printable, reason, short_repr
from runic_redis.events import EventRegistry, Fact, FactRef, UnknownEvent, default_registry
from runic_redis.events.attributes import ATTRIBUTES
from runic_redis.events.event_types import fields_of
from runic_redis.events.kinds import UNSET, kind_of
from runic_redis.events.references import checked_ref
from runic_redis.events.standard import real_type

# MessagePack's packer stops at 511 to 1024 nested lists and dicts, depending on its version.
_DEEP = 500
_DEEPEST = 1000
_SCALARS = {type(None), bool, int, float, str, bytes, dt.datetime, dt.date, dt.time, dt.timedelta, Decimal, UUID}


def encode_error(
    value: Any, path: str, registry: EventRegistry, *, facts: bool, is_event: bool = False
) -> EncodeError | None:
    """Return the error for the first part of a value that cannot be stored; None if the walk finds none.

    Args:
        value: the value that could not be encoded.
        path: the place of the value in the caller's argument.
        registry: the classes that can be stored.
        facts: whether the value may hold facts.
        is_event: whether the value is an event: an event is encoded as a row, not as an extension.
    """
    # A stack instead of recursion, because the value may be cyclic or of any depth.
    above: list[int] = []  # the ids of the containers of the part
    alike = AlikeKeys()
    deep: str | None = None
    extensions = -1 if is_event and type(value) is not dict else 0
    stack: list[tuple[Any, str, int, int, str]] = [(value, path, 0, extensions, "")]
    while stack:
        part, where, depth, extensions, field = stack.pop()
        del above[depth:]
        if id(part) in above:
            return _error(where, "contains itself; break the cycle")
        kind = type(part)
        try:
            problem = _problem(part, registry, alike, field=field)
            if kind in {Fact, FactRef} and not facts:
                problem = f"is a {kind.__name__}, which only an event may hold: a fact cannot refer to another fact"
            if kind not in _SCALARS and kind not in {list, dict}:
                extensions += 1
                if extensions > MAX_DEPTH:
                    problem = f"is nested in {MAX_DEPTH} tuples, sets and objects; store the inner part as a fact"
            if problem is not None:
                return _error(where, problem)
            if kind is Fact:
                # A fact is encoded separately.
                error = encode_error(part.value, f"{where}.value", registry, facts=False)
                if error is not None:
                    return error
                continue
            children = list(_children(part, where, registry))
        except Exception as error:  # reading a value may raise anything
            return _error(where, f"is a {kind.__qualname__} that cannot be read: {reason(error)}")
        above.append(id(part))
        if depth >= _DEEP and deep is None:
            deep = where
        registered = registry.of(kind)
        has_fields = registered is not None and not registered.is_value
        stack.extend(
            (child, child_path, depth + 1, extensions, child_path[len(where) + 1 :] if has_fields else "")
            for child, child_path in reversed(children)
        )
        if depth > _DEEPEST:
            break
    return None if deep is None else _error(deep, f"is nested in {_DEEP} lists and dicts; store it as a fact")


def _crowd(keys: Any, alike: AlikeKeys) -> str | None:
    try:
        alike.count(keys)
    except ValueError:
        return (
            f"is a {type(keys).__name__} with {len(keys)} keys of which too many have the same hash: reading it "
            "would be slow; give them other hashes, or store them in a list"
        )
    return None


def _error(path: str, problem: str) -> EncodeError:
    shown = path if len(path) <= _LONGEST_PATH else f"{path[: _LONGEST_PATH // 2]}…{path[-_LONGEST_PATH // 2 :]}"
    return EncodeError(f"{shown} {problem}; nothing was sent.", path=path)


def _problem(part: Any, registry: EventRegistry, alike: AlikeKeys, *, field: str) -> str | None:
    kind = type(part)
    if kind in {dict, set, frozenset}:
        return _crowd(part, alike)
    if kind is str:
        try:
            part.encode()
        except UnicodeEncodeError:
            return (
                f"is the str {short_repr(part, 60)}, which holds a lone surrogate, and UTF-8 has none: store "
                "value.encode('utf-8', 'surrogatepass') instead, which is bytes, or replace it with "
                "value.encode('utf-8', 'replace').decode()"
            )
    elif kind in {dt.datetime, dt.time}:
        if part.tzinfo is not None and part.utcoffset() is None and not isinstance(part.tzinfo, ZoneInfo):
            return (
                f"is the {kind.__name__} {part}, whose time zone gives no offset for it: use a ZoneInfo, or store the "
                "value without its tzinfo and the zone's name beside it"
            )
    elif kind is FactRef:
        checked_ref(part)
    elif kind is UnknownEvent:
        part.schema  # noqa: B018 - raises if it is none
    elif kind in _SCALARS or kind in {list, tuple, dict, set, frozenset, Fact}:
        return None
    elif registry.of(kind) is None and real_type(kind) is kind:
        return f"is a {kind.__module__}.{kind.__qualname__}, which {_advice(part, registry, field=field)}"
    return None


def _advice(part: Any, registry: EventRegistry, *, field: str) -> str:
    """Return why a value of an unknown type cannot be stored, and what to do."""
    kind = type(part)
    if registry is not default_registry and default_registry.of(kind) is not None:
        return "is registered, but not in the registry of this store: also register it there"
    if kind is memoryview:
        return "is not supported: convert it with bytes(value)"
    leave_out = f", or leave out the field with @event(..., transient=[{field!r}])" if field else ""
    if kind in _NO_DATA:
        return f"is not data: store the values that can make it again{leave_out}"
    base = next((base for base in kind.__mro__[1:-1] if base in _SCALARS or base in _CONTAINERS), None)
    wrong = "is not supported"
    if base is not None:
        wrong = f"is a subclass of {base.__name__} and would come back as a plain {base.__name__}"
    convert = _convert(part, base, registry)
    convert = f"convert it with {convert}, or " if convert is not None else ""
    if _has_kind(kind):
        return f"{wrong}: {convert}register the class with @event"
    return f"{wrong}: {convert}register the type with register_type({_name(kind)}, a name, encode, decode){leave_out}"


def _convert(part: Any, base: type | None, registry: EventRegistry) -> str | None:
    """Return the expression that converts a value to an equal one of a known type; None if there is none."""
    text: str
    convert: Callable[[Any], Any]
    if issubclass(type(part), Enum):
        text, convert = "value.value", attrgetter("value")
    elif base is not None:
        text, convert = _CONVERSIONS.get(base, (f"{base.__name__}(value)", base))
    elif type(part).__module__ == "numpy":
        text, convert = "value.tolist()", methodcaller("tolist")
    elif issubclass(type(part), Mapping):
        text, convert = "dict(value)", dict
    else:
        return None
    try:
        made = convert(part)
        known = type(made) in _SCALARS or type(made) in _CONTAINERS or registry.of(type(made)) is not None
        # An Enum without a base equals no other value. Comparing arrays compares each element.
        comparable = base is not None or (type(part).__module__ == "numpy" and type(made) is not list)
        return text if known and (not comparable or _equal(type(part), made, part)) else None
    except Exception:  # converting a value may raise anything
        return None


def _equal(kind: type, made: Any, part: Any) -> bool:
    is_nan = bool(made != made) and bool(part != part)  # noqa: PLR0124
    return is_nan or bool((made if kind.__module__ != "numpy" else kind(made)) == part)


def _name(kind: type) -> str:
    """Return an expression for a type; some types cannot be found under their name."""
    name = kind.__name__
    is_found = getattr(sys.modules.get(kind.__module__), name, None) is kind and getattr(builtins, name, kind) is kind
    return name if is_found or "<locals>" in kind.__qualname__ else "type(value)"


def _has_kind(kind: type) -> bool:
    try:
        kind_of(kind)
    except StoreError:
        return False
    return True


# Types whose instances have a meaning in this process only.
_NO_DATA = frozenset(
    {
        *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, types.CodeType),
        *(types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, type(Lock())),
    }
)
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})
_CONVERSIONS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    dt.datetime: (
        "datetime.combine(value.date(), value.timetz())",
        lambda value: dt.datetime.combine(value.date(), value.timetz()),
    ),
    dt.date: ("date.fromisoformat(value.isoformat())", lambda value: dt.date.fromisoformat(value.isoformat())),
    dt.time: ("time.fromisoformat(value.isoformat())", lambda value: dt.time.fromisoformat(value.isoformat())),
    dt.timedelta: (
        "timedelta(value.days, value.seconds, value.microseconds)",
        lambda value: dt.timedelta(value.days, value.seconds, value.microseconds),
    ),
    UUID: ("UUID(str(value))", lambda value: UUID(str(value))),
}
_LONGEST_PATH = 400


def _children(part: Any, where: str, registry: EventRegistry) -> Iterator[tuple[Any, str]]:
    kind = type(part)
    if kind in {list, tuple, deque}:
        yield from ((item, f"{where}[{index}]") for index, item in enumerate(part))
    elif kind in {set, frozenset}:
        yield from ((item, f"{where}{{{short_repr(item, 40)}}}") for item in part)
    elif kind in {dict, OrderedDict, defaultdict, Counter}:
        if kind is defaultdict and (registered := registry.of(kind)) is not None:
            registered.kind.read(part)  # checks its factory
        for key, item in part.items():
            yield key, f"the key {short_repr(key, 40)} of {where}"
            yield item, f"{where}[{short_repr(key, 40)}]"
    elif kind is UnknownEvent:
        yield from ((item, f"{where}.{printable(name)}") for name, item in part.fields.items())
    else:
        registered = registry.of(kind)
        if registered is not None:
            schema, values = fields_of(registered, part)
            for name, item in zip(schema.fields, values, strict=True):
                if name == ATTRIBUTES:
                    yield from ((value, f"{where}.{attribute}") for attribute, value in item.items())
                elif item is not UNSET and not registered.kind.may_leave_out(name):
                    yield item, f"{where}.{name}"
