"""The codec returns what was encoded, and rejects everything else."""

import datetime as dt
import json
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import msgpack
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from runic_redis.codec import DIGEST_BYTES, Codec, entry_encoder
from runic_redis.codec.compression import MAX_PAYLOAD_BYTES, decompress
from runic_redis.errors import DecodeError, EncodeError, StoreError, UnknownEventType
from runic_redis.events import UnknownEvent, default_registry
from tests.codecs import BOTH
from tests.strategies import Colour, FrozenSlotted, Pair, Plain, events, same, values

CODECS = [codec(default_registry, "raise") for codec in BOTH]


@pytest.fixture(params=CODECS, ids=["msgspec", "msgpack"])
def codec(request: pytest.FixtureRequest) -> Codec:
    return request.param  # type: ignore[no-any-return]


GOLDEN = Path(__file__).with_name("golden")


def through_entries(codec: Codec, commit: list[Any]) -> list[Any]:
    """Encode and decode a commit."""
    entries = codec.encode_commit(commit)
    assert sum(entry.event_count for entry in entries) == len(commit)
    return [event for entry in entries for event in codec.decode_entry(entry.header, entry.payload)]


@given(st.lists(events, min_size=1, max_size=3))
def test_commits_and_logs_come_back_equal_and_of_the_same_types(commit: list[Any]) -> None:
    for codec in CODECS:
        assert same(through_entries(codec, commit), commit)
        assert same(codec.decode_log(codec.encode_log(commit)), commit)


@given(values)
@example({1.5: "float", 2: "int", True: "bool"})
@example([[[]], (), {}, set(), frozenset()])
def test_values_come_back_equal_and_of_the_same_types(value: Any) -> None:
    for codec in CODECS:
        (event,) = through_entries(codec, [{"value": value}])
        assert same(event["value"], value)


KEYS = st.one_of(
    st.text(max_size=40),
    st.text("ab\u00e9\u4e16", min_size=28, max_size=300),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
)


@given(st.dictionaries(KEYS, st.dictionaries(st.text(max_size=3), st.integers()), max_size=8))
def test_a_fact_s_dicts_keep_their_order_and_one_hash_in_any(value: dict[Any, Any]) -> None:
    for codec in CODECS:
        fact_hash, data = codec.encode_own_fact(value)
        kept = codec.decode_fact(fact_hash.encode(), data)
        assert list(kept) == list(value)
        assert [list(one) for one in kept.values()] == [list(one) for one in value.values()]
        other = {key: dict(reversed(one.items())) for key, one in reversed(value.items())}
        other_hash, other_data = codec.encode_own_fact(other)
        assert other_hash == fact_hash
        assert other_data[:DIGEST_BYTES] == data[:DIGEST_BYTES]


@given(values)
def test_facts_come_back_equal(value: Any) -> None:
    for codec in CODECS:
        fact_hash, data = codec.encode_own_fact(value)
        again = codec.decode_fact(fact_hash.encode(), data)
        assert type(again) is type(value)
        assert codec.encode_own_fact(again)[0] == fact_hash


@given(
    st.lists(st.tuples(st.one_of(st.text(), st.integers(), st.tuples(st.text())), values), max_size=6), st.integers()
)
def test_equal_values_have_equal_hashes(pairs: list[tuple[Any, Any]], seed: int) -> None:
    value = dict(pairs)
    shuffled = list(value.items())
    Random(seed).shuffle(shuffled)
    for codec in CODECS:
        assert codec.encode_own_fact([value])[0] == codec.encode_own_fact([dict(shuffled)])[0]


@given(st.dictionaries(st.text(), values, max_size=3))
def test_metadata_comes_back(metadata: dict[str, Any]) -> None:
    for codec in CODECS:
        assert same(codec.decode_metadata(codec.encode_metadata(metadata)), metadata)


@given(st.lists(st.integers(0, 400_000), min_size=1, max_size=12))
def test_large_commits_are_split_into_entries_of_a_megabyte(sizes: list[int]) -> None:
    commit = [{"number": number, "data": bytes(size)} for number, size in enumerate(sizes)]
    for codec in CODECS:
        assert through_entries(codec, commit) == commit
        for entry in codec.encode_commit(commit):
            assert entry.event_count == 1 or len(decompress(entry.payload)) <= 1024 * 1024


