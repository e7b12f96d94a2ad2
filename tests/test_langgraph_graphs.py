"""Real graphs have the same outcomes on our savers as on LangGraph's saver in memory."""

import asyncio
import difflib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from runic_redis.langgraph import AsyncRunicSaver, RunicSaver
from tests.langgraph_outcomes import OUTCOMES
from tests.langgraph_runs import Run
from tests.servers import RunningServer, url_on

# How often each outcome is compared.
RUNS = int(os.environ.get("LANGGRAPH_RUNS", "1"))
FACES = {"invoke": RunicSaver, "ainvoke": AsyncRunicSaver}


@contextmanager
def runner_of(face: str) -> Iterator[asyncio.Runner | None]:
    if face == "invoke":
        yield None
        return
    with asyncio.Runner() as runner:
        yield runner


def report_of(name: str, contexts: Callable[[], Any], face: str) -> str:
    """Return all that an outcome shows on a saver."""
    with runner_of(face) as runner:
        run = Run(contexts, runner)
        try:
            OUTCOMES[name](run)
            return run.report()
        finally:
            run.close()


@cache
def expected_of(name: str, face: str) -> str:
    """Return all that an outcome shows on LangGraph's saver in memory."""
    saver = InMemorySaver()
    return report_of(name, lambda: saver, face)


def differences(expected: str, found: str) -> str:
    lines = [
        [line for note in report.splitlines() for line in json.dumps(json.loads(note), indent=1).splitlines()]
        for report in (expected, found)
    ]
    return "\n".join(difflib.unified_diff(*lines, "in memory", "here", lineterm="", n=12))


@pytest.mark.parametrize("repetition", range(RUNS))
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("name", OUTCOMES)
def test_an_outcome_is_that_of_the_saver_in_memory(
    valkey: RunningServer, namespace: str, name: str, face: str, repetition: int
) -> None:
    found = report_of(name, partial(FACES[face].from_url, valkey.url(), namespace=namespace), face)
    expected = expected_of(name, face)
    assert found == expected, differences(expected, found)


@pytest.mark.parametrize(("kind", "face"), [("redis_6_2", "invoke"), ("cluster_nodes", "ainvoke")])
def test_outcomes_on_other_servers(request: pytest.FixtureRequest, namespace: str, kind: str, face: str) -> None:
    url = url_on(request, kind, namespace)
    for number, name in enumerate(OUTCOMES):
        found = report_of(name, partial(FACES[face].from_url, url, namespace=f"{namespace}-{number}"), face)
        expected = expected_of(name, face)
        assert found == expected, differences(expected, found)


def test_a_report_shows_a_difference() -> None:
    """A saver that loses writes of a finished task, or that lists checkpoints in another order, is found out."""

    class Forgetful(InMemorySaver):
        def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
            super().put_writes(config, list(writes)[:1], task_id, task_path)

    class Unordered(InMemorySaver):
        def list(self, *args: Any, **options: Any) -> Any:
            return iter(sorted(super().list(*args, **options), key=lambda saved: str(saved.checkpoint["id"])))

    for kind, name in ((Forgetful, "interrupts_of_parallel_nodes"), (Unordered, "steps_in_a_row")):
        saver = kind()
        with pytest.raises(AssertionError):
            assert report_of(name, lambda saver=saver: saver, "invoke") == expected_of(name, "invoke")


def test_there_are_twenty_outcomes() -> None:
    assert len(OUTCOMES) >= 20
