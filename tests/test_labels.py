"""Attributes and parents: damage is found and repaired, archives carry them, and a foreign value changes nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from runic_redis import DecodeError, RedisStore
from tests.servers import RunningServer
from tests.test_archives import export, load
from tests.test_verifying import verify

LABELS: dict[str, Any] = {"attributes": {"customer": "7", "country": "se"}, "parent": "order-1"}


@pytest.fixture
def client(valkey: RunningServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


@pytest.fixture
def store(valkey: RunningServer, namespace: str, few_buckets: None) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=2) as store:
        for number in range(4):
            store.append(f"w-{number}", [{"n": 1}], **LABELS)
        yield store


def found(store: RedisStore) -> list[list[str]]:
    """Return the workflows that are found by each label."""
    return [
        sorted(store.list(attributes={"customer": "7"})),
        sorted(store.list(attributes={"country": "se"})),
        sorted(store.children("order-1")),
    ]


DAMAGE: dict[str, Callable[[redis.Redis, Any], Any]] = {
    "a workflow lost from a set": lambda client, keys: client.zrem(keys.attribute("customer", "7"), "w-1"),
    "a lost set of an attribute": lambda client, keys: client.delete(keys.attribute("customer", "7")),
    "a lost set of children": lambda client, keys: client.delete(keys.children("order-1")),
    "a wrong time of creation": lambda client, keys: client.zadd(keys.children("order-1"), {"w-1": 7}),
    "a workflow in a set of another value": lambda client, keys: client.zadd(
        keys.attribute("customer", "8"), {"w-1": 7}
    ),
    "a workflow in a set of another parent": lambda client, keys: client.zadd(keys.children("order-2"), {"w-1": 7}),
    "no workflow at all": lambda client, keys: client.zadd(keys.attribute("customer", "8"), {b"\xff": 7}),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_repaired(store: RedisStore, client: redis.Redis, name: str) -> None:
    before = found(store)
    assert before == [[f"w-{number}" for number in range(4)]] * 3
    assert verify(store).findings == []
    DAMAGE[name](client, store.context.keys.workflow("w-1"))
    damage = verify(store).findings
    assert damage
    assert not any(one.repaired for one in damage)
    repaired = verify(store, repair=True).findings
    assert {one.repaired for one in repaired} == {True}
    assert verify(store).findings == []
    assert found(store) == before
    assert list(store.list(attributes={"customer": "8"})) == list(store.children("order-2")) == []


def test_a_workflow_alone_is_repaired(store: RedisStore, client: redis.Redis) -> None:
    client.delete(store.context.keys.workflow("w-1").children("order-1"))
    assert [one.name for one in verify(store, ["w-1"], repair=True).findings] == ["w-1"]
    assert verify(store, ["w-1"]).findings == []


CALLS: dict[str, Callable[[RedisStore], Any]] = {
    "change": lambda store: store.append("w-1", [{"n": 2}], attributes={"customer": "8"}),
    "remove": lambda store: store.append("w-1", [{"n": 2}], attributes={"customer": None}),
    "set": lambda store: store.append("w-1", [{"n": 2}], attributes={"customer": "7"}),
    "delete": lambda store: store.delete("w-1"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_foreign_value_changes_nothing(store: RedisStore, client: redis.Redis, name: str) -> None:
    key = store.context.keys.workflow("w-1").attribute("customer", "7")
    client.set(key, "of another application")
    index = client.zrange(store.context.keys.workflow("w-1").index, 0, -1, withscores=True)
    with pytest.raises(DecodeError):
        CALLS[name](store)
    assert client.get(key) == b"of another application"
    assert store.cursor("w-1") == 1
    assert client.zrange(store.context.keys.workflow("w-1").index, 0, -1, withscores=True) == index
    with pytest.raises(DecodeError):
        list(store.list(attributes={"customer": "7"}))
    with pytest.raises(DecodeError):
        store.count(attributes={"customer": "7"})


def test_an_archive_carries_labels(store: RedisStore, valkey: RunningServer, namespace: str, tmp_path: Path) -> None:
    store.append("w-1", [{"n": 2}], attributes={"customer": "\u00fc=8", "country": None})
    before = found(store)
    export(store, tmp_path / "archive")
    with RedisStore.from_url(valkey.url(), namespace=f"{namespace}-other", partitions=3) as target:
        assert load(target, tmp_path / "archive").problems == []
        assert found(target) == before
        assert list(target.list(attributes={"customer": "\u00fc=8"})) == ["w-1"]
        assert verify(target).findings == []
        # As before, the next value takes the place of this one.
        target.append("w-1", [{"n": 3}], attributes={"customer": "9"})
        assert list(target.list(attributes={"customer": "\u00fc=8"})) == []
        target.delete_namespace()


def test_nothing_is_left_of_a_deleted_namespace(store: RedisStore, client: redis.Redis) -> None:
    store.append("w-1", [{"n": 2}], attributes={"customer": "8"})
    assert store.memory_usage()["labels"] > 0
    store.delete_namespace()
    assert list(client.scan_iter(match=f"{{{store.context.keys.namespace}*")) == []
