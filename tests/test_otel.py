"""Spans, metrics, and the trace that goes from writers to readers. A store without instrumentation has none of it."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from runic_redis import (
    AsyncRedisStore,
    CursorConflict,
    DecodeError,
    EncodeError,
    Fact,
    InvalidArgument,
    RedisStore,
    StoreError,
    WorkflowNotFound,
    async_work,
    projection,
    replicated,
    work,
)
from runic_redis.otel import context_of, instrument
from tests.portal import BlockingStore
from tests.proxy import Fault, proxied
from tests.servers import RunningServer

SECRET = "s3cret-text"


class Telemetry:
    """Keeps all spans and metrics in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(span_limits=SpanLimits(max_links=1000))
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.tracers.get_tracer("the application")
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider(metric_readers=[self._reader])

    def instrument(self, store: Any) -> None:
        instrument(
            store._store if isinstance(store, BlockingStore) else store,
            tracer_provider=self.tracers,
            meter_provider=self._meters,
        )

    def spans(self) -> list[ReadableSpan]:
        """Return the store's spans that have ended since the last call."""
        found = self._exporter.get_finished_spans()
        self._exporter.clear()
        return [
            span for span in found if span.instrumentation_scope and span.instrumentation_scope.name == "runic_redis"
        ]

    def points(self, name: str) -> list[Any]:
        """Return the data points of a metric."""
        data = self._reader.get_metrics_data()
        if data is None:
            return []
        metrics = [one for of in data.resource_metrics for scope in of.scope_metrics for one in scope.metrics]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture(
    params=[RedisStore.from_url, lambda url, **options: BlockingStore(AsyncRedisStore.from_url(url, **options))],
    ids=["sync", "asyncio"],
)
def store(request: pytest.FixtureRequest, valkey: RunningServer, namespace: str, telemetry: Telemetry) -> Iterator[Any]:
    with request.param(valkey.url(), namespace=namespace, partitions=4) as store:
        telemetry.instrument(store)
        yield store


def context_id(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def test_what_is_sent_links_to_what_is_received(store: Any, telemetry: Telemetry, namespace: str) -> None:
    store.append("w", [{"n": 1}, {"n": 2}], metadata={"user": "zo\u00eb"})
    store.append_many([("w", [{"n": 3}]), ("v", [{"n": 4}])])
    one, many = telemetry.spans()
    assert (one.name, one.kind, one.status.status_code) == (f"append {namespace}", SpanKind.PRODUCER, StatusCode.UNSET)
    assert dict(one.attributes or {}) == {
        "messaging.system": "redis",
        "messaging.operation.name": "append",
        "messaging.operation.type": "send",
        "messaging.destination.name": namespace,
        "messaging.batch.message_count": 2,
        "runic_redis.workflow_id": "w",
        **_address(store),
    }
    assert many.attributes and many.attributes["messaging.batch.message_count"] == 2  # noqa: PT018
    assert "runic_redis.workflow_id" not in many.attributes

    assert [event["n"] for event in store.stream("w")] == [1, 2, 3]
    *opened, read = [span for span in telemetry.spans() if span.name == f"stream {namespace}"][:2]
    assert read.kind == SpanKind.CONSUMER
    assert read.attributes and read.attributes["messaging.operation.type"] == "receive"  # noqa: PT018
    assert read.attributes["messaging.batch.message_count"] == 3
    assert links(read) == [context_id(one), context_id(many)]
    assert opened[0].start_time and read.start_time and opened[0].start_time <= read.start_time  # noqa: PT018

    records = list(store.stream_records("w"))
    assert records[0].metadata["user"] == "zo\u00eb"
    assert set(records[0].metadata) == {"user", "traceparent"}
    written = trace.get_current_span(context_of(records[2])).get_span_context()
    assert (written.trace_id, written.span_id) == context_id(many)
    assert written.is_remote

    tail = store.tail("w", after=1)
    next(tail)
    followed = [span for span in telemetry.spans() if span.name == f"tail {namespace}"]
    assert links(followed[-1]) == [context_id(one), context_id(many)]
    tail.close()


def test_a_tail_that_waits_in_vain_has_no_span(store: Any, telemetry: Telemetry, namespace: str) -> None:
    store.append("w", [{"n": 1}])
    with store.tail("w", wait_s=0) as tail:
        assert [len(list(tail)), len(list(tail))] == [1, 0]
    assert [span.name for span in telemetry.spans()].count(f"tail {namespace}") == 1


async def _cancelled_tail(store: AsyncRedisStore) -> None:
    async with store.tail("w", after=1) as tail:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(tail), 0.05)
        await store.append("w", [{"n": 2}])
        assert (await anext(tail)).cursor == 2
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(tail), 0.05)


