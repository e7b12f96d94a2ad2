"""The contract suite, unchanged, on every kind of server, for both kinds of store."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any, NamedTuple
from zlib import crc32

import pytest

from runic_redis.testing import (
    FeedContract,
    ProjectionContract,
    ProjectionRunnerContract,
    QueryContract,
    StoreContract,
    SubscriptionContract,
)
from tests import servers
from tests.feed_damage import FeedDamage
from tests.portal import open_store

FACES = [("sync", 2), ("asyncio", 3), ("sync", 3), ("asyncio", 2)]
NEED_FEED = (
    FeedContract,
    ProjectionContract,
    ProjectionRunnerContract,
    QueryContract,
    SubscriptionContract,
    FeedDamage,
)
SERVERS = ("TestMemory", "TestEmbedded", "TestRedis62", "TestCluster", "TestRedisOnPath")


class Variant(NamedTuple):
    """How a case runs: the face of the store, the protocol, and the settings that the namespace needs."""

    face: str
    protocol: int
    has_feed: bool
    has_index: bool

    def opener(self, url: str, namespace: str, **options: Any) -> Callable[[], Any]:
        """Return a function that opens the store."""
        if self.has_index:
            options["partitions"] = 1
        return partial(open_store, self.face, url, namespace, feed=self.has_feed, **options)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each case once on each server, with another variant on each, so all four faces are met.

    A case is the same operation for both faces and protocols. Their treatment of its commands does not depend on the
    case. On one of the servers, a case that does not need a feed runs without one.
    """
    if "variant" in metafunc.fixturenames:
        name = metafunc.function.__name__
        turn = SERVERS.index(metafunc.cls.__name__) + crc32(name.encode())
        face, protocol = FACES[turn % len(FACES)]
        has_feed = any(hasattr(one, name) for one in NEED_FEED) or turn % len(SERVERS) > 0
        label = f"{face}-resp{protocol}{'' if has_feed else '-no-feed'}"
        metafunc.parametrize("variant", [Variant(face, protocol, has_feed, hasattr(QueryContract, name))], ids=[label])


# Listing, claiming and collecting ask each partition. Fewer than the default keep most servers' runs quick.
FEW = {"partitions": 16}


class ServerContract(StoreContract, FeedDamage):
    """What holds on every server."""


class TestMemory(ServerContract):
    @pytest.fixture
    def opener(self, namespace: str, variant: Variant, few_buckets: None) -> Callable[[], Any]:
        return variant.opener(f"memory://{namespace}?protocol={variant.protocol}", namespace, **FEW)

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


class TestEmbedded(ServerContract):
    @pytest.fixture
    def opener(self, embedded: str, namespace: str, variant: Variant) -> Callable[[], Any]:
        return variant.opener(f"{embedded}?protocol={variant.protocol}", namespace)


class TestRedis62(ServerContract):
    @pytest.fixture
    def opener(self, redis_6_2: Any, namespace: str, variant: Variant) -> Callable[[], Any]:
        return variant.opener(redis_6_2.url(variant.protocol), namespace, **FEW)


if servers.path_program() is None:

    def test_the_contract_on_the_redis_on_path() -> None:
        pytest.skip("no redis-server on PATH")

else:

    class TestRedisOnPath(ServerContract):
        @pytest.fixture
        def opener(self, redis_on_path: Any, namespace: str, variant: Variant) -> Callable[[], Any]:
            return variant.opener(redis_on_path.url(variant.protocol), namespace)


class TestCluster(ServerContract):
    @pytest.fixture
    def opener(self, cluster_nodes: Any, namespace: str, variant: Variant) -> Callable[[], Any]:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster_nodes)
        return variant.opener(f"redis+cluster://{hosts}?protocol={variant.protocol}", namespace, **FEW)
