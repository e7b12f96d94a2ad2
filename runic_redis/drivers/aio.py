"""Runs operations on a redis-py client for asyncio.

The calls of concurrent tasks travel together: for each node a task of the driver's own sends what waits, reads the
replies and wakes those who wait for them. A caller that is cancelled leaves nothing half-read, since it reads nothing.

As in the other driver, commands go through the client's connection pools straight to a connection, which resends
nothing, and the user's client is left as it is.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

import redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import ConnectionPool, UnixDomainSocketConnection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MovedError,
    RedisClusterException,
    ResponseError,
)

from runic_redis.drivers.loops import Home
from runic_redis.drivers.replies import (
    CLUSTER_FAILURES,
    CONNECTION_FAILURES,
    HOLD_S,
    NO_LIMIT,
    REDIRECTIONS,
    REDISCOVERED,
    check_open,
    closed,
    error_reply,
    exhausted_pool,
    failed,
    is_exhausted,
    log,
    now_s,
    outdated,
    refusal_behind,
    refused_cluster,
    refused_connection,
    refused_login,
    said,
    too_slow,
)
from runic_redis.drivers.routing import Shipment, by_node, plain_replies, redirected
from runic_redis.errors import StoreError
from runic_redis.operations.effects import Batch, Collect, Lost, Operation
from runic_redis.operations.following import Follow, Follower
from runic_redis.operations.grouping import Call, Group, Groups, Ticket, is_full

__all__ = [
    "ClusterServer",
    "Sender",
    "Server",
    "SingleServer",
    "drop_connections",
    "limit_round_trips",
    "run",
    "run_within",
]

T = TypeVar("T")


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


async def run(operation: Operation[T], sender: "Sender") -> T:
    """Carry an operation out; its result."""
    try:
        effect = next(operation)
        while True:
            if isinstance(effect, Batch):
                effect = operation.send(await sender.ask(effect))
            elif isinstance(effect, Collect):
                effect = operation.send(await effect.fetching.collect())  # type: ignore[attr-defined]
            else:
                effect = operation.send(_Ahead(effect.batch, sender))
    except StopIteration as stop:
        result: T = stop.value
        return result


async def run_within(operation: Operation[T], sender: "Sender", limit_s: float) -> T:
    """Carry an operation out, as `run` does, but give it up after a time; its result.

    Raises:
        StoreUnavailable: the time is over.
    """
    try:
        async with asyncio.timeout(limit_s):
            return await run(operation, sender)
    except TimeoutError:
        raise too_slow(limit_s) from None


class _Waiting(Ticket):
    """A call of a task, and the future that tells it that it is answered."""

    __slots__ = ("answered",)

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch, now_s())
        self.answered = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        if not self.answered.done():  # or cancelled
            self.answered.set_result(None)


# How many follow workflows on their own connection, before the others share one; and how many pages of events are read
# at the same time. (The first ones are told a little sooner: the shared read ends every moment, and begins anew.) Of a
# pool with a limit, each of the two may take this part.
_MOST_APART = 8
_PART = 4


# Those of this process. An event loop and its tasks do not survive a fork, so a child's copies are closed.
_senders: WeakSet["Sender"] = WeakSet()


def _after_fork() -> None:
    for sender in list(_senders):
        sender.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Sender:
    """Answers batches, those of concurrent calls together.

    Args:
        server: what to send to.
        deadline_s: for how long a command is tried, from its first try; or waits for one, while the server fails.
        wait_s: how long a server may be let wait for a confirmation, in one round.
    """

    def __init__(self, server: Server, deadline_s: float, wait_s: float) -> None:
        self._server = server
        self._deadline_s = deadline_s
        self._groups = Groups(deadline_s, server.find_node if server.many_nodes else None, wait_s)
        self._drivers: dict[Group, asyncio.Task[None]] = {}
        # Rounds of large requests, and whether something has changed for drivers that can send nothing meanwhile.
        self._large: set[asyncio.Task[list[Any]]] = set()
        self._changed = asyncio.Event()
        # How many follow on their own connection; and for each node what reads for the others, and the task that has it
        # do so. A node that fails keeps up nobody who follows what another one holds.
        self._following_alone = 0
        self._followers: dict[str, Follower] = {}
        self._following: dict[str, asyncio.Task[None]] = {}
        self._most_apart = max(1, min(_MOST_APART, server.most_connections // _PART))
        self._pages = asyncio.Semaphore(self._most_apart)
        self._room = asyncio.Event()
        self._closed = False
        # Whether this is a copy in a child process.
        self.disowned = False
        self.home = Home()
        _senders.add(self)

    def disown(self) -> None:
        """In a child process: answer nobody, and leave the connections to the parent."""
        self._closed = self.disowned = True

    def check(self) -> None:
        """Raise an error unless calls can be answered here.

        Raises:
            StoreError: the store is closed, or belongs to the parent of this process, or to another event loop.
        """
        if self.disowned:
            raise StoreError(
                "The store was opened before this process was forked, and is closed here: its event loop and its "
                "connections are the parent's. Nothing was sent. Open another store in this process."
            )
        check_open(self._closed)
        self.home.check()

    async def ask(self, batch: Batch) -> list[Any]:
        """The replies to a batch.

        Raises:
            StoreError: the store is closed, or the connection cannot be used.
        """
        if not batch.commands:
            return []
        check_open(self._closed)
        ticket = _Waiting(batch)
        if isinstance(batch, Follow) and self._following_alone >= self._most_apart:
            await self._follow(ticket, batch)
        elif isinstance(batch, Follow):
            self._following_alone += 1
            try:
                await self._ask_apart(ticket)
            finally:
                self._following_alone -= 1
        elif batch.apart:
            await self._ask_apart(ticket, self._pages)
        else:
            await self._ask_together(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.replies

    async def _ask_together(self, ticket: "_Waiting") -> None:
        found = self._groups.find(ticket)
        while is_full(found):
            self._room.clear()
            await self._room.wait()
            check_open(self._closed)
        for group, places in found.items():
            group.add(ticket, places)
            if group not in self._drivers:
                self._have_driven(group)
        self._changed.set()
        try:
            await ticket.answered
        except asyncio.CancelledError:
            for group in found:
                group.abandon(ticket)
            raise

    async def _ask_apart(self, ticket: Ticket, connections: asyncio.Semaphore | None = None) -> None:
        group = Group(self._deadline_s)
        group.add(ticket, range(len(ticket.batch.commands)))
        await self._drive(group, apart=True, connections=connections)

    async def _follow(self, ticket: "_Waiting", batch: Follow) -> None:
        """Have the task read that reads for many callers."""
        nodes = {self._server.find_node(key) for key in batch.after} if self._server.many_nodes else set()
        node = nodes.pop() if len(nodes) == 1 else ""
        follower = self._followers.setdefault(node, Follower())
        follower.add(ticket, batch)
        if node not in self._following:
            self._have_followed(node)
        try:
            await ticket.answered
        finally:
            follower.remove(ticket)

    def _have_followed(self, node: str) -> None:
        task = self._following[node] = asyncio.create_task(self._keep_following(self._followers[node]))
        task.add_done_callback(lambda task: self._following_ended(node, task))

    async def _keep_following(self, follower: Follower) -> None:
        """Read for many callers, until for a moment nobody waits."""
        while commands := follower.compose(now_s()):
            ticket = Ticket(Batch(commands, apart=True), now_s())
            await self._ask_apart(ticket)
            if ticket.error is not None:
                follower.fail(ticket.error)
                return
            follower.take(ticket.replies, now_s())
            # Those that were just answered may want more: the next read is for them, too.
            await asyncio.sleep(0)

    def _following_ended(self, node: str, task: asyncio.Task[None]) -> None:
        """Also of one that somebody has cancelled, perhaps before it began."""
        del self._following[node]
        follower = self._followers[node]
        if self._closed:
            follower.fail(closed())
        elif not task.cancelled() and (error := task.exception()) is not None:
            follower.fail(failed(error))
        elif follower.has_callers:
            self._have_followed(node)

    def _have_driven(self, group: Group) -> None:
        """Have a task of its own send what is asked of a node."""
        driver = self._drivers[group] = asyncio.create_task(self._keep_driving(group))
        driver.add_done_callback(lambda _: self._driver_ended(group))

    def _driver_ended(self, group: Group) -> None:
        """Also of one that somebody has cancelled, perhaps before it began."""
        del self._drivers[group]
        self._room.set()
        if not self._closed and not group.idle:
            self._have_driven(group)

    async def _keep_driving(self, group: Group) -> None:
        """Send what is asked of a node, until for a moment nothing is."""
        while not group.idle:
            await self._drive(group)
            # Those that were just answered may have more to send: what they add goes in the next round.
            await asyncio.sleep(0)

    async def _drive(self, group: Group, *, apart: bool = False, connections: asyncio.Semaphore | None = None) -> None:
        """Send rounds of a group until nothing waits in it."""
        while not group.idle:
            started_s = now_s()
            group.give_up(started_s)
            calls = group.next_round(started_s)
            self._room.set()
            for large in group.take_large():
                self._send_large(group, large)
            if calls:
                await self._exchange(group, calls, apart=apart, connections=connections)
            elif not group.idle and group.resume_s > started_s:
                await asyncio.sleep(group.resume_s - started_s)
            elif not group.idle:
                # All that waits is behind large requests.
                self._changed.clear()
                await self._changed.wait()

    def _send_large(self, group: Group, calls: list[Call]) -> None:
        """Have a task of its own send a large request."""
        task = asyncio.create_task(self._server.send(calls, apart=True))
        self._large.add(task)
        task.add_done_callback(lambda task: self._large_ended(group, calls, task))

    def _large_ended(self, group: Group, calls: list[Call], task: asyncio.Task[list[Any]]) -> None:
        """Also of one that somebody has cancelled, perhaps before it began."""
        self._large.discard(task)
        self._changed.set()
        if task.cancelled():
            group.fail(calls, closed())
        elif (error := task.exception()) is None:
            self._take(group, calls, task.result())
        else:
            group.fail(calls, error if isinstance(error, StoreError) else failed(error))

    async def _exchange(
        self, group: Group, calls: list[Call], *, apart: bool, connections: asyncio.Semaphore | None
    ) -> None:
        try:
            if connections is None:
                answers = await self._server.send(calls, apart=apart)
            else:
                answers = await self._send_in_turn(calls, connections)
        except StoreError as error:
            group.fail(calls, error)
        except asyncio.CancelledError:
            group.fail(calls, closed())
            raise
        except Exception as error:  # what redis-py should not raise must not leave those who wait without an answer
            group.fail(calls, failed(error))
        else:
            self._take(group, calls, answers)

    async def _send_in_turn(self, calls: list[Call], connections: asyncio.Semaphore) -> list[Any]:
        """Send calls on a connection of their own, once fewer than the most of these are in use."""
        try:
            async with asyncio.timeout(self._deadline_s):
                await connections.acquire()
        except TimeoutError:
            return [Lost("all connections for pages of events are in use", sent=False)] * len(calls)
        try:
            return await self._server.send(calls, apart=True)
        finally:
            connections.release()

    def _take(self, group: Group, calls: list[Call], answers: list[Any]) -> None:
        if news := group.take(calls, answers, now_s()):
            log.info("%s", news)

    async def close(self) -> None:
        """Answer nobody any more, and those who wait with an error."""
        self._closed = True
        if self.home.loop.is_closed():
            # Nobody waits. What was connected can only be dropped.
            self._server.drop()
        else:
            self._room.set()
            tasks = [*self._drivers.values(), *self._large, *self._following.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for group in self._groups:
                group.end(closed())
        await self._server.close()


class _Ahead:
    """A batch under way, that nobody waits for yet."""

    def __init__(self, batch: Batch, sender: Sender) -> None:
        self._task = asyncio.create_task(sender.ask(batch))
        self._task.add_done_callback(_retrieve)

    async def collect(self) -> list[Any]:
        """The replies."""
        return await self._task

    def cancel(self) -> None:
        """Give up on the replies."""
        self._task.cancel()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Have asyncio not complain of a failure that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


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
        except AuthenticationError as error:
            raise refused_login(error) from error
        except StoreError:
            raise
        except (TimeoutError, *CONNECTION_FAILURES) as error:
            if is_exhausted(error):
                raise exhausted_pool(self.pool.max_connections) from error
            return [Lost(said(error), sent=False)] * shipment.count
        except redis.RedisError as error:
            return [refused_connection(error)] * shipment.count
        replies: list[Any] = []
        whole = False
        try:
            await self._converse(connection, shipment, replies)
            whole = not outdated(replies)
        except AuthenticationError as error:
            raise refused_login(error) from error
        except (TimeoutError, redis.RedisError, *CONNECTION_FAILURES) as error:
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
        try:
            name: str = self._node(key).name
        except RedisClusterException:
            return ""
        return name

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
        replies: list[Any] = [None] * len(calls)
        waiting = list(range(len(calls)))
        asking: dict[int, ClusterNode] = {}
        for _ in range(REDIRECTIONS):
            # Nearly always one: the calls of a round are those for a node.
            for node, shipment in by_node(calls, waiting, asking, self._node, replies):
                answers = await self._connections_to(node).exchange(shipment, apart=apart)
                for place, reply in zip(shipment.places, shipment.replies(answers), strict=True):
                    replies[place] = reply
            waiting = redirected(replies, waiting)
            if not waiting:
                break
            asking = await self._follow(replies, waiting)
        if any(isinstance(reply, Lost) for reply in replies):
            await self._rediscover()
        return plain_replies(replies)

    def _node(self, key: str) -> ClusterNode:
        node: ClusterNode = self._client.get_node_from_key(key)
        return node

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

    async def _follow(self, replies: list[Any], redirected: list[int]) -> dict[int, ClusterNode]:
        """Learn where the cluster's slots have moved; the nodes to ask for slots that are just moving."""
        asking = {}
        moved = False
        for place in redirected:
            error = replies[place]
            if isinstance(error, MovedError):
                moved = True
            else:
                asking[place] = self._client.get_node(host=error.host, port=error.port) or ClusterNode(
                    error.host, error.port, "primary", **self._client.connection_kwargs
                )
        if moved:
            await self._rediscover()
        return asking

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
