"""Taking stock: the whole census, read back from the store and checked."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from runic_redis import Fact, FactRef, FactResolver, RedisStore
from runic_redis.demo.census import Module, Totals
from runic_redis.demo.errors import DemoError
from runic_redis.demo.events import PREFIX, FileMeasured, ModuleClaimed, ModuleFinished, workflow_of

__all__ = ["Stock", "take_stock"]


@dataclass(slots=True)
class Stock:
    """What the store holds at the end."""

    counted: list[tuple[str, Totals]] = field(default_factory=list)
    events: int = 0
    references: int = 0
    facts: set[Fact | FactRef] = field(default_factory=set)
    takeovers: list[str] = field(default_factory=list)
    streaming_s: float = 0.0


def take_stock(store: RedisStore, modules: Sequence[Module]) -> Stock:
    """Read the whole census back: every workflow's events, and every fact they refer to."""
    stock = Stock()
    resolver = FactResolver(store)
    listed = {workflow_id.removeprefix(PREFIX) for workflow_id in store.list(prefix=PREFIX)}
    if listed != {module.name for module in modules}:
        raise DemoError(f"the store lists {len(listed)} workflows, and there are {len(modules)} modules")
    for module in modules:
        measured = _read_back(store, module, stock)
        totals = Totals()
        references = [event.record for event in measured]
        for event, kept in zip(measured, resolver.resolve_many(references), strict=True):
            counts = (kept["lines"], len(kept["functions"]), len(kept["classes"]), len(kept["imports"]))
            if counts != (event.lines, event.functions, event.classes, event.imports):
                raise DemoError(f"the event of {event.path} disagrees with its record")
            totals.add(kept)
        stock.counted.append((module.name, totals))
        stock.references += len(references)
        stock.facts.update(references)
    return stock


def _read_back(store: RedisStore, module: Module, stock: Stock) -> list[FileMeasured]:
    """A module's files as its workflow has them, and who measured them."""
    began_s = time.monotonic()
    records = list(store.stream_records(workflow_of(module.name)))
    stock.streaming_s += time.monotonic() - began_s
    stock.events += len(records)
    measured: list[FileMeasured] = []
    finished = 0
    former = ""
    for record in records:
        match record.event:
            case ModuleClaimed(worker, snapshot_cursor, replayed):
                if former:
                    found = "no snapshot" if snapshot_cursor is None else f"the snapshot at cursor {snapshot_cursor}"
                    stock.takeovers.append(
                        f"{worker} went on with {module.name} from cursor {record.cursor - 1}, where {former} had "
                        f"stopped after {len(measured)} of {len(module.paths)} files; it recovered from {found} and "
                        f"{replayed} events"
                    )
                former = worker
            case FileMeasured() as event:
                measured.append(event)
            case ModuleFinished():
                finished += 1
    if finished != 1 or [event.path for event in measured] != list(module.paths):
        raise DemoError(f"the workflow of {module.name} does not have each file once, and one end")
    return measured
