"""What a store logs, under `runic_redis`: little, and what an operator asks about afterwards."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from runic_redis import AsyncRedisStore, CommitsLost, RedisStore
from tests.forking import Forked
from tests.portal import BlockingStore
from tests.proxy import Fault, Proxy, proxied
from tests.servers import RunningServer

Open = Callable[..., Any]


@pytest.fixture(
    params=[RedisStore.from_url, lambda url, **options: BlockingStore(AsyncRedisStore.from_url(url, **options))],
    ids=["sync", "asyncio"],
)
def open_url(request: pytest.FixtureRequest) -> Open:
    opener: Open = request.param
    return opener


@pytest.fixture
def proxy(valkey: RunningServer) -> Iterator[Proxy]:
    with proxied(valkey) as proxy:
        yield proxy


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What has been logged since the last call, but for what opening a store says of its server."""
    records = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "runic_redis"]
    caplog.clear()
    return [(level, text) for level, text in records if "append-only" not in text]


def test_a_danger_is_told_once_per_process_and_names_the_store(
    open_url: Open, valkey: RunningServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (namespace, namespace, f"{namespace}-other"):
        with open_url(valkey.url(), namespace=name):
            pass
    with valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "secretive", "on", ">hidden", "~*", "+@all")
    with open_url(f"{valkey.url()}&username=secretive&password=hidden", namespace=f"{namespace}-login") as store:
        assert store.url
    told = [record.getMessage() for record in caplog.records if "append-only" in record.getMessage()]
    place = f"unix://{valkey.socket}"
    assert [message.rpartition(" (")[2] for message in told] == [
        f"store {place}, namespace {name!r})" for name in (namespace, f"{namespace}-other", f"{namespace}-login")
    ]


def test_that_retries_begin_and_end(
    open_url: Open, proxy: Proxy, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "runic_redis")
    with open_url(f"redis://127.0.0.1:{proxy.port}", namespace=namespace) as store:
        store.append("w", [{"n": 1}])
        assert said(caplog) == []
        proxy.arm(Fault("reply", 0))
        store.append("w", [{"n": "s3cret"}])
        (began, ended) = said(caplog)
        assert began[0] == ended[0] == "INFO"
        assert began[1].startswith("Redis fails (")
        assert began[1].endswith("Commands are retried, each for 30 s.")
        assert ended[1] == "Redis answers again."
        store.append("w", [{"n": 3}])
        assert said(caplog) == []


def test_that_commits_are_lost(
    open_url: Open, valkey: RunningServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_url(valkey.url(), namespace=namespace) as store:
        store.append("w", [{"n": 1}])
        caplog.clear()
        with pytest.raises(CommitsLost):
            store.append("w", [{"n": 2}], expected_cursor=3)
        assert said(caplog) == [("WARNING", "The workflow 'w' is at cursor 1, and was expected to be at 3.")]


def test_that_a_cluster_is_asked_anew(
    cluster_nodes: list[RunningServer], namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "runic_redis")
    url = f"redis+cluster://127.0.0.1:{cluster_nodes[0].port}"
    told = [("INFO", "The cluster was asked again which node has which slots.")]
    with RedisStore.from_url(url, namespace=namespace) as store:
        store.append("w", [{"n": 1}])
        _mistake(store._connected.server._client.nodes_manager, store.context.keys.workflow("w").meta)
        caplog.clear()
        store.append("w", [{"n": 2}])
        assert told[0] in said(caplog)

    async def main() -> None:
        async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
            await store.append("w", [{"n": 1}])
            assert store._connected is not None
            _mistake(store._connected.server._client.nodes_manager, store.context.keys.workflow("w").meta)
            caplog.clear()
            await store.append("w", [{"n": 2}])
            assert told[0] in said(caplog)

    asyncio.run(main())


def test_that_an_embedded_server_is_started_and_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "runic_redis")
    with RedisStore.from_url(f"embedded://{tmp_path}"):
        assert said(caplog) == [("INFO", f"The embedded server in '{tmp_path}' was started.")]
        with RedisStore.from_url(f"embedded://{tmp_path}"):
            pass
        (left,) = said(caplog)
        assert left == ("INFO", f"This process left the embedded server in '{tmp_path}'; it ends with its last user.")


def test_nothing_is_printed_unless_it_is_asked_for(proxy: Proxy, namespace: str) -> None:
    program = (
        "from runic_redis import RedisStore\n"
        f"with RedisStore.from_url('redis://127.0.0.1:{proxy.port}', namespace={namespace!r}) as store:\n"
        "    store.append('w', [{'n': 1}])\n"
        "    input('ready\\n')\n"
        "    store.append('w', [{'n': 2}])\n"
    )
    with Forked(program) as process:
        assert process.stdout.readline() == "ready\n"
        proxy.arm(Fault("reply", 0))
        out, err = process.communicate("\n", timeout=60)
    # What endangers data is told even to those who have set up no logging.
    assert (out, [line for line in err.splitlines() if "append-only" not in line]) == ("", [])


def _mistake(manager: Any, key: str) -> None:
    """Have a client believe that another node has a key's slot."""
    slot = key_slot(key.encode())
    others = [node for node in manager.nodes_cache.values() if node.server_type == "primary"]
    others = [node for node in others if node not in manager.slots_cache[slot]]
    manager.slots_cache[slot] = [others[0]]
