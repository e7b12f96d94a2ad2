"""Tracking records: the results of a source, and how far it was processed, are stored in one step."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from runic_redis import (
    Append,
    AsyncRedisStore,
    DecodeError,
    GroupRejected,
    InvalidArgument,
    RedisStore,
    Tracking,
    TrackingConflict,
)
from runic_redis.admin.importing import Importer
from runic_redis.testing.examples import numbered
from tests import servers
from tests.faults import make_faulty
from tests.proxy import Fault, proxied
from tests.servers import RunningServer
from tests.test_archives import export, load
from tests.test_verifying import verify


@pytest.fixture(params=["memory", "valkey"])
def store(request: pytest.FixtureRequest, namespace: str) -> Any:
    url = servers.url_on(request, request.param, namespace)
    with RedisStore.from_url(url, namespace=namespace, partitions=1, feed=True) as store:
        yield store


def test_a_record_goes_forward_only(store: RedisStore) -> None:
    assert store.tracking("orders") is None
    assert store.append_all([], tracking=Tracking("orders", 3)) == []
    assert store.append_all([Append("w", numbered(2))], tracking=Tracking("orders", 5)) == [2]
    for position in (0, 4, 5):
        with pytest.raises(TrackingConflict) as conflict:
            store.append_all([Append("w", numbered(1))], tracking=Tracking("orders", position))
        assert (conflict.value.name, conflict.value.stored, conflict.value.given) == ("orders", 5, position)
        assert "Nothing was stored" in str(conflict.value)
    assert (store.cursor("w"), store.tracking("orders"), store.tracking("others")) == (2, 5, None)
    assert store.append_all([], tracking=Tracking("others", 0)) == []
    assert store.tracking("others") == 0


def test_a_rejected_commit_leaves_the_record(store: RedisStore) -> None:
    store.append_all([], tracking=Tracking("orders", 1))
    with pytest.raises(GroupRejected):
        store.append_all([Append("w", numbered(1), expected_cursor=7)], tracking=Tracking("orders", 2))
    assert store.tracking("orders") == 1
    assert store.append_all([Append("w", [], expected_cursor=0)], tracking=Tracking("orders", 2)) == [0]
    assert store.tracking("orders") == 2


@pytest.mark.parametrize(
    "wrong",
    [("orders", 1), Tracking("", 1), Tracking("x" * 513, 1), Tracking("orders", -1), Tracking("orders", 2**53), 7],
)
def test_a_wrong_record_is_rejected_before_anything_is_sent(store: RedisStore, wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match="nothing was sent"):
        store.append_all([Append("w", numbered(1))], tracking=wrong)
    assert not store.exists("w")


GROUPS: dict[str, Callable[[], list[Append]]] = {
    "no commit": list,
    "a commit": lambda: [Append("w", numbered(1))],
    "a commit with an id": lambda: [Append("w", numbered(1), commit_id="c")],
    "a commit that expects a cursor": lambda: [Append("w", numbered(1), expected_cursor=0)],
    "two commits": lambda: [Append("w", numbered(1)), Append("v", numbered(1))],
    "a check": lambda: [Append("w", [], expected_cursor=0)],
}


LOSSES = [["reply"], ["request"], ["reply", "reply"], ["request", "reply"], ["late"], ["late", "reply"]]


@pytest.mark.parametrize("losses", LOSSES, ids=" ".join)
@pytest.mark.parametrize("name", GROUPS)
def test_a_retry_is_not_rejected_by_its_earlier_try(store: RedisStore, losses: list[str], name: str) -> None:
    store.append_all([Append("other", numbered(1))], tracking=Tracking("orders", 1))
    faulty = make_faulty(store)
    faulty.faults = [*losses]
    store.append_all(GROUPS[name](), tracking=Tracking("orders", 2))
    assert store.tracking("orders") == 2
    commits = [commit.workflow_id for commit in store.feed()]
    assert commits == ["other", *(one.workflow_id for one in GROUPS[name]() if one.events)]
    faulty.deliver_late()
    assert store.tracking("orders") == 2
    assert [commit.workflow_id for commit in store.feed()] == commits


def test_a_retry_that_another_process_has_passed_says_what_is_not_known(store: RedisStore, namespace: str) -> None:
    store.append_all([], tracking=Tracking("orders", 1))
    with RedisStore.from_url(store.url, namespace=namespace, partitions=1, feed=True) as other:
        faulty = make_faulty(store)
        faulty.faults = ["reply"]
        faulty.after_loss = lambda: other.append_all([], tracking=Tracking("orders", 9)) and None
        with pytest.raises(TrackingConflict, match="may have been stored"):
            store.append_all([], tracking=Tracking("orders", 2))
    assert store.tracking("orders") == 9


def test_a_commit_that_was_stored_before_leaves_the_record(store: RedisStore) -> None:
    group = [Append("w", numbered(1), commit_id="c")]
    assert store.append_all(group, tracking=Tracking("orders", 2)) == [1]
    assert store.append_all(group, tracking=Tracking("orders", 2)) == [1]
    assert store.append_all(group, tracking=Tracking("orders", 5)) == [1]
    assert (store.cursor("w"), store.tracking("orders")) == (1, 2)


@pytest.mark.parametrize("partitions", [1, 8])
def test_of_many_processes_one_stores_the_results_of_each_position(
    valkey: RunningServer, namespace: str, partitions: int
) -> None:
    def process(name: str) -> int:
        stored = 0
        with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=partitions) as store:
            while (position := (store.tracking("orders") or 0) + 1) <= 50:
                try:
                    items = [Append("results", [{"of": position}]), Append(name, numbered(1))]
                    store.append_all(items, tracking=Tracking("orders", position))
                    stored += 1
                except TrackingConflict:
                    pass
        return stored

    names = [f"worker-{number}" for number in range(4)]
    with ThreadPoolExecutor(len(names)) as pool:
        counts = list(pool.map(process, names))
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=partitions) as store:
        assert [event["of"] for event in store.stream("results")] == list(range(1, 51))
        assert [store.cursor(name) for name in names] == counts


class Model:
    """What the store must hold."""

    def __init__(self) -> None:
        self.cursors = dict.fromkeys("ab", 0)
        self.positions: dict[str, int] = {}

    def append_all(self, items: list[Append], tracking: Tracking | None) -> bool:
        if tracking is not None and self.positions.get(tracking.name, -1) >= tracking.position:
            return False
        if any(one.expected_cursor not in {None, self.cursors[one.workflow_id]} for one in items):
            return False
        for one in items:
            self.cursors[one.workflow_id] += len(list(one.events))
        if tracking is not None:
            self.positions[tracking.name] = tracking.position
        return True


_items = st.lists(
    st.builds(
        lambda name, count, expected: Append(name, numbered(count), expected_cursor=expected),
        *(st.sampled_from("ab"), st.integers(0, 2), st.none() | st.integers(0, 4)),
    ),
    max_size=2,
    unique_by=lambda item: item.workflow_id,
)
_records = st.none() | st.builds(Tracking, st.sampled_from(["x", "y z", "\n"]), st.integers(0, 6))
_losses = st.sampled_from([[], ["reply"], ["request"], ["reply", "reply"]])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(st.tuples(_items, _records, _losses), max_size=12))
def test_groups_with_records_do_as_a_model_does(few_buckets: None, store: RedisStore, calls: list[Any]) -> None:
    store.delete_namespace()
    faulty = make_faulty(store)
    model = Model()
    for items, record, losses in calls:
        faulty.faults = [*losses]
        try:
            store.append_all(items, tracking=record)
            stored = True
        except (GroupRejected, TrackingConflict):
            stored = False
        faulty.faults = []
        assert stored == model.append_all(items, record)
        assert {name: store.cursor(name) for name in model.cursors} == model.cursors
        assert {name: store.tracking(name) for name in model.positions} == model.positions
    store._sender = store._sender.__class__(faulty._server, 30.0, wait_s=1.0)


def test_damage_changes_nothing(store: RedisStore) -> None:
    store.append_all([], tracking=Tracking("orders", 1))
    client, key = store._connected.server._client, store.context.keys.tracking
    for value in (b"", b"1", b"x y", b"1 ", b"12345678901234567 x"):
        client.hset(key, "orders", value)
        with pytest.raises(DecodeError):
            store.append_all([Append("w", numbered(1))], tracking=Tracking("orders", 2))
        with pytest.raises(DecodeError, match="tracking record"):
            store.tracking("orders")
        assert client.hget(key, "orders") == value
        assert not store.exists("w")
        assert [one.problem for one in verify(store).findings] == [
            f"it holds {value!r} for b'orders', which is no tracking record"
        ]
    client.set(key, "foreign")
    with pytest.raises(DecodeError, match="not of this store"):
        store.append_all([Append("w", numbered(1))], tracking=Tracking("orders", 2))
    assert not store.exists("w")
    assert len(verify(store).findings) == 1


def test_verify_knows_the_key(store: RedisStore) -> None:
    store.append_all([Append("w", numbered(1))], tracking=Tracking("orders", 1))
    assert verify(store).findings == []


def test_a_namespace_that_was_deleted_is_made_again(store: RedisStore, namespace: str) -> None:
    store.append_all([], tracking=Tracking("orders", 7))
    with RedisStore.from_url(store.url, namespace=namespace, partitions=None) as other:
        other.delete_namespace()
    assert store.append_all([], tracking=Tracking("orders", 1)) == []
    assert store.tracking("orders") == 1
    with RedisStore.from_url(store.url, namespace=namespace, partitions=None) as other:
        other.delete_namespace()
        other.append("w", numbered(1))
    assert store.append_all([Append("w", numbered(1))], tracking=Tracking("orders", 1)) == [2]


def test_a_deleted_namespace_leaves_no_record(store: RedisStore) -> None:
    store.append_all([Append("w", numbered(1))], tracking=Tracking("orders", 7))
    store.delete_namespace()
    client = store._connected.server._client
    assert client.keys(f"{{{store.context.keys.namespace}[:}}]*") == []


def test_records_are_exported_and_imported(store: RedisStore, valkey: RunningServer, tmp_path: Path) -> None:
    store.append_all([Append("w", numbered(1))], tracking=Tracking("orders", 7))
    store.append_all([], tracking=Tracking("a \n b", 3))
    export(store, tmp_path / "all")
    export(store, tmp_path / "one", ["w"])
    with RedisStore.from_url(valkey.url(), namespace=f"{store.context.keys.namespace}-copy") as target:
        assert load(target, tmp_path / "one").complete
        assert target.tracking("orders") is None
        target.append_all([], tracking=Tracking("orders", 9), details=False)
        assert load(target, tmp_path / "all").complete
        assert (target.tracking("orders"), target.tracking("a \n b")) == (9, 3)
        assert load(target, tmp_path / "all").problems == []
        target.delete_namespace()


@pytest.mark.parametrize("record", [["tracking", "", 1], ["tracking", "x", -1], ["tracking", "x", 2**60], ["tracking"]])
def test_a_damaged_record_of_an_archive_is_rejected(store: RedisStore, record: list[Any]) -> None:
    importer = Importer(store.context)
    store.run(importer.take(["archive", 1, "n", None, None]), "import")
    with pytest.raises(DecodeError, match="damaged record"):
        store.run(importer.take(record), "import")


def test_in_a_cluster_the_workflows_are_in_the_first_partition(
    cluster_nodes: list[RunningServer], namespace: str
) -> None:
    url = servers.cluster_url(cluster_nodes)
    with RedisStore.from_url(url, namespace=namespace, partitions=8) as store:
        at = {store.context.keys.partition_of(f"w-{number}"): f"w-{number}" for number in range(100)}
        assert store.append_all([Append(at[0], numbered(1))], tracking=Tracking("orders", 1)) == [1]
        with pytest.raises(InvalidArgument, match="first partition"):
            store.append_all([Append(at[5], numbered(1))], tracking=Tracking("orders", 2))
        assert (store.cursor(at[5]), store.tracking("orders")) == (0, 1)
        assert store.append_all([], tracking=Tracking("orders", 2)) == []
        assert store.tracking("orders") == 2
        assert verify(store).findings == []
        store.delete_namespace()


def test_a_cluster_of_one_node_is_a_cluster(tmp_path: Path, namespace: str) -> None:
    with (
        servers.cluster(servers.valkey_program(), tmp_path, primaries=1) as (node,),
        RedisStore.from_url(f"redis://127.0.0.1:{node.port}", namespace=namespace, partitions=8) as store,
    ):
        other = next(one for one in map(str, range(100)) if store.context.keys.partition_of(one))
        with pytest.raises(InvalidArgument, match="first partition"):
            store.append_all([Append(other, numbered(1))], tracking=Tracking("orders", 2))
        assert (store.exists(other), store.tracking("orders")) == (False, None)


def test_asyncio(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace) as store:
            assert await store.append_all([Append("w", numbered(1))], tracking=Tracking("orders", 1)) == [1]
            with pytest.raises(TrackingConflict):
                await store.append_all([], tracking=Tracking("orders", 1))
            assert await store.tracking("orders") == 1

    asyncio.run(main())


def test_a_connection_that_is_cut_anywhere_leaves_no_part(valkey: RunningServer, namespace: str) -> None:
    with proxied(valkey) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}?protocol=3"
        with RedisStore.from_url(url, namespace=namespace, partitions=1, feed=True) as cut:
            for number in range(1, 41):
                proxy.arm(Fault("request", 37 * number % 600) if number % 2 else Fault("reply", number % 8))
                items = [Append("w", [{"n": number}])] if number % 3 else []
                cut.append_all(items, tracking=Tracking("orders", number))
                assert cut.tracking("orders") == number
            assert proxy.done > 20
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=None) as store:
        assert [event["n"] for event in store.stream("w")] == [number for number in range(1, 41) if number % 3]
