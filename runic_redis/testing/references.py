"""Facts in events, snapshots with commits, and facts without references."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from runic_redis import CursorConflict, EncodeError, Fact, FactNotFound, FactRef, SnapshotNotFound, event
from runic_redis.testing.base import Contract
from runic_redis.testing.examples import append_each, numbered


@event("testing.produced")
@dataclass(frozen=True)
class Produced:
    """An event that holds a value."""

    value: Any


class ReferenceContract(Contract):
    """`Fact` and `FactRef` in events, `snapshot` of `append`, `keep` of `trim`, and `collect`."""

    def test_a_fact_in_an_event_comes_back_as_a_reference(self, store: Any) -> None:
        value = {"large": "x" * 5000}
        store.append("w", [Produced(Fact(value)), {"plain": [Fact(1), {"deep": (Fact(value),)}]}])
        first, second = store.stream("w")
        fact_hash = store.put_fact(value)
        assert first == Produced(FactRef(fact_hash))
        assert second == {"plain": [FactRef(store.put_fact(1)), {"deep": (FactRef(fact_hash),)}]}
        assert store.load_fact(first.value.hash) == value

    def test_a_reference_may_be_appended_again(self, store: Any) -> None:
        store.append("w", [Produced(Fact("v"))])
        store.append("v", list(store.stream("w")))
        assert list(store.stream("v")) == list(store.stream("w"))

    def test_a_reference_to_what_is_not_kept_is_refused(self, store: Any) -> None:
        with pytest.raises(FactNotFound, match=r"'gone'.*Nothing was stored") as caught:
            store.append("w", [Produced(Fact(1)), Produced(FactRef("gone"))])
        assert caught.value.hashes == ["gone"]
        with pytest.raises(FactNotFound):
            store.save("w", [Produced(FactRef("gone"))])
        assert not store.exists("w")

    def test_of_many_appends_only_that_with_a_missing_fact_fails(self, store: Any) -> None:
        first, second, third = store.append_many(
            [("a", [Produced(Fact(1))]), ("b", [Produced(FactRef("gone"))]), ("c", [Produced(Fact(1))])]
        )
        assert (first, third) == (1, 1)
        assert isinstance(second, FactNotFound)
        assert list(store.stream("a")) == list(store.stream("c"))

    def test_a_conflict_stores_no_event(self, store: Any) -> None:
        with pytest.raises(CursorConflict):
            store.append("w", [Produced(Fact(1))], expected_cursor=5)
        assert not store.exists("w")

    def test_a_log_may_hold_facts(self, store: Any) -> None:
        store.save("w", [Produced(Fact([1]))])
        (loaded,) = store.load("w")
        store.collect(0)
        assert store.load_fact(loaded.value.hash) == [1]

    @pytest.mark.parametrize("inner", [Fact(1), FactRef("h"), [FactRef("h")]])
    def test_a_fact_refers_to_no_other(self, store: Any, inner: Any) -> None:
        calls: list[Callable[[], Any]] = [
            lambda: store.append("w", [Produced(Fact({"inner": inner}))]),
            lambda: store.put_fact(inner),
            lambda: store.append("w", numbered(1), metadata={"fact": inner}),
        ]
        for call in calls:
            with pytest.raises(EncodeError, match="a fact cannot refer to another fact"):
                call()
        assert not store.exists("w")

    def test_a_commit_may_have_a_snapshot(self, store: Any) -> None:
        assert store.append("w", numbered(3), snapshot=b"three") == 3
        assert store.load_snapshot("w") == (3, b"three")
        assert store.append("w", numbered(2, 4), snapshot=b"") == 5
        assert store.load_snapshot("w") == (5, b"")
        assert list(store.stream("w")) == [*numbered(3), *numbered(2, 4)]

    def test_a_rejected_commit_saves_no_snapshot(self, store: Any) -> None:
        with pytest.raises(CursorConflict):
            store.append("w", numbered(3), snapshot=b"three", expected_cursor=1)
        with pytest.raises(SnapshotNotFound):
            store.load_snapshot("w")

    def test_facts_a_lease_and_a_snapshot_travel_with_one_commit(self, store: Any) -> None:
        lease = store.acquire("w", "me")
        events = [Produced(Fact(number)) for number in range(5)]
        assert store.append("w", events, lease=lease, snapshot=b"five", metadata={"k": 1}, commit_id="c") == 5
        assert store.append("w", events, lease=lease, snapshot=b"again", commit_id="c") == 5
        assert store.load_snapshot("w") == (5, b"five")
        assert [store.load_fact(one.value.hash) for one in store.stream("w")] == [0, 1, 2, 3, 4]

    def test_trimming_may_keep_the_last_events(self, store: Any) -> None:
        append_each(store, "w", numbered(10))
        store.save_snapshot("w", 8, b"eight")
        assert store.trim("w", keep=3) == 5
        assert store.trim("w", keep=100) == 5
        assert store.trim("w", keep=0) == 8

    def test_facts_without_references_are_collected(self, store: Any) -> None:
        kept, orphan = "kept", store.put_fact("orphan")
        store.append("w", [Produced(Fact(kept))])
        store.save_fact("h", "another orphan")
        assert store.collect(0) == 2
        assert store.collect(0) == 0
        assert store.load_fact(store.put_fact(kept)) == kept
        for gone in (orphan, "h"):
            with pytest.raises(FactNotFound):
                store.load_fact(gone)

    def test_a_young_fact_is_not_collected(self, store: Any) -> None:
        orphan = store.put_fact("orphan")
        assert store.collect(1000) == 0
        assert store.load_fact(orphan) == "orphan"

    def test_a_deleted_workflow_refers_to_nothing(self, store: Any) -> None:
        shared, own = "shared", "own"
        store.append("a", [Produced(Fact(shared)), Produced(Fact(own))])
        store.append("b", [Produced(Fact(shared))])
        refs = [one.value.hash for one in store.stream("a")]
        store.delete("a")
        assert store.collect(0) == 1
        assert store.load_fact(refs[0]) == shared
        with pytest.raises(FactNotFound):
            store.load_fact(refs[1])

    def test_a_trimmed_event_refers_to_no_fact(self, store: Any) -> None:
        store.append("w", [Produced(Fact("v"))], snapshot=b"state")
        (one,) = store.stream("w")
        assert store.collect(0) == 0
        store.trim("w")
        assert store.collect(0) == 1
        with pytest.raises(FactNotFound):
            store.load_fact(one.value.hash)

    def test_a_snapshot_refers_to_the_facts_that_it_is_told(self, store: Any) -> None:
        store.append("w", [Produced(Fact(number)) for number in range(3)])
        first, second, third = (one.value for one in store.stream("w"))
        store.save_snapshot("w", 3, b"state", refs=[first, second.hash.encode()])
        store.trim("w")
        assert store.collect(0) == 1
        assert store.load_facts([first.hash, second.hash]) == {first.hash: 0, second.hash: 1}
        with pytest.raises(FactNotFound, match="Nothing was stored"):
            store.save_snapshot("w", 3, b"another", refs=[third.hash])
        store.append("w", [{"n": 4}], snapshot=b"state", refs=[second])
        store.trim("w")
        assert store.collect(0) == 1
        store.append("w", [{"n": 5}], snapshot=b"state", refs=[])
        store.trim("w")
        assert store.collect(0) == 1

    def test_a_snapshot_may_refer_to_a_fact_alone(self, store: Any) -> None:
        one, other = store.put_fact("one"), store.put_fact("other")
        store.append("w", numbered(2))
        store.save_snapshot("w", 1, b"state", refs=[one])
        store.append("w", numbered(1), snapshot=b"state", refs=(ref for ref in (FactRef(one), other)))
        store.trim("w")
        assert store.collect(0) == 0
        with pytest.raises(FactNotFound, match=r"'gone'.*Nothing was stored"):
            store.append("w", numbered(1), snapshot=b"state", refs=[one, "gone"])
        store.save_snapshot("w", 3, b"state", refs=[other])
        assert store.collect(0) == 0
        store.trim("w")
        assert store.collect(0) == 1
        assert store.load_fact(other) == "other"

    def test_a_hash_in_the_data_of_a_snapshot_is_a_reference(self, store: Any) -> None:
        store.append("w", [Produced(Fact("kept")), Produced(Fact("gone"))])
        kept, _ = (one.value.hash for one in store.stream("w"))
        store.save_snapshot("w", 2, b'{"state": "' + kept.encode() + b'"}')
        store.trim("w")
        assert store.collect(0) == 1
        assert store.load_fact(kept) == "kept"

    def test_an_encoded_state_tells_its_facts(self, store: Any) -> None:
        for number in range(3):
            store.append("w", [Produced(Fact(number))])
        refs = [one.value for one in store.stream("w")]
        store.save_snapshot("w", 3, store.encode_state({"last": [refs[2], Fact(1)]}))
        store.trim("w")
        assert store.collect(0) == 1
        assert store.load_facts([ref.hash for ref in refs[1:]]) == {refs[1].hash: 1, refs[2].hash: 2}

    def test_many_facts_of_many_workflows_are_told_apart(self, store: Any) -> None:
        for number in range(12):
            store.append(f"w-{number}", [Produced(Fact((number, place))) for place in range(40)])
        for number in range(0, 12, 2):
            store.delete(f"w-{number}")
        assert store.collect(0) == 6 * 40
        for number in range(1, 12, 2):
            refs = [one.value.hash for one in store.stream(f"w-{number}")]
            assert len(store.load_facts(refs)) == 40
