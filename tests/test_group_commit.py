"""Concurrent calls on one store share round trips, for threads and for tasks."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runic_redis import AsyncRedisStore, CursorConflict, DecodeError, RedisStore, StoreError, StoreUnavailable
from runic_redis.drivers.sync import Sender
from runic_redis.drivers.sync_servers import Pending, Server
from runic_redis.protocol import queue
from runic_redis.protocol.effects import Batch, Command, ConnectionLost
from runic_redis.protocol.node_queues import Queues, any_full
from runic_redis.protocol.rounds import Call
from runic_redis.testing.examples import numbered
from tests.servers import RunningServer, running, valkey_program


class GatedServer:
    """Between a store and its server: each round trip waits at a gate."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.find_node = server.find_node
        self.forget = server.forget
        self.gate = threading.Semaphore(0)
        self.arrived = threading.Semaphore(0)
        self.rounds: list[int] = []
        self.interrupt: BaseException | None = None

    def begin(self, calls: Sequence[Call]) -> Pending:
        self.rounds.append(sum(len(call.requests) for call in calls))
        return GatedPending(self, calls)

    def pass_gate(self, calls: Sequence[Call]) -> list[Any]:
        self.arrived.release()
        self.gate.acquire()
        if self.interrupt is not None:
            error, self.interrupt = self.interrupt, None
            raise error
        return self._server.begin(calls).finish()

    def close(self) -> None:
        self._server.close()


class GatedPending:
    """A round that waits at the gate before it is sent, where a thread otherwise waits for the replies."""

    def __init__(self, server: GatedServer, calls: Sequence[Call]) -> None:
        self._server = server
        self._calls = calls

    def finish(self) -> list[Any]:
        return self._server.pass_gate(self._calls)

    def cancel(self) -> None: ...

    def interrupt(self) -> None: ...


@pytest.fixture
def gated(store: RedisStore) -> GatedServer:
    store.append("other", numbered(1))
    gated = GatedServer(store._sender.server)
    store._sender = Sender(gated, 30.0, wait_s=1.0)
    return gated


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until other threads have come so far; pytest's time limit ends it if they never do."""
    while not condition():
        os.sched_yield()


def crowd(
    store: RedisStore, gated: GatedServer, pool: ThreadPoolExecutor, count: int
) -> tuple[Future[int], list[Future[int]]]:
    """Hold an append up at the gate, and make others behind it."""
    first = pool.submit(store.append, "order-0", numbered(1))
    gated.arrived.acquire()
    return first, [pool.submit(store.append, f"order-{number}", numbered(1)) for number in range(1, count + 1)]


def waiting(store: RedisStore) -> int:
    return len(store._sender._tickets)


def test_what_comes_during_a_round_trip_goes_in_the_next(
    store: RedisStore, gated: GatedServer, pool: ThreadPoolExecutor
) -> None:
    first = pool.submit(store.append, "order-0", numbered(1))
    gated.arrived.acquire()
    others = [pool.submit(store.append, f"order-{number}", numbered(1)) for number in range(1, 21)]
    wait_for(lambda: waiting(store) == 21)
    gated.gate.release(2)
    assert [future.result() for future in [first, *others]] == [1] * 21
    assert gated.rounds == [1, 20]


def test_a_call_that_is_alone_waits_for_nothing(store: RedisStore, gated: GatedServer) -> None:
    gated.gate.release(3)
    for number in range(3):
        assert store.append("order-1", numbered(1, number)) == number + 1
    assert gated.rounds == [1, 1, 1]


def test_each_of_those_that_travel_together_has_its_own_answer(
    store: RedisStore, gated: GatedServer, pool: ThreadPoolExecutor
) -> None:
    first = pool.submit(store._sender.ask, Batch([Command(("GET", "nothing"), "nothing")]))
    gated.arrived.acquire()
    expecting = [pool.submit(store.append, "order-1", numbered(1), expected_cursor=0) for _ in range(8)]
    others = [pool.submit(store.append, "order-2", numbered(2), metadata={"n": n}) for n in range(8)]
    wait_for(lambda: waiting(store) == 17)
    gated.gate.release(2)
    assert first.result() == [None]
    assert sorted(isinstance(future.exception(), CursorConflict) for future in expecting) == [False, *[True] * 7]
    assert sorted(future.result() for future in others) == list(range(2, 18, 2))
    _, *together = gated.rounds
    assert together == [16]


