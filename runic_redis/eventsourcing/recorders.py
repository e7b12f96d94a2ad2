"""The recorders: events of aggregates, their notifications, and tracking records."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    IntegrityError,
    Notification,
    ProcessRecorder,
    ProgrammingError,
    StoredEvent,
    Subscription,
    TrackingRecorder,
)
from eventsourcing.persistence import Tracking as TrackingRecord

from runic_redis.errors import CursorConflict, GroupRejected, InvalidType
from runic_redis.eventsourcing.mapping import persistence_errors
from runic_redis.eventsourcing.notifications import NotificationForm, max_position, read_notifications
from runic_redis.eventsourcing.stored_events import encode_stored, select_stored
from runic_redis.eventsourcing.subscriptions import RedisSubscription
from runic_redis.operations.appending import Appended
from runic_redis.operations.groups import Append
from runic_redis.operations.tracking import Tracking
from runic_redis.store import RedisStore

IdType: TypeAlias = Literal["uuid", "text"]


class _StoreRecorder:
    """A recorder that uses a store.

    Attributes:
        store: the store.
        id_type: the type of the ids of aggregates.
    """

    def __init__(self, store: RedisStore, id_type: IdType = "uuid") -> None:
        self.store = store
        self.id_type = id_type


class RedisAggregateRecorder(_StoreRecorder, AggregateRecorder):
    """Records the events of aggregates. Each aggregate is a workflow of the store.

    The versions of an aggregate begin with 1 or 0, and have no gaps. Events that do not follow the last one raise
    `IntegrityError`, as events with a taken version do. (Of an aggregate from 0, one skipped version is not noticed.)
    All events of a call are stored, or none.
    """

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store events. The recorder of an application returns the ids of their notifications; others return None.

        Raises:
            IntegrityError: a version is taken, or does not follow the last one; nothing was stored.
            OperationalError: the server cannot be reached, or does not confirm the write.
        """
        with persistence_errors:
            self._insert(stored_events, kwargs.get("tracking"))
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return the events of an aggregate, by version; see `eventsourcing.persistence.AggregateRecorder`."""
        operation = select_stored(
            self.store.context, self._workflow_id(originator_id), gt=gt, lte=lte, desc=desc, limit=limit
        )
        with persistence_errors:
            found = self.store.run(operation, "stream")
        return [StoredEvent(originator_id, version, topic, state) for version, topic, state in found]

    def _workflow_id(self, originator_id: UUID | str) -> str:
        if (type(originator_id) is UUID) == (self.id_type == "uuid"):
            return str(originator_id)
        expected = "a UUID" if self.id_type == "uuid" else "a str"
        raise InvalidType(
            f"The id of an aggregate is {expected} in this application, not {originator_id!r}. Nothing was sent. Set "
            "ORIGINATOR_ID_TYPE to 'uuid' or 'text'."
        )

    def _insert(self, stored_events: Sequence[StoredEvent], tracking: TrackingRecord | None) -> list[int]:
        """Store events and a tracking record. Return the positions of the events."""
        groups: dict[UUID | str, list[StoredEvent]] = {}
        for event in stored_events:
            groups.setdefault(event.originator_id, []).append(event)
        if not (groups or tracking):
            return []
        commits = {self._workflow_id(originator_id): events for originator_id, events in groups.items()}
        for events in commits.values():
            _check_versions(events)
        appended = self._append(commits, tracking)
        if len(commits) == 1:
            last = appended[0].position or 0
            return list(range(last - len(stored_events) + 1, last + 1))
        following = {}
        for originator_id, one in zip(groups, appended, strict=True):
            following[originator_id] = (one.position or 0) - len(groups[originator_id])
        positions = []
        for event in stored_events:
            following[event.originator_id] += 1
            positions.append(following[event.originator_id])
        return positions

    def _append(self, commits: dict[str, list[StoredEvent]], tracking: TrackingRecord | None) -> list[Appended]:
        # The aggregates whose versions begin with 0.
        from_zero = {workflow_id for workflow_id, events in commits.items() if events[0].originator_version == 0}
        while True:
            items = []
            for workflow_id, events in commits.items():
                version, is_from_zero = events[0].originator_version, workflow_id in from_zero
                encoded = encode_stored(self.store.context, events, versioned=is_from_zero)
                items.append(Append(workflow_id, encoded, expected_cursor=version if is_from_zero else version - 1))
            try:
                if tracking is None and len(items) == 1:
                    item = items[0]
                    return [
                        self.store.append(
                            item.workflow_id, item.events, expected_cursor=item.expected_cursor, details=True
                        )
                    ]
                record = None if tracking is None else Tracking(tracking.application_name, tracking.notification_id)
                return self.store.append_all(items, tracking=record, details=True)
            except (CursorConflict, GroupRejected) as error:
                conflict = error.__cause__ if isinstance(error, GroupRejected) else error
                workflow_id = error.workflow_id if isinstance(error, GroupRejected) else next(iter(commits))
                version = commits[workflow_id][0].originator_version
                may_be_from_zero = isinstance(conflict, CursorConflict) and conflict.actual == version > 0
                if not may_be_from_zero or workflow_id in from_zero or not self._is_from_zero(workflow_id, version):
                    raise
                from_zero.add(workflow_id)

    def _is_from_zero(self, workflow_id: str, cursor: int) -> bool:
        """Return whether the versions of an aggregate begin with 0."""
        operation = select_stored(self.store.context, workflow_id, gt=None, lte=cursor, desc=True, limit=1)
        found = self.store.run(operation, "stream")
        return bool(found) and found[0][0] == cursor - 1


def _check_versions(events: Sequence[StoredEvent]) -> None:
    """Check that the versions of an aggregate's events follow each other."""
    first = events[0].originator_version
    if type(first) is not int or first < 0:
        raise ProgrammingError(f"A version is an int from 0 up, not {first!r:.80}. Nothing was sent.")
    for expected, event in enumerate(events, first):
        if event.originator_version != expected:
            raise IntegrityError(
                f"The version {event.originator_version} of {event.originator_id} does not follow the version "
                f"{expected - 1}. Nothing was stored."
            )


