"""The embedded server: processes share it, it outlives its starter, and it ends with its last user."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from runic_redis import ConfigurationError, RedisStore, StoreUnavailable
from runic_redis.embedded import EmbeddedServer
from runic_redis.testing.examples import append_each, numbered
from tests.forking import Forked
from tests.servers import running, valkey_program, wait_until

# Opens the directory and appends. Then it appends once more for each line that it reads. It prints each cursor.
USER = """
import sys
from runic_redis import RedisStore
with RedisStore.from_url(sys.argv[1]) as store:
    print(store.append(sys.argv[2], [{"n": 1}]), flush=True)
    for line in sys.stdin:
        print(store.append(sys.argv[2], [{"n": 1}]), flush=True)
"""


class User:
    """Another process that uses the store."""

    def __init__(self, url: str, workflow_id: str) -> None:
        self.process = Forked(USER, url, workflow_id)

    def read(self) -> int:
        return int(self.process.stdout.readline())

    def append(self) -> int:
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        return self.read()

    def kill(self) -> None:
        self.process.kill()
        self.process.close()

    def leave(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(20) == 0
        self.process.close()


def client_of(directory: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(EmbeddedServer(directory).socket), protocol=3)


def server_pid(directory: Path) -> int:
    with client_of(directory) as client:
        return int(client.info("server")["process_id"])


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_second_process_shares_the_running_server(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}"
    with RedisStore.from_url(url) as store:
        store.append("order-1", numbered(2))
        pid = server_pid(tmp_path)
        user = User(url, "order-1")
        assert user.read() == 3
        assert store.cursor("order-1") == 3
        assert server_pid(tmp_path) == pid
        user.leave()
        assert store.append("order-1", numbered(1)) == 4
    wait_until(lambda: not runs(pid), "the server to end with its last user")


def test_the_others_carry_on_when_the_starter_is_killed(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}"
    starter = User(url, "order-1")
    assert starter.read() == 1
    assert starter.append() == 2
    pid = server_pid(tmp_path)
    with RedisStore.from_url(url) as store:
        assert starter.append() == 3
        starter.kill()
        assert store.cursor("order-1") == 3
        for number in range(4, 50):
            assert store.append("order-1", numbered(1)) == number
        assert server_pid(tmp_path) == pid
    wait_until(lambda: not runs(pid), "the server to end with its last user")
    with RedisStore.from_url(url) as store:
        assert store.cursor("order-1") == 49


def test_a_signal_to_the_starter_s_process_group_does_not_reach_the_server(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}"
    starter = subprocess.Popen(
        [sys.executable, "-c", USER, url, "order-1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "1\n"
        with RedisStore.from_url(url) as store:
            # Ctrl-C in a terminal signals the whole group.
            os.killpg(starter.pid, signal.SIGINT)
            starter.wait(20)
            assert store.append("order-1", numbered(1)) == 2


def test_the_server_ends_when_its_last_user_is_killed_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}"
    for round_number in range(2):
        users = [User(url, f"order-{number}") for number in range(3)]
        for user in users:
            assert user.read() == 1 + 2 * round_number
            assert user.append() == 2 + 2 * round_number
        pid = server_pid(tmp_path)
        for user in users:
            user.kill()
        wait_until(lambda pid=pid: not runs(pid), "the server to end after its last user was killed")


def test_many_open_one_directory_at_once(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}"
    for round_number in range(1, 3):
        users = [User(url, "order-1") for _ in range(6)]
        cursors = [user.read() for user in users]
        assert sorted(cursors) == list(range(6 * round_number - 5, 6 * round_number + 1))
        for user in users:
            user.leave()


def test_threads_that_open_and_close_never_lose_the_server(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}"

    def work(number: int) -> None:
        for _ in range(5):
            with RedisStore.from_url(url) as store:
                store.append(f"order-{number}", numbered(1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    with RedisStore.from_url(url) as store:
        assert [store.cursor(f"order-{number}") for number in range(4)] == [5] * 4


def test_the_append_only_file_is_on_and_fsync_as_asked(tmp_path: Path) -> None:
    with RedisStore.from_url(f"embedded://{tmp_path}"), client_of(tmp_path) as client:
        assert client.config_get("append*") | client.config_get("maxmemory-policy") | client.config_get("save") == (
            client.config_get("append*")
            | {"appendonly": "yes", "appendfsync": "everysec"}
            | {"maxmemory-policy": "noeviction", "save": ""}
        )
        with RedisStore.from_url(f"embedded://{tmp_path}?fsync=always"):
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
        with RedisStore.from_url(f"embedded://{tmp_path}"):
            assert client.config_get("appendfsync") == {"appendfsync": "always"}, (
                "a less strict user changed appendfsync"
            )
    with RedisStore.from_url(f"embedded://{tmp_path}/new?fsync=always"), client_of(tmp_path / "new") as client:
        assert client.config_get("appendfsync") == {"appendfsync": "always"}


def test_a_workflow_with_one_event_takes_a_kilobyte(tmp_path: Path) -> None:
    count = 640
    with RedisStore.from_url(f"embedded://{tmp_path}") as store, client_of(tmp_path) as client:
        for number in range(count):
            store.append(f"order-{number:06}", numbered(1))
        used = sum(client.memory_usage(key, samples=0) for key in client.scan_iter(count=1000))
    assert used / count < 1100


def test_a_directory_of_a_server_with_other_settings_is_read_and_written(tmp_path: Path) -> None:
    with (
        running(valkey_program(), tmp_path, "--appendonly", "yes") as server,
        RedisStore.from_url(server.url()) as store,
    ):
        append_each(store, "order-1", numbered(30))
        store.append("order-2", numbered(1))
        with server.client() as client:
            assert client.config_get("stream-node-max-bytes") == {"stream-node-max-bytes": "4096"}
            client.shutdown()
    with RedisStore.from_url(f"embedded://{tmp_path}") as store:
        assert store.append("order-1", numbered(1, 31)) == 31
        assert list(store.stream("order-1")) == numbered(31)
        assert list(store.stream("order-2")) == numbered(1)


def test_an_acknowledged_commit_survives_the_server_s_death_with_fsync_always(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}?fsync=always"
    with RedisStore.from_url(url, deadline_s=0) as store:
        acknowledged = [0]
        pid = server_pid(tmp_path)
        killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
        killer.start()
        with suppress(StoreUnavailable):
            while runs(pid):
                acknowledged.append(store.append("order-1", numbered(1)))
        killer.join()
    assert acknowledged[-1] > 0
    with RedisStore.from_url(url) as store:
        assert store.cursor("order-1") >= acknowledged[-1]
        assert len(list(store.stream("order-1"))) == store.cursor("order-1")


def test_however_a_directory_is_reached_it_has_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / ("long-" * 30)
    directory.mkdir()
    short = tmp_path / "short"
    short.symlink_to(directory)
    monkeypatch.chdir(directory)
    with RedisStore.from_url(f"embedded://{short}") as one:
        assert one.append("order-1", numbered(1), expected_cursor=0) == 1
        for path in (str(directory), "../short", f"{directory}/../short/.", "./"):
            with RedisStore.from_url(f"embedded://{path}") as other:
                assert other.cursor("order-1") == 1, path
        # From inside a container, an opener may not see the socket of the running server.
        (directory / "server.socket").unlink()
        monkeypatch.setattr("runic_redis.embedded.server._new_socket_path", lambda _: tmp_path / "elsewhere.sock")
        with pytest.raises(StoreUnavailable, match="another server runs in this directory"):
            RedisStore.from_url(f"embedded://{short}", deadline_s=0.5)
        assert one.append("order-1", numbered(1), expected_cursor=1) == 2


def test_a_path_too_long_for_a_socket_will_do(tmp_path: Path) -> None:
    directory = tmp_path / ("long-" * 30)
    url = f"embedded://{directory}"
    with RedisStore.from_url(url) as store:
        store.append("order-1", numbered(1))
        user = User(url, "order-1")
        assert user.read() == 2
        user.leave()
        assert not EmbeddedServer(directory).socket.is_relative_to(directory)


def test_a_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with RedisStore.from_url("embedded://data/here") as store:
        store.append("order-1", numbered(1))
    assert (tmp_path / "data" / "here" / "appendonlydir").is_dir()


def test_a_directory_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    (tmp_path / "locks" / "users.lock").mkdir(parents=True)
    for wrong in ("file", "file/below", "locks"):
        with pytest.raises(ConfigurationError, match="cannot be used"):
            RedisStore.from_url(f"embedded://{tmp_path}/{wrong}")


def test_a_server_that_does_not_start_is_one_clear_error_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("damaged\n")
    with pytest.raises(StoreUnavailable, match=r"does not start.*Its log") as caught:
        RedisStore.from_url(f"embedded://{tmp_path}")
    assert "manifest" in str(caught.value)


def test_a_server_leaves_nothing_behind_but_its_data(tmp_path: Path) -> None:
    with RedisStore.from_url(f"embedded://{tmp_path}") as store:
        store.append("order-1", numbered(1))
        pid = server_pid(tmp_path)
    wait_until(lambda: not runs(pid), "the server to end")
    assert not EmbeddedServer(tmp_path).socket.exists()
