"""The `eventsourcing` library: its event store, with its default JSON transcoder.

The files beside this one choose the database. The events are of the library's class, with the same fields.
"""

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from eventsourcing.domain import DomainEvent
from eventsourcing.persistence import DatetimeAsISO, DecimalAsStr, InfrastructureFactory, Transcoding, UUIDAsHex

from ..events import FLAT, MIXED, Flat, Kind, Mixed
from .base import Contender, Place


@dataclass(frozen=True)
class DomainMixed(DomainEvent):
    """Mixed as the library needs it: with the workflow's id, the event's number and its time."""

    input_hash: bytes
    output_hash: bytes
    arguments: dict[str, Any]
    labels: dict[str, str]
    step: str
    attempt: int


@dataclass(frozen=True)
class DomainFlat(DomainEvent):
    """Flat as the library needs it."""

    step: str
    attempt: int
    score: float
    final: bool


class BytesAsHex(Transcoding):
    """Bytes in JSON."""

    type = bytes
    name = "bytes_hex"

    def encode(self, obj: bytes) -> str:
        return obj.hex()

    def decode(self, data: str) -> bytes:
        return bytes.fromhex(data)


# The library's class for each kind, and the names of its fields.
_CLASSES: dict[Kind, tuple[type[Any], list[str]]] = {
    FLAT: (DomainFlat, [one.name for one in fields(Flat)]),
    MIXED: (DomainMixed, [one.name for one in fields(Mixed)]),
}
_KINDS = {cls: kind for kind, (cls, _) in _CLASSES.items()}
# As many rows come with one SELECT, and are in one transaction as the log is written. Pages of 500, as its
# subscriptions read them, and of 10,000 take as long.
_PAGE = 2_000


class EventSourcing(Contender):
    """The common part of both databases. A subclass opens its database with `connect`."""

    usual = False
    _recorder: Any = None

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._starts: dict[str, int] = {}

    def connect(self, environment: dict[str, str]) -> None:
        self.factory: Any = InfrastructureFactory.construct(environment)
        # The same as its class Application registers, and bytes.
        transcoder = self.factory.transcoder()
        for transcoding in (UUIDAsHex(), DecimalAsStr(), DatetimeAsISO(), BytesAsHex()):
            transcoder.register(transcoding)
        self.store: Any = self.factory.event_store(mapper=self.factory.mapper(transcoder=transcoder))

    def close(self) -> None:
        self.factory.close()

    def open_recorder(self, *, tracking: bool) -> Any:  # noqa: ARG002 - each stores them
        if self._recorder is None:
            self._recorder = self.factory.process_recorder()
        return self._recorder

    def prepare(self, key: str, at: int, events: Sequence[Any], kind: Kind) -> Any:
        workflow = _workflow(key)
        return [_domain_event(workflow, at + number, event, kind) for number, event in enumerate(events, 1)]

    def append(self, key: str, prepared: Any) -> object:  # noqa: ARG002 - the events say where they belong
        return self.store.put(prepared)

    def read(self, key: str, kind: Kind) -> list[Any]:  # noqa: ARG002
        return list(self.store.get(_workflow(key)))

    def mark(self, key: str, cursor: int) -> Any:  # noqa: ARG002
        return cursor

    def read_after(self, key: str, mark: Any, kind: Kind) -> list[Any]:  # noqa: ARG002
        return list(self.store.get(_workflow(key), gt=mark))

    def plain(self, events: Sequence[Any]) -> list[Any]:
        made = []
        for event in events:
            kind = _KINDS[type(event)]
            made.append(kind.build([getattr(event, name) for name in _CLASSES[kind][1]]))
        return made

    def write_commits(self, key: str, commits: Sequence[tuple[str, Any]], kind: Kind) -> None:
        self._starts[key] = self.store.recorder.max_notification_id() or 0
        versions: Counter[str] = Counter()
        for at in range(0, len(commits), _PAGE):
            made = []
            for workflow, event in commits[at : at + _PAGE]:
                versions[workflow] += 1
                made.append(_domain_event(_workflow(f"{key}:{workflow}"), versions[workflow], event, kind))
            self.store.put(made)

    def follow(self, key: str) -> Iterator[Any]:
        """Read the notification log as its subscriptions do, without their second thread, which only slows it."""
        recorder, to_event = self.store.recorder, self.store.mapper.to_domain_event
        last = self._starts[key]
        while page := recorder.select_notifications(last, _PAGE, inclusive_of_start=False):
            for notification in page:
                yield to_event(notification)
            last = page[-1].id

    def delete(self, key: str) -> None:
        """Delete nothing: the tables are dropped as a whole."""


def _domain_event(workflow: uuid.UUID, version: int, event: Any, kind: Kind) -> Any:
    cls, names = _CLASSES[kind]
    values = {name: getattr(event, name) for name in names}
    return cls(originator_id=workflow, originator_version=version, timestamp=cls.create_timestamp(), **values)


def _workflow(key: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, key)


CONTENDERS: list[type[Contender]] = []
