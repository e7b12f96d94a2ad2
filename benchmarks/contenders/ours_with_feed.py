"""This store in a namespace with a feed. It takes part in the cases of the feed alone."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from runic_redis import RedisStore

from ..events import Kind
from .base import Place
from .ours import Ours

# The commits that one call stores.
_AT_ONCE = 1000


class OursWithFeed(Ours):
    name = "runic_redis, feed"
    about = "the same, in a namespace with feed=True"
    usual = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        # The namespace of each log, and what deletes it.
        self._logs: dict[str, tuple[RedisStore, contextlib.ExitStack]] = {}

    def open_store(self, kind: type[Any]) -> Any:
        return kind.from_url(self.place.server.url, namespace=f"{self.place.server.token}-feed", feed=True)

    def delete(self, key: str) -> None:
        if key in self._logs:
            self._logs.pop(key)[1].close()
        else:
            super().delete(key)

    def write_commits(self, key: str, commits: Sequence[tuple[str, Any]], kind: Kind) -> None:  # noqa: ARG002
        stack = contextlib.ExitStack()
        store = stack.enter_context(self.namespace(key.rpartition(":")[2], feed=True))
        self._logs[key] = store, stack
        for at in range(0, len(commits), _AT_ONCE):
            store.append_many([(workflow, [event]) for workflow, event in commits[at : at + _AT_ONCE]])

    def follow(self, key: str) -> Iterator[Any]:
        for commit in self._logs[key][0].feed():
            yield from commit.events


CONTENDERS = [OursWithFeed]
