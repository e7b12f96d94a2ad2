"""Keeps an embedded server for the processes that use it, and ends it when there are none.

Run as a script, with nothing but the standard library, so that it starts at once and needs little:

    supervisor.py start|keep PROGRAM DIRECTORY SOCKET FSYNC

With ``start`` it starts the server; with ``keep`` it takes over one that runs and whose supervisor has died. It leaves
the process that started it, so that neither the end of that process nor a Ctrl-C in its terminal reaches the server.
It returns to the starter when it holds its locks.
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
    """Keep the server until its last user has gone; return its exit status."""
    os.chdir(directory)
    os.umask(0o077)
    # The starter's threads may have blocked signals; the server would inherit that, and never end.
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
        # The locks outlive the fork: the starter knows that they are held when its child has ended.
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
            # It holds this lock as long as it lives.
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
        ],
        stdin=subprocess.DEVNULL,
        # The server inherits this lock, and so holds it as long as it lives, even without its supervisor.
        pass_fds=[alone.fileno()],
    )


def _shut_down(listens: str) -> None:
    """End a server that another process started: a process id may mean another one by now, or in another container."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(listens)
        connection.sendall(b"SHUTDOWN\r\n")
        connection.recv(1)


if __name__ == "__main__":
    # Not sys.exit: it would wait for nothing here, and the daemon thread may be inside flock.
    os._exit(main(*sys.argv[1:]))
