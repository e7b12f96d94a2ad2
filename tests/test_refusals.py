"""A server that rejects writes, for good or for now: typed errors, and nothing half-written."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from runic_redis import Fact, RedisStore, StoreError, StoreUnavailable, WriteRefused
from runic_redis.testing.examples import numbered
from tests.servers import RunningServer, redis_6_2_program, running, valkey_program, wait_until


@pytest.fixture(scope="module", params=["valkey", "redis 6.2"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    program = valkey_program() if request.param == "valkey" else redis_6_2_program()
    with running(program, tmp_path_factory.mktemp("refusing"), "--appendonly", "yes") as server:
        yield server


def everything(server: RunningServer, namespace: str) -> dict[bytes, Any]:
    with server.client() as client, client.pipeline(transaction=False) as pipeline:
        keys = list(client.scan_iter(match=f"*{{{namespace}[:}}]*", count=10_000))
        assert keys
        for key in keys:
            pipeline.dump(key)
        return dict(zip(keys, pipeline.execute(), strict=True))


WRITES: dict[str, Callable[[RedisStore], Any]] = {
    "append": lambda store: store.append("w", numbered(2)),
    "append a new one": lambda store: store.append("new", numbered(2)),
    "append much": lambda store: store.append("w", [{"text": "x" * 400_000}] * 6),
    "append with all": lambda store: store.append("w", [{"fact": Fact("value")}], snapshot=b"s", commit_id="c"),
    "append_many": lambda store: store.append_many([("w", numbered(1)), ("v", numbered(2))]),
    "save_snapshot": lambda store: store.save_snapshot("w", 1, b"s"),
    "save": lambda store: store.save("w", numbered(1)),
    "save_fact": lambda store: store.save_fact("h", 1),
    "put_fact": lambda store: store.put_fact("value"),
    "acquire": lambda store: store.acquire("w", "me"),
}


def refuses(store: RedisStore, write: str, code: str) -> None:
    if write == "append_many":
        refused = WRITES[write](store)
        assert all(isinstance(one, WriteRefused) and one.code == code for one in refused)
        assert "Nothing was changed" in str(refused[0])
        return
    with pytest.raises(WriteRefused, match="Nothing was changed") as caught:
        WRITES[write](store)
    assert caught.value.code == code


@pytest.mark.parametrize("write", WRITES)
def test_a_server_whose_memory_is_full_refuses_and_changes_nothing(
    server: RunningServer, namespace: str, write: str
) -> None:
    with RedisStore.from_url(server.url(), namespace=namespace) as store, server.client() as client:
        store.append("w", numbered(3))
        before = everything(server, namespace)
        client.config_set("maxmemory", 1)
        try:
            refuses(store, write, "OOM")
            assert everything(server, namespace) == before
            assert list(store.stream("w")) == numbered(3)
        finally:
            client.config_set("maxmemory", 0)
        WRITES[write](store)


def test_a_server_whose_memory_is_full_can_be_made_room_on(server: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(server.url(), namespace=namespace) as store, server.client() as client:
        store.append("w", numbered(3), snapshot=b"s")
        store.append("v", numbered(3))
        store.put_fact("nobody refers to it")
        client.config_set("maxmemory", 1)
        try:
            assert store.trim("w") == 3
            store.delete("v")
            assert store.collect(0) == 1
        finally:
            client.config_set("maxmemory", 0)
        assert list(store.list()) == ["w"]
        assert store.append("w", numbered(1)) == 4


@pytest.mark.parametrize("write", [*WRITES, "delete"])
def test_a_server_whose_disk_is_full_refuses_and_changes_nothing(
    server: RunningServer, namespace: str, write: str
) -> None:
    writes = {**WRITES, "delete": lambda store: store.delete("w")}
    with RedisStore.from_url(server.url(), namespace=namespace) as store, server.client() as client:
        store.append("w", numbered(3))
        server.fill_disk()
        try:
            # The writes that the server notices it by, it still acknowledges: "memory" is no more than that.
            wait_until(lambda: not is_taken(client), "the server to notice")
            before = everything(server, namespace)
            if write == "delete":
                with pytest.raises(WriteRefused):
                    store.delete("w")
            else:
                refuses(store, write, "MISCONF")
            assert everything(server, namespace) == before
            assert list(store.stream("w")) == numbered(3)
        finally:
            server.empty_disk()
        wait_until(lambda: is_taken(client), "the server to write again")
        writes[write](store)


def is_taken(client: redis.Redis) -> bool:
    try:
        return bool(client.set("other", 1))
    except redis.ResponseError:
        return False


def test_a_disk_that_fills_up_confirms_nothing(tmp_path: Any, namespace: str) -> None:
    with (
        running(valkey_program(), tmp_path, "--appendonly", "yes") as server,
        RedisStore.from_url(server.url() + "&socket_timeout=1", namespace=namespace, durability="fsync") as store,
        server.client() as client,
    ):
        store.append("w", numbered(1))
        server.fill_disk()
        with pytest.raises(StoreError, match="MISCONF") as caught:
            store.append("w", numbered(2), commit_id="c")
        assert getattr(caught.value, "cursor", 3) == 3
        server.empty_disk()
        wait_until(lambda: is_taken(client), "the server to write again")
        assert store.append("w", numbered(2), commit_id="c") == 3
        assert list(store.stream("w")) == [*numbered(1), *numbered(2)]


def test_what_the_server_is_too_busy_for_is_tried_again(server: RunningServer, namespace: str) -> None:
    with (
        RedisStore.from_url(server.url(), namespace=namespace) as store,
        RedisStore.from_url(server.url(), namespace=namespace, deadline_s=0.05) as hurried,
        server.client() as client,
        server.client() as other,
        ThreadPoolExecutor(2) as pool,
    ):
        store.append("w", numbered(1))
        client.config_set("lua-time-limit", 1)
        looping = pool.submit(client.eval, "while true do end", 0)
        wait_until(lambda: is_busy(other), "the server to be busy")
        waiting = pool.submit(store.append, "w", numbered(1))
        with pytest.raises(StoreUnavailable, match=r"BUSY .*safe to retry"):
            hurried.append("w", numbered(1))
        assert not waiting.done()
        other.script_kill()
        assert waiting.result() == 2
        with pytest.raises(redis.ResponseError):
            looping.result()


def is_busy(client: redis.Redis) -> bool:
    try:
        client.ping()
    except redis.ResponseError:
        return True
    return False


def test_what_a_server_with_too_few_replicas_refuses_is_tried_again(server: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(server.url(), namespace=namespace, deadline_s=0.05) as hurried, server.client() as client:
        hurried.append("w", numbered(1))
        client.config_set("min-replicas-to-write", 1)
        try:
            for write in (lambda: hurried.append("w", numbered(1)), lambda: hurried.save("w", numbered(1))):
                with pytest.raises(StoreUnavailable, match=r"NOREPLICAS .*safe to retry"):
                    write()
            with RedisStore.from_url(server.url(), namespace=namespace) as store:
                timer = threading.Timer(0.05, client.config_set, ["min-replicas-to-write", 0])
                timer.start()
                assert store.append("w", numbered(1)) == 2
                timer.join()
        finally:
            client.config_set("min-replicas-to-write", 0)
