"""Threads of other checkpoint savers are imported whole: real graphs, interrupted imports, and sources that change."""

import operator
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, TypedDict
from urllib.parse import quote

import ormsgpack
import psycopg
import pytest
import redis
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from langgraph_checkpoint_plainredis import RedisSaver

from runic_redis import ConfigurationError, EventRegistry, RedisStore, StoreUnavailable
from runic_redis.langgraph import RunicSaver
from runic_redis.langgraph.importing import ThreadImporter
from runic_redis.langgraph.records import SavedWrites
from runic_redis.langgraph.sources import Place, Source, SqliteSource, open_source
from tests.forking import Forked
from tests.langgraph_outcomes import OUTCOMES
from tests.langgraph_runs import Run
from tests.servers import RunningServer

# All outcomes come from SQLite, and these from each saver.
EVERYWHERE = (
    *(
        "a_failed_branch_beside_finished_ones",
        "a_long_list_of_messages",
        "an_interrupt_in_a_subgraph",
        "delta_channels",
    ),
    *("forks_of_forks", "many_threads", "one_of_many_sends_fails", "parallel_subgraphs_with_interrupts"),
    *("subgraphs_in_subgraphs", "two_interrupts_in_one_node", "values_of_many_types"),
)
CASES = [("sqlite", name) for name in OUTCOMES]
CASES += [(kind, name) for kind in ("postgres", "plainredis") for name in EVERYWHERE]
_serde = JsonPlusSerializer()


class Other:
    """Another saver: its URL for an import, and how to open it."""

    def __init__(self, url: str, opened: Callable[[], Any]) -> None:
        self.url = url
        self.opened = opened


def other(request: pytest.FixtureRequest, kind: str, namespace: str, tmp_path: Path) -> Other:
    """Return an empty saver of a kind."""
    if kind == "sqlite":
        path = tmp_path / "checkpoints.sqlite"
        return Other(f"sqlite:{path}", lambda: SqliteSaver.from_conn_string(str(path)))
    if kind == "postgres":
        root: str = request.getfixturevalue("postgres")
        url = f"{root}{'&' if '?' in root else '?'}options={quote(f'-csearch_path={namespace}')}"
        with psycopg.connect(root, autocommit=True) as connection:
            connection.execute(f'DROP SCHEMA IF EXISTS "{namespace}" CASCADE')
            connection.execute(f'CREATE SCHEMA "{namespace}"')
        with PostgresSaver.from_conn_string(url) as saver:
            saver.setup()
        return Other(url, lambda: PostgresSaver.from_conn_string(url))
    server: RunningServer = request.getfixturevalue("valkey")
    url = f"{server.url()}&db=1"

    @contextmanager
    def opened() -> Iterator[RedisSaver]:
        saver = RedisSaver(url=url)
        yield saver
        saver.client.close()

    with opened() as empty:
        empty.client.flushdb()
    return Other(url, opened)


@pytest.fixture
def target(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace=namespace, registry=EventRegistry()) as store:
        yield store


def imported(store: RedisStore, source: Source) -> ThreadImporter:
    importer = ThreadImporter(store, source)
    with closing(source):
        for thread in source.threads():
            importer.take(thread)
    return importer


