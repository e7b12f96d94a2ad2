"""The events of the census, and what its workflows are called."""

from dataclasses import dataclass

from runic_redis.events import event

__all__ = ["PREFIX", "WORKERS", "FileMeasured", "ModuleClaimed", "ModuleFinished", "WorkerLost", "workflow_of"]

# One workflow for each module, and one for what the workers must know of each other.
PREFIX = "stdlib/"
WORKERS = "workers"


@event("census.module_claimed")
@dataclass(frozen=True, slots=True)
class ModuleClaimed:
    """A worker has taken the module on, at the start or where another stopped."""

    worker: str
    files: int


@event("census.file_measured")
@dataclass(frozen=True, slots=True)
class FileMeasured:
    """A file was measured; the record of it is kept as a fact."""

    path: str
    record: str
    lines: int
    functions: int
    classes: int
    imports: int


@event("census.module_finished")
@dataclass(frozen=True, slots=True)
class ModuleFinished:
    """Every file of the module was measured."""

    files: int


@event("census.worker_lost")
@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker has died: what it had claimed is free."""

    worker: str


def workflow_of(module: str) -> str:
    """The workflow of a module."""
    return PREFIX + module
