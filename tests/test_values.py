"""Values of every type come back unchanged: on every kind of server, for both stores, in events, facts and logs."""

import collections
import dataclasses
import datetime as dt
import enum
import functools
import ipaddress
import logging
import math
import pathlib
import re
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import attrs
import freezegun
import msgspec
import numpy
import pandas
import pendulum
import pydantic
import pydantic_core
import pytest

from runic_redis import EncodeError, EventRegistry, EveryEvents, InvalidArgument, RedisStore, event, session
from runic_redis.codec import Codec
from runic_redis.events import default_registry
from tests import servers, test_events
from tests.portal import open_store

BERLIN = ZoneInfo("Europe/Berlin")
AUTUMN = dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)

VALUES: list[Any] = [
    pathlib.PurePosixPath("/a/b"),
    pathlib.PureWindowsPath("c:/a"),
    pathlib.Path("a"),
    pathlib.Path("name-\udcff"),  # os.listdir returns such a str for a name that is not UTF-8
    collections.deque([1, "x", (2,)], maxlen=5),
    collections.deque(),
    collections.OrderedDict(z=1, a=2),
    collections.OrderedDict([((1, 2), "k"), ("a", {})]),
    collections.defaultdict(list, a=[1]),
    collections.defaultdict(None, {1: 2}),
    collections.defaultdict(collections.Counter, a=collections.Counter("aab")),
    collections.Counter("mississippi"),
    Fraction(1, 3),
    Fraction(-7),
    1j,
    complex(-0.0, math.inf),
    range(3),
    range(10, -1, -3),
    bytearray(b"x\x00"),
    [bytearray(b""), {"k": bytearray(b"y")}],
    re.compile("a(b)?", re.IGNORECASE | re.VERBOSE),
    re.compile(rb"\d"),
    ipaddress.ip_address("10.0.0.1"),
    ipaddress.ip_address("fe80::1%eth0"),
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_network("::/0"),
    ipaddress.ip_interface("10.0.0.1/8"),
    BERLIN,
    dt.UTC,
    dt.timezone(dt.timedelta(hours=-3), "BRT"),
    AUTUMN,
    AUTUMN.replace(fold=1),
    dt.datetime(1890, 1, 1, tzinfo=BERLIN),  # its offset has seconds, as it is a local mean time
    dt.time(9, 30, tzinfo=BERLIN),
    dt.time(9, 30, fold=1, tzinfo=ZoneInfo("UTC")),
    msgspec.UNSET,
    msgspec.Raw(b"\x93\x01\x02\x03"),
    pydantic.HttpUrl("https://example.org/a?b#c"),
    pydantic.AnyUrl("git+ssh://example.org"),
    pydantic.PostgresDsn("postgres://u:p@h1,h2/db"),
    pydantic_core.Url("https://example.org/a?b#c"),
    pydantic_core.MultiHostUrl("postgres://u:p@h1,h2/db"),
    pydantic.SecretStr("s3cret"),
    pydantic.SecretBytes(b"s3cret"),
    pydantic.Secret[int](3),
    pydantic.ByteSize(1024),
    pydantic.NameEmail("Ada", "ada@example.org"),
]


def same(one: Any, other: Any) -> bool:
    """Are values equal and of the same type, including their parts?"""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple | collections.deque):
        return (
            len(one) == len(other)
            and all(map(same, one, other))
            and getattr(one, "maxlen", 0) == getattr(other, "maxlen", 0)
        )
    if isinstance(one, dict):
        factories = [getattr(value, "default_factory", None) for value in (one, other)]
        return (
            factories[0] is factories[1] and list(one) == list(other) and all(map(same, one.values(), other.values()))
        )
    if isinstance(one, dt.datetime | dt.time):
        return (one.replace(tzinfo=None), one.fold, one.tzinfo) == (
            other.replace(tzinfo=None),
            other.fold,
            other.tzinfo,
        )
    if isinstance(one, range):
        return (one.start, one.stop, one.step) == (other.start, other.stop, other.step)
    if isinstance(one, dt.timezone):
        return (one.utcoffset(None), one.tzname(None)) == (other.utcoffset(None), other.tzname(None))
    if isinstance(one, msgspec.Raw):
        return bytes(one) == bytes(other)
    return bool(one == other) and repr(one) == repr(other)


