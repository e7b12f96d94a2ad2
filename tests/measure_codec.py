"""The codec against MessagePack by hand, without a server: ``python -m tests.measure_codec``."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgpack

from benchmarks.events import FLAT, MIXED, RICH, Kind, some_events
from benchmarks.figures import ratios, spread
from runic_redis.codec import Codec
from runic_redis.events import default_registry

TURNS = 7
TURN_S = 0.05


def cpu_us(work: Callable[[], Any]) -> float:
    """Return the CPU time of one call, in microseconds."""
    calls, began_s = 0, time.process_time()
    while (took_s := time.process_time() - began_s) < TURN_S:
        work()
        calls += 1
    return took_s / calls * 1e6


def compare(name: str, by_hand: Callable[[], Any], ours: Callable[[], Any]) -> None:
    """Measure both in turns, and print the ratio with its spread."""
    took = [(cpu_us(by_hand), cpu_us(ours)) for _ in range(TURNS)]
    hand_us, ours_us = zip(*took, strict=True)
    faster = ratios(hand_us, ours_us)
    print(
        f"{name:18} by hand {spread(hand_us).median:7.1f} us  here {spread(ours_us).median:7.1f} us  "
        f"{faster.median:.2f} times as fast ({faster.lowest:.2f} to {faster.highest:.2f})"
    )


def pack(kind: Kind, events: list[Any]) -> bytes:
    packed: bytes = msgpack.packb([kind.row(event) for event in events])
    return packed


def unpack(kind: Kind, packed: bytes) -> list[Any]:
    return [kind.build(row) for row in msgpack.unpackb(packed)]


def main() -> None:
    """Print what encoding and decoding take."""
    codec = Codec(default_registry, "raise")
    for kind in (MIXED, FLAT, RICH):
        for count in (1, 10, 100, 1000):
            events = some_events(count, kind)
            compare(f"{kind.name}, encode {count}", partial(pack, kind, events), partial(codec.encode_commit, events))
    for kind in (MIXED, FLAT, RICH):
        events = some_events(100, kind)
        (entry,) = codec.encode_commit(events)
        theirs = partial(unpack, kind, pack(kind, events))
        compare(f"{kind.name}, decode 100", theirs, partial(codec.decode_entry, entry.header, entry.payload))


if __name__ == "__main__":
    main()
