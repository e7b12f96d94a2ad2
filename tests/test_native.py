"""The rows that msgspec reads and writes: the same bytes, the same values, the same errors as with msgpack."""

import datetime as dt
import sys
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple
from unittest.mock import Mock
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runic_redis.codec import Codec, Entry, entry_decoder, entry_encoder, schemas
from runic_redis.codec.compression import decompress
from runic_redis.codec.extensions import SCALAR_ENCODERS, encode_scalars
from runic_redis.codec.native import BYTES, EXTENSIONS, VALUES, _row_reader, containers, row_reader, write_rows
from runic_redis.errors import DecodeError, EncodeError, StoreError
from runic_redis.events import EventRegistry, default_registry
from tests.codecs import MsgpackCodec
from tests.strategies import Colour, FrozenSlotted, Pair, Plain, Struct, events, same, scalars, values
from tests.test_codec import GOLDEN, damaged_forms, golden_commits

by_msgspec = Codec(default_registry, "raise")
by_msgpack = MsgpackCodec(default_registry, "raise")

natives = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.floats(width=32)
    | st.text(max_size=40)
    | st.binary(max_size=40),
    lambda children: (
        st.lists(children, max_size=6)
        | st.dictionaries(st.text(max_size=3) | st.integers(-300, 300) | st.binary(max_size=3), children, max_size=6)
    ),
    max_leaves=10,
)
# Events of one class, which msgspec decodes directly, and of several classes, which it does not.
one_class = [
    st.builds(Pair, values, natives),
    *(st.builds(cls, natives, natives) for cls in (Plain, FrozenSlotted, Struct)),
]
commits = st.one_of(*(st.lists(one, min_size=1, max_size=6) for one in (*one_class, events)))


def outcome(run: Any, *arguments: Any) -> Any:
    """Return the result of a call, or the type of its error."""
    try:
        return run(*arguments)
    except StoreError as error:
        return type(error)


@given(commits)
def test_the_same_bytes_are_written_and_the_same_values_read(commit: list[Any]) -> None:
    entries, log = by_msgpack.encode_commit(commit), by_msgpack.encode_log(commit)
    assert by_msgspec.encode_commit(commit) == entries
    assert by_msgspec.encode_log(commit) == log
    for entry in entries:
        read = by_msgspec.decode_entry(entry.header, entry.payload)
        assert same(read, by_msgpack.decode_entry(entry.header, entry.payload))
    assert same(by_msgspec.decode_log(log), commit)


BOUNDS = [
    *(sign * (2**bits) + one for bits in (5, 7, 8, 15, 16, 31, 32, 63, 64) for sign in (1, -1) for one in (-1, 0, 1)),
    *(make(size) for make in ("x".__mul__, "ü".__mul__, bytes) for size in (15, 16, 31, 32, 255, 256, 65535, 65536)),
    *([0] * size for size in (15, 16, 65535, 65536)),
    *(dict.fromkeys(range(size)) for size in (15, 16, 65535, 65536)),
    *({key: 1} for key in (None, True, 1.5, -0.0, "ü", b"x", 2**64 - 1, 2**64, (1, "a"))),
    *(0.0, -0.0, float("inf"), float("nan"), 5e-324, 1e22, 3.0),
]


@pytest.mark.parametrize("value", BOUNDS, ids=lambda value: f"{value!r:.20}")
def test_bounds_of_the_format_are_written_and_read_alike(value: Any) -> None:
    commit = [Plain(value, [value])]
    (entry,) = by_msgpack.encode_commit(commit)
    assert by_msgspec.encode_commit(commit) == [entry]
    assert same(by_msgspec.decode_entry(entry.header, entry.payload), commit)


@pytest.mark.parametrize("count", [15, 16])
@pytest.mark.parametrize("event", [{}, Plain(1, "x")], ids=["dict", "object"])
def test_any_number_of_events_is_written_and_read_alike(event: Any, count: int) -> None:
    commit = [event] * count
    (entry,) = by_msgpack.encode_commit(commit)
    assert by_msgspec.encode_commit(commit) == [entry]
    assert by_msgspec.decode_entry(entry.header, entry.payload) == commit


