"""`verify` and the feed: damage of it is found and repaired, readers notice each repair, and writers go on."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from runic_redis import RedisStore, StoreError
from runic_redis.admin import feed_check
from runic_redis.admin.feed_check import FeedCheck
from runic_redis.errors import FeedTrimmed
from runic_redis.positions import Positions
from runic_redis.protocol.effects import Batch
from runic_redis.recovery import projection
from tests.servers import RunningServer, cluster_url
from tests.test_archives import export, load
from tests.test_verifying import fill, verify


@pytest.fixture(params=["2", "3"])
def store(request: pytest.FixtureRequest, valkey: RunningServer, namespace: str, few_buckets: None) -> Iterator[Any]:
    """A store with one partition, so that its feed holds everything."""
    url = valkey.url(int(request.param))
    with RedisStore.from_url(url, namespace=namespace, partitions=1, feed=True) as store:
        fill(store)
        for number in range(4):
            store.append("last", [{"n": number}, {"n": number}])
        yield store


@pytest.fixture
def client(valkey: RunningServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


class Feed:
    """The keys of the partition's feed, to damage them."""

    def __init__(self, store: RedisStore, client: redis.Redis) -> None:
        self.client, self.store = client, store
        self.key, self.hash = store.context.keys.feed(0), store.context.keys.partition(0)

    def entries(self) -> list[Any]:
        return self.client.xrange(self.key)

    def events(self, workflow_id: str) -> str:
        return self.store.context.keys.workflow(workflow_id).events

    @property
    def position(self) -> int:
        return int(self.client.hget(self.hash, "position") or 0)

    @property
    def end(self) -> Positions:
        """Where a reader is that has read everything."""
        return Positions.parse(self.entries()[-1][0].decode())

    def remove(self, place: int) -> None:
        self.client.xdel(self.key, self.entries()[place][0])

    def trim(self, count: int) -> None:
        """Trim the feed up to its entry of this number, as retention does."""
        entries = self.entries()
        self.client.hset(self.hash, "feed_trimmed", entries[count - 1][0])
        self.client.xtrim(self.key, minid=entries[count][0], approximate=False)

    def replace(self, place: int, name: str, value: str) -> None:
        """Replace an entry: all later ones are added again."""
        entries = self.entries()
        self.client.delete(self.key)
        for at, (entry_id, fields) in enumerate(entries):
            self.client.xadd(self.key, {name: value} if at == place % len(entries) else fields, id=entry_id)


@pytest.fixture
def feed(store: RedisStore, client: redis.Redis) -> Feed:
    return Feed(store, client)


def read(store: RedisStore, prefix: str = "last", **options: Any) -> list[tuple[str, int]]:
    return [(commit.workflow_id, commit.cursor) for commit in store.feed(wait_s=0, prefix=prefix, **options)]


def test_a_sound_feed_is_found_sound(store: RedisStore, feed: Feed) -> None:
    store.delete("w")
    store.append("w", [{"n": 1}], snapshot=b"s")
    store.trim("w")
    assert verify(store).findings == []
    feed.trim(5)
    assert verify(store, repair=True).findings == []
    feed.client.hset(feed.hash, "feed_trimmed", feed.entries()[-1][0])
    feed.client.xtrim(feed.key, maxlen=0, approximate=False)
    assert verify(store).findings == []


