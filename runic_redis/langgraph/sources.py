"""Reading the threads of other checkpoint savers: of SQLite, PostgreSQL and plain Redis. Nothing there is changed.

Each is read from its tables or keys, one checkpoint at a time. They hold more than its saver returns: the path of a
task and the index of a write.
"""

import base64
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import redis

from runic_redis.errors import ConfigurationError, StoreUnavailable
from runic_redis.langgraph.opaque import OpaqueSerializer

_serde = OpaqueSerializer()
# The prefix of langgraph-checkpoint-plainredis, unless it is given another one.
_PLAIN = "lg"
_EMPTY = "empty"


class Place(NamedTuple):
    """Where a checkpoint of a thread is: its namespace and its id."""

    ns: str
    id: str


class Write(NamedTuple):
    """A write of a task to a checkpoint. `value` is opaque, as all values here are."""

    task_path: str
    task_id: str
    idx: int
    channel: str
    value: Any


class Found(NamedTuple):
    """A checkpoint of a source.

    Attributes:
        parent: the id of its parent, or None.
        checkpoint: the checkpoint, with opaque values of its channels.
        metadata: its metadata.
        writes: the writes to it, in the order in which LangGraph applies them.
    """

    parent: str | None
    checkpoint: dict[str, Any]
    metadata: dict[str, Any]
    writes: list[Write]


class Source(Protocol):
    """Another saver's threads."""

    def count(self) -> int:
        """Return how many threads there are."""

    def threads(self) -> Iterator[str]:
        """Return an iterator over the ids of threads."""

    def places(self, thread: str) -> list[Place]:
        """Return the places of a thread's checkpoints, each after its parent."""

    def read(self, thread: str, place: Place) -> Found | None:
        """Return a checkpoint; None if it has been deleted meanwhile.

        Raises:
            ValueError: it cannot be read: it is encrypted, pickled, or damaged.
        """

    def close(self) -> None:
        """Close the connection."""


def open_source(url: str) -> Source:
    """Return the threads at a URL: ``sqlite:PATH``, ``postgres://…``, ``redis://…``, ``rediss://…`` or ``unix://…``.

    Raises:
        ConfigurationError: the URL cannot be used, or has no checkpoints.
        StoreUnavailable: the database cannot be reached.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        return SqliteSource(rest)
    if scheme in {"postgres", "postgresql"}:
        return PostgresSource(url)
    if scheme in {"redis", "rediss", "unix"}:
        return PlainRedisSource(url)
    raise ConfigurationError(
        f"Threads cannot be imported from {scheme!r:.40}. Nothing was changed. Pass sqlite:PATH, postgres://…, "
        "redis://…, rediss://… or unix://…."
    )


class SqliteSource:
    """The threads of `SqliteSaver` and `AsyncSqliteSaver`, of langgraph-checkpoint-sqlite."""

    def __init__(self, path: str) -> None:
        where = Path(path.removeprefix("//")).absolute()
        if not where.is_file():
            raise ConfigurationError(f"There is no file {str(where)!r}. Nothing was changed. Pass sqlite:PATH.")
        with _database(sqlite3.Error):
            self._connection = sqlite3.connect(f"{where.as_uri()}?mode=ro", uri=True)
        columns = {row[1] for row in self._rows("PRAGMA table_info(writes)")}
        if not columns or not self._rows("PRAGMA table_info(checkpoints)"):
            self.close()
            raise ConfigurationError(f"{str(where)!r} has no tables of LangGraph's checkpoints. Nothing was changed.")
        # An older version has no paths of tasks.
        self._path = "task_path" if "task_path" in columns else "''"

    def count(self) -> int:
        """Return how many threads there are."""
        return int(self._rows("SELECT count(DISTINCT thread_id) FROM checkpoints")[0][0])

    def threads(self) -> Iterator[str]:
        """Return an iterator over the ids of threads."""
        row = self._rows("SELECT min(thread_id) FROM checkpoints")
        while row[0][0] is not None:
            yield row[0][0]
            row = self._rows("SELECT min(thread_id) FROM checkpoints WHERE thread_id > ?", row[0][0])

    def places(self, thread: str) -> list[Place]:
        """Return the places of a thread's checkpoints, each after its parent."""
        query = "SELECT checkpoint_ns, checkpoint_id FROM checkpoints WHERE thread_id = ? ORDER BY 1, 2"
        return [Place(*row) for row in self._rows(query, thread)]

    def read(self, thread: str, place: Place) -> Found | None:
        """Return a checkpoint; None if it has been deleted meanwhile."""
        rows = self._rows(
            "SELECT parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints "
            "WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
            *(thread, *place),
        )
        if not rows:
            return None
        parent, kind, data, metadata = rows[0]
        with _damage():
            checkpoint = _serde.parts(kind, data)
            values = checkpoint.get("channel_values") or {}
            values = {name: _serde.part(kind, one) for name, one in values.items()}
        return Found(
            parent or None,
            {**checkpoint, "channel_values": values},
            json.loads(metadata) if metadata is not None else {},
            _in_order(self._writes(thread, place)),
        )

    def _writes(self, thread: str, place: Place) -> Iterator[Write]:
        # `_path` is the name of a column or an empty text, and no data.
        query = (
            f"SELECT {self._path}, task_id, idx, channel, type, value FROM writes "  # noqa: S608
            "WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
        )
        for task_path, task_id, idx, channel, kind, data in self._rows(query, thread, *place):
            yield Write(task_path, task_id, idx, channel, _serde.loads_typed((kind, data)))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _rows(self, query: str, *args: str) -> list[Any]:
        with _database(sqlite3.Error):
            return self._connection.execute(query, args).fetchall()


