"""The operations as traces: what they send and wait for, with no socket and no clock."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from runic_redis import ConfigurationError, CursorConflict, DecodeError, StoreError, StoreUnavailable
from runic_redis.codec import Codec
from runic_redis.context import Context
from runic_redis.events import default_registry
from runic_redis.keys import Keys
from runic_redis.operations import facts, lifecycle, snapshots
from runic_redis.operations.appending import append, append_many
from runic_redis.operations.asking import ask, ask_all
from runic_redis.operations.effects import Answers, Batch, Command, Effect, ErrorReply, Lost, Operation, Pause
from runic_redis.operations.listing import Listing
from runic_redis.operations.opening import open_namespace, with_settings
from runic_redis.operations.reading import Reader

CUT = Lost("cut", sent=True)
REFUSED = Lost("refused", sent=False)
GET = Command(("GET", "k"), "k")


@pytest.fixture
def context() -> Context:
    return Context(Keys("test", 4), Codec(default_registry, "raise"), deadline_s=30.0, made=True)


def play(operation: Operation[Any], answers: Sequence[Any]) -> tuple[list[Effect], Any]:
    """Run an operation against scripted answers; what it asked for, and its result.

    A batch is answered by a list of replies, sent at time 0, or by `Answers`; a pause by the time after it.
    """
    asked: list[Effect] = []
    script = iter(answers)
    try:
        effect = next(operation)
        while True:
            asked.append(effect)
            answer = next(script)
            effect = operation.send(Answers(answer, 0.0) if isinstance(answer, list) else answer)
    except StopIteration as stop:
        assert next(script, None) is None, "more answers than questions"
        return asked, stop.value


def names(effects: Sequence[Effect]) -> list[str]:
    return [
        "pause" if isinstance(effect, Pause) else " ".join(str(command.args[0]) for command in effect.commands)
        for effect in effects
    ]


def argument(effect: Effect, number: int) -> Any:
    """ARGV[number] of the only script call in a batch."""
    assert isinstance(effect, Batch)
    (command,) = effect.commands
    return command.args[2 + int(command.args[2]) + number]


def test_an_append_is_one_script_call(context: Context) -> None:
    asked, cursor = play(append(context, "w", [{"a": 1}]), [[1]])
    assert names(asked) == ["EVALSHA"]
    assert cursor == 1
    assert argument(asked[0], 5) == "", "a first try looks at nothing"


def test_a_lost_reply_is_asked_for_by_a_flagged_retry_with_the_same_commit_id(context: Context) -> None:
    asked, cursor = play(append(context, "w", [{"a": 1}]), [[CUT], 0.25, [CUT], 1.5, [7]])
    assert names(asked) == ["EVALSHA", "pause", "EVALSHA", "pause", "EVALSHA"]
    assert cursor == 7
    tries = [asked[0], asked[2], asked[4]]
    assert len({argument(effect, 2) for effect in tries}) == 1
    assert [argument(effect, 5) for effect in tries] == ["", 250, 1500]


def test_a_connection_that_was_refused_has_sent_nothing(context: Context) -> None:
    asked, _ = play(append(context, "w", [{"a": 1}]), [[REFUSED], 0.1, [7]])
    assert argument(asked[2], 5) == "", "the second try is a first one still"


def test_once_unsure_every_later_try_is_flagged(context: Context) -> None:
    asked, _ = play(append(context, "w", [{"a": 1}]), [[CUT], 0.1, [REFUSED], 0.2, [7]])
    assert [argument(asked[at], 5) for at in (0, 2, 4)] == ["", 100, 200]


def test_pauses_grow_have_jitter_and_are_bounded(context: Context) -> None:
    asked, _ = play(ask(context, GET), [*([CUT], 0.1) * 20, [b"v"]])
    pauses = [effect.seconds for effect in asked if isinstance(effect, Pause)]
    for number, pause in enumerate(pauses, 1):
        longest = min(1.0, 0.02 * 2**number)
        assert longest / 2 <= pause <= longest
    assert len(set(pauses[8:])) > 1


def test_after_the_deadline_the_store_is_unavailable_and_a_write_s_fate_unknown(context: Context) -> None:
    with pytest.raises(StoreUnavailable, match=r"cut.*Whether it was stored is not known") as caught:
        play(append(context, "w", [{"a": 1}]), [[CUT], 29.9, [CUT], 30.0])
    assert isinstance(caught.value, ConnectionError)
    with pytest.raises(StoreUnavailable, match="safe to ask again"):
        play(append(context, "w", [{"a": 1}]), [[REFUSED], 30.0])
    with pytest.raises(StoreUnavailable, match="safe to ask again"):
        play(lifecycle.load(context, "w"), [[CUT], 30.0])


@pytest.mark.parametrize("code", ["BUSY", "LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN"])
def test_a_server_that_cannot_yet_is_asked_again_as_if_for_the_first_time(context: Context, code: str) -> None:
    asked, _ = play(append(context, "w", [{"a": 1}]), [[ErrorReply(code, "not now")], 0.1, [7]])
    assert names(asked) == ["EVALSHA", "pause", "EVALSHA"]
    assert argument(asked[2], 5) == ""


def test_the_deadline_counts_from_the_first_try_and_not_from_the_first_round(context: Context) -> None:
    items = [("w", [{"n": number}]) for number in range(3)]
    answers = [Answers([1], 0.0), Answers([2], 100.0), Answers([CUT], 200.0), 201.0, Answers([3], 201.0)]
    asked, cursors = play(append_many(context, items), answers)
    assert cursors == [1, 2, 3]
    assert argument(asked[4], 5) == 1000


def test_replies_that_belong_together_are_asked_for_together(context: Context) -> None:
    commands = [Command(("GET", key), key) for key in "ab"]
    asked, replies = play(ask_all(context, commands, at_once=True), [[b"1", CUT], 0.1, [b"3", b"4"]])
    assert names(asked) == ["GET GET", "pause", "GET GET"]
    assert replies == [b"3", b"4"]


@pytest.mark.parametrize("refusal", [ErrorReply("OOM", "full"), ErrorReply("WRONGTYPE", "Operation")])
def test_a_refused_retry_does_not_say_that_nothing_was_changed(context: Context, refusal: ErrorReply) -> None:
    with pytest.raises(StoreError, match="Nothing was changed"):
        play(append(context, "w", [{"a": 1}]), [[refusal]])
    with pytest.raises(StoreError, match="Whether it was stored is not known"):
        play(append(context, "w", [{"a": 1}]), [[CUT], 0.1, [refusal]])


def test_until_the_namespace_is_known_each_operation_looks_for_it(context: Context) -> None:
    context.made = False
    asked, _ = play(with_settings(context, lifecycle.exists(context, "w")), [[[None, None]], [None]])
    assert names(asked) == ["HMGET", "ZSCORE"]
    assert not context.made
    with pytest.raises(ConfigurationError, match="partitions=8"):
        play(with_settings(context, lifecycle.exists(context, "w")), [[[b"1", b"8"]]])
    with pytest.raises(StoreError):
        next(with_settings(context, lifecycle.exists(context, "")))
    play(with_settings(context, lifecycle.exists(context, "w")), [[[b"1", b"4"]], [None]])
    assert context.made


def test_an_unknown_script_is_sent_at_once_with_its_text(context: Context) -> None:
    asked, cursor = play(append(context, "w", [{"a": 1}]), [[ErrorReply("NOSCRIPT", "")], [3]])
    assert names(asked) == ["EVALSHA", "EVAL"]
    assert cursor == 3
    assert isinstance(asked[0], Batch)
    assert isinstance(asked[1], Batch)
    assert asked[0].commands[0].args[2:] == asked[1].commands[0].args[2:]


def test_an_unknown_script_on_a_retry_is_still_a_retry(context: Context) -> None:
    asked, _ = play(append(context, "w", [{"a": 1}]), [[CUT], 0.5, [ErrorReply("NOSCRIPT", "")], [CUT], 1.0, [3]])
    assert names(asked) == ["EVALSHA", "pause", "EVALSHA", "EVAL", "pause", "EVALSHA"]
    assert [argument(asked[at], 5) for at in (2, 3, 5)] == [500, 500, 1000]


def test_of_a_batch_only_what_was_lost_is_asked_again(context: Context) -> None:
    commands = [Command(("GET", key), key) for key in "abc"]
    asked, replies = play(ask_all(context, commands), [[b"1", CUT, b"3"], 0.1, [b"2"]])
    assert names(asked) == ["GET GET GET", "pause", "GET"]
    assert replies == [b"1", b"2", b"3"]


def test_the_first_write_makes_the_namespace_once(context: Context) -> None:
    context.made = False
    asked, _ = play(append(context, "w", [{"a": 1}]), [[[b"1", b"4"]], [1]])
    assert names(asked) == ["EVALSHA", "EVALSHA"]
    assert context.made
    assert names(play(append(context, "w", [{"a": 1}]), [[2]])[0]) == ["EVALSHA"]


def test_reading_makes_no_namespace(context: Context) -> None:
    context.made = False
    play(lifecycle.exists(context, "w"), [[None]])
    play(append(context, "w", []), [[0]])
    assert not context.made


def test_many_appends_are_one_round_trip(context: Context) -> None:
    items = [(f"w-{number}", [{"n": number}]) for number in range(3)]
    asked, cursors = play(append_many(context, items), [[1, 1, 1]])
    assert names(asked) == ["EVALSHA EVALSHA EVALSHA"]
    assert cursors == [1, 1, 1]


def test_of_many_appends_each_is_retried_by_itself(context: Context) -> None:
    items = [(f"w-{number}", [{"n": number}]) for number in range(3)]
    answers = [[1, CUT, ErrorReply("OOM", "full")], 0.1, [9]]
    asked, (first, second, third) = play(append_many(context, items), answers)
    assert names(asked) == ["EVALSHA EVALSHA EVALSHA", "pause", "EVALSHA"]
    assert (first, second) == (1, 9)
    assert isinstance(third, StoreError)
    assert argument(asked[2], 5) == 100


def test_of_many_appends_one_that_must_wait_does_not_hold_up_the_scripts_of_the_rest(context: Context) -> None:
    items = [(f"w-{number}", [{"n": number}]) for number in range(2)]
    answers = [[CUT, ErrorReply("NOSCRIPT", "")], [1], 0.1, [2]]
    asked, cursors = play(append_many(context, items), answers)
    assert names(asked) == ["EVALSHA EVALSHA", "EVAL", "pause", "EVALSHA"]
    assert cursors == [2, 1]


def test_commits_to_one_workflow_go_in_a_round_trip_each(context: Context) -> None:
    items = [("w", [{"n": 1}]), ("v", [{"n": 1}]), ("w", [{"n": 2}])]
    asked, cursors = play(append_many(context, items), [[1, 1], [2]])
    assert names(asked) == ["EVALSHA EVALSHA", "EVALSHA"]
    assert cursors == [1, 1, 2]


def test_many_facts_are_one_round_trip(context: Context) -> None:
    values = {f"h-{number}": number for number in range(40)}
    asked, _ = play(facts.save_facts(context, values), [[1] * 40])
    assert len(asked) == 1
    loading = facts.load_facts(context, list(values))
    batch = next(loading)
    assert isinstance(batch, Batch)
    assert len(batch.commands) <= 40


def test_bad_input_sends_nothing(context: Context) -> None:
    context.made = False
    operations: list[Callable[[], Operation[Any]]] = [
        lambda: append(context, "w", [{"ok": 1}, object()]),
        lambda: append(context, "", [{"ok": 1}]),
        lambda: append(context, "w", [{"ok": 1}], metadata={"bad": object()}),
        lambda: append_many(context, [(5, [])]),  # type: ignore[list-item]
        lambda: snapshots.save_snapshot(context, "w", -1, b""),
        lambda: snapshots.save_snapshot(context, "w", 1, "text"),  # type: ignore[arg-type]
        lambda: facts.save_facts(context, {"h": object()}),
        lambda: facts.put_fact(context, object()),
        lambda: lifecycle.save(context, "w", [object()]),
        lambda: lifecycle.delete(context, "\ud800"),
    ]
    for operation in operations:
        with pytest.raises(StoreError):
            next(operation())


def test_a_delete_names_the_life_it_ends(context: Context) -> None:
    asked, _ = play(lifecycle.delete(context, "w"), [[b"123"], [CUT], 0.1, [0]])
    assert names(asked) == ["HGET", "EVALSHA", "pause", "EVALSHA"]
    assert argument(asked[1], 2) == argument(asked[3], 2) == b"123"


def test_opening_asks_once_and_says_what_is_wrong(context: Context) -> None:
    context.made = False
    with pytest.raises(StoreUnavailable, match="cannot be reached: refused"):
        play(open_namespace(context), [[REFUSED, REFUSED]])
    loading = ErrorReply("LOADING", "")
    answers = [[loading, loading], [loading, loading], 0.1, [b"redis_version:7.0.0", [None, None]]]
    play(open_namespace(context), answers)
    assert not context.made


def test_a_refusal_by_the_server_is_passed_on(context: Context) -> None:
    with pytest.raises(StoreError, match="OOM command not allowed"):
        play(append(context, "w", [{"a": 1}]), [[ErrorReply("OOM", "command not allowed")]])
    with pytest.raises(DecodeError, match="not of this store"):
        play(append(context, "w", [{"a": 1}]), [[ErrorReply("WRONGTYPE", "Operation")]])
    with pytest.raises(CursorConflict):
        play(append(context, "w", [{"a": 1}], expected_cursor=1), [[ErrorReply("CURSOR_CONFLICT", "3")]])


def test_the_last_few_events_are_read_with_a_small_page(context: Context) -> None:
    reader = Reader(context, "w", reverse=True)
    batch = next(reader.open())
    assert isinstance(batch, Batch)
    page, meta = batch.commands
    assert page.args[0] == "XREVRANGE"
    assert page.args[-1] == 8
    assert meta.args[0] == "HMGET"


def test_a_short_listing_reads_little(context: Context) -> None:
    batch = next(Listing(context, limit=1).next_page())
    assert isinstance(batch, Batch)
    assert [command.args[-1] for command in batch.commands] == [4] * 4
