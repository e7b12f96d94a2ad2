"""Users with the fewest permissions: the rules of docs/security.md, taken from the page, on real servers.

Each rule suffices for its purpose, and each of its permissions is necessary: without it, something fails.
"""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from runic_redis import AsyncRedisStore, ConfigurationError, RedisStore, StoreError, StoreUnavailable, replicated
from runic_redis.admin.describing import describe_one
from runic_redis.admin.exporting import Exporter
from runic_redis.admin.importing import Importer
from runic_redis.keys import Keys
from runic_redis.operations.counting import count_states
from runic_redis.operations.facts import count_facts
from runic_redis.operations.namespace import memory_of
from runic_redis.protocol.scripts import load_script, scripts_directory
from runic_redis.testing.examples import numbered
from tests import servers, tour
from tests.pages import serving
from tests.portal import BlockingStore
from tests.servers import RunningServer
from tests.test_verifying import verify

PAGE = (Path(__file__).parent.parent / "docs" / "security.md").read_text()
# The purpose of each rule, and the rule without the name of its user.
RULES = dict(re.findall(r"(?m)^# (.+)\nACL SETUSER \S+ (.+)$", PAGE))
EVERYTHING = RULES["everything"]
PAGE_CHANGES = "the web page with --allow-changes, in addition"
COMMAND_LINE = "the command line: show, stats, workflows --count, verify, export, import, copy"
HINTS = "claims that a hint wakes; without this rule, a waiting claim looks once a second"
PARTS: dict[str, Sequence[Callable[[Any, str], None]]] = {
    "everything": (tour.writes, tour.reads, tour.lists, tour.removes),
    "everything but trim, collect, delete, delete_namespace and memory_usage": (tour.writes, tour.reads, tour.lists),
    "reading and following workflows, snapshots, logs and facts by their names": (tour.reads,),
    "the same, and listing": (tour.lists, tour.reads),
}
SECRET = "s3cret/w0rd"
NOT_ALLOWED = "(?i)permission|can't (run this command|access at least one of the keys)"


@pytest.fixture(params=["valkey", "redis_6_2"])
def server(request: pytest.FixtureRequest) -> RunningServer:
    return request.getfixturevalue(request.param)


