"""A cluster of one node, used by redis:// like a plain server. It rejects commands with keys of two slots."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from runic_redis import AsyncRedisStore, ConfigurationError, Fact, RedisStore
from tests import servers
from tests.servers import RunningServer


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with servers.cluster(servers.valkey_program(), tmp_path_factory.mktemp("lone"), primaries=1) as (node,):
        with node.client() as client:
            rules = ("reset", "on", ">secret", "~*", "+@all", "-info", "-cluster")
            client.execute_command("ACL", "SETUSER", "worker", *rules)
        yield node


@pytest.fixture(params=["default", "worker"])
def url(node: RunningServer, request: pytest.FixtureRequest) -> str:
    """Return the URL of a user with all permissions, and of one without INFO and CLUSTER."""
    login = "worker:secret@" if request.param == "worker" else ""
    return f"redis://{login}127.0.0.1:{node.port}"


def test_threads_append_at_the_same_time(url: str, namespace: str) -> None:
    with RedisStore.from_url(url, namespace=namespace) as store, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: [store.append(f"order-{n}", [{"n": n}]) for _ in range(10)], range(8)))
        assert results == [list(range(1, 11))] * 8
        assert store.append_many([(f"order-{n}", [{"n": n}]) for n in range(8)]) == [11] * 8


def test_tasks_append_at_the_same_time(url: str, namespace: str) -> None:
    async def main() -> None:
        async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
            results = await asyncio.gather(*(store.append(f"order-{n % 4}", [{"n": n}]) for n in range(20)))
            assert sorted(results) == sorted(list(range(1, 6)) * 4)

    asyncio.run(main())


def test_facts_of_other_slots_are_kept(url: str, namespace: str) -> None:
    with RedisStore.from_url(url, namespace=namespace) as store, ThreadPoolExecutor(8) as pool:
        # The first commits share a round trip, with and without facts, and learn together that slots matter.
        cursors = pool.map(
            lambda n: store.append(f"order-{n}", [{"fact": Fact({"n": n})}] if n % 2 else iter([{"n": n}])), range(16)
        )
        assert list(cursors) == [1] * 16
        for n in range(1, 16, 2):
            (event,) = store.stream(f"order-{n}")
            assert store.load_fact(event["fact"].hash) == {"n": n}


@pytest.mark.parametrize("way", ["append_many", "save"])
def test_each_way_to_write_facts_learns_of_slots(url: str, namespace: str, way: str) -> None:
    with RedisStore.from_url(url, namespace=namespace) as store:
        if way == "save":
            store.save("order", [{"fact": Fact("one")}])
            kept = store.load("order")
        else:
            items = [("order", [{"fact": Fact("one")}]), ("plain", [{"n": 1}]), ("other", [{"fact": Fact("two")}])]
            assert store.append_many(items) == [1, 1, 1]
            kept = list(store.stream("order"))
        assert store.load_fact(kept[0]["fact"].hash) == "one"


def test_many_workflows_are_followed_at_once(url: str, namespace: str) -> None:
    ids = [f"order-{n}" for n in range(20)]
    with RedisStore.from_url(url, namespace=namespace) as store:
        for one in ids:
            store.append(one, [{"id": one}])
        tail = store.tail_many(dict.fromkeys(ids, 0))
        assert sorted(next(tail)[0] for _ in ids) == sorted(ids)

    async def main() -> None:
        async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
            tail = store.tail_many(dict.fromkeys(ids, 0))
            assert sorted([(await anext(tail))[0] for _ in ids]) == sorted(ids)
            await tail.aclose()

    asyncio.run(main())


def test_a_node_of_a_larger_cluster_is_reported_as_such(cluster_nodes: list[RunningServer], namespace: str) -> None:
    with (
        pytest.raises(ConfigurationError, match="node of a cluster"),
        RedisStore.from_url(f"redis://127.0.0.1:{cluster_nodes[0].port}", namespace=namespace) as store,
    ):
        store.append_many([(f"order-{n}", [{"n": n}]) for n in range(20)])