def through(value: Any, registry: EventRegistry = default_registry) -> Any:
    """Write an event, and read it again."""
    return test_events.through(registry, value)


@pytest.fixture(params=["sync", "asyncio"])
def face(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["memory", "valkey", "redis_6_2", "cluster_nodes"])
def anywhere(request: pytest.FixtureRequest, face: str, namespace: str) -> Callable[..., Any]:
    """Open a store of either kind on every kind of server."""
    if request.param == "memory":
        request.getfixturevalue("few_buckets")
    return functools.partial(
        open_store, face, servers.url_on(request, request.param, namespace), namespace, partitions=4
    )


@dataclass
class Made:
    """A class with every feature that is hard to restore."""

    stops: list[str]
    __token: str = "none"
    extra: Any = None

    def __post_init__(self) -> None:
        self._index = {stop: number for number, stop in enumerate(self.stops)}

    def place(self, stop: str) -> int:
        return self._index[stop]

    def token(self) -> str:
        return self.__token


class Patch(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    customer: int
    nickname: str | None = None
    phone: str | None = None
    inner: "Patch | None" = None


event("tests.values.made")(Made)
event("tests.values.patch")(Patch)


def test_values_come_back_unchanged_from_everywhere(anywhere: Callable[..., Any]) -> None:
    made = Made(["a", "b"], "t-1")
    patch = Patch(customer=7, nickname=None, colour="red", inner=Patch(customer=8, phone=None))
    with anywhere() as store:
        store.append("w", [{"values": VALUES}, made, patch, {"in": [made, {"k": patch}]}])
        store.save("log", [{"values": VALUES}, patch])
        fact = store.load_fact(store.put_fact([VALUES, patch, made]))
        first, again, patched, inside = store.stream("w")
        logged, logged_patch = store.load("log")
        assert same(first["values"], VALUES)
        assert same(logged["values"], VALUES)
        assert same(fact[0], VALUES)
        for one in (again, inside["in"][0], fact[2]):
            assert (one.place("b"), one.token(), one) == (1, "t-1", made)
        for one in (patched, inside["in"][1]["k"], logged_patch, fact[1]):
            assert one == patch
            assert one.model_fields_set == {"customer", "nickname", "colour", "inner"}
            assert one.model_dump(exclude_unset=True) == patch.model_dump(exclude_unset=True)
            assert one.inner.model_fields_set == {"customer", "phone"}


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_wherever_it_stands(value: Any) -> None:
    assert same(through({"k": value})["k"], value)
    assert same(through(Made([], extra=value)).extra, value)
    codec = Codec(default_registry, "raise")
    fact_hash, data = codec.encode_own_fact(value)
    assert same(codec.decode_fact(fact_hash.encode(), data), value)
    assert same(codec.decode_state(codec.encode_state([value])), [value])
    # A tool has no classes, and reads the same value.
    assert same(through({"k": value}, EventRegistry())["k"], value)


def test_a_fact_keeps_the_order_of_its_dicts_and_its_hash_has_none(anywhere: Callable[..., Any]) -> None:
    value = {"z": 1, "aa": {"y": 1, "b": 2}, "b": [{"d": 0, "c": 1}]}
    other = {"b": [{"c": 1, "d": 0}], "aa": {"b": 2, "y": 1}, "z": 1}
    with anywhere() as store:
        fact_hash = store.put_fact(value)
        assert store.put_fact(other) == fact_hash
        found = store.load_fact(fact_hash)
        assert (list(found), list(found["aa"]), list(found["b"][0])) == (["z", "aa", "b"], ["y", "b"], ["d", "c"])
        store.save_fact("mine", value)
        store.save_fact("mine", other)
        assert list(store.load_fact("mine")) == ["z", "aa", "b"]
        with pytest.raises(InvalidArgument, match="Another value"):
            store.save_fact("mine", {**value, "z": 2})
        # The order is part of the value of an OrderedDict.
        ordered = [collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1)]
        hashes = [store.put_fact(one) for one in ordered]
        assert hashes[0] != hashes[1]
        assert [list(store.load_fact(one)) for one in hashes] == [["a", "b"], ["b", "a"]]


