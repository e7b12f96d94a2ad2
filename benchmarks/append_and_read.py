"""Appending and reading, against redis-py by hand: ``python -m benchmarks.append_and_read [URL]``.

By hand is what an engineer would write first: one XADD an event in a pipeline, MessagePack inside, XRANGE and unpack
to the same objects. Both sides take turns in one run on one server, each turn on a key of its own, and what is
reported is the ratio of each pair of turns: its median, and the lowest and highest. Without a URL it runs on an
embedded server in a temporary directory.
"""

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import msgpack
import redis
from rich.console import Console
from rich.table import Table

from runic_redis import RedisStore, event
from runic_redis.embedded import EmbeddedServer

ROUNDS = 15
WARM_UP = 3


@event("benchmark.order_placed")
@dataclass(frozen=True)
class OrderPlaced:
    """An event of about 130 bytes, as MessagePack with field names."""

    order_id: str
    customer: str
    item: str
    quantity: int
    price: float
    placed_at: float


def some_events(count: int) -> list[OrderPlaced]:
    return [
        OrderPlaced(f"order-{n:08}", f"customer-{n % 997}", "a thing that somebody wants", n % 9, n * 1.25, 1.8e9 + n)
        for n in range(count)
    ]


def append_by_hand(client: redis.Redis, key: str, events: list[OrderPlaced]) -> None:
    pipeline = client.pipeline(transaction=False)
    for one in events:
        pipeline.xadd(key, {"t": "order_placed", "d": msgpack.packb(asdict(one))})
    pipeline.execute()


def read_by_hand(client: redis.Redis, key: str) -> int:
    read = 0
    last = b"-"
    while page := client.xrange(key, min=last, max="+", count=10_000):
        read += len([OrderPlaced(**msgpack.unpackb(fields[b"d"])) for _, fields in page])
        last = b"(" + page[-1][0]
    return read


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(ours: Callable[[int], object], by_hand: Callable[[int], object]) -> list[tuple[float, float]]:
    """The seconds of both for each round, in turn; the argument is the round's number."""
    pairs = []
    for number in range(WARM_UP + ROUNDS):
        pair = (timed(lambda n=number: ours(n)), timed(lambda n=number: by_hand(n)))
        if number >= WARM_UP:
            pairs.append(pair)
    return pairs


def report(url: str, client: redis.Redis) -> None:
    table = Table("work", "µs an event", "by hand", "times as fast (median)", "lowest", "highest")
    namespaces = itertools.count()
    with RedisStore.from_url(url, namespace="benchmark") as store:

        def row(name: str, count: int, pairs: list[tuple[float, float]]) -> None:
            ratios = [by_hand / ours for ours, by_hand in pairs]
            ours_us, by_hand_us = (statistics.median(side) / count * 1e6 for side in zip(*pairs, strict=True))
            ratio = statistics.median(ratios)
            table.add_row(
                name, f"{ours_us:.2f}", f"{by_hand_us:.2f}", f"{ratio:.2f}", f"{min(ratios):.2f}", f"{max(ratios):.2f}"
            )

        for batch, times in ((1, 300), (10, 100), (100, 40), (1000, 10)):
            events = some_events(batch)
            key = f"append-{next(namespaces)}"

            def ours(number: int, key: str = key, events: list[OrderPlaced] = events, times: int = times) -> None:
                for _ in range(times):
                    store.append(f"{key}-{number}", events)

            def by_hand(number: int, key: str = key, events: list[OrderPlaced] = events, times: int = times) -> None:
                for _ in range(times):
                    append_by_hand(client, f"by-hand:{key}-{number}", events)

            row(f"append, {batch} at a time", batch * times, compare(ours, by_hand))

        for batch in (1, 100):
            count = 20_000
            events = some_events(count)
            for at in range(0, count, batch):
                store.append(f"read-{batch}", events[at : at + batch])
            append_by_hand(client, f"by-hand:read-{batch}", events)
            assert list(store.stream(f"read-{batch}")) == events
            assert read_by_hand(client, f"by-hand:read-{batch}") == count
            pairs = compare(
                lambda _, batch=batch: sum(1 for _ in store.stream(f"read-{batch}")),
                lambda _, batch=batch: read_by_hand(client, f"by-hand:read-{batch}"),
            )
            row(f"read, appended {batch} at a time", count, pairs)
            ours_bytes = client.memory_usage(store._context.keys.workflow(f"read-{batch}").events, samples=0)
            by_hand_bytes = client.memory_usage(f"by-hand:read-{batch}", samples=0)
            table.add_row(
                f"bytes of memory an event, appended {batch} at a time",
                *(f"{ours_bytes / count:.1f}", f"{by_hand_bytes / count:.1f}"),
                *(f"{by_hand_bytes / ours_bytes:.2f} (smaller)", "", ""),
            )
        store.delete_namespace()
    for key in client.scan_iter("by-hand:*"):
        client.unlink(key)
    Console().print(table)


def main() -> None:
    if len(sys.argv) > 1:
        with redis.Redis.from_url(sys.argv[1]) as client:
            report(sys.argv[1], client)
        return
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedServer(directory) as server,
        redis.Redis(unix_socket_path=str(server.socket)) as client,
    ):
        report(f"embedded://{directory}", client)


if __name__ == "__main__":
    main()