@pytest.fixture(
    params=[RedisStore.from_url, lambda url, **options: BlockingStore(AsyncRedisStore.from_url(url, **options))],
    ids=["sync", "asyncio"],
)
def open_url(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return request.param


def permissions(rule: str) -> list[str]:
    return re.findall(r" (\+\S+|~\S+)", f" {rule}")


def without(rule: str, permission: str) -> str:
    return " ".join(part for part in rule.split() if part != permission)


@contextmanager
def user(admins: Sequence[redis.Redis], rule: str, namespace: str) -> Iterator[str]:
    """Make a user by a rule of the page, with another password and namespace. Yield the URL options of its login."""
    name = f"user-{namespace}"
    words = rule.replace(">password", f">{SECRET}").replace("{shop", "{" + namespace).split()
    for admin in admins:
        admin.execute_command("ACL", "SETUSER", name, *words)
        # The store must then send each script as text once, which takes EVAL.
        admin.script_flush()
    yield f"username={name}&password=s3cret%2Fw0rd"
    for admin in admins:
        admin.execute_command("ACL", "DELUSER", name)


def prepare(server: RunningServer, namespace: str, parts: Sequence[Any]) -> None:
    """Write the data that these parts need, as a user with all permissions."""
    if tour.writes not in parts:
        with RedisStore.from_url(server.url(), namespace=namespace, partitions=1, feed=True) as store:
            tour.writes(store, "order-1")


@pytest.mark.usefixtures("few_buckets")
@pytest.mark.parametrize("purpose", PARTS)
def test_a_rule_suffices(server: RunningServer, open_url: Any, namespace: str, purpose: str) -> None:
    prepare(server, namespace, PARTS[purpose])
    with (
        server.client() as admin,
        user([admin], RULES[purpose], namespace) as login,
        open_url(f"{server.url()}&{login}", namespace=namespace, partitions=1, feed=True) as store,
    ):
        for part in PARTS[purpose]:
            part(store, "order-1")


@pytest.mark.usefixtures("few_buckets")
@pytest.mark.parametrize("purpose", PARTS)
def test_with_any_permission_less_something_fails(server: RunningServer, namespace: str, purpose: str) -> None:
    with server.client() as admin:
        for number, permission in enumerate(permissions(RULES[purpose])):
            if permission == "+evalsha":
                continue  # the store falls back to EVAL
            name = f"{namespace}-{number}"
            prepare(server, name, PARTS[purpose])
            with (
                user([admin], without(RULES[purpose], permission), name) as login,
                pytest.raises(ConfigurationError, match=NOT_ALLOWED) as caught,
                RedisStore.from_url(f"{server.url()}&{login}", namespace=name, partitions=1, feed=True) as store,
            ):
                for part in PARTS[purpose]:
                    part(store, "order-1")
                pytest.fail(f"the tour also works without {permission}")
            assert "ACL LOG" in str(caught.value)
            assert "w0rd" not in str(caught.value)


@pytest.mark.usefixtures("few_buckets")
def test_without_evalsha_everything_works(server: RunningServer, namespace: str) -> None:
    purpose = "everything"
    prepare(server, namespace, PARTS[purpose])
    with (
        server.client() as admin,
        user([admin], without(RULES[purpose], "+evalsha"), namespace) as login,
        RedisStore.from_url(f"{server.url()}&{login}", namespace=namespace, partitions=1, feed=True) as store,
    ):
        for part in PARTS[purpose]:
            part(store, "order-1")


def test_the_tour_calls_every_method_of_a_store() -> None:
    own = {
        "close",
        "closed",
        "decode_state",
        "encode_events",
        "encode_state",
        "fact_hash",
        "from_url",
        "open",
        "registry",
        "run",
        "url",
    }
    assert {
        name for kind in (RedisStore, AsyncRedisStore) for name in dir(kind) if name[0] != "_"
    } - own == tour.METHODS
    source = Path(tour.__file__).read_text()
    assert {name for name in tour.METHODS if f"store.{name}(" not in source} == set()


def test_the_rule_names_every_command_of_the_scripts() -> None:
    allowed = set(
        re.findall(
            r"\+(\S+)",
            " ".join((EVERYTHING, *map(RULES.get, ("durability replicated(n)", "subscriptions", COMMAND_LINE, HINTS)))),
        )
    )
    for path in scripts_directory().glob("*.lua"):
        called = re.findall(r"(?:\bcall|\bpcall|\btry)\('(\w+)'", load_script(path.stem).text)
        assert called
        assert {name.lower() for name in called} <= allowed, path.stem


REMOVING: list[Callable[[Any], Any]] = [
    lambda store: store.trim("order-1"),
    lambda store: store.delete("order-1"),
    lambda store: store.delete_namespace(),
    lambda store: store.memory_usage(),
]
CHANGING: list[Callable[[Any], Any]] = [
    *REMOVING,
    lambda store: store.collect(grace=0),
    lambda store: store.append("order-1", numbered(1)),
    lambda store: store.save_snapshot("order-1", 3, b"other"),
    lambda store: store.save("order-1", []),
    lambda store: store.put_fact("other"),
    lambda store: store.acquire("order-2", "reader"),
    lambda store: store.complete("left"),
    lambda store: store.expire("order-1", 1),
]
# The calls that the server rejects for each rule, in the order of PARTS.
REFUSED = dict(zip(PARTS, [[], REMOVING, [*CHANGING, lambda store: next(store.list())], CHANGING], strict=True))


@pytest.mark.parametrize("purpose", list(PARTS)[1:])
def test_what_is_refused_changes_nothing(server: RunningServer, open_url: Any, namespace: str, purpose: str) -> None:
    prepare(server, namespace, ())
    with (
        server.client() as admin,
        RedisStore.from_url(server.url(), namespace=namespace, partitions=1, feed=True) as owner,
        user([admin], RULES[purpose], namespace) as login,
        open_url(f"{server.url()}&{login}", namespace=namespace, partitions=1, feed=True) as store,
    ):
        tour.lists(owner, "order-1")
        owner.acquire("left", "nobody")
        kept = {key: admin.dump(key) for key in admin.keys(f"{{{namespace}*")}
        for attempt in REFUSED[purpose]:
            with pytest.raises(ConfigurationError, match=NOT_ALLOWED):
                attempt(store)
        if purpose != list(PARTS)[1]:
            assert isinstance(store.append_many([("order-1", numbered(1))])[0], ConfigurationError)
        assert {key: admin.dump(key) for key in admin.keys(f"{{{namespace}*")} == kept


def test_a_user_has_one_namespace_and_no_other(server: RunningServer, open_url: Any, namespace: str) -> None:
    near = [f"{namespace}2", namespace[:-1], f"{namespace}-", f"a{namespace}", f"{namespace}/fact", "shop"]
    with server.client() as admin, user([admin], EVERYTHING, namespace) as login:
        for other in near:
            with pytest.raises(ConfigurationError, match="NOPERM"):
                open_url(f"{server.url()}&{login}", namespace=other)
        # The user's own scripts cannot reach other namespaces either.
        script = "return redis.call('GET', KEYS[1])"
        with server.client(username=f"user-{namespace}", password=SECRET) as client:
            assert client.eval(script, 1, f"{{{namespace}:1}}:log:x") is None
            for other in near:
                for key in (f"{{{other}:1}}:log:x", f"{{{other}}}:config", f"{{{other}:fact:1}}"):
                    with pytest.raises(redis.ResponseError, match=NOT_ALLOWED):
                        client.eval(script, 1, key)
                    with pytest.raises(redis.ResponseError, match=NOT_ALLOWED):
                        client.eval(script.replace("KEYS[1]", f"'{key}'"), 0)


def test_a_missing_permission_is_named(valkey: RunningServer, open_url: Any, namespace: str) -> None:
    with (
        valkey.client() as admin,
        user([admin], without(EVERYTHING, "+zadd"), namespace) as login,
        open_url(f"{valkey.url()}&{login}", namespace=namespace) as store,
        pytest.raises(ConfigurationError) as caught,
    ):
        store.append("order-1", numbered(1))
    said = str(caught.value)
    assert f"User user-{namespace} has no permissions to run the 'zadd' command" in said
    assert "The writes of the script before that stay." in said


# Permissions that options and tools need in addition


def neglect(store: Any) -> None:
    """Make the connection that a store holds look unused for a long time."""
    server = (store._store if isinstance(store, BlockingStore) else store)._connected.server
    connections = server._connections
    held = connections._held if hasattr(connections, "_held") else connections._idle[-1]
    held[0].next_health_check = 0


def needs(extra: str, open_it: Callable[[str], Any], admins: Sequence[redis.Redis], namespace: str) -> None:
    """Check that a store works with the extra permissions of a rule, and fails without any one of them."""
    rule = f"{EVERYTHING} {RULES[extra]}"
    with user(admins, rule, namespace) as login:
        open_it(login)
    for permission in permissions(RULES[extra]):
        with user(admins, without(rule, permission), namespace) as login:  # noqa: SIM117
            # (Without ASKING, the two nodes redirect a client to each other endlessly.)
            with pytest.raises(StoreError, match=r"(?i)permission|redirects in a circle"):
                open_it(login)


@pytest.mark.parametrize(
    ("extra", "options"),
    [
        ("a database that is not 0, by /1 or db=1", "db=1"),
        ("client_name", "client_name=worker"),
        ("health_check_interval", "health_check_interval=1000"),
    ],
)
def test_what_an_option_of_a_url_adds(
    server: RunningServer, open_url: Any, namespace: str, extra: str, options: str
) -> None:
    def use(login: str) -> None:
        with open_url(f"{server.url()}&{login}&{options}", namespace=namespace, deadline_s=0) as store:
            store.append("order-1", numbered(1))
            neglect(store)
            store.append("order-1", numbered(1))

    with server.client() as admin:
        needs(extra, use, [admin], namespace)


@pytest.mark.usefixtures("few_buckets")
def test_what_the_command_line_adds(server: RunningServer, namespace: str) -> None:
    def use(login: str) -> None:
        for key in admin.scan_iter(f"{{{namespace}[:}}]*"):
            admin.delete(key)
        with RedisStore.from_url(f"{server.url()}&{login}", namespace=namespace, partitions=2, feed=True) as store:
            tour.writes(store, "order-1")
            assert verify(store).findings == []
            records: list[Any] = []
            store.run(Exporter(store.context).run(records.append), "export")
            store.delete_namespace()
            importer = Importer(store.context)
            for record in records:
                store.run(importer.take(record), "import")
            assert (importer.complete, importer.problems) == (True, [])
            assert verify(store).findings == []
            assert store.run(describe_one(store.context, "order-1"), "describe").damaged == ()
            assert store.run(memory_of(store.context, "order-1"), "memory_usage")["events"] > 0
            assert store.run(count_facts(store.context), "count_facts") > 0
            assert sum(store.run(count_states(store.context), "count_states").values()) > 0

    with server.client() as admin:
        needs(COMMAND_LINE, use, [admin], namespace)


def test_what_subscriptions_add(server: RunningServer, open_url: Any, namespace: str) -> None:
    def use(login: str) -> None:
        with open_url(f"{server.url()}&{login}", namespace=namespace, partitions=1, feed=True) as store:
            store.append("order-1", numbered(1))
            with store.subscribe("mailer") as subscription:
                subscription.ack(next(subscription))

    with server.client() as admin:
        needs("subscriptions", use, [admin], namespace)


def test_everything_suffices_where_a_stream_is_damaged(server: RunningServer, open_url: Any, namespace: str) -> None:
    """The entry of a commit that the stream rejects is taken out of the feed again."""
    with (
        server.client() as admin,
        user([admin], EVERYTHING, namespace) as login,
        open_url(f"{server.url()}&{login}", namespace=namespace, partitions=1, feed=True) as store,
    ):
        store.append("order-1", numbered(1))
        keys = store.context.keys.workflow("order-1")
        admin.xadd(keys.events, {"a": "b"}, id="1000-0")
        with pytest.raises(StoreError, match="equal or smaller"):
            store.append("order-1", numbered(1))
        ((_, fields),) = admin.xrevrange(keys.feed, count=1)
        assert fields == {b"void 1": b"0 "}


def test_what_hints_add(valkey: RunningServer, open_url: Any, namespace: str) -> None:
    """A user without the rule claims what is due, and waits for it, by looks alone."""

    def use(login: str) -> None:
        with open_url(f"{valkey.url()}&{login}", namespace=namespace, partitions=1) as store:
            store.append("order-1", numbered(1), queue="default", due=0.3)
            assert [one.workflow_id for one in store.claim("me", wait_s=10)] == ["order-1"]
            store.append("order-2", numbered(1), queue="default")
            store.delete("order-1")
            store.delete("order-2")

    rule = f"{EVERYTHING} {RULES[HINTS]}"
    with valkey.client() as admin:
        for words in (rule, EVERYTHING, *(f"{without(rule, one)}" for one in ("+publish", "+subscribe"))):
            with user([admin], words, namespace) as login:
                use(login)


def test_the_rule_of_hints_lets_them_through(valkey: RunningServer, namespace: str) -> None:
    with valkey.client() as admin:
        for words, counted in ((EVERYTHING, 0), (f"{EVERYTHING} {RULES[HINTS]}", 1)):
            with user([admin], words, namespace) as login, admin.pubsub() as heard:
                heard.subscribe(f"{{{namespace}}}:due")
                assert heard.get_message(timeout=5)["type"] == "subscribe"
                with RedisStore.from_url(f"{valkey.url()}&{login}", namespace=namespace, partitions=1) as store:
                    store.append(f"order-{counted}", numbered(1), queue="default")
                admin.publish(f"{{{namespace}}}:due", "end")
                found = [heard.get_message(timeout=5)["data"]]
                while found[-1] != b"end":
                    found.append(heard.get_message(timeout=5)["data"])
                assert len(found) == counted + 1


def test_listing_suffices_for_rebuilding_from_the_feed(server: RunningServer, open_url: Any, namespace: str) -> None:
    prepare(server, namespace, ())
    with (
        server.client() as admin,
        user([admin], RULES["the same, and listing"], namespace) as login,
        open_url(f"{server.url()}&{login}", namespace=namespace, partitions=1, feed=True) as store,
    ):
        found = [(one.workflow_id, one.cursor) for one in store.feed(start="rebuild", wait_s=0)]
        assert ("order-1", 3) in found


def test_what_the_web_page_adds(valkey: RunningServer, namespace: str) -> None:
    lister = RULES["the same, and listing"]
    adds = RULES["the web page, for one who may list"]
    with (
        valkey.client() as admin,
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=2, feed=True) as store,
    ):
        tour.writes(store, "order-1")
        ref = store.put_fact("looked at")
        views = [
            f"api/{view}?id=order-1" for view in ("workflow", "memory", "overview", "events", "graph", "checkpoints")
        ]
        views += [
            "api/subscriptions",
            "api/parked?name=mailer",
            "api/summary",
            "api/workflows",
            "api/event?id=order-1&cursor=1",
            f"api/fact?hash={ref}",
            "metrics",
        ]
        for permission in ["", *permissions(adds)]:
            with user([admin], without(f"{lister} {adds}", permission), namespace) as login:  # noqa: SIM117
                with serving(f"{valkey.url()}&{login}", namespace) as page:
                    answers = [page.ask(view) for view in views]
                    fine = all(answer.status == 200 for answer in answers) and b"_up{" in answers[-1].body
                    fine = fine and b"} 1.0" in answers[-1].body.partition(b"_up{")[2].partition(b"\n")[0]
                    assert fine == (not permission), permission