def test_an_alias_of_an_enum_comes_back_as_the_member(codec: Codec) -> None:
    assert through_entries(codec, [Colour.ROT]) == [Colour.RED]


def test_a_commit_over_the_limit_is_refused(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_encoder, "MAX_COMMIT_BYTES", 4 * 1024 * 1024)
    events = [{"data": bytes(1024 * 1024 - 20)}] * 4
    assert through_entries(codec, events) == events
    with pytest.raises(EncodeError, match="at most 4194304: append them in several commits"):
        codec.encode_commit([*events, {"data": bytes(100)}])


def test_the_encoder_works_on_after_a_failure(codec: Codec) -> None:
    for bad in ([object()], [{"a": (1, {2: object()})}], [FrozenSlotted((1, (2, object())))]):
        with pytest.raises(EncodeError):
            codec.encode_commit(bad)
        assert through_entries(codec, [FrozenSlotted((1, {2}))]) == [FrozenSlotted((1, {2}))]


def damaged_forms(data: bytes) -> st.SearchStrategy[bytes]:
    """Generate the bytes cut, or with some of them changed."""
    cut = st.integers(0, len(data) - 1).map(lambda at: data[:at])
    changed = st.tuples(st.integers(0, len(data) - 1), st.binary(min_size=1, max_size=4)).map(
        lambda change: data[: change[0]] + change[1] + data[change[0] + len(change[1]) :]
    )
    return st.one_of(cut, changed, st.binary(max_size=100), st.just(data + b"\x00"))


@given(st.data())
def test_damaged_entries_give_a_typed_error_or_events(data: st.DataObject) -> None:
    commit = data.draw(st.lists(events, min_size=1, max_size=3))
    (entry,) = CODECS[0].encode_commit(commit)
    header = data.draw(damaged_forms(entry.header) | st.just(entry.header))
    payload = data.draw(damaged_forms(entry.payload) | st.just(entry.payload))
    for codec in CODECS:
        try:
            decoded = codec.decode_entry(header, payload)
        except (DecodeError, UnknownEventType):
            continue
        assert isinstance(decoded, list)


@given(st.data(), values)
def test_damaged_facts_are_noticed(data: st.DataObject, value: Any) -> None:
    fact_hash, kept = CODECS[0].encode_own_fact(value)
    damaged = data.draw(damaged_forms(kept).filter(lambda form: form != kept))
    for codec in CODECS:
        with pytest.raises(StoreError):
            codec.decode_fact(fact_hash.encode(), damaged)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    for codec in CODECS:
        for decode in (codec.decode_metadata, codec.decode_log, partial(codec.decode_fact, b"h")):
            try:
                decode(data)
            except (DecodeError, UnknownEventType):
                continue


def test_a_fact_under_the_hash_of_another_is_noticed(codec: Codec) -> None:
    one, kept = codec.encode_own_fact(1)
    other, _ = codec.encode_own_fact(2)
    assert codec.decode_fact(one.encode(), kept) == 1
    with pytest.raises(DecodeError, match="does not match its hash"):
        codec.decode_fact(other.encode(), kept)


def test_a_bomb_of_zstd_is_refused_before_it_expands() -> None:
    claims_too_much = zstandard.ZstdCompressor().compress(bytes(1000))
    parameters = zstandard.get_frame_parameters(claims_too_much)
    assert parameters.content_size == 1000
    # A streamed frame does not state the size to which it expands.
    compressor = zstandard.ZstdCompressor().compressobj()
    streamed = compressor.compress(bytes(10_000)) + compressor.flush()
    with pytest.raises(DecodeError, match="claims"):
        decompress(b"\x01" + streamed)
    size = MAX_PAYLOAD_BYTES + 1
    frame = b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little")
    assert zstandard.frame_content_size(frame) == size
    with pytest.raises(DecodeError, match="claims"):
        decompress(b"\x01" + frame)


def test_a_zstd_frame_that_is_to_be_skipped_is_none() -> None:
    for skipped in (b"\x04\x00\x00\x00abcd", b"\xff\xff\xff\x7f"):
        with pytest.raises(DecodeError, match="claims"):
            decompress(b"\x01\x50\x2a\x4d\x18" + skipped)


