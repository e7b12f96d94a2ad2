"""Tags: a tag finds its commit from the moment the commit is acknowledged until the commit is trimmed or deleted."""

import os
from collections.abc import Callable
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from runic_redis import Append, CursorConflict, DecodeError, GroupRejected, InvalidArgument, InvalidType, RedisStore
from tests.faults import make_faulty
from tests.servers import RunningServer

TAGS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
# Few letters, so that tags are beginnings of others.
ALIKE = st.text("ab/", min_size=1, max_size=3)


def found(store: RedisStore, **query: Any) -> list[tuple[str, int]]:
    return [(commit.tag, commit.cursor) for commit in store.find("w", **query)]


def test_a_commit_is_found_with_its_events(store: RedisStore) -> None:
    store.append("w", [{"n": 1}, {"n": 2}], tags=["step/1", "first"], metadata={"by": "me"})
    store.append("w", [{"n": 3}])
    store.append("w", [{"n": 4}], tags=["step/2"])
    (commit,) = store.find("w", tag="first")
    assert (commit.tag, commit.cursor, commit.events, commit.metadata) == (
        *("first", 2, [{"n": 1}, {"n": 2}]),
        {"by": "me"},
    )
    assert commit.time == next(store.stream_records("w")).time
    assert found(store, prefix="step/") == [("step/1", 2), ("step/2", 4)]
    assert found(store, prefix="step/", reverse=True, limit=1) == [("step/2", 4)]
    assert found(store, tag="step/") == found(store, prefix="other") == []
    assert store.find("no such workflow", tag="first") == []
    assert [event["n"] for event in store.stream("w")] == [1, 2, 3, 4]


def test_a_large_commit_is_found_whole(store: RedisStore) -> None:
    events = [{"data": os.urandom(400_000)} for _ in range(9)]
    store.append("w", [{"n": 1}], tags=["small"])
    store.append("w", events, tags=["large"], metadata={"by": "me"})
    (commit,) = store.find("w", tag="large")
    assert (commit.events, commit.cursor, commit.metadata) == (events, 10, {"by": "me"})
    # More bytes than one call returns.
    assert found(store, prefix="") == [("large", 10), ("small", 1)]


def test_a_rejected_commit_leaves_no_tag(store: RedisStore) -> None:
    store.append("w", [{"n": 1}])
    with pytest.raises(CursorConflict):
        store.append("w", [{"n": 2}], expected_cursor=0, tags=["a"])
    with pytest.raises(GroupRejected):
        store.append_all([Append("w", [{"n": 2}], tags=["a"]), Append("v", [{"n": 2}], expected_cursor=7)])
    assert found(store, prefix="") == []
    store.append_all([Append("w", [{"n": 2}], tags=["a"]), Append("v", [{"n": 2}], tags=("a", "b"))])
    assert found(store, prefix="") == [("a", 2)]
    assert [commit.tag for commit in store.find("v", prefix="")] == ["a", "b"]


@pytest.mark.parametrize(
    ("tags", "error"),
    [
        ("text", InvalidType),
        (b"bytes", InvalidType),
        ({"a": 1}, InvalidType),
        ([1], InvalidType),
        (7, InvalidType),
        ([""], InvalidArgument),
        (["a\0b"], InvalidArgument),
        (["x" * 131], InvalidArgument),
        (["\ud800"], InvalidArgument),
        ([str(number) for number in range(1001)], InvalidArgument),
    ],
)
def test_bad_tags_are_rejected_before_anything_is_sent(store: RedisStore, tags: Any, error: type[Exception]) -> None:
    for call in (
        lambda: store.append("w", [{"n": 1}], tags=tags),
        lambda: store.append_all([Append("w", [{"n": 1}], tags=tags)]),
    ):
        with pytest.raises(error):
            call()
    assert not store.exists("w")


@pytest.mark.parametrize("query", [{}, {"tag": "a", "prefix": "a"}, {"tag": "a\0"}, {"prefix": 7}, {"limit": -1}])
def test_a_bad_query_is_rejected(store: RedisStore, query: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        store.find("w", **query)


def test_tags_need_events(store: RedisStore) -> None:
    with pytest.raises(InvalidArgument, match="with events only"):
        store.append("w", [], tags=["a"])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(TAGS | ALIKE, max_size=4), min_size=1, max_size=12), st.integers(0, 12), st.data())
