"""The data for the recorders of the `eventsourcing` library, as its mapper would give it to them."""

import json
import uuid
from collections.abc import Sequence

from eventsourcing.dcb.api import DCBAppendCondition, DCBEvent, DCBQuery, DCBQueryItem
from eventsourcing.persistence import IntegrityError, StoredEvent, Tracking

from ..events import Mixed, some_events

# What a recorder raises if a condition fails; UmaDB's error is a ValueError.
REJECTIONS = (IntegrityError, ValueError)
_TOPIC = "university.domain:Student.CourseJoined"


def stored_events(key: str, first: int, count: int) -> list[StoredEvent]:
    """Return events of the aggregate of a key. The first has the version `first`."""
    aggregate = uuid.uuid5(uuid.NAMESPACE_URL, key)
    return [StoredEvent(aggregate, first + at, _TOPIC, state) for at, state in enumerate(_states(count))]


def tracking(key: str, number: int) -> Tracking:
    return Tracking(key, number)


def enrolments(count: int, courses: int, students: int) -> list[DCBEvent]:
    """Return events that each have the tag of a course and that of a student."""
    return [
        DCBEvent(_TOPIC, state, [f"course:{number % courses}", f"student:{number * 7 % students}"])
        for number, state in enumerate(_states(count))
    ]


def concerning(event: DCBEvent) -> DCBQuery:
    """Return the query for the decision about an enrolment: the events of its course, and those of its student."""
    return DCBQuery([DCBQueryItem([event.type], [tag]) for tag in event.tags])


def unless(query: DCBQuery, after: int) -> DCBAppendCondition:
    return DCBAppendCondition(query, after)


def matching(query: DCBQuery, events: Sequence[DCBEvent]) -> list[DCBEvent]:
    tags = {tag for item in query.items for tag in item.tags}
    return [event for event in events if tags & set(event.tags)]


def _states(count: int) -> list[bytes]:
    return [_state(event) for event in some_events(count)]


def _state(event: Mixed) -> bytes:
    """Return an event in JSON, of about 300 bytes."""
    values = {
        "input_hash": event.input_hash.hex(),
        "output_hash": event.output_hash.hex(),
        "arguments": event.arguments,
        "labels": event.labels,
        "step": event.step,
        "attempt": event.attempt,
        "timestamp": "2026-01-01T00:00:00.000000+00:00",
    }
    return json.dumps(values, separators=(",", ":")).encode()
