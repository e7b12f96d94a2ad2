"""Trouble with a server: killed, stopped, gone for long, full, sent more than it takes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from runic_redis import StoreError, StoreUnavailable, WriteRefused
from tests.chaos.clients import Crew, is_by_design
from tests.chaos.rig import QUICK, SYNCED, Rig
from tests.servers import RunningServer, running, valkey_program, wait_until

__all__ = ["full", "kills", "outages", "oversized", "stops"]

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


# What the server takes: it ends a connection that has more in its buffer, and refuses an argument that is larger.
_MOST_QUERY_BYTES = 1_048_576
_MOST_BULK_BYTES = 2 * _MOST_QUERY_BYTES
# A refusal does not wait for the deadline.
_OVERSIZED_DEADLINE_S = 20.0
_REFUSED_WITHIN_S = 10.0


def _oversized_writes(source: Random) -> list[tuple[str, Callable[[Any], object]]]:
    """Every way to write more to the workflow "large" than the server takes."""

    def large() -> bytes:
        # (Random, so that it is not compressed.)
        return source.randbytes(source.choice([_MOST_QUERY_BYTES, _MOST_BULK_BYTES]) * 5 // 4)

    def append_many(store: Any) -> None:
        small, error, smaller = store.append_many([("small", [{}]), ("large", [{"data": large()}]), ("small", [{}])])
        assert isinstance(small, int), f"a small one was refused: {small}"
        assert isinstance(smaller, int), f"a small one was refused: {smaller}"
        store.delete("small")
        if isinstance(error, StoreError):
            raise error

    return [
        ("append", lambda store: store.append("large", [{"data": large()}])),
        ("append by id", lambda store: store.append("large", [{"data": large()}], commit_id="large")),
        ("append of several", lambda store: store.append("large", [{"n": 1}, {"data": large()}, {"n": 3}])),
        ("append with a snapshot", lambda store: store.append("large", [{"n": 1}], snapshot=large())),
        ("append_many", append_many),
        ("save", lambda store: store.save("large", [{"data": large()}])),
        ("save_snapshot", lambda store: store.save_snapshot("large", 0, large())),
        ("put_fact", lambda store: store.put_fact({"data": large()})),
    ]


@contextmanager
def oversized(directory: Path, source: Random) -> Iterator[Rig]:
    """Some write more than the server takes, among small writes: each of these is refused alone, and at once."""

    def befall(crew: Crew) -> None:
        name, write = source.choice(_oversized_writes(source))
        store = source.choice(crew.stores)
        began_s = time.monotonic()
        try:
            write(store)
        except StoreUnavailable as error:
            rig.found.append(f"{name}: StoreUnavailable, as if a retry helped: {error}")
        except AssertionError as error:
            rig.found.append(f"{name}: {error}")
        except StoreError:
            pass
        else:
            rig.found.append(f"{name}: acknowledged")
        if time.monotonic() - began_s > _REFUSED_WITHIN_S:
            rig.found.append(f"{name}: answered after {time.monotonic() - began_s:.0f} s")
        kept = [store.exists("large"), store.cursor("large")]
        if kept != [False, 0]:
            rig.found.append(f"{name}: refused, and left something behind: {kept}")
            store.delete("large")
        crew.await_progress()

    limits = ("--proto-max-bulk-len", str(_MOST_BULK_BYTES), "--client-query-buffer-limit", str(_MOST_QUERY_BYTES))
    with running(valkey_program(), directory, *limits) as server:
        rig = Rig(_url(server), befall, lambda: [server], deadline_s=_OVERSIZED_DEADLINE_S, rest_s=0.02)
        yield rig


def _url(server: RunningServer) -> str:
    return f"unix://{server.socket}?{QUICK}"
