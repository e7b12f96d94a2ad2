"""The benchmark runs on a tiny scale and reports its figures. No test says how fast anything is."""

import asyncio
import dataclasses
import gc
import json
import re
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgpack
import pytest
from rich.console import Console

from benchmarks import contenders, eventsourcing_turns, langgraph_turns
from benchmarks.cases import Case, all_cases
from benchmarks.contenders.base import Contender, Mismatch, Missing, Place
from benchmarks.events import KINDS, Kind, some_events
from benchmarks.figures import Spread, Turn, percentile, percentiles, ratios, spread
from benchmarks.measure import Budget, Side, Taken, take_turns
from benchmarks.results import Report, result_of
from benchmarks.scale import SHORT
from benchmarks.servers import Server
from benchmarks.turns import check
from runic_redis import InvalidArgument
from tests.servers import RunningServer

TINY = dataclasses.replace(
    SHORT,
    name="tiny",
    budget=Budget(warm_up=1, rounds=2, least=1, seconds=0),
    effort=0.01,
    tasks=(2, 4),
    read=(300, 200),
    weighed=200,
    workflow_sizes=(10, 1000),
    recovered_sizes=(10, 1000),
    traced_sizes=(10, 1000),
    session_size=2000,
    kept_facts=20,
    namespace_sizes=(1, 20),
    listed=20,
    followed=(200, 20),
    consumed=50,
    paced=20,
    jobs=20,
    awaited=2,
    supersteps=5,
    enrolments=40,
)


@pytest.fixture(scope="module")
def run() -> Iterator[ModuleType]:
    """Import the runs only in the process that needs them, because they import matplotlib."""
    run = import_module("benchmarks.run")
    with pytest.MonkeyPatch.context() as patch:
        # Collecting garbage before each case took half of the time.
        for name in ("collect", "freeze", "unfreeze"):
            patch.setattr(gc, name, lambda: 0)
        # And each namespace is deleted, with every bucket.
        patch.setattr("runic_redis.keys.FACT_BUCKETS", 16)
        yield run


@pytest.fixture(scope="module")
def report(run: ModuleType) -> Report:
    return run.measure(None, TINY)


def test_every_case_has_figures_or_says_why_not(report: Report) -> None:
    assert [result.name for result in report.results] == [case.name for case in all_cases(TINY)]
    for result in report.results:
        assert result.figures, result.name
        for figure in result.figures:
            if figure.cost is None:
                assert figure.missing, (result.name, figure.name)
            else:
                assert 0 < figure.cost.lowest <= figure.cost.median <= figure.cost.highest
                assert all(value > 0 for value in figure.latencies_us.values())


def test_ours_is_compared_with_packing_by_hand(report: Report) -> None:
    by_name = {result.name: result for result in report.results}
    names = [f"append/{kind.name}/{batch}" for kind in KINDS for batch in (1, 10, 100, 1000)]
    names += ["append/mixed/1/threads/16", "read/flat", "read/mixed-structs", "memory/flat/1", "recover", "list"]
    for name in names:
        (compared,) = (one for one in by_name[name].comparisons if one.against == "packed by hand")
        assert compared.ratio.median > 0
    assert {one.against for one in by_name["append/mixed/100"].comparisons} >= {"one XADD per event"}


def test_a_workflow_of_one_event_is_weighed_with_both_settings(report: Report) -> None:
    costs = {result.name: result.figures[0].cost for result in report.results}
    embedded, default = costs["memory/small"], costs["memory/small-default"]
    assert embedded is not None
    assert default is not None
    assert default.median - embedded.median > 3000


def test_both_durabilities_are_compared_with_other_stores(report: Report) -> None:
    by_name = {result.name: result for result in report.results}
    for durability in ("everysec", "fsync"):
        (compared,) = (
            one for one in by_name[f"stores/{durability}/append/100"].comparisons if one.against == "bare SQLite"
        )
        assert compared.ratio.median > 0
        assert by_name[f"step/{durability}"].figures[0].name == "runic_redis"


