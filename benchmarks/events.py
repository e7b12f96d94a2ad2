"""The data of the benchmark: three kinds of events, states for snapshots, and values for facts.

The data is the same in every run, so every contender and every turn has the same. The values of events are random, or
`alike`: a few events that repeat, which compress well.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec

from runic_redis import event

_FIRST = datetime(2026, 1, 1, tzinfo=UTC)
# So many events repeat when they are alike.
_ALIKE = 8


@event("benchmark.flat")
@dataclass(frozen=True, slots=True)
class Flat:
    """An event of four scalars."""

    step: str
    attempt: int
    score: float
    final: bool


@event("benchmark.mixed")
@dataclass(frozen=True, slots=True)
class Mixed:
    """An event of two hashes, two small dicts and two scalars."""

    input_hash: bytes
    output_hash: bytes
    arguments: dict[str, Any]
    labels: dict[str, str]
    step: str
    attempt: int


@event("benchmark.mixed_struct")
class MixedStruct(msgspec.Struct, frozen=True):
    """The event `Mixed` as a Struct, which Python builds faster."""

    input_hash: bytes
    output_hash: bytes
    arguments: dict[str, Any]
    labels: dict[str, str]
    step: str
    attempt: int


@event("benchmark.address")
@dataclass(frozen=True, slots=True)
class Address:
    """A class that stands in an event."""

    street: str
    city: str


@event("benchmark.rich")
@dataclass(frozen=True, slots=True)
class Rich:
    """An event of dates, Decimals and another class. MessagePack has none of these types."""

    order_id: str
    placed_at: datetime
    due: date
    price: Decimal
    tax: Decimal
    ship_to: Address


@dataclass(frozen=True)
class Kind:
    """A kind of events, and the functions that a program by hand has for it.

    Attributes:
        name: its name in the names of cases.
        title: its name for people.
        make: returns an event with values from a random source.
        row: returns the fields of an event as a tuple for MessagePack.
        build: returns the event of such a row.
        cls: the class of its events.
    """

    name: str
    title: str
    make: Callable[[random.Random], Any]
    row: Callable[[Any], Sequence[Any]]
    build: Callable[[Sequence[Any]], Any]
    cls: type[Any]


def _mixed_values(source: random.Random) -> tuple[Any, ...]:
    """Return the values of a mixed event."""
    return (
        source.randbytes(32),
        source.randbytes(32),
        {"order": source.randrange(10**6), "cents": source.randrange(10**6)},
        {"tenant": f"t{source.randrange(1000)}", "region": "eu"},
        f"step-{source.randrange(100)}",
        source.randrange(5),
    )


def _flat(source: random.Random) -> Flat:
    return Flat(f"step-{source.randrange(10**6)}", source.randrange(10**6), source.random(), source.random() < 0.5)


def _rich(source: random.Random) -> Rich:
    placed = _FIRST + timedelta(microseconds=source.randrange(10**13))
    price = Decimal(source.randrange(10**6)) / 100
    address = Address(f"{source.randrange(1000)} Main Street", f"City {source.randrange(1000)}")
    due = placed.date() + timedelta(days=source.randrange(30))
    return Rich(f"order-{source.randrange(10**6)}", placed, due, price, price / 4, address)


def _rich_row(one: Rich) -> tuple[Any, ...]:
    placed, due, address = one.placed_at.isoformat(), one.due.isoformat(), one.ship_to
    return (one.order_id, placed, due, str(one.price), str(one.tax), (address.street, address.city))


def _rich_of(row: Sequence[Any]) -> Rich:
    order_id, placed, due, price, tax, address = row
    placed_at, due_on = datetime.fromisoformat(placed), date.fromisoformat(due)
    return Rich(order_id, placed_at, due_on, Decimal(price), Decimal(tax), Address(*address))


FLAT = Kind(
    "flat",
    "flat events",
    _flat,
    lambda one: (one.step, one.attempt, one.score, one.final),
    lambda row: Flat(*row),
    Flat,
)
MIXED = Kind(
    "mixed",
    "mixed events",
    lambda source: Mixed(*_mixed_values(source)),
    lambda one: (one.input_hash, one.output_hash, one.arguments, one.labels, one.step, one.attempt),
    lambda row: Mixed(*row),
    Mixed,
)
MIXED_STRUCT = Kind(
    "mixed-structs",
    "mixed events as msgspec Structs",
    lambda source: MixedStruct(*_mixed_values(source)),
    MIXED.row,
    lambda row: MixedStruct(*row),
    MixedStruct,
)
RICH = Kind("rich", "rich events", _rich, _rich_row, _rich_of, Rich)
KINDS = (FLAT, MIXED, RICH)


@cache
def some_events(count: int, kind: Kind = MIXED, *, alike: bool = False) -> list[Any]:
    """Return events. A caller does not change the list."""
    source = random.Random(0)
    made = [kind.make(source) for _ in range(min(count, _ALIKE) if alike else count)]
    return [made[number % len(made)] for number in range(count)]


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