def test_what_changes_by_the_web_page_add(valkey: RunningServer, namespace: str) -> None:
    rules = ("the same, and listing", "the web page, for one who may list", PAGE_CHANGES)
    rule = " ".join(RULES[name] for name in rules)
    with (
        valkey.client() as admin,
        RedisStore.from_url(valkey.url(), namespace=namespace, partitions=2, feed=True) as store,
    ):
        for permission in ["", *permissions(RULES[PAGE_CHANGES])]:
            for workflow_id in ("order-1", "order-2"):
                store.append(workflow_id, numbered(1))
            with store.subscribe("mailer", wait_s=0) as mailer:
                for commit in mailer:
                    mailer.park(commit, "declined")
            with user([admin], without(rule, permission), namespace) as login:  # noqa: SIM117
                with serving(f"{valkey.url()}&{login}", namespace, "--allow-changes") as page:
                    headers = {"X-Runic-Redis": "1", "Authorization": f"Bearer {page.url.partition('?token=')[2]}"}
                    wanted = ("replay?name=mailer&id=order-1", "drop?name=mailer&id=order-2")
                    answers = [page.ask(f"api/parked/{one}", headers, "POST").status for one in wanted]
                    assert (answers == [200, 200]) == (not permission), permission


@pytest.mark.usefixtures("few_buckets")
def test_what_verifying_a_cluster_adds(cluster_nodes: list[RunningServer], namespace: str) -> None:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster_nodes)
    rules = [EVERYTHING, RULES["a cluster"], RULES[COMMAND_LINE], RULES["its verify, in a cluster"]]
    with ExitStack() as stack:
        admins = [stack.enter_context(node.client()) for node in cluster_nodes]
        for permission in ["", *permissions(rules[-1])]:
            with user(admins, without(" ".join(rules), permission), namespace) as login:  # noqa: SIM117
                with RedisStore.from_url(f"redis+cluster://{hosts}?{login}", namespace=namespace) as store:
                    store.append("order-1", numbered(1))
                    if permission:
                        with pytest.raises(ConfigurationError, match=NOT_ALLOWED):
                            verify(store)
                    else:
                        assert verify(store).findings == []


