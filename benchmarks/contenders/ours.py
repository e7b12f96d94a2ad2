"""This store: `RedisStore`, and `AsyncRedisStore` for tasks. Only public methods, and registered classes."""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack

from runic_redis import AsyncRedisStore, RedisStore

from ..events import Kind, some_events
from ..figures import Turn
from ..measure import one_by_one, timed
from .base import Contender
from .jobs import Jobs


class Ours(Contender):
    name = "runic_redis"
    about = "RedisStore, and AsyncRedisStore from tasks; registered dataclasses, one commit a call, no feed"
    # Further arguments of the worker that completes jobs.
    job_arguments: tuple[str, ...] = ()

    def open(self) -> None:
        self.store: RedisStore = self.open_store(RedisStore)
        self._tasks = contextlib.AsyncExitStack()
        self._task_store: Any = None
        self._jobs: Jobs | None = None
        self._batches = itertools.count()

    def open_store(self, kind: type[Any]) -> Any:
        """Open the namespace with one of the two kinds of stores."""
        return kind.from_url(self.place.server.url, namespace=self.namespace_name(), feed=False)

    def namespace_name(self) -> str:
        return self.place.server.token

    def close(self) -> None:
        if self._jobs is not None:
            self._jobs.close()
        self.place.runner.run(self._tasks.aclose())
        self.store.delete_namespace()
        self.store.close()

    def delete(self, key: str) -> None:
        self.store.delete(key)

    def append(self, key: str, prepared: Any) -> object:
        return self.store.append(key, prepared)

    async def connect_tasks(self) -> None:
        if self._task_store is None:
            self._task_store = await self._tasks.enter_async_context(self.open_store(AsyncRedisStore))

    async def append_from_task(self, key: str, prepared: Any) -> object:
        return await self._task_store.append(key, prepared)

    def read(self, key: str, kind: Kind) -> list[Any]:  # noqa: ARG002 - its events know their types
        return list(self.store.stream(key))

    def mark(self, key: str, cursor: int) -> Any:  # noqa: ARG002
        return cursor

    def read_after(self, key: str, mark: Any, kind: Kind) -> list[Any]:  # noqa: ARG002
        return list(self.store.stream(key, after=mark))

    def run_steps(self, key: str, count: int) -> Turn:
        lease = self.store.acquire(key, "bench")
        taken = one_by_one(
            [lambda one=one: self.store.append(key, [one], lease=lease) for one in some_events(count)], count
        )
        self.store.release(lease)
        return taken

    def run_many_steps(self, key: str, count: int, workflows: int) -> Turn:
        self.place.runner.run(self.connect_tasks())
        store, events = self._task_store, some_events(count)
        ids = [f"{key}-{number}" for number in range(workflows)]

        async def work(lease: Any) -> None:
            for event in events:
                await store.append(lease.workflow_id, [event], lease=lease)
            await store.complete(lease.workflow_id, lease=lease)

        async def all_of_them() -> None:
            await asyncio.gather(*(store.append(one, [{"n": 1}], queue="steps") for one in ids))
            await asyncio.gather(*map(work, await store.claim("bench", workflows, queues=["steps"])))

        seconds = timed(lambda: self.place.runner.run(all_of_them()))
        return Turn(seconds / count / workflows * 1e6)

    def run_jobs(self, count: int) -> Turn:
        if self._jobs is None:
            # Only cases with jobs pay for the start.
            self.place.runner.run(self.connect_tasks())
            program = Path(__file__).with_name("job_worker.py")
            arguments = (self.place.server.url, self.namespace_name(), *self.job_arguments)
            self._jobs = Jobs(program, arguments, self._enqueue)
        return self._jobs.run(count)

    def _enqueue(self, count: int) -> None:
        async def all_of_them() -> None:
            append = self._task_store.append
            first = next(self._batches) * count
            await asyncio.gather(
                *(append(f"job-{first + one}", [{"n": one}], expected_cursor=0, queue="jobs") for one in range(count))
            )

        self.place.runner.run(all_of_them())

    def save_snapshot(self, key: str, mark: Any, state: dict[str, Any]) -> object:
        return self.store.save_snapshot(key, mark, msgpack.packb(state))

    def load_snapshot(self, key: str) -> tuple[Any, dict[str, Any]]:
        cursor, data = self.store.load_snapshot(key)
        return cursor, msgpack.unpackb(data)

    def save_fact(self, fact_hash: str, value: Any) -> object:
        return self.store.save_fact(fact_hash, value)

    def load_fact(self, fact_hash: str) -> Any:
        return self.store.load_fact(fact_hash)

    def load_facts(self, hashes: Sequence[str]) -> list[Any]:
        return list(self.store.load_facts(hashes).values())

    def list_workflows(self, prefix: str) -> list[str]:
        return list(self.store.list(prefix=prefix))

    def weigh(self, workflows: int, batches: Sequence[Sequence[Any]], kind: Kind) -> int:  # noqa: ARG002
        # A separate namespace, so that the cursors, the index and the settings count too.
        with self.namespace(f"weigh-{workflows}-{len(batches)}") as store:
            for number in range(workflows):
                for events in batches:
                    store.append(f"workflow-{number}", events)
            return sum(store.memory_usage().values())

    @contextlib.contextmanager
    def namespace(self, label: str, **settings: Any) -> Iterator[RedisStore]:
        """Open another namespace, and delete it at the end."""
        server = self.place.server
        with RedisStore.from_url(server.url, namespace=f"{server.token}-{label}", **settings) as store:
            try:
                yield store
            finally:
                store.delete_namespace()


CONTENDERS = [Ours]
