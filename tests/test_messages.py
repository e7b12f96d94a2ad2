"""Guarantee 14: exactly one commit consumes a message, or the message is still in the inbox.

Sending it again with the same id changes nothing. A message that comes during a lease is never slept through.
"""

import itertools
import math
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import redis

from runic_redis import (
    CancelRequested,
    ConfigurationError,
    CursorConflict,
    DecodeError,
    DurabilityError,
    EventRegistry,
    LeaseLost,
    MessageGone,
    RedisStore,
    UnknownEvent,
    UnknownEventType,
    WorkflowCancelled,
    WorkflowNotFound,
    replicated,
)
from runic_redis.admin.exporting import Exporter
from runic_redis.admin.importing import Importer
from runic_redis.admin.workflow_check import WorkflowCheck
from runic_redis.context import without_classes
from runic_redis.protocol.effects import Batch, Operation
from runic_redis.testing.examples import numbered
from tests.faults import FaultyServer, make_faulty
from tests.proxy import Fault, proxied
from tests.servers import RunningServer, wait_until
from tests.test_verifying import verify

LOSSES = [["reply"], ["request"], ["reply", "reply", "reply"], ["request", "reply", "request"], ["late", "reply"]]


@pytest.fixture
def faulty(store: RedisStore) -> FaultyServer:
    """The server behind `store`, which has the workflow "w", and knows the scripts."""
    store.send("other", {"n": 1}, missing="keep")
    store.append("w", numbered(1))
    return make_faulty(store)


@pytest.fixture
def other(opener: Callable[[], RedisStore]) -> Iterator[RedisStore]:
    """A second client, whose connections are good."""
    with opener() as store:
        yield store


