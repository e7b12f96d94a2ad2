"""Consumers of subscriptions, and projections: they are killed while processes write, and servers and networks break.

The faults of servers and networks are those of another kind.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Literal

import redis

from runic_redis import RedisStore, projection
from runic_redis.durability import Replicated
from runic_redis.keys import Keys
from runic_redis.operations.feed_entries import FeedEntry, read_entry
from tests.chaos.deliveries import judge_deliveries, judge_feed
from tests.chaos.history import Verdict
from tests.chaos.rig import NAMESPACE, PARTITIONS, QUICK, SYNCED, Kind, Rig, with_kills
from tests.chaos.staff import LIMIT_S, Consumers, Runners, Staff, Writers
from tests.projecting_worker import NAME, TTL_S, apply, initial
from tests.proxy import Fault, proxied
from tests.servers import running, valkey_program, wait_until

__all__ = ["consumers", "consumers_of_many", "projections", "unsteady"]

_LEASE_S = 1.0
# The partitions of projections.
_FEW = 4
_WRITERS = 8
# The approximate bytes of a request, and of a reply.
_REQUEST = 600
_REPLY = 200
# In the kind with the most commits, so many are acknowledged for each fault. So many processes write them, and rest as
# long between two calls, because consumers would not get a turn on the server otherwise.
_MANY = 2_000
_MANY_WRITERS = 16
_MANY_REST_S = 0.2


@contextmanager
def unsteady(directory: Path, source: Random) -> Iterator[Rig]:
    """Cut a connection at any point, or kill the server, which syncs every write; or leave both alone."""

    def befall(_: Staff) -> None:
        roll = source.random()
        if roll < 0.3:
            side: Literal["request", "reply"] = source.choice(["request", "reply"])
            proxy.arm(Fault(side, source.randrange(_REQUEST if side == "request" else _REPLY)))
            wait_until(lambda: not proxy.armed, "the fault to happen")
        elif roll < 0.4:
            server.kill()
            server.restart()

    with running(valkey_program(), directory, *SYNCED) as server, proxied(server) as proxy:
        yield Rig(f"redis://127.0.0.1:{proxy.port}?{QUICK}", befall, lambda: [server])


def _task(rig: Rig, partitions: int) -> dict[str, Any]:
    """Return what all processes are told."""
    replicas = rig.durability.replicas if isinstance(rig.durability, Replicated) else 0
    return {"url": rig.url, "namespace": NAMESPACE, "partitions": partitions, "replicas": replicas}


def consumers(faults: Kind) -> Kind:
    """Kill a consumer at each fault of another kind.

    There are two subscriptions. The consumers of one store each acknowledgement, those of the other ten at once.
    """

    return with_kills(faults, _Consuming)


@contextmanager
def consumers_of_many(directory: Path, source: Random) -> Iterator[Rig]:
    """Kill a consumer while many processes write many commits."""

    def befall(staff: _Consuming) -> None:
        staff.kill_one(source)
        staff.await_acknowledged(_MANY)

    with running(valkey_program(), directory, "--appendonly", "yes") as server:
        rig = Rig(server.url(), befall, lambda: [server], rest_s=_MANY_REST_S)
        rig.team = lambda seed: _Consuming(rig, directory, seed, many=True)
        yield rig


class _Consuming(Staff):
    """Consumers of subscriptions at work."""

    _writers: Writers

    def __init__(self, rig: Rig, directory: Path, seed: str, *, many: bool = False) -> None:
        self._rig = rig
        task = _task(rig, PARTITIONS)
        writing = {**task, "many": many, "deletes": not many, "rest_s": rig.rest_s}
        super().__init__(Writers(directory, _MANY_WRITERS if many else _WRITERS // 2, writing, seed))
        faces = ("threads", "asyncio")
        batches = {"hundreds": 100} if many else {"ones": 1, "tens": 10}
        self._crews = [
            Consumers(directory, faces, {**task, "name": name, "batch": batch, "ttl": _LEASE_S})
            for name, batch in batches.items()
        ]

    def _await_followers(self) -> None:
        for crew in self._crews:
            crew.look()
            wait_until(crew.look, f"the consumers of {crew.name} to acknowledge", limit_s=LIMIT_S)

    def await_acknowledged(self, count: int) -> None:
        """Wait until the consumers have acknowledged so many more commits."""
        self._look()
        left = count

        def have_acknowledged() -> bool:
            nonlocal left
            left -= self._look()
            return left <= 0

        wait_until(have_acknowledged, f"{count} commits to be acknowledged", limit_s=LIMIT_S)

    def _look(self) -> int:
        return sum(crew.look() for crew in self._crews)

    def kill_one(self, source: Random) -> None:
        """Kill a consumer, and start it again."""
        source.choice(self._crews).kill_one(source)

    def stop(self) -> None:
        """Have all end, the consumers when they have acknowledged everything."""
        self.stopping.set()
        self._writers.end()
        with RedisStore.from_url(self._rig.url, namespace=NAMESPACE, partitions=PARTITIONS) as store:

            def have_all() -> bool:
                return not any(one.lag_events for one in store.subscriptions())

            try:
                while not have_all():
                    wait_until(lambda: self._look() or have_all(), "the last commits", limit_s=LIMIT_S)
            except AssertionError as error:
                self._rig.found.append(f"{error}: {store.subscriptions()}")
        for crew in self._crews:
            crew.end()
        self.longest_outage_s = max(crew.longest_outage_s for crew in self._crews)

    def errors(self) -> list[str]:
        """Return the errors that processes should not have got."""
        return [*self._writers.errors, *(error for crew in self._crews for error in crew.errors)]

    def judge(self) -> Verdict:
        """Judge the feed, and what the consumers of each subscription got."""
        feeds = _stored_feeds(self._rig)
        appended = self._writers.appended
        verdict = judge_feed(feeds, appended)
        for crew in self._crews:
            verdict.add(
                judge_deliveries(feeds, appended, crew.deliveries, batch=crew.batch, may_go_back=self._rig.may_go_back)
            )
        return verdict


def _stored_feeds(rig: Rig) -> dict[int, list[FeedEntry]]:
    """Return the entries of each partition's feed, as the server has them."""
    keys = Keys(NAMESPACE, PARTITIONS)
    feeds: dict[int, list[FeedEntry]] = {}
    for primary in rig.primaries():
        with primary.client() as client:
            for number in range(PARTITIONS):
                try:
                    found = client.xrange(keys.feed(number))
                except redis.ResponseError:  # another node of the cluster has it
                    continue
                feeds[number] = [
                    read_entry((entry_id, next(iter(fields.items()))), keys.feed(number)) for entry_id, fields in found
                ]
    return feeds


