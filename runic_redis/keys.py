"""The names of the keys of one namespace, and which partition or bucket a thing belongs to.

The whole layout of the data in Redis is in docs/data-format.md; nothing outside this module builds a key.
"""

from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

__all__ = ["FACT_BUCKETS", "Keys", "WorkflowKeys"]

# Fixed for good: a fact's bucket is part of the data format.
FACT_BUCKETS = 4096


@dataclass(frozen=True, slots=True)
class WorkflowKeys:
    """Every key that one workflow uses; all share a hash tag, so one script may touch them in a cluster."""

    events: str
    meta: str
    snapshot: str
    log: str
    commits: str
    index: str


@dataclass(frozen=True, slots=True)
class Keys:
    """The key names of a namespace of so many partitions."""

    namespace: str
    partitions: int

    @property
    def config(self) -> str:
        """The key of the namespace's own settings."""
        return f"{{{self.namespace}}}:config"

    def index(self, partition: int) -> str:
        """The key of one partition's index of workflows by the time of their last write."""
        return f"{{{self.namespace}:{partition}}}:index"

    def workflow(self, workflow_id: str) -> WorkflowKeys:
        """The keys of one workflow."""
        return _workflow_keys(self, workflow_id)

    def facts(self, fact_hash: bytes) -> str:
        """The key of the bucket that a fact is kept in."""
        return self.bucket(crc32(fact_hash) % FACT_BUCKETS)

    def bucket(self, number: int) -> str:
        """The key of one bucket of facts."""
        return f"{{{self.namespace}:fact:{number}}}"


# Those in use come up again and again.
@lru_cache(maxsize=4096)
def _workflow_keys(keys: Keys, workflow_id: str) -> WorkflowKeys:
    tag = f"{{{keys.namespace}:{crc32(workflow_id.encode()) % keys.partitions}}}"
    return WorkflowKeys(
        events=f"{tag}:events:{workflow_id}",
        meta=f"{tag}:meta:{workflow_id}",
        snapshot=f"{tag}:snapshot:{workflow_id}",
        log=f"{tag}:log:{workflow_id}",
        commits=f"{tag}:commits:{workflow_id}",
        index=f"{tag}:index",
    )
