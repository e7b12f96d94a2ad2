"""The supervisor of an embedded server. It ends the server when no process uses it.

It runs as a script with the standard library only, so that it starts fast and needs little memory:

    supervisor.py start|keep PROGRAM DIRECTORY SOCKET FSYNC

With ``start`` it starts the server. With ``keep`` it takes over a running server whose supervisor has died. It
detaches from the process that starts it, so that neither the end of that process nor a Ctrl-C in its terminal reaches
the server. The script returns when the supervisor holds its locks.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO


def main(task: str, program: str, directory: str, listens: str, fsync: str) -> int:
    """Supervise the server until its last user has ended, and return its exit status."""
    os.chdir(directory)
    os.umask(0o077)
    # The starter may have blocked signals. The server would inherit this and never end.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    with (
        Path("users.lock").open("ab") as users,
        Path("supervisor.lock").open("ab") as kept,
        Path("server.lock").open("ab") as alone,
    ):
        try:
            fcntl.flock(kept, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if task == "start":
                fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another server runs in this directory and does not answer here", file=sys.stderr)
            return 1
        # The locks outlive the fork: when its child ends, the starter knows that they are held.
        if os.fork():
            return 0
        os.setsid()
        server = _start(program, listens, fsync, alone) if task == "start" else None

        def end() -> None:
            if server is None:
                _shut_down(listens)
            else:
                server.terminate()

        def end_with_the_last_user() -> None:
            fcntl.flock(users, fcntl.LOCK_EX)
            end()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: end())
        threading.Thread(target=end_with_the_last_user, daemon=True).start()
        if server is None:
            # The server holds this lock as long as it lives.
            fcntl.flock(alone, fcntl.LOCK_EX)
            return 0
        return server.wait()


def _start(program: str, listens: str, fsync: str, alone: IO[bytes]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [
            program,
            *("--port", "0"),
            *("--unixsocket", listens),
            *("--unixsocketperm", "700"),
            *("--save", ""),
            *("--appendonly", "yes"),
            *("--appendfsync", fsync),
            *("--maxmemory-policy", "noeviction"),
            # So a workflow with one event takes 1 kB. The default, 4096, makes it 4.5 kB (docs/operating.md).
            *("--stream-node-max-bytes", "640"),
        ],
        stdin=subprocess.DEVNULL,
        # The server inherits this lock, and so holds it as long as it lives, even without a supervisor.
        pass_fds=[alone.fileno()],
    )


def _shut_down(listens: str) -> None:
    """End a server that another process started, by its socket: its process id may belong to another process."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(listens)
        connection.sendall(b"SHUTDOWN\r\n")
        connection.recv(1)


if __name__ == "__main__":
    # Not sys.exit, since the daemon thread may be inside flock.
    os._exit(main(*sys.argv[1:]))
