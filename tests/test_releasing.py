"""Trimming releases facts: only the events, the log and the snapshot of a workflow keep them from being collected."""

import json
import random
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import pytest

from runic_redis import (
    AsyncRedisStore,
    DecodeError,
    EncodedState,
    EveryEvents,
    Fact,
    FactNotFound,
    FactRef,
    InvalidArgument,
    InvalidType,
    RedisStore,
    SnapshotNotSaved,
    session,
)
from runic_redis.admin.exporting import Exporter
from runic_redis.admin.importing import Importer
from tests.faces import Face
from tests.servers import RunningServer, cluster_url, url_on
from tests.test_archives import export, load
from tests.test_references import tell
from tests.test_verifying import run_while, verify


@pytest.fixture(params=["memory", "embedded", "redis_6_2", "valkey", "cluster_nodes"])
def url(request: pytest.FixtureRequest, namespace: str, few_buckets: None) -> str:
    embedded = request.param == "embedded"
    found: str = request.getfixturevalue("embedded") if embedded else url_on(request, request.param, namespace)
    return found


@pytest.fixture
def store(url: str, namespace: str) -> Iterator[RedisStore]:
    with RedisStore.from_url(url, namespace=namespace, partitions=3) as store:
        yield store


def hash_of(store: RedisStore, value: Any) -> str:
    return store.context.codec.encode_own_fact(value)[0]


def stored(store: RedisStore, values: Any) -> list[Any]:
    """Return those of the values that are stored as facts."""
    found = []
    for value in values:
        with suppress(FactNotFound):
            found.append(store.load_fact(hash_of(store, value)))
    return found


def refs_of(store: RedisStore) -> dict[str, float]:
    keys = store.context.keys.workflow("w")
    found = tell(store, "ZRANGE", keys.refs, "0", "-1", "WITHSCORES")
    pairs = found if found and isinstance(found[0], list) else list(zip(found[::2], found[1::2], strict=True))
    assert int(tell(store, "HGET", keys.meta, "refs") or 0) == len(pairs)
    return {fact.decode(): float(score) for fact, score in pairs}


class Opaque:
    """A state that no event could hold."""

    def __init__(self, document: FactRef | None = None) -> None:
        self.document = document


def by_json(state: Any) -> bytes:
    return json.dumps({"document": getattr(state["document"], "hash", None)}).encode()


STATES = list(range(12))


def save_separately(store: RedisStore, number: int) -> None:
    cursor = store.append("w", [{"state": Fact(number)}])
    store.save_snapshot("w", cursor, b"opaque", refs=[FactRef(hash_of(store, number))])


def save_at_once(store: RedisStore, number: int) -> None:
    fact_hash = store.put_fact(number)
    store.append("w", [{"state": FactRef(fact_hash)}], snapshot=b"opaque", refs=[fact_hash.encode()])


def save_data(store: RedisStore, number: int) -> None:
    store.append("w", [{"state": Fact(number)}], snapshot=b"\xff of " + hash_of(store, number).encode() + b"\x00")


def save_encoded(store: RedisStore, number: int) -> None:
    state = store.encode_state({"state": Fact(number)})
    store.append("w", [{"state": Fact(number)}], snapshot=state)


@pytest.mark.parametrize("save", [save_separately, save_at_once, save_data, save_encoded])
@pytest.mark.parametrize("keep", [0, 2])
def test_of_twelve_states_one_is_left(store: RedisStore, save: Callable[[RedisStore, int], None], keep: int) -> None:
    for number in STATES:
        save(store, number)
        store.trim("w", keep=keep)
    assert verify(store).findings == []
    left = max(1, keep)
    assert store.collect(0) == 12 - left
    assert stored(store, STATES) == STATES[-left:]
    store.trim("w")
    assert store.collect(0) == left - 1
    assert stored(store, STATES) == [11]
    assert verify(store).findings == []
    assert store.load_fact(hash_of(store, 11)) == 11
    store.delete("w")
    assert store.collect(0) == 1


