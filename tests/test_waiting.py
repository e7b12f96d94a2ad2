"""Waiting until something is due: turns, hints, and the one connection on which a store listens.

A look here takes an element of a list. Most tests make looks rare, so that only a hint can be in time.
"""

import asyncio
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from runic_redis import AsyncRedisStore, RedisStore, StoreError, StoreUnavailable
from runic_redis.operations.waiting import wait_for_due
from runic_redis.protocol import hints
from runic_redis.protocol.effects import ConnectionLost, ErrorReply, Join, Operation, key_command
from runic_redis.protocol.hints import Listen, Place, Turns, listen
from runic_redis.protocol.queue import back_off_s
from runic_redis.protocol.refusals import ask
from tests import servers
from tests.portal import open_store
from tests.servers import RunningServer, url_on, wait_until

# Longer than any test.
LONG_S = 1000.0


class Caller(Place):
    """A caller whose clock the test decides."""

    woken = 0

    def wake(self) -> None:
        self.woken += 1


class Player:
    """Lines whose clock the test decides."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.now_s = 100.0

    def join(self, wait_s: float = 9.0, *queues: str) -> Caller:
        return Caller(Join("channel", queues or ("a",), wait_s))

    def step(self, caller: Caller, after_s: float = 0.0, *, due_s: float | None = None) -> float | None:
        """Return how long a caller waits, 0.0 if it looks, None at its end."""
        self.now_s += after_s
        caller.due_s = due_s
        pause_s = self.turns.next_pause_s(caller, self.now_s)
        return None if pause_s is None else round(pause_s, 6)

    def leave(self, caller: Caller) -> None:
        self.turns.leave(caller, self.now_s)


@pytest.fixture
def player() -> Player:
    return Player()


def test_one_looks_for_all_that_wait_for_the_same_queues(player: Player) -> None:
    first, second, other = player.join(), player.join(), player.join(9.0, "b")
    assert player.step(first) == 0.0
    assert player.step(second) == 9.0
    assert player.step(other) == 0.0
    assert player.step(first) == 1.0
    assert player.step(first, 0.5) == 0.5
    assert player.step(first, 0.5) == 0.0
    assert player.step(first) == 1.0
    assert second.woken == 0


def test_the_next_due_time_is_when_to_look(player: Player) -> None:
    first = player.join()
    assert player.step(first) == 0.0
    assert player.step(first, due_s=0.3) == 0.3
    assert player.step(first, 0.3) == 0.0
    assert player.step(first, due_s=60.0) == 1.0, "a hint may be lost"
    assert player.step(first, 1.0) == 0.0
    assert player.step(first, due_s=0.0) == 0.01, "a look that finds nothing is not repeated at once"


def test_who_has_found_something_passes_the_turn_on(player: Player) -> None:
    first, second, third = player.join(), player.join(), player.join()
    assert [player.step(one) for one in (first, second, third)] == [0.0, 9.0, 9.0]
    player.leave(first)
    assert (second.woken, third.woken) == (1, 0)
    assert player.step(second) == 0.0, "there may be more"
    assert player.step(third) == 9.0
    player.leave(second)
    player.leave(second)
    assert player.step(third) == 0.0


def test_who_leaves_without_a_look_changes_nothing(player: Player) -> None:
    first, second, third = player.join(), player.join(), player.join()
    assert [player.step(one) for one in (first, second, third)] == [0.0, 9.0, 9.0]
    assert player.step(first) == 1.0
    player.leave(second)
    assert player.step(first) == 1.0
    player.leave(first)
    assert third.woken
    assert player.step(third) == 1.0


@pytest.mark.parametrize("queue", ["a", None])
def test_a_hint_wakes_the_first(player: Player, queue: str | None) -> None:
    first, second = player.join(9.0, "a", "b"), player.join(9.0, "a", "b")
    assert [player.step(one) for one in (first, second, first)] == [0.0, 9.0, 1.0]
    player.turns.hint("c")
    assert player.step(first) == 1.0
    player.turns.hint(queue)
    assert (first.woken, second.woken) == (1, 0)
    assert player.step(first) == 0.0


def test_a_hint_during_a_look_is_not_lost(player: Player) -> None:
    first = player.join()
    assert player.step(first) == 0.0
    player.turns.hint("a")
    assert player.step(first, due_s=0.5) == 0.0
    assert player.step(first) == 1.0


def test_whose_time_ends_without_the_turn_needs_no_look(player: Player) -> None:
    first, second = player.join(9.0), player.join(0.5)
    assert [player.step(one) for one in (first, second, first)] == [0.0, 0.5, 1.0]
    assert player.step(second, 0.5) is None
    assert player.step(second) is None


def test_whose_time_ends_during_a_look_waits_for_its_end(player: Player) -> None:
    first, second, third = player.join(9.0), player.join(0.5), player.join(0.5)
    assert [player.step(one) for one in (first, second, third)] == [0.0, 0.5, 0.5]
    assert player.step(second, 0.5) == 1.0
    assert player.step(first) == 1.0
    assert second.woken
    assert player.step(second) is None
    # The third sees a hint that nobody has looked for yet.
    player.turns.hint("a")
    assert player.step(third) == 1.0
    player.leave(first)
    assert player.step(third) == 0.0
    assert player.step(third) is None


def test_a_look_that_hangs_keeps_nobody_long(player: Player) -> None:
    first, second = player.join(9.0), player.join(0.5)
    assert [player.step(one) for one in (first, second)] == [0.0, 0.5]
    assert player.step(second, 1.5) == 0.0
    assert player.step(second) is None


def test_the_first_looks_once_more_at_its_end_if_one_is_due(player: Player) -> None:
    first = player.join(1.0)
    assert player.step(first) == 0.0
    assert player.step(first) == 1.0
    assert player.step(first, 1.0) == 0.0
    assert player.step(first) is None


def test_a_thousand_that_end_together_make_one_look(player: Player) -> None:
    callers = [player.join(1.0) for _ in range(1000)]
    looks = sum(player.step(one) == 0.0 for one in callers)
    assert player.step(callers[0]) == 1.0
    player.now_s += 1.0
    waiting = callers
    while waiting:
        steps = {one: player.step(one) for one in waiting}
        looks += list(steps.values()).count(0.0)
        waiting = [one for one in waiting if steps[one] is not None]
    assert looks == 2


def test_nobody_waits_any_more(player: Player) -> None:
    first = player.join()
    player.step(first)
    assert not player.turns.are_idle(player.now_s + LONG_S)
    player.leave(first)
    assert not player.turns.are_idle(player.now_s)
    assert player.turns.are_idle(player.now_s + 5.0)


def test_a_subscription_counts_as_a_hint_and_a_silent_connection_is_pinged(player: Player) -> None:
    first = player.join()
    assert [player.step(first) for _ in range(2)] == [0.0, 1.0]
    steps = listen(player.turns)
    assert next(steps) == Listen(pause_s=0.0)
    assert steps.send([b"subscribe", b"channel", 1]) == Listen()
    assert [player.step(first) for _ in range(2)] == [0.0, 1.0]
    assert steps.send([b"message", b"channel", b"0 other"]) == Listen()
    assert steps.send([b"message", b"channel", b"foreign \xff"]) == Listen()
    assert player.step(first) == 1.0
    assert steps.send([b"message", b"channel", b"0 a"]) == Listen()
    assert player.step(first) == 0.0
    for pong in ([b"pong", b""], b"PONG", ErrorReply("NOPERM", "no ping")):
        assert steps.send(None) == Listen(pings=True)
        assert steps.send(pong) == Listen()
    assert steps.send(None) == Listen(pings=True)
    assert steps.send(None).pause_s


def test_a_lost_connection_is_made_again_after_longer_and_longer_pauses(player: Player) -> None:
    steps = listen(player.turns)
    next(steps)
    pauses = [steps.send(ConnectionLost("cut", sent=False)).pause_s or 0.0 for _ in range(2000)]
    assert 0.02 <= pauses[0] <= 0.04
    assert all(0.5 <= pause <= 1.0 for pause in pauses[10:])
    assert steps.send(ErrorReply("LOADING", "soon")).pause_s
    assert back_off_s(5000) == 1.0


@pytest.mark.parametrize("error", [ErrorReply("NOPERM", "no"), ErrorReply("ERR", "unknown command 'SUBSCRIBE'")])
def test_a_user_that_may_not_subscribe_is_told_once(player: Player, error: ErrorReply) -> None:
    steps = listen(player.turns)
    next(steps)
    with pytest.raises(StopIteration, match="cannot listen"):
        steps.send(error)


class Waiters:
    """Threads that wait by a store, or by a store for asyncio: the first look takes what `push` puts there."""

    def __init__(self, face: str, url: str, namespace: str, **options: Any) -> None:
        self.store = open_store(face, url, namespace, **options)
        self.key = f"{{{namespace}:0}}:stub"
        self.channel = f"{{{namespace}}}:due"
        self.looks = 0
        self.error: Exception | None = None
        self._pool = ThreadPoolExecutor(64)
        # Writes with its own connection.
        self._other = open_store("sync", url.partition("&username")[0], namespace)

    def look(self) -> Operation[tuple[list[bytes], float | None]]:
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
            found = yield from ask(key_command("LPOP", self.key))
        finally:
            # A look counts once it has its reply: `settle` waits for that.
            self.looks += 1
        return [] if found is None else [found], None

    def wait(self, wait_s: float = LONG_S, *queues: str) -> "Future[list[bytes]]":
        operation = wait_for_due(self.store.context, queues or ("orders",), wait_s, self.look)
        return self._pool.submit(self.store.run, operation, "test")

    def settle(self, looks: int = 2) -> None:
        """Wait for the first look, and for the look on the subscription."""
        wait_until(lambda: self.looks >= looks, "the looks")

    def push(self, *values: str) -> None:
        self._other.run(ask(key_command("RPUSH", self.key, *values)), "test")

    def hint(self, queue: str = "orders") -> None:
        self._other.run(ask(key_command("PUBLISH", self.channel, f"0 {queue}")), "test")

    def close(self) -> None:
        self.store.close()
        self._other.close()
        self._pool.shutdown()


@pytest.fixture
def rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a hint, nobody looks."""
    monkeypatch.setattr(hints, "_LOOK_S", LONG_S)


