"""The recorders of `eventsourcing` on this store: what is read is what was inserted, whatever fails."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import hypothesis.strategies as st
import pytest
from eventsourcing.application import Application
from eventsourcing.cipher import AESCipher
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import (
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    StoredEvent,
    Tracking,
)
from eventsourcing.popo import POPOProcessRecorder
from eventsourcing.utils import Environment
from hypothesis import HealthCheck, given, settings

from runic_redis import RedisStore
from runic_redis.eventsourcing import RedisFactory, RedisProcessRecorder
from tests import servers
from tests.faults import make_faulty
from tests.servers import RunningServer
from tests.test_archives import export, load

AGGREGATES = [UUID(int=number) for number in range(3)]


def new_factory(url: str, namespace: str, **variables: str) -> RedisFactory:
    return RedisFactory(Environment("", {"RUNIC_REDIS_URL": url, "RUNIC_REDIS_NAMESPACE": namespace, **variables}))


@pytest.fixture
def factory(valkey: RunningServer, namespace: str) -> Iterator[RedisFactory]:
    with_factory = new_factory(valkey.url(), namespace)
    yield with_factory
    with_factory.close()


@pytest.fixture
def recorder(factory: RedisFactory) -> RedisProcessRecorder:
    return factory.process_recorder()


def stored(aggregate: UUID | str, version: int, count: int = 1, topic: str = "t") -> list[StoredEvent]:
    return [StoredEvent(aggregate, version + place, topic, b"%d" % (version + place)) for place in range(count)]


# Inserts of up to three aggregates: each with the distance of its first version to the right one, and how many events.
_inserts = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.sampled_from(AGGREGATES), st.sampled_from([0, 0, 0, 0, -1, 1]), st.integers(1, 3)),
            max_size=3,
            unique_by=lambda one: one[0],
        ),
        st.none() | st.integers(1, 5),
        st.sampled_from([[], [], ["reply"], ["request"], ["reply", "reply"]]),
    ),
    max_size=12,
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inserts=_inserts, from_zero=st.sets(st.sampled_from(AGGREGATES)))
def test_what_is_read_is_what_was_inserted(
    valkey: RunningServer, namespace: str, inserts: Any, from_zero: set[UUID]
) -> None:
    """With conflicts, lost replies and tracking records; as the library's recorder in memory does."""
    factory = new_factory(valkey.url(), f"{namespace}.{uuid4()}")
    recorder, model = factory.process_recorder(), POPOProcessRecorder()
    recorder.insert_events([])
    faulty = make_faulty(recorder.store)
    following = {one: 0 if one in from_zero else 1 for one in AGGREGATES}
    topics = ["a:A", "b:B.C", "é"]
    for drawn, position, losses in inserts:
        # A first version may be 0 or 1. Of an aggregate from 0, the recorder does not notice one skipped version.
        parts = [
            (one, 0 if following[one] < 2 or (one in from_zero and shift == 1) else shift, count)
            for one, shift, count in drawn
        ]
        events = [
            StoredEvent(one, following[one] + shift + place, topics[place], bytes([place]) * 40)
            for one, shift, count in parts
            for place in range(count)
        ]
        tracking = {} if position is None else {"tracking": Tracking("up", position)}
        expected: Any = IntegrityError
        if all(shift == 0 for _, shift, _ in parts):
            with suppress(IntegrityError):
                expected = model.insert_events(events, **tracking)
        faulty.faults = [*losses]
        try:
            found: Any = recorder.insert_events(events, **tracking)
        except IntegrityError:
            found = IntegrityError
        faulty.faults = []
        assert found == expected
        if expected is not IntegrityError:
            for one, _, count in parts:
                following[one] += count
        assert recorder.max_tracking_id("up") == model.max_tracking_id("up")
    for one in AGGREGATES:
        for gt, lte, desc, limit in [
            (None, None, False, None),
            (1, 3, False, None),
            (0, None, True, 2),
            (2, 4, True, 1),
        ]:
            arguments: dict[str, Any] = {"gt": gt, "lte": lte, "desc": desc, "limit": limit}
            assert recorder.select_events(one, **arguments) == model.select_events(one, **arguments), arguments
    last = model.max_notification_id()
    assert recorder.max_notification_id() == last
    for start in (None, *range(1, (last or 0) + 2)):
        for limit, stop, wanted in [(100, None, ()), (2, None, ()), (3, (start or 1) + 2, ()), (4, None, ["b:B.C"])]:
            pages = [one.select_notifications(start, limit, stop, wanted) for one in (recorder, model)]
            assert pages[0] == pages[1], (start, limit, stop, wanted)
    factory.close()


