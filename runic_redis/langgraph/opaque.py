"""Serialized values that pass through without being decoded.

An import must not change a value. It may not even be able to decode it: the classes of the application are not there,
and LangGraph's serializer then returns something else. So only the structure of MessagePack is read, where a list is to
be cut into pieces. Extensions stay bytes.
"""

import json
from dataclasses import dataclass
from typing import Any

import msgpack

_TYPE = "msgpack"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A serialized value that stays as it is. It cannot be a part of another one."""

    type: str
    data: bytes


class OpaqueSerializer:
    """A serializer for `RunicSaver` that writes exactly the bytes that it has read."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Return the type and the bytes of a value, as LangGraph's serializer returns them."""
        if isinstance(obj, Sealed):
            return obj.type, obj.data
        if obj is None:
            return "null", b""
        if isinstance(obj, bytes):
            return "bytes", obj
        return _TYPE, _pack(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Return a value whose `dumps_typed` is the same. A list is a list; everything inside is opaque."""
        kind, raw = data
        if kind == "null":
            return None
        if kind == "bytes":
            return raw
        if kind == _TYPE:
            try:
                value = _unpack(raw)
                if _pack(value) == raw and not isinstance(value, bytes | None):
                    return list(value) if type(value) is tuple else value
            except (ValueError, TypeError, OverflowError, RecursionError):
                pass
        return Sealed(kind, raw)

    def parts(self, kind: str, raw: bytes) -> Any:
        """Return the structure of a serialized value.

        Raises:
            ValueError: it has none: it is encrypted, pickled, or damaged.
        """
        if kind == "json":
            return json.loads(raw)
        if kind != _TYPE:
            raise ValueError(f"it is serialized as {kind[:40]!r}, and cannot be split into its channels")
        try:
            return _unpack(raw)
        except (TypeError, OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from error

    def part(self, kind: str, value: Any) -> Any:
        """Return a part of such a structure as a value: what `loads_typed` would return for the part alone."""
        if kind == "json":
            return Sealed(kind, json.dumps(value).encode())
        return list(value) if type(value) is tuple else value


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, strict_types=False)
    return packed


def _unpack(raw: bytes) -> Any:
    # Tuples, as they may be keys. They are packed like lists.
    return msgpack.unpackb(raw, use_list=False, strict_map_key=False)
