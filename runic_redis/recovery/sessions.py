"""Sessions: a workflow's state, folded from its events, that is persisted as it changes and recovered where it was.

What a session does is in `_Core`, once; `Session` and `AsyncSession` run it on a store of their kind.
"""

import asyncio
from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any, Generic, Self

from runic_redis.errors import StoreError
from runic_redis.recovery.policies import SnapshotPolicy
from runic_redis.recovery.session_core import Checkpoint, Recovery, SessionCore, SessionOptions, State
from runic_redis.recovery.steps import Steps, run, run_async

__all__ = ["AsyncSession", "Session", "async_session", "session"]


class _Face(Generic[State]):
    """What both kinds of session show."""

    def __init__(self, store: Any, core: SessionCore[State]) -> None:
        self._store = store
        self._core = core

    @property
    def state(self) -> State:
        """The state as of the last event recorded."""
        return self._core.state

    @property
    def cursor(self) -> int:
        """The cursor of the last event persisted."""
        return self._core.cursor

    @property
    def pending(self) -> Sequence[Any]:
        """The events that are recorded and not persisted yet."""
        return tuple(self._core.pending)

    @property
    def recovery(self) -> Recovery:
        """What the session did to recover.

        Raises:
            StoreError: it has not been entered.
        """
        if self._core.recovery is None:
            raise StoreError("The session has not been entered: write 'with'. Nothing was recovered.")
        return self._core.recovery


class Session(_Face[State]):
    """A workflow's state on a store for threads; made by `session`.

    As a context manager it recovers on entry. Leaving it persists what is pending; leaving by an exception keeps what
    was checkpointed, and nothing else. It is entered once. Threads may share it: their calls take turns.
    """

    def __init__(self, store: Any, core: SessionCore[State]) -> None:
        super().__init__(store, core)
        self._turn = RLock()  # (an apply that calls the session is told of it, and does not wait for itself)

    def _run(self, steps: Steps[None]) -> None:
        with self._turn:
            run(steps, self._store)

    def __enter__(self) -> Self:
        self._run(self._core.recover())
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._run(self._core.leave())
        self._core.over = True  # after an error at once, also while another thread waits for the server

    def record(self, *events: Any) -> None:
        """Apply events to the state at once, and persist them as the checkpoint strategy says.

        An event that the store cannot encode is rejected before `apply` sees it, and so is one that `apply` raises for.
        None of the events of the call is recorded then, and the session is as it was and can go on. (A state that
        `apply` changed in place before it raised stays changed: return a new one.)

        Raises:
            EncodeError: an event cannot be encoded, or the events are too large for a commit with those pending. Or the
                events are a workflow's first, and the state after them cannot be saved as a snapshot. Nothing was
                recorded.
            SnapshotNotSaved: the events are stored, and the snapshot that was due with them is not. The session goes on
                and tries again at its next checkpoint.
            CursorConflict: somebody else has appended to the workflow; nothing was stored. The session is over: enter
                another, which recovers.
            LeaseLost: the lease is outdated; the same.
        """
        self._run(self._core.record(events))

    def checkpoint(self) -> None:
        """Persist what is pending, as one commit, with a snapshot if one is due. Errors as of `record`."""
        self._run(self._core.checkpoint())

    def complete(self) -> None:
        """Persist what is pending and mark the workflow as finished. Errors as of `record`.

        Raises:
            SnapshotNotSaved: the events are stored and the workflow is finished; only the snapshot is missing.
        """
        self._run(self._core.complete())


class AsyncSession(_Face[State]):
    """A workflow's state on a store for asyncio; made by `async_session`. As `Session`, to be awaited.

    Tasks may share it: their calls take turns.
    """

    def __init__(self, store: Any, core: SessionCore[State]) -> None:
        super().__init__(store, core)
        self._turn = asyncio.Lock()

    async def _run(self, steps: Steps[None]) -> None:
        async with self._turn:
            await run_async(steps, self._store)

    async def __aenter__(self) -> Self:
        await self._run(self._core.recover())
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            await self._run(self._core.leave())
        self._core.over = True  # after an error at once, also while another task waits for the server

    async def record(self, *events: Any) -> None:
        """Apply events to the state at once, and persist them as the checkpoint strategy says; see `Session`."""
        await self._run(self._core.record(events))

    async def checkpoint(self) -> None:
        """Persist what is pending; see `Session`."""
        await self._run(self._core.checkpoint())

    async def complete(self) -> None:
        """Persist what is pending and mark the workflow as finished; see `Session`."""
        await self._run(self._core.complete())


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
    """A session of a workflow: its state, recovered on entry, and persisted as it changes.

    It works on every store: on one that has only `save` and `load`, by the whole log.

    Args:
        store: the store.
        workflow_id: the workflow.
        apply: the state after an event, from the state before it. It is called with each event as it is recorded, and
            again to recover; a value that was recorded as `Fact` is then a `FactRef`.
        initial: the state before the first event; or, if it is callable, what makes it.
        checkpoint: when events are persisted: "cycle", with each `record`; a number, with every so many `record`s;
            "completion", when the session is left or completed; "manual", by `checkpoint` only.
        snapshots: when a snapshot is saved, in one commit with the events; None for never. One of `EveryEvents`,
            `EveryBytes`, `ByRecoveryTime`, or a policy of your own.
        dumps: the state as bytes, for snapshots; by default MessagePack, as events are encoded.
        loads: the state from these bytes.
        keep: trim after each snapshot, but for so many of the last events; None to trim nothing.
        lease: write by this lease only.
        build_log: the events that a new workflow begins with, such as those that say which components it has. On entry
            they are applied and persisted as its first commit. A workflow that has events already is not given them.

    Returns:
        The session; entering it reads, and raises what reading does. A snapshot that cannot be read is a `DecodeError`
        only if the events that it covers have been trimmed. With `snapshots`, entering raises an `EncodeError` if the
        state could not be saved as a snapshot, and so does the first `record` of a new workflow. With `build_log`,
        entering raises what `record` does.

    Raises:
        InvalidArgument: an argument cannot be used, or the store knows no leases.
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
    """A session on a store for asyncio; the parameters are those of `session`."""
    options = SessionOptions(checkpoint, snapshots, dumps, loads, keep, lease, build_log)
    return AsyncSession(store, SessionCore(store, workflow_id, apply, initial, options))
