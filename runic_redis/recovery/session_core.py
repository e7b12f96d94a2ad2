"""The logic of a session on any store: recover the state, record events, persist them with snapshots."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from inspect import iscoroutinefunction
from typing import Any, Generic

from runic_redis.arguments import check_count, check_data, check_due, check_timer
from runic_redis.codec import MAX_COMMIT_BYTES, Codec
from runic_redis.contract import capabilities
from runic_redis.errors import (
    CursorConflict,
    DecodeError,
    EncodeError,
    EventsTrimmed,
    FactNotFound,
    IncompatibleEvent,
    InvalidArgument,
    InvalidType,
    LeaseLost,
    MessageGone,
    SnapshotNotFound,
    SnapshotNotSaved,
    StoreError,
    WorkflowCancelled,
    WorkflowNotFound,
    WriteRefused,
    reason,
)
from runic_redis.events import default_registry
from runic_redis.recovery.policies import EveryBytes, Since, check_policy
from runic_redis.recovery.session_options import (
    Asleep,
    Problem,
    Recovery,
    SessionOptions,
    State,
    check_build_log,
    cycles_per_checkpoint,
    failure_of,
    require,
    with_refs,
)
from runic_redis.recovery.steps import Steps, StoreCall
from runic_redis.recovery.waking import cancel_request, cancelled_error, checked_messages, is_request, sleeps_on

_log = logging.getLogger("runic_redis.recovery")
# The time to read one event, until a recovery of at least `_MEASURED_FROM` events has measured it.
_READ_S = 0.00001
_MEASURED_FROM = 100
# The remedy for a state that cannot be saved.
_REMEDY = "Pass a dumps and a loads that fit the state, or go on without snapshots."


class SessionCore(Generic[State]):
    """The logic of a session on any store; the parameters are those of `session`."""

    def __init__(
        self,
        store: Any,
        workflow_id: str,
        apply: Callable[[State, Any], State],
        initial: State | Callable[[], State],
        options: SessionOptions[State],
    ) -> None:
        if (options.dumps is None) != (options.loads is None):
            raise InvalidArgument("dumps and loads go together: pass both, or neither for MessagePack.")
        for name, function in (("apply", apply), ("initial", initial)):
            if iscoroutinefunction(function):
                raise InvalidType(
                    f"{name} is a coroutine function. A session does not await it, so the state would be a coroutine. "
                    "Nothing was recovered. Pass a plain function, which returns the state."
                )
        self.workflow_id = workflow_id
        self._apply = apply
        self._can = capabilities(store)
        self._every = cycles_per_checkpoint(options.checkpoint)
        self._policy = check_policy(options.snapshots, "snapshots")
        self._by_bytes = isinstance(options.snapshots, EveryBytes)
        # A store that cannot encode ahead of an append gets the events themselves.
        self._encode = store.encode_events if self._can.encoding else None
        self._codec = store if self._can.encoding else Codec(default_registry, "raise")
        self._dumps = options.dumps or self._codec.encode_state
        self._loads = options.loads or self._codec.decode_state
        self._saves_snapshots = self._can.snapshots and self._can.cursors and options.snapshots is not None
        self._keep = None if options.keep is None else check_count(options.keep, "keep")
        if options.lease is not None and not self._can.cursors:
            raise InvalidArgument("lease cannot be used: the store has no leases. Nothing was recovered. Omit lease.")
        self.lease = options.lease
        self._by_lease = {} if options.lease is None else {"lease": options.lease}
        self._hides_requests = self._unless_cancelled = options.unless_cancelled
        # Of the next commit: the messages that it consumes, and whether it ends the timer, since `sleep` has returned.
        self._consumes, self._ends_timer = list[Any](), False
        self.is_asleep = self.has_persisted = False
        # The error that has shown that other writers have changed the workflow.
        self.overtaken: StoreError | None = None
        self.state: State = initial() if callable(initial) else initial
        self.cursor = 0
        self.recovery: Recovery | None = None
        self.pending: list[Any] = []
        # The encoded size of the pending events, and their encoding if they were recorded in one call.
        self._pending_bytes = 0
        self._encoded: Any = None
        self._build_log = check_build_log(options.build_log)
        # Whether to verify the state after the next events: a new workflow's initial state often has another type.
        self._checks_next_state = False
        self._log: list[Any] = []
        self._cycles = 0
        self._since = Since()
        # The time to recover one event, measured on entry; None to estimate it from the time of applying recorded
        # events.
        self._each_s: float | None = None
        self._applied = 0
        self._applying_s = 0.0
        self._entered = self.over = False
        self._problem: str | None = Problem.NOT_ENTERED

    def recover(self) -> Steps[None]:
        """Recover the state and the cursor of the workflow."""
        if self._entered:
            raise StoreError(
                f"The session of the workflow {self.workflow_id!r} has been entered before, and its state may be "
                "outdated. Nothing was recovered. Make another session, and enter that."
            )
        self._entered = True
        began_s = time.perf_counter()
        snapshot_cursor, problem = yield from self._load_snapshot()
        try:
            if self._can.cursors:
                yield StoreCall("stream_records", (self.workflow_id,), {"after": self.cursor}, self._replay_record)
            elif self._can.stream:
                yield StoreCall("stream", (self.workflow_id,), take=self._replay_event)
            else:
                with suppress(LookupError):  # a store with `save` and `load` only need not raise `WorkflowNotFound`
                    self._log = list((yield StoreCall("load", (self.workflow_id,))))
                for event in self._log:
                    self._replay_event(event)
        except WorkflowNotFound:
            pass  # the workflow is new
        except EventsTrimmed as error:
            if problem is None:
                raise
            raise DecodeError(
                f"The snapshot of the workflow {self.workflow_id!r} cannot be read ({problem}), and the events that "
                f"it covers have been trimmed: the first stored event is {error.first}. Nothing was changed. Read it "
                "with the loads that fits its dumps."
            ) from error
        seconds = time.perf_counter() - began_s
        replayed = self._since.events = self.cursor - (snapshot_cursor or 0)
        if replayed >= _MEASURED_FROM:
            self._each_s = seconds / replayed
        # A state that was just decoded can be encoded.
        if self._saves_snapshots and (snapshot_cursor is None or replayed):
            self._require_saveable(self.state)
        self._checks_next_state = self._saves_snapshots and self.cursor == 0
        self.recovery = Recovery(self.cursor, snapshot_cursor, replayed, seconds, problem)
        self._problem = None
        if self.cursor == 0 and self._build_log:
            self._accept(self._build_log)
            yield from self.checkpoint()

    def _load_snapshot(self) -> Steps[tuple[int | None, str | None]]:
        """Load the snapshot's state, if it can be read, and return its cursor and why it cannot be read."""
        if not (self._can.snapshots and self._can.cursors):
            return None, None  # without cursors, the events after a snapshot are not known
        try:
            cursor, data = yield StoreCall("load_snapshot", (self.workflow_id,))
            self.state = self._loads(data)
        except SnapshotNotFound:
            return None, None
        except Exception as error:  # loads may raise anything for a state that another dumps wrote
            if isinstance(error, StoreError) and not isinstance(error, DecodeError | IncompatibleEvent):
                raise
            problem = f"{type(error).__name__}: {reason(error)}"
            _log.warning("The snapshot of the workflow %r cannot be read (%s): replaying.", self.workflow_id, problem)
            return None, problem
        self.cursor = cursor
        return cursor, None

    def _replay_record(self, record: Any) -> None:
        self._replay_event(record.event)
        self.cursor = record.cursor

    def _replay_event(self, event: Any) -> None:
        self.state = self._apply(self.state, event)
        self.cursor += 1
        if self._by_bytes:
            self._since.event_bytes += self._size([event])

    def record(self, events: Sequence[Any], consumes: Any = None) -> Steps[None]:
        """Apply events, and persist them if a checkpoint is due."""
        self._require_usable()
        messages: list[Any] = []
        if consumes is not None:
            require(can=self._can.messages, what="consumes", it_has="inboxes")
            messages = checked_messages(consumes, self.workflow_id, events)
        before = self.state, len(self.pending), self._pending_bytes, len(self._consumes), replace(self._since)
        self._accept(events)
        self._consumes += messages
        self._cycles += 1
        if self._every and self._cycles % self._every == 0:
            try:
                yield from self.checkpoint()
            except WorkflowCancelled:
                # Nothing was stored, and the session can go on.
                self.state, pending, self._pending_bytes, consumed, self._since = before
                del self.pending[pending:], self._consumes[consumed:]
                self._encoded = None
                raise

    def _accept(self, events: Sequence[Any]) -> None:
        """Apply events and add them to the pending events. If an event is rejected, nothing changes."""
        if not events:
            return
        encoded = self._encode(events) if self._encode is not None else None
        event_bytes = encoded.encoded_bytes if encoded is not None else 0
        if self._pending_bytes + event_bytes > MAX_COMMIT_BYTES:
            raise EncodeError(
                f"These events and the pending events take {self._pending_bytes + event_bytes} bytes encoded; a "
                f"commit takes at most {MAX_COMMIT_BYTES}. These events were not recorded, and the pending events "
                "stay pending. Call checkpoint, then record these events again.",
                path="events",
            )
        stored_bytes = 0
        if self._by_bytes:
            stored_bytes = encoded.stored_bytes if encoded is not None else self._size(events)
        state = self.state
        began_s = time.perf_counter()
        self._problem = Problem.APPLYING
        try:
            for event in events:
                state = self._apply(state, event)
        finally:
            self._problem = None
        self._applying_s += time.perf_counter() - began_s
        self._applied += len(events)
        if self._checks_next_state:
            self._require_saveable(state)
            self._checks_next_state = False
        self._problem = Problem.INTERRUPTED
        self.state = state
        self._encoded = None if self.pending else encoded
        self.pending.extend(events)
        self._pending_bytes += event_bytes
        self._since.events += len(events)
        self._since.event_bytes += stored_bytes
        self._problem = None

    def _size(self, events: Sequence[Any]) -> int:
        size: int = self._codec.encode_events(events).stored_bytes
        return size

    def checkpoint(self) -> Steps[None]:
        """Persist the pending events."""
        self._require_usable()
        if not self.pending:
            return
        events = list(self.pending) if self._encoded is None else self._encoded
        snapshot, failure = self._snapshot_due()
        self._problem = Problem.NOT_PERSISTED
        try:
            if self._can.cursors:
                failure = (yield from self._append_at_cursor(events, snapshot)) or failure
            elif self._can.stream:
                yield StoreCall("append", (self.workflow_id, events))
                self.cursor += len(events)
            else:
                yield StoreCall("save", (self.workflow_id, [*self._log, *events]))
                self._log += events
                self.cursor += len(events)
        except EncodeError:  # an event changed after it was recorded; nothing was sent
            self._problem = None
            raise
        except WorkflowCancelled:
            self._problem = None
            yield from self.inbox(0.0)  # raises the error with the message
            raise
        except (CursorConflict, LeaseLost, MessageGone) as error:
            self.overtaken = error
            raise
        self.has_persisted = True
        self.pending.clear()
        self._consumes.clear()
        self._ends_timer = False
        self._pending_bytes = 0
        self._encoded = None
        self._problem = None
        if failure is not None:
            raise SnapshotNotSaved(
                f"The events of the workflow {self.workflow_id!r} are stored up to cursor {self.cursor}, but the "
                f"snapshot that was due is not saved: {failure_of(failure)}. Do not record the events again. The "
                "session retries the snapshot at its next checkpoint. " + _REMEDY,
                cursor=self.cursor,
            ) from failure
        if snapshot is not None:
            self._since = Since()
            if self._keep is not None:
                yield StoreCall("trim", (self.workflow_id,), {"keep": self._keep, **self._by_lease})

    def _append_at_cursor(self, events: Sequence[Any], snapshot: bytes | None) -> Steps[StoreError | None]:
        """Append events at the known cursor, with the snapshot unless the server rejects it. Return that rejection."""
        rejection: StoreError | None = None
        while True:
            options = {"expected_cursor": self.cursor, **self._by_lease, **self._life()}
            with_snapshot = {} if snapshot is None or rejection is not None else {"snapshot": snapshot}
            try:
                self.cursor = yield StoreCall("append", (self.workflow_id, events), {**options, **with_snapshot})
            except (WriteRefused, FactNotFound) as error:  # too large; or the state refers to a fact that is gone
                if not with_snapshot or (isinstance(error, WriteRefused) and error.code != "TOO_LARGE"):
                    raise
                rejection = error
            except CursorConflict as error:
                if not (yield from self._has_nothing_new(error.actual)):
                    raise
                self.cursor = error.actual
            else:
                return rejection

    def _life(self) -> dict[str, Any]:
        """Return the arguments of an append that are about messages and the timer."""
        life: dict[str, Any] = {"consumes": list(self._consumes)} if self._consumes else {}
        if self._ends_timer:
            life["ends_timer"] = True
        if self._unless_cancelled:
            life["unless_cancelled"] = True
        return life

    def _has_nothing_new(self, cursor: int) -> Steps[bool]:
        """Return whether upcasters read all events from here to a cursor as no events."""
        if cursor <= self.cursor:
            return False
        found: list[Any] = []
        try:
            yield StoreCall(
                "stream_records", (self.workflow_id,), {"after": self.cursor, "until": cursor}, found.append
            )
        except (WorkflowNotFound, EventsTrimmed):
            return False
        return not found

    def _snapshot_due(self) -> tuple[bytes | None, Exception | None]:
        """Return the state as bytes if a snapshot is due, or the error that prevents it; events are stored anyway."""
        if not self._saves_snapshots or self._policy is None:
            return None, None
        each_s = self._each_s if self._each_s is not None else _READ_S + self._applying_s / max(1, self._applied)
        self._since.recovery_s = self._since.events * each_s
        try:
            due = self._policy.due(self._since)
            return (with_refs(check_data(self._dumps(self.state)), self.state, self._codec) if due else None), None
        except Exception as error:  # dumps or a policy may raise anything
            return None, error

    def _require_saveable(self, state: State) -> None:
        """Reject a state that cannot be saved, before any event is recorded."""
        try:
            check_data(self._dumps(state))
        except Exception as error:  # dumps may raise anything
            raise EncodeError(
                f"The state of the workflow {self.workflow_id!r} cannot be saved as a snapshot: "
                f"{failure_of(error)}. Nothing was recorded. " + _REMEDY,
                path=getattr(error, "path", "state"),
            ) from error

    def complete(self) -> Steps[None]:
        """Persist the pending events, and mark the workflow as finished."""
        failure = None
        try:
            yield from self.checkpoint()
        except SnapshotNotSaved as error:  # the events are stored, and a finished workflow hardly needs a snapshot
            failure = error
        if self._can.cursors:
            yield StoreCall("complete", (self.workflow_id,), self._by_lease)
        if failure is not None:
            raise failure

    def inbox(self, wait_s: float) -> Steps[list[Any]]:
        """Return the messages that no record of this session consumes."""
        self._require_usable()
        require(can=self._can.messages, what="inbox", it_has="inboxes")
        messages: list[Any] = []
        with suppress(WorkflowNotFound):  # the workflow is new
            messages = yield StoreCall("inbox", (self.workflow_id,), {"wait_s": wait_s})
        if self._hides_requests:
            request = cancel_request(messages)
            if request is not None and self._unless_cancelled:
                self._unless_cancelled = False
                raise cancelled_error(self.workflow_id, request)
            messages = [one for one in messages if not is_request(one)]
        return [one for one in messages if one not in self._consumes]

    def sleep(self, until: float | datetime | None, name: str) -> Steps[None]:
        """Persist the pending events, and release the workflow until a time, unless it has slept until then."""
        self._require_usable()
        require(can=self._can.timers, what="sleep", it_has="timers")
        check_timer(name)
        if check_due(until, "until") == "inf":
            until = None
        if self.lease is None:
            raise InvalidArgument("Only a session with a lease can sleep. Nothing was recorded. Pass lease.")
        if self._ends_timer:
            raise StoreError(f"The session of the workflow {self.workflow_id!r} {Problem.SLEPT}")
        yield from self.checkpoint()
        if until is None or self._unless_cancelled:
            messages = yield from self.inbox(0.0)
            if until is None and messages:
                return
        timer: Any = None if until is None else (yield StoreCall("timer", (self.workflow_id,)))
        if sleeps_on(timer, until, name):
            if timer.left_s <= 0:
                self._ends_timer = True
                return
            until = timer.until
        yield StoreCall("sleep", (self.lease, until, name))
        self.over = self.is_asleep = True
        raise Asleep(f"The workflow {self.workflow_id!r} sleeps.")

    def leave(self) -> Steps[None]:
        """Persist the pending events, unless checkpoints are manual."""
        try:
            if self._problem is None and self._every is not None:
                yield from self.checkpoint()
        finally:
            self.over = True

    def _require_usable(self) -> None:
        problem = Problem.OVER if self.over else self._problem
        if problem is not None:
            raise StoreError(f"The session of the workflow {self.workflow_id!r} {problem}")
