"""The data of the benchmark: events of about 130 bytes, states for snapshots, and values for facts.

They depend on their numbers alone, so every contender, every turn and every run has the same data.
"""

import random
from dataclasses import dataclass
from functools import cache
from typing import Any

from runic_redis import event


@event("benchmark.order_placed")
@dataclass(frozen=True)
class OrderPlaced:
    """An event of about 130 bytes, as MessagePack with field names."""

    order_id: str
    customer: str
    item: str
    quantity: int
    price: float
    placed_at: float


def some_events(count: int, kind: type[Any] = OrderPlaced) -> list[Any]:
    return [
        kind(f"order-{n:08}", f"customer-{n % 997}", "a thing that somebody wants", n % 9, n * 1.25, 1.8e9 + n)
        for n in range(count)
    ]


@cache
def some_value(size: int) -> dict[str, Any]:
    """Return a document of about `size` bytes of MessagePack: rows of words and numbers, which compress like text."""
    source = random.Random(size)
    words = ["".join(source.choices("etaoinshrdlu", k=source.randint(3, 9))) for _ in range(400)]
    rows = [
        {"id": number, "note": " ".join(source.choices(words, k=6)), "score": source.random()}
        for number in range(max(1, size // 71))
    ]
    return {"title": "a report", "rows": rows}
