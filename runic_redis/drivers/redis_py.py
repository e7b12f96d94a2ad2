"""What both drivers share: what redis-py's exceptions mean to the operations, and a few rules of theirs."""

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
from runic_redis.protocol.effects import PASSING, ErrorReply, Lost

__all__ = [
    "CLUSTER_FAILURES",
    "CONNECTION_FAILURES",
    "HOLD_S",
    "NO_LIMIT",
    "REDIRECTIONS",
    "REDISCOVERED",
    "check_open",
    "closed",
    "error_reply",
    "exhausted_pool",
    "failed",
    "is_exhausted",
    "log",
    "now_s",
    "opening_limit_s",
    "outdated",
    "refusal_behind",
    "refused_cluster",
    "refused_connection",
    "refused_login",
    "said",
    "too_slow",
]

log = logging.getLogger("runic_redis")
REDISCOVERED = "The cluster was asked anew which node has which slots."

# For how long a connection is kept out of its pool, which checks it whenever it comes out.
HOLD_S = 1.0
# A `max_connections` that no store reaches: redis-py's default is 100, from version 8 on.
NO_LIMIT = 2**31
# How often a cluster's redirections are followed before the operation is told to wait.
REDIRECTIONS = 5
# How long opening a store may take at least, on a slow machine, and by how much it may pass its deadline.
_SHORTEST_OPENING_S = 1.0
_OPENING_GRACE_S = 0.25
# Counts the time that a machine sleeps, where the system has such a clock: the server's goes on meanwhile.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def now_s() -> float:
    """The time in seconds, by a clock that only goes forward."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


def check_open(is_closed: bool) -> None:
    """Answer nobody once closed, not even a retry under way.

    Raises:
        StoreError: it is closed.
    """
    if is_closed:
        raise StoreError("The store is closed: open another. Nothing more was sent.")


def closed() -> StoreError:
    """What those get who wait for an answer when the store is closed."""
    return StoreError("The store was closed before there was an answer: whether this was done is not known.")


# What redis-py raises when a connection cannot be made, breaks, or is silent for too long.
CONNECTION_FAILURES = (redis.ConnectionError, redis.TimeoutError, OSError)
# And when a cluster does not tell which nodes it has.
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
# What a server says that is none to write to now.
_OUTDATED = frozenset({"LOADING", "MASTERDOWN", "READONLY", "UNBLOCKED"})


def failed(error: BaseException) -> StoreError:
    """What those get whose connection failed in a way that nobody expects."""
    remedy = ""
    if isinstance(error, RuntimeError) and "loop" in str(error):
        # What redis-py's connections raise in a loop that is not theirs.
        remedy = (
            " The client was used in another event loop: make a client in each event loop, or call its aclose() in the "
            "loop that used it."
        )
    failure = StoreError(f"redis-py failed with {error!r}: whether this was done is not known.{remedy}")
    failure.__cause__ = error
    return failure


def error_reply(reply: Any) -> Any:
    """A reply; if it is a server's refusal, as an `ErrorReply`.

    Raises:
        ConfigurationError: it is a redirection, and nobody here follows it.
    """
    if not isinstance(reply, _REFUSALS):
        return reply
    if isinstance(reply, MovedError | AskError):
        raise ConfigurationError(
            "The server is a node of a cluster: connect with redis+cluster://, or pass a redis.RedisCluster."
        )
    return _refusal(reply)


def _refusal(reply: Exception) -> ErrorReply:
    code = _CODES.get(type(reply))
    return ErrorReply.parse(str(reply)) if code is None else ErrorReply(code, str(reply))


# What redis-py's pools say when all their connections are in use; only from version 8 on with a class of its own.
_EXHAUSTED = frozenset({"Too many connections", "No connection available."})


def is_exhausted(error: BaseException) -> bool:
    """Whether a pool had no connection left, which says nothing about the server."""
    return str(error) in _EXHAUSTED


def exhausted_pool(max_connections: int) -> ConfigurationError:
    """A pool whose connections are all in use."""
    return ConfigurationError(
        f"The connection pool is exhausted: all its {max_connections} connections are in use. Nothing was sent. Raise "
        "its max_connections, or pass a client with a redis.BlockingConnectionPool, which waits for a free connection."
    )


def outdated(replies: Sequence[Any]) -> bool:
    """Whether a server answered that is none to write to now: the next try should connect anew, perhaps to another."""
    return any(isinstance(reply, _REFUSALS) and _refusal(reply).code in _OUTDATED for reply in replies)


def refusal_behind(error: Exception) -> list[Exception]:
    """Return the reply that made a Sentinel's connection fail: redis-py ends it when its server is a replica."""
    return [error.__context__] if isinstance(error.__context__, ReadOnlyError) else []


