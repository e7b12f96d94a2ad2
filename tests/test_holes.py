"""The holes that a new user of 0.1.0 found when an order workflow was tried. Each of these tests fails there."""

import signal
import threading
from typing import Any

import pytest

from runic_redis import CursorConflict, RedisStore, WorkflowCancelled, WorkflowCompleted, handler, work
from tests.forking import Forked
from tests.servers import RunningServer

DIES_AFTER_THE_APPEND = """
import os, signal, sys
from runic_redis import RedisStore
store = RedisStore.from_url(sys.argv[1], namespace=sys.argv[2])
store.append("order-1", [{"placed": True}], expected_cursor=0, queue="orders")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_order_whose_shop_dies_right_after_the_append_is_claimed(valkey: RunningServer, namespace: str) -> None:
    """Before, `append` and `acquire` were two steps. After a crash in between, no worker ever got the order."""
    with Forked(DIES_AFTER_THE_APPEND, valkey.url(), namespace) as shop:
        assert shop.wait() == -signal.SIGKILL
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        assert [lease.workflow_id for lease in store.claim("worker", queues=["orders"])] == ["order-1"]


def test_a_cancellation_from_outside_does_not_end_the_session_with_a_conflict(store: RedisStore) -> None:
    """Before, a cancellation was an append, which moved the cursor under the worker."""
    store.append("order-1", [{"placed": True}], queue="orders")
    met: list[Exception] = []

    @handler(apply=lambda state, event: [*state, event], initial=list)
    def handle(session: Any) -> None:
        session.record({"packed": 1})
        store.request_cancel("order-1", "Ada changed her mind")
        try:
            session.record({"packed": 2})
        except (WorkflowCancelled, CursorConflict) as error:
            met.append(error)
            assert len(session.state) == 2
            session.record({"unpacked": 1}, consumes=getattr(error, "message", None))

    work(store, handle, queues=["orders"], until_idle=True)
    assert [type(error) for error in met] == [WorkflowCancelled]
    assert list(store.stream("order-1")) == [{"placed": True}, {"packed": 1}, {"unpacked": 1}]


def test_a_poison_workflow_is_not_claimed_for_ever(store: RedisStore) -> None:
    store.append("poison", [{"placed": True}], queue="orders")
    # Each of these workers dies: its lease ends, and it has recorded nothing.
    for attempt in (1, 2, 3):
        (lease,) = store.claim("worker", queues=["orders"], ttl=0.001, wait_s=30, max_attempts=3)
        assert lease.attempt == attempt
    store.append("good", [{"placed": True}], queue="orders", due=0.1)
    # This claim waits until the last lease has ended. Then it parks the workflow, and gets the good one.
    (lease,) = store.claim("worker", queues=["orders"], wait_s=30, max_attempts=3)
    assert lease.workflow_id == "good"
    store.complete("good")
    store.unpark("poison", due=1000)
    assert store.claim("worker", queues=["orders"], max_attempts=3) == []


def test_an_invoice_worker_gets_no_e_mails(store: RedisStore) -> None:
    """Before, `claim` gave any unfinished workflow to any worker."""
    for number in range(3):
        store.append(f"email-{number}", [{"to": "Ada"}], queue="emails")
    store.append("invoice-1", [{"total": 7}], queue="invoices")
    store.release(store.acquire("something else", "shop"))
    assert [lease.workflow_id for lease in store.claim("worker", 9, queues=["invoices"])] == ["invoice-1"]


def test_a_retry_in_five_minutes_is_no_busy_loop(valkey: RunningServer, namespace: str) -> None:
    """Before, a released workflow could be claimed at once, so a worker that waited claimed it again and again."""
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store:
        store.append("order-1", [{"placed": True}], queue="orders")
        runs: list[int] = []
        begun, stop = threading.Event(), threading.Event()

        def handle(session: Any) -> None:
            runs.append(session.lease.attempt)
            begun.set()
            raise ConnectionError("the bank does not answer")

        worker = threading.Thread(
            target=work, args=(store, handle), kwargs={"queues": ["orders"], "first_delay": 300, "stop": stop}
        )
        worker.start()
        try:
            assert begun.wait(30)
            with valkey.client() as client:
                assert store.claim("another", queues=["orders"], wait_s=2) == []
                calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
                assert store.claim("another", queues=["orders"], wait_s=2) == []
                calls = client.info("commandstats")["cmdstat_evalsha"]["calls"] - calls
        finally:
            stop.set()
            worker.join()
        assert runs == [1]
        assert calls < 12, "a look each second, of both that wait"
        with pytest.raises(WorkflowCompleted):
            store.complete("order-1")
            store.unpark("order-1")
