"""Two namespaces share no key, whatever their names, and whatever the ids and hashes in them."""

import re
import string
from collections import defaultdict
from itertools import product
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from redis.crc import key_slot

from runic_redis import InvalidArgument, RedisStore
from runic_redis.arguments import check_namespace
from runic_redis.keys import Keys
from runic_redis.operations.namespace import delete_namespace
from runic_redis.protocol.effects import Batch
from runic_redis.testing.examples import numbered
from tests import tour
from tests.servers import RunningServer
from tests.test_verifying import verify

names = st.text(string.ascii_letters + string.digits + "_.@/+-", min_size=1, max_size=100)
# Similar names: one begins or ends with the other, or adds a word that keys contain.
pairs = st.tuples(names, names) | st.builds(
    lambda name, more, swap: (name + more, name) if swap else (more + name, name),
    st.text("abc", min_size=1, max_size=3),
    st.sampled_from(["2", "-", ".", "fact", "config", "events", "a"]),
    st.booleans(),
)
# Pieces of keys, and characters with a meaning in patterns, shells and paths.
pieces = st.sampled_from(
    [
        ":",
        "{",
        "}",
        "{a}",
        "{a:1}",
        "{b:1}:events:",
        "}:config",
        "fact:",
        "*",
        "?",
        "[a]",
        "\\",
        "..",
        "/",
        "\n",
        "\0",
        " ",
    ]
)
ids = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50),
    st.lists(pieces, min_size=1).map("".join),
    st.builds("".join, st.tuples(pieces, names, pieces, st.text("ab"), pieces)),
)
partitions = st.integers(1, 4096)


def touched(keys: Keys, workflow_id: str) -> set[str]:
    """Return the keys of a workflow, of its partition, of a fact with the same name, and of the namespace."""
    workflow = keys.workflow(workflow_id)
    return {keys.config, *keys.fact(workflow_id.encode()), *(getattr(workflow, kind) for kind in workflow.__slots__)}


def matches(pattern: str, key: str) -> bool:
    """Does an ACL pattern match a key? The patterns here end with a *, and have no other special characters."""
    return key.startswith(pattern[:-1]) if pattern.endswith("*") else key == pattern


@given(pairs, st.tuples(partitions, partitions), st.tuples(ids, ids), st.data())
def test_no_key_is_of_two_namespaces(
    pair: tuple[str, str], counts: tuple[int, int], pair_of_ids: tuple[str, str], data: st.DataObject
) -> None:
    one, other = (Keys(check_namespace(name), count) for name, count in zip(pair, counts, strict=True))
    assume(one.namespace != other.namespace)
    of_one = touched(one, pair_of_ids[0])
    # The id can also be a key of the other namespace.
    of_other = touched(other, pair_of_ids[1]) | touched(other, data.draw(st.sampled_from(sorted(of_one))))
    assert not of_one & of_other
    for keys, own, foreign in ((one, of_one, of_other), (other, of_other, of_one)):
        patterns = [f"{{{keys.namespace}}}:config", f"{{{keys.namespace}:*"]
        assert all(any(matches(pattern, key) for pattern in patterns) for key in own)
        assert not any(matches(pattern, key) for pattern in patterns for key in foreign)


def test_ids_share_a_partition_as_keys_share_a_slot_of_redis() -> None:
    ids = ["".join(letters) for length in range(1, 5) for letters in product("a{}", repeat=length)]
    keys = Keys("a", 4078)  # among these ids, no two different parts meet in a partition
    of_slots: dict[int, set[str]] = defaultdict(set)
    of_partitions: dict[int, set[str]] = defaultdict(set)
    for workflow_id in ids:
        of_slots[key_slot(workflow_id.encode())].add(workflow_id)
        of_partitions[keys.partition_of(workflow_id)].add(workflow_id)
        tag = keys.index(keys.partition_of(workflow_id)).removesuffix(":index")
        assert keys.workflow(workflow_id).events == f"{tag}:events:{workflow_id}"
        assert keys.imported(workflow_id).meta == f"{tag}:import-meta:{workflow_id}"
    assert len(of_slots) < len(ids)
    assert sorted(map(sorted, of_slots.values())) == sorted(map(sorted, of_partitions.values()))


@given(st.text() | st.builds("".join, st.tuples(names, pieces)))
def test_a_namespace_is_called_by_what_stands_for_itself(name: str) -> None:
    if re.search(r"[^A-Za-z0-9_.@/+-]", name) or not 0 < len(name) <= 100:
        with pytest.raises(InvalidArgument):
            check_namespace(name)
    else:
        assert check_namespace(name) == name


def test_a_part_of_another_namespace_s_keys_is_no_namespace() -> None:
    for name in (
        "shop:17",
        "shop:fact",
        "shop:fact:1",
        "shop}",
        "{shop}",
        "{shop",
        "shop:*",
        "*",
        "sh?p",
        "sho[p]",
        "shop\n",
    ):
        with pytest.raises(InvalidArgument, match="A namespace is"):
            RedisStore.from_url("memory://", namespace=name)


