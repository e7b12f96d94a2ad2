"""A tour of every method of a store, in parts that match permissions, for both kinds of store.

Each part leaves the data that the next one needs. Tests use it for rules that hold for all operations. It checks
results only as far as needed to see that every step ran.
"""

from datetime import UTC, datetime
from typing import Any

from runic_redis import Append, Commit, Fact, RedisStore, Tracking, async_projection, projection
from tests.servers import wait_until

__all__ = ["METHODS", "lists", "reads", "removes", "writes"]

# All methods that the parts call. Opening and closing a store is not part of the tour.
METHODS = {
    *(
        "acquire",
        "append",
        "append_all",
        "append_many",
        "checkpoint",
        "claim",
        "collect",
        "complete",
        "cursor",
        "delete",
    ),
    *("delete_projection", "delete_subscription", "drop_parked", "load_projection", "parked", "replay_parked"),
    *(
        "set_feed_days",
        "subscribe",
        "subscriptions",
        "trim_feed",
        "delete_namespace",
        "exists",
        "expire",
        "persist",
        "feed",
        "list",
        "load",
        "load_fact",
        "load_facts",
        "load_snapshot",
    ),
    *("memory_usage", "put_fact", "release", "renew", "save", "save_fact", "save_facts", "save_snapshot", "stream"),
    *("find", "read_many", "read_where", "stream_records", "tail", "tail_many", "trim"),
    *("children", "count", "inbox", "park", "request_cancel", "send", "sleep", "timer", "tracking", "unpark"),
}
_EVENTS = [{"n": 1}, {"n": 2}]


def writes(store: Any, workflow_id: str) -> None:
    """Call everything that adds or changes data."""
    short, ending = f"{workflow_id} gone", f"{workflow_id} ending"
    lease = store.acquire(workflow_id, "worker-1")
    labels: dict[str, Any] = {"attributes": {"customer": "7", "country": "se"}, "parent": "a parent"}
    given: dict[str, Any] = {"expected_cursor": 0, "commit_id": "c", "metadata": {"by": "us"}, "lease": lease}
    cursor = store.append(workflow_id, _EVENTS, **given, **labels, tags=["placed"])
    assert cursor == store.append(workflow_id, _EVENTS, commit_id="c") == 2
    assert store.append(workflow_id, [{"value": Fact("in an event")}], snapshot=b"state") == 3
    store.renew(lease)
    store.release(lease)
    (claimed,) = store.claim("worker-2")
    store.save_snapshot(workflow_id, 3, b"state", lease=claimed)
    store.save(workflow_id, [{"value": Fact("in a log")}], lease=claimed)
    store.checkpoint(workflow_id, _EVENTS)
    store.complete(workflow_id, lease=claimed)
    store.save_fact(b"a", "by itself")
    store.save_facts({b"b": "with others", b"c": "with others"})
    assert store.put_fact("by its content") == store.fact_hash("by its content")
    for number in range(8):
        store.append(f"{workflow_id} child {number}", _EVENTS, queue="children", parent=workflow_id)
    assert store.append_many([(short, _EVENTS), (ending, _EVENTS[:1])]) == [2, 1]
    group = [Append(ending, _EVENTS[1:], expected_cursor=1)]
    assert store.append_all(group) == [2]
    store.append_all([], tracking=Tracking(f"source of {workflow_id}", 7))
    store.sleep(store.acquire(ending, "worker-3"), 3600, "later")
    assert store.timer(ending).name == "later"
    store.park(ending, "declined")
    store.unpark(ending, due=3600)
    store.send(ending, {"n": 3}, message_id="sent")
    store.request_cancel(ending, "no longer needed")
    store.append(ending, [{"n": 3}], consumes=store.inbox(ending), ends_timer=True, queue="other", due=3600)
    # Later writes to a workflow with an end expire with it.
    store.complete(ending)
    store.expire(ending, 3600)
    store.persist(ending)
    refs = [store.put_fact("for an hour")]
    store.append(ending, [{"value": Fact("for an hour")}], snapshot=b"state", refs=refs, expires_in=3600)
    store.expire(short, 0.001, sliding=True)
    _follow(store, workflow_id)


def _follow(store: Any, workflow_id: str) -> None:
    """Subscribe, park and replay; and have a projection, and its next version."""
    for _ in range(2):
        with store.subscribe("mailer", wait_s=0) as mailer:
            mailer.ack(next(mailer))
            for commit in mailer:
                mailer.park(commit, "declined")
        assert store.replay_parked("mailer", workflow_id) == 1
    assert store.drop_parked("mailer", f"{workflow_id} gone") == 1
    store.set_feed_days(30.0)
    saved = store.load_projection("count")
    last = 0 if saved is None else saved.version
    for version in (last + 1, last + 2):
        _project(store, "count", version)


