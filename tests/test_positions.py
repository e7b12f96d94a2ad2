"""Positions in a feed: their forms, their errors, and that they cannot be changed."""

import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runic_redis import InvalidArgument, InvalidType, Positions
from runic_redis.arguments import MAX_CURSOR
from runic_redis.positions import Place, check_positions

# A workflow id may hold what the text form uses for itself.
_ids = st.text(st.characters(codec="utf-8"), max_size=20) | st.text("~,-% 0é\n", max_size=8)
_counts = st.integers(0, MAX_CURSOR)
_times = st.integers(0, 10**16 - 1)
places = st.builds(Place, _counts, _times, st.none() | st.tuples(_counts, _ids))
positions = st.builds(Positions, st.lists(places, min_size=1, max_size=5).map(tuple))


@given(positions)
def test_each_form_comes_back_equal(one: Positions) -> None:
    assert Positions.parse(str(one)) == one
    assert Positions.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert repr(one) == f"Positions.parse({str(one)!r})"
    assert pickle.loads(pickle.dumps(one)) == one
    assert str(one).isascii()
    assert "\n" not in str(one)


@given(positions, positions)
def test_texts_are_equal_only_if_the_positions_are(one: Positions, other: Positions) -> None:
    assert (str(one) == str(other)) == (one == other)
    assert one != other or hash(one) == hash(other)


@given(st.text("0123456789-~,% a", max_size=12))
def test_a_text_is_positions_in_their_form_or_an_error(text: str) -> None:
    with suppress(InvalidArgument):
        read = Positions.parse(text)
        assert Positions.parse(str(read)) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "+1",
        "-1",
        "1-",
        "1-2-3",
        "1,",
        ",1",
        "1;2",
        "1_0",
        "٣",
        "1-٣",
        "9" * 5000,
        str(2**53),
        "1~2",
        "1~x~y",
    ],
)
def test_other_texts_are_rejected(text: str) -> None:
    for parse in (Positions.parse, lambda value: Positions.from_json([value])):
        with pytest.raises(InvalidArgument, match="position"):
            parse(text)


@pytest.mark.parametrize("value", [None, 1, b"1", ["1"], Positions((Place(1),))])
def test_only_a_str_is_parsed(value: Any) -> None:
    with pytest.raises(InvalidType, match="is a str"):
        Positions.parse(value)


@pytest.mark.parametrize("value", [None, 1, "1", b"1", [], {}, {"a": "1"}, [1], [None], [["1"]], ["1", 2]])
def test_only_a_list_of_texts_is_the_json_form(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="list of texts"):
        Positions.from_json(value)


def test_they_cannot_be_changed() -> None:
    one = Positions((Place(1, 2), Place(3)))
    changes: list[Callable[[Any], object]] = [
        lambda it: setattr(it, "places", ()),
        lambda it: delattr(it, "places"),
        lambda it: setattr(it, "other", 1),
        lambda it: setattr(it.places[0], "position", 5),
        lambda it: it.places.__setitem__(0, Place(5)),
    ]
    for change in changes:
        with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
            change(one)
    assert one == Positions.parse("1-2,3")


def test_a_number_stands_for_positions_in_one_partition() -> None:
    assert int(Positions.parse("42-1764279000123")) == 42
    with pytest.raises(InvalidArgument, match="2 partitions"):
        int(Positions.parse("42,7"))
    assert check_positions(42, 1, "after") == Positions((Place(42),))
    assert check_positions(0, 3, "after") == Positions.start(3)
    assert len(Positions.start(3)) == 3
    with pytest.raises(InvalidArgument, match=r"after is 42.*3 partitions"):
        check_positions(42, 3, "after")
    with pytest.raises(InvalidArgument, match=r"until is of 1 partitions.*has 3"):
        check_positions(Positions.start(1), 3, "until")
    for value in (-1, MAX_CURSOR + 1):
        with pytest.raises(InvalidArgument):
            check_positions(value, 1, "after")
    for wrong in (True, 1.0, "1", None):
        with pytest.raises(InvalidType, match=r"Positions\.parse"):
            check_positions(wrong, 1, "after")
