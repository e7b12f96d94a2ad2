"""Guarantee 15: `append_all` stores all commits of a group, or none, whatever happens."""

import asyncio
import inspect
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import redis

from runic_redis import (
    Append,
    AsyncRedisStore,
    ConfigurationError,
    CursorConflict,
    DecodeError,
    Fact,
    GroupRejected,
    InvalidArgument,
    RedisStore,
    StoreError,
    StoreUnavailable,
    WriteRefused,
)
from runic_redis.operations.life import Life
from runic_redis.testing.examples import numbered
from tests import servers
from tests.faults import FaultyServer, make_faulty
from tests.proxy import Fault, proxied
from tests.servers import RunningServer
from tests.test_acl import EVERYTHING, user, without
from tests.test_damage import everything

IDS = ["a", "b", "c"]


def test_a_commit_of_a_group_has_every_option_of_append() -> None:
    options = [one.name for one in fields(Append)]
    assert [*options, "details", "durability"] == list(inspect.signature(RedisStore.append).parameters)[1:]
    assert set(Life._fields) <= set(options)
    defaults = {name: one.default for name, one in inspect.signature(RedisStore.append).parameters.items()}
    assert all(getattr(Append("w", []), name) == defaults[name] for name in options[2:])


@pytest.fixture
def store(opener: Callable[..., RedisStore]) -> Any:
    with opener() as store:
        # Also, the server then has the script, and a fault hits the first call.
        store.append_all([Append("other", numbered(1))])
        yield store


@pytest.fixture
def opener(request: pytest.FixtureRequest, namespace: str) -> Callable[..., RedisStore]:
    """Return a function that opens a store with a feed, so that the order of all commits is known."""
    url = servers.url_on(request, request.param, namespace)

    def open_store(**options: Any) -> RedisStore:
        return RedisStore.from_url(url, namespace=namespace, partitions=1, feed=True, **options)

    return open_store


on_both = pytest.mark.parametrize("opener", ["memory", "valkey"], indirect=True)
on_valkey = pytest.mark.parametrize("opener", ["valkey"], indirect=True)


def cursors(store: RedisStore, ids: list[str] = IDS) -> list[int]:
    return [store.cursor(workflow_id) for workflow_id in ids]


def in_order(store: RedisStore) -> list[tuple[str, list[Any]]]:
    """Return the commits of the feed: of each the workflow and the events."""
    return [(commit.workflow_id, commit.events) for commit in store.feed(wait_s=0) if commit.workflow_id in IDS]


# Lost requests and replies

LOSSES = [["reply"], ["request"], ["reply", "reply", "reply"], ["request", "reply", "request"], ["late", "reply"]]
GROUPS: dict[str, list[Append]] = {
    "plain": [Append(one, numbered(2)) for one in IDS],
    "expecting": [Append("a", numbered(1), expected_cursor=2), Append("b", numbered(1), expected_cursor=0)],
    "with ids": [Append(one, numbered(1), commit_id="c") for one in IDS],
    "mixed": [Append("a", numbered(1), commit_id="c"), Append("b", numbered(1)), Append("c", [], expected_cursor=0)],
    "split": [Append("a", [{"n": n, "text": "x" * 100_000} for n in range(30)]), Append("b", numbered(1))],
    "with more": [
        Append("a", [{"f": Fact("f")}], snapshot=b"s", queue="q"),
        Append("b", [{"f": Fact("f")}], queue="q"),
    ],
}


@on_both
@pytest.mark.parametrize("losses", LOSSES, ids=" ".join)
@pytest.mark.parametrize("name", GROUPS)
def test_a_group_is_stored_once_whatever_is_lost(store: RedisStore, losses: list[str], name: str) -> None:
    store.append("a", numbered(2))
    faulty = make_faulty(store)
    faulty.faults = [*losses]
    group = GROUPS[name]
    expected = [len(one.events) + (2 if one.workflow_id == "a" else 0) for one in group]
    assert store.append_all(group) == expected
    before = in_order(store)
    assert len(before) == 1 + sum(bool(one.events) for one in group)
    faulty.deliver_late()
    assert in_order(store) == before
    assert cursors(store, [one.workflow_id for one in group]) == expected


