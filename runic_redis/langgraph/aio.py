"""The checkpoint saver for graphs that run in asyncio."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol

from runic_redis.aio import AsyncRedisStore
from runic_redis.errors import StoreError
from runic_redis.langgraph.base import NAMESPACE, StoredCheckpoints, thread_of
from runic_redis.langgraph.deltas import delta_history
from runic_redis.operations.confirming import durably
from runic_redis.protocol.effects import Operation

if TYPE_CHECKING:  # older versions of LangGraph do not have it
    from langgraph.checkpoint.base import DeltaChannelHistory

T = TypeVar("T")


class AsyncRunicSaver(StoredCheckpoints):
    """A LangGraph checkpoint saver on plain Redis or Valkey, for asyncio.

    ```python
    async with AsyncRunicSaver.from_url("redis://localhost:6379/0", max_checkpoints=100) as saver:
        graph = builder.compile(checkpointer=saver)
        await graph.ainvoke(inputs, {"configurable": {"thread_id": "1"}})
    ```

    It does what `RunicSaver` does, and reads and writes the same threads. It belongs to the event loop in which it is
    used first. Its synchronous methods work from other threads while that loop runs.

    Args:
        store: the store, opened. The saver does not close it.
        serde: as for `RunicSaver`.
        ttl: as for `RunicSaver`.
        max_checkpoints: as for `RunicSaver`.

    Raises:
        InvalidArgument: the store cannot use the arguments.
    """

    def __init__(
        self,
        store: AsyncRedisStore,
        *,
        serde: SerializerProtocol | None = None,
        ttl: float | None = None,
        max_checkpoints: int | None = None,
    ) -> None:
        super().__init__(store, serde, ttl, max_checkpoints)
        self.store = store
        self._owns_store = False
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

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
        """Return a saver with a store of its own: entering it opens the store, and leaving it closes it.

        The arguments are those of `RunicSaver.from_url`.
        """
        store = AsyncRedisStore.from_url(url, namespace=namespace, **options)
        saver = cls(store, serde=serde, ttl=ttl, max_checkpoints=max_checkpoints)
        saver._owns_store = True
        return saver

    async def open(self) -> Self:
        """Open the store, if the saver has made it."""
        self._loop = asyncio.get_running_loop()
        if self._owns_store:
            await self.store.open()
        return self

    async def close(self) -> None:
        """Close the store, if the saver has made it."""
        if self._owns_store:
            await self.store.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _do(self, operation: Operation[T], name: str, thread_id: Any = "") -> T:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return await self.store.run(durably(self.store.context, operation, None), name, str(thread_id))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine that runs in the saver's event loop."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if self._loop is None or running is self._loop:
            work.close()
            where = "in its event loop" if running is not None else "before it was used in an event loop"
            raise StoreError(
                f"A synchronous method of an AsyncRunicSaver was called {where}. Nothing was sent. Await the "
                "asynchronous method, such as aget_tuple or graph.ainvoke, or use a RunicSaver."
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint with its values and pending writes.

        See `RunicSaver.get_tuple`.
        """
        return await self._do(self._getting(config), "get_tuple", thread_of(config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph names it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Return an iterator over checkpoints, the newest first. It reads a page at a time.

        See `RunicSaver.list`.
        """
        query = self._query(config, filter, before, limit)
        while page := await self._do(query.next_page(), "list", thread_of(config)):
            for found in page:
                yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, in one round trip. Return its config.

        See `RunicSaver.put`.
        """
        return await self._do(self._putting(config, checkpoint, metadata, new_versions), "put", thread_of(config))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store the writes of a task to a checkpoint, in one round trip. They may arrive before the checkpoint.

        See `RunicSaver.put_writes`.
        """
        await self._do(self._putting_writes(config, writes, task_id, task_path), "put_writes", thread_of(config))

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete all checkpoints and writes of a thread."""
        await self._do(self._threads.delete_thread(thread_id), "delete_thread", thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of runs, and their writes, in all threads. This asks every thread.

        See `RunicSaver.delete_for_runs`.
        """
        await self._do(self._deleting_runs(run_ids), "delete_for_runs")

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread to another one. Values are not copied but shared.

        See `RunicSaver.copy_thread`.
        """
        await self._do(self._copying(source_thread_id, target_thread_id), "copy_thread", source_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete checkpoints of threads, and their writes.

        See `RunicSaver.prune`.
        """
        await self._do(self._pruning(thread_ids, strategy), "prune")

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> "Mapping[str, DeltaChannelHistory]":
        """Return the last stored value of delta channels, and the writes since then.

        See `RunicSaver.get_delta_channel_history`.
        """
        operation = delta_history(self._threads, self.serde, config, channels)
        return await self._do(operation, "get_delta_channel_history", thread_of(config))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Run `aget_tuple` in the saver's event loop, from another thread."""
        return self._wait(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph names it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Run `alist` in the saver's event loop, from another thread."""
        query = self._query(config, filter, before, limit)
        while page := self._wait(self._do(query.next_page(), "list", thread_of(config))):
            yield from page

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Run `aput` in the saver's event loop, from another thread."""
        return self._wait(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Run `aput_writes` in the saver's event loop, from another thread."""
        self._wait(self.aput_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Run `adelete_thread` in the saver's event loop, from another thread."""
        self._wait(self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Run `adelete_for_runs` in the saver's event loop, from another thread."""
        self._wait(self.adelete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Run `acopy_thread` in the saver's event loop, from another thread."""
        self._wait(self.acopy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Run `aprune` in the saver's event loop, from another thread."""
        self._wait(self.aprune(thread_ids, strategy=strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> "Mapping[str, DeltaChannelHistory]":
        """Run `aget_delta_channel_history` in the saver's event loop, from another thread."""
        return self._wait(self.aget_delta_channel_history(config=config, channels=channels))
