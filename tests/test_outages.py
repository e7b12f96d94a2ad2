"""A silent or lost server, or an interrupted caller, delays no other call for longer than it must."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from runic_redis import AsyncRedisStore, ConfigurationError, RedisStore, StoreUnavailable
from runic_redis.drivers import connect, sync, sync_connections, sync_reads
from runic_redis.drivers.redis_py import now_s
from runic_redis.operations.claiming import Claim
from runic_redis.protocol.effects import Batch, Command, Unanswered
from runic_redis.protocol.queue import Queue
from runic_redis.protocol.rounds import Ticket
from runic_redis.testing.examples import numbered
from tests import servers
from tests.servers import RunningServer, cluster_url, free_ports, running, sentinel, valkey_program


@contextmanager
def silent() -> Iterator[str]:
    """Return the address of a server that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_sentinel_that_is_silent_does_not_hide_the_next(tmp_path: Path, namespace: str) -> None:
    async def main(url: str) -> None:
        async with AsyncRedisStore.from_url(url, namespace=namespace, deadline_s=20) as store:
            assert await store.append("order-1", numbered(1)) == 1

    (own,) = free_ports(1)
    with (
        running(valkey_program(), tmp_path / "primary", port=own) as primary,
        sentinel(valkey_program(), tmp_path / "sentinel", "shop", primary) as port,
        silent() as address,
    ):
        url = f"redis+sentinel://{address},127.0.0.1:{port}/shop?socket_timeout=0.5&socket_connect_timeout=0.5"
        asyncio.run(main(url))
        with RedisStore.from_url(url, namespace=namespace) as store:
            assert store.append("order-1", numbered(1)) == 2


def test_a_node_that_is_silent_does_not_hide_the_cluster(cluster_nodes: list[RunningServer], namespace: str) -> None:
    async def main(url: str) -> None:
        # Which node is asked first, is drawn.
        for number in range(5):
            async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
                assert await store.append("order-1", numbered(1)) == number + 1

    with silent() as address:
        asyncio.run(main(f"redis+cluster://{address},127.0.0.1:{cluster_nodes[0].port}?socket_timeout=1"))


def test_a_client_without_time_limits_is_given_one_or_told_of(
    tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connect, "_TIMEOUT_S", 1.0)

    async def main(server: RunningServer) -> None:
        async with redis.asyncio.Redis(port=server.port, socket_timeout=None) as client:
            store = AsyncRedisStore(client, namespace=namespace, deadline_s=2.0)
            async with store:
                await store.append("order-1", numbered(1))
                server.stop()
                try:
                    with pytest.raises(StoreUnavailable):
                        await store.append("order-1", numbered(1))
                finally:
                    server.go_on()

    (port,) = free_ports(1)
    with running(valkey_program(), tmp_path, port=port) as server:
        asyncio.run(main(server))
        for options, said in (({"socket_timeout": None}, 1), ({"socket_timeout": 5}, 0)):
            caplog.clear()
            with redis.Redis(port=server.port, **options) as client:
                RedisStore(client, namespace=namespace).close()
            assert sum("has no socket_timeout" in record.message for record in caplog.records) == said


