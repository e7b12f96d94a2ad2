"""The time from a commit until its event is shown: ``python -m tests.measure_tail``.

`runic-redis tail` runs in a separate process, following one workflow or a whole namespace, without and with a feed, on
an embedded server. Each event is appended alone, and timed until its line has been read.
"""

import json
import subprocess
import sys
import tempfile
import time
from statistics import median, quantiles

from runic_redis import RedisStore

_TIMES = 300


def main() -> None:
    """Measure, and print milliseconds."""
    with tempfile.TemporaryDirectory(prefix="runic-redis-") as directory:
        url = f"embedded://{directory}"
        for what, ids, feed in (
            ("one workflow", ["w-1"], False),
            ("the namespace, of 10 000 workflows", [], False),
            ("the namespace, from its feed", [], True),
        ):
            with RedisStore.from_url(url, namespace="fed" if feed else "measured", feed=feed) as store:
                store.append_many([(f"w-{n}", [{"n": 0}]) for n in range(10_000)])
                took_ms = measure(store, url, ids)
                nearly_all = quantiles(took_ms, n=100)[98]
                print(
                    f"{what}: median {median(took_ms):.1f} ms, 99 of 100 within {nearly_all:.1f} ms, longest "
                    f"{max(took_ms):.1f} ms"
                )


def measure(store: RedisStore, url: str, ids: list[str]) -> list[float]:
    """Return the times of many events, in milliseconds."""
    namespace = store.context.keys.namespace
    command = [sys.executable, "-m", "runic_redis.cli.main", "tail", *ids, "--json", "-u", url, "-n", namespace]
    took_ms = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        time.sleep(3)  # until it follows
        for number in range(_TIMES):
            workflow_id = f"w-{1 if ids else number}"
            store.append(workflow_id, [{"measured": number}])
            began_s = time.perf_counter()
            assert json.loads(tail.stdout.readline())["fields"] == {"measured": number}
            took_ms.append((time.perf_counter() - began_s) * 1000)
        tail.terminate()
    return took_ms


if __name__ == "__main__":
    main()
