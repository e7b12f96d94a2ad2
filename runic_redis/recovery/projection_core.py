"""The logic of a projection: fold the commits of the feed into a state, and save it with its positions."""

import copy
import os
import platform
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from inspect import iscoroutinefunction
from time import monotonic, perf_counter
from typing import Any, Generic, TypeVar

from runic_redis.arguments import check_name, check_seconds, check_version
from runic_redis.errors import (
    CommitsLost,
    EventsTrimmed,
    FeedTrimmed,
    InvalidType,
    LeaseHeld,
    LeaseLost,
    StoreError,
    reason,
)
from runic_redis.operations.commits import Commit
from runic_redis.operations.feed import FeedReader
from runic_redis.operations.feed_starts import Start, find_places
from runic_redis.operations.projections import (
    Runner,
    Saved,
    acquire_projection,
    reload_projection,
    save_projection,
)
from runic_redis.operations.subscriptions import make_settings
from runic_redis.positions import Positions
from runic_redis.protocol.effects import Operation
from runic_redis.protocol.following import Stop
from runic_redis.recovery.policies import EveryBytes, Since, SnapshotPolicy, check_policy
from runic_redis.recovery.steps import Pause, Steps, StoreCall

State = TypeVar("State")
T = TypeVar("T")
# How long `run` waits for a commit before it saves what is not saved, and how long it waits after that.
_IDLE_S = 0.2
_WAIT_S = 1.0
# How often another runner's lease is asked for.
_POLL_S = 0.5
# The time to read one event, for the estimate of a recovery.
_READ_S = 0.00001
# Why a projection rejects a call, and what to do.
_NOT_ENTERED = "has not been entered. Enter it first, with 'with' or 'async with'."
_APPLYING = "was stopped by an error within apply, so its state may be half changed."
_LOST = "has lost its lease, so its state may be outdated."
_ENTER_AGAIN = " Nothing was saved. Leave it and enter it again, which loads the saved state."


@dataclass(frozen=True, slots=True)
class ProjectionOptions:
    """The keyword arguments of `projection`."""

    version: int
    prefix: str
    types: Collection[str | type] | None
    policy: SnapshotPolicy | None
    ttl: float
    wait_s: float | None


