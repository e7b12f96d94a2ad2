"""Python values as MessagePack: the native types as they are, every other supported type as an extension.

Each value comes back as what it was, type by type: exact types only are accepted, so that no subclass is
silently turned into its base. Registered classes are kept as ``[schema, field value, …]``, where the schema is
an index into a table beside the value (in a stream entry), or the packed schema itself (in a document, which
must stand alone).

The extension codes are part of the data format, see docs/data-format.md.
"""

import datetime as dt
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from functools import partial
from itertools import chain
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack

from runic_redis.codec.explain import explain
from runic_redis.codec.limits import (
    FEW_ALIKE,
    MAX_DEPTH,
    MOST_PAIRS,
    SHORT_BYTES,
    AlikeKeys,
    TooDeepError,
    nested_allowed,
)
from runic_redis.errors import DecodeError, EncodeError, StoreError, UnknownEventType, reason
from runic_redis.events import (
    UNSET,
    EventRegistry,
    EventType,
    Fact,
    FactRef,
    Schema,
    UnknownEvent,
    real_type,
    taken_apart,
    zone_by_key,
)

__all__ = ["Builder", "ValueEncoder", "decode_value", "kinds_within", "parse_schema"]

BIG_INT = 1
TUPLE = 2
SET = 3
FROZENSET = 4
DATETIME = 5
DATE = 6
TIME = 7
TIMEDELTA = 8
DECIMAL = 9
UUID_ = 10
OBJECT = 11

# The first levels are decoded by `unpackb`, which is faster, and takes 45 KB of the thread's stack for each. Where that
# is a megabyte, all levels would overflow it.
_ON_THE_STACK = 8

Builder = Callable[[list[Any]], Any]
FindBuilder = Callable[[int | bytes], Builder]

_FOLD = "~"
_ZONE = re.compile(r"\[([^\]]*)\]$")
_BUFFER_BYTES = 16 * 1024


