"""Events without their classes: as JSON, and as text."""

import datetime as dt
import json
from decimal import Decimal
from typing import Any

from hypothesis import given

from runic_redis import FactRef, UnknownEvent
from runic_redis.codec import Codec
from runic_redis.events import bare_registry, default_registry
from runic_redis.events.plain import event_fields, event_text, event_type, to_json, value_text
from tests.strategies import AttrsFrozen, values

_ours = Codec(default_registry, "raise")
_bare = Codec(bare_registry, "wrap")


def bare(event: Any) -> Any:
    """An event as who has no classes reads it."""
    _, header, payload = _ours.encode_commit([event])[0]
    return _bare.decode_entry(header, payload)[0]


@given(values)
def test_every_value_has_a_form_in_json_and_in_text(value: Any) -> None:
    event = bare({"value": value})
    assert json.loads(json.dumps(to_json(event)))
    assert value_text(event["value"])
    assert event_text(event).startswith("value=")


@given(values, values)
def test_different_values_have_different_forms(one: Any, other: Any) -> None:
    forms = [json.dumps(to_json(bare({"value": value})), sort_keys=True) for value in (one, other)]
    hashes = [_ours.encode_own_fact(value)[0] for value in (one, other)]
    assert hashes[0] == hashes[1] or forms[0] != forms[1]


def test_what_is_nearly_the_same_is_told_apart() -> None:
    moment = dt.datetime(2026, 10, 25, 2, 30)
    alike = [
        *(1, 1.0, True, "1", b"1", Decimal(1), Decimal("1.0"), 0.0, -0.0),
        *([1], (1,), {1}, frozenset({1}), {1: 1}, {"1": 1}, {"$tuple": [1]}),
        *(moment, moment.replace(fold=1), moment.date(), moment.time(), moment.time().replace(fold=1), str(moment)),
        *(dt.timedelta.max, dt.timedelta.max - dt.timedelta(microseconds=1), float("inf"), "inf"),
        *(UnknownEvent("a", 1, {}), UnknownEvent("a", 2, {}), UnknownEvent("a", 1, {"b": None}), FactRef("a"), None),
    ]
    assert len({json.dumps(to_json(value)) for value in alike}) == len(alike)


def test_an_event_has_a_type_and_fields() -> None:
    wrapped = bare(AttrsFrozen((1, b"x"), FactRef("sha256:1")))
    assert isinstance(wrapped, UnknownEvent)
    assert event_type(wrapped) == "tests.attrs_frozen"
    assert dict(event_fields(wrapped)) == {"value": (1, b"x"), "_private": FactRef("sha256:1")}
    assert event_text(wrapped) == "value=(1, b'x'), _private=fact sha256:1"
    assert to_json(wrapped) == {
        "$object": "tests.attrs_frozen",
        "version": 1,
        "fields": {"value": {"$tuple": [1, {"$bytes": "eA=="}]}, "_private": {"$fact": "sha256:1"}},
    }
    assert event_type({"a": 1}) == "dict"
    assert to_json({"$a": 1, 2: float("nan")}) == {"$map": [["$a", 1], [2, {"$float": "nan"}]]}


def test_what_nests_deeper_than_python_recurses_is_cut_short() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert to_json(deep) == {"$deep": True}
    assert value_text(deep) == "…"
    while deep:  # taken apart here: the interpreter would recurse
        deep = deep[0]
