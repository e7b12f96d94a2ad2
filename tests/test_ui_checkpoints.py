"""The page shows a thread of LangGraph as a tree of checkpoints, without LangGraph."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from runic_redis import EventRegistry, FactRef, RedisStore
from runic_redis.admin.browsing import page as browsed
from runic_redis.events import bare_registry
from runic_redis.langgraph.records import SavedCheckpoint, SavedHistory, SavedWrites, register_in, tags_of
from runic_redis.ui import checkpoints
from runic_redis.ui.checkpoints import Thread
from tests.pages import serving
from tests.servers import RunningServer

UUID6 = "1f0cb7f6-59ee-6d2a-8001-0123456789ab"


@pytest.fixture
def threads(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        register_in(store.registry)
        yield store


def saved(id_: str, parent: str | None = None, ns: str = "", **fields: Any) -> SavedCheckpoint:
    given: dict[str, Any] = {
        "step": None,
        "source": "loop",
        "run_id": None,
        "versions": {},
        "changed": [],
        "channels": {},
        "facts": [],
    }
    return SavedCheckpoint(id=id_, ns=ns, parent=parent, **{**given, "rest": ["msgpack", b"\x92\x80\x80"], **fields})


def written(id_: str, task: str, *writes: tuple[int, str, Any], ns: str = "") -> SavedWrites:
    return SavedWrites(id_, ns, task, "", [[idx, channel, "msgpack", data] for idx, channel, data in writes], [])


def put(store: RedisStore, *events: Any, thread: str = "t") -> None:
    for event in events:
        store.append(thread, [event], tags=tags_of(event))


def shown(store: RedisStore, upto: int | None = None, thread: str = "t") -> dict[str, Any]:
    """Return what the page shows, from a store that knows no classes."""
    options = {"namespace": store.context.keys.namespace, "registry": bare_registry, "unknown_events": "wrap"}
    with RedisStore.from_url(store.url, **options) as bare:  # type: ignore[arg-type]
        decode = bare.run(browsed(bare.context, thread, upto=upto, count=checkpoints.THREAD_EVENTS), "browse")
        found = Thread(decode(), upto)
        bare.run(found.look_elsewhere(bare.context, thread), "browse")
        return found.form()


def rows(form: dict[str, Any], ns: str = "") -> list[dict[str, Any]]:
    (tree,) = [tree for tree in form["namespaces"] if tree["ns"] == ns]
    found: list[dict[str, Any]] = tree["checkpoints"]
    return found


def test_forks_are_branches(threads: RedisStore) -> None:
    put(threads, saved("1"), saved("2", "1"), saved("3", "2"), saved("4", "2"), saved("5", "3"), saved("6", "1"))
    found = rows(shown(threads))
    assert [one["id"] for one in found] == ["6", "5", "4", "3", "2", "1"]
    assert [one["parent_row"] for one in found] == [5, 3, 4, 4, 5, None]
    assert [one["branches"] for one in found] == [0, 0, 0, 1, 2, 2]
    lanes = [one["lane"] for one in found]
    # No line runs through a checkpoint of another branch.
    for row, one in enumerate(found):
        crossed = lanes[row + 1 : one["parent_row"]] if one["parent_row"] is not None else []
        assert one["lane"] not in crossed, (row, lanes)
    assert len(set(lanes[:3])) == 3, "three branches side by side"


def test_a_checkpoint_has_its_channels_and_writes(threads: RedisStore) -> None:
    channels = {
        "messages": [[40, "msgpack", 9000, 0], [2, "msgpack", 70, b"m" * 70]],
        "big": [[-1, "bytes", 5000, 1]],
        "small": [[-1, "msgpack", 3, b"abc"]],
    }
    facts = [FactRef(threads.put_fact(b"a" * 9000)), FactRef(threads.put_fact(b"b" * 5000))]
    versions = {"messages": f"{7:032}.0123", "big": 3, "small": "odd"}
    put(
        threads,
        written(UUID6, "early", (0, "x", b"12")),
        saved(
            *(UUID6, "0"),
            step=4,
            run_id="r",
            versions=versions,
            changed=["messages", "gone"],
            channels=channels,
            facts=facts,
        ),
        written(UUID6, "task", (0, "a", b"1"), (-3, "__interrupt__", b"22"), (1, "large", 0)),
        written(UUID6, "task", (0, "a", b"ignored"), (-3, "__interrupt__", b"333")),
        written(UUID6, "failed", (-1, "__error__", b"4444")),
        SavedHistory(UUID6, "", {"delta": [[-1, "msgpack", 1, b"a"]]}, {"other": []}, []),
    )
    (one,) = rows(shown(threads))
    assert (one["id"], one["step"], one["source"], one["run"], one["parent"]) == (UUID6, 4, "loop", "r", "0")
    assert one["time"].isoformat(timespec="seconds") == "2025-11-27T10:54:07+00:00", "the id's, not the commit's"
    assert [(part["channel"], part["version"], part["type"], part["size"], part["items"], part["changed"])
            for part in one["channels"]] == [
        ("messages", "7", "msgpack", 9070, 42, True),
        ("big", "3", "bytes", 5000, None, False),
        ("small", "odd", "msgpack", 3, None, False),
    ]  # fmt: skip
    assert (one["bytes"], one["changed_bytes"], one["changed"]) == (14073, 9070, ["messages", "gone"])
    assert [(part["task"], part["idx"], part["channel"], part["size"]) for part in one["writes"]] == [
        ("early", 0, "x", 2),
        ("failed", -1, "__error__", 4),
        ("task", -3, "__interrupt__", 3),
        ("task", 0, "a", 1),
        ("task", 1, "large", None),
    ]
    assert (one["write_count"], one["tasks"], one["write_bytes"]) == (5, 3, 10)
    assert (one["interrupts"], one["errors"], one["writes_elsewhere"]) == (1, 1, 0)
    assert one["history"] == ["delta", "other"]


def test_namespaces_are_trees(threads: RedisStore) -> None:
    put(threads, saved("1"), saved("5", ns="child:a"), saved("6", "5", ns="child:a"), saved("5", "1"))
    put(threads, saved("7", ns="child:b"), written("5", "t", (0, "x", b"1"), ns="child:a"))
    form = shown(threads)
    assert [tree["ns"] for tree in form["namespaces"]] == ["", "child:b", "child:a"]
    assert [(one["id"], one["write_count"]) for one in rows(form, "child:a")] == [("6", 0), ("5", 1)]
    assert [(one["id"], one["write_count"]) for one in rows(form)] == [("5", 0), ("1", 0)]


def test_writes_without_their_checkpoint_are_named(threads: RedisStore) -> None:
    put(threads, saved("1"), written("2", "t", (0, "x", b"1"), (1, "y", b"2")))
    assert shown(threads)["early"] == [{"ns": "", "id": "2", "writes": 2}]
    put(threads, saved("2", "1"))
    form = shown(threads)
    assert (form["early"], rows(form)[0]["write_count"]) == ([], 2)


def test_a_checkpoint_that_is_stored_twice_is_shown_once(threads: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(threads, saved("1"), saved("2", "1", step=1), saved("3", "2"), saved("2", "1", step=9))
    assert [(one["id"], one["step"]) for one in rows(shown(threads))] == [("3", None), ("2", 9), ("1", None)]
    below = shown(threads, upto=3)
    assert [one["id"] for one in rows(below)] == ["3", "1"], "the other one is on a newer page"
    assert rows(below)[0]["parent_cursor"] == 4


def test_each_checkpoint_is_on_one_page(threads: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_CHECKPOINTS", 10)
    monkeypatch.setattr(checkpoints, "THREAD_EVENTS", 60)
    for n in range(1, 48):
        put(threads, saved(f"{n:02}", f"{n - 1:02}" if n > 1 else None))
        put(threads, *(written(f"{n:02}", f"task {k}", (0, "x", b"1")) for k in range(2)))
    seen: list[str] = []
    upto = None
    while True:
        form = shown(threads, upto)
        found = rows(form)
        assert len(found) <= 10
        assert all((one["write_count"], one["writes_elsewhere"]) == (2, 0) for one in found)
        assert found[-1]["parent_row"] is None
        assert found[-1]["parent"] is None or found[-1]["parent_cursor"] == found[-1]["cursor"] - 3
        seen += [one["id"] for one in found]
        if not form["older"]:
            break
        upto = form["first"] - 1
    assert seen == [f"{n:02}" for n in range(47, 0, -1)]
    # A late write is counted where its checkpoint is.
    put(threads, written("01", "late", (0, "x", b"1")))
    assert rows(shown(threads, 1))[0]["writes_elsewhere"] == 3


def test_a_pruned_parent_is_shown_as_such(threads: RedisStore) -> None:
    put(threads, saved("1"), saved("2", "1"), saved("3", "2"))
    threads.save_snapshot("t", 1, b"")
    threads.trim("t")
    form = shown(threads)
    assert [(one["id"], one["parent"], one["parent_row"], one["parent_cursor"]) for one in rows(form)] == [
        ("3", "2", 1, None),
        ("2", "1", None, None),
    ]
    assert not form["older"]


def test_odd_parents_are_no_lines(threads: RedisStore) -> None:
    put(threads, saved("1", "1"), saved("2", "3"), saved("3", "2"))
    assert [(one["id"], one["parent_row"]) for one in rows(shown(threads))] == [("3", 1), ("2", None), ("1", None)]


ODD: list[dict[str, Any]] = [
    {},
    {"id": 7},
    {"id": "x\0y"},
    {"id": "x" * 500},
    {"id": "1", "ns": None},
    {"parent": 5, "step": "one", "source": b"", "run_id": 1},
    {"versions": [], "changed": {}, "channels": []},
    {"versions": {"a": {}, "b": 2**5000}, "changed": [1], "channels": {"a": 1, 7: [], "b": [1, [1], [1, 2, 3, 4]]}},
    {"task_id": 5, "writes": [[0, "a", "b", b""]]},
    {"task_id": "t", "writes": {}},
    {"task_id": "t", "writes": [1, [], [None] * 4, [2**5000, "c", "t", {}]], "seeds": 1},
]  # fmt: skip


def test_odd_events_do_not_stop_the_page(threads: RedisStore) -> None:
    registry = EventRegistry()
    kinds: list[Any] = [
        registry.event(name)(dataclass(type("Odd", (), {"__annotations__": {"fields": dict}})))
        for name in ("langgraph.checkpoint", "langgraph.writes", "langgraph.history")
    ]
    put(threads, saved("1"))
    with RedisStore.from_url(threads.url, namespace=threads.context.keys.namespace, registry=registry) as odd:
        for kind in kinds:
            odd.append("t", [kind({})])
    for name, tag in (("langgraph.checkpoint", "c"), ("langgraph.writes", "w"), ("langgraph.history", "h")):
        for number, fields in enumerate(ODD):
            one = {"id": f"odd-{number}", "ns": "", **fields}
            registry = EventRegistry()
            kind = registry.event(name)(dataclass(type("Odd", (), {"__annotations__": dict.fromkeys(one, Any)})))
            with RedisStore.from_url(threads.url, namespace=threads.context.keys.namespace, registry=registry) as odd:
                odd.append("t", [kind(**one)], tags=[f"{tag}//odd-{number}"])
    form = shown(threads)
    assert [one["id"] for one in rows(form)][-1] == "1"
    assert len(rows(form)) == 1 + len(ODD) - 4
    assert len(form["problems"]) == 3 + 3 * 4


def test_a_wide_checkpoint_is_cut(threads: RedisStore) -> None:
    names = [f"{'n' * 500}{n}" for n in range(500)]
    channels = {name: [[-1, "t" * 500, 1, b"x"]] for name in names}
    put(threads, saved("1", ns="s" * 60_000, source="s" * 1000, changed=names, channels=channels))
    put(threads, *(written("1", f"{'k' * 400}{n}", (0, "c" * 400, b"")) for n in range(100)))
    form = shown(threads)
    (tree,) = form["namespaces"]
    (one,) = tree["checkpoints"]
    assert len(str(form)) < 60_000
    assert (one["channel_count"], one["changed_count"], one["bytes"]) == (500, 500, 500)
    assert form["early"][0]["writes"] == 100, "of another namespace"


def test_the_page_answers(threads: RedisStore, valkey: RunningServer) -> None:
    put(threads, saved("1"), saved("2", "1"))
    threads.append("other", [{"n": 1}], tags=["c//1"])
    with serving(valkey.url(), threads.context.keys.namespace) as page:
        assert page.get("workflow", id="t")["is_thread"]
        assert not page.get("workflow", id="other")["is_thread"]
        form = page.get("checkpoints", id="t")
        assert [one["id"] for one in rows(form)] == ["2", "1"]
        assert [one["id"] for one in rows(page.get("checkpoints", id="t", upto=1))] == ["1"]
        assert page.get("checkpoints", id="other")["namespaces"] == []


def test_the_page_does_not_need_langgraph() -> None:
    code = "import sys; sys.modules['langgraph'] = sys.modules['langchain_core'] = None; import runic_redis.ui.app"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
