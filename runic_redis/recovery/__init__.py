"""On top of a store: sessions and projections, which persist and recover states, and facts that are loaded when needed.

`session_core` has the logic of a session, and `sessions` the sessions for threads and for asyncio. `working` calls
handlers with the sessions of claimed workflows, and `work_core` has its logic. `policies` says when
to save snapshots. `resolving` loads the values of references. `steps` runs the same logic on a store for threads and
on a store for asyncio. These use only the capabilities of a store (see `runic_redis.contract`). `projection_core` and
`projections` do the same for projections, which need a `RedisStore` with a feed.
"""

from runic_redis.recovery.handlers import Handler, handler
from runic_redis.recovery.policies import ByRecoveryTime, EveryBytes, EveryEvents, Since, SnapshotPolicy
from runic_redis.recovery.projections import AsyncProjection, Projection, async_projection, projection
from runic_redis.recovery.resolving import AsyncFactResolver, FactResolver
from runic_redis.recovery.session_options import Asleep, Recovery
from runic_redis.recovery.sessions import AsyncSession, Session, async_session, session
from runic_redis.recovery.working import async_work, work

__all__ = [
    "Asleep",
    "AsyncFactResolver",
    "AsyncProjection",
    "AsyncSession",
    "ByRecoveryTime",
    "EveryBytes",
    "EveryEvents",
    "FactResolver",
    "Handler",
    "Projection",
    "Recovery",
    "Session",
    "Since",
    "SnapshotPolicy",
    "async_projection",
    "async_session",
    "async_work",
    "handler",
    "projection",
    "session",
    "work",
]
