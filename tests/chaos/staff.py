"""Processes at work: writers, consumers of subscriptions, runners of a projection, and others that keep a record."""

import itertools
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.deliveries import Appended, Delivery
from tests.chaos.history import Verdict
from tests.forking import Forked
from tests.servers import wait_until

__all__ = ["LIMIT_S", "Consumers", "Recorders", "Runners", "Staff", "Writers"]

_TESTS = Path(__file__).parent.parent
# Ends a wait for progress. It is long, because a slow machine must not fail a run.
LIMIT_S = 120.0


class _Worker:
    """A process that is started again after each kill."""

    def __init__(self, program: str, *arguments: object) -> None:
        self._program = (_TESTS / program).read_text()
        self._arguments = arguments
        self.start()

    def start(self) -> None:
        """Start the process, for the first time or again."""
        self.process = Forked(self._program, *self._arguments)

    def kill(self) -> list[str]:
        """Kill the process. Return the errors that it reported."""
        self.process.kill()
        return self._ended()

    def end(self) -> list[str]:
        """Have the process end by itself. Return the errors that it reported."""
        self.process.stdin.close()
        timer = threading.Timer(LIMIT_S, self.process.kill)
        timer.start()
        errors = self._ended()
        timer.cancel()
        return errors

    def _ended(self) -> list[str]:
        status, said = self.process.wait(), self.process.stderr.read()
        self.process.close()
        return [f"{self._arguments}: it ended with {status}: {said[-2000:]}"] if said or status not in (0, -9) else []


