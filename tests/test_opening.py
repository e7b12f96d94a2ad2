"""Opening a store: over late or slow networks, and at servers that lack commands or reject writes."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from runic_redis import AsyncRedisStore, ConfigurationError, RedisStore, StoreError, StoreUnavailable
from runic_redis.testing.examples import numbered
from tests import servers
from tests.portal import open_store
from tests.proxy import proxied
from tests.servers import RunningServer

SECRET = "S3cr3t"


@pytest.fixture(params=["sync", "asyncio"])
def face(request: pytest.FixtureRequest) -> str:
    return request.param


@contextmanager
def without(directory: Path, *commands: str) -> Iterator[RunningServer]:
    """Run a server without some commands. Without HELLO, `RunningServer.wait` does not work."""
    (port,) = servers.free_ports(1)
    with servers.running(servers.valkey_program(), directory, port=port) as server:
        server.kill()
        server.start(*(word for command in commands for word in ("--rename-command", command, "")))
        servers.wait_until(partial(pings, server), "it to answer", server.process)
        yield server


def pings(server: RunningServer) -> bool:
    with redis.Redis(port=server.port, protocol=2) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def works(store: Any) -> None:
    assert store.append("order-1", numbered(2)) == 2
    assert list(store.stream("order-1")) == numbered(2)
    store.delete("order-1")


def test_a_server_without_hello_is_spoken_to_in_resp2(tmp_path: Path, namespace: str, face: str) -> None:
    with without(tmp_path, "HELLO") as server:
        plain = f"redis://127.0.0.1:{server.port}"
        with open_store(face, plain, namespace) as store:
            works(store)
        with pytest.raises(ConfigurationError, match="use protocol=2"):
            open_store(face, f"{plain}?protocol=3", namespace)
        with redis.Redis(port=server.port, protocol=3) as client, pytest.raises(ConfigurationError, match="protocol=2"):
            RedisStore(client, namespace=namespace)


def test_no_connection_says_hello_unless_the_url_asks_for_it(
    cluster_nodes: list[RunningServer], tmp_path: Path, namespace: str, face: str
) -> None:
    ports = [node.port for node in cluster_nodes]
    before = [greetings(port) for port in ports]
    with open_store(face, servers.cluster_url(cluster_nodes), namespace) as store:
        works(store)
    assert [greetings(port) for port in ports] == before
    (port,) = servers.free_ports(1)
    with (
        servers.running(servers.valkey_program(), tmp_path / "primary", port=port) as primary,
        servers.sentinel(servers.valkey_program(), tmp_path / "sentinel", "shop", primary) as watcher,
    ):
        before = [greetings(port)]
        with (
            open_store(face, f"redis+sentinel://127.0.0.1:{watcher}/shop", namespace) as store,
            redis.Redis(port=watcher, protocol=2, client_name="asks") as client,
        ):
            works(store)
            theirs = [one for one in client.client_list() if one["lib-name"] and one["name"] != "asks"]
            assert {one["resp"] for one in theirs} == {"2"}
        assert [greetings(port)] == before


def greetings(port: int | None) -> int:
    """Return how often a server received HELLO."""
    with redis.Redis(port=port, protocol=2) as client:
        return int(client.info("commandstats").get("cmdstat_hello", {"calls": 0})["calls"])


def test_a_server_without_evalsha_is_sent_the_scripts(tmp_path: Path, namespace: str, face: str) -> None:
    with without(tmp_path, "EVALSHA") as server, open_store(face, server.url(), namespace) as store:
        works(store)
        works(store)
        with server.client() as client:
            calls = client.info("commandstats")
        assert "cmdstat_eval" in calls
        assert "cmdstat_evalsha" not in calls


def test_a_server_without_scripts_is_not_opened(tmp_path: Path, namespace: str, face: str) -> None:
    with without(tmp_path, "EVALSHA", "EVAL") as server, server.client() as client:
        with pytest.raises(ConfigurationError, match="Scripts are required"):
            open_store(face, server.url(), namespace)
        assert client.dbsize() == 0


def test_opening_does_not_run_the_script_that_it_asks_with(valkey: RunningServer, namespace: str, face: str) -> None:
    with valkey.client() as client:
        before = client.info("memory")["number_of_cached_scripts"], client.acl_log_reset()
        with open_store(face, valkey.url(), namespace):
            pass
        assert (client.info("memory")["number_of_cached_scripts"], True) == before


@pytest.mark.parametrize("kind", ["redis", "cluster"])
def test_opening_waits_for_a_server_that_is_not_there_yet(
    tmp_path: Path, namespace: str, face: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "runic_redis")
    port, bus = servers.free_ports(2)
    options = ("--cluster-enabled", "yes", "--cluster-port", str(bus)) if kind == "cluster" else ()
    url = f"redis+cluster://127.0.0.1:{port}" if kind == "cluster" else f"redis://127.0.0.1:{port}"
    with servers.running(servers.valkey_program(), tmp_path, *options, port=port) as server:
        if kind == "cluster":
            with server.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                servers.wait_until(lambda: servers.knows_cluster(client, 1), "the cluster to agree")
        server.kill()
        with ThreadPoolExecutor(1) as pool:
            opening = pool.submit(open_store, face, url, namespace)
            servers.wait_until(lambda: "Redis fails" in caplog.text, "the first try to fail")
            server.restart()
            with opening.result() as store:
                works(store)


@pytest.mark.parametrize("kind", ["redis", "cluster", "sentinel"])
def test_opening_over_a_silent_network_ends_at_the_deadline(
    valkey: RunningServer, namespace: str, face: str, kind: str
) -> None:
    """Neither the connection's time limit nor that of each step applies."""
    with proxied(valkey) as silent:
        silent.hold()
        url = {
            "redis": f"redis://ada:{SECRET}@127.0.0.1:{silent.port}/1?socket_timeout=60",
            "cluster": f"redis+cluster://ada:{SECRET}@127.0.0.1:{silent.port}?socket_timeout=60",
            "sentinel": f"redis+sentinel://ada:{SECRET}@127.0.0.1:{silent.port}/shop?socket_timeout=60",
        }[kind]
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"cannot be reached: .*not finished after 1\.0 s") as caught:
            open_store(face, url, namespace, deadline_s=0.1)
        assert time.monotonic() - began_s < 30
        assert SECRET not in str(caught.value)
        silent.let_go()


