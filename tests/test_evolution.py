"""Event classes change, and stored events are read as instances of the current classes."""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from runic_redis import (
    CursorConflict,
    DecodeError,
    EventRegistry,
    EveryEvents,
    Fact,
    IncompatibleEvent,
    InvalidArgument,
    RedisStore,
    StoreError,
    UnknownEvent,
    UnknownEventType,
    session,
)
from runic_redis.codec import Codec
from tests import servers
from tests.portal import open_store
from tests.test_events import read


def written(define: Callable[[EventRegistry], Any]) -> Any:
    """Return the entry of one event, written by an application with a class of that time."""
    registry = EventRegistry()
    (entry,) = Codec(registry, "raise").encode_commit([define(registry)])
    return entry


def test_an_event_may_get_a_better_name() -> None:
    def before(registry: EventRegistry) -> Any:
        @registry.event("order_placed")
        @dataclass
        class OrderPlaced:
            who: str

        return OrderPlaced("mia")

    registry = EventRegistry()

    @registry.event("sales.placed", aliases=["order_placed", "placed"])
    @dataclass
    class Placed:
        who: str

    assert read(written(before), registry) == Placed("mia")
    (entry,) = Codec(registry, "raise").encode_commit([Placed("bo")])
    assert b"sales.placed" in entry.header
    assert read(entry, registry) == Placed("bo")
    with pytest.raises(InvalidArgument, match="'placed' is taken by"):
        registry.event("other", aliases=["placed"])(Elsewhere)
    assert registry.of(Elsewhere) is None


@dataclass
class Elsewhere:
    who: str


def test_an_alias_has_the_versions_of_its_type() -> None:
    def before(registry: EventRegistry) -> Any:
        @registry.event("old", version=2)
        @dataclass
        class Old:
            cents: int

        return Old(250)

    registry = EventRegistry()

    @registry.event("new", version=3, upcasters={2: lambda old: {"euros": old["cents"] / 100}}, aliases=("old",))
    @dataclass
    class New:
        euros: float

    assert read(written(before), registry) == New(2.5)


def test_a_class_registered_under_a_second_name_is_read_under_both_and_written_under_the_first() -> None:
    registry = EventRegistry()

    @registry.event("second")
    @registry.event("first")
    @dataclass
    class Placed:
        who: str

    (entry,) = Codec(registry, "raise").encode_commit([Placed("bo")])
    assert b"first" in entry.header
    again = entry._replace(header=entry.header.replace(b"\xa5first", b"\xa6second"))
    assert read(again, registry) == Placed("bo")


@pytest.mark.parametrize("aliases", ["order", [5], 5, {"a": 1}, [""], ["\ud800"]])
def test_malformed_aliases_are_refused(aliases: Any) -> None:
    if aliases == {"a": 1}:
        EventRegistry().event("x", aliases=aliases)  # a dict is also a collection of names
        return
    with pytest.raises(InvalidArgument):
        EventRegistry().event("x", aliases=aliases)


def test_a_renamed_member_is_found() -> None:
    def before(registry: EventRegistry) -> Any:
        @registry.event("color")
        class Color(enum.Enum):
            RED = enum.auto()

        return {"color": Color.RED, "all": {Color.RED: 1}}

    registry = EventRegistry()

    @registry.event("color", renamed_members={"RED": "CRIMSON"})
    class Color(enum.Enum):
        GREEN = enum.auto()
        CRIMSON = enum.auto()

    assert read(written(before), registry) == {"color": Color.CRIMSON, "all": {Color.CRIMSON: 1}}


