"""Heartbeats renew leases, and leaving a lease gives it back."""

import asyncio
import contextlib
import math
import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from runic_redis import AsyncRedisStore, Lease, LeaseHeld, LeaseLost, RedisStore, StoreError
from runic_redis.operations import leasing
from runic_redis.operations.claiming import Claim
from runic_redis.protocol.effects import Batch, Command
from runic_redis.testing.leases import until
from tests.clocks import Clock, shifted
from tests.servers import RunningServer

# So short that heartbeats come soon: a lease outlives it only by renewal.
SHORT_S = 0.03


def ends_ms(store: RedisStore) -> int:
    key = store.context.keys.workflow("w").meta
    (found,) = store._sender.ask(Batch([Command(("HGET", key, "lease_until"), key)]))
    return int(found)


def test_a_heartbeat_has_a_lease_last_and_leaving_gives_it_back(store: RedisStore) -> None:
    with store.acquire("w", "me", SHORT_S) as lease:
        first = ends_ms(store)
        until(lambda: ends_ms(store) > first)
        second = ends_ms(store)
        until(lambda: ends_ms(store) > second)
        store.append("w", [{"n": 1}], lease=lease)
    assert threading.active_count() == 1 or not any(thread.name == "lease w" for thread in threading.enumerate()), (
        "the heartbeat's thread has not ended"
    )
    (claimed,) = store.claim("you")
    assert claimed.token > lease.token
    with pytest.raises(LeaseLost):
        store.append("w", [{"n": 2}], lease=lease)


def test_a_claimed_lease_is_kept_up_too(store: RedisStore) -> None:
    store.release(store.acquire("w", "me"))
    (lease,) = store.claim("you", ttl=SHORT_S)
    with lease:
        first = ends_ms(store)
        until(lambda: ends_ms(store) > first)
    assert len(store.claim("me")) == 1


def test_an_error_on_the_way_out_gives_the_lease_back_too(store: RedisStore) -> None:
    with pytest.raises(RuntimeError), store.acquire("w", "me", 1000):
        raise RuntimeError
    assert len(store.claim("you")) == 1


def test_an_error_on_the_way_out_is_not_hidden_by_another(namespace: str) -> None:
    store = RedisStore.from_url(f"memory://{namespace}", namespace=namespace)
    with pytest.raises(RuntimeError), store.acquire("w", "me", 1000):
        store.close()
        raise RuntimeError
    with pytest.raises(StoreError, match="closed"):
        store.release(Lease("w", "me", 1, 1.0))


def test_a_heartbeat_ends_when_the_lease_is_lost(store: RedisStore) -> None:
    with store.acquire("w", "me", SHORT_S) as lease:
        (thread, _) = lease._beats[0]
        newer = store.acquire("w", "me", 1000)
        thread.join()
        with pytest.raises(LeaseLost):
            store.append("w", [{"n": 1}], lease=lease)
    store.append("w", [{"n": 1}], lease=newer)
    assert store.claim("you") == [], "gave back a lease that was lost"


def test_a_heartbeat_outlives_a_failure(valkey: RunningServer, namespace: str) -> None:
    with (
        RedisStore.from_url(valkey.url(), namespace=namespace) as store,
        store.acquire("w", "me", SHORT_S) as lease,
    ):
        honest = store.renew
        failed = threading.Event()

        def fail_once(which: Any) -> None:
            if not failed.is_set():
                failed.set()
                raise StoreError("for the test")
            honest(which)

        store.renew = fail_once  # type: ignore[method-assign]
        failed.wait()
        first = ends_ms(store)
        until(lambda: ends_ms(store) > first)
        del store.renew  # type: ignore[method-assign]
        store.append("w", [{"n": 1}], lease=lease)


def test_for_asyncio_a_task_keeps_the_lease_up(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace) as store:
            async with await store.acquire("w", "me", SHORT_S) as lease:
                key = store.context.keys.workflow("w").meta

                async def ends() -> int:
                    assert store._sender is not None
                    (found,) = await store._sender.ask(Batch([Command(("HGET", key, "lease_until"), key)]))
                    return int(found)

                first = await ends()
                while await ends() <= first:
                    pass
                await store.append("w", [{"n": 1}], lease=lease)
                with pytest.raises(LeaseHeld):
                    await store.acquire("w", "you")
            assert len(asyncio.all_tasks()) <= 2, "the heartbeat's task has not ended"
            (claimed,) = await store.claim("you", ttl=SHORT_S)
            with pytest.raises(RuntimeError):
                async with claimed:
                    raise RuntimeError
            (claimed,) = await store.claim("me", ttl=SHORT_S)
            async with claimed:
                beat = claimed._beats[0]
                await store.acquire("w", "me")
                await asyncio.wait([beat])
                with pytest.raises(LeaseLost):
                    await store.append("w", [{"n": 1}], lease=claimed)

    asyncio.run(main())