@on_both
@pytest.mark.parametrize("loss", ["reply", "request", "late"])
def test_a_group_is_found_behind_commits_of_others(
    store: RedisStore, opener: Callable[..., RedisStore], loss: str
) -> None:
    with opener() as other:

        def meddle() -> None:
            for _ in range(40):
                other.append("b", [{"by": "other"}])

        faulty = make_faulty(store)
        faulty.faults, faulty.after_loss = [loss], meddle
        assert store.append_all([Append(one, numbered(1)) for one in IDS]) == [1, 1 if loss == "reply" else 41, 1]
        faulty.deliver_late()
        assert cursors(store) == [1, 41, 1]


@on_both
@pytest.mark.parametrize("loss", ["reply", "request"])
def test_a_retry_of_a_group_of_many_workflows_finds_each(store: RedisStore, loss: str) -> None:
    """The search of a retry reads few entries of each, and so it does not reach its bound."""
    ids = [f"w-{number}" for number in range(1000)]
    for number in range(20):
        store.append_many([(one, [{"n": number}]) for one in ids[:500]])
    make_faulty(store).faults = [loss]
    assert store.append_all([Append(one, [{"n": 1}]) for one in ids]) == [21] * 500 + [1] * 500


@on_both
@pytest.mark.parametrize("change", ["trim", "delete", "delete one that stays away"])
def test_a_group_of_which_a_part_is_gone_is_not_stored_again(
    store: RedisStore, opener: Callable[..., RedisStore], change: str
) -> None:
    with opener() as other:

        def meddle() -> None:
            if change == "trim":
                other.append("b", numbered(1), snapshot=b"s")
                other.trim("b")
            else:
                other.delete("b")
                if change == "delete":
                    other.append("b", numbered(1))

        faulty = make_faulty(store)
        faulty.faults, faulty.after_loss = ["reply"], meddle
        with pytest.raises(StoreUnavailable, match="not known whether the group was stored"):
            store.append_all([Append(one, numbered(1)) for one in IDS])
        assert cursors(store) == [1, {"trim": 2, "delete": 1}.get(change, 0), 1]


@on_both
def test_a_rejected_retry_says_that_nothing_is_stored(store: RedisStore, opener: Callable[..., RedisStore]) -> None:
    with opener() as other:
        faulty = make_faulty(store)
        faulty.faults = ["late"]
        faulty.after_loss = lambda: other.append("c", numbered(1))
        with pytest.raises(GroupRejected, match="Nothing of the group was stored") as caught:
            store.append_all([*(Append(one, numbered(1)) for one in "ab"), Append("c", [], expected_cursor=0)])
        assert (caught.value.index, caught.value.workflow_id) == (2, "c")
        other.delete("c")
        faulty.deliver_late()
        assert cursors(store) == [0, 0, 0]


@on_both
def test_the_second_retry_of_a_rejected_group_gets_the_same_error(
    store: RedisStore, opener: Callable[..., RedisStore]
) -> None:
    with opener() as other:
        faulty = make_faulty(store)
        # The first retry is rejected, its reply is lost, and then the group could be stored.
        changes = iter([lambda: other.append("c", numbered(1)), lambda: other.delete("c")])
        faulty.faults = ["request", "reply"]
        faulty.after_loss = lambda: next(changes)()  # noqa: PLW0108 - another one each time
        with pytest.raises(GroupRejected) as caught:
            store.append_all([Append("a", numbered(1)), Append("c", [], expected_cursor=0)])
        assert isinstance(caught.value.__cause__, CursorConflict)
        assert caught.value.index == 1
        assert cursors(store) == [0, 0, 0]


@on_valkey
def test_a_connection_that_is_cut_anywhere_leaves_no_part(
    valkey: RunningServer, namespace: str, store: RedisStore
) -> None:
    source = random.Random(1)
    with proxied(valkey) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}?protocol=3"
        with RedisStore.from_url(url, namespace=namespace, partitions=1, feed=True) as cut:
            for number in range(1, 61):
                proxy.arm(Fault("request", source.randrange(1500)) if number % 2 else Fault("reply", number % 40))
                assert cut.append_all([Append(one, [{"n": number}]) for one in IDS]) == [number] * 3
            assert proxy.done > 30
    assert [event["n"] for one in IDS for event in store.stream(one)] == [*range(1, 61)] * 3


