"""redis-benchmark's XADD of the same event, if the program is on PATH. It shows the speed of the server and a C client.

It encodes nothing and measures itself.
"""

import csv
import io
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from ..events import OrderPlaced
from ..figures import Turn
from .base import Contender, Missing
from .by_hand import ByHand


class RedisBenchmark(Contender):
    name = "redis-benchmark"
    about = "XADD of as many bytes as the event has, encoded already, over the same transport; measured by itself"

    def open(self) -> None:
        found = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
        if found is None:
            raise Missing("the program redis-benchmark is not on PATH")
        if self.place.server.plain_url is None:
            raise Missing(f"measured on one server, not on {self.place.server.scheme}://")
        address = self.place.server.address()
        if address.get("password") or address.get("username"):
            raise Missing("it would show the password to everybody who lists processes")
        if self.place.server.transport == "TLS":
            raise Missing("measured over unix sockets and TCP, not TLS")
        self._by_hand = ByHand(self.place)
        self._by_hand.open()
        socket = address.get("path")
        where = ["-s", socket] if socket else ["-h", address.get("host", "localhost"), "-p", address.get("port", 6379)]
        self._command = [found, *map(str, where), "--dbnum", str(address.get("db", 0)), "--csv", "--precision", "3"]

    def close(self) -> None:
        self._by_hand.close()

    def delete(self, key: str) -> None:
        self._by_hand.client.unlink(key)

    def run_appends(self, key: str, event: Any, calls: int, callers: int) -> Turn:
        # An argument ends at its first zero byte, so other bytes take the place of zeros.
        self._event, self._sent = event, self._by_hand.pack(event).replace(b"\0", b"\1")
        command = ["-c", str(callers), "-n", str(calls), "XADD", key, "*", "t", "order_placed", "d", self._sent]
        done = subprocess.run([*self._command, *command], capture_output=True, check=False, timeout=60)
        rows = list(csv.DictReader(io.StringIO(done.stdout.decode(errors="replace"))))
        if done.returncode or len(rows) != 1 or "p50_latency_ms" not in rows[0]:
            raise Missing(f"it failed: {done.stderr.decode(errors='replace').strip() or done.stdout[:200]!r}")
        latencies = {name: float(rows[0][f"{name}_latency_ms"]) * 1e3 for name in ("p50", "p95", "p99")}
        return Turn(1e6 / float(rows[0]["rps"]), latencies)

    def read(self, key: str, kind: type[Any] = OrderPlaced) -> list[Any]:  # noqa: ARG002
        # The program cannot read. This only verifies that it wrote the event.
        return [fields[b"d"] for _, fields in self._by_hand.client.xrange(key)]

    def plain(self, events: Sequence[Any]) -> list[Any]:
        return [self._event if data == self._sent else data for data in events]


CONTENDERS = [RedisBenchmark]
