"""Listing checkpoints, page by page, the newest first."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, get_checkpoint_id
from langgraph.checkpoint.serde.base import SerializerProtocol

from runic_redis.errors import FactNotFound
from runic_redis.langgraph.records import SavedCheckpoint, checkpoint_tag, checkpoints_prefix
from runic_redis.langgraph.threads import Place, Threads, checkpoint_in
from runic_redis.operations.finding import find
from runic_redis.operations.listing import Listing
from runic_redis.protocol.effects import Operation

# How many checkpoints are read at once.
_PAGE = 32


class Query:
    """The checkpoints that match the arguments of a saver's `list`.

    Args:
        threads: the store's.
        serde: the serializer.
        config: the thread, or all threads for None. Without a namespace, it names all namespaces of the thread.
        metadata: what the metadata must hold.
        before: list only checkpoints before the one that this config names.
        limit: how many to list; None for all.
    """

    def __init__(
        self,
        threads: Threads,
        serde: SerializerProtocol,
        config: RunnableConfig | None,
        *,
        metadata: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        self._threads = threads
        self._serde = serde
        self._metadata = metadata or {}
        self._before = None if before is None else get_checkpoint_id(before)
        self._left = limit
        self._listing = Listing(threads.context) if config is None else None
        # The places that are still to be read.
        self._places: deque[Place] = deque()
        # Whether the namespace is known. Otherwise, the thread is read whole, to sort its checkpoints.
        self._one_ns = False
        if config is not None:
            self._places.append(Place.of(config))
            self._one_ns = config["configurable"].get("checkpoint_ns") is not None
        # The checkpoints that are read and not listed yet, of the first place; and the tag below which to read on.
        self._read: deque[SavedCheckpoint] = deque()
        self._below: str | None = None
        self._begun = False

    def next_page(self) -> Operation[list[CheckpointTuple]]:
        """Return the next checkpoints: at least one, or none when all are listed."""
        while self._left is None or self._left > 0:
            if not self._read and not (yield from self._read_on()):
                return []
            most = _PAGE if self._left is None else min(_PAGE, self._left)
            page: list[SavedCheckpoint] = []
            while self._read and len(page) < most:
                saved = self._read.popleft()
                if self._matches(saved):
                    page.append(saved)
            if page:
                tuples = yield from self._load(page)
                self._left = None if self._left is None else self._left - len(tuples)
                if tuples:
                    return tuples
        return []

    def _read_on(self) -> Operation[bool]:
        """Read more checkpoints. Return whether there are more, or may be."""
        if self._begun and self._below is None:
            self._places.popleft()
            self._begun = False
        if not self._places:
            if self._listing is None:
                return False
            for thread in (yield from self._listing.next_page()):
                self._places.append(Place(thread, thread, "", None))
            return bool(self._places)
        place = self._places[0]
        prefix = checkpoints_prefix(place.ns if self._one_ns else None)
        limit = None
        if self._one_ns:
            limit = _PAGE if self._left is None or self._metadata else min(_PAGE, self._left)
            if not self._begun and self._before is not None:
                self._below = checkpoint_tag(place.ns, self._before)
        context = self._threads.context
        if place.checkpoint_id is not None and self._one_ns:
            found = yield from find(context, place.thread, tag=checkpoint_tag(place.ns, place.checkpoint_id))
            found.reverse()
            limit = None
        else:
            found = yield from find(context, place.thread, prefix=prefix, below=self._below, reverse=True, limit=limit)
        self._begun = True
        self._below = found[-1].tag if limit is not None and len(found) == limit else None
        # Of several commits with one tag, the last one counts.
        latest = {commit.tag: commit for commit in reversed(found)}
        checkpoints = [one for commit in latest.values() if (one := checkpoint_in(commit)) is not None]
        self._read.extend(sorted(checkpoints, key=lambda one: one.id, reverse=True))
        return True

    def _matches(self, saved: SavedCheckpoint) -> bool:
        wanted = self._places[0].checkpoint_id
        if wanted is not None and saved.id != wanted:
            return False
        if self._before and saved.id >= self._before:
            return False
        if not self._metadata:
            return True
        kind, data = saved.rest
        _, metadata = self._serde.loads_typed((kind, data))
        return all(metadata.get(name) == value for name, value in self._metadata.items())

    def _load(self, page: list[SavedCheckpoint]) -> Operation[list[CheckpointTuple]]:
        """Return checkpoints with their values. Those that were pruned meanwhile are left out."""
        place = self._places[0]
        try:
            return (yield from self._threads.load(self._serde, place, page))
        except FactNotFound:
            if len(page) == 1:
                return []
        tuples: list[CheckpointTuple] = []
        for saved in page:
            tuples += yield from self._load([saved])
        return tuples
