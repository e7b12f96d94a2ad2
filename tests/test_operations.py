"""The operations as traces: what they send, and what they make of the answers, with no socket and no clock."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from runic_redis import (
    CommitsLost,
    ConfigurationError,
    CursorConflict,
    DecodeError,
    EventsTrimmed,
    Fact,
    FactNotFound,
    FactRef,
    StoreError,
    StoreUnavailable,
    WorkflowNotFound,
)
from runic_redis.codec import Codec
from runic_redis.context import Context
from runic_redis.events import default_registry
from runic_redis.keys import Keys
from runic_redis.operations import facts, snapshots, workflows
from runic_redis.operations.appending import append, append_many
from runic_redis.operations.listing import Listing
from runic_redis.operations.reading import Reader
from runic_redis.operations.settings import open_namespace, with_settings
from runic_redis.protocol.effects import (
    TRANSIENT,
    Await,
    Batch,
    Begin,
    Effect,
    ErrorReply,
    Operation,
    Unanswered,
)
from runic_redis.protocol.refusals import unavailable, unreachable

UNANSWERED = Unanswered("cut", 30.0, unsure=True)
# Fields of a hash that is not there: two, and the settings of a namespace.
NOT_THERE = [None, None]
NO_SETTINGS = [None, None, None]
# The reply of lua/count.lua for an empty partition.
NEW = [0, b"0", 0, b"0", 0, b"0", 0, 0, 0, 0, 0, []]
MADE = [1, *NEW[1:]]


@pytest.fixture
def context() -> Context:
    return Context(Keys("test", 4), Codec(default_registry, "raise"), made=True)


def play(operation: Operation[Any], answers: Sequence[Any]) -> tuple[list[Effect], Any]:
    """Run an operation against scripted answers; what it asked for, and its result."""
    asked: list[Effect] = []
    script = iter(answers)
    try:
        effect = next(operation)
        while True:
            asked.append(effect)
            effect = operation.send(next(script))
    except StopIteration as stop:
        assert next(script, None) is None, "more answers than questions"
        return asked, stop.value


def names(effects: Sequence[Effect]) -> list[str]:
    return [
        " ".join(command.script.name if command.script else str(command.args[0]) for command in effect.commands)
        if isinstance(effect, Batch)
        else type(effect).__name__
        for effect in effects
    ]


def argument(effect: Effect, number: int) -> Any:
    """ARGV[number] of the only script call in a batch."""
    assert isinstance(effect, Batch)
    (command,) = effect.commands
    return command.args[number - 1]


def test_an_append_is_one_script_call(context: Context) -> None:
    asked, cursor = play(append(context, "w", [{"a": 1}]), [[1]])
    assert names(asked) == ["append"]
    assert cursor == 1
    assert argument(asked[0], 3) == "", "a first try looks at nothing"


def test_what_was_never_answered_is_unavailable_and_a_write_s_fate_unknown(context: Context) -> None:
    with pytest.raises(StoreUnavailable, match=r"cut.*Whether it was stored is not known") as caught:
        play(append(context, "w", [{"a": 1}]), [[UNANSWERED]])
    assert isinstance(caught.value, ConnectionError)
    with pytest.raises(StoreUnavailable, match="safe to retry"):
        play(append(context, "w", [{"a": 1}]), [[Unanswered("refused", 30.0, unsure=False)]])


@pytest.mark.parametrize("refusal", [ErrorReply("OOM", "full"), ErrorReply("WRONGTYPE", "Operation")])
def test_a_refused_retry_does_not_say_that_nothing_was_changed(context: Context, refusal: ErrorReply) -> None:
    with pytest.raises(StoreError, match="Nothing was changed"):
        play(append(context, "w", [{"a": 1}]), [[refusal]])
    with pytest.raises(StoreError, match="Whether it was stored is not known"):
        play(append(context, "w", [{"a": 1}]), [[replace(refusal, unsure=True)]])


def test_until_the_namespace_is_known_each_operation_looks_for_it(context: Context) -> None:
    context.made = False
    asked, _ = play(
        with_settings(context, workflows.exists(context, "w")), [[NO_SETTINGS] * 2, [NOT_THERE], [0, 0, 0, 0, [None]]]
    )
    assert names(asked) == ["HMGET HMGET", "HMGET", "EXISTS EXISTS EXISTS EXISTS HMGET"]
    assert not context.made
    with pytest.raises(ConfigurationError, match="partitions=8"):
        play(with_settings(context, workflows.exists(context, "w")), [[[b"2", b"8", b"0"]] * 2])
    with pytest.raises(StoreError):
        next(with_settings(context, workflows.exists(context, "")))
    play(
        with_settings(context, workflows.exists(context, "w")),
        [[[b"2", b"4", b"0"]] * 2, [NOT_THERE], [0, 0, 0, 0, [None]]],
    )
    assert context.made


def test_the_first_write_makes_the_namespace_once(context: Context) -> None:
    context.made = False
    making: list[Any] = [[NO_SETTINGS] * 2, [[b"2", b"4", b"0"]], [[b"2", b"4", b"0"]], [NEW] * 4, [1, 1, 1, 1]]
    asked, _ = play(append(context, "w", [{"a": 1}]), [*making, [1]])
    assert names(asked) == [
        *("HMGET HMGET", "make_namespace", "make_namespace"),
        *(" ".join(["count"] * 4), " ".join(["HSETNX"] * 4), "append"),
    ]
    assert context.made
    assert names(play(append(context, "w", [{"a": 1}]), [[2]])[0]) == ["append"]


def test_a_partition_that_was_lost_is_not_made_again_by_a_write(context: Context) -> None:
    context.made = False
    there: list[Any] = [[[b"2", b"4", b"0"]] * 2, [[b"2", b"4", b"0"]], [[b"2", b"4", b"0"]]]
    asked, _ = play(append(context, "w", [{"a": 1}]), [*there, [MADE, MADE, NEW, MADE], [1], [1]])
    assert names(asked)[-2:] == ["HSETNX", "append"], "it had no workflows"
    context.made = False
    lost = append(context, "w", [{"a": 1}])
    for answer in (None, *there, [MADE, [0, b"0", 3, *NEW[3:]], NEW, [0, b"0", 1, b"0", 1, *NEW[5:]]]):
        effect = lost.send(answer)
    assert names([effect]) == ["HSETNX"], "the next write finds the others lost, too"
    with pytest.raises(DecodeError, match=r"partition:4'.* is lost, and 3 workflows are in the partition"):
        lost.send([1])
    assert not context.made


def test_a_store_follows_a_namespace_that_was_made_again(context: Context) -> None:
    again = ErrorReply("NEW_PARTITION", "")
    remade: list[Any] = [
        [NO_SETTINGS] * 2,
        [NO_SETTINGS] * 2,
        [[b"2", b"4", b"0"]],
        [[b"2", b"4", b"0"]],
        [NEW] * 4,
        [1] * 4,
    ]
    asked, cursor = play(append(context, "w", [{"a": 1}]), [[again], *remade, [1]])
    assert (names(asked)[0], names(asked)[-1], cursor) == ("append", "append", 1)
    with pytest.raises(ConfigurationError, match=r"created again with partitions=8 .*Nothing was written"):
        play(append(context, "w", [{"a": 1}]), [[again], [[b"2", b"8", b"0"]] * 2])
    assert context.keys.partitions == 8
    late = append(context, "w", [{"a": 1}])
    next(late)
    context.keys = Keys("test", 4)
    for answer in (
        [again],
        [[b"2", b"4", b"0"]] * 2,
        [[b"2", b"4", b"0"]] * 2,
        [[b"2", b"4", b"0"]],
        [[b"2", b"4", b"0"]],
        [MADE] * 4,
    ):
        late.send(answer)
    with pytest.raises(ConfigurationError, match=r"created again with partitions=4 .*Nothing was written"):
        late.send([])
    context.keys = Keys("test", 4)
    with pytest.raises(StoreError, match="5 times"):
        play(append(context, "w", [{"a": 1}]), [[again], *([*remade, [again]] * 5)])
    _, cursor = play(append(context, "w", [{"a": 1}]), [[again], *([*remade, [again]] * 4), *remade, [1]])
    assert cursor == 1, "the last round may be the one that succeeds"


def test_of_many_appends_those_that_were_too_soon_are_sent_again(context: Context) -> None:
    context.clock = lambda: 1.0
    items = [(f"w-{number}", [{"n": number}]) for number in range(3)]
    over: list[Any] = [[[b"created", b"5", b"expires", b"900"], [b"0", b"999000"]], [1]]
    asked, cursors = play(append_many(context, items), [[1, ErrorReply("END_REACHED", ""), 7], *over, [2]])
    assert names(asked) == ["append append append", "HGETALL TIME", "delete", "append"]
    assert cursors == [1, 2, 7]
    assert argument(asked[2], 2) == b"5"
    assert argument(asked[2], 4) == b"900", "only while that is its end"
    assert argument(asked[2], 5) == "999", "the time that both clocks have reached"
    for end, server_s, after in ((b"1900", b"2", "900"), (b"900", b"0", "")):
        only_one: list[Any] = [[[b"created", b"5", b"expires", end], [server_s, b"0"]], [1]]
        asked, cursors = play(
            append_many(context, items), [[1, ErrorReply("END_REACHED", "", unsure=True), 7], *only_one, [2]]
        )
        assert names(asked) == ["append append append", "HGETALL TIME", "expire", "append"]
        assert argument(asked[2], 4) == after, (
            "what is left of it by the caller's clock; none, if only that has reached it"
        )
        assert argument(asked[2], 7) == end
        assert argument(asked[3], 3) == b"1", "an earlier try may still arrive"


def test_an_end_that_is_still_to_come_takes_no_second_question(context: Context) -> None:
    context.clock = lambda: 1.0
    asked, there = play(workflows.exists(context, "w"), [[[b"5", b"1001"]]])
    assert (names(asked), there) == (["HMGET"], True)
    end = [b"created", b"5", b"expires", b"1000"]
    asked, there = play(workflows.exists(context, "w"), [[[b"5", b"1000"]], [end, [b"0", b"999000"]]])
    assert (names(asked), there) == (["HMGET", "HGETALL TIME"], True)
    asked, there = play(workflows.exists(context, "w"), [[[b"5", b"1000"]], [end, [b"1", b"0"]], [1]])
    assert (names(asked), there) == (["HMGET", "HGETALL TIME", "delete"], False)
    end += [b"sliding", b"50"]
    for score, reply, is_there in ((b"960000", 2, True), (b"950000", 1, False), (b"950000", 2, True)):
        replies: list[Any] = [[[b"5", b"1000"]], [end, [b"1", b"0"]], [score], [reply]]
        asked, there = play(workflows.exists(context, "w"), replies)
        assert (names(asked), there) == (["HMGET", "HGETALL TIME", "ZSCORE", "delete"], is_there)


def test_reading_makes_no_namespace(context: Context) -> None:
    context.made = False
    play(workflows.exists(context, "w"), [[NOT_THERE], [0, 0, 0, 0, [None]]])
    play(append(context, "w", []), [[0]])
    assert not context.made


def test_many_appends_are_one_round_trip(context: Context) -> None:
    items = [(f"w-{number}", [{"n": number}]) for number in range(3)]
    asked, cursors = play(append_many(context, items), [[1, 1, 1]])
    assert names(asked) == ["append append append"]
    assert cursors == [1, 1, 1]


def test_of_many_appends_each_has_its_own_answer(context: Context) -> None:
    items = [(f"w-{number}", [{"n": number}]) for number in range(3)]
    _, (first, second, third) = play(append_many(context, items), [[1, UNANSWERED, ErrorReply("OOM", "full")]])
    assert first == 1
    assert isinstance(second, StoreUnavailable)
    assert isinstance(third, StoreError)


def test_a_commit_s_own_errors(context: Context) -> None:
    with pytest.raises(CursorConflict) as caught:
        play(append(context, "w", [{"a": 1}], expected_cursor=1), [[ErrorReply("CURSOR_CONFLICT", "3")]])
    assert (type(caught.value), caught.value.expected, caught.value.actual) == (CursorConflict, 1, 3)
    with pytest.raises(CommitsLost) as lost:
        play(append(context, "w", [{"a": 1}], expected_cursor=4), [[ErrorReply("CURSOR_CONFLICT", "3")]])
    assert (lost.value.expected, lost.value.actual) == (4, 3)
    with pytest.raises(StoreUnavailable, match="trimmed"):
        play(append(context, "w", [{"a": 1}]), [[ErrorReply("COMMIT_UNSURE", "")]])
    with pytest.raises(DecodeError, match="the commits of a workflow"):
        play(append(context, "w", [{"a": 1}], commit_id="c"), [[ErrorReply("DAMAGED", "commits")]])


def test_many_facts_are_one_round_trip(context: Context) -> None:
    values = {f"h-{number}": number for number in range(40)}
    asked, _ = play(facts.save_facts(context, values), [[1] * 40])
    assert len(asked) == 1
    loading = facts.load_facts(context, list(values))
    batch = next(loading)
    assert isinstance(batch, Batch)
    assert len(batch.commands) <= 40


def test_on_one_node_facts_travel_in_the_script_that_refers_to_them(context: Context) -> None:
    asked, _ = play(append(context, "w", [{"a": Fact(1)}, {"b": Fact(2)}]), [[2]])
    assert names(asked) == ["append"]
    assert (argument(asked[0], 5), argument(asked[0], 6)) == ("f", "2")


def test_where_slots_matter_facts_are_kept_before_the_commit_is_sent(context: Context) -> None:
    context.slots_matter = True
    asked, _ = play(append(context, "w", [{"a": Fact(1)}, {"b": Fact(2)}]), [[1, 1], [2]])
    assert names(asked) == ["store_fact_ahead store_fact_ahead", "append"]
    assert (argument(asked[1], 5), argument(asked[1], 6)) == ("a", "2")
    with pytest.raises(FactNotFound, match="Nothing was stored"):
        play(append(context, "w", [{"a": FactRef("h")}]), [[ErrorReply("FACT_MISSING", "h")]])
    with pytest.raises(StoreUnavailable):
        play(append(context, "w", [{"a": Fact(1)}]), [[UNANSWERED]])
    with pytest.raises(FactNotFound):
        play(workflows.save(context, "w", [{"a": FactRef("h")}], None), [[ErrorReply("FACT_MISSING", "h")]])


def test_where_slots_matter_a_fact_that_cannot_be_kept_fails_its_own_commits_alone(context: Context) -> None:
    context.slots_matter = True
    items = [("u", [{"a": Fact(1)}]), ("v", [{"a": FactRef("gone")}]), ("w", [{"a": Fact(3)}]), ("x", [{"a": 4}])]
    replies: list[Any] = [[1, ErrorReply("FACT_MISSING", "gone"), UNANSWERED], [1, 1]]
    asked, (first, second, third, fourth) = play(append_many(context, items), replies)
    assert names(asked) == ["store_fact_ahead store_fact_ahead store_fact_ahead", "append append"]
    assert (first, fourth) == (1, 1)
    assert isinstance(second, FactNotFound)
    assert isinstance(third, StoreUnavailable)


def test_of_many_appends_one_may_refer_to_the_fact_of_another(context: Context) -> None:
    context.slots_matter = True
    fact_hash, _ = context.codec.encode_own_fact(1)
    items: list[Any] = [("u", [{"a": Fact(1)}]), ("v", [{"a": FactRef(fact_hash)}])]
    for some in (items, items[::-1]):
        asked, _ = play(append_many(context, some), [[1], [1, 1]])
        assert argument(asked[0], 2), "the value is sent"


def test_bad_input_sends_nothing(context: Context) -> None:
    context.made = False
    operations: list[Callable[[], Operation[Any]]] = [
        lambda: append(context, "w", [{"ok": 1}, object()]),
        lambda: append(context, "", [{"ok": 1}]),
        lambda: append(context, "w", [{"ok": 1}], metadata={"bad": object()}),
        lambda: append_many(context, [(5, [])]),  # type: ignore[list-item]
        lambda: snapshots.save_snapshot(context, "w", -1, b"", None),
        lambda: snapshots.save_snapshot(context, "w", 1, "text", None),  # type: ignore[arg-type]
        lambda: facts.save_facts(context, {"h": object()}),
        lambda: facts.put_fact(context, object()),
        lambda: workflows.save(context, "w", [object()], None),
        lambda: workflows.delete(context, ["\ud800"]),
    ]
    for operation in operations:
        with pytest.raises(StoreError):
            next(operation())


def test_a_delete_names_the_life_it_ends(context: Context) -> None:
    asked, _ = play(workflows.delete(context, ["w"]), [[[b"created", b"123"]], [1]])
    assert names(asked) == ["HGETALL", "delete"]
    assert argument(asked[1], 2) == b"123"


# What a server that has scripts replies to an EVAL that lacks an argument.
HAS_SCRIPTS = ErrorReply("ERR", "wrong number of arguments for 'eval' command")


def test_opening_takes_one_round_trip_and_says_what_is_wrong(context: Context) -> None:
    context.made = False
    refused = Unanswered("refused", 0.0, unsure=False)
    with pytest.raises(StoreUnavailable, match="cannot be reached: refused"):
        play(open_namespace(context), [[refused] * 4])
    asked, _ = play(open_namespace(context), [[b"redis_version:7.0.0", NO_SETTINGS, NO_SETTINGS, HAS_SCRIPTS]])
    assert names(asked) == ["INFO HMGET HMGET EVAL"]
    assert not context.made


@pytest.mark.parametrize(
    "rejection",
    [
        "unknown command 'EVAL', with args beginning with: 'return 1' ",
        "unknown command `EVAL`, with args beginning with: `return 1`, ",
        "ERR unsupported command 'eval'",
        "ERR Command is not available: 'EVAL'. See the documentation.",
        "ERR command 'EVAL' not support for normal user",
    ],
)
def test_a_server_without_scripts_is_not_opened(context: Context, rejection: str) -> None:
    with pytest.raises(ConfigurationError, match="Scripts are required") as caught:
        play(open_namespace(context), [[b"redis_version:7.0.0", NO_SETTINGS, NO_SETTINGS, ErrorReply.parse(rejection)]])
    assert "return 1" not in str(caught.value)


def test_a_user_without_scripts_may_open_and_read(context: Context) -> None:
    denied = ErrorReply("NOPERM", "User reader has no permissions to run the 'eval' command")
    play(open_namespace(context), [[b"redis_version:7.0.0", NO_SETTINGS, NO_SETTINGS, denied]])


@pytest.mark.parametrize(
    ("replies", "warns"),
    [
        ([[b"role:slave\r\nslave_read_only:1", NO_SETTINGS, NO_SETTINGS, HAS_SCRIPTS]], True),
        (
            [[ErrorReply("NOPERM", "info"), NO_SETTINGS, NO_SETTINGS, HAS_SCRIPTS], [[b"slave", b"127.0.0.1", 6379]]],
            True,
        ),
        ([[ErrorReply("NOPERM", "info"), NO_SETTINGS, NO_SETTINGS, HAS_SCRIPTS], [["slave", "127.0.0.1", 6379]]], True),
        (
            [[ErrorReply("NOPERM", "info"), NO_SETTINGS, NO_SETTINGS, HAS_SCRIPTS], [ErrorReply("NOPERM", "role")]],
            False,
        ),
        ([[ErrorReply("NOPERM", "info"), NO_SETTINGS, NO_SETTINGS, HAS_SCRIPTS], [[b"master", 0, []]]], False),
        ([[b"role:master", NO_SETTINGS, NO_SETTINGS, HAS_SCRIPTS]], False),
    ],
)
def test_a_replica_is_warned_of(
    context: Context,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    replies: list[Any],
    warns: bool,
) -> None:
    monkeypatch.setattr("runic_redis.operations.settings._warned", set())
    play(open_namespace(context), replies)
    assert ("The server is a replica" in caplog.text) == warns


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Unanswered("READONLY You can't write.", 8.0, unsure=False, refused=True), "is a replica.*Nothing was changed"),
        (Unanswered("READONLY You can't write.", 8.0, unsure=True), "is a replica.*Whether it was stored is not known"),
        (Unanswered("READONLY You can't write.", 8.0, unsure=False), "is a replica.*safe to retry"),
        (Unanswered("NOREPLICAS Not enough.", 8.0, unsure=False, refused=True), "min-replicas-to-write"),
        (Unanswered("MASTERDOWN Link down.", 8.0, unsure=False, refused=True), "lost the link to its primary"),
        (Unanswered("LOADING Redis is loading.", 8.0, unsure=False, refused=True), "is loading its data"),
        (Unanswered("BUSY Redis is busy.", 8.0, unsure=False, refused=True), "SCRIPT KILL"),
        (Unanswered("CLUSTERDOWN Slot not served", 8.0, unsure=False, refused=True), "does not serve all"),
        (Unanswered("TRYAGAIN Multiple keys", 8.0, unsure=False, refused=True), "moving the keys"),
        (Unanswered("UNBLOCKED force unblock", 8.0, unsure=False, refused=True), "became a replica"),
    ],
)
def test_a_server_that_refuses_until_the_deadline_is_not_said_to_be_silent(reply: Unanswered, says: str) -> None:
    for error in (unavailable(reply), unreachable(reply)):
        assert re.search(says, str(error))
        assert "did not answer" not in str(error)
        assert ".." not in str(error)


def test_each_passing_refusal_has_a_condition() -> None:
    for code in TRANSIENT:
        assert str(unavailable(Unanswered(f"{code} said", 1.0, unsure=False)))


@pytest.mark.parametrize("bad", [b"", b"what", b"-1", b"1_6", b" 16", b"9" * 5000, None])
def test_damaged_settings_are_named_in_short(context: Context, bad: bytes | None) -> None:
    with pytest.raises(ConfigurationError, match="are damaged") as caught:
        play(open_namespace(context), [[b"redis_version:7.0.0", [b"2", bad, b"0"], NO_SETTINGS, HAS_SCRIPTS]])
    assert len(str(caught.value)) < 500
    with pytest.raises(ConfigurationError, match="are damaged"):
        copied = [NO_SETTINGS, [b"2", bad, b"0"]]
        play(open_namespace(context), [[b"redis_version:7.0.0", *copied, HAS_SCRIPTS], copied])


def test_lost_settings_are_taken_from_their_copy(context: Context) -> None:
    context.made = False
    copied = [NO_SETTINGS, [b"2", b"4", b"0"]]
    play(open_namespace(context), [[b"redis_version:7.0.0", *copied, HAS_SCRIPTS], copied])
    assert not context.made, "the first write restores them"
    with pytest.raises(ConfigurationError, match="partitions=8"):
        copied = [NO_SETTINGS, [b"2", b"8", b"0"]]
        play(open_namespace(context), [[b"redis_version:7.0.0", *copied, HAS_SCRIPTS], copied])


def test_a_version_that_is_no_number_is_passed_over(context: Context) -> None:
    for info in (b"redis_version:" + b"9" * 5000 + b".0", b"redis_version:x", b"\xff", b""):
        play(open_namespace(context), [[info, NO_SETTINGS, NO_SETTINGS, HAS_SCRIPTS]])


def test_the_next_page_is_on_its_way_before_the_last_one_is_decoded(context: Context) -> None:
    entries = [
        [f"{n}-1".encode(), [*context.codec.encode_commit([{"n": n}])[0][1:], b"i", b"id"]] for n in range(1, 90)
    ]
    meta = [b"100", None, b"1", None]
    reader = Reader(context, "w")
    play(reader.open(), [[[b"1", b"100", None], entries[:8], meta]])
    assert names(play(reader.next_page(), [])[0]) == []
    asked, page = play(reader.next_page(), [[entries[8:72], meta], (in_flight := InFlight())])
    assert names(asked) == ["XRANGE HMGET", "Begin"]
    assert isinstance(asked[1], Begin)
    assert asked[1].batch.commands[0].args[2] == b"(72-1"
    assert page == [{"n": n} for n in range(9, 73)]
    asked, page = play(reader.next_page(), [[entries[72:], meta]])
    assert isinstance(asked[0], Await)
    assert asked[0].in_flight is in_flight
    assert names(asked) == ["Await"], "a page that is not full is the last one"


def test_entries_are_decoded_when_their_events_are_needed(context: Context) -> None:
    payloads = [context.codec.encode_commit([{"n": n}] * 100)[0][1:] for n in range(8)]
    entries: list[Any] = [[f"{n}00-1".encode(), [*payload]] for n, payload in enumerate(payloads, 1)]
    entries[-1][1][1] = b"damaged"
    reader = Reader(context, "w")
    play(reader.open(), [[[b"1", b"800", None], entries, [b"800", None, b"1", None]]])
    for first in (0, 3):
        _, page = play(reader.next_page(), [])
        assert page == [{"n": n} for n in range(first, first + 3) for _ in range(100)]
    with pytest.raises(DecodeError, match="800-1"):
        play(reader.next_page(), [])


def test_a_reader_that_is_closed_gives_up_its_page(context: Context) -> None:
    entries = [
        [f"{n}-1".encode(), [*context.codec.encode_commit([{"n": n}])[0][1:], b"i", b"id"]] for n in range(1, 90)
    ]
    meta = [b"100", None, b"1", None]
    reader = Reader(context, "w")
    play(reader.open(), [[[b"1", b"100", None], entries[:8], meta]])
    play(reader.next_page(), [])
    play(reader.next_page(), [[entries[8:72], meta], (in_flight := InFlight())])
    reader.close()
    reader.close()
    assert in_flight.cancelled == 1


def test_a_page_is_small_where_entries_are_large(context: Context) -> None:
    entries = [
        [f"{n}-1".encode(), [*context.codec.encode_commit([{"n": n}])[0][1:], b"i", b"id"]] for n in range(1, 90)
    ]
    reader = Reader(context, "w")
    play(reader.open(), [[[b"1", b"100", None], entries[:8], [b"100", None, b"1", b"1048576"]]])
    play(reader.next_page(), [])
    batch = next(reader.next_page())
    assert isinstance(batch, Batch)
    assert batch.commands[0].args[-1] == "8"


def test_a_first_page_of_another_life_is_read_again(context: Context) -> None:
    """The workflow was deleted, and made anew, between the server's reading the page and the meta hash."""
    old, new = (
        [
            [f"{n}-{life}".encode(), [*context.codec.encode_commit([{"life": life}])[0][1:], b"i", b"id"]]
            for n in range(1, 9)
        ]
        for life in (1, 2)
    )
    reader = Reader(context, "w")
    later = [b"8", None, b"2", None]
    found = [[[b"1", b"8", None], old, later], [[b"2", b"8", None], new, later]]
    asked, _ = play(reader.open(), found)
    assert names(asked) == ["HMGET XRANGE HMGET"] * 2
    assert play(reader.next_page(), [])[1] == [{"life": 2}] * 8
    gone = Reader(context, "w")
    with pytest.raises(WorkflowNotFound):
        play(gone.open(), [[[b"1", b"8", None], old, [None] * 4], [[None] * 3, [], [None] * 4], [0, 0, 0, 0, [None]]])


