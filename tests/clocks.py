"""A server whose clock a test can set.

`shifted` puts a proxy in front of a server, which changes the server's time for stores. Clients and scripts get that
time only from the TIME command, so the proxy replaces it in both. Use it like this::

    with shifted(server) as clock, RedisStore.from_url(clock.url) as store:
        store.append("order-1", [{"placed": True}])
        clock.step(-3600)  # the server's clock goes back by an hour
        store.append("order-1", [{"paid": True}])

`shifted` accepts a `RunningServer` of any kind, or a ``memory://`` URL. All stores that use `clock.url` see the shifted
time, whatever their face or process. A store that connects to the server directly sees the real time.

The expiry of keys in Redis and the IDs that XADD generates follow the real time. The store uses neither.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from types import SimpleNamespace
from typing import Protocol
from unittest import mock

from runic_redis.protocol.scripts import load_script, scripts_directory
from tests.proxy import CommandProxy
from tests.servers import RunningServer

__all__ = ["Clock", "ClockProxy", "shifted"]


class Clock(Protocol):
    """The clock of a server, as stores that use `url` see it."""

    @property
    def url(self) -> str:
        """Return the URL for stores."""

    def step(self, seconds: float) -> None:
        """Set the clock forward, or back if negative. The steps of one clock add up."""


@contextmanager
def shifted(server: RunningServer | str) -> Iterator[Clock]:
    """Give a server a clock that the test can set, until the block ends.

    Args:
        server: a server, or the URL of one in memory. A step then affects all servers in memory of this process.
    """
    if isinstance(server, str):
        memory = _MemoryClock(server)
        with mock.patch("fakeredis.commands_mixins.server_mixin.time", SimpleNamespace(time=memory.now)):
            yield memory
        return
    proxy = ClockProxy(server)
    try:
        yield proxy
    finally:
        proxy.close()


class _MemoryClock:
    def __init__(self, url: str) -> None:
        self.url = url
        self._offset_s = 0.0

    def step(self, seconds: float) -> None:
        self._offset_s += seconds

    def now(self) -> float:
        return time.time() + self._offset_s


_TIME = re.compile(r"""(?:redis\.)?p?call\(\s*(['"])TIME\1\s*\)""")
_NAME = re.compile(r"""['"]TIME['"]""")


def _with_offset(text: str, micros: int) -> str:
    """Return the script with a TIME that differs by some microseconds."""
    shift = (
        f"(function(t) local us = t[1] * 1000000 + t[2] + ({micros}) "
        "return {string.format('%.0f', math.floor(us / 1000000)), string.format('%.0f', us % 1000000)} end)"
    )
    changed, count = _TIME.subn(lambda found: f"{shift}({found[0]})", text)
    assert count == len(_NAME.findall(text)), "a script calls TIME in a form that tests/clocks.py does not recognise"
    return changed


class ClockProxy(CommandProxy):
    """A proxy that shows a server with another time."""

    def __init__(self, server: RunningServer) -> None:
        self._micros = 0
        names = [path.stem for path in scripts_directory().glob("*.lua")]
        self._texts = {script.sha.encode(): script.text for script in map(load_script, names)}
        super().__init__(server)

    @property
    def url(self) -> str:
        """Return the URL for stores."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def offset_s(self) -> float:
        """Return how far the clock is ahead of the real time."""
        return self._micros / 1_000_000

    def step(self, seconds: float) -> None:
        """Set the clock forward, or back if negative. Commands that were already forwarded see the earlier time."""
        self._micros += round(seconds * 1_000_000)

    def switch_to(self, server: RunningServer, seconds: float) -> None:
        """Fail over to another server, whose clock differs from the first one's by so many seconds."""
        self._server = server
        self.step(seconds)
        self.cut_all()

    def admit(self, commands: list[list[bytes]], login: list[list[bytes]]) -> list[list[bytes]]:
        micros = self._micros
        return [self._change(command, micros) for command in commands]

    def _change(self, command: list[bytes], micros: int) -> list[bytes]:
        name, *args = command
        match name.upper():
            case b"TIME":
                return [b"EVAL", _with_offset("return redis.call('TIME')", micros).encode(), b"0"]
            case b"EVAL":
                self._texts[sha1(args[0]).hexdigest().encode()] = args[0].decode()
                return [name, _with_offset(args[0].decode(), micros).encode(), *args[1:]]
            case b"EVALSHA":
                # The server knows the changed script by another SHA, or replies NOSCRIPT.
                text = self._texts.get(args[0])
                sha = b"" if text is None else sha1(_with_offset(text, micros).encode()).hexdigest().encode()
                return [name, sha or b"0" * 40, *args[1:]]
        return command
