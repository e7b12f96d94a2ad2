"""A short run of every kind of fault, and tests of the judge that must find every violation."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from runic_redis.operations.feed_entries import COMMIT, DELETED, FeedEntry
from tests.chaos.deliveries import Appended, Delivery, judge_deliveries, judge_feed
from tests.chaos.grouping import Group, Part, judge_groups
from tests.chaos.history import Append, Delete, Read, Stored, Verdict, View, judge
from tests.chaos.lives import Consumed, Life, Sent, judge_lives, judge_messages, waits_of
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
    "consumers": 4,
    "consumers-load": 1,
    "consumers-failovers": 1,
    "consumers-reshards": 1,
    "projections": 4,
    "projections-failovers": 1,
    "claims": 4,
    "claims-load": 2,
    "claims-failovers": 1,
    "claims-reshards": 1,
    "messages": 4,
    "groups": 100,
    "groups-kills": 6,
    "groups-failovers": 1,
    "groups-reshards": 2,
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
    # "cuts" is the three kinds of cuts in one, and "claims-backlog" is "claims-load" with more workflows.
    assert FAULTS.keys() == KINDS.keys() - {"cuts", "claims-backlog"}


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


@dataclass
class Followed:
    """What writers were told, the feed, and what two consumers got: the second took over at the third commit."""

    appended: list[Appended] = field(
        default_factory=lambda: [
            Appended("plain-1", 1, 1, "a", 1),
            Appended("plain-2", 2, 2, "b", 2),
            Appended("plain-1", 3, 2, "c", 3),
        ]
    )
    entries: list[FeedEntry] = field(
        default_factory=lambda: [
            FeedEntry(1, 10, COMMIT, 1, 1, "plain-1", 0),
            FeedEntry(3, 10, COMMIT, 2, 2, "plain-2", 0),
            FeedEntry(5, 11, COMMIT, 2, 3, "plain-1", 0),
        ]
    )
    deliveries: list[Delivery] = field(
        default_factory=lambda: [
            Delivery(1, (0, "1-10"), "plain-1", 1, 1, 1, "a", 100, 110),
            Delivery(1, (0, "3-10"), "plain-2", 2, 2, 2, "b", 120, 130),
            Delivery(1, (0, "5-11"), "plain-1", 3, 2, 2, "c", 140),
            Delivery(2, (0, "5-11"), "plain-1", 3, 2, 2, "c", 200, 210),
        ]
    )

    def judge(self, batch: int = 1, *, may_go_back: bool = False) -> Verdict:
        feeds = {0: self.entries}
        verdict = judge_feed(feeds, self.appended)
        verdict.add(judge_deliveries(feeds, self.appended, self.deliveries, batch=batch, may_go_back=may_go_back))
        return verdict


def test_a_commit_that_nobody_acknowledged_may_come_again() -> None:
    assert faults_of(Followed().judge()) == (0, 0, 0, "")


def miss(followed: Followed) -> None:
    del followed.deliveries[1]


def lack(followed: Followed) -> None:
    followed.entries.pop()
    del followed.deliveries[2:]


def repeat(followed: Followed) -> None:
    followed.deliveries.insert(3, Delivery(2, (0, "3-10"), "plain-2", 2, 2, 2, "b", 190, 195))


def swap(followed: Followed) -> None:
    followed.deliveries[0] = replace(followed.deliveries[0], began_ns=135, ended_ns=138)


def deliver_a_part(followed: Followed) -> None:
    followed.deliveries[1] = replace(followed.deliveries[1], size=1)


def deliver_what_is_not_there(followed: Followed) -> None:
    followed.deliveries.append(Delivery(2, (0, "6-12"), "plain-2", 3, 1, 1, "d", 220, 230))


def skip_positions(followed: Followed) -> None:
    followed.entries[2] = followed.entries[2]._replace(span=1)


def go_back_in_the_feed(followed: Followed) -> None:
    followed.entries[2] = followed.entries[2]._replace(cursor=2)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (miss, (1, 0, 0, "Appended(workflow_id='plain-2'")),
        (lack, (1, 0, 0, "Appended(workflow_id='plain-1', cursor=3")),
        (repeat, (0, 1, 0, "")),
        (swap, (0, 0, 0, "out of order in partition 0")),
        (deliver_a_part, (0, 0, 1, "")),
        (deliver_what_is_not_there, (0, 0, 0, "is not in the feed")),
        (skip_positions, (1, 0, 2, "goes from 3 to 4")),
        (go_back_in_the_feed, (1, 0, 2, "after the cursor 1")),
    ],
)
def test_the_judge_of_deliveries_finds(fault: Callable[[Followed], None], found: tuple[int, int, int, str]) -> None:
    followed = Followed()
    fault(followed)
    lost, doubled, torn, wrong = faults_of(followed.judge())
    assert (lost, doubled, torn) == found[:3]
    assert found[3] in wrong
    assert (found[3] == "") == (wrong == "")


def test_a_batch_of_acknowledgements_may_be_taken_back_but_for_one() -> None:
    followed = Followed()
    repeat(followed)
    assert followed.judge(batch=2).doubled == 0
    followed.deliveries.insert(3, Delivery(2, (0, "1-10"), "plain-1", 1, 1, 1, "a", 180, 185))
    assert followed.judge(batch=3).doubled == 0
    assert followed.judge(batch=2).doubled == 1


def test_the_commits_of_a_workflow_that_was_deleted_may_be_missed() -> None:
    followed = Followed()
    followed.entries.append(FeedEntry(6, 12, DELETED, 1, 2, "plain-2", 0))
    followed.deliveries.append(Delivery(2, (0, "6-12"), "plain-2", 2, 0, 0, "-", 220, 230))
    miss(followed)
    verdict = followed.judge()
    assert verdict.lost == 0
    followed.deliveries.pop()
    assert followed.judge().lost == 1, "the deletion is a commit, too"


def test_a_failover_drops_what_was_delivered_and_not_acknowledged() -> None:
    followed = Followed()
    followed.deliveries.append(Delivery(2, (0, "6-12"), "plain-2", 3, 1, 1, "d", 220))
    assert not followed.judge(may_go_back=True).wrong
    assert followed.judge().wrong
    deliver_what_is_not_there(followed)
    assert followed.judge(may_go_back=True).wrong


@pytest.mark.parametrize(
    ("events", "is_completed", "found"),
    [
        (["start", "done"], True, (0, 0, 0, "")),
        (["start", "done"], False, (1, 0, 0, "")),
        (["start"], True, (1, 0, 0, "has the events")),
        (["start", "done", "done"], True, (0, 1, 0, "")),
        (["done", "start"], True, (0, 0, 0, "")),
        (["start", "start", "done"], True, (0, 0, 0, "has the events")),
    ],
)
def test_the_judge_of_lives_finds(events: list[str], is_completed: bool, found: tuple[int, int, int, str]) -> None:
    lives = {"w": Life(["start", "done"], is_completed=True), "v": Life(events, is_completed)}
    lost, doubled, torn, wrong = faults_of(judge_lives(["w", "v"], lives))
    assert (lost, doubled, torn) == found[:3]
    assert found[3] in wrong
    assert (found[3] == "") == (wrong == "")


def test_the_judge_of_lives_finds_workflows_that_are_gone_or_were_not_started() -> None:
    verdict = judge_lives(["w"], {"v": Life(["start", "done"], is_completed=True)})
    assert verdict.lost == 1
    assert "v was not started" in verdict.wrong[0]


def test_waits_end_with_the_first_claim() -> None:
    due_ms = {"a": 1000, "b": 1000, "c": 3000, "d": 2000}
    claims = [("a", 1, 2000), ("a", 2, 9000), ("b", 2, 9000), ("c", 1, 3500), ("d", 1, 4500), ("e", 1, 1)]
    waits = waits_of(due_ms, claims)
    assert (waits.count, waits.unknown) == (3, 1), "the first claim of b is not known"
    assert (waits.mean_s, waits.longest_s) == (4 / 3, 2.5)
    assert waits.overtaken_s == 1.0, "c was claimed before d, and was due a second later"
    assert waits_of(due_ms, []).count == 0


def test_the_judge_of_messages() -> None:
    sent = [Sent("w", "a", "5-0"), Sent("w", "b", "5-1"), Sent("w", "unknown"), Sent("v", "c", "7-0")]
    consumed = {"w": [Consumed("a", "5-0"), Consumed("b", "5-1")], "v": [Consumed("c", "7-0")]}
    assert faults_of(judge_messages(sent, consumed, {"w": 0})) == (0, 0, 0, "")
    consumed["w"].append(Consumed("unknown", "6-0"))
    verdict = judge_messages(sent, consumed, {"w": 0})
    assert faults_of(verdict) == (0, 0, 0, "")
    assert (verdict.appends, verdict.acknowledged) == (4, 3)


@pytest.mark.parametrize(
    ("consumed", "found"),
    [
        ([Consumed("a", "5-0")], (1, 0, "")),
        ([Consumed("a", "5-0"), Consumed("b", "5-1"), Consumed("b", "5-1")], (0, 1, "")),
        ([Consumed("a", "5-0"), Consumed("b", "5-1"), Consumed("u", "6-0"), Consumed("u", "6-1")], (0, 1, "")),
        ([Consumed("a", "5-0"), Consumed("b", "5-9")], (0, 0, "with another id")),
        ([Consumed("b", "5-1"), Consumed("a", "5-0")], (0, 0, "out of order")),
        ([Consumed("a", "5-0"), Consumed("b", "5-1"), Consumed("z", "6-0")], (0, 0, "nobody sent it")),
    ],
)
def test_the_judge_of_messages_finds(consumed: list[Consumed], found: tuple[int, int, str]) -> None:
    sent = [Sent("w", "a", "5-0"), Sent("w", "b", "5-1"), Sent("w", "u")]
    lost, doubled, _, wrong = faults_of(judge_messages(sent, {"w": consumed}, {"w": 0}))
    assert (lost, doubled) == found[:2]
    assert found[2] in wrong
    assert (found[2] == "") == (wrong == "")


def test_the_judge_of_messages_finds_those_that_are_left() -> None:
    assert "2 messages are left" in judge_messages([], {}, {"w": 2}).wrong[0]


def test_the_judge_of_groups() -> None:
    group = Group("g", {"w": 1, "v": 2}, "acknowledged", {"w": 4, "v": 6})
    stored = {"w": [Part("g", 1, 4)], "v": [Part("g", 2, 6)]}
    assert faults_of(judge_groups([group], stored)) == (0, 0, 0, "")
    for outcome in ("unknown", "refused"):
        assert faults_of(judge_groups([replace(group, outcome=outcome)], {})) == (0, 0, 0, "")
    assert faults_of(judge_groups([replace(group, outcome="unknown")], stored)) == (0, 0, 0, "")


@pytest.mark.parametrize(
    ("outcome", "stored", "found"),
    [
        ("acknowledged", {}, (2, 0, 0, "at other cursors")),
        ("acknowledged", {"w": [Part("g", 1, 4)]}, (1, 0, 1, "at other cursors")),
        ("acknowledged", {"w": [Part("g", 1, 5)], "v": [Part("g", 2, 6)]}, (0, 0, 0, "at other cursors")),
        ("acknowledged", {"w": [Part("g", 1, 4)] * 2, "v": [Part("g", 2, 6)]}, (0, 1, 0, "")),
        ("unknown", {"v": [Part("g", 2, 6)]}, (0, 0, 1, "")),
        ("unknown", {"w": [Part("g", 1, 4)], "v": [Part("g", 1, 5)]}, (0, 0, 1, "")),
        ("refused", {"w": [Part("g", 1, 4)], "v": [Part("g", 2, 6)]}, (0, 0, 0, "was rejected, and stored")),
        ("unknown", {"w": [Part("other", 1, 1)]}, (0, 0, 0, "nobody asked for it")),
    ],
)
def test_the_judge_of_groups_finds(
    outcome: str, stored: dict[str, list[Part]], found: tuple[int, int, int, str]
) -> None:
    group = Group("g", {"w": 1, "v": 2}, outcome, {"w": 4, "v": 6})  # type: ignore[arg-type]
    lost, doubled, torn, wrong = faults_of(judge_groups([group], stored))
    assert (lost, doubled, torn) == found[:3]
    assert found[3] in wrong
    assert (found[3] == "") == (wrong == "")
