"""The reads of recovery, counted at the server, and the memory of lean replay."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import redis

from runic_redis import Fact, FactResolver, RedisStore, session
from tests.servers import RunningServer

EVENTS = 100_000
COVERED = 99_000
BATCH = 100
STATE = b"x" * 5_000


def commands(client: redis.Redis) -> dict[str, int]:
    """Return how often each command was called, without those about connections and measuring."""
    stats = client.info("commandstats")
    return {
        name.removeprefix("cmdstat_"): counts["calls"]
        for name, counts in stats.items()
        if not name.startswith(("cmdstat_client", "cmdstat_config", "cmdstat_hello", "cmdstat_info"))
    }


def test_recovery_reads_the_snapshot_and_what_comes_after_it_and_no_more(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store, valkey.client() as client:
        for first in range(0, EVENTS, 50 * BATCH):
            commits = [[{"n": n} for n in range(at, at + BATCH)] for at in range(first, first + 50 * BATCH, BATCH)]
            assert store.append_many([("w", commit) for commit in commits])[-1] == first + 50 * BATCH
        store.save_snapshot("w", COVERED, STATE)

        key = store.context.keys.workflow("w").events
        entries = client.xrange(key, f"{COVERED + 1}-0", "+")
        assert len(entries) == (EVENTS - COVERED) // BATCH
        their_bytes = sum(len(part) for _, fields in entries for pair in fields.items() for part in pair)

        client.config_resetstat()
        before, again = (client.info("stats")["total_net_output_bytes"] for _ in range(2))
        asking = again - before
        seen = []
        with session(
            store, "w", lambda state, event: (seen.append(event["n"]), state)[1], b"", dumps=bytes, loads=bytes
        ) as one:
            assert (one.state, one.cursor) == (STATE, EVENTS)
            assert (one.recovery.snapshot_cursor, one.recovery.replayed) == (COVERED, EVENTS - COVERED)
        sent = client.info("stats")["total_net_output_bytes"] - again - asking

        assert seen == list(range(COVERED, EVENTS))
        # Recovery reads the snapshot, the meta hash, and two pages. It reads the meta hash after each page, and once
        # before the first for the time of creation. (The first page is always small.)
        assert commands(client) == {"hmget": 5, "xrange": 2}
        framing = 64 * len(entries) + 500
        assert their_bytes + len(STATE) < sent < their_bytes + len(STATE) + framing


def peak(replay: Callable[[], list[Any]]) -> int:
    tracemalloc.start()
    try:
        assert len(replay()) == 300
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_lean_replay_needs_a_fiftieth_of_the_memory_of_full_replay(valkey: RunningServer, namespace: str) -> None:
    size = 100_000
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        for first in range(0, 300, 20):
            store.append("w", [{"value": Fact(f"{n:05}" * (size // 5))} for n in range(first, first + 20)])
        lean = peak(lambda: list(store.stream("w")))
        full = peak(lambda: FactResolver(store).rehydrate(store.stream("w")))
        assert full > 300 * size
        assert lean < full / 50