def test_a_group_in_asyncio_is_stored_once(valkey: RunningServer, namespace: str) -> None:
    async def main() -> list[list[int]]:
        with proxied(valkey) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}"
            async with AsyncRedisStore.from_url(url, namespace=namespace) as store:
                await store.append("a", numbered(1))
                proxy.arm(Fault("reply", 0))
                results = [await store.append_all([Append(one, numbered(1)) for one in IDS])]
                groups = [store.append_all([Append(one, numbered(1)) for one in IDS]) for _ in range(20)]
                return results + sorted(await asyncio.gather(*groups))

    assert asyncio.run(main()) == [[2 + number, 1 + number, 1 + number] for number in range(21)]


# A model


class Model:
    """The workflows as they should be.

    Attributes:
        events: the events of each workflow.
        ids: the cursors of the commits of each workflow, by their ids.
        feed: all commits, in order.
    """

    def __init__(self) -> None:
        self.events: dict[str, list[Any]] = {one: [] for one in IDS}
        self.ids: dict[str, dict[str, int]] = {one: {} for one in IDS}
        self.feed: list[tuple[str, list[Any]]] = []

    def append_all(self, group: list[Append]) -> list[int] | int:
        """Return the cursors, or the place of the commit for which the group is rejected."""
        before = [self.ids[one.workflow_id].get(str(one.commit_id)) if one.events else None for one in group]
        missing = [at for at, one in enumerate(group) if one.events and before[at] is None]
        found = [at for at, cursor in enumerate(before) if cursor is not None]
        if found and missing:
            return found[0]
        now = [len(self.events[one.workflow_id]) for one in group]
        if found:
            return [
                cursor or (at if one.expected_cursor is None else one.expected_cursor)
                for one, cursor, at in zip(group, before, now, strict=True)
            ]
        wrong = [at for at, one in enumerate(group) if one.expected_cursor not in {None, now[at]}]
        if wrong:
            return wrong[0]
        for one in group:
            self._append(one)
        return [len(self.events[one.workflow_id]) for one in group]

    def _append(self, one: Append) -> None:
        if one.events:
            self.events[one.workflow_id] += one.events
            self.feed.append((one.workflow_id, list(one.events)))
            if one.commit_id is not None:
                self.ids[one.workflow_id][str(one.commit_id)] = len(self.events[one.workflow_id])

    def delete(self, workflow_id: str) -> None:
        if self.events[workflow_id]:
            self.feed = [*((name, events) for name, events in self.feed if name != workflow_id), (workflow_id, [])]
        self.events[workflow_id], self.ids[workflow_id] = [], {}


def some_group(source: random.Random, model: Model, number: int) -> list[Append]:
    group = []
    for workflow_id in source.sample(IDS, source.randint(1, 3)):
        cursor = len(model.events[workflow_id])
        group.append(
            Append(
                workflow_id,
                [{"group": number, "n": n} for n in range(source.choice([0, 1, 1, 1, 3]))],
                expected_cursor=source.choice([None, None, cursor, cursor, cursor, cursor + source.choice([-1, 1])])
                if cursor
                else source.choice([None, 0]),
                commit_id=source.choice([None, None, f"id-{source.randrange(number // 3 + 1)}"]),
            )
        )
    return group


@on_both
@pytest.mark.parametrize("faults", [False, True], ids=["no faults", "faults"])
@pytest.mark.parametrize("seed", range(6))
def test_groups_do_as_a_model_does(store: RedisStore, seed: int, *, faults: bool) -> None:
    source, model = random.Random(seed), Model()
    faulty = make_faulty(store)
    outcomes = {"stored": 0, "rejected": 0}
    for number in range(60):
        if source.random() < 0.05:
            workflow_id = source.choice(IDS)
            store.delete(workflow_id)
            model.delete(workflow_id)
        group = some_group(source, model, number)
        expected = model.append_all(group)
        if faults:
            faulty.faults = source.choices([None, "reply", "request", "late"], [4, 1, 1, 1], k=2)
        if isinstance(expected, int):
            with pytest.raises(GroupRejected) as caught:
                store.append_all(group)
            assert caught.value.index == expected
        else:
            assert store.append_all(group) == expected
        outcomes["rejected" if isinstance(expected, int) else "stored"] += 1
        faulty.faults = []
        if source.random() < 0.3:
            faulty.deliver_late()
        assert cursors(store) == [len(model.events[one]) for one in IDS]
    faulty.deliver_late()
    assert min(outcomes.values()) > 5
    for one in IDS:
        assert model.events[one] == (list(store.stream(one)) if model.events[one] else [])
    assert [(name, events) for name, events in in_order(store) if events] == [
        (name, events) for name, events in model.feed if events
    ]


