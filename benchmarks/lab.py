"""The lab of a run: the open contenders and their server. Closing it deletes everything that they wrote.

A case may open a second lab, whose server syncs its file before each reply.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import servers
from .contenders import open_contenders
from .contenders.base import Contender, Missing, Place
from .contenders.ours import Ours
from .scale import Scale


@dataclass
class Lab:
    """One run's place, contenders and scale."""

    place: Place
    scale: Scale
    contenders: dict[str, Contender]
    missing: dict[str, str]
    # A case keeps things for later cases here. They are closed with the lab, in reverse order.
    stack: contextlib.ExitStack
    grown: dict[int, str] = field(default_factory=dict)
    universities: set[str] = field(default_factory=set)
    threads: dict[tuple[str, str], Any] = field(default_factory=dict)
    _synced: "Lab | None" = None

    @property
    def ours(self) -> Ours:
        ours = self.contenders[Ours.name]
        assert isinstance(ours, Ours)
        return ours

    def synced(self) -> "Lab":
        """Return the lab with fsync, and open it at the first call."""
        if not self.place.server.embedded:
            raise Missing("only on the embedded server, which can sync before each reply")
        if self._synced is None:
            directory = self.place.directory / "synced"
            server = self.stack.enter_context(servers.embedded(directory, fsync="always"))
            place = Place(server, directory, self.place.runner, fsync=True)
            self._synced = self.stack.enter_context(_opened(place, self.scale))
        return self._synced

    def labs(self) -> "list[Lab]":
        """Return this lab, and the one with fsync if it is open."""
        return [self] if self._synced is None else [self, self._synced]

    def forget(self) -> None:
        """Delete what a case has written."""
        for lab in self.labs():
            for contender in lab.contenders.values():
                contender.forget()


@contextlib.contextmanager
def open_lab(url: str | None, scale: Scale) -> Iterator[Lab]:
    """Open a lab on the server at a URL, or on an embedded server in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="runic-bench-") as temporary, asyncio.Runner() as runner:
        directory = Path(temporary)
        opened = servers.embedded(directory / "server") if url is None else servers.reached(url)
        with opened as server, _opened(Place(server, directory, runner, fsync=False), scale) as lab:
            yield lab


@contextlib.contextmanager
def _opened(place: Place, scale: Scale) -> Iterator[Lab]:
    contenders, missing = open_contenders(place)
    with contextlib.ExitStack() as stack:
        for contender in contenders.values():
            stack.callback(contender.close)
        yield Lab(place, scale, contenders, missing, stack)
