"""A signal handler that raises, at every point of a call where Python runs one, and a fork at every lock."""

import asyncio
import gc
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import redis
import redis.sentinel

from runic_redis import AsyncRedisStore, RedisStore, StoreError, session
from runic_redis.drivers.sync import Sender
from runic_redis.operations.waiting import wait_for_due
from runic_redis.protocol import hints, queue
from runic_redis.protocol.effects import Operation, key_command
from runic_redis.protocol.hints import _Line
from runic_redis.protocol.refusals import ask
from runic_redis.testing.examples import numbered
from tests.servers import RunningServer, cluster_url, free_ports, running, sentinel, valkey_program
from tests.test_group_commit import GatedServer, wait_for

# The modules that run in a caller's thread, apart from the decoding of events, which shares nothing.
INTERRUPTED = (
    "runic_redis/drivers",
    "runic_redis/heartbeat",
    "runic_redis/store",
    "runic_redis/recovery",
    "threading.py",
)
INTERRUPTED += (
    "runic_redis/protocol/hints",
    "runic_redis/protocol/queue",
    "runic_redis/protocol/rounds",
    "runic_redis/operations/reading",
    "runic_redis/operations/waiting",
    "/redis/",
    "weakref.py",
)


pytestmark = [
    # A socket that redis-py was about to make is closed as garbage.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    # Python drops what is raised while it closes a generator that is garbage.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <generator:pytest.PytestUnraisableExceptionWarning"),
]


@cache
def is_interrupted(filename: str) -> bool:
    return any(part in filename for part in INTERRUPTED)


class Interrupted(BaseException):
    """What the handler raises: like KeyboardInterrupt, no Exception."""


class Interruption:
    """Raises once while it is active, at the first point that is not among those seen, where it is added.

    A point is a chain of calls to where Python may run a signal's handler: the entry of a function, or the return of
    one in C. (In a finalizer Python drops what is raised.)

    Attributes:
        where: the point; empty if there was none to be seen.
    """

    def __init__(self, seen: set[Any]) -> None:
        self._seen = seen
        self.where: Any = ()

    def __enter__(self) -> "Interruption":
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in {"call", "c_return"} or not is_interrupted(frame.f_code.co_filename):
            return
        chain: list[Any] = [event]
        caller: FrameType | None = frame
        while caller is not None and (code := caller.f_code).co_filename != __file__:
            if code.co_name in {"__del__", "_remove"} or code is GatedServer.pass_gate.__code__:
                return
            chain += (code.co_filename, caller.f_lineno)
            caller = caller.f_back
        point = tuple(chain)
        if point not in self._seen:
            sys.setprofile(None)
            self._seen.add(point)
            self.where = point
            raise Interrupted


def interrupt_everywhere(call: Callable[[], object], check: Callable[[Any], object]) -> int:
    """Interrupt a call once at each of its points, and check what is left each time; how many they were.

    A call may go another way the next time, since other threads send for it; so it is made ten times more at the end.
    """
    seen: set[Any] = set()
    whole = 0
    while whole < 10:
        interruption = Interruption(seen)
        with suppress(Interrupted), interruption:
            call()
        whole = 0 if interruption.where else whole + 1
        check(interruption.where)
    return len(seen)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def busy(tmp_path: Path, namespace: str) -> Iterator[tuple[RedisStore, Callable[[Any], None]]]:
    """A store that other threads append to all the time, and a check that it works for them and for others.

    At the end, no connection may be left that the store does not keep for the next call.
    """
    appended = [0, 0]
    over = threading.Event()
    with (
        running(valkey_program(), tmp_path) as server,
        RedisStore.from_url(server.url(), namespace=namespace) as store,
        ThreadPoolExecutor(3) as pool,
    ):

        def work(number: int) -> None:
            while not over.is_set():
                appended[number] += 1
                assert store.append(f"other-{number}", numbered(1)) == appended[number]

        def check(where: Any) -> None:
            pool.submit(store.append, "check", numbered(1)).result(60)
            assert len(store._sender._tickets) <= 2, where
            assert all(not working.done() for working in others), where

        others = [pool.submit(work, number) for number in range(2)]
        try:
            yield store, check
        finally:
            over.set()
        for working in others:
            working.result(60)
        gc.collect()
        with server.client() as client:
            connected = [one for one in client.client_list() if one["id"] != str(client.client_id())]
        assert len(connected) == len(store._sender.server._connections._idle)
        assert not store._sender._tickets


Busy = tuple[RedisStore, Callable[[Any], None]]


def test_an_append_may_be_interrupted_anywhere(busy: Busy) -> None:
    store, check = busy
    store.append("w", numbered(1))
    assert interrupt_everywhere(lambda: store.append("w", numbered(1)), check) > 20


