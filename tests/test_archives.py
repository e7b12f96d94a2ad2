"""`export`, `import` and `copy`: what arrives is what was there, whatever comes in between."""

import contextlib
import itertools
import math
import os
import random
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from runic_redis import ConfigurationError, DecodeError, Fact, LeaseLost, RedisStore
from runic_redis.admin.archive import ArchiveReader, ArchiveWriter, Digest, Record
from runic_redis.admin.describing import describe_one
from runic_redis.admin.exporting import KEPT, Exporter
from runic_redis.admin.importing import Importer
from runic_redis.keys import WorkflowKeys
from tests.faults import failover
from tests.servers import RunningServer, cluster_url
from tests.test_verifying import fill, log, run_while, verify


def export(store: RedisStore, path: Path, workflow_ids: list[str] | None = None) -> Exporter:
    exporter = Exporter(store.context, workflow_ids)
    with ArchiveWriter(path) as archive:
        for record in archive.found:
            exporter.note(record)
        store.run(exporter.run(archive.write), "export")
        archive.finish()
    return exporter


def load(store: RedisStore, path: Path) -> Importer:
    importer = Importer(store.context)
    with ArchiveReader(path) as archive:
        for record in archive:
            store.run(importer.take(record), "import")
    return importer


def due_in_queue(client: Any, keys: WorkflowKeys, workflow_id: str) -> float | None:
    """When a workflow is due in its queue; of a leased one, when the lease was given."""
    queue, lasts = client.hmget(keys.meta, "queue", "lease_ms")
    due = client.zscore(keys.queue((queue or b"").decode()), workflow_id)
    return None if due is None else float(due) - int(lasts or 0)


def contents(store: RedisStore) -> dict[str, Any]:
    """Everything that a namespace keeps of its workflows, whatever its partitions."""
    with_redis = store._connected.server._client
    found: dict[str, Any] = {}
    for workflow_id in store.list():
        keys = store.context.keys.workflow(workflow_id)
        meta = {name: value for name, value in with_redis.hgetall(keys.meta).items() if not name.startswith(b"lease_")}
        found[workflow_id] = (
            {name: value for name, value in meta.items() if name not in {b"fence", b"imported", b"imported_to"}},
            with_redis.xrange(keys.events),
            with_redis.hgetall(keys.snapshot),
            with_redis.get(keys.log),
            with_redis.hgetall(keys.commits),
            dict(map(tuple, with_redis.zrange(keys.refs, 0, -1, withscores=True))),
            dict(map(tuple, with_redis.zrange(keys.tags, 0, -1, withscores=True))),
            with_redis.zscore(keys.index, workflow_id),
            due_in_queue(with_redis, keys, workflow_id),
            with_redis.zscore(keys.parked, workflow_id),
            with_redis.zscore(keys.expiring, workflow_id),
            with_redis.zscore(keys.completed, workflow_id),
            [with_redis.pttl(key) > 0 for key in (keys.meta, keys.events)],
        )
    return found


@pytest.fixture
def store(valkey: RunningServer, namespace: str, few_buckets: None) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=5, feed=True) as store:
        fill(store)
        yield store