def test_the_errors_are_those_of_the_library(recorder: RedisProcessRecorder) -> None:
    one = AGGREGATES[0]
    recorder.insert_events(stored(one, 1))
    for wrong in (
        stored(one, 1),
        stored(one, 3),
        stored(one, 0),
        stored(one, 2) * 2,
        [*stored(one, 2), *stored(one, 4)],
    ):
        with pytest.raises(IntegrityError):
            recorder.insert_events(wrong)
    with pytest.raises(ProgrammingError, match="from 0 up"):
        recorder.insert_events(stored(one, -1))
    with pytest.raises(DataError, match="not bytes"):
        recorder.insert_events([StoredEvent(one, 2, "t", "text")])  # type: ignore[arg-type]
    with pytest.raises(ProgrammingError, match="ORIGINATOR_ID_TYPE"):
        recorder.insert_events(stored("text", 1))
    with pytest.raises(ProgrammingError):
        recorder.insert_tracking(Tracking("", 1))
    assert recorder.select_events(one) == stored(one, 1)
    recorder.store.append("foreign", [{"n": 1}])
    with pytest.raises(InternalError, match="no aggregate"):
        recorder.select_notifications(1, 10)


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({"RUNIC_REDIS_URL": ""}, OSError),
        ({"RUNIC_REDIS_DURABILITY": "some"}, OSError),
        ({"ORIGINATOR_ID_TYPE": "int"}, OSError),
        ({"RUNIC_REDIS_NAMESPACE": "a b"}, ProgrammingError),
        ({"RUNIC_REDIS_URL": "what://"}, InterfaceError),
    ],
)
def test_a_wrong_variable_is_named(valkey: RunningServer, namespace: str, variables: Any, error: Any) -> None:
    given = {"RUNIC_REDIS_URL": valkey.url(), "RUNIC_REDIS_NAMESPACE": namespace, **variables}
    with pytest.raises(error):
        RedisFactory(Environment("", given)).application_recorder()


def test_ids_may_be_text(valkey: RunningServer, namespace: str) -> None:
    factory = new_factory(valkey.url(), namespace, ORIGINATOR_ID_TYPE="text", RUNIC_REDIS_DURABILITY="memory")
    recorder = factory.application_recorder()
    assert recorder.insert_events([*stored("a/é {1}", 1, 2), *stored("b", 0)]) == [1, 2, 3]
    assert recorder.select_events("a/é {1}") == stored("a/é {1}", 1, 2)
    assert [one.originator_id for one in recorder.select_notifications(None, 10)] == ["a/é {1}", "a/é {1}", "b"]
    factory.close()


def test_large_commits_come_back(recorder: RedisProcessRecorder) -> None:
    one, other = AGGREGATES[:2]
    events = [StoredEvent(one, 1 + place, f"t{place % 2}", bytes([place]) * 500_000) for place in range(6)]
    assert recorder.insert_events([*events, *stored(other, 0, 700)]) == list(range(1, 707))
    assert recorder.select_events(one) == events
    assert recorder.select_events(other, gt=650) == stored(other, 651, 49)
    found = recorder.select_notifications(4, 5)
    assert [(note.id, note.originator_version) for note in found] == [(4, 4), (5, 5), (6, 6), (7, 0), (8, 1)]


def test_an_imported_application_reads_the_same(
    factory: RedisFactory, recorder: RedisProcessRecorder, valkey: RunningServer, tmp_path: Path
) -> None:
    for one in AGGREGATES[:2]:
        for version in range(1, 5):
            recorder.insert_events(stored(one, version), tracking=Tracking("up", version + 10 * one.int))
    export(recorder.store, tmp_path / "archive")
    copy = new_factory(valkey.url(), f"{factory.namespace}.copy")
    assert load(copy.store, tmp_path / "archive").problems == []
    target = copy.process_recorder()
    assert target.max_tracking_id("up") == recorder.max_tracking_id("up")
    found = target.select_notifications(1, 100)
    assert [one.id for one in found] == list(range(1, 9))
    for one in AGGREGATES[:2]:
        assert target.select_events(one) == recorder.select_events(one)
        assert [note.originator_version for note in found if note.originator_id == one] == [1, 2, 3, 4]
    assert [note.id for note in target.select_notifications(2, 3)] == [2, 3, 4]
    assert target.insert_events(stored(AGGREGATES[0], 5)) == [9]
    copy.close()