class Text(str):
    __slots__ = ()


class Hue(StrEnum):
    RED = "k"


class Foreign(msgspec.Struct):
    value: int


@dataclass
class ForeignDataclass:
    value: int


class ForeignTuple(NamedTuple):
    value: int


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.extend([value] * 1000)
    return value


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"k": value}
    return value


UNSUPPORTED = [
    Text("x"),
    Foreign(1),
    ForeignDataclass(1),
    ForeignTuple(1),
    memoryview(b"x"),
    msgpack.ExtType(1, b"x"),
    msgpack.Timestamp(1),
    msgspec.msgpack.Ext(2, b"\x90"),
    "\ud800",
    cyclic(),
    nested(5000),
]


@pytest.mark.parametrize("value", UNSUPPORTED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [1, {"k": [value]}]], ids=["bare", "inside"])
@pytest.mark.parametrize("before", [1, 20])
@pytest.mark.parametrize("cls", [Plain, FrozenSlotted, Struct])
def test_the_same_values_are_refused(value: Any, wrap: Any, before: int, cls: Any) -> None:
    problems = []
    for codec in (by_msgspec, by_msgpack):
        with pytest.raises(EncodeError) as caught:
            codec.encode_commit([cls(0, [{"k": [0]}])] * before + [cls(1, wrap(value))])
        problems.append((str(caught.value), caught.value.path))
    assert problems[0] == problems[1]
    assert f"events[{before}].other" in problems[0][1]


@pytest.mark.parametrize("key", [Text("k"), Hue.RED, memoryview(b"k"), msgpack.ExtType(1, b"k"), ForeignTuple(1)])
def test_a_key_that_equals_a_supported_one_is_refused(key: Any) -> None:
    for codec in (by_msgspec, by_msgpack):
        with pytest.raises(EncodeError):
            codec.encode_commit([Plain({"k": 0, b"k": 0, (1, b"k"): 0, (1,): 0})] * 20 + [Plain({key: 0})])


@pytest.mark.parametrize("value", [bytearray(b"x"), (1,), dt.date(2026, 1, 2), Colour.RED, Pair(1), {1}, 2**64])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [1, {"k": [value]}]], ids=["bare", "inside"])
def test_one_value_among_many_of_another_type_comes_back(value: Any, wrap: Any) -> None:
    commit = [*[FrozenSlotted(b"x", [1, {"k": [b"x"]}])] * 20, FrozenSlotted(b"x", wrap(value))]
    (entry,) = by_msgspec.encode_commit(commit)
    assert same(by_msgspec.decode_entry(entry.header, entry.payload), commit)
    assert by_msgpack.encode_commit(commit) == [entry]


def test_every_value_and_key_of_a_dict_comes_back() -> None:
    class Instance:
        def __init__(self) -> None:
            self.number, self.buffer = 1, bytearray(b"x")

    for value in (vars(Instance()), {2: bytearray(b"x")}, {(1,): None}):
        (entry,) = by_msgspec.encode_commit([{"k": value}])
        assert same(by_msgspec.decode_entry(entry.header, entry.payload), [{"k": value}])


def test_fields_of_any_name_are_read() -> None:
    registry = EventRegistry()
    names = ["ﬁ", "größe", "class", "_own"]
    cls = registry.event("odd")(msgspec.defstruct("Odd", names))
    commit = [cls(*range(number, number + 4)) for number in range(20)]
    codec = Codec(registry, "raise")
    (entry,) = codec.encode_commit(commit)
    assert codec.decode_entry(entry.header, entry.payload) == commit


def test_events_of_several_classes_keep_their_order() -> None:
    commit = [
        [Plain(number), FrozenSlotted(number), {"k": number}, Struct(number)][number % 7 % 4] for number in range(50)
    ]
    (entry,) = by_msgspec.encode_commit(commit)
    assert by_msgpack.encode_commit(commit) == [entry]
    assert same(by_msgspec.decode_entry(entry.header, entry.payload), commit)


