"""The logic of `work` for threads and for asyncio: what to claim, and what becomes of a workflow after its handler."""

import logging
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

from runic_redis.arguments import MAX_REASON_BYTES, check_count, check_owner, check_queues, check_seconds
from runic_redis.errors import (
    CursorConflict,
    DecodeError,
    InvalidArgument,
    InvalidType,
    LeaseLost,
    MessageGone,
    StoreError,
    StoreUnavailable,
    WorkflowCancelled,
    WriteRefused,
    reason,
    short_repr,
)
from runic_redis.recovery.handlers import handler_of
from runic_redis.recovery.session_core import SessionCore
from runic_redis.recovery.steps import Pause, Steps, StoreCall
from runic_redis.retries import failure_text, retry_pause_s

_log = logging.getLogger("runic_redis.work")
# How long a claim waits before it looks whether the worker is to stop.
_WAIT_S = 1.0
# The pauses after claims that fail.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
# Errors of a claim that pass, or that concern one part of the data.
_PASSING = (StoreUnavailable, WriteRefused, DecodeError)
# How often a handler begins again at once because others wrote to its workflow. After that, it has failed.
_MOST_RESTARTS = 10


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """The keyword arguments of `work`."""

    queues: Collection[str]
    concurrency: int
    owner: str | None
    ttl: float
    max_attempts: int | None
    first_delay: float
    longest_delay: float
    give_up_on: type[Exception] | tuple[type[Exception], ...]
    until_idle: bool


@dataclass(slots=True)
class Run:
    """One run of a handler for a claimed workflow.

    Attributes:
        lease: the lease.
        outcome: "completed", "asleep", "cancelled", "failed", "parked" or "lost"; empty until it is known, or if the
            worker was interrupted.
        error: the error of the handler.
        restarts: how often the handler began again because others wrote to the workflow.
        due_s: in how many seconds the workflow is due after a failure.
    """

    lease: Any
    outcome: str = ""
    error: Exception | None = None
    restarts: int = 0
    due_s: float | None = None


