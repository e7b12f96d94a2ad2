"""Tails and other iterators: cancelled and interrupted steps, closing, and waiting for a time."""

import asyncio
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from runic_redis import AsyncRedisStore, AsyncTail, RedisStore, StoreError, StoreUnavailable, Tail, WorkflowNotFound
from runic_redis.testing.examples import numbered
from tests import servers
from tests.servers import RunningServer, wait_until
from tests.test_tls import Papers, proxied

# A step that waits so long hangs the test.
LONG_S = 1000.0


@pytest.fixture(params=["memory", "valkey", "cluster_nodes"])
def url(request: pytest.FixtureRequest, namespace: str) -> str:
    return servers.url_on(request, request.param, namespace)


def opened(url: str, namespace: str) -> AsyncRedisStore:
    return AsyncRedisStore.from_url(url, namespace=namespace, partitions=4)


async def until(ask: Callable[[], Any]) -> None:
    while not ask():
        await asyncio.sleep(0)


async def step_and_cancel(items: AsyncIterator[Any], turns: int) -> list[Any]:
    """Cancel a step after some turns of the event loop, or before it begins. Return its item, if it got one."""
    task = asyncio.ensure_future(anext(items))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        return [await task]
    return []


# Cancellation


@pytest.mark.parametrize("most_apart", [8, 0], ids=["alone", "shared read"])
@pytest.mark.parametrize("kind", ["tail", "tail_many"])
def test_a_tail_that_is_cancelled_at_any_moment_loses_and_doubles_nothing(
    url: str, namespace: str, kind: str, most_apart: int
) -> None:
    ids = ["a", "b", "c"] if kind == "tail_many" else ["a"]
    count = 60

    async def write(store: AsyncRedisStore, rng: random.Random) -> None:
        written = dict.fromkeys(ids, 0)
        while min(written.values()) < count:
            workflow_id = rng.choice(ids)
            written[workflow_id] = await store.append(workflow_id, numbered(rng.randrange(1, 4)))
            for _ in range(rng.randrange(30)):
                await asyncio.sleep(0)

    async def main(rng: random.Random) -> int:
        cancelled = 0
        async with opened(url, namespace) as writer, opened(url, namespace) as store:
            assert store._sender is not None
            store._sender._most_apart = most_apart
            tail: Any = store.tail_many(dict.fromkeys(ids, 0)) if kind == "tail_many" else store.tail("a")
            writing = asyncio.create_task(write(writer, rng))
            seen: dict[str, list[int]] = {workflow_id: [] for workflow_id in ids}
            while any(len(cursors) < count for cursors in seen.values()):
                # With 0 turns, the step is cancelled before it begins.
                items = await step_and_cancel(tail, rng.choice([0, 1, 2, 3, rng.randrange(60)]))
                cancelled += not items
                for item in items:
                    workflow_id, record = item if kind == "tail_many" else ("a", item)
                    seen[workflow_id].append(record.cursor)
            await writing
            for cursors in seen.values():
                assert cursors == list(range(1, len(cursors) + 1))
            await writer.delete_namespace()
            await tail.aclose()
        return cancelled

    assert sum(asyncio.run(main(random.Random(seed))) for seed in range(3)) > 20


def test_a_tail_goes_on_after_each_timeout(url: str, namespace: str) -> None:
    async def main() -> None:
        async with opened(url, namespace) as store, store.tail("w") as tail:
            for number in range(1, 4):
                for timeout_s in (0.0, 0.001, 0.1):
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(anext(tail), timeout_s)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        async for _ in tail:
                            pass
                await store.append("w", numbered(1))
                assert (await anext(tail)).cursor == number

    asyncio.run(main())


def test_steps_that_give_up_sooner_than_a_page_takes_come_to_an_end(url: str, namespace: str) -> None:
    """A later step gets the page that an earlier one began."""

    async def main() -> None:
        async with opened(url, namespace) as store, store.tail("w") as tail:
            await store.append("w", numbered(2))
            seen: list[int] = []
            while len(seen) < 2:
                seen += [record.cursor for record in await step_and_cancel(tail, 2)]
            assert seen == [1, 2]

    asyncio.run(main())


