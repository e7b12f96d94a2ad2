"""Subscriptions to the notifications of an application."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from eventsourcing.persistence import Notification, Subscription

from runic_redis.eventsourcing.mapping import persistence_errors
from runic_redis.eventsourcing.notifications import NotificationForm
from runic_redis.feeds import Feed
from runic_redis.operations.commits import Commit

if TYPE_CHECKING:
    from runic_redis.eventsourcing.recorders import RedisApplicationRecorder

T = TypeVar("T")


class FeedItems(Generic[T]):
    """What the commits of a feed hold, item by item.

    Args:
        feed: the feed. It waits for new commits.
        items_of: returns the items of a commit.
    """

    def __init__(self, feed: Feed, items_of: Callable[[Commit], Iterable[T]]) -> None:
        self._feed = feed
        self._items_of = items_of
        self._found: deque[T] = deque()

    def take(self) -> T:
        """Return the next item, and wait for it.

        Raises:
            StopIteration: the feed was closed.
            OperationalError: the server cannot be reached. A later call goes on from there.
        """
        while not self._found:
            with persistence_errors:
                commit = next(self._feed)
            self._found.extend(self._items_of(commit))
        return self._found.popleft()

    def close(self) -> None:
        """Close the feed. A call that waits in it stops at once."""
        self._feed.close()


class RedisSubscription(Subscription["RedisApplicationRecorder"]):
    """An iterator over notifications, in order. It waits for new ones at the server, and does not poll.

    It has no thread. `stop` ends it from any thread, and one that waits in it stops at once.
    """

    def __init__(self, recorder: "RedisApplicationRecorder", gt: int | None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder, gt, topics)
        form = NotificationForm(gt or 0, topics, recorder.id_type)
        self._items = FeedItems(recorder.store.feed(after=gt or 0, wait_s=None), form.of_commit)

    def stop(self) -> None:
        """Stop the subscription."""
        super().stop()
        self._items.close()

    def __next__(self) -> Notification:
        """Return the next notification, and wait for it.

        Raises:
            StopIteration: the subscription was stopped.
            OperationalError: the server cannot be reached. A later step goes on from there.
        """
        if self._has_been_stopped:
            raise StopIteration
        return self._items.take()