def test_a_reader_that_takes_its_time_has_the_whole_deadline(
    valkey: RunningServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page was read ahead while the reader was busy with the one before, and its connection was lost since."""
    later_s = 0.0
    for module in (sync, sync_reads, sync_connections):
        monkeypatch.setattr(module, "now_s", lambda: now_s() + later_s)
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store, valkey.client() as client:
        for _ in range(10):
            store.append("order-1", [{"of": os.urandom(1000).hex()} for _ in range(1000)])
        read = 0
        for read, _ in enumerate(store.stream("order-1"), 1):
            if read % 1000 == 0:
                later_s += 1000.0
                client.client_kill_filter(_type="normal", skipme=True)
                assert store.cursor("order-1") == 10_000
        assert read == 10_000


def test_a_tail_that_is_closed_while_it_fails_ends(tmp_path: Path, namespace: str) -> None:
    with (
        running(valkey_program(), tmp_path) as server,
        RedisStore.from_url(server.url(), namespace=namespace, deadline_s=0.5) as store,
        ThreadPoolExecutor(1) as pool,
    ):
        store.append("order-1", numbered(1))
        tail = store.tail("order-1", after=1)
        look = tail._tailer.next_page
        closed = threading.Event()

        def next_page(wait_s: float | None) -> Any:
            closed.wait()
            return look(wait_s)

        tail._tailer.next_page = next_page  # type: ignore[method-assign]
        waiting = pool.submit(lambda: list(tail))
        server.kill()
        tail.close()
        closed.set()
        assert waiting.result() == []


def test_all_tasks_may_be_cancelled_and_the_store_goes_on(valkey: RunningServer, namespace: str) -> None:
    """Also the task that sends for all, before it has begun."""

    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace) as store:
            await store.append("order-1", numbered(1))
            for turns in range(6):
                asking = asyncio.create_task(store.append("order-2", numbered(1)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                others = asyncio.all_tasks() - {asyncio.current_task()}
                assert asking in others or asking.done()
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)
                assert await store.cursor("order-1") == 1, turns

    asyncio.run(main())


def test_who_was_not_cancelled_is_answered(valkey: RunningServer, namespace: str) -> None:
    """The task that sends for all is cancelled while others wait for what it has not sent yet."""

    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace) as store:
            await store.append("order-1", numbered(1))
            assert store._sender is not None
            asked = asyncio.create_task(store.append("order-1", numbered(1)))
            while not store._sender._drivers:
                await asyncio.sleep(0)
            (driver,) = store._sender._drivers.values()
            driver.cancel()
            assert await asked == 2

    asyncio.run(main())


def test_a_child_of_a_process_that_was_asking_the_cluster_has_locks_of_its_own(
    cluster_nodes: list[RunningServer], namespace: str
) -> None:
    url = cluster_url(cluster_nodes)
    with RedisStore.from_url(url, namespace=namespace) as store:
        store.append("order-1", numbered(1))
        cluster = store._sender.server
        locks = [
            getattr(one, name)
            for one in (cluster._client, cluster._client.nodes_manager)
            for name in ("_lock", "_initialization_lock")
            if hasattr(one, name)
        ]
        assert locks
        held, forked = threading.Event(), threading.Event()

        def hold() -> None:
            for lock in locks:
                lock.acquire()
            held.set()
            forked.wait()
            for lock in locks:
                lock.release()

        holding = threading.Thread(target=hold)
        holding.start()
        held.wait()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                cluster.rediscover()
                if store.append("order-1", numbered(1, 1)) == 2:
                    status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        forked.set()
        holding.join()
        assert status == 0


def test_a_node_that_refuses_the_login_refuses_its_own_calls_alone(namespace: str, tmp_path: Path) -> None:
    with servers.cluster(valkey_program(), tmp_path) as nodes:
        url = cluster_url(nodes)
        with RedisStore.from_url(url, namespace=namespace) as store, nodes[0].client() as client:
            ids = [f"order-{number}" for number in range(30)]
            store.append_many([(workflow_id, numbered(1)) for workflow_id in ids])
            client.config_set("requirepass", "secret")
            with nodes[0].client(password="secret") as admin:
                admin.client_kill_filter(_type="normal", skipme=True)
            cluster = store._sender.server
            commands = [Command(("EXISTS", key), key) for key in (store.context.keys.workflow(one).meta for one in ids)]
            assert not any(isinstance(answer, ConfigurationError) for answer in store_answers(store, commands)), "cut"
            answers = store_answers(store, commands)
            refused = [isinstance(answer, ConfigurationError) for answer in answers]
            there = [cluster.find_node(command.key).endswith(f":{nodes[0].port}") for command in commands]
            assert refused == there
            assert any(refused)
            assert [answer for answer in answers if not isinstance(answer, ConfigurationError)] == [1] * refused.count(
                False
            )


def store_answers(store: RedisStore, commands: list[Command]) -> list[Any]:
    """Return the reply to each command, all sent in one round."""
    queue = Queue(30.0)
    queue.add(Ticket(Batch(commands), 0.0), range(len(commands)))
    return store._sender.server.begin(queue.next_round(0.0)).finish()


def test_a_node_that_is_gone_keeps_nobody_from_what_others_have_left(store: RedisStore) -> None:
    for workflow_id in ("order-1", "order-2"):
        store.release(store.acquire(workflow_id, "me"))
    context = store.context
    context.slots_matter = True  # as in a cluster: each partition is asked by itself
    claim = partial(Claim, context, "worker", 10, queues=["default"], ttl=30.0, max_attempts=None)
    gone = Unanswered("gone", 30.0, unsure=False)
    lost, other = (context.keys.partition_of(workflow_id) for workflow_id in ("order-1", "order-2"))
    assert lost != other

    operation = claim().look()
    found = store._sender.ask(next(operation))
    found[lost] = gone
    leasing = operation.send(found)
    assert len(leasing.commands) == 1
    with pytest.raises(StopIteration) as ended:
        operation.send(store._sender.ask(leasing))
    claimed, _ = ended.value.value
    assert [one.workflow_id for one in claimed] == ["order-2"]

    alone = claim().look()
    with pytest.raises(StoreUnavailable):
        alone.send([gone] * len(next(alone).commands))
    alone = claim().look()
    leasing = alone.send(store._sender.ask(next(alone)))
    with pytest.raises(StoreUnavailable):
        alone.send([gone] * len(leasing.commands))
