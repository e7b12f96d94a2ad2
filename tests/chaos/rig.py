"""The parts of a kind of fault."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

from runic_redis import Durability, StoreError
from tests.chaos.clients import Crew, is_by_design
from tests.chaos.history import View
from tests.chaos.staff import Staff
from tests.servers import RunningServer

__all__ = ["ASIDE", "EVERY_FACE", "NAMESPACE", "PARTITIONS", "QUICK", "SYNCED", "Kind", "Rig", "with_kills"]

NAMESPACE = "chaos"
# The namespace of what a kind of fault itself writes, beside the clients.
ASIDE = "aside"
PARTITIONS = 16
SYNCED = ("--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0")
# Short timeouts, so a silent connection soon counts as lost.
QUICK = "socket_timeout=0.4&socket_connect_timeout=0.4"
EVERY_FACE = ("own", "own", "shared", "shared", "shared", "asyncio", "asyncio", "asyncio")


@dataclass
class Rig:
    """Running servers, and a way to cause faults.

    Attributes:
        url: the URL that clients use.
        befall: causes one fault while clients work, and ends it. It gets the `Crew`, or the `Staff`.
        primaries: the servers that hold the data.
        durability: the durability of the clients' writes.
        may_lose: acknowledged commits may be lost. Each workflow then has one writer, which must notice.
        may_go_back: reads may lose unacknowledged commits.
        expects: the errors that clients may get.
        deadline_s: the deadline of the clients' stores.
        faces: how each client uses the library: with a store of its "own", one that is "shared" by threads, one for
            "asyncio", or the asyncio store with calls "cancelled" at random moments.
        rest_s: how long each client rests between two calls. A fault waits for timeouts, restarts and pauses; clients
            without a rest would use up the processor meanwhile.
        busy: the one workflow to which all clients append, doing nothing else. None for the usual mixture.
        found: violations that the kind itself finds, while clients work or afterwards.
        team: starts processes, or other clients, that work in place of the clients: gets the seed of their random
            choices.
    """

    url: str
    befall: Callable[[Any], None]
    primaries: Callable[[], list[RunningServer]]
    durability: Durability = "memory"
    may_lose: bool = False
    may_go_back: bool = False
    expects: Callable[[StoreError], bool] = is_by_design
    deadline_s: float = 30.0
    faces: tuple[str, ...] = EVERY_FACE
    rest_s: float = 0.005
    busy: View | None = None
    found: list[str] = field(default_factory=list)
    team: Callable[[str], Staff | Crew] | None = None


# Runs servers in a directory until the block ends.
Kind: TypeAlias = Callable[[Path, Random], AbstractContextManager[Rig]]


def with_kills(
    faults: Kind,
    team: Callable[[Rig, Path, str], Staff],
    pause_s: Callable[[Random], float] = lambda source: source.uniform(0.0, 0.3),
) -> Kind:
    """Return the kind that kills a process at each fault of another kind.

    Args:
        faults: the other kind.
        team: starts the processes: gets the rig, a directory and the seed of their random choices.
        pause_s: returns how long to wait before a kill, at most until the run ends.
    """

    @contextmanager
    def kind(directory: Path, source: Random) -> Iterator[Rig]:
        def befall(staff: Staff) -> None:
            staff.stopping.wait(pause_s(source))
            staff.kill_one(source)
            rig.befall(staff)
            staff.await_progress()

        with faults(directory, source) as rig:
            yield replace(rig, befall=befall, team=lambda seed: team(rig, directory, seed))

    return kind
