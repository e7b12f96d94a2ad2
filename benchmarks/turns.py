"""The preparation of each kind of case, and the work of a contender in one turn.

Each function returns the sides of a case. Written data is read back and compared before a figure counts.
"""

import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from runic_redis import Fact, FactResolver, session

from .contenders.base import Contender, Mismatch, Missing
from .events import MIXED, Kind, some_events, some_value
from .figures import Turn
from .lab import Lab
from .measure import Side, bound, from_tasks, from_threads, one_by_one
from .servers import NODE_SETTING

# With "callers", a contender that has tasks uses tasks, and any other uses threads.
Way = Literal["calls", "threads", "tasks", "callers"]
FILLING = 1000


def taking_part(lab: Lab, *verbs: str, only: Sequence[str] = ()) -> list[Contender]:
    """Return the contenders that have the verbs: those in `only`, or else all the usual ones."""
    return [
        one
        for one in lab.contenders.values()
        if all(one.has(verb) for verb in verbs) and (one.name in only if only else one.usual)
    ]


def calls_a_turn(lab: Lab, batch: int, callers: int) -> int:
    """Return how often each caller appends in a turn, so that a turn takes some tens of milliseconds at any batch."""
    usual = lab.scale.calls({1: 200, 10: 100, 100: 30, 1000: 5}[batch])
    if lab.place.fsync:
        usual = max(2, usual // 5)
    return usual if callers == 1 else max(1, usual * 4 // callers)


# Appending


def appending(
    lab: Lab,
    batch: int,
    *,
    kind: Kind = MIXED,
    alike: bool = False,
    callers: int = 1,
    way: Way = "calls",
    only: Sequence[str] = (),
) -> list[Side]:
    """Append commits of `batch` events. Each caller has a new workflow in each turn."""
    events = some_events(batch, kind, alike=alike)
    verb = "append_from_task" if way == "tasks" else "append"
    return [
        Side(one.name, _appends(lab, one, events, kind, callers, way))
        for one in taking_part(lab, verb, "read", only=only)
    ]


def _appends(lab: Lab, one: Contender, events: list[Any], kind: Kind, callers: int, way: Way) -> Callable[[int], Turn]:
    calls = calls_a_turn(lab, len(events), callers)
    tasks = way == "tasks" or (way == "callers" and one.has("append_from_task"))

    def turn(number: int) -> Turn:
        keys = [one.new_key("append") for _ in range(callers)]
        given = [[(key, one.prepare(key, at * len(events), events, kind)) for at in range(calls)] for key in keys]
        items = callers * calls * len(events)
        if tasks:
            # Connect before the clock runs.
            lab.place.runner.run(one.connect_tasks())
            work = [bound(one.append_from_task, arguments) for arguments in given]
            taken = lab.place.runner.run(from_tasks(work, items))
        elif way == "calls":
            taken = one_by_one(bound(one.append, given[0]), items)
        else:
            taken = from_threads([bound(one.append, arguments) for arguments in given], items)
        if number <= 0:
            check(one, one.read(keys[-1], kind), events * calls)
        return taken

    return turn


def synced_appending(lab: Lab, batch: int, **more: Any) -> list[Side]:
    """Append as `appending` does, with fsync."""
    return appending(lab.synced(), batch, **more)


def taking_steps(lab: Lab, *, fsync: bool) -> list[Side]:
    """Run workflows of durable steps. The cost is that of a step."""
    lab = lab.synced() if fsync else lab
    steps = lab.scale.calls(20)
    return [
        Side(one.name, lambda _, one=one: one.run_steps(one.new_key("steps"), steps))
        for one in taking_part(lab, "run_steps")
    ]


def taking_many_steps(lab: Lab, *, workflows: int, fsync: bool) -> list[Side]:
    """Run workflows of durable steps at the same time. The cost is that of a step."""
    lab = lab.synced() if fsync else lab
    steps = lab.scale.calls(20)
    return [
        Side(one.name, lambda _, one=one: one.run_many_steps(one.new_key("steps"), steps, workflows))
        for one in taking_part(lab, "run_many_steps")
    ]


# Reading


def fill(one: Contender, key: str, count: int, batch: int, kind: Kind = MIXED, *, alike: bool = False) -> list[Any]:
    """Append `count` events in batches, and return them."""
    events = some_events(count, kind, alike=alike)
    for at in range(0, count, batch):
        one.append(key, one.prepare(key, at, events[at : at + batch], kind))
    return events


def reading(
    lab: Lab, count: int, batch: int, *, kind: Kind = MIXED, alike: bool = False, only: Sequence[str] = ()
) -> list[Side]:
    """Read a whole workflow into a list of objects."""
    sides = []
    for one in taking_part(lab, "append", "read", only=only):
        key = one.new_key("read")
        written = fill(one, key, count, batch, kind, alike=alike)
        check(one, one.read(key, kind), written)
        sides.append(Side(one.name, lambda _, one=one, key=key: one_by_one([lambda: one.read(key, kind)], count)))
    return sides


def reading_after(lab: Lab, count: int, last: int, only: Sequence[str]) -> list[Side]:
    """Read the last events of a workflow, after a place that the reader remembers. The cost is that of one read."""
    calls = lab.scale.calls(50)
    sides = []
    for one in taking_part(lab, "append", "mark", "read_after", only=only):
        key = one.new_key("tail")
        written = fill(one, key, count, 100)
        mark = one.mark(key, count - last)
        check(one, one.read_after(key, mark, MIXED), written[-last:])
        arguments = [(key, mark, MIXED)] * calls
        sides.append(Side(one.name, _repeated(one.read_after, arguments)))
    return sides


def _repeated(verb: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> Callable[[int], Turn]:
    """Return a turn that makes these calls. The cost is that of one call."""
    return lambda _: one_by_one(bound(verb, arguments), len(arguments))


# Snapshots


def saving_snapshots(lab: Lab, size: int) -> list[Side]:
    """Save a state of about `size` bytes again and again."""
    state = some_value(size)
    calls = lab.scale.calls(50)
    sides = []
    for one in taking_part(lab, "save_snapshot", "load_snapshot"):
        key, mark = _with_snapshot(one, state, 100, 100)
        arguments = [(key, mark, state)] * calls
        sides.append(Side(one.name, _repeated(one.save_snapshot, arguments)))
    return sides


def loading_snapshots(lab: Lab, size: int) -> list[Side]:
    """Load a state of about `size` bytes."""
    calls = lab.scale.calls(50)
    sides = []
    for one in taking_part(lab, "save_snapshot", "load_snapshot"):
        key, _ = _with_snapshot(one, some_value(size), 100, 100)
        arguments = [(key,)] * calls
        sides.append(Side(one.name, _repeated(one.load_snapshot, arguments)))
    return sides


def recovering(lab: Lab, size: int, count: int, last: int) -> list[Side]:
    """Load the snapshot and read the events after it."""
    calls = lab.scale.calls(50)
    sides = []
    for one in taking_part(lab, "append", "save_snapshot", "load_snapshot", "read_after"):
        key, _ = _with_snapshot(one, some_value(size), count, count - last)

        def recover(one: Contender = one, key: str = key) -> tuple[dict[str, Any], list[Any]]:
            mark, state = one.load_snapshot(key)
            return state, one.read_after(key, mark, MIXED)

        _, events = recover()
        check(one, events, some_events(count)[-last:])
        sides.append(Side(one.name, lambda _, recover=recover: one_by_one([recover] * calls, calls)))
    return sides


def entering_sessions(lab: Lab, count: int, last: int) -> list[Side]:
    """Recover a session, from a snapshot and from all events. The state is the number of events."""
    store = lab.ours.store
    sides = []
    for name, covered in (("from the snapshot", count - last), ("by all events", 0)):
        key = lab.ours.new_key("session")
        fill(lab.ours, key, count, 100)
        if covered:
            store.save_snapshot(key, covered, b"%d" % covered)

        def enter(key: str = key, covered: int = covered) -> None:
            options: dict[str, Any] = {"dumps": lambda state: b"%d" % state, "loads": int}
            with session(store, key, lambda state, _: state + 1, 0, **options) as one:
                if (one.state, one.recovery.replayed) != (count, count - covered):
                    raise Mismatch(f"{one.recovery.replayed} events were replayed, to {one.state}")

        sides.append(Side(name, lambda _, enter=enter: one_by_one([enter], 1)))
    return sides


def replaying_facts(lab: Lab, count: int, size: int) -> list[Side]:
    """Measure the peak of Python's memory, in KiB, as a workflow's events are read with references and with values."""
    store = lab.ours.store
    key = lab.ours.new_key("facts")
    at_once = 20
    for first in range(0, count, at_once):
        store.append(key, [{"value": Fact(f"{number:09}" * (size // 9))} for number in range(first, first + at_once)])

    def lean() -> list[Any]:
        return list(store.stream(key))

    def full() -> list[Any]:
        resolver = FactResolver(store, max_bytes=0)
        found: list[Any] = []
        events = lean()
        for first in range(0, count, at_once):
            found += resolver.rehydrate(events[first : first + at_once])
        return found

    def turn(replay: Callable[[], list[Any]]) -> Turn:
        tracemalloc.start()
        try:
            if len(replay()) != count:
                raise Mismatch(f"not all of {count} events were read")
            return Turn(tracemalloc.get_traced_memory()[1] / 1024)
        finally:
            tracemalloc.stop()

    return [Side("lean replay", lambda _: turn(lean)), Side("full replay", lambda _: turn(full))]


def _with_snapshot(one: Contender, state: dict[str, Any], count: int, cursor: int) -> tuple[str, Any]:
    key = one.new_key("snapshot")
    mark: Any = cursor
    if one.has("append"):
        fill(one, key, count, 100)
        mark = one.mark(key, cursor)
    one.save_snapshot(key, mark, state)
    if one.load_snapshot(key) != (mark, state):
        raise Mismatch(f"{one.name}: the snapshot that was loaded is not what was saved")
    return key, mark


# Facts


def saving_facts(lab: Lab, size: int) -> list[Side]:
    """Save values of about `size` bytes, each under a new hash."""
    value = some_value(size)
    calls = lab.scale.calls(100 if size < 10_000 else 20)

    def turn(one: Contender, number: int) -> Turn:
        hashes = [f"save-{size}-{number}-{at}" for at in range(calls)]
        taken = one_by_one(bound(one.save_fact, [(fact_hash, value) for fact_hash in hashes]), calls)
        if number <= 0 and one.load_fact(hashes[-1]) != value:
            raise Mismatch(f"{one.name}: the fact that was loaded is not what was saved")
        return taken

    return [Side(one.name, lambda number, one=one: turn(one, number)) for one in taking_part(lab, "save_fact")]


def loading_facts(lab: Lab, size: int, *, bulk: bool) -> list[Side]:
    """Load values of about `size` bytes, one a call or all in one call. The cost is that of a value."""
    value = some_value(size)
    count = lab.scale.calls(100 if size < 10_000 else 20)
    hashes = [f"load-{size}-{at}" for at in range(count)]
    sides = []
    for one in taking_part(lab, "save_fact", "load_fact", "load_facts"):
        for fact_hash in hashes:
            one.save_fact(fact_hash, value)
        if one.load_facts(hashes) != [value] * count:
            raise Mismatch(f"{one.name}: the facts that were loaded are not what was saved")
        calls = bound(one.load_facts, [(hashes,)]) if bulk else bound(one.load_fact, [(each,) for each in hashes])
        sides.append(Side(one.name, lambda _, calls=calls: one_by_one(calls, count)))
    return sides


# Listing


def listing(lab: Lab, count: int) -> list[Side]:
    """List `count` workflows by their prefix. The cost is that of a workflow."""
    event = some_events(1)
    sides = []
    for one in taking_part(lab, "append", "list_workflows"):
        keys = [one.new_key("listed") for _ in range(count)]
        for key in keys:
            one.append(key, one.prepare(key, 0, event, MIXED))
        prefix = keys[0].rpartition(":")[0]
        if set(one.list_workflows(prefix)) != set(keys):
            raise Mismatch(f"{one.name}: the workflows that were listed are not those that were made")
        sides.append(Side(one.name, lambda _, one=one, at=prefix: one_by_one([lambda: one.list_workflows(at)], count)))
    return sides


# Memory


def weighing(
    lab: Lab,
    batch: int,
    *,
    events: int,
    workflows: int = 1,
    kind: Kind = MIXED,
    alike: bool = False,
    only: Sequence[str] = (),
) -> list[Side]:
    """Measure the bytes of Redis's memory for an event, in `workflows` workflows of `events` events each."""
    written = some_events(events, kind, alike=alike)
    batches = [written[at : at + batch] for at in range(0, events, batch)]

    def turn(one: Contender) -> Turn:
        return Turn(one.weigh(workflows, batches, kind) / events / workflows)

    return [Side(one.name, lambda _, one=one: turn(one)) for one in taking_part(lab, "weigh", only=only)]


def weighing_by_default(lab: Lab, batch: int, **more: Any) -> list[Side]:
    """Weigh as `weighing` does, with the default of a server for the size of a stream's nodes."""
    if not lab.place.server.embedded:
        raise Missing("only on the embedded server, whose setting it changes")

    def turn(weigh: Callable[[int], Turn], number: int) -> Turn:
        with lab.place.server.client() as client:
            before: dict[str, str] = client.config_get(NODE_SETTING)
            client.config_set(NODE_SETTING, 4096)
            try:
                return weigh(number)
            finally:
                client.config_set(NODE_SETTING, before[NODE_SETTING])

    return [Side(side.name, partial(turn, side.turn)) for side in weighing(lab, batch, **more)]


# Growth: this store against itself


def _by_p50(turn: Callable[[int], Turn]) -> Callable[[int], Turn]:
    def by_p50(number: int) -> Turn:
        taken = turn(number)
        return Turn(taken.latencies_us["p50"], taken.latencies_us)

    return by_p50


def grown(lab: Lab, size: int) -> str:
    """Return the key of a workflow of `size` events, which is kept until the run ends."""
    if size not in lab.grown:
        key = f"grown-{size}"
        events = some_events(FILLING)
        for at in range(0, size, FILLING):
            lab.ours.append(key, events[: size - at])
        lab.grown[size] = key
    return lab.grown[size]


def appending_to_grown(lab: Lab, sizes: Sequence[int]) -> list[Side]:
    """Append single events to workflows of these sizes, 0 for a new one. The cost is that of the median call."""
    ours = lab.ours
    calls = lab.scale.calls(150)
    event = some_events(1)

    def turn(size: int) -> Turn:
        # A turn adds little to a large workflow. A new workflow must be new in each turn.
        key = grown(lab, size) if size else ours.new_key("empty")
        return one_by_one(bound(ours.append, [(key, event)] * calls), calls)

    for size in filter(None, sizes):
        grown(lab, size)
    return [Side(sized(size, "event"), _by_p50(lambda _, size=size: turn(size))) for size in sizes]


def appending_in_grown(lab: Lab, sizes: Sequence[int]) -> list[Side]:
    """Append single events in namespaces with these many workflows. The cost is that of the median call."""
    calls = lab.scale.calls(150)
    event = some_events(1)
    sides = []
    for size in sizes:
        store = lab.stack.enter_context(lab.ours.namespace(f"grown-{size}"))
        for at in range(0, size, FILLING):
            store.append_many([(f"workflow-{number}", event) for number in range(at, min(size, at + FILLING))])

        def turn(_: int, store: Any = store) -> Turn:
            return one_by_one(bound(store.append, [("workflow-0", event)] * calls), calls)

        sides.append(Side(sized(size, "workflow"), _by_p50(turn)))
    return sides


def recovering_grown(lab: Lab, sizes: Sequence[int]) -> list[Side]:
    """Stream workflows of these sizes from the first event to the last. The cost is that of an event."""

    def turn(size: int) -> Turn:
        return one_by_one([lambda: _stream(lab, size)], size)

    return [Side(sized(size, "event"), lambda _, size=size: turn(size)) for size in sizes]


def tracing_grown(lab: Lab, sizes: Sequence[int]) -> list[Side]:
    """Measure the peak of Python's memory, in KiB, as a workflow is streamed."""

    def turn(size: int) -> Turn:
        tracemalloc.start()
        try:
            _stream(lab, size)
            return Turn(tracemalloc.get_traced_memory()[1] / 1024)
        finally:
            tracemalloc.stop()

    return [Side(sized(size, "event"), lambda _, size=size: turn(size)) for size in sizes]


def _stream(lab: Lab, size: int) -> None:
    """Read each event and keep none, as a recovery does."""
    seen = sum(1 for _ in lab.ours.store.stream(grown(lab, size), until=size))
    if seen != size:
        raise Mismatch(f"{seen} events were read of {size}")


def sized(size: int, what: str) -> str:
    """Return the name of the side that is this store at a size."""
    return f"{size:,} {what}{'s' * (size != 1)}".replace(",", " ")


def check(one: Contender, read: Sequence[Any], written: Sequence[Any]) -> None:
    """Raise `Mismatch` unless the events that were read equal those that were written, in order."""
    if one.plain(read) != list(written):
        raise Mismatch(f"{one.name}: what was read is not what was written")
