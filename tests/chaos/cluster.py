"""Faults of a cluster: slots move, and nodes are lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import redis
from redis.crc import key_slot

from runic_redis import replicated
from runic_redis.keys import Keys
from tests.chaos.clients import Crew
from tests.chaos.rig import NAMESPACE, PARTITIONS, QUICK, SYNCED, Rig
from tests.servers import RunningServer, cluster, follows, valkey_program, wait_until

__all__ = ["losses", "reshards"]

_TIMEOUT = ("--cluster-node-timeout", "1000")


@contextmanager
def reshards(directory: Path, source: Random) -> Iterator[Rig]:
    """Move a quarter of the partitions to other nodes, a few keys at a time."""
    keys = Keys(NAMESPACE, PARTITIONS)

    def befall(crew: Crew) -> None:
        for partition in source.sample(range(PARTITIONS), PARTITIONS // 4):
            slot = key_slot(keys.index(partition).encode())
            owner = next(node for node in nodes if _owns(node, slot))
            _move(slot, owner, source.choice([node for node in nodes if node is not owner]), nodes)
        crew.await_progress()

    with cluster(valkey_program(), directory, *SYNCED) as nodes:
        yield Rig(f"redis+cluster://127.0.0.1:{nodes[0].port}?{QUICK}", befall, lambda: nodes)


def _owns(node: RunningServer, slot: int) -> bool:
    with node.client() as client:
        me = client.execute_command("CLUSTER", "MYID").decode()
        for first, last, (_, _, name, *_), *_ in client.execute_command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return bool(name.decode() == me)
    return False


def _move(slot: int, source: RunningServer, target: RunningServer, nodes: list[RunningServer]) -> None:
    """Move a slot as the tools of operators do."""
    with source.client() as giving, target.client() as taking:
        giver, taker = (client.execute_command("CLUSTER", "MYID") for client in (giving, taking))
        taking.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", giver)
        giving.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", taker)
        while keys := giving.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 3):
            giving.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source, *(node for node in nodes if node not in (source, target))):
            with node.client() as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", taker)


@contextmanager
def losses(directory: Path, source: Random) -> Iterator[Rig]:
    """Kill a primary, wait until its replica is promoted, and bring the lost node back as a replica."""

    def befall(crew: Crew) -> None:
        before = primaries()
        lost = source.choice(before)
        lost.kill()
        rest = [node for node in nodes if node is not lost]
        wait_until(
            lambda: sum(map(_is_primary, rest)) == len(before) and all(map(_is_well, rest)),
            "the cluster to promote a replica",
            limit_s=60,
        )
        lost.restart()
        wait_until(lambda: follows(lost), "the lost node to come back as a replica", limit_s=60)
        crew.await_progress()

    def primaries() -> list[RunningServer]:
        return [node for node in nodes if _is_primary(node)]

    with cluster(valkey_program(), directory, *SYNCED, *_TIMEOUT, replicas=1) as nodes:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        yield Rig(f"redis+cluster://{hosts}?{QUICK}", befall, primaries, replicated(1), may_go_back=True)


def _is_primary(node: RunningServer) -> bool:
    with node.client() as client:
        return bool(client.info("replication")["role"] == "master")


def _is_well(node: RunningServer) -> bool:
    with node.client() as client:
        try:
            return "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO"))
        except redis.RedisError:
            return False
