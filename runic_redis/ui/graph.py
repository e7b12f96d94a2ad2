"""The graph of a workflow's facts: which event made which fact, and which events used it.

The first event that refers to a fact made it; later events used it. Runic's events say more: which node produced a
fact, and from which other fact.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from runic_redis.events import FactRef, bare_registry, parts_of
from runic_redis.events.plain import event_fields, event_type
from runic_redis.operations.records import Record
from runic_redis.ui.bounds import short, short_event, short_type, short_value

# Runic's events that produce a fact: the fields with its hash, its value, and the node and the fact that it came from.
_PRODUCED = {
    "runic.fact_produced": ("hash", "value", "ancestry"),
    "runic.state_initiated": ("init_fact_hash", "init_value", "init_ancestry"),
    "runic.join_completed": ("result_fact_hash", "result_value", "result_ancestry"),
    "runic.fan_out_fact_emitted": ("emitted_fact_hash", "emitted_value", "emitted_ancestry"),
    "runic.fan_in_completed": ("result_fact_hash", "result_value", "result_ancestry"),
}
_LABEL = 60
# A preview of a value or of an event's fields has at most this many characters.
PREVIEW = 200
# Search this many parts of an event for facts. The graph shows far fewer.
_PARTS = 10_000
# Runic's nodes and facts have no longer names, in characters, and no larger numbers, in bits.
_LONGEST_NAME = 512


def fact_graph(records: Iterable[Record], limit: int) -> dict[str, Any]:
    """Return the graph of the facts of some events.

    Args:
        records: the events, in order. Events without facts are skipped.
        limit: keep at most this many nodes, the latest ones.

    Returns:
        `nodes`, each with its id, kind, label, and the cursor or the hash that it leads to; `edges`, each from the id
        of a cause to the id of its result; and `cut`, whether nodes were left out.
    """
    graph = _Graph()
    for record in records:
        graph.add(record)
    return graph.newest(limit)


class _Graph:
    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, Any]] = {}
        self._edges: dict[tuple[str, str], None] = {}
        # The node of each stored fact, by its hash.
        self._kept: dict[str, str] = {}

    def add(self, record: Record) -> None:
        kind, fields = event_type(record.event), event_fields(record.event)
        if kind in _PRODUCED and self._produced(kind, fields, record.cursor):
            return
        refs = _refs(record.event)
        if not refs:
            return
        event = f"e{record.cursor}"
        self._nodes[event] = {
            "kind": "event",
            "type": short_type(record.event),
            "label": short_type(record.event),
            "cursor": record.cursor,
            "text": short_event(record.event, PREVIEW),
        }
        for fact_hash in refs:
            fact = self._kept.get(fact_hash)
            if fact is not None:
                self._edges[fact, event] = None
                continue
            fact = self._kept[fact_hash] = f"f{fact_hash}"
            self._nodes[fact] = {"kind": "fact", "label": short(fact_hash, _LABEL), "hash": fact_hash}
            self._edges[event, fact] = None

    def _produced(self, kind: str, fields: Mapping[Any, Any], cursor: int) -> bool:
        """Add the fact of one of Runic's events; return False if the event lacks the fields of one."""
        hash_field, value_field, ancestry_field = _PRODUCED[kind]
        name, value = fields.get(hash_field), fields.get(value_field)
        ancestry: Any = fields.get(ancestry_field)
        if not _is_name(name):
            return False
        fact = f"r{name}"
        # A fact that is produced again moves to the end.
        self._nodes.pop(fact, None)
        node: dict[str, Any] = {"kind": "fact", "type": kind, "label": short(str(name), _LABEL), "cursor": cursor}
        if type(value) is FactRef:
            node["hash"] = value.hash
            known = self._kept.setdefault(value.hash, fact)
            if known.startswith("f"):
                self._edges[known, fact] = None
        else:
            node["text"] = short_value(value, PREVIEW)
        self._nodes[fact] = node
        if type(ancestry) in {tuple, list} and len(ancestry) == 2 and all(map(_is_name, ancestry)):
            maker, parent = f"n{ancestry[0]}", f"r{ancestry[1]}"
            self._nodes.setdefault(parent, {"kind": "fact", "label": short(str(ancestry[1]), _LABEL)})
            # A node works on many facts, and is drawn once for each.
            step = f"{maker}/{parent}"
            self._nodes.setdefault(step, {"kind": "step", "label": short(str(ancestry[0]), _LABEL)})
            self._edges[parent, step] = self._edges[step, fact] = None
        return True

    def newest(self, limit: int) -> dict[str, Any]:
        kept = dict(list(self._nodes.items())[-limit:])
        edges = [{"from": one, "to": other} for one, other in self._edges if one in kept and other in kept]
        return {
            "nodes": [{"id": name, **node} for name, node in kept.items()],
            "edges": edges,
            "cut": len(kept) < len(self._nodes),
        }


def _refs(event: Any) -> list[str]:
    """Return the hashes of the facts that an event refers to, in the event's order."""
    found: dict[str, None] = {}
    stack = [event]
    left = _PARTS
    while stack and left > 0:
        part = stack.pop()
        if type(part) is FactRef:
            found[part.hash] = None
            continue
        parts = list(parts_of(part, bare_registry))[:left]
        left -= len(parts)
        stack.extend(reversed(parts))
    return list(found)


def _is_name(value: Any) -> bool:
    if type(value) is str:
        return len(value) <= _LONGEST_NAME
    return type(value) is int and value.bit_length() <= _LONGEST_NAME
