"""The names of a namespace's keys, and the partition or bucket of each workflow and fact.

Only this module builds keys. docs/data-format.md describes the whole layout of the data in Redis.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

# Never changed: a fact's bucket is part of the data format.
FACT_BUCKETS = 4096


@dataclass(frozen=True, slots=True)
class WorkflowKeys:
    """The keys of one workflow. All share a hash tag, so one script can use them in a cluster.

    Those from `index` on are those of its partition.
    """

    events: str
    meta: str
    snapshot: str
    log: str
    commits: str
    refs: str
    inbox: str
    messages: str
    tags: str
    index: str
    leases: str
    queues: str
    parked: str
    expiring: str
    completed: str
    partition: str
    feed: str
    tagged: str

    def queue(self, name: str) -> str:
        """Return the key of a queue of its partition: unfinished workflows by when they are due."""
        return f"{self.queues[:-1]}:{name}"

    @property
    def touch(self) -> str:
        """The key of its partition that never holds anything."""
        return f"{self.queues.removesuffix('queues')}touch"

    def attribute(self, name: str, value: str) -> str:
        """Return the key of the workflows of its partition that have an attribute, by when they were created."""
        return f"{self.queues.removesuffix('queues')}attribute:{name}={value}"

    def children(self, parent: str) -> str:
        """Return the key of the workflows of its partition that have a parent, by when they were created."""
        return f"{self.queues.removesuffix('queues')}children:{parent}"


class ImportKeys(NamedTuple):
    """The keys in which an import gathers a workflow, before it has its own keys."""

    events: str
    snapshot: str
    log: str
    commits: str
    refs: str
    inbox: str
    messages: str
    tags: str
    meta: str


@dataclass(frozen=True, slots=True)
class Keys:
    """The key names of a namespace with a number of partitions, and with or without a feed."""

    namespace: str
    partitions: int
    has_feed: bool = False

    @property
    def config(self) -> str:
        """The key of the namespace's settings."""
        return f"{{{self.namespace}}}:config"

    @property
    def config_copy(self) -> str:
        """The key of the copy of these settings, in the slot of the first partition, which every namespace has."""
        return f"{{{self.namespace}:0}}:config"

    @property
    def hints(self) -> str:
        """The channel of the hints that something becomes due. It is no key."""
        return f"{{{self.namespace}}}:due"

    def partition(self, partition: int) -> str:
        """Return the key of one partition's hash: its counts, and the replies to retries.

        The name has the settings of the namespace, so a store that uses others does not find the hash.
        """
        return f"{{{self.namespace}:{partition}}}:partition:{_settings(self.partitions, self.has_feed)}"

    def index(self, partition: int) -> str:
        """Return the key of one partition's index: its workflows by the time of their last write."""
        return f"{{{self.namespace}:{partition}}}:index"

    def leases(self, partition: int) -> str:
        """Return the key of one partition's leased workflows by the end of their leases."""
        return f"{{{self.namespace}:{partition}}}:leases"

    def queues(self, partition: int) -> str:
        """Return the key of the hash of how many workflows each queue of a partition has."""
        return f"{{{self.namespace}:{partition}}}:queues"

    def queue(self, partition: int, name: str) -> str:
        """Return the key of one partition's unfinished workflows of a queue, by when they are due."""
        return f"{{{self.namespace}:{partition}}}:queue:{name}"

    def attribute(self, partition: int, name: str, value: str) -> str:
        """Return the key of one partition's workflows that have an attribute, by when they were created."""
        return f"{{{self.namespace}:{partition}}}:attribute:{name}={value}"

    def children(self, partition: int, parent: str) -> str:
        """Return the key of one partition's workflows that have a parent, by when they were created."""
        return f"{{{self.namespace}:{partition}}}:children:{parent}"

    def parked_workflows(self, partition: int) -> str:
        """Return the key of one partition's parked workflows, by the time of that."""
        return f"{{{self.namespace}:{partition}}}:parked"

    def expiring(self, partition: int) -> str:
        """Return the key of one partition's workflows that expire, by the time of that."""
        return f"{{{self.namespace}:{partition}}}:expiring"

    def completed(self, partition: int) -> str:
        """Return the key of one partition's completed workflows, by the time of that."""
        return f"{{{self.namespace}:{partition}}}:completed"

    def events(self, partition: int, workflow_id: str) -> str:
        """Return the key of the stream of one workflow of a partition."""
        return f"{{{self.namespace}:{partition}}}:events:{workflow_id}"

    def feed(self, partition: int) -> str:
        """Return the key of one partition's feed: an entry for each commit."""
        return f"{{{self.namespace}:{partition}}}:feed"

    @property
    def tagged(self) -> str | None:
        """The key of the index of all tags. A namespace with one partition and a feed has it."""
        return f"{{{self.namespace}:0}}:tags" if self.partitions == 1 and self.has_feed else None

    def feeds(self) -> list[str]:
        """Return the keys of all partitions' feeds, by the partitions' numbers."""
        return [self.feed(number) for number in self.partition_numbers()]

    @property
    def tracking(self) -> str:
        """The key of the tracking records, in the slot of the first partition, which every namespace has."""
        return f"{{{self.namespace}:0}}:tracking"

    @property
    def subscriptions(self) -> str:
        """The key of the settings of all subscriptions and projections, by name."""
        return f"{{{self.namespace}}}:subscriptions"

    def consumers(self, name: str) -> str:
        """Return the key of the live consumers of a subscription."""
        return f"{{{self.namespace}}}:consumers:{name}"

    def subscription(self, name: str, partition: int) -> str:
        """Return the key of one partition in a subscription: its position, and its lease."""
        return f"{{{self.namespace}:{partition}}}:subscription:{name}"

    def parked(self, name: str, partition: int) -> str:
        """Return the key of one partition's parked commits in a subscription."""
        return f"{{{self.namespace}:{partition}}}:parked:{name}"

    def projection(self, name: str) -> str:
        """Return the key of a projection: its state, and its positions."""
        return f"{{{self.namespace}:{crc32(name.encode()) % self.partitions}}}:projection:{name}"

    def next_projection(self, name: str) -> str:
        """Return the key of a version of a projection that is built beside it; no name has a colon."""
        return f"{self.projection(name)}:next"

    def partition_numbers(self) -> range:
        """Return the numbers of all partitions."""
        return range(self.partitions)

    def indexes(self) -> list[str]:
        """Return the keys of all partitions' indexes, by the partitions' numbers."""
        return [self.index(number) for number in self.partition_numbers()]

    def all_leases(self) -> list[str]:
        """Return the keys of all partitions' leased workflows, by the partitions' numbers."""
        return [self.leases(number) for number in self.partition_numbers()]

    def all_expiring(self) -> list[str]:
        """Return the keys of all partitions' workflows that expire, by the partitions' numbers."""
        return [self.expiring(number) for number in self.partition_numbers()]

    def all_completed(self) -> list[str]:
        """Return the keys of all partitions' completed workflows, by the partitions' numbers."""
        return [self.completed(number) for number in self.partition_numbers()]

    def partition_of(self, workflow_id: str) -> int:
        """Return the number of the partition of a workflow: CRC-32 of its id, or of the first part in braces."""
        return _partition_of(self.partitions, workflow_id)

    def workflow(self, workflow_id: str) -> WorkflowKeys:
        """Return the keys of one workflow.

        If there is no feed, the index takes its place in calls of scripts; if there is no index of all tags, the
        workflow's own tags take its place.
        """
        return _workflow_keys(self.namespace, self.partitions, workflow_id, self.has_feed)

    def imported(self, workflow_id: str) -> ImportKeys:
        """Return the keys in which an import gathers a workflow."""
        tag = f"{{{self.namespace}:{self.partition_of(workflow_id)}}}"
        return ImportKeys(*(f"{tag}:import-{kind}:{workflow_id}" for kind in ImportKeys._fields))

    def fact(self, fact_hash: bytes) -> tuple[str, str]:
        """Return the keys of a fact's bucket, and of that bucket's times."""
        number = crc32(fact_hash) % FACT_BUCKETS
        return self.bucket(number), self.fact_times(number)

    def bucket_numbers(self) -> range:
        """Return the numbers of all buckets of facts."""
        return range(FACT_BUCKETS)

    def buckets(self) -> list[str]:
        """Return the keys of all buckets of facts, by the buckets' numbers."""
        return [self.bucket(number) for number in self.bucket_numbers()]

    def bucket(self, number: int) -> str:
        """Return the key of one bucket of facts."""
        return f"{{{self.namespace}:fact:{number}}}"

    def fact_times(self, number: int) -> str:
        """Return the key of one bucket's facts by the time when they were last written."""
        return f"{self.bucket(number)}:times"


