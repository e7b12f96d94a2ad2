"""Keeps an embedded server for the processes that use it, and ends it when there are none.

Run as a script, with nothing but the standard library, so that it starts at once and needs little:

    supervisor.py PROGRAM DIRECTORY SOCKET FSYNC PIPE

It leaves the process that started it, so that neither that one's end nor a Ctrl-C in its terminal reaches the
server. PIPE is a file descriptor to keep open for as long as this process lives.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path


def main(program: str, directory: str, socket: str, fsync: str) -> int:
    """Run the server until its last user has gone; its exit status."""
    os.chdir(directory)
    os.umask(0o077)
    with Path("users.lock").open("ab") as users, Path("server.lock").open("ab") as alone:
        # The server inherits this lock, and so holds it as long as it lives, even without its supervisor.
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        server = subprocess.Popen(
            [
                program,
                *("--port", "0"),
                *("--unixsocket", socket),
                *("--unixsocketperm", "700"),
                *("--dir", directory),
                *("--save", ""),
                *("--appendonly", "yes"),
                *("--appendfsync", fsync),
                *("--maxmemory-policy", "noeviction"),
            ],
            stdin=subprocess.DEVNULL,
            pass_fds=[alone.fileno()],
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.terminate())

        def end_with_the_last_user() -> None:
            fcntl.flock(users, fcntl.LOCK_EX)
            server.terminate()

        threading.Thread(target=end_with_the_last_user, daemon=True).start()
        return server.wait()


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    os.setsid()
    # Not sys.exit: it would wait for nothing here, and the daemon thread may be inside flock.
    try:
        status = main(*sys.argv[1:5])
    except BlockingIOError:
        print("another server runs in this directory and does not answer here", file=sys.stderr, flush=True)
        status = 1
    os._exit(status)
