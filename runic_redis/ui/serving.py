"""The HTTP server of the page."""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import uvicorn

from runic_redis.aio import AsyncRedisStore
from runic_redis.errors import ConfigurationError
from runic_redis.ui.app import make_app
from runic_redis.ui.live import Live

# Python collects cycles after every 700 new objects. While it decodes a wide value, that takes most of the time and
# stops all threads. Decoded values have no cycles.
_OBJECTS_BETWEEN_COLLECTIONS = 50_000
# At the end, wait this long for browsers that do not read.
_CLOSING_S = 5


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def serve(
    store: AsyncRedisStore,
    host: str,
    port: int,
    token: str | None,
    on_start: Callable[[str], None],
    *,
    allow_changes: bool,
) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Args:
        store: an open store with the `bare_registry`, so that no class of the application is needed.
        host: the address to listen at.
        port: the port; 0 for any free port.
        token: the token that requests must carry; None for none.
        on_start: called with the page's URL once the page listens.
        allow_changes: whether the page may replay and drop parked commits.

    Raises:
        ConfigurationError: the page cannot listen at this address and port.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"The page cannot listen at {host} port {port}: {error}.") from error
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    live = Live(store)
    config = uvicorn.Config(
        make_app(store, live, token, allow_changes=allow_changes),
        # uvicorn prefers httptools if it is installed, and httptools accepts requests that the guard does not expect.
        http="h11",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=_CLOSING_S,
    )
    server = _Server(config)

    def end() -> None:
        server.should_exit = True
        live.end()

    shown = f"[{host}]" if family == socket.AF_INET6 else host
    loop = asyncio.get_running_loop()
    with listener:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
        try:
            on_start(f"http://{shown}:{listener.getsockname()[1]}/")
            await server.serve(sockets=[listener])
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`, which also ends the open streams of news. They would keep the server running."""
        yield
