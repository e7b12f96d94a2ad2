"""A workflow keeps each fact that it refers to by the last cursor that does: the scores of its references."""

import itertools
import os
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from runic_redis import Fact, FactRef, RedisStore
from runic_redis.admin.archive import Record
from runic_redis.admin.exporting import Exporter
from runic_redis.admin.importing import Importer
from runic_redis.admin.verifying import Verifier
from runic_redis.protocol.effects import Batch, Command
from runic_redis.protocol.resp import pairs
from tests.servers import url_on
from tests.test_archives import export, load, whole
from tests.test_verifying import run_while, verify


@pytest.fixture(params=["memory", "embedded", "redis_6_2", "valkey", "cluster_nodes"])
def store(request: pytest.FixtureRequest, namespace: str, few_buckets: None) -> Iterator[RedisStore]:
    embedded = request.param == "embedded"
    url = request.getfixturevalue("embedded") if embedded else url_on(request, request.param, namespace)
    with RedisStore.from_url(url, namespace=namespace, partitions=3) as store:
        yield store


def tell(store: RedisStore, *args: str) -> Any:
    """Send a command about the key that is its second word, and return its reply."""
    return store._sender.ask(Batch([Command(args, args[1])]))[0]


def refs_key(store: RedisStore) -> str:
    return store.context.keys.workflow("w").refs


def scores(store: RedisStore) -> dict[Any, float]:
    """Return the references of the workflow: the facts' values, with their scores."""
    found = pairs(tell(store, "ZRANGE", refs_key(store), "0", "-1", "WITHSCORES"))
    return {store.load_fact(fact): float(score) for fact, score in found}


def test_a_reference_has_the_last_cursor_that_refers_to_the_fact(store: RedisStore) -> None:
    store.append("w", [{"n": 1}, {"f": Fact("a")}, {"f": [Fact("b"), Fact("a")]}])
    assert scores(store) == {"a": 3, "b": 3}
    store.append("w", [{"n": 4}])
    assert scores(store) == {"a": 3, "b": 3}
    store.append("w", [{"f": FactRef(store.put_fact("a"))}, {"f": Fact("c")}])
    assert scores(store) == {"a": 6, "b": 3, "c": 6}
    assert verify(store).findings == []


def test_all_entries_of_a_commit_refer_to_a_fact_by_the_cursor_after_it(store: RedisStore) -> None:
    noise = [{"b": os.urandom(150_000)} for _ in range(30)]
    assert store.append("w", [{"f": Fact("a")}, *noise]) == 31
    assert int(tell(store, "XLEN", store.context.keys.workflow("w").events)) > 1
    assert scores(store) == {"a": 31}
    assert verify(store).findings == []


def test_of_many_commits_in_one_call_the_last_one_counts(store: RedisStore) -> None:
    assert store.append_many([("w", [{"f": Fact("a")}, {"f": Fact("b")}]), ("w", [{"f": Fact("a")}])]) == [2, 3]
    assert scores(store) == {"a": 3, "b": 2}


def test_a_commit_that_was_stored_before_moves_no_reference(store: RedisStore) -> None:
    store.append("w", [{"f": Fact("a")}], commit_id="first")
    store.append("w", [{"n": 2}])
    assert store.append("w", [{"f": Fact("a")}], commit_id="first") == 1
    assert scores(store) == {"a": 1}


def test_a_log_refers_to_a_fact_for_ever(store: RedisStore) -> None:
    store.append("w", [{"f": Fact("a")}, {"f": Fact("b")}])
    store.save("w", [{"f": Fact("a")}, {"f": Fact("c")}])
    assert scores(store) == {"a": inf, "b": 2, "c": inf}
    store.append("w", [{"f": [Fact("a"), Fact("b")]}])
    assert scores(store) == {"a": inf, "b": 3, "c": inf}
    store.save("w", [])
    assert scores(store) == {"a": inf, "b": 3, "c": inf}
    assert verify(store).findings == []
    store.collect(0)
    assert store.load_fact(store.put_fact("c")) == "c"


def test_the_scores_arrive_with_a_copy_of_a_copy(store: RedisStore, tmp_path: Path) -> None:
    store.append("w", [{"f": Fact("a")}, {"f": Fact("b")}])
    store.append("w", [{"f": Fact("a")}, {"n": 4}])
    store.save("w", [{"f": Fact("c")}])
    before = scores(store)
    assert before == {"a": 4, "b": 2, "c": inf}
    for number in range(2):
        assert export(store, tmp_path / f"{number}").problems == []
        store.delete("w")
        store.collect(0)
        assert load(store, tmp_path / f"{number}").problems == []
        assert scores(store) == before
    assert verify(store).findings == []
    store.append("w", [{"f": [Fact("b"), Fact("c")]}])
    assert scores(store) == {"a": 4, "b": 5, "c": inf}


