"""Events for the cases."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from runic_redis.events import event


@event("runic_redis.testing.order_placed")
@dataclass(frozen=True)
class OrderPlaced:
    """An order was placed."""

    customer: str
    quantity: int = 1


@event("runic_redis.testing.order_paid")
@dataclass(frozen=True)
class OrderPaid:
    """An order was paid."""

    amount: float


def numbered(count: int, first: int = 1) -> list[OrderPlaced]:
    """Return this many different events: their quantities count up from `first`."""
    return [OrderPlaced("Ada", number) for number in range(first, first + count)]


def append_each(store: Any, workflow_id: str, events: Iterable[Any]) -> None:
    """Append events, each as one commit."""
    for one in events:
        store.append(workflow_id, [one])