@pytest.fixture
def make_waiters(namespace: str) -> Iterator[Callable[..., Waiters]]:
    made: list[Waiters] = []

    def make(face: str, url: str, **options: Any) -> Waiters:
        made.append(Waiters(face, url, namespace, **options))
        return made[-1]

    yield make
    for waiters in made:
        waiters.close()


def wait_for_bus(nodes: list[RunningServer], channel: str) -> None:
    """Wait until each node of a new cluster has the messages of each other one."""
    for listening in nodes:
        with listening.client() as one, one.pubsub(ignore_subscribe_messages=True) as subscription:
            subscription.subscribe(channel)
            subscription.get_message(timeout=LONG_S)
            for sending in nodes:
                with sending.client() as other:

                    def passes(other: redis.Redis = other, port: str = str(sending.port)) -> bool:
                        other.publish(channel, port)
                        message = subscription.get_message(timeout=0.1)
                        return message is not None and message["data"] == port.encode()

                    wait_until(passes, "a message from another node")


@pytest.fixture(params=["memory", "valkey", "redis_6_2", "cluster_nodes"])
def url(request: pytest.FixtureRequest, namespace: str) -> str:
    if request.param == "cluster_nodes":
        wait_for_bus(request.getfixturevalue("cluster_nodes"), "bus")
    return url_on(request, request.param, namespace)