def test_named_tuples_of_another_length_are_written_alike() -> None:
    odd = tuple.__new__(Pair, (1, 2, 3))
    for commit in ([odd], [Pair(1), odd], [Pair(1), odd, {}]):
        assert same(outcome(by_msgspec.encode_commit, commit), outcome(by_msgpack.encode_commit, commit))


@pytest.mark.parametrize("levels", [1, 50, 98, 99, 100, 101, 500])
def test_deep_values_are_written_and_read_alike(levels: int) -> None:
    commit = [{"value": nested(levels)}]
    (entry,) = by_msgpack.encode_commit(commit)
    assert by_msgspec.encode_commit(commit) == [entry]
    assert by_msgspec.decode_entry(entry.header, entry.payload) == commit


def test_values_too_deep_for_msgpack_are_refused_though_msgspec_could_go_deeper() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        for codec in (by_msgspec, by_msgpack):
            with pytest.raises(EncodeError):
                codec.encode_commit([{"value": nested(2000)}])
    finally:
        sys.setrecursionlimit(limit)


@given(st.data())
def test_damaged_entries_are_read_alike(data: st.DataObject) -> None:
    (entry,) = by_msgpack.encode_commit(data.draw(commits))
    header = data.draw(st.just(entry.header) | damaged_forms(entry.header))
    plain = b"\x00" + decompress(entry.payload)
    payload = data.draw(damaged_forms(plain) | damaged_forms(entry.payload))
    assert same(outcome(by_msgspec.decode_entry, header, payload), outcome(by_msgpack.decode_entry, header, payload))


# Valid MessagePack that no writer here makes: arrays as keys, timestamps, invalid indexes.
foreign = st.recursive(
    scalars.filter(lambda value: type(value) in {int, float, str, bytes, bool, type(None)} and value != 2**70)
    | st.builds(msgpack.Timestamp, st.integers(-(2**34), 2**60), st.integers(0, 10**9 - 1))
    | st.builds(msgpack.ExtType, st.integers(0, 12), st.binary(max_size=5)),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.integers() | st.text() | st.tuples(st.integers()), children, max_size=3)
    ),
    max_leaves=6,
)
indexes = st.sampled_from([0, 0, 0, 0, 1, -1, True, False, None, "0", 0.0, b"\x00"])
# Rows of one schema, and rows that begin with the index of theirs.
plain_rows = st.lists(st.tuples(foreign, foreign) | st.tuples(foreign) | foreign, max_size=4)
indexed_rows = st.lists(st.tuples(indexes, foreign, foreign) | st.tuples(indexes, foreign) | foreign, max_size=4)
ONE_OF_EACH = [Plain(1, 2), Struct(1, 2), Pair(1, 2), {}]


def packed(value: Any) -> bytes:
    return msgpack.packb(value, default=lambda big: msgpack.ExtType(1, str(big).encode()))


def read_alike(header: bytes, rows: Any) -> None:
    """Assert that both codecs read rows alike, before and after they have learned from them."""
    try:
        payload = b"\x00" + packed(rows)
    except (OverflowError, ValueError):
        return
    for _ in range(2):
        by_both = [outcome(codec.decode_entry, header, payload) for codec in (by_msgspec, by_msgpack)]
        assert same(*by_both)


@given(st.sampled_from(ONE_OF_EACH), plain_rows)
@example(Plain(1, 2), [[{(1,): 2}, 0]])
@example(Plain(1, 2), [[msgpack.Timestamp(5, 6999), 0]])
@example(Plain(1, 2), [[[[msgpack.Timestamp(-5, 6999)]], 0]])
@example(Plain(1, 2), [[0, 1, 2]])
@example(Struct(1, 2), [[1]])
@example(Struct(1, 2), [[1, 2], [1]])
@example(Struct(1, 2), [[1, 2, 3]])
@example(Struct(1, 2), [[b"x", 2, 3]])
@example(Pair(1, 2), [[b"x"]])
@example(Struct(1, 2), [b"\x01\x02"])
@example({}, [[0, {}]])
def test_foreign_rows_are_read_alike(event: Any, rows: Any) -> None:
    read_alike(by_msgpack.encode_commit([event])[0].header, rows)