class ValueEncoder:
    """Encodes values; not for two threads at once.

    The canonical form of a value is the same however its dicts and sets were ordered.

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
        """The bytes of a value.

        Raises:
            EncodeError: some part of it, at a path that starts with `path`, cannot be kept.
        """
        self._depth = 0
        self._nested = 0
        try:
            packed = self.pack(value)
            self.check(packed)
            return packed
        except Exception as error:  # what a value raises when it is looked at is its own affair
            raise explain(value, path, self._registry, facts=self.holds_facts) or EncodeError(
                f"{path} cannot be encoded: {reason(error)}; nothing was sent.", path=path
            ) from error
        finally:
            self._wide = []

    def check(self, packed: bytes) -> None:
        """Reject what `decode_value` would reject.

        Raises:
            ValueError: the value nests too much data, or has too many keys of the same hash.
        """
        if self._nested <= SHORT_BYTES:
            return
        if self._nested > nested_allowed(packed):
            raise TooDeepError("it nests too much data; keep the inner part as a fact")
        # Counting takes longer than this bound, and few values have as many keys.
        if sum(len(keys) ** 2 for keys in self._wide) > MOST_PAIRS:
            alike = AlikeKeys()
            for keys in self._wide:
                alike.count(keys)

    def pack(self, value: Any) -> bytes:
        """The bytes of a value, by the packer of the present depth: a packer at work cannot be used again."""
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
        kind = type(value)
        if kind is list or kind is dict:
            kinds, _, wide = kinds_within(value)
            self._wide += wide
        else:
            kinds = {kind}
        if not kinds.isdisjoint(_IMPOSTORS):
            raise TypeError("a value is of a type that would come back as another")
        if bytearray in kinds:  # the packer takes it for bytes
            self._nested = before[0]
            del self._wide[before[1] :]
            return self.pack(_marked(value))
        return packed

    def schema_reference(self, schema: Schema) -> int | bytes:
        """How an object names its schema: here by the packed schema, since a document stands alone."""
        packed = self._schemas.get(schema)
        if packed is None:
            packed = self._schemas[schema] = msgpack.packb(schema)
        return packed

    def refer(self, value: Fact | FactRef) -> FactRef:
        """What stands for a fact."""
        raise TypeError(f"a {type(value).__name__} stands where none may")

    def apart(self, registered: EventType, instance: Any) -> tuple[Schema, Iterable[Any]]:
        """The schema and the values by which an instance of a registered class is written."""
        kind = registered.kind
        if registered.is_plain or (kind.held is not None and tuple(instance.__dict__) == kind.held):
            return registered.schema, kind.read(instance)
        schema, values = taken_apart(registered, instance)
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
        # By another encoder: what this one has gathered is not to know of the value.
        if self._probe is None:
            self._probe = _Probe(self._registry)
        try:
            self._probe.encode(value, "value")
        except EncodeError:
            return False
        return True

    def _extension(self, value: Any) -> msgpack.ExtType:
        """What stands for a value that MessagePack has no type for."""
        code, data = self._encode_extension(value)
        self._nested += len(data)
        return msgpack.ExtType(code, data)

    def _encode_extension(self, value: Any) -> tuple[int, bytes]:
        kind = type(value)
        encode = _SCALARS.get(kind)
        if encode is not None:
            return encode(value)
        if kind is tuple:
            return TUPLE, self.pack(list(value))
        if kind is set:
            return SET, self._pack_set(value)
        if kind is frozenset:
            return FROZENSET, self._pack_set(value)
        if kind is Fact or kind is FactRef:
            value = self.refer(value)
            kind = FactRef
        elif kind is _ByteArray:
            value, kind = value.value, bytearray
        registered = self._registry.of(kind)
        if registered is not None:
            schema, values = self.apart(registered, value)
        elif kind is UnknownEvent:
            schema, values = value.schema, value.fields.values()
        elif (encode := _SCALARS.get(real_type(kind))) is not None:
            return encode(value)
        else:
            raise TypeError(f"{kind.__name__} is not supported")
        return OBJECT, self.pack([self.schema_reference(schema), *values])

    def _pack_set(self, value: set[Any] | frozenset[Any]) -> bytes:
        if len(value) > FEW_ALIKE:
            self._wide.append(value)
        if not value:
            return self.pack([])  # which checks the depth, as packing an element does
        header: bytes = msgpack.Packer().pack_array_header(len(value))
        return header + b"".join(sorted(map(self.pack, value)))

    def _ordered(self, value: Any) -> Any:
        """The value with its dicts, and those in its lists, in the order of their keys' bytes."""
        if type(value) is dict:
            return {
                key: self._ordered(value[key]) if type(value[key]) in _ORDERED else value[key]
                for key in self._key_order(value)
            }
        if type(value) is list:
            return [self._ordered(item) if type(item) in _ORDERED else item for item in value]
        return value

    def _key_order(self, value: dict[Any, Any]) -> Iterable[Any]:
        """The keys of a dict in the order of their bytes."""
        keys = tuple(value)
        if any(type(key) is not str for key in keys):
            nested, wide = self._nested, len(self._wide)
            by_bytes = sorted(keys, key=self.pack)
            # The keys count where they are packed with the dict.
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
    """Finds out whether values can be encoded."""

    holds_facts = True

    def refer(self, value: Fact | FactRef) -> FactRef:
        if isinstance(value, FactRef):
            return value
        self.pack(value.value)
        return FactRef("of a value that can be encoded")


class _ByteArray:
    """A bytearray, for the packer, which would take it for bytes."""

    __slots__ = ("value",)

    def __init__(self, value: bytearray) -> None:
        self.value = value


def _marked(value: Any) -> Any:
    """A value with its bytearrays, and those in its lists and dicts, made known as such."""
    if type(value) is bytearray:
        return _ByteArray(value)
    if type(value) is list:
        return [_marked(item) for item in value]
    if type(value) is dict:
        return {key: _marked(item) for key, item in value.items()}
    return value


# What has an order to be made canonical.
_ORDERED = frozenset({dict, list})
# Of how many dicts the order of the keys is remembered, and how many keys such a dict has at most.
_REMEMBERED = 1024
_FEW_KEYS = 64

# What the packer takes, however strict, and would bring back as something else.
_IMPOSTORS = frozenset({memoryview, msgpack.ExtType, msgpack.Timestamp})