def checkpoints_of(saver: Any) -> dict[tuple[str, ...], Any]:
    """Return all checkpoints of a saver, serialized."""
    found: dict[tuple[str, ...], Any] = {}
    for one in saver.list(None):
        place = one.config["configurable"]
        parts = {
            **{name: _serde.dumps_typed(value) for name, value in one.checkpoint.items() if name != "channel_values"},
            **{f"value {name}": _serde.dumps_typed(value) for name, value in one.checkpoint["channel_values"].items()},
            **{f"about {name}": value for name, value in one.metadata.items()},
            "parent": one.parent_config,
            "writes": [(task, channel, _serde.dumps_typed(value)) for task, channel, value in one.pending_writes],
        }
        found[place["thread_id"], place["checkpoint_ns"], place["checkpoint_id"]] = parts
    return found


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_real_graphs(
    request: pytest.FixtureRequest, kind: str, name: str, target: RedisStore, namespace: str, tmp_path: Path
) -> None:
    there = other(request, kind, namespace, tmp_path)
    run = Run(there.opened, None)
    # An outcome ends early where another saver cannot copy threads, or returns other values than it was given.
    with suppress(NotImplementedError, AssertionError, IndexError):
        OUTCOMES[name](run)
    run.close()
    with there.opened() as saver:
        expected = checkpoints_of(saver)
    first = imported(target, open_source(there.url))
    assert first.problems == []
    assert first.checkpoints == len(expected)
    assert first.writes == sum(len(one["writes"]) for one in expected.values())
    assert checkpoints_of(RunicSaver(target)) == expected
    cursors = {thread: target.cursor(thread) for thread in target.list()}
    again = imported(target, open_source(there.url))
    assert (again.threads, again.checkpoints, again.writes, again.problems) == (0, 0, 0, [])
    assert again.there == first.threads == len({thread for thread, _, _ in expected})
    assert {thread: target.cursor(thread) for thread in target.list()} == cursors, "nothing was stored"
    with there.opened() as saver:
        assert checkpoints_of(saver) == expected, "the source is as it was"


class Asked(TypedDict):
    done: Annotated[list[str], operator.add]


def asking(ran: list[str]) -> StateGraph[Any]:
    """Return a graph of three nodes. The last one asks a question."""
    builder = StateGraph(Asked)

    def node(name: str) -> Any:
        def call(_: Asked) -> Any:
            ran.append(name)
            return {"done": [name] if name != "c" else [interrupt("go on?")]}

        return call

    for name in "abc":
        builder.add_node(name, node(name))
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("b", "c")
    builder.add_edge("c", END)
    return builder


def config(thread: str) -> Any:
    return {"configurable": {"thread_id": thread}}


@pytest.fixture
def there(request: pytest.FixtureRequest, namespace: str, tmp_path: Path) -> Other:
    """SQLite, with five threads that wait for an answer."""
    made = other(request, "sqlite", namespace, tmp_path)
    with made.opened() as saver:
        graph = asking([]).compile(checkpointer=saver)
        for n in range(5):
            graph.invoke({"done": [f"input {n}"]}, config(f"thread {n}"))
    return made


def run_command(store: RedisStore, *arguments: str) -> tuple[int, str, str]:
    name = store.context.keys.namespace
    with Forked(None, "import-langgraph", "--url", store.url, "--namespace", name, *arguments) as process:
        out, err = process.communicate(timeout=50)
    return process.wait(), out, err


def test_an_interrupted_graph_goes_on(there: Other, target: RedisStore) -> None:
    status, out, err = run_command(target, "--from", there.url)
    assert (status, out, err) == (0, "imported: 5 threads, 20 checkpoints, 35 writes\n", "")
    ran: list[str] = []
    graph = asking(ran).compile(checkpointer=RunicSaver(target))
    assert graph.get_state(config("thread 3")).next == ("c",)
    assert graph.invoke(Command(resume="yes"), config("thread 3"))["done"] == ["input 3", "a", "b", "yes"]
    assert ran == ["c"], "no finished node runs again"
    # What has gone on since is no difference.
    assert run_command(target, "--from", there.url, "--json")[:2] == (
        0,
        '{"threads": 0, "checkpoints": 0, "writes": 0, "there_already": 5, "problems": []}\n',
    )
    assert graph.get_state(config("thread 3")).next == ()


def test_killed_imports_are_continued(there: Other, target: RedisStore, namespace: str) -> None:
    with there.opened() as saver:
        expected = checkpoints_of(saver)
        graph = asking([]).compile(checkpointer=saver)
        for n in range(20):
            graph.invoke({"done": ["x" * n]}, config(f"further {n}"))
        expected = checkpoints_of(saver)
    for count in (1, 7, 16):
        with Forked(None, "import-langgraph", "--url", target.url, "-n", namespace, "--from", there.url) as process:
            while len(list(target.list())) < count and process.poll() is None:
                pass
            process.kill()
    assert len(list(target.list())) < 25, "it was killed before its end"
    status, _, err = run_command(target, "--from", there.url)
    assert (status, err) == (0, "")
    assert checkpoints_of(RunicSaver(target)) == expected
    with RedisStore.from_url(target.url, namespace=f"{namespace}-whole", registry=EventRegistry()) as whole:
        imported(whole, open_source(there.url))
        assert {id_: target.cursor(id_) for id_ in target.list()} == {id_: whole.cursor(id_) for id_ in whole.list()}


