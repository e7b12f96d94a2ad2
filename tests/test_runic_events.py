"""Runic's events: they come back unchanged, and show what is pending."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runic_redis import DecodeError, Fact, FactRef, UnknownEvent, runic_events
from runic_redis.context import make_context
from runic_redis.events import default_registry
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
    pending,
)
from tests.codecs import rows_by_msgpack

REF = FactRef("sha256:" + "0f" * 32)

# Each registered name, the fields of the Elixir struct, and an event with all of them set. (A field cannot be called
# "from" in Python: it is "from_".)
VOCABULARY: list[tuple[str, set[str], Any]] = [
    (
        "runic.component_added",
        {"name", "closure", "source", "bindings", "to", "hash"},
        ComponentAdded("double", {"call": "shop:double"}, ["old", ("form",)], {"factor": 2}, ["add", 7], 8),
    ),
    ("runic.component_removed", {"name", "hash"}, ComponentRemoved("double", 8)),
    (
        "runic.reaction_occurred",
        {"from_", "to", "reaction", "properties", "weight"},
        ReactionOccurred(8, REF, "produced", {"kind": "step"}, 2),
    ),
    (
        "runic.fact_produced",
        {"hash", "value", "ancestry", "producer_label", "weight", "meta"},
        FactProduced(1, REF, "produced", (2, "three"), 4, {"item": 5}),
    ),
    (
        "runic.activation_consumed",
        {"fact_hash", "node_hash", "from_label"},
        ActivationConsumed(1, "two", "runnable"),
    ),
    (
        "runic.runnable_activated",
        {"fact_hash", "node_hash", "activation_kind"},
        RunnableActivated("one", 2, "matchable"),
    ),
    (
        "runic.condition_satisfied",
        {"fact_hash", "condition_hash", "weight"},
        ConditionSatisfied(1, 2, 3),
    ),
    (
        "runic.map_reduce_tracked",
        {"source_fact_hash", "fan_out_hash", "fan_out_fact_hash", "step_hash", "result_fact_hash"},
        MapReduceTracked(1, 2, 3, "four", 5),
    ),
    (
        "runic.state_initiated",
        {"accumulator_hash", "init_fact_hash", "init_value", "init_ancestry", "weight"},
        StateInitiated(1, 2, REF, (1, 3), 4),
    ),
    (
        "runic.join_fact_received",
        {"fact_hash", "join_hash", "parent_hash", "weight"},
        JoinFactReceived(1, 2, 3, 4),
    ),
    (
        "runic.join_completed",
        {"join_hash", "result_fact_hash", "result_value", "result_ancestry", "weight"},
        JoinCompleted(1, 2, REF, (1, 3), 4),
    ),
    (
        "runic.join_edge_relabeled",
        {"fact_hash", "join_hash", "from_label", "to_label"},
        JoinEdgeRelabeled(1, 2, "joined", "join_satisfied"),
    ),
    (
        "runic.fan_out_fact_emitted",
        {"fan_out_hash", "source_fact_hash", "emitted_fact_hash", "emitted_value", "emitted_ancestry", "weight"},
        FanOutFactEmitted(1, 2, 3, REF, (1, 2), 4),
    ),
    (
        "runic.fan_in_completed",
        {
            "fan_in_hash",
            "source_fact_hash",
            "result_fact_hash",
            "result_value",
            "result_ancestry",
            "expected_key",
            "seen_key",
            "weight",
        },
        FanInCompleted(1, 2, 3, REF, (2, 4), (2, 5), (1, 6), 7),
    ),
    (
        "runic.runnable_dispatched",
        {"runnable_id", "node_name", "node_hash", "input_fact", "dispatched_at", "policy", "attempt"},
        RunnableDispatched(1, 2, REF, -(2**62), 3, "call", {"max_retries": 3, "backoff": "linear"}),
    ),
    (
        "runic.runnable_completed",
        {"runnable_id", "node_hash", "result_fact", "completed_at", "attempt", "duration_ms"},
        RunnableCompleted(1, 2, REF, 3, 4, 5),
    ),
    (
        "runic.runnable_failed",
        {"runnable_id", "node_hash", "error", "failed_at", "attempts", "failure_action"},
        RunnableFailed(1, 2, ("timeout", 30_000), 3, 4, "halt"),
    ),
]
NAMES = [name for name, _, _ in VOCABULARY]


@pytest.fixture(autouse=True, scope="module", params=[True, False], ids=["msgspec", "msgpack"])
def _each_codec(request: pytest.FixtureRequest) -> Iterator[None]:
    with nullcontext() if request.param else rows_by_msgpack():
        yield


def through(commit: list[Any]) -> list[Any]:
    """Encode and decode a commit."""
    codec = make_context("t", 4, "raise").codec
    return [past for entry in codec.encode_commit(commit) for past in codec.decode_entry(entry.header, entry.payload)]


@pytest.mark.parametrize(("name", "names", "written"), VOCABULARY, ids=NAMES)
def test_an_event_has_its_name_and_fields_and_comes_back(name: str, names: set[str], written: Any) -> None:
    registered = default_registry.of(type(written))
    assert registered is not None
    assert (registered.schema.name, registered.schema.version) == (name, 1)
    assert {field.name for field in fields(written)} == names
    (read,) = through([written])
    assert type(read) is type(written)
    assert read == written


def test_a_commit_of_all_of_them_comes_back() -> None:
    commit = [written for _, _, written in VOCABULARY]
    read = through(commit)
    assert read == commit
    assert [type(past) for past in read] == [type(past) for past in commit]


def test_the_vocabulary_is_all_there_is() -> None:
    public = {type(written).__name__ for _, _, written in VOCABULARY} | {"Hash", "pending"}
    assert set(runic_events.__all__) == public
    assert len(VOCABULARY) == 17


@pytest.mark.parametrize(
    "short",
    [
        ComponentAdded("add"),
        ComponentRemoved("add"),
        ReactionOccurred(1, 2, "runnable"),
        FactProduced("one", REF, "input"),
        StateInitiated(1, 2, REF),
        JoinCompleted(1, 2, REF),
        FanOutFactEmitted(1, 2, 3, REF),
        FanInCompleted(1, 2, 3, REF, (2, 4), (2, 5)),
        RunnableDispatched(1, 2, REF, 3),
    ],
    ids=lambda short: type(short).__name__,
)
def test_what_is_optional_may_be_left_out(short: Any) -> None:
    assert through([short]) == [short]


@pytest.mark.parametrize("value", [None, 0, "text", [1, {"a": 2}], RunnableActivated(1, 2, "runnable")])
def test_a_produced_value_is_made_a_fact(value: Any) -> None:
    assert FactProduced(1, value, "produced").value == Fact(value)


@pytest.mark.parametrize("value", [Fact([1]), Fact(None), REF])
def test_a_produced_value_that_is_a_fact_already_is_left_alone(value: Any) -> None:
    produced = FactProduced(1, value, "produced")
    assert produced.value is value
    assert replace(produced, weight=1).value is value


def test_a_value_is_not_made_a_fact_again_when_it_is_read() -> None:
    written = FactProduced(1, REF, "produced")
    object.__setattr__(written, "value", "as another program may have written it")
    (read,) = through([written])
    assert read.value == "as another program may have written it"


def test_events_made_with_the_same_defaults_share_no_meta() -> None:
    assert ComponentAdded("add").bindings is not ComponentAdded("add").bindings
    assert FactProduced(1, 2, "input").meta is not FactProduced(1, 2, "input").meta


def dispatched(runnable_id: int | str, attempt: int = 0) -> RunnableDispatched:
    return RunnableDispatched(runnable_id, 7, REF, 1000 + attempt, attempt)


def completed(runnable_id: int | str, attempt: int = 0) -> RunnableCompleted:
    return RunnableCompleted(runnable_id, 7, REF, 2000, attempt, 5)


def failed(runnable_id: int | str, attempts: int = 1) -> RunnableFailed:
    return RunnableFailed(runnable_id, 7, "boom", 2000, attempts, "halt")


# None of these events is about a runnable.
OTHERS: list[Any] = [
    {"runnable_id": 1},
    UnknownEvent("runic.runnable_completed", 9, {"runnable_id": 1}),
    *(
        written
        for _, _, written in VOCABULARY
        if not isinstance(written, (RunnableDispatched, RunnableCompleted, RunnableFailed))
    ),
]

CASES: dict[str, tuple[list[Any], list[RunnableDispatched]]] = {
    "nothing": ([], []),
    "dispatched": ([dispatched(1)], [dispatched(1)]),
    "completed": ([dispatched(1), completed(1)], []),
    "failed": ([dispatched(1), failed(1)], []),
    "in the order of dispatch": (
        [dispatched(3), dispatched("b"), dispatched(1), dispatched("a"), completed("b")],
        [dispatched(3), dispatched(1), dispatched("a")],
    ),
    "a retry counts once, by its last dispatch": (
        [dispatched(1), dispatched(2), dispatched(1, 1)],
        [dispatched(2), dispatched(1, 1)],
    ),
    "a retry that completed ends all attempts": ([dispatched(1), dispatched(1, 1), completed(1, 1)], []),
    "a completion ends it whichever attempt it names": ([dispatched(1), dispatched(1, 1), completed(1, 0)], []),
    "the last of three attempts failed": (
        [dispatched(1), dispatched(1, 1), dispatched(1, 2), failed(1, 3)],
        [],
    ),
    "dispatched again after it completed": ([dispatched(1), completed(1), dispatched(1)], [dispatched(1)]),
    "dispatched again after it failed": (
        [dispatched(1), dispatched(2), failed(1), dispatched(1, 1)],
        [dispatched(2), dispatched(1, 1)],
    ),
    "ended twice": ([dispatched(1), completed(1), failed(1)], []),
    "ended without a dispatch": ([completed(1), failed(2), failed(2, 0)], []),
    "an end before the dispatch": ([completed(1), dispatched(1)], [dispatched(1)]),
    "an id of another type is another": ([dispatched(1), dispatched("1"), completed("1")], [dispatched(1)]),
    "others are passed over": ([*OTHERS, dispatched(1), *OTHERS], [dispatched(1)]),
}


@pytest.mark.parametrize(("past", "expected"), CASES.values(), ids=CASES.keys())
def test_what_is_pending(past: list[Any], expected: list[RunnableDispatched]) -> None:
    assert pending(past) == expected


def test_what_is_pending_of_a_stream_that_was_read() -> None:
    past = through([dispatched(1), dispatched(2), completed(1), dispatched(3), failed(3), dispatched(2, 1)])
    assert pending(iter(past)) == [dispatched(2, 1)]


STEPS = st.tuples(st.sampled_from("dddcfo"), st.integers(0, 3))


@given(st.lists(STEPS, max_size=30))
def test_a_runnable_is_pending_if_its_last_event_is_a_dispatch(steps: list[tuple[str, int]]) -> None:
    # The attempt is the index in the list, so no two dispatches are equal.
    make = {"d": dispatched, "c": completed, "f": failed, "o": lambda of, place: OTHERS[(of + place) % len(OTHERS)]}
    past = [make[kind](of, place) for place, (kind, of) in enumerate(steps)]
    last_word = {of: place for place, (kind, of) in enumerate(steps) if kind != "o"}
    expected = [past[place] for place in sorted(last_word.values()) if steps[place][0] == "d"]
    assert pending(past) == expected


@pytest.mark.parametrize("damaged", [[1], {}, ([],)])
def test_a_runnable_without_an_id_is_noticed(damaged: Any) -> None:
    with pytest.raises(DecodeError, match="RunnableDispatched is damaged"):
        runic_events.pending([RunnableDispatched(damaged, 2, REF, 3)])
