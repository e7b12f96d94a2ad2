"""From a store to durable workflows: sessions that checkpoint as they run and recover, and facts on demand.

`sessions` holds what a session does, `policies` when it saves snapshots, `resolving` the values behind references,
`steps` how the same logic runs on a store for threads and on one for asyncio. All of it sees a store by its
capabilities only, see `runic_redis.contract`.
"""

from runic_redis.recovery.policies import ByRecoveryTime, EveryBytes, EveryEvents, Since, SnapshotPolicy
from runic_redis.recovery.resolving import AsyncFactResolver, FactResolver
from runic_redis.recovery.session_core import Recovery
from runic_redis.recovery.sessions import AsyncSession, Session, async_session, session

__all__ = [
    "AsyncFactResolver",
    "AsyncSession",
    "ByRecoveryTime",
    "EveryBytes",
    "EveryEvents",
    "FactResolver",
    "Recovery",
    "Session",
    "Since",
    "SnapshotPolicy",
    "async_session",
    "session",
]