@pytest.fixture
def client(valkey: RunningServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


@pytest.fixture
def on_valkey(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        store.append("w", numbered(1))
        yield store


def bodies(store: RedisStore) -> list[Any]:
    return [message.body for message in store.inbox("w")]


# Lost requests and replies


@pytest.mark.parametrize("losses", LOSSES, ids=" ".join)
@pytest.mark.parametrize("message_id", [None, "m"])
@pytest.mark.parametrize("earlier", [0, 3])
def test_a_message_is_stored_once_whatever_is_lost(
    store: RedisStore, faulty: FaultyServer, losses: list[str], message_id: str | None, earlier: int
) -> None:
    before = [{"n": number} for number in range(earlier)]
    for body in before:
        store.send("w", body)
    faulty.faults = [*losses]
    sent = store.send("w", {"n": "lost"}, message_id=message_id)
    assert bodies(store) == [*before, {"n": "lost"}]
    assert store.inbox("w")[-1].id == sent
    faulty.deliver_late()
    assert bodies(store) == [*before, {"n": "lost"}]


@pytest.mark.parametrize("losses", LOSSES, ids=" ".join)
@pytest.mark.parametrize("message_id", [None, "m"])
def test_a_message_that_creates_its_workflow_is_stored_once(
    store: RedisStore, faulty: FaultyServer, losses: list[str], message_id: str | None
) -> None:
    store.delete("w")
    faulty.faults = [*losses]
    store.send("w", {"n": 1}, message_id=message_id, missing="keep")
    faulty.deliver_late()
    assert bodies(store) == [{"n": 1}]


@pytest.mark.parametrize("message_id", [None, "m"])
@pytest.mark.parametrize("others", [0, 1, 100])
def test_a_retry_finds_a_message_that_was_consumed(
    store: RedisStore, other: RedisStore, faulty: FaultyServer, message_id: str | None, others: int
) -> None:
    def meddle() -> None:
        for number in range(others):
            other.send("w", {"n": number})
        other.append("w", numbered(1), consumes=other.inbox("w"))

    faulty.faults = ["reply"]
    faulty.after_loss = meddle
    store.send("w", {"n": "lost"}, message_id=message_id)
    assert bodies(store) == []
    assert store.cursor("w") == 2


def test_calls_without_a_message_id_take_bounded_memory(
    on_valkey: RedisStore, client: redis.Redis, valkey: RunningServer, namespace: str
) -> None:
    keys = on_valkey.context.keys.workflow("w")
    sizes = []
    for number in range(3):
        on_valkey.send("w", {"n": number}, message_id=f"m-{number}")
        on_valkey.send("w", {"n": number})
        sizes.append(client.hlen(keys.messages) - number)
        # As if so many messages had been sent that the next one takes the place of the first.
        client.hincrby(keys.meta, "sent", 1023)
    assert len(set(sizes)) == 1
    assert len(bodies(on_valkey)) == 6
    faulty = make_faulty(on_valkey)
    faulty.faults = ["reply"]
    on_valkey.send("w", {"n": "lost"})
    assert len(bodies(on_valkey)) == 7


@pytest.mark.parametrize("losses", LOSSES, ids=" ".join)
@pytest.mark.parametrize("options", [{}, {"expected_cursor": 1}, {"commit_id": "c"}], ids=str)
def test_a_commit_consumes_once_whatever_is_lost(
    store: RedisStore, faulty: FaultyServer, losses: list[str], options: dict[str, Any]
) -> None:
    for number in range(3):
        store.send("w", {"n": number})
    first, second, _ = store.inbox("w")
    faulty.faults = [*losses]
    assert store.append("w", numbered(2, 2), consumes=[first, second], unless_cancelled=True, **options) == 3
    faulty.deliver_late()
    assert list(store.stream("w")) == numbered(3)
    assert bodies(store) == [{"n": 2}]


@pytest.mark.parametrize("loss", ["reply", "request", "late"])
def test_of_two_who_consume_a_message_the_one_whose_reply_was_lost_may_have_won(
    store: RedisStore, other: RedisStore, faulty: FaultyServer, loss: str
) -> None:
    def compete() -> None:
        with suppress(MessageGone):
            other.append("w", [{"by": "other"}], consumes=message)

    store.send("w", {"n": 1})
    (message,) = store.inbox("w")
    faulty.faults = [loss]
    faulty.after_loss = compete
    if loss == "reply":
        assert store.append("w", [{"by": "store"}], consumes=message) == 2
    else:
        with pytest.raises(MessageGone):
            store.append("w", [{"by": "store"}], consumes=message)
    faulty.deliver_late()
    assert list(other.stream("w", after=1)) == [{"by": "store" if loss == "reply" else "other"}]


@pytest.mark.parametrize("loss", ["reply", "request", "late"])
def test_a_message_wakes_whatever_is_lost(store: RedisStore, faulty: FaultyServer, loss: str) -> None:
    store.append("w", numbered(1), queue="orders", due=math.inf)
    faulty.faults = [loss]
    store.send("w", {"n": 1})
    (lease,) = store.claim("me", queues=["orders"])
    store.append("w", numbered(1), consumes=store.inbox("w"), lease=lease)
    store.release(lease, due=math.inf)
    faulty.deliver_late()
    assert store.claim("me", queues=["orders"]) == []


# Many senders and many consumers


class Storm:
    """Senders and consumers of a workflow, behind a network that cuts their connections.

    Each commit records the messages that it consumes, so the events tell how often each was consumed.
    """

    SENDERS = 4
    CONSUMERS = 4
    EACH = 60

    def __init__(self, url: str, namespace: str) -> None:
        self._url = url
        self._namespace = namespace
        self.sent: list[str] = []
        self._sending = threading.Semaphore(self.SENDERS)

    def open(self) -> RedisStore:
        return RedisStore.from_url(self._url, namespace=self._namespace, partitions=1)

    def send(self, number: int) -> None:
        with self.open() as store:
            for count in range(self.EACH):
                name = f"{number}-{count}"
                message_id = name if count % 2 else None
                for _ in range(1 + count % 3 if message_id else 1):
                    store.send("w", {"name": name}, message_id=message_id)
                self.sent.append(name)

    def consume(self, number: int, is_over: Callable[[RedisStore], bool]) -> None:
        rng = random.Random(number)
        with self.open() as store:
            while not is_over(store):
                cursor = store.cursor("w")
                messages = store.inbox("w", wait_s=0.05)
                if not messages:
                    continue
                some = messages[: rng.randint(1, 3)]
                options: dict[str, Any] = rng.choice([{}, {"expected_cursor": cursor}])
                answer = {"answers": [message.body["name"] for message in some]}
                with suppress(MessageGone, CursorConflict):
                    store.append("w", [answer], consumes=some, **options)

    def work(self, number: int, is_over: Callable[[RedisStore], bool]) -> None:
        """Consume under leases, as a worker does: without messages, the workflow sleeps until it is woken."""
        with self.open() as store:
            while not is_over(store):
                for lease in store.claim(f"worker-{number}", queues=["orders"], ttl=30):
                    with suppress(LeaseLost):
                        for message in store.inbox("w"):
                            store.append("w", [{"answers": [message.body["name"]]}], consumes=message, lease=lease)
                        store.release(lease, due=math.inf)

    def run(self, consume: Callable[[int, Callable[[RedisStore], bool]], None], disturb: Callable[[], None]) -> None:
        expected = self.SENDERS * self.EACH
        ended = threading.Event()

        def is_over(store: RedisStore) -> bool:
            return ended.is_set() or (len(self.sent) == expected and not store.inbox("w"))

        def disturb_on() -> None:
            while not ended.is_set():
                disturb()

        with ThreadPoolExecutor(self.SENDERS + self.CONSUMERS + 1) as pool:
            disturbing = pool.submit(disturb_on)
            running = [pool.submit(self.send, number) for number in range(self.SENDERS)]
            running += [pool.submit(consume, number, is_over) for number in range(self.CONSUMERS)]
            try:
                for one in running:
                    one.result(50)
            finally:
                ended.set()
            disturbing.result()

    def check(self, store: RedisStore) -> None:
        answers = Counter(name for event in store.stream("w", after=1) for name in event["answers"])
        assert set(answers.values()) == {1}, "a message was consumed twice"
        assert sorted(answers) == sorted(self.sent), "a message was lost"
        assert store.inbox("w") == []


@pytest.mark.parametrize("how", ["at cursors", "under leases"])
def test_each_message_is_consumed_exactly_once_through_cuts(valkey: RunningServer, namespace: str, how: str) -> None:
    rng = random.Random(7)
    paused = threading.Event()
    with (
        proxied(valkey) as proxy,
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as direct,
    ):
        direct.append("w", numbered(1), queue="orders")
        storm = Storm(f"redis://127.0.0.1:{proxy.port}", namespace)

        def disturb() -> None:
            if not proxy.armed:
                proxy.arm(Fault(rng.choice(["request", "reply"]), rng.randrange(400)))
            paused.wait(0.01)

        storm.run(storm.consume if how == "at cursors" else storm.work, disturb)
        storm.check(direct)
        assert proxy.done >= 20


@pytest.mark.parametrize("lead", [False, True])
def test_a_message_during_a_lease_is_never_slept_through(opener: Callable[[], RedisStore], *, lead: bool) -> None:
    """A worker sleeps whenever its inbox is empty. A message comes around each release."""
    count = 30
    sent: list[str] = []
    seen: list[str] = []
    go = threading.Semaphore(0)
    with opener() as store, opener() as sender, ThreadPoolExecutor(1) as pool:

        def send() -> None:
            for _ in range(count):
                assert go.acquire(timeout=10)
                sent.append(sender.send("w", {"n": 1}))

        store.append("w", numbered(1), queue="orders", due=math.inf)
        go.release()
        sending = pool.submit(send)
        while len(seen) < count:
            stored = len(sent)
            leases = store.claim("me", queues=["orders"])
            assert leases or len(seen) >= stored, "the workflow sleeps, and has a message"
            for lease in leases:
                messages = store.inbox("w")
                assert messages, "it was woken without a message"
                store.append("w", numbered(1), consumes=messages, lease=lease)
                seen.extend(message.id for message in messages)
                go.release()
                if lead and len(seen) < count:
                    wait_until(lambda: len(sent) > len(seen), "the next message")
                store.release(lease, due=math.inf)
        sending.result()
        assert seen == sent


# Waiting


def test_a_message_that_came_before_the_workflow_is_put_in_a_queue_wakes_it(store: RedisStore) -> None:
    store.send("new", {"n": 1}, missing="keep")
    store.append("new", numbered(1), expected_cursor=0, queue="q", due=math.inf)
    store.append("parked", numbered(1), queue="q")
    store.park("parked", "a test")
    store.send("parked", {"n": 1})
    store.unpark("parked", due=math.inf)
    store.append("put off", numbered(1), queue="q", due=math.inf)
    store.send("put off", {"n": 1})
    store.append("put off", numbered(1), queue="q", due=math.inf)
    claimed = store.claim("a", 9, queues=["q"])
    assert {lease.workflow_id for lease in claimed} == {"new", "parked", "put off"}


@pytest.mark.parametrize("is_parked", [False, True])
def test_a_message_after_a_lease_has_ended_is_not_slept_through(store: RedisStore, *, is_parked: bool) -> None:
    store.append("w", numbered(1), queue="default")
    if is_parked:
        store.park("w", "a test")
    lease = store.acquire("w", "a", ttl=30 if is_parked else 0.001)
    wait_until(lambda: is_parked or store.count(state="leased") == 0, "the end of the lease")
    assert store.inbox("w") == []
    store.send("w", {"n": 1})
    store.unpark("w", due=math.inf)
    store.renew(lease)
    store.release(lease, due=math.inf)
    assert [one.workflow_id for one in store.claim("b")] == ["w"]


def test_a_message_that_the_commit_consumes_does_not_wake(store: RedisStore) -> None:
    store.send("w", {"n": 1}, missing="keep")
    store.append("w", numbered(1), queue="q", due=math.inf, consumes=store.inbox("w"))
    assert store.claim("a", queues=["q"]) == []


def test_a_wait_sends_one_read_and_no_more_until_a_message_comes(store: RedisStore, other: RedisStore) -> None:
    store.append("w", numbered(1))
    faulty = make_faulty(store)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.inbox, "w", wait_s=30)
        other.send("w", {"n": 1})
        assert waiting.result()[0].body == {"n": 1}
    # Reads that block do not go through the sender's queue. A look at the meta hash comes once a second.
    assert len(faulty.rounds) <= 3


@pytest.mark.parametrize("wait_s", [0.0, 0.01])
def test_a_wait_for_an_unknown_workflow_ends_at_once(store: RedisStore, wait_s: float) -> None:
    with pytest.raises(WorkflowNotFound):
        store.inbox("w", wait_s=wait_s)


# The end of a workflow


def test_an_expired_workflow_has_no_inbox_and_gets_no_message(store: RedisStore) -> None:
    store.append("w", numbered(1))
    store.send("w", {"n": 1}, message_id="m")
    store.expire("w", 0.001)
    wait_until(lambda: not store.exists("w"), "the end of the workflow")
    for _ in range(2):
        with pytest.raises(WorkflowNotFound):
            store.send("w", {"n": 2})
        with pytest.raises(WorkflowNotFound):
            store.inbox("w")
    store.send("w", {"n": 3}, message_id="m", missing="keep")
    assert bodies(store) == [{"n": 3}]
    assert store.cursor("w") == 0


def test_a_message_extends_a_lifetime_that_slides(on_valkey: RedisStore, client: redis.Redis) -> None:
    keys = on_valkey.context.keys.workflow("w")
    on_valkey.expire("w", 3600, sliding=True)
    before = client.zscore(keys.index, "w")
    on_valkey.send("w", {"n": 1})
    assert client.zscore(keys.index, "w") > before


# Types, damage and loss


def test_a_message_of_an_unknown_type_is_named(opener: Callable[[], RedisStore], store: RedisStore) -> None:
    store.append("w", [{"n": 1}])
    sent = store.send("w", numbered(1)[0])
    keys = store.context.keys
    url = store._connected.label
    options: dict[str, Any] = {"namespace": keys.namespace, "registry": EventRegistry()}
    with RedisStore.from_url(url, **options) as blind:
        with pytest.raises(UnknownEventType, match=sent) as caught:
            blind.inbox("w")
        assert caught.value.name == "runic_redis.testing.order_placed"
        assert caught.value.version == 1
        blind.append("w", [{"n": 2}], unless_cancelled=True)
    with RedisStore.from_url(url, **options, unknown_events="wrap") as wrapping:
        (message,) = wrapping.inbox("w")
        assert message.body == UnknownEvent("runic_redis.testing.order_placed", 1, {"customer": "Ada", "quantity": 1})
        wrapping.append("w", [{"n": 3}], consumes=message)
        wrapping.request_cancel("w")
        assert [one.body for one in wrapping.inbox("w")] == [CancelRequested()], "every registry knows it"


def damage(client: redis.Redis, key: str, fields: dict[Any, Any]) -> None:
    client.delete(key)
    client.xadd(key, fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"header": "payload"},
        {b"\x91\x93\xc0\x00\x90": b"\x00\x90"},
        {b"\x91\x93\xc0\x00\x90": b"\x00\x92\x91\x80\x91\x80"},
    ],
    ids=["foreign", "none", "two"],
)
def test_a_damaged_message_is_named(on_valkey: RedisStore, client: redis.Redis, fields: dict[Any, Any]) -> None:
    key = on_valkey.context.keys.workflow("w").inbox
    on_valkey.send("w", {"n": 1})
    damage(client, key, fields)
    with pytest.raises(DecodeError, match="XDEL") as caught:
        on_valkey.inbox("w")
    assert key in str(caught.value)


