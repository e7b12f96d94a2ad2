"""Tracking records, and the details of a commit."""

from functools import partial
from typing import Any

import pytest

from runic_redis import (
    Append,
    Appended,
    ConfigurationError,
    Fact,
    FactRef,
    GroupRejected,
    InvalidArgument,
    Tracking,
    TrackingConflict,
)
from runic_redis.testing.base import Contract, Elsewhere, raised_error
from runic_redis.testing.examples import numbered


def _first_workflow(store: Any) -> str:
    """Return a workflow that can be written together with tracking records, in a cluster too."""
    for number in range(1000):
        try:
            store.append_all([Append(f"w-{number}", [])], tracking=Tracking("made", number))
        except InvalidArgument:
            continue
        return f"w-{number}"
    raise AssertionError("no workflow is in the first partition")


def _process(store: Any, workflow_id: str, last: int) -> int:
    """Store the result of each position that has none. Return how many were stored."""
    stored = 0
    while (position := (store.tracking("orders") or 0) + 1) <= last:
        try:
            store.append_all([Append(workflow_id, [{"of": position}])], tracking=Tracking("orders", position))
            stored += 1
        except TrackingConflict:
            continue
    return stored


class TrackingContract(Contract):
    """`append_all` with `tracking`, and `tracking`."""

    def test_a_source_that_was_not_processed_has_no_position(self, store: Any) -> None:
        assert store.tracking("orders") is None
        store.append("orders", numbered(1))
        assert store.tracking("orders") is None

    def test_a_position_is_stored_with_the_results(self, store: Any) -> None:
        workflow_id = _first_workflow(store)
        assert store.append_all([Append(workflow_id, numbered(2))], tracking=Tracking("orders", 3)) == [2]
        assert store.append_all([], tracking=Tracking("orders", 4)) == []
        assert store.append_all([], tracking=Tracking("payments é", 0)) == []
        assert (store.tracking("orders"), store.tracking("payments é")) == (4, 0)
        assert list(store.stream(workflow_id)) == numbered(2)

    def test_a_position_that_is_not_above_stores_nothing(self, store: Any) -> None:
        workflow_id = _first_workflow(store)
        store.append_all([], tracking=Tracking("orders", 4))
        for position in (0, 3, 4):
            call = partial(store.append_all, [Append(workflow_id, numbered(1))], tracking=Tracking("orders", position))
            error = raised_error(position, call, TrackingConflict)
            assert (error.name, error.stored, error.given) == ("orders", 4, position)
        assert (store.tracking("orders"), store.exists(workflow_id)) == (4, False)

    def test_a_rejected_commit_stores_no_position(self, store: Any) -> None:
        rejected = Append(_first_workflow(store), numbered(1), expected_cursor=3)
        raised_error(rejected, partial(store.append_all, [rejected], tracking=Tracking("orders", 1)), GroupRejected)
        assert store.tracking("orders") is None

    def test_bad_records_change_nothing(self, store: Any) -> None:
        for bad in (5, ("orders", 5), Tracking("", 5), Tracking("orders", -1), Tracking("orders", 2**53)):
            raised_error(bad, partial(store.append_all, [], tracking=bad), InvalidArgument)
        for name in ("", "x" * 513, 5, "\ud800"):
            raised_error(name, partial(store.tracking, name), InvalidArgument)
        assert store.tracking("orders") is None

    def test_of_many_processes_one_stores_each_result(self, elsewhere: Elsewhere, store: Any) -> None:
        workflow_id = _first_workflow(store)
        assert sum(elsewhere(_process, *[(workflow_id, 20)] * 3)) == 20
        assert [event["of"] for event in store.stream(workflow_id)] == list(range(1, 21))
        assert store.tracking("orders") == 20


class DetailContract(Contract):
    """`append` and `append_all` with `details`."""

    def test_the_details_have_the_hashes_of_the_facts(self, store: Any) -> None:
        known = store.put_fact("known")
        events = [{"f": Fact("one")}, {"g": [Fact("two"), FactRef(known)], "h": Fact("one")}]
        found = store.append("w", events, details=True)
        assert type(found) is Appended
        assert found[:2] == (2, (store.put_fact("one"), store.put_fact("two")))
        assert store.append("w", numbered(1), details=True)[:2] == (3, ())
        assert store.append("w", numbered(1)) == 4
        group = [Append("a{1}", [{"f": Fact("three")}]), Append("b{1}", numbered(1))]
        assert [one[:2] for one in store.append_all(group, details=True)] == [(1, (store.put_fact("three"),)), (1, ())]
        assert store.append_all([], details=True) == []

    def test_the_details_have_the_position(self, store: Any) -> None:
        found = store.append("w", numbered(3), details=True)
        if found.position is None:
            with pytest.raises(ConfigurationError):
                list(store.feed())
            return
        group = [Append("a{1}", numbered(2), commit_id="c"), Append("b{1}", [], expected_cursor=0)]
        both = store.append_all(group, details=True)
        assert both[1] == (0, (), None)
        positions = {(one.workflow_id, one.cursor): one.position for one in store.feed()}
        assert positions == {("w", 3): found.position, ("a{1}", 2): both[0].position}
        assert store.append_all(group, details=True) == both
        assert store.append("a{1}", [], details=True) == (2, (), None)

    def test_a_commit_that_is_found_again_has_the_same_position(self, store: Any) -> None:
        given: dict[str, Any] = {"metadata": {"by": "us"}, "tags": ["a", "b"], "commit_id": "c"}
        found = store.append("w", numbered(2), details=True, **given)
        store.append("w", numbered(1))
        assert store.append("w", numbered(2), details=True, **given) == found
        assert store.append("w", numbered(1), commit_id="d") == 4
        # It was stored without details.
        assert store.append("w", numbered(1), commit_id="d", details=True) == (4, (), None)
        assert [one.metadata for one in store.stream_records("w")] == [{"by": "us"}] * 2 + [None] * 2
        assert [one.tag for one in store.find("w", prefix="")] == ["a", "b"]
