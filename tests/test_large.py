"""Large requests travel alone. One that the server rejects for its size fails alone, with an error that says so."""

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from runic_redis import AsyncRedisStore, Fact, RedisStore, WriteRefused
from tests.proxy import Fault, proxied
from tests.servers import RunningServer, cluster_url

MIB = 1024 * 1024
# (Random bytes cannot be compressed.)
LARGE = random.Random(0).randbytes(3 * MIB)
LIMITS = ("proto-max-bulk-len", "client-query-buffer-limit")
Run = Callable[..., list[Any]]


@contextmanager
def limited(nodes: list[RunningServer], limit: str) -> Iterator[None]:
    """Make servers reject values of more than 1 MiB."""
    found = {}
    for node in nodes:
        with node.client() as client:
            found[node.port or node.socket] = client.config_get(limit)[limit]
            client.config_set(limit, MIB)
    try:
        yield
    finally:
        for node in nodes:
            with node.client() as client:
                client.config_set(limit, found[node.port or node.socket])


def by_threads(url: str, namespace: str, *calls: tuple[str, Any]) -> list[Any]:
    """Make calls on one store at the same time, by threads. Return their results or errors."""
    with RedisStore.from_url(url, namespace=namespace) as store, ThreadPoolExecutor(len(calls)) as pool:
        store.append("order", [{"n": 1}])
        futures = [pool.submit(getattr(store, name), *arguments) for name, *arguments in calls]
        return [future.exception() or future.result() for future in futures]


def by_tasks(url: str, namespace: str, *calls: tuple[str, Any]) -> list[Any]:
    """Make calls on one store at the same time, by tasks. Return their results or errors."""

    async def main() -> list[Any]:
        async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
            await store.append("order", [{"n": 1}])
            return await asyncio.gather(
                *(getattr(store, name)(*arguments) for name, *arguments in calls), return_exceptions=True
            )

    return asyncio.run(main())


SMALL = [("append", f"small-{n}", [{"n": n}]) for n in range(20)]
BIG = [
    ("append", "order", [{"blob": LARGE}]),
    ("append", "facts", [{"fact": Fact(LARGE)}]),
    ("put_fact", LARGE),
    ("save_snapshot", "order", 1, LARGE),
    ("save", "log", [{"blob": LARGE}]),
]


@pytest.mark.parametrize("run", [by_threads, by_tasks])
@pytest.mark.parametrize("limit", LIMITS)
def test_a_request_that_is_too_large_fails_alone_and_says_so(
    valkey: RunningServer, namespace: str, run: Run, limit: str
) -> None:
    with limited([valkey], limit):
        *told, many = run(valkey.url(), namespace, *BIG, *SMALL, ("append_many", [("a", [{}]), ("b", [{"x": LARGE}])]))
        for error in told[: len(BIG)]:
            assert isinstance(error, WriteRefused)
            assert error.code == "TOO_LARGE"
            assert f"{limit} is {MIB} bytes" in str(error)
            assert str(len(LARGE))[:3] in str(error)
            assert "Nothing was changed" in str(error)
        assert told[len(BIG) :] == [1] * len(SMALL)
        assert many[0] == 1
        assert isinstance(many[1], WriteRefused)


@pytest.mark.parametrize("run", [by_threads, by_tasks])
@pytest.mark.parametrize("limit", LIMITS)
def test_a_user_who_cannot_read_the_limits_gets_their_names(
    valkey: RunningServer, namespace: str, run: Run, limit: str
) -> None:
    with valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "worker", "reset", "on", ">secret", "~*", "+@all", "-config")
    url = valkey.url().replace("unix://", "unix://worker:secret@")
    with limited([valkey], limit):
        error, *others = run(url, namespace, BIG[0], *SMALL)
        assert isinstance(error, WriteRefused)
        assert all(name in str(error) for name in LIMITS)
        assert others == [1] * len(SMALL)


