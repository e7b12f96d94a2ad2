"""Timers: workflows that sleep."""

from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import pytest

from runic_redis import InvalidArgument
from runic_redis.testing.base import Contract
from runic_redis.testing.examples import numbered
from runic_redis.testing.leases import MOMENT_S

# Longer than a test takes.
LONG_S = 1000.0


class TimerContract(Contract):
    """`sleep`, `timer`, and `ends_timer` of `append`."""

    def test_a_workflow_that_sleeps_is_claimed_after_it(self, store: Any) -> None:
        store.append("w", numbered(1), queue="q")
        (lease,) = store.claim("me", queues=["q"])
        assert store.timer("w") is None
        store.sleep(lease, MOMENT_S, "remind me")
        (lease,) = store.claim("you", queues=["q"], wait_s=30)
        timer = store.timer("w")
        assert timer.name == "remind me"
        assert timer.left_s <= 0
        assert store.append("w", numbered(1), lease=lease) == 2, "a commit by itself ends no timer"
        assert store.timer("w")[:2] == timer[:2]
        assert store.append("w", numbered(1), lease=lease, ends_timer=True) == 3
        assert store.timer("w") is None

    def test_a_timer_tells_how_much_is_left(self, store: Any) -> None:
        store.append("w", numbered(1))
        store.sleep(store.acquire("w", "me"), LONG_S)
        timer = store.timer("w")
        assert timer.name == ""
        assert LONG_S - 100 < timer.left_s <= LONG_S
        assert abs(timer.until - datetime.now(UTC) - timedelta(seconds=LONG_S)) < timedelta(seconds=100)
        assert store.claim("you") == []

    def test_a_workflow_sleeps_until_a_time(self, store: Any) -> None:
        store.append("w", numbered(1))
        until = datetime(2999, 12, 31, 23, 59, 59, 123_000, UTC)
        store.sleep(store.acquire("w", "me"), until)
        assert store.timer("w").until == until
        store.sleep(store.acquire("w", "me"), datetime(1999, 1, 1, tzinfo=UTC), "past")
        assert store.timer("w").left_s < 0
        assert [lease.workflow_id for lease in store.claim("you")] == ["w"]

    def test_a_message_wakes_and_the_timer_goes_on(self, store: Any) -> None:
        store.append("w", numbered(1))
        store.sleep(store.acquire("w", "me"), LONG_S, "remind")
        until = store.timer("w").until
        store.send("w", {"hello": 1})
        (lease,) = store.claim("you")
        timer = store.timer("w")
        assert (timer.name, timer.until) == ("remind", until)
        store.sleep(lease, timer.until, "remind")
        assert store.timer("w").until == until
        assert store.claim("you") == []

    def test_a_workflow_waits_until_a_message_wakes_it(self, store: Any) -> None:
        store.append("w", numbered(1))
        store.sleep(store.acquire("w", "me"), None, "an answer")
        assert store.timer("w") == ("an answer", None, inf)
        assert store.claim("you") == []
        store.send("w", {"hello": 1})
        assert [lease.workflow_id for lease in store.claim("you")] == ["w"]

    def test_a_message_that_comes_before_the_sleep_wakes_at_once(self, store: Any) -> None:
        store.append("w", numbered(1))
        lease = store.acquire("w", "me")
        store.send("w", {"hello": 1})
        store.sleep(lease, LONG_S)
        assert [lease.workflow_id for lease in store.claim("you")] == ["w"]
        assert store.timer("w").left_s > LONG_S / 2

    def test_a_sleep_is_progress(self, store: Any) -> None:
        store.append("w", numbered(1), queue="q")
        for _ in range(3):
            (lease,) = store.claim("me", queues=["q"], max_attempts=1)
            assert lease.attempt == 1
            store.sleep(lease, 0)

    def test_a_workflow_has_one_timer_and_none_when_it_is_completed(self, store: Any) -> None:
        store.append("w", numbered(1))
        store.sleep(store.acquire("w", "me"), LONG_S, "one")
        store.sleep(store.acquire("w", "me"), LONG_S, "another")
        assert store.timer("w").name == "another"
        store.complete("w")
        assert store.timer("w") is None

    def test_an_outdated_lease_cannot_sleep(self, store: Any) -> None:
        store.append("w", numbered(1), queue="q")
        (lease,) = store.claim("me", queues=["q"])
        store.release(lease)
        store.sleep(lease, LONG_S)
        assert store.timer("w") is None
        assert [one.workflow_id for one in store.claim("you", queues=["q"])] == ["w"]

    @pytest.mark.parametrize(
        ("until", "name"),
        [(-1, ""), ("soon", ""), (True, ""), (datetime(2030, 1, 1), ""), (1, "x" * 129), (1, "a\nb"), (1, None)],
    )
    def test_a_bad_time_or_name_changes_nothing(self, store: Any, until: Any, name: Any) -> None:
        store.append("w", numbered(1))
        lease = store.acquire("w", "me")
        with pytest.raises(InvalidArgument):
            store.sleep(lease, until, name)
        assert store.timer("w") is None
        store.renew(lease)

    def test_a_workflow_that_is_not_there_has_no_timer(self, store: Any) -> None:
        assert store.timer("none") is None
