"""`collect` removes facts without references, and never one with a reference, even during writes."""

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runic_redis import DecodeError, Fact, FactNotFound, FactRef, RedisStore, WorkflowNotFound
from runic_redis.operations.collecting import collect
from runic_redis.protocol.effects import Batch, Command
from tests.faults import failover
from tests.servers import RunningServer, cluster_url

VALUES = 40


@pytest.fixture
def store(opener: Callable[..., RedisStore]) -> Iterator[RedisStore]:
    with opener(partitions=8) as store:
        yield store


def references(store: RedisStore, workflow_id: str) -> list[FactRef]:
    return [one["fact"] for one in store.stream(workflow_id) if "fact" in one]


def collect_stepwise(store: RedisStore, before: Callable[[int], None]) -> int:
    """Collect, calling a function before each round trip. Return the number of round trips."""
    operation = collect(store.context, 0)
    steps = 0
    try:
        effect = next(operation)
        while True:
            before(steps)
            assert isinstance(effect, Batch)
            steps += 1
            effect = operation.send(store._sender.ask(effect))
    except StopIteration:
        return steps


WRITES: dict[str, Callable[[RedisStore, str], Any]] = {
    "value": lambda store, _: store.append("w", [{"fact": Fact("v")}]),
    "reference": lambda store, fact_hash: store.append("w", [{"fact": FactRef(fact_hash)}]),
    "log": lambda store, _: store.save("w", [{"fact": Fact("v")}]),
    "value, and again": lambda store, _: [store.append("w", [{"fact": Fact("v")}]) for _ in range(2)],
    "another life": lambda store, _: (store.delete("w"), store.append("w", [{"fact": Fact("v")}])),
    "snapshot": lambda store, fact_hash: store.save_snapshot("w", 0, b"", refs=[fact_hash]),
    "snapshot of a commit": lambda store, fact_hash: store.append("w", [{"n": 1}], snapshot=b"", refs=[fact_hash]),
    "released, and referred to again": lambda store, fact_hash: (
        store.append("w", [{"fact": FactRef(fact_hash)}], snapshot=b"", refs=()),
        store.trim("w"),
        store.save_snapshot("w", 1, b"", refs=[fact_hash]),
    ),
    "put": lambda store, _: store.put_fact("v"),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_fact_that_gets_a_reference_while_collecting_is_kept(
    store: RedisStore, write: str, few_buckets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runic_redis.operations.collecting._AT_ONCE", 2)
    monkeypatch.setattr("runic_redis.operations.indexes._AT_ONCE", 2)
    # A second workflow with a fact, so collecting always has references to read.
    store.append("other", [{"fact": Fact("other")}])
    stored = []
    steps = collect_stepwise(store, lambda _: None)
    assert steps > 8
    for moment in range(steps + 2):
        fact_hash = store.put_fact("v")

        def act(step: int, moment: int = moment, fact_hash: str = fact_hash) -> None:
            if step == moment:
                WRITES[write](store, fact_hash)
                stored.append(moment)

        collect_stepwise(store, act)
        # A fact put before collecting reads the time may be removed, because nothing refers to it.
        if moment in stored and (write != "put" or moment > 0):
            assert store.load_fact(fact_hash) == "v", moment
        elif write != "put" or moment >= steps:
            with pytest.raises(FactNotFound):
                store.load_fact(fact_hash)
        assert store.load_fact(references(store, "other")[0].hash) == "other"
        if store.exists("w"):
            store.delete("w")
    assert len(stored) >= steps


def test_lost_references_are_restored_whatever_is_written_meanwhile(store: RedisStore, few_buckets: None) -> None:
    keys = store.context.keys.workflow("w")

    def lose_references() -> None:
        store._sender.ask(Batch([Command(("DEL", keys.refs), keys.refs)]))

    store.append("w", [{"fact": Fact("kept")}])
    lose_references()
    for moment in range(collect_stepwise(store, lambda _: None) + 2):
        lose_references()
        collect_stepwise(store, lambda step, at=moment: step == at and store.append("w", [{"n": at}]))
        assert store.load_fact(references(store, "w")[0].hash) == "kept", moment
    lose_references()
    # If the workflow changes all the time, collecting removes nothing.
    with pytest.raises(DecodeError, match="each restore met a change"):
        collect_stepwise(store, lambda step: store.append("w", [{"n": step}]))
    assert store.load_fact(references(store, "w")[0].hash) == "kept"


@pytest.mark.parametrize(("fixture", "grace"), [("valkey", 0.0), ("cluster_nodes", 0.3)])
def test_collecting_races_with_writers(
    request: pytest.FixtureRequest, namespace: str, fixture: str, grace: float
) -> None:
    found: Any = request.getfixturevalue(fixture)
    servers: list[RunningServer] = found if isinstance(found, list) else [found]
    url = servers[0].url() if fixture == "valkey" else cluster_url(servers)
    over = threading.Event()
    workflows = [f"w-{number}" for number in range(12)]
    outcomes = {"appended": 0, "refused": 0, "removed": 0}

    def write(seed: int) -> None:
        source = random.Random(seed)
        with RedisStore.from_url(url, namespace=namespace, partitions=4) as store:
            for number in itertools.count():
                if number >= 150 and outcomes["removed"]:
                    return
                store.put_fact((seed, number))
                which = source.choice(workflows)
                kind = source.random()
                try:
                    if kind < 0.3:
                        store.delete(which)
                    elif kind < 0.6:
                        store.append(which, [{"fact": ref} for ref in references(store, source.choice(workflows))])
                    else:
                        store.append(which, [{"fact": Fact(source.randrange(VALUES))} for _ in range(3)])
                    outcomes["appended"] += 1
                except FactNotFound:
                    outcomes["refused"] += 1
                except WorkflowNotFound:
                    pass

    with RedisStore.from_url(url, namespace=namespace, partitions=4) as store:

        def keep_collecting() -> None:
            while not over.is_set():
                outcomes["removed"] += store.collect(grace)

        with ThreadPoolExecutor(5) as pool:
            collecting = pool.submit(keep_collecting)
            try:
                for writer in [pool.submit(write, seed) for seed in range(4)]:
                    writer.result()
            finally:
                over.set()
            collecting.result()
        assert outcomes["appended"] > 100
        living = {ref.hash for which in store.list() for ref in references(store, which)}
        assert living
        assert len(store.load_facts(living)) == len(living)
        for which in list(store.list()):
            store.delete(which)
        assert store.collect(0) >= len(living)
        assert store.collect(0) == 0
        with pytest.raises(FactNotFound):
            store.load_facts(living)


def test_collecting_many_facts_takes_many_small_steps(
    store: RedisStore, few_buckets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use pages of two and five candidates at a time, so each loop runs several times."""
    monkeypatch.setattr("runic_redis.operations.collecting._AT_ONCE", 2)
    monkeypatch.setattr("runic_redis.operations.indexes._AT_ONCE", 2)
    monkeypatch.setattr("runic_redis.operations.collecting._CANDIDATES", 5)
    for number in range(6):
        store.append(f"w-{number}", [{"fact": Fact((number, place))} for place in range(12)])
    for number in range(30):
        store.put_fact(("orphan", number))
    kept = [ref.hash for number in range(0, 6, 2) for ref in references(store, f"w-{number}")]
    for number in range(1, 6, 2):
        store.delete(f"w-{number}")
    assert store.collect(0) == 30 + 3 * 12
    assert store.collect(0) == 0
    assert len(store.load_facts(kept)) == 36


def test_a_workflow_may_refer_to_more_than_one_page_of_facts(store: RedisStore) -> None:
    for first in range(0, 2000, 100):
        store.append("w", [{"fact": Fact(number)} for number in range(first, first + 100)])
    # The references of a log have the same score.
    store.save("log", [{"fact": Fact(number)} for number in range(2000, 4000)])
    assert store.collect(0) == 0
    assert len(store.load_facts([ref.hash for ref in references(store, "w")])) == 2000
    assert len(store.load("log")) == 2000


@pytest.mark.parametrize("read", ["index", "refs"])
def test_collecting_across_a_failover_keeps_the_facts_in_use(
    valkey: RunningServer,
    namespace: str,
    tmp_path: Path,
    few_buckets: None,
    monkeypatch: pytest.MonkeyPatch,
    read: str,
) -> None:
    monkeypatch.setattr("runic_redis.operations.collecting._AT_ONCE", 50)
    monkeypatch.setattr("runic_redis.operations.indexes._AT_ONCE", 50)
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        for first in range(0, 600, 20):
            store.append("large", [{"fact": Fact(number)} for number in range(first, first + 20)])
        store.append_many([(f"w-{number}", [{"fact": Fact(number + 600)}]) for number in range(600)])
        key = getattr(store.context.keys.workflow("large"), read)
        with failover(store, valkey, tmp_path) as servers:
            pages = {"ZSCAN", "ZRANGEBYSCORE"}
            found = servers.run(collect(store.context, 0), lambda one: one.key == key and one.args[0] in pages)
    assert found == 0
