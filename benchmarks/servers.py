"""The server of a run: an embedded one, or one by URL. Each contender connects to it in its usual way.

The server itself reports its version and its durability.
"""

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
import redis.asyncio
from redis.connection import parse_url

from runic_redis import RedisStore
from runic_redis.embedded import EmbeddedServer

# It decides how large a small stream is.
NODE_SETTING = "stream-node-max-bytes"
# redis.asyncio uses a connection for each task, and the largest case has this many tasks at most.
_CONNECTIONS = 1024


@dataclass(frozen=True)
class Server:
    """A server: its URL for this store, and its URL for redis-py, or None if redis-py cannot connect to it."""

    url: str
    plain_url: str | None
    embedded: bool
    # Every key and every namespace contains it, so that all of them can be found and deleted.
    token: str = field(default_factory=lambda: f"runic-bench-{secrets.token_hex(6)}")

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self._reachable())

    def async_client(self) -> redis.asyncio.Redis:
        return redis.asyncio.Redis.from_url(self._reachable(), max_connections=_CONNECTIONS)

    def address(self) -> dict[str, Any]:
        """Return the parts of the URL as redis-py parses them: path, or host and port; db, password and so on."""
        return parse_url(self._reachable())

    def _reachable(self) -> str:
        if self.plain_url is None:
            raise redis.ConnectionError(f"redis-py alone does not connect to {self.scheme}://")
        return self.plain_url

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def transport(self) -> str:
        if self.plain_url is None:
            return self.scheme
        return {"unix": "unix socket", "redis": "TCP", "rediss": "TLS"}[urlsplit(self.plain_url).scheme]


@contextlib.contextmanager
def embedded(directory: Path, fsync: str = "everysec") -> Iterator[Server]:
    """Run an embedded server with its data in a directory."""
    with EmbeddedServer(directory, fsync=fsync) as server:
        # All connect in the same way. With embedded://, this store would also look before each round trip whether the
        # server's files are still there.
        url = f"unix://{server.socket}"
        yield Server(url, url, embedded=True)


@contextlib.contextmanager
def reached(url: str) -> Iterator[Server]:
    """Connect to a server by URL."""
    RedisStore.from_url(url, deadline_s=5).close()  # a bad URL or a server that is down raises one clear error
    parts = urlsplit(url)
    if parts.scheme == "embedded":
        fsync = parse_qs(parts.query).get("fsync", ["everysec"])[0]
        with EmbeddedServer(parts.netloc + parts.path, fsync=fsync) as server:
            yield Server(url, f"unix://{server.socket}", embedded=True)
        return
    yield Server(url, url if parts.scheme in {"redis", "rediss", "unix"} else None, embedded=False)


def describe(server: Server) -> dict[str, str]:
    """Return the server's name, transport, durability and the setting of its streams, for people."""
    if server.plain_url is None:
        unknown = "as the server is set up"
        return {"server": server.scheme, "transport": server.transport, "durability": unknown, "streams": unknown}
    with server.client() as client:
        info: dict[str, Any] = client.info("server")
        version = info.get("valkey_version")
        name = f"Valkey {version}" if version else f"Redis {info.get('redis_version', '?')}"
        try:
            settings: dict[str, str] = client.config_get("*")
        except redis.ResponseError:
            durability = streams = "as the server is set up (it does not permit CONFIG GET)"
        else:
            on = settings.get("appendonly") == "yes"
            durability = f"append-only file, fsync {settings.get('appendfsync')}" if on else "no append-only file"
            streams = f"{NODE_SETTING} {settings.get(NODE_SETTING)}"
    return {"server": name, "transport": server.transport, "durability": durability, "streams": streams}