DUMPS: dict[str, dict[str, Any]] = {
    "by default": {},
    "with the hash in the data": {"dumps": by_json, "loads": json.loads},
    "compressed": {
        "dumps": lambda state: zlib.compress(by_json(state)),
        "loads": lambda data: json.loads(zlib.decompress(data)),
    },
}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("dumps", DUMPS)
def test_a_session_keeps_the_facts_of_its_state(url: str, namespace: str, dumps: str, asynchronous: bool) -> None:
    face = Face(url, namespace, asynchronous=asynchronous)
    try:
        options = {"snapshots": EveryEvents(1), "keep": 0, **DUMPS[dumps]}
        with face.session(lambda _, event: {"document": event["document"]}, {"document": None}, **options) as entered:
            for number in STATES:
                entered.record({"document": Fact(number)})
        assert face.store.collect(0) == 11
        assert stored(face.store, STATES) == [11]
        # A session that begins with the snapshot keeps them, too: its state holds references now.
        with face.session(lambda state, _: {**state}, {"document": None}, **options) as entered:
            entered.record({"n": 13})
        assert face.store.collect(0) == (0 if dumps == "by default" else 1)
    finally:
        face.close()


def apply_opaque(state: Opaque, event: Any) -> Opaque:
    return Opaque(event["document"])


@pytest.mark.parametrize("tells", [False, True])
def test_a_session_with_a_state_of_its_own(store: RedisStore, tells: bool) -> None:
    """Its hash is found in the data; or the data is compressed, and tells it."""

    def dumps(state: Opaque) -> bytes:
        if state.document is None:
            return b""
        fact_hash = store.put_fact(state.document.value) if isinstance(state.document, Fact) else state.document.hash
        return EncodedState(zlib.compress(fact_hash.encode()), [fact_hash]) if tells else fact_hash.encode()

    options: dict[str, Any] = {"dumps": dumps, "loads": Opaque, "snapshots": EveryEvents(1), "keep": 0}
    with session(store, "w", apply_opaque, Opaque, **options) as entered:
        for number in STATES:
            entered.record({"document": Fact(number)})
    assert store.collect(0) == 11
    assert stored(store, STATES) == [11]


def test_a_session_goes_on_if_its_state_refers_to_no_fact(store: RedisStore) -> None:
    options: dict[str, Any] = {"snapshots": EveryEvents(1), "keep": 0}
    with session(store, "w", lambda state, event: event, {}, **options) as entered:
        entered.record({"n": 1})
    with session(store, "w", lambda state, event: {"gone": FactRef("gone")}, {}, **options) as entered:
        with pytest.raises(SnapshotNotSaved, match="'gone', which is not stored"):
            entered.record({"n": 2})
        with pytest.raises(FactNotFound):
            entered.record({"f": FactRef("gone, too")})
    assert store.cursor("w") == 2
    assert store.load_snapshot("w")[0] == 1


def test_an_asyncio_store_takes_references(url: str, namespace: str) -> None:
    face = Face(url, namespace, asynchronous=True)
    try:
        used: AsyncRedisStore = face.used
        kept = face.run(used.put_fact("kept"))
        face.run(used.append("w", [{"f": Fact("gone")}], snapshot=b"s", refs=[kept]))
        face.run(used.trim("w"))
        assert face.run(used.collect(0)) == 1
        face.run(used.save_snapshot("w", 1, b"s", refs=()))
        face.run(used.trim("w"))
        assert face.run(used.collect(0)) == 1
    finally:
        face.close()


def test_a_log_keeps_its_facts(store: RedisStore) -> None:
    store.append("w", [{"f": Fact("both")}, {"f": Fact("event")}])
    store.save("w", [{"f": Fact("both")}, {"f": Fact("log")}])
    store.save_snapshot("w", 2, b"", refs=())
    store.trim("w")
    assert refs_of(store) == {hash_of(store, "both"): inf, hash_of(store, "log"): inf}
    assert store.collect(0) == 1
    assert stored(store, ["both", "event", "log"]) == ["both", "log"]


def test_workflows_share_facts(store: RedisStore) -> None:
    for name in ("w", "v", "u"):
        store.append(name, [{"f": Fact("shared")}], snapshot=b"", refs=())
    for name in ("w", "v"):
        store.trim(name)
        assert store.collect(0) == 0
    store.append("v", [{"f": FactRef(hash_of(store, "shared"))}])
    store.trim("u")
    assert store.collect(0) == 0
    store.save_snapshot("v", 2, b"", refs=())
    store.trim("v")
    assert store.collect(0) == 1


