"""The recorder of snapshots: their versions have gaps, and may come in any order."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import AggregateRecorder, IntegrityError, StoredEvent

from runic_redis.errors import CursorConflict, GroupRejected
from runic_redis.eventsourcing.mapping import persistence_errors
from runic_redis.eventsourcing.stored_events import encode_stored
from runic_redis.operations.groups import Append
from runic_redis.store import RedisStore

# A version as a tag has so many digits, so tags are in the order of versions.
_DIGITS = 16


class RedisSnapshotRecorder(AggregateRecorder):
    """Records the snapshots of aggregates.

    The snapshots of an aggregate are a workflow, and the version of a snapshot is a tag of its commit. So the last
    snapshot is found in one round trip, whatever their number.

    Attributes:
        store: the store.
    """

    def __init__(self, store: RedisStore) -> None:
        self.store = store

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int] | None:
        """Store snapshots, all or none.

        Raises:
            IntegrityError: there is a snapshot with a version; nothing was stored.
            OperationalError: the server cannot be reached, or does not confirm the write.
        """
        groups: dict[str, list[StoredEvent]] = {}
        for event in stored_events:
            groups.setdefault(str(event.originator_id), []).append(event)
        with persistence_errors:
            while not self._try_insert(groups):
                pass
        return None

    def _try_insert(self, groups: dict[str, list[StoredEvent]]) -> bool:
        """Store snapshots. Return False if another process has stored some at the same time."""
        items = []
        for workflow_id, snapshots in groups.items():
            cursor = self.store.cursor(workflow_id)
            tags = [_tag(one.originator_version) for one in snapshots]
            if len(set(tags)) < len(tags) or any(self.store.find(workflow_id, tag=tag, limit=1) for tag in tags):
                raise IntegrityError(
                    f"The aggregate {workflow_id} has a snapshot with one of the versions "
                    f"{[one.originator_version for one in snapshots]}, or they are not distinct. Nothing was stored."
                )
            encoded = encode_stored(self.store.context, snapshots, versioned=True)
            items.append(Append(workflow_id, encoded, expected_cursor=cursor, tags=tags))
        try:
            self.store.append_all(items)
        except GroupRejected as rejected:
            if isinstance(rejected.__cause__, CursorConflict):
                return False
            raise
        return True

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return the snapshots of an aggregate, by version; see `eventsourcing.persistence.AggregateRecorder`."""
        with persistence_errors:
            most = limit
            while True:
                found = self.store.find(str(originator_id), prefix="", reverse=desc, limit=most)
                events = [
                    StoredEvent(originator_id, version, topic, state)
                    for commit in found
                    for topic, state, version in commit.events
                    if version == int(commit.tag) and (gt is None or version > gt) and (lte is None or version <= lte)
                ]
                if limit is None or most is None or len(events) >= limit or len(found) < most:
                    return events[:limit]
                # Those that are not wanted came first.
                most *= 8


def _tag(version: int) -> str:
    return f"{version:0{_DIGITS}d}"
