"""`read_many`: its round trips, its errors, and changes by others meanwhile. The contract suite has its results."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runic_redis import DecodeError, Fact, FactNotFound, RedisStore, StoreUnavailable, WorkflowNotFound
from runic_redis.operations import reading_many
from runic_redis.protocol.effects import Batch, Operation, Unanswered, key_command
from runic_redis.protocol.refusals import ask
from runic_redis.testing.examples import append_each, numbered
from tests import portal
from tests.servers import RunningServer, url_on


@pytest.fixture(params=["memory", "valkey", "redis_6_2", "cluster_nodes"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["sync", "async"])
def store(request: pytest.FixtureRequest, backend: str, namespace: str, few_buckets: None) -> Iterator[Any]:
    with portal.open_store(request.param, url_on(request, backend, namespace), namespace, partitions=4) as store:
        yield store


@pytest.fixture
def on_valkey(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        yield store


def events_of(records: Any) -> list[Any]:
    assert isinstance(records, list), records
    return [record.event for record in records]


def play(
    store: RedisStore,
    operation: Operation[list[Any]],
    change: Callable[[int, Batch, list[Any]], list[Any]] = lambda _, __, replies: replies,
) -> tuple[list[int], list[Any]]:
    """Run an operation. Return the number of commands of each batch that it sends, each a round trip; and its result.

    `change` gets the number of each batch, the batch and its replies, and returns the replies that the operation gets.
    """
    sizes: list[int] = []
    batch = next(operation)
    while True:
        assert isinstance(batch, Batch)
        replies = change(len(sizes), batch, store._sender.ask(batch))
        sizes.append(len(batch.commands))
        try:
            batch = operation.send(replies)
        except StopIteration as stop:
            return sizes, stop.value


def batches_of(store: RedisStore, items: list[tuple[str, int, int | None]], *, facts: bool = False) -> list[int]:
    return play(store, reading_many.read_many(store.context, items, facts=facts))[0]


def test_a_missing_or_damaged_fact_fails_the_ranges_that_refer_to_it(store: Any) -> None:
    store.append("a", [{"value": Fact("kept")}])
    store.append("b", [*numbered(1), {"value": Fact("gone")}])
    store.append("c", [{"value": Fact("damaged")}])
    gone, damaged = (event["value"].hash for name in "bc" for event in store.stream(name) if isinstance(event, dict))
    key, _ = store.context.keys.fact(gone.encode())
    store.run(ask(key_command("HDEL", key, gone)), "remove")
    key, _ = store.context.keys.fact(damaged.encode())
    store.run(ask(key_command("HSET", key, damaged, b"\xc1")), "damage")
    whole, missing, broken, before = store.read_many(
        [("a", 0, None), ("b", 0, None), ("c", 0, None), ("b", 0, 1)], facts=True
    )
    assert events_of(whole) == [{"value": Fact("kept")}]
    assert isinstance(missing, FactNotFound)
    assert missing.hashes == [gone]
    assert "The event at cursor 2 of the workflow 'b' refers to it." in str(missing)
    assert isinstance(broken, DecodeError)
    assert "The event at cursor 1 of the workflow 'c' refers to it." in str(broken)
    assert events_of(before) == numbered(1)


def test_damage_fails_its_range_alone(store: Any) -> None:
    for name in "abc":
        store.append(name, numbered(2))
    keys = store.context.keys
    store.run(ask(key_command("HSET", keys.workflow("a").meta, "cursor", "x")), "damage")
    store.run(ask(key_command("DEL", keys.workflow("b").meta)), "damage")
    first, second, third = store.read_many([(name, 0, None) for name in "abc"])
    assert isinstance(first, DecodeError)
    assert isinstance(second, DecodeError)
    assert events_of(third) == numbered(2)


def test_a_workflow_that_is_over_is_not_found(store: Any) -> None:
    store.append_many([("a", numbered(1)), ("b", numbered(1))])
    store.complete("a")
    store.expire("a", 0.001)
    while store.exists("a"):
        pass
    over, other = store.read_many([("a", 0, None), ("b", 0, None)])
    assert isinstance(over, WorkflowNotFound)
    assert events_of(other) == numbered(1)


def test_many_short_ranges_take_one_round_trip_and_their_facts_one_more(on_valkey: RedisStore) -> None:
    items: list[tuple[str, int, int | None]] = []
    for number in range(40):
        append_each(on_valkey, f"w-{number}", [{"f": Fact(number % 7)}, *numbered(20)])
        items.append((f"w-{number}", 0, None))
    assert batches_of(on_valkey, items) == [3 * 40]
    assert batches_of(on_valkey, items, facts=True) == [3 * 40, 7]
    assert batches_of(on_valkey, [("nobody", 0, None), *items])[0] == 3 * 41


def test_long_ranges_share_the_round_trips_of_their_further_pages(on_valkey: RedisStore) -> None:
    for name in "abc":
        on_valkey.append_many([(name, numbered(1)) for _ in range(100)])
    on_valkey.append("short", numbered(1))
    items: list[tuple[str, int, int | None]] = [("short", 0, None), *((name, 0, None) for name in "abc")]
    assert batches_of(on_valkey, items) == [3 * 4, 2 * 3]


@pytest.mark.parametrize("facts", [False, True])
def test_a_read_is_so_many_commands_at_the_server(valkey: RunningServer, on_valkey: RedisStore, facts: bool) -> None:
    items: list[tuple[str, int, int | None]] = []
    for number in range(50):
        on_valkey.append(f"w-{number}", [{"f": Fact("shared")}, *numbered(5)])
        items.append((f"w-{number}", 0, None))
    with valkey.client() as client:
        client.config_resetstat()
        on_valkey.read_many(items, facts=facts)
        stats = client.info("commandstats")
    ran = {name: stats[f"cmdstat_{name}"]["calls"] for name in ("hmget", "xrange")}
    assert ran == {"hmget": 2 * 50 + int(facts), "xrange": 50}


def test_a_node_that_does_not_answer_fails_the_ranges_on_it_alone(on_valkey: RedisStore) -> None:
    for name in "ab":
        on_valkey.append(name, [{"f": Fact(name)}])
    keys = on_valkey.context.keys.workflow("a")

    def lose(number: int, batch: Batch, replies: list[Any]) -> list[Any]:
        lost = Unanswered("gone", 1.0, unsure=False)
        pairs = zip(batch.commands, replies, strict=True)
        return [lost if command.key in {keys.meta, keys.events} else reply for command, reply in pairs]

    items = [("a", 0, None), ("b", 0, None)]
    _, (first, second) = play(on_valkey, reading_many.read_many(on_valkey.context, items, facts=True), lose)
    assert isinstance(first, StoreUnavailable)
    assert events_of(second) == [{"f": Fact("b")}]


def test_a_workflow_that_is_deleted_between_two_pages_is_not_mixed_with_its_successor(on_valkey: RedisStore) -> None:
    for name in "ab":
        on_valkey.append_many([(name, numbered(1)) for _ in range(100)])

    def replace(number: int, batch: Batch, replies: list[Any]) -> list[Any]:
        if number == 0:
            on_valkey.delete("a")
            on_valkey.append_many([("a", numbered(1, 1000)) for _ in range(100)])
        return replies

    items = [("a", 0, None), ("b", 0, None)]
    _, (first, second) = play(on_valkey, reading_many.read_many(on_valkey.context, items), replace)
    assert isinstance(first, WorkflowNotFound)
    assert len(events_of(second)) == 100
