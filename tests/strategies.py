"""Hypothesis strategies for every type of value that can be stored."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, Flag, IntEnum
from typing import Any, NamedTuple

import attrs
import msgspec
import pydantic
from hypothesis import strategies as st

from runic_redis import event


@event("tests.frozen_slotted")
@dataclass(frozen=True, slots=True)
class FrozenSlotted:
    value: Any
    other: Any = None


@event("tests.plain")
@dataclass
class Plain:
    value: Any
    other: Any = None


@event("tests.attrs_frozen")
@attrs.frozen
class AttrsFrozen:
    value: Any
    _private: Any = None


@event("tests.attrs_mutable")
@attrs.define(slots=False)
class AttrsMutable:
    value: Any
    other: Any = attrs.field(factory=list)


@event("tests.struct")
class Struct(msgspec.Struct):
    value: Any
    other: Any = None


@event("tests.struct_frozen")
class StructFrozen(msgspec.Struct, frozen=True, kw_only=True, tag=True, rename="camel"):
    some_value: Any
    other_value: Any = None


@event("tests.model")
class Model(pydantic.BaseModel):
    value: Any
    other: Any = pydantic.Field(default=None, alias="Other")


@event("tests.pair")
class Pair(NamedTuple):
    value: Any
    other: Any = None


@event("tests.colour")
class Colour(Enum):
    RED = "r"
    GREEN = ("g", 1)
    ROT = "r"  # noqa: PIE796 - an alias, on purpose


@event("tests.size")
class Size(IntEnum):
    SMALL = 1
    LARGE = 2


@event("tests.permission")
class Permission(Flag):
    READ = 1
    WRITE = 2
    EXECUTE = 4


MEMBERS = [*Colour, *Size, Permission.READ, Permission.READ | Permission.WRITE, Permission(0)]


def _is_itself(value: Any) -> bool:
    try:
        return bool(value == value)
    except ArithmeticError:  # a signalling NaN
        return False


_offsets = st.timedeltas(dt.timedelta(hours=-23, minutes=-59), dt.timedelta(hours=23, minutes=59))
_zones = st.none() | st.just(dt.UTC) | _offsets.map(dt.timezone)

scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**300), 2**300),
    st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1]),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.datetimes(timezones=_zones),
    st.dates(),
    st.times(timezones=_zones),
    st.timedeltas(),
    st.decimals(),
    st.uuids(),
    st.sampled_from(MEMBERS),
)


def _model(value: Any, other: Any) -> Model:
    return Model(value=value, Other=other)


def _struct_frozen(value: Any, other: Any) -> StructFrozen:
    return StructFrozen(some_value=value, other_value=other)


_IMMUTABLE: list[Callable[..., Any]] = [FrozenSlotted, AttrsFrozen, Pair, _struct_frozen]
_MUTABLE: list[Callable[..., Any]] = [Plain, AttrsMutable, Struct, _model]


def _hashable_containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(children, max_size=3).map(tuple),
        st.frozensets(children, max_size=3),
        *(st.builds(make, children, children) for make in _IMMUTABLE),
    )


# NaN does not equal itself, so a dict cannot find it as a key.
hashables: st.SearchStrategy[Any] = st.recursive(scalars.filter(_is_itself), _hashable_containers, max_leaves=3)


def _containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(children, max_size=4),
        st.lists(children, max_size=4).map(tuple),
        st.dictionaries(hashables, children, max_size=4),
        st.sets(hashables, max_size=4),
        st.frozensets(hashables, max_size=4),
        *(st.builds(make, children, children) for make in (*_MUTABLE, *_IMMUTABLE)),
    )


values: st.SearchStrategy[Any] = st.recursive(scalars, _containers, max_leaves=8)

events: st.SearchStrategy[Any] = st.one_of(
    st.dictionaries(st.text(max_size=5) | st.integers(), values, max_size=3),
    st.builds(Plain, values, values),
    st.builds(FrozenSlotted, values, values),
    st.builds(Pair, values, values),
    st.sampled_from(MEMBERS),
)


def same(one: Any, other: Any) -> bool:
    """Are both equal, with equal types at every level? NaN is the same as NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(key, twin) and same(one[key], other[twin]) for key, twin in zip(one, other, strict=True)
        )
    if isinstance(one, set | frozenset):
        return one == other and {type(item) for item in one} == {type(item) for item in other}
    if isinstance(one, float):
        return repr(one) == repr(other)
    if type(one).__name__ == "Decimal":
        return str(one) == str(other)
    if isinstance(one, dt.datetime | dt.time):
        return (one.isoformat(), one.fold) == (other.isoformat(), other.fold)
    fields = fields_of(one)
    if fields:
        return all(same(getattr(one, name), getattr(other, name)) for name in fields)
    return bool(one == other)


def fields_of(value: Any) -> tuple[str, ...]:
    """Return the names of a registered instance's fields."""
    for names in ("__dataclass_fields__", "__struct_fields__"):
        if hasattr(value, names):
            return tuple(getattr(value, names))
    if hasattr(value, "__attrs_attrs__"):
        return tuple(attribute.name for attribute in value.__attrs_attrs__)
    if isinstance(value, pydantic.BaseModel):
        return tuple(type(value).model_fields)
    return ()