@pytest.fixture(params=["sync", "asyncio"])
def face(request: pytest.FixtureRequest) -> str:
    return request.param


def subscribers(server: RunningServer, channel: str) -> int:
    with server.client() as client:
        return int(client.pubsub_numsub(channel)[0][1])


@pytest.mark.usefixtures("rare")
def test_a_hint_ends_a_wait(make_waiters: Callable[..., Waiters], face: str, url: str) -> None:
    waiters = make_waiters(face, url)
    waiting = waiters.wait()
    waiters.settle()
    waiters.hint("others")
    waiters.push("one")
    waiters.hint()
    assert waiting.result() == [b"one"]
    assert waiters.looks == 3
    # The next wait uses the same listener: there is no subscription to look for.
    waiting = waiters.wait()
    waiters.settle(4)
    waiters.push("two")
    waiters.hint()
    assert waiting.result() == [b"two"]
    assert waiters.looks == 5


@pytest.mark.usefixtures("rare")
@pytest.mark.parametrize("protocol", [2, 3])
def test_many_waits_share_a_connection_and_looks(
    make_waiters: Callable[..., Waiters], face: str, valkey: RunningServer, protocol: int
) -> None:
    waiters = make_waiters(face, valkey.url(protocol))
    waiting = [waiters.wait() for _ in range(50)]
    waiters.settle()
    assert subscribers(valkey, waiters.channel) == 1
    waiters.push(*map(str, range(49)))
    waiters.hint()
    wait_until(lambda: sum(one.done() for one in waiting) == 49, "all but one")
    waiters.settle(52)
    assert waiters.looks == 52, "the last one looks, too, as there may be more"
    (left,) = [one for one in waiting if not one.done()]
    waiters.push("last")
    waiters.hint()
    assert left.result() == [b"last"]
    assert sorted(one.result()[0] for one in waiting) == sorted([b"last", *(b"%d" % n for n in range(49))])