def test_a_later_event_keeps_the_fact_of_a_trimmed_one(store: RedisStore) -> None:
    store.append("w", [{"f": Fact("v")}], snapshot=b"", refs=())
    store.append("w", [{"f": Fact("v")}])
    store.trim("w")
    assert store.collect(0) == 0
    store.trim("w")
    assert list(store.stream("w", after=1)) == [{"f": FactRef(hash_of(store, "v"))}]
    assert store.collect(0) == 0


def test_a_commit_that_is_trimmed_in_part_keeps_its_facts(store: RedisStore) -> None:
    store.append("w", [{"f": Fact("first")}, {"f": Fact("second")}])
    store.save_snapshot("w", 1, b"", refs=())
    assert store.trim("w") == 0
    assert store.collect(0) == 0


def test_bytes_that_are_no_text_are_a_hash(store: RedisStore) -> None:
    store.save_fact(b"\xff\x00\n", "v")
    store.append("w", [{"n": 1}], snapshot=b"", refs=[b"\xff\x00\n", b"\xff\x00\n"])
    store.save_snapshot("w", 1, b"", refs=(b"\xff\x00\n",))
    store.trim("w")
    assert store.collect(0) == 0
    assert verify(store).findings == []
    store.save_snapshot("w", 1, b"")
    store.trim("w")
    assert store.collect(0) == 1


@pytest.mark.parametrize("told", [True, False])
def test_many_facts_are_released_in_several_steps(store: RedisStore, told: bool) -> None:
    for first in range(0, 3000, 500):
        store.append("w", [{"f": [Fact(number) for number in range(first, first + 500)]}])
    kept = [hash_of(store, number) for number in range(1200)]
    store.save_snapshot("w", 6, " ".join(kept).encode(), refs=kept if told else None)
    left = []
    for _ in range(200):
        store.trim("w")
        left.append(len(refs_of(store)))
        if left[-1] == 1200:
            break
    # One call reviews one page of them, and those that are kept do not hide the others for ever.
    assert left[0] >= 3000 - 1024
    assert refs_of(store).keys() == set(kept)
    assert store.collect(0) == 1800
    assert stored(store, range(1190, 1210)) == list(range(1190, 1200))
    assert verify(store).findings == []


def test_data_that_is_too_large_to_search_keeps_all_facts(store: RedisStore) -> None:
    large = 33 * 1024 * 1024
    store.append("w", [{"f": Fact("v")}], snapshot=bytes(large))
    store.trim("w")
    assert store.collect(0) == 0
    store.save_snapshot("w", 1, bytes(large), refs=())
    store.trim("w")
    assert store.collect(0) == 1


