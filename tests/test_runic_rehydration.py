"""Runic's classification: the hot facts, the cold facts, and the loading of hot ones."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runic_redis import DecodeError, Fact, FactRef, InvalidType, UnknownEvent
from runic_redis.runic_events import (
    ActivationConsumed,
    ComponentAdded,
    ComponentRemoved,
    ConditionSatisfied,
    FactProduced,
    FanInCompleted,
    FanOutFactEmitted,
    JoinCompleted,
    JoinEdgeRelabeled,
    JoinFactReceived,
    MapReduceTracked,
    ReactionOccurred,
    RunnableActivated,
    RunnableCompleted,
    RunnableDispatched,
    RunnableFailed,
    StateInitiated,
)
from runic_redis.runic_rehydration import classify
from tests.faces import Face

REF = FactRef("sha256:" + "0f" * 32)
ADD, DOUBLE, SUBTRACT, JOIN = "add", "double", "subtract", "join"


def given_input(fact: int) -> FactProduced:
    return FactProduced(fact, REF, "input")


def made(fact: int, node: str, parent: int, label: str = "produced") -> FactProduced:
    return FactProduced(fact, REF, label, (node, parent))


def ran(fact: int, node: str, result: int, *then: str) -> list[Any]:
    """Return the events of a node's run on a fact, and of the nodes that wait for its result."""
    return [
        made(result, node, fact),
        ActivationConsumed(fact, node, "runnable"),
        *(RunnableActivated(result, one, "runnable") for one in then),
    ]


START = [given_input(1), RunnableActivated(1, ADD, "runnable")]

# Events, the hot facts and the cold ones. The first eight are the cases of Runic's own tests.
CASES: dict[str, tuple[list[Any], set[Any], set[Any]]] = {
    "nothing": ([], set(), set()),
    "an input that nothing has run on": (START, {1}, set()),
    "a chain in the middle": ([*START, *ran(1, ADD, 2, DOUBLE)], {2}, {1}),
    "a chain at its end": (
        [*START, *ran(1, ADD, 2, DOUBLE), *ran(2, DOUBLE, 3, SUBTRACT), *ran(3, SUBTRACT, 4)],
        {4},
        {1, 2, 3},
    ),
    "two branches at their end": (
        [*START, RunnableActivated(1, DOUBLE, "runnable"), *ran(1, ADD, 2), *ran(1, DOUBLE, 3)],
        {2, 3},
        {1},
    ),
    "one branch still to be run": ([*START, RunnableActivated(1, DOUBLE, "runnable"), *ran(1, ADD, 2)], {1, 2}, set()),
    "a branch at a join, and the other still to come": (
        [
            *START,
            RunnableActivated(1, DOUBLE, "runnable"),
            *ran(1, ADD, 2, JOIN),
            made(5, SUBTRACT, 2),
            JoinFactReceived(2, JOIN, ADD),
            ActivationConsumed(2, JOIN, "runnable"),
        ],
        {1, 2, 5},
        set(),
    ),
    "a join that has completed": (
        [
            *START,
            *ran(1, ADD, 2),
            *ran(1, DOUBLE, 3),
            JoinFactReceived(2, JOIN, ADD),
            JoinFactReceived(3, JOIN, DOUBLE),
            JoinCompleted(JOIN, 4, REF, (JOIN, 3)),
            JoinEdgeRelabeled(2, JOIN, "joined", "join_satisfied"),
            JoinEdgeRelabeled(3, JOIN, "joined", "join_satisfied"),
        ],
        {2, 4},  # no fact has 2 as its parent: the result's ancestry names the fact that came last
        {1, 3},
    ),
    "an edge relabeled that is not there": (
        [given_input(1), made(2, ADD, 1), JoinEdgeRelabeled(1, JOIN, "joined", "runnable")],
        {2},
        {1},
    ),
    "to be matched": (
        [given_input(1), made(2, ADD, 1), RunnableActivated(1, "condition", "matchable")],
        {1, 2},
        set(),
    ),
    "matched": (
        [
            given_input(1),
            made(2, ADD, 1),
            RunnableActivated(1, "condition", "matchable"),
            ConditionSatisfied(1, "condition"),
            ActivationConsumed(1, "condition", "matchable"),
        ],
        {2},
        {1},
    ),
    "used up as another kind than it was activated": (
        [*START, made(2, ADD, 1), ActivationConsumed(1, ADD, "matchable")],
        {1, 2},
        set(),
    ),
    "activated again": ([*START, *ran(1, ADD, 2), RunnableActivated(1, ADD, "runnable")], {1, 2}, set()),
    "fanned out and in": (
        [
            given_input(1),
            FanOutFactEmitted("out", 1, 2, REF, ("out", 1)),
            FanOutFactEmitted("out", 1, 3, REF, ("out", 1)),
            *ran(2, DOUBLE, 4),
            *ran(3, DOUBLE, 5),
            MapReduceTracked(1, "out", 2, DOUBLE, 4),
            FanInCompleted("in", 1, 6, REF, (1, "out"), (1, DOUBLE), ("in", 5)),
        ],
        {4, 6},
        {1, 2, 3, 5},
    ),
    "an accumulator": (
        [
            given_input(1),
            StateInitiated("sum", 2, REF, ("sum", "hash of the value")),
            made(3, "sum", 1, "state_produced"),
        ],
        {2, 3},
        {1},
    ),
    "edges to facts that are not there": (
        [RunnableActivated(9, ADD, "runnable"), JoinFactReceived(8, JOIN, ADD)],
        set(),
        set(),
    ),
    "a log of the whole graph": (
        [
            ComponentAdded(ADD, hash=ADD),
            made(2, ADD, 1),
            ReactionOccurred(1, ADD, "ran"),
            ReactionOccurred(ADD, 2, "produced"),
            ReactionOccurred(2, DOUBLE, "runnable"),
            ReactionOccurred(3, JOIN, "joined"),
            made(4, SUBTRACT, 3),
        ],
        {2, 3, 4},
        {1},
    ),
    "what happened comes after such a log": (
        [ActivationConsumed(1, ADD, "runnable"), made(2, ADD, 1), ReactionOccurred(1, ADD, "runnable")],
        {2},
        {1},
    ),
    "an unknown label": (
        [ReactionOccurred(1, 2, "generation"), ReactionOccurred({"a": "node"}, [1], "flow")],
        set(),
        set(),
    ),
    "a meta reference": (
        [
            *START,
            *ran(1, ADD, 2),
            *ran(2, DOUBLE, 3),
            ReactionOccurred("rule", ADD, "meta_ref", {"kind": "latest_value_of"}),
        ],
        {2, 3},
        {1},
    ),
    "meta references that take no values": (
        [
            *START,
            *ran(1, ADD, 2),
            *ran(2, DOUBLE, 3),
            ReactionOccurred("rule", ADD, "meta_ref", {"kind": "fact_count"}),
            ReactionOccurred("rule", ADD, "meta_ref", {"kind": "step_ran?"}),
            ReactionOccurred("rule", ADD, "meta_ref"),
        ],
        {3},
        {1, 2},
    ),
    "others": (
        [{"plain": 1}, UnknownEvent("runic.fact_produced", 9, {}), ComponentRemoved(ADD, ADD), *START],
        {1},
        set(),
    ),
}