@given(indexed_rows)
@example([[0, {(1,): 2}, 0]])
@example([[0, msgpack.Timestamp(5, 6999), 0], [3, {}]])
@example([[1, 1]])
@example([[1, 1, 2], [1, 1]])
@example([[1, 1, 2, 3]])
@example([[4, 1, 2]])
@example([b"\x00\x01\x02"])
@example([[True, 1, 2]])
@example([[{}]])
def test_foreign_rows_with_indexes_are_read_alike(rows: Any) -> None:
    read_alike(by_msgpack.encode_commit(ONE_OF_EACH)[0].header, rows)


@pytest.mark.parametrize("event", ONE_OF_EACH)
@pytest.mark.parametrize("rows", [[[0, 1, 2]], [[0, {}]], [[0, 1, 2]] * 20, [[0, 1, 2], [0, 1]], [[1, 2]], [[{}]], []])
def test_rows_of_the_only_schema_with_an_index_are_read_alike(event: Any, rows: Any) -> None:
    schemas = msgpack.unpackb(by_msgpack.encode_commit([event])[0].header)
    read_alike(msgpack.packb([None, *schemas]), rows)


@pytest.mark.parametrize("commit", [[Plain(1, 2)], [Plain(1, 2), {}]], ids=["plain", "indexed"])
@pytest.mark.parametrize(
    "rows",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\x91\x92\xdd\xff\xff\xff\xff\x01",
        b"\x91\x93\x00\xdd\xff\xff\xff\xff\x01",
        b"\x91" * 100_000,
    ],
)
def test_rows_that_claim_too_much_are_refused(rows: bytes, commit: list[Any]) -> None:
    header = by_msgpack.encode_commit(commit)[0].header
    for codec in (by_msgspec, by_msgpack):
        with pytest.raises(DecodeError):
            codec.decode_entry(header, b"\x00" + rows)


@pytest.mark.parametrize("codec", [by_msgspec, by_msgpack], ids=["msgspec", "msgpack"])
@pytest.mark.parametrize("name", list(golden_commits()))
def test_golden_bytes_are_read_and_written_by_both(codec: Codec, name: str) -> None:
    kept = msgspec.json.decode((GOLDEN / f"format-2-{name}.json").read_bytes())
    decoded = codec.decode_entry(bytes.fromhex(kept["header"]), bytes.fromhex(kept["payload"]))
    assert same(decoded, golden_commits()[name])
    (entry,) = codec.encode_commit(golden_commits()[name])
    assert entry.header.hex() == kept["header"]
    assert decompress(entry.payload) == decompress(bytes.fromhex(kept["payload"]))


def test_nothing_is_converted_to_what_a_field_is_annotated_with() -> None:
    registry = EventRegistry()

    @registry.event("typed")
    class Typed(msgspec.Struct):
        number: float
        text: str
        at: dt.datetime | None

    commit = [Typed(1, 5, "2026-01-02T03:04:05"), Typed("x", None, 1.0), Typed(True, [1], {"a": [2.0]})]  # type: ignore[arg-type]
    codec = Codec(registry, "raise")
    (entry,) = codec.encode_commit(commit)
    assert same(codec.decode_entry(entry.header, entry.payload), commit)


