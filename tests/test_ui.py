"""The web page's server, on real servers: the answers of its addresses, its access rules, and failures."""

import http.client
import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from runic_redis import Fact, FactRef, RedisStore, event
from runic_redis.runic_events import FactProduced, RunnableCompleted
from runic_redis.ui import is_loopback
from tests.forking import run_forked
from tests.pages import COMMAND, Answer, Page, serving
from tests.servers import RunningServer, free_ports, running, valkey_program

ODD = "a/b c?d#e%20<b>&\u00eb\u2028"
TOKEN = "0123456789abcdefghij"


@event("page_paid")
@dataclass
class Paid:
    """The page is served without this class."""

    amount: int
    by: Any = None


@pytest.fixture(scope="module")
def shop(valkey: RunningServer) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace="page", partitions=16) as store:
        store.append("first", [{"n": 1}])
        yield store
        store.delete_namespace()


@pytest.fixture(scope="module")
def page(valkey: RunningServer, shop: RedisStore) -> Iterator[Page]:
    with serving(valkey.url(), shop.context.keys.namespace) as page:
        yield page


@pytest.fixture
def made(valkey: RunningServer, namespace: str) -> str:
    """A namespace that exists."""
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        store.append("w", [{"n": 1}])
    return namespace


def test_the_workflows_are_paged_newest_first(page: Page, shop: RedisStore) -> None:
    shop.append_many([(f"paged-{n:03}", [{"n": n}]) for n in range(120)])  # of one time
    for n in range(30):
        shop.append(f"PAGED-later-{n:03}", [{"n": n}])
    before = page.get("summary")["workflows"]
    for limit, part in ((1, "aged-01"), (1, "aged-later-"), (7, "aged-"), (50, "aged-"), (200, "aged-")):
        seen: list[str] = []
        place: dict[str, Any] = {}
        while True:
            found = page.get("workflows", containing=part, limit=limit, **place)
            assert len(found["workflows"]) <= limit
            seen += [one["workflow_id"] for one in found["workflows"]]
            if found["next"] is None:
                break
            place = {"before": found["next"]}
        assert seen == [id_ for id_ in shop.list() if part in id_.lower()], "each once, in order"
    (one,) = page.get("workflows", containing="ED-LATER-007")["workflows"]
    assert (one["workflow_id"], one["cursor"], one["state"]) == ("PAGED-later-007", 1, "open")
    assert page.get("workflows", containing="no such workflow") == {"workflows": [], "next": None}
    assert page.get("summary")["workflows"] == before >= 150


def test_a_workflow_is_described(page: Page, shop: RedisStore) -> None:
    shop.append(ODD, [Paid(n) for n in range(10)])
    shop.save_snapshot(ODD, 7, b"state" * 20)
    shop.acquire(ODD, "the worker", ttl=60)
    one = page.get("workflow", id=ODD)
    assert (one["workflow_id"], one["cursor"], one["snapshot_cursor"], one["snapshot_bytes"]) == (ODD, 10, 7, 100)
    assert (one["state"], one["lease_owner"]) == ("leased", "the worker")
    assert sum(page.get("memory", id=ODD).values()) > 100
    assert page.get("summary")["states"]["leased"] >= 1


def test_workflows_are_filtered_by_state_text_and_time(page: Page, shop: RedisStore) -> None:
    before = page.get("summary")["states"]
    states = {"open": range(5), "leased": range(5, 9), "waiting": range(9, 14), "completed": range(14, 18)}
    for n in range(18):
        shop.append(f"filtered-{n:02}", [{"n": n}])
    for n in states["leased"]:
        shop.acquire(f"filtered-{n:02}", "worker", ttl=600)
    for n in states["waiting"]:
        shop.release(shop.acquire(f"filtered-{n:02}", "worker"))
    for n in states["completed"]:
        shop.complete(f"filtered-{n:02}")
    for state, numbers in states.items():
        seen: list[str] = []
        place: dict[str, Any] = {}
        while place is not None:
            found = page.get("workflows", state=state, containing="filtered-", limit=2, **place)
            assert {one["state"] for one in found["workflows"]} <= {state}
            assert len(found["workflows"]) < 4
            seen += [one["workflow_id"] for one in found["workflows"]]
            place = {"before": found["next"]} if found["next"] else None
        assert sorted(seen) == [f"filtered-{n:02}" for n in numbers], state
    after = page.get("summary")["states"]
    assert (after["leased"] - before["leased"], after["waiting"] - before["waiting"]) == (4, 5)
    since = page.get("workflow", id="filtered-15")["written"]
    recent = page.get("workflows", containing="filtered-", since=since, limit=3)
    assert [one["workflow_id"] for one in recent["workflows"]] == ["filtered-17", "filtered-16", "filtered-15"]
    assert recent["next"] is None
    assert page.get("workflows", state="open", containing="filtered-", since=since)["workflows"] == []
    assert (
        len(page.get("workflows", state="leased", containing="filtered-0", since="2026-01-01T00:00:00Z")["workflows"])
        == 4
    )


