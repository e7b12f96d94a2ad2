"""Guarantee 16: consumers that die, are replaced, or whose server fails lose no commit and get none twice.

The time of the server is set by the test, see tests/clocks.py. A consumer whose `ttl` is longer than a test sends no
beat by itself, as one that has died.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runic_redis import (
    AsyncRedisStore,
    CommitsLost,
    ConfigurationError,
    DurabilityError,
    FeedTrimmed,
    InvalidArgument,
    InvalidType,
    LeaseLost,
    RedisStore,
    StoreError,
    replicated,
)
from runic_redis.operations.shares import read_lease
from runic_redis.operations.sharing import Leases
from runic_redis.operations.subscriptions import lowest_places, make_settings
from runic_redis.protocol.refusals import ask
from runic_redis.subscriptions import Subscription
from tests.clocks import Clock, shifted
from tests.faults import make_faulty
from tests.portal import open_store
from tests.servers import RunningServer

TTL_S = 600.0
PARTITIONS = 4

pytestmark = pytest.mark.usefixtures("few_buckets")


class Setting:
    """A namespace with a feed, on a server whose clock the test sets, and stores of one face."""

    def __init__(self, clock: Clock, namespace: str, face: str) -> None:
        self.clock = clock
        self._options = (face, clock.url, namespace)
        self._stores: list[Any] = []
        self._subscriptions: list[Any] = []
        self.store = self.open()

    def open(self) -> Any:
        """Return another store."""
        store = open_store(*self._options, partitions=PARTITIONS, feed=True)
        self._stores.append(store)
        return store

    def subscribe(self, **options: Any) -> Any:
        """Return another consumer, with a store of its own."""
        subscription = self.open().subscribe("mailer", **{"ttl": TTL_S, "wait_s": 0, **options})
        self._subscriptions.append(subscription)
        return subscription

    def close(self) -> None:
        for subscription in self._subscriptions:
            with suppress(LeaseLost):
                subscription.close()
        for store in self._stores:
            store.close()


@pytest.fixture(params=["memory-sync", "memory-asyncio", "valkey-sync", "valkey-asyncio"])
def setting(request: pytest.FixtureRequest, namespace: str) -> Iterator[Setting]:
    backend, face = request.param.split("-")
    server = f"memory://{namespace}" if backend == "memory" else request.getfixturevalue("valkey")
    with shifted(server) as clock:
        setting = Setting(clock, namespace, face)
        try:
            yield setting
        finally:
            setting.close()


@pytest.fixture
def fed(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=PARTITIONS, feed=True) as store:
        yield store


def append(store: Any, *numbers: int, workflow_id: str = "a") -> None:
    for number in numbers:
        store.append(workflow_id, [{"n": number}])


def numbers(commits: Any) -> list[int]:
    return [commit.events[0]["n"] for commit in commits]


# Consumers that die or are replaced


def test_the_partitions_of_a_dead_consumer_move_when_its_leases_have_ended(setting: Setting) -> None:
    append(setting.store, 1, 2, 3)
    dead = setting.subscribe()
    dead.ack(next(dead))
    assert numbers(dead) == [2, 3]
    other = setting.subscribe()
    assert other.partitions == []
    assert list(other) == []
    setting.clock.step(TTL_S + 1)
    heir = setting.subscribe()
    # The other one has not sent a beat either, so it is dead, too.
    assert len(heir.partitions) == PARTITIONS
    assert numbers(heir) == [2, 3]


def test_an_acknowledgement_of_a_replaced_consumer_is_rejected(setting: Setting) -> None:
    append(setting.store, 1, 2, 3)
    replaced = setting.subscribe()
    first = next(replaced)
    setting.clock.step(TTL_S + 1)
    heir = setting.subscribe()
    with pytest.raises(LeaseLost, match=f"the consumer {heir.consumer_id} has it now") as caught:
        replaced.ack(first)
    assert caught.value.owner == heir.consumer_id
    # It gives out nothing more of the partition.
    assert list(replaced) == []
    assert setting.store.subscriptions()[0].lag_events == 3
    assert numbers(heir) == [1, 2, 3]


def test_what_was_not_stored_of_a_batch_is_rejected_too(setting: Setting) -> None:
    append(setting.store, 1, 2, 3)
    replaced = setting.subscribe(batch=10)
    for _ in range(2):
        replaced.ack(next(replaced))
    setting.clock.step(TTL_S + 1)
    heir = setting.subscribe()
    with pytest.raises(LeaseLost):
        replaced.close()
    assert numbers(heir) == [1, 2, 3]


def test_run_goes_on_without_the_partitions_that_it_has_lost(setting: Setting) -> None:
    append(setting.store, 1, 2)
    replaced = setting.subscribe()
    seen: list[int] = []
    heirs: list[Any] = []

    def handle(commit: Any) -> None:
        seen.append(commit.events[0]["n"])
        setting.clock.step(TTL_S + 1)
        heirs.append(setting.subscribe())

    replaced.run(handle)
    assert seen == [1]
    assert numbers(heirs[0]) == [1, 2]


@pytest.mark.parametrize("step_s", [-10 * TTL_S, TTL_S + 1])
def test_a_lease_ends_also_if_the_clock_was_set_back(setting: Setting, step_s: float) -> None:
    append(setting.store, 1)
    dead = setting.subscribe()
    assert numbers(dead) == [1]
    setting.clock.step(step_s)
    heir = setting.subscribe()
    assert len(heir.partitions) == PARTITIONS
    assert numbers(heir) == [1]
    assert set(setting.store.subscriptions()[0].consumers) == {heir.consumer_id}


def test_a_commit_of_which_consumers_die_is_parked(setting: Setting) -> None:
    class Killed(BaseException):
        """Stands for the end of a process."""

    append(setting.store, 1, 2)
    append(setting.store, 3, workflow_id="b")
    calls: Counter[int] = Counter()
    done: list[int] = []

    def handle(commit: Any) -> None:
        (event,) = commit.events
        calls[event["n"]] += 1
        if event["n"] == 1:
            raise Killed
        done.append(event["n"])

    # The first death is no attempt: nobody knows which commit it was.
    for _ in range(3):
        with pytest.raises(Killed):
            setting.subscribe().run(handle, attempts=2, on_failure="park")
        setting.clock.step(TTL_S + 1)
    setting.subscribe().run(handle, attempts=2, on_failure="park")
    assert (calls, done) == ({1: 3, 3: 1}, [3])
    parked, waiting = setting.store.parked("mailer")
    assert (parked.cursor, parked.reason) == (1, "Consumers died 2 times before they acknowledged it.")
    assert (waiting.cursor, waiting.state) == (2, "waiting")


def test_an_idle_consumer_that_dies_is_no_failed_attempt(setting: Setting) -> None:
    append(setting.store, 1)
    for _ in range(3):
        idle = setting.subscribe()
        idle.run(lambda _: None)
        setting.clock.step(TTL_S + 1)
    append(setting.store, 2)
    seen: list[int] = []
    setting.subscribe().run(lambda commit: seen.append(commit.cursor), attempts=1, on_failure="park")
    assert seen == [2]
    assert setting.store.parked("mailer") == []


def test_a_consumer_that_is_closed_hands_over_at_once_and_counts_as_no_attempt(setting: Setting) -> None:
    append(setting.store, 1, 2)
    closed = setting.subscribe()
    first = next(closed)
    closed.close()
    heir = setting.subscribe()
    assert numbers(heir) == [1, 2]
    assert setting.store.subscriptions()[0].failing == {}
    with pytest.raises(LeaseLost):
        closed.ack(first)


# Leases under a simulated clock


class Member:
    """A consumer's leases, whose clock and beats are the test's."""

    def __init__(self, store: RedisStore, ttl: float) -> None:
        settings = make_settings(store.context, "subscription", "beginning", "", None)
        self.store = store
        self.now_s = 0.0
        self.leases = Leases(store.context, "mailer", settings, ttl, lambda: self.now_s)
        store.run(self.leases.open("beginning"), "test")

    def beat(self) -> None:
        """Send a beat, and release what is to be released."""
        self.store.run(self.leases.beat(), "test")

    @property
    def leaving(self) -> list[int]:
        return sorted(number for number, share in self.leases.shares.items() if share.is_leaving)


def test_a_new_consumer_leads_to_equal_shares_and_a_live_one_keeps_its_own(fed: RedisStore) -> None:
    one, two = Member(fed, 30.0), Member(fed, 30.0)
    assert (len(one.leases.shares), len(two.leases.shares)) == (4, 0)
    one.beat()
    assert len(one.leaving) == 2
    two.beat()
    assert len(two.leases.shares) == 0, "nothing is free yet"
    three = Member(fed, 30.0)
    one.beat()
    assert len(one.leaving) == 2, "two of four are the share of one in three"
    assert len(three.leases.shares) == 0


def test_each_renewal_counts_from_when_it_was_sent(fed: RedisStore) -> None:
    one = Member(fed, 30.0)
    assert {share.valid_until_s for share in one.leases.shares.values()} == {30.0}
    one.now_s = 12.0
    one.beat()
    assert {share.valid_until_s for share in one.leases.shares.values()} == {42.0}


def test_a_consumer_that_has_slept_gives_nothing_out_before_it_has_renewed_its_leases(fed: RedisStore) -> None:
    append(fed, 1, 2, 3)
    subscription = fed.subscribe("mailer", ttl=TTL_S, wait_s=0)
    consumer = subscription._consumer
    now_s = 0.0
    consumer._clock = consumer._leases._clock = lambda: now_s
    fed.run(consumer.beat(), "test")
    first = next(subscription)
    now_s = TTL_S
    assert list(subscription) == [], "another one may have the partitions"
    assert subscription.partitions == []
    fed.run(consumer.beat(), "test")
    assert numbers(subscription) == [1, 2, 3]
    with pytest.raises(LeaseLost):
        subscription.ack(first)
    subscription.close()


# Lost and late messages


@pytest.mark.parametrize("losses", [["reply"], ["request"], ["reply", "reply"], ["late", "reply"]], ids=" ".join)
def test_replies_may_be_lost_at_any_point(opener: Callable[..., RedisStore], losses: list[str]) -> None:
    with opener(partitions=1, feed=True) as store:
        append(store, *range(6))
        done: list[int] = []
        # The losses begin one round trip later each time.
        for number in range(12):
            faulty = make_faulty(store)
            faulty.faults = [*[None] * number, *losses]
            with store.subscribe("mailer", ttl=TTL_S, wait_s=0) as subscription:
                for commit in subscription:
                    done.append(commit.events[0]["n"])
                    subscription.ack(commit)
                    faulty.deliver_late()
                    break
            faulty.deliver_late()
            append(store, 6 + number)
        with store.subscribe("mailer", ttl=TTL_S, wait_s=0) as subscription:
            assert len(subscription.partitions) == 1, "no late message has leased it again"
            done += numbers(subscription)
        assert done == list(range(18))
        assert store.subscriptions()[0].failing == {}


def test_a_late_acknowledgement_changes_nothing(fed: RedisStore) -> None:
    append(fed, 1, 2, 3)
    faulty = make_faulty(fed)
    with fed.subscribe("mailer", ttl=TTL_S, wait_s=0) as subscription:
        commits = list(subscription)
        faulty.faults = ["late"]
        subscription.park(commits[0], "no")
        late = list(faulty.late)
        assert fed.drop_parked("mailer", "a") == 1
        subscription.ack(commits[2])
        before = fed.subscriptions()[0].positions
        assert faulty.deliver_late() == [1]
        assert late
        assert fed.parked("mailer") == []
        assert fed.subscriptions()[0].positions == before


def test_a_late_lease_of_a_consumer_that_has_closed_is_none(fed: RedisStore) -> None:
    member = Member(fed, TTL_S)
    (number, share), *_ = member.leases.shares.items()
    call = member.leases._lease(number, share.token)
    assert read_lease(number, fed.run(ask(call), "test"), 0.0).token == share.token
    assert fed.run(ask(member.leases._lease(number, 0)), "test")[0] == share.token, "a retry"
    other = Member(fed, TTL_S)
    with fed._connected.server._client as client:
        client.hdel(fed.context.keys.subscription("mailer", number), "owner", "until", "lease_ms")
        client.hincrby(fed.context.keys.subscription("mailer", number), "fence", 1)
    assert fed.run(ask(call), "test") is None
    other.beat()
    other.beat()
    assert number in other.leases.shares or len(other.leases.shares) == 2


def test_an_acknowledgement_has_the_durability_of_the_store(valkey: RunningServer, namespace: str) -> None:
    options: dict[str, Any] = {"namespace": namespace, "partitions": 1, "feed": True}
    with RedisStore.from_url(valkey.url(), **options) as store:
        append(store, 1)
    with RedisStore.from_url(valkey.url(), **options, durability=replicated(1), deadline_s=0.1) as store:
        subscription = store.subscribe("mailer", ttl=TTL_S, wait_s=0)
        commit = next(subscription)
        for _ in range(2):  # a retry is not confirmed either
            with pytest.raises(DurabilityError):
                subscription.ack(commit)
        assert store.subscriptions()[0].lag_events == 0


def test_a_retried_acknowledgement_is_rejected_if_its_partition_was_lost_meanwhile(
    valkey: RunningServer, namespace: str
) -> None:
    options: dict[str, Any] = {"namespace": namespace, "partitions": 1, "feed": True}
    with RedisStore.from_url(valkey.url(), **options) as store:
        append(store, 1, 2)
        key = store.context.keys.subscription("mailer", 0)
    options |= {"durability": replicated(1), "deadline_s": 0.1}

    def replace() -> None:
        with valkey.client() as client:
            client.hset(key, mapping={"owner": "other", "fence": 2**53 - 1})

    with RedisStore.from_url(valkey.url(), **options) as store:
        subscription = store.subscribe("mailer", ttl=TTL_S, wait_s=0)
        commit = next(subscription)
        with pytest.raises(DurabilityError):
            subscription.ack(commit)
        replace()
        subscription._renew()
        with pytest.raises(LeaseLost):
            subscription.ack(commit)
        subscription.ack(commit)  # it was told

    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), **options) as store:
            subscription = store.subscribe("mailer", ttl=TTL_S, wait_s=0)
            commit = await anext(subscription)
            with pytest.raises(DurabilityError):
                await subscription.ack(commit)
            replace()
            await subscription._renew()
            with pytest.raises(LeaseLost):
                await subscription.ack(commit)

    with valkey.client() as client:
        client.hdel(key, "owner", "until", "lease_ms")
        client.hset(key, "fence", 1)
    asyncio.run(main())


# A server that has lost data


def keep(fed: RedisStore, valkey: RunningServer) -> Callable[[], None]:
    """Return a function that takes the namespace back to what it is now, as a failover does."""
    with valkey.client() as client:
        pattern = "{" + fed.context.keys.namespace + "*"
        kept = {key: client.dump(key) for key in client.scan_iter(pattern)}

    def restore() -> None:
        with valkey.client() as client:
            client.delete(*client.scan_iter(pattern))
            for key, value in kept.items():
                client.restore(key, 0, value)

    return restore


def test_after_a_failover_a_consumer_goes_on_from_what_is_stored(fed: RedisStore, valkey: RunningServer) -> None:
    append(fed, 1, 2)
    with fed.subscribe("mailer", ttl=TTL_S, wait_s=0) as subscription:
        subscription.ack(next(subscription))
        restore = keep(fed, valkey)
        assert numbers(subscription) == [2]
        append(fed, 3)
        (lost,) = subscription
        restore()
        append(fed, 4, 5)
        assert numbers(subscription) == [2, 4, 5]
        with pytest.raises(LeaseLost):
            subscription.ack(lost)
        append(fed, 6)
        commits = list(subscription)
        assert numbers(commits) == [6]
        subscription.ack(commits[-1])
        assert fed.subscriptions()[0].lag_events == 0


def test_a_consumer_that_has_read_nothing_yet_goes_on_from_what_is_stored(
    fed: RedisStore, valkey: RunningServer
) -> None:
    append(fed, 1, 2)
    with fed.subscribe("mailer", ttl=TTL_S, wait_s=0) as subscription:
        subscription.ack(next(subscription))
    restore = keep(fed, valkey)
    append(fed, 3)
    with fed.subscribe("mailer", ttl=TTL_S, wait_s=0) as subscription:
        for commit in subscription:
            subscription.ack(commit)
    with fed.subscribe("mailer", ttl=TTL_S, wait_s=0) as subscription:
        restore()
        assert list(subscription) == []
        subscription._renew()
        assert numbers(subscription) == [2]


def test_a_failover_that_takes_the_lease_back_is_survived(fed: RedisStore, valkey: RunningServer) -> None:
    append(fed, 1, 2)
    restore = keep(fed, valkey)
    with fed.subscribe("mailer", ttl=TTL_S, wait_s=0) as subscription:
        subscription.ack(next(subscription))
        restore()
        (second,) = subscription
        with pytest.raises(LeaseLost, match="nobody has it now"):
            subscription.ack(second)
        fed.run(subscription._consumer.beat(), "test")
        assert numbers(subscription) == [1, 2]


def test_a_stored_position_that_the_server_does_not_have_is_an_error(fed: RedisStore) -> None:
    append(fed, 1, 2, 3)
    with fed.subscribe("mailer", ttl=TTL_S, wait_s=0) as subscription:
        last = list(subscription)[-1]
        subscription.ack(last)
    keys = fed.context.keys
    with fed._connected.server._client as client:
        client.xtrim(keys.feed(last.partition), maxlen=0)
        client.hset(keys.partition(last.partition), "position", 1)
    with pytest.raises(CommitsLost, match=r"after store\.delete_subscription"):
        list(fed.subscribe("mailer", ttl=TTL_S, wait_s=0))


def test_commits_that_were_trimmed_are_an_error_and_a_rebuild_is_the_remedy(fed: RedisStore) -> None:
    append(fed, 1, 2, 3)
    with fed.subscribe("mailer", ttl=TTL_S, wait_s=0) as subscription:
        first = next(subscription)
        subscription.ack(first)
    keys = fed.context.keys
    with fed._connected.server._client as client:
        (_, (entry_id, _), *_) = client.xrange(keys.feed(first.partition))
        client.xtrim(keys.feed(first.partition), minid=b"3")
        client.hset(keys.partition(first.partition), "feed_trimmed", entry_id)
    with (
        fed.subscribe("mailer", ttl=TTL_S, wait_s=0) as subscription,
        pytest.raises(FeedTrimmed, match="Begin again with start='rebuild'"),
    ):
        list(subscription)
    # Commits of the other partitions are not delivered again.
    append(fed, 7, workflow_id="b")
    with fed.subscribe("mailer", start="rebuild", ttl=TTL_S, wait_s=0) as subscription:
        assert sorted(numbers(subscription)) == [1, 2, 3, 7]
        assert first.partition != fed.context.keys.partition_of("b")
    with fed.subscribe("mailer", start="rebuild", ttl=TTL_S, wait_s=0) as subscription:
        subscription.ack(next(one for one in subscription if one.workflow_id == "a"))
    append(fed, 4)
    with fed.subscribe("mailer", ttl=TTL_S, wait_s=0) as subscription:
        assert [number for number in numbers(subscription) if number != 7] == [2, 3, 4]


def test_a_rebuild_can_be_parked_and_replayed(fed: RedisStore) -> None:
    append(fed, 1, 2)
    append(fed, 3, workflow_id="b")
    with fed.subscribe("mailer", start="rebuild", ttl=TTL_S, wait_s=0) as subscription:
        commit = next(one for one in subscription if one.workflow_id == "a")
        subscription.park(commit, "no")
        append(fed, 4)
        assert 2 not in numbers(subscription)
        assert [one.cursor for one in fed.parked("mailer")] == [1, 2, 3]
        assert fed.replay_parked("mailer", "a") == 1
        assert numbers(subscription) == [1, 2, 4]


def test_a_parked_commit_without_its_events_stays_parked(fed: RedisStore) -> None:
    append(fed, 1, 2)
    with fed.subscribe("mailer", ttl=TTL_S, wait_s=0) as subscription:
        subscription.park(next(subscription), "no")
        fed.save_snapshot("a", 1, b"")
        fed.trim("a")
        fed.replay_parked("mailer", "a")
        assert list(subscription) == []
        parked, waiting = fed.parked("mailer")
        assert (parked.state, waiting.state) == ("parked", "waiting")
        assert "trimmed" in parked.reason
        fed.drop_parked("mailer", "a")
        assert numbers(subscription) == [2]


# What a store does


def test_a_namespace_without_a_feed_has_no_subscriptions(store: RedisStore) -> None:
    with pytest.raises(ConfigurationError, match="no feed"):
        store.subscribe("mailer")
    assert store.subscriptions() == []
    assert not store.context.made


def test_a_subscription_begins_at_a_time(fed: RedisStore) -> None:
    append(fed, 1)
    (before,) = fed.feed()
    since = before.time + timedelta(milliseconds=1)
    while datetime.now(UTC) <= since:
        pass  # the next commit has a later time
    append(fed, 2)
    with fed.subscribe("mailer", start=since, wait_s=0) as subscription:
        assert numbers(subscription) == [2]
    with pytest.raises(InvalidArgument, match="time zone"):
        fed.subscribe("other", start=datetime(2026, 1, 1))


def test_the_lowest_places_are_those_of_the_slowest_subscription(fed: RedisStore) -> None:
    assert fed.run(lowest_places(fed.context), "test") == {}
    append(fed, 1, 2, 3)
    for name, count in (("slow", 1), ("fast", 3)):
        with fed.subscribe(name, wait_s=0) as subscription:
            for commit in list(subscription)[:count]:
                subscription.ack(commit)
    lowest = fed.run(lowest_places(fed.context), "test")
    assert sorted(place.position for place in lowest.values()) == [0, 0, 0, 1]


def test_a_deleted_namespace_takes_its_subscriptions_along(fed: RedisStore, valkey: RunningServer) -> None:
    append(fed, 1, 2)
    with fed.subscribe("mailer", wait_s=0) as subscription:
        subscription.park(next(subscription), "no")
    assert fed.memory_usage()["subscriptions"] > 0
    fed.delete_namespace()
    with valkey.client() as client:
        assert [key for key in client.scan_iter("{" + fed.context.keys.namespace + "*") if b":feed" not in key] == []


def test_a_subscription_is_not_pickled_and_says_when_its_store_is_closed(fed: RedisStore) -> None:
    subscription = fed.subscribe("mailer", wait_s=0)
    with pytest.raises(InvalidType, match="Subscribe again"):
        subscription.__reduce__()
    fed.close()
    with pytest.raises(StoreError, match="closed"):
        subscription.close()


def test_a_dropped_subscription_ends_its_thread(fed: RedisStore) -> None:
    subscription: Subscription | None = fed.subscribe("dropped", ttl=0.03, wait_s=0)
    (thread,) = [one for one in threading.enumerate() if one.name == "subscription dropped"]
    assert thread.is_alive()
    del subscription
    thread.join(30)
    assert not thread.is_alive()


def test_consumers_that_come_and_go_acknowledge_each_commit_once(valkey: RunningServer, namespace: str) -> None:
    options: dict[str, Any] = {"namespace": namespace, "partitions": 8, "feed": True}
    ids = [f"w-{number}" for number in range(12)]
    acked: dict[str, list[int]] = {workflow_id: [] for workflow_id in ids}
    total = 40 * len(ids)

    def consume(number: int) -> None:
        with RedisStore.from_url(valkey.url(), **options) as store:
            while sum(map(len, acked.values())) < total:
                # Often shorter than a pause of the machine: then leases are lost.
                with store.subscribe("mailer", ttl=0.2 + number, wait_s=0.1) as subscription:
                    for count, commit in enumerate(subscription):
                        try:
                            subscription.ack(commit)
                        except LeaseLost:
                            continue
                        acked[commit.workflow_id].append(commit.events[0]["n"])
                        if count > 30:
                            break

    with RedisStore.from_url(valkey.url(), **options) as writer, ThreadPoolExecutor(3) as pool:
        append(writer, 0, workflow_id="w-0")
        consuming = [pool.submit(consume, number) for number in range(3)]
        for number in range(40):
            for workflow_id in ids:
                if (workflow_id, number) != ("w-0", 0):
                    append(writer, number, workflow_id=workflow_id)
        for one in consuming:
            one.result()
        assert acked == {workflow_id: list(range(40)) for workflow_id in ids}
        assert writer.subscriptions()[0].lag_events == 0


# asyncio


def test_a_cancelled_step_loses_no_commit(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        options: dict[str, Any] = {"namespace": namespace, "partitions": PARTITIONS, "feed": True}
        async with AsyncRedisStore.from_url(valkey.url(), **options) as store:
            async with store.subscribe("mailer") as subscription:
                waiting = asyncio.ensure_future(anext(subscription))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
                for number in range(5):
                    await store.append("a", [{"n": number}])
                seen = []
                while len(seen) < 5:
                    try:
                        commit = await asyncio.wait_for(anext(subscription), 0.001)
                    except TimeoutError:
                        continue
                    await subscription.ack(commit)
                    seen += commit.events
                assert seen == [{"n": number} for number in range(5)]
            with pytest.raises(StopAsyncIteration):
                await anext(subscription)
            (status,) = await store.subscriptions()
            assert (status.lag_events, status.consumers) == (0, {})

    asyncio.run(main())


def test_a_subscription_of_asyncio_opens_at_its_first_step(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        options: dict[str, Any] = {"namespace": namespace, "partitions": PARTITIONS, "feed": True}
        async with AsyncRedisStore.from_url(valkey.url(), **options) as store:
            await store.append("a", [{"n": 1}])
            subscription = store.subscribe("mailer", wait_s=0)
            assert subscription.partitions == []
            assert numbers([commit async for commit in subscription]) == [1]
            assert len(subscription.partitions) == PARTITIONS
            await subscription.aclose()
            await subscription.aclose()
            assert [commit async for commit in subscription] == []

    asyncio.run(main())
