"""The options of a session, and how its recovery went."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from runic_redis.codec import EncodedState
from runic_redis.errors import EncodeError, InvalidArgument, InvalidType, StoreError, reason, short_repr
from runic_redis.recovery.policies import SnapshotPolicy

State = TypeVar("State")
Checkpoint: TypeAlias = int | Literal["cycle", "completion", "manual"]


@dataclass(frozen=True, slots=True)
class Recovery:
    """The recovery of a session.

    Attributes:
        cursor: the cursor after recovery.
        snapshot_cursor: the cursor of the snapshot that recovery started from; None without a snapshot.
        replayed: the number of events that recovery applied.
        seconds: the duration.
        snapshot_problem: why the stored snapshot could not be read; None if there was no such problem.
    """

    cursor: int
    snapshot_cursor: int | None
    replayed: int
    seconds: float
    snapshot_problem: str | None


class Problem:
    """Why a session rejects a call, and what to do."""

    NOT_ENTERED = "has not been entered. Nothing was recorded. Enter it first, with 'with' or 'async with'."
    APPLYING = "is applying events. Nothing was recorded by this call. Record further events after apply has returned."
    _ENTER_ANOTHER = " Nothing was recorded. To go on, enter another session, which recovers the stored events."
    INTERRUPTED = "was interrupted while it recorded events." + _ENTER_ANOTHER
    NOT_PERSISTED = "could not persist its events, so its state may be outdated." + _ENTER_ANOTHER
    OVER = "is over." + _ENTER_ANOTHER
    SLEPT = (
        "has slept, and recorded nothing since. A worker that repeats it could not tell the two sleeps apart. Nothing "
        "was changed. Record an event in between."
    )


class Asleep(BaseException):
    """The workflow of a session sleeps: `sleep` raises it to leave the block of the session, which catches it.

    It is no `Exception`, so that no handler of errors takes it for one.
    """


class SessionOptions(NamedTuple, Generic[State]):
    """The keyword arguments of `session`; `unless_cancelled` is of `work`: a request to cancel ends the session."""

    checkpoint: Checkpoint
    snapshots: SnapshotPolicy | None
    dumps: Callable[[State], bytes] | None
    loads: Callable[[bytes], State] | None
    keep: int | None
    lease: Any
    build_log: Sequence[Any] = ()
    unless_cancelled: bool = False


def check_build_log(build_log: Any) -> list[Any]:
    """Return the events of a build log."""
    if isinstance(build_log, str | bytes) or hasattr(build_log, "_fields") or not isinstance(build_log, Sequence):
        raise InvalidType(f"build_log is a list of events, not {short_repr(build_log)}. Nothing was recovered.")
    return list(build_log)


def cycles_per_checkpoint(checkpoint: Checkpoint) -> int | None:
    """Return the calls of `record` per checkpoint: 0 for only at the end, None for manual checkpoints."""
    if checkpoint == "cycle":
        return 1
    if checkpoint == "completion":
        return 0
    if checkpoint == "manual":
        return None
    if type(checkpoint) is not int or checkpoint < 1:
        raise InvalidArgument(
            f'checkpoint is "cycle", "completion", "manual" or a number of records, not {short_repr(checkpoint)}.'
        )
    return checkpoint


def failure_of(error: Exception) -> str:
    """Return why a snapshot was not saved, without a full stop."""
    kind = "" if isinstance(error, StoreError) else f"{type(error).__name__}: "
    return kind + reason(error).rstrip(".").removesuffix("; nothing was sent")


def require(*, can: bool, what: str, it_has: str) -> None:
    """Reject an argument or a call that the store is not capable of."""
    if not can:
        raise InvalidArgument(f"{what} cannot be used: the store has no {it_has}. Nothing was recorded.")


def with_refs(data: bytes, state: Any, codec: Any) -> bytes:
    """Return the data of a snapshot with the facts to which its state refers, if a codec can find them."""
    if isinstance(data, EncodedState):
        return data
    try:
        refs = getattr(codec.encode_state(state), "refs", None)
    except EncodeError:
        return data  # the store searches the data for the facts' hashes
    return data if refs is None else EncodedState(data, refs)