def test_workflows_facts_and_the_namespace_share_no_key() -> None:
    """This also holds within a namespace: no id leads to a key of another kind."""
    keys = Keys("a", 1, has_feed=True)
    shared = {keys.config, keys.config_copy, keys.index(0), keys.leases(0), keys.expiring(0), keys.completed(0)}
    shared |= {keys.partition(0), keys.feed(0), keys.queues(0), keys.parked_workflows(0), keys.tagged}
    shared |= {key for number in keys.bucket_numbers() for key in (keys.bucket(number), keys.fact_times(number))}
    own: set[str] = set()
    for workflow_id in (
        "x",
        "index",
        ":index",
        "events:x",
        "x:events",
        "}:index",
        "{a:0}:index",
        "{a:fact:1}",
        "meta:x",
    ):
        workflow = keys.workflow(workflow_id)
        kinds = {getattr(workflow, kind) for kind in workflow.__slots__} - shared
        assert len(kinds) == len(workflow.__slots__) - 9
        assert not own & kinds
        own |= kinds


def hostile(other: str) -> list[str]:
    """Return ids that people or programs can mistake for something else."""
    keys = Keys(other, 1)
    return [
        "order-1",
        "}:events:x",
        "..",
        f"../{other}",
        "a\0b\nc",
        "*?[a-z]\\",
        "ünï✓",
        *sorted(touched(keys, "order-1")),
    ]


@pytest.mark.parametrize("near", ["{}2", "x{}", "{}/fact"])
def test_whatever_is_done_in_one_namespace_another_does_not_notice(
    valkey: RunningServer, namespace: str, near: str, few_buckets: None
) -> None:
    other = near.format(namespace)

    def open_one(name: str) -> Any:
        return RedisStore.from_url(valkey.url(), namespace=name, partitions=1, feed=True)

    def kept() -> dict[bytes, bytes]:
        return {key: data for key in theirs if (data := admin.dump(key)) is not None}

    with valkey.client() as admin, open_one(namespace) as ours, open_one(other) as store:
        before = set(admin.keys())
        for workflow_id in hostile(namespace):
            store.append(workflow_id, numbered(3), snapshot=b"state", commit_id="c")
            store.save(workflow_id, numbered(2))
            store.save_fact(workflow_id, "value")
        theirs = set(admin.keys()) - before
        as_it_was = kept()
        assert as_it_was.keys() == theirs
        assert not any(ours.exists(workflow_id) for workflow_id in hostile(namespace))
        for workflow_id in hostile(other):
            tour.writes(ours, workflow_id)
            tour.reads(ours, workflow_id)
            assert kept() == as_it_was
        assert set(ours.list()) >= set(hostile(other))
        for workflow_id in hostile(other):
            ours.trim(workflow_id)
            ours.delete(workflow_id)
        ours.collect(grace=0)
        ours.memory_usage()
        assert kept() == as_it_was
        ours.delete_namespace()
        assert kept() == as_it_was
        assert set(admin.keys()) - before == theirs
        assert set(store.list()) == set(hostile(namespace))
        for workflow_id in hostile(namespace):
            assert list(store.stream(workflow_id)) == numbered(3)
            assert store.load(workflow_id) == numbered(2)
            assert store.load_snapshot(workflow_id) == (3, b"state")
            assert store.load_fact(workflow_id) == "value"
        store.delete_namespace()
        assert set(admin.keys()) <= before


def test_what_is_written_while_a_namespace_is_deleted_damages_no_partition(
    valkey: RunningServer, namespace: str, few_buckets: None
) -> None:
    with (
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1, feed=True) as store,
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1, feed=True) as other,
    ):
        store.append("before", numbered(1))
        operation, replies, commands = delete_namespace(store.context), None, 0
        try:
            while True:
                effect = operation.send(replies)
                assert isinstance(effect, Batch)
                replies = []
                for command in effect.commands:
                    replies += store._sender.ask(Batch([command]))
                    commands += 1
                    other.append(f"w-{commands}", numbered(1))
                    other.acquire(f"w-{commands}", "me")
        except StopIteration:
            pass
        for number in range(9):
            other.append(f"after-{number}", numbered(1))
        assert {f"after-{number}" for number in range(9)} <= set(other.list())
        assert [one for one in verify(other).findings if one.kind == "key"] == []
        store.delete_namespace()


def test_a_namespace_is_deleted_with_a_queue_that_appears_meanwhile(
    valkey: RunningServer, namespace: str, few_buckets: None
) -> None:
    with (
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=2, feed=True) as store,
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=2, feed=True) as other,
        valkey.client() as client,
    ):
        for number in range(5):
            store.append(f"w-{number}", numbered(1), queue="default")
            store.append(f"v-{number}", numbered(1), queue="orders", due=3600)
        assert {"queue", "queues"} <= {kind for kind, size in store.memory_usage().items() if size}
        operation, replies, calls = delete_namespace(store.context), None, 0
        try:
            while True:
                effect = operation.send(replies)
                assert isinstance(effect, Batch)
                if any(command.script and command.script.name == "delete_partition" for command in effect.commands):
                    if calls < 3:
                        other.append(f"x-{calls}", numbered(1), queue=f"queue-{calls}")
                    calls += 1
                replies = store._sender.ask(effect)
        except StopIteration:
            pass
        assert calls > 1, "no call was rejected because it did not name a queue"
        kinds = {key.decode().partition("}:")[2].partition(":")[0] for key in client.keys(f"{{{namespace}[:}}]*")}
        assert kinds <= {"events", "meta"}, "only what was written during the deletion is left"