def test_a_state_comes_back_unchanged_from_its_snapshot(store: RedisStore) -> None:
    def apply(state: Any, step: Any) -> Any:
        return {**state, step["name"]: (Patch(customer=len(state)), collections.deque([AUTUMN]))}

    with session(store, "w", apply, dict, snapshots=EveryEvents(2)) as one:
        for name in ("zeta", "alpha", "mu", "be"):
            one.record({"name": name})
        live = one.state
    with session(store, "w", apply, dict) as again:
        assert again.recovery.snapshot_cursor == 4
        assert list(again.state) == list(live) == ["zeta", "alpha", "mu", "be"]
        assert again.state == live
        assert again.state["mu"][0].model_fields_set == {"customer"}
        assert again.state["mu"][1][0].tzinfo is BERLIN


def test_a_zone_of_a_subclass_comes_back_as_a_plain_one() -> None:
    sent = dt.datetime(2026, 7, 1, tzinfo=pendulum.timezone("Europe/Berlin"))
    assert same(through({"at": sent})["at"], sent.replace(tzinfo=BERLIN))
    assert same(through({"at": sent.timetz()})["at"], dt.time(0, 0, tzinfo=BERLIN))


def test_arithmetic_in_a_zone_goes_on_after_a_replay() -> None:
    sent = dt.datetime(2026, 3, 28, 9, tzinfo=BERLIN)
    back = through({"at": sent})["at"]
    assert (back + dt.timedelta(days=1)).isoformat() == "2026-03-29T09:00:00+02:00"


@pytest.mark.parametrize("key", ["Mars/Olympus", "../../etc/passwd", "x" * 300, "", "Europe/Berlin/x", "tzdata"])
def test_a_time_of_a_zone_that_is_not_known_keeps_its_offset(key: str) -> None:
    codec = Codec(default_registry, "raise")
    (entry,) = codec.encode_commit([{"at": AUTUMN}])
    packed = entry.payload.replace(b"[Europe/Berlin]", b"")
    text = b"2026-10-25T02:30:00+02:00"
    assert text in packed
    grown = text + f"[{key}]".encode()
    head = b"\xc7" + bytes([len(grown)]) if len(grown) < 256 else b"\xc8" + len(grown).to_bytes(2, "big")
    start = packed.index(b"\xc7")
    (event,) = codec.decode_entry(entry.header, packed[:start] + head + b"\x05" + grown)
    assert event["at"].isoformat() == "2026-10-25T02:30:00+02:00"
    assert event["at"].tzinfo == dt.timezone(dt.timedelta(hours=2))


def test_a_time_whose_zone_has_other_rules_now_keeps_its_offset() -> None:
    codec = Codec(default_registry, "raise")
    (entry,) = codec.encode_commit([{"at": AUTUMN}])
    payload = entry.payload.replace(b"+02:00[", b"+05:00[")
    (event,) = codec.decode_entry(entry.header, payload)
    assert event["at"].isoformat() == "2026-10-25T02:30:00+05:00"


