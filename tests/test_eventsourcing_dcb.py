"""The DCB recorder and its factory, by the test cases of `eventsourcing` itself."""

from collections.abc import Iterator

import pytest

pytest.importorskip("eventsourcing")

from eventsourcing.dcb.api import DCBEvent
from eventsourcing.dcb.persistence import DCBInfrastructureFactory
from eventsourcing.dcb.tests import DCBRecorderTestCase
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