def test_a_lost_inbox_is_noticed(on_valkey: RedisStore, client: redis.Redis) -> None:
    on_valkey.send("w", {"n": 1})
    (message,) = on_valkey.inbox("w")
    client.delete(on_valkey.context.keys.workflow("w").inbox)
    before = client.hgetall(on_valkey.context.keys.workflow("w").meta)
    calls: list[Callable[[], Any]] = [
        lambda: on_valkey.inbox("w"),
        lambda: on_valkey.send("w", {"n": 2}),
        lambda: on_valkey.append("w", numbered(1), consumes=message),
    ]
    for call in calls:
        with pytest.raises(DecodeError, match="inbox"):
            call()
    assert client.hgetall(on_valkey.context.keys.workflow("w").meta) == before
    assert on_valkey.append("w", numbered(1)) == 2


def test_a_lost_hash_of_message_ids_is_noticed(on_valkey: RedisStore, client: redis.Redis) -> None:
    on_valkey.send("w", {"n": 1}, message_id="m")
    client.delete(on_valkey.context.keys.workflow("w").messages)
    for message_id in ("m", "another", None):
        with pytest.raises(DecodeError, match="message ids"):
            on_valkey.send("w", {"n": 1}, message_id=message_id)
    assert on_valkey.append("w", numbered(1), consumes=on_valkey.inbox("w")) == 2