def kinds_within(packed: Any) -> tuple[set[type], int, list[dict[Any, Any]]]:
    """The types of all that a list or dict holds, how deep its lists and dicts nest, and the dicts with many keys.

    Level by level, so that almost all of it runs in C. Lists and dicts only: everything else that contains values goes
    through `ValueEncoder.pack` by itself. Only for what has been packed: it is no deeper or larger than that.
    """
    found: set[type] = {type(packed)}
    level: list[Any] = [packed, packed.values()] if type(packed) is dict else [packed] if type(packed) is list else []
    wide = [packed] if type(packed) is dict and len(packed) > FEW_ALIKE else []
    depth = 0
    while level:
        depth += 1
        kinds = set(map(type, chain.from_iterable(level)))
        found |= kinds
        if kinds == {list}:
            level = list(chain.from_iterable(level))
            continue
        deeper: list[Any] = []
        if list in kinds or dict in kinds:
            for part in chain.from_iterable(level):
                if type(part) is list:
                    deeper.append(part)
                elif type(part) is dict:
                    deeper += (part, part.values())
                    if len(part) > FEW_ALIKE:
                        wide.append(part)
        level = deeper
    return found, depth, wide


def _text_order(key: str) -> tuple[int, bytes]:
    """How packed strings are ordered: their length comes first."""
    text = key.encode()
    return len(text), text


def _big_int(value: int) -> tuple[int, bytes]:
    return BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _datetime(value: dt.datetime) -> tuple[int, bytes]:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise ValueError("its time zone gives no offset")
    return DATETIME, (value.isoformat() + _FOLD * value.fold + _zone_mark(value.tzinfo)).encode()


def _zone_mark(zone: dt.tzinfo | None) -> str:
    """The key of a zone, as RFC 9557 writes it behind the offset."""
    if not isinstance(zone, ZoneInfo) or zone.key is None or zone_by_key(zone.key) is None:
        return ""
    return f"[{zone.key}]"


def _time(value: dt.time) -> tuple[int, bytes]:
    mark = _zone_mark(value.tzinfo)
    if value.tzinfo is not None and value.utcoffset() is None and not mark:
        raise ValueError("its time zone gives no offset without a date")
    return TIME, (value.isoformat() + _FOLD * value.fold + mark).encode()


# The scalar types; an int reaches here only when it is too large for MessagePack.
_SCALARS: dict[type, Callable[[Any], tuple[int, bytes]]] = {
    int: _big_int,
    real_type(dt.datetime): _datetime,
    real_type(dt.date): lambda value: (DATE, value.isoformat().encode()),
    dt.time: _time,
    dt.timedelta: lambda value: (TIMEDELTA, msgpack.packb([value.days, value.seconds, value.microseconds])),
    Decimal: lambda value: (DECIMAL, str(value).encode()),
    UUID: lambda value: (UUID_, value.bytes),
}


def decode_value(data: bytes, find_builder: FindBuilder) -> Any:
    """The value that the bytes stand for.

    Raises:
        DecodeError: they stand for none.
        UnknownEventType: a class in it is not registered.
    """
    allowed = nested_allowed(data)
    try:
        if len(data) > SHORT_BYTES:
            # Looking at each dict takes twice the time. Almost all have keys of text only, or few extensions.
            try:
                return _unpack(data, _Decoding(find_builder, allowed, text_keys=True), 0)
            except ValueError:
                with suppress(ValueError):
                    return _unpack(data, _Decoding(find_builder, SHORT_BYTES), 0)
            return _unpack(data, _Decoding(find_builder, allowed, look=True), 0)
        return _unpack(data, _Decoding(find_builder, allowed), 0)
    except StoreError:
        raise
    except Exception as error:  # damaged bytes fail in many ways, and so may the classes that are given them
        raise DecodeError(f"a value is damaged: {reason(error)}") from error


