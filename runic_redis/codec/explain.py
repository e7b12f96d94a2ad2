"""Says what is wrong with a value that could not be encoded, and where in it.

Encoding itself runs in C and knows no paths; only when it has failed is the value walked here, in Python, to
find the first part that cannot be kept.
"""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

from runic_redis.codec.limits import MAX_DEPTH, AlikeKeys
from runic_redis.errors import EncodeError, printable, reason
from runic_redis.events import Fact, FactRef, Registry, UnknownEvent, checked_ref

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


def explain(value: Any, path: str, registry: Registry, *, facts: bool, is_event: bool = False) -> EncodeError | None:
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
    extensions = -1 if is_event and type(value) is not dict else 0
    stack: list[tuple[Any, str, int, int]] = [(value, path, 0, extensions)]
    while stack:
        part, where, depth, extensions = stack.pop()
        del above[depth:]
        if id(part) in above:
            return _error(where, "contains itself; break the cycle")
        kind = type(part)
        try:
            problem = _problem(part, registry)
            if kind in {Fact, FactRef} and not facts:
                problem = f"is a {kind.__name__}, which only an event may hold: a fact refers to no other"
            if problem is None and kind in {dict, set, frozenset}:
                problem = _crowd(part, alike)
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
        stack.extend((child, child_path, depth + 1, extensions) for child, child_path in reversed(children))
        if depth > _DEEPEST:
            return _error(path, "nests too deep; keep the inner part as a fact")
    return None


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
    elif kind is FactRef:
        checked_ref(part)
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
        yield from ((item, f"{where}{{{_short(item)}}}") for item in part)
    elif kind is dict:
        for key, item in part.items():
            yield key, f"the key {_short(key)} of {where}"
            yield item, f"{where}[{_short(key)}]"
    elif kind is UnknownEvent:
        yield from ((item, f"{where}.{printable(name)}") for name, item in part.fields.items())
    else:
        registered = registry.of(kind)
        if registered is not None:
            values = registered.kind.read(part)
            yield from ((item, f"{where}.{name}") for name, item in zip(registered.kind.fields, values, strict=True))


def _short(key: Any) -> str:
    try:
        return f"{key!r:.40}"
    except Exception:  # of an int of very many digits, say
        return f"a {type(key).__qualname__}"
