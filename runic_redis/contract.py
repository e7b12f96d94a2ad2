"""What a store is, for code that uses one: protocols for its capabilities, and the questions to ask.

Ported from the behaviour ``Runic.Runner.Store`` of Elixir's Runic, where a store must have ``init_store``, ``save``
and ``load``, and may have the rest; a failure raises instead of returning an error tuple. Code that uses a store
asks for capabilities, never for a class.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, runtime_checkable

__all__ = [
    "Capabilities",
    "CursorStore",
    "EncodingStore",
    "FactStore",
    "SnapshotStore",
    "Store",
    "StreamStore",
    "capabilities",
    "supports_stream",
]


class Store(Protocol):
    """The least that a store can do; what Runic calls ``init_store`` is its construction."""

    def save(self, workflow_id: str, log: list[Any], /) -> None:
        """Save a whole list of events over the one before."""

    def load(self, workflow_id: str, /) -> list[Any]:
        """The list of events that was saved."""


@runtime_checkable
class StreamStore(Protocol):
    """A store of streams of events."""

    def append(self, workflow_id: str, events: Iterable[Any], /) -> int:
        """Append events; the cursor after them."""

    def stream(self, workflow_id: str, /) -> Iterator[Any]:
        """The events, in order."""


@runtime_checkable
class CursorStore(StreamStore, Protocol):
    """A store of streams that knows cursors: it reads on from one, and appends at one only.

    Its `append` takes ``expected_cursor``, ``lease`` and ``snapshot`` as well, as `RedisStore.append` does.
    """

    def stream_records(self, workflow_id: str, /, *, after: int = 0) -> Iterator[Any]:
        """The events with a higher cursor, in order, each in a record with its ``cursor`` and its ``event``."""

    def trim(self, workflow_id: str, /, *, keep: int = 0) -> int:
        """Remove what the snapshot covers, the last so many events aside."""

    def complete(self, workflow_id: str, /) -> None:
        """Mark the workflow as finished."""


@runtime_checkable
class EncodingStore(Protocol):
    """A store that encodes without storing. These methods send nothing, and a store for asyncio has them as they are.

    A session uses them to reject an event or a state that the store could not take, before it counts as recorded.
    """

    def encode_events(self, events: Iterable[Any], /) -> Sequence[Any]:
        """The events of a commit, checked and encoded, to be passed to `append`.

        The sequence has the attributes ``encoded_bytes`` and ``stored_bytes``.
        """

    def encode_state(self, state: Any, /) -> bytes:
        """A session's state, as the data of a snapshot."""

    def decode_state(self, data: bytes, /) -> Any:
        """A session's state, from the data of a snapshot."""


@runtime_checkable
class SnapshotStore(Protocol):
    """A store of snapshots."""

    def save_snapshot(self, workflow_id: str, cursor: int, data: bytes, /) -> None:
        """Save a state as of a cursor."""

    def load_snapshot(self, workflow_id: str, /) -> tuple[int, bytes]:
        """The cursor and the state that were saved."""


@runtime_checkable
class FactStore(Protocol):
    """A store of facts."""

    def save_fact(self, fact_hash: str | bytes, value: Any, /) -> None:
        """Keep a value under its hash."""

    def load_fact(self, fact_hash: str | bytes, /) -> Any:
        """The value that is kept under a hash."""


def supports_stream(store: object) -> TypeGuard[StreamStore]:
    """Whether a store has both ``append`` and ``stream``."""
    return isinstance(store, StreamStore)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do besides `save` and `load`.

    Attributes:
        stream: append events, and stream them.
        cursors: append at a cursor and stream from one; lease, complete and trim.
        snapshots: save and load snapshots.
        facts: save and load facts.
        encoding: encode events and states without storing them.
    """

    stream: bool
    cursors: bool
    snapshots: bool
    facts: bool
    encoding: bool


def capabilities(store: object) -> Capabilities:
    """What a store, or one for asyncio, can do: by the methods that it has, whatever its class."""
    return Capabilities(
        stream=isinstance(store, StreamStore),
        cursors=isinstance(store, CursorStore),
        snapshots=isinstance(store, SnapshotStore),
        facts=isinstance(store, FactStore),
        encoding=isinstance(store, EncodingStore),
    )