# Concurrency


@on_valkey
@pytest.mark.parametrize("careful", [False, True], ids=["any cursor", "expecting"])
def test_threads_with_groups_over_the_same_workflows(
    store: RedisStore, opener: Callable[..., RedisStore], *, careful: bool
) -> None:
    def write(thread: int) -> set[str]:
        source, stored = random.Random(thread), set()
        with opener() as own:
            for number in range(25):
                name, ids = f"{thread}/{number}", source.sample(IDS, source.randint(2, 3))
                expected = dict.fromkeys(ids) if not careful else {one: own.cursor(one) for one in ids}
                try:
                    own.append_all([Append(one, [{"group": name}], expected_cursor=expected[one]) for one in ids])
                    stored.add(f"{name} {len(ids)}")
                except GroupRejected:
                    assert careful
        return stored

    with ThreadPoolExecutor(16) as pool:
        stored = set().union(*pool.map(write, range(16)))
    assert len(stored) == 16 * 25 if not careful else stored
    found: list[str] = []
    for workflow_id, (event,) in in_order(store):
        if not found or found[-1] != event["group"]:
            assert event["group"] not in found, "its commits are not together"
            found.append(event["group"])
        assert event in list(store.stream(workflow_id))
    by_group = [event["group"] for _, (event,) in in_order(store)]
    assert {f"{name} {by_group.count(name)}" for name in found} == stored


# What the server rejects


def full_group(store: RedisStore) -> list[Append]:
    """Return a group whose second commit has all kinds of keys, with what it needs."""
    lease = store.acquire("b", "me", 1000)
    (fact,) = [Fact("in both")]
    store.append("b", [{"f": fact}], commit_id="first", snapshot=b"s", lease=lease)
    message = store.inbox("b")[0] if store.send("b", {"m": 1}) else None
    assert message is not None
    return [
        Append("a", [{"f": fact}], queue="elsewhere", expires_in=1000),
        Append(
            "b",
            [{"f": fact}],
            commit_id="c",
            lease=lease,
            snapshot=b"t",
            queue="elsewhere",
            consumes=message,
            ends_timer=True,
            expires_in=1000,
        ),
        Append("c", numbered(1)),
    ]


def raw(store: RedisStore) -> redis.Redis:
    client: redis.Redis = store._connected.server._client  # type: ignore[attr-defined]
    return client


@on_both
def test_a_foreign_value_at_any_key_changes_nothing(store: RedisStore) -> None:
    group, client, namespace = full_group(store), raw(store), store.context.keys.namespace
    faulty = make_faulty(store)
    with pytest.raises(GroupRejected):
        store.append_all([*group[:2], Append("c", numbered(1), expected_cursor=7)])
    keys = sorted({key for call in faulty.rounds[-1] for command in call.requests for key in command.command.keys})
    assert len(keys) > 20
    for key in keys:
        kept = client.type(key), f"{key}:kept"
        if kept[0] != b"none":
            client.rename(key, kept[1])
        client.set(key, "foreign")
        before = everything(client, namespace)
        with pytest.raises((GroupRejected, DecodeError)) as caught:
            store.append_all(group)
            pytest.fail(f"a foreign value at {key} is not noticed")
        assert isinstance(caught.value, DecodeError) or isinstance(caught.value.__cause__, DecodeError), key
        assert everything(client, namespace) == before, key
        client.delete(key)
        if kept[0] != b"none":
            client.rename(kept[1], key)
    assert store.append_all(group) == [1, 2, 1]


