"""Metrics for Prometheus."""

import time
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.requests import Request
from starlette.responses import Response

from runic_redis.admin.describing import count_workflows
from runic_redis.aio import AsyncRedisStore
from runic_redis.errors import StoreError
from runic_redis.operations.counting import QueueCounts, count_queues, count_states
from runic_redis.operations.facts import count_facts
from runic_redis.operations.states import State
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
        states: dict[State, int] = {}
        queues: dict[str, QueueCounts] = {}
        subscriptions: list[SubscriptionStatus] = []
        context = self._store.context
        began_s = time.perf_counter()
        try:
            counts = await self._store.run(count_workflows(context), "count_workflows")
            numbers["question_seconds"] = time.perf_counter() - began_s
            numbers["workflows"] = sum(counts)
            states = await self._store.run(count_states(context), "count_states")
            queues = await self._store.run(count_queues(context), "count_queues")
            numbers["facts"] = await self._store.run(count_facts(context), "count_facts")
            if context.keys.has_feed:
                subscriptions = await self._store.subscriptions()
            numbers["up"] = 1
        except StoreError:
            numbers, states, queues, subscriptions = {"up": 0}, {}, {}, []
        numbers["events_seen"], numbers["writes_seen"] = self._live.events, self._live.writes
        collector = _Collector(context.keys.namespace, numbers, states, queues, subscriptions)
        return Response(generate_latest(collector), media_type="text/plain; version=0.0.4; charset=utf-8")


_HELP = {
    "up": "1 if the store answers, else 0.",
    "workflows": "Workflows in the namespace.",
    "facts": "Facts in the namespace.",
    "question_seconds": "Seconds that a request to every partition took.",
    "events_seen": "Events that the page has seen appended since it started.",
    "writes_seen": "Writes that the page has seen since it started; several to a workflow within 0.25 s count as one.",
}

_STATE_HELP = "Workflows in each state: open, waiting, leased, parked, completed."
_QUEUE_HELP = {
    "waiting": "Workflows that wait in the queue, due or not.",
    "leased": "Workflows of the queue that are leased.",
    "overdue_seconds": "Seconds since the first workflow of the queue has been due; 0 if none is due.",
}
_SUBSCRIPTION_HELP = {
    "lag_events": "Positions of the feed after those that the subscription or projection has acknowledged.",
    "lag_seconds": "Age of the oldest commit that it has not acknowledged; 0 if there is none.",
    "consumers": "Its live consumers.",
    "parked": "Commits that it has put aside.",
}


class _Collector:
    def __init__(
        self,
        namespace: str,
        numbers: Mapping[str, float],
        states: Mapping[State, int],
        queues: Mapping[str, QueueCounts],
        subscriptions: Sequence[SubscriptionStatus],
    ) -> None:
        self._namespace = namespace
        self._numbers = numbers
        self._states = states
        self._queues = queues
        self._subscriptions = subscriptions

    def collect(self) -> Iterator[Metric]:
        for name, help_ in _HELP.items():
            if name in self._numbers:
                family = CounterMetricFamily if name.endswith("_seen") else GaugeMetricFamily
                metric = family(f"runic_redis_{name}", help_, labels=["namespace"])
                metric.add_metric([self._namespace], self._numbers[name])
                yield metric
        yield from self._state_metrics()
        yield from self._subscription_metrics()

    def _state_metrics(self) -> Iterator[Metric]:
        if self._states:
            metric = GaugeMetricFamily("runic_redis_workflows_by_state", _STATE_HELP, labels=["namespace", "state"])
            for state, number in self._states.items():
                metric.add_metric([self._namespace, state], number)
            yield metric
        for (name, help_), place in zip(_QUEUE_HELP.items(), range(len(QueueCounts._fields)), strict=True):
            if self._queues:
                metric = GaugeMetricFamily(f"runic_redis_queue_{name}", help_, labels=["namespace", "queue"])
                for queue, counts in self._queues.items():
                    metric.add_metric([self._namespace, queue], counts[place])
                yield metric

    def _subscription_metrics(self) -> Iterator[Metric]:
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
