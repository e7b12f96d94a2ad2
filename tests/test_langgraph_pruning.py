"""Pruning threads: what is kept, what is deleted, crashes and writers at any moment, and delta channels."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.graph import StateGraph

from runic_redis import RedisStore
from runic_redis.langgraph import RunicSaver
from runic_redis.langgraph.pruning import Tags
from runic_redis.langgraph.records import SavedCheckpoint, SavedWrites
from runic_redis.operations.counting import count_states
from runic_redis.operations.facts import count_facts
from runic_redis.operations.finding import list_tags
from runic_redis.protocol.effects import Batch
from tests.servers import RunningServer, url_on
from tests.test_langgraph_savers import config_of, put, stored_bytes
from tests.test_verifying import verify

pytestmark = pytest.mark.usefixtures("few_buckets")


@pytest.fixture
def store(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        yield store


@pytest.fixture
def saver(store: RedisStore) -> RunicSaver:
    return RunicSaver(store)


def fill(saver: RunicSaver, steps: int = 12, ns: str = "") -> list[Any]:
    """Put checkpoints of a growing list, each with writes. Return their configs."""
    config, messages, configs = config_of("t", ns=ns), [], []  # type: ignore[var-annotated]
    for number in range(steps):
        messages = [*messages, {"number": number, "text": os.urandom(3000).hex()}]
        config = put(saver, config, {"messages": messages, "file": "x" * 20_000}, step=number, run_id=f"r{number % 3}")
        saver.put_writes(config, [("messages", messages[-1:]), ("__error__", "old")], "task")
        configs.append(config)
    return configs


def all_of(saver: RunicSaver) -> list[CheckpointTuple]:
    return list(saver.list({"configurable": {"thread_id": "t"}}))


def test_what_is_pruned_is_gone_with_its_facts(
    store: RedisStore, saver: RunicSaver, valkey: RunningServer, namespace: str
) -> None:
    fill(saver, steps=60)
    kept = saver.get_tuple(config_of("t"))
    before = stored_bytes(valkey, namespace)
    saver.prune(["t"])
    assert all_of(saver) == [kept]
    left = list(store.stream("t", after=store.trim("t")))
    assert [type(one) for one in left] == [SavedCheckpoint, SavedWrites]
    store.collect(grace=0)
    assert store.run(count_facts(store.context), "count") == len(left[0].facts)
    assert stored_bytes(valkey, namespace) < before / 3
    assert all_of(RunicSaver(store)) == [kept]
    assert verify(store).findings == []


@pytest.mark.parametrize("run_id", ["r0", "r1", "r2"])
def test_the_runs_between_others_are_deleted(store: RedisStore, saver: RunicSaver, run_id: str) -> None:
    fill(saver)
    fill(saver, ns="lasting")
    expected = [one for one in all_of(saver) if one.metadata["run_id"] != run_id]
    saver.delete_for_runs([run_id, "unknown"])
    assert all_of(saver) == expected
    saver.delete_for_runs(["r0", "r1", "r2"])
    assert all_of(saver) == []
    store.collect(grace=0)
    assert store.run(count_facts(store.context), "count") == 0
    assert verify(store).findings == []


def steps_of(store: RedisStore, operation: Any) -> Iterator[None]:
    """Carry out an operation batch by batch, and pause before each."""
    batch = next(operation)
    while True:
        assert isinstance(batch, Batch)
        yield
        try:
            batch = operation.send(store._sender.ask(batch))
        except StopIteration:
            return


OPERATIONS: dict[str, Callable[[RunicSaver], Any]] = {
    "prune": lambda saver: saver._pruning(["t"], "keep_latest"),
    "delete_for_runs": lambda saver: saver._deleting_runs(["r1"]),
    "the oldest": lambda saver: saver._keep_newest("t", 5),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_crash_at_any_moment_loses_nothing(store: RedisStore, name: str) -> None:
    moment = 0
    while True:
        saver = RunicSaver(store)
        store.delete("t")
        fill(saver)
        fill(saver, steps=3, ns="lasting")
        before = all_of(saver)
        steps = steps_of(store, OPERATIONS[name](saver))
        is_done = sum(1 for _, _ in zip(range(moment + 1), steps, strict=False)) <= moment
        steps.close()  # type: ignore[attr-defined]
        # It crashed after so many batches: each checkpoint is as it was, or gone.
        left = all_of(RunicSaver(store))
        assert [one for one in before if one in left] == left
        store.collect(grace=0)
        assert all_of(RunicSaver(store)) == left
        store.run(OPERATIONS[name](saver), name)
        expected = {
            "prune": [one for one in before if one.metadata["step"] == (2 if ns_of(one) else 11)],
            "delete_for_runs": [one for one in before if one.metadata["run_id"] != "r1"],
            "the oldest": [one for one in before if ns_of(one) or one.metadata["step"] >= 7],
        }[name]
        assert all_of(RunicSaver(store)) == expected
        assert [one for one in left if one in expected] == expected
        tags = Tags(store.run(list_tags(store.context, "t"), "list"))
        assert [cursors for cursors in tags.cursors["c"].values() if len(cursors) > 1] == [], "nothing is there twice"
        assert verify(store).findings == []
        if is_done:
            break
        moment += 1
    assert moment > 5


def ns_of(found: CheckpointTuple) -> str:
    return str(found.config["configurable"]["checkpoint_ns"])


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_written_at_any_moment_survives(store: RedisStore, name: str) -> None:
    moment = 0
    while True:
        saver = RunicSaver(store)
        store.delete("t")
        # A checkpoint that stays, before others that are deleted, if there is one.
        newest = fill(saver)[9 if name == "delete_for_runs" else -1]
        for number, _ in enumerate(steps_of(store, OPERATIONS[name](saver))):
            if number == moment:
                other = RunicSaver(store)
                # The first write of the task stays, and the special one is replaced.
                other.put_writes(newest, [("__error__", "new"), ("late", 1)], "task")
                added = put(other, newest, {"messages": [], "file": "x" * 20_000}, step=12, run_id="new")
        found = saver.get_tuple(newest)
        if name != "prune" or number < moment:
            assert found is not None
        if number >= moment:
            assert saver.get_tuple(added) is not None
            if found is not None:
                assert found.pending_writes is not None
                assert found.pending_writes[0][1:] == ("__error__", "new")
                assert ("late", 1) in [write[1:] for write in found.pending_writes]
        assert verify(store).findings == []
        if number < moment:
            break
        moment += 1
    assert moment > 5


def test_a_thread_that_is_deleted_meanwhile_stays_deleted(store: RedisStore, saver: RunicSaver) -> None:
    moment = 0
    while True:
        fill(saver)
        is_deleted = False
        for number, _ in enumerate(steps_of(store, saver._deleting_runs(["r1"]))):
            if number == moment:
                store.delete("t")
                is_deleted = True
        if not is_deleted:
            break
        assert all_of(saver) == []
        assert not store.exists("t")
        moment += 1
    assert moment > 5


@pytest.mark.parametrize("most", [1, 5, 30])
def test_only_the_newest_are_kept(store: RedisStore, most: int, valkey: RunningServer, namespace: str) -> None:
    saver = RunicSaver(store, max_checkpoints=most)
    everything = fill(saver, steps=100)
    kept = all_of(saver)
    assert most <= len(kept) <= most + max(most, 16)
    assert [one.config for one in kept] == everything[::-1][: len(kept)]
    assert len(list(store.stream("t", after=store.trim("t")))) <= 2 * (most + max(most, 16))
    assert verify(store).findings == []


def test_calls_of_subgraphs_go_with_the_checkpoint_that_called_them(store: RedisStore, saver: RunicSaver) -> None:
    config = config_of("t")
    for number in range(10):
        config = put(saver, config, {"number": number}, parents={})
        parents = {"": config["configurable"]["checkpoint_id"]}
        inner = config_of("t", ns=f"node:{number}")
        for _ in range(3):
            inner = put(saver, inner, {"inner": number}, parents=parents)
        put(saver, config_of("t", ns="lasting"), {"lasting": number}, parents=parents)
    # A call of which the checkpoint of the graph is not stored yet.
    put(saver, config_of("t", ns="node:early"), {"inner": 11}, parents={"": "2" * 36})
    saver.prune(["t"])
    assert sorted(map(ns_of, all_of(saver))) == ["", "lasting", "node:9", "node:early"]


@pytest.mark.parametrize("backend", ["memory", "redis_6_2", "cluster_nodes"])
def test_pruning_elsewhere(request: pytest.FixtureRequest, backend: str, namespace: str) -> None:
    with RunicSaver.from_url(url_on(request, backend, namespace), namespace=namespace, partitions=4) as saver:
        fill(saver)
        kept = saver.get_tuple(config_of("t"))
        saver.copy_thread("t", "u")
        saver.prune(["t", "u", "absent"])
        assert all_of(saver) == [kept]
        copied = saver.get_tuple(config_of("u"))
        assert copied is not None
        assert kept is not None
        assert (copied.checkpoint, copied.metadata, copied.pending_writes) == (
            kept.checkpoint,
            kept.metadata,
            kept.pending_writes,
        )
        saver.prune(["t"], strategy="delete")
        assert all_of(saver) == []
        assert saver.store.run(count_states(saver.store.context), "count") is not None
        assert saver.get_tuple(config_of("u")) == copied


def extend(state: list[str] | None, writes: Sequence[list[str]]) -> list[str]:
    return [*(state or []), *(text for write in writes for text in write)]


class Deltas(TypedDict):
    log: Annotated[list[str], DeltaChannel(extend, list, snapshot_frequency=7)]
    other: Annotated[list[str], DeltaChannel(extend, list, snapshot_frequency=1000)]
    step: int


def graph_of(saver: Any) -> Any:
    builder = StateGraph(Deltas)

    def node(state: Deltas) -> dict[str, Any]:
        step = state.get("step", 0) + 1
        return {"log": [f"log {step}"], "step": step, **({"other": [f"other {step}"]} if step % 3 == 0 else {})}

    builder.add_node("node", node)
    builder.set_entry_point("node")
    builder.set_finish_point("node")
    return builder.compile(checkpointer=saver)


def histories(saver: RunicSaver) -> dict[str, Any]:
    channels = ["log", "other"]
    return {
        one.checkpoint["id"]: saver.get_delta_channel_history(config=one.config, channels=channels)
        for one in saver.list(config_of("t"))
    }


def test_the_history_of_delta_channels(store: RedisStore, saver: RunicSaver) -> None:
    graph = graph_of(saver)
    for number in range(10):
        graph.invoke({"log": [f"input {number}"]}, config_of("t"))
    forked = list(saver.list(config_of("t")))[9].config
    graph.invoke({"log": ["fork"]}, forked)
    found = histories(RunicSaver(store))
    assert any("seed" in history["log"] for history in found.values())
    for one in saver.list(config_of("t")):
        walked = BaseCheckpointSaver.get_delta_channel_history(saver, config=one.config, channels=["log", "other"])
        assert found[one.checkpoint["id"]] == walked
    assert saver.get_delta_channel_history(config=config_of("t"), channels=[]) == {}
    assert saver.get_delta_channel_history(config=config_of("absent"), channels=["log"]) == {"log": {"writes": []}}


@pytest.mark.parametrize("count", [1, 4])
def test_pruning_keeps_what_delta_channels_need(store: RedisStore, saver: RunicSaver, count: int) -> None:
    graph = graph_of(saver)
    for number in range(9):
        graph.invoke({"log": [f"input {number}"], "other": ["y" * 3000]}, config_of("t"))
    for _ in range(3):
        before, state = histories(saver), graph.get_state(config_of("t")).values
        assert len(state["log"]) > 10
        store.run(saver._keep_newest("t", count), "prune")
        store.collect(grace=0)
        assert len(list(saver.list(config_of("t")))) == count
        kept = histories(RunicSaver(store))
        assert kept == {name: before[name] for name in kept}
        graph = graph_of(RunicSaver(store))
        assert graph.get_state(config_of("t")).values == state
        graph.invoke({"log": ["after"]}, config_of("t"))
        assert graph.get_state(config_of("t")).values["log"][: len(state["log"])] == state["log"]
    saver.copy_thread("t", "u")
    assert graph.get_state(config_of("u")).values == graph.get_state(config_of("t")).values
    assert verify(store).findings == []


def test_max_checkpoints_keeps_delta_channels(store: RedisStore) -> None:
    graph = graph_of(RunicSaver(store, max_checkpoints=2))
    expected: list[str] = []
    for number in range(40):
        graph.invoke({"log": [f"input {number}"]}, config_of("t"))
        expected += [f"input {number}", f"log {number + 1}"]
        assert graph.get_state(config_of("t")).values["log"] == expected
    assert len(list(RunicSaver(store).list(config_of("t")))) < 30