@pytest.mark.parametrize("run", [by_threads, by_tasks])
def test_in_a_cluster_a_request_that_is_too_large_fails_alone(
    cluster_nodes: list[RunningServer], namespace: str, run: Run
) -> None:
    with limited(cluster_nodes, LIMITS[0]):
        results = run(cluster_url(cluster_nodes), namespace, *BIG, *SMALL)
        assert [getattr(error, "code", error) for error in results[: len(BIG)]] == ["TOO_LARGE"] * len(BIG)
        assert results[len(BIG) :] == [1] * len(SMALL)


@pytest.mark.parametrize("run", [by_threads, by_tasks])
@pytest.mark.parametrize("after", [300_000, 2 * MIB, 3 * MIB])
def test_a_large_request_that_the_network_cuts_is_stored_once(
    valkey: RunningServer, namespace: str, run: Run, after: int
) -> None:
    with proxied(valkey) as proxy:
        proxy.arm(Fault("request", after, "cut"))
        assert run(f"redis://127.0.0.1:{proxy.port}", namespace, BIG[0], ("append", "other", [{}])) == [2, 1]
        assert proxy.done == 1
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        assert [event.get("blob", b"")[:1] for event in store.stream("order")] == [b"", LARGE[:1]]


def test_others_do_not_wait_for_a_large_request_of_a_thread(valkey: RunningServer, namespace: str) -> None:
    with (
        proxied(valkey) as proxy,
        RedisStore.from_url(f"redis://127.0.0.1:{proxy.port}?socket_timeout=60", namespace=namespace) as store,
        ThreadPoolExecutor(9) as pool,
    ):
        store.append("order", [{}])
        proxy.arm(Fault("request", MIB, "swallow"))
        large = pool.submit(store.append, "order", [{"blob": LARGE}])
        while proxy.armed:
            assert store.append("other", [{}])
        behind = pool.submit(store.append, "order", [{}])
        assert list(pool.map(lambda n: store.append(f"small-{n}", [{}]), range(40))) == [1] * 40
        assert not large.done()
        assert not behind.done()
        proxy.cut_all()
        assert large.result() == 2
        assert behind.result() == 3


def test_others_do_not_wait_for_a_large_request_of_a_task(valkey: RunningServer, namespace: str) -> None:
    async def main(port: int, cut: Callable[[], None]) -> None:
        url = f"redis://127.0.0.1:{port}?socket_timeout=60"
        async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
            await store.append("order", [{}])
            proxy.arm(Fault("request", MIB, "swallow"))
            large = asyncio.create_task(store.append("order", [{"blob": LARGE}]))
            while proxy.armed:
                assert await store.append("other", [{}])
            behind = asyncio.create_task(store.append("order", [{}]))
            assert await asyncio.gather(*(store.append(f"small-{n}", [{}]) for n in range(40))) == [1] * 40
            assert not large.done()
            assert not behind.done()
            cut()
            assert await large == 2
            assert await behind == 3
            # The next large request is in flight when the store closes.
            proxy.arm(Fault("request", MIB, "swallow"))
            large = asyncio.create_task(store.append("order", [{"blob": LARGE}]))
            while proxy.armed:
                assert await store.append("other", [{}])

        with pytest.raises(Exception, match="closed before the reply arrived"):
            await large

    with proxied(valkey) as proxy:
        asyncio.run(main(proxy.port, proxy.cut_all))


def test_many_large_requests_share_a_few_connections(valkey: RunningServer, namespace: str) -> None:
    items = [(f"order-{n}", [{"blob": LARGE[: MIB // 2]}]) for n in range(12)]
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store, ThreadPoolExecutor(12) as pool:
        assert store.append_many(items) == [1] * 12
        assert list(pool.map(lambda item: store.append(*item), items)) == [2] * 12
        assert list(pool.map(lambda _: store.append(*items[0]), range(12))) != []
        assert store.cursor("order-0") == 14