def test_a_lost_hint_costs_a_look(make_waiters: Callable[..., Waiters], face: str, url: str) -> None:
    waiters = make_waiters(face, url)
    waiting = waiters.wait()
    waiters.settle()
    looks = waiters.looks
    waiters.push("one")
    assert waiting.result() == [b"one"]
    assert waiters.looks <= looks + 2


@pytest.mark.usefixtures("rare")
def test_waits_end_in_time_without_a_look(make_waiters: Callable[..., Waiters], face: str, url: str) -> None:
    waiters = make_waiters(face, url)
    assert [one.result() for one in [waiters.wait(0.3) for _ in range(20)]] == [[]] * 20
    assert waiters.looks <= 2
    looks = waiters.looks
    waiters.push("one")
    assert waiters.wait(0.0).result() == [b"one"]
    assert waiters.looks == looks + 1, "without a wait, it always looks"


@pytest.mark.usefixtures("rare")
def test_who_fails_passes_the_turn_on(make_waiters: Callable[..., Waiters], face: str, valkey: RunningServer) -> None:
    waiters = make_waiters(face, valkey.url())
    first = waiters.wait()
    waiters.settle()
    second = waiters.wait()
    waiters.error = ZeroDivisionError()
    waiters.push("one")
    waiters.hint()
    with pytest.raises(ZeroDivisionError):
        first.result()
    assert second.result() == [b"one"]


@pytest.mark.usefixtures("rare")
def test_after_a_lost_connection_the_store_looks(
    make_waiters: Callable[..., Waiters], face: str, valkey: RunningServer
) -> None:
    waiters = make_waiters(face, valkey.url())
    waiting = waiters.wait()
    waiters.settle()
    waiters.push("one")
    with valkey.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    assert waiting.result() == [b"one"]


@pytest.mark.usefixtures("rare")
def test_after_a_restart_of_the_server_hints_come_again(
    make_waiters: Callable[..., Waiters], face: str, tmp_path: Path
) -> None:
    with servers.running(servers.valkey_program(), tmp_path) as server:
        waiters = make_waiters(face, server.url())
        waiting = waiters.wait()
        waiters.settle()
        server.kill()
        server.restart()
        wait_until(lambda: subscribers(server, waiters.channel) == 1, "the subscription")
        waiters.settle(3)
        waiters.push("one")
        waiters.hint()
        assert waiting.result() == [b"one"]


