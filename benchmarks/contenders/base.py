"""What a contender is: some of these verbs, in its own way. A verb that it has not got, it leaves as it is here.

It takes part in each case whose verbs it has. A key is whatever it keeps one workflow under.
"""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..events import OrderPlaced
from ..figures import Turn
from ..servers import Server


class Missing(Exception):
    """Why a contender, or one of its cases, is not measured: for people."""


class Mismatch(Exception):
    """What was read is not what was written: nothing measured of it would mean anything."""


@dataclass(frozen=True)
class Place:
    """Where contenders work: the server, a directory on the same disk, and the event loop for tasks."""

    server: Server
    directory: Path
    runner: asyncio.Runner


class Contender:
    """One way to keep events.

    Attributes:
        name: what reports call it.
        about: how it does it, and with which durability.
        usual: whether it takes part wherever it can, or only in cases that name it.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    usual: ClassVar[bool] = True

    def __init__(self, place: Place) -> None:
        self.place = place
        self._keys: list[str] = []
        # Never the same number twice: not every contender can delete.
        self._numbers = itertools.count()

    def open(self) -> None:
        """Connect; raises `Missing` where that cannot be."""

    def close(self) -> None:
        """Delete everything that was written, and disconnect."""

    @classmethod
    def has(cls, verb: str) -> bool:
        return getattr(cls, verb) is not getattr(Contender, verb)

    def new_key(self, label: str) -> str:
        """A key that nothing is under; what will be is deleted by `forget`."""
        key = f"{self.place.server.token}:{type(self).__name__}:{label}:{next(self._numbers)}"
        self._keys.append(key)
        return key

    def forget(self) -> None:
        """Delete what is under the keys given out so far: the case is over."""
        for key in self._keys:
            self.delete(key)
        self._keys.clear()

    def delete(self, key: str) -> None:
        """Delete what is under a key; where a contender cannot, all of it is deleted with its files."""

    # The verbs

    def prepare(self, key: str, at: int, events: Sequence[Any]) -> Any:  # noqa: ARG002
        """What `append` takes for these events, of which the first is the workflow's number `at`. Not measured."""
        return events

    def append(self, key: str, prepared: Any) -> object:
        """One commit."""
        raise NotImplementedError

    async def connect_tasks(self) -> None:
        """Connect for `append_from_task`; called in the event loop before tasks are measured."""

    async def append_from_task(self, key: str, prepared: Any) -> object:
        """One commit, from one of many tasks."""
        raise NotImplementedError

    def run_appends(self, key: str, event: Any, calls: int, callers: int) -> Turn:
        """For a program of its own, which measures itself: appends of one event, from so many connections."""
        raise NotImplementedError

    def read(self, key: str, kind: type[Any] = OrderPlaced) -> list[Any]:
        """The whole workflow, as objects of a class."""
        raise NotImplementedError

    def mark(self, key: str, cursor: int) -> Any:
        """How it names the place after so many events, for `read_after`. Not measured."""
        raise NotImplementedError

    def read_after(self, key: str, mark: Any) -> list[Any]:
        """The events after a place."""
        raise NotImplementedError

    def plain(self, events: Sequence[Any]) -> list[Any]:
        """What was read, as the events that were written: to compare them. Not measured."""
        return list(events)

    def save_snapshot(self, key: str, mark: Any, state: dict[str, Any]) -> object:
        """Keep a state, as of a place in the workflow."""
        raise NotImplementedError

    def load_snapshot(self, key: str) -> tuple[Any, dict[str, Any]]:
        """The place and the state."""
        raise NotImplementedError

    def save_fact(self, fact_hash: str, value: Any) -> object:
        """Keep a value under its hash."""
        raise NotImplementedError

    def load_fact(self, fact_hash: str) -> Any:
        """A value by its hash."""
        raise NotImplementedError

    def load_facts(self, hashes: Sequence[str]) -> list[Any]:
        """Many values, in order."""
        raise NotImplementedError

    def list_workflows(self, prefix: str) -> list[str]:
        """All workflows whose keys begin so."""
        raise NotImplementedError

    def weigh(self, workflows: int, batches: Sequence[Sequence[Any]]) -> int:
        """The bytes of Redis's memory that so many workflows of these commits take, with all that is kept for them."""
        raise NotImplementedError