def test_every_point_of_an_interruption(there: Other, target: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each append of an import fails once, before it is sent, and each once after."""
    with there.opened() as saver:
        expected = checkpoints_of(saver)
    append = RedisStore.run
    left = [0]

    def failing(self: RedisStore, operation: Any, name: str, *args: Any, **options: Any) -> Any:
        is_write = name in {"append", "put"}
        left[0] -= is_write
        if is_write and left[0] == -1:
            operation.close()
            raise StoreUnavailable("cut off before")
        result = append(self, operation, name, *args, **options)
        if is_write and left[0] == -2:
            raise StoreUnavailable("cut off after")
        return result

    monkeypatch.setattr(RedisStore, "run", failing)
    tries = 0
    while True:
        # The first write of each try fails, or is stored and fails.
        left[0] = tries % 2 * -1
        tries += 1
        with suppress(StoreUnavailable):
            importer = imported(target, open_source(there.url))
            break
    assert tries > 20
    assert importer.problems == []
    assert checkpoints_of(RunicSaver(target)) == expected


def test_a_source_that_grows_while_it_is_read(there: Other, target: RedisStore) -> None:
    class Growing(SqliteSource):
        """A source in which a graph goes on after each look at the thread, twice."""

        looks = 0

        def places(self, thread: str) -> list[Place]:
            found = super().places(thread)
            if thread == "thread 1" and self.looks < 2:
                self.looks += 1
                with there.opened() as saver:
                    graph = asking([]).compile(checkpointer=saver)
                    graph.invoke(
                        Command(resume=f"answer {self.looks}") if self.looks == 1 else {"done": []}, config(thread)
                    )
            return found

    importer = imported(target, Growing(there.url.removeprefix("sqlite:")))
    assert importer.problems == []
    with there.opened() as saver:
        expected = checkpoints_of(saver)
    assert checkpoints_of(RunicSaver(target)) == expected
    assert importer.checkpoints == len(expected) > 21


def test_a_source_that_grows_for_ever_is_given_up(there: Other, target: RedisStore) -> None:
    class Endless(SqliteSource):
        def places(self, thread: str) -> list[Place]:
            with there.opened() as saver:
                asking([]).compile(checkpointer=saver).invoke({"done": []}, config(thread))
            return super().places(thread)

    with closing(Endless(there.url.removeprefix("sqlite:"))) as source:
        importer = ThreadImporter(target, source)
        importer.take("thread 1")
    (problem,) = importer.problems
    assert "changes all the time" in problem


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("UPDATE checkpoints SET metadata = json_set(metadata, '$.step', 99)", "its metadata"),
        ("UPDATE checkpoints SET parent_checkpoint_id = 'other'", "its parent"),
        ("UPDATE checkpoints SET checkpoint = CAST(replace(checkpoint, 'input 2', 'INPUT 2') AS BLOB)", "its values"),
        ("UPDATE writes SET value = x'a16e'", "its writes"),
        ("UPDATE writes SET task_id = 'another task'", None),
    ],
)
def test_a_difference_is_reported(there: Other, target: RedisStore, change: str, difference: str | None) -> None:
    assert imported(target, open_source(there.url)).problems == []
    before = checkpoints_of(RunicSaver(target))
    connection = sqlite3.connect(there.url.removeprefix("sqlite:"))
    with connection:
        connection.execute(f"{change} WHERE thread_id = 'thread 2'")
    connection.close()
    importer = imported(target, open_source(there.url))
    if difference is None:
        assert importer.problems == []
        assert importer.writes == 7, "writes of other tasks are imported, too"
        return
    assert importer.problems
    assert all(f"'thread 2' differs from its source: {difference}. It" in one for one in importer.problems)
    assert (importer.there, importer.checkpoints, importer.writes) == (4, 0, 0)
    assert checkpoints_of(RunicSaver(target)) == before, "it was left as it is"
    # The advice of the message works.
    target.delete("thread 2")
    assert imported(target, open_source(there.url)).problems == []


def test_a_source_is_not_changed(there: Other, target: RedisStore) -> None:
    file = Path(there.url.removeprefix("sqlite:"))
    before = file.read_bytes()
    file.chmod(0o400)
    assert run_command(target, "--from", there.url)[0] == 0
    assert file.read_bytes() == before
    source = open_source(there.url)
    with pytest.raises(StoreUnavailable, match="readonly"):
        source._rows("DELETE FROM writes")  # type: ignore[attr-defined]
    source.close()


def test_postgresql_is_not_changed(
    request: pytest.FixtureRequest, target: RedisStore, namespace: str, tmp_path: Path
) -> None:
    there = other(request, "postgres", namespace, tmp_path)
    source = open_source(there.url)
    with pytest.raises(StoreUnavailable, match="read-only"):
        source._rows("DELETE FROM checkpoint_writes")  # type: ignore[attr-defined]
    source.close()
    assert run_command(target, "--from", there.url)[:2] == (0, "imported: 0 threads, 0 checkpoints, 0 writes\n")


class Xor(CipherProtocol):
    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "xor", bytes(byte ^ 0x55 for byte in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return self.encrypt(ciphertext)[1]


def test_encrypted_values_stay_encrypted(
    request: pytest.FixtureRequest, target: RedisStore, namespace: str, tmp_path: Path
) -> None:
    serde = EncryptedSerializer(Xor())
    there = other(request, "postgres", namespace, tmp_path)
    with there.opened() as saver:
        saver.serde = serde
        asking([]).compile(checkpointer=saver).invoke({"done": ["secret"]}, config("t"))
        expected = checkpoints_of(saver)
    assert imported(target, open_source(there.url)).problems == []
    assert checkpoints_of(RunicSaver(target, serde=serde)) == expected
    assert not any(b"secret" in value for value in stored_values(target))
    # In SQLite, the checkpoint is encrypted as a whole, so its channels are out of reach.
    (tmp_path / "sqlite").mkdir()
    there = other(request, "sqlite", namespace, tmp_path / "sqlite")
    with there.opened() as saver:
        asking([]).compile(checkpointer=saver).invoke({"done": ["open"]}, config("open"))
        saver.serde = serde
        asking([]).compile(checkpointer=saver).invoke({"done": ["secret"]}, config("secret"))
    status, out, err = run_command(target, "--from", there.url)
    assert (status, out) == (1, "imported: 1 thread, 4 checkpoints, 7 writes\n")
    assert err.count("of the thread 'secret' was not imported: it is serialized as 'msgpack+xor'") == 4
    assert not target.exists("secret")


def stored_values(store: RedisStore) -> list[bytes]:
    """Return the serialized values of a store: those in events, and facts."""
    found = []
    for thread in store.list():
        for event in store.stream(thread):
            runs = [event.writes] if isinstance(event, SavedWrites) else event.channels.values()
            pieces = [piece for run in runs for piece in run]
            found += [piece[3] for piece in pieces if type(piece[3]) is bytes]
            found += [store.load_fact(ref.hash) for ref in event.facts]
    return found


def test_values_of_unknown_classes_and_large_writes(there: Other, target: RedisStore) -> None:
    """Values are not decoded: the classes are not there, and the serializer would return something else."""
    connection = sqlite3.connect(there.url.removeprefix("sqlite:"))
    unknown = ormsgpack.packb(ormsgpack.Ext(5, ormsgpack.packb(["no.such.module", "Gone", {"a": 1}, "x"])))
    pickled, large = b"\x80\x04not to be loaded.", ormsgpack.packb("x" * 3_000_000)
    with connection:
        (first, *_) = connection.execute("SELECT task_id FROM writes WHERE thread_id = 'thread 2'").fetchone()
        query = (
            "INSERT INTO writes SELECT thread_id, '', checkpoint_id, ?, 'path', ?, ?, ?, ? FROM checkpoints "
            "WHERE thread_id = 'thread 2'"
        )
        for row in (
            ("u", 5, "unknown", "msgpack", unknown),
            ("p", 0, "p", "pickle", pickled),
            (first, 77, "l", "msgpack", large),
        ):
            connection.execute(query, row)
    connection.close()
    importer = imported(target, open_source(there.url))
    assert importer.problems == []
    values = stored_values(target)
    assert unknown in values
    assert pickled in values
    assert large in values
    rows = [event for event in target.stream("thread 2") if isinstance(event, SavedWrites) and event.task_id == "u"]
    assert [(one.task_path, one.writes[0][0]) for one in rows] == [("path", 5)] * 4, "with its path and its index"


def test_sources_that_cannot_be_used(valkey: RunningServer, target: RedisStore, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database")
    empty = tmp_path / "empty"
    with closing(sqlite3.connect(empty)) as connection:
        connection.execute("CREATE TABLE other (x)")
    for source, status, message in (
        ("mongodb://localhost", 2, "cannot be imported from 'mongodb'"),
        ("sqlite:/no/such/file", 2, "There is no file"),
        (f"sqlite:{text}", 3, "not a database"),
        (f"sqlite:{empty}", 2, "no tables of LangGraph"),
        (f"{valkey.url()}&db=7", 2, "no key lg:threads"),
        ("redis://127.0.0.1:1", 3, "cannot be read"),
        ("postgres://127.0.0.1:1/x", 3, "cannot be read"),
    ):
        found, out, err = run_command(target, "--from", source)
        assert (found, out) == (status, ""), err
        assert message in err
        assert "Traceback" not in err


def test_the_official_layout_is_recognized(monkeypatch: pytest.MonkeyPatch, valkey: RunningServer) -> None:
    execute: Any = redis.Redis.execute_command
    monkeypatch.setattr(
        redis.Redis,
        "execute_command",
        lambda self, *args, **options: (
            [b"checkpoint_write", b"checkpoint"] if args == ("FT._LIST",) else execute(self, *args, **options)
        ),
    )
    with pytest.raises(ConfigurationError, match="langgraph-checkpoint-redis"):
        open_source(f"{valkey.url()}&db=7")


def test_damage_of_plainredis_is_reported(
    request: pytest.FixtureRequest, target: RedisStore, namespace: str, tmp_path: Path
) -> None:
    there = other(request, "plainredis", namespace, tmp_path)
    with there.opened() as saver:
        for thread in ("a", "b:c"):
            asking([]).compile(checkpointer=saver).invoke({"done": ["open"]}, config(thread))
        expected = checkpoints_of(saver)
        ids = sorted(one.config["configurable"]["checkpoint_id"] for one in saver.list(config("a")))
        for id_, value in zip(ids, (b"{", b'{"t": "msgpack"}', b'{"t": "msgpack", "d": "wQ=="}'), strict=False):
            saver.client.set(f"lg:cp:a::{id_}", value)
        saver.client.delete(f"lg:cp:a::{ids[3]}")
    importer = imported(target, open_source(there.url))
    assert len(importer.problems) == 3
    assert all("of the thread 'a' was not imported: " in problem for problem in importer.problems)
    assert checkpoints_of(RunicSaver(target)) == {place: one for place, one in expected.items() if place[0] == "b:c"}


def test_the_guide_copies_from_any_saver(there: Other, target: RedisStore) -> None:
    guide = Path(__file__).parent.parent / "docs" / "how-to" / "move-from-another-checkpointer.md"
    (program,) = [block for block in guide.read_text().split("```python\n") if block.startswith("def copy_threads")]
    names: dict[str, Any] = {}
    exec(program.partition("```")[0], names)
    saver = RunicSaver(target)
    with there.opened() as old:
        names["copy_threads"](old, saver)
        assert checkpoints_of(saver) == checkpoints_of(old)


def test_the_command_needs_langgraph(target: RedisStore) -> None:
    program = "import sys; sys.modules['langgraph'] = None; from runic_redis.cli.main import main; main()"
    with Forked(program, "import-langgraph", "--from", "sqlite:x", "--url", target.url) as process:
        _, err = process.communicate(timeout=50)
    assert (process.returncode, "pip install 'runic-redis[langgraph]'" in err) == (2, True), err