def refused_cluster(error: Exception) -> Lost:
    """Return what stands for each reply while no node of a cluster tells which nodes there are.

    Raises:
        ConfigurationError: that will last: a wrong login, a missing permission, a server that is no cluster.
    """
    reason = said(error)
    # The innermost first: redis-py takes any refusal of a node for one without a cluster.
    for one in reversed(list(_behind(error))):
        if isinstance(one, AuthenticationError):
            raise refused_login(one) from error
        if isinstance(one, NoPermissionError):
            raise ConfigurationError(
                f"Redis does not let this user ask for the cluster's nodes: NOPERM {said(one)}. "
                "ACL SETUSER with +cluster|slots +command +asking allows it."
            ) from error
        if "cluster support disabled" in str(one):
            raise ConfigurationError("The server is not a node of a cluster: use redis:// or rediss://.") from error
        if isinstance(one, ResponseError):
            return refused_connection(one)
    return Lost(reason, sent=False)


def refused_connection(error: redis.RedisError) -> Lost:
    """Return what stands for each reply while a server rejects the connection as it is made.

    Raises:
        ConfigurationError: that will last: a database that is not there, a name that is not allowed.
    """
    text = said(error).rstrip(".")
    refusal = _refusal(error)
    if refusal.code in PASSING:
        return Lost(f"{refusal.code} {refusal.message}", sent=False)
    remedy = "Correct the URL, or the user's permissions."
    if "HELLO" in text.upper() or refusal.code == "NOPROTO":
        remedy = "The server does not have RESP3: use protocol=2 in the URL, or for the client."
    raise ConfigurationError(f"Redis refused the connection: {text}. {remedy}") from error


def opening_limit_s(deadline_s: float) -> float:
    """Return how long opening a store may take, whatever its single tries do."""
    return max(_SHORTEST_OPENING_S, deadline_s + _OPENING_GRACE_S)


def too_slow(limit_s: float) -> StoreUnavailable:
    """Return the error for a store that is not open at its deadline, though no try has failed yet."""
    return StoreUnavailable(
        f"Redis cannot be reached: opening the store was not finished after {limit_s:.1f} s. Nothing was changed. "
        "Correct the URL or, if the network is slow, open the store with a longer deadline_s."
    )


def refused_login(error: AuthenticationError) -> ConfigurationError:
    """Return the error for a missing or wrong user name or password, without repeating either."""
    text = said(error).rstrip(".")
    if any(words in text for words in _NO_PASSWORD):
        return ConfigurationError(
            "The server asks for a password: put it in the URL (redis://:password@host, or redis://user:password@host "
            "for another user than the default one), percent-encoded where it holds special characters."
        )
    return ConfigurationError(
        f"Redis refused the login: {text}. Correct the user name and password in the URL "
        "(redis://user:password@host), percent-encoded where they hold special characters."
    )


# How a server answers a command, and a HELLO, that came before a login.
_NO_PASSWORD = ("Authentication required", "must be called with the client already authenticated")
# How a server that does not know a command goes on, and names what came with it: for AUTH and HELLO, the password.
_ARGUMENTS = ", with args beginning with"


def said(error: BaseException) -> str:
    """What an error of redis-py's says; arguments that a server has repeated are struck out, behind it too."""
    for one in _behind(error):
        text, repeats, _ = str(one).partition(_ARGUMENTS)
        if repeats:
            one.args = (text,)
    unsaid = "Timeout connecting to the server" if isinstance(error, TimeoutError) else type(error).__name__
    return str(error).partition("\n")[0] or unsaid


def _behind(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it came from."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__
