"""Blocking reads of streams, and how the reads of many callers become one.

One read blocks on all streams of a slot. In a cluster, a read blocks on one slot for a moment and reads the others
without waiting; the next read blocks on another slot.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runic_redis.errors import StoreError
from runic_redis.protocol.effects import Batch, Command, ErrorReply, Unanswered
from runic_redis.protocol.resp import pairs
from runic_redis.protocol.rounds import Ticket

# The most entries that a read brings of each stream; and about the most of all streams together.
_MOST_ENTRIES = 32
_MOST_TOGETHER = 512
# How long a read waits for one slot of several; and a read for many callers, so that others can join the next.
_GLANCE_S = 0.05


class Stop:
    """Ends blocking reads, from any thread.

    Attributes:
        is_set: whether they end; no later read blocks.
        interrupt: ends the read that blocks now; a driver sets it.
    """

    def __init__(self) -> None:
        self.is_set = False
        self.interrupt: Callable[[], None] | None = None

    def set(self) -> None:
        """End the read that blocks, and each later one."""
        self.is_set = True
        if (interrupt := self.interrupt) is not None:
            interrupt()


@dataclass(slots=True)
class Follow(Batch):
    """Blocking reads of streams.

    Attributes:
        after: the ID of the entry after which to read, for the key of each stream.
        wait_s: the longest time to wait for an entry.
        stop: ends them early.
    """

    after: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    stop: Stop = field(default_factory=Stop)


def follow(slots: Sequence[Mapping[str, str]], wait_s: float, stop: Stop | None = None) -> Follow:
    """Return the reads of streams, one for each slot; only the first blocks."""
    wait_s = wait_s if len(slots) == 1 else min(wait_s, _GLANCE_S)
    after = {key: entry_id for slot in slots for key, entry_id in slot.items()}
    return Follow(
        _reads(slots, wait_s, _MOST_ENTRIES), own_connection=True, after=after, wait_s=wait_s, stop=stop or Stop()
    )


def by_slot(keys: Iterable[str]) -> list[list[str]]:
    """Return keys grouped by slot."""
    slots: dict[str, list[str]] = {}
    for key in keys:
        slots.setdefault(key.partition("}")[0], []).append(key)
    return list(slots.values())


def entries_of(reply: Any) -> list[tuple[bytes, Sequence[Any]]]:
    """Return the streams in a reply and their entries: pairs in RESP2, a map in RESP3."""
    return pairs(reply or ())


def _reads(slots: Sequence[Mapping[str, str]], wait_s: float, count: int) -> list[Command]:
    commands = []
    for number, slot in enumerate(slots):
        block = ("BLOCK", str(max(1, int(wait_s * 1000)))) if number == 0 and wait_s > 0 else ()
        args = ("XREAD", "COUNT", str(count), *block, "STREAMS", *slot, *slot.values())
        commands.append(Command(args, next(iter(slot))))
    return commands


class Follower:
    """Combines the reads of many callers into one. Knows no sockets and no clock.

    A read lasts only a moment, so that others can join the next one. Callers that follow one stream from different
    places need different commands, of which only the first blocks.
    """

    def __init__(self) -> None:
        self._tickets: dict[Ticket, Follow] = {}
        # Callers whose common read failed. The next read is separate for each, and fails only for those at fault.
        self._suspects: list[Ticket] = []
        self._slots_matter = False
        # Which slot the last read blocked on.
        self._slot_number = 0
        self._found = False
        # The streams of each command, and the callers that wait for each of them.
        self._asked: list[tuple[Mapping[str, str], dict[tuple[str, str], list[Ticket]]]] = []

    @property
    def has_callers(self) -> bool:
        """Whether a caller waits."""
        return bool(self._tickets)

    def add(self, ticket: Ticket, batch: Follow) -> None:
        """Include a caller's streams from the next read on."""
        self._tickets[ticket] = batch

    def remove(self, ticket: Ticket) -> None:
        """Leave a caller's streams out of the next reads."""
        self._tickets.pop(ticket, None)

    def compose(self, now_s: float) -> list[Command]:
        """Return the commands of the next read; empty if no caller waits."""
        suspects = [ticket for ticket in self._suspects if ticket in self._tickets]
        others = [ticket for ticket in self._tickets if ticket not in suspects]
        self._suspects = []
        self._asked = []
        commands: list[Command] = []
        for some in [[ticket] for ticket in suspects] + ([others] if others else []):
            layers, callers = self._layers(some)
            first = self._split(layers[0])
            self._slot_number = (self._slot_number + 1) % len(first)
            slots = first[self._slot_number :] + first[: self._slot_number]
            for layer in layers[1:]:
                slots += self._split(layer)
            left_s = min(ticket.asked_s + self._tickets[ticket].wait_s for ticket in some) - now_s
            wait_s = 0.0 if suspects or self._found else max(0.001, min(_GLANCE_S, left_s))
            commands += _reads(slots, wait_s, max(1, min(_MOST_ENTRIES, _MOST_TOGETHER // len(layers[0]))))
            self._asked += [(slot, callers) for slot in slots]
        return commands

    def _layers(self, tickets: Iterable[Ticket]) -> tuple[list[dict[str, str]], dict[tuple[str, str], list[Ticket]]]:
        """Return layers of streams, each stream once in a layer; and the callers of each stream and place."""
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
        """Give callers their entries; give None to those whose time to wait is over."""
        found: dict[Ticket, list[Any]] = {}
        failed: dict[Ticket, Any] = {}
        # The callers of this read; and those of them that need another.
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
        """Fail each caller that waits."""
        for ticket in list(self._tickets):
            ticket.error = error
            self._answer(ticket, None)

    def _answer(self, ticket: Ticket, reply: Any) -> None:
        batch = self._tickets.pop(ticket)
        ticket.replies = [reply, *[None] * (len(batch.commands) - 1)]
        ticket.missing = 0
        ticket.wake()
