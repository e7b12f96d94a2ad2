"""Facts: values that are stored once under their hash."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from runic_redis import FactNotFound, InvalidArgument
from runic_redis.testing.base import Contract
from runic_redis.testing.examples import OrderPlaced


class FactContract(Contract):
    """`save_fact`, `load_fact`, `save_facts`, `load_facts` and `put_fact`."""

    def test_a_fact_comes_back(self, store: Any) -> None:
        value = {
            "numbers": [1, 2.5],
            "order": OrderPlaced("Ada"),
            "raw": b"\x00",
            "at": datetime(2026, 1, 2, tzinfo=UTC),
        }
        for fact_hash in ("h-1", b"h-2", b"\x00\xff" * 16):
            store.save_fact(fact_hash, value)
            assert store.load_fact(fact_hash) == value

    def test_any_value_may_be_a_fact(self, store: Any) -> None:
        value: Any
        for number, value in enumerate((None, 0, "", [], {}, False, Decimal("1.50"), (1, (2,)), 2**100)):
            store.save_fact(f"h-{number}", value)
            loaded = store.load_fact(f"h-{number}")
            assert loaded == value
            assert type(loaded) is type(value)

    def test_saving_a_fact_again_changes_nothing(self, store: Any) -> None:
        store.save_fact("h", {"a": 1, "b": 2})
        store.save_fact("h", {"b": 2, "a": 1})
        assert store.load_fact("h") == {"a": 1, "b": 2}

    def test_another_value_under_a_hash_is_refused(self, store: Any) -> None:
        store.save_fact("h", 1)
        with pytest.raises(InvalidArgument):
            store.save_fact("h", 2)
        assert store.load_fact("h") == 1

    def test_a_str_hash_is_its_utf8_bytes(self, store: Any) -> None:
        store.save_fact("é", 1)
        assert store.load_fact("é".encode()) == 1

    def test_a_fact_that_is_not_there_is_a_lookup_error(self, store: Any) -> None:
        with pytest.raises(FactNotFound) as caught:
            store.load_fact("h")
        assert isinstance(caught.value, LookupError)
        assert caught.value.hashes == ["h"]

    def test_many_facts_are_saved_and_loaded_at_once(self, store: Any) -> None:
        values = {f"h-{number}": {"number": number} for number in range(300)}
        store.save_facts(values)
        assert store.load_facts(list(values)) == values
        assert store.load_facts(["h-7", "h-7"]) == {"h-7": {"number": 7}}
        assert store.load_facts([]) == {}
        store.save_facts({})

    def test_all_that_are_missing_are_named_in_one_error(self, store: Any) -> None:
        store.save_facts({"a": 1, "c": 3})
        with pytest.raises(FactNotFound) as caught:
            store.load_facts(["a", "b", b"c", b"d"])
        assert caught.value.hashes == ["b", b"d"]
        assert "'b'" in str(caught.value)

    def test_a_fact_can_be_put_under_its_content_hash(self, store: Any) -> None:
        value = {"z": [1, {"y": {3, 1, 2}}], "a": OrderPlaced("Ada")}
        fact_hash = store.put_fact(value)
        assert re.fullmatch("sha256:[0-9a-f]{64}", fact_hash)
        assert store.load_fact(fact_hash) == value
        assert store.put_fact(value) == fact_hash

    def test_equal_values_have_equal_hashes_whatever_their_order(self, store: Any) -> None:
        one = {"a": 1, "b": {"c": {1, 2, 3}, (1, "x"): frozenset("pq")}}
        other = {"b": {(1, "x"): frozenset("qp"), "c": {3, 2, 1}}, "a": 1}
        assert store.put_fact(one) == store.put_fact(other)

    def test_values_of_different_types_have_hashes_of_their_own(self, store: Any) -> None:
        values = [1, 1.0, True, "1", b"1", [1], (1,), {1}, frozenset({1}), {1: None}, Decimal(1), None]
        hashes = [store.put_fact(value) for value in values]
        assert len(set(hashes)) == len(values)
        for fact_hash, value in zip(hashes, values, strict=True):
            loaded = store.load_fact(fact_hash)
            assert loaded == value
            assert type(loaded) is type(value)

    def test_a_content_hash_must_be_that_of_the_value(self, store: Any) -> None:
        fact_hash = store.put_fact({"a": 1})
        store.save_fact(fact_hash, {"a": 1})
        with pytest.raises(InvalidArgument):
            store.save_fact(fact_hash, {"a": 2})
        with pytest.raises(InvalidArgument):
            store.save_fact("sha256:" + "0" * 64, {"a": 1})

    def test_a_large_fact_comes_back(self, store: Any) -> None:
        value = {"rows": [{"n": number, "text": "x" * 100} for number in range(10_000)]}
        assert store.load_fact(store.put_fact(value)) == value

    def test_facts_are_no_workflows(self, store: Any) -> None:
        store.put_fact("value")
        assert list(store.list()) == []
