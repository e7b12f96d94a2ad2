"""What a kind of trouble consists of."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeAlias

from runic_redis import Durability, StoreError
from tests.chaos.clients import Crew, is_by_design
from tests.chaos.history import View
from tests.servers import RunningServer

__all__ = ["ASIDE", "EVERY_FACE", "NAMESPACE", "PARTITIONS", "QUICK", "SYNCED", "Kind", "Rig"]

NAMESPACE = "chaos"
# Of what a kind of trouble does itself, beside the clients.
ASIDE = "aside"
PARTITIONS = 16
SYNCED = ("--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0")
# So that what is silent is soon taken for lost.
QUICK = "socket_timeout=0.4&socket_connect_timeout=0.4"
EVERY_FACE = ("own", "own", "shared", "shared", "shared", "asyncio", "asyncio", "asyncio")


@dataclass
class Rig:
    """Servers at work.

    Attributes:
        url: how clients reach them.
        befall: has one thing befall them while clients are at work, and brings them back.
        primaries: the servers that hold the data.
        durability: how durable what clients write is to be.
        may_lose: whether what is acknowledged may then be lost: each workflow has one writer, which is to notice.
        may_go_back: whether reads may go back, in what nobody was acknowledged.
        expects: which errors clients may be told.
        deadline_s: for how long what they ask for is tried.
        faces: how each client uses the library: with a store of its "own", with others one that is "shared" by threads,
            one for "asyncio", or that same one with calls that are "cancelled" at random moments.
        rest_s: for how long each client rests between what it does: a fault waits for timeouts, restarts and pauses,
            and clients that did all they could meanwhile would only use up the processor.
        busy: the one workflow that all clients append to, and do nothing else; None for the usual mixture.
        found: violations that the kind itself finds, while clients are at work or after that.
    """

    url: str
    befall: Callable[[Crew], None]
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


# Starts servers in a directory, until the block ends.
Kind: TypeAlias = Callable[[Path, Random], AbstractContextManager[Rig]]
