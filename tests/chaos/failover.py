"""Faults of a primary: it is lost, and a Sentinel promotes a replica."""

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import redis

from runic_redis import CommitsLost, Durability, StoreError, WorkflowNotFound
from tests.chaos.clients import Crew, is_by_design
from tests.chaos.rig import QUICK, SYNCED, Kind, Rig
from tests.servers import RunningServer, follows, free_ports, running, sentinel, valkey_program, wait_until

__all__ = ["failovers"]

_SERVICE = "chaos"
_SETTINGS = ("down-after-milliseconds 1000", "failover-timeout 5000")


class _Watched:
    """A primary with replicas, and a Sentinel that watches them."""

    def __init__(self, directory: Path, stack: ExitStack, replicas: int) -> None:
        self.servers = [
            stack.enter_context(running(valkey_program(), directory / str(port), *SYNCED, port=port))
            for port in free_ports(1 + replicas)
        ]
        for server in self.servers[1:]:
            self._follow(server, self.servers[0])
            wait_until(lambda server=server: follows(server), "the replica to follow")
        self.port = stack.enter_context(
            sentinel(valkey_program(), directory / "sentinel", _SERVICE, self.servers[0], *_SETTINGS)
        )
        self._sentinel = stack.enter_context(RunningServer([], directory, None, self.port).client())
        wait_until(self._is_well, "the Sentinel to know the replicas", limit_s=60)

    def _is_well(self) -> bool:
        """Do all servers follow the primary, and does the Sentinel see that? (It corrects those that do not.)"""
        primary = self.primary()
        return self._is_settled() and all(follows(server) for server in self.servers if server is not primary)

    def _is_settled(self) -> bool:
        replicas = self._sentinel.sentinel_slaves(_SERVICE)
        flags = [set(one["flags"]) for one in (self._sentinel.sentinel_master(_SERVICE), *replicas)]
        return flags == [{"master"}, *[{"slave"}] * (len(self.servers) - 1)]

    def primary(self) -> RunningServer:
        """Return the server that the Sentinel names as primary."""
        _, port = self._sentinel.sentinel_get_master_addr_by_name(_SERVICE)
        return next(server for server in self.servers if server.port == port)

    @staticmethod
    def _follow(replica: RunningServer, primary: RunningServer) -> None:
        with replica.client() as client:
            client.replicaof("127.0.0.1", primary.port)

    def _hands_over(self) -> bool:
        """Has the Sentinel begun to promote a replica of a healthy primary?"""
        with contextlib.suppress(redis.ResponseError):
            self._sentinel.execute_command("SENTINEL", "FAILOVER", _SERVICE)
            return True
        return False

    def lose_primary(self, crew: Crew, source: Random) -> None:
        """Lose the primary while its replicas are behind, then bring it back as a replica."""
        lost = self.primary()
        replicas = [server for server in self.servers if server is not lost]
        behind = source.choice([[], replicas])
        for replica in behind:
            replica.stop()
        with lost.client() as client:
            if behind:
                # Replicas will still read what the primary already sent. They never get later writes.
                client.client_kill_filter(_type="replica")
        crew.stopping.wait(source.uniform(0.05, 0.2))
        how = source.choice(["killed", "stopped", "told to hand over"])
        if how == "killed":
            lost.kill()
        elif how == "stopped":
            lost.stop()
        for replica in behind:
            replica.go_on()
        if how == "told to hand over":
            wait_until(self._hands_over, "the Sentinel to begin", limit_s=60)
        wait_until(lambda: self.primary() is not lost, "the Sentinel to promote a replica", limit_s=60)
        if how == "killed":
            lost.restart("--replicaof", "127.0.0.1", str(self.primary().port))
        else:
            if how == "stopped":
                lost.go_on()
            else:
                crew.stopping.wait(source.uniform(0.2, 1.0))  # some clients still write to the old primary
            # The Sentinel would do this as well, some ten seconds later.
            self._follow(lost, self.primary())
        wait_until(self._is_well, "all servers to follow the promoted one", limit_s=60)


def failovers(durability: Durability, replicas: int) -> Kind:
    """Lose the primary again and again.

    A Sentinel with several replicas promotes the one that was furthest in its last report, up to ten seconds ago. That
    replica may lack confirmed writes.
    """

    @contextmanager
    def kind(directory: Path, source: Random) -> Iterator[Rig]:
        def befall(crew: Crew) -> None:
            watched.lose_primary(crew, source)
            crew.await_progress()

        with ExitStack() as stack:
            watched = _Watched(directory, stack, replicas)
            yield Rig(
                f"redis+sentinel://127.0.0.1:{watched.port}/{_SERVICE}?{QUICK}",
                befall,
                lambda: [watched.primary()],
                durability=durability,
                may_lose=durability == "memory",
                may_go_back=True,
                expects=_is_noticed_in_reading if durability == "memory" else is_by_design,
            )

    return kind


def _is_noticed_in_reading(error: StoreError) -> bool:
    return isinstance(error, CommitsLost | WorkflowNotFound) or is_by_design(error)
