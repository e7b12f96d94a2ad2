"""`verify`: each kind of damage is found, and what can be derived from the rest is set right, while others write."""

import math
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from runic_redis import Fact, RedisStore
from runic_redis.admin.verifying import Verified, Verifier
from runic_redis.admin.workflow_check import WorkflowCheck
from runic_redis.protocol.effects import Batch, Operation
from tests.servers import RunningServer, cluster_url


def verify(store: RedisStore, workflow_ids: list[str] | None = None, *, repair: bool = False) -> Verified:
    verifier = Verifier(store.context, workflow_ids, repair=repair)
    store.run(verifier.open(), "verify")
    all_of_it = Verified()
    while (part := store.run(verifier.next_part(), "verify")) is not None:
        all_of_it.workflows += part.workflows
        all_of_it.events += part.events
        all_of_it.facts += part.facts
        all_of_it.findings += part.findings
    return all_of_it


@pytest.fixture(params=["2", "3"])
def store(
    request: pytest.FixtureRequest, valkey: RunningServer, namespace: str, few_buckets: None
) -> Iterator[RedisStore]:
    """A store with whatever a workflow can be, by both protocols. (In the cluster, below, all buckets are asked.)"""
    with RedisStore.from_url(
        valkey.url(int(request.param)), namespace=namespace, partitions=5, feed=request.param == "3"
    ) as store:
        fill(store)
        yield store


def fill(store: RedisStore) -> None:
    for number in range(12):
        store.append("w", [{"n": number}, {"f": Fact(number % 3)}], tags=[f"n/{number}", "all"])
    store.append("large", [{"b": os.urandom(2000)} for _ in range(9)], snapshot=b"state", tags=["a"])
    store.save_snapshot("trimmed", store.append("trimmed", [{"n": 1}], tags=["gone"]), b"state")
    store.append("trimmed", [{"n": 2}], commit_id="mine")
    store.trim("trimmed")
    store.release(store.acquire("unfinished", "me"))
    store.append("held", [{"n": 1}], lease=store.acquire("held", "me"))
    store.append("completed", [{"n": 1}], lease=store.acquire("completed", "me"))
    store.complete("completed")
    store.expire("completed", 3600)
    store.save("log", [{"f": Fact("in a log")}])
    store.save_fact(b"alone", 1)


