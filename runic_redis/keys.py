"""The names of the keys of one namespace, and which partition or bucket a thing belongs to.

The whole layout of the data in Redis is in docs/data-format.md; nothing outside this module builds a key.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

__all__ = ["FACT_BUCKETS", "ImportKeys", "Keys", "WorkflowKeys"]

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
    refs: str
    index: str
    leases: str
    expiring: str
    partition: str


class ImportKeys(NamedTuple):
    """Every key in which a workflow is gathered while it is imported, beside those that it will have."""

    events: str
    snapshot: str
    log: str
    commits: str
    refs: str
    meta: str


@dataclass(frozen=True, slots=True)
class Keys:
    """The key names of a namespace of so many partitions."""

    namespace: str
    partitions: int

    @property
    def config(self) -> str:
        """The key of the namespace's own settings."""
        return f"{{{self.namespace}}}:config"

    @property
    def config_copy(self) -> str:
        """The key of a copy of these settings, in the slot of the first partition, which every namespace has."""
        return f"{{{self.namespace}:0}}:config"

    def partition(self, partition: int) -> str:
        """The key of what one partition says of itself.

        The name holds the number of partitions, so that a store that counts otherwise does not find it.
        """
        return f"{{{self.namespace}:{partition}}}:partition:{self.partitions}"

    def index(self, partition: int) -> str:
        """The key of one partition's index of workflows by the time of their last write."""
        return f"{{{self.namespace}:{partition}}}:index"

    def leases(self, partition: int) -> str:
        """The key of one partition's unfinished workflows by the time when their leases end."""
        return f"{{{self.namespace}:{partition}}}:leases"

    def expiring(self, partition: int) -> str:
        """The key of one partition's workflows that expire, by when."""
        return f"{{{self.namespace}:{partition}}}:expiring"

    def partition_numbers(self) -> range:
        """Return the numbers of all partitions."""
        return range(self.partitions)

    def indexes(self) -> list[str]:
        """Return the keys of all partitions' indexes, by the partitions' numbers."""
        return [self.index(number) for number in self.partition_numbers()]

    def all_leases(self) -> list[str]:
        """Return the keys of all partitions' unfinished workflows, by the partitions' numbers."""
        return [self.leases(number) for number in self.partition_numbers()]

    def all_expiring(self) -> list[str]:
        """Return the keys of all partitions' workflows that expire, by the partitions' numbers."""
        return [self.expiring(number) for number in self.partition_numbers()]

    def workflow(self, workflow_id: str) -> WorkflowKeys:
        """The keys of one workflow."""
        return _workflow_keys(self.namespace, self.partitions, workflow_id)

    def imported(self, workflow_id: str) -> "ImportKeys":
        """The keys in which a workflow is gathered while it is imported."""
        tag = f"{{{self.namespace}:{crc32(workflow_id.encode()) % self.partitions}}}"
        return ImportKeys(*(f"{tag}:import-{kind}:{workflow_id}" for kind in ImportKeys._fields))

    def fact(self, fact_hash: bytes) -> tuple[str, str]:
        """The keys of the bucket that a fact is kept in, and of that bucket's times."""
        number = crc32(fact_hash) % FACT_BUCKETS
        return self.bucket(number), self.fact_times(number)

    def bucket_numbers(self) -> range:
        """Return the numbers of all buckets of facts."""
        return range(FACT_BUCKETS)

    def buckets(self) -> list[str]:
        """Return the keys of all buckets of facts, by the buckets' numbers."""
        return [self.bucket(number) for number in self.bucket_numbers()]

    def bucket(self, number: int) -> str:
        """The key of one bucket of facts."""
        return f"{{{self.namespace}:fact:{number}}}"

    def fact_times(self, number: int) -> str:
        """The key of the times when the facts of one bucket were last written."""
        return f"{self.bucket(number)}:times"


# Those in use come up again and again.
@lru_cache(maxsize=4096)
def _workflow_keys(namespace: str, partitions: int, workflow_id: str) -> WorkflowKeys:
    tag = f"{{{namespace}:{crc32(workflow_id.encode()) % partitions}}}"
    return WorkflowKeys(
        events=f"{tag}:events:{workflow_id}",
        meta=f"{tag}:meta:{workflow_id}",
        snapshot=f"{tag}:snapshot:{workflow_id}",
        log=f"{tag}:log:{workflow_id}",
        commits=f"{tag}:commits:{workflow_id}",
        refs=f"{tag}:refs:{workflow_id}",
        index=f"{tag}:index",
        leases=f"{tag}:leases",
        expiring=f"{tag}:expiring",
        partition=f"{tag}:partition:{partitions}",
    )
