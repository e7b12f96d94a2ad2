"""Causes faults of one kind while clients work, for as long as asked, and judges the result."""

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from runic_redis import RedisStore, replicated
from tests.chaos import clock, cluster, failover, following, grouping, interrupts, lateness, living, network, server
from tests.chaos.clients import Crew, find_wrong_tags, read_back
from tests.chaos.faces import open_stores
from tests.chaos.history import Verdict, judge
from tests.chaos.rig import NAMESPACE, PARTITIONS, Kind, Rig
from tests.servers import RunningServer

__all__ = ["KINDS", "Row", "run_kind"]

KINDS: Mapping[str, Kind] = {
    "cuts": network.cuts(),
    "cuts-sync": network.cuts("own", "own", "own", "own", "own", "own"),
    "cuts-async": network.cuts("asyncio", "asyncio"),
    # (Without rests, calls share round trips.)
    "cuts-grouped": network.cuts("shared", "shared", "shared", "asyncio", "asyncio", "asyncio", rest_s=0.0),
    "disturbances": network.disturbances,
    "kills": server.kills,
    "stops": server.stops,
    "outages": server.outages,
    "full": server.full,
    "oversized": server.oversized,
    "lost-requests": network.lost_requests,
    "late-requests": lateness.late_requests,
    "clock-steps": clock.clock_steps,
    "interrupts": interrupts.interrupts,
    "failovers": failover.failovers(replicated(1), 1),
    "failovers-memory": failover.failovers("memory", 2),
    "reshards": cluster.reshards,
    "losses": cluster.losses,
    "consumers": following.consumers(following.unsteady),
    "consumers-load": following.consumers_of_many,
    "consumers-failovers": following.consumers(failover.failovers(replicated(1), 1)),
    "consumers-reshards": following.consumers(cluster.reshards),
    "projections": following.projections(following.unsteady),
    "projections-failovers": following.projections(failover.failovers(replicated(1), 1)),
    "claims": living.claims(following.unsteady),
    "claims-load": living.claims_of_many(2_000),
    "claims-backlog": living.claims_of_many(20_000),
    "claims-failovers": living.claims(failover.failovers(replicated(1), 1)),
    "claims-reshards": living.claims(cluster.reshards, window=64),
    "groups": grouping.groups(network.cuts(request=4000, reply=64)),
    # (A server loads all commits at each start, so a long run must not have too many.)
    "groups-kills": grouping.groups(server.kills, rest_s=0.05),
    "groups-failovers": grouping.groups(failover.failovers(replicated(1), 1)),
    "groups-reshards": grouping.groups(cluster.reshards, one_part=True),
    "messages": living.messages(following.unsteady),
}


@dataclass
class Row:
    """The results of one kind of fault.

    Attributes:
        kind: the name of the kind.
        faults: how many faults happened.
        verdict: the findings of the judge.
        errors: the errors that clients should not have got.
        longest_outage_s: the longest time without an acknowledged write.
    """

    kind: str
    faults: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    errors: list[str] = field(default_factory=list)
    longest_outage_s: float = 0.0

    def add(self, other: "Row") -> None:
        """Add another run of the same kind."""
        self.faults += other.faults
        self.verdict.add(other.verdict)
        self.errors += other.errors
        self.longest_outage_s = max(self.longest_outage_s, other.longest_outage_s)

    @property
    def flawless(self) -> bool:
        """Did every guarantee hold, and did no client get an error that a retry would have avoided?"""
        lost = self.verdict.unnamed if self.kind == "failovers-memory" else self.verdict.lost
        return not (lost or self.verdict.doubled or self.verdict.torn or self.verdict.wrong or self.errors)


def run_kind(
    name: str,
    *,
    faults: int | None = None,
    seconds: float | None = None,
    seed: str = "1",
    tell: Callable[[Row], None] = lambda _: None,
) -> Row:
    """Run one kind of fault until enough faults have happened, or the time is over.

    Args:
        name: the kind.
        faults: the number of faults to cause.
        seconds: the time during which to cause faults.
        seed: the seed of the random choices.
        tell: called after each fault.
    """
    row = Row(name)
    source = Random(seed)
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as directory,
        KINDS[name](Path(directory), source) as rig,
    ):
        with ExitStack() as stack:
            team = _crew(rig, stack, seed, source) if rig.team is None else rig.team(seed)
            over_s = time.monotonic() + (seconds or float("inf"))
            try:
                team.await_progress()
                while row.faults < (faults or float("inf")) and time.monotonic() < over_s:
                    rig.befall(team)
                    row.faults += 1
                    tell(row)
                team.await_progress()
            except AssertionError as error:  # no progress was made
                row.errors.append(str(error))
            finally:
                team.stop()
        row.errors += team.errors()
        row.longest_outage_s = team.longest_outage_s
        row.verdict = team.judge() if rig.team is not None else _judge(rig, team)
    row.verdict.wrong += rig.found
    return row


def _crew(rig: Rig, stack: ExitStack, seed: str, source: Random) -> Crew:
    """Start the clients, each with its store."""
    crew = Crew(
        open_stores(rig, stack, source),
        seed,
        expects=rig.expects,
        one_writer=rig.may_lose,
        may_go_back=rig.may_go_back,
        rest_s=rig.rest_s,
        busy=rig.busy,
    )
    crew.start()
    return crew


def _judge(rig: Rig, crew: Crew) -> Verdict:
    """Judge the final commits of every workflow. Then delete all workflows, and judge the keys that are left."""
    verdict = Verdict()
    with RedisStore.from_url(rig.url, namespace=NAMESPACE, partitions=PARTITIONS) as store:
        for view in crew.views:
            if rig.may_lose:
                for client in crew.clients:
                    client.write_once_more(store, view)
            view.final = read_back(store, view.workflow_id)
            verdict.add(judge(view, may_lose=rig.may_lose, may_go_back=rig.may_go_back))
            verdict.wrong += find_wrong_tags(store, view.workflow_id)
        for view in crew.views:
            store.delete(view.workflow_id)
        if listed := list(store.list()):
            verdict.wrong.append(f"listed, though all were deleted: {listed[:5]}")
    for primary in rig.primaries():
        verdict.wrong += _left_behind(primary)
    return verdict


def _left_behind(server: RunningServer) -> list[str]:
    """Find keys and counts that a server should not hold after all workflows were deleted."""
    with server.client() as client:
        keys = [key for key in client.scan_iter(match=f"*{NAMESPACE}*") if b"config" not in key]
        states = [key for key in keys if b":partition:" in key]
        counts = {key: client.hmget(key, "workflows", "parked", "completed") for key in states}
        # The hash of the queues keeps the time of the last lease.
        queues = {key: client.hgetall(key) for key in keys if key.endswith(b":queues")}
    wrong = [
        f"{key!r} counts {found}, though all workflows were deleted"
        for key, found in counts.items()
        if any(int(count or 0) for count in found)
    ]
    left = [key for key in keys if key not in states and queues.get(key, {}).keys() != {b"leased at"}]
    return wrong + ([f"keys left, though all workflows were deleted: {left[:5]}"] if left else [])