def test_what_msgspec_takes_over_and_what_it_leaves() -> None:
    values, with_bytes, dated = (row_reader(None, (VALUES, form)) for form in (VALUES, BYTES, EXTENSIONS))
    numbered = row_reader(5, (VALUES, EXTENSIONS))
    assert values is not None
    assert with_bytes is not None
    assert dated is not None
    assert numbered is not None
    for rows in ([[1, "x"], [None, -0.0]], [[[1, {"k": True}], {"k": [1.5]}]]):
        for reader in (values, dated):
            assert reader.many(msgpack.packb(rows)) == [tuple(row) for row in rows]
            assert [reader.one(msgpack.packb(row)) for row in rows] == [tuple(row) for row in rows]
        assert numbered.many(msgpack.packb([[5, *row] for row in rows])) == [(5, *row) for row in rows]
        assert write_rows(rows, containers(rows) or ()) == msgpack.packb(rows)
    for rows in ([[1, b"x"], ["x", None], [[1.5], 2**64 - 1]],):
        assert with_bytes.many(msgpack.packb(rows)) == [tuple(row) for row in rows]
    ((one, found),) = dated.many(msgpack.packb([[1, msgpack.ExtType(5, b"x")]]))
    assert (one, found.code, found.data, dated.extended, numbered.extended) == (1, 5, b"x", (1,), (2,))
    for reader, left in [
        *((with_bytes, rows) for rows in ([[1, "x"]], [[b"x", b"x"]], [[1, [b"x"]]])),
        *((values, rows) for rows in ([[1, b"x"]], [[1]], [[1, 1, 2]], [[1, {1: 2}]], [5])),
        (values, [[1, msgpack.Timestamp(1)]]),
        (dated, [[1, [msgpack.ExtType(5, b"x")]]]),
        *((numbered, rows) for rows in ([[1, 2]], [[4, 1, 2]], [[5, 1]])),
    ]:
        with pytest.raises(msgspec.DecodeError):
            reader.many(msgpack.packb(left))
    for left in ([[(1,)]], [[dt.date(2026, 1, 2)]]):
        assert containers(left) is None
        assert containers([*left, [1]] * 20) is None
    for left in ([[{"k": [Text("x")]}]], [[{Text("k"): 1}]], [[{"k": 2**64}]], [[[dt.date(2026, 1, 2)]]]):
        for rows in (left, [*left, [1]], [*left, [1]] * 20):
            assert write_rows(rows, containers(rows) or ()) is None
    assert write_rows([[2**64]], ()) is None
    wide = [[dict.fromkeys(range(65))]]
    assert write_rows(wide, containers(wide) or ()) == msgpack.packb(wide)
    assert write_rows(wide, containers(wide) or (), narrow=True) is None
    kept = _row_reader.cache_info().currsize
    assert row_reader(None, (VALUES,) * 1000) is None
    assert _row_reader.cache_info().currsize == kept


BERLIN, FOLDED = ZoneInfo("Europe/Berlin"), dt.datetime(2026, 10, 25, 2, 30, fold=1)
SHORT_OFFSET = dt.timezone(dt.timedelta(microseconds=1))
MOMENTS: list[Any] = [
    *(FOLDED.replace(tzinfo=zone, microsecond=6) for zone in (None, dt.UTC, BERLIN, SHORT_OFFSET)),
    *(dt.datetime(2026, 1, 2, 3, 4, 5, 678, zone) for zone in (None, dt.UTC, BERLIN, SHORT_OFFSET)),
    *(dt.time(3, 4, 5, 678, zone, fold=fold) for zone in (None, dt.UTC, SHORT_OFFSET) for fold in (0, 1)),
]
EXTENDED: list[list[Any]] = [
    *([moment] for moment in MOMENTS),
    MOMENTS,
    [dt.date(2026, 1, 2), dt.timedelta(1, 2, 3), UUID(int=5), 2**70, Decimal("NaN"), Decimal("-0.00")],
    [Decimal(1), Decimal("1.50"), Decimal("Infinity")],
    [None, 1, "x", [1], {"k": 1}, dt.date(2026, 1, 2), dt.datetime(2026, 1, 2)],
    [(1, "x"), (), {1, 2}, frozenset({"x"}), Colour.RED],
    [Plain(1), Plain(b"x", dt.date(2026, 1, 2)), Plain(None, Plain([1]))],
    [Plain(1), Pair(1, 2), None],
    [Plain(Pair(Plain(Pair(Plain(Pair(Plain(1)))))))],
]


