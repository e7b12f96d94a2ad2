"""A retry searches for its commit among the newest entries, within a bound, because the search delays other clients."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from runic_redis import DecodeError, RedisStore, StoreError, StoreUnavailable
from runic_redis.operations.appending import append
from runic_redis.protocol.effects import Batch
from runic_redis.protocol.queue import Queue
from runic_redis.protocol.rounds import Ticket
from tests.faults import FaultyServer, make_faulty
from tests.servers import RunningServer

# The bounds of one search, and the entries that it reads at a time, as in lua/append.lua.
MOST_ENTRIES = 8192
MOST_BYTES = 8 * 1024 * 1024
FIRST_PAGE, PAGE = 16, 256
MINE = [{"mine": 1}]


@pytest.fixture
def client(valkey: RunningServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


@pytest.fixture
def open_store(valkey: RunningServer, namespace: str) -> Iterator[Callable[[], RedisStore]]:
    """Open stores that know nothing of each other's writes."""
    stores: list[RedisStore] = []

    def opened() -> RedisStore:
        stores.append(RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def other(open_store: Callable[[], RedisStore]) -> RedisStore:
    return open_store()


def fill(store: RedisStore, workflow_id: str, count: int) -> None:
    """Append a number of entries."""
    for at in range(0, count, 1000):
        results = store.append_many([(workflow_id, [{"n": 1}])] * min(1000, count - at))
        assert not any(isinstance(result, StoreError) for result in results)


def faulty_behind(store: RedisStore, *faults: str, after_loss: Callable[[], None] = lambda: None) -> FaultyServer:
    """Put a faulty server behind a store that has already connected. It loses what is sent next."""
    store.append("warm", [{}])
    faulty = make_faulty(store)
    faulty.after_loss = after_loss
    faulty.faults = list(faults)
    return faulty


def pages_read(client: redis.Redis) -> int:
    """Return how many pages of entries scripts have read since the last reset."""
    return int(client.info("commandstats").get("cmdstat_xrevrange", {"calls": 0})["calls"])


@pytest.mark.parametrize("lost", ["reply", "request"])
def test_many_commits_to_one_workflow_are_looked_for_in_one_pass(
    other: RedisStore, open_store: Callable[[], RedisStore], client: redis.Redis, lost: str
) -> None:
    fill(other, "w", 3000)
    store = open_store()
    faulty_behind(store, lost)
    client.config_resetstat()
    assert store.append_many([("w", MINE)] * 100) == list(range(3001, 3101))
    # Stored commits are among the newest entries. For lost ones, one search reads all entries.
    assert pages_read(client) <= (2 if lost == "reply" else 3000 // PAGE + 2)
    assert other.cursor("w") == 3100


@pytest.mark.parametrize("lost", ["reply", "request", "late"])
def test_a_store_does_not_look_beyond_what_it_has_written_itself(
    other: RedisStore, open_store: Callable[[], RedisStore], client: redis.Redis, lost: str
) -> None:
    fill(other, "w", 3000)
    store = open_store()
    store.append("w", MINE)
    faulty = faulty_behind(store, lost, after_loss=lambda: fill(other, "w", 10))
    client.config_resetstat()
    assert store.append("w", MINE) == (3002 if lost == "reply" else 3012)
    assert pages_read(client) == 1
    faulty.deliver_late()
    assert other.cursor("w") == 3012


@pytest.mark.parametrize("behind", [MOST_ENTRIES - 1, MOST_ENTRIES])
def test_a_commit_is_searched_for_among_a_bounded_number_of_entries(
    other: RedisStore, open_store: Callable[[], RedisStore], client: redis.Redis, behind: int
) -> None:
    fill(other, "w", 100)
    store = open_store()
    faulty_behind(store, "reply", after_loss=lambda: fill(other, "w", behind))
    client.config_resetstat()
    if behind < MOST_ENTRIES:
        assert store.append("w", MINE) == 101
    else:
        with pytest.raises(StoreUnavailable, match=r"not known.*not stored again"):
            store.append("w", MINE)
    assert pages_read(client) <= MOST_ENTRIES // PAGE + 2
    assert other.cursor("w") == 101 + behind


def test_what_is_not_found_within_the_bound_is_never_stored(
    other: RedisStore, open_store: Callable[[], RedisStore]
) -> None:
    fill(other, "w", MOST_ENTRIES + 1)
    store = open_store()
    faulty = faulty_behind(store, "late")
    with pytest.raises(StoreUnavailable, match="not known"):
        store.append("w", MINE)
    faulty.deliver_late()
    assert other.cursor("w") == MOST_ENTRIES + 1, "the late try was stored, although the caller may have appended again"
    # With a commit id or an expected cursor, a retry is certain.
    faulty.faults = ["request"]
    assert store.append("w", MINE, commit_id="c") == MOST_ENTRIES + 2
    faulty.faults = ["reply"]
    assert store.append("w", MINE, expected_cursor=MOST_ENTRIES + 2) == MOST_ENTRIES + 3
    # After that, the store knows where to stop searching.
    faulty.faults = ["request"]
    assert store.append("w", MINE) == MOST_ENTRIES + 4


@pytest.mark.parametrize("lost", ["reply", "request"])
def test_many_workflows_in_one_call_are_all_looked_through_in_order(
    other: RedisStore, open_store: Callable[[], RedisStore], client: redis.Redis, lost: str
) -> None:
    count = MOST_ENTRIES - 200
    names = ["u", "v", "w"]
    for name in names:
        fill(other, name, count)
    store = open_store()
    after_loss = (lambda: [fill(other, name, count // 2) for name in names]) if lost == "reply" else (lambda: None)
    faulty = faulty_behind(store, lost, after_loss=after_loss)
    client.config_resetstat()
    faulty.rounds.clear()
    results = store.append_many([(name, [{"mine": number}]) for number in range(3) for name in names])
    assert results == [count + number + 1 for number in range(3) for _ in names]
    assert len(faulty.rounds) > 2, "one call of the script searched all workflows"
    calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert pages_read(client) <= calls * (MOST_ENTRIES // PAGE + len(names) + 1)
    for name in names:
        mine = list(other.stream(name, after=count, until=count + 3))
        assert mine == [{"mine": 0}, {"mine": 1}, {"mine": 2}]
        assert other.cursor(name) == count + 3 + (count // 2 if lost == "reply" else 0)


def test_nothing_overtakes_a_commit_that_is_to_be_looked_for_again(
    other: RedisStore, open_store: Callable[[], RedisStore]
) -> None:
    count = MOST_ENTRIES - 100
    for name in ("u", "v"):
        fill(other, name, count)
    store = open_store()
    store.append("warm", [{}])
    effects = [next(append(store.context, name, MINE)) for name in ("u", "v", "v")]
    commands = [effect.commands[0] for effect in effects if isinstance(effect, Batch)]
    lost, later = Ticket(Batch(commands[:2]), 0.0), Ticket(Batch(commands[2:]), 0.0)
    queue = Queue(30.0)
    queue.add_lost(lost, range(2))
    queue.add(later, range(1))
    rounds = 0
    while lost.missing or later.missing:
        calls = queue.next_round(0.0)
        queue.take(calls, store._sender.server.begin(calls).finish(), 0.0)
        rounds += 1
    assert rounds > 1
    replies = [reply.partition(b"-")[0] for reply in (*lost.replies, *later.replies)]
    assert replies == [b"%d" % (count + 1), b"%d" % (count + 1), b"%d" % (count + 2)]


def test_a_search_is_bounded_in_bytes(
    other: RedisStore, open_store: Callable[[], RedisStore], client: redis.Redis
) -> None:
    size = 400_000
    for _ in range(2 * MOST_BYTES // size):
        other.append("w", [{"data": os.urandom(size)}])
    store = open_store()
    faulty = faulty_behind(store, "request")
    client.config_resetstat()
    with pytest.raises(StoreUnavailable, match="not known"):
        store.append("w", MINE)
    # A page has at most 1 MiB, so a search exceeds the bound by less than that.
    assert pages_read(client) <= MOST_BYTES // (1024 * 1024 // size * size) + 1
    faulty.faults = ["reply"]
    assert store.append("w", MINE) == 2 * MOST_BYTES // size + 1, "the newest commit was not found"


def test_a_trim_up_to_what_the_store_knows_leaves_no_doubt(
    other: RedisStore, open_store: Callable[[], RedisStore]
) -> None:
    fill(other, "w", 300)
    store = open_store()
    assert store.append("w", MINE) == 301

    def trim(cursor: int) -> None:
        other.save_snapshot("w", cursor, b"state")
        assert other.trim("w") == cursor

    faulty = faulty_behind(store, "late", after_loss=lambda: trim(301))
    assert store.append("w", MINE) == 302
    faulty.deliver_late()
    assert other.cursor("w") == 302
    # The trim also removes one entry more, which may have been the commit.
    faulty.after_loss = lambda: (other.append("w", [{"n": 1}]), trim(303))  # type: ignore[assignment]
    faulty.faults = ["late"]
    with pytest.raises(StoreUnavailable, match="not known"):
        store.append("w", MINE)
    faulty.deliver_late()
    assert other.cursor("w") == 303


def test_what_is_looked_for_in_another_life_is_not_there(
    other: RedisStore, open_store: Callable[[], RedisStore]
) -> None:
    store = open_store()
    store.append("w", MINE)

    def begin_anew() -> None:
        other.delete("w")
        fill(other, "w", 20)

    faulty = faulty_behind(store, "late", after_loss=begin_anew)
    assert store.append("w", MINE) == 21
    faulty.deliver_late()
    assert other.cursor("w") == 21


def test_lost_commit_ids_are_looked_for_within_the_bound(
    other: RedisStore, open_store: Callable[[], RedisStore], client: redis.Redis
) -> None:
    other.append("w", MINE, commit_id="early")
    fill(other, "w", MOST_ENTRIES)
    other.append("w", MINE, commit_id="late")
    client.delete(other.context.keys.workflow("w").commits)
    client.config_resetstat()
    assert other.append("w", MINE, commit_id="late") == MOST_ENTRIES + 2
    with pytest.raises(DecodeError, match="commits"):
        other.append("w", MINE, commit_id="early")
    assert pages_read(client) <= MOST_ENTRIES // PAGE + 3
    for name in ("u", "v"):
        other.append(name, MINE, commit_id="id")
        fill(other, name, MOST_ENTRIES - 100)
        client.delete(other.context.keys.workflow(name).commits)
    results: list[Any] = [open_store().append(name, MINE, commit_id="id") for name in ("u", "v")]
    assert results == [1, 1]


# A search may take so many times as long as a script that only reads as many entries.
RATIO = 40


def test_the_longest_search_takes_not_much_longer_than_reading_does(
    other: RedisStore, open_store: Callable[[], RedisStore], client: redis.Redis
) -> None:
    fill(other, "w", MOST_ENTRIES + 100)
    key = other.context.keys.workflow("w").events
    reading = f"redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', {MOST_ENTRIES})"

    def slowest(name: str, call: Callable[[], object]) -> float:
        client.config_resetstat()
        call()
        return float(client.info("commandstats")[f"cmdstat_{name}"]["usec"])

    def look() -> None:
        results = store.append_many([("w", MINE)] * 128)
        assert all(isinstance(result, StoreUnavailable) for result in results)

    reference = min(slowest("eval", lambda: client.eval(reading, 1, key)) for _ in range(3))
    looks = []
    for _ in range(3):
        store = open_store()
        faulty_behind(store, "request")
        looks.append(slowest("evalsha", look))
    assert min(looks) < RATIO * reference
