"""The `eventsourcing` library: its event store, with its default JSON transcoder.

The files beside this one choose the database. The events are of the library's class, with the same fields.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from eventsourcing.domain import DomainEvent
from eventsourcing.persistence import DatetimeAsISO, DecimalAsStr, InfrastructureFactory, Transcoding, UUIDAsHex

from ..events import MIXED, Kind, Mixed
from .base import Contender


@dataclass(frozen=True)
class DomainMixed(DomainEvent):
    """Mixed as the library needs it: with the workflow's id, the event's number and its time."""

    input_hash: bytes
    output_hash: bytes
    arguments: dict[str, Any]
    labels: dict[str, str]
    step: str
    attempt: int


class BytesAsHex(Transcoding):
    """Bytes in JSON."""

    type = bytes
    name = "bytes_hex"

    def encode(self, obj: bytes) -> str:
        return obj.hex()

    def decode(self, data: str) -> bytes:
        return bytes.fromhex(data)


_FIELDS = [one.name for one in fields(Mixed)]


class EventSourcing(Contender):
    """The common part of both databases. A subclass opens its database with `connect`."""

    usual = False

    def connect(self, environment: dict[str, str]) -> None:
        self.factory: Any = InfrastructureFactory.construct(environment)
        # The same as its class Application registers, and bytes.
        transcoder = self.factory.transcoder()
        for transcoding in (UUIDAsHex(), DecimalAsStr(), DatetimeAsISO(), BytesAsHex()):
            transcoder.register(transcoding)
        self.store: Any = self.factory.event_store(mapper=self.factory.mapper(transcoder=transcoder))

    def close(self) -> None:
        self.factory.close()

    def prepare(self, key: str, at: int, events: Sequence[Any], kind: Kind) -> Any:  # noqa: ARG002
        workflow = _workflow(key)
        now = DomainMixed.create_timestamp()
        return [
            DomainMixed(
                originator_id=workflow,
                originator_version=at + number,
                timestamp=now,
                **{name: getattr(event, name) for name in _FIELDS},
            )
            for number, event in enumerate(events, 1)
        ]

    def append(self, key: str, prepared: Any) -> object:  # noqa: ARG002 - the events say where they belong
        return self.store.put(prepared)

    def read(self, key: str, kind: Kind) -> list[Any]:  # noqa: ARG002
        return list(self.store.get(_workflow(key)))

    def mark(self, key: str, cursor: int) -> Any:  # noqa: ARG002
        return cursor

    def read_after(self, key: str, mark: Any, kind: Kind) -> list[Any]:  # noqa: ARG002
        return list(self.store.get(_workflow(key), gt=mark))

    def plain(self, events: Sequence[Any]) -> list[Any]:
        return [MIXED.build([getattr(event, name) for name in _FIELDS]) for event in events]

    def delete(self, key: str) -> None:
        """Delete nothing: the tables are dropped as a whole."""


def _workflow(key: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, key)


CONTENDERS: list[type[Contender]] = []