# A program uses the same workflows again and again.
@lru_cache(maxsize=4096)
def _workflow_keys(namespace: str, partitions: int, workflow_id: str, has_feed: bool) -> WorkflowKeys:
    tag = f"{{{namespace}:{_partition_of(partitions, workflow_id)}}}"
    return WorkflowKeys(
        events=f"{tag}:events:{workflow_id}",
        meta=f"{tag}:meta:{workflow_id}",
        snapshot=f"{tag}:snapshot:{workflow_id}",
        log=f"{tag}:log:{workflow_id}",
        commits=f"{tag}:commits:{workflow_id}",
        refs=f"{tag}:refs:{workflow_id}",
        inbox=f"{tag}:inbox:{workflow_id}",
        messages=f"{tag}:messages:{workflow_id}",
        tags=f"{tag}:tags:{workflow_id}",
        index=f"{tag}:index",
        leases=f"{tag}:leases",
        queues=f"{tag}:queues",
        parked=f"{tag}:parked",
        expiring=f"{tag}:expiring",
        completed=f"{tag}:completed",
        partition=f"{tag}:partition:{_settings(partitions, has_feed)}",
        feed=f"{tag}:feed" if has_feed else f"{tag}:index",
        tagged=f"{tag}:tags" if has_feed and partitions == 1 else f"{tag}:tags:{workflow_id}",
    )


def _settings(partitions: int, has_feed: bool) -> str:
    return f"{partitions}:feed" if has_feed else str(partitions)


def _partition_of(partitions: int, workflow_id: str) -> int:
    # The rule of Redis for hash tags: only the first opening brace counts, and an empty part does not.
    part = workflow_id.partition("{")[2].partition("}")
    return crc32((part[0] if part[0] and part[1] else workflow_id).encode()) % partitions
