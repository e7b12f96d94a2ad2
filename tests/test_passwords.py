"""Passwords go into URLs and come out nowhere: not in errors and their causes, tracebacks, logs, reprs, processes."""

import logging
import os
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from runic_redis import AsyncRedisStore, ConfigurationError, RedisStore, StoreError
from runic_redis.demo.crew import Crew
from runic_redis.testing.examples import numbered
from tests import servers
from tests.forking import run_forked
from tests.portal import BlockingStore
from tests.servers import RunningServer

# Every character with a meaning in a URL, between two marks that the tests search for.
MARKS = ("xq7marks", "zk9marks")
PASSWORD = f"{MARKS[0]}:/?#[]@!$&'()*+,;=%20 ä\"\\{MARKS[1]}"
ENCODED = quote(PASSWORD, safe="")
WRONG = ENCODED + "x"


def open_asyncio(url: str, **options: Any) -> Any:
    return BlockingStore(AsyncRedisStore.from_url(url, **options))


@pytest.fixture(params=[RedisStore.from_url, open_asyncio], ids=["sync", "asyncio"])
def open_url(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Open a URL with one try, unless the test passes a deadline."""
    return partial(request.param, deadline_s=0)


@pytest.fixture(autouse=True)
def nothing_shown(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Check that nothing that was logged at any level, warned of, or printed contains a mark."""
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield
    shown = [str(warning.message) for warning in warned]
    shown += [record.getMessage() + str(record.exc_info) for record in caplog.get_records("call")]
    assert_without_marks(caplog.text, *shown, *capfd.readouterr())


def assert_without_marks(*texts: str) -> None:
    for text in texts:
        for mark in MARKS:
            assert mark not in text


def everything_behind(error: BaseException) -> list[BaseException]:
    """Return an error and all errors that led to it, even those that a traceback hides."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__]
    return found


def fails(attempt: Callable[[], Any], match: str = "") -> None:
    """Check that a call fails with a `StoreError` that does not show the password anywhere."""
    with pytest.raises(StoreError, match=match) as caught:
        attempt()
    for error in everything_behind(caught.value):
        assert_without_marks(str(error), repr(error), repr(error.args))
    assert_without_marks(*traceback.format_exception(caught.value))


@contextmanager
def guarded(directory: Path, *options: str, program: Path | None = None) -> Iterator[RunningServer]:
    """Run a Valkey on a loopback port and on a socket, whose default user has the password."""
    (port,) = servers.free_ports(1)
    socket = ("--unixsocket", str(directory / "guarded.sock"))
    with servers.running(program or servers.valkey_program(), directory, *socket, *options, port=port) as server:
        with server.client() as client:
            client.config_set("requirepass", PASSWORD)
        yield server


def urls(server: RunningServer, password: str) -> dict[str, str]:
    """Return the URLs of a server."""
    socket = server.directory / "guarded.sock"
    return {
        "redis": f"redis://:{password}@127.0.0.1:{server.port}",
        "redis, by option": f"redis://127.0.0.1:{server.port}?username=default&password={password}&protocol=3",
        "unix": f"unix://:{password}@{socket}",
        "unix, by option": f"unix://{socket}?password={password}",
    }


def use(open_url: Any, url: str, namespace: str, **options: Any) -> None:
    with open_url(url, namespace=namespace, deadline_s=0, **options) as store:
        assert_without_marks(repr(store), str(store), repr(getattr(store, "_store", store)))
        assert store.append("order-1", numbered(1)) == 1
        store.delete("order-1")
    assert_without_marks(repr(store))


def test_a_right_password_logs_in_and_a_wrong_one_is_not_repeated(
    tmp_path: Path, open_url: Any, namespace: str
) -> None:
    with guarded(tmp_path) as server:
        for url in urls(server, ENCODED).values():
            use(open_url, url, namespace)
        for wrong in (WRONG, f"{MARKS[0]}{MARKS[1]}"):
            for url in urls(server, wrong).values():
                fails(partial(open_url, url), "refused the login")


def test_a_server_that_refuses_or_ends(tmp_path: Path, open_url: Any, namespace: str) -> None:
    with guarded(tmp_path) as server:
        for url in urls(server, ENCODED).values():
            mark = "&" if "?" in url else "?"
            fails(partial(open_url, f"{url}{mark}db=99"), "DB index")
            fails(partial(open_url, f"{url}{mark}client_name=a+b"), "lient name")
            with open_url(url, namespace=namespace, deadline_s=0) as store, server_client(server) as admin:
                store.append("order-1", numbered(1))
                admin.config_set("maxmemory", 1)
                fails(lambda: store.append("order-1", numbered(1)), "OOM")
                admin.config_set("maxmemory", 0)
                admin.execute_command("ACL", "SETUSER", "default", "-xrange")
                fails(lambda: list(store.stream("order-1")), "NOPERM")
                admin.execute_command("ACL", "SETUSER", "default", "+xrange")
                # The password changes, and the store's connections are cut.
                admin.config_set("requirepass", "another")
                admin.client_kill_filter(skipme=True)
                fails(lambda: [store.cursor("order-1") for _ in range(2)])
                admin.config_set("requirepass", PASSWORD)
                # The server first does not answer, and then is gone.
                server.stop()
                fails(partial(open_url, f"{url}{mark}socket_timeout=0.05"), "(?i)timeout")
                server.go_on()
                server.kill()
                fails(lambda: store.append("order-1", numbered(1)), "did not answer")
            fails(partial(open_url, url), "cannot be reached")
            server.restart()
            with server.client() as admin:
                admin.config_set("requirepass", PASSWORD)


def server_client(server: RunningServer) -> redis.Redis:
    return server.client(password=PASSWORD)


@pytest.mark.parametrize("renamed", ["AUTH", "HELLO"])
def test_a_server_that_repeats_what_it_does_not_know(tmp_path: Path, open_url: Any, renamed: str) -> None:
    for program in (servers.valkey_program(), servers.redis_6_2_program()):
        with guarded(tmp_path, program=program) as server:
            server.kill()
            server.start("--rename-command", renamed, "CALLED-OTHERWISE")
            servers.wait_until(partial(pings, server), "it to answer", server.process)
            for url in urls(server, ENCODED).values():
                mark = "&" if "?" in url else "?"
                protocol = "" if "protocol" in url else f"{mark}protocol={3 if renamed == 'HELLO' else 2}"
                if renamed == "HELLO" or "protocol=3" not in url:
                    fails(partial(open_url, url + protocol), "(?i)unknown command")


def pings(server: RunningServer) -> bool:
    """Does a server answer? It may not know HELLO."""
    with redis.Redis(port=server.port, protocol=2) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def test_a_cluster(tmp_path: Path, open_url: Any, namespace: str, cluster_nodes: list[RunningServer]) -> None:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster_nodes)
    admins = [node.client() for node in cluster_nodes]
    for admin in admins:
        admin.execute_command("ACL", "SETUSER", "ada", "reset", "on", f">{PASSWORD}", "~*", "+@all")
    try:
        use(open_url, f"redis+cluster://ada:{ENCODED}@{hosts}", namespace)
        for url in (
            f"redis+cluster://ada:{WRONG}@{hosts}",
            f"redis+cluster://{hosts}?username=ada&password={WRONG}&protocol=3",
        ):
            fails(partial(open_url, url), "refused the login")
        for admin in admins:
            admin.execute_command("ACL", "SETUSER", "ada", "-cluster")
        fails(partial(open_url, f"redis+cluster://ada:{ENCODED}@{hosts}"), "NOPERM")
    finally:
        for admin in admins:
            admin.execute_command("ACL", "DELUSER", "ada")
            admin.close()
    (port,) = servers.free_ports(1)
    for secure in ("redis", "rediss"):
        fails(partial(open_url, f"{secure}+cluster://ada:{ENCODED}@127.0.0.1:{port}"), "cannot be reached")


def test_a_sentinel(tmp_path: Path, open_url: Any, namespace: str) -> None:
    with (
        guarded(tmp_path / "primary", "--protected-mode", "no") as primary,
        servers.sentinel(servers.valkey_program(), tmp_path / "sentinel", "shop", primary) as port,
        redis.Redis(port=port) as admin,
    ):
        admin.execute_command("SENTINEL", "SET", "shop", "auth-pass", PASSWORD)
        admin.execute_command("ACL", "SETUSER", "seer", "reset", "on", f">{PASSWORD}", "+@all")
        place = f"127.0.0.1:{port}/shop"
        seer = f"sentinel_username=seer&sentinel_password={ENCODED}"
        use(open_url, f"redis+sentinel://:{ENCODED}@{place}?{seer}", namespace)
        fails(partial(open_url, f"redis+sentinel://:{WRONG}@{place}?{seer}"))
        fails(partial(open_url, f"redis+sentinel://:{ENCODED}@{place}?{seer}x"))
        fails(partial(open_url, f"redis+sentinel://:{ENCODED}@{place}/x?{seer}"))
        fails(partial(open_url, f"redis+sentinel://:{ENCODED}@{place}x?{seer}"), "No master")
        fails(partial(open_url, f"redis+sentinel://:{ENCODED}@{place}?{seer}&{MARKS[0]}=1"), "not an option")
    fails(partial(open_url, f"redis+sentinel://:{ENCODED}@{place}?{seer}"), "cannot be reached")


def test_tls_and_the_password_of_a_key(tmp_path: Path, open_url: Any) -> None:
    (port,) = servers.free_ports(1)
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMII=\n-----END ENCRYPTED PRIVATE KEY-----\n")
    with servers.running(servers.valkey_program(), tmp_path / "server", port=port):
        url = f"rediss://ada:{ENCODED}@127.0.0.1:{port}?ssl_password={ENCODED}&socket_timeout=0.05"
        fails(partial(open_url, url))
        fails(partial(open_url, f"{url}&ssl_certfile={key}&ssl_keyfile={key}"))
        fails(partial(open_url, f"{url}&ssl_ca_certs={tmp_path}/none.pem"))
        fails(partial(open_url, f"{url}&ssl_min_version={MARKS[0]}"))


ONE, OTHER = MARKS
MALFORMED = [
    f"redis://{ONE}:{OTHER}",
    f"redis://:{ONE}",
    f"redis://{ONE}{OTHER}:port@h:{OTHER}",
    f"redis://ada:{ONE}@h:port",
    f"redis://ada:{ONE}@h:99999",
    f"redis://ada:{ONE}℀{OTHER}@h",
    f"redis+sentinel://ada:{ONE}℀{OTHER}@h/shop",
    f"redis+cluster://ada:{ONE}℀{OTHER}@h",
    f"unix://ada:{ONE}℀{OTHER}@/h",
    f"redis://ada:[{ONE}@h",
    f"redis://ada:{ONE}]@h",
    f"redis://[{ONE}",
    f"redis+cluster://a,ada:{ONE}@h:port",
    f"redis+cluster://ada:{ONE},{OTHER}@h:port",
    f"redis+cluster://ada:{ONE}",
    f"redis+sentinel://ada:{ONE}/shop",
    f"redis+sentinel://ada:{ONE}@h",
    f"redis://ada:{ONE}@h/{0}/x",
    f"redis://ada:{ONE}/{OTHER}@h",
    f"redis://ada:{ONE}?{OTHER}@h",
    f"redis://ada:{ONE}#{OTHER}@h",
    f"redis://ada:12/{ONE}@h",
    f"redis://ada:12?{ONE}@h",
    f"redis://h?password={ONE}@{OTHER}",
    f"redis://h?password={ONE}&{OTHER}",
    f"redis://h?password={ONE}&{OTHER}=1",
    f"redis://h?password={ONE}#{OTHER}",
    f"redis+sentinel://h/shop?sentinel_password={ONE}&{OTHER}",
    f"unix:///h?password={ONE}&{OTHER}=x",
    f"unix:///h?password={ONE}&db={OTHER}",
    f"redis://ada:{ONE}@h?protocol={OTHER}",
    f"redis://ada:{ONE}@h?db={OTHER}",
    f"redis://ada:{ONE}@h?socket_timeout={OTHER}",
    f"redis://ada:{ONE}@h?decode_responses={OTHER}",
    f"REDIS://ada:{ONE}@h",
    f"postgres://ada:{ONE}@h",
    f"redis:/ada:{ONE}@h",
    f"ada:{ONE}@h:6379",
    f"ada:{ONE}",
]


@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_url_is_not_repeated_where_a_password_may_be(open_url: Any, url: str) -> None:
    fails(partial(open_url, url))


def test_a_unix_url_that_works_with_a_plain_at_sign_is_not_repeated(
    tmp_path: Path, open_url: Any, namespace: str
) -> None:
    with guarded(tmp_path) as server:
        with server_client(server) as admin:
            admin.config_set("requirepass", f"{ONE}@{OTHER}")
        use(open_url, f"unix://{tmp_path}/guarded.sock?password={ONE}@{OTHER}", namespace)


def command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().decode(errors="replace")
        except OSError:
            continue


def test_the_workers_of_the_demonstration_do_not_show_the_url(tmp_path: Path, namespace: str) -> None:
    with guarded(tmp_path) as server:
        with server_client(server) as admin:
            admin.config_set("requirepass", ONE)
        with Crew(f"redis://:{ONE}@127.0.0.1:{server.port}", namespace, "") as crew:
            for process in crew._processes.values():
                assert_without_marks(repr(process.args), repr(process))
            # A process that was just started may have no command line yet.
            seen: list[str] = []
            while sum("runic_redis.demo.worker" in command for command in seen) < 3:
                seen = list(command_lines())
    assert_without_marks(*seen)


@pytest.mark.parametrize(
    ("verb", "url", "problem"),
    [
        ("demo", f"unix://:{ENCODED}@/nobody.sock", "cannot be reached"),
        ("bench", f"redis://ada:{ONE}℀{OTHER}@h", "malformed"),
    ],
)
def test_the_command_line_takes_the_url_from_the_environment_and_does_not_repeat_it(
    verb: str, url: str, problem: str
) -> None:
    done = run_forked(None, verb, environment={**os.environ, "RUNIC_REDIS_URL": url})
    assert done.returncode == (3 if problem == "cannot be reached" else 2)
    assert re.fullmatch(rf"runic-redis: .*{problem}.*\n", done.stderr)
    assert_without_marks(done.stdout, done.stderr)


def test_a_client_of_ones_own_keeps_its_password_too(tmp_path: Path, namespace: str) -> None:
    with guarded(tmp_path) as server:
        with server_client(server) as client, RedisStore(client, namespace=namespace) as store:
            assert_without_marks(repr(store))
        once = Retry(NoBackoff(), 0)
        with server.client(password=PASSWORD + "x", retry=once) as client:
            fails(lambda: RedisStore(client), "refused the login")
        with pytest.raises(ConfigurationError, match="decodes responses") as caught:
            RedisStore(server.client(password=PASSWORD, decode_responses=True))
        assert_without_marks(str(caught.value))
