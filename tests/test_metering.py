"""A namespace is metered: how many events come, and to whom."""

import pytest

from runic_redis import RedisStore
from runic_redis.admin.watching import Meter
from tests.servers import RunningServer


def test_every_event_is_counted_once(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=4) as store, valkey.client() as client:
        store.append_many([("seen", [{"n": n}]) for n in range(40)])
        for n in range(5):
            store.append("unseen", [{"n": n}] * 3)
        # Entries are stamped by the millisecond: one of the very millisecond in which it is begun might be new.
        _, micros = client.time()
        while client.time()[1] // 1000 == micros // 1000:
            pass
        meter = Meter(store.context)
        store.run(meter.open(), "watch")
        assert store.run(meter.look(), "watch") == ([], 0)
        store.append("unseen", [{"n": 1}] * 7)
        assert store.run(meter.look(), "watch").events == 7, "by its last entry"
        store.append_many([("new", [{"n": n}] * 10) for n in range(3)])
        store.append("unseen", [{"n": 2}])
        reading = store.run(meter.look(), "watch")
        assert reading.events == 31
        assert {change.workflow_id for change in reading.changes} == {"new", "unseen"}
        # A snapshot, a lease and a trim are writes without events.
        store.save_snapshot("new", 30, b"x")
        store.save_snapshot("seen", 40, b"x")
        store.release(store.acquire("unseen", "me"))
        store.trim("new")
        assert store.run(meter.look(), "watch").events == 0
        store.delete("new")
        store.append("new", [{"n": 1}] * 4)
        assert store.run(meter.look(), "watch").events == 4, "of its new life"
        store.delete("unseen")
        assert store.run(meter.look(), "watch") == ([], 0)


def test_of_very_many_at_once_some_stand_for_all(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=4) as store:
        store.append_many([(f"w-{n}", [{"n": 1}] * 5) for n in range(1000)])
        meter = Meter(store.context)
        store.run(meter.open(), "watch")
        for _ in range(2):
            store.append_many([(f"w-{n}", [{"n": 1}] * 2) for n in range(1000)])
            events = 0
            while (reading := store.run(meter.look(), "watch")).changes:
                events += reading.events
            assert events == 2000


def test_what_is_damaged_is_passed_over(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store, valkey.client() as client:
        store.append("w", [{"n": 1}])
        meter = Meter(store.context)
        store.run(meter.open(), "watch")
        for value in ("x", "-1", str(10**30)):
            store.append("w", [{"n": 1}])
            client.hset(store.context.keys.workflow("w").meta, mapping={"cursor": value, "created": value})
            assert 0 <= store.run(meter.look(), "watch").events <= 1
            client.hset(store.context.keys.workflow("w").meta, mapping={"cursor": 1, "created": 1})
            client.delete(store.context.keys.workflow("w").events)


def test_with_a_feed_every_event_is_counted(valkey: RunningServer, namespace: str) -> None:
    url = valkey.url()
    with RedisStore.from_url(url, namespace=namespace, partitions=4, feed=True) as store:
        store.append("seen", [{"n": 1}] * 3)
        store.append("unseen", [{"n": 1}])
        meter = Meter(store.context)
        store.run(meter.open(), "watch")
        assert store.run(meter.look(), "watch") == ([], 0)
        # The last entries alone would not tell: several commits of a workflow that was not seen before.
        for number in range(10):
            store.append("unseen", [{"n": number}] * 7)
        store.append_many([(f"new-{n}", [{"n": n}] * 5) for n in range(1000)])
        reading = store.run(meter.look(), "watch")
        assert reading.events == 70 + 5000
        assert {change.workflow_id for change in reading.changes} == {"unseen", *(f"new-{n}" for n in range(1000))}
        # Writes without events are told, and not counted.
        store.save_snapshot("seen", 3, b"x")
        store.acquire("no events", "me")
        store.delete("new-1")
        reading = store.run(meter.look(), "watch")
        assert reading.events == 0
        assert {change.workflow_id for change in reading.changes} == {"seen", "no events", "new-1"}
        # A workflow that was deleted and made again with as many events.
        store.append("new-2", [{"n": 1}])
        store.delete("new-2")
        store.append("new-2", [{"n": 1}] * 5)
        assert store.run(meter.look(), "watch").events == 6
        assert store.run(meter.look(), "watch") == ([], 0)


def test_more_entries_than_one_look_reads_are_counted_by_the_next(
    valkey: RunningServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runic_redis.admin.watching._MOST_ENTRIES", 10)
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1, feed=True) as store:
        meter = Meter(store.context)
        store.run(meter.open(), "watch")
        for number in range(35):
            store.append("w", [{"n": number}] * 2)
        assert [store.run(meter.look(), "watch").events for _ in range(5)] == [20, 18, 18, 14, 0]


def test_a_feed_that_was_trimmed_or_lost_is_counted_from_its_end(valkey: RunningServer, namespace: str) -> None:
    url = valkey.url()
    with (
        RedisStore.from_url(url, namespace=namespace, partitions=1, feed=True) as store,
        valkey.client() as client,
    ):
        keys = store.context.keys
        store.append("w", [{"n": 1}] * 10)
        meter = Meter(store.context)
        store.run(meter.open(), "watch")
        # All entries are trimmed, and nothing is new.
        client.xtrim(keys.feed(0), maxlen=0, approximate=False)
        assert store.run(meter.look(), "watch").events == 0
        store.append("w", [{"n": 1}] * 3)
        assert store.run(meter.look(), "watch").events == 3
        # The server has another history, with a lower position.
        client.delete(keys.feed(0))
        client.hset(keys.partition(0), "position", 2)
        assert store.run(meter.look(), "watch").events == 0
        store.append("w", [{"n": 1}] * 4)
        assert store.run(meter.look(), "watch").events == 4