def test_what_follows_a_zstd_frame_is_noticed(codec: Codec) -> None:
    (entry,) = codec.encode_commit(golden_commits()["compressed"])
    for after in (b"\x00", entry.payload[1:]):
        with pytest.raises(DecodeError, match="damaged"):
            codec.decode_entry(entry.header, entry.payload + after)


def test_what_is_nested_and_copied_at_each_level_is_bounded(codec: Codec) -> None:
    size = 1280 * 1024  # 60 copies take over 64 MiB
    value: Any = bytes(size)
    for _ in range(60):
        value = (value,)
    with pytest.raises(EncodeError, match="nests too much"):
        codec.encode_commit([{"value": value}])
    data = msgpack.packb(bytes(size))
    for _ in range(60):
        data = msgpack.packb(msgpack.ExtType(2, b"\x91" + data))
    header = codec.encode_commit([{}])[0].header
    with pytest.raises(DecodeError, match="nests too much"):
        codec.decode_entry(header, b"\x00" + b"\x91\x91\x81\x00" + data)


def test_an_entry_expands_to_no_more_than_an_event_may_take(codec: Codec) -> None:
    header = codec.encode_commit([{}])[0].header
    bomb = b"\x01" + zstandard.ZstdCompressor().compress(bytes(17 * 1024 * 1024))
    with pytest.raises(DecodeError, match="claims"):
        codec.decode_entry(header, bomb)


