"""The servers that threads send to: a single one, or a cluster."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from redis.cluster import ClusterNode

from runic_redis.drivers.redirections import NO_NODE, REDISCOVERED, Redirections, any_node, node_name
from runic_redis.drivers.redis_py import CLUSTER_FAILURES, check_open, log, no_cluster, plain_reply
from runic_redis.drivers.shipment import Shipment
from runic_redis.drivers.sync_connections import Connections, RoundTrip, Subscription, replace_locks
from runic_redis.errors import StoreError, StoreUnavailable
from runic_redis.protocol.rounds import Call


class Pending(Protocol):
    """Calls that were sent, and whose replies were not read yet."""

    def finish(self) -> list[Any]:
        """Return the replies, in order: values, `ErrorReply`s, and `ConnectionLost` for those without a reply."""

    def cancel(self) -> None:
        """Drop the replies."""

    def interrupt(self) -> None:
        """From another thread: make a `finish` fail that is in progress."""


class Server(Protocol):
    """A single server or a cluster, to which calls are sent."""

    @property
    def find_node(self) -> Callable[[str], str] | None:
        """A function from a key to the name of the node that holds it; None for a single server."""

    def begin(self, calls: Sequence[Call]) -> Pending:
        """Send calls, and return without waiting for the replies."""

    def subscribe(self, channel: str) -> Subscription:
        """Return a new connection that listens to a channel.

        Raises:
            StoreError: the server cannot be used, or is not known yet.
        """

    def forget(self) -> None:
        """In a child process: forget the connections and the locks of the parent's threads."""

    def close(self) -> None:
        """Close the connections that were made for the store."""


class _SinglePending(RoundTrip):
    """Calls sent to one Redis."""

    def finish(self) -> list[Any]:
        return list(map(plain_reply, self._shipment.replies(super().finish())))


class SingleServer:
    """One Redis server, or the current primary of a Sentinel's service.

    Args:
        client: a redis-py client.
        owned: whether it was made for the store.
    """

    find_node = None

    def __init__(self, client: Any, *, owned: bool) -> None:
        self._client = client
        self._owned = owned
        self._closed = False
        self._connections = Connections(client.connection_pool, owned=owned)

    def begin(self, calls: Sequence[Call]) -> Pending:
        """Send the calls on one connection."""
        check_open(self._closed)
        return _SinglePending(self._connections, Shipment(calls, range(len(calls))))

    def subscribe(self, channel: str) -> Subscription:
        """Return a new connection that listens to a channel."""
        check_open(self._closed)
        return Subscription(self._connections, channel)

    def forget(self) -> None:
        """In a child process: forget the connections and the locks of the parent's threads."""
        replace_locks(self._client)
        self._connections.forget()

    def close(self) -> None:
        """Reject further calls; close the client, if it was made for the store."""
        self._closed = True
        self._connections.close()
        if self._owned:
            self._client.close()


class ClusterServer:
    """A Redis Cluster: each call goes to the node that holds its key.

    Args:
        connect: returns a redis-py cluster client, which asks for the nodes as it is made.
        owned: whether it is made for the store.
    """

    def __init__(self, connect: Callable[[], Any], *, owned: bool) -> None:
        self._connect = connect
        self._client: Any = None
        self._owned = owned
        self._closed = False
        self._connections: dict[str, Connections] = {}

    def find_node(self, key: str) -> str:
        """Return the name of the node that holds a key; '' if it is not known."""
        return "" if self._client is None else node_name(self._client, key)

    def begin(self, calls: Sequence[Call]) -> Pending:
        """Send each node its calls on one connection."""
        check_open(self._closed)
        if self._client is None:
            try:
                self._client = self._connect()
            except CLUSTER_FAILURES as error:
                return _Unreached([no_cluster(error)] * len(calls))
            if self._closed:  # while this waited
                self.close()
                check_open(self._closed)
        make_node = partial(ClusterNode, server_type="primary")
        return _ClusterPending(self, Redirections(calls, self._client, make_node))

    def subscribe(self, channel: str) -> Subscription:
        """Return a new connection to any node, since each has the messages of all."""
        check_open(self._closed)
        node = None if self._client is None else any_node(self._client)
        if node is None:
            raise StoreUnavailable(NO_NODE)
        return Subscription(self.connections(node), channel)

    def connections(self, node: ClusterNode) -> Connections:
        """Return a node's connections."""
        pool = self._client.get_redis_connection(node).connection_pool
        known = self._connections.get(node.name)
        if known is None or known.pool is not pool:
            known = self._connections[node.name] = Connections(pool, owned=self._owned)
        return known

    def rediscover(self) -> None:
        """Ask the cluster again which node has which slots. A failure shows in the next try."""
        with suppress(*CLUSTER_FAILURES):
            self._client.nodes_manager.initialize()
            log.info(REDISCOVERED)

    def forget(self) -> None:
        """In a child process: forget the connections and the locks of the parent's threads."""
        if self._client is None:
            return
        replace_locks(self._client)
        for connections in self._connections.values():
            connections.forget()

    def close(self) -> None:
        """Reject further calls; close the client, if it was made for the store."""
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
        """Do nothing: nothing was sent."""

    def interrupt(self) -> None:
        """Do nothing: no `finish` waits."""


class _ClusterPending:
    """Calls sent to the nodes of a cluster."""

    def __init__(self, server: ClusterServer, redirections: Redirections) -> None:
        self._server = server
        self._redirections = redirections
        self._in_flight: list[tuple[RoundTrip, Shipment]] = []
        # The one whose replies are being read.
        self._reading: RoundTrip | None = None
        self._send()

    def _send(self) -> None:
        for node, shipment in self._redirections.next_shipments():
            try:
                round_trip = RoundTrip(self._server.connections(node), shipment)
            except StoreError as error:
                self._reject(shipment, error)
            except BaseException:
                self.cancel()
                raise
            else:
                self._in_flight.append((round_trip, shipment))

    def _reject(self, shipment: Shipment, error: StoreError) -> None:
        """Use an error as the reply to each call of a node that cannot be used."""
        self._redirections.take(shipment, [error] * len(shipment.places))

    def finish(self) -> list[Any]:
        """Return the replies. It follows redirections."""
        while True:
            while self._in_flight:
                round_trip, shipment = self._in_flight.pop(0)
                self._reading = round_trip
                try:
                    answers = round_trip.finish()
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
        """Drop the replies."""
        for round_trip, _ in self._in_flight:
            round_trip.cancel()
        self._in_flight = []

    def interrupt(self) -> None:
        """From another thread: make a `finish` fail that is in progress."""
        if (reading := self._reading) is not None:
            reading.interrupt()
        for round_trip, _ in list(self._in_flight):
            round_trip.interrupt()
