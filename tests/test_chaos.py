"""A short run of every kind of fault, and tests of the judge that must find every violation."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.chaos.history import Append, Delete, Read, Stored, Verdict, View, judge
from tests.chaos.run import KINDS, Row, run_kind

# The number of faults of each kind: enough to meet each. (120 cuts reach each byte of a reply.)
FAULTS = {
    "cuts-sync": 120,
    "cuts-async": 100,
    "cuts-grouped": 120,
    "disturbances": 6,
    "kills": 8,
    "stops": 4,
    "outages": 3,
    "full": 6,
    "oversized": 20,
    "lost-requests": 3,
    "late-requests": 5,
    "clock-steps": 4,
    "interrupts": 8,
    "failovers": 1,
    "failovers-memory": 1,
    "reshards": 3,
    "losses": 1,
}


# An interrupted call can drop an open connection or generator, which Python's garbage collector then closes.
LOSES_GARBAGE = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=LOSES_GARBAGE if kind == "interrupts" else ()) for kind in FAULTS]
)
def test_nothing_acknowledged_is_lost_doubled_or_torn(kind: str) -> None:
    row = run_kind(kind, faults=FAULTS[kind])
    assert row.faults == FAULTS[kind]
    assert row.verdict.acknowledged >= row.faults, "clients did not work on after each fault"
    assert (row.verdict.doubled, row.verdict.torn, row.verdict.wrong, row.errors) == (0, 0, [], [])
    assert row.flawless
    if kind == "failovers-memory":
        assert row.verdict.lost, "no commit was lost with the primary, so this run would not have shown a loss"


def test_every_kind_is_run() -> None:
    # "cuts" is the three kinds of cuts in one.
    assert FAULTS.keys() == KINDS.keys() - {"cuts"}


def history() -> View:
    """Return three commits in sequence, of one, two and three events, and two reads."""
    commits = [Stored("a", 1), Stored("b", 3), Stored("c", 6)]
    appends = [
        Append("a", 1, 0.0, None, 1.0, "acknowledged", 1),
        Append("b", 2, 2.0, 1, 3.0, "acknowledged", 3),
        Append("c", 3, 4.0, None, 5.0, "acknowledged", 6),
        Append("refused", 1, 4.0, 1, 5.0, "refused"),
        Append("unknown", 1, 4.0),
    ]
    return View("w", appends, [Read(1.5, 2.5, commits[:1]), Read(5.5, 5.6, commits)], final=commits)


def faults_of(verdict: Verdict) -> tuple[int, int, int, str]:
    return verdict.lost, verdict.doubled, verdict.torn, " ".join(verdict.wrong)


def test_the_judge_finds_nothing_where_nothing_is_wrong() -> None:
    verdict = judge(history())
    assert faults_of(verdict) == (0, 0, 0, "")
    assert (verdict.appends, verdict.acknowledged) == (5, 3)


def test_what_has_no_answer_may_be_there_or_not() -> None:
    view = history()
    view.final = [*view.final, Stored("unknown", 7)]
    assert faults_of(judge(view)) == (0, 0, 0, "")


def lose(view: View) -> None:
    view.final = view.final[:2]
    view.reads.pop()


def double(view: View) -> None:
    view.final = [*view.final, Stored("a", 7)]


def tear(view: View) -> None:
    view.reads.append(Read(7.0, 8.0, [Stored("a", 1), Stored("b", 2)]))


def tear_in_the_end(view: View) -> None:
    view.final = [Stored("a", 1), Stored("b", 3), Stored("c", 5)]


def store_what_was_refused(view: View) -> None:
    view.final = [*view.final, Stored("refused", 7)]


def store_what_nobody_asked_for(view: View) -> None:
    view.final = [*view.final, Stored("nobody's", 7)]


def go_back(view: View) -> None:
    view.reads.append(Read(7.0, 8.0, view.final[:1]))


def read_another_history(view: View) -> None:
    view.reads.append(Read(4.0, 4.5, [Stored("a", 1), Stored("unknown", 2)]))


def win_twice(view: View) -> None:
    view.appends.append(Append("d", 2, 2.0, 1, 3.0, "acknowledged", 3))


def be_answered_another_cursor(view: View) -> None:
    view.appends[2] = replace(view.appends[2], cursor=7)


def stand_before_what_was_there(view: View) -> None:
    view.appends[0] = replace(view.appends[0], began_s=6.0, ended_s=7.0)
    view.reads.clear()


def read_the_future(view: View) -> None:
    view.reads.append(Read(3.2, 3.5, view.final))


def read_what_was_deleted(view: View) -> None:
    view.deletes.append(Delete(1.1, 1.2))


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (lose, (1, 0, 0, "")),
        (double, (0, 1, 0, "")),
        (tear, (0, 0, 1, "lacks c")),
        (tear_in_the_end, (0, 0, 1, "is at 5, not at 6")),
        (store_what_was_refused, (0, 0, 0, "although its append was rejected")),
        (store_what_nobody_asked_for, (0, 0, 0, "no client appended it")),
        (go_back, (0, 0, 0, "went back from 3 commits to 1")),
        (read_another_history, (0, 0, 0, "differs from the final commits")),
        (win_twice, (1, 0, 0, "2 commits were acknowledged at the cursor 1")),
        (be_answered_another_cursor, (0, 0, 0, "is at 6, not at 7")),
        (stand_before_what_was_there, (0, 0, 0, "asked for later")),
        (read_the_future, (0, 0, 0, "before it was appended")),
        (read_what_was_deleted, (0, 0, 0, "after it had been deleted")),
    ],
)
def test_the_judge_finds(fault: Callable[[View], None], found: tuple[int, int, int, str]) -> None:
    view = history()
    fault(view)
    lost, doubled, torn, wrong = faults_of(judge(view))
    assert (lost, doubled, torn) == found[:3]
    assert found[3] in wrong
    assert (found[3] == "") == (wrong == "") or doubled
    assert not Row("any", verdict=judge(view)).flawless


def test_a_loss_that_the_writer_was_told_of_is_one_that_memory_may_have() -> None:
    view = history()
    lose(view)
    assert judge(view, may_lose=True).unnamed == 1
    view.losses_named.append(5)
    assert judge(view, may_lose=True).unnamed == 1, "the error named an earlier loss, not this one"
    view.losses_named.append(6)
    verdict = judge(view, may_lose=True)
    assert (verdict.lost, verdict.unnamed) == (1, 0)
    assert Row("failovers-memory", verdict=verdict).flawless
    assert not Row("kills", verdict=verdict).flawless


def test_what_was_deleted_is_not_lost() -> None:
    view = history()
    view.deletes.append(Delete(5.7, 5.8))
    view.final = []
    assert faults_of(judge(view)) == (0, 0, 0, "")