def test_renamed_members_that_fit_no_enum_are_refused() -> None:
    class Color(enum.Enum):
        RED = 1

    class Bits(enum.Flag):
        ONE = 1

    registry = EventRegistry()
    for cls, renamed, message in (
        (Color, {"BLUE": "NAVY"}, "no member 'NAVY'"),
        (Color, {"RED": "RED"}, "a member 'RED' still"),
        (Bits, {"A": "ONE"}, "a Flag is stored by its value"),
        (Elsewhere, {"A": "ONE"}, "is for an Enum"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            registry.event("color", renamed_members=renamed)(cls)
    with pytest.raises(InvalidArgument, match="is a mapping"):
        registry.event("color", renamed_members=["RED"])  # type: ignore[arg-type]


def test_a_private_field_outlives_the_name_of_its_class() -> None:
    def before(registry: EventRegistry) -> Any:
        class Base:
            pass

        @registry.event("opened")
        @dataclass
        class Opened(Base):
            user: str
            __token: str = ""

            def __post_init__(self) -> None:
                self.__seen = 3

        return Opened("mia", "t-123")

    registry = EventRegistry()

    @registry.event("opened")
    @dataclass
    class _SessionOpened:
        user: str
        __token: str = ""

        def token(self) -> Any:
            return self.__token, self.__seen  # type: ignore[attr-defined]

    entry = written(before)
    assert b"__token" in entry.header
    assert b"_Opened" not in entry.header + entry.payload
    assert read(entry, registry).token() == ("t-123", 3)


def test_private_fields_of_one_name_in_a_class_and_its_base_are_two() -> None:
    registry = EventRegistry()

    @dataclass
    class Base:
        __token: str = "base"

        def __post_init__(self) -> None:
            self.__seen = "base"

        def base(self) -> tuple[str, str]:
            return self.__token, self.__seen

    @registry.event("opened")
    @dataclass
    class Opened(Base):
        __token: str = "own"

        def __post_init__(self) -> None:
            super().__post_init__()
            self.__seen = "own"

        def own(self) -> tuple[str, str]:
            return self.__token, self.__seen

    (entry,) = Codec(registry, "raise").encode_commit([Opened("b", "o")])
    back = read(entry, registry)
    assert (back.base(), back.own()) == (("b", "base"), ("o", "own"))


def _computed_attrs(registry: EventRegistry) -> Any:
    @registry.event("sent")
    @attrs.define
    class Sent:
        grams: int
        kilos: float = attrs.field()
        label: str = attrs.field()

        @kilos.default
        def _kilos(self) -> float:
            return self.grams / 1000

        @label.default
        def _label(self) -> str:
            return f"{self.kilos} kg"

    return Sent


def _computed_attrs_without_slots(registry: EventRegistry) -> Any:
    @registry.event("sent")
    @attrs.frozen(slots=False)
    class Sent:
        grams: int
        kilos: float = attrs.Factory(lambda self: self.grams / 1000, takes_self=True)
        label: str = attrs.Factory(lambda self: f"{self.kilos} kg", takes_self=True)

    return Sent


def _computed_pydantic(registry: EventRegistry) -> Any:
    @registry.event("sent")
    class Sent(pydantic.BaseModel):
        grams: int
        kilos: float = pydantic.Field(default_factory=lambda data: data["grams"] / 1000)
        label: str = pydantic.Field(default_factory=lambda data: f"{data['kilos']} kg")

    return Sent


@pytest.mark.parametrize("define", [_computed_attrs, _computed_attrs_without_slots, _computed_pydantic])
def test_a_default_that_the_class_computes_is_used(define: Callable[[EventRegistry], Any]) -> None:
    def before(registry: EventRegistry) -> Any:
        @registry.event("sent")
        @dataclass
        class Sent:
            grams: int

        return Sent(1500)

    registry = EventRegistry()
    define(registry)
    back = read(written(before), registry)
    assert (back.grams, back.kilos, back.label) == (1500, 1.5, "1.5 kg")


def test_a_field_that_is_added_was_not_given() -> None:
    def before(registry: EventRegistry) -> Any:
        @registry.event("patch")
        class Patch(pydantic.BaseModel):
            model_config = pydantic.ConfigDict(extra="allow")
            name: str | None = None
            phone: str | None = None

        return [Patch(name="x", colour="red"), Patch(name="x", phone=None)]

    old = EventRegistry()
    entries = Codec(old, "raise").encode_commit(before(old))
    registry = EventRegistry()

    @registry.event("patch", version=2, upcasters={1: lambda old: {"label": old.pop("name"), **old}})
    class Patch(pydantic.BaseModel):
        label: str | None = None
        phone: str | None = None
        colour: str | None = None
        size: int = 5

    partly, whole = Codec(registry, "raise").decode_entry(entries[0].header, entries[0].payload)
    # The upcaster renamed one field, and the class has since declared the other.
    assert partly == Patch(label="x", colour="red")
    assert partly.model_fields_set >= {"label"}
    assert "size" not in partly.model_fields_set
    assert "phone" not in partly.model_fields_set
    assert whole.model_fields_set >= {"label", "phone"}
    assert "size" not in whole.model_fields_set


def test_a_private_attribute_that_is_added_has_no_value() -> None:
    older, registry = EventRegistry(), EventRegistry()

    class Model(pydantic.BaseModel):
        x: int

    class Newer(pydantic.BaseModel):
        x: int
        _client: Any

    older.event("made")(Model)
    registry.event("made")(Newer)
    (entry,) = Codec(older, "raise").encode_commit([Model(x=1)])
    assert Codec(registry, "raise").decode_entry(entry.header, entry.payload) == [Newer(x=1)]


def test_an_upcaster_is_given_attributes_and_extra_fields_too() -> None:
    class Open(pydantic.BaseModel, extra="allow"):
        x: int

    class Closed(pydantic.BaseModel):
        x: int
        renamed: str

    @dataclass
    class Noted:
        x: int

    def define_noted(registry: EventRegistry) -> Any:
        noted = registry.event("made")(Noted)(1)
        noted.note = "kept"  # type: ignore[attr-defined]
        return noted

    def define_open(registry: EventRegistry) -> Any:
        return registry.event("made")(Open)(x=1, note="kept")

    registry = EventRegistry()
    registry.event("made", 2, upcasters={1: lambda fields: {"x": fields["x"], "renamed": fields["note"]}})(Closed)
    for define in (define_noted, define_open):
        assert read(written(define), registry) == Closed(x=1, renamed="kept")


def test_an_attribute_that_is_a_field_now_is_kept() -> None:
    def before(registry: EventRegistry) -> Any:
        @registry.event("planned")
        @dataclass
        class Planned:
            stops: list[str]

            def __post_init__(self) -> None:
                self.count = len(self.stops)

        return Planned(["a", "b"])

    registry = EventRegistry()

    @registry.event("planned")
    @dataclass(slots=True)
    class Planned:
        stops: list[str]
        count: int

    assert read(written(before), registry) == Planned(["a", "b"], 2)


# Several, or none


def _as_it_was(registry: EventRegistry) -> Any:
    @registry.event("placed")
    @dataclass(frozen=True)
    class Placed:
        item: str
        paid: bool = False
        noise: bool = False

    return Placed


@dataclass(frozen=True)
class Placed:
    item: str


@dataclass(frozen=True)
class Paid:
    item: str


def _apart(old: dict[str, Any]) -> Any:
    if old["noise"]:
        return []
    now = {"item": old["item"]}
    return [now, Paid(old["item"])] if old["paid"] else now


def _as_it_is() -> EventRegistry:
    registry = EventRegistry()
    registry.event("placed", version=2, upcasters={1: _apart})(Placed)
    registry.event("paid")(Paid)
    return registry


@pytest.fixture(params=["sync", "asyncio"])
def opener(request: pytest.FixtureRequest, valkey: servers.RunningServer, namespace: str) -> Callable[..., Any]:
    return partial(open_store, request.param, valkey.url(), namespace)


def test_an_event_may_become_several_or_none(opener: Callable[..., Any]) -> None:
    old = EventRegistry()
    was = _as_it_was(old)
    commits = [
        [was("a"), was("b", paid=True)],
        [was("c", noise=True)],
        [was("d", paid=True), was("e", noise=True), {"plain": was("f")}],
        [was("g", noise=True)],
    ]
    with opener(registry=old) as store:
        for commit in commits:
            store.append("w", commit)
        store.save("log", [event for commit in commits[:3] for event in commit])
        store.append("none", [was("x", noise=True)])
    events = [Placed("a"), Placed("b"), Paid("b"), Placed("d"), Paid("d"), {"plain": Placed("f")}]
    cursors = [1, 2, 2, 4, 4, 6]
    with opener(registry=_as_it_is()) as store:
        assert list(store.stream("w")) == events
        assert list(store.stream("none")) == []
        assert store.load("log") == events
        records = list(store.stream_records("w"))
        assert [record.event for record in records] == events
        assert [record.cursor for record in records] == cursors
        newest_first = list(store.stream_records("w", reverse=True))
        assert [record.event for record in newest_first] == events[::-1]
        assert [record.cursor for record in newest_first] == cursors[::-1]
        for after in range(8):
            for until in range(after, 8):
                expected = [event for event, cursor in zip(events, cursors, strict=True) if after < cursor <= until]
                assert list(store.stream("w", after=after, until=until)) == expected
        assert store.cursor("w") == 7
        tail = store.tail("w")
        assert [next(tail).event for _ in events] == events
        store.append("w", [Placed("h")], expected_cursor=7)
        assert next(tail)[::2] == (8, Placed("h"))
        tail.close()


def test_many_pages_of_nothing_are_passed(opener: Callable[..., Any]) -> None:
    old = EventRegistry()
    was = _as_it_was(old)
    with opener(registry=old) as store:
        for _ in range(30):
            store.append("w", [was("x" * 1000, noise=True)] * 50)
        store.append("w", [was("last")])
        store.append("w", [was("x", noise=True)])
    with opener(registry=_as_it_is()) as store:
        assert list(store.stream("w")) == [Placed("last")]
        assert [record.cursor for record in store.stream_records("w", reverse=True)] == [1501]


def test_a_session_goes_on_after_events_that_are_read_as_none(valkey: servers.RunningServer, namespace: str) -> None:
    old = EventRegistry()
    was = _as_it_was(old)
    with RedisStore.from_url(valkey.url(), namespace=namespace, registry=old) as store:
        store.append("w", [was("a", paid=True), was("b", noise=True)])
        store.append("w", [was("c", noise=True)])
        store.append("none", [was("c", noise=True)])
    with RedisStore.from_url(valkey.url(), namespace=namespace, registry=_as_it_is()) as store:
        for workflow_id, before in (("w", [Placed("a"), Paid("a")]), ("none", [])):
            with session(store, workflow_id, lambda state, event: [*state, event], list) as one:
                assert one.state == before
                one.record(Placed("d"))
                assert one.cursor == store.cursor(workflow_id)
        with session(store, "w", lambda state, event: [*state, event], list) as one:
            store.append("w", [Paid("e")])
            with pytest.raises(CursorConflict):
                one.record(Placed("f"))


def test_a_snapshot_of_a_class_that_has_changed_is_replayed(namespace: str) -> None:
    old = EventRegistry()
    was = _as_it_was(old)
    with (
        RedisStore.from_url(f"memory://{namespace}", namespace=namespace, registry=old) as store,
        session(store, "w", lambda state, event: event, was("x"), snapshots=EveryEvents(1)) as one,
    ):
        one.record(was("a"))
    registry = EventRegistry()
    # The upcaster makes two events, so a state cannot be read as one value. The events still can.
    registry.event("placed", version=2, upcasters={1: lambda old: [{"item": old["item"]}] * 2})(Placed)
    with (
        RedisStore.from_url(f"memory://{namespace}", namespace=namespace, registry=registry) as store,
        session(store, "w", lambda state, event: event, Placed("x")) as one,
    ):
        assert one.state == Placed("a")
        assert "made 2 events of an event" in str(one.recovery.snapshot_problem)


@pytest.mark.parametrize(("paid", "noise", "count"), [(True, False, 2), (False, True, 0)])
def test_inside_of_another_an_event_stays_one(paid: bool, noise: bool, count: int) -> None:
    old = EventRegistry()
    was = _as_it_was(old)
    (entry,) = Codec(old, "raise").encode_commit([{"in": [was("a", paid=paid, noise=noise)]}])
    with pytest.raises(IncompatibleEvent, match=f"made {count} events of an event that is part of another"):
        read(entry, _as_it_is())


@pytest.mark.parametrize("returned", [None, "x", (1, 2), [5], [None], [object()]])
def test_an_upcaster_that_returns_something_else_is_named(returned: Any) -> None:
    old = EventRegistry()
    (entry,) = Codec(old, "raise").encode_commit([_as_it_was(old)("a")])
    registry = EventRegistry()
    registry.event("placed", version=2, upcasters={1: lambda _: returned})(Placed)
    with pytest.raises(IncompatibleEvent, match="an upcaster returned") as caught:
        read(entry, registry)
    assert (caught.value.name, caught.value.version) == ("placed", 1)


def test_a_remedy_fits_what_failed() -> None:
    @dataclass
    class Text:
        text: str

    entry = written(lambda registry: registry.event("order")(Text)("a"))

    def registry_with(version: int, returned: Any) -> EventRegistry:
        registry = EventRegistry()
        registry.event("order", version, upcasters={version - 1: lambda _: returned} if version == 2 else None)(Text)
        return registry

    with pytest.raises(IncompatibleEvent, match=r"a list with None.* Return a list of dicts of fields"):
        read(entry, registry_with(2, [None]))
    with pytest.raises(UnknownEventType, match=r'Register the class with an upcaster from version 1, or .*"wrap"'):
        read(entry, registry_with(3, []))
    newer = written(lambda registry: registry.event("order", 9)(Text)("a"))
    with pytest.raises(UnknownEventType, match=r'Update this program, or .*"wrap"'):
        read(newer, registry_with(3, []))

    def picky(value: str) -> Text:
        raise ValueError(value)

    registry = EventRegistry()
    registry.register_type(Text, "text", lambda value: value.text, picky)
    (value,) = Codec(registry, "raise").encode_commit([{"v": Text("a")}])
    with pytest.raises(IncompatibleEvent, match="Change the registered decode function"):
        read(value, registry)


def test_upcasters_run_one_after_the_other_on_each_of_several() -> None:
    old = EventRegistry()
    (entry,) = Codec(old, "raise").encode_commit([_as_it_was(old)("a")])
    registry = EventRegistry()
    steps = {
        1: lambda old: [{"item": old["item"]}, {"item": "b"}, UnknownEvent("x", 1, {})],
        2: lambda old: [] if old["item"] == "a" else [old, old],
        3: lambda old: {"item": old["item"] + "!"},
    }
    registry.event("placed", version=4, upcasters=steps)(Placed)
    codec = Codec(registry, "raise")
    (several,) = codec.decode_entry(entry.header, entry.payload)
    assert several == [Placed("b!"), Placed("b!"), UnknownEvent("x", 1, {})]


# Events that do not fit their classes


def _without_default(registry: EventRegistry) -> None:
    @registry.event("placed")
    @dataclass
    class Placed:
        item: str
        price: float


def _other_hook(registry: EventRegistry) -> None:
    @registry.event("placed")
    class Placed(msgspec.Struct):
        item: str
        paid: bool
        noise: bool

        def __post_init__(self) -> None:
            raise ValueError("no longer")


def _bad_upcaster(registry: EventRegistry) -> None:
    registry.event("placed", version=2, upcasters={1: lambda old: old["nothing"]})(Placed)


def _failing_default(registry: EventRegistry) -> None:
    def fail() -> Any:
        raise RuntimeError("no default today")

    @registry.event("placed")
    @dataclass
    class Placed:
        item: str
        price: Any = field(default_factory=fail)


@pytest.mark.parametrize("define", [_without_default, _other_hook, _bad_upcaster, _failing_default])
def test_an_event_that_does_not_fit_its_class_is_not_damaged(
    opener: Callable[..., Any], define: Callable[[EventRegistry], None]
) -> None:
    old = EventRegistry()
    was = _as_it_was(old)
    with opener(registry=old) as store:
        store.append("w", [was("a")])
        fact = store.put_fact(was("a"))
    registry = EventRegistry()
    define(registry)
    with opener(registry=registry) as store:
        for use in (lambda: list(store.stream("w")), lambda: next(store.tail("w")), lambda: store.load_fact(fact)):
            with pytest.raises(IncompatibleEvent, match="not readable by this version of") as caught:
                use()
            text = str(caught.value)
            assert "damaged" not in text
            assert "backup" not in text
            assert "The data is unchanged." in text
            assert not isinstance(caught.value, DecodeError)
    # The remedies of the error work.
    with opener(registry=EventRegistry(), unknown_events="wrap") as store:
        assert next(iter(store.stream("w"))).fields["item"] == "a"
    with opener(registry=old) as store:
        assert list(store.stream("w")) == [was("a")]


def test_a_member_that_is_gone_is_not_damage() -> None:
    def before(registry: EventRegistry) -> Any:
        @registry.event("color")
        class Color(enum.Enum):
            RED = 1

        return {"color": Color.RED}

    registry = EventRegistry()

    @registry.event("color")
    class Color(enum.Enum):
        GREEN = 1

    with pytest.raises(IncompatibleEvent, match=r"no member 'RED'.*renamed_members"):
        read(written(before), registry)


def test_an_unknown_type_stays_unknown() -> None:
    old = EventRegistry()
    (entry,) = Codec(old, "raise").encode_commit([_as_it_was(old)("a")])
    with pytest.raises(UnknownEventType) as caught:
        read(entry, EventRegistry())
    assert type(caught.value) is UnknownEventType
    assert isinstance(caught.value, StoreError)


def test_facts_in_attributes_are_references(opener: Callable[..., Any]) -> None:
    registry = EventRegistry()

    @registry.event("planned")
    @dataclass
    class Planned:
        stops: list[str]

        def __post_init__(self) -> None:
            self.report = Fact({"long": self.stops})

    with opener(registry=registry) as store:
        store.append("w", [Planned(["a"])])
        (back,) = store.stream("w")
        assert store.load_fact(back.report.hash) == {"long": ["a"]}
        assert store.collect(0) == 0