@pytest.mark.parametrize("column", EXTENDED, ids=lambda column: f"{column!r:.50}")
@pytest.mark.parametrize("cls", [FrozenSlotted, Struct, Pair])
def test_extensions_in_fields_are_read_alike(cls: Any, column: list[Any]) -> None:
    codec = Codec(default_registry, "raise")
    for times in (1, 4):  # few rows are restored one by one
        commit = [cls(value, 1) for value in column * times]
        (entry,) = codec.encode_commit(commit)
        for _ in range(4):  # the reader learns the forms of the fields, level by level
            assert same(codec.decode_entry(entry.header, entry.payload), commit)


def test_extensions_and_objects_in_fields_are_left_to_msgpack_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec(default_registry, "raise")
    commit = [FrozenSlotted(None, Pair(b"x", dt.date(2026, 1, day))) for day in range(1, 9)]
    commit.append(FrozenSlotted(Decimal(1), Pair(b"y", None)))
    (entry,) = codec.encode_commit(commit)
    for _ in range(2):
        assert codec.decode_entry(entry.header, entry.payload) == commit
    left = Mock(side_effect=AssertionError("left to msgpack"))
    monkeypatch.setattr(entry_decoder, "decode_value", left)
    monkeypatch.setattr(schemas, "extended", left)
    assert same(codec.decode_entry(entry.header, entry.payload), commit)


zones = st.none() | st.sampled_from([dt.UTC, BERLIN, SHORT_OFFSET, dt.timezone(dt.timedelta(hours=2))])
# The values of a field: of one type, or some of them None.
of_one_type: list[st.SearchStrategy[Any]] = [
    *(st.datetimes(), st.datetimes(timezones=st.just(dt.UTC)), st.datetimes(timezones=zones, allow_imaginary=False)),
    *(st.dates(), st.times(), st.times(timezones=zones), st.timedeltas(), st.decimals(), st.uuids(), natives),
]
inner = [st.builds(Pair, values, values) for values in of_one_type]
inner += [st.builds(cls, one, two) for cls in (Plain, Struct) for one in inner[:4] for two in (natives, inner[5])]
one_field = st.sampled_from([*of_one_type, *inner, st.tuples(natives), st.sampled_from(Colour)])
fields = st.one_of(one_field, one_field.map(lambda values: st.none() | values)).flatmap(
    lambda values: st.lists(values, min_size=20, max_size=20)
)


@given(st.sampled_from([Plain, FrozenSlotted, Struct, Pair]), st.integers(1, 20), fields, fields)
@example(Plain, 5, [None, Pair(1), Pair(1), None, None], [Struct(Pair(1)), Struct(1), None, None, None])
@example(Plain, 5, [Plain(None), Plain(Pair(1)), None, None, None], [Struct(1)] * 5)
@example(Plain, 5, [Plain(Pair(1))] * 5, [Struct(None), Struct(Struct(1)), Struct(Colour.RED), None, None])
@example(Pair, 4, [Pair(Pair(Pair(Pair(1))))] * 4, [Pair(Pair(Pair(Pair(dt.date(2026, 1, 2)))))] * 4)
@example(Pair, 4, [Plain({"k": 1}, b"x")] * 4, [None, 1, [1], dt.date(2026, 1, 2)])
@example(Pair, 4, [Plain([dt.date(2026, 1, 2)])] * 4, [1] * 4)
@example(Pair, 4, [1] * 4, [None, {"k": (1,)}, [1], dt.date(2026, 1, 2)])
@example(Pair, 4, [Plain(dict.fromkeys(range(70)))] * 4, [dt.date(2026, 1, 2)] * 4)
def test_fields_of_extensions_are_written_alike(cls: Any, count: int, some: list[Any], others: list[Any]) -> None:
    commit = list(map(cls, some[:count], others[:count]))
    entries, log = by_msgpack.encode_commit(commit), by_msgpack.encode_log(commit)
    assert by_msgspec.encode_commit(commit) == entries
    assert by_msgspec.encode_log(commit) == log
    assert same([one for entry in entries for one in by_msgspec.decode_entry(*entry[1:])], commit)


