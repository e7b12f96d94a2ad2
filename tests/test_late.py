"""First tries that the network delivers late, after a retry, a rejection or a delete: they change nothing."""

import asyncio
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, NamedTuple

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from runic_redis import (
    Append,
    AsyncRedisStore,
    Fact,
    FactRef,
    Lease,
    Message,
    RedisStore,
    StoreError,
    StoreUnavailable,
)
from runic_redis.admin.exporting import Exporter
from runic_redis.admin.importing import Importer
from tests.late import LateProxy, late
from tests.servers import RunningServer

INCR = "return redis.call('INCR', KEYS[1])"


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_call_that_is_kept_back_is_carried_out_when_it_is_delivered(valkey: RunningServer, protocol: int) -> None:
    with (
        late(valkey) as proxy,
        redis.Redis(port=proxy.port, db=3, protocol=protocol, retry=Retry(NoBackoff(), 0)) as client,
    ):
        client.delete("late", "other")
        proxy.keep(matches=lambda command: b"late" in command)
        assert client.eval(INCR, 1, "other") == 1
        with pytest.raises(redis.ConnectionError):
            client.eval(INCR, 1, "late")
        assert (proxy.kept, client.get("late")) == (1, None)
        assert client.eval(INCR, 1, "late") == 1
        # (The proxy selects the client's database, which is not the first.)
        assert proxy.deliver()[-1] == 2
        assert client.get("late") == b"2"
        assert proxy.deliver() == []


def test_the_replies_to_what_is_delivered_may_be_errors(valkey: RunningServer) -> None:
    with late(valkey) as proxy, redis.Redis(port=proxy.port, retry=Retry(NoBackoff(), 0)) as client:
        proxy.keep()
        with pytest.raises(redis.ConnectionError):
            client.evalsha("0" * 40, 0)
        assert str(proxy.deliver()[-1]).startswith("NOSCRIPT")


def test_a_dump_shows_a_change(valkey: RunningServer, namespace: str) -> None:
    with late(valkey) as proxy, redis.Redis(port=proxy.port) as client:
        client.hset(namespace, "a", 1)
        before = proxy.dump(f"*{namespace}*")
        assert before == proxy.dump(f"*{namespace}*") != {}
        client.hset(namespace, "a", 2)
        assert proxy.dump(f"*{namespace}*") != before


def test_stores_of_both_faces_retry_what_is_kept_back(valkey: RunningServer, namespace: str) -> None:
    async def append(url: str) -> int:
        async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
            await store.append("w", [{"n": 3}])
            proxy.keep()
            return await store.append("w", [{"n": 4}])

    with late(valkey) as proxy, RedisStore.from_url(proxy.url, namespace=namespace) as store:
        store.append("w", [{"n": 1}])
        proxy.keep(count=2)
        assert store.append("w", [{"n": 2}]) == 2
        assert asyncio.run(append(proxy.url)) == 4
        assert proxy.kept == 3
        before = proxy.dump(f"*{namespace}*")
        proxy.deliver()
        assert proxy.dump(f"*{namespace}*") == before
        assert [event["n"] for event in store.stream("w")] == [1, 2, 3, 4]


# `collect` asks each bucket.
pytestmark = pytest.mark.usefixtures("few_buckets")

Call = Callable[[RedisStore, Any], object]
EVENT = {"late": 1}


def nothing(_: RedisStore) -> None:
    """Leave the workflow missing."""


def make(store: RedisStore) -> None:
    store.append("w", [{"n": 1}, {"n": 2}])


def make_with_snapshot(store: RedisStore) -> None:
    store.append("w", [{"n": 1}, {"n": 2}], snapshot=b"state")


def make_complete(store: RedisStore) -> None:
    make(store)
    store.complete("w")


def leave_unfinished(store: RedisStore) -> None:
    store.release(store.acquire("w", "another"))


def wait_for_an_answer(store: RedisStore) -> Message:
    make(store)
    store.send("w", {"n": 1})
    return store.inbox("w")[0]


def sleep(store: RedisStore) -> None:
    store.append("w", [{"n": 1}], queue="orders", due=inf)


