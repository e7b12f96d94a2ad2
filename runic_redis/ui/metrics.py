"""Metrics for Prometheus."""

import time
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.requests import Request
from starlette.responses import Response

from runic_redis.admin.describing import count_unfinished, count_workflows
from runic_redis.aio import AsyncRedisStore
from runic_redis.errors import StoreError
from runic_redis.operations.facts import count_facts
from runic_redis.operations.subscriptions import SubscriptionStatus
from runic_redis.ui.live import Live


class Metrics:
    """The metrics of a store, counted at each request.

    Args:
        store: the store.
        live: the watch over it.
    """

    def __init__(self, store: AsyncRedisStore, live: Live) -> None:
        self._store = store
        self._live = live

    async def scrape(self, _: Request) -> Response:
        """Answer in Prometheus' text format; without a store, `runic_redis_up` is 0 and gauges are missing."""
        numbers: dict[str, float] = {}
        subscriptions: list[SubscriptionStatus] = []
        context = self._store.context
        began_s = time.perf_counter()
        try:
            counts = await self._store.run(count_workflows(context), "count_workflows")
            numbers["question_seconds"] = time.perf_counter() - began_s
            numbers["workflows"] = sum(counts)
            numbers["workflows_unfinished"] = await self._store.run(count_unfinished(context), "count_unfinished")
            numbers["facts"] = await self._store.run(count_facts(context), "count_facts")
            if context.keys.has_feed:
                subscriptions = await self._store.subscriptions()
            numbers["up"] = 1
        except StoreError:
            numbers, subscriptions = {"up": 0}, []
        numbers["events_seen"], numbers["writes_seen"] = self._live.events, self._live.writes
        collector = _Collector(context.keys.namespace, numbers, subscriptions)
        return Response(generate_latest(collector), media_type="text/plain; version=0.0.4; charset=utf-8")


_HELP = {
    "up": "1 if the store answers, else 0.",
    "workflows": "Workflows in the namespace.",
    "workflows_unfinished": "Workflows with a lease that runs, or that ended and was not given back.",
    "facts": "Facts in the namespace.",
    "question_seconds": "Seconds that a request to every partition took.",
    "events_seen": "Events that the page has seen appended since it started.",
    "writes_seen": "Writes that the page has seen since it started; several to a workflow within 0.25 s count as one.",
}


_SUBSCRIPTION_HELP = {
    "lag_events": "Positions of the feed after those that the subscription or projection has acknowledged.",
    "lag_seconds": "Age of the oldest commit that it has not acknowledged; 0 if there is none.",
    "consumers": "Its live consumers.",
    "parked": "Commits that it has put aside.",
}


class _Collector:
    def __init__(
        self, namespace: str, numbers: Mapping[str, float], subscriptions: Sequence[SubscriptionStatus]
    ) -> None:
        self._namespace = namespace
        self._numbers = numbers
        self._subscriptions = subscriptions

    def collect(self) -> Iterator[Metric]:
        for name, help_ in _HELP.items():
            if name in self._numbers:
                family = CounterMetricFamily if name.endswith("_seen") else GaugeMetricFamily
                metric = family(f"runic_redis_{name}", help_, labels=["namespace"])
                metric.add_metric([self._namespace], self._numbers[name])
                yield metric
        if not self._subscriptions:
            return
        values = [
            {
                "lag_events": one.lag_events,
                "lag_seconds": one.lag_s,
                "consumers": len(one.consumers),
                "parked": one.parked,
            }
            for one in self._subscriptions
        ]
        for name, help_ in _SUBSCRIPTION_HELP.items():
            metric = GaugeMetricFamily(f"runic_redis_subscription_{name}", help_, labels=["namespace", "subscription"])
            for one, numbers in zip(self._subscriptions, values, strict=True):
                metric.add_metric([self._namespace, one.name], numbers[name])
            yield metric
