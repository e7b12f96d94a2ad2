"""Workflows as a whole: listing and deleting them."""

from enum import Enum
from typing import Any

import pytest

from runic_redis import SnapshotNotFound, WorkflowNotFound
from runic_redis.testing.base import Contract
from runic_redis.testing.examples import numbered


class Named(str, Enum):  # noqa: UP042 - not a StrEnum: its text and its str() differ
    """A workflow's id."""

    ORDER = "order-1"


class WorkflowContract(Contract):
    """`list`, `exists`, `delete` and `checkpoint`."""

    def test_every_kind_of_workflow_exists_and_is_listed(self, store: Any) -> None:
        store.append("appended", numbered(1))
        store.save("saved", numbered(1))
        store.save_snapshot("snapshotted", 0, b"")
        assert sorted(store.list()) == ["appended", "saved", "snapshotted"]
        for workflow_id in ("appended", "saved", "snapshotted"):
            assert store.exists(workflow_id)
        assert not store.exists("nobody")

    def test_workflows_are_listed_newest_first(self, store: Any) -> None:
        for number in range(30):
            store.append(f"order-{number}", numbered(1))
        expected = [f"order-{number}" for number in reversed(range(30))]
        assert list(store.list()) == expected
        store.append("order-7", numbered(1))
        expected.remove("order-7")
        assert list(store.list()) == ["order-7", *expected]

    def test_a_listing_is_limited(self, store: Any) -> None:
        for number in range(30):
            store.append(f"order-{number}", numbered(1))
        assert list(store.list(limit=3)) == ["order-29", "order-28", "order-27"]
        assert list(store.list(limit=0)) == []
        assert len(list(store.list(limit=100))) == 30

    def test_a_listing_is_filtered_by_prefix(self, store: Any) -> None:
        for number in range(10):
            store.append(f"order-{number}", numbered(1))
            store.append(f"invoice-{number}", numbered(1))
        assert list(store.list(prefix="invoice-", limit=2)) == ["invoice-9", "invoice-8"]
        assert len(list(store.list(prefix="order"))) == 10
        assert list(store.list(prefix="nothing")) == []

    def test_a_listing_pages_through_many_workflows(self, store: Any) -> None:
        ids = [f"order-{number}" for number in range(1200)]
        store.append_many([(workflow_id, [{"n": 1}]) for workflow_id in ids])
        listed = list(store.list())
        assert len(listed) == len(ids)
        assert set(listed) == set(ids)

    def test_listing_an_empty_store_gives_nothing(self, store: Any) -> None:
        assert list(store.list()) == []

    def test_any_id_may_name_a_workflow(self, store: Any) -> None:
        for workflow_id in (
            *("a", "with space", "ünïcödé-✓", "{curly}", "a:b:c"),
            *("x" * 512, "*?[a]", "\x00\n", "🙂" * 128),
        ):
            store.append(workflow_id, numbered(1))
            store.save(workflow_id, numbered(2))
            store.save_snapshot(workflow_id, 1, b"s")
            assert list(store.stream(workflow_id)) == numbered(1)
            assert list(store.list()) == [workflow_id]
            store.delete(workflow_id)
            assert not store.exists(workflow_id)

    def test_an_id_of_a_subclass_of_str_is_its_text(self, store: Any) -> None:
        store.append(Named.ORDER, numbered(1))
        store.save(Named.ORDER, numbered(2))
        store.append_many([(Named.ORDER, numbered(1))])
        assert list(store.list()) == ["order-1"]
        assert type(next(store.list())) is str
        assert store.cursor("order-1") == 2
        assert list(store.stream("order-1")) == list(store.stream(Named.ORDER))
        store.delete(Named.ORDER)
        assert not store.exists("order-1")

    def test_deleting_leaves_nothing(self, store: Any) -> None:
        store.append("order-1", numbered(3), commit_id="a")
        store.save("order-1", numbered(2))
        store.save_snapshot("order-1", 2, b"two")
        store.delete("order-1")
        assert not store.exists("order-1")
        assert store.cursor("order-1") == 0
        assert list(store.list()) == []
        with pytest.raises(WorkflowNotFound):
            store.stream("order-1")
        with pytest.raises(WorkflowNotFound):
            store.load("order-1")
        with pytest.raises(SnapshotNotFound):
            store.load_snapshot("order-1")

    def test_after_a_delete_the_workflow_is_new(self, store: Any) -> None:
        store.append("order-1", numbered(3), commit_id="a")
        store.save_snapshot("order-1", 3, b"three")
        store.trim("order-1")
        store.delete("order-1")
        assert store.append("order-1", numbered(2), expected_cursor=0, commit_id="a") == 2
        assert list(store.stream("order-1")) == numbered(2)
        with pytest.raises(SnapshotNotFound):
            store.load_snapshot("order-1")

    def test_deleting_what_is_not_there_is_no_error(self, store: Any) -> None:
        store.delete("nobody")
        store.append("order-1", numbered(1))
        store.delete("order-1")
        store.delete("order-1")

    def test_deleting_one_leaves_the_others(self, store: Any) -> None:
        store.append("order-1", numbered(1))
        store.append("order-2", numbered(2))
        store.delete("order-1")
        assert list(store.list()) == ["order-2"]
        assert list(store.stream("order-2")) == numbered(2)

    def test_a_checkpoint_is_a_save(self, store: Any) -> None:
        store.checkpoint("order-1", numbered(2))
        assert store.load("order-1") == numbered(2)

    def test_deleting_the_namespace_leaves_nothing_and_it_can_be_made_again(self, store: Any) -> None:
        store.append_many([(f"order-{number}", numbered(2)) for number in range(50)])
        fact_hash = store.put_fact("value")
        store.delete_namespace()
        assert list(store.list()) == []
        assert not store.exists("order-1")
        with pytest.raises(LookupError):
            store.load_fact(fact_hash)
        assert store.append("order-1", numbered(1)) == 1
        assert list(store.list()) == ["order-1"]
