"""The connections that asyncio tasks use: how a node's are kept, and a round trip on one of them.

As for threads, commands go straight to a connection, which retries nothing, and the user's client is not changed.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self

import redis
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.exceptions import BusyLoadingError, ResponseError

from runic_redis.drivers.redis_py import (
    FAILURES,
    HOLD_S,
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


def limit_round_trips(options: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """Return options of connections that have a time limit for each reply of their handshake, and for no other reply.

    redis.asyncio sets up a timer for every reply; here a round trip has one. A handshake is several round trips.
    """
    connect: Callable[[Any], Any] | None = options.get("redis_connect_func")

    async def shake_hands(connection: Any) -> None:
        connection.socket_timeout = timeout_s
        await (connection.on_connect() if connect is None else connect(connection))
        connection.socket_timeout = None

    return {**options, "socket_timeout": None, "redis_connect_func": shake_hands}


# A timeout is for each reply. It is renewed only this often, as to renew it costs more than to read a reply.
_RENEW_S = 0.1


class Connections:
    """A node's connections.

    One is held for the round trips of a second, which saves its way back into the pool and out again. Then it goes
    back, and the pool checks it. Of a user's client none is held, as its pool may be small.

    Args:
        pool: the pool that they come from.
        hold: whether to hold one.
        timeout_s: the timeout of each reply; None to leave that to the connections.
    """

    def __init__(self, pool: Any, *, hold: bool, timeout_s: float | None) -> None:
        self.pool = pool
        self._hold = hold
        self._timeout_s = timeout_s
        # Connections of the store's client have a timeout for each step of a handshake, except over a unix socket,
        # where redis.asyncio has another handshake. Those, which no network slows down, have one timeout for all steps.
        self._take_s = timeout_s
        if timeout_s is not None and hold and not issubclass(pool.connection_class, UnixDomainSocketConnection):
            self._take_s = None
        self._held: tuple[Any, float] | None = None
        self._closed = False

    async def round_trip(self, shipment: Shipment, *, own_connection: bool) -> list[Any]:
        """Send commands on one connection, and read the replies, redis-py's errors among them as values.

        A connection that fails, or is interrupted, between the first byte sent and the last byte read is closed, as
        unread replies may be left on it.

        Raises:
            ConfigurationError: the server rejected the login, or the connection's settings.
        """
        try:
            connection, since_s = await self._take(own_connection=own_connection)
        except FAILURES as error:
            return [no_connection(error, self.pool.max_connections)] * shipment.count
        replies: list[Any] = []
        whole = False
        try:
            await self._converse(connection, shipment, replies)
            whole = not outdated(replies)
        except FAILURES as error:
            replies += replies_behind(error)
            replies += [shipment.connection_lost(error)] * (shipment.count - len(replies))
        finally:
            if not whole:
                await connection.disconnect(nowait=True)
            if not whole or own_connection or not self._hold or self._held or self._closed:
                await self.pool.release(connection)
            else:
                self._held = connection, since_s
        return replies

    async def _converse(self, connection: Any, shipment: Shipment, replies: list[Any]) -> None:
        timeout_s = self._timeout_s
        clock = asyncio.get_running_loop().time
        async with asyncio.timeout(timeout_s) as limit:
            unsent = shipment.unsent
            pieces = len(unsent)
            while unsent:
                # (After the first piece, a health check would land in the middle of the request.)
                await connection.send_packed_command(unsent[0], check_health=len(unsent) == pieces)
                del unsent[0]
                if unsent and timeout_s is not None:
                    limit.reschedule(clock() + timeout_s)
            renew_s = clock() + _RENEW_S
            read_response = connection.read_response
            for _ in range(shipment.count):
                try:
                    replies.append(await read_response())
                except (ResponseError, BusyLoadingError) as error:
                    replies.append(error)
                if timeout_s is not None and clock() > renew_s:
                    renew_s = clock() + _RENEW_S
                    limit.reschedule(clock() + timeout_s)

    async def _take(self, *, own_connection: bool) -> tuple[Any, float]:
        """Return a connection, and the time when it left the pool."""
        if not own_connection and self._held is not None:
            (connection, since_s), self._held = self._held, None
            if now_s() - since_s < HOLD_S:
                return connection, since_s
            await self.pool.release(connection)
        return await self.connect(), now_s()

    async def connect(self) -> Any:
        """Return a connection of the pool, in time."""
        try:
            async with asyncio.timeout(self._take_s):
                return await self._connect()
        except redis.ConnectionError as error:
            # Over a unix socket, redis.asyncio wraps the error of a server in this one.
            refusal = error.__cause__
            if not isinstance(refusal, redis.RedisError):
                raise
        raise refusal

    async def _connect(self) -> Any:
        """Return a connection of the pool. redis-py may lose a cancellation while it connects: then raise it here."""
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        connection = await self.pool.get_connection()
        if task and task.cancelling() > cancelled:
            await connection.disconnect(nowait=True)
            await self.pool.release(connection)
            raise asyncio.CancelledError
        return connection

    async def close(self) -> None:
        """Give the held connection back."""
        self._closed = True
        if self._held is not None:
            (connection, _), self._held = self._held, None
            await self.pool.release(connection)


class Subscription:
    """A connection that listens to a channel. It does not retry, unlike redis-py's `PubSub`.

    Args:
        connections: the node's connections.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._connection: Any = None
        self._lost: ConnectionLost | None = None

    async def open(self, channel: str) -> Self:
        """Connect and subscribe. A failure shows in the next `read`.

        Raises:
            ConfigurationError: the server rejected the login, or the connection's settings.
        """
        pool = self._connections.pool
        check_pool(pool)
        try:
            self._connection = await self._connections.connect()
            await self.send("SUBSCRIBE", channel)
        except FAILURES as error:
            self._lost = no_connection(error, pool.max_connections)
        except BaseException:  # it was cancelled
            await self.close()
            raise
        return self

    async def send(self, *command: str) -> None:
        """Send a command. A failure shows in the next `read`."""
        try:
            # (A health check of redis-py would take a message for its reply.)
            await self._connection.send_command(*command, check_health=False)
        except FAILURES as error:
            self._lost = ConnectionLost(exception_text(error), sent=True)

    async def read(self, wait_s: float) -> Any:
        """Return the next reply or message, an `ErrorReply` or a `ConnectionLost`; None if none comes in time."""
        if self._lost is not None:
            return self._lost
        try:
            return await self._connection.read_response(timeout=wait_s, push_request=True)
        except (ResponseError, BusyLoadingError) as error:
            return plain_reply(error)
        except FAILURES as error:
            return ConnectionLost(exception_text(error), sent=True)

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)
            await self._connections.pool.release(self._connection)


def drop_connections(pool: Any) -> None:
    """Close a pool's connections, after their event loop is closed."""
    for connection in [*pool._available_connections, *pool._in_use_connections]:
        drop_connection(connection)


def drop_connection(connection: Any) -> None:
    """Close a connection whose event loop is closed. redis-py and asyncio leave that to the garbage collector."""
    writer, connection._writer, connection._reader = connection._writer, None, None
    with suppress(RuntimeError, AttributeError):  # the latter of a connection in memory
        writer.transport.abort()
    # The abort has scheduled the rest on the loop, which is closed.
    with suppress(Exception):
        writer.transport._call_connection_lost(None)