def hold(store: RedisStore) -> Lease:
    make(store)
    return store.acquire("w", "me", ttl=1000)


def archive(store: RedisStore) -> list[Any]:
    """Make a workflow, export it, delete it, and return its records."""
    make_with_snapshot(store)
    records: list[Any] = []
    store.run(Exporter(store.context, ["w"]).run(records.append), "export")
    store.delete("w")
    return records


def bring_back(store: RedisStore, records: list[Any]) -> None:
    importer = Importer(store.context)
    for record in records:
        store.run(importer.take(record), "import")
    assert importer.problems == []


# Each write: what prepares it, and the write. Preparing again makes the state in which a first try could succeed.
WRITES: dict[str, tuple[Callable[[RedisStore], Any], Call]] = {
    "append": (nothing, lambda store, _: store.append("w", [EVENT])),
    "append further": (make, lambda store, _: store.append("w", [EVENT])),
    "append expecting nothing": (nothing, lambda store, _: store.append("w", [EVENT], expected_cursor=0)),
    "append expecting a cursor": (make, lambda store, _: store.append("w", [EVENT], expected_cursor=2)),
    "append with an id": (nothing, lambda store, _: store.append("w", [EVENT], commit_id="c")),
    "append with an id, expecting": (
        make,
        lambda store, _: store.append("w", [EVENT], commit_id="c", expected_cursor=2),
    ),
    "append with a snapshot and a fact": (
        make,
        lambda store, _: store.append("w", [{"f": Fact("fact")}], snapshot=b"late"),
    ),
    "append by a lease": (hold, lambda store, lease: store.append("w", [EVENT], lease=lease)),
    "append_many": (make, lambda store, _: store.append_many([("w", [EVENT]), ("v", [EVENT]), ("w", [EVENT])])),
    "append that consumes": (
        wait_for_an_answer,
        lambda store, message: store.append("w", [EVENT], consumes=message, ends_timer=True, unless_cancelled=True),
    ),
    "send": (make, lambda store, _: store.send("w", EVENT)),
    "send with an id": (make, lambda store, _: store.send("w", EVENT, message_id="m")),
    "send, and wake": (sleep, lambda store, _: store.send("w", EVENT)),
    "send, and make": (nothing, lambda store, _: store.send("w", EVENT, missing="keep")),
    "send with an id, and make": (
        nothing,
        lambda store, _: store.send("w", EVENT, message_id="m", missing="keep"),
    ),
    "request_cancel": (make, lambda store, _: store.request_cancel("w")),
    "append_all": (make, lambda store, _: store.append_all([Append("w", [EVENT]), Append("v", [EVENT])])),
    "append_all, and a guard": (
        make,
        lambda store, _: store.append_all([Append("other", [], expected_cursor=1), Append("w", [EVENT])]),
    ),
    "append_all with ids": (
        make,
        lambda store, _: store.append_all([Append("w", [EVENT], commit_id="c"), Append("v", [EVENT], commit_id="c")]),
    ),
    "append_all expecting, by a lease": (
        hold,
        lambda store, lease: store.append_all(
            [Append("v", [EVENT], expected_cursor=0, queue="q"), Append("w", [EVENT], lease=lease, snapshot=b"late")]
        ),
    ),
    "save": (make, lambda store, _: store.save("w", [EVENT])),
    "save, and make": (nothing, lambda store, _: store.save("w", [EVENT])),
    "save_snapshot": (make, lambda store, _: store.save_snapshot("w", 2, b"late")),
    "save_snapshot, and make": (nothing, lambda store, _: store.save_snapshot("w", 0, b"late")),
    "trim": (make_with_snapshot, lambda store, _: store.trim("w")),
    "complete": (make, lambda store, _: store.complete("w")),
    "expire": (make_complete, lambda store, _: store.expire("w", 1000)),
    "acquire": (make, lambda store, _: store.acquire("w", "me")),
    "acquire, and make": (nothing, lambda store, _: store.acquire("w", "me")),
    "claim": (leave_unfinished, lambda store, _: store.claim("me")),
    "release": (hold, lambda store, lease: store.release(lease)),
    "delete": (make, lambda store, _: store.delete("w")),
    "delete by a lease": (hold, lambda store, lease: store.delete("w", lease=lease)),
    "import": (archive, bring_back),
}
# Each way to make a workflow.
MAKING: dict[str, Callable[[RedisStore, list[Any]], object]] = {
    "append": lambda store, _: make(store),
    "append_many": lambda store, _: store.append_many([("w", [{"n": 1}])]),
    "send": lambda store, _: store.send("w", {"n": 1}, missing="keep"),
    "save": lambda store, _: store.save("w", [{"n": 1}]),
    "save_snapshot": lambda store, _: store.save_snapshot("w", 0, b"state"),
    "acquire": lambda store, _: store.acquire("w", "another"),
    "import": bring_back,
}


