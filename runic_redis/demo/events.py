"""The events of the census, and what its workflows are called."""

from dataclasses import dataclass

from runic_redis.events import Fact, FactRef, event

__all__ = ["PREFIX", "FileMeasured", "ModuleClaimed", "ModuleFinished", "workflow_of"]

# One workflow for each module.
PREFIX = "stdlib/"


@event("census.module_claimed")
@dataclass(frozen=True, slots=True)
class ModuleClaimed:
    """A worker has claimed the module, at the start or where another stopped; and how it recovered what was there."""

    worker: str
    snapshot_cursor: int | None
    replayed: int


@event("census.file_measured")
@dataclass(frozen=True, slots=True)
class FileMeasured:
    """A file was measured; the record of it is kept as a fact."""

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
    """The workflow of a module."""
    return PREFIX + module
