"""The events of the census, the ids of its workflows, and the sentence that describes a takeover."""

from dataclasses import dataclass

from runic_redis.events import Fact, FactRef, event

# Each module is a workflow.
PREFIX = "stdlib/"


@event("census.module_claimed")
@dataclass(frozen=True, slots=True)
class ModuleClaimed:
    """A worker has claimed the module and recovered its workflow, from a snapshot and the events after it."""

    worker: str
    module: str
    files: int
    measured: int
    cursor: int
    snapshot_cursor: int | None
    replayed: int


@event("census.file_measured")
@dataclass(frozen=True, slots=True)
class FileMeasured:
    """A file was measured; its record is a fact."""

    path: str
    record: Fact | FactRef
    lines: int
    functions: int
    classes: int
    imports: int


@event("census.module_finished")
@dataclass(frozen=True, slots=True)
class ModuleFinished:
    """Every file of the module was measured."""

    files: int


def workflow_of(module: str) -> str:
    """Return the id of a module's workflow."""
    return PREFIX + module


def takeover_text(claim: ModuleClaimed, former: str) -> str:
    """Return a sentence about a claim of a module on which a former worker had begun."""
    if claim.snapshot_cursor is None:
        loaded = "found no snapshot"
    else:
        loaded = f"loaded the snapshot at cursor {claim.snapshot_cursor}"
    return (
        f"{claim.worker} took over {claim.module} from {former} at cursor {claim.cursor}, after {claim.measured} of "
        f"{claim.files} files: it {loaded} and replayed {claim.replayed} events"
    )
