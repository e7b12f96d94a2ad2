"""The codec against MessagePack by hand, without a server: ``python -m tests.measure_codec``."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack

from runic_redis import EventRegistry
from runic_redis.codec import Codec

TURNS = 7
TURN_S = 0.05
registry = EventRegistry()


@registry.event("mixed")
@dataclass(frozen=True, slots=True)
class Mixed:
    """Half of it cannot be compressed."""

    left: bytes
    right: bytes
    node: dict[str, Any]
    attempt: dict[str, Any]
    order: str
    number: int


@registry.event("flat")
@dataclass(frozen=True, slots=True)
class Flat:
    """Scalars only."""

    order: str
    number: int
    amount: float
    is_even: bool


def mixed(n: int) -> Mixed:
    node, attempt = {"node": n, "name": "step"}, {"attempt": 1, "worker": f"w-{n % 7}"}
    return Mixed(os.urandom(32), os.urandom(32), node, attempt, f"order-{n}", n)


def flat(n: int) -> Flat:
    return Flat(f"order-{n}", n, n * 1.25, n % 2 == 0)


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
    ratios = sorted(hand / us for hand, us in took)
    hand, us = (statistics.median(times) for times in zip(*took, strict=True))
    print(
        f"{name:26} by hand {hand:7.1f} us  here {us:7.1f} us  {statistics.median(ratios):.2f} times as fast ", end=""
    )
    print(f"({ratios[0]:.2f} to {ratios[-1]:.2f})")


def main() -> None:
    """Print what encoding and decoding take."""
    codec = Codec(registry, "raise")
    rows: dict[str, tuple[Callable[[int], Any], Callable[[Any], Any]]] = {
        "mixed": (mixed, lambda e: (e.left, e.right, e.node, e.attempt, e.order, e.number)),
        "flat": (flat, lambda e: (e.order, e.number, e.amount, e.is_even)),
    }
    for name, (make, row) in rows.items():
        for count in (1, 10, 100, 1000):
            events = [make(n) for n in range(count)]
            compare(
                f"{name}, encode {count}",
                lambda events=events, row=row: msgpack.packb([row(event) for event in events]),
                lambda events=events: codec.encode_commit(events),
            )
        events = [make(n) for n in range(100)]
        kind, packed = type(events[0]), msgpack.packb([row(event) for event in events])
        (entry,) = codec.encode_commit(events)
        compare(
            f"{name}, decode 100",
            lambda kind=kind, packed=packed: [kind(*values) for values in msgpack.unpackb(packed)],
            lambda entry=entry: codec.decode_entry(entry.header, entry.payload),
        )


if __name__ == "__main__":
    main()
