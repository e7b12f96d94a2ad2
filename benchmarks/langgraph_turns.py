"""The cases of LangGraph's savers: what a graph asks of its checkpointer, in threads of different sizes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from .contenders.base import Contender, Mismatch, Missing
from .figures import Turn
from .lab import Lab
from .measure import Side, one_by_one
from .turns import taking_part

if TYPE_CHECKING:
    from .contenders.langgraph_thread import Step, Thread

# How many checkpoints a list returns.
_LISTED = 10
# Of so many calls, the lowest number of round trips counts.
_COUNTED = 5


@dataclass(frozen=True)
class Kind:
    """A kind of threads.

    Attributes:
        name: its name in the names of cases.
        title: its name for people.
        size: the bytes of the first state.
        added: the bytes of the message that each superstep appends to the conversation; or 0, if it replaces all.
        steps: the number of supersteps, after the first, of a thread that is read.
        puts: how often a turn puts.
        reads: how often a turn reads one checkpoint.
    """

    name: str
    title: str
    size: int
    added: int
    steps: int
    puts: int
    reads: int

    def supersteps(self, seed: str, count: int) -> "list[Step]":
        """Return a first superstep, and `count` more. Those of another seed have nothing in common with them."""
        # Without LangGraph, the other cases run all the same.
        from .contenders import langgraph_thread  # noqa: PLC0415

        made: Iterator[Step]
        if self.added:
            made = langgraph_thread.conversing(self.size, self.added, seed)
        else:
            made = langgraph_thread.replacing(self.size, seed)
        return list(islice(made, count + 1))


_SMALL = Kind("small", "states of 1 kB", 1_000, 0, steps=20, puts=20, reads=20)


def _savers(lab: Lab, *verbs: str, only: Sequence[str]) -> list[Contender]:
    if not (found := taking_part(lab, "open_thread", *verbs, only=only)):
        raise Missing("no saver of LangGraph is here: pip install 'runic-redis[bench,langgraph]'")
    return found


def putting(lab: Lab, kind: Kind, *, only: Sequence[str]) -> list[Side]:
    """Put checkpoints, each in the thread of the turn. The first is put before the clock runs."""

    def turn(one: Contender, number: int) -> Turn:
        first, *steps = kind.supersteps(f"put-{number}", kind.puts)
        thread = one.open_thread(one.new_key("put"))
        thread.run(first)
        taken = one_by_one([thread.prepare(step) for step in steps], len(steps))
        if number <= 0:
            check(one, thread.latest(), steps[-1], [])
            check(one, thread.by_id(thread.checkpoints[1]), steps[0], [])
        return taken

    return [Side(one.name, partial(turn, one)) for one in _savers(lab, only=only)]


def putting_writes(lab: Lab, kind: Kind, *, only: Sequence[str]) -> list[Side]:
    """Put the writes of tasks, each after a checkpoint. The checkpoints have small states, which are no part of it."""

    def turn(one: Contender, number: int) -> Turn:
        steps = kind.supersteps(f"writes-{number}", kind.puts)[1:]
        thread = one.open_thread(one.new_key("writes"))
        for small in _SMALL.supersteps(f"writes-{number}", kind.puts)[1:]:
            thread.prepare(small)()
        calls = [partial(thread.put_writes, *given) for given in zip(thread.checkpoints, steps, strict=True)]
        taken = one_by_one(calls, len(calls))
        if number <= 0:
            check(one, thread.by_id(thread.checkpoints[-1]), small, steps[-1].writes)
        return taken

    return [Side(one.name, partial(turn, one)) for one in _savers(lab, only=only)]


def synced(lab: Lab, sides: Callable[..., list[Side]], **more: Any) -> list[Side]:
    """Return the sides of a case with fsync: each call returns when its data is on the disk."""
    return sides(lab.synced(), **more)


def _read_thread(lab: Lab, one: Contender, kind: Kind) -> "tuple[Thread, list[Step]]":
    """Return a thread to read, which is kept until the run ends, and its supersteps."""
    steps = kind.supersteps("read", kind.steps)
    if (found := lab.threads.get((one.name, kind.name))) is None:
        found = one.open_thread(f"{lab.place.server.token}:{type(one).__name__}:read-{kind.name}")
        for step in steps:
            found.run(step)
        lab.threads[one.name, kind.name] = found
    return found, steps


def getting_latest(lab: Lab, kind: Kind, *, only: Sequence[str]) -> list[Side]:
    """Get the newest checkpoint of a thread."""

    def prepare(one: Contender) -> Callable[[], object]:
        thread, steps = _read_thread(lab, one, kind)
        check(one, thread.latest(), steps[-1], [])
        return thread.latest

    return _calling(lab, kind.reads, prepare, only)


def getting_by_id(lab: Lab, kind: Kind, *, only: Sequence[str]) -> list[Side]:
    """Get the checkpoint in the middle of a thread, with the writes after it."""

    def prepare(one: Contender) -> Callable[[], object]:
        thread, steps = _read_thread(lab, one, kind)
        middle = len(steps) // 2
        get = partial(thread.by_id, thread.checkpoints[middle])
        check(one, get(), steps[middle], steps[middle + 1].writes)
        return get

    return _calling(lab, kind.reads, prepare, only)


def listing_newest(lab: Lab, kind: Kind, *, only: Sequence[str]) -> list[Side]:
    """List the ten newest checkpoints of a thread, with their states and writes."""

    def prepare(one: Contender) -> Callable[[], object]:
        thread, steps = _read_thread(lab, one, kind)
        expected = steps[: -_LISTED - 1 : -1]
        found = thread.newest(_LISTED)
        if len(found) != len(expected):
            raise Mismatch(f"{one.name}: {len(found)} checkpoints were listed, not {len(expected)}")
        writes: list[Any] = []
        for each, step in zip(found, expected, strict=True):
            check(one, each, step, writes)
            writes = step.writes
        return partial(thread.newest, _LISTED)

    return _calling(lab, max(1, kind.reads // _LISTED), prepare, only)


def _calling(
    lab: Lab, calls: int, prepare: Callable[[Contender], Callable[[], object]], only: Sequence[str]
) -> list[Side]:
    """Return sides that make the same call so many times. The cost is that of a call."""

    def side(one: Contender) -> Side:
        call = prepare(one)
        return Side(one.name, lambda _: one_by_one([call] * calls, calls))

    return [side(one) for one in _savers(lab, only=only)]


def storing(lab: Lab, kind: Kind, *, only: Sequence[str]) -> list[Side]:
    """Measure the bytes that a thread takes, with the writes of its tasks."""

    def turn(one: Contender, number: int) -> Turn:
        thread = one.open_thread(one.new_key("stored"))
        before = one.stored_bytes()
        for step in kind.supersteps(f"stored-{number}", kind.steps):
            thread.run(step)
        return Turn(one.stored_bytes() - before)

    return [Side(one.name, partial(turn, one)) for one in _savers(lab, "stored_bytes", only=only)]


def counting(lab: Lab, verb: str, *, only: Sequence[str]) -> list[Side]:
    """Count the round trips of `put`, `put_writes`, `latest`, `by_id` or `newest`, in a thread of small states.

    The server counts those of all its clients, so the lowest count of some calls is that of a call alone.
    """

    def turn(one: Contender, number: int) -> Turn:
        thread = one.open_thread(one.new_key("counted"))
        for step in _SMALL.supersteps(f"counted-{number}", _SMALL.steps):
            thread.run(step)
        calls = _counted_calls(thread, verb, _SMALL.supersteps(f"more-{number}", _COUNTED))
        return Turn(min(_round_trips(one, call) for call in calls))

    return [Side(one.name, partial(turn, one)) for one in _savers(lab, "round_trips", only=only)]


def _counted_calls(thread: "Thread", verb: str, steps: "list[Step]") -> list[Callable[[], object]]:
    puts = [thread.prepare(step) for step in steps]
    if verb == "put":
        return puts
    at = thread.checkpoints[-1]
    if verb == "put_writes":
        for put in puts:
            put()
        return [
            partial(thread.put_writes, *given) for given in zip(thread.checkpoints[-len(puts) :], steps, strict=True)
        ]
    calls = {"latest": thread.latest, "by_id": partial(thread.by_id, at), "newest": partial(thread.newest, _LISTED)}
    return [calls[verb]] * _COUNTED


def _round_trips(one: Contender, call: Callable[[], object]) -> int:
    before = one.round_trips()
    call()
    return one.round_trips() - before - 1


def check(one: Contender, found: Any, step: "Step", writes: "list[tuple[str, Any]]") -> None:
    """Raise `Mismatch` unless a checkpoint has the values of a superstep, and the writes after it."""
    values = found.checkpoint["channel_values"]
    read = [(channel, value) for _, channel, value in found.pending_writes or []]
    if {**values, "messages": one.plain(values["messages"])} != step.values or read != writes:
        raise Mismatch(f"{one.name}: the checkpoint that was read is not what was written")
