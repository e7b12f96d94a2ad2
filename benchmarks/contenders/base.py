"""The base class of contenders.

A contender defines some of the verbs, and takes part in the cases that need no others. A key names one workflow.
"""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..events import Kind
from ..figures import Turn
from ..servers import Server


class Missing(Exception):
    """A contender, or one of its cases, cannot be measured. The message is for people."""


class Mismatch(Exception):
    """The data that was read differs from the data that was written, so a measurement would mean nothing."""


@dataclass(frozen=True)
class Place:
    """The place of the contenders: the server, a directory on the same disk, and the event loop for tasks.

    With `fsync`, each commit is on the disk before the call returns. Without it, a crash of the machine may lose the
    last moments, as with the server's fsync everysec, and a crash of the program loses nothing.
    """

    server: Server
    directory: Path
    runner: asyncio.Runner
    fsync: bool

    @property
    def sqlite_synchronous(self) -> str:
        """Return the value of SQLite's PRAGMA synchronous, for a database with a write-ahead log."""
        return "FULL" if self.fsync else "NORMAL"


class Contender:
    """One way to store events.

    Attributes:
        name: its name in reports.
        about: its method and its durability.
        usual: whether it takes part in every case that it can, or only in cases that name it.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    usual: ClassVar[bool] = True

    def __init__(self, place: Place) -> None:
        self.place = place
        self._keys: list[str] = []
        # No number is used twice, because some contenders cannot delete.
        self._numbers = itertools.count()

    def open(self) -> None:
        """Connect. Raises `Missing` if that is not possible here."""

    def close(self) -> None:
        """Delete everything that was written, and disconnect."""

    @classmethod
    def has(cls, verb: str) -> bool:
        return getattr(cls, verb) is not getattr(Contender, verb)

    def new_key(self, label: str) -> str:
        """Return an unused key. `forget` deletes its workflow."""
        key = f"{self.place.server.token}:{type(self).__name__}:{label}:{next(self._numbers)}"
        self._keys.append(key)
        return key

    def forget(self) -> None:
        """Delete the workflows of all keys that `new_key` has returned. Called at the end of a case."""
        for key in self._keys:
            self.delete(key)
        self._keys.clear()

    def delete(self, key: str) -> None:
        """Delete the workflow of a key. A contender that cannot do so leaves it to the end of the run."""

    # The verbs

    def prepare(self, key: str, at: int, events: Sequence[Any], kind: Kind) -> Any:  # noqa: ARG002
        """Return what `append` takes for these events; the first is number `at` of its workflow. Not measured."""
        return events

    def append(self, key: str, prepared: Any) -> object:
        """Append one commit."""
        raise NotImplementedError

    async def connect_tasks(self) -> None:
        """Connect for `append_from_task`; called in the event loop before tasks are measured."""

    async def append_from_task(self, key: str, prepared: Any) -> object:
        """Append one commit from one of many tasks."""
        raise NotImplementedError

    def read(self, key: str, kind: Kind) -> list[Any]:
        """Return the events of a whole workflow, as objects of their kind."""
        raise NotImplementedError

    def mark(self, key: str, cursor: int) -> Any:
        """Return the contender's name for the place after `cursor` events, for `read_after`. Not measured."""
        raise NotImplementedError

    def read_after(self, key: str, mark: Any, kind: Kind) -> list[Any]:
        """Return the events after a place."""
        raise NotImplementedError

    def plain(self, events: Sequence[Any]) -> list[Any]:
        """Return events that were read in the form in which they were written, for a comparison. Not measured."""
        return list(events)

    def write_commits(self, key: str, commits: Sequence[tuple[str, Any]], kind: Kind) -> None:
        """Write commits of one event in workflows, to be followed from here on. Not measured.

        Args:
            key: the name by which `follow` finds the place before them.
            commits: the workflow and the event of each, in order.
            kind: the kind of the events.
        """
        raise NotImplementedError

    def follow(self, key: str) -> Iterator[Any]:
        """Return the events of all commits that `write_commits` wrote, as objects of their kind."""
        raise NotImplementedError

    def run_steps(self, key: str, count: int) -> Turn:
        """Run one workflow of `count` durable steps, one after the other. A step stores the event that it returns."""
        raise NotImplementedError

    def run_many_steps(self, key: str, count: int, workflows: int) -> Turn:
        """Start workflows of `count` durable steps each, and run them at the same time. The cost is a step's."""
        raise NotImplementedError

    def run_jobs(self, count: int) -> Turn:
        """Enqueue `count` jobs that do nothing, and have a process of one worker complete them. The cost is a job's."""
        raise NotImplementedError

    def save_snapshot(self, key: str, mark: Any, state: dict[str, Any]) -> object:
        """Save a state as of a place in the workflow."""
        raise NotImplementedError

    def load_snapshot(self, key: str) -> tuple[Any, dict[str, Any]]:
        """Return the place and the state."""
        raise NotImplementedError

    def save_fact(self, fact_hash: str, value: Any) -> object:
        """Save a value under its hash."""
        raise NotImplementedError

    def load_fact(self, fact_hash: str) -> Any:
        """Return a value by its hash."""
        raise NotImplementedError

    def load_facts(self, hashes: Sequence[str]) -> list[Any]:
        """Return the values of many hashes, in order."""
        raise NotImplementedError

    def list_workflows(self, prefix: str) -> list[str]:
        """Return the keys of all workflows with a prefix."""
        raise NotImplementedError

    def weigh(self, workflows: int, batches: Sequence[Sequence[Any]], kind: Kind) -> int:
        """Return the bytes of Redis's memory for `workflows` workflows of these commits, everything included."""
        raise NotImplementedError

    def open_thread(self, key: str) -> Any:
        """Return a new `langgraph_thread.Thread` on the contender's saver."""
        raise NotImplementedError

    def stored_bytes(self) -> int:
        """Return the bytes of everything in the contender's database. Called when a thread is open."""
        raise NotImplementedError

    def round_trips(self) -> int:
        """Return the number of round trips to the server until now, with this one. Called when a thread is open."""
        raise NotImplementedError

    def open_recorder(self, *, tracking: bool) -> Any:
        """Return a process recorder of the `eventsourcing` library, perhaps one that stores tracking records."""
        raise NotImplementedError

    def open_dcb_recorder(self) -> Any:
        """Return the library's recorder of events with tags, for consistency boundaries that queries define."""
        raise NotImplementedError