def test_workflows_are_filtered_by_queue(page: Page, shop: RedisStore) -> None:
    for n in range(7):
        queue, labels = f"ui-{n % 2}", {"customer": "7"}
        shop.append(f"queued-{n}", [{"n": n}], queue=queue, due=60 - n, attributes=labels, parent="queued-0")
    shop.park("queued-1", "the card was declined")
    seen: list[str] = []
    place: dict[str, Any] = {}
    while place is not None:
        found = page.get("workflows", queue="ui-0", limit=3, **place)
        seen += [one["workflow_id"] for one in found["workflows"]]
        place = {"before": found["next"]} if found["next"] else None
    assert seen == ["queued-6", "queued-4", "queued-2", "queued-0"], "the one that is due first comes first"
    (parked,) = page.get("workflows", queue="ui-1", state="parked")["workflows"]
    assert (parked["workflow_id"], parked["parked_reason"]) == ("queued-1", "the card was declined")
    one = page.get("workflow", id="queued-2")
    assert (one["queue"], one["attributes"], one["parent"]) == ("ui-0", {"customer": "7"}, "queued-0")
    assert one["due"] is not None
    assert {"ui-0", "ui-1"} <= set(page.get("summary")["queues"])
    numbers = _numbers(page.ask("metrics"))
    assert (numbers["runic_redis_queue_waiting ui-0"], numbers["runic_redis_queue_leased ui-0"]) == (4, 0)
    assert numbers["runic_redis_queue_overdue_seconds ui-0"] == 0


def test_events_are_filtered_by_type_text_and_time(page: Page, shop: RedisStore) -> None:
    for n in range(60):
        shop.append("sifted", [Paid(n, "Zo\u00eb" if n % 3 else "Ada"), {"type": "note", "n": n}])
    every_third = [2 * n + 1 for n in range(59, -1, -1) if n % 3]

    def older(**query: Any) -> list[int]:
        seen: list[int] = []
        found = page.get("events", id="sifted", limit=7, **query)
        while True:
            seen += _cursors(found)
            if not found["older"]:
                return seen
            found = page.get("events", id="sifted", limit=7, **{**query, "upto": found["first"] - 1})

    assert older(type="page_paid") == list(range(119, 0, -2))
    assert older(containing="ZO\u00cb") == older(containing="zo\u00eb", type="page_paid") == every_third
    assert older(containing="zo\u00eb", type="note") == []
    found, rising = page.get("events", id="sifted", limit=7, containing="zo\u00eb", after=0), []
    while True:
        rising += _cursors(found)[::-1]
        if not found["newer"]:
            break
        found = page.get("events", id="sifted", limit=7, containing="zo\u00eb", after=found["last"])
    assert rising == every_third[::-1]
    middle = page.get("event", id="sifted", cursor=61)
    found = page.get("events", id="sifted", until=middle["time"])
    same = {commit["time"] for commit in found["commits"]}
    assert max(same) == middle["time"], "nothing later"
    assert found["last"] >= 61
    assert _cursors(page.get("events", id="sifted", until="2020-01-01T00:00:00Z")) == []
    assert page.get("events", id="sifted", until="2020-01-01T00:00:00Z")["newer"]
    assert page.get("events", id="sifted", until="2999-01-01T00:00:00Z", limit=1)["last"] == 120


@pytest.fixture(scope="module")
def long(shop: RedisStore) -> str:
    """A workflow of commits of many sizes, one of them split into parts. Its beginning is trimmed."""
    for size in (3, 1, 1, 40, 2, 7):
        shop.append("long", [Paid(size)] * size)
    shop.append("long", [Paid(n, "x" * 100) for n in range(15_000)])
    for size in (1, 2, 3, 250):
        shop.append("long", [Paid(size)] * size, metadata={"user": "zo\u00eb"})
    shop.save_snapshot("long", 5, b"x")
    shop.trim("long")
    return "long"


@pytest.mark.parametrize("limit", [1, 6, 100, 500])
def test_a_workflow_is_leafed_through_either_way(page: Page, long: str, limit: int) -> None:
    first, last = 6, 54 + 15_000 + 256
    # From the newest down, and up again; with few at once, near the ends only.
    pages = {1: 45, 500: 40}.get(limit, 12)
    found = page.get("events", id=long, limit=limit)
    seen: list[int] = []
    for _ in range(pages):
        seen += _cursors(found)
        if not found["older"]:
            break
        found = page.get("events", id=long, limit=limit, upto=found["first"] - 1)
        assert found["newer"]
    assert seen == list(range(last, last - len(seen), -1))
    assert found["older"] == (seen[-1] > first)
    found = page.get("events", id=long, limit=limit, after=0)
    assert not found["older"]
    rising: list[int] = []
    for _ in range(pages):
        rising += _cursors(found)[::-1]
        if not found["newer"]:
            break
        found = page.get("events", id=long, limit=limit, after=found["last"])
        assert found["older"]
    assert rising == list(range(first, first + len(rising)))
    assert found["newer"] == (rising[-1] < last)
    if limit >= 500:
        assert len(seen) == len(rising) == last - first + 1