@given(st.sampled_from(of_one_type[:-1]).flatmap(lambda values: st.lists(values, min_size=1, max_size=6)))
@example(list(map(Decimal, ["NaN", "sNaN", "-NaN5", "-Infinity", "1E+30", "-0E-10"])))
@example([dt.datetime(1, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, 0, 0, 0, 1)])
@example([dt.date(1, 1, 1)])
@example([FOLDED, FOLDED.replace(tzinfo=BERLIN)])
def test_scalars_of_one_type_are_encoded_as_each_alone(column: list[Any]) -> None:
    encode = SCALAR_ENCODERS[type(column[0])]
    assert [(one.code, one.data) for one in encode_scalars(type(column[0]), column)] == list(map(encode, column))


def test_fields_of_extensions_are_not_left_to_msgpack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_encoder.EntryEncoder, "_encode_each", Mock(side_effect=AssertionError("left to msgpack")))
    codec, day = Codec(default_registry, "raise"), dt.date(2026, 1, 2)
    for count in (1, 4, 20):
        for value in (day, Pair(day, {"k": [1]}), Pair(Pair(Plain(Decimal(1)), b"x"), day)):
            for commit in ([FrozenSlotted(value, 1)] * count, [FrozenSlotted(other, value) for other in (None, value)]):
                (entry,) = codec.encode_commit(commit)
                assert codec.decode_entry(entry.header, entry.payload) == commit


class Day(dt.date):
    pass


class Moment(dt.datetime):
    pass


class Amount(Decimal):
    pass


class NoOffset(dt.tzinfo):
    def utcoffset(self, _: dt.datetime | None) -> None:
        return None


OUTSIDE = [Day(2026, 1, 2), Moment(2026, 1, 2), Amount(1), dt.datetime(2026, 1, 2, tzinfo=NoOffset()), Foreign(1)]


@pytest.mark.parametrize("value", OUTSIDE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: Pair(1, value)], ids=["bare", "inside"])
def test_values_among_extensions_are_refused(value: Any, wrap: Any) -> None:
    for before in (0, 1, 20):
        commit = [Plain(dt.date(2026, 1, 2), wrap(Decimal(1)))] * before + [Plain(dt.date(2026, 1, 2), wrap(value))]
        problems = []
        for codec in (by_msgspec, by_msgpack):
            with pytest.raises(EncodeError) as caught:
                codec.encode_commit(commit)
            problems.append(str(caught.value))
        assert problems[0] == problems[1]
        assert f"events[{before}].other" in problems[0]


def test_an_event_that_holds_itself_is_refused() -> None:
    event = Plain(dt.date(2026, 1, 2))
    event.other = event
    for count in (1, 20):
        with pytest.raises(EncodeError, match="contains itself"):
            by_msgspec.encode_commit([event] * count)


def test_entries_that_msgspec_cannot_read_do_not_keep_it_from_others() -> None:
    codec = Codec(default_registry, "raise")

    def entry(commit: list[Any]) -> Entry:
        return codec.encode_commit(commit)[0]

    dated, plain, binary = entry([Plain(dt.date(2026, 1, 2))]), entry([Plain(1)]), entry([Plain(b"x", 1)])
    assert dated.header == plain.header == binary.header
    for times in (99, 1, 300, 1):
        for _ in range(times):
            assert codec.decode_entry(dated.header, dated.payload) == [Plain(dt.date(2026, 1, 2))]
        for _ in range(3):
            assert codec.decode_entry(plain.header, plain.payload) == [Plain(1)]
            assert codec.decode_entry(binary.header, binary.payload) == [Plain(b"x", 1)]
