"""The types of the standard library, pydantic and msgspec that every registry knows as values.

Each is stored as an object with one field, ``value``; docs/data-format.md describes its content.
"""

import datetime as dt
import ipaddress
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from zoneinfo import ZoneInfo

from runic_redis.errors import short_repr
from runic_redis.events.event_types import value_type
from runic_redis.events.registry import register_built_in, register_library

# The default factories that are stored by name. No other can be found again by its name.
_FACTORIES: dict[str, Any] = {
    factory.__name__: factory
    for factory in (
        *(bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict),
        *(deque, Counter, OrderedDict, defaultdict, Decimal, Fraction),
    )
}
# The form of IANA names: no such name leads out of the database of time zones.
_ZONE_KEY = re.compile(r"[A-Za-z0-9_+-]{1,64}(/[A-Za-z0-9_+-]{1,64}){0,3}")
# Compiling a longer pattern takes long, and a stored pattern may be damaged.
_MOST_PATTERN = 64 * 1024


def real_type(kind: type) -> type:
    """Return the real type of a date that freezegun replaced; any other type unchanged."""
    if kind.__module__ != "freezegun.api":
        return kind
    return next((base for base in kind.__mro__ if base.__module__ == "datetime"), kind)


@lru_cache(1024)
def zone_by_key(key: str) -> ZoneInfo | None:
    """Return the time zone of a key such as ``Europe/Berlin``; None if this machine does not know it."""
    if not _ZONE_KEY.fullmatch(key):
        return None
    try:
        return ZoneInfo(key)
    except (LookupError, ValueError, OSError):
        return None


def _zone_key(zone: ZoneInfo) -> str:
    if zone.key is None:
        raise ValueError("it was made from a file and has no key")
    return zone.key


def _zone(key: str) -> ZoneInfo:
    found = zone_by_key(key)
    if found is None:
        raise ValueError(f"this machine does not know the time zone {key!r:.80}: install the package tzdata")
    return found


def _path_text(path: Any) -> str | bytes:
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")  # the name of a file may not be UTF-8
    return text


def _path(here: type, elsewhere: type) -> Callable[[str | bytes], Any]:
    """Return a function that makes a path; on the other kind of system, the corresponding pure path."""

    def decode(text: str | bytes) -> Any:
        if isinstance(text, bytes):
            text = text.decode("utf-8", "surrogateescape")
        return here(text) if issubclass(type(Path()), here) or here is elsewhere else elsewhere(text)

    return decode


def _default_dict(value: defaultdict[Any, Any]) -> list[Any]:
    factory = value.default_factory
    if factory is None:
        return [None, dict(value)]
    name = getattr(factory, "__name__", "")
    if _FACTORIES.get(name) is not factory:
        raise ValueError(
            f"its default_factory is {short_repr(factory)}, which cannot be stored; factories that can be are None, "
            f"{', '.join(_FACTORIES)}. Convert it with dict(value)"
        )
    return [name, dict(value)]


def _fraction(parts: list[int]) -> Fraction:
    numerator, denominator = parts
    if type(numerator) is not int or type(denominator) is not int or denominator < 1:
        raise ValueError("a fraction is damaged")
    # The stored fraction is reduced. Reducing damaged numbers of any length may take hours.
    made: Any = object.__new__(Fraction)
    made._numerator, made._denominator = numerator, denominator
    return made  # type: ignore[no-any-return]


def _ordered_dict(parts: list[Any]) -> OrderedDict[Any, Any]:
    # The parts are a checked map, and the order of its keys, which the map of a fact does not keep.
    items, keys = parts
    try:
        return OrderedDict((key, items[key]) for key in keys)
    except KeyError:
        # For a key that does not equal its copy, such as NaN. The map was written in the same order.
        if len(items) != len(keys):
            raise
        return OrderedDict(items)


def _pattern_parts(pattern: re.Pattern[Any]) -> list[Any]:
    if len(pattern.pattern) > _MOST_PATTERN:
        raise ValueError(f"a pattern of more than {_MOST_PATTERN} characters cannot be stored: store its text")
    return [pattern.pattern, pattern.flags]