def test_a_tail_that_is_cancelled_and_left_has_not_failed(
    valkey: RunningServer, namespace: str, telemetry: Telemetry
) -> None:
    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace) as store:
            telemetry.instrument(store)
            await store.append("w", [{"n": 1}])
            await _cancelled_tail(store)

    asyncio.run(main())
    tails = [span for span in telemetry.spans() if span.name == f"tail {namespace}"]
    assert [span.status.status_code for span in tails] == [StatusCode.UNSET], (
        "expected one span, of the step that got an event, without an error"
    )


def test_an_application_is_the_parent_and_may_have_keys_of_its_own(store: Any, telemetry: Telemetry) -> None:
    with telemetry.tracer.start_as_current_span("a request") as request:
        if isinstance(store, RedisStore):
            store.append("w", [{"n": 1}])
            (span,) = telemetry.spans()
            assert span.parent and span.parent.span_id == request.get_span_context().span_id  # noqa: PT018
    theirs = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
    store.append("given", [{"n": 1}], metadata={"traceparent": theirs})
    (record,) = store.stream_records("given")
    assert record.metadata == {"traceparent": theirs}
    assert f"{trace.get_current_span(context_of(record)).get_span_context().span_id:x}" == "123456789abcdef"
    # Metadata up to the limit is stored unchanged, with a trace only if it fits.
    for room, has in ((200, True), (20, False)):
        metadata = {"x": "x" * (64 * 1024 - room)}
        store.append("full", [{"n": 1}], metadata=metadata)
        *_, record = store.stream_records("full")
        assert ("traceparent" in record.metadata) == has
        assert record.metadata["x"] == metadata["x"]
    with pytest.raises(InvalidArgument):
        store.append("full", [{"n": 1}], metadata={"x": "x" * 64 * 1024})
    store.append("full", [], metadata=None)
    assert telemetry.spans()[-1].attributes["messaging.batch.message_count"] == 0  # type: ignore[index]


def test_all_else_are_calls_of_a_database(store: Any, telemetry: Telemetry, namespace: str) -> None:
    store.append("w", [{"n": 1}])
    telemetry.spans()
    ref = store.put_fact({"n": 1})
    calls: dict[str, Callable[[], Any]] = {
        "save_snapshot": lambda: store.save_snapshot("w", 1, b"x"),
        "load_snapshot": lambda: store.load_snapshot("w"),
        "put_fact": lambda: store.put_fact({"n": 2}),
        "load_fact": lambda: store.load_fact(ref),
        "acquire": lambda: store.acquire("w", "me"),
        "trim": lambda: store.trim("v"),
        "list": lambda: list(store.list()),
        "exists": lambda: store.exists("w"),
        "cursor": lambda: store.cursor("w"),
        "save": lambda: store.save("log", []),
        "delete": lambda: store.delete("log"),
    }
    store.append("v", [{"n": 1}])
    store.save_snapshot("v", 1, b"x")
    telemetry.spans()
    for name, call in calls.items():
        call()
        span = telemetry.spans()[0]
        assert (span.name, span.kind) == (f"{name} {namespace}", SpanKind.CLIENT)
        attributes = dict(span.attributes or {})
        attributes.pop("runic_redis.workflow_id", None)
        assert attributes == {
            "db.system.name": "redis",
            "db.operation.name": name,
            "db.collection.name": namespace,
            **_address(store),
        }
        points = telemetry.points("db.client.operation.duration")
        assert sum(point.count for point in points if point.attributes["db.operation.name"] == name) >= 1


