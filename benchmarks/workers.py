"""Processes that work for a case. They take a line and answer it with a line of JSON."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from .contenders.base import Missing


class Worker:
    """A Python file that runs in a process until it is closed.

    Args:
        path: the file.
        arguments: its arguments.
    """

    def __init__(self, path: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def receive(self) -> Any:
        """Return the next answer. Raises `Missing` if the process ended instead."""
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise Missing(f"its process ended with status {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """Close its input, at which it ends, and wait for that."""
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