@pytest.fixture(params=["one", "cluster", "resp3"])
def target(request: pytest.FixtureRequest, valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    """An empty namespace, in other partitions."""
    url = valkey.url(3)
    if request.param == "cluster":
        nodes: list[RunningServer] = request.getfixturevalue("cluster_nodes")
        url = cluster_url(nodes)
    with RedisStore.from_url(url, namespace=f"{namespace}-target", partitions=77) as target:
        yield target


def test_what_is_imported_is_what_was_exported(store: RedisStore, target: RedisStore, tmp_path: Path) -> None:
    held = store.acquire("w", "me")
    exported = export(store, tmp_path / "a")
    assert exported.problems == []
    imported = load(target, tmp_path / "a")
    assert (imported.problems, imported.complete, imported.there) == ([], True, 0)
    assert (imported.workflows, imported.events, imported.facts) == (7, 36, 5)
    assert contents(target) == contents(store)
    assert verify(target).findings == []
    assert target.load_fact(b"alone") == 1
    assert target.append("trimmed", [{"n": 9}], commit_id="mine") == 2, "commit ids are known there, too"
    assert {lease.workflow_id for lease in target.claim("you", limit=10)} == {"w", "unfinished", "held"}
    with pytest.raises(LeaseLost):
        target.append("w", [{}], lease=held)
    again = load(target, tmp_path / "a")
    assert (again.workflows, again.there, again.problems) == (0, 7, []), "importing again changes nothing"
    assert verify(target).findings == []


def test_a_workflow_arrives_in_the_state_that_it_had(store: RedisStore, target: RedisStore, tmp_path: Path) -> None:
    for name in ("later", "never", "parked", "failed", "done"):
        store.append(name, [{"n": 1}], queue="orders", due=3600 if name == "later" else math.inf)
    store.park("parked", "card declined")
    store.park("failed", "card declined")
    store.unpark("failed", due=0)
    (held,) = store.claim("me", queues=["orders"])
    store.release(held, due=60.0)
    store.complete("done")
    assert export(store, tmp_path / "a").problems == []
    assert load(target, tmp_path / "a").problems == []
    assert contents(target) == contents(store)
    assert verify(target).findings == []
    described = {name: describe_one(target.context, name) for name in ("later", "never", "parked", "failed", "done")}
    assert {name: target.run(one, "test").state for name, one in described.items()} == {
        **dict.fromkeys(("later", "never", "failed"), "waiting"),
        "parked": "parked",
        "done": "completed",
    }
    assert target.claim("you", queues=["orders"]) == []
    target.unpark("parked")
    (lease,) = target.claim("you", queues=["orders"], max_attempts=1)
    assert (lease.workflow_id, lease.queue) == ("parked", "orders")


def test_a_workflow_that_its_queue_has_lost_is_due_where_it_is_imported(
    store: RedisStore, valkey: RunningServer, target: RedisStore, tmp_path: Path
) -> None:
    with valkey.client() as client:
        client.delete(*(store.context.keys.queue(number, "default") for number in range(5)))
    assert export(store, tmp_path / "a", ["held", "unfinished"]).problems == []
    assert load(target, tmp_path / "a").problems == []
    assert {lease.workflow_id for lease in target.claim("you", limit=10)} == {"held", "unfinished"}
    assert verify(target).findings == []


def test_some_workflows_bring_their_own_facts_alone(store: RedisStore, target: RedisStore, tmp_path: Path) -> None:
    exported = export(store, tmp_path / "a", ["log", "held"])
    assert (exported.workflows, exported.facts) == (2, 1)
    assert load(target, tmp_path / "a").problems == []
    assert set(target.list()) == {"log", "held"}
    assert export(store, tmp_path / "b", ["nobody"]).problems == ["There is no workflow 'nobody'. Check the id."]


def test_another_workflow_of_the_same_id_stays(store: RedisStore, target: RedisStore, tmp_path: Path) -> None:
    export(store, tmp_path / "a")
    target.append("w", [{"mine": True}])
    imported = load(target, tmp_path / "a")
    assert (imported.workflows, len(imported.problems)) == (6, 1)
    assert "exists with other events" in imported.problems[0]
    assert list(target.stream("w")) == [{"mine": True}]
    target.delete("w")
    assert load(target, tmp_path / "a").workflows == 1
    target.append("w", [{"more": 1}])
    assert load(target, tmp_path / "a").problems == [], "it is there, and has gone on"
    assert target.cursor("w") == 25


def test_a_workflow_that_has_gone_on_otherwise_is_not_taken_for_there(
    store: RedisStore, target: RedisStore, tmp_path: Path
) -> None:
    export(store, tmp_path / "a", ["w", "trimmed"])
    assert load(target, tmp_path / "a").problems == []
    for name in ("w", "trimmed"):
        store.append(name, [{"here": 1}])
        target.append(name, [{"there": 1}])
    export(store, tmp_path / "b", ["w", "trimmed"])
    for _ in range(2):
        imported = load(target, tmp_path / "b")
        assert (imported.there, imported.workflows, len(imported.problems)) == (0, 0, 2)
        assert all("exists with other events" in problem for problem in imported.problems)
        for name in ("w", "trimmed"):
            target.append(name, [{"there": 2}], snapshot=b"s")
    for name in ("w", "trimmed"):
        target.trim(name)
    again = load(target, tmp_path / "a")
    assert (again.there, again.problems) == (2, []), "it has gone on, and what the archive has is trimmed there"


class Interrupted(Exception):
    """In place of Ctrl-C, a crash, or a full disk."""


def test_an_export_that_is_cut_off_anywhere_is_gone_on_with(
    store: RedisStore, target: RedisStore, tmp_path: Path
) -> None:
    store.append("random", [{"b": os.urandom(300_000)} for _ in range(9)])
    whole = export(store, tmp_path / "whole")
    for after in (0, 1, 2, 3, 5, 7):
        exporter = Exporter(store.context)
        with ArchiveWriter(tmp_path / "a") as archive, pytest.raises(Interrupted):
            for record in archive.found:
                exporter.note(record)
            left = iter(range(after))

            def write(record: Record, archive: ArchiveWriter = archive, left: Iterator[int] = left) -> None:
                if next(left, None) is None:
                    raise Interrupted
                archive.write(record)
                archive.flush()

            store.run(exporter.run(write), "export")
        assert not (tmp_path / "a").exists(), "it is not whole"
        partial = tmp_path / "a.partial"
        partial.write_bytes(partial.read_bytes()[: -after - 1] + (b"torn" if after else b""))
    exported = export(store, tmp_path / "a")
    assert (exported.workflows, exported.events, exported.facts) == (whole.workflows, whole.events, whole.facts)
    assert not (tmp_path / "a.partial").exists()
    assert load(target, tmp_path / "a").complete
    assert contents(target) == contents(store)
    with pytest.raises(ConfigurationError, match="exists already"):
        export(store, tmp_path / "a")


def test_an_export_that_ended_and_got_no_name_gets_no_second_end(
    store: RedisStore, target: RedisStore, tmp_path: Path
) -> None:
    whole = export(store, tmp_path / "a")
    store.append("new", [{"came": "since"}])
    for blocks in ("one", "many"):
        (tmp_path / "a").rename(tmp_path / "a.partial")
        exported = export(store, tmp_path / "a")
        assert (exported.workflows, exported.events, exported.facts) == (
            whole.workflows + 1,
            whole.events + 1,
            whole.facts,
        )
        with ArchiveReader(tmp_path / "a") as archive:
            records = list(archive)
        assert [number for number, record in enumerate(records, 1) if record[0] == "end"] == [len(records)], blocks
        if blocks == "one":
            (tmp_path / "a").unlink()
            with ArchiveWriter(tmp_path / "a") as writer:
                assert list(writer.found) == []
                for record in records:
                    writer.write(record)
                    writer.flush()
                writer.finish()
    imported = load(target, tmp_path / "a")
    assert (imported.complete, imported.problems) == (True, [])
    assert contents(target) == contents(store)


@pytest.mark.parametrize("workflow_ids", [None, ["w"], ["w", "held"]])
def test_a_part_of_another_archive_is_not_gone_on_with(
    store: RedisStore, target: RedisStore, tmp_path: Path, workflow_ids: list[str] | None
) -> None:
    def cut_off() -> None:
        exporter = Exporter(store.context, workflow_ids)
        with ArchiveWriter(tmp_path / "a") as archive, pytest.raises(Interrupted):
            for record in archive.found:
                exporter.note(record)

            def write(record: Record) -> None:
                archive.write(record)
                archive.flush()
                if record[0] == "done":
                    raise Interrupted

            store.run(exporter.run(write), "export")

    cut_off()
    before = (tmp_path / "a.partial").read_bytes()
    for ids in (None, ["w"], ["w", "held"]):
        if ids != workflow_ids:
            with pytest.raises(ConfigurationError, match=r"Remove the \.partial file"):
                export(store, tmp_path / "a", ids)
    # Another server has another namespace of this name, and so has this one once it is made anew.
    target.append("w", [{}])
    with pytest.raises(ConfigurationError, match=r"Remove the \.partial file"):
        export(target, tmp_path / "a", workflow_ids)
    store.delete_namespace()
    fill(store)
    with pytest.raises(ConfigurationError, match=r"Remove the \.partial file"):
        export(store, tmp_path / "a", workflow_ids)
    assert (tmp_path / "a.partial").read_bytes() == before
    (tmp_path / "a.partial").unlink()
    cut_off()
    assert export(store, tmp_path / "a", workflow_ids and workflow_ids[::-1]).problems == []


def test_an_archive_is_written_by_one_run_at_a_time(store: RedisStore, tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a") as archive:
        assert list(archive.found) == []
        store.run(Exporter(store.context).run(archive.write), "export")
        before = (tmp_path / "a.partial").read_bytes()
        with pytest.raises(ConfigurationError, match=r"Another run is writing .*a\.partial"):
            export(store, tmp_path / "a")
        assert (tmp_path / "a.partial").read_bytes() == before
        archive.finish()
    assert not (tmp_path / "a.partial").exists()
    with ArchiveReader(tmp_path / "a") as reader:
        assert [record[0] for record in reader].count("end") == 1


def test_an_archive_that_another_run_finishes_meanwhile_stays(
    store: RedisStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ArchiveWriter(tmp_path / "a")
    assert list(first.found) == []
    lock = ArchiveWriter._lock

    def lock_late(late: ArchiveWriter) -> None:
        store.run(Exporter(store.context).run(first.write), "export")
        first.finish()
        lock(late)

    monkeypatch.setattr(ArchiveWriter, "_lock", lock_late)
    with pytest.raises(ConfigurationError, match="exists already"):
        ArchiveWriter(tmp_path / "a")
    with ArchiveReader(tmp_path / "a") as reader:
        assert list(reader)[-1][0] == "end"


@pytest.mark.parametrize("data", [b"precious", b"runic-redis archive 2\nand more", b"runic-redis archive 1"])
def test_a_file_that_is_no_part_of_an_archive_is_not_overwritten(
    store: RedisStore, tmp_path: Path, data: bytes
) -> None:
    partial = tmp_path / "a.partial"
    partial.write_bytes(data)
    if data == b"runic-redis archive 1":
        assert export(store, tmp_path / "a").problems == [], "it is the begin of ours"
        return
    with pytest.raises(ConfigurationError, match="not a part of an archive"):
        export(store, tmp_path / "a")
    assert partial.read_bytes() == data
    assert not (tmp_path / "a").exists()


def test_an_import_that_is_cut_off_anywhere_shows_nobody_a_part(
    store: RedisStore, target: RedisStore, tmp_path: Path
) -> None:
    export(store, tmp_path / "a")
    before = contents(store)
    with ArchiveReader(tmp_path / "a") as archive:
        records = list(archive)
    for stop in range(1, len(records) + 1):
        importer = Importer(target.context)
        for record in records[:stop]:
            target.run(importer.take(record), "import")
        there = contents(target)
        assert there == {name: before[name] for name in there}
        assert importer.complete == (stop == len(records))
    assert contents(target) == before
    assert verify(target).findings == []


@pytest.mark.parametrize("same", [True, False])
def test_of_two_imports_at_once_each_brings_all_or_says_what_it_has_not(
    store: RedisStore, valkey: RunningServer, namespace: str, tmp_path: Path, same: bool
) -> None:
    """They take turns in every way in which the second can begin, with a workflow that has all that there can be."""
    store.append("all", [{"n": 1}, {"f": Fact("x")}], commit_id="c", snapshot=b"s")
    store.save("all", [{"log": 1}])
    export(store, tmp_path / "0", ["all"])
    first = contents(store)["all"]
    if not same:
        store.append("all", [{"n": 3}], snapshot=b"later", commit_id="d")
        store.save("all", [{"log": 2}])
    export(store, tmp_path / "1", ["all"])
    wanted = (first, contents(store)["all"])
    archives = []
    for number in range(2):
        with ArchiveReader(tmp_path / f"{number}") as archive:
            archives.append(list(archive))
    there = RedisStore.from_url(valkey.url(3), namespace=f"{namespace}-target", partitions=2)
    with there as target, valkey.client() as client:
        for begins in range(len(archives[0]) + 1):
            for ends in range(len(archives[1]) + 1):
                importers = [Importer(target.context), Importer(target.context)]

                def go(which: int, part: slice, importers: list[Importer] = importers) -> None:
                    for record in archives[which][part]:
                        target.run(importers[which].take(record), "import")
                        if (workflow := importers[which]._workflow) is not None and not workflow.stays:
                            target.run(importers[which]._send_gathered(workflow), "_send_gathered")

                go(0, slice(begins))
                go(1, slice(ends))
                go(0, slice(begins, None))
                go(1, slice(ends, None))
                brought = [importer.workflows + importer.there for importer in importers]
                assert [len(importer.problems) for importer in importers] == [1 - number for number in brought]
                assert sum(brought) >= 1
                assert contents(target)["all"] in [wanted[number] for number in range(2) if brought[number]]
                assert not client.exists(*target.context.keys.imported("all"))
                target.delete("all")


def test_a_damaged_archive_is_refused_and_brings_no_damage(
    store: RedisStore, target: RedisStore, tmp_path: Path
) -> None:
    export(store, tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    source = random.Random(1)
    for _ in range(40):
        at = source.randrange(len(whole))
        damaged = whole[:at] + bytes([whole[at] ^ 1 << source.randrange(8)]) + whole[at + 1 :]
        for data in (damaged, whole[:at]):
            (tmp_path / "b").write_bytes(data)
            with contextlib.suppress(DecodeError, ConfigurationError):
                assert not load(target, tmp_path / "b").complete
    assert verify(target).findings == []
    before = contents(store)
    assert all(before[name] == there for name, there in contents(target).items())


@pytest.mark.parametrize(
    "record",
    [
        ["nonsense"],
        ["workflow"],
        ["workflow", "", {"created": b"1"}, None, None],
        ["snapshot", b"1", b"1", b"data"],
        ["done", "other", 1, 1, b"", b""],
        ["archive", 2],
        ["end", "many", 1, 1],
    ],
)
def test_a_record_that_is_none_is_refused(store: RedisStore, record: Record) -> None:
    importer = Importer(store.context)
    store.run(importer.take(["archive", 1, "x"]), "import")
    if record[0] == "done":
        store.run(importer.take(["workflow", "new", {"created": b"1"}, None, None]), "import")
    with pytest.raises((DecodeError, ConfigurationError, ValueError)):
        store.run(importer.take(record), "import")
    assert "new" not in set(store.list())


@pytest.mark.parametrize(
    "record",
    [
        ["workflow", "new"],
        ["workflow", "new", {"created": b"x"}, None, None],
        ["workflow", "new", {"cursor": b"1"}, None, None],
        ["workflow", "new", {"created": b"1", "lease_owner": b"me"}, None, None],
        ["workflow", "new", {"created": b"1"}, None, b"1"],
        ["workflow", "new", {"created": b"1", "queue": b"default"}, None, None],
        ["workflow", "new", {"created": b"1", "queue": b"default", "completed": b"2"}, None, b"1"],
        ["workflow", "new", {"created": b"1", "queue": b"default", "parked": b"2"}, None, b"1"],
        ["workflow", "new", {"created": b"1", "queue": b"a b"}, None, b"1"],
        ["workflow", "new", {"created": b"1", "queue": "default"}, None, b"1"],
        ["workflow", "new", {"created": b"1", "queue": b"default"}, None, b"-inf"],
        ["workflow", "new", {"created": b"1", "queue": b"default"}, None, True],
        ["workflow", "new", {"created": b"1", "queue": b"default"}, None, [1]],
        ["workflow", "new", {"created": b"1"}, b"nan", None],
        ["workflow", "new", ["created"], None, None],
        ["nonsense"],
        ["snapshot", b"1", b"1"],
        ["snapshot", b"x", b"1", b"data"],
        ["snapshot", b"1", 1, b"data"],
        ["entries", [[b"1-1", [b"h", 10**12, b"i", b"id"]]]],
        ["entries", [[b"x-1", [b"h", b"p", b"i", b"id"]]]],
        ["entries", [[b"1-1", [b"h", b"p"]]]],
        ["entries", [[b"1-1", [b"h", b"p", b"i", b"id", b"t", b"a\xff"]]]],
        ["entries", [[b"1-1", [b"h", b"p", b"i", b"id", b"t", b"a", b"m", b""]]]],
        ["entries", [[b"1-1", [b"h", b"p", b"i", b"id", b"t", b"a", b"n", b"1"]]]],
        ["entries", [[b"1-1", [b"h", b"p", b"i", b"id", b"t", 7]]]],
        ["refs", 10**12],
        ["refs", [10**12]],
        ["refs", [[b"a fact"]]],
        ["refs", [[b"a fact", b"x"]]],
        ["refs", [[b"a fact", b"-inf"]]],
        ["refs", [[10**12, b"1"]]],
        ["commits", [[b"a", 1]]],
        ["commits", [[b"a"]]],
        ["done", "new", "many", 1, b"", b""],
        ["done", "new", 0, 0, b""],
    ],
)
def test_a_workflow_with_a_damaged_record_is_left_out_and_the_next_one_comes(store: RedisStore, record: Record) -> None:
    importer = Importer(store.context)
    for one in (
        ["archive", 1, "x"],
        *whole(
            ["workflow", "new", {"created": b"1"}, None, None],
            ["log", b"a log"],
            record,
            ["refs", [[b"a fact", b"1"]]],
            ["done", "new", 0, 0, b""],
        ),
        *whole(["workflow", "next", {"created": b"1"}, None, None], ["done", "next", 0, 0, b""]),
        ["end", 2, 0, 0],
    ):
        store.run(importer.take(one), "import")
    assert len(importer.problems) == 1
    assert "'new' was not imported" in importer.problems[0]
    assert (importer.workflows, importer.complete) == (1, True)
    assert "new" not in set(store.list())
    assert not any("to an unfinished import" in finding.problem for finding in verify(store).findings)


def test_writers_may_go_on_while_it_is_exported(store: RedisStore, target: RedisStore, tmp_path: Path) -> None:
    over = threading.Event()
    store.append_many([(f"many-{n}", [{"n": n}] * 40) for n in range(200)])

    def write() -> None:
        for number in range(10**9):
            if over.is_set():
                return
            store.append("w", [{"n": number}, {"f": Fact(number)}])
            cursor = store.append("trimmed", [{"n": number}] * 9)
            store.save_snapshot("trimmed", cursor, b"%d" % cursor)
            store.trim("trimmed")
            store.delete("comes and goes")
            store.append("comes and goes", [{"n": number}], snapshot=b"s")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            assert export(store, tmp_path / f"{number}").problems == []
    finally:
        over.set()
        writer.join()
    imported = load(target, tmp_path / "2")
    assert (imported.problems, imported.complete) == ([], True)
    assert verify(target).findings == []
    assert list(target.stream("w")) == list(store.stream("w"))[: target.cursor("w")]


def test_tags_are_found_after_an_import(store: RedisStore, target: RedisStore, tmp_path: Path) -> None:
    """Of commits of several entries, of trimmed ones, and more tags of a page than one command takes."""
    store.append_many([("many", [{"n": n}]) for n in range(4)])
    for number in range(6):
        store.append("many", [{"n": number}], tags=[f"{number}/{n}" for n in range(500)], metadata={"by": "me"})
    store.append("huge", [{"b": os.urandom(700_000)} for _ in range(3)], tags=["large"])
    assert export(store, tmp_path / "a").problems == []
    assert load(target, tmp_path / "a").problems == []
    assert contents(target) == contents(store)
    assert verify(target).findings == []
    for workflow_id in ("many", "huge", "w", "trimmed"):
        assert target.find(workflow_id, prefix="") == store.find(workflow_id, prefix="")
    target.save_snapshot("many", 9, b"")
    assert target.trim("many") == 9
    assert [commit.cursor for commit in target.find("many", prefix="")] == [10] * 500


def commit_by_ids(store: RedisStore) -> None:
    for _ in range(30):
        store.append("w", [{"n": 0}], commit_id=os.urandom(8).hex())


@pytest.mark.parametrize("change", [commit_by_ids, log])
def test_what_is_exported_is_of_one_moment(
    store: RedisStore,
    target: RedisStore,
    tmp_path: Path,
    change: Callable[[RedisStore], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The workflow w changes after each round trip; it has so many commit ids and facts that they come in pages.

    (A hash of at most 512 fields is scanned at once, whatever the page.)
    """
    monkeypatch.setattr("runic_redis.admin.exporting._MEMBERS", 300)
    store.append_many([("w", [{"f": Fact(number)}]) for number in range(700)])
    for number in range(600):
        store.append("w", [{"n": number}], commit_id=f"early-{number}")
    with ArchiveWriter(tmp_path / "a") as archive:
        assert list(archive.found) == []
        run_while(store, Exporter(store.context, ["w"]).run(archive.write), change)
        archive.finish()
    imported = load(target, tmp_path / "a")
    assert (imported.workflows, imported.problems, imported.complete) == (1, [], True)
    assert verify(target).findings == []
    assert list(target.stream("w")) == list(store.stream("w"))[: target.cursor("w")]


def test_an_export_across_a_failover_has_all_workflows(
    valkey: RunningServer, namespace: str, tmp_path: Path, few_buckets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runic_redis.operations.indexes._AT_ONCE", 50)
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        store.append_many([(f"w-{number}", [{"n": number}]) for number in range(600)])
        exporter = Exporter(store.context)
        index = store.context.keys.index(0)
        with failover(store, valkey, tmp_path) as servers:
            servers.run(exporter.run(lambda _: None), lambda one: one.key == index)
    assert (exporter.workflows, exporter.problems) == (600, [])


def test_a_damaged_store_is_exported_as_far_as_it_is_whole(
    store: RedisStore, valkey: RunningServer, target: RedisStore, tmp_path: Path
) -> None:
    keys = store.context.keys.workflow
    with valkey.client() as client:
        client.hset(keys("held").meta, "cursor", 5)
        client.hdel(keys("completed").meta, "created")
        client.delete(keys("log").log)
        client.lpush(keys("log").log, "foreign")
        client.hset(store.context.keys.fact(b"alone")[0], b"alone", b"damage")
    exported = export(store, tmp_path / "a")
    assert len(exported.problems) == 4
    assert load(target, tmp_path / "a").problems == []
    assert set(target.list()) == {"w", "large", "trimmed", "unfinished"}
    assert verify(target).findings == []


@pytest.mark.parametrize("field", KEPT)
def test_a_workflow_that_no_import_would_take_is_not_exported(
    store: RedisStore, valkey: RunningServer, target: RedisStore, tmp_path: Path, field: str
) -> None:
    keys = store.context.keys.workflow
    with valkey.client() as client:
        client.hset(keys("large").meta, field, b"\xff" if field in {"queue", "timer", "parked_reason"} else "x")
        client.hset(keys("trimmed").snapshot, "cursor", "x")
        client.xadd(keys("w").events, {"one": "1"}, id="999-1")
        client.hset(keys("w").meta, "cursor", 999)
        client.zadd(store.context.keys.index(0), {"x" * 600: 1})
        client.hset(keys("x" * 600).meta, "created", "1")
    exported = export(store, tmp_path / "a")
    assert (len(exported.problems), exported.workflows) == (4, 4)
    for name in ("large", "trimmed", "w", "xxx"):
        assert any(name in problem for problem in exported.problems)
    imported = load(target, tmp_path / "a")
    assert (imported.problems, imported.workflows, imported.complete) == ([], 4, True)
    assert verify(target).findings == []


@pytest.mark.parametrize("protocol", [2, 3])
def test_records_are_of_the_types_of_the_specification(
    store: RedisStore, valkey: RunningServer, tmp_path: Path, protocol: int
) -> None:
    with RedisStore.from_url(valkey.url(protocol), namespace=store.context.keys.namespace, partitions=5) as reader:
        export(reader, tmp_path / "a")
    with ArchiveReader(tmp_path / "a") as archive:
        records = {record[0]: record for record in archive}
    types = {kind: [type(part) for part in parts] for kind, (_, *parts) in records.items()}
    assert types["archive"] == [int, str, bytes, type(None), bool, bytes]
    assert types["workflow"] == [str, dict, bytes, type(None)]
    assert types["snapshot"] == [bytes, bytes, bytes]
    assert types["done"] == [str, int, int, bytes, bytes]


def whole(*records: Record) -> list[Record]:
    """The records of a workflow, the last one with their digest."""
    digest = Digest()
    return [*records[:-1], [*records[-1], [digest.add(record) for record in records][-1]]]


def rewrite(path: Path, records: Iterable[Record | bytes]) -> None:
    """Write an archive with a correct checksum of whatever is in it, packed already or not."""
    with ArchiveWriter(path) as archive:
        assert list(archive.found) == []
        for record in records:
            packed = record if type(record) is bytes else msgpack.packb(record)
            archive._records.append(packed)
            archive.flush()
        archive.finish()


def changes(value: Any) -> Iterator[Any]:
    """A value with one change, in every place in which it can have one."""
    if type(value) is list:
        for at, part in enumerate(value):
            yield value[:at] + value[at + 1 :]
            yield from ([*value[:at], changed, *value[at + 1 :]] for changed in changes(part))
    elif type(value) is dict:
        for name, part in value.items():
            rest = {other: value[other] for other in value if other != name}
            yield from (rest, {f"{name}x": part, **rest})
            yield from ({**value, name: changed} for changed in changes(part))
    elif type(value) is bytes:
        for at in {0, len(value) // 2, len(value) - 1} & set(range(len(value))):
            yield value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        yield value + b"0"
    elif type(value) is str:
        yield f"{value}x"
    else:
        yield {None: b"1", True: False, False: True}.get(value, 7) if type(value) is not int else value + 1


def test_whatever_is_changed_in_an_archive_is_noticed(
    store: RedisStore, valkey: RunningServer, namespace: str, tmp_path: Path
) -> None:
    """Also where every checksum of a block is right."""
    store.append("all", [{"n": 1}, {"f": Fact("x")}], commit_id="c", snapshot=b"s", metadata={"m": 1})
    store.save("all", [{"log": 1}])
    store.acquire("all", "me")
    export(store, tmp_path / "a", ["all", "trimmed"])
    with ArchiveReader(tmp_path / "a") as archive:
        records = list(archive)
    assert {record[0] for record in records} >= {"fact", "snapshot", "log", "commits", "refs", "entries", "done"}
    tried = 0
    with RedisStore.from_url(valkey.url(), namespace=f"{namespace}-target", partitions=2) as target:
        for at, record in enumerate(records):
            for changed in [*changes(record), None]:
                if record[0] == "archive" and changed is not None and changed[:2] == record[:2]:
                    continue  # this is only for the export that goes on with it
                tried += 1
                importer = Importer(target.context)
                with contextlib.suppress(DecodeError, ConfigurationError):
                    for one in [*records[:at], *([] if changed is None else [changed]), *records[at + 1 :]]:
                        target.run(importer.take(one), "import")
                    assert importer.problems or not importer.complete, (record, changed)
                for name in target.list():
                    target.delete(name)
    assert tried > 100


@pytest.mark.parametrize(
    "make_bomb",
    [
        lambda: b"\x92\xa1x\xdd" + (10**7).to_bytes(4, "big") + b"\x90" * 10**7,
        lambda: b"\x92\xa1x\xdd" + (10**7).to_bytes(4, "big") + b"\xc0" * 10**7,
        lambda: b"\x92\xa1x" + b"\xdc\x40\x00" * 1000 + b"\xc0" * 10**7,
        lambda: b"\x92\xa1x" + b"\xdd\x7f\xff\xff\xff" * 1000,
        lambda: b"\x92\xa1x\xdc\x01\x00" + (b"\xdc\x40\x00" + b"\xc0" * 2**14) * 2**8,
        lambda: b"\x92\xa1x\xdc\x20\x00" + (b"\x81\xa1x\x90") * 2**13,
        lambda: b"\x92\xa1x\xdf" + (10**6).to_bytes(4, "big") + b"".join(b"\xa6%06d\xc0" % n for n in range(10**6)),
        lambda: b"\x92\xa7entries\xdd" + (10**6).to_bytes(4, "big") + (b"\x92\xc4\x00\x94" + b"\xc4\x00" * 4) * 10**6,
        lambda: b"\x92\xa1x" + b"\x91" * 10**6,
        lambda: b"\x92\xa1x\xd4\x05\x00",
        lambda: b"\x92\xa1x",
        lambda: b"\xc0" * 10**6,
        lambda: b"\x90" * 10**6,
    ],
    ids=map(str, itertools.count()),
)
def test_a_small_archive_does_not_expand_to_much(
    store: RedisStore, tmp_path: Path, make_bomb: Callable[[], bytes]
) -> None:
    bomb = make_bomb()
    rewrite(tmp_path / "a", [["archive", 1, "x", None, None], bomb])
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            load(store, tmp_path / "a")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 64 * 2**20 + 4 * len(bomb)
    (tmp_path / "a").rename(tmp_path / "b.partial")
    with pytest.raises(ConfigurationError, match="Nothing was changed"):
        export(store, tmp_path / "b")


def test_an_import_ends_where_almost_all_is_damaged(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runic_redis.admin.importing._MOST_PROBLEMS", 100)
    importer = Importer(store.context)
    store.run(importer.take(["archive", 1, "x", None, None]), "import")
    for _ in range(100):
        store.run(importer.take(["fact", b"", b""]), "import")
    with pytest.raises(DecodeError, match="more than 100 problems"):
        store.run(importer.take(["fact", b"", b""]), "import")


def test_what_an_import_has_still_to_send_is_bounded(store: RedisStore) -> None:
    importer = Importer(store.context)
    for record in (["archive", 1, "x", None, None], ["workflow", "new", {"created": b"1"}, None, None]):
        store.run(importer.take(record), "import")
    most = 0
    for _ in range(10_000):
        store.run(importer.take(["refs", []]), "import")
        most = max(most, len(importer._commands))
    assert 1000 < most < 9000


def test_a_file_of_any_name_is_told_in_text(store: RedisStore, valkey: RunningServer, tmp_path: Path) -> None:
    """Also of a name that is no UTF-8, or that a terminal would take for a command."""
    name = os.fsencode(tmp_path) + b"/\xff\x1b[31m\r"
    command = [sys.executable, "-m", "runic_redis.cli.main", "export", name, "trimmed", "--url", valkey.url()]
    ended = subprocess.run(
        [*command, "--namespace", store.context.keys.namespace],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert ended.returncode == 0, ended
    assert b"\\udcff\\x1b[31m\\r: 1 workflow, " in ended.stdout


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    for path in (tmp_path / "a", tmp_path):
        with pytest.raises(ConfigurationError, match="not a regular file"):
            ArchiveReader(path)


def gather_one(store: RedisStore, path: Path) -> str:
    """Import up to where the first workflow would be made of what was gathered; its id."""
    importer = Importer(store.context)
    with ArchiveReader(path) as archive:
        for record in archive:
            if record[0] == "done":
                break
            store.run(importer.take(record), "import")
    assert importer._workflow is not None
    store.run(importer._send_gathered(importer._workflow), "_send_gathered")
    return importer._workflow.workflow_id


def test_what_an_import_has_left_goes_by_itself(store: RedisStore, valkey: RunningServer, tmp_path: Path) -> None:
    export(store, tmp_path / "a")
    with RedisStore.from_url(valkey.url(), namespace=f"{store.context.keys.namespace}-x") as other:
        gather_one(other, tmp_path / "a")
        with valkey.client() as client:
            left = list(client.scan_iter(match=f"{{{other.context.keys.namespace}:*:import-*"))
            assert left
            assert all(0 < client.pttl(key) <= 24 * 3600 * 1000 for key in left)
            load(other, tmp_path / "a")
            assert not list(client.scan_iter(match=f"{{{other.context.keys.namespace}:*:import-*"))


def test_what_was_gathered_of_a_workflow_that_is_there_by_now_goes(
    store: RedisStore, target: RedisStore, tmp_path: Path
) -> None:
    """It would be a finding of `verify` for a day, with nobody to go on with it."""
    export(store, tmp_path / "a")
    target.append(gather_one(target, tmp_path / "a"), [{"came": "meanwhile"}])
    assert any("to an unfinished import" in finding.problem for finding in verify(target).findings)
    assert len(load(target, tmp_path / "a").problems) == 1
    assert verify(target).findings == []


def test_a_hundred_thousand_events_go_to_a_cluster_with_other_partitions(
    valkey: RunningServer, cluster_nodes: list[RunningServer], namespace: str, tmp_path: Path
) -> None:
    url = cluster_url(cluster_nodes)
    with (
        RedisStore.from_url(valkey.url(), namespace=namespace) as store,
        RedisStore.from_url(url, namespace=namespace, partitions=40) as target,
    ):
        events = [{"step": n, "text": f"event {n} of its commit"} for n in range(50)]
        for first in (0, 0, 500, 500):
            store.append_many([(f"w-{n}", events) for n in range(first, first + 500)])
        exported = export(store, tmp_path / "a")
        assert (exported.workflows, exported.events, exported.problems) == (1000, 100_000, [])
        imported = load(target, tmp_path / "a")
        assert (imported.workflows, imported.events, imported.complete) == (1000, 100_000, True)
        found = verify(target)
        assert (found.workflows, found.events, found.findings) == (1000, 100_000, [])
        assert set(target.list()) == set(store.list())
        for n in (0, 499, 999):
            assert list(target.stream_records(f"w-{n}")) == list(store.stream_records(f"w-{n}"))
        target.delete_namespace()
        store.delete_namespace()