def test_the_feed_is_compared(report: Report) -> None:
    by_name = {result.name: result for result in report.results}
    for name in ("feed/append/1", "feed/append/1/tasks/2"):
        (compared,) = by_name[name].comparisons
        assert compared.against == "runic_redis"
    for name in ("feed/catch-up/flat", "feed/catch-up/mixed"):
        assert by_name[name].figures[0].name == "runic_redis, feed"


def test_the_savers_of_langgraph_are_compared(report: Report) -> None:
    pytest.importorskip("runic_redis.langgraph")
    pytest.importorskip("langgraph_checkpoint_plainredis")
    by_name = {result.name: result for result in report.results}
    for verb in ("put", "put-writes", "latest", "by-id", "list", "fsync/put", "fsync/put-writes"):
        for state in ("1000", "growing"):
            result = by_name[f"langgraph/{verb}/{state}"]
            assert result.figures[0].name == "runic_redis, LangGraph"
            against = {one.against for one in result.comparisons}
            assert against >= {"LangGraph, SQLite", "LangGraph, plainredis"}, result.name
    assert {one.against for one in by_name["langgraph/stored/growing"].comparisons} >= {"LangGraph, SQLite"}


def test_a_saver_takes_few_round_trips(report: Report) -> None:
    pytest.importorskip("runic_redis.langgraph")
    by_name = {result.name: result.figures[0] for result in report.results}
    for verb, most in (("put", 1), ("put-writes", 1), ("latest", 2), ("by-id", 2)):
        figure = by_name[f"langgraph/round-trips/{verb}"]
        assert figure.name == "runic_redis, LangGraph"
        assert figure.cost is not None
        assert 1 <= figure.cost.median <= most, verb


def test_the_recorders_of_eventsourcing_are_compared(report: Report) -> None:
    pytest.importorskip("runic_redis.eventsourcing")
    by_name = {result.name: result for result in report.results}
    for durability in ("everysec", "fsync"):
        for verb in ("insert/1", "insert/100", "insert/tracked"):
            result = by_name[f"eventsourcing/{durability}/{verb}"]
            assert result.figures[0].name == "runic_redis, eventsourcing"
            assert {one.against for one in result.comparisons} >= {"eventsourcing, SQLite"}
        for verb in ("dcb/append", "dcb/read"):
            assert by_name[f"eventsourcing/{durability}/{verb}"].figures[0].name == "runic_redis, eventsourcing"
    for name in ("eventsourcing/select", "eventsourcing/notifications"):
        assert {one.against for one in by_name[name].comparisons} >= {"eventsourcing, SQLite"}