def test_a_page_of_events_begins_anywhere(page: Page, long: str) -> None:
    for upto in (6, 7, 55, 300, 9_000, 15_054, 15_055):
        found = page.get("events", id=long, upto=upto, limit=20)
        assert _cursors(found) == list(range(upto, max(5, upto - 20), -1))
        assert (found["older"], found["newer"]) == (upto - 20 > 5, True)
        assert (found["last"], found["first"]) == (upto, max(6, upto - 19))
    for trimmed in (1, 5):
        found = page.get("events", id=long, upto=trimmed)
        assert (found["commits"], found["older"], found["newer"]) == ([], False, True)
    found = page.get("events", id=long, upto=10**15, limit=3)
    assert _cursors(found) == [15_310, 15_309, 15_308]
    assert not found["newer"]
    commit = found["commits"][0]
    assert (commit["start"], commit["end"], commit["metadata"]) == (15_060, 15_310, {"user": "zo\u00eb"})
    assert commit["events"][0] == {"cursor": 15_310, "type": "page_paid", "text": "amount=250, by=None"}


def test_a_history_is_sampled_all_along(page: Page, shop: RedisStore, long: str) -> None:
    samples = page.get("overview", id=long)["samples"]
    assert (samples[0]["start"], samples[-1]["end"]) == (5, 15_310)
    assert all(sum(one["types"].values()) == one["end"] - one["start"] for one in samples)
    shop.append("short", [Paid(1)])
    shop.append("short", [Paid(1), {"type": "other"}])
    samples = page.get("overview", id="short")["samples"]
    assert [(one["start"], one["end"]) for one in samples] == [(0, 1), (1, 3)], "all, if they are few"
    shop.append("many", [{"n": 0}])
    for _ in range(9):
        shop.append_many([("many", [{"n": n}]) for n in range(1000)])
    samples = page.get("overview", id="many")["samples"]
    assert 100 <= len(samples) <= 200
    gaps = [after["end"] - before["end"] for before, after in pairwise(samples)]
    assert max(gaps) - min(gaps) <= 1
    for _ in range(48):
        shop.append("of large commits", [{"n": n} for n in range(1000)])
    samples = page.get("overview", id="of large commits")["samples"]
    assert len(samples) < 48
    assert (samples[0]["start"], samples[-1]["end"]) == (0, 48_000), "whatever is left out"


def test_an_event_is_shown_to_the_last_digit(page: Page, shop: RedisStore) -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    numbers = [2.0, -0.0, 0.1, 1e22, 1e-7, math.nan, math.inf, -math.inf, 2, 2**53 + 1]
    fields = {
        "numbers": numbers,
        "big": 2**60 + 1,
        "when": when,
        "bytes": b"\0\xff",
        "html": "<script>alert(1)</script>",
        "deep": [[None]],
    }
    shop.append("values", [{"n": 1}, Paid(3, fields)], metadata={"trace": 2**60})
    found = page.get("event", id="values", cursor=2)
    assert (found["type"], found["cursor"], found["commit"]["start"]) == ("page_paid", 2, 0)
    assert found["fields"]["value"]["by"]["big"] == {"$int": str(2**60 + 1)}
    assert found["fields"]["value"]["by"]["html"] == fields["html"]
    texts = ["2.0", "-0.0", None, "1e+22", "1e-07", "nan", "inf", "-inf", None, None]
    tagged = [number if text is None else {"$float": text} for number, text in zip(numbers, texts, strict=True)]
    assert found["fields"]["value"]["by"]["numbers"] == [*tagged[:-1], {"$int": str(2**53 + 1)}]
    assert json.loads(found["fields"]["json"])["by"]["numbers"][:2] == [2.0, -0.0]
    assert "-0.0" in found["fields"]["json"]
    assert str(2**60 + 1) in found["fields"]["json"]
    assert found["metadata"]["value"] == {"trace": {"$int": str(2**60)}}
    shop.append("values", [{"long": "x" * 3_000_000}])
    found = page.get("event", id="values", cursor=3)
    assert (found["fields"]["value"], found["fields"]["json"]) == (None, "")
    assert found["fields"]["length"] > 3_000_000, "too long for a browser, and said so"


