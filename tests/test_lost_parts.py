"""A part of a workflow is lost: each reader raises an error, but never because of a concurrent change."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
import redis

from runic_redis import AsyncRedisStore, DecodeError, RedisStore, session
from runic_redis.admin.describing import describe_one, recent_commits
from runic_redis.admin.exporting import Exporter
from runic_redis.context import Context, without_classes
from runic_redis.errors import CommitsLost, EventsTrimmed, SnapshotNotFound, WorkflowNotFound
from runic_redis.keys import WorkflowKeys
from runic_redis.operations import reading, snapshots, workflows
from runic_redis.operations.reading import Reader
from runic_redis.operations.tailing import Tailer
from runic_redis.protocol.effects import Await, Batch, Begin, Operation
from runic_redis.recovery import EveryEvents, async_session
from runic_redis.testing.examples import numbered
from tests.servers import RunningServer

COUNT = 10
FIRST, MIDDLE, LAST = 1, 6, COUNT
SNAPSHOT = 4


@pytest.fixture
def client(valkey: RunningServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


@pytest.fixture
def store(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        fill(store)
        yield store


@pytest.fixture
def keys(store: RedisStore) -> WorkflowKeys:
    return store.context.keys.workflow("w")


def fill(store: RedisStore) -> None:
    for number in range(1, COUNT + 1):
        store.append("w", numbered(1, number))
    store.save_snapshot("w", SNAPSHOT - 1, b"three")
    store.save_snapshot("w", SNAPSHOT, b"four")
    store.save("w", numbered(1))


def _entry(number: int) -> Callable[[redis.Redis, WorkflowKeys], Any]:
    def lose(client: redis.Redis, keys: WorkflowKeys) -> None:
        ((entry_id, _),) = client.xrange(keys.events, number, number)
        client.xdel(keys.events, entry_id)

    return lose


LOST: dict[str, Callable[[redis.Redis, WorkflowKeys], Any]] = {
    "first": _entry(FIRST),
    "middle": _entry(MIDDLE),
    "last": _entry(LAST),
    "events": lambda client, keys: client.delete(keys.events),
    "meta": lambda client, keys: client.delete(keys.meta),
    "cursor": lambda client, keys: client.hdel(keys.meta, "cursor"),
    "snapshot": lambda client, keys: client.delete(keys.snapshot),
    "newer snapshot": lambda client, keys: client.hset(keys.snapshot, "cursor", SNAPSHOT - 1),
    "log": lambda client, keys: client.delete(keys.log),
    "index": lambda client, keys: client.delete(keys.index),
}
STREAM = {"first", "middle", "last", "events", "meta", "cursor"}
Options = dict[str, Any]
# Ranges of the stream, and the parts whose loss their readers must report.
RANGES: dict[str, tuple[Options, set[str]]] = {
    "all": ({}, STREAM),
    "all in reverse": ({"reverse": True}, STREAM),
    "after": ({"after": MIDDLE}, STREAM - {"first", "middle"}),
    "after, in reverse": ({"after": MIDDLE, "reverse": True}, STREAM - {"first", "middle"}),
    "until": ({"until": MIDDLE - 1}, STREAM - {"middle", "last"}),
    "until, in reverse": ({"until": MIDDLE - 1, "reverse": True}, STREAM - {"middle", "last"}),
    "until the last, in reverse": ({"until": LAST, "reverse": True}, STREAM),
    "until beyond, in reverse": ({"until": LAST + 5, "reverse": True}, STREAM),
    "until one before, in reverse": ({"until": LAST - 1, "reverse": True}, STREAM - {"last"}),
    "the last in reverse": ({"after": LAST - 1, "reverse": True}, {"last", "events", "meta", "cursor"}),
}


@pytest.mark.parametrize("lost", LOST)
def test_a_reader_of_a_stream_is_told_what_is_missing(
    store: RedisStore, client: redis.Redis, keys: WorkflowKeys, lost: str
) -> None:
    whole = {name: list(store.stream("w", **options)) for name, (options, _) in RANGES.items()}
    LOST[lost](client, keys)
    for name, (options, needed) in RANGES.items():
        for read in (store.stream, lambda *args, **kw: (one.event for one in store.stream_records(*args, **kw))):
            if lost not in needed:
                assert list(read("w", **options)) == whole[name], name
                continue
            with pytest.raises(DecodeError, match="missing") as caught:
                list(read("w", **options))
            assert keys.events in str(caught.value) or keys.meta in str(caught.value)


@pytest.mark.parametrize("lost", LOST)
def test_a_reader_in_asyncio_is_told_what_is_missing(
    valkey: RunningServer, namespace: str, store: RedisStore, client: redis.Redis, keys: WorkflowKeys, lost: str
) -> None:
    async def read(other: AsyncRedisStore, options: Options) -> list[Any]:
        return [event async for event in other.stream("w", **options)]

    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace, partitions=None) as other:
            for options, needed in RANGES.values():
                told = await asyncio.gather(read(other, options), return_exceptions=True)
                assert isinstance(told[0], DecodeError) == (lost in needed), told
            for call, needed in WHOLE.values():
                told = await asyncio.gather(call(other), return_exceptions=True)
                assert isinstance(told[0], DecodeError) == (lost in needed), told

    LOST[lost](client, keys)
    asyncio.run(main())


# Calls that read no events, and the parts that they need.
WHOLE: dict[str, tuple[Callable[[Any], Any], set[str]]] = {
    "cursor": (lambda store: store.cursor("w"), {"meta"}),
    "exists": (lambda store: store.exists("w"), set()),
    "load_snapshot": (lambda store: store.load_snapshot("w"), {"meta", "snapshot", "newer snapshot"}),
    "load": (lambda store: store.load("w"), {"meta", "log"}),
}


@pytest.mark.parametrize("lost", LOST)
def test_a_reader_of_anything_else_is_told_what_is_missing(
    store: RedisStore, client: redis.Redis, keys: WorkflowKeys, lost: str
) -> None:
    before = {name: call(store) for name, (call, _) in WHOLE.items()}
    LOST[lost](client, keys)
    for name, (call, needed) in WHOLE.items():
        if lost in needed:
            with pytest.raises(DecodeError, match="Nothing was changed"):
                call(store)
        elif lost != "cursor":
            assert call(store) == before[name], name


@pytest.mark.parametrize("lost", LOST)
def test_show_and_export_report_what_is_missing(
    store: RedisStore, client: redis.Redis, keys: WorkflowKeys, lost: str
) -> None:
    def problems() -> list[str]:
        context = without_classes(store.context)
        exporter = Exporter(context, ["w"])
        store.run(exporter.run(lambda _: None), "export")
        commits, damaged = store.run(recent_commits(context, "w", COUNT), "describe")
        assert commits or lost == "events"
        return [*exporter.problems, *store.run(describe_one(context, "w"), "describe").damaged, *damaged]

    assert problems() == []
    LOST[lost](client, keys)
    if lost == "index":
        assert problems() == []
        return
    exported, *shown = problems()
    assert "missing" in exported or (lost == "cursor" and "changed too often" in exported)
    # The newest commits can be shown without the first one.
    assert bool(shown) == (lost not in {"first", "cursor"}), shown


def follow(records: Iterable[Any], upto: int) -> list[int]:
    cursors: list[int] = []
    for record in records:
        cursors.append(record.cursor)
        if record.cursor == upto:
            break
    return cursors


@pytest.mark.parametrize("lost", ["first", "middle", "last", "events", "meta"])
def test_a_follower_is_told_what_is_missing(
    store: RedisStore, client: redis.Redis, keys: WorkflowKeys, lost: str
) -> None:
    store.append("other", numbered(1))
    LOST[lost](client, keys)
    with pytest.raises(DecodeError, match="missing"), closing(store.tail("w")) as records:
        follow(records, LAST)
    if lost in {"first", "middle"}:
        with closing(store.tail("w", after=MIDDLE)) as records:
            assert follow(records, LAST)[-1] == LAST
    else:
        with pytest.raises(DecodeError, match="missing"), closing(store.tail("w", after=MIDDLE)) as records:
            follow(records, LAST)
    if lost == "meta":
        with pytest.raises(DecodeError, match="missing"):
            store.tail_many({"w": LAST - 1, "other": 0})
        return
    with closing(store.tail_many({"w": LAST - 1, "other": 0})) as items:
        if lost in {"first", "middle"}:
            assert {workflow_id for workflow_id, _ in (next(items), next(items))} == {"w", "other"}
        else:
            assert next(items)[0] == "other", "the damaged workflow held up a sound one"
            with pytest.raises(DecodeError, match="missing"):
                next(items)


def test_a_follower_is_told_when_the_meta_hash_is_lost(
    store: RedisStore, client: redis.Redis, keys: WorkflowKeys
) -> None:
    with closing(store.tail("w", after=LAST)) as records:
        store.append("w", numbered(1, LAST + 1))
        assert next(records).cursor == LAST + 1
        client.delete(keys.meta)
        with pytest.raises(DecodeError, match="meta hash"):
            next(records)


def _fold(state: int, event: Any) -> int:
    return state + int(event["n"])


def _lose_all_but_the_snapshot(client: redis.Redis, keys: WorkflowKeys) -> None:
    client.delete(keys.events, keys.meta, keys.log)


@pytest.mark.parametrize("lost", [*LOST, "all but the snapshot"])
def test_a_session_recovers_what_is_there_or_says_what_is_missing(
    valkey: RunningServer, namespace: str, client: redis.Redis, lost: str
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        with session(store, "w", _fold, 0, snapshots=EveryEvents(SNAPSHOT)) as running:
            for number in range(1, COUNT):
                running.record({"n": number})
        store.save("w", [])
        keys = store.context.keys.workflow("w")
        lose = {**LOST, "last": _entry(COUNT - 1), "all but the snapshot": _lose_all_but_the_snapshot}[lost]
        lose(client, keys)
        # There are 9 events, and the last snapshot is at cursor 8.
        fine = lost in {"first", "middle", "snapshot", "newer snapshot", "log", "index"}

        async def recover() -> int:
            async with (
                AsyncRedisStore.from_url(valkey.url(), namespace=namespace, partitions=None) as other,
                async_session(other, "w", _fold, 0) as running,
            ):
                return running.state

        if fine:
            with session(store, "w", _fold, 0) as running:
                assert running.state == sum(range(COUNT))
                assert (running.recovery.snapshot_problem is not None) == ("snapshot" in lost)
            assert asyncio.run(recover()) == sum(range(COUNT))
            return
        for enter in (lambda: session(store, "w", _fold, 0).__enter__(), lambda: asyncio.run(recover())):
            with pytest.raises(DecodeError, match="missing"):
                enter()


# A workflow changes while it is read: no change, between any two commands, counts as damage.


class _Later:
    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def cancel(self) -> None:
        """Do nothing, as the batch was not sent."""


class Stage:
    """Runs operations command by command, and calls functions in between."""

    def __init__(self, connection: Any, at: dict[int, Callable[[], Any]]) -> None:
        self._connection = connection
        self._at = at
        self.commands = 0

    def run(self, operation: Operation[Any]) -> Any:
        answer: Any = None
        while True:
            try:
                effect = operation.send(answer)
            except StopIteration as done:
                return done.value
            if isinstance(effect, Begin):
                answer = _Later(effect.batch)
                continue
            assert isinstance(effect, Batch | Await)
            batch = effect if isinstance(effect, Batch) else effect.in_flight.batch
            answer = [self._ask(command.args) for command in batch.commands]

    def _ask(self, args: Any) -> Any:
        if self.commands in self._at:
            self._at[self.commands]()
        self.commands += 1
        self._connection.send_command(*args)
        return self._connection.read_response()


def _read(**options: Any) -> Callable[[Context], Operation[Any]]:
    def operation(context: Context) -> Operation[Any]:
        reader = Reader(context, "w", **options)
        yield from reader.open()
        found: list[Any] = []
        while page := (yield from reader.next_page()):
            found += page
        return found

    return operation


def _follow(context: Context) -> Operation[Any]:
    tailer = Tailer(context, {"w": 0})
    context.wait_s = 0.001
    yield from tailer.open()
    for _ in range(2):
        yield from tailer.next_page()


def _show(context: Context) -> Operation[Any]:
    description = yield from describe_one(context, "w")
    _, damaged = yield from recent_commits(context, "w", COUNT)
    if description.damaged or damaged:
        raise DecodeError(f"{description.damaged} {damaged}")


def _export(context: Context) -> Operation[Any]:
    exporter = Exporter(context, ["w"])
    yield from exporter.run(lambda _: None)
    if [problem for problem in exporter.problems if "There is no workflow" not in problem]:
        raise DecodeError(str(exporter.problems))


OPERATIONS: dict[str, Callable[[Context], Operation[Any]]] = {
    "forward": _read(),
    "in reverse": _read(reverse=True),
    "in reverse, until": _read(reverse=True, until=LAST),
    "the end in reverse": _read(reverse=True, after=LAST - 1),
    "cursor": lambda context: reading.cursor(context, "w"),
    "exists": lambda context: workflows.exists(context, "w"),
    "load": lambda context: workflows.load(context, "w"),
    "load_snapshot": lambda context: snapshots.load_snapshot(context, "w"),
    "show": _show,
    "export": _export,
    "follow": _follow,
}


def _again(store: RedisStore) -> None:
    store.delete("w")
    store.append("w", numbered(3))
    store.save_snapshot("w", 2, b"two")


def _save_all(store: RedisStore) -> None:
    store.append("w", numbered(1), snapshot=b"newest")
    store.save("w", [])


def _trim(store: RedisStore) -> None:
    if store.exists("w"):
        store.trim("w")


CHANGES: dict[str, Callable[[RedisStore], Any]] = {
    "delete": lambda store: store.delete("w"),
    "again": _again,
    "save": _save_all,
    "trim": _trim,
}
PAIRS = [
    ("delete", "again"),
    ("again", "delete"),
    ("save", "trim"),
    ("again", "again"),
    ("trim", "save"),
    ("save", "delete"),
]


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("there", [True, False], ids=["there", "not there"])
def test_no_change_while_a_workflow_is_read_is_taken_for_damage(
    store: RedisStore, client: redis.Redis, name: str, there: bool
) -> None:
    settled = (WorkflowNotFound, SnapshotNotFound, EventsTrimmed, CommitsLost)
    connection = client.connection_pool.get_connection()

    def attempt(at: dict[int, Callable[[], Any]]) -> int:
        store.delete("w")
        if there:
            store.append_many([("w", numbered(1, number)) for number in range(1, COUNT + 1)])
            store.save_snapshot("w", COUNT, b"ten")
            store.save("w", numbered(1))
        stage = Stage(connection, at)
        with suppress(*settled):
            stage.run(OPERATIONS[name](store.context))
        return stage.commands

    count = attempt({})
    for place in range(count):
        for one, two in PAIRS[: 3 if name == "follow" else None]:  # each blocking read takes 100 ms
            attempt({place: lambda one=one: CHANGES[one](store), place + 1: lambda two=two: CHANGES[two](store)})


def test_a_reader_is_told_when_the_meta_hash_is_lost_between_two_pages(
    store: RedisStore, client: redis.Redis, keys: WorkflowKeys
) -> None:
    stage = Stage(client.connection_pool.get_connection(), {})
    reader = Reader(store.context, "w")
    stage.run(reader.open())
    client.delete(keys.meta)
    with pytest.raises(DecodeError, match="meta hash"):
        while stage.run(reader.next_page()):
            pass


def test_a_follower_gives_no_event_of_an_earlier_life(store: RedisStore, client: redis.Redis) -> None:
    store.delete("w")

    def make(number: int) -> None:
        store.delete("w")
        store.append("w", [{"life": number}])

    tailer = Tailer(store.context, {"w": 0})
    connection = client.connection_pool.get_connection()
    Stage(connection, {}).run(tailer.open())
    # The first command reads an event of the first life. Before the second command, the second life begins.
    found = Stage(connection, {0: lambda: make(1), 1: lambda: make(2)}).run(tailer.next_page())
    found += Stage(connection, {}).run(tailer.next_page())
    assert [record.event for _, record in found] == [{"life": 2}]
