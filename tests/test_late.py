"""The network of the tests that delivers first tries after their retries."""

import asyncio

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from runic_redis import AsyncRedisStore, RedisStore
from tests.late import late
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
        # (It logs in like the client, whose database is not the first.)
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
