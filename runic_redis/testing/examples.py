"""Events for the cases."""

from dataclasses import dataclass

from runic_redis.events import event

__all__ = ["OrderPaid", "OrderPlaced", "numbered"]


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
