"""Sessions: the state of a workflow, folded from its events, persisted as it changes, and recovered on entry.

`SessionCore` has the logic; `Session` and `AsyncSession` run it on their kinds of store.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from threading import RLock
from typing import Any, Generic, Self, TypeVar

from runic_redis.errors import StoreError
from runic_redis.recovery.policies import SnapshotPolicy
from runic_redis.recovery.session_core import SessionCore
from runic_redis.recovery.session_options import Asleep, Checkpoint, Recovery, SessionOptions, State
from runic_redis.recovery.steps import Steps, run_steps, run_steps_async

T = TypeVar("T")


class _Face(Generic[State]):
    """The attributes of both kinds of session."""

    def __init__(self, store: Any, core: SessionCore[State]) -> None:
        self._store = store
        self._core = core

    @property
    def store(self) -> Any:
        """The store, for example to start other workflows."""
        return self._store

    @property
    def workflow_id(self) -> str:
        """The id of the workflow."""
        return self._core.workflow_id

    @property
    def lease(self) -> Any:
        """The lease that each write carries; None without one."""
        return self._core.lease

    @property
    def state(self) -> State:
        """The state after the last recorded event."""
        return self._core.state

    @property
    def cursor(self) -> int:
        """The cursor of the last persisted event."""
        return self._core.cursor

    @property
    def pending(self) -> Sequence[Any]:
        """The events that are recorded but not yet persisted."""
        return tuple(self._core.pending)

    @property
    def recovery(self) -> Recovery:
        """The recovery of this session.

        Raises:
            StoreError: the session has not been entered.
        """
        if self._core.recovery is None:
            raise StoreError("The session has not been entered. Nothing was recovered. Enter it with 'with' first.")
        return self._core.recovery


class Session(_Face[State]):
    """The state of a workflow on a store for threads; made by `session`.

    Enter it once, as a context manager: entry recovers the state. A normal exit persists the pending events. An exit
    with an exception persists nothing more: only the events of earlier checkpoints are stored. Threads may share a
    session; it runs one call at a time.
    """

    def __init__(self, store: Any, core: SessionCore[State]) -> None:
        super().__init__(store, core)
        self._turn = RLock()  # reentrant, so that an apply that calls the session gets an error and no deadlock

    def _run(self, steps: Steps[T]) -> T:
        with self._turn:
            return run_steps(steps, self._store)

    def __enter__(self) -> Self:
        self._run(self._core.recover())
        return self

    def __exit__(self, kind: object, *_: object) -> bool:
        if kind is None:
            self._run(self._core.leave())
        self._core.over = True  # after an error without waiting, even if another thread waits for the server
        return kind is Asleep and self._core.is_asleep

    def record(self, *events: Any, consumes: Any = None) -> None:
        """Apply events to the state at once, and persist them at the next checkpoint.

        Args:
            events: the events.
            consumes: a message from `inbox`, or a list of messages: the commit of the events removes them.

        If the store cannot encode an event, or if `apply` raises, none of the events of this call is recorded. The
        session is unchanged and can go on. The session encodes events before it applies them. If `apply` changes a
        state in place before it raises, that change stays; so return a new state.

        Raises:
            EncodeError: an event cannot be encoded; or the events are too large for one commit with the pending events;
                or these are a workflow's first events, and the state after them cannot be saved as a snapshot. Nothing
                was recorded.
            SnapshotNotSaved: the events are stored, but the snapshot that was due is not. The session goes on and
                retries the snapshot at its next checkpoint.
            CursorConflict: another writer has appended to the workflow. Nothing was stored. The session is over: enter
                another, which recovers.
            LeaseLost: the lease is outdated. Nothing was stored. The session is over: enter another, which recovers.
            MessageGone: another commit has consumed a message. Nothing was stored. The session is over.
            WorkflowCancelled: in a handler of `work`, someone has requested to cancel the workflow. Nothing was
                recorded by this call. The session goes on, and does not raise it again.
        """
        self._run(self._core.record(events, consumes))

    def checkpoint(self) -> None:
        """Persist the pending events as one commit, with a snapshot if one is due.

        Raises as `record` does.
        """
        self._run(self._core.checkpoint())

    def complete(self) -> None:
        """Persist the pending events, and mark the workflow as finished.

        Raises as `record` does, except for this error.

        Raises:
            SnapshotNotSaved: the events are stored and the workflow is finished, but the snapshot is not saved.
        """
        self._run(self._core.complete())

    def inbox(self, wait_s: float = 0.0) -> list[Any]:
        """Return the messages in the inbox of the workflow, the oldest first.

        In a handler of `work`, requests to cancel are left out, since they are raised.

        Args:
            wait_s: how many seconds to wait for a message if there is none.

        Raises:
            WorkflowCancelled: as for `record`.
        """
        return self._run(self._core.inbox(wait_s))

    def sleep(self, until: float | datetime | None, name: str = "") -> None:
        """Release the workflow until a time, and go on after it: in another session, maybe of another worker.

        The call persists the pending events, stores the time as the workflow's timer, and leaves the block of the
        session. The next session of the workflow gets to the same call again. If the time has come, the call returns.
        If a message has woken the workflow before, the workflow sleeps for the rest of the time. The next commit ends
        the timer, so that a later call sleeps again.

        Args:
            until: a number of seconds from now, an aware datetime, or None: until there is a message in the inbox.
                `math.inf` is the same as None.
            name: the name of the timer, to tell it from others.

        Raises:
            InvalidArgument: the session has no lease, or an argument cannot be used. Nothing was recorded.
            StoreError: the session has slept before and recorded nothing since. Nothing was changed.
            WorkflowCancelled: as for `record`.
        """
        self._run(self._core.sleep(until, name))


class AsyncSession(_Face[State]):
    """The state of a workflow on a store for asyncio; made by `async_session`. Its methods are those of `Session`.

    Tasks may share a session; it runs one call at a time.
    """

    def __init__(self, store: Any, core: SessionCore[State]) -> None:
        super().__init__(store, core)
        self._turn = asyncio.Lock()

    async def _run(self, steps: Steps[T]) -> T:
        async with self._turn:
            return await run_steps_async(steps, self._store)

    async def __aenter__(self) -> Self:
        await self._run(self._core.recover())
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, _: object) -> bool:
        if kind is None:
            await self._run(self._core.leave())
        self._core.over = True  # after an error without waiting, even if another task waits for the server
        if isinstance(error, BaseExceptionGroup):  # a TaskGroup, one of whose tasks has called `sleep`
            return self._core.is_asleep and error.split(Asleep)[1] is None
        return kind is Asleep and self._core.is_asleep

    async def record(self, *events: Any, consumes: Any = None) -> None:
        """Apply events to the state at once, and persist them at the next checkpoint.

        See `Session.record`.
        """
        await self._run(self._core.record(events, consumes))

    async def checkpoint(self) -> None:
        """Persist the pending events as one commit, with a snapshot if one is due.

        See `Session.checkpoint`.
        """
        await self._run(self._core.checkpoint())

    async def complete(self) -> None:
        """Persist the pending events, and mark the workflow as finished.

        See `Session.complete`.
        """
        await self._run(self._core.complete())

    async def inbox(self, wait_s: float = 0.0) -> list[Any]:
        """Return the messages in the inbox of the workflow, the oldest first.

        See `Session.inbox`.
        """
        return await self._run(self._core.inbox(wait_s))

    async def sleep(self, until: float | datetime | None, name: str = "") -> None:
        """Release the workflow until a time, and go on after it: in another session, maybe of another worker.

        See `Session.sleep`.
        """
        await self._run(self._core.sleep(until, name))


def session(
    store: Any,
    workflow_id: str,
    apply: Callable[[State, Any], State],
    initial: State | Callable[[], State],
    *,
    checkpoint: Checkpoint = "cycle",
    snapshots: SnapshotPolicy | None = None,
    dumps: Callable[[State], bytes] | None = None,
    loads: Callable[[bytes], State] | None = None,
    keep: int | None = None,
    lease: Any = None,
    build_log: Sequence[Any] = (),
) -> Session[State]:
    """Return a session of a workflow: its state, recovered on entry and persisted as it changes.

    It works on every store. On a store that has only `save` and `load`, it saves the whole log each time.

    Args:
        store: the store.
        workflow_id: the workflow.
        apply: returns the state after an event, from the state before it. The session calls it with each event when the
            event is recorded, and again to recover. A value that was recorded as `Fact` is then a `FactRef`.
        initial: the state before the first event, or a function that makes it.
        checkpoint: when to persist events: "cycle", with each `record`; a number, after that many calls of `record`;
            "completion", when the session is left or completed; "manual", only when you call `checkpoint`.
        snapshots: when to save a snapshot, in one commit with the events; None for never. Pass `EveryEvents`,
            `EveryBytes`, `ByRecoveryTime`, or your own policy.
        dumps: returns the state as bytes, for snapshots; by default MessagePack, as for events. If it compresses or
            encrypts a state that an event could not hold, return an `EncodedState`, which tells the facts in it.
        loads: returns the state from these bytes.
        keep: trim after each snapshot, except for this many of the last events; None to trim nothing.
        lease: the lease that each write carries.
        build_log: the first events of a new workflow, such as the events that define its components. If the workflow
            has no events, entry applies them and persists them as its first commit.

    Returns:
        The session. Entering it raises the errors of reading. A snapshot that cannot be read raises `DecodeError` only
        if the events that it covers were trimmed. With `snapshots`, entering raises `EncodeError` if the state cannot
        be saved as a snapshot; for a new workflow, the first `record` also does. With `build_log`, entering also raises
        the errors of `record`.

    Raises:
        InvalidArgument: an argument cannot be used, or `lease` is given and the store has no leases.
    """
    options = SessionOptions(checkpoint, snapshots, dumps, loads, keep, lease, build_log)
    return Session(store, SessionCore(store, workflow_id, apply, initial, options))


def async_session(
    store: Any,
    workflow_id: str,
    apply: Callable[[State, Any], State],
    initial: State | Callable[[], State],
    *,
    checkpoint: Checkpoint = "cycle",
    snapshots: SnapshotPolicy | None = None,
    dumps: Callable[[State], bytes] | None = None,
    loads: Callable[[bytes], State] | None = None,
    keep: int | None = None,
    lease: Any = None,
    build_log: Sequence[Any] = (),
) -> AsyncSession[State]:
    """Return a session on a store for asyncio; the parameters are those of `session`."""
    options = SessionOptions(checkpoint, snapshots, dumps, loads, keep, lease, build_log)
    return AsyncSession(store, SessionCore(store, workflow_id, apply, initial, options))
