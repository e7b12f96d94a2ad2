"""Blocking reads of streams, and how those of many callers become one.

One read waits for all streams of a slot. Where slots matter, a read waits for one slot a moment and looks at the others
in transient; the next read waits for another slot.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runic_redis.errors import StoreError
from runic_redis.protocol.effects import Batch, Command, ErrorReply, Unanswered
from runic_redis.protocol.rounds import Ticket

__all__ = ["Follow", "Follower", "Stop", "by_slot", "entries_of", "follow"]

# How many entries of each stream a read brings, if it is the only stream; and of all streams, if there are many.
_MOST_ENTRIES = 32
_MOST_TOGETHER = 512
# How long a read waits for one slot of several, and one that is made for many callers, which others may join then.
_GLANCE_S = 0.05


class Stop:
    """Ends reads that wait, from any thread.

    Attributes:
        is_set: whether they are to end; none waits after that.
        interrupt: ends the one that waits now; a driver sets it.
    """

    def __init__(self) -> None:
        self.is_set = False
        self.interrupt: Callable[[], None] | None = None

    def set(self) -> None:
        """End the read that waits, and each later one."""
        self.is_set = True
        if (interrupt := self.interrupt) is not None:
            interrupt()


@dataclass(slots=True)
class Follow(Batch):
    """Reads of streams, which wait until something comes.

    Attributes:
        after: for each stream's key, the ID of the entry after which to read.
        wait_s: how long to wait.
        stop: ends them early.
    """

    after: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    stop: Stop = field(default_factory=Stop)


def follow(slots: Sequence[Mapping[str, str]], wait_s: float, stop: Stop | None = None) -> Follow:
    """Return what reads streams, those of each slot together; the first slot is waited for."""
    wait_s = wait_s if len(slots) == 1 else min(wait_s, _GLANCE_S)
    after = {key: entry_id for slot in slots for key, entry_id in slot.items()}
    return Follow(
        _reads(slots, wait_s, _MOST_ENTRIES), own_connection=True, after=after, wait_s=wait_s, stop=stop or Stop()
    )


def by_slot(keys: Iterable[str]) -> list[list[str]]:
    """Return keys, those of each slot together."""
    slots: dict[str, list[str]] = {}
    for key in keys:
        slots.setdefault(key.partition("}")[0], []).append(key)
    return list(slots.values())


def entries_of(reply: Any) -> list[tuple[bytes, Sequence[Any]]]:
    """Return the streams in a reply and their entries: pairs in RESP2, a map in RESP3."""
    if reply is None:
        return []
    if isinstance(reply, dict):
        return list(reply.items())
    return [(key, entries) for key, entries in reply]


def _reads(slots: Sequence[Mapping[str, str]], wait_s: float, count: int) -> list[Command]:
    commands = []
    for number, slot in enumerate(slots):
        block = ("BLOCK", str(max(1, int(wait_s * 1000)))) if number == 0 and wait_s > 0 else ()
        args = ("XREAD", "COUNT", str(count), *block, "STREAMS", *slot, *slot.values())
        commands.append(Command(args, next(iter(slot))))
    return commands


class Follower:
    """Makes one read of what many callers wait for. Knows no sockets and no clock.

    A read lasts a moment only, so that others can join the next one. Callers that follow one stream from different
    places are read for by different commands, of which the first waits.
    """

    def __init__(self) -> None:
        self._tickets: dict[Ticket, Follow] = {}
        # Callers whose common read failed. The next one is made for each alone, and fails only for those at fault.
        self._suspects: list[Ticket] = []
        self._slots_matter = False
        self._turn = 0
        self._found = False
        # What each command reads, and for whom.
        self._asked: list[tuple[Mapping[str, str], dict[tuple[str, str], list[Ticket]]]] = []

    @property
    def has_callers(self) -> bool:
        """Whether anybody waits."""
        return bool(self._tickets)

    def add(self, ticket: Ticket, batch: Follow) -> None:
        """Have a caller's streams read, from the next read on."""
        self._tickets[ticket] = batch

    def remove(self, ticket: Ticket) -> None:
        """Stop for a caller."""
        self._tickets.pop(ticket, None)

    def compose(self, now_s: float) -> list[Command]:
        """What to send; empty if nobody waits."""
        suspects = [ticket for ticket in self._suspects if ticket in self._tickets]
        others = [ticket for ticket in self._tickets if ticket not in suspects]
        self._suspects = []
        self._asked = []
        commands: list[Command] = []
        for some in [[ticket] for ticket in suspects] + ([others] if others else []):
            layers, callers = self._layers(some)
            first = self._split(layers[0])
            self._turn = (self._turn + 1) % len(first)
            slots = first[self._turn :] + first[: self._turn]
            for layer in layers[1:]:
                slots += self._split(layer)
            left_s = min(ticket.asked_s + self._tickets[ticket].wait_s for ticket in some) - now_s
            wait_s = 0.0 if suspects or self._found else max(0.001, min(_GLANCE_S, left_s))
            commands += _reads(slots, wait_s, max(1, min(_MOST_ENTRIES, _MOST_TOGETHER // len(layers[0]))))
            self._asked += [(slot, callers) for slot in slots]
        return commands

    def _layers(self, tickets: Iterable[Ticket]) -> tuple[list[dict[str, str]], dict[tuple[str, str], list[Ticket]]]:
        """What to read, each stream from one place in each layer; and who waits for which place."""
        layers: list[dict[str, str]] = [{}]
        callers: dict[tuple[str, str], list[Ticket]] = {}
        for ticket in tickets:
            for place in self._tickets[ticket].after.items():
                key, entry_id = place
                if place in callers:
                    callers[place].append(ticket)
                    continue
                callers[place] = [ticket]
                layer = next((layer for layer in layers if key not in layer), None)
                if layer is None:
                    layers.append(layer := {})
                layer[key] = entry_id
        return layers, callers

    def _split(self, after: Mapping[str, str]) -> list[Mapping[str, str]]:
        if not self._slots_matter:
            return [after]
        return [{key: after[key] for key in keys} for keys in by_slot(after)]

    def take(self, replies: Sequence[Any], now_s: float) -> None:
        """Give the replies to those who wait for them, and nothing to those who have waited long enough."""
        found: dict[Ticket, list[Any]] = {}
        failed: dict[Ticket, Any] = {}
        # Those that were read for; and those of them that must be read for again.
        read: dict[Ticket, None] = {}
        again: set[Ticket] = set()
        self._found = False
        for (slot, callers), reply in zip(self._asked, replies, strict=True):
            tickets = {ticket: None for place in slot.items() for ticket in callers[place] if ticket in self._tickets}
            read |= tickets
            if isinstance(reply, ErrorReply) and reply.code == "CROSSSLOT" and not self._slots_matter:
                self._slots_matter = True
                again.update(tickets)
            elif isinstance(reply, ErrorReply) and len(tickets) > 1:
                self._suspects += tickets
                again.update(tickets)
            elif isinstance(reply, ErrorReply | Unanswered):
                failed |= dict.fromkeys(tickets, reply)
            else:
                for key, entries in entries_of(reply):
                    name = key.decode()
                    for ticket in callers[name, slot[name]]:
                        found.setdefault(ticket, []).append((key, entries))
        for ticket in read:
            if ticket in again:
                continue
            if ticket in failed or ticket in found:
                self._found = True
                self._answer(ticket, failed.get(ticket) or found[ticket])
            elif ticket.asked_s + self._tickets[ticket].wait_s <= now_s:
                self._answer(ticket, None)

    def fail(self, error: StoreError) -> None:
        """Have whoever waits fail."""
        for ticket in list(self._tickets):
            ticket.error = error
            self._answer(ticket, None)

    def _answer(self, ticket: Ticket, reply: Any) -> None:
        batch = self._tickets.pop(ticket)
        ticket.replies = [reply, *[None] * (len(batch.commands) - 1)]
        ticket.missing = 0
        ticket.wake()
