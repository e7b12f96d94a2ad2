"""The events of Elixir's Runic, registered under their names after ``runic.``, and `pending`, the unfinished runnables.

Importing this module registers the events. A `Hash` identifies a fact, a node or a runnable of the workflow, as its
engine computes it. If a field holds a `Fact`, the value is stored once under its content hash, and the field of the
stored event holds a `FactRef`.

Times and durations are in milliseconds. Runic takes them from a monotonic clock, so only their differences within one
process have a meaning.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from runic_redis.errors import DecodeError
from runic_redis.events import Fact, FactRef, event

__all__ = [
    "ActivationConsumed",
    "ComponentAdded",
    "ComponentRemoved",
    "ConditionSatisfied",
    "FactProduced",
    "FanInCompleted",
    "FanOutFactEmitted",
    "Hash",
    "JoinCompleted",
    "JoinEdgeRelabeled",
    "JoinFactReceived",
    "MapReduceTracked",
    "ReactionOccurred",
    "RunnableActivated",
    "RunnableCompleted",
    "RunnableDispatched",
    "RunnableFailed",
    "StateInitiated",
    "pending",
]

Hash: TypeAlias = int | str


@event("runic.component_added")
@dataclass(frozen=True, slots=True)
class ComponentAdded:
    """A component was added to the workflow. These events are the workflow's build log, its first commit.

    Attributes:
        name: the component's name.
        closure: how to rebuild the component, as a value that can be stored, such as a function's import path and
            arguments; not the function.
        source: the same in Runic's older form, without a closure.
        bindings: the values that the source uses, by name.
        to: the component before it: a name, a hash or a list of them; None for the workflow's root.
        hash: the component's hash.
    """

    name: str | None
    closure: Any = None
    source: Any = None
    bindings: dict[str, Any] = field(default_factory=dict)
    to: Any = None
    hash: Hash | None = None


@event("runic.component_removed")
@dataclass(frozen=True, slots=True)
class ComponentRemoved:
    """A component was removed from the workflow.

    Attributes:
        name: the component's name.
        hash: the component's hash.
    """

    name: str
    hash: Hash | None = None


@event("runic.reaction_occurred")
@dataclass(frozen=True, slots=True)
class ReactionOccurred:
    """An edge of the workflow's graph, in a log of the whole graph; not an edge between components.

    Attributes:
        from_: the hash of the fact or node at the edge's start. A fact may also be a `Fact` or a `FactRef`.
        to: the hash of the fact or node at the edge's end, or also a `Fact` or a `FactRef`.
        reaction: the edge's label, such as "produced", "runnable", "ran", "joined", "satisfied" or "meta_ref".
        properties: further properties of the edge, such as the "kind" of a "meta_ref".
        weight: the edge's weight: its number of steps from the input.
    """

    from_: Any
    to: Any
    reaction: str
    properties: dict[str, Any] | None = None
    weight: int = 0


@event("runic.fact_produced")
@dataclass(frozen=True, slots=True)
class FactProduced:
    """A node produced a fact, or a fact came in from outside.

    Attributes:
        hash: the fact's hash. Runic's hash covers value and ancestry, so it differs from the hash that stores the
            value.
        value: the fact's value. It becomes a `Fact`, unless it is already a `Fact` or a `FactRef`.
        producer_label: the label of the edge from the producer: "produced", "state_produced", "state_initiated",
            "reduced", "fan_out", "joined" or "input".
        ancestry: the node that produced the fact, and the fact that it used; None for a fact from outside.
        weight: the edge's weight: the fact's number of steps from the input.
        meta: further properties of the fact.
    """

    hash: Hash
    value: Any
    producer_label: str
    ancestry: tuple[Hash, Hash] | None = None
    weight: int = 0
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.value, (Fact, FactRef)):
            object.__setattr__(self, "value", Fact(self.value))


@event("runic.activation_consumed")
@dataclass(frozen=True, slots=True)
class ActivationConsumed:
    """A node processed a fact that had activated it.

    Attributes:
        fact_hash: the fact.
        node_hash: the node.
        from_label: the label of the consumed edge: "runnable" or "matchable".
    """

    fact_hash: Hash
    node_hash: Hash
    from_label: str


@event("runic.runnable_activated")
@dataclass(frozen=True, slots=True)
class RunnableActivated:
    """A fact activated a later node.

    Attributes:
        fact_hash: the fact.
        node_hash: the node.
        activation_kind: "runnable" for a node that executes, "matchable" for a node that matches.
    """

    fact_hash: Hash
    node_hash: Hash
    activation_kind: str


@event("runic.condition_satisfied")
@dataclass(frozen=True, slots=True)
class ConditionSatisfied:
    """A fact satisfied a condition, or a conjunction of conditions.

    Attributes:
        fact_hash: the fact.
        condition_hash: the condition.
        weight: the edge's weight: its number of steps from the input.
    """

    fact_hash: Hash
    condition_hash: Hash
    weight: int = 0


@event("runic.map_reduce_tracked")
@dataclass(frozen=True, slots=True)
class MapReduceTracked:
    """A step between a fan-out and its fan-in produced the result for one item.

    Attributes:
        source_fact_hash: the fact that was fanned out.
        fan_out_hash: the fan-out.
        fan_out_fact_hash: the item.
        step_hash: the step.
        result_fact_hash: the step's result.
    """

    source_fact_hash: Hash
    fan_out_hash: Hash
    fan_out_fact_hash: Hash
    step_hash: Hash
    result_fact_hash: Hash


@event("runic.state_initiated")
@dataclass(frozen=True, slots=True)
class StateInitiated:
    """An accumulator got its first state.

    Attributes:
        accumulator_hash: the accumulator.
        init_fact_hash: the fact that is the state.
        init_value: the state's value; wrap it in a `Fact` to store it once.
        init_ancestry: the accumulator, and a hash of the value alone.
        weight: the edge's weight: the state's number of steps from the input.
    """

    accumulator_hash: Hash
    init_fact_hash: Hash
    init_value: Any
    init_ancestry: tuple[Hash, Hash] | None = None
    weight: int = 0


@event("runic.join_fact_received")
@dataclass(frozen=True, slots=True)
class JoinFactReceived:
    """A fact of one branch reached a join, which may still wait for other branches.

    Attributes:
        fact_hash: the fact.
        join_hash: the join.
        parent_hash: the node at the end of the branch, which produced the fact.
        weight: the edge's weight: its number of steps from the input.
    """

    fact_hash: Hash
    join_hash: Hash
    parent_hash: Hash
    weight: int = 0


@event("runic.join_completed")
@dataclass(frozen=True, slots=True)
class JoinCompleted:
    """A join received a fact of every branch.

    Attributes:
        join_hash: the join.
        result_fact_hash: the fact that it made of them.
        result_value: the value of that fact: the values of the branches in order; wrap it in a `Fact` to store it once.
        result_ancestry: the join, and the fact that arrived last.
        weight: the edge's weight: the result's number of steps from the input.
    """

    join_hash: Hash
    result_fact_hash: Hash
    result_value: Any
    result_ancestry: tuple[Hash, Hash] | None = None
    weight: int = 0


@event("runic.join_edge_relabeled")
@dataclass(frozen=True, slots=True)
class JoinEdgeRelabeled:
    """An edge into a join was relabeled when the join completed.

    Attributes:
        fact_hash: the fact that the edge comes from.
        join_hash: the join.
        from_label: the old label, "joined".
        to_label: the new label, "join_satisfied".
    """

    fact_hash: Hash
    join_hash: Hash
    from_label: str
    to_label: str


@event("runic.fan_out_fact_emitted")
@dataclass(frozen=True, slots=True)
class FanOutFactEmitted:
    """A fan-out made a fact of one item of its input.

    Attributes:
        fan_out_hash: the fan-out.
        source_fact_hash: its input.
        emitted_fact_hash: the fact.
        emitted_value: the item; wrap it in a `Fact` to store it once.
        emitted_ancestry: the fan-out and its input.
        weight: the edge's weight: the fact's number of steps from the workflow's input.
    """

    fan_out_hash: Hash
    source_fact_hash: Hash
    emitted_fact_hash: Hash
    emitted_value: Any
    emitted_ancestry: tuple[Hash, Hash] | None = None
    weight: int = 0


@event("runic.fan_in_completed")
@dataclass(frozen=True, slots=True)
class FanInCompleted:
    """A fan-in reduced the results for all items of a fan-out.

    Attributes:
        fan_in_hash: the fan-in.
        source_fact_hash: the fact that was fanned out.
        result_fact_hash: the fact that it made of them.
        result_value: the value of that fact; wrap it in a `Fact` to store it once.
        expected_key: the key that tracked the items: the source fact and the fan-out.
        seen_key: the key that tracked the results: the source fact and the step before the fan-in.
        result_ancestry: the fan-in, and the fact that arrived last.
        weight: the edge's weight: the result's number of steps from the input.
    """

    fan_in_hash: Hash
    source_fact_hash: Hash
    result_fact_hash: Hash
    result_value: Any
    expected_key: tuple[Hash, Hash]
    seen_key: tuple[Hash, Hash]
    result_ancestry: tuple[Hash, Hash] | None = None
    weight: int = 0


@event("runic.runnable_dispatched")
@dataclass(frozen=True, slots=True)
class RunnableDispatched:
    """A node is about to run on a fact. Each attempt has one such event.

    Attributes:
        runnable_id: the runnable, which is the node and the fact together; the same for each attempt.
        node_hash: the node.
        input_fact: the fact; wrap it in a `Fact` to store it once.
        dispatched_at: the time of dispatch, in milliseconds.
        attempt: 0 for the first try, 1 for the first retry, and so on.
        node_name: the node's name, or its hash if it has no name.
        policy: the scheduling policy, such as a dict of its settings; functions cannot be stored.
    """

    runnable_id: Hash
    node_hash: Hash
    input_fact: Any
    dispatched_at: int
    attempt: int = 0
    node_name: Hash | None = None
    policy: Any = None


@event("runic.runnable_completed")
@dataclass(frozen=True, slots=True)
class RunnableCompleted:
    """A runnable succeeded.

    Attributes:
        runnable_id: the runnable.
        node_hash: its node.
        result_fact: the fact that it produced; wrap it in a `Fact` to store it once.
        completed_at: the time of completion, in milliseconds.
        attempt: the attempt that succeeded, counted from 0.
        duration_ms: the duration of that attempt, in milliseconds.
    """

    runnable_id: Hash
    node_hash: Hash
    result_fact: Any
    completed_at: int
    attempt: int
    duration_ms: int


@event("runic.runnable_failed")
@dataclass(frozen=True, slots=True)
class RunnableFailed:
    """A runnable failed finally. Only the last attempt has this event.

    Attributes:
        runnable_id: the runnable.
        node_hash: its node.
        error: the error of the last attempt, as a value that can be stored, such as the text of an exception.
        failed_at: the time of the failure, in milliseconds.
        attempts: the number of attempts.
        failure_action: the workflow's reaction: "halt" or "skip".
    """

    runnable_id: Hash
    node_hash: Hash
    error: Any
    failed_at: int
    attempts: int
    failure_action: str


def pending(events: Iterable[Any]) -> list[RunnableDispatched]:
    """Return the runnables that were dispatched and have neither completed nor failed. Run them again after a crash.

    For this, append each dispatch before you run it. Pass all the events of the workflow: the events after a snapshot
    do not show what was pending at the snapshot.

    A failure is final, as in Runic, which records no failure for an attempt that it retries. A runnable that is
    dispatched again after it completed or failed is pending again. In Runic, it stays done.

    Args:
        events: a workflow's events, in order. Other events are ignored.

    Returns:
        The last dispatch of each pending runnable, in the order of these dispatches.

    Raises:
        DecodeError: an event's `runnable_id` is not a hash.
    """
    dispatched: dict[Hash, RunnableDispatched] = {}
    for past in events:
        if isinstance(past, (RunnableDispatched, RunnableCompleted, RunnableFailed)):
            try:
                hash(past.runnable_id)
            except TypeError as error:  # reading does not check the types of fields
                raise DecodeError(f"A {type(past).__name__} is damaged: runnable_id is no hash: {error}.") from error
            # Removed first, so that a retry has the place of its dispatch, not of the first try.
            dispatched.pop(past.runnable_id, None)
        if isinstance(past, RunnableDispatched):
            dispatched[past.runnable_id] = past
    return list(dispatched.values())
