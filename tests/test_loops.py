"""A store for asyncio belongs to the event loop that opened it, and no store leaves its process."""

import asyncio
import copy
import gc
import os
import pickle
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from runic_redis import (
    Append,
    AsyncFactResolver,
    AsyncHeldLease,
    AsyncRedisStore,
    FactRef,
    InvalidType,
    RedisStore,
    StoreError,
    async_session,
    session,
)
from runic_redis.testing.examples import numbered
from tests import servers, tour
from tests.servers import RunningServer

ELSEWHERE = "belongs to the event loop that opened it"
Call = Callable[[AsyncRedisStore, AsyncHeldLease], Awaitable[Any]]


async def leave(store: AsyncRedisStore) -> None:
    async with store.tail("w"):
        pass


async def hold(lease: AsyncHeldLease) -> None:
    async with lease:
        pass


async def drain(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


# Every method, and everything else that calls one.
CALLS: dict[str, Call] = {
    "acquire": lambda store, _: store.acquire("w", "you"),
    "append": lambda store, _: store.append("w", numbered(1)),
    "append_many": lambda store, _: store.append_many([("w", numbered(1))]),
    "append_all": lambda store, _: store.append_all([Append("w", numbered(1))]),
    "checkpoint": lambda store, _: store.checkpoint("w", numbered(1)),
    "children": lambda store, _: drain(store.children("w")),
    "claim": lambda store, _: store.claim("you"),
    "collect": lambda store, _: store.collect(),
    "complete": lambda store, _: store.complete("w"),
    "count": lambda store, _: store.count(),
    "cursor": lambda store, _: store.cursor("w"),
    "delete": lambda store, _: store.delete("w"),
    "delete_namespace": lambda store, _: store.delete_namespace(),
    "exists": lambda store, _: store.exists("w"),
    "expire": lambda store, _: store.expire("w", 1),
    "list": lambda store, _: drain(store.list()),
    "load": lambda store, _: store.load("w"),
    "load_fact": lambda store, _: store.load_fact("hash"),
    "load_facts": lambda store, _: store.load_facts(["hash"]),
    "load_snapshot": lambda store, _: store.load_snapshot("w"),
    "memory_usage": lambda store, _: store.memory_usage(),
    "put_fact": lambda store, _: store.put_fact("value"),
    "read_many": lambda store, _: store.read_many([("w", 0, None)]),
    "persist": lambda store, _: store.persist("w"),
    "inbox": lambda store, _: store.inbox("w"),
    "park": lambda store, _: store.park("w", "why"),
    "request_cancel": lambda store, _: store.request_cancel("w"),
    "find": lambda store, _: store.find("w", prefix=""),
    "tracking": lambda store, _: store.tracking("upstream"),
    "read_where": lambda store, _: store.read_where([["a"]]),
    "send": lambda store, _: store.send("w", {"n": 1}),
    "sleep": lambda store, lease: store.sleep(lease, 1),
    "timer": lambda store, _: store.timer("w"),
    "unpark": lambda store, _: store.unpark("w"),
    "release": lambda store, lease: store.release(lease),
    "renew": lambda store, lease: store.renew(lease),
    "save": lambda store, _: store.save("w", numbered(1)),
    "save_fact": lambda store, _: store.save_fact("hash", "value"),
    "save_facts": lambda store, _: store.save_facts({"hash": "value"}),
    "save_snapshot": lambda store, _: store.save_snapshot("w", 1, b""),
    "stream": lambda store, _: drain(store.stream("w")),
    "stream_records": lambda store, _: drain(store.stream_records("w")),
    "tail": lambda store, _: drain(store.tail("w")),
    "tail_many": lambda store, _: drain(store.tail_many({"w": 0})),
    "trim": lambda store, _: store.trim("w"),
    "delete_projection": lambda store, _: store.delete_projection("p"),
    "delete_subscription": lambda store, _: store.delete_subscription("s"),
    "drop_parked": lambda store, _: store.drop_parked("s", "w"),
    "feed": lambda store, _: drain(store.feed()),
    "load_projection": lambda store, _: store.load_projection("p"),
    "parked": lambda store, _: store.parked("s"),
    "replay_parked": lambda store, _: store.replay_parked("s", "w"),
    "set_feed_days": lambda store, _: store.set_feed_days(1),
    "subscribe": lambda store, _: drain(store.subscribe("s", wait_s=0)),
    "subscriptions": lambda store, _: store.subscriptions(),
    "trim_feed": lambda store, _: store.trim_feed(keep=1),
    "one step of a stream": lambda store, _: anext(store.stream("w")),
    "one step of a list": lambda store, _: anext(store.list()),
    "one step of a tail": lambda store, _: anext(store.tail("w", wait_s=0)),
    "a tail as a context manager": lambda store, _: leave(store),
    "closing a tail": lambda store, _: store.tail("w").aclose(),
    "a lease as a context manager": lambda _, lease: hold(lease),
    "entering a session": lambda store, _: async_session(store, "w", add, 0).__aenter__(),
    "a fact on demand": lambda store, _: AsyncFactResolver(store).resolve(FactRef("hash")),
}


def add(state: int, event: Any) -> int:
    return state + 1


def test_each_method_is_among_the_calls() -> None:
    assert set(CALLS) >= tour.METHODS


@pytest.fixture(params=["memory", "valkey", "cluster_nodes"])
def url(request: pytest.FixtureRequest, namespace: str) -> str:
    return servers.url_on(request, request.param, namespace)


@asynccontextmanager
async def opened(url: str, namespace: str) -> AsyncIterator[AsyncRedisStore]:
    async with AsyncRedisStore.from_url(url, namespace=namespace, partitions=4, feed=True) as store:
        await store.append("w", numbered(3))
        yield store


def count_sent(store: AsyncRedisStore) -> list[Any]:
    """Return a list that grows with everything that is sent from now on."""
    assert store._sender is not None
    sent: list[Any] = []
    server = store._sender._server
    honest = server.send

    async def send(calls: Any, **options: Any) -> list[Any]:
        sent.extend(calls)
        return await honest(calls, **options)

    server.send = send  # type: ignore[method-assign]
    return sent


async def elsewhere(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine in the event loop of another thread, while this loop continues."""
    await asyncio.to_thread(lambda: asyncio.run(main()))


def test_a_call_from_another_loop_is_an_error_at_once_and_sends_nothing(url: str, namespace: str) -> None:
    async def main() -> None:
        async with opened(url, namespace) as store, await store.acquire("w", "me", 1000) as lease:
            begun = [store.stream("w"), store.stream_records("w"), store.list(), store.tail("w")]
            for items in begun:
                await anext(items)
            sent = count_sent(store)

            async def visit() -> None:
                for call in CALLS.values():
                    with pytest.raises(StoreError, match=f"(?s){ELSEWHERE}.*in the thread 'MainThread'.*Nothing was"):
                        await call(store, lease)
                for items in begun:
                    with pytest.raises(StoreError, match=ELSEWHERE):
                        await anext(items)
                    with pytest.raises(StoreError, match=ELSEWHERE):
                        await drain(items)
                    with pytest.raises(StoreError, match=ELSEWHERE):
                        await items.aclose()  # type: ignore[attr-defined]
                with pytest.raises(StoreError, match="run_coroutine_threadsafe"):
                    await store.close()

            await elsewhere(visit)
            assert sent == []
            assert not store.closed
            # In its own loop, everything still works.
            assert [item async for item in begun[0]] == numbered(3)[1:]
            assert (await anext(begun[3])).cursor == 2
            assert await store.append("w", numbered(1), lease=lease) == 4

    asyncio.run(main())


def test_a_session_of_another_loop_records_nothing(url: str, namespace: str) -> None:
    async def main() -> None:
        async with opened(url, namespace) as store, async_session(store, "w", add, 0) as at_work:

            async def visit() -> None:
                with pytest.raises(StoreError, match=ELSEWHERE):
                    await at_work.record({"n": 1})

            await elsewhere(visit)
            assert await store.cursor("w") == 3

    asyncio.run(main())


def test_a_coroutine_that_another_thread_hands_over_is_carried_out(url: str, namespace: str) -> None:
    async def main() -> None:
        async with opened(url, namespace) as store:
            loop = asyncio.get_running_loop()

            def call() -> int:
                return asyncio.run_coroutine_threadsafe(store.append("w", numbered(1)), loop).result()

            assert await asyncio.to_thread(call) == 4

    asyncio.run(main())


def test_without_an_event_loop_a_call_is_an_error(url: str, namespace: str) -> None:
    """Another library than asyncio may run coroutines in this way."""

    async def main() -> None:
        async with opened(url, namespace) as store:
            lease = await store.acquire("w", "me", 1000)
            sent = count_sent(store)

            def step() -> None:
                for call in CALLS.values():
                    with pytest.raises(StoreError, match="no asyncio event loop is running"):
                        call(store, lease).__await__().send(None)  # type: ignore[attr-defined]

            await asyncio.to_thread(step)
            assert sent == []

    asyncio.run(main())


def test_a_store_whose_loop_is_closed_says_so_and_can_be_closed(url: str, namespace: str) -> None:
    """This happens to a store in a global variable with asyncio.run for each call."""
    kept: list[Any] = []

    async def first() -> None:
        store = await AsyncRedisStore.from_url(url, namespace=namespace, partitions=4).open()
        await asyncio.gather(*(store.append(f"w-{number}", numbered(1)) for number in range(5)))
        kept.extend([store, await store.acquire("w", "me", 1000), store.tail("w-1"), store.stream("w-1")])
        for items in kept[2:]:
            await anext(items)

    async def second() -> None:
        store, lease, *begun = kept
        for call in CALLS.values():
            with pytest.raises(StoreError, match=f"{ELSEWHERE}, and that loop is closed"):
                await call(store, lease)
        for items in begun:
            with pytest.raises(StoreError, match="that loop is closed"):
                await anext(items)
        await store.close()
        assert store.closed
        await store.close()
        with pytest.raises(StoreError, match="is closed"):
            await store.cursor("w-1")

    asyncio.run(first())
    asyncio.run(second())
    kept.clear()
    gc.collect()  # Python would now warn of connections that were left open


def test_closing_a_store_whose_loop_is_closed_frees_the_connections(tmp_path: Path) -> None:
    """This includes connections to a Sentinel."""

    async def connect(url: str) -> AsyncRedisStore:
        return await AsyncRedisStore.from_url(url).open()

    (port,) = servers.free_ports(1)
    program = servers.valkey_program()
    with (
        servers.running(program, tmp_path / "primary", port=port) as primary,
        servers.sentinel(program, tmp_path / "sentinel", "shop", primary) as at,
        primary.client() as client,
    ):
        before = len(client.client_list())
        store = asyncio.run(connect(f"redis+sentinel://127.0.0.1:{at}/shop"))
        assert len(client.client_list()) == before + 1
        asyncio.run(store.close())
        servers.wait_until(lambda: len(client.client_list()) == before, "the connections to be closed")
        del store
        gc.collect()


@pytest.mark.parametrize("turns", range(4))
def test_a_close_that_is_cancelled_ends_in_the_background(tmp_path: Path, turns: int) -> None:
    async def main() -> None:
        store = await AsyncRedisStore.from_url(server.url()).open()
        tail = store.tail("w")
        waiting = asyncio.create_task(anext(tail))
        await store.append("v", numbered(1))
        closing = asyncio.create_task(store.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        with suppress(asyncio.CancelledError):
            await closing
        await asyncio.gather(store.close(), store.close())
        assert store.closed
        with pytest.raises(StoreError, match="is closed"):
            await waiting
        await asyncio.to_thread(servers.wait_until, lambda: len(client.client_list()) == 1, "connections to be closed")

    with servers.running(servers.valkey_program(), tmp_path) as server, server.client() as client:
        asyncio.run(main())


def test_a_store_that_two_tasks_open_is_opened_once(url: str, namespace: str) -> None:
    async def main() -> None:
        store = AsyncRedisStore.from_url(url, namespace=namespace, partitions=4)
        opened = await asyncio.gather(store.open(), store.open(), return_exceptions=True)
        assert opened[0] is store
        assert isinstance(opened[1], StoreError)
        assert "was opened before" in str(opened[1])
        assert await store.append("w", numbered(1)) == 1
        await store.close()
        gc.collect()

    asyncio.run(main())


def test_a_store_that_is_closed_while_it_is_opened_is_closed(url: str, namespace: str) -> None:
    async def main() -> None:
        store = AsyncRedisStore.from_url(url, namespace=namespace, partitions=4)
        opening = asyncio.create_task(store.open())
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StoreError, match="is closed"):
            await opening
        with pytest.raises(StoreError, match=r"is closed|is not open"):
            await store.cursor("w")
        gc.collect()

    asyncio.run(main())


def test_a_store_whose_loop_does_not_run_now_says_so(url: str, namespace: str) -> None:
    """The advice for other loops, run_coroutine_threadsafe, would wait for ever here."""
    with asyncio.Runner() as runner:
        store = runner.run(AsyncRedisStore.from_url(url, namespace=namespace, partitions=4).open())
        with (
            ThreadPoolExecutor(1) as thread,
            pytest.raises(StoreError, match=r"which is not running now. Nothing was sent. .*run_until_complete"),
        ):
            thread.submit(asyncio.run, store.append("w", numbered(1))).result()
        assert runner.get_loop().run_until_complete(store.append("w", numbered(1))) == 1
        runner.run(store.close())


# (redis-py leaves the connections of another loop to the garbage collector.)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_of_another_loop_is_named(valkey: RunningServer, namespace: str) -> None:
    client = redis.asyncio.Redis.from_url(valkey.url())

    async def main() -> None:
        async with AsyncRedisStore(client, namespace=namespace):
            pass
        await client.aclose()

    with asyncio.Runner() as other:
        other.run(client.ping())
        with ThreadPoolExecutor(1) as thread:
            with pytest.raises(StoreError, match="The client was used in another event loop: make a client in each"):
                thread.submit(asyncio.run, main()).result()
            other.run(client.aclose())
            thread.submit(asyncio.run, main()).result()
    gc.collect()


def test_a_child_may_close_the_store_of_its_parent_to_no_effect(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        async with opened(valkey.url(), namespace) as store:
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    signal.alarm(30)
                    with pytest.raises(StoreError, match="before this process was forked"):
                        asyncio.run(store.cursor("w"))
                    asyncio.run(store.close())
                    status = 0 if store.closed else 1
                finally:
                    os._exit(status)
            _, status = os.waitpid(child, 0)
            assert status == 0
            assert await store.append("w", numbered(1)) == 4

    asyncio.run(main())


def test_a_store_for_threads_is_used_in_any_loop(url: str, namespace: str) -> None:
    with RedisStore.from_url(url, namespace=namespace, partitions=4) as store:

        async def main() -> int:
            return store.append("w", numbered(1))

        assert [asyncio.run(main()) for _ in range(2)] == [1, 2]


WAYS: dict[str, Callable[[Any], Any]] = {"pickle": pickle.dumps, "copy": copy.copy, "deepcopy": copy.deepcopy}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return WAYS[request.param]


@pytest.fixture
def kept(url: str, namespace: str) -> Iterator[RedisStore]:
    with RedisStore.from_url(url, namespace=namespace, partitions=4) as store:
        store.append("w", numbered(1))
        yield store


def test_a_store_is_not_pickled_and_says_what_to_do(kept: RedisStore, way: Callable[[Any], Any]) -> None:
    with pytest.raises(InvalidType, match=r"RedisStore cannot be pickled or copied.*RedisStore\.from_url"):
        way(kept)
    with kept.tail("w") as tail, pytest.raises(InvalidType, match=r"Tail cannot be pickled or copied.*after="):
        way(tail)
    if way is not copy.copy:
        for holder in (session(kept, "w", add, 0), kept.append):
            with pytest.raises(TypeError, match="RedisStore cannot be pickled"):
                way(holder)


def test_a_store_for_asyncio_is_not_pickled(url: str, namespace: str, way: Callable[[Any], Any]) -> None:
    async def main() -> None:
        async with opened(url, namespace) as store:
            with pytest.raises(InvalidType, match=r"AsyncRedisStore cannot be pickled or copied.*from_url"):
                way(store)
            with pytest.raises(InvalidType, match="AsyncTail cannot be pickled"):
                way(store.tail("w"))
            if way is not copy.copy:
                with pytest.raises(InvalidType, match="AsyncRedisStore cannot be pickled"):
                    way(store.stream("w"))

    with pytest.raises(InvalidType, match="AsyncRedisStore cannot be pickled"):
        way(AsyncRedisStore.from_url(url))
    asyncio.run(main())


def test_a_lease_from_a_pickle_is_a_value_without_a_store(kept: RedisStore, url: str, namespace: str) -> None:
    lease = pickle.loads(pickle.dumps(kept.acquire("w", "me", 1000)))
    with pytest.raises(StoreError, match=r"comes from a pickle.*store\.renew\(lease\) and store\.release"), lease:
        pass
    assert kept.append("w", numbered(1), lease=lease) == 2

    async def main() -> None:
        async with AsyncRedisStore.from_url(url, namespace=namespace, partitions=4) as store:
            other = pickle.loads(pickle.dumps(await store.acquire("w", "me", 1000)))
            assert await store.append("w", numbered(1), lease=other) == 3
            with pytest.raises(StoreError, match="comes from a pickle"):
                async with other:
                    pass

    asyncio.run(main())