def test_a_lost_meta_hash_is_noticed(on_valkey: RedisStore, client: redis.Redis) -> None:
    on_valkey.delete("w")
    on_valkey.send("w", {"n": 1}, missing="keep")
    client.delete(on_valkey.context.keys.workflow("w").meta)
    calls: list[Callable[[], Any]] = [
        lambda: on_valkey.inbox("w"),
        lambda: on_valkey.send("w", {"n": 2}),
        lambda: on_valkey.send("w", {"n": 2}, missing="keep"),
        lambda: on_valkey.append("w", numbered(1)),
    ]
    for call in calls:
        with pytest.raises(DecodeError, match="meta hash"):
            call()


@pytest.mark.parametrize("field", ["inbox", "messages", "sent", "lease_until", "expires"])
def test_a_damaged_field_is_noticed(on_valkey: RedisStore, client: redis.Redis, field: str) -> None:
    client.hset(on_valkey.context.keys.workflow("w").meta, field, "damaged")
    with pytest.raises(DecodeError):
        on_valkey.send("w", {"n": 1})
    assert not client.exists(on_valkey.context.keys.workflow("w").inbox)


FOREIGN = {"inbox", "messages", "index", "queues", "meta"}


@pytest.mark.parametrize("kind", sorted(FOREIGN))
def test_a_foreign_value_is_refused_and_nothing_changes(
    on_valkey: RedisStore, client: redis.Redis, namespace: str, kind: str
) -> None:
    on_valkey.append("w", numbered(1), queue="orders", due=math.inf)
    on_valkey.send("w", {"n": 1}, message_id="m")
    (message,) = on_valkey.inbox("w")
    key = getattr(on_valkey.context.keys.workflow("w"), kind)
    client.delete(key)
    client.set(key, "foreign")
    before = {name: client.dump(name) for name in client.keys(f"{{{namespace}*")}
    calls: dict[str, tuple[set[str], Callable[[], Any]]] = {
        "send": (FOREIGN, lambda: on_valkey.send("w", {"n": 2})),
        "send with an id": (FOREIGN, lambda: on_valkey.send("w", {"n": 2}, message_id="other")),
        "inbox": ({"meta", "inbox"}, lambda: on_valkey.inbox("w")),
        "consume": ({"meta", "inbox", "index"}, lambda: on_valkey.append("w", numbered(1), consumes=message)),
    }
    for name, (touched, call) in calls.items():
        if kind in touched:
            with pytest.raises(DecodeError, match="not of this store"):
                call()
            assert {name: client.dump(name) for name in client.keys(f"{{{namespace}*")} == before, name