def test_a_run_of_a_handler_is_the_parent_of_all_that_it_does(store: Any, telemetry: Telemetry, namespace: str) -> None:
    store.append("w", [{"n": 1}], queue="orders")
    telemetry.spans()
    outcomes = iter(["failed", "asleep", "completed"])

    def begin() -> str:
        outcome = next(outcomes)
        if outcome == "failed":
            raise ValueError(SECRET)
        return outcome

    def handle(session: Any) -> None:
        if begin() == "asleep":
            session.sleep(0)
        session.record({"n": 2})

    async def handle_later(session: Any) -> None:
        if begin() == "asleep":
            await session.sleep(0)
        await session.record({"n": 2})

    options: Any = {"queues": ["orders"], "until_idle": True, "first_delay": 0}
    if isinstance(store, BlockingStore):
        store._wait(async_work(store._store, handle_later, **options))
    else:
        work(store, handle, **options)
    spans = telemetry.spans()
    runs = [span for span in spans if span.name == f"run {namespace}"]
    assert [span.kind for span in runs] == [SpanKind.CONSUMER] * 3
    assert [span.status.status_code for span in runs] == [StatusCode.ERROR, StatusCode.UNSET, StatusCode.UNSET]
    assert [(span.attributes or {})["runic_redis.outcome"] for span in runs] == ["failed", "asleep", "completed"]
    assert dict(runs[0].attributes or {}) == {
        "messaging.system": "redis",
        "messaging.operation.name": "run",
        "messaging.operation.type": "process",
        "messaging.destination.name": namespace,
        "runic_redis.workflow_id": "w",
        "runic_redis.queue": "orders",
        "runic_redis.attempt": 1,
        "runic_redis.outcome": "failed",
        "error.type": "ValueError",
        **_address(store),
    }
    (appended,) = [span for span in spans if span.name == f"append {namespace}"]
    assert appended.parent is not None
    assert (appended.parent.trace_id, appended.parent.span_id) == context_id(runs[2])
    assert SECRET not in str([span.to_json() for span in spans])
    assert len(telemetry.points("messaging.process.duration")) == 3


def test_failures_are_named_and_nothing_is_told_of_contents(store: Any, telemetry: Telemetry) -> None:
    store.append("w", [{SECRET: SECRET, "fact": Fact(SECRET)}], metadata={SECRET: SECRET})
    with pytest.raises(CursorConflict):
        store.append("w", [{SECRET: SECRET}], expected_cursor=0)
    with pytest.raises(WorkflowNotFound):
        list(store.stream("nobody"))
    with pytest.raises(StoreError):
        store.load_fact(SECRET)
    problems = store.append_many([("w", [{"n": 1}]), ("w", [object()])])
    assert isinstance(problems[1], EncodeError)
    spans = telemetry.spans()
    assert [(span.status.status_code, (span.attributes or {}).get("error.type")) for span in spans] == [
        (StatusCode.UNSET, None),
        (StatusCode.ERROR, "CursorConflict"),
        (StatusCode.ERROR, "WorkflowNotFound"),
        (StatusCode.ERROR, "FactNotFound"),
        (StatusCode.ERROR, "EncodeError"),
    ]
    store.put_fact(SECRET)
    store.save_snapshot("w", 1, SECRET.encode())
    list(store.stream_records("w"))
    assert SECRET not in "".join(span.to_json() for span in [*spans, *telemetry.spans()])
    sent = telemetry.points("messaging.client.sent.messages")
    assert {point.attributes.get("error.type"): point.value for point in sent} == {
        None: 1,
        "CursorConflict": 1,
        "EncodeError": 1,
    }


def test_metrics_have_few_attributes_and_the_buckets_that_are_advised(store: Any, telemetry: Telemetry) -> None:
    for n in range(30):
        store.append(f"w-{n}", [{"n": n}] * 2)
        list(store.stream(f"w-{n}"))
    (sent,) = telemetry.points("messaging.client.sent.messages")
    (consumed,) = telemetry.points("messaging.client.consumed.messages")
    assert (sent.value, consumed.value) == (60, 60)
    took = telemetry.points("messaging.client.operation.duration")
    assert {point.attributes["messaging.operation.name"] for point in took} == {"append", "stream"}
    assert all("runic_redis.workflow_id" not in point.attributes for point in took)
    assert took[0].explicit_bounds[0] == 0.005
    store.cursor("w-1")
    (asked,) = telemetry.points("db.client.operation.duration")
    assert asked.explicit_bounds[0] == 0.001
    assert 0 < asked.sum < 60


