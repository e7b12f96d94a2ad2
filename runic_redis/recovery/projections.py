"""Projections: a state that is folded from the feed, and saved together with its positions.

`ProjectionCore` has the logic; `Projection` and `AsyncProjection` run it on their kinds of store.
"""

import asyncio
from collections.abc import Callable, Collection
from threading import RLock
from typing import Any, Generic, Self

from runic_redis.errors import InvalidType
from runic_redis.heartbeat import AsyncHeldLease, HeldLease
from runic_redis.operations.commits import Commit
from runic_redis.operations.leasing import Lease
from runic_redis.operations.projections import Runner, release_projection, renew_projection
from runic_redis.positions import Positions
from runic_redis.recovery.policies import EveryEvents, SnapshotPolicy
from runic_redis.recovery.projection_core import ProjectionCore, ProjectionOptions, State
from runic_redis.recovery.steps import Steps, run_steps, run_steps_async

_EVERY_1000 = EveryEvents(1000)


def _check_store(store: Any, *, asynchronous: bool) -> None:
    if not hasattr(store, "context"):
        raise InvalidType(
            f"The {type(store).__name__} has no feed. Nothing was sent. Use a RedisStore or an AsyncRedisStore."
        )
    if hasattr(type(store), "__aenter__") is not asynchronous:
        kind, function = ("not for asyncio", "projection") if asynchronous else ("for asyncio", "async_projection")
        raise InvalidType(f"The {type(store).__name__} is {kind}: use {function} with it. Nothing was sent.")


class _RunnerLeases:
    """Renews and releases the lease of a runner, for a heartbeat."""

    def __init__(self, store: Any, version: int) -> None:
        self._store = store
        self._version = version

    def _run(self, operation: Callable[[Any, Runner], Any], lease: Lease) -> Any:
        runner = Runner(lease.workflow_id, self._version, lease.token)
        return self._store.run(operation(self._store.context, runner), "projection")

    def renew(self, lease: Lease) -> Any:
        return self._run(renew_projection, lease)

    def release(self, lease: Lease) -> Any:
        return self._run(release_projection, lease)


class _Face(Generic[State]):
    """The attributes of both kinds of projection."""

    def __init__(self, store: Any, core: ProjectionCore[State]) -> None:
        self._store = store
        self._core = core
        self._leases = _RunnerLeases(store, core.version)

    @property
    def state(self) -> State:
        """The state after the last folded commit."""
        return self._core.state

    @property
    def positions(self) -> Positions:
        """The positions in the feed after the last folded commit."""
        return self._core.positions

    def stop(self) -> None:
        """End `run` after the commit that it folds, from any thread.

        Leaving the projection saves the state. Each later `run` and `catch_up` ends at once, until the projection is
        entered again.
        """
        self._core.stop()


class Projection(_Face[State]):
    """A state that is folded from the feed, on a store for threads; made by `projection`.

    It is a context manager. Entry waits until no other process runs the same version, and loads the saved state. A
    heartbeat then renews the lease. A normal exit saves the state; an exit with an exception does not. Both release the
    lease. A projection can be entered again, which loads the saved state again.

    The state and its positions are saved in one step, so each event is in a saved state once, whatever process dies.
    Threads may share a projection; it runs one call at a time.
    """

    def __init__(self, store: Any, core: ProjectionCore[State]) -> None:
        super().__init__(store, core)
        self._turn = RLock()  # reentrant, so that an apply that calls the projection gets an error and no deadlock
        self._held: HeldLease | None = None

    def _run(self, steps: Steps[None]) -> None:
        with self._turn:
            run_steps(steps, self._store)

    def __enter__(self) -> Self:
        core = self._core
        with self._turn:
            runner = run_steps(core.acquire(), self._store)
            self._held = HeldLease(core.name, core.owner, runner.token, core.ttl, _store=self._leases)
            self._held.__enter__()
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        held, self._held = self._held, None
        try:
            if kind is None:
                self._run(self._core.leave())
        except BaseException as error:
            kind = type(error)
            raise
        finally:
            self._core.end()
            if held is not None:
                held.__exit__(kind)

    def catch_up(self) -> None:
        """Fold the commits that are stored when the call begins, and save the state.

        Raises:
            FeedTrimmed: commits that are not folded were trimmed from the feed. The saved state stays; call `rebuild`.
            EventsTrimmed: events that are not folded were trimmed. The saved state stays; call `rebuild`.
            CommitsLost: the server lost commits that the saved state has. The saved state stays; call `rebuild`.
            LeaseLost: another process runs the projection now. Nothing was saved. Enter the projection again.
            EncodeError: the state cannot be stored. Nothing was saved since the last save.
        """
        self._run(self._core.catch_up())

    def run(self, wait_s: float | None = None) -> None:
        """Fold commits as they come, until none comes for `wait_s` seconds; None for no limit.

        The state is saved when the policy says so, when all stored commits are folded, and when no commit came for 0.2
        seconds. After a failover that lost commits, it continues from the saved state. After any error but `LeaseLost`
        and one from `apply`, call it again to go on.

        Raises as `catch_up` does.
        """
        self._run(self._core.run(wait_s))

    def rebuild(self) -> None:
        """Compute the state again from everything that the workflows hold now, then fold the feed from there.

        It works although the feed was trimmed. Commits come in order within a workflow, and in no order between
        workflows. The saved state stays until the new one has caught up; a rebuild that ends early goes on with the
        next call or entry.

        Raises as `catch_up` does.
        """
        self._run(self._core.rebuild())


