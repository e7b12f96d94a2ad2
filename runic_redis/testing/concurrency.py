"""Concurrency: threads, processes and races."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from runic_redis import CursorConflict
from runic_redis.testing.base import Contract, Elsewhere, Opener
from runic_redis.testing.examples import OrderPlaced, append_each, numbered


class ConcurrencyContract(Contract):
    """Promises that hold for any number of writers and readers."""

    def test_twenty_writers_write_twenty_workflows(self, store: Any) -> None:
        def write(writer: int) -> None:
            append_each(store, f"order-{writer}", numbered(10))

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(write, range(20)))
        assert len(list(store.list())) == 20
        for writer in range(20):
            assert list(store.stream(f"order-{writer}")) == numbered(10)

    def test_twenty_threads_append_to_one_workflow(self, store: Any) -> None:
        def write(writer: int) -> list[int]:
            return [store.append("order-1", [OrderPlaced(f"w{writer}", number)]) for number in range(20)]

        with ThreadPoolExecutor(20) as pool:
            cursors = [cursor for written in pool.map(write, range(20)) for cursor in written]
        assert sorted(cursors) == list(range(1, 401))
        streamed = list(store.stream("order-1"))
        assert Counter(event.customer for event in streamed) == {f"w{writer}": 20 for writer in range(20)}
        for writer in range(20):
            assert [event.quantity for event in streamed if event.customer == f"w{writer}"] == list(range(20))

    def test_of_racing_writers_one_wins_and_the_rest_get_a_conflict(self, store: Any) -> None:
        rounds, writers = 20, 8
        barrier = Barrier(writers)

        def race(writer: int) -> list[int]:
            outcomes = []
            for number in range(rounds):
                events = [OrderPlaced(f"w{writer}", number)]
                barrier.wait()
                try:
                    outcomes.append(store.append("order-1", events, expected_cursor=number))
                except CursorConflict as conflict:
                    assert conflict.actual == number + 1
                    outcomes.append(0)
            return outcomes

        with ThreadPoolExecutor(writers) as pool:
            outcomes = list(pool.map(race, range(writers)))
        for number in range(rounds):
            assert sorted(outcome[number] for outcome in outcomes) == [0] * (writers - 1) + [number + 1]
        assert [event.quantity for event in store.stream("order-1")] == list(range(rounds))

    def test_a_reader_never_sees_part_of_a_commit(self, store: Any, opener: Opener) -> None:
        size, commits = 300, 15
        store.append("order-1", [{"commit": 0, "text": "x" * 9000}] * size)

        def write() -> None:
            for number in range(1, commits):
                store.append("order-1", [{"commit": number, "text": "x" * 9000}] * size)

        reader = opener()
        seen = 0
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            while seen < commits:
                done = writing.done()
                # Only the last commit: the end of the case reads everything.
                cursor = reader.cursor("order-1")
                assert cursor % size == 0
                last = [event["commit"] for event in reader.stream("order-1", after=cursor - size)]
                assert len(last) % size == 0
                assert Counter(last) == dict.fromkeys(range(cursor // size - 1, last[-1] + 1), size)
                seen = last[-1] + 1
                assert seen == commits or not done
            writing.result()
        assert Counter(event["commit"] for event in reader.stream("order-1")) == dict.fromkeys(range(commits), size)
        reader.close()

    def test_a_reader_at_the_end_of_a_stream_that_grows_is_never_told_of_damage(
        self, store: Any, opener: Opener
    ) -> None:
        reader = opener()
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(append_each, store, "order-1", numbered(150))
            while not writing.done():
                after = reader.cursor("order-1")
                try:
                    forwards = list(reader.stream("order-1", after=after))
                    backwards = list(reader.stream("order-1", reverse=True))
                    bounded = list(reader.stream("order-1", until=after + 3, reverse=True))
                except LookupError:
                    assert after == 0
                    continue
                assert forwards == numbered(len(forwards), after + 1)
                assert backwards == numbered(len(backwards))[::-1]
                assert bounded == numbered(len(bounded))[::-1]
            writing.result()
        assert list(reader.stream("order-1")) == numbered(150)
        reader.close()

    def test_a_delete_that_races_appends_leaves_nothing_of_the_old_life(self, store: Any, opener: Opener) -> None:
        rounds = 60
        barrier = Barrier(2)
        other = opener()

        def delete() -> None:
            for _ in range(rounds):
                barrier.wait()
                other.delete("order-1")
                barrier.wait()

        with ThreadPoolExecutor(1) as pool:
            deleting = pool.submit(delete)
            for number in range(rounds):
                store.append("order-1", [OrderPlaced("old", number)] * 3)
                store.save_snapshot("order-1", store.cursor("order-1"), b"old")
                barrier.wait()
                cursor = store.append("order-1", [OrderPlaced("new", number)])
                barrier.wait()
                if not store.exists("order-1"):
                    # The delete came last.
                    assert store.cursor("order-1") == 0
                elif cursor == 1:
                    # The delete came first: nothing older is left.
                    assert list(store.stream("order-1")) == [OrderPlaced("new", number)]
                    assert not _has_snapshot(store)
                else:
                    raise AssertionError("the workflow outlived its delete")
                store.delete("order-1")
            deleting.result()
        other.close()

    def test_facts_saved_by_many_at_once_are_kept_once(self, store: Any) -> None:
        with ThreadPoolExecutor(8) as pool:
            hashes = set(pool.map(store.put_fact, [{"a": [1, 2], "b": {3}}] * 64))
        assert len(hashes) == 1
        assert store.load_fact(hashes.pop()) == {"a": [1, 2], "b": {3}}

    def test_what_is_written_is_read_by_another_process(self, store: Any, elsewhere: Elsewhere) -> None:
        store.append("order-1", numbered(3))
        store.save("order-2", numbered(2))
        store.save_snapshot("order-1", 2, b"two")
        store.save_fact("h", {"v": 1})
        (found,) = elsewhere(_read_everything, ())
        assert found == (numbered(3), numbered(2), (2, b"two"), {"v": 1}, ["order-1", "order-2"])

    def test_what_another_process_writes_is_read_at_once(self, store: Any, elsewhere: Elsewhere) -> None:
        store.append("order-1", numbered(1))
        assert elsewhere(_append_two, ()) == [3]
        assert list(store.stream("order-1")) == numbered(3)

    def test_of_racing_processes_one_wins(self, store: Any, elsewhere: Elsewhere) -> None:
        outcomes = elsewhere(_race, *((writer,) for writer in range(4)))
        won = [writer for writer, number in outcomes if number]
        streamed = list(store.stream("order-1"))
        assert len(streamed) == sum(number for _, number in outcomes)
        assert {event.customer for event in streamed} == {f"w{writer}" for writer in won}
        assert [event.quantity for event in streamed] == list(range(len(streamed)))


def _has_snapshot(store: Any) -> bool:
    try:
        store.load_snapshot("order-1")
    except LookupError:
        return False
    return True


def _read_everything(store: Any) -> tuple[Any, ...]:
    return (
        list(store.stream("order-1")),
        store.load("order-2"),
        store.load_snapshot("order-1"),
        store.load_fact("h"),
        sorted(store.list()),
    )


def _append_two(store: Any) -> int:
    cursor: int = store.append("order-1", numbered(2, 2))
    return cursor


def _race(store: Any, writer: int) -> tuple[int, int]:
    """Append at the last known cursor until there are 40 events, and return how many this writer appended."""
    won = 0
    while (cursor := store.cursor("order-1")) < 40:
        try:
            store.append("order-1", [OrderPlaced(f"w{writer}", cursor)], expected_cursor=cursor)
            won += 1
        except CursorConflict:
            continue
    return writer, won