def test_find_is_a_filter_over_the_commits(valkey: RunningServer, commits: Any, keep: int, data: st.DataObject) -> None:
    """Before and after a trim."""
    with RedisStore.from_url(valkey.url(), namespace=f"tags-{os.urandom(6).hex()}", partitions=1) as store:
        model: list[tuple[bytes, int]] = []
        for cursor, tags in enumerate(commits, 1):
            store.append("w", [{"n": cursor}], tags=tags)
            model += [(tag.encode(), cursor) for tag in set(tags)]
        store.save_snapshot("w", len(commits), b"")
        for is_trimmed in (False, True):
            trimmed = store.trim("w", keep=keep) if is_trimmed else 0
            left = sorted(one for one in model if one[1] > trimmed)
            limit = data.draw(st.none() | st.integers(0, 5))
            reverse = data.draw(st.booleans())
            for tag in {tag for tag, _ in model} | {b"a"}:
                exact = [one for one in left if one[0] == tag]
                starting = [one for one in left if one[0].startswith(tag)]
                for query, matching in (({"tag": tag.decode()}, exact), ({"prefix": tag.decode()}, starting)):
                    expected = [(name.decode(), cursor) for name, cursor in matching]
                    result = found(store, **query, reverse=reverse, limit=limit)
                    assert result == (expected[::-1] if reverse else expected)[:limit]


def test_many_commits_are_found_in_pages(store: RedisStore) -> None:
    for _ in range(700):
        store.append("w", [{"n": 1}], tags=["all"])
    assert [cursor for _, cursor in found(store, tag="all")] == list(range(1, 701))
    assert [cursor for _, cursor in found(store, tag="all", reverse=True, limit=300)] == list(range(700, 400, -1))


def test_a_trim_removes_tags_in_bounded_steps(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        for number in range(1000):
            store.append("w", [{"n": number}], tags=[f"n/{number:04}", "all"])
        store.save_snapshot("w", 1000, b"")
        faulty = make_faulty(store)
        assert store.trim("w", keep=10) == 990
        # The server may ask for the script first.
        assert len(faulty.rounds) in {4, 5}
        assert [cursor for _, cursor in found(store, tag="all")] == list(range(991, 1001))
        with valkey.client() as client:
            keys = store.context.keys.workflow("w")
            assert client.zcard(keys.tags) == int(client.hget(keys.meta, "tags")) == 20
        store.delete("w")
        with valkey.client() as client:
            assert not client.exists(keys.tags)
        assert found(store, tag="all") == []


def test_a_commit_of_several_entries_is_trimmed_whole(valkey: RunningServer, namespace: str) -> None:
    """Even if it has more entries than one call trims."""
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        store.append("w", [{"data": os.urandom(700_000)} for _ in range(4)], tags=["large"])
        store.append("w", [{"n": 1}], tags=["small"])
        store.save_snapshot("w", 5, b"")
        assert store.trim("w") == 5
        assert found(store, prefix="") == []


DAMAGE: dict[str, Callable[[redis.Redis, Any], Any]] = {
    "a lost tag": lambda client, keys: client.zrem(keys.tags, b"a\0" + b"1".rjust(16, b"0")),
    "a lost set of tags": lambda client, keys: client.delete(keys.tags),
    "a lost entry": lambda client, keys: client.xdel(keys.events, client.xrange(keys.events)[0][0]),
    "a damaged count": lambda client, keys: client.hset(keys.meta, "tags", "x"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_lost_tags_are_noticed(valkey: RunningServer, namespace: str, name: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store, valkey.client() as client:
        store.append("w", [{"n": 1}], tags=["a", "b"])
        DAMAGE[name](client, store.context.keys.workflow("w"))
        with pytest.raises(DecodeError):
            store.find("w", prefix="")


@pytest.mark.parametrize("fault", ["reply", "request"])
def test_a_retry_writes_each_tag_once(valkey: RunningServer, namespace: str, fault: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        store.append("w", [{"n": 0}])
        faulty = make_faulty(store)
        faulty.faults = [fault]
        assert store.append("w", [{"n": 1}], tags=["a"]) == 2
        assert found(store, tag="a") == [("a", 2)]
