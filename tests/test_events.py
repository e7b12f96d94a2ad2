"""Event types: every kind of class, and reading events that were written before their class changed."""

import dataclasses
import gc
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import InitVar, dataclass, field
from datetime import datetime, tzinfo
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeVar

import attrs
import msgspec
import pydantic
import pytest

from runic_redis import (
    EncodeError,
    IncompatibleEvent,
    InvalidArgument,
    UnknownEvent,
    UnknownEventType,
    event,
)
from runic_redis.codec import Codec
from runic_redis.events import EventRegistry, UnknownEvents
from tests.codecs import rows_by_msgpack


@pytest.fixture(autouse=True, scope="module", params=[True, False], ids=["msgspec", "msgpack"])
def _each_codec(request: pytest.FixtureRequest) -> Iterator[None]:
    with nullcontext() if request.param else rows_by_msgpack():
        yield


@pytest.fixture
def registry() -> EventRegistry:
    return EventRegistry()


def through(registry: EventRegistry, value: Any) -> Any:
    """Encode and decode one event."""
    codec = Codec(registry, "raise")
    (entry,) = codec.encode_commit([value])
    (decoded,) = codec.decode_entry(entry.header, entry.payload)
    return decoded


@dataclass
class Order:
    """The event that most of the tests write."""

    number: int


def written(value: Any, name: str = "order", version: int = 1) -> Any:
    """Return the entry of one event, written by an application with its class under a name and a version."""
    registry = EventRegistry()
    registry.event(name, version=version)(type(value))
    (entry,) = Codec(registry, "raise").encode_commit([value])
    return entry


def read(entry: Any, registry: EventRegistry, unknown_events: UnknownEvents = "raise") -> Any:
    """Read the entry with today's classes."""
    (decoded,) = Codec(registry, unknown_events).decode_entry(entry.header, entry.payload)
    return decoded


def test_a_registered_class_is_returned_as_it_is(registry: EventRegistry) -> None:
    assert registry.event("placed")(Order) is Order


def test_fields_are_restored_and_not_computed_again(registry: EventRegistry) -> None:
    runs: list[str] = []

    @registry.event("order")
    @dataclass(frozen=True)
    class Order:
        total: float
        factor: InitVar[float] = 2.0
        doubled: float = field(init=False, default=0.0)
        note: str = field(default="", kw_only=True)

        def __post_init__(self, factor: float) -> None:
            runs.append("post_init")
            object.__setattr__(self, "doubled", self.total * factor)
            object.__setattr__(self, "total", self.total + 1)

    order = Order(1.0, factor=10.0, note="n")
    assert (order.total, order.doubled) == (2.0, 10.0)
    decoded = through(registry, order)
    assert decoded == order
    assert (decoded.total, decoded.doubled, decoded.note) == (2.0, 10.0, "n")
    assert runs == ["post_init"], "when it was made, and not when it was read"


def test_classes_without_hooks_are_not_initialised_again(registry: EventRegistry) -> None:
    @registry.event("checked")
    @attrs.define
    class Checked:
        value: int = attrs.field(converter=int, validator=attrs.validators.gt(0))

    @registry.event("model")
    class Model(pydantic.BaseModel):
        value: pydantic.PositiveInt

    checked = Checked(5)
    object.__setattr__(checked, "value", -1)
    assert through(registry, checked).value == -1
    assert through(registry, Model.model_construct(value=-1)).value == -1