@pytest.mark.parametrize(("events", "hot", "cold"), CASES.values(), ids=CASES.keys())
def test_what_is_hot_and_what_is_cold(events: list[Any], hot: set[Any], cold: set[Any]) -> None:
    found = classify(iter(events))
    assert (found.hot, found.cold) == (hot, cold)


@pytest.mark.parametrize(
    ("target", "label", "hot"),
    [
        (ADD, "produced", {2, 3}),
        (ADD, "state_produced", {2, 3}),
        (ADD, "reduced", {2, 3}),
        (ADD, "fan_out", {3}),
        ("another", "produced", {3}),
    ],
)
def test_the_engine_names_whose_values_its_components_refer_to(target: str, label: str, hot: set[int]) -> None:
    events = [given_input(1), made(2, ADD, 1, label), made(3, DOUBLE, 2)]
    assert classify(events, meta_targets=[target]).hot == hot


@pytest.mark.parametrize(
    "event",
    [
        StateInitiated("node", 2, REF),
        JoinCompleted("node", 2, REF),
        FanInCompleted("node", 1, 2, REF, (1, 2), (1, 3)),
        ReactionOccurred("node", 2, "produced"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_a_node_made_in_another_way_counts_too(event: Any) -> None:
    later = made(3, DOUBLE, 2)
    assert classify([event, later]).hot == {3}
    assert classify([event, later], ["node"]).hot == {2, 3}


@pytest.mark.parametrize("bad", ["node", None, 1, [["node"]], [None]])
def test_targets_are_a_list_of_hashes(bad: Any) -> None:
    with pytest.raises(InvalidType, match="meta_targets is a list of hashes"):
        classify([], bad)


@pytest.mark.parametrize(
    "damaged",
    [
        FactProduced([1], REF, "input"),  # type: ignore[arg-type]
        FactProduced(1, REF, "produced", 7),  # type: ignore[arg-type]
        FactProduced(1, REF, "produced", (1, 2, 3)),  # type: ignore[arg-type]
        RunnableActivated({}, 1, "runnable"),  # type: ignore[arg-type]
        ActivationConsumed(1, [], "runnable"),  # type: ignore[arg-type]
        JoinEdgeRelabeled([], 1, "joined", "x"),  # type: ignore[arg-type]
        ReactionOccurred(1, 2, []),  # type: ignore[arg-type]
        RunnableDispatched([], 2, REF, 3),  # type: ignore[arg-type]
    ],
    ids=lambda damaged: type(damaged).__name__,
)
def test_an_event_without_a_hash_is_noticed(damaged: Any) -> None:
    with pytest.raises(DecodeError, match=f"A {type(damaged).__name__} is damaged"):
        classify([damaged])


@given(
    st.lists(
        st.one_of(
            st.builds(made, st.integers(0, 5), st.sampled_from("ab"), st.integers(0, 5)),
            st.builds(RunnableActivated, st.integers(0, 5), st.sampled_from("ab"), st.just("runnable")),
            st.builds(ActivationConsumed, st.integers(0, 5), st.sampled_from("ab"), st.just("runnable")),
            st.builds(JoinFactReceived, st.integers(0, 5), st.just("j"), st.sampled_from("ab")),
        ),
        max_size=30,
    )
)
def test_each_fact_is_hot_or_cold(events: list[Any]) -> None:
    facts = {event.hash for event in events if isinstance(event, FactProduced)}
    found = classify(events)
    assert found.hot | found.cold == facts
    assert not found.hot & found.cold
    parents = {event.ancestry[1] for event in events if isinstance(event, FactProduced)}
    assert found.cold <= parents


# On a store


def dispatch(runnable: int, value: Any, attempt: int = 0) -> RunnableDispatched:
    return RunnableDispatched(runnable, ADD, Fact(value), 1000, attempt)


def test_rehydrate_loads_what_is_hot_and_nothing_else(face: Face) -> None:
    build_log = [ComponentAdded(ADD, Fact("how to add")), ComponentAdded(DOUBLE, Fact("how to double"), to=ADD)]

    def apply(state: list[Any], event: Any) -> list[Any]:
        return [*state, event]

    with face.session(apply, [], build_log=build_log) as running:
        running.record(FactProduced(1, "the input", "input"), RunnableActivated(1, ADD, "runnable"))
        running.record(dispatch(7, "an attempt"))
        running.record(dispatch(7, "the last attempt", 1), dispatch(8, "done"))
        running.record(RunnableCompleted(8, ADD, Fact("its result"), 2000, 0, 5))
        running.record(RunnableFailed(9, ADD, Fact("why"), 2000, 1, "halt"))
        running.record(FactProduced(2, "a sum", "produced", (ADD, 1)), ActivationConsumed(1, ADD, "runnable"))
        running.record(JoinCompleted(JOIN, 3, Fact("joined"), (JOIN, 2)))
        running.record({"note": Fact("of no fact")})
    events = list(face.store.stream("w"))
    found = classify(events)
    assert (found.hot, found.cold) == ({3}, {1, 2})
    assert list(found.dispatched) == [7]

    loaded = face.rehydrate(events, found.is_hot)
    values = [value.value if isinstance(value, Fact) else None for value in _values(loaded)]
    assert values == [
        *("how to add", "how to double"),
        None,  # the input
        None,  # the first attempt
        "the last attempt",
        *(None, None, None),  # the finished ones
        None,  # the sum, of which the join was made
        "joined",
        "of no fact",
    ]
    assert all(isinstance(value, Fact | FactRef) for value in _values(loaded))
    assert [value.value for value in _values(face.rehydrate(events, None))][2:4] == ["the input", "an attempt"]


def _values(events: list[Any]) -> Iterator[Any]:
    names = ("value", "closure", "input_fact", "result_fact", "error", "result_value")
    for event in events:
        if isinstance(event, dict):
            yield event["note"]
        else:
            yield from (getattr(event, name) for name in names if hasattr(event, name))


def test_rehydrate_asks_for_no_cold_fact(face: Face) -> None:
    """A cold fact that was never stored raises no error."""
    face.store.append("w", [FactProduced(1, "cold", "input"), FactProduced(2, "hot", "produced", (ADD, 1))])
    events = list(face.store.stream("w"))
    lost = [events[0], FactProduced(3, FactRef("sha256:" + "0" * 64), "input"), made(4, ADD, 3), events[1]]
    lost[2] = FactProduced(4, events[1].value, "produced", (ADD, 3))
    loaded = face.rehydrate(lost, classify(lost).is_hot)
    assert [type(event.value) for event in loaded] == [FactRef, FactRef, Fact, Fact]


def test_a_fact_named_by_an_edge_is_known_by_its_reference(face: Face) -> None:
    face.store.append(
        "w", [ReactionOccurred(Fact("past"), ADD, "ran"), ReactionOccurred(Fact("pending"), ADD, "runnable")]
    )
    past, waiting = (event.from_.hash for event in face.store.stream("w"))
    face.store.append("w", [FactProduced(9, "sum", "produced", (ADD, past))])
    events = list(face.store.stream("w"))
    found = classify(events)
    assert (found.hot, found.cold) == ({waiting, 9}, {past})
    loaded = face.rehydrate(events, found.is_hot)
    assert [loaded[0].from_, loaded[1].from_] == [FactRef(past), Fact("pending")]
