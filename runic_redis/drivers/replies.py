"""What redis-py's exceptions mean, in the terms of the operations."""

import redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from runic_redis.errors import ConfigurationError
from runic_redis.operations.effects import ErrorReply

__all__ = ["CONNECTION_FAILURES", "error_reply", "refused_connection", "refused_login"]

# What redis-py raises when a connection cannot be made, breaks, or is silent for too long.
CONNECTION_FAILURES = (redis.ConnectionError, redis.TimeoutError, OSError)

# redis-py takes the code off the message of these; of any other error the message starts with it.
_CODES: dict[type[ResponseError], str] = {
    ClusterDownError: "CLUSTERDOWN",
    MasterDownError: "MASTERDOWN",
    NoPermissionError: "NOPERM",
    NoScriptError: "NOSCRIPT",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    TryAgainError: "TRYAGAIN",
}


def error_reply(error: ResponseError) -> ErrorReply:
    """A server's refusal.

    Raises:
        ConfigurationError: it is a redirection, and nobody here follows it.
    """
    if isinstance(error, MovedError | AskError):
        raise ConfigurationError(
            "The server is a node of a cluster: connect with redis+cluster://, or pass a redis.RedisCluster."
        )
    code = _CODES.get(type(error))
    if code is not None:
        return ErrorReply(code, str(error))
    code, _, message = str(error).partition(" ")
    return ErrorReply(code, message)


def refused_connection(error: redis.RedisError) -> ConfigurationError:
    """A connection that is refused as it is made: a database that is not there, a name that is not allowed."""
    return ConfigurationError(f"Redis refused the connection: {str(error) or type(error).__name__}. Correct the URL.")


def refused_login(error: AuthenticationError) -> ConfigurationError:
    """A wrong user name or password, without repeating either."""
    reason = str(error).partition("\n")[0]
    return ConfigurationError(
        f"Redis refused the login: {reason or type(error).__name__}. Correct the user name and password in the URL "
        "(redis://user:password@host), percent-encoded where they hold special characters."
    )