def test_dates_that_are_faked_are_stored_as_real_ones(anywhere: Callable[..., Any]) -> None:
    with freezegun.freeze_time("2026-02-03 04:05:06"), anywhere() as store:
        now, today = dt.datetime.now(dt.UTC), dt.date.today()
        assert type(now).__module__ == "freezegun.api"
        store.append("w", [{"at": now, today: [today]}, Made(["x"], extra=now)])
        first, second = store.stream("w")
        store.put_fact({"at": now})
    real = dt.datetime(2026, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    assert same(first, {"at": real, real.date(): [real.date()]})
    assert same(second.extra, real)


class Positive:
    """A field that converts and checks a value, and stores it under another name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.place = "_checked_" + name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return 1 if instance is None else getattr(instance, self.place)

    def __set__(self, instance: Any, value: Any) -> None:
        if value <= 0:
            raise ValueError(value)
        setattr(instance, self.place, int(value))


def _described() -> Any:
    @dataclass
    class Counted:
        shelf: str
        quantity: Any = Positive()

    return Counted("a", 5)


def _property_backed() -> Any:
    @dataclass
    class Named:
        name: str
        _name: str = field(init=False, repr=False)

        @property  # type: ignore[no-redef]
        def name(self) -> str:
            return self._name.title()

        @name.setter
        def name(self, name: str) -> None:
            self._name = name

    return Named("ada")


def _read_only() -> Any:
    @dataclass
    class Computed:
        one: int
        total: int = field(init=False)

        def __post_init__(self) -> None:
            self._total = self.one + 1

    Computed.total = property(lambda self: self._total)  # type: ignore[assignment]
    return Computed(1)


def _changing() -> Any:
    @dataclass
    class Grows:
        size: int

    def set_size(self: Any, value: int) -> None:
        _sizes[id(self)] = value + 1

    _sizes: dict[int, int] = {}
    made = Grows(5)
    Grows.size = property(lambda self: _sizes[id(self)], set_size)  # type: ignore[assignment]
    _sizes[id(made)] = 5
    del made.__dict__["size"]
    return made


def _manual_slots() -> Any:
    @dataclass
    class Slotted:
        __slots__ = ("_index", "items")
        items: list[int]

        def __post_init__(self) -> None:
            self._index = {item: place for place, item in enumerate(self.items)}

    return Slotted([4, 5])


def _attrs_hook() -> Any:
    @attrs.define(slots=False)
    class Hooked:
        items: list[int]

        def __attrs_post_init__(self) -> None:
            self.first = self.items[0]

    return Hooked([4, 5])


def _frozen_hook() -> Any:
    @dataclass(frozen=True)
    class Frozen:
        items: tuple[int, ...]

        def __post_init__(self) -> None:
            object.__setattr__(self, "first", self.items[0])

    return Frozen((4, 5))


def _tuple_with_attributes() -> Any:
    class Point(NamedTuple("Point", [("x", int)])):  # type: ignore[misc] # noqa: SLOT002
        pass

    point = Point(3)
    point.label = "p"
    return point


def _struct_with_attributes() -> Any:
    class Struct(msgspec.Struct, dict=True):
        x: int

        def __post_init__(self) -> None:
            self.double = self.x * 2

    return Struct(3)


def _slots_above_a_dict() -> Any:
    class Base:
        pass

    @dataclass(slots=True)
    class Slotted(Base):
        x: int

    made = Slotted(3)
    made.note = "as many attributes as fields"  # type: ignore[attr-defined]
    return made


def _one_for_another() -> Any:
    @dataclass
    class Swapped:
        x: int
        y: int = 2

    made = Swapped(3)
    del made.y
    made.note = "as many attributes as before"  # type: ignore[attr-defined]
    return made


def _frozen_memo() -> Any:
    @dataclass(frozen=True)
    class Frozen:
        x: int

    made = Frozen(3)
    object.__setattr__(made, "memo", 9)
    return made


def _private_to_a_base() -> Any:
    class Base:
        def __post_init__(self) -> None:
            self.__memo = "of the base"

    @dataclass
    class Derived(Base):
        x: int

        def __post_init__(self) -> None:
            super().__post_init__()
            self.__memo = "of the class"

    return Derived(3)


def _attrs_cached() -> Any:
    @attrs.define
    class Cached:
        x: int

        @functools.cached_property
        def lock(self) -> str:
            return repr(threading.Lock()) and "computed"

    return Cached(3)


def _struct_that_appends() -> Any:
    class Struct(msgspec.Struct):
        items: list[int]

        def __post_init__(self) -> None:
            self.items.append(1)

    return Struct([])


class Kept:
    """A field that stores its value under another name."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return 1 if instance is None else instance.kept

    def __set__(self, instance: Any, value: Any) -> None:
        instance.kept = value


def _nan_behind_a_descriptor() -> Any:
    @dataclass
    class Counted:
        shelf: str
        quantity: Any = Kept()

    return Counted("a", math.nan)


def _model_with_an_attribute() -> Any:
    class Model(pydantic.BaseModel):
        x: int
        y: int = 2

    return Model(x=1).model_copy(update={"no_field": 3})


def _model_without_private_value() -> Any:
    class Model(pydantic.BaseModel):
        x: int
        _client: Any
        _token: int = pydantic.PrivateAttr()

        def connect(self) -> None:
            self._token = 7

    made = Model(x=1)
    made.connect()
    return made


T = TypeVar("T")


def _generic() -> Any:
    @dataclass
    class Box(Generic[T]):
        item: T

    return Box[int](3)


@pytest.mark.parametrize(
    "make",
    [
        *(_described, _property_backed, _read_only, _manual_slots, _attrs_hook, _frozen_hook, _tuple_with_attributes),
        *(_struct_with_attributes, _generic, _slots_above_a_dict, _frozen_memo, _private_to_a_base),
        *(
            _attrs_cached,
            _struct_that_appends,
        ),
    ],
)
def test_an_instance_comes_back_with_all_that_it_held(make: Callable[[], Any]) -> None:
    made, registry = make(), EventRegistry()
    registry.event("made")(type(made))
    for back in (through(made, registry), through({"in": made}, registry)["in"]):
        assert back == made
        names = [name for name in (*dir(made),) if not name.startswith("__")]
        for name in names:
            before, after = getattr(made, name), getattr(back, name)
            assert callable(before) or before == after, name
        assert (
            {k: v for k, v in vars(made).items() if k != "__orig_class__"} == vars(back)
            if hasattr(made, "__dict__")
            else True
        )


@pytest.mark.parametrize(
    "make", [_one_for_another, _nan_behind_a_descriptor, _model_with_an_attribute, _model_without_private_value]
)
def test_an_instance_comes_back_with_what_few_have(make: Callable[[], Any]) -> None:
    made, registry = make(), EventRegistry()
    registry.event("made")(type(made))
    for back in (through(made, registry), through({"in": made}, registry)["in"]):
        assert {name: repr(vars(back)[name]) for name in vars(made)} == {k: repr(v) for k, v in vars(made).items()}
        assert repr(back) == repr(made)
        if isinstance(made, pydantic.BaseModel):
            assert back == made
            assert back.model_fields_set == made.model_fields_set


def test_each_of_many_events_comes_back_with_what_it_held() -> None:
    registry = EventRegistry()

    @registry.event("made")
    @dataclass
    class Made:
        x: int
        y: int = 2

    events: list[Any] = [Made(number) for number in range(6)]
    events[1].note = "more"
    del events[2].y
    events[3].__dict__ = {"y": 1, "x": 7}
    events[4].note = "again"
    sent = [{"y": 2, **vars(event)} for event in events]
    codec = Codec(registry, "raise")
    (entry,) = codec.encode_commit(events)
    assert [vars(event) for event in codec.decode_entry(entry.header, entry.payload)] == sent


def test_an_instance_that_would_come_back_as_another_is_rejected() -> None:
    made, registry = _changing(), EventRegistry()
    registry.event("made")(type(made))
    with pytest.raises(EncodeError, match="'size' is 5 and would come back as 6"):
        through(made, registry)
    with pytest.raises(EncodeError, match=re.escape("events[0]['in'] is a")):
        through({"in": made}, registry)


@pytest.mark.parametrize("decorate", [dataclass, attrs.define, attrs.define(slots=False)])
def test_a_cached_property_is_computed_again(decorate: Any) -> None:
    registry = EventRegistry()

    @registry.event("made")
    @decorate
    class Cached:
        items: list[int]

        @functools.cached_property
        def lock(self) -> Any:
            return threading.Lock()

    made: Any = Cached([1])  # type: ignore[call-arg]
    assert made.lock
    back = through(made, registry)
    assert "lock" not in getattr(back, "__dict__", ())
    assert back.lock is not made.lock


def test_a_private_attribute_without_a_value_stays_so() -> None:
    registry = EventRegistry()

    @registry.event("made")
    class Model(pydantic.BaseModel):
        x: int
        _client: Any

    back = through(Model(x=1), registry)
    assert back == Model(x=1)
    with pytest.raises(AttributeError):
        back._client  # noqa: B018
    made = Model(x=1)
    made._client = threading.Lock()
    with pytest.raises(EncodeError, match=re.escape("events[0]._client is a _thread.lock")):
        through(made, registry)


def test_nothing_of_a_model_runs_when_it_is_read() -> None:
    registry = EventRegistry()

    @registry.event("made")
    class Model(pydantic.BaseModel):
        x: int

        def __new__(cls, **fields: Any) -> Any:
            assert fields
            return super().__new__(cls)

        def __setstate__(self, state: Any) -> None:
            raise AssertionError

    assert through(Model(x=1), registry) == Model(x=1)

    @registry.event("root")
    class Root(pydantic.RootModel[list[int]]):
        pass

    assert vars(through(Root([1]), registry)) == vars(Root([1]))


@pytest.mark.filterwarnings("error")
def test_a_deprecated_field_is_stored_without_a_warning() -> None:
    registry = EventRegistry()

    @registry.event("made")
    class Model(pydantic.BaseModel):
        x: int
        y: int = pydantic.Field(2, deprecated=True)

    assert through(Model(x=1), registry) == Model(x=1)


def test_a_member_that_is_found_under_no_name_is_rejected() -> None:
    registry = EventRegistry()

    @registry.event("status")
    class Status(enum.IntEnum):
        OK = 200

        @classmethod
        def _missing_(cls, value: Any) -> Any:
            made = int.__new__(cls, value)
            made._name_, made._value_ = f"UNKNOWN_{value}", value
            return made

    assert through({"status": Status(200)}, registry) == {"status": Status.OK}
    with pytest.raises(EncodeError, match=r"events\[0\]\['status'\] .* store its value instead") as caught:
        through({"status": Status(299)}, registry)
    assert caught.value.path == "events[0]['status']"
    assert through({"status": Status(299).value}, registry) == {"status": 299}


def test_keys_that_equal_themselves_only_keep_their_order() -> None:
    @dataclass(eq=False)
    class Key:
        name: str

    registry = EventRegistry()
    registry.event("key")(Key)
    sent = collections.OrderedDict([(math.nan, 1), ("a", 2), (Key("k"), 3), ((math.nan,), 4)])
    back = through({"v": sent}, registry)["v"]
    assert type(back) is collections.OrderedDict
    assert [type(key) for key in back] == [type(key) for key in sent]
    assert list(back.values()) == [1, 2, 3, 4]


def test_fields_that_are_no_data_are_not_stored() -> None:
    registry = EventRegistry()

    @registry.event("data", transient=["lock", "_memo", "__secret"])
    @dataclass
    class Data:
        name: str
        lock: Any = field(default_factory=threading.Lock)
        __secret: str = ""

        def __post_init__(self) -> None:
            self._memo = threading.Lock()

        def secret(self) -> str:
            return self.__secret

    @registry.event("attrs", transient=["lock"])
    @attrs.define
    class Attrs:
        name: str
        lock: Any = attrs.field(factory=threading.Lock)

    @registry.event("struct", transient=["cache"])
    class Struct(msgspec.Struct):
        name: str
        cache: dict[str, Any] = {}

    @registry.event("model", transient=["cache", "_memo", "more"])
    class Model(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        name: str
        cache: Any = None
        _memo: Any = pydantic.PrivateAttr(default=1)

    @registry.event("private")
    class Private(pydantic.BaseModel):
        name: str
        _lock: Any = pydantic.PrivateAttr(default_factory=threading.Lock)
        _seen: list[int] = pydantic.PrivateAttr(default_factory=list)

    data = Data("x")
    object.__setattr__(data, "_Data__secret", "s")
    back = through(data, registry)
    assert (back.name, back.secret(), hasattr(back, "_memo")) == ("x", "", False)
    assert back.lock is not data.lock
    assert through(Attrs("x"), registry).name == "x"
    assert through(Struct("x", {"big": 1}), registry) == Struct("x")
    model = through(Model(name="x", cache=object(), more=object()), registry)
    assert (model.name, model.cache, model._memo, model.model_extra) == ("x", None, 1, {})
    private = Private(name="x")
    private._seen.append(7)
    for again in (through(private, registry), through({"in": private}, registry)["in"]):
        assert again._seen == [7]
        assert type(again._lock) is type(private._lock)
        assert again._lock is not private._lock


def test_a_transient_field_has_a_default() -> None:
    with pytest.raises(InvalidArgument, match=r"'lock' of .*Data has no default"):

        @EventRegistry().event("data", transient=["lock"])
        @dataclass
        class Data:
            lock: Any

    with pytest.raises(InvalidArgument, match="no such field"):

        @EventRegistry().event("slotted", transient=["other"])
        @dataclass(slots=True)
        class Slotted:
            one: int = 0

    with pytest.raises(InvalidArgument, match="a list of names"):
        EventRegistry().event("data", transient="lock")


class Money:
    """A class of an application that cannot be registered as an event."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    def __hash__(self) -> int:
        return hash(self.cents)


def test_any_type_can_be_registered(anywhere: Callable[..., Any]) -> None:
    registry = EventRegistry()
    registry.register_type(Money, "money", lambda money: money.cents, Money)
    registry.register_type(numpy.float64, "numpy.float64", float, numpy.float64)
    registry.register_type(
        numpy.ndarray,
        "numpy.ndarray",
        lambda array: [str(array.dtype), list(array.shape), array.tobytes()],
        lambda parts: numpy.frombuffer(parts[2], parts[0]).reshape(parts[1]).copy(),
    )
    registry.register_type(pandas.Timestamp, "pandas.Timestamp", lambda time: time.isoformat(), pandas.Timestamp)
    registry.register_type(
        pendulum.DateTime,
        "pendulum.DateTime",
        lambda time: [time.isoformat(), time.timezone_name],
        lambda parts: pendulum.parse(parts[0]).in_timezone(parts[1]),
    )
    values = [
        Money(5),
        numpy.float64(1.5),
        pandas.Timestamp("2026-01-02T03:04:05.000000006Z"),
        pendulum.datetime(2026, 3, 28, 9, tz="Europe/Berlin"),
    ]
    with anywhere(registry=registry) as store:
        store.append("w", [{"v": values, Money(1): 2, "array": numpy.eye(2)}])
        (back,) = store.stream("w")
        assert store.load_fact(store.put_fact({"v": Money(2)})) == {"v": Money(2)}
    assert back["v"] == values
    assert [type(one) for one in back["v"]] == [type(one) for one in values]
    assert back["v"][3].timezone_name == "Europe/Berlin"
    assert back[Money(1)] == 2
    assert (back["array"] == numpy.eye(2)).all()


def test_a_registered_type_takes_the_place_of_one_that_is_built_in() -> None:
    registry = EventRegistry()
    registry.register_type(collections.deque, "bounded", list, lambda items: collections.deque(items, 2))
    assert through({"d": collections.deque([1, 2, 3])}, registry)["d"].maxlen == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, "x", str, str), "registers classes"),
        ((Money, "", str, str), "name is 1 to 512 bytes"),
        ((Money, "money", None, str), "encode is a function"),
        ((Money, "money", str, 5), "decode is a function"),
        ((Money, "python.deque", str, str), "is taken by collections.deque"),
    ],
)
def test_a_type_that_cannot_be_registered_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        EventRegistry().register_type(*arguments)


def _convert(value: Any, error: EncodeError) -> Any:
    """Convert a value as the error advises."""
    (advice,) = re.findall(r"convert it with (.+?)(?:, or |;)", str(error))
    scope = {"value": value, "datetime": dt.datetime, "date": dt.date, "timedelta": dt.timedelta}
    return eval(advice, scope)


class Shade(str, enum.Enum):  # noqa: UP042 - whose str() is not its value
    DARK = "d"


class Level(enum.Enum):
    LOW = 1


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Day(dt.date):
    pass


@pytest.mark.parametrize(
    "value",
    [
        *(numpy.float64(1.5), numpy.int64(3), numpy.bool_(True), numpy.str_("x"), numpy.array([1, 2])),
        *(Text("x"), Number(5), Day(2026, 1, 2), pendulum.datetime(2026, 1, 2), memoryview(b"x")),
        *(numpy.complex128(1j), numpy.float64(math.nan), pandas.Timestamp("2026-10-25 02:30"), Shade.DARK, Level.LOW),
        *(types.MappingProxyType({"a": 1}), collections.UserDict(a=1), pendulum.duration(days=3, seconds=2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_advice_to_convert_works(value: Any) -> None:
    with pytest.raises(EncodeError) as caught:
        through({"score": value})
    assert caught.value.path == "events[0]['score']"
    converted = _convert(value, caught.value)
    assert numpy.all(converted == value) or value != value or value is Level.LOW
    through({"score": converted})


@pytest.mark.parametrize(
    "value",
    [
        *(pandas.NaT, pandas.Timestamp("2026-01-01T00:00:00.000000001"), pandas.Timedelta("1ns")),
        *(numpy.datetime64("2026-01-01T00:00:00.000000001"), numpy.longdouble(1) / 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_conversion_that_would_lose_something_is_not_advised(value: Any) -> None:
    with pytest.raises(EncodeError, match="register_type") as caught:
        through({"score": value})
    assert "convert" not in str(caught.value)


def test_the_type_to_register_has_a_name_in_the_advice() -> None:
    for value in (iter([]), numpy.bool_(True)):
        with pytest.raises(EncodeError, match=r"register_type\(type\(value\), "):
            through({"v": value})
    registry = EventRegistry()

    @registry.event("made")
    @dataclass
    class Logged:
        x: int

        def __post_init__(self) -> None:
            self.log = logging.getLogger()

    with pytest.raises(EncodeError, match=r"@event\(\.\.\., transient=\['log'\]\)"):
        through(Logged(1), registry)
    registry.event("made", transient=["log"])(Logged)
    assert through(Logged(1), registry) == Logged(1)


@pytest.mark.parametrize("text", ["\ud800", "ok \udfff"])
def test_advice_for_a_lone_surrogate_works(text: str) -> None:
    with pytest.raises(EncodeError, match="surrogatepass") as caught:
        through({"text": text})
    ways = re.findall(r"value\.encode\([^)]*\)(?:\.decode\(\))?", str(caught.value))
    assert len(ways) == 2
    for way in ways:
        through({"text": eval(way, {"value": text})})


def test_advice_to_register_works() -> None:
    registry = EventRegistry()

    @dataclass
    class Unknown:
        x: int

    with pytest.raises(EncodeError, match="register the class with @event"):
        through({"v": Unknown(1)}, registry)
    registry.event("unknown")(Unknown)
    assert through({"v": Unknown(1)}, registry) == {"v": Unknown(1)}
    with pytest.raises(EncodeError, match=r"register the type with register_type\(Money, a name, encode, decode\)"):
        through({"v": Money(1)}, registry)
    with pytest.raises(EncodeError, match=r"default_factory is .* which cannot be stored.*dict"):
        through({"v": collections.defaultdict(lambda: 1)}, registry)


@pytest.mark.parametrize(
    "value", [lambda: 1, len, threading.Lock(), re, (x for x in "")], ids=lambda v: type(v).__name__
)
def test_an_object_that_is_no_data_is_reported_as_such(value: Any) -> None:
    with pytest.raises(
        EncodeError, match="which is not data: store the values that can make it again; nothing was sent"
    ):
        through({"v": value})
    with pytest.raises(EncodeError, match=r"or leave out the field with @event\(..., transient=\['extra'\]\)"):
        through(Made([], extra=value))


def test_advice_for_a_class_of_another_registry_works() -> None:
    registry = EventRegistry()
    with pytest.raises(EncodeError, match="not in the registry of this store: also register it there"):
        through({"v": Patch(customer=1)}, registry)
    registry.event("patch")(Patch)
    assert through({"v": Patch(customer=1)}, registry)["v"] == Patch(customer=1)


def test_advice_for_a_model_of_pydantic_v1_works() -> None:
    v1 = pytest.importorskip("pydantic.v1")

    class Inner(v1.BaseModel):  # type: ignore[misc]
        y: int

    class Old(v1.BaseModel):  # type: ignore[misc]
        x: int
        inner: Inner

    registry = EventRegistry()
    with pytest.raises(
        InvalidArgument, match=re.escape("register_type(cls, name, lambda model: model.dict(), cls.parse_obj)")
    ):
        registry.event("old")(Old)
    registry.register_type(Old, "old", lambda model: model.dict(), Old.parse_obj)
    assert through({"v": Old(x=1, inner=Inner(y=2))}, registry)["v"] == Old(x=1, inner=Inner(y=2))


def test_a_generic_model_stands_for_its_parametrisations() -> None:
    registry = EventRegistry()

    @registry.event("envelope")
    class Envelope(pydantic.BaseModel, Generic[T]):
        body: T

    sent = [Envelope[int](body=3), Envelope[str](body="x"), Envelope[Envelope[int]](body=Envelope[int](body=1))]
    assert [through(one, registry) for one in sent] == sent
    assert through({"in": sent}, registry) == {"in": sent}


@pytest.mark.parametrize("levels", [1200, 5000])
def test_nesting_too_deep_is_named_by_its_path(levels: int) -> None:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    with pytest.raises(EncodeError, match="is nested in 500 lists and dicts") as caught:
        through({"ok": 1, "deep": value})
    assert caught.value.path == "events[0]['deep']" + "[0]" * 499
    assert len(str(caught.value)) < 600


def test_extensions_too_deep_are_named_by_their_path() -> None:
    value: Any = 1
    for _ in range(70):
        value = (value,)
    with pytest.raises(
        EncodeError, match="nested in 64 tuples, sets and objects; store the inner part as a fact"
    ) as caught:
        through({"deep": value})
    assert caught.value.path == "events[0]['deep']" + "[0]" * 64


def test_dataclass_helpers_work_on_what_comes_back() -> None:
    made = through(Made(["a"], "t"))
    assert dataclasses.asdict(made) == {"stops": ["a"], "_Made__token": "t", "extra": None}
