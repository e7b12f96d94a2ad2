"""The servers that asyncio tasks send to: a single one, or a cluster."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import ConnectionPool, UnixDomainSocketConnection
from redis.exceptions import (
    BusyLoadingError,
    ResponseError,
)

from runic_redis.drivers.redirections import REDISCOVERED, Redirections, node_name
from runic_redis.drivers.redis_py import (
    CLUSTER_FAILURES,
    FAILURES,
    HOLD_S,
    NO_LIMIT,
    check_open,
    error_reply,
    log,
    now_s,
    outdated,
    refusal_behind,
    refused_cluster,
    unconnected,
)
from runic_redis.drivers.shipment import Shipment
from runic_redis.protocol.queue import Call

__all__ = ["ClusterServer", "Server", "SingleServer", "drop_connections", "limit_round_trips"]


class Server(Protocol):
    """Something that answers calls."""

    many_nodes: bool
    most_connections: int

    def find_node(self, key: str) -> str:
        """The name of the node that holds a key; asked only where there are many."""

    async def send(self, calls: Sequence[Call], *, apart: bool = False) -> list[Any]:
        """The replies, in order: values, `ErrorReply`s, and `Lost` for those without an answer."""

    async def close(self) -> None:
        """Let go of connections that were made for the store alone."""

    def drop(self) -> None:
        """Drop these connections, once their event loop is closed."""


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


# A time limit is for each reply; setting it anew for each would cost more than reading one.
_RENEW_S = 0.1


class _Connections:
    """A node's connections.

    One is held for the rounds of a second, which spares its way back into the pool and out again; then it goes back,
    for the pool to look after. Of a client of the user's own none is held: its pool may be small.

    Args:
        pool: where they come from.
        hold: whether to hold one.
        timeout_s: how long to wait for each reply; None to leave that to the connections.
    """

    def __init__(self, pool: Any, *, hold: bool, timeout_s: float | None) -> None:
        self.pool = pool
        self._hold = hold
        self._timeout_s = timeout_s
        # Connections of the store's own limit each step, except over a unix socket: redis.asyncio runs a handshake of
        # its own there. Those connections, which no network slows down, have one limit for all steps.
        self._take_s = timeout_s
        if timeout_s is not None and hold and not issubclass(pool.connection_class, UnixDomainSocketConnection):
            self._take_s = None
        self._held: tuple[Any, float] | None = None
        self._closed = False

    async def exchange(self, shipment: Shipment, *, apart: bool) -> list[Any]:
        """Send commands on one connection, and read the replies, redis-py's errors among them as values.

        A connection that fails, or is interrupted, between the first byte sent and the last byte read is closed:
        what is left on it belongs to nobody.

        Raises:
            ConfigurationError: the server refused the login, or the connection's settings.
        """
        try:
            connection, since_s = await self._take(apart=apart)
        except FAILURES as error:
            return [unconnected(error, self.pool.max_connections)] * shipment.count
        replies: list[Any] = []
        whole = False
        try:
            await self._converse(connection, shipment, replies)
            whole = not outdated(replies)
        except FAILURES as error:
            replies += refusal_behind(error)
            replies += [shipment.broken(error)] * (shipment.count - len(replies))
        finally:
            if not whole:
                await connection.disconnect(nowait=True)
            if not whole or apart or not self._hold or self._held or self._closed:
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
                # (Later on, a check of the connection's health would stand in the middle of a request.)
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

    async def _take(self, *, apart: bool) -> tuple[Any, float]:
        """A connection, and since when it has been out of the pool."""
        if not apart and self._held is not None:
            (connection, since_s), self._held = self._held, None
            if now_s() - since_s < HOLD_S:
                return connection, since_s
            await self.pool.release(connection)
        try:
            async with asyncio.timeout(self._take_s):
                return await self.pool.get_connection(), now_s()
        except redis.ConnectionError as error:
            # Over a unix socket, redis.asyncio puts this around whatever the server refused.
            refusal = error.__cause__
            if not isinstance(refusal, redis.RedisError):
                raise
        raise refusal

    async def close(self) -> None:
        """Give back what is held."""
        self._closed = True
        if self._held is not None:
            (connection, _), self._held = self._held, None
            await self.pool.release(connection)


class SingleServer:
    """One Redis, or whichever is the primary of a Sentinel's service.

    Args:
        client: a client of redis.asyncio.
        owned: whether it was made for the store alone.
        timeout_s: how long to wait for each reply; None to leave that to the client's connections.
    """

    many_nodes = False

    def __init__(self, client: Any, *, owned: bool, timeout_s: float | None = None) -> None:
        self._client = client
        self._owned = owned
        self._closed = False
        self.most_connections = client.connection_pool.max_connections
        self._connections = _Connections(client.connection_pool, hold=owned, timeout_s=timeout_s)

    def find_node(self, _: str) -> str:
        """The one node."""
        return ""

    async def send(self, calls: Sequence[Call], *, apart: bool = False) -> list[Any]:
        """Send the calls on one connection, then read the replies."""
        check_open(self._closed)
        shipment = Shipment(calls, range(len(calls)))
        answers = await self._connections.exchange(shipment, apart=apart)
        return [error_reply(reply) for reply in shipment.replies(answers)]

    async def close(self) -> None:
        """Answer nobody any more; close the client, if it was made for the store."""
        self._closed = True
        await self._connections.close()
        if self._owned:
            await self._client.aclose()

    def drop(self) -> None:
        """Drop the connections of a client that was made for the store, once their event loop is closed."""
        if self._owned:
            drop_connections(self._client.connection_pool)


class ClusterServer:
    """A Redis Cluster: each call goes to the node that holds its key.

    A cluster client's nodes keep no pool that lends connections, so each has one here, made as its own would be.

    Args:
        connect: gives a cluster client of redis.asyncio.
        owned: whether it was made for the store alone.
        timeout_s: how long to wait for each reply; None to leave that to the client's connections.
    """

    many_nodes = True
    most_connections = NO_LIMIT

    def __init__(self, connect: Callable[[], Any], *, owned: bool, timeout_s: float | None = None) -> None:
        self._client = connect()
        self._owned = owned
        self._timeout_s = timeout_s
        self._closed = False
        # Whether the client knows the nodes.
        self._discovered = False
        self._connections: dict[str, _Connections] = {}

    def find_node(self, key: str) -> str:
        """The name of the node that holds a key, as far as is known."""
        return node_name(self._client, key)

    async def send(self, calls: Sequence[Call], *, apart: bool = False) -> list[Any]:
        """Send each node its calls on one connection, and follow where the cluster redirects them."""
        check_open(self._closed)
        if not self._discovered:
            try:
                async with asyncio.timeout(self._discovery_s()):
                    await self._client.initialize()
            except CLUSTER_FAILURES as error:
                return [refused_cluster(error)] * len(calls)
            self._discovered = True
        make_node = partial(ClusterNode, server_type="primary", **self._client.connection_kwargs)
        redirections = Redirections(calls, self._client, make_node)
        while not redirections.is_finished:
            for node, shipment in redirections.next_shipments():
                answers = await self._connections_to(node).exchange(shipment, apart=apart)
                redirections.take(shipment, shipment.replies(answers))
            if redirections.follow():
                await self._rediscover()
        return redirections.replies()

    def _connections_to(self, node: ClusterNode) -> _Connections:
        known = self._connections.get(node.name)
        if known is None:
            options = node.connection_kwargs
            if self._timeout_s is not None:
                options = limit_round_trips(options, self._timeout_s)
            pool = ConnectionPool(
                connection_class=node.connection_class, max_connections=node.max_connections, **options
            )
            known = self._connections[node.name] = _Connections(pool, hold=True, timeout_s=self._timeout_s)
        return known

    def _discovery_s(self) -> float | None:
        """How long asking for the nodes may take: any of those that are known may be silent."""
        return (
            None if self._timeout_s is None else self._timeout_s * (1 + len(self._client.nodes_manager.startup_nodes))
        )

    async def _rediscover(self) -> None:
        """Ask the cluster anew which node has which slots; a failure shows in the next attempt."""
        try:
            async with asyncio.timeout(self._discovery_s()):
                await self._client.nodes_manager.initialize()
        except CLUSTER_FAILURES:
            pass
        else:
            log.info(REDISCOVERED)

    async def close(self) -> None:
        """Answer nobody any more; close what was made for the store."""
        self._closed = True
        for connections in self._connections.values():
            await connections.close()
            await connections.pool.aclose()
        if self._owned:
            await self._client.aclose()

    def drop(self) -> None:
        """Drop the connections that were made for the store, once their event loop is closed."""
        for connections in self._connections.values():
            drop_connections(connections.pool)
        if self._owned:
            nodes = self._client.nodes_manager
            for node in (*nodes.nodes_cache.values(), *nodes.startup_nodes.values()):
                for connection in node._connections:
                    _drop(connection)


def drop_connections(pool: Any) -> None:
    """Close a pool's connections, once their event loop is closed."""
    for connection in [*pool._available_connections, *pool._in_use_connections]:
        _drop(connection)


def _drop(connection: Any) -> None:
    """Close a connection whose event loop is closed: redis-py and asyncio would leave that to the garbage collector."""
    writer, connection._writer, connection._reader = connection._writer, None, None
    with suppress(RuntimeError, AttributeError):  # the latter of a connection in memory
        writer.transport.abort()
    # That has asked the loop for the rest.
    with suppress(Exception):
        writer.transport._call_connection_lost(None)
