"""What both savers share."""

import logging
from collections.abc import Iterable, Sequence
from random import random
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from runic_redis.aio import AsyncRedisStore
from runic_redis.arguments import check_seconds
from runic_redis.errors import InvalidArgument, InvalidType, StoreError, short_repr
from runic_redis.langgraph.pruning import copy_thread, delete_runs, newest_kept, prune
from runic_redis.langgraph.queries import Query
from runic_redis.langgraph.records import register_in
from runic_redis.langgraph.threads import Place, Threads
from runic_redis.protocol.effects import Operation
from runic_redis.store import RedisStore

_log = logging.getLogger("runic_redis")
# The namespace of `from_url`.
NAMESPACE = "langgraph"
# The least number of events between two prunes that writes make.
_LEAST_BETWEEN_PRUNES = 16


class StoredCheckpoints(BaseCheckpointSaver[str]):
    """A checkpoint saver with its threads in a store."""

    def __init__(
        self,
        store: RedisStore | AsyncRedisStore,
        serde: SerializerProtocol | None,
        ttl: float | None,
        max_checkpoints: int | None,
    ) -> None:
        super().__init__(serde=serde)
        register_in(store.registry)
        if max_checkpoints is not None and (type(max_checkpoints) is not int or max_checkpoints < 1):
            raise InvalidArgument(
                f"max_checkpoints is a number from 1 up, or None, not {short_repr(max_checkpoints)}; nothing was sent."
            )
        self._threads = Threads(store.context, None if ttl is None else check_seconds(ttl, "ttl"))
        self._max_checkpoints = max_checkpoints

    def get_next_version(self, current: str | int | float | None, channel: None) -> str:  # noqa: ARG002
        """Return the version after one: a number that grows, and a random part.

        With the random part, two branches of a thread have different versions of a channel.
        """
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{random():016}"

    def _putting(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Operation[RunnableConfig]:
        cursor = yield from self._threads.put(self.serde, config, checkpoint, metadata, new_versions)
        place = Place.of(config)
        yield from self._prune_sometimes(place.thread, cursor)
        return place.config(checkpoint["id"])

    def _putting_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> Operation[None]:
        if not writes:
            return
        cursor = yield from self._threads.put_writes(self.serde, config, writes, task_id, task_path)
        yield from self._prune_sometimes(Place.of(config).thread, cursor)

    def _getting(self, config: RunnableConfig) -> Operation[CheckpointTuple | None]:
        return self._threads.get_tuple(self.serde, config)

    def _query(
        self,
        config: RunnableConfig | None,
        metadata: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Query:
        return Query(self._threads, self.serde, config, metadata=metadata, before=before, limit=limit)

    def _deleting_runs(self, run_ids: Sequence[str]) -> Operation[None]:
        return delete_runs(self._threads, self.serde, ids_of(run_ids))

    def _copying(self, source: str, target: str) -> Operation[None]:
        return copy_thread(self._threads, str(source), str(target))

    def _pruning(self, thread_ids: Sequence[str], strategy: str) -> Operation[None]:
        if strategy not in {"keep_latest", "delete"}:
            raise InvalidArgument(
                f'strategy is "keep_latest" or "delete", not {short_repr(strategy)}. Nothing was deleted.'
            )
        for thread in ids_of(thread_ids):
            if strategy == "delete":
                yield from self._threads.delete_thread(thread)
            else:
                yield from self._keep_newest(thread, 1)

    def _keep_newest(self, thread: str, count: int) -> Operation[None]:
        return prune(self._threads, self.serde, thread, newest_kept(self._threads, self.serde, thread, count))

    def _prune_sometimes(self, thread: str, cursor: int) -> Operation[None]:
        """Prune a thread after some of its writes. That depends on its cursor alone, so processes need not agree."""
        most = self._max_checkpoints
        if most is None or cursor % max(most, _LEAST_BETWEEN_PRUNES):
            return
        try:
            yield from self._keep_newest(thread, most)
        except StoreError as error:
            # The write is stored, and a later one prunes again.
            _log.warning("The thread %r was not pruned: %s", thread, error)


def thread_of(config: RunnableConfig | None) -> str:
    """Return the id of the workflow that an operation is about, for spans and metrics; "" for all threads."""
    return "" if config is None else str(config["configurable"]["thread_id"])


def ids_of(ids: Any) -> Sequence[str]:
    """Return ids of threads, or of runs, as a list. A single text is a mistake.

    Raises:
        InvalidType: it is no list.
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InvalidType(f"Pass a list of ids, not {short_repr(ids)}. Nothing was deleted.")
    return [str(one) for one in ids]
