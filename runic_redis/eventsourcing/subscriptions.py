"""Subscriptions to the notifications of an application."""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eventsourcing.persistence import Notification, Subscription

from runic_redis.eventsourcing.mapping import persistence_errors
from runic_redis.eventsourcing.notifications import NotificationForm

if TYPE_CHECKING:
    from runic_redis.eventsourcing.recorders import RedisApplicationRecorder


class RedisSubscription(Subscription["RedisApplicationRecorder"]):
    """An iterator over notifications, in order. It waits for new ones at the server, and does not poll.

    It has no thread. `stop` ends it from any thread, and one that waits in it stops at once.
    """

    def __init__(self, recorder: "RedisApplicationRecorder", gt: int | None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder, gt, topics)
        self._form = NotificationForm(gt or 0, topics, recorder.id_type)
        self._found: deque[Notification] = deque()
        self._feed = recorder.store.feed(after=gt or 0, wait_s=None)

    def stop(self) -> None:
        """Stop the subscription."""
        super().stop()
        self._feed.close()

    def __exit__(self, *args: object, **kwargs: Any) -> None:
        super().__exit__(*args, **kwargs)
        self._found.clear()

    def __next__(self) -> Notification:
        """Return the next notification, and wait for it.

        Raises:
            StopIteration: the subscription was stopped.
            OperationalError: the server cannot be reached. A later step goes on from there.
        """
        while not self._has_been_stopped:
            if self._found:
                return self._found.popleft()
            with persistence_errors:
                commit = next(self._feed)
            self._found.extend(self._form.of_commit(commit))
        raise StopIteration
