"""The cost of a plain append of one event with and without a feed, and of decoding: counted and not timed.

A count above its limit fails.
The limits are the counts of today. Lower a limit in the commit that lowers its count.
"""

import asyncio
import contextlib
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from types import FrameType

import pytest
import redis

from runic_redis import AsyncRedisStore, RedisStore, event
from tests.servers import RunningServer, valkey_program

COMMANDS_SENT = 1
# Those that decode a commit of 100 events with dates, Decimals and objects.
PYTHON_CALLS_TO_DECODE = 28
# The bytes of Redis' memory that the feed takes for a commit, where ids have 12 bytes.
FEED_BYTES = 32


@dataclass(frozen=True)
class Limits:
    """The limits of an append.

    Attributes:
        commands: the commands that the script runs.
        keys: the keys that the script is called with.
        bytes_sent: the bytes that the client sends.
        python_calls: the calls of this package's functions.
        asyncio_calls: the same in asyncio.
        instructions: those of the server. They vary by a hundredth from run to run, because it also works on a clock.
    """

    commands: int
    keys: int
    bytes_sent: int
    python_calls: int
    asyncio_calls: int
    instructions: int


LIMITS = {
    False: Limits(6, 4, 318, 73, 96, 122_000),
    True: Limits(8, 5, 353, 75, 98, 152_000),
}

# The name is as long in each run, because the bytes count.
NAMESPACE = "costs"


@event("costs.step_done")
@dataclass(frozen=True, slots=True)
class StepDone:
    step: str
    attempt: int
    score: float
    final: bool


@event("costs.priced")
@dataclass(frozen=True, slots=True)
class Priced:
    at: datetime
    due: date | None
    price: Decimal
    step: StepDone


EVENT = StepDone("charge", 1, 0.5, True)


@pytest.fixture(params=[False, True], ids=["no-feed", "feed"])
def feed(request: pytest.FixtureRequest) -> bool:
    """Return whether the namespace has a feed."""
    return bool(request.param)


@pytest.fixture
def limits(feed: bool) -> Limits:
    return LIMITS[feed]


@pytest.fixture
def store(valkey: RunningServer, feed: bool) -> Iterator[RedisStore]:
    """Return a store that has appended to its workflow before, because the first append costs more."""
    with RedisStore.from_url(valkey.url(), namespace=NAMESPACE, feed=feed) as store:
        store.append("w", [EVENT])
        yield store
        store.delete_namespace()


@contextlib.contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Count the calls of this package's functions in this thread, by name. Resuming a generator counts as a call."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, what: str, _: object) -> None:
        module = frame.f_globals.get("__name__", "")
        if what == "call" and module.startswith("runic_redis."):
            calls[f"{module}.{frame.f_code.co_qualname}"] += 1

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def commands(client: redis.Redis) -> dict[str, int]:
    """Return how often the server ran each command, the tests' own left out."""
    stats = client.info("commandstats")
    names = {name: name.removeprefix("cmdstat_") for name in stats}
    return {
        short: stats[name]["calls"]
        for name, short in names.items()
        if not short.startswith(("client", "config", "hello", "info"))
    }


def test_the_commands(store: RedisStore, limits: Limits, valkey: RunningServer) -> None:
    with valkey.client() as client:
        client.config_resetstat()
        store.append("w", [EVENT])
        ran = commands(client)
    assert ran.pop("evalsha") <= COMMANDS_SENT
    assert 0 < sum(ran.values()) <= limits.commands, str(ran)


def test_the_keys(store: RedisStore, limits: Limits, valkey: RunningServer) -> None:
    with valkey.client() as client, client.monitor() as monitor:
        store.append("w", [EVENT])
        sent = next(words for one in monitor.listen() if (words := one["command"].split(" "))[0] == "EVALSHA")
    # After the hash of the script comes the number of keys.
    assert 0 < int(sent[2]) <= limits.keys


def test_the_bytes_sent(store: RedisStore, limits: Limits, valkey: RunningServer) -> None:
    def received() -> int:
        return client.info("stats")["total_net_input_bytes"]

    with valkey.client() as client:
        before, again = received(), received()
        store.append("w", [EVENT])
        sent = received() - again - (again - before)
    assert 0 < sent <= limits.bytes_sent


def test_the_calls_of_python_functions(store: RedisStore, limits: Limits) -> None:
    with counted_calls() as calls:
        store.append("w", [EVENT])
    assert 0 < calls.total() <= limits.python_calls, str(calls)


def test_the_calls_of_python_functions_in_asyncio(valkey: RunningServer, feed: bool, limits: Limits) -> None:
    async def append() -> Counter[str]:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=NAMESPACE, feed=feed) as tasks:
            try:
                await tasks.append("w", [EVENT])
                with counted_calls() as calls:
                    await tasks.append("w", [EVENT])
            finally:
                await tasks.delete_namespace()
            return calls

    calls = asyncio.run(append())
    assert 0 < calls.total() <= limits.asyncio_calls, str(calls)


def test_the_calls_of_python_functions_that_decode_a_commit(store: RedisStore) -> None:
    commit = [Priced(datetime(2026, 1, 2, 3, number % 60), None, Decimal(number), EVENT) for number in range(100)]
    for _ in range(40):
        store.append("read", commit)
    list(store.stream("read", until=2000))  # the decoder learns the types of the fields
    with counted_calls() as calls:
        assert list(store.stream("read", after=2000)) == commit * 20
    decoding = Counter({name: count for name, count in calls.items() if ".codec." in name or ".events." in name})
    assert 0 < decoding.total() / 20 <= PYTHON_CALLS_TO_DECODE, str(decoding)


def test_the_bytes_of_the_feed(valkey: RunningServer) -> None:
    ids = [f"order-{number:06}" for number in range(200)]
    with RedisStore.from_url(valkey.url(), namespace=NAMESPACE, feed=True, partitions=1) as store:
        try:
            for _ in range(50):
                store.append_many([(workflow_id, [EVENT]) for workflow_id in ids])
            with valkey.client() as client:
                used = client.memory_usage(store.context.keys.feed(0), samples=0)
        finally:
            store.delete_namespace()
    assert 0 < used / (50 * len(ids)) <= FEED_BYTES


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_the_instructions_of_the_server(tmp_path: Path, feed: bool, limits: Limits) -> None:
    fewer, more = (instructions(tmp_path / str(appends), appends, feed=feed) for appends in (20, 120))
    assert 0 < (more - fewer) / 100 <= limits.instructions * 1.02


def instructions(directory: Path, appends: int, *, feed: bool) -> int:
    """Return how many instructions a server executes from its start to its end, with some appends in between."""
    directory.mkdir()
    socket, counts = directory / "server.sock", directory / "counts"
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={counts}"]
    command += [str(valkey_program()), "--port", "0", "--unixsocket", str(socket), "--dir", str(directory)]
    command += ["--save", "", "--hz", "1"]
    server = RunningServer(command, directory, socket, None)
    server.restart()
    try:
        with RedisStore.from_url(server.url(), namespace=NAMESPACE, feed=feed) as store:
            for _ in range(appends):
                store.append("w", [EVENT])
        with server.client() as client:
            client.shutdown(nosave=True)
        server.process.wait(60)
    finally:
        server.kill()
    found = re.search(r"^summary:\s*(\d+)", counts.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