class _Recorder(_Worker):
    """A process that writes a record, whose lines are read."""

    def __init__(self, program: str, task: dict[str, Any], record: Path) -> None:
        record.touch()
        self._file = record.open(encoding="utf-8")
        self._rest = ""
        super().__init__(program, json.dumps({**task, "record": str(record)}))

    def new_lines(self) -> list[str]:
        """Return the whole lines that are new."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        return lines

    def close(self) -> None:
        """Close the record."""
        self._file.close()


class Recorders:
    """Processes of one program that record what they did.

    Args:
        program: the path of the program in the tests.
        directory: where they record.
        name: names their files.
        tasks: the task of each.

    Attributes:
        count: how many lines of theirs counted.
        errors: the errors that they should not have got.
    """

    def __init__(self, program: str, directory: Path, name: str, tasks: Sequence[dict[str, Any]]) -> None:
        self.count = 0
        self.errors: list[str] = []
        self._workers = [_Recorder(program, task, directory / f"{name}-{n}") for n, task in enumerate(tasks)]

    def read(self, line: str) -> int:
        """Read a new line. Return how much it counts."""
        raise NotImplementedError

    def look(self) -> list[int]:
        """Read what is new. Return how much that counts, for each process."""
        counts = [sum(map(self.read, worker.new_lines())) for worker in self._workers]
        self.count += sum(counts)
        return counts

    def await_each(self, count: int, purpose: str) -> None:
        """Wait until each process has got further by so much.

        Args:
            count: by how much, as lines count.
            purpose: names the wait, if it takes too long.
        """
        left = [count] * len(self.look())

        def have_got_further() -> bool:
            left[:] = [rest - done for rest, done in zip(left, self.look(), strict=True)]
            return max(left) <= 0

        wait_until(have_got_further, purpose, limit_s=LIMIT_S)

    def tell(self, number: int, line: str) -> None:
        """Write a line to the standard input of a process."""
        self._workers[number].process.stdin.write(line + "\n")
        self._workers[number].process.stdin.flush()

    def kill_one(self, source: Random) -> None:
        """Kill one of them at any moment, and start it again."""
        worker = source.choice(self._workers)
        self.errors += worker.kill()
        worker.start()

    def end(self) -> None:
        """Have all end, after the work in hand."""
        for worker in self._workers:
            self.errors += worker.end()
        self.look()
        for worker in self._workers:
            worker.close()


class Writers(Recorders):
    """Processes that write until they are told to end.

    Args:
        directory: where they record what was acknowledged.
        count: how many there are.
        task: what they are told, see `tests.chaos.writing_worker`.
        seed: the seed of their random choices.

    Attributes:
        appended: the commits that were acknowledged.
    """

    def __init__(self, directory: Path, count: int, task: dict[str, Any], seed: str) -> None:
        self.appended: list[Appended] = []
        tasks = [{**task, "seed": f"{seed}.{number}"} for number in range(count)]
        super().__init__("chaos/writing_worker.py", directory, "writer", tasks)

    def read(self, line: str) -> int:
        """Read a commit."""
        workflow_id, cursor, size, name, number = line.split(" ")
        self.appended.append(Appended(workflow_id, int(cursor), int(size), name, int(number)))
        return 1


class Consumers:
    """Processes that consume one subscription, and are killed and started again.

    Args:
        directory: where they record what they get.
        faces: for each, "threads" or "asyncio".
        task: what they are told, see `tests.chaos.consuming_worker`.

    Attributes:
        batch: how many acknowledgements they store at once.
        deliveries: what they got.
        errors: the errors that they should not have got.
    """

    def __init__(self, directory: Path, faces: Sequence[str], task: dict[str, Any]) -> None:
        self.name = task["name"]
        self.batch = task["batch"]
        self.deliveries: list[Delivery] = []
        self.errors: list[str] = []
        self._numbers = itertools.count()
        self._workers = [
            _Recorder("chaos/consuming_worker.py", {**task, "face": face}, directory / f"{self.name}-{number}")
            for number, face in enumerate(faces)
        ]
        self._lives = [next(self._numbers) for _ in faces]
        self._current: dict[int, Delivery] = {}

    def look(self) -> int:
        """Read what is new. Return how many commits were acknowledged."""
        return sum(self._look(number) for number in range(len(self._workers)))

    def _look(self, number: int) -> int:
        count = 0
        for line in self._workers[number].new_lines():
            kind, when, *rest = line.split(" ")
            if kind == "<":
                partition, place, workflow_id, cursor, size, of, name = rest
                self._current[number] = Delivery(
                    self._lives[number],
                    (int(partition), place),
                    *(workflow_id, int(cursor), int(size), int(of), name),
                    int(when),
                )
                self.deliveries.append(self._current[number])
            else:
                self._current[number].ended_ns = int(when)
                count += 1
        return count

    def kill_one(self, source: Random) -> None:
        """Kill one of them at any moment, and start it again."""
        number = source.randrange(len(self._workers))
        self.errors += self._workers[number].kill()
        self._look(number)
        self._lives[number] = next(self._numbers)
        self._workers[number].start()

    def end(self) -> None:
        """Have all end."""
        for worker in self._workers:
            self.errors += worker.end()
        self.look()
        for worker in self._workers:
            worker.close()

    @property
    def longest_outage_s(self) -> float:
        """The longest time without an acknowledgement."""
        times = sorted(one.ended_ns for one in self.deliveries if one.ended_ns is not None)
        return max((later - one for one, later in itertools.pairwise(times)), default=0) / 1e9


class Runners:
    """Processes that run one projection in turn, and are killed and started again.

    Args:
        arguments: what they are told, see `tests.projecting_worker`.

    Attributes:
        errors: the errors that they should not have got.
    """

    def __init__(self, count: int, *arguments: object) -> None:
        self.errors: list[str] = []
        self._workers = [_Worker("projecting_worker.py", *arguments) for _ in range(count)]

    def kill_one(self, source: Random) -> None:
        """Kill one of them at any moment, and start it again."""
        worker = source.choice(self._workers)
        self.errors += worker.kill()
        worker.start()

    def end(self) -> None:
        """Kill all."""
        for worker in self._workers:
            self.errors += worker.kill()


class Staff(ABC):
    """All processes of a run. Kinds of faults use it like the `Crew` of those that use threads.

    Args:
        writers: those that write.

    Attributes:
        stopping: set when a fault must not wait any longer.
        longest_outage_s: the longest time without an acknowledged commit.
    """

    def __init__(self, writers: Recorders) -> None:
        self._writers = writers
        self.stopping = threading.Event()
        self.longest_outage_s = 0.0

    @property
    def acknowledged(self) -> int:
        """How many writes were acknowledged."""
        self._writers.look()
        return self._writers.count

    def await_progress(self) -> None:
        """Wait until each writer, and those that follow, have got further."""
        self.await_commits(1)
        self._await_followers()

    def await_commits(self, each: int) -> None:
        """Wait until each writer has so many more commits acknowledged."""
        self._writers.await_each(each, "each writer to have commits acknowledged")

    @abstractmethod
    def _await_followers(self) -> None:
        """Wait until those that follow have got further."""

    @abstractmethod
    def kill_one(self, source: Random) -> None:
        """Kill one of those that follow at any moment, and start it again."""

    @abstractmethod
    def stop(self) -> None:
        """Have all end: first those that write, then, when they have got everything, those that follow."""

    @abstractmethod
    def errors(self) -> list[str]:
        """Return the errors that processes should not have got."""

    @abstractmethod
    def judge(self) -> Verdict:
        """Compare what those that follow got with the stored feed, and with what writers were told."""
