"""The life of workflows: they are started, claimed and completed, and get messages, while workers are killed.

The faults of servers and networks are those of another kind.
"""

import contextlib
import itertools
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import redis

from runic_redis import Record, RedisStore, StoreError
from runic_redis.durability import Replicated
from runic_redis.keys import Keys
from tests.chaos.history import Verdict
from tests.chaos.lives import Consumed, Life, Sent, judge_lives, judge_messages, waits_of
from tests.chaos.rig import NAMESPACE, PARTITIONS, Kind, Rig, with_kills
from tests.chaos.staff import LIMIT_S, Recorders, Staff
from tests.servers import running, valkey_program, wait_until

__all__ = ["claims", "claims_of_many", "messages"]

_FACES = ("threads", "asyncio")
_WORKERS = 8
# How many leases a claim requests, and how long they last.
_FEW: dict[str, Any] = {"limit": 8, "ttl": 1.0}
_MANY: dict[str, Any] = {"limit": 32, "ttl": 5.0}
# How often a process gets a number of workflows to start, and the largest number.
_PACE_S = 0.05
_START_AT_ONCE = 200
_READ_AT_ONCE = 500
_SENDERS = 8
# How long a sender rests between two messages, at most.
_REST_S = 0.04
_ANSWERING = 4
_WORKFLOWS = [f"w-{number}" for number in range(24)]


def _task(rig: Rig) -> dict[str, Any]:
    """Return the task of all processes."""
    replicas = rig.durability.replicas if isinstance(rig.durability, Replicated) else 0
    return {"url": rig.url, "namespace": NAMESPACE, "partitions": PARTITIONS, "replicas": replicas}


def claims(faults: Kind, window: int = 400) -> Kind:
    """Kill a process that claims and completes workflows at each fault of another kind.

    Args:
        faults: the other kind.
        window: how many workflows wait or are leased at any time.
    """

    return with_kills(faults, lambda rig, directory, _: _Claiming(rig, directory, window, **_FEW))


def claims_of_many(window: int) -> Kind:
    """Kill a process that claims and completes workflows each second, while so many are always waiting or leased."""

    @contextmanager
    def kind(directory: Path, source: Random) -> Iterator[Rig]:
        def befall(staff: Staff) -> None:
            staff.stopping.wait(1.0)
            staff.kill_one(source)

        with running(valkey_program(), directory, "--appendonly", "yes") as server:
            rig = Rig(server.url(), befall, lambda: [server])
            rig.team = lambda _: _Claiming(rig, directory, window, **_MANY)
            yield rig

    return kind


def messages(faults: Kind) -> Kind:
    """Kill a process that answers messages at each fault of another kind."""

    return with_kills(faults, _Messaging)


class _Starters(Recorders):
    """Processes that start workflows."""

    def __init__(self, directory: Path, task: dict[str, Any]) -> None:
        self.started: list[str] = []
        tasks = [{**task, "face": face, "name": face} for face in _FACES]
        super().__init__("chaos/starting_worker.py", directory, "starter", tasks)

    def read(self, line: str) -> int:
        """Read the id of a workflow."""
        self.started.append(line)
        return 1


class _Claimers(Recorders):
    """Processes that claim and complete workflows."""

    def __init__(self, directory: Path, task: dict[str, Any]) -> None:
        self.claimed: list[tuple[str, int, int]] = []
        self.completed: set[str] = set()
        tasks = [{**task, "face": _FACES[n % 2], "name": f"worker-{n}"} for n in range(_WORKERS)]
        super().__init__("chaos/claiming_worker.py", directory, "claimer", tasks)

    def read(self, line: str) -> int:
        """Read a claim, or a completion."""
        kind, workflow_id, *rest = line.split(" ")
        if kind == "<":
            attempt, at_ms = map(int, rest)
            self.claimed.append((workflow_id, attempt, at_ms))
            return 0
        self.completed.add(workflow_id)
        return 1


