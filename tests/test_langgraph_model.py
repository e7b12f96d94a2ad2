"""Any sequence of calls has the results of LangGraph's saver in memory, extended by prune, copies and deletes."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

from runic_redis import RedisStore
from runic_redis.langgraph import AsyncRunicSaver, RunicSaver
from tests.servers import RunningServer

THREADS = ["a", "b"]
# The second one is a call of a subgraph, the others outlive theirs. Some do not fit in tags.
NAMESPACES = ["", "node:1", "lasting", "with/slash", "#" + "long" * 40]
CHANNELS = ["messages", "value", "other"]
SPECIAL = ["__error__", "__interrupt__", "__resume__"]
_numbers = count()


class Model(InMemorySaver):
    """LangGraph's saver, with the other methods."""

    def prune(self, thread_ids: Any, *, strategy: str = "keep_latest") -> None:
        for thread in thread_ids:
            if strategy == "delete":
                self.delete_thread(thread)
            else:
                self._drop(thread, self._not_latest(thread))

    def _not_latest(self, thread: str) -> set[tuple[str, str]]:
        namespaces = self.storage[thread]
        latest = {ns: max(ids) for ns, ids in namespaces.items() if ids}
        dropped = {(ns, one) for ns, ids in namespaces.items() for one in ids if one != latest[ns]}
        for ns in latest:
            metadata = self.serde.loads_typed(namespaces[ns][latest[ns]][1])
            root = metadata["parents"].get("")
            if ":" in ns and root is not None and "" in latest and root < latest[""]:
                dropped |= {(ns, one) for one in namespaces[ns]}
        return dropped

    def delete_for_runs(self, run_ids: Any) -> None:
        for thread in list(self.storage):
            self._drop(
                thread,
                {
                    (ns, one)
                    for ns, ids in self.storage[thread].items()
                    for one, (_, metadata, _) in ids.items()
                    if self.serde.loads_typed(metadata).get("run_id") in run_ids
                },
            )

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        source, target = source_thread_id, target_thread_id
        for ns, ids in self.storage[source].items():
            self.storage[target][ns].update(ids)
        for (thread, *key), writes in list(self.writes.items()):
            if thread == source:
                kept = self.writes[(target, *key)]  # type: ignore[index]
                kept.update({one: write for one, write in writes.items() if one[1] < 0 or one not in kept})
        for (thread, *key), blob in list(self.blobs.items()):
            if thread == source:
                self.blobs[(target, *key)] = blob  # type: ignore[index]

    def _drop(self, thread: str, dropped: set[tuple[str, str]]) -> None:
        if not dropped:
            return
        newest = {ns: max(ids) for ns, ids in self.storage[thread].items() if ids}
        for ns, checkpoint_id in dropped:
            del self.storage[thread][ns][checkpoint_id]
        for key in list(self.writes):
            _, ns, checkpoint_id = key
            is_gone = key[0] == thread and checkpoint_id not in self.storage[thread].get(ns, {})
            if is_gone and ((ns, checkpoint_id) in dropped or checkpoint_id < newest.get(ns, "")):
                del self.writes[key]


