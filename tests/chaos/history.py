"""The history of what clients asked for and were told, and its judge."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

__all__ = ["Append", "Delete", "Read", "Stored", "Verdict", "View", "judge"]


class Stored(NamedTuple):
    """A commit as it was read back: its name in the test, and its last cursor."""

    name: str
    cursor: int


@dataclass
class Append:
    """A commit that a client asked for.

    Attributes:
        name: identifies the commit in its workflow.
        size: its number of events.
        began_s: when the call began.
        expected: the expected cursor that the call passed.
        ended_s: when the call ended.
        outcome: "acknowledged"; "refused" if the error says that nothing was stored; or "unknown".
        cursor: the acknowledged cursor.
    """

    name: str
    size: int
    began_s: float
    expected: int | None = None
    ended_s: float = float("inf")
    outcome: Literal["acknowledged", "refused", "unknown"] = "unknown"
    cursor: int = -1


@dataclass
class Read:
    """All commits of a workflow, as a client read them."""

    began_s: float
    ended_s: float
    commits: Sequence[Stored]


@dataclass
class Delete:
    """A deletion that a client asked for."""

    began_s: float
    ended_s: float = float("inf")


@dataclass
class View:
    """Everything that clients did with one workflow, and its final commits."""

    workflow_id: str
    appends: list[Append] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    deletes: list[Delete] = field(default_factory=list)
    # Expected cursors that were rejected because they were above the stored cursor.
    losses_named: list[int] = field(default_factory=list)
    final: Sequence[Stored] = ()


@dataclass
class Verdict:
    """The findings of the judge.

    Attributes:
        appends: commits that clients asked for.
        acknowledged: commits that were acknowledged.
        lost: acknowledged commits that are missing.
        unnamed: lost commits that no error named to their client.
        doubled: commits that are stored more than once.
        torn: commits that were read in part.
        wrong: descriptions of all other violations.
        seen: descriptions of the torn commits.
        notes: what was measured besides.
    """

    appends: int = 0
    acknowledged: int = 0
    lost: int = 0
    unnamed: int = 0
    doubled: int = 0
    torn: int = 0
    wrong: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: "Verdict") -> None:
        """Add the findings of another verdict."""
        for name in ("appends", "acknowledged", "lost", "unnamed", "doubled", "torn"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wrong += other.wrong
        self.seen += other.seen
        self.notes += other.notes


def judge(view: View, *, may_lose: bool = False, may_go_back: bool = False) -> Verdict:
    """Compare what clients were told of a workflow with its final commits.

    Args:
        view: what clients did, and the final commits.
        may_lose: the durability of the appends allows acknowledged commits to be lost.
        may_go_back: reads may lose unacknowledged commits, because a failover drops what no replica has.
    """
    acknowledged = [append for append in view.appends if append.outcome == "acknowledged"]
    verdict = Verdict(appends=len(view.appends), acknowledged=len(acknowledged))
    by_name = {append.name: append for append in view.appends}
    for read in view.reads:
        _judge_read(view, read, by_name, verdict, may_be_dropped=may_go_back)
    _judge_read(view, Read(float("inf"), float("inf"), view.final), by_name, verdict, may_be_dropped=False)
    there = {stored.name: stored for stored in view.final}
    verdict.doubled = len(view.final) - len(there)
    for append in acknowledged:
        stored = there.get(append.name)
        if stored is None:
            if not _deleted(view, append):
                verdict.lost += 1
                verdict.unnamed += not any(expected >= append.cursor for expected in view.losses_named)
        elif stored.cursor != append.cursor and not view.deletes:
            verdict.wrong.append(f"{view.workflow_id}: {append.name} is at {stored.cursor}, not at {append.cursor}")
    for append in acknowledged:
        if append.expected is not None and append.cursor != append.expected + append.size:
            verdict.wrong.append(f"{view.workflow_id}: {append.name} expected {append.expected}, got {append.cursor}")
    winners = Counter(append.expected for append in acknowledged if append.expected is not None)
    if not view.deletes and not may_lose:
        verdict.wrong += [
            f"{view.workflow_id}: {count} commits were acknowledged at the cursor {expected}"
            for expected, count in winners.items()
            if count > 1
        ]
        verdict.wrong += _out_of_order(view, acknowledged, there)
        verdict.wrong += _unseen(view, acknowledged)
        if not may_go_back:
            verdict.wrong += _gone_back(view)
    return verdict


def _judge_read(view: View, read: Read, by_name: dict[str, Append], verdict: Verdict, *, may_be_dropped: bool) -> None:
    """Check that every commit that was read was asked for, was not rejected, is whole, and has the right cursor."""
    cursor = 0
    for stored in read.commits:
        append = by_name.get(stored.name)
        if append is None:
            verdict.wrong.append(f"{view.workflow_id}: {stored.name} was read, and no client appended it")
            return
        # (A delete or a failover may since have removed an earlier try of the same append.)
        if append.outcome == "refused" and not may_be_dropped and not _deleted(view, append):
            verdict.wrong.append(f"{view.workflow_id}: {stored.name} was read, although its append was rejected")
        if append.began_s > read.ended_s:
            verdict.wrong.append(f"{view.workflow_id}: {stored.name} was read before it was appended")
        cursor += append.size
        if stored.cursor != cursor:
            verdict.torn += 1
            verdict.seen.append(f"{view.workflow_id}: {stored} was read where {cursor} ends: {list(read.commits)}")
            return
        for delete in view.deletes:
            if append.ended_s < delete.began_s and delete.ended_s < read.began_s:
                verdict.wrong.append(f"{view.workflow_id}: {stored.name} was read after it had been deleted")


def _deleted(view: View, append: Append) -> bool:
    """May a commit be gone because its workflow was deleted?"""
    return any(delete.ended_s > append.began_s for delete in view.deletes)


def _out_of_order(view: View, acknowledged: Iterable[Append], there: dict[str, Stored]) -> list[str]:
    """Find commits that are stored after a commit that was asked for later."""
    wrong = []
    latest_began_s = float("-inf")
    for append in sorted((one for one in acknowledged if one.name in there), key=lambda one: there[one.name].cursor):
        if append.ended_s < latest_began_s:
            wrong.append(f"{view.workflow_id}: {append.name} is stored after a commit that was asked for later")
        latest_began_s = max(latest_began_s, append.began_s)
    return wrong


def _unseen(view: View, acknowledged: Sequence[Append]) -> list[str]:
    """Find reads that lack a commit although it was acknowledged before they began."""
    wrong = []
    for read in view.reads:
        names = {stored.name for stored in read.commits}
        wrong += [
            f"{view.workflow_id}: a read lacks {append.name}, which had been acknowledged"
            for append in acknowledged
            if append.ended_s < read.began_s and append.name not in names
        ]
    return wrong


def _gone_back(view: View) -> list[str]:
    """Find reads that differ from an earlier read, or saw less than it."""
    wrong = []
    reads = sorted(view.reads, key=lambda read: read.began_s)
    ended = sorted(view.reads, key=lambda read: read.ended_s)
    longest: Sequence[Stored] = ()
    at = 0
    for read in reads:
        while at < len(ended) and ended[at].ended_s < read.began_s:
            longest = max(longest, ended[at].commits, key=len)
            at += 1
        if list(read.commits[: len(longest)]) != list(longest):
            wrong.append(f"{view.workflow_id}: a read went back from {len(longest)} commits to {len(read.commits)}")
    if any(list(view.final[: len(read.commits)]) != list(read.commits) for read in reads):
        wrong.append(f"{view.workflow_id}: a read differs from the final commits")
    return wrong