def projections(faults: Kind) -> Kind:
    """Kill the process that runs a projection, or the one that waits for its place, at each fault of another kind."""

    # More than a lease lasts, now and then.
    return with_kills(faults, _Projecting, lambda source: source.choice([0.05, 2 * TTL_S]) * source.random())


class _Projecting(Staff):
    """Runners of a projection at work. It sums up the numbers that are written."""

    _writers: Writers

    def __init__(self, rig: Rig, directory: Path, seed: str) -> None:
        task = _task(rig, _FEW)
        writing = {**task, "many": False, "deletes": False, "rest_s": rig.rest_s}
        super().__init__(Writers(directory, _WRITERS, writing, seed))
        self._runners = Runners(2, rig.url, NAMESPACE)
        self._rig = rig
        self._state: dict[str, Any] = {}
        self._store = RedisStore.from_url(rig.url, namespace=NAMESPACE, partitions=_FEW, feed=True)

    def _await_followers(self) -> None:
        before = self._saved_sum()
        wait_until(lambda: self._saved_sum() > before, "a higher sum to be saved", limit_s=LIMIT_S)

    def _saved_sum(self) -> int:
        saved = self._store.load_projection(NAME)
        return 0 if saved is None else int(saved.state["sum"])

    def kill_one(self, source: Random) -> None:
        """Kill a runner, and start it again."""
        self._runners.kill_one(source)

    def stop(self) -> None:
        """Have all end, and fold the rest."""
        self.stopping.set()
        self._writers.end()
        self._runners.end()
        with self._store, projection(self._store, NAME, apply, initial, ttl=TTL_S) as sums:
            sums.catch_up()
            self._state = sums.state

    def errors(self) -> list[str]:
        """Return the errors that processes should not have got."""
        return [*self._writers.errors, *self._runners.errors]

    def judge(self) -> Verdict:
        """Compare the sum and the number of events with those that writers had acknowledged."""
        appended = self._writers.appended
        verdict = Verdict(appends=len(appended), acknowledged=len(appended))
        stored, folded = sum(one.size for one in appended), sum(self._state["cursors"].values())
        verdict.lost, verdict.doubled = max(0, stored - folded), max(0, folded - stored)
        total = sum(one.size * one.number for one in appended)
        if self._state["sum"] != total:
            verdict.wrong.append(f"the sum is {self._state['sum']}, and not {total}")
        return verdict
