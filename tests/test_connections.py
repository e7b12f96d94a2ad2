"""How many connections a store uses, when it takes another one, and how long it retries."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import redis

from runic_redis import ConfigurationError, RedisStore, StoreError
from runic_redis.drivers import sync, sync_reads
from runic_redis.heartbeat import AsyncHeldLease, HeldLease
from runic_redis.protocol.effects import Batch, Command, ConnectionLost, Unanswered
from runic_redis.protocol.rounds import Call
from runic_redis.testing.examples import numbered
from tests.servers import RunningServer, cluster, cluster_url, moving_slot, running, valkey_program, wait_until

# More than redis-py's own limit.
MANY = 110


def test_a_half_read_stream_holds_no_connection(tmp_path: Path, namespace: str) -> None:
    with running(valkey_program(), tmp_path) as server, server.client() as client:
        with RedisStore.from_url(server.url(), namespace=namespace) as store:
            for _ in range(2):
                store.append_many([("w", numbered(1))] * 100)
            streams = [store.stream("w") for _ in range(MANY)]
            for stream in streams:
                assert len(list(islice(stream, 80))) == 80  # so the fourth page was asked for ahead
            assert len(client.client_list()) - 1 <= 2
            assert [len(list(stream)) for stream in streams] == [120] * MANY
        wait_until(lambda: len(client.client_list()) == 1, "the store to close its connections")


def test_the_limit_of_redis_py_is_no_limit_of_a_store(tmp_path: Path, namespace: str) -> None:
    with (
        running(valkey_program(), tmp_path) as server,
        server.client() as client,
        RedisStore.from_url(server.url(), namespace=namespace) as store,
        ThreadPoolExecutor(MANY) as pool,
    ):
        tails = [store.tail("w") for _ in range(MANY)]
        waiting = [pool.submit(next, tail) for tail in tails]
        wait_until(lambda: client.info("clients")["blocked_clients"] == MANY, "all to wait at once")
        assert store.append("w", numbered(1)) == 1
        assert [one.result(60).cursor for one in waiting] == [1] * MANY


@pytest.mark.parametrize("kind", ["client", "blocking", "URL", "cluster"])
def test_an_exhausted_pool_is_an_error_at_once(
    valkey: RunningServer, cluster_nodes: list[RunningServer], namespace: str, kind: str
) -> None:
    options: dict[str, Any] = {"namespace": namespace, "deadline_s": 1000.0}
    if kind == "client":
        store = RedisStore(valkey.client(max_connections=1, socket_timeout=5), **options)
    elif kind == "blocking":
        url = valkey.url() + "&socket_timeout=5"
        pool = redis.BlockingConnectionPool.from_url(url, max_connections=1, timeout=0.01)
        store = RedisStore(redis.Redis.from_pool(pool), **options)
    elif kind == "URL":
        store = RedisStore.from_url(valkey.url() + "&max_connections=2", **options)
    else:
        store = RedisStore.from_url(cluster_url(cluster_nodes) + "?max_connections=2", **options)
    with store:
        store.append("w", numbered(1))
        server = store._sender.server
        key = store.context.keys.workflow("w").meta
        client = server._client if kind != "cluster" else server._client.get_node_from_key(key).redis_connection
        pool = client.connection_pool
        taken = [pool.get_connection() for _ in range(pool.max_connections)]
        with pytest.raises(ConfigurationError, match=r"exhausted: all its \d connections are in use. Nothing was sent"):
            store.append("w", numbered(1))
        with pytest.raises(ConfigurationError, match="exhausted"):
            list(store.stream("w"))
        for connection in taken:
            pool.release(connection)
        assert store.append("w", numbered(1)) == 2
    client.close()


def test_a_server_that_is_no_primary_any_more_is_connected_to_anew(tmp_path: Path, namespace: str) -> None:
    whose = Batch([Command(("CLIENT", "ID"), "k")])
    with (
        running(valkey_program(), tmp_path) as server,
        server.client() as client,
        RedisStore.from_url(server.url(), namespace=namespace, deadline_s=0.1) as store,
    ):
        store.append("w", numbered(1))
        (before,) = store._sender.ask(whose)
        assert store._sender.ask(whose) == [before]
        client.replicaof("127.0.0.1", 1)
        with pytest.raises(StoreError, match="READONLY"):
            store.append("w", numbered(1))
        client.replicaof("NO", "ONE")
        assert store._sender.ask(whose) != [before]
        assert store.append("w", numbered(1)) == 2


def test_a_node_that_gets_another_pool_is_asked_through_that(
    cluster_nodes: list[RunningServer], namespace: str
) -> None:
    with RedisStore.from_url(cluster_url(cluster_nodes), namespace=namespace) as store:
        store.append("w", numbered(1))
        server = store._sender.server
        node = server._client.get_node_from_key(store.context.keys.workflow("w").meta)
        first = server.connections(node)
        assert server.connections(node) is first
        former = node.redis_connection
        node.redis_connection = redis.Redis(host=node.host, port=node.port, client_name="moved")
        assert server.connections(node).pool is node.redis_connection.connection_pool
        assert store.append("w", numbered(1)) == 2
        assert "moved" in [one["name"] for one in former.client_list()]
        former.close()


def test_the_slots_of_a_cluster_may_move(tmp_path: Path) -> None:
    with (
        cluster(valkey_program(), tmp_path, primaries=2) as nodes,
        RedisStore.from_url(cluster_url(nodes), namespace="shop", partitions=4, deadline_s=5.0) as store,
    ):
        store.append("order-1", numbered(1))
        with moving_slot(nodes, store.context.keys.workflow("order-1").meta):
            assert store.append("order-1", numbered(1)) == 2
        assert store.append("order-1", numbered(1)) == 3
        assert list(store.stream("order-1")) == numbered(1) * 3


class Clock:
    """The time that passes by sleeping, and by waiting for a server that never answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time_s = 1000.0
        self.tries = 0
        self.find_node = None
        for module in (sync, sync_reads):
            monkeypatch.setattr(module, "now_s", lambda: self.time_s)
        monkeypatch.setattr(sync.time, "sleep", self.sleep)

    def sleep(self, pause_s: float) -> None:
        self.time_s += pause_s

    def begin(self, calls: Sequence[Call]) -> "Clock":
        self._calls = calls
        return self

    def finish(self) -> list[Any]:
        self.tries += 1
        self.sleep(3)
        return [ConnectionLost("it is silent", sent=True)] * len(self._calls)


