"""The feed beside the contract: namespaces with and without one, imports, types of older programs, and failures."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from runic_redis import (
    AsyncRedisStore,
    ConfigurationError,
    CursorConflict,
    EventRegistry,
    EventsTrimmed,
    Positions,
    RedisStore,
    StoreUnavailable,
    UnknownEvent,
    UnknownEventType,
)
from runic_redis.admin.exporting import Exporter
from runic_redis.admin.importing import Importer
from runic_redis.testing.examples import OrderPlaced, append_each, numbered
from runic_redis.testing.feed import assert_no_gaps, by_workflow, read_feed
from tests.faults import make_faulty
from tests.feed_damage import positions_in, read_until_lost, run
from tests.late import late
from tests.portal import open_store
from tests.servers import RunningServer

Open = Callable[..., Any]


@pytest.fixture(params=["memory-sync", "memory-asyncio", "valkey-sync", "valkey-asyncio"])
def opened(request: pytest.FixtureRequest, namespace: str) -> Iterator[Open]:
    """Return a function that opens stores of the namespace, with any settings. They are closed at the end."""
    backend, face = request.param.split("-")
    url = f"memory://{namespace}" if backend == "memory" else request.getfixturevalue("valkey").url()
    if backend == "memory":
        request.getfixturevalue("few_buckets")
    stores: list[Any] = []

    def open_one(**options: Any) -> Any:
        stores.append(open_store(face, url, namespace, **{"partitions": 4} | options))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def open_fed(opener: Callable[..., RedisStore]) -> Callable[..., RedisStore]:
    """Return a function that opens a store of a namespace with a feed, on fakeredis and on Valkey."""
    return lambda **options: opener(feed=True, **{"partitions": 1} | options)


# Namespaces


def test_a_namespace_without_a_feed_has_none_to_read(opened: Open) -> None:
    store = opened()
    store.append("order-1", numbered(2))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"has no feed.*feed=True"):
            read_feed(store)
    keys = store.context.keys
    assert run(store, *(("EXISTS", keys.feed(number)) for number in keys.partition_numbers())) == [0] * 4
    assert run(store, ("HGET", keys.workflow("order-1").partition, "position")) == [None]
    with pytest.raises(ConfigurationError, match=r"made with feed=False, and this store asks for feed=True"):
        opened(feed=True)
    assert list(opened(feed=False).stream("order-1")) == numbered(2)


def test_a_namespace_with_a_feed_is_opened_without_the_argument(opened: Open) -> None:
    opened(feed=True).append("order-1", numbered(2))
    other = opened()
    other.append("order-1", numbered(1))
    assert [one.cursor for one in read_feed(other)] == [2, 3]
    with pytest.raises(ConfigurationError, match=r"made with feed=True, and this store asks for feed=False"):
        opened(feed=False)


WRITES: dict[str, Callable[[Any], Any]] = {
    "append": lambda store: store.append("order-1", numbered(2)),
    "append_many": lambda store: store.append_many([("order-1", numbered(2)), ("order-2", numbered(1))]),
    "acquire": lambda store: store.acquire("order-1", "worker"),
    "save": lambda store: store.save("order-1", numbered(1)),
    "save_snapshot": lambda store: store.save_snapshot("order-1", 0, b"state"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_the_first_write_to_a_namespace_made_meanwhile_takes_a_position(opened: Open, write: Any) -> None:
    # Both stores are open before there is a namespace. The other one makes it, with a feed.
    store, other = opened(), opened(feed=True)
    other.append("other", numbered(1))
    write(store)
    found = by_workflow(read_feed(other))
    assert found.keys() - {"order-2"} == {"other", "order-1"}
    assert by_workflow(read_feed(store)) == found
    assert_no_gaps(read_feed(store))


def test_the_first_read_of_a_namespace_made_meanwhile_finds_its_feed(opened: Open) -> None:
    store, other = opened(), opened(feed=True)
    other.append("order-1", numbered(2))
    assert [one.cursor for one in read_feed(store)] == [2]


def test_a_workflow_of_a_namespace_made_meanwhile_is_deleted_with_an_entry(opened: Open) -> None:
    store, other = opened(), opened(feed=True)
    other.append("order-1", numbered(2))
    store.delete("order-1")
    assert by_workflow(read_feed(other)) == {"order-1": [(0, [], True)]}


@pytest.mark.parametrize("has_feed", [True, False])
def test_a_store_follows_a_namespace_that_was_made_again_with_or_without_a_feed(opened: Open, has_feed: bool) -> None:
    store = opened()
    opened(feed=not has_feed).append("order-1", numbered(2))
    store.append("order-1", numbered(1))
    with closing(opened()) as other:
        other.delete_namespace()
    again = opened(feed=has_feed)
    again.append("order-2", numbered(1))
    # The script rejects the old settings, and the store takes the new ones.
    with pytest.raises(ConfigurationError, match=f"created again with partitions=4 and feed={has_feed}"):
        store.append("order-3", numbered(2))
    store.append("order-3", numbered(2))
    assert list(again.stream("order-3")) == numbered(2)
    if has_feed:
        assert by_workflow(read_feed(again)).keys() == {"order-2", "order-3"}
        assert read_feed(store) == read_feed(again)
    else:
        with pytest.raises(ConfigurationError):
            read_feed(store)


# Imports


def moved(store: RedisStore, workflow_id: str, commits: list[list[Any]]) -> Positions:
    """Import a workflow of these commits. Return the positions before it."""
    for events in commits:
        store.append(workflow_id, events, metadata={"n": len(events)})
    return bring(store, workflow_id)


def bring(store: RedisStore, workflow_id: str) -> Positions:
    """Export a workflow, delete it, and import it again. Return the positions before the import."""
    records: list[Any] = []
    store.run(Exporter(store.context, [workflow_id]).run(records.append), "export")
    store.delete(workflow_id)
    before = read_feed(store)[-1].positions
    importer = Importer(store.context)
    for record in records:
        store.run(importer.take(record), "import")
    assert importer.problems == []
    return before


def test_an_import_comes_commit_by_commit_and_is_resumed_inside(open_fed: Open) -> None:
    with open_fed() as store:
        large = [{"n": n, "text": "x" * 300_000} for n in range(8)]
        before = moved(store, "order-1", [numbered(1), numbered(3), large, *[numbered(2)] * 300])
        store.append("order-1", numbered(1))
        commits = read_feed(store, after=before)
        assert [one.events for one in commits] == [numbered(1), numbered(3), large, *[numbered(2)] * 300, numbered(1)]
        assert [one.metadata for one in commits[:2]] == [{"n": 1}, {"n": 3}]
        assert commits[-1].position - int(before) == 613
        for number in (*range(6), 150, 300, 303):
            assert read_feed(store, after=commits[number].positions) == commits[number + 1 :]
        assert read_feed(store, prefix="other") == []


def test_a_workflow_without_events_is_imported_as_created(open_fed: Open) -> None:
    with open_fed() as store:
        store.save("order-1", numbered(1))
        bring(store, "order-1")
        assert [(one.cursor, one.deleted) for one in read_feed(store)] == [(0, False), (0, True), (0, False)]


def test_trimmed_events_of_an_import_are_not_passed_over(open_fed: Open) -> None:
    with open_fed() as store:
        before = moved(store, "order-1", [numbered(1, n) for n in range(6)])
        commits = read_feed(store, after=before)
        store.save_snapshot("order-1", 3, b"state")
        store.trim("order-1")
        for after in (before, commits[0].positions, commits[1].positions):
            with pytest.raises(EventsTrimmed) as caught:
                read_feed(store, after=after)
            assert caught.value.first == 4
        assert read_feed(store, after=commits[2].positions) == commits[3:]
        # An import of a trimmed workflow has the events that are left.
        before = bring(store, "order-1")
        assert [one.events for one in read_feed(store, after=before)] == [numbered(1, n) for n in range(3, 6)]


@pytest.mark.parametrize("lost", [0, 2, 5])
def test_lost_events_of_an_import_are_not_passed_over(open_fed: Open, lost: int) -> None:
    with open_fed() as store:
        before = moved(store, "order-1", [numbered(1, n) for n in range(6)])
        events = store.context.keys.workflow("order-1").events
        (entries,) = run(store, ("XRANGE", events, "-", "+"))
        run(store, ("XDEL", events, entries[lost][0]))
        found = read_until_lost(store, after=before)
        assert [one.events for one in found] == [numbered(1, n) for n in range(lost)]


def test_an_import_that_was_deleted_is_passed_over(open_fed: Open) -> None:
    with open_fed() as store:
        moved(store, "order-1", [numbered(1)] * 3)
        bring(store, "order-1")
        store.append("order-2", numbered(1))
        store.delete("order-1")
        kinds = [(one.workflow_id, one.deleted) for one in read_feed(store)]
        assert kinds == [("order-1", True)] * 2 + [("order-2", False), ("order-1", True)]


# Types


def test_events_of_an_older_program_are_found_by_their_present_type(open_fed: Open) -> None:
    old, new = EventRegistry(), EventRegistry()

    @old.event("old.placed")
    @dataclass
    class OldPlaced:
        n: int

    @old.event("old.bundle")
    @dataclass
    class OldBundle:
        n: int

    @new.event("new.placed", aliases=["old.placed"])
    @dataclass
    class Placed:
        n: int

    @new.event("old.bundle", version=2, upcasters={1: lambda fields: [Placed(fields["n"]), Placed(fields["n"] + 1)]})
    @dataclass
    class Bundle:
        n: int

    with open_fed(registry=old) as store:
        store.append("order-1", [OldPlaced(1)])
        store.append("order-1", [OldBundle(2)])
    with open_fed(registry=new) as store:
        for types in ([Placed], ["new.placed"], ["old.placed"]):
            assert [one.events for one in read_feed(store, types=types)] == [[Placed(1)], [Placed(2), Placed(3)]]
        assert read_feed(store, types=[Bundle]) == []


def test_an_event_that_is_not_registered_stops_the_reader_where_it_is(open_fed: Open) -> None:
    with open_fed() as store:
        append_each(store, "order-1", numbered(3))
        store.append("order-1", [UnknownEvent("tests.feed.unknown", 1, {"n": 1})])
        store.append("order-1", numbered(1))
        with closing(store.feed()) as feed:
            assert [next(feed).cursor for _ in range(3)] == [1, 2, 3]
            for _ in range(2):
                with pytest.raises(UnknownEventType, match="order-1"):
                    next(feed)
        assert [one.cursor for one in read_feed(store, types=[OrderPlaced])] == [1, 2, 3, 5]
    with open_fed(unknown_events="wrap") as store:
        assert [one.cursor for one in read_feed(store)] == [1, 2, 3, 4, 5]
        assert [one.cursor for one in read_feed(store, types=["tests.feed.unknown"])] == [4]


# Failures


@pytest.mark.parametrize("at", range(6))
def test_a_reader_whose_server_fails_goes_on_without_a_gap(open_fed: Open, at: int) -> None:
    with open_fed() as store:
        append_each(store, "order-1", numbered(700))
        # The first pages hold fewer commits than these.
        faulty = make_faulty(store, deadline_s=0.0)
        found: list[Any] = []
        failures = 0
        with closing(store.feed()) as feed:
            faulty.faults = [*[None] * at, "request"]
            while True:
                try:
                    found.append(next(feed))
                except StopIteration:
                    break
                except StoreUnavailable:
                    failures += 1
        assert [one.cursor for one in found] == list(range(1, 701))
        assert failures == (not faulty.faults)


class Interrupted(BaseException):
    """Like KeyboardInterrupt."""


@pytest.mark.parametrize("at", range(6))
def test_a_reader_that_is_interrupted_goes_on_without_a_gap(
    open_fed: Open, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_fed() as store:
        append_each(store, "order-1", numbered(700))
        found: list[Any] = []
        errors: list[BaseException] = []
        with closing(store.feed()) as feed:
            sender, asked = store._sender, 0
            ask = sender.ask

            def interrupt(effect: Any) -> Any:
                nonlocal asked
                asked += 1
                reply = ask(effect)
                if asked == at:
                    raise Interrupted
                return reply

            monkeypatch.setattr(sender, "ask", interrupt)
            while True:
                try:
                    found.append(next(feed))
                except StopIteration:
                    break
                except Interrupted as error:
                    # Its traceback keeps the operation alive.
                    errors.append(error)
        assert [one.cursor for one in found] == list(range(1, 701))
        assert len(errors) == (0 < at <= asked)


def test_a_reader_whose_step_is_cancelled_goes_on_without_a_gap(valkey: RunningServer, namespace: str) -> None:
    async def follow() -> list[int]:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace, partitions=2, feed=True) as store:
            found: list[int] = []
            feed = store.feed(wait_s=None)
            for number in range(30):
                step = asyncio.ensure_future(anext(feed))
                await asyncio.sleep(0)
                if number % 3:
                    step.cancel()
                await store.append(f"order-{number % 5}", numbered(1, number))
                await asyncio.wait([step])
                if not step.cancelled():
                    found.append(step.result().events[0].quantity)
            while len(found) < 30:
                found.append((await anext(feed)).events[0].quantity)
            await feed.aclose()
            return found

    assert sorted(asyncio.run(follow())) == list(range(30))


@pytest.mark.parametrize("losses", [["reply"], ["request"], ["late"], ["reply", "late", "request"]], ids=" ".join)
@pytest.mark.parametrize("options", [{}, {"expected_cursor": 2}, {"commit_id": "c"}], ids=str)
def test_a_commit_whose_reply_was_lost_is_in_the_feed_once(
    open_fed: Open, losses: list[str], options: dict[str, Any]
) -> None:
    with open_fed() as store:
        store.append("order-1", numbered(2))
        faulty = make_faulty(store)
        for number, events in enumerate((numbered(3), [{"n": n, "text": "x" * 100_000} for n in range(30)])):
            cursor = store.cursor("order-1")
            faulty.faults = [*losses]
            given = options | ({"expected_cursor": cursor} if "expected_cursor" in options else {})
            given |= {"commit_id": f"c{number}"} if "commit_id" in options else {}
            assert store.append("order-1", events, **given) == cursor + len(events)
            faulty.deliver_late()
        commits = read_feed(store)
        assert [one.cursor for one in commits] == [2, 5, 35]
        assert_no_gaps(commits)
        assert positions_in(store, "order-1")[0] == 35


CHANGES: dict[str, tuple[Callable[[Any], Any], int]] = {
    "delete": (lambda store: store.delete("order-1"), 2),
    "acquire": (lambda store: store.acquire("order-2", "worker"), 2),
    "save": (lambda store: store.save("order-2", numbered(1)), 2),
    "save_snapshot": (lambda store: store.save_snapshot("order-2", 0, b"state"), 2),
}


@pytest.mark.parametrize("loss", ["reply", "request", "late"])
@pytest.mark.parametrize("change", CHANGES)
def test_another_change_whose_reply_was_lost_is_in_the_feed_once(open_fed: Open, change: str, loss: str) -> None:
    with open_fed() as store:
        store.append("order-1", numbered(1))
        write, count = CHANGES[change]
        faulty = make_faulty(store)
        # A delete reads first.
        faulty.faults = [None, loss] if change == "delete" else [loss]
        write(store)
        faulty.deliver_late()
        commits = read_feed(store)
        assert positions_in(store, "order-1")[0] == count
        assert [one.position for one in commits][-1] == count
        assert len(positions_in(store, "order-1")[1]) == count


def test_many_appends_with_losses_are_in_the_feed_once(open_fed: Open) -> None:
    with open_fed(partitions=4) as store:
        items = [(f"order-{number}", numbered(number % 3 + 1)) for number in range(8)]
        store.append_many(items)
        faulty = make_faulty(store)
        for losses in (["reply"], ["request"], ["first"], ["first", "reply"], ["late"], ["first", "late", "request"]):
            faulty.faults = [*losses]
            store.append_many(items)
            faulty.deliver_late()
        commits = read_feed(store)
        assert_no_gaps(commits)
        assert len(commits) == 7 * len(items)


def test_a_conflict_that_is_delivered_late_leaves_no_entry(valkey: RunningServer, namespace: str) -> None:
    with (
        late(valkey) as proxy,
        RedisStore.from_url(proxy.url, namespace=namespace, partitions=1, feed=True) as store,
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as other,
    ):
        store.append("order-1", numbered(1))
        proxy.keep(meanwhile=lambda: other.append("order-1", numbered(1), expected_cursor=1))
        with pytest.raises(CursorConflict):
            store.append("order-1", numbered(2), expected_cursor=1)
        before = proxy.dump(f"*{namespace}*")
        proxy.deliver()
        assert proxy.dump(f"*{namespace}*") == before
        assert [one.position for one in read_feed(other)] == [1, 2]
