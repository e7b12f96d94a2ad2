"""When a session saves a snapshot."""

from dataclasses import dataclass
from typing import Protocol

from runic_redis.errors import InvalidArgument, short_repr

__all__ = ["ByRecoveryTime", "EveryBytes", "EveryEvents", "Since", "SnapshotPolicy"]


@dataclass(slots=True)
class Since:
    """What has come since the last snapshot, or since the workflow began.

    Attributes:
        events: how many events.
        event_bytes: how many bytes they take, encoded.
        recovery_s: how many seconds it would take to read and apply them, by what it took so far.
    """

    events: int = 0
    event_bytes: int = 0
    recovery_s: float = 0.0


class SnapshotPolicy(Protocol):
    """Says when a snapshot is due; asked at each checkpoint. Without a policy, none is saved."""

    def due(self, since: Since, /) -> bool:
        """Whether the checkpoint is to save one."""


def _require_positive(value: float, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InvalidArgument(f"{name} is a number above 0, not {short_repr(value)}.")


@dataclass(frozen=True, slots=True)
class EveryEvents:
    """A snapshot once there are so many events since the last one."""

    count: int

    def __post_init__(self) -> None:
        _require_positive(self.count, "count")

    def due(self, since: Since, /) -> bool:
        """Whether there are."""
        return since.events >= self.count


@dataclass(frozen=True, slots=True)
class EveryBytes:
    """A snapshot once the events since the last one take so many bytes, encoded."""

    count: int

    def __post_init__(self) -> None:
        _require_positive(self.count, "count")

    def due(self, since: Since, /) -> bool:
        """Whether they do."""
        return since.event_bytes >= self.count


@dataclass(frozen=True, slots=True)
class ByRecoveryTime:
    """A snapshot once it would take so many seconds to recover from the last one."""

    seconds: float

    def __post_init__(self) -> None:
        _require_positive(self.seconds, "seconds")

    def due(self, since: Since, /) -> bool:
        """Whether it would."""
        return since.recovery_s >= self.seconds