def test_a_file_of_tls_that_does_not_exist_is_an_error_at_once(face: str) -> None:
    with pytest.raises(ConfigurationError, match="ssl_ca_certs names a file that does not exist"):
        open_store(face, "rediss://127.0.0.1:1?ssl_ca_certs=/nowhere/ca.pem", "nowhere")


def test_a_cluster_url_to_a_plain_server_is_an_error_at_once(valkey: RunningServer, tmp_path: Path, face: str) -> None:
    (port,) = servers.free_ports(1)
    with (
        servers.running(servers.valkey_program(), tmp_path, port=port),
        pytest.raises(ConfigurationError, match="not a node of a cluster"),
    ):
        open_store(face, f"redis+cluster://127.0.0.1:{port}", "nowhere")


@pytest.mark.parametrize("secret", [f"{SECRET}\udce9", f"{SECRET}%E9"])
@pytest.mark.parametrize(
    "form", ["redis://u:{}@127.0.0.1:1", "unix:///s?password={}", "redis+sentinel://h/s?sentinel_password={}"]
)
def test_a_url_that_is_not_utf_8_is_an_error_without_it(face: str, form: str, secret: str) -> None:
    with pytest.raises(ConfigurationError, match="not UTF-8") as caught:
        open_store(face, form.format(secret), "nowhere")
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in repr(error)
        error = error.__cause__ or error.__context__


def test_the_command_line_takes_no_url_that_is_not_utf_8() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runic_redis.cli.main", "workflows"],
        env={**os.environb, b"RUNIC_REDIS_URL": b"redis://u:S3cr3t\xe9@127.0.0.1:1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"runic-redis: The URL cannot be used")
    assert done.stderr.count(b"\n") == 1
    assert SECRET.encode() not in done.stdout + done.stderr


def test_without_asyncio_an_asyncio_store_says_what_it_needs() -> None:
    """This is the case under trio. The test steps the coroutine by hand, without an event loop of asyncio."""
    store = AsyncRedisStore.from_url("memory://")
    with pytest.raises(ConfigurationError, match="trio"):
        store.open().send(None)
    asyncio.run(store.close())


def test_a_replica_is_warned_of_and_read(
    tmp_path: Path, namespace: str, face: str, caplog: pytest.LogCaptureFixture
) -> None:
    program = servers.valkey_program()
    ports = servers.free_ports(2)
    at_once = ("--repl-diskless-sync-delay", "0")
    with servers.running(program, tmp_path / "primary", *at_once, port=ports[0]) as primary:
        with RedisStore.from_url(primary.url(), namespace=namespace) as store:
            store.append("order-1", numbered(1))
            store.append("over", numbered(1))
            store.complete("over")
            store.expire("over", 0.001)
        assert "is a replica" not in caplog.text
        with servers.running(program, tmp_path / "replica", *servers.following(primary), port=ports[1]) as replica:
            servers.wait_until(lambda: servers.follows(replica), "the replica to follow")
            with open_store(face, replica.url(), namespace, deadline_s=0.1) as store:
                assert "The server is a replica" in caplog.text
                assert list(store.stream("order-1")) == numbered(1)
                assert not store.exists("over"), "an expired workflow exists on a replica, which cannot delete it"
                assert list(store.list()) == ["order-1"]
                writes: list[Callable[[], Any]] = [
                    lambda: store.append("order-1", numbered(1)),
                    lambda: store.save("log-1", numbered(1)),
                    lambda: store.save_snapshot("order-1", 1, b"state"),
                    lambda: store.delete("order-1"),
                    lambda: store.acquire("order-1", "ada"),
                ]
                for write in writes:
                    with pytest.raises(
                        StoreError, match=r"is a replica.*READONLY.*Nothing was changed\. Use the address"
                    ):
                        write()
            with replica.client() as client:
                client.config_set("replica-read-only", "no")
            caplog.clear()
            # (A process logs each danger once for each namespace, so this store opens another one.)
            with open_store(face, replica.url(), f"{namespace}-2"):
                assert "The server is a replica" in caplog.text


def test_a_sentinel_that_names_a_replica_leaves_no_doubt(tmp_path: Path, namespace: str, face: str) -> None:
    program = servers.valkey_program()
    ports = servers.free_ports(2)
    with (
        servers.running(program, tmp_path / "primary", port=ports[0]) as primary,
        servers.running(program, tmp_path / "other", port=ports[1]) as other,
        servers.sentinel(program, tmp_path / "sentinel", "shop", primary) as watcher,
        open_store(face, f"redis+sentinel://127.0.0.1:{watcher}/shop", namespace, deadline_s=0) as store,
        primary.client() as client,
    ):
        store.append("order-1", numbered(1))
        client.execute_command("REPLICAOF", "127.0.0.1", other.port)
        with pytest.raises(StoreUnavailable, match=r"is a replica.*Nothing was changed\. Use the address"):
            store.append("order-1", numbered(1))
