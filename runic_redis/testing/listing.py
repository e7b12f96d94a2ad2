"""Finding workflows: by state, queue, due time, last write, attribute and parent."""

from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import pytest

from runic_redis import Append, GroupRejected, InvalidArgument, InvalidType, LeaseLost
from runic_redis.testing.base import Contract, raised_error
from runic_redis.testing.examples import numbered

_STATES = ("open", "waiting", "leased", "parked", "completed")


def _found(store: Any, **filters: Any) -> list[str]:
    """Return what a listing finds, in order, and check that the count is the same."""
    found = list(store.list(**filters))
    assert store.count(**filters) == len(found)
    return found


class ListingContract(Contract):
    """The filters of `list` and `count`, attributes, and `children`."""

    def test_each_workflow_is_found_in_its_state_only(self, store: Any) -> None:
        store.append("open", numbered(1))
        for name in ("waiting", "leased", "parked", "completed"):
            store.append(name, numbered(1), queue=name)
        (lease,) = store.claim("me", queues=["leased"])
        store.park("parked", "the card was declined")
        store.complete("completed")
        for state in _STATES:
            assert _found(store, state=state) == [state]
        assert store.count() == 5
        store.release(lease)
        assert _found(store, state="leased") == []
        assert set(_found(store, state="waiting")) == {"leased", "waiting"}
        store.unpark("parked")
        assert _found(store, state="parked") == []
        store.delete("completed")
        assert _found(store, state="completed") == []
        assert len(_found(store)) == 4

    def test_workflows_of_a_queue_come_by_when_they_are_due(self, store: Any) -> None:
        for name, due in (("third", 3600), ("first", None), ("second", 60), ("never", inf)):
            store.append(name, numbered(1), queue="orders", due=due)
        store.append("other", numbered(1), queue="others")
        order = ["first", "second", "third", "never"]
        assert _found(store, queue="orders") == order
        assert _found(store, queue="orders", state="waiting") == order
        assert list(store.list(queue="orders", limit=2)) == order[:2]
        assert set(_found(store, state="waiting")) == {*order, "other"}
        assert _found(store, queue="nothing") == []
        (lease,) = store.claim("me", queues=["orders"], ttl=600)
        assert _found(store, queue="orders") == ["second", "first", "third", "never"]
        assert _found(store, queue="orders", state="leased") == ["first"]
        assert _found(store, queue="orders", state="waiting") == ["second", "third", "never"]
        store.park(lease, "not now")
        assert _found(store, queue="orders", state="parked") == ["first"]
        assert _found(store, queue="others", state="parked") == []

    def test_workflows_are_found_by_when_they_are_due(self, store: Any) -> None:
        now = datetime.now(UTC)
        for name, due in (("old", now - timedelta(hours=2)), ("soon", now + timedelta(hours=1)), ("never", inf)):
            store.append(name, numbered(1), queue="orders", due=due, attributes={"kind": "due"})
        store.append("now", numbered(1), queue="others")
        store.append("open", numbered(1), attributes={"kind": "due"})
        later = now + timedelta(hours=2)
        assert _found(store, due=now - timedelta(hours=1)) == ["old"]
        assert _found(store, due=later) == ["old", "now", "soon"]
        assert _found(store, due=later, queue="orders") == ["old", "soon"]
        assert set(_found(store, due=later, attributes={"kind": "due"})) == {"old", "soon"}
        store.claim("me", queues=["others"], ttl=600)
        assert _found(store, due=later, state="leased") == ["now"]
        assert _found(store, due=later, state="waiting") == ["old", "soon"]

    def test_workflows_are_found_by_their_last_write(self, store: Any) -> None:
        for number in range(5):
            store.append(f"w-{number}", numbered(1), queue="orders" if number % 2 else None)
        since = next(store.stream_records("w-3")).time
        before = next(store.stream_records("w-0")).time - timedelta(seconds=1)
        assert _found(store, since=before) == ["w-4", "w-3", "w-2", "w-1", "w-0"]
        assert {"w-4", "w-3"} <= set(_found(store, since=since))
        assert _found(store, until=before) == []
        assert set(_found(store, until=datetime.now(UTC) + timedelta(hours=1), queue="orders")) == {"w-1", "w-3"}
        assert _found(store, since=datetime.now(UTC) + timedelta(hours=1), queue="orders") == []

    def test_the_last_parked_and_the_last_completed_come_first(self, store: Any) -> None:
        for number in (3, 1, 2):
            store.append(f"w-{number}", numbered(1), queue="orders")
        for number in (1, 2, 3):
            store.park(f"w-{number}", "not now")
            _tick(store)
        assert _found(store, state="parked") == ["w-3", "w-2", "w-1"]
        for number in (2, 3, 1):
            store.complete(f"w-{number}")
            _tick(store)
        assert _found(store, state="completed") == ["w-1", "w-3", "w-2"]

    def test_open_workflows_are_found_among_many_others(self, store: Any) -> None:
        store.append("open-1", numbered(1))
        for number in range(60):
            store.append(f"queued-{number}", numbered(1), queue="orders")
        store.append("open-2", numbered(1))
        assert _found(store, state="open") == ["open-2", "open-1"]
        assert list(store.list(state="open", limit=1)) == ["open-2"]
        assert _found(store, state="open", prefix="open-1") == ["open-1"]

    def test_a_workflow_is_found_by_its_attributes(self, store: Any) -> None:
        store.append("w-1", numbered(1), attributes={"customer": "7", "country": "se"})
        store.append("w-2", numbered(1), attributes={"customer": "7"})
        store.append("w-3", numbered(1), attributes={"customer": "8", "country": "se"})
        assert set(_found(store, attributes={"customer": "7"})) == {"w-1", "w-2"}
        assert _found(store, attributes={"customer": "7", "country": "se"}) == ["w-1"]
        assert _found(store, attributes={"customer": "9"}) == []
        assert _found(store, attributes={"customer": "7"}, prefix="w-2") == ["w-2"]

    def test_any_commit_changes_attributes_and_keeps_the_others(self, store: Any) -> None:
        store.append("w", numbered(1))
        store.append("w", numbered(1), attributes={"customer": "7", "country": "se"})
        store.append("w", numbered(1), attributes={"customer": "8"})
        store.append("w", numbered(1))
        assert _found(store, attributes={"customer": "7"}) == []
        assert _found(store, attributes={"customer": "8", "country": "se"}) == ["w"]
        store.append("w", numbered(1), attributes={"country": None, "nothing": None})
        assert _found(store, attributes={"country": "se"}) == []
        assert _found(store, attributes={"customer": "8"}) == ["w"]

    def test_attributes_may_hold_any_text(self, store: Any) -> None:
        texts = {"a": "", "b": "a=b c:d{e}", "c": "ünïcödé-✓", "parent": "%20 \n\x00", "queue": "x" * 256}
        store.append("w", numbered(1), attributes=texts)
        for name, value in texts.items():
            assert _found(store, attributes={name: value}) == ["w"]
        store.append("w", numbered(1), attributes=dict.fromkeys(texts, "other"))
        for name, value in texts.items():
            assert _found(store, attributes={name: value}) == []
        assert list(store.children(texts["parent"])) == []
        store.delete("w")
        assert _found(store, attributes={"a": "other"}) == []

    def test_attributes_of_a_rejected_commit_are_not_stored(self, store: Any) -> None:
        lease = store.acquire("w", "me")
        store.release(lease)
        with pytest.raises(LeaseLost):
            store.append("w", numbered(1), lease=lease, attributes={"customer": "7"})
        assert _found(store, attributes={"customer": "7"}) == []

    def test_a_workflow_has_at_most_sixteen_attributes(self, store: Any) -> None:
        store.append("w", numbered(1), attributes={f"name_{number}": "x" for number in range(16)})
        error = raised_error(
            "17 attributes",
            lambda: store.append("w", numbered(1), attributes={"more": "x"}),
            InvalidArgument,
        )
        assert "16 attributes" in str(error)
        assert store.cursor("w") == 1
        store.append("w", numbered(1), attributes={"more": "x", "name_3": None})
        assert _found(store, attributes={"more": "x"}) == ["w"]

    def test_a_deleted_workflow_is_found_nowhere(self, store: Any) -> None:
        for _ in range(2):
            store.append("w", numbered(1), queue="orders", attributes={"customer": "7"}, parent="order-1")
            assert _found(store, attributes={"customer": "7"}) == list(store.children("order-1")) == ["w"]
            store.delete("w")
            assert _found(store, attributes={"customer": "7"}) == list(store.children("order-1")) == []
            assert _found(store, queue="orders") == []
        store.append("w", numbered(1))
        assert _found(store, attributes={"customer": "7"}) == list(store.children("order-1")) == []

    def test_an_expired_workflow_is_not_listed_and_not_counted(self, store: Any) -> None:
        for number in range(4):
            store.append(f"w-{number}", numbered(1), queue="orders", attributes={"customer": "7"}, parent="p")
        for number in (1, 2):
            store.complete(f"w-{number}")
            store.expire(f"w-{number}", 0)
        # The end must be reached by both clocks, in whole milliseconds.
        _tick(store)
        assert set(_found(store, attributes={"customer": "7"})) == {"w-0", "w-3"}
        assert store.count(state="completed") == 0
        assert list(store.children("p")) == ["w-0", "w-3"]

    def test_children_are_listed_in_order_of_creation(self, store: Any) -> None:
        store.append("order-1", numbered(1))
        ids = [f"parcel-{number}" for number in range(40)]
        for workflow_id in ids:
            store.append(workflow_id, numbered(1), expected_cursor=0, parent="order-1")
        store.append("parcel-7", numbered(1))
        children = list(store.children("order-1"))
        assert set(children) == set(ids)
        assert len(children) == 40
        assert list(store.children("order-2")) == []

    def test_a_parent_is_set_by_the_first_commit_only(self, store: Any) -> None:
        store.append("child", numbered(1))
        error = raised_error(
            "a late parent", lambda: store.append("child", numbered(1), parent="order-1"), InvalidArgument
        )
        assert "first commit" in str(error)
        assert store.cursor("child") == 1
        assert list(store.children("order-1")) == []
        store.append("other", numbered(1), parent="order-1", commit_id="start")
        assert store.append("other", numbered(1), parent="order-1", commit_id="start") == 1
        assert list(store.children("order-1")) == ["other"]

    def test_a_group_starts_children(self, store: Any) -> None:
        store.append("order-{1}", numbered(1), attributes={"state": "placed"})
        group = [
            Append("order-{1}", numbered(1), expected_cursor=1, attributes={"state": "packed"}),
            Append("parcel-{1}", numbered(1), parent="order-{1}", queue="parcels", attributes={"size": "s"}),
        ]
        assert store.append_all(group) == [2, 1]
        assert _found(store, attributes={"state": "packed"}) == ["order-{1}"]
        assert _found(store, attributes={"state": "placed"}) == []
        assert list(store.children("order-{1}")) == _found(store, attributes={"size": "s"}) == ["parcel-{1}"]
        late = [Append("order-{1}", numbered(1)), Append("parcel-{1}", numbered(1), parent="order-{2}")]
        error = raised_error(late, lambda: store.append_all(late), GroupRejected)
        assert isinstance(error.__cause__, InvalidArgument)
        assert store.cursor("order-{1}") == 2

    def test_a_listing_is_limited_within_its_filters(self, store: Any) -> None:
        for number in range(80):
            store.append(f"w-{number}", numbered(1), queue="orders", attributes={"even": str(number % 2)})
        for limit in (0, 1, 7, 39, 40, 100):
            assert len(list(store.list(attributes={"even": "0"}, limit=limit))) == min(limit, 40)
            assert len(list(store.list(attributes={"even": "0"}, state="waiting", limit=limit))) == min(limit, 40)
            assert len(list(store.list(queue="orders", prefix="w-1", limit=limit))) == min(limit, 11)

    @pytest.mark.parametrize(
        ("filters", "kind"),
        [
            ({"state": "asleep"}, InvalidArgument),
            ({"state": ["open"]}, InvalidArgument),
            ({"queue": "with space"}, InvalidArgument),
            ({"queue": 7}, InvalidType),
            ({"queue": "orders", "state": "open"}, InvalidArgument),
            ({"due": 3.0}, InvalidType),
            ({"due": datetime(2026, 1, 1)}, InvalidArgument),
            ({"due": datetime.now(UTC), "state": "completed"}, InvalidArgument),
            ({"since": "yesterday"}, InvalidType),
            ({"until": datetime(2026, 1, 1)}, InvalidArgument),
            ({"attributes": {"no name": "x"}}, InvalidArgument),
            ({"attributes": {"name": None}}, InvalidType),
            ({"attributes": ["name"]}, InvalidType),
        ],
    )
    def test_a_filter_that_means_nothing_is_rejected(
        self, store: Any, filters: dict[str, Any], kind: type[Exception]
    ) -> None:
        raised_error(filters, lambda: list(store.list(**filters)), kind)
        raised_error(filters, lambda: store.count(**filters), kind)

    @pytest.mark.parametrize(
        ("options", "kind"),
        [
            ({"attributes": {"no name": "x"}}, InvalidArgument),
            ({"attributes": {"x" * 65: "x"}}, InvalidArgument),
            ({"attributes": {"name": "x" * 257}}, InvalidArgument),
            ({"attributes": {"name": 7}}, InvalidType),
            ({"attributes": {"name": "\ud800"}}, InvalidArgument),
            ({"attributes": {f"n{number}": "x" for number in range(17)}}, InvalidArgument),
            ({"attributes": "name"}, InvalidType),
            ({"parent": ""}, InvalidArgument),
            ({"parent": 7}, InvalidType),
        ],
    )
    def test_labels_that_cannot_be_stored_are_rejected(
        self, store: Any, options: dict[str, Any], kind: type[Exception]
    ) -> None:
        raised_error(options, lambda: store.append("w", numbered(1), **options), kind)
        assert not store.exists("w")


def _tick(store: Any) -> None:
    """Let a millisecond pass on the server's clock. A round trip may take less."""
    for _ in range(2):
        time = store.append("clock", numbered(1)) and _last_time(store)
        while _last_time(store) == time:
            store.append("clock", numbered(1))


def _last_time(store: Any) -> datetime:
    (last,) = list(store.stream_records("clock", after=store.cursor("clock") - 1))
    time: datetime = last.time
    return time