def test_a_stream_may_be_interrupted_anywhere(busy: Busy) -> None:
    store, check = busy
    for _ in range(2):
        store.append_many([("w", [{"pad": "x" * 300}]) for _ in range(300)])

    def read() -> None:
        stream: Any = store.stream("w")
        with closing(stream):
            for _ in zip(range(90), stream, strict=False):  # into the third page, and no further
                pass

    assert interrupt_everywhere(read, check) > 20


def test_a_lease_may_be_interrupted_anywhere(busy: Busy) -> None:
    store, check = busy
    numbers = itertools.count()
    # Longer than the test: a heartbeat that is left behind does not find out that its lease is lost.
    leases = []

    def hold() -> None:
        lease = store.acquire(f"w-{next(numbers)}", "me", 1000)
        leases.append(lease)
        with lease:
            store.append(lease.workflow_id, numbered(1), lease=lease)

    def check_threads(where: Any) -> None:
        # A lease is given back by its thread, which may still be at it.
        wait_for(lambda: not any(thread.name.startswith("lease") for thread in threading.enumerate()))
        check(where)

    assert interrupt_everywhere(hold, check_threads) > 20


def test_a_lease_on_an_exit_stack_ends_with_the_lease_or_the_stack(busy: Busy) -> None:
    store, _ = busy
    lease = store.acquire("w", "me", 1000)
    with ExitStack() as stack:
        stack.enter_context(lease)
        gc.collect()
        (thread, _) = lease._beats[0]
        assert thread.is_alive()
    assert not thread.is_alive()
    lease = store.acquire("w", "me", 1000)
    lease.__enter__()
    (thread, _) = lease._beats[0]
    del lease
    thread.join(60)
    assert not thread.is_alive()


def add(state: int, event: Any) -> int:
    return state + int(event["n"])


def test_a_session_may_be_interrupted_anywhere(busy: Busy) -> None:
    store, check = busy
    sessions = [session(store, "w", add, 0)]

    def work() -> None:
        with sessions[-1] as at_work:
            at_work.record({"n": 1})

    def check_state(where: Any) -> None:
        check(where)
        stored = store.cursor("w")
        if sessions[-1]._core.recovery is None and sessions[-1]._core._entered:
            # What it has recovered so far may be of half an event.
            with pytest.raises(StoreError, match="Make another session"), sessions[-1]:
                pass
        with session(store, "w", add, 0) as another:
            assert another.state == another.cursor == stored, where
        if stored > 5:
            store.delete("w")
        sessions.append(session(store, "w", add, 0))

    assert interrupt_everywhere(work, check_state) > 20


def test_a_session_that_goes_on_after_an_interrupt_forgets_no_event(namespace: str) -> None:
    refused = 0
    seen: set[Any] = set()
    with RedisStore.from_url(f"memory://{namespace}", namespace=namespace) as store:
        interruption = None
        while interruption is None or interruption.where:
            interruption = Interruption(seen)
            with session(store, "w", add, 0, checkpoint="manual") as at_work:
                with suppress(Interrupted), interruption:
                    at_work.record({"n": 1})
                try:
                    at_work.record({"n": 1})
                except StoreError:
                    refused += 1
                else:
                    assert at_work.state == len(at_work.pending), interruption.where
    assert 0 < refused < len(seen)


