"""Jobs that are lost or done twice, here and with arq and dramatiq: ``python -m tests.measure_jobs measure``.

First, a worker is killed while it works on jobs, and another one takes over, with the defaults of each library. Then
programs that store orders, each with a job, are killed at random moments. The orders are in the same Redis.
"""

import asyncio
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import dramatiq
import redis
import typer
from arq import Worker, create_pool, func
from arq.jobs import deserialize_job_raw
from dramatiq.brokers.redis import RedisBroker
from rich.console import Console
from rich.table import Table

from benchmarks.contenders.arq_worker import settings
from benchmarks.servers import embedded
from runic_redis import RedisStore, work

JOBS = 400
JOB_S = 0.02
# arq gives a job of a killed worker to another one after 310 seconds.
PATIENCE_S = 340.0
KILLS = 60
OPTIONS: dict[str, Any] = {"namespace": "measured"}
DATABASE = "database"


class Marks:
    """The numbers of jobs that have begun and ended, in the order of that."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url, decode_responses=True)

    def do(self, number: int) -> None:
        """Do a job: note its begin and its end."""
        self.client.rpush("began", number)
        time.sleep(JOB_S)
        self.client.rpush("ended", number)

    def count(self, key: str) -> Counter[int]:
        return Counter(map(int, self.client.lrange(key, 0, -1)))


def _ours(url: str) -> RedisStore:
    return RedisStore.from_url(url, **OPTIONS)


def _work_here(url: str, marks: Marks) -> None:
    with _ours(url) as store:
        work(store, lambda session: marks.do(session.state[0]["number"]), queues=["jobs"], concurrency=8)


def _work_with_arq(url: str, marks: Marks) -> None:
    async def job(_: dict[str, Any], number: int) -> None:
        await asyncio.to_thread(marks.do, number)

    Worker([func(job, name="job")], redis_settings=settings(url), handle_signals=False).run()


def _work_with_dramatiq(url: str, marks: Marks) -> None:
    _, broker = _actor(url, marks.do)
    worker = dramatiq.Worker(broker)
    worker.start()
    signal.pause()


def _actor(url: str, job: Callable[[int], None]) -> tuple[Any, RedisBroker]:
    broker = RedisBroker(client=redis.Redis.from_url(url))
    dramatiq.set_broker(broker)
    return dramatiq.actor(job, actor_name="job", queue_name="jobs"), broker


Enqueue = Callable[[int], object]


def _enqueue_here(url: str) -> tuple[Enqueue, Enqueue]:
    store = _ours(url)

    def enqueue(number: int) -> object:
        return store.append(f"order-{number}", [{"number": number}], queue="jobs")

    # The order is the commit itself.
    return (lambda _: None), enqueue


def _enqueue_with_arq(url: str) -> tuple[Enqueue, Enqueue]:
    runner = asyncio.Runner()
    pool = runner.run(create_pool(settings(url)))
    return _store_order(url), lambda number: runner.run(pool.enqueue_job("job", number))


def _enqueue_with_dramatiq(url: str) -> tuple[Enqueue, Enqueue]:
    actor, _ = _actor(url, lambda _: None)
    return _store_order(url), actor.send


def _store_order(url: str) -> Enqueue:
    client = redis.Redis.from_url(url)
    return lambda number: client.hset(DATABASE, str(number), "order")


def _orders_here(url: str) -> set[int]:
    with _ours(url) as store:
        return {int(workflow_id.removeprefix("order-")) for workflow_id in store.list()}


def _orders_in_database(url: str) -> set[int]:
    return {int(number) for number in Marks(url).client.hkeys(DATABASE)}


class Library(NamedTuple):
    """A library.

    Attributes:
        work: works on jobs until the process is killed.
        enqueue: returns a function that stores an order, and one that enqueues its job.
        orders: returns the orders.
    """

    work: Callable[[str, Marks], None]
    enqueue: Callable[[str], tuple[Enqueue, Enqueue]]
    orders: Callable[[str], set[int]]


LIBRARIES = {
    "runic_redis": Library(_work_here, _enqueue_here, _orders_here),
    "arq": Library(_work_with_arq, _enqueue_with_arq, _orders_in_database),
    "dramatiq": Library(_work_with_dramatiq, _enqueue_with_dramatiq, _orders_in_database),
}

app = typer.Typer()


@app.command()
def worker(name: str, url: str) -> None:
    """Work on jobs until the process is killed."""
    LIBRARIES[name].work(url, Marks(url))


@app.command()
def enqueuer(name: str, url: str, first: int) -> None:
    """Store orders, each with its job, until the process is killed."""
    store, enqueue = LIBRARIES[name].enqueue(url)
    number = first
    while True:
        store(number)
        enqueue(number)
        number += 1


def started(command: str, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.measure_jobs", command, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for(marks: Marks, count: int, patience_s: float = 60.0) -> float:
    """Wait until this many jobs have ended. Return the seconds."""
    began = time.monotonic()
    while len(marks.count("ended")) < count and time.monotonic() - began < patience_s:
        time.sleep(0.05)
    return time.monotonic() - began


def kill_worker(name: str) -> list[str]:
    """Kill a worker in the middle of its jobs. Return what became of them."""
    with tempfile.TemporaryDirectory() as directory, embedded(Path(directory)) as server:
        store, enqueue = LIBRARIES[name].enqueue(server.url)
        for number in range(JOBS):
            store(number)
            enqueue(number)
        marks = Marks(server.url)
        one = started("worker", name, server.url)
        wait_for(marks, JOBS // 2)
        time.sleep(random.uniform(0.0, 2 * JOB_S))
        one.kill()
        one.wait()
        in_hand = sum(marks.count("began").values()) - sum(marks.count("ended").values())
        other = started("worker", name, server.url)
        took_s = wait_for(marks, JOBS, PATIENCE_S)
        other.kill()
        other.wait()
        began, ended = marks.count("began"), marks.count("ended")
        twice = sum(count > 1 for count in ended.values())
        return [
            str(in_hand),
            str(JOBS - len(ended)),
            str(twice),
            str(sum(count > 1 for count in began.values())),
            f"{took_s:.1f} s",
        ]


def kill_enqueuers(name: str, kills: int) -> list[str]:
    """Kill programs that store orders at random moments. Return how many orders have no job."""
    source = random.Random(1)
    with tempfile.TemporaryDirectory() as directory, embedded(Path(directory)) as server:
        for kill in range(kills):
            process = started("enqueuer", name, server.url, str(kill * 1_000_000))
            first = kill * 1_000_000
            while not {one for one in LIBRARIES[name].orders(server.url) if one >= first}:
                time.sleep(0.02)
            time.sleep(source.uniform(0.0, 0.05))
            process.kill()
            process.wait()
        orders = LIBRARIES[name].orders(server.url)
        jobs = _jobs(name, server.url)
        return [f"{kills}", f"{len(orders):,}", f"{len(orders - jobs):,}"]


def _jobs(name: str, url: str) -> set[int]:
    """Return the numbers of the jobs that are enqueued."""
    client = redis.Redis.from_url(url)
    if name == "arq":
        ids = client.zrange("arq:queue", 0, -1)
        return {deserialize_job_raw(client.get(b"arq:job:" + one))[1][0] for one in ids}
    if name == "dramatiq":
        in_queue = set(client.lrange("dramatiq:jobs", 0, -1))
        messages = client.hgetall("dramatiq:jobs.msgs")
        return {dramatiq.Message.decode(messages[one]).args[0] for one in in_queue}
    with _ours(url) as store:
        found = iter(lambda: store.claim("judge", 128, queues=["jobs"]), [])
        return {int(lease.workflow_id.removeprefix("order-")) for leases in found for lease in leases}


@app.command()
def measure(kills: Annotated[int, typer.Option(help="How often to kill an enqueuer.")] = KILLS) -> None:
    """Measure all libraries, and print what became of the jobs."""
    console = Console(width=110)
    table = Table(
        "", "in hand", "lost", "ended twice", "begun twice", "all done after", title=f"a worker killed, {JOBS} jobs"
    )
    with ThreadPoolExecutor() as pool:
        for name, row in zip(LIBRARIES, pool.map(kill_worker, LIBRARIES), strict=True):
            table.add_row(name, *row)
    console.print(table)
    table = Table("", "kills", "orders", "orders without a job", title="enqueuers killed")
    for name in LIBRARIES:
        table.add_row(name, *kill_enqueuers(name, kills))
    console.print(table)


if __name__ == "__main__":
    app()
