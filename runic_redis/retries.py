"""How failures are retried, and what happens to a commit of a subscription whose handler fails."""

import logging
import random
from typing import Literal, TypeAlias

from runic_redis.arguments import check_count, check_seconds
from runic_redis.errors import InvalidArgument, reason, short_repr
from runic_redis.operations.commits import Commit

_log = logging.getLogger("runic_redis")
# The longest pause between attempts.
_LONGEST_S = 60.0
# What happens after the last attempt.
OnFailure: TypeAlias = Literal["stop", "park"]


class Retries:
    """What happens to a commit whose handler fails.

    Args:
        attempts: how often it is tried; None for no limit.
        on_failure: what happens then.
        first_delay: how many seconds to wait after the first failure.
    """

    def __init__(self, attempts: int | None, on_failure: OnFailure, first_delay: float) -> None:
        if attempts is not None and not check_count(attempts, "attempts"):
            raise InvalidArgument("attempts is 0, so no commit would be handled; nothing was sent.")
        if on_failure not in ("stop", "park"):
            raise InvalidArgument(f'on_failure is "stop" or "park", not {short_repr(on_failure)}; nothing was sent.')
        if attempts is None and on_failure == "park":
            raise InvalidArgument(
                'on_failure="park" takes a number of attempts, after which to park; nothing was sent.'
            )
        self._attempts = attempts
        self._parks = on_failure == "park"
        self._first_delay = check_seconds(first_delay, "first_delay")

    def parks(self, count: int) -> bool:
        """Return whether a commit that has failed so often is parked."""
        return self._parks and self._attempts is not None and count >= self._attempts

    def stops(self, count: int) -> bool:
        """Return whether the failure of a commit that has failed so often is raised."""
        return not self._parks and self._attempts is not None and count >= self._attempts

    def delay_s(self, count: int) -> float:
        """Return how long to wait after so many failures: it doubles with each, up to a limit, and has jitter."""
        return retry_pause_s(count, self._first_delay, _LONGEST_S)


def retry_pause_s(count: int, first_s: float, longest_s: float) -> float:
    """Return how long to wait after so many failures: it doubles with each, up to a limit, and has jitter."""
    return min(longest_s, first_s * 2.0 ** min(count - 1, 60)) * random.uniform(0.5, 1)


def failure_text(error: Exception) -> str:
    """Return why a handler failed, as it is stored."""
    return f"{type(error).__name__}: {reason(error)}"


def death_text(count: int) -> str:
    """Return why a commit is parked whose handlers have ended without an exception."""
    return f"Consumers died {count} times before they acknowledged it."


def log_failure(name: str, commit: Commit, count: int, error: Exception) -> None:
    """Log that a handler failed."""
    _log.warning(
        "The handler of the subscription %r failed %d times for the workflow %r at cursor %d: %s",
        *(name, count, commit.workflow_id, commit.cursor, failure_text(error)),
    )
