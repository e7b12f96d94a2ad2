"""The servers that asyncio tasks send to: a single one, or a cluster."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import ConnectionPool

from runic_redis.drivers.aio_connections import (
    Connections,
    Subscription,
    drop_connection,
    drop_connections,
    limit_round_trips,
)
from runic_redis.drivers.redirections import NO_NODE, REDISCOVERED, Redirections, any_node, node_name
from runic_redis.drivers.redis_py import CLUSTER_FAILURES, NO_LIMIT, check_open, log, no_cluster, plain_reply
from runic_redis.drivers.shipment import Shipment
from runic_redis.errors import StoreUnavailable
from runic_redis.protocol.rounds import Call


class Server(Protocol):
    """A single server or a cluster, to which calls are sent."""

    most_connections: int

    @property
    def find_node(self) -> Callable[[str], str] | None:
        """A function from a key to the name of the node that holds it; None for a single server."""

    async def send(self, calls: Sequence[Call], *, own_connection: bool = False) -> list[Any]:
        """Return the replies, in order: values, `ErrorReply`s, and `ConnectionLost` for those without a reply."""

    async def subscribe(self, channel: str) -> Subscription:
        """Return a new connection that listens to a channel.

        Raises:
            StoreError: the server cannot be used, or is not known yet.
        """

    async def close(self) -> None:
        """Close the connections that were made for the store."""

    def drop(self) -> None:
        """Drop the connections that were made for the store, after their event loop is closed."""


class SingleServer:
    """One Redis server, or the current primary of a Sentinel's service.

    Args:
        client: a client of redis.asyncio.
        owned: whether it was made for the store.
        timeout_s: the timeout of each reply; None to leave that to the client's connections.
    """

    find_node = None

    def __init__(self, client: Any, *, owned: bool, timeout_s: float | None = None) -> None:
        self._client = client
        self._owned = owned
        self._closed = False
        self.most_connections = client.connection_pool.max_connections
        self._connections = Connections(client.connection_pool, hold=owned, timeout_s=timeout_s)

    async def send(self, calls: Sequence[Call], *, own_connection: bool = False) -> list[Any]:
        """Send the calls on one connection, and return the replies."""
        check_open(self._closed)
        shipment = Shipment(calls, range(len(calls)))
        answers = await self._connections.round_trip(shipment, own_connection=own_connection)
        return [plain_reply(reply) for reply in shipment.replies(answers)]

    async def subscribe(self, channel: str) -> Subscription:
        """Return a new connection that listens to a channel."""
        check_open(self._closed)
        return await Subscription(self._connections).open(channel)

    async def close(self) -> None:
        """Reject further calls; close the client, if it was made for the store."""
        self._closed = True
        await self._connections.close()
        if self._owned:
            await self._client.aclose()

    def drop(self) -> None:
        """Drop the connections of a client that was made for the store, after their event loop is closed."""
        if self._owned:
            drop_connections(self._client.connection_pool)


class ClusterServer:
    """A Redis Cluster: each call goes to the node that holds its key.

    The nodes of a cluster client have no pool that lends connections. So each node has a pool here.

    Args:
        connect: returns a cluster client of redis.asyncio.
        owned: whether it was made for the store.
        timeout_s: the timeout of each reply; None to leave that to the client's connections.
    """

    most_connections = NO_LIMIT

    def __init__(self, connect: Callable[[], Any], *, owned: bool, timeout_s: float | None = None) -> None:
        self._client = connect()
        self._owned = owned
        self._timeout_s = timeout_s
        self._closed = False
        # Whether the client knows the nodes.
        self._discovered = False
        self._connections: dict[str, Connections] = {}

    def find_node(self, key: str) -> str:
        """Return the name of the node that holds a key; '' if it is not known."""
        return node_name(self._client, key)

    async def send(self, calls: Sequence[Call], *, own_connection: bool = False) -> list[Any]:
        """Send each node its calls on one connection, follow redirections, and return the replies."""
        check_open(self._closed)
        if not self._discovered:
            try:
                async with asyncio.timeout(self._discovery_s()):
                    await self._client.initialize()
            except CLUSTER_FAILURES as error:
                return [no_cluster(error)] * len(calls)
            self._discovered = True
        make_node = partial(ClusterNode, server_type="primary", **self._client.connection_kwargs)
        redirections = Redirections(calls, self._client, make_node)
        while not redirections.is_finished:
            for node, shipment in redirections.next_shipments():
                answers = await self._connections_to(node).round_trip(shipment, own_connection=own_connection)
                redirections.take(shipment, shipment.replies(answers))
            if redirections.follow():
                await self._rediscover()
        return redirections.replies()

    async def subscribe(self, channel: str) -> Subscription:
        """Return a new connection to any node, since each has the messages of all."""
        check_open(self._closed)
        node = any_node(self._client)
        if node is None:
            raise StoreUnavailable(NO_NODE)
        return await Subscription(self._connections_to(node)).open(channel)

    def _connections_to(self, node: ClusterNode) -> Connections:
        known = self._connections.get(node.name)
        if known is None:
            options = node.connection_kwargs
            if self._timeout_s is not None:
                options = limit_round_trips(options, self._timeout_s)
            pool = ConnectionPool(
                connection_class=node.connection_class, max_connections=node.max_connections, **options
            )
            known = self._connections[node.name] = Connections(pool, hold=True, timeout_s=self._timeout_s)
        return known

    def _discovery_s(self) -> float | None:
        """Return the timeout of asking for the nodes: any of the known nodes may be silent."""
        tries = 1 + len(self._client.nodes_manager.startup_nodes)
        return None if self._timeout_s is None else self._timeout_s * tries

    async def _rediscover(self) -> None:
        """Ask the cluster again which node has which slots. A failure shows in the next try."""
        with suppress(*CLUSTER_FAILURES):
            async with asyncio.timeout(self._discovery_s()):
                await self._client.nodes_manager.initialize()
            log.info(REDISCOVERED)

    async def close(self) -> None:
        """Reject further calls; close what was made for the store."""
        self._closed = True
        for connections in self._connections.values():
            await connections.close()
            await connections.pool.aclose()
        if self._owned:
            await self._client.aclose()

    def drop(self) -> None:
        """Drop the connections that were made for the store, after their event loop is closed."""
        for connections in self._connections.values():
            drop_connections(connections.pool)
        if self._owned:
            nodes = self._client.nodes_manager
            for node in (*nodes.nodes_cache.values(), *nodes.startup_nodes.values()):
                for connection in node._connections:
                    drop_connection(connection)
