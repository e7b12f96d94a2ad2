"""The contract suite, unchanged, on every kind of server, for both kinds of store."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import pytest

from runic_redis.testing import StoreContract
from tests import servers
from tests.portal import open_store

# Every server with both faces and both protocols; which face speaks which differs, so that all pairs are met.
SYNC_2 = pytest.mark.parametrize("variant", [("sync", 2), ("asyncio", 3)], ids=["sync-resp2", "asyncio-resp3"])
SYNC_3 = pytest.mark.parametrize("variant", [("sync", 3), ("asyncio", 2)], ids=["sync-resp3", "asyncio-resp2"])

# Listing, claiming and collecting ask each partition: the default's 256 on one kind of server, fewer on the others.
FEW = {"partitions": 16}


@SYNC_2
class TestMemory(StoreContract):
    @pytest.fixture
    def opener(self, namespace: str, variant: tuple[str, int], few_buckets: None) -> Callable[[], Any]:
        face, protocol = variant
        return partial(open_store, face, f"memory://{namespace}?protocol={protocol}", namespace, **FEW)

    @pytest.fixture
    def elsewhere(self, opener: Callable[[], Any]) -> Any:
        """It is in this process alone: other threads, with stores of their own."""

        def run(function: Callable[..., Any], *calls: tuple[Any, ...]) -> list[Any]:
            barrier = Barrier(len(calls))

            def one(call: tuple[Any, ...]) -> Any:
                with opener() as store:
                    barrier.wait()
                    return function(store, *call)

            with ThreadPoolExecutor(len(calls)) as pool:
                return list(pool.map(one, calls))

        return run


@SYNC_3
class TestEmbedded(StoreContract):
    @pytest.fixture
    def opener(self, embedded: str, namespace: str, variant: tuple[str, int]) -> Callable[[], Any]:
        face, protocol = variant
        return partial(open_store, face, f"{embedded}?protocol={protocol}", namespace)


@SYNC_2
class TestRedis62(StoreContract):
    @pytest.fixture
    def opener(self, redis_6_2: Any, namespace: str, variant: tuple[str, int]) -> Callable[[], Any]:
        face, protocol = variant
        return partial(open_store, face, redis_6_2.url(protocol), namespace, **FEW)


if servers.path_program() is None:

    def test_the_contract_on_the_redis_on_path() -> None:
        pytest.skip("no redis-server on PATH")

else:

    @SYNC_3
    class TestRedisOnPath(StoreContract):
        @pytest.fixture
        def opener(self, redis_on_path: Any, namespace: str, variant: tuple[str, int]) -> Callable[[], Any]:
            face, protocol = variant
            return partial(open_store, face, redis_on_path.url(protocol), namespace)


@SYNC_3
class TestCluster(StoreContract):
    @pytest.fixture
    def opener(self, cluster_nodes: Any, namespace: str, variant: tuple[str, int]) -> Callable[[], Any]:
        face, protocol = variant
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster_nodes)
        return partial(open_store, face, f"redis+cluster://{hosts}?protocol={protocol}", namespace, **FEW)