def _pattern(parts: list[Any]) -> re.Pattern[Any]:
    pattern, flags = parts
    if len(pattern) > _MOST_PATTERN:
        raise ValueError("a pattern is too long")
    return re.compile(pattern, flags & ~re.DEBUG)  # DEBUG would print


def _zone_of_offset(parts: list[Any]) -> dt.timezone:
    return dt.UTC if parts == [dt.timedelta(0)] else dt.timezone(*parts)


_STANDARD: tuple[tuple[type, Callable[[Any], Any], Callable[[Any], Any]], ...] = (
    (PosixPath, _path_text, _path(PosixPath, PurePosixPath)),
    (WindowsPath, _path_text, _path(WindowsPath, PureWindowsPath)),
    (PurePosixPath, _path_text, _path(PurePosixPath, PurePosixPath)),
    (PureWindowsPath, _path_text, _path(PureWindowsPath, PureWindowsPath)),
    (deque, lambda value: [list(value), value.maxlen], lambda parts: deque(parts[0], parts[1])),
    (OrderedDict, lambda value: [dict(value), list(value)], _ordered_dict),
    (defaultdict, _default_dict, lambda parts: defaultdict(parts[0] and _FACTORIES[parts[0]], parts[1])),
    (Counter, dict, Counter),
    (Fraction, lambda value: [value.numerator, value.denominator], _fraction),
    (complex, lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    (range, lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
    (bytearray, bytes, bytearray),
    (re.Pattern, _pattern_parts, _pattern),
    *(
        (kind, str, kind)
        for kind in (
            *(ipaddress.IPv4Address, ipaddress.IPv4Network, ipaddress.IPv4Interface),
            *(ipaddress.IPv6Address, ipaddress.IPv6Network, ipaddress.IPv6Interface),
        )
    ),
    (ZoneInfo, _zone_key, _zone),
    (dt.timezone, lambda value: list(value.__getinitargs__()), _zone_of_offset),
)


def _register_pydantic() -> None:
    from pydantic import networks, types  # noqa: PLC0415 - called only if a value or a stored type needs pydantic

    for name in networks.__all__:
        kind = getattr(networks, name)
        # Each of these has its own class, which makes it from its text.
        if isinstance(kind, type) and name.endswith(("Url", "Dsn", "DSN")):
            register_built_in(value_type(kind, f"pydantic.{name}", str, kind))
    others: tuple[tuple[Any, Callable[[Any], Any], Callable[[Any], Any]], ...] = (
        (networks.NameEmail, lambda value: [value.name, value.email], lambda parts: networks.NameEmail(*parts)),
        (types.SecretStr, lambda value: value.get_secret_value(), types.SecretStr),
        (types.SecretBytes, lambda value: value.get_secret_value(), types.SecretBytes),
        (types.Secret, lambda value: value.get_secret_value(), types.Secret),
        (types.ByteSize, int, types.ByteSize),
    )
    for kind, encode, decode in others:
        register_built_in(value_type(kind, f"pydantic.{kind.__name__}", encode, decode))


def _register_pydantic_core() -> None:
    import pydantic_core  # noqa: PLC0415 - likewise

    for kind in (pydantic_core.Url, pydantic_core.MultiHostUrl):
        register_built_in(value_type(kind, f"pydantic_core.{kind.__name__}", str, kind))


def _register_msgspec() -> None:
    import msgspec  # noqa: PLC0415 - likewise

    register_built_in(value_type(msgspec.UnsetType, "msgspec.UNSET", lambda _: None, lambda _: msgspec.UNSET))
    register_built_in(value_type(msgspec.Raw, "msgspec.Raw", bytes, msgspec.Raw))


for kind, encode, decode in _STANDARD:
    register_built_in(value_type(kind, f"python.{kind.__name__}", encode, decode))
register_library("pydantic", _register_pydantic)
register_library("pydantic_core", _register_pydantic_core)
register_library("msgspec", _register_msgspec)