def test_many_commits_of_one_workflow_are_one_call(
    store: RedisStore, gated: GatedServer, pool: ThreadPoolExecutor
) -> None:
    first = pool.submit(store._sender.ask, Batch([Command(("GET", "nothing"), "nothing")]))
    gated.arrived.acquire()
    futures = []
    for number in range(20):
        futures.append(pool.submit(store.append, "order-1", numbered(2, 2 * number)))
        wait_for(lambda count=number + 2: waiting(store) == count)  # type: ignore[misc]
    gated.gate.release(20)
    assert [future.result() for future in futures] == list(range(2, 42, 2))
    assert first.result() == [None]
    _, *together = gated.rounds
    assert together == [20]
    assert [record.cursor for record in store.stream_records("order-1")] == list(range(1, 41))
    assert list(store.stream("order-1")) == numbered(40, 0)


def test_a_thread_that_is_interrupted_while_it_sends_for_others_does_not_take_them_with_it(
    store: RedisStore, gated: GatedServer, pool: ThreadPoolExecutor
) -> None:
    first = pool.submit(store.append, "order-1", numbered(1))
    gated.arrived.acquire()
    others = [pool.submit(store.append, f"order-{number}", numbered(1)) for number in range(10)]
    wait_for(lambda: waiting(store) == 11)
    gated.interrupt = KeyboardInterrupt()
    gated.gate.release(20)
    assert isinstance(first.exception(), KeyboardInterrupt)
    assert [future.result() for future in others] == [1] * 10
    assert waiting(store) == 0


