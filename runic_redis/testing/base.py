"""The base of every contract: fixtures that open the store, also in other processes."""

import multiprocessing
import reprlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing, nullcontext
from typing import Any

import pytest

Opener = Callable[[], Any]
# Runs function(store, *args) without shared memory, concurrently for each of the argument tuples.
Elsewhere = Callable[..., list[Any]]


def raised_error(given: object, call: Callable[[], Any], kinds: Any) -> Any:
    """Return the error of these kinds that a call raises; fail if it accepts what it was given."""
    try:
        call()
    except kinds as error:
        return error
    raise AssertionError(f"not rejected: {reprlib.repr(given)}")


class Contract:
    """Fixtures for the cases."""

    @pytest.fixture
    def opener(self) -> Opener:
        raise NotImplementedError("give your contract tests an `opener` fixture, see runic_redis.testing")

    @pytest.fixture
    def store(self, opener: Opener) -> Iterator[Any]:
        store = opener()
        with closing(store) if hasattr(store, "close") else nullcontext():
            yield store

    @pytest.fixture
    def elsewhere(self, opener: Opener) -> Elsewhere:
        """A function that runs another in processes, each with another store, and returns the results in order."""

        def run(function: Callable[..., Any], *calls: tuple[Any, ...]) -> list[Any]:
            # A fork server has imported the modules that the processes need. Importing takes longer than running a
            # case.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__package__])
            barrier = context.Barrier(len(calls))
            with ProcessPoolExecutor(len(calls), context, _keep_barrier, (barrier,)) as pool:
                running = [pool.submit(_run_elsewhere, opener, function, call) for call in calls]
                for ended in as_completed(running):
                    ended.result()  # raises the first error, not the errors that it causes in the other processes
                return [ended.result() for ended in running]

        return run


# The barrier of a process that runs calls.
_barriers: list[Any] = []


def _keep_barrier(barrier: Any) -> None:
    _barriers.append(barrier)


def _run_elsewhere(opener: Opener, function: Callable[..., Any], call: tuple[Any, ...]) -> Any:
    """Run in the other process: open a store, wait for the other processes, and call the function."""
    (barrier,) = _barriers
    try:
        with closing(opener()) as store:
            barrier.wait()
            return function(store, *call)
    except Exception:
        barrier.abort()
        raise
