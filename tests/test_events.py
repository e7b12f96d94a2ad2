"""Event types: every kind of class, and reading what was written before the class changed."""

from collections.abc import Callable, Iterator
from dataclasses import InitVar, dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import attrs
import msgspec
import pydantic
import pytest

from runic_redis import DecodeError, EncodeError, InvalidArgument, UnknownEvent, UnknownEventType, event
from runic_redis.codec import Codec
from runic_redis.events import Registry, UnknownEvents


@pytest.fixture
def registry() -> Registry:
    return Registry()


def through(registry: Registry, value: Any) -> Any:
    """Encode and decode one event."""
    codec = Codec(registry, "raise")
    (entry,) = codec.encode_commit([value])
    (decoded,) = codec.decode_entry(entry.header, entry.payload)
    return decoded


def written(define: Callable[[Registry], Any]) -> Any:
    """What the class was when the event was written: the entry's header and payload."""
    registry = Registry()
    (entry,) = Codec(registry, "raise").encode_commit([define(registry)])
    return entry


def read(entry: Any, registry: Registry, unknown_events: UnknownEvents = "raise") -> Any:
    """Read the entry with today's classes."""
    (decoded,) = Codec(registry, unknown_events).decode_entry(entry.header, entry.payload)
    return decoded


def test_a_registered_class_is_returned_as_it_is(registry: Registry) -> None:
    @dataclass
    class Placed:
        number: int

    assert registry.event("placed")(Placed) is Placed


def test_fields_are_restored_and_not_computed_again(registry: Registry) -> None:
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
    assert runs == ["post_init"] * 2, "hooks run, for what they set up beside the fields"


def test_classes_without_hooks_are_not_initialised_again(registry: Registry) -> None:
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


