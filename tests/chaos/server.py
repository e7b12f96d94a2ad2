"""Trouble with a server: killed, stopped, gone for long, full."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from runic_redis import StoreUnavailable, WriteRefused
from tests.chaos.clients import Crew, is_by_design
from tests.chaos.rig import QUICK, SYNCED, Rig
from tests.servers import RunningServer, running, valkey_program, wait_until

__all__ = ["full", "kills", "outages", "stops"]

# Shorter than an outage.
_DEADLINE_S = 0.5


@contextmanager
def kills(directory: Path, source: Random) -> Iterator[Rig]:
    """The server is killed at any moment, and started anew."""

    def befall(crew: Crew) -> None:
        crew.stopping.wait(source.uniform(0.0, 0.2))
        server.kill()
        server.restart()
        crew.await_progress()

    with running(valkey_program(), directory, *SYNCED) as server:
        yield Rig(_url(server), befall, lambda: [server])


@contextmanager
def stops(directory: Path, source: Random) -> Iterator[Rig]:
    """The server does nothing for longer than clients wait, and then what it was sent meanwhile."""

    def befall(crew: Crew) -> None:
        server.stop()
        crew.stopping.wait(source.uniform(0.1, 1.2))
        server.go_on()
        crew.await_progress()

    with running(valkey_program(), directory, *SYNCED) as server:
        yield Rig(_url(server), befall, lambda: [server])


@contextmanager
def outages(directory: Path, source: Random) -> Iterator[Rig]:
    """The server is gone, or does nothing, for longer than clients try: each is told, and goes on when it is back."""

    def befall(crew: Crew) -> None:
        stopped = source.random() < 0.5
        if stopped:
            server.stop()
        else:
            server.kill()
        crew.stopping.wait(_DEADLINE_S * source.uniform(1.0, 4.0))
        if stopped:
            server.go_on()
        else:
            server.restart()
        crew.await_progress()

    with running(valkey_program(), directory, *SYNCED) as server:
        yield Rig(
            _url(server),
            befall,
            lambda: [server],
            expects=lambda error: isinstance(error, StoreUnavailable),
            deadline_s=_DEADLINE_S,
        )


@contextmanager
def full(directory: Path, source: Random) -> Iterator[Rig]:
    """The server's memory or its disk is full for a time."""

    def befall(crew: Crew) -> None:
        refused = crew.refused
        with server.client() as client:
            if source.random() < 0.5:
                client.config_set("maxmemory", 1)
                wait_until(lambda: crew.refused > refused + 10, "writes to be refused")
                client.config_set("maxmemory", 0)
            else:
                server.fill_disk()
                wait_until(lambda: crew.refused > refused + 10, "writes to be refused")
                server.empty_disk()
        crew.await_progress()

    # (One that syncs every write ends when it cannot.)
    with running(valkey_program(), directory, "--appendonly", "yes") as server:
        yield Rig(
            _url(server),
            befall,
            lambda: [server],
            expects=lambda error: isinstance(error, WriteRefused) or is_by_design(error),
        )


def _url(server: RunningServer) -> str:
    return f"unix://{server.socket}?{QUICK}"
