"""One worker of the census: ``python -m runic_redis.demo.worker NAMESPACE NAME``, on the URL in the environment.

It claims modules that nobody works on, that of a worker that was killed too, once its lease has run out, and measures
the files that are left, one by one. What it may do it learns from the store alone. On standard output it says what it
has done, for the progress bar.
"""

import sys
import time

from runic_redis import (
    CursorConflict,
    EveryEvents,
    Fact,
    LeaseLost,
    RedisStore,
    Session,
    WorkflowNotFound,
    session,
)
from runic_redis.demo.census import Module, measure, standard_library
from runic_redis.demo.events import FileMeasured, ModuleClaimed, ModuleFinished, workflow_of

__all__ = ["work"]

# How long the module of a worker that was killed waits for another.
_TTL_S = 5.0
_NAP_S = 0.2
_SNAPSHOTS = EveryEvents(50)


def work(store: RedisStore, name: str) -> None:
    """Take part until every module is finished."""
    modules = {workflow_of(module.name): module for module in standard_library()}
    unfinished = list(modules)
    while unfinished:
        leases = store.claim(name, ttl=_TTL_S)
        for lease in leases:
            workflow_id = lease.workflow_id
            try:
                with lease, session(store, workflow_id, _count, 0, snapshots=_SNAPSHOTS, lease=lease) as one:
                    _census(one, modules[workflow_id], name)
                    one.complete()
            except (LeaseLost, CursorConflict):
                continue  # it took so long that somebody else has the module now
        if not leases:
            time.sleep(_NAP_S)
            unfinished = [workflow_id for workflow_id in unfinished if not _finished(store, workflow_id)]


def _count(measured: int, event: object) -> int:
    """The state of a module's workflow: how many of its files have been measured."""
    return measured + isinstance(event, FileMeasured)


def _census(one: Session[int], module: Module, name: str) -> None:
    """Measure the files that are left of a module."""
    files = len(module.paths)
    if one.state < files:
        one.record(ModuleClaimed(name, one.recovery.snapshot_cursor, one.recovery.replayed))
    for number, path in enumerate(module.paths[one.state :], one.state + 1):
        record = measure(path)
        measured = FileMeasured(
            path,
            Fact(record),
            record["lines"],
            len(record["functions"]),
            len(record["classes"]),
            len(record["imports"]),
        )
        if number < files:
            one.record(measured)
        else:
            one.record(measured, ModuleFinished(files))
        print(module.name, number, files, flush=True)


def _finished(store: RedisStore, workflow_id: str) -> bool:
    try:
        return isinstance(next(store.stream(workflow_id, reverse=True)), ModuleFinished)
    except WorkflowNotFound:
        return False  # somebody has only just claimed it


def main(namespace: str, name: str) -> None:
    """Work as one worker."""
    with RedisStore.from_url(namespace=namespace) as store:
        work(store, name)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        # Ctrl-C in the terminal reaches the workers too; the one who started them says what there is to say.
        sys.exit(130)