@pytest.mark.parametrize("own_connection", [False, True])
def test_a_deadline_counts_from_the_first_try(monkeypatch: pytest.MonkeyPatch, own_connection: bool) -> None:
    clock: Any = Clock(monkeypatch)
    (reply,) = sync.Sender(clock, 10.0, wait_s=1.0).ask(
        Batch([Command(("GET", "k"), "k")], own_connection=own_connection)
    )
    assert type(reply) is Unanswered
    # Tries that end after 3, 6, 9 and 12 s, and the pauses between.
    assert clock.tries == 4
    assert 12 < reply.elapsed_s < 13
    assert 12 < clock.time_s - 1000 < 13


def test_the_deadline_of_what_was_sent_ahead_counts_from_when_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = Clock(monkeypatch)
    in_flight = sync_reads.BatchInFlight(Batch([Command(("GET", "k"), "k")], own_connection=True), clock, 10.0)
    clock.sleep(100)
    (reply,) = in_flight.wait()
    assert type(reply) is Unanswered
    assert clock.tries == 4
    assert 12 < reply.elapsed_s < 13


class Renewals:
    """A store that notes when a lease is renewed."""

    def __init__(self) -> None:
        self.times_s: SimpleQueue[float] = SimpleQueue()

    def renew(self, _: object) -> None:
        self.times_s.put(time.monotonic())

    def release(self, _: object) -> None:
        pass


class AsyncRenewals(Renewals):
    async def renew(self, _: object) -> None:  # type: ignore[override]
        super().renew(_)

    async def release(self, _: object) -> None:  # type: ignore[override]
        pass


TTL_S = 0.9


def test_a_heartbeat_renews_no_more_than_three_times_in_a_leases_time() -> None:
    store = Renewals()
    began_s = time.monotonic()
    with HeldLease("w", "me", 1, TTL_S, _store=store):
        assert store.times_s.get() - began_s >= TTL_S / 3


def test_for_asyncio_a_heartbeat_renews_no_more_than_three_times_in_a_leases_time() -> None:
    async def main() -> None:
        store = AsyncRenewals()
        began_s = time.monotonic()
        async with AsyncHeldLease("w", "me", 1, TTL_S, _store=store):
            while store.times_s.empty():
                await asyncio.sleep(0.01)
        # (The loop's clock may be a little coarser.)
        assert store.times_s.get() - began_s >= TTL_S / 3 - 0.01

    asyncio.run(main())