def test_pydantic_models_come_back_whole(registry: EventRegistry) -> None:
    @registry.event("model")
    class Model(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(frozen=True, extra="allow")
        name: str = pydantic.Field(alias="Name")
        items: list[int] = pydantic.Field(default_factory=list)
        _cache: dict[str, int] = pydantic.PrivateAttr(default_factory=dict)

    model = Model(Name="x", items=[1])
    model._cache["seen"] = 1
    decoded = through(registry, model)
    assert decoded == model
    assert decoded._cache == {"seen": 1}
    with_more = through(registry, Model(Name="x", more=1))
    assert (with_more.more, with_more.model_fields_set) == (1, {"name", "more"})


def test_hooks_are_not_run_again(registry: EventRegistry) -> None:
    @registry.event("dataclass")
    @dataclass
    class Hooked:
        value: list[Any]
        required: InitVar[str]

        def __post_init__(self, required: str) -> None:
            self.value.append(required)

    @registry.event("attrs")
    @attrs.define
    class Converted:
        value: datetime = attrs.field(converter=datetime.fromisoformat)
        log: list[str] = attrs.field(factory=list)

        def __attrs_post_init__(self) -> None:
            self.log.append("made")

    @registry.event("model")
    class Model(pydantic.BaseModel):
        value: list[str]

        def model_post_init(self, _: Any) -> None:
            self.value.append("made")

    @registry.event("hand")
    @dataclass(init=False)
    class ByHand:
        value: int

        def __init__(self) -> None:
            self.value = 5

    for made in (Hooked([1], "x"), Converted("2026-01-02"), Model(value=[]), ByHand()):
        assert through(registry, made) == made


def test_a_struct_s_hook_runs_and_the_fields_are_what_was_stored(registry: EventRegistry) -> None:
    @registry.event("struct")
    class Struct(msgspec.Struct):
        value: int

        def __post_init__(self) -> None:
            assert self.value < 10, "too many"
            self.value += 1

    assert through(registry, Struct(1)).value == 2
    broken = Struct(1)
    broken.value = 50
    with pytest.raises(EncodeError, match="too many"):  # or nobody could read it
        through(registry, broken)


def test_attrs_classes_that_cache_their_hash_can_be_hashed(registry: EventRegistry) -> None:
    @registry.event("slotted")
    @attrs.frozen(cache_hash=True)
    class Slotted:
        value: int

    @registry.event("plain")
    @attrs.frozen(cache_hash=True, slots=False)
    class Plain:
        value: int

    for made in (Slotted(1), Plain(1)):
        decoded = through(registry, {"set": {made}, made: 1})
        assert decoded == {"set": {made}, made: 1}
        assert hash(through(registry, made)) == hash(made)


def test_an_enum_may_name_its_members_otherwise(registry: EventRegistry) -> None:
    @registry.event("colour")
    class Colour(Enum):
        RED = 1

        @property
        def name(self) -> str:  # type: ignore[override]
            return "renamed"

    assert through(registry, Colour.RED) is Colour.RED


def iterate() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    "value",
    [
        UnknownEvent("x", 1, {1: 2}),  # type: ignore[dict-item]
        UnknownEvent(5, "a", {}),  # type: ignore[arg-type]
        UnknownEvent(None, 0, {}),  # type: ignore[arg-type]
        UnknownEvent("\ud800", 1, {}),
        UnknownEvent("x", 1, {"\ud800": 1}),
        UnknownEvent("x", 2**70, {}),
        UnknownEvent("x", 1, None),  # type: ignore[arg-type]
        iterate(),
        iterate,
        {1: iterate()},
    ],
)
def test_unknown_events_that_nobody_wrote_and_iterators_are_refused(registry: EventRegistry, value: Any) -> None:
    for refused in (value, {"nested": value}):
        with pytest.raises(EncodeError):
            through(registry, refused)


class WildZone(tzinfo):
    def utcoffset(self, _: datetime | None) -> None:
        raise KeyError("no zone")


@pytest.mark.parametrize("zone", [tzinfo(), WildZone()], ids=["abstract", "wild"])
def test_a_zone_that_fails_is_named(registry: EventRegistry, zone: tzinfo) -> None:
    with pytest.raises(EncodeError) as caught:
        through(registry, {"at": [datetime(2026, 1, 2, tzinfo=zone)]})
    assert caught.value.path == "events[0]['at'][0]"


def test_subclasses_are_types_of_their_own(registry: EventRegistry) -> None:
    @registry.event("base")
    @dataclass
    class Base:
        one: int

    @dataclass
    class Derived(Base):
        two: int = 2

    with pytest.raises(EncodeError, match="Derived"):
        through(registry, Derived(1))
    registry.event("derived")(Derived)
    decoded = through(registry, Derived(1, 3))
    assert decoded == Derived(1, 3)
    assert type(decoded) is Derived


class Bare:
    pass


class EmptySlots:
    __slots__ = ()


class OneSlot:
    __slots__ = ("one",)


class Refusing:
    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} is not for you")


T = TypeVar("T")


class Parametrized(Generic[T]):
    pass


@pytest.mark.parametrize(
    "bases", [(), (Bare,), (EmptySlots,), (OneSlot,), (Refusing,), (Parametrized,), (ABC,), (EmptySlots, ABC)]
)
@pytest.mark.parametrize(
    "decorate",
    [
        dataclass,
        dataclass(frozen=True),
        dataclass(slots=True),
        dataclass(slots=True, frozen=True),
        attrs.define,
        attrs.frozen,
        attrs.define(slots=False),
        attrs.frozen(slots=False),
    ],
)
def test_classes_of_every_layout_come_back(registry: EventRegistry, bases: Any, decorate: Any) -> None:
    class Made(*bases):  # type: ignore[misc]
        one: Any
        _private: Any
        __mangled: Any

    cls: Any = registry.event("made")(decorate(Made))
    assert registry.of(cls).schema.fields[-3:] == ("one", "_private", "__mangled")  # type: ignore[union-attr]
    fields = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
    names = [field.name for field in fields]
    commit = [object.__new__(cls) for _ in range(3)]
    for number, made in enumerate(commit):
        for name in names:
            object.__setattr__(made, name, [name, number])
    codec = Codec(registry, "raise")
    (entry,) = codec.encode_commit(commit)
    decoded = codec.decode_entry(entry.header, entry.payload)
    assert decoded == commit
    for made, twin in zip(commit, decoded, strict=True):
        assert type(twin) is cls
        assert getattr(twin, "__dict__", None) == getattr(made, "__dict__", None)
        assert gc.is_tracked(twin)


