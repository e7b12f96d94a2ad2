"""Trouble on the way: connections that are cut at every point, and what passes delayed, halved, swallowed, held."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Literal

from tests.chaos.clients import Crew
from tests.chaos.rig import EVERY_FACE, QUICK, Kind, Rig
from tests.proxy import Fault, Proxy, proxied
from tests.servers import running, valkey_program, wait_until

__all__ = ["cuts", "disturbances"]

# About how many bytes a request and a reply of the smaller commits have.
_REQUEST = 600
_REPLY = 24


def _points() -> Iterator[Fault]:
    """Every point of an exchange: before the request, inside it, before the reply, inside it."""
    for number in itertools.count():
        yield Fault("request", number % _REQUEST)
        if number % 4 == 0:
            yield Fault("reply", number // 4 % _REPLY)


def cuts(*faces: str) -> Kind:
    """Connections are cut, at every point in turn."""

    @contextmanager
    def kind(directory: Path, _: Random) -> Iterator[Rig]:
        points = _points()

        def befall(crew: Crew) -> None:
            _happen(proxy, next(points))
            # Not two in a row: a client that meets nothing else makes longer and longer pauses.
            acknowledged = crew.acknowledged
            wait_until(lambda: crew.acknowledged > acknowledged, "anything to be acknowledged")

        with running(valkey_program(), directory) as server, proxied(server) as proxy:
            yield Rig(f"redis://127.0.0.1:{proxy.port}?{QUICK}", befall, lambda: [server], faces=faces or EVERY_FACE)

    return kind


@contextmanager
def disturbances(directory: Path, source: Random) -> Iterator[Rig]:
    """What passes is delayed, halved or swallowed; or nothing passes for a time, and then arrives late."""

    def befall(crew: Crew) -> None:
        if source.random() < 0.3:
            proxy.hold()
            crew.stopping.wait(source.uniform(0.1, 1.0))
            proxy.let_go()
        else:
            side: Literal["request", "reply"] = source.choice(["request", "reply"])
            after = source.choice([0, source.randrange(1, _REQUEST if side == "request" else _REPLY)])
            _happen(proxy, Fault(side, after, source.choice(["delay", "swallow"]), source.uniform(0.0, 0.6)))
        crew.await_progress()

    with running(valkey_program(), directory) as server, proxied(server) as proxy:
        yield Rig(f"redis://127.0.0.1:{proxy.port}?{QUICK}", befall, lambda: [server])


def _happen(proxy: Proxy, fault: Fault) -> None:
    proxy.arm(fault)
    wait_until(_not_armed(proxy), "the fault to happen")


def _not_armed(proxy: Proxy) -> Callable[[], bool]:
    return lambda: not proxy.armed
