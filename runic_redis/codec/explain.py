"""Says what is wrong with a value that could not be encoded, and where in it.

Encoding itself runs in C and knows no paths; only when it has failed is the value walked here, in Python, to
find the first part that cannot be kept.
"""

import datetime as dt
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from runic_redis.codec.limits import MAX_DEPTH, AlikeKeys
from runic_redis.errors import EncodeError, StoreError, printable, reason, short_repr
from runic_redis.events import (
    ATTRIBUTES,
    UNSET,
    EventRegistry,
    Fact,
    FactRef,
    UnknownEvent,
    checked_ref,
    default_registry,
    kind_of,
    taken_apart,
)

__all__ = ["explain"]

# MessagePack's packer stops at 511 to 1024 lists and dicts inside each other, by its version.
_DEEP = 500
_DEEPEST = 1000
_SCALARS = {
    type(None),
    bool,
    int,
    float,
    str,
    bytes,
    dt.datetime,
    dt.date,
    dt.time,
    dt.timedelta,
    Decimal,
    UUID,
}


def explain(
    value: Any, path: str, registry: EventRegistry, *, facts: bool, is_event: bool = False
) -> EncodeError | None:
    """The error for the first part of the value that cannot be kept; None where the walk finds none.

    Args:
        value: what could not be encoded.
        path: where it stands in what the caller passed.
        registry: the classes that can be kept.
        facts: whether it may hold facts.
        is_event: whether it is an event: the object itself is encoded as a row, not as an extension.
    """
    # A stack of what is left to visit, instead of recursion: the value may be as deep as it likes, or cyclic.
    above: list[int] = []  # the ids of what the part stands in
    alike = AlikeKeys()
    deep: str | None = None
    extensions = -1 if is_event and type(value) is not dict else 0
    stack: list[tuple[Any, str, int, int]] = [(value, path, 0, extensions)]
    while stack:
        part, where, depth, extensions = stack.pop()
        del above[depth:]
        if id(part) in above:
            return _error(where, "contains itself; break the cycle")
        kind = type(part)
        try:
            problem = _problem(part, registry, alike)
            if kind in {Fact, FactRef} and not facts:
                problem = f"is a {kind.__name__}, which only an event may hold: a fact refers to no other"
            if kind not in _SCALARS and kind not in {list, dict}:
                extensions += 1
                if extensions > MAX_DEPTH:
                    problem = f"stands inside of {MAX_DEPTH} tuples, sets and objects; keep the inner part as a fact"
            if problem is not None:
                return _error(where, problem)
            if kind is Fact:
                # A fact is encoded by itself.
                error = explain(part.value, f"{where}.value", registry, facts=False)
                if error is not None:
                    return error
                continue
            children = list(_children(part, where, registry))
        except Exception as error:  # what a value raises when it is looked at is its own affair
            return _error(where, f"is a {kind.__qualname__} that cannot be read: {reason(error)}")
        above.append(id(part))
        if depth >= _DEEP and deep is None:
            deep = where
        stack.extend((child, child_path, depth + 1, extensions) for child, child_path in reversed(children))
        if depth > _DEEPEST:
            break
    return None if deep is None else _error(deep, f"stands inside of {_DEEP} lists and dicts; keep it as a fact")


def _crowd(keys: Any, alike: AlikeKeys) -> str | None:
    try:
        alike.count(keys)
    except ValueError:
        return (
            f"is a {type(keys).__name__} with {len(keys)} keys of which too many have the same hash: it could only be "
            "read slowly; give them other hashes, or keep them in a list"
        )
    return None


def _error(path: str, problem: str) -> EncodeError:
    shown = path if len(path) <= _LONGEST_PATH else f"{path[: _LONGEST_PATH // 2]}…{path[-_LONGEST_PATH // 2 :]}"
    return EncodeError(f"{shown} {problem}; nothing was sent.", path=path)


def _problem(part: Any, registry: EventRegistry, alike: AlikeKeys) -> str | None:
    kind = type(part)
    if kind in {dict, set, frozenset}:
        return _crowd(part, alike)
    if kind is str:
        try:
            part.encode()
        except UnicodeEncodeError:
            return (
                f"is the str {short_repr(part, 60)}, which holds a lone surrogate, and UTF-8 has none: keep "
                "value.encode('utf-8', 'surrogatepass') instead, which is bytes, or replace it by "
                "value.encode('utf-8', 'replace').decode()"
            )
    elif kind in {dt.datetime, dt.time}:
        if part.tzinfo is not None and part.utcoffset() is None and type(part.tzinfo) is not ZoneInfo:
            return (
                f"is the {kind.__name__} {part}, whose time zone gives no offset for it: use a ZoneInfo, or keep the "
                "value without its tzinfo and the zone's name beside it"
            )
    elif kind is FactRef:
        checked_ref(part)
    elif kind is UnknownEvent:
        part.schema  # noqa: B018 - raises if it is none
    elif kind in _SCALARS or kind in {list, tuple, dict, set, frozenset, Fact}:
        return None
    elif registry.of(kind) is None and kind.__module__ != "freezegun.api":
        return f"is a {kind.__module__}.{kind.__qualname__}, which {_advice(kind, registry)}"
    return None


def _advice(kind: type, registry: EventRegistry) -> str:
    """What is wrong with a type that is not known, and what to do."""
    if registry is not default_registry and default_registry.of(kind) is not None:
        return "is registered, but not in the registry of this store: register it there too"
    if kind is memoryview:
        return "is not supported: convert it with bytes(value)"
    base = next((base for base in kind.__mro__[1:-1] if base in _SCALARS or base in _CONTAINERS), None)
    convert = "is not supported: "
    if base is not None:
        convert = (
            f"is a subclass of {base.__name__} and would come back as a plain {base.__name__}: convert it with "
            f"{_CONVERSIONS.get(base, base.__name__ + '(value)')}, or "
        )
    elif kind.__module__ == "numpy":
        convert += "convert it with value.tolist(), or "
    if _has_kind(kind):
        return f"{convert}register the class with @event"
    return f"{convert}register the type with register_type({kind.__name__}, a name, encode, decode)"


def _has_kind(kind: type) -> bool:
    try:
        kind_of(kind)
    except StoreError:
        return False
    return True


_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})
_CONVERSIONS = {
    dt.datetime: "datetime.fromisoformat(value.isoformat())",
    dt.date: "date.fromisoformat(value.isoformat())",
    dt.time: "time.fromisoformat(value.isoformat())",
    dt.timedelta: "timedelta(value.days, value.seconds, value.microseconds)",
    UUID: "UUID(str(value))",
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
            registered.kind.read(part)  # which looks at its factory
        for key, item in part.items():
            yield key, f"the key {short_repr(key, 40)} of {where}"
            yield item, f"{where}[{short_repr(key, 40)}]"
    elif kind is UnknownEvent:
        yield from ((item, f"{where}.{printable(name)}") for name, item in part.fields.items())
    else:
        registered = registry.of(kind)
        if registered is not None:
            schema, values = taken_apart(registered, part)
            for name, item in zip(schema.fields, values, strict=True):
                if name == ATTRIBUTES:
                    yield from ((value, f"{where}.{attribute}") for attribute, value in item.items())
                elif item is not UNSET and not registered.kind.may_leave_out(name):
                    yield item, f"{where}.{name}"
