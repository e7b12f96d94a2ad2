"""The protocols of a store, one for each capability, and functions that tell which capabilities a store has.

They are a port of the behaviour ``Runic.Runner.Store`` of Elixir's Runic. There, a store must have ``init_store``,
``save`` and ``load``, and the other functions are optional. Here, a failure raises instead of returning an error tuple.
Code that uses a store asks for capabilities, never for a class.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeGuard, runtime_checkable


class Store(Protocol):
    """The minimum of a store. The constructor does the work of Runic's ``init_store``."""

    def save(self, workflow_id: str, log: list[Any], /) -> None:
        """Save a whole list of events, in place of the last one."""

    def load(self, workflow_id: str, /) -> list[Any]:
        """Return the saved list of events."""


@runtime_checkable
class StreamStore(Protocol):
    """A store of streams of events."""

    def append(self, workflow_id: str, events: Iterable[Any], /) -> int:
        """Append events and return the cursor after them."""

    def stream(self, workflow_id: str, /) -> Iterator[Any]:
        """Return an iterator over the events, in order."""


@runtime_checkable
class CursorStore(StreamStore, Protocol):
    """A store of streams with cursors: it reads after a cursor, and appends only at an expected cursor.

    Its `append` also takes ``expected_cursor``, ``lease`` and ``snapshot``, as `RedisStore.append` does.
    """

    def stream_records(self, workflow_id: str, /, *, after: int = 0) -> Iterator[Any]:
        """Return an iterator over the events after a cursor, in order, as records with ``cursor`` and ``event``."""

    def trim(self, workflow_id: str, /, *, keep: int = 0) -> int:
        """Trim the events that the snapshot covers, except for the last `keep` events."""

    def complete(self, workflow_id: str, /) -> None:
        """Mark the workflow as finished."""


@runtime_checkable
class EncodingStore(Protocol):
    """A store that can encode without storing. These methods send nothing, and are not async in a store for asyncio.

    A session uses them to reject an event or a state that the store cannot encode, before it records an event.
    """

    def encode_events(self, events: Iterable[Any], /) -> Sequence[Any]:
        """Return the events of a commit, checked and encoded, to pass to `append`.

        The sequence has the attributes ``encoded_bytes`` and ``stored_bytes``.
        """

    def encode_state(self, state: Any, /) -> bytes:
        """Return a session's state as the data of a snapshot."""

    def decode_state(self, data: bytes, /) -> Any:
        """Return a session's state from the data of a snapshot."""


@runtime_checkable
class SnapshotStore(Protocol):
    """A store of snapshots."""

    def save_snapshot(self, workflow_id: str, cursor: int, data: bytes, /) -> None:
        """Save a state at a cursor."""

    def load_snapshot(self, workflow_id: str, /) -> tuple[int, bytes]:
        """Return the saved cursor and state."""


@runtime_checkable
class MessageStore(Protocol):
    """A store with an inbox for each workflow.

    Its `append` also takes ``consumes`` and ``unless_cancelled``, as `RedisStore.append` does.
    """

    def send(self, workflow_id: str, message: Any, /) -> str:
        """Store a message in the inbox of a workflow, wake the workflow, and return the message's id."""

    def inbox(self, workflow_id: str, /, *, wait_s: float = 0.0) -> list[Any]:
        """Return the messages that no commit has consumed, the oldest first, each with its ``body``."""


@runtime_checkable
class TimerStore(Protocol):
    """A store in which a workflow can sleep. Its `append` also takes ``ends_timer``, as `RedisStore.append` does."""

    def sleep(self, lease: Any, until: float | datetime | None, name: str = "", /) -> None:
        """Release a lease until a time, and store this time as the timer of the workflow."""

    def timer(self, workflow_id: str, /) -> Any:
        """Return the timer of a workflow, with ``name``, ``until`` and ``left_s``; None if it has none."""


@runtime_checkable
class TagStore(Protocol):
    """A store that finds commits by their tags. Its `append` also takes ``tags``, as `RedisStore.append` does."""

    def find(
        self,
        workflow_id: str,
        /,
        *,
        tag: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[Any]:
        """Return the commits with a tag, or a tag with a prefix, each with ``tag``, ``cursor`` and ``events``."""


@runtime_checkable
class FactStore(Protocol):
    """A store of facts."""

    def save_fact(self, fact_hash: str | bytes, value: Any, /) -> None:
        """Store a value under its hash."""

    def load_fact(self, fact_hash: str | bytes, /) -> Any:
        """Return the value that is stored under a hash."""


def supports_stream(store: object) -> TypeGuard[StreamStore]:
    """Return whether a store has both ``append`` and ``stream``."""
    return isinstance(store, StreamStore)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities of a store besides `save` and `load`.

    Attributes:
        stream: append events, and stream them.
        cursors: append at a cursor and stream from one; lease, complete and trim.
        snapshots: save and load snapshots.
        facts: save and load facts.
        encoding: encode events and states without storing them.
        messages: send messages to workflows, and consume them.
        timers: let a workflow sleep.
        tags: find commits by their tags.
    """

    stream: bool
    cursors: bool
    snapshots: bool
    facts: bool
    encoding: bool
    messages: bool
    timers: bool
    tags: bool


def capabilities(store: object) -> Capabilities:
    """Return the capabilities of a store, or of a store for asyncio, by its methods and not by its class."""
    return Capabilities(
        stream=isinstance(store, StreamStore),
        cursors=isinstance(store, CursorStore),
        snapshots=isinstance(store, SnapshotStore),
        facts=isinstance(store, FactStore),
        encoding=isinstance(store, EncodingStore),
        messages=isinstance(store, MessageStore),
        timers=isinstance(store, TimerStore),
        tags=isinstance(store, TagStore),
    )
