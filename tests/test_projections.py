"""Projections of both flavours, on fakeredis and on Valkey: kills, failovers, cancelled tasks, outages."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runic_redis import (
    AsyncRedisStore,
    Commit,
    CommitsLost,
    ConfigurationError,
    DecodeError,
    EveryEvents,
    InvalidArgument,
    InvalidType,
    LeaseLost,
    RedisStore,
    StoreUnavailable,
    async_projection,
    projection,
)
from tests import servers
from tests.forking import Forked
from tests.projecting_worker import NAME, TTL_S, apply, initial
from tests.servers import RunningServer, wait_until

KILLS = int(os.environ.get("PROJECTION_KILLS", "20"))
WRITERS = 8
WORKER = (Path(__file__).parent / "projecting_worker.py").read_text()
WRITER = """
import sys
from runic_redis import RedisStore
url, namespace, writer = sys.argv[1:]
with RedisStore.from_url(url, namespace=namespace, partitions=4, feed=True) as store:
    number = total = 0
    print("ready", flush=True)
    for _ in sys.stdin:
        for _ in range(10):
            number += 1
            store.append(f"order-{writer}-{number % 5}", [{"n": number}] * (number % 3 + 1))
            total += number * (number % 3 + 1)
        print(total, flush=True)
"""


def count(state: int, commit: Commit) -> int:
    return state + len(commit.events)


class Board:
    """A projection of either flavour with blocking calls."""

    def __init__(self, url: str, namespace: str, *, asynchronous: bool) -> None:
        self.store = RedisStore.from_url(url, namespace=namespace, partitions=2, feed=True)
        self.runner = asyncio.Runner() if asynchronous else None
        if self.runner is not None:
            self._used = AsyncRedisStore.from_url(url, namespace=namespace, partitions=2, feed=True)
            self.runner.run(self._used.open())

    def close(self) -> None:
        if self.runner is not None:
            self.runner.run(self._used.close())
            self.runner.close()
        self.store.close()

    @contextlib.contextmanager
    def enter(self, *args: Any, **options: Any) -> Iterator[Any]:
        if self.runner is None:
            with projection(self.store, *args, **options) as entered:
                yield entered
            return
        awaited = async_projection(self._used, *args, **options)
        self.runner.run(awaited.__aenter__())
        try:
            yield Blocking(awaited, self.runner.run)
        except BaseException as error:
            self.runner.run(awaited.__aexit__(type(error), error, error.__traceback__))
            raise
        self.runner.run(awaited.__aexit__(None, None, None))


class Blocking:
    """An `AsyncProjection` with blocking calls."""

    def __init__(self, awaited: Any, run: Callable[[Any], Any]) -> None:
        self._awaited = awaited
        self._run = run

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._awaited, name)
        if name not in {"catch_up", "run", "rebuild"}:
            return attribute
        return lambda *args, **options: self._run(attribute(*args, **options))


@pytest.fixture(params=["memory-sync", "memory-async", "valkey-sync", "valkey-async"])
def board(request: pytest.FixtureRequest, namespace: str) -> Iterator[Board]:
    backend, flavour = request.param.split("-")
    url = f"memory://{namespace}" if backend == "memory" else request.getfixturevalue("valkey").url()
    board = Board(url, namespace, asynchronous=flavour == "async")
    try:
        yield board
    finally:
        board.close()


def test_both_flavours_fold_save_and_go_on(board: Board) -> None:
    for number in range(20):
        board.store.append(f"order-{number % 3}", [{"n": number}] * 2)
    with board.enter("count", count, 0, policy=EveryEvents(7)) as counted:
        counted.catch_up()
        assert counted.state == 40
        board.store.append("order-1", [{"n": 1}])
        counted.run(wait_s=0)
        assert counted.state == 41
    saved = board.store.load_projection("count")
    assert saved is not None
    assert (saved.state, saved.positions) == (41, counted.positions)
    with board.enter("count", count, 0) as counted:
        assert counted.state == 41


def test_both_flavours_save_nothing_when_they_are_left_by_an_exception(board: Board) -> None:
    board.store.append("order-1", [{"n": 1}])
    with contextlib.suppress(ZeroDivisionError), board.enter("count", count, 0) as counted:
        counted.stop()
        counted.run()
        raise ZeroDivisionError
    assert board.store.load_projection("count") is None
    with board.enter("count", count, 0, wait_s=0) as counted:
        assert counted.state == 0


def test_both_flavours_keep_their_lease_while_they_do_nothing(board: Board) -> None:
    with board.enter("count", count, 0, ttl=0.3) as counted:
        key, client = board.store.context.keys.projection("count"), board.store._connected.server._client
        until = client.hget(key, "until")
        if board.runner is None:
            wait_until(lambda: client.hget(key, "until") > until, "the heartbeat to renew the lease")
        else:
            board.runner.run(_wait(lambda: client.hget(key, "until") > until))
        counted.catch_up()
    assert client.hget(key, "until") is None


async def _wait(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


def keys_of(board: Board) -> dict[bytes, bytes]:
    client = board.store._connected.server._client
    return {key: client.dump(key) for key in client.keys("{" + board.store.context.keys.namespace + "*")}


def set_back(board: Board, keys: dict[bytes, bytes]) -> None:
    """Set the namespace back to an earlier time, as a failover to a replica that lags does."""
    client = board.store._connected.server._client
    with client.pipeline() as pipe:
        for key in client.keys("{" + board.store.context.keys.namespace + "*"):
            pipe.delete(key)
        for key, dumped in keys.items():
            pipe.restore(key, 0, dumped)
        pipe.execute()


def test_after_lost_commits_it_goes_on_from_the_saved_state(board: Board) -> None:
    store = board.store
    for number in range(10):
        store.append(f"order-{number % 3}", [{"n": 1}])
    with board.enter("count", count, 0) as counted:
        counted.catch_up()
        earlier = keys_of(board)
        for _ in range(3):
            store.append("order-1", [{"n": 1}])
            counted.catch_up()
        assert counted.state == 13
        set_back(board, earlier)
        for _ in range(2):
            store.append("order-2", [{"n": 1}] * 2)
        counted.catch_up()
        assert counted.state == 14
    saved = store.load_projection("count")
    assert saved is not None
    assert saved.state == 14


def test_if_the_commits_of_the_saved_state_are_lost_it_says_so_and_what_helps(board: Board) -> None:
    store = board.store
    store.append("order-1", [{"n": 1}] * 2)
    with board.enter("count", count, 0) as counted:
        counted.catch_up()
        saved = {key: dumped for key, dumped in keys_of(board).items() if b"projection" in key}
        feeds = {key: dumped for key, dumped in keys_of(board).items() if b"projection" not in key}
        store.append("order-1", [{"n": 1}] * 2)
        counted.catch_up()
        saved = {key: dumped for key, dumped in keys_of(board).items() if b"projection" in key}
        set_back(board, {**feeds, **saved})
        for _ in range(2):
            with pytest.raises(CommitsLost, match=r"'count' cannot go on .* Call its method rebuild"):
                counted.catch_up()
    found = store.load_projection("count")
    assert found is not None
    assert found.state == 4, "the saved state stays"


def test_a_lease_that_was_lost_with_its_server_is_outdated(board: Board) -> None:
    with board.enter("count", count, 0) as first:
        first.catch_up()
    earlier = keys_of(board)
    with board.enter("count", count, 0) as counted:
        board.store.append("order-1", [{"n": 1}])
        counted.catch_up()
        set_back(board, earlier)
        with pytest.raises(LeaseLost, match="enter it again"):
            counted.catch_up()


def test_a_projection_needs_a_feed(namespace: str) -> None:
    with (
        RedisStore.from_url(f"memory://{namespace}", feed=False) as store,
        pytest.raises(ConfigurationError, match="has no feed"),
        projection(store, "count", count, 0),
    ):
        pass


def test_a_projection_has_the_kind_of_store_of_its_flavour(namespace: str) -> None:
    with pytest.raises(InvalidType, match=r"for asyncio: use async_projection"):
        projection(AsyncRedisStore.from_url(f"memory://{namespace}"), "count", count, 0)
    with RedisStore.from_url(f"memory://{namespace}") as store, pytest.raises(InvalidType, match="not for asyncio"):
        async_projection(store, "count", count, 0)


def test_the_name_of_a_subscription_is_taken(board: Board) -> None:
    with board.store.subscribe("mailer", wait_s=0) as subscription:
        assert list(subscription) == []
    with pytest.raises(InvalidArgument, match="is the name of a subscription"), board.enter("mailer", count, 0):
        pass
    board.store._connected.server._client.hset(board.store.context.keys.subscriptions, "mailer", "x")
    with pytest.raises(DecodeError, match="damaged"), board.enter("mailer", count, 0):
        pass


@pytest.mark.parametrize(
    ("field", "value"),
    [("positions", "x"), ("positions", "1"), ("state", ""), ("version", "x"), ("fence", "x"), ("until", "-1")],
)
def test_damage_is_named(board: Board, field: str, value: str) -> None:
    with board.enter("count", count, 0) as counted:
        counted.catch_up()
    client, key = board.store._connected.server._client, board.store.context.keys.projection("count")
    client.hset(key, field, value)
    before = client.hgetall(key)
    with pytest.raises(DecodeError), board.enter("count", count, 0):
        pass
    if field in {"positions", "state"}:
        with pytest.raises(DecodeError, match="delete_projection"):
            board.store.load_projection("count")
    else:
        assert client.hgetall(key) == before
    board.store.delete_projection("count")
    with board.enter("count", count, 0) as counted:
        counted.catch_up()


def test_a_run_goes_on_after_an_outage(tmp_path: Path) -> None:
    seen = []

    def note(state: int, commit: Commit) -> int:
        seen.append(commit.position)
        return count(state, commit)

    with (
        servers.running(servers.valkey_program(), tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server,
        RedisStore.from_url(server.url(), partitions=1, feed=True, deadline_s=0.5) as store,
    ):
        store.append("order-1", [{"n": 1}])
        with projection(store, "count", note, 0) as counted:
            counted.run(wait_s=0)
            server.kill()
            with pytest.raises(StoreUnavailable):
                counted.run()
            server.restart()
            store.append("order-1", [{"n": 1}])
            counted.run(wait_s=0)
            assert counted.state == 2
    assert seen == [1, 2]


def test_a_cancelled_run_loses_no_commit(valkey: RunningServer, namespace: str) -> None:
    async def main() -> int:
        async with (
            AsyncRedisStore.from_url(valkey.url(), namespace=namespace, partitions=2, feed=True) as store,
            async_projection(store, "count", count, 0, policy=EveryEvents(3)) as counted,
        ):
            source = random.Random(1)
            for number in range(40):
                running = asyncio.create_task(counted.run())
                for _ in range(source.randrange(8)):
                    await store.append(f"order-{number % 5}", [{"n": 1}])
                    if source.randrange(3) == 0:
                        await asyncio.sleep(0)
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running
            await counted.catch_up()
            return counted.state

    async def events() -> int:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace, partitions=2) as store:
            return sum([len(one.events) async for one in store.feed()])

    assert asyncio.run(main()) == asyncio.run(events()) > 0


def test_a_projection_that_is_killed_has_the_correct_sum(valkey: RunningServer, namespace: str) -> None:
    """Two processes run it and are killed and stopped in turn, while eight others write."""
    source = random.Random(int(os.environ.get("PROJECTION_SEED", "1")))
    arguments = (valkey.url(), namespace)
    with (
        contextlib.ExitStack() as stack,
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=4, feed=True) as store,
    ):
        writers = [stack.enter_context(Forked(WRITER, *arguments, writer)) for writer in range(WRITERS)]
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        workers = [Forked(WORKER, *arguments) for _ in range(2)]
        entered = []
        for number in range(KILLS):
            for writer in writers:
                print(file=writer.stdin, flush=True)
            if number % 4 == 3:
                # Its lease ends, and another process takes over before it goes on.
                workers[0].send_signal(signal.SIGSTOP)
                time.sleep(TTL_S)
            elif number % 4:
                time.sleep(source.random() * 0.1)
            else:
                saved = store.load_projection(NAME)
                before = saved.time if saved else None
                wait_until(lambda before=before: has_saved_since(store, before), "a save")
            for writer in writers:
                writer.last = int(writer.stdout.readline())  # type: ignore[attr-defined]
            worker = workers.pop(0)
            workers.append(Forked(WORKER, *arguments))
            worker.send_signal(signal.SIGCONT)
            worker.kill()
            worker.wait()
            said, errors = worker.stdout.read(), worker.stderr.read()
            entered += [line for line in said.splitlines() if line.startswith("entered")]
            assert "Traceback" not in errors, errors
            worker.close()
        expected = sum(writer.last for writer in writers)  # type: ignore[attr-defined]
        for worker in workers:
            worker.kill()
            worker.close()
        with projection(store, NAME, apply, initial, ttl=TTL_S) as sums:
            assert sums.state["sum"] > 0, "it was saved before a kill"
            sums.catch_up()
            assert sums.state["sum"] == expected
        assert len(set(entered)) > 1, "some that were killed had folded what others had saved"


def has_saved_since(store: RedisStore, before: Any) -> bool:
    saved = store.load_projection(NAME)
    return saved is not None and (before is None or saved.time > before)
