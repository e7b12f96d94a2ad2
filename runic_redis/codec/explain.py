"""Says what is wrong with a value that could not be encoded, and where in it.

Encoding itself runs in C and knows no paths; only when it has failed is the value walked here, in Python, to
find the first part that cannot be kept.
"""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

from runic_redis.errors import EncodeError
from runic_redis.events import Fact, FactRef, Registry, UnknownEvent

__all__ = ["explain"]

# MessagePack's packer stops at 511 to 1024 lists and dicts inside each other, by its version.
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


def explain(value: Any, path: str, registry: Registry, *, facts: bool) -> EncodeError | None:
    """The error for the first part of the value that cannot be kept; None where the walk finds none.

    Args:
        value: what could not be encoded.
        path: where it stands in what the caller passed.
        registry: the classes that can be kept.
        facts: whether it may hold facts.
    """
    # A stack of what is left to visit, instead of recursion: the value may be as deep as it likes, or cyclic.
    # A None in place of the children marks the way back out of a container.
    above: list[int] = []
    stack: list[tuple[Any, str, int, bool]] = [(value, path, 0, facts)]
    while stack:
        part, where, depth, allowed = stack.pop()
        del above[depth:]
        if id(part) in above:
            return _error(where, "contains itself; break the cycle")
        try:
            problem = _problem(part, registry)
            if type(part) in {Fact, FactRef} and not allowed:
                problem = f"is a {type(part).__name__}, which only an event may hold: a fact refers to no other"
            if problem is not None:
                return _error(where, problem)
            children = list(_children(part, where, registry))
        except Exception as error:  # what a value raises when it is looked at is its own affair
            return _error(where, f"is a {type(part).__qualname__} that cannot be read: {error!r}")
        above.append(id(part))
        allowed = allowed and type(part) is not Fact
        stack.extend((child, child_path, depth + 1, allowed) for child, child_path in reversed(children))
        if depth > _DEEPEST:
            return _error(path, "nests too deep; keep the inner part as a fact")
    return None


def _error(path: str, problem: str) -> EncodeError:
    return EncodeError(f"{path} {problem}; nothing was sent.", path=path)


def _problem(part: Any, registry: Registry) -> str | None:
    kind = type(part)
    if kind is str:
        try:
            part.encode()
        except UnicodeEncodeError:
            return f"is the str {part!r:.60}, which holds a lone surrogate"
    elif kind in {dt.datetime, dt.time}:
        if part.tzinfo is not None and part.utcoffset() is None:
            return f"is the {kind.__name__} {part}, whose time zone gives no offset for it"
    elif kind is UnknownEvent:
        part.schema  # noqa: B018 - raises if it is none
    elif kind in _SCALARS or kind in {list, tuple, dict, set, frozenset, Fact}:
        return None
    elif registry.of(kind) is None:
        for base in kind.__mro__[1:-1]:
            if base in _SCALARS or base in {list, tuple, dict, set, frozenset}:
                return (
                    f"is a {kind.__qualname__}, a subclass of {base.__name__} that would come back as a plain "
                    f"{base.__name__}: convert it, or register the class with @event"
                )
        return f"is a {kind.__module__}.{kind.__qualname__}, which is not supported: register the class with @event"
    return None


def _children(part: Any, where: str, registry: Registry) -> Iterator[tuple[Any, str]]:
    kind = type(part)
    if kind in {list, tuple}:
        yield from ((item, f"{where}[{index}]") for index, item in enumerate(part))
    elif kind in {set, frozenset}:
        yield from ((item, f"{where}{{{item!r:.40}}}") for item in part)
    elif kind is dict:
        for key, item in part.items():
            yield key, f"the key {key!r:.40} of {where}"
            yield item, f"{where}[{key!r:.40}]"
    elif kind is Fact:
        yield part.value, f"{where}.value"
    elif kind is UnknownEvent:
        yield from ((item, f"{where}.{name}") for name, item in part.fields.items())
    else:
        registered = registry.of(kind)
        if registered is not None:
            values = registered.kind.read(part)
            yield from ((item, f"{where}.{name}") for name, item in zip(registered.kind.fields, values, strict=True))
