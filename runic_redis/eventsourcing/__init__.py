"""The persistence module for the library `eventsourcing`: ``PERSISTENCE_MODULE=runic_redis.eventsourcing``.

An aggregate is a workflow, and an application is a namespace with one partition and a feed. So the version of an
aggregate is a cursor, and the id of a notification is a position in the feed. docs/how-to/use-eventsourcing.md shows
how to use it. It needs the extra ``eventsourcing``.
"""

from runic_redis.eventsourcing.factory import RedisFactory
from runic_redis.eventsourcing.recorders import (
    RedisAggregateRecorder,
    RedisApplicationRecorder,
    RedisProcessRecorder,
    RedisTrackingRecorder,
)
from runic_redis.eventsourcing.snapshots import RedisSnapshotRecorder
from runic_redis.eventsourcing.subscriptions import RedisSubscription

__all__ = [
    "RedisAggregateRecorder",
    "RedisApplicationRecorder",
    "RedisFactory",
    "RedisProcessRecorder",
    "RedisSnapshotRecorder",
    "RedisSubscription",
    "RedisTrackingRecorder",
]
