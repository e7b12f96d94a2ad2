"""salamander-db, an event store in the process. It keeps JSON, so bytes travel as hexadecimal."""

from collections.abc import Sequence
from typing import Any

import salamander

from ..events import Kind, Mixed
from .base import Contender


class SalamanderDB(Contender):
    name = "salamander-db"
    about = 'append_batch at the expected revision, JSON; durability "flush", with fsync "sync"'
    usual = False

    def open(self) -> None:
        self._durability = "sync" if self.place.fsync else "flush"
        self._db = salamander.open(str(self.place.directory / "salamander"))

    def close(self) -> None:
        self._db.close()

    def prepare(self, key: str, at: int, events: Sequence[Any], kind: Kind) -> Any:  # noqa: ARG002
        return at - 1 if at else "no_stream", events

    def append(self, key: str, prepared: Any) -> object:
        revision, events = prepared
        bodies = [{"body": _body(event)} for event in events]
        return self._db.append_batch(key, bodies, expected_revision=revision, durability=self._durability)

    def read(self, key: str, kind: Kind) -> list[Any]:  # noqa: ARG002 - it takes part with mixed events alone
        return [_event(found["body"]) for found in self._db.replay(key)]


def _body(one: Mixed) -> list[Any]:
    return [one.input_hash.hex(), one.output_hash.hex(), one.arguments, one.labels, one.step, one.attempt]


def _event(body: list[Any]) -> Mixed:
    first, second, *others = body
    return Mixed(bytes.fromhex(first), bytes.fromhex(second), *others)


CONTENDERS = [SalamanderDB]
