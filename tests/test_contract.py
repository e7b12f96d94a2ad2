"""The contract suite, unchanged, on every kind of server."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import pytest

from runic_redis import RedisStore
from runic_redis.testing import StoreContract
from tests import servers


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def protocol(request: pytest.FixtureRequest) -> int:
    return request.param


class TestMemory(StoreContract):
    @pytest.fixture
    def opener(self, namespace: str, protocol: int) -> Callable[[], RedisStore]:
        return partial(RedisStore.from_url, f"memory://{namespace}?protocol={protocol}", namespace=namespace)

    @pytest.fixture
    def elsewhere(self, opener: Callable[[], RedisStore]) -> Any:
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


class TestEmbedded(StoreContract):
    @pytest.fixture
    def opener(self, embedded: str, namespace: str, protocol: int) -> Callable[[], RedisStore]:
        return partial(RedisStore.from_url, f"{embedded}?protocol={protocol}", namespace=namespace)


class TestRedis62(StoreContract):
    @pytest.fixture
    def opener(self, redis_6_2: Any, namespace: str, protocol: int) -> Callable[[], RedisStore]:
        return partial(RedisStore.from_url, redis_6_2.url(protocol), namespace=namespace)


if servers.path_program() is None:

    def test_the_contract_on_the_redis_on_path() -> None:
        pytest.skip("no redis-server on PATH")

else:

    class TestRedisOnPath(StoreContract):
        @pytest.fixture
        def opener(self, redis_on_path: Any, namespace: str, protocol: int) -> Callable[[], RedisStore]:
            return partial(RedisStore.from_url, redis_on_path.url(protocol), namespace=namespace)


class TestCluster(StoreContract):
    @pytest.fixture
    def opener(self, cluster_nodes: Any, namespace: str, protocol: int) -> Callable[[], RedisStore]:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster_nodes)
        return partial(RedisStore.from_url, f"redis+cluster://{hosts}?protocol={protocol}", namespace=namespace)
