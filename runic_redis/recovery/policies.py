"""Policies that decide when a session saves a snapshot, and a projection its state."""

from dataclasses import dataclass
from typing import Any, Protocol

from runic_redis.errors import InvalidArgument, InvalidType, short_repr


@dataclass(slots=True)
class Since:
    """The events since the last snapshot, or since the workflow began.

    Attributes:
        events: how many events.
        event_bytes: the encoded size of the events in bytes. A session counts it for `EveryBytes` only.
        recovery_s: the seconds to read and apply the events, estimated from the time so far.
    """

    events: int = 0
    event_bytes: int = 0
    recovery_s: float = 0.0


class SnapshotPolicy(Protocol):
    """A policy that a session asks at each checkpoint. A session without a policy saves no snapshots."""

    def due(self, since: Since, /) -> bool:
        """Return whether this checkpoint saves a snapshot."""


def check_policy(policy: Any, name: str) -> SnapshotPolicy | None:
    """Return a policy, or None for none.

    Raises:
        InvalidType: it is neither.
    """
    if policy is None or (callable(getattr(policy, "due", None)) and not isinstance(policy, type)):
        checked: SnapshotPolicy | None = policy
        return checked
    raise InvalidType(
        f"{name} is a policy, such as EveryEvents(1000), or None, not {short_repr(policy)}. Nothing was changed."
    )


def _require_positive(value: float, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InvalidArgument(f"{name} is a number above 0, not {short_repr(value)}.")


@dataclass(frozen=True, slots=True)
class EveryEvents:
    """A snapshot after this many events since the last snapshot."""

    count: int

    def __post_init__(self) -> None:
        _require_positive(self.count, "count")

    def due(self, since: Since, /) -> bool:
        """Return whether there are that many events."""
        return since.events >= self.count


@dataclass(frozen=True, slots=True)
class EveryBytes:
    """A snapshot once the events since the last snapshot take this many bytes, encoded."""

    count: int

    def __post_init__(self) -> None:
        _require_positive(self.count, "count")

    def due(self, since: Since, /) -> bool:
        """Return whether the events take that many bytes."""
        return since.event_bytes >= self.count


@dataclass(frozen=True, slots=True)
class ByRecoveryTime:
    """A snapshot once recovery from the last snapshot would take this many seconds."""

    seconds: float

    def __post_init__(self) -> None:
        _require_positive(self.seconds, "seconds")

    def due(self, since: Since, /) -> bool:
        """Return whether recovery would take that long."""
        return since.recovery_s >= self.seconds
