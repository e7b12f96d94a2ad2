"""Sixteen processes on one workflow: no event lost, none twice, cursors without a gap."""

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from runic_redis import RedisStore

PROCESSES = 16
COMMITS = 60

# Prints, for each commit of its own, the cursor after it, its number and its size.
WRITER = """
import random, sys
from runic_redis import CursorConflict, RedisStore
url, namespace, writer, expecting = sys.argv[1:]
chance = random.Random(int(writer))
with RedisStore.from_url(url, namespace=namespace) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(COMMITS)):
        events = [{"writer": int(writer), "commit": number}] * chance.randrange(1, 4)
        while True:
            expected = store.cursor("order-1") if expecting == "expecting" else None
            try:
                print(store.append("order-1", events, expected_cursor=expected), number, len(events))
                break
            except CursorConflict:
                continue
""".replace("COMMITS", str(COMMITS))


@pytest.mark.parametrize("mode", ["blind", "expecting", "mixed"])
def test_sixteen_processes_append_to_one_workflow(embedded: str, namespace: str, mode: str) -> None:
    writers: list[subprocess.Popen[str]] = []
    for writer in range(PROCESSES):
        expecting = "expecting" if mode == "expecting" or (mode == "mixed" and writer % 2) else "blind"
        writers.append(
            subprocess.Popen(
                [sys.executable, "-c", WRITER, embedded, namespace, str(writer), expecting],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    for process in writers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in writers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    acknowledged = []
    for writer, process in enumerate(writers):
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        for line in output.splitlines():
            cursor, number, size = map(int, line.split())
            acknowledged.append((cursor, writer, number, size))

    assert len(acknowledged) == PROCESSES * COMMITS
    with RedisStore.from_url(embedded, namespace=namespace) as store:
        streamed: list[Any] = list(store.stream("order-1"))
        assert store.cursor("order-1") == len(streamed)
    end = 0
    for cursor, writer, number, size in sorted(acknowledged):
        assert cursor - size == end, "the cursors have a gap"
        assert streamed[end:cursor] == [{"writer": writer, "commit": number}] * size
        end = cursor
    assert end == len(streamed)
    assert Counter(event["writer"] for event in streamed) == Counter(
        writer for _, writer, _, size in acknowledged for _ in range(size)
    )