def test_what_durability_adds(tmp_path: Path, namespace: str) -> None:
    (port, other), program = servers.free_ports(2), servers.valkey_program()
    synced = ("--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0")
    with (
        servers.running(program, tmp_path / "primary", *synced, port=port) as primary,
        servers.running(program, tmp_path / "replica", *synced, *servers.following(primary), port=other) as replica,
        primary.client() as admin,
    ):
        servers.wait_until(lambda: servers.follows(replica), "the replica to follow")
        for extra, durability in (
            ("durability replicated(n)", replicated(1)),
            ('durability "fsync", and replicated(n, fsync=True)', "fsync"),
        ):
            needs(extra, durable_use(primary, namespace, durability), [admin], namespace)


def test_what_durability_adds_on_an_old_server(tmp_path: Path, namespace: str) -> None:
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with servers.running(servers.redis_6_2_program(), tmp_path, *options) as server, server.client() as admin:
        use = durable_use(server, namespace, "fsync")
        needs(
            'durability "fsync" before Redis 7.2: shows the user every setting of the server, passwords among them',
            use,
            [admin],
            namespace,
        )


def durable_use(server: RunningServer, namespace: str, durability: Any) -> Callable[[str], None]:
    def use(login: str) -> None:
        url = f"{server.url()}&{login}"
        with RedisStore.from_url(url, namespace=namespace, durability=durability, deadline_s=5) as store:
            # A commit that was already stored must be confirmed as well.
            assert store.append("order-1", numbered(1), commit_id="a") == 1
            assert store.append("order-1", numbered(1), commit_id="a") == 1

    return use


