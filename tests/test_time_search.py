"""The search for the place where a time begins, against a linear scan of the same entries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runic_redis import DecodeError
from runic_redis.operations.time_search import find_positions
from runic_redis.protocol.effects import Batch

# The IDs of a stream's entries, oldest first.
Ids = Sequence[tuple[int, int]]


@dataclass
class Case:
    """A stream, and the range of first parts to search."""

    ids: Ids
    low: int
    high: int

    def in_range(self) -> Ids:
        """Return the entries above `low`, up to the one that has `high`."""
        first_parts = [0, *(first for first, _ in self.ids)]
        return [
            one for one, before in zip(self.ids, first_parts, strict=False) if one[0] > self.low and before < self.high
        ]


def search(cases: Mapping[str, Case], since_ms: int) -> tuple[dict[str, int], list[int]]:
    """Return the positions, and how many commands each round trip had."""
    steps: list[int] = []
    operation = find_positions({key: (case.low, case.high) for key, case in cases.items()}, since_ms)
    replies: list[Any] | None = None
    try:
        while True:
            batch = operation.send(replies)
            assert isinstance(batch, Batch)
            steps.append(len(batch.commands))
            replies = [first_entry(cases, command.args) for command in batch.commands]
    except StopIteration as stop:
        return stop.value, steps


def first_entry(cases: Mapping[str, Case], args: Sequence[Any]) -> list[Any]:
    """Return the reply of a server to XRANGE key first-0 + COUNT 1."""
    name, key, start, end, *count = args
    assert (name, end, count) == ("XRANGE", "+", ["COUNT", "1"])
    first, _, ms = start.partition("-")
    assert ms == "0"
    return [[f"{p}-{t}".encode(), [b"header", b"payload"]] for p, t in cases[key].ids if p >= int(first)][:1]


def scan(case: Case, since_ms: int) -> set[int]:
    """Return each position up to which the last entry is before the time, and after which the next one is not."""
    if case.low >= case.high:
        return {case.low}
    entries = case.in_range()
    places = [case.low, *(min(first, case.high) for first, _ in entries)]
    before = [ms < since_ms for _, ms in entries]
    around = zip(places, [True, *before], [*before, False], strict=True)
    return {place for place, is_last_before, is_next_before in around if is_last_before and not is_next_before}


def case_of(draw: Any, steps: st.SearchStrategy[int]) -> Case:
    ids: list[tuple[int, int]] = []
    first = draw(st.integers(0, 5))
    ms = 1000
    for size, step in draw(st.lists(st.tuples(st.integers(1, 4), steps), max_size=20)):
        first, ms = first + size, max(0, ms + step)
        ids.append((first, ms))
    low = draw(st.integers(0, first + 2))
    return Case(ids, low, draw(st.integers(low, first + 2)))


@st.composite
def growing(draw: Any) -> Case:
    return case_of(draw, st.integers(0, 3))


@st.composite
def stepping(draw: Any) -> Case:
    """A stream whose server's clock is set back, and forward."""
    return case_of(draw, st.integers(-6, 6))


@given(st.lists(growing(), max_size=4), st.integers(990, 1070))
def test_in_times_that_grow_the_place_is_the_one_of_a_scan(drawn: list[Case], since_ms: int) -> None:
    cases = {f"key-{number}": case for number, case in enumerate(drawn)}
    found, _ = search(cases, since_ms)
    assert {key: {place} for key, place in found.items()} == {key: scan(case, since_ms) for key, case in cases.items()}
    for key, case in cases.items():
        if case.low < case.high:
            wanted = [one for one in case.in_range() if one[1] >= since_ms]
            assert [one for one in case.in_range() if one[0] > found[key] < case.high] == wanted


@given(st.lists(stepping(), max_size=4), st.integers(970, 1030))
def test_if_a_clock_steps_back_the_place_is_one_of_those_of_a_scan(drawn: list[Case], since_ms: int) -> None:
    cases = {f"key-{number}": case for number, case in enumerate(drawn)}
    found, _ = search(cases, since_ms)
    assert found.keys() == cases.keys()
    for key, case in cases.items():
        assert found[key] in scan(case, since_ms)
        if case.low < case.high:
            assert case.low <= found[key] <= case.high


def test_each_round_trip_halves_the_ranges_of_all_streams() -> None:
    length = 1_000_000
    cases = {f"key-{number}": Case([(length, 5)], 0, length >> number) for number in range(10)}
    found, steps = search(cases, 5)
    assert found == dict.fromkeys(cases, 0)
    assert len(steps) == ceil(log2(length))
    assert steps[:11] == [10] * 11
    assert steps == sorted(steps, reverse=True)


def test_no_streams_and_empty_ranges_take_no_round_trip() -> None:
    assert search({}, 5) == ({}, [])
    assert search({"key": Case([(7, 1)], 7, 7), "other": Case([(7, 9)], 9, 7)}, 5) == ({"key": 7, "other": 9}, [])


@pytest.mark.parametrize("entry_id", [b"5", b"5-", b"5-x", b"5-99999999999999999", b"x-1", b"99999999999999999-1"])
def test_the_id_of_a_foreign_entry_is_rejected(entry_id: bytes) -> None:
    operation = find_positions({"the-key": (0, 9)}, 100)
    next(operation)
    with pytest.raises(DecodeError, match="the-key"):
        operation.send([[[entry_id, [b"a", b"b"]]]])
