"""Guarantee 4: a commit whose reply was lost is never stored twice and never lost.

Every case runs on fakeredis and on Valkey, with the losses at exactly chosen points.
"""

import os
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from runic_redis import CursorConflict, RedisStore, StoreUnavailable
from runic_redis.operations.appending import append_call
from runic_redis.protocol.effects import Batch, Command
from runic_redis.testing.examples import OrderPlaced, numbered
from tests.faults import FaultyServer, make_faulty
from tests.servers import RunningServer


@pytest.fixture
def faulty(store: RedisStore) -> FaultyServer:
    """The server behind `store`; the namespace is made, and no fault lies before the first append."""
    store.append("other", numbered(1))
    return make_faulty(store)


@pytest.fixture
def other(opener: Callable[[], RedisStore]) -> Any:
    """A second client, whose connections are good."""
    with opener() as store:
        yield store


LOSSES = [["reply"], ["request"], ["reply", "reply", "reply"], ["request", "reply", "request"], ["late", "reply"]]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"expected_cursor": 2},
    {"commit_id": "c"},
    {"expected_cursor": 2, "commit_id": "c"},
]
COMMITS = [numbered(1), numbered(3), [{"n": n, "text": "x" * 100_000} for n in range(30)]]


@pytest.mark.parametrize("losses", LOSSES, ids=" ".join)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("commit", COMMITS, ids=["one", "three", "split"])
def test_a_commit_is_stored_once_whatever_is_lost(
    store: RedisStore, faulty: FaultyServer, losses: list[str], options: dict[str, Any], commit: list[Any]
) -> None:
    store.append("order-1", numbered(2))
    faulty.faults = [*losses]
    assert store.append("order-1", commit, **options) == 2 + len(commit)
    assert list(store.stream("order-1")) == [*numbered(2), *commit]
    faulty.deliver_late()
    assert list(store.stream("order-1")) == [*numbered(2), *commit]
    assert store.append("order-1", numbered(1)) == 3 + len(commit)


@pytest.mark.parametrize("loss", ["reply", "request", "late"])
@pytest.mark.parametrize("others", [1, 15, 16, 17, 100])
def test_a_commit_is_found_behind_those_of_others(
    store: RedisStore, other: RedisStore, faulty: FaultyServer, loss: str, others: int
) -> None:
    def meddle() -> None:
        for _ in range(others):
            other.append("order-1", [{"by": "other"}])

    store.append("order-1", numbered(2))
    faulty.faults = [loss]
    faulty.after_loss = meddle
    cursor = store.append("order-1", [OrderPlaced("mine")] * 2)
    assert cursor == (4 if loss == "reply" else 4 + others)
    faulty.deliver_late()
    streamed = list(other.stream("order-1"))
    assert streamed.count(OrderPlaced("mine")) == 2
    assert streamed[cursor - 2 : cursor] == [OrderPlaced("mine")] * 2
    assert len(streamed) == 4 + others


def test_of_writers_who_expect_a_cursor_the_one_whose_reply_was_lost_may_have_won(
    store: RedisStore, other: RedisStore, faulty: FaultyServer
) -> None:
    def conflict() -> None:
        with pytest.raises(CursorConflict):
            other.append("order-1", [{"by": "other"}], expected_cursor=0)

    faulty.faults = ["reply"]
    faulty.after_loss = conflict
    assert store.append("order-1", numbered(2), expected_cursor=0) == 2
    assert list(store.stream("order-1")) == numbered(2)


def test_of_writers_who_expect_a_cursor_the_one_whose_request_was_lost_may_have_lost(
    store: RedisStore, other: RedisStore, faulty: FaultyServer
) -> None:
    def win() -> None:
        # The same number of events, so that the retry looks at this very commit.
        other.append("order-1", [{"by": "other"}] * 2, expected_cursor=0)

    faulty.faults = ["late"]
    faulty.after_loss = win
    with pytest.raises(CursorConflict) as caught:
        store.append("order-1", numbered(2), expected_cursor=0)
    assert caught.value.actual == 2
    faulty.deliver_late()
    assert list(store.stream("order-1")) == [{"by": "other"}] * 2


def test_a_first_try_that_arrives_after_its_retry_is_not_stored_again(
    store: RedisStore, other: RedisStore, faulty: FaultyServer
) -> None:
    for number in range(1, 6):
        faulty.faults = ["late"]
        assert store.append("order-1", numbered(1, number)) == 2 * number - 1
        other.append("order-1", [{"by": "other"}])
    assert faulty.deliver_late() == [[1], [3], [5], [7], [9]], "each is answered with the cursor that its retry had"
    assert len(list(store.stream("order-1"))) == 10