def test_a_time_is_searched_again_in_another_life(context: Context) -> None:
    """The workflow was deleted and made again between the search and the first page."""
    old, new = ([b"1-5000", [*context.codec.encode_commit([{"life": life}])[0][1:], b"i", b"id"]] for life in (1, 2))
    page = [[b"2", b"1", None], [new], [b"1", None, b"2", None]]
    reader = Reader(context, "w", since=datetime.fromtimestamp(5, UTC))
    replies = [[[b"1", b"1", None, None]], [[old]], page, [[b"2", b"1", None, None]], [[new]], page]
    assert names(play(reader.open(), replies)[0]) == ["HMGET", "XRANGE", "HMGET XRANGE HMGET"] * 2
    assert play(reader.next_page(), [])[1] == [{"life": 2}]


def test_commits_trimmed_after_the_search_are_not_skipped(context: Context) -> None:
    first, second, third = (
        [f"{n}-{n}000".encode(), [*context.codec.encode_commit([{"n": n}])[0][1:], b"i", b"id"]] for n in (1, 2, 3)
    )
    page = [[b"1", b"3", None], [third], [b"3", b"2", b"1", None]]
    reader = Reader(context, "w", since=datetime.fromtimestamp(2, UTC))
    with pytest.raises(EventsTrimmed) as caught:
        play(reader.open(), [[[b"1", b"3", None, None]], [[second]], [[first]], page])
    assert caught.value.first == 3


