"""Makes a server from a URL or from a user's client."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError

from runic_redis.drivers import aio_servers, sync_servers
from runic_redis.drivers.aio_connections import limit_round_trips
from runic_redis.drivers.redis_py import NO_LIMIT, log, rejected_login
from runic_redis.drivers.urls import (
    EXAMPLES,
    OPTIONS,
    SENTINEL_OPTIONS,
    TIMEOUTS,
    check_protocol,
    is_utf_8,
    own_options,
    parse_options,
    shown,
    split_hosts,
)
from runic_redis.errors import ConfigurationError, InvalidArgument, InvalidType

# The default of redis-py from version 8 on. Before, it had no timeout.
_TIMEOUT_S = 5.0
_NO_TIMEOUT = (
    "The redis-py client has no socket_timeout: while its server is silent, calls wait, whatever their deadline. Make "
    f"it with socket_timeout={_TIMEOUT_S:g}."
)
_SENTINEL_PORT = 26379
_REDIS_PORT = 6379


class Flavour(NamedTuple):
    """What a store for threads, or one for asyncio, is made of.

    Attributes:
        library: redis-py's package, which imports its modules and has the same names for both.
        servers: our module of servers.
        embedded_connection: the class of connections to an embedded server.
        fake: the name of fakeredis' client.
    """

    library: Any
    servers: Any
    embedded_connection: Any
    fake: str


class _EmbeddedConnection(redis.UnixDomainSocketConnection):
    """A connection to an embedded server. It restarts a server that has died, and sends nothing if its data is gone."""

    def __init__(self, *, embedded: Any, **options: Any) -> None:
        super().__init__(path=str(embedded.socket), **options)
        self._embedded = embedded

    def connect(self) -> None:
        try:
            super().connect()
        except redis.ConnectionError:
            self._embedded.revive()
            self.path = str(self._embedded.socket)
            super().connect()

    def send_packed_command(self, *args: Any, **options: Any) -> None:
        self._embedded.require_directory()
        super().send_packed_command(*args, **options)


class _AsyncEmbeddedConnection(redis.asyncio.UnixDomainSocketConnection):
    """The same for asyncio."""

    def __init__(self, *, embedded: Any, **options: Any) -> None:
        super().__init__(path=str(embedded.socket), **options)
        self._embedded = embedded

    async def connect(self) -> None:
        try:
            await super().connect()
        except redis.ConnectionError:
            await asyncio.to_thread(self._embedded.revive)
            self.path = str(self._embedded.socket)
            await super().connect()

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        self._embedded.require_directory()
        await super().send_packed_command(*args, **options)


SYNC = Flavour(redis, sync_servers, _EmbeddedConnection, "FakeRedis")
AIO = Flavour(redis.asyncio, aio_servers, _AsyncEmbeddedConnection, "FakeAsyncRedis")


class Connected(NamedTuple):
    """A server, with what a store needs to name and to close it.

    Attributes:
        server: one of the flavour's servers.
        label: its name for people, without a password.
        wait_s: the longest time that the server may wait before it replies.
        many_nodes: whether keys of different slots may be on different nodes.
        others: other clients to close after it.
        stop: called at the end.
    """

    server: Any
    label: str
    wait_s: float
    many_nodes: bool = False
    others: Sequence[Any] = ()
    stop: Callable[[], None] = lambda: None


def connect_client(client: Any, flavour: Flavour) -> Connected:
    """Use a redis-py client of the caller. It is neither changed nor closed.

    Raises:
        ConfigurationError: it decodes responses.
        InvalidType: it is no client that can be used here.
    """
    other = AIO if flavour is SYNC else SYNC
    library, others = flavour.library, other.library
    if isinstance(client, (others.Redis, others.RedisCluster)) and not isinstance(client, library.Redis):
        raise InvalidType(f"This is a client of {others.__name__}; this store takes one of {library.__name__}.")
    if isinstance(client, redis.Sentinel | redis.asyncio.Sentinel):
        raise InvalidType("This is a Sentinel; pass the client that sentinel.master_for(service) makes.")
    if not isinstance(client, (library.Redis, library.RedisCluster)) or hasattr(client, "command_stack"):
        raise InvalidType(f"A store takes a client of redis-py, not a {type(client).__qualname__}.")
    if client.get_encoder().decode_responses:
        raise ConfigurationError(
            "The client decodes responses (decode_responses=True), and the store keeps bytes. Pass a client with "
            "decode_responses=False."
        )
    options = client.get_connection_kwargs()
    patience = {}
    if options.get("socket_timeout") is None:
        if flavour is SYNC:
            log.warning(_NO_TIMEOUT)
        else:
            patience = {"timeout_s": _TIMEOUT_S}
    if isinstance(client, library.RedisCluster):
        server = flavour.servers.ClusterServer(lambda: client, owned=False, **patience)
        return Connected(server, "a RedisCluster client", _wait_s(options), many_nodes=True)
    return Connected(flavour.servers.SingleServer(client, owned=False, **patience), "a Redis client", _wait_s(options))


def connect_url(url: str, flavour: Flavour, deadline_s: float) -> Connected:
    """Return the server that a URL names. The store that uses it closes it.

    Args:
        url: the URL.
        flavour: the classes to use.
        deadline_s: how long to wait for an embedded server to start.

    Raises:
        ConfigurationError: the URL cannot be used, or an extra is missing.
        StoreUnavailable: an embedded server could not be reached.
    """
    if not isinstance(url, str):
        raise InvalidType(f"A URL is a str, not a {type(url).__qualname__}.")
    if not is_utf_8(url):
        raise ConfigurationError(
            "The URL cannot be used: it holds bytes that are not UTF-8, perhaps in a password that was typed or "
            "percent-encoded as Latin-1. Percent-encode it as UTF-8: urllib.parse.quote does."
        )
    connect = _SCHEMES.get(url.partition("://")[0]) if "://" in url else None
    if connect is None:
        raise ConfigurationError(f"{shown(url)!r} is not a URL of a store: use {EXAMPLES}.")
    try:
        return connect(url, flavour, deadline_s)
    except AuthenticationError as error:
        raise rejected_login(error) from error
    except InvalidArgument as error:
        raise ConfigurationError(f"The URL {shown(url)!r} cannot be used: {error}.") from error
    except (ValueError, TypeError, AttributeError):
        pass
    # Outside of the handler: an error of the parsers may quote any part of the URL, and must not be the cause of this.
    raise ConfigurationError(
        f"The URL {shown(url)!r} cannot be used: it is malformed, or an option has a value that it cannot have. Write "
        "special characters in user names, passwords and options percent-encoded."
    )


def _connect_redis(url: str, flavour: Flavour, _deadline_s: float) -> Connected:
    options, patience = _settings(flavour, parse_options(url, flavour.library.connection.parse_url))
    client = flavour.library.Redis.from_pool(flavour.library.ConnectionPool(**options))
    return Connected(
        flavour.servers.SingleServer(client, owned=True, **patience), shown(url), _wait_s(options | patience)
    )


def _connect_cluster(url: str, flavour: Flavour, _deadline_s: float) -> Connected:
    hosts, plain = split_hosts(url, "redis+cluster", _REDIS_PORT)
    options, patience = _settings(flavour, parse_options(plain, flavour.library.connection.parse_url))
    secure = options.pop("connection_class", None) is not None
    if options.pop("db", 0) != 0:
        raise InvalidArgument("a cluster has no databases but 0")
    # The other options are for the connections by which the client asks for the nodes.
    for name in ("host", "port", "retry", "redis_connect_func"):
        options.pop(name, None)
    options["socket_timeout"] = patience.get("timeout_s", options["socket_timeout"])
    nodes = [flavour.library.cluster.ClusterNode(host, port) for host, port in hosts]
    connect = partial(flavour.library.RedisCluster, startup_nodes=nodes, ssl=secure, **options)
    server = flavour.servers.ClusterServer(connect, owned=True, **patience)
    return Connected(server, shown(url), _wait_s(options | patience), many_nodes=True)


def _connect_sentinel(url: str, flavour: Flavour, _deadline_s: float) -> Connected:
    hosts, plain = split_hosts(url, "redis+sentinel", _SENTINEL_PORT)
    parts = urlsplit(plain)
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not (database or "0").isdigit():
        raise InvalidArgument("it names no service: write redis+sentinel://host1,host2/service, or …/service/database")
    plain = urlunsplit(parts._replace(path=f"/{database or 0}"))
    given = parse_options(plain, flavour.library.connection.parse_url, OPTIONS | SENTINEL_OPTIONS)
    for name in ("host", "port"):
        given.pop(name, None)
    of_sentinel = {name.removeprefix("sentinel_"): given.pop(name) for name in SENTINEL_OPTIONS & given.keys()}
    shared = (*TIMEOUTS, "protocol", "retry")
    of_sentinel |= {name: value for name, value in (_defaults(flavour) | given).items() if name in shared}
    options, patience = _settings(flavour, given)
    sentinel = flavour.library.Sentinel(hosts, sentinel_kwargs=of_sentinel)
    client = sentinel.master_for(unquote(service), **options)
    server = flavour.servers.SingleServer(client, owned=True, **patience)
    return Connected(server, shown(url), _wait_s(options | patience), others=sentinel.sentinels)


def _connect_embedded(url: str, flavour: Flavour, deadline_s: float) -> Connected:
    parts = urlsplit(url)
    given = own_options(parts, "fsync", "protocol")
    protocol = check_protocol(int(given.get("protocol", "2")))
    if not parts.netloc + parts.path:
        raise InvalidArgument(
            "it names no directory: write embedded:///absolute/directory or embedded://relative/directory"
        )
    directory = Path(unquote(parts.netloc + parts.path)).expanduser()
    try:
        from runic_redis.embedded import EmbeddedServer  # noqa: PLC0415 - needs a system with file locks
    except ImportError as error:
        raise ConfigurationError(f"embedded:// needs Linux or macOS: {error}.") from error
    embedded = EmbeddedServer(directory, fsync=given.get("fsync", "everysec"), deadline_s=deadline_s)
    embedded.start()
    options, patience = _settings(flavour, {"embedded": embedded, "protocol": protocol})
    client = flavour.library.Redis.from_pool(
        flavour.library.ConnectionPool(connection_class=flavour.embedded_connection, **options)
    )
    server = flavour.servers.SingleServer(client, owned=True, **patience)
    return Connected(server, shown(url), _wait_s(options | patience), stop=embedded.stop)


def _connect_memory(url: str, flavour: Flavour, _deadline_s: float) -> Connected:
    try:
        # An extra. First lupa: if fakeredis is imported without it, it never has scripts.
        import lupa  # noqa: F401, I001, PLC0415
        import fakeredis  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError("memory:// needs fakeredis: pip install 'runic-redis[memory]'.") from None
    parts = urlsplit(url)
    protocol = check_protocol(int(own_options(parts, "protocol").get("protocol", "2")))
    name = parts.netloc + parts.path
    kept = _memory_servers.setdefault(name, fakeredis.FakeServer()) if name else fakeredis.FakeServer()
    client = getattr(fakeredis, flavour.fake)(server=kept, protocol=protocol, max_connections=NO_LIMIT)
    return Connected(flavour.servers.SingleServer(client, owned=True), shown(url), _MEMORY_BLOCK_S)


# The memory:// stores of this process, by name.
_memory_servers: dict[str, Any] = {}

_SCHEMES: Mapping[str, Callable[[str, Flavour, float], Connected]] = {
    "redis": _connect_redis,
    "rediss": _connect_redis,
    "unix": _connect_redis,
    "redis+cluster": _connect_cluster,
    "rediss+cluster": _connect_cluster,
    "redis+sentinel": _connect_sentinel,
    "embedded": _connect_embedded,
    "memory": _connect_memory,
}


def _defaults(flavour: Flavour) -> dict[str, Any]:
    """Return the default options of connections: timeouts, no retries, any number of connections.

    They use RESP2, since some proxies and providers do not have HELLO, and the store needs nothing of RESP3.
    """
    return dict.fromkeys(TIMEOUTS, _TIMEOUT_S) | {
        "retry": flavour.library.retry.Retry(NoBackoff(), 0),
        "max_connections": NO_LIMIT,
        "protocol": 2,
    }


# The longest time that a blocking read waits.
_LONGEST_BLOCK_S = 1.0
# In memory, where a blocking read cannot be interrupted.
_MEMORY_BLOCK_S = 0.05


def _wait_s(options: Mapping[str, Any]) -> float:
    """Return how long a blocking read may wait: well below the timeout of its connection."""
    timeout_s = options.get("timeout_s") or options.get("socket_timeout") or _TIMEOUT_S
    return min(_LONGEST_BLOCK_S, float(timeout_s) / 2)


def _settings(flavour: Flavour, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of connections, and those of their server."""
    options = _defaults(flavour) | given
    if flavour is SYNC:
        return options, {}
    timeout_s = options["socket_timeout"]
    return limit_round_trips(options, timeout_s), {"timeout_s": timeout_s}