class _Claiming(Staff):
    """Processes that start workflows, and others that claim and complete them."""

    _writers: _Starters

    def __init__(self, rig: Rig, directory: Path, window: int, limit: int, ttl: float) -> None:
        task = _task(rig)
        super().__init__(_Starters(directory, task))
        self._rig = rig
        self._window = window
        # The workers begin when as many workflows wait as they will find from then on.
        for first in range(0, window, _START_AT_ONCE):
            self._writers.tell(first // _START_AT_ONCE % len(_FACES), str(min(_START_AT_ONCE, window - first)))
        wait_until(self._has_window, "the first workflows to be started", limit_s=5 * LIMIT_S)
        self._claimers = _Claimers(directory, {**task, "limit": limit, "ttl": ttl})
        self._pacing = threading.Thread(target=self._pace)
        self._pacing.start()

    def _has_window(self) -> bool:
        self._writers.look()
        return self._writers.count >= self._window

    def _pace(self) -> None:
        """Have as many workflows started as are completed."""
        asked = self._window
        for number in itertools.cycle(range(len(_FACES))):
            if self.stopping.wait(_PACE_S):
                return
            # (The server counts them: a worker can be killed before it records one.)
            completed = _completed(self._rig)
            wanted = 0 if completed is None else min(self._window - (asked - completed), _START_AT_ONCE)
            if wanted > 0:
                self._writers.tell(number, str(wanted))
                asked += wanted

    def await_progress(self) -> None:
        """Wait until each worker has completed another workflow."""
        self._claimers.await_each(1, "each worker to complete a workflow")

    def _await_followers(self) -> None:
        pass  # `await_progress` waits for them alone

    def kill_one(self, source: Random) -> None:
        """Kill a worker, and start it again."""
        self._claimers.kill_one(source)

    def stop(self) -> None:
        """Have all end, the workers when all workflows are completed."""
        self.stopping.set()
        self._pacing.join()
        self._writers.end()
        count, before = len(self._writers.started), -1
        with contextlib.suppress(AssertionError):  # the judge finds those that are not
            while before != count:
                before = _completed(self._rig) or 0
                wait_until(
                    lambda before=before: before == count or (_completed(self._rig) or 0) > before,
                    "the last workflows to be completed",
                    limit_s=LIMIT_S,
                )
        self._claimers.end()
        ends_ms = sorted(at_ms for _, _, at_ms in self._claimers.claimed)
        self.longest_outage_s = max((later - one for one, later in itertools.pairwise(ends_ms)), default=0) / 1000

    def errors(self) -> list[str]:
        """Return the errors that processes should not have got."""
        return [*self._writers.errors, *self._claimers.errors]

    def judge(self) -> Verdict:
        """Judge all workflows, and what is left in queues."""
        with RedisStore.from_url(self._rig.url, namespace=NAMESPACE, partitions=PARTITIONS) as store:
            records = _read_all(store, sorted(store.list()))
        completed, left = _queued(self._rig)
        lives = {
            workflow_id: Life([record.event["op"] for record in some], workflow_id in completed)
            for workflow_id, some in records.items()
        }
        verdict = judge_lives(self._writers.started, lives)
        verdict.wrong += left
        due_ms = {
            workflow_id: math.floor(some[0].time.timestamp() * 1000) for workflow_id, some in records.items() if some
        }
        verdict.notes.append(str(waits_of(due_ms, self._claimers.claimed)))
        return verdict


def _read_all(store: RedisStore, workflow_ids: Sequence[str]) -> dict[str, list[Record]]:
    records: dict[str, list[Record]] = {}
    for first in range(0, len(workflow_ids), _READ_AT_ONCE):
        some = workflow_ids[first : first + _READ_AT_ONCE]
        for workflow_id, found in zip(some, store.read_many([(one, 0, None) for one in some]), strict=True):
            if isinstance(found, StoreError):
                raise found
            records[workflow_id] = found
    return records


def _completed(rig: Rig) -> int | None:
    """Return how many workflows are completed; None while a server does not answer."""
    keys = Keys(NAMESPACE, PARTITIONS)
    count = 0
    for primary in rig.primaries():
        try:
            with primary.client(socket_timeout=1.0) as client, client.pipeline(transaction=False) as pipeline:
                for number in range(PARTITIONS):
                    pipeline.zcard(keys.completed(number))
                # (In a cluster, an error is about a partition that another node has.)
                count += sum(one for one in pipeline.execute(raise_on_error=False) if isinstance(one, int))
        except (redis.ConnectionError, redis.TimeoutError):
            return None
    return count


def _queued(rig: Rig) -> tuple[set[str], list[str]]:
    """Return the workflows that are completed, as the server has them, and what is left of leases and queues."""
    keys = Keys(NAMESPACE, PARTITIONS)
    completed: set[str] = set()
    left: list[str] = []
    for primary in rig.primaries():
        with primary.client() as client:
            for number in range(PARTITIONS):
                try:
                    completed |= {one.decode() for one in client.zrange(keys.completed(number), 0, -1)}
                except redis.ResponseError:  # another node of the cluster has it
                    continue
                for key in (keys.queue(number, "default"), keys.leases(number), keys.parked_workflows(number)):
                    left += [f"{one!r} is left at {key}" for one in client.zrange(key, 0, -1)]
                counts = client.hgetall(keys.queues(number))
                left += [f"{count} are counted at {key}" for name, count in counts.items() if name != b"leased at"]
    return completed, left


class _Senders(Recorders):
    """Processes that send messages."""

    def __init__(self, directory: Path, task: dict[str, Any], seed: str) -> None:
        self.sent: dict[str, Sent] = {}
        tasks = [{**task, "seed": f"{seed}.{n}".replace("/", ".")} for n in range(_SENDERS)]
        super().__init__("chaos/sending_worker.py", directory, "sender", tasks)

    def read(self, line: str) -> int:
        """Read a message, or the id that it got."""
        kind, first, second = line.split(" ")
        if kind == "<":
            self.sent[second] = Sent(first, second)
            return 0
        self.sent[first].entry_id = second
        return 1


class _Answering(Recorders):
    """Processes that answer messages."""

    def __init__(self, directory: Path, task: dict[str, Any]) -> None:
        tasks = [{**task, "face": _FACES[n % 2], "ttl": _FEW["ttl"]} for n in range(_ANSWERING)]
        super().__init__("chaos/answering_worker.py", directory, "answering", tasks)

    def read(self, _: str) -> int:
        """Read that a message was answered."""
        return 1


class _Messaging(Staff):
    """Processes that send messages to workflows, and others that answer them."""

    _writers: _Senders

    def __init__(self, rig: Rig, directory: Path, seed: str) -> None:
        self._rig = rig
        self._store = RedisStore.from_url(rig.url, namespace=NAMESPACE, partitions=PARTITIONS)
        for workflow_id in _WORKFLOWS:
            self._store.append(workflow_id, [{"op": "start"}], expected_cursor=0, queue="default", due=math.inf)
        task = _task(rig)
        self._answering = _Answering(directory, task)
        super().__init__(_Senders(directory, {**task, "workflows": _WORKFLOWS, "rest_s": _REST_S}, seed))

    def _await_followers(self) -> None:
        self._answering.await_each(1, "each worker to answer a message")

    def kill_one(self, source: Random) -> None:
        """Kill a worker, and start it again."""
        self._answering.kill_one(source)

    def stop(self) -> None:
        """Have all end, the workers when all messages are answered."""
        self.stopping.set()
        self._writers.end()

        def have_all() -> bool:
            return not any(map(self._store.inbox, _WORKFLOWS))

        with contextlib.suppress(AssertionError):  # the judge finds those that are left
            wait_until(have_all, "the last messages to be answered", limit_s=LIMIT_S)
        self._answering.end()

    def errors(self) -> list[str]:
        """Return the errors that processes should not have got."""
        return [*self._writers.errors, *self._answering.errors]

    def judge(self) -> Verdict:
        """Compare the messages that commits consumed with those that were sent."""
        with self._store as store:
            consumed = {
                workflow_id: [Consumed(one.event["op"], one.event["id"]) for one in records[1:]]
                for workflow_id, records in _read_all(store, _WORKFLOWS).items()
            }
            inboxes = {workflow_id: len(store.inbox(workflow_id)) for workflow_id in _WORKFLOWS}
        return judge_messages(list(self._writers.sent.values()), consumed, inboxes)
