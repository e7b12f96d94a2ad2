"""Small or damaged bytes that could take much memory or time: they are rejected, or take no more than their contents.

tracemalloc measures memory that Python's allocators and bytes objects take. zstandard uses other allocators, so a limit
on the whole process bounds it. Counts bound the time: compared keys, pages, passes.
"""

import resource
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
import zstandard

from runic_redis import event
from runic_redis.codec import Codec, limits
from runic_redis.codec.limits import MOST_PAIRS
from runic_redis.errors import DecodeError, StoreError
from runic_redis.events import default_registry
from tests import strategies
from tests.codecs import BOTH
from tests.fuzzing import attempt

CODECS = [codec(default_registry, "wrap") for codec in BOTH]
PLAIN = msgpack.packb([[None, 0, []]])
INDEXED = msgpack.packb([None, [None, 0, []]])
MEGABYTE = 1024 * 1024


@event("tests.bombs.empty")
class Empty(msgspec.Struct):
    """An event without fields."""


def extension(code: int, data: bytes) -> bytes:
    return b"\xc9" + struct.pack(">IB", len(data), code) + data


def array(count: int, item: bytes) -> bytes:
    return b"\xdd" + struct.pack(">I", count) + item * count


def in_event(value: bytes) -> bytes:
    """Return the rows of one plain dict that holds a value."""
    return b"\x91\x91\x81\x00" + value


def nested(code: int, levels: int) -> bytes:
    data = b"\x90"
    for _ in range(levels):
        data = extension(code, b"\x91" + data)
    return data


def frame(size: int, *, checksum: int = 0, window: int | None = None, dictionary: int = 0) -> bytes:
    """Return the head of a zstd frame that claims a size, with options."""
    flags = 0xC0 | (0x20 if window is None else 0) | checksum << 2 | (3 if dictionary else 0)
    descriptor = bytes([flags]) + (b"" if window is None else bytes([window]))
    return (
        b"\x28\xb5\x2f\xfd"
        + descriptor
        + (struct.pack("<I", dictionary) if dictionary else b"")
        + struct.pack("<Q", size)
    )


def last_block(size: int, kind: int) -> bytes:
    return (size << 3 | kind << 1 | 1).to_bytes(3, "little")


def zeros(size: int) -> bytes:
    """Return a frame of so many zeros, of which only the block headers take space."""
    most = 128 * 1024
    whole, rest = divmod(size, most)
    return (
        frame(size, window=0x88)
        + (most << 3 | 1 << 1).to_bytes(3, "little").ljust(4, b"\0") * whole
        + last_block(rest, 1)
        + b"\0"
    )


# Rows that claim more than they hold, or nest deeper than any valid value.
CLAIMS: dict[str, bytes] = {
    "rows": b"\xdd\xff\xff\xff\xff",
    "row": b"\x91\xdd\xff\xff\xff\xff\x00",
    "map": b"\x91\x91\xdf\xff\xff\xff\xff",
    "map of maps": b"\x91\x91" + b"\xdf\xff\xff\xff\xff" * 400,
    "array of arrays": in_event(b"\xdd\x00\x0f\xff\xff" * 400),
    "text": in_event(b"\xdb\xff\xff\xff\xff"),
    "bytes": in_event(b"\xc6\xff\xff\xff\xff"),
    "extension": in_event(b"\xc9\xff\xff\xff\xff\x02"),
    "array in a set": in_event(extension(3, b"\xdd\xff\xff\xff\xff")),
    "arrays": b"\x91" * 100_000,
    "maps": in_event(b"\x81\x00" * 100_000),
    "maps as keys": in_event(b"\x81" * 100_000),
    "index": b"\x91\x92\xcf\x10\x00\x00\x00\x00\x00\x00\x00\x80",
    "index of many digits": b"\x91\x92" + extension(1, b"\x7f" * 10_000) + b"\x80",
    **{f"nested {code}": in_event(nested(code, 100)) for code in (2, 3, 4, 11)},
    "nested as keys": in_event(b"\x81" + nested(2, 100) + b"\x00"),
    "date": in_event(extension(6, b"9" * 10_000 + b"-01-01")),
    "date out of range": in_event(extension(5, b"2026-01-01T00:00:00+99:59")),
    "time": in_event(extension(7, b"~" * 10_000)),
    "duration": in_event(extension(8, msgpack.packb([10**18, 0, 0]))),
    "duration of text": in_event(extension(8, msgpack.packb(["x" * 10_000] * 3))),
    "decimal": in_event(extension(9, b"1E+" + b"9" * 10_000)),
    "timestamp": in_event(b"\xc7\x0c\xff\x00\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"),
    "text that is no UTF-8": in_event(b"\xd9\x02\xed\xa0"),
}


def peak(run: Callable[[], Any]) -> tuple[Any, int]:
    """Return the result of a call or its `StoreError`, and its peak memory in bytes."""
    tracemalloc.start()
    try:
        outcome = run()
    except StoreError as error:
        outcome = error
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return outcome, most