@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"after": 100, "until": 2500}], ids=str)
def test_a_stream_that_is_cancelled_at_any_moment_goes_on(url: str, namespace: str, options: dict[str, Any]) -> None:
    async def main(rng: random.Random) -> None:
        async with opened(url, namespace) as store:
            for number in range(0, 3000, 100):
                await store.append("w", [{"n": number + n} for n in range(100)])
            expected = [event async for event in store.stream("w", **options)]
            assert len(expected) > 2000
            events = store.stream("w", **options)
            seen: list[Any] = []
            cancelled = 0
            while len(seen) < len(expected):
                items = await step_and_cancel(events, rng.randrange(20))
                cancelled += not items
                seen += items
                seen += [await anext(events) for _ in range(min(rng.randrange(200), len(expected) - len(seen)))]
            assert seen == expected
            assert cancelled
            with pytest.raises(StopAsyncIteration):
                await anext(events)

    asyncio.run(main(random.Random(1)))


def test_a_loop_over_a_stream_or_a_list_that_was_cancelled_goes_on(url: str, namespace: str) -> None:
    async def main() -> None:
        async with opened(url, namespace) as store:
            await store.append_many([("w", numbered(1))] * 200 + [(f"v-{n}", numbered(1)) for n in range(200)])
            for items, count in ((store.stream_records("w"), 200), (store.list(), 201)):
                seen: list[Any] = []

                async def take(items: AsyncIterator[Any] = items, seen: list[Any] = seen) -> None:
                    async for item in items:
                        seen.append(item)
                        if len(seen) % 7 == 0:
                            await asyncio.sleep(0)

                turns = 0
                while True:
                    task = asyncio.create_task(take())
                    for _ in range(turns := turns + 1):
                        await asyncio.sleep(0)
                    if task.done():
                        break
                    task.cancel()
                    await asyncio.wait([task])
                await task
                assert len(set(map(str, seen))) == len(seen) == count

    asyncio.run(main())


def test_a_stream_that_two_tasks_share_gives_each_event_once(url: str, namespace: str) -> None:
    async def main() -> None:
        async with opened(url, namespace) as store:
            await store.append_many([("w", [{"n": n}]) for n in range(300)])
            events = store.stream("w")

            async def take() -> list[int]:
                return [event["n"] async for event in events]

            taken = await asyncio.gather(*(take() for _ in range(3)))
            assert sorted(n for some in taken for n in some) == list(range(300))

    asyncio.run(main())


def test_a_tail_goes_on_after_an_error(tmp_path: Path) -> None:
    # (With appendfsync everysec, a killed server may lose what it acknowledged.)
    synced = ("--appendonly", "yes", "--appendfsync", "always")
    with servers.running(servers.valkey_program(), tmp_path, *synced) as server:

        async def main() -> None:
            async with AsyncRedisStore.from_url(server.url(), deadline_s=0.2) as store, store.tail("w") as tail:
                await store.append("w", numbered(2))
                assert (await anext(tail)).cursor == 1
                server.kill()
                assert (await anext(tail)).cursor == 2, "an event that had already arrived was lost"
                for _ in range(2):
                    with pytest.raises(StoreUnavailable):
                        await anext(tail)
                await asyncio.to_thread(server.restart)
                await store.append("w", numbered(1))
                assert (await anext(tail)).cursor == 3
                await store.delete("w")
                for _ in range(2):
                    with pytest.raises(WorkflowNotFound):
                        await anext(tail)

        asyncio.run(main())


