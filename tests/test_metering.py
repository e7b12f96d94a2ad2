"""A namespace is metered: how many events come, and to whom."""

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
