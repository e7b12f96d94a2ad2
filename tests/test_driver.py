"""The driver on real connections: cut at every point, interrupted, and without retries below the queue."""

import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from runic_redis import ConfigurationError, InvalidType, RedisStore, StoreUnavailable
from runic_redis.drivers import sync
from runic_redis.drivers.sync_servers import SingleServer
from runic_redis.protocol.effects import Batch, Command, ErrorReply
from runic_redis.protocol.queue import Queue
from runic_redis.protocol.rounds import Ticket
from runic_redis.testing.examples import numbered
from tests.proxy import Fault, Proxy, proxied
from tests.servers import RunningServer


@pytest.fixture
def proxy(valkey: RunningServer) -> Iterator[Proxy]:
    with proxied(valkey) as proxy:
        yield proxy


def test_a_connection_may_be_cut_at_any_byte_of_the_request(proxy: Proxy, namespace: str) -> None:
    with RedisStore.from_url(f"redis://127.0.0.1:{proxy.port}", namespace=namespace) as store:
        store.append("order-1", numbered(1))
        proxy.seen.clear()
        store.append("order-1", numbered(1))
        size = len(proxy.seen)
        count = 2
        for at in range(0, size, 9):
            proxy.arm(Fault("request", at))
            count += 1
            assert store.append("order-1", numbered(1)) == count, f"cut at byte {at} of {size}"
        assert len(list(store.stream("order-1"))) == count


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_connection_may_be_cut_at_any_byte_of_the_reply(proxy: Proxy, namespace: str, protocol: int) -> None:
    url = f"redis://127.0.0.1:{proxy.port}?protocol={protocol}"
    with RedisStore.from_url(url, namespace=namespace) as store:
        events = numbered(30)
        for count in range(1, 30):
            store.append("order-1", numbered(1, count))
        for at in range(4):
            proxy.arm(Fault("reply", at))
            assert store.append("order-1", numbered(1, 30 + at)) == 30 + at
        for at in range(0, 2000, 97):
            proxy.arm(Fault("reply", at))
            assert list(store.stream("order-1", until=30)) == events


class Interrupted(BaseException):
    """What the signal handler raises: like KeyboardInterrupt, no Exception, which would be told as the value's own."""