@pytest.mark.parametrize("codec", CODECS, ids=["msgspec", "msgpack"])
@pytest.mark.parametrize("claim", CLAIMS)
def test_what_claims_too_much_is_refused_before_it_takes_memory(codec: Codec, claim: str) -> None:
    for read in (
        lambda: codec.decode_entry(PLAIN, b"\x00" + CLAIMS[claim]),
        lambda: codec.decode_entry(INDEXED, b"\x00" + CLAIMS[claim]),
        lambda: codec.decode_log(msgpack.packb([PLAIN, b"\x00" + CLAIMS[claim]])),
        lambda: codec.decode_state(CLAIMS[claim] + b"\xc1"),
        lambda: codec.decode_metadata(CLAIMS[claim] + b"\xc1"),
    ):
        outcome, most = peak(read)
        assert isinstance(outcome, DecodeError)
        assert most < 4 * MEGABYTE, "took more than 64 levels of 41 KB"


SIZE = 32 * 1024
# The values that take the most memory for each encoded byte.
SWELLING: dict[str, bytes] = {
    "lists": in_event(array(SIZE, b"\x90")),
    "maps": in_event(array(SIZE, b"\x80")),
    "maps of one": in_event(array(SIZE // 3, b"\x81\xc0\xc0")),
    "sets": in_event(array(SIZE // 3, b"\xd4\x03\x90")),
    "rows of nothing": array(SIZE, b"\x90"),
    "decimals": in_event(array(SIZE // 3, b"\xd4\x091")),
    "digits": in_event(extension(9, b"1" * SIZE)),
    "integer": in_event(extension(1, b"\x7f" * SIZE)),
}
MOST_PER_BYTE = 100


@pytest.mark.parametrize("codec", CODECS, ids=["msgspec", "msgpack"])
@pytest.mark.parametrize("value", SWELLING)
def test_what_is_read_takes_memory_for_what_it_holds(codec: Codec, value: str) -> None:
    payload = b"\x01" + zstandard.ZstdCompressor().compress(SWELLING[value])
    _, most = peak(lambda: codec.decode_entry(PLAIN, payload))
    assert most < MOST_PER_BYTE * len(SWELLING[value])


# Many small events: a header, and one row. An event without fields takes the most memory for its only byte.
MOST_PER_BYTE_OF_EVENTS = 220
EMPTY, UNKNOWN = ["tests.bombs.empty", 1, []], ["tests.bombs.unknown", 1, []]
SMALL_EVENTS: dict[str, tuple[bytes, bytes]] = {
    "dicts": (PLAIN, b"\x91\x80"),
    "dicts with an index": (INDEXED, b"\x92\x00\x80"),
    "objects": (msgpack.packb([EMPTY]), b"\x90"),
    "objects with an index": (msgpack.packb([None, EMPTY]), b"\x91\x00"),
    "unknown": (msgpack.packb([UNKNOWN]), b"\x90"),
    "unknown with an index": (msgpack.packb([None, UNKNOWN]), b"\x91\x00"),
}


@pytest.mark.parametrize("codec", CODECS, ids=["msgspec", "msgpack"])
@pytest.mark.parametrize("name", SMALL_EVENTS)
def test_small_events_take_memory_for_what_they_hold(codec: Codec, name: str) -> None:
    header, row = SMALL_EVENTS[name]
    rows = array(SIZE // len(row), row)
    payload = b"\x01" + zstandard.ZstdCompressor().compress(rows)
    for _ in range(2):  # msgspec may read them the second time
        decoded, most = peak(lambda: codec.decode_entry(header, payload))
        assert len(decoded) == SIZE // len(row)
        del decoded
        assert most < MOST_PER_BYTE_OF_EVENTS * len(rows)


def test_a_header_of_many_schemas_takes_memory_for_what_it_holds() -> None:
    for schema in (b"\x93\xa1a\x01\x90", b"\x93\xc0\x00\x90", b"\x93\xa1a\x01\xdc\x03\xe8" + b"\xa0" * 1000):
        header = array(SIZE // len(schema) - 10, schema)
        _, most = peak(lambda header=header: CODECS[0].decode_entry(header, b"\x00\x91\x91\x80"))
        assert most < 200 * len(header)


FRAMES: dict[str, bytes] = {
    "4 GiB of zeros": zeros(4 * 1024**3),
    "17 MiB of zeros": zeros(17 * MEGABYTE),
    "a size that is a lie": frame(15 * MEGABYTE) + last_block(0, 0),
    "a size that is too small": frame(10) + last_block(1000, 1) + b"\0",
    "2 ** 64 - 1 bytes": frame(2**64 - 1) + last_block(0, 0),
    "no size": b"\x28\xb5\x2f\xfd\x00\x88" + zeros(4 * 1024**3)[14:],
    "a window of 2 EiB": frame(1000, window=0xFF) + last_block(1000, 1) + b"\0",
    "a dictionary": frame(1000, dictionary=7) + last_block(1000, 1) + b"\0",
    "a checksum": frame(1000, checksum=1) + last_block(1000, 1) + b"\0" + b"\1\2\3\4",
    "two frames": zeros(1000) * 2,
    "a frame to skip": b"\x50\x2a\x4d\x18\xff\xff\xff\xff",
    "a frame to skip, then one": b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + zeros(1000),
}


def hold() -> None:
    """Limit this process to 64 MiB of additional memory. No frame may need more."""
    if sys.platform != "linux":
        return  # other systems have no /proc
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 64 * MEGABYTE, resource.RLIM_INFINITY))
    for codec in CODECS:
        for name, data in FRAMES.items():
            outcome = attempt(codec.decode_entry, PLAIN, b"\x01" + data)
            assert isinstance(outcome, DecodeError), name
            assert not isinstance(outcome.__cause__, MemoryError), name


def nest_in_a_small_thread() -> None:
    """Read the deepest values in a thread with the smallest stack of any system."""
    threading.stack_size(512 * 1024)
    outcomes: list[Any] = []

    def read() -> None:
        payloads = [b"\x00" + in_event(nested(2, levels)) for levels in (1, 64, 65, 1000)]
        outcomes.extend(attempt(CODECS[0].decode_entry, PLAIN, payload) for payload in payloads)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert [type(outcome) for outcome in outcomes] == [list, list, DecodeError, DecodeError], outcomes


def test_no_nesting_overflows_the_stack_of_a_thread_and_no_frame_takes_more_than_an_entry_may() -> None:
    script = "from tests import test_bombs; test_bombs.nest_in_a_small_thread(); test_bombs.hold()"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, cwd=Path(__file__).parent.parent)


@pytest.mark.parametrize("levels", range(1, 64, 3))
def test_what_is_wrong_is_noticed_at_each_level(levels: int) -> None:
    for inner in (b"", b"\x90\x90", b"\x91", b"\xc0", b"\xdd\xff\xff\xff\xff"):
        value = extension(2, inner)
        for _ in range(levels - 1):
            value = extension(2, b"\x91" + value)
        for codec in CODECS:
            with pytest.raises(DecodeError):
                codec.decode_entry(PLAIN, b"\x00" + in_event(value))


MODULUS = 2**61 - 1  # Python hashes an integer to its remainder by this number.


def alike(kind: str, number: int) -> bytes:
    """Return an encoded key. All keys of one kind have the same hash."""
    value = (number + 10) * MODULUS
    integer = extension(1, value.to_bytes(20, "big"))
    return {
        "integers": integer,
        "UUIDs": b"\xd8\x0a" + value.to_bytes(16, "big"),
        "decimals": extension(9, str(value).encode()),
        "tuples": extension(2, b"\x91" + integer),
        "objects": extension(
            11, b"\x93" + msgpack.packb(msgpack.packb(["tests.pair", 1, ["value", "other"]])) + integer + b"\0"
        ),
    }[kind]


def keyed(shape: str, keys: list[bytes]) -> bytes:
    count = struct.pack(">I", len(keys))
    if shape == "map":
        return b"\xdf" + count + b"".join(key + b"\x01" for key in keys)
    return extension({"set": 3, "frozen set": 4}[shape], b"\xdd" + count + b"".join(keys))


@pytest.mark.parametrize("shape", ["map", "set", "frozen set"])
@pytest.mark.parametrize("kind", ["integers", "UUIDs", "decimals", "tuples", "objects"])
def test_keys_made_to_have_one_hash_are_refused_before_they_are_compared(kind: str, shape: str) -> None:
    few = in_event(keyed(shape, [alike(kind, number) for number in range(300)]))
    many = in_event(keyed(shape, [alike(kind, number) for number in range(4100)]))
    for codec in CODECS:
        (event,) = codec.decode_entry(PLAIN, b"\x00" + few)
        assert len(event[0]) == 300
        with pytest.raises(DecodeError, match="same hash"):
            codec.decode_entry(PLAIN, b"\x00" + many)


def test_keys_of_one_hash_are_counted_over_the_whole_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_PAIRS", MOST_PAIRS // 64)
    part = keyed("set", [alike("integers", number) for number in range(100)])
    for count, refused in ((26, False), (27, True)):
        outcome = attempt(CODECS[0].decode_state, array(count, part))
        assert isinstance(outcome, DecodeError) == refused


def test_as_many_keys_of_other_hashes_are_read() -> None:
    value = {
        "numbers": set(range(20_000)),
        "mapped": {number: str(number) for number in range(20_000)},
        "tuples": {(number, -1 - number % 2): 1 for number in range(5000)},
        "unknown": frozenset(strategies.FrozenSlotted(number) for number in range(2000)),
        "floats": {2.0**power for power in range(-1000, 1000)},
    }
    assert MOST_PAIRS < 20_000**2
    for codec in CODECS:
        (entry,) = codec.encode_commit([value])
        assert codec.decode_entry(entry.header, entry.payload) == [value]