def test_a_failure_is_raised_although_every_step_gives_up_early(tmp_path: Path) -> None:
    with servers.running(servers.valkey_program(), tmp_path) as server:

        async def main() -> None:
            async with AsyncRedisStore.from_url(server.url(), deadline_s=0.5) as store, store.tail("w") as tail:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(tail), 0.01)
                server.kill()
                with pytest.raises(StoreUnavailable):
                    while True:
                        with suppress(TimeoutError):
                            await asyncio.wait_for(anext(tail), 0.1)

        asyncio.run(main())


# Closing


def blocked(server: RunningServer) -> int:
    """Return how many clients wait for an event."""
    with server.client() as client:
        return int(client.info("clients")["blocked_clients"])


@pytest.mark.parametrize("kind", ["single", "cluster", "Sentinel", "TLS"])
def test_closing_a_tail_ends_a_wait_and_frees_its_connection(
    tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, kind: str
) -> None:
    # A read waits for longer than the test may take, so closing must interrupt it.
    monkeypatch.setattr("runic_redis.drivers.connect._LONGEST_BLOCK_S", LONG_S)
    monkeypatch.setattr("runic_redis.operations.tailing._LOOK_S", LONG_S)
    (port,) = servers.free_ports(1)
    program = servers.valkey_program()
    with ExitStack() as stack:
        primary = stack.enter_context(servers.running(program, tmp_path / "primary", port=port))
        nodes = [primary]
        if kind == "cluster":
            nodes = request.getfixturevalue("cluster_nodes")
            url = servers.cluster_url(nodes) + "?"
        elif kind == "Sentinel":
            at = stack.enter_context(servers.sentinel(program, tmp_path / "sentinel", "shop", primary))
            url = f"redis+sentinel://127.0.0.1:{at}/shop?"
        elif kind == "TLS":
            papers = Papers(tmp_path)
            at = stack.enter_context(proxied(primary, papers, asks=False))
            url = f"rediss://localhost:{at}?{papers.trust()}&"
        else:
            url = primary.url() + "&"
        url += f"socket_timeout={3 * LONG_S}"

        def waits(count: int) -> None:
            wait_until(lambda: sum(map(blocked, nodes)) == count, f"{count} tails to wait")

        with RedisStore.from_url(url, namespace=namespace) as store, ThreadPoolExecutor(1) as pool:
            tail = store.tail("w")
            waiting = pool.submit(list, tail)
            waits(1)
            tail.close()
            assert waiting.result() == []
            waits(0)
            assert store.append("w", numbered(1)) == 1
            with store.tail("w") as other:
                assert next(other).cursor == 1

        async def main() -> None:
            async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
                tail = store.tail("w", after=1)
                coming = asyncio.create_task(anext(tail, "the end"))
                await asyncio.to_thread(waits, 1)
                await tail.aclose()
                assert await coming == "the end"
                await asyncio.to_thread(waits, 0)
                assert await anext(tail, "the end") == "the end"
                assert await store.append("w", numbered(1)) == 2

        asyncio.run(main())


def test_leaving_a_tail_leaves_nothing_behind(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        async with opened(valkey.url(), namespace) as store:
            await store.append("w", numbered(1))
            async with store.tail("w") as tail:
                assert isinstance(tail, AsyncTail)
                async for record in tail:
                    assert record.cursor == 1
                    break
                coming = asyncio.create_task(anext(tail, None))
                await asyncio.to_thread(wait_until, lambda: blocked(valkey) == 1, "the tail to wait")
            assert await coming is None
            await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
            await asyncio.to_thread(wait_until, lambda: blocked(valkey) == 0, "the connection to be closed")

    asyncio.run(main())
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=4) as store:
        with store.tail("w") as records:
            assert isinstance(records, Tail)
            assert next(records).cursor == 1
        with pytest.raises(RuntimeError), store.tail("w") as records:
            raise RuntimeError
        assert next(records, None) is None