@pytest.mark.parametrize("command", ["xadd", "xdel"])
def test_a_user_who_may_not_write_the_inbox_changes_nothing(
    on_valkey: RedisStore, valkey: RunningServer, client: redis.Redis, namespace: str, command: str
) -> None:
    on_valkey.append("w", numbered(1), queue="orders", due=math.inf)
    on_valkey.send("w", {"n": 1})
    (message,) = on_valkey.inbox("w")
    keys = on_valkey.context.keys.workflow("w")
    client.execute_command("ACL", "SETUSER", "sender", "on", ">secret", "~*", "&*", "+@all", f"-{command}")
    try:
        url = valkey.url().replace("://", "://sender:secret@")
        with RedisStore.from_url(url, namespace=namespace, partitions=1) as store:
            before = {name: client.dump(name) for name in client.keys(f"{{{namespace}*")}
            with pytest.raises(ConfigurationError, match="permission"):
                if command == "xadd":
                    store.send("w", {"n": 2})
                else:
                    store.append("w", numbered(1), consumes=message)
            assert {name: client.dump(name) for name in client.keys(f"{{{namespace}*")} == before
            assert client.xlen(keys.inbox) == 1
    finally:
        client.execute_command("ACL", "DELUSER", "sender")


@pytest.mark.parametrize(("message_id", "advice"), [(None, "do not send it again"), ("m", "again with the same id")])
def test_a_message_that_was_not_confirmed_is_stored(
    valkey: RunningServer, namespace: str, message_id: str | None, advice: str
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, deadline_s=0.3) as store:
        store.append("w", numbered(1))
        with pytest.raises(DurabilityError, match=advice):
            store.send("w", {"n": 1}, message_id=message_id, durability=replicated(1))
        assert bodies(store) == [{"n": 1}]


