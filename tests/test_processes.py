"""Sixteen processes write to one workflow: no event is lost or doubled, and cursors have no gap."""

from collections import Counter
from contextlib import ExitStack
from typing import Any

from runic_redis import RedisStore
from tests.forking import Forked

PROCESSES = 16
COMMITS = 30

# The writers that pass an expected cursor, for each workflow.
MODES = {"blind": lambda _: False, "expecting": lambda _: True, "mixed": lambda writer: writer % 2 == 1}

# Prints the cursor, number and size of each of its commits to a workflow, then an empty line.
WRITER = """
import random, sys
from runic_redis import CursorConflict, RedisStore
url, namespace, writer, *expecting = sys.argv[1:]
chance = random.Random(int(writer))
with RedisStore.from_url(url, namespace=namespace) as store:
    print("ready", flush=True)
    for workflow_id in map(str.strip, sys.stdin):
        for number in range(int(COMMITS)):
            events = [{"writer": int(writer), "commit": number}] * chance.randrange(1, 4)
            while True:
                expected = store.cursor(workflow_id) if workflow_id in expecting else None
                try:
                    print(store.append(workflow_id, events, expected_cursor=expected), number, len(events))
                    break
                except CursorConflict:
                    continue
        print(flush=True)
""".replace("COMMITS", str(COMMITS))


def test_sixteen_processes_append_to_one_workflow(embedded: str, namespace: str) -> None:
    """All processes write to the workflow of one mode, then to that of the next."""
    with ExitStack() as stack:
        writers = []
        for writer in range(PROCESSES):
            expecting = [mode for mode, expects in MODES.items() if expects(writer)]
            writers.append(stack.enter_context(Forked(WRITER, embedded, namespace, writer, *expecting)))
        for process in writers:
            assert process.stdout.readline() == "ready\n"
        for mode in MODES:
            for process in writers:
                process.stdin.write(f"{mode}\n")
                process.stdin.flush()
            check(embedded, namespace, mode, [list(iter(process.stdout.readline, "\n")) for process in writers])
        for process in writers:
            assert process.communicate() == ("", "")
            assert process.returncode == 0


def check(url: str, namespace: str, workflow_id: str, said: list[list[str]]) -> None:
    """Compare the commits that the writers reported with the stored events."""
    acknowledged = []
    for writer, lines in enumerate(said):
        for line in lines:
            cursor, number, size = map(int, line.split())
            acknowledged.append((cursor, writer, number, size))

    assert len(acknowledged) == PROCESSES * COMMITS
    with RedisStore.from_url(url, namespace=namespace) as store:
        streamed: list[Any] = list(store.stream(workflow_id))
        assert store.cursor(workflow_id) == len(streamed)
    end = 0
    for cursor, writer, number, size in sorted(acknowledged):
        assert cursor - size == end, "the cursors have a gap"
        assert streamed[end:cursor] == [{"writer": writer, "commit": number}] * size
        end = cursor
    assert end == len(streamed)
    assert Counter(event["writer"] for event in streamed) == Counter(
        writer for _, writer, _, size in acknowledged for _ in range(size)
    )
