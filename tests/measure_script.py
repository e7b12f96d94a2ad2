"""The server's time for a plain append, against a straight script: ``python -m tests.measure_script``.

The straight script does what an append must do at least, as a good engineer would write it: it reads the time and the
cursor, adds an entry, and writes the cursor and an index. It has no fencing, no retries and no checks.
"""

import tempfile
from pathlib import Path

import redis

from benchmarks.figures import ratios, spread
from runic_redis import RedisStore
from tests.servers import running, valkey_program

ROUNDS = 7
CALLS = 2000
STRAIGHT = """
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local meta = redis.call('HMGET', KEYS[2], 'cursor', 'created', 'fence', 'expires')
local cursor = tonumber(meta[1] or 0) + ARGV[2]
local id = string.format('%.0f-%.0f', cursor, math.floor(micros / 1000))
redis.call('XADD', KEYS[1], id, ARGV[3], ARGV[4], 'i', ARGV[5])
redis.call('HSET', KEYS[2], 'cursor', string.format('%.0f', cursor))
redis.call('ZADD', KEYS[3], string.format('%.0f', micros), ARGV[1])
return {id}
"""


def server_us(client: redis.Redis) -> float:
    """Return the server's time for each call of a script since the last reset, in microseconds."""
    stats = client.info("commandstats")
    return float(stats["cmdstat_evalsha"]["usec_per_call"])


def main() -> None:
    """Measure both in turns, and print the ratio with its spread."""
    with (
        tempfile.TemporaryDirectory() as directory,
        running(valkey_program(), Path(directory)) as server,
        server.client() as client,
        RedisStore.from_url(server.url()) as store,
    ):
        sha = client.script_load(STRAIGHT)
        event = [{"a": 1}]
        (entry,) = store.encode_events(event).entries
        for workflow in range(8):
            store.append(f"w{workflow}", event)

        def ours() -> None:
            for call in range(CALLS):
                store.append(f"w{call % 8}", event)

        def straight() -> None:
            for call in range(CALLS):
                keys = (f"e{call % 8}", f"m{call % 8}", "index")
                client.evalsha(sha, 3, *keys, f"w{call % 8}", 1, entry.header, entry.payload, b"12345678")

        took: list[tuple[float, float]] = []
        for _ in range(ROUNDS):
            pair = []
            for turn in (ours, straight):
                client.config_resetstat()
                turn()
                pair.append(server_us(client))
            took.append((pair[0], pair[1]))
    ours_us, straight_us = zip(*took, strict=True)
    ratio = ratios(ours_us, straight_us)
    print(f"append: {spread(ours_us).median:.1f} us a call")
    print(f"straight script: {spread(straight_us).median:.1f} us a call")
    print(f"ratio: {ratio.median:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f})")


if __name__ == "__main__":
    main()
