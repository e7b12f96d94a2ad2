"""Workers of the command line that are stopped by signals, or killed at work."""

import logging
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runic_redis import RedisStore, WorkflowCompleted
from tests.forking import Forked

HANDLERS = '''
import asyncio, os, signal, time
from pathlib import Path
from runic_redis import handler


def may_end():
    """Return whether the test says so; or, on a first signal, whether the worker has noticed it."""
    return Path("go").exists() or Path("until-stopped").exists() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@handler(apply=lambda state, event: [*state, event], initial=list)
def plain(session):
    print("took", session.workflow_id, len(session.state), flush=True)
    session.record({"by": os.getpid()})
    while not may_end():
        time.sleep(0.01)
    session.record({"end": True})


@handler(apply=lambda state, event: [*state, event], initial=list)
async def on_a_loop(session):
    print("took", session.workflow_id, len(session.state), flush=True)
    await session.record({"by": os.getpid()})
    while not may_end():
        await asyncio.sleep(0.01)
    await session.record({"end": True})


def stopped(session):
    print("took", session.workflow_id, flush=True)
    while signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        time.sleep(0.01)
    print("stopping", flush=True)
    time.sleep(60)


def poison(session):
    print("took", session.workflow_id, session.lease.attempt, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
'''


@pytest.fixture(params=["valkey", "cluster_nodes"])
def url(request: pytest.FixtureRequest) -> str:
    server = request.getfixturevalue(request.param)
    return server.url() if request.param == "valkey" else f"redis+cluster://127.0.0.1:{server[0].port}"


@pytest.fixture
def shop(url: str, namespace: str, tmp_path: Path) -> Iterator[RedisStore]:
    (tmp_path / "orders.py").write_text(HANDLERS)
    with RedisStore.from_url(url, namespace=namespace, partitions=8) as store:
        yield store


class Worker(Forked):
    """A worker of the command line."""

    def __init__(self, shop: RedisStore, url: str, directory: Path, name: str, *options: object) -> None:
        place = ("--url", url, "--namespace", shop.context.keys.namespace, "--queue", "orders", "--ttl", "0.5")
        super().__init__(None, "work", f"orders:{name}", *place, *options, directory=directory)

    def __exit__(self, *error: object) -> None:
        self.kill()
        super().__exit__(*error)

    def took(self) -> str:
        """Wait until the worker has taken a workflow, and return what it says."""
        line = self.stdout.readline()
        assert line.startswith("took "), (line, self.stderr.read())
        return line.removeprefix("took ").strip()


def is_completed(store: RedisStore, workflow_id: str) -> bool:
    try:
        store.unpark(workflow_id)
    except WorkflowCompleted:
        return True
    return False


@pytest.mark.parametrize("name", ["plain", "on_a_loop"])
def test_the_workflow_of_a_killed_worker_is_taken_over(shop: RedisStore, url: str, tmp_path: Path, name: str) -> None:
    shop.append("order-1", [{"placed": True}], queue="orders")
    with Worker(shop, url, tmp_path, name) as first:
        assert first.took() == "order-1 1"
        shop_cursor = shop.tail("order-1", after=1)
        next(shop_cursor)  # it has recorded a step
        shop_cursor.close()
        first.kill()
        assert first.wait() == -signal.SIGKILL
    (tmp_path / "go").touch()
    with Worker(shop, url, tmp_path, name) as second:
        assert second.took() == "order-1 2"
        assert next(shop.tail("order-1", after=3)).event == {"end": True}
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
    assert is_completed(shop, "order-1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["plain", "on_a_loop"])
def test_a_worker_that_is_stopped_ends_what_it_does_and_takes_no_more(
    shop: RedisStore, url: str, tmp_path: Path, name: str, number: signal.Signals
) -> None:
    for workflow_id in ("order-1", "order-2"):
        shop.append(workflow_id, [{"placed": True}], queue="orders")
    with Worker(shop, url, tmp_path, name) as worker:
        taken = worker.took().split()[0]
        (tmp_path / "until-stopped").touch()
        worker.send_signal(number)
        assert worker.wait(30) == 0
        assert worker.stdout.read() == "", "it took one"
        assert re.search(rf"INFO The workflow '{taken}', attempt 1, [0-9.]+ s: completed.$", worker.stderr.read())
    assert is_completed(shop, taken)
    (left,) = shop.claim("another", 9, queues=["orders"])
    assert {left.workflow_id, taken} == {"order-1", "order-2"}


def test_a_second_signal_ends_the_worker_at_once(shop: RedisStore, url: str, tmp_path: Path) -> None:
    shop.append("order-1", [{"placed": True}], queue="orders")
    with Worker(shop, url, tmp_path, "stopped") as worker:
        worker.took()
        worker.send_signal(signal.SIGTERM)
        assert worker.stdout.readline() == "stopping\n"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == -signal.SIGTERM
    (lease,) = shop.claim("another", queues=["orders"], wait_s=30)
    assert lease.attempt == 2


def test_a_workflow_that_kills_its_workers_is_parked(
    shop: RedisStore, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    shop.append("poison", [{"placed": True}], queue="orders")
    for attempt in (1, 2):
        with Worker(shop, url, tmp_path, "poison", "--max-attempts", 2) as worker:
            assert worker.took() == f"poison {attempt}"
            assert worker.wait(30) == -signal.SIGKILL
    with Worker(shop, url, tmp_path, "poison", "--max-attempts", 2) as worker:
        assert any("'poison' is parked" in line for line in worker.stderr)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    assert shop.claim("another", queues=["orders"]) == []
    shop.unpark("poison")
    (lease,) = shop.claim("another", queues=["orders"])
    assert lease.attempt == 1


def test_a_handler_that_cannot_be_imported_is_named(shop: RedisStore, url: str, tmp_path: Path) -> None:
    for target, why in (
        ("orders", "module and a handler"),
        ("orders:none", "no attribute 'none'"),
        ("nothing:here", "No module named 'nothing'"),
        ("orders:HANDLERS", "no attribute"),
        ("orders:os", "function of a session"),
    ):
        with Forked(None, "work", target, "--url", url, "--until-idle", directory=tmp_path) as worker:
            _, errors = worker.communicate()
            assert worker.wait() == 2, errors
            assert why in errors
            assert "Traceback" not in errors
