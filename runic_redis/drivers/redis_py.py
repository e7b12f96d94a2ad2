"""The meaning of redis-py's exceptions, the clock, and the errors that both drivers raise."""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TryAgainError,
)

from runic_redis.errors import ConfigurationError, StoreError, StoreUnavailable
from runic_redis.protocol.effects import TRANSIENT, ConnectionLost, ErrorReply

log = logging.getLogger("runic_redis")

# How long a connection is used without a check. A pool checks each connection that leaves it.
HOLD_S = 1.0
# A `max_connections` that no store reaches: redis-py's default is 100, from version 8 on.
NO_LIMIT = 2**31
# The shortest time limit for opening a store, for slow machines; and how far it may exceed the deadline.
_SHORTEST_OPENING_S = 1.0
_OPENING_GRACE_S = 0.25
# A clock that counts the time that the machine sleeps, if the system has one: the server's clock goes on meanwhile.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def now_s() -> float:
    """Return the time in seconds, by a clock that only goes forward."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


def check_open(is_closed: bool) -> None:
    """Raise an error if a store is closed, also for a retry.

    Raises:
        StoreError: it is closed.
    """
    if is_closed:
        raise StoreError("The store is closed: open another. Nothing more was sent.")


def closed() -> StoreError:
    """Return the error for calls that wait for a reply when the store is closed."""
    return StoreError("The store was closed before the reply arrived: it is not known whether this was carried out.")


# What redis-py raises when a connection cannot be made, breaks, or is silent for too long.
CONNECTION_FAILURES = (redis.ConnectionError, redis.TimeoutError, OSError)
# Any of its exceptions.
FAILURES = (redis.RedisError, OSError)
# And when it cannot find the nodes of a cluster.
CLUSTER_FAILURES = (RedisClusterException, redis.RedisError, OSError)

# redis-py takes the code off the message of these; of any other error the message starts with it.
_CODES: dict[type[Exception], str] = {
    BusyLoadingError: "LOADING",
    ClusterCrossSlotError: "CROSSSLOT",
    ClusterDownError: "CLUSTERDOWN",
    MasterDownError: "MASTERDOWN",
    NoPermissionError: "NOPERM",
    NoScriptError: "NOSCRIPT",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    TryAgainError: "TRYAGAIN",
}
_REFUSALS = (ResponseError, BusyLoadingError)
# Error codes of a server that is not a writable primary.
_OUTDATED = frozenset({"LOADING", "MASTERDOWN", "READONLY", "UNBLOCKED"})


def failed(error: BaseException) -> StoreError:
    """Return the error for calls that failed for good: a `StoreError` as it is, or one for an unexpected exception."""
    if isinstance(error, StoreError):
        return error
    remedy = ""
    if isinstance(error, RuntimeError) and "loop" in str(error):
        # redis-py's connections raise it in another event loop than theirs.
        remedy = (
            " The client was used in another event loop: make a client in each event loop, or call its aclose() in the "
            "loop that used it."
        )
    failure = StoreError(f"redis-py failed with {error!r}: it is not known whether this was carried out.{remedy}")
    failure.__cause__ = error
    return failure


def plain_reply(reply: Any) -> Any:
    """Return a reply, an error as an `ErrorReply`.

    Raises:
        ConfigurationError: it is a redirection, and this is not a cluster client.
    """
    if not isinstance(reply, _REFUSALS):
        return reply
    if isinstance(reply, MovedError | AskError):
        raise ConfigurationError(
            "The server is a node of a cluster: connect with redis+cluster://, or pass a redis.RedisCluster."
        )
    return _error_reply(reply)


def _error_reply(reply: Exception) -> ErrorReply:
    code = _CODES.get(type(reply))
    return ErrorReply.parse(str(reply)) if code is None else ErrorReply(code, str(reply))


# The texts of redis-py's pools when all connections are in use. They have an exception class only from version 8 on.
_EXHAUSTED = frozenset({"Too many connections", "No connection available."})


def no_connection(error: Exception, max_connections: int) -> ConnectionLost:
    """Return the reply to each call while no connection can be made.

    Raises:
        ConfigurationError: it will last: a wrong login, a pool that is too small, a database that does not exist.
    """
    if isinstance(error, AuthenticationError):
        raise rejected_login(error) from error
    if isinstance(error, StoreError):  # of an embedded server
        raise error
    if not isinstance(error, CONNECTION_FAILURES):
        return _rejected_connection(error)
    if str(error) in _EXHAUSTED:
        raise ConfigurationError(
            f"The connection pool is exhausted: all its {max_connections} connections are in use. Nothing was sent. "
            "Raise its max_connections, or pass a client with a redis.BlockingConnectionPool, which waits for a free "
            "connection."
        ) from error
    return ConnectionLost(exception_text(error), sent=False)


def check_pool(pool: Any) -> None:
    """Raise an error if a pool has no connection to spare for listening.

    Raises:
        ConfigurationError: its only connection is needed for commands.
    """
    if pool.max_connections < 2:
        raise ConfigurationError("The connection pool has a single connection, and listening needs one more.")


def outdated(replies: Sequence[Any]) -> bool:
    """Whether the server is not a writable primary: the next try needs a new connection, perhaps to another server."""
    for reply in replies:  # noqa: SIM110 - on the way of every call, where a generator costs more than its work
        if isinstance(reply, _REFUSALS) and _error_reply(reply).code in _OUTDATED:
            return True
    return False


def replies_behind(error: Exception) -> list[Exception]:
    """Return the reply for which redis-py closed a Sentinel's connection: that its server is a replica."""
    return [error.__context__] if isinstance(error.__context__, ReadOnlyError) else []