def test_the_official_saver_says_what_it_needs(
    valkey: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip("benchmarks.contenders.langgraph_redis")
    monkeypatch.setenv("PATH", str(tmp_path))
    saver = module.LangGraphRedis(Place(Server(valkey.url(), valkey.url(), False), tmp_path, asyncio.Runner(), False))
    with pytest.raises(Missing, match="it needs RedisJSON and RediSearch: pass the --url"):
        saver.open()


def test_it_says_what_was_measured_on(report: Report) -> None:
    assert report.server["durability"] == "append-only file, fsync everysec"
    assert report.server["transport"] == "unix socket"
    assert report.server["streams"] == "stream-node-max-bytes 640"
    assert report.server["server"].startswith("Valkey ")
    assert {"redis", "runic-redis"} <= set(report.versions)


def test_the_reports(run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SHORT", TINY)
    console = Console(width=80, record=True)
    run.run_bench(None, full=False, only="append/mixed/10", out=tmp_path / "new", console=console)
    written = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert "append/mixed/10" in {result["name"] for result in written["results"]}
    assert "append 10, mixed events" in console.export_text()


def test_the_text_fits_a_terminal(run: ModuleType, report: Report) -> None:
    lines = run.text.render(report).splitlines()
    assert max(map(len, lines)) <= 80
    headlines = lines[lines.index("runic_redis against packed by hand") :]
    assert any(re.match(r"append 1,000, rich events +\d\S* \(\S+ to \S+\)$", line) for line in headlines)


@pytest.mark.parametrize("value", [0.001, 9.994, 999.6, 9_999.4, 9_999.6, 99_999.6, 999_499.0, 999_501.0, 1e8])
def test_a_figure_with_its_spread_fits_its_column(run: ModuleType, value: float) -> None:
    line = run.text._line("name", run.text.spread(Spread(value, value, value)), "0.61 (0.58 to 0.64)")
    assert len(line) <= 78


def test_the_html_is_one_file(run: ModuleType, report: Report) -> None:
    page = run.html.render(report)
    assert page.count("<svg") >= 6
    assert not re.search(r"<(link|script|img|iframe|object)\b|@import|url\(\s*['\"]?(?!#)|\bsrc=", page)
    assert all(reference.startswith("#") for reference in re.findall(r'href="([^"]*)"', page))
    # The names of XML's own vocabularies are no addresses to load from.
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    ids = re.findall(r'<clipPath id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_nothing_stays_on_the_server(run: ModuleType, valkey: RunningServer) -> None:
    with valkey.client() as client:
        client.set("somebody's", "value")
        before = set(client.keys())
        ours = ("append/mixed/1", "snapshot", "facts/1000", "growth", "memory/flat", "step/everysec")
        adapters = ("langgraph/put", "langgraph/list/growing", "eventsourcing/everysec", "eventsourcing/notifications")
        for only in (*ours, *adapters):
            run.measure(valkey.url(), TINY, only=only)
        assert set(client.keys()) == before


def test_what_needs_a_server_of_its_own_says_so(run: ModuleType, valkey: RunningServer) -> None:
    for result in run.measure(valkey.url(), TINY, only="step/fsync").results:
        (figure,) = result.figures
        assert figure.cost is None
        assert "embedded" in str(figure.missing)


def test_what_is_not_there_is_told(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent(Contender):
        name = "salamander-db"

        def open(self) -> None:
            raise Missing("it is not here")

    class Module:
        CONTENDERS = (Absent,)

    load = contenders.import_module

    def import_module(name: str, package: str) -> object:
        if name == ".uma_db":
            raise ModuleNotFoundError("No module named 'umadb'")
        return Module if name == ".salamander_db" else load(name, package)

    monkeypatch.setattr(contenders, "import_module", import_module)
    report = run.measure(None, TINY, only="append/flat/10")
    missing = {one.name: one.missing for one in report.contenders if one.missing}
    assert missing["salamander-db"] == "it is not here"
    assert missing["uma_db"] == "No module named 'umadb': pip install umadb"
    assert re.search(r"^uma_db +No module named 'umadb': pip install umadb$", run.text.render(report), re.MULTILINE)


def test_a_beginning_that_no_case_has_is_rejected(run: ModuleType) -> None:
    with pytest.raises(InvalidArgument, match="No case begins with 'nonsense'; the first words are append, "):
        run.measure(None, run.SHORT, only="nonsense")


def test_what_is_read_must_be_what_was_written() -> None:
    class Forgetful(Contender):
        name = "forgetful"

    with pytest.raises(Mismatch, match="forgetful"):
        check(Forgetful(Place.__new__(Place)), [1], [1, 2])


def test_a_checkpoint_that_is_read_must_be_what_was_written() -> None:
    thread = pytest.importorskip("benchmarks.contenders.langgraph_thread")
    (step,) = islice(thread.conversing(1000, 500, "seed"), 1)
    one = Contender(Place.__new__(Place))
    one.name = "forgetful"  # type: ignore[misc]

    def found(values: dict[str, Any], writes: list[tuple[str, str, Any]]) -> Any:
        return SimpleNamespace(checkpoint={"channel_values": values}, pending_writes=writes)

    written = [("task", channel, value) for channel, value in step.writes]
    langgraph_turns.check(one, found(step.values, written), step, step.writes)
    for values, writes in (
        ({**step.values, "steps": 7}, written),
        ({**step.values, "messages": step.values["messages"][:1]}, written),
        (step.values, written[:1]),
    ):
        with pytest.raises(Mismatch, match="forgetful"):
            langgraph_turns.check(one, found(values, writes), step, step.writes)


def test_threads_of_different_seeds_share_nothing() -> None:
    thread = pytest.importorskip("benchmarks.contenders.langgraph_thread")
    made = [
        *(thread.replacing(1000, seed) for seed in ("one", "two")),
        *(thread.conversing(1000, 500, seed) for seed in ("three", "four")),
    ]
    texts = [{message.content for message in next(islice(one, 2, None)).values["messages"]} for one in made]
    assert all(texts)
    assert sum(map(len, texts)) == len(set().union(*texts))


def test_an_append_whose_condition_failed_must_be_rejected() -> None:
    data = pytest.importorskip("benchmarks.contenders.event_sourcing_data")
    (event,) = data.enrolments(1, 10, 10)
    one = Contender(Place.__new__(Place))
    one.name = "careless"  # type: ignore[misc]
    with pytest.raises(Mismatch, match="careless: an append was not rejected"):
        eventsourcing_turns.check_rejection(one, SimpleNamespace(append=lambda *_: 1), event)


def test_statistics() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([4.0, 1.0, 2.0, 3.0]).median == 2.5
    assert ratios([10.0, 30.0, 8.0], [5.0, 10.0, 8.0]) == Spread(2.0, 1.0, 3.0)
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])
    hundred = [float(number) for number in range(100, 0, -1)]
    assert percentiles(hundred) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert [percentile([7.0], percent) for percent in (0, 50, 100)] == [7.0, 7.0, 7.0]
    assert percentile([1.0, 2.0], 51) == 2.0


def test_turns_are_taken_in_order() -> None:
    seen: list[tuple[str, int]] = []

    def side(name: str) -> Side:
        def turn(number: int) -> Turn:
            seen.append((name, number))
            return Turn(1.0 + number)

        return Side(name, turn)

    def fails(_: int) -> Turn:
        raise Missing("cannot")

    sides = [side("a"), Side("b", fails), side("c")]
    taken = take_turns(sides, Budget(warm_up=1, rounds=2, least=1, seconds=60))
    assert seen == [("a", -1), ("c", -1), ("a", 0), ("c", 0), ("a", 1), ("c", 1)]
    assert taken.turns == {"a": [Turn(1.0), Turn(2.0)], "c": [Turn(1.0), Turn(2.0)]}
    assert taken.missing == {"b": "cannot"}
    seen.clear()
    take_turns([side("a")], Budget(warm_up=0, rounds=100, least=3, seconds=0))
    assert len(seen) == 3


def test_a_ratio_is_of_speed_or_of_memory() -> None:
    turns = {"us": [Turn(10.0)], "them": [Turn(30.0)]}
    taken = Taken(["us", "them", "gone"], turns, {"gone": "not here"})
    for memory, expected in ((False, 3.0), (True, 1 / 3)):
        result = result_of(Case("case", "a case", "µs", lambda _: [], memory=memory), taken, 1.0)
        (compared,) = result.comparisons
        assert (compared.against, compared.ratio) == ("them", Spread(expected, expected, expected))
        assert [(one.name, one.missing) for one in result.figures] == [
            ("us", None),
            ("them", None),
            ("gone", "not here"),
        ]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_rows_by_hand_keep_the_events(kind: Kind) -> None:
    events = some_events(50, kind)
    assert [kind.build(msgpack.unpackb(msgpack.packb(kind.row(event)))) for event in events] == events
    assert len({repr(event) for event in events}) == 50
    assert len({repr(event) for event in some_events(50, kind, alike=True)}) == 8
