"""OpenTelemetry: spans and metrics of a store, and trace context carried from writers to readers.

Needs the extra ``otel``. A store that is not instrumented imports nothing of it, and pays one comparison an operation.

    from runic_redis.otel import instrument

    with RedisStore.from_url(url) as store:
        instrument(store)

Sources: OpenTelemetry's semantic conventions for messaging and for database spans and metrics, and W3C Trace Context.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram, Meter, MeterProvider
    from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise ImportError(f"OpenTelemetry needs an extra: pip install 'runic-redis[otel]' ({error}).") from error

from runic_redis import __version__
from runic_redis.aio import AsyncRedisStore
from runic_redis.errors import InvalidArgument, StoreError
from runic_redis.operations.commits import Commit
from runic_redis.operations.records import Record
from runic_redis.operations.subscriptions import SubscriptionStatus
from runic_redis.store import RedisStore

__all__ = ["context_of", "instrument"]

T = TypeVar("T")
_Store: TypeAlias = RedisStore | AsyncRedisStore

_PROPAGATOR = TraceContextTextMapPropagator()
_MOST_LINKS = 128
# Bucket boundaries, in seconds; those of operations are the conventions'.
_MESSAGING_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0)
_DATABASE_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
# The kinds of spans, by the public names of operations; all others are CLIENT.
_KINDS = {
    "append": SpanKind.PRODUCER,
    "append_many": SpanKind.PRODUCER,
    "append_all": SpanKind.PRODUCER,
    "send": SpanKind.PRODUCER,
    "request_cancel": SpanKind.PRODUCER,
    "inbox": SpanKind.CONSUMER,
    "stream": SpanKind.CONSUMER,
    "tail": SpanKind.CONSUMER,
    "tail_many": SpanKind.CONSUMER,
    "feed": SpanKind.CONSUMER,
    "subscribe": SpanKind.CONSUMER,
}
# A page of these that brought nothing makes no span.
_FOLLOWING = {"tail", "tail_many", "feed", "subscribe"}


def instrument(
    store: RedisStore | AsyncRedisStore,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """Have a store's operations make spans and metrics, from now on.

    Spans and metrics carry the public name of the operation, such as ``append`` or ``load_snapshot``.

    - `append`, `append_many` and `append_all` make spans of kind PRODUCER. Their context goes into the metadata of each
      commit, as ``traceparent`` and ``tracestate``, unless your metadata has keys of those names or the metadata has no
      room.
    - `stream`, `tail`, `tail_many`, `feed` and `subscribe` make spans of kind CONSUMER, one for each page. A span has
      links to the spans that wrote its events, 128 at most.
    - `work` makes a span of kind CONSUMER around each call of its handler, named ``run``, with the workflow, the queue,
      the attempt and the outcome.
    - All other operations make spans of kind CLIENT.

    Each call of `subscriptions` sets the gauges of the subscriptions and projections that it returns.

    Spans hold ids of workflows. They hold nothing of an event, a fact, a snapshot or an error's text.

    Args:
        store: the store, open or not.
        tracer_provider: makes the tracer; None for the global one.
        meter_provider: makes the meter; None for the global one.

    Raises:
        InvalidArgument: the store is instrumented already; nothing was changed.
    """
    if store.context.observer is not None:
        raise InvalidArgument("The store is instrumented already; nothing was changed.")
    store.context.observer = _Observer(store, tracer_provider, meter_provider)


def context_of(record: Record | Commit) -> Context:
    """Return the OpenTelemetry context of the writer of a commit, or of a record's commit.

    Args:
        record: from `stream_records`, `tail`, `feed` or `subscribe`.

    Returns:
        A context, to link a span to or to make a child of; empty if the writer had none.
    """
    return _context_in(record.metadata or {})


def _context_in(metadata: Mapping[str, Any]) -> Context:
    carrier = {name: metadata.get(name) for name in _PROPAGATOR.fields}
    return _PROPAGATOR.extract({name: text for name, text in carrier.items() if type(text) is str}, context=Context())


@dataclass(slots=True)
class _Observation:
    """The state of the span of one operation in progress.

    Attributes:
        sending: the context to store with commits, for an append.
        messages: how many events were sent or received.
        links: the contexts of the spans that wrote the received events, by their `traceparent`s.
        lag_s: how old the last received commit of a feed is.
        failure: the error of the operation, or of a part of it.
    """

    sending: Context | None = None
    messages: int = 0
    links: dict[str, SpanContext] = field(default_factory=dict)
    lag_s: float | None = None
    failure: BaseException | None = None


# Each thread, and each task, has its own.
_current: ContextVar[_Observation | None] = ContextVar("runic_redis_observation", default=None)


class _Observer:
    """Makes the spans and metrics of one store."""

    def __init__(
        self, store: _Store, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
    ) -> None:
        self._store = store
        self._namespace = store.context.keys.namespace
        self._tracer = trace.get_tracer("runic_redis", __version__, tracer_provider)
        meter = metrics.get_meter("runic_redis", __version__, meter_provider)
        took = "Duration of operations."
        self._messaging_s = _seconds(meter, "messaging.client.operation.duration", took, _MESSAGING_BUCKETS_S)
        self._database_s = _seconds(meter, "db.client.operation.duration", took, _DATABASE_BUCKETS_S)
        self._process_s = _seconds(meter, "messaging.process.duration", "Duration of handlers.", _LAG_BUCKETS_S)
        self._lag_s = _seconds(meter, "runic_redis.feed.lag", "Age of the last commit of a page.", _LAG_BUCKETS_S)
        self._sent = meter.create_counter("messaging.client.sent.messages", "{message}", "Events sent.")
        self._consumed = meter.create_counter("messaging.client.consumed.messages", "{message}", "Events received.")
        gauge = meter.create_gauge
        self._behind = gauge("runic_redis.subscription.lag.events", "{event}", "Positions that are not acknowledged.")
        self._behind_s = gauge("runic_redis.subscription.lag", "s", "Age of the oldest commit of these.")
        self._consumers = gauge("runic_redis.subscription.consumers", "{consumer}", "Live consumers.")
        self._parked = gauge("runic_redis.subscription.parked", "{commit}", "Commits that are put aside.")

    @contextmanager
    def observing(self, name: str, workflow_id: str) -> Iterator[Callable[[T], T]]:
        kind = _KINDS.get(name, SpanKind.CLIENT)
        common = self._common(name, kind)
        about = {**common, "runic_redis.workflow_id": workflow_id} if workflow_id else common
        start_span = partial(self._tracer.start_span, f"{name} {self._namespace}", kind=kind, attributes=about)
        seen = _Observation()
        span = None
        began_ns, began_s = time.time_ns(), time.perf_counter()
        with ExitStack() as stack:
            # A CONSUMER's span is made at the end, because its links are known only then.
            if kind != SpanKind.CONSUMER:
                span = start_span()
                stack.enter_context(trace.use_span(span, record_exception=False, set_status_on_exception=False))
            if kind == SpanKind.PRODUCER:
                seen.sending = trace.set_span_in_context(trace.get_current_span(), Context())
            stack.callback(_current.reset, _current.set(seen))
            try:
                yield partial(self._take, seen)
            except BaseException as error:
                # A caller that leaves a tail cancels it; that is no failure.
                if name not in _FOLLOWING or isinstance(error, Exception):
                    seen.failure = error
                raise
            finally:
                took_s = time.perf_counter() - began_s
                if span is None and (seen.messages or seen.failure or name not in _FOLLOWING):
                    span = start_span(links=[Link(context) for context in seen.links.values()], start_time=began_ns)
                self._end(seen, span, kind, common, took_s)

    @contextmanager
    def running(self, workflow_id: str, queue: str, attempt: int) -> Iterator[Callable[[str, Exception | None], None]]:
        common = {**self._common("run", SpanKind.CONSUMER), "messaging.operation.type": "process"}
        began_s = time.perf_counter()
        ended: dict[str, str] = {}
        with self._tracer.start_as_current_span(
            f"run {self._namespace}",
            kind=SpanKind.CONSUMER,
            attributes={
                **common,
                "runic_redis.workflow_id": workflow_id,
                "runic_redis.queue": queue,
                "runic_redis.attempt": attempt,
            },
            record_exception=False,
            set_status_on_exception=False,
        ) as span:

            def note(outcome: str, error: Exception | None) -> None:
                ended["runic_redis.outcome"] = outcome
                if error is not None and outcome != "cancelled":
                    ended["error.type"] = type(error).__qualname__
                    span.set_status(Status(StatusCode.ERROR))
                span.set_attributes(ended)

            try:
                yield note
            finally:
                self._process_s.record(time.perf_counter() - began_s, {**common, "runic_redis.queue": queue, **ended})

    def sending(self, event_count: int) -> Mapping[str, str]:
        seen = _current.get()
        carrier: dict[str, str] = {}
        if seen is not None and seen.sending is not None:
            seen.messages += event_count
            _PROPAGATOR.inject(carrier, seen.sending)
        return carrier

    def received(self, metadata: Mapping[str, Any]) -> None:
        seen = _current.get()
        parent = metadata.get("traceparent")
        if seen is None or len(seen.links) == _MOST_LINKS or type(parent) is not str or parent in seen.links:
            return
        context = trace.get_current_span(_context_in(metadata)).get_span_context()
        if context.is_valid:
            seen.links[parent] = context

    def _common(self, name: str, kind: SpanKind) -> dict[str, str | int]:
        """Return the attributes that spans and metrics share."""
        if kind == SpanKind.CLIENT:
            named = {"db.system.name": "redis", "db.operation.name": name, "db.collection.name": self._namespace}
        else:
            named = {
                "messaging.system": "redis",
                "messaging.operation.name": name,
                "messaging.operation.type": "send" if kind == SpanKind.PRODUCER else "receive",
                "messaging.destination.name": self._namespace,
            }
        return {**named, **_server(self._store)}

    def _end(
        self, seen: _Observation, span: Span | None, kind: SpanKind, common: dict[str, str | int], took_s: float
    ) -> None:
        failed = {} if seen.failure is None else {"error.type": type(seen.failure).__qualname__}
        if span is not None:
            if kind != SpanKind.CLIENT:
                span.set_attribute("messaging.batch.message_count", seen.messages)
            if failed:
                span.set_attributes(failed)
                span.set_status(Status(StatusCode.ERROR))
            span.end()
        if kind == SpanKind.CLIENT:
            self._database_s.record(took_s, {**common, **failed})
            return
        self._messaging_s.record(took_s, {**common, **failed})
        if seen.lag_s is not None:
            self._lag_s.record(seen.lag_s, common)
        if seen.messages:
            (self._sent if kind == SpanKind.PRODUCER else self._consumed).add(seen.messages, {**common, **failed})

    def _take(self, seen: _Observation, result: T) -> T:
        """Note the result of an operation, and return it."""
        if not isinstance(result, list):
            return result
        if seen.sending is not None:
            # Each commit of an append_many stands alone.
            seen.failure = next((one for one in result if isinstance(one, StoreError)), None)
        elif result and type(result[-1]) is Commit:
            seen.messages = sum(len(commit.events) for commit in result)
            seen.lag_s = max(0.0, time.time() - result[-1].time.timestamp())
        elif result and type(result[-1]) is SubscriptionStatus:
            for status in result:
                self._note_status(status)
        else:
            seen.messages = len(result)
        return result

    def _note_status(self, status: SubscriptionStatus) -> None:
        about = {
            "messaging.system": "redis",
            "messaging.destination.name": self._namespace,
            "messaging.consumer.group.name": status.name,
            **_server(self._store),
        }
        self._behind.set(status.lag_events, about)
        self._behind_s.set(status.lag_s, about)
        self._consumers.set(len(status.consumers), about)
        self._parked.set(status.parked, about)


def _server(store: _Store) -> dict[str, str | int]:
    """Return the address of the server, if there is a single one."""
    parts = urlsplit(store.url)
    if parts.scheme == "unix":
        return {"server.address": parts.path}
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
        return {}
    return {"server.address": parts.hostname, "server.port": parts.port or 6379}


def _seconds(meter: Meter, name: str, description: str, buckets_s: Sequence[float]) -> Histogram:
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=buckets_s)
