"""The DCB recorder and its factory, by the test cases of `eventsourcing` itself."""

from collections.abc import Iterator

import pytest

pytest.importorskip("eventsourcing")

from eventsourcing.dcb.api import DCBAppendCondition, DCBEvent, DCBQuery, DCBQueryItem
from eventsourcing.dcb.persistence import DCBInfrastructureFactory
from eventsourcing.dcb.tests import DCBRecorderTestCase
from eventsourcing.persistence import DataError, IntegrityError, ProgrammingError, Tracking
from eventsourcing.utils import Environment

from runic_redis.eventsourcing.dcb import RedisDCBFactory, RedisDCBRecorder
from tests.servers import RunningServer


@pytest.fixture(params=["memory", "valkey"])
def factory(request: pytest.FixtureRequest, namespace: str) -> Iterator[RedisDCBFactory]:
    url = f"memory://{namespace}"
    if request.param == "valkey":
        server: RunningServer = request.getfixturevalue("valkey")
        url = server.url()
    env = {"PERSISTENCE_MODULE": "runic_redis.eventsourcing.dcb", "RUNIC_REDIS_URL": url}
    with DCBInfrastructureFactory.construct(Environment(namespace, env)) as factory:
        assert isinstance(factory, RedisDCBFactory)
        yield factory


@pytest.fixture
def recorder(factory: RedisDCBFactory) -> RedisDCBRecorder:
    return factory.dcb_recorder()


def test_append_and_read(recorder: RedisDCBRecorder) -> None:
    DCBRecorderTestCase()._test_append_read(recorder)


def test_append_and_read_behind_other_events(recorder: RedisDCBRecorder) -> None:
    recorder.append([DCBEvent("other", b"1", ["other"]), DCBEvent("other", b"2", [])])
    DCBRecorderTestCase()._test_append_read(recorder, initial_position=2)


def test_append_and_subscribe(recorder: RedisDCBRecorder) -> None:
    DCBRecorderTestCase()._test_append_subscribe(recorder)


def test_append_and_subscribe_behind_other_events(recorder: RedisDCBRecorder) -> None:
    recorder.append([DCBEvent("other", b"1", ["other"]), DCBEvent("other", b"2", [])])
    DCBRecorderTestCase()._test_append_subscribe(recorder, initial_position=2)


def types_of(recorder: RedisDCBRecorder, *items: tuple[list[str], list[str]]) -> list[str]:
    """Return the types of the events that a query finds."""
    query = DCBQuery([DCBQueryItem(types=types, tags=tags) for types, tags in items])
    return [one.event.type for one in recorder.read(query)]


LONG = "a topic of many characters, " * 10


def test_types_and_tags_of_any_text_are_told_apart(recorder: RedisDCBRecorder) -> None:
    names = ["a", "ta", "ya", "a\0", "\0", "ä" * 65, LONG, LONG + "!", "x" * 129, "x" * 130]
    for name in names:
        recorder.append([DCBEvent(name, b"", [name, "all"]), DCBEvent("other", b"", [])])
    for name in names:
        assert types_of(recorder, ([name], [])) == types_of(recorder, ([], [name])) == [name]
        assert types_of(recorder, ([name, "other"], [name, "all"])) == [name]
        with pytest.raises(IntegrityError):
            recorder.append([DCBEvent("new", b"")], DCBAppendCondition(DCBQuery([DCBQueryItem([name], ["all"])])))
    found = [one.event for one in recorder.read() if one.event.type != "other"]
    assert [(one.type, one.tags) for one in found] == [(name, [name, "all"]) for name in names]


def test_a_large_append_is_read_as_it_was(recorder: RedisDCBRecorder) -> None:
    events = [DCBEvent(f"type {n % 7}", bytes([n]) * 50_000, [f"n:{n}"]) for n in range(60)]
    assert recorder.append(events) == 60
    assert [one.event for one in recorder.read()] == events
    ((event, position),) = [(one.event, one.position) for one in recorder.read(DCBQuery([DCBQueryItem([], ["n:7"])]))]
    assert (event, position) == (events[7], 8)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (DCBEvent("type", "text"), DataError),  # type: ignore[arg-type]
        (DCBEvent("", b""), DataError),
        (DCBEvent("type", b"", "tag"), DataError),  # type: ignore[arg-type]
        (DCBEvent("type", b"", [1]), DataError),  # type: ignore[list-item]
        (DCBEvent("type", b"", ["tag"] + [str(n) for n in range(1000)]), ProgrammingError),
    ],
)
def test_a_bad_event_is_rejected_and_stores_nothing(
    recorder: RedisDCBRecorder, event: DCBEvent, error: type[Exception]
) -> None:
    with pytest.raises(error):
        recorder.append([DCBEvent("good", b""), event])
    with pytest.raises(ProgrammingError):
        recorder.append([])
    assert list(recorder.read()) == []
    assert recorder.read().head is None


def test_a_subscription_gets_the_events_that_match(recorder: RedisDCBRecorder) -> None:
    query = DCBQuery([DCBQueryItem(["a", "b"], ["x"])])
    recorder.append([DCBEvent("a", b"1", ["x"]), DCBEvent("a", b"2", ["y"]), DCBEvent("c", b"3", ["x"])])
    with recorder.subscribe(query) as subscription:
        recorder.append([DCBEvent("c", b"4", ["x"])])
        recorder.append([DCBEvent("b", b"5", ["y", "x"])])
        assert [next(subscription).event.data for _ in range(2)] == [b"1", b"5"]
        subscription.stop()
        assert list(subscription) == []


def test_the_factory_keeps_tracking_records_beside_the_events(factory: RedisDCBFactory) -> None:
    tracking = factory.tracking_recorder()
    tracking.insert_tracking(Tracking("upstream", 21))
    assert tracking.max_tracking_id("upstream") == 21
    assert factory.dcb_recorder().append([DCBEvent("a", b"")]) == 1
    with pytest.raises(IntegrityError):
        tracking.insert_tracking(Tracking("upstream", 21))
