"""Faults of the network: connections are cut at every point, and data is delayed, halved, swallowed or held."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Literal

import redis

from runic_redis import RedisStore
from tests.chaos.clients import Crew
from tests.chaos.history import Append, View
from tests.chaos.rig import EVERY_FACE, NAMESPACE, PARTITIONS, QUICK, Kind, Rig
from tests.proxy import Fault, Proxy, proxied
from tests.servers import RunningServer, running, valkey_program, wait_until

__all__ = ["cuts", "disturbances", "lost_requests"]

# The approximate bytes of a small commit's request and reply.
_REQUEST = 600
_REPLY = 24


def _points(request: int, reply: int) -> Iterator[Fault]:
    """Yield every point of a round trip: before and inside the request, before and inside the reply."""
    # A short run takes steps, so that it meets all parts of a large request. (No power of 2 or 5 is in the step.)
    step = 1 if request <= _REQUEST else 61
    for number in itertools.count():
        yield Fault("request", number * step % request)
        if number % 4 == 0:
            yield Fault("reply", number // 4 * step % reply)


def cuts(*faces: str, rest_s: float = 0.005, request: int = _REQUEST, reply: int = _REPLY) -> Kind:
    """Cut connections, at every point of a request and a reply of so many bytes."""

    @contextmanager
    def kind(directory: Path, _: Random) -> Iterator[Rig]:
        points = _points(request, reply)

        def befall(crew: Crew) -> None:
            _happen(proxy, next(points))
            # Each client pauses longer with each fault in a row, so let a write succeed in between.
            acknowledged = crew.acknowledged
            wait_until(lambda: crew.acknowledged > acknowledged, "anything to be acknowledged")

        with running(valkey_program(), directory) as server, proxied(server) as proxy:
            yield Rig(
                f"redis://127.0.0.1:{proxy.port}?{QUICK}",
                befall,
                lambda: [server],
                faces=faces or EVERY_FACE,
                rest_s=rest_s,
            )

    return kind


@contextmanager
def disturbances(directory: Path, source: Random) -> Iterator[Rig]:
    """Delay, halve or swallow data; or let nothing pass for a time, so that it arrives late."""

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


# The busy workflow's commits of the last minute.
_RECENT = 20_000
# The longest script may take so long, or so many times a reference script if the machine is slow.
_LONGEST_US = 100_000
_LONGEST_RATIO = 50
_NAME = b"reference"
_REFERENCE = "--reference\nfor _ = 1, 5000 do redis.call('EXISTS', KEYS[1]) end"
_MOST_ENTRIES = 10_000


@contextmanager
def lost_requests(directory: Path, source: Random) -> Iterator[Rig]:
    """Lose requests of many callers to one busy workflow. No script on the server may take long because of it."""
    busy = View("busy")
    cut = Fault("request", 0)
    swallow = Fault("request", 0, "swallow")

    def befall(crew: Crew) -> None:
        _happen(proxy, source.choice([cut, swallow]))
        crew.await_progress()
        durations_us: dict[bool, list[int]] = {True: [0], False: [0]}
        for entry in direct.slowlog_get(_MOST_ENTRIES):
            durations_us[_NAME in entry["command"]].append(entry["duration"])
        longest_us, reference_us = max(durations_us[False]), max(durations_us[True])
        if longest_us > max(_LONGEST_US, _LONGEST_RATIO * reference_us):
            rig.found.append(f"a script took {longest_us} us, where a fixed one takes at most {reference_us} us")
        direct.slowlog_reset()

    with (
        running(
            valkey_program(), directory, "--slowlog-log-slower-than", "1000", "--slowlog-max-len", str(_MOST_ENTRIES)
        ) as server,
        proxied(server) as proxy,
        server.client() as direct,
        _bystander(server) as refusals,
    ):
        _fill(server, busy)
        direct.slowlog_reset()
        rig = Rig(
            f"redis://127.0.0.1:{proxy.port}?{QUICK}",
            befall,
            lambda: [server],
            faces=("shared",) * 32 + ("asyncio",) * 32,
            expects=lambda _: False,
            rest_s=0.0,
            busy=busy,
        )
        yield rig
        rig.found += refusals


def _fill(server: RunningServer, busy: View) -> None:
    """Append the recent commits of a workflow."""
    with RedisStore.from_url(server.url(), namespace=NAMESPACE, partitions=PARTITIONS) as store:
        for first in range(0, _RECENT, 2000):
            names = [f"recent-{number}" for number in range(first, first + 2000)]
            began_s = time.monotonic()
            cursors = store.append_many([(busy.workflow_id, [{"op": name, "part": 0}]) for name in names])
            ended_s = time.monotonic()
            for name, cursor in zip(names, cursors, strict=True):
                assert isinstance(cursor, int), cursor
                busy.appends.append(Append(name, 1, began_s, None, ended_s, "acknowledged", cursor))


@contextmanager
def _bystander(server: RunningServer) -> Iterator[list[str]]:
    """Another user of the server, who calls a fixed script. Collect the errors that this user gets."""
    refusals: list[str] = []
    over = threading.Event()

    def use() -> None:
        with server.client(socket_timeout=60) as client:
            while not over.wait(0.05):
                try:
                    client.eval(_REFERENCE, 1, _NAME)
                except redis.RedisError as error:
                    refusals.append(f"a bystander got: {error}")

    thread = threading.Thread(target=use)
    thread.start()
    try:
        yield refusals
    finally:
        over.set()
        thread.join()


def _happen(proxy: Proxy, fault: Fault) -> None:
    proxy.arm(fault)
    wait_until(_not_armed(proxy), "the fault to happen")


def _not_armed(proxy: Proxy) -> Callable[[], bool]:
    return lambda: not proxy.armed
