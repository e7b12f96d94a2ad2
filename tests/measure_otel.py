"""The cost of OpenTelemetry, used and unused: ``python -m tests.measure_otel``.

Four processes take turns on one embedded server:

- the code before there was a seam for OpenTelemetry (``--before``, a git revision),
- the current code,
- the current code, instrumented without an SDK,
- the current code, instrumented with an SDK that exports nothing.

Each turn is timed. The ratios compare turns of the same round.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path
from statistics import median, quantiles
from typing import IO, Any

_ROUNDS = 200
_VARIANTS = {
    "before the seam": "plain",
    "not instrumented": "plain",
    "instrumented, without an SDK": "api",
    "instrumented, with an SDK": "sdk",
}
_ROOT = Path(__file__).parent.parent
# The last commit without the seam.
_BEFORE = "e383b27"


def main() -> None:
    """Measure, and print the ratios of times to those before the seam."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", default=_BEFORE)
    parser.add_argument("--child")
    parser.add_argument("--url")
    options = parser.parse_args()
    if options.child:
        asyncio.run(serve(options.child, options.url))
        return
    with tempfile.TemporaryDirectory(prefix="runic-redis-") as directory:
        tree = Path(directory) / "before"
        archive = subprocess.run(["git", "archive", options.before], cwd=_ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            tar.extractall(tree, filter="data")
        url = f"embedded://{directory}/server"
        roots = [tree, _ROOT, _ROOT, _ROOT]
        children = [start(root, variant, url) for root, variant in zip(roots, _VARIANTS.values(), strict=True)]
        try:
            measure(children)
        finally:
            for child in children:
                child.kill()
                child.wait()


def start(root: Path, variant: str, url: str) -> "subprocess.Popen[str]":
    """Start a process that runs a tree's code and takes a turn for each line of its input."""
    command = [sys.executable, str(Path(__file__)), "--child", variant, "--url", url]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root
    )
    assert Path(answer(child)) == root / "runic_redis" / "__init__.py", "the process runs the code of another tree"
    return child


def measure(children: "list[subprocess.Popen[str]]") -> None:
    """Let the processes take turns, and print the ratios."""
    for work in ("append", "tasks", "stream"):
        ratios: list[list[float]] = [[] for _ in children]
        base_us = []
        for _ in range(_ROUNDS):
            took_s = [0.0] * len(children)
            # The order is random, because it matters on few processors.
            for place in random.sample(range(len(children)), len(children)):
                send(children[place], work)
                took_s[place] = float(answer(children[place]))
            base_us.append(took_s[0] * 1e6)
            for place, own_s in enumerate(took_s):
                ratios[place].append(own_s / took_s[0])
        print(f"{work}: {median(base_us):.1f} us before the seam")
        for name, found in list(zip(_VARIANTS, ratios, strict=True))[1:]:
            low, _, high = quantiles(found, n=4)
            print(f"  {name}: {median(found):.3f} times that ({low:.3f} to {high:.3f})", flush=True)


def send(child: "subprocess.Popen[str]", line: str) -> None:
    pipe: IO[str] | None = child.stdin
    assert pipe is not None
    pipe.write(f"{line}\n")
    pipe.flush()


def answer(child: "subprocess.Popen[str]") -> Any:
    assert child.stdout is not None
    return json.loads(child.stdout.readline())


async def serve(variant: str, url: str) -> None:
    """Take turns. Print the seconds of one operation in each; for a stream, the seconds of one event."""
    import runic_redis  # noqa: PLC0415 - imported from the tree of this process

    print(json.dumps(runic_redis.__file__), flush=True)
    namespace = f"measured-{os.getpid()}"
    with runic_redis.RedisStore.from_url(url, namespace=namespace) as store:
        async with runic_redis.AsyncRedisStore.from_url(url, namespace=namespace) as tasks:
            for one in (store, tasks):
                instrument_as(one, variant)
            store.append_many([("long", [{"n": n} for n in range(at, at + 10)]) for at in range(0, 10_000, 10)])
            for line in sys.stdin:
                began_s = time.perf_counter()
                if line == "append\n":
                    for number in range(100):
                        store.append(f"w-{number % 10}", [{"n": number}])
                    count = 100
                elif line == "tasks\n":
                    for number in range(10):
                        await asyncio.gather(*[tasks.append(f"w-{n}", [{"n": number}]) for n in range(64)])
                    count = 640
                else:
                    count = sum(1 for _ in store.stream("long"))
                print(json.dumps((time.perf_counter() - began_s) / count), flush=True)


def instrument_as(store: Any, variant: str) -> None:
    """Instrument a store as a variant requires."""
    if variant == "plain":
        return
    from runic_redis.otel import instrument  # noqa: PLC0415

    if variant == "api":
        instrument(store)
        return
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

    meters = MeterProvider(metric_readers=[InMemoryMetricReader()])
    instrument(store, tracer_provider=TracerProvider(), meter_provider=meters)


if __name__ == "__main__":
    main()
