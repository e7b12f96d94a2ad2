"""`work` and `async_work`: claim workflows and call a handler for each, with retries, until the process is to end."""

import asyncio
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from runic_redis.arguments import DEFAULT_QUEUE
from runic_redis.errors import StoreError
from runic_redis.recovery.sessions import AsyncSession, Session
from runic_redis.recovery.steps import run_steps, run_steps_async
from runic_redis.recovery.work_core import Run, WorkCore, WorkOptions, note_unreleased


class _Workers:
    """The threads of one call of `work`. Each claims and handles one workflow at a time."""

    def __init__(self, store: Any, core: WorkCore, stop: threading.Event) -> None:
        self._store = store
        self._core = core
        self._stop = stop
        self._failure: BaseException | None = None
        self._turn = threading.Lock()

    def run(self) -> None:
        """Work until the threads are to stop, or have nothing to do."""
        # Daemons, so that a second signal ends the process although handlers run.
        threads = [
            threading.Thread(target=self._work, name=f"work {number}", daemon=True)
            for number in range(self._core.concurrency)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run_steps(self._core.release_rest(), self._store)
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            run_steps(self._core.loop(self._stop.is_set), self)
        except BaseException as error:
            self._failure = error
            self._stop.set()

    def take(self) -> Any:
        """Return the lease of a workflow to handle; None if there is none."""
        with self._turn:
            return run_steps(self._core.next_lease(self._stop.is_set), self._store)

    def run_once(self, lease: Any) -> None:
        """Call the handler for one workflow."""
        core, run = self._core, Run(lease)
        with core.observed(run):
            try:
                with lease:
                    while not run.outcome:
                        one, error = core.new_session(run), None
                        try:
                            with Session(self._store, one) as session:
                                core.handler(session)
                                session.complete()
                        except Exception as raised:
                            error = raised
                        run_steps(core.settle(run, one, error), self._store)
            except StoreError as error:
                note_unreleased(run, error)


class _AsyncWorkers:
    """The tasks of one call of `async_work`. Each claims and handles one workflow at a time."""

    def __init__(self, store: Any, core: WorkCore, stop: asyncio.Event) -> None:
        self._store = store
        self._core = core
        self._stop = stop
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Work until the tasks are to stop, or have nothing to do."""
        steps = [self._core.loop(self._stop.is_set) for _ in range(self._core.concurrency)]
        tasks = [asyncio.create_task(run_steps_async(one, self)) for one in steps]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if any(task.done() and task.exception() for task in tasks):
                self._stop.set()
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            raise
        finally:
            await run_steps_async(self._core.release_rest(), self._store)
        for task in tasks:
            task.result()

    async def take(self) -> Any:
        """Return the lease of a workflow to handle; None if there is none."""
        async with self._turn:
            return await run_steps_async(self._core.next_lease(self._stop.is_set), self._store)

    async def run_once(self, lease: Any) -> None:
        """Call the handler for one workflow."""
        core, run = self._core, Run(lease)
        with core.observed(run):
            try:
                async with lease:
                    while not run.outcome:
                        one, error = core.new_session(run), None
                        try:
                            async with AsyncSession(self._store, one) as session:
                                await core.handler(session)
                                await session.complete()
                        except Exception as raised:
                            error = raised
                        except asyncio.CancelledError as raised:
                            error = _cancelled_inside(raised)
                        await run_steps_async(core.settle(run, one, error), self._store)
            except StoreError as error:
                note_unreleased(run, error)


def _cancelled_inside(cancelled: asyncio.CancelledError) -> Exception:
    """Return the failure of a handler that has awaited something cancelled; raise the error if the worker was."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise cancelled
    failure = RuntimeError("The handler awaited a task that was cancelled, and did not catch asyncio.CancelledError.")
    failure.__cause__ = cancelled
    return failure


@contextmanager
def _stopped_by_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Have the first SIGTERM or SIGINT call a function. The second one does what it did before.

    Only the main thread can do this; in another one, nothing changes.
    """
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, action in before.items():
            signal.signal(number, action)

    def on_signal(_: int, __: object) -> None:
        stop()
        restore()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            action = signal.getsignal(number)
            if action is not None:  # else no Python code has set it, or can set it again
                before[number] = action
                signal.signal(number, on_signal)
    try:
        yield
    finally:
        restore()


def work(
    store: Any,
    handler: Callable[[Session[Any]], object],
    *,
    queues: Collection[str] = (DEFAULT_QUEUE,),
    concurrency: int = 1,
    owner: str | None = None,
    ttl: float = 30.0,
    max_attempts: int | None = 5,
    first_delay: float = 1.0,
    longest_delay: float = 300.0,
    give_up_on: type[Exception] | tuple[type[Exception], ...] = (),
    stop: threading.Event | None = None,
    until_idle: bool = False,
) -> None:
    """Claim workflows that are due, and call a handler for each, until the process gets SIGTERM or SIGINT.

    The handler gets a session of the workflow, under a lease that a heartbeat renews. What happens then depends on it:

    - It returns: the workflow is completed.
    - It calls `Session.sleep`: the workflow is claimed again later.
    - It raises an exception: the events of earlier `record` calls stay. The workflow is claimed again after a pause,
      which doubles with each attempt. After `max_attempts` it is parked, with the error as the reason.
    - Someone has called `request_cancel`: the next `record`, `inbox` or `sleep` raises `WorkflowCancelled`. If the
      handler does not catch it, the workflow is completed.
    - Others append to the workflow: `record` raises `CursorConflict`. If the handler does not catch it, it is called
      again at once, with a session that has the new events.
    - The process dies: another worker claims the workflow once the lease has ended, after `ttl` seconds.

    So a handler may be called several times for one workflow. It looks at `session.state` to go on where it stopped.

    On SIGTERM, SIGINT or `stop`, no more workflows are claimed, and `work` returns when the handlers that run have
    ended. A second signal interrupts. Signals are caught in the main thread only. Each call of the handler is logged
    by the logger ``runic_redis.work``, and is a span of an instrumented store.

    Args:
        store: the store.
        handler: a function of a session; use `handler` to give its workflows a state. Otherwise their state is the
            list of their events.
        queues: the queues to claim from.
        concurrency: how many threads call the handler.
        owner: names this worker in leases; by default by its host, its process and a random number.
        ttl: how many seconds after the death of this process another may take over.
        max_attempts: how many attempts a workflow has. Each commit under the lease begins a new count. None for no
            limit.
        first_delay: how many seconds to wait after the first failure, less a random part of up to a half.
        longest_delay: how many seconds to wait at most.
        give_up_on: exceptions after which a workflow is parked at once.
        stop: set it, from any thread, to stop.
        until_idle: return when no workflow is due.

    Raises:
        InvalidArgument: an argument cannot be used. Nothing was claimed.
    """
    options = WorkOptions(
        queues, concurrency, owner, ttl, max_attempts, first_delay, longest_delay, give_up_on, until_idle
    )
    core = WorkCore(store, handler, options, asynchronous=False)
    stopping = threading.Event() if stop is None else stop
    with _stopped_by_signals(stopping.set):
        _Workers(store, core, stopping).run()


async def async_work(
    store: Any,
    handler: Callable[[AsyncSession[Any]], object],
    *,
    queues: Collection[str] = (DEFAULT_QUEUE,),
    concurrency: int = 1,
    owner: str | None = None,
    ttl: float = 30.0,
    max_attempts: int | None = 5,
    first_delay: float = 1.0,
    longest_delay: float = 300.0,
    give_up_on: type[Exception] | tuple[type[Exception], ...] = (),
    stop: asyncio.Event | None = None,
    until_idle: bool = False,
) -> None:
    """Do what `work` does on a store for asyncio, with tasks instead of threads.

    The handler is a coroutine function. A task that is cancelled releases its workflow.
    """
    options = WorkOptions(
        queues, concurrency, owner, ttl, max_attempts, first_delay, longest_delay, give_up_on, until_idle
    )
    core = WorkCore(store, handler, options, asynchronous=True)
    stopping = asyncio.Event() if stop is None else stop
    loop = asyncio.get_running_loop()
    with _stopped_by_signals(lambda: loop.call_soon_threadsafe(stopping.set)):
        await _AsyncWorkers(store, core, stopping).run()