def test_who_waits_for_room_goes_on_when_another_is_interrupted(
    store: RedisStore, gated: GatedServer, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_FULL_COMMANDS", 3)
    first, others = crowd(store, gated, pool, 10)
    wait_for(lambda: len(store._sender._waiting_for_room) == 7)
    gated.interrupt = KeyboardInterrupt()
    gated.gate.release(30)
    assert isinstance(first.exception(), KeyboardInterrupt)
    assert [future.result() for future in others] == [1] * 10
    assert not store._sender._waiting_for_room


def test_an_interruption_may_be_interrupted(
    store: RedisStore, gated: GatedServer, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, others = crowd(store, gated, pool, 10)
    wait_for(lambda: waiting(store) == 11)
    start = store._sender._new_queues
    interruptions = [KeyboardInterrupt(), KeyboardInterrupt()]

    def start_and_be_interrupted() -> Queues:
        if interruptions:
            raise interruptions.pop()
        return start()

    monkeypatch.setattr(store._sender, "_new_queues", start_and_be_interrupted)
    gated.interrupt = KeyboardInterrupt()
    gated.gate.release(30)
    assert isinstance(first.exception(), KeyboardInterrupt)
    assert [future.result() for future in others] == [1] * 10


class SlowToBegin(GatedServer):
    """A call to order-0 waits before it is sent, as at a connect, and then has the answer or the error that is set.

    The other calls wait at the gate; those to "apart" are of another node, and interrupted when they are sent.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.find_node = lambda key: "apart" if "apart" in key else ""
        self.began = threading.Semaphore(0)
        self.may_begin = threading.Semaphore(0)
        self.may_finish = threading.Semaphore(1)
        self.answer: Any = None

    def begin(self, calls: Sequence[Call]) -> Pending:
        if "apart" in calls[0].key:
            raise KeyboardInterrupt
        if "order-0" not in calls[0].key or self.answer is None:
            return super().begin(calls)
        answer, self.answer = self.answer, None
        self.began.release()
        self.may_begin.acquire()
        if isinstance(answer, StoreError):
            raise answer
        return _Answering(self.may_finish, answer)


@pytest.fixture
def slow(store: RedisStore) -> SlowToBegin:
    store.append("other", numbered(1))
    slow = SlowToBegin(store._sender.server)
    store._sender = Sender(slow, 30.0, wait_s=1.0)
    return slow


def test_a_lone_call_survives_the_interrupt_of_another_thread_while_it_connects(
    store: RedisStore, slow: SlowToBegin, pool: ThreadPoolExecutor
) -> None:
    """It and the calls behind it are sent once each, although its old queue has them, too."""
    slow.answer = [ConnectionLost("cut", sent=False)]
    alone = pool.submit(store.append, "order-0", numbered(1))
    slow.began.acquire()
    behind = [pool.submit(store.append, f"order-{number}", numbered(1)) for number in (1, 2)]
    wait_for(lambda: waiting(store) == 2)
    assert isinstance(pool.submit(store.append, "apart", numbered(1)).exception(), KeyboardInterrupt)
    slow.arrived.acquire()  # those behind it, on their way in the new queue
    slow.may_begin.release()
    wait_for(lambda: waiting(store) == 3 or alone.done())
    slow.gate.release(20)
    assert [future.result(60) for future in [alone, *behind]] == [1] * 3
    assert slow.rounds == [2, 1]
    assert not store._sender._tickets
    assert not store._sender._led
    assert all(queue.idle for queue in store._sender._queues)


def test_a_call_that_is_interrupted_behind_a_lone_call_is_not_sent_later(
    store: RedisStore, slow: SlowToBegin, pool: ThreadPoolExecutor
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def interrupt_main() -> None:
        wait_for(lambda: waiting(store) == 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        slow.answer = [ConnectionLost("cut", sent=False)]
        alone = pool.submit(store.append, "order-0", numbered(1))
        slow.began.acquire()
        interrupting = pool.submit(interrupt_main)
        with pytest.raises(KeyboardInterrupt):
            store.append("order-1", numbered(1, 1))
        interrupting.result(60)
    finally:
        signal.signal(signal.SIGUSR1, before)
    slow.gate.release(20)
    assert store.append("order-1", numbered(1, 2)) == 1
    slow.may_begin.release()
    assert alone.result(60) == 1
    assert list(store.stream("order-1")) == numbered(1, 2)


def test_the_error_of_a_round_that_was_given_up_fails_no_call(
    store: RedisStore, slow: SlowToBegin, pool: ThreadPoolExecutor
) -> None:
    """Its calls may be in flight again, and be carried out."""
    slow.answer = [StoreError("no login")]
    slow.may_finish.acquire()
    alone = pool.submit(store.append, "order-0", numbered(1))
    slow.began.acquire()
    others = [pool.submit(store.append, "order-1", numbered(1))]
    wait_for(lambda: waiting(store) == 1)
    assert isinstance(pool.submit(store.append, "apart", numbered(1)).exception(), KeyboardInterrupt)
    slow.arrived.acquire()
    others.append(pool.submit(store.append, "order-2", numbered(1)))
    wait_for(lambda: waiting(store) == 2)
    slow.may_begin.release()
    wait_for(lambda: waiting(store) == 3)
    slow.gate.release()
    slow.arrived.acquire()
    (ticket,) = [one for one in store._sender._tickets if "order-0" in one.batch.commands[0].key]
    ticket.wake()
    slow.may_finish.release()
    wait_for(lambda: ticket.signal.empty() or alone.done())
    slow.gate.release(20)
    assert [future.result(60) for future in [alone, *others]] == [1] * 3
    assert slow.rounds == [1, 2]


def test_a_lone_call_that_fails_for_good_leaves_its_queue_to_those_behind_it(
    store: RedisStore, slow: SlowToBegin, pool: ThreadPoolExecutor
) -> None:
    slow.answer = StoreError("no login")
    alone = pool.submit(store.append, "order-0", numbered(1))
    slow.began.acquire()
    behind = [pool.submit(store.append, f"order-{number}", numbered(1)) for number in (1, 2)]
    wait_for(lambda: waiting(store) == 2)
    slow.gate.release(20)
    slow.may_begin.release()
    with pytest.raises(StoreError, match="no login"):
        alone.result(60)
    assert [future.result(60) for future in behind] == [1] * 2
    assert slow.rounds[0] == 2
    assert store.append("order-0", numbered(1)) == 1
    assert not store._sender._led
    assert all(queue.idle for queue in store._sender._queues)


def test_a_full_queue_pushes_back(
    store: RedisStore, gated: GatedServer, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_FULL_COMMANDS", 3)
    first, others = crowd(store, gated, pool, 10)
    wait_for(lambda: len(store._sender._waiting_for_room) == 7)
    gated.gate.release(20)
    assert [future.result() for future in [first, *others]] == [1] * 11
    assert max(gated.rounds) <= 3


def test_those_who_wait_when_the_store_is_closed_are_told(
    store: RedisStore, gated: GatedServer, pool: ThreadPoolExecutor
) -> None:
    first, others = crowd(store, gated, pool, 5)
    wait_for(lambda: waiting(store) == 6)
    store.close()
    gated.gate.release(20)
    for future in [first, *others]:
        with pytest.raises(StoreError, match="closed"):
            future.result()


def test_calls_survive_interruptions_anywhere(valkey: RunningServer, namespace: str) -> None:
    """Signals interrupt the main thread at random points while other threads use the same store."""

    class Interrupted(BaseException):
        pass

    interruptions = 0

    def interrupt(*_: object) -> None:
        nonlocal interruptions
        interruptions += 1
        raise Interrupted

    appended = [0] * 4
    stop = threading.Event()
    before = signal.signal(signal.SIGPROF, interrupt)
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:

        def work(number: int) -> None:
            while not stop.is_set():
                appended[number] += 1
                assert store.append(f"order-{number}", numbered(1)) == appended[number]

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(work, number) for number in range(4)]
            try:
                for attempt in range(100):
                    try:
                        signal.setitimer(signal.ITIMER_PROF, 0.0005 + attempt * 0.00007)
                        # (Python drops an exception that is raised in a finalizer or a callback of the collector.)
                        while interruptions == attempt:
                            store.append("main", numbered(1))
                    except Interrupted:
                        pass
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.signal(signal.SIGPROF, before)
                stop.set()
            for future in futures:
                future.result()
        for number in range(4):
            assert store.cursor(f"order-{number}") == appended[number]


def test_a_child_process_has_connections_of_its_own(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        store.append("order-1", numbered(1))
        whose = Batch([Command(("CLIENT", "ID"), "k")])
        (parents,) = store._sender.ask(whose)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if store._sender.ask(whose) != [parents] and store.append("order-1", numbered(1, 1)) == 2:
                    status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert store._sender.ask(whose) == [parents]
        assert store.append("order-1", numbered(1, 2)) == 3
        assert list(store.stream("order-1")) == [*numbered(1), *numbered(2, 1)]


async def commands_of(store: AsyncRedisStore, name: str) -> int:
    """Return how many commands of a name the store's server has carried out."""
    assert store._connected is not None
    stats = await store._connected.server._client.info("commandstats")
    return int(stats.get(f"cmdstat_{name}", {}).get("calls", 0))


def test_tasks_travel_together(valkey: RunningServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace) as store:
            await store.append("other", numbered(1))
            rounds: list[int] = []
            assert store._sender is not None
            server = store._sender._server
            send = server.send

            async def count(calls: Sequence[Call], *, own_connection: bool = False) -> list[Any]:
                rounds.append(sum(len(call.requests) for call in calls))
                return await send(calls, own_connection=own_connection)

            monkeypatch.setattr(server, "send", count)
            cursors = await asyncio.gather(*(store.append(f"order-{n % 10}", numbered(1, n)) for n in range(100)))
            assert sorted(cursors) == sorted(list(range(1, 11)) * 10)
            assert rounds == [100]
            before = await commands_of(store, "evalsha")
            assert await asyncio.gather(*(store.append("order-x", numbered(1, n)) for n in range(50))) == [
                *range(1, 51)
            ]
            assert await commands_of(store, "evalsha") - before == 1
            assert [event async for event in store.stream("order-x")] == numbered(50, 0)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["events", "meta", "commits", "index"])
def test_a_foreign_value_fails_its_own_commit_alone(valkey: RunningServer, namespace: str, kind: str) -> None:
    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace, partitions=4096) as store:
            await store.append("other", numbered(1))
            keys = store.context.keys.workflow("bad")
            with valkey.client() as client:
                client.set(getattr(keys, kind), "foreign")
                ids = ["order-1", "bad", "order-2", "bad", "order-1"]
                before = await commands_of(store, "evalsha")
                outcomes = await asyncio.gather(
                    *(store.append(workflow_id, numbered(1), commit_id=f"c-{n}") for n, workflow_id in enumerate(ids)),
                    return_exceptions=True,
                )
                assert await commands_of(store, "evalsha") - before == 1
                assert [outcomes[0], outcomes[2], outcomes[4]] == [1, 1, 2]
                for outcome in (outcomes[1], outcomes[3]):
                    assert isinstance(outcome, DecodeError)
                    assert "Nothing was changed" in str(outcome)
                assert client.get(getattr(keys, kind)) == b"foreign"
                names = [name for name in ("events", "meta", "commits", "index") if name != kind]
                assert not client.exists(*(getattr(keys, name) for name in names))

    asyncio.run(main())