class Account(Aggregate):
    @event("Opened")
    def __init__(self) -> None:
        self.total = 0

    @event("Paid")
    def pay(self, amount: int) -> None:
        self.total += amount


def test_an_application_goes_on_after_its_server_was_killed(tmp_path: Path) -> None:
    with servers.running(servers.valkey_program(), tmp_path, "--appendonly", "yes") as server:
        env = {
            "PERSISTENCE_MODULE": "runic_redis.eventsourcing",
            "RUNIC_REDIS_URL": server.url(),
            "RUNIC_REDIS_DURABILITY": "fsync",
            "CIPHER_TOPIC": "eventsourcing.cipher:AESCipher",
            "CIPHER_KEY": AESCipher.create_key(16),
            "COMPRESSOR_TOPIC": "zlib",
            "IS_SNAPSHOTTING_ENABLED": "y",
        }
        app = Application[UUID](env)
        account = Account()
        account.pay(5)
        app.save(account)
        found: list[int] = []
        with app.recorder.subscribe() as subscription:
            found += [next(subscription).id for _ in range(2)]
            server.kill()
            server.restart()
            account.pay(7)
            assert [one.notification.id for one in app.save(account)] == [3]
            found.append(next(subscription).id)
        app.take_snapshot(account.id)
        account.pay(1)
        app.save(account)
        assert found == [1, 2, 3]
        copy: Account = app.repository.get(account.id)
        assert (copy.total, copy.version) == (13, 4)
        assert app.repository.get(account.id, version=2).total == 5  # type: ignore[attr-defined]
        app.close()


def test_an_outage_is_an_operational_error(tmp_path: Path) -> None:
    with servers.running(servers.valkey_program(), tmp_path, "--appendonly", "yes") as server:
        factory = new_factory(server.url(), "x")
        recorder = factory.process_recorder()
        recorder.insert_events(stored(AGGREGATES[0], 1))
        make_faulty(recorder.store, deadline_s=0.2)
        server.kill()
        for call in (
            lambda: recorder.insert_events(stored(AGGREGATES[0], 2)),
            lambda: recorder.select_events(AGGREGATES[0]),
            recorder.max_notification_id,
            lambda: recorder.insert_tracking(Tracking("up", 1)),
        ):
            with pytest.raises(OperationalError):
                call()
        server.restart()
        assert recorder.select_events(AGGREGATES[0]) == stored(AGGREGATES[0], 1)
        factory.close()


def test_a_subscription_is_stopped_from_another_thread_while_it_waits(recorder: RedisProcessRecorder) -> None:
    recorder.insert_events(stored(AGGREGATES[0], 1))
    found: list[int] = []
    has_first = threading.Event()

    def follow() -> None:
        for note in subscription:
            found.append(note.id)
            has_first.set()

    with recorder.subscribe() as subscription:
        thread = threading.Thread(target=follow)
        thread.start()
        assert has_first.wait(20)
        subscription.stop()
        thread.join(20)
        assert not thread.is_alive()
    assert found == [1]


def test_snapshots_with_gaps_come_by_version(factory: RedisFactory) -> None:
    recorder = factory.aggregate_recorder("snapshots")
    one = uuid4()
    for version in (10, 30, 20):
        recorder.insert_events(stored(one, version))
    with pytest.raises(IntegrityError):
        recorder.insert_events([*stored(one, 40), *stored(one, 20)])
    versions = {
        "all": recorder.select_events(one),
        "last": recorder.select_events(one, desc=True, limit=1),
        "up to 29": recorder.select_events(one, lte=29, desc=True, limit=1),
        "up to 10": recorder.select_events(one, lte=10, desc=True, limit=1),
        "above 10": recorder.select_events(one, gt=10, limit=1),
        "none": recorder.select_events(one, lte=9, desc=True, limit=1),
    }
    assert {name: [event.originator_version for event in found] for name, found in versions.items()} == {
        "all": [10, 20, 30],
        "last": [30],
        "up to 29": [20],
        "up to 10": [10],
        "above 10": [20],
        "none": [],
    }
    assert list(factory.store.list()) == []


def test_the_events_are_readable_without_the_library(recorder: RedisProcessRecorder, valkey: RunningServer) -> None:
    recorder.insert_events(stored(AGGREGATES[0], 1, topic="shop:Order.Placed"))
    namespace = recorder.store.context.keys.namespace
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=None, unknown_events="wrap") as store:
        (event,) = store.stream(str(AGGREGATES[0]))
        assert (event.name, event.fields) == ("shop:Order.Placed", {"state": b"1"})