class ProjectionCore(Generic[State]):
    """The logic of a projection on both kinds of store; the parameters are those of `projection`.

    Attributes:
        state: the state after the last folded commit.
        owner: names this runner in its lease.
    """

    def __init__(
        self,
        store: Any,
        name: str,
        apply: Callable[[State, Commit], State],
        initial: State | Callable[[], State],
        options: ProjectionOptions,
    ) -> None:
        for what, function in (("apply", apply), ("initial", initial)):
            if iscoroutinefunction(function):
                raise InvalidType(
                    f"{what} is a coroutine function. A projection does not await it, so the state would be a "
                    "coroutine. Nothing was sent. Pass a plain function, which returns the state."
                )
        self.name = check_name(name, "The name of a projection")
        self.version = check_version(options.version)
        self.ttl = check_seconds(options.ttl, "ttl")
        self.owner = f"{platform.node()}:{os.getpid()}:{os.urandom(4).hex()}"
        self._store = store
        self._apply = apply
        self._initial = initial
        self._prefix = options.prefix
        self._types = options.types
        self._policy = check_policy(options.policy, "policy")
        self._by_bytes = isinstance(options.policy, EveryBytes)
        self._wait_s = None if options.wait_s is None else check_seconds(options.wait_s, "wait_s")
        self._runner = Runner(self.name, self.version, 0)
        self._problem: str | None = _NOT_ENTERED
        self._stop = Stop()
        self._forget()

    def _forget(self) -> None:
        """Begin with the initial state, before the first commit."""
        # A copy, because apply may change a state in place.
        self.state: State = self._initial() if callable(self._initial) else copy.deepcopy(self._initial)
        # The positions at the last page, and the last commit folded since.
        self._positions: Positions | None = None
        self._last: Commit | None = None
        self._saved = Saved(0, None, b"")
        self._is_changed = True
        # Whether a save has said that this version has caught up.
        self._is_done = False
        self._since = Since()
        # The number of the save after which commits were lost, and the saved state was loaded again.
        self._reloaded_at: int | None = None

    @property
    def positions(self) -> Positions:
        """The positions after the last folded commit."""
        if self._last is not None:
            return self._last.positions
        return self._positions or Positions.start(self._store.context.keys.partitions)

    def acquire(self) -> Steps[Runner]:
        """Acquire the lease, when no other runner has it, and load what is saved."""
        until_s = None if self._wait_s is None else monotonic() + self._wait_s
        context, ttl_ms = self._store.context, max(1, round(self.ttl * 1000))
        settings = make_settings(context, "projection", "beginning", self._prefix, self._types)
        while True:
            try:
                self._runner, saved = yield self._call(
                    acquire_projection(context, self.name, self.version, settings, self.owner, ttl_ms)
                )
                break
            except LeaseHeld as error:
                left_s = None if until_s is None else until_s - monotonic()
                if left_s is not None and left_s <= 0:
                    raise
                yield Pause(min(error.left_s, _POLL_S, _POLL_S if left_s is None else left_s))
        self._stop = Stop()
        self._load(saved)
        return self._runner

    def _load(self, saved: Saved) -> None:
        self._forget()
        self._saved = saved
        if saved.positions is not None:
            self.state = self._store.decode_state(saved.data)
            self._positions = saved.positions
            self._is_changed = False
        self._problem = None

    def catch_up(self) -> Steps[None]:
        """Fold the commits that are stored now, and save the state."""
        self._require_usable()
        places = yield self._call(find_places(self._store.context, "now"))
        until = Positions(tuple(place for _, place in sorted(places.items())))
        yield from self._follow(until, 0.0)

    def run(self, wait_s: float | None) -> Steps[None]:
        """Fold commits as they come, until none comes for some seconds."""
        yield from self._follow(None, None if wait_s is None else check_seconds(wait_s, "wait_s"))

    def rebuild(self) -> Steps[None]:
        """Begin again with all that the workflows hold now, beside the saved state."""
        self._require_usable()
        reader = self._reader("rebuild", None)
        yield self._call(reader.open())
        saves = self._saved.number
        self._forget()
        self._saved = Saved(saves, None, b"")
        self._positions = reader.positions
        yield from self._save("rebuild")
        yield from self.catch_up()

    def stop(self) -> None:
        """End `run`, from any thread."""
        self._stop.set()

    def leave(self) -> Steps[None]:
        """Save what is not saved."""
        if self._problem is None and self._has_news:
            yield from self._save("")

    def end(self) -> None:
        """Reject further calls."""
        self._problem = self._problem or _NOT_ENTERED

    def _follow(self, until: Positions | None, wait_s: float | None) -> Steps[None]:
        """Follow the feed. After the server lost commits, go on from the saved state, once for each save."""
        self._require_usable()
        while True:
            try:
                yield from self._read(until, wait_s)
                return
            except (CommitsLost, FeedTrimmed, EventsTrimmed) as error:
                if self._problem is not None:  # apply has raised it
                    raise
                if not isinstance(error, CommitsLost) or self._reloaded_at == self._saved.number:
                    raise self._with_remedy(error) from error
                saved = yield from self._under_lease(reload_projection(self._store.context, self._runner))
                self._load(saved)
                self._reloaded_at = saved.number

    def _read(self, until: Positions | None, wait_s: float | None) -> Steps[None]:
        reader = self._reader(self.positions, until)
        try:
            yield self._call(reader.open())
            last_s = monotonic()
            is_behind = True
            while not self._stop.is_set:
                left_s = _WAIT_S if wait_s is None else max(0.0, last_s + wait_s - monotonic())
                pause_s = 0.0 if is_behind else min(left_s, _IDLE_S if self._has_news else _WAIT_S)
                page = yield from self._next_page(reader, pause_s)
                if page is None or not (yield from self._fold(page)):
                    return
                if page:
                    last_s = monotonic()
                self._positions, self._last = reader.positions, None
                if not page:
                    is_behind = False
                    if self._has_news or not self._is_done:
                        yield from self._save("done")
                    if wait_s is not None and monotonic() - last_s >= wait_s:
                        return
        finally:
            reader.close()

    def _reader(self, start: Start, until: Positions | None) -> FeedReader:
        reader = FeedReader(self._store.context, start, until=until, prefix=self._prefix, types=self._types)
        reader.stop = self._stop
        return reader

    def _next_page(self, reader: FeedReader, wait_s: float) -> Steps[Sequence[Commit] | None]:
        """Return the next commits; None if the projection was stopped while it waited for them."""
        try:
            page: Sequence[Commit] = yield self._call(reader.next_page(wait_s), "feed")
        except StoreError:
            if not self._stop.is_set:
                raise
            return None
        return page

    def _fold(self, page: Sequence[Commit]) -> Steps[bool]:
        """Fold commits. Return whether that was not stopped."""
        for commit in page:
            began_s = perf_counter()
            self._problem = _APPLYING + _ENTER_AGAIN
            state = self._apply(self.state, commit)
            if state is None:
                raise InvalidType(
                    f"apply returned None for the commit of the workflow {commit.workflow_id!r} at cursor "
                    f"{commit.cursor}. It returns the state, also if it has changed it in place. Nothing was saved "
                    "since the last save. Correct apply, and enter the projection again."
                )
            self.state, self._last, self._is_changed = state, commit, True
            self._problem = None
            if self._policy is not None and self._is_due(self._policy, commit, perf_counter() - began_s):
                yield from self._save("")
            if self._stop.is_set:
                return False
        return True

    def _is_due(self, policy: SnapshotPolicy, commit: Commit, seconds: float) -> bool:
        self._since.events += len(commit.events)
        self._since.recovery_s += seconds + len(commit.events) * _READ_S
        if self._by_bytes and commit.events:
            self._since.event_bytes += self._store.encode_events(commit.events).stored_bytes
        return policy.due(self._since)

    @property
    def _has_news(self) -> bool:
        """Whether the state or the positions are not as they were saved."""
        return self._is_changed or self.positions != self._saved.positions

    def _save(self, mode: str) -> Steps[None]:
        data = self._store.encode_state(self.state) if self._is_changed else b""
        positions = self.positions
        # Also after an error: then it is not known whether the number is stored.
        self._saved = Saved(self._saved.number + 1, self._saved.positions, b"")
        save = Saved(self._saved.number, positions, data)
        yield from self._under_lease(save_projection(self._store.context, self._runner, save, mode))
        self._saved = Saved(save.number, positions, b"")
        self._is_changed = False
        self._is_done = mode == "done" or (self._is_done and mode != "rebuild")
        self._since = Since()

    def _under_lease(self, operation: Operation[T]) -> Steps[T]:
        try:
            result: T = yield self._call(operation)
        except LeaseLost:
            self._problem = _LOST + _ENTER_AGAIN
            raise
        return result

    def _call(self, operation: Operation[Any], name: str = "projection") -> StoreCall:
        return StoreCall("run", (operation, name))

    def _require_usable(self) -> None:
        if self._problem is not None:
            raise StoreError(f"The projection {self.name!r} {self._problem}")

    def _with_remedy(self, error: CommitsLost | FeedTrimmed | EventsTrimmed) -> StoreError:
        text = (
            f"The projection {self.name!r} cannot go on from its saved state. Call its method rebuild(), which begins "
            f"with start='rebuild' beside the saved state. The reason: {reason(error)}"
        )
        if isinstance(error, FeedTrimmed):
            return FeedTrimmed(text, partition=error.partition, first=error.first)
        if isinstance(error, EventsTrimmed):
            return EventsTrimmed(text, first=error.first)
        return CommitsLost(text, expected=error.expected, actual=error.actual)
