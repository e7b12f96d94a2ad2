"""Values cut to what a page shows. The time that this takes does not grow with the value."""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from runic_redis.events import UnknownEvent, bare_registry, parts_of
from runic_redis.events.plain import event_text, event_type, value_text

SUMMARY = 240
# The characters that a part of a value adds to its text in JSON, roughly, without and per level of indentation.
_PART = 4
_INDENT = 2
# The characters of a date, a UUID and the like, roughly.
_SCALAR = 20
_SHORT = frozenset({type(None), bool, float, list, dict, tuple, set, frozenset})


def json_size(value: Any, most: int) -> int:
    """Return roughly how many characters a value takes as indented JSON; counting stops above `most`."""
    size = 0
    stack = [(value, 0)]
    while stack and size <= most:
        part, depth = stack.pop()
        parts = list(parts_of(part, bare_registry))
        size += _PART + _INDENT * depth + _text_size(part)
        if size + len(parts) * (_PART + _INDENT * depth) > most:
            return most + 1
        stack.extend((inner, depth + 1) for inner in parts)
    return size


def _text_size(value: Any) -> int:
    kind = type(value)
    if kind in {str, bytes}:
        return len(value)
    if kind is int:
        return int(value.bit_length()) // 4
    if kind is Decimal:
        return len(str(value))
    if kind is UnknownEvent:
        return len(value.name) + sum(map(len, value.fields))
    return 0 if kind in _SHORT else _SCALAR


def short(text: str, length: int = SUMMARY) -> str:
    """Return the beginning of a text."""
    return text if len(text) <= length else text[: length - 1] + "…"


def short_event(event: Any, length: int = SUMMARY) -> str:
    """Return the beginning of an event's fields as a line."""
    return short(event_text(_Prefix(length).of(event)), length)


def short_value(value: Any, length: int = SUMMARY) -> str:
    """Return the beginning of a value as a line."""
    return short(value_text(_Prefix(length).of(value)), length)


def short_type(event: Any) -> str:
    """Return the beginning of the name of an event's type."""
    return short(event_type(event))


class _Prefix:
    """A copier of the parts that make up the first characters of a value's text.

    Each part takes at least one character, so the copy has about `length` parts at most.
    """

    def __init__(self, length: int) -> None:
        self._length = length + 1
        self._left = length + 1

    def of(self, value: Any) -> Any:
        self._left -= 1
        kind = type(value)
        if kind in {str, bytes}:
            return value[: self._length]
        if kind is int:
            # A long int fills the line by itself, and writing it takes long.
            self._left -= value.bit_length() // 4
        if kind in {list, tuple, set, frozenset}:
            return kind(self.of(part) for part in self._some(value))
        if kind is dict:
            return {self.of(key): self.of(part) for key, part in self._some(value.items())}
        if kind is UnknownEvent:
            fields = {name[: self._length]: self.of(part) for name, part in self._some(value.fields.items())}
            return UnknownEvent(value.name[: self._length], value.version, fields)
        return value

    def _some(self, parts: Iterable[Any]) -> Iterator[Any]:
        for part in parts:
            if self._left <= 0:
                return
            yield part
