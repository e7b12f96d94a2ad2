"""Encode Python values as MessagePack: native types as they are, every other supported type as an extension.

Each value comes back with its exact type. The encoder accepts exact types only, so that it never turns a subclass
into its base. An instance of a registered class becomes ``[schema, field value, …]``. In a stream entry, the schema is
an index into a table beside the value. In a document, which must stand alone, it is the packed schema itself.
"""

import sys
from collections.abc import Collection, Iterable
from gc import get_referents
from typing import Any

import msgpack

from runic_redis.codec.encode_errors import encode_error
from runic_redis.codec.extensions import FROZENSET, OBJECT, SCALAR_ENCODERS, SET, TUPLE
from runic_redis.codec.limits import FEW_ALIKE, MAX_DEPTH, SHORT_BYTES, TooDeepError, nested_allowed, reject_alike
from runic_redis.errors import EncodeError, reason
from runic_redis.events import EventRegistry, Fact, FactRef, UnknownEvent
from runic_redis.events.event_types import EventType, Schema, fields_of
from runic_redis.events.kinds import UNSET
from runic_redis.events.standard import real_type

_BUFFER_BYTES = 16 * 1024


class ValueEncoder:
    """An encoder of values. Only one thread may use it at a time.

    The canonical form of a value does not depend on the order of its dicts and sets.

    Attributes:
        holds_facts: whether values may hold facts.
    """

    holds_facts = False

    def __init__(self, registry: EventRegistry, *, canonical: bool = False) -> None:
        self._registry = registry
        self._canonical = canonical
        self._depth = 0
        self._nested = 0
        # The dicts and sets with more keys than `FEW_ALIKE`.
        self._wide: list[Collection[Any]] = []
        self._packers: list[msgpack.Packer] = []
        self._schemas: dict[Schema, bytes] = {}
        self._orders: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._probe: ValueEncoder | None = None

    def encode(self, value: Any, path: str) -> bytes:
        """Return the bytes of a value.

        Raises:
            EncodeError: a part of the value cannot be stored. The error's path starts with `path`.
        """
        self._depth = 0
        self._nested = 0
        try:
            packed = self.pack(value)
            self.reject_unreadable(packed)
            return packed
        except Exception as error:  # reading a value may raise anything
            raise encode_error(value, path, self._registry, facts=self.holds_facts) or EncodeError(
                f"{path} cannot be encoded: {reason(error)}; nothing was sent.", path=path
            ) from error
        finally:
            self._wide = []

    def reject_unreadable(self, packed: bytes) -> None:
        """Reject a value that `decode_value` would reject.

        Raises:
            ValueError: the value nests too much data, or has too many keys of the same hash.
        """
        if self._nested <= SHORT_BYTES:
            return
        if self._nested > nested_allowed(packed):
            raise TooDeepError("it nests too much data; store the inner part as a fact")
        reject_alike(self._wide)

    def pack(self, value: Any) -> bytes:
        """Return the bytes of a value."""
        # Each depth has its own packer, because a packer cannot be used while it works.
        depth = self._depth
        if depth == len(self._packers):
            if depth > MAX_DEPTH:
                raise TooDeepError(f"nested deeper than {MAX_DEPTH} levels")
            self._packers.append(msgpack.Packer(default=self._extension, strict_types=True, buf_size=_BUFFER_BYTES))
        ordered = self._ordered(value) if self._canonical else value
        before = self._nested, len(self._wide)
        self._depth = depth + 1
        try:
            packed: bytes = self._packers[depth].pack(ordered)
        finally:
            self._depth = depth
        kinds = _kinds_within(value, self._wide)
        if not kinds.isdisjoint(_IMPOSTORS):
            raise TypeError("a value is of a type that would come back as another")
        if bytearray in kinds:  # the packer treats it as bytes
            self._nested = before[0]
            del self._wide[before[1] :]
            return self.pack(_marked(value))
        return packed

    def schema_reference(self, schema: Schema) -> int | bytes:
        """Return the packed schema, by which an object in a document names its schema."""
        packed = self._schemas.get(schema)
        if packed is None:
            packed = self._schemas[schema] = msgpack.packb(schema)
        return packed

    def fact_reference(self, value: Fact | FactRef) -> FactRef:
        """Return the reference that is stored in place of a fact."""
        raise TypeError(f"a {type(value).__name__} is not allowed here")

    def fields_to_write(self, registered: EventType, instance: Any) -> tuple[Schema, Iterable[Any]]:
        """Return the schema and the values to store for an instance, without the optional fields that are left out."""
        kind = registered.kind
        if registered.is_plain or (kind.held is not None and tuple(instance.__dict__) == kind.held):
            return registered.schema, kind.read(instance)
        schema, values = fields_of(registered, instance)
        if kind.optional:
            left_out = {
                name
                for name, value in zip(schema.fields, values, strict=True)
                if value is UNSET or (kind.may_leave_out(name) and not self._can_encode(value))
            }
            if left_out:
                values = [value for name, value in zip(schema.fields, values, strict=True) if name not in left_out]
                schema = schema._replace(fields=tuple(name for name in schema.fields if name not in left_out))
        return schema, values

    def _can_encode(self, value: Any) -> bool:
        # Another encoder tries it, so that the value does not count towards this encoder's limits.
        if self._probe is None:
            self._probe = _Probe(self._registry)
        try:
            self._probe.encode(value, "value")
        except EncodeError:
            return False
        return True

    def _extension(self, value: Any) -> msgpack.ExtType:
        """Return the extension for a value that MessagePack has no type for."""
        code, data = self._encode_extension(value)
        self._nested += len(data)
        return msgpack.ExtType(code, data)

    def _encode_extension(self, value: Any) -> tuple[int, bytes]:
        kind = type(value)
        encode = SCALAR_ENCODERS.get(kind)
        if encode is not None:
            return encode(value)
        if kind is tuple:
            return TUPLE, self.pack(list(value))
        if kind is set:
            return SET, self._pack_set(value)
        if kind is frozenset:
            return FROZENSET, self._pack_set(value)
        if kind is Fact or kind is FactRef:
            value = self.fact_reference(value)
            kind = FactRef
        elif kind is _ByteArray:
            value, kind = value.value, bytearray
        registered = self._registry.of(kind)
        if registered is not None:
            schema, values = self.fields_to_write(registered, value)
        elif kind is UnknownEvent:
            schema, values = value.schema, value.fields.values()
        elif (encode := SCALAR_ENCODERS.get(real_type(kind))) is not None:
            return encode(value)
        else:
            raise TypeError(f"{kind.__name__} is not supported")
        return OBJECT, self.pack([self.schema_reference(schema), *values])

    def _pack_set(self, value: set[Any] | frozenset[Any]) -> bytes:
        if len(value) > FEW_ALIKE:
            self._wide.append(value)
        if not value:
            return self.pack([])  # checks the depth, as packing an element does
        header: bytes = msgpack.Packer().pack_array_header(len(value))
        return header + b"".join(sorted(map(self.pack, value)))

    def _ordered(self, value: Any) -> Any:
        """Return the value with its dicts, and the dicts in its lists, sorted by the bytes of their keys."""
        if type(value) is dict:
            return {
                key: self._ordered(value[key]) if type(value[key]) in _ORDERED else value[key]
                for key in self._key_order(value)
            }
        if type(value) is list:
            return [self._ordered(item) if type(item) in _ORDERED else item for item in value]
        return value

    def _key_order(self, value: dict[Any, Any]) -> Iterable[Any]:
        """Return the keys of a dict, sorted by their bytes."""
        keys = tuple(value)
        if any(type(key) is not str for key in keys):
            nested, wide = self._nested, len(self._wide)
            by_bytes = sorted(keys, key=self.pack)
            # The keys count later, when they are packed with the dict.
            self._nested = nested
            del self._wide[wide:]
            return by_bytes
        # Many dicts have the same keys.
        ordered = self._orders.get(keys)
        if ordered is None:
            ordered = tuple(sorted(keys, key=_text_order))
            if len(keys) <= _FEW_KEYS:
                if len(self._orders) >= _REMEMBERED:
                    self._orders.clear()
                self._orders[keys] = ordered
        return ordered