@pytest.mark.parametrize("options", [{}, {"expected_cursor": 2}], ids=str)
@pytest.mark.parametrize("loss", ["reply", "request"])
def test_a_commit_that_may_have_been_trimmed_is_not_stored_again(
    store: RedisStore, other: RedisStore, faulty: FaultyServer, loss: str, options: dict[str, Any]
) -> None:
    def trim() -> None:
        other.append("order-1", [{"by": "other"}] * 2)
        other.save_snapshot("order-1", other.cursor("order-1"), b"all")
        other.trim("order-1")

    store.append("order-1", numbered(2))
    faulty.faults = [loss]
    faulty.after_loss = trim
    with pytest.raises(StoreUnavailable, match="not known"):
        store.append("order-1", numbered(2), **options)
    assert store.cursor("order-1") == (6 if loss == "reply" else 4)


def test_a_trim_before_the_first_try_does_not_disturb_a_retry(store: RedisStore, faulty: FaultyServer) -> None:
    for number in range(1, 4):
        store.append("order-1", numbered(1, number))
    store.save_snapshot("order-1", 3, b"all")
    store.trim("order-1")
    for loss, cursor in (("reply", 4), ("request", 5)):
        faulty.faults = [loss]
        assert store.append("order-1", numbered(1, cursor)) == cursor
    assert list(store.stream("order-1", after=3)) == numbered(2, 4)


def test_of_many_appends_each_is_stored_once(store: RedisStore, faulty: FaultyServer) -> None:
    items = [(f"order-{number}", numbered(number + 1)) for number in range(8)]
    for losses in (["reply"], ["request"], ["first"], ["first", "reply"], ["late"], ["first", "late", "request"]):
        before = [store.cursor(workflow_id) for workflow_id, _ in items]
        faulty.faults = [*losses]
        cursors = store.append_many(items)
        faulty.deliver_late()
        assert cursors == [had + len(events) for had, (_, events) in zip(before, items, strict=True)]
        assert [store.cursor(workflow_id) for workflow_id, _ in items] == cursors


def test_commits_to_one_workflow_keep_their_order_through_losses(store: RedisStore, faulty: FaultyServer) -> None:
    faulty.faults = ["request", None, "reply", "late"]
    items = [("order-1", numbered(1, number)) for number in range(1, 5)]
    assert store.append_many(items) == [1, 2, 3, 4]
    faulty.deliver_late()
    assert list(store.stream("order-1")) == numbered(4)


def test_a_caller_who_gave_up_may_ask_again_by_commit_id(opener: Callable[[], RedisStore], store: RedisStore) -> None:
    store.append("other", numbered(1))
    faulty = make_faulty(store, deadline_s=0.0)
    for number, loss in enumerate(["reply", "request", "late"]):
        commit_id = f"commit-{number}"
        faulty.faults = [loss]
        with pytest.raises(StoreUnavailable, match="safe to retry"):
            store.append("order-1", numbered(1, number + 1), commit_id=commit_id)
        assert store.append("order-1", numbered(1, number + 1), commit_id=commit_id) == number + 1
        faulty.deliver_late()
    with opener() as reader:
        assert list(reader.stream("order-1")) == numbered(3)


@pytest.mark.parametrize("loss", ["reply", "request", "late"])
def test_a_delete_that_is_asked_again_spares_the_workflow_made_since(
    store: RedisStore, other: RedisStore, faulty: FaultyServer, loss: str
) -> None:
    store.append("order-1", numbered(3))

    def recreate() -> None:
        other.delete("order-1")
        other.append("order-1", [{"new": True}])

    faulty.faults = [None, loss]
    faulty.after_loss = recreate
    store.delete("order-1")
    faulty.deliver_late()
    assert list(store.stream("order-1")) == [{"new": True}]


@pytest.mark.parametrize("loss", ["reply", "request", "late"])
def test_the_other_writes_may_be_carried_out_twice(store: RedisStore, faulty: FaultyServer, loss: str) -> None:
    store.append("order-1", numbered(3))
    for write in (
        lambda: store.save_snapshot("order-1", 2, b"two"),
        lambda: store.save("order-1", numbered(2)),
        lambda: store.save_fact("h", "value"),
        lambda: store.trim("order-1"),
        lambda: store.delete("nobody"),
    ):
        faulty.faults = [loss]
        write()
        faulty.deliver_late()
    assert store.load_snapshot("order-1") == (2, b"two")
    assert store.load("order-1") == numbered(2)
    assert store.load_fact("h") == "value"
    assert list(store.stream("order-1", after=0)) == numbered(3), "the one commit is covered in part"


