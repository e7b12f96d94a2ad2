"""The factory that `eventsourcing` makes from the environment of an application."""

from typing import TYPE_CHECKING, Literal, TypeVar, cast

from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment, EnvType, resolve_topic

from runic_redis.durability import Durability, replicated
from runic_redis.events import EventRegistry
from runic_redis.eventsourcing.mapping import persistence_errors
from runic_redis.eventsourcing.recorders import (
    RedisAggregateRecorder,
    RedisApplicationRecorder,
    RedisProcessRecorder,
    RedisTrackingRecorder,
)
from runic_redis.eventsourcing.snapshots import RedisSnapshotRecorder
from runic_redis.eventsourcing.stored_events import StoredEventRegistry
from runic_redis.store import RedisStore

if TYPE_CHECKING:
    from runic_redis.eventsourcing.recorders import IdType

T = TypeVar("T")
# The namespace of an environment without the name of an application, and without RUNIC_REDIS_NAMESPACE.
_UNNAMED = "eventsourcing"


class RedisFactory(InfrastructureFactory[RedisTrackingRecorder]):
    """Makes the recorders of an application, which share a store.

    It reads these variables from the environment. As with every variable of `eventsourcing`, the application's name
    and an underscore can stand in front, for one application only.

    - ``RUNIC_REDIS_URL``: where to connect; required.
    - ``RUNIC_REDIS_NAMESPACE``: the namespace is this, a dot and the application's name. Without it, the namespace is
      the application's name alone. So applications never share a namespace.
    - ``RUNIC_REDIS_DURABILITY``: ``memory`` (default), ``fsync``, or ``replicated(1)`` with the number of replicas.
    - ``ORIGINATOR_ID_TYPE``: ``uuid`` (default) or ``text``, the type of the ids of aggregates.

    The events of an application are in a namespace with one partition and a feed that is never trimmed. Snapshots are
    in a namespace of their kind: the name ends with ``.snapshots``.
    """

    RUNIC_REDIS_URL = "RUNIC_REDIS_URL"
    RUNIC_REDIS_NAMESPACE = "RUNIC_REDIS_NAMESPACE"
    RUNIC_REDIS_DURABILITY = "RUNIC_REDIS_DURABILITY"
    ORIGINATOR_ID_TYPE = "ORIGINATOR_ID_TYPE"

    aggregate_recorder_class = RedisAggregateRecorder
    application_recorder_class = RedisApplicationRecorder
    tracking_recorder_class = RedisTrackingRecorder
    process_recorder_class = RedisProcessRecorder
    registry_class: type[EventRegistry] = StoredEventRegistry

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self._url = self.env.get(self.RUNIC_REDIS_URL)
        if not self._url:
            keys = ", ".join(self.env.create_keys(self.RUNIC_REDIS_URL))
            raise OSError(f"The environment has no URL of a server. Set one of: {keys}.")
        prefix, name = self.env.get(self.RUNIC_REDIS_NAMESPACE), self.env.name
        self.namespace = ".".join(part for part in (prefix, name) if part) or _UNNAMED
        self._durability = _durability(self.env.get(self.RUNIC_REDIS_DURABILITY) or "memory")
        id_type = self.env.get(self.ORIGINATOR_ID_TYPE) or "uuid"
        if id_type not in {"uuid", "text"}:
            raise OSError(f"{self.ORIGINATOR_ID_TYPE} is 'uuid' or 'text', not {id_type!r}.")
        self._id_type = cast("IdType", id_type)
        self._stores: dict[str, RedisStore] = {}

    @property
    def store(self) -> RedisStore:
        """The store with the application's events and its tracking records."""
        return self._open(self.namespace, feed=True)

    def _open(self, namespace: str, *, feed: bool) -> RedisStore:
        store = self._stores.get(namespace)
        if store is None or store.closed:
            with persistence_errors:
                store = RedisStore.from_url(
                    self._url,
                    namespace=namespace,
                    partitions=1,
                    feed=feed,
                    feed_days=None,
                    durability=self._durability,
                    registry=self.registry_class(),
                )
            self._stores[namespace] = store
        return store

    def aggregate_recorder(self, purpose: str = "events") -> RedisAggregateRecorder | RedisSnapshotRecorder:
        """Return a recorder of the application's events; or for another purpose, one of snapshots."""
        if purpose == "events":
            return self.aggregate_recorder_class(self.store, self._id_type)
        return RedisSnapshotRecorder(self._open(f"{self.namespace}.{purpose}", feed=False))

    def application_recorder(self) -> RedisApplicationRecorder:
        """Return a recorder of events and of their notifications."""
        return self._class(self.APPLICATION_RECORDER_TOPIC, self.application_recorder_class)(self.store, self._id_type)

    def tracking_recorder(
        self, tracking_recorder_class: type[RedisTrackingRecorder] | None = None
    ) -> RedisTrackingRecorder:
        """Return a recorder of tracking records: of the class that is passed, or of that in the environment."""
        found = tracking_recorder_class or self._class(self.TRACKING_RECORDER_TOPIC, self.tracking_recorder_class)
        return found(self.store)

    def process_recorder(self) -> RedisProcessRecorder:
        """Return a recorder of events that stores tracking records in the same step."""
        return self._class(self.PROCESS_RECORDER_TOPIC, self.process_recorder_class)(self.store, self._id_type)

    def _class(self, key: str, default: type[T]) -> type[T]:
        topic = self.env.get(key)
        found: type[T] = resolve_topic(topic) if topic else default
        return found

    def close(self) -> None:
        """Close the stores."""
        for store in self._stores.values():
            store.close()


def _durability(text: str) -> Durability:
    if text in {"memory", "fsync"}:
        return cast("Literal['memory', 'fsync']", text)
    count = text.removeprefix("replicated(").removesuffix(")")
    if text == f"replicated({count})" and count.isascii() and count.isdigit():
        return replicated(int(count))
    raise OSError(f"RUNIC_REDIS_DURABILITY is 'memory', 'fsync' or 'replicated(<number>)', not {text!r}.")
