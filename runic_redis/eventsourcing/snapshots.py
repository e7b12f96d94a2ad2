"""The recorder of snapshots: versions have gaps, and may come in any order."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import AggregateRecorder, StoredEvent

from runic_redis.store import RedisStore


class RedisSnapshotRecorder(AggregateRecorder):
    """Records the snapshots of aggregates. A snapshot is a commit with its version as a tag."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        raise NotImplementedError

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        raise NotImplementedError
