"""LangGraph's own conformance suite for checkpoint savers, on both savers, on one server and on a cluster."""

import asyncio
from collections.abc import AsyncGenerator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest
from langgraph.checkpoint.conformance import spec, validate
from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer

from runic_redis.langgraph import AsyncRunicSaver, RunicSaver
from tests.servers import url_on


def count_tests() -> int:
    """Return the number of tests that the suite defines."""
    modules = [import_module(f"{spec.__name__}.{found.name}") for found in iter_modules(spec.__path__)]
    return sum(name.startswith("test_") for module in modules for name in vars(module))


@pytest.mark.parametrize("backend", ["memory", "valkey", "redis_6_2", "cluster_nodes"])
@pytest.mark.parametrize("face", ["sync", "async"])
def test_the_suite_passes(request: pytest.FixtureRequest, backend: str, face: str, namespace: str) -> None:
    url = url_on(request, backend, namespace)

    async def make() -> AsyncGenerator[Any, None]:
        if face == "async":
            async with AsyncRunicSaver.from_url(url, namespace=namespace) as saver:
                yield saver
        else:
            with RunicSaver.from_url(url, namespace=namespace) as saver:
                yield saver

    report = asyncio.run(validate(RegisteredCheckpointer(face, make)))
    failures = {name: result.failures for name, result in report.results.items() if not result.passed}
    assert failures == {}
    assert set(report.results) == {one.value for one in Capability}
    assert sum(result.tests_passed for result in report.results.values()) == count_tests() >= 81
