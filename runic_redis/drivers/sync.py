"""Runs operations on a redis-py client, a thread of the caller's at a time for each call.

Commands go through the client's connection pools, straight to a connection: redis-py's own command methods send a
command again when its connection breaks, up to ten times by default, and here nothing below an operation may do
that. The user's client itself is left as it is.
"""

import time
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import redis
from redis.cluster import ClusterNode
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    MovedError,
    RedisClusterException,
    ResponseError,
)

from runic_redis.drivers.replies import CONNECTION_FAILURES, error_reply, refused_connection, refused_login
from runic_redis.errors import StoreError
from runic_redis.operations.effects import Answers, Batch, Command, ErrorReply, Lost, Operation

__all__ = ["ClusterServer", "Server", "SingleServer", "run"]

T = TypeVar("T")

# How often a batch follows a cluster's redirections before the operation is told to wait.
_REDIRECTIONS = 5
# Counts the time that a machine sleeps, where the system has such a clock: the server's goes on meanwhile.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def _now_s() -> float:
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Server(Protocol):
    """Something that answers batches."""

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands, in order: values, `ErrorReply`s, and `Lost` for those without an answer."""

    def close(self) -> None:
        """Let go of connections that were made for the store alone."""


def run(operation: Operation[T], server: Server) -> T:
    """Carry an operation out; its result."""
    try:
        effect = next(operation)
        while True:
            if isinstance(effect, Batch):
                sent_s = _now_s()
                effect = operation.send(Answers(server.send(effect.commands), sent_s))
            else:
                time.sleep(effect.seconds)
                effect = operation.send(_now_s())
    except StopIteration as stop:
        result: T = stop.value
        return result


class _Closing:
    """What both kinds of server share: they may be closed, and then answer nobody, not even a retry under way."""

    def __init__(self, client: Any, *, owned: bool) -> None:
        self._client = client
        self._owned = owned
        self._closed = False

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("The store is closed: open another. Nothing was sent.")

    def close(self) -> None:
        """Answer nobody any more; close the client, if it was made for the store."""
        self._closed = True
        if self._owned:
            self._client.close()


class SingleServer(_Closing):
    """One Redis, or whichever is the primary of a Sentinel's service."""

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """Send the commands on one connection, then read the replies."""
        self._check_open()
        replies = exchange(self._client.connection_pool, [command.args for command in commands])
        return [error_reply(reply) if isinstance(reply, ResponseError) else reply for reply in replies]


class ClusterServer(_Closing):
    """A Redis Cluster: each command goes to the node that holds its key."""

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """Send each node its commands on one connection, and follow where the cluster redirects them."""
        self._check_open()
        replies: list[Any] = [None] * len(commands)
        waiting = list(range(len(commands)))
        asking: dict[int, ClusterNode] = {}
        for _ in range(_REDIRECTIONS):
            for node, places in self._by_node(commands, waiting, asking, replies):
                self._send_to(node, places, commands, asking, replies)
            redirected = [place for place in waiting if isinstance(replies[place], MovedError | AskError)]
            asking = self._follow(replies, redirected)
            waiting = redirected
            if not waiting:
                break
        if any(isinstance(reply, Lost) for reply in replies):
            self._rediscover()
        return [
            ErrorReply("TRYAGAIN", f"the cluster redirects in a circle: {reply}")
            if isinstance(reply, MovedError | AskError)
            else error_reply(reply)
            if isinstance(reply, ResponseError)
            else reply
            for reply in replies
        ]

    def _by_node(
        self,
        commands: Sequence[Command],
        waiting: list[int],
        asking: dict[int, ClusterNode],
        replies: list[Any],
    ) -> list[tuple[ClusterNode, list[int]]]:
        groups: dict[str, tuple[ClusterNode, list[int]]] = {}
        for place in waiting:
            try:
                node = asking.get(place) or self._client.get_node_from_key(commands[place].key)
            except RedisClusterException as error:
                replies[place] = Lost(str(error), sent=False)
                continue
            groups.setdefault(node.name, (node, []))[1].append(place)
        return list(groups.values())

    def _send_to(
        self,
        node: ClusterNode,
        places: list[int],
        commands: Sequence[Command],
        asking: dict[int, ClusterNode],
        replies: list[Any],
    ) -> None:
        """Send one node its commands, each that it is only asked for behind an ASKING."""
        pool = self._client.get_redis_connection(node).connection_pool
        packed: list[Sequence[Any]] = []
        answered_by: list[int] = []
        for place in places:
            if place in asking:
                packed.append(("ASKING",))
            packed.append(commands[place].args)
            answered_by.append(len(packed) - 1)
        answers = exchange(pool, packed)
        for place, at in zip(places, answered_by, strict=True):
            replies[place] = answers[at]

    def _follow(self, replies: list[Any], redirected: list[int]) -> dict[int, ClusterNode]:
        """Learn where the cluster's slots have moved; the nodes to ask for slots that are just moving."""
        asking = {}
        moved = False
        for place in redirected:
            error = replies[place]
            if isinstance(error, MovedError):
                moved = True
            else:
                asking[place] = self._client.get_node(host=error.host, port=error.port) or ClusterNode(
                    error.host, error.port, "primary"
                )
        if moved:
            self._rediscover()
        return asking

    def _rediscover(self) -> None:
        """Ask the cluster anew which node has which slots; a failure shows in the next attempt."""
        try:
            self._client.nodes_manager.initialize()
        except (RedisClusterException, *CONNECTION_FAILURES):
            pass


def exchange(pool: Any, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Send commands on one connection and read as many replies, errors among them as values.

    A connection that fails, or is interrupted, between the first byte sent and the last byte read is closed:
    what is left on it belongs to nobody.

    Raises:
        ConfigurationError: the server refused the login, or the connection's settings.
    """
    replies: list[Any] = []
    try:
        connection = pool.get_connection()
    except AuthenticationError as error:
        raise refused_login(error) from error
    except CONNECTION_FAILURES as error:
        return [Lost(str(error), sent=False)] * len(commands)
    except redis.RedisError as error:
        raise refused_connection(error) from error
    try:
        if len(commands) == 1:
            connection.send_packed_command(connection.pack_command(*commands[0]))
        else:
            connection.send_packed_command(connection.pack_commands(commands))
        for _ in commands:
            try:
                replies.append(connection.read_response())
            except ResponseError as error:
                replies.append(error)
            except BusyLoadingError as error:
                replies.append(ErrorReply("LOADING", str(error)))
    except AuthenticationError as error:
        connection.disconnect()
        raise refused_login(error) from error
    except (redis.RedisError, *CONNECTION_FAILURES) as error:
        connection.disconnect()
        lost = Lost(str(error) or type(error).__name__, sent=True)
        replies += [lost] * (len(commands) - len(replies))
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)
    return replies
