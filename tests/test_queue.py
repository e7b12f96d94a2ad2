"""Queues: which commands are sent when, which share a round, which are retried; without sockets, threads and clocks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runic_redis.errors import StoreError
from runic_redis.protocol import queue, rounds, size_limits
from runic_redis.protocol.confirmation import Confirming
from runic_redis.protocol.effects import (
    Batch,
    Command,
    Confirmation,
    ConnectionLost,
    ErrorReply,
    Unanswered,
    Unconfirmed,
    call_script,
)
from runic_redis.protocol.node_queues import Queues
from runic_redis.protocol.queue import Queue
from runic_redis.protocol.rounds import Call, Ticket

CUT = ConnectionLost("cut", sent=True)
REFUSED = ConnectionLost("refused", sent=False)
NOSCRIPT = ErrorReply("NOSCRIPT", "")


def append(workflow_id: str, name: str, size: int = 100, tried: str = "1") -> Command:
    """Return a call that others may be joined with."""
    args = [workflow_id, name, ""]
    call = call_script("append", (key(workflow_id),), args, retry_at=2, workflow_id=workflow_id, size=size, writes=True)
    return replace(call, joins=True, tried=tried)


def key(workflow_id: str) -> str:
    return f"{{{workflow_id}}}:events"


def save(workflow_id: str, name: str) -> Command:
    """Return a call of a workflow that is always sent alone."""
    return call_script("save_log", (key(workflow_id),), [name, ""], retry_at=1, workflow_id=workflow_id, writes=True)


def read(key: str) -> Command:
    return Command(("GET", key), key)


class Woken(Ticket):
    """A ticket that notes when it is woken."""

    def __init__(self, batch: Batch, asked_s: float, woken: list[Ticket]) -> None:
        super().__init__(batch, asked_s)
        self.woken = woken

    def wake(self) -> None:
        self.woken.append(self)


class Player:
    """Plays the driver of a queue."""

    def __init__(self, deadline_s: float = 30.0) -> None:
        self.queue = Queue(deadline_s)
        self.now_s = 0.0
        self.woken: list[Ticket] = []

    def ask(self, *commands: Command, **options: Any) -> Ticket:
        ticket = Woken(Batch(commands, **options), self.now_s, self.woken)
        self.queue.add(ticket, range(len(commands)))
        return ticket

    def start_alone(self, command: Command) -> tuple[list[Call], Ticket]:
        """Put a command in flight, if it can be sent before it has a ticket."""
        calls = self.queue.start_alone(command, self.now_s)
        ticket = Woken(Batch([command]), self.now_s, self.woken)
        for call in calls:
            call.requests[0].ticket = ticket
        return calls, ticket

    def next_round(self, waiting: list[Command], arriving: int, *, alone: bool) -> list[Call]:
        """Let some commands arrive, the first of them `alone` if that can be; return the next round."""
        self.now_s = max(self.now_s, self.queue.resume_s)
        calls = self.start_alone(waiting[0])[0] if waiting and alone else []
        del waiting[: len(calls)]
        for command in waiting[:arriving]:
            self.ask(command)
        del waiting[:arriving]
        return calls or self.queue.next_round(self.now_s)

    def round(self, *answers: Any, after_s: float = 0.0) -> list[Sequence[Any]]:
        """Send the next round as soon as it may go, and answer it; return what was sent."""
        self.now_s = max(self.now_s + after_s, self.queue.resume_s)
        self.queue.enforce_deadlines(self.now_s)
        calls = self.queue.next_round(self.now_s)
        sent = [call.args for call in calls]
        if calls:
            self.queue.take(calls, answers, self.now_s)
        return sent

    def send_and_answer(self, each_s: float, answer: Any = 1) -> list[Call]:
        """Send the next round as soon as it may go, and answer it at this speed; return what was sent."""
        self.now_s = max(self.now_s, self.queue.resume_s)
        self.queue.enforce_deadlines(self.now_s)
        calls = self.queue.next_round(self.now_s)
        self.now_s += each_s * len(calls)
        if calls:
            self.queue.take(calls, [answer] * len(calls), self.now_s)
        return calls


@pytest.fixture
def player() -> Player:
    return Player()


def flag(args: Sequence[Any]) -> Any:
    """Return the argument of a script call that marks a retry: empty on a first try."""
    return args[-1]


def test_what_waits_goes_in_one_round_in_its_order(player: Player) -> None:
    tickets = [player.ask(read(key)) for key in "abc"]
    assert player.round(1, 2, 3) == [("GET", "a"), ("GET", "b"), ("GET", "c")]
    assert [ticket.replies for ticket in tickets] == [[1], [2], [3]]
    assert player.woken == tickets
    assert player.queue.idle


def test_what_comes_during_a_round_goes_in_the_next(player: Player) -> None:
    player.ask(read("a"))
    first = player.queue.next_round(0.0)
    player.ask(read("b"))
    player.ask(read("c"))
    player.queue.take(first, [1], 0.0)
    assert player.round(2, 3) == [("GET", "b"), ("GET", "c")]


def test_commits_are_one_call(player: Player) -> None:
    tickets = [player.ask(append("w", "1")), player.ask(append("v", "2")), player.ask(append("w", "3"))]
    (sent,) = player.round([1, 5, 2])
    assert sent[2:] == ("3", key("w"), key("v"), key("w"), "w", "1", "", "v", "2", "", "w", "3", "")
    assert [ticket.replies for ticket in tickets] == [[1], [5], [2]]


def test_a_text_among_the_replies_to_commits_is_an_error(player: Player) -> None:
    tickets = [player.ask(append(workflow_id, "1")) for workflow_id in "wvu"]
    player.round([1, b"CURSOR_CONFLICT 3", b"@user_script: 71: -OOM command not allowed.\r\n"])
    assert [ticket.replies for ticket in tickets] == [
        [1],
        [ErrorReply("CURSOR_CONFLICT", "3")],
        [ErrorReply("OOM", "command not allowed.")],
    ]


def test_a_commit_that_the_server_refuses_for_now_is_sent_again_without_the_others(player: Player) -> None:
    tickets = [player.ask(append(workflow_id, "1")) for workflow_id in "wv"]
    player.round([1, b"NOREPLICAS Not enough good replicas to write."])
    assert tickets[0].replies == [1]
    (sent,) = player.round([2])
    assert sent[3:] == (key("v"), "v", "1", "")
    assert tickets[1].replies == [2]


def test_a_lone_command_is_sent_as_one_that_waited(player: Player) -> None:
    for command in (append("w", "1"), save("w", "2"), read("k")):
        (call,), ticket = player.start_alone(command)
        assert not player.queue.idle
        assert player.queue.next_round(0.0) == []
        sent = call.args
        player.queue.take([call], [CUT], 0.0)
        assert ticket.missing == 1
        (retried,) = player.round([1] if command.joins else 1)
        assert ticket.replies == [1]
        assert player.queue.idle
        player.ask(command)
        assert player.round([1] if command.joins else 1) == [sent]
        assert [a == b for a, b in zip(sent, retried, strict=True)].count(False) == (command.retry_at is not None)


def test_a_lone_command_waits_for_others(player: Player) -> None:
    command = append("w", "1")
    assert player.start_alone(large("w", "1"))[0] == [], "it has its own connection"
    waiting = player.ask(append("v", "1"))
    assert player.start_alone(command)[0] == [], "another one waits"
    calls = player.queue.next_round(0.0)
    assert player.start_alone(command)[0] == [], "a round is in flight"
    player.queue.take(calls, [CUT], 0.0)
    player.queue.abandon(waiting)
    assert player.queue.idle
    assert player.start_alone(command)[0] == [], "the queue is paused"
    player.now_s = player.queue.resume_s
    player.ask(large("u", "1"))
    assert player.round() == []
    assert player.start_alone(command)[0] == [], "a large request is in flight"
    ((sent,),) = player.queue.take_large()
    player.queue.take([sent], [[1]], player.now_s)
    (call,), ticket = player.start_alone(command)
    player.queue.take([call], [[1]], player.now_s)
    assert ticket.replies == [1]


def test_a_lone_command_has_a_deadline_from_its_sending(player: Player) -> None:
    player.now_s = 5.0
    (call,), ticket = player.start_alone(read("k"))
    ticket.asked_s = 8.0  # the ticket is made later
    player.queue.take([call], [REFUSED], 8.0)
    player.queue.enforce_deadlines(34.9)
    assert ticket.missing == 1
    player.queue.enforce_deadlines(35.0)
    (reply,) = ticket.replies
    assert reply == Unanswered("refused", 30.0, unsure=False, refused=True)
    assert player.queue.idle


def test_a_lone_command_is_confirmed(player: Player) -> None:
    confirmed(player)
    (call,), ticket = player.start_alone(append("w", "1"))
    assert call.confirming == Confirming(Confirmation(1, fsync=False), 2000, touch=False)
    player.queue.take([call], [Unconfirmed([1], "behind", transient=True)], 1.0)
    (call,) = player.queue.next_round(player.queue.resume_s)
    assert call.confirming is not None
    assert call.confirming.touch
    player.queue.take([call], [[1]], 2.0)
    assert ticket.replies == [1]


def confirmed(player: Player, deadline_s: float = 30.0) -> None:
    player.queue = Queue(deadline_s, confirmation=Confirmation(1, fsync=False), wait_s=2.0)


def test_what_may_have_written_nothing_is_told_apart(player: Player) -> None:
    confirmed(player)
    sure = append("w", "1")
    tickets = [player.ask(sure), player.ask(replace(sure, workflow_id="v"))]
    (call,) = player.queue.next_round(0.0)
    assert call.confirming == Confirming(Confirmation(1, fsync=False), 2000, touch=False)
    player.queue.take([call], [Unconfirmed([1, b"CURSOR_CONFLICT 3"], "behind", transient=True)], 1.0)
    assert tickets[0].missing == 1
    assert tickets[1].replies == [ErrorReply("CURSOR_CONFLICT", "3")], "it needs no confirmation"
    (call,) = player.queue.next_round(player.queue.resume_s)
    assert call.confirming is not None
    assert call.confirming.touch, "it may be there already"
    player.queue.take([call], [[1]], 2.0)
    assert tickets[0].replies == [1]
    player.ask(replace(sure, writes=False))
    (call,) = player.queue.next_round(3.0)
    assert call.confirming is not None
    assert call.confirming.touch, "it may be one that was asked for before"


def test_what_is_not_confirmed_by_the_deadline_is_answered_so(player: Player) -> None:
    confirmed(player, 1.0)
    ticket = player.ask(append("w", "1"))
    for now_s in (0.0, 0.5):
        player.now_s = now_s
        player.round(Unconfirmed([7], "behind", transient=True), after_s=0.2)
    assert player.round(after_s=1.0) == []
    (reply,) = ticket.replies
    assert isinstance(reply, Unconfirmed)
    assert (reply.reply, reply.reason) == (7, "behind")
    assert 0.4 < reply.elapsed_s <= 1.0


def test_what_will_never_be_confirmed_is_answered_at_once(player: Player) -> None:
    confirmed(player)
    ticket = player.ask(save("w", "1"))
    player.round(Unconfirmed(1, "no such thing", transient=False))
    assert isinstance(ticket.replies[0], Unconfirmed)
    assert player.queue.idle


def test_a_server_waits_no_longer_for_a_confirmation_than_the_deadline(player: Player) -> None:
    confirmed(player, 1.5)
    player.ask(append("w", "1"))
    (call,) = player.queue.next_round(10.0)
    assert call.confirming is not None
    assert call.confirming.wait_ms == 1500
    player.queue.take([call], [Unconfirmed([7], "behind", transient=True)], 11.0)
    (call,) = player.queue.next_round(player.queue.resume_s)
    assert call.confirming is not None
    assert 50 <= call.confirming.wait_ms <= 500


def test_what_is_confirmed_in_another_way_waits_for_itself() -> None:
    disk, replica = Confirmation(0, fsync=True), Confirmation(1, fsync=False)
    for find_node in (None, lambda key: "node"):
        queues = Queues(30.0, find_node)
        tickets = [Ticket(Batch([append("w", "1")], confirmation=how), 0.0) for how in (None, disk, replica)]
        found = [next(iter(queues.find(ticket))) for ticket in tickets]
        assert len(set(found)) == 3
        assert [next(iter(queues.find(ticket))) for ticket in tickets] == found
        assert set(found) <= set(queues)


def test_in_a_cluster_commits_of_one_slot_are_one_call(player: Player) -> None:
    player.queue = Queue(30.0, by_slot=True)
    for workflow_id, name in (("w", "1"), ("v", "2"), ("w", "3")):
        player.ask(append(workflow_id, name))
    sent = player.round([1, 2], [5])
    assert [args[2:] for args in sent] == [
        ("2", key("w"), key("w"), "w", "1", "", "w", "3", ""),
        ("1", key("v"), "v", "2", ""),
    ]


def test_a_node_of_a_cluster_shows_by_its_error_that_slots_matter(player: Player) -> None:
    tickets = [player.ask(append("w", "1")), player.ask(append("v", "2"))]
    assert len(player.round(ErrorReply("CROSSSLOT", "Keys in request don't hash to the same slot"))) == 1
    assert len(player.round([1], [2])) == 2
    assert [ticket.replies for ticket in tickets] == [[1], [2]]


def test_a_call_that_crosses_slots_by_itself_fails_alone(player: Player) -> None:
    cross = ErrorReply("CROSSSLOT", "Keys in request don't hash to the same slot")
    tickets = [player.ask(append("w", "1")), player.ask(append("w", "2"))]
    player.round(cross)
    player.round(cross)
    player.round([2])
    assert [ticket.replies for ticket in tickets] == [[ErrorReply("CROSSSLOT", cross.message)], [2]]


def test_an_error_of_a_joined_call_is_everybody_s(player: Player) -> None:
    tickets = [player.ask(append("w", "1")), player.ask(append("w", "2"))]
    player.round(ErrorReply("WRONGTYPE", "no"))
    assert [ticket.replies[0].code for ticket in tickets] == ["WRONGTYPE", "WRONGTYPE"]


def test_calls_of_a_workflow_that_cannot_be_joined_follow_each_other(player: Player) -> None:
    for command in (append("w", "1"), save("w", "2"), append("w", "3"), save("v", "4")):
        player.ask(command)
    assert [args[4] for args in player.round([1], 1)] == ["w", "4"]
    assert [args[4] for args in player.round(1)] == ["2"]
    assert [args[5] for args in player.round([1])] == ["3"]


def test_a_round_waits_for_the_one_in_flight(player: Player) -> None:
    player.ask(append("w", "1"))
    first = player.queue.next_round(0.0)
    player.ask(append("w", "2"))
    assert player.queue.next_round(0.0) == []
    player.queue.take(first, [[1]], 0.0)
    assert [args[5] for args in player.round([2])] == ["2"]


def test_a_lost_reply_is_asked_for_by_a_flagged_retry(player: Player) -> None:
    ticket = player.ask(append("w", "1", tried="3-5"))
    assert flag(player.round(CUT)[0]) == ""
    assert flag(player.round(CUT, after_s=0.25)[0]) == "3-5"
    assert flag(player.round([7], after_s=1.25)[0]) == "3-5"
    assert ticket.replies == [7]


def test_a_connection_that_was_refused_has_sent_nothing(player: Player) -> None:
    player.ask(append("w", "1"))
    player.round(REFUSED)
    assert flag(player.round([7], after_s=1)[0]) == "", "the second try is a first one still"


def test_once_unsure_every_later_try_is_flagged(player: Player) -> None:
    player.ask(append("w", "1"))
    player.round(CUT)
    assert [flag(player.round(answer, after_s=1)[0]) for answer in (REFUSED, [7])] == ["1", "1"]


def test_a_retry_and_a_first_try_of_a_workflow_are_joined_in_order(player: Player) -> None:
    player.ask(append("w", "1"))
    player.round(CUT)
    player.ask(append("w", "2"))
    assert [args[5:] for args in player.round([1, 2], after_s=1)] == [("w", "1", "1", "w", "2", "")]


def test_what_is_to_be_looked_for_again_is_sent_again_at_once_in_order(player: Player) -> None:
    tickets = [player.ask(append(workflow_id, name)) for workflow_id, name in (("w", "1"), ("v", "2"), ("w", "3"))]
    player.round(CUT)
    player.ask(append("u", "4"))
    assert len(player.round([1, b"LOOK_AGAIN ", 2, 4], after_s=1)) == 1
    assert player.queue.resume_s <= player.now_s, "the server has not failed"
    assert [ticket.replies for ticket in tickets[::2]] == [[1], [2]]
    assert tickets[1].missing
    player.ask(append("v", "5"))
    assert [args[5:] for args in player.round([3, 5])] == [("v", "2", "1", "v", "5", "")], "as a retry, in its place"
    assert tickets[1].replies == [3]


def test_nothing_is_sent_before_the_pause_is_over(player: Player) -> None:
    player.ask(append("w", "1"))
    player.round(CUT)
    player.ask(read("other"))
    assert player.queue.next_round(player.queue.resume_s - 0.001) == []
    assert len(player.round([1], 2)) == 2


def test_pauses_grow_have_jitter_and_are_bounded(player: Player) -> None:
    player.ask(read("k"))
    pauses = []
    for _ in range(20):
        player.round(CUT)
        pauses.append(player.queue.resume_s - player.now_s)
    for number, pause in enumerate(pauses, 1):
        longest = min(1.0, 0.02 * 2**number)
        assert longest / 2 - 1e-9 <= pause <= longest + 1e-9
    assert len({round(pause, 6) for pause in pauses[8:]}) > 1


def test_after_the_deadline_a_command_is_unanswered(player: Player) -> None:
    sure, unsure, idempotent = player.ask(save("u", "1")), player.ask(append("w", "1")), player.ask(read("k"))
    player.round(REFUSED, CUT, CUT)
    assert player.round(after_s=30.0) == []
    for ticket, expected in ((sure, False), (unsure, True), (idempotent, False)):
        (reply,) = ticket.replies
        assert isinstance(reply, Unanswered)
        assert (reply.reason, reply.unsure) == ("cut", expected)
        assert reply.elapsed_s >= 30
    assert player.queue.idle


def test_each_command_has_a_deadline_of_its_own(player: Player) -> None:
    first = player.ask(read("a"))
    player.round(CUT)
    player.now_s = 20.0
    second = player.ask(read("b"))
    player.round(CUT, CUT, after_s=9.0)
    assert player.round(2, after_s=2.0) == [("GET", "b")]
    assert isinstance(first.replies[0], Unanswered)
    assert second.replies == [2]


def test_who_waits_for_others_waits_no_longer_than_the_deadline(player: Player) -> None:
    """However many wait, also of one workflow, whose commands go one by one."""
    many = [player.ask(read(str(number))) for number in range(5 * queue._MOST_CALLS)]
    one_by_one = [player.ask(save("w", str(number))) for number in range(5)]
    while player.now_s < 20:
        player.send_and_answer(0.0, CUT)
    late = player.ask(read("late"))
    while many[-1].missing:
        player.send_and_answer(0.0, CUT)
    assert 30 <= player.now_s < 30 + queue._LONGEST_PAUSE_S
    assert not any(ticket.missing for ticket in [*many, *one_by_one])
    while late.missing:
        player.send_and_answer(0.0, CUT)
    assert 30 <= player.now_s - late.asked_s < 30 + queue._LONGEST_PAUSE_S
    assert player.queue.idle
    for ticket in [*many, *one_by_one, late]:
        (reply,) = ticket.replies
        assert isinstance(reply, Unanswered)
        assert reply.elapsed_s >= 30
    assert not one_by_one[-1].replies[0].unsure, "it was never sent"


def test_who_waits_while_the_server_answers_has_a_deadline_of_its_own(player: Player) -> None:
    """A command that came long before the server failed has only waited for others until then."""
    for number in range(2 * queue._MOST_CALLS):
        player.ask(*(read(f"{number} {part}") for part in "ab"))
    waits = player.ask(read("waits"))
    player.send_and_answer(0.0)
    player.now_s = 100.0
    player.send_and_answer(0.0, CUT)
    player.now_s = 129.0
    while waits.missing:
        player.send_and_answer(0.0)
    assert waits.replies == [1]


def test_who_comes_when_others_have_given_up_is_tried(player: Player) -> None:
    """Also where a deadline lets one try only."""
    player.queue = Queue(0.0)
    for number in range(3):
        ticket = player.ask(read("k"))
        assert player.round(CUT, after_s=1.0) == [("GET", "k")]
        assert player.round() == []
        assert isinstance(ticket.replies[0], Unanswered), number


@pytest.mark.parametrize("code", ["BUSY", "LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN"])
def test_a_server_that_cannot_yet_is_asked_again_as_if_for_the_first_time(player: Player, code: str) -> None:
    ticket = player.ask(append("w", "1"))
    player.round(ErrorReply(code, "not now"))
    assert player.queue.resume_s > 0
    assert flag(player.round([7])[0]) == ""
    assert ticket.replies == [7]


def test_a_refused_retry_is_marked(player: Player) -> None:
    ticket = player.ask(append("w", "1"))
    player.round(CUT)
    player.round(ErrorReply("OOM", "full"), after_s=1)
    assert ticket.replies == [ErrorReply("OOM", "full", unsure=True)]


def test_an_unknown_script_is_sent_at_once_with_its_text(player: Player) -> None:
    tickets = [player.ask(append("w", "1")), player.ask(append("w", "2"))]
    (called,) = player.round(NOSCRIPT)
    assert player.queue.resume_s == 0
    player.ask(append("w", "3"))
    (sent,) = player.round([1, 2])
    assert (called[0], sent[0]) == ("EVALSHA", "EVAL")
    assert sent[2:] == called[2:]
    assert [ticket.replies for ticket in tickets] == [[1], [2]]
    assert [args[:1] for args in player.round([3])] == [("EVALSHA",)]


@pytest.mark.parametrize(
    "rejection",
    [
        "unknown command 'EVALSHA', with args beginning with: 'abc' '1' ",
        "ERR unknown command `EVALSHA`, with args beginning with: `abc`, `1`, ",
        "unsupported command 'evalsha'",
        "NOPERM User shop has no permissions to run the 'evalsha' command",
        "NOPERM this user has no permissions to run the 'evalsha' command or its subcommand",
    ],
)
def test_a_server_that_rejects_evalsha_is_sent_the_text_from_then_on(player: Player, rejection: str) -> None:
    ticket = player.ask(append("w", "1"))
    (called,) = player.round(ErrorReply.parse(rejection))
    assert player.queue.resume_s == 0
    (sent,) = player.round([1])
    assert (called[0], sent[0], sent[2:]) == ("EVALSHA", "EVAL", called[2:])
    assert ticket.replies == [1]
    player.ask(append("w", "2"))
    assert [args[0] for args in player.round([2])] == ["EVAL"]


def test_a_server_that_rejects_eval_too_is_not_asked_again(player: Player) -> None:
    ticket = player.ask(append("w", "1"))
    player.round(ErrorReply.parse("NOPERM User shop has no permissions to run the 'evalsha' command"))
    denied = ErrorReply.parse("NOPERM User shop has no permissions to run the 'eval' command")
    player.round(denied)
    assert ticket.replies == [denied]


@pytest.mark.parametrize(
    "refusal",
    [
        "NOPERM User shop has no permissions to access one of the keys used as arguments",
        "ERR Unknown Redis command called from script",
        "ERR ACL failure in script: User shop has no permissions to run the 'xadd' command",
        "OOM command not allowed when used memory > 'maxmemory'.",
    ],
)
def test_a_refusal_by_the_script_does_not_make_it_sent_as_text(player: Player, refusal: str) -> None:
    ticket = player.ask(append("w", "1"))
    player.round(ErrorReply.parse(refusal))
    assert ticket.replies == [ErrorReply.parse(refusal)]


def test_an_unanswered_command_knows_whether_every_try_was_refused(player: Player) -> None:
    refused, lost, repeatable = player.ask(save("u", "1")), player.ask(save("v", "1")), player.ask(read("k"))
    readonly = ErrorReply("READONLY", "a replica")
    player.round(readonly, CUT, CUT)
    player.round(readonly, readonly, readonly)
    player.round(after_s=30.0)
    found = [ticket.replies[0] for ticket in (refused, lost, repeatable)]
    assert [(reply.code, reply.unsure, reply.refused) for reply in found] == [
        ("READONLY", False, True),
        ("READONLY", True, False),
        ("READONLY", False, False),
    ]


def test_a_pause_does_not_outlast_the_deadline(player: Player) -> None:
    ticket = player.ask(read("k"))
    while ticket.missing:
        player.round(CUT)
    assert 30 <= player.now_s <= 30 + queue._FIRST_PAUSE_S


def test_an_unknown_script_on_a_retry_is_still_a_retry(player: Player) -> None:
    player.ask(append("w", "1"))
    player.round(CUT)
    assert flag(player.round(NOSCRIPT, after_s=1)[0]) == "1"
    (sent,) = player.round([1])
    assert (sent[0], flag(sent)) == ("EVAL", "1")


def test_replies_that_belong_together_are_asked_for_together(player: Player) -> None:
    ticket = player.ask(read("a"), read("b"), all_or_none=True)
    player.round(1, CUT)
    assert not player.woken
    assert len(player.round(3, 4, after_s=1)) == 2
    assert ticket.replies == [3, 4]
    assert player.woken == [ticket]


def test_what_nobody_waits_for_is_neither_sent_nor_tried_again(player: Player) -> None:
    gone, stays = player.ask(read("a")), player.ask(read("b"))
    player.queue.abandon(gone)
    assert player.round(2) == [("GET", "b")]
    assert stays.replies == [2]
    in_flight = player.ask(append("w", "1"))
    calls = player.queue.next_round(0.0)
    player.queue.abandon(in_flight)
    player.queue.take(calls, [CUT], 0.0)
    assert player.queue.idle


def test_a_round_that_fails_for_good_fails_all_that_it_is_a_part_of(player: Player) -> None:
    for number in range(queue._MOST_CALLS):
        player.ask(read(str(number)))
    ticket = player.ask(*(read(str(number)) for number in range(3)), save("w", "1"))
    calls = player.queue.next_round(0.0)
    player.queue.fail(calls, StoreError("closed"))
    assert len(player.woken) == queue._MOST_CALLS
    calls = player.queue.next_round(0.0)
    player.queue.fail(calls[:1], StoreError("closed"))
    assert str(ticket.error) == "closed"
    player.queue.fail_all(StoreError("over"))
    assert next(player.queue.waiting_tickets(), None) is None


def test_what_failed_at_one_node_is_not_sent_to_another(player: Player) -> None:
    other = Queue(30.0)
    waiting = player.ask(read("k"))
    ticket = Ticket(Batch([read("a"), read("b")]), 0.0)
    other.add(ticket, [0])
    player.queue.add(ticket, [1])
    calls = other.next_round(0.0)
    other.fail(calls, StoreError("no login"))
    assert player.round(1) == [("GET", "k")]
    assert waiting.replies == [1]
    assert player.queue.idle


def test_who_asked_before_is_told_that_it_may_have_been_done(player: Player) -> None:
    before = player.ask(append("w", "1"))
    player.round(CUT)
    new = player.ask(append("w", "2"))
    player.queue.fail(player.queue.next_round(player.queue.resume_s), StoreError("closed. Nothing more was sent."))
    assert "not known" in str(before.error)
    assert str(new.error) == "closed. Nothing more was sent."


def test_what_is_answered_twice_is_answered_once(player: Player) -> None:
    """As when a round is thought lost with the thread that sent it, and has a reply all the same."""
    ticket = player.ask(append("w", "1"), read("k"))
    calls = player.queue.next_round(0.0)
    other = Player()
    other.queue.add_lost(ticket, ticket.unanswered())
    assert flag(other.round([5], CUT, after_s=2)[0]) == "1"
    player.queue.take(calls, [[5], b"v"], 0.0)
    assert ticket.replies == [5, b"v"]
    assert player.woken == [ticket]
    other.round(b"again")
    assert (ticket.missing, ticket.replies, player.woken) == (0, [5, b"v"], [ticket])


def test_a_round_is_bounded_in_calls_and_bytes(player: Player) -> None:
    for number in range(queue._MOST_CALLS + 1):
        player.ask(read(str(number)))
    assert len(player.round(*range(queue._MOST_CALLS))) == queue._MOST_CALLS
    assert len(player.round(1)) == 1
    size = rounds.LARGE_BYTES - 1
    fitting = rounds.MOST_BYTES // size
    for number in range(fitting + 1):
        player.ask(Command(("GET", str(number)), str(number), size=size))
    assert len(player.round(*range(fitting))) == fitting
    assert len(player.round(1)) == 1


def test_a_deadline_counts_from_the_sending_of_what_failed(player: Player) -> None:
    first, behind = player.ask(append("w", "1")), player.ask(save("w", "2"))
    calls = player.queue.next_round(5.0)
    player.queue.take(calls, [CUT], 10.0)
    player.queue.enforce_deadlines(34.9)
    assert first.missing
    assert behind.missing
    player.queue.enforce_deadlines(35.0)
    assert first.replies == [Unanswered("cut", 30.0, unsure=True)]
    assert behind.replies == [Unanswered("cut", 30.0, unsure=False, refused=True)]


def large(workflow_id: str, name: str, size: int = rounds.LARGE_BYTES) -> Command:
    call = append(workflow_id, name, size)
    return replace(call, args=[*call.args, b"x" * size])


CLOSED = ConnectionLost("closed", sent=True, closed=True)
LIMITS = [("CONFIG", "GET", "proto-max-bulk-len"), ("CONFIG", "GET", "client-query-buffer-limit")]
MIB = 1024 * 1024
WIDE = ([b"proto-max-bulk-len", b"536870912"], {b"client-query-buffer-limit": b"1073741824"})
UNTOLD = (ErrorReply("NOPERM", "no"), ErrorReply("NOPERM", "no"))


def test_a_large_request_does_not_hold_up_others(player: Player) -> None:
    tickets = [player.ask(append("v", "1")), player.ask(large("w", "2")), player.ask(append("u", "3"))]
    assert len(player.round([1, 3])) == 1
    ((sent,),) = player.queue.take_large()
    assert sent.own_connection
    assert player.queue.take_large() == []
    later = player.ask(append("v", "4"))
    player.round([4])
    player.queue.take([sent], [[2]], 0.0)
    assert [ticket.replies for ticket in [*tickets, later]] == [[1], [2], [3], [4]]
    assert player.queue.idle


def test_a_large_request_keeps_its_place_in_its_workflow(player: Player) -> None:
    for command in (append("w", "1"), large("w", "2"), append("w", "3"), append("v", "4")):
        player.ask(command)
    (sent,) = player.round([1, 4])
    assert sent[5] == "w"
    assert sent[8] == "v"
    assert player.queue.take_large() == []
    assert player.round() == []
    ((sent,),) = player.queue.take_large()
    assert player.round() == [], "a request of the workflow is in flight"
    player.queue.take([sent], [[2]], 0.0)
    assert [args[5] for args in player.round([3])] == ["3"]


def test_few_large_requests_are_in_flight(player: Player) -> None:
    for number in range(queue._MOST_LARGE + 1):
        player.ask(large(f"w-{number}", "1"))
    player.ask(append(f"w-{queue._MOST_LARGE}", "2"))
    assert player.round() == [], "the last workflow waits for its large request"
    rounds = player.queue.take_large()
    assert len(rounds) == queue._MOST_LARGE
    player.queue.take(rounds[0], [[1]], 0.0)
    player.round()
    assert len(player.queue.take_large()) == 1


def ask_large(player: Player, *answers: Any) -> list[Sequence[Any]]:
    """Send the round of a large request, and answer it; return what was sent."""
    assert player.round() == []
    (calls,) = player.queue.take_large()
    player.queue.take(calls, answers, player.now_s)
    return [call.args for call in calls]


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (([b"proto-max-bulk-len", b"1048576"], WIDE[1]), "proto-max-bulk-len is 1048576 bytes"),
        ((WIDE[0], {b"client-query-buffer-limit": b"1048578"}), "client-query-buffer-limit is 1048578 bytes"),
    ],
)
def test_a_request_over_a_limit_fails_alone_at_once(player: Player, limits: Sequence[Any], named: str) -> None:
    ticket = player.ask(large("w", "1", MIB + 1))
    ask_large(player, CLOSED)
    other = player.ask(append("v", "1"))
    assert len(player.round([1])) == 1, "nothing waits out a pause"
    assert other.replies == [1]
    ((*questions,),) = player.queue.take_large()
    assert [call.args for call in questions] == LIMITS
    player.queue.take(questions, limits, player.now_s)
    (reply,) = ticket.replies
    assert (reply.code, reply.unsure) == ("TOO_LARGE", False)
    assert str(MIB + 3) in reply.message
    assert named in reply.message
    assert player.queue.idle


@pytest.mark.parametrize("limit", [b"1048577", b"1048578"])
def test_a_request_just_under_the_limits_is_sent_again(player: Player, limit: bytes) -> None:
    ticket = player.ask(large("w", "1", MIB))
    ask_large(player, CLOSED)
    limits = (WIDE[0], [b"", b"1048578"]) if limit == b"1048578" else ([b"", b"1048576"], WIDE[1])
    assert ask_large(player, *limits) == LIMITS
    (sent,) = ask_large(player, [7])
    assert sent[5] == "1"
    assert sent[6] != "", "as a retry"
    assert ticket.replies == [7]


def test_a_large_request_is_tried_until_its_deadline_while_the_network_fails(player: Player) -> None:
    ticket = player.ask(large("w", "1"))
    tries = 0
    while ticket.missing:
        assert player.round(after_s=1) == []
        for calls in player.queue.take_large():
            tries += 1
            player.queue.take(calls, WIDE if len(calls) == 2 else [CLOSED], player.now_s)
    assert tries > 20
    assert ticket.replies[0] == Unanswered("closed", ticket.replies[0].elapsed_s, unsure=True)


def test_a_server_that_is_gone_is_not_asked_for_its_limits(player: Player) -> None:
    player.ask(large("w", "1"))
    ask_large(player, CLOSED)
    assert ask_large(player, REFUSED, REFUSED) == LIMITS
    assert player.queue.resume_s > player.now_s
    assert [args[2] for args in ask_large(player, CUT)] == ["1"]
    assert [args[2] for args in ask_large(player, [1])] == ["1"], "a silent server has not closed the connection"


def test_a_rejection_is_passed_on_where_the_limits_are_not_told(player: Player) -> None:
    ticket = player.ask(large("w", "1"))
    ask_large(player, ErrorReply("Protocol", "error: invalid bulk length"))
    ask_large(player, *UNTOLD)
    (reply,) = ticket.replies
    assert reply.code == "TOO_LARGE"
    assert "Protocol error: invalid bulk length" in reply.message
    assert "proto-max-bulk-len" in reply.message


@pytest.mark.parametrize("sent", [True, False])
def test_a_server_without_limits_that_closes_connections_has_rejected_the_request(player: Player, sent: bool) -> None:
    ticket = player.ask(large("w", "1"))
    for _ in range(size_limits.MOST_CLOSED):
        assert ticket.missing
        ask_large(player, ConnectionLost("closed", sent=sent, closed=True))
        ask_large(player, *UNTOLD)
    (reply,) = ticket.replies
    assert (reply.code, reply.unsure) == ("TOO_LARGE", sent)


def test_nobody_asks_for_limits_who_has_gone_away(player: Player) -> None:
    ticket = player.ask(large("w", "1"))
    assert player.round() == []
    (calls,) = player.queue.take_large()
    player.queue.abandon(ticket)
    player.queue.take(calls, [CLOSED], 0.0)
    assert player.queue.idle


def test_a_large_request_is_confirmed_on_its_own_connection(player: Player) -> None:
    confirmed(player)
    player.ask(large("w", "1"))
    assert player.round() == []
    ((call,),) = player.queue.take_large()
    assert call.confirming is not None


def test_a_joined_call_is_bounded(player: Player) -> None:
    for number in range(rounds.MOST_JOINED + 1):
        player.ask(append("w", str(number)))
    (sent,) = player.round([1] * rounds.MOST_JOINED)
    assert len(sent) == 3 + 4 * rounds.MOST_JOINED
    (sent,) = player.round([1])
    assert len(sent) == 3 + 4


def ask_again(player: Player, caller_s: float, count: int = 64) -> None:
    """Let callers ask after their replies, each of which takes some time for that."""
    player.now_s += caller_s * count
    for number in range(count):
        player.ask(read(str(number)))


def test_of_many_half_go_while_the_others_get_ready_if_the_server_is_quick(player: Player) -> None:
    caller_s = queue._SLOWEST_CALLER_S / 4
    ask_again(player, caller_s)
    assert len(player.send_and_answer(caller_s)) == 64, "nobody knows yet how quick it is"
    ask_again(player, caller_s)
    assert len(player.send_and_answer(caller_s)) == 32
    assert len(player.send_and_answer(caller_s)) == 32, "the other half, and not a half of that"
    ask_again(player, caller_s)
    assert len(player.send_and_answer(4 * caller_s)) == 32
    assert len(player.send_and_answer(4 * caller_s)) == 32
    ask_again(player, caller_s)
    assert len(player.send_and_answer(4 * caller_s)) == 64, "it has become slow"


@pytest.mark.parametrize(("caller_us", "server_us", "sent"), [(80, 50, 32), (80, 170, 64), (15, 12, 32), (15, 50, 64)])
def test_how_quick_a_server_must_be_depends_on_the_callers(
    player: Player, caller_us: float, server_us: float, sent: int
) -> None:
    for expected in (64, sent):
        ask_again(player, caller_us / 1e6)
        assert len(player.send_and_answer(server_us / 1e6)) == expected


def test_a_pause_of_the_callers_does_not_make_them_slow(player: Player) -> None:
    for pause_s in (0.0, 0.0, 60.0, 0.0):
        player.now_s += pause_s
        ask_again(player, 0.000015)
        assert len(player.send_and_answer(0.00005)) == 64


def test_few_and_what_one_caller_asks_together_are_not_halved(player: Player) -> None:
    player.ask(*(read(str(number)) for number in range(100)))
    assert len(player.send_and_answer(0.0)) == 100
    player.ask(*(read(str(number)) for number in range(100)))
    player.ask(read("late"))
    assert len(player.send_and_answer(0.0)) == 100
    assert len(player.send_and_answer(0.0)) == 1
    player.ask(*(read(str(number)) for number in range(2)))
    assert len(player.send_and_answer(0.0)) == 2
    for number in range(queue._FEW - 1):
        player.ask(read(str(number)))
    assert len(player.send_and_answer(0.0)) == queue._FEW - 1


def test_a_queue_is_full_at_a_number_of_commands_or_of_bytes(player: Player) -> None:
    for _ in range(queue._FULL_COMMANDS):
        assert not player.queue.is_full
        player.ask(read("k"))
    assert player.queue.is_full
    player.round(*range(queue._MOST_CALLS))
    assert not player.queue.is_full
    player.ask(append("w", "1", queue._FULL_BYTES))
    assert player.queue.is_full


def test_each_node_has_a_queue_and_a_slot_moves_when_nothing_of_it_waits() -> None:
    nodes = {"{a}:x": "1", "{a}:y": "1", "{b}:x": "2"}
    queues = Queues(30.0, nodes.__getitem__)

    def find(*keys: str) -> dict[Queue, list[int]]:
        return queues.find(Ticket(Batch([read(key) for key in keys]), 0.0))

    (first, second) = found = find("{a}:x", "{b}:x", "{a}:y")
    assert found == {first: [0, 2], second: [1]}
    waiting = Ticket(Batch([read("{a}:x")]), 0.0)
    first.add(waiting, [0])
    nodes["{a}:x"] = nodes["{a}:y"] = "2"
    assert list(find("{a}:y")) == [first], "it must not overtake what waits"
    calls = first.next_round(0.0)
    assert list(find("{a}:y")) == [first], "nor what is in flight"
    first.take(calls, [1], 0.0)
    assert list(find("{a}:y")) == [second]


ANSWERS = st.sampled_from(["ok", "cut", "refused", "loading", "noscript", "unconfirmed"])


@given(
    workflows=st.lists(st.sampled_from("uvw"), min_size=1, max_size=12),
    alone=st.lists(st.booleans(), min_size=12, max_size=12),
    faults=st.lists(ANSWERS, max_size=30),
    arrivals=st.lists(st.integers(1, 4), min_size=12, max_size=12),
    early=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_the_commands_of_a_workflow_are_carried_out_in_order_and_each_once(
    workflows: list[str], alone: list[bool], faults: list[str], arrivals: list[int], early: list[bool]
) -> None:
    """Against a server that carries out what it answers, and may have carried out what it loses."""
    player = Player(deadline_s=1e9)
    commands = [
        (save if single else append)(workflow_id, str(number))
        for number, (workflow_id, single) in enumerate(zip(workflows, alone, strict=False))
    ]
    waiting = list(commands)
    done: dict[str, list[str]] = {}

    def carry_out(call: Call) -> list[int]:
        numbers = []
        for request in call.requests:
            command = request.command
            name = command.args[1] if command.joins else command.args[0]
            seen = done.setdefault(command.workflow_id, [])
            if name not in seen:
                assert not request.unsure or name not in seen
                seen.append(str(name))
            numbers.append(seen.index(str(name)) + 1)
        return numbers

    fates = iter(faults)
    while waiting or not player.queue.idle:
        calls = player.next_round(waiting, arrivals[len(waiting) - 1], alone=early[len(waiting) - 1])
        answers: list[Any] = []
        for at, call in enumerate(calls):
            fate = next(fates, "ok")
            if fate == "cut":
                # From here on nothing is answered; how much was carried out, nobody knows.
                for late in calls[at : at + len(faults) % 3]:
                    carry_out(late)
                answers += [CUT] * (len(calls) - at)
                break
            if fate in ("ok", "unconfirmed"):
                numbers = carry_out(call)
                answer: Any = numbers if call.requests[0].command.joins else numbers[0]
                answers.append(answer if fate == "ok" else Unconfirmed(answer, "behind", transient=True))
            else:
                answers.append({"refused": REFUSED, "loading": ErrorReply("LOADING", ""), "noscript": NOSCRIPT}[fate])
        if calls:
            player.queue.take(calls, answers, player.now_s)
    assert len(player.woken) == len(commands)
    for workflow_id, names in done.items():
        assert names == [str(number) for number, of in enumerate(workflows) if of == workflow_id]
