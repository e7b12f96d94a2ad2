"""Faults of a server: killed, stopped, gone for long, full, or sent more than it accepts."""

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

# Shorter than each outage.
_DEADLINE_S = 0.5


@contextmanager
def kills(directory: Path, source: Random) -> Iterator[Rig]:
    """Kill the server at any moment, and restart it."""

    def befall(crew: Crew) -> None:
        crew.stopping.wait(source.uniform(0.0, 0.2))
        server.kill()
        server.restart()
        crew.await_progress()

    with running(valkey_program(), directory, *SYNCED) as server:
        yield Rig(_url(server), befall, lambda: [server])


@contextmanager
def stops(directory: Path, source: Random) -> Iterator[Rig]:
    """Stop the server for longer than its clients' timeouts. It then carries out what it was sent meanwhile."""

    def befall(crew: Crew) -> None:
        server.stop()
        crew.stopping.wait(source.uniform(0.1, 1.2))
        server.go_on()
        crew.await_progress()

    with running(valkey_program(), directory, *SYNCED) as server:
        yield Rig(_url(server), befall, lambda: [server])


@contextmanager
def outages(directory: Path, source: Random) -> Iterator[Rig]:
    """Kill or stop the server for longer than the deadline. Each client gets an error, and works again afterwards."""

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
    """Fill the server's memory or its disk for a time."""

    def befall(crew: Crew) -> None:
        refused = crew.refused
        with server.client() as client:
            if source.random() < 0.5:
                client.config_set("maxmemory", 1)
                wait_until(lambda: crew.refused > refused + 10, "writes to be rejected")
                client.config_set("maxmemory", 0)
            else:
                server.fill_disk()
                wait_until(lambda: crew.refused > refused + 10, "writes to be rejected")
                server.empty_disk()
        crew.await_progress()

    # (Without --appendfsync always: such a server exits when a write fails.)
    with running(valkey_program(), directory, "--appendonly", "yes") as server:
        yield Rig(
            _url(server),
            befall,
            lambda: [server],
            expects=lambda error: isinstance(error, WriteRefused) or is_by_design(error),
        )


# The server closes a connection with a larger query buffer, and rejects a larger argument.
_MOST_QUERY_BYTES = 1_048_576
_MOST_BULK_BYTES = 2 * _MOST_QUERY_BYTES
# A rejection must come well before the deadline.
_OVERSIZED_DEADLINE_S = 20.0
_REFUSED_WITHIN_S = 10.0


def _oversized_writes(source: Random) -> list[tuple[str, Callable[[Any], object]]]:
    """Return every way to write more to the workflow "large" than the server accepts."""

    def large() -> bytes:
        # (Random bytes cannot be compressed.)
        return source.randbytes(source.choice([_MOST_QUERY_BYTES, _MOST_BULK_BYTES]) * 5 // 4)

    def append_many(store: Any) -> None:
        small, error, smaller = store.append_many([("small", [{}]), ("large", [{"data": large()}]), ("small", [{}])])
        assert isinstance(small, int), f"a small write was rejected: {small}"
        assert isinstance(smaller, int), f"a small write was rejected: {smaller}"
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
    """Write more than the server accepts, among small writes. Each large write is rejected alone, and at once."""

    def befall(crew: Crew) -> None:
        name, write = source.choice(_oversized_writes(source))
        store = source.choice(crew.stores)
        began_s = time.monotonic()
        try:
            write(store)
        except StoreUnavailable as error:
            rig.found.append(f"{name}: StoreUnavailable, although a retry cannot help: {error}")
        except AssertionError as error:
            rig.found.append(f"{name}: {error}")
        except StoreError:
            pass
        else:
            rig.found.append(f"{name}: acknowledged")
        if time.monotonic() - began_s > _REFUSED_WITHIN_S:
            rig.found.append(f"{name}: ended after {time.monotonic() - began_s:.0f} s")
        kept = [store.exists("large"), store.cursor("large")]
        if kept != [False, 0]:
            rig.found.append(f"{name}: rejected, but left something behind: {kept}")
            store.delete("large")
        crew.await_progress()

    limits = ("--proto-max-bulk-len", str(_MOST_BULK_BYTES), "--client-query-buffer-limit", str(_MOST_QUERY_BYTES))
    with running(valkey_program(), directory, *limits) as server:
        rig = Rig(_url(server), befall, lambda: [server], deadline_s=_OVERSIZED_DEADLINE_S, rest_s=0.02)
        yield rig


def _url(server: RunningServer) -> str:
    return f"unix://{server.socket}?{QUICK}"