@pytest.mark.usefixtures("rare")
def test_in_a_cluster_another_node_serves_when_one_fails(
    make_waiters: Callable[..., Waiters], face: str, tmp_path: Path
) -> None:
    with servers.cluster(servers.valkey_program(), tmp_path, "--cluster-require-full-coverage", "no") as nodes:
        wait_for_bus(nodes, "bus")
        waiters = make_waiters(face, servers.cluster_url(nodes))
        waiting = waiters.wait()
        waiters.settle()
        with nodes[0].client() as client:
            slot = client.execute_command("CLUSTER", "KEYSLOT", waiters.key)
        holder = nodes[min(slot // (16384 // 3), 2)]
        others = [node for node in nodes if node is not holder]
        with holder.client() as client:

            def is_elsewhere() -> bool:
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                return any(subscribers(node, waiters.channel) for node in others)

            wait_until(is_elsewhere, "a subscription at a node without the data")
            (used,) = [node for node in others if subscribers(node, waiters.channel)]
            used.kill()
            wait_until(
                lambda: any(subscribers(node, waiters.channel) for node in nodes if node is not used),
                "the subscription at another node",
            )
            # (Not by a store, which would ask the failed node for the settings of the namespace.)
            client.rpush(waiters.key, "one")
            client.publish(waiters.channel, "0 orders")
            assert waiting.result() == [b"one"]


def fails_over(sentinel: redis.Redis) -> bool:
    """Did a Sentinel begin a failover? It cannot before it knows that the replica is fit."""
    try:
        return bool(sentinel.execute_command("SENTINEL", "FAILOVER", "shop"))
    except redis.ResponseError:
        return False


@pytest.mark.usefixtures("rare")
def test_after_a_failover_hints_come_from_the_new_primary(
    make_waiters: Callable[..., Waiters], face: str, tmp_path: Path
) -> None:
    ports, program = servers.free_ports(2), servers.valkey_program()
    with (
        servers.running(program, tmp_path / "one", port=ports[0]) as one,
        servers.running(program, tmp_path / "two", *servers.following(one), port=ports[1]) as two,
    ):
        wait_until(lambda: servers.follows(two), "the replica")
        with servers.sentinel(program, tmp_path / "sentinel", "shop", one, "failover-timeout 2000") as port:
            waiters = make_waiters(face, f"redis+sentinel://127.0.0.1:{port}/shop")
            waiting = waiters.wait()
            waiters.settle()
            with redis.Redis(port=port) as sentinel, two.client() as client:
                wait_until(lambda: fails_over(sentinel), "the Sentinel to begin")
                wait_until(lambda: client.info("replication")["role"] == "master", "the failover")
            one.kill()
            wait_until(lambda: subscribers(two, waiters.channel) == 1, "the subscription at the new primary")
            waiters.push("one")
            waiters.hint()
            assert waiting.result() == [b"one"]


@pytest.mark.parametrize("rule", ["resetchannels", "-subscribe"])
def test_without_the_permission_waits_look_each_second(
    make_waiters: Callable[..., Waiters],
    face: str,
    valkey: RunningServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    rule: str,
) -> None:
    monkeypatch.setattr(hints, "_LOOK_S", 0.05)
    with valkey.client() as admin, caplog.at_level(logging.WARNING, "runic_redis"):
        admin.execute_command("ACL", "SETUSER", "deaf", "on", ">s3cret", "~*", "&*", "+@all", rule)
        waiters = make_waiters(face, f"{valkey.url()}&username=deaf&password=s3cret")
        waiting = waiters.wait()
        waiters.settle(5)
        waiters.push("one")
        assert waiting.result() == [b"one"]
        assert waiters.wait(0.3).result() == []
        admin.execute_command("ACL", "DELUSER", "deaf")
    assert sum("cannot listen" in record.message for record in caplog.records) == 1


def test_a_server_that_is_gone_ends_a_wait(make_waiters: Callable[..., Waiters], face: str, tmp_path: Path) -> None:
    with servers.running(servers.valkey_program(), tmp_path) as server:
        waiters = make_waiters(face, server.url(), deadline_s=0.5)
        waiting = [waiters.wait(2.0) for _ in range(5)]
        waiters.settle()
        server.kill()
        ends = [one.exception() for one in waiting]
        assert any(isinstance(end, StoreUnavailable) for end in ends)


@pytest.mark.usefixtures("rare")
def test_a_pool_of_one_connection_is_left_to_commands(valkey: RunningServer, namespace: str) -> None:
    pool = redis.ConnectionPool(
        connection_class=redis.UnixDomainSocketConnection, path=str(valkey.socket), max_connections=1
    )
    with RedisStore(redis.Redis.from_pool(pool), namespace=namespace) as store:
        looks = []

        def look() -> Operation[tuple[list[int], None]]:
            looks.append((yield from ask(key_command("GET", "{none}"))))
            return [], None

        assert store.run(wait_for_due(store.context, ["orders"], 0.3, look), "test") == []
        assert looks == [None]
    pool.disconnect()


@pytest.mark.usefixtures("rare")
def test_closing_the_store_ends_waits(make_waiters: Callable[..., Waiters], face: str, url: str) -> None:
    waiters = make_waiters(face, url)
    waiting = [waiters.wait() for _ in range(3)] + [waiters.wait(LONG_S, "other")]
    waiters.settle()
    waiters.store.close()
    for one in waiting:
        with pytest.raises(StoreError, match="closed"):
            one.result()


@pytest.mark.usefixtures("rare")
def test_a_closed_store_does_not_listen(
    make_waiters: Callable[..., Waiters], face: str, valkey: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runic_redis.drivers.sync_waits.SILENCE_S", LONG_S)
    waiters = make_waiters(face, valkey.url())
    waiting = waiters.wait()
    waiters.settle()
    waiters.store.close()
    assert isinstance(waiting.exception(), StoreError)
    wait_until(lambda: not subscribers(valkey, waiters.channel), "the connection to be closed")


@pytest.mark.usefixtures("rare")
def test_a_store_that_waits_for_nothing_stops_listening(
    make_waiters: Callable[..., Waiters], face: str, valkey: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "_LINGER_S", 0.0)
    for driver in ("sync", "aio"):
        monkeypatch.setattr(f"runic_redis.drivers.{driver}_waits.SILENCE_S", 0.05)
    waiters = make_waiters(face, valkey.url())
    waiting = waiters.wait(LONG_S, "a")
    waiters.settle()
    waiters.push("one")
    waiters.hint("a")
    assert waiting.result() == [b"one"]
    wait_until(lambda: not subscribers(valkey, waiters.channel), "the listener to end")
    waiting = waiters.wait(LONG_S, "a")
    waiters.settle(5)
    waiters.push("two")
    waiters.hint("a")
    assert waiting.result() == [b"two"]


def test_a_store_that_nobody_waits_by_does_not_listen(
    make_waiters: Callable[..., Waiters], face: str, valkey: RunningServer
) -> None:
    waiters = make_waiters(face, valkey.url())
    assert waiters.wait(0.0).result() == []
    assert subscribers(valkey, waiters.channel) == 0


@pytest.mark.usefixtures("rare")
def test_a_cancelled_wait_passes_the_turn_on(valkey: RunningServer, namespace: str) -> None:
    looking, go_on = asyncio.Event(), asyncio.Event()
    looks = []

    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace) as store:

            def look() -> Operation[tuple[list[int], None]]:
                looks.append((yield from ask(key_command("LPOP", "{stub}"))))
                return [1] if len(looks) > 3 else [], None

            def wait() -> asyncio.Task[list[int]]:
                return asyncio.create_task(store.run(wait_for_due(store.context, ["orders"], LONG_S, look), "test"))

            # One is cancelled while it waits, the next during its look.
            tasks = [wait() for _ in range(3)]
            while len(looks) < 2:
                await asyncio.sleep(0)
            tasks[0].cancel()
            await asyncio.gather(tasks[0], return_exceptions=True)
            server = store._sender._server  # type: ignore[union-attr]
            send = server.send

            async def hang(calls: Any, **options: Any) -> Any:
                looking.set()
                await go_on.wait()
                return await send(calls, **options)

            server.send = hang
            store._sender.waits.turns.hint("orders")  # type: ignore[union-attr]
            await looking.wait()
            tasks[1].cancel()
            await asyncio.gather(tasks[1], return_exceptions=True)
            go_on.set()
            looks.extend([None, None])
            assert await tasks[2] == [1]
            assert [task.cancelled() for task in tasks] == [True, True, False]

    asyncio.run(main())


@pytest.mark.usefixtures("rare")
def test_an_interrupted_wait_passes_the_turn_on(valkey: RunningServer, namespace: str) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    waiters = Waiters("sync", valkey.url(), namespace)
    try:
        others: list[Future[list[bytes]]] = []

        def disturb() -> None:
            waiters.settle()
            others.append(waiters.wait())
            line = next(iter(waiters.store._sender.waits.turns._lines.values()))
            wait_until(lambda: len(line.places) == 2, "the other one")
            os.kill(os.getpid(), signal.SIGUSR1)

        disturbing = threading.Thread(target=disturb)
        disturbing.start()
        with pytest.raises(Interrupted) as interrupted:
            waiters.store.run(wait_for_due(waiters.store.context, ["orders"], LONG_S, waiters.look), "test")
        disturbing.join()
        waiters.push("one")
        waiters.hint()
        assert others[0].result() == [b"one"]
        del interrupted
    finally:
        signal.signal(signal.SIGUSR1, before)
        waiters.close()


@pytest.mark.usefixtures("rare")
def test_a_forked_process_has_its_own_listener(valkey: RunningServer, namespace: str) -> None:
    waiters = Waiters("sync", valkey.url(), namespace)
    waiting = waiters.wait()
    waiters.settle()
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.alarm(60)
            # In the child, nobody waits and nobody listens.
            assert waiters.store._sender.waits.listener is None
            assert waiters.store.run(wait_for_due(waiters.store.context, ["orders"], LONG_S, waiters.look), "test")
            code = 0
        finally:
            os._exit(code)
    wait_until(lambda: subscribers(valkey, waiters.channel) == 2, "the child to listen")
    # Its subscription counts as a hint: it finds this by that, or by the message.
    waiters.push("one", "two")
    waiters.hint()
    assert os.waitpid(child, 0)[1] == 0
    assert waiting.result() in ([b"one"], [b"two"])
    waiters.close()


def test_what_is_due_later_is_found_then(valkey: RunningServer, namespace: str) -> None:
    """No hint comes: a look says when the next is due."""
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        due_s = time.monotonic() + 0.2
        looks = []

        def look() -> Operation[tuple[list[str], float | None]]:
            yield from ask(key_command("GET", "{none}"))
            looks.append(time.monotonic())
            left_s = due_s - looks[-1]
            return ([], left_s) if left_s > 0 else (["it"], None)

        assert store.run(wait_for_due(store.context, ["orders"], LONG_S, look), "test") == ["it"]
        assert looks[-1] >= due_s
        assert len(looks) <= 4, "one at first, one on the subscription, one when it is due; clocks are rounded"


def test_a_wait_without_limit_ends_with_its_time(player: Player) -> None:
    first = player.join(math.inf)
    assert [player.step(first) for _ in range(2)] == [0.0, 1.0]
    assert player.step(first, LONG_S) == 0.0
