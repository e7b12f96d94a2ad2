"""A Redis Streams event store for workflow engines.

    from runic_redis import RedisStore, event

    with RedisStore.from_url("redis://localhost:6379/0", namespace="shop") as store:
        cursor = store.append("order-1", [OrderPlaced("Ada", 3)], expected_cursor=0)

Everything public is here, except Runic's events (`runic_events`, `runic_rehydration`), OpenTelemetry (`otel`) and the
contract suite for stores (`testing`).
"""

from runic_redis.aio import AsyncRedisStore
from runic_redis.contract import (
    CursorStore,
    EncodingStore,
    FactStore,
    SnapshotStore,
    Store,
    StreamStore,
    capabilities,
    supports_stream,
)
from runic_redis.durability import Durability, Replicated, replicated
from runic_redis.errors import (
    CommitsLost,
    ConfigurationError,
    CursorConflict,
    DecodeError,
    DurabilityError,
    EncodeError,
    EventsTrimmed,
    FactNotFound,
    IncompatibleEvent,
    InvalidArgument,
    InvalidType,
    LeaseHeld,
    LeaseLost,
    SnapshotConflict,
    SnapshotNotFound,
    SnapshotNotSaved,
    StoreError,
    StoreUnavailable,
    UnknownEventType,
    WorkflowNotFound,
    WriteRefused,
)
from runic_redis.events import EventRegistry, Fact, FactRef, UnknownEvent, event, register_type
from runic_redis.heartbeat import AsyncHeldLease, HeldLease
from runic_redis.operations.leasing import Lease
from runic_redis.operations.records import Record
from runic_redis.recovery import (
    AsyncFactResolver,
    AsyncSession,
    ByRecoveryTime,
    EveryBytes,
    EveryEvents,
    FactResolver,
    Recovery,
    Session,
    SnapshotPolicy,
    async_session,
    session,
)
from runic_redis.store import RedisStore, init_store
from runic_redis.tails import AsyncTail, Tail

__all__ = [
    "AsyncFactResolver",
    "AsyncHeldLease",
    "AsyncRedisStore",
    "AsyncSession",
    "AsyncTail",
    "ByRecoveryTime",
    "CommitsLost",
    "ConfigurationError",
    "CursorConflict",
    "CursorStore",
    "DecodeError",
    "Durability",
    "DurabilityError",
    "EncodeError",
    "EncodingStore",
    "EventRegistry",
    "EventsTrimmed",
    "EveryBytes",
    "EveryEvents",
    "Fact",
    "FactNotFound",
    "FactRef",
    "FactResolver",
    "FactStore",
    "HeldLease",
    "IncompatibleEvent",
    "InvalidArgument",
    "InvalidType",
    "Lease",
    "LeaseHeld",
    "LeaseLost",
    "Record",
    "Recovery",
    "RedisStore",
    "Replicated",
    "Session",
    "SnapshotConflict",
    "SnapshotNotFound",
    "SnapshotNotSaved",
    "SnapshotPolicy",
    "SnapshotStore",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "StreamStore",
    "Tail",
    "UnknownEvent",
    "UnknownEventType",
    "WorkflowNotFound",
    "WriteRefused",
    "async_session",
    "capabilities",
    "event",
    "init_store",
    "register_type",
    "replicated",
    "session",
    "supports_stream",
]

__version__ = "0.1.0"
