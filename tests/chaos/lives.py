"""The fates of started workflows and of sent messages, and their judges."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.chaos.history import Verdict

__all__ = ["Consumed", "Life", "Sent", "Waits", "judge_lives", "judge_messages", "waits_of"]


class Life(NamedTuple):
    """A workflow in the end.

    Attributes:
        events: the names of its events.
        is_completed: whether it is marked as completed.
    """

    events: Sequence[str]
    is_completed: bool


def judge_lives(started: Iterable[str], lives: Mapping[str, Life]) -> Verdict:
    """Compare the workflows in the end with those whose start was acknowledged.

    Each has the commit that started it and the one of the worker that did its work, and is completed.
    """
    names = set(started)
    verdict = Verdict(appends=len(names), acknowledged=len(names))
    for workflow_id in sorted(names):
        life = lives.get(workflow_id)
        if life is None or "done" not in life.events or not life.is_completed:
            verdict.lost += 1
            verdict.seen.append(f"{workflow_id} was started, and in the end it is {life}")
    for workflow_id, life in lives.items():
        verdict.doubled += max(0, life.events.count("done") - 1)
        if workflow_id not in names:
            verdict.wrong.append(f"{workflow_id} was not started, and in the end it is {life}")
        elif sorted(set(life.events)) != ["done", "start"] or life.events.count("start") != 1:
            verdict.wrong.append(f"{workflow_id} has the events {life.events}")
    return verdict


class Waits(NamedTuple):
    """How long workflows waited for their first claim.

    Attributes:
        count: how many workflows that is known of.
        unknown: how many others there are: their first worker was killed before it could record the claim.
        mean_s: the mean, in seconds.
        p99_s: 99 % waited no longer.
        longest_s: the longest.
        overtaken_s: the longest by which a workflow that was claimed earlier was due later.
    """

    count: int
    unknown: int
    mean_s: float = 0.0
    p99_s: float = 0.0
    longest_s: float = 0.0
    overtaken_s: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.count:,} workflows waited {self.mean_s:.3f} s on average, 99 % of them at most {self.p99_s:.3f} s, "
            f"and the longest {self.longest_s:.3f} s, {self.longest_s / (self.mean_s or 1):.2f} times the mean. None "
            f"was overtaken by one that was due more than {self.overtaken_s:.3f} s later. ({self.unknown:,} others "
            "were claimed by workers that were killed at once.)"
        )


def waits_of(due_ms: Mapping[str, int], claims: Iterable[tuple[str, int, int]]) -> Waits:
    """Return how long workflows waited.

    Args:
        due_ms: from when each one was due.
        claims: for each claim, the workflow, the number of the attempt, and when it was.
    """
    first: dict[str, tuple[int, int]] = {}
    for workflow_id, attempt, at_ms in claims:
        first[workflow_id] = min(first.get(workflow_id, (at_ms, attempt)), (at_ms, attempt))
    known = sorted((at_ms, due_ms[name]) for name, (at_ms, attempt) in first.items() if attempt == 1 and name in due_ms)
    if not known:
        return Waits(0, len(due_ms))
    waits_ms = sorted(at_ms - due for at_ms, due in known)
    latest = itertools.accumulate((due for _, due in known), max)
    return Waits(
        len(known),
        len(due_ms) - len(known),
        sum(waits_ms) / len(known) / 1000,
        waits_ms[len(known) * 99 // 100] / 1000,
        waits_ms[-1] / 1000,
        max(late - due for late, (_, due) in zip(latest, known, strict=True)) / 1000,
    )


@dataclass
class Sent:
    """A message that was sent.

    Attributes:
        workflow_id: the workflow.
        name: identifies the message in the test.
        entry_id: the id that `send` returned; None if it raised an error.
    """

    workflow_id: str
    name: str
    entry_id: str | None = None


class Consumed(NamedTuple):
    """A message that a stored commit consumed: its name, and its id in the inbox."""

    name: str
    entry_id: str


def judge_messages(
    sent: Sequence[Sent], consumed: Mapping[str, Sequence[Consumed]], inboxes: Mapping[str, int]
) -> Verdict:
    """Compare the messages that commits consumed with those that were sent.

    Args:
        sent: the messages that were sent.
        consumed: for each workflow, the messages that its commits consumed, in the order of the commits.
        inboxes: for each workflow, how many messages are in its inbox in the end.
    """
    acknowledged = [one for one in sent if one.entry_id is not None]
    verdict = Verdict(appends=len(sent), acknowledged=len(acknowledged))
    counts = Counter((workflow_id, one) for workflow_id, some in consumed.items() for one in some)
    names = Counter((workflow_id, one.name) for workflow_id, some in consumed.items() for one in some)
    asked = {(one.workflow_id, one.name) for one in sent}
    for one in acknowledged:
        place = (one.workflow_id, one.name)
        verdict.lost += not names[place]
        if names[place] and (one.workflow_id, Consumed(one.name, str(one.entry_id))) not in counts:
            verdict.wrong.append(f"{one} was consumed with another id")
    for place, count in names.items():
        verdict.doubled += count - 1
        if place not in asked:
            verdict.wrong.append(f"{place} was consumed, and nobody sent it")
    for workflow_id, some in consumed.items():
        ids = [_position(one.entry_id) for one in some]
        if ids != sorted(ids):
            verdict.wrong.append(f"the messages of {workflow_id} were consumed out of order")
    verdict.wrong += [f"{count} messages are left in the inbox of {name}" for name, count in inboxes.items() if count]
    return verdict


def _position(entry_id: str) -> tuple[int, int]:
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number)