def test_an_interrupted_call_leaves_no_half_read_connection(proxy: Proxy, namespace: str) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted

    def load_until_interrupted(store: RedisStore, after_s: float) -> None:
        # By processor time: the clock that pytest-timeout uses is another.
        signal.setitimer(signal.ITIMER_PROF, after_s)
        while True:
            assert store.load_fact("a") == "A" * 100

    before = signal.signal(signal.SIGPROF, interrupt)
    try:
        with RedisStore.from_url(f"redis://127.0.0.1:{proxy.port}", namespace=namespace) as store:
            store.save_facts({"a": "A" * 100, "b": "B" * 100})
            for number in range(60):
                with pytest.raises(Interrupted):
                    load_until_interrupted(store, 0.0005 + number * 0.0001)
                assert store.load_fact("b") == "B" * 100
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class InterruptedConnection:
    """A client, its pool and a connection that is interrupted between sending and reading."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.connection_pool = self

    def get_connection(self) -> "InterruptedConnection":
        return self

    def send_packed_command(self, _: Any, **__: Any) -> None:
        self.events.append("sent")

    def read_response(self) -> None:
        raise KeyboardInterrupt

    def disconnect(self) -> None:
        self.events.append("disconnected")

    def release(self, _: object) -> None:
        self.events.append("released")


def test_an_interrupted_connection_is_closed_before_it_goes_back_to_the_pool() -> None:
    pool = InterruptedConnection()
    queue = Queue(30.0)
    queue.add(Ticket(Batch([Command(("GET", "k"), "k")]), 0.0), [0])
    pending = SingleServer(pool, owned=False).begin(queue.next_round(0.0))
    with pytest.raises(KeyboardInterrupt):
        pending.finish()
    assert pool.events == ["sent", "disconnected", "released"]


def test_an_interrupt_between_sending_and_waiting_gives_the_connection_back(
    valkey: RunningServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with (
        closing(redis.Redis.from_url(valkey.url(), max_connections=1)) as client,
        RedisStore(client, namespace=namespace, deadline_s=1.0) as store,
    ):
        store.append("w", numbered(1))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(sync, "_ThreadTicket", interrupt)
            store.append("w", numbered(1))
        assert store.append("w", numbered(1)) > 1


def scripts_seen(proxy: Proxy) -> int:
    return bytes(proxy.seen).count(b"EVALSHA")


def test_a_client_that_resends_by_itself_does_not_when_the_store_uses_it(proxy: Proxy, namespace: str) -> None:
    client = redis.Redis(port=proxy.port, retry=Retry(ConstantBackoff(0), 10))
    retry, options = client.get_retry(), dict(client.get_connection_kwargs())
    # The client by itself: one increment, cut before its reply, is carried out again and again.
    client.set("resent", 0)
    proxy.arm(Fault("reply", 0))
    client.incr("resent")
    assert int(client.get("resent")) == 2

    store = RedisStore(client, namespace=namespace)
    store.append("order-1", numbered(1))
    proxy.seen.clear()
    proxy.arm(Fault("reply", 0))
    assert store.append("order-1", numbered(1)) == 2
    assert scripts_seen(proxy) == 2, "the first try and the store's own retry"
    assert store.cursor("order-1") == 2
    assert client.get_retry() is retry
    assert dict(client.get_connection_kwargs()) == options
    store.close()
    assert client.ping(), "the client is the caller's, and stays open"
    client.close()


def test_every_kind_of_client_is_used(
    valkey: RunningServer, cluster_nodes: list[RunningServer], namespace: str
) -> None:
    clients: list[Any] = [
        valkey.client(),
        valkey.client(single_connection_client=True),
        redis.Redis(connection_pool=redis.BlockingConnectionPool.from_url(valkey.url(), max_connections=2)),
        redis.RedisCluster(host="127.0.0.1", port=cluster_nodes[0].port),
    ]
    for client in clients:
        with client, RedisStore(client, namespace=namespace) as store:
            store.delete("order-1")
            assert store.append("order-1", numbered(2)) == 2
            assert list(store.stream("order-1")) == numbered(2)
            assert "password" not in repr(store)


def test_a_client_that_decodes_responses_is_refused(valkey: RunningServer, cluster_nodes: list[RunningServer]) -> None:
    with valkey.client(decode_responses=True) as client, pytest.raises(ConfigurationError, match="decode_responses"):
        RedisStore(client)
    decoding = redis.RedisCluster(host="127.0.0.1", port=cluster_nodes[0].port, decode_responses=True)
    with decoding as client, pytest.raises(ConfigurationError, match="decode_responses"):
        RedisStore(client)


def test_what_is_no_client_is_refused(valkey: RunningServer) -> None:
    asynchronous = redis.asyncio.Redis(unix_socket_path=str(valkey.socket))
    sentinel = redis.Sentinel([("127.0.0.1", 1)])
    with valkey.client() as client:
        for wrong, message in (
            (asynchronous, "redis.asyncio"),
            (sentinel, "master_for"),
            (client.pipeline(), "not a Pipeline"),
            (client.connection_pool, "not a ConnectionPool"),
            ("redis://localhost", "not a str"),
            (None, "not a NoneType"),
        ):
            with pytest.raises(InvalidType, match=message):
                RedisStore(wrong)
    for watcher in sentinel.sentinels:
        watcher.close()


def test_a_server_that_is_gone_is_unavailable_after_the_deadline(proxy: Proxy, namespace: str) -> None:
    with RedisStore.from_url(f"redis://127.0.0.1:{proxy.port}", namespace=namespace, deadline_s=0.2) as store:
        store.append("order-1", numbered(1))
        proxy.close()
        with pytest.raises(StoreUnavailable, match=r"did not answer for \d"):
            store.append("order-1", numbered(1))


def test_a_store_is_used_by_many_threads_with_few_connections(valkey: RunningServer, namespace: str) -> None:
    url = valkey.url() + "&max_connections=3"
    with RedisStore.from_url(url, namespace=namespace) as store:
        store.append("order-1", numbered(1))
        threads = [threading.Thread(target=store.append, args=("order-1", numbered(1))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.cursor("order-1") == 21


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("OOM command not allowed", "OOM", "command not allowed"),
        ("LEASE_LOST ", "LEASE_LOST", ""),
        ("COMMIT_UNSURE", "COMMIT_UNSURE", ""),
        ("LEASE_LOST @user_script: 1: -OOM x", "LEASE_LOST", "@user_script: 1: -OOM x"),
        ("@user_script: 71: -READONLY You can't write.\r\n", "READONLY", "You can't write."),
        ("Error running script (call to f_0a): @user_script:7: @user_script: 7: -OOM no.", "OOM", "no."),
        ("ERR Error running script (call to f_0a): @user_script:7: @user_script: 7: -OOM no.", "OOM", "no."),
    ],
)
def test_what_redis_6_2_puts_around_an_error_in_a_script_is_taken_off(text: str, code: str, message: str) -> None:
    assert ErrorReply.parse(text) == ErrorReply(code, message)
