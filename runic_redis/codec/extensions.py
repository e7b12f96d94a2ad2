"""MessagePack extension types of the data format: their codes, and the scalar types in both directions.

The codes are part of the data format, see docs/data-format.md.
"""

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import repeat, starmap
from operator import attrgetter
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import msgspec
from msgspec.msgpack import Ext

from runic_redis.errors import UnknownEventType
from runic_redis.events.standard import real_type, zone_by_key

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
_FOLD = "~"
_to_json = msgspec.json.Encoder().encode
_FOLD_OF, _TZINFO = attrgetter("fold"), attrgetter("tzinfo")
_ZONE = re.compile(r"\[([^\]]*)\]$")
_SIGNS = frozenset("+-")
_FRACTIONAL_OFFSET = re.compile(r"([+-])(\d\d):(\d\d):(\d\d)\.(\d{6})$")


def _big_int(value: int) -> tuple[int, bytes]:
    return BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _moment(code: int, value: dt.datetime | dt.time) -> tuple[int, bytes]:
    """Return the ISO form of a datetime or a time, with marks for its fold and its zone."""
    zone, text = value.tzinfo, value.isoformat() + _FOLD * value.fold
    if zone is None or type(zone) is dt.timezone:
        return code, text.encode()
    mark = _zone_mark(zone)
    # Without a date, a ZoneInfo gives no offset.
    if value.utcoffset() is None and not (mark and code == TIME):
        raise ValueError("its time zone gives no offset")
    return code, (text + mark).encode()


def _zone_mark(zone: dt.tzinfo) -> str:
    """Return the key of a zone in brackets, as RFC 9557 writes it after the offset."""
    if not isinstance(zone, ZoneInfo) or zone.key is None or zone_by_key(zone.key) is None:
        return ""
    return f"[{zone.key}]"


# The scalar types. An int arrives here only if it is too large for MessagePack.
SCALAR_ENCODERS: dict[type, Callable[[Any], tuple[int, bytes]]] = {
    int: _big_int,
    real_type(dt.datetime): partial(_moment, DATETIME),
    real_type(dt.date): lambda value: (DATE, value.isoformat().encode()),
    dt.time: partial(_moment, TIME),
    dt.timedelta: lambda value: (TIMEDELTA, msgpack.packb([value.days, value.seconds, value.microseconds])),
    Decimal: lambda value: (DECIMAL, str(value).encode()),
    UUID: lambda value: (UUID_, value.bytes),
}

# The types that msgspec writes in JSON as the encoder of the type does, but for the marks and the offset of a moment.
_WRITTEN: Mapping[type, int] = {
    real_type(dt.datetime): DATETIME,
    real_type(dt.date): DATE,
    dt.time: TIME,
    Decimal: DECIMAL,
}
_MOMENTS = frozenset({DATETIME, TIME})
# By identity, because another zone may equal one of these.
_SIMPLE_ZONES = frozenset({id(None), id(dt.UTC)})


def encode_scalars(kind: type, values: Sequence[Any]) -> list[Ext]:
    """Return the extensions of values of one scalar type, as the encoder of the type returns them, in less time."""
    code = _WRITTEN.get(kind)
    if code is None or (code in _MOMENTS and not _are_simple(values)):
        return list(starmap(Ext, map(SCALAR_ENCODERS[kind], values)))
    text = _to_json(values)[2:-2]
    if code in _MOMENTS:
        text = text.replace(b"Z", b"+00:00")
    return list(map(Ext, repeat(code), text.split(b'","')))


def _are_simple(moments: Sequence[Any]) -> bool:
    """Return whether all datetimes or times have no fold, and either no zone or UTC."""
    return _SIMPLE_ZONES.issuperset(map(id, map(_TZINFO, moments))) and not any(map(_FOLD_OF, moments))


def _decode_moment(parse: Callable[[str], Any], data: bytes) -> Any:
    """Return a datetime or a time from its ISO form and a mark for its fold."""
    text = data.decode("ascii")
    # Most have no zone, no fold, and no offset with a fraction of a second.
    if text[-1:].isdigit() and text[-16:-15] not in _SIGNS:
        return parse(text)
    named = _ZONE.search(text)
    if named is not None:
        moment = _decode_moment(parse, data[: named.start()])
        return _in_zone(moment, named[1])
    plain = text.rstrip(_FOLD)
    fold = len(text) - len(plain)
    offset = _FRACTIONAL_OFFSET.search(plain)
    if offset is None:
        return parse(plain).replace(fold=fold)
    # Python's own parser reads an offset of less than a second as UTC.
    sign = -1 if offset[1] == "-" else 1
    hours, minutes, seconds, microseconds = map(int, offset.groups()[1:])
    zone = dt.timezone(sign * dt.timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=microseconds))
    return parse(plain[: offset.start()]).replace(tzinfo=zone, fold=fold)


def _in_zone(moment: Any, key: str) -> Any:
    """Return a datetime or a time in a zone, or with its stored offset if the zone now has another offset."""
    zone = zone_by_key(key)
    if zone is None and moment.tzinfo is None:
        raise UnknownEventType(
            f"A stored time names the time zone {key!r:.80}, which this machine does not know. The data is unchanged. "
            "Install the package tzdata.",
            name="time",
            version=1,
        )
    there = moment.replace(tzinfo=zone)
    return there if there.utcoffset() == moment.utcoffset() else moment


def _decode_timedelta(data: bytes) -> dt.timedelta:
    days, seconds, microseconds = msgpack.unpackb(data)
    return dt.timedelta(days, seconds, microseconds)


# The methods, because freezegun also replaces the classes here.
_parse_datetime: Any = real_type(dt.datetime).fromisoformat  # type: ignore[attr-defined]
_parse_date: Any = real_type(dt.date).fromisoformat  # type: ignore[attr-defined]
SCALAR_DECODERS: Mapping[int, Callable[[bytes], Any]] = {
    BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    DATETIME: partial(_decode_moment, _parse_datetime),
    DATE: lambda data: _parse_date(data.decode("ascii")),
    TIME: partial(_decode_moment, dt.time.fromisoformat),
    TIMEDELTA: _decode_timedelta,
    DECIMAL: lambda data: Decimal(data.decode("ascii")),
    UUID_: lambda data: UUID(bytes=data),
}
_PARSERS: Mapping[int, Callable[[str], Any]] = {
    DATETIME: _parse_datetime,
    DATE: _parse_date,
    TIME: dt.time.fromisoformat,
    DECIMAL: Decimal,
}


def decode_scalars(code: int, parts: Sequence[bytes]) -> list[Any]:
    """Return the values of extensions of one scalar type, as the decoder of the type returns them, in less time."""
    parse = _PARSERS.get(code)
    if parse is not None:
        text = b"\n".join(parts).decode("ascii")
        texts = text.split("\n")
        is_moment = code in _MOMENTS
        if len(texts) == len(parts) and not (is_moment and _has_marks(text, texts)):
            return list(map(parse, texts))
    return list(map(SCALAR_DECODERS[code], parts))


def _has_marks(text: str, texts: Sequence[str]) -> bool:
    """Return whether a datetime or a time may have a fold, a zone, or an offset with a fraction of a second."""
    return _FOLD in text or "]" in text or not _SIGNS.isdisjoint([one[-16:-15] for one in texts])
