"""Queries on tags, and commits on a condition, in a namespace with one partition and a feed."""

import random
from functools import partial
from typing import Any

import pytest

from runic_redis import Append, ConditionFailed, CursorConflict, GroupRejected, InvalidArgument, InvalidType, Tagged
from runic_redis.testing.base import Contract, Elsewhere, raised_error
from runic_redis.testing.examples import numbered

TAGS = ["a", "b", "c", "ä", "a\x01", "d" * 130]


def matched(store: Any, query: Any, **options: Any) -> list[tuple[int, Any]]:
    """Return the positions and the events that a query finds."""
    return [(one.position, one.event) for one in store.read_where(query, **options).events]


def append_tagged(store: Any, chance: random.Random, model: list[tuple[Any, set[str]]]) -> None:
    """Append one or two commits of some events with some tags, and note each event with its tags in a model."""
    items = []
    for workflow_id in chance.sample(["x", "y", "z"], chance.choice([1, 1, 2])):
        shared = chance.sample(TAGS, chance.choice([0, 0, 1]))
        events: list[Any] = []
        for _ in range(chance.choice([1, 1, 2, 5])):
            tags = chance.sample(TAGS, chance.randrange(4))
            event = {"n": len(model)}
            model.append((event, {*tags, *shared}))
            events.append(Tagged(event, tags) if tags else event)
        items.append(Append(workflow_id, events, tags=shared))
    store.append_all(items)


def some_query(chance: random.Random) -> list[list[str]]:
    """Return a query of one to four items."""
    return [chance.sample(TAGS, chance.choice([1, 1, 2, 3])) for _ in range(chance.choice([1, 1, 2, 4]))]


def _book(store: Any, seed: int, tries: int) -> list[int]:
    """Take seats as long as fewer than three are taken of a show. Return how many were taken, by show."""
    chance = random.Random(seed)
    taken = [0, 0, 0]
    for number in range(tries):
        show = chance.randrange(3)
        query = [[f"show:{show}", "taken"]]
        found = store.read_where(query)
        if len(found.events) >= 3:
            continue
        booking = Tagged({"by": seed, "n": number}, [f"show:{show}", "taken"])
        try:
            store.append_all([Append(f"guest-{seed}", [booking])], unless=query, after=found.head)
        except ConditionFailed:
            continue
        taken[show] += 1
    return taken