def test_each_of_many_at_once_has_its_own_span(valkey: RunningServer, namespace: str, telemetry: Telemetry) -> None:
    def parents() -> dict[str, str]:
        return {
            (span.attributes or {})["runic_redis.workflow_id"]: f"{span.parent.span_id:x}"  # type: ignore[misc]
            for span in telemetry.spans()
            if span.parent
        }

    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        telemetry.instrument(store)

        def work(n: int) -> tuple[str, str]:
            with telemetry.tracer.start_as_current_span("job") as job:
                store.append(f"w-{n}", [{"n": n}])
                return f"w-{n}", f"{job.get_span_context().span_id:x}"

        with ThreadPoolExecutor(32) as pool:
            assert dict(pool.map(work, range(200))) == parents()
        _each_is_its_writers(store)

    async def main() -> None:
        async with AsyncRedisStore.from_url(valkey.url(), namespace=namespace) as store:
            telemetry.instrument(store)

            async def work(n: int) -> tuple[str, str]:
                with telemetry.tracer.start_as_current_span("job") as job:
                    await store.append(f"a-{n}", [{"n": n}])
                    return f"a-{n}", f"{job.get_span_context().span_id:x}"

            assert dict(await asyncio.gather(*map(work, range(200)))) == parents()

    asyncio.run(main())


def _each_is_its_writers(store: RedisStore) -> None:
    found = set()
    for workflow_id in store.list():
        (record,) = store.stream_records(workflow_id)
        found.add(record.metadata["traceparent"] if record.metadata else None)
    assert len(found) == 200


def test_a_retry_is_the_same_commit_in_the_same_span(
    valkey: RunningServer, namespace: str, telemetry: Telemetry
) -> None:
    with proxied(valkey) as proxy, RedisStore.from_url(f"redis://127.0.0.1:{proxy.port}", namespace=namespace) as store:
        store.append("w", [{"n": 0}])
        telemetry.instrument(store)
        proxy.arm(Fault("reply", 0))
        assert store.append("w", [{"n": 1}]) == 2
        assert proxy.done == 1
        (span,) = telemetry.spans()
        assert span.status.status_code == StatusCode.UNSET
        *_, record = store.stream_records("w")
        written = trace.get_current_span(context_of(record)).get_span_context()
        assert (written.trace_id, written.span_id) == context_id(span)


def test_where_a_durability_is_asked_for_it_is_the_same(
    valkey: RunningServer, namespace: str, telemetry: Telemetry
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, deadline_s=0) as store:
        telemetry.instrument(store)
        with pytest.raises(StoreError):
            store.append("w", [{"n": 1}], durability=replicated(1))
    (span,) = telemetry.spans()
    assert span.name == f"append {namespace}"
    assert (span.attributes or {})["runic_redis.workflow_id"] == "w"


def test_of_very_many_writers_some_are_linked(valkey: RunningServer, namespace: str, telemetry: Telemetry) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        telemetry.instrument(store)
        store.append_many([("w", [{"n": n}]) for n in range(300)])
        for n in range(400):  # more than one step of a read decodes
            store.append("w", [{"n": n}])
        telemetry.spans()
        assert len(list(store.stream("w"))) == 700
        read = max(telemetry.spans(), key=lambda span: len(span.links))
        assert len(read.links) == len(set(links(read))) == 128


def test_a_store_is_instrumented_once_at_any_time(valkey: RunningServer, namespace: str, telemetry: Telemetry) -> None:
    store = AsyncRedisStore.from_url(valkey.url(), namespace=namespace)
    telemetry.instrument(store)
    with pytest.raises(InvalidArgument, match="instrumented already"):
        telemetry.instrument(store)
    with BlockingStore(store) as blocking:
        blocking.append("w", [{"n": 1}])
    assert len(telemetry.spans()) == 1


