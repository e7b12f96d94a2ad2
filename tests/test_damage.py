"""Foreign or damaged values at the store's keys: a clear error, and no change."""

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

import pytest
import redis

from runic_redis import DecodeError, Fact, Lease, LeaseHeld, LeaseLost, RedisStore, StoreError
from runic_redis.keys import WorkflowKeys
from runic_redis.protocol.effects import Batch, Command
from runic_redis.testing.examples import numbered
from tests.servers import RunningServer


@pytest.fixture(params=["valkey", "redis_6_2"])
def server(request: pytest.FixtureRequest) -> RunningServer:
    found: RunningServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def client(server: RunningServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.fixture
def store(server: RunningServer, namespace: str, few_buckets: None) -> Iterator[RedisStore]:
    with RedisStore.from_url(server.url(), namespace=namespace, partitions=8) as store:
        store.append("order-1", numbered(2), commit_id="a")
        store.append("order-1", numbered(2, 3), metadata={"k": 1})
        store.save_snapshot("order-1", 2, b"two")
        store.save("order-1", numbered(1))
        store.save_fact("h", "value")
        store.acquire("order-1", "me")
        store.complete("order-1")
        store.acquire("in the same partition {order-1}", "me")
        store.append("due {order-1}", numbered(1), queue="default")
        store.append("aside {order-1}", numbered(1), queue="default")
        store.park("aside {order-1}", "card declined")
        yield store


@pytest.fixture
def keys(store: RedisStore) -> WorkflowKeys:
    return store.context.keys.workflow("order-1")


def everything(client: redis.Redis, namespace: str) -> dict[bytes, Any]:
    return {key: client.dump(key) for key in client.keys(f"{{{namespace}*")}


FOREIGN: dict[str, Callable[[redis.Redis, str], Any]] = {
    "string": lambda client, key: client.set(key, "foreign"),
    "list": lambda client, key: client.rpush(key, "foreign"),
    "hash": lambda client, key: client.hset(key, "foreign", "value"),
    "zset": lambda client, key: client.zadd(key, {"foreign": 1}),
    "stream": lambda client, key: client.xadd(key, {"foreign": "value"}),
}
OURS = {
    "events": "stream",
    "meta": "hash",
    "snapshot": "hash",
    "log": "string",
    "commits": "hash",
    "refs": "zset",
    "inbox": "stream",
    "messages": "hash",
    "index": "zset",
    "leases": "zset",
    "queues": "hash",
    "queue": "zset",
    "parked": "zset",
    "expiring": "zset",
    "completed": "zset",
    "partition": "hash",
}
QUEUES = {"queues", "queue"}
SETS = {"index", "leases", *QUEUES, "parked", "expiring", "completed"}
ALL = {"events", "meta", "snapshot", "log", "commits", "refs", "inbox", "messages"}


def held(store: RedisStore) -> Lease:
    return Lease("order-1", "me", int(store._sender.ask(Batch([fence(store)]))[0] or 0), 30.0)


def fence(store: RedisStore) -> Command:
    key = store.context.keys.workflow("order-1").meta
    return Command(("HGET", key, "fence"), key)


# Each operation, and the keys that it uses.
CALLS: dict[str, tuple[set[str], Callable[[RedisStore], Any]]] = {
    "append": ({"events", "meta", "index"}, lambda store: store.append("order-1", numbered(1))),
    "append with an id": (
        {"events", "meta", "index", "commits"},
        lambda store: store.append("order-1", numbered(1), commit_id="new"),
    ),
    "stream": ({"events", "meta"}, lambda store: list(store.stream("order-1"))),
    "records": ({"events", "meta"}, lambda store: list(store.stream_records("order-1", reverse=True))),
    "cursor": ({"meta"}, lambda store: store.cursor("order-1")),
    "save_snapshot": ({"snapshot", "meta", "index"}, lambda store: store.save_snapshot("order-1", 3, b"three")),
    "load_snapshot": ({"snapshot"}, lambda store: store.load_snapshot("order-1")),
    "trim": ({"events", "meta", "snapshot"}, lambda store: store.trim("order-1")),
    "save": ({"log", "meta", "index"}, lambda store: store.save("order-1", [])),
    "load": ({"log"}, lambda store: store.load("order-1")),
    "append with a fact": (
        {"events", "meta", "index", "refs"},
        lambda store: store.append("order-1", [{"n": Fact(1)}]),
    ),
    "append with a snapshot": (
        {"events", "meta", "index", "snapshot"},
        lambda store: store.append("order-1", numbered(1), snapshot=b"four"),
    ),
    "append by a lease": (
        {"leases", *QUEUES},
        lambda store: store.append("order-1", numbered(1), lease=held(store)),
    ),
    "append to a queue": (
        {"index", *QUEUES},
        lambda store: store.append("due {order-1}", numbered(1), queue="default"),
    ),
    "save_snapshot by a lease": (
        {"leases", *QUEUES},
        lambda store: store.save_snapshot("order-1", 3, b"", lease=held(store)),
    ),
    "save a fact in a log": ({"log", "meta", "index", "refs"}, lambda store: store.save("order-1", [{"n": Fact(1)}])),
    "exists": ({"meta"}, lambda store: store.exists("order-1")),
    "list": ({"index", "expiring", "partition"}, lambda store: list(store.list())),
    "acquire": ({"meta", "index", "leases", *QUEUES, "partition"}, lambda store: store.acquire("order-1", "me")),
    "claim": ({"leases", *QUEUES, "parked", "partition"}, lambda store: store.claim("me")),
    "renew": ({"leases", *QUEUES}, lambda store: store.renew(held(store))),
    "release": ({"leases", *QUEUES}, lambda store: store.release(held(store))),
    "park": ({"leases", *QUEUES, "parked", "partition"}, lambda store: store.park("due {order-1}", "declined")),
    "unpark": ({"leases", *QUEUES, "parked", "partition"}, lambda store: store.unpark("aside {order-1}")),
    "complete": ({"meta"}, lambda store: store.complete("order-1")),
    "complete another": (
        {"leases", *QUEUES, "parked", "completed"},
        lambda store: store.complete("in the same partition {order-1}"),
    ),
    "expire": ({"meta", "expiring"}, lambda store: store.expire("order-1", 60)),
    "persist": ({"meta", "expiring"}, lambda store: store.persist("order-1")),
    "collect": ({"index", "refs", "expiring"}, lambda store: store.collect(0)),
    "delete": ({*ALL, *SETS, "partition"}, lambda store: store.delete("order-1")),
}


@pytest.mark.parametrize(
    ("kind", "foreign"), [(kind, foreign) for kind, ours in OURS.items() for foreign in FOREIGN if foreign != ours]
)
def test_a_foreign_value_at_a_key_of_ours_is_refused_and_nothing_changes(
    store: RedisStore, client: redis.Redis, keys: WorkflowKeys, namespace: str, kind: str, foreign: str
) -> None:
    key = keys.queue("default") if kind == "queue" else asdict(keys)[kind]
    client.delete(key)
    store.put_fact("to be collected")
    FOREIGN[foreign](client, key)
    before = everything(client, namespace)
    for name, (touched, call) in CALLS.items():
        if kind in touched:
            with pytest.raises(DecodeError, match="not of this store") as caught:
                call(store)
            assert key in str(caught.value), name
            assert everything(client, namespace) == before, name


def test_a_foreign_value_at_a_fact_bucket_is_refused(store: RedisStore, client: redis.Redis, namespace: str) -> None:
    bucket = store.context.keys.fact(b"h")[0]
    client.delete(bucket)
    client.set(bucket, "foreign")
    before = everything(client, namespace)
    for call in (lambda: store.load_fact("h"), lambda: store.save_fact("h", 1), lambda: store.save_facts({"h": 1})):
        with pytest.raises(DecodeError, match="not of this store"):
            call()
    assert everything(client, namespace) == before


def replace_entry(
    client: redis.Redis, key: str, change: Callable[[bytes, dict[bytes, bytes]], dict[bytes, bytes]]
) -> None:
    """Write a stream again, with its first entry changed."""
    entries = client.xrange(key)
    client.delete(key)
    for number, (entry_id, fields) in enumerate(entries):
        client.xadd(key, change(entry_id, fields) if number == 0 else fields, id=entry_id)


def header_and_payload(fields: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    return next(iter(fields.items()))


@pytest.mark.parametrize(
    "change",
    [
        lambda header, payload: (header, b""),
        lambda header, payload: (header, payload[:-3]),
        lambda header, payload: (header, b"\x07" + payload[1:]),
        lambda header, payload: (header, b"\x01" + payload[1:]),
        lambda header, payload: (header[:-1], payload),
        lambda header, payload: (b"foreign", payload),
        lambda header, payload: (header, b"\x00\x90"),
        lambda header, payload: (b"\x90", payload),
        lambda header, payload: (b"\x90", b"\x00\x90"),
        lambda header, payload: (b"\x91\xc0", payload),
        lambda header, payload: (b"\x91\xc0", b"\x00\x90"),
        lambda header, payload: (b"\xc0", payload),
        lambda header, payload: (b"\x80", payload),
        lambda header, payload: (b"\x92\xc0" + header[1:], payload),
        lambda header, payload: (b"\x92\xc0" + header[1:], b"\x00\x90"),
        lambda header, payload: (b"\x92\xc0" + header[1:], b"\x00\x91\x92\x01\x80"),
        lambda header, payload: (b"\x92\xc0" + header[1:], b"\x00\x91\x92\xc2\x80"),
        lambda header, payload: (header, b"\x00\x91\x90"),
        lambda header, payload: (header, payload + b"\x00"),
    ],
)
def test_a_damaged_entry_is_named_and_the_rest_can_be_read(
    store: RedisStore, client: redis.Redis, keys: WorkflowKeys, change: Any
) -> None:
    def damage(_: bytes, fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
        header, payload = change(*header_and_payload(fields))
        return {header: payload, b"i": fields[b"i"]}

    replace_entry(client, keys.events, damage)
    for read in (lambda: list(store.stream("order-1")), lambda: list(store.stream_records("order-1"))):
        with pytest.raises(DecodeError, match="order-1") as caught:
            read()
        assert keys.events in str(caught.value)
    assert list(store.stream("order-1", after=2)) == numbered(2, 3)


def test_an_entry_that_is_gone_is_noticed(store: RedisStore, client: redis.Redis, keys: WorkflowKeys) -> None:
    store.append("order-1", numbered(1, 5))
    ids = [entry_id for entry_id, _ in client.xrange(keys.events)]
    client.xdel(keys.events, ids[1])
    for read in (
        lambda: list(store.stream("order-1")),
        lambda: list(store.stream("order-1", reverse=True)),
        lambda: list(store.stream("order-1", after=2, until=4)),
        lambda: list(store.stream("order-1", after=3, until=4, reverse=True)),
    ):
        with pytest.raises(DecodeError, match="missing"):
            read()
    client.delete(keys.events)
    with pytest.raises(DecodeError, match="missing"):
        list(store.stream("order-1"))


def test_foreign_entries_in_the_stream_are_noticed(store: RedisStore, client: redis.Redis, keys: WorkflowKeys) -> None:
    client.xadd(keys.events, {"some": "field"})
    with pytest.raises(StoreError, match="equal or smaller"):
        store.append("order-1", numbered(1))
    assert list(store.stream("order-1")) == numbered(4), "returned an entry after the workflow's cursor"
    client.delete(keys.events)
    client.xadd(keys.events, {"some": "field"}, id="1-1")
    with pytest.raises(DecodeError):
        list(store.stream("order-1"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("cursor", bad) for bad in ("what", "", "-5", "1.5", "0x10", "nan", "9" * 30)] + [("trimmed", "what")],
)
def test_a_damaged_meta_hash_is_noticed(
    store: RedisStore, client: redis.Redis, keys: WorkflowKeys, namespace: str, field: str, value: str
) -> None:
    client.hset(keys.meta, field, value)
    with pytest.raises(DecodeError):
        list(store.stream("order-1"))
    if field == "cursor":
        before = everything(client, namespace)
        for write in (
            lambda: store.append("order-1", numbered(1)),
            lambda: store.save_snapshot("order-1", 3, b""),
        ):
            with pytest.raises(DecodeError, match=r"(?i)damaged"):
                write()
        assert everything(client, namespace) == before
    else:
        with pytest.raises(DecodeError, match=r"(?i)damaged"):
            store.trim("order-1")


NO_NUMBERS = ("what", "", "-1", "1.5", "inf", "nan", "9" * 30)


@pytest.mark.parametrize(
    ("field", "value"), [(field, bad) for field in ("cursor", "largest", "expires") for bad in NO_NUMBERS]
)
def test_a_damaged_meta_hash_harms_no_commit_that_travels_with_it(
    store: RedisStore, client: redis.Redis, keys: WorkflowKeys, field: str, value: str
) -> None:
    client.hset(keys.meta, field, value)
    before = client.dump(keys.events), client.dump(keys.meta)
    large = {"data": random.Random(1).randbytes(10_000)}
    first, error, last = store.append_many([("order-2", [large]), ("order-1", [large]), ("order-2", [large])])
    assert (first, last) == (1, 2)
    assert list(store.stream("order-2")) == [large, large]
    assert isinstance(error, DecodeError)
    assert "Nothing was changed" in str(error)
    assert (client.dump(keys.events), client.dump(keys.meta)) == before


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_a_damaged_time_of_expiry_stops_a_write_before_its_first_change(
    store: RedisStore, client: redis.Redis, keys: WorkflowKeys, namespace: str, value: str
) -> None:
    client.hset(keys.meta, "expires", value)
    before = everything(client, namespace)
    for write in (lambda: store.save_snapshot("order-1", 3, b""), lambda: store.save("order-1", numbered(1))):
        with pytest.raises(DecodeError, match=r"(?i)damaged"):
            write()
    assert everything(client, namespace) == before


@pytest.mark.parametrize(("field", "value"), [(field, bad) for field in ("fence", "lease_until") for bad in NO_NUMBERS])
def test_a_damaged_lease_is_noticed(
    store: RedisStore, client: redis.Redis, keys: WorkflowKeys, namespace: str, field: str, value: str
) -> None:
    lease = held(store)
    client.hset(keys.meta, field, value)
    before = everything(client, namespace)
    with pytest.raises(DecodeError, match="lease"):
        store.acquire("order-1", "me")
    assert everything(client, namespace) == before
    if field == "lease_until":
        assert store.append("order-1", numbered(1), lease=lease) == 5, "rejected the newest lease"
        assert int(client.hget(keys.meta, "lease_until")) > 0


@pytest.mark.parametrize("damage", [{"lease_owner": b"\xff\xfe"}, {"lease_owner": b""}])
def test_the_readable_part_of_a_damaged_owner_is_shown(
    store: RedisStore, client: redis.Redis, keys: WorkflowKeys, damage: dict[str, bytes]
) -> None:
    old = Lease("order-1", "me", 5, 30.0)
    client.hset(keys.meta, mapping=damage)
    for write in (
        lambda: store.append("order-1", numbered(1), lease=old),
        lambda: store.save("order-1", numbered(1), lease=old),
        lambda: store.save_snapshot("order-1", 3, b"", lease=old),
        lambda: store.trim("order-1", lease=old),
        lambda: store.renew(old),
        lambda: store.delete("order-1", lease=old),
    ):
        with pytest.raises(LeaseLost):
            write()
    with pytest.raises(LeaseHeld):
        store.acquire("order-1", "you")
    client.hdel(keys.meta, "lease_owner")
    with pytest.raises(LeaseHeld):
        store.acquire("order-1", "you")
    assert isinstance(store.append_many([("order-1", [{}]), ("order-2", [{}])], leases=[old])[0], LeaseLost)


def test_a_damaged_commit_id_is_noticed(store: RedisStore, client: redis.Redis, keys: WorkflowKeys) -> None:
    client.hset(keys.commits, "a", "what")
    with pytest.raises(DecodeError, match=r"(?i)damaged"):
        store.append("order-1", numbered(1), commit_id="a")


def test_an_entry_of_an_absurd_time_is_noticed(store: RedisStore, client: redis.Redis, keys: WorkflowKeys) -> None:
    client.delete(keys.events)
    store.append("order-2", numbered(4))
    other = store.context.keys.workflow("order-2")
    ((_, fields),) = client.xrange(other.events)
    client.xadd(keys.events, fields, id=f"4-{2**64 - 1}")
    assert list(store.stream("order-1")) == numbered(4)
    with pytest.raises(DecodeError, match=r"(?i)damaged"):
        list(store.stream_records("order-1"))


def test_a_damaged_snapshot_is_noticed(store: RedisStore, client: redis.Redis, keys: WorkflowKeys) -> None:
    for damage in (
        lambda: client.hset(keys.snapshot, "cursor", "what"),
        lambda: client.hset(keys.snapshot, "cursor", "-1"),
        lambda: client.hset(keys.snapshot, "cursor", "9" * 5000),
        lambda: client.hdel(keys.snapshot, "cursor"),
        lambda: (client.hset(keys.snapshot, "cursor", 2), client.hdel(keys.snapshot, "data")),
    ):
        damage()
        with pytest.raises(DecodeError, match="snapshot"):
            store.load_snapshot("order-1")


@pytest.mark.parametrize("damaged", [b"", b"foreign", b"\x92\xc4\x00\xc4\x00", b"\x92\x01\x02", b"\x91\xc4\x00"])
def test_a_damaged_log_is_noticed(store: RedisStore, client: redis.Redis, keys: WorkflowKeys, damaged: bytes) -> None:
    client.set(keys.log, damaged)
    with pytest.raises(DecodeError, match="log"):
        store.load("order-1")


@pytest.mark.parametrize("damaged", [b"", b"foreign", b"x" * 17, b"x" * 16 + b"\x00\xc0", b"x" * 16 + b"\x01\xc0"])
def test_a_damaged_fact_is_noticed_by_name(store: RedisStore, client: redis.Redis, damaged: bytes) -> None:
    client.hset(store.context.keys.fact(b"h")[0], b"h", damaged)
    for read in (lambda: store.load_fact("h"), lambda: store.load_facts(["h"])):
        with pytest.raises(DecodeError, match="fact b'h'"):
            read()


def test_a_foreign_name_in_the_index_is_noticed(store: RedisStore, client: redis.Redis, keys: WorkflowKeys) -> None:
    client.zrem(keys.index, "order-1")
    client.zadd(keys.index, {b"\xff": 1})
    with pytest.raises(DecodeError, match="no workflow id"):
        list(store.list())


def test_a_damaged_workflow_does_not_stop_claims_of_others(store: RedisStore, client: redis.Redis) -> None:
    for workflow_id in ("damaged", "sound"):
        store.release(store.acquire(workflow_id, "me"))
    client.hset(store.context.keys.workflow("damaged").meta, "fence", "what")
    for number in store.context.keys.partition_numbers():
        client.zadd(store.context.keys.queue(number, "default"), {b"\xff": 0})
    assert {lease.workflow_id for lease in store.claim("you", 5)} == {"sound", "due {order-1}"}
    with pytest.raises(DecodeError):
        store.claim("you", 5)
    for number in store.context.keys.partition_numbers():
        client.zrem(store.context.keys.queue(number, "default"), b"\xff")
    with pytest.raises(DecodeError, match=r"The lease of the workflow 'damaged'.* is damaged"):
        store.claim("you", 5)
    assert store.claim("you", 0) == []


@pytest.mark.parametrize("fence", [9_999_999_999_999_999, 2**53 - 1])
def test_a_token_of_another_age_is_damage_and_spoils_no_other(
    store: RedisStore, client: redis.Redis, fence: int
) -> None:
    for workflow_id in ("damaged", "sound"):
        store.release(store.acquire(workflow_id, "me"))
    client.hset(store.context.keys.workflow("damaged").meta, "fence", fence)
    with pytest.raises(DecodeError, match="the lease of a workflow"):
        store.acquire("damaged", "you")
    assert {lease.workflow_id for lease in store.claim("you", 5)} == {"sound", "due {order-1}"}
    assert store.acquire("another", "you").token < 2**52


def test_a_damaged_entry_hides_no_other_event_from_a_follower(
    store: RedisStore, client: redis.Redis, keys: WorkflowKeys
) -> None:
    store.append("order-2", numbered(3))
    client.xadd(keys.events, {b"foreign": b"entry"}, id="6-1")
    client.hset(keys.meta, "cursor", 6)
    with closing(store.tail_many({"order-1": 0, "order-2": 0})) as items:
        got = [next(items) for _ in range(4 + 3)]
        assert [record.event for name, record in got if name == "order-1"] == numbered(4)
        assert [record.event for name, record in got if name == "order-2"] == numbered(3)
        for number in (3, 4):
            with pytest.raises(DecodeError, match="order-1"):
                next(items)
            store.append("order-2", numbered(1, number))
            assert next(items)[1].event == numbered(1, number)[0]
