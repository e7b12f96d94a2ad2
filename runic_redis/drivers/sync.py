"""Runs operations on a redis-py client, for threads.

The calls of several threads travel together: one thread at a time sends, for all that wait, and reads the replies for
all; who is answered first hands over to one that waits. A call that is alone is a round trip of its own thread. A large
request is sent by its own thread, which leads no others meanwhile.

Commands go straight to a connection: redis-py's own command methods send a command again when its connection
breaks, up to ten times by default, and here nothing below an operation may do that. The user's client itself is left
as it is.

A signal's handler may raise at any point of the main thread, and a fork may copy any state of the other threads. So
nothing here waits on a `Condition` or an `Event`, whose locks an interrupt can break; and connections are kept in plain
lists, whose operations are atomic.
"""

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, RLock, Thread
from typing import Any, NoReturn, Protocol, TypeAlias, TypeVar
from weakref import WeakSet

import redis
import redis.connection
from redis.cluster import ClusterNode
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MovedError,
    RedisClusterException,
    ResponseError,
)

from runic_redis.drivers.replies import (
    CLUSTER_FAILURES,
    CONNECTION_FAILURES,
    HOLD_S,
    NO_LIMIT,
    REDIRECTIONS,
    REDISCOVERED,
    check_open,
    error_reply,
    exhausted_pool,
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
from runic_redis.operations.following import Follow
from runic_redis.operations.grouping import Call, Group, Groups, Ticket, is_full

__all__ = ["ClusterServer", "Sender", "Server", "SingleServer", "run", "run_within"]

T = TypeVar("T")
_Rounds: TypeAlias = list[tuple[Group, list[Call]]]


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


def run(operation: Operation[T], sender: "Sender") -> T:
    """Carry an operation out; its result."""
    ahead: _Fetching | None = None
    try:
        effect = next(operation)
        while True:
            if isinstance(effect, Batch):
                effect = operation.send(sender.ask(effect))
            elif isinstance(effect, Collect):
                ahead = None
                effect = operation.send(effect.fetching.collect())  # type: ignore[attr-defined]
            else:
                ahead = _Fetching(effect.batch, sender)
                effect = operation.send(ahead)
    except StopIteration as stop:
        if ahead is not None:
            # The caller may not come back for long, or ever: until then, others can use the connection.
            ahead.receive()
        result: T = stop.value
        return result


def run_within(operation: Operation[T], sender: "Sender", limit_s: float) -> T:
    """Carry an operation out, as `run` does, but give it up after a time; its result.

    redis-py has time limits for each step of making a connection, and none for the whole. So the operation runs in a
    thread, which ends when the sender's server is closed.

    Raises:
        StoreUnavailable: the time is over.
    """
    outcome: SimpleQueue[Callable[[], T]] = SimpleQueue()

    def carry_out() -> None:
        try:
            result = run(operation, sender)
        except BaseException as error:
            outcome.put(partial(_raise, error))
        else:
            outcome.put(lambda: result)

    try:
        Thread(target=copy_context().run, args=(carry_out,), daemon=True).start()
    except RuntimeError:  # the interpreter is ending, and starts no threads any more
        return run(operation, sender)
    try:
        get = outcome.get(timeout=limit_s)
    except Empty:
        raise too_slow(limit_s) from None
    return get()


def _raise(error: BaseException) -> NoReturn:
    raise error


class _Turn(Ticket):
    """A call of one thread, and the groups that it sends for.

    Its methods are called with the sender's lock held, and what others than its thread change is looked at with it.
    """

    __slots__ = ("away", "large", "leads", "let_in", "over", "signal")

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch, now_s())
        self.leads: list[Group] = []
        # Rounds of its large requests, for its thread to send; and whether that is sending one, and cannot lead.
        self.large: _Rounds = []
        self.away = False
        # Whether its commands are in the queues.
        self.let_in = False
        # Whether it is answered, and others lead what it led.
        self.over = False
        self.signal: SimpleQueue[None] | None = None

    def wake(self) -> None:
        """Have the thread look, if it waits: it is answered, or has become a leader."""
        if self.signal is not None:
            self.signal.put(None)

    def prepare_to_wait(self) -> SimpleQueue[None]:
        """What the thread will wait on."""
        if self.signal is None:
            self.signal = SimpleQueue()
        return self.signal


# How many signals in a row may interrupt what copes with the first.
_MOST_INTERRUPTIONS = 100
# Those of this process: a child starts them anew. (Asking for the process's id at each call is a system call.)
_senders: WeakSet["Sender"] = WeakSet()