def test_events_of_many_types_come_back_in_their_order(registry: EventRegistry) -> None:
    @registry.event("one")
    @dataclass(frozen=True)
    class One:
        number: int

    @registry.event("two")
    class Two(msgspec.Struct):
        number: int
        more: int = 0

    commit = [One(0), Two(1), {"number": 2}, Two(3, 4), One(5), One(6), {"number": 7}]
    codec = Codec(registry, "raise")
    (entry,) = codec.encode_commit(commit)
    assert codec.decode_entry(entry.header, entry.payload) == commit


@dataclass
class AddedToDataclass:
    number: int
    currency: str = "EUR"
    items: list[str] = field(default_factory=list)


@attrs.define
class AddedToAttrs:
    number: int
    currency: str = "EUR"
    items: list[str] = attrs.field(factory=list)


class AddedToStruct(msgspec.Struct):
    number: int
    currency: str = "EUR"
    items: list[str] = msgspec.field(default_factory=list)


class AddedToModel(pydantic.BaseModel):
    number: int
    currency: str = "EUR"
    items: list[str] = []
    more: list[str] = pydantic.Field(default_factory=list)


@pydantic.dataclasses.dataclass
class AddedToPydanticDataclass:
    number: int
    currency: str = pydantic.Field(default="EUR")
    items: list[str] = pydantic.Field(default_factory=list)


class AddedToTuple(NamedTuple):
    number: int
    currency: str = "EUR"


@pytest.mark.parametrize(
    "cls", [AddedToDataclass, AddedToAttrs, AddedToStruct, AddedToModel, AddedToPydanticDataclass, AddedToTuple]
)
def test_an_added_field_has_its_default_made_for_each_event(registry: EventRegistry, cls: Any) -> None:
    registry.event("order")(cls)
    one, other = read(written(Order(7)), registry), read(written(Order(7)), registry)
    assert one == cls(number=7)
    assert type(one) is cls
    if cls is not AddedToTuple:
        one.items.append("only in one")
        assert (other.items, cls(number=1).items) == ([], [])


def stop() -> Any:
    raise StopIteration


@dataclass
class WithoutDefault:
    number: int
    currency: str


@dataclass
class StoppingDefault:
    number: int
    more: Any = field(default_factory=stop)


class Red(Enum):
    RED = 1


class Green(Enum):
    GREEN = 1


@pytest.mark.parametrize(
    ("value", "cls", "upcaster", "message"),
    [
        (Order(7), WithoutDefault, None, "no field 'currency'"),
        (Order(7), StoppingDefault, None, "StopIteration"),
        (Order(7), Order, lambda fields: fields["nothing"], "failed"),
        (Order(7), Order, lambda _: None, "an upcaster returned"),
        (Red.RED, Green, None, "no member 'RED'"),
    ],
)
def test_an_event_that_its_class_no_longer_fits_is_named(
    registry: EventRegistry, value: Any, cls: Any, upcaster: Any, message: str
) -> None:
    versions = {"version": 2, "upcasters": {1: upcaster}} if upcaster else {}
    registry.event("order", **versions)(cls)
    with pytest.raises(IncompatibleEvent, match=message):
        read(written(value), registry)


def test_dropped_and_reordered_fields_still_read(registry: EventRegistry) -> None:
    @dataclass
    class Before:
        number: int
        gone: str
        customer: str

    @registry.event("order")
    @dataclass
    class Now:
        customer: str
        number: int

    assert read(written(Before(7, "x", "Ada")), registry) == Now("Ada", 7)


def test_older_versions_are_upcast_step_by_step(registry: EventRegistry) -> None:
    @dataclass
    class Before:
        name: str

    def split(fields: dict[str, Any]) -> dict[str, Any]:
        first, last = fields["name"].split()
        return {"first": first, "last": last}

    def greet(fields: dict[str, Any]) -> dict[str, Any]:
        fields.setdefault("first", fields.pop("name", None))
        return {**fields, "greeting": "Dear"}

    @registry.event("order", version=3, upcasters={1: split, 2: greet})
    @dataclass
    class Now:
        first: str
        greeting: str
        last: str = ""

    ada = Before("Ada Lovelace")
    assert read(written(ada, version=1), registry) == Now("Ada", "Dear", "Lovelace")
    assert read(written(ada, version=2), registry) == Now("Ada Lovelace", "Dear", "")