def _project(store: Any, name: str, version: int) -> None:
    def count(state: int, commit: Commit) -> int:
        return state + len(commit.events)

    if isinstance(store, RedisStore):
        with projection(store, name, count, 0, version=version) as counted:
            counted.catch_up()
        return

    async def run() -> None:
        async with async_projection(store._store, name, count, 0, version=version) as counted:
            await counted.catch_up()

    store._wait(run())


def reads(store: Any, workflow_id: str) -> None:
    """Read everything that `writes` left, except by listing."""
    events = list(store.stream(workflow_id))
    assert events[:2] == _EVENTS
    assert [record.event for record in store.stream_records(workflow_id, reverse=True)] == events[::-1]
    (records,) = store.read_many([(workflow_id, 2, None)], facts=True)
    assert [record.event for record in records] == [{"value": Fact("in an event")}]
    assert store.cursor(workflow_id) == 3
    assert store.tracking(f"source of {workflow_id}") == 7
    assert store.exists(workflow_id)
    assert store.cursor(f"not {workflow_id}") == 0
    wait_until(lambda: store.cursor(f"{workflow_id} gone") == 0, "the workflow to expire by the server's clock as well")
    assert store.exists(f"{workflow_id} ending")
    assert store.inbox(f"{workflow_id} ending") == []
    assert store.timer(f"{workflow_id} ending") is None
    assert store.load_snapshot(workflow_id) == (3, b"state")
    assert store.load(workflow_id) == _EVENTS
    assert store.load_fact(b"a") == "by itself"
    assert store.load_projection("count").state > 2
    assert len(store.load_facts([b"b", events[2]["value"].hash])) == 2
    for following in (store.tail(workflow_id, after=2), store.tail_many({workflow_id: 2})):
        next(following)
        following.close()


def lists(store: Any, workflow_id: str) -> None:
    """List workflows and subscriptions, find commits, and read the feed. A listing skips an expired workflow."""
    wait_until(lambda: not store.exists(f"{workflow_id} gone"), "the workflow to expire")
    ids = {workflow_id, f"{workflow_id} ending", *(f"{workflow_id} child {number}" for number in range(8))}
    assert set(store.list()) == ids
    # With a limit, the first pages are short. These are on the next ones.
    assert list(store.list(prefix=f"{workflow_id} child 0", limit=1)) == [f"{workflow_id} child 0"]
    assert list(store.list(queue="children", prefix=f"{workflow_id} child 7", limit=1)) == [f"{workflow_id} child 7"]
    assert len(list(store.children(workflow_id))) == 8
    assert store.count(state="waiting", queue="children") == 8
    assert list(store.list(state="completed", attributes={"customer": "7"})) == [workflow_id]
    assert store.count(attributes={"customer": "7", "country": "se"}) == store.count(attributes={"customer": "7"}) == 1
    assert store.count(since=datetime(2020, 1, 1, tzinfo=UTC)) == len(list(store.list())) == len(ids)
    assert list(store.list(state="waiting", since=datetime(2020, 1, 1, tzinfo=UTC), limit=1))
    read = [(commit.workflow_id, commit.cursor) for commit in store.feed(wait_s=0)]
    assert [cursor for name, cursor in read if name == workflow_id] == [0, 2, 3]
    assert list(store.feed(start="now", wait_s=0.01)) == []
    assert [commit.events for commit in store.find(workflow_id, tag="placed")] == [_EVENTS]
    assert [commit.cursor for commit in store.find(workflow_id, prefix="p", reverse=True)] == [2]
    if store.context.keys.tagged:
        matched = store.read_where([["placed"]]).events
        assert [one.cursor for one in matched if one.workflow_id == workflow_id] == [1, 2]
    assert [one.name for one in store.subscriptions()] == ["count", "mailer"]
    assert store.parked("mailer")


def removes(store: Any, workflow_id: str) -> None:
    """Call everything that removes data, and measure memory."""
    assert store.trim(workflow_id) == 3
    assert store.collect(grace=0) == 5
    store.delete(workflow_id)
    assert store.trim_feed(keep=1, force=True) > 0
    store.delete_subscription("mailer")
    store.delete_projection("count")
    assert store.memory_usage()["events"] > 0
    store.delete_namespace()