def test_an_export_has_no_score_above_its_cursor(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runic_redis.admin.exporting._MEMBERS", 2)
    events = [{"f": [Fact(number) for number in range(30)]}]
    store.append("w", events)
    records: list[Record] = []
    run_while(store, Exporter(store.context, ["w"]).run(records.append), lambda store: store.append("w", events))
    assert store.cursor("w") > 4
    store.delete("w")
    importer = Importer(store.context)
    for record in records:
        store.run(importer.take(record), "import")
    assert importer.problems == []
    # (The first round trip reads the settings.)
    assert store.cursor("w") == 2
    assert scores(store) == dict.fromkeys(range(30), 2)
    assert verify(store).findings == []


@pytest.mark.parametrize(
    ("kind", "cursor"), [("refs", b"2"), ("refs", b"-inf"), ("commits", b"2"), ("commits", b"inf")]
)
def test_an_import_takes_no_cursor_above_that_of_its_workflow(store: RedisStore, kind: str, cursor: bytes) -> None:
    store.append("w", [{"f": Fact("a")}], commit_id="c")
    records: list[Record] = []
    store.run(Exporter(store.context, ["w"]).run(records.append), "export")
    store.delete("w")
    (begun,) = [at for at, record in enumerate(records) if record[0] == "workflow"]
    facts = [record for record in records[begun:-2] if record[0] == "fact"]
    state = [record for record in records[begun:-2] if record[0] != "fact"]
    changed = [[kind, [[record[1][0][0], cursor]]] if record[0] == kind else record for record in state]
    assert changed != state
    importer = Importer(store.context)
    for record in [*records[:begun], *facts, *whole(*changed, records[-2][:-1]), records[-1]]:
        store.run(importer.take(record), "import")
    (problem,) = importer.problems
    assert f"damaged record of it, '{kind}': a cursor" in problem


DAMAGED: dict[str, tuple[str, str, float]] = {
    "below the last cursor": ("a", "3", 4),
    "no cursor": ("a", "-inf", 4),
    "above the workflow's cursor": ("a", "7", 4),
    "above the cursor, and of a trimmed event": ("trimmed", "7", 6),
    "of a log by a cursor": ("log", "6", inf),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_verify_finds_a_wrong_score_and_repairs_it(store: RedisStore, name: str) -> None:
    value, score, repaired = DAMAGED[name]
    store.append("w", [{"f": Fact("trimmed")}], snapshot=b"state", refs=[store.put_fact("trimmed")])
    store.trim("w")
    store.append("w", [{"f": [Fact("b"), Fact("c")]}, {"f": Fact("a")}, {"f": Fact("a")}])
    store.save("w", [{"f": Fact("log")}])
    store.append("w", [{"n": 5}, {"n": 6}])
    before = scores(store)
    assert verify(store).findings == []
    fact_hash = store.put_fact(value)
    tell(store, "ZADD", refs_key(store), score, fact_hash)
    (finding,) = verify(store).findings
    assert "the scores of 1 of its references are wrong" in finding.problem
    assert fact_hash in finding.problem
    assert (finding.name, finding.repaired) == ("w", False)
    assert [finding.repaired for finding in verify(store, repair=True).findings] == [True]
    assert verify(store).findings == []
    assert scores(store) == before | {value: repaired}


def test_references_that_verify_restores_have_their_scores(store: RedisStore) -> None:
    store.append("w", [{"f": Fact("a")}, {"f": Fact("b")}, {"n": 3}])
    store.append("w", [{"f": Fact("a")}])
    store.save("w", [{"f": Fact("c")}])
    for restore in (lambda: verify(store, repair=True), lambda: (store.save_fact("orphan", 1), store.collect(0))):
        tell(store, "UNLINK", refs_key(store))
        restore()
        assert scores(store) == {"a": 4, "b": 2, "c": inf}
        assert verify(store).findings == []


CHANGES: dict[str, tuple[Callable[[RedisStore], object], float]] = {
    "append": (lambda store: store.append("w", [{"f": Fact("a")}]), 3),
    "save": (lambda store: store.save("w", [{"f": Fact("a")}]), inf),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_repair_lowers_no_score_that_a_writer_raises_meanwhile(store: RedisStore, name: str) -> None:
    change, wanted = CHANGES[name]
    fact_hash = store.put_fact("a")
    for moment in range(20):
        store.append("w", [{"f": Fact("a")}, {"f": Fact("b")}])
        tell(store, "ZADD", refs_key(store), "0", fact_hash)
        trips = itertools.count()

        def write(store: RedisStore, moment: int = moment, trips: Iterator[int] = trips) -> None:
            if next(trips) == moment:
                change(store)

        run_while(store, Verifier(store.context, ["w"], repair=True).next_part(), write)
        if next(trips) <= moment:
            break
        assert scores(store)["a"] == wanted, moment
        assert verify(store).findings == []
        store.delete("w")
    assert 3 < moment < 19
