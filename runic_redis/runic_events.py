"""The events of Elixir's Runic, registered under ``runic.`` and their names, and what a crash has left `pending`.

Importing this module registers them. A Hash names a fact, a node or a runnable of the workflow, as its engine computes
it. Where a field may hold a `Fact`, its value is kept once, under its content hash, and is a `FactRef` when read back.

Times and durations are in milliseconds. Runic takes them from a monotonic clock, of which only the differences within
one process mean anything.
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
        closure: how to rebuild the component, as a value that can be stored: a function's import path and arguments,
            say, but not the function.
        source: the same in Runic's older form, without a closure.
        bindings: the values that the source uses, by name.
        to: the component that it follows: a name, a hash or a list of them; None for the workflow's root.
        hash: the component's.
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
        hash: the component's.
    """

    name: str
    hash: Hash | None = None


@event("runic.reaction_occurred")
@dataclass(frozen=True, slots=True)
class ReactionOccurred:
    """An edge of the workflow's graph, other than those between components, as a log of the whole graph lists it.

    Attributes:
        from_: the fact or the node at its start, by its hash. A fact may also be a `Fact`, or a `FactRef`.
        to: the fact or the node at its end; the same.
        reaction: the edge's label, such as "produced", "runnable", "ran", "joined", "satisfied" or "meta_ref".
        properties: what else is known of the edge; of a "meta_ref" its "kind", say.
        weight: of the edge: how many steps it is from the input.
    """

    from_: Any
    to: Any
    reaction: str
    properties: dict[str, Any] | None = None
    weight: int = 0