def test_the_graph_shows_which_event_made_which_fact(page: Page, shop: RedisStore) -> None:
    made = shop.put_fact({"data": 1})
    shop.append("graph", [{"makes": Fact({"data": 1})}, {"nothing": 1}, {"uses": FactRef(made), "and": [Fact(b"2")]}])
    graph = page.get("graph", id="graph")
    kinds = {node["id"]: node["kind"] for node in graph["nodes"]}
    assert (kinds["e1"], kinds[f"f{made}"], kinds["e3"]) == ("event", "fact", "event")
    assert "e2" not in kinds
    other = shop.put_fact(b"2")
    edges = {(edge["from"], edge["to"]) for edge in graph["edges"]}
    assert edges == {("e1", f"f{made}"), (f"f{made}", "e3"), ("e3", f"f{other}")}
    assert page.get("fact", hash=made)["value"]["value"] == {"data": 1}
    shop.append(
        "runic",
        [
            FactProduced("in", 1, "input"),
            FactProduced("out", Fact({"n": 2}), "produced", ("double", "in"), 1),
            RunnableCompleted("r", "double", Fact({"n": 2}), 5, 0, 1),
        ],
    )
    graph = page.get("graph", id="runic")
    edges = {(edge["from"], edge["to"]) for edge in graph["edges"]}
    assert edges == {("rin", "ndouble/rin"), ("ndouble/rin", "rout"), ("rout", "e3")}
    shop.append_many([("wide", [{"n": n, "fact": Fact(n)}]) for n in range(3000)])
    graph = page.get("graph", id="wide")
    assert graph["cut"]
    assert graph["older"]
    assert graph["last"] == 3000
    assert len(graph["nodes"]) <= 240
    below = page.get("graph", id="wide", upto=graph["first"] - 1)
    assert below["last"] == graph["first"] - 1
    ids = {node["id"] for node in graph["nodes"]}
    assert all(edge["from"] in ids and edge["to"] in ids for edge in graph["edges"])
    assert page.get("graph", id="no such workflow")["nodes"] == []


def test_errors_name_the_wrong_argument(page: Page, shop: RedisStore) -> None:
    shop.append("few", [{"n": 1}])
    for path, status, said in [
        ("workflow?id=nobody", 404, "no workflow 'nobody'"),
        ("workflow", 400, "may not be empty"),
        ("events?id=few&upto=-1", 400, "upto is a number"),
        ("events?id=few&limit=501", 400, "limit is a number"),
        ("event?id=few&cursor=2", 404, "no event 2"),
        ("event?id=few&cursor=0", 404, "no event 0"),
        ("event?id=nobody&cursor=1", 404, "no event 1"),
        ("fact?hash=nonsense", 404, "nonsense"),
        (f"fact?hash=sha256:{'0' * 64}", 404, "0000"),
        ("workflows?before=x", 400, "before is the 'next'"),
        ("workflows?before=1:x:y", 400, "before is the 'next'"),
        ("workflows?before=nan:1:y", 400, "before is the 'next'"),
        ("workflows?state=asleep", 400, "state is one of open, waiting, leased, parked, completed"),
        ("workflows?since=yesterday", 400, "since is a time with its zone"),
        ("events?id=few&until=2026-01-31T14:05:00", 400, "until is a time with its zone"),
    ]:
        answer = page.ask(f"api/{path}")
        assert answer.status == status, (path, answer)
        assert said in answer.json["error"]
    assert page.get("events", id="nobody")["commits"] == []


def test_damage_is_shown_where_it_is(page: Page, shop: RedisStore, valkey: RunningServer) -> None:
    for n in range(5):
        shop.append("damaged", [{"n": n}, {"n": n}])
    keys = shop.context.keys.workflow("damaged")
    with valkey.client() as client:
        entries = client.xrange(keys.events)
        client.delete(keys.events)
        for place, (entry_id, fields) in enumerate(entries):
            client.xadd(keys.events, dict.fromkeys(fields, b"damage") if place == 2 else fields, id=entry_id)
    found = page.get("events", id="damaged")
    assert [bool(commit["problem"]) for commit in found["commits"]] == [False, False, True, False, False]
    assert "damaged" in found["commits"][2]["problem"]
    assert _cursors(found) == [10, 9, 8, 7, 4, 3, 2, 1]
    assert "is damaged" in page.get("event", id="damaged", cursor=6)["problem"]
    assert len(page.get("overview", id="damaged")["samples"]) == 4
    fact = shop.put_fact(b"to be damaged")
    with valkey.client() as client:
        assert client.hset(shop.context.keys.fact(fact.encode())[0], fact, b"damage") == 0, "it was there"
    assert "is damaged" in page.get("fact", hash=fact)["problem"]


