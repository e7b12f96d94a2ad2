"""One worker of the census: ``python -m runic_redis.demo.worker NAMESPACE NAME``, with the URL in the environment.

It claims modules that no other worker has, and measures their files one by one. A module of a killed worker can be
claimed once its lease has expired. Workers coordinate through the store alone. On standard output a worker reports its
claims and appends, each as a line of JSON.
"""

import json
import sys
import time
from dataclasses import astuple
from typing import Any

from runic_redis import CursorConflict, EveryEvents, Fact, LeaseLost, RedisStore, Session, WorkflowNotFound, session
from runic_redis.demo.census import Module, counts_in, measure, standard_library
from runic_redis.demo.events import FileMeasured, ModuleClaimed, ModuleFinished, workflow_of

# A claim asks every partition, and the census has few workflows.
PARTITIONS = 16
# The lease of a worker that was killed lasts this long at most.
TTL_S = 2.0
_NAP_S = 0.2
_SNAPSHOTS = EveryEvents(50)


def run_worker(store: RedisStore, name: str) -> None:
    """Measure modules until every module is finished."""
    modules = {workflow_of(module.name): module for module in standard_library()}
    unfinished = list(modules)
    while unfinished:
        leases = store.claim(name, ttl=TTL_S)
        for lease in leases:
            workflow_id = lease.workflow_id
            try:
                with lease, session(store, workflow_id, _count, 0, snapshots=_SNAPSHOTS, lease=lease) as one:
                    _census(one, modules[workflow_id], name)
                    one.complete()
            except (LeaseLost, CursorConflict):
                continue  # this worker was too slow, and another has the module now
        if not leases:
            time.sleep(_NAP_S)
            unfinished = [workflow_id for workflow_id in unfinished if not _is_finished(store, workflow_id)]


def _count(measured: int, event: object) -> int:
    """Return the state of a module's workflow: how many of its files have been measured."""
    return measured + isinstance(event, FileMeasured)


def _census(one: Session[int], module: Module, name: str) -> None:
    """Measure those files of a module that have not been measured."""
    files, done, recovery = len(module.paths), one.state, one.recovery
    if done < files:
        claim = ModuleClaimed(
            name, module.name, files, done, recovery.cursor, recovery.snapshot_cursor, recovery.replayed
        )
        one.record(claim)
        _report("claimed", *astuple(claim))
    for number, path in enumerate(module.paths[done:], done + 1):
        record = measure(path)
        measured = FileMeasured(path, Fact(record), *counts_in(record))
        events = (measured,) if number < files else (measured, ModuleFinished(files))
        began_s = time.monotonic()
        one.record(*events)
        _report("appended", module.name, number, files, len(events), time.monotonic() - began_s)


def _report(*values: Any) -> None:
    print(json.dumps(values), flush=True)


def _is_finished(store: RedisStore, workflow_id: str) -> bool:
    try:
        return isinstance(next(store.stream(workflow_id, reverse=True)), ModuleFinished)
    except WorkflowNotFound:
        return False  # it was claimed, and has no events yet


def main(namespace: str, name: str) -> None:
    """Work as one worker."""
    with RedisStore.from_url(namespace=namespace, partitions=PARTITIONS) as store:
        run_worker(store, name)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        # Ctrl-C in the terminal reaches the workers too; the process that started them prints the message.
        sys.exit(130)