def no_cluster(error: Exception) -> ConnectionLost:
    """Return the reply to each call while the nodes of a cluster cannot be found.

    Raises:
        ConfigurationError: it will last: a wrong login, a missing permission, a server without a cluster.
    """
    reason = exception_text(error)
    # The innermost first: redis-py reports any error of a node as a missing cluster.
    for one in reversed(list(_behind(error))):
        if isinstance(one, AuthenticationError):
            raise rejected_login(one) from error
        if isinstance(one, NoPermissionError):
            raise ConfigurationError(
                f"The Redis user may not ask for the cluster's nodes: NOPERM {exception_text(one)}. "
                "Grant it with ACL SETUSER: +cluster|slots +command +asking."
            ) from error
        if "cluster support disabled" in str(one):
            raise ConfigurationError("The server is not a node of a cluster: use redis:// or rediss://.") from error
        if isinstance(one, ResponseError):
            return _rejected_connection(one)
    return ConnectionLost(reason, sent=False)


def _rejected_connection(error: Exception) -> ConnectionLost:
    """Return the reply to each call while the server rejects new connections.

    Raises:
        ConfigurationError: it will last: a database that does not exist, a name that is not allowed.
    """
    text = exception_text(error).rstrip(".")
    refusal = _error_reply(error)
    if refusal.code in TRANSIENT:
        return ConnectionLost(refusal.text, sent=False)
    remedy = "Correct the URL, or the user's permissions."
    if "HELLO" in text.upper() or refusal.code == "NOPROTO":
        remedy = "The server does not have RESP3: use protocol=2 in the URL, or for the client."
    raise ConfigurationError(f"Redis refused the connection: {text}. {remedy}") from error


def opening_limit_s(deadline_s: float) -> float:
    """Return the time limit for opening a store, however long a single try may take."""
    return max(_SHORTEST_OPENING_S, deadline_s + _OPENING_GRACE_S)


def too_slow(limit_s: float) -> StoreUnavailable:
    """Return the error for a store that is not open at its deadline, though no try has failed."""
    return StoreUnavailable(
        f"Redis cannot be reached: opening the store was not finished after {limit_s:.1f} s. Nothing was changed. "
        "Correct the URL or, if the network is slow, open the store with a longer deadline_s."
    )


def rejected_login(error: AuthenticationError) -> ConfigurationError:
    """Return the error for a missing or wrong user name or password, without repeating either."""
    text = exception_text(error).rstrip(".")
    if any(words in text for words in _NO_PASSWORD):
        return ConfigurationError(
            "The server asks for a password. Nothing was sent. Put it in the URL (redis://:password@host, or "
            "redis://user:password@host for another user than the default one), percent-encoded where it holds special "
            "characters."
        )
    return ConfigurationError(
        f"Redis refused the login: {text}. Correct the user name and password in the URL "
        "(redis://user:password@host), percent-encoded where they hold special characters."
    )


# How a server rejects a command, and a HELLO, before a login.
_NO_PASSWORD = ("Authentication required", "must be called with the client already authenticated")
# How the error for an unknown command continues with its arguments: for AUTH and HELLO, the password.
_ARGUMENTS = ", with args beginning with"


def exception_text(error: BaseException) -> str:
    """Return an exception's text. Arguments that the server has repeated are removed, from its causes as well."""
    for one in _behind(error):
        text, repeats, _ = str(one).partition(_ARGUMENTS)
        if repeats:
            one.args = (text,)
    unsaid = "Timeout connecting to the server" if isinstance(error, TimeoutError) else type(error).__name__
    return str(error).partition("\n")[0] or unsaid


def _behind(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__