def test_without_an_sdk_nothing_is_added(valkey: RunningServer, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        instrument(store)
        store.append("w", [{"n": 1}])
        (record,) = store.stream_records("w")
        assert record.metadata is None
        assert context_of(record) == {}


def test_whatever_metadata_hold_they_are_read(valkey: RunningServer, namespace: str, telemetry: Telemetry) -> None:
    with (
        RedisStore.from_url(valkey.url(), namespace=namespace) as writer,
        RedisStore.from_url(valkey.url(), namespace=namespace) as reader,
    ):
        telemetry.instrument(reader)

        @settings(max_examples=60)
        @given(
            metadata=st.dictionaries(
                st.sampled_from(["traceparent", "tracestate", "x"]), st.text() | st.integers() | st.none()
            )
        )
        def read(metadata: dict[str, Any]) -> None:
            writer.delete("w")
            writer.append("w", [{"n": 1}], metadata=metadata)
            assert list(reader.stream("w")) == [{"n": 1}]
            (record,) = reader.stream_records("w")
            assert record.metadata == metadata
            context_of(record)

        read()


def test_damaged_metadata_fail_only_who_asks_for_them(
    valkey: RunningServer, namespace: str, telemetry: Telemetry
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store, valkey.client() as client:
        telemetry.instrument(store)
        store.append("w", [{"n": 1}])
        key = store.context.keys.workflow("w").events
        ((entry_id, fields),) = client.xrange(key)
        client.delete(key)
        client.xadd(key, {**fields, b"m": b"\xc1damage"}, id=entry_id)
        assert list(store.stream("w")) == [{"n": 1}]
        with pytest.raises(DecodeError):
            list(store.stream_records("w"))


def test_what_is_not_used_is_not_imported(valkey: RunningServer, namespace: str) -> None:
    program = (
        # (redis-py imports an installed SDK for its own metrics.)
        "import json, sys, redis.asyncio\n"
        "before = set(sys.modules)\n"
        "from runic_redis import RedisStore\n"
        f"with RedisStore.from_url({valkey.url()!r}, namespace={namespace!r}) as store:\n"
        "    store.append('w', [{'n': 1}])\n"
        "    list(store.stream('w'))\n"
        "print(json.dumps([*set(sys.modules) - before]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = json.loads(done.stdout)
    assert "runic_redis.store" in imported
    extras = (
        "opentelemetry",
        "runic_redis.otel",
        "runic_redis.ui",
        "starlette",
        "uvicorn",
        "prometheus_client",
        "rich",
    )
    assert [name for name in imported if name.startswith(extras)] == []
    hidden = "import sys; sys.modules['opentelemetry'] = None; import runic_redis.otel"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)
    assert "pip install 'runic-redis[otel]'" in done.stderr


def _address(store: Any) -> dict[str, Any]:
    label = (store._store if isinstance(store, BlockingStore) else store)._connected.label
    return {"server.address": label.removeprefix("unix://")}


@pytest.mark.parametrize(
    "open_store",
    [RedisStore.from_url, lambda url, **options: BlockingStore(AsyncRedisStore.from_url(url, **options))],
    ids=["sync", "asyncio"],
)
def test_a_feed_is_received_by_pages(
    open_store: Callable[..., Any], valkey: RunningServer, namespace: str, telemetry: Telemetry
) -> None:
    with open_store(valkey.url(), namespace=namespace, partitions=4, feed=True) as store:
        telemetry.instrument(store)
        store.append("v", [{"n": 1}, {"n": 2}])
        store.append("w", [{"n": 3}])
        store.delete("v")
        telemetry.spans()
        with store.feed(wait_s=0) as feed:
            commits = list(feed)
            assert [span.name for span in telemetry.spans()] == [f"feed {namespace}"]
            # A page that brought nothing makes no span, and has no lag.
            assert list(feed) == []
            assert telemetry.spans() == []
            store.append("w", [{"n": 4}] * 5)
            (three,) = telemetry.spans()
            (last,) = feed
        (read,) = telemetry.spans()
    assert sorted(commit.workflow_id for commit in commits) == ["v", "w"], "the events of a deleted workflow are gone"
    assert (read.kind, links(read)) == (SpanKind.CONSUMER, [context_id(three)])
    assert read.attributes is not None
    assert read.attributes["messaging.operation.name"] == "feed"
    assert read.attributes["messaging.batch.message_count"] == 5, "the events, not the commits"
    assert trace.get_current_span(context_of(last)).get_span_context().span_id == context_id(three)[1]
    consumed = telemetry.points("messaging.client.consumed.messages")
    assert sum(point.value for point in consumed if point.attributes["messaging.operation.name"] == "feed") == 6
    (lag,) = telemetry.points("runic_redis.feed.lag")
    assert (lag.count, lag.attributes["messaging.destination.name"]) == (2, namespace)
    assert 0 <= lag.min <= lag.max < 60


@pytest.mark.parametrize(
    "open_store",
    [RedisStore.from_url, lambda url, **options: BlockingStore(AsyncRedisStore.from_url(url, **options))],
    ids=["sync", "asyncio"],
)
def test_a_subscription_receives_and_acknowledges(
    open_store: Callable[..., Any], valkey: RunningServer, namespace: str, telemetry: Telemetry
) -> None:
    with open_store(valkey.url(), namespace=namespace, partitions=1, feed=True) as store:
        telemetry.instrument(store)
        store.append("w", [{"n": 1}, {"n": 2}])
        (sent,) = telemetry.spans()
        with store.subscribe("mailer", wait_s=0) as mailer:
            (commit,) = mailer
            (read,) = [span for span in telemetry.spans() if span.kind == SpanKind.CONSUMER]
            assert (read.name, links(read)) == (f"subscribe {namespace}", [context_id(sent)])
            assert read.attributes and read.attributes["messaging.batch.message_count"] == 2  # noqa: PT018
            mailer.ack(commit)
            assert [span.name for span in telemetry.spans()] == [f"ack {namespace}"]
            assert list(mailer) == []
            assert telemetry.spans() == [], "a page that brought nothing"
            # A commit that is delivered again is received again.
            store.append("w", [{"n": 3}])
            mailer.park(next(mailer), "declined")
            store.replay_parked("mailer", "w")
            telemetry.spans()
            (commit,) = mailer
            (read,) = [span for span in telemetry.spans() if span.kind == SpanKind.CONSUMER]
            assert (read.attributes or {})["messaging.batch.message_count"] == 1
            store.append("w", [{"n": 4}] * 7)
            assert telemetry.points("runic_redis.subscription.parked") == [], "nothing asks by itself"
            (status,) = store.subscriptions()
            for name, value in (("lag.events", 7), ("lag", status.lag_s), ("consumers", 1), ("parked", 1)):
                (point,) = telemetry.points(f"runic_redis.subscription.{name}")
                assert (point.value, point.attributes["messaging.consumer.group.name"]) == (value, "mailer"), name
                assert point.attributes["messaging.destination.name"] == namespace
    (lag,) = telemetry.points("runic_redis.feed.lag")
    assert lag.attributes["messaging.operation.name"] == "subscribe"
    assert lag.count == 3


def test_a_projection_receives_pages_of_the_feed(valkey: RunningServer, namespace: str, telemetry: Telemetry) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1, feed=True) as store:
        store.append("v", [{"n": 1}])
        telemetry.instrument(store)
        store.append("w", [{"n": 2}] * 3)
        with projection(store, "count", lambda state, commit: state + len(commit.events), 0) as counted:
            (sent,) = [span for span in telemetry.spans() if span.kind == SpanKind.PRODUCER]
            counted.catch_up()
            assert counted.state == 4
            (read,) = [span for span in telemetry.spans() if span.kind == SpanKind.CONSUMER]
            assert (read.name, links(read)) == (f"feed {namespace}", [context_id(sent)])
            assert (read.attributes or {})["messaging.batch.message_count"] == 4
        store.subscriptions()
    (behind,) = telemetry.points("runic_redis.subscription.lag.events")
    assert (behind.value, behind.attributes["messaging.consumer.group.name"]) == (0, "count")


def test_the_lag_of_a_feed_is_the_age_of_the_last_commit(
    valkey: RunningServer, namespace: str, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1, feed=True) as store:
        telemetry.instrument(store)
        store.append("w", [{"n": 1}])
        store.append("w", [{"n": 2}])
        commits = list(store.feed())
        ahead_s = commits[-1].time.timestamp() + 3000
        monkeypatch.setattr("runic_redis.otel.time.time", lambda: ahead_s)
        list(store.feed())
        # A clock that is behind the server's makes no lag below zero.
        monkeypatch.setattr("runic_redis.otel.time.time", lambda: ahead_s - 9000)
        list(store.feed())
    (lag,) = telemetry.points("runic_redis.feed.lag")
    assert (lag.count, lag.max, lag.min) == (3, 3000, 0)
