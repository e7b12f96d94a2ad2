"""The LangGraph savers: what they store, their round trips, serializers, lifetimes, and their two faces."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
import redis
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from runic_redis import AsyncRedisStore, EventRegistry, InvalidArgument, InvalidType, RedisStore, StoreError
from runic_redis.langgraph import AsyncRunicSaver, RunicSaver
from runic_redis.langgraph.records import SavedWrites
from tests.clocks import shifted
from tests.faults import make_faulty
from tests.forking import Forked
from tests.servers import RunningServer, url_on
from tests.test_clock_steps import HOUR_S, Clocks
from tests.test_verifying import verify

Config = Any


@pytest.fixture
def store(valkey: RunningServer, namespace: str) -> Iterator[RedisStore]:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        yield store


@pytest.fixture
def saver(store: RedisStore) -> RunicSaver:
    return RunicSaver(store)


def config_of(thread: Any, checkpoint_id: str | None = None, ns: str = "") -> Config:
    configurable = {"thread_id": thread, "checkpoint_ns": ns}
    return {"configurable": configurable if checkpoint_id is None else {**configurable, "checkpoint_id": checkpoint_id}}


def checkpoint_of(saver: Any, values: dict[str, Any], versions: dict[str, Any] | None = None) -> Any:
    """Return a checkpoint with new versions of all channels."""
    versions = versions or {}
    return {
        "v": 4,
        "id": str(uuid6()),
        "ts": "2026-01-01T00:00:00+00:00",
        "channel_values": values,
        "channel_versions": {name: saver.get_next_version(versions.get(name), None) for name in values},
        "versions_seen": {},
        "updated_channels": None,
    }


def put(saver: Any, config: Config, values: dict[str, Any], **metadata: Any) -> Config:
    checkpoint = checkpoint_of(saver, values)
    return saver.put(config, checkpoint, {"source": "loop", "step": 0, **metadata}, checkpoint["channel_versions"])


def values_at(saver: Any, config: Config) -> Any:
    found = saver.get_tuple(config)
    assert found is not None
    return found.checkpoint["channel_values"]


def batches(store: RedisStore, act: Callable[[], Any]) -> int:
    """Return the number of round trips of an act."""
    with mock.patch.object(store._sender, "ask", wraps=store._sender.ask) as asked:
        act()
    return asked.call_count


MESSAGES = [{"number": number, "text": os.urandom(300).hex()} for number in range(100)]


@pytest.mark.parametrize("values", [{"small": 1}, {"messages": MESSAGES, "large": {"text": "x" * 20_000}}])
def test_round_trips(store: RedisStore, saver: RunicSaver, values: dict[str, Any]) -> None:
    config = put(saver, config_of("t"), values)
    assert batches(store, lambda: put(saver, config, values)) == 1
    assert batches(store, lambda: saver.put_writes(config, [("a", 1), ("b", "x" * 3000)], "task")) == 1
    assert batches(store, lambda: saver.get_tuple(config_of("t"))) == 2
    assert batches(store, lambda: saver.get_tuple(config)) <= 2
    for _ in range(12):
        config = put(saver, config, values)
    assert batches(store, lambda: list(saver.list(config_of("t"), limit=10))) == 2


def test_writes_may_come_before_their_checkpoint(saver: RunicSaver) -> None:
    first = put(saver, config_of("t"), {"a": 1})
    checkpoint = checkpoint_of(saver, {"a": 2})
    config = config_of("t", checkpoint["id"])
    saver.put_writes(config, [("a", "early")], "task")
    assert saver.get_tuple(config) is None
    assert values_at(saver, config_of("t")) == {"a": 1}
    saver.put(first, checkpoint, {}, checkpoint["channel_versions"])
    found = saver.get_tuple(config_of("t"))
    assert found is not None
    assert found.pending_writes == [("task", "a", "early")]


def test_a_thread_has_any_id(saver: RunicSaver) -> None:
    for thread in (17, uuid4(), "thread with spaces/and a slash", "{shared}-1"):
        config = put(saver, config_of(thread), {"a": str(thread)})
        found = saver.get_tuple(config_of(thread))
        assert found is not None
        assert found.config == config
        assert config["configurable"]["thread_id"] is thread
        assert found.checkpoint["channel_values"] == {"a": str(thread)}
    assert len(list(saver.list(None))) == 4


def test_versions_grow_and_differ(saver: RunicSaver) -> None:
    first, other = saver.get_next_version(None, None), saver.get_next_version(None, None)
    assert first != other, "two branches have different versions"
    versions = [first]
    for _ in range(20):
        versions.append(saver.get_next_version(versions[-1], None))
    assert versions == sorted(versions)
    assert saver.get_next_version(41, None).startswith(f"{42:032}.")
    assert saver.get_next_version(41.0, None).startswith(f"{42:032}.")


class Cipher:
    """A cipher that gives other bytes each time."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        key = os.urandom(16)
        return "turned", key + self._turn(plaintext, key)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "turned"
        return self._turn(ciphertext[16:], ciphertext[:16])

    def _turn(self, data: bytes, key: bytes) -> bytes:
        repeated = (key * (len(data) // 16 + 1))[: len(data)]
        return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(data), "big")


class Json:
    """A serializer of the older kind, without types."""

    def dumps(self, obj: Any) -> bytes:
        return json.dumps(obj).encode()

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


class Buffers(JsonPlusSerializer):
    """A serializer that returns bytearrays."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        kind, data = super().dumps_typed(obj)
        return kind, bytearray(data)  # type: ignore[return-value]

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        assert type(data[1]) is bytes
        return super().loads_typed(data)


SERIALIZERS: dict[str, Callable[[], Any]] = {
    "default": lambda: None,
    "encrypted": lambda: EncryptedSerializer(Cipher()),
    "json": Json,
    "buffers": Buffers,
    "pickle": lambda: JsonPlusSerializer(pickle_fallback=True),
}


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_any_serializer(store: RedisStore, serializer: str) -> None:
    make = SERIALIZERS[serializer]
    saver = RunicSaver(store, serde=make())
    values: dict[str, Any] = {"list": [*MESSAGES], "text": "x" * 3000, "none": None, "empty": [], "deep": {"a": [1]}}
    if serializer == "pickle":
        values["list"] = [*MESSAGES, object]
        values["type"] = Json
    config = config_of("t")
    expected = []
    for number in range(12):
        values = {**values, "list": [*values["list"], {"number": number, "text": "y" * 1000}]}
        config = put(saver, config, values)
        saver.put_writes(config, [("list", values["list"][-1:])], "task")
        expected.append(values)
    for reader in (saver, RunicSaver(store, serde=make())):
        found = [one.checkpoint["channel_values"] for one in reader.list(config_of("t"))]
        assert found == expected[::-1]
    latest = saver.get_tuple(config_of("t"))
    assert latest is not None
    assert latest.pending_writes == [("task", "list", values["list"][-1:])]


def test_what_is_encrypted_is_nowhere_in_the_server(store: RedisStore, valkey: RunningServer, namespace: str) -> None:
    saver = RunicSaver(store, serde=EncryptedSerializer(Cipher()))
    secret = "a secret that must not leak"
    config = put(saver, config_of("t"), {"short": secret, "long": [secret] * 2000}, note=secret)
    saver.put_writes(config, [("short", secret)], "task")
    assert not holds(valkey, namespace, secret)
    put(RunicSaver(store), config, {"short": secret})
    assert holds(valkey, namespace, secret), "the search would find it"


def holds(server: RunningServer, namespace: str, text: str) -> bool:
    with redis.Redis.from_url(server.url()) as client:
        keys = list(client.scan_iter(f"*{namespace}*"))
        read = {"hash": client.hgetall, "stream": client.xrange, "zset": lambda key: client.zrange(key, 0, -1)}
        return any(text in repr(read[client.type(key).decode()](key)) for key in keys)


def stored_bytes(server: RunningServer, namespace: str) -> int:
    with redis.Redis.from_url(server.url()) as client:
        return sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter(f"*{namespace}*"))


@pytest.mark.parametrize("serializer", ["default", "encrypted"])
def test_a_list_that_grows_costs_what_is_added(
    valkey: RunningServer, store: RedisStore, namespace: str, serializer: str
) -> None:
    saver = RunicSaver(store, serde=SERIALIZERS[serializer]())
    messages: list[Any] = []
    config = config_of("t")
    # The text has as many bytes as it is hard to compress.
    for number in range(200):
        messages = [*messages, {"number": number, "text": os.urandom(2500), "more": os.urandom(2500)}]
        config = put(saver, config, {"messages": messages, "step": number})
    assert values_at(RunicSaver(store, serde=saver.serde), config)["messages"] == messages
    assert stored_bytes(valkey, namespace) < 4_000_000


def test_values_that_do_not_change_are_stored_twice_at_most(
    valkey: RunningServer, store: RedisStore, saver: RunicSaver, namespace: str
) -> None:
    config = config_of("t")
    fixed = {"file": os.urandom(100_000), "note": os.urandom(4000)}
    checkpoint = checkpoint_of(saver, {**fixed, "step": 0})
    config = saver.put(config, checkpoint, {}, checkpoint["channel_versions"])
    for number in range(100):
        versions = dict(checkpoint["channel_versions"])
        versions["step"] = saver.get_next_version(versions["step"], None)
        checkpoint = {
            **checkpoint_of(saver, {}),
            "channel_values": {**fixed, "step": number},
            "channel_versions": versions,
        }
        config = saver.put(config, checkpoint, {}, {"step": versions["step"]})
    assert values_at(RunicSaver(store), config) == {**fixed, "step": 99}
    assert stored_bytes(valkey, namespace) < 250_000


def test_a_large_write_is_read_back(saver: RunicSaver) -> None:
    config = put(saver, config_of("t"), {"a": 1})
    large = os.urandom(20_000_000)
    # Together, the others are larger than an event may be.
    writes = [("a", 1), ("b", large), ("c", large), *((f"d{number}", os.urandom(900_000)) for number in range(20))]
    saver.put_writes(config, writes, "task")
    found = saver.get_tuple(config)
    assert found is not None
    assert found.pending_writes == [("task", *write) for write in writes]


def test_facts_that_were_collected_are_stored_again(store: RedisStore, saver: RunicSaver, few_buckets: None) -> None:
    values = {"messages": MESSAGES, "file": "x" * 50_000}
    checkpoint = checkpoint_of(saver, values)
    parent = saver.put(config_of("t"), checkpoint, {}, checkpoint["channel_versions"])
    store.delete("t")
    assert store.collect(grace=0) > 0
    # The saver takes the values of the last checkpoint for stored, changed ones and others.
    again = {**checkpoint, "id": str(uuid6())}
    config = saver.put(parent, again, {}, {})
    assert values_at(RunicSaver(store), config) == values
    assert verify(store).findings == []


@pytest.mark.parametrize("losses", [["reply"], ["request"], ["reply", "reply"]])
def test_a_call_whose_reply_is_lost_stores_once(store: RedisStore, saver: RunicSaver, losses: list[str]) -> None:
    config = put(saver, config_of("t"), {"a": 1})
    faulty = make_faulty(store)
    faulty.faults = [*losses]
    config = put(saver, config, {"a": 2})
    faulty.faults = [*losses]
    saver.put_writes(config, [("a", 3)], "task")
    assert store.cursor("t") == 3
    assert len(list(saver.list(config_of("t")))) == 2


WRITER = """
import sys
from runic_redis.langgraph import RunicSaver
url, namespace, name, checkpoint_id = sys.argv[1:]
config = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": checkpoint_id}}
with RunicSaver.from_url(url, namespace=namespace) as saver:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(20):
        saver.put_writes(config, [("a", f"{name}-{number}"), ("__error__", name)], f"task-{number}")
    found = saver.get_tuple(config)
    print(len(found.pending_writes), flush=True)
"""


def test_two_processes_write_to_one_checkpoint(embedded: str, namespace: str) -> None:
    with RunicSaver.from_url(embedded, namespace=namespace) as saver, ExitStack() as stack:
        config = put(saver, config_of("t"), {"messages": MESSAGES})
        checkpoint_id = config["configurable"]["checkpoint_id"]
        writers = [
            stack.enter_context(Forked(WRITER, embedded, namespace, name, checkpoint_id)) for name in ("one", "two")
        ]
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            writer.stdin.write("\n")
            writer.stdin.flush()
        outputs = [writer.communicate(timeout=60) for writer in writers]
        assert [writer.returncode for writer in writers] == [0, 0], outputs
        found = saver.get_tuple(config)
        assert found is not None
        assert found.pending_writes is not None
        assert [write[0] for write in found.pending_writes if write[1] == "a"] == sorted(
            f"task-{number}" for number in range(20)
        )
        assert len(found.pending_writes) == 40


def test_the_first_write_counts_and_the_last_special_one(saver: RunicSaver) -> None:
    config = put(saver, config_of("t"), {"a": 1})
    for text in ("first", "second"):
        saver.put_writes(config, [("a", text), ("__interrupt__", text), ("b", text)], "task", "~path")
    saver.put_writes(config, [("a", "other")], "another task", "~earlier")
    found = saver.get_tuple(config)
    assert found is not None
    assert found.pending_writes == [
        ("another task", "a", "other"),
        ("task", "__interrupt__", "second"),
        ("task", "a", "first"),
        ("task", "b", "first"),
    ]


def test_a_lifetime_slides_with_each_write(valkey: RunningServer, namespace: str, few_buckets: None) -> None:
    with (
        shifted(valkey) as clock,
        RedisStore.from_url(clock.url, namespace=namespace, partitions=1) as store,
    ):
        clocks = Clocks(store, clock)
        saver = RunicSaver(store, ttl=2 * HOUR_S)
        config = put(saver, config_of("t"), {"messages": MESSAGES})
        clocks.step_both(1.5 * HOUR_S)
        saver.put_writes(config, [("a", 1)], "task")
        config = put(saver, config, {"messages": MESSAGES}, run_id="old")
        clocks.step_both(1.5 * HOUR_S)
        config = put(saver, config, {"messages": MESSAGES})
        clocks.step_both(1.5 * HOUR_S)
        assert values_at(saver, config) == {"messages": MESSAGES}
        # A prune appends what it keeps again. This does not extend the lifetime.
        before = store.cursor("t")
        saver.delete_for_runs(["old"])
        assert store.cursor("t") > before
        clocks.step_both(HOUR_S)
        assert saver.get_tuple(config_of("t")) is None
        assert list(saver.list(config_of("t"))) == []
        assert list(saver.list(None)) == []
        store.collect(grace=0)
        assert store.context.keys is not None
        with redis.Redis.from_url(valkey.url()) as client:
            left = {key.decode().rpartition("}")[2] for key in client.scan_iter(f"*{namespace}*")}
        assert {key.split(":")[1] for key in left} <= {"config", "partition"}, "nothing of the thread is left"


def test_the_events_need_no_registration(valkey: RunningServer, namespace: str) -> None:
    """A store with another registry can be used, and tools read the events."""
    with RedisStore.from_url(valkey.url(), namespace=namespace, registry=EventRegistry()) as store:
        saver = RunicSaver(store)
        config = put(saver, config_of("t"), {"a": 1})
        saver.put_writes(config, [("a", 2)], "task")
        assert values_at(saver, config) == {"a": 1}
        assert type(list(store.stream("t"))[1]) is SavedWrites
    with RedisStore.from_url(
        valkey.url(), namespace=namespace, registry=EventRegistry(), unknown_events="wrap"
    ) as store:
        saved, written = store.stream("t")
        assert saved.fields["channels"]["a"][0][0] == -1
        assert written.fields["task_id"] == "task"


def test_bad_arguments_change_nothing(store: RedisStore, saver: RunicSaver) -> None:
    for options in ({"max_checkpoints": 0}, {"max_checkpoints": "5"}, {"max_checkpoints": True}, {"ttl": -1}):
        with pytest.raises(InvalidArgument):
            RunicSaver(store, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidType):
        RunicSaver(store, ttl="1")  # type: ignore[arg-type]
    config = put(saver, config_of("t"), {"a": 1})
    put(saver, config, {"a": 2})
    with pytest.raises(InvalidArgument, match="keep_latest"):
        saver.prune(["t"], strategy="keep_some")
    with pytest.raises(InvalidType):
        saver.prune("t")
    with pytest.raises(InvalidType):
        saver.delete_for_runs("t")
    with pytest.raises(InvalidArgument):
        put(saver, config_of(""), {"a": 1})
    assert len(list(saver.list(config_of("t")))) == 2


def test_an_allowlist_makes_a_saver_of_the_same_threads(store: RedisStore) -> None:
    saver = RunicSaver(store, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
    config = put(saver, config_of("t"), {"a": 1})
    clone = saver.with_allowlist([("tests.test_langgraph_savers", "Cipher")])
    assert clone is not saver
    assert values_at(clone, config) == {"a": 1}


@pytest.mark.parametrize("backend", ["memory", "valkey"])
def test_synchronous_calls_from_other_threads(request: pytest.FixtureRequest, backend: str, namespace: str) -> None:
    url = url_on(request, backend, namespace)

    def use(saver: AsyncRunicSaver, results: list[Any]) -> None:
        config = put(saver, config_of("t"), {"a": 1}, run_id="r")
        saver.put_writes(config, [("a", 2)], "task")
        saver.copy_thread("t", "u")
        results += [saver.get_tuple(config), list(saver.list(config_of("u"))), list(saver.list(None))]
        saver.get_delta_channel_history(config=config, channels=["a"])
        saver.prune(["t"])
        saver.delete_for_runs(["r"])
        results.append(list(saver.list(config_of("u"))))
        saver.delete_thread("t")
        results.append(saver.get_tuple(config))

    async def main() -> list[Any]:
        async with AsyncRunicSaver.from_url(url, namespace=namespace) as saver:
            with pytest.raises(StoreError, match="event loop"):
                saver.get_tuple(config_of("t"))
            with pytest.raises(StoreError, match="event loop"):
                next(saver.list(config_of("t")))
            results: list[Any] = []
            await asyncio.to_thread(use, saver, results)
            return results

    found, copied, everything, kept, deleted = asyncio.run(main())
    assert found.pending_writes == [("task", "a", 2)]
    assert [one.checkpoint for one in copied] == [found.checkpoint]
    assert len(everything) == 2
    assert kept == []
    assert deleted is None


def test_a_saver_closes_only_its_own_store(valkey: RunningServer, namespace: str) -> None:
    with RunicSaver.from_url(valkey.url(), namespace=namespace) as saver:
        assert not saver.store.closed
    assert saver.store.closed
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        with RunicSaver(store):
            pass
        assert not store.closed

    async def use() -> tuple[bool, bool]:
        async with AsyncRunicSaver.from_url(valkey.url(), namespace=namespace) as saver:
            pass
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace) as store:
            async with AsyncRunicSaver(store):
                pass
            return saver.store.closed, store.closed

    assert asyncio.run(use()) == (True, False)


def test_many_threads_share_a_saver(store: RedisStore, saver: RunicSaver) -> None:
    problems: list[BaseException] = []

    def use(number: int) -> None:
        try:
            config = config_of(f"t{number % 3}", ns=f"n{number}")
            messages: list[Any] = []
            for step in range(20):
                messages = [*messages, {"step": step, "text": str(number) * 1500}]
                config = put(saver, config, {"messages": messages})
                assert values_at(saver, config) == {"messages": messages}
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(list(saver.list(None))) == 120


def test_the_order_of_threads_and_checkpoints(saver: RunicSaver) -> None:
    for thread in ("a", "b", "c"):
        config = config_of(thread)
        for number in range(40):
            config = put(saver, config, {"number": number})
    found: list[CheckpointTuple] = list(saver.list(None, limit=60))
    assert [one.config["configurable"]["thread_id"] for one in found] == ["c"] * 40 + ["b"] * 20
    assert [one.checkpoint["channel_values"]["number"] for one in found] == [*range(39, -1, -1), *range(39, 19, -1)]


def test_without_langgraph_the_error_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['langgraph'] = None\n"
        "from runic_redis.langgraph import records\n"
        "print(records.checkpoint_tag('', 'x'))\n"
        "try:\n    from runic_redis.langgraph import RunicSaver\n"
        "except ModuleNotFoundError as error:\n    print(error)\n"
    )
    with Forked(program) as process:
        output, _ = process.communicate(timeout=60)
    assert output.splitlines() == ["c//x", "RunicSaver needs LangGraph: pip install 'runic-redis[langgraph]'."]
