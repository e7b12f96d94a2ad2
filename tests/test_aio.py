"""Behaviour that only asyncio has: cancellation, the life of a store, clients, errors. The contract has the rest."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from runic_redis import (
    AsyncRedisStore,
    ConfigurationError,
    InvalidArgument,
    InvalidType,
    RedisStore,
    StoreError,
    StoreUnavailable,
    WorkflowNotFound,
)
from runic_redis.drivers.aio_servers import SingleServer
from runic_redis.protocol.effects import Batch, Command
from runic_redis.protocol.queue import Queue
from runic_redis.protocol.rounds import Ticket
from runic_redis.testing.examples import numbered
from tests import servers
from tests.proxy import Fault, Proxy, proxied
from tests.servers import RunningServer

Main = Callable[[], Coroutine[Any, Any, None]]


@asynccontextmanager
async def opened(server: RunningServer, namespace: str, **options: Any) -> AsyncIterator[AsyncRedisStore]:
    async with AsyncRedisStore.from_url(server.url(), namespace=namespace, **options) as store:
        yield store


def test_the_readme_s_life_of_a_store(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        store = AsyncRedisStore.from_url(valkey.url(), namespace=namespace)
        assert "not open" in repr(store)
        with pytest.raises(StoreError, match="not open"):
            await store.append("order-1", numbered(1))
        async with store:
            assert await store.append("order-1", numbered(3)) == 3
            assert [event async for event in store.stream("order-1")] == numbered(3)
            with pytest.raises(StoreError, match="opened before"):
                await store.open()
        assert store.closed
        await store.close()
        with pytest.raises(StoreError, match="closed"):
            await store.cursor("order-1")
        other = await AsyncRedisStore.from_url(valkey.url(), namespace=namespace).open()
        assert await other.cursor("order-1") == 3
        await other.close()

    asyncio.run(main())


def test_what_a_call_raises_an_iterator_raises_on_its_first_step(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        async with opened(valkey, namespace) as store:
            events = store.stream("nowhere")
            with pytest.raises(WorkflowNotFound):
                await anext(events)
            with pytest.raises(InvalidArgument):
                store.stream("")

    asyncio.run(main())


def test_both_kinds_of_store_share_a_namespace(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        store.append("order-1", numbered(2))

        async def main() -> None:
            async with opened(valkey, namespace) as other:
                assert [event async for event in other.stream("order-1")] == numbered(2)
                await other.append("order-1", numbered(1, 3), expected_cursor=2)

        asyncio.run(main())
        assert list(store.stream("order-1")) == numbered(3)


def test_a_cancelled_append_is_there_once_or_not(valkey: RunningServer, namespace: str) -> None:
    """Cancel tasks at random moments. Each append is stored at most once, whole and in order."""

    async def main(rng: random.Random) -> None:
        async with opened(valkey, namespace) as store:
            acknowledged: dict[int, list[int]] = {}

            async def work(number: int) -> None:
                for step in range(1000):
                    await store.append(f"order-{number}", [{"step": step}, {"again": step}])
                    acknowledged.setdefault(number, []).append(step)

            tasks = [asyncio.create_task(work(number)) for number in range(20)]
            for task in rng.sample(tasks, len(tasks)):
                for _ in range(rng.randrange(60)):
                    await asyncio.sleep(0)
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for number in range(20):
                steps = [event async for event in store.stream(f"order-{number}")] if number in acknowledged else []
                count = len(steps) // 2
                assert steps == [part for step in range(count) for part in ({"step": step}, {"again": step})]
                assert count - len(acknowledged.get(number, [])) in {0, 1}

    for seed in range(5):
        asyncio.run(main(random.Random(seed)))
        with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
            store.delete_namespace()


def test_a_cancelled_reader_leaves_no_half_read_connection(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        async with opened(valkey, namespace) as store:
            large = [{"n": n, "text": random.Random(n).randbytes(5000)} for n in range(200)]
            for _ in range(20):
                await store.append("large", large)
            await store.append("small", numbered(5))

            async def read() -> None:
                async for _ in store.stream("large"):
                    pass

            for turn in range(40):
                task = asyncio.create_task(read())
                for _ in range(turn * 3):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert [event async for event in store.stream("small")] == numbered(5)
            assert [event async for event in store.stream("large", after=3800)] == large
            # Closing an iterator early gives up the page that is in flight.
            events = store.stream("large")
            for _ in range(1000):
                await anext(events)
            await events.aclose()  # type: ignore[attr-defined]
            assert await store.cursor("large") == 4000

    asyncio.run(main())


class InterruptedConnection:
    """A client, its pool and a connection whose reader is cancelled between sending and reading."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.connection_pool = self
        self.max_connections = 1

    async def get_connection(self) -> "InterruptedConnection":
        return self

    async def send_packed_command(self, _: Any, **__: Any) -> None:
        self.events.append("sent")

    async def read_response(self) -> None:
        raise asyncio.CancelledError

    async def disconnect(self, *, nowait: bool) -> None:
        assert nowait
        self.events.append("disconnected")

    async def release(self, _: object) -> None:
        self.events.append("released")