def test_many_of_one_partition_can_be_claimed(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        for number in range(300):
            store.release(store.acquire(f"w-{number}", "me"))
        assert len({lease.workflow_id for lease in store.claim("you", 1000)}) == 300


def test_a_claim_takes_those_that_have_been_due_for_longest(valkey: RunningServer, namespace: str) -> None:
    """One partition has most of the oldest, so that several pages of it are read; others have none that is due."""
    source, now = random.Random(1), datetime.now(UTC)
    due: dict[str, int] = {}
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=4) as store:
        for number in range(300):
            workflow_id = f"w-{number}"
            partition = store.context.keys.partition_of(workflow_id)
            ago = {0: 10_000 + number, 1: source.randrange(1, 20_000), 2: 9_000}.get(partition)
            if ago is not None:
                due[workflow_id] = ago
            at = now - timedelta(milliseconds=ago) if ago is not None else now + timedelta(hours=1)
            store.append(workflow_id, [{"n": 1}], queue="jobs", due=at)
        claimed = [lease.workflow_id for lease in store.claim("me", 90, queues=["jobs"])]
        assert [due[one] for one in claimed] == sorted(due.values(), reverse=True)[:90]
        claimed += [lease.workflow_id for lease in store.claim("me", 1000, queues=["jobs"])]
        assert sorted(claimed) == sorted(due)


SETS = ("leases", "expiring", "completed")