def test_a_type_that_is_not_registered_is_named(registry: EventRegistry) -> None:
    @dataclass
    class Nested:
        number: int
        nested: Any = None

    entry = written(Nested(7, (Nested(8), {"k": Nested(9)})), version=4)
    with pytest.raises(UnknownEventType) as caught:
        read(entry, registry)
    assert (caught.value.name, caught.value.version) == ("order", 4)
    unknown = read(entry, registry, "wrap")
    inner = [UnknownEvent("order", 4, {"number": number, "nested": None}) for number in (8, 9)]
    assert unknown == UnknownEvent("order", 4, {"number": 7, "nested": (inner[0], {"k": inner[1]})})
    # Writing it again gives the same entry.
    again = Codec(registry, "wrap").encode_commit([unknown])
    assert again == [entry]


def test_a_version_without_an_upcaster_is_unknown(registry: EventRegistry) -> None:
    registry.event("order", version=3, upcasters={2: dict})(Order)
    assert read(written(Order(7), version=2), registry) == Order(7)
    for unknown in (1, 4):
        entry = written(Order(7), version=unknown)
        with pytest.raises(UnknownEventType, match=f"version {unknown}"):
            read(entry, registry)
        assert isinstance(read(entry, registry, "wrap"), UnknownEvent)


def test_a_type_registered_after_it_was_first_read_is_known(registry: EventRegistry) -> None:
    entry = written(Order(7))
    codec = Codec(registry, "wrap")
    assert isinstance(codec.decode_entry(entry.header, entry.payload)[0], UnknownEvent)
    registry.event("order")(Order)
    assert codec.decode_entry(entry.header, entry.payload) == [Order(7)]


def test_a_class_may_be_defined_again(registry: EventRegistry) -> None:
    def define() -> Any:
        @registry.event("order")
        @dataclass
        class Order:
            number: int

        return Order

    define()
    assert type(through(registry, define()(1))).__name__ == "Order"


@pytest.mark.parametrize(
    ("name", "version"),
    [
        *((name, 1) for name in ("", "\ud800", "x" * 513, None, 5, b"order")),
        *(("order", version) for version in (0, -1, "1", 1.0, True, 2**31)),
    ],
)
def test_a_bad_name_or_version_is_refused(registry: EventRegistry, name: Any, version: Any) -> None:
    with pytest.raises(InvalidArgument):
        registry.event(name, version=version)


@pytest.mark.parametrize(
    ("version", "upcasters"),
    [
        *((2, {"1": dict}), (2, [dict]), (2, {1: 5}), (2, 5)),
        # With gaps.
        *((3, {1: dict}), (3, {2: dict, 4: dict}), (3, {3: dict}), (3, {1: dict, 2: dict, 3: dict})),
    ],
)
def test_bad_upcasters_are_refused(registry: EventRegistry, version: int, upcasters: Any) -> None:
    with pytest.raises(InvalidArgument, match="upcasters"):
        registry.event("order", version=version, upcasters=upcasters)


class NotOne:
    pass


@dataclass
class Failed(Exception):
    reason: str


@dataclass
class Items(list[int]):
    name: str


class Abstract(ABC):
    @abstractmethod
    def act(self) -> None: ...


@dataclass
class Partial(Abstract):
    name: str


class Derived(Order):
    """A subclass of a dataclass, without the decorator."""


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        *((cls, "none of them") for cls in (NotOne, int, dict, Derived)),
        *((thing, "not") for thing in (len, "text")),
        *((cls, "cannot register") for cls in (Failed, Items, Partial, Enum)),
    ],
)
def test_a_class_of_no_known_kind_is_refused(registry: EventRegistry, cls: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        registry.event("order")(cls)


def test_forgetting_the_parentheses_is_explained() -> None:
    with pytest.raises(InvalidArgument, match=r'write @event\("order_placed"\)'):

        @event  # type: ignore[arg-type]
        @dataclass
        class Order:
            number: int


def test_a_field_without_a_value_is_named(registry: EventRegistry) -> None:
    @registry.event("order")
    @dataclass(slots=True)
    class Order:
        number: int
        customer: str

    order = Order(1, "Ada")
    del order.customer
    with pytest.raises(EncodeError, match="customer"):
        through(registry, order)
    with pytest.raises(EncodeError, match="customer"):
        through(registry, {"nested": [order]})
