"""From a URL, or a client of the user's own, to something that answers batches."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, unquote_to_bytes, urlsplit, urlunsplit

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.connection
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.cluster
import redis.connection
import redis.retry
import redis.sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError

from runic_redis.drivers import aio, sync
from runic_redis.drivers.replies import NO_LIMIT, log, refused_login
from runic_redis.errors import ConfigurationError, InvalidArgument, InvalidType

__all__ = ["AIO", "EXAMPLES", "SYNC", "Connected", "Flavour", "connect_client", "connect_url", "shown"]

# redis-py's own default, from version 8 on; before, it waited for ever.
_TIMEOUT_S = 5.0
_NO_TIMEOUT = (
    "The redis-py client has no socket_timeout: while its server is silent, calls wait, whatever their deadline. Make "
    f"it with socket_timeout={_TIMEOUT_S:g}."
)
_SENTINEL_PORT = 26379
_REDIS_PORT = 6379
EXAMPLES = (
    "redis://localhost:6379/0, rediss://…, unix:///run/redis.sock, redis+cluster://host1,host2, "
    "redis+sentinel://host1,host2/service/0, embedded:///directory or memory://name"
)


@dataclass(frozen=True, slots=True)
class Flavour:
    """The classes of redis-py, and ours over them, that a store for threads or one for asyncio is made of."""

    name: str
    single_server: Any
    cluster_server: Any
    client: Any
    cluster_client: Any
    cluster_node: Any
    sentinel: Any
    pool: Any
    embedded_connection: Any
    retry: Any
    parse_url: Callable[[str], Any]
    fake: str
    connects_at_once: bool


class _EmbeddedConnection(redis.UnixDomainSocketConnection):
    """A connection to an embedded server: it starts one that has died, and sends nothing to one whose data is gone."""

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
        self._embedded.check()
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
        self._embedded.check()
        await super().send_packed_command(*args, **options)


SYNC = Flavour(
    name="redis",
    single_server=sync.SingleServer,
    cluster_server=sync.ClusterServer,
    client=redis.Redis,
    cluster_client=redis.RedisCluster,
    cluster_node=redis.cluster.ClusterNode,
    sentinel=redis.sentinel.Sentinel,
    pool=redis.ConnectionPool,
    embedded_connection=_EmbeddedConnection,
    retry=redis.retry.Retry,
    parse_url=redis.connection.parse_url,
    fake="FakeRedis",
    connects_at_once=True,
)
AIO = Flavour(
    name="redis.asyncio",
    single_server=aio.SingleServer,
    cluster_server=aio.ClusterServer,
    client=redis.asyncio.Redis,
    cluster_client=redis.asyncio.RedisCluster,
    cluster_node=redis.asyncio.cluster.ClusterNode,
    sentinel=redis.asyncio.sentinel.Sentinel,
    pool=redis.asyncio.ConnectionPool,
    embedded_connection=_AsyncEmbeddedConnection,
    retry=redis.asyncio.retry.Retry,
    parse_url=redis.asyncio.connection.parse_url,
    fake="FakeAsyncRedis",
    connects_at_once=False,
)


@dataclass(frozen=True, slots=True)
class Connected:
    """A server, and how to name it to people: never with a password.

    Attributes:
        server: one of the flavour's servers.
        label: its name.
        wait_s: for how long a server may be let wait before it replies.
        many_nodes: whether keys of different slots may be on different nodes.
        others: other clients to be closed after it.
        stop: what else to do at the end.
    """

    server: Any
    label: str
    wait_s: float
    many_nodes: bool = False
    others: list[Any] = field(default_factory=list)
    stop: Callable[[], None] = lambda: None


def connect_client(client: Any, flavour: Flavour) -> Connected:
    """Use a redis-py client of the caller's own, which is neither changed nor closed.

    Raises:
        ConfigurationError: it decodes responses.
        InvalidType: it is no client that can be used here.
    """
    other = AIO if flavour is SYNC else SYNC
    if isinstance(client, (other.client, other.cluster_client)) and not isinstance(client, flavour.client):
        raise InvalidType(f"This is a client of {other.name}; this store takes one of {flavour.name}.")
    if isinstance(client, redis.sentinel.Sentinel | redis.asyncio.sentinel.Sentinel):
        raise InvalidType("This is a Sentinel; pass the client that sentinel.master_for(service) makes.")
    if not isinstance(client, (flavour.client, flavour.cluster_client)) or hasattr(client, "command_stack"):
        raise InvalidType(f"A store takes a client of redis-py, not a {type(client).__qualname__}.")
    if client.get_encoder().decode_responses:
        raise ConfigurationError(
            "The client decodes responses (decode_responses=True), and what the store keeps is bytes: pass a client "
            "with decode_responses=False."
        )
    options = client.get_connection_kwargs()
    patience = {}
    if options.get("socket_timeout") is None:
        if flavour is SYNC:
            log.warning(_NO_TIMEOUT)
        else:
            patience = {"timeout_s": _TIMEOUT_S}
    if isinstance(client, flavour.cluster_client):
        server = flavour.cluster_server(lambda: client, owned=False, **patience)
        return Connected(server, "a RedisCluster client", _wait_s(options), many_nodes=True)
    return Connected(flavour.single_server(client, owned=False, **patience), "a Redis client", _wait_s(options))


def connect_url(url: str, flavour: Flavour, deadline_s: float) -> Connected:
    """Connect as the URL says. What it makes is closed by `Connected.close`.

    Args:
        url: where to.
        flavour: what to make the connection of.
        deadline_s: for how long an embedded server is waited for.

    Raises:
        ConfigurationError: the URL cannot be used, or an extra is missing.
        StoreUnavailable: an embedded server could not be reached.
    """
    if not isinstance(url, str):
        raise InvalidType(f"A URL is a str, not a {type(url).__qualname__}.")
    if not _is_utf_8(url):
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
        raise refused_login(error) from error
    except InvalidArgument as error:
        raise ConfigurationError(f"The URL {shown(url)!r} cannot be used: {error}.") from error
    except (ValueError, TypeError, AttributeError):
        pass
    # Outside of the handler: what the parsers say may quote any part of the URL, and is not to stand behind this.
    raise ConfigurationError(
        f"The URL {shown(url)!r} cannot be used: it is malformed, or an option has a value that it cannot have. Write "
        "special characters in user names, passwords and options percent-encoded."
    )


def _is_utf_8(url: str) -> bool:
    """Whether a URL is UTF-8, percent-encoded or not; in a str from the environment, bytes may stand as surrogates."""
    try:
        unquote_to_bytes(url.encode()).decode()
    except UnicodeError:
        return False
    return True


_HOST = re.compile(r"([^:@\[\]]*|\[[^@\]]*\])(:\d+)?")


def shown(url: str) -> str:
    """A URL without user, password, options and fragment, however it is malformed: safe to print."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    before, *behind = re.split(r"[?#]", rest, maxsplit=1)
    place = before.rpartition("@")[2]
    # With an @ behind, a password may have begun before; and what stands as a port and is no number may be one.
    if "@" in "".join(behind) or not all(map(_HOST.fullmatch, place.partition("/")[0].split(","))):
        place = "…"
    return scheme + separator + place[:200]


def _connect_redis(url: str, flavour: Flavour, _deadline_s: float) -> Connected:
    options, patience = _settings(flavour, _options(url, flavour))
    client = flavour.client.from_pool(flavour.pool(**options))
    return Connected(flavour.single_server(client, owned=True, **patience), shown(url), _wait_s(options | patience))


def _connect_cluster(url: str, flavour: Flavour, _deadline_s: float) -> Connected:
    hosts, plain = _split_hosts(url, "redis+cluster", _REDIS_PORT)
    options, patience = _settings(flavour, _options(plain, flavour))
    secure = options.pop("connection_class", None) is not None
    if options.pop("db", 0) != 0:
        raise InvalidArgument("a cluster has no databases but 0")
    # What is left is for the client's own connections, by which it asks for the nodes.
    for name in ("host", "port", "retry", "redis_connect_func"):
        options.pop(name, None)
    options["socket_timeout"] = patience.get("timeout_s", options["socket_timeout"])
    nodes = [flavour.cluster_node(host, port) for host, port in hosts]
    connect = partial(flavour.cluster_client, startup_nodes=nodes, ssl=secure, **options)
    server = flavour.cluster_server(connect, owned=True, **patience)
    return Connected(server, shown(url), _wait_s(options | patience), many_nodes=True)


def _connect_sentinel(url: str, flavour: Flavour, _deadline_s: float) -> Connected:
    hosts, plain = _split_hosts(url, "redis+sentinel", _SENTINEL_PORT)
    parts = urlsplit(plain)
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not (database or "0").isdigit():
        raise InvalidArgument("it names no service: write redis+sentinel://host1,host2/service, or …/service/database")
    plain = urlunsplit(parts._replace(path=f"/{database or 0}"))
    given = _options(plain, flavour, _OPTIONS | _SENTINEL_OPTIONS)
    for name in ("host", "port"):
        given.pop(name, None)
    of_sentinel = {
        name.removeprefix("sentinel_"): given.pop(name)
        for name in ("sentinel_username", "sentinel_password")
        if name in given
    }
    shared = (*_TIMEOUTS, "protocol", "retry")
    of_sentinel |= {name: value for name, value in (_defaults(flavour) | given).items() if name in shared}
    options, patience = _settings(flavour, given)
    sentinel = flavour.sentinel(hosts, sentinel_kwargs=of_sentinel)
    client = sentinel.master_for(unquote(service), **options)
    server = flavour.single_server(client, owned=True, **patience)
    return Connected(server, shown(url), _wait_s(options | patience), others=list(sentinel.sentinels))


def _connect_embedded(url: str, flavour: Flavour, deadline_s: float) -> Connected:
    parts = urlsplit(url)
    given = _own_options(parts, "fsync", "protocol")
    protocol = _check_protocol(int(given.get("protocol", "2")))
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
    client = flavour.client.from_pool(flavour.pool(connection_class=flavour.embedded_connection, **options))
    server = flavour.single_server(client, owned=True, **patience)
    return Connected(server, shown(url), _wait_s(options | patience), stop=embedded.stop)


def _connect_memory(url: str, flavour: Flavour, _deadline_s: float) -> Connected:
    try:
        # An extra, paid for by those who use it. First lupa: fakeredis imported without it has no scripts ever after.
        import lupa  # noqa: F401, I001, PLC0415
        import fakeredis  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError("memory:// needs fakeredis: pip install 'runic-redis[memory]'.") from None
    parts = urlsplit(url)
    protocol = _check_protocol(int(_own_options(parts, "protocol").get("protocol", "2")))
    name = parts.netloc + parts.path
    kept = _memory_servers.setdefault(name, fakeredis.FakeServer()) if name else fakeredis.FakeServer()
    client = getattr(fakeredis, flavour.fake)(server=kept, protocol=protocol, max_connections=NO_LIMIT)
    return Connected(flavour.single_server(client, owned=True), shown(url), _MEMORY_BLOCK_S)


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


_TIMEOUTS = ("socket_timeout", "socket_connect_timeout")


def _defaults(flavour: Flavour) -> dict[str, Any]:
    """How connections are made unless the URL says otherwise: time limits, no retries, any number of connections.

    In RESP2, since some proxies and providers do not have HELLO, and the store needs nothing of RESP3.
    """
    return dict.fromkeys(_TIMEOUTS, _TIMEOUT_S) | {
        "retry": flavour.retry(NoBackoff(), 0),
        "max_connections": NO_LIMIT,
        "protocol": 2,
    }


# For how long a read waits for something to come, before it looks at how things are.
_LONGEST_BLOCK_S = 1.0
# In memory, where a read that waits cannot be interrupted.
_MEMORY_BLOCK_S = 0.05


def _wait_s(options: Mapping[str, Any]) -> float:
    """For how long a read may wait: well below the time limit of its connection."""
    timeout_s = options.get("timeout_s") or options.get("socket_timeout") or _TIMEOUT_S
    return min(_LONGEST_BLOCK_S, float(timeout_s) / 2)


def _settings(flavour: Flavour, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """How connections are made, and what their server is told."""
    options = _defaults(flavour) | given
    if flavour.connects_at_once:
        return options, {}
    timeout_s = options["socket_timeout"]
    return aio.limit_round_trips(options, timeout_s), {"timeout_s": timeout_s}


# What a URL may set; redis-py would take more, which no text can stand for, or which would change what is sent.
_OPTIONS = frozenset(
    {
        "client_name",
        "db",
        "health_check_interval",
        "max_connections",
        "password",
        "protocol",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_read_size",
        "socket_timeout",
        "username",
    }
)
_TLS_OPTIONS = frozenset(
    {
        "ssl_ca_certs",
        "ssl_ca_data",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_ciphers",
        "ssl_keyfile",
        "ssl_min_version",
        "ssl_password",
    }
)
_TLS_FILES = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"})
_SENTINEL_OPTIONS = frozenset({"sentinel_password", "sentinel_username"})
_REFUSED_OPTIONS = {
    "decode_responses": "what the store keeps is bytes, so decode_responses cannot be set",
    "retry_on_timeout": "retry_on_timeout would send a command twice; the store retries safely by itself",
    "retry_on_error": "retry_on_error would send a command twice; the store retries safely by itself",
}


def _options(url: str, flavour: Flavour, allowed: frozenset[str] = _OPTIONS) -> dict[str, Any]:
    """What redis-py reads from a URL, with the mistakes it lets pass refused."""
    parts = urlsplit(url)
    if parts.scheme != "unix" and ("@" in parts.path + parts.query or parts.fragment):
        raise InvalidArgument("it has special characters (one of @ / ? #) that must be percent-encoded")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in given:
        if name in _REFUSED_OPTIONS:
            raise InvalidArgument(_REFUSED_OPTIONS[name])
        known = allowed | _TLS_OPTIONS if parts.scheme == "rediss" else allowed
        if name not in known:
            # Beside a password it may be a part of that, behind an & that was not encoded.
            shown = "something beside the password" if any("password" in one for one in given) else name[:40]
            raise InvalidArgument(f"{shown} is not an option of it; it takes {', '.join(sorted(known))}")
    if parts.scheme == "unix":
        if not parts.path:
            raise InvalidArgument("it names no socket: write unix:///run/redis.sock")
    else:
        _check_host(parts.hostname or "")
        _check_database(parts)
    options: dict[str, Any] = flavour.parse_url(url)
    _check_values(options)
    return options


def _check_values(options: dict[str, Any]) -> None:
    for name in _TIMEOUTS:
        if name in options and not 0 < options[name] < float("inf"):
            raise InvalidArgument(f"{name} is a number of seconds above 0")
    for name in _TLS_FILES & options.keys():
        if not Path(options[name]).exists():
            raise InvalidArgument(f"{name} names a file that does not exist")
    if "protocol" in options:
        options["protocol"] = _check_protocol(int(options["protocol"]))
    if options.get("max_connections", 2) < 2:
        raise InvalidArgument("max_connections is at least 2: who reads many events has a connection of its own")


def _check_protocol(protocol: int) -> int:
    if protocol not in {2, 3}:
        raise InvalidArgument("protocol is 2 or 3")
    return protocol


def _check_host(host: str) -> None:
    try:
        host.encode("idna")
    except UnicodeError:
        raise InvalidArgument("its host is no name that a host can have") from None


def _check_database(parts: SplitResult) -> None:
    database = parts.path.strip("/")
    if database and not (database.isascii() and database.isdigit()):
        raise InvalidArgument("the database, what follows the host, is a number")


def _own_options(parts: SplitResult, *known: str) -> dict[str, str]:
    """The options of a URL that redis-py never sees."""
    if parts.fragment:
        raise InvalidArgument("a # in it must be percent-encoded")
    options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    for name in options:
        if name not in known:
            raise InvalidArgument(f"{parts.scheme}:// knows the options {' and '.join(known)}, not {name[:40]}")
    return options


def _split_hosts(url: str, scheme: str, default_port: int) -> tuple[list[tuple[str, int]], str]:
    """The hosts of a URL that names several, and the URL with the first alone, as redis-py reads it."""
    match = re.match(r"(rediss?)\+\w+://(?:([^@/]*)@)?([^/?]*)(.*)", url, re.DOTALL)
    if match is None:
        raise InvalidArgument(f"it is not of the form {scheme}://host1,host2")
    base, login, hosts, rest = match.groups()
    found = []
    for host in hosts.split(","):
        address = urlsplit(f"//{host}")
        if not address.hostname:
            raise InvalidArgument(f"it names no host: write {scheme}://host1,host2")
        _check_host(address.hostname)
        found.append((address.hostname, address.port or default_port))
    who = f"{login}@" if login is not None else ""
    return found, f"{base}://{who}{hosts.split(',')[0]}{rest}"