class _Probe(ValueEncoder):
    """An encoder that only finds out whether values can be encoded."""

    holds_facts = True

    def fact_reference(self, value: Fact | FactRef) -> FactRef:
        if isinstance(value, FactRef):
            return value
        self.pack(value.value)
        return FactRef("of a value that can be encoded")


class _ByteArray:
    """A bytearray, wrapped because the packer would treat it as bytes."""

    __slots__ = ("value",)

    def __init__(self, value: bytearray) -> None:
        self.value = value


def _marked(value: Any) -> Any:
    """Return a value with its bytearrays, and those in its lists and dicts, wrapped."""
    if type(value) is bytearray:
        return _ByteArray(value)
    if type(value) is list:
        return [_marked(item) for item in value]
    if type(value) is dict:
        return {key: _marked(item) for key, item in value.items()}
    return value


# The types whose items are sorted for the canonical form.
_ORDERED = frozenset({dict, list})
# Remember the key order of this many dicts, of at most this many keys each.
_REMEMBERED = 1024
_FEW_KEYS = 64
# Types that the packer accepts even if it is strict, and that would come back as other types.
_IMPOSTORS = frozenset({memoryview, msgpack.ExtType, msgpack.Timestamp})


def _kinds_within(value: Any, wide: list[Collection[Any]]) -> set[type]:
    """Return the types within a packed value, and add its dicts with many keys to `wide`.

    It enters lists and dicts only: every other container goes through `ValueEncoder.pack` separately. Almost all of it
    runs in C, because it takes the lists, and the dicts, of one level together. Pass packed values only, because
    packing bounds their depth and size.
    """
    found: set[type] = set()
    level: Collection[Any] = value if type(value) is list else [value]
    while level:
        kinds = set(map(type, level))
        found |= kinds
        if dict in kinds:
            wide += [keys for keys in level if type(keys) is dict and len(keys) > FEW_ALIKE]
        level = contents([each for each in level if type(each) in _ORDERED]) if kinds & _ORDERED else ()
    return found


def contents(values: Collection[Any]) -> list[Any]:
    """Return the items of lists, the values of dicts, and at least the keys that are not exactly of type str.

    Other native values hold nothing. The garbage collector gives the same in C, in a third of the time that iterating
    takes. It passes over the keys of a dict only if all are exactly of type str. Since Python 3.13 it also passes over
    values that an instance shares with its `__dict__`, so the copies are asked.
    """
    if sys.version_info >= (3, 13):
        values = [value.copy() if type(value) is dict else value for value in values]
    return get_referents(*values)


def _text_order(key: str) -> tuple[int, bytes]:
    """Return the sort key of packed strings: their length comes first."""
    text = key.encode()
    return len(text), text