@pytest.fixture
def client(valkey: RunningServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


def test_entries_that_cannot_be_claimed_do_not_block_others(valkey: RunningServer, namespace: str) -> None:
    """A server that has evicted keys leaves such entries."""
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        for number in range(40):
            store.release(store.acquire(f"w-{number:02}", "me"))
        metas = [store.context.keys.workflow(f"w-{number:02}").meta for number in range(30)]
        store._sender.ask(Batch([Command(("DEL", key), key) for key in metas]))
        claimed = {lease.workflow_id for _ in range(3) for lease in store.claim("you", 100)}
        assert claimed == {f"w-{number}" for number in range(30, 40)}


def test_a_complete_workflow_has_no_entry_among_the_leases(store: RedisStore) -> None:
    lease = store.acquire("w", "me", 0.001)
    store.complete("w", lease=lease)
    store.renew(lease)
    store.append("w", [{"n": 1}], lease=lease)
    store.release(lease)
    store.release(store.acquire("w", "me"))
    key = store.context.keys.workflow("w").leases
    assert store._sender.ask(Batch([Command(("ZCARD", key), key)])) == [0]


def test_a_lease_of_a_parked_workflow_counts_once_it_is_put_back(store: RedisStore) -> None:
    store.append("w", [{"n": 1}], queue="default")
    store.park("w", "a test")
    lease = store.acquire("w", "a")
    store.unpark("w")
    assert list(store.list(state="leased")) == ["w"]
    assert (store.count(state="leased"), store.count(state="waiting")) == (1, 0)
    store.release(lease)
    assert [one.workflow_id for one in store.claim("b")] == ["w"]


@pytest.mark.parametrize("queue", ["default", "another"])
def test_a_commit_that_moves_a_workflow_extends_its_lease_there(store: RedisStore, queue: str) -> None:
    store.append("w", [{"n": 1}], queue="default")
    (lease,) = store.claim("dies", ttl=SHORT_S)
    until(lambda: store.count(state="leased") == 0)
    store.append("w", [{"n": 2}], lease=lease, queue=queue, due=math.inf)
    assert [one.workflow_id for one in store.claim("another", queues=[queue], wait_s=30)] == ["w"]


def test_a_lease_of_a_parked_workflow_that_is_over_is_extended_by_a_commit(store: RedisStore) -> None:
    store.append("w", [{"n": 1}], queue="default")
    store.park("w", "a test")
    lease = store.acquire("w", "dies", 0.5)
    until(lambda: ends_ms(store) < time.time() * 1000)
    store.unpark("w", due=math.inf)
    store.append("w", [{"n": 2}], lease=lease)
    assert list(store.list(state="leased")) == ["w"]
    assert [one.workflow_id for one in store.claim("another", wait_s=30)] == ["w"]


def test_a_deleted_workflow_leaves_no_entry_among_the_leases(store: RedisStore) -> None:
    store.acquire("w", "me")
    store.acquire("v", "me")
    for workflow_id in ("w", "v"):
        store.complete(workflow_id)
        store.expire(workflow_id, 1000)
    store.acquire("u", "me")
    for workflow_id in ("u", "v", "w"):
        store.delete(workflow_id)
    keys = [getattr(store.context.keys.workflow(which), kind) for which in "uvw" for kind in SETS]
    assert store._sender.ask(Batch([Command(("ZCARD", key), key) for key in keys])) == [0] * 9


def test_a_call_that_is_delivered_twice_gives_the_same_token(store: RedisStore) -> None:
    store.append("other", [{"n": 1}])
    call = next(leasing.acquire(store.context, "w", "me", 30.0))
    assert isinstance(call, Batch)
    (token,) = store._sender.ask(call)
    assert store._sender.ask(call) == [token]
    assert store.acquire("w", "me").token > token


def test_a_token_is_higher_than_the_last_one_though_the_clock_went_back(store: RedisStore) -> None:
    """After a failover, the new server's clock can be an hour behind."""
    ahead = store.acquire("w", "me", 1000).token + 3600 * 10**6
    key = store.context.keys.workflow("w").meta
    store._sender.ask(Batch([Command(("HSET", key, "fence", str(ahead)), key)]))
    later = store.acquire("w", "me", 1000)
    assert later.token > ahead
    assert store.append("w", [{"n": 1}], lease=later) == 1
    store.release(later)
    (claimed,) = store.claim("you")
    assert claimed.token > later.token
    with pytest.raises(LeaseLost):
        store.append("w", [{"n": 2}], lease=later)


def test_a_claim_that_finds_nothing_sends_one_command(
    valkey: RunningServer, namespace: str, client: redis.Redis
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=16) as store:
        for number in range(100):
            store.complete(f"w-{number}", lease=store.acquire(f"w-{number}", "me"))
        client.config_resetstat()
        assert store.claim("you") == []
        calls = {name: one["calls"] for name, one in client.info("commandstats").items()}
        in_the_script = {"cmdstat_time": 1, "cmdstat_hmget": 16, "cmdstat_zcard": 16}
        assert calls == {"cmdstat_evalsha": 1, "cmdstat_config|resetstat": 1, **in_the_script}


def test_a_partition_that_was_lost_and_counts_again_still_hands_out_its_workflows(
    valkey: RunningServer, namespace: str, client: redis.Redis
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        store.append("made before", [{"n": 1}])
        for name in ("a", "b"):
            store.release(store.acquire(name, "me"))
        client.delete(store.context.keys.partition(0))
        store.complete("made before", lease=store.acquire("made before", "me"))
        assert client.hget(store.context.keys.partition(0), "completed") == b"1"
        assert {lease.workflow_id for lease in store.claim("you", 10)} == {"a", "b"}


def test_a_claim_looks_through_all_leases_only_if_the_clock_was_set_back(memory_clock: Clock, namespace: str) -> None:
    with RedisStore.from_url(memory_clock.url, namespace=namespace, partitions=1) as store:
        for number in range(20):
            store.acquire(f"w-{number}", "me", ttl=1000)
        counts = []
        for step_s in (0.0, -0.5, -1.0):
            memory_clock.step(step_s)
            claim = Claim(store.context, "you", 1, queues=["default"], ttl=1.0, max_attempts=None)
            operation, replies, count = claim.look(), None, 0
            with contextlib.suppress(StopIteration):
                while True:
                    batch = operation.send(replies)
                    assert isinstance(batch, Batch)
                    replies = store._sender.ask(batch)
                    count += 1
            counts.append(count)
        # A step of half a second is within the difference that clocks of two nodes may have.
        assert counts[0] == counts[1] < counts[2]


@pytest.fixture
def memory_clock(namespace: str) -> Iterator[Clock]:
    with shifted(f"memory://{namespace}") as clock:
        yield clock