def test_a_full_queue_pushes_tasks_back(valkey: RunningServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_FULL_COMMANDS", 3)

    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace) as store:
            await asyncio.gather(*(store.append("order-1", numbered(1)) for _ in range(50)))
            assert await store.cursor("order-1") == 50

    asyncio.run(main())


def test_tasks_that_wait_for_room_are_told_that_there_is_no_server(
    tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_FULL_COMMANDS", 3)

    async def main(server: RunningServer) -> None:
        async with AsyncRedisStore.from_url(server.url(), namespace=namespace, deadline_s=0.2) as store:
            await store.cursor("order-0")
            server.kill()
            failed = await asyncio.gather(
                *(store.append(f"order-{number}", numbered(1)) for number in range(50)), return_exceptions=True
            )
            assert {type(error) for error in failed} == {StoreUnavailable}
            # Of those that wait when others are cancelled, each is told, too.
            tasks = [asyncio.create_task(store.append(f"order-{number}", numbered(1))) for number in range(6)]
            while store._sender is None or not any_full(store._sender._queues):
                await asyncio.sleep(0)
            for task in tasks[:5]:
                task.cancel()
            with pytest.raises(StoreUnavailable):
                await tasks[5]

    with running(valkey_program(), tmp_path) as server:
        asyncio.run(main(server))


def test_threads_that_wait_for_room_are_told_that_there_is_no_server(
    tmp_path: Path, namespace: str, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_FULL_COMMANDS", 3)
    with (
        running(valkey_program(), tmp_path) as server,
        RedisStore.from_url(server.url(), namespace=namespace, deadline_s=0.2) as store,
    ):
        store.cursor("order-0")
        server.kill()
        futures = [pool.submit(store.append, f"order-{number}", numbered(1)) for number in range(50)]
        assert {type(future.exception()) for future in futures} == {StoreUnavailable}


def test_threads_that_come_while_others_give_up_are_told_that_there_is_no_server(
    tmp_path: Path, namespace: str, pool: ThreadPoolExecutor
) -> None:
    """A thread that sends for others stops at its own deadline, and another goes on."""
    with (
        running(valkey_program(), tmp_path) as server,
        RedisStore.from_url(server.url(), namespace=namespace, deadline_s=0.2) as store,
    ):
        store.cursor("order-0")
        server.kill()

        def keep_asking(number: int) -> None:
            for _ in range(5):
                with pytest.raises(StoreUnavailable):
                    store.append(f"order-{number}", numbered(1))

        for future in [pool.submit(keep_asking, number) for number in range(16)]:
            future.result()


class WatchedLock:
    """A lock, and what is to happen once a thread has released it."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.released: dict[int, Callable[[], None]] = {}

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self.released.get(threading.get_ident(), lambda: None)()


class ThreeNodes:
    """Answers each call with OK, once it may; but the first one to c is lost."""

    def __init__(self) -> None:
        self.gates = {"a": threading.Semaphore(0), "b": threading.Semaphore(0), "c": threading.Semaphore(1)}
        self.arrived = threading.Semaphore(0)
        self.losses = [ConnectionLost("cut", sent=False)]

    def find_node(self, key: str) -> str:
        return key

    def begin(self, calls: Sequence[Call]) -> Any:
        self.arrived.release()
        answers = [self.losses.pop() if call.key == "c" and self.losses else b"OK" for call in calls]
        return _Answering(self.gates[calls[0].key], answers)

    def forget(self) -> None:
        pass


class _Answering:
    def __init__(self, gate: threading.Semaphore, answers: list[Any]) -> None:
        self._gate = gate
        self._answers = answers

    def finish(self) -> list[Any]:
        self._gate.acquire()
        return self._answers


def test_who_is_answered_by_another_still_sends_what_it_took_on(pool: ThreadPoolExecutor) -> None:
    """A call of two nodes leads the queue of one, and gets its replies by the leader of the other just before."""
    server = ThreeNodes()
    sender = Sender(server, 30.0, wait_s=1.0)
    sender._lock = lock = WatchedLock(sender._lock)  # type: ignore[assignment]

    def ask(*keys: str) -> list[Any]:
        return sender.ask(Batch([Command(("GET", key), key) for key in keys]))

    def ask_a_and_b() -> list[Any]:
        places = iter(range(100))

        def released() -> None:
            if next(places) == 1:
                # It is about to send what others want of a, and waits for b itself.
                server.gates["b"].release(2)
                (turn,) = [one for one in sender._tickets if one.batch.commands[0].key == "a" and len(one.replies) == 2]
                wait_for(lambda: turn.missing == 0)

        lock.released[threading.get_ident()] = released
        return ask("a", "b")

    # It is still there to send for b when that has been answered, since c was not.
    of_b_and_c = pool.submit(ask, "b", "c")
    server.arrived.acquire()
    of_a_and_b = pool.submit(ask_a_and_b)
    server.arrived.acquire()
    of_a = pool.submit(ask, "a")
    wait_for(lambda: len(sender._tickets) == 3)
    server.gates["a"].release(3)
    assert [future.result() for future in (of_b_and_c, of_a_and_b, of_a)] == [[b"OK"] * 2, [b"OK"] * 2, [b"OK"]]