def test_a_tail_of_a_store_that_is_closed_says_so(url: str, namespace: str) -> None:
    async def main() -> None:
        async with opened(url, namespace) as store:
            tail = store.tail("w")
            coming = asyncio.create_task(anext(tail))
            await asyncio.sleep(0)
        with pytest.raises(StoreError, match="closed"):
            await coming
        with pytest.raises(StoreError, match="closed"):
            await anext(tail)
        await tail.aclose()

    asyncio.run(main())
    with RedisStore.from_url(url, namespace=namespace, partitions=4) as store:
        records = store.tail("w")
    with pytest.raises(StoreError, match="closed"):
        next(records)
    records.close()


# Waiting for a time


def test_a_step_waits_no_longer_than_asked_and_no_shorter(url: str, namespace: str) -> None:
    async def main() -> None:
        async with opened(url, namespace) as store, store.tail("w", wait_s=0.3) as tail:
            for _ in range(2):
                began_s = time.monotonic()
                assert [record async for record in tail] == []
                assert time.monotonic() - began_s >= 0.29

    asyncio.run(main())
    with (
        RedisStore.from_url(url, namespace=namespace, partitions=4) as store,
        store.tail_many({f"w-{n}": 0 for n in range(5)}, wait_s=0.3) as pairs,
    ):
        for _ in range(2):
            began_s = time.monotonic()
            assert list(pairs) == []
            assert time.monotonic() - began_s >= 0.29


def test_each_event_begins_the_wait_again(url: str, namespace: str) -> None:
    """A long wait does not end while events arrive."""
    with (
        RedisStore.from_url(url, namespace=namespace, partitions=4) as store,
        ThreadPoolExecutor(1) as pool,
        store.tail("w", wait_s=LONG_S) as records,
    ):
        for number in range(1, 5):
            coming = pool.submit(next, records)
            store.append("w", numbered(1))
            assert coming.result().cursor == number


@pytest.mark.parametrize("most_apart", [8, 0], ids=["alone", "shared read"])
def test_without_waiting_a_page_that_began_before_an_append_is_not_the_last_word(
    url: str, namespace: str, most_apart: int
) -> None:
    async def main() -> None:
        async with opened(url, namespace) as store, store.tail("w", wait_s=0) as tail:
            assert store._sender is not None
            store._sender._most_apart = most_apart
            for turns in range(40):
                before = [record.cursor for record in await step_and_cancel_ended(tail, turns)]
                cursor = await store.append("w", numbered(1))
                assert [*before, *[record.cursor async for record in tail]] == [cursor]

    async def step_and_cancel_ended(tail: Any, turns: int) -> list[Any]:
        with suppress(StopAsyncIteration):
            return await step_and_cancel(tail, turns)
        return []

    asyncio.run(main())


def test_threads_that_share_a_tail_end_when_nothing_comes(url: str, namespace: str) -> None:
    with (
        RedisStore.from_url(url, namespace=namespace, partitions=4) as store,
        ThreadPoolExecutor(4) as pool,
        store.tail("w", wait_s=0.1) as records,
    ):
        store.append("w", numbered(40))
        taken = [one.result() for one in [pool.submit(list, records) for _ in range(4)]]
        assert sorted(record.cursor for some in taken for record in some) == list(range(1, 41))


def test_an_interrupt_of_a_tail_that_waits_loses_nothing(valkey: RunningServer, namespace: str) -> None:
    """The interrupt is like Ctrl-C in a notebook, or a timeout by a signal."""

    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    former = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with (
            RedisStore.from_url(valkey.url(), namespace=namespace) as store,
            ThreadPoolExecutor(1) as pool,
            store.tail("w") as records,
        ):
            for number in range(1, 4):
                pool.submit(_signal_when_blocked, valkey)
                with pytest.raises(Interrupted):
                    next(records)
                store.append("w", numbered(1))
                assert next(records).cursor == number
            assert list(islice(store.tail("w"), 3))
    finally:
        signal.signal(signal.SIGUSR1, former)


def _signal_when_blocked(server: RunningServer) -> None:
    wait_until(lambda: blocked(server) == 1, "the tail to wait")
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
