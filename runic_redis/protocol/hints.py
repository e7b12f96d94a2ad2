"""Waiting for something to become due: whose turn it is to look, and what hints change.

Callers that wait for the same queues stand in a line. The first of a line has the turn: it looks at once, on a hint,
when the next is due, and after a second at the latest. It keeps the turn until it has found something. So a look that
finds nothing serves all that wait, and an idle line makes one look a second, however long it is.

A hint is a message on a channel, `<due ms> <queue>`. It only means "look now": the look itself tells by the server's
clock when the next is due, so nobody compares clocks. A hint may be lost, since the first looks each second anyway.
"""

import math
import random
from collections.abc import Generator
from typing import Any, NamedTuple

from runic_redis.protocol.effects import ConnectionLost, ErrorReply, Join
from runic_redis.protocol.queue import back_off_s

# How long a line goes without a look; and the shortest time between two looks that found nothing.
_LOOK_S = 1.0
_SHORTEST_S = 0.01
# How long a caller stays after its time if the first of its line is looking or about to.
_GRACE_S = 1.0
# How long a listener listens after the last caller has gone.
_LINGER_S = 5.0
# A connection that brings nothing for so long is pinged; after as long again without a reply, it is taken for lost.
SILENCE_S = 5.0


class Place:
    """A caller's place in a line. Each driver has a subclass that wakes its caller.

    Args:
        join: the effect that asked for it.

    Attributes:
        due_s: in how many seconds the next is due, by a look that found nothing; None if nothing is.
    """

    def __init__(self, join: Join) -> None:
        self.queues = frozenset(join.queues)
        self.channel = join.channel
        self.due_s: float | None = None
        self.wait_s = join.wait_s
        self.end_s = 0.0
        self.line: _Line | None = None
        self.is_over = False

    def wake(self) -> None:
        """Make the caller ask for its next step."""

    def cancel(self) -> None:
        """Leave the line. If it was this caller's turn, the next one looks at once."""


class _Line:
    """The callers that wait for a set of queues, the first with the turn.

    Attributes:
        due_s: when the first looks next. A hint during a look moves it, so that none is lost.
        is_looking: whether it looks now.
    """

    def __init__(self) -> None:
        self.places: dict[Place, None] = {}
        self.due_s = -math.inf
        self.is_looking = False

    @property
    def first(self) -> Place | None:
        return next(iter(self.places), None)


class Turns:
    """The lines of one store. Knows no sockets, threads or clocks."""

    def __init__(self) -> None:
        self._lines: dict[frozenset[str], _Line] = {}
        self._left_s = 0.0

    def next_pause_s(self, place: Place, now_s: float) -> float | None:
        """Return how long a caller waits before it calls this again; 0.0 if it looks now; None if its time is over.

        A caller that has looked calls this if it found nothing, and `leave` otherwise.
        """
        if place.is_over:
            return None
        line = place.line or self._join(place, now_s)
        has_turn = line.first is place
        if has_turn and line.is_looking:
            self._end_look(line, place, now_s)
        is_due = line.due_s <= now_s
        if has_turn and is_due:
            line.is_looking, line.due_s = True, math.inf
            return 0.0
        left_s = place.end_s - now_s
        if left_s > 0:
            return min(left_s, line.due_s - now_s) if has_turn else left_s
        if not (line.is_looking or is_due):
            self.leave(place, now_s)
            return None
        if left_s > -_GRACE_S:
            return left_s + _GRACE_S
        self.leave(place, now_s)
        return 0.0

    def _join(self, place: Place, now_s: float) -> _Line:
        place.end_s = now_s + place.wait_s
        place.line = line = self._lines.setdefault(place.queues, _Line())
        line.places[place] = None
        return line

    def _end_look(self, line: _Line, place: Place, now_s: float) -> None:
        """Note a look that found nothing, and wake those that only waited for its end."""
        line.is_looking = False
        pause_s = _LOOK_S if place.due_s is None else max(_SHORTEST_S, min(_LOOK_S, place.due_s))
        line.due_s = min(line.due_s, now_s + pause_s)
        for other in line.places:
            if other.end_s <= now_s:
                other.wake()

    def leave(self, place: Place, now_s: float) -> None:
        """Take a caller out of its line. If it was looking, the next one looks at once."""
        place.is_over = True
        self._left_s = now_s
        if (line := place.line) is None:
            return
        if line.is_looking and line.first is place:
            line.is_looking, line.due_s = False, -math.inf
        line.places.pop(place, None)
        if (first := line.first) is not None:
            first.wake()
        elif self._lines.get(place.queues) is line:
            del self._lines[place.queues]

    def hint(self, queue: str | None) -> None:
        """Make the first look that wait for a queue; those of all queues without one."""
        for queues, line in self._lines.items():
            if queue is None or queue in queues:
                line.due_s = -math.inf
                if (first := line.first) is not None and not line.is_looking:
                    first.wake()

    def wake_all(self) -> None:
        """Wake every caller."""
        for line in self._lines.values():
            for place in line.places:
                place.wake()

    def are_idle(self, now_s: float) -> bool:
        """Whether nobody has waited for a while."""
        return not self._lines and now_s - self._left_s >= _LINGER_S


class Listen(NamedTuple):
    """A step of a listener: perhaps connect or ping, then read for `SILENCE_S`.

    Attributes:
        pause_s: after how many seconds to subscribe on a new connection; None to keep the connection.
        pings: whether to send a PING.
    """

    pause_s: float | None = None
    pings: bool = False


def listen(turns: Turns) -> Generator[Listen, Any, str]:
    """Yield the steps of a store's listener; receive the reply or message that each brings, None if none came.

    Each subscription counts as a hint, since some may have been missed before it.

    Returns:
        A line for the log: the server does not let this user subscribe.
    """
    failures = 0
    while True:
        reply = yield Listen(pause_s=back_off_s(failures) * random.uniform(0.5, 1) if failures else 0.0)
        failures += 1
        if isinstance(reply, ErrorReply) and (reply.code == "NOPERM" or reply.says_unknown("SUBSCRIBE")):
            return (
                "The store cannot listen for hints, so a waiting claim may see a second late that a workflow is due: "
                f"{reply.text}. Allow the user SUBSCRIBE, PING and the channel of the namespace."
            )
        if isinstance(reply, list):
            failures = 1
            turns.hint(None)
            yield from _hear(turns)


def _hear(turns: Turns) -> Generator[Listen, Any, None]:
    """Pass on hints until the connection is lost."""
    pings = False
    while True:
        reply = yield Listen(pings=pings)
        if isinstance(reply, ConnectionLost) or (pings and reply is None):
            return
        # (Any reply to a PING shows that the connection works.)
        pings = reply is None
        if isinstance(reply, list) and reply[0] == b"message":
            turns.hint(reply[2].partition(b" ")[2].decode(errors="replace"))