# Verify, export and import


def copy_to(store: RedisStore, target: RedisStore) -> None:
    records: list[Any] = []
    exporter = Exporter(store.context)
    store.run(exporter.run(records.append), "export")
    assert exporter.problems == []
    importer = Importer(target.context)
    for record in records:
        target.run(importer.take(record), "import")
    assert (importer.problems, importer.complete) == ([], True)


@pytest.mark.parametrize("count", [1, 128, 300])
def test_a_copy_has_the_messages_and_knows_their_ids(store: RedisStore, namespace: str, count: int) -> None:
    store.append("w", numbered(1), queue="orders", due=math.inf)
    for number in range(count):
        store.send("w", {"n": number}, message_id=f"m-{number}")
        store.send("w", {"n": number})
    store.request_cancel("w", "too late")
    store.append("w", numbered(1), consumes=store.inbox("w")[0])
    store.send("kept", {"n": 1}, missing="keep")
    with RedisStore.from_url(store._connected.label, namespace=f"{namespace}-copy") as target:
        copy_to(store, target)
        assert target.inbox("w") == store.inbox("w")
        assert target.inbox("kept") == store.inbox("kept")
        with pytest.raises(WorkflowCancelled):
            target.append("w", numbered(1), unless_cancelled=True)
        for number in (0, count - 1):
            assert target.send("w", {"n": 0}, message_id=f"m-{number}") == store.send(
                "w", {"n": 0}, message_id=f"m-{number}"
            )
        sent = target.send("w", {"n": "new"})
        assert target.inbox("w")[-1].id == sent
        (lease,) = target.claim("me", queues=["orders"])
        target.append("w", numbered(1), consumes=target.inbox("w"), lease=lease)
        target.append("w", numbered(1), unless_cancelled=True)
        assert verify(target).findings == []


