"""Leaving a lease takes no longer than the lease can last, whatever the server and the caller do meanwhile."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runic_redis import AsyncRedisStore, LeaseHeld, RedisStore, StoreError, async_session, heartbeat, session
from tests import servers
from tests.servers import RunningServer, wait_until

# No call may wait for a limit of LONG_S: the time limit of the test would be over long before.
LONG_S = 1000.0
SHORT_S = 0.2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with servers.running(servers.valkey_program(), tmp_path) as server:
        yield server
        server.go_on()


def open_store(server: RunningServer) -> RedisStore:
    return RedisStore.from_url(f"{server.url()}&socket_timeout={LONG_S}", namespace="shop", deadline_s=LONG_S)


def open_async(server: RunningServer) -> AsyncRedisStore:
    return AsyncRedisStore.from_url(f"{server.url()}&socket_timeout={LONG_S}", namespace="shop", deadline_s=LONG_S)


def add(state: int, event: Any) -> int:
    return state + 1


def lease_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lease ")]


def can_be_claimed(store: RedisStore) -> bool:
    return len(store.claim("you")) == 1


@pytest.mark.parametrize("how", ["acquire", "claim", "session"])
def test_a_silent_server_does_not_hold_up_an_error_that_leaves_a_lease(server: RunningServer, how: str) -> None:
    with open_store(server) as store:
        lease = store.acquire("w", "me", SHORT_S)
        if how == "claim":
            store.release(lease)
            (lease,) = store.claim("me", ttl=SHORT_S)
        with pytest.raises(ZeroDivisionError), lease:
            if how == "session":
                with session(store, "w", add, 0, lease=lease) as at_work:
                    at_work.record({"n": 1})
                    server.stop()
                    raise ZeroDivisionError
            server.stop()
            raise ZeroDivisionError
        server.go_on()
        wait_until(lambda: can_be_claimed(store), "the lease to be given back, or to end")
        wait_until(lambda: not lease_threads(), "the heartbeat to end")


def test_a_silent_server_does_not_hold_up_a_lease_that_is_left_without_an_error(server: RunningServer) -> None:
    with open_store(server) as store:
        with store.acquire("w", "me", SHORT_S):
            server.stop()
        server.go_on()
        wait_until(lambda: can_be_claimed(store), "the lease to be given back, or to end")


def test_a_heartbeat_that_waits_for_the_server_does_not_hold_it_up(server: RunningServer) -> None:
    with open_store(server) as store:
        with pytest.raises(ZeroDivisionError), store.acquire("w", "me", SHORT_S):
            server.stop()
            wait_until(lambda: store._sender._tickets, "a renewal to wait for its reply")
            raise ZeroDivisionError
        server.go_on()
        wait_until(lambda: not lease_threads(), "the heartbeat to end")
        assert can_be_claimed(store), "a late renewal kept the lease"


def test_a_failure_to_give_a_lease_back_is_raised_where_nothing_else_is(server: RunningServer) -> None:
    store = RedisStore.from_url(server.url(), deadline_s=0.1)
    with pytest.raises(StoreError), store.acquire("w", "me", LONG_S):
        server.kill()
    other = RedisStore.from_url("memory://")
    with pytest.raises(StoreError, match="closed"), other.acquire("w", "me", LONG_S):
        other.close()
    other = RedisStore.from_url("memory://")
    with pytest.raises(ZeroDivisionError), other.acquire("w", "me", LONG_S):
        other.close()
        raise ZeroDivisionError
    store.close()


def test_an_interrupt_ends_the_wait_and_the_lease_is_given_back_meanwhile(server: RunningServer) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    former = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with open_store(server) as store:

            def send() -> None:
                wait_until(lambda: store._sender._tickets, "the lease to be on its way back")
                os.kill(os.getpid(), signal.SIGUSR1)

            sending = threading.Thread(target=send)
            with pytest.raises(Interrupted), store.acquire("w", "me", LONG_S):
                server.stop()
                sending.start()
            sending.join()
            server.go_on()
            wait_until(lambda: can_be_claimed(store), "the lease to be given back")
            wait_until(lambda: not lease_threads(), "the heartbeat to end")
    finally:
        signal.signal(signal.SIGUSR1, former)


@pytest.mark.parametrize("ttl", [1e11, 1e9])
def test_a_lease_may_last_longer_than_a_thread_can_wait(server: RunningServer, ttl: float) -> None:
    with open_store(server) as store:
        with store.acquire("w", "me", ttl):
            (thread,) = lease_threads()
            assert thread.is_alive()
        assert not lease_threads()
        assert can_be_claimed(store)

    async def main() -> None:
        async with open_async(server) as other, await other.acquire("v", "me", ttl):
            await other.append("v", [{"n": 1}])

    asyncio.run(main())


# For asyncio


@pytest.mark.parametrize("how", ["acquire", "claim", "session"])
def test_for_asyncio_a_silent_server_does_not_hold_up_an_error(server: RunningServer, how: str) -> None:
    async def main() -> None:
        async with open_async(server) as store:
            lease = await store.acquire("w", "me", SHORT_S)
            if how == "claim":
                await store.release(lease)
                (lease,) = await store.claim("me", ttl=SHORT_S)
            with pytest.raises(ZeroDivisionError):
                async with lease:
                    if how == "session":
                        async with async_session(store, "w", add, 0, lease=lease) as at_work:
                            await at_work.record({"n": 1})
                            server.stop()
                            raise ZeroDivisionError
                    server.stop()
                    raise ZeroDivisionError
            server.go_on()
            while not await store.claim("you"):
                pass

    asyncio.run(main())


def test_for_asyncio_a_silent_server_does_not_hold_up_a_lease_that_is_left(server: RunningServer) -> None:
    async def main() -> None:
        async with open_async(server) as store:
            async with await store.acquire("w", "me", SHORT_S):
                server.stop()
            server.go_on()
            while not await store.claim("you"):
                pass

    asyncio.run(main())


async def in_a_lease(store: AsyncRedisStore) -> asyncio.Task[None]:
    """Start a task that holds the lease of a workflow until it is cancelled. Return once it holds it."""
    inside = asyncio.Event()

    async def work() -> None:
        async with await store.acquire("w", "me", LONG_S):
            inside.set()
            await asyncio.sleep(LONG_S)

    working = asyncio.create_task(work())
    await inside.wait()
    return working


def test_a_task_that_is_cancelled_again_as_it_leaves_a_lease_ends_at_once(server: RunningServer) -> None:
    async def main() -> None:
        async with open_async(server) as store:
            working = await in_a_lease(store)
            server.stop()
            working.cancel()
            while not heartbeat._releasing:
                await asyncio.sleep(0)
            assert not working.done(), "the task did not try to give the lease back"
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
            server.go_on()
            # The lease is free although it would last for long.
            while not await store.claim("you"):
                pass

    asyncio.run(main())


def test_a_task_that_is_cancelled_gives_its_lease_back(server: RunningServer) -> None:
    async def main() -> None:
        async with open_async(server) as store:
            working = await in_a_lease(store)
            with pytest.raises(LeaseHeld):
                await store.acquire("w", "you")
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
            assert len(await store.claim("you")) == 1

    asyncio.run(main())


def test_a_store_that_is_closed_meanwhile_ends_it(server: RunningServer) -> None:
    async def main() -> None:
        store = await open_async(server).open()
        with pytest.raises(ZeroDivisionError):
            async with await store.acquire("w", "me", LONG_S):
                server.stop()
                closing = asyncio.create_task(store.close())
                raise ZeroDivisionError
        await closing

    asyncio.run(main())


def test_a_child_that_was_forked_within_a_lease_leaves_it_to_the_parent(server: RunningServer) -> None:
    with open_store(server) as store:
        with store.acquire("w", "me", LONG_S) as lease:
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                lease.__exit__(None, None, None)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            with pytest.raises(LeaseHeld):
                store.acquire("w", "you")
        assert can_be_claimed(store)


@pytest.mark.parametrize("face", ["sync", "asyncio"])
def test_a_lease_in_memory_is_left_too(namespace: str, face: str) -> None:
    url = f"memory://{namespace}"
    with RedisStore.from_url(url) as store:
        if face == "sync":
            with pytest.raises(ZeroDivisionError), store.acquire("w", "me", LONG_S):
                raise ZeroDivisionError
        else:

            async def main() -> None:
                async with AsyncRedisStore.from_url(url) as other, await other.acquire("w", "me", LONG_S):
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                asyncio.run(main())
        assert can_be_claimed(store)
