"""A lost meta hash: no write hides the loss, and no operation mistakes a sound workflow for a damaged one."""

from collections.abc import Callable
from typing import Any

import pytest

from runic_redis import DecodeError, RedisStore, WorkflowNotFound
from runic_redis.admin.verifying import Verifier
from runic_redis.operations.claiming import Claim
from runic_redis.protocol.effects import Batch
from tests.servers import RunningServer

WRITES: dict[str, Callable[[RedisStore], Any]] = {
    "append": lambda store: store.append("w", [{"n": 1}]),
    "append, expecting nothing": lambda store: store.append("w", [{"n": 1}], expected_cursor=0),
    "append_many": lambda store: _raise_first(store.append_many([("w", [{"n": 1}])])),
    "save": lambda store: store.save("w", []),
    "save_snapshot": lambda store: store.save_snapshot("w", 0, b"state"),
    "save_snapshot of a cursor": lambda store: store.save_snapshot("w", 1, b"state"),
    "acquire": lambda store: store.acquire("w", "me"),
    "complete": lambda store: store.complete("w"),
    "expire": lambda store: store.expire("w", 1),
    "trim": lambda store: store.trim("w"),
}


def _raise_first(results: list[Any]) -> None:
    if isinstance(results[0], Exception):
        raise results[0]


@pytest.mark.parametrize("written", ["events", "a log", "a snapshot"])
@pytest.mark.parametrize("name", WRITES)
def test_no_write_hides_a_lost_meta_hash(valkey: RunningServer, namespace: str, name: str, written: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store, valkey.client() as client:
        if written == "events":
            store.append("w", [{"n": 1}])
        elif written == "a log":
            store.save("w", [{"n": 1}])
        else:
            store.save_snapshot("w", 0, b"kept")
        store.release(store.acquire("w", "another"))
        client.delete(store.context.keys.workflow("w").meta)
        before = {key: client.dump(key) for key in client.keys(f"{{{namespace}*")}
        with pytest.raises(DecodeError, match=r"meta hash|cursor"):
            WRITES[name](store)
        assert {key: client.dump(key) for key in client.keys(f"{{{namespace}*")} == before
        store.delete("w")
        if name in {"complete", "expire", "trim"}:
            with pytest.raises(WorkflowNotFound):
                WRITES[name](store)
        elif name != "save_snapshot of a cursor":
            WRITES[name](store)
        verifier = Verifier(store.context)
        store.run(verifier.open(), "verify")
        while (part := store.run(verifier.next_part(), "verify")) is not None:
            assert part.findings == []


def test_a_workflow_that_is_deleted_before_it_is_claimed_is_not_taken_for_damaged(store: RedisStore) -> None:
    for workflow_id in ("w", "v"):
        store.release(store.acquire(workflow_id, "another"))
    claim = Claim(store.context, "me", 10, queues=["default"], ttl=30.0, max_attempts=None)
    operation = claim.look()
    looked = next(operation)
    assert isinstance(looked, Batch)
    replies = store._sender.ask(looked)
    store.delete("w")
    store.delete("v")
    asked = operation.send(replies)
    assert isinstance(asked, Batch)
    with pytest.raises(StopIteration) as stop:
        for _ in range(20):
            asked = operation.send(store._sender.ask(asked))
    assert stop.value.value[0] == []


def test_a_lost_partition_fails_only_what_is_made_in_it(valkey: RunningServer, namespace: str) -> None:
    ids = [f"w-{number}" for number in range(8)]
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=2) as store, valkey.client() as client:
        store.append_many([(workflow_id, [{"n": 1}]) for workflow_id in ids])
        lost = store.context.keys.partition(0)
        client.delete(lost)
        new = [f"new-{number}" for number in range(8)]
        results = store.append_many([(workflow_id, [{"n": 2}]) for workflow_id in ids + new])
        assert results[:8] == [2] * 8
        in_lost = [store.context.keys.workflow(workflow_id).partition == lost for workflow_id in new]
        assert set(in_lost) == {True, False}
        for workflow_id, result, its_is_lost in zip(new, results[8:], in_lost, strict=True):
            assert isinstance(result, DecodeError) if its_is_lost else result == 1
            assert store.exists(workflow_id) is not its_is_lost
