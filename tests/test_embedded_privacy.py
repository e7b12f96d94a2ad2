"""The embedded server is private to its user: its directory, its files, its socket."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from runic_redis import ConfigurationError, RedisStore
from runic_redis.embedded import EmbeddedServer
from runic_redis.testing.examples import numbered
from tests.forking import Forked, run_forked
from tests.servers import wait_until

NOBODY = 65534
# Opens the directory, appends, prints a line, and waits for a line.
USER = """
import os, sys
from runic_redis import RedisStore
os.umask(int(sys.argv[2]))
with RedisStore.from_url(sys.argv[1]) as store:
    store.append("order-1", [{"n": 1}])
    print("appended", flush=True)
    sys.stdin.readline()
"""
# Becomes another user, and prints what it can open.
STRANGER = f"""
import os, socket, sys
from pathlib import Path
from runic_redis import RedisStore, StoreError
from runic_redis.embedded import server
directory = Path(sys.argv[1])
paths = sorted(directory.rglob("*"))
program = server.server_program()
server.server_program = lambda: program  # another user may be unable to find it
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
for path in paths:
    try:
        if path.is_socket():
            socket.socket(socket.AF_UNIX).connect(str(path))
        elif path.is_dir():
            os.listdir(path)
        else:
            path.open("rb")
    except PermissionError:
        continue
    print("opened", path)
try:
    RedisStore.from_url(f"embedded://{{directory}}")
except StoreError as error:
    print(type(error).__name__, error)
"""


def modes(directory: Path) -> dict[str, int]:
    """Return the permissions of other users for a directory and its contents, where there are any."""
    found = {}
    for path in [directory, *directory.rglob("*")]:
        with suppress(FileNotFoundError):  # a server that ends removes its socket
            found[str(path)] = path.lstat().st_mode & 0o077
    return {path: mode for path, mode in found.items() if mode}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_directory_its_files_and_the_socket_are_private(tmp_path: Path, umask: int) -> None:
    directory = tmp_path / "data"
    with Forked(USER, f"embedded://{directory}", umask) as user:
        assert user.stdout.readline() == "appended\n"
        names = {path.name for path in directory.rglob("*")}
        assert names >= {"server.sock", "server.log", "server.socket", "appendonlydir", "appendonly.aof.manifest"}
        assert len([name for name in names if name.endswith(".lock")]) == 5
        assert modes(directory) == {}
        # A rewrite makes new files, which must be private as well.
        with redis.Redis(unix_socket_path=str(EmbeddedServer(directory).socket)) as client:
            client.bgrewriteaof()
            wait_until(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0, "the rewrite to end")
            assert client.info("persistence")["aof_rewrites"] == 1
        with RedisStore.from_url(f"embedded://{directory}") as store:
            store.append("order-1", numbered(1))
            assert modes(directory) == {}
        user.communicate("\n")
    assert modes(directory) == {}


def test_a_directory_that_was_there_may_be_read_but_what_is_in_it_may_not(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o755)
    with RedisStore.from_url(f"embedded://{directory}") as store:
        store.append("order-1", numbered(1))
        assert modes(directory) == {str(directory): 0o055}


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777, 0o720])
def test_a_directory_that_others_may_write_to_is_refused_and_left_as_it_is(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(ConfigurationError, match=rf"may write to the directory .*{mode:o}.*chmod go-w"):
        RedisStore.from_url(f"embedded://{directory}")
    assert directory.stat().st_mode & 0o7777 == mode
    assert list(directory.iterdir()) == []
    (tmp_path / "link").symlink_to(directory)
    with pytest.raises(ConfigurationError, match="may write to the directory"):
        RedisStore.from_url(f"embedded://{tmp_path}/link")


def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    if os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
    else:
        directory = Path("/usr")
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        RedisStore.from_url(f"embedded://{directory}")


@pytest.fixture
def in_sight() -> Iterator[Path]:
    """Make a directory that every user can see."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_can_open_nothing(in_sight: Path) -> None:
    directory = in_sight / "data"
    with RedisStore.from_url(f"embedded://{directory}") as store:
        store.append("order-1", numbered(1))
        # The mode 755 lets others enter the directory, but not open its files.
        for mode in (0o700, 0o755):
            directory.chmod(mode)
            done = run_forked(STRANGER, directory)
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith("ConfigurationError The directory")
            assert "belongs to another user" in done.stdout
            assert done.stdout.count("\n") == 1


def test_it_listens_on_no_port(tmp_path: Path) -> None:
    with (
        RedisStore.from_url(f"embedded://{tmp_path}"),
        redis.Redis(unix_socket_path=str(EmbeddedServer(tmp_path).socket)) as client,
    ):
        assert client.config_get("port") == {"port": "0"}
