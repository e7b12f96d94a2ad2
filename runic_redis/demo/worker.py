"""One worker of the census: ``python -m runic_redis.demo.worker URL NAMESPACE NAME``.

It takes on modules that nobody has, measures them file by file, and when none are left, those of workers that were
lost. What it may do it learns from the store alone: of several workers that want a module, the one whose append
finds the cursor it expects has it. On standard output it says what it has done, for the progress bar.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from runic_redis import CursorConflict, RedisStore, WorkflowNotFound
from runic_redis.demo.census import Module, measure, standard_library
from runic_redis.demo.events import (
    WORKERS,
    FileMeasured,
    ModuleClaimed,
    ModuleFinished,
    WorkerLost,
    workflow_of,
)

_NAP_S = 0.05


class Worker:
    """A worker and its store."""

    def __init__(self, store: RedisStore, name: str) -> None:
        self._store = store
        self._name = name
        self._commits = 0

    def work(self, modules: Sequence[Module]) -> None:
        """Take part until every module is finished."""
        for module in modules:
            self._census(module, 0)
        unfinished = list(modules)
        while unfinished:
            lost = set(self._lost_workers())
            unfinished = [module for module in unfinished if not self._finished_or_taken_over(module, lost)]
            if unfinished:
                time.sleep(_NAP_S)

    def _finished_or_taken_over(self, module: Module, lost: set[str]) -> bool:
        """Whether the module is finished, if need be by taking it over from a lost worker."""
        history = list(self._store.stream(workflow_of(module.name)))
        if isinstance(history[-1], ModuleFinished):
            return True
        holder = [event.worker for event in history if isinstance(event, ModuleClaimed)][-1]
        return holder in lost and self._census(module, len(history))

    def _census(self, module: Module, cursor: int) -> bool:
        """Go on with a module that is at this cursor, to its end; False if somebody else has it."""
        try:
            cursor = self._append(module, cursor, ModuleClaimed(self._name, len(module.paths)))
            done = {event.path for event in self._history(module) if isinstance(event, FileMeasured)}
            for number, path in enumerate(module.paths, 1):
                if path in done:
                    continue
                record = measure(path)
                measured = FileMeasured(
                    path,
                    self._store.put_fact(record),
                    record["lines"],
                    len(record["functions"]),
                    len(record["classes"]),
                    len(record["imports"]),
                )
                if number < len(module.paths):
                    cursor = self._append(module, cursor, measured)
                else:
                    cursor = self._append(module, cursor, measured, ModuleFinished(len(module.paths)))
                print(module.name, number, len(module.paths), flush=True)
        except CursorConflict:
            return False
        return True

    def _history(self, module: Module) -> Iterator[Any]:
        return self._store.stream(workflow_of(module.name))

    def _append(self, module: Module, cursor: int, *events: object) -> int:
        self._commits += 1
        about = {"worker": self._name, "commit": self._commits}
        return self._store.append(workflow_of(module.name), events, expected_cursor=cursor, metadata=about)

    def _lost_workers(self) -> Iterator[str]:
        try:
            for event in self._store.stream(WORKERS):
                if isinstance(event, WorkerLost):
                    yield event.worker
        except WorkflowNotFound:
            return


def main(url: str, namespace: str, name: str) -> None:
    """Work as one worker."""
    with RedisStore.from_url(url, namespace=namespace) as store:
        Worker(store, name).work(standard_library())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        # Ctrl-C in the terminal reaches the workers too; the one who started them says what there is to say.
        sys.exit(130)