class RedisApplicationRecorder(RedisAggregateRecorder, ApplicationRecorder):
    """Records the events of aggregates, and reads them in the order of the application.

    The id of a notification is the position of its event in the feed. Ids have no gaps and follow the order in which
    the server stored the events, so a reader never misses one.
    """

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store events, and return the ids of their notifications; see `RedisAggregateRecorder.insert_events`."""
        with persistence_errors:
            return self._insert(stored_events, kwargs.get("tracking"))

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Return notifications in order; see `eventsourcing.persistence.ApplicationRecorder`."""
        after = 0 if start is None else max(0, start - 1 if inclusive_of_start else start)
        form = NotificationForm(after, topics, self.id_type)
        operation = read_notifications(self.store.context, after, limit, stop=stop, form=form)
        with persistence_errors:
            return self.store.run(operation, "feed")

    def max_notification_id(self) -> int | None:
        """Return the id of the last notification, or None if there is none."""
        with persistence_errors:
            return self.store.run(max_position(self.store.context), "feed") or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """Return an iterator over notifications, which waits for new ones."""
        with persistence_errors:
            return RedisSubscription(self, gt, topics)


class RedisTrackingRecorder(_StoreRecorder, TrackingRecorder):
    """Records how far an application has processed the notifications of others.

    A subclass that keeps a view stores its commits together with the tracking record, in one step:
    ``self.store.append_all([Append(…)], tracking=Tracking(name, position))``.
    """

    def insert_tracking(self, tracking: TrackingRecord) -> None:
        """Store a tracking record.

        Raises:
            IntegrityError: the stored position of the application is not below it; nothing was stored.
        """
        with persistence_errors:
            self.store.append_all([], tracking=Tracking(tracking.application_name, tracking.notification_id))

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the stored position of an application, or None."""
        with persistence_errors:
            return self.store.tracking(application_name)


class RedisProcessRecorder(RedisTrackingRecorder, RedisApplicationRecorder, ProcessRecorder):
    """Records events together with the tracking record of the notification that caused them, in one step."""
