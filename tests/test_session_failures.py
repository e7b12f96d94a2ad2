"""Sessions fail early: an event that cannot be stored is rejected at once, and no recorded event is lost by it."""

import asyncio
import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runic_redis import (
    AsyncFactResolver,
    AsyncRedisStore,
    CursorConflict,
    DecodeError,
    EncodeError,
    EncodingStore,
    EveryBytes,
    EveryEvents,
    Fact,
    FactRef,
    FactResolver,
    InvalidArgument,
    InvalidType,
    LeaseLost,
    RedisStore,
    SnapshotNotFound,
    SnapshotNotSaved,
    StoreError,
    UnknownEventType,
    WriteRefused,
    async_session,
    capabilities,
    event,
    session,
)
from runic_redis.codec import Codec
from runic_redis.events import EventRegistry
from tests import servers
from tests.faces import Face


@event("tests.noted")
@dataclass(frozen=True)
class Noted:
    value: Any


class Unregistered:
    """A class that cannot be stored."""


def history(state: list[Any], one: Any) -> list[Any]:
    return [*state, one]


def count(state: int, _: Any) -> int:
    return state + 1


def holding(what: Any, *, after: int) -> Any:
    """Return an `apply` whose states can be encoded only while few events have been applied."""

    def apply(state: list[Any], one: Any) -> list[Any]:
        return [*state, what if len(state) >= after else one.value]

    return apply


def stored(face: Face) -> list[Any]:
    return list(face.store.stream("w"))


UNENCODABLE = {
    "an object": (Unregistered(), "events[0]"),
    "a list": ([Noted(1)], "events[0]"),
    "a lock in a field": (Noted({"a": [threading.Lock()]}), "events[0].value['a'][0]"),
    "an object in a dict": ({"a": Unregistered()}, "events[0]['a']"),
    "an object in a fact": (Noted(Fact({"b": Unregistered()})), "events[0].value.value['b']"),
    "a surrogate": (Noted("\ud800"), "events[0].value"),
    "a fact in a fact": (Noted(Fact([Fact(1)])), "events[0].value.value[0]"),
}


@pytest.mark.parametrize("checkpoint", ["cycle", 3, "completion", "manual"])
@pytest.mark.parametrize(("bad", "path"), UNENCODABLE.values(), ids=UNENCODABLE.keys())
def test_an_event_that_cannot_be_encoded_is_rejected_by_record(
    face: Face, checkpoint: Any, bad: Any, path: str
) -> None:
    seen = []

    def apply(state: list[Any], one: Any) -> list[Any]:
        seen.append(one)
        return history(state, one)

    with face.session(apply, [], checkpoint=checkpoint) as one:
        one.record(Noted(1))
        before = one.state, one.pending, one.cursor
        with pytest.raises(EncodeError) as caught:
            one.record(bad)
        assert caught.value.path == path
        assert path in str(caught.value)
        with pytest.raises(EncodeError):
            one.record(Noted(2), bad)
        assert (one.state, one.pending, one.cursor) == before
        assert seen == [Noted(1)]
        one.record(Noted(3))
        one.checkpoint()
        assert one.pending == ()
    assert stored(face) == [Noted(1), Noted(3)]


def test_of_a_thousand_events_those_before_the_bad_one_are_kept(face: Face) -> None:
    with pytest.raises(EncodeError), face.session(count, 0, checkpoint="completion") as one:
        for number in range(100):
            one.record(Noted(number))
        try:
            one.record(Noted(Unregistered()))
        finally:
            one.checkpoint()
    assert stored(face) == [Noted(number) for number in range(100)]


