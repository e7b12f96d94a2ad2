"""Logs, the minimum of a store: a whole list of events that is saved and loaded at once."""

from typing import Any

import pytest

from runic_redis.testing.base import Contract
from runic_redis.testing.examples import OrderPaid, numbered


class LogContract(Contract):
    """`save` and `load`, which every store must have."""

    def test_a_log_comes_back_as_it_was_saved(self, store: Any) -> None:
        log = [*numbered(3), OrderPaid(9.5), {"plain": True}]
        store.save("order-1", log)
        assert store.load("order-1") == log

    def test_an_empty_log_comes_back_empty(self, store: Any) -> None:
        store.save("order-1", [])
        assert store.load("order-1") == []

    def test_saving_replaces_the_log(self, store: Any) -> None:
        store.save("order-1", numbered(3))
        store.save("order-1", numbered(1))
        assert store.load("order-1") == numbered(1)

    def test_workflows_have_separate_logs(self, store: Any) -> None:
        store.save("order-1", numbered(1))
        store.save("order-2", numbered(2))
        assert store.load("order-1") == numbered(1)
        assert store.load("order-2") == numbered(2)

    def test_loading_a_log_that_was_never_saved_is_a_lookup_error(self, store: Any) -> None:
        with pytest.raises(LookupError):
            store.load("nobody")

    def test_a_log_of_several_megabytes_comes_back(self, store: Any) -> None:
        log = [{"text": f"{number:08}" * 1000} for number in range(300)]
        store.save("order-1", log)
        assert store.load("order-1") == log
