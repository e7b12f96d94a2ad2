"""Lifetimes: workflows that end by themselves."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from runic_redis import CursorConflict, InvalidArgument, InvalidType, LeaseLost, SnapshotNotFound, WorkflowNotFound
from runic_redis.testing.base import Contract, raised_error
from runic_redis.testing.examples import numbered
from runic_redis.testing.leases import MOMENT_S, until

# Longer than a test takes, and shorter than the time that it waits.
SHORT_S = 0.2


class LifetimeContract(Contract):
    """`expire`, `persist`, and `expires_in` of `append`."""

    def test_what_expires_leaves_nothing_behind(self, store: Any) -> None:
        store.append("w", numbered(2), commit_id="c", snapshot=b"two")
        store.save("w", numbered(1))
        store.append("stays", numbered(1))
        store.expire("w", 1000)
        assert (store.exists("w"), store.cursor("w"), sorted(store.list())) == (True, 2, ["stays", "w"])
        store.expire("w", MOMENT_S)
        until(lambda: not store.exists("w"))
        assert list(store.list()) == ["stays"]
        assert store.cursor("w") == 0
        with pytest.raises(SnapshotNotFound):
            store.load_snapshot("w")
        with pytest.raises(WorkflowNotFound):
            store.load("w")
        assert store.append("w", numbered(3), commit_id="c") == 3, "the commit ids of the old workflow are unknown"

    @pytest.mark.parametrize("state", ["open", "queued", "leased", "parked", "completed"])
    def test_a_workflow_in_any_state_expires(self, store: Any, state: str) -> None:
        store.append("w", numbered(1), queue=None if state == "open" else "default")
        if state == "leased":
            store.acquire("w", "me")
        elif state == "parked":
            store.park("w", "declined")
        elif state == "completed":
            store.complete("w")
        store.expire("w", MOMENT_S)
        until(lambda: not store.exists("w"))
        assert list(store.list()) == []
        assert store.claim("you") == []

    def test_a_lease_of_what_has_expired_is_lost(self, store: Any) -> None:
        store.append("w", numbered(1))
        lease = store.acquire("w", "me")
        store.expire("w", MOMENT_S)
        until(lambda: not store.exists("w"))
        writes: list[Callable[[], Any]] = [
            lambda: store.append("w", numbered(1), lease=lease),
            lambda: store.save("w", numbered(1), lease=lease),
            lambda: store.save_snapshot("w", 0, b"", lease=lease),
            lambda: store.renew(lease),
        ]
        for write in writes:
            with pytest.raises(LeaseLost):
                write()
        assert not store.exists("w")

    def test_what_is_written_to_one_that_expires_expires_with_it(self, store: Any) -> None:
        store.append("w", numbered(1))
        store.expire("w", 0.05)
        store.save_snapshot("w", 1, b"one")
        store.save("w", numbered(1))
        store.append("w", numbered(1), commit_id="c")
        until(lambda: not store.exists("w"))
        with pytest.raises(SnapshotNotFound):
            store.load_snapshot("w")
        with pytest.raises(WorkflowNotFound):
            store.load("w")

    @pytest.mark.parametrize("end", ["expired", "deleted"])
    def test_a_workflow_that_is_made_again_is_still_listed(self, store: Any, end: str) -> None:
        store.append("w", numbered(1))
        store.expire("w", MOMENT_S if end == "expired" else 0.02)
        if end == "deleted":
            store.delete("w")
        until(lambda: not store.exists("w"))
        store.append("w", numbered(1))
        store.append("other", numbered(1), expires_in=0.04)
        until(lambda: not store.exists("other"))
        assert list(store.list()) == ["w"]

    def test_persist_removes_an_end(self, store: Any) -> None:
        store.append_many([("a", numbered(1)), ("b", numbered(1))])
        for sliding in (False, True):
            store.expire("a", SHORT_S, sliding=sliding)
            store.persist("a")
            store.persist("a")
            store.expire("b", SHORT_S)
            until(lambda: not store.exists("b"))
            assert list(store.list()) == ["a"]
            store.append("b", numbered(1))

    def test_a_commit_gives_a_lifetime(self, store: Any) -> None:
        assert store.append("w", numbered(2), expires_in=MOMENT_S, expected_cursor=0) == 2
        until(lambda: not store.exists("w"))
        assert store.append("w", numbered(1), expires_in=1000, expected_cursor=0) == 1
        assert store.exists("w")

    def test_a_commit_that_is_rejected_or_known_gives_none(self, store: Any) -> None:
        store.append("w", numbered(1), commit_id="c")
        with pytest.raises(CursorConflict):
            store.append("w", numbered(1), expires_in=MOMENT_S, expected_cursor=5)
        assert store.append("w", numbered(1), expires_in=MOMENT_S, commit_id="c") == 1
        store.append("other", numbered(1), expires_in=MOMENT_S)
        until(lambda: not store.exists("other"))
        assert store.exists("w")

    def test_writes_extend_a_lifetime_that_slides(self, store: Any) -> None:
        store.append("sliding", numbered(1))
        store.expire("sliding", 1000, sliding=True)
        store.append("w", numbered(1), expires_in=MOMENT_S)
        until(lambda: not store.exists("w"))
        store.expire("sliding", SHORT_S, sliding=True)
        # Each of the others lives as long as this one would without a write.
        for number in range(4):
            store.append("w", numbered(1), expires_in=SHORT_S / 2)
            until(lambda: not store.exists("w"))
            if store.append("sliding", numbered(1)) != number + 2:
                # The machine was too slow for the time that is left after half of it.
                return
        until(lambda: not store.exists("sliding"))
        assert list(store.list()) == []

    def test_there_must_be_a_workflow_with_a_lifetime(self, store: Any) -> None:
        with pytest.raises(WorkflowNotFound):
            store.expire("w", 1)
        with pytest.raises(WorkflowNotFound):
            store.expire("w", 1, sliding=True)
        with pytest.raises(WorkflowNotFound):
            store.persist("w")
        assert list(store.list()) == []

    def test_a_bad_lifetime_is_refused(self, store: Any) -> None:
        store.append("w", numbered(1))
        values: dict[str, Any] = {"negative": -1, "infinite": float("inf"), "no number": float("nan")}
        for given, value in values.items():
            raised_error(given, partial(store.expire, "w", value), InvalidArgument)
            raised_error(given, partial(store.expire, "w", value, sliding=True), InvalidArgument)
            raised_error(given, partial(store.append, "w", numbered(1), expires_in=value), InvalidArgument)
        raised_error("text", lambda: store.expire("w", "1"), InvalidType)
        raised_error("no events", lambda: store.append("w", [], expires_in=1), InvalidArgument)
        assert store.cursor("w") == 1