def test_a_call_that_waits_for_room_may_be_interrupted_anywhere(
    valkey: RunningServer, namespace: str, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_FULL_COMMANDS", 2)
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        gated = GatedServer(store._sender.server)
        store._sender = Sender(gated, 30.0, wait_s=1.0)
        others: list[Future[int]] = []
        over = threading.Event()

        def fill() -> None:
            """Have one call held up at the gate, and the queue behind it full; the gate opens once it is seen so."""
            over.clear()
            gated.gate, gated.arrived = threading.Semaphore(0), threading.Semaphore(0)
            others[:] = [pool.submit(store.append, "other-0", numbered(1))]
            gated.arrived.acquire()
            others.extend(pool.submit(store.append, f"other-{number}", numbered(1)) for number in (1, 2))
            wait_for(lambda: len(store._sender._tickets) == 3)
            others.append(pool.submit(open_gate))

        def open_gate() -> int:
            wait_for(lambda: len(store._sender._waiting_for_room) == 1 or over.is_set())
            gated.gate.release(100)
            return 1

        def check(where: Any) -> None:
            over.set()
            for other in others:
                assert other.result(60) > 0, where
            assert pool.submit(store.append, "check", numbered(1)).result(60) > 0, where
            assert not store._sender._waiting_for_room, where
            assert not store._sender._tickets, where
            fill()

        fill()
        assert interrupt_everywhere(lambda: store.append("w", numbered(1)), check) > 20
        over.set()


def test_a_wait_may_be_interrupted_anywhere(
    valkey: RunningServer, namespace: str, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next caller gets its turn, and hints come again, wherever it was."""
    monkeypatch.setattr(hints, "_LOOK_S", 1000.0)
    key = f"{{{namespace}:0}}:stub"
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store, valkey.client() as client:
        waits = store._sender.waits

        def look() -> Operation[tuple[list[bytes], float | None]]:
            found = yield from ask(key_command("LPOP", key))
            return [] if found is None else [found], None

        def wait(wait_s: float) -> list[bytes]:
            return store.run(wait_for_due(store.context, ["orders"], wait_s, look), "test")

        def check(where: Any) -> None:
            others = [pool.submit(wait, 1000.0) for _ in range(2)]
            wait_for(lambda: len(next(iter(waits.turns._lines.values()), _Line()).places) == 2)
            client.rpush(key, "one", "two")
            client.publish(store.context.keys.hints, "0 orders")
            assert sorted(other.result(60)[0] for other in others) == [b"one", b"two"], where
            assert not waits.turns._lines, where
            # The next call starts the listener, too.
            with waits.lock:
                listener, waits.listener = waits.listener, None
            listener.interrupt()

        assert interrupt_everywhere(lambda: wait(0.001), check) > 20
    # (An interrupted `Thread.start` may leave a thread that never begins. It is not alive, and uses no connection.)
    listening = [thread for thread in threading.enumerate() if thread.name == "runic-redis-hints"]
    wait_for(lambda: not any(thread.is_alive() for thread in listening))


# Forks


def locks_of(client: Any) -> list[Any]:
    """The locks that redis-py takes for a command by this client."""
    pools = [client.connection_pool]
    if isinstance(client.connection_pool, redis.sentinel.SentinelConnectionPool):
        pools += [one.connection_pool for one in client.connection_pool.sentinel_manager.sentinels]
    owners = [*pools, *(pool._event_dispatcher for pool in pools if hasattr(pool, "_event_dispatcher"))]
    return [getattr(one, name) for one in owners for name in ("_lock", "_fork_lock") if hasattr(one, name)]


def append_in_child(store: RedisStore, locks: list[Any]) -> int:
    """Fork while another thread holds locks; the status of a child that appends."""
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            held.set()
            forked.wait()

    holding = threading.Thread(target=hold)
    holding.start()
    held.wait()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)
            store.append("child", numbered(1))
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    forked.set()
    holding.join()
    return status


@pytest.mark.parametrize("kind", ["URL", "client", "blocking", "Sentinel"])
def test_a_child_needs_no_lock_that_a_thread_of_the_parent_held(tmp_path: Path, namespace: str, kind: str) -> None:
    with ExitStack() as stack:
        (port,) = free_ports(1)
        primary = stack.enter_context(running(valkey_program(), tmp_path / "primary", port=port))
        if kind == "URL":
            store = RedisStore.from_url(primary.url(), namespace=namespace)
        elif kind == "client":
            store = RedisStore(stack.enter_context(primary.client(socket_timeout=5)), namespace=namespace)
        elif kind == "blocking":
            pool = redis.BlockingConnectionPool(port=port, socket_timeout=5)
            store = RedisStore(stack.enter_context(redis.Redis.from_pool(pool)), namespace=namespace)
        else:
            at = stack.enter_context(sentinel(valkey_program(), tmp_path / "sentinel", "shop", primary))
            store = RedisStore.from_url(f"redis+sentinel://127.0.0.1:{at}/shop", namespace=namespace)
        with store:
            assert store.append("parent", numbered(1)) == 1
            locks = locks_of(store._sender.server._client)
            assert len(locks) >= 2
            assert append_in_child(store, locks) == 0
            assert store.append("parent", numbered(1)) == 2
            assert store.cursor("child") == 1


def test_a_child_needs_no_lock_of_a_clusters_nodes(cluster_nodes: list[RunningServer], namespace: str) -> None:
    with RedisStore.from_url(cluster_url(cluster_nodes), namespace=namespace) as store:
        store.append("parent", numbered(1))
        nodes = store._sender.server._client.get_nodes()
        locks = [lock for node in nodes if node.redis_connection for lock in locks_of(node.redis_connection)]
        assert len(locks) >= 6
        assert append_in_child(store, locks) == 0
        assert store.append("parent", numbered(1)) == 2


def test_a_store_for_asyncio_is_closed_in_a_child(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace) as store:
            await store.append("parent", numbered(1))
            under_way = asyncio.create_task(store.append("parent", numbered(1)))
            await asyncio.sleep(0)  # its command is sent, and the driver waits for the reply
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    signal.alarm(30)
                    with pytest.raises(StoreError, match="closed"):
                        asyncio.run(store.append("child", numbered(1)))
                    status = 0
                finally:
                    os._exit(status)
            _, status = os.waitpid(child, 0)
            assert status == 0
            assert await under_way == 2
            assert await store.append("parent", numbered(1)) == 3
            assert await store.cursor("child") == 0

    asyncio.run(main())
