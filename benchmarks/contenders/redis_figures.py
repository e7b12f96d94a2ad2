"""The figures of a Redis server for the cases of savers: its memory, and how often clients sent it something."""

import time
from typing import Any

import redis


def used_memory(client: redis.Redis) -> int:
    """Return the bytes of the data. Buffers of connections and of the append-only file are left out."""
    while True:
        info: dict[str, Any] = client.info("memory")
        if not info.get("lazyfree_pending_objects"):
            buffers = ("mem_clients_normal", "mem_aof_buffer", "mem_replication_backlog")
            return int(info["used_memory"]) - sum(int(info.get(name, 0)) for name in buffers)
        time.sleep(0.01)


def reads(client: redis.Redis) -> int:
    """Return how often the server read from its connections. A request of a few kilobytes is one read."""
    info: dict[str, Any] = client.info("stats")
    return int(info["total_reads_processed"])
