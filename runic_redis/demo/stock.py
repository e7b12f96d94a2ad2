"""Taking stock: the whole census, read back from the store and checked."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from runic_redis import RedisStore
from runic_redis.demo.census import Module, Totals
from runic_redis.demo.errors import DemoError
from runic_redis.demo.events import PREFIX, FileMeasured, ModuleClaimed, ModuleFinished, workflow_of

__all__ = ["Stock", "take_stock"]

# How many facts are loaded in one round trip.
_FACTS_AT_ONCE = 500


@dataclass(slots=True)
class Stock:
    """What the store holds at the end."""

    counted: list[tuple[str, Totals]] = field(default_factory=list)
    events: int = 0
    commits: set[tuple[str, int]] = field(default_factory=set)
    references: int = 0
    records: set[str] = field(default_factory=set)
    takeovers: list[str] = field(default_factory=list)
    streaming_s: float = 0.0


def take_stock(store: RedisStore, modules: Sequence[Module]) -> Stock:
    """Read the whole census back: every workflow's events, and every record they refer to."""
    stock = Stock()
    listed = {workflow_id.removeprefix(PREFIX) for workflow_id in store.list(prefix=PREFIX)}
    if listed != {module.name for module in modules}:
        raise DemoError(f"the store lists {len(listed)} workflows, and there are {len(modules)} modules")
    for module in modules:
        totals, measured, finished = Totals(), [], 0
        claims = []
        began_s = time.monotonic()
        records = list(store.stream_records(workflow_of(module.name)))
        stock.streaming_s += time.monotonic() - began_s
        stock.events += len(records)
        for record in records:
            about = record.metadata or {}
            stock.commits.add((about["worker"], about["commit"]))
            match record.event:
                case ModuleClaimed() as claim:
                    claims.append((claim.worker, record.cursor))
                case FileMeasured() as event:
                    measured.append(event)
                case ModuleFinished():
                    finished += 1
        for (former, _), (worker, cursor) in pairwise(claims):
            before = sum(
                isinstance(event, FileMeasured) for event in store.stream(workflow_of(module.name), until=cursor)
            )
            stock.takeovers.append(
                f"{worker} went on with {module.name} from cursor {cursor - 1}, where {former} had stopped after "
                f"{before} of {len(module.paths)} files"
            )
        if finished != 1 or [event.path for event in measured] != list(module.paths):
            raise DemoError(f"the workflow of {module.name} does not have each file once, and one end")
        for event, kept in zip(measured, _load(store, [event.record for event in measured]), strict=True):
            counts = (kept["lines"], len(kept["functions"]), len(kept["classes"]), len(kept["imports"]))
            if counts != (event.lines, event.functions, event.classes, event.imports):
                raise DemoError(f"the event of {event.path} disagrees with its record")
            totals.add(kept)
            stock.references += 1
            stock.records.add(event.record)
        stock.counted.append((module.name, totals))
    return stock


def _load(store: RedisStore, hashes: Sequence[str]) -> list[Any]:
    facts: dict[str, Any] = {}
    for at in range(0, len(hashes), _FACTS_AT_ONCE):
        facts.update(store.load_facts(hashes[at : at + _FACTS_AT_ONCE]))
    return [facts[fact_hash] for fact_hash in hashes]