def test_a_late_first_try_does_not_undo_what_was_saved_since(store: RedisStore, faulty: FaultyServer) -> None:
    store.append("order-1", numbered(2))
    faulty.faults = ["late"]
    store.save("order-1", numbered(1))
    store.save("order-1", numbered(2))
    faulty.faults = ["late"]
    store.save_snapshot("order-1", 1, b"one")
    store.save_snapshot("order-1", 1, b"one, and later")
    faulty.deliver_late()
    assert store.load("order-1") == numbered(2)
    assert store.load_snapshot("order-1") == (1, b"one, and later")


def test_what_retries_leave_behind_does_not_grow_with_later_commits(store: RedisStore, faulty: FaultyServer) -> None:
    faulty.faults = ["request"]
    for number in range(1, 30):
        store.append("order-1", numbered(1, number))
    keys = store.context.keys.workflow("order-1")
    (commits, left) = store._sender.ask(
        Batch([Command(("EXISTS", keys.commits), keys.commits), Command(("HKEYS", keys.partition), keys.partition)])
    )
    assert commits == 0
    assert len([field for field in left if field.startswith(b"c") or field.isdigit()]) == 2


def test_a_retry_on_a_server_that_is_full_finds_its_commit(valkey: Any, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store, valkey.client() as client:
        store.append("order-1", numbered(1))
        faulty = make_faulty(store)
        faulty.faults = ["reply"]
        faulty.after_loss = lambda: client.config_set("maxmemory", 1)
        try:
            # The script only reads before it finds the commit.
            assert store.append("order-1", numbered(1, 2)) == 2
        finally:
            client.config_set("maxmemory", 0)
        assert store.cursor("order-1") == 2


def test_many_writers_on_bad_connections_lose_nothing_and_double_nothing(opener: Callable[[], RedisStore]) -> None:
    writers, commits = 4, 60

    def write(writer: int) -> list[tuple[int, int]]:
        chance = random.Random(writer)
        with opener() as store:
            store.append("setup", numbered(1))
            faulty = make_faulty(store)
            acknowledged = []
            for number in range(commits):
                faulty.faults = [chance.choice([None, None, "reply", "request", "late"]) for _ in range(3)]
                size = chance.randrange(1, 4)
                cursor = store.append("order-1", [OrderPlaced(f"w{writer}", number)] * size)
                acknowledged.append((cursor, size))
                faulty.faults = []
                if chance.random() < 0.3:
                    faulty.deliver_late()
            faulty.deliver_late()
            return acknowledged

    with ThreadPoolExecutor(writers) as pool:
        acknowledged = list(pool.map(write, range(writers)))
    with opener() as store:
        streamed = list(store.stream("order-1"))
    expected: Counter[tuple[str, int]] = Counter()
    for writer, commits_of_one in enumerate(acknowledged):
        for number, (cursor, size) in enumerate(commits_of_one):
            expected[f"w{writer}", number] = size
            assert streamed[cursor - size : cursor] == [OrderPlaced(f"w{writer}", number)] * size
    assert Counter((event.customer, event.quantity) for event in streamed) == expected


def test_what_other_retries_have_looked_through_makes_none_unsure(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        for workflow_id in ("w", "v"):
            for _ in range(5):
                store.append(workflow_id, [{"b": os.urandom(900_000)}])
        context = store.context
        near = append_call(context, "w", [{"n": 1}], {})
        far = [replace(append_call(context, workflow_id, [{"n": 2}], {}), tried="1") for workflow_id in ("v", "w")]
        retries = [replace(command, args=command.as_retry()) for command in (near, *far)]
        # Those of one workflow look at 1 and 5 entries, and the other between them at 5: 8 MiB are looked through.
        replies = store._sender.ask(Batch(retries))
        assert [int(reply.partition(b"-")[0]) for reply in replies] == [6, 6, 7]


def test_a_store_that_reads_old_events_still_knows_the_last_one(store: RedisStore) -> None:
    for number in range(20):
        store.append("w", numbered(1, number))
    last = store.context.seen["w"]
    assert len(list(store.stream("w", until=12))) == 12
    next(store.stream("w"))
    next(store.stream("w", reverse=True, until=12))
    assert store.context.seen["w"] == last
    store.context.seen.clear()
    assert len(list(store.stream("w"))) == 20
    assert store.context.seen["w"] == last
