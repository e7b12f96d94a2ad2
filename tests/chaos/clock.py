"""Faults of the server's clock: it is set, or a server with another clock takes over."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random

from runic_redis import Fact, FactRef, HeldLease, LeaseHeld, LeaseLost, RedisStore, StoreError
from tests.chaos.clients import Crew
from tests.chaos.rig import ASIDE, QUICK, Rig
from tests.clocks import ClockProxy
from tests.proxy import Fault
from tests.servers import RunningServer, follows, free_ports, running, valkey_program, wait_until

__all__ = ["clock_steps"]

_STEPS_S = (2.0, 60.0, 3600.0, 6 * 3600.0)
# The clock differs from real time by at most this.
_FARTHEST_S = 12 * 3600.0
# Workflows expire either long after the test, whatever the server's clock says, or almost at once.
_DAY_S = 24 * 3600.0
_SOON_S = 0.05
_TTL_S = 0.2
_PARTITIONS = 4
# Replies are lost before the clock is set, so their retries come after it.
_LOST_REPLIES = 3


@contextmanager
def clock_steps(directory: Path, source: Random) -> Iterator[Rig]:
    """Set the server's clock by seconds to hours, or let a server with another clock take over, and lose replies.

    Clients do their usual work. In addition workflows expire, facts are collected, leases are taken over, and events
    are followed.
    """

    def befall(crew: Crew) -> None:
        seconds = source.choice(_STEPS_S) * source.uniform(-1.0, 1.0)
        if abs(clock.offset_s + seconds) > _FARTHEST_S:
            seconds = -seconds
        aside.prepare()
        for _ in range(_LOST_REPLIES):
            clock.arm(Fault("reply", 0, "swallow"))
            wait_until(lambda: not clock.armed, "a reply to be lost")
        if source.random() < 0.3:
            servers.reverse()
            _hand_over(servers[1], servers[0])
            clock.switch_to(servers[0], seconds)
        else:
            clock.step(seconds)
        aside.check(f"after a step of {seconds:.1f} s")
        crew.await_progress()

    with ExitStack() as stack:
        servers = _pair(directory, stack)
        clock = ClockProxy(servers[0])
        stack.callback(clock.close)
        rig = Rig(f"{clock.url}?{QUICK}", befall, lambda: servers[:1], rest_s=0.02)
        aside = _Aside(rig, stack)
        yield rig
        aside.end()


def _pair(directory: Path, stack: ExitStack) -> list[RunningServer]:
    """Start a primary and its replica."""
    servers = [
        stack.enter_context(running(valkey_program(), directory / str(port), port=port)) for port in free_ports(2)
    ]
    with servers[1].client() as client:
        client.replicaof("127.0.0.1", servers[0].port)
    wait_until(lambda: follows(servers[1]), "the replica to follow")
    return servers


def _hand_over(primary: RunningServer, replica: RunningServer) -> None:
    """Let a replica that has all data take over."""
    wait_until(lambda: follows(replica), "the replica to follow")
    with primary.client() as client:
        client.execute_command("FAILOVER", "TO", "127.0.0.1", str(replica.port))
    wait_until(lambda: _is_primary(replica), "the replica to take over")


def _is_primary(server: RunningServer) -> bool:
    with server.client() as client:
        return bool(client.info("replication")["role"] == "master")


class _Aside:
    """Additional work before and after each step, with the results that it has when no clock is set."""

    def __init__(self, rig: Rig, stack: ExitStack) -> None:
        self._found = rig.found
        self._store = stack.enter_context(RedisStore.from_url(rig.url, namespace=ASIDE, partitions=_PARTITIONS))
        self._number = 0
        self._told = 0
        # `_kept`: workflows that must stay, with the facts that they refer to. `_brief`: workflows that expire.
        self._kept: dict[str, str] = {}
        self._brief: list[str] = []
        self._followers = [
            _Follower(self._store, stack),
            _Terminal(rig.url, stack),
        ]
        wait_until(self._is_followed, "all followers to begin")
        self._left: HeldLease
        self._taken: HeldLease
        self._loose = ""

    def _is_followed(self) -> bool:
        self._say()
        return all(follower.told for follower in self._followers)

    def _keep(self, workflow_id: str) -> None:
        self._store.append(workflow_id, [{"fact": Fact({"of": workflow_id, "in": self._number})}])
        (event,) = self._store.stream(workflow_id)
        self._kept[workflow_id] = event["fact"].hash

    def _say(self) -> None:
        self._told += 1
        self._store.append("followed", [{"number": self._told}])

    def prepare(self) -> None:
        """Write what the step will affect."""
        self._number += 1
        number, store = self._number, self._store
        self._keep(f"long-{number}")
        store.complete(f"long-{number}")
        store.expire(f"long-{number}", _DAY_S)
        store.append(f"brief-{number}", [{}])
        store.complete(f"brief-{number}")
        store.expire(f"brief-{number}", _SOON_S)
        self._brief.append(f"brief-{number}")
        self._loose = store.put_fact({"loose": number})
        self._left = store.acquire(f"left-{number}", "first", ttl=_TTL_S)
        self._say()
        store.append("first", [{}])

    def check(self, when: str) -> None:
        """Check everything that `prepare` wrote."""
        self._say()
        for check in (self._check_order, self._collect, self._make_again, self._take_over, self._check_kept):
            self._note(when, check)

    def _note(self, when: str, check: Callable[[], None]) -> None:
        try:
            check()
        except (AssertionError, StoreError) as error:
            self._found.append(f"{when}: {type(error).__name__}: {error}")

    def _check_order(self) -> None:
        # (Both share a partition: across partitions, the clock decides the order.)
        self._store.append("newer", [{}])
        listed = list(self._store.list())
        assert listed.index("newer") < listed.index("first"), (
            "the workflow that was written last is not listed before the earlier one"
        )

    def _collect(self) -> None:
        """Collect facts while a client has made a fact and refers to it a moment later."""
        self._store.collect()
        workflow_id = f"refers-{self._number}"
        self._store.append(workflow_id, [{"fact": FactRef(self._loose)}])
        self._kept[workflow_id] = self._loose

    def _make_again(self) -> None:
        """Make expired workflows again. The new ones must stay."""
        for workflow_id in [one for one in self._brief if not self._store.exists(one)]:
            self._keep(workflow_id)
            self._brief.remove(workflow_id)

    def _take_over(self) -> None:
        """Take over the lease of a holder that is gone. This works once the lease has ended, and outdates it."""
        store, left = self._store, self._left
        wait_until(partial(self._takes_over, left.workflow_id), f"a lease of {_TTL_S} s to end", limit_s=10)
        try:
            store.append(left.workflow_id, [{}], lease=left)
        except LeaseLost:
            pass
        else:
            raise AssertionError("an outdated lease still writes")
        assert self._taken.token > left.token, f"the token after {left.token} is {self._taken.token}"
        store.append(left.workflow_id, [{}], lease=self._taken)
        store.complete(left.workflow_id, lease=self._taken)
        store.delete(left.workflow_id, lease=self._taken)

    def _takes_over(self, workflow_id: str) -> bool:
        if self._number % 2:
            for lease in self._store.claim("second"):
                self._taken = lease
                return lease.workflow_id == workflow_id
            return False
        try:
            self._taken = self._store.acquire(workflow_id, "second")
        except LeaseHeld:
            return False
        return True

    def _check_kept(self) -> None:
        missing = self._kept.keys() - set(self._store.list())
        assert not missing, f"not listed: {sorted(missing)}"
        self._store.load_facts(set(self._kept.values()))
        for workflow_id in self._kept:
            assert self._store.cursor(workflow_id) == 1, f"{workflow_id} is gone"

    def end(self) -> None:
        """Check once more, and check that the followers got every event."""
        self._note("in the end", self._check_kept)
        self._say()
        for follower in self._followers:
            self._note(
                "in the end",
                partial(wait_until, partial(follower.has, self._told), f"{follower} to get the last event"),
            )
        for follower in self._followers:
            told = follower.told
            if told != list(range(told[0], self._told + 1)):
                self._found.append(f"{follower} got the events {told}, of {self._told}")


class _Follower:
    """A thread that follows a workflow."""

    def __init__(self, store: RedisStore, stack: ExitStack) -> None:
        self.told: list[int] = []
        self._tail = store.tail("followed")
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()
        stack.callback(self._end)

    def __str__(self) -> str:
        return "a tail"

    def has(self, number: int) -> bool:
        return number in self.told

    def _follow(self) -> None:
        for record in self._tail:
            self.told.append(record.event["number"])

    def _end(self) -> None:
        self._tail.close()
        self._thread.join()


class _Terminal:
    """A process that follows the whole namespace, by the command line."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._lines: list[str] = []
        command = [sys.executable, "-m", "runic_redis.cli.main", "tail", "--url", url, "--namespace", ASIDE, "--json"]
        self._process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        stack.callback(self._end)

    def __str__(self) -> str:
        return "runic-redis tail"

    @property
    def told(self) -> list[int]:
        fields = [json.loads(line)["fields"] for line in self._lines]
        return [one["number"] for one in fields if "number" in one]

    def has(self, number: int) -> bool:
        return number in self.told

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)

    def _end(self) -> None:
        self._process.terminate()
        self._thread.join()