def _after_fork() -> None:
    for sender in list(_senders):
        sender.start_anew()


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
        self.server = server
        self.deadline_s = deadline_s
        self._wait_s = wait_s
        self._start()
        _senders.add(self)

    def start_anew(self) -> None:
        """In a child process: other threads, what they were sending, and the connections stayed in the parent."""
        self.server.forget()
        self._start()

    def _start(self) -> None:
        # (An RLock can tell whether this thread has it, see `_recover`.)
        self._lock = RLock()
        self._groups = self._new_groups()
        self._led: set[Group] = set()
        self._turns: set[_Turn] = set()
        # Calls that wait to be let into a queue that is full, in order.
        self._kept_out: dict[_Turn, None] = {}

    def _new_groups(self) -> Groups:
        return Groups(self.deadline_s, self.server.find_node if self.server.many_nodes else None, self._wait_s)

    def ask(self, batch: Batch) -> list[Any]:
        """The replies to a batch.

        Raises:
            StoreError: the store is closed, or the connection cannot be used.
        """
        if not batch.commands:
            return []
        if batch.apart:
            return self._ask_apart(batch)
        turn = _Turn(batch)
        try:
            with self._lock:
                self._turns.add(turn)
                rounds, pause_s = self._compose(turn)
            while not turn.over:
                if rounds:
                    outcome = self._exchange(rounds)
                elif turn.leads:
                    time.sleep(pause_s)
                else:
                    turn.prepare_to_wait().get()
                news = ""
                with self._lock:
                    if rounds:
                        news = self._settle(rounds, outcome)
                    rounds, pause_s = self._compose(turn)
                if news:
                    log.info("%s", news)
        except BaseException:
            # A signal's handler has raised, and may have done so in the middle of anything.
            # Another may interrupt even that. (Handlers run where functions are called: none is before the try.)
            tries = _MOST_INTERRUPTIONS
            while tries:
                tries -= 1
                try:
                    self._recover(turn)
                except BaseException:  # noqa: S112 - the first is raised below
                    continue
                break
            raise
        if turn.error is not None:
            raise turn.error
        return turn.replies

    def _ask_apart(self, batch: Batch) -> list[Any]:
        fetching = _Fetching(batch, self)
        if not isinstance(batch, Follow):
            return fetching.collect()
        # Another thread may end it.
        batch.stop.interrupt = fetching.interrupt
        try:
            if batch.stop.is_set:
                fetching.cancel()
                raise _stopped()
            return fetching.collect()
        finally:
            batch.stop.interrupt = None

    def _enqueue(self, turn: _Turn) -> bool:
        """Put a call in the queues, and have it lead those that nobody leads; whether there was room."""
        found = self._groups.find(turn)
        if is_full(found):
            self._kept_out[turn] = None
            return False
        turn.let_in = True
        for group, places in found.items():
            group.add(turn, places)
            if group not in self._led:
                self._led.add(group)
                turn.leads.append(group)
        return True

    def _compose(self, turn: _Turn) -> tuple[_Rounds, float]:
        """What a call is to send now; if nothing, how long it should wait."""
        if not turn.let_in and not self._enqueue(turn):
            turn.prepare_to_wait()
            return [], 0.0
        self._wake_kept_out()
        if turn.away:
            turn.away = False
            self._choose_leaders()
        rounds: _Rounds = []
        pause_s = 0.0
        if turn.missing and not turn.large:
            rounds, pause_s = self._lead(turn)
        if turn.missing and turn.large and not rounds:
            rounds = [self._go_away(turn)]
        if not turn.missing:
            self._finish(turn)
        elif not rounds and not turn.leads:
            turn.prepare_to_wait()
        return rounds, pause_s

    def _lead(self, turn: _Turn) -> tuple[_Rounds, float]:
        """What a call is to send now for the groups that it leads; if nothing, how long it should wait."""
        started_s = now_s()
        for group in turn.leads:
            group.give_up(started_s)
        if not turn.missing:
            return [], 0.0
        rounds = [(group, calls) for group in turn.leads if (calls := group.next_round(started_s))]
        for group in turn.leads:
            self._hand_out_large(group)
        if rounds or not turn.leads:
            return rounds, 0.0
        # (What waits behind a large request is led again when that is answered.)
        for group in [group for group in turn.leads if group.idle or group.resume_s <= started_s]:
            turn.leads.remove(group)
            self._led.discard(group)
        return [], max(0.0, min((group.resume_s for group in turn.leads), default=0.0) - started_s)

    def _go_away(self, turn: _Turn) -> tuple[Group, list[Call]]:
        """The round of a large request, for its thread to send; others lead meanwhile."""
        turn.away = True
        leads, turn.leads = turn.leads, []
        for group in leads:
            self._choose_leader(group)
        return turn.large.pop(0)

    def _finish(self, turn: _Turn) -> None:
        """A call is answered: others go on."""
        turn.over = True
        self._turns.discard(turn)
        for group in turn.leads:
            self._choose_leader(group)
        if turn.large:
            for group, calls in turn.large:
                group.end_round(calls)
            self._choose_leaders()

    def _hand_out_large(self, group: Group) -> None:
        """Have the threads that wait for large requests send them."""
        for calls in group.take_large():
            owner = calls[0].requests[0].ticket
            if isinstance(owner, _Turn):
                owner.large.append((group, calls))
                owner.wake()

    def _exchange(self, rounds: _Rounds) -> list[Any] | StoreError:
        """Send rounds and read the replies."""
        calls = rounds[0][1] if len(rounds) == 1 else [call for _, some in rounds for call in some]
        try:
            return self.server.begin(calls).finish()
        except StoreError as error:
            return error

    def _settle(self, rounds: _Rounds, outcome: list[Any] | StoreError) -> str:
        """Give everybody the replies to rounds; what is to be logged about them, outside of the lock."""
        ended_s = now_s()
        at = 0
        news = ""
        for group, calls in rounds:
            answers = [outcome] * len(calls) if isinstance(outcome, StoreError) else outcome[at : at + len(calls)]
            at += len(calls)
            # A node that refuses the login does so for its own calls alone.
            if refusal := _refusal(answers):
                group.fail(calls, refusal)
            else:
                news = group.take(calls, answers, ended_s) or news
        return news

    def _choose_leader(self, group: Group) -> None:
        tickets = group.waiting_tickets()
        successor = next((one for one in tickets if isinstance(one, _Turn) and not one.away), None)
        if successor is not None:
            self._led.add(group)
            successor.leads.append(group)
            successor.wake()
        else:
            self._led.discard(group)

    def _choose_leaders(self) -> None:
        """Have every group led in which something waits."""
        for group in self._groups:
            if group not in self._led:
                self._choose_leader(group)

    def _wake_kept_out(self) -> None:
        """Have those who wait for room look again, once the lock is free."""
        kept_out, self._kept_out = self._kept_out, {}
        for turn in kept_out:
            turn.wake()

    def _recover(self, interrupted: _Turn) -> None:
        """Start anew with all calls but one, as if all that they wait for had been sent and lost."""
        with suppress(RuntimeError):
            # Raised if this thread does not have it: it was interrupted elsewhere.
            self._lock.release()
        with self._lock:
            interrupted.abandoned = True
            self._turns.discard(interrupted)
            self._groups = self._new_groups()
            self._led = set()
            for turn in self._turns:
                turn.leads = []
                turn.large = []
                if turn.error is None and turn.let_in:
                    waiting = turn.unanswered()
                    turn.missing = len(waiting)
                    for group, places in self._groups.find(turn).items():
                        group.add_lost(turn, [place for place in places if place in waiting])
            for group in self._groups:
                self._choose_leader(group)
            for turn in self._turns:
                turn.wake()