class Net(NamedTuple):
    """A network that can deliver late, a store behind it, and a store that reaches the server directly."""

    proxy: LateProxy
    store: RedisStore
    direct: RedisStore
    namespace: str

    def dump(self) -> dict[bytes, bytes | None]:
        return self.proxy.dump(f"{{{self.namespace}*")

    def deliver(self) -> list[Any]:
        replies = self.proxy.deliver()
        assert replies
        assert not any(str(reply).startswith("NOSCRIPT") for reply in replies)
        return replies


@pytest.fixture
def net(valkey: RunningServer, namespace: str) -> Iterator[Net]:
    with late(valkey) as proxy, RedisStore.from_url(valkey.url(), namespace=namespace, partitions=2) as direct:
        direct.append("other", [{"n": 1}])
        with RedisStore.from_url(proxy.url, namespace=namespace, partitions=2) as store:
            yield Net(proxy, store, direct, namespace)


@pytest.mark.parametrize("tries", [1, 2])
@pytest.mark.parametrize("name", WRITES)
def test_a_late_try_changes_nothing_after_its_retry(net: Net, name: str, tries: int) -> None:
    prepare, write = WRITES[name]
    prepared = prepare(net.direct)
    net.proxy.keep(tries)
    write(net.store, prepared)
    assert net.proxy.kept == tries
    before = net.dump()
    net.deliver()
    assert net.dump() == before


@pytest.mark.parametrize("name", WRITES)
def test_a_late_first_try_changes_nothing_after_a_delete(net: Net, name: str) -> None:
    prepare, write = WRITES[name]
    prepared = prepare(net.direct)
    net.proxy.keep()
    write(net.store, prepared)
    for workflow_id in ("w", "v"):
        net.direct.delete(workflow_id)
    before = net.dump()
    net.deliver()
    assert not net.direct.exists("w")
    if name == "import":
        return  # a started import leaves a key that expires
    assert net.dump() == before


@pytest.mark.parametrize("name", WRITES)
def test_a_late_first_try_changes_nothing_of_another_life(net: Net, name: str) -> None:
    prepare, write = WRITES[name]
    prepared = prepare(net.direct)
    net.proxy.keep()
    write(net.store, prepared)
    for workflow_id in ("w", "v"):
        net.direct.delete(workflow_id)
    prepare(net.direct)
    if name == "import":
        make(net.direct)
    before = net.dump()
    net.deliver()
    assert net.dump() == before


@pytest.mark.parametrize("again", MAKING)
@pytest.mark.parametrize("name", ["append", "append with an id", "send", "save", "save_snapshot", "acquire", "delete"])
def test_a_late_first_try_changes_nothing_however_the_workflow_is_made_again(net: Net, name: str, again: str) -> None:
    records = archive(net.direct)
    bring_back(net.direct, records)
    net.proxy.keep()
    WRITES[name][1](net.store, None)
    net.direct.delete("w")
    MAKING[again](net.direct, records)
    before = net.dump()
    net.deliver()
    assert net.dump() == before


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("name", WRITES)
def test_a_late_retry_changes_nothing_after_the_answer_of_another_one(net: Net, name: str, *, deleted: bool) -> None:
    """The first try is carried out, but its reply is lost. The first retry is late, and the second one is answered."""
    prepare, write = WRITES[name]
    prepared = prepare(net.direct)
    net.proxy.keep(2, meanwhile=lambda: net.proxy.deliver(1) if net.proxy.kept == 2 else None)
    write(net.store, prepared)
    assert net.proxy.kept == 2
    if deleted:
        net.direct.delete("w")
        net.direct.delete("v")
        (make if name == "import" else prepare)(net.direct)
    before = net.dump()
    net.deliver()
    assert net.dump() == before


