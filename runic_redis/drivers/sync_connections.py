"""The connections that threads use: how a node's are kept, and a round trip on one of them.

Commands go straight to a connection. redis-py's own command methods send a command again when its connection breaks, up
to ten times by default, and below the queue nothing may be retried. The user's client itself is not changed.

Connections are kept in plain lists, whose operations are atomic: a signal handler may raise anywhere, and a fork may
copy any state.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, RLock
from typing import Any

import redis
import redis.connection
from redis.exceptions import BusyLoadingError, ResponseError

from runic_redis.drivers.redis_py import (
    CONNECTION_FAILURES,
    FAILURES,
    HOLD_S,
    NO_LIMIT,
    check_pool,
    exception_text,
    no_connection,
    now_s,
    outdated,
    plain_reply,
    replies_behind,
)
from runic_redis.drivers.shipment import Shipment
from runic_redis.protocol.effects import ConnectionLost

_NEW_LOCKS: dict[type, Callable[[], Any]] = {type(Lock()): Lock, type(RLock()): RLock}


def replace_locks(client: Any) -> None:
    """In a child process: replace the locks of a client, its pools, its nodes and its Sentinels.

    A thread of the parent, which does not exist here, may have held any of them.
    """
    replaced: dict[Any, Any] = {}
    seen: set[int] = set()
    found = [client]
    while found:
        one = found.pop()
        if id(one) in seen or isinstance(one, redis.connection.AbstractConnection):
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            found += one.values()
        elif isinstance(one, list | tuple):
            found += one
        elif any(kind.__module__.startswith("redis.") for kind in type(one).__mro__):
            for name, value in list(getattr(one, "__dict__", {}).items()):
                if make := _NEW_LOCKS.get(type(value)):
                    setattr(one, name, replaced.setdefault(value, make()))
                else:
                    found.append(value)


class Connections:
    """A node's connections.

    The connections of the store's client are kept in a list here, and not in redis-py's pool: neither an interrupt nor
    a fork leaves a list in a broken state, and its length is not limited. A connection that is lost by an interrupt is
    closed by the garbage collector. Connections of the user's client, or of a URL with `max_connections`, come from
    redis-py's pool, and go back to it after each round trip.

    Args:
        pool: makes the connections.
        owned: whether its client was made for the store.
    """

    def __init__(self, pool: Any, *, owned: bool) -> None:
        self.pool = pool
        self._keep = owned and pool.max_connections >= NO_LIMIT
        # Idle connections, the last used last, each with the time of its last check.
        self._idle: list[tuple[Any, float]] = []
        self._closed = False

    def take(self) -> tuple[Any, float]:
        """Return a connection, and the time of its last check."""
        if not self._keep:
            return self.pool.get_connection(), 0.0
        try:
            connection, checked_s = self._idle.pop()
        except IndexError:
            connection = self.pool.connection_class(**self.pool.connection_kwargs)
        else:
            if now_s() - checked_s < HOLD_S:
                return connection, checked_s
            if not self._is_usable(connection):
                connection.disconnect()
        try:
            connection.connect()
        except BaseException:
            connection.disconnect()
            raise
        return connection, now_s()

    def _is_usable(self, connection: Any) -> bool:
        """Whether an idle connection is open, has nothing unread, and leads to the primary."""
        try:
            return bool(self.pool.owns_connection(connection)) and not connection.can_read()
        except CONNECTION_FAILURES:
            return False

    def give_back(self, connection: Any, checked_s: float) -> None:
        """Take a connection back, all of whose replies were read."""
        if not self._keep:
            self.pool.release(connection)
            return
        self._idle.append((connection, checked_s))
        if self._closed:
            self.close()

    def drop(self, connection: Any) -> None:
        """Take a connection back and close it, as it cannot be used again in its state."""
        try:
            connection.disconnect()
        finally:
            if not self._keep:
                self.pool.release(connection)

    def forget(self) -> None:
        """In a child process: leave the connections to the parent."""
        self._idle = []
        self.pool.reset()

    def close(self) -> None:
        """Close the idle connections; those in use are closed when they come back."""
        self._closed = True
        while self._idle:
            self._idle.pop()[0].disconnect()


class RoundTrip:
    """Commands sent on one connection, whose replies are read later.

    A connection that fails, or is interrupted, between the first byte sent and the last byte read is closed, as unread
    replies may be left on it.

    Raises:
        ConfigurationError: the server rejected the login, or the connection's settings.
    """

    def __init__(self, connections: Connections, shipment: Shipment) -> None:
        self._connections = connections
        self._shipment = shipment
        self._lost: ConnectionLost | None = None
        self._connection: Any = None
        try:
            self._connection, self._checked_s = connections.take()
        except FAILURES as error:
            self._lost = no_connection(error, connections.pool.max_connections)
            return
        try:
            unsent = shipment.unsent
            self._connection.send_packed_command(unsent[:1])
            del unsent[0]
            while unsent:
                # (A health check would land in the middle of the request.)
                self._connection.send_packed_command(unsent[:1], check_health=False)
                del unsent[0]
        except BaseException as error:
            self.cancel()
            if not isinstance(error, FAILURES):
                raise
            self._lost = shipment.connection_lost(error)

    def finish(self) -> list[Any]:
        """Return the replies, redis-py's errors among them as values."""
        replies: list[Any] = []
        if self._lost is None:
            read_response = self._connection.read_response
            try:
                for _ in range(self._shipment.count):
                    try:
                        replies.append(read_response())
                    except (ResponseError, BusyLoadingError) as error:
                        replies.append(error)
            except BaseException as error:
                self.cancel()
                if not isinstance(error, FAILURES):
                    raise
                replies += replies_behind(error)
                self._lost = self._shipment.connection_lost(error)
        if self._lost is not None:
            return replies + [self._lost] * (self._shipment.count - len(replies))
        connection, self._connection = self._connection, None
        if outdated(replies):
            self._connections.drop(connection)
        else:
            self._connections.give_back(connection, self._checked_s)
        return replies

    def cancel(self) -> None:
        """Drop the replies, and the connection with them."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._connections.drop(connection)

    def interrupt(self) -> None:
        """From another thread: make a `finish` fail that is in progress.

        If its replies have just arrived, another call may use the connection by now, and loses it.
        """
        _shut_down(self._connection)


class Subscription:
    """A connection that listens to a channel. It does not retry, unlike redis-py's `PubSub`.

    Args:
        connections: the node's connections.
        channel: the channel.

    Raises:
        ConfigurationError: the server rejected the login, or the connection's settings.
    """

    def __init__(self, connections: Connections, channel: str) -> None:
        self._connections = connections
        self._connection: Any = None
        self._lost: ConnectionLost | None = None
        check_pool(connections.pool)
        try:
            self._connection, _ = connections.take()
        except FAILURES as error:
            self._lost = no_connection(error, connections.pool.max_connections)
        else:
            self.send("SUBSCRIBE", channel)

    def send(self, *command: str) -> None:
        """Send a command. A failure shows in the next `read`."""
        try:
            # (A health check of redis-py would take a message for its reply.)
            self._connection.send_command(*command, check_health=False)
        except FAILURES as error:
            self._lost = ConnectionLost(exception_text(error), sent=True)

    def read(self, wait_s: float) -> Any:
        """Return the next reply or message, an `ErrorReply` or a `ConnectionLost`; None if none comes in time."""
        if self._lost is not None:
            return self._lost
        try:
            if not self._connection.can_read(timeout=wait_s):
                return None
            return self._connection.read_response(push_request=True)
        except (ResponseError, BusyLoadingError) as error:
            return plain_reply(error)
        except FAILURES as error:
            return ConnectionLost(exception_text(error), sent=True)

    def interrupt(self) -> None:
        """From another thread: make a `read` fail that is in progress."""
        _shut_down(self._connection)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connections.drop(self._connection)


def _shut_down(connection: Any) -> None:
    """Make a read fail that another thread has in progress on a connection."""
    connected = getattr(connection, "_sock", None)
    if isinstance(connected, socket.socket):
        with suppress(OSError):
            # (The method of a TLS socket would also end the encryption, while the thread reads.)
            socket.socket.shutdown(connected, socket.SHUT_RDWR)