def test_a_log_that_could_not_be_read_is_refused(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    assert entry_encoder.MAX_PAYLOAD_BYTES is MAX_PAYLOAD_BYTES, "the writer has another limit than the reader"
    monkeypatch.setattr(entry_encoder, "MAX_PAYLOAD_BYTES", 4 * 1024 * 1024)
    log = [{"data": bytes(2 * 1024 * 1024 - 20)}] * 2
    assert codec.decode_log(codec.encode_log(log)) == log
    with pytest.raises(EncodeError, match="a log at most 4194304"):
        codec.encode_log([*log, {"data": bytes(100)}])


def test_a_timestamp_of_messagepack_s_own_is_a_datetime(codec: Codec) -> None:
    header = codec.encode_commit([{}])[0].header
    payload = b"\x00" + msgpack.packb([[{"at": msgpack.Timestamp(5, 6000)}]])
    assert codec.decode_entry(header, payload) == [{"at": dt.datetime(1970, 1, 1, 0, 0, 5, 6, tzinfo=dt.UTC)}]


@pytest.mark.parametrize("code", [2, 3, 4, 11])
def test_a_bomb_of_nesting_is_refused(codec: Codec, code: int) -> None:
    data = msgpack.packb([])
    for _ in range(10_000):
        data = msgpack.packb([msgpack.ExtType(code, data)])
        if len(data) > 200_000:
            break
    header = codec.encode_commit([{}])[0].header
    with pytest.raises(DecodeError):
        codec.decode_entry(header, b"\x00" + msgpack.packb([[{"x": msgpack.unpackb(data)}]]))
    with pytest.raises(DecodeError):
        codec.decode_entry(header, b"\x00" + b"\x91" * 100_000)


@pytest.mark.parametrize(
    "rows",
    [
        5,
        None,
        {},
        [5],
        [[]],
        [["0"]],
        [[0]],
        [[0, {}, 5]],
        [[0, {}], [0]],
        [[0, {}], []],
        [[0, {}], [3, {}]],
        [[1, {}]],
        [[-1, {}]],
        [[-3, {}]],
        [[3, {}]],
        [[True, 1, 2]],
        [[False, {}]],
        [[0, {}], [False, {}]],
        [[0.0, {}]],
        [["0", {}]],
        [[b"\x00", {}]],
        [[[0], {}]],
        [[2**63, {}]],
        [[0, 5]],
        [[0, []]],
        [[None, {}]],
        [[{}, {}]],
        [[{}], [5]],
        [[{}], [{}, {}]],
        [{}],
        [{0: 1}],
        [b"\x01\x05\x06"],
    ],
)
def test_rows_that_do_not_fit_are_refused(codec: Codec, rows: Any) -> None:
    plain = codec.encode_commit([{}])[0].header
    indexed = codec.encode_commit([{}, Pair(1, 2), FrozenSlotted(1)])[0].header
    for header in (plain, indexed):
        for _ in range(3):  # the decoder learns from the rows that it reads
            with pytest.raises(DecodeError):
                codec.decode_entry(header, b"\x00" + msgpack.packb(rows))


@pytest.mark.parametrize("event", [{}, Pair(1, 2), FrozenSlotted(b"x", b"y"), Plain(1, 2), Colour.RED])
def test_rows_with_a_value_too_many_or_too_few_are_refused_each_time(codec: Codec, event: Any) -> None:
    (entry,) = codec.encode_commit([event])
    (row,) = msgpack.unpackb(entry.payload[1:])
    for damaged in (row[:-1], [*row, 5], [*row, b"x"], [*row, *row], [0, *row], []):
        for rows in ([damaged], [damaged] * 2, [row, damaged], [damaged, row]):
            for _ in range(3):
                with pytest.raises(DecodeError):
                    codec.decode_entry(entry.header, b"\x00" + msgpack.packb(rows))
            assert codec.decode_entry(entry.header, entry.payload) == [event]


def test_an_index_finds_its_schema_behind_the_nil(codec: Codec) -> None:
    schemas = [["tests.pair", 1, ["value", "other"]], [None, 0, []]]
    header = msgpack.packb([None, *schemas])
    payload = b"\x00" + msgpack.packb([[1, {"k": 1}], [0, 2, 3], [1, {}]])
    assert codec.decode_entry(header, payload) == [{"k": 1}, Pair(2, 3), {}]
    # Also if the rows use only one schema, which no writer here does.
    for number, event in enumerate((Pair(4, 5), {"k": 6})):
        values = [event] if type(event) is dict else list(event)
        payload = b"\x00" + msgpack.packb([[number, *values]])
        assert codec.decode_entry(header, payload) == [event]
        assert codec.decode_entry(msgpack.packb(schemas[number:]), b"\x00" + msgpack.packb([values])) == [event]


@pytest.mark.parametrize("event", [{"k": Pair(1, {"k": Colour.RED})}, Pair(FrozenSlotted(1), Pair(2))])
def test_objects_within_values_need_no_index(codec: Codec, event: Any) -> None:
    (entry,) = codec.encode_commit([event, event])
    assert len(msgpack.unpackb(entry.header)) > 1
    assert None not in msgpack.unpackb(entry.header)
    assert same(codec.decode_entry(entry.header, entry.payload), [event, event])
    (entry,) = codec.encode_commit([event, {}, FrozenSlotted(1)])
    assert msgpack.unpackb(entry.header)[0] is None
    assert same(codec.decode_entry(entry.header, entry.payload), [event, {}, FrozenSlotted(1)])


def test_each_entry_of_a_large_commit_has_an_index_only_if_it_needs_one(codec: Codec) -> None:
    commit = [*[{"data": bytes(400_000)}] * 6, *[Pair(bytes(400_000))] * 6]
    entries = codec.encode_commit(commit)
    forms = [msgpack.unpackb(entry.header)[0] for entry in entries]
    assert [None, 0, []] in forms
    assert ["tests.pair", 1, ["value", "other"]] in forms
    assert through_entries(codec, commit) == commit
    assert codec.encode_events(commit).entries == entries
    assert codec.decode_log(codec.encode_log(commit)) == commit


def test_an_event_whose_fields_cannot_be_read_is_named(codec: Codec) -> None:
    class Unreadable(dict[str, Any]):
        def values(self) -> Any:
            yield 1
            raise RuntimeError("gone")

    with pytest.raises(EncodeError, match=r"events\[1\], a UnknownEvent, cannot be read: gone") as caught:
        codec.encode_commit([{}, UnknownEvent("many", 1, Unreadable(a=1, b=2))])
    assert caught.value.path == "events[1]"


def test_a_log_of_nothing_comes_back(codec: Codec) -> None:
    data = codec.encode_log([])
    assert msgpack.unpackb(data) == [msgpack.packb([None]), b"\x00" + msgpack.packb([])]
    assert codec.decode_log(data) == []


@pytest.mark.parametrize(
    "schemas",
    [
        *(5, None, {}, "text", b"\xc0", True),
        *([], [None], [None, None], [5], [None, 5], {None: 1}, {0: None}, [False], [[]], [None, []]),
        *([["tests.pair"]], [["tests.pair", "1", []]], [["tests.pair", 1, [5]]], [[None, 1, []]]),
        [None, None, ["tests.pair", 1, ["value", "other"]]],
        [None, ["tests.pair", 1, ["value", "other"]], None],
        [["tests.pair", 1, ["value", "other"]], None],
        [False, ["tests.pair", 1, ["value", "other"]]],
    ],
)
def test_malformed_headers_are_refused(codec: Codec, schemas: Any) -> None:
    header = msgpack.packb(schemas)
    for rows in ([[0, 1, 2]], [[1, 2]], [[]], [[0]], [[None]], [[1, 2], [3, 4]]):
        with pytest.raises(DecodeError):
            codec.decode_entry(header, b"\x00" + msgpack.packb(rows))
        with pytest.raises(DecodeError):
            codec.decode_log(msgpack.packb([header, b"\x00" + msgpack.packb(rows)]))


def test_an_event_of_the_first_schema_stands_in_for_others(codec: Codec) -> None:
    pair, plain = ["tests.pair", 1, ["value", "other"]], [None, 0, []]
    for schemas in ([pair], [pair, plain], [None, pair, plain]):
        assert codec.stand_in_event(msgpack.packb(schemas)) == UnknownEvent("tests.pair", 1, {})
    for schemas in ([plain], [plain, pair], [None, plain, pair]):
        assert codec.stand_in_event(msgpack.packb(schemas)) == {}
    for damaged in ([], [None], [None, None], [None, None, plain], None, 5, "text", {}, {0: plain}, [5], [[]]):
        with pytest.raises(DecodeError):
            codec.stand_in_event(msgpack.packb(damaged))


def golden_commits() -> dict[str, list[Any]]:
    """Return the commits whose bytes are stored in tests/golden. New formats add files; existing files never change."""
    return {
        "plain": [{"a": 1, "b": [None, True, 2.5, "ü", b"\x00"]}],
        "types": [
            {
                "big": 2**70,
                "tuple": (1, (2,)),
                "set": {1, 2},
                "frozenset": frozenset("ab"),
                "datetime": dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=2))),
                "fold": dt.datetime(2026, 10, 25, 2, 30, fold=1),
                "date": dt.date(2026, 1, 2),
                "time": dt.time(1, 2, 3, 4),
                "timedelta": dt.timedelta(-1, 2, 3),
                "decimal": Decimal("1.50"),
                "uuid": UUID("12345678-1234-5678-1234-567812345678"),
                (1, "key"): Colour.GREEN,
                None: FrozenSlotted(Pair(1, 2)),
            }
        ],
        "classes": [Pair(1, "x"), FrozenSlotted({"k": Pair(2)}), Pair(3, None)],
        "compressed": [{"text": "runic " * 1000}],
    }


