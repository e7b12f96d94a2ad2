"""Decode values, within the limits of `limits`."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgpack

from runic_redis.codec.extensions import FROZENSET, OBJECT, SCALAR_DECODERS, SET, TUPLE
from runic_redis.codec.limits import MAX_DEPTH, SHORT_BYTES, AlikeKeys, TooDeepError, nested_allowed
from runic_redis.errors import DecodeError, StoreError, reason
from runic_redis.events.event_types import Schema

# `unpackb` decodes the first levels: it is faster, but takes 45 KB of the thread's stack for each level. All levels
# would overflow a stack of one megabyte.
_ON_THE_STACK = 8
Builder = Callable[[list[Any]], Any]
FindBuilder = Callable[[int | bytes], Builder]


def decode_value(data: bytes, find_builder: FindBuilder) -> Any:
    """Return the value that the bytes encode.

    Raises:
        DecodeError: the bytes are damaged.
        UnknownEventType: a class in it is not registered.
    """
    allowed = nested_allowed(data)
    try:
        if len(data) > SHORT_BYTES:
            # Counting the keys of each dict doubles the time. Almost all dicts have text keys only, or few extensions.
            try:
                return _unpack(data, Decoding(find_builder, allowed, text_keys=True), 0)
            except ValueError:
                with suppress(ValueError):
                    return _unpack(data, Decoding(find_builder, SHORT_BYTES), 0)
            return _unpack(data, Decoding(find_builder, allowed, count_keys=True), 0)
        return _unpack(data, Decoding(find_builder, allowed), 0)
    except StoreError:
        raise
    except Exception as error:  # damaged bytes fail in many ways, and so do the classes that receive them
        raise DecodeError(f"a value is damaged: {reason(error)}") from error


class Decoding:
    """The state of decoding one value.

    Args:
        find_builder: returns the function that rebuilds an object.
        nested_left: how many bytes of extensions the value may hold.
        text_keys: reject keys other than text and bytes.
        count_keys: count the keys of each dict.
    """

    __slots__ = ("alike", "find_builder", "make_dict", "nested_left", "text_keys")

    def __init__(
        self, find_builder: FindBuilder, nested_left: int, *, text_keys: bool = False, count_keys: bool = False
    ) -> None:
        self.find_builder = find_builder
        self.nested_left = nested_left
        self.alike = AlikeKeys()
        self.text_keys = text_keys
        self.make_dict = self._dict if count_keys else None

    def _dict(self, items: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self.alike.count([key for key, _ in items])
        return dict(items)


def _unpack(data: bytes, decoding: Decoding, depth: int) -> Any:
    if depth >= _ON_THE_STACK:
        return _unpack_deep(data, decoding, depth)
    # MessagePack's own timestamps, which the encoder never writes, become datetimes.
    return msgpack.unpackb(
        data,
        strict_map_key=decoding.text_keys,
        timestamp=3,
        ext_hook=partial(extended, decoding, depth),
        object_pairs_hook=decoding.make_dict,
    )


def _unpack_deep(data: bytes, decoding: Decoding, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise TooDeepError(f"nested deeper than {MAX_DEPTH} levels")
    unpacker = msgpack.Unpacker(
        strict_map_key=decoding.text_keys,
        timestamp=3,
        ext_hook=partial(extended, decoding, depth),
        object_pairs_hook=decoding.make_dict,
        read_size=len(data),
        max_buffer_size=len(data),
    )
    unpacker.feed(data)
    value = unpacker.unpack()
    if unpacker.tell() != len(data):
        raise ValueError("an extension holds more than one value")
    return value


def extended(decoding: Decoding, depth: int, code: int, data: bytes) -> Any:
    """Return the value of an extension."""
    decoding.nested_left -= len(data)
    if decoding.nested_left < 0:
        raise TooDeepError("nests too much data")
    scalar = SCALAR_DECODERS.get(code)
    if scalar is not None:
        return scalar(data)
    if code not in {TUPLE, SET, FROZENSET, OBJECT}:
        raise ValueError(f"extension {code} is not one of ours")
    items = _unpack(data, decoding, depth + 1)
    if type(items) is not list:
        raise ValueError(f"extension {code} does not hold an array")
    if code == OBJECT:
        if not items:
            raise ValueError("an object names no schema")
        return decoding.find_builder(items[0])(items[1:])
    if code == TUPLE:
        return tuple(items)
    decoding.alike.count(items)
    return set(items) if code == SET else frozenset(items)


def parse_schema(packed: Any) -> Schema:
    """Return the schema of its stored form, ``[name, version, [field names]]``.

    Raises:
        ValueError: the form is not a schema.
    """
    match packed:
        case [str(name), int(version), [*fields]] if all(type(field) is str for field in fields):
            return Schema(name, version, tuple(fields))
    raise ValueError(f"{packed!r:.80} is not a schema")