def _stopped() -> StoreError:
    return StoreError("The tail was closed. Nothing was changed.")


def _refusal(answers: Sequence[Any]) -> StoreError | None:
    """The error that stands for an answer, if there is one."""
    return next((answer for answer in answers if isinstance(answer, StoreError)), None)


class _Fetching:
    """A batch on a connection of its own, sent and not waited for."""

    def __init__(self, batch: Batch, sender: Sender) -> None:
        self._server = sender.server
        self._ticket = Ticket(batch, now_s())
        self._group = Group(sender.deadline_s)
        self._group.add(self._ticket, range(len(batch.commands)))
        # What was received and not collected yet.
        self._answers: list[Any] | StoreError | None = None
        self._interrupted = False
        self._send()

    def _send(self) -> None:
        started_s = now_s()
        self._group.give_up(started_s)
        self._calls = self._group.next_round(started_s)
        if self._calls:
            self._pending = self._server.begin(self._calls)

    def receive(self) -> list[Any] | StoreError:
        """Read the replies into memory, unless they are there already; that gives the connection back."""
        if self._answers is None:
            try:
                self._answers = self._pending.finish()
            except StoreError as error:
                self._answers = error
        return self._answers

    def collect(self) -> list[Any]:
        """The replies."""
        # It was sent ahead: for how long it is tried counts from when it is wanted.
        self._ticket.asked_s = now_s()
        for call in self._calls:
            for request in call.requests:
                request.first_s = self._ticket.asked_s
        while True:
            if self._calls:
                answers = self.receive()
                self._answers = None
                if self._interrupted:
                    raise _stopped()
                if isinstance(answers, StoreError):
                    raise answers
                if refusal := _refusal(answers):
                    raise refusal
                if news := self._group.take(self._calls, answers, now_s()):
                    log.info("%s", news)
            if not self._ticket.missing:
                return self._ticket.replies
            time.sleep(max(0.0, self._group.resume_s - now_s()))
            self._send()

    def cancel(self) -> None:
        """Give up on the replies."""
        self._pending.cancel()

    def interrupt(self) -> None:
        """From another thread: have a `collect` that waits fail."""
        self._interrupted = True
        self._pending.interrupt()


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
        except AuthenticationError as error:
            raise refused_login(error) from error
        except StoreError:
            raise
        except CONNECTION_FAILURES as error:
            if is_exhausted(error):
                raise exhausted_pool(connections.pool.max_connections) from error
            self._lost = Lost(said(error), sent=False)
            return
        except redis.RedisError as error:
            self._lost = refused_connection(error)
            return
        try:
            unsent = shipment.unsent
            pieces = len(unsent)
            while unsent:
                # (Later on, a check of the connection's health would stand in the middle of a request.)
                self._connection.send_packed_command(unsent[:1], check_health=len(unsent) == pieces)
                del unsent[0]
        except AuthenticationError as error:
            self.cancel()
            raise refused_login(error) from error
        except (redis.RedisError, *CONNECTION_FAILURES) as error:
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
            except AuthenticationError as error:
                self.cancel()
                raise refused_login(error) from error
            except (redis.RedisError, *CONNECTION_FAILURES) as error:
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
        if self._client is None:
            return ""
        try:
            name: str = self.node(key).name
        except RedisClusterException:
            return ""
        return name

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

    def node(self, key: str) -> ClusterNode:
        """The node that holds a key, as far as is known.

        Raises:
            RedisClusterException: none is known.
        """
        node: ClusterNode = self._client.get_node_from_key(key)
        return node

    def connections(self, node: ClusterNode) -> _Connections:
        """A node's connections."""
        pool = self._client.get_redis_connection(node).connection_pool
        known = self._connections.get(node.name)
        if known is None or known.pool is not pool:
            known = self._connections[node.name] = _Connections(pool, owned=self._owned)
        return known

    def follow(self, replies: list[Any], redirected: list[int]) -> dict[int, ClusterNode]:
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
            self.rediscover()
        return asking

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
        self._calls = calls
        self._replies: list[Any] = [None] * len(calls)
        self._under_way: list[tuple[_Exchange, Shipment]] = []
        # The one whose replies are being read.
        self._reading: _Exchange | None = None
        self._send(range(len(calls)), {})

    def _send(self, places: Sequence[int], asking: dict[int, ClusterNode]) -> None:
        for node, shipment in by_node(self._calls, places, asking, self._server.node, self._replies):
            try:
                exchange = _Exchange(self._server.connections(node), shipment)
            except StoreError as error:
                self._refuse(shipment, error)
            except BaseException:
                self.cancel()
                raise
            else:
                self._under_way.append((exchange, shipment))

    def _refuse(self, shipment: Shipment, error: StoreError) -> None:
        """Of the calls to a node that cannot be used, the error stands for each answer."""
        for place in shipment.places:
            self._replies[place] = error

    def finish(self) -> list[Any]:
        """The replies; redirections are followed."""
        replies = self._replies
        for last in reversed(range(REDIRECTIONS)):
            while self._under_way:
                exchange, shipment = self._under_way.pop(0)
                self._reading = exchange
                try:
                    answers = exchange.finish()
                except StoreError as error:
                    self._refuse(shipment, error)
                    continue
                except BaseException:
                    self.cancel()
                    raise
                for place, reply in zip(shipment.places, shipment.replies(answers), strict=True):
                    replies[place] = reply
            waiting = redirected(replies, range(len(replies)))
            if not waiting:
                break
            asking = self._server.follow(replies, waiting)
            if last:
                self._send(waiting, asking)
        if any(isinstance(reply, Lost) for reply in replies):
            self._server.rediscover()
        return plain_replies(replies)

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
