"""Interrupted calls: a signal whose handler raises, and cancelled tasks."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from runic_redis import HeldLease, LeaseHeld, RedisStore, StoreError
from tests.chaos.clients import Client, Crew, Interrupted
from tests.chaos.rig import QUICK, Rig
from tests.servers import RunningServer, running, valkey_program, wait_until

__all__ = ["interrupts"]

# A pool has room for the connections in use, but not if each interruption leaked one.
_MOST_CONNECTIONS = 24
_TTL_S = 0.3
# So many leases are interrupted before the test waits for their ends.
_LEASES = 5


@contextmanager
def interrupts(directory: Path, source: Random) -> Iterator[Rig]:
    """Interrupt the main thread, which shares a store with other threads, by signals, and cancel tasks."""

    def befall(crew: Crew) -> None:
        visitor = Client(crew, _Interrupted(crew.stores[0], interrupter, source), f"visitor-{source.random()}")
        done = set()
        try:
            # An uninterrupted call shows that the store still works.
            for _ in itertools.takewhile(lambda number: number < 10 or len(done) < 2, itertools.count()):
                done.add(visitor.step())
        except Exception:
            pass  # the visitor has recorded it in its errors
        rig.found += visitor.errors
        interrupt_leases(crew.stores[0])
        crew.await_progress()

    def interrupt_leases(store: RedisStore) -> None:
        """Enter and leave leases with interruptions. No heartbeat may go on renewing one afterwards."""
        names = [f"leased-{source.random()}" for _ in range(_LEASES)]
        for name in names:
            lease = store.acquire(name, "visitor", ttl=_TTL_S)
            try:
                interrupter.interrupt(partial(_hold, store, lease), source.choice([0.0006, 0.003]) * source.random())
            except Interrupted:
                pass
            except StoreError as error:
                rig.found.append(f"hold: {type(error).__name__}: {error}")
        try:
            for name in names:
                wait_until(partial(_acquires, store, name), f"a lease of {_TTL_S} s to end", limit_s=10)
        except AssertionError as error:
            rig.found.append(str(error))
        for name in names:
            store.delete(name)

    with running(valkey_program(), directory) as server, _interrupting() as interrupter:
        rig = Rig(
            f"unix://{server.socket}?{QUICK}&max_connections={_MOST_CONNECTIONS}",
            befall,
            lambda: [server],
            faces=("shared", "shared", "shared", "asyncio", "asyncio", "cancelled", "cancelled"),
            rest_s=0.02,
        )
        yield rig
        try:
            wait_until(lambda: _connections(server) == 1, "all connections of closed stores to end")
        except AssertionError as error:
            rig.found.append(str(error))


def _hold(store: RedisStore, lease: HeldLease) -> None:
    with lease:
        store.append(lease.workflow_id, [], lease=lease)


def _acquires(store: RedisStore, workflow_id: str) -> bool:
    try:
        store.acquire(workflow_id, "another", ttl=_TTL_S)
    except LeaseHeld:
        return False
    return True


def _connections(server: RunningServer) -> int:
    with server.client() as client:
        return len(client.client_list())


# (The process's timers belong to pytest, for its own time limit.)
_SIGNAL = signal.SIGUSR1
# Another process sends the signal: a thread would run only when the main thread releases the interpreter.
_SIGNALLER = """
import os, sys, time
for line in sys.stdin:
    time.sleep(float(line))
    os.kill(int(sys.argv[1]), int(sys.argv[2]))
"""


class _Interrupter:
    """Interrupts the main thread by a signal."""

    def __init__(self, orders: int) -> None:
        self._orders = orders
        self._signalled = True

    def handle(self, *_: object) -> None:
        self._signalled = True
        raise Interrupted

    def interrupt(self, act: Callable[[], Any], delay_s: float) -> Any:
        """Call `act`, and interrupt it by a signal unless it ends within the delay."""
        self._signalled = False
        os.write(self._orders, b"%f\n" % delay_s)
        try:
            return act()
        finally:
            # The signal must not interrupt the code that follows.
            with suppress(Interrupted):
                wait_until(lambda: self._signalled, "the signal")


@contextmanager
def _interrupting() -> Iterator[_Interrupter]:
    command = [sys.executable, "-ISc", _SIGNALLER, str(os.getpid()), str(int(_SIGNAL))]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as signaller:
        assert signaller.stdin is not None
        interrupter = _Interrupter(signaller.stdin.fileno())
        before, hook = signal.signal(_SIGNAL, interrupter.handle), sys.unraisablehook

        def report(problem: Any) -> None:
            # Python reports an exception in a finalizer here, as a finalizer cannot raise.
            if not isinstance(problem.exc_value, Interrupted):
                hook(problem)

        sys.unraisablehook = report
        try:
            yield interrupter
        finally:
            sys.unraisablehook = hook
            signal.signal(_SIGNAL, before)


class _Interrupted:
    """A store whose calls are interrupted at random moments."""

    def __init__(self, store: RedisStore, interrupter: _Interrupter, source: Random) -> None:
        self._store = store
        self._interrupter = interrupter
        self._random = source

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def act(*args: Any, **options: Any) -> Any:
            result = method(*args, **options)
            return list(result) if isinstance(result, Iterator) else result

        def call(*args: Any, **options: Any) -> Any:
            delay_s = self._random.choice([0.0005, 0.005]) * self._random.random()
            return self._interrupter.interrupt(lambda: act(*args, **options), delay_s)

        return call
