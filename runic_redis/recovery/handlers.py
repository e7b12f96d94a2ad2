"""Handlers: functions that `work` calls with the session of a workflow."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, Generic

from runic_redis.errors import InvalidType, short_repr
from runic_redis.recovery.policies import SnapshotPolicy
from runic_redis.recovery.session_core import SessionCore
from runic_redis.recovery.session_options import SessionOptions, State


def _with(past: list[Any], event: Any) -> list[Any]:
    return [*past, event]


@dataclass(frozen=True, eq=False)
class Handler(Generic[State]):
    """A function that `work` calls with the session of a workflow, and how to make that session.

    The decorator `handler` makes it. You can call it like the function, with a session that you have made.
    """

    function: Callable[[Any], Any]
    apply: Callable[[State, Any], State]
    initial: State | Callable[[], State]
    snapshots: SnapshotPolicy | None = None
    dumps: Callable[[State], bytes] | None = None
    loads: Callable[[bytes], State] | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InvalidType(f"A handler is a function of a session, not {short_repr(self.function)}.")

    def __call__(self, session: Any) -> Any:
        """Call the function."""
        return self.function(session)

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function, for `async_work`."""
        return iscoroutinefunction(self.function)

    def session_core(self, store: Any, lease: Any) -> SessionCore[State]:
        """Return the logic of a session for the workflow of a lease."""
        options = SessionOptions(
            "cycle", self.snapshots, self.dumps, self.loads, self.keep, lease, unless_cancelled=True
        )
        return SessionCore(store, lease.workflow_id, self.apply, self.initial, options)


def handler(
    *,
    apply: Callable[[State, Any], State],
    initial: State | Callable[[], State],
    snapshots: SnapshotPolicy | None = None,
    dumps: Callable[[State], bytes] | None = None,
    loads: Callable[[bytes], State] | None = None,
    keep: int | None = None,
) -> Callable[[Callable[[Any], Any]], Handler[State]]:
    """Return a decorator that makes a function of a session a handler for `work` or `async_work`.

    The parameters are those of `session`. Each `record` persists its events.
    """

    def make(function: Callable[[Any], Any]) -> Handler[State]:
        return Handler(function, apply, initial, snapshots, dumps, loads, keep)

    return make


def handler_of(function: Any) -> Handler[Any]:
    """Return a function as a handler. Of a plain function, the state is the list of the workflow's events."""
    return function if isinstance(function, Handler) else Handler(function, _with, list)
