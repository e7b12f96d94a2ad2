"""The embedded server when a process dies, a lock is held, or the directory is deleted, moved or copied."""

import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from runic_redis import RedisStore, StoreError, StoreUnavailable
from runic_redis.embedded import server_program
from runic_redis.embedded.server import _is_locked
from runic_redis.testing.examples import numbered
from tests.portal import open_store
from tests.servers import wait_until
from tests.test_embedded import User, client_of, runs, server_pid

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find processes")
both_faces = pytest.mark.parametrize("face", ["sync", "asyncio"])


def supervisor_pids(directory: Path) -> list[int]:
    """Return the supervisors that run in a directory."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if b"supervisor.py" in (process / "cmdline").read_bytes() and (process / "cwd").readlink() == directory:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not runs(pid), f"process {pid} to be killed")


def kill_supervisor(directory: Path) -> None:
    (pid,) = supervisor_pids(directory)
    kill(pid)
    # A thread of the process can end later than the process seems to, and releases the locks only then.
    wait_until(lambda: not _is_locked(directory / "supervisor.lock"), "the supervisor's lock to be free")


def starts(directory: Path) -> int:
    """Return how often a server has been started in a directory."""
    return (directory / "server.log").read_text().count("Configuration loaded")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# A process dies


@both_faces
@pytest.mark.parametrize("supervised", [True, False])
def test_the_next_call_restarts_a_server_that_died(tmp_path: Path, face: str, supervised: bool) -> None:
    with open_store(face, f"embedded://{tmp_path}?fsync=always", "x") as store:
        for number in range(1, 3):
            assert store.append("order-1", numbered(1)) == number
            pid = server_pid(tmp_path)
            if not supervised:
                kill_supervisor(tmp_path)
            kill(pid)
        assert store.append("order-1", numbered(1), expected_cursor=2) == 3
        assert len(list(store.stream("order-1"))) == 3
        restarted = server_pid(tmp_path)
        assert len(supervisor_pids(tmp_path)) == 1
    wait_until(lambda: not runs(restarted), "the server to end with its last user")


def test_threads_and_stores_that_share_a_server_that_died_restart_it_once(tmp_path: Path) -> None:
    def work(store: RedisStore, number: int) -> None:
        for _ in range(10):
            store.append(f"order-{number}", numbered(1))

    url = f"embedded://{tmp_path}?fsync=always"
    with RedisStore.from_url(url) as one, RedisStore.from_url(url) as other, ThreadPoolExecutor(4) as pool:
        kill(server_pid(tmp_path))
        list(pool.map(work, [one, other, one, other], range(4)))
        assert [one.cursor(f"order-{number}") for number in range(4)] == [10] * 4
    assert starts(tmp_path) == 2


@both_faces
def test_a_tail_goes_on_when_the_server_dies(tmp_path: Path, face: str) -> None:
    with open_store(face, f"embedded://{tmp_path}?fsync=always", "x") as store:
        store.append("order-1", numbered(1))
        tail = store.tail("order-1")
        assert next(tail).cursor == 1
        kill(server_pid(tmp_path))
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(next, tail)
            store.append("order-1", numbered(1))
            assert following.result().cursor == 2
        tail.close()


def test_a_restarted_server_syncs_always_while_a_process_that_asked_for_that_uses_it(tmp_path: Path) -> None:
    def restarted_syncs(store: RedisStore) -> str:
        kill(server_pid(tmp_path))
        store.append("order-1", numbered(1))
        with client_of(tmp_path) as client:
            return str(client.config_get("appendfsync")["appendfsync"])

    with RedisStore.from_url(f"embedded://{tmp_path}") as relaxed:
        with RedisStore.from_url(f"embedded://{tmp_path}?fsync=always"):
            assert restarted_syncs(relaxed) == "always"
        assert restarted_syncs(relaxed) == "everysec"


@both_faces
def test_a_server_that_cannot_be_restarted_is_tried_three_times_a_call_and_shows_its_log(
    tmp_path: Path, face: str
) -> None:
    with open_store(face, f"embedded://{tmp_path}?fsync=always", "x") as store:
        store.append("order-1", numbered(1))
        kill(server_pid(tmp_path))
        manifest = tmp_path / "appendonlydir" / "appendonly.aof.manifest"
        whole = manifest.read_bytes()
        manifest.write_text("damaged\n")
        for tries in range(1, 3):
            with pytest.raises(StoreUnavailable, match=r"does not start.*Its log") as caught:
                store.append("order-1", numbered(1))
            assert "manifest" in str(caught.value)
            assert "Correct the cause that the log names, and retry." in str(caught.value)
            assert starts(tmp_path) == 1 + 3 * tries
        manifest.write_bytes(whole)
        assert store.append("order-1", numbered(1)) == 2


def test_the_next_opener_takes_over_a_server_without_a_supervisor(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}"
    with RedisStore.from_url(url) as store:
        pid = server_pid(tmp_path)
        kill_supervisor(tmp_path)
        with RedisStore.from_url(url) as other:
            assert len(supervisor_pids(tmp_path)) == 1
            assert other.append("order-1", numbered(1)) == 1
        assert store.append("order-1", numbered(1)) == 2
        assert server_pid(tmp_path) == pid
    wait_until(lambda: not runs(pid), "the server to end with its last user")
    wait_until(lambda: not supervisor_pids(tmp_path), "the supervisor to end with its server")
    with RedisStore.from_url(url) as store:
        assert store.cursor("order-1") == 2


@both_faces
def test_the_last_to_close_ends_a_server_without_a_supervisor(tmp_path: Path, face: str) -> None:
    with open_store(face, f"embedded://{tmp_path}", "x") as store:
        store.append("order-1", numbered(1))
        pid = server_pid(tmp_path)
        kill_supervisor(tmp_path)
    wait_until(lambda: not runs(pid), "the server to end with its last user")
    wait_until(lambda: not supervisor_pids(tmp_path), "the supervisor to end with its server")


def test_a_server_that_outlived_all_others_is_found_by_the_next_opener(tmp_path: Path) -> None:
    user = User(f"embedded://{tmp_path}", "order-1")
    assert user.read() == 1
    pid = server_pid(tmp_path)
    kill_supervisor(tmp_path)
    user.kill()
    with RedisStore.from_url(f"embedded://{tmp_path}") as store:
        assert store.append("order-1", numbered(1)) == 2
        assert server_pid(tmp_path) == pid
    wait_until(lambda: not runs(pid), "the server to end with its last user")


def test_a_server_ends_though_its_starter_had_blocked_signals(tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        with RedisStore.from_url(f"embedded://{tmp_path}"):
            pid = server_pid(tmp_path)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    wait_until(lambda: not runs(pid), "the server to end with its last user")


def test_a_store_opens_though_no_supervisor_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"embedded://{tmp_path}"
    with RedisStore.from_url(url):
        pid = server_pid(tmp_path)
        kill_supervisor(tmp_path)
        with monkeypatch.context() as broken:
            broken.setattr("sys.executable", "/bin/false")
            with RedisStore.from_url(url) as store:
                assert store.append("order-1", numbered(1)) == 1
        assert [record.levelname for record in caplog.records if "no supervisor" in record.message] == ["WARNING"] * 2
    wait_until(lambda: not runs(pid), "the server to end with its last user")


# Another process holds a lock, or the server is silent


@both_faces
@pytest.mark.parametrize(("name", "told"), [("start", "Another process is opening it"), ("users", "is still ending")])
def test_the_deadline_covers_a_lock_that_another_process_holds(tmp_path: Path, face: str, name: str, told: str) -> None:
    url = f"embedded://{tmp_path}"
    with locked(tmp_path / f"{name}.lock"), pytest.raises(StoreUnavailable, match=f"within 0.1 s: .*{told}"):
        open_store(face, url, "x", deadline_s=0.1)
    with open_store(face, url, "x") as store:
        assert store.append("order-1", numbered(1)) == 1


def test_an_opener_waits_for_a_lock_until_it_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "start.lock"
    with ThreadPoolExecutor(1) as pool:
        with locked(lock):
            opening = pool.submit(RedisStore.from_url, f"embedded://{tmp_path}")
            wait_until(lambda: times_open(lock) == 2, "the opener to wait")
            assert not opening.done()
        with opening.result() as store:
            assert store.append("order-1", numbered(1)) == 1


def times_open(path: Path) -> int:
    """Return how often this process has opened a file."""
    return [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()].count(str(path))


def test_a_call_gives_up_at_its_deadline_while_the_start_lock_is_held(tmp_path: Path) -> None:
    with RedisStore.from_url(f"embedded://{tmp_path}?fsync=always", deadline_s=0.5) as store:
        store.append("order-1", numbered(1))
        kill(server_pid(tmp_path))
        with locked(tmp_path / "start.lock"), pytest.raises(StoreUnavailable, match=r"start\.lock"):
            store.append("order-1", numbered(1))
        assert starts(tmp_path) == 1
        assert store.append("order-1", numbered(1)) == 2


def test_the_deadline_covers_a_server_that_is_silent(tmp_path: Path) -> None:
    with RedisStore.from_url(f"embedded://{tmp_path}") as store:
        pid = server_pid(tmp_path)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable, match="does not answer"):
                RedisStore.from_url(f"embedded://{tmp_path}", deadline_s=0.1)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert store.append("order-1", numbered(1)) == 1


# The directory is deleted, moved or copied


def delete(directory: Path) -> None:
    shutil.rmtree(directory)


def delete_the_data(directory: Path) -> None:
    shutil.rmtree(directory / "appendonlydir")


def move(directory: Path) -> None:
    directory.rename(directory.with_name("moved"))


def replace(directory: Path) -> None:
    shutil.rmtree(directory)
    shutil.copytree(directory.with_name("backup"), directory)


@both_faces
@pytest.mark.parametrize("loss", [delete, delete_the_data, move, replace])
@pytest.mark.parametrize("killed", [False, True])
def test_the_next_write_raises_when_the_directory_is_gone(
    tmp_path: Path, face: str, loss: object, killed: bool
) -> None:
    directory = tmp_path / "data"
    with open_store(face, f"embedded://{directory}", "x") as store:
        store.append("order-1", numbered(1))
        pid = server_pid(directory)
        if loss is replace:
            ignored = shutil.ignore_patterns("*.sock")
            shutil.copytree(directory, directory.with_name("backup"), ignore=ignored)
        loss(directory)  # type: ignore[operator]
        if killed:
            kill(pid)
        for _ in range(2):
            with pytest.raises(StoreError, match=f"{directory}.* deleted, moved or replaced .*nothing was sent"):
                store.append("order-1", numbered(1))
            assert directory.exists() == (loss in {replace, delete_the_data}), (
                "the failed write made the directory again"
            )
    wait_until(lambda: not runs(pid), "the server to end with its last user")


def test_a_directory_made_again_is_not_disturbed_by_the_server_of_the_deleted_one(tmp_path: Path) -> None:
    # In the second directory, the path is too long for a socket, so the socket is elsewhere.
    for directory in (tmp_path / "data", tmp_path / ("long-" * 30)):
        url = f"embedded://{directory}"
        with RedisStore.from_url(url) as old:
            old.append("order-1", numbered(2))
            pid = server_pid(directory)
            shutil.rmtree(directory)
            with RedisStore.from_url(url) as new:
                assert new.append("order-1", numbered(1)) == 1
                with pytest.raises(StoreError, match="replaced"):
                    old.append("order-1", numbered(1))
                old.close()
                wait_until(lambda pid=pid: not runs(pid), "the old server to end")
                # (Each opener makes a connection.)
                with RedisStore.from_url(url) as another:
                    assert another.append("order-1", numbered(1)) == 2


def test_a_moved_directory_opens_where_it_is_now(tmp_path: Path) -> None:
    with RedisStore.from_url(f"embedded://{tmp_path}/data") as store:
        store.append("order-1", numbered(2))
        pid = server_pid(tmp_path / "data")
    wait_until(lambda: not runs(pid), "the server to end with its last user")
    move(tmp_path / "data")
    with RedisStore.from_url(f"embedded://{tmp_path}/moved") as store:
        assert store.cursor("order-1") == 2


def test_a_copied_directory_has_a_server_of_its_own(tmp_path: Path) -> None:
    with RedisStore.from_url(f"embedded://{tmp_path}/data?fsync=always") as store:
        store.append("order-1", numbered(2))
        shutil.copytree(tmp_path / "data", tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
        with RedisStore.from_url(f"embedded://{tmp_path}/copy") as copy:
            assert copy.append("order-1", numbered(1)) == 3
        assert store.cursor("order-1") == 2


# The environment of the processes


def test_the_server_and_its_supervisor_know_nothing_of_the_starter_s_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNIC_REDIS_URL", "redis://user:hush@localhost")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    # The server overwrites its environment in /proc, so a script saves it before it becomes the server.
    seen = tmp_path / "seen"
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\ncat /proc/$$/environ >{seen}\nexec {server_program()} "$@"\n')
    program.chmod(0o700)
    monkeypatch.setattr("runic_redis.embedded.server.server_program", lambda: program)
    kept = {"LD_LIBRARY_PATH": "/nowhere"}
    with RedisStore.from_url(f"embedded://{tmp_path}/data"):
        # Python may set LC_CTYPE for processes that it starts.
        assert {**environment(seen), "LC_CTYPE": ""} == {**kept, "LC_CTYPE": ""}
        for _ in range(2):
            (supervisor,) = supervisor_pids(tmp_path / "data")
            assert environment(Path(f"/proc/{supervisor}/environ")) == kept
            kill_supervisor(tmp_path / "data")
            with RedisStore.from_url(f"embedded://{tmp_path}/data"):
                pass


def environment(path: Path) -> dict[str, str]:
    """Return the environment that a process was started with."""
    return dict(line.split("=", 1) for line in path.read_text().split("\0") if line)