def test_workflows_are_sound_and_can_be_copied_while_messages_come_and_go(
    valkey: RunningServer, namespace: str, few_buckets: None
) -> None:
    """In the copy, each message is in the inbox or was consumed, and not both."""
    ended = threading.Event()

    def open_store(name: str = namespace) -> RedisStore:
        return RedisStore.from_url(valkey.url(), namespace=name, partitions=1)

    def send() -> None:
        with open_store() as store:
            number = 0
            while not ended.is_set():
                store.send("w", {"n": number}, message_id=f"m-{number}")
                if number % 7 == 0:
                    store.request_cancel("w")
                number += 1
                while len(store.inbox("w")) > 20 and not ended.is_set():
                    ended.wait(0.001)

    def consume() -> None:
        with open_store() as store:
            while not ended.is_set():
                messages = store.inbox("w", wait_s=0.01)[:3]
                if messages:
                    store.append("w", [{"answers": [one.message_id for one in messages]}], consumes=messages)

    with open_store() as store, ThreadPoolExecutor(2) as pool:
        store.append("w", [{"n": 1}])
        running = [pool.submit(send), pool.submit(consume)]
        try:
            for number in range(15):
                assert verify(store).findings == []
                with open_store(f"{namespace}-{number}") as target:
                    copy_to(store, target)
                    assert verify(target).findings == []
                    answered = [name for event in target.stream("w", after=1) for name in event["answers"] if name]
                    waiting = [message.message_id for message in target.inbox("w") if message.message_id]
                    assert len(set(answered + waiting)) == len(answered + waiting)
                    known = {f"m-{one}" for one in range(len(answered + waiting))}
                    assert known == set(answered + waiting), "a message is missing"
                    target.delete_namespace()
        finally:
            ended.set()
        for one in running:
            one.result()


def run_with(store: RedisStore, operation: Operation[Any], at: int, meddle: Callable[[], None]) -> bool:
    """Run an operation; before its round trip number `at`, something else happens. Return whether it did."""
    reply: Any = None
    number = 0
    while True:
        try:
            effect = operation.send(reply)
        except StopIteration:
            return number > at
        if number == at:
            meddle()
        number += 1
        reply = store._sender.ask(effect)


def renew(store: RedisStore, send: Callable[[], None]) -> None:
    """Consume all but five messages, and send four."""
    for message in store.inbox("w")[:-5]:
        store.append("w", [{"answers": [message.message_id]}], consumes=message)
    for _ in range(4):
        send()


