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

__all__ = ["is_loopback", "serve"]

# Python looks for cycles after each 700 objects. That takes most of the time of decoding a wide value, and holds up all
# threads. Decoded values hold none.
_OBJECTS_BETWEEN_COLLECTIONS = 50_000
# A browser that takes no bytes is not waited for.
_CLOSING_S = 5


def is_loopback(host: str) -> bool:
    """Whether a host can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def serve(
    store: AsyncRedisStore, host: str, port: int, token: str | None, on_start: Callable[[str], None]
) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Args:
        store: an open store with the `bare_registry`, so that no class of the application is needed.
        host: the address to listen at.
        port: the port; 0 for any that is free.
        token: what must be shown to see the page; None for nothing.
        on_start: called with the page's URL once it listens.

    Raises:
        ConfigurationError: it cannot listen there.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"The page cannot listen at {host} port {port}: {error}.") from error
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    live = Live(store)
    config = uvicorn.Config(
        make_app(store, live, token),
        # uvicorn would take httptools where it is installed, which accepts more than the guard expects.
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
        """Leave signals alone: here they end the pages that listen, too, which would keep the server up."""
        yield