# Each write: what prepares it, the write, and what would let it succeed later.
REJECTED: dict[str, tuple[Callable[[RedisStore], Any], Call, Call]] = {
    "append expecting too much": (
        nothing,
        lambda store, _: store.append("w", [EVENT], expected_cursor=2),
        lambda store, _: make(store),
    ),
    "append expecting too much, with an id": (
        nothing,
        lambda store, _: store.append("w", [EVENT], expected_cursor=2, commit_id="c"),
        lambda store, _: make(store),
    ),
    "append expecting what was": (
        make,
        lambda store, _: store.append("w", [EVENT], expected_cursor=1),
        lambda store, _: (store.delete("w"), store.append("w", [{"n": 1}])),
    ),
    "append with a fact that is missing": (
        nothing,
        lambda store, _: store.append("w", [{"f": FactRef("missing")}]),
        lambda store, _: store.save_fact("missing", 1),
    ),
    "append_many with a fact that is missing": (
        make,
        lambda store, _: first_error(store.append_many([("w", [{"f": FactRef("missing")}])])),
        lambda store, _: store.save_fact("missing", 1),
    ),
    "append_all expecting too much of one": (
        make,
        lambda store, _: store.append_all([Append("w", [EVENT]), Append("v", [EVENT], expected_cursor=2)]),
        lambda store, _: store.append("v", [EVENT] * 2),
    ),
    "append_all expecting too much of a guard": (
        make,
        lambda store, _: store.append_all([Append("v", [], expected_cursor=2), Append("w", [EVENT])]),
        lambda store, _: store.append("v", [EVENT] * 2),
    ),
    "append_all that makes two": (
        nothing,
        lambda store, _: store.append_all([Append("w", [EVENT]), Append("v", [{"f": FactRef("missing")}])]),
        lambda store, _: store.save_fact("missing", 1),
    ),
    "save with a fact that is missing": (
        nothing,
        lambda store, _: store.save("w", [{"f": FactRef("missing")}]),
        lambda store, _: store.save_fact("missing", 1),
    ),
    "save_snapshot ahead": (
        nothing,
        lambda store, _: store.save_snapshot("w", 2, b"late"),
        lambda store, _: make(store),
    ),
    "save_snapshot behind": (
        make_with_snapshot,
        lambda store, _: store.save_snapshot("w", 1, b"late"),
        lambda store, _: (store.delete("w"), make(store)),
    ),
    "send to nothing": (nothing, lambda store, _: store.send("w", EVENT), lambda store, _: make(store)),
    "send to what is finished": (
        make_complete,
        lambda store, _: store.send("w", EVENT, message_id="m"),
        lambda store, _: (store.delete("w"), make(store)),
    ),
    "append that is cancelled": (
        lambda store: (make(store), store.request_cancel("w")),
        lambda store, _: store.append("w", [EVENT], unless_cancelled=True),
        lambda store, _: store.append("w", [{"n": 3}], consumes=store.inbox("w")),
    ),
    "trim of nothing": (nothing, lambda store, _: store.trim("w"), lambda store, _: make_with_snapshot(store)),
    "complete of nothing": (nothing, lambda store, _: store.complete("w"), lambda store, _: make(store)),
    "expire of nothing": (nothing, lambda store, _: store.expire("w", 1000), lambda store, _: make_complete(store)),
    "persist of nothing": (
        nothing,
        lambda store, _: store.persist("w"),
        lambda store, _: store.append("w", [EVENT], expires_in=1000),
    ),
    "acquire of what is held": (
        lambda store: store.acquire("w", "another"),
        lambda store, _: store.acquire("w", "me"),
        lambda store, lease: store.release(lease),
    ),
}


def first_error(results: list[int | StoreError]) -> None:
    for result in results:
        if isinstance(result, StoreError):
            raise result