class _Decoding:
    """What one value's decoding carries along.

    Args:
        find_builder: finds what rebuilds an object.
        nested_left: how many bytes of extensions it may hold.
        text_keys: whether to take no other keys than text and bytes.
        look: whether to look at the keys of each dict.
    """

    __slots__ = ("alike", "find_builder", "make_dict", "nested_left", "text_keys")

    def __init__(
        self, find_builder: FindBuilder, nested_left: int, *, text_keys: bool = False, look: bool = False
    ) -> None:
        self.find_builder = find_builder
        self.nested_left = nested_left
        self.alike = AlikeKeys()
        self.text_keys = text_keys
        self.make_dict = self._dict if look else None

    def _dict(self, items: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self.alike.count([key for key, _ in items])
        return dict(items)


def _unpack(data: bytes, decoding: _Decoding, depth: int) -> Any:
    if depth >= _ON_THE_STACK:
        return _unpack_deep(data, decoding, depth)
    # MessagePack's own timestamps, which we do not write, are datetimes.
    return msgpack.unpackb(
        data,
        strict_map_key=decoding.text_keys,
        timestamp=3,
        ext_hook=partial(_extended, decoding, depth),
        object_pairs_hook=decoding.make_dict,
    )


def _unpack_deep(data: bytes, decoding: _Decoding, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise TooDeepError(f"nested deeper than {MAX_DEPTH} levels")
    unpacker = msgpack.Unpacker(
        strict_map_key=decoding.text_keys,
        timestamp=3,
        ext_hook=partial(_extended, decoding, depth),
        object_pairs_hook=decoding.make_dict,
        read_size=len(data),
        max_buffer_size=len(data),
    )
    unpacker.feed(data)
    value = unpacker.unpack()
    if unpacker.tell() != len(data):
        raise ValueError("an extension holds more than one value")
    return value


def _extended(decoding: _Decoding, depth: int, code: int, data: bytes) -> Any:
    decoding.nested_left -= len(data)
    if decoding.nested_left < 0:
        raise TooDeepError("nests too much data")
    scalar = _SCALAR_DECODERS.get(code)
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


def _decode_moment(parse: Callable[[str], Any], data: bytes) -> Any:
    """A datetime or a time, from its ISO form and a mark for its fold."""
    text = data.decode("ascii")
    named = _ZONE.search(text)
    if named is not None:
        moment = _decode_moment(parse, data[: named.start()])
        return _in_zone(moment, named[1])
    plain = text.rstrip(_FOLD)
    fold = len(text) - len(plain)
    offset = _FRACTIONAL_OFFSET.search(plain)
    if offset is None:
        return parse(plain).replace(fold=fold)
    # Python's own parser takes an offset of less than a second for UTC.
    sign = -1 if offset[1] == "-" else 1
    hours, minutes, seconds, microseconds = map(int, offset.groups()[1:])
    zone = dt.timezone(sign * dt.timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=microseconds))
    return parse(plain[: offset.start()]).replace(tzinfo=zone, fold=fold)


def _in_zone(moment: Any, key: str) -> Any:
    """A datetime or a time in a zone; with the offset it was stored with, where the zone has another by now."""
    zone = zone_by_key(key)
    if zone is None and moment.tzinfo is None:
        raise UnknownEventType(
            f"A time is of the time zone {key!r:.80}, which this machine does not know. The data is unchanged. "
            "Install the package tzdata.",
            name="time",
            version=1,
        )
    there = moment.replace(tzinfo=zone)
    return there if there.utcoffset() == moment.utcoffset() else moment


_FRACTIONAL_OFFSET = re.compile(r"([+-])(\d\d):(\d\d):(\d\d)\.(\d{6})$")


def _decode_timedelta(data: bytes) -> dt.timedelta:
    days, seconds, microseconds = msgpack.unpackb(data)
    return dt.timedelta(days, seconds, microseconds)


# Their methods, since freezegun replaces the classes, here too.
_parse_datetime: Any = real_type(dt.datetime).fromisoformat  # type: ignore[attr-defined]
_parse_date: Any = real_type(dt.date).fromisoformat  # type: ignore[attr-defined]
_SCALAR_DECODERS: Mapping[int, Callable[[bytes], Any]] = {
    BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    DATETIME: partial(_decode_moment, _parse_datetime),
    DATE: lambda data: _parse_date(data.decode("ascii")),
    TIME: partial(_decode_moment, dt.time.fromisoformat),
    TIMEDELTA: _decode_timedelta,
    DECIMAL: lambda data: Decimal(data.decode("ascii")),
    UUID_: lambda data: UUID(bytes=data),
}


def parse_schema(packed: Any) -> Schema:
    """A schema as it stands in the data: ``[name, version, [field names]]``.

    Raises:
        ValueError: it is none.
    """
    match packed:
        case [str(name), int(version), [*fields]] if all(type(field) is str for field in fields):
            return Schema(name, version, tuple(fields))
    raise ValueError(f"{packed!r:.80} is not a schema")
