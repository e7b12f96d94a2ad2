"""Python processes that start quickly: a process that has already imported the package forks them.

Importing the package takes most of the start of a process. Use these processes unless the test is about the start of
the interpreter.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import IO, Any, Self

__all__ = ["Forked", "run_forked"]

_ROOT = Path(__file__).parent.parent
_PRELOADED = (
    *("runic_redis.store", "runic_redis.aio", "runic_redis.ui.serving", "uvicorn", "runic_redis.cli.main"),
    *("runic_redis.cli.app", "runic_redis.cli.following", "runic_redis.cli.looking", "runic_redis.cli.running"),
)
_NUMBER = struct.Struct("=i")


class Forked:
    """A process, used like a `subprocess.Popen` in text mode. Python turns warnings in it into errors.

    Args:
        program: its source text. None runs the command line.
        arguments: its arguments.
        environment: its environment variables, by default those of this process.
        directory: its working directory, by default that of this process.
        stdout: a file to write to, by default a pipe.
        preloaded: further modules that are imported before the process starts.
    """

    def __init__(
        self,
        program: str | None,
        *arguments: object,
        environment: dict[str, str] | None = None,
        directory: Path | None = None,
        stdout: IO[Any] | None = None,
        preloaded: tuple[str, ...] = (),
    ) -> None:
        request = json.dumps(
            {
                "program": program,
                "arguments": [str(one) for one in arguments],
                "environment": dict(os.environ if environment is None else environment),
                "directory": str(directory or Path.cwd()),
            }
        ).encode()
        standard_in, write_in = os.pipe()
        if stdout is None:
            read_out, standard_out = os.pipe()
        else:
            read_out, standard_out = os.open(os.devnull, os.O_RDONLY), os.dup(stdout.fileno())
        read_err, standard_err = os.pipe()
        self._state, state = os.pipe()
        theirs = [standard_in, standard_out, standard_err, state]
        nursery = _nursery(*preloaded)
        socket.send_fds(nursery, [_NUMBER.pack(len(request))], theirs)
        nursery.sendall(request)
        for number in theirs:
            os.close(number)
        self.stdin = os.fdopen(write_in, "w", encoding="utf-8")
        self.stdout = os.fdopen(read_out, encoding="utf-8")
        self.stderr = os.fdopen(read_err, encoding="utf-8")
        self._reading = threading.Lock()
        self.pid: int = _NUMBER.unpack(os.read(self._state, _NUMBER.size))[0]
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # (Not in `close`, because several threads can wait on this pipe.)
        os.close(self._state)

    def close(self) -> None:
        """Close the pipes and wait until the process ends."""
        for pipe in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process ends. Return its exit status, or its signal as a negative number."""
        while self.returncode is None:
            if not select.select([self._state], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            with self._reading:
                if self.returncode is None:
                    self.returncode = _NUMBER.unpack(os.read(self._state, _NUMBER.size))[0]
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send the process a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, said: str = "", timeout: float | None = None) -> tuple[str, str]:
        """Write to the process, read all its output, and wait until it ends."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.write(said)
            self.stdin.close()
        errors: list[str] = []
        reading = threading.Thread(target=lambda: errors.append(self.stderr.read()))
        reading.start()
        out = self.stdout.read()
        reading.join()
        self.wait(timeout)
        return out, errors[0]


def run_forked(program: str | None, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a process until it ends, like `subprocess.run`."""
    with Forked(program, *arguments, **options) as process:
        out, err = process.communicate()
        return subprocess.CompletedProcess(arguments, process.wait(), out, err)


@functools.cache
def _nursery(*preloaded: str) -> socket.socket:
    """Start the process that forks the others, with further modules. It ends with this process."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.forking", str(theirs.fileno()), *preloaded],
            cwd=_ROOT,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _next_process(connection: socket.socket) -> dict[str, Any] | None:
    """Fork a process for each request. Return the request in the new process, and None in this one at the end."""
    while True:
        size, files, *_ = socket.recv_fds(connection, _NUMBER.size, 4)
        if not size:
            return None
        request = b""
        while len(request) < _NUMBER.unpack(size)[0]:
            request += connection.recv(_NUMBER.unpack(size)[0] - len(request))
        *standard, state = files
        if os.fork() == 0:
            connection.close()
            process = os.fork()
            if process == 0:
                os.close(state)
                for number, file in enumerate(standard):
                    os.dup2(file, number)
                    os.close(file)
                return dict(json.loads(request))
            # This process in between waits for the new one and reports its status.
            for file in standard:
                os.close(file)
            os.write(state, _NUMBER.pack(process))
            _, status = os.waitpid(process, 0)
            os.write(state, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
            os._exit(0)
        for file in files:
            os.close(file)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _main() -> None:
    for name in (*_PRELOADED, *sys.argv[2:]):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        request = _next_process(connection)
    if request is None:
        return
    signal.signal(signal.SIGINT, interrupted)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]
    # The inherited stream objects belong to the files of the parent process.
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", closefd=False)
    if request["program"] is None:
        importlib.import_module("runic_redis.cli.main").main()
    else:
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(request["program"], "program", "exec"), module.__dict__)


if __name__ == "__main__":
    _main()