class AsyncProjection(_Face[State]):
    """A state that is folded from the feed, on a store for asyncio; made by `async_projection`.

    It is an async context manager. Its methods are those of `Projection`, and cancelling a task ends its `run`. Tasks
    may share a projection; it runs one call at a time.
    """

    def __init__(self, store: Any, core: ProjectionCore[State]) -> None:
        super().__init__(store, core)
        self._turn = asyncio.Lock()
        self._held: AsyncHeldLease | None = None

    async def _run(self, steps: Steps[None]) -> None:
        async with self._turn:
            await run_steps_async(steps, self._store)

    async def __aenter__(self) -> Self:
        core = self._core
        async with self._turn:
            runner = await run_steps_async(core.acquire(), self._store)
            self._held = AsyncHeldLease(core.name, core.owner, runner.token, core.ttl, _store=self._leases)
            await self._held.__aenter__()
        return self

    async def __aexit__(self, kind: Any, *_: object) -> None:
        held, self._held = self._held, None
        try:
            if kind is None:
                await self._run(self._core.leave())
        except BaseException as error:
            kind = type(error)
            raise
        finally:
            self._core.end()
            if held is not None:
                await held.__aexit__(kind)

    async def catch_up(self) -> None:
        """Fold the commits that are stored when the call begins, and save the state.

        See `Projection.catch_up`.
        """
        await self._run(self._core.catch_up())

    async def run(self, wait_s: float | None = None) -> None:
        """Fold commits as they come, until none comes for `wait_s` seconds; None for no limit.

        See `Projection.run`.
        """
        await self._run(self._core.run(wait_s))

    async def rebuild(self) -> None:
        """Compute the state again from everything that the workflows hold now, then fold the feed from there.

        See `Projection.rebuild`.
        """
        await self._run(self._core.rebuild())


def projection(
    store: Any,
    name: str,
    apply: Callable[[State, Commit], State],
    initial: State | Callable[[], State],
    *,
    version: int = 1,
    prefix: str = "",
    types: Collection[str | type] | None = None,
    policy: SnapshotPolicy | None = _EVERY_1000,
    ttl: float = 30.0,
    wait_s: float | None = None,
) -> Projection[State]:
    """Return a projection: a state that is folded from the feed, and saved in the store with its positions.

    Enter it with ``with``, then call `Projection.catch_up` or `Projection.run`. `RedisStore.load_projection` reads the
    saved state in any process.

    Args:
        store: a store whose namespace has a feed.
        name: the name of the projection: 1 to 100 ASCII letters, digits and any of ``_ . @ / + -``.
        apply: returns the state after a commit, from the state before it. It may change the state in place and return
            it. It has no other effects, because a commit is folded again if a process ends before it saves the state.
        initial: the state before the first commit, or a function that makes it. A state is any value that an event may
            hold.
        version: the version of apply, from 1 up. Raise it when apply, initial, prefix or types change: the new version
            is built beside the old one from the beginning of the feed, and takes its place once it has caught up. Until
            then, programs of the old version go on.
        prefix: fold only commits of workflows whose ids start with this.
        types: fold only commits with an event of one of these types: classes, or names of types. None for all, and
            for commits without events, such as deletions.
        policy: when to save the state while there are more commits to fold: after so many events, bytes or seconds.
            None to save only when all are folded.
        ttl: how many seconds after the death of a process another one may take over.
        wait_s: how many seconds entry waits for another process that runs the projection; None for no limit.

    Returns:
        The projection. Entering it raises these errors.

    Raises:
        InvalidArgument: an argument cannot be used; or, on entry, a newer version has taken over. Nothing was changed.
        ConfigurationError: on entry, the namespace has no feed.
        LeaseHeld: on entry, another process runs this version, and still did after `wait_s` seconds.
        UnknownEventType: on entry, the saved state holds an object of a type that is not registered.
    """
    _check_store(store, asynchronous=False)
    options = ProjectionOptions(version, prefix, types, policy, ttl, wait_s)
    return Projection(store, ProjectionCore(store, name, apply, initial, options))


def async_projection(
    store: Any,
    name: str,
    apply: Callable[[State, Commit], State],
    initial: State | Callable[[], State],
    *,
    version: int = 1,
    prefix: str = "",
    types: Collection[str | type] | None = None,
    policy: SnapshotPolicy | None = _EVERY_1000,
    ttl: float = 30.0,
    wait_s: float | None = None,
) -> AsyncProjection[State]:
    """Return a projection on a store for asyncio; the parameters are those of `projection`."""
    _check_store(store, asynchronous=True)
    options = ProjectionOptions(version, prefix, types, policy, ttl, wait_s)
    return AsyncProjection(store, ProjectionCore(store, name, apply, initial, options))