@pytest.fixture
def client(valkey: RunningServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


def test_what_is_sound_is_found_sound(store: RedisStore) -> None:
    found = verify(store)
    assert found.findings == []
    assert (found.workflows, found.events, found.facts) == (7, 24 + 9 + 1 + 1 + 1, 5)
    some = verify(store, ["w", "large", "w"])
    assert (some.workflows, some.events, some.findings) == (2, 33, [])


def test_a_workflow_that_is_named_and_not_there_is_found_missing(store: RedisStore) -> None:
    found = verify(store, ["nobody", "w"], repair=True)
    assert found.workflows == 1
    assert [(one.name, one.problem) for one in found.findings] == [("nobody", "there is no such workflow")]


Damage = Callable[[redis.Redis, RedisStore, Any], object]


def add_to_queue(client: redis.Redis, k: Any, queue: str, workflow_id: str) -> None:
    """Add a workflow to a queue by hand, and count it."""
    client.zadd(k.queue(queue), {workflow_id: 5})
    client.hincrby(k.queues, queue, 1)


def keys(store: RedisStore, workflow_id: str) -> Any:
    return store.context.keys.workflow(workflow_id)


def fact_of(store: RedisStore) -> str:
    return str(list(store.stream("w"))[1]["f"].hash)


DERIVABLE: dict[str, tuple[str, Damage, str]] = {
    "not in the index": ("w", lambda c, s, k: c.zrem(k.index, "w"), "not in the index"),
    "cursor behind": ("w", lambda c, s, k: c.hset(k.meta, "cursor", 3), "its cursor is 3"),
    "a cursor that is no number": ("w", lambda c, s, k: c.hset(k.meta, "cursor", "abc"), "cursor is b'abc'"),
    "a size that is no number": ("large", lambda c, s, k: c.hset(k.meta, "largest", "big"), "largest is b'big'"),
    "no cursor": ("w", lambda c, s, k: c.hdel(k.meta, "cursor"), "its cursor is 0"),
    "no meta hash": ("w", lambda c, s, k: c.delete(k.meta), "the time of its creation is missing"),
    "a reference is missing": ("w", lambda c, s, k: c.zrem(k.refs, fact_of(s)), "not among its references"),
    "no references": ("w", lambda c, s, k: c.delete(k.refs), "3 facts that its events refer to"),
    "largest not noted": ("large", lambda c, s, k: c.hdel(k.meta, "largest"), "its largest entry"),
    "held, and not leased": ("held", lambda c, s, k: c.zrem(k.leases, "held"), "among the leased"),
    "held, with another end": ("held", lambda c, s, k: c.zadd(k.leases, {"held": 1}), "among the leased"),
    "completed, and leased": ("completed", lambda c, s, k: c.zadd(k.leases, {"completed": 0}), "among the leased"),
    "released, and leased": ("unfinished", lambda c, s, k: c.zadd(k.leases, {"unfinished": 5}), "among the leased"),
    "not in its queue": ("unfinished", lambda c, s, k: c.zrem(k.queue("default"), "unfinished"), "no claim finds it"),
    "held, and not in its queue": ("held", lambda c, s, k: c.zrem(k.queue("default"), "held"), "no claim finds it"),
    "not in its queue, which is lost": ("away", lambda c, s, k: c.delete(k.queue("orders")), "no claim finds it"),
    "held, and due before": (
        "held",
        lambda c, s, k: c.zadd(k.queue("default"), {"held": 5}),
        "the end of its lease",
    ),
    "due at no time": ("away", lambda c, s, k: c.zadd(k.queue("orders"), {"away": "-inf"}), "no claim finds it"),
    "in another queue": (
        "unfinished",
        lambda c, s, k: add_to_queue(c, k, "orders", "unfinished"),
        "although it is in the queue 'default'",
    ),
    "in two other queues, and not in its own": (
        "unfinished",
        lambda c, s, k: (
            add_to_queue(c, k, "orders", "unfinished"),
            add_to_queue(c, k, "x", "unfinished"),
            c.zrem(k.queue("default"), "unfinished"),
        ),
        "no claim finds it",
    ),
    "its queue is not known": ("unfinished", lambda c, s, k: c.hdel(k.meta, "queue"), "names none"),
    "completed, and in a queue": (
        "completed",
        lambda c, s, k: add_to_queue(c, k, "default", "completed"),
        "although it is completed",
    ),
    "parked, and in its queue": (
        "put aside",
        lambda c, s, k: add_to_queue(c, k, "orders", "put aside"),
        "it is parked",
    ),
    "parked, and not counted": ("put aside", lambda c, s, k: c.zrem(k.parked, "put aside"), "among the parked"),
    "parked at another time": ("put aside", lambda c, s, k: c.zadd(k.parked, {"put aside": 1}), "among the parked"),
    "counted, and not parked": ("w", lambda c, s, k: c.zadd(k.parked, {"w": 1}), "among the parked"),
    "nothing behind it, and in a queue": (
        "ghost",
        lambda c, s, k: add_to_queue(c, k, "default", "ghost"),
        "is listed in the queue:default",
    ),
    "nothing behind it, and parked": (
        "ghost",
        lambda c, s, k: c.zadd(k.parked, {"ghost": 5}),
        "is listed in the parked",
    ),
    "does not leave": ("completed", lambda c, s, k: c.zrem(k.expiring, "completed"), "among the expiring"),
    "completed, and not counted": (
        "completed",
        lambda c, s, k: c.zrem(k.completed, "completed"),
        "among the completed",
    ),
    "completed at another time": ("completed", lambda c, s, k: c.zadd(k.completed, {"completed": 1}), "the completed"),
    "counted, and not completed": ("w", lambda c, s, k: c.zadd(k.completed, {"w": 5}), "among the completed"),
    "nothing behind it, and completed": (
        "ghost",
        lambda c, s, k: c.zadd(k.completed, {"ghost": 5}),
        "is listed in the completed",
    ),
    "no time in the index": ("w", lambda c, s, k: c.zadd(k.index, {"w": "inf"}), "in the index with inf"),
    "nothing behind it, and leased": (
        "ghost",
        lambda c, s, k: c.zadd(k.leases, {"ghost": 5}),
        "is listed in the leases",
    ),
    "nothing behind it, and expires": (
        "ghost",
        lambda c, s, k: c.zadd(k.expiring, {"ghost": 9e15}),
        "is listed in the expiring",
    ),
    "lost references": ("w", lambda c, s, k: c.delete(k.refs), "references to facts are lost"),
    "a reference that is not counted": ("w", lambda c, s, k: c.hincrby(k.meta, "refs", -1), "more references than"),
    "lost commit ids": ("trimmed", lambda c, s, k: c.delete(k.commits), "commit ids that callers gave are lost"),
    "a lost log": ("log", lambda c, s, k: c.delete(k.log), "its log is lost"),
    "a log that is not known of": ("log", lambda c, s, k: c.hdel(k.meta, "log"), "does not know of"),
    "a lost snapshot": ("large", lambda c, s, k: c.delete(k.snapshot), "its snapshot, of the cursor"),
    "a snapshot that is not known of": ("large", lambda c, s, k: c.hdel(k.meta, "snapshot"), "is noted"),
    "lost messages": ("waits", lambda c, s, k: c.delete(k.inbox), "3 of the messages of its inbox are lost"),
    "a lost message": ("waits", lambda c, s, k: c.xdel(k.inbox, c.xrange(k.inbox)[0][0]), "1 of the messages of its"),
    "a message that is not counted": ("waits", lambda c, s, k: c.hincrby(k.meta, "inbox", -1), "messages of its inbox"),
    "messages that are not counted": ("waits", lambda c, s, k: c.hdel(k.meta, "inbox"), "and 0 are counted"),
    "a number of messages that is none": ("waits", lambda c, s, k: c.hset(k.meta, "inbox", "x"), "inbox is b'x'"),
    "no request to cancel": ("waits", lambda c, s, k: c.hdel(k.meta, "cancel"), "requests to cancel in its inbox"),
    "a lost request to cancel": ("waits", lambda c, s, k: c.hincrby(k.meta, "cancel", 1), "requests to cancel in its"),
    "lost message ids": ("waits", lambda c, s, k: c.delete(k.messages), "5 of the message ids of senders are lost"),
    "a message id that is not counted": ("waits", lambda c, s, k: c.hincrby(k.meta, "messages", -1), "message ids of"),
    "no meta hash, and messages alone": ("kept", lambda c, s, k: c.delete(k.meta), "time of its creation is missing"),
    "lost tags": ("w", lambda c, s, k: c.delete(k.tags), "24 of its tags are lost, such as b'all'"),
    "a lost tag": ("w", lambda c, s, k: c.zrem(k.tags, member("n/3", 8)), "1 of its tags are lost"),
    "a tag with a score": ("w", lambda c, s, k: c.zadd(k.tags, {member("n/3", 8): 1}), "1 of its tags are lost"),
    "a tag of a trimmed commit": ("trimmed", lambda c, s, k: c.zadd(k.tags, {member("x", 1): 0}), "are of no commit"),
    "a tag of a later commit": ("w", lambda c, s, k: c.zadd(k.tags, {member("n/3", 99): 0}), "are of no commit"),
    "a tag of another commit": ("w", lambda c, s, k: c.zadd(k.tags, {member("n/3", 6): 0}), "are of no commit"),
    "a member that is no tag": ("w", lambda c, s, k: c.zadd(k.tags, {b"\xffx": 0}), "1 of its tags are of no commit"),
    "tags that are not counted": ("w", lambda c, s, k: c.hdel(k.meta, "tags"), "it has 24 tags, and 0 are counted"),
    "tags that are miscounted": ("w", lambda c, s, k: c.hset(k.meta, "tags", 25), "it has 24 tags, and 25 are"),
    "a number of tags that is none": ("w", lambda c, s, k: c.hset(k.meta, "tags", "x"), "tags is b'x'"),
    "counted tags of nothing": ("log", lambda c, s, k: c.hset(k.meta, "tags", 3), "it has 0 tags, and 3 are counted"),
    "nothing behind it": ("ghost", lambda c, s, k: c.zadd(k.index, {"ghost": 5}), "it has no data"),
}


def member(tag: str, cursor: int) -> bytes:
    return f"{tag}\0{cursor:016}".encode()


def make_wait(store: RedisStore) -> None:
    """Make a workflow with an answered message and three others, and one with a kept message alone."""
    store.append("waits", [{"n": 1}])
    for number in range(2):
        store.send("waits", {"n": number}, message_id=f"m-{number}")
        store.send("waits", {"n": number})
    store.request_cancel("waits")
    store.append("waits", [{"n": 2}], consumes=store.inbox("waits")[:2])
    store.send("kept", {"n": 1}, message_id="m", missing="keep")


@pytest.mark.parametrize("name", DERIVABLE)
def test_what_can_be_derived_is_found_and_set_right(store: RedisStore, client: redis.Redis, name: str) -> None:
    workflow_id, damage, words = DERIVABLE[name]
    for other in ("away", "put aside"):
        store.append(other, [{"n": 1}], queue="orders", due=math.inf)
    store.park("put aside", "card declined")
    make_wait(store)
    before = list(store.stream("w"))
    damage(client, store, keys(store, workflow_id))
    found = verify(store)
    # The feed may have commits whose events are missing now.
    assert {one.name for one in found.findings} - {keys(store, workflow_id).feed} == {workflow_id}
    assert any(words in one.problem for one in found.findings), found.findings
    assert all(one.repairs and not one.repaired for one in found.findings)
    assert verify(store).findings == found.findings, "to look changes nothing"
    assert all(one.repaired for one in verify(store, [workflow_id], repair=True).findings)
    assert verify(store).findings == []
    assert list(store.stream("w")) == before
    assert [commit.cursor for commit in store.find("w", tag="all")] == list(range(2, 26, 2))
    assert store.append("w", [{"n": "goes on"}]) == 25


def change_field(client: redis.Redis, k: Any, name: bytes, value: bytes) -> None:
    """Change a field of the last entry."""
    *entries, (last, fields) = client.xrange(k.events)
    client.delete(k.events)
    for entry_id, others in (*entries, (last, {**fields, name: value})):
        client.xadd(k.events, others, entry_id)


def entry(client: redis.Redis, k: Any, place: int) -> Any:
    return client.xrange(k.events)[place][0]


LOST: dict[str, tuple[str, Damage, str]] = {
    "an entry is gone": ("w", lambda c, s, k: c.xdel(k.events, entry(c, k, 4)), "the events 9 to 10 are missing"),
    "the last entry is gone": ("w", lambda c, s, k: c.xdel(k.events, entry(c, k, -1)), "missing at the end"),
    "the stream is gone": ("w", lambda c, s, k: c.delete(k.events), "the events 1 to 24 are missing"),
    "the first entry is gone": ("w", lambda c, s, k: c.xdel(k.events, entry(c, k, 0)), "the events 1 to 2 are missing"),
    "a damaged entry": ("w", lambda c, s, k: c.xadd(k.events, {b"x": b"y"}, "25-1"), "is damaged"),
    "an entry with another cursor": (
        "w",
        lambda c, s, k: c.xadd(k.events, c.xrange(k.events)[0][1], "25-1"),
        "but those up to 24",
    ),
    "snapshot above": (
        "w",
        lambda c, s, k: c.hset(k.snapshot, mapping={"cursor": 99, "data": "x"}),
        "above the workflow's",
    ),
    "snapshot behind the trim": ("trimmed", lambda c, s, k: c.hset(k.snapshot, "cursor", 0), "are trimmed"),
    "no snapshot": ("trimmed", lambda c, s, k: c.delete(k.snapshot), "there is no snapshot"),
    "snapshot without data": ("trimmed", lambda c, s, k: c.hdel(k.snapshot, "data"), "the snapshot is damaged"),
    "a number that is none": ("w", lambda c, s, k: c.hset(k.meta, "largest", "big"), "largest is b'big'"),
    "a commit id of the future": ("w", lambda c, s, k: c.hset(k.commits, "id", 99), "which never was"),
    "a damaged message": (
        "w",
        lambda c, s, k: (c.xadd(k.inbox, {b"x": b"y"}), c.hset(k.meta, "inbox", 1)),
        "is damaged",
    ),
    "a damaged log": ("log", lambda c, s, k: c.set(k.log, b"\xc1"), "the log is damaged"),
    "a foreign type": (
        "w",
        lambda c, s, k: (c.delete(k.commits), c.lpush(k.commits, "x")),
        "cannot be read: WRONGTYPE",
    ),
    "only references are left": (
        "w",
        lambda c, s, k: c.delete(k.events, k.meta, k.commits),
        "only references to facts, commit ids, message ids or tags are left",
    ),
    "references of nobody": ("w0", lambda c, s, k: c.zadd(k.refs, {fact_of(s): 1}), "only references to facts"),
    "commit ids of nobody": ("w0", lambda c, s, k: c.hset(k.commits, "id", 1), "only references to facts"),
    "message ids of nobody": ("w0", lambda c, s, k: c.hset(k.messages, "id", "1-0"), "message ids or tags are left"),
    "tags of nobody": ("w0", lambda c, s, k: c.zadd(k.tags, {"x": 0}), "message ids or tags are left"),
    "a damaged field of tags": ("w", lambda c, s, k: change_field(c, k, b"t", b"a\xff"), "its tags are b'a"),
    "a wrong number of entries": ("huge", lambda c, s, k: change_field(c, k, b"n", b"2"), "it notes 2 entries"),
    "no number of entries": ("huge", lambda c, s, k: change_field(c, k, b"n", b"x"), "number of its entries is b'x"),
    "it will vanish": ("w", lambda c, s, k: c.expire(k.events, 5000), "have a time to live"),
    "it goes too early": ("completed", lambda c, s, k: c.expire(k.meta, 60), "have a time to live"),
    "a fact is missing": ("w", lambda c, s, k: c.hdel(*bucket(s)), "is missing"),
}


def bucket(store: RedisStore) -> tuple[str, str]:
    fact = fact_of(store)
    return store.context.keys.fact(fact.encode())[0], fact


@pytest.mark.parametrize("name", LOST)
def test_what_cannot_be_derived_is_found_and_left(store: RedisStore, client: redis.Redis, name: str) -> None:
    workflow_id, damage, words = LOST[name]
    if workflow_id == "huge":
        store.append("huge", [{"b": os.urandom(700_000)} for _ in range(3)], tags=["a"])
    damage(client, store, keys(store, workflow_id))
    found = verify(store)
    # The feed may have commits whose events are missing now.
    assert {one.name for one in found.findings} - {keys(store, workflow_id).feed} == {workflow_id}
    assert any(words in one.problem for one in found.findings), found.findings
    left = verify(store, repair=True).findings
    assert any(words in one.problem and not one.repaired for one in left)
    if "only references" in name:
        assert client.zscore(keys(store, "w").index, "w"), "what is left stays where it can be found"


@pytest.mark.parametrize("fields", [{b"h": b"x"}, None], ids=["garbage", "a copy"])
def test_what_cannot_be_read_moves_no_cursor(store: RedisStore, client: redis.Redis, fields: Any) -> None:
    k = keys(store, "w")
    before = list(store.stream("w"))
    client.xadd(k.events, fields or client.xrange(k.events)[0][1], "25-1")
    found = verify(store, repair=True).findings
    assert any("its cursor is 24" in one.problem for one in found)
    assert not any(one.repairs or one.repaired for one in found)
    assert list(store.stream("w")) == before


def replace_by_string(client: redis.Redis, key: str) -> None:
    client.delete(key)
    client.set(key, "foreign")


def unused(store: RedisStore) -> Any:
    """The keys of a workflow that is not there, in a partition that has none."""
    indexes = {keys(store, workflow_id).index for workflow_id in store.list()}
    return next(k for n in range(100) for k in [keys(store, f"nobody-{n}")] if k.index not in indexes)


FOREIGN: dict[str, tuple[Damage, str]] = {
    "a member that is no text": (lambda c, s, k: c.zadd(k.index, {b"\xff\xfe": 1}), "which is no workflow id"),
    "the index": (lambda c, s, k: replace_by_string(c, k.index), "WRONGTYPE"),
    "the leased": (lambda c, s, k: replace_by_string(c, k.leases), "WRONGTYPE"),
    "the leased of nobody": (lambda c, s, k: replace_by_string(c, unused(s).leases), "WRONGTYPE"),
    "the parked": (lambda c, s, k: replace_by_string(c, k.parked), "WRONGTYPE"),
    "the queues": (lambda c, s, k: replace_by_string(c, k.queues), "WRONGTYPE"),
    "a queue": (lambda c, s, k: replace_by_string(c, keys(s, "unfinished").queue("default")), "WRONGTYPE"),
    "a queue of nobody": (lambda c, s, k: replace_by_string(c, unused(s).queue("other")), "WRONGTYPE"),
    "a name of no queue": (lambda c, s, k: c.hset(k.queues, "two words", 1), "which is no name of a queue"),
    "the name of a queue": (lambda c, s, k: c.hset(k.meta, "queue", b"\xff"), "and no name of a queue"),
    "the meta hash": (lambda c, s, k: replace_by_string(c, k.meta), "WRONGTYPE"),
    "the references": (lambda c, s, k: replace_by_string(c, k.refs), "WRONGTYPE"),
    "the events": (lambda c, s, k: replace_by_string(c, k.events), "WRONGTYPE"),
    "a bucket": (lambda c, s, k: replace_by_string(c, bucket(s)[0]), "cannot be read"),
    "a bucket's times": (lambda c, s, k: replace_by_string(c, f"{bucket(s)[0]}:times"), "cannot be read"),
    "when it was created": (
        lambda c, s, k: (c.hset(k.meta, "created", "x"), c.zrem(k.index, "w"), c.delete(k.events)),
        "and no number",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_value_is_found_and_hides_nothing_else(store: RedisStore, client: redis.Redis, name: str) -> None:
    damage, words = FOREIGN[name]
    assert keys(store, "large").index != keys(store, "w").index
    client.hdel(keys(store, "large").meta, "largest")
    damage(client, store, keys(store, "w"))
    looked = verify(store)
    found = verify(store, repair=True)
    for some in looked, found:
        assert any(words in one.problem for one in some.findings), some.findings
        assert (some.workflows, some.facts) == (7, 5) if "bucket" not in name else True
    assert [one.repaired for one in found.findings if one.name == "large"] == [True]
    assert not any(one.repairs and not one.repaired for one in found.findings)
    assert verify(store, ["large"]).findings == []


@pytest.mark.parametrize("kind", ["index", "leases", "parked_workflows", "expiring", "completed", "queue"])
@pytest.mark.parametrize("workflow_id", ["w", "nobody"])
def test_who_stands_in_the_wrong_partition_is_taken_out(
    store: RedisStore, client: redis.Redis, kind: str, workflow_id: str
) -> None:
    of_all = store.context.keys
    named = ("default",) if kind == "queue" else ()
    own = getattr(of_all, kind)(of_all.partition_of(workflow_id), *named)
    wrong = next(key for n in range(5) if (key := getattr(of_all, kind)(n, *named)) != own)
    if named:
        client.hincrby(wrong.replace("queue:default", "queues"), "default", 1)
    client.zadd(wrong, {workflow_id: 9e15})
    found = verify(store).findings
    assert [(one.name, one.repaired) for one in found] == [(wrong, False)]
    assert f"{workflow_id!r}, which belongs to another partition" in found[0].problem
    assert [one.repaired for one in verify(store, repair=True).findings] == [True]
    assert verify(store).findings == []
    assert client.zscore(keys(store, "w").index, "w")


def test_facts_and_keys_that_belong_to_nobody(store: RedisStore, client: redis.Redis) -> None:
    held, fact = bucket(store)
    client.hset(held, fact, b"damage")
    _, times = store.context.keys.fact(b"alone")
    client.zrem(times, b"alone")
    name = store.context.keys.namespace
    strays = {f"{{{name}:fact:9999}}", f"{{{name}:fact:4096}}:times", f"{{{name}:fact:007}}", f"{{{name}:00}}:index"}
    strays |= {f"{{{name}:0}}:foo", f"{{{name}:99}}:meta:w", f"{{{name}}}:other", f"{{{name}:0}}:import-log:w"}
    strays.add(next(f"{{{name}:{n}}}:log:w" for n in range(5) if f"{{{name}:{n}}}" not in keys(store, "w").log))
    for key in strays:
        client.set(key, "x")
    client.set(f"{{{name}x:0}}:foo", "of another namespace")
    found = verify(store, repair=True).findings
    assert {one.name for one in found if one.kind == "key"} == strays
    assert {(one.name, one.repaired) for one in found if one.kind == "fact"} == {(fact, False), ("alone", True)}
    assert client.zscore(times, b"alone")
    assert [one.problem for one in verify(store, ["w"]).findings] == [
        f"the fact {fact!r}, which it refers to, is damaged"
    ]


def test_a_fact_in_the_wrong_bucket_is_found(store: RedisStore, client: redis.Redis) -> None:
    held, fact = bucket(store)
    wrong = next(key for n in range(2) if (key := store.context.keys.bucket(n)) != held)
    client.hset(wrong, fact, client.hget(held, fact))
    (found,) = verify(store, repair=True).findings
    assert (found.kind, found.name, found.repaired) == ("fact", fact, False)
    assert f"in the bucket {wrong}" in found.problem


def test_writers_that_go_on_are_not_taken_for_damage(store: RedisStore) -> None:
    over = threading.Event()

    def write() -> None:
        for number in range(10**9):
            store.append_many([("w", [{"n": number}]), (f"new-{number}", [{"f": Fact(number)}])])
            store.append("w", [{"n": number}], tags=[f"written/{number}", "all"])
            store.save_snapshot("trimmed", store.append("trimmed", [{"n": number}], tags=["all"]), b"state")
            store.trim("trimmed")
            store.delete("comes and goes")
            store.append("comes and goes", [{"n": number}, {"n": number}][: 1 + number % 2], snapshot=b"s", tags=["a"])
            if over.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            assert verify(store, repair=True).findings == []
    finally:
        over.set()
        writer.join()
    assert verify(store).findings == []


def grow(store: RedisStore) -> None:
    store.append(
        "w",
        [{"n": 0}, {"f": [Fact(os.urandom(4)), Fact(1)]}, {"large": os.urandom(9000)}],
        commit_id=os.urandom(8).hex(),
        tags=["all", os.urandom(8).hex()],
    )


def grow_and_trim(store: RedisStore) -> None:
    store.append("w", [{"n": 0}], snapshot=b"state", tags=["all", os.urandom(8).hex()])
    store.trim("w")


def release(store: RedisStore, shift: int = 0) -> None:
    """Release the facts of the last event, and of the one before, by turns."""
    alone = store.put_fact(os.urandom(4))
    store.append("w", [{"f": [Fact(os.urandom(4)), Fact(os.urandom(4))]}], snapshot=b"state", refs=[alone])
    store.trim("w", keep=(store.cursor("w") + shift) % 2)


def release_by_other_turns(store: RedisStore) -> None:
    release(store, 1)


def release_and_collect(store: RedisStore) -> None:
    release(store)
    store.collect(0)


def log(store: RedisStore) -> None:
    store.save("w", [{"f": [Fact(os.urandom(4)), Fact(1)]}])


def work(store: RedisStore) -> None:
    lease = store.acquire("w", "me")
    store.append("w", [{"n": 0}], lease=lease)
    store.release(lease)
    if store.cursor("w") % 2:
        store.complete("w")


def begin_anew(store: RedisStore) -> None:
    """In a later millisecond of the server: each life has later entry IDs, as on a slow machine."""
    client = store._connected.server._client
    written = client.time()
    while (now := client.time())[0] == written[0] and now[1] // 1000 == written[1] // 1000:
        pass
    store.delete("w")
    store.append("w", [{"n": 0}, {"f": Fact(1)}], snapshot=b"state")


CHANGES = [grow, grow_and_trim, release, release_by_other_turns, release_and_collect, log, work, begin_anew]


def run_while(store: RedisStore, operation: Operation[Any], change: Callable[[RedisStore], None]) -> Any:
    """Do something while the workflow w changes after each round trip."""
    effect = next(operation)
    try:
        for _ in range(100):
            replies = store._sender.ask(effect)
            change(store)
            effect = operation.send(replies)
    except StopIteration as stop:
        return stop.value
    pytest.fail("it goes on for as long as the workflow changes")


def verify_while(store: RedisStore, change: Callable[[RedisStore], None]) -> Verified:
    verified: Verified = run_while(store, Verifier(store.context, ["w"], repair=True).next_part(), change)
    return verified


@pytest.mark.parametrize("change", CHANGES)
def test_a_workflow_that_never_rests_is_not_taken_for_damaged(
    store: RedisStore, change: Callable[[RedisStore], None]
) -> None:
    change(store)
    assert verify_while(store, change).findings == []
    assert verify(store).findings == []


@pytest.mark.parametrize("moment", range(24))
def test_what_comes_between_two_commands_is_not_taken_for_damage(store: RedisStore, moment: int) -> None:
    """A first snapshot, and a workflow that is deleted and made anew, with a reference and a commit id."""

    def save(workflow_id: str) -> None:
        store.save_snapshot(workflow_id, 1, b"x")

    def make_anew(workflow_id: str) -> None:
        store.delete(workflow_id)
        store.append(workflow_id, [{"fact": Fact(1)}], commit_id="one")
        save(workflow_id)

    for number, change in enumerate((save, make_anew)):
        workflow_id = f"v-{number}"
        store.append(workflow_id, [{"n": 1}])
        check = WorkflowCheck(store.context, workflow_id, facts_too=True)
        done = 0
        while commands := check.commands(1000):
            replies = []
            for command in commands:
                if done == moment:
                    change(workflow_id)
                done += 1
                replies += store._sender.ask(Batch([command]))
            check.receive(replies, commands)
        assert check.findings == []


def test_what_is_damaged_is_found_though_it_never_rests(store: RedisStore, client: redis.Redis) -> None:
    k = keys(store, "w")
    client.hdel(*bucket(store))
    client.xdel(k.events, entry(client, k, 4))
    client.hset(k.snapshot, mapping={"cursor": 10**6, "data": "x"})
    client.hset(k.commits, "id", 10**6)
    found = [one.problem for one in verify_while(store, grow).findings]
    for words in ("the events 9 to 10 are missing", "above the workflow's", "is missing", "which never was"):
        assert any(words in problem for problem in found), (words, found)


def test_a_workflow_that_changes_is_not_repaired_by_what_it_was(store: RedisStore, client: redis.Redis) -> None:
    """Between the look and the repair somebody appends: what was derived does not hold any more."""
    k = keys(store, "w")
    client.hset(k.meta, "cursor", 20)
    verifier = Verifier(store.context, ["w"], repair=True)
    operation = verifier.next_part()
    effect: Any = next(operation)
    while not any(command.script for command in effect.commands):
        effect = operation.send(store._sender.ask(effect))
    client.hset(k.meta, "cursor", 24)
    store.append("w", [{"n": "meanwhile"}])
    with pytest.raises(StopIteration) as stop:
        operation.send(store._sender.ask(effect))
    assert [one.repaired for one in stop.value.value.findings] == [False]
    assert store.cursor("w") == 25
    assert verify(store).findings == []


COUNTED: dict[str, Damage] = {
    "nothing": lambda c, s, k: None,
    "all keys": lambda c, s, k: c.delete(k.events, k.meta),
    "places": lambda c, s, k: (c.zrem(k.index, "unfinished"), c.zrem(k.queue("default"), "unfinished")),
    "places, which are counted out": lambda c, s, k: (
        c.zrem(k.index, "unfinished"),
        c.zrem(k.queue("default"), "unfinished"),
        c.hincrby(k.partition, "workflows", -1),
        c.hincrby(k.queues, "default", -1),
    ),
    "not lost but added by hand": lambda c, s, k: (
        c.zadd(k.index, {"ghost": 5}),
        c.zadd(k.queue("default"), {"ghost": 5}),
    ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_a_repair_of_one_workflow_leaves_its_partition_sound(
    valkey: RunningServer, client: redis.Redis, namespace: str, name: str
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        for workflow_id in ("unfinished", "other"):
            store.append(workflow_id, [{"n": 1}], lease=store.acquire(workflow_id, "me"))
        COUNTED[name](client, store, keys(store, "unfinished"))
        verify(store, ["unfinished", "ghost"], repair=True)
        assert set(store.list()) >= {"other"}
        assert verify(store).findings == []


def test_a_cluster_is_looked_through_slot_by_slot(cluster_nodes: list[RunningServer], namespace: str) -> None:
    url = cluster_url(cluster_nodes)
    with RedisStore.from_url(url, namespace=namespace, partitions=5, feed=True) as store:
        fill(store)
        assert verify(store).findings == []
        store._connected.server._client.delete(keys(store, "w").meta)
        store._connected.server._client.zrem(keys(store, "w").index, "w")
        found = verify(store, repair=True).findings
        assert {one.name for one in found} == {"w"}
        assert all(one.repaired for one in found)
        assert verify(store).findings == []
        assert store.cursor("w") == 24