def check_copy(target: RedisStore) -> None:
    """Check that each message was answered or is in the inbox, and that no id of another message is known."""
    answered = [name for event in target.stream("w") for name in event["answers"] if name]
    waiting = [message.message_id for message in target.inbox("w") if message.message_id]
    assert answered + waiting == [f"m-{number}" for number in range(len(answered + waiting))]
    following = f"m-{len(answered + waiting)}"
    target.send("w", {"n": "sent again"}, message_id=following)
    assert target.inbox("w")[-1].message_id == following


@pytest.mark.parametrize("doing", ["send", "consume", "send and consume", "send, consume and cancel"])
def test_whatever_comes_between_two_readings_is_no_damage_and_no_loss(
    on_valkey: RedisStore,
    valkey: RunningServer,
    namespace: str,
    few_buckets: None,
    monkeypatch: pytest.MonkeyPatch,
    doing: str,
) -> None:
    monkeypatch.setattr("runic_redis.admin.inbox_check._AT_ONCE", 3)
    monkeypatch.setattr("runic_redis.admin.message_records._MESSAGES", 3)
    numbers = itertools.count()

    def send() -> None:
        number = next(numbers)
        on_valkey.send("w", {"n": number}, message_id=f"m-{number}")

    def meddle() -> None:
        if "send" in doing:
            send()
        if "consume" in doing:
            first = on_valkey.inbox("w")[0]
            on_valkey.append("w", [{"answers": [first.message_id]}], consumes=first)
        if "cancel" in doing:
            on_valkey.request_cancel("w")

    on_valkey.delete("w")
    on_valkey.append("w", [{"answers": []}], queue="orders", due=math.inf)
    for at in range(30):
        renew(on_valkey, send)
        records: list[Any] = []
        exporter = Exporter(on_valkey.context, ["w"])
        came = run_with(on_valkey, exporter.run(records.append), at, meddle)
        assert exporter.problems == []
        with RedisStore.from_url(valkey.url(), namespace=f"{namespace}-{at}", partitions=1) as target:
            importer = Importer(target.context)
            for record in records:
                target.run(importer.take(record), "import")
            check_copy(target)
        check = WorkflowCheck(without_classes(on_valkey.context), "w", facts_too=False, queues=["orders"])

        def verify_it(check: WorkflowCheck = check) -> Operation[None]:
            while commands := check.commands(1_000_000):
                check.receive((yield Batch(commands)), commands)

        came = run_with(on_valkey, verify_it(), at, meddle) or came
        assert check.findings == []
        if not came:
            break
    assert 3 < at < 29, "all round trips were met"


def test_an_archive_with_a_damaged_message_is_not_imported(store: RedisStore, namespace: str) -> None:
    store.append("w", numbered(1))
    store.send("w", {"n": 1}, message_id="m")
    records: list[Any] = []
    store.run(Exporter(store.context).run(records.append), "export")
    damaged: dict[str, Any] = {
        "inbox": [["x", [b"h", b"p"]]],
        "message_ids": [[b"m", b"x"]],
    }
    for kind, parts in damaged.items():
        with RedisStore.from_url(store._connected.label, namespace=f"{namespace}-{kind}") as target:
            importer = Importer(target.context)
            for record in records:
                target.run(importer.take([kind, parts] if record[0] == kind else record), "import")
            assert len(importer.problems) == 1
            assert not target.exists("w")


def test_an_export_reports_lost_messages(on_valkey: RedisStore, client: redis.Redis, few_buckets: None) -> None:
    on_valkey.send("w", {"n": 1}, message_id="m")
    for kind in ("inbox", "messages"):
        key = getattr(on_valkey.context.keys.workflow("w"), kind)
        saved = client.dump(key)
        client.delete(key)
        exporter = Exporter(on_valkey.context)
        on_valkey.run(exporter.run(lambda _: None), "export")
        assert len(exporter.problems) == 1
        assert "lost" in exporter.problems[0]
        client.restore(key, 0, saved)