class PostgresSource:
    """The threads of `PostgresSaver` and `AsyncPostgresSaver`, of langgraph-checkpoint-postgres."""

    def __init__(self, url: str) -> None:
        try:
            import psycopg  # noqa: PLC0415
            from langgraph.checkpoint.postgres import PostgresSaver  # noqa: PLC0415
            from psycopg.rows import dict_row  # noqa: PLC0415
        except ImportError as error:
            raise ConfigurationError(
                "To read PostgreSQL, install: pip install langgraph-checkpoint-postgres 'psycopg[binary]'. Nothing was "
                "changed."
            ) from error
        self._error = psycopg.Error
        with _database(self._error):
            self._connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)
            self._connection.execute("SET default_transaction_read_only = on")
        tables = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
        if not all(self._rows("SELECT to_regclass(%s) AS found", table)[0]["found"] for table in tables):
            self.close()
            raise ConfigurationError("The database has no tables of LangGraph's checkpoints. Nothing was changed.")
        self._saver = PostgresSaver(self._connection, serde=_serde)

    def count(self) -> int:
        """Return how many threads there are."""
        return int(self._rows("SELECT count(DISTINCT thread_id) AS found FROM checkpoints")[0]["found"])

    def threads(self) -> Iterator[str]:
        """Return an iterator over the ids of threads."""
        row = self._rows("SELECT min(thread_id) AS id FROM checkpoints")
        while row[0]["id"] is not None:
            yield row[0]["id"]
            row = self._rows("SELECT min(thread_id) AS id FROM checkpoints WHERE thread_id > %s", row[0]["id"])

    def places(self, thread: str) -> list[Place]:
        """Return the places of a thread's checkpoints, each after its parent."""
        rows = self._rows("SELECT checkpoint_ns, checkpoint_id FROM checkpoints WHERE thread_id = %s", thread)
        # The order of the database depends on its locale.
        return sorted(Place(row["checkpoint_ns"], row["checkpoint_id"]) for row in rows)

    def read(self, thread: str, place: Place) -> Found | None:
        """Return a checkpoint; None if it has been deleted meanwhile."""
        configurable = {"thread_id": thread, "checkpoint_ns": place.ns, "checkpoint_id": place.id}
        with _database(self._error), _damage():
            found = self._saver.get_tuple({"configurable": configurable})
        if found is None:
            return None
        rows = self._rows(
            "SELECT task_path, task_id, idx, channel, type, blob FROM checkpoint_writes "
            "WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint_id = %s",
            *(thread, *place),
        )
        return Found(
            found.parent_config["configurable"]["checkpoint_id"] if found.parent_config else None,
            dict(found.checkpoint),
            dict(found.metadata),
            _in_order(
                Write(task_path, task_id, idx, channel, _serde.loads_typed((kind, bytes(blob))))
                for task_path, task_id, idx, channel, kind, blob in (row.values() for row in rows)
            ),
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _rows(self, query: str, *args: str) -> list[Any]:
        with _database(self._error):
            return self._connection.execute(query, args).fetchall()


class PlainRedisSource:
    """The threads of langgraph-checkpoint-plainredis, with its prefix ``lg``."""

    def __init__(self, url: str) -> None:
        try:
            self._client: Any = redis.Redis.from_url(url, decode_responses=False)
        except ValueError as error:
            raise ConfigurationError(f"The URL cannot be used: {error}. Nothing was changed.") from error
        with _database(redis.RedisError):
            if self._client.exists(f"{_PLAIN}:threads"):
                return
            official = _has_official(self._client)
        self.close()
        if official:
            raise ConfigurationError(
                "The server has threads of langgraph-checkpoint-redis. This command reads those of "
                "langgraph-checkpoint-plainredis. Nothing was changed. Copy the threads in Python, by `list` and "
                "`get_tuple` of that saver and `put` and `put_writes` of this one."
            )
        raise ConfigurationError(
            f"The database has no key {_PLAIN}:threads, which langgraph-checkpoint-plainredis writes. Nothing was "
            "changed. Check the URL, and the number of the database at its end."
        )

    def count(self) -> int:
        """Return how many threads there are."""
        return len(self._namespaces())

    def threads(self) -> Iterator[str]:
        """Return an iterator over the ids of threads."""
        yield from sorted(self._namespaces())

    def places(self, thread: str) -> list[Place]:
        """Return the places of a thread's checkpoints, each after its parent."""
        namespaces = self._namespaces().get(thread, ())
        with _database(redis.RedisError):
            return sorted(
                Place(ns, one.decode())
                for ns in namespaces
                for one in self._client.zrange(f"{_PLAIN}:idx:{thread}:{ns}", 0, -1)
            )

    def read(self, thread: str, place: Place) -> Found | None:
        """Return a checkpoint; None if it has been deleted meanwhile."""
        at = f"{thread}:{place.ns}:{place.id}"
        with _database(redis.RedisError), _damage():
            raw = self._client.get(f"{_PLAIN}:cp:{at}")
            if raw is None:
                return None
            stored = _serde.parts(*_unwrapped(raw))
            values = self._values(thread, place.ns, stored["checkpoint"].get("channel_versions") or {})
            return Found(
                stored.get("parent_id") or None,
                {**stored["checkpoint"], "channel_values": values},
                stored["metadata"],
                _in_order(_plain_write(*item) for item in self._client.hgetall(f"{_PLAIN}:wr:{at}").items()),
            )

    def _values(self, thread: str, ns: str, versions: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of channels. Some have none, and the values of others have expired."""
        if not versions:
            return {}
        blobs = self._client.mget(
            [f"{_PLAIN}:blob:{thread}:{ns}:{channel}:{version}" for channel, version in versions.items()]
        )
        typed = {name: _unwrapped(blob) for name, blob in zip(versions, blobs, strict=True) if blob is not None}
        return {name: _serde.loads_typed(value) for name, value in typed.items() if value[0] != _EMPTY}

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _namespaces(self) -> dict[str, list[str]]:
        """Return the namespaces of each thread."""
        found: dict[str, list[str]] = {}
        with _database(redis.RedisError):
            entries = self._client.hvals(f"{_PLAIN}:threads")
        for value in entries:
            entry = json.loads(value)
            found.setdefault(entry["thread"], []).append(entry["ns"])
        return found


def _has_official(client: Any) -> bool:
    """Return whether langgraph-checkpoint-redis has its search index here."""
    try:
        names = client.execute_command("FT._LIST")
    except redis.ResponseError:
        return False
    return any(name in {b"checkpoint", b"checkpoints"} for name in names)


def _plain_write(field: bytes, blob: bytes) -> Write:
    """Return a write of plainredis. It has no path of the task."""
    task_id, _, idx = field.decode().rpartition(":")
    kind, data = _unwrapped(blob)
    _, channel, value = _serde.parts(kind, data)
    return Write("", task_id, int(idx), channel, _serde.part(kind, value))


def _unwrapped(raw: bytes) -> tuple[str, bytes]:
    """Return the type and the bytes of a value of plainredis."""
    wrapped = json.loads(raw)
    return wrapped["t"], base64.b64decode(wrapped["d"])


def _in_order(writes: Iterable[Write]) -> list[Write]:
    return sorted(writes, key=lambda one: (one.task_path, one.task_id, one.idx))


@contextmanager
def _database(*errors: type[Exception]) -> Iterator[None]:
    """Report errors of a database as the store's."""
    try:
        yield
    except errors as error:
        raise StoreUnavailable(
            f"The source cannot be read: {error}. It was not changed. The same command continues the import."
        ) from error


@contextmanager
def _damage() -> Iterator[None]:
    """Report a value of another form as a `ValueError`."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, NotImplementedError) as error:
        raise ValueError(f"it is damaged: {error!r:.200}") from error