BAD_NUMBERS = ("what", "-1", "1.5", "9" * 30)
DAMAGE: dict[str, Callable[[redis.Redis, Any], object]] = {
    "an entry above the cursor": lambda client, keys: client.xadd(keys.events, {"a": "b"}, id="1000-0"),
    "a deleted entry above the cursor": lambda client, keys: client.xdel(
        keys.events, client.xadd(keys.events, {"a": "b"}, id="1000-0")
    ),
    "an entry above the position": lambda client, keys: client.xadd(keys.feed, {"a": "b"}, id="1000-0"),
    "a deleted entry above the position": lambda client, keys: client.xdel(
        keys.feed, client.xadd(keys.feed, {"a": "b"}, id="1000-0")
    ),
    "a lost position": lambda client, keys: client.hdel(keys.partition, "position"),
    "a position that cannot be counted on": lambda client, keys: client.hset(keys.partition, "position", 2**53 + 1),
    "a lost set of facts": lambda client, keys: client.delete(keys.refs),
    "a lost inbox": lambda client, keys: client.delete(keys.inbox),
    **{
        f"{field} is {bad}": lambda client, keys, field=field, bad=bad: client.hset(keys.meta, field, bad)  # type: ignore[misc]
        for field in ("cursor", "largest", "ids", "refs", "inbox", "expires", "cancel")
        for bad in BAD_NUMBERS
    },
    **{
        f"position is {bad}": lambda client, keys, bad=bad: client.hset(keys.partition, "position", bad)  # type: ignore[misc]
        for bad in BAD_NUMBERS
    },
    **{
        f"the count of {name} is {bad}": lambda client, keys, name=name, bad=bad: client.hset(keys.queues, name, bad)  # type: ignore[misc]
        for name in ("default", "elsewhere")
        for bad in BAD_NUMBERS
    },
}


@on_both
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_that_would_stop_a_commit_stops_the_group_before_its_first_change(
    store: RedisStore, damage: str
) -> None:
    group, client, namespace = full_group(store), raw(store), store.context.keys.namespace
    DAMAGE[damage](client, store.context.keys.workflow("b"))
    before = everything(client, namespace)
    with pytest.raises(GroupRejected, match="othing") as caught:
        store.append_all(group)
    assert isinstance(caught.value.__cause__, DecodeError)
    assert everything(client, namespace) == before


@pytest.mark.parametrize("kind", ["valkey", "redis_6_2"])
def test_a_full_server_stores_no_part(request: pytest.FixtureRequest, namespace: str, kind: str) -> None:
    server = request.getfixturevalue(kind)
    with RedisStore.from_url(server.url(), namespace=namespace) as store, server.client() as client:
        group = full_group(store)
        before = everything(client, namespace)
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(WriteRefused) as caught:
                store.append_all(group)
        finally:
            client.config_set("maxmemory", 0)
        assert caught.value.code == "OOM"
        assert everything(client, namespace) == before
        assert store.append_all(group) == [1, 2, 1]


def test_a_replica_rejects_a_group_as_a_whole(tmp_path: Path) -> None:
    with servers.running(servers.valkey_program(), tmp_path) as server, server.client() as client:
        with RedisStore.from_url(server.url(), deadline_s=0.2) as store:
            store.append("a", numbered(1))
            before = everything(client, "runic")
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(StoreUnavailable, match="replica"):
                store.append_all([Append("a", numbered(1)), Append("b", numbered(1))])
            with pytest.raises(StoreUnavailable, match="replica"):
                store.append_all([Append("a", numbered(1))])
        assert everything(client, "runic") == before


PERMISSIONS = ["hdel", "hincrby", "hset", "hsetnx", "xadd", "xinfo", "zadd", "zrem"]


@pytest.mark.parametrize("permission", PERMISSIONS)
@pytest.mark.parametrize("kind", ["valkey", "redis_6_2"])
def test_without_a_permission_no_part_is_stored(
    request: pytest.FixtureRequest, namespace: str, kind: str, permission: str
) -> None:
    server = request.getfixturevalue(kind)
    with (
        server.client() as admin,
        RedisStore.from_url(server.url(), namespace=namespace, partitions=1, feed=True) as owner,
    ):
        group = full_group(owner)
        before = everything(admin, namespace)
        with (
            user([admin], without(f"{EVERYTHING} +xdel", f"+{permission}"), namespace) as login,
            RedisStore.from_url(f"{server.url()}&{login}", namespace=namespace, partitions=1, feed=True) as store,
        ):
            with pytest.raises((ConfigurationError, GroupRejected)) as caught:
                store.append_all(group)
            said = str(caught.value)
            assert "ACL LOG" in said
            assert "The writes of the script before that stay" not in said or isinstance(caught.value, GroupRejected)
        assert everything(admin, namespace) == before
        assert owner.append_all(group) == [1, 2, 1]


# What has to come first


@on_both
def test_many_workflows_that_are_over_are_settled_together(store: RedisStore) -> None:
    ids = [f"over-{number}" for number in range(12)]
    for one in ids:
        store.append(one, numbered(3), expires_in=0.001)
    servers.wait_until(lambda: not any(map(store.exists, ids)), "the ends")
    assert store.append_all([Append(one, numbered(1)) for one in ids]) == [1] * 12