def test_an_interrupted_connection_is_closed_before_it_goes_back_to_the_pool() -> None:
    pool = InterruptedConnection()
    queue = Queue(30.0)
    queue.add(Ticket(Batch([Command(("GET", "k"), "k")]), 0.0), [0])
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(SingleServer(pool, owned=True).send(queue.next_round(0.0)))
    assert pool.events == ["sent", "disconnected", "released"]


def test_a_follower_is_stopped_by_cancelling_it(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        async with opened(valkey, namespace) as store:
            seen: asyncio.Queue[int] = asyncio.Queue()

            async def follow() -> None:
                async for record in store.tail("order-1"):
                    seen.put_nowait(record.cursor)

            task = asyncio.create_task(follow())
            for number in range(1, 4):
                await store.append("order-1", numbered(1))
                assert await seen.get() == number
            task.cancel()
            assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
            assert await store.cursor("order-1") == 3

    asyncio.run(main())


@pytest.mark.parametrize("face", ["sync", "asyncio"])
def test_a_follower_outlives_the_time_limit_of_its_connection(valkey: RunningServer, namespace: str, face: str) -> None:
    url = valkey.url() + "&socket_timeout=0.2"

    def waited(client: redis.Redis, before: int) -> bool:
        # Each read waits for half of the connection's time limit.
        stats: Any = client.info("commandstats")
        return int(stats["cmdstat_xread"]["calls"]) - before >= 5

    async def asynchronous(client: redis.Redis) -> None:
        async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
            records = store.tail("order-1")
            coming = asyncio.ensure_future(anext(records))
            while not waited(client, 0):
                await asyncio.sleep(0)
            await store.append("order-1", numbered(1))
            assert (await coming).event == numbered(1)[0]
            await records.aclose()

    with valkey.client() as client:
        client.config_resetstat()
        if face == "asyncio":
            client.xread({"x": "0-0"}, count=1)
            asyncio.run(asynchronous(client))
            return
        client.xread({"x": "0-0"}, count=1)
        with RedisStore.from_url(url, namespace=namespace) as store, ThreadPoolExecutor(1) as pool:
            records = store.tail("order-1")
            coming = pool.submit(next, records)
            while not waited(client, 0):
                pass
            store.append("order-1", numbered(1))
            assert coming.result().event == numbered(1)[0]


@pytest.fixture
def proxy(valkey: RunningServer) -> Any:
    with proxied(valkey) as proxy:
        yield proxy


def test_commits_survive_connections_that_are_cut_anywhere(proxy: Proxy, namespace: str) -> None:
    async def main() -> None:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
            await store.append("other", numbered(1))
            for at in range(0, 800, 23):
                proxy.arm(Fault("request", at) if at % 2 else Fault("reply", at // 8))
                await asyncio.gather(*(store.append(f"order-{n}", [{"at": at, "n": n}]) for n in range(8)))
            proxy.arm(None)
            for n in range(8):
                events = [event async for event in store.stream(f"order-{n}")]
                assert events == [{"at": at, "n": n} for at in range(0, 800, 23)]

    asyncio.run(main())


def test_the_order_within_a_workflow_survives_cut_connections(proxy: Proxy, namespace: str) -> None:
    async def main() -> None:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
            await store.append("other", numbered(1))
            calls = []
            for number in range(200):
                if number % 20 == 0:
                    proxy.arm(Fault("request", number * 7))
                calls.append(asyncio.ensure_future(store.append("order-1", numbered(1, number))))
                if number % 3 == 0:
                    await asyncio.sleep(0)
            assert await asyncio.gather(*calls) == list(range(1, 201))
            assert [event async for event in store.stream("order-1")] == numbered(200, 0)

    asyncio.run(main())


def test_a_server_that_does_not_answer_is_unavailable_after_the_deadline(proxy: Proxy, namespace: str) -> None:
    async def main() -> None:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with AsyncRedisStore.from_url(url, namespace=namespace, deadline_s=0.2) as store:
            await store.append("order-1", numbered(1))
            proxy.close()
            with pytest.raises(StoreUnavailable, match=r"did not answer for \d"):
                await store.append("order-1", numbered(1))

    asyncio.run(main())


def test_an_unexpected_failure_leaves_no_call_without_an_answer(
    valkey: RunningServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such thing")

    async def main() -> None:
        async with opened(valkey, namespace) as store:
            await store.append("order-1", numbered(1))
            assert store._sender is not None
            with monkeypatch.context() as patch:
                patch.setattr(store._sender._server, "send", fail)
                calls = [store.append(f"order-{n}", numbered(1)) for n in range(5)]
                for outcome in await asyncio.gather(*calls, return_exceptions=True):
                    assert isinstance(outcome, StoreError)
                    assert isinstance(outcome.__cause__, RuntimeError)
            assert await store.append("order-1", numbered(1)) == 2

    asyncio.run(main())


def test_a_call_that_waits_when_the_store_is_closed_raises(proxy: Proxy, namespace: str) -> None:
    async def main() -> None:
        store = await AsyncRedisStore.from_url(f"redis://127.0.0.1:{proxy.port}", namespace=namespace).open()
        await store.append("order-1", numbered(1))
        proxy.close()
        waiting = [asyncio.ensure_future(store.append("order-1", numbered(1))) for _ in range(5)]
        await asyncio.sleep(0)
        await store.close()
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, StoreError)
            assert "closed" in str(outcome)

    asyncio.run(main())


def test_every_kind_of_client_is_used(
    valkey: RunningServer, cluster_nodes: list[RunningServer], namespace: str
) -> None:
    async def main() -> None:
        clients: list[Any] = [
            redis.asyncio.Redis(unix_socket_path=str(valkey.socket)),
            redis.asyncio.Redis.from_pool(
                redis.asyncio.BlockingConnectionPool.from_url(valkey.url(), max_connections=1)
            ),
            redis.asyncio.RedisCluster(host="127.0.0.1", port=cluster_nodes[0].port),
        ]
        for client in clients:
            async with AsyncRedisStore(client, namespace=namespace) as store:
                await store.delete("order-1")
                assert await asyncio.gather(*(store.append("order-1", numbered(1, n)) for n in range(9))) == [
                    *range(1, 10)
                ]
                assert [event async for event in store.stream("order-1")] == numbered(9, 0)
            assert await client.ping(), "the store closed a client that belongs to the caller"
            await client.aclose()

    asyncio.run(main())


def test_what_is_no_client_of_asyncio_is_refused(valkey: RunningServer) -> None:
    with valkey.client() as client:
        for wrong, message in ((client, "client of redis;"), ("redis://x", "not a str"), (None, "not a NoneType")):
            with pytest.raises(InvalidType, match=message):
                AsyncRedisStore(wrong)
    with pytest.raises(ConfigurationError, match="decode_responses"):
        AsyncRedisStore(redis.asyncio.Redis(decode_responses=True))


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("redis://127.0.0.1:1", StoreUnavailable, "cannot be reached"),
        ("redis+cluster://127.0.0.1:1", StoreUnavailable, "cannot be reached"),
        ("redis+sentinel://127.0.0.1:1/service", StoreUnavailable, "cannot be reached"),
        ("redis://localhost?decode_responses=1", ConfigurationError, "decode_responses"),
        ("nothing", ConfigurationError, "is not a URL"),
    ],
)
def test_a_store_that_cannot_be_opened_says_so(url: str, error: type[StoreError], message: str) -> None:
    async def main() -> None:
        store = AsyncRedisStore.from_url(url, deadline_s=0.1)
        with pytest.raises(error, match=message):
            await store.open()
        assert store.closed

    asyncio.run(main())


def test_a_connection_to_the_former_primary_is_replaced(tmp_path: Path) -> None:
    """Another server may have taken over the address."""

    async def main(server: RunningServer) -> None:
        with server.client() as client:
            async with opened(server, "shop") as store:
                assert await store.append("order-1", numbered(1)) == 1
                client.replicaof("127.0.0.1", 1)
                before = client.info("stats")["total_connections_received"]
                waiting = asyncio.create_task(store.append("order-1", numbered(1)))
                await asyncio.to_thread(
                    servers.wait_until,
                    lambda: client.info("stats")["total_connections_received"] > before,
                    "another connection",
                )
                client.replicaof("NO", "ONE")
                assert await waiting == 2

    with servers.running(servers.valkey_program(), tmp_path) as server:
        asyncio.run(main(server))


def test_the_slots_of_a_cluster_may_move(tmp_path: Path) -> None:
    """The store asks the new node for keys of a slot that moved or is just moving.

    It uses connections to that node.
    """

    async def main(nodes: list[RunningServer]) -> None:
        async with AsyncRedisStore.from_url(servers.cluster_url(nodes), namespace="shop", partitions=4) as store:
            await store.append("order-1", numbered(1))
            key = store.context.keys.workflow("order-1").meta
            with servers.moving_slot(nodes, key) as target:
                assert await store.append("order-1", numbered(1)) == 2
            with target:
                before = target.info("commandstats")["cmdstat_evalsha"]["calls"]
                assert await store.append("order-1", numbered(1)) == 3
                assert target.info("commandstats")["cmdstat_evalsha"]["calls"] > before
                assert [event async for event in store.stream("order-1")] == numbered(1) * 3

    with servers.cluster(servers.valkey_program(), tmp_path, primaries=2) as nodes:
        asyncio.run(main(nodes))
