"""Runic's classification of a workflow's facts into hot and cold, for `FactResolver.rehydrate`.

A workflow needs its hot facts to go on, so their values are loaded. Cold facts are only history: they stay references,
which you can resolve when you need them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import runic_redis.runic_events as runic
from runic_redis.errors import DecodeError, InvalidType, short_repr
from runic_redis.events import FactRef
from runic_redis.runic_events import Hash

__all__ = ["Classification", "classify"]

# An edge from a fact to a node with one of these labels means that the node still waits to use the fact.
_WAITING = frozenset({"runnable", "matchable", "joined"})
# Labels of an edge from a node to a fact that it made.
_PRODUCED = frozenset({"produced", "state_produced", "reduced", "state_initiated"})
# Labels of edges to a fact, and from a fact.
_TO_FACT = _PRODUCED | {"fan_out", "input"}
_FROM_FACT = _WAITING | {"ran", "join_satisfied", "satisfied"}
# The references to another component that do not need its values.
_WITHOUT_VALUES = frozenset({"fact_count", "step_ran?"})


@dataclass(frozen=True, slots=True)
class Classification:
    """The hot and the cold facts of a workflow; made by `classify`.

    Attributes:
        hot: the hashes of the facts whose values the workflow needs to go on.
        cold: the hashes of the other facts.
        dispatched: the last dispatch of each runnable that has not ended, by the runnable's id.
    """

    hot: frozenset[Hash]
    cold: frozenset[Hash]
    dispatched: Mapping[Hash, runic.RunnableDispatched]

    def is_hot(self, event: Any, ref: FactRef) -> bool:
        """Return whether the value of a reference in an event is needed. Pass this method to `FactResolver.rehydrate`.

        The value is needed in three kinds of event:

        - an event about a hot fact;
        - the last dispatch of a runnable that has not ended;
        - any event that is about no fact, such as a `ComponentAdded`, except the end of a runnable.
        """
        fact = _fact_of(event)
        if fact is not None:
            return fact[0] in self.hot
        if isinstance(event, runic.ReactionOccurred):
            return ref.hash in self.hot
        if isinstance(event, runic.RunnableDispatched):
            return self.dispatched.get(event.runnable_id) == event
        return not isinstance(event, runic.RunnableCompleted | runic.RunnableFailed)


def classify(events: Iterable[Any], meta_targets: Iterable[Hash] = ()) -> Classification:
    """Return which facts a workflow needs to go on, as `Runic.Workflow.Rehydration.classify` does.

    A fact is hot

    - if a node waits to run on it or to match it;
    - if it is at the frontier: no other fact was made from it;
    - if it waits at a join for the other branches;
    - if a component refers to the values of the node that made it (Runic's meta references). A reference that only
      counts these values, or asks whether the node ran, does not matter.

    Args:
        events: all the workflow's events, in order. Other events are ignored.
        meta_targets: the hashes of the nodes whose values a component refers to. Only the engine knows them, because
            the events have them only within the components. A `ReactionOccurred` with the label "meta_ref" also counts.

    Raises:
        DecodeError: an event is damaged: a field that must be a hash is not one.
        InvalidType: `meta_targets` holds values that are not hashes.
    """
    targets = _checked_targets(meta_targets)
    events = list(events)
    graph = _Graph()
    # As in Runic, a log of the whole graph comes before later events.
    for event in sorted(events, key=lambda event: not isinstance(event, runic.ReactionOccurred)):
        try:
            graph.apply(event)
        except (TypeError, ValueError) as error:  # reading does not check the types of fields
            raise DecodeError(
                f"A {type(event).__name__} is damaged: a field that must be a hash is not one: {error}."
            ) from error
    known = graph.known
    hot = known - graph.parents
    hot.update(fact for fact, _, label in graph.edges if label in _WAITING)
    targets |= graph.meta_targets
    hot.update(fact for node, fact in graph.produced if node in targets)
    hot &= known
    return Classification(
        frozenset(hot), frozenset(known - hot), {dispatch.runnable_id: dispatch for dispatch in runic.pending(events)}
    )


class _Graph:
    """The part of a workflow's graph that the classification needs.

    Attributes:
        known: the facts.
        parents: the facts from which other facts were made.
        edges: the edges from a fact to a node, with their labels.
        produced: the pairs of a node and a fact that it made.
        meta_targets: the nodes whose values a component refers to.
    """

    def __init__(self) -> None:
        self.known: set[Hash] = set()
        self.parents: set[Hash] = set()
        self.edges: set[tuple[Hash, Hash, str]] = set()
        self.produced: set[tuple[Hash, Hash]] = set()
        self.meta_targets: set[Hash] = set()

    def apply(self, event: Any) -> None:
        """Apply an event, if it is about the graph."""
        fact = _fact_of(event)
        if fact is not None:
            fact_hash, ancestry, node, label = fact
            self.known.add(fact_hash)
            if ancestry is not None:
                _, parent = ancestry
                self.parents.add(parent)
            if label in _PRODUCED and node is not None:
                self.produced.add((node, fact_hash))
        elif isinstance(event, runic.ReactionOccurred):
            self._add_reaction(event)
        elif isinstance(event, runic.RunnableActivated):
            self.edges.add((event.fact_hash, event.node_hash, event.activation_kind))
        elif isinstance(event, runic.ActivationConsumed):
            self.edges.discard((event.fact_hash, event.node_hash, event.from_label))
        elif isinstance(event, runic.JoinFactReceived):
            self.edges.add((event.fact_hash, event.join_hash, "joined"))
        elif isinstance(event, runic.JoinEdgeRelabeled):
            edge = (event.fact_hash, event.join_hash, event.from_label)
            if edge in self.edges:
                self.edges.remove(edge)
                self.edges.add((event.fact_hash, event.join_hash, event.to_label))

    def _add_reaction(self, event: runic.ReactionOccurred) -> None:
        start, end, label = _vertex(event.from_), _vertex(event.to), event.reaction
        if label in _FROM_FACT and start is not None:
            self.known.add(start)
            if end is not None:
                self.edges.add((start, end, label))
        elif label in _TO_FACT and end is not None:
            self.known.add(end)
            if label in _PRODUCED and start is not None:
                self.produced.add((start, end))
        elif label == "meta_ref" and end is not None:
            kind = event.properties.get("kind") if isinstance(event.properties, Mapping) else None
            if kind is not None and kind not in _WITHOUT_VALUES:
                self.meta_targets.add(end)


def _checked_targets(meta_targets: Any) -> set[Hash]:
    if isinstance(meta_targets, str) or not isinstance(meta_targets, Iterable):
        raise InvalidType(f"meta_targets is a list of hashes, not {short_repr(meta_targets)}.")
    targets = list(meta_targets)
    for target in targets:
        if not isinstance(target, int | str):
            raise InvalidType(f"meta_targets is a list of hashes, each an int or a str, not of {short_repr(target)}.")
    return set(targets)


def _fact_of(event: Any) -> tuple[Hash, tuple[Hash, Hash] | None, Hash | None, str] | None:
    """Return the fact that an event is about: its hash, its ancestry, the node that made it and the edge's label."""
    if isinstance(event, runic.FactProduced):
        node = event.ancestry[0] if event.ancestry is not None else None
        return event.hash, event.ancestry, node, event.producer_label
    if isinstance(event, runic.StateInitiated):
        return event.init_fact_hash, event.init_ancestry, event.accumulator_hash, "state_initiated"
    if isinstance(event, runic.JoinCompleted):
        return event.result_fact_hash, event.result_ancestry, event.join_hash, "produced"
    if isinstance(event, runic.FanOutFactEmitted):
        return event.emitted_fact_hash, event.emitted_ancestry, event.fan_out_hash, "fan_out"
    if isinstance(event, runic.FanInCompleted):
        return event.result_fact_hash, event.result_ancestry, event.fan_in_hash, "reduced"
    return None


def _vertex(end: Any) -> Hash | None:
    """Return the hash of one end of an edge; None if the end has another form."""
    if isinstance(end, FactRef):
        return end.hash
    return end if isinstance(end, int | str) else None