@pytest.mark.parametrize("name", list(golden_commits()))
def test_bytes_of_format_2_stay_readable(codec: Codec, name: str) -> None:
    kept = json.loads((GOLDEN / f"format-2-{name}.json").read_text())
    decoded = codec.decode_entry(bytes.fromhex(kept["header"]), bytes.fromhex(kept["payload"]))
    assert same(decoded, golden_commits()[name])


@pytest.mark.parametrize("name", ["plain", "types", "classes"])
def test_format_2_is_written_to_the_byte(codec: Codec, name: str) -> None:
    kept = json.loads((GOLDEN / f"format-2-{name}.json").read_text())
    (entry,) = codec.encode_commit(golden_commits()[name])
    assert (entry.header.hex(), entry.payload.hex()) == (kept["header"], kept["payload"])


def test_a_content_hash_never_changes(codec: Codec) -> None:
    value = {"b": {3, 1, 2}, "a": [1, 2.5, "x", (1,)], "c": Pair(1, FrozenSlotted(2))}
    fact_hash, _ = codec.encode_own_fact(value)
    assert fact_hash == (GOLDEN / "format-2-hash.txt").read_text().strip()


def damaged_by_size(size: int) -> dict[str, bytes]:
    """Return rows of one plain dict, each damaged by a part of about so many bytes or digits."""

    def row(value: Any) -> bytes:
        return b"\x00\x91\x91" + msgpack.packb(value)

    text, digits = b"x" * size, msgpack.ExtType(1, b"\x7f" * size)
    return {
        "index": b"\x00\x91\x92" + msgpack.packb(digits) + b"\x80",
        "index of text": b"\x00\x91\x92" + msgpack.packb("x" * size) + b"\x80",
        "date": row({0: msgpack.ExtType(6, text)}),
        "time": row({0: msgpack.ExtType(7, text)}),
        "schema": row({0: msgpack.ExtType(11, msgpack.packb([digits]))}),
        "packed schema": row({0: msgpack.ExtType(11, msgpack.packb([msgpack.packb(["x" * size, 1, []])]))}),
        "member": row({0: msgpack.ExtType(11, msgpack.packb([msgpack.packb(["tests.colour", 1, ["name"]]), digits]))}),
        "flag": row(
            {0: msgpack.ExtType(11, msgpack.packb([msgpack.packb(["tests.permission", 1, ["value"]]), digits]))}
        ),
    }


