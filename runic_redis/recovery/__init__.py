"""Durable workflows on a store: sessions that persist and recover state, and facts that are loaded when needed.

`session_core` has the logic of a session, and `sessions` the sessions for threads and for asyncio. `policies` says when
to save snapshots. `resolving` loads the values of references. `steps` runs the same logic on a store for threads and
on a store for asyncio. All of it uses only the capabilities of a store (see `runic_redis.contract`). Nothing here knows
Redis.
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
