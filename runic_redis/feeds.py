"""Iterators over the feed of a namespace."""

from collections.abc import Callable, Coroutine
from typing import Any

from runic_redis.operations.commits import Commit
from runic_redis.operations.feed import FeedReader
from runic_redis.positions import Positions
from runic_redis.tails import AsyncTail, Tail


class _Place:
    """Notes how far a caller has come in the pages of a reader."""

    def __init__(self, reader: FeedReader) -> None:
        self._reader = reader
        self._last: Commit | None = None

    def passed(self, commit: Commit) -> Commit:
        """Note a commit that the caller gets, and return it."""
        self._last = commit
        return commit

    def positions(self, *, is_page_read: bool) -> Positions:
        """Return the positions after the last commit, or after the whole page if the caller has all of it."""
        return self._reader.positions if is_page_read or self._last is None else self._last.positions


class Feed(Tail[Commit]):
    """An iterator over the commits of all workflows. `RedisStore.feed` makes it.

    It ends when no commit comes for `wait_s` seconds, or at `until`. A later step goes on from there, and so does a
    step after an error. It is a context manager, as `Tail` is.
    """

    def __init__(self, run: Callable[[Any], Any], reader: FeedReader, wait_s: float | None) -> None:
        self._place = _Place(reader)
        super().__init__(run, reader, self._place.passed, wait_s)

    @property
    def positions(self) -> Positions:
        """The positions after the last commit that the iterator returned, and all that it passed over since."""
        return self._place.positions(is_page_read=not self._items)


class AsyncFeed(AsyncTail[Commit]):
    """An async iterator over the commits of all workflows. `AsyncRedisStore.feed` makes it.

    It ends when no commit comes for `wait_s` seconds, or at `until`. A later step goes on from there, and so does a
    step after an error, or after one that was cancelled. It is an async context manager, as `AsyncTail` is.
    """

    def __init__(
        self,
        run: Callable[[Any], Coroutine[Any, Any, Any]],
        check_loop: Callable[[], None],
        reader: FeedReader,
        wait_s: float | None,
    ) -> None:
        self._place = _Place(reader)
        super().__init__(run, check_loop, reader, self._place.passed, wait_s)

    @property
    def positions(self) -> Positions:
        """The positions after the last commit that the iterator returned, and all that it passed over since."""
        return self._place.positions(is_page_read=not self._items)
