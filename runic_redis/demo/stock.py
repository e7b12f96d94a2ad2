"""The census as the store holds it, read back and checked."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from runic_redis import Fact, FactRef, FactResolver, RedisStore
from runic_redis.demo.census import Module, Totals, counts_in
from runic_redis.demo.errors import DemoError
from runic_redis.demo.events import PREFIX, FileMeasured, ModuleClaimed, ModuleFinished, takeover_text, workflow_of


@dataclass(slots=True)
class Stock:
    """The contents of the store after the workers have finished."""

    counted: list[tuple[str, Totals]] = field(default_factory=list)
    events: int = 0
    references: int = 0
    facts: set[Fact | FactRef] = field(default_factory=set)
    takeovers: list[str] = field(default_factory=list)
    streaming_s: float = 0.0


def take_stock(store: RedisStore, modules: Sequence[Module]) -> Stock:
    """Read the whole census back: the events of each workflow, and each fact that they refer to.

    Raises:
        DemoError: something is missing, stored twice, or contradicts itself.
    """
    stock = Stock()
    resolver = FactResolver(store)
    listed = {workflow_id.removeprefix(PREFIX) for workflow_id in store.list(prefix=PREFIX)}
    if listed != {module.name for module in modules}:
        raise DemoError(f"the store lists {len(listed)} workflows, and there are {len(modules)} modules")
    for module in modules:
        measured = _read_back(store, module, stock)
        totals = Totals()
        references = [event.record for event in measured]
        for event, record in zip(measured, resolver.resolve_many(references), strict=True):
            if counts_in(record) != (event.lines, event.functions, event.classes, event.imports):
                raise DemoError(f"the event of {event.path} disagrees with its record")
            totals.add(record)
        stock.counted.append((module.name, totals))
        stock.references += len(references)
        stock.facts.update(references)
    return stock


def _read_back(store: RedisStore, module: Module, stock: Stock) -> list[FileMeasured]:
    """Return the events of a module's files, and note the takeovers."""
    began_s = time.monotonic()
    records = list(store.stream_records(workflow_of(module.name)))
    stock.streaming_s += time.monotonic() - began_s
    stock.events += len(records)
    measured: list[FileMeasured] = []
    finished = 0
    former = ""
    for record in records:
        match record.event:
            case ModuleClaimed() as claim:
                if (claim.measured, claim.cursor) != (len(measured), record.cursor - 1):
                    raise DemoError(f"{claim.worker} recovered another state of {module.name} than is stored")
                if former:
                    stock.takeovers.append(takeover_text(claim, former))
                former = claim.worker
            case FileMeasured() as event:
                measured.append(event)
            case ModuleFinished():
                finished += 1
    if finished != 1 or [event.path for event in measured] != list(module.paths):
        raise DemoError(f"the workflow of {module.name} does not have each file once, and one end")
    return measured