@event("runic.fact_produced")
@dataclass(frozen=True, slots=True)
class FactProduced:
    """A node has produced a fact, or one came in from outside.

    Attributes:
        hash: the fact's. Runic's covers value and ancestry, so it is not the one that the value is kept under.
        value: the fact's; unless it is a `Fact` or a `FactRef` already, it is made a `Fact`.
        producer_label: the edge from the producer: "produced", "state_produced", "state_initiated", "reduced",
            "fan_out", "joined" or "input".
        ancestry: the node that produced it, and the fact it was produced from; None for one from outside.
        weight: of the edge: how many steps the fact is from the input.
        meta: what else is known of it.
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
    """A node has dealt with a fact that had activated it.

    Attributes:
        fact_hash: the fact.
        node_hash: the node.
        from_label: the edge used up: "runnable" or "matchable".
    """

    fact_hash: Hash
    node_hash: Hash
    from_label: str


@event("runic.runnable_activated")
@dataclass(frozen=True, slots=True)
class RunnableActivated:
    """A fact has activated a node further on.

    Attributes:
        fact_hash: the fact.
        node_hash: the node.
        activation_kind: "runnable" for a node that executes, "matchable" for one that matches.
    """

    fact_hash: Hash
    node_hash: Hash
    activation_kind: str


@event("runic.condition_satisfied")
@dataclass(frozen=True, slots=True)
class ConditionSatisfied:
    """A fact meets a condition, or a conjunction of them.

    Attributes:
        fact_hash: the fact.
        condition_hash: the condition.
        weight: of the edge: how many steps it is from the input.
    """

    fact_hash: Hash
    condition_hash: Hash
    weight: int = 0


@event("runic.map_reduce_tracked")
@dataclass(frozen=True, slots=True)
class MapReduceTracked:
    """A step between a fan-out and its fan-in has the result for one item.

    Attributes:
        source_fact_hash: the fact that was fanned out.
        fan_out_hash: the node that did.
        fan_out_fact_hash: the item.
        step_hash: the step.
        result_fact_hash: its result.
    """

    source_fact_hash: Hash
    fan_out_hash: Hash
    fan_out_fact_hash: Hash
    step_hash: Hash
    result_fact_hash: Hash


@event("runic.state_initiated")
@dataclass(frozen=True, slots=True)
class StateInitiated:
    """An accumulator has its first state.

    Attributes:
        accumulator_hash: the accumulator.
        init_fact_hash: the fact that is the state.
        init_value: its value; wrap it in a `Fact` to keep it once.
        init_ancestry: the accumulator, and a hash of the value alone.
        weight: of the edge: how many steps the state is from the input.
    """

    accumulator_hash: Hash
    init_fact_hash: Hash
    init_value: Any
    init_ancestry: tuple[Hash, Hash] | None = None
    weight: int = 0


@event("runic.join_fact_received")
@dataclass(frozen=True, slots=True)
class JoinFactReceived:
    """A fact of one branch has reached a join, which may still wait for the others.

    Attributes:
        fact_hash: the fact.
        join_hash: the join.
        parent_hash: the node at the end of the branch, which produced the fact.
        weight: of the edge: how many steps it is from the input.
    """

    fact_hash: Hash
    join_hash: Hash
    parent_hash: Hash
    weight: int = 0


@event("runic.join_completed")
@dataclass(frozen=True, slots=True)
class JoinCompleted:
    """A join has a fact of every branch.

    Attributes:
        join_hash: the join.
        result_fact_hash: the fact it made of them.
        result_value: its value, that of each branch in order; wrap it in a `Fact` to keep it once.
        result_ancestry: the join, and the fact that came last.
        weight: of the edge: how many steps the result is from the input.
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
        from_label: what the edge was, "joined".
        to_label: what it is now, "join_satisfied".
    """

    fact_hash: Hash
    join_hash: Hash
    from_label: str
    to_label: str


@event("runic.fan_out_fact_emitted")
@dataclass(frozen=True, slots=True)
class FanOutFactEmitted:
    """A fan-out has made a fact of one item of its input.

    Attributes:
        fan_out_hash: the fan-out.
        source_fact_hash: its input.
        emitted_fact_hash: the fact made.
        emitted_value: the item; wrap it in a `Fact` to keep it once.
        emitted_ancestry: the fan-out and its input.
        weight: of the edge: how many steps the fact is from the workflow's input.
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
    """A fan-in has reduced the results for all items of a fan-out.

    Attributes:
        fan_in_hash: the fan-in.
        source_fact_hash: the fact that was fanned out.
        result_fact_hash: the fact it was reduced to.
        result_value: its value; wrap it in a `Fact` to keep it once.
        expected_key: what the items were tracked by: the source fact and the fan-out.
        seen_key: what the results were tracked by: the source fact and the step before the fan-in.
        result_ancestry: the fan-in, and the fact that came last.
        weight: of the edge: how many steps the result is from the input.
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
    """A node is about to be run on a fact; there is one for each attempt.

    Attributes:
        runnable_id: the runnable, that is the node and the fact together; the same for each attempt.
        node_hash: the node.
        input_fact: the fact it is run on; wrap it in a `Fact` to keep it once.
        dispatched_at: when, in milliseconds.
        attempt: 0 for the first try, 1 for the first retry, and so on.
        node_name: the node's name, or its hash if it has none.
        policy: the scheduling policy it is run under, a dict of its settings, say; functions cannot be kept.
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
    """A runnable has succeeded.

    Attributes:
        runnable_id: the runnable.
        node_hash: its node.
        result_fact: what it produced; wrap it in a `Fact` to keep it once.
        completed_at: when, in milliseconds.
        attempt: the attempt that succeeded, from 0.
        duration_ms: how long that attempt took, in milliseconds.
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
    """A runnable has failed for good: there is one after the last attempt, not one for each.

    Attributes:
        runnable_id: the runnable.
        node_hash: its node.
        error: what went wrong in the last attempt, as a value that can be kept: not an exception, but its text, say.
        failed_at: when, in milliseconds.
        attempts: how many there were.
        failure_action: what the workflow does about it: "halt" or "skip".
    """

    runnable_id: Hash
    node_hash: Hash
    error: Any
    failed_at: int
    attempts: int
    failure_action: str


def pending(events: Iterable[Any]) -> list[RunnableDispatched]:
    """What was dispatched and has neither completed nor failed: after a crash, it is to be run again.

    For that, append each dispatch before you run it, and give all the events: those after a snapshot do not tell what
    was pending when it was made.

    A failure is final, as in Runic, which records none for an attempt that is followed by another. What is dispatched
    again after it completed or failed is pending again; for Runic it stays done.

    Args:
        events: a workflow's, in order. Those of other kinds are passed over.

    Returns:
        The last dispatch of each such runnable, in the order of these dispatches.

    Raises:
        DecodeError: an event's runnable id is none.
    """
    dispatched: dict[Hash, RunnableDispatched] = {}
    for past in events:
        if isinstance(past, (RunnableDispatched, RunnableCompleted, RunnableFailed)):
            try:
                hash(past.runnable_id)
            except TypeError as error:  # nothing checks the fields of what is read
                raise DecodeError(f"A {type(past).__name__} is damaged: its runnable_id is none: {error}.") from error
            # Taken out first, so that a retry stands where it was dispatched and not where the first try was.
            dispatched.pop(past.runnable_id, None)
        if isinstance(past, RunnableDispatched):
            dispatched[past.runnable_id] = past
    return list(dispatched.values())
