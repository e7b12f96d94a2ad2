"""The sizes of a run: short, for six minutes, or full, with large workflows and namespaces.

The two differ in sizes and repetitions alone.
"""

from dataclasses import dataclass, replace

from .measure import Budget


@dataclass(frozen=True)
class Scale:
    """The sizes of a run.

    Attributes:
        budget: the repetitions of a case.
        effort: the share of the usual calls that a turn makes.
        tasks: the numbers of tasks that append at once.
        read: the number of events in a workflow that is read whole, and in a smaller one for the slower contenders.
        weighed: the number of events in the cases that measure Redis's memory.
        workflow_sizes: the numbers of events in the workflows that are appended to, in growing order.
        recovered_sizes: the numbers of events in the workflows that are recovered.
        traced_sizes: the same for recoveries that trace Python's memory, which takes long.
        session_size: the number of events that a session recovers. The last thousand come after its snapshot.
        kept_facts: the number of events that are replayed, each with a large fact.
        namespace_sizes: the numbers of workflows in the namespaces that are appended to.
        listed: the number of workflows that are listed.
        followed: the number of commits in a feed that is read from its beginning, and of their workflows.
        consumed: the number of commits that consumers share.
        paced: the number of commits that a follower is given at a steady pace, in a turn.
        jobs: the number of jobs that are enqueued and completed in a turn.
        awaited: the number of workflows that a waiting claim is given in a turn.
        supersteps: the number of supersteps of a conversation that grows to 1 MB.
        enrolments: the number of events that queries by tags select from.
    """

    name: str
    budget: Budget
    effort: float
    tasks: tuple[int, ...]
    read: tuple[int, int]
    weighed: int
    workflow_sizes: tuple[int, ...]
    recovered_sizes: tuple[int, ...]
    traced_sizes: tuple[int, ...]
    session_size: int
    kept_facts: int
    namespace_sizes: tuple[int, ...]
    listed: int
    followed: tuple[int, int]
    consumed: int
    paced: int
    jobs: int
    awaited: int
    supersteps: int
    enrolments: int

    def calls(self, usual: int) -> int:
        return max(2, round(usual * self.effort))


SHORT = Scale(
    name="short",
    budget=Budget(warm_up=1, rounds=15, least=3, seconds=0.6),
    effort=1.0,
    tasks=(64, 256),
    read=(100_000, 10_000),
    weighed=3_000,
    workflow_sizes=(10_000, 100_000),
    recovered_sizes=(10_000, 100_000),
    traced_sizes=(10_000, 100_000),
    session_size=50_000,
    kept_facts=100,
    namespace_sizes=(1, 10_000),
    listed=2_000,
    followed=(50_000, 10_000),
    consumed=2_000,
    paced=1_000,
    jobs=500,
    awaited=100,
    supersteps=200,
    enrolments=2_000,
)

FULL = replace(
    SHORT,
    name="full",
    budget=Budget(warm_up=3, rounds=25, least=5, seconds=10.0),
    workflow_sizes=(1_000, 10_000, 100_000, 1_000_000, 10_000_000),
    recovered_sizes=(1_000, 10_000, 100_000, 1_000_000, 10_000_000),
    traced_sizes=(1_000_000, 10_000_000),
    session_size=1_000_000,
    kept_facts=10_000,
    namespace_sizes=(1, 100, 1_000, 10_000, 100_000, 1_000_000),
    listed=100_000,
    followed=(1_000_000, 10_000),
    consumed=10_000,
    paced=10_000,
    jobs=5_000,
    awaited=1_000,
    enrolments=100_000,
)