@pytest.mark.parametrize("size", [1, 3])
def test_a_feed_is_read_in_small_pages(store: RedisStore, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for name in ("_ENTRIES", "_WORKFLOWS", "_BYTES"):
        monkeypatch.setattr(feed_check, name, size)
    assert verify(store).findings == []
    store._connected.server._client.xdel(*_last_entry(store, "w"))
    assert any("events are missing" in one.problem for one in verify(store).findings)


def _last_entry(store: RedisStore, workflow_id: str) -> tuple[str, bytes]:
    events = store.context.keys.workflow(workflow_id).events
    return events, store._connected.server._client.xrevrange(events, count=1)[0][0]


Damage = Callable[[Feed], object]

# Damage at a place in the middle, or at the beginning: the feed is trimmed up to it.
TRIMMED: dict[str, tuple[Damage, str]] = {
    "a lost entry": (lambda feed: feed.remove(5), "are missing"),
    "the first entry is lost": (lambda feed: feed.remove(0), "the positions 1 to 2 are missing"),
    "two gaps": (lambda feed: (feed.remove(2), feed.remove(6)), "are missing"),
    "a damaged entry": (lambda feed: feed.replace(4, "nonsense", "x"), "is damaged"),
    "an entry that takes too much": (lambda feed: feed.replace(7, "40", "14 w"), "before the last one ends"),
    "an entry that takes too little": (lambda feed: feed.replace(7, "1", "16 w"), "are missing"),
    "no place": (lambda feed: feed.client.hset(feed.hash, "feed_trimmed", "soon"), "and no place"),
}


@pytest.mark.parametrize("name", TRIMMED)
def test_a_feed_is_trimmed_up_to_its_damage(store: RedisStore, feed: Feed, name: str) -> None:
    damage, words = TRIMMED[name]
    end, early = feed.end, Positions.parse("0")
    position = feed.position
    damage(feed)
    found = verify(store).findings
    assert any(words in one.problem and one.kind == "key" for one in found), found
    assert not any(one.repaired for one in found)
    assert verify(store, repair=True).findings != []
    assert verify(store).findings == []
    # A reader that is past the damage goes on, without a second delivery.
    assert feed.position == position
    store.append("last", [{"n": "after"}])
    assert read(store, after=end) == [("last", 9)]
    if name != "no place":
        with pytest.raises(FeedTrimmed, match="rebuild"):
            read(store, after=early)


# Damage that leaves no end of the feed to go on with, or leaves out a commit: the feed begins again.
RESTARTED: dict[str, tuple[Damage, str]] = {
    "the last entry is lost": (lambda feed: feed.remove(-1), "are missing at its end"),
    "the feed is lost": (lambda feed: feed.client.delete(feed.key), "are missing at its end"),
    "the feed and its counter are lost": (lambda feed: feed.client.delete(feed.key, feed.hash), "last commits of"),
    "the counter is below what is trimmed": (
        lambda feed: (feed.trim(7), feed.client.delete(feed.key), feed.client.hdel(feed.hash, "position")),
        "below feed_trimmed",
    ),
    "a foreign entry at its end": (lambda feed: feed.client.xadd(feed.key, {"a": "b"}), "is damaged"),
    "a commit that it does not have": (
        lambda feed: (
            feed.client.xadd(feed.events("last"), feed.client.xrange(feed.events("last"))[0][1], id="10-5"),
            feed.client.hset(feed.store.context.keys.workflow("last").meta, "cursor", 10),
        ),
        "the last commits of 1 workflows are not in it, such as that of 'last'",
    ),
}


@pytest.mark.parametrize("name", RESTARTED)
def test_a_feed_that_cannot_go_on_begins_again(store: RedisStore, feed: Feed, name: str) -> None:
    damage, words = RESTARTED[name]
    end, position = feed.end, feed.position
    damage(feed)
    found = verify(store).findings
    assert any(words in one.problem for one in found), found
    assert verify(store, repair=True).findings != []
    assert verify(store).findings == []
    assert feed.entries() == []
    assert feed.position > position
    for after in (end, Positions.parse("0"), Positions.parse("1")):
        with pytest.raises(FeedTrimmed, match="rebuild"):
            read(store, after=after)
    # The remedy reads all that is there. Writers go on, and so does who begins now.
    rebuilt = [cursor for _, cursor in read(store, start="rebuild")]
    assert rebuilt == [*range(2, 9, 2), *range(10, store.cursor("last") + 1)]
    now = read(store, start="now")
    assert now == []
    cursor = store.append("last", [{"n": "after"}])
    assert verify(store).findings == []
    assert feed.entries()[0][1] == {b"1": b"%d last" % cursor}
    assert int(feed.entries()[0][0].partition(b"-")[0]) == feed.position


@pytest.mark.parametrize("kind", ["subscription", "projection", "next projection"])
def test_a_feed_begins_again_above_all_positions_that_are_stored(store: RedisStore, feed: Feed, kind: str) -> None:
    keys = store.context.keys
    feed.client.hset(keys.subscriptions, mapping={"mailer": "{}", "other": "{}", "none": "{}"})
    feed.client.hset(keys.subscription("other", 0), "position", "no place")
    key, field = {
        "subscription": (keys.subscription("mailer", 0), "position"),
        "projection": (keys.projection("mailer"), "positions"),
        "next projection": (keys.next_projection("mailer"), "positions"),
    }[kind]
    feed.client.hset(key, field, "7000-5")
    feed.client.delete(feed.key)
    verify(store, repair=True)
    assert feed.position == 7001
    assert feed.client.hget(feed.hash, "feed_trimmed").startswith(b"7001-")


def test_readers_that_are_stored_are_no_damage_and_notice_a_repair(store: RedisStore, feed: Feed) -> None:
    with store.subscribe("mailer", prefix="last") as subscription:
        subscription.ack(next(subscription))
        assert verify(store).findings == []
    with projection(store, "count", lambda state, commit: state + len(commit.events), 0, prefix="last") as count:
        count.catch_up()
        assert count.state == 8
    assert verify(store).findings == []
    feed.client.delete(feed.key)
    assert {one.repaired for one in verify(store, repair=True).findings} == {True}
    with store.subscribe("mailer", prefix="last") as subscription, pytest.raises(FeedTrimmed, match="rebuild"):
        next(subscription)
    assert [one for one in read(store, start="rebuild") if one[1]] == [
        ("last", 2),
        ("last", 4),
        ("last", 6),
        ("last", 8),
    ]
    assert verify(store).findings == []


@pytest.mark.parametrize("value", [None, "3", "many"])
def test_a_lost_position_is_restored_from_the_last_entry(store: RedisStore, feed: Feed, value: str | None) -> None:
    position, entries, end = feed.position, feed.entries(), feed.end
    if value is None:
        feed.client.hdel(feed.hash, "position")
    else:
        feed.client.hset(feed.hash, "position", value)
    with pytest.raises(StoreError):
        store.append("last", [{"n": 1}])
    found = verify(store, repair=True).findings
    assert [(one.name, one.repaired) for one in found] == [(feed.hash, True)]
    assert (feed.position, feed.entries()) == (position, entries)
    assert verify(store).findings == []
    store.append("last", [{"n": "after"}])
    assert read(store, after=end) == [("last", 9)]


@pytest.mark.parametrize("is_empty", [False, True])
@pytest.mark.parametrize("is_trimmed", [False, True])
def test_a_partition_that_lost_its_hash_goes_on(
    store: RedisStore, feed: Feed, is_empty: bool, is_trimmed: bool
) -> None:
    """Its feed, too. The place up to which it was trimmed is restored from the first entry."""
    if is_empty:
        for workflow_id in list(store.list()):
            store.delete(workflow_id)
    if is_trimmed:
        feed.trim(5)
    position = feed.position
    feed.client.delete(feed.hash)
    assert all(one.repaired for one in verify(store, repair=True).findings)
    assert feed.position == position
    assert verify(store).findings == []
    store.append("new", [{"n": 1}])
    assert feed.position == position + 1
    if is_trimmed:
        with pytest.raises(FeedTrimmed):
            read(store)
    else:
        assert read(store, prefix="new") == [("new", 1)]


def test_events_that_are_missing_are_found_and_no_reader_is_disturbed(store: RedisStore, feed: Feed) -> None:
    feed.client.xdel(*_last_entry(store, "w"))
    kept = feed.entries()
    found = [one for one in verify(store, repair=True).findings if one.name == feed.key]
    assert [(one.repairs, one.repaired) for one in found] == [((), False)]
    assert "a commit of the workflow 'w', up to cursor 24" in found[0].problem
    assert feed.entries() == kept


def test_a_workflow_that_was_lost_as_a_whole_is_found(store: RedisStore, feed: Feed) -> None:
    keys = store.context.keys.workflow("w")
    feed.client.delete(*(getattr(keys, kind) for kind in ("events", "meta", "refs")))
    assert sum("'w'" in one.problem for one in verify(store).findings if one.name == feed.key) == 12


@pytest.mark.parametrize("kind", ["feed", "hash"])
def test_a_foreign_value_is_found_and_hides_nothing_else(store: RedisStore, feed: Feed, kind: str) -> None:
    key = getattr(feed, "key" if kind == "feed" else "hash")
    feed.client.delete(key)
    feed.client.set(key, "foreign")
    feed.client.zrem(store.context.keys.index(0), "w")
    found = verify(store, repair=True).findings
    assert any("cannot be read" in one.problem and one.name == key for one in found)
    assert any(one.name == "w" for one in found)
    assert feed.client.get(key) == b"foreign"


def test_imports_are_verified(store: RedisStore, valkey: RunningServer, namespace: str, tmp_path: Path) -> None:
    """Also after their entries are trimmed: the times in their streams are those of another server."""
    export(store, tmp_path / "a")
    with (
        RedisStore.from_url(valkey.url(), namespace=f"{namespace}-to", partitions=1, feed=True) as target,
        valkey.client() as client,
    ):
        load(target, tmp_path / "a")
        feed = Feed(target, client)
        assert verify(target).findings == []
        store.append("last", [{"n": 1}])
        target.append("last", [{"n": 1}])
        assert verify(target).findings == []
        feed.trim(3)
        assert verify(target).findings == []
        meta = target.context.keys.workflow("last").meta
        imported = client.hget(meta, "imported")
        client.hset(meta, "imported", 1)
        assert any("'last'" in one.problem for one in verify(target).findings)
        client.hset(meta, "imported", imported)
        target.delete_namespace()


def test_a_clock_that_was_set_back_is_no_damage(store: RedisStore, feed: Feed) -> None:
    """A commit that is trimmed from the feed may be later than the last trimmed entry, by the clock."""
    feed.trim(len(feed.entries()) - 1)
    entry_id = feed.client.hget(feed.hash, "feed_trimmed")
    position, _, ms = entry_id.partition(b"-")
    feed.client.hset(feed.hash, "feed_trimmed", b"%s-%d" % (position, int(ms) - 3_600_000))
    assert verify(store).findings == []


def test_writers_and_trims_that_go_on_are_not_taken_for_damage(
    store: RedisStore, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_check, "_ENTRIES", 5)
    over = threading.Event()
    script = feed.client.register_script(
        """local last = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 2)
        if #last == 2 then
          redis.call('HSET', KEYS[2], 'feed_trimmed', last[1][1])
          redis.call('XTRIM', KEYS[1], 'MINID', '=', last[2][1])
        end"""
    )

    def write() -> None:
        for number in range(10**9):
            store.append_many([("w", [{"n": number}]), (f"new-{number}", [{"n": number}])])
            store.save_snapshot("trimmed", store.append("trimmed", [{"n": number}]), b"state")
            store.trim("trimmed")
            store.delete("comes and goes")
            store.append("comes and goes", [{"n": number}, {"n": number}][: 1 + number % 2], snapshot=b"s")
            script(keys=[feed.key, feed.hash])
            if over.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            assert verify(store, repair=True).findings == []
    finally:
        over.set()
        writer.join()
    assert verify(store).findings == []


@pytest.mark.parametrize("moment", range(40))
def test_what_comes_between_two_commands_is_not_taken_for_damage(
    store: RedisStore, feed: Feed, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_check, "_ENTRIES", 9)
    changes: list[Callable[[], object]] = [
        lambda: store.append("w", [{"n": 1}]),
        lambda: store.append("new", [{"n": 1}]),
        lambda: store.delete("w"),
        lambda: (store.delete("last"), store.append("last", [{"n": 1}])),
        lambda: feed.trim(len(feed.entries()) - 2),
        lambda: (store.save_snapshot("last", store.cursor("last"), b"s"), store.trim("last")),
    ]
    change = changes[moment % len(changes)]
    check, done = FeedCheck(store.context, 0, repair=True), 0
    for step in check.steps():
        replies: Any = None
        try:
            while True:
                effect = step.send(replies)
                assert isinstance(effect, Batch)
                replies = []
                for command in effect.commands:
                    if done == moment:
                        change()
                    done += 1
                    replies += store._sender.ask(Batch([command]))
        except StopIteration:
            pass
    assert check.findings == []


def test_a_feed_that_was_repaired_meanwhile_is_not_repaired_again(store: RedisStore, feed: Feed) -> None:
    feed.remove(3)
    checks = [FeedCheck(store.context, 0, repair=True) for _ in range(2)]
    for steps in zip(*(check.steps() for check in checks), strict=True):
        for step in steps:
            store.run(step, "verify")
    assert [[one.repaired for one in check.findings] for check in checks] == [[True], [False]]
    assert verify(store).findings == []


def test_a_cluster_is_verified(cluster_nodes: list[RunningServer], namespace: str) -> None:
    with RedisStore.from_url(cluster_url(cluster_nodes), namespace=namespace, partitions=5, feed=True) as store:
        fill(store)
        client = store._connected.server._client
        number = store.context.keys.partition_of("w")
        client.delete(store.context.keys.feed(number))
        assert {one.name for one in verify(store, repair=True).findings} == {store.context.keys.feed(number)}
        assert verify(store).findings == []
        assert store.append("w", [{"n": 1}]) == 25
        store.delete_namespace()