class WorkCore:
    """The logic of `work`; the parameters are those of `work`."""

    def __init__(self, store: Any, function: Any, options: WorkOptions, *, asynchronous: bool) -> None:
        self.handler = handler_of(function)
        _check_kind(store, self.handler.is_async, asynchronous=asynchronous)
        self.concurrency = check_count(options.concurrency, "concurrency")
        if not self.concurrency:
            raise InvalidArgument("concurrency is 0, so nothing would be done; nothing was claimed.")
        self._store = store
        own_name = f"{platform.node()}:{os.getpid()}:{os.urandom(4).hex()}"
        self._owner = check_owner(own_name if options.owner is None else options.owner)
        self._max_attempts = options.max_attempts
        self._claim = {
            "queues": check_queues(options.queues),
            "ttl": check_seconds(options.ttl, "ttl"),
            "max_attempts": options.max_attempts,
            "wait_s": 0.0 if options.until_idle else _WAIT_S,
        }
        self._until_idle = options.until_idle
        # The leases that are claimed and wait to be taken; and those of the handlers that run.
        self._claimed: deque[Any] = deque()
        self._running: set[Any] = set()
        self._first_delay = check_seconds(options.first_delay, "first_delay")
        self._longest_delay = check_seconds(options.longest_delay, "longest_delay")
        self._give_up_on = _checked_errors(options.give_up_on)

    def loop(self, is_stopping: Callable[[], bool]) -> Steps[None]:
        """Take one workflow after the other with `take`, and handle each with `run_once`, until the end of the work.

        Each thread or task does this.
        """
        while True:
            lease = yield StoreCall("take")
            if lease is not None:
                try:
                    yield StoreCall("run_once", (lease,))
                finally:
                    self._running.discard(lease)
            elif self._until_idle or is_stopping():
                return

    def next_lease(self, is_stopping: Callable[[], bool]) -> Steps[Any]:
        """Return the lease of a workflow to handle; None if there is none. One thread or task calls this at a time.

        It claims for all threads or tasks that have nothing to do: a claim of many costs little more than one of one.
        """
        failures = 0
        while not self._claimed and not is_stopping():
            free = self.concurrency - len(self._running)
            try:
                self._claimed.extend((yield StoreCall("claim", (self._owner, free), self._claim)))
                break
            except _PASSING as error:
                failures += 1
                _log.warning("Nothing could be claimed; trying again: %s", reason(error))
                yield Pause(retry_pause_s(failures, _FIRST_PAUSE_S, _LONGEST_PAUSE_S))
        if not self._claimed:
            return None
        lease = self._claimed.popleft()
        self._running.add(lease)
        return lease

    def release_rest(self) -> Steps[None]:
        """Release the leases that no thread or task has taken because all have ended."""
        while self._claimed:
            with suppress(StoreError):
                yield StoreCall("release", (self._claimed.popleft(),))

    def new_session(self, run: Run) -> SessionCore[Any]:
        """Return the logic of the session that a handler is called with."""
        return self.handler.session_core(self._store, run.lease)

    @contextmanager
    def observed(self, run: Run) -> Iterator[None]:
        """Make a span of a run, and log its outcome."""
        lease, began_s = run.lease, time.perf_counter()
        observer = getattr(getattr(self._store, "context", None), "observer", None)
        running: AbstractContextManager[Callable[[str, Exception | None], None]] = nullcontext(_note_nothing)
        if observer is not None:
            running = observer.running(lease.workflow_id, lease.queue, lease.attempt)
        with running as note:
            try:
                yield
            finally:
                note(run.outcome or "interrupted", run.error)
                _log_run(run, time.perf_counter() - began_s)

    def settle(self, run: Run, session: SessionCore[Any], error: Exception | None) -> Steps[None]:
        """Do what is due after a handler has ended, and note the outcome; none if the handler is to begin again."""
        run.error = error
        if error is None:
            run.outcome = "asleep" if session.is_asleep else "completed"
        elif isinstance(session.overtaken, CursorConflict | MessageGone) and run.restarts < _MOST_RESTARTS:
            run.restarts += 1
        else:
            run.outcome = "failed"
            try:
                run.outcome = yield from self._end(run, session, error)
            except LeaseLost:
                run.outcome = "lost"
            except StoreError as problem:
                note_unreleased(run, problem)

    def _end(self, run: Run, session: SessionCore[Any], error: Exception) -> Steps[str]:
        """Complete, park or release a workflow whose handler has raised an error. Return the outcome."""
        lease = run.lease
        if isinstance(error, LeaseLost):
            return "lost"
        if isinstance(error, WorkflowCancelled):
            yield StoreCall("complete", (lease.workflow_id,), {"lease": lease})
            return "cancelled"
        attempt = 1 if session.has_persisted else lease.attempt
        is_last = self._max_attempts is not None and attempt >= self._max_attempts
        # An outage of the store is no reason to give up.
        if not isinstance(error, StoreUnavailable) and (is_last or isinstance(error, self._give_up_on)):
            why = f"Attempt {attempt} failed. {failure_text(error)}"
            # A reason has a limit in bytes, which the cut may not split a character of.
            why = why.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
            yield StoreCall("park", (lease, why))
            return "parked"
        run.due_s = retry_pause_s(attempt, self._first_delay, self._longest_delay)
        yield StoreCall("release", (lease,), {"due": run.due_s})
        return "failed"


def note_unreleased(run: Run, error: StoreError) -> None:
    """Log that the lease of a run could not be released. It ends by itself, and then the workflow is due."""
    _log.info("The workflow %r could not be released: %s", run.lease.workflow_id, reason(error))


def _note_nothing(_: str, __: Exception | None) -> None:
    pass


def _log_run(run: Run, took_s: float) -> None:
    about = (run.lease.workflow_id, run.lease.attempt, took_s)
    if run.error is None or run.outcome == "cancelled":
        _log.info("The workflow %r, attempt %d, %.3f s: %s.", *about, run.outcome or "interrupted")
        return
    due = "" if run.due_s is None else f", due again in {run.due_s:.1f} s"
    _log.warning(
        *("The workflow %r, attempt %d, %.3f s: %s%s. %s", *about, run.outcome, due, failure_text(run.error)),
        exc_info=run.error,
    )


def _checked_errors(kinds: Any) -> Any:
    try:
        isinstance(None, kinds)
    except TypeError:
        raise InvalidType(
            f"give_up_on is an exception class, or a tuple of them, not {short_repr(kinds)}. Nothing was claimed."
        ) from None
    return kinds


def _check_kind(store: Any, is_async: bool, *, asynchronous: bool) -> None:
    """Check that the store and the handler are for threads, or for asyncio."""
    if not hasattr(store, "claim"):
        raise InvalidType(f"work needs a store with queues, such as a RedisStore, not {short_repr(store)}.")
    name, other = ("async_work", "work") if asynchronous else ("work", "async_work")
    kind = "coroutine function" if asynchronous else "plain function"
    if iscoroutinefunction(store.claim) is not asynchronous:
        raise InvalidType(f"{name} cannot use a {type(store).__name__}. Nothing was claimed. Use {other} with it.")
    if is_async is not asynchronous:
        raise InvalidType(f"{name} needs a handler that is a {kind}. Nothing was claimed. Use {other} with this one.")
