"""The published test cases of the library `eventsourcing`, on its persistence module here and a real server."""

from collections.abc import Iterator
from typing import ClassVar

import pytest
from eventsourcing.persistence import Tracking as TrackingRecord
from eventsourcing.tests import application, persistence, projection
from eventsourcing.utils import Environment, get_topic

from runic_redis import Append, Tracking
from runic_redis.eventsourcing import (
    RedisAggregateRecorder,
    RedisApplicationRecorder,
    RedisFactory,
    RedisProcessRecorder,
    RedisSnapshotRecorder,
    RedisTrackingRecorder,
)
from runic_redis.eventsourcing.mapping import persistence_errors
from tests.servers import RunningServer


class OnServer:
    """A test case whose environment names a server, and a namespace of the test alone."""

    @pytest.fixture(autouse=True)
    def environment(self, valkey: RunningServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.variables = {
            "PERSISTENCE_MODULE": "runic_redis.eventsourcing",
            "RUNIC_REDIS_URL": valkey.url(),
            "RUNIC_REDIS_NAMESPACE": namespace,
        }
        for name, value in self.variables.items():
            monkeypatch.setenv(name, value)
        self.factories: list[RedisFactory] = []
        yield
        for factory in self.factories:
            factory.close()

    def make_factory(self, name: str = "") -> RedisFactory:
        factory = RedisFactory(Environment(name, self.variables))
        self.factories.append(factory)
        return factory


class TestAggregateRecorder(OnServer, persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> RedisAggregateRecorder:
        recorder = self.make_factory().aggregate_recorder()
        assert isinstance(recorder, RedisAggregateRecorder)
        return recorder


class TestSnapshotRecorder(OnServer, persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> RedisSnapshotRecorder:
        recorder = self.make_factory().aggregate_recorder("snapshots")
        assert isinstance(recorder, RedisSnapshotRecorder)
        return recorder


class TestAggregateRecorderFromZero(TestAggregateRecorder):
    INITIAL_VERSION = 0


class TestApplicationRecorder(OnServer, persistence.ApplicationRecorderTestCase[RedisApplicationRecorder]):
    def create_recorder(self) -> RedisApplicationRecorder:
        return self.make_factory().application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestApplicationRecorderFromZero(TestApplicationRecorder):
    INITIAL_VERSION = 0


class TestTrackingRecorder(OnServer, persistence.TrackingRecorderTestCase):
    def create_recorder(self) -> RedisTrackingRecorder:
        return self.make_factory().tracking_recorder()


class TestProcessRecorder(OnServer, persistence.ProcessRecorderTestCase):
    def create_recorder(self) -> RedisProcessRecorder:
        return self.make_factory().process_recorder()


class TestNonInterleavingNotificationIDs(OnServer, persistence.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> RedisApplicationRecorder:
        return self.make_factory().application_recorder()


class CustomTrackingRecorder(RedisTrackingRecorder):
    pass


class TestFactory(OnServer, persistence.InfrastructureFactoryTestCase[RedisFactory]):
    def setUp(self) -> None:
        self.env = Environment("TestCase", self.variables)
        super().setUp()

    def expected_factory_class(self) -> type[RedisFactory]:
        return RedisFactory

    def expected_aggregate_recorder_class(self) -> type[RedisAggregateRecorder]:
        return RedisAggregateRecorder

    def expected_application_recorder_class(self) -> type[RedisApplicationRecorder]:
        return RedisApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[RedisTrackingRecorder]:
        return RedisTrackingRecorder

    def tracking_recorder_subclass(self) -> type[RedisTrackingRecorder]:
        return CustomTrackingRecorder

    def expected_process_recorder_class(self) -> type[RedisProcessRecorder]:
        return RedisProcessRecorder


class TestExampleApplication(OnServer, application.ExampleApplicationTestCase):
    expected_factory_topic = get_topic(RedisFactory)


class TestApplication(OnServer, application.ApplicationTestCase):
    pass


class RedisEventCounters(RedisTrackingRecorder, projection.EventCountersView):
    """Counts events: the count of a kind is the cursor of a workflow."""

    def get_created_event_counter(self) -> int:
        return self.store.cursor("created")

    def get_subsequent_event_counter(self) -> int:
        return self.store.cursor("subsequent")

    def incr_created_event_counter(self, tracking: TrackingRecord) -> None:
        self._count("created", tracking)

    def incr_subsequent_event_counter(self, tracking: TrackingRecord) -> None:
        self._count("subsequent", tracking)

    def _count(self, kind: str, tracking: TrackingRecord) -> None:
        record = Tracking(tracking.application_name, tracking.notification_id)
        with persistence_errors:
            self.store.append_all([Append(kind, [{"n": 1}])], tracking=record)


class TestEventCountersView(OnServer, projection.EventCountersViewTestCase):
    def construct_event_counters_view(self) -> RedisEventCounters:
        view = self.make_factory("eventcounters").tracking_recorder(RedisEventCounters)
        assert isinstance(view, RedisEventCounters)
        return view


class TestProjection(OnServer, projection.AggregateEventCountersProjectionTestCase):
    view_class = RedisEventCounters


class TestEventSourcedProjection(OnServer, projection.EventSourcedProjectionTestCase):
    env: ClassVar[dict[str, str]] = {}