def test_pydantic_models_come_back_whole(registry: Registry) -> None:
    @registry.event("model")
    class Model(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(frozen=True, extra="allow")
        name: str = pydantic.Field(alias="Name")
        items: list[int] = pydantic.Field(default_factory=list)
        _cache: dict[str, int] = pydantic.PrivateAttr(default_factory=dict)

    model = Model(Name="x", items=[1])
    decoded = through(registry, model)
    assert decoded == model
    assert decoded._cache == {}
    with pytest.raises(EncodeError, match="extra fields"):
        through(registry, Model(Name="x", more=1))


def test_hooks_of_attrs_msgspec_and_pydantic_run(registry: Registry) -> None:
    @registry.event("attrs")
    @attrs.define(slots=False)
    class Hooked:
        value: int

        def __attrs_post_init__(self) -> None:
            self.value += 1
            self.cache = [self.value]

    @registry.event("struct")
    class Struct(msgspec.Struct):
        value: int

        def __post_init__(self) -> None:
            self.value += 1

    @registry.event("model")
    class Model(pydantic.BaseModel):
        value: int

        def model_post_init(self, _: Any) -> None:
            self.value += 1

    for made in (Hooked(1), Struct(1), Model(value=1)):
        assert made.value == 2
        assert through(registry, made) == made
    assert through(registry, Hooked(1)).cache == [3]


def test_subclasses_are_types_of_their_own(registry: Registry) -> None:
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


def test_a_subclass_that_is_not_a_dataclass_itself_is_refused(registry: Registry) -> None:
    @dataclass
    class Base:
        one: int

    class Derived(Base):
        pass

    with pytest.raises(InvalidArgument, match="Derived is none of them"):
        registry.event("derived")(Derived)


def test_an_added_field_has_its_default(registry: Registry) -> None:
    def before(old: Registry) -> Any:
        @old.event("order")
        @dataclass
        class Order:
            number: int

        return Order(7)

    @registry.event("order")
    @dataclass
    class Order:
        number: int
        currency: str = "EUR"
        items: list[str] = field(default_factory=list)

    one, other = read(written(before), registry), read(written(before), registry)
    assert one == Order(7, "EUR", [])
    assert one.items is not other.items


@pytest.mark.parametrize("kind", ["attrs", "msgspec", "pydantic", "namedtuple"])
def test_an_added_field_has_its_default_in_every_kind_of_class(registry: Registry, kind: str) -> None:
    def before(old: Registry) -> Any:
        @old.event("order")
        @dataclass
        class Order:
            number: int

        return Order(7)

    made: Any
    if kind == "attrs":

        @registry.event("order")
        @attrs.define
        class Attrs:
            number: int
            currency: str = "EUR"
            items: list[str] = attrs.field(factory=list)

        made = Attrs(7)
    elif kind == "msgspec":

        @registry.event("order")
        class Struct(msgspec.Struct):
            number: int
            currency: str = "EUR"
            items: list[str] = msgspec.field(default_factory=list)

        made = Struct(7)
    elif kind == "pydantic":

        @registry.event("order")
        class Model(pydantic.BaseModel):
            number: int
            currency: str = "EUR"
            items: list[str] = pydantic.Field(default_factory=list)

        made = Model(number=7)
    else:

        @registry.event("order")
        class Tuple(NamedTuple):
            number: int
            currency: str = "EUR"

        made = Tuple(7)
    assert read(written(before), registry) == made


def test_an_added_field_without_a_default_is_named(registry: Registry) -> None:
    def before(old: Registry) -> Any:
        @old.event("order")
        @dataclass
        class Order:
            number: int

        return Order(7)

    @registry.event("order")
    @dataclass
    class Order:
        number: int
        currency: str

    with pytest.raises(DecodeError, match="no field 'currency'"):
        read(written(before), registry)


def test_dropped_and_reordered_fields_still_read(registry: Registry) -> None:
    def before(old: Registry) -> Any:
        @old.event("order")
        @dataclass
        class Order:
            number: int
            gone: str
            customer: str

        return Order(7, "x", "Ada")

    @registry.event("order")
    @dataclass
    class Order:
        customer: str
        number: int

    assert read(written(before), registry) == Order("Ada", 7)


def test_older_versions_are_upcast_step_by_step(registry: Registry) -> None:
    def version(number: int) -> Callable[[Registry], Any]:
        def before(old: Registry) -> Any:
            @old.event("order", version=number)
            @dataclass
            class Order:
                name: str

            return Order("Ada Lovelace")

        return before

    def split(fields: dict[str, Any]) -> dict[str, Any]:
        first, last = fields["name"].split()
        return {"first": first, "last": last}

    def greet(fields: dict[str, Any]) -> dict[str, Any]:
        fields.setdefault("first", fields.pop("name", None))
        return {**fields, "greeting": "Dear"}

    @registry.event("order", version=3, upcasters={1: split, 2: greet})
    @dataclass
    class Order:
        first: str
        greeting: str
        last: str = ""

    assert read(written(version(1)), registry) == Order("Ada", "Dear", "Lovelace")
    assert read(written(version(2)), registry) == Order("Ada Lovelace", "Dear", "")


def test_an_upcaster_that_fails_is_named(registry: Registry) -> None:
    def before(old: Registry) -> Any:
        @old.event("order")
        @dataclass
        class Order:
            number: int

        return Order(7)

    for bad, message in ((lambda fields: fields["nothing"], "failed"), (lambda _: None, "instead of a dict")):
        today = Registry()

        @today.event("order", version=2, upcasters={1: bad})  # type: ignore[dict-item]
        @dataclass
        class Order:
            number: int

        with pytest.raises(DecodeError, match=message):
            read(written(before), today)


@pytest.mark.parametrize("upcasters", [{1: dict}, {2: dict, 4: dict}, {3: dict}, {1: dict, 2: dict, 3: dict}])
def test_upcasters_with_gaps_are_refused(registry: Registry, upcasters: Any) -> None:
    with pytest.raises(InvalidArgument, match="upcasters"):
        registry.event("order", version=3, upcasters=upcasters)


def test_a_type_that_is_not_registered_is_named(registry: Registry) -> None:
    def before(old: Registry) -> Any:
        @old.event("order", version=4)
        @dataclass
        class Order:
            number: int
            nested: Any = None

        return Order(7, (Order(8), {"k": Order(9)}))

    entry = written(before)
    with pytest.raises(UnknownEventType) as caught:
        read(entry, registry)
    assert (caught.value.name, caught.value.version) == ("order", 4)
    unknown = read(entry, registry, "wrap")
    inner = [UnknownEvent("order", 4, {"number": number, "nested": None}) for number in (8, 9)]
    assert unknown == UnknownEvent("order", 4, {"number": 7, "nested": (inner[0], {"k": inner[1]})})
    # Written again, it is what it was.
    again = Codec(registry, "wrap").encode_commit([unknown])
    assert again == [entry]


def test_a_version_without_an_upcaster_is_unknown(registry: Registry) -> None:
    def version(number: int) -> Callable[[Registry], Any]:
        def before(old: Registry) -> Any:
            @old.event("order", version=number)
            @dataclass
            class Order:
                number: int

            return Order(7)

        return before

    @registry.event("order", version=3, upcasters={2: dict})
    @dataclass
    class Order:
        number: int

    assert read(written(version(2)), registry) == Order(7)
    for unknown in (1, 4):
        with pytest.raises(UnknownEventType, match=f"version {unknown}"):
            read(written(version(unknown)), registry)
        assert isinstance(read(written(version(unknown)), registry, "wrap"), UnknownEvent)


def test_a_type_registered_after_it_was_first_read_is_known(registry: Registry) -> None:
    def before(old: Registry) -> Any:
        @old.event("order")
        @dataclass
        class Order:
            number: int

        return Order(7)

    entry = written(before)
    codec = Codec(registry, "wrap")
    assert isinstance(codec.decode_entry(entry.header, entry.payload)[0], UnknownEvent)

    @registry.event("order")
    @dataclass
    class Order:
        number: int

    assert codec.decode_entry(entry.header, entry.payload) == [Order(7)]


def test_an_enum_member_that_is_gone_is_named(registry: Registry) -> None:
    def before(old: Registry) -> Any:
        @old.event("colour")
        class Colour(Enum):
            RED = 1

        return Colour.RED

    @registry.event("colour")
    class Colour(Enum):
        GREEN = 1

    with pytest.raises(DecodeError, match="no member 'RED'"):
        read(written(before), registry)


def test_a_name_is_of_one_class(registry: Registry) -> None:
    @registry.event("order")
    @dataclass
    class Order:
        number: int

    with pytest.raises(InvalidArgument, match="taken by"):

        @registry.event("order")
        @dataclass
        class Other:
            number: int

    with pytest.raises(InvalidArgument, match="registered already"):
        registry.event("another")(Order)


def test_a_class_may_be_defined_again(registry: Registry) -> None:
    def define() -> Any:
        @registry.event("order")
        @dataclass
        class Order:
            number: int

        return Order

    define()
    assert type(through(registry, define()(1))).__name__ == "Order"


@pytest.mark.parametrize("name", ["", "\ud800", "x" * 513, None, 5, b"order"])
def test_a_bad_name_is_refused(registry: Registry, name: Any) -> None:
    with pytest.raises(InvalidArgument):
        registry.event(name)


@pytest.mark.parametrize("version", [0, -1, "1", 1.0, True])
def test_a_bad_version_is_refused(registry: Registry, version: Any) -> None:
    with pytest.raises(InvalidArgument):
        registry.event("order", version=version)


class NotOne:
    pass


@pytest.mark.parametrize("cls", [NotOne, int, dict, len, "text", Enum])
def test_a_class_of_no_known_kind_is_refused(registry: Registry, cls: Any) -> None:
    with pytest.raises(InvalidArgument):
        registry.event("order")(cls)


def test_forgetting_the_parentheses_is_explained() -> None:
    with pytest.raises(InvalidArgument, match=r'write @event\("order_placed"\)'):

        @event  # type: ignore[arg-type]
        @dataclass
        class Order:
            number: int


def test_a_field_without_a_value_is_named(registry: Registry) -> None:
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


def iterate() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("value", [iterate(), iterate, {1: iterate()}])
def test_iterators_are_no_values(registry: Registry, value: Any) -> None:
    with pytest.raises(EncodeError):
        through(registry, {"value": value})
