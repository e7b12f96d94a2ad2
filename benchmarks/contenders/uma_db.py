"""UmaDB: the server of its wheel, on a port of this machine, and its client. It syncs each commit, so it is always
measured with fsync. An event is MessagePack of its row, tagged with its workflow.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack
import umadb

from ..events import Kind
from .base import Contender, Missing

_START_S = 20


class UmaDB(Contender):
    name = "UmaDB"
    about = "the server of its wheel, its client; MessagePack rows; it syncs each commit"
    usual = False

    def open(self) -> None:
        if not self.place.fsync:
            raise Missing("it syncs each commit, so it is measured in the cases with fsync")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        path = str(self.place.directory / "uma.db")
        program = "import sys, umadb; umadb.run_server_from_args(['umadb', *sys.argv[1:]])"
        command = [sys.executable, "-c", program, "--listen", address, "--db-path", path]
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + _START_S
        while True:
            try:
                self._client = umadb.Client(f"http://{address}")
                self._client.head()
            except umadb.TransportError as error:
                if self._server.poll() is not None or time.monotonic() > until:
                    self.close()
                    raise Missing(f"its server did not start: {error}") from error
                time.sleep(0.05)
            else:
                return

    def close(self) -> None:
        self._server.kill()
        self._server.wait()

    def prepare(self, key: str, at: int, events: Sequence[Any], kind: Kind) -> Any:  # noqa: ARG002
        return events, kind

    def append(self, key: str, prepared: Any) -> object:
        events, kind = prepared
        row, name = kind.row, kind.name
        return self._client.append([umadb.Event(name, msgpack.packb(row(event)), [key]) for event in events])

    def read(self, key: str, kind: Kind) -> list[Any]:
        found = self._client.read(umadb.Query([umadb.QueryItem(tags=[key])]))
        return [kind.build(msgpack.unpackb(one.event.data)) for one in found]

    def open_dcb_recorder(self) -> Any:
        return _Recorder(self._client)


class _Recorder:
    """The client, with the methods of the `eventsourcing` library's recorder that the benchmark calls."""

    def __init__(self, client: umadb.Client) -> None:
        self._client = client

    def append(self, events: Sequence[Any], condition: Any = None) -> int:
        given = condition and umadb.AppendCondition(_query(condition.fail_if_events_match), condition.after)
        return self._client.append([umadb.Event(one.type, one.data, one.tags) for one in events], given)

    def read(self, query: Any) -> Iterator[umadb.SequencedEvent]:
        return iter(self._client.read(_query(query)))


def _query(query: Any) -> umadb.Query:
    return umadb.Query([umadb.QueryItem(one.types, one.tags) for one in query.items])


CONTENDERS = [UmaDB]
