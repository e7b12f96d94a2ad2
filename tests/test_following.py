"""Following many workflows in asyncio: blocking reads are shared, and one follower's problem affects no other."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from runic_redis import (
    AsyncRedisStore,
    ConfigurationError,
    DecodeError,
    RedisStore,
    StoreError,
    StoreUnavailable,
    WorkflowNotFound,
)
from runic_redis.protocol.effects import ErrorReply, Unanswered
from runic_redis.protocol.following import Follower, follow
from runic_redis.protocol.rounds import Ticket
from tests import servers
from tests.servers import RunningServer


class Player:
    """A driver whose clock and replies the test decides."""

    def __init__(self) -> None:
        self.follower = Follower()
        self.now_s = 0.0

    def want(self, wait_s: float = 1.0, **after: str) -> Ticket:
        batch = follow([{f"{{{key}}}": entry_id for key, entry_id in after.items()}], wait_s)
        ticket = Ticket(batch, self.now_s)
        self.follower.add(ticket, batch)
        return ticket

    def read(self, *replies: Any, after_s: float = 0.0) -> list[Sequence[Any]]:
        """Make the next read with these replies. Return the commands that were sent."""
        sent = [command.args for command in self.follower.compose(self.now_s)]
        self.now_s += after_s
        self.follower.take(replies, self.now_s)
        return sent


@pytest.fixture
def player() -> Player:
    return Player()


def brought(**entries: int) -> list[Any]:
    return [(f"{{{key}}}".encode(), [(b"%d-0" % cursor, [])]) for key, cursor in entries.items()]


def test_one_read_serves_many(player: Player) -> None:
    one, other = player.want(a="0-9"), player.want(b="3-9")
    assert player.read(brought(b=4)) == [("XREAD", "COUNT", "32", "BLOCK", "50", "STREAMS", "{a}", "{b}", "0-9", "3-9")]
    assert other.replies == [brought(b=4)]
    assert one.missing
    other = player.want(b="4-9")
    assert "BLOCK" not in player.read(None)[0], "waited although more entries can be there"
    assert "BLOCK" in player.read(dict(brought(a=1, b=5)))[0]
    assert (one.replies, other.replies) == ([brought(a=1)], [brought(b=5)])
    assert player.read() == []


def test_no_follower_waits_longer_than_asked(player: Player) -> None:
    soon, later = player.want(0.02, a="0-0"), player.want(b="0-0")
    assert player.read(None, after_s=0.02)[0][4] == "20"
    assert soon.replies == [None]
    assert later.missing
    assert player.read(None, after_s=1.0)[0][4] == "50"
    assert later.replies == [None]


def test_a_follower_that_was_not_read_for_gets_no_reply(player: Player) -> None:
    player.want(a="0-0")
    sent = player.follower.compose(0.0)
    late = player.want(0.01, b="0-0")
    player.follower.take([None] * len(sent), 5.0)
    assert late.missing
    player.now_s = 5.0
    player.read(None)
    assert late.replies == [None]


def test_a_stream_is_read_from_each_place(player: Player) -> None:
    tickets = [player.want(a="7-0", b="1-0"), player.want(a="2-0"), player.want(a="7-0")]
    assert [args[-4:] for args in player.read(None, brought(a=3))] == [
        ("{a}", "{b}", "7-0", "1-0"),
        ("32", "STREAMS", "{a}", "2-0"),
    ]
    assert [ticket.missing for ticket in tickets] == [1, 0, 1]
    player.read(brought(a=8))
    assert [ticket.replies for ticket in tickets] == [[brought(a=8)], [brought(a=3)], [brought(a=8)]]


def test_an_error_of_one_is_its_own(player: Player) -> None:
    sound, foreign, gone = player.want(a="0-0"), player.want(b="0-0"), player.want(c="0-0")
    wrong = ErrorReply("WRONGTYPE", "no")
    player.read(wrong, after_s=2.0)
    player.follower.remove(gone)
    assert [args[3:] for args in player.read(brought(a=1), wrong)] == [
        ("STREAMS", "{a}", "0-0"),
        ("STREAMS", "{b}", "0-0"),
    ]
    assert (sound.replies, foreign.replies) == ([brought(a=1)], [wrong])


def test_where_slots_matter_each_is_waited_for_in_its_turn(player: Player) -> None:
    player.want(9.0, a="0-0")
    player.want(9.0, b="0-0")
    soon = player.want(1.0, a="0-0")
    player.read(ErrorReply("CROSSSLOT", "no"), after_s=2.0)
    assert soon.missing
    player.read(None, None)
    assert soon.replies == [None]
    first, second = player.read(None, None), player.read(None, None)
    assert [args[-2] for args in first] != [args[-2] for args in second]
    for args in (first, second):
        assert ["BLOCK" in one for one in args] == [True, False]


def test_without_an_answer_all_are_told(player: Player) -> None:
    tickets = [player.want(a="0-0"), player.want(b="0-0")]
    lost = Unanswered("cut", 30.0, unsure=False)
    player.read(lost)
    assert [ticket.replies for ticket in tickets] == [[lost], [lost]]


def connections(server: RunningServer) -> int:
    with server.client() as client:
        return len(client.client_list()) - 1


async def opened(tails: Sequence[Any]) -> list[Any]:
    """Return the first event of each tail."""
    return list(await asyncio.gather(*map(anext, tails)))


@pytest.mark.parametrize("protocol", [2, 3])
def test_many_tails_share_a_few_connections(tmp_path: Path, protocol: int) -> None:
    ids = [f"order-{n}" for n in range(120)]

    async def main(server: RunningServer) -> None:
        async with AsyncRedisStore.from_url(server.url(protocol), deadline_s=20) as store:
            await asyncio.gather(*(store.append(one, [{"n": 1}]) for one in ids))
            tails = [store.tail(one) for one in ids]
            await opened(tails)
            coming = [asyncio.create_task(anext(tail)) for tail in tails]
            servers_connections = await asyncio.to_thread(connections, server)
            assert servers_connections < 50
            # One tail is cancelled and two fail alone. Each other tail gets its event.
            coming[-1].cancel()
            await store.delete(ids[-2])
            with pytest.raises(WorkflowNotFound):
                await coming[-2]
            with server.client() as client:
                key = store.context.keys.workflow(ids[-3]).events
                client.delete(key)
                client.set(key, "foreign")
            with pytest.raises((DecodeError, StoreError)):
                await coming[-3]
            await asyncio.gather(*(store.append(one, [{"n": 2}]) for one in ids[:-3]))
            assert [record.event["n"] for record in await asyncio.gather(*coming[:-3])] == [2] * len(ids[:-3])
            assert await asyncio.to_thread(connections, server) < 50
            # A tail that waits when the store is closed raises an error.
            last = [asyncio.create_task(anext(tail)) for tail in tails[:-3]]
            await asyncio.sleep(0)
        for result in await asyncio.gather(*last, return_exceptions=True):
            assert isinstance(result, StoreError)

    with servers.running(servers.valkey_program(), tmp_path) as server:
        asyncio.run(main(server))


def test_tails_of_a_server_that_is_gone_are_told(tmp_path: Path) -> None:
    async def main(server: RunningServer) -> None:
        async with AsyncRedisStore.from_url(server.url(), deadline_s=0.5) as store:
            tails = [store.tail(f"order-{n}") for n in range(30)]
            coming = [asyncio.create_task(anext(tail)) for tail in tails]
            await store.append("order-0", [{}])
            await coming[0]
            server.kill()
            results = await asyncio.gather(*coming[1:], return_exceptions=True)
            assert {type(result) for result in results} == {StoreUnavailable}

    with servers.running(servers.valkey_program(), tmp_path) as server:
        asyncio.run(main(server))


def test_in_a_cluster_many_tails_share_a_few_connections(cluster_nodes: list[RunningServer], namespace: str) -> None:
    ids = [f"order-{n}" for n in range(60)]

    async def main() -> None:
        async with AsyncRedisStore.from_url(servers.cluster_url(cluster_nodes), namespace=namespace) as store:
            before = sum(map(connections, cluster_nodes))
            await asyncio.gather(*(store.append(one, [{"n": 1}]) for one in ids))
            tails = [store.tail(one) for one in ids]
            await opened(tails)
            coming = [asyncio.create_task(anext(tail)) for tail in tails]
            await asyncio.gather(*(store.append(one, [{"n": 2}]) for one in ids))
            assert [record.event["n"] for record in await asyncio.gather(*coming)] == [2] * len(ids)
            assert sum(map(connections, cluster_nodes)) - before < 50

    asyncio.run(main())


def test_a_node_that_is_silent_holds_up_no_tail_of_another(tmp_path: Path) -> None:
    async def main(nodes: list[RunningServer]) -> None:
        async with AsyncRedisStore.from_url(servers.cluster_url(nodes), deadline_s=60) as store:
            assert store._sender is not None
            store._sender._most_apart = 0
            ids = [f"order-{n}" for n in range(20)]
            await asyncio.gather(*(store.append(one, [{"n": 1}]) for one in ids))
            tails = {one: store.tail(one) for one in ids}
            await opened(list(tails.values()))
            port = f":{nodes[0].port}"
            keys = store.context.keys
            there = [one for one in ids if store._sender._server.find_node(keys.workflow(one).events).endswith(port)]
            assert 0 < len(there) < len(ids)
            coming = {one: asyncio.create_task(anext(tail)) for one, tail in tails.items()}
            nodes[1].stop()
            try:
                await asyncio.gather(*(store.append(one, [{"n": 2}]) for one in there))
                async with asyncio.timeout(30):
                    await asyncio.gather(*(coming[one] for one in there))
            finally:
                nodes[1].go_on()

    with servers.cluster(servers.valkey_program(), tmp_path, "--cluster-node-timeout", "60000", primaries=2) as nodes:
        asyncio.run(main(nodes))


def test_many_half_read_streams_share_a_few_connections(tmp_path: Path) -> None:
    ids = [f"order-{n}" for n in range(120)]

    async def main(server: RunningServer) -> None:
        async with AsyncRedisStore.from_url(server.url()) as store:
            for n in range(12):
                await asyncio.gather(*(store.append(one, [{"n": n}]) for one in ids))
            streams = [store.stream(one) for one in ids]
            for n in range(10):
                assert [event["n"] for event in await opened(streams)] == [n] * len(ids)
            assert await asyncio.to_thread(connections, server) < 50

    with servers.running(servers.valkey_program(), tmp_path) as server:
        asyncio.run(main(server))


def test_a_tail_whose_page_does_not_come_raises(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace, deadline_s=0.1) as store:
            assert store._sender is not None
            store._sender._pages = asyncio.Semaphore(0)
            for n in range(12):
                await store.append("order", [{"n": n}])
            with pytest.raises(StoreUnavailable, match="pages"):
                assert [event async for event in store.stream("order")]

    asyncio.run(main())


def test_an_exhausted_pool_of_the_user_is_reported_at_once(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        pool = redis.asyncio.ConnectionPool(
            connection_class=redis.asyncio.UnixDomainSocketConnection, path=str(valkey.socket), max_connections=2
        )
        client = redis.asyncio.Redis.from_pool(pool)
        async with AsyncRedisStore(client, namespace=namespace) as store:
            taken = [await pool.get_connection() for _ in range(2)]
            with pytest.raises(ConfigurationError, match="all its 2 connections"):
                await store.append("order", [{}])
            for connection in taken:
                await pool.release(connection)
            assert await store.append("order", [{}]) == 1
        await client.aclose()

    asyncio.run(main())


def test_a_small_pool_of_the_user_is_enough(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        pool = redis.asyncio.ConnectionPool(
            connection_class=redis.asyncio.UnixDomainSocketConnection, path=str(valkey.socket), max_connections=8
        )
        async with AsyncRedisStore(redis.asyncio.Redis.from_pool(pool), namespace=namespace) as store:
            ids = [f"order-{n}" for n in range(30)]
            for n in range(12):
                await asyncio.gather(*(store.append(one, [{"n": n}]) for one in ids))
            coming = [asyncio.create_task(anext(store.tail(one, after=12))) for one in ids]
            streams = [store.stream(one) for one in ids]
            for n in range(12):
                assert [event["n"] for event in await opened(streams)] == [n] * len(ids)
            await asyncio.gather(*(store.append(one, [{"n": 12}]) for one in ids))
            assert [record.event["n"] for record in await asyncio.gather(*coming)] == [12] * len(ids)
        await pool.aclose()

    asyncio.run(main())


def test_a_tail_reads_again_what_may_be_of_an_earlier_life(valkey: RunningServer, namespace: str) -> None:
    """The entries were read before the tail saw the workflow for the first time. Meanwhile another one was made."""
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        tail = store.tail("order")
        store.append("order", [{"life": 1}])
        page = tail._tailer.next_page()
        batch = next(page)
        answers = store._sender.ask(batch)
        store.delete("order")
        store.append("order", [{"life": 2}])
        with pytest.raises(StopIteration) as ended:
            while True:
                answers = store._sender.ask(page.send(answers))
        ((_, record),) = ended.value.value
        assert record.event == {"life": 2}
        tail.close()
