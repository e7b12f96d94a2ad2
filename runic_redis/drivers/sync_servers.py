"""The servers that threads send to: a single one, or a cluster.

Commands go straight to a connection: redis-py"s own command methods send a command again when its connection
breaks, up to ten times by default, and nothing below an operation may do that. The user"s client itself is left as it
is. Connections are kept in plain lists, whose operations are atomic: a signal"s handler may raise anywhere, and a fork
may copy any state.
"""

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import Lock, RLock
from typing import Any, Protocol

import redis
import redis.connection
from redis.cluster import ClusterNode
from redis.exceptions import (
    BusyLoadingError,
    ResponseError,
)

from runic_redis.drivers.redirections import REDISCOVERED, Redirections, node_name
from runic_redis.drivers.redis_py import (
    CLUSTER_FAILURES,
    CONNECTION_FAILURES,
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
from runic_redis.errors import StoreError
from runic_redis.protocol.effects import Lost
from runic_redis.protocol.queue import Call

__all__ = ["ClusterServer", "Pending", "Server", "SingleServer"]


class Pending(Protocol):
    """Calls that were sent, and not answered yet."""

    def finish(self) -> list[Any]:
        """The replies, in order: values, `ErrorReply`s, and `Lost` for those without an answer."""

    def cancel(self) -> None:
        """Give up on the replies."""

    def interrupt(self) -> None:
        """From another thread: have a `finish` that waits fail."""


class Server(Protocol):
    """Something that answers calls."""

    many_nodes: bool

    def find_node(self, key: str) -> str:
        """The name of the node that holds a key; asked only where there are many."""

    def begin(self, calls: Sequence[Call]) -> Pending:
        """Send calls, together with nothing else."""

    def forget(self) -> None:
        """In a child process: forget the connections and the locks of the parent's threads."""

    def close(self) -> None:
        """Let go of connections that were made for the store alone."""


_NEW_LOCKS: dict[type, Callable[[], Any]] = {type(Lock()): Lock, type(RLock()): RLock}


def _renew_locks(client: Any) -> None:
    """In a child process: replace the locks of a client, its pools, its nodes and its Sentinels.

    A thread of the parent, which does not exist here, may have held any of them.
    """
    renewed: dict[Any, Any] = {}
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
                    setattr(one, name, renewed.setdefault(value, make()))
                else:
                    found.append(value)


class _Connections:
    """A node's connections.

    The connections of the store's own client are kept here, in a list and not in redis-py's pool: neither an interrupt
    nor a fork leaves a list in a broken state, and nothing limits its length. A connection that an interrupt loses is
    garbage, which closes it. Connections of the user's client, or of a URL with `max_connections`, come from redis-py's
    pool, and go back to it after each exchange.

    Args:
        pool: makes the connections.
        owned: whether its client was made for the store alone.
    """

    def __init__(self, pool: Any, *, owned: bool) -> None:
        self.pool = pool
        self._keep = owned and pool.max_connections >= NO_LIMIT
        # Connections that nobody uses, the last used last, each with the time of its last check.
        self._idle: list[tuple[Any, float]] = []
        self._closed = False

    def take(self) -> tuple[Any, float]:
        """A connection, and when it was last checked."""
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
        """Whether an idle connection still stands, has nothing unread, and leads to the primary."""
        try:
            return bool(self.pool.owns_connection(connection)) and not connection.can_read()
        except CONNECTION_FAILURES:
            return False

    def give_back(self, connection: Any, checked_s: float) -> None:
        """Have a connection back, all its replies read."""
        if not self._keep:
            self.pool.release(connection)
            return
        self._idle.append((connection, checked_s))
        if self._closed:
            self.close()

    def drop(self, connection: Any) -> None:
        """Have a connection back that is not to be used again as it is."""
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
        """Close the connections that nobody uses; those in use, when they come back."""
        self._closed = True
        while self._idle:
            self._idle.pop()[0].disconnect()


class _Exchange:
    """Commands sent on one connection, whose replies are to be read.

    A connection that fails, or is interrupted, between the first byte sent and the last byte read is closed:
    what is left on it belongs to nobody.

    Raises:
        ConfigurationError: the server refused the login, or the connection's settings.
    """

    def __init__(self, connections: _Connections, shipment: Shipment) -> None:
        self._connections = connections
        self._shipment = shipment
        self._lost: Lost | None = None
        self._connection: Any = None
        try:
            self._connection, self._checked_s = connections.take()
        except FAILURES as error:
            self._lost = unconnected(error, connections.pool.max_connections)
            return
        try:
            unsent = shipment.unsent
            pieces = len(unsent)
            while unsent:
                # (Later on, a check of the connection's health would stand in the middle of a request.)
                self._connection.send_packed_command(unsent[:1], check_health=len(unsent) == pieces)
                del unsent[0]
        except FAILURES as error:
            self.cancel()
            self._lost = shipment.broken(error)
        except BaseException:
            self.cancel()
            raise

    def finish(self) -> list[Any]:
        """The replies, redis-py's errors among them as values."""
        replies: list[Any] = []
        if self._lost is None:
            read_response = self._connection.read_response
            try:
                for _ in range(self._shipment.count):
                    try:
                        replies.append(read_response())
                    except (ResponseError, BusyLoadingError) as error:
                        replies.append(error)
            except FAILURES as error:
                self.cancel()
                replies += refusal_behind(error)
                self._lost = self._shipment.broken(error)
            except BaseException:
                self.cancel()
                raise
        if self._lost is not None:
            return replies + [self._lost] * (self._shipment.count - len(replies))
        connection, self._connection = self._connection, None
        if outdated(replies):
            self._connections.drop(connection)
        else:
            self._connections.give_back(connection, self._checked_s)
        return replies

    def cancel(self) -> None:
        """Give up on the replies, and on the connection with them."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._connections.drop(connection)

    def interrupt(self) -> None:
        """From another thread: have what waits for the replies fail.

        If they have just come, the connection may be another call's by now. That is then a lost connection, as any.
        """
        connected = getattr(self._connection, "_sock", None)
        if isinstance(connected, socket.socket):
            with suppress(OSError):
                # (That of a TLS connection would also end its encryption, under the thread that reads.)
                socket.socket.shutdown(connected, socket.SHUT_RDWR)


class _SinglePending:
    """Calls sent to one Redis."""

    def __init__(self, connections: _Connections, calls: Sequence[Call]) -> None:
        self._shipment = Shipment(calls, range(len(calls)))
        self._exchange = _Exchange(connections, self._shipment)
        self.cancel = self._exchange.cancel
        self.interrupt = self._exchange.interrupt

    def finish(self) -> list[Any]:
        return [error_reply(reply) for reply in self._shipment.replies(self._exchange.finish())]


class SingleServer:
    """One Redis, or whichever is the primary of a Sentinel's service.

    Args:
        client: a redis-py client.
        owned: whether it was made for the store alone.
    """

    many_nodes = False

    def __init__(self, client: Any, *, owned: bool) -> None:
        self._client = client
        self._owned = owned
        self._closed = False
        self._connections = _Connections(client.connection_pool, owned=owned)

    def find_node(self, _: str) -> str:
        """The one node."""
        return ""

    def begin(self, calls: Sequence[Call]) -> Pending:
        """Send the calls on one connection."""
        check_open(self._closed)
        return _SinglePending(self._connections, calls)

    def forget(self) -> None:
        """In a child process: forget the connections and the locks of the parent's threads."""
        _renew_locks(self._client)
        self._connections.forget()

    def close(self) -> None:
        """Answer nobody any more; close the client, if it was made for the store."""
        self._closed = True
        self._connections.close()
        if self._owned:
            self._client.close()


class ClusterServer:
    """A Redis Cluster: each call goes to the node that holds its key.

    Args:
        connect: gives a redis-py cluster client, which asks for the nodes as it is made.
        owned: whether it is made for the store alone.
    """

    many_nodes = True

    def __init__(self, connect: Callable[[], Any], *, owned: bool) -> None:
        self._connect = connect
        self._client: Any = None
        self._owned = owned
        self._closed = False
        self._connections: dict[str, _Connections] = {}

    def find_node(self, key: str) -> str:
        """The name of the node that holds a key, as far as is known."""
        return "" if self._client is None else node_name(self._client, key)

    def begin(self, calls: Sequence[Call]) -> Pending:
        """Send each node its calls on one connection."""
        check_open(self._closed)
        if self._client is None:
            try:
                self._client = self._connect()
            except CLUSTER_FAILURES as error:
                return _Unreached([refused_cluster(error)] * len(calls))
            if self._closed:  # while this waited
                self.close()
                check_open(self._closed)
        return _ClusterPending(self, calls)

    def connections(self, node: ClusterNode) -> _Connections:
        """A node's connections."""
        pool = self._client.get_redis_connection(node).connection_pool
        known = self._connections.get(node.name)
        if known is None or known.pool is not pool:
            known = self._connections[node.name] = _Connections(pool, owned=self._owned)
        return known

    def redirections(self, calls: Sequence[Call]) -> Redirections:
        """Return what decides where calls go."""
        return Redirections(calls, self._client, partial(ClusterNode, server_type="primary"))

    def rediscover(self) -> None:
        """Ask the cluster anew which node has which slots; a failure shows in the next attempt."""
        with suppress(*CLUSTER_FAILURES):
            self._client.nodes_manager.initialize()
            log.info(REDISCOVERED)

    def forget(self) -> None:
        """In a child process: forget the connections and the locks of the parent's threads."""
        if self._client is None:
            return
        _renew_locks(self._client)
        for connections in self._connections.values():
            connections.forget()

    def close(self) -> None:
        """Answer nobody any more; close the client, if it was made for the store."""
        self._closed = True
        for connections in self._connections.values():
            connections.close()
        if self._owned and self._client is not None:
            self._client.close()


class _Unreached:
    """Calls that were not sent, since no node of the cluster is known."""

    def __init__(self, replies: list[Any]) -> None:
        self._replies = replies

    def finish(self) -> list[Any]:
        return self._replies

    def cancel(self) -> None:
        """Nothing was sent."""

    def interrupt(self) -> None:
        """Nothing waits."""


class _ClusterPending:
    """Calls sent to the nodes of a cluster."""

    def __init__(self, server: ClusterServer, calls: Sequence[Call]) -> None:
        self._server = server
        self._redirections = server.redirections(calls)
        self._under_way: list[tuple[_Exchange, Shipment]] = []
        # The one whose replies are being read.
        self._reading: _Exchange | None = None
        self._send()

    def _send(self) -> None:
        for node, shipment in self._redirections.next_shipments():
            try:
                exchange = _Exchange(self._server.connections(node), shipment)
            except StoreError as error:
                self._reject(shipment, error)
            except BaseException:
                self.cancel()
                raise
            else:
                self._under_way.append((exchange, shipment))

    def _reject(self, shipment: Shipment, error: StoreError) -> None:
        """Use an error as the reply to each call of a node that cannot be used."""
        self._redirections.take(shipment, [error] * len(shipment.places))

    def finish(self) -> list[Any]:
        """Return the replies. It follows redirections."""
        while True:
            while self._under_way:
                exchange, shipment = self._under_way.pop(0)
                self._reading = exchange
                try:
                    answers = exchange.finish()
                except StoreError as error:
                    self._reject(shipment, error)
                    continue
                except BaseException:
                    self.cancel()
                    raise
                self._redirections.take(shipment, shipment.replies(answers))
            if self._redirections.follow():
                self._server.rediscover()
            if self._redirections.is_finished:
                return self._redirections.replies()
            self._send()

    def cancel(self) -> None:
        """Give up on the replies."""
        for exchange, _ in self._under_way:
            exchange.cancel()
        self._under_way = []

    def interrupt(self) -> None:
        """From another thread: have a `finish` that waits fail."""
        if (reading := self._reading) is not None:
            reading.interrupt()
        for exchange, _ in list(self._under_way):
            exchange.interrupt()
