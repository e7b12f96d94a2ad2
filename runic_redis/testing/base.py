"""What every contract builds on: fixtures that open the store, and ways to be somebody else."""

import multiprocessing
import reprlib
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from typing import Any

import pytest

__all__ = ["Contract", "Elsewhere", "Opener", "raised_error"]

Opener = Callable[[], Any]
# Runs function(store, *args) where it cannot share memory with the test, for each of the argument tuples at once.
Elsewhere = Callable[..., list[Any]]


def raised_error(given: object, call: Callable[[], Any], kinds: Any) -> Any:
    """Return the error, of these kinds, that a call raises, given what it must reject."""
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
        """Runs a function in other processes, each with a store of its own; their results in order."""

        def run(function: Callable[..., Any], *calls: tuple[Any, ...]) -> list[Any]:
            # From a server process that has imported what they need: a process that begins from nothing takes longer to
            # import than to run a case.
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
    """In the other process: open, wait for the others, run, report."""
    try:
        with closing(opener()) as store:
            barrier.wait()
            outcome = function(store, *call)
    except Exception as error:
        barrier.abort()
        outcome = _Failed(error)
    results.put((place, outcome))
