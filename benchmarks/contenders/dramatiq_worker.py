"""The process of dramatiq: python dramatiq_worker.py URL. A line gives the number of jobs, and is answered then."""

import sys
import threading

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from redis import Redis

_THREADS = 8


def use_broker(url: str) -> RedisBroker:
    """Return a broker, and make it the one of all actors."""
    made = RedisBroker(client=Redis.from_url(url), namespace="bench-dramatiq")
    dramatiq.set_broker(made)
    return made


done = threading.Semaphore(0)


def run(number: int) -> None:  # noqa: ARG001
    done.release()


def work(url: str) -> None:
    worker = dramatiq.Worker(use_broker(url), worker_threads=_THREADS, worker_timeout=5)
    dramatiq.actor(run, actor_name="job", queue_name="jobs")
    worker.start()
    print("true", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            done.acquire()
        print("true", flush=True)
    worker.stop()


if __name__ == "__main__":
    work(*sys.argv[1:])
