"""The lab of a run: the open contenders and their server. Closing it deletes everything that they wrote.

A case may open a second lab, whose server syncs its file before each reply.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import servers
from .contenders import MODULES, open_contenders
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
    _always: "Lab | None" = None

    @property
    def ours(self) -> Ours:
        ours = self.contenders[Ours.name]
        assert isinstance(ours, Ours)
        return ours

    def always(self) -> "Lab":
        """Return the lab whose server syncs its file before each reply, and open it at the first call."""
        if not self.place.server.embedded:
            raise Missing("only on the embedded server, which can sync before each reply")
        if self._always is None:
            directory = self.place.directory / "always"
            server = self.stack.enter_context(servers.embedded(directory, fsync="always"))
            place = Place(server, directory, self.place.runner)
            self._always = self.stack.enter_context(_opened(place, self.scale, ("ours", "by_hand")))
        return self._always

    def forget(self) -> None:
        """Delete what a case has written."""
        for contender in self.contenders.values():
            contender.forget()
        if self._always is not None:
            self._always.forget()


@contextlib.contextmanager
def open_lab(url: str | None, scale: Scale) -> Iterator[Lab]:
    """Open a lab on the server at a URL, or on an embedded server in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="runic-bench-") as temporary, asyncio.Runner() as runner:
        directory = Path(temporary)
        opened = servers.embedded(directory / "server") if url is None else servers.reached(url)
        with opened as server, _opened(Place(server, directory, runner), scale, MODULES) as lab:
            yield lab


@contextlib.contextmanager
def _opened(place: Place, scale: Scale, modules: tuple[str, ...]) -> Iterator[Lab]:
    contenders, missing = open_contenders(place, modules)
    with contextlib.ExitStack() as stack:
        for contender in contenders.values():
            stack.callback(contender.close)
        yield Lab(place, scale, contenders, missing, stack)
