"""A TCP proxy on loopback that cuts, delays, halves and swallows data at chosen points."""

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
    """A fault that happens once.

    Attributes:
        side: affects requests, or replies.
        after: happens after so many more bytes of this side. 0 is before the next byte, more is inside the data.
        action: "cut" the connection, "delay" the rest, or "swallow" the rest and all later data of this connection.
        delay_s: the length of the delay.
    """

    side: Literal["request", "reply"]
    after: int
    action: Literal["cut", "delay", "swallow"] = "cut"
    delay_s: float = 0.0


class Proxy:
    """Stands between clients and a server.

    Attributes:
        port: its port on loopback.
        seen: the request bytes that reached the server.
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
        """Let this fault happen next. It replaces one that has not happened yet."""
        with self._lock:
            self._fault = fault
            self._left = fault.after if fault else 0

    @property
    def armed(self) -> bool:
        """Has the fault not happened yet?"""
        return self._fault is not None

    def hold(self) -> None:
        """Start a network partition: data that is sent from now on arrives late."""
        self._flowing.clear()

    def let_go(self) -> None:
        """End the network partition."""
        self._flowing.set()

    def cut_all(self) -> None:
        """Cut all connections."""
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
            # Both ends see the connection break. The last of the two pumps closes the sockets.
            for one in (source, target):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            if gone.acquire(blocking=False):
                source.close()
                target.close()
            else:
                gone.release()

    def _forward(self, source: socket.socket, target: socket.socket, side: str) -> None:
        """Forward all data from one end, until a fault cuts the connection."""
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
        """Return the part of the data that passes, and the fault that happens after it."""
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
        """Stop listening, and cut all connections."""
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
    """A proxy that forwards whole commands. A subclass can change them, keep them back or drop them.

    The faults of `Proxy.arm` only affect replies.
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
        """Return the commands to send in place of those of one connection, or None to cut the connection.

        Args:
            commands: the commands, each with its arguments.
            login: the commands by which this connection has logged in so far, including new ones.
        """
        raise NotImplementedError


# Clients set up a connection by these commands.
LOGIN = frozenset({b"HELLO", b"AUTH", b"SELECT"})


def split_commands(buffer: bytearray) -> list[list[bytes]]:
    """Remove all complete commands from the start of a buffer, and return them."""
    commands = []
    start = 0
    while (found := _read_command(buffer, start)) is not None:
        command, start = found
        commands.append(command)
    del buffer[:start]
    return commands


def _read_command(buffer: bytearray, at: int) -> tuple[list[bytes], int] | None:
    """Return the command at an offset of a buffer, and the offset of its end. Return None if part of it is missing."""
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
    """Put a proxy in front of a server."""
    proxy = Proxy(server)
    try:
        yield proxy
    finally:
        proxy.close()