@pytest.mark.parametrize("damage", damaged_by_size(1))
def test_an_error_is_short_however_large_what_is_damaged(codec: Codec, damage: str) -> None:
    plain = msgpack.packb([[None, 0, []]])
    indexed = msgpack.packb([None, [None, 0, []]])
    payload = damaged_by_size(100_000)[damage]
    for read in (
        lambda: codec.decode_entry(plain, payload),
        lambda: codec.decode_entry(indexed, payload),
        lambda: codec.decode_log(msgpack.packb([plain, payload])),
        lambda: codec.decode_log(msgpack.packb([indexed, payload])),
    ):
        with pytest.raises((DecodeError, UnknownEventType)) as caught:
            read()
        assert len(str(caught.value)) < 2000


def test_nothing_is_read_that_is_larger_than_what_is_written(codec: Codec) -> None:
    header = codec.encode_commit([{}])[0].header
    event = b"\x91\x91\x81\x00" + msgpack.packb(bytes(16 * 1024 * 1024))
    with pytest.raises(DecodeError, match="at most 16777216 are allowed"):
        codec.decode_entry(header, b"\x00" + event)
    with pytest.raises(DecodeError, match="metadata takes"):
        codec.decode_metadata(msgpack.packb({"a": bytes(64 * 1024)}))
    assert codec.decode_metadata(msgpack.packb({"a": bytes(64 * 1024 - 10)}))


def test_a_header_is_bounded_both_ways(codec: Codec) -> None:
    def unknown(field: str) -> UnknownEvent:
        return UnknownEvent("many", 1, {field: 1})

    wrapping = Codec(default_registry, "wrap")
    fitting = unknown("x" * (1024 * 1024 - 20))
    (entry,) = codec.encode_commit([fitting])
    assert wrapping.decode_entry(entry.header, entry.payload) == [fitting]
    with pytest.raises(EncodeError, match="fewer types of events"):
        codec.encode_commit([unknown("x" * 1024 * 1024)])
    with pytest.raises(EncodeError, match="fewer types of events"):
        codec.encode_log([unknown(f"{number:0512}") for number in range(2100)])
    with pytest.raises(DecodeError, match="header takes 1048577 bytes"):
        wrapping.decode_entry(entry.header.ljust(1024 * 1024 + 1), entry.payload)


def test_the_cache_of_headers_is_bounded() -> None:
    wrapping = Codec(default_registry, "wrap")
    decoder = wrapping._decoder
    payload = b"\x00" + msgpack.packb([[1]])
    most = 0
    for number in range(3000):
        header = msgpack.packb([["many", 1, [f"{number:0{number}}"]]])
        assert len(wrapping.decode_entry(header, payload)) == 1
        most = max(most, sum(map(len, decoder._by_header)))
    assert 512 * 1024 < most <= 1024 * 1024
    for number in range(3000):
        schema = msgpack.packb(["many", 1, [f"{number:0{number}}"]])
        wrapping.decode_state(msgpack.packb(msgpack.ExtType(11, msgpack.packb([schema, 1]))))
        assert sum(map(len, decoder._by_schema)) <= 1024 * 1024
