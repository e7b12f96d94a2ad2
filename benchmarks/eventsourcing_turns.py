"""The cases of the recorders of the `eventsourcing` library: aggregates, the application's log, and queries by tag."""

import itertools
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

from .contenders.base import Contender, Mismatch, Missing
from .figures import Turn
from .lab import Lab
from .measure import Side, bound, one_by_one
from .turns import calls_a_turn, taking_part

_COURSES, _STUDENTS = 100, 200
# The page of the library's subscriptions.
_PAGE = 500


def _data() -> ModuleType:
    """Return the module of the data. Without the library, the other cases run all the same."""
    from .contenders import event_sourcing_data  # noqa: PLC0415

    return event_sourcing_data


def _recording(lab: Lab, verb: str, only: Sequence[str]) -> list[Contender]:
    if not (found := taking_part(lab, verb, only=only)):
        raise Missing("no recorder is here: pip install 'runic-redis[bench,eventsourcing]'")
    return found


def inserting(lab: Lab, batch: int, *, tracked: bool, fsync: bool, only: Sequence[str]) -> list[Side]:
    """Insert commits of `batch` events, perhaps each with a tracking record. Each turn has a new aggregate."""
    lab = lab.synced() if fsync else lab

    def turn(one: Contender, number: int) -> Turn:
        data, recorder, key = _data(), one.open_recorder(tracking=tracked), one.new_key("insert")
        calls = calls_a_turn(lab, batch, 1)
        commits = [data.stored_events(key, 1 + at * batch, batch) for at in range(calls)]
        records = [{"tracking": data.tracking(key, at)} if tracked else {} for at in range(1, calls + 1)]
        inserts = [
            partial(recorder.insert_events, events, **more) for events, more in zip(commits, records, strict=True)
        ]
        taken = one_by_one(inserts, calls * batch)
        if number <= 0:
            _check(one, recorder.select_events(commits[0][0].originator_id), list(itertools.chain(*commits)))
            if tracked and recorder.max_tracking_id(key) != calls:
                raise Mismatch(f"{one.name}: the tracking record is not the last one")
        return taken

    return [Side(one.name, partial(turn, one)) for one in _recording(lab, "open_recorder", only)]


def selecting_events(lab: Lab, count: int, *, only: Sequence[str]) -> list[Side]:
    """Select all events of an aggregate, each of which was inserted by itself. The cost is that of an event."""
    calls = lab.scale.calls(50)
    sides = []
    for one in _recording(lab, "open_recorder", only):
        recorder, events = one.open_recorder(tracking=False), _data().stored_events(one.new_key("select"), 1, count)
        for event in events:
            recorder.insert_events([event])
        select = partial(recorder.select_events, events[0].originator_id)
        _check(one, select(), events)
        sides.append(Side(one.name, lambda _, select=select: one_by_one([select] * calls, calls * count)))
    return sides


def selecting_notifications(lab: Lab, count: int, *, only: Sequence[str]) -> list[Side]:
    """Select a page of the log, whose events were inserted one at a time, in turns by ten aggregates.

    The cost is that of a notification.
    """
    calls = lab.scale.calls(5)
    sides = []
    for one in _recording(lab, "open_recorder", only):
        recorder = one.open_recorder(tracking=False)
        before = recorder.max_notification_id() or 0
        aggregates = [_data().stored_events(one.new_key("log"), 1, count // 10) for _ in range(10)]
        written = list(itertools.chain(*zip(*aggregates, strict=True)))
        for event in written:
            recorder.insert_events([event])
        select = partial(recorder.select_notifications, before + 1, _PAGE)
        found = [(each.originator_id, each.originator_version, each.state) for each in select()]
        _check(one, found, [(each.originator_id, each.originator_version, each.state) for each in written[:_PAGE]])
        sides.append(Side(one.name, partial(_repeat, select, calls, len(found))))
    return sides


def _repeat(call: Any, calls: int, items: int, _: int) -> Turn:
    return one_by_one([call] * calls, calls * items)


def _university(lab: Lab, one: Contender) -> tuple[Any, list[Any]]:
    """Return a recorder with events of courses and students, and the events. It is filled at the first call."""
    recorder, events = one.open_dcb_recorder(), _data().enrolments(lab.scale.enrolments, _COURSES, _STUDENTS)
    if one.name not in lab.universities:
        for event in events:
            recorder.append([event])
        lab.universities.add(one.name)
    return recorder, events


def appending_unless(lab: Lab, *, fsync: bool, only: Sequence[str]) -> list[Side]:
    """Append an event with two tags, unless an event with one of them came after the last position."""
    lab = lab.synced() if fsync else lab
    calls = calls_a_turn(lab, 1, 1)

    def turn(one: Contender, number: int) -> Turn:
        data = _data()
        recorder, events = _university(lab, one)
        # An even event shares its tags with even ones only.
        chosen = events[: 2 * calls : 2]
        last = recorder.append(events[:1])

        def append(event: Any, query: Any) -> None:
            nonlocal last
            last = recorder.append([event], data.unless(query, last))

        taken = one_by_one(bound(append, [(event, data.concerning(event)) for event in chosen]), len(chosen))
        if number <= 0:
            check_rejection(one, recorder, chosen[-1])
        return taken

    return [Side(one.name, partial(turn, one)) for one in _recording(lab, "open_dcb_recorder", only)]


def reading_by_query(lab: Lab, *, fsync: bool, only: Sequence[str]) -> list[Side]:
    """Read the events with the tag of a course, or with that of a student. The cost is that of a read."""
    lab = lab.synced() if fsync else lab
    calls = lab.scale.calls(50)
    sides = []
    for one in _recording(lab, "open_dcb_recorder", only):
        recorder, events = _university(lab, one)
        # The cases that append use the even ones.
        queries = [_data().concerning(event) for event in events[1::2][:calls]]
        found = [each.event.data for each in recorder.read(queries[0])]
        _check(one, found, [event.data for event in _data().matching(queries[0], events)])
        reads = bound(lambda query, recorder=recorder: list(recorder.read(query)), [(query,) for query in queries])
        sides.append(Side(one.name, lambda _, reads=reads: one_by_one(reads, len(reads))))
    return sides


def check_rejection(one: Contender, recorder: Any, event: Any) -> None:
    """Raise `Mismatch` unless an event is rejected, because one with its tags came after position 0."""
    data = _data()
    try:
        recorder.append([event], data.unless(data.concerning(event), 0))
    except data.REJECTIONS:
        return
    raise Mismatch(f"{one.name}: an append was not rejected, although its condition had failed")


def _check(one: Contender, read: Sequence[Any], written: Sequence[Any]) -> None:
    """Raise `Mismatch` unless the events that were read equal those that were written, in order."""
    if list(read) != list(written):
        raise Mismatch(f"{one.name}: what was read is not what was written")