class Calls:
    """Makes each call on the model, and on one of two savers that share a store."""

    def __init__(self, savers: list[Any], run: Callable[[Any], Any]) -> None:
        self.model = Model()
        self.savers = savers
        self.run = run
        number = next(_numbers)
        self.names = {thread: f"{number}-{thread}" for thread in THREADS}
        self.ids = count(1)
        # The last checkpoints of each place, with their values and versions.
        self.put_before: dict[tuple[str, str], list[tuple[Any, dict[str, Any], dict[str, Any]]]] = {}

    def both(self, which: int, method: str, *args: Any, **options: Any) -> None:
        note(f"saver {which}: {method}{args}{options}")
        getattr(self.model, method)(*args, **options)
        self.run(getattr(self.savers[which], method)(*args, **options))
        if method == "delete_thread" or options.get("strategy") == "delete":
            # A later checkpoint has all its values from itself.
            gone = args[0] if method == "delete_thread" else args[0][0]
            self.put_before = {key: made for key, made in self.put_before.items() if self.names[key[0]] != gone}

    def config(self, thread: str, ns: str, checkpoint_id: str | None = None) -> Any:
        config: dict[str, Any] = {"thread_id": self.names[thread], "checkpoint_ns": ns}
        if checkpoint_id is not None:
            config["checkpoint_id"] = checkpoint_id
        return {"configurable": config}

    def put(self, which: int, thread: str, ns: str, back: int, changes: dict[str, Any], run_id: int) -> None:
        made = self.put_before.setdefault((thread, ns), [])
        parent, values, versions = made[-1 - back % len(made)] if made else (None, {}, {})
        values, versions = dict(values), dict(versions)
        for channel, change in changes.items():
            versions[channel] = self.model.get_next_version(versions.get(channel), None)
            kind, size = change
            if kind == "drop":
                values.pop(channel, None)
            elif kind == "grow":
                before = values[channel] if isinstance(values.get(channel), list) else []
                values[channel] = [*before, {"number": len(before), "text": "x" * size}]
            elif kind == "shrink":
                values[channel] = values[channel][1:] if isinstance(values.get(channel), list) else []
            else:
                values[channel] = {"text": "y" * size}
        checkpoint_id = f"{next(self.ids):08}"
        root = self.put_before.get((thread, ""))
        metadata = {"source": "loop", "step": len(made), "parents": {"": root[-1][0]} if root and ns else {}}
        metadata["run_id"] = f"run-{run_id}"
        checkpoint: Any = {
            "v": 4,
            "id": checkpoint_id,
            "ts": "now",
            "channel_values": values,
            "channel_versions": versions,
            "versions_seen": {"node": {"value": 1}},
            "updated_channels": sorted(changes),
        }
        new = {channel: versions[channel] for channel in changes}
        self.both(which, "put", self.config(thread, ns, parent), checkpoint, metadata, new)
        made.append((checkpoint_id, values, versions))

    def put_writes(self, which: int, thread: str, ns: str, back: int, task: int, writes: list[tuple[str, Any]]) -> None:
        made = self.put_before.get((thread, ns))
        # Sometimes, the writes come before their checkpoint.
        checkpoint_id = made[-back][0] if made and 0 < back <= len(made) else f"{next(self.ids):08}"
        if made is None or back == 0:
            self.ids = count(int(checkpoint_id))
        # (The path is that of the task: the same for each call.)
        self.both(which, "put_writes", self.config(thread, ns, checkpoint_id), writes, f"task-{task}", f"~{9 - task}")

    def compare(self) -> None:
        for thread, name in self.names.items():
            for ns in NAMESPACES:
                expected = list(self.model.list(self.config(thread, ns)))
                for saver in self.savers:
                    assert listed(saver, self.run, self.config(thread, ns)) == expected
                    assert self.run(saver.get_tuple(self.config(thread, ns))) == (expected[0] if expected else None)
                for one in expected:
                    assert self.run(self.savers[0].get_tuple(one.config)) == one
                if expected:
                    self.compare_parts(thread, ns, expected)
            every = {"configurable": {"thread_id": name}}
            in_order = sorted(self.model.list(every), key=id_of, reverse=True)
            found = listed(self.savers[0], self.run, every)
            assert list(map(id_of, found)) == list(map(id_of, in_order))
            assert sorted(found, key=place_of) == sorted(in_order, key=place_of)

    def compare_parts(self, thread: str, ns: str, expected: list[CheckpointTuple]) -> None:
        config, middle = self.config(thread, ns), expected[len(expected) // 2]
        for options in (
            {"limit": 2},
            {"before": middle.config},
            {"before": middle.config, "limit": 1},
            {"filter": {"step": middle.metadata["step"]}},
            {"filter": {"source": "loop", "run_id": "run-0"}, "limit": 2},
        ):
            assert listed(self.savers[1], self.run, config, **options) == list(self.model.list(config, **options))
        assert listed(self.savers[1], self.run, middle.config) == [middle]
        # (The saver in memory takes values from versions, and others from checkpoints. Without changes, they agree.)
        history = self.run(self.savers[1].get_delta_channel_history(config=middle.config, channels=["value", "none"]))
        assert set(history) == {"value", "none"}


def id_of(found: CheckpointTuple) -> str:
    return found.config["configurable"]["checkpoint_id"]  # type: ignore[no-any-return]


def place_of(found: CheckpointTuple) -> tuple[str, str]:
    return id_of(found), found.config["configurable"]["checkpoint_ns"]


def listed(saver: Any, run: Callable[[Any], Any], config: Any, **options: Any) -> list[CheckpointTuple]:
    if isinstance(saver, RunicSaver):
        return list(saver.list(config, **options))

    async def collect_all() -> list[CheckpointTuple]:
        return [one async for one in saver.saver.alist(config, **options)]

    return run(collect_all())  # type: ignore[no-any-return]


class Awaited:
    """The asynchronous methods of a saver under the names of the others."""

    def __init__(self, saver: AsyncRunicSaver) -> None:
        self.saver = saver

    def __getattr__(self, name: str) -> Any:
        return getattr(self.saver, f"a{name}")


SIZES = st.sampled_from([1, 700, 3000, 9000])
CHANGES = st.dictionaries(
    st.sampled_from(CHANNELS), st.tuples(st.sampled_from(["grow", "grow", "shrink", "set", "drop"]), SIZES), max_size=3
)
WRITES = st.lists(
    st.tuples(st.sampled_from([*CHANNELS, *SPECIAL]), st.integers(0, 99) | st.binary(max_size=3) | st.none()),
    max_size=3,
)
PLACE = st.tuples(st.integers(0, 1), st.sampled_from(THREADS), st.sampled_from(NAMESPACES))
PUT = st.tuples(st.just("put"), PLACE, st.integers(0, 3), CHANGES, st.integers(0, 2))
PUT_WRITES = st.tuples(st.just("put_writes"), PLACE, st.integers(0, 3), st.integers(0, 2), WRITES)
RARE = (
    st.tuples(st.just("prune"), st.integers(0, 1), st.sampled_from(THREADS), st.sampled_from(["keep_latest", "delete"]))
    | st.tuples(st.just("delete_for_runs"), st.integers(0, 1), st.integers(0, 2))
    | st.tuples(st.just("delete_thread"), st.integers(0, 1), st.sampled_from(THREADS))
    | st.tuples(st.just("copy_thread"), st.integers(0, 1))
)
OPERATIONS = st.lists(PUT | PUT | PUT_WRITES | PUT_WRITES | RARE, min_size=3, max_size=25)


def play(calls: Calls, operations: list[Any]) -> None:
    for kind, *args in operations:
        if kind in {"put", "put_writes"}:
            (which, thread, ns), *rest = args
            getattr(calls, kind)(which, thread, ns, *rest)
        elif kind == "prune":
            calls.both(args[0], "prune", [calls.names[args[1]]], strategy=args[2])
        elif kind == "delete_for_runs":
            calls.both(args[0], kind, [f"run-{args[1]}"])
        elif kind == "delete_thread":
            calls.both(args[0], kind, calls.names[args[1]])
        else:
            calls.both(args[0], kind, calls.names["a"], calls.names["b"])
    calls.compare()


@pytest.fixture
def store(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        yield store


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(operations=OPERATIONS)
def test_any_calls_have_the_results_of_the_saver_in_memory(store: RedisStore, operations: list[Any]) -> None:
    play(Calls([RunicSaver(store), RunicSaver(store)], lambda result: result), operations)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(operations=OPERATIONS)
def test_in_asyncio_too(valkey: RunningServer, namespace: str, operations: list[Any]) -> None:
    with asyncio.Runner() as runner:
        saver = AsyncRunicSaver.from_url(valkey.url(), namespace=namespace, partitions=1)
        runner.run(saver.open())
        try:
            play(Calls([Awaited(saver), Awaited(AsyncRunicSaver(saver.store))], runner.run), operations)
        finally:
            runner.run(saver.close())
