"""A TCP proxy on loopback that cuts, delays, halves and swallows what passes, at chosen points."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from hiredis import pack_command

from tests.servers import RunningServer


@dataclass(frozen=True)
class Fault:
    """What happens once to what passes.

    Attributes:
        side: to requests, or to replies.
        after: once so many bytes of these have passed: 0 is before the next one, more is inside it.
        action: "cut" the connection; "delay" the rest for a time; "swallow" the rest, and all else on this connection.
        delay_s: for how long to delay.
    """

    side: Literal["request", "reply"]
    after: int
    action: Literal["cut", "delay", "swallow"] = "cut"
    delay_s: float = 0.0


class Proxy:
    """Stands between clients and a server.

    Attributes:
        port: where it listens, on loopback.
        seen: the bytes of requests that reached the server.
        done: how many faults have happened.
    """

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.seen = bytearray()
        self.done = 0
        self._fault: Fault | None = None
        self._left = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._flowing = threading.Event()
        self._flowing.set()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def arm(self, fault: Fault | None) -> None:
        """Have a fault happen next, in place of one that has not happened yet."""
        with self._lock:
            self._fault = fault
            self._left = fault.after if fault else 0

    @property
    def armed(self) -> bool:
        """Whether the fault is still to happen."""
        return self._fault is not None

    def hold(self) -> None:
        """Let nothing pass any more: a partition. What is sent meanwhile arrives late."""
        self._flowing.clear()

    def let_go(self) -> None:
        """End the partition."""
        self._flowing.set()

    def cut_all(self) -> None:
        """Cut every connection there is."""
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                upstream = self._server.connect()
            except OSError:
                client.close()
                continue
            self._sockets = [one for one in self._sockets if one.fileno() >= 0] + [client, upstream]
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            gone = threading.Semaphore(0)
            for source, target, side in ((client, upstream, "request"), (upstream, client, "reply")):
                thread = threading.Thread(target=self._pump, args=(source, target, side, gone))
                thread.start()
                self._threads.append(thread)

    def _pump(self, source: socket.socket, target: socket.socket, side: str, gone: threading.Semaphore) -> None:
        try:
            self._forward(source, target, side)
        except OSError:
            pass
        finally:
            # Both ends see an end, as when a connection breaks; the last one of the two pumps closes them.
            for one in (source, target):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            if gone.acquire(blocking=False):
                source.close()
                target.close()
            else:
                gone.release()

    def _forward(self, source: socket.socket, target: socket.socket, side: str) -> None:
        """Pass on all that one end sends, until the connection is to be cut."""
        swallowing = False
        while data := source.recv(65536):
            self._flowing.wait()
            if swallowing:
                continue
            passing, fault = self._meet(data, side)
            if side == "request":
                self.seen += passing
            target.sendall(passing)
            if fault is None:
                continue
            if fault.action == "cut":
                break
            if fault.action == "swallow":
                swallowing = True
                continue
            self._closing.wait(fault.delay_s)
            target.sendall(data[len(passing) :])

    def _meet(self, data: bytes, side: str) -> tuple[bytes, Fault | None]:
        """What of some data may pass, and the fault that then happens."""
        with self._lock:
            fault = self._fault
            if fault is None or fault.side != side:
                return data, None
            if len(data) <= self._left:
                self._left -= len(data)
                return data, None
            self._fault = None
            self.done += 1
            return data[: self._left], fault

    def close(self) -> None:
        """Cut everything, and listen no more."""
        self._closing.set()
        self._flowing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        self.cut_all()
        for thread in self._threads:
            thread.join()


class CommandProxy(Proxy):
    """A proxy that passes on whole commands, and lets a subclass change, keep back or drop them.

    Only replies meet the faults of `Proxy.arm`.
    """

    def _forward(self, source: socket.socket, target: socket.socket, side: str) -> None:
        if side == "reply":
            super()._forward(source, target, side)
            return
        buffer = bytearray()
        login: list[list[bytes]] = []
        while data := source.recv(65536):
            self._flowing.wait()
            buffer += data
            commands = split_commands(buffer)
            login += [command for command in commands if command[0].upper() in LOGIN]
            passing = self.admit(commands, login)
            if passing is None:
                break
            target.sendall(b"".join(pack_command(tuple(command)) for command in passing))

    def admit(self, commands: list[list[bytes]], login: list[list[bytes]]) -> list[list[bytes]] | None:
        """Return what to send in place of some commands of one connection, or None to cut the connection.

        Args:
            commands: the commands, each with its arguments.
            login: what this connection has sent so far to log in, these commands included.
        """
        raise NotImplementedError


# The commands by which a client sets up its connection.
LOGIN = frozenset({b"HELLO", b"AUTH", b"SELECT"})


def split_commands(buffer: bytearray) -> list[list[bytes]]:
    """Take all complete commands from the start of a buffer."""
    commands = []
    start = 0
    while (found := _read_command(buffer, start)) is not None:
        command, start = found
        commands.append(command)
    del buffer[:start]
    return commands


def _read_command(buffer: bytearray, at: int) -> tuple[list[bytes], int] | None:
    """The command that begins at a place in a buffer, and where it ends; None if part of it is missing."""
    end = buffer.find(b"\r\n", at)
    if end < 0:
        return None
    count, at = int(buffer[at + 1 : end]), end + 2
    command = []
    for _ in range(count):
        end = buffer.find(b"\r\n", at)
        if end < 0:
            return None
        size, at = int(buffer[at + 1 : end]), end + 2
        if len(buffer) < at + size + 2:
            return None
        command.append(bytes(buffer[at : at + size]))
        at += size + 2
    return command, at


@contextmanager
def proxied(server: RunningServer) -> Iterator[Proxy]:
    """A proxy in front of a server."""
    proxy = Proxy(server)
    try:
        yield proxy
    finally:
        proxy.close()