def test_a_trim_without_a_time_may_have_taken_commits_from_any_time_on(context: Context) -> None:
    reader = Reader(context, "w", since=datetime.fromtimestamp(6, UTC))
    page = [[b"1", b"3", None], [], [b"3", b"2", b"1", None]]
    with pytest.raises(EventsTrimmed):
        play(reader.open(), [[[b"1", b"3", b"2", None]], page])


class InFlight:
    """A page on its way."""

    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


def test_a_refusal_by_the_server_is_passed_on(context: Context) -> None:
    with pytest.raises(StoreError, match="OOM command not allowed"):
        play(append(context, "w", [{"a": 1}]), [[ErrorReply("OOM", "command not allowed")]])
    with pytest.raises(DecodeError, match="not of this store"):
        play(append(context, "w", [{"a": 1}]), [[ErrorReply("WRONGTYPE", "Operation")]])


def test_the_last_few_events_are_read_with_a_small_page(context: Context) -> None:
    reader = Reader(context, "w", reverse=True)
    batch = next(reader.open())
    assert isinstance(batch, Batch)
    before, page, *_, meta = batch.commands
    assert before.args[0] == "HMGET"
    assert page.args[0] == "XREVRANGE"
    assert page.args[-1] == "8"
    assert meta.args[0] == "HMGET"


def test_a_short_listing_reads_little(context: Context) -> None:
    batch = next(Listing(context, limit=1).next_page())
    assert isinstance(batch, Batch)
    assert [command.args[3] for command in batch.commands] == ["4"] * 4