DAMAGE: dict[str, tuple[str, ...]] = {
    "the snapshot is lost": ("UNLINK", "snapshot"),
    "its facts are damaged": ("HSET", "snapshot", "refs", "\x00"),
    "its facts are cut": ("HSET", "snapshot", "refs", "\x00\x05sha"),
    "it is older than noted": ("HSET", "meta", "snapshot", "2"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_snapshot_releases_nothing(store: RedisStore, name: str) -> None:
    store.append("w", [{"f": Fact("v")}], snapshot=b"", refs=())
    store.append("w", [{"n": 2}])
    command, key, *rest = DAMAGE[name]
    tell(store, command, getattr(store.context.keys.workflow("w"), key), *rest)
    store.trim("w")
    assert len(refs_of(store)) == 1
    assert store.collect(0) == 0
    if "facts" in name:
        assert any("references to facts are damaged" in one.problem for one in verify(store).findings)


BAD: list[tuple[Any, type[Exception]]] = [
    ("sha256:text", InvalidType),
    (b"bytes", InvalidType),
    (5, InvalidType),
    ([5], InvalidType),
    ([""], InvalidArgument),
    ([FactRef("x" * 513)], InvalidArgument),
    ([Fact("value")], InvalidType),
]


def test_bad_references_are_rejected(store: RedisStore) -> None:
    store.append("w", [{"n": 1}])
    for refs, error in BAD:
        with pytest.raises(error, match="nothing was sent"):
            store.save_snapshot("w", 1, b"", refs=refs)
        with pytest.raises(error, match="nothing was sent"):
            store.append("w", [{"n": 2}], snapshot=b"", refs=refs)
    with pytest.raises(InvalidArgument, match="nothing was sent"):
        store.append("w", [{"n": 2}], refs=[])
    assert store.cursor("w") == 1


def test_lost_references_are_noticed_after_a_trim_and_restored(store: RedisStore) -> None:
    store.append("w", [{"f": Fact("trimmed")}])
    store.append("w", [{"f": Fact("told")}], snapshot=b"", refs=[hash_of(store, "trimmed"), store.put_fact("alone")])
    store.save("w", [{"f": Fact("log")}])
    store.append("w", [{"f": Fact("event")}])
    store.trim("w")
    keys = store.context.keys.workflow("w")
    before = refs_of(store)
    assert len(before) == 4
    for restore in (lambda: store.collect(0), lambda: verify(store, repair=True)):
        tell(store, "UNLINK", keys.refs)
        with pytest.raises(DecodeError, match="references"):
            store.save_snapshot("w", 3, b"", refs=[hash_of(store, "event")])
        restore()
        assert refs_of(store).keys() == before.keys()
        assert verify(store).findings == []
    store.collect(0)
    assert stored(store, ["trimmed", "told", "alone", "log", "event"]) == ["trimmed", "alone", "log", "event"]


def test_lost_references_of_a_snapshot_that_does_not_tell_them_stop_a_collection(store: RedisStore) -> None:
    store.append("w", [{"f": Fact("v")}], snapshot=b"of " + hash_of(store, "v").encode())
    store.trim("w")
    tell(store, "UNLINK", store.context.keys.workflow("w").refs)
    store.put_fact("orphan")
    with pytest.raises(DecodeError, match="does not tell its facts"):
        store.collect(0)
    assert stored(store, ["v", "orphan"]) == ["v", "orphan"]


def test_verify_finds_a_lost_reference_of_a_snapshot(store: RedisStore) -> None:
    kept = store.put_fact("kept")
    store.append("w", [{"f": Fact("event")}], snapshot=b"", refs=[kept])
    keys = store.context.keys.workflow("w")
    tell(store, "ZREM", keys.refs, kept)
    tell(store, "HSET", keys.meta, "refs", "1")
    (finding,) = verify(store).findings
    assert f"1 facts that its snapshot refers to are not among its references, such as {kept!r}" in finding.problem
    assert [one.repaired for one in verify(store, repair=True).findings] == [True]
    assert refs_of(store)[kept] == 0
    assert verify(store).findings == []
    tell(store, "HDEL", store.context.keys.fact(kept.encode())[0], kept)
    (finding,) = verify(store).findings
    assert "is missing" in finding.problem


def test_a_reference_that_nothing_needs_is_no_damage(store: RedisStore) -> None:
    store.append("w", [{"f": Fact("v")}], snapshot=b"", refs=[store.put_fact("alone")])
    store.save_snapshot("w", 1, b"", refs=())
    assert verify(store).findings == []
    assert store.collect(0) == 0
    store.trim("w")
    assert verify(store).findings == []
    assert store.collect(0) == 2


def test_a_copy_keeps_the_facts_of_its_snapshot(store: RedisStore, tmp_path: Path) -> None:
    store.append("w", [{"f": Fact("trimmed")}, {"f": Fact("gone")}])
    alone = store.put_fact("alone")
    store.save_snapshot("w", 2, b"data", refs=[alone, hash_of(store, "trimmed")])
    store.append("w", [{"f": Fact("event")}])
    store.trim("w")
    before = refs_of(store)
    for number in range(2):
        assert export(store, tmp_path / f"{number}").problems == []
        store.delete("w")
        store.collect(0)
        assert load(store, tmp_path / f"{number}").problems == []
        assert refs_of(store) == before
        assert verify(store).findings == []
    store.trim("w")
    store.collect(0)
    assert stored(store, ["trimmed", "alone", "gone", "event"]) == ["trimmed", "alone", "event"]
    store.save_snapshot("w", 3, b"data", refs=())
    store.trim("w")
    assert store.collect(0) == 3


def test_an_export_has_the_facts_of_its_snapshot_whatever_is_released_meanwhile(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runic_redis.admin.exporting._MEMBERS", 2)
    events = [{"f": [Fact(number) for number in range(600)]}]
    store.append("w", events)
    kept = [hash_of(store, number) for number in range(0, 600, 10)]
    store.append("w", [{"n": 2}], snapshot=b"", refs=kept)
    store.trim("w", keep=1)
    records: list[Any] = []

    def release(store: RedisStore) -> None:
        if any(record[0] == "snapshot" for record in records):
            store.save_snapshot("w", 2, b"", refs=())
            store.trim("w", keep=1)

    run_while(store, Exporter(store.context, ["w"]).run(records.append), release)
    assert refs_of(store) == {}
    store.delete("w")
    store.collect(0)
    importer = Importer(store.context)
    for record in records:
        store.run(importer.take(record), "import")
    assert importer.problems == []
    assert verify(store).findings == []
    assert refs_of(store).keys() >= set(kept)


def test_an_import_takes_no_damaged_references_of_a_snapshot(store: RedisStore) -> None:
    store.append("w", [{"f": Fact("v")}], snapshot=b"", refs=())
    records: list[Any] = []
    store.run(Exporter(store.context, ["w"]).run(records.append), "export")
    store.delete("w")
    for damaged in (b"\x00", b"\x00\x00", b"\x00\x05sha", b"\xff\xff" + bytes(65535), 5, None):
        importer = Importer(store.context)
        for record in records:
            changed = [*record[:4], damaged] if record[0] == "snapshot" else record
            store.run(importer.take(changed), "import")
        (problem,) = importer.problems
        assert "'snapshot'" in problem
        assert not store.exists("w")


@pytest.mark.parametrize(("fixture", "grace"), [("valkey", 0.0), ("cluster_nodes", 0.3)])
def test_releasing_and_collecting_race_with_writers(
    request: pytest.FixtureRequest, namespace: str, fixture: str, grace: float
) -> None:
    """Each writer owns a workflow, keeps the facts of its state, and refers to facts of others that may be gone."""
    found: Any = request.getfixturevalue(fixture)
    servers: list[RunningServer] = found if isinstance(found, list) else [found]
    url = servers[0].url() if fixture == "valkey" else cluster_url(servers)
    over = threading.Event()
    counts = {"kept": 0, "gone": 0, "collected": 0}

    def write(name: str) -> None:
        source = random.Random(name)
        with RedisStore.from_url(url, namespace=namespace, partitions=4) as store:
            for _ in range(150):
                values = [source.randrange(40) for _ in range(3)]
                named = [hash_of(store, source.choice(values)), hash_of(store, source.randrange(40))]
                try:
                    events = [{"f": Fact(value)} for value in values]
                    if source.random() < 0.5:
                        store.append(name, events, snapshot=b"", refs=named)
                    else:
                        cursor = store.append(name, events)
                        store.save_snapshot(name, cursor, b"", refs=named)
                    counts["kept"] += 1
                except FactNotFound:
                    counts["gone"] += 1
                    continue
                store.trim(name, keep=source.choice([0, 4]))
                assert len(store.load_facts(named)) == len(set(named))

    with RedisStore.from_url(url, namespace=namespace, partitions=4) as store:

        def keep_collecting() -> None:
            while not over.is_set():
                counts["collected"] += store.collect(grace)

        with ThreadPoolExecutor(4) as pool:
            collecting = pool.submit(keep_collecting)
            try:
                for writer in [pool.submit(write, f"w-{number}") for number in range(3)]:
                    writer.result()
            finally:
                over.set()
            collecting.result()
        assert counts["kept"] > 100
        assert verify(store).findings == []
        for name in list(store.list()):
            cursor = store.cursor(name)
            store.save_snapshot(name, cursor, b"", refs=())
            store.trim(name)
        store.collect(0)
        assert stored(store, range(40)) == []