def test_news_are_streamed(page: Page, shop: RedisStore) -> None:
    with _listening(page, "api/live?id=followed") as words:
        # What others have written is counted by the time that this is seen. (Of two writes, the first might be.)
        shop.append("followed", [{"n": 1}])
        while "followed" not in (word := next(words))["changed"]:
            pass
        before = sum(word["history"])
        shop.append("followed", [{"n": n} for n in range(300)])
        shop.append("others", [{"n": 1}])
        changed: set[str] = set()
        while not {"followed", "others"} <= changed:
            word = next(words)
            changed |= set(word["changed"])
        assert sum(word["history"]) == before + 301
        assert len(word["history"]) == 120
        assert word["problem"] is None
        # Of very many, the one that is looked at is named.
        shop.append_many([*((f"crowd-{n:03}", [{"n": 1}]) for n in range(300)), ("followed", [{"n": 1}])])
        more, changed = False, set()
        while "followed" not in changed:
            word = next(words)
            changed |= set(word["changed"])
            more = more or word["more"]
        assert more
        assert len(changed) <= 202


def test_with_a_feed_the_news_are_exact(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=4, feed=True) as store:
        store.append("unseen", [{"n": 1}])
        store.append("gone", [{"n": 1}])
        with serving(valkey.url(), namespace) as page, _listening(page, "api/live") as words:
            # It watches once it has told of a write.
            while "beat" not in next(words)["changed"]:
                store.append("beat", [{"n": 1}])
            store.append("mark", [{"n": 1}])
            while "mark" not in next(words)["changed"]:
                pass
            before = _numbers(page.ask("metrics"))["runic_redis_events_seen_total"]
            # The last entry alone would tell of 3 events.
            for number in range(20):
                store.append("unseen", [{"n": number}] * 3)
            store.delete("gone")
            while "gone" not in (word := next(words))["changed"]:
                pass
            assert word["problem"] is None
            # A look may read the partition of one just before the write to it, and that of the other just after.
            while (seen := _numbers(page.ask("metrics"))["runic_redis_events_seen_total"]) < before + 60:
                next(words)
            assert seen == before + 60


@pytest.fixture
def fed(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    """A store with a feed. Its subscription "mailer" has acknowledged 1 of 4 commits, and parked 2."""
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1, feed=True) as store:
        for workflow_id in ("order-1", ODD, "order-2"):
            store.append(workflow_id, [{"n": 1}, {"n": 2}])
        with store.subscribe("mailer", wait_s=0) as mailer:
            mailer.ack(next(mailer))
            for _ in range(2):
                mailer.park(next(mailer), "Declined: " + "x" * 1000)
            store.append("order-3", [{"n": 3}])
            with pytest.raises(ZeroDivisionError):
                mailer.run(lambda commit: 1 / 0, attempts=1)
            yield store


def test_subscriptions_and_their_parked_commits_are_shown(
    valkey: RunningServer, namespace: str, fed: RedisStore
) -> None:
    with serving(valkey.url(), namespace) as page:
        assert page.get("summary")["feed"] is True
        (one,) = page.get("subscriptions")["subscriptions"]
        assert (one["name"], one["kind"], one["prefix"], one["types"]) == ("mailer", "subscription", "", None)
        assert (one["lag_events"], one["parked"], list(one["consumers"].values())) == (1, 2, [1])
        assert 0 <= one["lag_s"] < 60
        assert one["failing"] == [{"partition": 0, "attempts": 1, "reason": "ZeroDivisionError: division by zero"}]
        found = page.get("parked", name="mailer")
        assert (found["total"], found["changes"]) == (2, False)
        first = found["parked"][0]
        assert (first["workflow_id"], first["cursor"], first["events"], first["state"]) == (ODD, 2, 2, "parked")
        assert first["reason"].startswith("Declined: x")
        assert len(first["reason"]) == 240
        assert page.get("parked", name="nobody") == {"parked": [], "total": 0, "changes": False}
        assert page.ask("api/parked?name=no%20name").status == 400
        for path in ("replay", "drop"):
            assert page.ask(f"api/parked/{path}?name=mailer&id=order-2", {"X-Runic-Redis": "1"}, "POST").status == 405
        numbers = _numbers(page.ask("metrics"))
        assert (numbers["runic_redis_subscription_lag_events"], numbers["runic_redis_subscription_parked"]) == (1, 2)
        assert numbers["runic_redis_subscription_consumers"] == 1
        assert 0 <= numbers["runic_redis_subscription_lag_seconds"] < 60
        assert b'runic_redis_subscription_parked{namespace="%s",subscription="mailer"} 2.0' % namespace.encode() in (
            page.ask("metrics").body
        )
    assert len(fed.parked("mailer")) == 2