@pytest.mark.parametrize("name", REJECTED)
def test_a_late_first_try_changes_nothing_after_a_rejection(net: Net, name: str) -> None:
    prepare, write, allow = REJECTED[name]
    prepared = prepare(net.direct)
    net.proxy.keep()
    with pytest.raises(StoreError) as caught:
        write(net.store, prepared)
    assert "not known" not in str(caught.value)
    allow(net.direct, prepared)
    before = net.dump()
    net.deliver()
    assert net.dump() == before
    # The call succeeds now, so the late try changed nothing only because it was late.
    write(net.direct, prepared)


def test_a_late_claim_takes_nothing_that_another_had_first(net: Net) -> None:
    leave_unfinished(net.direct)
    held: list[Lease] = []
    net.proxy.keep(meanwhile=lambda: held.extend(net.direct.claim("another")))
    assert net.store.claim("me") == []
    (lease,) = held
    net.direct.release(lease)
    before = net.dump()
    net.deliver()
    assert net.dump() == before
    assert len(net.direct.claim("me")) == 1


def test_a_write_that_was_never_answered_leaves_no_second_one(net: Net) -> None:
    """Its outcome is unknown at first. Then its first try arrives, and the caller retries with the same id."""
    with RedisStore.from_url(net.proxy.url, namespace=net.namespace, partitions=2, deadline_s=0.2) as store:
        net.proxy.keep(1000)
        with pytest.raises(StoreUnavailable):
            store.append("w", [EVENT], commit_id="c")
        net.proxy.keep(0)
        net.deliver()
        assert net.direct.cursor("w") == 1
        assert store.append("w", [EVENT], commit_id="c") == 1
    assert list(net.direct.stream("w")) == [EVENT]


def test_a_late_sweep_leaves_a_fact_that_was_saved_since(net: Net) -> None:
    net.direct.save_fact("h", 1)
    net.proxy.keep()
    assert net.store.collect(grace=0) == 1
    net.direct.save_fact("h", 1)
    net.deliver()
    assert net.direct.load_fact("h") == 1


def test_a_late_renewal_gives_nothing_back(net: Net) -> None:
    lease = hold(net.direct)
    net.proxy.keep()
    net.store.renew(lease)
    net.direct.release(lease)
    before = net.dump()
    net.deliver()
    assert net.dump() == before


def test_what_is_kept_of_retries_is_bounded(net: Net, valkey: RunningServer) -> None:
    key = net.direct.context.keys.workflow("w").partition
    with valkey.client() as client:
        sizes = []
        for number in range(3):
            net.proxy.keep()
            assert net.store.append("w", [EVENT]) == number + 1
            sizes.append(client.hlen(key))
            # As if enough retries had come to replace all that the server remembers.
            client.hincrby(key, "next", 2048 - 1)
        assert len(set(sizes)) == 1, "the server remembers more and more retries"
        *_, last = net.deliver()
        assert last == [3], "the server forgot the newest retry"


def test_a_late_first_try_changes_nothing_in_asyncio(net: Net) -> None:
    async def write() -> None:
        async with AsyncRedisStore.from_url(net.proxy.url, namespace=net.namespace, partitions=2) as store:
            net.proxy.keep()
            assert await store.append("a", [EVENT]) == 1
            net.proxy.keep()
            assert await store.append("b", [EVENT], expected_cursor=0, commit_id="c") == 1
            net.proxy.keep()
            await store.save("c", [EVENT])
            net.proxy.keep()
            lease = await store.acquire("d", "me")
            await store.release(lease)
            net.proxy.keep()
            await store.delete("other")
            net.proxy.keep()
            with pytest.raises(StoreError):
                await store.expire("e", 0.001)

    asyncio.run(write())
    assert net.proxy.kept == 6
    for workflow_id in ("b", "c"):
        net.direct.delete(workflow_id)
    net.direct.append_many([("e", [EVENT]), ("other", [{"n": 2}])])
    before = net.dump()
    net.deliver()
    assert net.dump() == before
    assert sorted(net.direct.list()) == ["a", "d", "e", "other"]