@pytest.mark.parametrize("checkpoint", ["cycle", "completion"])
def test_an_event_that_is_too_large_is_rejected_by_record(face: Face, checkpoint: Any) -> None:
    with face.session(count, 0, checkpoint=checkpoint) as one:
        one.record(Noted(1))
        with pytest.raises(EncodeError, match=r"events\[1\] takes .* store the large part as a fact"):
            one.record(Noted(2), Noted(bytes(17 * 1024 * 1024)))
        assert one.state == 1
        one.record(Noted(Fact(bytes(17 * 1024 * 1024))))
    assert len(stored(face)) == 2


def test_what_does_not_fit_into_one_commit_with_those_pending_is_rejected_by_record(
    face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runic_redis.recovery.session_core.MAX_COMMIT_BYTES", 10_000)
    with face.session(count, 0, checkpoint="completion") as one:
        for _ in range(9):
            one.record(Noted(bytes(1000)))
        with pytest.raises(EncodeError, match=r"stay pending\. Call checkpoint, then") as caught:
            one.record(Noted(bytes(1000)))
        assert caught.value.path == "events"
        assert (one.state, len(one.pending), one.cursor) == (9, 9, 0)
        one.checkpoint()  # the remedy of the error
        one.record(Noted(bytes(1000)))
    assert len(stored(face)) == 10


def test_an_event_for_which_apply_raises_is_not_recorded(face: Face) -> None:
    def apply(state: int, one: Any) -> int:
        return state + one.value

    with face.session(apply, 0, checkpoint="completion") as one:
        one.record(Noted(1))
        with pytest.raises(TypeError):
            one.record(Noted(2), Noted("three"))
        assert (one.state, one.pending, one.cursor) == (1, (Noted(1),), 0)
        one.record(Noted(4))
    assert stored(face) == [Noted(1), Noted(4)]


def test_an_event_that_was_changed_after_it_was_recorded_keeps_no_other_from_storage(face: Face) -> None:
    changed: dict[str, Any] = {"number": 2}
    with face.session(count, 0, checkpoint="manual") as one:
        one.record(Noted(1))
        one.record(changed)
        changed["number"] = Unregistered()
        with pytest.raises(EncodeError, match=r"events\[1\]\['number'\]"):
            one.checkpoint()
        assert (one.cursor, len(one.pending)) == (0, 2)
        changed["number"] = 3
        one.checkpoint()
    assert stored(face) == [Noted(1), {"number": 3}]


def test_what_is_recorded_in_one_piece_is_stored_as_it_was_then(face: Face) -> None:
    changed: dict[str, Any] = {"number": 1}
    with face.session(count, 0, checkpoint="completion") as one:
        one.record(changed)
        changed["number"] = 2
    assert stored(face) == [{"number": 1}]


# Snapshots


@pytest.mark.parametrize(
    ("initial", "path"),
    [
        ([threading.Lock()], "state[0]"),
        ({"a": {"b": Unregistered()}}, "state['a']['b']"),
        (Unregistered, "state"),
        ("\udfff", "state"),
    ],
)
def test_a_state_that_cannot_be_saved_is_rejected_on_entry(face: Face, initial: Any, path: str) -> None:
    with (
        pytest.raises(EncodeError, match=r"Nothing was recorded\. Pass a dumps and a loads") as caught,
        face.session(history, initial, snapshots=EveryEvents(500)),
    ):
        pytest.fail("the session was entered")
    assert caught.value.path == path
    assert not face.store.exists("w")


@pytest.mark.parametrize(
    "options",
    [{}, {"snapshots": EveryEvents(1), "dumps": lambda state: b"%d" % len(state), "loads": lambda data: [...]}],
)
def test_the_advice_for_such_a_state_works(face: Face, options: dict[str, Any]) -> None:
    with face.session(lambda state, _: [*state, threading.Lock()], [threading.Lock()], **options) as one:
        one.record(Noted(1))
    assert stored(face) == [Noted(1)]


@pytest.mark.parametrize("dumps", [json.dumps, str, lambda state: None, lambda state: 1 // 0])
def test_dumps_that_fail_are_noticed_on_entry(face: Face, dumps: Any) -> None:
    with (
        pytest.raises(EncodeError, match="cannot be saved as a snapshot"),
        face.session(count, {1, 2}, snapshots=EveryEvents(500), dumps=dumps, loads=json.loads),
    ):
        pytest.fail("the session was entered")


def test_a_recovered_state_that_cannot_be_saved_is_rejected_on_entry(face: Face) -> None:
    face.store.append("w", [Noted(1), Noted(2)])
    apply = holding(threading.Lock(), after=1)
    with pytest.raises(EncodeError, match=r"state\[1\]"), face.session(apply, [], snapshots=EveryEvents(500)):
        pytest.fail("the session was entered")
    with face.session(apply, []) as one:  # the remedy of the error
        one.record(Noted(3))
    assert len(stored(face)) == 3


@pytest.mark.parametrize("checkpoint", ["cycle", "completion"])
def test_the_state_after_the_first_events_is_also_tried(face: Face, checkpoint: Any) -> None:
    """The initial state is often None or an empty dict, and says little about later states."""

    def apply(state: Any, one: Noted) -> Any:
        return one.value if isinstance(one.value, int) else Unregistered()

    with face.session(apply, None, snapshots=EveryEvents(500), checkpoint=checkpoint) as one:
        for _ in range(2):
            with pytest.raises(EncodeError, match=r"Nothing was recorded\. Pass a dumps and a loads") as caught:
                one.record(Noted(1), Noted("two"))
            assert caught.value.path == "state"
            assert (one.state, one.pending, one.cursor) == (None, (), 0)
        one.record(Noted(1))
        one.record(Noted("two"))  # no state is encoded again before a snapshot is due
    assert stored(face) == [Noted(1), Noted("two")]


def test_without_snapshots_no_state_is_tried(face: Face) -> None:
    with face.session(lambda state, _: threading.Lock(), threading.Lock(), build_log=[Noted(0)]) as one:
        one.record(Noted(1))
    assert len(stored(face)) == 2


@pytest.mark.parametrize("replayed", [0, 1])
def test_on_entry_a_state_is_encoded_unless_it_has_just_been_decoded(face: Face, replayed: int) -> None:
    encoded = []

    def dumps(state: int) -> bytes:
        encoded.append(state)
        return b"%d" % state

    face.store.append("w", [Noted(1)], snapshot=b"1")
    face.store.append("w", [Noted(2)] * replayed)
    with face.session(count, 0, snapshots=EveryEvents(500), dumps=dumps, loads=int) as one:
        one.record(Noted(3))
        assert one.state == 2 + replayed
    assert encoded == [2] * replayed


@pytest.mark.parametrize("checkpoint", ["cycle", 2, "completion", "manual"])
def test_events_are_stored_when_the_state_can_no_longer_be_saved(face: Face, checkpoint: Any) -> None:
    """With each strategy, every recorded event is stored, including the one that made the state unusable."""
    problems = []
    with face.session(holding(threading.Lock(), after=3), [], snapshots=EveryEvents(2), checkpoint=checkpoint) as one:
        for number in range(6):
            try:
                one.record(Noted(number))
            except SnapshotNotSaved as error:
                problems.append(error)
        assert len(one.state) == 6
        try:
            one.checkpoint()
        except SnapshotNotSaved as error:
            problems.append(error)
        assert (one.cursor, one.pending) == (6, ())
    assert stored(face) == [Noted(number) for number in range(6)]
    (first, *_) = problems
    assert "are stored up to cursor" in str(first)
    assert "Do not record the events again" in str(first)
    assert "state[3]" in str(first)
    assert "nothing was sent" not in str(first)
    assert isinstance(first.__cause__, EncodeError)
    assert [error.cursor for error in problems] == sorted({error.cursor for error in problems})
    if checkpoint == "cycle":
        assert face.store.load_snapshot("w")[0] == 2


def test_a_session_left_with_a_state_that_cannot_be_saved_has_stored_its_events(face: Face) -> None:
    with (
        pytest.raises(SnapshotNotSaved) as caught,
        face.session(holding(threading.Lock(), after=1), [], snapshots=EveryEvents(2), checkpoint="completion") as one,
    ):
        one.record(Noted(1))
        one.record(Noted(2), Noted(3))
    assert caught.value.cursor == one.cursor == 3
    assert one.pending == ()
    assert stored(face) == [Noted(1), Noted(2), Noted(3)]
    with pytest.raises(StoreError, match="is over"):
        one.record(Noted(4))


def test_an_error_in_the_session_is_not_masked_by_that_of_a_snapshot(face: Face) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        face.session(holding(threading.Lock(), after=1), [], snapshots=EveryEvents(2), checkpoint="completion") as one,
    ):
        one.record(Noted(1))
        one.record(Noted(2))
        _ = 1 // 0
    assert face.store.cursor("w") == 0


def test_a_workflow_is_completed_although_its_snapshot_is_not_saved(face: Face) -> None:
    lease = face.store.acquire("w", "me")
    with face.session(
        holding(threading.Lock(), after=1), [], snapshots=EveryEvents(1), checkpoint="completion", lease=lease
    ) as one:
        one.record(Noted(1))
        one.record(Noted(2))
        with pytest.raises(SnapshotNotSaved):
            one.complete()
    assert stored(face) == [Noted(1), Noted(2)]
    face.store.release(lease)
    assert face.store.claim("you") == []


def test_a_state_that_can_be_saved_again_is_saved_at_the_next_checkpoint(face: Face) -> None:
    def apply(state: Any, one: Noted) -> Any:
        return threading.Lock() if one.value == 2 else one.value

    with face.session(apply, 0, snapshots=EveryEvents(2), keep=0) as one:
        one.record(Noted(1))
        with pytest.raises(SnapshotNotSaved):
            one.record(Noted(2))
        with pytest.raises(SnapshotNotFound):
            face.store.load_snapshot("w")
        assert len(stored(face)) == 2  # nothing was trimmed
        one.record(Noted(3))
        assert face.store.load_snapshot("w")[0] == 3
    with face.session(apply, 0) as again:
        assert (again.state, again.recovery.replayed) == (3, 0)


@pytest.mark.parametrize("failing", ["dumps", "policy"])
def test_no_failure_of_dumps_or_of_a_policy_loses_events(face: Face, failing: str) -> None:
    class Policy:
        def due(self, since: Any, /) -> bool:
            return since.events >= 2 if failing == "dumps" else 1 // 0

    def dumps(state: int) -> bytes:
        return b"%d" % (1 // (2 - state) if state >= 2 else state)

    with face.session(count, 0, snapshots=Policy(), dumps=dumps, loads=int, checkpoint="completion") as one:
        one.record(Noted(1))
        one.record(Noted(2))
        with pytest.raises(SnapshotNotSaved, match="ZeroDivisionError"):
            one.checkpoint()
    assert stored(face) == [Noted(1), Noted(2)]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_snapshot_that_is_too_large_for_the_server_loses_no_events(
    asynchronous: bool, tmp_path: Any, namespace: str
) -> None:
    program = servers.valkey_program()
    with servers.running(program, tmp_path, "--proto-max-bulk-len", "1mb") as server:
        face = Face(server.url(), namespace, asynchronous=asynchronous)
        with face.session(lambda state, one: state + bytes(one.value), b"", snapshots=EveryEvents(2)) as one:
            one.record(Noted(1))
            with pytest.raises(SnapshotNotSaved) as caught:
                one.record(Noted(2 * 1024 * 1024))
            assert isinstance(caught.value.__cause__, WriteRefused)
            assert one.cursor == 2
        assert len(stored(face)) == 2
        face.close()


def test_other_refusals_with_a_snapshot_end_the_session_as_before(face: Face) -> None:
    stale = face.store.acquire("w", "me")
    face.store.acquire("w", "me")
    with pytest.raises(LeaseLost), face.session(count, 0, snapshots=EveryEvents(1), lease=stale) as one:
        one.record(Noted(1))
    with pytest.raises(CursorConflict), face.session(count, 0, snapshots=EveryEvents(1)) as one:
        face.store.append("w", [Noted(1)])
        one.record(Noted(2))
    assert stored(face) == [Noted(1)]


def test_a_trim_that_fails_leaves_no_doubt_about_the_events(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError

    with session(store, "w", count, 0, snapshots=EveryEvents(1), keep=0) as one:
        monkeypatch.setattr(RedisStore, "trim", fail)
        with pytest.raises(ConnectionError):
            one.record(Noted(1))
        monkeypatch.undo()
        assert (one.cursor, one.pending) == (1, ())
        one.record(Noted(2))
    assert store.cursor("w") == 2


# The capability


@pytest.mark.parametrize("store_class", [RedisStore, AsyncRedisStore])
def test_both_stores_encode_without_a_round_trip(store_class: Any) -> None:
    """This also works before they have been opened, as encoding needs no server."""
    if store_class is RedisStore:
        store = RedisStore.from_url("memory://encoding", namespace="encoding")
    else:
        store = AsyncRedisStore.from_url("redis://127.0.0.1:1/0", namespace="encoding")
    assert isinstance(store, EncodingStore)
    events = [Noted(1), {"b": 2}]
    encoded = store.encode_events(iter(events))
    assert list(encoded) == events
    assert 0 < encoded.stored_bytes <= encoded.encoded_bytes
    assert store.encode_events([]).encoded_bytes == 0
    with pytest.raises(EncodeError, match=r"events\[0\]"):
        store.encode_events([Unregistered()])
    with pytest.raises(InvalidType, match="write \\[event\\]"):
        store.encode_events({"one": "event"})
    state = {"a": (1, {2}), "noted": Noted(3)}
    assert store.decode_state(store.encode_state(state)) == state
    with pytest.raises(EncodeError, match="state is"):
        store.encode_state(Unregistered())
    with pytest.raises(DecodeError):
        store.decode_state(b"\xc1")


def test_a_state_with_an_unknown_object_is_no_state(namespace: str) -> None:
    foreign = EventRegistry()
    foreign.event("tests.of-another-program")(Noted)
    with RedisStore.from_url("memory://wrapping", namespace=namespace, unknown_events="wrap") as store:
        data = Codec(foreign, "raise").encode_state([Noted(1)])
        with pytest.raises(UnknownEventType):
            store.decode_state(data)


def test_encoded_events_are_appended_as_they_were(store: RedisStore) -> None:
    mutable = {"number": 1}
    large = [Noted({"number": number, "data": bytes(4000)}) for number in range(600)]  # several entries
    commits = [[mutable], [Noted(Fact("kept" * 100)), Noted(1)], large]
    for events in commits:
        store.append("encoded", store.encode_events(events))
    (fact, *_) = store.stream("encoded", after=1)
    assert store.load_fact(fact.value.hash) == "kept" * 100
    for events in commits:
        store.append("plainly", events)
    encoded = store.encode_events([mutable])
    mutable["number"] = 2
    assert store.append("encoded", encoded, expected_cursor=603) == 604
    assert store.append_many([("many", encoded), ("many", store.encode_events([]))]) == [1, 1]
    assert list(store.stream("encoded"))[:-1] == list(store.stream("plainly"))
    assert list(store.stream("many")) == [{"number": 1}]


@pytest.mark.parametrize("backend", ["redis_6_2", "cluster_nodes"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_session_s_facts_and_snapshots_are_stored_elsewhere_too(
    backend: str, asynchronous: bool, namespace: str, request: pytest.FixtureRequest
) -> None:
    """In a cluster, facts and events are in different slots, so the commit is appended in two steps."""
    server = request.getfixturevalue(backend)
    url = servers.cluster_url(server) if backend == "cluster_nodes" else server.url()
    face = Face(url, namespace, asynchronous=asynchronous)
    with face.session(
        holding(threading.Lock(), after=10), [], snapshots=EveryEvents(8), build_log=[Noted(Fact("first"))]
    ) as one:
        for number in range(9):
            one.record(Noted(Fact(["kept", number])))
        with pytest.raises(EncodeError):
            one.record(Noted(Fact(Unregistered())))
        for number in range(7):
            with contextlib.suppress(SnapshotNotSaved):
                one.record(Noted(number))
        assert face.store.load_snapshot("w")[0] == 8
    kept = face.rehydrate(stored(face), None)
    assert kept == [
        Noted(Fact("first")),
        *(Noted(Fact(["kept", number])) for number in range(9)),
        *map(Noted, range(7)),
    ]
    face.close()


def test_the_bytes_of_the_capability_are_those_a_policy_counts(store: RedisStore) -> None:
    events = [Noted(bytes(50_000)), Noted(1)]
    most = store.encode_events(events).stored_bytes
    assert most < 1000 < store.encode_events(events).encoded_bytes
    with session(store, "w", count, 0, snapshots=EveryBytes(most)) as one:
        one.record(*events)
        assert store.load_snapshot("w")[0] == 2
    with session(store, "v", count, 0, snapshots=EveryBytes(most + 1)) as one:
        one.record(*events)
        with pytest.raises(SnapshotNotFound):
            store.load_snapshot("v")


# A workflow's build log


BUILD_LOG = [Noted("a"), Noted("b")]


@pytest.mark.parametrize("checkpoint", ["cycle", 3, "completion", "manual"])
def test_a_new_workflow_begins_with_its_build_log(face: Face, checkpoint: Any) -> None:
    with face.session(history, [], build_log=BUILD_LOG, checkpoint=checkpoint) as one:
        assert one.state == stored(face) == BUILD_LOG
        assert (one.cursor, one.pending, one.recovery.cursor) == (2, (), 0)
        one.record(Noted("c"))
        one.checkpoint()
    with face.session(history, [], build_log=BUILD_LOG) as again:
        assert again.state == [*BUILD_LOG, Noted("c")]
    assert stored(face) == [*BUILD_LOG, Noted("c")]


def test_of_two_that_begin_a_workflow_one_does(face: Face) -> None:
    def apply(state: list[Any], one: Any) -> list[Any]:
        # After the session has recovered, another session begins the workflow.
        if not face.store.exists("w"):
            face.store.append("w", [Noted("theirs")])
        return history(state, one)

    with pytest.raises(CursorConflict), face.session(apply, [], build_log=BUILD_LOG):
        pytest.fail("the session was entered")
    assert stored(face) == [Noted("theirs")]


@pytest.mark.parametrize("bad", [[Noted(1), Unregistered()], [[Noted(1)]]])
def test_a_build_log_that_cannot_be_encoded_begins_no_workflow(face: Face, bad: Any) -> None:
    with pytest.raises(EncodeError, match=r"events\[\d\]"), face.session(history, [], build_log=bad):
        pytest.fail("the session was entered")
    assert not face.store.exists("w")


@pytest.mark.parametrize("bad", ["text", None, 1, {"a": "dict"}, iter([])])
def test_a_build_log_is_a_list(face: Face, bad: Any) -> None:
    with (
        pytest.raises(InvalidArgument, match="build_log is a list of events"),
        face.session(history, [], build_log=bad),
    ):
        pytest.fail("the session was entered")


def test_a_build_log_is_the_lease_holder_s(face: Face) -> None:
    stale = face.store.acquire("w", "me")
    face.store.acquire("w", "me")
    with pytest.raises(LeaseLost), face.session(history, [], build_log=BUILD_LOG, lease=stale):
        pytest.fail("the session was entered")
    assert face.store.cursor("w") == 0


# Other stores


class PlainStore:
    """A store with cursors and snapshots that cannot encode ahead."""

    def __init__(self, store: RedisStore) -> None:
        for name in ("append", "stream", "stream_records", "trim", "complete", "save_snapshot", "load_snapshot"):
            setattr(self, name, getattr(store, name))


class LogStore:
    """A store with only the required methods, which accepts any object."""

    def __init__(self) -> None:
        self.logs: dict[str, list[Any]] = {}

    def save(self, workflow_id: str, log: list[Any]) -> None:
        self.logs[workflow_id] = list(log)

    def load(self, workflow_id: str) -> list[Any]:
        return list(self.logs.get(workflow_id, []))


def test_a_store_that_cannot_encode_ahead_will_do(store: RedisStore) -> None:
    plain = PlainStore(store)
    assert not capabilities(plain).encoding
    assert capabilities(plain).cursors
    with session(plain, "w", history, [], snapshots=EveryBytes(50), build_log=BUILD_LOG) as one:
        one.record(Noted("c"), Noted(bytes(100)))
    assert store.load_snapshot("w")[0] == 4
    with session(plain, "v", holding(threading.Lock(), after=1), [], snapshots=EveryEvents(1)) as one:
        one.record(Noted(1))
        with pytest.raises(SnapshotNotSaved):
            one.record(Noted(2))
        assert (one.cursor, store.cursor("v")) == (2, 2)


def test_a_session_passes_any_object_to_the_least_store() -> None:
    least = LogStore()
    odd = Unregistered()
    with session(least, "w", history, [threading.Lock()], build_log=BUILD_LOG, snapshots=EveryEvents(1)) as one:
        one.record(odd)
    assert least.logs["w"] == [*BUILD_LOG, odd]
    with session(least, "w", history, [], build_log=BUILD_LOG) as again:
        assert again.state == [*BUILD_LOG, odd]


class ContractStore(LogStore):
    """The smallest store of the contract: it raises a `LookupError` for a missing workflow."""

    def load(self, workflow_id: str) -> list[Any]:
        return list(self.logs[workflow_id])


def test_a_store_that_only_raises_a_lookup_error_begins_a_workflow() -> None:
    least = ContractStore()
    with session(least, "w", history, []) as one:
        one.record(Noted(1))
    with session(least, "w", history, []) as again:
        assert again.state == [Noted(1)]


# Wrong uses of a session


@pytest.mark.parametrize("checkpoint", ["cycle", 3, "completion"])
def test_tasks_that_share_a_session_take_turns(namespace: str, valkey: servers.RunningServer, checkpoint: Any) -> None:
    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace) as store:
            async with async_session(store, "w", history, [], checkpoint=checkpoint) as one:
                await asyncio.gather(*(one.record(Noted(number)) for number in range(20)))
            assert [event async for event in store.stream("w")] == one.state == [Noted(number) for number in range(20)]

    asyncio.run(main())


def test_threads_that_share_a_session_take_turns(store: RedisStore) -> None:
    met = threading.Barrier(2)

    def apply(state: list[Any], one: Any) -> list[Any]:
        with contextlib.suppress(threading.BrokenBarrierError):
            met.wait(0.01)  # without a lock, both threads would meet here
        return [*state, one]

    with session(store, "w", apply, []) as one, ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(one.record, Noted(number)) for number in range(10)]:
            done.result()
        assert one.state == list(store.stream("w"))
        assert len(one.state) == 10


def test_an_error_leaves_a_session_at_once_though_another_task_waits(tmp_path: Path) -> None:
    async def main() -> None:
        url = f"{server.url()}&socket_timeout=1000"
        async with AsyncRedisStore.from_url(url, deadline_s=1000) as store:
            with pytest.raises(ZeroDivisionError):
                async with async_session(store, "w", history, []) as one:
                    await one.record(Noted(0))
                    server.stop()
                    tasks = [asyncio.create_task(one.record(Noted(number))) for number in (1, 2)]
                    await asyncio.sleep(0)
                    raise ZeroDivisionError
            server.go_on()
            await tasks[0]
            with pytest.raises(StoreError, match="is over"):
                await tasks[1]
            assert await store.cursor("w") == 2

    with servers.running(servers.valkey_program(), tmp_path) as server:
        asyncio.run(main())


def test_an_apply_that_records_raises(store: RedisStore) -> None:
    def apply(state: list[Any], one: Any) -> list[Any]:
        if one == Noted("cause"):
            entered.record(Noted("effect"))
        return [*state, one]

    with session(store, "w", apply, []) as entered:
        with pytest.raises(StoreError, match=r"is applying events. Nothing was recorded by this call"):
            entered.record(Noted("cause"))
        entered.record(Noted("other"))
        assert entered.state == list(store.stream("w")) == [Noted("other")]


@pytest.mark.parametrize("failing", [False, True])
def test_a_session_is_entered_once(face: Face, failing: bool) -> None:
    make, way = (async_session, face.run) if face.used is not face.store else (session, lambda done: done)
    one = make(face.used, "w", history, [])
    enter, leave = ("__aenter__", "__aexit__") if make is async_session else ("__enter__", "__exit__")
    way(getattr(one, enter)())
    if failing:
        face.store.append("w", [Noted("somebody else's")])
        with pytest.raises(CursorConflict):
            way(one.record(Noted(1)))
    way(getattr(one, leave)(None, None, None))
    with pytest.raises(StoreError, match=r"has been entered before.*Make another session"):
        way(getattr(one, enter)())
    with pytest.raises(StoreError, match="is over"):
        way(one.record(Noted(2)))


def test_a_store_of_the_other_kind_is_named(face: Face, namespace: str) -> None:
    async def main() -> None:
        asynchronous = AsyncRedisStore.from_url(face.url, namespace=namespace)
        async with asynchronous:
            for use in (lambda: session(asynchronous, "w", history, []).__enter__(), lambda: resolve(asynchronous)):
                with pytest.raises(InvalidType, match="AsyncRedisStore is for asyncio: use async_session"):
                    use()
        for awaited in (async_session(face.store, "w", history, []).__aenter__(), resolve_later(face.store)):
            with pytest.raises(InvalidType, match=r"The RedisStore is not for asyncio: .*Nothing was changed"):
                await awaited

    def resolve(store: Any) -> Any:
        return FactResolver(store).resolve(FactRef("sha256:" + "0" * 64))

    async def resolve_later(store: Any) -> Any:
        return await AsyncFactResolver(store).resolve(FactRef("sha256:" + "0" * 64))

    asyncio.run(main())
    face.store.append("w", [Noted(1)])
    face.store.save_snapshot("w", 1, face.store.encode_state([]))
    asyncio.run(main())
    assert face.store.cursor("w") == 1


async def awaited_apply(state: list[Any], one: Any) -> list[Any]:
    return [*state, one]


@pytest.mark.parametrize(
    ("apply", "initial", "options", "message"),
    [
        (awaited_apply, [], {}, "apply is a coroutine function"),
        (history, awaited_apply, {}, "initial is a coroutine function"),
        (history, [], {"snapshots": 100}, "snapshots is a policy, such as EveryEvents.*not 100"),
        (history, [], {"snapshots": EveryEvents}, "snapshots is a policy"),
    ],
)
@pytest.mark.parametrize("make", [session, async_session])
def test_arguments_that_would_fail_later_are_rejected(
    make: Any, apply: Any, initial: Any, options: Any, message: str
) -> None:
    with pytest.raises(InvalidType, match=message):
        make(LogStore(), "w", apply, initial, **options)