def test_parked_commits_are_replayed_and_dropped(valkey: RunningServer, namespace: str, fed: RedisStore) -> None:
    with serving(valkey.url(), namespace, "--allow-changes") as page:
        carried = {"Authorization": f"Bearer {page.url.partition('?token=')[2]}"}
        own = {**carried, "X-Runic-Redis": "1"}
        assert page.ask("api/parked?name=mailer", carried).json["changes"] is True
        for what in ("replay", "drop"):
            path = f"api/parked/{what}?{urlencode({'name': 'mailer', 'id': 'order-2'})}"
            assert page.ask(path, own).status == 405, "a link changes nothing"
            assert page.ask(path, carried, "POST").status == 403
            assert page.ask(path, {"X-Runic-Redis": "1"}, "POST").status == 401
            assert len(fed.parked("mailer")) == 2, "nothing has happened yet"
        dropped = page.ask(f"api/parked/drop?{urlencode({'name': 'mailer', 'id': ODD})}", own, "POST")
        assert (dropped.status, dropped.json) == (200, {"dropped": 1})
        replayed = page.ask("api/parked/replay?name=mailer&id=order-2", own, "POST")
        assert (replayed.status, replayed.json) == (200, {"replayed": 1})
        assert page.ask("api/parked/drop?name=mailer&id=order-2", own, "POST").json == {"dropped": 0}
        assert page.ask("api/parked/drop?name=mailer", own, "POST").status == 400
    assert [(one.workflow_id, one.state) for one in fed.parked("mailer")] == [("order-2", "waiting")]


def test_prometheus_can_read_the_numbers(page: Page, shop: RedisStore) -> None:
    shop.append("measured", [{"n": 0, "fact": Fact("of the measured")}])
    before = _numbers(page.ask("metrics"))
    with _listening(page, "api/live") as words:
        next(words)
        shop.append("measured", [{"n": 1}] * 25)
        # The first word may be about the append before.
        while (
            _numbers(page.ask("metrics"))["runic_redis_events_seen_total"]
            < before["runic_redis_events_seen_total"] + 25
        ):
            next(words)
    after = _numbers(page.ask("metrics"))
    assert after["runic_redis_up"] == 1
    assert after["runic_redis_workflows"] == page.get("summary")["workflows"]
    summary = page.get("summary")
    for state, number in summary["states"].items():
        assert after[f"runic_redis_workflows_by_state {state}"] == number
    assert after["runic_redis_facts"] >= 1
    assert 0 < after["runic_redis_question_seconds"] < 60
    assert after["runic_redis_writes_seen_total"] >= before["runic_redis_writes_seen_total"] + 1
    assert page.ask("metrics").headers["content-type"].startswith("text/plain")


