"""Tags: commits that are found by them."""

from typing import Any

import pytest

from runic_redis import Append, CursorConflict, Fact, GroupRejected, InvalidArgument
from runic_redis.testing.base import Contract
from runic_redis.testing.examples import numbered
from runic_redis.testing.leases import MOMENT_S, until


def found(store: Any, **query: Any) -> list[tuple[str, int]]:
    """Return the tags and cursors of the commits that a query finds."""
    return [(commit.tag, commit.cursor) for commit in store.find("w", **query)]


class TagContract(Contract):
    """`tags` of `append`, and `find`."""

    def test_a_commit_is_found_by_its_tag_with_its_events(self, store: Any) -> None:
        store.append("w", numbered(2), tags=["step/1", "first"], metadata={"by": "me"})
        store.append("w", numbered(1))
        store.append("w", [{"value": Fact("of a fact")}], tags=["step/2"])
        (commit,) = store.find("w", tag="first")
        assert (commit.tag, commit.cursor, commit.events) == ("first", 2, numbered(2))
        assert commit.metadata == {"by": "me"}
        assert commit.time == next(iter(store.stream_records("w"))).time
        (commit,) = store.find("w", tag="step/2")
        assert store.load_fact(commit.events[0]["value"].hash) == "of a fact"
        assert commit.metadata is None

    def test_commits_are_in_the_order_of_their_tags_and_cursors(self, store: Any) -> None:
        for tags in (["b", "ü"], ["a", "ab"], ["b"], ["a"]):
            store.append("w", numbered(1), tags=tags)
        everything = [("a", 2), ("a", 4), ("ab", 2), ("b", 1), ("b", 3), ("ü", 1)]
        assert found(store, prefix="") == everything
        assert found(store, prefix="", reverse=True) == everything[::-1]
        assert found(store, prefix="a") == [("a", 2), ("a", 4), ("ab", 2)]
        assert found(store, tag="a") == [("a", 2), ("a", 4)]
        assert found(store, tag="a", reverse=True, limit=1) == [("a", 4)]
        assert found(store, prefix="", limit=2) == everything[:2]
        assert found(store, prefix="", limit=0) == []

    def test_a_tag_that_no_commit_has_finds_nothing(self, store: Any) -> None:
        assert store.find("nobody", tag="a") == store.find("nobody", prefix="") == []
        store.append("w", numbered(1), tags=["step/1"])
        assert found(store, tag="step/") == found(store, tag="step") == found(store, prefix="step/2") == []

    def test_a_rejected_commit_has_no_tag(self, store: Any) -> None:
        store.append("w", numbered(1), tags=["a"])
        with pytest.raises(CursorConflict):
            store.append("w", numbered(1), expected_cursor=0, tags=["b"])
        assert found(store, prefix="") == [("a", 1)]

    def test_a_commit_that_is_repeated_has_its_tags_once(self, store: Any) -> None:
        for _ in range(3):
            assert store.append("w", numbered(1), commit_id="mine", tags=["a", "b", "a"]) == 1
        assert found(store, prefix="") == [("a", 1), ("b", 1)]

    def test_the_tags_of_a_group_are_stored_together(self, store: Any) -> None:
        with pytest.raises(GroupRejected):
            store.append_all(
                [
                    Append("w-{1}", numbered(1), tags=["a"]),
                    Append("v-{1}", numbered(1), expected_cursor=7, tags=["a"]),
                ]
            )
        assert store.find("w-{1}", tag="a") == []
        store.append_all([Append(name, numbered(1), tags=["a"]) for name in ("w-{1}", "v-{1}")])
        assert [store.find(name, tag="a")[0].cursor for name in ("w-{1}", "v-{1}")] == [1, 1]

    def test_a_large_commit_is_found_whole(self, store: Any) -> None:
        events = [{"n": number, "data": bytes([number % 256]) * 1024 + b"%d" % number} for number in range(1500)]
        assert store.append("w", events, tags=["large"]) == 1500
        (commit,) = store.find("w", tag="large")
        assert (commit.cursor, commit.events) == (1500, events)

    def test_a_trim_removes_the_tags_of_what_it_trims(self, store: Any) -> None:
        for number in range(4):
            store.append("w", numbered(2), tags=[f"n/{number}", "all"])
        store.save_snapshot("w", 6, b"state")
        assert store.trim("w") == 6
        assert found(store, prefix="") == [("all", 8), ("n/3", 8)]
        store.append("w", numbered(1), tags=["n/0"], snapshot=b"state")
        assert store.trim("w") == 9
        assert found(store, prefix="") == []

    def test_a_deleted_workflow_has_no_tags(self, store: Any) -> None:
        store.append("w", numbered(1), tags=["a"])
        store.delete("w")
        assert found(store, tag="a") == []
        store.append("w", numbered(3), tags=["b"])
        assert found(store, prefix="") == [("b", 3)]

    def test_an_expired_workflow_has_no_tags(self, store: Any) -> None:
        store.append("w", numbered(1), tags=["a"])
        store.complete("w")
        store.expire("w", MOMENT_S)
        until(lambda: found(store, tag="a") == [])

    @pytest.mark.parametrize("tags", [[""], ["a\0b"], ["x" * 131], ["ü" * 66], "text", [7], [None], ["a", "\ud800"]])
    def test_bad_tags_change_nothing(self, store: Any, tags: Any) -> None:
        with pytest.raises(InvalidArgument):
            store.append("w", numbered(1), tags=tags)
        assert not store.exists("w")

    def test_a_query_is_for_a_tag_or_a_prefix(self, store: Any) -> None:
        for query in ({}, {"tag": "a", "prefix": "a"}, {"tag": 7}, {"prefix": "a", "limit": -1}):
            with pytest.raises(InvalidArgument):
                store.find("w", **query)

    def test_fact_hashes_are_those_of_stored_facts(self, store: Any) -> None:
        for value in (None, 1, 1.0, "text", {"b": 1, "a": [2]}, {"a": [2], "b": 1}):
            assert store.fact_hash(value) == store.put_fact(value)
