"""Eight processes claim and work, and are killed and stopped at random: each workflow is done once."""

import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

from runic_redis import RedisStore
from tests.claiming_worker import STEPS, TTL_S, Finished, Step
from tests.forking import Forked
from tests.servers import RunningServer

WORKERS = 8
# There are always at least so many workflows to work on. The longest due comes first, so with more of them a stopped
# worker would go on before its workflow is taken over.
AT_HAND = 12
# At least so many workers are killed, and so many stopped.
TROUBLES = 10
PROGRAM = (Path(__file__).parent / "claiming_worker.py").read_text()


class Crew:
    """The worker processes, and their output."""

    def __init__(self, url: str, namespace: str) -> None:
        self._url = url
        self._namespace = namespace
        self._numbers = itertools.count()
        self._readers: list[threading.Thread] = []
        self.running: list[Forked] = []
        self.said: list[str] = []
        self.errors = ""
        # The last line of each worker's output.
        self._last: dict[Forked, str] = {}

    def start(self) -> None:
        name = f"worker-{next(self._numbers)}"
        process = Forked(PROGRAM, self._url, self._namespace, name)
        self.running.append(process)
        self._readers.append(threading.Thread(target=self._read, args=(process,)))
        self._readers[-1].start()

    def _read(self, process: Forked) -> None:
        with process.stdout as lines:
            for line in lines:
                self.said.append(line)
                self._last[process] = line

    def working(self) -> list[Forked]:
        """Return the workers that hold a lease, or held one just now."""
        return [process for process in self.running if self._last.get(process, "").startswith("took")]

    def heard(self, word: str) -> int:
        return sum(line.startswith(word) for line in self.said)

    def kill(self, process: Forked) -> None:
        self.running.remove(process)
        process.kill()
        process.wait()
        process.stdin.close()
        with process.stderr as errors:
            self.errors += errors.read()

    def end(self) -> None:
        for process in list(self.running):
            self.kill(process)
        for reader in self._readers:
            reader.join()


def test_each_workflow_is_done_once_although_workers_are_killed_and_stopped(
    valkey: RunningServer, namespace: str
) -> None:
    """Run until there were enough kills and stops, and a worker found its lease outdated."""
    source = random.Random(int(os.environ.get("CLAIMING_SEED", "1")))
    workflows: list[str] = []
    killed = stopped = 0
    crew = Crew(valkey.url(), namespace)
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=16) as store:
        try:
            for _ in range(WORKERS):
                crew.start()
            while min(killed, stopped) < TROUBLES or not crew.heard("lost"):
                while len(workflows) - crew.heard("did") < AT_HAND:
                    workflows.append(f"w-{len(workflows)}")
                    store.release(store.acquire(workflows[-1], "test"))
                time.sleep(source.uniform(0.1, 0.5))  # the workers work undisturbed
                if not (working := crew.working()):
                    continue
                victim = source.choice(working)
                if source.random() < 0.5:
                    crew.kill(victim)
                    crew.start()
                    killed += 1
                else:
                    # It stops for longer than its lease lasts, and continues work that another worker has taken over.
                    victim.send_signal(signal.SIGSTOP)
                    threading.Timer(source.uniform(2, 3) * TTL_S, victim.send_signal, [signal.SIGCONT]).start()
                    stopped += 1
            for workflow_id in workflows:
                for record in store.tail(workflow_id):
                    if record.cursor > STEPS:
                        break
            assert all(process.poll() is None for process in crew.running)
        finally:
            for timer in [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]:
                timer.join()
            crew.end()
        assert "Traceback" not in crew.errors

        hands = Counter[int]()
        for workflow_id in workflows:
            *steps, last = store.stream(workflow_id)
            assert [step.number for step in steps] == list(range(1, STEPS + 1)), workflow_id
            assert all(isinstance(step, Step) for step in steps)
            assert isinstance(last, Finished)
            tokens = [one.token for one in (*steps, last)]
            assert tokens == sorted(tokens), "an outdated lease wrote"
            hands[len(set(tokens))] += 1
        assert hands.total() > hands[1], "no workflow was taken over, so the test shows nothing"