def test_without_a_token_only_local_reading_requests_pass(page: Page) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        assert page.ask("api/summary", method=method).status == 405
    assert page.ask("", method="HEAD").status == 200
    port = urlsplit(page.url).port
    for host in ("localhost", f"LOCALHOST:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert page.ask("api/summary", {"Host": host}).status == 200
    for host in (
        *("evil.example", f"localhost.evil.example:{port}", "127.0.0.1.evil.example", "", "[::1", "[evil]:80", "::1"),
        *("[::1].evil.example", f"[::1].evil.example:{port}", "[::1]evil.example", "[::1]:evil.example", "[::1]@evil"),
        *("localhost:evil.example", "localhost:80:80", "localhost:", "localhost.", "me@localhost", "localhost@evil"),
        *(
            "localhost, evil.example",
            "localhost/evil.example",
            "[::ffff:127.0.0.1]",
            "127.1",
            "0.0.0.0",
            "loc\u00e4lhost",
        ),
    ):
        assert page.ask("api/summary", {"Host": host}).status == 421, host
    # A proxy would go by the host in the address.
    for request, status in (
        (f"GET http://evil.example/api/summary HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n", 404),
        (f"GET /api/summary HTTP/1.1\r\nHost: localhost:{port}\r\nHost: evil.example\r\n\r\n", 400),
        ("GET /api/summary HTTP/1.0\r\n\r\n", 421),
    ):
        with socket.create_connection(("127.0.0.1", port or 0)) as raw:
            raw.sendall(request.encode())
            assert raw.makefile("rb").readline().split()[1] == b"%d" % status, request
    for path in ("", "app.js", "api/summary", "metrics", "no/such/path", "api/workflow?id=nobody"):
        answer = page.ask(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers
    for path in ("static/app.js", "../app.py", "..%2fapp.py", "%2e%2e/app.py", "app.py", "/etc/passwd", "__init__.py"):
        assert page.ask(path).status == 404, path


def test_with_a_token_only_requests_that_carry_it_pass(valkey: RunningServer, made: str) -> None:
    with serving(valkey.url(), made, "--token", TOKEN) as page:
        assert page.url.endswith(f"/?token={TOKEN}")
        refused = page.ask("api/summary")
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        for headers in (
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": "Bearer \u00eb"},
            {"Cookie": f"other={TOKEN}"},
            {"Cookie": TOKEN},
            {"Cookie": "=;;\u00eb="},
        ):
            assert page.ask("api/summary", headers).status == 401, headers
        assert page.ask("api/summary?token=wrong").status == 401
        for path in ("", "app.js", "metrics", "no/such/path"):
            assert page.ask(path).status == 401, path
        # By whatever name it is reached, since it cannot know them all.
        assert page.ask("api/summary", {"Authorization": f"Bearer {TOKEN}", "Host": "here.example"}).status == 200
        entered = page.ask(f"?a=1&token={TOKEN}&b=2")
        assert (entered.status, entered.headers["location"]) == (303, "/?a=1&b=2")
        cookie, _, flags = entered.headers["set-cookie"].partition("; ")
        assert "HttpOnly" in flags
        assert "SameSite=lax" in flags
        name = cookie.partition("=")[0]
        for wrong in (f"{name}=wrong", f'{name}="', f"{name}=", name, f"x{cookie}", f"{cookie}x"):
            assert page.ask("api/summary", {"Cookie": wrong}).status == 401, wrong
        # Other programs at this host have cookies too, in any form.
        for others in (
            'a={"b":1}',
            "flag",
            "a b=c",
            "x[y]=1",
            "path=/",
            "a=1,b=2",
            'a="',
            "=",
            "\u00eb=\u00eb",
            f"{name}=old",
        ):
            for carried in (f"{others}; {cookie}", f"{cookie}; {others}", f"{others};{cookie}"):
                assert page.ask("api/summary", {"Cookie": carried}).status == 200, carried
        elsewhere = page.ask(f"/evil.example?token={TOKEN}")
        assert elsewhere.headers["location"] == "/evil.example"


def test_a_page_that_may_change_something_is_closed_to_other_sites(valkey: RunningServer, made: str) -> None:
    with serving(valkey.url(), made, "--allow-changes") as page:
        token = page.url.partition("?token=")[2]
        assert len(token) == 32, "also for this machine alone"
        carried = {"Authorization": f"Bearer {token}"}
        assert page.ask("api/summary").status == 401
        assert page.ask("api/summary", carried).status == 200
        own = {"X-Runic-Redis": "1"}
        path = "api/no/such/address"
        assert page.ask(path, {**carried, **own}, method="POST").status == 404
        assert page.ask(path, own, method="POST").status == 401
        for header in ({}, {"X-Runic-Redis": ""}, {"X-Runic-Redis": "0"}, {"Origin": "http://evil.example"}):
            assert page.ask(path, {**carried, **header}, method="POST").status == 403, header
        # A browser asks first whether another site may send the header.
        asks = {"Origin": "http://evil.example", "Access-Control-Request-Headers": "x-runic-redis", **carried}
        refused = page.ask(path, asks, method="OPTIONS")
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, POST")
        assert not [name for name in refused.headers if name.startswith("access-control")]
        for method in ("PUT", "PATCH", "DELETE", "TRACE"):
            assert page.ask(path, {**carried, **own}, method=method).status == 405
        assert page.ask("api/summary", {**carried, **own}, method="POST").status == 405, "it only reads"


def test_pages_at_one_host_do_not_log_each_other_out(valkey: RunningServer, made: str) -> None:
    with (
        serving(valkey.url(), made, "--token", TOKEN) as one,
        serving(valkey.url(), made, "--token", TOKEN[::-1]) as other,
    ):
        # As a browser keeps them: by name, for all ports of a host.
        jar: dict[str, str] = {}
        for page in (one, other):
            entered = page.ask(f"?{page.url.partition('?')[2]}")
            jar.update([entered.headers["set-cookie"].partition(";")[0].split("=")])
        kept = "; ".join(map("=".join, jar.items()))
        assert [page.ask("api/summary", {"Cookie": kept}).status for page in (one, other)] == [200, 200]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_a_page_at_another_loopback_address_is_seen_there(valkey: RunningServer, made: str) -> None:
    with serving(valkey.url(), made, "--host", "127.0.0.2") as page:
        assert page.ask("api/summary").status == 200
        assert page.ask("api/summary", {"Host": "127.0.0.3"}).status == 421


def test_a_page_for_others_has_a_token_made_for_it(valkey: RunningServer, made: str) -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.1", "localhost.example", ""))
    # The loopback interface, by a name that it is not known to have.
    with serving(valkey.url(), made, "--host", "127.1") as page:
        token = page.url.partition("?token=")[2]
        assert len(token) == 32
        assert page.ask("api/summary").status == 401
        assert page.ask("api/summary", {"Authorization": f"Bearer {token}"}).status == 200


def test_options_are_checked_before_the_page_listens(valkey: RunningServer, made: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for options, said in [
            (["--token", "short"], "at least 16"),
            (["--token", "0123456789 abcdefghij"], "letters and digits"),
            (["--port", str(taken.getsockname()[1])], "cannot listen"),
            (["--host", "no such host"], "cannot listen"),
        ]:
            ended = run_forked(None, *COMMAND, "--url", valkey.url(), "--namespace", made, *options)
            assert ended.returncode == 2, ended
            assert said in " ".join(ended.stderr.split())
            assert not ended.stdout
    assert run_forked(None, *COMMAND, "--url", "redis://127.0.0.1:1", "--namespace", made).returncode == 3


def test_no_password_is_shown(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with running(valkey_program(), tmp_path / "server", port=port) as server:
        with server.client() as client:
            client.config_set("requirepass", "s3cret-w0rd")
        url = f"redis://:s3cret-w0rd@127.0.0.1:{port}/0"
        with RedisStore.from_url(url, namespace="secret") as store:
            store.append("w", [{"n": 1}])
        with serving(url, "secret") as page:
            page.get("workflows")
            server.kill()
            with ThreadPoolExecutor() as pool:
                answers = list(pool.map(page.ask, ("api/summary", "api/workflows", "metrics")))
            page.process.send_signal(signal.SIGINT)
            out, err = page.process.communicate(timeout=60)
        assert all(b"s3cret" not in answer.body for answer in answers)
        assert "s3cret" not in out + err


def test_the_page_reports_an_unreachable_store_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with running(valkey_program(), tmp_path / "server", *options, port=port) as server:
        url = f"redis://127.0.0.1:{port}"
        with RedisStore.from_url(url, namespace="gone", deadline_s=60) as store:
            store.append("w", [{"n": 1}])
            with serving(url, "gone") as page, _listening(page, "api/live") as words:
                assert next(words)["problem"] is None
                server.kill()
                while next(words)["problem"] is None:
                    pass
                with ThreadPoolExecutor() as pool:
                    answer, metrics, itself = pool.map(page.ask, ("api/workflow?id=w", "metrics", ""))
                assert answer.status == 503
                assert answer.json["error"]
                assert _numbers(metrics)["runic_redis_up"] == 0
                assert itself.status == 200
                server.restart()
                while next(words)["problem"] is not None:
                    pass
                store.append("w", [{"n": 2}])
                while "w" not in next(words)["changed"]:
                    pass
                assert page.get("workflow", id="w")["cursor"] == 2


def test_it_changes_nothing(page: Page, shop: RedisStore, valkey: RunningServer) -> None:
    shop.append("kept", [{"n": 1, "fact": Fact("kept")}])
    shop.save_snapshot("kept", 1, b"x")
    ref = shop.put_fact("kept")
    pattern = f"{{{shop.context.keys.namespace}:*"
    with valkey.client() as client:
        before = {key: client.dump(key) for key in client.scan_iter(pattern)}
        assert before
        page.get("workflows")
        for view in ("workflow", "memory", "overview", "events", "graph"):
            page.get(view, id="kept")
        page.get("event", id="kept", cursor=1)
        page.get("fact", hash=ref)
        page.ask("metrics")
        assert {key: client.dump(key) for key in client.scan_iter(pattern)} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_page(valkey: RunningServer, made: str, number: signal.Signals) -> None:
    with serving(valkey.url(), made) as page, _listening(page, "api/live") as words:
        next(words)
        page.process.send_signal(number)
        out, err = page.process.communicate(timeout=60)
        assert (page.process.returncode, out, err) == (0, "", "")


def test_without_the_extra_the_error_names_the_package_to_install(
    valkey: RunningServer, made: str, tmp_path: Path
) -> None:
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError('No module named starlette')")
    command = [sys.executable, "-W", "error", "-m", "runic_redis.cli.main", "ui", "--url", valkey.url(), "-n", made]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 2
    assert "pip install 'runic-redis[ui]'" in " ".join(ended.stderr.split())


def _cursors(found: Any) -> list[int]:
    return [one["cursor"] for commit in found["commits"] for one in commit["events"]]


def _numbers(answer: Answer) -> dict[str, float]:
    assert answer.status == 200
    families = text_string_to_metric_families(answer.body.decode())
    samples = [sample for family in families for sample in family.samples]
    kinds = ("state", "queue")
    return {
        " ".join((one.name, *(one.labels[kind] for kind in kinds if kind in one.labels))): one.value for one in samples
    }


class _listening:  # noqa: N801 - used like a function
    """The messages at an address, until the block ends."""

    def __init__(self, page: Page, path: str) -> None:
        address = urlsplit(page.url)
        self._connection = http.client.HTTPConnection("127.0.0.1", address.port or 0, timeout=60)
        self._connection.request("GET", f"/{path}")

    def __enter__(self) -> Iterator[Any]:
        reply = self._connection.getresponse()
        assert reply.getheader("content-type", "").startswith("text/event-stream")
        lines = (line for line in reply if line.startswith(b"data: "))
        return (json.loads(line[6:]) for line in lines)

    def __exit__(self, *_: object) -> None:
        self._connection.close()
