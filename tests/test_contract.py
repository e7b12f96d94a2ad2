"""The contract suite, unchanged, on every kind of server, for both kinds of store."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any
from zlib import crc32

import pytest

from runic_redis.testing import StoreContract
from tests import servers
from tests.portal import open_store

VARIANTS = [("sync", 2), ("asyncio", 3), ("sync", 3), ("asyncio", 2)]
SERVERS = ("TestMemory", "TestEmbedded", "TestRedis62", "TestCluster", "TestRedisOnPath")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each case once on each server, with another variant on each, so all four variants are met.

    A case is the same operation for both faces and protocols. Their treatment of its commands does not depend on the
    case.
    """
    if "variant" in metafunc.fixturenames:
        turn = SERVERS.index(metafunc.cls.__name__) + crc32(metafunc.function.__name__.encode())
        face, protocol = VARIANTS[turn % len(VARIANTS)]
        metafunc.parametrize("variant", [(face, protocol)], ids=[f"{face}-resp{protocol}"])


# Listing, claiming and collecting ask each partition. Fewer than the default keep most servers' runs quick.
FEW = {"partitions": 16, "feed": True}


class TestMemory(StoreContract):
    @pytest.fixture
    def opener(self, namespace: str, variant: tuple[str, int], few_buckets: None) -> Callable[[], Any]:
        face, protocol = variant
        return partial(open_store, face, f"memory://{namespace}?protocol={protocol}", namespace, **FEW)

    @pytest.fixture
    def elsewhere(self, opener: Callable[[], Any]) -> Any:
        """Run calls in threads, each with a store: the data is in this process alone."""

        def run(function: Callable[..., Any], *calls: tuple[Any, ...]) -> list[Any]:
            barrier = Barrier(len(calls))

            def one(call: tuple[Any, ...]) -> Any:
                with opener() as store:
                    barrier.wait()
                    return function(store, *call)

            with ThreadPoolExecutor(len(calls)) as pool:
                return list(pool.map(one, calls))

        return run


class TestEmbedded(StoreContract):
    @pytest.fixture
    def opener(self, embedded: str, namespace: str, variant: tuple[str, int]) -> Callable[[], Any]:
        face, protocol = variant
        return partial(open_store, face, f"{embedded}?protocol={protocol}", namespace, feed=True)


class TestRedis62(StoreContract):
    @pytest.fixture
    def opener(self, redis_6_2: Any, namespace: str, variant: tuple[str, int]) -> Callable[[], Any]:
        face, protocol = variant
        return partial(open_store, face, redis_6_2.url(protocol), namespace, **FEW)


if servers.path_program() is None:

    def test_the_contract_on_the_redis_on_path() -> None:
        pytest.skip("no redis-server on PATH")

else:

    class TestRedisOnPath(StoreContract):
        @pytest.fixture
        def opener(self, redis_on_path: Any, namespace: str, variant: tuple[str, int]) -> Callable[[], Any]:
            face, protocol = variant
            return partial(open_store, face, redis_on_path.url(protocol), namespace, feed=True)


class TestCluster(StoreContract):
    @pytest.fixture
    def opener(self, cluster_nodes: Any, namespace: str, variant: tuple[str, int]) -> Callable[[], Any]:
        face, protocol = variant
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster_nodes)
        return partial(open_store, face, f"redis+cluster://{hosts}?protocol={protocol}", namespace, **FEW)