@on_both
def test_many_workflows_in_other_queues_than_expected(store: RedisStore) -> None:
    ids = [f"queued-{number}" for number in range(12)]
    store.append_all([Append(one, numbered(1), queue=f"queue-{one}") for one in ids])
    assert store.append_all([Append(one, numbered(1), queue="new") for one in ids]) == [2] * 12
    assert sorted(lease.workflow_id for lease in store.claim("me", 20, queues=["new"])) == sorted(ids)
    assert store.claim("me", 20, queues=[f"queue-{one}" for one in ids]) == []


@on_both
@pytest.mark.parametrize("loss", [None, "reply", "late"])
def test_a_namespace_that_was_deleted_is_made_again(
    store: RedisStore, opener: Callable[..., RedisStore], loss: str | None
) -> None:
    with opener() as other:
        other.delete_namespace()
        faulty = make_faulty(store)
        faulty.faults = [None, loss, loss] if loss else []
        assert store.append_all([Append(one, numbered(1)) for one in IDS]) == [1, 1, 1]
        faulty.deliver_late()
        assert cursors(other) == [1, 1, 1]


@on_both
def test_a_group_with_an_error_settles_nothing(store: RedisStore) -> None:
    store.append("a", numbered(3), expires_in=0.001)
    servers.wait_until(lambda: not store.exists("a"), "the end")
    faulty = make_faulty(store)
    with pytest.raises(GroupRejected) as caught:
        store.append_all([Append("a", numbered(1)), Append("b", [], expected_cursor=2)])
    assert caught.value.index == 1
    assert len(faulty.rounds) == 1


# Clusters


def test_in_a_cluster_workflows_of_several_partitions_are_rejected_before_anything_is_sent(
    cluster_nodes: list[RunningServer], namespace: str
) -> None:
    with RedisStore.from_url(servers.cluster_url(cluster_nodes), namespace=namespace) as store:
        store.append("order-{42}", numbered(1))
        with pytest.raises(
            InvalidArgument, match=r"'order-\{42\}' is in partition \d+, and 'payment-7' in \d+"
        ) as caught:
            store.append_all([Append(one, numbered(1)) for one in ("order-{42}", "payment-{42}", "payment-7")])
        assert "'order-{42}' and 'payment-{42}'" in str(caught.value)
        assert [store.exists(one) for one in ("payment-{42}", "payment-7")] == [False, False]
        facts = [Append(one, [{"f": Fact(one)}]) for one in ("order-{42}", "payment-{42}")]
        assert store.append_all(facts) == [2, 1]
        ((event,), *_) = [list(store.stream("payment-{42}"))]
        assert store.load_fact(event["f"].hash) == "payment-{42}"


@pytest.fixture(scope="module")
def lone_node(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with servers.cluster(servers.valkey_program(), tmp_path_factory.mktemp("lone"), primaries=1) as (node,):
        yield node


def test_a_cluster_of_one_node_is_a_cluster(lone_node: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(f"redis://127.0.0.1:{lone_node.port}", namespace=namespace) as store:
        with pytest.raises(InvalidArgument, match=r"Nothing was stored.*braces"):
            store.append_all([Append(f"order-{number}", numbered(1)) for number in range(5)])
        assert list(store.list()) == []
    with RedisStore.from_url(f"redis://127.0.0.1:{lone_node.port}", namespace=namespace) as store:
        group = [Append(f"order-{number}-{{1}}", [{"f": Fact(number)}]) for number in range(5)]
        assert store.append_all(group) == [1] * 5
        (event,) = store.stream("order-3-{1}")
        assert store.load_fact(event["f"].hash) == 3


@on_both
def test_an_unknown_error_of_a_commit_is_its_cause(store: RedisStore) -> None:
    raw(store).set(store.context.keys.workflow("b").events, "foreign")
    with pytest.raises(GroupRejected, match="'b'") as caught:
        store.append_all([Append("a", numbered(1)), Append("b", numbered(1))])
    assert isinstance(caught.value.__cause__, StoreError)
    assert caught.value.index == 1


def test_the_rounds_of_a_group(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        store.append("other", numbered(1))
        faulty: FaultyServer = make_faulty(store)
        store.append_all([Append(f"w-{number}", [{"f": Fact(number)}], queue="q") for number in range(50)])
        assert [len(calls) for calls in faulty.rounds] == [1]