class QueryContract(Contract):
    """Queries on tags, and commits on a condition."""

    def test_an_event_matches_if_it_has_all_tags_of_an_item(self, store: Any) -> None:
        store.append("x", [{"n": 1}], tags=["a", "b"])
        store.append_all([Append("y", [Tagged({"n": 2}, ["a"]), Tagged({"n": 3}, ["b", "c"]), {"n": 4}], tags=["d"])])
        assert matched(store, [["a"]]) == [(1, {"n": 1}), (2, {"n": 2})]
        assert matched(store, [["a", "b"]]) == [(1, {"n": 1})]
        assert matched(store, [["a", "c"]]) == [], "of different events of one commit"
        assert matched(store, [["c", "d"]]) == [(3, {"n": 3})]
        assert matched(store, [["d"]]) == [(2, {"n": 2}), (3, {"n": 3}), (4, {"n": 4})]
        assert matched(store, [["c"], ["a", "b"], ["c", "d"]]) == [(1, {"n": 1}), (3, {"n": 3})]
        assert matched(store, [["nobody"]]) == []

    def test_a_found_event_is_told_with_its_place(self, store: Any) -> None:
        store.append("x", [{"n": 1}, Tagged({"n": 2}, ["a"]), {"n": 3}], metadata={"why": "so"})
        ((found,), head) = store.read_where([["a"]])
        (record,) = [one for one in store.stream_records("x") if one.event == {"n": 2}]
        assert (found.position, found.workflow_id, found.cursor, found.event) == (2, "x", 2, {"n": 2})
        assert (found.time, found.metadata) == (record.time, {"why": "so"})
        assert head == 3

    def test_find_returns_the_commit_of_a_tag_of_an_event(self, store: Any) -> None:
        store.append("x", [Tagged({"n": 1}, ["a"]), {"n": 2}])
        assert [(one.cursor, one.events) for one in store.find("x", tag="a")] == [(2, [{"n": 1}, {"n": 2}])]

    def test_queries_find_what_a_search_through_all_events_finds(self, store: Any) -> None:
        chance = random.Random(5)
        model: list[tuple[Any, set[str]]] = []
        for _ in range(60):
            append_tagged(store, chance, model)
            query, after, limit = some_query(chance), chance.randrange(len(model) + 2), chance.choice([None, 1, 3])
            expected = [
                (position, event)
                for position, (event, tags) in enumerate(model, 1)
                if position > after and any(tags.issuperset(item) for item in query)
            ]
            found = store.read_where(query, after=after, limit=limit)
            assert [(one.position, one.event) for one in found.events] == expected[:limit]
            is_limited = limit is not None and len(expected) >= limit
            assert found.head == (found.events[-1].position if is_limited else max(after, len(model)))

    def test_the_empty_item_finds_every_event(self, store: Any) -> None:
        store.append("x", [{"n": 1}, Tagged({"n": 2}, ["a"])])
        store.append("y", [{"n": 3}])
        assert matched(store, [[]]) == [(1, {"n": 1}), (2, {"n": 2}), (3, {"n": 3})]
        assert matched(store, [["a"], []], after=1, limit=1) == [(2, {"n": 2})]
        assert store.read_where([[]], after=3) == ([], 3)

    def test_a_query_finds_many_events_of_many_workflows(self, store: Any) -> None:
        for number in range(300):
            store.append(f"w-{number % 100}", [{"n": number}], tags=["all", f"n:{number}"])
        assert matched(store, [["all"]]) == [(number + 1, {"n": number}) for number in range(300)]
        assert matched(store, [["all"]], after=10, limit=280)[-1] == (290, {"n": 289})
        pages, after = [], 0
        while page := store.read_where([["all"]], after=after, limit=100).events:
            pages.append(len(page))
            after = page[-1].position
        assert pages == [100, 100, 100]

    def test_a_large_commit_is_found_whole(self, store: Any) -> None:
        large = [Tagged({"n": n, "text": f"{n} " * 50_000}, ["odd"] if n % 2 else ["even"]) for n in range(30)]
        store.append("x", large)
        store.append("y", numbered(1), tags=["odd"])
        assert [one.event["n"] for one in store.read_where([["odd"]]).events[:-1]] == list(range(1, 30, 2))

    def test_a_condition_rejects_a_group_if_an_event_matches(self, store: Any) -> None:
        store.append_all([Append("x", [Tagged({"n": 1}, ["a"]), Tagged({"n": 2}, ["b"])])])
        queries: list[list[list[str]]] = [[["a"]], [["c"], ["a"]], [["b"]], [[]]]
        for query in queries:
            with pytest.raises(ConditionFailed) as caught:
                store.append_all([Append("y", numbered(1)), Append("z", numbered(1))], unless=query)
            assert caught.value.position == 2
        with pytest.raises(ConditionFailed):
            store.append_all([Append("y", numbered(1))], unless=[["b"]], after=1)
        assert not store.exists("y")
        assert not store.exists("z")

    def test_a_condition_accepts_a_group_if_no_event_matches(self, store: Any) -> None:
        store.append_all([Append("x", [Tagged({"n": 1}, ["a"]), Tagged({"n": 2}, ["b"])])])
        assert store.append_all([Append("y", numbered(1))], unless=[["a", "b"], ["c"]]) == [1]
        assert store.append_all([Append("y", numbered(1))], unless=[["a"]], after=1) == [2]
        assert store.append_all([Append("y", numbered(1))], unless=[[]], after=4) == [3]
        assert store.append_all([Append("y", [])], unless=[["c"]]) == [3]

    def test_a_condition_stands_beside_an_expected_cursor(self, store: Any) -> None:
        store.append("x", numbered(2), tags=["a"])
        with pytest.raises(GroupRejected) as caught:
            store.append_all([Append("x", numbered(1), expected_cursor=1)], unless=[["b"]])
        assert isinstance(caught.value.__cause__, CursorConflict)
        with pytest.raises(ConditionFailed):
            store.append_all([Append("x", numbered(1), expected_cursor=2)], unless=[["a"]])
        assert store.append_all([Append("x", numbered(1), expected_cursor=2)], unless=[["b"]]) == [3]

    def test_trimmed_and_deleted_events_are_not_found(self, store: Any) -> None:
        for workflow_id in ("x", "y"):
            for number in range(4):
                store.append(workflow_id, [Tagged({"n": number}, ["a"]), {"n": 9}], tags=["both"])
        store.save_snapshot("x", 4, b"s")
        assert store.trim("x") == 4
        assert [one.event["n"] for one in store.read_where([["a"]]).events] == [2, 3, 0, 1, 2, 3]
        store.delete("y")
        assert [one.event["n"] for one in store.read_where([["a", "both"]]).events] == [2, 3]
        with pytest.raises(ConditionFailed):
            store.append_all([Append("z", numbered(1))], unless=[["a"]])
        store.delete("x")
        assert store.append_all([Append("z", numbered(1))], unless=[["a"], ["both"]]) == [1]
        assert store.read_where([["both"]]).events == []

    def test_racing_writers_never_break_what_their_conditions_keep(self, store: Any, elsewhere: Elsewhere) -> None:
        results = elsewhere(_book, *((seed, 12) for seed in range(3)))
        taken = [sum(one[show] for one in results) for show in range(3)]
        for show in range(3):
            assert len(store.read_where([[f"show:{show}"]]).events) == taken[show] <= 3
        assert max(taken) == 3

    def test_bad_queries_send_nothing(self, store: Any) -> None:
        bad: list[Any] = ["a", b"a", ["a"], {"a": 1}, None, 5, []]
        bad += [[[5]], [["a\0"]], [["d" * 131]], [[""]], [["\ud800"]]]
        for query in (*bad, [[str(number)] for number in range(257)]):
            raised_error(query, partial(store.read_where, query), (InvalidArgument, InvalidType))
            if query is not None:
                append = partial(store.append_all, [Append("x", numbered(1))], unless=query)
                raised_error(query, append, (InvalidArgument, InvalidType))
        for options in ({"after": -1}, {"after": True}, {"limit": -1}, {"limit": 1.5}):
            raised_error(options, partial(store.read_where, [["a"]], **options), InvalidArgument)
        with pytest.raises(InvalidArgument):
            store.append_all([Append("x", numbered(1))], after=3)
        assert not store.exists("x")
