"""The base of every contract: fixtures that open the store, also in other processes."""

import multiprocessing
import reprlib
from collections.abc import Callable, Iterator
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
            results = context.SimpleQueue()
            processes = [
                context.Process(target=_run_elsewhere, args=(opener, function, call, place, barrier, results))
                for place, call in enumerate(calls)
            ]
            for process in processes:
                process.start()
            outcomes = dict(results.get() for _ in processes)
            for process in processes:
                process.join()
                process.close()
            results.close()
            for outcome in outcomes.values():
                if isinstance(outcome, _Failed):
                    raise outcome.error
            return [outcomes[place] for place in range(len(calls))]

        return run


class _Failed:
    def __init__(self, error: Exception) -> None:
        self.error = error


def _run_elsewhere(
    opener: Opener, function: Callable[..., Any], call: tuple[Any, ...], place: int, barrier: Any, results: Any
) -> None:
    """Run in the other process: open a store, wait for the other processes, call the function, send the result."""
    try:
        with closing(opener()) as store:
            barrier.wait()
            outcome = function(store, *call)
    except Exception as error:
        barrier.abort()
        outcome = _Failed(error)
    results.put((place, outcome))
