"""The clock that tests set is the clock that stores see."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from runic_redis import AsyncRedisStore, RedisStore
from tests.clocks import ClockProxy, shifted
from tests.servers import RunningServer, running, valkey_program

HOUR_S = 3600.0
# Longer than a test takes.
NEAR_S = 900.0


def commit_time_s(store: RedisStore) -> float:
    """Return the server's time as scripts see it."""
    store.append("w", [{}])
    *_, record = store.stream_records("w")
    return record.time.timestamp()


@pytest.fixture(params=["valkey", "redis_6_2", "memory"])
def server(request: pytest.FixtureRequest) -> RunningServer | str:
    return "memory://clocks" if request.param == "memory" else request.getfixturevalue(request.param)


def test_steps_move_the_time_of_scripts(server: RunningServer | str, namespace: str) -> None:
    with shifted(server) as clock, RedisStore.from_url(clock.url, namespace=namespace) as store:
        before_s = commit_time_s(store)
        clock.step(HOUR_S)
        assert commit_time_s(store) - before_s == pytest.approx(HOUR_S, abs=NEAR_S)
        clock.step(-3 * HOUR_S)
        assert commit_time_s(store) - before_s == pytest.approx(-2 * HOUR_S, abs=NEAR_S)


def test_the_time_command_is_shifted_exactly(valkey: RunningServer) -> None:
    with shifted(valkey) as clock, redis.Redis.from_url(clock.url) as client, valkey.client() as direct:
        clock.step(-0.75)
        first, shown, last = direct.time(), client.time(), direct.time()
        assert first <= (shown[0] + (shown[1] + 750_000) // 1_000_000, (shown[1] + 750_000) % 1_000_000) <= last


def test_a_store_for_asyncio_sees_it_too(valkey: RunningServer, namespace: str) -> None:
    async def commit_times_s(step: Callable[[float], None], url: str) -> list[float]:
        async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
            await store.append("w", [{}])
            step(HOUR_S)
            await store.append("w", [{}])
            return [record.time.timestamp() async for record in store.stream_records("w")]

    with shifted(valkey) as clock:
        first_s, second_s = asyncio.run(commit_times_s(clock.step, clock.url))
    assert second_s - first_s == pytest.approx(HOUR_S, abs=NEAR_S)


def test_a_server_that_takes_over_may_have_another_clock(tmp_path: Path, valkey: RunningServer, namespace: str) -> None:
    with (
        running(valkey_program(), tmp_path) as other,
        shifted(valkey) as clock,
        RedisStore.from_url(clock.url, namespace=namespace) as store,
    ):
        assert isinstance(clock, ClockProxy)
        before_s = commit_time_s(store)
        clock.switch_to(other, HOUR_S)
        assert commit_time_s(store) - before_s == pytest.approx(HOUR_S, abs=NEAR_S)
        with other.client() as direct:
            assert direct.dbsize() > 0