@pytest.mark.usefixtures("few_buckets")
def test_what_a_cluster_adds(cluster_nodes: list[RunningServer], open_url: Any, namespace: str) -> None:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster_nodes)
    meta = Keys(namespace, 64).workflow("elsewhere").meta
    slot = key_slot(meta.encode())
    with ExitStack() as stack:
        admins = [stack.enter_context(node.client()) for node in cluster_nodes]
        here, there = admins[at := min(slot // (16384 // 3), 2)], admins[(at + 1) % 3]

        def use(login: str) -> None:
            with open_url(f"redis+cluster://{hosts}?{login}", namespace=namespace, deadline_s=1, feed=True) as store:
                for part in PARTS["everything"]:
                    part(store, "order-1")
                # While a slot moves to another node, the store asks that node for keys that this one lacks.
                there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", here.cluster("MYID").decode())
                here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", there.cluster("MYID").decode())
                try:
                    assert store.cursor("elsewhere") == 0
                finally:
                    for admin in (here, there):
                        admin.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")

        needs("a cluster", use, admins, namespace)


def test_what_a_sentinel_asks_for(tmp_path: Path, open_url: Any, namespace: str) -> None:
    (port,), program = servers.free_ports(1), servers.valkey_program()
    extra = "on the Sentinels, for sentinel_username"
    with (
        servers.running(program, tmp_path / "primary", port=port) as primary,
        servers.sentinel(program, tmp_path / "sentinel", "shop", primary) as watcher,
        primary.client() as admin,
        redis.Redis(port=watcher) as admin_of_sentinel,
        user([admin], EVERYTHING, namespace) as login,
    ):
        for rule in (RULES[extra], without(RULES[extra], "+sentinel|masters")):
            admin_of_sentinel.execute_command("ACL", "SETUSER", "seer", *rule.replace("password", SECRET).split())
            url = f"redis+sentinel://127.0.0.1:{watcher}/shop?{login}&sentinel_username=seer&sentinel_password=s3cret%2Fw0rd"
            if "+sentinel|masters" in rule:
                with open_url(url, namespace=namespace) as store:
                    assert store.append("order-1", numbered(1)) == 1
            else:
                with pytest.raises(StoreError, match=r"seer|No master found"):
                    open_url(url, namespace=namespace)


def test_without_info_a_store_works_and_warns_of_nothing(
    valkey: RunningServer, open_url: Any, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    info = next(rule for purpose, rule in RULES.items() if purpose.startswith("warnings on opening"))
    for rule, warnings in ((EVERYTHING, []), (f"{EVERYTHING} {info}", ["The server keeps no append-only file"])):
        caplog.clear()
        with (
            valkey.client() as admin,
            user([admin], rule, namespace) as login,
            caplog.at_level(logging.WARNING),
            open_url(f"{valkey.url()}&{login}", namespace=namespace) as store,
        ):
            store.append("order-1", numbered(1))
        assert [record.message.partition(":")[0] for record in caplog.records] == warnings


def test_a_login_that_is_refused_says_so(server: RunningServer, open_url: Any, namespace: str) -> None:
    with server.client() as admin, user([admin], EVERYTHING + " off", namespace) as login:
        with pytest.raises(ConfigurationError, match="refused the login"):
            open_url(f"{server.url()}&{login}", namespace=namespace)
        with pytest.raises((ConfigurationError, StoreUnavailable), match="refused the login"):
            open_url(f"{server.url()}&username=nobody-{namespace}&password=x", namespace=namespace)


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.append("new", numbered(1)),
        lambda store: store.save("new", []),
        lambda store: store.save_snapshot("new", 0, b""),
        lambda store: store.acquire("new", "me"),
        lambda store: store.acquire("order-1", "me"),
    ],
    ids=["append", "save", "save_snapshot", "acquire", "acquire what is there"],
)
def test_a_user_without_hincrby_leaves_no_count_wrong(server: RunningServer, namespace: str, write: Any) -> None:
    with (
        server.client() as admin,
        RedisStore.from_url(server.url(), namespace=namespace, partitions=1, feed=True) as owner,
    ):
        owner.append("order-1", numbered(1))
        with (
            user([admin], without(EVERYTHING, "+hincrby"), namespace) as login,
            RedisStore.from_url(f"{server.url()}&{login}", namespace=namespace, partitions=1, feed=True) as store,
            pytest.raises(ConfigurationError, match=NOT_ALLOWED),
        ):
            write(store)
        assert list(owner.list()) == ["order-1"]
        assert owner.claim("me") == []
        assert verify(owner).findings == []


def test_an_end_that_a_worker_may_not_settle_fails_its_own_write_alone(server: RunningServer, namespace: str) -> None:
    with (
        server.client() as admin,
        RedisStore.from_url(server.url(), namespace=namespace, partitions=1, feed=True) as owner,
        user([admin], RULES[list(PARTS)[1]], namespace) as login,
        RedisStore.from_url(f"{server.url()}&{login}", namespace=namespace, partitions=1, feed=True) as store,
    ):
        owner.append("over", numbered(1))
        owner.complete("over")
        owner.expire("over", 0.001)
        servers.wait_until(lambda: not store.exists("over"), "the end")
        first, second, third = store.append_many([("over", numbered(1)), ("new", numbered(1)), ("over", numbered(2))])
        assert second == 1
        for error in (first, third):
            assert isinstance(error, ConfigurationError)
        assert list(owner.list()) == ["new"]
