"""The persistence module for applications of `eventsourcing.dcb`: ``PERSISTENCE_MODULE=runic_redis.eventsourcing.dcb``.

All events of an application are in one workflow of its namespace. The position of an event is its position in the feed.
"""

from collections.abc import Iterator, Sequence

from eventsourcing.dcb.api import (
    DCBAppendCondition,
    DCBEvent,
    DCBQuery,
    DCBReadResponse,
    DCBRecorder,
    DCBSequencedEvent,
    DCBSubscription,
)
from eventsourcing.dcb.persistence import DCBInfrastructureFactory
from eventsourcing.persistence import ProgrammingError

from runic_redis.eventsourcing.dcb_events import DCBEventRegistry, encode_dcb, encode_query, matches
from runic_redis.eventsourcing.factory import RedisFactory
from runic_redis.eventsourcing.mapping import persistence_errors
from runic_redis.eventsourcing.recorders import RedisTrackingRecorder
from runic_redis.eventsourcing.subscriptions import FeedItems
from runic_redis.operations.commits import Commit
from runic_redis.operations.groups import Append
from runic_redis.store import RedisStore

# The workflow with the events.
_WORKFLOW_ID = "dcb"


class RedisDCBRecorder(DCBRecorder):
    """Records events with tags, and appends events on the condition that no others match a query.

    Attributes:
        store: the store.
    """

    def __init__(self, store: RedisStore) -> None:
        self.store = store

    def read(
        self, query: DCBQuery | None = None, *, after: int | None = None, limit: int | None = None
    ) -> "RedisDCBReadResponse":
        """Return the events that match, in order; see `eventsourcing.dcb.api.DCBRecorder`.

        Raises:
            OperationalError: the server cannot be reached.
        """
        with persistence_errors:
            found = self.store.read_where(encode_query(query), after=after or 0, limit=limit)
        events = [DCBSequencedEvent(one.event, one.position) for one in found.events]
        head = found.head if limit is None else events[-1].position if events else None
        return RedisDCBReadResponse(iter(events), head or None)

    def append(self, events: Sequence[DCBEvent], condition: DCBAppendCondition | None = None) -> int:
        """Append events, all or none, and return the position of the last one.

        Raises:
            IntegrityError: an event after the position of the condition matches it; nothing was stored.
            OperationalError: the server cannot be reached, or does not confirm the write.
        """
        if not events:
            raise ProgrammingError("append takes at least one event. Nothing was sent.")
        with persistence_errors:
            encoded, tags = encode_dcb(self.store.context, events)
            items = [Append(_WORKFLOW_ID, encoded, tags=tags)]
            if condition is None:
                (appended,) = self.store.append_all(items, details=True)
            else:
                unless = encode_query(condition.fail_if_events_match)
                (appended,) = self.store.append_all(items, unless=unless, after=condition.after or 0, details=True)
        return appended.position or 0

    def subscribe(self, query: DCBQuery | None = None, *, after: int | None = None) -> "RedisDCBSubscription":
        """Return an iterator over the events that match, which waits for new ones."""
        return RedisDCBSubscription(self, query, after)


class RedisDCBReadResponse(DCBReadResponse):
    """The events that a read has found, and the position up to which they are complete."""

    def __init__(self, events: Iterator[DCBSequencedEvent], head: int | None) -> None:
        self._events = events
        self._head = head

    @property
    def head(self) -> int | None:
        """The position up to which the events are complete; None if there is none."""
        return self._head

    def __next__(self) -> DCBSequencedEvent:
        """Return the next event."""
        return next(self._events)


class RedisDCBSubscription(DCBSubscription[RedisDCBRecorder]):
    """An iterator over events, in order. It waits for new ones at the server, and does not poll.

    It has no thread. `stop` ends it from any thread, and one that waits in it stops at once.
    """

    def __init__(self, recorder: RedisDCBRecorder, query: DCBQuery | None = None, after: int | None = None) -> None:
        super().__init__(recorder, query, after)
        feed = recorder.store.feed(after=self._last_position, prefix=_WORKFLOW_ID, wait_s=None)
        self._items = FeedItems(feed, self._matches_of)

    def stop(self) -> None:
        """Stop the subscription."""
        super().stop()
        self._items.close()

    def __next__(self) -> DCBSequencedEvent:
        """Return the next event, and wait for it.

        Raises:
            StopIteration: the subscription was stopped.
            OperationalError: the server cannot be reached. A later step goes on from there.
        """
        if self._has_been_stopped:
            raise StopIteration
        return self._items.take()

    def _matches_of(self, commit: Commit) -> Iterator[DCBSequencedEvent]:
        for position, event in enumerate(commit.events, commit.position - len(commit.events) + 1):
            if position > self._last_position and matches(event, self._query):
                yield DCBSequencedEvent(event, position)


class RedisDCBFactory(RedisFactory, DCBInfrastructureFactory[RedisTrackingRecorder]):
    """Makes the recorders of an application of `eventsourcing.dcb`, from the variables that `RedisFactory` reads."""

    registry_class = DCBEventRegistry

    def dcb_recorder(self) -> RedisDCBRecorder:
        """Return a recorder of the application's events."""
        return RedisDCBRecorder(self.store)
