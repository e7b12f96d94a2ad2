"""The checkpoint saver for graphs that run in threads."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol

from runic_redis.langgraph.base import NAMESPACE, StoredCheckpoints, thread_of
from runic_redis.langgraph.deltas import delta_history
from runic_redis.operations.confirming import durably
from runic_redis.protocol.effects import Operation
from runic_redis.store import RedisStore

if TYPE_CHECKING:  # older versions of LangGraph do not have it
    from langgraph.checkpoint.base import DeltaChannelHistory

T = TypeVar("T")


class RunicSaver(StoredCheckpoints):
    """A LangGraph checkpoint saver on plain Redis or Valkey.

    ```python
    with RunicSaver.from_url("redis://localhost:6379/0", max_checkpoints=100) as saver:
        graph = builder.compile(checkpointer=saver)
        graph.invoke(inputs, {"configurable": {"thread_id": "1"}})
    ```

    It needs no modules in the server and no setup. Many threads and processes may use it at once. A checkpoint that
    `put` has acknowledged is as durable as the store's `durability` says. A call whose reply was lost is retried, and
    nothing is stored twice.

    A thread of LangGraph is a workflow of the store, with the thread's id. Give the savers a namespace to themselves:
    pruning a thread deletes other events that its workflow may have.

    Its asynchronous methods run the synchronous ones in threads. Use `AsyncRunicSaver` in asyncio.

    Args:
        store: the store. The saver does not close it.
        serde: how values are serialized; None for LangGraph's own serializer. Everything but names, ids, versions,
            the step, the source and the run of a checkpoint is serialized. So `EncryptedSerializer` encrypts it.
        ttl: delete a thread so many seconds after the last write to it: its checkpoints and its writes; its values as
            soon as `collect` of the store runs. None to keep it.
        max_checkpoints: keep the newest checkpoints of each thread and namespace, at least so many. Now and then, a
            write prunes the others. None to keep all.

    Raises:
        InvalidArgument: the store cannot use the arguments.
    """

    def __init__(
        self,
        store: RedisStore,
        *,
        serde: SerializerProtocol | None = None,
        ttl: float | None = None,
        max_checkpoints: int | None = None,
    ) -> None:
        super().__init__(store, serde, ttl, max_checkpoints)
        self.store = store
        self._owns_store = False

    @classmethod
    def from_url(
        cls,
        url: str | None = None,
        *,
        namespace: str = NAMESPACE,
        serde: SerializerProtocol | None = None,
        ttl: float | None = None,
        max_checkpoints: int | None = None,
        **options: Any,
    ) -> Self:
        """Return a saver with a store of its own, which it closes: it is a context manager.

        Args:
            url: where to connect, as for `RedisStore.from_url`; None for the environment's ``RUNIC_REDIS_URL``.
            namespace: the namespace of the store.
            serde: as for the class.
            ttl: as for the class.
            max_checkpoints: as for the class.
            options: further options of `RedisStore.from_url`, such as durability="fsync".

        Raises:
            ConfigurationError: the URL, the server or the settings cannot be used.
            StoreUnavailable: the server cannot be reached.
        """
        store = RedisStore.from_url(url, namespace=namespace, **options)
        try:
            saver = cls(store, serde=serde, ttl=ttl, max_checkpoints=max_checkpoints)
        except BaseException:
            store.close()
            raise
        saver._owns_store = True
        return saver

    def close(self) -> None:
        """Close the store, if the saver has opened it."""
        if self._owns_store:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, operation: Operation[T], name: str, thread_id: Any = "") -> T:
        return self.store.run(durably(self.store.context, operation, None), name, str(thread_id))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint with its values and pending writes.

        Args:
            config: the thread, the namespace of checkpoints ("" without one), and the id of the checkpoint; without an
                id, the latest one.

        Returns:
            None if there is no such checkpoint.
        """
        return self._do(self._getting(config), "get_tuple", thread_of(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph names it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Return an iterator over checkpoints, the newest first. It reads a page at a time.

        Args:
            config: the thread. Without a namespace of checkpoints, it names all of them. None for all threads: those
                written to last come first, each with its checkpoints together.
            filter: only checkpoints whose metadata has these values.
            before: only checkpoints before the one that this config names.
            limit: how many to return at most.
        """
        query = self._query(config, filter, before, limit)
        while page := self._do(query.next_page(), "list", thread_of(config)):
            yield from page

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, in one round trip. Return its config.

        Args:
            config: the thread, the namespace of checkpoints, and the id of the parent, if there is one.
            checkpoint: the checkpoint.
            metadata: its metadata. Ids and values of the config are added, as LangGraph's savers do.
            new_versions: the channels that have changed since the parent, with their versions.
        """
        return self._do(self._putting(config, checkpoint, metadata, new_versions), "put", thread_of(config))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store the writes of a task to a checkpoint, in one round trip. They may arrive before the checkpoint.

        Args:
            config: the thread, the namespace of checkpoints, and the id of the checkpoint.
            writes: pairs of a channel and a value.
            task_id: the task.
            task_path: the path of the task.
        """
        self._do(self._putting_writes(config, writes, task_id, task_path), "put_writes", thread_of(config))

    def delete_thread(self, thread_id: str) -> None:
        """Delete all checkpoints and writes of a thread."""
        self._do(self._threads.delete_thread(thread_id), "delete_thread", thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of runs, and their writes, in all threads. This asks every thread.

        Args:
            run_ids: the runs, by the "run_id" in the metadata of their checkpoints.
        """
        self._do(self._deleting_runs(run_ids), "delete_for_runs")

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread to another one. Values are not copied but shared.

        A copy that was interrupted can be repeated.
        """
        self._do(self._copying(source_thread_id, target_thread_id), "copy_thread", source_thread_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete checkpoints of threads, and their writes.

        Values that nothing refers to any more go with the next `collect` of the store. Delta channels keep what they
        need. A prune that was interrupted can be repeated.

        Args:
            thread_ids: the threads.
            strategy: "keep_latest" keeps the latest checkpoint of each namespace, with its writes. A subgraph that is
                called has a namespace for each call: it is kept with the checkpoint from which it was called. "delete"
                deletes the threads.

        Raises:
            StoreError: a thread was written to all the time.
        """
        self._do(self._pruning(thread_ids, strategy), "prune")

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> "Mapping[str, DeltaChannelHistory]":
        """Return the last stored value of delta channels, and the writes since then.

        Args:
            config: the checkpoint whose ancestors are read.
            channels: the channels.
        """
        operation = delta_history(self._threads, self.serde, config, channels)
        return self._do(operation, "get_delta_channel_history", thread_of(config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Run `get_tuple` in a thread."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph names it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Run `list` in a thread, page by page."""
        query = self._query(config, filter, before, limit)
        while page := await asyncio.to_thread(self._do, query.next_page(), "list", thread_of(config)):
            for found in page:
                yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Run `put` in a thread."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Run `put_writes` in a thread."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """Run `delete_thread` in a thread."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Run `delete_for_runs` in a thread."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Run `copy_thread` in a thread."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Run `prune` in a thread."""
        await asyncio.to_thread(self.prune, thread_ids, strategy=strategy)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> "Mapping[str, DeltaChannelHistory]":
        """Run `get_delta_channel_history` in a thread."""
        return await asyncio.to_thread(self.get_delta_channel_history, config=config, channels=channels)
